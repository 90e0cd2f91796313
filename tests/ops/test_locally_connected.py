"""Locally connected and tiled convolution: references, and what they are limits of."""

import numpy as np
import pytest
from check import check, compare, reference, run
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators, normal, whole
from striate import Graph, GraphError, Model, ShapeError, Spec, kernels, ops

CHANNELS = st.sampled_from([1, 2, 3, 8, 17])
OUTPUTS = st.sampled_from([1, 7, 8, 15, 16, 17, 33, 64, 65])


@st.composite
def cases(draw):
    """Draw (op's fields, input shape, kernel's own shape, positions)."""
    rank = draw(st.integers(1, 3))
    per_axis = st.tuples(*[st.integers(1, 3)] * rank)
    size, stride = draw(per_axis), draw(per_axis)
    dilation = draw(st.tuples(*[st.integers(1, 2)] * rank))
    span = [d * (k - 1) + 1 for k, d in zip(size, dilation, strict=True)]
    pairs = st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * rank)
    padding = draw(st.sampled_from(["valid", "same", "same_lower"]) | pairs)
    spatial = [draw(st.integers(k, k + 4)) for k in span]
    shape = (draw(st.integers(1, 3)), *spatial, draw(CHANNELS))
    kernel = (*size, shape[-1], draw(OUTPUTS))
    fields = {"stride": stride, "dilation": dilation, "padding": padding}
    counts = ops.Conv(**fields).infer(Spec(shape), Spec(kernel)).spatial
    return fields, shape, kernel, counts


def biases(draw, rng, tiles, outputs):
    shape = draw(st.sampled_from([None, (outputs,), (*tiles, outputs)]))
    return None if shape is None else whole(rng, shape)


@given(case=cases(), rng=generators(), data=st.data())
def test_whole_numbers_are_exact(case, rng, data):
    fields, shape, kernel, counts = case
    w = whole(rng, (*counts, *kernel))
    bias = biases(data.draw, rng, counts, kernel[-1])
    op = ops.LocallyConnected(**fields)
    check(op, whole(rng, shape), kernel=w, bias=bias, exact=True)


@given(case=cases(), rng=generators())
def test_matches_reference(case, rng):
    fields, shape, kernel, counts = case
    check(
        ops.LocallyConnected(**fields),
        normal(rng, shape),
        kernel=normal(rng, (*counts, *kernel)),
        bias=normal(rng, kernel[-1:]),
        terms=int(np.prod(kernel[:-1])) + 1,
    )


@given(case=cases(), rng=generators())
def test_with_equal_kernels_it_is_convolution(case, rng):
    fields, shape, kernel, counts = case
    x, w, b = whole(rng, shape), whole(rng, kernel), whole(rng, kernel[-1:])
    wide = np.broadcast_to(w, (*counts, *kernel))
    y = check(ops.LocallyConnected(**fields), x, kernel=wide, bias=b, exact=True)
    conv = check(ops.Conv(**fields), x, kernel=w, bias=b, exact=True)
    np.testing.assert_array_equal(y, conv)


@given(case=cases(), rng=generators(), data=st.data())
def test_tiled_whole_numbers_are_exact(case, rng, data):
    fields, shape, kernel, counts = case
    tiles = data.draw(st.tuples(*[st.integers(1, 3)] * len(counts)))
    bias = biases(data.draw, rng, tiles, kernel[-1])
    w = whole(rng, (*tiles, *kernel))
    op = ops.TiledConv(tiles, **fields)
    check(op, whole(rng, shape), kernel=w, bias=bias, exact=True)


@given(case=cases(), rng=generators())
def test_one_tile_is_convolution(case, rng):
    fields, shape, kernel, counts = case
    x, w = whole(rng, shape), whole(rng, kernel)
    one = w.reshape((1,) * len(counts) + kernel)
    y = check(ops.TiledConv(1, **fields), x, kernel=one, exact=True)
    np.testing.assert_array_equal(y, check(ops.Conv(**fields), x, kernel=w, exact=True))


@given(case=cases(), rng=generators())
def test_as_many_tiles_as_positions_are_locally_connected(case, rng):
    fields, shape, kernel, counts = case
    x, w = whole(rng, shape), whole(rng, (*counts, *kernel))
    y = check(ops.TiledConv(counts, **fields), x, kernel=w, exact=True)
    local = ops.LocallyConnected(**fields)
    np.testing.assert_array_equal(y, check(local, x, kernel=w, exact=True))


