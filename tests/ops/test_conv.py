"""Convolution: every algorithm against the reference, and the laws it obeys."""

import importlib
import itertools
import math

import numpy as np
import pytest
from check import UNIT, check, compare, plain_sums, reference, run
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import WIDTHS, generators, normal, whole
from striate import Graph, GraphError, Model, ShapeError, Spec, kernels, ops
from striate.algorithms.matrix_product import best_tile, pixels_together
from striate.algorithms.narrow import fits_narrow

ROW_CHOICE = importlib.import_module("striate.algorithms.winograd_row")

CHANNELS = st.sampled_from([1, 2, 3, *WIDTHS, 40, 65])


@st.composite
def convolutions(draw, spatial=(1, 3)):
    """Draw (op, input shape, kernel shape), of one to three spatial axes."""
    rank = draw(st.integers(*spatial))
    per_axis = st.tuples(*[st.integers(1, 3)] * rank)
    kernel, stride, dilation = draw(per_axis), draw(per_axis), draw(per_axis)
    span = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding = draw(
        st.sampled_from(["valid", "same", "same_lower"])
        | st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * rank)
    )
    size = [draw(st.integers(k, k + 9)) for k in span]
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inner, outer = draw(CHANNELS), draw(CHANNELS)
    op = ops.Conv(stride, dilation, padding, groups)
    batch = draw(st.integers(1, 2))
    return (
        op,
        (batch, *size, inner * groups),
        (*kernel, inner, outer * groups),
    )


@given(case=convolutions(), rng=generators(), biased=st.booleans())
def test_whole_numbers_are_exact(case, rng, biased):
    op, shape, kernel = case
    bias = whole(rng, kernel[-1:]) if biased else None
    check(op, whole(rng, shape), kernel=whole(rng, kernel), bias=bias, exact=True)


@given(case=convolutions(), rng=generators())
def test_matches_reference(case, rng):
    op, shape, kernel = case
    terms = int(np.prod(kernel[:-1])) + 1
    check(
        op,
        normal(rng, shape),
        kernel=normal(rng, kernel),
        bias=normal(rng, kernel[-1:]),
        terms=terms,
    )


@given(
    rng=generators(),
    channels=st.sampled_from([1, 3, 8, 15, 16, 17, 33, 48]),
    size=st.tuples(st.integers(1, 12), st.integers(1, 20)),
    kernel=st.sampled_from([(1, 1), (3, 3), (5, 5), (1, 7), (3, 2)]),
    stride=st.sampled_from([1, 2, (1, 2)]),
    dilation=st.sampled_from([1, 2]),
)
def test_depthwise_is_exact_on_whole_numbers(
    rng, channels, size, kernel, stride, dilation
):
    op = ops.Conv(stride, dilation, "same", channels)
    x = whole(rng, (2, *size, channels))
    w = whole(rng, (*kernel, 1, channels))
    check(op, x, kernel=w, bias=whole(rng, (channels,)), exact=True)


@given(
    rng=generators(),
    groups=st.integers(2, 19),
    inputs=st.integers(1, 17),
    outputs=st.integers(1, 17),
    size=st.tuples(st.integers(1, 12), st.integers(1, 20)),
    kernel=st.sampled_from([(1, 1), (3, 3), (5, 5), (1, 7), (3, 2), (2, 3, 3)]),
    stride=st.sampled_from([1, 2, (1, 2)]),
    dilation=st.sampled_from([1, 2]),
)
def test_groups_that_share_a_vector_are_exact_on_whole_numbers(
    rng, groups, inputs, outputs, size, kernel, stride, dilation
):
    if len(kernel) == 3:
        size, stride = (2, *size), 1
    op = ops.Conv(stride, dilation, "same", groups)
    x = whole(rng, (2, *size, inputs * groups))
    w = whole(rng, (*kernel, inputs, outputs * groups))
    check(op, x, kernel=w, bias=whole(rng, (outputs * groups,)), exact=True)


@pytest.mark.parametrize("part", [(2, 2), (4, 4), (8, 8), (16, 16), (3, 5), (5, 2)])
@pytest.mark.parametrize("width", [1, 6, 8, 9, 23])
def test_groups_that_share_a_vector_in_rows_of_every_length(part, width):
    """Three taps of a row meet each permuted input."""
    inputs, outputs = part
    rng = np.random.default_rng(width)
    x, w = (
        whole(rng, (1, 4, width, 7 * inputs)),
        whole(rng, (3, 3, inputs, 7 * outputs)),
    )
    op = ops.Conv(padding="same", groups=7)
    check(op, x, kernel=w, bias=whole(rng, (7 * outputs,)), exact=True)


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize("part", [1, 2, 3, 4, 5, 8, 16])
def test_groups_share_a_vector_and_nothing_else(isa, part):
    """A number that is not finite stays in its group."""
    lanes = {"base": 0, "avx2": 8, "avx512": 16}[isa]
    rng = np.random.default_rng(part)
    x = normal(rng, (1, 5, 6, 7 * part))
    x[..., 3 * part] = np.nan
    graph = Graph()
    kernel = normal(rng, (3, 3, part, 7 * part))
    y = graph.add(ops.Conv(groups=7), graph.input("x", x.shape), kernel=kernel)
    graph.output(y)
    model = Model(graph, isa=isa)
    shared = any("depthwise" in step.algorithm for step in model.profile(x))
    assert shared == (part <= max(1, lanes))
    lost = np.isnan(model(x))
    third = np.arange(7 * part) // part == 3
    np.testing.assert_array_equal(lost, np.broadcast_to(third, lost.shape))


