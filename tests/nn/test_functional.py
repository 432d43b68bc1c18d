"""Functions of neural networks beside NumPy, and their derivatives beside finite differences."""

import numpy as np
import pytest
from scipy import special

import nums_core as nc
import nums_core.array as na
from nums_core.errors import ConfigError, DTypeError, KernelError, ShapeError
from nums_core.nn import functional as F
from nums_core.nn import losses
from nums_core.nn.autodiff import grad
from nums_core.nn.init import Keys
from nums_core.nn.ops import activations, norms
from nums_core.nn.ops import loss as loss_ops
from nums_core.nn.ops.embedding import sums_by_key
from nums_core.testing.gradients import check_grad

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 5, 8)).astype("f4")
W, B = RNG.normal(size=(8,)).astype("f4"), RNG.normal(size=(8,)).astype("f4")


def cut(x, rows=2):
    return na.from_array(x, chunks=(rows, *(-1,) * (x.ndim - 1)))


def close(made, want, tol=2e-6):
    assert made.dtype == want.dtype and made.shape == want.shape
    np.testing.assert_allclose(made.compute(), want, rtol=tol, atol=tol)


# -- linear -----------------------------------------------------------------------------------------------------------

def test_linear():
    w = RNG.normal(size=(4, 8)).astype("f4")
    close(F.linear(cut(X), na.asarray(w)), X @ w.T)
    close(F.linear(cut(X), na.asarray(w), na.asarray(B[:4])), X @ w.T + B[:4])
    close(F.linear(na.asarray(W), na.asarray(w)), W @ w.T)
    check_grad(F.linear, cut(X), w, B[:4])


def test_weights_of_another_kind_multiply_themselves():
    class Halved:
        def matmul(self, x):
            return x * 0.5

        def take(self, ids):
            return ids * 2

    close(F.linear(cut(X), Halved(), na.asarray(B)), X * np.float32(0.5) + B)
    assert F.embedding(Halved(), na.asarray(np.array([1, 2]))).compute().tolist() == [2, 4]


def test_linear_refuses_other_extents():
    with pytest.raises(ShapeError, match=r"transpose the weight"):
        F.linear(cut(X), na.ones((8, 4)))


# -- activations ------------------------------------------------------------------------------------------------------

SIGMOID = special.expit(X)
CASES = {
    "relu": np.maximum(X, 0), "silu": X * SIGMOID, "gelu": X * special.ndtr(X), "sigmoid": SIGMOID, "tanh": np.tanh(X),
    "gelu_tanh": 0.5 * X * (1 + np.tanh(np.sqrt(2 / np.pi, dtype="f4") * (X + np.float32(0.044715) * X**3))),
}


@pytest.mark.parametrize("name", CASES)
def test_activations(name):
    close(F.activation(name)(cut(X)), CASES[name].astype("f4"))
    check_grad(F.activation(name), cut(X))


def test_activations_do_not_overflow():
    x = na.asarray(np.array([-1e4, -90, 0, 90, 1e4], "f4"))
    for name in CASES:
        values, slopes = nc.compute(F.activation(name)(x), grad(lambda x, f=F.activation(name): f(x).sum())(x))
        assert np.isfinite(values).all() and np.isfinite(slopes).all()


def test_swiglu(monkeypatch):
    monkeypatch.setattr(activations, "TILE_ELEMENTS", 7)
    up = RNG.normal(size=X.shape).astype("f4")
    close(F.swiglu(cut(X), cut(up)), X * SIGMOID * up)
    check_grad(F.swiglu, cut(X), up)
    far = np.array([-1e4, -100, 100, 1e4], "f4")
    values, slopes = nc.compute(F.swiglu(na.asarray(far), na.ones(4, "f4")), grad(lambda x: F.swiglu(x, x).sum())(na.asarray(far)))
    np.testing.assert_allclose(values, [0, 0, 100, 1e4], atol=1e-30)
    np.testing.assert_allclose(slopes, [0, 0, 200, 2e4], atol=1e-30)
    strided = na.asarray(X).transpose(2, 0, 1)
    close(F.swiglu(strided, na.asarray(up).transpose(2, 0, 1)), (X * SIGMOID * up).transpose(2, 0, 1))
    with pytest.raises(ShapeError, match="same features"):
        F.swiglu(cut(X), cut(up[..., :4]))


