"""Assignment to parts: `x[...] = v` gives the name `x` a new expression; other arrays keep the old values.

Only blocks that an index reaches cost a task: a box costs its border, integer arrays the blocks that own an element, a
mask with one value is a `where`. Of equal places in an index the last one wins, as in NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nums_core.array.array import Array, as_expr, asarray, from_array, known_expr
from nums_core.array.indexing import (
    along_lines,
    computed_places,
    cut_box,
    in_front,
    integer_arrays,
    parsed,
)
from nums_core.array.subscript import Picked, Subscript
from nums_core.errors import ShapeError
from nums_core.expr import build, grid, index
from nums_core.expr import reshape as reshaping
from nums_core.expr.node import Expr


def setitem(x: Array, key: Any, value: Any) -> Array:
    """`x` with `x[key]` replaced by `value`, which is cast to the dtype of `x` and broadcast.

    Raises
    ------
    IndexError, ValueError
        In NumPy's words.
    """
    if x.dtype.names is not None and isinstance(key, str):
        return _set_field(x, key, value)
    at, e = parsed(x, key)
    v = _cast(value, e.dtype)
    if not at.picked:
        return Array(_put_box(e, at, v))
    if at.is_whole(e.shape):
        return Array(_put_picked(e, at.picked, at.adjacent, v))
    part = _put_picked(cut_box(e, at), at.picked, at.adjacent, v)
    return Array(_put_box(e, at, part))


def _set_field(x: Array, name: str, value: Any) -> Array:
    e, labels = x.expr, range(x.ndim)
    v = _filled(_cast(value, e.dtype[name]), e.shape, e.chunks)
    return Array(build.blockmap(_put_field, [e, v], [labels, labels], labels, e.shape, e.dtype, e.chunks, (("name", name),)))


def _put_field(block: np.ndarray, values: np.ndarray, name: str) -> np.ndarray:
    made = block.copy()
    made[name] = values
    return made


def _cast(value: Any, dtype: np.dtype) -> Expr | np.generic:
    """A value to assign: a scalar of the array's dtype, or an expression of it."""
    if not isinstance(value, Array):
        if np.ndim(value) == 0 and not hasattr(value, "dtype"):
            return _scalar(np.asarray(value, dtype))  # Python scalars: NumPy's checks of range
        if isinstance(value, (np.generic, np.ndarray)) and np.ndim(value) == 0:
            return _scalar(np.asarray(value).astype(dtype))
    return build.cast(as_expr(value), dtype)


def _scalar(x: np.ndarray) -> Any:
    return x[()]


def _filled(v: Expr | np.generic, shape: tuple[Any, ...], chunks: grid.Chunks) -> Expr:
    """`v` broadcast to `shape`; leading axes of extent 1 that are too many go."""
    if not isinstance(v, Expr):
        return build.full(v, shape, v.dtype, chunks)
    return build.rechunk(build.broadcast_to(_trimmed(v, len(shape)), shape), chunks)


def _trimmed(v: Expr, ndim: int) -> Expr:
    extra = 0
    while v.ndim - extra > ndim and v.shape[extra] == 1:
        extra += 1
    return build.axes(v, range(extra, v.ndim), v.shape[extra:])


def _check(v: Expr | np.generic, shape: tuple[Any, ...], words: str) -> None:
    """Whether `v` can be broadcast to `shape`; `words` are NumPy's."""
    if isinstance(v, Expr):
        mine = _trimmed(v, len(shape)).shape
        if len(mine) > len(shape) or any(n not in (1, m) for n, m in zip(mine[::-1], shape[::-1], strict=False)):
            raise ShapeError(words.format(_text(v.shape), _text(shape)) + "; extents must be equal or 1")


def _text(shape: Sequence[Any]) -> str:
    return str(tuple(shape)).replace(" ", "")


# -- boxes ------------------------------------------------------------------------------------------------------------

