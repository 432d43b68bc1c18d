"""Ufunc: NumPy's universal functions as lazy objects with the same keywords and methods."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from nums_core import config
from nums_core.array.array import Array, Scalar, _apply, _operand, as_expr, known_expr
from nums_core.errors import DTypeError, ImplicitComputeError, ShapeError
from nums_core.expr import build
from nums_core.expr.node import Expr
from nums_core.expr.opaque import Opaque
from nums_core.ops.elementwise import UFUNCS, ufunc_loop
from nums_core.ops.scans import SCANS


class Ufunc:
    """A NumPy ufunc, lazily: `f(*arrays, out=, where=, dtype=)`, `f.outer(a, b)`, `f.reduce(a)`, `f.accumulate(a)`.

    Without `out`, elements where `where` is false are 0 (NumPy leaves them undefined). Floating-point warnings are not
    raised: blocks are computed later, on other threads. Numbers alone give NumPy's result at once.
    """

    def __init__(self, name: str) -> None:
        self.ufunc = UFUNCS[name]
        self.__name__ = self.__qualname__ = self.name = name
        self.nin, self.nout, self.nargs = self.ufunc.nin, self.ufunc.nout, self.ufunc.nargs
        self.types, self.ntypes, self.identity = self.ufunc.types, self.ufunc.ntypes, self.ufunc.identity
        self.signature = None
        self.__doc__ = f"`numpy.{name}`, lazily on blocks.\n\n{self.ufunc.__doc__ or ''}"

    def __repr__(self) -> str:
        return f"<ufunc '{self.name}'>"

    def __reduce__(self) -> Any:
        return Ufunc, (self.name,)

    def __call__(self, *args: Any, out: Any = None, where: Any = True, dtype: Any = None, casting: str = "same_kind",
                 order: str = "K", subok: bool = True, signature: Any = None, sig: Any = None, **unknown: Any) -> Any:
        if unknown:
            raise TypeError(f"{self.name}() got an unexpected keyword argument {next(iter(unknown))!r}; it takes out, where, "
                            "dtype, casting, order, subok and signature")
        if self.nin < len(args) <= self.nargs:
            if out is not None:
                raise TypeError("cannot specify 'out' as both a positional and keyword argument; give it once")
            args, out = args[:self.nin], args[self.nin:]
        if len(args) != self.nin:
            raise TypeError(f"{self.name}() takes from {self.nin} to {self.nargs} positional arguments but {len(args)} "
                            "were given")
        signature = sig if signature is None else signature
        if out is None and all(isinstance(a, Scalar) for a in args) and where is True:
            given = {k: v for k, v in (("dtype", dtype), ("signature", signature)) if v is not None}
            return self.ufunc(*args, casting=casting, **given)
        outs = self._outs(out)
        operands = [_operand(a) for a in args]
        if dtype is not None or signature is not None or casting != "same_kind":
            operands = self._typed(operands, dtype, signature, casting)
        names = [self.name] if self.nout == 1 else [f"{self.name}.{k}" for k in range(self.nout)]
        made = tuple(deliver(self.name, _apply(n, *map(_wrapped, operands, args)), o, where, casting)
                     for n, o in zip(names, outs, strict=True))
        return made[0] if self.nout == 1 else made

    def _outs(self, out: Any) -> tuple[Any, ...]:
        outs = (*out, *(None,) * (self.nout - len(out))) if isinstance(out, tuple) else (
            (out,) if self.nout == 1 else None if out is not None else (None,) * self.nout)
        if outs is None:
            raise TypeError("'out' must be a tuple of arrays; give one entry, array or None, for each result")
        if len(outs) != self.nout:
            raise ValueError("The 'out' tuple must have exactly one entry per ufunc output")
        return outs

    def _typed(self, operands: list[Any], dtype: Any, signature: Any, casting: str) -> list[Any]:
        """Operands in the dtypes of the loop that `dtype`, `signature` and `casting` choose."""
        kinds = tuple(build.kind_of(o) for o in operands)
        loop = ufunc_loop(self.ufunc, kinds, dtype, self._signature(signature), casting)
        return [build.cast(o, w) if isinstance(o, Expr) else np.asarray(o).astype(w)[()]
                for o, w in zip(operands, loop, strict=False)]

    def _signature(self, signature: Any) -> tuple[Any, ...] | None:
        if signature is None:
            return None
        if isinstance(signature, str):
            codes = signature.replace("->", "")
            signature = tuple(codes) if len(codes) == self.nargs else (*(None,) * self.nin, *codes)
        return tuple(None if s is None else np.dtype(s) for s in signature)

    # -- methods ------------------------------------------------------------------------------------------------------

    def outer(self, a: Any, b: Any, /, **kwargs: Any) -> Any:
        """All pairs: shape `a.shape + b.shape`."""
        if self.nin != 2:
            raise ValueError("outer product only supported for binary functions")
        x, y = as_expr(a), as_expr(b)
        upright = build.axes(x, (*range(x.ndim), *(None,) * y.ndim), (*x.shape, *(1,) * y.ndim))
        return self(Array(upright), Array(y), **kwargs)

    def reduce(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False,
               initial: Any = np._NoValue, where: Any = True) -> Array:
        """The function applied along `axis`, pair by pair. Sums and other folds go block by block; functions whose order
        matters (`subtract`) go over whole lines."""
        from nums_core.array import reductions

        if self.name in SCANS:  # functions that may be regrouped have a reduction of their own
            given = {} if initial is np._NoValue or initial is None else {"initial": initial}
            return reductions.by_name(SCANS[self.name], array, axis=axis, dtype=dtype, out=out, keepdims=keepdims,
                                      where=where, **given)
        self._check_binary("reduce")
        if where is not True:
            raise DTypeError(f"{self.name}.reduce takes no where= on blocks; use numpy.where() first")
        e = known_expr(array)
        options = {"dtype": dtype, "keepdims": bool(keepdims)}
        if initial is not np._NoValue:
            options["initial"] = initial
        result = reductions.result_of(self.ufunc.reduce, e, axis, **{k: v for k, v in options.items() if v is not None})
        axes = build.normalize_axes(axis, e.ndim)
        kept = [i for i in range(e.ndim) if keepdims or i not in axes]
        chunks = tuple((1,) if i in axes else e.chunks[i] for i in kept)
        made = self._on_lines(e, axes, tuple(("one", i) if i in axes else i for i in kept), chunks, result,
                              functools.partial(_method, self.ufunc, "reduce", axis=axes if e.ndim else axis, **options))
        return reductions.into(out, made)

    def accumulate(self, array: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Array:
        """Running results along `axis`."""
        from nums_core.array import reductions, scans

        self._check_binary("accumulate")
        if self.name in scans.ACCUMULATES:
            return scans.accumulate(self.name, array, axis=axis, dtype=dtype, out=out)
        e = known_expr(array)
        axes = build.normalize_axes(axis, e.ndim)
        result = self.ufunc.accumulate(np.ones((1,) * e.ndim, e.dtype), axis=axis, dtype=dtype).dtype
        made = self._on_lines(build.uncut(e, axes), axes, tuple(range(e.ndim)), build.uncut(e, axes).chunks, result,
                              functools.partial(_method, self.ufunc, "accumulate", axis=axes[0], dtype=dtype))
        return reductions.into(out, made)

    def reduceat(self, array: Any, indices: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Array:
        """Reductions over stretches that begin at `indices`, as in NumPy; each line along `axis` in one piece."""
        from nums_core.array import reductions

        self._check_binary("reduceat")
        e, index = known_expr(array), np.asarray(indices)
        axes = build.normalize_axes(axis, e.ndim)
        n = e.shape[axes[0]]
        if ((index < 0) | (index >= n)).any():
            raise IndexError(f"index {int(index[(index < 0) | (index >= n)][0])} out-of-bounds in {self.name}.reduceat "
                             f"[0, {n}); drop it, or append elements")
        result = self.ufunc.reduce(np.ones((1,) * e.ndim, e.dtype), axis=axis, dtype=dtype).dtype
        chunks = tuple((len(index),) if i in axes else c for i, c in enumerate(e.chunks))
        labels = tuple(("new", i) if i in axes else i for i in range(e.ndim))
        made = self._on_lines(e, axes, labels, chunks, result, functools.partial(
            _method, self.ufunc, "reduceat", indices=tuple(index.tolist()), axis=axes[0], dtype=dtype))
        return reductions.into(out, made)

    def at(self, a: Any, indices: Any, *operands: Any) -> None:
        """The function applied in place at `indices`; elements named twice are changed twice. Computes at once."""
        if isinstance(a, Array) and not config.get().implicit_compute:
            raise ImplicitComputeError(f"{self.name}.at computes, and computing unasked is turned off; call it on "
                                       "x.compute(), or config.set(implicit_compute=True)")
        from nums_core.array.computing import compute

        values, indices, operands = compute(a, indices, operands)
        target = np.array(values) if isinstance(a, Array) else a
        self.ufunc.at(target, indices, *operands)
        if isinstance(a, Array):
            a._expr = as_expr(target)

    def _check_binary(self, method: str) -> None:
        if self.nin != 2 or self.nout != 1:
            raise ValueError(f"{method} only supported for binary functions returning a single value; {self.name} takes "
                             f"{self.nin} and returns {self.nout}")

    def _on_lines(self, e: Expr, axes: Sequence[int], labels: tuple[Any, ...], chunks: Any, dtype: np.dtype,
                  function: Any) -> Array:
        """`function` of blocks that hold whole lines along `axes`."""
        return Array(build.blockmap(Opaque(function), [build.uncut(e, axes)], [tuple(range(e.ndim))], labels,
                                    tuple(sum(c) for c in chunks), dtype, chunks, label=function.args[0].__name__))


def _method(ufunc: np.ufunc, name: str, block: np.ndarray, **options: Any) -> Any:
    if "indices" in options:
        options["indices"] = list(options["indices"])
    return getattr(ufunc, name)(block, **options)


def _wrapped(operand: Any, given: Any) -> Any:
    """An operand that `_apply` takes; what could not be read as one stays as it was, for the error's sake."""
    return Array(operand) if isinstance(operand, Expr) else given if operand is None else operand


