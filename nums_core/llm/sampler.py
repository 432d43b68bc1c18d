"""Choosing the next token: penalties, temperature, filters and draws, for many requests at once.

    params = SamplingParams(temperature=0.8, top_p=0.95, seed=7)
    ids, logprobs = sample(logits, [params], [tokens], [TokenRandom(params.seed)])

What is done to the logits of a row, in this order; every filter sees what the ones before have left, renormalised:

    bias          logits[t] += logit_bias[t]
    repetition    of tokens in prompt or text: divided by the penalty where positive, multiplied where negative [1]
    presence      of tokens in the text: less `presence_penalty`
    frequency     of tokens in the text: less `frequency_penalty` for each time it occurs
    temperature   logits / temperature; at 0 the best token is taken and nothing below applies
    top-k         the k best
    top-p         the fewest best whose probabilities reach p together [2]
    min-p         those at least min_p times as probable as the best [3]

Ties go to the lower token id, everywhere. A row's token depends on its own logits, parameters, history and random number
alone, so it is the same in any batch.

References
----------
.. [1] Keskar et al., "CTRL: A Conditional Transformer Language Model for Controllable Generation", 2019, section 4.1. With
   the correction for negative logits that all implementations have: the paper's division would reward them.
.. [2] Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020, section 3.1.
.. [3] Nguyen et al., "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs", ICLR 2025, section 3.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from nums_core.errors import ConfigError

FIRST_CANDIDATES = 256  # top-p looks at so many tokens first, then at eight times as many, and so on


# -- parameters -------------------------------------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """How the tokens of one request are chosen. The defaults take the most probable token every time.

    Attributes
    ----------
    max_tokens : int, tokens
        Most that is generated.
    temperature : float
        0 takes the best token; 1 draws from the model's own distribution.
    top_k : int
        0: no limit.
    top_p : float in (0, 1]
    min_p : float in [0, 1)
    repetition_penalty : float above 0
        Above 1 discourages tokens of the prompt and of the text.
    presence_penalty, frequency_penalty : float
        In logits; above 0 discourage tokens of the text.
    seed : int, optional
        The same seed, the same draws; None takes one from the operating system.
    stop : str or sequence of str
        Strings that end the text; they are left out of it.
    stop_token_ids : sequence of int
        Tokens that end the text, besides the model's own.
    logit_bias : mapping of token id to float
        Added to the logits; -inf bans a token.
    logprobs : int
        How many of the most probable tokens to report for every position, with their log-probabilities.
    ignore_eos : bool
        Go on after end-of-text tokens.

    Raises
    ------
    ConfigError
        A value out of range, or an unknown name (with the nearest valid one).
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    logit_bias: Mapping[int, float] = dataclasses.field(default_factory=dict)
    logprobs: int = 0
    ignore_eos: bool = False

    def __new__(cls, *args: Any, **kwargs: Any) -> SamplingParams:
        """Refuses unknown names in our words; Python's own do not say what was meant."""
        names = [f.name for f in dataclasses.fields(cls)]
        for name in kwargs:
            if name not in names:
                raise ConfigError(f"there is no sampling parameter {name!r}; {_nearest(name, names)}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        set_(self, "stop_token_ids", tuple(self.stop_token_ids))
        set_(self, "logit_bias", dict(self.logit_bias))
        for name, (fits, rule) in _RULES.items():
            if not fits(getattr(self, name)):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be {rule}")

    def check_vocabulary(self, vocab_size: int) -> None:
        """Refuse token ids that a model does not have.

        Raises
        ------
        ConfigError
        """
        for name in ("logit_bias", "stop_token_ids"):
            beyond = [t for t in getattr(self, name) if t >= vocab_size]
            if beyond:
                raise ConfigError(f"{name} has the token id {beyond[0]}; this model has ids 0 to {vocab_size - 1}. Take ids "
                                  "from its own tokenizer")

    @property
    def adjusts(self) -> bool:
        """Whether logits are changed before temperature."""
        return bool(self.logit_bias) or self.repetition_penalty != 1 or self.presence_penalty != 0 \
            or self.frequency_penalty != 0


def _nearest(name: str, names: list[str]) -> str:
    import difflib

    known = {"max_new_tokens": "max_tokens", "n_tokens": "max_tokens", "stop_strings": "stop", "temp": "temperature"}
    near = [known[name]] if name in known else difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"they are {', '.join(names)}"


def _real(low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> Callable[[Any], bool]:
    """Whether a value is a finite number in a range; `above` and `below` leave the ends out."""
    def fits(v: Any) -> bool:
        if isinstance(v, bool) or not isinstance(v, (int, float, np.integer, np.floating)) or not math.isfinite(v):
            return False
        return bool((v > low if above else v >= low) and (v < high if below else v <= high))
    return fits


def _whole(low: int) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, (int, np.integer)) and not isinstance(v, bool) and bool(v >= low)


def _token_ids(values: Any) -> bool:
    return all(map(_whole(0), values))


_RULES: dict[str, tuple[Any, str]] = {
    "max_tokens": (_whole(1), "a whole number of tokens, at least 1"),
    "temperature": (_real(0), "a number from 0 (the best token) up"),
    "top_k": (_whole(0), "a whole number; 0 means no limit"),
    "top_p": (_real(0, 1, above=True), "above 0 and at most 1 (no limit)"),
    "min_p": (_real(0, 1, below=True), "from 0 (no limit) to below 1"),
    "repetition_penalty": (_real(0, above=True), "a number above 0; 1 means none"),
    "presence_penalty": (_real(-math.inf), "a finite number; 0 means none"),
    "frequency_penalty": (_real(-math.inf), "a finite number; 0 means none"),
    "seed": (lambda v: v is None or _whole(0)(v), "a whole number from 0 up, or None"),
    "stop": (lambda v: all(isinstance(s, str) and s for s in v), "a string, or several, none of them empty"),
    "stop_token_ids": (_token_ids, "token ids: whole numbers from 0 up"),
    "logit_bias": (lambda v: _token_ids(v) and all(_real(-math.inf)(b) or b == -math.inf for b in v.values()),
                   "token ids with numbers to add to their logits; float('-inf') bans a token"),
    "logprobs": (_whole(0), "how many tokens to report: a whole number, 0 for none"),
    "ignore_eos": (lambda v: isinstance(v, bool), "True or False"),
}


# -- random numbers ---------------------------------------------------------------------------------------------------

class Random(Protocol):
    """Where a row's random number comes from: one call a drawn token. `numpy.random.Generator` is one too."""

    def random(self) -> float: ...


class TokenRandom:
    """The random numbers of one request: the n-th depends on (seed, n) alone.

    So a request draws the same tokens in any batch, and may be taken up at any token: `TokenRandom(seed, n)`.

    Source: SplitMix64, Steele et al., "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014, figure 13: its output
    function at state seed' + (n + 1) * golden ratio, with the seed scrambled by the same function first.
    """

    GOLDEN = 0x9E3779B97F4A7C15
    MASK = (1 << 64) - 1

    def __init__(self, seed: int | None = None, n: int = 0) -> None:
        if seed is None:
            import secrets

            seed = secrets.randbits(63)
        self.seed, self.n = seed, n
        self._state = self._mixed(seed ^ (seed >> 64))  # all bits of a long seed count

    @classmethod
    def _mixed(cls, z: int) -> int:
        z &= cls.MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & cls.MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & cls.MASK
        return z ^ (z >> 31)

    def random(self) -> float:
        """The next number, uniform in [0, 1)."""
        self.n += 1
        return (self._mixed(self._state + self.n * self.GOLDEN) >> 11) * 2.0 ** -53

    def __repr__(self) -> str:
        return f"TokenRandom(seed={self.seed}, n={self.n})"


# -- sampling ---------------------------------------------------------------------------------------------------------

def sample(logits: np.ndarray, params: Sequence[SamplingParams], histories: Sequence[Sequence[int]], rngs: Sequence[Random],
           n_prompt: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The next token of each row.

    Parameters
    ----------
    logits : ndarray, shape (n, vocab), floating
        Not changed.
    params, histories, rngs : sequences of length n
        Of each row: how, after which tokens (prompt and text), and with which random numbers. A row takes one random
        number if its temperature is above 0, none otherwise.
    n_prompt : sequence of int, optional
        How many of the history's tokens are the prompt, which presence and frequency penalties do not count. Default: 0.

    Returns
    -------
    ids : ndarray, shape (n,), int64
        -1 where a row has no distribution: it holds NaN or +inf, or every token is banned. Other rows are unharmed.
    logprobs : ndarray, shape (n,), float64
        log softmax(logits)[ids]: what the model itself gave, before bias, penalties, temperature and filters.

    Notes
    -----
    Greedy rows: two passes for the maximum and one for the sum of exponentials. Drawn rows: a few more; top-k and top-p sort
    their candidates alone.
    """
    logits = np.asarray(logits)
    ids = logits.argmax(axis=1)  # of a row that holds a NaN: where the NaN is
    sound = np.isfinite(logits[np.arange(len(ids)), ids])
    ids = np.where(sound, ids, -1)
    starts = n_prompt if n_prompt is not None else [0] * len(params)
    for k in np.flatnonzero(sound).tolist():
        p = params[k]
        if p.adjusts or p.temperature > 0:
            ids[k] = _choose(logits[k], p, histories[k], starts[k], rngs[k])
    return ids, _logprobs_of(logits, ids)


def _choose(row: np.ndarray, params: SamplingParams, history: Sequence[int], n_prompt: int, rng: Random) -> int:
    """One row's token; -1 where it has no distribution."""
    if params.temperature > 0:
        u = rng.random()
    row = adjusted(row, params, history, n_prompt)
    if not np.isfinite(row.max()):
        return -1
    if params.temperature == 0:
        return int(row.argmax())
    ids, weights = candidates(row, params)
    cumulative = np.cumsum(weights)
    at = int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))
    at = min(at, int(np.searchsorted(cumulative, cumulative[-1])))  # rounding may reach the end, even past zeros at the end
    return int(ids[at]) if ids is not None else at


