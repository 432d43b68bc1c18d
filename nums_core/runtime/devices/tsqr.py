"""Kernels of tall-skinny QR: every row block is factored alone, their R factors are factored together up a tree, and Q
comes down the tree.

Source     Demmel, Grigori, Hoemmen, Langou, "Communication-optimal parallel and sequential QR and LU factorizations",
           SISC 2012 (the tree); Yamamoto, Nakatsukasa, Yanagisawa, Fukaya, "Roundoff error analysis of the CholeskyQR2
           algorithm", ETNA 2015 (row blocks); Ballard, Demmel, Grigori, Jacquelin, Knight, Nguyen, "Reconstructing
           Householder vectors from tall-skinny QR", JPDC 2015, algorithm 5 (signs)
Notation   X_i  row block, m_i x n  |  R_i  its factor, min(m_i, n) x n  |  S_i  with Q_i S_i the rows of Q
Departs    (1) CholeskyQR2, at the speed of BLAS 3, factors a row block only where the orthogonality it measures says
           that it may (condition below about 1e7); otherwise LAPACK's Householder QR does. (2) The local Q_i is not kept
           but made again when S_i is known: one solve more, and no intermediate of the size of X
Checked    against numpy.linalg.qr in tests/array/test_linalg.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

Run = Callable[..., Any]

TILE_ELEMENTS = 96 * 1024  # rows are taken in tiles of about this many elements, which stay in the L2 cache
SIGN_PANEL = 64
ORTHOGONAL = 0.25  # ||Q1^H Q1 - I||_F up to which a second pass makes Q orthogonal to machine precision


class Leaf(NamedTuple):
    """R of one row block. Where CholeskyQR2 made it, R = second @ first and Q = X first^-1 second^-1."""

    r: np.ndarray
    first: np.ndarray | None = None
    second: np.ndarray | None = None


def _tiles(x: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Row tiles of `x`, each copied to one scratch array that the caller may overwrite."""
    m, n = x.shape
    step = max(n, TILE_ELEMENTS // max(n, 1), 1)
    scratch = np.empty((min(step, m), n), x.dtype)
    for i in range(0, m, step):
        tile = scratch[:min(step, m - i)]
        np.copyto(tile, x[i:i + step])
        yield slice(i, i + len(tile)), tile


def _divide(tile: np.ndarray, r: np.ndarray) -> None:
    """tile r^-1, in place: solves r^T tile^T = tile^T, whose right-hand side is a Fortran array as BLAS wants it."""
    scipy.linalg.get_blas_funcs("trsm", (tile,))(1.0, r, tile.T, side=0, lower=0, trans_a=1, overwrite_b=1)


def _cholesky(gram: np.ndarray) -> np.ndarray:
    """The upper factor, as a Fortran array."""
    return np.asfortranarray(np.linalg.cholesky(gram).conj().T)


def _gram(x: np.ndarray) -> np.ndarray:
    return (x.T if x.dtype.kind != "c" else x.conj().T) @ x


def factor(x: np.ndarray) -> Leaf:
    """QR of one row block; only R and what it takes to make Q again are kept."""
    m, n = x.shape
    with np.errstate(all="ignore"):
        if m >= n > 0:
            try:
                first = _cholesky(_gram(x))
                gram = np.zeros((n, n), x.dtype)
                for _, tile in _tiles(x):
                    _divide(tile, first)
                    gram += _gram(tile)
                if np.linalg.norm(gram - np.eye(n)) <= ORTHOGONAL:
                    second = _cholesky(gram)
                    return Leaf(np.triu(second @ first), first, second)
            except np.linalg.LinAlgError:
                pass  # not positive definite: too ill-conditioned for this way
    r: Any = np.linalg.qr(x, "r")
    return Leaf(r)


def _leaf() -> Run:
    return lambda args, blocks, out=None: factor(blocks[0])


def _r() -> Run:
    """R of one row block, where no Q is wanted."""
    return lambda args, blocks, out=None: factor(blocks[0]).r


def _q() -> Run:
    """Rows of Q: Q_i S_i. Operands: X_i, its Leaf, the S of the leaf's group and the group's own Q; `args` are the
    leaf's rows in the group."""
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        x, leaf, (_, group_q), s = blocks
        s = group_q[slice(*args)] @ s
        if out is None:
            out = np.empty((x.shape[0], s.shape[1]), x.dtype)
        if leaf.first is None:
            np.matmul(np.linalg.qr(x)[0], s, out=out)
            return out
        s = scipy.linalg.solve_triangular(leaf.second, s, check_finite=False)
        for rows, tile in _tiles(x):
            _divide(tile, leaf.first)
            np.matmul(tile, s, out=out[rows])
        return out
    return run


def _group() -> Run:
    """QR of several R factors on top of one another: (R, Q)."""
    def run(args: Any, blocks: list[Any], out: Any = None) -> tuple[np.ndarray, np.ndarray]:
        q, r = np.linalg.qr(np.concatenate([b[0] if isinstance(b, tuple) else b for b in blocks]))
        return r, q
    return run


def _down() -> Run:
    """S of a group, from the Q and the S of the group above it; `args` are its rows there."""
    return lambda args, blocks, out=None: blocks[0][1][slice(*args)] @ blocks[1]


def _root_qr() -> Run:
    """(S, R) at the root: the signs are those that Householder QR of all rows would have given, so that the result does
    not depend on the grid. Operands: the root group, the first n rows of X."""
    def run(args: Any, blocks: list[Any], out: Any = None) -> tuple[np.ndarray, np.ndarray]:
        (r, _), top = blocks
        sign = householder_signs(top, r)
        return np.diag(sign), np.triu(sign[:, None] * r)
    return run


def _signed_r() -> Run:
    """R with the signs of Householder QR. Operands: R, the first n rows of X."""
    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        r, top = blocks
        signed = np.triu(householder_signs(top, r)[:, None] * r)
        if out is None:
            return signed
        out[...] = signed
        return out
    return run


def householder_signs(top: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Signs d such that diag(d) R is the R of Householder QR. Q = top R^-1 minus diag(d) must have an LU factorization
    whose pivots do not cancel: each d_j is the sign opposite to the pivot it is taken from. 2 n^3 / 3 flop."""
    n = len(r)
    sign = np.ones(n, r.real.dtype)
    with np.errstate(all="ignore"):
        try:
            q = scipy.linalg.solve_triangular(r, top.T, trans="T", check_finite=False).T.copy()
        except np.linalg.LinAlgError:  # R is singular: no sign is better than another
            return sign
        for j0 in range(0, n, SIGN_PANEL):
            j1 = min(j0 + SIGN_PANEL, n)
            for j in range(j0, j1):
                sign[j] = -1 if q[j, j].real >= 0 else 1
                q[j + 1:, j] /= q[j, j] - sign[j]
                q[j + 1:, j + 1:j1] -= np.multiply.outer(q[j + 1:, j], q[j, j + 1:j1])
            q[j0:j1, j1:] = scipy.linalg.solve_triangular(q[j0:j1, j0:j1], q[j0:j1, j1:], lower=True, unit_diagonal=True,
                                                          check_finite=False)
            q[j1:, j1:] -= q[j1:, j0:j1] @ q[j0:j1, j1:]
    return sign


def _root_svd(coerce_signs: bool) -> Run:
    """(S, s, Vh) at the root: U = Q S with the left vectors of R."""
    from nums_core.runtime.devices.linalg import flip_signs

    def run(args: Any, blocks: list[Any], out: Any = None) -> tuple[np.ndarray, ...]:
        u, s, vt = np.linalg.svd(blocks[0][0], full_matrices=False)
        return flip_signs(u, s, vt) if coerce_signs else (u, s, vt)
    return run


def _root_svdvals() -> Run:
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        s = np.linalg.svd(blocks[0], compute_uv=False)
        if out is None:
            return s
        out[...] = s
        return out
    return run


# -- least squares ----------------------------------------------------------------------------------------------------

def _lstsq_leaf() -> Run:
    """(R, the rows of Q^H b that R explains, squares of the rest summed by column) of one row block."""
    def run(args: Any, blocks: list[np.ndarray], out: Any = None) -> tuple[np.ndarray, ...]:
        return _eliminate(blocks[0], blocks[1], np.zeros(blocks[1].shape[1], blocks[1].real.dtype))
    return run


def _lstsq_group() -> Run:
    def run(args: Any, blocks: list[Any], out: Any = None) -> tuple[np.ndarray, ...]:
        r, c, rest = zip(*blocks, strict=True)
        return _eliminate(np.concatenate(r), np.concatenate(c), np.sum(rest, axis=0))
    return run


def _eliminate(a: np.ndarray, b: np.ndarray, rest: np.ndarray) -> tuple[np.ndarray, ...]:
    k = min(a.shape)
    if a.size == 0 or b.size == 0:
        return np.zeros((k, a.shape[1]), a.dtype), np.zeros((k, b.shape[1]), a.dtype), rest + (np.abs(b) ** 2).sum(0)
    geqrt, gemqrt = scipy.linalg.get_lapack_funcs(("geqrt", "gemqrt"), (a,))
    packed, t, _ = geqrt(min(32, k), a)
    c, _ = gemqrt(packed[:, :k], t, b, trans="C" if a.dtype.kind == "c" else "T")
    return np.triu(packed[:k]), c[:k], rest + (np.abs(c[k:]) ** 2).sum(axis=0)


def _lstsq_root(rcond: float) -> Run:
    """(x, residuals, rank, singular values): the least-norm solution through the SVD of R."""
    def run(args: Any, blocks: list[Any], out: Any = None) -> tuple[Any, ...]:
        r, c, rest = blocks[0]
        u, s, vt = np.linalg.svd(r, full_matrices=False)
        large = s > rcond * s[:1]
        inverse = np.zeros_like(s)
        np.divide(1, s, out=inverse, where=large)
        x = vt.conj().T @ (inverse[:, None] * (u.conj().T @ c))
        return x, rest + (np.abs(c - r @ x) ** 2).sum(axis=0), np.asarray(large.sum()), s
    return run


TSQR: dict[str, Callable[..., Run]] = {
    "tsqr_leaf": _leaf,
    "tsqr_r": _r,
    "tsqr_signed_r": _signed_r,
    "tsqr_group": _group,
    "tsqr_down": _down,
    "tsqr_root_qr": _root_qr,
    "tsqr_root_svd": _root_svd,
    "tsqr_root_svdvals": _root_svdvals,
    "tsqr_q": _q,
    "lstsq_leaf": _lstsq_leaf,
    "lstsq_group": _lstsq_group,
    "lstsq_root": _lstsq_root,
}
