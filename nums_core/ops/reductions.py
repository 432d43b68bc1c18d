"""Reductions: a row each; map, combine and finish are the device's, the tree is `ops.tree`'s."""

from __future__ import annotations

from typing import Any

import numpy as np

from nums_core.ops.op import Table, boolean, index, same

REDUCTIONS = Table()


def accumulator(d: Any, *, dtype: Any = None, **kw: Any) -> np.dtype:
    """NumPy's accumulator for sums and products: small integers and booleans become the default integer."""
    if dtype is not None:
        return np.dtype(dtype)
    d = np.dtype(d)
    if d.kind in "bi" and d.itemsize < np.dtype(int).itemsize:
        return np.dtype(int)
    if d.kind == "u" and d.itemsize < np.dtype(np.uint).itemsize:
        return np.dtype(np.uint)
    return d


def inexact(d: Any, *, dtype: Any = None, **kw: Any) -> np.dtype:
    """Result of a mean or variance: integers and booleans become float64."""
    if dtype is not None:
        return np.dtype(dtype)
    d = np.dtype(d)
    return d if d.kind in "fcm" else np.dtype(float)


REDUCTIONS.row("sum", "reduce", 1, accumulator)
REDUCTIONS.row("prod", "reduce", 1, accumulator)
REDUCTIONS.row("max", "reduce", 1, same)
REDUCTIONS.row("min", "reduce", 1, same)
REDUCTIONS.row("fmax", "reduce", 1, same)
REDUCTIONS.row("fmin", "reduce", 1, same)
REDUCTIONS.row("any", "reduce", 1, boolean)
REDUCTIONS.row("all", "reduce", 1, boolean)
REDUCTIONS.row("bitwise_or", "reduce", 1, same)
REDUCTIONS.row("bitwise_and", "reduce", 1, same)
REDUCTIONS.row("bitwise_xor", "reduce", 1, same)
REDUCTIONS.row("mean", "reduce", 1, inexact)
REDUCTIONS.row("moments", "reduce", 1, inexact, 4)
REDUCTIONS.row("argmax", "reduce", 1, index, 2)
REDUCTIONS.row("argmin", "reduce", 1, index, 2)
REDUCTIONS.row("count", "reduce", 1, index)
REDUCTIONS.row("tally", "reduce", 1, same)
REDUCTIONS.row("topk", "reduce", 1, same, 20)
REDUCTIONS.row("qr", "reduce", 1, inexact, 20)
REDUCTIONS.row("user", "reduce", 1, lambda d, *, dtype, **kw: np.dtype(dtype), 10)

# Those whose blocks may be mapped tile by tile, so that several of them can share one pass.
TILED = frozenset(REDUCTIONS) - {"tally", "topk", "user", "qr"}

# Arrays in the partial state of a reduction; one where it is not said.
STATE_ARRAYS = {"moments": 2, "argmax": 2, "argmin": 2}

# Their state is one array, combined element by element, so that it may be combined in pieces.
ELEMENTWISE_STATE = frozenset({"sum", "prod", "any", "all", "bitwise_or", "bitwise_and", "bitwise_xor", "count"})

# Exact in any order: the planner may pair partials as it likes without changing a bit. Some are so on integers only; of
# floating-point maxima +0.0 and -0.0 it is the one that comes second.
EXACT = frozenset({"any", "all", "bitwise_or", "bitwise_and", "bitwise_xor", "count"})
EXACT_ON_INTEGERS = frozenset({"sum", "prod", "max", "min", "fmax", "fmin"})


def any_order(name: str, dtype: Any) -> bool:
    """Whether partial results may be combined in any order; `dtype` is that of the result, None where it is not known."""
    return name in EXACT or (name in EXACT_ON_INTEGERS and dtype is not None and np.dtype(dtype).kind in "biu")
