"""The same arrays, the same blocks and four workers: against dask.array on `distributed`, and against scikit-learn.

    python -m bench.papers.rivals                                     # small sizes, about two minutes
    python -m bench.papers.rivals --only newton --mib 3907 --blocks 64 --repeat 3 --sklearn
    python -m bench.papers.rivals --only mttkrp tensordot --mib 1024 --blocks 16 64 256

Ours runs on four Ray workers of this machine (`--ours dask`: on the rival's own cluster). Both sides have their inputs in
their workers' memory before the clock starts, take turns, and leave results of `mttkrp` and `tensordot` where they are;
`newton` brings gradient and Hessian to the driver each step, which solves in NumPy. Dask's graphs are its own, and where it
has a second way to write an experiment its faster one counts.

Bytes between workers: ours as the workers count what they receive; Dask's from its workers' logs of incoming transfers.
"""

from __future__ import annotations

import argparse
import gc
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy

from bench import harness
from bench.papers.experiments import COLUMNS, EXPERIMENTS
from nums_core._util import format_bytes

WORKERS = 4
BYTES, SECONDS, SECONDS_AT_MOST_BLOCKS, NEWTON_SECONDS = 1 / 5, 1 / 2, 1 / 5, 1 / 2  # ours over Dask's
STEPS = 3

Program = Callable[..., tuple[Any, ...]]  # (library, *arrays) -> results


