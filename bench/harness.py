"""Races between libraries: the same work, timed in turn, each library in a process of its own.

The caller makes the inputs and the expected result; every library's process is forked from it, so all see the
same arrays in memory and none sees another's threads, settings or leftovers. A process first runs each of its
variants (ways of cutting the arrays, say), has every result checked, and keeps the fastest. Then the
processes take turns, one run each, in an order that rotates, so that a noisy minute falls on all alike.

Seconds are of the run alone: making the library's array from the NumPy one is not counted, since some copy it
and some do not. Peak bytes are the whole process's resident set during the timed runs, inputs included.
"""

import gc
import importlib.metadata
import json
import math
import multiprocessing
import os
import platform
import statistics
import subprocess
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).with_name("out")
SEED = 20240229
PACKAGES = ("nums-core", "numpy", "scipy", "dask", "dask-array", "frisky", "ray")

Run = Callable[[], tuple[Any, ...]]
Start = Callable[[], Mapping[str, Callable[[], Run]]]  # in the library's process: variant -> prepare -> run
Check = Callable[[tuple[Any, ...]], str | None]  # what is wrong with a result, if anything is


@dataclass
class Timing:
    """What one library did in a race; `error` says why there are no seconds."""

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    variant: str = ""
    error: str | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else math.nan

    def __str__(self) -> str:
        if self.error:
            return f"failed: {self.error}"
        return spread(self.seconds) + f"  peak {self.peak_bytes / 2**20:7,.0f} MiB  {self.variant}"


def race(starts: Mapping[str, Start], check: Check, *, repeat: int, timeout_s: float = 600) -> dict[str, Timing]:
    """Run every library `repeat` times in turn; a library that fails or answers wrongly drops out."""
    timings = {name: Timing() for name in starts}
    processes = {name: _Process(start, check, timeout_s) for name, start in starts.items()}
    names = list(starts)
    try:
        for turn in range(-1, repeat):  # turn -1: warm up, check, choose the variant
            shift = max(turn, 0) % len(names)
            for name in names[shift:] + names[:shift]:
                timing = timings[name]
                if timing.error is None:
                    processes[name].take_turn(timing, warm_up=turn < 0)
    finally:
        for process in processes.values():
            process.stop()
    return timings


class _Process:
    """One library's process and the pipe to it."""

    def __init__(self, start: Start, check: Check, timeout_s: float) -> None:
        context = multiprocessing.get_context("fork")
        self.timeout_s = timeout_s
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, start, check), daemon=False)
        self.process.start()
        theirs.close()

    def take_turn(self, timing: Timing, warm_up: bool) -> None:
        try:
            self.pipe.send("warm up" if warm_up else "run")
            if not self.pipe.poll(self.timeout_s):
                self.process.kill()
                timing.error = f"no answer in {self.timeout_s:.0f} s"
                return
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            timing.error = f"process died, exit code {self.process.exitcode}"
            return
        if "error" in answer:
            timing.error = answer["error"]
        elif warm_up:
            timing.variant = answer["variant"]
        else:
            timing.seconds.append(answer["seconds"])
            timing.peak_bytes = max(timing.peak_bytes, answer["peak_bytes"])

    def stop(self) -> None:
        try:
            self.pipe.send("stop")
        except OSError:
            pass  # it has died already
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()


def _serve(pipe: Any, start: Start, check: Check) -> None:
    """The library's process: answer "warm up" once, then every "run" until "stop"."""
    run: Run | None = None
    while (request := pipe.recv()) != "stop":
        try:
            if request == "warm up":
                variant, run = _fastest(start(), check)
                answer: dict[str, Any] = {"variant": variant}
            else:
                assert run is not None
                answer = _timed(run)
        except Exception as error:
            if os.environ.get("BENCH_TRACEBACK"):
                traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]}
        pipe.send(answer)
    os._exit(0)  # threads and clusters the library left running must not hold us up


def _fastest(variants: Mapping[str, Callable[[], Run]], check: Check) -> tuple[str, Run]:
    seconds = {}
    for name, prepare in variants.items():
        run = prepare()
        result = run()
        if (wrong := check(result)) is not None:
            raise ArithmeticError(f"wrong result with {name}: {wrong}")
        del result
        # The first run pays for imports, threads and plans, so it says nothing of the variant.
        seconds[name] = _timed(run)["seconds"] if len(variants) > 1 else 0.0
        del run
    best = min(seconds, key=seconds.__getitem__)
    run = variants[best]()
    run()
    return best, run


def _timed(run: Run) -> dict[str, Any]:
    gc.collect()
    _reset_peak()
    begin = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - begin
    peak_bytes = _peak_bytes()
    del result
    return {"seconds": seconds, "peak_bytes": peak_bytes}


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # the peak is then of the whole life of the process


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def agrees_with(expected: tuple[Any, ...], *, rtol: float = 1e-9) -> Check:
    """A check that compares with `expected` piece by piece, so that it needs little memory itself.

    The tolerance is `rtol` of each value plus `rtol` of the largest one.
    """

    def check(result: tuple[Any, ...]) -> str | None:
        if len(result) != len(expected):
            return f"{len(result)} results for {len(expected)}"
        for index, (ours, theirs) in enumerate(zip(result, expected, strict=True)):
            ours, theirs = np.atleast_1d(np.asarray(ours)), np.atleast_1d(theirs)
            if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
                return f"result {index} is {ours.dtype}{ours.shape}, expected {theirs.dtype}{theirs.shape}"
            atol = rtol * max(abs(theirs.max()), abs(theirs.min())) if theirs.size else 0.0
            step = max(1, 2**22 // max(1, theirs[0].size)) if theirs.size else 1
            for at in range(0, len(theirs), step):
                if not np.allclose(ours[at : at + step], theirs[at : at + step], rtol=rtol, atol=atol):
                    return f"result {index} differs from NumPy's by more than {rtol:g} after row {at}"
        return None

    return check


def spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):8.3f} s [{min(seconds):.3f}..{max(seconds):.3f}]"


def geometric_mean(ratios: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, ratios))) if ratios else math.nan


def record(benchmark: str, **results: Any) -> dict[str, Any]:
    """Write `results` with the machine, versions and seed to out/<benchmark>.json; return what was written."""
    document = {"benchmark": benchmark, "seed": SEED, "machine": machine(), "versions": versions(), **results}
    OUT.mkdir(exist_ok=True)
    text = json.dumps(document, indent=1, default=lambda value: asdict(value) if isinstance(value, Timing) else str(value))
    (OUT / f"{benchmark}.json").write_text(text + "\n")
    return document


def machine() -> dict[str, Any]:
    model = platform.processor()
    if (info := Path("/proc/cpuinfo")).exists():
        model = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), model)
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": os.getloadavg(),
        "system": platform.platform(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    found["numpy's blas"] = f"{blas['name']} {blas['version']}"
    try:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        found["commit"] = commit.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        pass
    return found


def heading() -> str:
    here, found = machine(), versions()
    names = ", ".join(f"{name} {version}" for name, version in found.items())
    return (
        f"{here['processor']}, {here['cores']} cores, {here['memory_bytes'] / 2**30:.0f} GiB, "
        f"load {here['load'][0]:.1f}; {names}; seed {SEED}"
    )
