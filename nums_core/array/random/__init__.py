"""numpy.random on blocks: lazy random arrays whose values do not depend on how they are cut or where they are made.

    rng = np.random.default_rng(0)
    x = rng.normal(size=(100_000_000, 64))        # draws nothing yet
    x[5_000_000].compute()                        # draws one row

The functions of this module share one hidden RandomState, seeded by the operating system or `seed(s)`.
"""

from __future__ import annotations

from typing import Any

from nums_core.array.random.generator import Generator as Generator
from nums_core.array.random.generator import default_rng as default_rng
from nums_core.array.random.legacy import RandomState as RandomState

_NUMPY_CLASSES = ("BitGenerator", "MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64", "SeedSequence")
_state: RandomState | None = None


def _shared() -> RandomState:
    """Made when first used: entropy and numpy.random cost milliseconds that an import should not."""
    global _state
    if _state is None:
        _state = RandomState()
    return _state


def _function(name: str) -> Any:
    method = getattr(RandomState, name)

    def function(*args: Any, **kwargs: Any) -> Any:
        return getattr(_shared(), name)(*args, **kwargs)
    function.__name__ = function.__qualname__ = name
    function.__doc__ = method.__doc__
    return function


seed = _function("seed")
get_state = _function("get_state")
set_state = _function("set_state")
rand = _function("rand")
randn = _function("randn")
randint = _function("randint")
random_integers = _function("random_integers")
random = _function("random")
random_sample = _function("random_sample")
ranf = sample = random_sample
bytes = _function("bytes")  # noqa: A001
choice = _function("choice")
permutation = _function("permutation")
shuffle = _function("shuffle")
beta = _function("beta")
binomial = _function("binomial")
chisquare = _function("chisquare")
dirichlet = _function("dirichlet")
exponential = _function("exponential")
f = _function("f")
gamma = _function("gamma")
geometric = _function("geometric")
gumbel = _function("gumbel")
hypergeometric = _function("hypergeometric")
laplace = _function("laplace")
logistic = _function("logistic")
lognormal = _function("lognormal")
logseries = _function("logseries")
multinomial = _function("multinomial")
multivariate_normal = _function("multivariate_normal")
negative_binomial = _function("negative_binomial")
noncentral_chisquare = _function("noncentral_chisquare")
noncentral_f = _function("noncentral_f")
normal = _function("normal")
pareto = _function("pareto")
poisson = _function("poisson")
power = _function("power")
rayleigh = _function("rayleigh")
standard_cauchy = _function("standard_cauchy")
standard_exponential = _function("standard_exponential")
standard_gamma = _function("standard_gamma")
standard_normal = _function("standard_normal")
standard_t = _function("standard_t")
triangular = _function("triangular")
uniform = _function("uniform")
vonmises = _function("vonmises")
wald = _function("wald")
weibull = _function("weibull")
zipf = _function("zipf")


def __getattr__(name: str) -> Any:
    if name in _NUMPY_CLASSES:
        import numpy

        return getattr(numpy.random, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Generator", "RandomState", "beta", "binomial", "bytes", "chisquare", "choice", "default_rng", "dirichlet",
    "exponential", "f", "gamma", "geometric", "get_state", "gumbel", "hypergeometric", "laplace", "logistic",
    "lognormal", "logseries", "multinomial", "multivariate_normal", "negative_binomial", "noncentral_chisquare",
    "noncentral_f", "normal", "pareto", "permutation", "poisson", "power", "rand", "randint", "randn", "random",
    "random_integers", "random_sample", "ranf", "rayleigh", "sample", "seed", "set_state", "shuffle",
    "standard_cauchy", "standard_exponential", "standard_gamma", "standard_normal", "standard_t", "triangular",
    "uniform", "vonmises", "wald", "weibull", "zipf",
]
