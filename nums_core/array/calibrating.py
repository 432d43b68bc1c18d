"""calibrate: how fast this machine, its workers and their links are, so that predicted seconds are those of here.

Small arrays go through the executor in force, each computation chosen so that one rate decides how long it takes; that rate
is what makes the simulator come out at the measured seconds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nums_core import session
from nums_core.array import products, random, scans, sorting
from nums_core.array.array import Array, from_array
from nums_core.array.linalg import qr
from nums_core.ops.costs import KINDS
from nums_core.runtime import calibration
from nums_core.runtime.calibration import Calibration
from nums_core.runtime.cluster import CALLED, CallCost, Link, Rate
from nums_core.runtime.plan import Plan
from nums_core.scheduler.simulate import simulate

REPEAT = 5  # the quickest counts: whatever else runs here only ever adds
ROUNDS = 3  # of fitting: a rate found later changes what an earlier one is to explain
STEPS = 4  # of Newton's method; one is enough where the seconds are linear in the figure
START = 1e-6  # seconds a flop or byte, far above any that will be found
LEAST_SHARE = 0.02  # of its probe's seconds that a figure explains: what the others explain was perhaps slow by chance
ROWS, COLUMNS = 6144, 1024  # of the usual array: 48 MiB


def calibrate(refresh: bool = False) -> Calibration:
    """Measure what predictions reckon with, on the executor in force, and use it for predictions from here on.

    Parameters
    ----------
    refresh : bool
        Measure even where figures for a cluster like this one are in the user's cache folder (`XDG_CACHE_HOME`, or
        ~/.cache).

    Returns
    -------
    Calibration
        Rates of one thread by class of kernels, links and cost of calls.

    Notes
    -----
    About 2 s, and some 200 MiB on the workers. Plans and results do not depend on it; `explain()` and the predicted seconds
    of a Report do.
    """
    current = session.current()
    path = calibration.path_for(current.executor.cluster)
    found = None if refresh else Calibration.load(path)
    if found is None:
        found = _Fit(current).result()
        found.save(path)
    current.calibrate(found)
    return found


@dataclass(frozen=True)
class Probe:
    """A computation and the figure that it tells: `figure` is a name in `_Fit.figures`."""

    figure: str
    make: Callable[[], Array]
    keep: bool = True


class _Fit:
    """Figures, by name: a rate is "kinds/part", as "map,reduce/flop" or "all/read"."""

    def __init__(self, current: session.Session) -> None:
        self.session, self.cluster = current, current.executor.cluster
        self.figures: dict[str, float] = {}
        self.measured: list[tuple[Probe, Plan, float]] = []

    def result(self) -> Calibration:
        for probe in self._probes():
            array = probe.make()
            plan, seconds = self._run(array, probe.keep)
            self.measured.append((probe, plan, seconds))
        for _ in range(ROUNDS):
            for probe, plan, seconds in self.measured:
                self._solve(probe, plan, seconds)
        return self._calibration(self.figures)

    def _run(self, array: Array, keep: bool) -> tuple[Plan, float]:
        """The plan of an array, and the least of its seconds."""
        took = []
        for _ in range(1 + REPEAT):
            self.session.run([array.expr], keep=keep)
            report = self.session.last_report
            assert report is not None
            took.append(report.run_s)
        return self.session.compiled([array.expr])[0].plan, min(took[1:])

    def _solve(self, probe: Probe, plan: Plan, seconds: float) -> None:
        """Set the figure of a probe so that the simulator comes to its seconds.

        All else being known, these are the largest of several linear functions of it (paths through the plan), so Newton's
        method from above finds it.
        """
        def predicted(figure: float) -> float:
            cluster = self._calibration({**self.figures, probe.figure: figure}).apply(self.cluster)
            return simulate(plan, keep=probe.keep, cluster=cluster).seconds

        goal = max(seconds, predicted(0.0) + LEAST_SHARE * seconds)
        figure = START
        for _ in range(STEPS):
            value = predicted(figure)
            slope = (predicted(1.01 * figure) - value) / (0.01 * figure)
            if slope <= 0:  # it does not count beside the rest
                break
            figure = max(figure - (value - goal) / slope, 1e-4 * figure)
        self.figures[probe.figure] = figure

    def _calibration(self, figures: dict[str, float]) -> Calibration:
        """From seconds a flop, a byte, a run; a later figure overrides an earlier one."""
        base = Calibration.of(self.cluster)
        table: dict[str, list[float]] = {}
        fixed = {name: s for name, s in figures.items() if "/" not in name}
        for name, s in figures.items():
            kinds, slash, part = name.partition("/")
            for key in _classes(kinds) if slash else ():
                table.setdefault(key, [0.0, 0.0, 0.0])[("flop", "read", "write").index(part)] = s
        rates = {key: Rate(*(_per_s(s) for s in row)) for key, row in table.items()}
        link = lambda name: dataclasses.replace(getattr(base, name), bytes_per_s=_per_s(fixed[name]))  # noqa: E731
        links: dict[str, Link] = {name: link(name) for name in fixed if name != "call"}
        call = base.call._replace(run_s=fixed["call"]) if "call" in fixed else base.call
        return dataclasses.replace(base, rates=rates, call=CallCost(*call), **links)

    # -- what is computed ---------------------------------------------------------------------------------------------

    def _probes(self) -> Iterator[Probe]:
        n = max(self.cluster.n_workers, 1)
        rows = max(ROWS // n, 1) * n
        cut = (max(ROWS // (2 * n * self.cluster.workers[0].threads), 1), COLUMNS)
        rng = random.default_rng(0)
        x = rng.random((rows, COLUMNS), chunks=cut).persist()
        tall = rng.random((rows * 8, 64), chunks=(cut[0] * 8, 64)).persist()
        square = rng.random((2048, 2048), chunks=(1024, 1024)).persist()
        if self.cluster.kind in CALLED:
            yield from self._calls(x)
        small, square32 = x.astype(np.float32).persist(), square.astype(np.float32).persist()
        yield Probe("all/read", lambda: x.sum())
        yield Probe("map,reduce,cross/flop", lambda: _chain(x).sum())
        yield Probe("map.f,reduce.f,cross.f/flop", lambda: _chain(small).sum())
        yield Probe("all/write", lambda: x + 1.0, self.cluster.kind in CALLED)
        yield Probe("copy/write", lambda: x[1:].rechunk(cut))
        yield Probe("cross/read", lambda: square + square.T)
        yield Probe("gemm/flop", lambda: products.matmul(square, square))
        yield Probe("gemm.f/flop", lambda: products.matmul(square32, square32))
        yield Probe("heavy/flop", lambda: _exp(x).sum())
        yield Probe("scan/flop", lambda: scans.cumsum(x, axis=0))
        yield Probe("select/flop", lambda: x[x[:, 0] > 0.5])
        yield Probe("sort,other/flop", lambda: sorting.sort(x[:1024], axis=1))
        yield Probe("linalg/flop", lambda: qr(tall)[0])
        yield Probe("read/flop", lambda: rng.random((rows, COLUMNS), chunks=cut))

    def _calls(self, x: Array) -> Iterator[Probe]:
        values = np.ones((2048, COLUMNS))
        tiny = np.ones(8)
        yield Probe("call", lambda: from_array(tiny) + 1.0)
        yield Probe("driver", lambda: from_array(values, chunks=(1024, COLUMNS)) + 1.0)
        yield Probe("local" if self.cluster.n_nodes == 1 else "network", lambda: x + x[::-1])
        yield Probe("gather", lambda: x[:2048] + 1.0, False)


def _classes(kinds: str) -> list[str]:
    """ "all" -> every class, "map,gemm.f" -> map.d, map.f, gemm.f."""
    out = []
    for kind in KINDS if kinds == "all" else kinds.split(","):
        out += [kind] if "." in kind else [f"{kind}.d", f"{kind}.f"]
    return out


def _per_s(seconds: float) -> float:
    return 1.0 / seconds if seconds > 0 else math.inf


def _chain(x: Array) -> Array:
    """Eight operations an element, as one task."""
    for _ in range(4):
        x = x * x.dtype.type(0.5) + x.dtype.type(1.0)
    return x


def _exp(x: Any) -> Array:
    return np.exp(x)
