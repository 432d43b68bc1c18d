"""Kernels of linear algebra on NumPy: whole matrices, and the steps of blocked factorizations.

    apply       one function of `WHOLE` on whole matrices or stacks of them
    tsqr_*      the tree of tall-skinny QR
    lstsq_*     the same tree, carrying the right-hand side instead of Q
    qr_*, lu_*, cholesky_*, lower_*, upper_*     one step on a column panel of a blocked factorization or substitution

A column panel is a block that holds all rows of a few columns. Step `k0` of a factorization works on rows `k0` and below.
SciPy is imported with this module, which only plans that need it import. No input block is ever written to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg

from nums_core.runtime.devices.tsqr import TSQR

Run = Callable[..., Any]


def put(block: Any, out: np.ndarray | None) -> Any:
    """`block`, or `out` with its contents."""
    if out is None:
        return block
    out[...] = block
    return out


# -- whole matrices ---------------------------------------------------------------------------------------------------

def _solve(a: np.ndarray, b: np.ndarray, assume_a: str, vector: bool) -> np.ndarray:
    if vector:
        b = b[..., None]
    if assume_a == "gen":
        x = np.linalg.solve(a, b)
    else:
        factor = np.linalg.cholesky(a)
        half = np.linalg.solve(factor, b) if a.ndim > 2 else _triangular(factor, b, True)
        back = np.conj(np.swapaxes(factor, -1, -2))
        x = np.linalg.solve(back, half) if a.ndim > 2 else _triangular(back, half, False)
    return x[..., 0] if vector else x


def _triangular(a: np.ndarray, b: np.ndarray, lower: bool, unit: bool = False) -> np.ndarray:
    try:
        return scipy.linalg.solve_triangular(a, b, lower=lower, unit_diagonal=unit, check_finite=False)
    except np.linalg.LinAlgError:
        raise np.linalg.LinAlgError("Singular matrix: the triangular factor has a zero on its diagonal") from None


def _stacked_triangular(a: np.ndarray, b: np.ndarray, lower: bool, vector: bool) -> np.ndarray:
    if a.ndim == 2 and b.ndim <= 2:
        return _triangular(a, b, lower)
    part = np.tril(a) if lower else np.triu(a)
    return np.linalg.solve(part, b[..., None])[..., 0] if vector else np.linalg.solve(part, b)


def _inv(a: np.ndarray, soft: bool = False) -> np.ndarray:
    """The inverse; `soft` gives NaN for a singular matrix, as numpy.linalg.cond wants it."""
    try:
        return np.linalg.inv(a)
    except np.linalg.LinAlgError:
        if not soft:
            raise
        return np.array([np.full(m.shape, np.nan, m.dtype) if _singular(m) else np.linalg.inv(m)
                         for m in a.reshape(-1, *a.shape[-2:])]).reshape(a.shape)


def _singular(m: np.ndarray) -> bool:
    try:
        np.linalg.inv(m)
    except np.linalg.LinAlgError:
        return True
    return False


def _svd(a: np.ndarray, full_matrices: bool, hermitian: bool, coerce_signs: bool) -> tuple[np.ndarray, ...]:
    u, s, vt = np.linalg.svd(a, full_matrices=full_matrices, hermitian=hermitian)
    return flip_signs(u, s, vt) if coerce_signs else (u, s, vt)


def flip_signs(u: np.ndarray, s: np.ndarray, vt: np.ndarray) -> tuple[np.ndarray, ...]:
    """Signs that do not depend on how the factors were computed: each right vector sums to a positive number."""
    k = s.shape[-1]
    sign = np.where(vt.sum(axis=-1).real < 0, -1, 1).astype(s.dtype)
    u, vt = u.copy(), vt * sign[..., None]
    u[..., :k] *= sign[..., None, :k]
    return u, s, vt


def _eig(a: np.ndarray) -> tuple[np.ndarray, ...]:
    """Always complex: whether real eigenvalues suffice depends on data."""
    values, vectors = np.linalg.eig(a)
    kind = np.result_type(a.dtype, np.complex64)
    return values.astype(kind), vectors.astype(kind)


def _lu(a: np.ndarray) -> tuple[np.ndarray, ...]:
    p, lower, upper = scipy.linalg.lu(a, check_finite=False)
    return np.real(p).astype(a.real.dtype, copy=False), lower, upper


WHOLE: dict[str, Callable[..., Any]] = {
    "qr": lambda a, mode: tuple(np.linalg.qr(a, mode)) if mode != "r" else np.linalg.qr(a, mode),
    "svd": _svd,
    "svdvals": lambda a, hermitian: np.linalg.svd(a, compute_uv=False, hermitian=hermitian),
    "cholesky": lambda a, upper: np.linalg.cholesky(a, upper=upper),
    "lu": _lu,
    "solve": _solve,
    "solve_triangular": _stacked_triangular,
    "inv": _inv,
    "det": np.linalg.det,
    "slogdet": lambda a: tuple(np.linalg.slogdet(a)),
    "eigh": lambda a, uplo: tuple(np.linalg.eigh(a, uplo)),
    "eigvalsh": lambda a, uplo: np.linalg.eigvalsh(a, uplo),
    "eig": _eig,
    "eigvals": lambda a: np.linalg.eigvals(a).astype(np.result_type(a.dtype, np.complex64)),
}


def _apply(name: str, kw: tuple[tuple[str, Any], ...]) -> Run:
    function, options = WHOLE[name], dict(kw)

    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> Any:
        return put(function(*blocks, **options), out)
    return run


# -- blocked Householder QR -------------------------------------------------------------------------------------------

def _lapack(name: str, *arrays: np.ndarray) -> Any:
    return scipy.linalg.get_lapack_funcs((name,), arrays)[0]


def _qr_panel(k0: int) -> Run:
    """Householder QR of the rows from `k0`: (column with R above and the reflectors below, T), as LAPACK packs them."""
    def run(args: Any, blocks: list[np.ndarray], out: Any = None) -> tuple[np.ndarray, np.ndarray]:
        column = np.array(blocks[0], order="F")
        n = min(column.shape[0] - k0, column.shape[1])
        packed, t, _ = _lapack("geqrt", column)(min(32, n), column[k0:])
        column[k0:] = packed
        return column, t
    return run


def _qr_update(k0: int, adjoint: bool = True) -> Run:
    """The reflectors of a panel, applied to another column: Q^H c, or with `adjoint=False` Q c."""
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        (panel, t), column = blocks
        k = min(panel.shape[0] - k0, panel.shape[1])
        trans = ("C" if panel.dtype.kind == "c" else "T") if adjoint else "N"
        made = np.array(column, order="F")
        made[k0:], _ = _lapack("gemqrt", panel)(panel[k0:, :k], t, made[k0:], trans=trans)
        return put(made, out)
    return run


def _qr_start(k0: int, width: int) -> Run:
    """A panel's reflectors applied to its own columns of the identity: where the columns of Q begin."""
    update = _qr_update(k0, adjoint=False)

    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        panel = blocks[0][0]
        return update(None, [blocks[0], np.eye(panel.shape[0], width, -k0, panel.dtype)], out)
    return run


