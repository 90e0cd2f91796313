"""Local response normalisation."""

import numpy as np
import onnx
import pytest
import torch
from check import check
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator
from strategies import WIDTHS, generators, images, normal
from striate import DTypeError, ShapeError, Spec, ops

UNIT = 2.0**-24


def bound(op, x):
    """Return how far off: n squares' sum, the power, whose logarithm loses its size."""
    y = np.abs(op.reference(x.astype(np.float64)))
    n = min(op.size, max(x.shape)) ** (1 if op.across else x.ndim - 2)
    nothing = ops.LRN(op.size, op.alpha, -1.0, op.bias, op.across)
    s = nothing.reference(np.abs(x.astype(np.float64)) + 1e-30) / (np.abs(x) + 1e-30)
    logarithm = np.abs(np.log(s)) * op.beta
    return ((n + 5) * op.beta + 3 * logarithm + 6) * UNIT * y + 2.0**-119


@given(
    shape=images(),
    size=st.integers(1, 9),
    across=st.booleans(),
    beta=st.sampled_from([0.75, 0.5, 1.0, 0.6, 2.0]),
    bias=st.sampled_from([1.0, 2.0, 0.1]),
    rng=generators(),
)
def test_matches_reference(shape, size, across, beta, bias, rng):
    x = normal(rng, shape, 3)
    op = ops.LRN(size, 0.3, beta, bias, across)
    check(op, x, bound=bound(op, x))


@pytest.mark.parametrize("size", [1, 2, 5, 40, 100])
@pytest.mark.parametrize("channels", WIDTHS)
def test_windows_larger_than_the_tensor(channels, size):
    x = normal(np.random.default_rng(size), (1, 3, 4, channels))
    for across in (True, False):
        op = ops.LRN(size, 0.5, across=across)
        check(op, x, bound=bound(op, x))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_across_is_that_of_onnx(size):
    # The reference evaluator loops over channels as if there were one a picture.
    x = normal(np.random.default_rng(size), (7, 7, 3, 2)).astype(np.float64)
    node = helper.make_node(
        "LRN", ["x"], ["y"], size=size, alpha=0.5, beta=0.5, bias=2.0
    )
    double = onnx.TensorProto.DOUBLE
    graph = helper.make_graph(
        [node],
        "lrn",
        [helper.make_tensor_value_info("x", double, None)],
        [helper.make_tensor_value_info("y", double, None)],
    )
    opset = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    (want,) = ReferenceEvaluator(model).run(None, {"x": x})
    got = ops.LRN(size, 0.5, 0.5, 2.0).reference(np.moveaxis(x, 1, -1))
    np.testing.assert_allclose(np.moveaxis(got, -1, 1), want, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_across_is_that_of_torch_for_odd_sizes(size):
    x = np.random.default_rng(size).standard_normal((2, 4, 3, 7))
    first = torch.from_numpy(np.moveaxis(x, -1, 1))
    want = torch.nn.functional.local_response_norm(first, size, 0.3, 0.75, 1.5)
    got = ops.LRN(size, 0.3, 0.75, 1.5).reference(x)
    np.testing.assert_allclose(np.moveaxis(got, -1, 1), want.numpy(), rtol=1e-12)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_within_is_an_average_of_squares(size):
    x = np.random.default_rng(size).standard_normal((2, 6, 5, 3))
    pool = ops.AveragePool((size,), padding=((size // 2,) * 2,), count_include_pad=True)
    want = x / (1 + 0.3 * pool.reference(x**2)) ** 0.75
    got = ops.LRN(size, 0.3, across=False).reference(x)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_known_values():
    x = np.float32([1, 2, 3, 4]).reshape(1, 1, 4)
    y = check(ops.LRN(2, 2.0, 1.0, 0.0), x, ulps=1)
    np.testing.assert_allclose(y.ravel(), [1 / 5, 2 / 13, 3 / 25, 4 / 16])
    y = check(ops.LRN(3, 3.0, 1.0, 0.0), x, ulps=1)
    np.testing.assert_allclose(y.ravel(), [1 / 5, 2 / 14, 3 / 29, 4 / 25])
    rows = x.reshape(1, 2, 2, 1)
    y = check(ops.LRN(3, 9.0, 1.0, 0.0, across=False), rows, ulps=1)
    np.testing.assert_allclose(y.ravel(), np.array([1, 2, 3, 4]) / 30)


def test_nan_spreads_over_its_windows():
    x = np.ones((2, 3, 33), np.float32)
    x[1, 1, 17] = np.nan
    assert np.isnan(check(ops.LRN(5, 0.0), x, exact=True)).sum() == 5
    assert np.isnan(check(ops.LRN(3, 0.0, across=False), x, exact=True)).sum() == 3


def test_rejects():
    with pytest.raises(ValueError, match="size 0"):
        ops.LRN(0)
    with pytest.raises(ValueError, match="beta nan"):
        ops.LRN(5, beta=np.nan)
    with pytest.raises(ShapeError, match=r"LRN wants .*, found \(2, 3\)"):
        ops.LRN(5).infer(Spec((2, 3)))
    with pytest.raises(DTypeError, match="LRN: found int8"):
        ops.LRN(5).infer(Spec((1, 2, 3), "int8"))


def test_window():
    x = Spec((1, 8, 8, 3))
    assert ops.LRN(5).window(x).kernel == (1, 1)
    within = ops.LRN(4, across=False).window(x)
    assert within.kernel == (4, 4)
    assert within.padding == ((1, 2), (1, 2))
