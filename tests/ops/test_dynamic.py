"""Operators whose result's size depends on the values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_in_onnx import onnx_answers, onnx_runtime_answers
from strategies import generators, shapes, whole
from striate import Graph, Model, ShapeError, Spec, ops


def answers(op, *arrays, outputs=1):
    """Return what a model of one layer gives; sizes are within those inferred."""
    graph = Graph()
    names = [graph.input(f"x{i}", a.shape, str(a.dtype)) for i, a in enumerate(arrays)]
    values = tuple(f"y{i}" for i in range(outputs)) if outputs > 1 else ()
    found = graph.add(op, *names, name="y", outputs=values)
    graph.output(*values or (found,))
    results = Model(graph).run(dict(zip(names, arrays, strict=True)))
    for name, spec in graph.specs().items():
        if name in results:
            found = results[name]
            assert found.ndim == spec.rank
            assert (np.array(found.shape) <= spec.shape).all()
            assert found.dtype == spec.dtype
    return list(results.values())


@settings(max_examples=15)
@given(shape=shapes(), rng=generators())
def test_non_zero(shape, rng):
    for dtype in ("float32", "int64", "bool"):
        x = rng.integers(0, 2, shape).astype(dtype)
        (y,) = answers(ops.NonZero(), x)
        np.testing.assert_array_equal(y, onnx_answers("NonZero", 1, x)[0])


@settings(max_examples=15)
@given(shape=shapes(), axis=st.integers(0, 3), rng=generators())
def test_compress(shape, axis, rng):
    axis %= len(shape)
    x, keep = whole(rng, shape), rng.random(rng.integers(1, shape[axis] + 1)) < 0.5
    (y,) = answers(ops.Compress(axis - len(shape)), x, keep)
    np.testing.assert_array_equal(y, onnx_answers("Compress", 1, x, keep, axis=axis)[0])


@settings(max_examples=15)
@given(shape=shapes(), axis=st.integers(0, 3), keep=st.booleans(), rng=generators())
def test_unique(shape, axis, keep, rng):
    axis %= len(shape)
    x = rng.integers(0, 2, shape).astype("f")
    found = answers(ops.Unique(axis, keep), x, outputs=4)
    wanted = onnx_runtime_answers("Unique", x, outputs=4, axis=axis, sorted=int(keep))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_unique_in_order_of_first_appearance():
    x = np.float32([2, 1, 1, 3, 4, 3])
    y, first, place, counts = answers(ops.Unique(0, False), x, outputs=4)
    assert y.tolist() == [2, 1, 3, 4]
    assert first.tolist() == [0, 1, 3, 4]
    assert place.tolist() == [0, 1, 1, 2, 3, 2]
    assert counts.tolist() == [1, 2, 2, 1]


BOXES = np.float32(
    [[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, -0.1, 1, 0.9],
     [0, 10, 1, 11], [0, 10.1, 1, 11.1], [0, 100, 1, 101]]
)[None]  # fmt: skip
SCORES = np.float32([0.9, 0.75, 0.6, 0.95, 0.5, 0.3])[None, None]


def test_boxes_that_overlap_are_dropped():
    suppress = ops.NonMaxSuppression
    (y,) = answers(suppress(3, 0.5, 0.0), BOXES, SCORES)
    assert y.tolist() == [[0, 0, 3], [0, 0, 0], [0, 0, 5]]
    (y,) = answers(suppress(2, 0.5, 0.0), BOXES, SCORES)
    assert y.tolist() == [[0, 0, 3], [0, 0, 0]]
    (y,) = answers(suppress(3, 0.5, 0.4), BOXES, SCORES)
    assert y.tolist() == [[0, 0, 3], [0, 0, 0]]
    (y,) = answers(suppress(0, 0.5), BOXES, SCORES)
    assert y.shape == (0, 3)
    turned = BOXES[..., [2, 3, 0, 1]].copy()
    (y,) = answers(suppress(3, 0.5, 0.0), turned, SCORES)
    assert y.tolist() == [[0, 0, 3], [0, 0, 0], [0, 0, 5]]
    centred = np.concatenate(
        [(BOXES[..., :2] + BOXES[..., 2:]) / 2, BOXES[..., 2:] - BOXES[..., :2]], -1
    )
    (y,) = answers(suppress(3, 0.5, 0.0, True), centred, SCORES)
    assert y.tolist() == [[0, 0, 3], [0, 0, 0], [0, 0, 5]]
    same = np.tile(BOXES[:, :1], (1, 6, 1))
    (y,) = answers(suppress(3, 0.5, 0.0), same, SCORES)
    assert y.tolist() == [[0, 0, 3]]


@settings(max_examples=15)
@given(
    count=st.integers(1, 30),
    classes=st.integers(1, 3),
    most=st.integers(1, 9),
    iou=st.sampled_from([0.0, 0.2, 0.5, 0.9]),
    rng=generators(),
)
def test_suppression_as_onnx_runtime(count, classes, most, iou, rng):
    corners = rng.uniform(0, 10, (2, count, 2, 2)).astype("f")
    boxes = np.concatenate([corners.min(2), corners.max(2)], -1)
    scores = rng.permutation(2 * classes * count).reshape(2, classes, count)
    scores = (scores / 100).astype("f")
    (y,) = answers(ops.NonMaxSuppression(most, iou, 0.1), boxes, scores)
    (wanted,) = onnx_runtime_answers(
        "NonMaxSuppression", boxes, scores, np.int64([most]), np.float32([iou]),
        np.float32([0.1]),
    )  # fmt: skip
    assert y.tolist() == wanted.tolist()


def test_what_reads_a_dynamic_result_is_dynamic_too():
    graph = Graph()
    boxes = graph.input("boxes", ("N", 6, 4))
    scores = graph.input("scores", ("N", 1, 6))
    chosen = graph.add(ops.NonMaxSuppression(3, 0.5, 0.0), boxes, scores)
    place = graph.add(ops.Slice((2,), (3,), (1,)), chosen)
    graph.output(graph.add(ops.Cast("float32"), place, name="y"))
    y = Model(graph).run({"boxes": BOXES, "scores": SCORES})["y"]
    assert y.dtype == np.float32
    assert y.tolist() == [[3], [0], [5]]


def test_rejects():
    with pytest.raises(ShapeError, match=r"boxes \(1, 6, 4\) and scores \(1, 2, 5\)"):
        ops.NonMaxSuppression(3).infer(Spec((1, 6, 4)), Spec((1, 2, 5)))
    with pytest.raises(ShapeError, match=r"Compress: condition \(4,\) for axis 0"):
        ops.Compress().infer(Spec((3, 2)), Spec((4,), "bool"))
    with pytest.raises(ValueError, match=r"iou_threshold 1\.5"):
        ops.NonMaxSuppression(3, 1.5)
    with pytest.raises(ValueError, match="max_output -1"):
        ops.NonMaxSuppression(-1)
