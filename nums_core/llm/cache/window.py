"""Window: the first tokens and the last ones are kept, whatever they say.

Source     Xiao et al., "Efficient Streaming Language Models with Attention Sinks", arXiv 2309.17453 (StreamingLLM).
Departs    Positions are true ones by default; `rolling=True` gives the paper's, by rank in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nums_core.llm.cache.policy import Limits, check_count, fading, unless_protected


@dataclass(frozen=True)
class Window:
    """Keeps the first `sinks` tokens and the last `window`. A query sees just these, however the prompt was cut.

    Parameters
    ----------
    window : int, tokens
        At least 1; the query's own token is one of them.
    sinks : int, tokens
        Trained models put much attention on the first few tokens and fail without them.
    rolling : bool
        Rotate keys by their rank in the cache: needed for texts beyond the trained length.
    """

    window: int
    sinks: int = 4
    rolling: bool = False

    positioned = True
    scored = False

    def __post_init__(self) -> None:
        check_count("Window", "window", self.window, 1)
        check_count("Window", "sinks", self.sinks)

    def limits(self, prompt_tokens: int) -> Limits:
        return Limits(self.sinks + self.window, self.window)

    def slots(self, n_tokens: int, chunk: int) -> int:
        return self.limits(n_tokens).slots(n_tokens, chunk)

    def weights(self, n: int) -> tuple[float, np.ndarray]:
        return fading(1.0, n)

    def pooled(self, received: np.ndarray) -> np.ndarray:
        return received

    def priority(self, score: np.ndarray | None, position: np.ndarray, recent_from: Any) -> np.ndarray:
        return unless_protected(np.float32(0), position, self.sinks, recent_from)
