"""A sequence: one request's tokens, how far the cache holds them, and how it ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from nums_core.llm.sampler import SamplingParams, TokenRandom

TopLogprobs = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Completion:
    """What became of one request.

    Attributes
    ----------
    request_id : str
    prompt_ids, token_ids : tuples of int
        What was given and what was made of it; the token that ended the text is among `token_ids`, its text is not in
        `text`.
    text : str
        Up to the end-of-text token or stop string, which are left out.
    logprobs : tuple of float
        Natural logarithm of the probability that the model gave each of `token_ids`, before temperature and filters.
    finish_reason : "stop", "length", "abort" or "error"
        An end-of-text token or stop string; `max_tokens` or the context was full; given up by the caller; see `error`.
    error : str or None
        What was wrong with this request; it names the request.
    top_logprobs : tuple, one entry a token
        The `SamplingParams.logprobs` most probable tokens there, as (id, log-probability); empty if none were asked for.
    first_token_s, total_s : float, s
        From the request's arrival to its first token (NaN if there is none) and to its end.
    """

    request_id: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...]
    finish_reason: str
    error: str | None = None
    top_logprobs: tuple[TopLogprobs, ...] = ()
    first_token_s: float = float("nan")
    total_s: float = float("nan")

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Delta:
    """What one step added to one request; `completion` is there once it has ended."""

    request_id: str
    text: str
    token_ids: tuple[int, ...] = ()
    completion: Completion | None = None

    def __str__(self) -> str:
        return self.text


class Sequence:
    """One request inside the engine.

    Attributes
    ----------
    tokens : list of int
        Prompt and generated tokens.
    n_cached : int, tokens
        How many of `tokens` have been run through the model; the cache holds what its policy keeps of them. Zero again
        after a preemption: all tokens, the generated ones too, are then computed anew as one prompt.
    logprobs : list of float
        Of the generated tokens; of all but the first token where the sequence is only `scored`.
    scored : bool
        Nothing is generated: the probabilities of the given tokens are wanted.
    text : TextStream or None
        Turns generated tokens into text; None in an engine without a tokenizer.
    """

    def __init__(self, request_id: str, prompt: list[int], params: SamplingParams, *, text: Any = None, scored: bool = False,
                 chunk: int | None = None) -> None:
        self.request_id, self.params, self.text, self.scored, self.chunk = request_id, params, text, scored, chunk
        self.tokens = list(prompt)
        self.n_prompt = len(self.tokens)
        self.n_cached = 0
        self.logprobs: list[float] = []
        self.top_logprobs: list[TopLogprobs] = []
        self.finish_reason: str | None = None
        self.error: str | None = None
        self.rng = TokenRandom(params.seed)
        self.arrived_s, self.first_token_s = time.perf_counter(), float("nan")

    @property
    def n_waiting(self) -> int:
        """Tokens that have not been run through the model: 1 while decoding, more while the prompt is read."""
        return len(self.tokens) - self.n_cached

    @property
    def n_expected(self) -> int:
        """Tokens that it may have in the end."""
        return self.n_prompt if self.scored else self.n_prompt + self.params.max_tokens

    @property
    def generated(self) -> list[int]:
        return self.tokens[self.n_prompt:]

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None

    def append(self, token: int, logprob: float) -> None:
        """The next generated token."""
        if len(self.tokens) == self.n_prompt:
            self.first_token_s = time.perf_counter() - self.arrived_s
        self.tokens.append(token)
        self.logprobs.append(logprob)

    def fail(self, message: str) -> None:
        """End with an error that names the request."""
        self.finish_reason, self.error = "error", f"request {self.request_id}: {message}"

    def completion(self) -> Completion:
        """How it ended; call it once `finished`."""
        assert self.finish_reason is not None
        return Completion(self.request_id, tuple(self.tokens[:self.n_prompt]), tuple(self.generated),
                          self.text.text if self.text is not None else "", tuple(self.logprobs), self.finish_reason,
                          self.error, tuple(self.top_logprobs), self.first_token_s, time.perf_counter() - self.arrived_s)

    def __repr__(self) -> str:
        return (f"<sequence {self.request_id}: {self.n_prompt} + {len(self.tokens) - self.n_prompt} tokens, "
                f"{self.n_cached} cached, {self.finish_reason or 'going on'}>")
