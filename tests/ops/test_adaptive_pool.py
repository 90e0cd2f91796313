"""Adaptive and fractional pooling against their references, PyTorch and plain pools."""

import numpy as np
import pytest
import torch
from check import check
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators, images, normal, whole
from striate import GraphError, ShapeError, Spec, ops

KINDS = [ops.AdaptiveAveragePool, ops.AdaptiveMaxPool]


@st.composite
def cases(draw):
    """Draw (output size, input shape); outputs may be larger than inputs."""
    shape = draw(images())
    size = draw(st.tuples(*[st.integers(1, 7)] * (len(shape) - 2)))
    return size, shape


@pytest.mark.parametrize("kind", KINDS)
@given(case=cases(), rng=generators())
def test_it_matches_reference_and_pytorch(kind, case, rng):
    size, shape = case
    x = normal(rng, shape)
    if kind is ops.AdaptiveMaxPool:
        y = check(kind(size), x, exact=True)
        name = "adaptive_max_pool"
    else:
        boxes = kind(size).boxes(shape[1:-1])
        terms = int(np.prod([max(n for _, n in axis) for axis in boxes])) + 1
        y = check(kind(size), x, terms=terms)
        name = "adaptive_avg_pool"
    pool = getattr(torch.nn.functional, f"{name}{len(size)}d")
    theirs = pool(torch.from_numpy(np.moveaxis(x.astype(np.float64), -1, 1)), size)
    np.testing.assert_allclose(np.moveaxis(theirs.numpy(), 1, -1), y, rtol=1e-12)


@given(
    rng=generators(),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    factor=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_sizes_that_divide_make_a_plain_pool(rng, size, factor):
    spatial = [n * f for n, f in zip(size, factor, strict=True)]
    x = whole(rng, (2, *spatial, 9))
    for adaptive, plain in zip(KINDS, (ops.AveragePool, ops.MaxPool), strict=True):
        y = check(adaptive(size), x, terms=10)
        np.testing.assert_array_equal(y, check(plain(factor, factor), x, terms=10))


@given(rng=generators(), shape=images())
def test_one_box_is_the_whole_image(rng, shape):
    x = normal(rng, shape)
    y = check(ops.AdaptiveMaxPool(1), x, exact=True)
    np.testing.assert_array_equal(y, check(ops.GlobalMaxPool(True), x, exact=True))


def test_a_worked_example():
    x = np.arange(5, dtype=np.float32).reshape(1, 5, 1)
    y = check(ops.AdaptiveAveragePool(3), x, exact=True)
    np.testing.assert_array_equal(y.ravel(), [0.5, 2, 3.5])
    y = check(ops.AdaptiveMaxPool(3), x, exact=True)
    np.testing.assert_array_equal(y.ravel(), [1, 3, 4])
    assert ops.AdaptiveMaxPool(3).boxes((5,)) == [[(0, 2), (1, 3), (3, 2)]]


def test_not_a_number_wins():
    x = np.zeros((1, 4, 4, 20), np.float32)
    x[0, 1, 1, 3] = np.nan
    for kind in KINDS:
        assert np.isnan(check(kind(2), x, exact=True)).sum() == 1
    assert np.isnan(
        check(ops.FractionalMaxPool(((0, 2, 4), (0, 1, 4))), x, exact=True)[0, 0, 1, 3]
    )


def test_sizes_that_make_no_sense():
    with pytest.raises(ValueError, match="wanted"):
        ops.AdaptiveAveragePool((2, 0))
    with pytest.raises(ShapeError, match="output_size has 2"):
        ops.AdaptiveAveragePool((2, 2)).infer(Spec((1, 4, 3)))
    with pytest.raises(ShapeError, match="non-empty"):
        ops.AdaptiveMaxPool(2).infer(Spec((4, 3)))


@st.composite
def boundaries(draw):
    """Draw (boundaries, input shape)."""
    shape = draw(images())
    shape = (shape[0], *(n + 1 for n in shape[1:-1]), shape[-1])
    axes = []
    for n in shape[1:-1]:
        inner = draw(st.sets(st.integers(0, n), min_size=2))
        axes.append(tuple(sorted(inner)))
    return tuple(axes), shape


@given(case=boundaries(), rng=generators(), overlapping=st.booleans())
def test_fractional_is_exact(case, rng, overlapping):
    axes, shape = case
    x = normal(rng, shape)
    y = check(ops.FractionalMaxPool(axes, overlapping), x, exact=True)
    first = tuple(slice(a[0], min(a[1] + overlapping, a[-1])) for a in axes)
    box = x[(slice(None), *first)].reshape(shape[0], -1, shape[-1])
    np.testing.assert_array_equal(y.reshape(shape[0], -1, shape[-1])[:, 0], box.max(1))


def test_fractional_with_even_steps_is_plain_pooling():
    x = whole(np.random.default_rng(3), (1, 6, 9, 5))
    y = check(ops.FractionalMaxPool(((0, 2, 4, 6), (0, 3, 6, 9))), x, exact=True)
    plain = check(ops.MaxPool((2, 3), (2, 3)), x, exact=True)
    np.testing.assert_array_equal(y, plain)
    y = check(ops.FractionalMaxPool((range(7), range(10)), True), x, exact=True)
    y = y[:, :-1, :-1]
    np.testing.assert_array_equal(y, check(ops.MaxPool(2), x, exact=True))


@pytest.mark.parametrize("axes", [((0,),), ((0, 2, 2),), ((3, 1),), ((-1, 2),)])
def test_boundaries_that_make_no_sense(axes):
    with pytest.raises(ValueError, match="wanted"):
        ops.FractionalMaxPool(axes)
    with pytest.raises(GraphError):
        ops.FractionalMaxPool.from_attributes(
            {"boundaries": [list(axis) for axis in axes], "overlapping": False}
        )


def test_boundaries_that_do_not_fit():
    op = ops.FractionalMaxPool(((0, 2, 5), (0, 5)))
    with pytest.raises(ShapeError, match="do not fit"):
        op.infer(Spec((1, 4, 5, 3)))
    with pytest.raises(ShapeError, match="do not fit"):
        op.infer(Spec((1, 5, 3)))
    assert ops.FractionalMaxPool.from_attributes(op.attributes()) == op
