"""Versions of what is not a Python package, in one place."""

KAFKA = "4.3.0"
KAFKA_SCALA = "2.13"
KAFKA_LOG4J = "2.24.3"
KAFKA_IMAGE = f"apache/kafka:{KAFKA}"
POSTGRES_IMAGE = "postgres:17"  # for tests, where a Docker engine answers
MAVEN_DEPENDENCY_PLUGIN = "3.8.1"
