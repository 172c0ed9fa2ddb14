"""bubblewrap's side: a cold interpreter that reads a pickled (handler, values), calls it and prints what it returns."""

import sys

import btrdb  # noqa: F401 - the same modules everywhere
import dill
import numpy  # noqa: F401
import pandas  # noqa: F401

handler, values = dill.load(sys.stdin.buffer)
sys.stdout.write(str(handler(values)))
