"""Batch normalisation."""

import numpy as np
import pytest
from check import check, compare, reference, run
from hypothesis import given
from strategies import generators, normal, shapes, whole
from striate import Graph, ShapeError, Spec, kernels, ops


def weights(rng, channels):
    return {
        "gamma": normal(rng, channels),
        "beta": normal(rng, channels),
        "mean": normal(rng, channels),
        "variance": rng.uniform(0.01, 4, channels).astype(np.float32),
    }


@given(shape=shapes(), rng=generators())
def test_matches_reference(shape, rng):
    x, w = normal(rng, shape), weights(rng, shape[-1])
    scale = np.abs(w["gamma"]) / np.sqrt(w["variance"])
    size = (np.abs(x) + np.abs(w["mean"])) * scale + np.abs(w["beta"])
    check(ops.BatchNorm(), x, bound=2.0**-22 * size, **w)


@given(shape=shapes(), rng=generators())
def test_whole_numbers_are_exact(shape, rng):
    w = {name: whole(rng, shape[-1]) for name in ("gamma", "beta", "mean")}
    w["variance"] = rng.choice(np.float32([1, 0.25]), shape[-1])
    check(ops.BatchNorm(0.0), whole(rng, shape), exact=True, **w)


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
def test_applies_the_activation_after_it(isa):
    rng = np.random.default_rng(1)
    graph = Graph()
    x = graph.input("x", (2, 5, 4, 3))
    x = graph.add(ops.BatchNorm(), x, **weights(rng, 3))
    graph.output(graph.add(ops.Relu(), x))
    feeds = {"x": normal(rng, (2, 5, 4, 3))}
    (got,) = run(graph, feeds, isa, 1)
    compare(got, reference(graph, feeds)[0], 1e-4, "batch norm and ReLU")
    assert got.min() == 0


def test_models_that_share_weights_do_not_mix_them_up():
    rng = np.random.default_rng(2)
    graph = Graph()
    graph.input("x", (1, 4, 3))
    graph.params["shared"] = np.ones(3, np.float32)
    for variance in (1.0, 4.0):
        rest = {
            "beta": "shared",
            "mean": np.zeros(3),
            "variance": np.full(3, variance),
        }
        graph.output(graph.add(ops.BatchNorm(0.0), "x", gamma="shared", **rest))
    x = whole(rng, (1, 4, 3))
    one, two = run(graph, {"x": x}, kernels.ISA, 1)
    np.testing.assert_array_equal(one, x + 1)
    np.testing.assert_array_equal(two, x / 2 + 1)


def test_rejects():
    c = Spec((4,))
    with pytest.raises(ShapeError, match=r"mean \(5,\) does not fit .* \(1, 2, 4\)"):
        ops.BatchNorm().infer(Spec((1, 2, 4)), c, c, Spec((5,)), c)
    with pytest.raises(ShapeError, match="no axis of channels"):
        ops.BatchNorm().infer(Spec(()), c, c, c, c)
    with pytest.raises(ValueError, match="epsilon inf"):
        ops.BatchNorm(float("inf"))
