"""tune_chunks: the grid with which a computation is expected to be done soonest, chosen by simulation.

The default grid ("auto") does not ask for the machine, so that a program gives the same bits everywhere. Where the seconds
matter more, a handful of grids is planned for the cluster in force and simulated: block sizes from 1 MiB up, cut squarely,
along the first axes, or along the last. NumS' rule (a softmax over the worker grid) gives 511 slivers of 4 rows to a short,
wide array; here slivers lose, or never win against squares that are as good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nums_core import session
from nums_core.array.array import Array, from_array
from nums_core.errors import ConfigError, MemoryBudgetError
from nums_core.expr.grid import Chunks, normalize, uniform
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.footprint import check_budget
from nums_core.runtime.plan import Plan
from nums_core.scheduler.simulate import simulate

SIZES = tuple(2**k * 2**20 for k in range(9))  # bytes of a block
ASPECTS = ("square", "first", "last")  # which axis is cut next: the longest edge, the first that can be, the last
LEAST_EDGE = 64  # no axis is cut finer: a row of memory is read by the line
MOST_BLOCKS = 4096  # of one array; more where the cluster has more than a quarter as many threads
ALIKE = 1.02  # seconds within so much of the least count as alike, and the coarser and squarer grid wins


def tune_chunks(function: Callable[..., Any], *arrays: Any, cluster: Cluster | None = None) -> tuple[Chunks, ...]:
    """Chunks for `arrays` with which `function(*arrays)` is expected to take the least time.

    Parameters
    ----------
    function : callable
        Builds one array or several from arrays; it is called once for each grid that is tried, and computes nothing.
    *arrays : Array, ndarray, or anything with `shape` and `dtype`
        Only shapes and dtypes are looked at.
    cluster : Cluster, optional
        Default: the one in force.

    Returns
    -------
    tuple of chunks, one for each array
        For `from_array(x, chunks=...)` or `x.rechunk(...)`. "auto" is among the grids tried.

    Raises
    ------
    ConfigError
        No array was given.
    MemoryBudgetError
        With none of the grids does each task fit a worker's memory.

    Notes
    -----
    Deterministic: the same on every machine that has the same cluster. Plans about 20 grids: from milliseconds to some
    seconds where thousands of workers are to be used. Results may differ in the last bits from those of other grids.
    """
    if not arrays:
        raise ConfigError("tune_chunks() got no array; pass what the function takes, as in tune_chunks(f, x, y)")
    current = session.current()
    cluster = cluster or current.executor.cluster
    plans: list[tuple[float, int, Plan, tuple[Chunks, ...]]] = []
    refused: MemoryBudgetError | None = None
    for rank, chunks in enumerate(_grids(arrays, cluster)):
        stand_ins = [_stand_in(x, c) for x, c in zip(arrays, chunks, strict=True)]
        plan = current.trial([a.expr for a in _roots(function(*stand_ins))], cluster)
        try:
            check_budget(plan)
        except MemoryBudgetError as error:
            refused = error
            continue
        plans.append((simulate(plan, exact=False).seconds, rank, plan, chunks))
    if not plans:
        assert refused is not None
        raise refused
    return _soonest(plans)


def _soonest(plans: list[tuple[float, int, Plan, tuple[Chunks, ...]]]) -> tuple[Chunks, ...]:
    """Run the plans in virtual time, the most promising first; those that cannot win any more are spared."""
    least = math.inf
    ran: list[tuple[float, int, int, tuple[Chunks, ...]]] = []
    for at_least, rank, plan, chunks in sorted(plans, key=lambda p: p[:2]):
        if at_least > ALIKE * least:
            break
        seconds = simulate(plan, keep=True).seconds
        least = min(least, seconds)
        ran.append((seconds, rank, plan.graph.n_tasks, chunks))
    # Of those alike the squarest, and then the coarsest.
    return min((_aspect(chunks), n, chunks) for seconds, _, n, chunks in ran if seconds <= ALIKE * least)[-1]


def _aspect(chunks: tuple[Chunks, ...]) -> float:
    """How thin blocks are: the longest edge by the shortest one of a cut axis, the worst of all arrays, in powers of 4."""
    worst = 1.0
    for axes in chunks:
        cut = [max(c) for c in axes if len(c) > 1]
        worst = max(worst, max(map(max, axes), default=1) / max(min(cut, default=1), 1) if cut else 1.0)
    return math.floor(math.log(worst, 4))


__all__ = ["tune_chunks"]


def _roots(made: Any) -> list[Array]:
    flat = [x for x in session.flatten(made)[0] if isinstance(x, Array)]
    if not flat:
        raise ConfigError(f"tune_chunks() needs a function that returns arrays of nums_core; it returned "
                          f"{type(made).__name__}. compute() is not called there: leave it out")
    return flat


def _stand_in(x: Any, chunks: Chunks) -> Array:
    """An array of this shape that takes no memory; it is planned with and never read."""
    return from_array(np.broadcast_to(np.zeros((), x.dtype), x.shape), chunks=chunks)


def _grids(arrays: tuple[Any, ...], cluster: Cluster) -> Iterator[tuple[Chunks, ...]]:
    """Chunks of all arrays, each combination once; squares first."""
    most = max(MOST_BLOCKS, 4 * sum(w.threads for w in cluster.workers))
    seen: set[tuple[Chunks, ...]] = set()
    for aspect in ASPECTS:
        for size in ("auto", *SIZES) if aspect == "square" else SIZES:
            chunks = tuple(normalize("auto", x.shape, x.dtype) if size == "auto" else _cut(x, size, aspect) for x in arrays)
            blocks = max(math.prod(map(len, c)) for c in chunks)
            thin = any(len(axis) > 1 and max(axis) < LEAST_EDGE for c in chunks for axis in c)
            if chunks not in seen and (size == "auto" or (not thin and blocks <= most)):
                seen.add(chunks)
                yield chunks


def _cut(x: Any, size: int, aspect: str) -> Chunks:
    """Halve one edge after another until a block has at most `size` bytes."""
    edges = [max(int(n), 1) for n in x.shape]
    while math.prod(edges) * max(np.dtype(x.dtype).itemsize, 1) > size and max(edges) > 1:
        free = [i for i, n in enumerate(edges) if n > 1]
        axis = free[-1] if aspect == "last" else free[0]
        if aspect == "square":
            axis = max(free, key=lambda i: (edges[i], -i))
        edges[axis] = -(-edges[axis] // 2)
    return tuple(uniform(int(n), e) for n, e in zip(x.shape, edges, strict=True))
