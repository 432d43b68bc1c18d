"""NumPy's own functions on Arrays: the ufunc and function protocols, and the array API's namespace.

`numpy.sin(x)`, `numpy.concatenate([x, y])`, `numpy.linalg.norm(x)` go to the function of the same name here, lazily. What NumPy
has and this library has not is computed with NumPy, at once, if `config.implicit_compute` allows it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from nums_core import config
from nums_core.array import elementwise
from nums_core.array.array import Array, _apply
from nums_core.array.ufunc import Ufunc, deliver
from nums_core.errors import ImplicitComputeError

API_VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12")
_MODULES = {"numpy": "nums_core.array", "numpy.linalg": "nums_core.array.linalg", "numpy.fft": "nums_core.array.fft",
            "numpy.lib.stride_tricks": "nums_core.array.lib.stride_tricks"}


# -- ufuncs -----------------------------------------------------------------------------------------------------------

def array_ufunc(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`__array_ufunc__` of Array: all methods of NumPy's ufuncs, and calls of anybody's."""
    outs = kwargs.get("out", ())
    outs = outs if isinstance(outs, tuple) else (outs,)
    if not all(map(_ours, (*inputs, *outs))):
        return NotImplemented
    if len(outs) == 1 and method != "__call__":
        kwargs["out"] = outs[0]
    ours = getattr(elementwise, ufunc.__name__, None)
    if isinstance(ours, Ufunc) and ours.ufunc is ufunc:
        return ours(*inputs, **kwargs) if method == "__call__" else getattr(ours, method)(*inputs, **kwargs)
    if method != "__call__":
        return _with_numpy(getattr(ufunc, method), inputs, kwargs)
    if ufunc.signature is not None:
        return _generalized(ufunc, inputs, kwargs)
    return _foreign(ufunc, inputs, kwargs)


def _ours(x: Any) -> bool:
    """Whether an operand leaves the operation to us: it is ours, NumPy's, or has no ufunc protocol of its own."""
    theirs = getattr(type(x), "__array_ufunc__", None)
    return x is None or isinstance(x, Array) or theirs is None or theirs is np.ndarray.__array_ufunc__ or isinstance(
        x, np.generic)


def _generalized(ufunc: np.ufunc, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`matmul`, `vecdot` and the like by their name here; another's by its signature, its core axes uncut."""
    ours = getattr(importlib.import_module("nums_core.array"), ufunc.__name__, None)
    if ours is not None and getattr(np, ufunc.__name__, None) is ufunc:
        return ours(*inputs, **kwargs)
    from nums_core.array.gufuncs import apply_gufunc

    kwargs = {k: v for k, v in kwargs.items() if k in ("axes", "axis", "keepdims")}
    return apply_gufunc(ufunc, str(ufunc.signature), *inputs, **kwargs)


def _foreign(ufunc: np.ufunc, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A ufunc of another library (`scipy.special.expit`), element by element."""
    outs, where, dtype = kwargs.pop("out", None), kwargs.pop("where", True), kwargs.pop("dtype", None)
    samples = [np.ones((1,) * np.ndim(x), x.dtype) if isinstance(x, (Array, np.ndarray)) else x for x in inputs]
    with np.errstate(all="ignore"):
        made = ufunc(*samples, **({} if dtype is None else {"dtype": dtype}))
    kinds = [np.asarray(m).dtype for m in (made if ufunc.nout > 1 else (made,))]
    results = [_apply("user", *inputs, kw=(("dtype", k.str), ("function", _Part(ufunc, i if ufunc.nout > 1 else None))),
                      dtype=k) for i, k in enumerate(kinds)]
    if outs is not None or where is not True:
        targets = outs if isinstance(outs, tuple) else (None,) * len(results)
        results = [deliver(ufunc.__name__, r, o, where, "same_kind")
                   for r, o in zip(results, targets, strict=True)]
    return tuple(results) if ufunc.nout > 1 else results[0]


class _Part:
    """One result of a ufunc; compared by the ufunc, so that expressions made twice are one."""

    def __init__(self, ufunc: np.ufunc, k: int | None) -> None:
        self.ufunc, self.k = ufunc, k
        self.__name__ = ufunc.__name__

    def __call__(self, *operands: Any) -> Any:
        made = self.ufunc(*operands)
        return made if self.k is None else made[self.k]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Part) and other.ufunc is self.ufunc and other.k == self.k

    def __hash__(self) -> int:
        return hash((id(self.ufunc), self.k))


# -- functions --------------------------------------------------------------------------------------------------------

def array_function(func: Callable[..., Any], types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`__array_function__` of Array: the function of the same name in this namespace, else NumPy on the values."""
    if not all(issubclass(t, (Array, np.ndarray, np.generic)) or t.__array_function__ is np.ndarray.__array_function__
               for t in types):
        return NotImplemented
    ours = find(func)
    if ours is not None:
        return ours(*args, **kwargs)
    return _with_numpy(func, args, kwargs)


def find(func: Callable[..., Any]) -> Callable[..., Any] | None:
    """The function here that stands for a NumPy function, or None."""
    where = _MODULES.get(getattr(func, "__module__", ""))
    if where is None:
        return None
    try:
        ours = getattr(importlib.import_module(where), func.__name__, None)
    except ImportError:
        return None
    return None if ours is func or not callable(ours) else ours


def _with_numpy(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`func` of NumPy on computed values; the result is NumPy's."""
    name = f"{getattr(func, '__module__', None) or 'numpy'}.{getattr(func, '__name__', func)}"
    args, kwargs = _computed((args, kwargs), name)
    return func(*args, **kwargs)


def _computed(tree: Any, name: str) -> Any:
    """Arrays in nested tuples, lists and dicts as NumPy arrays, computed in one run."""
    if not config.get().implicit_compute and _holds_arrays(tree):
        raise ImplicitComputeError(f"{name} has no lazy version here, and computing unasked is turned off; call it on "
                                   "x.compute(), or config.set(implicit_compute=True)")
    from nums_core.array.computing import compute

    return compute(tree)[0]


def _holds_arrays(tree: Any) -> bool:
    if isinstance(tree, dict):
        tree = list(tree.values())
    return isinstance(tree, Array) or (isinstance(tree, (tuple, list)) and any(map(_holds_arrays, tree)))


# -- the array API ----------------------------------------------------------------------------------------------------

def namespace(api_version: str | None = None) -> Any:
    """The module of functions for Arrays, `nums_core.array`.

    Raises
    ------
    ValueError
        A version of the array API that is not followed.
    """
    if api_version is not None and api_version not in API_VERSIONS:
        raise ValueError(f"array API version {api_version!r} is not supported; those supported are {', '.join(API_VERSIONS)}")
    return importlib.import_module("nums_core.array")


class ArrayNamespaceInfo:
    """What `__array_namespace_info__()` gives: capabilities, devices and dtypes of this namespace."""

    def capabilities(self) -> dict[str, Any]:
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 32}

    def default_device(self) -> str:
        return "cpu"

    def devices(self) -> list[str]:
        return ["cpu"]

    def default_dtypes(self, *, device: Any = None) -> dict[str, np.dtype]:
        return {"real floating": np.dtype(np.float64), "complex floating": np.dtype(np.complex128),
                "integral": np.dtype(np.int_), "indexing": np.dtype(np.intp)}

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, np.dtype]:
        names = ["bool", *(f"{s}int{n}" for s in ("", "u") for n in (8, 16, 32, 64)), "float32", "float64", "complex64",
                 "complex128"]
        return {n: np.dtype(n) for n in names if kind is None or np.isdtype(np.dtype(n), kind)}
