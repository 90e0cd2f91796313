"""Maxout against its reference, and its convexity."""

import numpy as np
import pytest
from check import check
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators, normal, shapes, whole
from striate import GraphError, ShapeError, Spec, ops


@given(shape=shapes(1, 5), rng=generators(), pieces=st.integers(1, 6))
def test_it_is_exact(shape, rng, pieces):
    x = normal(rng, (*shape[:-1], shape[-1] * pieces))
    check(ops.Maxout(pieces), x, exact=True)


@pytest.mark.parametrize("pieces", [2, 5])
def test_long_rows(pieces):
    x = normal(np.random.default_rng(0), (3, 2500 * pieces))
    check(ops.Maxout(pieces), x, exact=True)


def test_a_worked_example():
    x = np.array([[1, 3, 2, -4, -6, -5]], np.float32)
    np.testing.assert_array_equal(check(ops.Maxout(3), x, exact=True), [[3, -4]])
    np.testing.assert_array_equal(check(ops.Maxout(2), x, exact=True), [[3, 2, -5]])


@pytest.mark.parametrize("pieces", [2, 3, 4, 7])
def test_not_a_number_wins(pieces):
    x = np.zeros((pieces, 20, pieces), np.float32)
    for k in range(pieces):
        x[k, 3, k] = np.nan
        x[k, 5] = -np.inf
    check(ops.Maxout(pieces), x.reshape(pieces, -1), exact=True)


@given(rng=generators(), pieces=st.integers(1, 4), share=st.integers(0, 4))
def test_of_affine_maps_it_is_convex(rng, pieces, share):
    """f(t a + (1 - t) b) <= t f(a) + (1 - t) f(b)."""
    w, c = whole(rng, (5, 3 * pieces)), whole(rng, (3 * pieces,))
    a, b = whole(rng, (2, 5)), whole(rng, (2, 5))
    t = np.float32(share / 4)

    def f(x):
        return check(ops.Maxout(pieces), (x @ w + c).astype(np.float32), exact=True)

    assert (f(t * a + (1 - t) * b) <= t * f(a) + (1 - t) * f(b)).all()


@given(rng=generators())
def test_with_a_piece_of_zeros_it_is_the_rectifier(rng):
    x = whole(rng, (2, 4, 4, 9))
    pairs = np.stack([x, np.zeros_like(x)], axis=-1).reshape(2, 4, 4, 18)
    y = check(ops.Maxout(2), pairs, exact=True)
    np.testing.assert_array_equal(y, check(ops.Relu(), x, exact=True))


def test_refuses():
    with pytest.raises(ShapeError, match=r"\(1, 5\) is no multiple of 2"):
        ops.Maxout(2).infer(Spec((1, 5)))
    with pytest.raises(ValueError, match="pieces"):
        ops.Maxout(0)
    with pytest.raises(GraphError):
        ops.Maxout.from_attributes({"pieces": 2.5})
