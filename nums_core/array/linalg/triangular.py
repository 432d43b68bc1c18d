"""LU, Cholesky and what they solve: blocked on column panels where a matrix is large, LAPACK where it is small.

LU pivots over all rows, as LAPACK does. Errors that depend on values (`Singular matrix`, `Matrix is not positive definite`)
come while the result is computed and name the line that built the operation.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

from nums_core.array.array import Array
from nums_core.array.linalg.stacks import (
    adjoint,
    apply,
    array,
    blocks,
    column_panels,
    common,
    inexact,
    is_small,
    matrices,
    panel_width,
    part,
    real,
    square,
)
from nums_core.errors import ShapeError
from nums_core.expr import build
from nums_core.expr.grid import offsets, uniform
from nums_core.expr.node import Expr


class SlogdetResult(NamedTuple):
    sign: Array
    logabsdet: Array


# -- factorizations ---------------------------------------------------------------------------------------------------

def cholesky(a: Any, /, *, upper: bool = False, lower: bool | None = None) -> Array:
    """Cholesky factor of a Hermitian positive definite matrix: `a` = L L^H, or with `upper` `a` = U^H U.

    Only the triangle that is asked for is read.

    Parameters
    ----------
    a : array_like, shape (.., n, n), any chunks
    upper : bool
    lower : bool, optional
        dask's keyword, the opposite of `upper`. Without either, the lower factor: NumPy's default, not dask's.

    Raises
    ------
    LinAlgError
        Not square; while computing, "Matrix is not positive definite".

    Notes
    -----
    n^3 / 3 flop. Over 8 MiB: right-looking on column panels, each held with all its rows.
    """
    x = square(a)
    if lower is not None:
        upper = not lower
    if x.ndim > 2 or is_small(x):
        return Array(apply("cholesky", [x], [(x.shape[-2:], x.dtype)], x.shape[-1] ** 3 / 3, upper=upper)[0])
    if upper:
        return Array(adjoint(_cholesky_panels(adjoint(x))))
    return Array(_cholesky_panels(x))


def _cholesky_panels(x: Expr) -> Expr:
    x = column_panels(x)
    return build.custom("linalg.right_looking", [x], ("cholesky", len(x.chunks[1])), x.shape, x.dtype, x.chunks)


def lu(a: Any) -> tuple[Array, Array, Array]:
    """LU factorization with partial pivoting: `a` = P L U, as scipy.linalg.lu.

    Parameters
    ----------
    a : array_like, shape (.., m, n), any chunks

    Returns
    -------
    P (.., m, m), a permutation; L (.., m, k), unit lower triangle; U (.., k, n), upper triangle; k = min(m, n)
    """
    x = matrices(a)
    m, n = x.shape[-2:]
    k = min(m, n)
    if x.ndim > 2 or is_small(x):
        results = [((m, m), real(x.dtype)), ((m, k), x.dtype), ((k, n), x.dtype)]
        return tuple(array(*apply("lu", [x], results, 2.0 * m * n * k / 3)))  # type: ignore[return-value]
    panels, begins, widths = _lu_panels(x)
    count = sum(1 for b in begins if b < k)
    packed = tuple((k, b < k) for b in begins)
    upper = build.custom("linalg.per_panel", [panels], ("linalg.upper_part", packed, begins), (k, n), x.dtype,
                         ((k,), widths))
    factored = _first_panels(panels, count)
    pivots = part(factored, 1, (count,), np.intp, ((1,) * count,))
    lower = build.custom("linalg.lu_lower", [factored, pivots], (), (m, k), x.dtype, ((m,), widths[:count]))
    order = blocks("lu_order", [pivots], ("group",), (m,), np.intp, ((m,),), params=(m,), fan=count)
    cut = uniform(m, panel_width(m, m, x.dtype))
    places = tuple((o, o + w) for o, w in zip(offsets(cut), cut, strict=True))
    p = blocks("lu_permutation", [order], ("one",), (m, m), real(x.dtype), ((m,), cut), params=(real(x.dtype).str,),
               task_args=places)
    return tuple(array(p, lower, upper))  # type: ignore[return-value]


def _lu_panels(x: Expr) -> tuple[Expr, tuple[int, ...], tuple[int, ...]]:
    """The panels of an LU factorization, where they begin and their widths."""
    k = min(x.shape)
    x = column_panels(x, k)
    begins = tuple(offsets(x.chunks[1]))
    n_panels = sum(1 for b in begins if b < k)
    panels = build.custom("linalg.right_looking", [x], ("lu", n_panels), x.shape, x.dtype, x.chunks)
    return panels, begins, x.chunks[1]


def _first_panels(panels: Expr, count: int) -> Expr:
    """The panels that were factored: a gather of whole blocks, which moves nothing."""
    if count == len(panels.chunks[1]):
        return panels
    return build.gather(panels, (0, 0), (1, 1), (panels.chunks[0], panels.chunks[1][:count]))


# -- solving ----------------------------------------------------------------------------------------------------------

def _right_side(a: Expr, b: Any, name: str) -> tuple[Expr, Expr, bool]:
    """Operands in their common dtype, and whether `b` is a vector."""
    rhs = inexact(b)
    a, rhs = common(a, rhs)
    vector = rhs.ndim == 1
    if rhs.ndim == 0:
        raise ShapeError(f"{name}: Input operand 1 does not have enough dimensions (has 0, gufunc core with signature "
                         "(m,m),(m,n)->(m,n) requires 2); give a vector of as many elements as the matrix has rows")
    rows = rhs.shape[0] if vector else rhs.shape[-2]
    if rows != a.shape[-1]:
        core = "(m,m),(m)->(m)" if vector else "(m,m),(m,n)->(m,n)"
        raise ShapeError(f"{name}{'1' if vector else ''}: Input operand 1 has a mismatch in its core dimension 0, with "
                         f"gufunc signature {core} (size {rows} is different from {a.shape[-1]}); the right-hand side "
                         "needs as many rows as the matrix")
    return a, rhs, vector


def _columns(b: Expr, vector: bool, dtype: np.dtype) -> Expr:
    """A right-hand side as a matrix in column blocks with all rows."""
    if vector:
        b = build.axes(b, (0, None), (b.shape[0], 1))
    rows, n = b.shape
    cut = b.chunks[1] if max(b.chunks[1]) <= 512 else uniform(n, panel_width(rows, n, dtype))
    return build.rechunk(b, ((rows,), cut))


def _steps(kernel: str, panels: Expr, begins: tuple[int, ...], rhs: Expr, reverse: bool, *params: Any) -> Expr:
    return build.custom("linalg.substitute", [panels, rhs], (f"linalg.{kernel}", params, reverse, begins), rhs.shape,
                        rhs.dtype, rhs.chunks)


def _as_given(x: Expr, vector: bool) -> Array:
    return Array(build.axes(x, (0,), (x.shape[0],)) if vector else x)


def solve(a: Any, b: Any, sym_pos: bool | None = None, assume_a: str = "gen") -> Array:
    """The x of `a` x = b.

    Parameters
    ----------
    a : array_like, shape (.., n, n), any chunks
    b : array_like, shape (n,) or (.., n, k)
    assume_a : "gen" or "pos"
        "pos": `a` is Hermitian positive definite; Cholesky, half the work.
    sym_pos : bool, deprecated
        dask's former word for `assume_a="pos"`.

    Raises
    ------
    LinAlgError
        Not square; while computing, "Singular matrix" or "Matrix is not positive definite".

    Notes
    -----
    2 n^3 / 3 + 2 n^2 k flop. Over 8 MiB: blocked LU with partial pivoting, then substitution panel by panel.
    """
    if sym_pos is not None:
        warnings.warn("The sym_pos keyword is deprecated and should be replaced by using assume_a = 'pos'", FutureWarning,
                      stacklevel=2)
        assume_a = "pos" if sym_pos else "gen"
    if assume_a not in ("gen", "pos"):
        raise ValueError(f"{assume_a = } is not a recognized matrix structure; use 'gen' or 'pos'")
    matrix, rhs, vector = _right_side(square(a), b, "solve")
    n = matrix.shape[-1]
    if matrix.ndim > 2 or rhs.ndim > 2 or is_small(matrix):
        core = (n,) if vector else (n, rhs.shape[-1])
        return Array(apply("solve", [matrix, rhs], [(core, rhs.dtype)], n ** 3, cores=[2, 1 if vector else 2],
                           assume_a=assume_a, vector=vector)[0])
    columns = _columns(rhs, vector, matrix.dtype)
    made = _solve_gen(matrix, columns) if assume_a == "gen" else _solve_pos(matrix, columns)
    return _as_given(made, vector)


def _solve_gen(a: Expr, rhs: Expr) -> Expr:
    panels, begins, _ = _lu_panels(a)
    return _steps("upper_step", panels, begins, _steps("lu_update", panels, begins, rhs, False), True, True)


def _solve_pos(a: Expr, rhs: Expr) -> Expr:
    panels = _cholesky_panels(a)
    begins = tuple(offsets(panels.chunks[1]))
    return _steps("lower_adjoint_step", panels, begins, _steps("lower_step", panels, begins, rhs, False), True)


def solve_triangular(a: Any, b: Any, lower: bool = False) -> Array:
    """The x of `a` x = b, reading only one triangle of `a`.

    Parameters
    ----------
    a : array_like, shape (.., n, n), any chunks
    b : array_like, shape (n,) or (.., n, k)

    Raises
    ------
    LinAlgError
        Not square; while computing, a zero on the diagonal.
    """
    matrix, rhs, vector = _right_side(square(a), b, "solve_triangular")
    n = matrix.shape[-1]
    if matrix.ndim > 2 or rhs.ndim > 2 or is_small(matrix):
        core = (n,) if vector else (n, rhs.shape[-1])
        return Array(apply("solve_triangular", [matrix, rhs], [(core, rhs.dtype)], n ** 2, lower=lower, vector=vector,
                           cores=[2, 1 if vector else 2])[0])
    panels = column_panels(matrix)
    begins = tuple(offsets(panels.chunks[1]))
    columns = _columns(rhs, vector, matrix.dtype)
    if lower:
        return _as_given(_steps("lower_step", panels, begins, columns, False), vector)
    return _as_given(_steps("upper_step", panels, begins, columns, True, False), vector)


def inv(a: Any) -> Array:
    """The inverse: shape and costs of `solve` with the identity, 2 n^3 flop.

    Raises
    ------
    LinAlgError
        Not square; while computing, "Singular matrix".
    """
    x = square(a)
    n = x.shape[-1]
    if x.ndim > 2 or is_small(x):
        return Array(apply("inv", [x], [((n, n), x.dtype)], 2.0 * n ** 3)[0])
    eye = build.create("eye", (0, x.dtype.str), (n, n), x.dtype, ((n,), uniform(n, panel_width(n, n, x.dtype))))
    return Array(_solve_gen(x, eye))


def slogdet(a: Any) -> SlogdetResult:
    """Sign and logarithm of the absolute value of the determinant: two arrays of the stack's shape.

    Raises
    ------
    LinAlgError
        Not square.
    """
    x = square(a)
    if x.ndim > 2 or is_small(x):
        n = x.shape[-1]
        return SlogdetResult(*array(*apply("slogdet", [x], [((), x.dtype), ((), real(x.dtype))], n ** 3)))
    joined = _blocked_slogdet(x)
    return SlogdetResult(*array(part(joined, 0, (), x.dtype, ()), part(joined, 1, (), real(x.dtype), ())))


def _blocked_slogdet(x: Expr) -> Expr:
    panels, begins, _ = _lu_panels(x)
    count = len(begins)
    each = build.custom("linalg.per_panel", [panels], ("linalg.lu_slogdet", ((),) * count, begins), (count,), x.dtype,
                        ((1,) * count,))
    return blocks("slogdet_join", [each], ("group",), (1,), x.dtype, ((1,),), fan=count)


def det(a: Any) -> Array:
    """The determinant: shape of the stack. Overflows where `slogdet` does not.

    Raises
    ------
    LinAlgError
        Not square.
    """
    x = square(a)
    if x.ndim > 2 or is_small(x):
        return Array(apply("det", [x], [((), x.dtype)], x.shape[-1] ** 3)[0])
    return Array(blocks("det", [_blocked_slogdet(x)], ("one",), (), x.dtype, ()))


__all__ = ["SlogdetResult", "cholesky", "det", "inv", "lu", "slogdet", "solve", "solve_triangular"]
