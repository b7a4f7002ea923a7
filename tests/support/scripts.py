"""Scripts beside the package (benchmarks, pages of results), as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

PROJECT = Path(__file__).resolve().parents[2]


def script(path: str) -> ModuleType:
    """The script at a path within the project, loaded under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"script_{Path(path).stem}", PROJECT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
