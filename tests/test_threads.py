"""Any number of threads on one model; ``python -m tests.threads`` is the long run."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from small_nets import any_size, picture, wide
from striate import Model, kernels
from striate.machine import allowed_cpus
from threads import hammered, pace, speedup

HERE = Path(__file__).parent
PAIR = pytest.mark.skipif(len(allowed_cpus()) < 2, reason="there is one CPU")


def reached(measure, wanted, seconds=20):
    """Return the first measurement that is good enough, or the best.

    Whatever else the machine does makes each of them worse and none better.
    """
    best, end = 0.0, time.monotonic() + seconds
    while best < wanted and time.monotonic() < end:
        best = max(best, measure())
    return best


@pytest.mark.parametrize("threads", [1, 2])
def test_eight_threads_get_every_bit_right(threads):
    assert hammered(workers=8, calls=150, seed=3, threads=threads) == 0


# A run that kept the interpreter's lock would leave two threads the work of one, and
# other threads less than half their pace. How near 2 and 1 they come depends on what
# else the machine does; `python -m tests.threads` measures that.


@PAIR
def test_two_threads_do_more_work_than_one():
    assert reached(lambda: speedup(2), 1.4) >= 1.4


@PAIR
def test_other_threads_keep_their_pace_during_a_run():
    assert reached(pace, 0.6) >= 0.6


# Determinism.


def answers(model, x):
    """Return one answer by every way there is of asking for it."""
    name, output = model.inputs[0].name, model.graph.outputs[0]
    out = np.empty_like(model(x))
    model.profile(x, runs=1)
    yield "again", model(x)
    yield "out", model(x, out=out)
    yield "run", model.run({name: x})[output]
    yield (
        "among others",
        model.run({name: x}, [output, model.graph.nodes[0].name])[output],
    )
    yield "watched", model(x, check_finite=True, timeout=60.0, hook=lambda *_: None)


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
def test_the_bits_do_not_depend_on_how_they_are_asked_for(isa):
    for graph, x in (
        (any_size(), picture(1, 3, 33, 21, 3)),
        (wide(40, 3), picture(1, 3, 24, 24, 40)),
    ):
        wanted = Model(graph, isa=isa, threads=1)(x)
        for threads in (1, 2, 3):
            model = Model(graph, isa=isa, threads=threads)
            for what, found in answers(model, x):
                assert found.tobytes() == wanted.tobytes(), (what, threads)
            for index in range(len(x)):
                part = model(x[index : index + 1])
                assert part.tobytes() == wanted[index : index + 1].tobytes()


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
def test_another_process_and_the_environment_give_the_same_bits(isa):
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from small_nets import any_size, picture
        from striate import Model, kernels
        assert kernels.ISA == sys.argv[2]
        y = Model(any_size(), threads=2)(picture(1, 2, 40, 30, 3))
        sys.stdout.write(y.tobytes().hex())
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(HERE), isa],
        env={**os.environ, "STRIATE_ISA": isa},
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    ).stdout
    model = Model(any_size(), threads=1, isa=isa)
    assert found == model(picture(1, 2, 40, 30, 3)).tobytes().hex()


# What there is when nothing runs.


def test_importing_and_loading_make_no_thread_and_open_no_file():
    code = """
        import os, sys
        import numpy, threading

        def held():
            names = []
            for number in os.listdir("/proc/self/fd"):
                try:
                    names.append(os.readlink(f"/proc/self/fd/{number}"))
                except FileNotFoundError:
                    pass
            return sorted(names), len(os.listdir("/proc/self/task"))

        before = held()
        allowed = os.sched_getaffinity(0)
        import striate
        assert held() == before, (held(), before)
        model = striate.load(sys.argv[1])
        assert held() == before, (held(), before)
        model(numpy.zeros((1, 8, 8, 1), numpy.float32))
        assert held()[0] == before[0]
        assert os.sched_getaffinity(0) == allowed
    """
    path = str(HERE.parent / "models" / "digits.h5")
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), path], check=True, timeout=60
    )
