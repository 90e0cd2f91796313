"""Operators that compare, choose, reduce and look up.

Each function is named and signed like its operator. They work in the source's axis
order unless an axis is all they name.
"""

# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from striate import ops
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.from_onnx.model import TENSORS
from striate.tools.from_onnx.registry import OnnxBuilder, computed, onnx_op
from striate.tools.layout import Tensor, Value, inverse, positions

Ints = tuple[int, ...]

PAIRS: dict[str, type[ops.Op]] = {
    "Equal": ops.Equal,
    "Greater": ops.Greater,
    "GreaterOrEqual": ops.GreaterOrEqual,
    "Less": ops.Less,
    "LessOrEqual": ops.LessOrEqual,
    "And": ops.And,
    "Or": ops.Or,
    "Xor": ops.Xor,
    "BitwiseAnd": ops.BitwiseAnd,
    "BitwiseOr": ops.BitwiseOr,
    "BitwiseXor": ops.BitwiseXor,
}
REDUCTIONS: dict[str, type[ops.Reduction]] = {
    "ReduceSum": ops.ReduceSum,
    "ReduceProd": ops.ReduceProd,
    "ReduceMax": ops.ReduceMax,
    "ReduceMin": ops.ReduceMin,
    "ReduceL1": ops.ReduceL1,
    "ReduceL2": ops.ReduceL2,
    "ReduceSumSquare": ops.ReduceSumSquare,
    "ReduceLogSum": ops.ReduceLogSum,
    "ReduceLogSumExp": ops.ReduceLogSumExp,
}


def _register_pair(name: str, kind: type[ops.Op]) -> None:
    @computed(name, since=1)
    def pair_1(
        g: OnnxBuilder,
        A: Tensor,
        B: Tensor,
        *,
        axis: int | None = None,
        broadcast: int = 0,
    ) -> Tensor:
        if broadcast and axis is not None:
            ones = ((1,) * g.bindings,) * (A.rank - g.axis(axis, A.rank) - B.rank)
            return g.combine(kind(), A, g.reshape(B, (*B.shape, *ones)))
        return g.combine(kind(), A, B)


for _name, _kind in PAIRS.items():
    _register_pair(_name, _kind)


@computed("Not")
def Not(g: OnnxBuilder, X: Tensor) -> Tensor:
    """Return the opposite."""
    return g.elementwise(ops.Not(), X)


@onnx_op("BitwiseNot", since=18)
def BitwiseNot(g: OnnxBuilder, X: Tensor) -> Tensor:
    """Return each bit's opposite."""
    return g.elementwise(ops.BitwiseNot(), X)


@onnx_op("IsNaN", since=9)
def IsNaN(g: OnnxBuilder, X: Tensor) -> Tensor:
    """Tell which numbers are NaN."""
    return g.elementwise(ops.IsNaN(), X)


@onnx_op("IsInf", since=10)
def IsInf(
    g: OnnxBuilder, X: Tensor, *, detect_negative: int = 1, detect_positive: int = 1
) -> Tensor:
    """Tell which numbers are infinite."""
    return g.elementwise(ops.IsInf(bool(detect_negative), bool(detect_positive)), X)


@computed("Mod")
def Mod(g: OnnxBuilder, A: Tensor, B: Tensor, *, fmod: int = 0) -> Tensor:
    """Return the remainder, of the sign of B, or of A with `fmod`."""
    return g.combine(ops.Mod(bool(fmod)), A, B)


@computed("Where")
def Where(g: OnnxBuilder, condition: Tensor, X: Tensor, Y: Tensor) -> Tensor:
    """Choose from two tensors."""
    rank = max(condition.rank, X.rank, Y.rank)
    parts = [g.expanded(x, rank) for x in (condition, X, Y)]
    axes = g.order(*parts)
    y = g.operate(ops.Where(), *(x.transpose(axes) for x in parts))
    return y.transpose(inverse(axes))


