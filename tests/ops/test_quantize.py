"""Quantised numbers and their products, determinants."""

import numpy as np
import pytest
from check import check
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_in_onnx import onnx_answers
from strategies import WIDTHS, generators, normal, shapes
from striate import DTypeError, ShapeError, Spec, ops

BYTES = ["uint8", "int8"]


def small(rng, shape, dtype):
    """Return numbers of the whole range."""
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("dtype", BYTES)
@settings(max_examples=10)
@given(shape=shapes(), axis=st.integers(0, 3), rng=generators())
def test_quantize(dtype, shape, axis, rng):
    axis %= len(shape)
    x = (rng.integers(-900, 900, shape) / 4).astype("f")
    op = ops.QuantizeLinear(axis - len(shape), dtype)
    scale = 2.0 ** rng.integers(-2, 3, shape[axis])
    zero = small(rng, shape[axis], dtype)
    check(op, x, exact=True, scale=scale, zero_point=zero)
    check(op, x, exact=True, scale=np.float32(0.5))
    y = check(op, x, np.float32([0.5]), zero[:1].copy(), exact=True)
    (wanted,) = onnx_answers("QuantizeLinear", 1, x, np.float32(0.5), zero[0])
    np.testing.assert_array_equal(y, wanted)


def test_ties_go_to_even_and_ends_are_kept():
    x = np.float32([0.5, 1.5, 2.5, -0.5, 300, -300, 1e30, -1e30, np.inf, np.nan])
    y = check(ops.QuantizeLinear(), x, np.float32(1), exact=True)
    assert y.tolist() == [0, 2, 2, 0, 255, 0, 255, 0, 255, 0]
    y = check(ops.QuantizeLinear(), x, np.float32(1), np.uint8(9), exact=True)
    assert y.tolist() == [9, 11, 11, 9, 255, 0, 255, 0, 255, 9]
    y = check(ops.QuantizeLinear(0, "int8"), x, np.float32(1), exact=True)
    assert y.tolist() == [0, 2, 2, 0, 127, -128, 127, -128, 127, 0]


@pytest.mark.parametrize("dtype", [*BYTES, "int32"])
@settings(max_examples=10)
@given(shape=shapes(), axis=st.integers(0, 3), rng=generators())
def test_dequantize(dtype, shape, axis, rng):
    axis %= len(shape)
    x = small(rng, shape, dtype)
    op = ops.DequantizeLinear(axis - len(shape))
    scale = rng.uniform(0.1, 3, shape[axis]).astype("f")
    check(op, x, ulps=1, scale=scale, zero_point=small(rng, shape[axis], dtype))
    check(op, x, ulps=1, scale=np.float32(0.3))


@settings(max_examples=15)
@given(shape=shapes(), rng=generators())
def test_dynamic_range(shape, rng):
    for x in (normal(rng, shape, 4), abs(normal(rng, shape)), -abs(normal(rng, shape))):
        wanted = onnx_answers("DynamicQuantizeLinear", 3, x)
        found = ops.DynamicQuantizeLinear().reference(x)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)
    exact = rng.integers(-100, 156, shape).astype("f")
    exact = np.append(exact, np.float32([-100, 155]))
    y, scale, zero = check(ops.DynamicQuantizeLinear(), exact, exact=True)
    assert (scale, zero) == (1, 100)
    np.testing.assert_array_equal(y, exact + 100)


def test_dynamic_range_of_zeros():
    y, scale, zero = check(
        ops.DynamicQuantizeLinear(), np.zeros((2, 3), np.float32), exact=True
    )
    assert (y.sum(), scale, zero) == (0, 0, 0)


PAIRS = [((3, 5), (5, 4)), ((2, 3, 17), (17, 33)), ((3, 5), (2, 5, 70)),
         ((2, 1, 4, 3), (5, 3, 9))]  # fmt: skip


@pytest.mark.parametrize("right", BYTES)
@pytest.mark.parametrize("left", BYTES)
@pytest.mark.parametrize("pair", PAIRS)
def test_products_of_matrices(left, right, pair):
    rng = np.random.default_rng(1)
    x, y = small(rng, pair[0], left), small(rng, pair[1], right)
    x_zero, y_zero = small(rng, (), left), small(rng, y.shape[-1], right)
    rows = small(rng, x.shape[-2], left)
    op = ops.MatMulInteger()
    check(op, x, y, exact=True)
    check(op, x, y, x_zero, y_zero, exact=True)
    check(op, x, exact=True, y=y, x_zero=rows, y_zero=y_zero)
    check(op, x, y, exact=True, x_zero=rows, y_zero=y_zero[:1].copy())


def test_product_as_onnx():
    rng = np.random.default_rng(2)
    x, y = small(rng, (4, 9), "uint8"), small(rng, (9, 3), "uint8")
    zeros = np.uint8(12), np.uint8(100)
    found = check(ops.MatMulInteger(), x, y, *zeros, exact=True)
    np.testing.assert_array_equal(
        found, onnx_answers("MatMulInteger", 1, x, y, *zeros)[0]
    )


