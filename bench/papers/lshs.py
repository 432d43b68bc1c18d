"""What a plan saves: the experiments of "NumS" with ours, with layout rules, and with Ray's own placement.

    python -m bench.papers.lshs                                  # a cluster of 4 simulated nodes, small sizes
    python -m bench.papers.lshs --nodes 8 --only newton xty --mib 256 --blocks 16 64 256 --pictures
    python -m bench.papers.lshs --simulate                       # no Ray: 16 to 1,024 described nodes, arrays of 1 TB
    python -m bench.papers.lshs --simulate --quick               # seconds; what the tests run

On Ray, each experiment runs in every arm in turn (see `arms`), `--repeat` times and once to warm up. A line an arm:

    moved     bytes between nodes. Our arms: as the workers counted what they received, which must equal the plan. Ray's
              tasks: by Ray's records of where each block has copies, sum of (copies - 1) * size, in the warm-up, where
              nothing is freed before the end. Blocks under 100 KB travel inside Ray's replies and are not in it.
    fullest   most bytes on any node: inputs, blocks made, copies. Our arms: what the workers count, and their stores;
              Ray's tasks: the stores alone, sampled each 50 ms (what tasks take for themselves is left out).
    seconds   of running, median [least..most]; planning is told apart, and not charged to Ray's tasks.

Ray's own per-task time is the same on any network, so ratios of seconds grow with the number of blocks. All nodes share the
cores and memory of one machine here; `--simulate` says what a cluster of real ones would do by our model of it.
"""

from __future__ import annotations

import argparse
import math
import statistics
from typing import Any

import numpy

from bench import harness
from bench.papers.arms import ARMS, Arm, Sample, cluster_of_arms, measure
from bench.papers.experiments import EXPERIMENTS
from nums_core._util import format_bytes, format_seconds

TARGETS = {"bytes": 1 / 2, "fullest node": 1 / 4, "seconds": 1 / 10}  # of Ray's own placement
DISPATCH_US = 600.0  # a task handed over by one driver; see `ray microbenchmark`, or --dispatch-us


def on_ray(options: argparse.Namespace) -> bool:
    """All experiments in all arms; whether every figure that must be exact is."""
    good, results = True, {}
    for nodes in options.nodes:
        with cluster_of_arms(nodes, options.store_mib * 2**20, options.arms) as (arms, stores):
            for name in options.only:
                for blocks in options.blocks:
                    samples = take_turns(arms, name, options.mib * 2.0**20, blocks, stores, options.repeat)
                    print(f"\n{name}, {nodes} nodes, {options.mib} MiB in {blocks} blocks", flush=True)
                    good &= tell(samples)
                    if "ray" in samples:
                        print(f"  {models(samples['ray'][0])}", flush=True)
                    results[f"{name} {nodes} {blocks}"] = {arm: record(of_arm) for arm, of_arm in samples.items()}
                    if options.pictures:
                        draw(arms, name, options.mib * 2.0**20, blocks, stores, f"{name}-{nodes}-{blocks}")
    harness.record("papers_lshs", mib=options.mib, results=results)
    return good


def take_turns(arms: list[Arm], name: str, n_bytes: float, blocks: int, stores: Any, repeat: int) -> dict[str, list[Sample]]:
    """Samples of each arm, the warm-up first; the arms take turns."""
    samples: dict[str, list[Sample]] = {arm.name: [] for arm in arms}
    for turn in range(repeat + 1):
        for arm in arms[turn % len(arms):] + arms[:turn % len(arms)]:
            samples[arm.name].append(measure(arm, EXPERIMENTS[name], n_bytes, blocks, stores, hold=turn == 0))
    return samples


def tell(samples: dict[str, list[Sample]]) -> bool:
    """A line an arm, the ratios to Ray's own placement, and what must hold: equal results, and bytes as planned."""
    first = next(iter(samples.values()))[0].checks
    good = True
    for name, of_arm in samples.items():
        print(f"  {name:<10} {line(of_arm)}", flush=True)
        good &= all(numpy.allclose(s.checks, first, rtol=1e-9) for s in of_arm)
        if not of_arm[0].by_task:
            good &= all(s.moved == s.planned for s in of_arm)
    if "portfolio" in samples and "ray" in samples:
        for ratio in ratios(samples["portfolio"], samples["ray"]):
            print(f"  {ratio}", flush=True)
    print(f"  results agree, bytes as planned: {good}", flush=True)
    return good


def models(sample: Sample) -> str:
    """What Ray moved, beside the two models of placement without a plan that `--simulate` uses."""
    from bench.papers.simulated import UNPLANNED, unplanned

    moved = {kind: sum(unplanned(run.plan, kind).bytes_moved for run in sample.runs) for kind in UNPLANNED}
    return (f"Ray moved {format_bytes(sample.moved)}; by the models, tasks dealt at random move "
            f"{format_bytes(moved['dealt'])}, at their nearest {format_bytes(moved['nearest'])}")


def line(of_arm: list[Sample]) -> str:
    timed, first = of_arm[1:] or of_arm, of_arm[0]
    seconds = harness.spread([s.seconds for s in timed]).strip()
    said = f"moved {format_bytes(first.moved)}, fullest {format_bytes(fullest(timed))}, {seconds}"
    if first.by_task:
        return f"{said}; {first.n_tasks} tasks"
    plan_us = 1e6 * first.plan_s / max(first.n_tasks, 1)
    return (f"{said}; planned {format_bytes(first.planned)}, predicted {format_bytes(first.predicted_peak)}, "
            f"{format_seconds(first.predicted_s)}; {first.n_tasks} tasks, plan {plan_us:.0f} us a task")