def _register_reduction(name: str, kind: type[ops.Reduction]) -> None:
    @computed(name, since=1)
    def reduction_1(
        g: OnnxBuilder, data: Tensor, *, axes: Ints | None = None, keepdims: int = 1
    ) -> Tensor:
        return reduced(g, kind, data, axes or range(data.rank), keepdims)

    @computed(name, since=13 if name == "ReduceSum" else 18)
    def reduction(
        g: OnnxBuilder,
        data: Tensor,
        axes: Tensor | None = None,
        *,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Tensor:
        chosen = g.numbers(axes, "axes")
        if not chosen and not noop_with_empty_axes:
            chosen = tuple(range(data.rank))
        return reduced(g, kind, data, chosen or (), keepdims)


def reduced(
    g: OnnxBuilder, kind: type[ops.Reduction], x: Tensor, axes: Any, keepdims: int
) -> Tensor:
    """Return a function of all elements along some axes."""
    chosen = {g.axis(axis, x.rank) for axis in axes} if x.rank else set()
    g.one_picture_at_a_time(x, tuple(chosen))
    order = g.order(x)
    op = kind(positions(order, chosen), True)
    y = g.permuted(op, x, order)
    if not keepdims:
        y = g.without(y, chosen)
    return y


for _name, _reduction in REDUCTIONS.items():
    _register_reduction(_name, _reduction)


def _register_arg(name: str, kind: Callable[..., ops.Op]) -> None:
    @onnx_op(name)
    def arg(
        g: OnnxBuilder,
        data: Tensor,
        *,
        axis: int = 0,
        keepdims: int = 1,
        select_last_index: int = 0,
    ) -> Tensor:
        axis = g.axis(axis, data.rank)
        op = kind(axis=axis, keepdims=True, select_last=bool(select_last_index))
        y = along(g, op, data, axis)[0]
        if not keepdims:
            y = g.without(y, (axis,))
        return y


_register_arg("ArgMax", ops.ArgMax)
_register_arg("ArgMin", ops.ArgMin)


def along(
    g: OnnxBuilder, op: Any, x: Tensor, axis: int, outputs: int = 1
) -> tuple[Tensor, ...]:
    """Apply an operator with a field `axis`, in the order the elements lie."""
    g.one_picture_at_a_time(x, (axis,))
    order = g.order(x)
    moved = replace(op, axis=order.index(axis))
    found = g.split(moved, x.transpose(order), outputs=outputs)
    return tuple(y.transpose(inverse(order)) for y in found)


@onnx_op("TopK", since=1)
def TopK_1(g: OnnxBuilder, X: Tensor, *, k: int, axis: int = -1) -> Any:
    """Find the largest elements along an axis."""
    axis = g.axis(axis, X.rank)
    return along(g, ops.TopK(k, axis), X, axis, outputs=2)


@onnx_op("TopK", since=10)
def TopK(
    g: OnnxBuilder,
    X: Tensor,
    K: Tensor,
    *,
    axis: int = -1,
    largest: int = 1,
    sorted: int = 1,
) -> Any:
    """Find the largest or smallest elements along an axis."""
    axis = g.axis(axis, X.rank)
    count = int(g.array(K, "its K").reshape(-1)[0])
    op = ops.TopK(count, axis, bool(largest), bool(sorted))
    return along(g, op, X, axis, outputs=2)


@onnx_op("CumSum", since=11)
def CumSum(
    g: OnnxBuilder, x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0
) -> Tensor:
    """Add up the elements along an axis up to each one."""
    place = g.axis(int(g.array(axis, "its axis").reshape(-1)[0]), x.rank)
    return along(g, ops.CumSum(place, bool(exclusive), bool(reverse)), x, place)[0]


@onnx_op("Einsum", since=12)
def Einsum(g: OnnxBuilder, *Inputs: Tensor, equation: str) -> Tensor:
    """Multiply and sum as the letters say."""
    g.whole(*Inputs)
    return g.apply(ops.Einsum(equation.replace(" ", "")), *Inputs)


@onnx_op("GatherElements", since=11)
def GatherElements(
    g: OnnxBuilder, data: Tensor, indices: Tensor, *, axis: int = 0
) -> Tensor:
    """Take one element for each index."""
    g.whole(data, indices)
    return g.operate(ops.GatherElements(g.axis(axis, data.rank)), data, indices)


@computed("GatherND", since=11)
def GatherND(
    g: OnnxBuilder, data: Tensor, indices: Tensor, *, batch_dims: int = 0
) -> Tensor:
    """Take slices where tuples of indices say."""
    g.whole(data, indices)
    return g.operate(ops.GatherND(batch_dims), data, indices)


@onnx_op("Scatter", since=9)
def Scatter(
    g: OnnxBuilder, data: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0
) -> Tensor:
    """Write one element for each index."""
    return ScatterElements(g, data, indices, updates, axis=axis)


@onnx_op("ScatterElements", since=11)
def ScatterElements(
    g: OnnxBuilder,
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    *,
    axis: int = 0,
    reduction: Any = "none",
) -> Tensor:
    """Write one element for each index."""
    g.whole(data, indices, updates)
    op = ops.ScatterElements(g.axis(axis, data.rank), reduction)
    return g.operate(op, data, indices, updates)


@onnx_op("ScatterND", since=11)
def ScatterND(
    g: OnnxBuilder,
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    *,
    reduction: Any = "none",
) -> Tensor:
    """Write slices where tuples of indices say."""
    g.whole(data, indices, updates)
    return g.operate(ops.ScatterND(reduction), data, indices, updates)


@onnx_op("OneHot", since=9)
def OneHot(
    g: OnnxBuilder, indices: Tensor, depth: Tensor, values: Tensor, *, axis: int = -1
) -> Tensor:
    """Make a vector for each index."""
    count = int(g.array(depth, "its depth").reshape(-1)[0])
    pair = g.array(values, "its values")
    off, on = (float(n) for n in pair.reshape(-1))
    dtype: Any = str(pair.dtype)
    axis = g.axis(axis, indices.rank + 1)
    return g.apply(ops.OneHot(count, axis, off, on, dtype), indices)


@onnx_op("Trilu", since=14)
def Trilu(
    g: OnnxBuilder, input: Tensor, k: Tensor | None = None, *, upper: int = 1
) -> Tensor:
    """Keep a triangle of each matrix."""
    shift = 0 if k is None else int(g.array(k, "its k").reshape(-1)[0])
    g.one_picture_at_a_time(input, (input.rank - 2, input.rank - 1))
    return g.apply(ops.Trilu(bool(upper), shift), input)


@onnx_op("EyeLike", since=9)
def EyeLike(
    g: OnnxBuilder, input: Tensor, *, dtype: int | None = None, k: int = 0
) -> Tensor:
    """Return ones on a diagonal."""
    g.whole(input)
    if dtype is not None:
        name: Any = TENSORS.get(dtype, f"type {dtype}")
    else:
        name = input.dtype if isinstance(input, Value) else "float32"
    return g.apply(ops.EyeLike(name, k), input)


@computed("Tile", since=6)
def Tile(g: OnnxBuilder, input: Tensor, repeats: Tensor) -> Tensor:
    """Repeat along each axis."""
    times = g.numbers(repeats, "its repeats") or ()
    g.one_picture_at_a_time(input, [i for i, n in enumerate(times) if n != 1])
    order = g.order(input)
    op = ops.Tile(tuple(times[axis] for axis in order))
    return g.permuted(op, input, order)


@onnx_op("ReverseSequence", since=10)
def ReverseSequence(
    g: OnnxBuilder,
    input: Tensor,
    sequence_lens: Tensor,
    *,
    batch_axis: int = 1,
    time_axis: int = 0,
) -> Tensor:
    """Turn round the first elements of sequences."""
    g.whole(input, sequence_lens)
    return g.operate(ops.ReverseSequence(batch_axis, time_axis), input, sequence_lens)


@computed("NonZero", since=9)
def NonZero(g: OnnxBuilder, X: Tensor) -> Tensor:
    """Find where a tensor is not zero."""
    g.whole(X)
    return g.apply(ops.NonZero(), X)


@onnx_op("Compress", since=9)
def Compress(
    g: OnnxBuilder, input: Tensor, condition: Tensor, *, axis: int | None = None
) -> Tensor:
    """Keep the slices for which a condition is true."""
    g.whole(input, condition)
    x = flat(g, input) if axis is None else input
    return g.operate(ops.Compress(g.axis(axis or 0, x.rank)), x, condition)


def flat(g: OnnxBuilder, x: Tensor) -> Tensor:
    """Return a tensor with one axis."""
    return g.reshape(x, (g.product(x.shape),))


@onnx_op("Unique", since=11)
def Unique(
    g: OnnxBuilder, X: Tensor, *, axis: int | None = None, sorted: int = 1
) -> Any:
    """Find the different slices."""
    g.whole(X)
    x = flat(g, X) if axis is None else X
    op = ops.Unique(g.axis(axis or 0, x.rank), bool(sorted))
    return g.split(op, x, outputs=4)


@onnx_op("NonMaxSuppression", since=10)
def NonMaxSuppression(
    g: OnnxBuilder,
    boxes: Tensor,
    scores: Tensor,
    max_output_boxes_per_class: Tensor | None = None,
    iou_threshold: Tensor | None = None,
    score_threshold: Tensor | None = None,
    *,
    center_point_box: int = 0,
) -> Tensor:
    """Choose boxes of high scores that do not overlap much."""
    most = _scalar(g, max_output_boxes_per_class, "its max_output_boxes_per_class", 0)
    overlap = _scalar(g, iou_threshold, "its iou_threshold", 0.0)
    score = _scalar(g, score_threshold, "its score_threshold", -3.4028234663852886e38)
    if most < 1:
        raise UnsupportedModelError("max_output_boxes_per_class is 0: it chooses none")
    count = min(int(most), (1 << 31) - 1)
    op = ops.NonMaxSuppression(count, overlap, score, bool(center_point_box))
    return g.operate(op, boxes, scores)


def _scalar(g: OnnxBuilder, x: Tensor | None, what: str, default: float) -> float:
    if x is None:
        return default
    found: Array = g.array(x, what).reshape(-1)
    return float(str(found[0])) if found.size else default


@onnx_op("Det", since=11)
def Det(g: OnnxBuilder, X: Tensor) -> Tensor:
    """Take the determinants of matrices."""
    g.one_picture_at_a_time(X, (X.rank - 2, X.rank - 1))
    return g.apply(ops.Det(), X)
