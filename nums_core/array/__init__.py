"""NumPy's and dask.array's namespace, lazily, on blocks: `import nums_core.array as np` (or `as da`).

Sub-packages (`random`, `linalg`, `fft`, ...) are imported when they are first used.
"""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
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
from nums_core.array.indexing import *
from nums_core.array.io import *
from nums_core.array.joining import *
from nums_core.array.lengths import *
from nums_core.array.manipulation import *
from nums_core.array.moving import *
from nums_core.array.names import *
from nums_core.array.overlap import *
from nums_core.array.products import *
from nums_core.array.ranges import *
from nums_core.array.reductions import *
from nums_core.array.scans import *
from nums_core.array.searching import *
from nums_core.array.sorting import *
from nums_core.array.statistics import *
from nums_core.array.stores import *

if _TYPE_CHECKING:
    from nums_core.array.exchange import *
    from nums_core.array.gufuncs import *
    from nums_core.array.histograms import *
    from nums_core.array.padding import *
    from nums_core.array.positions import *
    from nums_core.array.quantiles import *
    from nums_core.array.sets import *
    from nums_core.array.signals import *
    from nums_core.array.tuning import *

_FAMILIES = (
    "assignment", "binary", "block_view", "blocks", "computing", "contractions", "creation", "diagonals",
    "elementwise", "indexing", "io", "joining", "lengths", "manipulation", "moving", "names", "overlap", "products",
    "ranges", "reductions", "scans", "searching", "sorting", "statistics", "stores",
)
# Families that a first result does without: their names, by which they are imported when first used.
_DEFERRED = {
    "exchange": ("from_dask",),
    "gufuncs": ("apply_along_axis", "apply_gufunc", "apply_over_axes", "as_gufunc", "gufunc", "vectorize"),
    "histograms": ("bincount", "histogram", "histogram2d", "histogram_bin_edges", "histogramdd"),
    "padding": ("pad",),
    "positions": ("c_", "fromfunction", "indices", "meshgrid", "mgrid", "ndenumerate", "ogrid", "r_"),
    "quantiles": ("median", "nanmedian", "nanpercentile", "nanquantile", "percentile", "quantile"),
    "sets": (
        "intersect1d", "isin", "setdiff1d", "setxor1d", "union1d", "unique", "unique_all", "unique_counts",
        "unique_inverse", "unique_values",
    ),
    "signals": (
        "convolve", "correlate", "gradient", "poly", "polyadd", "polyder", "polydiv", "polyfit", "polyint",
        "polymul", "polysub", "polyval", "roots", "trapezoid", "unwrap",
    ),
    "tuning": ("tune_chunks",),
}
_LAZY = ("fft", "lib", "linalg", "ma", "random", "stats")

__all__ = ["Array", "from_array"]
for _family in _FAMILIES:
    __all__ += _importlib.import_module(f"nums_core.array.{_family}").__all__
for _names in _DEFERRED.values():
    __all__ += _names


def __getattr__(name: str) -> _Any:
    family = next((f for f, names in _DEFERRED.items() if name in names), None)
    if family is not None:
        module = _importlib.import_module(f"nums_core.array.{family}")
        globals().update({n: getattr(module, n) for n in module.__all__})
        return globals()[name]
    if name in _LAZY:
        try:
            return _importlib.import_module(f"nums_core.array.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"nums_core.array.{name}":
                raise
    raise AttributeError(f"module 'nums_core.array' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_LAZY})