@dataclass
class Timed:
    """What one side did in one way: seconds and bytes between workers of each run, and its last results."""

    seconds: list[float] = field(default_factory=list)
    moved: list[float] = field(default_factory=list)
    results: tuple[numpy.ndarray, ...] = ()
    told: str = ""

    @property
    def median(self) -> float:
        return sorted(self.seconds)[len(self.seconds) // 2]


def newton(lib: Any, x: Any, y: Any, beta: Any) -> tuple[Any, ...]:
    """Newton's method for logistic regression, solved in NumPy at the driver. `beta` gives only its length here."""
    beta = numpy.zeros(beta.shape)
    for _ in range(STEPS):
        p = 1 / (1 + lib.np.exp(-(x @ beta)))
        gradient, hessian = lib.compute(x.T @ (y - p), x.T @ (x * (p * (1 - p))[:, None]))
        beta = beta + numpy.linalg.solve(hessian, gradient)
    return (beta,)


def _left_there(name: str) -> Program:
    return lambda lib, *arrays: lib.persist(*EXPERIMENTS[name].program(lib.np, *arrays))


def mttkrp_by_hand(lib: Any, x: Any, b: Any, c: Any) -> tuple[Any, ...]:
    """Contract the last axis first, as a product of matrices."""
    return lib.persist(((x @ c) * b).sum(axis=1))


def mttkrp_by_block(lib: Any, x: Any, b: Any, c: Any) -> tuple[Any, ...]:
    """Both products of a block at once, so that only partial results of the size of M are added up."""
    parts = lib.np.blockwise(block_mttkrp, "irjk", x, "ijk", b, "jr", c, "kr", adjust_chunks={"j": 1, "k": 1}, dtype=float)
    return lib.persist(parts.sum(axis=(2, 3)))


def block_mttkrp(x: numpy.ndarray, b: numpy.ndarray, c: numpy.ndarray) -> numpy.ndarray:
    y = (x.reshape(-1, x.shape[2]) @ c).reshape(*x.shape[:2], -1)
    return numpy.einsum("ijr,jr->ir", y, b)[:, :, None, None]


# For each experiment the ways to write it: ours is one text, and of Dask's the faster counts. `BY_BLOCK` is run by both on
# request: a kernel written for the purpose, which shows what is lost where both products are not made block by block.
Ways = dict[str, Program]
MTTKRP: tuple[Ways, Ways] = ({"": _left_there("mttkrp")}, {"einsum": _left_there("mttkrp"), "by hand": mttkrp_by_hand})
TENSORDOT: tuple[Ways, Ways] = ({"": _left_there("tensordot")},) * 2
PROGRAMS: dict[str, tuple[Ways, Ways]] = {
    "newton": ({"": newton}, {"": newton}),
    "mttkrp": MTTKRP, "mttkrp-jk": MTTKRP, "tensordot": TENSORDOT, "tensordot-jk": TENSORDOT,
}
BY_BLOCK: Ways = {"by block": mttkrp_by_block}


class Nums:
    """Our side, in the session in force."""

    def __init__(self) -> None:
        import nums_core
        import nums_core.array as np

        self.np, self.session = np, nums_core.session.current()
        self.moved, self.spent = 0.0, {"plan": 0.0, "run": 0.0, "kernels": 0.0}

    def persist(self, *arrays: Any) -> tuple[Any, ...]:
        return self._noted(self.np.persist(*arrays))

    def compute(self, *arrays: Any) -> tuple[Any, ...]:
        return self._noted(self.np.compute(*arrays))

    def _noted(self, results: Any) -> Any:
        report = self.session.last_report
        self.moved += report.bytes_moved
        self.spent["plan"] += report.optimise_s + report.plan_s
        self.spent["run"] += report.run_s
        self.spent["kernels"] += sum(s[4] - s[3] for s in report.spans) / WORKERS
        return results

    def run(self, program: Program, arrays: tuple[Any, ...]) -> tuple[Timed, Any]:
        self.moved, self.spent = 0.0, dict.fromkeys(self.spent, 0.0)
        self.session.plans.clear()  # planning is part of it
        began = time.perf_counter()
        results = program(self, *arrays)
        seconds = time.perf_counter() - began
        told = ", ".join(f"{what} {1e3 * s:.0f} ms" for what, s in self.spent.items())
        return Timed([seconds], [self.moved], (), f"{told} (a worker's share)"), results

    def values(self, results: tuple[Any, ...]) -> tuple[numpy.ndarray, ...]:
        return tuple(numpy.asarray(r) for r in results)


class Dask:
    """dask.array on the cluster of `client`."""

    def __init__(self, client: Any) -> None:
        import dask.array

        self.np, self.client = dask.array, client

    def persist(self, *arrays: Any) -> tuple[Any, ...]:
        import distributed

        kept = self.client.persist(list(arrays))
        distributed.wait(kept)
        return tuple(kept)

    def compute(self, *arrays: Any) -> tuple[Any, ...]:
        return tuple(self.client.gather(self.client.compute(list(arrays))))

    def received(self) -> float:
        """Bytes that workers had from workers so far."""
        return float(sum(self.client.run(_received).values()))

    def run(self, program: Program, arrays: tuple[Any, ...]) -> tuple[Timed, Any]:
        before = self.received()
        began = time.perf_counter()
        results = program(self, *arrays)
        seconds = time.perf_counter() - began
        return Timed([seconds], [self.received() - before]), results

    def values(self, results: tuple[Any, ...]) -> tuple[numpy.ndarray, ...]:
        return tuple(numpy.asarray(r.compute() if hasattr(r, "dask") else r) for r in results)


def _received(dask_worker: Any) -> int:
    return sum(entry["total"] for entry in dask_worker.transfer_incoming_log)


@contextmanager
def dask_cluster() -> Iterator[Any]:
    """Four workers of one thread, each a process, that never spill nor forget a transfer."""
    import dask
    import distributed

    settings = {"distributed.admin.low-level-log-length": 10**6, "distributed.worker.memory.target": False,
                "distributed.worker.memory.spill": False, "distributed.worker.memory.pause": False}
    with (dask.config.set(settings),
          distributed.LocalCluster(n_workers=WORKERS, threads_per_worker=1, memory_limit=0, dashboard_address=":0") as cluster,
          distributed.Client(cluster) as client):
        client.wait_for_workers(WORKERS)
        assert len(client.nthreads()) == WORKERS
        yield client


@contextmanager
def our_session(where: str, client: Any) -> Iterator[None]:
    """A session of four workers for a `with` block."""
    import nums_core

    if where == "ray":
        nums_core.init(ray={"num_workers": WORKERS, "log_to_driver": False})
    elif where == "dask":
        nums_core.init(dask=client)
    else:
        nums_core.init(threads=WORKERS)
    try:
        yield
    finally:
        nums_core.shutdown()


def compare(name: str, blocks: int, options: argparse.Namespace, sides: dict[str, Any]) -> dict[str, Timed]:
    """Run both sides in turn, each in all its ways; the first turn warms up. Keys: "nums", "dask", "dask by hand", ..."""
    experiment, (ours, theirs) = EXPERIMENTS[name], PROGRAMS[name]
    more = BY_BLOCK if options.by_block and ours is MTTKRP[0] else {}
    arrays = {}
    for side, lib in sides.items():
        arrays[side] = lib.persist(*experiment.arrays(lib.np, options.mib * 2.0**20, blocks))
    ways = {f"{side} {way}".strip(): (side, program)
            for side, programs in (("nums", ours | more), ("dask", theirs | more)) for way, program in programs.items()}
    timings: dict[str, Timed] = {way: Timed() for way in ways}
    for turn in range(options.repeat + 1):
        for way, (side, program) in ways.items():
            gc.collect()
            time.sleep(harness.SETTLE_S)
            timed, results = sides[side].run(program, arrays[side])
            t = timings[way]
            t.told = timed.told
            if turn:
                t.seconds += timed.seconds
                t.moved += timed.moved
            else:
                t.results = sides[side].values(results)
            del results
    return timings


def tell(name: str, blocks: int, most: int, timings: dict[str, Timed]) -> bool:
    """A line a side and the ratios; whether results agree."""
    print(f"\n{name}, {blocks} blocks")
    agrees = harness.agrees_with(timings["nums"].results)
    good = True
    for way, t in timings.items():
        wrong = agrees(t.results)
        good &= wrong is None
        print(f"  {way:<14} {harness.spread(t.seconds)}, {format_bytes(max(t.moved))} between workers"
              f"{'' if wrong is None else f'; WRONG: {wrong}'}{'; ' + t.told if t.told else ''}", flush=True)
    best = min((t for way, t in timings.items() if way.startswith("dask") and "block" not in way), key=lambda t: t.median)
    aim = NEWTON_SECONDS if name == "newton" else SECONDS_AT_MOST_BLOCKS if blocks == most else SECONDS
    seconds, n_bytes = timings["nums"].median / best.median, max(timings["nums"].moved) / max(max(best.moved), 1.0)
    print(f"  nums / dask: seconds {seconds:.3f} (aim {aim:.2f}{_missed(seconds, aim)}), bytes {n_bytes:.3f} "
          f"(aim {BYTES:.2f}{_missed(n_bytes, BYTES)})", flush=True)
    return good


def _missed(ratio: float, aim: float) -> str:
    return "" if ratio <= aim else "; missed"


def with_sklearn(mib: int, blocks: int) -> None:
    """The regression in one process: scikit-learn's Newton, as many steps, on the same arrays."""
    from sklearn.linear_model import LogisticRegression

    import nums_core.array as np
    from nums_core import session
    from nums_core.runtime.executors.local import LocalExecutor

    with session.use(LocalExecutor(1, 2**35)):
        lazy = EXPERIMENTS["newton"].arrays(np, mib * 2.0**20, blocks)
        x, y, _ = np.compute(*lazy)
    model = LogisticRegression(solver="newton-cholesky", C=numpy.inf, fit_intercept=False, max_iter=STEPS, tol=1e-30)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it stopped after as many steps as it was told to
        model.fit(x, y)
    seconds = time.perf_counter() - began
    print(f"  scikit-learn, one process, {STEPS} steps: {seconds:8.3f} s on {len(x)} x {COLUMNS}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=list(PROGRAMS), metavar="NAME")
    parser.add_argument("--mib", type=int, default=64, help="of the largest input")
    parser.add_argument("--blocks", nargs="+", type=int, default=[16, 64])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--ours", choices=("ray", "dask", "threads"), default="ray", help="where ours runs")
    parser.add_argument("--by-block", action="store_true", help="also MTTKRP by a kernel of its own, on both sides")
    parser.add_argument("--sklearn", action="store_true", help="time scikit-learn's Newton too, after the others")
    options = parser.parse_args(arguments)
    print(harness.heading())
    good, results = True, {}
    with dask_cluster() as client, our_session(options.ours, client):
        sides = {"nums": Nums(), "dask": Dask(client)}
        for name in options.only:
            for blocks in options.blocks:
                timings = compare(name, blocks, options, sides)
                good &= tell(name, blocks, max(options.blocks), timings)
                results[f"{name} {blocks}"] = {way: {"seconds": t.seconds, "moved": t.moved} for way, t in timings.items()}
    if options.sklearn and "newton" in options.only:
        with_sklearn(options.mib, options.blocks[0])
    harness.record("papers_rivals", mib=options.mib, ours=options.ours, results=results)
    return int(not good)


if __name__ == "__main__":
    raise SystemExit(main())