def _put_box(e: Expr, at: Subscript, v: Expr | np.generic) -> Expr:
    target = at.box_shape()
    _check(v, target, "could not broadcast input array from shape {} into shape {}")
    if at.is_whole(e.shape):
        return _filled(v, e.shape, e.chunks)
    if 0 in target:
        return e
    low = [s + (n - 1) * d if d < 0 else s for s, d, n in zip(at.start, at.step, at.extent, strict=True)]
    step = [abs(d) for d in at.step]
    cut = tuple(build.slice_chunks(c, s, d, n) for c, s, d, n in zip(e.chunks, low, step, at.extent, strict=True))
    if isinstance(v, Expr):
        wide = build.broadcast_to(_trimmed(v, len(target)), target)
        place = {s: i for i, s in enumerate(at.source) if s is not None}
        box = build.axes(wide, [place.get(i) for i in range(e.ndim)], tuple(at.extent))
        back = [d < 0 for d in at.step]
        v = index.box(box, [n - 1 if b else 0 for n, b in zip(at.extent, back, strict=True)],
                      [-1 if b else 1 for b in back], at.extent) if any(back) else box
    else:
        v = build.full(v, tuple(at.extent), e.dtype, cut)
    return index.put_region(e, tuple(low), tuple(step), v)


# -- arrays in an index -----------------------------------------------------------------------------------------------

def _put_picked(x: Expr, picked: Sequence[Picked], adjacent: bool, v: Expr | np.generic) -> Expr:
    """`x`, all of it indexed, with what arrays pick replaced."""
    if len(picked) == 1 and picked[0].value.dtype == bool:
        place, mask, width = picked[0]
        if not adjacent and isinstance(v, Expr) and place:  # what a mask picks comes first in the value
            v = _padded(_trimmed(v, x.ndim - width + 1), x.ndim - width + 1)
            v = build.transpose(v, [*range(1, place + 1), 0, *range(place + 1, v.ndim)])
        return _put_mask(x, mask, place, width, v)
    places = [p for p, _, width in picked for p in range(p, p + width)]
    arrays = integer_arrays(picked)
    first = picked[0].place if adjacent else 0
    moved = in_front(x, places, first)
    shape = arrays[0].shape if isinstance(arrays[0], np.ndarray) else arrays[0].expr.shape
    after = moved.shape[first + len(places):]
    target = (*moved.shape[:first], *shape, *after)
    _check(v, target, "shape mismatch: value array of shape {} could not be broadcast to indexing result of shape {}")
    put = _put_known if all(isinstance(a, np.ndarray) for a in arrays) else _put_computed
    made = put(moved, first, arrays, v, target)
    order = [i for i in range(x.ndim) if i not in places]
    order = [*order[:first], *places, *order[first:]]
    return build.transpose(made, np.argsort(order).tolist()) if order != sorted(order) else made


def _put_known(x: Expr, first: int, arrays: list[np.ndarray], v: Expr | np.generic, target: tuple[int, ...]) -> Expr:
    shape, k = arrays[0].shape, len(arrays)
    n = math.prod(shape)
    before, after = x.shape[:first], x.shape[first + k:]
    if isinstance(v, Expr):
        v = _padded(_trimmed(v, len(target)), len(target))
        if all(m == 1 for m in v.shape[first:first + len(shape)]):
            kept = [*range(first), None, *range(first + len(shape), v.ndim)]
            v = build.axes(v, kept, tuple(1 if i is None else v.shape[i] for i in kept))
            v = build.broadcast_to(v, (*before, 1, *after))
        else:
            v = reshaping.reshape(build.broadcast_to(v, target), (*before, n, *after))
    else:
        v = build.full(v, (*before, 1, *after), x.dtype, (*x.chunks[:first], (1,), *x.chunks[first + k:]))
    return index.put_points(x, first, [a.reshape(-1) for a in arrays], v)


def _padded(v: Expr, ndim: int) -> Expr:
    """`v` with leading axes of extent 1."""
    lack = ndim - v.ndim
    return build.axes(v, (*(None,) * lack, *range(v.ndim)), (*(1,) * lack, *v.shape))


