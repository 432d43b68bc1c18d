"""Arrays four times as large as the memory budget: one line a figure.

    python -m bench.out_of_core [data MiB] [budget MiB]

Every figure is made in a process of its own. Data are random numbers, drawn block by block while the plan runs, or for the
last line read from a `.npy` file that is mapped. `peak` is the most that the process held in memory beyond what it held
before (VmHWM); `blocks` is the most that the run's blocks took at once, which is what the budget bounds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

import nums_core
import nums_core.array as np
from bench import harness


def peak_mib() -> float:
    """Most resident memory so far. (`ru_maxrss` would count the parent's too.)"""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def mean(n: int, path: str) -> tuple[Any, Callable[[], bool]]:
    value = np.random.default_rng(0).normal(size=n).mean().compute()
    return value, lambda: abs(value) < 5 / n**0.5


def std(n: int, path: str) -> tuple[Any, Callable[[], bool]]:
    value = np.random.default_rng(0).normal(size=n).std().compute()
    return value, lambda: abs(value - 1) < 5 / n**0.5


def gram(n: int, path: str) -> tuple[Any, Callable[[], bool]]:
    x = np.random.default_rng(0).normal(size=(n // 64, 64))
    value = (x.T @ x).compute() / len(x)
    return value[0, 0], lambda: bool(abs(value - numpy.eye(64)).max() < 6 / (n / 64)**0.5)


def median(n: int, path: str) -> tuple[Any, Callable[[], bool]]:
    x = np.random.default_rng(0).random(n)
    value = np.median(x).compute()
    return value, lambda: abs(int((x < value).sum().compute()) - n / 2) <= 1


def sort(n: int, path: str) -> tuple[Any, Callable[[], bool]]:
    return _sorted(np.random.default_rng(0).random(n))


def sort_file(n: int, path: str) -> tuple[Any, Callable[[], bool]]:
    return _sorted(np.from_array(numpy.load(path, mmap_mode="r")))


def _sorted(x: Any) -> tuple[Any, Callable[[], bool]]:
    y = np.sort(x).persist()

    def right() -> bool:
        rising = bool((y[1:] >= y[:-1]).all().compute())
        low, high, total = np.compute(x.min(), x.max(), x.sum())
        first, last, same = np.compute(y[0], y[-1], y.sum())
        return rising and first == low and last == high and abs(same - total) <= 1e-12 * abs(total)
    return f"{len(y.chunks[0])} blocks", right


CASES = {"mean": mean, "std": std, "X^T X": gram, "median": median, "sort": sort, "sort .npy": sort_file}


def child(name: str, data: int, budget: int, path: str) -> None:
    """Make one figure and print what it took."""
    nums_core.init(memory=budget << 20)
    before, began = peak_mib(), time.perf_counter()
    value, right = CASES[name]((data << 20) // 8, path)
    seconds, report, peak = time.perf_counter() - began, np.last_report(), peak_mib() - before
    print(json.dumps({"name": name, "value": str(value), "seconds": seconds, "peak_mib": peak, "right": bool(right()),
                      "blocks_mib": float(report.peak_bytes.max()) / 2**20, "spilled_mib": report.spilled_bytes / 2**20,
                      "data_mib": data, "budget_mib": budget}))


def write_file(path: str, n: int) -> None:
    out = numpy.lib.format.open_memmap(path, "w+", numpy.float64, (n,))
    for k in range(0, n, 2**21):
        out[k:k + 2**21] = numpy.random.default_rng(k).random(min(2**21, n - k))
    out.flush()


def main(data: int = 256, budget: int = 64) -> list[dict[str, Any]]:
    print(harness.heading())
    results = []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "values.npy")
        write_file(path, (data << 20) // 8)
        for name in CASES:
            done = subprocess.run([sys.executable, "-m", "bench.out_of_core", "--child", name, str(data), str(budget), path],
                                  capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{name}: {done.stderr}")
            results.append(r := json.loads(done.stdout))
            print(f"{name:10} {'right' if r['right'] else 'WRONG'}  data {data} MiB, budget {budget} MiB: peak "
                  f"{r['peak_mib']:4.0f} MiB, blocks {r['blocks_mib']:3.0f} MiB, spilled {r['spilled_mib']:4.0f} MiB, "
                  f"{r['seconds']:5.1f} s", flush=True)
    harness.record("out_of_core", data_mib=data, budget_mib=budget, results=results)
    return results


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
    else:
        main(*map(int, sys.argv[1:]))
