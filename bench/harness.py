"""Races between libraries: the same work, timed in turn, each library in a process of its own.

The caller makes the inputs and the expected result; every library's process is forked from it, so all see the
same arrays in memory and none sees another's threads, settings or leftovers. A process first runs each of its
variants (ways of cutting the arrays, say), keeps the fastest, and has its result checked. Then the processes
take turns, one run each, in an order that rotates, so that a noisy minute falls on all alike.

Seconds are of the run alone: making the library's array from the NumPy one is not counted, since some copy it
and some do not. Peak bytes are the whole process's resident set during the timed runs, inputs included.
"""

import atexit
import contextlib
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
SETTLE_S = 0.1  # BLAS threads of the run before spin for some 30 ms before they sleep; nobody is to run beside them
PACKAGES = ("nums-core", "numpy", "scipy", "dask", "dask-array", "ray")

Run = Callable[[], tuple[Any, ...]]
Start = Callable[[], Mapping[str, Callable[[], Run]]]  # in the library's process: variant -> prepare -> run
Check = Callable[[tuple[Any, ...]], str | None]  # what is wrong with a result, if anything is


@dataclass
class Timing:
    """What one library did in a race; `error` says why there are no seconds.

    `tried` has the seconds of each variant in the warm-up; the fastest was raced.
    """

    seconds: list[float] = field(default_factory=list)
    foreign_cores: list[float] = field(default_factory=list)  # cores that other processes kept busy meanwhile
    peak_bytes: int = 0
    tasks: int = 0  # in the last run, where the library tells
    tried: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else math.nan

    def __str__(self) -> str:
        if self.error:
            return f"failed: {self.error}"
        variant = min(self.tried, key=self.tried.__getitem__)
        foreign = statistics.median(self.foreign_cores)
        doubt = f"  (others kept {foreign:.1f} cores busy)" if foreign >= 0.2 else ""
        return f"{spread(self.seconds):<34}  peak {self.peak_bytes / 2**20:7,.0f} MiB  {variant}{doubt}"


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
        time.sleep(SETTLE_S)
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
            timing.tried = answer["tried"]
        else:
            timing.seconds.append(answer["seconds"])
            timing.foreign_cores.append(answer["foreign_cores"])
            timing.tasks = answer["tasks"]
            timing.peak_bytes = max(timing.peak_bytes, answer["peak_bytes"])

    def stop(self) -> None:
        with contextlib.suppress(OSError):  # it has died already
            self.pipe.send("stop")
        self.process.join(30)
        if self.process.is_alive():
            self.process.kill()


def _serve(pipe: Any, start: Start, check: Check) -> None:
    """The library's process: answer "warm up" once, then every "run" until "stop"."""
    run: Run | None = None
    growth_bytes = 0
    while (request := pipe.recv()) != "stop":
        try:
            if request == "warm up":
                run, tried, growth_bytes = _fastest(start(), check)
                answer: dict[str, Any] = {"tried": tried}
            else:
                assert run is not None
                answer = _timed(run, growth_bytes) | {"tasks": getattr(run, "tasks", int)()}
        except Exception as error:
            if os.environ.get("BENCH_TRACEBACK"):
                traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]}
        pipe.send(answer)
    atexit._run_exitfuncs()  # a cluster is stopped; threads left running are not waited for
    os._exit(0)


def _fastest(variants: Mapping[str, Callable[[], Run]], check: Check) -> tuple[Run, dict[str, float], int]:
    """The run of the fastest variant, its result checked; the seconds of each; the memory the fastest takes."""
    tried: dict[str, float] = {}
    best, growth_bytes, unchecked = None, 0, False

    def checked(run: Run) -> None:
        if (wrong := check(run())) is not None:
            raise ArithmeticError(f"wrong result: {wrong}")

    for name, prepare in variants.items():
        run = prepare()
        if best is None:
            checked(run)  # also pays for imports, threads and plans, so its time would say nothing of the variant
        timed = _timed(run, growth_bytes)
        if best is None or timed["seconds"] < min(tried.values()):
            best, growth_bytes, unchecked = run, timed["growth_bytes"], best is not None
        tried[name] = timed["seconds"]
        del run
    assert best is not None
    if unchecked:
        checked(best)
    return best, tried, growth_bytes


