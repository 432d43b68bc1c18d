"""Optimisers, their schedules, clipping, and mixed precision: all of them functions from arrays to arrays."""

from nums_core.nn.optim.adafactor import Adafactor as Adafactor
from nums_core.nn.optim.adam import Adam as Adam
from nums_core.nn.optim.adam import AdamW as AdamW
from nums_core.nn.optim.clipping import clip_by_global_norm as clip_by_global_norm
from nums_core.nn.optim.clipping import clip_by_value as clip_by_value
from nums_core.nn.optim.clipping import global_norm as global_norm
from nums_core.nn.optim.optimiser import Optimiser as Optimiser
from nums_core.nn.optim.precision import LossScale as LossScale
from nums_core.nn.optim.precision import Precision as Precision
from nums_core.nn.optim.schedules import Constant as Constant
from nums_core.nn.optim.schedules import Cosine as Cosine
from nums_core.nn.optim.schedules import InverseSqrt as InverseSqrt
from nums_core.nn.optim.schedules import Linear as Linear
from nums_core.nn.optim.schedules import Piecewise as Piecewise
from nums_core.nn.optim.schedules import Schedule as Schedule
from nums_core.nn.optim.sgd import SGD as SGD

__all__ = ["SGD", "Adafactor", "Adam", "AdamW", "Constant", "Cosine", "InverseSqrt", "Linear", "LossScale", "Optimiser",
           "Piecewise", "Precision", "Schedule", "clip_by_global_norm", "clip_by_value", "global_norm"]
