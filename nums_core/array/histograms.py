"""Counting: bincount and histograms. Every block is counted by NumPy, and the counts are added along the tree."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nums_core.array import reductions
from nums_core.array.array import Array, _apply, as_expr, known_expr
from nums_core.errors import DTypeError, ShapeError
from nums_core.expr import build
from nums_core.expr.node import Expr


def _tally(function: Any, kwargs: dict[str, Any], args: Sequence[Expr], shape: tuple[Any, ...], dtype: Any,
           flop: float) -> Array:
    """The sum over all blocks of what `function` counts in each; `args` are cut alike, or 0-d, or in one block."""
    params = (function, tuple(sorted(kwargs.items())), "tally", tuple(range(args[0].ndim)), (), (), flop)
    return Array(build.custom("reduction.map_reduce", args, params, shape, dtype, tuple((n,) for n in shape)))


def _like(weights: Any, x: Expr, words: str) -> Expr:
    w = as_expr(weights)
    if w.shape != x.shape and not any(n != n for n in (*w.shape, *x.shape)):
        raise ShapeError(f"{words}; the array has shape {x.shape}, the weights {w.shape}")
    return build.rechunk(w, x.chunks)


# -- bincount ---------------------------------------------------------------------------------------------------------

def bincount(x: Any, weights: Any = None, minlength: int = 0, split_every: Any = None) -> Array:
    """How often each number from 0 occurs, or the sum of its weights.

    The length, max(x) + 1 or `minlength`, is known when the result is computed.

    Returns
    -------
    Array, one axis, intp; float64 with `weights`

    Raises
    ------
    ValueError
        `x` has several axes; at compute time: it has negative numbers.
    DTypeError
        `x` is not of integers.
    """
    e = as_expr(x)
    if e.ndim != 1:
        raise ValueError(f"object too deep for desired array: bincount takes one axis, got shape {e.shape}; use "
                         "x.ravel()" if e.ndim else "object of too small depth for desired array")
    if not np.can_cast(e.dtype, np.intp, "safe"):
        raise DTypeError(f"Cannot cast array data from {e.dtype!r} to {np.dtype(np.intp)!r} according to the rule "
                         "'safe'; use x.astype(int)")
    if minlength < 0:
        raise ValueError(f"'minlength' must not be negative; got {minlength}")
    args = [e]
    if weights is not None:
        args.append(_like(weights, e, "The weights and list don't have the same length."))
    dtype = float if weights is not None else np.intp
    return _tally(np.bincount, {"minlength": int(minlength)}, args, (np.nan,), dtype, 4)


# -- histogram --------------------------------------------------------------------------------------------------------

def histogram(a: Any, bins: Any = 10, range: Any = None, density: bool | None = None,  # noqa: A002
              weights: Any = None, *, normed: Any = None) -> tuple[Array, Array]:
    """Counts of values in bins, and the edges of the bins, as `numpy.histogram`; both are lazy.

    Without `range`, a first pass over the data finds its limits; both passes are part of one plan.

    Parameters
    ----------
    bins : int, sequence or Array of edges, or the name of an estimator
        Estimators ("auto", "fd", "doane", "scott", "rice", "sturges", "sqrt") compute what they need at once.
    weights : array, shape of `a`
    density : bool
        Divide by the sum and by the width of each bin.
    """
    x = as_expr(a)
    if x.dtype == bool:
        x = build.cast(x, np.dtype(np.uint8))
    density = density if normed is None else normed
    edges, uniform = _edges(x, bins, range, weights is not None)
    args, dtype = [x], np.dtype(np.intp)
    if weights is not None:
        args.append(_like(weights, x, "weights should have the same shape as a."))
        dtype = args[1].dtype
    n_bins = edges.shape[0] - 1
    counts = _tally(_count, {"uniform": uniform, "weighted": weights is not None},
                    [*args, build.single_block(edges.expr)], (n_bins,), dtype, 12)
    if not density:
        return counts, edges
    widths = _apply("subtract", *(_slice(edges.expr, k, n_bins) for k in (1, 0)))
    return counts / widths / reductions.sum(counts), edges


def _count(block: np.ndarray, *more: np.ndarray, uniform: bool, weighted: bool) -> np.ndarray:
    """Counts of one block. NumPy's way for bins of one width is the faster one, and puts values into the same bins."""
    edges = more[-1]
    how = {"bins": len(edges) - 1, "range": (edges[0], edges[-1])} if uniform else {"bins": edges}
    return np.histogram(block, weights=more[0] if weighted else None, **how)[0]


