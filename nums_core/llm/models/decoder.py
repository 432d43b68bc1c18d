"""What all families of decoders share: embed, layers, norm, logits; and attention whose keys and values live elsewhere.

A model does not know where keys and values are kept. It hands each layer's q, k and v, not yet rotated, to `attend`, and goes
on with what comes back: in training that is attention over the sequence itself (`CausalAttend`), in an engine a cache
with any policy.
"""

from __future__ import annotations

from typing import Any, Protocol, Self

from nums_core.array import ranges
from nums_core.array.array import Array, asarray
from nums_core.llm.config import ModelConfig
from nums_core.nn.functional import attention
from nums_core.nn.layers.embedding import Embedding
from nums_core.nn.layers.linear import Linear
from nums_core.nn.layers.rotary import Rotary
from nums_core.nn.module import Module, static


class Attend(Protocol):
    """Attention of one layer, wherever its keys and values are."""

    def __call__(self, layer: int, q: Array, k: Array, v: Array, rotary: Rotary | None) -> Array:
        """Attend with the queries of new tokens.

        Parameters
        ----------
        q : Array, shape (*lead, heads, d)
        k, v : Array, shape (*lead, kv_heads, d)
        rotary : Rotary or None
            To be applied to q and k at the tokens' positions.

        Returns
        -------
        Array, shape of `q`
        """


class CausalAttend:
    """Every token attends to itself and those before it in its own sequence; positions count from 0.

    `window`, tokens: at most so many keys are seen, the query's own among them.
    """

    def __init__(self, window: int | None = None) -> None:
        self.window = window

    def __call__(self, layer: int, q: Array, k: Array, v: Array, rotary: Rotary | None) -> Array:
        if q.ndim == 3:  # one sequence without a batch
            return self(layer, q[None], k[None], v[None], rotary)[0]
        if rotary is not None:
            positions = ranges.arange(q.shape[1], dtype="int32", chunks=-1)
            q, k = rotary(q, positions), rotary(k, positions)
        return attention(q, k, v, causal=True, window=self.window)


class Attention(Module):
    """Projections to queries, keys and values of all heads, and back."""

    q: Linear
    k: Linear
    v: Linear
    out: Linear
    rotary: Rotary | None
    head_dim: int = static()

    @classmethod
    def init(cls, keys: Any, c: ModelConfig, dtype: str) -> Self:
        def linear(name: str, n_in: int, n_out: int, bias: bool) -> Linear:
            return Linear.init(keys.split(name), n_in, n_out, bias, dtype)

        inner, outer = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
        return cls(linear("q", c.hidden_size, inner, c.qkv_bias), linear("k", c.hidden_size, outer, c.qkv_bias),
                   linear("v", c.hidden_size, outer, c.qkv_bias), linear("out", inner, c.hidden_size, c.out_bias),
                   rotary(c), c.head_dim)

    def __call__(self, x: Array, attend: Attend, layer: int) -> Array:
        """x : (*lead, hidden_size); a residual of the same shape."""
        lead = x.shape[:-1]
        q, k, v = (f(x).reshape(*lead, -1, self.head_dim) for f in (self.q, self.k, self.v))
        return self.out(attend(layer, q, k, v, self.rotary).reshape(*lead, -1))


def rotary(c: ModelConfig) -> Rotary | None:
    """How a model of this configuration turns q and k; None where its positions are learned."""
    if not c.rotary_dim:
        return None
    return Rotary(c.rotary_dim, c.rope_base, c.rope_scaling, c.rope_interleaved)


class Decoder(Module):
    """A language model: tokens in, logits of the next token out.

    Families differ in `init` and in their layers, which are called as `layer(x, attend, i)`.
    """

    embedding: Embedding
    layers: tuple[Any, ...]
    norm: Any
    head: Linear | None  # None: the embedding's matrix serves for the logits too
    config: ModelConfig = static()

    @classmethod
    def init(cls, keys: Any, config: ModelConfig, dtype: str = "float32") -> Self:
        """A model with random weights.

        Parameters
        ----------
        keys : nn.init.Keys
            Seed of the weights; the same seed gives the same bits.
        config : ModelConfig, of this family
        """
        raise NotImplementedError

    def __call__(self, tokens: Any, *, attend: Attend | None = None, positions: Any = None) -> Array:
        """Logits of the token that follows each token.

        Parameters
        ----------
        tokens : integers, shape (batch, seq); any leading shape that `attend` understands, (n_tokens,) in an engine
        attend : Attend, optional
            Where keys and values are. Default: causal attention over the sequence.
        positions : integers, shape of `tokens`, optional
            For learned positions; 0, 1, ... if not given. (`attend` knows those of rotary embeddings.)

        Returns
        -------
        Array, float32, shape (*tokens.shape, vocab_size)
        """
        return self.logits(self.hidden(tokens, attend=attend, positions=positions))

    def hidden(self, tokens: Any, *, attend: Attend | None = None, positions: Any = None) -> Array:
        """The last layer's output, normalised: (*tokens.shape, hidden size). Arguments as of a call."""
        tokens = asarray(tokens)
        attend = CausalAttend(self.config.window) if attend is None else attend
        x = self.embed(tokens, positions)
        for i, layer in enumerate(self.layers):
            x = layer(x, attend, i)
        return self.finish(x)

    def embed(self, tokens: Array, positions: Any) -> Array:
        """What the first layer reads."""
        return self.embedding(tokens)

    def finish(self, x: Array) -> Array:
        """What the logits are made of."""
        return self.norm(x)

    def logits(self, hidden: Array) -> Array:
        """Logits over the vocabulary, of any rows of `hidden`."""
        if self.head is not None:
            return self.head(hidden)
        return self.embedding.logits(hidden)


def init_head(keys: Any, c: ModelConfig, dtype: str) -> Linear | None:
    """The matrix of the logits, where it is not the embedding's."""
    return None if c.tie_embeddings else Linear.init(keys.split("head"), c.embedding_size, c.vocab_size, False, dtype)


def init_layers(layer: Any, keys: Any, c: ModelConfig, dtype: str) -> tuple[Any, ...]:
    """All layers, each with a seed of its own."""
    return tuple(layer.init(keys.split(f"layers.{i}"), c, dtype) for i in range(c.n_layers))
