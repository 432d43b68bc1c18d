"""Nearest centers, and what k-means sums up of them: kernels on tiles of rows.

Rows and centers are both taken less a `shift` near them: |x - c|^2 = |x|^2 - 2 x c + |c|^2 loses digits far from 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nums_core.array.estimators.moments import nonnegative
from nums_core.array.estimators.passes import check_finite, tiles, total


def assigned(x: Any, w: Any, shift: np.ndarray, centers: np.ndarray) -> list[np.ndarray]:
    """Each center's sum of rows (k, d) and weight (k,), and the inertia: one pass, k d numbers a block moved."""
    k, d = centers.shape
    return total(assign, [x, w], [shift, centers], [(k, d), (k,), ()], flop_per_row=2.0 * k * d)


def spread(x: Any, w: Any) -> tuple[np.ndarray, float]:
    """Mean of the rows (d,) and mean variance of the features: one pass."""
    d = x.shape[1]
    first = np.nan_to_num(x[:1].compute()[0].astype(float), posinf=0.0, neginf=0.0)
    weight, sums, squares = total(squares_about, [x, w], [first], [(), (d,), (d,)])
    if not weight > 0:
        raise ValueError("sample_weight is zero for every row; at least one weight must not be zero")
    off = sums / weight
    return first + off, float(np.maximum(squares / weight - off**2, 0.0).mean())


# -- kernels ----------------------------------------------------------------------------------------------------------

def nearest(x: np.ndarray, shift: np.ndarray,
            centers: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
    """Tiles of rows less `shift`, with the number of the nearest center and the squared distance to it."""
    half = np.einsum("ij,ij->i", centers, centers) / 2
    for rows in tiles(x, sum(centers.shape)):
        tile = x[rows] - shift
        score = tile @ centers.T
        np.subtract(half, score, out=score)  # |x - c|^2 = |x|^2 + 2 score
        label = score.argmin(axis=1)
        least = score[np.arange(len(tile)), label]
        yield rows, tile, label, np.maximum(np.einsum("ij,ij->i", tile, tile) + 2 * least, 0.0)


def assign(x: np.ndarray, w: Any, shift: np.ndarray, centers: np.ndarray) -> tuple[Any, ...]:
    """Sums of rows and weights by nearest center, and the weighted sum of squared distances."""
    sums, counts, inertia = np.zeros(centers.shape), np.zeros(len(centers)), 0.0
    for rows, tile, label, distance in nearest(x, shift, centers):
        s = None if w is None else w[rows].astype(float)
        sums += _sums_by_label(tile if s is None else tile * s[:, None], label, len(centers))
        counts += np.bincount(label, weights=s, minlength=len(centers))
        inertia += distance.sum() if s is None else s @ distance
    return sums, counts, inertia


def _sums_by_label(tile: np.ndarray, label: np.ndarray, k: int) -> np.ndarray:
    """A sparse product: each row is added once, at a third of what a dense one of 0 and 1 costs at 16 clusters."""
    from scipy.sparse import csc_array

    n = len(tile)
    return csc_array((np.ones(n), label, np.arange(n + 1)), shape=(k, n)) @ tile


def label(x: np.ndarray, shift: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """The nearest center of each row, int32."""
    out = np.empty(len(x), np.int32)
    for rows, _, found, distance in nearest(x, shift, centers):
        out[rows] = found
        if not np.isfinite(distance).all():
            check_finite([x[rows]])
    return out


def distances(x: np.ndarray, shift: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """From each row to each center."""
    out = np.empty((len(x), len(centers)), x.dtype)
    squares = np.einsum("ij,ij->i", centers, centers)
    for rows in tiles(x, sum(centers.shape)):
        tile = x[rows] - shift
        far = np.einsum("ij,ij->i", tile, tile)[:, None] - 2 * (tile @ centers.T) + squares
        out[rows] = np.sqrt(np.maximum(far, 0.0))
    return out


def closer(x: np.ndarray, before: Any, shift: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Squared distance of each row to the nearest center, those counted whose distances are `before`."""
    now = np.concatenate([distance for *_, distance in nearest(x, shift, centers)])
    return now if before is None else np.minimum(now, before)


def squares_about(x: np.ndarray, w: Any, shift: np.ndarray) -> tuple[Any, ...]:
    """Sums of weights, and of rows less `shift` and their squares."""
    s = np.ones(len(x)) if w is None else nonnegative(w).astype(float)
    sums, squares = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for rows in tiles(x, x.shape[1]):
        tile = x[rows] - shift
        sums += s[rows] @ tile
        squares += s[rows] @ (tile * tile)
    return s.sum(), sums, squares


# -- rows of least key ------------------------------------------------------------------------------------------------

def furthest(x: np.ndarray, w: Any, shift: np.ndarray, centers: np.ndarray, *, count: int, block: int) -> np.ndarray:
    """The rows of the block with the largest weighted squared distances."""
    far = closer(x, None, shift, centers)
    return least_rows(x, -(far if w is None else far * w), shift, count)


def drawn(x: np.ndarray, w: Any, chance: Any, shift: np.ndarray, *, count: int, seed: int, turn: int,
          block: int) -> np.ndarray:
    """Rows of the block drawn without replacement, the chance of a row being in proportion to `chance` times its weight.

    Each row gets an exponential number over its chance; the rows of least number, of all blocks, are the draw (Efraimidis and
    Spirakis, Inf. Proc. Lett. 97, 2006)."""
    key = np.random.default_rng([seed, turn, block]).standard_exponential(len(x))
    for part in (w, chance):
        if part is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                key = np.where(part > 0, key / part, np.inf)
    return least_rows(x, key, shift, count)


def least_rows(x: np.ndarray, key: np.ndarray, shift: np.ndarray, count: int) -> np.ndarray:
    """[key, row less `shift`] of the `count` rows of least key, in order; infinity where there are fewer rows."""
    out = np.full((count, x.shape[1] + 1), np.inf)
    which = np.argpartition(key, count - 1)[:count] if count < len(key) else np.arange(len(key))
    which = which[np.argsort(key[which], kind="stable")]
    out[:len(which), 0], out[:len(which), 1:] = key[which], x[which] - shift
    return out
