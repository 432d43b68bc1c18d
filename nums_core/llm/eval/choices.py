"""Multiple choice by log-likelihood: which continuation of a context a model finds likeliest.

Requests are lm-eval's: (context, continuation), two texts; the answer is log p(continuation | context). A task is a file of
JSON lines, one question each:

    {"context": "The capital of France is", "choices": [" Paris", " Rome"], "answer": 0}

Source: EleutherAI's Language Model Evaluation Harness, whose conventions are kept: spaces at the end of a context belong to
the continuation, an empty context is the token that begins a text, and long contexts lose their beginning.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nums_core.errors import ConfigError, DataFileError
from nums_core.llm.eval.scorer import Scorer, score_all


class Request(NamedTuple):
    """A continuation to judge."""

    context: str
    continuation: str


class Pair(NamedTuple):
    """A request in tokens."""

    context: list[int]
    continuation: list[int]


@dataclass(frozen=True)
class Question:
    """One question of a task; `answer` is an index into `choices`."""

    context: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class Choices:
    """How many questions were answered right.

    Attributes
    ----------
    accuracy : float
        By the log-likelihood of the whole choice.
    accuracy_normalised : float
        By log-likelihood per character of the choice, lm-eval's `acc_norm`: long choices do not lose for being long.
    n : int
        Questions.
    """

    accuracy: float
    accuracy_normalised: float
    n: int

    @property
    def standard_error(self) -> float:
        """Of `accuracy`, from the number of questions alone."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / max(self.n - 1, 1))

    def __str__(self) -> str:
        return (f"accuracy {100 * self.accuracy:.1f} ± {100 * self.standard_error:.1f} %, normalised "
                f"{100 * self.accuracy_normalised:.1f} % ({self.n} questions)")


def encode_pair(tokenizer: Any, context: str, continuation: str) -> Pair:
    """A request in tokens. The two texts are encoded as one, since tokens may reach over the border.

    Raises
    ------
    ConfigError
        The context is empty and the model has no token to begin a text with, or the continuation is empty.
    """
    n_spaces = len(context) - len(context.rstrip())
    if n_spaces and n_spaces < len(context):
        context, continuation = context[:-n_spaces], context[-n_spaces:] + continuation
    if context:
        first = tokenizer.encode(context)
        rest = tokenizer.encode(context + continuation)[len(first):]
    else:
        begin = tokenizer.bos_id if tokenizer.bos_id is not None else next(iter(tokenizer.eos_ids), None)
        if begin is None:
            raise ConfigError("the context is empty, and the model has no token that begins a text; give a context")
        first, rest = [begin], tokenizer.encode(continuation, special=False)
    if not rest:
        raise ConfigError(f"the continuation {continuation!r} has no tokens of its own after {context[-40:]!r}; give one with "
                          "text in it")
    return Pair(first, rest)


def log_likelihoods(scorer: Scorer, pairs: Sequence[Pair], max_tokens: int | None = None, batch: int = 32) -> list[float]:
    """log p(continuation | context) of each pair, in nats.

    Parameters
    ----------
    max_tokens : int, tokens, optional
        What the model can read; longer contexts lose their beginning.
    batch : int
        Given to the scorer at once. Longest first, so that a batch is of like lengths.

    Raises
    ------
    ConfigError
        A continuation alone is too long.
    """
    order = sorted(range(len(pairs)), key=lambda k: -sum(map(len, pairs[k])))
    out = [0.0] * len(pairs)
    for k in range(0, len(order), batch):
        some = order[k:k + batch]
        whole = [_cut(pairs[i], max_tokens) for i in some]
        for i, scores in zip(some, score_all(scorer, whole)):
            out[i] = float(scores[len(scores) - len(pairs[i].continuation):].sum())
    return out


def _cut(pair: Pair, max_tokens: int | None) -> list[int]:
    tokens = [*pair.context, *pair.continuation]
    if max_tokens is None or len(tokens) <= max_tokens:
        return tokens
    if len(pair.continuation) >= max_tokens:
        raise ConfigError(f"a continuation of {len(pair.continuation)} tokens and one before it do not fit into a context of "
                          f"{max_tokens}; leave it out, or open the model with a larger max_context")
    return tokens[-max_tokens:]


def evaluate(scorer: Scorer, tokenizer: Any, questions: Sequence[Question], max_tokens: int | None = None) -> Choices:
    """Answer all questions; of equal choices the first is taken.

    Raises
    ------
    ConfigError
        There are no questions, or see `encode_pair` and `log_likelihoods`.
    """
    if not questions:
        raise ConfigError("there are no questions; give a task with at least one")
    pairs = [encode_pair(tokenizer, q.context, c) for q in questions for c in q.choices]
    scores = iter(log_likelihoods(scorer, pairs, max_tokens))
    plain = normalised = 0
    for q in questions:
        found = np.array([next(scores) for _ in q.choices])
        plain += int(found.argmax()) == q.answer
        normalised += int((found / [max(len(c), 1) for c in q.choices]).argmax()) == q.answer
    return Choices(plain / len(questions), normalised / len(questions), len(questions))


# -- task files -------------------------------------------------------------------------------------------------------

def read_task(path: str | Path) -> list[Question]:
    """The questions of a file of JSON lines; empty lines are passed over.

    Raises
    ------
    DataFileError
        The file is missing, or a line is no question; the message names file and line.
    """
    path = Path(path)
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"{path} cannot be read ({error}); a task is a file of JSON lines in UTF-8") from None
    return list(_questions(lines, path))


def _questions(lines: Iterable[str], path: Path) -> Iterable[Question]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield _question(json.loads(line))
            except (ValueError, TypeError, RecursionError) as error:
                raise DataFileError(f"{path}, line {number}: {error}; a line is " '{"context": "text", "choices": ["text", '
                                    '"text"], "answer": 0}') from None


def _question(found: Any) -> Question:
    if not isinstance(found, dict):
        raise TypeError(f"a {type(found).__name__} where an object is wanted")
    context, choices, answer = (found.get(k) for k in ("context", "choices", "answer"))
    if not isinstance(context, str):
        raise TypeError(f"context is {context!r}, not a text")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise TypeError(f"choices are {choices!r}, not two or more texts")
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise ValueError(f"answer is {answer!r}, not an index below {len(choices)}")
    return Question(context, tuple(choices), answer)
