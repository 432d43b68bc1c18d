"""What an optimiser is: a frozen dataclass of settings, with one rule for one parameter.

    state = optimiser.init(params)                                   {path: {slot: Array}}
    params, state = optimiser.update(grads, state, params, step)     expressions; nothing is computed here

The state is a plain tree of arrays cut like the parameters, so that it can be donated, kept in checkpoints under
readable names, and laid over a mesh with the parameter it belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nums_core.array.array import Array
from nums_core.array.creation import zeros
from nums_core.array.elementwise import where
from nums_core.errors import ConfigError, ShapeError
from nums_core.expr.grid import Chunks
from nums_core.nn import tree
from nums_core.nn.optim.schedules import Schedule

Slots = dict[str, Array]
State = dict[str, Slots]
Scalar = Any  # a Python number, or an Array of shape ()


class Moment(NamedTuple):
    """What a rule needs to know beside the parameter, its gradient and its slots.

    Attributes
    ----------
    path : str
    rate : scalar
        The schedule's value for this update.
    number : scalar
        The number of this update: 1 for the first.
    ok : bool Array of shape (), or None
        Whether the update shall happen; None: it shall.
    """

    path: str
    rate: Scalar
    number: Scalar
    ok: Array | None

    def keep(self, new: Array, old: Array) -> Array:
        """`new`, or bit for bit `old` where the update shall not happen."""
        return new if self.ok is None else where(self.ok, new, old)


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """Base of all optimisers; a subclass gives `slots` and `rule`.

    Parameters
    ----------
    rate : float or Schedule
        Learning rate; a schedule is a function of the number of updates made before.
    """

    rate: float | Schedule = 1e-3

    def init(self, params: Any) -> State:
        """The state before the first update: lazy arrays, cut like the parameters. None for what is not floating."""
        return {path: self.slots(p) for path, p in tree.paths(params) if trainable(p)}

    def update(self, grads: Any, state: Mapping[str, Slots], params: Any, step: Scalar = 0, *,
               ok: Array | None = None) -> tuple[Any, State]:
        """Parameters and state after one update.

        Parameters
        ----------
        grads : tree of the structure of `params`
        state : of `init`, or of the update before
        step : int, or integer Array of shape ()
            Updates made before: 0 at first.
        ok : bool Array of shape (), optional
            Where False, nothing changes: not one bit of parameters or state.

        Raises
        ------
        ShapeError
            Gradients or state that do not belong to these parameters; the message names the first that differs.
        """
        leaves, static = tree.flatten(params)
        slopes = tree.flatten(grads)[0]
        paths = [path for path, _ in tree.paths(params)]
        _check(paths, leaves, slopes, state)
        number, rate = step + 1, self.rate(step) if callable(self.rate) else self.rate
        new_leaves, new_state = list(leaves), {}
        for k, (path, p) in enumerate(zip(paths, leaves, strict=True)):
            if trainable(p):
                at = Moment(path, rate, number, ok)
                g = slopes[k].rechunk(p.chunks).astype(slot_dtype(p))
                new_leaves[k], new_state[path] = self.updated(p, g, state[path], at)
        return tree.unflatten(static, new_leaves), new_state

    def updated(self, p: Array, g: Array, slots: Slots, at: Moment) -> tuple[Array, Slots]:
        """One parameter after the update; what is decided outside the rule is decided here."""
        new, slots = self.rule(p, g, slots, at)
        return at.keep(new.astype(p.dtype), p), slots

    def slots(self, p: Array) -> Slots:
        """What is remembered for a parameter, before the first update."""
        raise NotImplementedError

    def rule(self, p: Array, g: Array, slots: Slots, at: Moment) -> tuple[Array, Slots]:
        """The new parameter and its slots (each through `at.keep`)."""
        raise NotImplementedError


def trainable(leaf: Any) -> bool:
    """Whether a leaf takes part in training: arrays of real floating numbers do; others stay as they are."""
    return isinstance(leaf, Array) and leaf.dtype.kind == "f"


def slot_dtype(p: Array) -> np.dtype:
    """What is remembered about float16 parameters is remembered in float32."""
    return np.result_type(p.dtype, np.float32)


def zeros_as(p: Array, shape: tuple[int, ...] | None = None, chunks: Chunks | None = None) -> Array:
    """Zeros for a slot: shape and blocks of the parameter, if none are given."""
    return zeros(p.shape if shape is None else shape, slot_dtype(p), chunks=p.chunks if chunks is None else chunks)


def scalar(x: Scalar, p: Array) -> Scalar:
    """`x` such that it does not change the dtype of what it is multiplied with."""
    return x.astype(slot_dtype(p)) if isinstance(x, Array) else float(x)


def in_range(owner: Any, **bounds: tuple[float, float]) -> None:
    """Refuse settings outside `low <= value < high`."""
    for name, (low, high) in bounds.items():
        value = getattr(owner, name)
        if callable(value):
            continue
        if not (low <= value < high and math.isfinite(value)):
            raise ConfigError(f"{type(owner).__name__}({name}={value}) is out of range; give a number from {low} up "
                              f"to, but not including, {high}")


def _check(paths: list[str], leaves: list[Any], slopes: list[Any], state: Mapping[str, Slots]) -> None:
    if len(leaves) != len(slopes):
        raise ShapeError(f"update() got {len(slopes)} gradients for {len(leaves)} parameters; pass the gradients of "
                         "the same tree, as grad() gives them")
    for path, p, g in zip(paths, leaves, slopes, strict=True):
        if not trainable(p):
            continue
        if getattr(g, "shape", None) != p.shape:
            raise ShapeError(f"the gradient of {path} has shape {getattr(g, 'shape', None)} and the parameter {p.shape}; "
                             "pass the gradients of the same tree, as grad() gives them")
        if path not in state:
            raise ShapeError(f"the optimiser's state knows no {path}; make it with init() of these parameters")
