"""Bits and bytes of elements, and working days: functions of single elements that are no ufuncs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from nums_core.array import elementwise, reductions
from nums_core.array.array import Array, _apply, asarray, known_expr
from nums_core.array.blocks import map_blocks
from nums_core.errors import DTypeError
from nums_core.expr import build


def view(x: Any, dtype: Any, order: str = "C") -> Array:
    """The same bytes read as another dtype. A width that differs changes the last axis, which is put into one block.

    Raises
    ------
    ValueError
        The bytes of a line are no multiple of the new width.
    """
    if order == "F":  # the first axis is the one that changes
        turned = Array(build.transpose(known_expr(asarray(x)), range(asarray(x).ndim)[::-1]))
        made = view(turned, dtype).expr
        return Array(build.transpose(made, range(made.ndim)[::-1]))
    if order != "C":
        raise ValueError(f"order={order!r} is neither 'C' nor 'F', which say whether the last or the first axis changes")
    e, dtype = known_expr(asarray(x)), np.dtype(dtype)
    if dtype.itemsize == e.dtype.itemsize:
        return map_blocks(functools.partial(_view, dtype), Array(e), dtype=dtype, name="view")
    if not e.ndim:
        raise ValueError("Changing the dtype of a 0d array is only supported if the itemsize is unchanged; use x[None]")
    if e.shape[-1] * e.dtype.itemsize % dtype.itemsize:
        raise ValueError("When changing to a larger dtype, its size must be a divisor of the total size in bytes of the last "
                         f"axis of the array: {e.shape[-1]} elements of {e.dtype.itemsize} bytes, {dtype.itemsize} wanted")
    e = build.uncut(e, [e.ndim - 1])
    chunks = (*e.chunks[:-1], (e.shape[-1] * e.dtype.itemsize // dtype.itemsize,))
    return map_blocks(functools.partial(_view, dtype), Array(e), dtype=dtype, chunks=chunks, name="view")


def _view(dtype: np.dtype, block: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(block).reshape(block.shape).view(dtype)


def packbits(a: Any, /, axis: int | None = None, bitorder: str = "big") -> Array:
    """Eight flags in each byte along `axis` (of all elements in a line, if None); the last byte is filled with zeros."""
    return _bits(np.packbits, a, axis, lambda n: -(-n // 8), bitorder=bitorder)


def unpackbits(a: Any, /, axis: int | None = None, count: int | None = None, bitorder: str = "big") -> Array:
    """The bits of bytes along `axis`, as 0 and 1; the first `count` of them, if given."""
    def extent(n: int) -> int:
        return 8 * n if count is None else count if count >= 0 else max(8 * n + count, 0)
    return _bits(np.unpackbits, a, axis, extent, count=count, bitorder=bitorder)


def _bits(function: Callable[..., Any], a: Any, axis: int | None, extent: Callable[[int], int], **options: Any) -> Array:
    x = asarray(a)
    function(np.ones(1, x.dtype), **{k: v for k, v in options.items() if k != "count"})  # NumPy's refusal of other dtypes
    x = x.ravel() if axis is None else x
    (axis,) = build.normalize_axes(0 if axis is None else axis, x.ndim)
    e = build.uncut(known_expr(x), [axis])
    chunks = tuple((extent(e.shape[axis]),) if i == axis else c for i, c in enumerate(e.chunks))
    return map_blocks(functools.partial(function, axis=axis, **options), Array(e), dtype=np.uint8, chunks=chunks,
                      name=function.__name__)


def real_if_close(a: Any, tol: float = 100) -> Array:
    """The real part if all imaginary parts are within `tol` of zero (in units of the dtype's rounding, if above 1). The
    dtype depends on the values, so they are computed."""
    x = asarray(a)
    if x.dtype.kind != "c":
        return x
    limit = tol * np.finfo(x.dtype).eps if tol > 1 else tol
    return elementwise.real(x) if bool(reductions.all(elementwise.absolute(elementwise.imag(x)) < limit)) else x


# -- working days, dates as text --------------------------------------------------------------------------------------

def _each(function: Callable[..., Any], *operands: Any, **options: Any) -> Array:
    """A function of NumPy's on corresponding elements."""
    given = [o if isinstance(o, Array) else np.asarray(o)[()] for o in operands]
    bound = functools.partial(function, **options)
    dtype = np.asarray(bound(*(np.ones(1, o.dtype) for o in given))).dtype
    return _apply("user", *given, kw=(("dtype", dtype.str), ("function", bound)), dtype=dtype)


def busday_count(begindates: Any, enddates: Any, weekmask: Any = "1111100", holidays: Any = (), busdaycal: Any = None) -> Array:
    """Working days from one date up to, and without, the other."""
    return _each(np.busday_count, _days(begindates), _days(enddates), **_calendar(weekmask, holidays, busdaycal))


def busday_offset(dates: Any, offsets: Any, roll: str = "raise", weekmask: Any = "1111100", holidays: Any = (),
                  busdaycal: Any = None) -> Array:
    """The date so many working days later; `roll` says what to do with a date that is none."""
    return _each(np.busday_offset, _days(dates), offsets, roll=roll, **_calendar(weekmask, holidays, busdaycal))


def is_busday(dates: Any, weekmask: Any = "1111100", holidays: Any = (), busdaycal: Any = None) -> Array:
    """Whether dates are working days."""
    return _each(np.is_busday, _days(dates), **_calendar(weekmask, holidays, busdaycal))


def _days(dates: Any) -> Any:
    x = dates if isinstance(dates, Array) else np.asarray(dates, "M8[D]")
    if x.dtype.kind != "M":
        raise DTypeError(f"working days are counted of dates, not of {x.dtype}; convert with astype('M8[D]')")
    return x.astype("M8[D]") if isinstance(x, Array) else x[()]


def _calendar(weekmask: Any, holidays: Any, busdaycal: Any) -> dict[str, Any]:
    calendar = busdaycal if busdaycal is not None else np.busdaycalendar(weekmask, holidays)
    return {"weekmask": calendar.weekmask.tolist(), "holidays": calendar.holidays}


def datetime_as_string(arr: Any, unit: str | None = None, timezone: str = "naive", casting: str = "same_kind") -> Array:
    """Dates as text in ISO 8601."""
    x = asarray(arr)
    function = functools.partial(np.datetime_as_string, unit=unit, timezone=timezone, casting=casting)
    return map_blocks(function, x, dtype=function(np.ones(1, x.dtype)).dtype, name="datetime_as_string")


__all__ = ["busday_count", "busday_offset", "datetime_as_string", "is_busday", "packbits", "real_if_close", "unpackbits"]
