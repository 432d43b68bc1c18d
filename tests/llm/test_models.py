"""Tiny random models of every family against a plain NumPy forward pass in float64."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import erf

import nums_core.array as na
from nums_core.llm.config import from_huggingface
from nums_core.llm.models import family
from nums_core.llm.weights.load import load_model
from nums_core.nn import tree

official = pytest.importorskip("safetensors.numpy")

TOKENS = np.random.default_rng(7).integers(0, 50, (2, 11))

# -- the oracle: Hugging Face's names and settings, nothing of the library --------------------------------------------


def rms(x, w, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


def standardise(x, w, name, eps=1e-5):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w[f"{name}.weight"] + w[f"{name}.bias"]


def project(x, w, name):
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


ACTIVATIONS = {"silu": lambda x: x / (1 + np.exp(-x)), "relu": lambda x: np.maximum(x, 0),
               "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
               "gelu_new": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))}


def frequencies(dim, base, scaling):
    f = base ** (-np.arange(0, dim, 2) / dim)
    kind = (scaling or {}).get("rope_type")
    if kind == "linear":
        return f / scaling["factor"]
    if kind == "llama3":
        low, high, full = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["original_max_position_embeddings"]
        turns = full * f / (2 * np.pi)  # within the length the model was first trained on
        share = np.clip((turns - low) / (high - low), 0, 1)
        return share * f + (1 - share) * f / scaling["factor"]
    return f


def rotate(x, dim, base=1e4, scaling=None):
    """Turn the pairs (i, i + dim/2) of the first `dim` elements; x : (batch, seq, heads, d)."""
    angle = np.arange(x.shape[1])[:, None, None] * frequencies(dim, base, scaling)
    z = (x[..., :dim // 2] + 1j * x[..., dim // 2:dim]) * np.exp(1j * angle)
    return np.concatenate([z.real, z.imag, x[..., dim:]], -1)


def attention(q, k, v, window=None):
    group, s = q.shape[2] // k.shape[2], q.shape[1]
    back = np.arange(s)[:, None] - np.arange(s)[None, :]
    seen = (back >= 0) & (back < (window or s))
    out = np.empty_like(q)
    for b, h in np.ndindex(q.shape[0], q.shape[2]):
        scores = np.where(seen, q[b, :, h] @ k[b, :, h // group].T / np.sqrt(q.shape[-1]), -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        out[b, :, h] = p / p.sum(-1, keepdims=True) @ v[b, :, h // group]
    return out.reshape(*q.shape[:2], -1)


def heads(x, n):
    return x.reshape(*x.shape[:2], n, -1)


def llama(w, c, tokens):
    n, kv = c["num_attention_heads"], c["num_key_value_heads"]
    x = w["model.embed_tokens.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        h = rms(x, w[at + "input_layernorm.weight"], c["rms_norm_eps"])
        q, k, v = (heads(project(h, w, f"{at}self_attn.{p}_proj"), m) for p, m in (("q", n), ("k", kv), ("v", kv)))
        q, k = (rotate(t, t.shape[-1], c.get("rope_theta", 1e4), c.get("rope_scaling")) for t in (q, k))
        x = x + project(attention(q, k, v, c.get("sliding_window")), w, at + "self_attn.o_proj")
        h = rms(x, w[at + "post_attention_layernorm.weight"], c["rms_norm_eps"])
        gated = ACTIVATIONS["silu"](project(h, w, at + "mlp.gate_proj")) * project(h, w, at + "mlp.up_proj")
        x = x + project(gated, w, at + "mlp.down_proj")
    x = rms(x, w["model.norm.weight"], c["rms_norm_eps"])
    return x @ w["model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"].T


def opt(w, c, tokens):
    d, before = "model.decoder.", c["do_layer_norm_before"]
    x = w[d + "embed_tokens.weight"][tokens]
    if "word_embed_proj_dim" in c:
        x = project(x, w, d + "project_in")
    x = x + w[d + "embed_positions.weight"][2:2 + tokens.shape[1]]
    for i in range(c["num_hidden_layers"]):
        at = f"{d}layers.{i}."
        h = standardise(x, w, at + "self_attn_layer_norm") if before else x
        q, k, v = (heads(project(h, w, f"{at}self_attn.{p}_proj"), c["num_attention_heads"]) for p in "qkv")
        x = x + project(attention(q, k, v), w, at + "self_attn.out_proj")
        x = x if before else standardise(x, w, at + "self_attn_layer_norm")
        h = standardise(x, w, at + "final_layer_norm") if before else x
        x = x + project(ACTIVATIONS["relu"](project(h, w, at + "fc1")), w, at + "fc2")
        x = x if before else standardise(x, w, at + "final_layer_norm")
    x = standardise(x, w, d + "final_layer_norm") if before else x
    x = project(x, w, d + "project_out") if "word_embed_proj_dim" in c else x
    return x @ w[d + "embed_tokens.weight"].T


def neox(w, c, tokens):
    n = c["num_attention_heads"]
    x = w["gpt_neox.embed_in.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        at = f"gpt_neox.layers.{i}."
        h = standardise(x, w, at + "input_layernorm")
        q, k, v = np.split(heads(project(h, w, at + "attention.query_key_value"), n), 3, -1)
        dim = int(q.shape[-1] * c["rotary_pct"])
        q, k = rotate(q, dim), rotate(k, dim)
        attended = x + project(attention(q, k, v), w, at + "attention.dense")
        h = standardise(x if c["use_parallel_residual"] else attended, w, at + "post_attention_layernorm")
        act = ACTIVATIONS[c["hidden_act"]](project(h, w, at + "mlp.dense_h_to_4h"))
        x = attended + project(act, w, at + "mlp.dense_4h_to_h")
    return standardise(x, w, "gpt_neox.final_layer_norm") @ w["embed_out.weight"].T


# -- tiny models ------------------------------------------------------------------------------------------------------

BASE = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
LLAMA = {**BASE, "model_type": "llama", "intermediate_size": 64, "rms_norm_eps": 1e-5, "num_key_value_heads": 4,
         "tie_word_embeddings": False}
OPT = {**BASE, "model_type": "opt", "ffn_dim": 48, "do_layer_norm_before": True}
NEOX = {**BASE, "model_type": "gpt_neox", "intermediate_size": 48, "rotary_pct": 0.5, "hidden_act": "gelu",
        "use_parallel_residual": True}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8}
CASES = {
    "llama": LLAMA,
    "llama, grouped and tied": LLAMA | {"num_key_value_heads": 2, "tie_word_embeddings": True, "rope_theta": 5e5},
    "llama, narrow heads": LLAMA | {"head_dim": 4, "num_key_value_heads": 1},
    "llama, biases": LLAMA | {"attention_bias": True, "mlp_bias": True},
    "llama, linear scaling": LLAMA | {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "llama, llama3 scaling": LLAMA | {"rope_scaling": LLAMA3},
    "mistral": LLAMA | {"model_type": "mistral", "sliding_window": 4, "num_key_value_heads": 2},
    "qwen2": LLAMA | {"model_type": "qwen2", "num_key_value_heads": 2},
    "opt": OPT,
    "opt, norms after": OPT | {"do_layer_norm_before": False, "word_embed_proj_dim": 16},
    "opt, no biases": OPT | {"enable_bias": False},
    "neox": NEOX,
    "neox, one after the other": NEOX | {"use_parallel_residual": False, "rotary_pct": 1.0, "hidden_act": "gelu_new"},
}
ORACLES = {"opt": opt, "gpt_neox": neox}


def shapes(c):
    """Hugging Face's tensors of a model: name -> shape."""
    h, v, kind, out = c["hidden_size"], c["vocab_size"], c["model_type"], {}

    def linear(name, n_in, n_out, bias):
        out[f"{name}.weight"] = (n_out, n_in)
        if bias:
            out[f"{name}.bias"] = (n_out,)

    def norm(name, bias=True):
        out[f"{name}.weight"] = (h,)
        if bias:
            out[f"{name}.bias"] = (h,)

    for i in range(c["num_hidden_layers"]):
        if kind == "opt":
            at, bias = f"model.decoder.layers.{i}.", c.get("enable_bias", True)
            norm(at + "self_attn_layer_norm")
            norm(at + "final_layer_norm")
            for p in ("q_proj", "k_proj", "v_proj", "out_proj"):
                linear(at + "self_attn." + p, h, h, bias)
            linear(at + "fc1", h, c["ffn_dim"], bias)
            linear(at + "fc2", c["ffn_dim"], h, bias)
        elif kind == "gpt_neox":
            at = f"gpt_neox.layers.{i}."
            norm(at + "input_layernorm")
            norm(at + "post_attention_layernorm")
            linear(at + "attention.query_key_value", h, 3 * h, True)
            linear(at + "attention.dense", h, h, True)
            linear(at + "mlp.dense_h_to_4h", h, c["intermediate_size"], True)
            linear(at + "mlp.dense_4h_to_h", c["intermediate_size"], h, True)
        else:
            at, d = f"model.layers.{i}.", c.get("head_dim", h // c["num_attention_heads"])
            n, kv, bias = c["num_attention_heads"] * d, c["num_key_value_heads"] * d, c.get("attention_bias", False)
            norm(at + "input_layernorm", False)
            norm(at + "post_attention_layernorm", False)
            for p, size in (("q", n), ("k", kv), ("v", kv)):
                linear(f"{at}self_attn.{p}_proj", h, size, bias or kind == "qwen2")
            linear(at + "self_attn.o_proj", n, h, bias)
            for p in ("gate", "up"):
                linear(f"{at}mlp.{p}_proj", h, c["intermediate_size"], c.get("mlp_bias", False))
            linear(at + "mlp.down_proj", c["intermediate_size"], h, c.get("mlp_bias", False))
    if kind == "opt":
        narrow = c.get("word_embed_proj_dim", h)
        out["model.decoder.embed_tokens.weight"] = (v, narrow)
        out["model.decoder.embed_positions.weight"] = (c["max_position_embeddings"] + 2, h)
        if narrow != h:
            linear("model.decoder.project_in", narrow, h, False)
            linear("model.decoder.project_out", h, narrow, False)
        if c["do_layer_norm_before"]:
            norm("model.decoder.final_layer_norm")
    elif kind == "gpt_neox":
        out["gpt_neox.embed_in.weight"] = out["embed_out.weight"] = (v, h)
        norm("gpt_neox.final_layer_norm")
    else:
        out["model.embed_tokens.weight"] = (v, h)
        norm("model.norm", False)
        if not c["tie_word_embeddings"]:
            out["lm_head.weight"] = (v, h)
    return out


def random_weights(c, seed=0):
    rng = np.random.default_rng(seed)
    return {name: (rng.normal(size=s) * (0.3 if len(s) > 1 else 0.1) + (name.endswith("norm.weight"))).astype("f4")
            for name, s in shapes(c).items()}


def save(folder, c, w):
    (folder / "config.json").write_text(json.dumps(c))
    official.save_file(w, folder / "model.safetensors")
    return folder


def oracle(c, w, tokens=TOKENS):
    return ORACLES.get(c["model_type"], llama)({k: x.astype("f8") for k, x in w.items()}, c, tokens)


def assert_near(got, want, relative=2e-6):
    """Errors of float32 are relative to the largest logit."""
    np.testing.assert_allclose(np.asarray(got), want, atol=relative * abs(want).max(), rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_formulas(tmp_path, case):
    c, w = CASES[case], random_weights(CASES[case])
    model, config = load_model(save(tmp_path, c, w))
    assert model.config is config and config == from_huggingface(c)
    assert_near(model(TOKENS), oracle(c, w))


def test_a_token_sees_nothing_after_it():
    """The oracle itself: what follows a token must not change its logits, and what a window hides neither."""
    w = random_weights(CASES["mistral"])
    other = np.concatenate([TOKENS[:, :5], TOKENS[:, 5:][:, ::-1]], 1)
    a, b = oracle(CASES["mistral"], w), oracle(CASES["mistral"], w, other)
    np.testing.assert_array_equal(a[:, :5], b[:, :5])
    assert abs(a[:, 5:] - b[:, 5:]).max() > 0.1


@pytest.mark.parametrize("case", ["llama", "opt", "neox"])
def test_one_sequence_needs_no_batch(tmp_path, case):
    model, _ = load_model(save(tmp_path, CASES[case], random_weights(CASES[case])))
    np.testing.assert_allclose(np.asarray(model(TOKENS[1])), np.asarray(model(TOKENS))[1], rtol=1e-4, atol=1e-4)


def test_logits_of_some_rows_of_the_hidden_states(tmp_path):
    c, w = CASES["llama"], random_weights(CASES["llama"])
    model, _ = load_model(save(tmp_path, c, w))
    assert_near(model.logits(model.hidden(TOKENS)[:, -1]), oracle(c, w)[:, -1])


@pytest.mark.parametrize("case", ["llama, grouped and tied", "opt", "neox"])
def test_batches_and_matrices_may_be_cut(tmp_path, case):
    """Data parallelism is a batch in blocks; tensor parallelism, matrices in blocks."""
    c, w = CASES[case], random_weights(CASES[case])
    model, _ = load_model(save(tmp_path, c, w))
    cut = tree.map(lambda p: p.rechunk((-(-p.shape[0] // 2), -1)) if p.ndim == 2 else p, model)
    tokens = na.asarray(TOKENS, chunks=(1, -1))
    assert model(tokens).expr.grid == (2, 1, 1) and cut.layers[0].attention.q.weight.expr.grid == (2, 1)
    assert_near(model(tokens), oracle(c, w))
    assert_near(cut(tokens), oracle(c, w))


@pytest.mark.parametrize("case", ["llama, grouped and tied", "opt", "neox"])
def test_attention_can_live_elsewhere(tmp_path, case):
    """As in an engine: flat tokens, positions given, attention by a function that is handed every layer's q, k, v."""
    c, w = CASES[case], random_weights(CASES[case])
    model, config = load_model(save(tmp_path, c, w))
    seen = []

    def attend(layer, q, k, v, rotary):
        seen.append((layer, q.shape, k.shape, v.shape))
        assert (rotary is None) == (config.rotary_dim == 0)
        q, k, v = (np.asarray(t).reshape(2, 11, *t.shape[1:]) for t in (q, k, v))
        if rotary is not None:
            q, k = (rotary.apply(t, np.tile(np.arange(11), (2, 1))) for t in (q, k))
        return na.asarray(attention(q, k, v).astype("f4").reshape(22, config.n_heads, -1))

    got = model(TOKENS.reshape(-1), attend=attend, positions=np.tile(np.arange(11), 2))
    assert seen == [(i, (22, config.n_heads, 8), *((22, config.n_kv_heads, 8),) * 2) for i in range(2)]
    assert_near(np.asarray(got).reshape(2, 11, -1), oracle(c, w))


# -- GGUF -------------------------------------------------------------------------------------------------------------

def permuted(x, n_heads):
    """Rows in the order of llama.cpp's files: a head's pairs (i, i + d/2) become neighbours."""
    return x.reshape(n_heads, 2, -1, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


LLAMA_NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
               "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "norm": "output_norm",
               "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
               "embed_tokens": "token_embd", "lm_head": "output", "attention.query_key_value": "attn_qkv",
               "attention.dense": "attn_output", "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down",
               "embed_in": "token_embd", "final_layer_norm": "output_norm", "embed_out": "output"}


def gguf_name(name):
    stem, _, leaf = name.removeprefix("model.").removeprefix("gpt_neox.").rpartition(".")
    if stem.startswith("layers."):
        _, i, rest = stem.split(".", 2)
        return f"blk.{i}.{LLAMA_NAMES[rest]}.{leaf}"
    return f"{LLAMA_NAMES[stem]}.{leaf}"


def save_gguf(path, c, w, quantise=None, factors=None):
    gguf = pytest.importorskip("gguf")
    arch = {"gpt_neox": "gptneox", "mistral": "llama"}.get(c["model_type"], c["model_type"])
    n, out = c["num_attention_heads"], gguf.GGUFWriter(path, arch)
    kv = c.get("num_key_value_heads", n)
    out.add_context_length(c["max_position_embeddings"])
    out.add_embedding_length(c["hidden_size"])
    out.add_block_count(c["num_hidden_layers"])
    out.add_feed_forward_length(c["intermediate_size"])
    out.add_head_count(n)
    out.add_head_count_kv(kv)
    out.add_layer_norm_rms_eps(c.get("rms_norm_eps", 1e-5))
    out.add_layer_norm_eps(1e-5)
    out.add_rope_freq_base(c.get("rope_theta", 1e4))
    if "rotary_pct" in c:
        out.add_rope_dimension_count(int(c["hidden_size"] // n * c["rotary_pct"]))
        out.add_parallel_residual(c["use_parallel_residual"])
    if factors is not None:
        out.add_tensor("rope_freqs.weight", factors)
    for name, x in w.items():
        if arch == "llama" and ("q_proj" in name or "k_proj" in name):
            x = permuted(x, n if "q_proj" in name else kv)
        if "query_key_value" in name:
            x = x.reshape(n, 3, -1, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)
        if quantise and x.ndim == 2:
            kind = gguf.GGMLQuantizationType[quantise]
            out.add_tensor(gguf_name(name), gguf.quantize(x, kind), raw_dtype=kind)
        else:
            out.add_tensor(gguf_name(name), np.ascontiguousarray(x))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


@pytest.mark.parametrize("case", ["llama", "llama, grouped and tied", "llama, biases", "qwen2", "neox"])
def test_logits_from_gguf_files(tmp_path, case):
    c, w = CASES[case], random_weights(CASES[case])
    model, config = load_model(save_gguf(tmp_path / "m.gguf", c, w))
    assert config.rope_interleaved == (case.startswith("llama"))
    assert_near(model(TOKENS), oracle(c, w))


def test_gguf_writes_llama3_scaling_as_factors(tmp_path):
    c, w = CASES["llama, llama3 scaling"], random_weights(CASES["llama"])
    factors = (frequencies(8, 1e4, None) / frequencies(8, 1e4, LLAMA3)).astype("f4")
    model, _ = load_model(save_gguf(tmp_path / "m.gguf", c, w, factors=factors))
    assert_near(model(TOKENS), oracle(c, w), 1e-5)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "BF16", "F16"])
def test_quantised_files_give_the_logits_of_their_decoded_weights(tmp_path, kind):
    gguf = pytest.importorskip("gguf")
    c, w = CASES["llama, grouped and tied"], random_weights(CASES["llama, grouped and tied"])
    path = save_gguf(tmp_path / "m.gguf", c, w, quantise=kind)
    kinds = gguf.GGMLQuantizationType[kind]
    decoded = {k: gguf.dequantize(gguf.quantize(x, kinds), kinds).reshape(x.shape) if x.ndim == 2 else x for k, x in w.items()}
    want = oracle(c, decoded)
    assert_near(load_model(path)[0](TOKENS), want)
    assert_near(load_model(path, dtype="keep")[0](TOKENS), want, 2e-2)  # kernels may round activations too


# -- random models, and training --------------------------------------------------------------------------------------

@pytest.mark.parametrize("case", ["llama, biases", "opt, norms after", "neox"])
def test_random_models_are_reproducible(case):
    from nums_core.nn.init import Keys

    config = from_huggingface(CASES[case])
    a, b, other = (family(config.family).init(Keys(seed), config).parameters() for seed in (1, 1, 2))
    assert {k: x.shape for k, x in a.items()} == {k: x.shape for k, x in b.items()}
    values = [np.asarray(p["layers.1.attention.q.weight"]) for p in (a, b, other)]
    np.testing.assert_array_equal(values[0], values[1])
    assert (values[0] != values[2]).mean() > 0.9 and values[0].dtype == np.float32
    assert (values[0] != np.asarray(a["layers.0.attention.q.weight"])).mean() > 0.9


@pytest.mark.parametrize("case", ["llama, grouped and tied", "opt", "neox"])
def test_the_derivative_of_the_loss_is_a_finite_difference(case):
    from nums_core.nn import functional as F
    from nums_core.nn.autodiff import grad
    from nums_core.nn.init import Keys

    config = from_huggingface(CASES[case] | {"num_hidden_layers": 1})
    model = tree.map(lambda p: p.astype("float64"), family(config.family).init(Keys(0), config))

    def loss(m):
        return F.cross_entropy(m(TOKENS[:, :-1]), na.asarray(TOKENS[:, 1:]))

    slope = grad(loss)(model)
    parts = {k: np.asarray(g) for k, g in slope.parameters().items()}
    assert parts.keys() == model.parameters().keys()
    assert all(abs(g).max() > 0 for k, g in parts.items() if not k.endswith("k.bias"))  # softmax cannot see that one
    square = sum(float((g**2).sum()) for g in parts.values())
    step = 1e-5 / np.sqrt(square)
    up, down = (float(loss(tree.map(lambda p, g, s=s: p + s * g, model, slope))) for s in (step, -step))
    assert (up - down) / (2 * step) == pytest.approx(square, rel=1e-5)
