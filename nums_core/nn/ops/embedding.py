"""Rows of a table by number, and the sum of rows that fall on one number: each is the other's derivative."""

from __future__ import annotations

from typing import Any

import numpy as np

from nums_core.array.array import Array
from nums_core.errors import DTypeError, ShapeError
from nums_core.nn.primitives import Call, primitive


def embedding(w: Any, ids: Array) -> Array:
    """w[ids]: one row of the table for every number.

    Parameters
    ----------
    w : Array, shape (rows, d), or an object with a method `take(ids)`
        The rows are put into one block; d may be cut.
    ids : Array, any shape, integer

    Returns
    -------
    Array, shape (*ids.shape, d)

    Raises
    ------
    DTypeError, ShapeError
    IndexError
        A number outside the table, when it is computed; the message names it.
    """
    if ids.dtype.kind not in "iu":
        raise DTypeError(f"an embedding takes integers, got ids of {ids.dtype}; cast with ids.astype('int32')")
    if not isinstance(w, Array):
        return w.take(ids)
    if w.ndim != 2:
        raise ShapeError(f"an embedding's table has two axes (rows, d), got shape {w.shape}; reshape it, as in "
                         "w.reshape(rows, d)")
    lead = "abcdefghijklmnop"[:ids.ndim]
    return take.bind([w, ids], f"yz,{lead}->{lead}z", [((*ids.shape, w.shape[1]), w.dtype)])


# -- on blocks --------------------------------------------------------------------------------------------------------

@primitive(label="embedding", flop=1)
def take(w: np.ndarray, ids: np.ndarray) -> np.ndarray:
    if ids.size and (ids.min() < 0 or ids.max() >= len(w)):
        wrong = ids[(ids < 0) | (ids >= len(w))].flat[0]
        raise IndexError(f"number {wrong} is outside an embedding of {len(w)} rows; use the tokenizer that belongs to the "
                         "model, or enlarge the table")
    return w.take(ids, axis=0)


@primitive(label="embedding.backward", flop=1)
def put(ids: np.ndarray, g: np.ndarray, *, rows: int) -> np.ndarray:
    """A table whose row i is the sum of the rows of `g` that stand at i."""
    out = np.zeros((rows, g.shape[-1]), g.dtype)
    keys, sums = sums_by_key(ids.reshape(-1), g.reshape(-1, g.shape[-1]))
    out[keys] = sums
    return out


def sums_by_key(keys: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct keys in order, and for each the sum of its rows: pairwise, in an order that depends on `keys` alone.

    Of rows with one key, each odd one is added to the even one before it, until one is left: log2(repeats) rounds of long
    calls, where adding one row after another would take as many short ones as there are rows.
    """
    rows = np.array(rows)
    at = np.argsort(keys, kind="stable")
    sorted_keys = keys[at]
    while True:
        begins = np.flatnonzero(np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]])[:len(at)])
        rank = np.arange(len(at)) - np.repeat(begins, np.diff(begins, append=len(at)))
        odd = np.flatnonzero(rank % 2)
        if not odd.size:
            return sorted_keys, rows[at]
        rows[at[odd - 1]] += rows[at[odd]]
        even = rank % 2 == 0
        at, sorted_keys = at[even], sorted_keys[even]


@take.defbackward
def _take_backward(call: Call, g: Array | None) -> list[Array | None]:
    if g is None:
        return [None, None]
    w, ids = call.args
    lead = call.labels.partition("->")[0].split(",")[1]
    return [put.bind([ids, g], f"{lead},{lead}z->yz", [(w.shape, w.dtype)], rows=w.shape[0]), None]


@put.defbackward
def _put_backward(call: Call, g: Array | None) -> list[Array | None]:
    return [None, None if g is None else embedding(g, call.args[0])]


__all__ = ["embedding", "sums_by_key"]
