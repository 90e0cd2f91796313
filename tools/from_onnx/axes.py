"""Operators that move, join, cut and reduce axes.

Each function is named and signed like its operator.
"""

# ruff: noqa: N802

from __future__ import annotations

from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.builder import DTYPES, bounded
from striate.tools.from_onnx.model import TENSORS
from striate.tools.from_onnx.registry import OnnxBuilder, onnx_op
from striate.tools.layout import Constant, Dim, Tensor, Value, inverse, positions

Ints = tuple[int, ...]

FLOATS = ("float", "double", "float16", "bfloat16", "float64")
"""What a `Cast` to becomes float32."""

FAR = (1 << 31) - 1
"""Past the end of any axis."""


@onnx_op("Identity")
def Identity(g: OnnxBuilder, input: Tensor) -> Tensor:
    """Do nothing."""
    return input


@onnx_op("Transpose")
def Transpose(g: OnnxBuilder, data: Tensor, *, perm: Ints | None = None) -> Tensor:
    """Put the axes in another order."""
    axes = tuple(reversed(range(data.rank))) if perm is None else tuple(perm)
    if sorted(axes) != list(range(data.rank)):
        raise UnsupportedModelError(f"perm {list(axes)} for rank {data.rank}")
    return data.transpose(axes)


@onnx_op("Reshape", since=1)
def Reshape_1(
    g: OnnxBuilder, data: Tensor, *, shape: Ints, consumed_inputs: Any = ()
) -> Tensor:
    """Give a shape that is an attribute."""
    return g.reshape_to(data, [(n,) * g.bindings for n in shape])


@onnx_op("Reshape", since=5)
def Reshape(
    g: OnnxBuilder, data: Tensor, shape: Tensor, *, allowzero: int = 0
) -> Tensor:
    """Give a shape that is an input; it may depend on the input's sizes."""
    if not isinstance(shape, Constant):
        raise UnsupportedModelError("its shape is computed, wanted a constant")
    rows = [array.reshape(-1).tolist() for array in shape.arrays]
    wanted = [tuple(map(int, column)) for column in zip(*rows, strict=True)]
    return g.reshape_to(data, wanted, zero_copies=not allowzero)


@onnx_op("Flatten")
def Flatten(g: OnnxBuilder, input: Tensor, *, axis: int = 1) -> Tensor:
    """Join the axes before and from `axis`."""
    if not -input.rank <= axis <= input.rank:
        raise UnsupportedModelError(f"axis {axis} of a tensor of rank {input.rank}")
    axis = axis + input.rank if axis < 0 else axis
    return g.reshape(
        input, (g.product(input.shape[:axis]), g.product(input.shape[axis:]))
    )


@onnx_op("Squeeze", since=1)
def Squeeze_1(g: OnnxBuilder, data: Tensor, *, axes: Ints | None = None) -> Tensor:
    """Leave out axes of size one."""
    if axes is None and any(len({*dim}) > 1 for dim in data.shape):
        raise UnsupportedModelError("without axes, where a size that is open may be 1")
    found = (
        tuple(i for i, dim in enumerate(data.shape) if all(n == 1 for n in dim))
        if axes is None
        else tuple(g.axis(axis, data.rank) for axis in axes)
    )
    for axis in found:
        if any(n != 1 for n in data.shape[axis]):
            raise UnsupportedModelError(f"axis {axis} has size {data.shape[axis][0]}")
    return g.reshape(data, [d for i, d in enumerate(data.shape) if i not in found])


@onnx_op("Squeeze", since=13)
def Squeeze(g: OnnxBuilder, data: Tensor, axes: Tensor | None = None) -> Tensor:
    """Leave out axes of size one."""
    return Squeeze_1(g, data, axes=g.numbers(axes, "axes"))


