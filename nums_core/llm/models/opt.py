"""OPT: layer norms, learned positions, ReLU.

Source: Zhang et al., "OPT: Open Pre-trained Transformer Language Models", 2022, section 2. The 350M model differs from all
others: its norms stand after attention and MLP, none before the logits, and its embedding is narrower than its layers.
"""

from __future__ import annotations

from typing import Any, Self

from nums_core.array import ranges
from nums_core.array.array import Array, asarray
from nums_core.llm.config import ModelConfig
from nums_core.llm.models.decoder import Attend, Attention, Decoder, init_head, init_layers
from nums_core.nn.layers.embedding import Embedding, PositionEmbedding
from nums_core.nn.layers.linear import Linear
from nums_core.nn.layers.mlp import MLP
from nums_core.nn.layers.norm import LayerNorm
from nums_core.nn.module import Module, static

OFFSET = 2  # rows of the table of positions before that of position 0


class OPTLayer(Module):
    """x + attention(norm x), then x + mlp(norm x); norm(x + ...) where not `pre_norm`."""

    attention_norm: LayerNorm
    attention: Attention
    mlp_norm: LayerNorm
    mlp: MLP
    pre_norm: bool = static()

    @classmethod
    def init(cls, keys: Any, c: ModelConfig, dtype: str) -> Self:
        mlp = MLP.init(keys.split("mlp"), c.hidden_size, c.intermediate_size, c.activation, c.mlp_bias, dtype)
        return cls(LayerNorm.init(c.hidden_size, c.norm_eps), Attention.init(keys.split("attention"), c, dtype),
                   LayerNorm.init(c.hidden_size, c.norm_eps), mlp, c.pre_norm)

    def __call__(self, x: Array, attend: Attend, layer: int) -> Array:
        if self.pre_norm:
            x = x + self.attention(self.attention_norm(x), attend, layer)
            return x + self.mlp(self.mlp_norm(x))
        x = self.attention_norm(x + self.attention(x, attend, layer))
        return self.mlp_norm(x + self.mlp(x))


class OPT(Decoder):
    """A decoder of the OPT family."""

    positions: PositionEmbedding
    project_in: Linear | None
    project_out: Linear | None

    @classmethod
    def init(cls, keys: Any, config: ModelConfig, dtype: str = "float32") -> Self:
        c = config
        narrow, wide = c.embedding_size, c.hidden_size

        def project(name: str, n_in: int, n_out: int) -> Linear | None:
            return None if narrow == wide else Linear.init(keys.split(name), n_in, n_out, False, dtype)

        return cls(embedding=Embedding.init(keys.split("embedding"), c.vocab_size, narrow, dtype),
                   layers=init_layers(OPTLayer, keys, c, dtype),
                   norm=LayerNorm.init(wide, c.norm_eps) if c.final_norm else None, head=init_head(keys, c, dtype), config=c,
                   positions=PositionEmbedding.init(keys.split("positions"), c.max_positions, wide, dtype, offset=OFFSET),
                   project_in=project("project_in", narrow, wide), project_out=project("project_out", wide, narrow))

    def embed(self, tokens: Array, positions: Any) -> Array:
        positions = ranges.arange(tokens.shape[-1], dtype="int32", chunks=-1) if positions is None else asarray(positions)
        x = self.embedding(tokens)
        if self.project_in is not None:
            x = self.project_in(x)
        return x + self.positions(positions)

    def finish(self, x: Array) -> Array:
        if self.norm is not None:
            x = self.norm(x)
        return x if self.project_out is None else self.project_out(x)