def _upper_part(k0: int, rows: int, packed: bool) -> Run:
    """The first `rows` rows of a column of a factorization, zero below the diagonal; `packed` columns are in a tuple."""
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        column = blocks[0][0] if packed else blocks[0]
        return put(np.triu(column[:rows], -k0), out)
    return run


# -- blocked LU with partial pivoting ---------------------------------------------------------------------------------

def _swap_rows(column: np.ndarray, pivots: np.ndarray, k0: int) -> None:
    """LAPACK's row interchanges, in place: row k0 + i with row pivots[i]."""
    order = np.arange(column.shape[0])
    for i, p in enumerate(pivots.tolist(), k0):
        if p != i:
            order[i], order[p] = order[p], order[i]
    moved = np.flatnonzero(order != np.arange(len(order)))
    column[moved] = column[order[moved]]


def _lu_panel(k0: int) -> Run:
    """LU of the rows from `k0` with partial pivoting: (column with L below and U above, pivot rows)."""
    def run(args: Any, blocks: list[np.ndarray], out: Any = None) -> tuple[np.ndarray, np.ndarray]:
        column = np.array(blocks[0], order="F")
        column[k0:], pivots, _ = _lapack("getrf", column)(column[k0:])
        return column, pivots + k0
    return run


def _lu_update(k0: int) -> Run:
    """The same interchanges and elimination on another column; of a right-hand side it is forward substitution."""
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        (panel, pivots), column = blocks
        k1 = k0 + len(pivots)
        made = put(column, out) if out is not None else np.array(column)
        _swap_rows(made, pivots, k0)
        made[k0:k1] = _triangular(panel[k0:k1, :k1 - k0], made[k0:k1], True, unit=True)
        made[k1:] -= panel[k1:, :k1 - k0] @ made[k0:k1]
        return made
    return run


def _lu_lower(k0: int, width: int) -> Run:
    """Columns of L: the panel's, with the interchanges of the later panels."""
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        (panel, pivots), *later = blocks
        made = np.tril(panel[:, :width], -k0 - 1)
        at = k0 + len(pivots)
        for p in later:
            _swap_rows(made, p, at)
            at += len(p)
        made[np.arange(k0, k0 + width), np.arange(width)] = 1
        return put(made, out)
    return run


def _lu_order(rows: int) -> Run:
    """The row of A that stands at each row of L U, from the pivots of all panels."""
    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        order = np.arange(rows)[:, None]
        at = 0
        for pivots in blocks:
            _swap_rows(order, pivots, at)
            at += len(pivots)
        return put(order[:, 0], out)
    return run


