"""GPT-NeoX and Pythia: layer norms, positions rotated in part of each head, attention and MLP side by side.

Source: Black et al., "GPT-NeoX-20B", 2022, section 2.
"""

from __future__ import annotations

from typing import Any, Self

from nums_core.array.array import Array
from nums_core.llm.config import ModelConfig
from nums_core.llm.models.decoder import Attend, Attention, Decoder, init_head, init_layers
from nums_core.nn.layers.embedding import Embedding
from nums_core.nn.layers.mlp import MLP
from nums_core.nn.layers.norm import LayerNorm
from nums_core.nn.module import Module, static


class NeoXLayer(Module):
    """x + attention(norm x) + mlp(norm' x); one after the other where not `parallel`."""

    attention_norm: LayerNorm
    attention: Attention
    mlp_norm: LayerNorm
    mlp: MLP
    parallel: bool = static()

    @classmethod
    def init(cls, keys: Any, c: ModelConfig, dtype: str) -> Self:
        mlp = MLP.init(keys.split("mlp"), c.hidden_size, c.intermediate_size, c.activation, c.mlp_bias, dtype)
        return cls(LayerNorm.init(c.hidden_size, c.norm_eps), Attention.init(keys.split("attention"), c, dtype),
                   LayerNorm.init(c.hidden_size, c.norm_eps), mlp, c.parallel_residual)

    def __call__(self, x: Array, attend: Attend, layer: int) -> Array:
        attended = x + self.attention(self.attention_norm(x), attend, layer)
        return attended + self.mlp(self.mlp_norm(x if self.parallel else attended))


class GPTNeoX(Decoder):
    """A decoder of the GPT-NeoX family."""

    @classmethod
    def init(cls, keys: Any, config: ModelConfig, dtype: str = "float32") -> Self:
        return cls(Embedding.init(keys.split("embedding"), config.vocab_size, config.hidden_size, dtype),
                   init_layers(NeoXLayer, keys, config, dtype), LayerNorm.init(config.hidden_size, config.norm_eps),
                   init_head(keys, config, dtype), config)