def _put_computed(x: Expr, first: int, arrays: list[Any], v: Expr | np.generic, target: tuple[int, ...]) -> Expr:
    where = computed_places(arrays)
    k = len(where)
    cut = (*x.chunks[:first], *where[0].chunks, *x.chunks[first + k:])
    return index.put_points_at(x, first, where, _filled(v, target, cut))


def _put_mask(x: Expr, mask: Any, first: int, width: int, v: Expr | np.generic) -> Expr:
    after = x.ndim - first - width
    m = mask.expr if isinstance(mask, Array) else from_array(mask.copy()).expr
    ndim = first + 1 + after
    if isinstance(v, Expr):
        v = _padded(_trimmed(v, ndim), max(ndim, v.ndim))
        if v.ndim > ndim or v.shape[first] != 1:
            return _put_masked_values(x, m, first, v)
        _check(v, (*x.shape[:first], 1, *x.shape[first + width:]),
               "shape mismatch: value array of shape {} could not be broadcast to indexing result of shape {}")
        v = build.axes(v, [*range(first), *[None] * width, *range(first + 1, ndim)],
                       (*v.shape[:first], *(1,) * width, *v.shape[first + 1:]))
    wide = build.axes(m, [*[None] * first, *range(width), *[None] * after], (*(1,) * first, *m.shape, *(1,) * after))
    return build.rechunk(build.elementwise("where", [wide, v, x]), x.chunks)


def _put_masked_values(x: Expr, mask: Expr, first: int, v: Expr) -> Expr:
    """One value an element: how many each block takes decides which, so the mask is counted now."""
    width = mask.ndim
    runs = index.in_runs(x, first, width)
    mask = build.rechunk(mask, runs.chunks[first:first + width])
    if _made_from(v, mask):
        v = build.cast(v, x.dtype)
        return build.rechunk(index.put_mask(runs, mask, first, v), x.chunks)
    v = known_expr(Array(v))
    counts = _counts(mask)
    target = (*x.shape[:first], sum(counts), *x.shape[first + width:])
    words = "shape mismatch: value array of shape {} could not be broadcast to indexing result of shape {}"
    if width == x.ndim and v.ndim == 1:
        words = (f"NumPy boolean array indexing assignment cannot assign {v.shape[0]} input values to the {sum(counts)} "
                 "output values where the mask is true")
    _check(v, target, words)
    v = _filled(v, target, (*runs.chunks[:first], counts, *runs.chunks[first + width:]))
    return build.rechunk(index.put_mask(runs, mask, first, v), x.chunks)


def _made_from(v: Expr, mask: Expr) -> bool:
    """Whether `v` is made, element by element, of what this very mask selects: then its blocks fit those of the mask."""
    if v.op == "index.select":
        return v.args[1] is mask and not grid.known(v.chunks)
    wide = [a for a in v.args if not grid.known(a.chunks)] if v.op == "ewise" else []
    return bool(wide) and all(a.chunks == v.chunks and _made_from(a, mask) for a in wide)


def _counts(mask: Expr) -> tuple[int, ...]:
    """True elements of every block, in C order: computed."""
    labels = range(mask.ndim)
    ones = tuple((1,) * n for n in mask.grid)
    counted = build.blockmap(_count, [mask], [labels], labels, mask.grid, np.intp, ones, label="count")
    return tuple(int(n) for n in np.asarray(Array(counted)).reshape(-1))


def _count(block: np.ndarray) -> np.ndarray:
    return np.full((1,) * block.ndim, np.count_nonzero(block), np.intp)


# -- functions --------------------------------------------------------------------------------------------------------

def _named(a: Any, function: str) -> Array:
    if not isinstance(a, Array):
        raise TypeError(f"{function}() changes an Array; got {type(a).__name__}: wrap it with np.asarray(x), or call "
                        f"numpy.{function}")
    return a


