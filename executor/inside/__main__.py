"""python -s -B executor/inside ...: loads this folder as a package of a name that no handler imports by accident."""

import importlib.util
import os
import sys

NAME = "eventproc_inside"


def _load() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if entry and os.path.abspath(entry) != here]
    spec = importlib.util.spec_from_file_location(
        NAME, os.path.join(here, "__init__.py"), submodule_search_locations=[here]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)


_load()
importlib.import_module(NAME + ".launch").main(sys.argv[1:])
