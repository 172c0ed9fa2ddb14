"""The gauges: every metric declared once, logs, health. Imports nothing of ours."""
