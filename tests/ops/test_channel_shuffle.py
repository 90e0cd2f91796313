"""Mixing the groups of a grouped convolution."""

import numpy as np
import pytest
from check import check
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators, images, normal
from striate import ShapeError, Spec, ops


@given(
    shape=images(),
    groups=st.sampled_from([1, 2, 3, 4, 8, 16]),
    rng=generators(),
)
def test_matches_reference(shape, groups, rng):
    shape = (*shape[:-1], shape[-1] * groups)
    check(ops.ChannelShuffle(groups), normal(rng, shape), exact=True)


def test_known_values():
    x = np.arange(6, dtype=np.float32).reshape(1, 1, 6)
    y = check(ops.ChannelShuffle(2), x, exact=True)
    assert y.tolist() == [[[0, 3, 1, 4, 2, 5]]]


@given(shape=images(), groups=st.sampled_from([2, 3, 4]), rng=generators())
def test_shuffling_by_the_other_factor_undoes_it(shape, groups, rng):
    shape = (*shape[:-1], shape[-1] * groups)
    x = normal(rng, shape)
    y = ops.ChannelShuffle(groups).reference(x)
    np.testing.assert_array_equal(
        ops.ChannelShuffle(shape[-1] // groups).reference(y), x
    )


def test_rejects():
    with pytest.raises(ShapeError, match=r"4 groups do not divide .* \(1, 6\)"):
        ops.ChannelShuffle(4).infer(Spec((1, 6)))
    with pytest.raises(ValueError, match="groups"):
        ops.ChannelShuffle(0)
