"""Data- and tensor-parallel training of a small LLaMA-shaped model on Ray workers: losses, and bytes moved by formula.

    python -m bench.parallel [--ways 2 4] [--steps 4]

For each way of cutting and number of workers k, one line: the largest relative difference of a loss from the serial
run's, and the bytes a step moves between workers: by the plan, as the workers counted what they received, and by formula.

With P bytes of parameters, E of them the embedding's table, L layers, and A = 4 B S D bytes of activations (batch B,
length S, hidden size D, float32):

Data-parallel: the batch in k blocks of rows, parameters in one block each on one worker.
    (k-1) P             every other worker is sent each parameter, once for all its uses
    (k-1) (P - E)       and sends back its partial sum of each gradient
    (k-1)/k A           but of the table, whose gradient is a sum of rows by number, it sends its B S / k rows
    Together 2 (k-1) P, the total of a ring all-reduce (2 (k-1)/k P a worker), but for the table: A/k a worker in place
    of E is less wherever a worker has fewer tokens than the vocabulary has entries. (A tied table is the last layer too:
    its gradient there is a partial sum like any other, (k-1) E more.) Beside that: one number a token of the other
    workers (its weight in the mean loss), the S positions, and the sum of their losses.

Tensor-parallel: q, k, v, gate and up cut along their results, out and down along their inputs, into k blocks; the batch,
norms, table and head whole, on one worker.
    4 (k-1) A L         forward, each attention and each MLP broadcasts its input and adds up its output
    4 (k-1) A L         backward, each broadcasts its output's cotangent and adds up its input's
    The total of "Megatron-LM"'s (M. Shoeybi et al., 2019, section 3) four all-reduces a layer, 2 (k-1) A each. That q, k
    and v, and gate and up, cost one sum and not three and two is `expr.rules.sums`. Beside that: the S positions, one
    partial sum of squares for each cut parameter (the gradients' norm), and the scalars of the update.

The batch comes from the driver and each block goes straight to its reader: no bytes between workers. Optimiser state
lies with its parameter and moves nothing, so SGD and AdamW move the same but for two scalars. The data-parallel formula
is of batches whose activations weigh more than the parameters' traffic; a smaller batch is brought to the parameters
instead.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from bench import harness
from nums_core import session
from nums_core.llm.config import ModelConfig
from nums_core.llm.models.llama import Llama
from nums_core.nn.functional import cross_entropy
from nums_core.nn.init import Keys
from nums_core.nn.optim import SGD, AdamW
from nums_core.nn.train import cut_parameters, init_state, over_workers, train_step
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.executors.base import Held
from nums_core.runtime.executors.local import LocalExecutor
from nums_core.runtime.report import Report

BATCH, LENGTH = 8, 32
CONFIG = ModelConfig("llama", vocab_size=128, hidden_size=64, n_layers=2, n_heads=4, n_kv_heads=4, head_dim=16,
                     intermediate_size=192, max_positions=LENGTH, rotary_dim=16)
OPTIMISERS = {"sgd": SGD(rate=0.1), "adamw": AdamW(rate=3e-3)}
MEGATRON = {"*.q.weight": 0, "*.k.weight": 0, "*.v.weight": 0, "*.attention.out.weight": 1,
            "*.gate.weight": 0, "*.up.weight": 0, "*.mlp.down.weight": 1}
WAYS = ("data", "tensor")
TOLERANCE = 1e-5


class Bytes(NamedTuple):
    """What a step moves between workers: `main` as the formula says, and `small`, numbers by the token or alone."""

    main: float
    small: float


def by_formula(way: str, k: int, config: ModelConfig, optimiser: str, batch: int = BATCH, length: int = LENGTH) -> Bytes:
    """See the head of this module; k divides the batch, the heads and the MLP's features."""
    activations = 4 * batch * length * config.hidden_size
    positions = 4 * length
    if way == "data":
        table = 4 * config.vocab_size * config.hidden_size
        sums = parameter_bytes(config) - (0 if config.tie_embeddings else table)
        main = (k - 1) * (parameter_bytes(config) + sums) + (k - 1) / k * activations
        return Bytes(main, (k - 1) * (positions + 4 * batch * length / k + 4))
    squares = 4 * len(MEGATRON) * config.n_layers
    update = 4 + 1 + (8 if optimiser == "adamw" else 0)  # the clip's factor, whether to step, the bias corrections
    return Bytes(8 * (k - 1) * activations * config.n_layers, (k - 1) * (positions + squares + update))


def parameter_bytes(config: ModelConfig) -> int:
    return sum(x.nbytes for x in Llama.init(Keys(0), config).parameters().values())


