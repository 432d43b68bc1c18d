"""Kernels of the sample sort: runs, samples, splitters, cuts, pieces, merges; how they fit together: expr/lowering/sort.py.

A *run* is a sorted block: its values, or for `argsort` the pair (values, positions along the whole axis). Splitters are
elements, told apart from their equals by (run, place in the run): so the order is total, equal values are divided like
any others, and the sort is stable. NaN is largest, as in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[..., Any]


def values_of(run: Any) -> np.ndarray:
    return run[0] if isinstance(run, tuple) else run


def _slice(run: Any, start: int, stop: int) -> Any:
    """A part of a run, copied, so that the run itself can go."""
    if isinstance(run, tuple):
        return tuple(part[start:stop].copy() for part in run)
    return run[start:stop].copy()


def _deliver(block: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    if out is None:
        return block
    out[...] = block
    return out


def _run(pairs: bool) -> Run:
    """Sort a block, all axes together."""
    def run(args: Any, blocks: list[np.ndarray], out: Any = None) -> Any:
        if not pairs:
            return np.sort(blocks[0], axis=None)
        values, order = _sorted_pairs(blocks[0].reshape(-1))
        return values, order + args[-1]
    return run


def _sorted_pairs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted values and where they were, stably. Floats are often all different: then the fast sort gives the same."""
    if values.dtype.kind == "f":
        order = np.argsort(values)
        found = values[order]
        if (found[1:] > found[:-1]).all():
            return found, order
    order = np.argsort(values, kind="stable")
    return values[order], order


def _sample(stride: int) -> Run:
    """Every `stride`-th value of a run from the first on; how many values it has; how many are not NaN."""
    def run(args: Any, blocks: list[Any], out: Any = None) -> Any:
        values = values_of(blocks[0])
        return values[::stride].copy(), len(values), count_valid(values)
    return run


def count_valid(values: np.ndarray) -> int:
    """How many of sorted values are before the NaNs."""
    if values.dtype.kind not in "fcmM" or not len(values) or not _is_nan(values[-1:])[0]:
        return len(values)
    if values.dtype.kind == "c":  # several kinds of NaN
        return len(values) - int(np.count_nonzero(_is_nan(values)))
    return int(np.searchsorted(values, values[-1], "left"))


def _is_nan(values: np.ndarray) -> np.ndarray:
    return np.isnat(values) if values.dtype.kind in "mM" else np.isnan(values)


