"""Chains that run strip by strip compute what their layers compute."""

import numpy as np
import pytest
from check import compare, plain_sums, reference, run
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import generators, normal, whole
from striate import Graph, kernels, ops
from striate.errors import ShapeError
from striate.packed_weights import PackedWeights
from striate.passes import optimise
from striate.plan import Plan

CACHES = [2 << 10, 8 << 10, 20 << 10]
"""Second-level caches so small that even these nets have strips."""


def algorithms(graph, shapes=None):
    shapes = shapes or graph.default_shapes()
    plan = Plan(graph, shapes, kernels.ISA, 1, PackedWeights())
    return [stage.step.algorithm for stage in plan.stages]


@st.composite
def chains(draw):
    """Draw (graph, input shape): pointwise, depthwise, pointwise, or two of them."""
    rng = draw(generators())
    rows, pixels = draw(st.integers(4, 22)), draw(st.integers(3, 18))
    channels, wide = draw(st.integers(3, 19)), draw(st.integers(8, 40))
    size, stride = draw(st.sampled_from([1, 2, 3, 5])), draw(st.integers(1, 3))
    padding = [[draw(st.integers(0, size - 1)) for _ in range(2)] for _ in range(2)]
    assume(rows + sum(padding[0]) >= size and pixels + sum(padding[1]) >= size)
    kind = draw(st.sampled_from(["pdp", "pd", "dp"]))
    batch = draw(st.integers(1, 2))
    graph = Graph("chain")
    x = y = graph.add(ops.Neg(), graph.input("x", ("N", rows, pixels, channels)))
    if kind[0] == "p":
        kernel, bias = whole(rng, (1, 1, channels, wide)), whole(rng, (wide,))
        y = graph.add(ops.Conv(), y, kernel=kernel, bias=bias)
        y = graph.add(ops.Clip(-30.0, 60.0), y)
        channels = wide
    op = ops.Conv(stride, padding=padding, groups=channels)
    kernel, bias = whole(rng, (size, size, 1, channels)), whole(rng, (channels,))
    y = graph.add(ops.Relu(), graph.add(op, y, kernel=kernel, bias=bias))
    if kind[-1] == "p":
        y = graph.add(ops.Conv(), y, kernel=whole(rng, (1, 1, channels, 6)))
        specs = graph.specs()
        if specs[x].shape == specs[y].shape:
            y = graph.add(ops.Add(), y, x)
    graph.output(y)
    return graph, (batch, rows, pixels, graph.inputs[0].shape[-1])


