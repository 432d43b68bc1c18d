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
REDUCTIONS.row("user", "reduce", 1, lambda d, *, dtype, **kw: np.dtype(dtype), 10)

# Those whose blocks may be mapped tile by tile, so that several of them can share one pass.
TILED = frozenset(REDUCTIONS) - {"tally", "topk", "user"}

# Arrays in the partial state of a reduction; one where it is not said.
STATE_ARRAYS = {"moments": 2, "argmax": 2, "argmin": 2}

# Exactly associative on these kinds: the planner may pair partials in any order without changing a bit.
EXACT = frozenset({"max", "min", "fmax", "fmin", "any", "all", "bitwise_or", "bitwise_and", "bitwise_xor", "count",
                   "argmax", "argmin"})
