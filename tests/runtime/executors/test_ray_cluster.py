"""Drivers on a Ray cluster of several nodes that somebody else runs: joining, leaving, growing, signing in.

The cluster lives in a process of its own and so does each driver, as it is for users; the process of the tests may be
connected to another cluster.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CLUSTER = """
import sys
from nums_core.testing.ray_cluster import SimulatedCluster

def alive():
    return sum(a["State"] == "ALIVE" for a in cluster._cluster.global_state.actor_table(None).values())

cluster = SimulatedCluster(int(sys.argv[1]))
print("said", cluster.address, flush=True)
for line in sys.stdin:
    word, *rest = line.split()
    if word == "add":
        answer = cluster.add(num_cpus=int(rest[0]))
    elif word == "kill":
        answer = cluster.kill(rest[0])
    else:
        answer = alive()
    print("said", answer, flush=True)
cluster.close()
"""

# A driver's program begins with this: what it says is read line by line, and it may wait for a word in return.
PRELUDE = """
import os, sys, time
import numpy
import nums_core
import nums_core.array as np
from nums_core import session

def say(*words):
    print("said", *words, flush=True)

def wait_until(true):
    until = time.monotonic() + 40
    while not true():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.05)

def total(n=64, blocks=8):
    x = np.random.default_rng(0).normal(size=(1000 * blocks, n), chunks=(1000, n))
    return float((x.T @ x).sum().compute()), {w for _, w, *_ in nums_core.last_report().spans}
"""


class Process:
    """A Python program that says things, one a line."""

    def __init__(self, code, *arguments, **environment):
        env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | environment
        self.process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        self.errors = []
        self.reader = threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True)
        self.reader.start()

    def hear(self):
        for line in self.process.stdout:
            if line.startswith("said"):
                return line[4:].strip()
        self.reader.join(5)
        raise AssertionError("it ended early:\n" + "".join(self.errors[-40:]))

    def tell(self, *words):
        print(*words, file=self.process.stdin, flush=True)

    def ask(self, *words):
        self.tell(*words)
        return self.hear()

    def end(self):
        """Its exit code; all it said is read."""
        try:
            self.process.communicate(timeout=60)
        except ValueError:  # the reader had it all
            self.process.wait(timeout=60)
        return self.process.returncode

    def stop(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            stream.close()
        self.reader.join(5)
        self.process.stderr.close()


@pytest.fixture
def run():
    """Starts processes and stops them."""
    started = []

    def start(code, *arguments, **environment):
        started.append(Process(PRELUDE + code, *arguments, **environment))
        return started[-1]

    yield start
    for process in started:
        process.stop()


class Cluster(Process):
    def __init__(self, nodes, **environment):
        super().__init__(CLUSTER, str(nodes), **environment)
        self.address = self.hear()

    def actors(self):
        return int(self.ask("actors"))


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    made = Cluster(2)
    yield made
    made.stop()


def test_nodes_join_and_leave_between_computations(cluster, run):
    driver = run("""
mine = nums_core.init(sys.argv[1], ray={"log_to_driver": False})
executor = mine.executor
assert (executor.cluster.n_nodes, executor.elastic) == (2, True)
x = np.random.default_rng(1).normal(size=(8000, 16), chunks=(1000, 16)).persist()
home, want = x.expr.params[0].data.home.copy(), (x * 2).sum().compute()
before = total()
say("persisted")
wait_until(lambda: mine.cluster.n_workers == 3)
assert [w.threads for w in executor.cluster.workers] == [1, 1, 3] and executor.cluster.n_nodes == 3
assert numpy.array_equal(x.expr.params[0].data.home, home)
after = total()
assert after[0] == before[0] and before[1] == {0, 1} and after[1] == {0, 1, 2}, (before, after)
assert (x * 2).sum().compute() == want
y = np.random.default_rng(2).normal(size=(9000, 16), chunks=(1000, 16)).persist()
there, values = lambda: set(y.expr.params[0].data.home.tolist()), y.compute()
assert there() == {0, 1, 2}
say("joined")
wait_until(lambda: mine.cluster.n_workers == 2)
assert total() == before and (x * 2).sum().compute() == want
assert there() == {0, 1} and numpy.array_equal(y.compute(), values)
assert numpy.array_equal(x.expr.params[0].data.home, home)
say("left")
""", cluster.address)
    assert driver.hear() == "persisted"
    node = cluster.ask("add", 3)
    assert driver.hear() == "joined"
    cluster.ask("kill", node)
    assert driver.hear() == "left"
    assert driver.end() == 0 and cluster.actors() == 0


def test_two_drivers_at_a_time_and_again(cluster, run):
    """Each has workers of its own; when one has shut down, the other and the cluster go on."""
    code = """
