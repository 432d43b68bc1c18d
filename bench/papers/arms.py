"""One experiment on a Ray cluster of simulated nodes, in arms that differ only in who decides where blocks go.

    portfolio   our plan: the best of all policies, on one actor a node
    layout      the same with placement by the layout alone
    ray         the portfolio's tasks one by one as ordinary Ray tasks, placed by Ray
    lshs tasks  tasks one by one, each pinned where plain LSHS puts it: how NumS itself runs on Ray

Every repetition makes its inputs anew, so that no arm profits from copies that an earlier run left behind.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy

import nums_core.array as np
from bench.papers.experiments import Experiment
from bench.papers.store_watch import WATCHED, Stores, StoreWatch
from nums_core import config, session
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.executors.testing import Recorded, RecordingExecutor

if TYPE_CHECKING:
    from bench.papers.ray_tasks import RayTasks  # it imports Ray, which --simulate does without

ARMS = {"portfolio": "portfolio", "layout": "layout", "ray": "portfolio", "lshs tasks": "lshs"}  # name -> policy
INLINE_BYTES = 100 * 2**10  # smaller results travel inside Ray's replies


@dataclass
class Arm:
    """`tasks` is the executor of the arms that run one Ray task a block; `nodes` numbers the nodes by Ray's ids."""

    name: str
    policy: str
    session: session.Session
    nodes: dict[str, int]
    tasks: RayTasks | None = None

    @property
    def recorder(self) -> RecordingExecutor:
        return self.session.executor  # type: ignore[return-value]


@dataclass
class Sample:
    """One repetition of an experiment in an arm.

    Attributes
    ----------
    seconds, plan_s : float, s
        Of all steps: running, and optimising with placing.
    moved, planned : float, bytes
        Between nodes: measured (NaN: not this time), and by the plan.
    inputs, peak : float64 arrays, one entry a node, bytes
        Inputs where the plan keeps them; inputs, blocks made, and copies.
    checks : list of float
        Sums of squares of the last results.
    by_task : bool
        One Ray task a block.
    runs, watch, observed
        What pictures are drawn from.
    """

    seconds: float
    plan_s: float
    n_tasks: int
    moved: float
    planned: float
    inputs: numpy.ndarray
    peak: numpy.ndarray
    predicted_s: float
    predicted_peak: float
    kernel_s: float
    checks: list[float]
    by_task: bool
    runs: list[Recorded] = field(repr=False)
    watch: StoreWatch = field(repr=False)
    observed: list[Any] = field(repr=False)


@contextmanager
def cluster_of_arms(nodes: int, store_bytes: int, names: Sequence[str]) -> Iterator[tuple[list[Arm], Stores]]:
    """A simulated cluster, and the arms on it."""
    import ray

    from nums_core.runtime.executors.ray import RayExecutor
    from nums_core.runtime.executors.ray_cluster import simulated_cluster

    os.environ.update(WATCHED)
    with simulated_cluster(nodes, object_store_bytes=store_bytes) as cluster:
        ray.init(address=cluster.address, logging_level=logging.WARNING, log_to_driver=False)
        executor = RayExecutor()
        try:
            yield [_arm(name, executor) for name in names], Stores(executor.node_ids)
        finally:
            executor.close()


def _arm(name: str, executor: Any) -> Arm:
    from bench.papers.ray_tasks import RayTasks

    tasks = None
    if name in ("ray", "lshs tasks"):
        tasks = RayTasks(executor.cluster, executor.node_ids if name == "lshs tasks" else None)
    nodes = {node_id: k for k, node_id in enumerate(dict.fromkeys(executor.node_ids))}
    return Arm(name, ARMS[name], session.Session(RecordingExecutor(tasks or executor)), nodes, tasks)


@contextmanager
def in_force(chosen: session.Session, policy: str) -> Iterator[None]:
    """`chosen` and `policy` for a `with` block; the session that was in force stays open."""
    before, session._session = session._session, chosen
    try:
        with config.set(policy=policy):
            yield
    finally:
        session._session = before


def measure(arm: Arm, experiment: Experiment, n_bytes: float, blocks: int, stores: Stores, *,
            hold: bool = False, observe: bool = False) -> Sample:
    """Run an experiment once. `hold`: keep all blocks to the end, so that Ray's records tell the copies of each."""
    gc.collect()
    before = stores.settled()
    arm.session.plans.clear()
    with in_force(arm.session, arm.policy):
        arrays = np.persist(*experiment.arrays(np, n_bytes, blocks))
        if arm.tasks is not None:
            arm.tasks.holding, arm.tasks.observed = ([] if hold else None), ([] if observe else None)
        arm.recorder.runs.clear()
        with StoreWatch(stores) as watch:
            for results in experiment.run(np, arrays):  # noqa: B007  -- the last ones are looked at
                pass
        runs = list(arm.recorder.runs)
        moved = _moved(arm, runs)
        observed = arm.tasks.observed or [] if arm.tasks is not None else []
        if arm.tasks is not None:
            arm.tasks.holding = arm.tasks.observed = None
        checks = [float(c) for c in np.compute(*[(r * r).sum() for r in results])]
        own = held_bytes(arrays, arm.recorder.cluster)
        arm.recorder.runs.clear()
    reports, plans = [r.report for r in runs], [r.plan for r in runs]
    return Sample(
        sum(r.run_s for r in reports), sum(r.optimise_s + r.plan_s for r in reports), sum(r.n_tasks for r in reports),
        moved, sum(p.bytes_moved for p in plans), own, _peak(arm, own, runs, before, watch),
        sum(r.predicted_s for r in reports), max(float(p.prediction.peak_bytes.max()) for p in plans),
        sum(s[4] - s[3] for r in reports for s in r.spans), checks, arm.tasks is not None, runs, watch, observed)


def _moved(arm: Arm, runs: list[Recorded]) -> float:
    """Bytes between nodes: as workers counted them, or by Ray's records of blocks that were held."""
    from bench.papers.ray_tasks import copied_bytes

    if arm.tasks is None:
        return sum(r.report.bytes_moved for r in runs)
    return float("nan") if arm.tasks.holding is None else copied_bytes(arm.tasks.holding)


def _peak(arm: Arm, own: numpy.ndarray, runs: list[Recorded], before: numpy.ndarray, watch: StoreWatch) -> numpy.ndarray:
    """Most bytes on each node. Tasks of Ray's hold all blocks in the stores; our actors hold theirs, and what crosses is
    in the stores beside."""
    in_stores = numpy.maximum(watch.peak_bytes - before, 0.0)
    if arm.tasks is not None:
        return in_stores
    node = arm.recorder.cluster.node_of
    made = numpy.max([numpy.bincount(node, numpy.nan_to_num(r.report.peak_bytes), len(own)) for r in runs], axis=0)
    return own + made + in_stores


def held_bytes(arrays: Sequence[Any], cluster: Cluster) -> numpy.ndarray:
    """Bytes of persisted arrays on each node, by where their blocks are."""
    total = numpy.zeros(cluster.n_nodes)
    for x in arrays:
        sizes = numpy.ones(())
        for extents in x.expr.chunks:
            sizes = numpy.multiply.outer(sizes, extents)
        home = x.expr.params[0].data.home
        total += numpy.bincount(cluster.node_of[home], sizes.ravel() * x.dtype.itemsize, cluster.n_nodes)
    return total