@given(rng=generators(), tiles=st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_tiled_commutes_with_shifts_of_a_whole_period(rng, tiles):
    x = np.zeros((1, 18, 18, 2), np.float32)
    x[:, 4:9, 4:9] = whole(rng, (1, 5, 5, 2))
    w = whole(rng, (*tiles, 3, 3, 2, 5))
    moved = np.roll(x, tiles, axis=(1, 2))
    op = ops.TiledConv(tiles)
    one, other = (
        check(op, x, kernel=w, exact=True),
        check(op, moved, kernel=w, exact=True),
    )
    np.testing.assert_array_equal(np.roll(one, tiles, axis=(1, 2)), other)


@pytest.mark.parametrize("size", [(40, 40), (5, 4)])
def test_both_ways_of_computing_tiles(size):
    """Many positions a tile are products of matrices, few are read one by one."""
    rng = np.random.default_rng(0)
    x, w = normal(rng, (2, *size, 6)), normal(rng, (2, 3, 3, 3, 6, 40))
    op = ops.TiledConv((2, 3), padding="same")
    check(op, x, kernel=w, bias=normal(rng, (2, 3, 40)), terms=55)
    graph = Graph()
    graph.output(graph.add(op, graph.input("x", x.shape), kernel=w))
    names = {step.algorithm for step in Model(graph).profile(x)}
    assert any("gemm" in name for name in names) == (size[0] > 30)


def test_a_worked_example():
    x = np.array([1, 2, 3, 4], np.float32).reshape(1, 4, 1)
    w = np.array([[1, 0], [0, 1], [1, 1]], np.float32).reshape(3, 2, 1, 1)
    y = check(ops.LocallyConnected(), x, kernel=w, exact=True)
    np.testing.assert_array_equal(y.ravel(), [1, 3, 7])
    y = check(ops.TiledConv(2), x, kernel=w[:2], exact=True)
    np.testing.assert_array_equal(y.ravel(), [1, 3, 3])


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize("act", [ops.Relu(), ops.Sigmoid(), ops.LeakyRelu(0.1)])
@pytest.mark.parametrize("tiles", [None, 2])
def test_epilogues(isa, act, tiles):
    rng = np.random.default_rng(8)
    graph = Graph()
    x = graph.input("x", (3, 12, 9, 5))
    if tiles is None:
        op, head = ops.LocallyConnected(padding="same"), (12, 9)
    else:
        op, head = ops.TiledConv(tiles, padding="same"), (tiles, tiles)
    w = normal(rng, (*head, 3, 3, 5, 21), 0.2)
    y = graph.add(op, x, kernel=w, bias=normal(rng, (*head, 21)))
    graph.output(graph.add(act, y))
    feeds = {"x": normal(rng, (3, 12, 9, 5))}
    (alone,) = run(graph, feeds, isa, 1)
    compare(alone, reference(graph, feeds)[0], 2e-5, str(act))
    np.testing.assert_array_equal(run(graph, feeds, isa, 2)[0], alone)


def test_half_precision_weights():
    rng = np.random.default_rng(8)
    w = normal(rng, (4, 2, 3, 5)).astype(np.float16)
    x = normal(rng, (2, 5, 3))
    check(ops.LocallyConnected(), x, kernel=w, terms=7)


@pytest.mark.parametrize(
    ("op", "x", "kernel"),
    [
        (ops.LocallyConnected(), (1, 5, 3), (4, 3, 3, 2)),
        (ops.LocallyConnected(), (1, 5, 3), (3, 3, 2, 2)),
        (ops.LocallyConnected(), (1, 5, 3), (3, 3, 2)),
        (ops.LocallyConnected(), (5, 3), (3, 3)),
        (ops.LocallyConnected(), (1, 2, 3), (1, 3, 3, 2)),
        (ops.TiledConv(2), (1, 5, 3), (3, 3, 3, 2)),
        (ops.TiledConv((2, 2)), (1, 5, 3), (2, 3, 3, 2)),
    ],
)
def test_shapes_that_do_not_fit(op, x, kernel):
    with pytest.raises(ShapeError):
        op.infer(Spec(x), Spec(kernel))


def test_a_bias_that_does_not_fit():
    with pytest.raises(ShapeError, match=r"wanted \(2,\) or \(3, 2\)"):
        ops.LocallyConnected().infer(Spec((1, 5, 3)), Spec((3, 3, 3, 2)), Spec((4, 2)))


@pytest.mark.parametrize("kind", [ops.LocallyConnected, ops.TiledConv])
@pytest.mark.parametrize("fields", [{"stride": 0}, {"padding": "full"}])
def test_attributes_that_make_no_sense(kind, fields):
    tiles = {"tiles": (2,)} if kind is ops.TiledConv else {}
    with pytest.raises(ValueError, match="wanted"):
        kind(**tiles, **fields)
    plain = kind(**tiles).attributes()
    assert kind.from_attributes(plain) == kind(**tiles)
    with pytest.raises(GraphError):
        kind.from_attributes({**plain, **fields})
