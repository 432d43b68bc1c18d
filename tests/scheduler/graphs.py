"""Small task graphs for the scheduler's tests, and a run of a plan on symbols instead of data."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from nums_core.ops import tree
from nums_core.ops.taskgraph import LEAF, REDUCE, GraphBuilder, Kernel, TaskGraph
from nums_core.runtime.cluster import Cluster, Worker
from nums_core.runtime.plan import Plan

SUM = Kernel("tree", ("sum", "finish"))


def leaf(b: GraphBuilder, number: int, grid: tuple[int, ...], size: float = 1.0, home: Any = -1) -> np.ndarray:
    n = int(np.prod(grid))
    return b.ids(b.add(Kernel("leaf", (number,)), grid, np.zeros((n, 0)), out_bytes=size, role=LEAF, home=home))


def aligned(n: int = 12, steps: int = 3, size: float = 1.0) -> TaskGraph:
    """((x + y) + y) + ...: elementwise, one grid."""
    b = GraphBuilder()
    x, y = leaf(b, 0, (n, 2), size), leaf(b, 1, (n, 2), size)
    for _ in range(steps):
        f = b.add(Kernel("add"), (n, 2), np.stack([x.ravel(), y.ravel()], 1), out_bytes=size, flop=size)
        x = b.ids(f)
    return b.build((f,))


def xty(n: int, partial: float = 256.0, block: float = 16000.0) -> TaskGraph:
    """X^T Y of two tall arrays of n row blocks each."""
    b = GraphBuilder()
    x, y = leaf(b, 0, (n, 1), block), leaf(b, 1, (n, 1), block)
    m = b.add(Kernel("matmul"), (n, 1, 1), np.stack([x.ravel(), y.ravel()], 1), out_bytes=partial, flop=1e6)
    r = b.add(SUM, (1, 1), b.ids(m).reshape(1, n), out_bytes=partial, flop=partial * (n - 1), role=REDUCE)
    return b.build((r,))


def gemm(g: int, k: int | None = None, size: float = 1.0, computed: bool = False) -> TaskGraph:
    """A (g x k blocks) times B (k x g blocks); with `computed`, A and B are made by tasks, not leaves."""
    k = g if k is None else k
    b = GraphBuilder()
    if computed:
        x = b.ids(b.add(Kernel("random"), (g, k), np.zeros((g * k, 0)), out_bytes=size, flop=size))
        y = b.ids(b.add(Kernel("random"), (k, g), np.zeros((g * k, 0)), out_bytes=size, flop=size))
    else:
        x, y = leaf(b, 0, (g, k), size), leaf(b, 1, (k, g), size)
    i, j, m = (a.ravel() for a in np.meshgrid(np.arange(g), np.arange(g), np.arange(k), indexing="ij"))
    p = b.add(Kernel("matmul"), (g, g, k), np.stack([x[i, m], y[m, j]], 1), out_bytes=size, flop=2 * size)
    r = b.add(SUM, (g, g), b.ids(p).reshape(g * g, k), out_bytes=size, flop=size * (k - 1), role=REDUCE)
    return b.build((r,))


def outer(n: int) -> TaskGraph:
    """X Y^T of two tall arrays of n row blocks each."""
    b = GraphBuilder()
    x, y = leaf(b, 0, (n, 1)), leaf(b, 1, (n, 1))
    i, j = (a.ravel() for a in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
    return b.build((b.add(Kernel("matmul"), (n, n), np.stack([x[i, 0], y[j, 0]], 1), out_bytes=1.0),))


def column_sums(n: int, k: int, outputs: int = 1, size: float = 1.0) -> TaskGraph:
    """Sums over the rows of `outputs` different maps of one computed array of n x k blocks."""
    b = GraphBuilder()
    x = b.ids(b.add(Kernel("random"), (n, k), np.zeros((n * k, 0)), out_bytes=size, flop=size))
    roots = []
    for _ in range(outputs):
        m = b.ids(b.add(Kernel("map"), (n, k), x.reshape(-1, 1), out_bytes=size / 8, flop=size))
        roots.append(b.add(SUM, (k,), m.T, out_bytes=size / 8, flop=size, role=REDUCE))
    return b.build(tuple(roots))


def random_graph(seed: int, n_workers: int, reductions: bool = True) -> TaskGraph:
    """Families of random grids that read random earlier blocks; some are reductions of uneven width, if wanted."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder()
    leaf(b, 0, (int(rng.integers(1, 9)),), float(rng.integers(1, 9)), rng.integers(-1, n_workers))
    for _ in range(int(rng.integers(1, 7))):
        grid = tuple(rng.integers(1, 6, size=int(rng.integers(0, 3))).tolist())
        n = int(np.prod(grid))
        is_reduce = rng.random() < 0.4 and reductions
        most = 12 if is_reduce else 3
        counts = rng.integers(1, most + 1, n) if rng.random() < 0.5 else np.full(n, rng.integers(1, most + 1))
        if not is_reduce and rng.random() < 0.2:
            counts = np.zeros(n, np.int64)
        blocks = rng.integers(0, b.n_tasks, int(counts.sum()))
        b.add(SUM if is_reduce else Kernel("map"), grid, blocks, counts=counts, role=REDUCE if is_reduce else "task",
              out_bytes=float(rng.integers(1, 9)), flop=float(rng.integers(0, 99)))
    n_families = len(b.families)
    chosen = rng.choice(np.arange(1, n_families), size=int(rng.integers(1, min(3, n_families - 1) + 1)), replace=False)
    return b.build(tuple(sorted(chosen.tolist())))


