"""Seconds against the number of blocks an array is cut into: what a block costs, and where that begins to tell.

    python -m bench.blocks_curve [--only NAME ...] [--libs NAME ...] [--blocks 4 16 ... 4096] [--repeat 3]

128 MB of float64 each. NumPy, which has no blocks, stands beside each point. "nums-unmerged" may not read small
neighbouring blocks together, as nums_core otherwise does in reductions.
"""

import argparse

import numpy

from bench import harness
from bench.libraries import LIBRARIES, USUAL, start
from bench.workloads import chain_sum, cumsum, gram

CURVES = {"chain_sum": (chain_sum, (2**24,)), "gram": (gram, (2**18, 64)), "cumsum": (cumsum, (2**24,))}
BLOCKS = [4, 16, 64, 256, 1024, 4096]


def point(name: str, blocks: int, libraries: list[str], repeat: int) -> dict[str, harness.Timing]:
    program, shape = CURVES[name]
    x = numpy.random.default_rng(harness.SEED).random(shape)
    cuts = {"": ((-(-len(x) // blocks), *x.shape[1:]),)}
    check = harness.agrees_with(program(LIBRARIES["numpy"](), x))
    starts = {library: start(library, program, (x,), cuts, modes=True) for library in libraries}
    return harness.race(starts, check, repeat=repeat)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CURVES, default=list(CURVES), metavar="NAME")
    parser.add_argument("--libs", nargs="+", choices=LIBRARIES, default=[*USUAL, "nums-unmerged"], metavar="NAME")
    parser.add_argument("--blocks", nargs="+", type=int, default=BLOCKS)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    print(harness.heading())
    results: dict[str, dict[int, dict[str, harness.Timing]]] = {}
    for name in options.only:
        print(f"\n{name}, 128 MB")
        for blocks in options.blocks:
            timings = point(name, blocks, options.libs, options.repeat)
            results.setdefault(name, {})[blocks] = timings
            for library, timing in timings.items():
                print(f"  {blocks:5} blocks  {library:<14}{timing}{harness.task_count(timing)}", flush=True)
    harness.record("blocks_curve", repeat=options.repeat, results=results)
    return harness.failures(*(timings for curve in results.values() for timings in curve.values()))


if __name__ == "__main__":
    raise SystemExit(main())
