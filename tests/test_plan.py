"""Where a plan puts values, seen through answers and arenas full of NaN."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from striate import Graph, Model, kernels, ops
from striate.packed_weights import PackedWeights
from striate.passes import optimise
from striate.plan import Plan

RNG = np.random.default_rng(17)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def right(graph, shape, names=None):
    """Assert that the model computes the reference, in a poisoned arena."""
    x = normal(*shape)
    wanted = graph.reference({"x": x.astype(np.float64)}, names)
    for isa in kernels.SUPPORTED:
        for threads in (1, 2):
            model = Model(graph, isa=isa, threads=threads)
            model._poison = True
            found = model.run({"x": x}, names)
            for name, value in wanted.items():
                bound = 3e-6 * np.abs(value).max()
                assert np.abs(found[name] - value).max() <= bound, (name, isa)


def plan(graph):
    return Plan(graph, graph.default_shapes(), kernels.ISA, 1, PackedWeights())


def algorithms(graph):
    return [stage.step.algorithm for stage in plan(graph).stages]


def start(*shape):
    graph = Graph("test")
    return graph, graph.input("x", ("N", *shape))


def test_padding_costs_one_border_and_no_copy_between_layers():
    graph, x = start(9, 9, 20)
    x = graph.add(ops.Conv(), x, kernel=normal(1, 1, 20, 8))
    graph.output(graph.add(ops.Conv(padding=1, stride=2), x, kernel=normal(3, 3, 8, 8)))
    names = algorithms(graph)
    assert names.count("border") == 1
    assert "copy" not in names
    right(graph, (2, 9, 9, 20))


def test_two_readers_with_different_padding_share_a_border():
    graph, x = start(9, 9, 8)
    x = graph.add(ops.Conv(), x, kernel=normal(1, 1, 8, 8))
    a = graph.add(ops.Conv(padding=1), x, kernel=normal(3, 3, 8, 8))
    b = graph.add(ops.Conv(padding=2), x, kernel=normal(5, 5, 8, 8))
    graph.output(graph.add(ops.Add(), a, b))
    assert algorithms(graph).count("border") == 1
    right(graph, (1, 9, 9, 8))


def test_concat_is_written_by_its_producers():
    graph, x = start(6, 6, 5)
    parts = [graph.add(ops.Conv(), x, kernel=normal(1, 1, 5, n)) for n in (7, 16, 3)]
    x = graph.add(ops.Concat(), *parts)
    graph.output(graph.add(ops.Conv(padding=1), x, kernel=normal(3, 3, 26, 4)))
    assert "copy" not in algorithms(graph)
    right(graph, (2, 6, 6, 5))


def test_concat_in_a_concat():
    graph, x = start(6, 6, 5)
    a = graph.add(ops.Conv(), x, kernel=normal(1, 1, 5, 7))
    b = graph.add(ops.Concat(), a, x)
    c = graph.add(ops.Conv(padding=1), b, kernel=normal(3, 3, 12, 4))
    graph.output(graph.add(ops.Concat(), b, c, a))
    right(graph, (2, 6, 6, 5))


def test_a_part_of_a_concat_may_be_an_output_or_padded_by_its_reader():
    graph, x = start(6, 6, 5)
    a = graph.add(ops.Conv(), x, kernel=normal(1, 1, 5, 7))
    b = graph.add(ops.Conv(), x, kernel=normal(1, 1, 5, 4))
    c = graph.add(ops.Conv(padding=2), b, kernel=normal(5, 5, 4, 4))
    graph.output(a, graph.add(ops.Concat(), a, b, c))
    right(graph, (1, 6, 6, 5))


@pytest.mark.parametrize("read_later", [False, True])
def test_a_sum_is_written_over_what_it_adds_if_nobody_reads_that_later(read_later):
    graph, x = start(6, 6, 8)
    a = graph.add(ops.Conv(), x, kernel=normal(1, 1, 8, 8))
    b = graph.add(ops.Conv(), a, kernel=normal(1, 1, 8, 8))
    c = graph.add(ops.Conv(), b, kernel=normal(1, 1, 8, 8))
    total = graph.add(ops.Add(), c, a, name="total")
    y = graph.add(ops.Conv(), total, kernel=normal(1, 1, 8, 4))
    if read_later:
        later = graph.add(ops.MaxPool(3, 1, padding=1), a)
        y = graph.add(ops.Concat(), y, later)
    graph.output(y)
    places = {value.name: value.start for value in plan(optimise(graph)).values}
    assert (places[total] == places[a]) is not read_later
    right(graph, (2, 6, 6, 8))


def test_the_same_value_twice_in_a_concat():
    graph, x = start(6, 6, 5)
    a = graph.add(ops.Relu(), x)
    graph.output(graph.add(ops.Concat(), a, a))
    right(graph, (1, 6, 6, 5))


def test_split_gives_views_that_convolutions_can_pad():
    graph, x = start(6, 6, 12)
    x = graph.add(ops.Conv(), x, kernel=normal(1, 1, 12, 12))
    a, b = graph.add(ops.Split(sizes=(5, 7)), x, outputs=("a", "b"))
    a = graph.add(ops.Conv(padding=1), a, kernel=normal(3, 3, 5, 7))
    graph.output(graph.add(ops.Add(), a, b))
    assert "copy" not in algorithms(graph)
    right(graph, (2, 6, 6, 12))


def test_reshapes_cost_nothing_or_a_copy():
    graph, x = start(4, 6, 8)
    x = graph.add(ops.Conv(), x, kernel=normal(1, 1, 8, 8))
    flat = graph.add(ops.Flatten(), x)
    y = graph.add(ops.Dense(), flat, kernel=normal(192, 5))
    graph.output(y)
    assert "copy" not in algorithms(graph)
    padded = graph.add(ops.Conv(padding=1), x, kernel=normal(3, 3, 8, 2))
    graph.output(padded)
    right(graph, (2, 4, 6, 8))


def test_transposes_between_convolutions():
    graph, x = start(4, 6, 8)
    x = graph.add(ops.Transpose((0, 2, 1, 3)), x)
    x = graph.add(ops.Conv(padding=1), x, kernel=normal(3, 3, 8, 8))
    x = graph.add(ops.Transpose((0, 3, 1, 2)), x)
    graph.output(x)
    right(graph, (2, 4, 6, 8))


def test_weights_are_packed_once_for_all_plans():
    graph, x = start("H", 28, 20)
    graph.output(
        graph.add(ops.Conv(padding=1, stride=2), x, kernel=normal(3, 3, 20, 32))
    )
    packed = PackedWeights()
    Plan(graph, {"x": (1, 28, 28, 20)}, kernels.ISA, 1, packed)
    before = len(packed.arrays())
    Plan(graph, {"x": (3, 56, 28, 20)}, kernels.ISA, 1, packed)
    assert len(packed.arrays()) == before > 0


@st.composite
def networks(draw):
    """Draw a small net of convolutions, joins, splits and residuals."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    graph = Graph("random")
    x = graph.input("x", ("N", 7, 8, 6))
    values = [x]
    for _ in range(draw(st.integers(1, 7))):
        value = values[draw(st.integers(0, len(values) - 1))]
        channels = graph.specs()[value].shape[-1]
        kind = draw(
            st.sampled_from(["conv", "depthwise", "pool", "join", "split", "add"])
        )
        if kind == "conv":
            size = draw(st.sampled_from([1, 3, 5]))
            out = draw(st.sampled_from([3, 16, 17]))
            kernel = rng.standard_normal((size, size, channels, out)) / (
                size * channels
            )
            value = graph.add(ops.Conv(padding="same"), value, kernel=kernel)
            value = graph.add(ops.Relu(), value)
        elif kind == "depthwise":
            kernel = rng.standard_normal((3, 3, 1, channels))
            value = graph.add(
                ops.Conv(padding="same", groups=channels), value, kernel=kernel
            )
        elif kind == "pool":
            value = graph.add(ops.MaxPool(3, padding=1), value)
        elif kind == "join":
            other = values[draw(st.integers(0, len(values) - 1))]
            value = graph.add(ops.Concat(), value, other)
        elif kind == "split":
            first = draw(st.integers(1, channels - 1)) if channels > 1 else 1
            if first == channels:
                continue
            names = (f"s{len(values)}a", f"s{len(values)}b")
            parts = graph.add(
                ops.Split(sizes=(first, channels - first)), value, outputs=names
            )
            values.append(parts[0])
            value = parts[1]
        else:
            kernel = rng.standard_normal((1, 1, channels, channels)) / channels
            other = graph.add(ops.Conv(), value, kernel=kernel)
            value = graph.add(ops.Add(), value, other)
        values.append(value)
    used = {v for node in graph.nodes for v in node.reads}
    for value in values[1:]:
        if value not in used or draw(st.booleans()):
            graph.output(value)
    return graph


@given(networks())
def test_any_net_matches_its_reference(graph):
    right(graph, (2, 7, 8, 6))


@pytest.mark.parametrize("seed", range(3))
def test_a_run_leaves_nothing_behind_for_the_next(seed):
    rng = np.random.default_rng(seed)
    graph, x = start(8, 8, 16)
    for _ in range(3):
        kernel = rng.standard_normal((3, 3, 16, 16)) / 12
        x = graph.add(ops.Conv(padding=1), x, kernel=kernel)
    graph.output(x)
    model = Model(graph)
    a, b = normal(1, 8, 8, 16), normal(1, 8, 8, 16)
    first = model(a)
    model(b)
    np.testing.assert_array_equal(model(a), first)
