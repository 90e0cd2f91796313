"""Pooling by p-norms against its reference, ONNX Runtime and PyTorch."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from check import check
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators, images, normal, whole
from striate import GraphError, ShapeError, Spec, ops


@st.composite
def cases(draw):
    """Draw (op, input shape), of one to three spatial axes."""
    rank = draw(st.integers(1, 3))
    per_axis = st.tuples(*[st.integers(1, 3)] * rank)
    kernel, stride, dilation = draw(per_axis), draw(per_axis), draw(per_axis)
    span = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    pairs = st.tuples(*[st.tuples(st.integers(0, k), st.integers(0, k)) for k in span])
    padding = draw(st.sampled_from(["valid", "same", "same_lower"]) | pairs)
    size = tuple(draw(st.integers(k, k + 5)) for k in span)
    channels = draw(st.sampled_from([1, 7, 8, 16, 17, 33]))
    p = draw(st.integers(1, 4))
    op = ops.LpPool(kernel, stride, dilation, padding, draw(st.booleans()), p)
    return op, (draw(st.integers(1, 2)), *size, channels)


@given(case=cases(), rng=generators())
def test_it_matches_reference(case, rng):
    op, shape = case
    check(op, normal(rng, shape), terms=int(np.prod(op.kernel)) + 1)


@given(case=cases(), rng=generators())
def test_the_first_norm_is_exact_on_whole_numbers(case, rng):
    op, shape = case
    op = ops.LpPool(op.kernel, op.stride, op.dilation, op.padding, op.ceil_mode, 1)
    check(op, whole(rng, shape), exact=True)


@given(shape=images(), rng=generators(), p=st.integers(1, 4), keepdims=st.booleans())
def test_global_pooling(shape, rng, p, keepdims):
    terms = int(np.prod(shape[1:-1])) + 1
    check(ops.GlobalLpPool(p, keepdims), normal(rng, shape), terms=terms)


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("padding", ["valid", ((1, 0), (0, 1))])
def test_it_is_onnx_runtime(p, padding):
    x = normal(np.random.default_rng(2), (2, 7, 8, 5))
    op = ops.LpPool((3, 2), (2, 1), 1, padding, p=p)
    pads = [0] * 4 if padding == "valid" else [1, 0, 0, 1]
    node = onnx.helper.make_node(
        "LpPool", ["x"], ["y"], kernel_shape=[3, 2], strides=[2, 1], pads=pads, p=p
    )
    theirs = onnx_answer(node, np.moveaxis(x, -1, 1))
    np.testing.assert_allclose(
        np.moveaxis(theirs, 1, -1), op.reference(x), rtol=1e-5, atol=1e-6
    )
    node = onnx.helper.make_node("GlobalLpPool", ["x"], ["y"], p=p)
    theirs = onnx_answer(node, np.moveaxis(x, -1, 1))[..., 0, 0]
    np.testing.assert_allclose(theirs, ops.GlobalLpPool(p).reference(x), rtol=1e-5)


def onnx_answer(node, x):
    """Return what ONNX Runtime computes for one operator."""
    tensor = onnx.helper.make_tensor_value_info
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node], "g", [tensor("x", kind, x.shape)], [tensor("y", kind, None)]
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": np.ascontiguousarray(x)})[0]


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_it_is_pytorch(ceil_mode):
    x = np.abs(normal(np.random.default_rng(2), (2, 8, 7, 5)))
    op = ops.LpPool(3, 3, p=3)
    theirs = torch.nn.functional.lp_pool2d(
        torch.from_numpy(np.moveaxis(x, -1, 1).copy()), 3.0, 3, 3
    )
    y = op.reference(x)
    np.testing.assert_allclose(np.moveaxis(theirs.numpy(), 1, -1), y, rtol=1e-4)
    longer = ops.LpPool(3, 3, ceil_mode=ceil_mode).infer(Spec(x.shape)).shape
    assert longer == (2, *((3, 3) if ceil_mode else (2, 2)), 5)


def test_a_worked_example():
    x = np.array([3, 4, -12, 0], np.float32).reshape(1, 4, 1)
    y = check(ops.LpPool(2, 2), x, exact=True)
    np.testing.assert_array_equal(y.ravel(), [5, 12])
    assert check(ops.GlobalLpPool(2), x, exact=True).item() == 13
    assert check(ops.GlobalLpPool(1), x, exact=True).item() == 19
    y = check(ops.LpPool(2, padding=1), x, ulps=1)
    assert y.ravel()[0] == 3


def test_not_a_number_and_infinity_pass():
    x = np.zeros((1, 4, 4, 20), np.float32)
    x[0, 1, 1, 3], x[0, 2, 2, 18] = np.nan, -np.inf
    for p in (1, 2, 3):
        check(ops.LpPool(2, p=p), x, exact=True)
        check(ops.GlobalLpPool(p), x, exact=True)


def test_refuses():
    with pytest.raises(ShapeError, match="does not fit"):
        ops.LpPool(4).infer(Spec((1, 3, 3, 2)))
    with pytest.raises(ShapeError, match="non-empty"):
        ops.GlobalLpPool().infer(Spec((8, 2)))


@pytest.mark.parametrize(
    "fields", [{"kernel": 0}, {"p": 0}, {"p": 1.5}, {"padding": "full"}]
)
def test_attributes_that_make_no_sense(fields):
    fields = {"kernel": (2,), **fields}
    with pytest.raises((ValueError, TypeError)):
        ops.LpPool(**fields)
    plain = ops.LpPool(2).attributes()
    with pytest.raises(GraphError):
        ops.LpPool.from_attributes({**plain, **fields})
