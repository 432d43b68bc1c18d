"""Norms of vectors and matrices, all orders of NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from nums_core.array.array import Array, known_expr
from nums_core.array.linalg.orthogonal import svdvals
from nums_core.array.linalg.stacks import real
from nums_core.expr import build
from nums_core.expr.node import Expr


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Array:  # noqa: A002
    """Norm of vectors or matrices along `axis`.

    Parameters
    ----------
    x : array_like, any chunks
    ord : number, inf, -inf, "fro" or "nuc", optional
        Default: the 2-norm of all elements.
    axis : int (vectors), pair of ints (matrices) or None
        None: of the whole array, which must have one or two dimensions if `ord` is given.
    keepdims : bool

    Returns
    -------
    Array, real

    Raises
    ------
    ValueError
        An order that the kind of norm lacks, or an improper number of axes, in NumPy's words.
    """
    e = _inexact(known_expr(x))
    if axis is None:
        return _of_all(e, ord, keepdims)
    axes = build.normalize_axes(axis, e.ndim) if not isinstance(axis, (tuple, list)) else tuple(axis)
    if len(axes) == 1:
        return _vector(e, ord, build.normalize_axes(axes, e.ndim), keepdims)
    if len(axes) != 2:
        raise ValueError(f"Improper number of dimensions to norm: axis names {len(axes)} axes; one for vectors, two for "
                         "matrices")
    pair = [build.normalize_axes(a, e.ndim)[0] for a in axes]
    if pair[0] == pair[1]:
        raise ValueError("Duplicate axes given; name two different axes for a matrix norm")
    return _matrix(e, ord, pair[0], pair[1], keepdims)


def _inexact(e: Expr) -> Expr:
    return e if e.dtype.kind in "fc" else build.cast(e, float)


def _of_all(e: Expr, order: Any, keepdims: bool) -> Array:
    everything = tuple(range(e.ndim))
    if order is None or (order == 2 and e.ndim == 1) or (order in ("f", "fro") and e.ndim == 2):
        return _vector(e, 2, everything, keepdims)
    if e.ndim == 1:
        return _vector(e, order, everything, keepdims)
    if e.ndim == 2:
        return _matrix(e, order, 0, 1, keepdims)
    raise ValueError(f"Improper number of dimensions to norm: an array of {e.ndim} dimensions; name its axes with axis=")


# -- vectors ----------------------------------------------------------------------------------------------------------

def _reduced(name: str, e: Expr, axes: tuple[int, ...], keepdims: bool) -> Expr:
    kw = (("dtype", e.dtype.str),) if name == "sum" else ()
    return build.reduce(name, e, axes, keepdims, kw=kw, dtype=e.dtype)


def _vector(e: Expr, order: Any, axes: tuple[int, ...], keepdims: bool) -> Array:
    if isinstance(order, str):
        raise ValueError(f"Invalid norm order {order!r} for vectors; orders are numbers, inf and -inf")
    size = build.elementwise("absolute", [e])
    if order in (np.inf, -np.inf):
        return Array(_extreme(size, order > 0, axes, keepdims))
    if order == 0:
        nonzero = build.cast(build.elementwise("not_equal", [e, 0]), size.dtype)
        return Array(_reduced("sum", nonzero, axes, keepdims))
    if order == 1:
        return Array(_reduced("sum", size, axes, keepdims))
    if order is None or order == 2:
        squares = build.elementwise("square", [size if e.dtype.kind == "c" else e])
        return Array(build.elementwise("sqrt", [_reduced("sum", squares, axes, keepdims)]))
    powers = build.elementwise("power", [size, order])
    root = build.elementwise("power", [_reduced("sum", powers, axes, keepdims), 1 / order])
    return Array(build.cast(root, real(e.dtype)))


def _extreme(e: Expr, largest: bool, axes: tuple[int, ...], keepdims: bool) -> Expr:
    """The largest of non-negative values, 0 where there are none, or the smallest."""
    if all(e.shape[a] for a in axes):
        return _reduced("max" if largest else "min", e, axes, keepdims)
    if not largest:
        raise ValueError(f"zero-size array to reduction operation minimum which has no identity: shape {e.shape}; a norm "
                         "of a negative order needs at least one element")
    return _reduced("sum", e, axes, keepdims)


# -- matrices ---------------------------------------------------------------------------------------------------------

def _matrix(e: Expr, order: Any, row: int, col: int, keepdims: bool) -> Array:
    if order is None or order in ("fro", "f"):
        return _vector(e, 2, tuple(sorted((row, col))), keepdims)
    if order in (1, -1, np.inf, -np.inf) and not isinstance(order, str):
        inner, outer = (row, col) if order in (1, -1) else (col, row)
        sums = _reduced("sum", build.elementwise("absolute", [e]), (inner,), True)
        made = _extreme(sums, order > 0, (outer,), True)
    elif order in (2, -2) or order == "nuc":
        made = _of_singular_values(e, order, row, col)
    else:
        raise ValueError(f"Invalid norm order for matrices. {order!r} is not one of 'fro', 'nuc', 1, -1, 2, -2, inf, -inf")
    if keepdims:
        return Array(made)
    kept = [i for i in range(e.ndim) if i not in (row, col)]
    return Array(build.axes(made, kept, tuple(e.shape[i] for i in kept)))


def _of_singular_values(e: Expr, order: Any, row: int, col: int) -> Expr:
    kept = [i for i in range(e.ndim) if i not in (row, col)]
    s = svdvals(Array(build.transpose(e, [*kept, row, col]))).expr
    last = (s.ndim - 1,)
    made = _reduced("sum", s, last, False) if order == "nuc" else _extreme(s, order == 2, last, False)
    source = [kept.index(i) if i in kept else None for i in range(e.ndim)]
    return build.axes(made, source, tuple(1 if s is None else e.shape[i] for i, s in enumerate(source)))


def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Array:  # noqa: A002
    """Norm of the vectors along `axis` (an int or several; None: of all elements)."""
    e = _inexact(known_expr(x))
    return _vector(e, ord, build.normalize_axes(axis, e.ndim), keepdims)


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Array:  # noqa: A002
    """Norm of the matrices of the last two axes."""
    e = _inexact(known_expr(x))
    row, col = (build.normalize_axes(a, e.ndim)[0] for a in (-2, -1))
    return _matrix(e, ord, row, col, keepdims)


__all__ = ["matrix_norm", "norm", "vector_norm"]
