"""Softmax, its logarithm and its limit."""

import numpy as np
import pytest
from check import check
from hypothesis import given
from hypothesis import strategies as st
from strategies import WIDTHS, generators, normal, shapes, whole
from striate import ShapeError, Spec, ops

UNIT = 2.0**-24


@st.composite
def with_axis(draw):
    """Draw a shape and one of its axes."""
    shape = draw(shapes())
    return shape, draw(st.integers(-len(shape), len(shape) - 1))


def bounds(op, x):
    """Return how far off a result may be: the sum's rounding, and the exponential's."""
    n = x.shape[op.axis]
    if isinstance(op, ops.Softmax):
        wide = np.abs(x - x.max(axis=op.axis, keepdims=True))
        y = op.reference(x.astype(np.float64))
        return (8 + np.sqrt(n) + wide) * 2 * UNIT * y + 2.0**-119
    size = np.abs(op.reference(x.astype(np.float64)))
    return (8 + np.sqrt(n) + size) * 2 * UNIT


@pytest.mark.parametrize("kind", [ops.Softmax, ops.LogSoftmax])
@given(drawn=with_axis(), rng=generators())
def test_matches_reference(kind, drawn, rng):
    shape, axis = drawn
    x = normal(rng, shape, 4)
    check(kind(axis), x, bound=bounds(kind(axis), x))


@pytest.mark.parametrize("n", [*WIDTHS, 1000, 1001])
@pytest.mark.parametrize("kind", [ops.Softmax, ops.LogSoftmax])
def test_many_classes(kind, n):
    x = normal(np.random.default_rng(n), (3, n), 8)
    check(kind(), x, bound=bounds(kind(), x))


@given(drawn=with_axis(), rng=generators())
def test_adds_up_to_one_and_does_not_move_with_its_input(drawn, rng):
    shape, axis = drawn
    x = whole(rng, shape)
    y = check(ops.Softmax(axis), x, bound=1e-6)
    np.testing.assert_allclose(y.sum(axis=axis), 1, atol=1e-12)
    np.testing.assert_allclose(ops.Softmax(axis).reference(x + 1000.0), y, atol=1e-6)


def test_large_numbers_do_not_overflow():
    x = np.float32([[1e30, -1e30, 0], [1000, 1000, 999], [-1e38, -1e38, -2e38]])
    for axis in (0, 1):
        check(ops.Softmax(axis), x, bound=1e-6)


@pytest.mark.parametrize("kind", [ops.Softmax, ops.LogSoftmax])
@pytest.mark.parametrize("axis", [0, 1])
def test_nan_and_infinity_as_reference(kind, axis):
    nan, inf = np.nan, np.inf
    x = np.float32(
        [[nan, 1, 2], [inf, 1, 2], [-inf, 1, 2], [-inf] * 3, [inf, inf, 0], [1, 2, 3]]
    )
    x = np.tile(x if axis == 1 else x.T, (1, 7) if axis == 1 else (7, 1))
    check(kind(axis), x, bound=1e-5)


@given(drawn=with_axis(), rng=generators())
def test_hardmax_marks_the_first_largest(drawn, rng):
    shape, axis = drawn
    x = whole(rng, shape) // 4
    y = check(ops.Hardmax(axis), x, exact=True)
    assert (y.sum(axis=axis) == 1).all()
    np.testing.assert_array_equal(y.argmax(axis=axis), x.argmax(axis=axis))


@pytest.mark.parametrize("axis", [0, 1])
def test_hardmax_of_nan_and_infinity(axis):
    nan, inf = np.nan, np.inf
    x = np.float32([[1, nan, 2, nan], [inf, 1, inf, 2], [-inf] * 4, [nan, inf, 1, 2]])
    y = check(ops.Hardmax(axis), x if axis else x.T.copy(), exact=True)
    where = y.argmax(axis=axis)
    np.testing.assert_array_equal(where, [1, 0, 0, 0])


def test_rejects():
    with pytest.raises(
        ShapeError, match="Softmax: axis 2 is outside a tensor of rank 2"
    ):
        ops.Softmax(2).infer(Spec((3, 4)))
    with pytest.raises(ShapeError, match="Hardmax: axis -3 is outside"):
        ops.Hardmax(-3).infer(Spec((3, 4)))
    with pytest.raises(ShapeError, match="LogSoftmax: axis -1 is outside"):
        ops.LogSoftmax().infer(Spec(()))