def rows(step: int, config: ModelConfig = CONFIG, batch: int = BATCH, length: int = LENGTH) -> dict[str, np.ndarray]:
    """A batch; tokens follow one another by a rule, so that there is something to learn."""
    rng = np.random.default_rng(harness.SEED + step)
    tokens = (rng.integers(0, config.vocab_size, (batch, 1)) + 3 * np.arange(length + 1)) % config.vocab_size
    return {"tokens": tokens[:, :-1].astype(np.int32), "labels": tokens[:, 1:].astype(np.int32)}


def loss(model: Llama, batch: dict[str, Any]) -> Any:
    return cross_entropy(model(batch["tokens"]), batch["labels"])


def steps(way: str, k: int, optimiser: str, n_steps: int, config: ModelConfig = CONFIG) -> list[tuple[Any, Report]]:
    """Loss and report of each step in the session in force."""
    rule = OPTIMISERS[optimiser]
    model = Llama.init(Keys(harness.SEED), config)
    state = init_state(cut_parameters(model, MEGATRON, k) if way == "tensor" else model, rule)
    step, told = train_step(loss, rule, clip_norm=1.0), []
    for n in range(n_steps):
        state, metrics = step(state, over_workers(rows(n, config), k if way == "data" else 1))
        told.append((metrics["loss"], session.current().last_report))
    return told


class Described:
    """An executor on a cluster that does not exist: plans are made for it and none is run."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.plans: list[Any] = []

    def run(self, plan: Any, inputs: Any, outputs: Any, donate: Any = frozenset()) -> tuple[list[Held], Report]:
        self.plans.append(plan)
        families = [plan.graph.families[f] for f in plan.graph.outputs]
        homes = [plan.worker[f.start:f.stop] for f in families]
        return [Held([None] * len(h), h, 0.0) for h in homes], Report(bytes_moved=plan.bytes_moved, policy=plan.policy)

    def close(self) -> None:
        """Holds nothing."""


@contextmanager
def on(executor: Any) -> Iterator[Any]:
    """A session on `executor`, closed afterwards; the session that was in force stays as it is."""
    before, session._session = session._session, session.Session(executor)
    try:
        yield executor
    finally:
        session._session = before
        executor.close()


def planned(way: str, k: int, optimiser: str, config: ModelConfig = CONFIG) -> list[Any]:
    """Plans of the first two steps on k nodes."""
    with on(Described(Cluster.regular(k))) as executor:
        steps(way, k, optimiser, 2, config)
    return executor.plans[-2:]


def serial(optimiser: str, n_steps: int) -> list[float]:
    """Losses on one local thread."""
    with on(LocalExecutor(1, 2**30)):
        return [float(x) for x, _ in steps("serial", 1, optimiser, n_steps)]


def difference(losses: list[float], expected: list[float]) -> float:
    """The largest, relative to what is expected."""
    return float(np.max(np.abs(np.array(losses) / np.array(expected) - 1)))


def compare(way: str, k: int, optimiser: str, expected: list[float]) -> bool:
    """One line; the session in force has k workers."""
    told = steps(way, k, optimiser, len(expected))
    apart = difference([float(x) for x, _ in told], expected)
    measured = {r.bytes_moved for _, r in told}
    plan, formula = planned(way, k, optimiser)[-1].bytes_moved, by_formula(way, k, CONFIG, optimiser)
    total = sum(formula)
    good = apart <= TOLERANCE and measured == {plan} == {total}
    print(f"{way:6} {k} workers {optimiser:5}: losses {expected[0]:.4f} .. {expected[-1]:.4f}, largest difference from "
          f"serial {apart:.1e}; bytes a step: planned {plan:,.0f}, measured "
          f"{' '.join(f'{m:,.0f}' for m in sorted(measured))}, formula {formula.main:,.0f} + {formula.small:,.0f}, "
          f"ratio {max(measured) / total:.6f}: {'equal' if good else 'NOT EQUAL'}", flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", type=int, nargs="*", default=[2, 4], help="numbers of workers")
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    from nums_core.runtime.executors.ray import RayExecutor

    print(harness.heading())
    expected = {name: serial(name, options.steps) for name in OPTIMISERS}
    good = []
    for k in options.ways:
        with on(RayExecutor(num_workers=k, memory_bytes=2**28, log_to_driver=False)):
            good += [compare(way, k, name, expected[name]) for way in WAYS for name in OPTIMISERS]
    return int(not all(good))


if __name__ == "__main__":
    raise SystemExit(main())
