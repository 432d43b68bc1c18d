"""What the simulator says beforehand of the thirteen workloads, and what they then do.

    python -m bench.prediction [--ray] [--only NAME ...] [--scale 0.25] [--repeat 3]

Calibrates first. Locally the arrays are NumPy's; with `--ray` they lie on two Ray workers of this machine when the clock
starts. One line a workload: seconds predicted and measured (of the runs alone, medians), and whether the bytes moved into
and out of every worker are those predicted. Returns non-zero where bytes differ.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import numpy

import nums_core
import nums_core.array as np
from bench import harness
from bench.libraries import Library
from bench.workloads import WORKLOADS
from nums_core import session

WITHIN = 0.25


class Watched:
    """`compute` that adds up what was predicted and measured."""

    def __init__(self) -> None:
        self.predicted_s = self.measured_s = 0.0
        self.differ: list[str] = []

    def compute(self, *arrays: Any) -> tuple[Any, ...]:
        if not all(isinstance(a, np.Array) for a in arrays):  # computed by the program already
            return arrays
        values = nums_core.compute(*arrays)
        report = nums_core.last_report()
        prediction = nums_core.explain(*arrays).prediction
        self.predicted_s += prediction.seconds
        self.measured_s += report.run_s
        for name in ("bytes_in", "bytes_out"):
            expected, met = getattr(prediction, name), getattr(report, name)
            if not numpy.array_equal(expected, met):
                self.differ.append(f"{name} {met.tolist()} where {expected.tolist()} were predicted")
        return values


def measure(name: str, scale: float, repeat: int, on_workers: bool) -> tuple[float, bool]:
    """Predicted by measured seconds of one workload, and whether its bytes were exact."""
    workload = WORKLOADS[name]
    rng = numpy.random.default_rng(harness.SEED)
    cut = next(iter(workload.cuts.values()))
    arrays = [make(rng, scale) for make in workload.inputs]
    cuts = cut if isinstance(cut, tuple) else (cut,) * len(arrays)
    lazy = [np.from_array(x, chunks=chunks(x)) for x, chunks in zip(arrays, cuts, strict=True)]
    if on_workers:
        lazy = list(nums_core.persist(*lazy))
    predicted, measured = 0.0, []
    differ: list[str] = []
    for turn in range(1 + repeat):
        watched = Watched()
        library = Library(np, lambda x, chunks: x, watched.compute)
        library.compute(*workload.program(library, *lazy))
        if turn:
            predicted = watched.predicted_s
            measured.append(watched.measured_s)
        differ = watched.differ
    ratio = predicted / statistics.median(measured)
    said = "bytes exact" if not differ else differ[0]
    print(f"{name:<14} predicted {predicted:7.3f} s  measured {harness.spread(measured)}  ratio {ratio:5.2f}  {said}",
          flush=True)
    return ratio, not differ


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="NAME")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--scale", type=float, default=0.25, help="share of the full size of the data")
    options = parser.parse_args()
    print(harness.heading())
    if options.ray:
        nums_core.init(ray={"num_workers": 2, "log_to_driver": False})
    try:
        nums_core.calibrate(refresh=True)
        results = {name: measure(name, options.scale, options.repeat, options.ray) for name in options.only}
    finally:
        session.shutdown()
    near = sum(abs(ratio - 1) <= WITHIN for ratio, _ in results.values())
    print(f"{near} of {len(results)} within {WITHIN:.0%}; bytes exact in {sum(exact for _, exact in results.values())}")
    harness.record("prediction", ray=options.ray, scale=options.scale, repeat=options.repeat, results=results)
    return int(not all(exact for _, exact in results.values()))


if __name__ == "__main__":
    raise SystemExit(main())
