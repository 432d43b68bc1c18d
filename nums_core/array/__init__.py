"""NumPy's and dask.array's namespace, lazily, on blocks: `import nums_core.array as np` (or `as da`).

Sub-packages (`random`, `linalg`, `fft`, ...) are imported when they are first used.
"""

import importlib as _importlib
from typing import Any as _Any

from nums_core.array.array import Array as Array
from nums_core.array.array import from_array as from_array
from nums_core.array.assignment import *
from nums_core.array.binary import *
from nums_core.array.block_view import *
from nums_core.array.blocks import *
from nums_core.array.computing import *
from nums_core.array.contractions import *
from nums_core.array.creation import *
from nums_core.array.diagonals import *
from nums_core.array.elementwise import *
from nums_core.array.gufunc import *
from nums_core.array.histograms import *
from nums_core.array.indexing import *
from nums_core.array.io import *
from nums_core.array.joining import *
from nums_core.array.lengths import *
from nums_core.array.manipulation import *
from nums_core.array.moving import *
from nums_core.array.names import *
from nums_core.array.overlap import *
from nums_core.array.padding import *
from nums_core.array.positions import *
from nums_core.array.products import *
from nums_core.array.quantiles import *
from nums_core.array.ranges import *
from nums_core.array.reductions import *
from nums_core.array.scans import *
from nums_core.array.searching import *
from nums_core.array.sets import *
from nums_core.array.signals import *
from nums_core.array.sorting import *
from nums_core.array.statistics import *
from nums_core.array.stores import *

_FAMILIES = (
    "assignment", "binary", "block_view", "blocks", "computing", "contractions", "creation", "diagonals", "elementwise",
    "gufunc", "histograms", "indexing", "io", "joining", "lengths", "manipulation", "moving", "names", "overlap",
    "padding", "positions", "products", "quantiles", "ranges", "reductions", "scans", "searching",
    "sets", "signals", "sorting", "statistics", "stores",
)
_LAZY = ("fft", "lib", "linalg", "ma", "random", "stats")

__all__ = ["Array", "from_array"]
for _family in _FAMILIES:
    __all__ += _importlib.import_module(f"nums_core.array.{_family}").__all__


def __getattr__(name: str) -> _Any:
    if name in _LAZY:
        try:
            return _importlib.import_module(f"nums_core.array.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"nums_core.array.{name}":
                raise
    raise AttributeError(f"module 'nums_core.array' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_LAZY})
