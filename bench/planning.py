"""What planning costs: microseconds a task, from 10^5 to 10^6 tasks, on 1 to 1024 nodes.

    python -m bench.planning                  # all figures, about two minutes
    python -m bench.planning --tasks 100000   # one size

One printed line a figure: median of the repetitions, their spread and the median of processor time (which tells a slow
planner from a busy machine), the policy chosen, bytes moved. The hard limits are 5 us a task on a cluster (and growing
linearly), 1.5 us on one worker, and 300 us for a graph of a few tasks.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np

from nums_core._util import format_bytes
from nums_core.ops.taskgraph import LEAF, REDUCE, GraphBuilder, Kernel, TaskGraph
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler import make_plan

BLOCK_BYTES = 16.0 * 2**20
TREE = Kernel("tree", ("add", None))


def _leaf(b: GraphBuilder, number: int, grid: tuple[int, ...], n_bytes: float = BLOCK_BYTES) -> np.ndarray:
    count = int(np.prod(grid))
    return b.ids(b.add(Kernel("leaf", (number,)), grid, np.zeros((count, 0)), out_bytes=n_bytes, role=LEAF))


def chain(n_tasks: int) -> TaskGraph:
    """Fused elementwise chain: a leaf and four maps over one grid."""
    b = GraphBuilder()
    now = _leaf(b, 0, (n_tasks // 5,))
    for _ in range(4):
        last = b.add(Kernel("fused"), now.shape, now.reshape(-1, 1), out_bytes=BLOCK_BYTES, flop=4e6)
        now = b.ids(last)
    return b.build((last,))


def gram(n_tasks: int) -> TaskGraph:
    """X^T Y of tall arrays: products of row blocks, summed into one block."""
    b = GraphBuilder()
    n = n_tasks // 3
    x, y = _leaf(b, 0, (n, 1)), _leaf(b, 1, (n, 1))
    m = b.add(Kernel("matmul"), (n, 1, 1), np.stack([x.ravel(), y.ravel()], 1), out_bytes=2.0**17, flop=5e8)
    r = b.add(TREE, (1, 1), b.ids(m).reshape(1, n), out_bytes=2.0**17, flop=2.0**14 * n, role=REDUCE)
    return b.build((r,))


def gemm(n_tasks: int) -> TaskGraph:
    """Square product, K products an output block."""
    b = GraphBuilder()
    g = round(n_tasks ** (1 / 3))
    x, y = _leaf(b, 0, (g, g)), _leaf(b, 1, (g, g))
    i, j, k = (a.ravel() for a in np.meshgrid(*[np.arange(g)] * 3, indexing="ij"))
    m = b.add(Kernel("matmul"), (g, g, g), np.stack([x[i, k], y[k, j]], 1), out_bytes=BLOCK_BYTES, flop=4e9)
    r = b.add(TREE, (g, g), b.ids(m).reshape(g * g, g), out_bytes=BLOCK_BYTES, flop=2e6 * g, role=REDUCE)
    return b.build((r,))


def rechunk(n_tasks: int) -> TaskGraph:
    """Rows to columns: each output block gathers slices of a row of input blocks, then one map."""
    b = GraphBuilder()
    g = int((n_tasks / 3) ** 0.5)
    x = _leaf(b, 0, (g, g))
    i, j = (a.ravel() for a in np.meshgrid(np.arange(g), np.arange(g), indexing="ij"))
    blocks = np.stack([x[j, i], x[j, (i + 1) % g], x[(j + 1) % g, i], x[(j + 1) % g, (i + 1) % g]], 1)
    m = b.add(Kernel("gather"), (g, g), blocks, out_bytes=BLOCK_BYTES)
    r = b.add(Kernel("fused"), (g, g), b.ids(m).reshape(-1, 1), out_bytes=BLOCK_BYTES, flop=2e6)
    return b.build((r,))


def transposed_add(n_tasks: int) -> TaskGraph:
    """sum(X + X^T, axis=0)."""
    b = GraphBuilder()
    g = int((n_tasks / 2) ** 0.5)
    x = _leaf(b, 0, (g, g))
    m = b.add(Kernel("fused"), (g, g), np.stack([x.ravel(), x.T.ravel()], 1), out_bytes=2.0**14, flop=4e6)
    r = b.add(TREE, (g,), b.ids(m).T, out_bytes=2.0**14, flop=2e3 * g, role=REDUCE)
    return b.build((r,))


KINDS: dict[str, Callable[[int], TaskGraph]] = {
    "chain": chain, "gram": gram, "gemm": gemm, "rechunk": rechunk, "transposed add": transposed_add,
}


def measure(graph: TaskGraph, cluster: Cluster, repeat: int, **options: str) -> str:
    """One line: median and spread in us a task, policy, bytes moved."""
    seconds, cpu = [], []
    for _ in range(repeat):
        fresh = dataclasses.replace(graph)  # without what the last round cached
        begin, began = time.perf_counter(), time.process_time()
        plan = make_plan(fresh, cluster, **options)  # type: ignore[arg-type]
        seconds.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - began)
    unit = 1e6 / graph.n_tasks
    low, middle, high = min(seconds) * unit, statistics.median(seconds) * unit, max(seconds) * unit
    return (f"{middle:7.3f} us/task  ({low:.3f} .. {high:.3f}; cpu {statistics.median(cpu) * unit:.3f})  "
            f"{plan.policy}, moves {format_bytes(plan.bytes_moved)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, nargs="*", default=[10**5, 10**6])
    parser.add_argument("--nodes", type=int, nargs="*", default=[1, 16, 256, 1024])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--orders", nargs="*", default=["fixed"])
    args = parser.parse_args()
    print(f"# python {platform.python_version()}, numpy {np.__version__}, {os.cpu_count()} cores, seed 0")
    tiny = chain(5)
    line = measure(tiny, Cluster.single(4, 2**33), 300)
    print(f"planning tiny graph, 1 worker: {float(line.split()[0]) * tiny.n_tasks:.0f} us in all")
    for kind, make in KINDS.items():
        for n_tasks in args.tasks:
            graph = make(n_tasks)
            for nodes in args.nodes:
                for order in args.orders:
                    cluster = Cluster.single(4, 2**36) if nodes == 1 else Cluster.regular(nodes)
                    line = measure(graph, cluster, args.repeat, reduction_order=order)
                    print(f"planning {kind:15} {graph.n_tasks:>8} tasks {nodes:>5} nodes {order}: {line}", flush=True)


if __name__ == "__main__":
    main()
