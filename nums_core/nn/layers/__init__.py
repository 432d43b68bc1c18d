"""Layers: modules with their parameters and their function."""

from nums_core.nn.layers.attention import Attention as Attention
from nums_core.nn.layers.conv import Conv as Conv
from nums_core.nn.layers.dropout import Dropout as Dropout
from nums_core.nn.layers.embedding import Embedding as Embedding
from nums_core.nn.layers.embedding import PositionEmbedding as PositionEmbedding
from nums_core.nn.layers.linear import Linear as Linear
from nums_core.nn.layers.mlp import MLP as MLP
from nums_core.nn.layers.mlp import GatedMLP as GatedMLP
from nums_core.nn.layers.norm import LayerNorm as LayerNorm
from nums_core.nn.layers.norm import RMSNorm as RMSNorm
from nums_core.nn.layers.rotary import Rotary as Rotary

__all__ = ["Attention", "Conv", "Dropout", "Embedding", "GatedMLP", "LayerNorm", "Linear", "MLP", "PositionEmbedding",
           "RMSNorm", "Rotary"]
