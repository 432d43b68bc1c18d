"""Small symmetric systems in the caller's process, with a word on how far they can be trusted."""

from __future__ import annotations

import numpy as np


def cholesky_solve(a: np.ndarray, b: np.ndarray, rcond: float) -> np.ndarray | None:
    """x of `a` x = `b` for a symmetric positive definite `a`, (p, p), scaled to a unit diagonal first.

    Returns
    -------
    ndarray of the shape of `b`, or None where `a` is not definite or its reciprocal condition number is below `rcond`

    Notes
    -----
    p^3 / 3 flop. The scaling is within a factor p of the best there is (van der Sluis 1969).
    """
    from scipy.linalg import cho_factor, cho_solve, lapack

    if not (np.isfinite(a).all() and (np.diag(a) > 0).all()):
        return None
    scale = np.sqrt(np.diag(a))
    scaled = a / np.outer(scale, scale)
    try:
        factor = cho_factor(scaled, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    found, _ = lapack.dpocon(factor[0], float(np.abs(scaled).sum(axis=0).max()), uplo="L")
    if not found >= rcond:
        return None
    scale = scale.reshape(-1, *(1,) * (b.ndim - 1))
    return cho_solve(factor, b / scale, check_finite=False) / scale


def least_norm_solve(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The x of least norm of `a` x = `b` for a symmetric semidefinite `a`: eigenvalues at rounding level count as 0."""
    values, vectors = np.linalg.eigh(a)
    large = values > len(values) * np.finfo(float).eps * max(float(values[-1]), 0.0)
    kept = vectors[:, large]
    return kept @ ((kept.T @ b).T / values[large]).T


def nonnegative_solve(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """argmin over x >= 0 of x'`a`x / 2 - x'`b` for a semidefinite `a`: `scipy.optimize.nnls` on a root of `a`."""
    from scipy.optimize import nnls

    values, vectors = np.linalg.eigh(a)
    large = values > len(values) * np.finfo(float).eps * max(float(values[-1]), 0.0)
    root = np.sqrt(values[large])
    return nnls((vectors[:, large] * root).T, (vectors[:, large].T @ b) / root)[0]
