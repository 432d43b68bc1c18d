"""Loading: which tensor goes where, what is copied, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nums_core.errors import ConfigError, ModelFileError
from nums_core.llm.weights.load import load_model
from nums_core.llm.weights.safetensors import INDEX

official = pytest.importorskip("safetensors.numpy")

CONFIG = {"model_type": "llama", "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
          "num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64, "tie_word_embeddings": False}
LAYER = {"input_layernorm": (32,), "post_attention_layernorm": (32,), "self_attn.q_proj": (32, 32),
         "self_attn.k_proj": (16, 32), "self_attn.v_proj": (16, 32), "self_attn.o_proj": (32, 32),
         "mlp.gate_proj": (64, 32), "mlp.up_proj": (64, 32), "mlp.down_proj": (32, 64)}
SHAPES = {"model.embed_tokens.weight": (40, 32), "model.norm.weight": (32,), "lm_head.weight": (40, 32),
          **{f"model.layers.{i}.{k}.weight": s for i in range(2) for k, s in LAYER.items()}}
Q = "model.layers.1.self_attn.q_proj.weight"


def weights(dtype="f4"):
    rng = np.random.default_rng(3)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}


def save(folder, tensors, config=CONFIG):
    (folder / "config.json").write_text(json.dumps(config))
    official.save_file(tensors, folder / "model.safetensors")
    return folder


def address(x):
    return x.__array_interface__["data"][0]


def source(array):
    """The NumPy array that a loaded Array wraps."""
    assert array.expr.op == "leaf" and array.expr.grid == (1,) * array.ndim
    return array.expr.params[0].data


def test_every_parameter_is_its_tensor_uncopied(tmp_path):
    w = weights()
    model, config = load_model(save(tmp_path, w))
    parameters = model.parameters()
    assert len(parameters) == len(w)
    np.testing.assert_array_equal(np.asarray(parameters["layers.1.attention.q.weight"]), w[Q])
    np.testing.assert_array_equal(np.asarray(parameters["layers.0.mlp.down.weight"]), w["model.layers.0.mlp.down_proj.weight"])
    np.testing.assert_array_equal(np.asarray(parameters["head.weight"]), w["lm_head.weight"])
    size = (tmp_path / "model.safetensors").stat().st_size
    addresses = [address(source(x)) for x in parameters.values()]
    assert max(addresses) - min(addresses) < size  # all of them within one map
    assert config.n_layers == 2


def test_half_precision_is_widened_or_kept(tmp_path):
    w = weights("f2")
    save(tmp_path, w)
    wide = load_model(tmp_path)[0].parameters()
    assert {x.dtype for x in wide.values()} == {np.dtype("f4")}
    np.testing.assert_array_equal(np.asarray(wide["layers.1.attention.q.weight"]), w[Q].astype("f4"))
    kept = load_model(tmp_path, dtype="keep")[0]
    q = kept.layers[1].attention.q.weight
    assert q.format == "f16" and tuple(q.shape) == (32, 32)
    assert source(q.data).tobytes() == w[Q].tobytes() and not source(q.data).flags.owndata
    assert kept.norm.weight.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(q.dequantize()), w[Q].astype("f4"))


def test_shards_load_as_one_file_does(tmp_path):
    w = weights()
    names = sorted(w)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    places = {n: f"model-{i % 2 + 1}.safetensors" for i, n in enumerate(names)}
    for f in set(places.values()):
        official.save_file({n: w[n] for n in names if places[n] == f}, tmp_path / f)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}))
    model, _ = load_model(tmp_path)
    np.testing.assert_array_equal(np.asarray(model.layers[1].attention.q.weight), w[Q])


def test_a_model_saved_without_its_head_has_shorter_names(tmp_path):
    w = {name.removeprefix("model."): x for name, x in weights().items() if name != "lm_head.weight"}
    model, _ = load_model(save(tmp_path, w, CONFIG | {"tie_word_embeddings": True}))
    np.testing.assert_array_equal(np.asarray(model.layers[1].attention.q.weight), w[Q.removeprefix("model.")])


def test_tied_embeddings_may_be_in_the_file_twice(tmp_path):
    model, config = load_model(save(tmp_path, weights(), CONFIG | {"tie_word_embeddings": True}))
    assert model.head is None and config.tie_embeddings and "head.weight" not in model.parameters()


def test_buffers_of_old_exports_are_passed_over(tmp_path):
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, "f4")}
    load_model(save(tmp_path, weights() | extra))


def test_all_that_does_not_fit_is_in_one_message(tmp_path):
    w = weights()
    del w["lm_head.weight"], w[Q]
    w["model.norm.weight"] = np.ones(31, "f4")
    w["model.layers.2.self_attn.q_proj.weight"] = np.ones((32, 32), "f4")
    with pytest.raises(ModelFileError) as error:
        load_model(save(tmp_path, w))
    text = str(error.value)
    assert str(tmp_path) in text and "same model" in text
    assert "2 missing" in text and Q in text and "lm_head.weight" in text
    assert "1 wrongly shaped: model.norm.weight is (31,) and should be (32,)" in text
    assert "1 of no use to this model: model.layers.2.self_attn.q_proj.weight" in text


def test_a_long_list_is_cut(tmp_path):
    with pytest.raises(ModelFileError, match=r"20 missing: .*, \.\.\.; take") as error:
        load_model(save(tmp_path, {"model.embed_tokens.weight": weights()["model.embed_tokens.weight"]}))
    assert len(str(error.value)) < 1500


def test_a_config_of_a_huge_model_costs_nothing(tmp_path):
    huge = CONFIG | {"num_hidden_layers": 1024, "hidden_size": 2**24, "vocab_size": 2**24, "intermediate_size": 2**24}
    with pytest.raises(ModelFileError, match=r"wrongly shaped: model\.embed_tokens"):
        load_model(save(tmp_path, weights(), huge))


@pytest.mark.parametrize("dtype", ["int8", "f8", "q9"])
def test_an_element_format_that_is_not_decoded(tmp_path, dtype):
    if dtype == "q9":
        with pytest.raises(ConfigError, match="pass 'float32' or 'keep'"):
            load_model(tmp_path, dtype=dtype)
        return
    w = weights()
    w[Q] = w[Q].astype({"int8": "i1", "f8": "f8"}[dtype])
    with pytest.raises(ModelFileError, match=f"{Q}.*not decoded; use a model in one of"):
        load_model(save(tmp_path, w))


@pytest.mark.parametrize(("name", "message"), [
    ("nowhere.gguf", "cannot be read"), ("model.safetensors", "pass the folder"), ("model.bin", "a pickle"),
    ("model.txt", "not a GGUF file")])
def test_paths_that_are_no_model(tmp_path, name, message):
    if name != "nowhere.gguf":
        (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(ModelFileError, match=rf"{name}: .*{message}"):
        load_model(tmp_path / name)


def test_a_folder_of_pickles(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'false'\ntR.")
    with pytest.raises(ModelFileError, match=r"pytorch_model\.bin: a pickle.*save_pretrained"):
        load_model(tmp_path)
