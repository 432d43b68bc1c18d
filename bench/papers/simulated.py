"""The experiments on clusters that do not exist: plans are made and replayed in virtual time, nothing is computed.

Beside our policies, two models of what happens without a plan, both on the portfolio's tasks. Inputs lie where the tasks
that made them were dealt, at random but evenly:

    dealt     tasks too are dealt at random: no locality at all
    nearest   each task runs where most bytes of its operands lie, however busy that node is: all of the locality

Ray's default policy lies between them: it prefers the node that holds most of a task's arguments, and goes elsewhere when
that node has no free core. Neither model knows of Ray's time a task, which is told apart.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy

import nums_core.array as np
from bench.papers.experiments import EXPERIMENTS, Experiment
from bench.parallel import Described
from nums_core import config, session
from nums_core.runtime.cluster import Cluster, Link
from nums_core.runtime.plan import Plan
from nums_core.scheduler.load import Loads, account
from nums_core.scheduler.moves import Moves, list_moves
from nums_core.scheduler.simulate import simulate

POLICIES = ("portfolio", "layout", "lshs")
UNPLANNED = ("dealt", "nearest")
REPLAYED = 400_000  # tasks; larger plans are estimated from sums
SEED = 20240229


def node_model(nodes: int) -> Cluster:
    """Machines of 32 cores and 512 GB on a network of 25 Gb/s: one worker of 32 threads each."""
    return Cluster.regular(nodes, threads=32, memory_bytes=512 * 10**9, network=Link(100e-6, 3e9))


@dataclass
class Simulated:
    """Figures of one policy and its plan of a step.

    Attributes
    ----------
    peak_bytes, kept_bytes : float, bytes
        Most alive at once on any node; the same where no copy of an input goes before the end.
    """

    name: str
    loads: Loads
    peak_bytes: float
    kept_bytes: float
    seconds: float
    plan_us: float
    plan: Plan


def simulated(experiment: Experiment, n_bytes: float, blocks: int, cluster: Cluster,
              names: Sequence[str] = (*POLICIES, *UNPLANNED)) -> Iterator[Simulated]:
    """Each policy's plan of one step, replayed."""
    best: Plan | None = None
    for name in names:
        if name in UNPLANNED:
            best = best or planned(experiment, n_bytes, blocks, cluster, "portfolio")[0]
            yield judged(name, unplanned(best, name), 0.0)
        else:
            plan, seconds = planned(experiment, n_bytes, blocks, cluster, name)
            best = plan if name == "portfolio" else best
            yield judged(name, plan, 1e6 * seconds / plan.graph.n_tasks)


def planned(experiment: Experiment, n_bytes: float, blocks: int, cluster: Cluster, policy: str) -> tuple[Plan, float]:
    """The plan of the experiment's first step, and the seconds it took to place and order the tasks."""
    with described(cluster) as executor, config.set(policy=policy):
        arrays = np.persist(*experiment.arrays(np, n_bytes, blocks))
        next(experiment.run(np, arrays))
        compiled = list(session.current().plans.values())[-1]
    return executor.plans[-1], compiled.plan_s


@contextmanager
def described(cluster: Cluster) -> Iterator[Described]:
    """A session on a cluster that does not exist."""
    executor = Described(cluster)
    before, session._session = session._session, session.Session(executor)
    try:
        yield executor
    finally:
        session._session = before


def judged(name: str, plan: Plan, plan_us: float) -> Simulated:
    """A plan's loads, and what a replay says of it."""
    moves = Moves(plan.move_block, plan.move_src, plan.move_dst)
    loads = account(plan.graph, plan.worker, moves, plan.cluster)
    told = simulate(plan, exact=plan.graph.n_tasks + len(moves.block) <= REPLAYED)
    of_inputs = plan.graph.is_leaf[moves.block]
    copies = numpy.bincount(moves.dst[of_inputs], plan.graph.out_bytes[moves.block[of_inputs]], plan.cluster.n_workers)
    return Simulated(name, loads, float(told.peak_bytes.max()), float((told.peak_bytes + copies).max()), told.seconds, plan_us,
                     plan)


