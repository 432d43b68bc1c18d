"""Centers to begin k-means with: rows drawn far from one another.

Source     Bahmani, Moseley, Vattani, Kumar, Vassilvitskii, "Scalable k-means++", VLDB 2012: algorithm 2, k-means||;
           Arthur, Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007: section 2.2
Notation   d^2(x)  squared distance of a row to the nearest center drawn so far  |  l  rows drawn in a round
Departs    (1) exactly l rows are drawn a round, without replacement, in proportion to weight times d^2; the paper draws every
           row by itself, l on average. (2) k-means++ is the same with l = 1 and k rounds, without its greedy variant
Checked    in tests/array/estimators: the draw's frequencies; inertia beside scikit-learn's
"""

from __future__ import annotations

from typing import Any

import numpy as np

import nums_core.array as nc
from nums_core.array.estimators.distances import assigned, closer, drawn
from nums_core.array.estimators.passes import each, few

NAMES = ("k-means||", "k-means++", "random")
ROUNDS = 5  # the paper finds no use in more
OVERSAMPLING = 2  # l = 2 k


def centers(x: Any, w: Any, shift: np.ndarray, k: int, name: str, seed: int) -> np.ndarray:
    """`k` rows less `shift`, (k, d), chosen as `name` says."""
    if name == "random":
        return _filled(_draw(x, w, None, shift, k, seed, 0)[0], k)
    if name == "k-means++" or k == 1:
        return _filled(_spread_out(x, w, shift, seed, rounds=k - 1, each_round=1), k)
    found = _spread_out(x, w, shift, seed, rounds=ROUNDS, each_round=OVERSAMPLING * k)
    if len(found) <= k:
        return _filled(found, k)
    _, weight, _ = assigned(x, w, shift, found)
    return _clustered(found, weight, k, np.random.default_rng([seed, ROUNDS + 1]))


def _spread_out(x: Any, w: Any, shift: np.ndarray, seed: int, *, rounds: int, each_round: int) -> np.ndarray:
    """A row at random and, in each round, more in proportion to d^2."""
    found, _ = _draw(x, w, None, shift, 1, seed, 0)
    new, chance = found, None
    for turn in range(1, rounds + 1):
        chance = each(closer, [x, chance], [shift, new], width=None, dtype=float)
        new, chance = _draw(x, w, chance, shift, each_round, seed, turn)
        found = np.concatenate([found, new])
        if not len(new):  # every row is a center
            break
    return found


def _draw(x: Any, w: Any, chance: Any, shift: np.ndarray, count: int, seed: int, turn: int) -> tuple[np.ndarray, Any]:
    """Rows drawn from all blocks, (at most `count`, d), and `chance`, kept: one run."""
    made = few(drawn, [x, w, chance], [shift], count=count, width=x.shape[1] + 1, seed=seed, turn=turn)
    made, *kept = nc.persist(made, *([] if chance is None else [chance]))
    rows = made.compute()
    rows = rows[np.argsort(rows[:, 0], kind="stable")[:count]]
    return rows[np.isfinite(rows[:, 0]), 1:], kept[0] if kept else None


def _filled(rows: np.ndarray, k: int) -> np.ndarray:
    """`k` centers where fewer rows differ: some twice."""
    return rows if len(rows) == k else rows[np.arange(k) % len(rows)]


def _clustered(rows: np.ndarray, weight: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++ on weighted rows in memory; of several draws the one that leaves least is taken, as is usual."""
    tries = 2 + int(np.log(k))
    square = np.einsum("ij,ij->i", rows, rows)
    first = rng.choice(len(rows), p=weight / weight.sum())
    chosen = [first]
    far = _squares(rows, square, rows[[first]])[0]
    while len(chosen) < k:
        chance = weight * far
        if not chance.sum() > 0:
            return _filled(rows[chosen], k)
        drawn_now = rng.choice(len(rows), tries, p=chance / chance.sum())
        closer_now = np.minimum(far, _squares(rows, square, rows[drawn_now]))
        best = int((closer_now @ weight).argmin())
        chosen.append(int(drawn_now[best]))
        far = closer_now[best]
    return rows[chosen]


def _squares(rows: np.ndarray, square: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Squared distances, shape (centers, rows)."""
    of_centers = np.einsum("ij,ij->i", centers, centers)
    return np.maximum(square - 2 * (centers @ rows.T) + of_centers[:, None], 0.0)
