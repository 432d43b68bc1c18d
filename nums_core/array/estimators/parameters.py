"""Rules for constructor parameters: a test, and the words that an error says it with."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np


class Rule(NamedTuple):
    """What a parameter may be."""

    text: str
    holds: Callable[[Any], bool]


def _is_bool(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


def _is_int(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not _is_bool(value)


def real(low: float, high: float = math.inf, *, above: bool = False, infinite: bool = False) -> Rule:
    """A number in [low, high], or in (low, high] with `above`; infinity only with `infinite`."""
    ends = "(" if above else "[", "]" if infinite or high < math.inf else ")"
    return Rule(f"a number in {ends[0]}{low:g}, {high:g}{ends[1]}",
                lambda v: isinstance(v, numbers.Real) and not _is_bool(v) and low <= float(v) <= high
                and not (above and v == low) and (infinite or math.isfinite(v)))


def whole(low: int) -> Rule:
    """An integer from `low` on."""
    return Rule(f"an int of at least {low}", lambda v: _is_int(v) and v >= low)


def one_of(*allowed: Any) -> Rule:
    """One of a few texts or None."""
    return Rule("one of " + ", ".join(map(repr, allowed)),
                lambda v: (v is None or isinstance(v, str)) and v in allowed)


def either(*rules: Rule) -> Rule:
    """What any of `rules` allows."""
    return Rule(" or ".join(r.text for r in rules), lambda v: any(r.holds(v) for r in rules))


FLAG = Rule("a bool", _is_bool)
NONE = Rule("None", lambda v: v is None)
SEED = Rule("None, an int of at least 0, or a numpy random generator",
            lambda v: v is None or (_is_int(v) and v >= 0) or isinstance(v, (np.random.RandomState, np.random.Generator)))


def check(owner: Any, rules: Mapping[str, Rule]) -> None:
    """Raise a ValueError that names the first parameter of `owner` that breaks its rule."""
    for name, rule in rules.items():
        value = getattr(owner, name)
        if not rule.holds(value):
            raise ValueError(f"The {name!r} parameter of {type(owner).__name__} must be {rule.text}. Got {value!r} instead; "
                             f"change it with set_params({name}=...)")


def seed_of(random_state: Any) -> int:
    """A seed for draws block by block: that of the user, or drawn from the user's generator or from the system."""
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31))
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    return int(random_state)