def _logprobs_of(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """log softmax(logits)[row, ids[row]], float64; NaN where the id is -1."""
    out = np.full(len(ids), np.nan)
    for k in np.flatnonzero(ids >= 0).tolist():  # row by row: a row and its exponentials stay in the cache
        row = logits[k]
        peak = row.max()
        out[k] = float(row[ids[k]]) - float(peak) - math.log(np.exp(row - peak).sum(dtype=np.float64))
    return out


def adjusted(row: np.ndarray, params: SamplingParams, history: Sequence[int], n_prompt: int = 0) -> np.ndarray:
    """Logits after bias and penalties: `row` itself if there are none, else a new array of its dtype."""
    if not params.adjusts:
        return row
    row = row.copy()
    for t, bias in params.logit_bias.items():
        if t < len(row):  # others were refused at the door, see `check_vocabulary`
            row[t] += bias
    tokens = np.asarray(history, dtype=np.int64)
    if params.repetition_penalty != 1:
        seen = np.unique(tokens[tokens < len(row)])
        row[seen] = np.where(row[seen] > 0, row[seen] / params.repetition_penalty, row[seen] * params.repetition_penalty)
    if params.presence_penalty or params.frequency_penalty:
        made = tokens[n_prompt:]
        seen, counts = np.unique(made[made < len(row)], return_counts=True)
        row[seen] -= params.presence_penalty + params.frequency_penalty * counts
    return row


def candidates(row: np.ndarray, params: SamplingParams) -> tuple[np.ndarray | None, np.ndarray]:
    """The tokens that temperature and filters leave, and their weights.

    Parameters
    ----------
    row : ndarray, shape (vocab,)
        Adjusted logits; the temperature is above 0.

    Returns
    -------
    ids : ndarray of int, or None for all tokens in order
        From the most probable on.
    weights : ndarray of float64
        Proportional to the probabilities; the best has 1.
    """
    row = row.astype(np.promote_types(row.dtype, np.float32), copy=False)
    peak = row.max()

    def weights_of(logits: np.ndarray) -> np.ndarray:
        return np.exp((logits - peak).astype(np.float64) / params.temperature)

    if not (params.top_k or params.top_p < 1 or params.min_p):
        return None, weights_of(row)
    if params.top_k:
        ids = best(row, params.top_k)
        total = weights_of(row[ids]).sum()
    elif params.top_p < 1:
        total = np.exp((row - peak) / params.temperature).sum(dtype=np.float64)  # of all, so in their own precision
        ids = _reaching(row, weights_of, params.top_p * total)
    else:
        ids = best(row, int(np.count_nonzero(row - peak >= params.temperature * math.log(params.min_p))))
        total = 0.0
    weights = weights_of(row[ids])
    n = int(np.searchsorted(np.cumsum(weights), params.top_p * total)) + 1 if params.top_p < 1 else len(ids)
    n = min(n, max(1, int(np.count_nonzero(weights >= params.min_p))))
    return ids[:n], weights[:n]


def _reaching(row: np.ndarray, weights_of: Callable[[np.ndarray], np.ndarray], target: float) -> np.ndarray:
    """So many of the best tokens that their weights reach `target`, or a few more."""
    n = FIRST_CANDIDATES
    while True:
        ids = best(row, n)
        if n >= len(row) or weights_of(row[ids]).sum() >= target:
            return ids
        n *= 8


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k largest of one axis, the largest first; of equal ones the lower index."""
    k = min(k, len(scores))
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    ids = np.flatnonzero(scores >= least)  # in order; more than k where there are ties
    return ids[np.argsort(-scores[ids], kind="stable")[:k]]


def top_logprobs(logits: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n most probable tokens of each row.

    Parameters
    ----------
    logits : ndarray, shape (rows, vocab), floating

    Returns
    -------
    ids : ndarray, shape (rows, min(n, vocab)), int64
        From the most probable on.
    logprobs : ndarray of that shape, float64
        log softmax(logits) at `ids`; NaN in rows that hold NaN or +inf.
    """
    logits = np.asarray(logits)
    ids = np.array([best(np.nan_to_num(row, nan=-np.inf), n) for row in logits], dtype=np.int64).reshape(len(logits), -1)
    chosen = np.take_along_axis(logits, ids, axis=1).astype(np.float64)
    with np.errstate(invalid="ignore"):
        peak = logits.max(axis=1, keepdims=True)
        total = np.exp(logits - peak).sum(axis=1, keepdims=True, dtype=np.float64)
        return ids, chosen - peak - np.log(total)