def test_an_unknown_activation_is_refused():
    with pytest.raises(ConfigError, match="known are relu, silu"):
        F.activation("rely")


# -- norms ------------------------------------------------------------------------------------------------------------

def rms(x, w, eps=1e-6):
    return x / np.sqrt((x.astype(float) ** 2).mean(-1, keepdims=True) + eps) * w


def standard(x, w, b, eps=1e-5):
    x = x.astype(float)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * w + b


@pytest.mark.parametrize("tile", [8, 20, 2**17])
def test_norms(monkeypatch, tile):
    monkeypatch.setattr(norms, "TILE_ELEMENTS", tile)
    close(F.rms_norm(cut(X), na.asarray(W)), rms(X, W).astype("f4"))
    close(F.rms_norm(cut(X), eps=0.1), rms(X, 1, 0.1).astype("f4"))
    close(F.layer_norm(cut(X), na.asarray(W), na.asarray(B)), standard(X, W, B).astype("f4"))
    close(F.layer_norm(cut(X)), standard(X, 1, 0).astype("f4"))
    check_grad(F.rms_norm, cut(X), W)
    check_grad(F.layer_norm, cut(X), W, B)


def test_norms_of_half_precision_are_computed_in_single():
    x = (X * 300).astype("f2")  # squares overflow float16
    close(F.rms_norm(na.asarray(x), na.asarray(W)), rms(x.astype("f4"), W).astype("f2"), 2e-3)
    close(F.layer_norm(na.asarray(x), na.asarray(W)), standard(x.astype("f4"), W, 0).astype("f2"), 2e-3)
    g = grad(lambda x: F.rms_norm(x, na.asarray(W)).sum())(na.asarray(x))
    want = grad(lambda x: F.rms_norm(x, na.asarray(W)).sum())(na.asarray(x.astype("f4")))
    assert g.dtype == "f2"
    np.testing.assert_allclose(g.compute(), want.compute(), atol=1e-4)


@pytest.mark.parametrize("call, error", [
    (lambda: F.rms_norm(na.asarray(X), na.ones((4,))), ShapeError), (lambda: F.layer_norm(na.ones((3,), int)), DTypeError)])
def test_norms_refuse(call, error):
    with pytest.raises(error, match=r"must have the shape \(8,\)|astype"):
        call()


# -- softmax, losses --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_softmax(axis):
    close(F.softmax(cut(X), axis), special.softmax(X, axis))
    close(F.log_softmax(cut(X), axis), special.log_softmax(X, axis))
    check_grad(lambda x: F.softmax(x, axis), cut(X))
    check_grad(lambda x: F.log_softmax(x, axis), cut(X))


LABELS = RNG.integers(0, 8, (3, 5))
LABELS[1, 2:] = -100
COUNTS = LABELS != -100
EACH = np.where(COUNTS, -np.take_along_axis(special.log_softmax(X, -1), np.where(COUNTS, LABELS, 0)[..., None], -1)[..., 0], 0)


@pytest.mark.parametrize("tile", [8, 24, 2**18])
def test_cross_entropy(monkeypatch, tile):
    monkeypatch.setattr(loss_ops, "TILE_ELEMENTS", tile)
    close(F.cross_entropy(cut(X), cut(LABELS), reduction="none"), EACH)
    close(F.cross_entropy(cut(X), cut(LABELS), reduction="sum"), EACH.sum(dtype="f4"))
    close(F.cross_entropy(cut(X), cut(LABELS)), (EACH.sum() / COUNTS.sum()).astype("f4"))
    close(F.cross_entropy(cut(X), cut(np.full_like(LABELS, -100))), np.float32(0))
    check_grad(lambda x: F.cross_entropy(x, cut(LABELS)), cut(X))
    check_grad(lambda x: F.cross_entropy(x, cut(LABELS), reduction="none"), cut(X))


