"""Axes that move for free: whatever is done to a value, its elements stay right."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from striate import ops
from striate.errors import UnsupportedModelError
from striate.tools.builder import Builder, sanitised, unique
from striate.tools.layout import last


def shapes_of(size):
    """Return shapes of `size` elements, of up to five axes."""

    def divide(rest, rank):
        if rank == 1:
            return st.just((rest,))
        divisors = [d for d in range(1, rest + 1) if rest % d == 0]
        return st.sampled_from(divisors).flatmap(
            lambda d: divide(rest // d, rank - 1).map(lambda tail: (d, *tail))
        )

    return st.integers(1, 5).flatmap(lambda rank: divide(size, rank))


@st.composite
def journeys(draw):
    """Return an input shape, its stored order and steps of reshapes and transposes."""
    shape = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    size = 6 * math.prod(shape)
    steps = draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("reshape"), shapes_of(size)),
                st.tuples(st.just("transpose"), st.permutations(range(5))),
                st.tuples(st.just("relu"), st.none()),
                st.tuples(st.just("add"), st.integers(0, 31)),
                st.tuples(st.just("twice"), st.none()),
                st.tuples(st.just("dense"), st.none()),
            ),
            max_size=6,
        )
    )
    stored = draw(st.permutations(range(len(shape) + 1)))
    return (6, *shape), stored, steps


@settings(max_examples=200)
@given(journeys(), st.booleans())
def test_elements_stay_right(journey, open_batch):
    """Take a value through `steps`; the graph computes what NumPy does."""
    shape, stored, steps = journey
    builder = Builder({"N": (6, 12)} if open_batch else {})
    named = ("N", *shape[1:]) if open_batch else shape
    value = builder.input("x", named, stored)
    random = np.random.default_rng(0)
    x = random.integers(-9, 9, shape).astype(np.float64)
    wanted = x
    for kind, argument in steps:
        if kind == "reshape":
            batch = value.shape[0]
            if len(set(batch)) > 1 and argument[0] != 6:
                continue
            if open_batch and len(set(batch)) == 1:
                continue
            sizes = [(n,) * builder.bindings for n in argument]
            sizes[0] = batch if open_batch else sizes[0]
            value = builder.reshape(value, sizes)
            wanted = wanted.reshape(argument)
        elif kind == "transpose":
            axes = [axis for axis in argument if axis < wanted.ndim]
            value, wanted = value.transpose(axes), wanted.transpose(axes)
        elif kind == "relu":
            value = builder.elementwise(ops.Relu(), value)
            wanted = np.maximum(wanted, 0)
        elif kind == "add":
            start = 1 if open_batch else 0
            sizes = [
                n if argument >> i & 1 and all(d == n for d in dim) else 1
                for i, (n, dim) in enumerate(
                    zip(wanted.shape, value.shape, strict=True)
                )
            ][start:]
            constant = random.integers(-9, 9, sizes).astype(np.float32)
            value = builder.combine(ops.Add(), value, builder.constant(constant))
            wanted = wanted + constant
        elif kind == "twice":
            value = builder.combine(ops.Add(), value, value)
            wanted = wanted + wanted
        elif kind == "dense" and len(set(value.shape[-1])) == 1:
            kernel = random.integers(-2, 3, (wanted.shape[-1],) * 2).astype(np.float32)
            value, rows = value.as_it_lies(value.rank - 1, kernel)
            value = builder.apply(ops.Dense(), value, kernel=rows)
            wanted = wanted @ kernel
    builder.output(value, "y")
    graph = builder.graph("journey")
    found = graph.reference({"x": x.transpose(stored)})["y"]
    assert np.array_equal(found, wanted)
    feeds = {"x": x.transpose(stored).shape}
    assert graph.specs(feeds)["y"].shape == wanted.shape


def builder_batch(builder):
    return tuple(binding["N"] for binding in builder.bound)


def kinds(builder, *outputs):
    for index, value in enumerate(outputs):
        builder.output(value, f"y{index}")
    return [type(node.op).__name__ for node in builder.graph("g").nodes]


def image(builder, channels=6):
    return builder.input("x", ("N", channels, 4, 5), last(4))


@pytest.fixture
def builder():
    return Builder({"N": (2, 3)})


def fixed(builder, *sizes):
    return [(size,) * builder.bindings for size in sizes]


def test_reordering_twice_is_nothing(builder):
    x = builder.elementwise(ops.Relu(), image(builder))
    assert kinds(builder, x.channels_last()) == ["Relu"]


def test_channel_shuffle(builder):
    x = image(builder)
    batch = builder_batch(builder)
    y = builder.reshape(x, [batch, *fixed(builder, 2, 3, 4, 5)])
    y = builder.reshape(y.transpose((0, 2, 1, 3, 4)), x.shape)
    assert kinds(builder, y.channels_last()) == ["ChannelShuffle"]


def test_a_constant_for_half_of_an_axis(builder):
    x = builder.input("x", ("N", 24), (0, 1))
    batch = builder_batch(builder)
    y = builder.reshape(x, [batch, *fixed(builder, 4, 6)])
    constant = np.float32([[1], [2], [3], [4]])
    y = builder.combine(ops.Add(), y, builder.constant(constant))
    builder.output(builder.reshape(y, x.shape), "y")
    graph = builder.graph("g")
    found = graph.reference({"x": np.zeros((2, 24))})["y"]
    assert [type(node.op).__name__ for node in graph.nodes] == ["Add"]
    assert found[1].tolist() == np.repeat([1, 2, 3, 4], 6).tolist()


def test_another_order_of_three_parts_is_no_shuffle(builder):
    x = image(builder, 12)
    batch = builder_batch(builder)
    y = builder.reshape(x, [batch, *fixed(builder, 2, 3, 2, 4, 5)])
    y = builder.reshape(y.transpose((0, 3, 2, 1, 4, 5)), x.shape)
    builder.output(y.channels_last(), "y")
    graph = builder.graph("g")
    pixels = np.arange(1.0 * 2 * 12 * 4 * 5).reshape(2, 12, 4, 5)
    wanted = pixels.reshape(2, 2, 3, 2, 4, 5).transpose(0, 3, 2, 1, 4, 5)
    wanted = wanted.reshape(2, 12, 4, 5).transpose(0, 2, 3, 1)
    found = graph.reference({"x": pixels.transpose(0, 2, 3, 1)})["y"]
    assert np.array_equal(found, wanted)


def test_one_pixel_flattens_without_a_transpose(builder):
    x = builder.apply(ops.GlobalAveragePool(True), image(builder).channels_last())
    x = builder.reshape(
        x.channels_first(), [builder_batch(builder), (6,) * builder.bindings]
    )
    assert kinds(builder, x) == ["GlobalAveragePool", "Flatten"]


def test_a_transpose_is_made_once_for_all_readers(builder):
    x = builder.elementwise(ops.Relu(), image(builder))
    outputs = [builder.elementwise(op, x) for op in (ops.Sigmoid(), ops.Tanh())]
    both = [
        builder.apply(ops.Softmax(axis=1), x),
        builder.apply(ops.Softmax(axis=2), x),
    ]
    found = kinds(builder, *both, *(y.channels_last() for y in outputs))
    assert found.count("Transpose") == 1
    assert [entry["axes"] for entry in builder.transposes] == [[0, 3, 1, 2]]


def test_two_open_sizes_that_move_are_refused():
    builder = Builder({"N": (2, 3), "H": (24, 32)})
    x = builder.input("x", ("N", 6, "H", 5), range(4)).transpose((2, 1, 0, 3))
    rows = tuple(6 * n for n in x.shape[0])
    columns = tuple(5 * n for n in x.shape[2])
    with pytest.raises(UnsupportedModelError, match="the open size 'N'"):
        builder.output(builder.reshape(x, [rows, columns]), "y")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("/features/features.1/conv/conv.0/conv.0.2/Clip", "features.1.conv.0.2.Clip"),
        ("conv1", "conv1"),
        ("Conv__12:0", "Conv__12.0"),
        ("a b/c", "a_b.c"),
        ("...", "layer"),
        ("", "layer"),
        ("-x", "x"),
        ("ü", "_"),
        ("a" * 200, "a" * 120),
    ],
)
def test_names(name, wanted):
    assert sanitised(name) == wanted


def test_names_stay_apart():
    taken = set()
    for wanted in ("conv", "conv_2", "conv_3"):
        found = unique("conv", taken)
        taken.add(found)
        assert found == wanted
    long = unique("a" * 200, {"a" * 120})
    assert len(long) <= 128
    assert long.endswith("_2")
