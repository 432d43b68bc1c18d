"""Layers beside what they are made of; a small transformer block as a whole."""

import numpy as np
import pytest

import nums_core as nc
import nums_core.array as na
from nums_core.errors import ConfigError, DTypeError, ShapeError
from nums_core.nn import functional as F
from nums_core.nn import tree
from nums_core.nn.autodiff import value_and_grad
from nums_core.nn.init import Keys, normal
from nums_core.nn.layers import (
    MLP,
    Attention,
    Conv,
    Dropout,
    Embedding,
    GatedMLP,
    LayerNorm,
    Linear,
    PositionEmbedding,
    RMSNorm,
    Rotary,
)
from nums_core.nn.module import Module
from nums_core.nn.ops.rotary import frequencies
from nums_core.testing.gradients import check_grad

K = Keys(0)
X = normal(K.split("x"), (2, 6, 8), 1.0, chunks=(1, -1, -1))


def same(a, b, tol=1e-6):
    np.testing.assert_allclose(*nc.compute(a, b), rtol=tol, atol=tol)


# -- rotary -----------------------------------------------------------------------------------------------------------

def turned(x, positions, dim, base=10000.0, interleaved=False):
    """Pairs as complex numbers, in float64."""
    out = x.astype(float)
    first, second = (slice(0, dim, 2), slice(1, dim, 2)) if interleaved else (slice(0, dim // 2), slice(dim // 2, dim))
    angles = np.asarray(positions)[..., None, None] * base ** (-np.arange(0, dim, 2) / dim)
    z = (out[..., first] + 1j * out[..., second]) * np.exp(1j * angles)
    out[..., first], out[..., second] = z.real, z.imag
    return out


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dim", [8, 4])
@pytest.mark.parametrize("positions", [np.arange(5), np.array([[3], [0]]), np.array([[0, 1, 2, 3, 4], [7, 8, 9, 90, 1]])],
                         ids=["line", "column", "each"])
def test_rotary(interleaved, dim, positions):
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 8)).astype("f4")
    r = Rotary(dim, 1000.0, interleaved=interleaved)
    want = turned(x, positions, dim, 1000.0, interleaved)
    np.testing.assert_allclose(r(na.from_array(x, chunks=(1, 2, -1, -1)), na.asarray(positions)).compute(), want, atol=2e-5)
    made = r.apply(x, positions)
    assert made.dtype == "f4"
    np.testing.assert_allclose(made, want, atol=2e-5)
    check_grad(lambda x: r(x, na.asarray(positions)), x)


def test_rotary_makes_products_depend_on_distances():
    q, k = np.random.default_rng(1).normal(size=(2, 1, 1, 64))
    r = Rotary(64)
    products = [(r.apply(q, np.array([a])) * r.apply(k, np.array([a + 5]))).sum() for a in (0, 3, 500)]
    np.testing.assert_allclose(products, products[0], atol=1e-3)


