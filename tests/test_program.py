"""The thread team: leases, barriers, forks."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from striate import Graph, Model, kernels, ops
from striate.kernels import _program


def wide_net(channels=64, layers=6):
    """Return a net heavy enough that a plan allows several threads."""
    rng = np.random.default_rng(5)
    graph = Graph("wide")
    x = graph.input("x", ("N", 24, 24, channels))
    for _ in range(layers):
        kernel = rng.standard_normal((3, 3, channels, channels)) / 24
        x = graph.add(ops.Conv(padding="same"), x, kernel=kernel)
        x = graph.add(ops.Relu(), x)
    graph.output(x)
    return graph


@pytest.fixture(scope="module")
def net():
    return wide_net()


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(7).standard_normal((1, 24, 24, 64), dtype=np.float32)


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
def test_any_number_of_threads_gives_the_same_bits(net, picture, isa):
    alone = Model(net, isa=isa, threads=1)(picture)
    for threads in (2, 3, 5, 8):
        np.testing.assert_array_equal(
            Model(net, isa=isa, threads=threads)(picture), alone
        )


def test_a_run_uses_the_workers_it_may(net, picture):
    Model(net, threads=3)(picture)
    assert _program.workers() >= 2


def test_callers_on_many_threads_share_a_model(net, picture):
    model = Model(net, threads=2)
    inputs = [picture * k for k in range(1, 5)]
    wanted = [model(x) for x in inputs]
    right = []

    def call(index):
        x, want = inputs[index], wanted[index]
        right.append(all(np.array_equal(model(x), want) for _ in range(20)))

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert right == [True] * 4


def test_idle_workers_use_no_cpu(net, picture):
    Model(net, threads=4)(picture)
    time.sleep(0.1)
    before = time.process_time()
    time.sleep(0.4)
    assert time.process_time() - before < 0.02


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_runs_with_all_its_threads():
    code = """
        import os, sys
        sys.path.insert(0, sys.argv[1])
        import numpy as np
        from striate import Model
        from striate.kernels import _program
        from test_program import wide_net
        x = np.random.default_rng(7).standard_normal((1, 24, 24, 64), dtype=np.float32)
        model = Model(wide_net(), threads=3)
        wanted = model(x)
        child = os.fork()
        if child == 0:
            good = _program.workers() == 0
            good &= np.array_equal(model(x), wanted) and _program.workers() == 2
            os._exit(0 if good else 1)
        status = os.waitpid(child, 0)[1]
        assert os.waitstatus_to_exitcode(status) == 0
        assert np.array_equal(model(x), wanted)
    """
    here = str(Path(__file__).parent)
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), here], check=True, timeout=60
    )


def test_the_callers_floating_point_state_is_put_back(net, picture):
    tiny = np.float32(1e-42)
    Model(net, threads=1)(picture)
    assert np.float32(tiny * np.float32(0.5)) != 0


def test_arrays_of_the_wrong_size_are_refused():
    program = _program.Program([], 64, [16], 0, None)
    context = _program.Context(program)
    with pytest.raises(ValueError, match="12 bytes, wanted 16"):
        context.run((np.zeros(3, np.float32),), 1)
    with pytest.raises(ValueError, match="0 arrays, wanted 1"):
        context.run((), 1)
