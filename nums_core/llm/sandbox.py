"""Jinja for templates from strangers: no way out of the sandbox, and bounded time and size.

Jinja's own sandbox keeps the attributes of Python's machinery out of reach. It bounds nothing: `'x' * 10**10`, four nested
loops, or lists of lists of lists would take the process down. Here

    time    a trace function looks at the clock at every line that a template executes, and every call
    size    whatever builds text, numbers or lists (operators, literals, methods, filters) is asked first how much

Source of the names that templates expect (`raise_exception`, `strftime_now`, `tojson`, `{% generation %}`): Hugging Face's
documentation of chat templates.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
import sys
import time
import types
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from nums_core.errors import ModelFileError

MAX_CHARS = 1 << 24  # of the prompt, and of every value on the way to it
MAX_WRITTEN = 1 << 27  # of all texts that a template writes, into the prompt or into variables
MAX_NODES = 1 << 18  # of a value made of lists and dictionaries
MAX_PRODUCT = 1 << 27  # of the sizes of what a call is given: it may build no more than that
MAX_BITS = 1 << 12  # of a whole number
BIG_WIDTH = re.compile(r"\d{5,}|\*|\{[^{}]*\{")  # in a format: a width of 10,000 or more, or one that is computed

_written: ContextVar[list[int]] = ContextVar("characters written by the template being rendered")


class LimitExceeded(SecurityError):
    """A template would build or compute more than it may."""

    def __init__(self, what: str = f"a value of more than {MAX_CHARS} characters or {MAX_NODES} elements") -> None:
        super().__init__(f"it would build {what}")


def render(template: str, data: Mapping[str, Any], *, name: str, now: datetime.datetime | None, timeout_s: float) -> str:
    """Fill a template with plain data. See `nums_core.llm.chat.render_chat`."""
    try:
        return within(timeout_s, lambda: _render(_compiled(template), dict(data) | {"strftime_now": _clock(now)}))
    except TemplateSyntaxError as error:
        raise ModelFileError(f"{name}, line {error.lineno}: {error.message}; it is no template that can be read. Pass another "
                             "one, or the prompt as plain text") from None
    except SecurityError as error:
        raise ModelFileError(f"{name} was refused: {error}. It may be hostile: use a template that you trust, or pass the "
                             "prompt as plain text") from None
    except TemplateError as error:  # what it says itself by raise_exception, or an undefined name
        raise ModelFileError(f"{name}: {error}; change the messages to what it takes, or use another template") from None
    except Exception as error:  # Python's own, from inside the template
        reason = "too much nesting or recursion" if isinstance(error, RecursionError) else f"{type(error).__name__}: {error}"
        raise ModelFileError(f"{name} failed: {reason}; change the messages to what it takes, or use another one") from None


def _render(template: jinja2.Template, data: dict[str, Any]) -> str:
    _written.set([0])
    return concatenated(template.generate(data))


def concatenated(parts: Iterable[str]) -> str:
    """The parts of a prompt, a macro or a block as one text."""
    out: list[str] = []
    size = 0
    for part in parts:
        size += len(part)
        if size > MAX_CHARS:
            raise LimitExceeded(f"a text of more than {MAX_CHARS} characters")
        out.append(part)
    return "".join(out)


def _clock(now: datetime.datetime | None) -> Callable[[str], str]:
    return lambda form: (now or datetime.datetime.now()).strftime(form)


def within(timeout_s: float, function: Callable[[], str]) -> str:
    """Call a function, looking at the clock at every line of a template and every call it leads to; in this thread alone."""
    end_s = time.perf_counter() + timeout_s

    def look(frame: Any, event: str, arg: Any) -> Any:
        if time.perf_counter() > end_s:
            raise SecurityError(f"it took longer than {timeout_s:g} s")
        return look if frame.f_code.co_filename == "<template>" else None  # of other code, its calls alone

    before = sys.gettrace()
    sys.settrace(look)
    try:
        return function()
    finally:
        sys.settrace(before)


# -- sizes ------------------------------------------------------------------------------------------------------------

def size_of(value: Any) -> int:
    """About how many characters a value has when written out; beyond the limits, some number above `MAX_CHARS`."""
    size, n_nodes, waiting = 0, 0, [value]
    while waiting:
        v = waiting.pop()
        n_nodes += 1
        if isinstance(v, str):
            size += len(v)
        elif isinstance(v, (list, tuple)):
            waiting += v
        elif isinstance(v, dict):
            waiting += [*v.keys(), *v.values()]
        elif isinstance(v, Namespace):
            waiting.append(v._Namespace__attrs)
        if size + n_nodes > MAX_CHARS or n_nodes + len(waiting) > MAX_NODES:
            return MAX_CHARS + 1
    return size + n_nodes


def limited(value: Any) -> Any:
    """The value, if it may exist. What is lazy is made here."""
    if isinstance(value, types.GeneratorType):
        return _made(value)
    if size_of(value) > MAX_CHARS:
        raise LimitExceeded
    return value


def written(value: Any) -> Any:
    """A value that a template writes, be it into a variable; all of them together are limited too."""
    value = limited(value)
    total = _written.get()
    total[0] += len(value) if isinstance(value, str) else size_of(value)
    if total[0] > MAX_WRITTEN:
        raise LimitExceeded(f"texts of more than {MAX_WRITTEN} characters in all")
    return value


def _made(values: Iterable[Any]) -> list[Any]:
    out, size = [], 0
    for value in values:
        out.append(value)
        size += size_of(value)
        if size > MAX_CHARS or len(out) > MAX_NODES:
            raise LimitExceeded
    return out


def growing(function: Callable[..., Any], *receiver: Any) -> Callable[..., Any]:
    """A function that may build as much as the product of what it is given, asked first and looked at afterwards."""
    @functools.wraps(function)
    def asked(*args: Any, **kwargs: Any) -> Any:
        args = tuple(map(limited, args))
        most = 1
        for value in (*receiver, *args, *kwargs.values()):
            if isinstance(value, (str, int, list, tuple, dict)):
                most *= 1 + (abs(value) if isinstance(value, int) else size_of(value))
        if most > MAX_PRODUCT:
            raise LimitExceeded(f"up to {most} characters in one call of {getattr(function, '__name__', 'a function')}")
        return limited(function(*args, **kwargs))
    return asked


def _shrinking(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that builds no more than it is given."""
    @functools.wraps(function)
    def asked(*args: Any, **kwargs: Any) -> Any:
        return function(*map(limited, args), **kwargs)
    return asked


