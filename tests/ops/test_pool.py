"""Pooling against its reference, and what it leaves unchanged."""

import numpy as np
import pytest
from check import check
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import generators, images, normal, whole
from striate import ShapeError, Spec, ops


@st.composite
def pools(draw, kind):
    """Draw (op, input shape), of one to three spatial axes."""
    rank = draw(st.integers(1, 3))
    per_axis = st.tuples(*[st.integers(1, 3)] * rank)
    kernel, stride, dilation = draw(per_axis), draw(per_axis), draw(per_axis)
    span = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    less = [st.integers(0, k - 1) for k in span]
    pairs = st.tuples(*[st.tuples(n, n) for n in less])
    padding = draw(st.sampled_from(["valid", "same", "same_lower"]) | pairs)
    size = tuple(draw(st.integers(k, k + 7)) for k in span)
    channels = draw(st.sampled_from([1, 2, 3, 5, 7, 8, 16, 17, 33]))
    extra = [draw(st.booleans())] if kind is ops.AveragePool else []
    op = kind(kernel, stride, dilation, padding, draw(st.booleans()), *extra)
    return op, (draw(st.integers(1, 2)), *size, channels)


@given(case=pools(ops.MaxPool), rng=generators())
def test_max_is_exact(case, rng):
    op, shape = case
    check(op, normal(rng, shape), exact=True)


@given(case=pools(ops.AveragePool), rng=generators())
def test_average_matches_reference(case, rng):
    op, shape = case
    check(op, normal(rng, shape), terms=int(np.prod(op.kernel)) + 1)


@pytest.mark.parametrize("width", range(2, 24))
@pytest.mark.parametrize("channels", [2, 3, 6, 16, 21])
def test_rows_of_every_length(width, channels):
    rng = np.random.default_rng(width)
    x = whole(rng, (1, 5, width, channels))
    check(ops.AveragePool(2), x, exact=True)
    check(ops.MaxPool((2, 3), (1, 2), padding=((0, 0), (1, 1))), x, exact=True)


@pytest.mark.parametrize("kind", [ops.GlobalAveragePool, ops.GlobalMaxPool])
@given(shape=images(), rng=generators(), keepdims=st.booleans())
def test_global_pooling(kind, shape, rng, keepdims):
    x = normal(rng, shape)
    if kind is ops.GlobalMaxPool:
        check(kind(keepdims), x, exact=True)
    else:
        check(kind(keepdims), x, terms=int(np.prod(shape[1:-1])) + 1)


def test_a_worked_example():
    x = np.arange(1, 10, dtype=np.float32).reshape(1, 3, 3, 1)
    largest = check(ops.MaxPool(2), x, exact=True)
    np.testing.assert_array_equal(largest[0, ..., 0], [[5, 6], [8, 9]])
    mean = check(ops.AveragePool(2), x, exact=True)
    np.testing.assert_array_equal(mean[0, ..., 0], [[3, 4], [6, 7]])


def test_padding_counts_or_does_not():
    x = np.full((1, 2, 2, 1), 12, np.float32)
    counted = ops.AveragePool(3, padding=1, count_include_pad=True)
    assert check(counted, x, ulps=1)[0, 0, 0, 0] == pytest.approx(48 / 9)
    assert check(ops.AveragePool(3, padding=1), x, exact=True)[0, 0, 0, 0] == 12


def test_ceil_mode_follows_pytorch():
    """A last window may begin inside the input only; it counts up to the padding."""
    x = np.ones((1, 5, 5, 1), np.float32)
    op = ops.AveragePool(3, 3, padding=1, ceil_mode=True, count_include_pad=True)
    y = check(op, x, ulps=1)
    np.testing.assert_allclose(y[0, ..., 0], [[4 / 9, 6 / 9], [6 / 9, 1]], rtol=1e-6)
    assert ops.MaxPool(2, 4, ceil_mode=True).infer(Spec((1, 4, 4, 1))).shape[1] == 1


def test_not_a_number_wins():
    x = np.zeros((1, 4, 4, 20), np.float32)
    x[0, 1, 1, 3], x[0, 2, 2, 18] = np.nan, -np.inf
    check(ops.MaxPool(2), x, exact=True)
    check(ops.GlobalMaxPool(), x, exact=True)
    check(ops.GlobalAveragePool(), x, exact=True)
    late = np.zeros((1, 1, 9, 1), np.float32)
    late[0, 0, 8] = np.nan
    check(ops.GlobalMaxPool(), late, exact=True)


@given(rng=generators())
def test_max_pooling_does_not_see_small_shifts(rng):
    """A value that is the largest of its window may move within the window."""
    x = whole(rng, (1, 8, 8, 3))
    at = rng.integers(0, 2, 2)
    x[0, 2 + at[0], 4 + at[1]] = 100
    moved = x.copy()
    moved[0, 2 + at[0], 4 + at[1]] = -100
    moved[0, 3 - at[0], 5 - at[1]] = 100
    op = ops.MaxPool(2, 2)
    one, other = check(op, x, exact=True), check(op, moved, exact=True)
    np.testing.assert_array_equal(one[0, 1, 2], other[0, 1, 2])


@given(rng=generators(), factor=st.integers(0, 5))
def test_pooling_commutes_with_growing_maps(rng, factor):
    x = whole(rng, (1, 6, 6, 5))
    op = ops.MaxPool(3, 2)
    np.testing.assert_array_equal(
        check(op, factor * x, exact=True), factor * check(op, x, exact=True)
    )


@pytest.mark.parametrize("kind", [ops.MaxPool, ops.AveragePool])
def test_refuses(kind):
    with pytest.raises(ShapeError, match="does not fit"):
        kind(4).infer(Spec((1, 3, 3, 2)))
    with pytest.raises(ShapeError, match="nothing inside"):
        kind(2, padding=2).infer(Spec((1, 8, 8, 2)))
    with pytest.raises(ShapeError, match="non-empty"):
        kind(2).infer(Spec((8, 2)))
    with pytest.raises(ValueError, match="kernel"):
        kind(0)


@given(case=pools(ops.MaxPool))
def test_infer_is_the_shape_of_the_reference(case):
    op, shape = case
    assume(np.prod(shape) < 5000)
    assert op.reference(np.zeros(shape)).shape == op.infer(Spec(shape)).shape
