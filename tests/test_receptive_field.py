"""A position sees a pixel exactly if changing that pixel can change it.

At the border, where padding hides pixels, it may see less.
"""

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from striate import Graph, ShapeError, ops
from striate.receptive_field import ReceptiveField, receptive_fields


def ones(*shape):
    return np.ones(shape, np.float32)


def assert_sees(graph, value, size, exact=True):
    """Change each pixel of one row in turn and see which positions change.

    Not `exact` are the fields of layers whose positions do not all see as much.
    """
    shape = (1, size, 1)
    (field,) = receptive_fields(graph, {"x": shape})[value]
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 2, shape)
    before = graph.reference({"x": x}, [value])[value]
    count = before.shape[1] if before.ndim == 3 else 1
    saw = np.zeros((count, size), bool)
    for pixel in range(size):
        changed = x.copy()
        changed[0, pixel] += 1e6
        after = graph.reference({"x": changed}, [value])[value]
        saw[:, pixel] = (before != after).reshape(count, -1).any(axis=1)
    for i in range(count):
        first = field.offset + i * field.stride
        last = first + field.size
        told = (np.arange(size) >= first) & (np.arange(size) < last)
        inside = first >= 0 and last <= size
        assert not (saw[i] & ~told).any(), f"{i} sees more than {field}"
        sees_all = saw[i][told].all() or not (exact and inside)
        assert sees_all, f"{i} sees less than {field}"
    assert exact or field.size <= saw.sum(axis=1).max() + 4


WINDOWS = st.integers(1, 4).flatmap(
    lambda kernel: st.tuples(
        st.sampled_from([ops.Conv, ops.MaxPool, ops.AveragePool]),
        st.just((kernel,)),
        st.tuples(st.integers(1, min(kernel, 3))),
        st.sampled_from(["valid", "same", "same_lower"]),
    )
)


@settings(max_examples=60, deadline=None)
@given(st.lists(WINDOWS, min_size=1, max_size=4), st.integers(40, 60))
def test_windows_in_a_row(windows, size):
    graph = Graph()
    x = graph.input("x", ("N", "L", 1))
    for kind, kernel, stride, padding in windows:
        if kind is ops.Conv:
            conv = ops.Conv(stride=stride, padding=padding)
            x = graph.add(conv, x, kernel=ones(*kernel, 1, 1))
        else:
            x = graph.add(kind(kernel=kernel, stride=stride, padding=padding), x)
    try:
        graph.specs({"x": (1, size, 1)})
    except ShapeError:
        reject()
    assert_sees(graph, x, size)


def test_dilation_spans_its_holes():
    graph = Graph()
    x = graph.input("x", ("N", "L", 1))
    op = ops.Conv(dilation=(4,), padding=((4, 4),))
    x = graph.add(op, x, kernel=ones(3, 1, 1))
    x = graph.add(ops.Conv(), x, kernel=ones(4, 1, 1))
    assert receptive_fields(graph)[x] == (ReceptiveField(12, 1, -4),)
    assert_sees(graph, x, 30)


def test_vgg_first_block_by_hand():
    graph = Graph()
    x = graph.input("x", ("N", 32, 32, 1))
    for _ in range(2):
        x = graph.add(ops.Conv(padding="same"), x, kernel=ones(3, 3, 1, 1))
    x = graph.add(ops.MaxPool(kernel=(2, 2), stride=(2, 2)), x)
    x = graph.add(ops.Conv(padding="same"), x, kernel=ones(3, 3, 1, 1))
    assert receptive_fields(graph)[x] == (ReceptiveField(10, 2, -4),) * 2


def test_branches_see_what_any_of_them_sees():
    graph = Graph()
    x = graph.input("x", ("N", "L", 1))
    narrow = graph.add(ops.Conv(padding="same"), x, kernel=ones(3, 1, 1))
    wide = graph.add(ops.Conv(padding="same"), x, kernel=ones(9, 1, 1))
    joined = graph.add(ops.Concat(), narrow, wide)
    total = graph.add(ops.Add(), joined, narrow)
    fields = receptive_fields(graph)
    assert fields[narrow] == (ReceptiveField(3, 1, -1),)
    assert fields[joined] == fields[total] == (ReceptiveField(9, 1, -4),)
    assert_sees(graph, total, 20)


def test_a_gate_over_the_whole_image_sees_everything():
    graph = Graph()
    x = graph.input("x", ("N", "L", 1))
    local = graph.add(ops.Conv(padding="same"), x, kernel=ones(3, 1, 1))
    gate = graph.add(ops.GlobalAveragePool(keepdims=True), x)
    gated = graph.add(ops.Mul(), local, gate)
    (field,) = receptive_fields(graph, {"x": (1, 20, 1)})[gated]
    assert field.stride == 0
    assert field.offset <= 0
    assert field.offset + field.size >= 20
    assert_sees(graph, gate, 20)


@pytest.mark.parametrize(
    ("op", "whole"),
    [
        (ops.GlobalAveragePool(), True),
        (ops.Flatten(), True),
        (ops.Mean(axes=(1,)), True),
        (ops.Softmax(axis=1), True),
        (ops.Softmax(axis=-1), False),
        (ops.Mean(axes=(2,)), False),
        (ops.Reshape(shape=(0, 20, 1)), True),
        (ops.Transpose(axes=(0, 1, 2)), True),
        (ops.Sigmoid(), False),
    ],
)
def test_what_mixes_positions_sees_everything(op, whole):
    graph = Graph()
    x = graph.input("x", ("N", 20, 1))
    y = graph.add(op, x)
    field = ReceptiveField(20, 0, 0) if whole else ReceptiveField(1, 1, 0)
    assert receptive_fields(graph)[y] == (field,)


