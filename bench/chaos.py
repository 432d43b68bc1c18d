"""Chaos: workers and nodes of a simulated Ray cluster are killed at random moments; every result must be right to the last bit.

    python -m bench.chaos [--runs 200] [--seed 0] [--only gram,sort] [--nodes 3]

A run takes one workload and up to two deaths at moments drawn over the time that it takes undisturbed: SIGKILL to a worker's
process, `ray.kill`, or a whole node (a fresh one joins afterwards). A run that takes longer than `--limit` ends the program
with the stacks of all threads. At the end no array, call, actor or process may be left.
"""

import argparse
import collections
import faulthandler
import gc
import os
import random
import signal
import threading
import time
from collections.abc import Callable

import numpy
import psutil
import ray

import nums_core
import nums_core.array as np
from bench import harness
from nums_core import session
from nums_core.runtime.executors.ray_cluster import SimulatedCluster


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
        self.cluster = cluster
        self.counts: collections.Counter[str] = collections.Counter()

    @property
    def executor(self) -> object:
        return session.current().executor

    def strike(self, kind: str, chance: random.Random) -> None:
        actors = self.executor.actors
        w = chance.randrange(len(actors))
        try:
            if kind == "process":
                os.kill(ray.get(actors[w].pulse.remote(), timeout=2), signal.SIGKILL)
            elif kind == "actor":
                ray.kill(actors[w])
            else:
                nodes = self.cluster.node_ids[1:]  # the head has the cluster's records
                self.cluster.kill(nodes[chance.randrange(len(nodes))])
                self.cluster.add()
        except (ray.exceptions.RayError, OSError):  # it is dead already
            return
        self.counts[kind] += 1


def disturbed(work: Callable[[], numpy.ndarray], killer: Killer, took_s: float, chance: random.Random) -> numpy.ndarray:
    """One run with one or two deaths."""
    moments = sorted(chance.uniform(0.0, took_s) for _ in range(1 + (chance.random() < 0.3)))
    kinds = chance.choices(["process", "actor", "node"], [0.45, 0.4, 0.15], k=len(moments))

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


def leaks(workers: int) -> list[str]:
    """What should not be there once all arrays are gone."""
    executor = session.current().executor
    for _ in range(50):
        gc.collect()
        held = sum(ray.get([a.ping.remote() for a in executor.actors]))
        refs = len(ray._private.worker.global_worker.core_worker.get_all_reference_counts())
        alive = sum(a["State"] == "ALIVE" for a in ray._private.state.actors().values())
        if not held and alive == workers and refs <= workers:
            return []
        time.sleep(0.1)
    return [f"{held} arrays held, {refs} references, {alive} actors for {workers} workers"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(WORKLOADS))
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of a run that count as a hang")
    options = parser.parse_args()
    print(harness.heading(), flush=True)
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    cluster = SimulatedCluster(options.nodes)
    nums_core.init(cluster.address, ray={"log_to_driver": False}) if False else nums_core.init(cluster.address)
    killer, wrong, seconds = Killer(cluster), [], []
    try:
        names = options.only.split(",")
        right, took_s = {}, {}
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
                verdict = "right" if got.tobytes() == right[name].tobytes() else "WRONG"
            except nums_core.errors.NumsError as error:
                verdict = f"FAILED: {error}"
            faulthandler.cancel_dump_traceback_later()
            seconds.append(time.perf_counter() - began)
            if verdict != "right":
                wrong.append(run)
                print(f"run {run} (seed {options.seed}) {name}: {verdict}", flush=True)
        found = leaks(session.current().executor.cluster.n_workers)
    finally:
        faulthandler.cancel_dump_traceback_later()
        nums_core.shutdown()
        cluster.close()
    time.sleep(1.0)
    left = [p.name() for p in psutil.Process().children(recursive=True) if p.pid not in before and
            p.status() != psutil.STATUS_ZOMBIE]
    found += [f"process {name}" for name in left]
    print(f"{options.runs} runs, seed {options.seed}: {options.runs - len(wrong)} right, {len(wrong)} not; deaths: "
          f"{dict(killer.counts)}; a run {harness.spread(seconds)}, undisturbed "
          f"{', '.join(f'{k} {v:.2f} s' for k, v in took_s.items())}; left behind: {found or 'nothing'}")
    harness.record("chaos", runs=options.runs, chaos_seed=options.seed, wrong=wrong, deaths=dict(killer.counts),
                   seconds=seconds, undisturbed_s=took_s, left_behind=found)
    return int(bool(wrong or found))


if __name__ == "__main__":
    raise SystemExit(main())
