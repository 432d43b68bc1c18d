"""Report: what a run did, beside what was predicted. Text here; picture and Chrome trace in `runtime.trace`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nums_core._util import format_bytes, format_seconds


@dataclass
class Report:
    """Figures of one run.

    Attributes
    ----------
    optimise_s, plan_s, run_s : float, s
        Rewriting the expressions and lowering them; scheduling; running. The first two are 0 when a plan was reused.
    plan_reused : bool
    n_tasks : int
    flop : float
    bytes_moved : float, bytes
        Between workers.
    bytes_in, bytes_out : float64 arrays, shape (n_workers,), bytes
        Moved into each worker, and out of the worker that made it. (Who hands on the second copy is the backend's business.)
    spilled_bytes, unspilled_bytes : float, bytes
        Written to and read back from the spill folder.
    peak_bytes : float64 array, shape (n_workers,), bytes
        Most that blocks made by the run took at once on each worker (measured where the executor tracks it).
    predicted_s : float, s
    predicted_peak_bytes : float64 array, shape (n_workers,), bytes
    policy : str
    spans : list of (label, worker, thread, start_s, stop_s, n_tasks)
        Super-tasks as they ran, from the run's start.
    memory : list of (worker, time_s, bytes)
        Blocks' bytes over time.
    interruptions : int
        Attempts that a worker's death ended before their time.
    recovered_tasks : int
        Tasks that ran on top of the plan's, to make again what was lost.
    busy_s, predicted_busy_s : dict worker -> s
        Seconds in super-tasks, all threads together, and what had been predicted for the same ones.
    slow_workers : dict worker -> float
        Workers that took far longer for what was predicted than the others, and how many times as long.
    """

    optimise_s: float = 0.0
    plan_s: float = 0.0
    run_s: float = 0.0
    plan_reused: bool = False
    n_tasks: int = 0
    flop: float = 0.0
    bytes_moved: float = 0.0
    bytes_in: np.ndarray = field(default_factory=lambda: np.zeros(1))
    bytes_out: np.ndarray = field(default_factory=lambda: np.zeros(1))
    spilled_bytes: float = 0.0
    unspilled_bytes: float = 0.0
    peak_bytes: np.ndarray = field(default_factory=lambda: np.zeros(1))
    predicted_s: float = 0.0
    predicted_peak_bytes: np.ndarray = field(default_factory=lambda: np.zeros(1))
    policy: str = ""
    spans: list[tuple[str, int, int, float, float, int]] = field(default_factory=list)
    memory: list[tuple[int, float, float]] = field(default_factory=list)
    interruptions: int = 0
    recovered_tasks: int = 0
    busy_s: dict[int, float] = field(default_factory=dict)
    predicted_busy_s: dict[int, float] = field(default_factory=dict)
    slow_workers: dict[int, float] = field(default_factory=dict)

    def text(self) -> str:
        """A few lines for people."""
        plan = "plan reused" if self.plan_reused else (
            f"optimise {format_seconds(self.optimise_s)}, plan {format_seconds(self.plan_s)}")
        lines = [
            f"{self.n_tasks} tasks in {format_seconds(self.run_s)} ({plan}; policy {self.policy or 'single'})",
            f"predicted {format_seconds(self.predicted_s)}; {self.flop:.3g} flop",
            f"moved between workers {format_bytes(self.bytes_moved)}; spilled {format_bytes(self.spilled_bytes)}, "
            f"read back {format_bytes(self.unspilled_bytes)}",
            f"peak on the fullest worker {format_bytes(float(self.peak_bytes.max(initial=0.0)))} "
            f"(predicted {format_bytes(float(self.predicted_peak_bytes.max(initial=0.0)))})",
        ]
        if self.interruptions or self.recovered_tasks:
            lines.append(f"workers were lost: {self.interruptions} attempts cut short, {self.recovered_tasks} tasks run again")
        lines += [f"worker {w} took {times:.1f} times as long as the others for what was predicted: look at its machine"
                  for w, times in sorted(self.slow_workers.items())]
        return "\n".join(lines)

    __str__ = text


SLOW = 2.0
SLOW_S = 0.1  # of measured work, for a worker to be judged


def slow_workers(busy_s: dict[int, float], predicted_s: dict[int, float]) -> dict[int, float]:
    """Workers whose measured seconds a predicted second are more than `SLOW` times the median of the other workers'.

    The model may be wrong for all of them alike; only what sets one apart counts. Those that worked less than `SLOW_S` are
    neither judged nor compared with.
    """
    rate = {w: s / predicted_s[w] for w, s in busy_s.items() if s >= SLOW_S and predicted_s.get(w, 0.0) > 0}
    times = {w: r / float(np.median([x for v, x in rate.items() if v != w])) for w, r in rate.items() if len(rate) > 1}
    return {w: t for w, t in times.items() if t > SLOW}
