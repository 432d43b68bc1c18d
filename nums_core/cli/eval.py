"""`nums eval`: how well a language model predicts, remembers and chooses, under any KV policy.

    nums eval perplexity MODEL book.txt --kv-policy h2o:heavy=128,recent=128
    nums eval recall MODEL --tokens 1024
    nums eval choices MODEL task.jsonl

A result is one line on the standard output; with `--json FILE` all of its numbers are added to that file, a line a result.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nums_core._util import format_bytes, format_seconds
from nums_core.errors import ConfigError, DataFileError, NumsError

ENGINE = ("dtype", "kv_policy", "kv_bits", "memory", "max_batch", "max_context")


def add_parser(commands: Any) -> None:
    """The command's options. What is left out is the library's own default."""
    parser = commands.add_parser("eval", help="judge a language model: perplexity, recall, multiple choice",
                                 description="Judge a language model, with any KV policy.")
    measures = parser.add_subparsers(dest="measure", required=True, metavar="perplexity | recall | choices")
    _add_perplexity(measures.add_parser("perplexity", help="of a text"))
    _add_recall(measures.add_parser("recall", help="of words planted in a long text"))
    _add_choices(measures.add_parser("choices", help="multiple choice by log-likelihood, from JSON lines"))
    for measure in measures.choices.values():
        _add_engine(measure)


def _add_perplexity(parser: Any) -> None:
    _add_model(parser)
    parser.add_argument("text", help="a file of UTF-8 text")
    parser.add_argument("--window", type=int, default=1024, metavar="N", help="tokens read at once (default: %(default)s)")
    parser.add_argument("--stride", type=int, metavar="N", help="tokens scored in a window (default: all but the first)")
    parser.add_argument("--limit", type=int, metavar="N", help="read only the first N tokens")


def _add_recall(parser: Any) -> None:
    _add_model(parser)
    parser.add_argument("--text", help="a file of UTF-8 text to plant in (default: made-up sentences)")
    parser.add_argument("--tokens", type=int, default=1024, metavar="N", help="of each text (default: %(default)s)")
    parser.add_argument("--depths", default="0.1,0.3,0.5,0.7,0.9", help="where, from 0 to 1 (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=4, metavar="N", help="texts for each depth (default: %(default)s)")
    parser.add_argument("--others", type=int, default=3, metavar="N", help="wrong words to choose from (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)


def _add_choices(parser: Any) -> None:
    _add_model(parser)
    parser.add_argument("task", help='a file of lines such as {"context": "1 + 1 =", "choices": [" 2", " 3"], "answer": 0}')
    parser.add_argument("--limit", type=int, metavar="N", help="ask only the first N questions")


def _add_model(parser: Any) -> None:
    parser.add_argument("model", help="a .gguf file, a Hugging Face folder, or an installed package that holds one .gguf")


def _add_engine(parser: Any) -> None:
    engine = parser.add_argument_group("engine")
    engine.add_argument("--dtype", help="of the weights in memory")
    engine.add_argument("--kv-policy", metavar="NAME", help='which tokens the cache keeps, as in "h2o:heavy=128,recent=128"')
    engine.add_argument("--kv-bits", type=int, choices=(4, 8, 16, 32), help="of a cached number")
    engine.add_argument("--memory", metavar="BYTES", help='of the cache, as in "2GiB"')
    engine.add_argument("--max-batch", type=int, metavar="N", help="texts read together")
    engine.add_argument("--max-context", type=int, metavar="N", help="tokens of the longest text")
    engine.add_argument("--chunk", type=int, metavar="N",
                        help="tokens read between evictions (default: 1 with a --kv-policy, as in decoding)")
    parser.add_argument("--json", metavar="FILE", help="add the numbers to this file")


def run(args: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    from nums_core.llm.eval.scorer import LLMScorer
    from nums_core.llm.llm import LLM

    inputs = _INPUTS[args.measure](args)  # what is wrong with a file should not wait for the model
    llm = LLM(args.model, **_given(args, ENGINE))
    chunk = args.chunk if args.chunk is not None or args.kv_policy in (None, "full") else 1
    began = time.perf_counter()
    try:
        result = _MEASURES[args.measure](args, LLMScorer(llm, chunk), llm, inputs)
    except ValueError as error:  # a text that the engine cannot serve
        raise error if isinstance(error, NumsError) else ConfigError(str(error)) from error
    took_s = time.perf_counter() - began
    print(f"{result}; {format_seconds(took_s)}")
    if args.json:
        _add_line(Path(args.json), {"measure": args.measure, "model": str(args.model), **_given(args, ENGINE), "chunk": chunk,
                                    "seconds": took_s, "value": _value(result), **dataclasses.asdict(result)})
    return 0


def _given(args: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def _value(result: Any) -> float:
    return float(result.value if hasattr(result, "value") else result.accuracy)


def _add_line(path: Path, record: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _text(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"{path} cannot be read ({error}); give a file of UTF-8 text") from None


def _task(args: argparse.Namespace) -> list[Any]:
    from nums_core.llm.eval.choices import read_task

    return read_task(args.task)[:args.limit]


_INPUTS: dict[str, Any] = {"perplexity": lambda args: _text(args.text), "recall": lambda args: _text(args.text),
                           "choices": _task}


def _perplexity(args: argparse.Namespace, scorer: Any, llm: Any, text: str) -> Any:
    from nums_core.llm.eval.perplexity import perplexity

    tokens = llm.tokenizer.encode(text)
    n_bytes = None if args.limit and args.limit < len(tokens) else len(text.encode())
    tokens = tokens[:args.limit]
    print(f"{len(tokens)} tokens" + (f" of {format_bytes(n_bytes)}" if n_bytes else ""))
    return perplexity(scorer, tokens, args.window, args.stride, n_bytes=n_bytes)


def _recall(args: argparse.Namespace, scorer: Any, llm: Any, text: str | None) -> Any:
    from nums_core.llm.eval.recall import plant, recall

    try:
        depths = [float(d) for d in args.depths.split(",")]
    except ValueError:
        raise ConfigError(f"--depths is {args.depths!r}; write numbers from 0 to 1 with commas, as in 0.1,0.5") from None
    items = plant(llm.tokenizer, args.tokens, text=text, depths=depths, repeat=args.repeat, others=args.others, seed=args.seed)
    return recall(scorer, items)


def _choices(args: argparse.Namespace, scorer: Any, llm: Any, questions: list[Any]) -> Any:
    from nums_core.llm.eval.choices import evaluate

    return evaluate(scorer, llm.tokenizer, questions, llm.engine.max_context)


_MEASURES: dict[str, Any] = {"perplexity": _perplexity, "recall": _recall, "choices": _choices}
