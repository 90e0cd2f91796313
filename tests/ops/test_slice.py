"""Taking a part of a tensor."""

import numpy as np
import pytest
from check import check, reference, run
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators, normal, shapes
from striate import Graph, ShapeError, Spec, kernels, ops


@st.composite
def slices(draw):
    """Draw a shape and a slice of it that is not empty."""
    shape = draw(shapes())
    axes = draw(st.lists(st.integers(0, len(shape) - 1), unique=True))
    starts, stops, steps = [], [], []
    for axis in axes:
        n = shape[axis]
        first = draw(st.integers(0, n - 1))
        last = draw(st.integers(0, n - 1))
        step = draw(st.integers(1, 3)) * (1 if last >= first else -1)
        stop = last + (1 if step > 0 else -1)
        starts.append(first - draw(st.sampled_from([0, n])))
        stops.append(stop if stop >= 0 else -n - 1)
        steps.append(step)
    axes = [axis - draw(st.sampled_from([0, len(shape)])) for axis in axes]
    return shape, ops.Slice(tuple(starts), tuple(stops), tuple(axes), tuple(steps))


@given(drawn=slices(), rng=generators())
def test_matches_reference(drawn, rng):
    shape, op = drawn
    check(op, normal(rng, shape), exact=True)


@given(drawn=slices(), rng=generators())
def test_parts_are_read_where_they_lie(drawn, rng):
    shape, op = drawn
    graph = Graph()
    x = graph.add(ops.Neg(), graph.input("x", shape))
    graph.output(graph.add(ops.Abs(), graph.add(op, x)))
    feeds = {"x": normal(rng, shape)}
    got = run(graph, feeds, kernels.ISA, 1)
    np.testing.assert_array_equal(got, reference(graph, feeds))


def test_known_values():
    x = np.arange(10, dtype=np.float32)

    def part(start, stop, step=1):
        return check(
            ops.Slice((start,), (stop,), (0,), (step,)), x, exact=True
        ).tolist()

    assert part(2, 5) == [2, 3, 4]
    assert part(-3, 2**31 - 1) == [7, 8, 9]
    assert part(8, -(2**31), -3) == [8, 5, 2]
    assert part(1, -1, 4) == [1, 5]


def test_rejects():
    with pytest.raises(ShapeError, match=r"Slice 3:2:1 of axis 0 of \(5, 4\) is empty"):
        ops.Slice((3,), (2,), (0,)).infer(Spec((5, 4)))
    with pytest.raises(ShapeError, match="axis 0 is given twice"):
        ops.Slice((0, 0), (1, 1), (0, -2)).infer(Spec((5, 4)))
    with pytest.raises(ShapeError, match="axis 2 is outside"):
        ops.Slice((0,), (1,), (2,)).infer(Spec((5, 4)))
    with pytest.raises(ValueError, match="not of one length"):
        ops.Slice((0, 1), (1,), (0,))
    with pytest.raises(ValueError, match="step of 0"):
        ops.Slice((0,), (1,), (0,), (0,))
    with pytest.raises(ValueError, match="whole numbers"):
        ops.Slice((0.5,), (1,), (0,))
