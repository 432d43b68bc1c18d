"""Where the ranges of a reduction's tree are combined, so that the fewest partial results cross.

Every range of the halving tree has a value, made on one worker; an edge of the tree whose two ends lie on different
workers moves one partial. Leaves are given, and the least number of moves over all placements follows in two passes:

    bottom up    S(range) = S(left) & S(right) where they meet, else S(left) | S(right), and one partial crosses
    top down     a range runs where its parent runs if that is in its S, else at its representative in S

Source     W. M. Fitch, "Toward Defining the Course of Evolution: Minimum Change for a Specific Tree Topology",
           Systematic Zoology 20 (1971): the two passes, on species instead of workers.
Departs    Representatives prefer the worker where the result is wanted, and otherwise left and right take turns from
           output to output, which spreads the load of reductions with many outputs.
Checked    against every placement, by brute force, in tests/scheduler/test_places.py
"""

from __future__ import annotations

import numpy as np

# Sets of workers are bits of an int64; the partials of one output must lie on workers whose numbers differ by less.
_BITS = 63


class Places:
    """Places of all ranges, depth by depth, for many outputs at once: arrays of shape (outputs, ranges at a depth).

    Parameters
    ----------
    workers : int array, shape (outputs, n)
        Where the partials of each output lie. Rows whose workers' numbers span 63 or more fall back, all of them, on
        representatives alone, which is the optimum where every range's halves lie on disjoint workers (packed runs on a
        power of two).
    target : int array, shape (outputs,)
        Where each result is wanted.
    """

    def __init__(self, workers: np.ndarray, target: np.ndarray) -> None:
        self.base = workers.min(axis=1)[:, None].astype(np.int64)
        self.exact = int((workers - self.base).max(initial=0)) < _BITS
        self.target = target.astype(np.int64)[:, None]
        self.sets: list[np.ndarray] = []  # deepest first, as the passes below add them
        self.stand_in: list[np.ndarray] = []

    def leaves(self, left: np.ndarray, right: np.ndarray, depth: int) -> None:
        """The deepest ranges, of two leaves each, or of one that is both `left` and `right`."""
        self._join(left, right, self._bit(left), self._bit(right), depth)

    def halves(self, depth: int) -> None:
        """The ranges at `depth`, from those one deeper."""
        at, sets = self.stand_in[-1], self.sets[-1]
        self._join(at[:, 0::2], at[:, 1::2], sets[:, 0::2], sets[:, 1::2], depth)

    def top_down(self) -> list[np.ndarray]:
        """Worker of each range, by depth from the root."""
        found = [self.stand_in[-1]]
        for sets, at in zip(self.sets[-2::-1], self.stand_in[-2::-1], strict=True):
            parent = np.repeat(found[-1], 2, axis=1)
            found.append(np.where(self._has(sets, parent), parent, at) if self.exact else at)
        return found

    def _bit(self, worker: np.ndarray) -> np.ndarray:
        return np.left_shift(np.int64(1), worker - self.base) if self.exact else np.zeros(worker.shape, np.int64)

    def _has(self, sets: np.ndarray, worker: np.ndarray) -> np.ndarray:
        shift = worker - self.base
        inside = (shift >= 0) & (shift < _BITS)
        return inside & (sets >> np.where(inside, shift, 0) & 1).astype(bool)

    def _join(self, left: np.ndarray, right: np.ndarray, of_left: np.ndarray, of_right: np.ndarray, depth: int) -> None:
        both = of_left & of_right
        sets = np.where(both != 0, both, of_left | of_right)
        self.sets.append(sets)
        turn = (np.arange(len(left)) >> depth & 1).astype(bool)[:, None]
        at = np.where(turn, right, left)
        if self.exact and (met := (both != 0) & (left != right)).any():
            lowest = self.base + np.frexp((sets & -sets).astype(float))[1] - 1
            among = np.where(self._has(sets, left), left, np.where(self._has(sets, right), right, lowest))
            at = np.where(met, among, at)
            wanted = self._has(sets, self.target)
        else:
            wanted = (left == self.target) | (right == self.target)
        self.stand_in.append(np.where(wanted, self.target, at).astype(np.int32))
