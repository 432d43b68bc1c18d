"""Neural networks on nums_core arrays: modules, derivatives, optimisers, training. Everything is imported when first used.

    from nums_core import nn
    layer = nn.Linear.init(nn.Keys(0), 64, 32)
    loss, grads = nn.value_and_grad(lambda m, x: nn.functional.relu(m(x)).sum())(layer, x)
"""

import importlib as _importlib
from typing import Any as _Any

# Where each public name lives.
_NAMES = {
    "autodiff": ("checkpoint", "grad", "saved", "stop_gradient", "value_and_grad", "vjp"),
    "checkpoints": ("Checkpoints",),
    "init": ("Keys",),
    "layers": ("MLP", "Attention", "Conv", "Dropout", "Embedding", "GatedMLP", "LayerNorm", "Linear", "PositionEmbedding",
               "RMSNorm", "Rotary"),
    "module": ("Module", "static"),
    "primitives": ("primitive",),
    "quantized": ("QuantizedArray",),
    "train": ("init_state", "train_step"),
    "trainer": ("Trainer",),
}
_MODULES = ("data", "functional", "init", "losses", "optim", "tree")

__all__ = [*_MODULES, *(name for names in _NAMES.values() for name in names)]


def __getattr__(name: str) -> _Any:
    if name in _MODULES:
        return _importlib.import_module(f"nums_core.nn.{name}")
    home = next((m for m, names in _NAMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'nums_core.nn' has no attribute {name!r}")
    return getattr(_importlib.import_module(f"nums_core.nn.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
