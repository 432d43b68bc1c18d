"""Weighted means and scatter of columns in one pass, by shifted sums.

    W = sum_i w_i,   m = sum_i w_i a_i / W,   S = sum_i w_i (a_i - m) (a_i - m)'

Source     Chan, Golub, LeVeque, "Algorithms for computing the sample variance", Am. Stat. 37(3), 1983: section 3, the
           shifted data algorithm
Notation   a_i  row i of [X, y]  |  w_i  its weight, 1 if none is given  |  c  the shift, a guess of m
Departs    c is the mean of the first rows; where m turns out so far from c that digits were lost, the pass is done again
           with c = m, which loses none
Checked    against numpy.cov with means of 1e8 standard deviations in tests/array/estimators
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import nums_core.array as nc
from nums_core.array.estimators.passes import tiles, total

FIRST_ROWS = 256
FAR = 1e4  # (m - c)^2 over the variance beyond which four digits of it are gone


class Moments(NamedTuple):
    """Of the columns of [X, y]: `weight` W; `mean` m, shape (p,); `scatter` S, shape (p, p); float64."""

    weight: float
    mean: np.ndarray
    scatter: np.ndarray


def moments(x: Any, y: Any = None, w: Any = None, *, centered: bool = True) -> Moments:
    """Moments of the columns of `x` and, if given, `y` beside them.

    Parameters
    ----------
    x : Array (n, d) in row blocks
    y : Array (n,) or (n, k), cut alike
    w : Array (n,), cut alike
    centered : bool
        False: the mean counts as 0, and S is the matrix of second moments about 0.

    Raises
    ------
    ValueError
        NaN or infinity; a negative weight, or none above 0.

    Notes
    -----
    One pass, n p^2 flop; p^2 numbers move a block. A second pass where the data are far from their first rows.
    """
    p = x.shape[1] + (0 if y is None else y.shape[1] if y.ndim == 2 else 1)
    shift = _first_mean(x, y) if centered else np.zeros(p)
    found = _about(x, y, w, shift, centered)
    if centered and np.any(found.weight * (found.mean - shift) ** 2 > FAR * np.diag(found.scatter)):
        found = _about(x, y, w, found.mean, centered)
    return found


def _about(x: Any, y: Any, w: Any, shift: np.ndarray, centered: bool) -> Moments:
    p = len(shift)
    (s,) = total(_products, [x, y, w], [shift], [(p + 1, p + 1)], flop_per_row=float((p + 1) ** 2))
    weight = float(s[-1, -1])
    if not weight > 0:
        raise ValueError("sample_weight is zero for every row; at least one weight must not be zero")
    if not centered:
        return Moments(weight, np.zeros(p), s[:-1, :-1])
    off = s[-1, :-1] / weight
    scatter = s[:-1, :-1] - weight * np.outer(off, off)
    return Moments(weight, shift + off, scatter)


def _first_mean(x: Any, y: Any) -> np.ndarray:
    """Mean of the first rows; 0 where it is not finite, so that the pass itself meets what is wrong."""
    k = min(FIRST_ROWS, x.chunks[0][0])
    heads = nc.compute(*(a[:k] for a in (x, y) if a is not None))
    first = [np.asarray(a, float).reshape(k, -1).mean(axis=0) for a in heads]
    return np.nan_to_num(np.concatenate(first), nan=0.0, posinf=0.0, neginf=0.0)


def _products(x: np.ndarray, y: Any, w: Any, shift: np.ndarray) -> tuple[np.ndarray]:
    """Z' diag(w) Z for Z = [X, y, 1] - [shift, 0]."""
    d, p = x.shape[1], len(shift)
    root = None if w is None else np.sqrt(nonnegative(w).astype(float))
    s = np.zeros((p + 1, p + 1))
    for rows in tiles(x, p + 1):
        z = np.empty((rows.stop - rows.start, p + 1))
        np.subtract(x[rows], shift[:d], out=z[:, :d])
        if y is not None:
            np.subtract(y[rows].reshape(len(z), -1), shift[d:], out=z[:, d:-1])
        z[:, -1] = 1.0
        if root is not None:
            z *= root[rows, None]
        s += z.T @ z
    return (s,)


def nonnegative(w: np.ndarray) -> np.ndarray:
    """Weights of a block, refused where one is negative."""
    if (w < 0).any():
        raise ValueError("sample_weight has negative entries; a row counts 0 times or more: leave rows out instead")
    return w
