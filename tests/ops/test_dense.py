"""Fully connected layers."""

import numpy as np
import pytest
from check import check
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators, normal, shapes, whole
from striate import ShapeError, Spec, ops

OUTPUTS = st.sampled_from([1, 10, 16, 17, 64, 65, 130])


@given(shape=shapes(), outputs=OUTPUTS, rng=generators(), biased=st.booleans())
def test_whole_numbers_are_exact(shape, outputs, rng, biased):
    kernel = whole(rng, (shape[-1], outputs))
    bias = whole(rng, (outputs,)) if biased else None
    check(ops.Dense(), whole(rng, shape), kernel=kernel, bias=bias, exact=True)


@given(shape=shapes(), outputs=OUTPUTS, rng=generators())
def test_matches_reference(shape, outputs, rng):
    kernel, bias = normal(rng, (shape[-1], outputs)), normal(rng, (outputs,))
    check(
        ops.Dense(), normal(rng, shape), kernel=kernel, bias=bias, terms=shape[-1] + 1
    )


@given(rng=generators())
def test_it_is_a_pointwise_convolution(rng):
    x, kernel = whole(rng, (2, 3, 4, 5)), whole(rng, (5, 7))
    dense = check(ops.Dense(), x, kernel=kernel, exact=True)
    conv = check(ops.Conv(), x, kernel=kernel[None, None], exact=True)
    np.testing.assert_array_equal(dense, conv)


@pytest.mark.parametrize(
    ("x", "kernel"), [((2, 3), (4, 5)), ((2, 3), (3,)), ((), (3, 5)), ((0, 3), (3, 5))]
)
def test_refuses(x, kernel):
    with pytest.raises(ShapeError, match="Dense"):
        ops.Dense().infer(Spec(x), Spec(kernel))


def test_refuses_a_bias():
    with pytest.raises(ShapeError, match="wanted"):
        ops.Dense().infer(Spec((1, 3)), Spec((3, 5)), Spec((4,)))
