"""Training a 10M-parameter LLaMA-shaped model on English text, against the same model in PyTorch on the CPU.

    python -m bench.training [--torch-python PATH] [--steps 40] [--batch 8] [--length 256] [--tokens bytes|bpe]

The text is that of Python's own help topics (`pydoc_data/topics.py`). Both programs start from the same weights, see the same
batches, and use AdamW, a cosine rate and clipping by global norm; they are processes that take turns, a few steps each, so
that a noisy minute falls on both. PyTorch may live in another environment (`--torch-python`); it compiles its step if there
is a C++ compiler. Seconds are of whole steps, losses included; core seconds are of the process's threads together. Peak bytes
are the process's resident set after the first turn, which plans or compiles. Ours cuts the batch into a block a thread.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench import harness

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"hidden_size": 384, "n_layers": 6, "n_heads": 6, "n_kv_heads": 2, "head_dim": 64, "intermediate_size": 1088}
RULE = {"peak": 1e-3, "warmup_steps": 20, "final": 1e-4, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "decay": 0.1,
        "clip_norm": 1.0}


# -- what both are given ------------------------------------------------------------------------------------------------

def corpus(kind: str) -> tuple[np.ndarray, int]:
    """The text as tokens, and how many different ones there may be."""
    from pydoc_data.topics import topics

    texts = [topics[name] for name in sorted(topics)]
    if kind == "bytes":
        return np.frombuffer("\n".join(texts).encode(), np.uint8).astype(np.uint16), 256
    from tokenizers import ByteLevelBPETokenizer

    from nums_core.nn.data import pack

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=2048, show_progress=False)
    return pack(texts, lambda text: bpe.encode(text).ids).astype(np.uint16), 2048


def prepare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Write settings, first weights and all batches."""
    import nums_core as nc
    from nums_core.llm.models.llama import Llama
    from nums_core.nn.data import Batches, Windows
    from nums_core.nn.init import Keys

    tokens, vocab_size = corpus(options.tokens)
    settings = {"model": SIZES | {"vocab_size": vocab_size, "max_positions": options.length}, "rule": RULE,
                "total_steps": max(options.steps, RULE["warmup_steps"] + 1), "threads": options.threads}
    (folder / "settings.json").write_text(json.dumps(settings))
    weights = nc.compute(Llama.init(Keys(harness.SEED), config(settings)).parameters())[0]
    np.savez(folder / "weights.npz", **weights)
    batches = Batches(Windows(tokens, options.length), options.batch, seed=harness.SEED)
    rows = [next(batches) for _ in range(options.steps)]
    np.savez(folder / "batches.npz", tokens=np.stack([r.tokens for r in rows]), labels=np.stack([r.labels for r in rows]))
    return {"parameters": sum(w.size for w in weights.values()), "tokens in the text": len(tokens)}


def config(settings: dict[str, Any]) -> Any:
    from nums_core.llm.config import ModelConfig

    return ModelConfig("llama", **settings["model"], tie_embeddings=True, rotary_dim=settings["model"]["head_dim"])


# -- ours -----------------------------------------------------------------------------------------------------------------

def nums_steps(folder: Path) -> Any:
    """A function of a step's number that trains and gives the loss, and one that tells about the last step."""
    import nums_core as nc
    from nums_core.llm.models.llama import Llama
    from nums_core.nn import functional as F  # noqa: N812
    from nums_core.nn.init import Keys
    from nums_core.nn.optim import AdamW, Cosine
    from nums_core.nn.train import over_workers
    from nums_core.nn.trainer import Trainer

    settings = json.loads((folder / "settings.json").read_text())
    rule, batches = settings["rule"], np.load(folder / "batches.npz")
    nc.init(threads=settings["threads"])
    model = Llama.init(Keys(0), config(settings)).with_parameters(
        {name: nc.array.asarray(w) for name, w in np.load(folder / "weights.npz").items()})
    rate = Cosine(peak=rule["peak"], total_steps=settings["total_steps"], warmup_steps=rule["warmup_steps"],
                  final=rule["final"])
    optimiser = AdamW(rate=rate, beta1=rule["beta1"], beta2=rule["beta2"], eps=rule["eps"], decay=rule["decay"])
    data = ({"tokens": t, "labels": y} for t, y in zip(batches["tokens"], batches["labels"], strict=True))
    trainer = Trainer(lambda model, batch: F.cross_entropy(model(batch["tokens"]), batch["labels"]), model, optimiser, data,
                      clip_norm=rule["clip_norm"], place=lambda batch: over_workers(batch, settings["threads"]))
    del model

    def step(k: int) -> float:
        return trainer.run(1)[0]["loss"]

    return step, lambda: where_time_goes(trainer.report)


