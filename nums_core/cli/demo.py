"""The main job: will a flight arrive more than 15 minutes late? Logistic regression on real flights, start to end.

Clean, standardise, one-hot the carriers, split, fit by Newton's method in plain NumPy syntax, then again with the
estimator; print accuracy, AUC and coefficients; draw where the time and the memory of the run went.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy

import nums_core.array as np
from nums_core import session
from nums_core._util import format_seconds
from nums_core.array.estimators import LogisticRegression
from nums_core.cli import flights

LATE_MINUTES = 15.0
BLOCK_ROWS = 32_768


class Data(NamedTuple):
    """Features and labels of both parts: float64 Arrays, and the features' names."""

    x_train: np.Array
    y_train: np.Array
    x_test: np.Array
    y_test: np.Array
    names: list[str]


def prepare(rows: int | None = None) -> Data:
    """Clean, standardise, one-hot and split the flights (80 % to train, drawn by position)."""
    table = flights.columns(rows)
    n = len(table["arr_delay"])
    column = {name: np.from_array(values, chunks=BLOCK_ROWS) for name, values in table.items()}
    arrived = ~np.isnan(column["arr_delay"]) & ~np.isnan(column["dep_delay"])
    late = (column["arr_delay"] > LATE_MINUTES).astype(float)

    hour = column["hour"] + column["minute"] / 60
    season = 2 * numpy.pi * (column["month"] - 1 + column["day"] / 31) / 12
    numbers = {"dep_delay": column["dep_delay"], "distance": column["distance"], "hour": hour,
               "season_sin": np.sin(season), "season_cos": np.cos(season)}
    x = np.stack(list(numbers.values()), axis=1)[arrived]
    x = (x - x.mean(axis=0)) / x.std(axis=0)

    carriers = sorted(set(table["carrier"]))
    onehot = np.stack([column["carrier"] == c for c in carriers], axis=1)[arrived].astype(float)
    x = np.concatenate([x, onehot], axis=1).rechunk((BLOCK_ROWS, -1))
    y = late[arrived].rechunk(BLOCK_ROWS)

    train = np.random.default_rng(13).random(n, chunks=BLOCK_ROWS)[arrived] < 0.8
    x_train, y_train, x_test, y_test = np.persist(x[train], y[train], x[~train], y[~train])
    return Data(x_train, y_train, x_test, y_test, [*numbers, *(f"carrier_{c}" for c in carriers)])


@np.jit
def newton_step(x: Any, y: Any, beta: Any, ridge: Any) -> Any:
    """One Newton step for sum(log(1 + exp(-z))) + beta' diag(ridge) beta / 2, in plain NumPy syntax."""
    mu = 1 / (1 + np.exp(-(x @ beta)))
    gradient = x.T @ (mu - y) + ridge * beta
    hessian = x.T @ ((mu * (1 - mu))[:, None] * x) + np.diag(ridge)
    step = np.linalg.solve(hessian, gradient)
    return beta - step, np.abs(step).max()


def newton(x: Any, y: Any, c: float = 1.0, tol: float = 1e-10, max_iter: int = 30) -> tuple[Any, int, list[Any]]:
    """Coefficients (the intercept last, not regularised), iterations, and the report of each."""
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1).rechunk({1: -1}).persist()
    d = x.shape[1]
    ridge = np.asarray(numpy.append(numpy.full(d - 1, 1 / c), 0.0)).persist()
    beta = np.zeros(d).persist()
    reports: list[Any] = []
    while len(reports) < max_iter:
        beta, change = newton_step(x, y, beta, ridge)
        reports.append(np.last_report())
        if float(change) < tol:
            break
    return beta, len(reports), reports


def accuracy(y: Any, probability: Any) -> float:
    """Share of flights whose likelier class is right."""
    return float(((probability > 0.5) == (y > 0.5)).mean())


