"""Scores of predictions, each in one run: share of right labels, R^2, D^2."""

from __future__ import annotations

from typing import Any

import numpy as np

import nums_core.array as nc


def accuracy(y: Any, predicted: Any, w: Any = None) -> float:
    """Weighted share of rows whose label is right."""
    return float(_mean((predicted == y).astype(float), w).compute())


def r2(y: Any, predicted: Any, w: Any = None) -> float:
    """1 - sum w (y - p)^2 / sum w (y - mean)^2; the mean over columns where there are several. A column without spread
    scores 1 where it is met exactly, else 0."""
    return _explained(_mean((y - predicted) ** 2, w), _mean((y - _mean(y, w)) ** 2, w))


def d2_poisson(y: Any, mu: Any, w: Any = None) -> float:
    """1 - deviance / deviance of the mean, with the Poisson deviance 2 (y log(y / mu) - y + mu)."""
    return _explained(_mean(_deviance(y, mu), w), _mean(_deviance(y, _mean(y, w)), w))


def _deviance(y: Any, mu: Any) -> Any:
    some = y > 0
    return 2 * (nc.where(some, y * nc.log(nc.where(some, y, 1) / mu), 0) - y + mu)


def _mean(values: Any, w: Any) -> Any:
    values = values.astype(float)
    return values.mean(axis=0) if w is None else (values.T * w).T.sum(axis=0) / w.sum()


def _explained(left: Any, whole: Any) -> float:
    rest, spread = map(np.atleast_1d, nc.compute(left, whole))
    flat = np.where(rest > 0, 0.0, 1.0)
    return float(np.mean(np.where(spread > 0, 1 - rest / np.where(spread > 0, spread, 1), flat)))
