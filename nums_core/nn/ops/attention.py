"""Attention as an operation: blocks of sequences (and, where they are cut, of heads) through the kernels of `nn.ops.attend`."""

from __future__ import annotations

from typing import Any

import numpy as np

from nums_core.array.array import Array, asarray
from nums_core.errors import DTypeError, ShapeError
from nums_core.nn.ops import composed
from nums_core.nn.ops.attend import attention_block, attention_gradients
from nums_core.nn.primitives import Call, primitive


def attention(q: Array, k: Array, v: Array, *, causal: bool = True, scale: float | None = None, window: int | None = None,
              mask: Any = None) -> Array:
    """Softmax attention of every query over the keys that it may see.

        out = softmax(scale q kᵀ + mask) v

    Parameters
    ----------
    q : Array, shape (batch, q_len, heads, d), floating
    k : Array, shape (batch, k_len, kv_heads, d)
    v : Array, shape (batch, k_len, kv_heads, e)
        `kv_heads` divides `heads`: query head h reads key head h // (heads / kv_heads).
    causal : bool
        Queries are the last q_len of the keys' positions, and see keys up to their own.
    scale : float, optional
        Default 1 / √d.
    window : int, tokens, optional
        Keys as far back as this, or further, are not seen. Default: all are.
    mask : array, optional
        Shape (batch or 1, heads or 1, q_len or 1, k_len or 1). bool: True where a key may be seen; floating: added to the
        scores. It has no derivative.

    Returns
    -------
    Array, shape (batch, q_len, heads, e), dtype of `q`; computed in float32 (float64 for float64). A query that sees no key
    gives zeros.

    Raises
    ------
    ShapeError
        Extents that do not fit; the message names them.

    Notes
    -----
    2·batch·heads·q_len·k_len·(d + e) flop, half of them under `causal`; twice and a half as many backward. Kept for the
    backward pass: out, and one number a query and head. A batch in blocks, or heads (of keys and queries alike) in
    blocks, are computed block by block; the bits do not depend on how.

    References
    ----------
    .. [1] A. Vaswani et al., "Attention is all you need", NeurIPS 2017, eq. (1).
    .. [2] J. Ainslie et al., "GQA: training generalized multi-query transformer models", EMNLP 2023.
    """
    _check(q, k, v, window)
    group = q.shape[2] // k.shape[2]
    split = group > 1 and q.expr.grid[2] > 1
    if split:  # an axis for the heads of one key head: both can then be cut along key heads
        q = q.reshape((*q.shape[:2], k.shape[2], group, q.shape[3]))
        k, v = k[:, :, :, None], v[:, :, :, None]
    heads = "h" if split or group == 1 else "H"
    given = [] if mask is None else [_mask(mask, q, k)]
    labels = _labels(split, heads, given)
    out_shape = (*q.shape[:-1], v.shape[-1])
    out, _ = attend.bind([q, k, v, *given], f"{','.join(labels[:len(given) + 3])}->{labels[-2]},{labels[-1]}",
                         [(out_shape, q.dtype), ((*q.shape[:-1], 1), np.result_type(q.dtype, np.float32))],
                         causal=bool(causal), scale=None if scale is None else float(scale),
                         window=None if window is None else int(window))
    return out.reshape((*out_shape[:2], -1, out_shape[-1])) if split else out


def _labels(split: bool, heads: str, given: list[Array]) -> list[str]:
    """Of q, k, v, the mask if there is one, the result and the log-sum-exp."""
    of_keys = heads if heads == "h" else "K"
    inner, one = ("G", "1") if split else ("", "")
    labels = [f"bS{heads}{inner}D", f"bT{of_keys}{one}D", f"bT{of_keys}{one}E"]
    of_mask = f"b{'M' if split or heads == 'H' else 'h'}ST"
    labels += ["".join("1" if n == 1 else x for n, x in zip(m.shape, of_mask, strict=True)) for m in given]
    return [*labels, f"bS{heads}{inner}E", f"bS{heads}{inner}1"]


def _check(q: Array, k: Array, v: Array, window: int | None) -> None:
    if q.ndim != 4 or k.ndim != 4 or v.ndim != 4:
        raise ShapeError(f"attention takes q, k, v of four axes (batch, length, heads, d), got {q.shape}, {k.shape} and "
                         f"{v.shape}; reshape, as in x.reshape(batch, length, heads, d)")
    if q.dtype.kind != "f" or k.dtype.kind != "f" or v.dtype.kind != "f":
        raise DTypeError(f"attention takes floating arrays, got {q.dtype}, {k.dtype} and {v.dtype}; cast with "
                         "x.astype('float32')")
    if (q.shape[0], q.shape[3]) != (k.shape[0], k.shape[3]) or k.shape[:3] != v.shape[:3]:
        raise ShapeError(f"attention of q {q.shape}, k {k.shape} and v {v.shape}: batch and d of q and k, and batch, length "
                         "and heads of k and v, must be equal; check the order of the axes (batch, length, heads, d)")
    if k.shape[2] == 0 or q.shape[2] % k.shape[2]:
        raise ShapeError(f"attention of {q.shape[2]} query heads over {k.shape[2]} key heads: the second must divide the "
                         f"first; the nearest that does is {_nearest_divisor(q.shape[2], k.shape[2])}")
    if window is not None and window < 1:
        raise ShapeError(f"window={window} hides every key; give at least 1, or None for all keys")


