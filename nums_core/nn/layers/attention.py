"""Multi-head attention with its four projections."""

from __future__ import annotations

from typing import Any, Self

from nums_core.array import ranges
from nums_core.array.array import Array
from nums_core.errors import ShapeError
from nums_core.nn.functional import attention
from nums_core.nn.init import Keys
from nums_core.nn.layers.linear import Linear
from nums_core.nn.layers.rotary import Rotary
from nums_core.nn.module import Module, static


class Attention(Module):
    """o(attention(q(x), k(x), v(x))), in `heads` heads that share `kv_heads` keys and values.

    Parameters
    ----------
    q, k, v, o : Linear
        d -> heads·head_dim, kv_heads·head_dim (twice), and back.
    rotary : Rotary, optional
        Turns queries and keys by their positions.
    heads, kv_heads : int
    causal : bool
    window : int, tokens, optional

    References
    ----------
    .. [1] A. Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.2.
    """

    q: Linear
    k: Linear
    v: Linear
    o: Linear
    rotary: Rotary | None = None
    heads: int = static(default=1)
    kv_heads: int = static(default=1)
    causal: bool = static(default=True)
    window: int | None = static(default=None)

    @classmethod
    def init(cls, rng: Keys, d: int, heads: int, kv_heads: int | None = None, head_dim: int | None = None,
             rotary: Rotary | None = None, bias: bool = False, dtype: Any = "float32", **settings: Any) -> Self:
        """head_dim is d / heads unless given."""
        if head_dim is None:
            if d % heads:
                raise ShapeError(f"{heads} heads do not divide {d} features; give head_dim=, or another number of heads")
            head_dim = d // heads
        kv_heads = heads if kv_heads is None else kv_heads
        q, k, v = (Linear.init(rng.split(name), d, n * head_dim, bias, dtype)
                   for name, n in (("q", heads), ("k", kv_heads), ("v", kv_heads)))
        o = Linear.init(rng.split("o"), heads * head_dim, d, bias, dtype)
        return cls(q, k, v, o, rotary, heads, kv_heads, **settings)

    def __call__(self, x: Array, positions: Array | None = None, mask: Any = None) -> Array:
        """x (batch, length, d) -> like x. `positions` broadcasts to (batch, length); 0, 1, .. if not given."""
        q, k, v = (project(x).reshape((*x.shape[:2], n, -1))
                   for project, n in ((self.q, self.heads), (self.k, self.kv_heads), (self.v, self.kv_heads)))
        if self.rotary is not None:
            at = ranges.arange(x.shape[1], dtype="int32", chunks=-1) if positions is None else positions
            q, k = self.rotary(q, at), self.rotary(k, at)
        made = attention(q, k, v, causal=self.causal, window=self.window, mask=mask)
        return self.o(made.reshape((*x.shape[:2], -1)))


__all__ = ["Attention"]
