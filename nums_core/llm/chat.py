"""Conversations as prompts: the chat templates that come with models, rendered without trusting them.

A template is a program in Jinja that a stranger wrote. It runs in Jinja's sandbox, sees plain data alone, and has bounded
time and size (`nums_core.llm.sandbox`); what breaks these limits ends as an error that names the template.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from nums_core.errors import MissingBackendError, ModelFileError

MAX_TEMPLATE_CHARS = 1 << 18  # the longest in use have some 30,000
MAX_DEPTH = 32  # of messages: dictionaries in lists in dictionaries


def render_chat(template: str, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True,
                tools: Sequence[Mapping[str, Any]] | None = None, documents: Sequence[Mapping[str, Any]] | None = None,
                now: datetime.datetime | None = None, name: str = "chat template", timeout_s: float = 5.0,
                **variables: Any) -> str:
    """Messages as the text that a model was trained to read.

    Parameters
    ----------
    template : str
        Jinja source, as in a model's tokenizer_config.json or GGUF metadata.
    messages : sequence of {"role": str, "content": str, ...}
    add_generation_prompt : bool
        End with the beginning of an answer.
    tools, documents : sequences of JSON-like records, optional
        For templates that know them.
    now : datetime, optional
        What `strftime_now` tells; default: the clock.
    name : str
        Stands in messages.
    timeout_s : float, s
        Longest that rendering may take.
    **variables
        More of what the template reads: `bos_token`, `eos_token`, `enable_thinking`, ...

    Raises
    ------
    ModelFileError
        The template is no Jinja, fails on these messages (with its own words where it has some), tries what templates may
        not, or passes a limit.
    MissingBackendError
        The package `jinja2` is not installed.
    TypeError
        A message is no mapping.
    """
    for k, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise TypeError(f"message {k} is a {type(message).__name__}; a message is a dict such as "
                            '{"role": "user", "content": "Hello"}')
    if len(template) > MAX_TEMPLATE_CHARS:
        raise ModelFileError(f"{name} has {len(template)} characters; more than {MAX_TEMPLATE_CHARS} are not read")
    data = plain({"messages": list(messages), "tools": tools, "documents": documents, **variables})
    return _sandbox().render(template, data | {"add_generation_prompt": bool(add_generation_prompt)}, name=name,
                             now=now, timeout_s=timeout_s)


def _sandbox() -> Any:
    try:
        from nums_core.llm import sandbox
    except ImportError as error:
        raise MissingBackendError("chat templates need the package jinja2, which is not installed here; "
                                  "run `pip install 'nums-core[llm]'`, or pass the prompt as plain text") from error
    return sandbox


def plain(value: Any, depth: int = 0) -> Any:
    """The same data made of Python's own types alone, so that no method of the caller's objects reaches the template.

    Anything that JSON has no type for becomes its type's name, as in "<ndarray>".
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # not the subclass's own methods, here and below
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if depth > MAX_DEPTH:
        raise ValueError(f"messages nest more than {MAX_DEPTH} deep; flatten them")
    if isinstance(value, Mapping):
        return {plain(k, depth + 1): plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, depth + 1) for v in value]
    return f"<{type(value).__name__}>"