def test_rotary_scaling():
    x = np.random.default_rng(1).normal(size=(3, 1, 8))
    at = np.array([0, 4, 8])
    linear = Rotary(8, scaling={"rope_type": "linear", "factor": 4.0})
    np.testing.assert_allclose(linear.apply(x, at), Rotary(8).apply(x, at // 4), atol=1e-6)
    settings = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64}
    llama3 = Rotary(8, base=1000.0, scaling=settings)
    hash(llama3.scaling)
    ratio = frequencies(8, 1000.0, llama3.scaling) / frequencies(8, 1000.0, None)
    np.testing.assert_allclose(ratio[[0, -1]], [1, 1 / 8], rtol=1e-6)  # short waves stay, long ones are stretched
    assert (np.diff(ratio) <= 0).all()
    each = Rotary(8, scaling=(("rope_type", "factors"), ("factors", (1.0, 2.0, 4.0, 8.0))))
    np.testing.assert_allclose(frequencies(8, 10000.0, each.scaling) * [1, 2, 4, 8], frequencies(8, 10000.0, None), rtol=1e-6)


@pytest.mark.parametrize("call, error, remedy", [
    (lambda: Rotary(8, scaling={"rope_type": "odd"}), ConfigError, "known are 'default', 'linear', 'llama3'"),
    (lambda: Rotary(8, scaling={"rope_type": "llama3", "factor": 2.0}), ConfigError, "config.json"),
    (lambda: Rotary(8, scaling={"type": "linear"}), ConfigError, "lacks factor"),
    (lambda: Rotary(10).apply(np.ones((1, 1, 8)), [0]), ShapeError, "from 2 to the head's 8"),
    (lambda: Rotary(8)(na.ones((3, 1, 8)), na.arange(2)), ShapeError, "one position a token"),
    (lambda: Rotary(8)(na.ones((3, 1, 8)), na.ones((3,))), DTypeError, "astype"),
])
def test_rotary_refuses(call, error, remedy):
    with pytest.raises(error, match=remedy):
        call()


# -- the others -------------------------------------------------------------------------------------------------------

def test_linear_and_embeddings():
    layer = Linear.init(K, 8, 3)
    same(layer(X), F.linear(X, layer.weight, layer.bias))
    assert Linear.init(K, 8, 3, bias=False).bias is None
    assert abs(Linear.init(K, 400, 300).weight.compute().std() * 20 - 1) < 0.02
    ids = na.asarray(np.array([[1, 4], [0, 2]]))
    table = Embedding.init(K, 5, 8)
    same(table(ids), table.weight.compute()[ids.compute()])
    same(table.logits(X), X.compute() @ table.weight.compute().T)
    places = PositionEmbedding.init(K, 4, 8, offset=2)
    same(places(na.arange(3)), places.weight.compute()[2:5])
    assert places.weight.shape == (6, 8)


def test_norm_layers():
    same(RMSNorm.init(8)(X), F.rms_norm(X))
    same(LayerNorm.init(8)(X), F.layer_norm(X))
    assert LayerNorm.init(8, bias=False).bias is None and LayerNorm.init(8, eps=0.5).eps == 0.5


def test_mlps():
    plain = MLP.init(K, 8, 12, act="relu")
    same(plain(X), plain.down(F.relu(plain.up(X))))
    for act in ("silu", "gelu_tanh"):
        gated = GatedMLP.init(K, 8, 12, act=act)
        same(gated(X), gated.down(F.activation(act)(gated.gate(X)) * gated.up(X)))
    assert list(GatedMLP.init(K, 8, 12).parameters()) == ["gate.weight", "up.weight", "down.weight"]
    with pytest.raises(ConfigError, match="known are"):
        MLP.init(K, 8, 12, act="none")


def test_conv_and_dropout_layers():
    x = normal(K.split("image"), (2, 4, 6, 6), 1.0)
    layer = Conv.init(K, 4, 6, (3, 3), padding=1, groups=2)
    same(layer(x), F.conv(x, layer.weight, layer.bias, padding=1, groups=2))
    with pytest.raises(ConfigError, match="divide both"):
        Conv.init(K, 4, 6, (3,), groups=4)
    assert Dropout(0.5)(x) is x
    same(Dropout(0.5)(x, K), F.dropout(x, 0.5, K))


@pytest.mark.parametrize("kv_heads", [None, 1, 2])
def test_attention_layer(kv_heads):
    layer = Attention.init(K, 8, 4, kv_heads, rotary=Rotary(2), window=3)
    x, (q, k, v) = X.compute(), (p(X).compute() for p in (layer.q, layer.k, layer.v))
    q, k, v = (y.reshape(2, 6, -1, 2) for y in (q, k, v))
    q, k = (layer.rotary.apply(y, np.arange(6)) for y in (q, k))
    made = F.attention(*map(na.asarray, (q, k, v)), window=3).compute().reshape(2, 6, 8)
    same(layer(X), made @ layer.o.weight.compute().T)
    assert x.shape == layer(X).shape
    moved = layer(X, na.arange(6) + 100)  # only distances count
    same(moved, layer(X), 1e-4)
    with pytest.raises(ShapeError, match="head_dim="):
        Attention.init(K, 8, 3)


class Block(Module):
    """The block of a small language model."""

    table: Embedding
    norm: RMSNorm
    attn: Attention
    mlp: GatedMLP

    def __call__(self, tokens):
        x = self.table(tokens)
        x = x + self.attn(self.norm(x))
        return self.table.logits(x + self.mlp(self.norm(x)))


def block(dtype="f4"):
    return Block(Embedding.init(K.split("t"), 11, 8, std=1.0, dtype=dtype), RMSNorm.init(8, dtype=dtype),
                 Attention.init(K.split("a"), 8, 2, 1, rotary=Rotary(4), dtype=dtype),
                 GatedMLP.init(K.split("m"), 8, 16, dtype=dtype))


def test_a_block_learns_and_its_derivative_is_right():
    tokens = na.from_array(np.random.default_rng(0).integers(0, 11, (4, 9)), chunks=(2, -1))

    def loss(m, tokens):
        return F.cross_entropy(m(tokens[:, :-1]), tokens[:, 1:])

    check_grad(lambda m: loss(m, tokens), block("f8"))

    @nc.jit
    def step(m, tokens):
        value, g = value_and_grad(loss)(m, tokens)
        return value, tree.map(lambda p, d: p - 0.3 * d, m, g)

    m, values = block(), []
    for _ in range(30):
        value, m = step(m, tokens)
        values.append(float(value))
    assert isinstance(m, Block) and values[-1] < 0.2 * values[0]


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_weights_cut_along_heads_and_features_are_tensor_parallel(kv_heads):
    """Column then row parallel, as Megatron-LM cuts them: no block is put together, only partial sums meet."""
    attn, mlp = Attention.init(K, 32, 4, kv_heads, rotary=Rotary(8)), GatedMLP.init(K, 32, 64)
    x = normal(K.split("wide"), (2, 6, 32), 1.0, chunks=(1, -1, -1)).persist()

    def cut(layer, inward, outward):
        halves = {name: (0 if name in inward else 1) for name in (*inward, outward)}
        return layer.replace(**{name: Linear(getattr(layer, name).weight.rechunk(
            tuple(n // 2 if i == axis else -1 for i, n in enumerate(getattr(layer, name).weight.shape))))
            for name, axis in halves.items()})

    whole = (attn, mlp)
    (parts,) = nc.persist((cut(attn, ("q", "k", "v"), "o"), cut(mlp, ("gate", "up"), "down")))

    def both(layers, x):
        return (layers[1](layers[0](x)) ** 2).sum()

    (value, slopes), (want, wanted) = (value_and_grad(both)(layers, x) for layers in (parts, whole))
    for (path, a), b, p in zip(tree.paths(slopes), tree.flatten(wanted)[0], tree.flatten(parts)[0], strict=True):
        assert a.chunks == p.chunks, path
        np.testing.assert_allclose(*nc.compute(a, b), rtol=1e-4, atol=1e-4)
    plan = nc.session.current().explain([value.expr, *(s.expr for s in tree.flatten(slopes)[0])])
    assert not any(f.label == "gather" for f in plan.graph.families)
    np.testing.assert_allclose(*nc.compute(value, want), rtol=1e-5)