def put(a: Array, ind: Any, v: Any, mode: str = "raise") -> None:
    """`a.reshape(-1)[ind] = v`, with `v` repeated as needed."""
    x = Array(reshaping.reshape(known_expr(_named(a, "put")), (a.size,)))
    where = ind if isinstance(ind, Array) else np.asarray(ind)
    where = where.reshape(-1)
    if mode == "wrap":
        where = where % x.size
    elif mode == "clip":
        where = where.clip(0, x.size - 1)
    x[where] = _repeated(v, where.size)
    a._expr = build.rechunk(reshaping.reshape(x.expr, a.shape), a.chunks)


def _repeated(v: Any, n: int) -> Any:
    """`n` values: those of `v`, over and over."""
    from nums_core.array.lengths import resize

    v = asarray(v) if not isinstance(v, Array) else v
    return v.reshape(()) if v.size == 1 else resize(v, (n,))


def putmask(a: Array, mask: Any, values: Any) -> None:
    """`a` where `mask`, set to the elements of `values` at the same flat place (repeated)."""
    keep, v = asarray(mask, bool), asarray(values)
    _named(a, "putmask")
    if v.shape != a.shape:
        v = _repeated(v, a.size)
    copyto(a, v.reshape(a.shape) if v.ndim else v, "unsafe", keep)


def place(arr: Array, mask: Any, vals: Any) -> None:
    """`arr[mask] = vals`, with `vals` repeated as needed."""
    keep = asarray(mask, bool).reshape(arr.shape)
    _named(arr, "place")[keep] = _repeated(vals, int(keep.sum()))


def copyto(dst: Array, src: Any, casting: str = "same_kind", where: Any = True) -> None:
    """`dst[where] = src`, under NumPy's casting rules."""
    source = src if isinstance(src, Array) else np.asarray(src)
    if not np.can_cast(source.dtype if np.ndim(src) or hasattr(src, "dtype") else np.min_scalar_type(src),
                       _named(dst, "copyto").dtype, casting):  # type: ignore[arg-type]
        raise TypeError(f"Cannot cast array data from {source.dtype!r} to {dst.dtype!r} according to the rule {casting!r}; "
                        "use casting='unsafe' if losing digits is meant")
    new = Array(_filled(_cast(src, dst.dtype), dst.shape, dst.chunks))
    if where is True:
        dst._expr = new.expr
    else:
        keep = build.broadcast_to(asarray(where, bool).expr, dst.shape)
        dst._expr = build.rechunk(build.elementwise("where", [keep, new.expr, dst.expr]), dst.chunks)


def put_along_axis(arr: Array, indices: Any, values: Any, axis: int | None) -> None:
    """For each line of `arr` along `axis`, its elements at the indices in the same line set to `values` (broadcast).

    Lines are brought into one block each."""
    from numpy.lib.array_utils import normalize_axis_index

    x, where = known_expr(_named(arr, "put_along_axis")), known_expr(indices)
    if where.dtype.kind not in "iu":
        raise IndexError("`indices` must be an integer array; cast it with .astype(int)")
    shape = x.shape
    if axis is None:
        x, axis = reshaping.reshape(x, (math.prod(shape),)), 0
    if x.ndim != where.ndim:
        raise ValueError("`indices` and `arr` must have the same number of dimensions; add axes with indices[:, None]")
    axis = normalize_axis_index(axis, x.ndim)
    lines, where, chunks = along_lines(x, build.uncut(where, [axis]), axis)
    v = _filled(_cast(values, x.dtype), where.shape, chunks)
    labels = tuple(range(x.ndim))
    inner = tuple("index" if i == axis else i for i in labels)
    made = build.blockmap(_put_along, [lines, where, v], [labels, inner, inner], labels, lines.shape, x.dtype,
                          lines.chunks, (("axis", axis),), label="put_along_axis")
    arr._expr = build.rechunk(reshaping.reshape(made, shape), arr.chunks)


def _put_along(block: np.ndarray, where: np.ndarray, values: np.ndarray, axis: int) -> np.ndarray:
    made = block.copy()
    np.put_along_axis(made, where, values, axis)
    return made


__all__ = ["copyto", "place", "put", "put_along_axis", "putmask"]
