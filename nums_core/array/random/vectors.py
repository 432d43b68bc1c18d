"""Distributions whose draws are vectors: the last axis of the result is one draw, and is not cut by default."""

from __future__ import annotations

from typing import Any

import numpy as np

from nums_core.array.array import Array
from nums_core.array.random.draws import Frozen, Stream, check, drawn


class Vectors:
    """`multinomial`, `dirichlet`, `multivariate_normal`, `multivariate_hypergeometric`. Parameters are read at once."""

    _stream: Stream

    def multinomial(self, n: Any, pvals: Any, size: Any = None, chunks: Any = "auto") -> Array:
        """How often each of k outcomes came in `n` trials: int64, shape (*size, k)."""
        pvals = np.asarray(pvals, float)
        if np.ndim(n) or pvals.ndim != 1:
            raise ValueError(f"multinomial() takes one n and pvals of one axis, not of shapes {np.shape(n)} and "
                             f"{pvals.shape}; draw from each row with a call of its own")
        n = int(n)
        check("multinomial", (n, pvals))
        return drawn(self._stream, "multinomial", (n, Frozen.of(pvals)), size, chunks, width=pvals.shape)

    def dirichlet(self, alpha: Any, size: Any = None, chunks: Any = "auto") -> Array:
        """Points of the simplex: float64, shape (*size, k)."""
        alpha = np.asarray(alpha, float)
        check("dirichlet", (alpha,))
        return drawn(self._stream, "dirichlet", (Frozen.of(alpha),), size, chunks, width=alpha.shape)

    def multivariate_hypergeometric(self, colors: Any, nsample: int, size: Any = None, method: str = "marginals",
                                    chunks: Any = "auto") -> Array:
        """How many of each color are among `nsample` balls drawn without putting back: int64, shape (*size, k)."""
        colors = np.asarray(colors, np.int64)
        check("multivariate_hypergeometric", (colors, nsample), (("method", method),))
        return drawn(self._stream, "multivariate_hypergeometric", (Frozen.of(colors), int(nsample), method), size, chunks,
                     width=colors.shape)

    def multivariate_normal(self, mean: Any, cov: Any, size: Any = None, check_valid: str = "warn", tol: float = 1e-8,
                            *, method: str = "svd", chunks: Any = "auto") -> Array:
        """mean + A z with A Aᵀ = cov: float64, shape (*size, k). `cov` is factored at once, k³ flop."""
        mean, cov = np.asarray(mean, float), np.asarray(cov, float)
        # NumPy checks both, and warns of a covariance that is none; drawing from it costs one factorization.
        check("multivariate_normal", (mean, cov), (("check_valid", check_valid), ("tol", tol), ("method", method)))
        return drawn(self._stream, "multivariate_normal", (Frozen.of(mean), Frozen.of(_factor(cov, method))), size, chunks,
                     width=mean.shape)


def _factor(cov: np.ndarray, method: str) -> np.ndarray:
    if method == "cholesky":
        return np.linalg.cholesky(cov)
    if method == "eigh":
        values, vectors = np.linalg.eigh(cov)
        return vectors * np.sqrt(np.maximum(values, 0.0))
    u, values, _ = np.linalg.svd(cov)
    return u * np.sqrt(values)


__all__ = ["Vectors"]
