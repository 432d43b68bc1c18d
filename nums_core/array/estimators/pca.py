"""Principal component analysis, by the covariance, by a tall-skinny QR, or from a random sketch, whichever suits the shape."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np

import nums_core.array as nc
from nums_core.array.estimators import inputs, parameters
from nums_core.array.estimators.base import Estimator
from nums_core.array.estimators.linear import affine
from nums_core.array.estimators.moments import moments
from nums_core.array.estimators.passes import each, tiles, total
from nums_core.errors import ShapeError

SOLVERS = ("auto", "covariance_eigh", "full", "randomized")
SHARE = parameters.Rule("a float in (0, 1)", lambda v: isinstance(v, float) and 0 < v < 1)
COUNT = parameters.either(parameters.whole(1), SHARE, parameters.NONE)


class Spectrum(NamedTuple):
    """`vt`, (r, d), unit rows; `variance`, (r,), descending; `all_variance`, their sum over all d; `mean`, (d,)."""

    vt: np.ndarray
    variance: np.ndarray
    all_variance: float
    mean: np.ndarray


class PCA(Estimator):
    """Directions of largest variance.

    X - mean = U diag(s) V',   components_ = first rows of V',   explained_variance_ = s^2 / (n - 1)

    Parameters
    ----------
    n_components : int, float in (0, 1) or None
        How many, or the share of the variance to be explained at least; None for min(n, d).
    whiten : bool
        Scale what `transform` gives to unit variance.
    svd_solver : "auto", "covariance_eigh", "full" or "randomized"
        "auto": the covariance where n >= 10 d and d <= 1000; "randomized" where neither axis is within 500 and fewer than
        80 % of the components are asked for; else "full".
    iterated_power : int
        Rounds of "randomized" after the first; each squares how well it tells directions apart.
    n_oversamples : int
        Columns of its sketch beyond `n_components`.
    random_state : None, int or numpy random generator
        Of its sketch.

    Attributes
    ----------
    components_ : ndarray, shape (k, d), dtype of `X`; the entry of largest size in each row is positive
    explained_variance_, explained_variance_ratio_, singular_values_ : ndarray, shape (k,)
    mean_ : ndarray, shape (d,)
    noise_variance_ : float
        Mean variance of the directions left out.
    n_components_, n_samples_ : int

    Notes
    -----
    "covariance_eigh": one pass, n d^2 flop, d^2 numbers a block moved, then 9 d^3 flop. "full": three passes, 2 n d^2 flop.
    "randomized": 4 + `iterated_power` passes of 4 n d (k + n_oversamples) flop, d (k + n_oversamples) numbers a block moved.
    "full" finds singular values right to eps times the largest, the others their squares.

    References
    ----------
    .. [1] Halko, Martinsson, Tropp, "Finding structure with randomness", SIAM Review 2011, section 4.5 (subspace iteration).
    """

    _kind = "transformer"
    _rules: ClassVar[dict[str, parameters.Rule]] = {
        "n_components": COUNT, "whiten": parameters.FLAG, "svd_solver": parameters.one_of(*SOLVERS),
        "iterated_power": parameters.whole(0), "n_oversamples": parameters.whole(0), "random_state": parameters.SEED}

    def __init__(self, n_components: Any = None, whiten: bool = False, svd_solver: str = "auto", iterated_power: int = 4,
                 n_oversamples: int = 10, random_state: Any = None) -> None:
        self.n_components, self.whiten, self.svd_solver = n_components, whiten, svd_solver
        self.iterated_power, self.n_oversamples, self.random_state = iterated_power, n_oversamples, random_state

    def fit(self, X: Any, y: Any = None) -> PCA:  # noqa: N803
        """Fit to `X`, (n, d); `y` is not used.

        Raises
        ------
        ValueError
            Fewer than two rows; more components than min(n, d); NaN or infinity.
        """
        self._check_params()
        x = inputs.fit_matrix(self, X)
        n, d = x.shape
        if n < 2:
            raise ShapeError("n_samples=1: a variance needs at least 2 rows")
        if not isinstance(self.n_components, (float, type(None))) and self.n_components > min(n, d):
            raise ShapeError(f"n_components={self.n_components} must be at most min(n_samples, n_features)={min(n, d)}")
        found = self._decomposed(x)
        k = self._count(found, min(n, d))
        variance = found.variance[:k]
        dtype = x.dtype
        self.n_samples_, self.n_components_ = n, k
        self.mean_, self.components_ = found.mean.astype(dtype), found.vt[:k].astype(dtype)
        self.explained_variance_ = variance.astype(dtype)
        self.explained_variance_ratio_ = (variance / (found.all_variance or 1.0)).astype(dtype)
        self.singular_values_ = np.sqrt(variance * (n - 1)).astype(dtype)
        rest = min(n, d) - k
        self.noise_variance_ = max(found.all_variance - float(variance.sum()), 0.0) / rest if rest else 0.0
        return self

    def _solver(self, n: int, d: int) -> str:
        if self.svd_solver != "auto":
            return self.svd_solver
        if d <= 1000 and n >= 10 * d:
            return "covariance_eigh"
        asked = self.n_components
        few = isinstance(asked, (int, np.integer)) and asked < 0.8 * min(n, d)
        return "randomized" if few and max(n, d) > 500 else "full"

    def _decomposed(self, x: Any) -> Spectrum:
        n, d = x.shape
        solver = self._solver(n, d)
        if solver == "covariance_eigh":
            return _by_covariance(x)
        if solver == "full":
            return _by_qr(x)
        k = self.n_components
        if not isinstance(k, (int, np.integer)):
            raise ValueError(f"svd_solver='randomized' needs n_components as an int, got {k!r}; give how many components, "
                             "or take svd_solver='full'")
        return _by_sketch(x, int(k), self.iterated_power, self.n_oversamples, parameters.seed_of(self.random_state))

    def _count(self, found: Spectrum, low: int) -> int:
        if self.n_components is None:
            return min(low, len(found.variance))
        if isinstance(self.n_components, float):
            share = np.cumsum(found.variance) / (found.all_variance or 1.0)
            return min(int(np.searchsorted(share, self.n_components, side="right")) + 1, len(share))
        return int(self.n_components)

    def _scale(self) -> np.ndarray:
        """What whitening divides by."""
        variance = self.explained_variance_
        return np.sqrt(np.maximum(variance, np.finfo(variance.dtype).eps))

    def transform(self, X: Any) -> Any:  # noqa: N803
        """(X - mean) V, over the standard deviations with `whiten`: shape (n, k), dtype of `X`; lazy where `X` is."""
        x = inputs.new_matrix(self, X)
        axes = self.components_ / self._scale()[:, None] if self.whiten else self.components_
        return inputs.answer(X, affine(x, axes, -(axes @ self.mean_)))

    def fit_transform(self, X: Any, y: Any = None) -> Any:  # noqa: N803
        """`fit`, then `transform`."""
        return self.fit(X).transform(X)

    def inverse_transform(self, X: Any) -> Any:  # noqa: N803
        """Back from components: shape (n, d), what `transform` left of the data."""
        self._check_fitted()
        z = inputs.matrix(X)
        if z.shape[1] != self.n_components_:
            raise ShapeError(f"X has {z.shape[1]} columns, and there are {self.n_components_} components; give what "
                             "transform() returned")
        axes = self.components_ * self._scale()[:, None] if self.whiten else self.components_
        return inputs.answer(X, affine(z, axes.T, self.mean_))

    def get_covariance(self) -> np.ndarray:
        """V' diag(variance - noise) V + noise I, the covariance of the probabilistic model: shape (d, d)."""
        self._check_fitted()
        v, noise = self.components_.astype(float), self.noise_variance_
        return (v.T * np.maximum(self.explained_variance_ - noise, 0.0)) @ v + noise * np.eye(v.shape[1])

    def score_samples(self, X: Any) -> Any:  # noqa: N803
        """Log-likelihood of each row in the probabilistic model (Tipping and Bishop 1999): shape (n,)."""
        x = inputs.new_matrix(self, X)
        values, vectors = np.linalg.eigh(self.get_covariance())
        values = np.maximum(values, np.finfo(float).tiny)
        made = each(_log_likelihood, [x], [self.mean_, vectors / np.sqrt(values), np.log(2 * np.pi * values).sum()],
                    width=None, dtype=float, flop_per_row=2.0 * vectors.size)
        return inputs.answer(X, made)

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """Mean log-likelihood of the rows."""
        return float(np.mean(self.score_samples(X)))


