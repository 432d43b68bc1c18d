"""What the measures ask of a model: the log-probability of each token, given those before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np


class Scorer(Protocol):
    """Anything that can be judged. One that also has `score_batch(list of sequences)` is given many at once."""

    def score(self, token_ids: Sequence[int]) -> np.ndarray:
        """Natural logarithms of p(token | tokens before it), of every token but the first: float64, shape (n - 1,)."""
        ...


def score_all(scorer: Scorer, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """The scores of each of several sequences.

    Raises
    ------
    ValueError
        The scorer gives another number of scores than there are tokens to score.
    """
    together = getattr(scorer, "score_batch", None)
    found = together(sequences) if together is not None else [scorer.score(s) for s in sequences]
    scores = [np.asarray(s, dtype=np.float64) for s in found]
    for tokens, s in zip(sequences, scores, strict=True):
        if s.shape != (max(len(tokens) - 1, 0),):
            raise ValueError(f"a scorer gave scores of shape {s.shape} for {len(tokens)} tokens; score() returns one for each "
                             f"token but the first, shape ({max(len(tokens) - 1, 0)},)")
    return scores


class LLMScorer:
    """An `LLM` with its engine and its KV policy.

    Parameters
    ----------
    llm : LLM
    chunk : int, tokens, optional
        Read at once. A policy with a budget evicts after each chunk: 1 judges it as in decoding. Default: the LLM's.
    """

    def __init__(self, llm: Any, chunk: int | None = None) -> None:
        self.llm = llm
        self._how = {} if chunk is None else {"chunk": chunk}

    def score(self, token_ids: Sequence[int]) -> np.ndarray:
        scores: np.ndarray = self.llm.score(list(token_ids), **self._how)
        return scores

    def score_batch(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        scores: list[np.ndarray] = self.llm.score([list(s) for s in sequences], **self._how) if sequences else []
        return scores

    def continue_greedily(self, contexts: Sequence[Sequence[int]], n_tokens: Sequence[int]) -> list[tuple[int, ...]]:
        """The likeliest token after each context, again and again: `n_tokens[k]` of them, past the end of a text too."""
        from nums_core.llm.sampler import SamplingParams

        params = [SamplingParams(max_tokens=n, ignore_eos=True) for n in n_tokens]
        results = self.llm.generate([list(c) for c in contexts], params)
        wrong = next((r.error for r in results if r.error), None)
        if wrong is not None:
            raise ValueError(wrong)
        return [tuple(r.token_ids) for r in results]


class LogitsScorer:
    """A function from token ids to logits: a model in training, say, or a table of bigrams.

    Parameters
    ----------
    logits : callable
        int64 ndarray, shape (n,) -> ndarray, shape (n, vocab): row k predicts token k + 1.
    """

    def __init__(self, logits: Callable[[np.ndarray], Any]) -> None:
        self.logits = logits

    def score(self, token_ids: Sequence[int]) -> np.ndarray:
        tokens = np.asarray(token_ids, dtype=np.int64)
        if len(tokens) < 2:
            return np.empty(0)
        rows = np.asarray(self.logits(tokens), dtype=np.float64)[:-1]
        rows = rows - rows.max(axis=1, keepdims=True)
        return rows[np.arange(len(rows)), tokens[1:]] - np.log(np.exp(rows).sum(axis=1))

    def continue_greedily(self, contexts: Sequence[Sequence[int]], n_tokens: Sequence[int]) -> list[tuple[int, ...]]:
        """See `LLMScorer.continue_greedily`."""
        out = []
        for context, n in zip(contexts, n_tokens, strict=True):
            tokens = list(context)
            for _ in range(n):
                tokens.append(int(np.argmax(np.asarray(self.logits(np.asarray(tokens)))[-1])))
            out.append(tuple(tokens[len(context):]))
        return out