@st.composite
def clusters(draw: st.DrawFn, most: int = 5) -> Cluster:
    """Regular and irregular clusters, some of unlike workers."""
    if draw(st.booleans()):
        return Cluster.regular(draw(st.integers(1, most)), draw(st.integers(1, 3)), threads=draw(st.integers(1, 2)))
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=most))
    return Cluster(tuple(Worker(node, 1 + i, flop_per_s=1e9 * (1 + node)) for node, n in enumerate(sizes) for i in range(n)))


def value_of(graph: TaskGraph, order: Any = None) -> list[Any]:
    """What each task makes, as nested tuples; reductions combine along the halving tree."""
    label = {f.start + i: f"{f.kernel.name}{f.kernel.params[:1] if f.role == LEAF else ''}#{i}" for f in graph.families
             for i in range(f.count)}
    values: list[Any] = [None] * graph.n_tasks
    for t in range(graph.n_tasks) if order is None else order:
        family = graph.families[graph.family_of[t]]
        blocks = [values[b] for b in graph.inputs(t)]
        assert None not in blocks
        if family.kernel.name == "tree":
            value = tree.evaluate(lambda a, b: (a, b), blocks)
            values[t] = value if family.kernel.params[1] is None else ("finish", value)
        else:
            values[t] = (label[t], *blocks)
    return values


def results(graph: TaskGraph, values: list[Any]) -> list[list[Any]]:
    return [values[graph.families[f].start:graph.families[f].stop] for f in graph.outputs]


def flat(value: Any) -> Any:
    """Pairs of a reduction as a sorted list of what they combine; for orders that are not fixed."""
    if not isinstance(value, tuple):
        return value
    if value[0] == "finish":
        return ("finish", *sorted(map(repr, map(flat, _leaves(value[1])))))
    return tuple(map(flat, value))


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], tuple):
        return _leaves(value[0]) + _leaves(value[1])
    return [value]


def run_distributed(plan: Plan) -> None:
    """Run the plan's moves and tasks over one set of blocks a worker; every operand must be where it is used."""
    held: list[set[int]] = [set() for _ in range(plan.cluster.n_workers)]
    moves: dict[int, list[tuple[int, int]]] = {}
    for b, src, dst in zip(plan.move_block, plan.move_src, plan.move_dst, strict=True):
        moves.setdefault(int(b), []).append((int(src), int(dst)))
    for t in plan.order.tolist():
        w = int(plan.worker[t])
        assert set(plan.graph.inputs(t).tolist()) <= held[w]
        held[w].add(t)
        for src, dst in moves.get(t, ()):
            assert t in held[src], "a relayed copy comes after the one it relays"
            assert t not in held[dst], "a block is sent to a worker at most once"
            held[dst].add(t)
