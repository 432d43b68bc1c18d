"""((x + 1) * 2).sum() over 2,500 blocks of 115 KB, against NumPy on the whole array and Dask on the same blocks.

nums_core reads small neighbouring blocks together; "nums-unmerged" is forbidden to, and runs a task for each.

    python -m bench.small_blocks [--libs NAME ...] [--repeat 7]
"""

import argparse

import numpy

from bench import harness
from bench.libraries import LIBRARIES, USUAL, start

SIDE, TILE = 6000, 120  # 50 × 50 blocks of 115,200 bytes


def program(lib, x):
    return (((x + 1) * 2).sum(),)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libs", nargs="+", choices=LIBRARIES, default=[*USUAL, "nums-unmerged"], metavar="NAME")
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    print(harness.heading())
    x = numpy.random.default_rng(harness.SEED).random((SIDE, SIDE))
    check = harness.agrees_with(program(LIBRARIES["numpy"](), x))
    cuts = {"": ((TILE, TILE),)}
    starts = {library: start(library, program, (x,), cuts, modes=True) for library in options.libs}
    timings = harness.race(starts, check, repeat=options.repeat)
    blocks = (SIDE // TILE) ** 2
    for library, timing in timings.items():
        print(f"{library:<14}{timing.median / blocks * 1e6:8.1f} us a block  {timing}{harness.task_count(timing)}")
    harness.print_ratios(timings)
    harness.record("small_blocks", repeat=options.repeat, results=timings)
    return harness.failures(timings)


if __name__ == "__main__":
    raise SystemExit(main())
