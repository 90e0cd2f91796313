"""Transposed convolution: its phases against the reference, PyTorch and its adjoint."""

import numpy as np
import pytest
import torch
from check import check, compare, reference, run
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import generators, normal, whole
from striate import Graph, GraphError, Model, ShapeError, Spec, kernels, ops

CHANNELS = st.sampled_from([1, 2, 3, 7, 8, 9, 16, 17, 33])


@st.composite
def cases(draw, spatial=(1, 3)):
    """Draw (op, input shape, kernel shape), of one to three spatial axes."""
    rank = draw(st.integers(*spatial))
    most = {1: 6, 2: 4, 3: 3}[rank]
    per_axis = st.tuples(*[st.integers(1, most)] * rank)
    kernel, stride = draw(per_axis), draw(per_axis)
    dilation = draw(st.tuples(*[st.integers(1, 3)] * rank))
    padding = draw(
        st.sampled_from(["valid", "same", "same_lower"])
        | st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * rank)
    )
    added = draw(st.tuples(*[st.integers(0, 2)] * rank))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inner, outer = draw(CHANNELS), draw(CHANNELS)
    op = ops.ConvTranspose(stride, dilation, padding, added, groups)
    size = draw(st.tuples(*[st.integers(1, 7)] * rank))
    x = (draw(st.integers(1, 2)), *size, inner * groups)
    weights = (*kernel, outer, inner * groups)
    assume(min(n for *_, n in op._axes(Spec(x), Spec(weights))) > 0)
    return op, x, weights


@given(case=cases(), rng=generators(), biased=st.booleans())
def test_whole_numbers_are_exact(case, rng, biased):
    op, shape, kernel = case
    bias = whole(rng, (kernel[-2] * op.groups,)) if biased else None
    check(op, whole(rng, shape), kernel=whole(rng, kernel), bias=bias, exact=True)


@given(case=cases((2, 2)), rng=generators())
def test_matches_reference(case, rng):
    op, shape, kernel = case
    terms = int(np.prod(kernel[:-2])) * kernel[-1] // op.groups + 1
    check(
        op,
        normal(rng, shape),
        kernel=normal(rng, kernel),
        bias=normal(rng, (kernel[-2] * op.groups,)),
        terms=terms,
    )


@given(
    rng=generators(),
    channels=st.sampled_from([1, 3, 8, 15, 16, 17, 33]),
    size=st.tuples(st.integers(1, 8), st.integers(1, 12)),
    kernel=st.sampled_from([(1, 1), (2, 2), (4, 4), (3, 2), (1, 5)]),
    stride=st.sampled_from([1, 2, (1, 3)]),
)
def test_depthwise_is_exact_on_whole_numbers(rng, channels, size, kernel, stride):
    op = ops.ConvTranspose(stride, padding="same", groups=channels)
    x, w = whole(rng, (2, *size, channels)), whole(rng, (*kernel, 1, channels))
    check(op, x, kernel=w, bias=whole(rng, (channels,)), exact=True)


@given(
    rng=generators(),
    groups=st.integers(2, 9),
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 9),
    size=st.tuples(st.integers(1, 8), st.integers(1, 12)),
    kernel=st.sampled_from([(2, 2), (4, 4), (3, 6)]),
    stride=st.sampled_from([1, 2, (1, 3)]),
)
def test_groups_that_share_a_vector_are_exact_on_whole_numbers(
    rng, groups, inputs, outputs, size, kernel, stride
):
    op = ops.ConvTranspose(stride, padding="same", groups=groups)
    x = whole(rng, (2, *size, inputs * groups))
    w = whole(rng, (*kernel, outputs, inputs * groups))
    check(op, x, kernel=w, bias=whole(rng, (outputs * groups,)), exact=True)


