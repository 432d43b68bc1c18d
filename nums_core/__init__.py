"""NumPy arrays that may be larger than a core, a GPU or a machine.

    import nums_core.array as np

    x = np.random.default_rng(0).normal(size=(10_000_000, 16))
    (x - x.mean(axis=0)).std(axis=0).compute()
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nums_core.array.calibrating import calibrate as calibrate
    from nums_core.array.computing import compute as compute
    from nums_core.array.computing import explain as explain
    from nums_core.array.computing import jit as jit
    from nums_core.array.computing import last_report as last_report
    from nums_core.array.computing import persist as persist
    from nums_core.session import init as init
    from nums_core.session import shutdown as shutdown

__version__ = "0.1.0"

_LAZY = {"init": "session", "shutdown": "session", "compute": "array.computing", "persist": "array.computing",
         "jit": "array.computing", "explain": "array.computing", "last_report": "array.computing",
         "calibrate": "array.calibrating"}


def __getattr__(name: str) -> Any:
    """The few names of the top level, imported when first used: `import nums_core` itself costs nothing."""
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(f"nums_core.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'nums_core' has no attribute {name!r}; arrays live in nums_core.array")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