@pytest.mark.parametrize("dtype", BYTES)
def test_quantised_product(dtype):
    rng = np.random.default_rng(3)
    x, y = small(rng, (2, 4, 9), dtype), small(rng, (9, 17), dtype)
    scales = np.float32(0.5), np.float32(0.25), np.float32(8)
    zeros = [small(rng, (), dtype) for _ in range(3)]
    operands = [x, scales[0], zeros[0], y, scales[1], zeros[1], scales[2], zeros[2]]
    check(ops.QLinearMatMul(), *operands, exact=True)
    each = 2.0 ** rng.integers(-3, 2, 17).astype("f")
    names = ("x_scale", "x_zero", "y", "y_scale", "y_zero", "scale", "zero")
    weights = dict(zip(names, operands[1:], strict=True))
    weights |= {"y_scale": each, "y_zero": small(rng, 17, dtype)}
    check(ops.QLinearMatMul(), x, exact=True, **weights)


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("padding", ["valid", "same", ((1, 2), (0, 1))])
def test_convolution(dtype, groups, padding):
    rng = np.random.default_rng(4)
    x = small(rng, (2, 5, 6, 4), dtype)
    kernel = small(rng, (3, 2, 4 // groups, 8), dtype)
    op = ops.ConvInteger((2, 1), (1, 2), padding, groups)
    check(op, x, exact=True, kernel=kernel)
    zeros = {"x_zero": small(rng, (), dtype), "kernel_zero": small(rng, 8, dtype)}
    check(op, x, exact=True, kernel=kernel, **zeros)
    check(op, x, zeros["x_zero"], exact=True, kernel=kernel)


@pytest.mark.parametrize("outputs", [*WIDTHS, 65, 130])
def test_convolution_in_one_and_three_dimensions(outputs):
    rng = np.random.default_rng(outputs)
    x, kernel = small(rng, (1, 9, 3), "uint8"), small(rng, (3, 3, outputs), "int8")
    check(ops.ConvInteger(), x, exact=True, kernel=kernel)
    x, kernel = (
        small(rng, (1, 3, 4, 3, 2), "int8"),
        small(rng, (2, 2, 2, 2, 3), "uint8"),
    )
    check(ops.ConvInteger(padding="same"), x, exact=True, kernel=kernel)


@pytest.mark.parametrize("dtype", BYTES)
def test_quantised_convolution(dtype):
    rng = np.random.default_rng(5)
    x, kernel = small(rng, (2, 5, 6, 4), dtype), small(rng, (3, 3, 4, 7), "int8")
    weights = {
        "kernel": kernel,
        "x_scale": np.float32(0.5),
        "x_zero": small(rng, (), dtype),
        "kernel_scale": 2.0 ** rng.integers(-9, -6, 7).astype("f"),
        "kernel_zero": np.zeros(7, np.int8),
        "scale": np.float32(2),
        "zero": small(rng, (), dtype),
        "bias": rng.integers(-9999, 9999, 7).astype(np.int32),
    }
    op = ops.QLinearConv(padding="same")
    check(op, x, exact=True, **weights)
    del weights["bias"], weights["x_scale"], weights["x_zero"]
    check(op, x, np.float32(0.5), small(rng, (), dtype), exact=True, **weights)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_determinants(n):
    rng = np.random.default_rng(n)
    check(ops.Det(), rng.integers(-3, 4, (2, 5, n, n)).astype("f"), bound=1e-3)
    check(ops.Det(), normal(rng, (n, n)), ulps=20)


def test_determinant_known():
    x = np.float32([[0, 2, 1], [1, 0, 0], [0, 0, 3]])
    assert check(ops.Det(), x, exact=True) == -6
    assert check(ops.Det(), np.zeros((3, 3), np.float32), exact=True) == 0


def test_rejects():
    x = Spec((2, 3), "uint8")
    with pytest.raises(ShapeError, match=r"QuantizeLinear: scale \(2,\) for axis -1"):
        ops.QuantizeLinear().infer(Spec((2, 3)), Spec((2,)))
    with pytest.raises(DTypeError, match="QuantizeLinear's zero point: found int8"):
        ops.QuantizeLinear().infer(Spec((2, 3)), Spec(()), Spec((), "int8"))
    with pytest.raises(DTypeError, match="DequantizeLinear: found int8"):
        ops.DequantizeLinear().infer(x, Spec(()), Spec((), "int8"))
    with pytest.raises(ValueError, match="dtype 'int32'"):
        ops.QuantizeLinear(dtype="int32")
    with pytest.raises(ShapeError, match=r"MatMulInteger: \(2, 3\) and \(2, 3\)"):
        ops.MatMulInteger().infer(x, x)
    with pytest.raises(
        ShapeError, match=r"zero point \(3,\), wanted one number or \(2,\)"
    ):
        ops.MatMulInteger().infer(x, Spec((3, 4), "int8"), Spec((3,), "uint8"))
    with pytest.raises(DTypeError, match="ConvInteger: found float32"):
        ops.ConvInteger().infer(Spec((1, 4, 2)), Spec((1, 2, 3), "int8"))
    with pytest.raises(ShapeError, match="Conv with 1 groups: kernel"):
        ops.ConvInteger().infer(Spec((1, 4, 2), "int8"), Spec((1, 3, 3), "int8"))
    with pytest.raises(ShapeError, match=r"Det wants square matrices, found \(2, 3\)"):
        ops.Det().infer(Spec((2, 3)))