@onnx_op("Unsqueeze", since=1)
def Unsqueeze_1(g: OnnxBuilder, data: Tensor, *, axes: Ints) -> Tensor:
    """Insert axes of size one."""
    rank = data.rank + len(axes)
    inserted = {g.axis(axis, rank) for axis in axes}
    old = iter(data.shape)
    ones = (1,) * g.bindings
    return g.reshape(data, [ones if i in inserted else next(old) for i in range(rank)])


@onnx_op("Unsqueeze", since=13)
def Unsqueeze(g: OnnxBuilder, data: Tensor, axes: Tensor) -> Tensor:
    """Insert axes of size one."""
    return Unsqueeze_1(g, data, axes=g.numbers(axes, "axes") or ())


@onnx_op("Concat", since=1)
def Concat_1(g: OnnxBuilder, *inputs: Tensor, axis: int = 1) -> Tensor:
    """Join along an axis, the channels unless the file says another."""
    return Concat(g, *inputs, axis=axis)


@onnx_op("Concat", since=4)
def Concat(g: OnnxBuilder, *inputs: Tensor, axis: int) -> Tensor:
    """Join along an axis."""
    axis = g.axis(axis, inputs[0].rank)
    constants = [x for x in inputs if isinstance(x, Constant)]
    if len(constants) == len(inputs):
        columns = list(zip(*(x.arrays for x in constants), strict=True))
        for column in columns:
            bounded([sum(array.size for array in column)])
        return Constant(tuple(np.concatenate(column, axis) for column in columns))
    if len({x.rank for x in inputs}) > 1:
        raise UnsupportedModelError("its inputs differ in rank")
    inputs = tuple(x for x in inputs if any(x.shape[axis]))
    if len(inputs) == 1:
        return inputs[0]
    for x in inputs:
        g.one_picture_at_a_time(x, (axis,))
    axes = g.order(*inputs)
    y = g.apply(ops.Concat(axes.index(axis)), *(x.transpose(axes) for x in inputs))
    return y.transpose(inverse(axes))


@onnx_op("Split", since=1)
def Split_1(
    g: OnnxBuilder,
    input: Tensor,
    sizes: Tensor | None = None,
    *,
    axis: int = 0,
    split: Ints | None = None,
) -> tuple[Tensor, ...]:
    """Cut along an axis, in equal parts unless sizes are given."""
    axis = g.axis(axis, input.rank)
    if split is None:
        split = g.numbers(sizes, "split")
    if split is None:
        split = _equal(g, input, axis, g.results)
        if len(set(split)) > 1:
            raise UnsupportedModelError(
                f"{sum(split)} elements do not make {g.results} equal parts"
            )
    return cut(g, input, axis, split)


@onnx_op("Split", since=13)
def Split(
    g: OnnxBuilder,
    input: Tensor,
    split: Tensor | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
) -> tuple[Tensor, ...]:
    """Cut along an axis; of equal parts the last may be smaller."""
    axis = g.axis(axis, input.rank)
    parts = g.numbers(split, "split")
    if parts is None:
        parts = _equal(g, input, axis, num_outputs or g.results)
    return cut(g, input, axis, parts)


