"""Arithmetic on whole numbers, and remainders."""

import itertools

import numpy as np
import pytest
from check import check
from hypothesis import given, settings
from integers import INTEGERS, any_integers, stretching
from strategies import WIDTHS, generators, normal, shapes, whole
from striate import DTypeError, Graph, Model, Spec, ops

ARITHMETIC = [ops.Add(), ops.Sub(), ops.Mul(), ops.Div(), ops.Maximum(), ops.Minimum()]

BITS = [ops.BitwiseAnd(), ops.BitwiseOr(), ops.BitwiseXor()]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("op", [*ARITHMETIC, *BITS, ops.Mod(), ops.Mod(True)], ids=repr)
@settings(max_examples=6)
@given(pair=stretching(), rng=generators())
def test_matches_reference(op, dtype, pair, rng):
    check(op, *(any_integers(rng, shape, dtype) for shape in pair), exact=True)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("n", WIDTHS)
def test_either_operand_may_be_a_weight(dtype, n):
    rng = np.random.default_rng(n)
    x = any_integers(rng, (3, 2, n), dtype)
    check(ops.Sub(), x, exact=True, y=any_integers(rng, n, dtype))
    check(ops.Sub(), x, exact=True, x=any_integers(rng, (2, 1), dtype))


def test_long_rows_are_cut():
    x = np.arange(3 * 4097).reshape(3, 4097)
    check(ops.Mul(), x, x[:, :1].copy(), exact=True)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_pow(dtype):
    x = np.array([-3, -2, -1, 0, 1, 2, 3, 7]).astype(dtype)
    y = np.array([-2, -1, 0, 1, 2, 3, 40, 63]).astype(dtype)
    z = check(ops.Pow(), x[:, None].copy(), y, exact=True)
    for (i, a), (j, b) in itertools.product(enumerate(x), enumerate(y)):
        exact = int(int(a) ** int(b)) if b >= 0 or a != 0 else 0
        assert z[i, j] == np.array(exact % 2**64, np.uint64).astype(dtype)


def test_division_drops_the_fraction_and_never_traps():
    x = np.int32([7, -7, 7, -7, 5, -(2**31), 0])
    y = np.int32([2, 2, -2, -2, 0, -1, 0])
    assert check(ops.Div(), x, y, exact=True).tolist() == [
        3, -3, -3, 3, 0, -(2**31), 0,
    ]  # fmt: skip
    assert check(ops.Mod(), x, y, exact=True).tolist() == [1, 1, -1, -1, 0, 0, 0]
    assert check(ops.Mod(True), x, y, exact=True).tolist() == [1, -1, 1, -1, 0, 0, 0]


@pytest.mark.parametrize("op", [ops.Mod(), ops.Mod(True)], ids=repr)
@settings(max_examples=8)
@given(pair=stretching(), rng=generators())
def test_remainder_of_floats(op, pair, rng):
    check(op, *(normal(rng, shape, 5) for shape in pair), ulps=0.5)
    check(op, *(whole(rng, shape) for shape in pair), exact=True)


@pytest.mark.parametrize("dtype", INTEGERS)
@settings(max_examples=6)
@given(shape=shapes(), rng=generators())
def test_bits_are_turned(dtype, shape, rng):
    check(ops.BitwiseNot(), any_integers(rng, shape, dtype), exact=True)


TRUTH = [ops.And(), ops.Or(), ops.Xor()]


@pytest.mark.parametrize("op", TRUTH, ids=repr)
@settings(max_examples=8)
@given(pair=stretching(), rng=generators())
def test_logic(op, pair, rng):
    check(op, *(rng.random(shape) < 0.5 for shape in pair), exact=True)


def test_truth_tables():
    x, y = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    tables = [check(op, x, y, exact=True).astype(int).tolist() for op in TRUTH]
    assert tables == [[0, 0, 0, 1], [0, 1, 1, 1], [0, 1, 1, 0]]
    assert check(ops.Not(), x, exact=True).tolist() == [True, True, False, False]


def test_integers_in_a_network():
    graph = Graph()
    x = graph.input("x", ("N", 3), "int64")
    x = graph.add(ops.Mul(), graph.add(ops.Add(), x, y=np.int64([1, 2, 3])), x)
    graph.output(x)
    found = Model(graph)(np.int64([[1, -2, 2**40]]))
    assert found.dtype == np.int64
    assert found.tolist() == [[2, 0, 2**80 % 2**64 + 3 * 2**40]]


def test_rejects():
    with pytest.raises(DTypeError, match=r"Add: found int32 .* beside int64"):
        ops.Add().infer(Spec((2,), "int64"), Spec((2,), "int32"))
    with pytest.raises(DTypeError, match=r"And: found int8 .* wanted one type of bool"):
        ops.And().infer(Spec((2,), "int8"), Spec((2,), "int8"))
    with pytest.raises(DTypeError, match="BitwiseOr: found float32"):
        ops.BitwiseOr().infer(Spec((2,)), Spec((2,)))
    with pytest.raises(ValueError, match="fmod 1"):
        ops.Mod(1)