def _log_likelihood(x: np.ndarray, mean: np.ndarray, root: np.ndarray, constant: np.ndarray) -> np.ndarray:
    z = (x - mean) @ root
    return -0.5 * (np.einsum("ij,ij->i", z, z) + constant)


# -- three ways -------------------------------------------------------------------------------------------------------

def _signed(vt: np.ndarray) -> np.ndarray:
    """Rows turned so that the entry of largest size is positive."""
    top = vt[np.arange(len(vt)), np.abs(vt).argmax(axis=1)]
    return vt * np.where(top < 0, -1.0, 1.0)[:, None]


def _by_covariance(x: Any) -> Spectrum:
    n, d = x.shape
    found = moments(x)
    values, vectors = np.linalg.eigh(found.scatter / (n - 1))
    values = np.maximum(values[::-1], 0.0)
    return Spectrum(_signed(vectors[:, ::-1].T)[:min(n, d)], values[:min(n, d)], float(values.sum()), found.mean)


def _by_qr(x: Any) -> Spectrum:
    n = x.shape[0]
    mean = _column_means(x)
    r = nc.linalg.qr(x.astype(float) - mean, mode="r").compute()
    _, s, vt = np.linalg.svd(r, full_matrices=False)
    variance = s**2 / (n - 1)
    return Spectrum(_signed(vt), variance, float(variance.sum()), mean)


