"""Soak: half an hour of mixed work on each executor that is installed; the memory of every process must stay flat.

    python -m bench.soak [--minutes 30] [--only local,ray,dask]

The minutes are shared among the executors. Every process that lives through an executor's part is sampled once a second; after
a warm-up of a tenth its last third's median may be above the first third's by 3 % or 20 MB at most.
"""

import argparse
import gc
import importlib.util
import random
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy
import psutil

import nums_core
import nums_core.array as np
from bench import harness

MORE, MORE_BYTES = 1.03, 20e6


def statistics_of_columns(seed: int) -> Any:
    x = np.random.default_rng(seed).normal(size=(20_000, 20), chunks=(2_500, 20))
    return np.stack([x.mean(axis=0), x.std(axis=0)]).compute()


def product(seed: int) -> Any:
    a = np.random.default_rng(seed).random((500, 500), chunks=250)
    return (a @ a.T).sum(axis=0).compute()


def sorting(seed: int) -> Any:
    return np.sort(np.random.default_rng(seed).random(100_000, chunks=20_000)).compute()


def loop(seed: int) -> Any:
    """Persisted steps, each made from the one before."""
    x = np.random.default_rng(seed).random((400, 400), chunks=200).persist()
    for _ in range(5):
        x = (x * 0.9 + x.T * 0.1).persist()
    return x.compute()


_step = np.jit(lambda x: x * 1.0001 + 1.0, donate=[0])


def donated(seed: int) -> Any:
    x = np.random.default_rng(seed).random((400, 400), chunks=200).persist()
    for _ in range(5):
        x = _step(x)
    return x.compute()


def given(seed: int) -> Any:
    """Arrays of the program's own."""
    data = numpy.random.default_rng(seed).random((300, 1_000))
    return (np.asarray(data).persist() * 2).sum(axis=1).compute()


def failing(seed: int) -> Any:
    """A kernel that fails now and then."""
    def refuse(block: numpy.ndarray) -> numpy.ndarray:
        raise ValueError("now and then")

    try:
        np.ones(1_000, chunks=100).map_blocks(refuse, dtype=float).compute()
    except ValueError:
        return None
    raise AssertionError("an error went missing")


WORK: list[Callable[[int], Any]] = [statistics_of_columns, product, sorting, loop, donated, given, failing]


def start(name: str) -> Any:
    """Make an executor the one in force; returns what must be closed with it."""
    if name == "local":
        return nums_core.init(threads=2)
    if name == "ray":
        return nums_core.init(ray={"num_workers": 2, "log_to_driver": False})
    from distributed import Client

    return nums_core.init(dask=Client(n_workers=2, threads_per_worker=1, dashboard_address=None))


def available(name: str) -> bool:
    if name == "dask" and importlib.util.find_spec("nums_core.runtime.executors.dask") is None:
        return False
    return name == "local" or importlib.util.find_spec({"ray": "ray", "dask": "distributed"}[name]) is not None


class Sampler:
    """Resident bytes of this process and all below it, once a second."""

    def __init__(self) -> None:
        self.samples: dict[int, list[tuple[float, int]]] = {}
        self.names: dict[int, str] = {}
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._loop, daemon=True)
        self.thread.start()

    def _loop(self) -> None:
        me = psutil.Process()
        while not self.stop.wait(1.0):
            now = time.perf_counter()
            for p in [me, *me.children(recursive=True)]:
                try:
                    self.samples.setdefault(p.pid, []).append((now, p.memory_info().rss))
                    self.names.setdefault(p.pid, p.name()[:24])
                except psutil.Error:
                    continue


def judge(samples: list[tuple[float, int]], began: float, ended: float) -> tuple[float, float] | None:
    """Medians of the first and the last third after the warm-up; None where the process did not live through it."""
    first = began + 0.1 * (ended - began)
    kept = [(at, n) for at, n in samples if at >= first]
    third = (ended - first) / 3
    a, b = [n for at, n in kept if at < first + third], [n for at, n in kept if at >= ended - third]
    lived = kept and kept[0][0] < first + 5 and kept[-1][0] > ended - 5
    return (statistics.median(a), statistics.median(b)) if lived and a and b else None


def soak(name: str, seconds: float, seed: int) -> tuple[int, bool]:
    """Runs done, and whether memory was flat."""
    running = start(name)
    sampler, chance, done = Sampler(), random.Random(seed), 0
    began = time.perf_counter()
    try:
        while (ended := time.perf_counter()) - began < seconds:
            chance.choice(WORK)(chance.randrange(10))
            done += 1
            if done % 50 == 0:
                gc.collect()
    finally:
        sampler.stop.set()
        sampler.thread.join()
        del running
        nums_core.shutdown()
    flat = True
    for pid, samples in sorted(sampler.samples.items()):
        found = judge(samples, began, ended)
        if found is not None:
            first, last = found
            fine = last <= max(first * MORE, first + MORE_BYTES)
            flat &= fine
            print(f"  {name:6} {sampler.names[pid]:24} {pid:8}  {first / 2**20:8.1f} -> {last / 2**20:8.1f} MiB  "
                  f"{'flat' if fine else 'GROWS'}", flush=True)
    return done, flat


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="local,ray,dask")
    options = parser.parse_args()
    print(harness.heading(), flush=True)
    names = [n for n in options.only.split(",") if available(n)]
    results = {}
    for name in names:
        done, flat = soak(name, 60 * options.minutes / len(names), options.seed)
        results[name] = {"runs": done, "flat": flat}
        print(f"{name}: {done} runs in {options.minutes / len(names):.1f} min, memory {'flat' if flat else 'NOT FLAT'}",
              flush=True)
    harness.record("soak", minutes=options.minutes, results=results)
    return int(not all(r["flat"] for r in results.values()))


if __name__ == "__main__":
    raise SystemExit(main())
