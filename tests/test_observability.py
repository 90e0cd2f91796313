"""What a service can see: the log, profiles, and every layer as it runs."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
from small_nets import any_size, picture
from striate import Graph, Model, ops

HERE = Path(__file__).parent
X = picture(0, 2, 30, 20, 3)


def test_the_log_is_silent_until_it_is_asked(caplog):
    code = """
import sys, numpy, striate
striate.load(sys.argv[1], threads=1)(numpy.zeros((1, 8, 8, 1), numpy.float32))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, HERE.parent / "models" / "digits.h5"],
        check=True,
        timeout=60,
        capture_output=True,
    )
    assert done.stdout == done.stderr == b""
    with caplog.at_level(logging.DEBUG, "striate"):
        model = Model(any_size(), threads=1)
        model(X)
        model(X)
    messages = [r.getMessage() for r in caplog.records if r.name == "striate"]
    assert len(messages) == 2
    assert "threads" in messages[0]
    assert "plan for (2, 30, 20, 3)" in messages[1]


def test_a_hook_sees_every_layer_in_order():
    graph = any_size()
    model = Model(graph, threads=2)
    seen = {}
    found = model(X, hook=lambda name, value: seen.setdefault(name, value))
    assert found.tobytes() == model(X).tobytes()
    order = [node.name for node in graph.nodes]
    assert list(seen) == sorted(seen, key=order.index)
    assert {"winograd", "depthwise", "join", "logits", "odds"} <= set(seen)
    wanted = graph.reference({"image": X.astype(np.float64)}, list(seen))
    for name, value in seen.items():
        bound = 1e-5 * np.abs(wanted[name]).max()
        assert np.abs(value - wanted[name]).max() <= bound, name


def test_what_a_hook_gets_is_its_own():
    model = Model(any_size(), threads=1)
    wanted, kept = model(X).tobytes(), []

    def spoil(name, value):
        value[...] = np.nan
        kept.append(value)

    assert model(X, hook=spoil).tobytes() == wanted
    assert all(np.isnan(value).all() for value in kept)


def test_a_hook_sees_views_parts_and_outputs():
    """Values that are no step of their own, or lie in a caller's array."""
    graph = Graph("views")
    x = graph.input("x", ("N", 4, 6, 8))
    a, b = graph.add(ops.Split(sizes=(3, 5)), x, outputs=("a", "b"))
    flat = graph.add(ops.Flatten(), x, name="flat")
    left = graph.add(ops.Relu(), a, name="left")
    right = graph.add(ops.Neg(), b, name="right")
    graph.output(graph.add(ops.Concat(), left, right, name="both"))
    graph.output(graph.add(ops.Neg(), flat, name="row"))
    x = picture(3, 2, 4, 6, 8)
    seen = {}
    Model(graph, threads=1)(x, hook=lambda name, value: seen.update({name: value}))
    assert {"a", "b", "flat", "left", "right", "both", "row"} == set(seen)
    for name, want in graph.reference({"x": x}, list(seen)).items():
        np.testing.assert_array_equal(seen[name], want)


def test_a_profile_changes_no_bit_and_tells_every_step():
    model = Model(any_size(), threads=2)
    wanted = model(X).tobytes()
    steps = model.profile(X, runs=3)
    assert model(X).tobytes() == wanted
    assert {"winograd", "depthwise", "odds"} <= {step.name for step in steps}
    assert all(step.ms >= 0 and step.bytes > 0 for step in steps)
