"""Reductions over axes, places of extremes, running sums."""

import itertools

import numpy as np
import pytest
from check import check
from hypothesis import given, settings
from hypothesis import strategies as st
from integers import any_integers
from strategies import WIDTHS, generators, normal, shapes, whole
from striate import DTypeError, ShapeError, Spec, ops

EXACT = [
    ops.ReduceSum, ops.ReduceMax, ops.ReduceMin, ops.ReduceL1, ops.ReduceSumSquare,
]  # fmt: skip
FLOAT = [ops.ReduceL2, ops.ReduceLogSum, ops.ReduceLogSumExp]
EVERY_AXES = [a for k in range(4) for a in itertools.combinations(range(3), k)]


@st.composite
def with_axes(draw):
    """Draw a shape and some of its axes."""
    shape = draw(shapes())
    axes = draw(st.sets(st.integers(0, len(shape) - 1)))
    return shape, tuple(a - draw(st.sampled_from([0, len(shape)])) for a in axes)


@pytest.mark.parametrize("kind", EXACT)
@settings(max_examples=12)
@given(drawn=with_axes(), keepdims=st.booleans(), rng=generators())
def test_whole_numbers_are_exact(kind, drawn, keepdims, rng):
    shape, axes = drawn
    check(kind(axes, keepdims), whole(rng, shape), exact=True)


@pytest.mark.parametrize("kind", [*EXACT, ops.ReduceProd])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
@settings(max_examples=6)
@given(drawn=with_axes(), rng=generators())
def test_integers(kind, dtype, drawn, rng):
    shape, axes = drawn
    check(kind(axes), any_integers(rng, shape, dtype), exact=True)


@pytest.mark.parametrize("kind", [ops.ReduceMax, ops.ReduceMin])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "bool"])
@settings(max_examples=6)
@given(drawn=with_axes(), rng=generators())
def test_extremes_of_narrow_types(kind, dtype, drawn, rng):
    shape, axes = drawn
    check(kind(axes), rng.integers(0, 2, shape).astype(dtype), exact=True)


@pytest.mark.parametrize("kind", [ops.ReduceSum, ops.ReduceL1, ops.ReduceSumSquare])
@pytest.mark.parametrize("axes", EVERY_AXES)
def test_error_of_sums(kind, axes):
    rng = np.random.default_rng(1)
    x = normal(rng, (5, 6, 130))
    terms = np.prod([x.shape[a] for a in axes], dtype=int)
    check(kind(axes), x, terms=terms + 1)


@pytest.mark.parametrize("n", WIDTHS)
@pytest.mark.parametrize("axes", EVERY_AXES)
def test_products(n, axes):
    rng = np.random.default_rng(n)
    check(ops.ReduceProd(axes), rng.choice([-1.0, 1, 2], (4, 2, n)).astype("f"), ulps=0)
    x = rng.uniform(0.5, 1.5, (4, 2, n)).astype("f")
    check(ops.ReduceProd(axes), x, ulps=8 * n)


@pytest.mark.parametrize("kind", FLOAT)
@pytest.mark.parametrize("axes", EVERY_AXES)
@pytest.mark.parametrize("n", [1, 7, 16, 33, 200])
def test_roots_and_logarithms(kind, axes, n):
    rng = np.random.default_rng(n)
    x = rng.uniform(2, 5, (3, 4, n)).astype("f")
    check(kind(axes, False), x, ulps=8)


def test_logarithm_of_a_sum_of_large_exponentials():
    x = np.float32([[1000, 1000, -1000], [-np.inf, -np.inf, -np.inf], [np.inf, 0, 0]])
    y = check(ops.ReduceLogSumExp((1,), False), x, ulps=2)
    np.testing.assert_allclose(y, [1000 + np.log(2), -np.inf, np.inf])
    check(ops.ReduceLogSumExp((0,)), x.T.copy(), ulps=2)


@pytest.mark.parametrize("kind", [ops.ReduceMax, ops.ReduceMin, ops.ReduceSum])
def test_nan_stays_in_its_lane(kind):
    x = np.ones((5, 33), np.float32)
    x[2, 17] = np.nan
    assert np.isnan(check(kind((0,)), x, exact=True)).sum() == 1
    assert np.isnan(check(kind((1,)), x, exact=True)).sum() == 1


def test_every_reduction_of_negative_numbers():
    x = np.float32([[-3, -1], [-2, -5]])
    assert check(ops.ReduceMax((1,), False), x, exact=True).tolist() == [-1, -2]
    assert check(ops.ReduceMin((0,), False), x, exact=True).tolist() == [-3, -5]
    assert check(ops.ReduceProd((1,), False), x, exact=True).tolist() == [3, 10]
    assert check(ops.ReduceL1((0, 1), False), x, exact=True) == 11
    assert check(ops.ReduceSumSquare((0, 1), False), x, exact=True) == 39
    assert check(ops.ReduceL2((1,), False), -x, ulps=1)[0] == np.sqrt(10)