# -- operators --------------------------------------------------------------------------------------------------------

def _times(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        if left.bit_length() + right.bit_length() > MAX_BITS:
            raise LimitExceeded(f"a number of more than {MAX_BITS} bits")
        return left * right
    return growing(lambda a, b: a * b)(left, right)


def _plus(left: Any, right: Any) -> Any:
    if isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)) and len(left) + len(right) > MAX_CHARS:
        raise LimitExceeded
    return left + right


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > MAX_BITS:
        raise LimitExceeded(f"a number of more than {MAX_BITS} bits")
    return base ** exponent


def _percent(left: Any, right: Any) -> Any:
    if isinstance(left, str):
        check_format(left, right)
    return left % right


def check_format(form: str, *values: Any) -> None:
    """Refuse formats that would blow a value up."""
    fields = form.count("%") + form.count("{")
    if BIG_WIDTH.search(form) or fields * (10_000 + sum(map(size_of, values))) > MAX_PRODUCT:
        raise LimitExceeded(f"a text with wide fields, by the format {form[:60]!r}")


# -- the environment --------------------------------------------------------------------------------------------------

GROWING_METHODS = ("center", "ljust", "rjust", "zfill", "replace", "join", "expandtabs", "translate")
GROWING_FILTERS = ("center", "indent", "replace", "join", "batch", "slice", "truncate", "tojson", "round")
# Those of web pages, those that draw lots, and those that write Python objects out.
NO_FILTERS = ("urlize", "xmlattr", "forceescape", "pprint", "random", "filesizeformat", "striptags", "wordwrap")
NO_GLOBALS = ("lipsum", "cycler", "joiner")


class _Environment(ImmutableSandboxedEnvironment):
    """Operators and methods that are asked first; private attributes are refused at once, not when they are used."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        raise SecurityError(f"it reaches for the attribute {attribute!r} of a {type(obj).__name__}")

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        # The underscores: a template may call its own functions with arguments named `self` and `obj`.
        receiver = getattr(__obj, "__self__", None)
        if isinstance(receiver, str) and getattr(__obj, "__name__", "") in GROWING_METHODS:
            __obj = growing(__obj, receiver)
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Any:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def format(*args: Any, **kwargs: Any) -> str:
            check_format(value.__self__, *args, *kwargs.values())
            return str(wrapped(*args, **kwargs))
        return format

    @staticmethod
    def joined(*values: Any) -> str:
        """The operator `~`."""
        return str(limited("".join([str(limited(v)) for v in values])))

    literal = staticmethod(limited)
    concat = staticmethod(concatenated)


class _Generation(Extension):
    """`{% generation %}` marks what a model is trained to say; for a prompt it means nothing."""

    tags = frozenset({"generation"})

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


class _Asked(NodeTransformer):
    """What Jinja does not let one intercept, as calls: `a ~ b`, and literals, which can double what they hold."""

    def visit_Concat(self, node: Any) -> Any:  # noqa: N802  -- the visitor's naming
        self.generic_visit(node)
        return _call("joined", node.nodes, node)

    def visit_List(self, node: Any) -> Any:  # noqa: N802
        self.generic_visit(node)
        return _call("literal", [node], node)

    visit_Dict = visit_List  # noqa: N815

    def visit_Tuple(self, node: Any) -> Any:  # noqa: N802
        return self.visit_List(node) if node.ctx == "load" else node


def _call(method: str, arguments: list[Any], at: Any) -> Any:
    made = nodes.Call(nodes.EnvironmentAttribute(method), arguments, [], None, None)
    return made.set_lineno(at.lineno).set_environment(at.environment)


@functools.cache
def _environment() -> _Environment:
    env = _Environment(trim_blocks=True, lstrip_blocks=True, optimized=False, finalize=written,
                       extensions=[_Generation, loopcontrols])
    env.filters |= {"tojson": _tojson, "format": _format}
    for name in NO_FILTERS:
        del env.filters[name]
    for name in NO_GLOBALS:
        del env.globals[name]
    for name, function in env.filters.items():
        env.filters[name] = growing(function) if name in GROWING_FILTERS else _shrinking(function)
    env.binop_table |= {"+": _plus, "*": _times, "**": _power, "%": _percent}
    env.globals |= {"raise_exception": _raise, "dict": _dict}
    return env


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> jinja2.Template:
    env = _environment()
    tree = _Asked().visit(env.parse(template))
    return env.template_class.from_code(env, env.compile(tree, filename="<template>"), env.make_globals(None))


def _raise(message: str) -> None:
    raise TemplateError(str(message))


def _dict(*args: Any, **kwargs: Any) -> Any:
    return limited(dict(*args, **kwargs))


def _format(form: Any, *args: Any) -> str:
    return str(_percent(str(form), args))


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None,
            sort_keys: bool = False) -> str:
    """JSON for a prompt: as it is, where Jinja's own filter writes it for a web page."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