def _slice(x: Expr, start: int, n: int) -> Array:
    return Array(build.gather(x, (start,), (1,), (build.slice_chunks(x.chunks[0], start, 1, n),)))


def _edges(x: Expr, bins: Any, limits: Any, weighted: bool = False) -> tuple[Array, bool]:
    """Edges of the bins, and whether NumPy would take them for bins of one width."""
    if isinstance(bins, str):
        if weighted:
            raise TypeError("Automated estimation of the number of bins is not supported for weighted data; give the "
                            "number of bins")
        bins, limits = _estimate(x, bins, limits)
    if np.ndim(bins if not isinstance(bins, Array) else np.empty((0,) * bins.ndim)) == 1:
        return _given_edges(bins), False
    if isinstance(bins, Array):
        bins = int(bins)
    if limits is not None or 0 in x.shape:
        example = np.zeros(0, x.dtype)
        edges = np.histogram_bin_edges(example, bins, tuple(map(_number, limits)) if limits is not None else None)
        return Array(as_expr(edges)), True
    np.histogram_bin_edges(np.zeros(0), bins)  # NumPy's check of `bins`
    low, high = reductions.min(Array(x)).expr, reductions.max(Array(x)).expr
    dtype = np.histogram_bin_edges(np.zeros(1, x.dtype), 1).dtype
    return Array(build.blockmap(_edges_between, [low, high], [(), ()], ("bins",), (bins + 1,), dtype, ((bins + 1,),),
                                (("bins", int(bins)),), label="bin edges")), True


def _edges_between(low: np.ndarray, high: np.ndarray, bins: int) -> np.ndarray:
    return np.histogram_bin_edges(np.stack([low, high]), bins)


def _number(limit: Any) -> Any:
    return limit.compute() if isinstance(limit, Array) else limit


def _given_edges(bins: Any) -> Array:
    if not isinstance(bins, Array):
        values = np.asarray(bins)
        if np.any(values[:-1] > values[1:]):
            raise ValueError("`bins` must increase monotonically, when an array; sort them first")
        return Array(as_expr(values))
    return Array(known_expr(bins))


def histogram_bin_edges(a: Any, bins: Any = 10, range: Any = None, weights: Any = None) -> Array:  # noqa: A002
    """The edges of the bins that `histogram` would use."""
    x = as_expr(a)
    return _edges(build.cast(x, np.dtype(np.uint8)) if x.dtype == bool else x, bins, range, weights is not None)[0]


# -- several dimensions -----------------------------------------------------------------------------------------------

def histogramdd(sample: Any, bins: Any = 10, range: Any = None, density: bool | None = None,  # noqa: A002
                weights: Any = None, *, normed: Any = None) -> tuple[Array, list[Array]]:
    """Counts in boxes of a space of several dimensions, as `numpy.histogramdd`.

    Parameters
    ----------
    sample : array, shape (N, D), or a sequence of D arrays of one axis
    bins : int, or for each dimension an int or edges
    range : for each dimension (low, high) or None, optional
        Limits that are not given are found in the data, which computes their extremes at once.
    """
    columns = _columns(sample)
    n_dims = len(columns)
    each = list(bins) if hasattr(bins, "__len__") else [bins] * n_dims
    limits = [None] * n_dims if range is None else list(range)
    for name, given in (("dimension of bins", each), ("range argument", limits)):
        if len(given) != n_dims:
            raise ValueError(f"The {name} must be equal to the dimension of the sample x: {len(given)} entries for "
                             f"{n_dims} dimensions")
    edges = [_edges(c, b, r)[0] for c, b, r in zip(columns, each, limits, strict=True)]
    shape = tuple(e.shape[0] - 1 for e in edges)
    words = "The weights and list don't have the same length."
    weighted = [] if weights is None else [_like(weights, columns[0], words)]
    args = [*columns, *weighted, *(build.single_block(e.expr) for e in edges)]
    counts = _tally(_count_boxes, {"n_dims": n_dims, "weighted": bool(weighted)}, args, shape, float, 20 * n_dims)
    if density if normed is None else normed:
        total = reductions.sum(counts)
        for axis, e in enumerate(edges):
            widths = _apply("subtract", *(_slice(e.expr, k, shape[axis]) for k in (1, 0)))
            counts = counts / widths[(slice(None), *(None,) * (n_dims - 1 - axis))]
        counts = counts / total
    return counts, edges


