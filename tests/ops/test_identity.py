"""Passing tensors on, constants, and the copies other operators are made of."""

import itertools

import numpy as np
import pytest
from check import check, reference, run
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators, normal, shapes
from striate import Graph, kernels, ops
from striate.kernels._program import Context, Program


@given(shape=shapes(0 + 1), rng=generators())
def test_identity(shape, rng):
    check(ops.Identity(), normal(rng, shape), exact=True)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "int64"])
def test_any_element_type(dtype):
    x = np.arange(3 * 33).reshape(3, 33).astype(dtype)
    check(ops.Identity(), x, exact=True)
    check(ops.Transpose((1, 0)), x, exact=True)
    check(ops.Slice((30,), (0,), (1,), (-2,)), x, exact=True)


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize("shape", [(), (5,), (1, 4, 4, 17)])
def test_constant(isa, shape):
    value = normal(np.random.default_rng(0), shape)
    graph = Graph()
    x = graph.input("x", (2,))
    graph.output(
        graph.add(ops.Constant(), name="c", value=value), graph.add(ops.Neg(), x)
    )
    feeds = {"x": np.ones(2, np.float32)}
    for got, want in zip(
        run(graph, feeds, isa, 1), reference(graph, feeds), strict=True
    ):
        np.testing.assert_array_equal(got, want)


def execute(kernel, offset, size, array, x, threads):
    """Run one kernel that writes `array` from byte `offset` on, and may read `x`."""
    places = [[(2, offset)], [(2, offset), (1, 0)]][x.size > 0]
    sizes = [x.nbytes, array.nbytes]
    program = Program([(*kernel, places, False)], 64, sizes, 1, None)
    Context(program).run((x, array), threads)


NOTHING = np.empty(0, np.uint8)


@st.composite
def strided(draw, most=4):
    """Draw a shape and strides under which no two elements share a place."""
    shape = draw(shapes(1, most))
    order = draw(st.permutations(range(len(shape) - 1)))
    strides = [1] * len(shape)
    step = shape[-1] + draw(st.integers(0, 3))
    for axis in order:
        strides[axis] = step
        step *= shape[axis] + draw(st.integers(0, 1))
    return shape, tuple(strides), step


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize("threads", [1, 2, 3])
@given(drawn=strided(), data=st.data())
def test_copy_between_any_strides(isa, threads, drawn, data):
    shape, out_strides, size = drawn
    dtype = np.dtype(data.draw(st.sampled_from(["uint8", "int16", "float32", "int64"])))
    axes = data.draw(st.permutations(range(len(shape))))
    x_strides = [0] * len(shape)
    step = 1
    for axis in axes:
        if data.draw(st.integers(0, 4)):
            x_strides[axis] = step
            step *= shape[axis] + data.draw(st.integers(0, 1))
    x = np.arange(step).astype(dtype)
    out = np.full(size, 77, dtype)
    want = out.copy()
    as_bytes = [s * dtype.itemsize for s in out_strides]
    np.lib.stride_tricks.as_strided(want, shape, as_bytes)[...] = (
        np.lib.stride_tricks.as_strided(
            x, shape, [s * dtype.itemsize for s in x_strides]
        )
    )
    copy = kernels.load("copy", isa).copy(
        shape, out_strides, tuple(x_strides), dtype.itemsize
    )
    execute(copy, 0, size, out, x, threads)
    np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize("channels", range(1, 10))
@pytest.mark.parametrize("pixels", [15, 16, 37])
def test_copy_to_short_rows_writes_nothing_between_them(isa, channels, pixels):
    x = normal(np.random.default_rng(pixels), (channels, 3, pixels))
    out = np.full((3, pixels + 2, channels), 77, np.float32)
    want = out.copy()
    want[:, 1:-1] = x.transpose(1, 2, 0)
    copy = kernels.load("copy", isa).copy(
        (3, pixels, channels),
        tuple(s // 4 for s in out.strides),
        (pixels, 1, 3 * pixels),
        4,
    )
    execute(copy, 4 * channels, out.size, out, x, 2)
    np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@given(drawn=strided(), threads=st.integers(1, 3))
def test_fill(isa, drawn, threads):
    shape, strides, size = drawn
    out = np.full(size, 77, np.float32)
    want = out.copy()
    np.lib.stride_tricks.as_strided(want, shape, [4 * s for s in strides])[...] = -2.5
    execute(
        kernels.load("copy", isa).fill(shape, strides, -2.5),
        0,
        size,
        out,
        NOTHING,
        threads,
    )
    np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize("value", [0, 1.5])
@given(shape=shapes(2, 5), threads=st.integers(1, 3), data=st.data())
def test_border(isa, value, shape, threads, data):
    sides = st.tuples(st.integers(0, 2), st.integers(0, 2))
    halo = data.draw(st.tuples(*[sides] * len(shape)))
    inside = np.full(shape, np.nan, np.float32)
    want = np.pad(inside, halo, constant_values=value)
    out = np.full(want.shape, np.nan, np.float32)
    start = sum(b * s for (b, _), s in zip(halo, out.strides, strict=True))
    border = kernels.load("copy", isa).border(
        shape, tuple(s // 4 for s in out.strides), halo, value
    )
    execute(border, start, out.size, out, NOTHING, threads)
    np.testing.assert_array_equal(out, want)


def test_kernels_refuse_what_they_cannot_do():
    copy = kernels.load("copy")
    with pytest.raises(ValueError, match="itemsize 3"):
        copy.copy((4,), (1,), (1,), 3)
    shape, strides = (2,) * 9, tuple(2**k for k in range(8, -1, -1))
    with pytest.raises(ValueError, match="9 axes"):
        copy.fill(shape, strides, 0.0)


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
def test_eight_axes_that_cannot_be_merged(isa):
    shape = (2,) * 8
    x = np.arange(256, dtype=np.float32)
    for axes in itertools.islice(itertools.permutations(range(8)), 0, 40320, 5041):
        out = np.full(256, 77, np.float32)
        view = x.reshape(shape).transpose(axes)
        x_strides = tuple(s // 4 for s in view.strides)
        out_strides = tuple(2**k for k in range(7, -1, -1))
        kernel = kernels.load("copy", isa).copy(shape, out_strides, x_strides, 4)
        execute(kernel, 0, 256, out, x, 1)
        np.testing.assert_array_equal(out.reshape(shape), view)