def _timed(run: Run, growth_bytes: int = 0) -> dict[str, Any]:
    """One run; `growth_bytes` is what a run before it added to the resident set."""
    gc.collect()
    _touch(growth_bytes)
    _reset_peak()
    before_bytes = _resident_bytes("VmRSS")
    foreign_s = _foreign_cpu_s()
    begin = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - begin
    foreign_s = _foreign_cpu_s() - foreign_s
    peak_bytes = _resident_bytes("VmHWM")
    del result
    return {
        "seconds": seconds,
        "foreign_cores": max(0.0, foreign_s - 0.02) / seconds,  # the clock ticks in 0.01 s
        "peak_bytes": peak_bytes,
        "growth_bytes": max(0, peak_bytes - before_bytes),  # the kernel counts pages in batches: a peak may lag behind
    }


def _touch(nbytes: int) -> None:
    """Take and give back `nbytes` of memory.

    A virtual machine may return free memory to its host within seconds; the first touch afterwards costs some
    2 s per GiB, far more than most of the work timed here, and falls on whoever happens to run next.
    """
    np.empty(min(nbytes, machine()["memory_bytes"] // 3), np.uint8)[::4096] = 1


def _reset_peak() -> None:
    # Where this is refused, the peak is of the whole life of the process.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _foreign_cpu_s() -> float:
    """Seconds of processor time that other processes have had, and the host has taken, since the machine started."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9])
    ours = os.times()
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK") - ours.user - ours.system


def _resident_bytes(which: str) -> int:
    """VmRSS: now; VmHWM: at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) * 1024
    return 0


def agrees_with(expected: tuple[Any, ...], *, rtol: float = 1e-9) -> Check:
    """A check that compares with `expected` piece by piece, so that it needs little memory itself.

    No value may be further off than `rtol` of the largest.
    """

    def check(result: tuple[Any, ...]) -> str | None:
        if len(result) != len(expected):
            return f"{len(result)} results for {len(expected)}"
        for index, (ours, theirs) in enumerate(zip(result, expected, strict=True)):
            ours, theirs = np.atleast_1d(np.asarray(ours)), np.atleast_1d(theirs)
            if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
                return f"result {index} is {ours.dtype}{ours.shape}, expected {theirs.dtype}{theirs.shape}"
            if theirs.size and not _distance(ours, theirs) <= rtol:  # `not` so that NaN is refused
                return f"result {index} differs from NumPy's by more than {rtol:g} of the largest value"
        return None

    return check


def _distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """max |ours - theirs| / max |theirs|"""
    step = max(1, 2**20 * len(theirs) // theirs.size)
    pieces = [slice(at, at + step) for at in range(0, len(theirs), step)]
    furthest = max(np.abs(ours[piece] - theirs[piece]).max() for piece in pieces)
    largest = max(np.abs(theirs[piece]).max() for piece in pieces)
    return furthest / (largest or 1.0)


def spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):8.3f} s [{min(seconds):.3f}..{max(seconds):.3f}]"


def print_ratios(timings: Mapping[str, Timing], indent: str = "") -> None:
    """How many times as long as nums_core each of the others took, the best of them first."""
    nums = timings.get("nums", Timing()).median
    ratios = {name: timing.median / nums for name, timing in timings.items() if not name.startswith("nums")}
    ratios = {name: ratio for name, ratio in ratios.items() if math.isfinite(ratio)}
    if ratios:
        ranked = sorted(ratios.items(), key=lambda item: item[1])
        print(indent + "peer / nums: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ranked), flush=True)


def task_count(timing: Timing) -> str:
    return f"  {timing.tasks:,} tasks" if timing.tasks else ""


def failures(*races: Mapping[str, Timing]) -> int:
    """The exit code: 1 if any library failed or answered wrongly."""
    return int(any(timing.error for timings in races for timing in timings.values()))


def geometric_mean(ratios: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, ratios))) if ratios else math.nan


def record(benchmark: str, **results: Any) -> dict[str, Any]:
    """Write `results` with the machine, versions and seed to out/<benchmark>.json; return what was written."""
    document = {"benchmark": benchmark, "seed": SEED, "machine": machine(), "versions": versions(), **results}
    OUT.mkdir(exist_ok=True)
    (OUT / f"{benchmark}.json").write_text(json.dumps(document, indent=1, default=asdict) + "\n")
    return document


def machine() -> dict[str, Any]:
    model = platform.processor()
    if (info := Path("/proc/cpuinfo")).exists():
        named = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = named[0].partition(":")[2].strip() if named else model
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
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        found["commit"] = commit.stdout.strip()
    return found


def heading() -> str:
    here, found = machine(), versions()
    names = ", ".join(f"{name} {version}" for name, version in found.items())
    return (
        f"{here['processor']}, {here['cores']} cores, {here['memory_bytes'] / 2**30:.0f} GiB, "
        f"load {here['load'][0]:.1f}; {names}; seed {SEED}"
    )
