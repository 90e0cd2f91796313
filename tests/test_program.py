"""The thread team: leases and barriers."""

import threading
import time

import numpy as np
import pytest
from small_nets import wide
from striate import Model, kernels
from striate.kernels import _program


@pytest.fixture(scope="module")
def net():
    return wide()


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


def test_arrays_of_the_wrong_size_are_refused():
    program = _program.Program([], 64, [16], 0, None)
    context = _program.Context(program)
    with pytest.raises(ValueError, match="12 bytes, wanted 16"):
        context.run((np.zeros(3, np.float32),), 1)
    with pytest.raises(ValueError, match="0 arrays, wanted 1"):
        context.run((), 1)


def test_every_step_is_timed_whoever_begins():
    """A worker may finish steps before the caller comes to them."""
    fill = kernels.load("copy").fill((4096,), (1,), 1.0)
    size = 4 * 4096
    step = (*fill, [(1, 0)], False)
    context = _program.Context(_program.Program([step] * 20, 64, [size], 1, None))
    out = np.empty(4096, np.float32)
    for _ in range(3000):
        times = np.full(21, np.nan)
        context.run((out,), 4, times)
        assert (np.diff(times) >= 0).all()