def test_reference_of_nothing():
    nothing = np.zeros((2, 0, 3), np.float32)
    assert ops.ReduceSum((1,), False).reference(nothing).tolist() == [[0] * 3] * 2
    assert ops.ReduceProd((1,), False).reference(nothing).tolist() == [[1] * 3] * 2
    assert np.isneginf(ops.ReduceMax((1,)).reference(nothing)).all()
    assert np.isneginf(ops.ReduceLogSumExp((1,)).reference(nothing)).all()
    assert ops.ReduceMin((0,)).reference(np.zeros((0,), "uint8")) == 255


@pytest.mark.parametrize("kind", [ops.ArgMax, ops.ArgMin])
@settings(max_examples=10)
@given(
    shape=shapes(),
    axis=st.integers(0, 3),
    keepdims=st.booleans(),
    last=st.booleans(),
    rng=generators(),
)
def test_place_of_an_extreme(kind, shape, axis, keepdims, last, rng):
    op = kind(axis % len(shape) - len(shape), keepdims, last)
    x = rng.integers(-3, 4, shape)
    for dtype in ("float32", "int8", "int32", "int64"):
        check(op, x.astype(dtype), exact=True)
    check(op, (x + 3).astype("uint8"), exact=True)
    x = np.where(rng.random(shape) < 0.1, np.nan, x).astype("f")
    check(op, x, exact=True)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 150])
def test_places_in_wide_tensors(n):
    rng = np.random.default_rng(n)
    check(ops.ArgMax(0), normal(rng, (9, n)), exact=True)
    check(ops.ArgMax(1), normal(rng, (9, n)), exact=True)


@settings(max_examples=10)
@given(
    shape=shapes(),
    axis=st.integers(0, 3),
    largest=st.booleans(),
    data=st.data(),
    rng=generators(),
)
def test_top_k(shape, axis, largest, data, rng):
    axis %= len(shape)
    k = data.draw(st.integers(1, shape[axis]))
    op = ops.TopK(k, axis - len(shape), largest)
    x = rng.integers(0, 9, shape)
    for dtype in ("float32", "int8", "uint8", "int32", "int64"):
        check(op, x.astype(dtype), exact=True)


def test_top_k_of_many():
    rng = np.random.default_rng(2)
    x = normal(rng, (2, 3000, 3))
    x[:, ::7] = 0.25
    x[1, 5, 1] = np.nan
    check(ops.TopK(200, 1), x, exact=True)
    check(ops.TopK(200, 1, False, False), x, exact=True)
    values, places = check(ops.TopK(2), np.float32([3, 5, np.nan, 5]), exact=True)
    assert places.tolist() == [2, 1]
    assert np.isnan(values[0])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
@settings(max_examples=10)
@given(shape=shapes(), axis=st.integers(0, 3), rng=generators())
def test_running_sums(exclusive, reverse, shape, axis, rng):
    op = ops.CumSum(axis % len(shape) - len(shape), exclusive, reverse)
    check(op, whole(rng, shape), exact=True)
    for dtype in ("int32", "int64"):
        check(op, rng.integers(-(2**30), 2**30, shape).astype(dtype), exact=True)


def test_running_sums_are_rounded_once():
    rng = np.random.default_rng(3)
    check(ops.CumSum(0), rng.uniform(0, 1, (500, 70)).astype("f"), ulps=0.51)
    check(ops.CumSum(1), rng.uniform(0, 1, (3, 500)).astype("f"), ulps=0.51)
    x = np.int64([1, 2, 3])
    assert check(ops.CumSum(0, True, True), x, exact=True).tolist() == [5, 3, 0]


def test_rejects():
    with pytest.raises(ShapeError, match="ReduceMax: axis 3 is outside"):
        ops.ReduceMax((3,)).infer(Spec((2, 3)))
    with pytest.raises(ShapeError, match=r"ReduceSum: axes .* repeat one"):
        ops.ReduceSum((1, -1)).infer(Spec((2, 3)))
    with pytest.raises(DTypeError, match=r"ReduceL2: found int32 \(2,\), wanted"):
        ops.ReduceL2((0,)).infer(Spec((2,), "int32"))
    with pytest.raises(ValueError, match="whole numbers"):
        ops.ReduceSum((1.5,))
    with pytest.raises(
        ShapeError, match=r"TopK: k is 4, axis -1 of \(2, 3\) has fewer"
    ):
        ops.TopK(4).infer(Spec((2, 3)))
    with pytest.raises(ValueError, match="k 0"):
        ops.TopK(0)
    with pytest.raises(ShapeError, match="ArgMax: axis 2 is outside"):
        ops.ArgMax(2).infer(Spec((2, 3)))
    with pytest.raises(DTypeError, match="CumSum: found int8"):
        ops.CumSum().infer(Spec((2,), "int8"))
