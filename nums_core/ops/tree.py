"""The one order in which n partial results are combined, on any machine.

Floating-point addition is not associative, so the *shape* of a reduction's tree decides the last bits. `halving(n)`
fixes it from n alone: a range of m leaves is split into its first m // 2 and the rest, down to single leaves. Two facts
make it useful (tests/ops/test_tree.py):

- every aligned sub-range is itself the halving tree of its own length, so a planner may cut the tree into tasks
  anywhere without changing a bit;
- at depth d the ranges are the 2^d runs that the packed layout deals to 2^d workers, so on a power-of-two number of
  workers exactly k - 1 partials cross between workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np

T = TypeVar("T")


@lru_cache(maxsize=4096)
def bounds(n: int, depth: int) -> np.ndarray:
    """Borders of the 2^depth ranges at `depth`: int64, shape (2^depth + 1,), from 0 to n."""
    edges = np.array([0, n], np.int64)
    for _ in range(depth):
        finer = np.empty(2 * len(edges) - 1, np.int64)
        finer[0::2] = edges
        finer[1::2] = edges[:-1] + (edges[1:] - edges[:-1]) // 2
        edges = finer
    edges.setflags(write=False)
    return edges


def depth(n: int) -> int:
    """Depth at which every range holds one or two leaves: floor(log2 n)."""
    return max(n, 1).bit_length() - 1


def evaluate(combine: Callable[[T, T], T], leaves: Sequence[T]) -> T:
    """Combine `leaves` along the halving tree; n - 1 calls of `combine`, log2(n) of recursion."""
    n = len(leaves)
    if n == 1:
        return leaves[0]
    if n == 2:
        return combine(leaves[0], leaves[1])
    half = n // 2
    return combine(evaluate(combine, leaves[:half]), evaluate(combine, leaves[half:]))
