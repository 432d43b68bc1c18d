"""The training loop: steps, metrics, a progress line, checkpoints, and what to do when something stops it.

    trainer = Trainer(loss, model, AdamW(rate=3e-4), batches, checkpoints=Checkpoints("run"), save_every=100)
    trainer.restore()                                # if there is something to go on from
    trainer.run(1000)

A run that was stopped and taken up again from its checkpoint has the same bits as one that was never stopped.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import numpy as np

from nums_core import config, session
from nums_core._util import format_seconds
from nums_core.array.array import Array
from nums_core.errors import ConfigError, TrainingError
from nums_core.nn.checkpoints import Checkpoints
from nums_core.nn.init import Keys
from nums_core.nn.optim.optimiser import Optimiser
from nums_core.nn.optim.precision import Precision
from nums_core.nn.train import FLOAT32, Loss, TrainState, init_state, kept, over_workers, train_step
from nums_core.runtime.report import Report

Metrics = dict[str, float]


class Trainer:
    """Trains parameters on batches.

    Parameters
    ----------
    loss, optimiser, clip_norm, clip_value, accumulate, precision, keys : see `train_step`
    params : tree of Arrays
        Copied: the ones given stay as they are.
    data : iterator of batches
        With `state()` and `restore(state)`, as `Batches` has, its position is kept in checkpoints.
    place : function of a batch, optional
        How a batch is cut, such as `lambda b: over_workers(b, 4)`; default: not at all.
    checkpoints : Checkpoints, optional
    save_every : int, steps
        0: only where `save` is called.
    most_skipped : int
        Steps in a row without finite gradients before `run` gives up.
    stream : text stream, optional
        Of the progress line; default the error output, if it is a terminal (see `config.progress`).

    Attributes
    ----------
    state : TrainState
    history : list of dict
        Metrics of every step of this process: those of `train_step`, and step, step_s (seconds).
    report : Report or None
        Of the last step's run.
    """

    def __init__(self, loss: Loss, params: Any, optimiser: Optimiser, data: Iterator[Any], *,
                 clip_norm: float | None = None, clip_value: float | None = None, accumulate: int = 1,
                 precision: Precision = FLOAT32, keys: Keys | None = None, place: Callable[[Any], Any] | None = None,
                 checkpoints: Checkpoints | None = None, save_every: int = 0, most_skipped: int = 50,
                 stream: TextIO | None = None) -> None:
        if save_every and checkpoints is None:
            raise ConfigError(f"Trainer(save_every={save_every}) has nowhere to save; give checkpoints=Checkpoints(folder)")
        self.step = train_step(loss, optimiser, clip_norm=clip_norm, clip_value=clip_value, accumulate=accumulate,
                               precision=precision, keys=keys)
        self.state: TrainState = init_state(params, optimiser, precision=precision)
        self.data, self.place = data, place or _in_one_block
        self.checkpoints, self.save_every = checkpoints, save_every
        self.most_skipped, self.line, self.keys = most_skipped, _Line(stream), keys
        self.history: list[Metrics] = []
        self.n_steps = 0
        self.report: Report | None = None
        self._lost = ""
        self._skipped_in_a_row = 0

    @property
    def params(self) -> Any:
        """The parameters as they are; the next step overwrites them, so compute or copy what must last."""
        self._refuse_lost()
        return self.state.params

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self, n_steps: int) -> list[Metrics]:
        """`n_steps` more steps; gives their metrics.

        The first Ctrl-C ends it after the step that is running, the second at once. Either way `save` and `run` work
        afterwards, unless the second came while the state was being written: then they say so, and `restore` helps.

        Raises
        ------
        TrainingError
            The state was lost, or `most_skipped` steps in a row had no finite gradients.
        """
        began = len(self.history)
        self.line.begin(self.n_steps, n_steps)
        try:
            with _Interrupts() as interrupts:
                for _ in range(n_steps):
                    self._one_step()
                    if self.save_every and self.n_steps % self.save_every == 0:
                        self.save()
                    interrupts.raise_caught()
        finally:
            self.line.end()
        return self.history[began:]

    def _one_step(self) -> None:
        self._refuse_lost()
        start = time.perf_counter()
        position = self._position()
        try:
            try:
                batch = self.place(next(self.data))
            except StopIteration:
                raise TrainingError(f"the data ended after {self.n_steps} steps; ask for fewer, or give an endless iterator "
                                    "such as Batches") from None
            self.state, made = self.step(self.state, batch)
        except BaseException:
            if position is not None:
                self.data.restore(position)  # type: ignore[attr-defined]
            self._look_for_damage()
            raise
        self.report = session.last_report()
        self.n_steps += 1
        self._note(made, start)

    def _note(self, made: dict[str, Array], start: float) -> None:
        values = session.evaluate([x.expr for x in made.values()])
        metrics = {name: float(v) for name, v in zip(made, values, strict=True)}
        before = self.history[-1]["skipped"] if self.history else None
        metrics |= {"step": self.n_steps, "step_s": time.perf_counter() - start}
        self.history.append(metrics)
        self.line.show(metrics)
        skipped = not np.isfinite(metrics["grad_norm"]) or (before is not None and metrics["skipped"] > before)
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        if self._skipped_in_a_row >= self.most_skipped:
            raise TrainingError(f"the gradients of {self._skipped_in_a_row} steps in a row were not finite (loss "
                                f"{metrics['loss']}); the parameters are those of the last good step: lower the rate, clip, "
                                "or look at the data")

    # -- what stays when a step fails ---------------------------------------------------------------------------------

    def _look_for_damage(self) -> None:
        """A step that fails before its writes leaves the state as it was: the counter, written first, shows it."""
        try:
            made = int(self.state.step) + int(self.state.skipped)
        except Exception as error:
            self._lost = str(error)
            return
        if made != self.n_steps:
            self._lost = "a step was stopped while it wrote over the parameters"

    def _refuse_lost(self) -> None:
        if self._lost:
            raise TrainingError(f"the state is lost: {self._lost}. Call restore() to go on from the last checkpoint")

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def save(self) -> Any:
        """Write a checkpoint of everything that the next step depends on; gives its folder."""
        self._refuse_lost()
        extra = {"n_steps": self.n_steps, "data": self._position(), "keys": repr(self.keys)}
        return self._folder().save(self.n_steps, self.state, extra)

    def restore(self, step: int | None = None) -> bool:
        """Go on from the checkpoint of `step`, or from the last one. False, and nothing changed, if there is none at all.

        Raises
        ------
        CheckpointError
            It is of another model or optimiser; the differences are listed.
        ConfigError
            It is of other keys or other data.
        """
        if not self._folder().steps() and step is None:
            return False
        state, extra = self._folder().load(self.state, step)
        if extra["keys"] != repr(self.keys):
            raise ConfigError(f"the checkpoint was made with {extra['keys']} and this Trainer has {self.keys}; give it the "
                              "same keys, or what is drawn is not the same")
        if extra.get("data") is not None and hasattr(self.data, "restore"):
            self.data.restore(extra["data"])
        self.state, self.n_steps = kept(state), int(extra["n_steps"])
        self._lost, self._skipped_in_a_row = "", 0
        return True

    def _folder(self) -> Checkpoints:
        if self.checkpoints is None:
            raise ConfigError("this Trainer has no folder for checkpoints; give it checkpoints=Checkpoints(folder)")
        return self.checkpoints

    def _position(self) -> dict[str, Any] | None:
        return self.data.state() if hasattr(self.data, "state") else None


def _in_one_block(batch: Any) -> Any:
    return over_workers(batch, 1)


class _Interrupts:
    """Holds the first Ctrl-C back until `raise_caught`; the second goes through. Only the main thread is asked."""

    def __init__(self) -> None:
        self.caught = False
        self.here = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> _Interrupts:
        if self.here:
            self.before = signal.signal(signal.SIGINT, self._catch)
        return self

    def _catch(self, number: int, frame: Any) -> None:
        if self.caught:
            raise KeyboardInterrupt
        self.caught = True
        print("\nstopping after this step; Ctrl-C again stops at once", file=sys.stderr)

    def raise_caught(self) -> None:
        if self.caught:
            raise KeyboardInterrupt

    def __exit__(self, *exc: object) -> None:
        if self.here:
            signal.signal(signal.SIGINT, signal.SIG_DFL if self.before is None else self.before)


class _Line:
    """One line that says where the run stands."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream or sys.stderr
        mode = config.get().progress
        self.on = mode == "on" or (mode == "auto" and self.stream.isatty())
        self.width = 0

    def begin(self, done: int, n_steps: int) -> None:
        self.last, self.n_left = done + n_steps, n_steps

    def show(self, metrics: Metrics) -> None:
        self.n_left -= 1
        if not self.on:
            return
        step_s = metrics["step_s"]
        text = (f"step {metrics['step']:.0f}/{self.last}  loss {metrics['loss']:.4f}  |g| {metrics['grad_norm']:.3g}  "
                f"rate {metrics['rate']:.3g}  {format_seconds(step_s)} a step  "
                f"{format_seconds(step_s * self.n_left)} left")
        self.stream.write("\r" + text.ljust(self.width))
        self.stream.flush()
        self.width = len(text)

    def end(self) -> None:
        if self.on and self.width:
            self.stream.write("\n")
            self.stream.flush()


__all__ = ["Trainer"]
