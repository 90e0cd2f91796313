"""The same elements under another shape."""

import numpy as np
import pytest
from check import check, reference, run
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators, normal, shapes
from striate import Graph, Model, ShapeError, Spec, kernels, ops


@st.composite
def reshapes(draw):
    """Draw a shape and another of as many elements."""
    shape = draw(shapes())
    sizes = [p for n in shape for p in factors(n)]
    sizes = draw(st.permutations(sizes))
    other = []
    while sizes:
        take = draw(st.integers(0, len(sizes)))
        other.append(int(np.prod(sizes[:take], dtype=int)))
        sizes = sizes[take:]
    return shape, tuple(other) or (1,)


def factors(n):
    found = []
    for p in (2, 3, 5, 7, 11, 13, 17, 31):
        while n % p == 0:
            found.append(p)
            n //= p
    return found


@given(drawn=reshapes(), rng=generators())
def test_matches_reference(drawn, rng):
    shape, other = drawn
    if len(other) <= 8:
        check(ops.Reshape(other), normal(rng, shape), exact=True)


@given(shape=shapes(), rng=generators())
def test_flatten(shape, rng):
    assert check(ops.Flatten(), normal(rng, shape), exact=True).ndim == 2


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize("threads", [1, 2])
def test_scattered_on_both_sides(isa, threads):
    graph = Graph()
    x = graph.input("x", (4, 6, 7, 5))
    x = graph.add(ops.Slice((1, 1), (6, 4), (1, 2)), graph.add(ops.Neg(), x))
    x = graph.add(ops.Reshape((0, 25, 3)), x)
    graph.output(graph.add(ops.Pad(((1, 1), (0, 2), (1, 0))), x))
    feeds = {"x": normal(np.random.default_rng(4), (4, 6, 7, 5))}
    got = run(graph, feeds, isa, threads)
    np.testing.assert_array_equal(got, reference(graph, feeds))


def test_dense_tensors_are_not_copied():
    graph = Graph()
    x = graph.add(ops.Relu(), graph.input("x", (2, 4, 4, 8)))
    graph.output(graph.add(ops.Abs(), graph.add(ops.Flatten(), x)))
    steps = Model(graph).profile(np.ones((2, 4, 4, 8), np.float32))
    assert [step.algorithm for step in steps] == ["elementwise"] * 2


def test_infer():
    def shape(wanted, *found):
        return ops.Reshape(wanted).infer(Spec(found)).shape

    assert shape((0, -1), 2, 3, 4) == (2, 12)
    assert shape((0, 0, 2, 2), 2, 3, 4) == (2, 3, 2, 2)
    assert shape((-1,), 2, 3, 4) == (24,)
    assert shape((), 1, 1) == ()
    assert ops.Flatten().infer(Spec((5,))).shape == (5, 1)


def test_rejects():
    with pytest.raises(ShapeError, match=r"Reshape: \(2, 3\) does not fit \(4, -1\)"):
        ops.Reshape((4, -1)).infer(Spec((2, 3)))
    with pytest.raises(ShapeError, match="does not fit"):
        ops.Reshape((2, 3, 0)).infer(Spec((2, 3)))
    with pytest.raises(ShapeError, match="no axes"):
        ops.Flatten().infer(Spec(()))
    for wrong in ((-1, -1), (-2, 3), (2.0, 3)):
        with pytest.raises(ValueError, match="wanted sizes"):
            ops.Reshape(wrong)
