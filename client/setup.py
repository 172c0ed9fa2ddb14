"""For the pip that comes with Python 3.6, which asks for this file; all is in setup.cfg."""

from setuptools import setup

setup()
