"""Scans: running sums, products and extremes, and differences.

A scan is two passes over the blocks, which all threads and workers share: the total of every block, and then every block
after what comes before it. The result's blocks are those of the operand.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from nums_core.array.array import Array, as_expr, asarray, known_expr
from nums_core.array.reductions import into, result_of
from nums_core.errors import ShapeError
from nums_core.expr import build
from nums_core.expr.node import Expr
from nums_core.ops.elementwise import UFUNCS
from nums_core.ops.scans import SCANS

ACCUMULATES = frozenset(SCANS)


def accumulate(name: str, array: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Array:
    """`numpy.<name>.accumulate`: running result of a ufunc along `axis`.

    Raises
    ------
    TypeError
        The ufunc is not associative, or not in the table of scans.
    """
    if name not in SCANS:
        raise TypeError(f"{name}.accumulate is not available on blocks; those with accumulate are {', '.join(SCANS)}")
    x = as_expr(array)
    if not x.ndim:
        raise TypeError("cannot accumulate on a scalar")
    return into(out, _scan(name, x, axis, dtype, UFUNCS[name].accumulate))


def _scan(name: str, x: Expr, axis: Any, dtype: Any, like: Callable[..., Any], skip_nan: bool = False,
          include_initial: bool = False) -> Array:
    """The scan by `name`; `like` is NumPy's function, asked for the dtype and for what is wrong with the arguments."""
    axis = operator.index(axis)
    result = result_of(like, x, axis, **({} if dtype is None else {"dtype": np.dtype(dtype)}))
    axis %= x.ndim
    # float16 has too few digits to carry a sum in.
    work = np.dtype(np.float32) if result == np.float16 and name in ("add", "multiply") else result
    first = UFUNCS[name].identity if include_initial else None
    shape, chunks = x.shape, x.chunks
    if include_initial:
        shape = tuple(n + (i == axis) for i, n in enumerate(shape))
        chunks = tuple((c[0] + 1, *c[1:]) if i == axis else c for i, c in enumerate(chunks))
    params = (name, axis, work.str, skip_nan and x.dtype.kind in "fc", first)
    return Array(build.custom("scan.cumulative", [x], params, shape, result, chunks))


def _flat(a: Any, axis: Any) -> tuple[Expr, Any]:
    """The operand and the axis; without an axis, all elements in C order."""
    x = as_expr(a)
    if axis is not None and x.ndim:
        return x, axis
    if axis not in (None, 0, -1):
        raise np.exceptions.AxisError(axis, x.ndim)
    if x.ndim != 1:
        from nums_core.array.manipulation import ravel

        x = ravel(Array(x)).expr
    return x, 0


def _cumulative(name: str, public: str, doc: str) -> Callable[..., Array]:
    skip_nan = public.startswith("nan")

    def function(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, *, method: Any = None) -> Array:
        x, along = _flat(a, axis)
        return into(out, _scan(name, x, along, dtype, getattr(np, public), skip_nan))
    function.__name__ = function.__qualname__ = public
    function.__doc__ = (f"{doc} along `axis`, or over all elements in C order; dtypes as `numpy.{public}`.\n\n"
                        "dask's `method` is accepted; there is one method, and it runs in parallel.")
    return function


cumsum = _cumulative("add", "cumsum", "Running sum")
cumprod = _cumulative("multiply", "cumprod", "Running product")
nancumsum = _cumulative("add", "nancumsum", "Running sum, NaN as 0,")
nancumprod = _cumulative("multiply", "nancumprod", "Running product, NaN as 1,")


def _array_api(name: str, public: str) -> Callable[..., Array]:
    """The array API standard's functions, which may begin with the neutral element."""
    def function(x: Any, /, *, axis: Any = None, dtype: Any = None, out: Any = None,
                 include_initial: bool = False) -> Array:
        e = asarray(x).expr
        if axis is None and e.ndim > 1:
            raise ValueError("For arrays which have more than one dimension ``axis`` argument is required.")
        e, along = _flat(Array(e), axis)
        return into(out, _scan(name, e, along, dtype, getattr(np, public), include_initial=bool(include_initial)))
    function.__name__ = function.__qualname__ = public
    function.__doc__ = f"`numpy.{public}`; with `include_initial` the result has one element more along `axis`."
    return function


cumulative_sum = _array_api("add", "cumulative_sum")
cumulative_prod = _array_api("multiply", "cumulative_prod")