def auc(y: Any, score: Any) -> float:
    """Area under the ROC curve, ties counted half: from the mean ranks of the late flights."""
    ordered = np.sort(score)
    rank = (np.searchsorted(ordered, score, "left") + np.searchsorted(ordered, score, "right") + 1) / 2
    n_late, n = float(y.sum()), len(y)
    return (float((rank * y).sum()) - n_late * (n_late + 1) / 2) / (n_late * (n - n_late))


def run(out: str, *, on_ray: bool = False, rows: int | None = None) -> int:
    """The whole job, printed; pictures go to the folder `out`. Returns the exit status."""
    with _four_nodes() if on_ray else nullcontext():
        return _job(out, rows)


@contextmanager
def _four_nodes() -> Iterator[None]:
    """A Ray cluster of four simulated nodes, in force for a `with` block."""
    from nums_core.runtime.executors.ray_cluster import simulated_cluster

    with simulated_cluster(4) as cluster:
        session.init(cluster.address)
        print(f"on Ray: {session.current().executor.cluster.n_workers} workers of four simulated nodes")
        try:
            yield
        finally:
            session.shutdown()


def _job(out: str, rows: int | None) -> int:
    began = time.perf_counter()
    data = prepare(rows)
    late = float(data.y_train.mean())
    print(f"{len(data.x_train)} flights to train on, {len(data.x_test)} to test on, {data.x_train.shape[1]} features, "
          f"{100 * late:.1f} % arrive more than {LATE_MINUTES:.0f} minutes late")
    beta, iterations, reports = newton(data.x_train, data.y_train)
    _print_newton(iterations, reports)
    model = LogisticRegression(tol=1e-10).fit(data.x_train, data.y_train)
    gap = float(numpy.abs(numpy.append(model.coef_[0], model.intercept_) - beta.compute()).max())
    print(f"estimator LogisticRegression: {model.n_iter_[0]} iterations, coefficients within {gap:.1e} of the above")
    probability = model.predict_proba(data.x_test)[:, 1]
    print(f"accuracy {accuracy(data.y_test, probability):.4f} (always 'on time': "
          f"{1 - float(data.y_test.mean()):.4f}), AUC {auc(data.y_test, probability):.4f}")
    _print_coefficients(data.names, model)
    print(f"last Newton step:\n{reports[-1]}")
    _draw(reports[0], out)
    print(f"total {format_seconds(time.perf_counter() - began)}")
    return 0


def _print_newton(iterations: int, reports: list[Any]) -> None:
    first, rest = reports[0], reports[1:]
    print(f"Newton in NumPy syntax: {iterations} iterations; first: optimise {format_seconds(first.optimise_s)}, plan "
          f"{format_seconds(first.plan_s)}, run {format_seconds(first.run_s)}")
    if rest:
        plan = sorted(r.plan_s for r in rest)[len(rest) // 2]
        went = sorted(r.run_s for r in rest)[len(rest) // 2]
        print(f"  later: plan reused ({format_seconds(plan)}), run {format_seconds(went)}")


def _print_coefficients(names: list[str], model: Any) -> None:
    print("coefficients (standardised numbers, one-hot carriers):")
    for name, value in sorted(zip(names, model.coef_[0], strict=True), key=lambda p: -abs(p[1])):
        print(f"  {name:14} {value:+.4f}")
    print(f"  {'intercept':14} {model.intercept_[0]:+.4f}")


def _draw(report: Any, out: str) -> None:
    from nums_core.errors import MissingBackendError
    from nums_core.runtime import trace

    os.makedirs(out, exist_ok=True)
    trace.chrome_trace(report, os.path.join(out, "newton-trace.json"))
    try:
        trace.timeline(report, os.path.join(out, "newton-timeline.png"))
        print(f"pictures of the first step: {out}/newton-timeline.png, {out}/newton-trace.json")
    except MissingBackendError as error:
        print(f"no picture: {error}")
