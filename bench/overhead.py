"""Microseconds a task: many small blocks, from expression to result.

    python -m bench.overhead [--libs NAME ...] [--tasks 100000] [--peer-tasks 10000] [--block-bytes 8] [--repeat 3]
    python -m bench.overhead --ray [--workers 2] [--block-bytes 10240]
    python -m bench.overhead --dask [--workers 2] [--block-bytes 10240]

`add` gathers x + 1 into one array; `add, sum` reduces it to a number. nums_core may not read blocks together here,
which would leave it a single task for the sum; the number of tasks it ran is printed. Dask's libraries get fewer,
since 100,000 take them minutes. With --ray or --dask only nums_core runs, on a cluster of its own (a Ray cluster, or
processes of dask.distributed): once with x in the driver's memory, from where its blocks are sent in every run, and once
with x persisted on the workers. Seconds hold all of a run, the work on the blocks and their way through memory included;
arrays have 256 MiB at most.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy

from bench import harness
from bench.libraries import LIBRARIES, start

MOST_BYTES = 256 * 2**20


def add(lib, x):
    return (x + 1,)


def add_sum(lib, x):
    return ((x + 1).sum(),)


NUMS = "nums-unmerged"
PROGRAMS = {"add": add, "add, sum": add_sum}


def on_ray(workers: int) -> None:
    import nums_core

    nums_core.init(ray={"num_workers": workers})


def on_dask(workers: int) -> None:
    import distributed

    import nums_core

    cluster = distributed.LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None)
    nums_core.init(dask=distributed.Client(cluster))


def on_cluster(local: harness.Start, connect: Callable[[int], None], workers: int, persisted: bool) -> harness.Start:
    def begin() -> dict[str, Callable[[], harness.Run]]:
        connect(workers)
        return {name: (lambda make=make: keep(make())) for name, make in local().items()}

    def keep(run: harness.Run) -> harness.Run:
        return replace(run, arrays=tuple(x.persist() for x in run.arrays)) if persisted else run

    return begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libs", nargs="+", choices=LIBRARIES, default=["dask", "dask-array", NUMS], metavar="NAME")
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--peer-tasks", type=int, default=10_000)
    parser.add_argument("--block-bytes", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--ray", action="store_const", dest="connect", const=on_ray)
    where.add_argument("--dask", action="store_const", dest="connect", const=on_dask)
    parser.add_argument("--workers", type=int, default=2, help="of the cluster")
    options = parser.parse_args()
    print(harness.heading())
    ways = {f"{NUMS} sent": False, f"{NUMS} kept": True} if options.connect else dict.fromkeys(options.libs, False)
    elements = max(options.block_bytes // 8, 1)
    results: dict[str, dict[str, harness.Timing]] = {name: {} for name in PROGRAMS}
    for name, program in PROGRAMS.items():
        for way, persisted in ways.items():
            library = NUMS if options.connect else way
            most = options.tasks if library == NUMS else min(options.tasks, options.peer_tasks)
            tasks = min(most, MOST_BYTES // (8 * elements))
            x = numpy.random.default_rng(harness.SEED).random(tasks * elements)
            begin = start(library, program, (x,), {"": ((elements,),)}, modes=True)
            if options.connect:
                begin = on_cluster(begin, options.connect, options.workers, persisted)
            check = harness.agrees_with(program(LIBRARIES["numpy"](), x))
            timing = harness.race({way: begin}, check, repeat=options.repeat)[way]
            results[name][way] = timing
            ran = timing.tasks or tasks
            print(f"{name:<9} {way:<18} {timing.median / ran * 1e6:8.2f} us a task of {ran:,}, "
                  f"{8 * elements:,} bytes a block  {timing}", flush=True)
    record_name = "overhead" + (options.connect.__name__.removeprefix("on") if options.connect else "")
    harness.record(record_name, tasks=options.tasks, peer_tasks=options.peer_tasks, block_bytes=options.block_bytes,
                   results=results)
    return harness.failures(*results.values())


if __name__ == "__main__":
    raise SystemExit(main())
