"""Perplexity: how many tokens a model finds equally likely, on average, where it reads a text.

    exp(-1/n Σ log p(token_i | tokens before it in its window))

A text longer than the model's context is read in windows. Every token but the first is scored exactly once, in the window
where it has most before it: at least `window_tokens - stride` tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nums_core.errors import ConfigError
from nums_core.llm.eval.scorer import Scorer, score_all


@dataclass(frozen=True)
class Perplexity:
    """What a text's tokens cost.

    Attributes
    ----------
    nats : float
        -Σ log p over the scored tokens.
    n_tokens, n_windows : int
        Tokens scored; windows read.
    n_bytes : int, bytes, optional
        Of the whole text, which `bits_per_byte` needs; that, unlike perplexity, compares models with other tokenizers.
    """

    nats: float
    n_tokens: int
    n_windows: int
    n_bytes: int | None = None

    @property
    def value(self) -> float:
        return math.exp(self.nats / self.n_tokens)

    @property
    def bits_per_byte(self) -> float | None:
        return self.nats / math.log(2) / self.n_bytes if self.n_bytes else None

    def __str__(self) -> str:
        bits = f", {self.bits_per_byte:.4f} bits a byte" if self.n_bytes else ""
        return f"perplexity {self.value:.4f}{bits} ({self.n_tokens} tokens in {self.n_windows} windows)"


class Window(NamedTuple):
    """Tokens [begin, end) are read, those from `first` on are scored."""

    begin: int
    end: int
    first: int


def windows(n_tokens: int, window_tokens: int, stride: int | None = None) -> list[Window]:
    """The windows over a text.

    Parameters
    ----------
    window_tokens : int, tokens
        Read at once, at most.
    stride : int, tokens, optional
        Scored in a window; at most `window_tokens - 1`, the default, since a window's first token has nothing before it.

    Raises
    ------
    ConfigError
        The sizes leave nothing to score.
    """
    stride = window_tokens - 1 if stride is None else stride
    if not 1 <= stride < window_tokens:
        raise ConfigError(f"windows of {window_tokens} tokens cannot score {stride} new ones each; stride must be from 1 to "
                          f"{window_tokens - 1}, one below the window, and a window at least 2")
    if n_tokens < 2:
        raise ConfigError(f"the text has {n_tokens} tokens; a first one and one to score are needed: give a longer text")
    ends = [min(first + stride, n_tokens) for first in range(1, n_tokens, stride)]
    return [Window(max(0, end - window_tokens), end, first) for first, end in zip(range(1, n_tokens, stride), ends)]


def perplexity(scorer: Scorer, token_ids: Sequence[int], window_tokens: int = 1024, stride: int | None = None, *,
               n_bytes: int | None = None, batch: int = 16) -> Perplexity:
    """The perplexity of a text.

    Parameters
    ----------
    token_ids : ints
        The text; if its model wants a beginning-of-text token, the first is that.
    window_tokens, stride : int, tokens
        See `windows`.
    n_bytes : int, bytes, optional
        Of the text, for `bits_per_byte`.
    batch : int
        Windows given to the scorer at once.

    Raises
    ------
    ConfigError
        See `windows`.
    ValueError
        The model gives NaN somewhere.
    """
    spans = windows(len(token_ids), window_tokens, stride)
    nats, n_scored = 0.0, 0
    for k in range(0, len(spans), batch):
        some = spans[k:k + batch]
        for w, scores in zip(some, score_all(scorer, [token_ids[w.begin:w.end] for w in some])):
            new = scores[w.first - w.begin - 1:]
            if not (new <= 1e-6).all():
                raise ValueError(f"the model gave log-probabilities that are none (NaN, or above 0) for tokens {w.first} to "
                                 f"{w.end}; its weights may be damaged: try dtype='float32'")
            nats -= float(new.sum())
            n_scored += len(new)
    return Perplexity(nats, n_scored, len(spans), n_bytes)
