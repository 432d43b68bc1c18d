"""A progress bar on runs longer than a second, silent where output is not a terminal."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from nums_core import config
from nums_core._util import format_seconds

WAIT_S = 1.0
EVERY_S = 0.1


class Progress:
    """Shows how much of the estimated work is done. `step(seconds)` after each super-task; `close()` at the end."""

    def __init__(self, total_s: float, n_tasks: int, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        mode = config.get().progress
        self.on = mode == "on" or (mode == "auto" and self.stream.isatty())
        self.total_s, self.n_tasks, self.done_s = max(total_s, 1e-12), n_tasks, 0.0
        self.start = time.perf_counter()
        self.shown = 0.0

    def step(self, seconds: float) -> None:
        self.done_s += seconds
        if not self.on:
            return
        now = time.perf_counter()
        if now - self.start > WAIT_S and now - self.shown > EVERY_S:
            self.shown = now
            part = min(self.done_s / self.total_s, 1.0)
            bar = "#" * round(30 * part)
            elapsed = now - self.start
            left = format_seconds(elapsed * (1 - part) / part) if part > 0.01 else "?"
            self.stream.write(f"\r[{bar:<30}] {100 * part:3.0f} %  {self.n_tasks} tasks  "
                              f"{format_seconds(elapsed)}, {left} left ")
            self.stream.flush()

    def close(self) -> None:
        if self.shown:
            self.stream.write("\r" + " " * 79 + "\r")
            self.stream.flush()
            self.shown = 0.0
