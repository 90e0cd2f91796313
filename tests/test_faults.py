"""What goes wrong outside the network: memory, signals, deadlines, files."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import striate
from small_nets import any_size, picture, wide
from striate import DeadlineError, Graph, Model, SettingError, ShapeError, ops

HERE = Path(__file__).parent


def run_script(code, *arguments):
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), HERE, *arguments],
        check=True,
        timeout=120,
    )


# Memory that cannot be had.


def test_no_memory_is_a_memory_error_and_the_model_stays_usable(tmp_path):
    code = """
        import resource, sys
        sys.path.insert(0, sys.argv[1])
        import numpy as np
        import striate
        from small_nets import any_size, picture
        from striate import Model

        striate.save(any_size(), sys.argv[2])
        shared, small = striate.load(sys.argv[2], threads=2), picture(0, 1, 20, 20, 3)
        wanted = shared(small)
        fails = {"large": 0, "new": 0, "load": 0}

        def size():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[0]) * resource.getpagesize()

        large = np.zeros((1, 2400, 2400, 3), np.float32)
        for spare in range(0, 100 << 20, 4 << 20):
            resource.setrlimit(resource.RLIMIT_AS, (size() + spare, -1))
            for what, call in {
                "large": lambda: shared(large),
                "new": lambda: Model(any_size(), threads=2)(picture(1, 1, 300, 300, 3)),
                "load": lambda: striate.load(sys.argv[2], copy=True)(small),
            }.items():
                try:
                    call()
                except MemoryError:
                    fails[what] += 1
            assert shared(small).tobytes() == wanted.tobytes()
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        assert fails["large"], fails
        assert shared(large).size == 10
        assert shared(small).tobytes() == wanted.tobytes()
    """
    run_script(code, tmp_path / "net.h5")


def test_an_array_that_no_memory_holds_is_refused_and_the_model_stays_usable():
    model = Model(any_size(), threads=1)
    x = picture(0, 1, 20, 20, 3)
    wanted = model(x)
    huge = np.broadcast_to(np.float32(1), (1 << 30, 1000, 1000, 3))
    with pytest.raises((MemoryError, ShapeError)):
        model(huge)
    with pytest.raises(ShapeError, match=r"would take \d+ bytes"):
        model.memory_plan((1 << 40, 1 << 20, 1 << 20, 3))
    assert model(x).tobytes() == wanted.tobytes()


# Signals and deadlines.


@pytest.fixture(scope="module")
def long_run():
    """Return a model whose run takes a second or more in short steps, and its input."""
    graph = Graph("long")
    x = graph.input("x", ("N", 24, 24, 64))
    kernel = picture(0, 3, 3, 64, 64) / 24
    for _ in range(100):
        x = graph.add(ops.Conv(padding=1), x, kernel=kernel)
    graph.output(x)
    model = Model(graph, threads=2)
    batch, seconds = 1, 0.0
    while seconds < 1:
        x = picture(1, batch, 24, 24, 64)
        model(x)
        start = time.perf_counter()
        model(x)
        seconds = time.perf_counter() - start
        batch = int(batch * max(1.2, min(8, 1.5 / seconds)))
    return model, x


def call_again_and_again(model, x):
    """A machine may be faster than when the run was timed."""
    end = time.perf_counter() + 60
    while time.perf_counter() < end:
        model(x)


@pytest.fixture
def interruptible():
    """Have SIGINT raise, also where a shell started the tests with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_is_honoured_during_a_run(long_run):
    model, x = long_run
    late = []
    for _ in range(3):
        sent = []

        def send(sent=sent):
            time.sleep(0.2)
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        sender = threading.Thread(target=send)
        sender.start()
        with pytest.raises(KeyboardInterrupt):
            call_again_and_again(model, x)
        late.append(time.perf_counter() - sent[0])
        sender.join()
    assert min(late) < 0.1
    small = x[:1]
    assert model(small).tobytes() == model(small).tobytes()


def test_a_handler_that_does_not_raise_lets_the_run_go_on(long_run):
    model, x = long_run
    wanted, states = model(x), []
    tiny = np.float32(1e-42)
    before = signal.signal(
        signal.SIGALRM, lambda *_: states.append(tiny * np.float32(0.5))
    )
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        while len(states) < 2:
            found = model(x)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert all(state != 0 for state in states), "the handler's float state is its own"
    assert found.tobytes() == wanted.tobytes()


def test_a_run_has_a_deadline(long_run):
    model, x = long_run
    wanted = model(x)
    late = []
    for _ in range(3):
        start = time.perf_counter()
        with pytest.raises(DeadlineError, match=r"not done after 0.05 s, reached") as e:
            model(x, timeout=0.05)
        late.append(time.perf_counter() - start - 0.05)
        assert e.value.layer in {node.name for node in model.graph.nodes[1:]}
    assert min(late) < 0.1
    assert isinstance(e.value, TimeoutError)
    assert model(x, timeout=60.0).tobytes() == wanted.tobytes()


def test_deadlines_of_several_threads_at_once(long_run):
    model, x = long_run
    wanted, found = model(x[:1]).tobytes(), []

    def call(timeout):
        try:
            model(x, timeout=timeout)
        except DeadlineError:
            found.append(model(x[:1]).tobytes() == wanted)

    threads = [
        threading.Thread(target=call, args=(0.01 * n,), daemon=True)
        for n in range(1, 7)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [True] * 6


def test_a_deadline_holds_while_layers_are_looked_at(long_run):
    model, x = long_run
    seen = []

    def slow(name, value):
        seen.append(name)
        time.sleep(0.02)

    with pytest.raises(DeadlineError) as error:
        model(x[:1], timeout=0.15, hook=slow)
    assert 0 < len(seen) < 20
    assert error.value.layer not in seen


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1"])
def test_timeouts_that_make_no_sense(timeout):
    with pytest.raises(SettingError, match="wanted seconds, more than 0"):
        Model(any_size())(picture(0, 1, 8, 8, 3), timeout=timeout)


# Files that change under a loaded model.


@pytest.mark.parametrize("change", ["deleted", "replaced", "saved over"])
def test_a_file_may_go_while_its_model_is_used(tmp_path, change):
    path, other = tmp_path / "net.h5", tmp_path / "other.h5"
    striate.save(any_size(), path)
    model = striate.load(path, threads=1)
    wanted = [Model(any_size())(picture(n, n, 20, 20, 3)) for n in (1, 2)]
    assert model(picture(1, 1, 20, 20, 3)).tobytes() == wanted[0].tobytes()
    if change == "deleted":
        path.unlink()
    elif change == "replaced":
        striate.save(any_size(seed=1), other)
        other.replace(path)
    else:
        striate.save(any_size(seed=1), path)
    assert model(picture(2, 2, 20, 20, 3)).tobytes() == wanted[1].tobytes()


def test_a_copy_does_not_care_what_is_written_into_the_file(tmp_path):
    path = tmp_path / "net.h5"
    striate.save(wide(16, 2), path)
    model = striate.load(path, threads=1, copy=True)
    path.write_bytes(b"")
    x = picture(0, 1, 24, 24, 16)
    assert model(x).tobytes() == Model(wide(16, 2), threads=1)(x).tobytes()


def test_what_a_hook_raises_leaves_the_model_usable():
    model = Model(any_size(), threads=2)
    x = picture(0, 1, 20, 20, 3)
    wanted = model(x)

    def stop(name, value):
        raise RuntimeError(name)

    for _ in range(3):
        with pytest.raises(RuntimeError, match="relu1"):
            model(x, hook=stop)
    assert model(x).tobytes() == wanted.tobytes()
