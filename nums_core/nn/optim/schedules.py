"""Learning rates as functions of the number of updates made before.

A schedule is a frozen dataclass: `schedule(step)` with an int gives a number, with an integer Array of shape () a
float64 Array, so that one plan serves all steps of a training run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nums_core.errors import ConfigError


class Schedule(Protocol):
    """Any function of the step; hashable, since it may be a static argument of `jit`."""

    def __call__(self, step: Any) -> Any: ...


@dataclass(frozen=True)
class Constant:
    """Always `rate`."""

    rate: float

    def __call__(self, step: Any) -> Any:
        return self.rate + 0.0 * step


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Up in a line to `peak` over `warmup_steps`, down along half a cosine to `final` at `total_steps`; then constant.

    Source: I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, equation (5),
    without restarts.
    """

    peak: float
    total_steps: int
    warmup_steps: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        _ordered(self, self.warmup_steps, self.total_steps)

    def __call__(self, step: Any) -> Any:
        part = _part(step, self.warmup_steps, self.total_steps)
        low = self.final + (self.peak - self.final) * 0.5 * (1 + np.cos(np.pi * part))
        return _warmed(step, self.warmup_steps, self.peak, low)


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Up in a line to `peak` over `warmup_steps`, then down in a line to `final` at `total_steps`; then constant."""

    peak: float
    total_steps: int
    warmup_steps: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        _ordered(self, self.warmup_steps, self.total_steps)

    def __call__(self, step: Any) -> Any:
        low = self.peak + (self.final - self.peak) * _part(step, self.warmup_steps, self.total_steps)
        return _warmed(step, self.warmup_steps, self.peak, low)


@dataclass(frozen=True, kw_only=True)
class InverseSqrt:
    """`peak` √(warmup_steps / t) from update t = `warmup_steps` on; before, up in a line, or `peak` without `ramp`.

    Source: A. Vaswani et al., "Attention is all you need", NeurIPS 2017, equation (3), with the peak named.
    """

    peak: float
    warmup_steps: int = 1
    ramp: bool = True

    def __post_init__(self) -> None:
        if self.warmup_steps < 1:
            raise ConfigError(f"InverseSqrt(warmup_steps={self.warmup_steps}) has no place where the fall begins; give at "
                              "least 1")

    def __call__(self, step: Any) -> Any:
        t = step + 1.0
        low = self.peak * (self.warmup_steps / np.maximum(t, self.warmup_steps)) ** 0.5
        return low * np.minimum(t / self.warmup_steps, 1.0) if self.ramp else low


@dataclass(frozen=True)
class Piecewise:
    """`rates[0]` before update `bounds[0]`, `rates[1]` from there to `bounds[1]`, and so on."""

    bounds: tuple[int, ...]
    rates: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.rates) != len(self.bounds) + 1 or list(self.bounds) != sorted(set(self.bounds)):
            raise ConfigError(f"Piecewise({self.bounds}, {self.rates}) needs rising bounds and one rate more than bounds: "
                              "the first holds before the first bound")

    def __call__(self, step: Any) -> Any:
        rate = self.rates[0] + 0.0 * step
        for bound, after in zip(self.bounds, self.rates[1:], strict=True):
            rate = np.where(step >= bound, after, rate)
        return rate


def _ordered(owner: Any, warmup_steps: int, total_steps: int) -> None:
    if not 0 <= warmup_steps < total_steps:
        raise ConfigError(f"{type(owner).__name__} with warmup_steps={warmup_steps} and total_steps={total_steps} never "
                          "reaches its end; give 0 <= warmup_steps < total_steps")


def _part(step: Any, start: int, stop: int) -> Any:
    """How much of the way from `start` to `stop` is gone, 0 to 1."""
    return np.minimum(np.maximum((step - start) * (1.0 / (stop - start)), 0.0), 1.0)


def _warmed(step: Any, warmup_steps: int, peak: float, after: Any) -> Any:
    """The first update has rate peak / warmup_steps, not 0: an update that does nothing helps nobody."""
    if not warmup_steps:
        return after
    return np.where(step < warmup_steps, (step + 1.0) * (peak / warmup_steps), after)
