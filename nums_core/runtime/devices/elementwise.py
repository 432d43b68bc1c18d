"""Elementwise kernels on NumPy: `CALLS[op](operands, out, kw)` writes one tile.

Every NumPy ufunc with one result is a row by its own name. What is not a ufunc stands below, a row each. A ufunc with two
results (`modf`, `divmod`, `frexp`) is a row for each result: `modf.0`, `modf.1`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Call = Callable[[list[Any], np.ndarray, dict[str, Any]], None]


def _ufunc(f: np.ufunc) -> Call:
    def call(operands: list[Any], out: np.ndarray, kw: dict[str, Any]) -> None:
        f(*operands, out=out, casting="unsafe", **kw)
    return call


def _unstrided(f: np.ufunc) -> Call:
    """NumPy 2.4 writes wrong values, or none, where these write to strided memory (from strided memory, for negative)."""
    def call(operands: list[Any], out: np.ndarray, kw: dict[str, Any]) -> None:
        (x,) = operands
        if out.flags.c_contiguous and np.asarray(x).flags.c_contiguous:
            f(x, out=out, casting="unsafe", **kw)
        else:
            np.copyto(out, f(x, **kw), casting="unsafe")
    return call


def _nth_of(f: np.ufunc, k: int) -> Call:
    def call(operands: list[Any], out: np.ndarray, kw: dict[str, Any]) -> None:
        out[...] = f(*operands, **kw)[k]
    return call


def _function(f: Callable[..., Any]) -> Call:
    def call(operands: list[Any], out: np.ndarray, kw: dict[str, Any]) -> None:
        out[...] = f(*operands, **kw)
    return call


def _cast(operands: list[Any], out: np.ndarray, kw: dict[str, Any]) -> None:
    x = operands[0]
    if x.dtype.kind == "c" and out.dtype.kind not in "cb":  # without NumPy's warning, which `astype` gives at its line
        x = x.real
    np.copyto(out, x, casting="unsafe")


def _where(operands: list[Any], out: np.ndarray, kw: dict[str, Any]) -> None:
    condition, a, b = operands
    if np.size(condition) == 1 and out.size:  # one decision for all: no mask
        np.copyto(out, a if np.asarray(condition).item() else b, casting="unsafe")
        return
    if out is condition or np.may_share_memory(out, a) or np.may_share_memory(out, condition):
        out[...] = np.where(condition, a, b)
        return
    np.copyto(out, b, casting="unsafe")
    np.copyto(out, a, where=np.asarray(condition, bool), casting="unsafe")


def _round(operands: list[Any], out: np.ndarray, kw: dict[str, Any]) -> None:
    if out.dtype.kind in "iu":  # NumPy rounds integers to tens by way of floats, which it will not write into `out`
        out[...] = np.round(operands[0], **kw)
    else:
        np.round(operands[0], out=out, **kw)


def _user(operands: list[Any], out: np.ndarray, kw: dict[str, Any]) -> None:
    out[...] = kw["function"](*operands)


CALLS: dict[str, Call] = {}
for _name in sorted(vars(np)):  # not dir(np): getattr of its lazy submodules would import them
    _f = getattr(np, _name)
    if isinstance(_f, np.ufunc) and _f.signature is None:
        if _f.nout == 1:
            CALLS[_f.__name__] = _ufunc(_f)
        else:
            CALLS.update({f"{_f.__name__}.{k}": _nth_of(_f, k) for k in range(_f.nout)})
UNSTRIDED = frozenset({"isfinite", "isinf", "isnan", "negative", "signbit"})
CALLS |= {name: _unstrided(getattr(np, name)) for name in UNSTRIDED}
CALLS |= {
    "cast": _cast,
    "where": _where,
    "user": _user,
    "round": _round,
    "real": _function(np.real),
    "imag": _function(np.imag),
    "angle": _function(np.angle),
    "i0": _function(np.i0),
    "sinc": _function(np.sinc),
    "nan_to_num": _function(np.nan_to_num),
    "isclose": _function(np.isclose),
    "searchsorted": _function(np.searchsorted),
}
