"""Calibration: kept in the user's cache folder, used for predictions, never for plans."""

import dataclasses
import json

import numpy as np
import pytest

import nums_core
import nums_core.array as nc
from nums_core import session
from nums_core.array import calibrating
from nums_core.runtime.calibration import Calibration, path_for
from nums_core.runtime.cluster import CallCost, Cluster, Link, Rate
from nums_core.runtime.executors.local import LocalExecutor
from nums_core.testing.loopback import LoopbackExecutor

MADE = Calibration({"map.d": Rate(1e9, 2e9, 3e9)}, Link(1.0, 2.0), Link(3.0, 4.0, 5.0, 6.0), Link(7.0, 8.0), Link(9.0, 1.0),
                   CallCost(0.1, 0.2, 0.3))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(calibrating, "ROWS", 96)
    monkeypatch.setattr(calibrating, "REPEAT", 1)


def test_saved_and_loaded(tmp_path):
    MADE.save(tmp_path / "deep" / "figures.json")
    assert Calibration.load(tmp_path / "deep" / "figures.json") == MADE
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["figures.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 0}', '{"version": 1, "rates": 3}'])
def test_a_file_of_something_else_is_no_calibration(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    assert Calibration.load(tmp_path / "x.json") is None
    assert Calibration.load(tmp_path / "nothing.json") is None


def test_a_failed_save_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "figures.json"
    MADE.save(path)
    with pytest.raises(TypeError):
        dataclasses.replace(MADE, rates={"map.d": {1, 2}}).save(path)  # type: ignore[dict-item]
    assert Calibration.load(path) == MADE and len(list(tmp_path.iterdir())) == 1


def test_files_are_by_cluster(cache):
    paths = {path_for(c) for c in (Cluster.single(2, 1), Cluster.single(3, 1), Cluster.regular(2), Cluster.regular(2, 2))}
    assert len(paths) == 4 and all(cache in p.parents for p in paths)


@pytest.mark.parametrize("make", [lambda: LocalExecutor(2), lambda: LoopbackExecutor(2)], ids=["local", "loopback"])
def test_measured_once_and_used_for_predictions_alone(cache, quick, make):
    with session.use(make()) as current:
        x = nc.from_array(np.random.default_rng(0).random((4000, 100)), chunks=(1000, 100))
        before = x.sum().explain()
        found = nums_core.calibrate()
        assert all(v > 0 for rate in found.rates.values() for v in rate)
        assert {"gemm.d", "gemm.f", "sort.d", "linalg.d"} <= set(found.rates)
        after = x.sum().explain()
        assert (after.worker == before.worker).all() and (after.order == before.order).all()
        assert after.prediction.seconds != before.prediction.seconds
        assert after.cluster == before.cluster and not after.cluster.workers[0].rates
        x.sum().compute()
        assert nums_core.last_report().predicted_s == x.sum().explain().prediction.seconds
        file = path_for(current.executor.cluster)
        file.write_text(file.read_text().replace(json.dumps(found.rates["sort.d"][0]), "123.0"))
        assert nums_core.calibrate().rates["sort.d"].flop_per_s == 123.0, "the file serves the second time"
        assert nums_core.calibrate(refresh=True).rates["sort.d"].flop_per_s != 123.0


def test_the_simulator_comes_to_what_was_measured(cache, monkeypatch):
    """On a machine of known rates the fit finds them."""
    true = {"all/read": 1e-10, "map,reduce/flop": 4e-10, "gemm/flop": 3e-11}

    def run(self, array, keep):
        plan = self.session.trial([array.expr])
        cluster = self._calibration(true).apply(self.cluster)
        return plan, calibrating.simulate(plan, keep=keep, cluster=cluster).seconds

    def probes(self):
        x = nc.random.default_rng(0).random((512, 512), chunks=(128, 512)).persist()
        yield calibrating.Probe("all/read", lambda: x.sum())
        yield calibrating.Probe("map,reduce/flop", lambda: calibrating._chain(x).sum())
        yield calibrating.Probe("gemm/flop", lambda: nc.matmul(x, x))

    monkeypatch.setattr(calibrating._Fit, "_run", run)
    monkeypatch.setattr(calibrating._Fit, "_probes", probes)
    monkeypatch.setattr(calibrating, "ROUNDS", 12)
    with session.use(LocalExecutor(2)):
        found = nums_core.calibrate()
    assert found.rates["gemm.d"].flop_per_s == pytest.approx(1 / 3e-11, rel=0.02)
    assert found.rates["reduce.d"] == pytest.approx((1 / 4e-10, 1e10, float("inf")), rel=0.02)
