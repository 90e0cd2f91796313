"""What a model's memory comes to, and that it goes again.

``STRIATE_SHAPES=10000`` in the environment makes the test of many shapes the long one.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import leaks
import numpy as np
import pytest
from small_nets import any_size, picture, wide
from striate import Graph, Model, ShapeError, ops
from striate import model as model_module
from striate.prepared import MOST_IDLE

HERE = Path(__file__).parent

BEFORE = """
import gc, os, random, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import striate
from small_nets import any_size, picture, wide
from striate import Model, kernels, ops

def resident():
    "Return the bytes of memory the process has, the files it has mapped included."
    gc.collect()
    with open("/proc/self/smaps_rollup") as file:
        return 1024 * int(next(line for line in file if line[:4] == "Rss:").split()[1])

def warm(graph):
    "Load the kernels, so that their code is not counted."
    with Model(graph, threads=1) as model:
        model(np.zeros(graph.default_shapes()[graph.inputs[0].name], np.float32))

"""


def run_script(code, *arguments):
    """Run a program in a fresh process, whose memory is its own."""
    subprocess.run(
        [sys.executable, "-c", BEFORE + textwrap.dedent(code), HERE, *arguments],
        check=True,
        timeout=1800,
    )


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="the system does not tell"
)


@needs_proc
def test_the_plan_states_what_is_used(tmp_path):
    code = """
        path = sys.argv[2]
        graph = wide(384, 6)
        striate.save(graph, path)
        del graph
        warm(wide(384, 1))
        start = resident()
        model = striate.load(path, threads=1)
        x = np.ones((4, 24, 24, 384), np.float32)
        given = x.nbytes
        plan = model.memory_plan(x.shape)
        y = model(x)
        used = resident() - start - given - y.nbytes
        assert abs(used - plan.total) <= 0.05 * plan.total, (used, plan)
        del model, y
        assert resident() - start - given <= 0.05 * plan.total
    """
    run_script(code, str(tmp_path / "net.h5"))


@needs_proc
def test_a_folded_kernel_is_not_kept_beside_its_packed_copy(tmp_path):
    """Nor are the file's pages, which both are made of."""
    code = """
        def folded(channels):
            graph = striate.Graph()
            x = graph.input("x", ("N", 8, 8, channels))
            for layer in range(6):
                kernel = np.ones((1, 1, channels, channels), np.float32)
                x = graph.add(ops.Conv(), x, kernel=kernel)
                ones = np.ones(channels, np.float32)
                moments = {k: ones for k in ("gamma", "beta", "mean", "variance")}
                x = graph.add(ops.BatchNorm(), x, **moments)
            graph.output(x)
            return graph

        path = sys.argv[2]
        striate.save(folded(1024), path)
        warm(folded(64))
        start = resident()
        model = striate.load(path, threads=1)
        x = np.ones((1, 8, 8, 1024), np.float32)
        model(x)
        packed = 6 * 4 * 1024**2
        assert packed <= resident() - start <= 1.2 * packed, resident() - start
    """
    run_script(code, str(tmp_path / "net.h5"))


def test_the_plan_adds_up():
    graph = wide(48, 2)
    model = Model(graph, threads=1)
    plan = model.memory_plan((2, 24, 24, 48))
    assert plan.total == plan.weights + plan.packed_weights + plan.arena
    assert plan.weights == sum(a.nbytes for a in graph.params.values())
    assert model.memory_plan({"x": (2, 24, 24, 48)}) == plan
    with pytest.raises(ShapeError, match=r"inputs \['x'\] are missing"):
        model.memory_plan({})
    with pytest.raises(ShapeError, match=r"found shape \(2, 2\)"):
        model.memory_plan((2, 2))


@needs_proc
def test_many_shapes_take_no_more_than_the_largest():
    code = """
        rng = random.Random(2)
        graph = any_size()
        warm(graph)

        def used(shapes):
            model = Model(graph, threads=1)
            for shape in shapes:
                model(np.zeros(shape, np.float32))
            return resident()

        shapes = [
            (rng.randint(1, 3), rng.randint(4, 220), rng.randint(4, 220), 3)
            for _ in range(int(sys.argv[2]))
        ]
        largest = sorted(shapes, key=np.prod)[-20:]
        used(largest)
        limit = used(largest)
        many = used(shapes)
        assert many <= 1.02 * limit, (many, limit)
    """
    run_script(code, os.environ.get("STRIATE_SHAPES", "400"))


@needs_proc
def test_loading_and_closing_again_and_again_is_flat(tmp_path):
    code = """
        path, x = sys.argv[2], picture(0, 1, 40, 40, 3)
        striate.save(any_size(), path)

        def turn(close):
            model = striate.load(path, threads=2)
            model(x)
            if close:
                model.close()

        files = len(os.listdir("/proc/self/fd"))
        sizes = []
        for number in range(1000):
            turn(number % 2)
            if number % 100 == 99:
                sizes.append(resident())
        assert sizes[-1] <= 1.02 * sizes[1], sizes
        assert len(os.listdir("/proc/self/fd")) == files
    """
    run_script(code, str(tmp_path / "net.h5"))


def test_no_memory_is_lost():
    """``python -m tests.leaks`` is the long run."""
    try:
        few = leaks.lost(leaks.FEW)
        spoilt = leaks.lost(20, spoilt=True)
    except leaks.NoSanitizerError as error:
        pytest.skip(f"no leak sanitizer: {error}")
    assert spoilt > few, "a leak would be seen"
    assert leaks.lost(20) == few


def test_what_a_model_keeps_is_bounded():
    model = Model(any_size(), threads=1)
    names = [node.name for node in model.graph.nodes]
    x = picture(0, 1, 12, 12, 3)
    for count in range(1, len(names) + 1):
        for first in range(0, len(names) - count + 1, 3):
            model.run({"image": x}, names[first : first + count])
    assert len(model._plans) <= model_module.MOST_PLANS
    assert len(model._optimised) <= model_module.MOST_GRAPHS


def test_packed_weights_of_dropped_graphs_are_forgotten():
    graph = Graph("normalised")
    x = graph.input("x", (1, 8, 8, 4))
    ones = np.ones(4, np.float32)
    for number in range(12):
        kernel = picture(number, 1, 1, 4, 4)
        x = graph.add(ops.Conv(), x, kernel=kernel, name=f"conv{number}")
        x = graph.add(
            ops.BatchNorm(), x, gamma=ones, beta=ones, mean=ones, variance=ones
        )
    graph.output(x)
    model = Model(graph, threads=1)
    sizes = []
    for _ in range(2):
        for number in range(12):
            model.run({"x": picture(0, 1, 8, 8, 4)}, [f"conv{number}"])
        sizes.append(len(model._packed.arrays()))
    assert sizes[1] <= sizes[0]


def test_contexts_that_nobody_uses_are_few():
    model = Model(any_size(), threads=1)
    x = picture(0, 1, 12, 12, 3)
    model(x)
    prepared = next(iter(model._plans.values()))
    seen = []

    def call(depth):
        hook = (lambda *_: call(depth - 1)) if depth else (lambda *_: seen.append(0))
        model(x, hook=hook)
        return len(prepared._contexts)

    assert call(2) <= MOST_IDLE
    assert len(prepared._contexts) <= MOST_IDLE
    assert seen


def test_a_closed_model_holds_no_weights():
    model = Model(any_size(), threads=1)
    model(picture(0, 1, 12, 12, 3))
    model.close()
    model.close()
    assert "closed" in repr(model)
    assert not model._plans
    assert not model._packed.arrays()