def unplanned(plan: Plan, name: str, seed: int = SEED) -> Plan:
    """The same tasks, placed without a plan; see the head of this module. Every copy is fetched from its maker."""
    g, n = plan.graph, plan.cluster.n_workers
    rng = numpy.random.default_rng(seed)
    worker = rng.integers(0, n, g.n_tasks).astype(numpy.int32)
    for f in g.families:
        if f.role == "leaf":  # as many on each node
            worker[f.start:f.stop] = rng.permutation(f.count) % n
        elif name == "nearest":
            worker[f.start:f.stop] = _nearest(plan, f.start, f.stop, worker)
    moves = list_moves(g, worker, plan.cluster, source="first")
    return Plan(g, plan.cluster, worker, plan.order, moves.block, moves.src, moves.dst, name)


def _nearest(plan: Plan, start: int, stop: int, worker: numpy.ndarray) -> numpy.ndarray:
    """For each task of a family, the worker with most bytes of its operands; the lowest of several."""
    g, n = plan.graph, plan.cluster.n_workers
    a, b = int(g.in_ptr[start]), int(g.in_ptr[stop])
    place = (g.consumer_of_edge[a:b] - start) * n + worker[g.in_idx[a:b]]
    places, at = numpy.unique(place, return_inverse=True)
    n_bytes = numpy.bincount(at, g.out_bytes[g.in_idx[a:b]], len(places))
    by = numpy.lexsort((-places, n_bytes, places // n))  # the last of each task is its best
    last = numpy.flatnonzero(numpy.diff(places[by] // n, append=-1))
    found = worker[start:stop].copy()
    found[places[by][last] // n] = places[by][last] % n
    return found


def sizes(name: str, cluster: Cluster, blocks_per_core: int = 1) -> int:
    """Blocks of the largest input: so many a core; a product's grid is square, with as many rows of blocks a row of nodes."""
    if name == "gemm":
        return (2 * round(cluster.n_nodes ** 0.5)) ** 2
    return cluster.n_nodes * cluster.workers[0].threads * blocks_per_core


def report(name: str, cluster: Cluster, n_bytes: float, blocks: int, dispatch_us: float) -> list[Simulated]:
    """Print a table of one experiment; returns its rows."""
    began = time.perf_counter()
    rows = list(simulated(EXPERIMENTS[name], n_bytes, blocks, cluster))
    n_tasks = int((~rows[0].plan.graph.is_leaf).sum())
    print(f"\n{name}, {cluster.n_nodes} nodes, {n_bytes / 1e12:.3g} TB in {blocks} blocks, {n_tasks} tasks a step "
          f"[{time.perf_counter() - began:.0f} s]")
    print(f"  {'':<10} {'F':>9} {'max mem':>9} {'max in':>9} {'max out':>9} {'moved':>9} {'live peak':>9} {'seconds':>9} "
          f"{'plan us/task':>12}   GB")
    for r in rows:
        giga = [v / 1e9 for v in (r.loads.F, r.loads.mem.max(), r.loads.into.max(), r.loads.out.max(), r.loads.moved,
                                  r.peak_bytes)]
        print(f"  {r.name:<10} {' '.join(f'{v:9.4g}' for v in giga)} {r.seconds:9.4g} {r.plan_us:12.2f}   {r.plan.policy}",
              flush=True)
    ours, *_ = (r for r in rows if r.name == "portfolio")
    for theirs in (r for r in rows if r.name in UNPLANNED):
        handed_over = max(theirs.seconds, dispatch_us * 1e-6 * n_tasks)
        print(f"  portfolio / {theirs.name}: bytes {_ratio(ours.loads.moved, theirs.loads.moved)}; fullest node "
              f"{_ratio(ours.peak_bytes, theirs.peak_bytes)}, {_ratio(ours.peak_bytes, theirs.kept_bytes)} where copies of "
              f"inputs stay, as in Ray's stores; seconds {_ratio(ours.seconds, theirs.seconds)}, "
              f"{_ratio(ours.seconds, handed_over)} where one driver hands over a task every {dispatch_us:.0f} us")
    return rows


def _ratio(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.3g}" if theirs else ("1" if not ours else "inf")