def where_time_goes(report: Any) -> dict[str, float]:
    """Seconds by label of operation, the most first; of all threads together."""
    seconds: dict[str, float] = {}
    for label, _, _, start, stop, _ in report.spans:
        seconds[label] = seconds.get(label, 0.0) + stop - start
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


# -- processes that take turns ----------------------------------------------------------------------------------------------

def serve(steps: Any) -> None:
    """Answer every line "first n" with the losses and seconds of `n` steps."""
    import time

    step, told = steps
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        first, n = map(int, line.split())
        answer: dict[str, Any] = {"losses": [], "seconds": [], "core_s": []}
        for k in range(first, first + n):
            began, began_core = time.perf_counter(), time.process_time()
            answer["losses"].append(step(k))
            answer["seconds"].append(time.perf_counter() - began)
            answer["core_s"].append(time.process_time() - began_core)
        answer["peak_bytes"] = harness._resident_bytes("VmHWM")
        answer["told"] = told()
        print(json.dumps(answer), flush=True)
        if not first:
            harness._reset_peak()


class Runner:
    """One program in a process of its own."""

    def __init__(self, command: list[str], threads: int) -> None:
        env = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env)
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.core_s: list[float] = []
        self.peak_bytes, self.told = 0, {}
        self._answer()

    def turn(self, first: int, n: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{first} {n}\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.losses += answer["losses"]
        self.seconds += answer["seconds"]
        self.core_s += answer["core_s"]
        self.peak_bytes, self.told = answer["peak_bytes"], answer["told"]

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args} died with exit code {self.process.wait()}")
        return json.loads(line)

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


def race(folder: Path, options: argparse.Namespace) -> dict[str, Runner]:
    """All steps, in turns."""
    commands = {"nums": [sys.executable, "-m", "bench.training", "--serve", str(folder)]}
    if options.torch_python:
        commands["torch"] = [options.torch_python, str(ROOT / "bench" / "training_torch.py"), str(folder)]
    runners = {name: Runner(command, options.threads) for name, command in commands.items()}
    try:
        for first in range(0, options.steps, options.turn):
            n = min(options.turn, options.steps - first)
            names = list(runners) if first // options.turn % 2 else list(runners)[::-1]
            for name in names:
                runners[name].turn(first, n)
    finally:
        for runner in runners.values():
            runner.stop()
    return runners


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", metavar="PATH", help="an interpreter that has torch; without one, only ours is timed")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--turn", type=int, default=5, help="steps in a turn")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tokens", choices=["bytes", "bpe"], default="bytes")
    parser.add_argument("--serve", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(nums_steps(Path(options.serve)))
        return 0
    print(harness.heading())
    with tempfile.TemporaryDirectory() as folder:
        made = prepare(Path(folder), options)
        told = [f"{n:,} {name}" for name, n in made.items()]
        print(", ".join([*told, f"{options.batch} x {options.length} tokens a step"]))
        runners = race(Path(folder), options)
    return report(runners, options)


def report(runners: dict[str, Runner], options: argparse.Namespace) -> int:
    """Print curves, seconds and memory; 1 where the curves part."""
    shown = sorted({*range(0, options.steps, max(1, options.steps // 10)), options.steps - 1})
    print("step   " + "  ".join(f"{k + 1:>7}" for k in shown))
    for name, r in runners.items():
        print(f"{name:<6} " + "  ".join(f"{r.losses[k]:7.4f}" for k in shown))
    warm = min(options.turn, options.steps - 1)  # the first turn plans, or compiles
    for name, r in runners.items():
        told = [f"{label} {s:.3f}" if isinstance(s, float) else f"{label} {s}" for label, s in list(r.told.items())[:14]]
        print(f"{name:<6} {harness.spread(r.seconds[warm:])} a step, {statistics.median(r.core_s[warm:]):.3f} core s, peak "
              f"{r.peak_bytes / 2**20:,.0f} MiB, first step {r.seconds[0]:.1f} s\n       {', '.join(told)}")
    apart = 0.0
    if "torch" in runners:
        ours, theirs = runners["nums"], runners["torch"]
        apart = max(abs(a - b) for a, b in zip(ours.losses, theirs.losses, strict=True))
        ratio = statistics.median(ours.seconds[warm:]) / statistics.median(theirs.seconds[warm:])
        print(f"nums / torch: seconds {ratio:.2f}, peak memory {ours.peak_bytes / theirs.peak_bytes:.2f}; losses differ by "
              f"at most {apart:.2g}")
    harness.record("training", options=vars(options), model=SIZES, rule=RULE,
                   results={name: {"losses": r.losses, "seconds": r.seconds, "core_s": r.core_s,
                                   "peak_bytes": r.peak_bytes, "told": r.told} for name, r in runners.items()})
    return int(apart > 0.05)


if __name__ == "__main__":
    raise SystemExit(main())