@st.composite
def pooled(draw):
    """Draw (graph, input shape): a convolution of any kind, then max pooling."""
    rng = draw(generators())
    rows, pixels = draw(st.integers(6, 30)), draw(st.integers(6, 18))
    channels, wide = draw(st.integers(1, 5)), draw(st.integers(8, 40))
    size, stride = draw(st.sampled_from([1, 2, 3, 5])), draw(st.integers(1, 3))
    padding = [[draw(st.integers(0, size - 1)) for _ in range(2)] for _ in range(2)]
    batch = draw(st.integers(1, 2))
    graph = Graph("pooled")
    x = graph.input("x", ("N", rows, pixels, channels))
    kernel, bias = whole(rng, (size, size, channels, wide)), whole(rng, (wide,))
    y = graph.add(ops.Conv(stride, padding=padding), x, kernel=kernel, bias=bias)
    y = graph.add(ops.Relu(), y)
    window = draw(st.integers(1, 4))
    height, width = graph.specs()[y].spatial
    assume(min(height, width) >= window)
    edge = [[draw(st.integers(0, window // 2)) for _ in range(2)] for _ in range(2)]
    ceil = draw(st.booleans())
    op = ops.MaxPool(window, draw(st.integers(1, 4)), padding=edge, ceil_mode=ceil)
    try:
        graph.output(graph.add(op, y))
    except ShapeError:
        assume(False)
    return graph, (batch, rows, pixels, channels)


@given(
    case=st.one_of(chains(), pooled()),
    rng=generators(),
    cache=st.sampled_from(CACHES),
)
def test_strips_are_exact_on_whole(case, rng, cache):
    graph, shape = case
    feeds = {"x": whole(rng, shape)}
    (wanted,) = graph.reference({"x": feeds["x"].astype(np.float64)}).values()
    with pytest.MonkeyPatch.context() as patch, plain_sums():
        patch.setattr(kernels, "LEVEL2_BYTES", cache)
        for isa in kernels.SUPPORTED:
            (alone,) = run(graph, feeds, isa, 1)
            compare(alone, wanted, 0.0, isa)
            for threads in (2, 3):
                np.testing.assert_array_equal(run(graph, feeds, isa, threads)[0], alone)


def test_a_first_convolution_runs_with_its_pooling(monkeypatch):
    monkeypatch.setattr(kernels, "LEVEL2_BYTES", 20 << 10)
    rng = np.random.default_rng(7)
    graph = Graph("stem")
    x = graph.input("x", ("N", 30, 16, 3))
    op = ops.Conv(2, padding=3)
    y = graph.add(ops.Relu(), graph.add(op, x, kernel=whole(rng, (7, 7, 3, 32))))
    graph.output(graph.add(ops.MaxPool(3, 2, padding=1), y))
    (name,) = [a for a in algorithms(optimise(graph)) if "strips" in a]
    assert name.endswith("convolution, max pool")


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize(
    ("size", "stride", "shape"),
    [(7, 2, (2, 50, 46, 3)), (11, 4, (1, 92, 60, 3)), (5, 1, (1, 24, 24, 6))],
)
def test_threads_have_scratch_of_their_own_in_strips(
    size, stride, shape, isa, monkeypatch
):
    """Strips are cut finely, and their first layer transforms its input."""
    monkeypatch.setattr(kernels, "LEVEL2_BYTES", 40 << 10)
    rng = np.random.default_rng(size)
    graph = Graph("stem")
    x = graph.input("x", shape)
    kernel = normal(rng, (size, size, shape[-1], 32), 0.1)
    op = ops.Conv(stride, padding=size // 2)
    y = graph.add(ops.Relu(), graph.add(op, x, kernel=kernel))
    graph.output(graph.add(ops.MaxPool(3, 2, padding=1), y))
    plan = Plan(optimise(graph), {"x": shape}, isa, 3, PackedWeights())
    (step,) = [s.step for s in plan.stages if "strips" in s.step.algorithm]
    arena = [view for view in step.operands if view.buffer.source == "arena"]
    scratch = [view for view in arena if view.rank == 1]
    assert len({view.offset for view in scratch}) == 1, "one for all"
    own = max(view.offset + view.size // 3 for view in scratch)
    assert scratch[0].offset > 0, "it lies behind what is between the layers"
    assert scratch[0].buffer.nbytes >= 4 * 3 * own
    feeds = {"x": normal(rng, shape)}
    (alone,) = run(graph, feeds, isa, 1)
    compare(alone, reference(graph, feeds)[0], 1e-4, isa)
    for threads in (2, 3, 2, 3, 2, 3):
        np.testing.assert_array_equal(run(graph, feeds, isa, threads)[0], alone)


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize("act", [ops.Relu(), ops.Silu(), None])
@pytest.mark.parametrize(
    ("shape", "outputs", "stride"),
    [
        ((1, 24, 24, 16), 16, 1),
        ((2, 23, 29, 20), 37, 1),
        ((3, 9, 8, 70), 65, 1),
        ((1, 42, 46, 64), 70, 2),
    ],
)
def test_winograd_pools_what_a_tile_holds(
    shape, outputs, stride, act, isa, monkeypatch
):
    """The same bits as the pooling of a convolution whose result is wanted itself."""
    monkeypatch.setattr(kernels, "LEVEL2_BYTES", 4 << 10)
    rng = np.random.default_rng(outputs)
    kernel, bias = normal(rng, (3, 3, shape[-1], outputs)), normal(rng, (outputs,))
    graph = Graph("halved")
    x = graph.input("x", shape)
    y = graph.add(ops.Conv(stride, padding=1), x, kernel=kernel, bias=bias)
    if act is not None:
        y = graph.add(act, y)
    graph.output(graph.add(ops.MaxPool(2, 2), y))
    fused = optimise(graph)
    (name,) = [a for a in algorithms(fused) if "winograd" in a]
    assert name.endswith("+ MaxPool")
    feeds = {"x": normal(rng, shape)}
    feeds["x"][0, 7, 5, 3] = np.nan
    graph.output(y)
    apart = optimise(graph)
    assert "max 2x2" in algorithms(apart)
    want, whole_result = run(apart, feeds, isa, 1)
    assert 0 < np.isnan(want).sum() < want.size
    rows, pixels = (2 * (n // 2) for n in whole_result.shape[1:3])
    windows = whole_result[:, :rows, :pixels].reshape(
        shape[0], rows // 2, 2, pixels // 2, 2, outputs
    )
    np.testing.assert_array_equal(want, windows.max((2, 4)))
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(run(fused, feeds, isa, threads)[0], want)


@pytest.mark.parametrize(
    "pool",
    [
        ops.MaxPool(2, 2, padding=1),
        ops.MaxPool(2, 1),
        ops.MaxPool(3, 2),
        ops.MaxPool((2, 1), 2),
        ops.MaxPool(2, 2, ceil_mode=True),
        ops.AveragePool(2, 2),
    ],
)
def test_winograd_does_no_other_pooling(pool, monkeypatch):
    monkeypatch.setattr(kernels, "LEVEL2_BYTES", 4 << 10)
    rng = np.random.default_rng(3)
    graph = Graph("pooled")
    x = graph.input("x", (1, 25, 25, 16))
    y = graph.add(ops.Conv(padding=1), x, kernel=normal(rng, (3, 3, 16, 16)))
    graph.output(graph.add(pool, y))
    names = algorithms(optimise(graph))
    assert any("winograd" in name for name in names)
    assert not any(name.endswith("MaxPool") for name in names)


def test_rows_are_kept_where_a_strip_has_fewer_than_the_kernel_reads(monkeypatch):
    """Four rows move up by two: what they are copied from overlaps where they go."""
    monkeypatch.setattr(kernels, "LEVEL2_BYTES", 26 << 10)
    rng = np.random.default_rng(6)
    graph = Graph("tall")
    x = graph.input("x", ("N", 12, 16, 8))
    y = graph.add(ops.Conv(), x, kernel=whole(rng, (1, 1, 8, 32)))
    op = ops.Conv(padding=2, groups=32)
    graph.output(graph.add(op, y, kernel=whole(rng, (5, 5, 1, 32))))
    assert any(name.startswith("strips of 2:") for name in algorithms(graph))
    feeds = {"x": whole(rng, (1, 12, 16, 8))}
    (wanted,) = graph.reference({"x": feeds["x"].astype(np.float64)}).values()
    for isa in kernels.SUPPORTED:
        for threads in (1, 2):
            compare(run(graph, feeds, isa, threads)[0], wanted, 0.0, isa)


def test_a_chain_does_not_write_over_what_its_next_strip_reads(monkeypatch):
    monkeypatch.setattr(kernels, "LEVEL2_BYTES", 34 << 10)
    rng = np.random.default_rng(9)
    graph = Graph("block")
    x = graph.add(ops.Neg(), graph.input("x", ("N", 16, 16, 6)))
    y = graph.add(ops.Conv(), x, kernel=whole(rng, (1, 1, 6, 24)))
    op = ops.Conv(padding=1, groups=24)
    y = graph.add(op, y, kernel=whole(rng, (3, 3, 1, 24)))
    y = graph.add(ops.Conv(), y, kernel=whole(rng, (1, 1, 24, 6)))
    y = graph.add(ops.Add(), y, x)
    graph.output(graph.add(ops.Conv(), y, kernel=whole(rng, (1, 1, 6, 3))))
    assert any(name.startswith("strips") for name in algorithms(optimise(graph)))
    feeds = {"x": whole(rng, (1, 16, 16, 6))}
    (wanted,) = graph.reference({"x": feeds["x"].astype(np.float64)}).values()
    for isa in kernels.SUPPORTED:
        for threads in (1, 2):
            compare(run(graph, feeds, isa, threads)[0], wanted, 0.0, isa)


@pytest.mark.parametrize("stride", [(2, 1), 2, (1, 3)])
def test_a_depthwise_kernel_of_one_pixel_may_have_a_stride(monkeypatch, stride):
    monkeypatch.setattr(kernels, "LEVEL2_BYTES", 24 << 10)
    rng = np.random.default_rng(8)
    graph = Graph("thinned")
    x = graph.input("x", ("N", 12, 16, 8))
    y = graph.add(ops.Conv(), x, kernel=whole(rng, (1, 1, 8, 32)))
    y = graph.add(ops.Conv(stride, groups=32), y, kernel=whole(rng, (1, 1, 1, 32)))
    graph.output(graph.add(ops.Conv(), y, kernel=whole(rng, (1, 1, 32, 6))))
    assert any(name.startswith("strips") for name in algorithms(graph))
    feeds = {"x": whole(rng, (2, 12, 16, 8))}
    (wanted,) = graph.reference({"x": feeds["x"].astype(np.float64)}).values()
    for isa in kernels.SUPPORTED:
        compare(run(graph, feeds, isa, 2)[0], wanted, 0.0, isa)


def mobile(size):
    rng = np.random.default_rng(4)
    graph = Graph("mobile")
    x = graph.input("x", ("N", size, size, 24))
    y = graph.add(ops.Conv(), x, kernel=rng.standard_normal((1, 1, 24, 144)))
    y = graph.add(ops.Clip(0.0, 6.0), y, name="wide")
    op = ops.Conv(padding=1, groups=144)
    y = graph.add(op, y, kernel=rng.standard_normal((3, 3, 1, 144)))
    y = graph.add(ops.Conv(), y, kernel=rng.standard_normal((1, 1, 144, 24)))
    graph.output(graph.add(ops.Add(), y, x))
    return graph


def test_a_chain_is_one_step_where_it_does_not_fit_the_cache(monkeypatch):
    monkeypatch.setattr(kernels, "LEVEL2_BYTES", 1 << 20)
    assert any("strips" in name for name in algorithms(optimise(mobile(56))))
    assert not any("strips" in name for name in algorithms(optimise(mobile(8))))


def test_a_chain_whose_middle_is_wanted_is_not_fused(monkeypatch):
    monkeypatch.setattr(kernels, "LEVEL2_BYTES", 1 << 20)
    graph = mobile(56)
    graph.output("wide")
    names = algorithms(optimise(graph))
    assert not any("pointwise, depthwise" in name for name in names)


def test_a_strip_after_another_computes_only_new_rows(monkeypatch):
    module = kernels.load("strips")
    found = []

    def strips(ways, elements, real=module.strips):
        found.extend(ways)
        return real(ways, elements)

    monkeypatch.setattr(module, "strips", strips)
    monkeypatch.setattr(kernels, "LEVEL2_BYTES", 20 << 10)
    graph = Graph("mobile")
    x = graph.input("x", ("N", 24, 12, 8))
    x = graph.add(ops.Conv(), x, kernel=np.ones((1, 1, 8, 24), np.float32))
    x = graph.add(
        ops.Conv(padding=1, groups=24), x, kernel=np.ones((3, 3, 1, 24), np.float32)
    )
    graph.output(graph.add(ops.Conv(), x, kernel=np.ones((1, 1, 24, 8), np.float32)))
    algorithms(graph)
    first, *others = found
    assert len(others) > 2
    assert first[1] == []
    for alone, following in others:
        copies = [call for call in following if call[2] == [True, True]]
        assert len(copies) == 1
        assert copies[0] not in alone
        kernels_of = [call[:2] for call in following]
        assert kernels_of[-2:] == [call[:2] for call in alone[-2:]]
        product = following[-1][0]
        fewer = next(geometry for kernel, geometry in kernels_of if kernel == product)
        assert fewer not in [call[1] for call in alone]
