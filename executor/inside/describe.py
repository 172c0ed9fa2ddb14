"""What this interpreter is and where its files are, for the executor to build a root that holds them."""

import importlib.util
import os
import sys
from typing import Any, Dict, List


def runtime() -> Dict[str, Any]:
    """version, executable, paths: every file or folder that imports are served from; lacking: what a runtime should have."""
    paths = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]
    paths += [entry for entry in sys.path if entry]
    paths += _editable()
    paths.append(os.path.realpath(sys.executable))
    return {
        "version": "%d.%d.%d" % sys.version_info[:3],
        "executable": sys.executable,
        "paths": [path for path in dict.fromkeys(os.path.abspath(p) for p in paths) if os.path.exists(path)],
        "lacking": [name for name in ("dill", "btrdb") if importlib.util.find_spec(name) is None],
    }


def _editable() -> List[str]:
    """Where setuptools' editable installs really are: their finders hold a mapping of names to paths."""
    found = []
    for name, module in list(sys.modules.items()):
        mapping = getattr(module, "MAPPING", None)
        if name.startswith("__editable__") and isinstance(mapping, dict):
            found += [str(path) for path in mapping.values()]
    return found