def _columns(sample: Any) -> list[Expr]:
    """The coordinates, an expression for each dimension, all cut alike."""
    if isinstance(sample, (list, tuple)):
        columns = [known_expr(c) for c in sample]
    else:
        x = known_expr(sample)
        x = build.axes(x, (0, None), (x.shape[0], 1)) if x.ndim == 1 else build.uncut(x, (1,))
        n, d = x.shape
        columns = [build.axes(build.gather(x, (0, k), (1, 1), (x.chunks[0], (1,))), (0,), (n,)) for k in range(d)]
    if any(c.shape != columns[0].shape for c in columns):
        raise ShapeError(f"coordinates have shapes {[c.shape for c in columns]}; they must all be the same")
    return [build.rechunk(c, columns[0].chunks) for c in columns]


def _count_boxes(*blocks: np.ndarray, n_dims: int, weighted: bool) -> np.ndarray:
    weights = blocks[n_dims] if weighted else None
    return np.histogramdd(blocks[:n_dims], bins=blocks[n_dims + weighted:], weights=weights)[0]


def histogram2d(x: Any, y: Any, bins: Any = 10, range: Any = None, density: bool | None = None,  # noqa: A002
                weights: Any = None, *, normed: Any = None) -> tuple[Array, Array, Array]:
    """Counts in rectangles, as `numpy.histogram2d`: (counts, edges along x, edges along y)."""
    if hasattr(bins, "__len__") and len(bins) != 2:
        bins = [bins[0] if len(bins) == 1 else bins] * 2  # more than two are the edges of both
    counts, (along_x, along_y) = histogramdd([x, y], bins, range, density, weights, normed=normed)
    return counts, along_x, along_y


# -- how many bins ----------------------------------------------------------------------------------------------------

def _interquartile(x: Array) -> float:
    from nums_core.array.quantiles import percentile

    q75, q25 = np.asarray(percentile(x, [75, 25]))
    return float(q75 - q25)


def _doane(x: Array, s: dict[str, float]) -> float:
    """Doane, "Aesthetic frequency classifications", 1976."""
    n = s["n"]
    if n <= 2 or not s["std"]:
        return 0.0
    skew = float(reductions.mean(((x - s["mean"]) / s["std"]) ** 3))
    sigma = math.sqrt(6.0 * (n - 2) / ((n + 1.0) * (n + 3)))
    return s["ptp"] / (1.0 + math.log2(n) + math.log2(1.0 + abs(skew) / sigma))


def _freedman(x: Array, s: dict[str, float]) -> float:
    """Freedman and Diaconis, "On the histogram as a density estimator", 1981."""
    return 2.0 * _interquartile(x) * s["n"] ** (-1 / 3)


# Width of a bin from the data and its summary.
ESTIMATORS: dict[str, Callable[[Array, dict[str, float]], float]] = {
    "auto": lambda x, s: min(max(_freedman(x, s), ESTIMATORS["sqrt"](x, s) / 2), ESTIMATORS["sturges"](x, s)),
    "doane": _doane,
    "fd": _freedman,
    "rice": lambda x, s: s["ptp"] / (2.0 * s["n"] ** (1 / 3)),
    "scott": lambda x, s: (24.0 * math.sqrt(math.pi) / s["n"]) ** (1 / 3) * s["std"],
    "sqrt": lambda x, s: s["ptp"] / math.sqrt(s["n"]),
    "sturges": lambda x, s: s["ptp"] / (math.log2(s["n"]) + 1.0),
}


def _estimate(e: Expr, name: str, limits: Any) -> tuple[int, tuple[Any, Any]]:
    """The number of bins that an estimator wants, and their limits. Computes."""
    if name not in ESTIMATORS:
        raise ValueError(f"{name!r} is not a valid estimator for `bins`; choose one of {', '.join(ESTIMATORS)}, or "
                         "give the number of bins")
    low, high = _edges(e, 1, limits)[0].compute()
    x = Array(e)
    if limits is not None:
        x = x[_apply("logical_and", x >= low, x <= high)]
    n = int(reductions.count_nonzero(x == x))
    if not n:
        return 1, (low, high)
    from nums_core.array.computing import compute

    least, most, mean, std = compute(reductions.min(x), reductions.max(x), reductions.mean(x), reductions.std(x))
    summary = {"n": n, "ptp": float(most) - float(least), "mean": float(mean), "std": float(std)}
    width = ESTIMATORS[name](x, summary)
    if e.dtype.kind in "iu" and 0 < width < 1:
        width = 1.0
    return (max(1, math.ceil((high - low) / width)) if width else 1), (low, high)


__all__ = ["bincount", "histogram", "histogram2d", "histogram_bin_edges", "histogramdd"]
