"""Language models on nums_core arrays: weights, tokenizers, KV caches, the engine. Everything is imported when first used.

    from nums_core.llm import LLM
    print(LLM("model.gguf").generate("The capital of France is", max_tokens=8)[0].text)
"""

import importlib as _importlib
from typing import Any as _Any

# Where each public name lives.
_NAMES = {
    "cache.full": ("Full",),
    "cache.h2o": ("H2O",),
    "cache.tova": ("TOVA",),
    "cache.window": ("Window",),
    "llm": ("LLM",),
    "sampler": ("SamplingParams",),
    "tokenizer": ("Tokenizer",),
    "weights.load": ("load_model",),
}

__all__ = [name for names in _NAMES.values() for name in names]


def __getattr__(name: str) -> _Any:
    home = next((m for m, names in _NAMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'nums_core.llm' has no attribute {name!r}")
    return getattr(_importlib.import_module(f"nums_core.llm.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