def test_places_without_a_tap_in_an_input_that_no_cache_holds(monkeypatch):
    """Nothing is read ahead where nothing is read."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr(kernels, "LEVEL2_BYTES", 1 << 10)
    x, w = whole(rng, (1, 9, 40, 5)), whole(rng, (1, 1, 20, 5))
    check(ops.ConvTranspose(3), x, kernel=w, bias=whole(rng, (20,)), exact=True)


@given(case=cases(), rng=generators())
def test_it_is_pytorch(case, rng):
    op, shape, kernel = case
    rank = len(shape) - 2
    pads = op.padding if isinstance(op.padding, tuple) else ((0, 0),) * rank
    before = [min(pair) for pair in pads]
    op = ops.ConvTranspose(
        op.stride, op.dilation, [(b, b) for b in before], (0,), op.groups
    )
    assume(min(n for *_, n in op._axes(Spec(shape), Spec(kernel))) > 0)
    x, w = whole(rng, shape), whole(rng, kernel)
    inner = kernel[-1] // op.groups
    theirs = getattr(torch.nn.functional, f"conv_transpose{rank}d")(
        torch.from_numpy(np.moveaxis(x, -1, 1).copy()),
        torch.from_numpy(np.moveaxis(w, (-1, -2), (0, 1)).copy()),
        stride=op.stride,
        padding=before,
        dilation=op.dilation,
        groups=op.groups,
    )
    assert inner * op.groups == shape[-1]
    ours = op.reference(x, w)
    np.testing.assert_array_equal(np.moveaxis(theirs.numpy(), 1, -1), ours)


@given(case=cases(), rng=generators())
def test_it_is_the_adjoint_of_convolution(case, rng):
    """With A the convolution of the same kernel, <A z, x> = <z, A' x>."""
    op, shape, kernel = case
    added = op._axes(Spec(shape), Spec(kernel))
    y = op.infer(Spec(shape), Spec(kernel))
    pairs = [
        (before, (n - 1) * s + d * (k - 1) + 1 - before - size)
        for (s, d, before, size), n, k in zip(
            added, shape[1:-1], kernel[:-2], strict=True
        )
    ]
    assume(min(after for _, after in pairs) >= 0)
    x, z, w = whole(rng, shape), whole(rng, y.shape), whole(rng, kernel)
    forward = ops.Conv(op.stride, op.dilation, tuple(pairs), op.groups)
    image = check(forward, z, kernel=w, exact=True)
    spread = check(op, x, kernel=w, exact=True)
    assert image.shape == shape
    assert np.vdot(image, x) == np.vdot(z, spread)


def test_a_worked_example():
    x = np.array([1, 2, 3], np.float32).reshape(1, 3, 1)
    w = np.array([1, 10, 100], np.float32).reshape(3, 1, 1)
    y = check(ops.ConvTranspose(2), x, kernel=w, exact=True)
    np.testing.assert_array_equal(y.ravel(), [1, 10, 102, 20, 203, 30, 300])
    y = check(ops.ConvTranspose(2, padding="same"), x, kernel=w, exact=True)
    np.testing.assert_array_equal(y.ravel(), [1, 10, 102, 20, 203, 30])
    y = check(ops.ConvTranspose(2, padding="same_lower"), x, kernel=w, exact=True)
    np.testing.assert_array_equal(y.ravel(), [10, 102, 20, 203, 30, 300])
    op = ops.ConvTranspose(2, output_padding=1)
    np.testing.assert_array_equal(check(op, x, kernel=w, exact=True).ravel()[-1], 0)
    y = check(ops.ConvTranspose(4, padding="same"), x, kernel=w, exact=True)
    np.testing.assert_array_equal(
        y.ravel(), [1, 10, 100, 0, 2, 20, 200, 0, 3, 30, 300, 0]
    )


