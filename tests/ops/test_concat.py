"""Joining tensors, and writing them where they are wanted at once."""

import numpy as np
import pytest
from check import check, reference, run
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators, normal, shapes
from striate import Graph, Model, ShapeError, Spec, kernels, ops


@st.composite
def parts(draw):
    """Draw shapes that differ along one axis, and that axis."""
    shape = draw(shapes())
    axis = draw(st.integers(0, len(shape) - 1))
    sizes = draw(
        st.lists(st.sampled_from([1, 2, 3, 7, 8, 16, 17]), min_size=1, max_size=4)
    )
    return [(*shape[:axis], n, *shape[axis + 1 :]) for n in sizes], axis - draw(
        st.sampled_from([0, len(shape)])
    )


@given(drawn=parts(), rng=generators())
def test_matches_reference(drawn, rng):
    shapes, axis = drawn
    check(ops.Concat(axis), *(normal(rng, shape) for shape in shapes), exact=True)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_layers_write_their_part_in_place(axis):
    graph = Graph()
    x = graph.input("x", (2, 3, 4, 5))
    left = graph.add(ops.Relu(), x)
    right = graph.add(ops.Neg(), x)
    inner = graph.add(ops.Concat(axis), left, right)
    last = graph.add(ops.Abs(), x)
    graph.output(graph.add(ops.Concat(axis), inner, last))
    feeds = {"x": normal(np.random.default_rng(axis), (2, 3, 4, 5))}
    for isa in kernels.SUPPORTED:
        for threads in (1, 2):
            got = run(graph, feeds, isa, threads)
            np.testing.assert_array_equal(got, reference(graph, feeds))


def test_copies_only_what_is_not_in_place():
    graph = Graph()
    x = graph.input("x", (1, 4, 4, 8))
    y = graph.add(ops.Relu(), x)
    graph.output(graph.add(ops.Concat(), x, y))
    steps = Model(graph).profile(np.ones((1, 4, 4, 8), np.float32))
    assert [step.algorithm for step in steps] == ["elementwise", "copy"]


def test_one_input_twice():
    graph = Graph()
    x = graph.input("x", (2, 9))
    y = graph.add(ops.Neg(), x)
    graph.output(graph.add(ops.Concat(), y, y, y))
    feeds = {"x": normal(np.random.default_rng(0), (2, 9))}
    got = run(graph, feeds, kernels.ISA, 1)
    np.testing.assert_array_equal(got, reference(graph, feeds))


def test_rejects():
    with pytest.raises(ShapeError, match=r"Concat along axis 1: .*\(2, 3\).*\(3, 3\)"):
        ops.Concat(1).infer(Spec((3, 3)), Spec((2, 3)))
    with pytest.raises(ShapeError, match="does not fit"):
        ops.Concat(0).infer(Spec((3, 3)), Spec((3, 3), "int32"))
    with pytest.raises(ShapeError, match="nothing to join"):
        ops.Concat(0).infer()
    with pytest.raises(ShapeError, match="axis 2 is outside"):
        ops.Concat(2).infer(Spec((3, 3)))
