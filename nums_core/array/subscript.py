"""What an index says, in NumPy's terms: a box of the array, and what is left to pick by arrays.

    x[2, ::3, None, i, mask]  ->  a box (start, step, extent an axis), the axes that stay, and `i` and `mask` with the
                                  axes of the box that they run over
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nums_core.array.array import Array, asarray
from nums_core.errors import UnknownSizeError

INVALID = ("only integers, slices (`:`), ellipsis (`...`), numpy.newaxis (`None`) and integer or boolean arrays are valid "
           "indices")


class Picked(NamedTuple):
    """An array in an index: a NumPy array, or an Array not computed yet."""

    place: int  # its first axis in the box
    value: Any
    width: int  # how many axes it runs over


class Subscript(NamedTuple):
    """An index, parsed.

    Attributes
    ----------
    start, step, extent : lists, one entry an axis of the array
    source : list
        The axes of the box with integers dropped: axis of the array, or None for a new one.
    picked : list of Picked
    adjacent : bool
        Arrays (and integers beside them) stand together: their axes come where they stood, otherwise first.
    """

    start: list[int]
    step: list[int]
    extent: list[Any]
    source: list[int | None]
    picked: list[Picked]
    adjacent: bool

    def is_whole(self, shape: Sequence[Any]) -> bool:
        """Whether the box is the array itself."""
        return (self.source == list(range(len(shape))) and all(d == 1 for d in self.step)
                and all(n == m or n != n for n, m in zip(self.extent, shape, strict=True)))

    def box_shape(self) -> tuple[Any, ...]:
        """Extents of the box with integers dropped and new axes in."""
        return tuple(1 if s is None else self.extent[s] for s in self.source)


def parse(index: Any, shape: Sequence[Any]) -> Subscript:
    """`index` of an array of `shape`.

    Raises
    ------
    IndexError
        In NumPy's words.
    UnknownSizeError
        The index needs an extent that depends on data.
    """
    items = _expanded([_item(i) for i in (index if isinstance(index, tuple) else (index,))], len(shape))
    out = Subscript([0] * len(shape), [1] * len(shape), list(shape), [], [], _adjacent(items))
    axis = 0
    for item in items:
        if item is None:
            out.source.append(None)
        elif isinstance(item, slice):
            out.start[axis], out.step[axis], out.extent[axis] = _slice(item, shape[axis])
            out.source.append(axis)
            axis += 1
        elif isinstance(item, int):
            out.start[axis], out.extent[axis] = _integer(item, axis, shape[axis]), 1
            axis += 1
        else:
            axis = _pick(out, item, axis, shape)
    return out


def _pick(out: Subscript, item: Any, axis: int, shape: Sequence[Any]) -> int:
    """Add an array to a Subscript; returns the axis after those it runs over."""
    place, width = len(out.source), _width(item)
    if item.dtype == bool and item.ndim == 0:  # a new axis, of extent 1 or 0
        out.source.append(None)
        out.picked.append(Picked(place, np.zeros(int(item), np.intp), 1))
        return axis
    if item.dtype == bool:
        for i, (n, m) in enumerate(zip(shape[axis:], item.expr.shape if isinstance(item, Array) else item.shape,
                                       strict=False)):
            if n != m and n == n and m == m:
                raise IndexError(f"boolean index did not match indexed array along axis {axis + i}; size of axis is {n} "
                                 f"but size of corresponding boolean axis is {m}")
    elif isinstance(item, np.ndarray):
        item = _in_range(item, axis, shape[axis])
    out.source.extend(range(axis, axis + width))
    out.picked.append(Picked(place, item, width))
    return axis + width


def _item(i: Any) -> Any:
    """One entry of an index: None, Ellipsis, a slice, an int, or an array of integers or booleans."""
    if i is None or i is Ellipsis or isinstance(i, slice):
        return i
    if isinstance(i, (bool, np.bool_)):
        return np.asarray(i)
    if isinstance(i, (int, np.integer)):
        return int(i)
    if not isinstance(i, Array):
        i = _array(i)
    if i.dtype.kind not in "biu":
        raise IndexError(f"{INVALID}; this one is of {i.dtype}: cast it, as in i.astype(int)")
    return int(i) if isinstance(i, np.ndarray) and i.ndim == 0 and i.dtype != bool else i


def _array(i: Any) -> Any:
    if isinstance(i, (list, tuple, range)):
        made = asarray(i) if any(isinstance(v, Array) for v in i) else np.asarray(i)
        return made if made.size or isinstance(made, Array) else made.astype(np.intp)
    if hasattr(i, "__array__") or hasattr(i, "__array_interface__"):
        return np.asarray(i)
    try:
        return np.asarray(operator.index(i))
    except TypeError:
        raise IndexError(f"{INVALID}; got {type(i).__name__}") from None


def _width(item: Any) -> int:
    """Axes that an entry takes up."""
    if item is None:
        return 0
    return item.ndim if hasattr(item, "dtype") and item.dtype == bool else 1


def _expanded(items: list[Any], ndim: int) -> list[Any]:
    """Entries with the ellipsis written out, one a taken-up axis."""
    dots = [k for k, i in enumerate(items) if i is Ellipsis]
    if len(dots) > 1:
        raise IndexError("an index can only have a single ellipsis ('...'); write the others as ':'")
    used = sum(_width(i) for i in items if i is not Ellipsis)
    if used > ndim:
        raise IndexError(f"too many indices for array: array is {ndim}-dimensional, but {used} were indexed")
    rest = [slice(None)] * (ndim - used)
    return [*items[:dots[0]], *rest, *items[dots[0] + 1:]] if dots else items + rest


def _adjacent(items: list[Any]) -> bool:
    """Whether arrays and integers stand in one run."""
    marks = "".join("s" if i is None or isinstance(i, slice) else "a" for i in items)
    return "a" not in marks.strip("s").replace("a", "", 1) or "s" not in marks.strip("s")


def _slice(s: slice, n: Any) -> tuple[int, int, Any]:
    """Start, step and extent of a slice of `n` elements."""
    if n != n:
        if s.start in (None, 0) and s.stop is None and s.step in (None, 1):
            return 0, 1, n
        raise UnknownSizeError("slicing needs sizes that depend on data not yet computed")
    at = range(n)[s] if s.step is None or s.step != 0 else range(n)[s.start:s.stop:0]
    return (at.start if len(at) else 0), at.step if len(at) else 1, len(at)


def _integer(i: int, axis: int, n: Any) -> int:
    if n != n:
        raise UnknownSizeError("indexing needs sizes that depend on data not yet computed")
    if not -n <= i < n:
        raise IndexError(f"index {i} is out of bounds for axis {axis} with size {n}")
    return i % n


def _in_range(i: np.ndarray, axis: int, n: Any) -> np.ndarray:
    """Integer indices as int64, none of them negative."""
    if n != n:
        raise UnknownSizeError("indexing needs sizes that depend on data not yet computed")
    bad = (i >= n) | (i < -n) if i.dtype.kind == "i" else i >= n
    if bad.any():
        raise IndexError(f"index {i[bad][0]} is out of bounds for axis {axis} with size {n}")
    wide = i.astype(np.int64)
    return np.where(wide < 0, wide + n, wide)


__all__: list[str] = []
