"""Neural architecture search: spaces as plain data, problems, training, screening, ensembles.

Importing the package costs nothing; ``from dhmpi.nas import SearchSpace, layers as L`` imports no TensorFlow.  Start
reading at ``dhmpi/nas/space.py`` (what is searched), then ``dhmpi/nas/build.py`` (how it becomes a network).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dhmpi.nas.problem import NaProblem
    from dhmpi.nas.space import SearchSpace

__all__ = ["NaProblem", "SearchSpace", "layers"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is asked for: `import dhmpi.nas` stays free."""
    import importlib

    if name == "SearchSpace":
        return importlib.import_module("dhmpi.nas.space").SearchSpace
    if name == "NaProblem":
        return importlib.import_module("dhmpi.nas.problem").NaProblem  # brings ConfigSpace
    if name == "layers":
        return importlib.import_module("dhmpi.nas.layers")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
