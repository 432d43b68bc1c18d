"""k-means by Lloyd's iterations, each of one pass: distances, labels, sums, counts and inertia of a tile of rows while it
is in the cache."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np

from nums_core.array.estimators import distances, inputs, parameters, seeding
from nums_core.array.estimators.base import ConvergenceWarning, Estimator, warn
from nums_core.array.estimators.distances import assigned
from nums_core.array.estimators.passes import each, few
from nums_core.errors import ShapeError


class Clustering(NamedTuple):
    """`centers`, (k, d), less the mean of the data; `inertia` there; iterations."""

    centers: np.ndarray
    inertia: float
    iterations: int


class KMeans(Estimator):
    """Clusters around k centers.

    minimise  sum_i s_i min_c |x_i - m_c|^2   over centers m_1 .. m_k

    Parameters
    ----------
    n_clusters : int
    init : "k-means||", "k-means++", "random", or array of shape (k, d)
        How centers are chosen to begin with: oversampled in five rounds and clustered; one after another, in k rounds; rows
        at random; as given.
    n_init : int or "auto"
        Beginnings tried; the best end is kept. "auto": 10 for "random", else 1.
    max_iter : int
    tol : float
        Stop when the centers move, squares summed, by at most `tol` times the mean variance of the features.
    random_state : None, int or numpy random generator
        Draws depend on it and on the grid of rows, not on threads or workers.

    Attributes
    ----------
    cluster_centers_ : ndarray, shape (k, d), dtype of `X`
    labels_ : int32, shape (n,)
        Lazy where `X` is.
    inertia_ : float
    n_iter_ : int

    Notes
    -----
    A pass is 2 n k d flop and moves k d numbers a block. "k-means||" takes six passes with
    2 k new centers each and one with all of them, "k-means++" k passes.

    References
    ----------
    .. [1] Bahmani, Moseley, Vattani, Kumar, Vassilvitskii, "Scalable k-means++", VLDB 2012, algorithm 2.
    .. [2] Arthur, Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.
    """

    _kind = "clusterer"
    _rules: ClassVar[dict[str, parameters.Rule]] = {
        "n_clusters": parameters.whole(1), "max_iter": parameters.whole(1), "tol": parameters.real(0),
        "init": parameters.either(parameters.one_of(*seeding.NAMES),
                                  parameters.Rule("an array of centers", lambda v: np.ndim(v) == 2)),
        "n_init": parameters.either(parameters.one_of("auto"), parameters.whole(1)), "random_state": parameters.SEED}

    def __init__(self, n_clusters: int = 8, init: Any = "k-means||", n_init: Any = "auto", max_iter: int = 300,
                 tol: float = 1e-4, random_state: Any = None) -> None:
        self.n_clusters, self.init, self.n_init = n_clusters, init, n_init
        self.max_iter, self.tol, self.random_state = max_iter, tol, random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> KMeans:  # noqa: N803
        """Fit to `X`, (n, d); `y` is not used; `sample_weight`, (n,), are the s_i.

        Raises
        ------
        ValueError
            Fewer rows than clusters; centers of another shape than (k, d); NaN or infinity.
        """
        self._check_params()
        x = inputs.fit_matrix(self, X)
        if x.shape[0] < self.n_clusters:
            raise ShapeError(f"n_samples={x.shape[0]} should be >= n_clusters={self.n_clusters}; ask for fewer clusters")
        x, w = inputs.resident(x, inputs.weights(sample_weight, x))
        mean, variance = distances.spread(x, w)
        seeds = np.random.SeedSequence(parameters.seed_of(self.random_state)).generate_state(self._tries())
        ends = [self._lloyd(x, w, mean, self._begin(x, w, mean, int(s)), self.tol * variance) for s in seeds]
        best = min(ends, key=lambda end: end.inertia)
        self.cluster_centers_ = (best.centers + mean).astype(x.dtype)
        self.inertia_, self.n_iter_ = best.inertia, best.iterations
        self.labels_ = inputs.answer(X, self._labels(x))
        self._warn_of_twins()
        return self

    def _tries(self) -> int:
        if self.n_init != "auto":
            return int(self.n_init)
        return 10 if isinstance(self.init, str) and self.init == "random" else 1

    def _begin(self, x: Any, w: Any, mean: np.ndarray, seed: int) -> np.ndarray:
        """Centers to begin with, less the mean."""
        if isinstance(self.init, str):
            return seeding.centers(x, w, mean, self.n_clusters, self.init, seed)
        given = np.asarray(self.init, float)
        if given.shape != (self.n_clusters, x.shape[1]):
            raise ShapeError(f"init has shape {given.shape}; it needs one row a cluster and one column a feature, "
                             f"{(self.n_clusters, x.shape[1])}")
        return given - mean

    def _lloyd(self, x: Any, w: Any, mean: np.ndarray, centers: np.ndarray, rest: float) -> Clustering:
        """Iterate until the centers move by at most `rest`, squares summed."""
        moved, iteration = np.inf, 0
        inertia: Any = np.inf
        while moved > rest and iteration < self.max_iter:
            iteration += 1
            sums, counts, inertia = assigned(x, w, mean, centers)
            full = counts > 0
            after = np.where(full[:, None], sums / np.where(full, counts, 1)[:, None], centers)
            if not full.all():
                after[~full] = _furthest(x, w, mean, centers, after[~full])
            moved = float(((after - centers) ** 2).sum())
            centers = after
        if moved > 0:
            inertia = assigned(x, w, mean, centers)[2]
        return Clustering(centers, float(inertia), iteration)

    def _warn_of_twins(self) -> None:
        distinct = len(np.unique(self.cluster_centers_, axis=0))
        if distinct < self.n_clusters:
            warn(ConvergenceWarning, f"Number of distinct clusters ({distinct}) found smaller than n_clusters "
                                     f"({self.n_clusters}): X has too few distinct rows; ask for fewer clusters")

    def _about_their_mean(self) -> tuple[np.ndarray, np.ndarray]:
        centers = self.cluster_centers_.astype(float)
        shift = centers.mean(axis=0)
        return shift, centers - shift

    def _labels(self, x: Any) -> Any:
        shift, centers = self._about_their_mean()
        return each(distances.label, [x], [shift, centers], width=None, dtype=np.int32, flop_per_row=2.0 * centers.size)

    def predict(self, X: Any) -> Any:  # noqa: N803
        """The nearest center of each row: int32, shape (n,); lazy where `X` is."""
        return inputs.answer(X, self._labels(inputs.new_matrix(self, X)))

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:  # noqa: N803
        """`fit`, then `labels_`."""
        return self.fit(X, y, sample_weight).labels_

    def transform(self, X: Any) -> Any:  # noqa: N803
        """Distance of each row to each center: shape (n, k), dtype of `X`."""
        x = inputs.new_matrix(self, X)
        shift, centers = self._about_their_mean()
        return inputs.answer(X, each(distances.distances, [x], [shift, centers], width=len(centers), dtype=x.dtype,
                                     flop_per_row=2.0 * centers.size))

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:  # noqa: N803
        """`fit`, then `transform`."""
        return self.fit(X, y, sample_weight).transform(X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:  # noqa: N803
        """Minus the inertia of `X`."""
        x = inputs.new_matrix(self, X)
        return -float(assigned(x, inputs.weights(sample_weight, x), *self._about_their_mean())[2])


def _furthest(x: Any, w: Any, shift: np.ndarray, centers: np.ndarray, stay: np.ndarray) -> np.ndarray:
    """As many rows as `stay` has, those that lie furthest from their centers; `stay` itself where fewer lie off them."""
    count, d = stay.shape
    found = few(distances.furthest, [x, w], [shift, centers], count=count, width=d + 1).compute()
    found = found[np.argsort(found[:, 0], kind="stable")[:count]]
    return np.where(found[:, :1] < 0, found[:, 1:], stay)
