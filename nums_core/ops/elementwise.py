"""Elementwise operations: every NumPy ufunc of one element is a row, and so is each function written like one.

The dtype rule of a ufunc is NumPy's own (`ufunc.resolve_dtypes`), NEP 50's weak Python scalars included.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from nums_core.errors import DTypeError
from nums_core.ops.op import Table, promote

ELEMENTWISE = Table()

# Flop of one element, where it is far from 1 (measured ratios to an add, rounded).
_HEAVY = {"exp": 8, "exp2": 8, "expm1": 12, "log": 8, "log2": 10, "log10": 10, "log1p": 12, "sin": 12, "cos": 12,
          "tan": 20, "arcsin": 16, "arccos": 16, "arctan": 16, "arctan2": 24, "sinh": 20, "cosh": 16, "tanh": 16,
          "arcsinh": 20, "arccosh": 20, "arctanh": 20, "power": 24, "float_power": 24, "sqrt": 3, "cbrt": 16,
          "divide": 3, "floor_divide": 6, "remainder": 8, "fmod": 8, "hypot": 8, "logaddexp": 24, "logaddexp2": 24}


def ufunc_loop(f: np.ufunc, dtypes: tuple[Any, ...], dtype: Any = None, signature: tuple[Any, ...] | None = None,
               casting: Any = "same_kind") -> tuple[np.dtype, ...]:
    """Operand and result dtypes of the loop NumPy would run."""
    dtypes = tuple(np.dtype(bool) if d is bool else d for d in dtypes)
    if dtype is not None:
        signature = (None,) * f.nin + (np.dtype(dtype),) * f.nout
    given: dict[str, Any] = {} if signature is None else {"signature": signature}
    try:
        return f.resolve_dtypes((*dtypes, *(None,) * f.nout), casting=casting, **given)
    except TypeError as error:
        raise DTypeError(f"{error}; cast an operand first, as in x.astype(float)") from None


def _asked(function: Callable[..., Any]) -> Callable[..., np.dtype]:
    """The dtype rule of a function that is no ufunc: what NumPy returns for one element."""
    def rule(*kinds: Any, dtype: Any = None, **kw: Any) -> np.dtype:
        return _ask(function, kinds, tuple(sorted(kw.items())))
    return rule


@functools.lru_cache(maxsize=1024)
def _ask(function: Callable[..., Any], kinds: tuple[Any, ...], kw: tuple[tuple[str, Any], ...]) -> np.dtype:
    operands = [k(1) if isinstance(k, type) else np.ones(1, k) for k in kinds]
    try:
        with np.errstate(all="ignore"):
            return np.asarray(function(*operands, **dict(kw))).dtype
    except TypeError as error:
        raise DTypeError(f"{error}; cast an operand first, as in x.astype(float)") from None


def _rule(f: np.ufunc, which: int) -> Any:
    def rule(*dtypes: Any, dtype: Any = None, **kw: Any) -> np.dtype:
        return ufunc_loop(f, dtypes, dtype)[f.nin + which]
    return rule


UFUNCS: dict[str, np.ufunc] = {}
for _n in sorted(vars(np)):  # not dir(np): getattr of its lazy submodules would import them
    _f = getattr(np, _n)
    if isinstance(_f, np.ufunc) and _f.signature is None and _f.__name__ not in UFUNCS:
        UFUNCS[_f.__name__] = _f
        for _k in range(_f.nout):
            ELEMENTWISE.row(_f.__name__ if _f.nout == 1 else f"{_f.__name__}.{_k}", "blockwise", _f.nin,
                            _rule(_f, _k), _HEAVY.get(_f.__name__, 1))

ELEMENTWISE.row("cast", "blockwise", 1, lambda *d, dtype, **kw: np.dtype(dtype))
ELEMENTWISE.row("where", "blockwise", 3, lambda c, a, b, **kw: promote(a, b), 2)
ELEMENTWISE.row("user", "blockwise", -1, lambda *d, dtype, **kw: np.dtype(dtype), 10)
ELEMENTWISE.row("round", "blockwise", 1, _asked(np.round), 4)
ELEMENTWISE.row("real", "blockwise", 1, _asked(np.real))
ELEMENTWISE.row("imag", "blockwise", 1, _asked(np.imag))
ELEMENTWISE.row("angle", "blockwise", 1, _asked(np.angle), 24)
ELEMENTWISE.row("i0", "blockwise", 1, _asked(np.i0), 60)
ELEMENTWISE.row("sinc", "blockwise", 1, _asked(np.sinc), 16)
ELEMENTWISE.row("nan_to_num", "blockwise", 1, _asked(np.nan_to_num), 3)
ELEMENTWISE.row("isclose", "blockwise", 2, _asked(np.isclose), 6)
ELEMENTWISE.row("searchsorted", "blockwise", 2, lambda *d, **kw: np.dtype(np.intp), 30)