@pytest.mark.parametrize(
    ("start", "stop", "step"), [(3, 18, 2), (15, 2, -3), (-5, 99, 1)]
)
def test_a_slice_moves_what_is_seen(start, stop, step):
    graph = Graph()
    x = graph.input("x", ("N", 20, 1))
    x = graph.add(ops.Conv(), x, kernel=ones(3, 1, 1))
    x = graph.add(ops.Slice((start,), (stop,), (1,), (step,)), x)
    assert_sees(graph, x, 20)


def test_a_slice_backwards_and_a_window_behind_it():
    graph = Graph()
    x = graph.input("x", ("N", 20, 1))
    x = graph.add(ops.Slice((19,), (-99,), (1,), (-1,)), x)
    x = graph.add(ops.Conv(stride=(2,), padding="same"), x, kernel=ones(5, 1, 1))
    assert_sees(graph, x, 20)


def test_padding_moves_what_is_seen():
    graph = Graph()
    x = graph.input("x", ("N", 20, 1))
    x = graph.add(ops.Pad(((0, 0), (3, 1), (0, 0))), x)
    x = graph.add(ops.Conv(stride=(2,)), x, kernel=ones(4, 1, 1))
    assert receptive_fields(graph)[x] == (ReceptiveField(4, 2, -3),)
    assert_sees(graph, x, 20)


def test_axes_are_told_apart():
    graph = Graph()
    x = graph.input("x", ("N", 32, 32, 1))
    x = graph.add(ops.Conv(stride=(2, 1)), x, kernel=ones(5, 3, 1, 1))
    assert receptive_fields(graph)[x] == (
        ReceptiveField(5, 2, 0),
        ReceptiveField(3, 1, 0),
    )


@pytest.mark.parametrize(
    ("op", "stride"),
    [
        (ops.Resize(scales=(2.0,), axes=(1,)), 2),
        (ops.Resize(scales=(2.0,), axes=(1,), mode="linear"), 2),
        (ops.Resize(scales=(4.0,), axes=(1,), mode="linear"), 1),
        (ops.Resize(scales=(0.5,), axes=(1,), mode="linear", antialias=True), 8),
        (ops.AdaptiveAveragePool(output_size=(5,)), 8),
        (ops.AdaptiveMaxPool(output_size=(10,)), 4),
        (ops.AdaptiveMaxPool(output_size=(2,)), 20),
    ],
    ids=str,
)
def test_what_resamples_keeps_its_positions(op, stride):
    graph = Graph()
    x = graph.input("x", ("N", 40, 1))
    x = graph.add(ops.Conv(stride=(4,), padding=((2, 2),)), x, kernel=ones(7, 1, 1))
    x = graph.add(op, x)
    (field,) = receptive_fields(graph)[x]
    assert field.stride == stride
    assert_sees(graph, x, 40, exact=False)


@pytest.mark.parametrize(
    ("kernel", "settings", "stride"),
    [
        (2, {"stride": (2,)}, 2),
        (4, {"stride": (2,), "padding": ((1, 1),)}, 2),
        (3, {"stride": (2,), "padding": "same"}, 2),
        (3, {"stride": (4,), "dilation": (2,)}, 1),
        (3, {"padding": ((1, 1),)}, 4),
    ],
)
def test_a_transposed_convolution_keeps_its_positions(kernel, settings, stride):
    graph = Graph()
    x = graph.input("x", ("N", 60, 1))
    x = graph.add(ops.Conv(stride=(4,)), x, kernel=ones(5, 1, 1))
    x = graph.add(ops.ConvTranspose(**settings), x, kernel=ones(kernel, 1, 1))
    (field,) = receptive_fields(graph)[x]
    assert field.stride == stride
    assert_sees(graph, x, 60, exact=False)


def test_a_u_net_sees_through_its_bend():
    graph = Graph()
    x = graph.input("x", ("N", 64, 1))
    wide = graph.add(ops.Conv(padding="same"), x, kernel=ones(3, 1, 1))
    low = graph.add(ops.MaxPool(kernel=(2,), stride=(2,)), wide)
    low = graph.add(ops.Conv(padding="same"), low, kernel=ones(3, 1, 1))
    high = graph.add(ops.ConvTranspose(stride=(2,)), low, kernel=ones(2, 1, 1))
    joined = graph.add(ops.Concat(), wide, high)
    (field,) = receptive_fields(graph)[joined]
    assert field.stride == 1
    assert field.size < 16
    assert_sees(graph, joined, 64, exact=False)


def test_what_cannot_be_followed_sees_everything():
    graph = Graph()
    x = graph.input("x", ("N", 40, 1))
    y = graph.add(ops.Resize(scales=(1.3,), axes=(1,)), x)
    z = graph.add(ops.Reshape(shape=(0, 20, 2)), x)
    fields = receptive_fields(graph)
    assert fields[y] == fields[z] == (ReceptiveField(40, 0, 0),)


def test_what_depends_on_no_image_sees_nothing():
    graph = Graph()
    x = graph.input("x", ("N", 8))
    x = graph.add(ops.Dense(), x, kernel=ones(8, 4))
    assert receptive_fields(graph) == {"x": (), x: ()}
