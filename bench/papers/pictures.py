"""Load of each node over time: bytes held, bytes received and bytes sent, as a picture of three panels.

    draw(replayed(plan), "simulated.png", "...")        a plan in virtual time
    draw(measured(arm, sample), "measured.png", "...")  a run on Ray

Of a run on Ray the memory is measured. When a copy crossed is worked out: at the latest when the first task that reads it
on its node began.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

from bench.papers.arms import Arm, Sample
from nums_core.runtime.plan import Plan
from nums_core.scheduler.events import Replay
from nums_core.scheduler.moves import Moves, list_moves
from nums_core.scheduler.simulate import task_seconds

MIB = 2.0**20
Steps = list[tuple[float, int, float]]  # (seconds, node, bytes there from then on)


@dataclass
class Load:
    """What happened on `nodes` nodes: each list holds levels, not changes."""

    nodes: int
    memory: Steps = field(default_factory=list)
    into: Steps = field(default_factory=list)
    out: Steps = field(default_factory=list)


def summed(changes: Iterable[tuple[float, int, float]]) -> Steps:
    """Levels from changes."""
    level: dict[int, float] = {}
    steps: Steps = []
    for at, node, n_bytes in sorted(changes):
        level[node] = level.get(node, 0.0) + n_bytes
        steps.append((at, node, level[node]))
    return steps


class _Recorded(Replay):
    """A replay that writes down levels of memory and bytes moved, by worker."""

    def run(self) -> float:
        self.memory: Steps = []
        self.into: Steps = []
        self.out: Steps = []
        return super().run()

    def _done(self, t: int, now: float) -> None:
        super()._done(t, now)
        self.memory.append((now, self.worker[t], self.alive[self.worker[t]]))

    def _arrived(self, m: int, now: float) -> None:
        super()._arrived(m, now)
        size, src, dst = self.size[self.block[m]], self.src[m], self.dst[m]
        self.into.append((now, dst, size))
        self.out.append((now, src, size))
        self.memory += [(now, w, self.alive[w]) for w in (src, dst)]


def replayed(plan: Plan) -> Load:
    """A plan in virtual time; workers of a node are taken together only where there is one of them."""
    moves = Moves(plan.move_block, plan.move_src, plan.move_dst)
    replay = _Recorded(plan.graph, plan.worker, plan.cluster, moves, plan.order,
                       task_seconds(plan.graph, plan.worker, plan.cluster))
    replay.run()
    return Load(plan.cluster.n_workers, replay.memory, summed(replay.into), summed(replay.out))


def measured(arm: Arm, sample: Sample) -> Load:
    """A run on Ray. Memory: Ray's stores, or in our arms the workers' own blocks and the inputs."""
    load = Load(len(sample.peak))
    into: Steps = []
    out: Steps = []
    began_s = 0.0
    if arm.tasks is not None:
        load.memory = [(at, node, float(n)) for at, used in sample.watch.samples for node, n in enumerate(used)]
    for k, run in enumerate(sample.runs):
        if arm.tasks is not None:
            where = {t: [arm.nodes[n] for n in r.node_ids] for t, r in sample.observed[k].items()}
            start = {t: r.start_s - sample.watch.wall_s for t, r in sample.observed[k].items()}
        else:
            load.memory += [(began_s + at, int(w), n + sample.inputs[w]) for w, at, n in run.report.memory]
            where, start = {}, {t: began_s + at for t, at in starts(run.plan, run.report.spans).items()}
        crossed(run.plan, where, start, into, out)
        began_s += run.report.run_s
    load.into, load.out = summed(into), summed(out)
    return load


def starts(plan: Plan, spans: list[Any]) -> dict[int, float]:
    """When each task began, as far as the spans of its worker tell: they hold the worker's tasks in order."""
    order = plan.order[~plan.graph.is_leaf[plan.order]]
    out: dict[int, float] = {}
    for w in range(plan.cluster.n_workers):
        mine = iter(order[plan.worker[order] == w].tolist())
        for _, _, _, start, _, n_tasks in sorted((s for s in spans if s[1] == w), key=lambda s: s[3]):
            out.update((t, start) for t in itertools.islice(mine, n_tasks))
    return out


def crossed(plan: Plan, where: dict[int, list[int]], start: dict[int, float], into: Steps, out: Steps) -> None:
    """Add each block's arrival at a node, when its first reader there began, to what came in and what went out.

    `where` names the nodes that hold a block, the maker's first, where they are not the plan's.
    """
    g = plan.graph
    worker = plan.worker.copy()
    for t, nodes in where.items():
        worker[t] = nodes[0] if nodes else worker[t]
    moves = list_moves(g, worker, plan.cluster, source="first")
    first: dict[tuple[int, int], float] = {}
    for t, b in zip(g.consumer_of_edge.tolist(), g.in_idx.tolist(), strict=True):
        key = b, int(worker[t])
        first[key] = min(first.get(key, numpy.inf), start.get(t, 0.0))
    for b, src, dst in zip(moves.block.tolist(), moves.src.tolist(), moves.dst.tolist(), strict=True):
        if dst not in where.get(b, ()):
            into.append((first[b, dst], dst, float(g.out_bytes[b])))
            out.append((first[b, dst], src, float(g.out_bytes[b])))


def draw(load: Load, path: Path, title: str) -> None:
    """Write the picture; its ending chooses the format."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from nums_core.runtime.trace import _replacing

    figure = Figure(figsize=(9, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = zip(figure.subplots(3, 1, sharex=True), ("held", "received", "sent"),
                 (load.memory, load.into, load.out), strict=True)
    end_s = max((at for steps in (load.memory, load.into, load.out) for at, *_ in steps), default=0.0)
    for axes, name, steps in panels:
        for node in range(load.nodes):
            mine = sorted((at, n / MIB) for at, w, n in steps if w == node) or [(0.0, 0.0)]
            line = [(0.0, mine[0][1] if name == "held" else 0.0), *mine, (end_s, mine[-1][1])]
            axes.step(*zip(*line, strict=True), where="post", linewidth=0.9, label=f"node {node}")
        axes.set_ylabel(f"{name}, MiB")
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
    axes.set_xlabel("seconds")
    if load.nodes <= 8:
        axes.legend(loc="upper left", fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    with _replacing(str(path)) as part:
        figure.savefig(part, dpi=120, format=path.suffix.lstrip(".") or "png")
