"""Cross-entropy straight from logits: the probabilities exist one tile at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nums_core.array import elementwise as ew
from nums_core.array.array import Array
from nums_core.errors import ConfigError, DTypeError, ShapeError
from nums_core.nn.ops import composed
from nums_core.nn.primitives import Call, primitive
from nums_core.runtime.devices import scratch

TILE_ELEMENTS = 2**18  # of the logits of a tile: 1 MiB of scratch memory


def cross_entropy(logits: Array, labels: Array, ignore: int = -100, reduction: str = "mean") -> Array:
    """-log softmax(logits)[label] of every position: log sum exp(logits) - logits[label].

    Parameters
    ----------
    logits : Array, shape (..., classes), floating
        The classes are put into one block; leading axes may be cut.
    labels : Array, shape (...), integer
    ignore : int
        Positions with this label count for nothing.
    reduction : "mean", "sum" or "none"
        The mean is over positions not ignored; 0 where all are.

    Returns
    -------
    Array, float32 (float64 for float64): shape (), or (...) for "none", with 0 where ignored.

    Raises
    ------
    ShapeError, DTypeError
    IndexError
        A label outside the classes, when it is computed; the message names it.

    Notes
    -----
    Kept for the backward pass: the logits, and one number a position. Their cotangent is made in one pass.
    """
    if logits.dtype.kind != "f" or labels.dtype.kind not in "iu":
        raise DTypeError(f"cross_entropy takes floating logits and integer labels, got {logits.dtype} and {labels.dtype}; "
                         "labels are numbers of classes: for probabilities, write -(p * log_softmax(logits)).sum(-1)")
    if logits.shape[:-1] != labels.shape:
        raise ShapeError(f"cross_entropy of logits {logits.shape} and labels {labels.shape}: labels must have the shape of "
                         "the logits without their last axis")
    lead = "abcdefghijklmnop"[:labels.ndim]
    row = ((*labels.shape, 1), np.result_type(logits.dtype, np.float32))
    losses, _ = entropies.bind([logits, labels], f"{lead}Z,{lead}->{lead}1,{lead}1", [row, row], ignore=int(ignore))
    if reduction == "none":
        return losses[..., 0]
    if reduction not in ("mean", "sum"):
        raise ConfigError(f"reduction={reduction!r}; give 'mean', 'sum' or 'none'")
    total = losses.sum()
    if reduction == "sum":
        return total
    return total / ew.maximum((labels != ignore).sum(), 1).astype(total.dtype)


# -- on blocks --------------------------------------------------------------------------------------------------------

def _tiles(n: int, classes: int) -> Iterator[slice]:
    rows = max(1, TILE_ELEMENTS // max(classes, 1))
    return (slice(i, min(i + rows, n)) for i in range(0, n, rows))


def _chosen(labels: np.ndarray, classes: int, ignore: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels with 0 where ignored, and which count."""
    flat = labels.reshape(-1)
    counts = flat != ignore
    chosen = np.where(counts, flat, 0).astype(np.intp)
    if chosen.size and (chosen.min() < 0 or chosen.max() >= classes):
        wrong = chosen[(chosen < 0) | (chosen >= classes)][0]
        raise IndexError(f"label {wrong} is outside the {classes} classes of the logits; labels are 0 to {classes - 1}, or "
                         f"{ignore} for positions that do not count (ignore=)")
    return chosen, counts


@primitive(label="cross_entropy", n_out=2, flop=lambda logits, labels, **static: 12.0 * float(np.prod(logits)))
def entropies(logits: np.ndarray, labels: np.ndarray, *, ignore: int) -> tuple[np.ndarray, np.ndarray]:
    """Loss and log-sum-exp of every row, with a last axis of extent 1."""
    wide = np.result_type(logits.dtype, np.float32)
    losses, lse = (np.empty((*labels.shape, 1), wide) for _ in range(2))
    classes = logits.shape[-1]
    rows, loss, log_sum = np.ascontiguousarray(logits).reshape(-1, classes), losses.reshape(-1), lse.reshape(-1)
    chosen, counts = _chosen(labels, classes, ignore)
    for at in _tiles(len(rows), classes):
        x = rows[at]
        top = x.max(axis=1, keepdims=True)
        t = scratch.empty("entropy t", x.shape, wide)
        np.subtract(x, top, out=t)
        np.exp(t, out=t)
        np.log(t.sum(axis=1), out=log_sum[at])
        log_sum[at] += top[:, 0]
        np.subtract(log_sum[at], x[np.arange(len(x)), chosen[at]], out=loss[at])
    loss[~counts] = 0
    return losses, lse


@primitive(label="cross_entropy.backward", flop=10)
def entropies_backward(logits: np.ndarray, labels: np.ndarray, lse: np.ndarray, g: np.ndarray, *, ignore: int) -> np.ndarray:
    """g (softmax(logits) - onehot(label)), 0 where ignored."""
    out = np.empty(logits.shape, logits.dtype)
    classes = logits.shape[-1]
    rows, made = np.ascontiguousarray(logits).reshape(-1, classes), out.reshape(-1, classes)
    log_sum = lse.reshape(-1, 1).astype(logits.dtype, copy=False)
    chosen, counts = _chosen(labels, classes, ignore)
    slope = np.where(counts, g.reshape(-1), 0).astype(logits.dtype)[:, None]
    for at in _tiles(len(rows), classes):
        y = made[at]
        np.subtract(rows[at], log_sum[at], out=y)
        np.exp(y, out=y)
        y[np.arange(len(y)), chosen[at]] -= 1
        y *= slope[at]
    return out


@entropies.defbackward
def _entropies_backward(call: Call, g: Array | None, of_lse: Array | None) -> list[Array | None]:
    if g is None:
        return [None, None]
    (logits, labels), (_, lse) = call.args, call.outs
    left, _, right = call.labels.partition("->")
    row = right.split(",")[0]
    return [entropies_backward.bind([logits, labels, lse, g], f"{left},{row},{row}->{left.split(',')[0]}",
                                    [(logits.shape, logits.dtype)], **call.static), None]


@entropies_backward.defbackward
def _entropies_second(call: Call, c: Array | None) -> list[Array | None]:
    if c is None:
        return [None] * 4
    logits, labels, _, g = call.args
    (of_logits,), of_g = composed.second_order(lambda x: composed.cross_entropies(x, labels, **call.static), [logits], g, [c])
    return [of_logits, None, None, of_g]


__all__ = ["cross_entropy"]