@given(rng=generators(), stride=st.integers(1, 3))
def test_a_kernel_of_ones_repeats_pixels(rng, stride):
    x = whole(rng, (1, 3, 4, 5))
    w = np.ones((stride, stride, 1, 5), np.float32)
    y = check(ops.ConvTranspose(stride, groups=5), x, kernel=w, exact=True)
    np.testing.assert_array_equal(y, x.repeat(stride, 1).repeat(stride, 2))


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize("act", [ops.Relu(), ops.Sigmoid(), ops.HardSwish()])
@pytest.mark.parametrize("groups", [1, 21])
@pytest.mark.parametrize("size", [2, 3])
def test_epilogues(isa, act, groups, size):
    rng = np.random.default_rng(8)
    w = normal(rng, (size, size, 21 // groups, 21), 0.1)
    graph = Graph()
    x = graph.input("x", (2, 5, 6, 21))
    op = ops.ConvTranspose(2, padding="same", groups=groups)
    y = graph.add(op, x, kernel=w, bias=normal(rng, (21,)))
    graph.output(graph.add(act, y))
    feeds = {"x": normal(rng, (2, 5, 6, 21))}
    (alone,) = run(graph, feeds, isa, 1)
    compare(alone, reference(graph, feeds)[0], 1e-5, str(act))
    np.testing.assert_array_equal(run(graph, feeds, isa, 2)[0], alone)
    steps = Model(graph, isa=isa).profile(feeds["x"])
    assert all(step.op != type(act).__name__ for step in steps)


def test_not_a_number_stays_where_it_falls():
    x = np.zeros((1, 4, 4, 3), np.float32)
    x[0, 2, 1, 1] = np.nan
    for size in (2, 3):
        w = np.ones((size, size, 5, 3), np.float32)
        y = check(ops.ConvTranspose(2), x, kernel=w, exact=True)
        assert np.isnan(y).sum() == size * size * 5


def test_packed_weights_are_shared_by_plans():
    rng = np.random.default_rng(1)
    graph = Graph()
    x = graph.input("x", (1, "H", "W", 6))
    op = ops.ConvTranspose(2, padding="same", groups=2)
    w, b = normal(rng, (3, 3, 4, 6)), normal(rng, (8,))
    graph.output(graph.add(op, x, kernel=w, bias=b))
    model = Model(graph)
    model(normal(rng, (1, 4, 4, 6)))
    before = len(model._packed._made)
    model(normal(rng, (1, 5, 7, 6)))
    assert len(model._packed._made) == before


@pytest.mark.parametrize(
    ("op", "x", "kernel"),
    [
        (ops.ConvTranspose(), (1, 5, 5, 3), (3, 3, 4, 2)),
        (ops.ConvTranspose(), (1, 5, 5, 3), (3, 3, 3)),
        (ops.ConvTranspose(groups=2), (1, 5, 5, 3), (3, 3, 2, 3)),
        (ops.ConvTranspose(), (5, 3), (3, 3)),
        (ops.ConvTranspose(padding=3), (1, 2, 2, 3), (3, 3, 4, 3)),
        (ops.ConvTranspose((1, 2, 3)), (1, 5, 5, 3), (3, 3, 4, 3)),
        (ops.ConvTranspose(padding=((1, 1),) * 3), (1, 5, 5, 3), (3, 3, 4, 3)),
    ],
)
def test_shapes_that_do_not_fit(op, x, kernel):
    with pytest.raises(ShapeError):
        op.infer(Spec(x), Spec(kernel))


def test_a_bias_that_does_not_fit():
    with pytest.raises(ShapeError, match=r"bias \(3,\), wanted \(8,\)"):
        ops.ConvTranspose(groups=2).infer(
            Spec((1, 5, 5, 6)), Spec((3, 3, 4, 6)), Spec((3,))
        )


@pytest.mark.parametrize(
    "fields",
    [
        {"stride": 0},
        {"dilation": (1, -1)},
        {"padding": "full"},
        {"output_padding": -1},
        {"groups": 0},
    ],
)
def test_attributes_that_make_no_sense(fields):
    with pytest.raises(ValueError, match="wanted"):
        ops.ConvTranspose(**fields)
    plain = ops.ConvTranspose().attributes()
    with pytest.raises(GraphError):
        ops.ConvTranspose.from_attributes({**plain, **fields})
