"""The distributions that Generator, RandomState and the module share: a visible line each."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from nums_core.array.array import Array
from nums_core.array.random.draws import Stream, distribution

REQUIRED = inspect.Parameter.empty
_MORE = (("size", None), ("chunks", "auto"), ("dtype", None))


def _distribution(name: str, **params: Any) -> Callable[..., Array]:
    """The method that draws from `numpy.random.Generator.<name>`, with its parameters and their defaults."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter("self", kind), *[
        inspect.Parameter(p, kind, default=default) for p, default in (*params.items(), *_MORE)]])

    def method(*args: Any, **kwargs: Any) -> Array:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}{signature}: {error}") from None
        bound.apply_defaults()
        self, *values = bound.arguments.values()
        size, chunks, dtype = values[len(params):]
        return distribution(self._stream, name, tuple(values[:len(params)]), size, chunks, dtype)
    method.__name__, method.__qualname__ = name, f"Generator.{name}"
    method.__signature__ = signature  # type: ignore[attr-defined]
    method.__doc__ = (f"`numpy.random.Generator.{name}`, lazily on blocks.\n\nParameters are numbers or arrays that "
                      "broadcast to `size` (default: to one another). A `dtype` other than numpy's is cast to.")
    return method


class Distributions:
    """Draws from numpy's distributions. Every call reads a stream of its own."""

    _stream: Stream

    beta = _distribution("beta", a=REQUIRED, b=REQUIRED)
    binomial = _distribution("binomial", n=REQUIRED, p=REQUIRED)
    chisquare = _distribution("chisquare", df=REQUIRED)
    exponential = _distribution("exponential", scale=1.0)
    f = _distribution("f", dfnum=REQUIRED, dfden=REQUIRED)
    gamma = _distribution("gamma", shape=REQUIRED, scale=1.0)
    geometric = _distribution("geometric", p=REQUIRED)
    gumbel = _distribution("gumbel", loc=0.0, scale=1.0)
    hypergeometric = _distribution("hypergeometric", ngood=REQUIRED, nbad=REQUIRED, nsample=REQUIRED)
    laplace = _distribution("laplace", loc=0.0, scale=1.0)
    logistic = _distribution("logistic", loc=0.0, scale=1.0)
    lognormal = _distribution("lognormal", mean=0.0, sigma=1.0)
    logseries = _distribution("logseries", p=REQUIRED)
    negative_binomial = _distribution("negative_binomial", n=REQUIRED, p=REQUIRED)
    noncentral_chisquare = _distribution("noncentral_chisquare", df=REQUIRED, nonc=REQUIRED)
    noncentral_f = _distribution("noncentral_f", dfnum=REQUIRED, dfden=REQUIRED, nonc=REQUIRED)
    normal = _distribution("normal", loc=0.0, scale=1.0)
    pareto = _distribution("pareto", a=REQUIRED)
    poisson = _distribution("poisson", lam=1.0)
    power = _distribution("power", a=REQUIRED)
    rayleigh = _distribution("rayleigh", scale=1.0)
    standard_cauchy = _distribution("standard_cauchy")
    standard_t = _distribution("standard_t", df=REQUIRED)
    triangular = _distribution("triangular", left=REQUIRED, mode=REQUIRED, right=REQUIRED)
    uniform = _distribution("uniform", low=0.0, high=1.0)
    vonmises = _distribution("vonmises", mu=REQUIRED, kappa=REQUIRED)
    wald = _distribution("wald", mean=REQUIRED, scale=REQUIRED)
    weibull = _distribution("weibull", a=REQUIRED)
    zipf = _distribution("zipf", a=REQUIRED)


__all__ = ["Distributions"]