def fullest(of_arm: list[Sample]) -> float:
    """Bytes on the fullest node, median over the samples."""
    return statistics.median(float(s.peak.max()) for s in of_arm)


def ratios(ours: list[Sample], theirs: list[Sample]) -> list[str]:
    """Ours over Ray's for each target, and where one is missed, what stands against it."""
    a, b = ours[1:] or ours, theirs[1:] or theirs
    found = {"bytes": _over(ours[0].moved, theirs[0].moved), "fullest node": _over(fullest(a), fullest(b)),
             "seconds": statistics.median(s.seconds for s in a) / statistics.median(s.seconds for s in b)}
    nodes = len(a[0].peak)
    kernels = statistics.median(s.kernel_s / (nodes * s.seconds) for s in a)
    why = {
        "bytes": "what Ray leaves in place, ours must move too",
        "fullest node": f"{nodes} nodes: inputs spread evenly are 1/{nodes} of all, so Ray would have to put all on one",
        "seconds": f"kernels, which both run, keep {nodes} workers {100 * kernels:.0f} % busy in ours; see --simulate",
    }
    return [f"portfolio / ray, {what}: {ratio:.3f} (aim {TARGETS[what]:.2f}"
            f"{'' if ratio <= TARGETS[what] else '; missed: ' + why[what]})" for what, ratio in found.items()]


def _over(a: float, b: float) -> float:
    return a / b if b else (0.0 if a == 0 else math.inf)


def record(of_arm: list[Sample]) -> dict[str, Any]:
    return {"seconds": [s.seconds for s in of_arm], "moved": [s.moved for s in of_arm],
            "planned": of_arm[0].planned, "peak": [s.peak.tolist() for s in of_arm], "n_tasks": of_arm[0].n_tasks,
            "plan_s": of_arm[0].plan_s, "predicted_s": of_arm[0].predicted_s, "kernel_s": [s.kernel_s for s in of_arm]}


def draw(arms: list[Arm], name: str, n_bytes: float, blocks: int, stores: Any, stem: str) -> None:
    """A picture of each arm, from one more run."""
    from bench.papers import pictures

    for arm in arms:
        sample = measure(arm, EXPERIMENTS[name], n_bytes, blocks, stores, observe=True)
        path = harness.OUT / f"lshs-{stem}-{arm.name.replace(' ', '-')}.png"
        pictures.draw(pictures.measured(arm, sample), path, f"{name}, {blocks} blocks, {arm.name}")
        print(f"  picture: {path}", flush=True)


def in_simulation(options: argparse.Namespace) -> bool:
    """All experiments on described clusters; whether the portfolio is nowhere above its members."""
    from bench.papers import simulated

    good = True
    for nodes in options.nodes:
        cluster = simulated.node_model(nodes)
        for name in options.only:
            blocks = [16] if options.quick else options.blocks or [simulated.sizes(name, cluster)]
            for n in blocks:
                rows = simulated.report(name, cluster, options.terabytes * 1e12, n, options.dispatch_us)
                scores = {r.name: r.loads.F for r in rows}
                good &= scores["portfolio"] <= min(scores["layout"], scores["lshs"]) * (1 + 1e-12)
                if options.pictures:
                    draw_simulated(rows, f"{name}-{nodes}-{n}")
    print(f"\nthe portfolio is never above its members: {good}")
    return good


def draw_simulated(rows: list[Any], stem: str) -> None:
    from bench.papers import pictures

    for row in rows:
        path = harness.OUT / f"simulated-{stem}-{row.name}.png"
        pictures.draw(pictures.replayed(row.plan), path, f"{stem}, {row.name} (simulated)")
        print(f"  picture: {path}", flush=True)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS), metavar="NAME")
    parser.add_argument("--nodes", nargs="+", type=int, help="default: 4; simulated 16 64 256 1024")
    parser.add_argument("--blocks", nargs="+", type=int, help="of the largest input; default: 16 64; simulated one a core")
    parser.add_argument("--mib", type=int, default=64, help="of the largest input, on Ray")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["portfolio", "layout", "ray"], metavar="ARM")
    parser.add_argument("--store-mib", type=int, default=1024, help="of each node's object store")
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--quick", action="store_true", help="with --simulate: 4 nodes, 16 blocks")
    parser.add_argument("--terabytes", type=float, default=1.0, help="of the largest input, in simulation")
    parser.add_argument("--dispatch-us", type=float, default=DISPATCH_US, help="of Ray for a task, in simulation")
    parser.add_argument("--pictures", action="store_true", help="load of each node over time, into bench/out")
    options = parser.parse_args(arguments)
    if options.nodes is None:
        options.nodes = [4] if options.quick or not options.simulate else [16, 64, 256, 1024]
    if options.blocks is None and not options.simulate:
        options.blocks = [16, 64]
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    print(harness.heading())
    harness.OUT.mkdir(exist_ok=True)
    return int(not (in_simulation(options) if options.simulate else on_ray(options)))


if __name__ == "__main__":
    raise SystemExit(main())
