"""Averages over axes."""

import itertools

import numpy as np
import pytest
from check import check
from hypothesis import given
from hypothesis import strategies as st
from strategies import WIDTHS, generators, normal, shapes, whole
from striate import ShapeError, Spec, ops


@st.composite
def with_axes(draw):
    """Draw a shape and some of its axes."""
    shape = draw(shapes())
    axes = draw(st.sets(st.integers(0, len(shape) - 1)))
    return shape, tuple(a - draw(st.sampled_from([0, len(shape)])) for a in axes)


@pytest.mark.parametrize("keepdims", [True, False])
@given(drawn=with_axes(), rng=generators())
def test_matches_reference(keepdims, drawn, rng):
    shape, axes = drawn
    terms = np.prod([shape[a] for a in axes], dtype=int)
    check(ops.Mean(axes, keepdims), normal(rng, shape), terms=terms + 1)


@pytest.mark.parametrize(
    "axes", [a for k in range(1, 4) for a in itertools.combinations(range(3), k)]
)
@pytest.mark.parametrize("n", WIDTHS)
def test_whole_numbers_are_exact(axes, n):
    rng = np.random.default_rng(n)
    shape = [4, 2, n]
    if 2 in axes:
        shape[2] = 2 ** (n - 1).bit_length()
        x = whole(rng, (*shape[:2], n))
        x = np.concatenate([x, np.zeros((4, 2, shape[2] - n), np.float32)], axis=2)
    else:
        x = whole(rng, shape)
    check(ops.Mean(axes), x, exact=True)


@pytest.mark.parametrize("n", [63, 64, 65, 130, 1000])
def test_wide_tensors(n):
    rng = np.random.default_rng(n)
    check(ops.Mean((0,)), normal(rng, (5, n)), terms=5)
    check(ops.Mean((1,)), normal(rng, (5, n)), terms=n)
    check(ops.Mean((0, 2)), normal(rng, (3, 5, n)), terms=3 * n)


def test_nan_stays_in_its_lane():
    x = np.ones((4, 33), np.float32)
    x[2, 17] = np.nan
    assert np.isnan(check(ops.Mean((0,)), x, exact=True)).sum() == 1


def test_rejects():
    with pytest.raises(ShapeError, match="Mean: axis 3 is outside"):
        ops.Mean((3,)).infer(Spec((2, 3)))
    with pytest.raises(ShapeError, match="repeat one"):
        ops.Mean((1, -1)).infer(Spec((2, 3)))
    with pytest.raises(ValueError, match="whole numbers"):
        ops.Mean((1.5,))
