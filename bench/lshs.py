"""Bytes between nodes: X^T Y on a Ray cluster of four simulated nodes, and square GEMM against owner-computes.

    python -m bench.lshs [--rows 400000] [--columns 128]
"""

import argparse

import numpy

import nums_core
import nums_core.array as np
from bench import harness
from nums_core.expr.lower import lower
from nums_core.expr.optimise import optimise
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.executors.ray_cluster import simulated_cluster
from nums_core.scheduler import make_plan

NODES = 4


def gram_on_ray(rows: int, columns: int) -> bool:
    """Inputs must stay; the partials of k nodes cost exactly k - 1 of their size."""
    with simulated_cluster(NODES) as cluster:
        nums_core.init(cluster.address)
        try:
            x, y = (np.random.default_rng(s).random((rows, columns), chunks=(rows // 16, columns)).persist() for s in (1, 2))
            product = x.T @ y
            plan = product.explain()
            values = product.compute()
            report = np.last_report()
            right = numpy.allclose(values, numpy.asarray(x).T @ numpy.asarray(y))
        finally:
            nums_core.shutdown()
    partial = columns * columns * 8
    inputs = float(plan.graph.out_bytes[plan.move_block][plan.graph.is_leaf[plan.move_block]].sum())
    print(f"X^T Y on {NODES} Ray nodes: input bytes moved {inputs:.0f}; planned {plan.bytes_moved:.0f}, measured "
          f"{report.bytes_moved:.0f}, (k-1)*s = {(NODES - 1) * partial}; policy {plan.policy}; right: {right}")
    return right and inputs == 0 and plan.bytes_moved == (NODES - 1) * partial


def gemm(side: int, grid: int) -> bool:
    """Planned volume of a square product on side x side nodes."""
    chunk = 64
    a, b = (np.ones((grid * chunk, grid * chunk), chunks=chunk) + k for k in (1, 2))
    graph = lower(optimise([(a @ b).expr]), {})
    cluster = Cluster.regular(side * side)
    moved = {p: make_plan(graph, cluster, policy=p).bytes_moved for p in ("portfolio", "owner", "lshs")}
    block = chunk * chunk * 8
    formula = 2 * (grid // side) * (grid - grid // side) * side * side * block
    print(f"square GEMM, {side}x{side} nodes, {grid}x{grid} blocks: portfolio moves {moved['portfolio'] / block:.0f} blocks, "
          f"owner-computes {moved['owner'] / block:.0f}, formula {formula / block:.0f}, plain LSHS {moved['lshs'] / block:.0f}")
    return moved["portfolio"] <= moved["owner"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--columns", type=int, default=128)
    options = parser.parse_args()
    print(harness.heading())
    good = [gemm(2, 8), gemm(4, 8), gram_on_ray(options.rows, options.columns)]
    return int(not all(good))


if __name__ == "__main__":
    raise SystemExit(main())
