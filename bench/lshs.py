"""Bytes between nodes: policy by policy in simulation, against lower bounds, and X^T Y on a Ray cluster of four nodes.

    python -m bench.lshs [--nodes 16 64 256 1024] [--no-ray] [--rows 400000] [--columns 128]

Returns non-zero if a bound of bench/bounds.py is missed.
"""

import argparse
import math
import time

import numpy

import nums_core
import nums_core.array as np
from bench import bounds, harness
from nums_core._util import format_bytes
from nums_core.ops.taskgraph import TaskGraph
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.plan import Plan
from nums_core.scheduler import make_plan
from nums_core.scheduler.portfolio import POLICIES

NODES = 4


def gram_on_ray(rows: int, columns: int) -> bool:
    """Inputs must stay; the partials of k nodes cost exactly k - 1 of their size."""
    from nums_core.runtime.executors.ray_cluster import simulated_cluster

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


def shown(name: str, graph: TaskGraph, nodes: int, least: float | None) -> dict[str, Plan]:
    """One line a policy: F, bytes moved, predicted seconds, microseconds of planning a task. Returns the plans."""
    cluster = Cluster.regular(nodes, memory_bytes=2**36)
    plans: dict[str, Plan] = {}
    for policy in POLICIES:
        begin = time.perf_counter()
        plan = plans[policy] = make_plan(graph, cluster, policy=policy)
        plan_us = (time.perf_counter() - begin) / graph.n_tasks * 1e6
        bound = "" if least is None else f", {plan.bytes_moved / least:.3f} of the bound"
        seconds = plan.prediction.seconds if plan.prediction else math.nan
        won = f" ({plan.policy})" if policy == "portfolio" else ""
        print(f"{name:20} {nodes:>5} nodes {graph.n_tasks:>7} tasks {policy:12} "
              f"F {format_bytes(min(plan.scores.values())):>10}, moves {format_bytes(plan.bytes_moved):>10}{bound}, "
              f"{seconds:9.3f} s predicted, planned in {plan_us:.2f} us a task{won}", flush=True)
    return plans


def bounded(case: bounds.Case, nodes: int) -> bool:
    """The portfolio meets the bound of a case with two blocks a node."""
    least = case.least(nodes, bounds.LARGE)
    plans = shown(case.name, case.graph(2 * nodes, bounds.LARGE), nodes, least)
    return plans["portfolio"].bytes_moved == least


def outer(nodes: int) -> bool:
    side = math.isqrt(nodes)
    least = bounds.outer_least(nodes, side, bounds.LARGE)  # a row block a node
    return shown("outer", bounds.outer(nodes, bounds.LARGE), nodes, least)["portfolio"].bytes_moved == least


def gemm(nodes: int) -> bool:
    """Never above LSHS or owner-computes, and into the fullest node at most 1.1 of 2 n^2 / sqrt(nodes) elements."""
    side = math.isqrt(nodes)
    g = 2 * side
    plans = shown("square GEMM", bounds.gemm(g, bounds.LARGE), nodes, bounds.gemm_least(g, side, bounds.LARGE))
    best = plans["portfolio"]
    words = 2 * (g * bounds.LARGE.edge)**2 / side
    into = best.prediction.bytes_in.max() / bounds.ITEM / words
    print(f"square GEMM          {nodes:>5} nodes: into the fullest node {into:.3f} of 2 n^2 / sqrt({nodes}) elements")
    return into <= 1.1 and best.bytes_moved <= min(plans["owner"].bytes_moved, plans["lshs"].bytes_moved)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="*", default=[16, 64, 256, 1024], help="squares of powers of two")
    parser.add_argument("--ray", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--columns", type=int, default=128)
    options = parser.parse_args()
    print(harness.heading())
    good = []
    for nodes in options.nodes:
        good += [bounded(case, nodes) for case in bounds.CASES] + [outer(nodes), gemm(nodes)]
    if options.ray:
        good.append(gram_on_ray(options.rows, options.columns))
    return int(not all(good))


if __name__ == "__main__":
    raise SystemExit(main())
