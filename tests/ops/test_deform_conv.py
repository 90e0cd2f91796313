"""Deformable convolution: the reference, ONNX's, and what it is without offsets."""

import numpy as np
import onnx
import pytest
from check import FLUSHED, UNIT, check, compare, reference, run
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from strategies import generators, normal, whole
from striate import Graph, GraphError, ShapeError, Spec, kernels, ops


@st.composite
def cases(draw):
    """Draw (op, input shape, kernel shape, shape of offsets less the last axis)."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    size, stride, dilation = draw(pair), draw(pair), draw(pair)
    span = [d * (k - 1) + 1 for k, d in zip(size, dilation, strict=True)]
    ends = st.tuples(st.integers(0, 2), st.integers(0, 2))
    padding = draw(st.sampled_from(["valid", "same"]) | st.tuples(ends, ends))
    groups, offset_groups = draw(st.sampled_from([(1, 1), (1, 2), (3, 1), (2, 3)]))
    wide = draw(st.sampled_from([1, 2, 3, 16, 17])) * groups * offset_groups
    spatial = [draw(st.integers(k, k + 5)) for k in span]
    x = (draw(st.integers(1, 2)), *spatial, wide)
    outputs = draw(st.sampled_from([1, 7, 16, 17])) * groups
    kernel = (*size, wide // groups, outputs)
    op = ops.DeformConv(stride, dilation, padding, groups, offset_groups)
    conv = ops.Conv(stride, dilation, padding, groups)
    return op, x, kernel, conv.infer(Spec(x), Spec(kernel)).shape[:3]


def operands(op, kernel, head, masked, draw):
    """Return offsets and mask, drawn by `draw(shape)`."""
    moved = op.offset_groups * kernel[0] * kernel[1]
    offset = draw((*head, 2 * moved))
    return [offset, draw((*head, moved))] if masked else [offset]


def wire(op, x, w, others, bias):
    """Return the graph of one layer and its feeds."""
    graph, feeds = Graph(), {"x": x, "offset": others[0]}
    names = [graph.input("x", x.shape), graph.input("offset", others[0].shape)]
    if len(others) > 1:
        names.append(graph.input("mask", others[1].shape))
        feeds["mask"] = others[1]
    weights = {"kernel": w} if bias is None else {"kernel": w, "bias": bias}
    graph.output(graph.add(op, *names, name="layer", **weights))
    return graph, feeds


@given(case=cases(), rng=generators(), masked=st.booleans(), biased=st.booleans())
def test_quarters_of_a_pixel_are_exact(case, rng, masked, biased):
    op, shape, kernel, head = case
    others = operands(op, kernel, head, masked, lambda s: whole(rng, s) / 4)
    bias = whole(rng, kernel[-1:]) if biased else None
    check(
        op, whole(rng, shape), *others, kernel=whole(rng, kernel), bias=bias, exact=True
    )


@given(case=cases(), rng=generators(), masked=st.booleans())
def test_matches_reference(case, rng, masked):
    op, shape, kernel, head = case
    x, w = normal(rng, shape), normal(rng, kernel)
    others = operands(op, kernel, head, masked, lambda s: normal(rng, s, 2))
    precise = [a.astype(float) for a in others]
    sizes = op.reference(
        np.abs(x).astype(float), np.abs(w), precise[0], *map(np.abs, precise[1:])
    )
    terms = 4 * int(np.prod(kernel[:-1])) + 9
    bound = 2 * np.sqrt(terms) * UNIT * sizes + FLUSHED
    check(op, x, *others, kernel=w, bound=bound)


@given(case=cases(), rng=generators())
def test_without_offsets_it_is_convolution(case, rng):
    op, shape, kernel, head = case
    x, w = whole(rng, shape), whole(rng, kernel)
    others = operands(op, kernel, head, True, lambda s: np.zeros(s, np.float32))
    conv = ops.Conv(op.stride, op.dilation, op.padding, op.groups)
    wanted = check(conv, x, kernel=w, exact=True)
    y = check(op, x, others[0], kernel=w, exact=True)
    np.testing.assert_array_equal(y, wanted)
    y = check(op, x, others[0], others[1] + 1, kernel=w, exact=True)
    np.testing.assert_array_equal(y, wanted)


@given(rng=generators(), shift=st.tuples(st.integers(-3, 3), st.integers(-3, 3)))
def test_equal_offsets_shift_the_image(rng, shift):
    x, w = np.zeros((1, 16, 16, 3), np.float32), whole(rng, (3, 3, 3, 4))
    x[:, 5:10, 5:10] = whole(rng, (1, 5, 5, 3))
    offset = np.tile(np.array(shift, np.float32), (1, 16, 16, 9))
    op = ops.DeformConv(padding="same")
    y = check(op, x, offset, kernel=w, exact=True)
    moved = np.roll(x, [-s for s in shift], axis=(1, 2))
    plain = check(ops.Conv(padding="same"), moved, kernel=w, exact=True)
    np.testing.assert_array_equal(y, plain)


ONNX_CASES = [
    (ops.DeformConv(), (1, 4, 5, 1), (2, 3, 1, 1)),
    (ops.DeformConv((2, 1), 1, ((1, 0), (2, 1)), 2), (2, 4, 3, 2), (3, 2, 1, 4)),
    (ops.DeformConv(1, (1, 2), "same", 1, 2), (1, 3, 4, 4), (2, 2, 4, 2)),
    (ops.DeformConv(1, 1, 1, 2, 3), (1, 3, 3, 6), (2, 2, 3, 2)),
]


@pytest.mark.parametrize(("op", "shape", "kernel"), ONNX_CASES)
@pytest.mark.parametrize("masked", [False, True])
def test_it_is_onnx(op, shape, kernel, masked):
    """Few and small: its reference is a loop over everything."""
    rng = np.random.default_rng(9)
    conv = ops.Conv(op.stride, op.dilation, op.padding, op.groups)
    window = conv.window(Spec(shape), Spec(kernel))
    head = conv.infer(Spec(shape), Spec(kernel)).shape[:3]
    (top, bottom), (left, right) = window.padding
    x, w, bias = whole(rng, shape), whole(rng, kernel), whole(rng, kernel[-1:])
    others = operands(op, kernel, head, masked, lambda s: whole(rng, s) / 4)
    names = ["x", "w", "offset", "b"] + ["mask"] * masked
    node = onnx.helper.make_node(
        "DeformConv",
        names,
        ["y"],
        kernel_shape=kernel[:2],
        strides=window.stride,
        dilations=window.dilation,
        pads=[top, left, bottom, right],
        group=op.groups,
        offset_group=op.offset_groups,
    )
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [value(name, onnx.TensorProto.FLOAT, None) for name in names],
        [value("y", onnx.TensorProto.FLOAT, None)],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 19)]
    )
    feeds = {
        "x": np.moveaxis(x, -1, 1),
        "w": w.transpose(3, 2, 0, 1),
        "b": bias,
        "offset": np.moveaxis(others[0], -1, 1),
    }
    if masked:
        feeds["mask"] = np.moveaxis(others[1], -1, 1)
    (theirs,) = ReferenceEvaluator(model).run(None, feeds)
    ours = op.reference(x, w, others[0], others[1] if masked else None, bias)
    np.testing.assert_allclose(np.moveaxis(theirs, 1, -1), ours, atol=1e-4)


def test_a_worked_example():
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    w = np.ones((1, 1, 1, 1), np.float32)
    offset = np.zeros((1, 4, 4, 2), np.float32)
    offset[0, 1, 1] = (0.5, 0.25)
    offset[0, 3, 3] = (0, 0.5)
    offset[0, 0, 0] = (-1, 0)
    offset[0, 0, 1] = (1e30, 0)
    offset[0, 0, 2] = np.nan
    y = check(ops.DeformConv(), x, offset, kernel=w, exact=True)[0, ..., 0]
    assert y[1, 1] == 5 + 2 + 0.25
    assert y[3, 3] == 7.5
    np.testing.assert_array_equal(y[0], [0, 0, 0, 3])


def test_large_images_are_done_in_pieces():
    rng = np.random.default_rng(0)
    x, w = normal(rng, (2, 90, 70, 40)), normal(rng, (3, 3, 40, 24))
    offset = normal(rng, (2, 90, 70, 18))
    op = ops.DeformConv(padding="same")
    sizes = op.reference(np.abs(x).astype(float), np.abs(w), offset.astype(float))
    check(op, x, offset, kernel=w, bound=2 * np.sqrt(4 * 360 + 9) * UNIT * sizes)


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize("act", [ops.Relu(), ops.Sigmoid()])
def test_epilogues(isa, act):
    rng = np.random.default_rng(8)
    op = ops.DeformConv(padding="same", groups=3, offset_groups=3)
    x, w = normal(rng, (2, 6, 5, 9)), normal(rng, (3, 3, 3, 21), 0.2)
    others = operands(op, w.shape, (2, 6, 5), True, lambda s: normal(rng, s))
    graph, feeds = wire(op, x, w, others, normal(rng, (21,)))
    graph.outputs.clear()
    graph.output(graph.add(act, "layer"))
    (alone,) = run(graph, feeds, isa, 1)
    compare(alone, reference(graph, feeds)[0], 1e-5, str(act))
    np.testing.assert_array_equal(run(graph, feeds, isa, 2)[0], alone)


@pytest.mark.parametrize(
    ("x", "kernel", "offset", "mask", "bias"),
    [
        ((1, 5, 3), (3, 3, 1), (1, 3, 18), None, None),
        ((1, 5, 5, 3), (3, 3, 2, 4), (1, 3, 3, 18), None, None),
        ((1, 5, 5, 3), (3, 3, 3, 4), (1, 3, 3, 9), None, None),
        ((1, 5, 5, 3), (3, 3, 3, 4), (1, 5, 5, 18), None, None),
        ((1, 5, 5, 3), (3, 3, 3, 4), (1, 3, 3, 18), (1, 3, 3, 18), None),
        ((1, 5, 5, 3), (3, 3, 3, 4), (1, 3, 3, 18), None, (3,)),
        ((1, 2, 2, 3), (3, 3, 3, 4), (1, 3, 3, 18), None, None),
    ],
)
def test_shapes_that_do_not_fit(x, kernel, offset, mask, bias):
    with pytest.raises(ShapeError):
        ops.DeformConv().infer(
            Spec(x),
            Spec(kernel),
            Spec(offset),
            mask and Spec(mask),
            bias and Spec(bias),
        )


@pytest.mark.parametrize(
    "fields", [{"stride": 0}, {"padding": "full"}, {"groups": 0}, {"offset_groups": 0}]
)
def test_attributes_that_make_no_sense(fields):
    with pytest.raises(ValueError, match="wanted"):
        ops.DeformConv(**fields)
    plain = ops.DeformConv().attributes()
    with pytest.raises(GraphError):
        ops.DeformConv.from_attributes({**plain, **fields})
