"""What runs beside users' code: zygote and child. Standard library only, Python 3.6 and newer, trusted by nobody outside."""
