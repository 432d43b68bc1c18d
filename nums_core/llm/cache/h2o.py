"""H2O: heavy hitters and recent tokens are kept; what received least attention goes.

Source     Zhang et al., "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models", NeurIPS 2023,
           arXiv 2306.14048v3: section 4, Algorithm 1 (with the accumulated scores of its text and code).
Notation   A_v  score of position v: the probability it received from all queries since it entered, in float32
           K_h, K_r  heavy and recent budget, tokens, of each KV head of each layer
Departs    (1) Grouped queries: a KV head's score is the sum over the query heads that share it.
           (2) Optional: the first `sinks` tokens stay (they count as heavy), scores fade by `decay` a step (early tokens have a
           head start that long texts never undo), keys are rotated by rank (`rolling`).
           (3) A prompt read in chunks is evicted down to the budget after each, so that memory stays at budget + chunk;
           read at once it is the paper's: full attention over the prompt, then the best by column sums.
Checked    against a dense masked simulation, step by step (testing.cache).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nums_core.errors import ConfigError
from nums_core.llm.cache.policy import (
    Budget,
    Limits,
    check_budget,
    check_count,
    fading,
    tokens_of,
    unless_protected,
)


@dataclass(frozen=True)
class H2O:
    """Keeps the last `recent` tokens and, of those before, the `heavy` with the largest accumulated attention.

    A step appends its tokens, attends over all that is held, adds what each key received to its score, and then, while more
    than heavy + recent tokens are held, drops the least score among those older than the last `recent`; of equal
    scores the oldest. Each KV head of each layer decides for itself.

    Parameters
    ----------
    heavy, recent : int (tokens) or float (fraction of the prompt)
        A fraction never gives less than `sinks` heavy tokens and 1 of each kind.
    sinks : int, tokens
        First ones that are never dropped; part of `heavy`.
    decay : float
        What a score is multiplied by before each query; 1 is the paper's sum.
    rolling : bool
        Rotate keys by their rank in the cache: needed for texts beyond the trained length.

    Raises
    ------
    ConfigError
        A budget too small: without a recent window the newest token, whose score is least, would go at once.
    """

    heavy: Budget = 0.1
    recent: Budget = 0.1
    sinks: int = 0
    decay: float = 1.0
    rolling: bool = False

    positioned = scored = True
    window = None

    def __post_init__(self) -> None:
        check_count("H2O", "sinks", self.sinks)
        check_budget("H2O", "heavy", self.heavy, max(self.sinks, 1))
        check_budget("H2O", "recent", self.recent, 1)
        if not 0.0 <= self.decay <= 1.0:
            raise ConfigError(f"H2O: decay is {self.decay}; it must be from 0 to 1, where 1 forgets nothing")

    def limits(self, prompt_tokens: int) -> Limits:
        heavy = max(tokens_of(self.heavy, prompt_tokens), self.sinks, 1)
        recent = max(tokens_of(self.recent, prompt_tokens), 1)
        return Limits(heavy + recent, recent)

    def slots(self, n_tokens: int, chunk: int) -> int:
        return self.limits(n_tokens).slots(n_tokens, chunk)

    def weights(self, n: int) -> tuple[float, np.ndarray]:
        """A query's probabilities fade with the queries that came after it in the same step."""
        return fading(self.decay, n)

    def pooled(self, received: np.ndarray) -> np.ndarray:
        return received

    def priority(self, score: np.ndarray | None, position: np.ndarray, recent_from: Any) -> np.ndarray:
        return unless_protected(score, position, self.sinks, recent_from)
