"""Lowering of quantiles of long lines: exact selection, by the runs and samples of the sample sort (lowering/sort.py).

    run (m), sample (m)      as in the sort
    brackets (1)             for each quantile, two samples that its elements are surely between
    window (m k)             what of a run lies between them: about one block in all runs together
    select (k), blend (1)    the two elements, and the quantiles

Every element is sorted once, within its block, and none but the windows move.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nums_core.expr.lower import Lowering
from nums_core.expr.lowering.sort import SampleSort, counted, lines_of, stride_for
from nums_core.expr.node import Expr


def _quantile(low: Lowering, node: Expr) -> np.ndarray:
    """Params: q, its dtype, the axes, the method, whether NaN are skipped. The result's first axis counts quantiles."""
    (x,), (q, q_dtype, axes, method, skip_nan) = node.args, node.params
    lines = lines_of(low.of(x), axes)
    sizes = [math.prod(c) for c in _blocks(x, axes)]
    sort = SampleSort(low, node, lines, sizes, x.dtype.itemsize)
    n_lines, m, k = sort.n_lines, sort.m, len(q)
    stride = stride_for(sort.n // m, m)
    runs = sort.runs(False)
    brackets = sort.add("brackets", (q, method, skip_nan, stride), (n_lines,), sort.samples(runs, stride), 8 * k,
                        flop=100.0, module="quantile")
    grid = (n_lines, m, k)
    inputs = np.stack([np.broadcast_to(runs[:, :, None], grid), np.broadcast_to(brackets[:, None, None], grid)], axis=-1)
    windows = sort.add("window", (), grid, inputs, sort.n / m**2, counted(*grid), module="quantile")
    inputs = np.concatenate([np.broadcast_to(brackets[:, None, None], (n_lines, 1, k)), windows], axis=1)
    pairs = sort.add("select", (), (n_lines, k), inputs.transpose(0, 2, 1), 2, counted(n_lines, k), 100.0, "quantile")
    shape = (k, *(1,) * (node.ndim - 1))
    inputs = np.concatenate([brackets[:, None], pairs], axis=1)
    return sort.add("blend", (method, q_dtype, node.dtype.str, shape), node.grid, inputs, k, module="quantile")


def _blocks(x: Expr, axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Extents along `axes` of the blocks of a line, in C order."""
    out: list[tuple[int, ...]] = [()]
    for axis in axes:
        out = [(*before, n) for before in out for n in x.chunks[axis]]
    return out


LOWER: dict[str, Callable[[Lowering, Expr], np.ndarray]] = {"quantile": _quantile}
