"""The engine: requests in, text out. A batcher, a runner and a sampler in a loop.

    engine.add_request([1, 2, 3], SamplingParams(max_tokens=16))
    while engine.has_work:
        for delta in engine.step():
            print(delta.request_id, delta.text)

A request that cannot be served ends with a completion whose `finish_reason` is "error" and whose `error` names it; the
others never notice.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Any

import numpy as np

from nums_core.errors import ConfigError
from nums_core.llm.engine.batcher import Batcher, Chunk
from nums_core.llm.engine.runner import Runner
from nums_core.llm.engine.sequence import Completion, Delta, Sequence
from nums_core.llm.engine.text import TextStream
from nums_core.llm.sampler import SamplingParams, sample, top_logprobs

NO_DISTRIBUTION = ("the model gave logits that are no distribution (NaN, infinite, or every token banned); its weights may be "
                   "damaged: load them again, with dtype='float32', or take back logit_bias")


@dataclass
class Counts:
    """What the engine has done so far: steps, tokens run through the model, tokens made."""

    steps: int = 0
    tokens: int = 0
    generated: int = 0


class Engine:
    """Generates for many requests at once.

    Parameters
    ----------
    runner : Runner
        The model, its cache and its compiled steps.
    batcher : Batcher
        Over the same cache.
    tokenizer : Tokenizer, optional
        Without one, completions have no text and stop strings are refused.
    eos_ids : ints
        Tokens that end a text.
    max_context : int, tokens
        Most that a prompt and what is made of it may have together.
    """

    def __init__(self, runner: Runner, batcher: Batcher, *, vocab_size: int, max_context: int, tokenizer: Any = None,
                 eos_ids: Items[int] = ()) -> None:
        self.runner, self.batcher, self.tokenizer = runner, batcher, tokenizer
        self.vocab_size, self.max_context, self.eos_ids = vocab_size, max_context, frozenset(eos_ids)
        self.requests: dict[str, Sequence] = {}
        self.counts = Counts()
        self._ended: list[Sequence] = []  # without a step: refused at the door
        self._numbers = itertools.count()

    # -- requests -----------------------------------------------------------------------------------------------------

    def add_request(self, prompt: Items[int], params: SamplingParams | None = None, *, request_id: str | None = None,
                    scored: bool = False, chunk: int | None = None) -> str:
        """Queue a prompt; returns the name its deltas will carry.

        Parameters
        ----------
        prompt : ints, token ids
        params : SamplingParams, optional
            Default: greedy.
        request_id : str, optional
            Default: "0", "1", ...
        scored : bool
            Generate nothing; the completion's `logprobs` are those of all tokens but the first.
        chunk : int, tokens, optional
            Most that one step reads of this prompt.

        Raises
        ------
        ValueError
            `request_id` is in use.
        """
        if request_id is None:
            request_id = next(name for n in self._numbers if (name := str(n)) not in self.requests)
        if request_id in self.requests:
            raise ValueError(f"request {request_id} is still being served; choose another request_id, or abort() it first")
        params = params if params is not None else SamplingParams()
        prompt = [int(t) for t in prompt]
        text = TextStream(self.tokenizer.decoder(), params.stop) if self.tokenizer is not None else None
        sequence = Sequence(request_id, prompt, params, text=text, scored=scored, chunk=chunk)
        self.requests[request_id] = sequence
        wrong = self._refusal(sequence)
        if wrong is None:
            self.batcher.add(sequence)
        else:
            sequence.fail(wrong)
            self._ended.append(sequence)
        return request_id

    def _refusal(self, sequence: Sequence) -> str | None:
        """Why a request cannot be served, if so."""
        n, room = sequence.n_prompt, self.max_context - (not sequence.scored)
        if n == 0:
            return "the prompt is empty; give at least one token (a beginning-of-text token will do)"
        if n > room:
            return (f"the prompt has {n} tokens, and the context is {self.max_context} with what is generated; shorten it by "
                    f"{n - room} tokens, or open the model with a larger max_context if it was trained for one")
        outside = next((t for t in sequence.tokens if not 0 <= t < self.vocab_size), None)
        if outside is not None:
            return (f"token id {outside} is not in the vocabulary, which has ids 0 to {self.vocab_size - 1}; encode the prompt "
                    "with this model's own tokenizer")
        if self.tokenizer is None and sequence.params.stop:
            return "stop strings need a tokenizer; open the model with one, or give stop_token_ids"
        try:
            sequence.params.check_vocabulary(self.vocab_size)
        except ConfigError as error:
            return str(error)
        return None

    def abort(self, request_id: str) -> Completion | None:
        """Give a request up; returns what it had made, or None if it has ended already."""
        sequence = self.requests.pop(request_id, None)
        if sequence is None:
            return None
        if sequence in self._ended:
            self._ended.remove(sequence)
        else:
            sequence.finish_reason = "abort"
            self.batcher.remove(sequence)
        return sequence.completion()

    @property
    def has_work(self) -> bool:
        return bool(self._ended) or not self.batcher.idle

    # -- a step -------------------------------------------------------------------------------------------------------

    def step(self) -> list[Delta]:
        """Run one step for all; returns what it added to whom."""
        chunks = self.batcher.next()
        ended, self._ended = self._ended + self.batcher.take_failed(), []
        deltas = [self._end(s) for s in ended]
        if chunks:
            try:
                logits = self.runner.run([(self.batcher.seq_id[c.sequence], c) for c in chunks])
            except BaseException:
                self.batcher.restart()
                raise
            self.batcher.advance(chunks)
            self.counts.steps += 1
            self.counts.tokens += sum(c.n_tokens for c in chunks)
            deltas += self._take(chunks, logits)
        return deltas

    def _take(self, chunks: list[Chunk], logits: np.ndarray) -> list[Delta]:
        """What the logits of a step mean for its sequences."""
        deltas: list[Delta] = []
        drawing: list[Sequence] = []
        rows: list[int] = []
        at = 0
        for c in chunks:
            at += c.n_rows
            if c.sequence.scored:
                deltas += self._score(c, logits[at - c.n_rows:at])
            elif c.n_rows:
                drawing.append(c.sequence)
                rows.append(at - 1)
        return deltas + self._draw(drawing, logits if len(rows) == len(logits) else logits[rows])

    def _score(self, chunk: Chunk, rows: np.ndarray) -> list[Delta]:
        """Log-probabilities of the tokens that follow those of a chunk."""
        s = chunk.sequence
        if not np.isfinite(rows.max(axis=1)).all():  # the maximum of what holds a NaN is NaN
            s.fail(NO_DISTRIBUTION)
            return [self._end(s)]
        first = s.n_cached - chunk.n_tokens
        known = len(s.logprobs) - first  # more than none where a preempted sequence is read again
        targets = s.tokens[first + 1:s.n_cached + 1]
        s.logprobs += log_probabilities(rows[:len(targets)], targets)[max(known, 0):].tolist()
        if s.n_waiting:
            return []
        s.finish_reason = "length"
        return [self._end(s)]

    def _draw(self, sequences: list[Sequence], logits: np.ndarray) -> list[Delta]:
        """The next token of each sequence, from its row of `logits`."""
        if not sequences:
            return []
        ids, logprobs = sample(logits, [s.params for s in sequences], [s.tokens for s in sequences],
                               [s.rng for s in sequences], [s.n_prompt for s in sequences])
        self.counts.generated += len(sequences)
        for s, row in zip(sequences, logits, strict=True):
            if s.params.logprobs:
                best, of_best = top_logprobs(row[None], s.params.logprobs)
                s.top_logprobs.append(tuple(zip(best[0].tolist(), of_best[0].tolist(), strict=True)))
        return [self._grow(s, int(t), float(p)) for s, t, p in zip(sequences, ids, logprobs, strict=True)]

    def _grow(self, sequence: Sequence, token: int, logprob: float) -> Delta:
        """Append a token; end the sequence if that ends it."""
        if token < 0:
            sequence.fail(NO_DISTRIBUTION)
            return self._end(sequence)
        sequence.append(token, logprob)
        params, shown = sequence.params, ""
        if token in params.stop_token_ids or (token in self.eos_ids and not params.ignore_eos):
            sequence.finish_reason = "stop"
        else:
            if sequence.text is not None:
                shown = sequence.text.push(token)
                if sequence.text.stopped:
                    sequence.finish_reason = "stop"
            if sequence.finish_reason is None and (len(sequence.logprobs) >= params.max_tokens
                                                   or len(sequence.tokens) >= self.max_context):
                sequence.finish_reason = "length"
        return self._end(sequence, shown, (token,)) if sequence.finished else Delta(sequence.request_id, shown, (token,))

    def _end(self, sequence: Sequence, shown: str = "", token_ids: tuple[int, ...] = ()) -> Delta:
        self.batcher.remove(sequence)
        self.requests.pop(sequence.request_id, None)
        if sequence.text is not None:
            shown += sequence.text.finish()
        return Delta(sequence.request_id, shown, token_ids, sequence.completion())


def log_probabilities(logits: np.ndarray, targets: Items[int]) -> np.ndarray:
    """log softmax(logits)[i, targets[i]]: float64, shape (n,); logits (n, vocab)."""
    if not len(targets):
        return np.empty(0)
    peak = logits.max(axis=1, keepdims=True)
    total = np.exp(logits - peak).sum(axis=1, dtype=np.float64)
    chosen = np.take_along_axis(logits - peak, np.asarray(targets)[:, None], axis=1)[:, 0]
    return chosen - np.log(total)
