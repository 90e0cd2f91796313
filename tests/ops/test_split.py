"""Cutting a tensor into parts."""

import numpy as np
import pytest
from check import check, reference, run
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators, normal, shapes
from striate import Graph, ShapeError, Spec, kernels, ops


@st.composite
def cuts(draw):
    """Draw a shape, an axis and the sizes of its parts."""
    shape = list(draw(shapes()))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    sizes = draw(st.lists(st.sampled_from([1, 2, 8, 17]), min_size=1, max_size=4))
    shape[axis] = sum(sizes)
    return tuple(shape), axis, tuple(sizes)


@given(drawn=cuts(), rng=generators())
def test_matches_reference(drawn, rng):
    shape, axis, sizes = drawn
    check(ops.Split(axis, sizes), normal(rng, shape), exact=True)


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
def test_parts_are_read_where_they_lie(isa):
    graph = Graph()
    x = graph.input("x", (2, 5, 20))
    x = graph.add(ops.Neg(), x)
    a, b, c = graph.add(ops.Split(-1, (3, 16, 1)), x, outputs=("a", "b", "c"))
    for part in (a, b, c):
        graph.output(graph.add(ops.Relu(), part))
    feeds = {"x": normal(np.random.default_rng(3), (2, 5, 20))}
    for got, want in zip(
        run(graph, feeds, isa, 1), reference(graph, feeds), strict=True
    ):
        np.testing.assert_array_equal(got, want)


def test_rejects():
    with pytest.raises(ShapeError, match=r"parts \(2, 3\) do not add up .* \(2, 6\)"):
        ops.Split(1, (2, 3)).infer(Spec((2, 6)))
    with pytest.raises(ValueError, match="sizes"):
        ops.Split(0, ())
    with pytest.raises(ValueError, match="sizes"):
        ops.Split(0, (0, 3))