def cumreduction(func: Callable[..., Any], binop: Callable[..., Any], ident: Any, x: Any, axis: Any = None,
                 dtype: Any = None, out: Any = None, method: str = "sequential",
                 preop: Callable[..., Any] | None = None) -> Array:
    """A scan by functions of NumPy blocks, as in dask.

        func(block, axis=axis, dtype=dtype)    running results of one block
        binop(before, block)                   what comes before, and something: associative
        preop(block, axis=axis, keepdims=True) the total of a block; without it, the last of its running results

    `ident` and `method` are accepted and not needed.
    """
    e, along = _flat(x, axis)
    along = build.normalize_axes(operator.index(along), e.ndim)[0]
    if dtype is None:
        dtype = np.asarray(func(np.ones((1,) * e.ndim, e.dtype), axis=along, dtype=None)).dtype
    params = (func, binop, preop, along)
    return into(out, Array(build.custom("scan.user", [e], params, e.shape, np.dtype(dtype), e.chunks)))


# -- differences ------------------------------------------------------------------------------------------------------

def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Array:
    """The n-th difference along `axis`: x[i + 1] - x[i], n times.

    Parameters
    ----------
    prepend, append : array or scalar, optional
        Values put before and after `a` first.
    """
    if n < 0:
        raise ValueError(f"order must be non-negative but got {n!r}")
    x = known_expr(a)
    if not n:
        return Array(x)
    if not x.ndim:
        raise ValueError("diff requires input that is at least one dimensional")
    (axis,) = build.normalize_axes(axis, x.ndim)
    parts = [*_edge(prepend, x, axis), x, *_edge(append, x, axis)]
    if len(parts) > 1:
        x = build.concatenate(parts, axis)
    for _ in range(n):
        x = _difference(x, axis)
    return Array(x)


def _edge(values: Any, x: Expr, axis: int) -> list[Expr]:
    """What is put before or after `x`: a scalar is one slice of it."""
    if values is None or values is np._NoValue:
        return []
    e = as_expr(values)
    if not e.ndim:
        return [build.broadcast_to(e, tuple(1 if i == axis else n for i, n in enumerate(x.shape)),
                                   tuple((1,) if i == axis else c for i, c in enumerate(x.chunks)))]
    if e.ndim != x.ndim or any(p != q for i, (p, q) in enumerate(zip(e.shape, x.shape, strict=True)) if i != axis):
        raise ShapeError(f"all the input array dimensions except for the concatenation axis must match exactly; the "
                         f"array has shape {x.shape}, prepend= or append= {e.shape}, along axis {axis}")
    return [e]


def _difference(x: Expr, axis: int) -> Expr:
    n = x.shape[axis]
    m = max(n - 1, 0)
    op = "not_equal" if x.dtype == bool else "subtract"
    late, early = (_part(x, axis, min(k, n), m) for k in (1, 0))
    return build.elementwise(op, [late, build.rechunk(early, late.chunks)])


def _part(x: Expr, axis: int, start: int, n: int) -> Expr:
    """`n` elements from `start` along `axis`."""
    cut = build.slice_chunks(x.chunks[axis], start, 1, n)
    return build.gather(x, tuple(start if i == axis else 0 for i in range(x.ndim)), (1,) * x.ndim,
                        tuple(cut if i == axis else c for i, c in enumerate(x.chunks)))


def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Array:
    """Differences of neighbours in C order, with values before and after them, as `numpy.ediff1d`."""
    x, _ = _flat(Array(known_expr(ary)), None)
    made = _difference(x, 0)
    parts = []
    for name, values in (("to_begin", to_begin), ("to_end", to_end)):
        if values is None:
            continue
        e, _ = _flat(Array(as_expr(np.asarray(values) if not isinstance(values, Array) else values)), None)
        if not np.can_cast(e.dtype, x.dtype, casting="same_kind"):
            raise TypeError(f"dtype of `{name}` must be compatible with input `ary` under the `same_kind` rule; it is "
                            f"{e.dtype}, the input {x.dtype}: cast one of them with astype")
        parts.append((name, build.cast(e, made.dtype)))
    before = [e for name, e in parts if name == "to_begin"]
    after = [e for name, e in parts if name == "to_end"]
    return Array(build.concatenate([*before, made, *after], 0))


__all__ = [
    "cumprod", "cumreduction", "cumsum", "cumulative_prod", "cumulative_sum", "diff", "ediff1d", "nancumprod",
    "nancumsum",
]