@pytest.mark.parametrize("outputs", [17, 20, 24, 25, 33, 40, 56, 72, 104])
@pytest.mark.parametrize("width", [*range(1, 16), 18, 27, 30])
def test_two_pixels_share_a_last_vector_that_each_needs_by_half(width, outputs):
    """Tiles of every even size, after whole blocks or alone, with a residual."""
    rng = np.random.default_rng(width)
    x = whole(rng, (2, 3, width, 5))
    graph = Graph()
    value = graph.input("x", x.shape)
    kernel, bias = whole(rng, (1, 1, 5, outputs)), whole(rng, (outputs,))
    y = graph.add(ops.Conv(), value, kernel=kernel, bias=bias)
    other = graph.add(ops.Tile((1, 1, 1, -(-outputs // 5))), value)
    other = graph.add(ops.Slice((0,), (outputs,), (3,)), other)
    graph.output(graph.add(ops.Relu(), graph.add(ops.Add(), y, other)))
    (want,) = reference(graph, {"x": x})
    for isa in kernels.SUPPORTED:
        (alone,) = run(graph, {"x": x}, isa, 1)
        compare(alone, want, 0, f"{outputs} outputs of {width} pixels on {isa}")
        np.testing.assert_array_equal(run(graph, {"x": x}, isa, 2)[0], alone)
        steps = [step.algorithm for step in Model(graph, isa=isa).profile(x)]
        half = outputs % 16 in range(1, 9) and outputs // 16 % 4 in (1, 2)
        if half and width % 2 == 0 and outputs < 64:
            assert any("paired" in name for name in steps) == (isa == "avx512")


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize("threads", [2, 3, 5, 8])
@pytest.mark.parametrize(
    ("shape", "outputs", "groups"),
    [
        ((1, 7, 7), 160, 1),
        ((1, 7, 7), 37, 3),
        ((1, 3, 24), 168, 1),
        ((1, 5, 6), 40, 2),
        ((2, 1, 1), 300, 1),
        ((1, 2, 3), 9, 4),
        ((1, 1, 1), 5, 1),
    ],
)
def test_threads_share_tiles_blocks_or_both(isa, threads, shape, outputs, groups):
    rng = np.random.default_rng(outputs)
    x = whole(rng, (*shape, 18 * groups))
    kernel = whole(rng, (1, 1, 18, outputs * groups))
    graph = Graph()
    y = graph.add(ops.Conv(groups=groups), graph.input("x", x.shape), kernel=kernel)
    graph.output(y)
    (found,) = run(graph, {"x": x}, isa, threads)
    compare(found, reference(graph, {"x": x})[0], 0, f"{threads} threads on {isa}")


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize("groups", [1, 3])
def test_pixels_that_share_a_vector_share_nothing_else(isa, groups):
    """A number that is not finite stays in its pixel and its group."""
    rng = np.random.default_rng(groups)
    x = normal(rng, (1, 2, 12, 20 * groups))
    x[0, 1, 4, 7] = np.inf
    x[0, 1, 7, 0] = np.nan
    graph = Graph()
    kernel = np.abs(normal(rng, (1, 1, 20, 24 * groups))) + 0.1
    y = graph.add(ops.Conv(groups=groups), graph.input("x", x.shape), kernel=kernel)
    graph.output(y)
    found = Model(graph, isa=isa)(x)
    lost = np.zeros(found.shape, bool)
    lost[0, 1, [4, 7], :24] = True
    np.testing.assert_array_equal(~np.isfinite(found), lost)


@given(
    rng=generators(),
    channels=st.integers(1, 3),
    outputs=st.integers(1, 24),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    kernel=st.sampled_from([(3, 3), (5, 5), (5, 1), (3, 2), (2, 3, 3)]),
    stride=st.sampled_from([1, 2, (1, 2)]),
    dilation=st.sampled_from([1, 2, (1, 2)]),
    act=st.sampled_from([ops.Identity(), ops.Relu(), ops.LeakyRelu(0.5)]),
)
def test_few_outputs_are_exact_on_whole_numbers(
    rng, channels, outputs, size, kernel, stride, dilation, act
):
    if len(kernel) == 3:
        size, stride, dilation = (3, *size), 1, 1
    x = whole(rng, (2, *size, channels))
    w, bias = whole(rng, (*kernel, channels, outputs)), whole(rng, (outputs,))
    op = ops.Conv(stride, dilation, "same")
    graph = Graph()
    y = graph.add(op, graph.input("x", x.shape), kernel=w, bias=bias)
    graph.output(graph.add(act, y))
    want = reference(graph, {"x": x})[0]
    with plain_sums(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("striate.ops.conv.suits_narrow", fits_narrow)
        check(op, x, kernel=w, bias=bias, exact=True)
        for isa in kernels.SUPPORTED:
            (alone,) = run(graph, {"x": x}, isa, 1)
            compare(alone, want, 0, f"{op} and {act} on {isa}")
            np.testing.assert_array_equal(run(graph, {"x": x}, isa, 2)[0], alone)


@pytest.mark.parametrize("rows", range(1, 16))
@pytest.mark.parametrize("height", [3, 5])
def test_few_outputs_in_tiles_of_every_height(rows, height, monkeypatch):
    """Rows of every length end within a vector; their tiles have 1 to 14 rows."""
    monkeypatch.setattr("striate.ops.conv.suits_narrow", fits_narrow)
    rng = np.random.default_rng(rows)
    outputs = [3, 5, 6, 7, 12][rows % 5]
    x = whole(rng, (2, rows + height - 1, rows + 5, 1))
    kernel = whole(rng, (height, 3, 1, outputs))
    check(ops.Conv(), x, kernel=kernel, bias=whole(rng, (outputs,)), exact=True)


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize("outputs", [3, 5, 6, 7, 12])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_few_outputs_leave_their_neighbours_alone(isa, outputs, axis, monkeypatch):
    """What follows an image, a row or a pixel in memory was written before it."""
    monkeypatch.setattr("striate.ops.conv.suits_narrow", fits_narrow)
    rng = np.random.default_rng(outputs)
    feeds = {"x": whole(rng, (2, 9, 13, 2))}
    graph = Graph()
    x = graph.input("x", feeds["x"].shape)
    right = graph.add(ops.Conv(), x, kernel=whole(rng, (3, 3, 2, outputs)))
    left = graph.add(ops.Conv(), x, kernel=whole(rng, (3, 3, 2, outputs)))
    graph.output(graph.add(ops.Concat(axis), left, right))
    steps = Model(graph, isa=isa).profile(feeds["x"])
    shared = ["narrow" in step.algorithm for step in steps]
    assert shared == [axis < 3] * 2, "pixels without gaps share vectors; no copies"
    (want,) = reference(graph, feeds)
    for threads in (1, 2, 3):
        (got,) = run(graph, feeds, isa, threads)
        compare(got, want, 0, f"{outputs} outputs on {isa}, {threads} threads")


@pytest.mark.parametrize(
    ("outputs", "lanes"), [(6, {8, 16}), (10, {8, 16}), (16, {16}), (32, set())]
)
@pytest.mark.parametrize("isa", kernels.SUPPORTED)
def test_few_outputs_share_vectors(isa, outputs, lanes):
    shape = (1, 28, 28, 1)
    kernel = np.zeros((5, 5, 1, outputs), np.float32)
    rng = np.random.default_rng(0)
    graph = layer(ops.Conv(), shape, kernel, lambda _, __, y: y, rng)
    (step,) = Model(graph, isa=isa).profile(np.zeros(shape, np.float32))
    narrow = kernels.load("narrow", isa).lanes in lanes
    assert step.algorithm.startswith("narrow") == narrow, step.algorithm


def magnitudes(points, tile, size):
    """Return |B^T|, |G| and |A^T| for tiles at finite points and infinity."""
    inputs = tile + size - 1
    evaluate = np.zeros((inputs, inputs))
    for row, p in enumerate(points):
        evaluate[row, :-1] = np.poly([q for q in points if q != p])[::-1]
    evaluate[-1] = np.poly(points)[::-1]
    scale = [np.prod([p - q for q in points if q != p]) for p in points]
    powers = np.array([[p**j for j in range(size)] for p in points])
    weights = np.vstack([powers / np.array(scale)[:, None], np.eye(size)[-1]])
    back = [[p**i for p in points] + [float(i == tile - 1)] for i in range(tile)]
    return np.abs(evaluate), np.abs(weights), np.abs(back)


def winograd_bound(tile, x, kernel, padding):
    """Return how far F(tile x tile, 3x3) may be off at each output.

    Every sum of K terms errs by at most 2 sqrt(K) u of the sum of magnitudes, so the
    algorithm is followed with the magnitudes of all its matrices.
    """
    above = kernels.load("winograd").POINTS[tile]
    points = [0, *(s * p for p in above for s in (1, -1))]
    size, last = tile + 2, tile - 1
    evaluate, weights, back = magnitudes(points, tile, 3)
    (top, bottom), (left, right) = padding
    rows, pixels = (x.shape[i + 1] + sum(padding[i]) - 2 for i in range(2))
    x = np.abs(x).astype(float)
    x = np.pad(x, [(0, 0), (top, bottom + last), (left, right + last), (0, 0)])
    u = np.einsum("ai,bj,ijcn->abcn", weights, weights, np.abs(kernel).astype(float))
    out = np.zeros((x.shape[0], rows + last, pixels + last, kernel.shape[-1]))
    for i, j in itertools.product(range(0, rows, tile), range(0, pixels, tile)):
        d = x[:, i : i + size, j : j + size]
        v = np.einsum("ai,bj,tijc->abtc", evaluate, evaluate, d)
        m = np.einsum("abtc,abcn->abtn", v, u)
        y = np.einsum("ia,jb,abtn->tijn", back, back, m)
        y = y[:, : out.shape[1] - i, : out.shape[2] - j]
        out[:, i : i + tile, j : j + tile] = y
    return 2 * np.sqrt(kernel.shape[2] + 60) * UNIT * out[:, :rows, :pixels]


@pytest.mark.parametrize(
    ("tile", "shape", "outputs", "padding"),
    [
        (4, (1, 12, 12, 16), 16, ((1, 1), (1, 1))),
        (4, (2, 9, 11, 17), 33, ((1, 1), (1, 1))),
        (4, (1, 14, 9, 48), 20, ((0, 0), (0, 0))),
        (4, (1, 10, 10, 16), 16, ((2, 0), (0, 2))),
        (4, (1, 70, 66, 64), 64, ((1, 1), (1, 1))),
        (4, (5, 9, 8, 130), 31, ((1, 1), (1, 1))),
        (2, (1, 7, 7, 16), 16, ((1, 1), (1, 1))),
        (2, (3, 5, 8, 17), 33, ((1, 1), (1, 1))),
        (2, (2, 9, 8, 20), 18, ((0, 0), (0, 0))),
        (2, (1, 6, 6, 130), 31, ((2, 0), (0, 2))),
        (2, (1, 13, 14, 368), 360, ((1, 1), (1, 1))),
    ],
)
def test_winograd_stays_within_its_bound(tile, shape, outputs, padding):
    def bound(x, w):
        return winograd_bound(tile, x, w, padding)

    kernel = (3, 3, shape[-1], outputs)
    check_winograd(ops.Conv(padding=padding), tile, shape, kernel, bound)


def check_winograd(op, tile, shape, kernel, bound, most=0.1):
    """Assert that an op goes by Winograd's tiles, and its error within a bound.

    A product left out would be larger than `most`, which the bound may not be.
    """
    assert op.winograd_tile(Spec(shape), Spec(kernel)) == tile
    rng = np.random.default_rng(5)
    x, w, bias = normal(rng, shape), normal(rng, kernel), normal(rng, kernel[-1:])
    limit = bound(x, w) + UNIT * 8
    check(op, x, kernel=w, bias=bias, bound=limit)
    assert np.median(limit) < most


def strided_bound(x, kernel, padding):
    """Return `winograd_bound` for a stride of two and tiles of 2x2."""
    evaluate = [
        [1, 0, 1, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 1, 0, 1],
    ]
    weights = [[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 1, 0], [0, 0, 1]]
    back = [[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]]
    rows, pixels = ((x.shape[i + 1] + sum(padding[i]) - 1) // 2 for i in range(2))
    (top, bottom), (left, right) = padding
    x = np.abs(x).astype(float)
    x = np.pad(x, [(0, 0), (top, bottom + 3), (left, right + 3), (0, 0)])
    u = np.einsum("ai,bj,ijcn->abcn", weights, weights, np.abs(kernel).astype(float))
    out = np.zeros((x.shape[0], rows + 1, pixels + 1, kernel.shape[-1]))
    for i, j in itertools.product(range(0, rows, 2), range(0, pixels, 2)):
        d = x[:, 2 * i : 2 * i + 5, 2 * j : 2 * j + 5]
        v = np.einsum("ai,bj,tijc->abtc", evaluate, evaluate, d)
        m = np.einsum("abtc,abcn->abtn", v, u)
        out[:, i : i + 2, j : j + 2] = np.einsum("ia,jb,abtn->tijn", back, back, m)
    return 2 * np.sqrt(4 * kernel.shape[2] + 60) * UNIT * out[:, :rows, :pixels]


@pytest.mark.parametrize(
    ("shape", "outputs", "padding", "stride"),
    [
        ((1, 16, 16, 64), 64, ((1, 1), (1, 1)), 2),
        ((1, 16, 16, 64), 64, ((0, 1), (0, 1)), (2, 2)),
        ((2, 21, 23, 70), 65, ((1, 1), (1, 1)), 2),
        ((3, 17, 26, 33), 130, ((0, 0), (0, 0)), 2),
        ((1, 21, 22, 130), 47, ((2, 0), (0, 2)), 2),
        ((1, 44, 44, 64), 80, ((1, 1), (1, 1)), 2),
        ((5, 28, 28, 64), 65, ((1, 1), (1, 1)), 2),
        ((1, 20, 20, 368), 360, ((1, 1), (1, 1)), 2),
    ],
)
def test_strided_winograd_stays_within_its_bound(shape, outputs, padding, stride):
    def bound(x, w):
        return strided_bound(x, w, padding)

    op, kernel = ops.Conv(stride, padding=padding), (3, 3, shape[-1], outputs)
    check_winograd(op, 2, shape, kernel, bound)
    rng = np.random.default_rng(5)
    x, w, bias = whole(rng, shape), whole(rng, kernel), whole(rng, (outputs,))
    check(op, x, kernel=w, bias=bias, exact=True)


@pytest.mark.parametrize(
    ("shape", "outputs", "stride"),
    [
        ((1, 14, 14, 512), 512, 2),
        ((1, 56, 56, 16), 256, 2),
        ((1, 56, 56, 32), 64, 2),
        ((1, 10, 10, 256), 256, 2),
        ((1, 56, 56, 64), 128, (1, 2)),
        ((1, 56, 56, 64), 128, 3),
    ],
)
def test_strided_winograd_only_where_it_pays(shape, outputs, stride):
    op = ops.Conv(stride, padding="same")
    assert not op.winograd_tile(Spec(shape), Spec((3, 3, shape[-1], outputs)))


def volume_bound(tile, x, kernel, padding):
    """Return `winograd_bound` for volumes: the planes of a kernel add up."""
    depth = len(kernel)
    x = np.pad(x, [(0, 0), padding[0], (0, 0), (0, 0), (0, 0)])
    planes = x.shape[1] - depth + 1
    total = 0
    for k, plane in enumerate(kernel):
        images = x[:, k : k + planes].reshape(-1, *x.shape[2:])
        total = total + winograd_bound(tile, images, plane, padding[1:])
    return np.sqrt(depth) * total.reshape(x.shape[0], planes, *total.shape[1:])


@pytest.mark.parametrize(
    ("tile", "shape", "depth", "outputs", "padding"),
    [
        (4, (1, 4, 12, 12, 16), 3, 16, ((1, 1), (1, 1), (1, 1))),
        (4, (2, 5, 9, 11, 17), 2, 33, ((1, 0), (1, 1), (1, 1))),
        (4, (1, 16, 30, 27, 64), 3, 64, ((1, 1), (1, 1), (1, 1))),
        (4, (3, 2, 14, 9, 20), 1, 18, ((0, 0), (0, 0), (2, 0))),
        (4, (1, 9, 12, 12, 16), 7, 16, ((3, 3), (0, 2), (1, 1))),
        (2, (2, 1, 7, 7, 130), 3, 31, ((1, 1), (1, 1), (1, 1))),
        (2, (1, 2, 7, 7, 368), 3, 360, ((1, 1), (1, 1), (1, 1))),
    ],
)
def test_winograd_of_volumes_stays_within_its_bound(
    tile, shape, depth, outputs, padding
):
    def bound(x, w):
        return volume_bound(tile, x, w, padding)

    kernel = (depth, 3, 3, shape[-1], outputs)
    check_winograd(ops.Conv(padding=padding), tile, shape, kernel, bound, 0.3)


def test_strided_winograd_of_volumes_is_exact_on_whole_numbers():
    rng = np.random.default_rng(6)
    shape, kernel = (2, 3, 21, 23, 70), (3, 3, 3, 70, 65)
    op = ops.Conv((1, 2, 2), padding=1)
    assert op.winograd_tile(Spec(shape), Spec(kernel)) == 2
    x, w, bias = whole(rng, shape), whole(rng, kernel), whole(rng, (65,))
    check(op, x, kernel=w, bias=bias, exact=True)


@pytest.mark.parametrize("op", [ops.Conv(2), ops.Conv((2, 1, 1)), ops.Conv((1, 1, 2))])
def test_plain_sums_of_volumes_with_a_stride_between_planes(op):
    shape = (1, 16, 28, 28, 64)
    assert not op.winograd_tile(Spec(shape), Spec((3, 3, 3, 64, 64)))
    assert not ops.Conv().winograd_tile(Spec(shape), Spec((8, 3, 3, 64, 64)))


def row_bound(tile, op, x, kernel):
    """Return `winograd_bound` for F(tile, taps of a row); the kernel's rows add up."""
    window = op.window(Spec(x.shape), Spec(kernel.shape))
    step, deep, high = window.stride[-1], *((1, 1, *window.stride)[-3:-1])
    dilation = (1, 1, *window.dilation)[-3:-1]
    images, *counts, outputs = op.infer(Spec(x.shape), Spec(kernel.shape)).shape
    planes, rows, pixels = (1, 1, *counts)[-3:]
    depth, height, taps, channels, _ = (*(1,) * 3, *kernel.shape)[-5:]
    width, tiles = -(-taps // step), -(-pixels // tile)
    size = tile + width - 1
    above = kernels.load("winograd_row").POINTS[size]
    points = [0] * (size % 2 == 0) + [s * p for p in above for s in (1, -1)]
    evaluate, weigh, back = magnitudes(points, tile, width)
    # A stride along the row: so many pixels are one, with as many times the channels.
    x = np.pad(np.abs(x).astype(float), [(0, 0), *window.padding, (0, 0)])
    x = x.reshape(images, *(1, 1, *x.shape[1:-1])[-3:], channels)
    wide = (tiles * tile + width - 1) * step
    x = np.pad(x, [*[(0, 0)] * 3, (0, max(0, wide - x.shape[3])), (0, 0)])
    x = x[:, :, :, :wide].reshape(*x.shape[:3], -1, step * channels)
    taken = np.zeros((depth, height, width * step, channels, outputs))
    taken[:, :, :taps] = np.abs(kernel).reshape(depth, height, taps, channels, outputs)
    taken = taken.reshape(depth, height, width, step * channels, outputs)
    u = np.einsum("pj,dkjcn->dkpcn", weigh, taken)
    out = np.zeros((images, planes, rows, tiles * tile, outputs))
    for plane, row, t in np.ndindex(planes, rows, tiles):
        first = t * tile
        d = x[:, plane * deep :: dilation[0], row * high :: dilation[1]]
        d = d[:, :depth, :height, first : first + size]
        m = np.einsum("pj,zdkjc,dkpcn->zpn", evaluate, d, u, optimize=True)
        out[:, plane, row, first : first + tile] = np.einsum("ip,zpn->zin", back, m)
    terms = depth * height * step * channels
    bound = 2 * np.sqrt(terms + 60) * UNIT * out[:, :, :, :pixels]
    return bound.reshape(images, *counts, outputs)


ROWS = [
    # tile, op, input, kernel
    (4, ops.Conv(padding=1), (1, 40, 24), (3, 24, 20)),
    (4, ops.Conv(padding=1), (2, 250, 70), (3, 70, 33)),
    (4, ops.Conv(padding=((0, 3),)), (3, 19, 130), (3, 130, 16)),
    (5, ops.Conv(padding=2), (2, 30, 17), (5, 17, 65)),
    (5, ops.Conv(padding=2), (1, 29, 65), (5, 65, 40)),
    (4, ops.Conv(2, padding=3), (2, 70, 21), (7, 21, 18)),
    (4, ops.Conv(3, padding=4), (1, 131, 7), (9, 7, 34)),
    (5, ops.Conv(), (1, 14, 14, 6), (5, 5, 6, 16)),
    (4, ops.Conv(padding=2), (2, 9, 11, 20), (5, 5, 20, 37)),
    (4, ops.Conv(padding=((3, 0), (1, 4))), (2, 12, 15, 3), (5, 5, 3, 64)),
    (4, ops.Conv(2, padding=3), (2, 40, 37, 3), (7, 7, 3, 64)),
    (4, ops.Conv(4, padding=2), (1, 95, 63, 3), (11, 11, 3, 48)),
    (4, ops.Conv((3, 2), (2, 1), padding=2), (2, 26, 31, 9), (4, 7, 9, 31)),
    (4, ops.Conv((1, 1), (3, 1), padding=1), (2, 14, 18, 12), (3, 3, 12, 16)),
    (4, ops.Conv(padding=((0, 0), (1, 1))), (1, 17, 17, 40), (1, 3, 40, 50)),
    (4, ops.Conv(padding=1), (3, 1, 100, 10), (3, 3, 10, 24)),
    (4, ops.Conv((1, 2, 2), padding=3), (2, 2, 20, 22, 3), (3, 7, 7, 3, 32)),
    (5, ops.Conv((2, 1, 1), (2, 1, 1), 2), (1, 9, 8, 10, 7), (3, 5, 5, 7, 20)),
]


@pytest.mark.parametrize(("tile", "op", "shape", "kernel"), ROWS)
def test_winograd_of_rows_stays_within_its_bound(tile, op, shape, kernel):
    assert op.row_tile(Spec(shape), Spec(kernel)) == tile
    rng = np.random.default_rng(5)
    x, w, bias = normal(rng, shape), normal(rng, kernel), normal(rng, kernel[-1:])
    limit = row_bound(tile, op, x, w) + UNIT * 8
    with pytest.MonkeyPatch.context() as patch:
        least = dict.fromkeys((4, 8, 16), 0)
        patch.setattr(ROW_CHOICE, "LEAST_SAVED", least)
        check(op, x, kernel=w, bias=bias, bound=limit)
    assert np.median(limit) < 0.1, "a product left out would show"


@st.composite
def by_rows(draw):
    """Draw (op, input shape, kernel shape) that rows of tiles can compute."""
    rank = draw(st.integers(1, 3))
    stride = [draw(st.integers(1, 3)) for _ in range(rank)]
    width, spare = draw(st.integers(3, 5)), draw(st.integers(0, stride[-1] - 1))
    kernel = [*(draw(st.integers(1, 3)) for _ in stride[1:])]
    kernel.append(width * stride[-1] - spare)
    dilation = [*(draw(st.integers(1, 2)) for _ in stride[1:]), 1]
    ends = st.tuples(st.integers(0, 3), st.integers(0, 3))
    padding = draw(st.sampled_from(["valid", "same"]) | st.tuples(*[ends] * rank))
    span = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = [draw(st.integers(k, k + 4)) for k in span]
    least = 4 if rank > 1 else 16
    size[-1] = span[-1] + stride[-1] * (least - 1 + draw(st.integers(0, 40)))
    shape = (draw(st.integers(1, 2)), *size, draw(CHANNELS))
    kernel = (*kernel, shape[-1], draw(st.sampled_from([16, 17, 32, 33, 40])))
    op = ops.Conv(tuple(stride), tuple(dilation), padding)
    assume(not op.winograd_tile(Spec(shape), Spec(kernel)))
    return op, shape, kernel


@given(case=by_rows(), rng=generators())
def test_winograd_of_rows_of_any_shape(case, rng):
    op, shape, kernel = case
    x, w, bias = normal(rng, shape), normal(rng, kernel), normal(rng, kernel[-1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ROW_CHOICE, "LEAST_SAVED", dict.fromkeys((4, 8, 16), -math.inf))
        tile = op.row_tile(Spec(shape), Spec(kernel))
        limit = row_bound(tile, op, x, w) + UNIT * 8
        check(op, x, kernel=w, bias=bias, bound=limit)


@pytest.mark.parametrize(
    ("op", "shape", "kernel"),
    [
        (ops.Conv(padding=1), (1, 28, 28, 16), (3, 3, 16, 16)),  # tiles of 4x4
        (ops.Conv(padding=1), (1, 28, 28, 8), (3, 3, 8, 8)),  # few outputs
        (ops.Conv(padding=1), (1, 28, 28, 3), (3, 3, 3, 64)),  # little is saved
        (ops.Conv(2, padding=1), (1, 28, 28, 12), (3, 3, 12, 64)),  # two taps are left
        (ops.Conv(padding=3), (1, 28, 28, 12), (7, 7, 12, 64)),  # seven
        (ops.Conv(dilation=2), (1, 28, 28, 12), (5, 5, 12, 64)),
        (ops.Conv(groups=2), (1, 28, 28, 24), (5, 5, 12, 64)),
        (ops.Conv(padding=1), (1, 9, 3, 64), (5, 3, 64, 64)),  # short rows
        (ops.Conv(padding=2), (1, 12, 64), (5, 64, 64)),  # a short row alone
    ],
)
def test_rows_only_where_they_pay(op, shape, kernel):
    assert not op.row_tile(Spec(shape), Spec(kernel))


def test_rows_that_vectors_of_eight_are_too_short_for():
    x, kernel = Spec((1, 28, 28, 6)), Spec((3, 3, 6, 16))
    tiles = {lanes: ops.Conv(padding=1).row_tile(x, kernel, lanes) for lanes in (8, 16)}
    assert tiles == {8: 0, 16: 4}


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_rows_leave_their_neighbours_alone(isa, axis):
    """Two results in one tensor: the last tile of a row reaches beyond it."""
    rng = np.random.default_rng(axis)
    feeds = {"x": normal(rng, (2, 9, 13, 12))}
    graph = Graph()
    x = graph.input("x", feeds["x"].shape)
    right = graph.add(ops.Conv(), x, kernel=normal(rng, (5, 5, 12, 20), 0.1))
    left = graph.add(ops.Conv(), x, kernel=normal(rng, (5, 5, 12, 20), 0.1))
    graph.output(graph.add(ops.Concat(axis), left, right))
    steps = Model(graph, isa=isa).profile(feeds["x"])
    by_rows = ["winograd F(5, 5)" in step.algorithm for step in steps]
    assert sum(by_rows) == 2
    (want,) = reference(graph, feeds)
    (alone,) = run(graph, feeds, isa, 1)
    compare(alone, want, 3e-5, isa)
    for threads in (2, 3):
        np.testing.assert_array_equal(run(graph, feeds, isa, threads)[0], alone)


def test_a_stride_needs_pixels_that_follow_each_other():
    """With a gap between pixels two of them are not one; another algorithm serves."""
    rng = np.random.default_rng(4)
    graph = Graph()
    x = graph.input("x", (1, 30, 30, 8))
    wide = graph.add(ops.Neg(), x)
    near = graph.add(ops.Slice((0,), (4,), (3,)), wide)
    kernel = normal(rng, (7, 7, 4, 32), 0.1)
    y = graph.add(ops.Conv(2, padding=3), near, kernel=kernel)
    graph.output(graph.add(ops.Relu(), y))
    feeds = {"x": normal(rng, (1, 30, 30, 8))}
    steps = Model(graph).profile(feeds["x"])
    assert not any("F(4, 4)" in step.algorithm for step in steps)
    (got,) = run(graph, feeds, kernels.ISA, 2)
    compare(got, reference(graph, feeds)[0], 1e-5, "sliced")


def layer(op, shape, kernel, after, rng):
    """Return a graph of a convolution and what `after` adds to it."""
    graph = Graph()
    x = graph.input("x", shape)
    y = graph.add(op, x, kernel=kernel, bias=normal(rng, kernel.shape[-1:]))
    graph.output(after(graph, x, y))
    return graph


ACTIVATIONS = [
    ops.Relu(),
    ops.Clip(0.0, 6.0),
    ops.LeakyRelu(0.1),
    ops.Elu(),
    ops.Sigmoid(),
    ops.Tanh(),
    ops.Silu(),
    ops.HardSigmoid(),
    ops.HardSwish(),
    ops.Gelu(),
    ops.Mish(),
]


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize("act", ACTIVATIONS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize(
    "algorithm", ["product", "depthwise", "winograd", "strided", "rows"]
)
def test_epilogues(isa, act, algorithm, monkeypatch):
    rng = np.random.default_rng(8)
    channels = 21
    if algorithm == "rows":
        least = dict.fromkeys((4, 8, 16), 0)
        monkeypatch.setattr(ROW_CHOICE, "LEAST_SAVED", least)
        monkeypatch.setattr("striate.ops.conv.winograd_tile", lambda *_: 0)
    groups = channels if algorithm == "depthwise" else 1
    stride = 2 if algorithm in ("product", "strided") else 1
    if algorithm == "strided":
        monkeypatch.setattr("striate.ops.conv.winograd_tile", lambda *_: 2)
    op = ops.Conv(stride, padding="same", groups=groups)
    kernel = normal(rng, (3, 3, channels // groups, channels), 0.1)

    def after(graph, x, y):
        other = graph.add(ops.MaxPool(1, stride), x)
        return graph.add(act, graph.add(ops.Add(), y, other))

    graph = layer(op, (2, 12, 13, channels), kernel, after, rng)
    feeds = {"x": normal(rng, (2, 12, 13, channels))}
    if algorithm == "rows":
        steps = Model(graph, isa=isa).profile(feeds["x"])
        assert any("F(4, 3)" in step.algorithm for step in steps)
    (alone,) = run(graph, feeds, isa, 1)
    compare(alone, reference(graph, feeds)[0], 3e-5, f"{act} after {algorithm}")
    np.testing.assert_array_equal(run(graph, feeds, isa, 2)[0], alone)


def test_not_a_number_and_infinity_pass():
    x = np.zeros((1, 6, 6, 2), np.float32)
    x[0, 2, 3, 0], x[0, 4, 4, 1] = np.nan, np.inf
    w = np.ones((3, 3, 2, 5), np.float32)
    check(ops.Conv(), x, kernel=w, exact=True)


# The laws of the subject.


def toeplitz(kernel, shape):
    """Return the matrix by which a valid convolution multiplies a flattened image."""
    out = [n - k + 1 for n, k in zip(shape, kernel.shape, strict=True)]
    matrix = np.zeros((np.prod(out), np.prod(shape)), np.float32)
    for row, at in enumerate(itertools.product(*map(range, out))):
        for tap in itertools.product(*map(range, kernel.shape)):
            where = [a + t for a, t in zip(at, tap, strict=True)]
            matrix[row, np.ravel_multi_index(where, shape)] = kernel[tap]
    return matrix


def answer(op, x, kernel):
    """Return what the compiled kernels compute for whole numbers: the exact result."""
    return check(op, x, kernel=kernel, exact=True).astype(np.float32)


@given(rng=generators(), size=st.lists(st.integers(3, 8), min_size=1, max_size=2))
def test_it_is_multiplication_by_a_toeplitz_matrix(rng, size):
    kernel = whole(rng, (3,) * len(size))
    x = whole(rng, size)
    y = answer(ops.Conv(), x[None, ..., None], kernel[..., None, None])
    np.testing.assert_array_equal(
        y.reshape(-1), toeplitz(kernel, tuple(size)) @ x.reshape(-1)
    )


@given(rng=generators(), shift=st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_it_commutes_with_shifts(rng, shift):
    x = np.zeros((1, 14, 14, 3), np.float32)
    x[:, 4:9, 4:9] = whole(rng, (1, 5, 5, 3))
    w = whole(rng, (3, 3, 3, 4))
    moved = np.roll(x, shift, axis=(1, 2))
    one, other = answer(ops.Conv(), x, w), answer(ops.Conv(), moved, w)
    np.testing.assert_array_equal(np.roll(one, shift, axis=(1, 2)), other)


@given(rng=generators(), at=st.tuples(st.integers(0, 2), st.integers(0, 2)))
def test_a_one_hot_kernel_shifts(rng, at):
    x = whole(rng, (1, 7, 8, 1))
    w = np.zeros((3, 3, 1, 1), np.float32)
    w[at] = 1
    i, j = at
    np.testing.assert_array_equal(answer(ops.Conv(), x, w), x[:, i : i + 5, j : j + 6])


@given(rng=generators())
def test_it_is_linear_in_both_arguments(rng):
    x, y = whole(rng, (1, 6, 6, 3)), whole(rng, (1, 6, 6, 3))
    v, w = whole(rng, (3, 3, 3, 5)), whole(rng, (3, 3, 3, 5))
    conv = ops.Conv()
    np.testing.assert_array_equal(
        answer(conv, x + 2 * y, w), answer(conv, x, w) + 2 * answer(conv, y, w)
    )
    np.testing.assert_array_equal(
        answer(conv, x, v - w), answer(conv, x, v) - answer(conv, x, w)
    )


@given(rng=generators(), groups=st.sampled_from([2, 3, 5]))
def test_grouped_is_the_concatenation_of_its_parts(rng, groups):
    x, w = whole(rng, (1, 6, 6, 2 * groups)), whole(rng, (3, 3, 2, 3 * groups))
    parts = [
        answer(ops.Conv(), a, b)
        for a, b in zip(np.split(x, groups, -1), np.split(w, groups, -1), strict=True)
    ]
    whole_answer = answer(ops.Conv(groups=groups), x, w)
    np.testing.assert_array_equal(whole_answer, np.concatenate(parts, -1))


@given(rng=generators(), multiplier=st.integers(1, 3))
def test_depthwise_is_groups_of_one(rng, multiplier):
    x, w = whole(rng, (1, 6, 6, 5)), whole(rng, (3, 3, 1, 5 * multiplier))
    y = answer(ops.Conv(groups=5), x, w)
    for channel in range(5):
        part = slice(channel * multiplier, (channel + 1) * multiplier)
        one = answer(ops.Conv(), x[..., channel : channel + 1], w[..., part])
        np.testing.assert_array_equal(y[..., part], one)


@given(rng=generators(), dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_dilation_is_a_kernel_stuffed_with_zeros(rng, dilation):
    x, w = whole(rng, (1, 9, 10, 2)), whole(rng, (3, 3, 2, 3))
    size = [2 * d + 1 for d in dilation]
    stuffed = np.zeros((*size, 2, 3), np.float32)
    stuffed[:: dilation[0], :: dilation[1]] = w
    np.testing.assert_array_equal(
        answer(ops.Conv(dilation=dilation), x, w), answer(ops.Conv(), x, stuffed)
    )


@given(rng=generators())
def test_three_dimensions_with_a_flat_kernel_are_two(rng):
    x, w = whole(rng, (2, 3, 6, 7, 4)), whole(rng, (1, 3, 3, 4, 5))
    y = answer(ops.Conv(), x, w)
    flat = answer(ops.Conv(), x.reshape(6, 6, 7, 4), w[0])
    np.testing.assert_array_equal(y.reshape(flat.shape), flat)


# What is refused.


@pytest.mark.parametrize(
    ("op", "x", "kernel"),
    [
        (ops.Conv(), (1, 5, 5, 3), (3, 3, 2, 4)),
        (ops.Conv(), (1, 5, 5, 3), (3, 3, 3)),
        (ops.Conv(groups=2), (1, 5, 5, 4), (3, 3, 2, 3)),
        (ops.Conv(), (5, 3), (3, 3)),
        (ops.Conv(), (1, 2, 2, 3), (3, 3, 3, 4)),
        (ops.Conv(stride=(1, 2, 3)), (1, 5, 5, 3), (3, 3, 3, 4)),
        (ops.Conv(padding=((1, 1),) * 3), (1, 5, 5, 3), (3, 3, 3, 4)),
        (ops.Conv(), (1, 0, 5, 3), (3, 3, 3, 4)),
    ],
)
def test_shapes_that_do_not_fit(op, x, kernel):
    with pytest.raises(ShapeError):
        op.infer(Spec(x), Spec(kernel))


def test_a_bias_that_does_not_fit():
    with pytest.raises(ShapeError, match=r"bias \(3,\), wanted \(4,\)"):
        ops.Conv().infer(Spec((1, 5, 5, 3)), Spec((3, 3, 3, 4)), Spec((3,)))


@pytest.mark.parametrize(
    "fields",
    [
        {"stride": 0},
        {"dilation": (1, -1)},
        {"padding": "full"},
        {"padding": ((1, -1),)},
        {"groups": 0},
        {"stride": (1.5,)},
        {"stride": ()},
    ],
)
def test_attributes_that_make_no_sense(fields):
    with pytest.raises(ValueError, match="wanted"):
        ops.Conv(**fields)
    with pytest.raises(GraphError):
        ops.Conv.from_attributes({**ops.Conv().attributes(), **fields})


@pytest.mark.parametrize("registers", [16, 32])
@pytest.mark.parametrize("vectors", range(1, 9))
def test_every_tile_there_can_be_fits_the_registers(registers, vectors):
    for width in range(1, 100):
        rows, nr = best_tile(width, vectors, registers)
        assert 1 <= nr <= min(4, vectors)
        assert 1 <= rows <= width
        assert rows * nr + nr + (registers == 16) <= registers


@pytest.mark.parametrize("vectors", range(1, 9))
def test_every_tile_with_a_shared_vector_fits_the_registers(vectors):
    for width in range(1, 100):
        rows, nr = best_tile(width, vectors, 32, paired={2: 14, 3: 10})
        together = pixels_together(width, vectors, nr, {2: 14, 3: 10})
        assert rows % together == 0
        shared = rows // 2 if together == 2 and nr == vectors else 0
        assert rows * nr - shared + nr + 2 * (shared > 0) <= 32
