"""A tiny random LLaMA, and what it says without any engine."""

import numpy as np
import pytest

from nums_core.llm.cache.full import Full
from nums_core.llm.config import ModelConfig
from nums_core.llm.engine.runner import computed
from nums_core.llm.llm import make_engine
from nums_core.llm.models.llama import Llama
from nums_core.llm.options import Sizes
from nums_core.nn.init import Keys

CONFIG = ModelConfig("llama", vocab_size=64, hidden_size=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8,
                     intermediate_size=48, max_positions=96, rotary_dim=8)


class Tiny:
    """The model, engines over it, and the oracle: whole sequences through plain causal attention."""

    def __init__(self):
        self.config = CONFIG
        random = computed(Llama.init(Keys(3), CONFIG))
        self.model = random.with_parameters({name: p * 4 for name, p in random.parameters().items() if "norm" not in name})
        self.model = computed(self.model)
        self.memory = {}

    def engine(self, policy=None, model=None, **sizes):
        sizes = {"max_batch": 4, "max_step_tokens": 16, "page_tokens": 4} | sizes
        return make_engine(model or self.model, CONFIG, Sizes(**sizes), policy or Full())

    def page_bytes(self, page_tokens=4):
        return CONFIG.n_layers * 2 * CONFIG.n_kv_heads * CONFIG.head_dim * 4 * page_tokens

    def logits(self, tokens):
        """Of every token, padded to a few lengths so that few plans are made."""
        key = tuple(tokens)
        if key not in self.memory:
            padded = np.zeros((1, -(-len(tokens) // 32) * 32), np.int32)
            padded[0, :len(tokens)] = tokens
            self.memory[key] = np.asarray(self.model(padded))[0, :len(tokens)]
        return self.memory[key]

    def greedy(self, prompt, n):
        tokens = list(prompt)
        for _ in range(n):
            tokens.append(int(self.logits(tokens)[-1].argmax()))
        return tokens[len(prompt):]


@pytest.fixture(scope="session")
def tiny():
    return Tiny()