def test_cross_entropy_of_large_logits_and_other_ignored_labels():
    x = np.array([[1e4, 0, -1e4], [0, 0, 0]], "f4")
    close(F.cross_entropy(na.asarray(x), na.asarray(np.array([1, 7])), ignore=7), np.float32(1e4))


def test_cross_entropy_refuses():
    with pytest.raises(ShapeError, match="without their last axis"):
        F.cross_entropy(cut(X), cut(LABELS[:2]))
    with pytest.raises(DTypeError, match="log_softmax"):
        F.cross_entropy(cut(X), cut(X[..., 0]))
    with pytest.raises(ConfigError, match="'mean', 'sum' or 'none'"):
        F.cross_entropy(cut(X), cut(LABELS), reduction="max")
    with pytest.raises((IndexError, KernelError), match=r"label 8 is outside the 8 classes.*labels are 0 to 7"):
        F.cross_entropy(cut(X), cut(LABELS + (LABELS == LABELS.max()))).compute()


def test_other_losses():
    t = RNG.normal(size=X.shape).astype("f4")
    e = np.abs(X - t)
    close(losses.squared_error(cut(X), cut(t)), np.mean(e**2))
    close(losses.absolute_error(cut(X), cut(t), reduction="sum"), np.sum(e), 1e-5)
    close(losses.huber(cut(X), cut(t), 0.5, "none"), np.where(e <= 0.5, e**2 / 2, 0.5 * (e - 0.25)).astype("f4"))
    p = special.expit(t)
    want = -(p * np.log(SIGMOID) + (1 - p) * np.log(special.expit(-X)))
    close(losses.binary_cross_entropy(cut(X), cut(p)), want.mean(dtype="f4"), 1e-5)
    for f in (losses.squared_error, losses.huber, losses.binary_cross_entropy):
        check_grad(f, cut(X), p)
    with pytest.raises(ShapeError, match="broadcast to"):
        losses.squared_error(cut(X[..., :1]), cut(X[..., 0]))


# -- embedding, dropout -----------------------------------------------------------------------------------------------

def test_embedding():
    w, ids = RNG.normal(size=(9, 4)).astype("f4"), RNG.integers(0, 9, (3, 6))
    close(F.embedding(na.asarray(w), cut(ids)), w[ids])
    close(F.embedding(na.from_array(w, chunks=(3, 2)), cut(ids)), w[ids])
    check_grad(lambda w: F.embedding(w, cut(ids)), w)
    with pytest.raises(DTypeError, match="astype"):
        F.embedding(na.asarray(w), na.ones((3,)))
    for wrong in (9, -1):
        with pytest.raises((IndexError, KernelError), match=f"number {wrong} is outside an embedding of 9 rows.*tokenizer"):
            F.embedding(na.asarray(w), na.asarray(np.array([0, wrong]))).compute()


@pytest.mark.parametrize("n, distinct", [(0, 3), (1, 1), (1000, 1), (1000, 7), (1000, 5000)])
def test_sums_by_key(n, distinct):
    keys, rows = RNG.integers(0, distinct, n), RNG.normal(size=(n, 3))
    got_keys, sums = sums_by_key(keys, rows)
    assert got_keys.tolist() == sorted(set(keys.tolist()))
    want = np.zeros((distinct, 3))
    np.add.at(want, keys, rows)
    np.testing.assert_allclose(sums, want[got_keys], atol=1e-10)


def test_dropout_keeps_the_mean_and_does_not_depend_on_blocks():
    x = na.ones((100, 200), "f4", chunks=(30, 70))
    y = F.dropout(x, 0.25, Keys(0)).compute()
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.01
    np.testing.assert_array_equal(F.dropout(na.ones((100, 200), "f4", chunks=-1), 0.25, Keys(0)).compute(), y)
    for other in (Keys(1), Keys(0).split("a"), Keys(0).at(1)):
        z = F.dropout(x, 0.25, other).compute()
        assert 0.5 < ((y == 0) == (z == 0)).mean() < 0.75  # 0.625 where independent
    np.testing.assert_array_equal(F.dropout(x, 0.25, Keys(0).at(0)).compute(), y)