def _by_sketch(x: Any, k: int, power: int, oversamples: int, seed: int) -> Spectrum:
    """Subspace iteration on the covariance from random columns: each round is one pass, of sums of d (k + p) numbers."""
    (n, d), mean = x.shape, _column_means(x)
    (x,) = inputs.resident(x)
    width = min(k + oversamples, n, d)
    q = np.random.default_rng(seed).normal(size=(d, width))
    for _ in range(power + 1):
        (turned,) = total(_covariance_times, [x], [mean, q], [(d, width)], flop_per_row=4.0 * q.size)
        q = np.linalg.qr(turned)[0]
    inner, squares = total(_projected, [x], [mean, q], [(width, width), ()], flop_per_row=2.0 * q.size)
    values, vectors = np.linalg.eigh(inner / (n - 1))
    return Spectrum(_signed((q @ vectors[:, ::-1]).T), np.maximum(values[::-1], 0.0), float(squares) / (n - 1), mean)


def _covariance_times(x: np.ndarray, mean: np.ndarray, q: np.ndarray) -> tuple[np.ndarray]:
    """Z' Z q for Z = x - mean."""
    out = np.zeros(q.shape)
    for rows in tiles(x, sum(q.shape)):
        z = x[rows] - mean
        out += z.T @ (z @ q)
    return (out,)


def _projected(x: np.ndarray, mean: np.ndarray, q: np.ndarray) -> tuple[Any, ...]:
    """(Z q)' Z q, and the sum of squares of Z."""
    inner, squares = np.zeros((q.shape[1], q.shape[1])), 0.0
    for rows in tiles(x, sum(q.shape)):
        z = x[rows] - mean
        p = z @ q
        inner += p.T @ p
        squares += np.einsum("ij,ij->", z, z)
    return inner, squares


def _column_means(x: Any) -> np.ndarray:
    """Means, twice over: the second pass takes back what the first one's rounding left."""
    zero = np.zeros(x.shape[1])
    for _ in range(2):
        (off,) = total(_sums, [x], [zero], [zero.shape])
        zero = zero + off / x.shape[0]
    return zero


def _sums(x: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray]:
    out = np.zeros(x.shape[1])
    for rows in tiles(x, x.shape[1]):
        out += (x[rows] - shift).sum(axis=0)
    return (out,)
