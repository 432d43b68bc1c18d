"""Planted-word recall: whether a model still knows a word that was told it far back.

A text of a given length holds one sentence, "The secret word is X.", somewhere; it ends with "The secret word is". The word
is recalled if the model finds X likelier there than each of some other words. A cache that forgets the sentence does no
better than chance, 1 / (1 + others).

The idea is the passkey test of Mohtashami and Jaggi, "Landmark Attention", NeurIPS 2023, section 4.2; words and a comparison
replace their digits and generation, so that small models, which say the word in their own way, are measured too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nums_core.errors import ConfigError
from nums_core.llm.eval.scorer import Scorer, score_all

WORDS = ("apple", "anchor", "basket", "bridge", "button", "candle", "castle", "coffee", "diamond", "dragon", "engine",
         "feather", "garden", "guitar", "hammer", "island", "jacket", "lantern", "marble", "mirror", "needle", "orange",
         "pepper", "rabbit", "river", "saddle", "silver", "tiger", "violin", "window")
SENTENCE, QUESTION = " The secret word is {word}.", " The secret word is"

_WHO = ("The farmer", "A teacher", "My neighbour", "The captain", "An old man", "The children", "Her sister", "The baker")
_DID = ("walked to", "looked at", "talked about", "painted", "forgot", "remembered", "visited", "wrote about")
_WHAT = ("the market", "a small house", "the northern road", "the weather", "a long letter", "the harbour", "an empty field",
         "the old school")
_WHEN = ("in the morning", "on a rainy day", "after dinner", "before the storm", "every summer", "last week", "at night",
         "without a word")


@dataclass(frozen=True)
class Planted:
    """One text with a planted word.

    Attributes
    ----------
    context : tuple of int
        Tokens up to and with the question.
    answers : tuple of tuples of int
        Tokens of the words to choose from; the first is the planted one.
    depth : float
        Where the sentence stands, from 0 (the beginning) to 1 (the end).
    """

    context: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    depth: float


@dataclass(frozen=True)
class Recall:
    """How many planted words were recalled.

    Attributes
    ----------
    by_depth : dict of float to float
        Share recalled, by where the sentence stood.
    log_probability : float
        Mean log-probability of the planted words: finer than counting.
    n : int
        Texts.
    chance : float
        Share that guessing recalls.
    """

    by_depth: dict[float, float]
    log_probability: float
    n: int
    chance: float

    @property
    def value(self) -> float:
        return float(np.mean(list(self.by_depth.values())))

    def __str__(self) -> str:
        places = ", ".join(f"{100 * v:.0f} % at {d:.2f}" for d, v in self.by_depth.items())
        return (f"recall {100 * self.value:.1f} % of {self.n} words, {100 * self.chance:.0f} % by chance ({places}); "
                f"log-probability {self.log_probability:.3f}")


def filler(n_sentences: int, seed: int = 0) -> str:
    """Plain sentences that mean nothing, for texts to plant in."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, 8, size=(n_sentences, 4))
    return " ".join(f"{_WHO[a]} {_DID[b]} {_WHAT[c]} {_WHEN[d]}." for a, b, c, d in picks)


def plant(tokenizer: Any, n_tokens: int, *, text: str | None = None, depths: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
          repeat: int = 4, others: int = 3, seed: int = 0) -> list[Planted]:
    """Texts with planted words.

    Parameters
    ----------
    tokenizer : Tokenizer
    n_tokens : int, tokens
        Of each context, question included.
    text : str, optional
        To plant in; each item takes another part of it. Default: sentences made up by `filler`.
    depths : numbers from 0 to 1
    repeat, others : int
        Texts for each depth; words to choose from besides the planted one.

    Raises
    ------
    ConfigError
        The text is too short, or a number out of range.
    """
    if not 1 <= others < len(WORDS) or repeat < 1 or not depths or not all(0 <= d <= 1 for d in depths):
        raise ConfigError(f"others={others}, repeat={repeat}, depths={tuple(depths)}: others must be from 1 to "
                          f"{len(WORDS) - 1}, repeat at least 1, and depths from 0 to 1")
    rng = np.random.default_rng(seed)
    begin = tokenizer.encode("")  # what every text begins with
    hay = tokenizer.encode(text if text is not None else filler(n_tokens, seed), special=False)
    question = tokenizer.encode(QUESTION, special=False)
    out = []
    for depth in depths:
        for _ in range(repeat):
            words = [str(w) for w in rng.permutation(WORDS)[:1 + others]]
            needle = tokenizer.encode(SENTENCE.format(word=words[0]), special=False)
            room = n_tokens - len(begin) - len(needle) - len(question)
            if room < 0 or room > len(hay):
                raise ConfigError(f"a context of {n_tokens} tokens has room for {room} of the text's {len(hay)}; "
                                  + ("give a longer text" if room > 0 else "take a longer context"))
            at, split = int(rng.integers(0, len(hay) - room + 1)), round(depth * room)
            straw = hay[at:at + room]
            answers = tuple(tuple(tokenizer.encode(" " + w, special=False)) for w in words)
            out.append(Planted((*begin, *straw[:split], *needle, *straw[split:], *question), answers, depth))
    return out


def recall(scorer: Scorer, items: Sequence[Planted], batch: int = 16) -> Recall:
    """How many of the planted words the model finds likelier than each of the others.

    Parameters
    ----------
    batch : int
        Items given to the scorer at once. Each text is read once for every word to choose from.
    """
    hits: dict[float, list[bool]] = {}
    own = []
    for k in range(0, len(items), batch):
        some = items[k:k + batch]
        scores = iter(score_all(scorer, [i.context + a for i in some for a in i.answers]))
        for item in some:
            answers = [next(scores)[len(item.context) - 1:] for _ in item.answers]
            # The mean over a word's tokens: words of more tokens would lose otherwise.
            hits.setdefault(item.depth, []).append(bool(answers[0].mean() > max(a.mean() for a in answers[1:])))
            own.append(float(answers[0].sum()))
    by_depth = {d: float(np.mean(h)) for d, h in sorted(hits.items())}
    return Recall(by_depth, float(np.mean(own)), len(items), 1 / len(items[0].answers))
