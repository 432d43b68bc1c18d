"""A training step: one plan from (state, batch) to (state, metrics), with the state donated: changed where it lies.

    step = train_step(loss, AdamW(rate=3e-4), clip_norm=1.0)
    state = init_state(model, AdamW(rate=3e-4))
    state, metrics = step(state, batch)              # `state` given must not be used again

Nothing here knows of workers. A batch whose first axis is cut is trained data-parallel: its blocks' losses and gradients
meet in the sums over that axis. Parameters that are cut are trained tensor-parallel; gradients and the optimiser's state
are cut as they are. `over_workers` and `cut_parameters` do the cutting; `nn.trainer` runs the loop.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nums_core import session
from nums_core.array.array import Array, asarray, from_array
from nums_core.array.elementwise import isfinite, positive
from nums_core.errors import ConfigError, GridError, ShapeError
from nums_core.expr.node import make, postorder
from nums_core.nn import tree
from nums_core.nn.autodiff import value_and_grad
from nums_core.nn.init import Keys
from nums_core.nn.optim.clipping import clip_by_value, clip_factor, global_norm, scaled
from nums_core.nn.optim.optimiser import Optimiser, trainable
from nums_core.nn.optim.precision import Precision, ScaleState

Loss = Callable[..., Any]
FLOAT32 = Precision()


class TrainState(NamedTuple):
    """All that a step changes, as a tree of kept arrays.

    Attributes
    ----------
    params : tree
    slots : tree
        The optimiser's state.
    step : int64 Array, shape ()
        Updates made.
    skipped : int64 Array, shape ()
        Steps whose gradients were not finite; they changed nothing else but the loss scale.
    scale : ScaleState or None
    """

    params: Any
    slots: Any
    step: Array
    skipped: Array
    scale: ScaleState | None


def init_state(params: Any, optimiser: Optimiser, *, precision: Precision = FLOAT32) -> TrainState:
    """The state before the first step. Parameters are copied: donating the state leaves the ones given as they are."""
    scale = precision.loss_scale.init() if precision.loss_scale is not None else None
    return kept(TrainState(params, optimiser.init(params), asarray(np.int64(0)), asarray(np.int64(0)), scale))


def kept(values: Any) -> Any:
    """The same tree with all its arrays computed and kept where they were made, each in memory of its own."""
    leaves, static = tree.flatten(values)
    which = [k for k, x in enumerate(leaves) if isinstance(x, Array)]
    for k, e in zip(which, session.keep([_in_memory(leaves[k]).expr for k in which]), strict=True):
        leaves[k] = Array(e)
    return tree.unflatten(static, leaves)


def _in_memory(x: Array) -> Array:
    """`x`, but numbers of shape () made anew: taken from an array they would be NumPy scalars, never written over."""
    return positive(x) if x.shape == () and x.dtype.kind in "iuf" else x


def train_step(loss: Loss, optimiser: Optimiser, *, clip_norm: float | None = None, clip_value: float | None = None,
               accumulate: int = 1, precision: Precision = FLOAT32, keys: Keys | None = None,
               donate: bool = True) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, Array]]]:
    """A jitted function (state, batch) -> (state, metrics).

    Parameters
    ----------
    loss : function of (params, batch), or of (params, batch, keys) where `keys` are given
        Gives the mean loss over the batch, or (loss, dict of further metrics).
    clip_norm, clip_value : float, optional
        Limits of the global norm, and of each element, of the gradients.
    accumulate : int
        Parts the batch is cut into, one after another; the mean of their losses is minimised, in about 1/accumulate of
        the memory. Must divide the rows. Where parts count unequal numbers of labels (`ignore`), that is not the mean over
        all labels.
    keys : Keys, optional
        For dropout: the loss gets `keys.at(n)`, with another n at every step (and part of one).
    donate : bool
        Let the new state overwrite the old one. False keeps both.

    Returns
    -------
    function
        Its metrics, Arrays of shape (): loss, grad_norm (before clipping), rate, skipped (so far), loss_scale if there is
        one, and what the loss gave.

    Notes
    -----
    A step whose gradients hold inf or NaN changes no parameter. Every write to the state waits for all gradients, and
    the counter `step` is written first: while it stands still, so does everything else.
    """
    if accumulate < 1:
        raise ConfigError(f"train_step(accumulate={accumulate}) cuts a batch into no parts; give 1 or more")
    step = _Step(loss, optimiser, clip_norm, clip_value, accumulate, precision, keys)
    return session.jit(step.taken, donate=(0,) if donate else ())


@dataclass(frozen=True)
class _Step:
    """The expressions of one step."""

    loss: Loss
    optimiser: Optimiser
    clip_norm: float | None
    clip_value: float | None
    accumulate: int
    precision: Precision
    keys: Keys | None

    def taken(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Array]]:
        """The state after it, and its metrics."""
        grads, metrics = self.gradients(state, batch)
        norm = global_norm(grads)
        if state.scale is not None:
            norm = norm * (1 / state.scale.scale)
        finite = isfinite(norm)
        step = state.step + finite
        ok = finite & (step >= 0)  # the same as `finite`; reading `step` makes every write below wait for it
        before = step - finite
        grads = self.clipped(grads, norm, state.scale)
        params, slots = self.optimiser.update(grads, state.slots, state.params, before, ok=ok)
        skipped = state.skipped + ~ok
        scaling = self.precision.loss_scale
        scale = scaling.update(state.scale, ok) if scaling is not None and state.scale is not None else None
        metrics |= {"grad_norm": norm, "rate": self._rate(before), "skipped": skipped}
        if state.scale is not None:
            metrics["loss_scale"] = state.scale.scale * 1
        return TrainState(params, slots, step, skipped, scale), metrics

    def _rate(self, step: Array) -> Array:
        rate = self.optimiser.rate
        return step * 0.0 + (rate(step) if callable(rate) else rate)

    def gradients(self, state: TrainState, batch: Any) -> tuple[Any, dict[str, Array]]:
        """Gradients of the (scaled) mean loss of all parts, and its metrics."""
        sums = self._part(state, tree.map(lambda x: self._rows(x, 0), batch), 0)
        for k in range(1, self.accumulate):
            done = _last(sums[0])
            made = self._part(state, tree.map(lambda x, k=k, done=done: after(self._rows(x, k), done), batch), k)
            sums = tree.map(lambda a, b: a + b, sums, made)
        (slopes, metrics), n = sums, self.accumulate
        if n > 1:
            slopes, metrics = ([g * (1 / n) for g in slopes], {name: v / n for name, v in metrics.items()})
        leaves, static = tree.flatten(state.params)
        given = iter(slopes)
        return tree.unflatten(static, [next(given) if trainable(p) else p for p in leaves]), dict(metrics)

    def _rows(self, x: Any, k: int) -> Any:
        """Every `accumulate`-th row from `k` on: some of each block, so that all workers have a share in every part."""
        if self.accumulate == 1 or not hasattr(x, "shape"):
            return x
        if x.shape[0] % self.accumulate:
            raise ShapeError(f"a batch of {x.shape[0]} rows cannot be cut into {self.accumulate} equal parts; change the "
                             "batch size or `accumulate` so that one divides the other")
        return x[k::self.accumulate]

    def _part(self, state: TrainState, batch: Any, k: int) -> tuple[list[Array], dict[str, Array]]:
        """Gradients of the trainable leaves, in order, and metrics, for some rows."""
        leaves, static = tree.flatten(state.params)
        extra = () if self.keys is None else (self.keys.at((state.step + state.skipped) * self.accumulate + k),)

        def scaled_loss(weights: list[Array], rows: Any) -> tuple[Array, dict[str, Array]]:
            given = iter(weights)
            params = tree.unflatten(static, [next(given) if trainable(p) else p for p in leaves])
            value, more = _value_and_metrics(self.loss(self._cast(params), rows, *extra))
            metrics = {"loss": value, **more}
            value = value.astype(np.result_type(value.dtype, np.float32))
            return (value if state.scale is None else value * state.scale.scale), metrics

        (_, metrics), slopes = value_and_grad(scaled_loss, has_aux=True)([p for p in leaves if trainable(p)], batch)
        return slopes, metrics

    def _cast(self, params: Any) -> Any:
        return params if self.precision.compute == "float32" and self.precision.loss_scale is None else (
            self.precision.cast(params))

    def clipped(self, grads: Any, norm: Array, scale: ScaleState | None) -> Any:
        """Gradients of the loss itself, within their limits."""
        factor: Any = None if scale is None else 1 / scale.scale
        if self.clip_norm is not None:
            clip = clip_factor(norm, self.clip_norm)
            factor = clip if factor is None else factor * clip
        if factor is not None:
            grads = scaled(grads, factor)
        return grads if self.clip_value is None else clip_by_value(grads, self.clip_value)


def _last(grads: list[Array]) -> Array:
    """One element of the gradient that the longest chain of operations leads to: when it is there, all others nearly are."""
    depth: dict[int, int] = {}
    for node in postorder([g.expr for g in grads]):
        depth[id(node)] = 1 + max((depth[id(a)] for a in node.args), default=0)
    deepest = max(grads, key=lambda g: depth[id(g.expr)])
    return deepest[(slice(0, 1),) * deepest.ndim]


def after(x: Any, done: Array) -> Any:
    """`x`, handed on once `done` has been computed."""
    if not isinstance(x, Array):
        return x
    return Array(make("barrier.after", (x.expr, done.expr), (), x.shape, x.dtype, x.chunks))


def _value_and_metrics(made: Any) -> tuple[Array, dict[str, Array]]:
    value, more = made if isinstance(made, tuple) else (made, {})
    if not isinstance(value, Array) or value.shape != () or not isinstance(more, Mapping):
        raise ShapeError(f"the loss gave {_told(value)}; give an Array of shape (), as x.mean() does, or that and a "
                         "dict of further ones")
    return value, dict(more)


def _told(x: Any) -> str:
    return f"an Array of shape {x.shape}" if isinstance(x, Array) else f"a {type(x).__name__}"


# -- layouts ----------------------------------------------------------------------------------------------------------

def over_workers(batch: Any, n: int) -> Any:
    """A batch cut into `n` blocks of rows: data-parallel over as many workers.

    Parameters
    ----------
    batch : tree of arrays with equally many rows
    n : int

    Notes
    -----
    For parameters of P bytes and n workers that each hold a copy only while they use it, a step moves (n - 1) P bytes
    of parameters out and (n - 1) P bytes of gradients back.
    """
    def cut(x: Any) -> Any:
        if len(x) < n or n < 1:
            raise GridError(f"a batch of {len(x)} rows cannot be cut over {n} workers; give at least a row to each")
        return from_array(x, chunks=(math.ceil(len(x) / n), *x.shape[1:]))
    return tree.map(cut, batch)


def cut_parameters(params: Any, rules: Mapping[str, int], n: int) -> Any:
    """Parameters cut into `n` blocks along one axis each: tensor-parallel over as many workers.

    Parameters
    ----------
    rules : {pattern of paths: axis}
        The first pattern that fits counts, as in {"*.q.weight": 0, "*.out.weight": 1}: a matrix cut along its results and
        then one cut along its inputs need one sum over workers (M. Shoeybi et al., "Megatron-LM", 2019, section 3).
    n : int

    Raises
    ------
    GridError
        A pattern fits nothing, or an axis is shorter than n.
    """
    used: set[str] = set()
    cut = [_cut(path, x, rules, n, used) for path, x in tree.paths(params)]
    if unused := [pattern for pattern in rules if pattern not in used]:
        raise GridError(f"no parameter is called {unused[0]!r}; the names are those of tree.paths(params), such as "
                        f"{tree.paths(params)[0][0]!r}")
    return tree.unflatten(tree.flatten(params)[1], cut)


def _cut(path: str, x: Any, rules: Mapping[str, int], n: int, used: set[str]) -> Any:
    pattern = next((p for p in rules if fnmatch.fnmatchcase(path, p)), None)
    if pattern is None:
        return x
    used.add(pattern)
    axis = rules[pattern]
    if not -x.ndim <= axis < x.ndim or x.shape[axis] < n:
        raise GridError(f"{path} of shape {x.shape} cannot be cut into {n} blocks along axis {axis}; choose a longer axis, "
                        "or fewer blocks")
    sizes = [x.shape[k] if k != axis % x.ndim else math.ceil(x.shape[k] / n) for k in range(x.ndim)]
    return x.rechunk(tuple(sizes))


__all__ = ["TrainState", "cut_parameters", "init_state", "kept", "over_workers", "train_step"]
