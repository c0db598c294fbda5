"""The programs of the how-to pages, as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

HOWTO = Path(__file__).resolve().parent.parent / "docs" / "howto"


def load(name: str) -> ModuleType:
    """``docs/howto/<name>.py``, which finds the others there by their bare names; once."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, HOWTO / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
