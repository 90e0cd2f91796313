"""Comparisons and choices."""

import numpy as np
import pytest
from check import check
from hypothesis import given, settings
from integers import INTEGERS, any_integers, stretching
from strategies import WIDTHS, generators, shapes, whole
from striate import DTypeError, Graph, Model, ShapeError, Spec, ops

DTYPES = ["float32", *INTEGERS, "bool"]

COMPARISONS = [
    ops.Equal(), ops.Greater(), ops.GreaterOrEqual(), ops.Less(), ops.LessOrEqual(),
]  # fmt: skip


@pytest.mark.parametrize("op", COMPARISONS, ids=repr)
@settings(max_examples=8)
@given(pair=stretching(), rng=generators())
def test_floats(op, pair, rng):
    x, y = (whole(rng, shape) / 4 for shape in pair)
    x = np.where(rng.random(x.shape) < 0.1, np.float32(np.nan), x)
    check(op, x, y, exact=True)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("op", COMPARISONS, ids=repr)
@settings(max_examples=8)
@given(pair=stretching(), rng=generators())
def test_whole_numbers(op, dtype, pair, rng):
    check(op, *(any_integers(rng, shape, dtype) for shape in pair), exact=True)


def test_equal_of_truth_values():
    x, y = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    assert check(ops.Equal(), x, y, exact=True).tolist() == [True, False, False, True]


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=6)
@given(pair=stretching(), rng=generators())
def test_where(dtype, pair, rng):
    x, y = (rng.integers(0, 100, shape).astype(dtype) for shape in pair)
    for shape in pair:
        check(ops.Where(), rng.random(shape) < 0.5, x, y, exact=True)


@pytest.mark.parametrize("n", WIDTHS)
def test_where_with_weights(n):
    rng = np.random.default_rng(n)
    x = whole(rng, (3, 2, n))
    check(ops.Where(), x, exact=True, condition=rng.random(n) < 0.5, y=np.float32(-1))


def test_where_passes_on_what_it_does_not_look_at():
    c = np.array([True, False])
    x = np.array([1, np.nan], np.float32)
    assert check(ops.Where(), c, x, np.float32([np.inf, 2]), exact=True).tolist() == [
        1,
        2,
    ]


def test_a_mask_is_made_and_used():
    graph = Graph()
    x = graph.input("x", ("N", 4))
    mask = graph.add(ops.Greater(), x, y=np.float32(0))
    graph.output(graph.add(ops.Where(), mask, x, y=np.float32(-1)), mask)
    results = Model(graph).run({"x": np.float32([[-2, 3, 0, 1]])})
    assert results["where1"].tolist() == [[-1, 3, -1, 1]]
    assert results[mask].dtype == bool


@settings(max_examples=6)
@given(shape=shapes(), rng=generators())
def test_cast_keeps_what_fits(shape, rng):
    x = rng.integers(0, 100, shape)
    for a in DTYPES:
        for b in DTYPES:
            check(ops.Cast(b), x.astype(a), exact=True)


def test_cast_of_what_does_not_fit():
    x = np.float32([-1e30, -128.5, -0.9, 0, 0.9, 127.9, 255.9, 3e9, np.inf, np.nan])
    found = check(ops.Cast("uint8"), x, exact=True).tolist()
    assert found == [0, 0, 0, 0, 0, 127, 255, 255, 255, 0]
    found = check(ops.Cast("int8"), x, exact=True).tolist()
    assert found == [-128, -128, 0, 0, 0, 127, 127, 127, 127, 0]
    found = check(ops.Cast("int32"), x, exact=True).tolist()
    top = 2**31 - 1
    assert found == [-(2**31), -128, 0, 0, 0, 127, 255, top, top, 0]
    found = check(ops.Cast("int64"), x, exact=True).tolist()
    assert found == [-(2**63), -128, 0, 0, 0, 127, 255, 3 * 10**9, 2**63 - 1, 0]
    assert check(ops.Cast("bool"), x, exact=True).sum() == 9
    wide = np.int64([2**40 + 5, -1, 300, 2**24 + 1])
    assert check(ops.Cast("uint8"), wide, exact=True).tolist() == [5, 255, 44, 1]
    assert Model(_cast("int64", "float32"))(wide).tolist()[3] == 2**24


def _cast(a, b):
    graph = Graph()
    graph.output(graph.add(ops.Cast(b), graph.input("x", ("N",), a)))
    return graph


def test_a_cast_to_the_same_type_is_no_work():
    graph = Graph()
    x = graph.add(ops.Neg(), graph.input("x", (1, 5)))
    graph.output(graph.add(ops.Abs(), graph.add(ops.Cast("float32"), x)))
    profile = Model(graph).profile(np.ones((1, 5), np.float32))
    assert "Cast" not in {record.op for record in profile}


def test_rejects():
    with pytest.raises(DTypeError, match=r"Less: found bool"):
        ops.Less().infer(Spec((2,), "bool"), Spec((2,), "bool"))
    with pytest.raises(DTypeError, match=r"Where's condition: found int8 \(2,\)"):
        ops.Where().infer(Spec((2,), "int8"), Spec((2,)), Spec((2,)))
    with pytest.raises(DTypeError, match=r"Where: found int8 \(2,\) beside float32"):
        ops.Where().infer(Spec((2,), "bool"), Spec((2,)), Spec((2,), "int8"))
    with pytest.raises(ShapeError, match=r"Where: \(2,\) and \(3,\) and \(1,\) do not"):
        ops.Where().infer(Spec((2,), "bool"), Spec((3,)), Spec((1,)))
    with pytest.raises(ValueError, match="dtype 'float64'"):
        ops.Cast("float64")