class Samples:
    """The samples of all runs, in order.

    With stride s, the element that is sample number q in order has rank t (how many are before it) within
    q s - m (s - 1) <= t <= q s, where m is the number of runs: a run with a samples before it has between
    (a - 1) s + 1 and a s elements before it.
    """

    def __init__(self, samples: list[tuple[np.ndarray, int, int]], stride: int) -> None:
        parts = [s[0] for s in samples]
        self.stride, self.slack = stride, len(parts) * (stride - 1)
        values = np.concatenate(parts)
        order = np.argsort(values, kind="stable")  # ties: by run, then by place
        self.values = values[order]
        self.run = np.repeat(np.arange(len(parts)), [len(p) for p in parts])[order]
        self.place = np.concatenate([np.arange(len(p)) * stride for p in parts])[order]
        self.n, self.n_valid = sum(s[1] for s in samples), sum(s[2] for s in samples)

    def near(self, rank: np.ndarray) -> np.ndarray:
        """Numbers of samples whose ranks are about `rank`: off by slack / 2 + stride / 2 at most."""
        return np.rint((rank + self.slack / 2) / self.stride).astype(np.int64)

    def below(self, rank: np.ndarray) -> np.ndarray:
        """Numbers of samples whose ranks are at most `rank`."""
        return rank // self.stride

    def above(self, rank: np.ndarray) -> np.ndarray:
        """Numbers of samples whose ranks are more than `rank`, or past the last sample."""
        return (rank + self.slack) // self.stride + 1

    def splitters(self, number: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(value, run, place) of samples; run = -1 means past all elements."""
        inside = number < len(self.values)
        at = np.minimum(number, max(len(self.values) - 1, 0))
        if not len(self.values):
            return np.zeros(len(number), self.values.dtype), np.full(len(number), -1), np.zeros(len(number), np.int64)
        return self.values[at], np.where(inside, self.run[at], -1), self.place[at]


def cut_run(run: Any, number: int, splitters: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """How many elements of run `number` come before each splitter: int64."""
    values = values_of(run)
    at, owner, place = splitters
    left, right = np.searchsorted(values, at, "left"), np.searchsorted(values, at, "right")
    cut = np.where(owner > number, right, left)
    return np.where(owner < 0, len(values), np.where(owner == number, place, cut)).astype(np.int64)


def _splitters(stride: int, ranks: tuple[int, ...]) -> Run:
    """Elements whose ranks are about `ranks`."""
    def run(args: Any, blocks: list[Any], out: Any = None) -> Any:
        samples = Samples(blocks, stride)
        return samples.splitters(samples.near(np.array(ranks, np.int64)))
    return run


def _piece(n_out: int) -> Run:
    """What of a run lies between two splitters; for number `n_out`, where all of them cut it. The last two arguments are
    the numbers of the run and of the piece."""
    def run(args: Any, blocks: list[Any], out: Any = None) -> Any:
        values, (at, owner, place) = blocks[0], blocks[1]
        _, number, j = args
        n = len(values_of(values))
        if j == n_out:
            return np.concatenate([[0], cut_run(values, number, blocks[1]), [n]])
        near = slice(max(j - 1, 0), j + 1)
        cuts = cut_run(values, number, (at[near], owner[near], place[near])).tolist()
        start = cuts.pop(0) if j else 0
        return _slice(values, start, cuts[0] if cuts else n)
    return run


def _merge() -> Run:
    """One run from pieces of all."""
    def run(args: Any, blocks: list[Any], out: Any = None) -> Any:
        values = np.concatenate([values_of(b) for b in blocks])
        if not isinstance(blocks[0], tuple):
            values.sort()
            return values
        order = np.argsort(values, kind="stable")
        return values[order], np.concatenate([b[1] for b in blocks])[order]
    return run


def _ranks() -> Run:
    """The true ranks of the splitters, from the cuts of all runs."""
    return lambda args, blocks, out=None: np.sum(blocks, axis=0)


def _edges(wanted: tuple[int, ...]) -> Run:
    """What a merged run holds that belongs to the result blocks before and after it."""
    def run(args: Any, blocks: list[Any], out: Any = None) -> Any:
        merged, ranks = blocks
        j, n = args[-1], len(values_of(merged))
        head, tail = max(0, wanted[j] - ranks[j]), max(0, ranks[j + 1] - wanted[j + 1])
        return _slice(merged, 0, head), _slice(merged, n - tail, n)
    return run


def _fit(wanted: tuple[int, ...], part: int, axis: int, ndim: int) -> Run:
    """A result block of the exact size: a merged run without what is its neighbours', with what they hold of it."""
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        merged, before, after, ranks = blocks
        j = args[axis]
        start, stop = max(0, wanted[j] - ranks[j]), ranks[j + 1] - ranks[j] - max(0, ranks[j + 1] - wanted[j + 1])
        parts = [_part(merged, part)[start:stop]]
        if wanted[j] < ranks[j]:
            parts.insert(0, _part(before[1], part))
        if ranks[j + 1] < wanted[j + 1]:
            parts.append(_part(after[0], part))
        block = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return _deliver(block.reshape([-1 if i == axis else 1 for i in range(ndim)]), out)
    return run


def _part(run: Any, k: int) -> np.ndarray:
    return run[k] if isinstance(run, tuple) else run


# -- searching --------------------------------------------------------------------------------------------------------

def _search(side: Any) -> Run:
    """How many elements of one block of a sorted array come before each value."""
    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        return _deliver(np.asarray(np.searchsorted(blocks[0], blocks[1], side)), out)
    return run


# -- the k best with their positions ----------------------------------------------------------------------------------

def _best(k: int, axis: int, values: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The k largest (k > 0) or -k smallest, best first; of equals the first."""
    if k > 0:  # sorted backwards, so that of equals the first comes last, and then turned round
        order = np.flip(np.argsort(np.flip(values, axis), axis=axis, kind="stable"), axis)
        order = values.shape[axis] - 1 - order
    else:
        order = np.argsort(values, axis=axis, kind="stable")
    order = order[(*[slice(None)] * axis, slice(abs(k)))]
    return np.take_along_axis(values, order, axis), np.take_along_axis(index, order, axis)


def _argbest(k: int, axis: int) -> Run:
    """The best of a block, with their positions along the whole axis."""
    def run(args: Any, blocks: list[np.ndarray], out: Any = None) -> Any:
        values = blocks[0]
        shape = [1] * values.ndim
        shape[axis] = -1
        start, n = args[axis]
        index = np.broadcast_to(np.arange(start, start + n).reshape(shape), values.shape)
        return _best(k, axis, values, index)
    return run


def _argbest_tree(how: tuple[int, int], finish: bool | None) -> Run:
    """The best of several bests; at the end the positions alone."""
    k, axis = how

    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> Any:
        values, index = (np.concatenate([b[i] for b in blocks], axis=axis) for i in (0, 1))
        best = _best(k, axis, values, index)
        return best if finish is None else _deliver(best[1], out)
    return run


KERNELS: dict[str, Callable[..., Run]] = {
    "run": _run,
    "sample": _sample,
    "splitters": _splitters,
    "piece": _piece,
    "merge": _merge,
    "ranks": _ranks,
    "edges": _edges,
    "fit": _fit,
    "search": _search,
    "argbest": _argbest,
    "argbest_tree": _argbest_tree,
}
