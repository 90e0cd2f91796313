"""Reordering axes."""

import numpy as np
import pytest
from check import check, reference, run
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators, normal, shapes
from striate import Graph, ShapeError, Spec, kernels, ops


@st.composite
def orders(draw):
    """Draw a shape with widths that matter on any axis, and an order of the axes."""
    shape = draw(st.permutations(draw(shapes()) + draw(st.sampled_from([(), (17,)]))))
    return tuple(shape), tuple(draw(st.permutations(range(len(shape)))))


@given(drawn=orders(), rng=generators())
def test_matches_reference(drawn, rng):
    shape, axes = drawn
    check(ops.Transpose(axes), normal(rng, shape), exact=True)


@pytest.mark.parametrize("m", [1, 3, 4, 7, 8, 9, 16, 17, 33])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 8, 15, 16, 17, 32, 300])
def test_matrices(m, n):
    x = normal(np.random.default_rng(m), (2, m, n))
    check(ops.Transpose((0, 2, 1)), x, exact=True)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 8, 16, 20, 64])
def test_between_channels_first_and_last(channels):
    x = normal(np.random.default_rng(channels), (2, 9, 11, channels))
    first = check(ops.Transpose((0, 3, 1, 2)), x, exact=True).astype(np.float32)
    last = check(ops.Transpose((0, 2, 3, 1)), first, exact=True)
    np.testing.assert_array_equal(last, x)


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
def test_a_view_where_the_last_axis_stays(isa):
    graph = Graph()
    x = graph.add(ops.Neg(), graph.input("x", (2, 3, 5, 17)))
    x = graph.add(ops.Transpose((0, 2, 1, 3)), x)
    graph.output(graph.add(ops.Relu(), x))
    feeds = {"x": normal(np.random.default_rng(5), (2, 3, 5, 17))}
    got = run(graph, feeds, isa, 2)
    np.testing.assert_array_equal(got, reference(graph, feeds))


def test_rejects():
    with pytest.raises(ShapeError, match=r"axes \(1, 0\) do not fit .* \(2, 3, 4\)"):
        ops.Transpose((1, 0)).infer(Spec((2, 3, 4)))
    with pytest.raises(ValueError, match="every axis once"):
        ops.Transpose((0, 0, 1))