def deliver(name: str, made: Array, out: Any, where: Any, casting: str) -> Any:
    """A ufunc's result, masked by `where`, or written into `out` under NumPy's rules."""
    if out is not None:
        if not isinstance(out, (Array, np.ndarray)):
            raise TypeError("return arrays must be of ArrayType; pass an Array or ndarray as out=")
        if not np.can_cast(made.dtype, out.dtype, casting):  # type: ignore[arg-type]
            raise DTypeError(f"Cannot cast ufunc {name!r} output from {made.dtype!r} to {out.dtype!r} with casting "
                             f"rule {casting!r}; give out= a wider dtype or casting='unsafe'")
    if where is not True:
        kind = where.dtype if hasattr(where, "dtype") else np.asarray(where).dtype
        if kind.kind != "b":
            raise DTypeError(f"Cannot cast array data from {kind!r} to dtype('bool') according to the rule 'safe'; "
                             "compare it first, as in where=mask != 0")
        made = _apply("where", where, made, out if out is not None else np.zeros((), made.dtype)[()])
    if out is None:
        return made
    if build.broadcast_shape([made.expr.shape, out.shape]) != tuple(out.shape):
        raise ShapeError(f"non-broadcastable output operand with shape {tuple(out.shape)} doesn't match the broadcast shape "
                         f"{made.shape}; give out= that shape, or leave it out")
    if isinstance(out, np.ndarray):
        np.copyto(out, made.compute(), casting="unsafe")
        return out
    e = build.cast(made.expr, out.dtype)
    out._expr = e if e.shape == out.expr.shape else build.broadcast_to(e, out.expr.shape)
    return out
