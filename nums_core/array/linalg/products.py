"""Products under `linalg`, where NumPy's take the last axes as matrices or insist on vectors."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

from nums_core.array import products
from nums_core.array.array import Array, known_expr
from nums_core.array.linalg.stacks import LinAlgError
from nums_core.array.linalg.triangular import inv, solve
from nums_core.errors import ShapeError
from nums_core.expr import build

matmul = products.matmul
tensordot = products.tensordot


def matrix_transpose(x: Any, /) -> Array:
    """The last two axes swapped."""
    e = known_expr(x)
    if e.ndim < 2:
        raise ShapeError(f"Input array must be at least 2-dimensional, but it is {e.ndim}; add an axis with x[None]")
    return Array(build.transpose(e, (*range(e.ndim - 2), e.ndim - 1, e.ndim - 2)))


def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Array:
    """Sum of conj(x1) * x2 along an axis."""
    return products.vecdot(x1, x2, axis=axis)


def outer(x1: Any, x2: Any, /) -> Array:
    """All products of elements of two vectors.

    Raises
    ------
    ValueError
        An operand is not one-dimensional.
    """
    a, b = known_expr(x1), known_expr(x2)
    if a.ndim != 1 or b.ndim != 1:
        raise ShapeError(f"Input arrays must be one-dimensional, but they are x1.ndim={a.ndim} and x2.ndim={b.ndim}.; use "
                         "numpy's outer, which flattens, or tensordot(x1, x2, 0)")
    return products.outer(Array(a), Array(b))


def cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Array:
    """Cross product of vectors of three components along an axis."""
    a, b = known_expr(x1), known_expr(x2)
    if a.shape[axis] != 3 or b.shape[axis] != 3:
        raise ShapeError(f"Both input arrays must be (arrays of) 3-dimensional vectors, but they are {a.shape[axis]} and "
                         f"{b.shape[axis]} dimensional instead.; name the axis of the components with axis=")
    return products.cross(Array(a), Array(b), axis=axis)


def trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Array:
    """Sum along a diagonal of each matrix."""
    return products.trace(x, offset, -2, -1, dtype)


def diagonal(x: Any, /, *, offset: int = 0) -> Array:
    """A diagonal of each matrix."""
    from nums_core.array import diagonals

    return diagonals.diagonal(x, offset, -2, -1)


def matrix_power(a: Any, n: int) -> Array:
    """`a` multiplied by itself `n` times: about log2(n) products; a negative power inverts first.

    Raises
    ------
    TypeError
        The power is not an integer.
    LinAlgError
        Not square; while computing, singular where the power is negative.
    """
    try:
        n = operator.index(n)
    except TypeError:
        raise TypeError(f"exponent must be an integer, not {n!r}; for other powers use eigh") from None
    x = known_expr(a)
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise LinAlgError(f"Last 2 dimensions of the array must be square; the shape is {x.shape}")
    if n == 0:
        return _identity(x)
    base = Array(x) if n > 0 else inv(Array(x))
    made: Array | None = None
    for bit in reversed(bin(abs(n))[2:]):
        if bit == "1":
            made = base if made is None else matmul(made, base)
        base = matmul(base, base)
    assert made is not None
    return made


def _identity(x: Any) -> Array:
    n = x.shape[-1]
    eye = build.create("eye", (0, x.dtype.str), (n, n), x.dtype, (x.chunks[-1], x.chunks[-1]))
    return Array(build.broadcast_to(eye, x.shape, (*x.chunks[:-2], x.chunks[-1], x.chunks[-1])))


def multi_dot(arrays: Sequence[Any], *, out: Any = None) -> Any:
    """Product of two or more matrices in the order that costs least; the first and the last may be vectors.

    Raises
    ------
    ValueError
        Fewer than two arrays, or extents that do not fit.
    """
    if len(arrays) < 2:
        raise ValueError("Expecting at least two arrays.")
    for k, a in enumerate(arrays):
        ndim = known_expr(a).ndim
        if ndim != 2 and not (ndim == 1 and k in (0, len(arrays) - 1)):
            raise LinAlgError(f"{ndim}-dimensional array given. Array must be two-dimensional (operand {k}); only the "
                              "first and the last may be vectors")
    return products.deliver(functools.reduce(products.dot, arrays), out)


def tensorsolve(a: Any, b: Any, axes: Any = None) -> Array:
    """The x of tensordot(a, x, x.ndim) = b.

    Raises
    ------
    LinAlgError
        The leading and trailing axes of `a` have different numbers of elements.
    """
    from nums_core.array.manipulation import reshape

    x, rhs = known_expr(a), Array(known_expr(b))
    if axes is not None:
        moved = [k % x.ndim for k in axes]
        x = build.transpose(x, [i for i in range(x.ndim) if i not in moved] + moved)
    tail = x.shape[rhs.ndim:]
    n = math.prod(tail)
    if n * math.prod(x.shape[:rhs.ndim]) != n * n or n != rhs.size:
        raise LinAlgError(f"Input arrays must satisfy the requirement prod(a.shape[b.ndim:]) == prod(a.shape[:b.ndim]); "
                          f"the shapes are {x.shape} and {rhs.shape}: move axes of a with axes=")
    return reshape(solve(reshape(Array(x), (n, n)), reshape(rhs, (n,))), tail)


def tensorinv(a: Any, ind: int = 2) -> Array:
    """The inverse of `a` under tensordot over `ind` axes: shape a.shape[ind:] + a.shape[:ind].

    Raises
    ------
    ValueError
        `ind` is not positive.
    """
    from nums_core.array.manipulation import reshape

    if ind <= 0:
        raise ValueError("Invalid ind argument. It must be a positive number of axes.")
    x = known_expr(a)
    head, tail = x.shape[:ind], x.shape[ind:]
    return reshape(inv(reshape(Array(x), (math.prod(head), -1))), (*tail, *head))


__all__ = ["cross", "diagonal", "matmul", "matrix_power", "matrix_transpose", "multi_dot", "outer", "tensordot",
           "tensorinv", "tensorsolve", "trace", "vecdot"]
