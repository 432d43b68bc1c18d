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
        return "\n".join(lines)

    __str__ = text
