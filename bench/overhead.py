"""Microseconds a task: 100,000 blocks of one float64, from expression to result.

    python -m bench.overhead [--libs NAME ...] [--tasks 100000] [--peer-tasks 10000] [--repeat 3]
    python -m bench.overhead --ray [--workers 2]

`add` gathers x + 1 into one array; `add, sum` reduces it to a number. nums_core may not read blocks together here,
which would leave it a single task for the sum; the number of tasks it ran is printed. Dask's libraries get fewer,
since 100,000 take them minutes. With --ray only nums_core runs, on a Ray cluster of its own.
"""

import argparse
from collections.abc import Callable

import numpy

from bench import harness
from bench.libraries import LIBRARIES, start


def add(lib, x):
    return (x + 1,)


def add_sum(lib, x):
    return ((x + 1).sum(),)


NUMS = "nums-unmerged"
PROGRAMS = {"add": add, "add, sum": add_sum}


def on_ray(local: harness.Start, workers: int) -> harness.Start:
    def begin() -> dict[str, Callable[[], harness.Run]]:
        import nums_core

        nums_core.init(ray={"num_workers": workers})
        return dict(local())

    return begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libs", nargs="+", choices=LIBRARIES, default=["dask", "dask-array", NUMS], metavar="NAME")
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--peer-tasks", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--workers", type=int, default=2, help="Ray workers")
    options = parser.parse_args()
    print(harness.heading())
    results: dict[str, dict[str, harness.Timing]] = {name: {} for name in PROGRAMS}
    for name, program in PROGRAMS.items():
        for library in [NUMS] if options.ray else options.libs:
            tasks = options.tasks if library == NUMS else min(options.tasks, options.peer_tasks)
            x = numpy.random.default_rng(harness.SEED).random(tasks)
            begin = start(library, program, (x,), {"": ((1,),)}, modes=True)
            if options.ray:
                begin = on_ray(begin, options.workers)
            check = harness.agrees_with(program(LIBRARIES["numpy"](), x))
            timing = harness.race({library: begin}, check, repeat=options.repeat)[library]
            results[name][library] = timing
            ran = timing.tasks or tasks
            print(f"{name:<9} {library:<14} {timing.median / ran * 1e6:8.2f} us a task of {ran:,}  {timing}", flush=True)
    record_name = "overhead_ray" if options.ray else "overhead"
    harness.record(record_name, tasks=options.tasks, peer_tasks=options.peer_tasks, results=results)
    return harness.failures(*results.values())


if __name__ == "__main__":
    raise SystemExit(main())