def _nearest_divisor(n: int, near: int) -> int:
    return min((d for d in range(1, n + 1) if n % d == 0), key=lambda d: (abs(d - near), d), default=1)


def _mask(mask: Any, q: Array, k: Array) -> Array:
    m = asarray(mask)
    n_heads = int(np.prod(q.shape[2:-1]))
    wanted = (q.shape[0], n_heads, q.shape[1], k.shape[1])
    if m.ndim != 4 or any(n not in (1, w) for n, w in zip(m.shape, wanted, strict=True)):
        raise ShapeError(f"an attention mask of shape {m.shape} does not broadcast to (batch, heads, q_len, k_len) = {wanted}; "
                         "give it four axes, each of that extent or 1")
    if m.dtype != bool and m.dtype.kind != "f":
        raise DTypeError(f"an attention mask of dtype {m.dtype} is ambiguous; give bool (True: may be seen) or floating "
                         "(added to the scores)")
    return m


# -- on blocks --------------------------------------------------------------------------------------------------------

def _flop(q: tuple[int, ...], k: tuple[int, ...], *rest: Any, causal: bool, **static: Any) -> float:
    return 4.0 * float(np.prod(q)) * k[1] / (2 if causal else 1)


def _sequences(x: np.ndarray) -> np.ndarray:
    """(batch, length, heads, d): one axis for all heads."""
    return x if x.ndim == 4 else x.reshape(*x.shape[:2], -1, x.shape[-1])


@primitive(label="attention", n_out=2, flop=_flop)
def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None = None, *, causal: bool,
           scale: float | None, window: int | None) -> tuple[np.ndarray, np.ndarray]:
    """out, and the log-sum-exp of every row with a last axis of extent 1."""
    out = np.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    lse = np.empty((*q.shape[:-1], 1), np.result_type(q.dtype, np.float32))
    q, k, v, o, rows = map(_sequences, (q, k, v, out, lse))
    for b in range(len(q)):
        attention_block(q[b], k[b], v[b], causal, scale, window, o[b], rows[b, :, :, 0], _of(mask, b))
    return out, lse


def _of(mask: np.ndarray | None, b: int) -> np.ndarray | None:
    return None if mask is None else mask[min(b, len(mask) - 1)]


@primitive(label="attention.backward", n_out=3, flop=lambda *shapes, **static: 2.5 * _flop(*shapes, **static))
def attend_backward(q: np.ndarray, k: np.ndarray, v: np.ndarray, out: np.ndarray, lse: np.ndarray, g: np.ndarray,
                    mask: np.ndarray | None = None, *, causal: bool, scale: float | None,
                    window: int | None) -> tuple[np.ndarray, ...]:
    """Cotangents of q, k, v."""
    made = tuple(np.empty(x.shape, x.dtype) for x in (q, k, v))
    q, k, v, out, lse, g, *into = map(_sequences, (q, k, v, out, lse, g, *made))
    for b in range(len(q)):
        attention_gradients(q[b], k[b], v[b], out[b], lse[b, :, :, 0], g[b], causal, scale, window, _of(mask, b),
                            (into[0][b], into[1][b], into[2][b]))
    return made


@attend.defbackward
def _backward(call: Call, g: Array | None, of_lse: Array | None) -> list[Array | None]:
    if g is None:
        return [None] * len(call.args)
    q, k, v, *mask = call.args
    left, _, right = call.labels.partition("->")
    of_args = left.split(",")
    labels = [*of_args[:3], *right.split(","), right.split(",")[0], *of_args[3:]]
    made = attend_backward.bind([q, k, v, *call.outs, g, *mask], f"{','.join(labels)}->{','.join(of_args[:3])}",
                                [(x.shape, x.dtype) for x in (q, k, v)], **call.static)
    return [*made, *[None] * len(mask)]


@attend_backward.defbackward
def _second(call: Call, *cotangents: Array | None) -> list[Array | None]:
    if not any(c is not None for c in cotangents):
        return [None] * len(call.args)
    q, k, v, _, _, g, *mask = call.args
    of_primals, of_g = composed.second_order(lambda *x: composed.attention(*x, *mask, **call.static), [q, k, v], g, cotangents)
    return [*of_primals, None, None, of_g, *[None] * len(mask)]


__all__ = ["attention"]