def _lu_permutation(dtype: str) -> Run:
    """Columns of P, so that A = P L U."""
    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        order, (start, stop) = blocks[0], args
        made = np.zeros((len(order), stop - start), dtype)
        made[order[start:stop], np.arange(stop - start)] = 1
        return put(made, out)
    return run


def _lu_slogdet(k0: int) -> Run:
    """Sign and log |det| that one panel contributes."""
    def run(args: Any, blocks: list[Any], out: Any = None) -> tuple[Any, Any]:
        panel, pivots = blocks[0]
        diagonal = np.diagonal(panel[k0:k0 + len(pivots)])
        swaps = int(np.count_nonzero(pivots != np.arange(k0, k0 + len(pivots))))
        size = np.abs(diagonal)
        with np.errstate(all="ignore"):
            sign = np.prod(np.where(size == 0, 0, diagonal / np.where(size == 0, 1, size)), dtype=panel.dtype)
            return sign * (-1) ** swaps, np.log(size).sum(dtype=size.dtype)
    return run


def _slogdet_join() -> Run:
    def run(args: Any, blocks: list[Any], out: Any = None) -> tuple[Any, Any]:
        sign, log = np.prod([b[0] for b in blocks]), np.sum([b[1] for b in blocks])
        return np.asarray(sign, blocks[0][0].dtype), np.asarray(log, blocks[0][1].dtype)
    return run


def _det() -> Run:
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        sign, log = blocks[0]
        with np.errstate(over="ignore"):
            return put(np.asarray(sign * np.exp(log), sign.dtype), out)
    return run


# -- blocked Cholesky and substitution --------------------------------------------------------------------------------

def _cholesky_panel(k0: int) -> Run:
    """Columns of L: the factor of the diagonal square, and what is below it solved with that."""
    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        column = blocks[0]
        k1 = k0 + column.shape[1]
        made = np.zeros_like(column) if out is None else out
        made[:k0] = 0
        made[k0:k1] = np.linalg.cholesky(column[k0:k1])
        made[k1:] = _triangular(made[k0:k1].conj(), column[k1:].T, True).T
        return made
    return run


def _cholesky_update(k0: int) -> Run:
    """Another column less what the panel explains of it; rows above its own diagonal are not used again."""
    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        panel, column = blocks
        j0, j1 = args
        made = np.array(column)
        made[j0:] -= panel[j0:] @ panel[j0:j1].conj().T
        return put(made, out)
    return run


def _lower_step(k0: int) -> Run:
    """Forward substitution with the columns of a lower triangle from `k0`."""
    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        panel, rhs = blocks
        k1 = k0 + panel.shape[1]
        made = np.array(rhs)
        made[k0:k1] = _triangular(panel[k0:k1], made[k0:k1], True)
        made[k1:] -= panel[k1:] @ made[k0:k1]
        return put(made, out)
    return run


def _lower_adjoint_step(k0: int) -> Run:
    """Backward substitution with the adjoint of a lower triangle, whose columns from `k0` these are."""
    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        panel, rhs = blocks
        k1 = k0 + panel.shape[1]
        made = np.array(rhs)
        made[k0:k1] -= panel[k1:].conj().T @ made[k1:]
        made[k0:k1] = _triangular(panel[k0:k1].conj().T, made[k0:k1], False)
        return put(made, out)
    return run


def _upper_step(k0: int, packed: bool) -> Run:
    """Backward substitution with the columns of an upper triangle from `k0`; `packed` ones are an LU panel."""
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        panel, rhs = blocks[0][0] if packed else blocks[0], blocks[1]
        k1 = k0 + panel.shape[1]
        made = np.array(rhs)
        if not np.diagonal(panel[k0:k1]).all():
            raise np.linalg.LinAlgError("Singular matrix")
        made[k0:k1] = _triangular(panel[k0:k1], made[k0:k1], False)
        made[:k0] -= panel[:k0] @ made[k0:k1]
        return put(made, out)
    return run


KERNELS: dict[str, Callable[..., Run]] = {
    "apply": _apply,
    "qr_panel": _qr_panel,
    "qr_update": _qr_update,
    "qr_start": _qr_start,
    "upper_part": _upper_part,
    "lu_panel": _lu_panel,
    "lu_update": _lu_update,
    "lu_lower": _lu_lower,
    "lu_order": _lu_order,
    "lu_permutation": _lu_permutation,
    "lu_slogdet": _lu_slogdet,
    "slogdet_join": _slogdet_join,
    "det": _det,
    "cholesky_panel": _cholesky_panel,
    "cholesky_update": _cholesky_update,
    "lower_step": _lower_step,
    "lower_adjoint_step": _lower_adjoint_step,
    "upper_step": _upper_step,
    **TSQR,
}