nums_core.init(sys.argv[1], ray={"log_to_driver": False})
say(total()[0])
sys.stdin.readline()
say(total()[0])
nums_core.shutdown()
say("shut down")
if not sys.stdin.readline():
    sys.exit()
nums_core.init(sys.argv[1], ray={"log_to_driver": False})
nums_core.init(sys.argv[1], ray={"log_to_driver": False})  # the one before is closed first
say(total()[0])
"""
    drivers = [run(code, cluster.address) for _ in range(2)]
    first = {d.hear() for d in drivers}
    assert len(first) == 1 and cluster.actors() == 4
    assert {drivers[0].ask("on")} == first and drivers[0].hear() == "shut down"
    assert cluster.actors() == 2
    assert {drivers[1].ask("on")} == first and drivers[1].hear() == "shut down"
    assert cluster.actors() == 0
    assert {drivers[0].ask("on")} == first  # and ends without shutting down
    assert drivers[0].end() == 0 and cluster.actors() == 0


def test_a_job_and_a_notebook(cluster, run, tmp_path):
    """`ray job submit` sets RAY_ADDRESS; notebooks have a loop running. Nothing is left of a driver that just ends."""
    driver = run("""
import asyncio, glob
nums_core.config.set(spill_dir=sys.argv[1])

async def cell():
    nums_core.init("auto", memory="1.5MiB", ray={"log_to_driver": False})
    x = np.random.default_rng(0).normal(size=(8000, 64), chunks=(1000, 64)).persist()
    assert glob.glob(sys.argv[1] + "/nums-spill-*")
    return x.sum().compute()

say(asyncio.run(cell()))
""", str(tmp_path), RAY_ADDRESS=cluster.address)
    float(driver.hear())
    assert driver.end() == 0 and cluster.actors() == 0 and not list(tmp_path.iterdir())


def test_another_address_while_connected(cluster, run):
    driver = run("""
import ray
from nums_core.errors import ConfigError, WorkerLostError

ray.init(sys.argv[1], log_to_driver=False)
try:
    nums_core.init("10.9.8.7:6379")
except ConfigError as error:
    say(error)
assert not nums_core.init(sys.argv[1], elastic=False).executor.elastic
total()
nums_core.shutdown()
assert ray.is_initialized()
nums_core.init("auto")
x = np.ones(100).persist()
ray.shutdown()
try:
    x.sum().compute()
except WorkerLostError as error:
    say(error)
""", cluster.address)
    assert "call ray.shutdown() first" in driver.hear()
    assert "nums_core.init(...) connects anew" in driver.hear()
    assert driver.end() == 0


def test_rays_client(cluster, run):
    """From a machine that is no node of the cluster."""
    pytest.importorskip("grpc", reason="Ray's client needs grpcio: pip install ray[client]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Process("from ray.util.client.server.server import main; main()", "--host", "127.0.0.1", "--port", str(port),
                     "--address", cluster.address, "--mode", "specific-server")
    driver = run("""
import socket
wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", int(sys.argv[1]))) == 0)
mine = nums_core.init(f"ray://127.0.0.1:{sys.argv[1]}", ray={"log_to_driver": False})
assert mine.executor.cluster.n_nodes == 2 and mine.executor.elastic
x = np.arange(100_000.0, chunks=10_000).persist()
def bad(block):
    raise ValueError("bad block")
try:
    np.map_blocks(bad, x, dtype="f8").compute()
except ValueError:
    say(float((x + numpy.ones(100_000)).sum().compute()))
nums_core.init(f"ray://127.0.0.1:{sys.argv[1]}", ray={"log_to_driver": False})
say(total()[0])
""", str(port))
    try:
        assert float(driver.hear()) == 5_000_050_000
        float(driver.hear())
        assert driver.end() == 0 and cluster.actors() == 0
    finally:
        server.process.terminate()
        server.stop()


def test_tokens_are_asked_for_and_never_shown(run, tmp_path):
    pytest.importorskip("ray")
    token = "a1" * 16
    (tmp_path / "token").write_text(token)
    signed = lambda name: {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / name)}
    cluster = Cluster(1, **signed("token"))
    code = """
from nums_core.errors import ConfigError
try:
    nums_core.init(sys.argv[1], ray={"log_to_driver": False})
    say(total()[0])
except ConfigError as error:
    say(str(error).replace(chr(10), " "))
assert os.environ["RAY_AUTH_MODE"] == "token" and os.environ.get("RAY_USAGE_STATS_ENABLED") == "0"
"""
    try:
        good, bad = (run(code, cluster.address, **signed(name)) for name in ("token", "nothing"))
        float(good.hear())
        said = bad.hear()
        assert "The token of this cluster must be on every machine" in said
        assert (good.end(), bad.end()) == (0, 0)
        assert token not in said + "".join(good.errors + bad.errors)
    finally:
        cluster.stop()
