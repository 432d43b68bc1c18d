"""LLaMA: RMS norms, rotary positions, gated SiLU. Mistral (a sliding window) and Qwen2 (biases) are settings of it.

Sources: Touvron et al., "LLaMA", 2023, and "Llama 2", 2023 (grouped queries); Jiang et al., "Mistral 7B", 2023, section 2
(window); Yang et al., "Qwen2 Technical Report", 2024, section 2.2.
"""

from __future__ import annotations

from typing import Any, Self

from nums_core.array.array import Array
from nums_core.llm.config import ModelConfig
from nums_core.llm.models.decoder import Attend, Attention, Decoder, init_head, init_layers
from nums_core.nn.layers.embedding import Embedding
from nums_core.nn.layers.mlp import GatedMLP
from nums_core.nn.layers.norm import RMSNorm
from nums_core.nn.module import Module


class LlamaLayer(Module):
    """x + attention(norm x), then x + mlp(norm x)."""

    attention_norm: RMSNorm
    attention: Attention
    mlp_norm: RMSNorm
    mlp: GatedMLP

    @classmethod
    def init(cls, keys: Any, c: ModelConfig, dtype: str) -> Self:
        mlp = GatedMLP.init(keys.split("mlp"), c.hidden_size, c.intermediate_size, c.activation, c.mlp_bias, dtype)
        return cls(RMSNorm.init(c.hidden_size, c.norm_eps), Attention.init(keys.split("attention"), c, dtype),
                   RMSNorm.init(c.hidden_size, c.norm_eps), mlp)

    def __call__(self, x: Array, attend: Attend, layer: int) -> Array:
        x = x + self.attention(self.attention_norm(x), attend, layer)
        return x + self.mlp(self.mlp_norm(x))


class Llama(Decoder):
    """A decoder of the LLaMA family."""

    @classmethod
    def init(cls, keys: Any, config: ModelConfig, dtype: str = "float32") -> Self:
        return cls(Embedding.init(keys.split("embedding"), config.vocab_size, config.hidden_size, dtype),
                   init_layers(LlamaLayer, keys, config, dtype), RMSNorm.init(config.hidden_size, config.norm_eps),
                   init_head(keys, config, dtype), config)
