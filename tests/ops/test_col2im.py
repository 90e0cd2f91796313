"""Adding blocks up: the reference, PyTorch, and the adjoint of taking blocks out."""

import numpy as np
import pytest
import torch
from check import check
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators, normal, whole
from striate import GraphError, ShapeError, Spec, ops


@st.composite
def cases(draw):
    """Draw (op, input shape, channels), of one to three spatial axes."""
    rank = draw(st.integers(1, 3))
    per_axis = st.tuples(*[st.integers(1, 3)] * rank)
    block, stride, dilation = draw(per_axis), draw(per_axis), draw(per_axis)
    span = [d * (k - 1) + 1 for k, d in zip(block, dilation, strict=True)]
    pairs = st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * rank)
    padding = draw(st.sampled_from(["valid", "same", "same_lower"]) | pairs)
    image = tuple(draw(st.integers(k, k + 5)) for k in span)
    channels = draw(st.sampled_from([1, 7, 8, 16, 17, 33]))
    op = ops.Col2Im(image, block, stride, dilation, padding)
    positions = int(np.prod(op._geometry()[1]))
    shape = (draw(st.integers(1, 2)), positions, int(np.prod(block)) * channels)
    return op, shape, channels


def im2col(op, image):
    """Return the blocks of an image by convolving with one-hot kernels."""
    taps, channels = int(np.prod(op.block)), image.shape[-1]
    kernel = np.zeros((*op.block, channels, taps * channels), np.float32)
    for number, tap in enumerate(np.ndindex(op.block)):
        for c in range(channels):
            kernel[(*tap, c, number * channels + c)] = 1
    conv = ops.Conv(op.stride, op.dilation, op.padding)
    blocks = conv.reference(image, kernel)
    return blocks.reshape(image.shape[0], -1, taps * channels)


@given(case=cases(), rng=generators())
def test_it_is_exact_on_whole_numbers(case, rng):
    op, shape, _ = case
    check(op, whole(rng, shape), exact=True)


@given(case=cases(), rng=generators())
def test_it_matches_reference(case, rng):
    op, shape, _ = case
    check(op, normal(rng, shape), terms=int(np.prod(op.block)) + 1)


@given(case=cases(), rng=generators())
def test_it_is_the_adjoint_of_taking_blocks_out(case, rng):
    """<im2col(z), x> = <z, col2im(x)>."""
    op, shape, channels = case
    x, z = whole(rng, shape), whole(rng, (shape[0], *op.image, channels))
    y = check(op, x, exact=True)
    assert np.vdot(im2col(op, z), x) == np.vdot(z, y)


@given(case=cases(), rng=generators())
def test_blocks_side_by_side_give_the_image_back(case, rng):
    op, shape, channels = case
    image = tuple(2 * k for k in op.block)
    op = ops.Col2Im(image, op.block, op.block)
    z = normal(rng, (shape[0], *image, channels))
    np.testing.assert_array_equal(check(op, im2col(op, z), exact=True), z)


@pytest.mark.parametrize(("stride", "dilation", "padding"), [(1, 1, 0), (2, 2, 1)])
def test_it_is_pytorch(stride, dilation, padding):
    rng = np.random.default_rng(6)
    op = ops.Col2Im((9, 8), (3, 2), stride, dilation, padding)
    positions = int(np.prod(op._geometry()[1]))
    x = normal(rng, (2, positions, 6, 5))
    theirs = torch.nn.functional.fold(
        torch.from_numpy(x.transpose(0, 3, 2, 1).reshape(2, 30, positions)),
        (9, 8),
        (3, 2),
        dilation,
        padding,
        stride,
    )
    y = op.reference(x.reshape(2, positions, 30))
    np.testing.assert_allclose(np.moveaxis(theirs.numpy(), 1, -1), y, rtol=1e-5)


def test_a_worked_example():
    x = np.array([[1, 10], [2, 20], [3, 30]], np.float32)[None]
    y = check(ops.Col2Im((4,), (2,)), x, exact=True)
    np.testing.assert_array_equal(y.ravel(), [1, 12, 23, 30])
    y = check(ops.Col2Im((2,), (2,), padding=1), x, exact=True)
    np.testing.assert_array_equal(y.ravel(), [12, 23])


def test_refuses():
    op = ops.Col2Im((4, 4), (2, 2))
    with pytest.raises(ShapeError, match=r"wanted \(N, 9, a multiple of 4\)"):
        op.infer(Spec((1, 8, 4)))
    with pytest.raises(ShapeError, match="wanted"):
        op.infer(Spec((1, 9, 6)))
    with pytest.raises(ShapeError, match="does not fit"):
        ops.Col2Im((2,), (3,)).infer(Spec((1, 1, 3)))
    with pytest.raises(ValueError, match="one to three"):
        ops.Col2Im((1, 2, 3, 4), (1,))
    with pytest.raises(GraphError):
        ops.Col2Im.from_attributes({**op.attributes(), "stride": [0]})
