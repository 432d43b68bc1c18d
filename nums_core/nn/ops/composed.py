"""Fused operations written out in elementary ones: slower, and with derivatives of every order.

The derivative of a fused operation is a kernel too, and what that kernel's derivative should be is read off here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nums_core.array import contractions, creation, ranges
from nums_core.array import elementwise as ew
from nums_core.array.array import Array, asarray

LOWEST = -1e30  # of a hidden score: its exponential is 0, and it can be subtracted from itself


def second_order(f: Callable[..., Array], primals: Sequence[Array], g: Array, of_results: Sequence[Array | None],
                 ) -> tuple[list[Array | None], Array | None]:
    """Cotangents of (primals, g) under the map (primals, g) -> cotangents of the first primals, which is f's derivative.

    Parameters
    ----------
    f : function of `primals`, made of elementary operations
    g : cotangent of its result
    of_results : cotangents of as many of the map's results as the kernel has
    """
    from nums_core.nn.autodiff import vjp

    def pulled(g: Array, *primals: Array) -> tuple[Any, ...]:
        return vjp(f, *primals)[1](g)[:len(of_results)]

    results, pullback = vjp(pulled, g, *primals)
    given = tuple(creation.zeros(r.shape, r.dtype, chunks=r.chunks) if c is None else c
                  for c, r in zip(of_results, results, strict=True))
    of_g, *of_primals = pullback(given)
    return of_primals, of_g


def rms_norm(x: Array, w: Array, *, eps: float) -> Array:
    return x / ew.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * w


def layer_norm(x: Array, w: Array, b: Array, *, eps: float) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / ew.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps) * w + b


def swiglu(gate: Array, up: Array) -> Array:
    return gate * (ew.tanh(gate * 0.5) * 0.5 + 0.5) * up


def cross_entropies(logits: Array, labels: Array, *, ignore: int) -> Array:
    """Of every position, with a last axis of extent 1."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    logs = shifted - ew.log(ew.exp(shifted).sum(axis=-1, keepdims=True))
    named = labels[..., None] == ranges.arange(logits.shape[-1], chunks=-1)
    return -(logs * (named & (labels != ignore)[..., None]).astype(logits.dtype)).sum(axis=-1, keepdims=True)


def attention(q: Array, k: Array, v: Array, mask: Array | None = None, *, causal: bool, scale: float | None,
              window: int | None) -> Array:
    """q (batch, s, heads, d), or (batch, s, kv_heads, group, d) beside k, v (batch, t, kv_heads, 1, d)."""
    shape, (b, s), (t, n_kv) = q.shape, q.shape[:2], k.shape[1:3]
    q = q.reshape((b, s, n_kv, -1, shape[-1]))
    k, v = (x.reshape((b, t, n_kv, x.shape[-1])) for x in (k, v))
    scores = contractions.einsum("bskgd,btkd->bkgst", q, k) * (shape[-1] ** -0.5 if scale is None else scale)
    own, at = np.arange(s)[:, None] + t - s, np.arange(t)
    seen: Any = asarray(((at <= own) | (not causal)) & (True if window is None else at > own - window))
    if mask is not None:
        parts = mask.reshape((mask.shape[0], 1 if mask.shape[1] == 1 else n_kv, -1, *mask.shape[2:]))
        seen, scores = (seen & parts, scores) if mask.dtype == bool else (seen, scores + parts)
    scores = ew.where(seen, scores, LOWEST)
    p = ew.exp(scores - scores.max(axis=-1, keepdims=True))
    p = p / p.sum(axis=-1, keepdims=True) * seen
    made = contractions.einsum("bkgst,btke->bskge", p, v)
    return made.reshape((*shape[:-1], v.shape[-1]))


__all__ = ["attention", "cross_entropies", "layer_norm", "rms_norm", "second_order", "swiglu"]
