"""`nums generate`: a model's continuation of a text, as it is made.

    nums generate MODEL "Once upon a time" --max-tokens 64
    nums generate MODEL --chat "What is a prime number?"
    echo "Dear diary," | nums generate MODEL -

The text goes to the standard output. How fast it went is said on the standard error, and only where that is a terminal.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, TextIO

from nums_core._util import format_seconds

EVERY_S = 0.2
CLEAR = "\r\x1b[K"


def add_parser(commands: Any) -> None:
    """The command's options. What is left out is the library's own default."""
    parser = commands.add_parser("generate", help="continue a text with a language model",
                                 description="Continue a text with a language model, or answer it (--chat).")
    parser.add_argument("model", help="a .gguf file, a Hugging Face folder, or an installed package that holds one .gguf")
    parser.add_argument("prompt", help="the text; - reads it from the standard input")
    parser.add_argument("--chat", action="store_true", help="the text is a question, put in the model's chat template")
    parser.add_argument("--system", metavar="TEXT", help="what the model is told before the question (with --chat)")
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--max-tokens", type=int, default=128, metavar="N", help="default: %(default)s")
    sampling.add_argument("--temperature", type=float, metavar="T", help="0: always the likeliest token")
    sampling.add_argument("--top-k", type=int, metavar="K")
    sampling.add_argument("--top-p", type=float, metavar="P")
    sampling.add_argument("--min-p", type=float, metavar="P")
    sampling.add_argument("--repetition-penalty", type=float, metavar="R")
    sampling.add_argument("--seed", type=int, metavar="N")
    sampling.add_argument("--stop", action="append", metavar="TEXT", help="end here; may be given several times")
    engine = parser.add_argument_group("engine")
    engine.add_argument("--dtype", choices=("keep", "float32"), help="of the matrices in memory; keep: as in the file")
    engine.add_argument("--kv-policy", metavar="POLICY",
                        help='which tokens the cache keeps: full, window:window=256, h2o:heavy=0.1,recent=0.1, tova:budget=0.2')
    engine.add_argument("--kv-bits", type=int, choices=(4, 8, 16, 32), help="of a cached number")
    engine.add_argument("--memory", metavar="BYTES", help='of the cache, as in "2GiB"')


SAMPLING = ("max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop")
ENGINE = ("dtype", "kv_policy", "kv_bits", "memory")


def run(args: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    from nums_core.llm.llm import LLM

    text = args.prompt if args.prompt != "-" else sys.stdin.read()
    llm = LLM(args.model, max_batch=1, **_given(args, ENGINE))
    if args.chat:
        system = [{"role": "system", "content": args.system}] if args.system else []
        prompt: Any = llm.chat_prompt([*system, {"role": "user", "content": text}])
    else:
        prompt = llm.tokenizer.encode(text)
    with closing(llm.stream(prompt, **_given(args, SAMPLING))) as pieces:
        error = show(pieces, len(prompt), sys.stdout, sys.stderr)
    if error is not None:
        print(f"nums: {error}", file=sys.stderr)
    return int(error is not None)


def _given(args: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def show(pieces: Iterator[Any], n_prompt: int, out: TextIO, err: TextIO) -> str | None:
    """Write `pieces` as they come; returns what went wrong, if anything did."""
    progress = _Progress(n_prompt, err, live=not out.isatty())
    error = None
    for piece in pieces:
        progress.step(len(piece.token_ids))
        out.write(piece.text)
        out.flush()
        if piece.completion is not None:
            error = piece.completion.error
    if error is None:
        out.write("\n")
        out.flush()
    progress.close()
    return error


class _Progress:
    """One line on a terminal: until the first token, that the prompt is being read; then the rate.

    Where the text itself goes to the terminal, the line would tear it: it is shown before the first token and after the
    last one only (`live` is False).
    """

    def __init__(self, n_prompt: int, stream: TextIO, live: bool) -> None:
        self.stream, self.n_prompt, self.on, self.live = stream, n_prompt, stream.isatty(), live
        self.n_tokens, self.first_s = 0, 0.0
        self.start_s, self.shown_s = time.perf_counter(), 0.0
        if self.on:
            self._write(f"reading {n_prompt} tokens ...")

    def _write(self, text: str) -> None:
        self.stream.write(CLEAR + text)
        self.stream.flush()

    def step(self, n_tokens: int) -> None:
        now = time.perf_counter()
        if n_tokens and not self.n_tokens:
            self.first_s = now - self.start_s
            if self.on:
                self._write("")
        self.n_tokens += n_tokens
        if self.on and self.live and now - self.shown_s > EVERY_S:
            self.shown_s = now
            self._write(self.text())

    def text(self) -> str:
        """What was done, and how fast."""
        decoding_s = time.perf_counter() - self.start_s - self.first_s
        rate = f", {(self.n_tokens - 1) / decoding_s:.1f} tokens/s" if self.n_tokens > 1 and decoding_s > 0 else ""
        return (f"{self.n_prompt} tokens read, first token after {format_seconds(self.first_s)}; "
                f"{self.n_tokens} tokens made{rate}")

    def close(self) -> None:
        if self.on:
            self._write(self.text() + "\n" if self.n_tokens else "")
