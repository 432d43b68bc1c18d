"""Chaos: workers and nodes of a simulated Ray cluster are killed at random moments; every result must be right to the last bit.

    python -m bench.chaos [--runs 200] [--seed 0] [--only gram,sort] [--nodes 3]

A run takes one workload and up to two deaths at moments drawn over the time that it takes undisturbed: SIGKILL to a worker's
process, `ray.kill`, or a whole node (a fresh one joins afterwards). A run that takes longer than `--limit` ends the program
with the stacks of all threads. At the end no array, call, actor or process may be left.
"""

import argparse
import collections
import contextlib
import faulthandler
import gc
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy
import psutil
import ray

import nums_core
import nums_core.array as np
from bench import harness
from nums_core import session
from nums_core.runtime.executors.ray_cluster import SimulatedCluster, simulated_cluster


def gram() -> numpy.ndarray:
    x = np.random.default_rng(1).random((60_000, 48), chunks=(5_000, 48)).persist()
    return (x.T @ x).compute()


def gemm() -> numpy.ndarray:
    a, b = (np.random.default_rng(s).random((900, 900), chunks=300).persist() for s in (2, 3))
    return ((a @ b) @ a).compute()


def sort() -> numpy.ndarray:
    return np.sort(np.random.default_rng(4).random(400_000, chunks=40_000).persist()).compute()


def newton() -> numpy.ndarray:
    """Logistic regression; the weights are persisted at every step."""
    x = np.random.default_rng(5).random((40_000, 12), chunks=(4_000, 12)).persist()
    y = (x.sum(axis=1) > 6.0).astype(float).persist()
    w = np.zeros(12).persist()
    for _ in range(5):
        p = 1 / (1 + np.exp(-(x @ w)))
        gradient = x.T @ (p - y) + w
        hessian = (x * (p * (1 - p))[:, None]).T @ x + np.eye(12)
        w = (w - np.linalg.solve(hessian, gradient)).persist()
    return w.compute()


def donated() -> numpy.ndarray:
    """A jitted step that overwrites its argument."""
    step = np.jit(lambda x, m: x * 0.999 + m.sum(axis=0), donate=[0])
    m = np.random.default_rng(7).random((200, 900), chunks=(50, 300)).persist()
    x = np.random.default_rng(6).random((900, 900), chunks=300).persist()
    for _ in range(6):
        x = step(x, m)
    return x.compute()


WORKLOADS: dict[str, Callable[[], numpy.ndarray]] = {f.__name__: f for f in (gram, gemm, sort, newton, donated)}


class Killer:
    """Ends workers and nodes of one cluster."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self.cluster, self.executor = cluster, session.current().executor
        self.counts: collections.Counter[str] = collections.Counter()
        self.n_nodes = len(cluster.node_ids)

    def strike(self, kind: str, chance: random.Random) -> None:
        w = chance.randrange(len(self.executor.actors))
        nodes = self.cluster.node_ids[1:]  # the head has the cluster's records
        with contextlib.suppress(ray.exceptions.RayError, OSError):  # it is dead already
            if kind == "process":
                os.kill(self.executor.pids[w], signal.SIGKILL)
            elif kind == "actor":
                ray.kill(self.executor.actors[w])
            elif nodes:
                self.cluster.kill(chance.choice(nodes))
            self.counts[kind] += 1

    def mend(self) -> None:
        """Let fresh nodes join for those that died. (Ray starts nodes in the main thread only.)"""
        while len(self.cluster.node_ids) < self.n_nodes:
            self.cluster.add()


def disturbed(work: Callable[[], numpy.ndarray], killer: Killer, took_s: float, chance: random.Random) -> numpy.ndarray:
    """One run with one or two deaths."""
    moments = sorted(chance.uniform(0.0, took_s) for _ in range(1 + (chance.random() < 0.3)))
    kinds = chance.choices(["process", "actor", "node"], [0.45, 0.35, 0.2], k=len(moments))

    def strike() -> None:
        began = time.perf_counter()
        for at, kind in zip(moments, kinds, strict=True):
            time.sleep(max(0.0, began + at - time.perf_counter()))
            killer.strike(kind, chance)

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    try:
        return work()
    finally:
        thread.join()
        killer.mend()


def leaks(workers: int) -> list[str]:
    """What should not be there once all arrays are gone."""
    executor, said = session.current().executor, ""
    executor.replace_dead()
    for _ in range(100):
        gc.collect()
        held = sum(ray.get([a.ping.remote() for a in executor.actors]))
        refs = len(ray._private.worker.global_worker.core_worker.get_all_reference_counts())
        alive = sum(a["State"] == "ALIVE" for a in ray._private.state.actors().values())
        said = f"{held} arrays held, {refs} references, {alive} actors for {workers} workers"
        if not held and alive == workers and refs <= workers:
            return []
        time.sleep(0.1)
    return [said]


def storm(options: argparse.Namespace, killer: Killer) -> dict[str, Any]:
    """All runs; what came of them."""
    names, right, took_s, wrong, seconds = options.only.split(","), {}, {}, [], []
    for name in names:
        WORKLOADS[name]()
        began = time.perf_counter()
        right[name] = WORKLOADS[name]()
        took_s[name] = time.perf_counter() - began
    for run in range(options.runs):
        name, chance = names[run % len(names)], random.Random(options.seed * 100_003 + run)
        faulthandler.dump_traceback_later(options.limit, exit=True)
        began = time.perf_counter()
        try:
            got = disturbed(WORKLOADS[name], killer, took_s[name], chance)
            said = "" if got.tobytes() == right[name].tobytes() else "WRONG"
        except nums_core.errors.NumsError as error:
            said = f"FAILED: {error}"
        seconds.append(time.perf_counter() - began)
        if said:
            wrong.append(run)
            print(f"run {run} of seed {options.seed}, {name}: {said}", flush=True)
    faulthandler.cancel_dump_traceback_later()
    return {"wrong": wrong, "seconds": seconds, "undisturbed_s": took_s, "deaths": dict(killer.counts),
            "left_behind": leaks(killer.executor.cluster.n_workers)}


def children() -> dict[int, str]:
    found = {}
    for p in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if p.status() != psutil.STATUS_ZOMBIE:
                found[p.pid] = p.name()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(WORKLOADS))
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of a run that count as a hang")
    options = parser.parse_args()
    print(harness.heading(), flush=True)
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    before = children()
    with simulated_cluster(options.nodes) as cluster, nums_core.init(cluster.address, ray={"log_to_driver": False}):
        found = storm(options, Killer(cluster))
    time.sleep(2.0)
    found["left_behind"] += [f"process {name}" for pid, name in children().items() if pid not in before]
    wrong, left = found["wrong"], found["left_behind"]
    print(f"{options.runs} runs, seed {options.seed}: {options.runs - len(wrong)} right, {len(wrong)} not; deaths: "
          f"{found['deaths']}; left behind: {', '.join(left) or 'nothing'}")
    print(f"a run {harness.spread(found['seconds'])}; undisturbed "
          f"{', '.join(f'{k} {v:.2f} s' for k, v in found['undisturbed_s'].items())}")
    harness.record("chaos", runs=options.runs, chaos_seed=options.seed, **found)
    return int(bool(wrong or left))


if __name__ == "__main__":
    raise SystemExit(main())
