"""`pad`: every mode is a concatenation of slices, fills and reductions, so that nothing is copied that need not be."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from nums_core.array.array import Array, known_expr
from nums_core.array.indexing import whole_lines
from nums_core.array.lengths import by_runs
from nums_core.array.manipulation import broadcast_to
from nums_core.expr import build, index
from nums_core.expr.node import Expr
from nums_core.expr.opaque import Opaque

ALLOWED = {"constant": {"constant_values"}, "edge": set(), "linear_ramp": {"end_values"}, "maximum": {"stat_length"},
           "mean": {"stat_length"}, "median": {"stat_length"}, "minimum": {"stat_length"}, "reflect": {"reflect_type"},
           "symmetric": {"reflect_type"}, "wrap": set(), "empty": set()}


def pad(array: Any, pad_width: Any, mode: str | Callable[..., None] = "constant", **kwargs: Any) -> Array:
    """`array` with elements added before and after along each axis.

    Parameters
    ----------
    array : array
    pad_width : int, (before, after), one pair an axis, or a dict from axis to either
    mode : NumPy's: "constant" (default), "edge", "linear_ramp", "maximum", "mean", "median", "minimum", "reflect",
        "symmetric", "wrap", "empty", or a function `f(vector, widths, axis, kwargs)` that fills padded vectors in place
    **kwargs : `constant_values`, `end_values`, `stat_length`, `reflect_type`, as in NumPy

    Raises
    ------
    ValueError
        An unknown mode, a keyword it does not take, or negative widths.
    """
    x = known_expr(array)
    widths = _pairs(_by_axis(pad_width, x.ndim), x.ndim, "pad_width")
    if callable(mode):
        return Array(functools.reduce(lambda e, i: _by_function(e, i, widths[i], mode, kwargs), range(x.ndim),
                                      functools.reduce(lambda e, i: _constant(e, i, widths[i], (0, 0)), range(x.ndim), x)))
    if mode not in ALLOWED:
        raise ValueError(f"mode {mode!r} is not supported; the modes are {', '.join(ALLOWED)}")
    wrong = set(kwargs) - ALLOWED[mode]
    if wrong:
        raise ValueError(f"unsupported keyword arguments for mode {mode!r}: {wrong}; it takes "
                         f"{', '.join(ALLOWED[mode]) or 'none'}")
    one = _one_axis(mode, x, kwargs)
    for axis, (before, after) in enumerate(widths):
        if before or after:
            if not x.shape[axis] and mode not in ("constant", "empty"):
                raise ValueError(f"can't extend empty axis {axis} using modes other than 'constant' or 'empty'")
            x = one(x, axis, (before, after))
    return Array(x)


def _by_axis(widths: Any, ndim: int) -> Any:
    if not isinstance(widths, dict):
        return widths
    out = [(0, 0)] * ndim
    for axis, w in widths.items():
        out[axis] = (w, w) if not np.ndim(w) else tuple(w)
    return out


def _pairs(values: Any, ndim: int, what: str, *, integers: bool = True) -> list[tuple[Any, Any]]:
    """(before, after) of each axis."""
    given = np.asarray(values)
    if integers and given.dtype.kind not in "iu" and given.size:
        raise TypeError(f"`{what}` must be of integral type.")
    if integers and (given < 0).any():
        raise ValueError(f"index can't contain negative values: `{what}` is {values!r}; slice to make an array shorter")
    wide = np.broadcast_to(given[:, None] if given.ndim == 1 and given.size == 1 else given, (ndim, 2))
    return [(a, b) if not integers else (int(a), int(b)) for a, b in wide.tolist()]


def _one_axis(mode: str, x: Expr, kwargs: dict[str, Any]) -> Callable[[Expr, int, tuple[int, int]], Expr]:
    """How `mode` pads one axis."""
    if mode in ("constant", "linear_ramp"):
        name = "constant_values" if mode == "constant" else "end_values"
        values = _pairs(kwargs.get(name, 0), x.ndim, name, integers=False)
        how = _constant if mode == "constant" else _ramp
        return lambda e, axis, w: how(e, axis, w, values[axis])
    if mode == "empty":
        return lambda e, axis, w: _constant(e, axis, w, (0, 0))
    if mode in ("maximum", "minimum", "mean", "median"):
        length = kwargs.get("stat_length")
        lengths = [(None, None)] * x.ndim if length is None else _pairs(length, x.ndim, "stat_length")
        return lambda e, axis, w: _statistic(e, axis, w, mode, lengths[axis])
    if mode == "edge":
        return _edge
    if mode in ("reflect", "symmetric") and kwargs.get("reflect_type", "even") == "odd":
        return lambda e, axis, w: _odd(e, axis, w, mode)
    return lambda e, axis, w: _periodic(e, axis, w, mode)


def _between(before: Expr | None, x: Expr, after: Expr | None, axis: int) -> Expr:
    return build.concatenate([build.cast(p, x.dtype) for p in (before, x, after) if p is not None and p.shape[axis]], axis)


def _fill(x: Expr, axis: int, n: int, value: Any) -> Expr:
    dims = tuple(n if i == axis else m for i, m in enumerate(x.shape))
    chunks = tuple((n,) if i == axis else c for i, c in enumerate(x.chunks))
    return build.full(np.asarray(value).astype(x.dtype)[()], dims, x.dtype, chunks)


def _constant(x: Expr, axis: int, widths: tuple[int, int], values: tuple[Any, Any]) -> Expr:
    before, after = (_fill(x, axis, w, v) for w, v in zip(widths, values, strict=True))
    return _between(before, x, after, axis)


def _edges(x: Expr, axis: int) -> tuple[Expr, Expr]:
    n = x.shape[axis]
    return index.along(x, axis, 0, 1), index.along(x, axis, n - 1, n)


def _edge(x: Expr, axis: int, widths: tuple[int, int]) -> Expr:
    before, after = (broadcast_to(Array(edge), tuple(w if i == axis else n for i, n in enumerate(x.shape))).expr
                     for edge, w in zip(_edges(x, axis), widths, strict=True))
    return _between(before, x, after, axis)


def _periodic(x: Expr, axis: int, widths: tuple[int, int], mode: str) -> Expr:
    """The array over and over, every other time in reverse unless it is to wrap."""
    n = x.shape[axis]
    if n == 1:
        return _edge(x, axis, widths)
    period = {"wrap": n, "reflect": 2 * (n - 1), "symmetric": 2 * n}[mode]
    parts = []
    for places in (np.arange(-widths[0], 0), np.arange(n, n + widths[1])):
        at = places % period
        parts.append(by_runs(x, np.where(at < n, at, period - at - (mode == "symmetric")), axis))
    return _between(parts[0], x, parts[1], axis)


def _ramp(x: Expr, axis: int, widths: tuple[int, int], ends: tuple[Any, Any]) -> Expr:
    made = []
    for edge, w, end, back in zip(_edges(x, axis), widths, ends, (False, True), strict=True):
        shape = tuple(w if i == axis else n for i, n in enumerate(x.shape))
        chunks = tuple((w,) if i == axis else c for i, c in enumerate(edge.chunks))
        labels = tuple(range(x.ndim))
        kw = (("axis", axis), ("back", back), ("end", Opaque(end)), ("n", w))
        made.append(build.blockmap(_ramp_block, [edge], [labels], labels, shape, x.dtype, chunks, kw, label="pad.ramp"))
    return _between(made[0], x, made[1], axis)


def _ramp_block(edge: np.ndarray, axis: int, back: bool, end: Any, n: int) -> np.ndarray:
    line = np.linspace(end, edge.take(0, axis), n, endpoint=False, dtype=edge.dtype, axis=axis)
    return np.flip(line, axis) if back else line


def _statistic(x: Expr, axis: int, widths: tuple[int, int], mode: str, lengths: tuple[Any, Any]) -> Expr:
    from nums_core import array as np_

    n = x.shape[axis]
    function = {"maximum": np_.max, "minimum": np_.min, "mean": np_.mean, "median": np_.median}[mode]
    made = []
    for w, length, at_end in zip(widths, lengths, (False, True), strict=True):
        take = n if length is None else min(int(length), n)
        if take == 0 and mode in ("maximum", "minimum"):
            raise ValueError("stat_length of 0 yields no value for padding")
        part = index.along(x, axis, n - take, n) if at_end else index.along(x, axis, 0, take)
        value = function(Array(part), axis=axis, keepdims=True)
        if x.dtype.kind in "iu" and value.dtype.kind == "f":
            value = np_.rint(value)
        shape = tuple(w if i == axis else m for i, m in enumerate(x.shape))
        made.append(broadcast_to(value, shape).expr)
    return _between(made[0], x, made[1], axis)


def _odd(x: Expr, axis: int, widths: tuple[int, int], mode: str) -> Expr:
    """Reflection about the edge's value: 2 * edge - mirrored; widths beyond one mirror image take several rounds."""
    left, right = widths
    if x.shape[axis] == 1:  # nothing to mirror: the edge goes on
        return _edge(x, axis, widths)
    skip = 1 if mode == "reflect" else 0
    original = x.shape[axis]
    while left or right:
        n = x.shape[axis]
        period = (n - skip) // (original - skip) * (original - skip)
        a, b = min(left, period), min(right, period)
        first, last = _edges(x, axis)
        before = _mirror(first, index.along(x, axis, skip + a - 1, skip - 1, -1)) if a else None
        after = _mirror(last, index.along(x, axis, n - 1 - skip, n - 1 - skip - b, -1)) if b else None
        x = _between(before, x, after, axis)
        left, right = left - a, right - b
    return x


def _mirror(edge: Expr, image: Expr) -> Expr:
    return build.cast(build.elementwise("subtract", [build.elementwise("multiply", [edge, 2]), image]), edge.dtype)


def _by_function(x: Expr, axis: int, widths: tuple[int, int], function: Any, kwargs: dict[str, Any]) -> Expr:
    lines = whole_lines(x, axis)
    labels = tuple(range(x.ndim))
    kw = (("axis", axis), ("function", Opaque(function)), ("kwargs", Opaque(kwargs)), ("widths", widths))
    return build.blockmap(_fill_vectors, [lines], [labels], labels, lines.shape, x.dtype, lines.chunks, kw, label="pad")


def _fill_vectors(block: np.ndarray, axis: int, function: Any, kwargs: dict[str, Any], widths: Any) -> np.ndarray:
    made = block.copy()
    lines = np.moveaxis(made, axis, -1)
    for at in np.ndindex(lines.shape[:-1]):
        function(lines[at], widths, axis, kwargs)
    return made


__all__ = ["pad"]