def test_dropout_differs_from_step_to_step_of_one_plan():
    traced = []

    @nc.jit
    def run(x, keys):
        traced.append(1)
        return F.dropout(x, 0.5, keys)

    x = na.ones((64, 64), chunks=(32, -1))
    masks = [run(x, Keys(0).at(s)).compute() for s in range(4)]
    assert len(traced) == 1
    assert all(0.4 < (a == b).mean() < 0.6 for i, a in enumerate(masks) for b in masks[:i])


def test_dropout_and_its_derivative_drop_the_same():
    x = cut(X)
    np.testing.assert_allclose(grad(lambda x: F.dropout(x, 0.5, Keys(0)).sum())(x).compute() * X,
                               F.dropout(x, 0.5, Keys(0)).compute(), rtol=1e-6)
    check_grad(lambda x: F.dropout(x, 0.5, Keys(0)), x)
    assert F.dropout(x, 0.5, None) is x and F.dropout(x, 0.0, Keys(0)) is x
    with pytest.raises(ConfigError, match="less than 1"):
        F.dropout(x, 1.0, Keys(0))


# -- convolution ------------------------------------------------------------------------------------------------------

def correlated(x, w, b, stride, padding, dilation, groups):
    """Convolution, one element at a time."""
    n = x.ndim - 2
    padded = np.pad(x, [(0, 0), (0, 0), *[(p, p) for p in padding]])
    positions = [(m - d * (k - 1) - 1) // s + 1
                 for m, d, k, s in zip(padded.shape[2:], dilation, w.shape[2:], stride, strict=True)]
    out = np.zeros((x.shape[0], w.shape[0], *positions))
    of_group, ins = w.shape[0] // groups, w.shape[1]
    for index in np.ndindex(*positions):
        at = tuple(slice(p * s, p * s + d * (k - 1) + 1, d)
                   for p, s, d, k in zip(index, stride, dilation, w.shape[2:], strict=True))
        for o in range(w.shape[0]):
            g = o // of_group
            window = padded[(slice(None), slice(g * ins, (g + 1) * ins), *at)]
            out[(slice(None), o, *index)] = (window * w[o]).sum(tuple(range(1, n + 2))) + b[o]
    return out


@pytest.mark.parametrize("extent, window, stride, padding, dilation, groups", [
    ((9,), (3,), (1,), (0,), (1,), 1), ((9,), (4,), (2,), (3,), (2,), 2), ((5, 6), (3, 2), (1, 2), (1, 0), (1, 2), 1),
    ((5, 6), (1, 1), (2, 1), (0, 0), (1, 1), 4), ((4, 3, 5), (2, 2, 3), (1, 1, 2), (1, 0, 1), (1, 1, 1), 2)], ids=str)
def test_conv(extent, window, stride, padding, dilation, groups):
    x, w = RNG.normal(size=(3, 4, *extent)), RNG.normal(size=(8, 4 // groups, *window))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    close(F.conv(cut(x), na.asarray(w), na.asarray(B.astype(float)), **options), correlated(x, w, B, **options), 1e-9)
    check_grad(lambda x, w, b: F.conv(x, w, b, **options), cut(x), w, B)


@pytest.mark.parametrize("options, error, remedy", [
    ({"groups": 3}, ShapeError, "groups divide both"), ({"stride": 0}, ConfigError, "at least 1"),
    ({"padding": (1, 2)}, ConfigError, "one an axis"), ({"dilation": 9}, ShapeError, "pad more")])
def test_conv_refuses(options, error, remedy):
    with pytest.raises(error, match=remedy):
        F.conv(na.ones((1, 4, 5)), na.ones((2, 4, 3)), **options)
