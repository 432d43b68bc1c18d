"""Recovery: what a dead worker took with it is made again, everything else is kept.

A *goal* is a plan with what is still wanted of it: all of a run that begins, the lost blocks of a persisted array. It is
attempted until nothing is missing:

    1  walk back from the missing blocks; stop at blocks that live somewhere, at leaves in the driver's memory, and at
       kept blocks that are lost themselves: those become goals of their own, to be reached before (`lineage`)
    2  run that part of each plan, the oldest first; every task on its worker, with its own operands, so bits are the same
    3  if a worker dies meanwhile: let the others come to the end of what they can do, start the dead one again, keep
       what the others have made (`Goal.salvage`), and go back to 1

A run in which nobody dies passes through none of this but one look at its inputs.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from nums_core import config
from nums_core.errors import WorkerLostError
from nums_core.runtime.executors.base import Output
from nums_core.runtime.executors.calls import ClusterRun
from nums_core.runtime.executors.clustered import ClusteredExecutor, RemoteHeld, Share, WorkerGone
from nums_core.runtime.executors.goal import Goal
from nums_core.runtime.lineage import Cut, Making, Origin, Pinned, backward, inputs_read, part_of
from nums_core.runtime.plan import Plan
from nums_core.runtime.report import Report, slow_workers
from nums_core.runtime.wire import unpack

TRIES = 3  # attempts in a row that bring a run no further
MOST_TRIES = 30


def run_plan(executor: ClusteredExecutor, plan: Plan, inputs: Sequence[Any], outputs: Sequence[Output],
             donate: frozenset[int]) -> tuple[list[Any], Report]:
    """Run a whole plan."""
    keeps = any(o.keep for o in outputs)
    making = Making(plan, tuple(outputs), tuple(_origin(executor, x, keeps) for x in inputs))
    goal = Goal(executor, making, donate, new=True)
    known = making if keeps and making.depth <= config.get().lineage_depth else None
    for i, o in enumerate(outputs):
        goal.want(i, True)
        if o.keep:
            goal.kept[i] = executor.new_held(goal.home(i), known, i)
    recovery = Recovery(executor, goal)
    recovery.go()
    if len(recovery.runs) > 1:
        executor.free(inputs[slot] for slot in donate)  # made again for this run, on behalf of a second attempt
    return [goal.result(i) for i in range(len(outputs))], recovery.report()


def restore(executor: ClusteredExecutor, held: RemoteHeld) -> None:
    """Make blocks that are lost again."""
    lost = ~executor.alive(held)
    if lost.any():
        origin = held.origin
        goal = Goal(executor, _known(origin))
        goal.kept[origin.output] = held
        goal.want(origin.output, lost)
        Recovery(executor, goal).go()


def fetch(executor: ClusteredExecutor, held: RemoteHeld) -> list[Any]:
    """All blocks of a held array, in the driver's memory."""
    blocks: dict[int, Any] = {}
    tries = Tries()
    while len(blocks) < len(held.home):
        restore(executor, held)
        missing = np.setdiff1d(np.arange(len(held.home)), list(blocks))
        asked = [(w, rows, executor._ask(w, "lend", held.number, rows))
                 for w in np.unique(held.home[missing]).tolist() for rows in [missing[held.home[missing] == w]]]
        gone: WorkerGone | None = None
        for w, rows, ref in asked:
            try:
                payload = executor.value(ref, w)
                if payload is None:
                    raise WorkerGone(f"worker {w} was started again")
                blocks.update(zip(rows.tolist(), unpack(payload), strict=True))
            except WorkerGone as error:
                gone = error
        if gone is not None:
            executor.replace_dead()
            tries.count(len(held.home) - len(blocks), gone)
    return [blocks[r] for r in range(len(held.home))]


def _origin(executor: ClusteredExecutor, value: Any, keeps: bool) -> Origin | Pinned:
    if isinstance(value, RemoteHeld) and value.owner is executor:
        return value.origin
    return executor.pins.pin(value, config.get().lineage_bytes) if keeps else Pinned(value, 0.0)


def _known(origin: Origin) -> Making:
    if origin.making is None:
        raise WorkerLostError(
            "a worker went away with blocks of a persisted array, and how they were made is not known any more: they end a "
            f"chain of more than {config.get().lineage_depth} runs (config lineage_depth).\n  Compute that array again from "
            "its sources (y = f(x).persist()); in long loops keep a copy on disk now and then: x = x.checkpoint(path)")
    return origin.making


