"""Gathering and scattering by indices."""

import numpy as np
import pytest
from check import check
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_in_onnx import onnx_answers
from strategies import generators, normal, shapes, whole
from striate import DTypeError, Graph, Model, ShapeError, Spec, ops

TYPES = ["float32", "int64", "int32", "int8", "uint8", "bool"]


@pytest.mark.parametrize("dtype", TYPES)
@settings(max_examples=8)
@given(shape=shapes(), picked=shapes(0, 2), axis=st.integers(0, 3), rng=generators())
def test_gather(dtype, shape, picked, axis, rng):
    axis %= len(shape)
    x = rng.integers(0, 100, shape).astype(dtype)
    n = shape[axis]
    indices = rng.integers(-n, n, picked)
    op = ops.Gather(axis - len(shape))
    y = check(op, x, indices, exact=True)
    np.testing.assert_array_equal(y, np.take(x, indices, axis))
    check(op, x, exact=True, indices=indices.astype(np.int32))
    check(op, indices.astype(np.int32), exact=True, x=x)


def test_indices_outside_are_the_nearest_inside():
    x = np.float32([1, 2, 3])
    indices = np.int64([3, -4, 2**62, -(2**62), -1])
    assert check(ops.Gather(), x, indices, exact=True).tolist() == [3, 1, 3, 1, 3]
    elements = check(ops.GatherElements(), x, indices, exact=True)
    assert elements.tolist() == [3, 1, 3, 1, 3]
    tuples = check(ops.GatherND(), x, indices[:, None].copy(), exact=True)
    assert tuples.tolist() == [3, 1, 3, 1, 3]


@pytest.mark.parametrize("dtype", TYPES)
@settings(max_examples=8)
@given(shape=shapes(), axis=st.integers(0, 3), data=st.data(), rng=generators())
def test_gather_elements(dtype, shape, axis, data, rng):
    axis %= len(shape)
    picked = tuple(data.draw(st.integers(1, n)) for n in shape)
    indices = rng.integers(-shape[axis], shape[axis], picked)
    x = rng.integers(0, 100, shape).astype(dtype)
    y = check(ops.GatherElements(axis), x, indices, exact=True)
    part = [slice(None if a == axis else n) for a, n in enumerate(picked)]
    wanted = np.take_along_axis(x[tuple(part)], indices, axis)
    np.testing.assert_array_equal(y, wanted)


@settings(max_examples=25)
@given(shape=shapes(2), lead=shapes(0, 2), data=st.data(), rng=generators())
def test_gather_nd(shape, lead, data, rng):
    batch = data.draw(st.integers(0, len(shape) - 1))
    tuples = data.draw(st.integers(1, len(shape) - batch))
    indices = np.stack(
        [
            rng.integers(-n, n, (*shape[:batch], *lead))
            for n in shape[batch : batch + tuples]
        ],
        axis=-1,
    )
    x = normal(rng, shape)
    y = check(ops.GatherND(batch), x, indices, exact=True)
    np.testing.assert_array_equal(
        y, onnx_answers("GatherND", 1, x, indices, batch_dims=batch)[0]
    )


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@settings(max_examples=10)
@given(shape=shapes(), axis=st.integers(0, 3), data=st.data(), rng=generators())
def test_scatter_elements(reduction, shape, axis, data, rng):
    axis %= len(shape)
    picked = tuple(data.draw(st.integers(1, n)) for n in shape)
    n = shape[axis]
    indices = rng.integers(-n, n, picked)
    x, updates = rng.integers(-2, 3, shape), rng.integers(-2, 3, picked)
    op = ops.ScatterElements(axis, reduction)
    for dtype in ("float32", "int8", "int32", "int64"):
        check(op, x.astype(dtype), indices, updates.astype(dtype), exact=True)
    far = indices + np.where(rng.random(picked) < 0.2, 2 * n, 0)
    check(op, x, far.astype(np.int32), updates, exact=True)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@settings(max_examples=10)
@given(shape=shapes(), lead=shapes(0, 2), data=st.data(), rng=generators())
def test_scatter_nd(reduction, shape, lead, data, rng):
    tuples = data.draw(st.integers(1, len(shape)))
    indices = np.stack([rng.integers(-n - 1, n, lead) for n in shape[:tuples]], axis=-1)
    updates = whole(rng, (*lead, *shape[tuples:]))
    x = whole(rng, shape)
    if reduction == "mul":
        updates = rng.choice([-1.0, 1, 2], updates.shape).astype("f")
    check(ops.ScatterND(reduction), x, indices, updates, exact=True)


def test_scatter_like_onnx():
    rng = np.random.default_rng(4)
    x, updates = normal(rng, (4, 3, 5)), normal(rng, (2, 3, 5))
    indices = rng.permuted(np.tile(np.arange(4)[:, None, None], (1, 3, 5)), axis=0)[:2]
    y = check(ops.ScatterElements(0), x, indices, updates, exact=True)
    wanted = onnx_answers("ScatterElements", 1, x, indices, updates, axis=0)[0]
    np.testing.assert_array_equal(y, wanted)
    tuples = np.int64([[0, 2], [3, 1]])
    y = check(ops.ScatterND(), x, tuples, updates[:, 0].copy(), exact=True)
    wanted = onnx_answers("ScatterND", 1, x, tuples, updates[:, 0])[0]
    np.testing.assert_array_equal(y, wanted)


def test_the_last_of_several_updates_is_kept():
    x = np.zeros(4, np.float32)
    updates = np.arange(1, 10, dtype=np.float32)
    indices = np.int64([1, 1, 1, 2, 2, 3, 3, 9, -9])
    y = check(ops.ScatterND(), x, indices[:, None].copy(), updates, exact=True)
    assert y.tolist() == [0, 3, 5, 7]


def test_a_lookup_in_a_table():
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    graph = Graph()
    graph.output(
        graph.add(ops.Gather(), graph.input("ids", ("N", 2), "int64"), x=table)
    )
    found = Model(graph)(np.int64([[3, 0], [1, 1]]))
    np.testing.assert_array_equal(found, table[[[3, 0], [1, 1]]])


def test_rejects():
    x = Spec((4, 3))
    with pytest.raises(DTypeError, match=r"Gather's indices: found float32 \(2,\)"):
        ops.Gather().infer(x, Spec((2,)))
    with pytest.raises(ShapeError, match="Gather: axis 2 is outside"):
        ops.Gather(2).infer(x, Spec((2,), "int64"))
    with pytest.raises(
        ShapeError, match=r"GatherElements along axis 1: indices \(5, 3\)"
    ):
        ops.GatherElements(1).infer(x, Spec((5, 3), "int64"))
    with pytest.raises(
        ShapeError, match=r"GatherND with 1 batch axes: indices \(2, 1\)"
    ):
        ops.GatherND(1).infer(x, Spec((2, 1), "int64"))
    with pytest.raises(ShapeError, match=r"ScatterND: updates \(2,\), wanted \(2, 3\)"):
        ops.ScatterND().infer(x, Spec((2, 1), "int64"), Spec((2,)))
    with pytest.raises(DTypeError, match=r"ScatterND: found int8 .* beside float32"):
        ops.ScatterND().infer(x, Spec((2, 1), "int64"), Spec((2, 3), "int8"))
    with pytest.raises(ValueError, match="reduction 'sum'"):
        ops.ScatterElements(0, "sum")
