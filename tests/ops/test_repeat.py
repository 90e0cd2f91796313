"""Repeating, masking, one-hot vectors, turning sequences round."""

import numpy as np
import pytest
from check import check
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import generators, normal, shapes, whole
from striate import DTypeError, ShapeError, Spec, ops


@settings(max_examples=25)
@given(shape=shapes(), data=st.data(), rng=generators())
def test_tile(shape, data, rng):
    repeats = tuple(data.draw(st.integers(1, 3)) for _ in shape)
    check(ops.Tile(repeats), normal(rng, shape), exact=True)
    check(ops.Tile(repeats), rng.random(shape) < 0.5, exact=True)


def test_tile_of_many_axes():
    x = np.arange(2 * 3 * 2, dtype=np.float32).reshape(2, 1, 3, 1, 2, 1)
    check(ops.Tile((2, 3, 2, 1, 2, 3)), x, exact=True)


@settings(max_examples=25)
@given(shape=shapes(), data=st.data(), rng=generators())
def test_expand(shape, data, rng):
    thin = tuple(data.draw(st.sampled_from([1, n])) for n in shape)
    wanted = tuple(data.draw(st.sampled_from([1, n])) for n in shape)
    op = ops.Expand(wanted)
    for kept in (thin, thin[data.draw(st.integers(0, len(shape) - 1)) :]):
        check(op, normal(rng, kept), exact=True)
        check(op, rng.integers(0, 9, kept), exact=True)


def test_expand_known():
    x = np.float32([[1], [2]])
    assert check(ops.Expand((3,)), x, exact=True).tolist() == [[1] * 3, [2] * 3]
    assert check(ops.Expand((2, 1, 1)), x, exact=True).shape == (2, 2, 1)


@settings(max_examples=20)
@given(shape=shapes(2), upper=st.booleans(), k=st.integers(-5, 5), rng=generators())
def test_trilu(shape, upper, k, rng):
    check(ops.Trilu(upper, k), normal(rng, shape), exact=True)
    for dtype in ("int64", "int8", "bool"):
        check(ops.Trilu(upper, k), rng.integers(0, 9, shape).astype(dtype), exact=True)


@pytest.mark.parametrize("dtype", ["float32", "int64", "int32", "int8", "bool"])
@pytest.mark.parametrize("k", [-2, 0, 1, 9])
def test_eye_like(dtype, k):
    y = check(ops.EyeLike(dtype, k), np.ones((3, 7), np.float32), exact=True)
    np.testing.assert_array_equal(y, np.eye(3, 7, k))


@settings(max_examples=20)
@given(
    shape=shapes(0, 3),
    axis=st.integers(-4, 3),
    depth=st.integers(1, 9),
    rng=generators(),
)
def test_one_hot(shape, axis, depth, rng):
    axis = max(-len(shape) - 1, min(axis, len(shape)))
    indices = rng.integers(-depth - 2, depth + 2, shape)
    y = check(ops.OneHot(depth, axis), indices, exact=True)
    hot = (indices >= -depth) & (indices < depth)
    np.testing.assert_array_equal(y.sum(axis), hot)
    check(ops.OneHot(depth, axis, -1, 3, "int64"), indices.astype("f"), exact=True)


def test_one_hot_known():
    y = check(ops.OneHot(3, 0), np.int64([2, -1, 0, 3]), exact=True)
    assert y.tolist() == [[0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]


@settings(max_examples=25)
@given(shape=shapes(2), data=st.data(), rng=generators())
def test_reverse_sequence(shape, data, rng):
    axes = data.draw(st.permutations(range(len(shape))))
    batch, time = axes[:2]
    lengths = rng.integers(0, shape[time] + 1, shape[batch])
    op = ops.ReverseSequence(batch - len(shape), time)
    check(op, whole(rng, shape), lengths, exact=True)
    check(op, rng.integers(0, 9, shape), exact=True, sequence_lens=lengths)


def test_reverse_sequence_known():
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    y = check(ops.ReverseSequence(0, 1), x, np.int64([3, 1]), exact=True)
    assert y.tolist() == [[2, 1, 0, 3], [4, 5, 6, 7]]


def test_rejects():
    with pytest.raises(ShapeError, match=r"Tile: repeats \(2,\) .* \(2, 3\)"):
        ops.Tile((2,)).infer(Spec((2, 3)))
    with pytest.raises(ValueError, match=r"repeats \(0,\)"):
        ops.Tile((0,))
    with pytest.raises(ShapeError, match=r"Expand: \(2, 3\) does not .* \(4,\)"):
        ops.Expand((4,)).infer(Spec((2, 3)))
    with pytest.raises(ShapeError, match=r"Trilu wants matrices, found \(3,\)"):
        ops.Trilu().infer(Spec((3,)))
    with pytest.raises(ShapeError, match=r"EyeLike wants a matrix, found \(3,\)"):
        ops.EyeLike().infer(Spec((3,)))
    with pytest.raises(ShapeError, match="OneHot: axis 3 is outside"):
        ops.OneHot(3, 3).infer(Spec((2,), "int64"))
    with pytest.raises(DTypeError, match="OneHot: found bool"):
        ops.OneHot(3).infer(Spec((2,), "bool"))
    with pytest.raises(ShapeError, match=r"ReverseSequence: \(3,\) lengths for 2"):
        ops.ReverseSequence(0, 1).infer(Spec((2, 4)), Spec((3,), "int64"))
    with pytest.raises(ShapeError, match="are the same"):
        ops.ReverseSequence(0, -2).infer(Spec((2, 4)), Spec((2,), "int64"))