class Tries:
    """Counts attempts, and gives up where they lead nowhere."""

    def __init__(self) -> None:
        self.tries = self.stuck = 0
        self.left = -1

    def count(self, left: int, gone: WorkerGone) -> None:
        """`left`: how much is still to be done after an attempt that failed."""
        self.tries += 1
        self.stuck = self.stuck + 1 if left >= self.left >= 0 else 0
        self.left = left
        if self.stuck >= TRIES - 1 or self.tries >= MOST_TRIES:
            raise WorkerLostError(
                f"{gone}\n  The run was tried {self.tries} times, and the last {self.stuck + 1} brought it no further. If "
                "workers are killed for memory, use smaller chunks (x.rechunk(...), or config block_bytes) or a lower "
                "memory_bytes, so that blocks are spilled.") from gone


class Recovery:
    """The attempts to reach a goal, and what has to be reached before it."""

    def __init__(self, executor: ClusteredExecutor, top: Goal) -> None:
        self.executor, self.top = executor, top
        self.goals: dict[Making, Goal] = {top.making: top}
        self.cuts: dict[Any, tuple[Cut, Share]] = {}
        self.runs: list[ClusterRun] = []
        self.last_user: dict[Goal, int] = {}

    def go(self) -> None:
        """Raises WorkerLostError where it cannot be reached; what kernels raise, and KeyboardInterrupt, as they are."""
        tries = Tries()
        gone: WorkerGone | None = None
        while True:
            smooth = self.top.new and not self._lost_inputs()
            with nullcontext() if smooth else self.executor.recovering:
                todo = [self.top] if smooth else self._todo()
                if gone is not None:
                    tries.count(sum(g.left for g in todo), gone)
                try:
                    for k, goal in enumerate(todo):
                        self._attempt(goal)
                        self._let_go(k)
                    return
                except WorkerGone as error:
                    gone = error

    def _lost_inputs(self) -> bool:
        if not self.executor.deaths:
            return False
        helds = [o.held() for o in self.top.making.inputs if isinstance(o, Origin)]
        return any(h is not None and not self.executor.alive(h).all() for h in helds)

    # -- what has to be done ------------------------------------------------------------------------------------------

    def _todo(self) -> list[Goal]:
        """The goals with something missing, in an order in which they can be reached.

        What went into a making is older than itself, so that the youngest goal met has all its readers behind it.
        """
        for goal in self.goals.values():
            if goal is not self.top:
                goal.wanted.clear()
        todo: list[Goal] = []
        users: dict[Goal, list[Goal]] = {}
        tick = itertools.count()
        heap = [(-self.top.making.serial, next(tick), self.top)]
        while heap:
            goal = heapq.heappop(heap)[2]
            for before in self._before(goal):
                if before not in users:
                    heapq.heappush(heap, (-before.making.serial, next(tick), before))
                users.setdefault(before, []).append(goal)
            todo.append(goal)
        todo.reverse()
        place = {goal: k for k, goal in enumerate(todo)}
        self.last_user = {goal: max(place[u] for u in reads) for goal, reads in users.items()}
        return todo

    def _before(self, goal: Goal) -> Iterable[Goal]:
        """Goals whose blocks a goal needs, with what it needs of them."""
        missing, (there, _) = goal.missing(), goal.there()
        have = (there >= 0) & ~missing
        need = backward(goal.graph, missing, have)
        goal.left = int((need & ~have & ~goal.graph.is_leaf).sum())
        found: list[Goal] = []
        for slot, rows in inputs_read(goal.graph, need & ~have):
            source = goal.making.inputs[slot]
            if isinstance(source, Pinned):
                if source.get() is None:
                    raise WorkerLostError(
                        "a worker went away with blocks of a persisted array that was made from an array of this program's, "
                        f"which is gone too: only {config.get().lineage_bytes} bytes of such arrays are held on to (config "
                        "lineage_bytes).\n  Keep a reference to the source, or a copy on disk: x = x.checkpoint(path)")
                continue
            held = self._held(source)
            lost = rows if held is None else rows & ~self.executor.alive(held)
            if lost.any():
                found.append(self._goal(source, lost))
        return dict.fromkeys(found)

    def _held(self, origin: Origin) -> RemoteHeld | None:
        """The handle of kept blocks, or of what is made in its place."""
        held = origin.held()
        if held is None and origin.making in self.goals:
            held = self.goals[origin.making].kept.get(origin.output)
        return held

    def _goal(self, origin: Origin, rows: np.ndarray) -> Goal:
        making = _known(origin)
        goal = self.goals.get(making)
        if goal is None:
            goal = self.goals[making] = Goal(self.executor, making)
        if origin.output not in goal.kept:
            held = origin.held()
            goal.kept[origin.output] = held if held is not None else self.executor.new_held(
                goal.home(origin.output), None, -1)
        goal.want(origin.output, rows)
        return goal

    # -- doing it -----------------------------------------------------------------------------------------------------

    def _attempt(self, goal: Goal) -> None:
        cut: Cut | None = None
        if goal.new:
            share = self.executor._share(goal.plan, goal.making.outputs)
            donate = goal.donate
        else:
            missing = goal.missing()
            if not missing.any():
                return
            cut, share = self._cut(goal, missing)
            donate = frozenset()
        outputs = range(len(goal.making.outputs)) if cut is None else cut.outputs
        keep = {j: goal.kept[i].number for j, i in enumerate(outputs) if i in goal.kept}
        run = ClusterRun(self.executor, goal, share, self._inputs(goal), keep, donate, None if cut is None else cut.ids)
        self.runs.append(run)
        goal.new = False
        run.go()
        for status in run.statuses.values():
            for j, found in status.kept.items():
                goal.note(outputs[j], found, run.generation)
        if run.gone is not None:
            try:
                self.executor.replace_dead()
                goal.salvage(run)
            except BaseException:
                run.forget()
                raise
            raise run.gone

    def _cut(self, goal: Goal, missing: np.ndarray) -> tuple[Cut, Share]:
        """The part of a goal's plan that is to be run; steps of a loop have the same one."""
        there, stores = goal.there()
        homes = [s.held.home.tobytes() for s in stores]
        key = (goal.plan, missing.tobytes(), there.tobytes(), *homes, *[s.slot for s in stores])
        if key not in self.cuts:
            outputs = [i for i in range(len(goal.making.outputs)) if i in goal.wanted]
            cut = part_of(goal.plan, missing, there, stores, outputs)
            share = self.executor._share(cut.plan, [goal.making.outputs[i] for i in cut.outputs])
            for w, part in share.partition.parts.items():
                share.partition.parts[w] = part._replace(kept=tuple(
                    k._replace(rows=cut.rows[k.number][k.rows]) for k in part.kept))
            self.cuts[key] = cut, share
        return self.cuts[key]

    def _inputs(self, goal: Goal) -> list[Any]:
        """What the slots are bound to: the plan's, then `goal.saved`, then the outputs as far as they are there."""
        bound = [x.get() if isinstance(x, Pinned) else self._held(x) for x in goal.making.inputs]
        return [*bound, goal.saved, *[goal.kept.get(i) for i in range(len(goal.making.outputs))]]

    def _let_go(self, k: int) -> None:
        """Drop what was made in passing for goals that are reached."""
        for goal, last in list(self.last_user.items()):
            if last == k and goal is not self.top:
                self.goals.pop(goal.making, None)
                del self.last_user[goal]

    def report(self) -> Report:
        """What all attempts did, beside what was predicted of the goal's plan."""
        plan, first, n = self.top.plan, self.runs[0], self.executor.cluster.n_workers
        report = Report(n_tasks=int((~plan.graph.is_leaf).sum()), flop=float(plan.graph.flop.sum()), policy=plan.policy,
                        peak_bytes=np.zeros(n), bytes_in=np.zeros(n), bytes_out=np.zeros(n))
        for run in self.runs:
            run.add_to(report, run.wall_s - first.wall_s)
        report.run_s = self.runs[-1].wall_s - first.wall_s + self.runs[-1].run_s
        report.recovered_tasks = sum(n for *_, n in report.spans) - report.n_tasks if len(self.runs) > 1 else 0
        report.interruptions = sum(run.gone is not None for run in self.runs)
        report.slow_workers = slow_workers(report.busy_s, report.predicted_busy_s)
        if plan.prediction is not None:
            report.predicted_s = plan.prediction.seconds
            report.predicted_peak_bytes = plan.prediction.peak_bytes
        return report
