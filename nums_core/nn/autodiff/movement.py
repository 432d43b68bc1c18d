"""Derivatives of what moves elements: axis maps, slices, re-blockings, concatenation, indexing, assignment, sorting.

What is cut out goes back into zeros; what is assigned to is cut out; what is picked several times adds up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import nums_core.array as na
from nums_core.array.array import Array
from nums_core.array.quantiles import quantiles_of_lines
from nums_core.errors import NoDerivativeError
from nums_core.expr import build, index, reshape
from nums_core.expr.grid import known, offsets
from nums_core.expr.node import Expr
from nums_core.nn.autodiff import scatter
from nums_core.nn.autodiff.reverse import through
from nums_core.nn.autodiff.rule import NONE, ZERO, Cotangent, Patch, Row, Table, zeros_like


def axes(node: Expr, g: Array) -> Sequence[Cotangent]:
    """Sum over the axes that are new or were broadcast; then each axis back to where it came from."""
    (source,), x = node.params, node.args[0]
    wide = [i for i, (s, n) in enumerate(zip(source, node.shape, strict=True))
            if (s is None and n != 1) or (s is not None and x.shape[s] != n and x.shape[s] == 1)]
    e = build.reduce("sum", g.expr, wide, keepdims=True) if wide else g.expr
    back = [source.index(i) if i in source else None for i in range(x.ndim)]
    return [Array(build.axes(e, back, tuple(1 if s is None else e.shape[s] for s in back)))]


def gather(node: Expr, g: Array) -> Sequence[Cotangent]:
    """The box goes back into zeros; a re-blocking alone is undone by the caller."""
    (x,), (start, step) = node.args, node.params
    if node.shape == x.shape and not any(start) and all(s == 1 for s in step):
        return [g]
    if 0 in node.shape:
        return [None]
    back = tuple(i for i, s in enumerate(step) if s < 0)
    if back:  # a slice that runs backwards is the same box, read the other way
        g = na.flip(g, back)
        start = tuple(a + (n - 1) * s if s < 0 else a for a, s, n in zip(start, step, node.shape, strict=True))
        step = tuple(map(abs, step))
    return [Patch(start, step, g)]


def concat(node: Expr, g: Array) -> Sequence[Cotangent]:
    (axis,) = node.params
    out, at = [], 0
    for a in node.args:
        start = tuple(at if i == axis else 0 for i in range(a.ndim))
        out.append(Array(build.gather(g.expr, start, (1,) * a.ndim, a.chunks)))
        at += a.shape[axis]
    return out


def reshape_blocks(node: Expr, g: Array) -> Sequence[Cotangent]:
    x = node.args[0]
    return [Array(reshape.blocks(g.expr, x.shape, x.chunks, node.params[0]))]


def take_blocks(node: Expr, g: Array) -> Sequence[Cotangent]:
    """Blocks chosen by number along each axis: their elements added up, axis by axis."""
    (numbers,), e, x = node.params, g.expr, node.args[0]
    for axis, chosen in enumerate(numbers):
        if list(chosen) == list(range(len(x.chunks[axis]))):
            continue
        begins = offsets(x.chunks[axis])
        places = np.concatenate([np.arange(begins[b], begins[b] + x.chunks[axis][b]) for b in chosen])
        like = build.full(0, tuple(x.shape[i] if i == axis else n for i, n in enumerate(e.shape)), e.dtype,
                          tuple(x.chunks[i] if i == axis else c for i, c in enumerate(e.chunks)))
        e = scatter.add_points(like, axis, places[None], e)
    return [Array(e)]


# -- indexing ---------------------------------------------------------------------------------------------------------

def points(node: Expr, g: Array) -> Sequence[Cotangent]:
    first, frozen = node.params
    return [Array(scatter.add_points(node.args[0], first, frozen.array, g.expr))]


def points_at(node: Expr, g: Array) -> Sequence[Cotangent]:
    x, *where = node.args
    return [Array(scatter.add_points_at(x, node.params[0], where, g.expr)), *[None] * len(where)]


def select(node: Expr, g: Array) -> Sequence[Cotangent]:
    x, mask = node.args
    return [Array(index.put_mask(zeros_like(x), mask, node.params[0], g.expr)), None]


def diagonal(node: Expr, g: Array) -> Sequence[Cotangent]:
    x, (row, column) = node.args[0], node.params
    if node.shape[-1] == 0:
        return [None]
    steps = np.arange(node.shape[-1])
    return [Array(index.put_points(zeros_like(x), x.ndim - 2, [row + steps, column + steps], g.expr))]


def put_region(node: Expr, g: Array) -> Sequence[Cotangent]:
    (_, value), (start, step) = node.args, node.params
    return [Array(index.put_region(g.expr, start, step, zeros_like(value))),
            Array(build.gather(g.expr, start, step, value.chunks))]


def put_points(node: Expr, g: Array) -> Sequence[Cotangent]:
    """Of equal places the last one wrote, so that only its value has a part."""
    (x, value), (first, frozen) = node.args, node.params
    locs = frozen.array
    flat = np.ravel_multi_index(tuple(locs), x.shape[first:first + len(locs)])
    last = len(flat) - 1 - np.unique(flat[::-1], return_index=True)[1]
    wrote = np.isin(np.arange(len(flat)), last)
    picked = Array(index.points(g.expr, first, list(locs), value.chunks[first]))
    if not wrote.all():
        picked = na.where(wrote.reshape(-1, *[1] * (picked.ndim - first - 1)), picked, 0)
    return [Array(index.put_points(g.expr, first, list(locs), zeros_like(value))), picked]


def put_points_at(node: Expr, g: Array) -> Sequence[Cotangent]:
    """The same at computed places: each place is told the number of the pick that wrote it last."""
    x, value, *where = node.args
    (first,) = node.params
    k, w = len(where), where[0]
    stop = first + k
    number = na.arange(int(np.prod(w.shape))).reshape(w.shape).rechunk(w.chunks)
    nobody = build.full(-1, x.shape[first:stop], np.int64, x.chunks[first:stop])
    writer = index.put_points_at(nobody, 0, where, number.astype(np.int64).expr)
    wrote = Array(index.points_at(writer, 0, where)) == number
    wrote = wrote.reshape(w.shape + (1,) * (x.ndim - stop))
    picked = Array(index.points_at(g.expr, first, where))
    return [Array(index.put_points_at(g.expr, first, where, zeros_like(value))), na.where(wrote, picked, 0),
            *[None] * k]


def put_mask(node: Expr, g: Array) -> Sequence[Cotangent]:
    x, mask, value = node.args
    (first,) = node.params
    counts = value.chunks[first] if known((value.chunks[first],)) else None
    over = Array(build.axes(mask, (*range(mask.ndim), *(None,) * (x.ndim - first - mask.ndim)),
                            (*mask.shape, *(1,) * (x.ndim - first - mask.ndim))))
    return [na.where(over, 0, g), None, Array(index.select(g.expr, mask, first, counts))]


# -- sorting: the derivative of taking the elements in their order -----------------------------------------------------

def _ordered(node: Expr, axis: int, order: Any, g: Array) -> Sequence[Cotangent]:
    return through(lambda x: na.take_along_axis(x, order, axis), node.args[0], g)


def sample_sort(node: Expr, g: Array) -> Sequence[Cotangent]:
    """Part 0 are the sorted values; part 1, their positions, are integers."""
    axis = node.params[0]
    return _ordered(node, axis, na.argsort(Array(node.args[0]), axis=axis), g)


def _options(node: Expr) -> dict[str, Any]:
    """Keywords of a function that `expr.sorting.on_lines` mapped over lines."""
    return node.params[0].value.keywords


def _sort_lines(node: Expr, g: Array) -> Sequence[Cotangent]:
    axis = _options(node)["axis"]
    return _ordered(node, axis, na.argsort(Array(node.args[0]), axis=axis), g)


def _partition_lines(node: Expr, g: Array) -> Sequence[Cotangent]:
    axis, kth = _options(node)["axis"], _options(node)["kth"]
    return _ordered(node, axis, na.argpartition(Array(node.args[0]), kth, axis=axis), g)


def quantile(node: Expr, g: Array) -> Sequence[Cotangent]:
    """Linear interpolation between the sorted elements beside q (n - 1)."""
    if node.op == "map":
        o = _options(node)
        q, axes, method, skip_nan = o["q"], o["axes"], o["method"], o["skip_nan"]
    else:
        q, _, axes, method, skip_nan = node.params
    if method not in ("linear", "median") or skip_nan or len(node.args) > 1:
        raise NoDerivativeError(f"quantiles by method {method!r}, with weights, or past NaN have no derivative; use "
                                "method='linear' of what has no NaN")

    def interpolated(x: Array) -> Array:
        others = [n for i, n in enumerate(x.shape) if i not in axes]
        lines = na.sort(na.moveaxis(x, axes, range(-len(axes), 0)).reshape(*others, -1))
        place = np.asarray(q) * (lines.shape[-1] - 1)
        low, high = np.floor(place).astype(int), np.ceil(place).astype(int)
        made = lines[..., low] * (high == low) + lines[..., low] * (high - place) + lines[..., high] * (place - low)
        return na.moveaxis(made, -1, 0).reshape(node.shape)
    return through(interpolated, node.args[0], g)


def _take_along_axis(node: Expr, g: Array) -> Sequence[Cotangent]:
    x, where = node.args
    return [Array(scatter.add_along_axis(x, where, g.expr, dict(node.params[1])["axis"])), None]


def _add_along(node: Expr, g: Array) -> Sequence[Cotangent]:
    where = node.args[0]
    return [None, na.take_along_axis(g, Array(where), dict(node.params[1])["axis"])]


def _add_at(node: Expr, g: Array) -> Sequence[Cotangent]:
    where = node.args[1:]
    return [Array(index.points_at(g.expr, dict(node.params[1])["first"], where)), *[None] * len(where)]


FUNCTION = NONE("it is a NumPy function on whole blocks, of which nothing is known; make it a primitive with a "
                "backward rule (nums_core.nn.primitives)")

# Functions that this library itself maps over blocks; others are the user's.
MAPS: dict[Any, Row] = {
    np.sort: _sort_lines,
    quantiles_of_lines: quantile,
    np.partition: _partition_lines,
    np.take_along_axis: _take_along_axis,
    scatter.add_along: _add_along,
    scatter.add_at: _add_at,
    np.interp: NONE("interpolation between points; write it with searchsorted() and take()"),
}

MOVEMENT: Table = {
    "axes": axes,
    "gather": gather,
    "concat": concat,
    "reshape.blocks": reshape_blocks,
    "blocks.take": take_blocks,
    "index.points": points,
    "index.points_at": points_at,
    "index.select": select,
    "index.nonzero": ZERO("positions"),
    "index.diagonal": diagonal,
    "index.put_region": put_region,
    "index.put_points": put_points,
    "index.put_points_at": put_points_at,
    "index.put_mask": put_mask,
    "sort.sort": sample_sort,
    "sort.search": ZERO("positions"),
    "sort.argtopk": ZERO("positions"),
    "quantile.quantile": quantile,
    "unique.distinct": NONE("distinct elements: their number depends on the values"),
    "unique.unite": NONE("distinct elements: their number depends on the values"),
    "unique.choose": NONE("distinct elements: their number depends on the values"),
    "unique.rows": NONE("distinct rows: their number depends on the values"),
    "unique.inverse": ZERO("positions"),
    "unique.isin": ZERO("a truth value"),
    "overlap.map": NONE("it is a function of the user's on blocks with their surroundings; build it from slices"),
    "reduction.map_reduce": NONE("it is a function of the user's; build it from array functions"),
    "scan.user": NONE("it is a function of the user's; build it from array functions"),
    "state.update": NONE("it changes its operands in place, and what was there before is gone"),
}

__all__ = ["FUNCTION", "MAPS", "MOVEMENT"]
