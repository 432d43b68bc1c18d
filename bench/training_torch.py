"""The model of `bench.training` in PyTorch: run by its interpreter as `python bench/training_torch.py FOLDER`.

It imports nothing of this project, so that PyTorch may live in an environment of its own.
"""

import json
import math
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

EPS = 1e-5


def rms_norm(x, weight):
    return F.rms_norm(x, weight.shape, weight, EPS)


def rotated(x, cos, sin):
    """Hugging Face's "rotate half"; x is (batch, heads, seq, d)."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


def frequencies(length, dim, base=10_000.0):
    angle = torch.outer(torch.arange(length).float(), base ** (-torch.arange(0, dim, 2).float() / dim))
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def attention(x, p, name, c, cos, sin):
    b, s, _ = x.shape
    q, k, v = (F.linear(x, p[f"{name}.{part}.weight"]).view(b, s, -1, c["head_dim"]).transpose(1, 2) for part in "qkv")
    groups = c["n_heads"] // c["n_kv_heads"]
    q, k = rotated(q, cos, sin), rotated(k, cos, sin).repeat_interleave(groups, dim=1)
    out = F.scaled_dot_product_attention(q, k, v.repeat_interleave(groups, dim=1), is_causal=True)
    return F.linear(out.transpose(1, 2).reshape(b, s, -1), p[f"{name}.out.weight"])


def mlp(x, p, name):
    gate, up = F.linear(x, p[f"{name}.gate.weight"]), F.linear(x, p[f"{name}.up.weight"])
    return F.linear(F.silu(gate) * up, p[f"{name}.down.weight"])


def loss_of(p, c, tokens, labels, cos, sin):
    x = F.embedding(tokens, p["embedding.weight"])
    for i in range(c["n_layers"]):
        x = x + attention(rms_norm(x, p[f"layers.{i}.attention_norm.weight"]), p, f"layers.{i}.attention", c, cos, sin)
        x = x + mlp(rms_norm(x, p[f"layers.{i}.mlp_norm.weight"]), p, f"layers.{i}.mlp")
    logits = F.linear(rms_norm(x, p["norm.weight"]), p["embedding.weight"])
    return F.cross_entropy(logits.view(-1, logits.shape[-1]), labels.view(-1))


def rate(rule, k, total_steps):
    """The rate of `nums_core.nn.optim.Cosine`."""
    if k < rule["warmup_steps"]:
        return rule["peak"] * (k + 1) / rule["warmup_steps"]
    part = min((k - rule["warmup_steps"]) / (total_steps - rule["warmup_steps"]), 1.0)
    return rule["final"] + (rule["peak"] - rule["final"]) * 0.5 * (1 + math.cos(math.pi * part))


def peak():
    """Most bytes that were resident."""
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)


def main():
    folder = Path(sys.argv[1])
    settings = json.loads((folder / "settings.json").read_text())
    c, rule, batches = settings["model"], settings["rule"], np.load(folder / "batches.npz")
    torch.set_num_threads(settings["threads"])
    p = {name: torch.nn.Parameter(torch.from_numpy(w.copy())) for name, w in np.load(folder / "weights.npz").items()}
    optimiser = torch.optim.AdamW(list(p.values()), lr=rule["peak"], betas=(rule["beta1"], rule["beta2"]), eps=rule["eps"],
                                  weight_decay=rule["decay"], fused=True)
    tokens, labels = (torch.from_numpy(batches[name].astype(np.int64)) for name in ("tokens", "labels"))
    cos, sin = frequencies(tokens.shape[-1], c["head_dim"])
    compiled = shutil.which("g++") is not None or shutil.which("clang++") is not None
    compute = torch.compile(loss_of) if compiled else loss_of

    def step(k):
        for group in optimiser.param_groups:
            group["lr"] = rate(rule, k, settings["total_steps"])
        value = compute(p, c, tokens[k], labels[k], cos, sin)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(p.values(), rule["clip_norm"])
        optimiser.step()
        return value.item()

    told = {"version": f"torch {torch.__version__}", "compiled": str(compiled)}
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        first, n = map(int, line.split())
        losses, seconds, core_s = [], [], []
        for k in range(first, first + n):
            began, began_core = time.perf_counter(), time.process_time()
            losses.append(step(k))
            seconds.append(time.perf_counter() - began)
            core_s.append(time.process_time() - began_core)
        peak_bytes = peak()
        print(json.dumps({"losses": losses, "seconds": seconds, "core_s": core_s, "peak_bytes": peak_bytes, "told": told}),
              flush=True)
        if not first:  # what compiling took is no part of training
            Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