def _equal(g: OnnxBuilder, x: Tensor, axis: int, count: int) -> Ints:
    size = g.fixed(x.shape[axis], "the size it cuts")
    part = -(-size // count)
    return (*(part,) * (count - 1), size - part * (count - 1))


def cut(g: OnnxBuilder, x: Tensor, axis: int, sizes: Ints) -> tuple[Tensor, ...]:
    """Return the parts of `x` along an axis, as many as there are sizes."""
    if g.fixed(x.shape[axis], "the size it cuts") != sum(sizes) or min(sizes) < 0:
        raise UnsupportedModelError(f"parts {list(sizes)} of {x.shape[axis][0]}")
    if len(sizes) == 1:
        return (x,)
    if isinstance(x, Constant):
        places = [int(n) for n in np.cumsum(sizes)[:-1]]
        return g.fold(lambda a: tuple(np.split(a, places, axis)), (x,))
    g.one_picture_at_a_time(x, (axis,))
    if 0 in sizes:
        rest = iter(cut(g, x, axis, tuple(size for size in sizes if size)))
        nothing = outline(g, x).map(lambda array: array.take([], axis))
        return tuple(next(rest) if size else nothing for size in sizes)
    axes = g.order(x)
    op = ops.Split(axes.index(axis), sizes)
    parts = g.split(op, x.transpose(axes), outputs=len(sizes))
    return tuple(part.transpose(inverse(axes)) for part in parts)


def outline(g: OnnxBuilder, x: Tensor) -> Constant:
    """Return zeros like `x`, to see what is left when little or nothing is taken."""
    assert isinstance(x, Value)
    zero = np.zeros((), x.dtype)
    return Constant(
        tuple(
            np.broadcast_to(zero, [dim[binding] for dim in x.shape])
            for binding in range(g.bindings)
        )
    )


@onnx_op("Slice", since=1)
def Slice_1(
    g: OnnxBuilder, data: Tensor, *, starts: Ints, ends: Ints, axes: Ints | None = None
) -> Tensor:
    """Cut out a range of some axes."""
    return sliced(g, data, starts, ends, axes, None)


@onnx_op("Slice", since=10)
def Slice(
    g: OnnxBuilder,
    data: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """Cut out every so-manyth element of a range of some axes."""
    chosen = g.numbers(axes, "axes")
    stride = g.numbers(steps, "steps")
    if isinstance(data, Constant):
        where = g.fold(lambda a, b: np.stack([a, b]), (starts, ends))[0]
        return Constant(
            tuple(
                array[_selection(array.ndim, bounds[0], bounds[1], chosen, stride)]
                for array, bounds in zip(
                    data.arrays, map(np.ndarray.tolist, where.arrays), strict=True
                )
            )
        )
    first, stop = _bounds(g, starts, ends, data, chosen)
    return sliced(g, data, first, stop, chosen, stride)


def _bounds(
    g: OnnxBuilder, starts: Tensor, ends: Tensor, data: Tensor, axes: Ints | None
) -> tuple[Ints, Ints]:
    """Return constant bounds; an end that is the size of its axis becomes open."""
    first = g.numbers(starts, "starts") or ()
    if not isinstance(ends, Constant) or ends.fixed:
        return first, g.numbers(ends, "ends") or ()
    stop = []
    for index in range(len(first)):
        axis = index if axes is None else g.axis(axes[index], data.rank)
        column = tuple(int(array.reshape(-1)[index]) for array in ends.arrays)
        whole = column == data.shape[axis]
        stop.append(FAR if whole else g.fixed(column, "ends"))
    return first, tuple(stop)


def _selection(
    rank: int, starts: Any, ends: Any, axes: Ints | None, steps: Ints | None
) -> tuple[slice, ...]:
    found = [slice(None)] * rank
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = i if axes is None else axes[i]
        step = 1 if steps is None else steps[i]
        backwards = step < 0 and end < -(FAR >> 1)
        found[axis] = slice(start, None if backwards else end, step)
    return tuple(found)


def sliced(
    g: OnnxBuilder, x: Tensor, starts: Any, ends: Any, axes: Any, steps: Any
) -> Tensor:
    """Return ranges of some axes; whole axes are left alone."""
    where = _selection(x.rank, starts, ends, axes, steps)
    if isinstance(x, Constant):
        return x.map(lambda array: array[where])
    left = outline(g, x).map(lambda array: array[where])
    pairs = list(zip(x.shape, left.shape, strict=True))
    if any(not any(after) and len({*before}) == 1 for before, after in pairs):
        if any(before != after and len({*before}) > 1 for before, after in pairs):
            raise UnsupportedModelError("it cuts an open size and leaves nothing")
        return left
    chosen = tuple(range(len(starts))) if axes is None else tuple(axes)
    stride = (1,) * len(chosen) if steps is None else tuple(steps)
    ranges = []
    for start, end, axis, step in zip(starts, ends, chosen, stride, strict=True):
        axis = g.axis(axis, x.rank)
        ranges.extend(_range(g, x, start, end, axis, step))
    if not ranges:
        return x
    g.one_picture_at_a_time(x, [axis for axis, *_ in ranges])
    order = g.order(x)
    ranges.sort(key=lambda bounds: order.index(bounds[0]))
    op = ops.Slice(
        starts=tuple(start for _, start, _, _ in ranges),
        stops=tuple(stop for _, _, stop, _ in ranges),
        axes=tuple(order.index(axis) for axis, _, _, _ in ranges),
        steps=tuple(step for _, _, _, step in ranges),
    )
    return g.permuted(op, x, order)


def _range(
    g: OnnxBuilder, x: Tensor, start: int, end: int, axis: int, step: int
) -> list[tuple[int, int, int, int]]:
    """Return [(axis, start, stop, step)], or nothing if that is the whole axis."""
    size = x.shape[axis]
    parts = [range(*slice(start, end, step).indices(n)) for n in size]
    fixed = len({*size}) == 1
    open_ended = end >= FAR and (start == 0 or start <= -FAR)
    if parts == [range(n) for n in size] and (fixed or open_ended):
        return []
    if not all(parts):
        raise UnsupportedModelError(
            f"axis {axis} from {start} to {end} is empty for some sizes of the input"
        )
    if fixed:
        stop = parts[0].stop if parts[0].stop >= 0 else -size[0] - 1
        return [(axis, parts[0].start, stop, step)]
    return [(axis, start, max(-FAR, min(end, FAR)), step)]


@onnx_op("Gather", since=1)
def Gather(g: OnnxBuilder, data: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """Take one element of an axis, or every so-manyth of a range."""
    if isinstance(data, Constant) and isinstance(indices, Constant):
        return g.fold(lambda a, i: _gathered(a, i, axis), (data, indices))[0]
    axis = g.axis(axis, data.rank)
    if isinstance(data, Constant) or isinstance(indices, Value):
        g.one_picture_at_a_time(data, (axis,))
        return g.operate(ops.Gather(axis), data, indices)
    if _all_in_order(indices, data.shape[axis]):
        shape = (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])
        return g.reshape(data, shape)
    chosen = g.array(indices, "its indices").astype(np.int64)
    if not chosen.size:
        return outline(g, data).map(lambda array: np.take(array, chosen, axis))
    size = g.fixed(data.shape[axis], "the size it takes from")
    flat = np.where(chosen < 0, chosen + size, chosen).reshape(-1)
    if flat.min() < 0 or flat.max() >= size:
        raise UnsupportedModelError(f"an index is not among the {size} there are")
    steps = set(np.diff(flat).tolist())
    if len(steps) > 1 or 0 in steps:
        return _taken(g, data, axis, flat, chosen.shape)
    step = steps.pop() if steps else 1
    end = int(flat[-1]) + (1 if step > 0 else -1)
    stop = -FAR if end < 0 else end
    y = sliced(g, data, (int(flat[0]),), (stop,), (axis,), (step,))
    return _unfolded(g, y, axis, chosen.shape)


def _all_in_order(indices: Tensor, size: Dim) -> bool:
    """Return whether a constant counts from 0 to `size`, under every binding."""
    return isinstance(indices, Constant) and all(
        array.size == n and np.array_equal(array.reshape(-1), np.arange(n))
        for array, n in zip(indices.arrays, size, strict=True)
    )


def _taken(g: OnnxBuilder, x: Tensor, axis: int, places: Array, shape: Ints) -> Tensor:
    """Return elements of an axis in any order, in the order the others lie."""
    g.one_picture_at_a_time(x, (axis,))
    order = g.order(x)
    y = g.operate(ops.Gather(order.index(axis)), x.transpose(order), g.constant(places))
    return _unfolded(g, y.transpose(inverse(order)), axis, shape)


def _unfolded(g: OnnxBuilder, x: Tensor, axis: int, shape: Ints) -> Tensor:
    """Return `x` with an axis of that many elements in their shape."""
    sizes = [(n,) * g.bindings for n in shape]
    return g.reshape(x, (*x.shape[:axis], *sizes, *x.shape[axis + 1 :]))


@onnx_op("Pad", since=1)
def Pad_1(
    g: OnnxBuilder,
    data: Tensor,
    *,
    pads: Ints | None = None,
    paddings: Ints | None = None,
    mode: str = "constant",
    value: float = 0.0,
) -> Tensor:
    """Pad by numbers that are attributes."""
    return padded(g, data, pads or paddings or (), mode, value)


@onnx_op("Pad", since=11)
def Pad(
    g: OnnxBuilder,
    data: Tensor,
    pads: Tensor,
    constant_value: Tensor | None = None,
    axes: Tensor | None = None,
    *,
    mode: str = "constant",
) -> Tensor:
    """Pad by numbers that are inputs."""
    numbers = g.numbers(pads, "pads") or ()
    chosen = g.numbers(axes, "axes")
    if chosen is not None:
        full = [0] * (2 * data.rank)
        for i, axis in enumerate(chosen):
            place = g.axis(axis, data.rank)
            full[place], full[place + data.rank] = numbers[i], numbers[i + len(chosen)]
        numbers = tuple(full)
    value = 0.0
    if constant_value is not None and mode == "constant":
        found = g.array(constant_value, "its value").reshape(-1)
        value = float(found[0]) if found.size else 0.0
    return padded(g, data, numbers, mode, value)


def _gathered(array: Array, indices: Array, axis: int) -> Array:
    size = max(array.shape[axis], 1)
    bounded([array.size // size, indices.size])
    return np.take(array, indices.astype(np.int64), axis)


def padded(g: OnnxBuilder, x: Tensor, pads: Ints, mode: Any, value: float) -> Tensor:
    """Return `x` padded; negative numbers cut off."""
    if len(pads) != 2 * x.rank:
        raise UnsupportedModelError(f"pads {list(pads)} for a tensor of rank {x.rank}")
    pairs = list(zip(pads[: x.rank], pads[x.rank :], strict=True))
    if isinstance(x, Constant):
        for array in x.arrays:
            grown = zip(array.shape, pairs, strict=True)
            bounded([max(0, size + sum(pair)) for size, pair in grown])
        settings: Any = {"constant_values": value} if mode == "constant" else {}
        return x.map(lambda array: np.pad(array, pairs, mode, **settings))
    cropped = [axis for axis, pair in enumerate(pairs) if min(pair) < 0]
    if cropped:
        starts = [max(0, -pairs[axis][0]) for axis in cropped]
        ends = [min(0, pairs[axis][1]) or FAR for axis in cropped]
        x = sliced(g, x, starts, ends, cropped, None)
        pairs = [(max(0, before), max(0, after)) for before, after in pairs]
    if not any(map(any, pairs)):
        return x
    g.one_picture_at_a_time(x, [axis for axis, pair in enumerate(pairs) if any(pair)])
    axes = g.order(x)
    op = ops.Pad(tuple(pairs[axis] for axis in axes), mode, value)
    return g.permuted(op, x, axes)


@onnx_op("Expand", since=8)
def Expand(g: OnnxBuilder, input: Tensor, shape: Tensor) -> Tensor:
    """Repeat axes of size one; the sizes must not depend on the input."""
    if isinstance(input, Constant):
        return g.fold(_broadcast, (input, shape))[0]
    if not isinstance(shape, Constant):
        raise UnsupportedModelError("its shape is computed, wanted a constant")
    rank = max(input.rank, shape.shape[0][0])
    x = g.expanded(input, rank)
    rows = [array.reshape(-1).tolist() for array in shape.arrays]
    wanted = [(1,) * g.bindings] * (rank - len(rows[0]))
    wanted += [tuple(map(int, column)) for column in zip(*rows, strict=True)]
    ones = (1,) * g.bindings
    grown = [
        1 if want in (ones, have) else g.fixed(want, "its shape")
        for have, want in zip(x.shape, wanted, strict=True)
    ]
    if all(size == 1 for size in grown):
        return x
    bounded(grown)
    assert isinstance(x, Value)
    if x.dtype != "float32":
        g.whole(x)
        return g.apply(ops.Expand(tuple(grown)), x)
    return g.combine(ops.Mul(), x, g.constant(np.ones(grown, np.float32)))


def _broadcast(array: Array, shape: Array) -> Array:
    sizes = np.broadcast_shapes(array.shape, tuple(int(n) for n in shape))
    bounded(sizes)
    return np.broadcast_to(array, sizes)


@onnx_op("ReduceMean", since=1)
def ReduceMean_1(
    g: OnnxBuilder, data: Tensor, *, axes: Ints | None = None, keepdims: int = 1
) -> Tensor:
    """Average along axes that are an attribute."""
    return mean(g, data, axes, keepdims)


@onnx_op("ReduceMean", since=18)
def ReduceMean(
    g: OnnxBuilder,
    data: Tensor,
    axes: Tensor | None = None,
    *,
    keepdims: int = 1,
    noop_with_empty_axes: int = 0,
) -> Tensor:
    """Average along axes that are an input."""
    chosen = g.numbers(axes, "axes")
    if not chosen and noop_with_empty_axes:
        return data
    return mean(g, data, chosen, keepdims)


def mean(g: OnnxBuilder, x: Tensor, axes: Ints | None, keepdims: int) -> Tensor:
    """Return the average; over all of an image it is a `GlobalAveragePool`."""
    reduced = {g.axis(axis, x.rank) for axis in axes} if axes else set(range(x.rank))
    if isinstance(x, Constant):
        return x.map(lambda a: a.mean(axis=tuple(reduced), keepdims=bool(keepdims)))
    ones = (1,) * g.bindings
    solid = {axis for axis in reduced if x.shape[axis] != ones}
    y = x
    if solid:
        g.one_picture_at_a_time(x, tuple(solid))
        order = g.order(x)
        places = positions(order, solid)
        spatial = {i for i in range(1, x.rank - 1) if x.shape[order[i]] != ones}
        image = 3 <= x.rank <= 5 and spatial == set(places)
        op = ops.GlobalAveragePool(True) if image else ops.Mean(places, True)
        y = g.permuted(op, x, order)
    if not keepdims:
        y = g.without(y, reduced)
    return y


@onnx_op("Cast", since=1)
def Cast(
    g: OnnxBuilder,
    input: Tensor,
    *,
    to: Any,
    saturate: int = 1,
    round_mode: str = "up",
) -> Tensor:
    """Change the element type."""
    name = to.lower() if isinstance(to, str) else TENSORS.get(to, f"type {to}")
    if name in FLOATS and name not in ("float", "float32") and isinstance(input, Value):
        g.note(f"{name} values are computed as float32")
    name = "float32" if name in FLOATS else name
    if isinstance(input, Value) and name not in DTYPES:
        raise UnsupportedModelError(f"it makes {name} of computed values")
    return g.cast(input, name)


@onnx_op("CastLike", since=15)
def CastLike(
    g: OnnxBuilder,
    input: Tensor,
    target_type: Tensor,
    *,
    saturate: int = 1,
    round_mode: str = "up",
) -> Tensor:
    """Change the element type to that of another tensor."""
    if isinstance(target_type, Value):
        return g.cast(input, target_type.dtype)
    assert isinstance(target_type, Constant)
    return g.cast(input, str(target_type.arrays[0].dtype))
