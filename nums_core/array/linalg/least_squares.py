"""Least squares, pseudo-inverse, rank and condition: what singular values answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from nums_core.array.array import Array, as_expr, known_expr
from nums_core.array.linalg.norms import norm
from nums_core.array.linalg.orthogonal import _Tree, row_blocks, svd, svdvals
from nums_core.array.linalg.stacks import (
    LinAlgError,
    apply,
    array,
    blocks,
    common,
    inexact,
    matrices,
    part,
    real,
    square,
)
from nums_core.expr import build
from nums_core.expr.node import Expr


def lstsq(a: Any, b: Any, rcond: float | None = None) -> tuple[Array, Array, Array, Array]:
    """The x of least norm that minimizes ||b - a x||.

    Parameters
    ----------
    a : array_like, shape (m, n), any chunks
    b : array_like, shape (m,) or (m, k)
    rcond : float, optional
        Singular values up to `rcond` times the largest count as 0. Default: eps * max(m, n).

    Returns
    -------
    x : shape (n,) or (n, k)
    residuals : shape (1,) or (k,), squared; shape (0,) where m <= n. Unlike NumPy's they are there for a matrix of
        deficient rank too: a shape cannot depend on data.
    rank : 0-d int
    s : shape (min(m, n),), singular values

    Raises
    ------
    LinAlgError
        Dimensions that do not fit, in NumPy's words.

    Notes
    -----
    One pass over `a` and `b` up the tree of `tsqr`, Q^H b beside R: 2 m n (n + k) flop; then the SVD of R.
    """
    matrix, rhs = common(*(inexact(v) for v in (a, b)))
    for x, allowed in ((matrix, (2,)), (rhs, (1, 2))):
        if x.ndim not in allowed:
            raise LinAlgError(f"{x.ndim}-dimensional array given. Array must be two-dimensional; solve the matrices of a "
                              "stack one by one, or use pinv")
    if matrix.shape[0] != rhs.shape[0]:
        raise LinAlgError(f"Incompatible dimensions: {matrix.shape[0]} rows and {rhs.shape[0]} right-hand values; they "
                          "must be equal")
    vector = rhs.ndim == 1
    if vector:
        rhs = build.axes(rhs, (0, None), (rhs.shape[0], 1))
    return _lstsq(matrix, rhs, vector, np.finfo(matrix.dtype).eps * max(matrix.shape) if rcond is None else rcond)


def _lstsq(a: Expr, b: Expr, vector: bool, rcond: float) -> tuple[Array, Array, Array, Array]:
    (m, n), k = a.shape, b.shape[1]
    a = row_blocks(a)
    b = build.rechunk(b, (a.chunks[0], (k,)))
    tree = _Tree(a, "lstsq_leaf", "lstsq_group", (b,), k)
    root = blocks("lstsq_root", [tree.root], ("one",), (1,), a.dtype, ((1,),), params=(float(rcond),),
                  elements=float(n * (n + k)), flop=20.0 * n ** 3)
    low = min(m, n)
    x = part(root, 0, (n, k), a.dtype, ((n,), (k,)))
    if vector:
        x = build.axes(x, (0,), (n,))
    residuals = part(root, 1, (k,), real(a.dtype), ((k,),))
    if m <= n:
        residuals = build.full(0, (0,), real(a.dtype), ((0,),))
    rank = part(root, 2, (), np.intp, ())
    s = part(root, 3, (low,), real(a.dtype), ((low,),))
    return tuple(array(x, residuals, rank, s))  # type: ignore[return-value]


def _tolerance(given: Any, s: Array, default: float) -> Array:
    """`given` (relative, one a matrix) times the largest singular value, with a last axis of extent 1."""
    from nums_core.array.reductions import max as largest

    top = largest(s, axis=-1, keepdims=True) if s.shape[-1] else s
    if given is None:
        return top * np.asarray(default, s.dtype)[()]
    return top * _with_last_axis(given)


def _with_last_axis(x: Any) -> Any:
    if np.isscalar(x):
        return x
    e = as_expr(x)
    return Array(build.axes(e, (*range(e.ndim), None), (*e.shape, 1)))


def matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Array:  # noqa: N803
    """Singular values above a tolerance: shape of the stack, int.

    `tol` is absolute, `rtol` relative to the largest; default: eps * max(m, n), relative. Vectors have rank 0 or 1.

    Raises
    ------
    ValueError
        Both `tol` and `rtol` are given.
    """
    if tol is not None and rtol is not None:
        raise ValueError("`tol` and `rtol` can't be both set; give one of them")
    from nums_core.array.reductions import any as any_of
    from nums_core.array.reductions import sum as total

    x = known_expr(A)
    if x.ndim < 2:
        return any_of(Array(x) != 0).astype(np.intp)
    s = svdvals(Array(x), hermitian=hermitian)
    limit = _with_last_axis(tol) if tol is not None else _tolerance(rtol, s, max(x.shape[-2:]) * np.finfo(s.dtype).eps)
    return total(s > limit, axis=-1, dtype=np.intp)


def pinv(a: Any, rcond: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Array:
    """Moore-Penrose pseudo-inverse: shape (.., n, m).

    Singular values up to `rcond` (or `rtol`) times the largest count as 0; default 1e-15, or with `rtol=None` left to
    the dtype as NumPy does.

    Raises
    ------
    ValueError
        Both are given.
    """
    from nums_core.array.elementwise import divide, where
    from nums_core.array.products import matmul

    if rcond is not None and rtol is not None:
        raise ValueError("`rtol` and `rcond` can't be both set; give one of them")
    x = matrices(a)
    if 0 in x.shape[-2:]:
        shape = (*x.shape[:-2], x.shape[-1], x.shape[-2])
        return Array(build.full(0, shape, x.dtype, tuple((n,) for n in shape)))
    x = build.elementwise("conjugate", [x]) if x.dtype.kind == "c" else x
    u, s, vt = svd(Array(x), hermitian=hermitian)
    given = rcond if rcond is not None else rtol
    large = s > _tolerance(given, s, 1e-15)
    inverse = where(large, divide(1, where(large, s, 1)), 0).astype(s.dtype)
    turn = lambda e: build.transpose(e, (*range(e.ndim - 2), e.ndim - 1, e.ndim - 2))  # noqa: E731
    return matmul(Array(turn(vt.expr)) * inverse[..., None, :], Array(turn(u.expr)))


def cond(x: Any, p: Any = None) -> Array:
    """Condition number: of singular values (`p` None, 2 or -2), or norm(x, p) * norm(inv(x), p). Infinite where singular.

    Raises
    ------
    LinAlgError
        Empty or not a matrix; not square where `p` needs the inverse.
    """
    from nums_core.array.elementwise import isnan, where
    from nums_core.array.reductions import any as any_of

    e = matrices(x)
    if 0 in e.shape[-2:]:
        raise LinAlgError(f"cond is not defined on empty arrays; this one has shape {e.shape}")
    if p is None or p in (2, -2):
        s = svdvals(Array(e))
        top, low = s[..., 0], s[..., -1]
        ratio = low / top if p == -2 else top / where(low == 0, 1, low)
        made = ratio if p == -2 else where((low == 0) & (top != 0), np.inf, ratio)
        made = where((top == 0) & (low == 0), np.inf, made)
    else:
        e = square(Array(e))
        (inverse,) = apply("inv", [e], [(e.shape[-2:], e.dtype)], 2.0 * e.shape[-1] ** 3, soft=True)
        made = norm(Array(e), p, axis=(-2, -1)) * norm(Array(inverse), p, axis=(-2, -1))
    missing = any_of(isnan(Array(e)), axis=(-2, -1))
    return where(isnan(made) & ~missing, np.inf, made).astype(real(e.dtype))


__all__ = ["cond", "lstsq", "matrix_rank", "pinv"]
