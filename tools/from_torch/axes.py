"""Operators that move, join, cut, repeat and look up.

Each function is named and signed like its operator.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.builder import bounded
from striate.tools.from_onnx import axes, data
from striate.tools.from_torch.registry import (
    FLOATING,
    TorchBuilder,
    aten_op,
    dtype_of,
)
from striate.tools.layout import Constant, Dim, Tensor

Ints = list[int]


@aten_op("alias", "clone", "contiguous", "detach", "lift_fresh_copy", "positive")
def alias(g: TorchBuilder, self: Tensor) -> Tensor:
    """Do nothing: where elements lie is decided here."""
    return self


@aten_op("to.dtype")
def to_dtype(
    g: TorchBuilder,
    self: Tensor,
    dtype: str,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """Change the element type."""
    return converted(g, self, dtype)


@aten_op("to.device")
def to_device(
    g: TorchBuilder,
    self: Tensor,
    device: Any,
    dtype: str,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """Change the element type; there is only one device."""
    return converted(g, self, dtype)


@aten_op("to.dtype_layout", "_to_copy")
def to_copy(g: TorchBuilder, self: Tensor, *, dtype: str | None = None) -> Tensor:
    """Change the element type."""
    return converted(g, self, dtype)


@aten_op("to.other")
def to_other(
    g: TorchBuilder,
    self: Tensor,
    other: Tensor,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """Take the element type of another tensor."""
    return converted(g, self, dtype_of(other))


@aten_op("type_as")
def type_as(g: TorchBuilder, self: Tensor, other: Tensor) -> Tensor:
    """Take the element type of another tensor."""
    return converted(g, self, dtype_of(other))


def converted(g: TorchBuilder, x: Tensor, dtype: str | None) -> Tensor:
    """Return a tensor with another element type if any, all real ones as float32."""
    if dtype is None:
        return x
    if dtype in FLOATING:
        if dtype != "float32":
            g.note(f"{dtype} values are computed as float32")
        dtype = "float32"
    return g.cast(x, dtype)


@aten_op("view", "_unsafe_view", "view_copy")
def view(g: TorchBuilder, self: Tensor, size: Any) -> Tensor:
    """Give another shape."""
    return g.reshape_to(self, g.dims(size), zero_copies=False)


@aten_op("reshape")
def reshape(g: TorchBuilder, self: Tensor, shape: Any) -> Tensor:
    """Give another shape."""
    return view(g, self, shape)


@aten_op("reshape_as", "view_as")
def reshape_as(g: TorchBuilder, self: Tensor, other: Tensor) -> Tensor:
    """Give the shape of another tensor."""
    return g.reshape(self, other.shape)


@aten_op("flatten.using_ints")
def flatten(
    g: TorchBuilder, self: Tensor, start_dim: int = 0, end_dim: int = -1
) -> Tensor:
    """Join axes."""
    if not self.rank:
        return g.reshape(self, ((1,) * g.bindings,))
    first, last = g.axis(start_dim, self.rank), g.axis(end_dim, self.rank)
    joined = g.product(self.shape[first : last + 1])
    return g.reshape(self, (*self.shape[:first], joined, *self.shape[last + 1 :]))


@aten_op("unflatten.int")
def unflatten(g: TorchBuilder, self: Tensor, dim: int, sizes: Any) -> Tensor:
    """Cut an axis into several."""
    place = g.axis(dim, self.rank)
    parts = g.dims(sizes)
    whole = self.shape[place]
    rest = [
        size // abs(math.prod(part[b] for part in parts))
        for b, size in enumerate(whole)
    ]
    parts = tuple(tuple(rest) if part[0] == -1 else part for part in parts)
    return g.reshape(self, (*self.shape[:place], *parts, *self.shape[place + 1 :]))


@aten_op("squeeze")
def squeeze(g: TorchBuilder, self: Tensor) -> Tensor:
    """Leave out all axes of size one."""
    return axes.Squeeze_1(g, self)


@aten_op("squeeze.dim")
def squeeze_dim(g: TorchBuilder, self: Tensor, dim: int) -> Tensor:
    """Leave out an axis if it has size one."""
    return squeeze_dims(g, self, [dim])


@aten_op("squeeze.dims")
def squeeze_dims(g: TorchBuilder, self: Tensor, dim: Ints) -> Tensor:
    """Leave out those of some axes that have size one."""
    ones = (1,) * g.bindings
    chosen = [g.axis(d, self.rank) for d in dim]
    chosen = [d for d in chosen if self.shape[d] == ones]
    return axes.Squeeze_1(g, self, axes=tuple(chosen))


@aten_op("unsqueeze")
def unsqueeze(g: TorchBuilder, self: Tensor, dim: int) -> Tensor:
    """Insert an axis of size one."""
    return axes.Unsqueeze_1(g, self, axes=(dim,))


@aten_op("permute")
def permute(g: TorchBuilder, self: Tensor, dims: Ints) -> Tensor:
    """Put the axes in another order."""
    return axes.Transpose(g, self, perm=tuple(g.axis(d, self.rank) for d in dims))


@aten_op("transpose.int")
def transpose(g: TorchBuilder, self: Tensor, dim0: int, dim1: int) -> Tensor:
    """Swap two axes."""
    order = list(range(self.rank))
    if self.rank:
        first, second = g.axis(dim0, self.rank), g.axis(dim1, self.rank)
        order[first], order[second] = second, first
    return self.transpose(order)


@aten_op("swapaxes")
def swapaxes(g: TorchBuilder, self: Tensor, axis0: int, axis1: int) -> Tensor:
    """Swap two axes."""
    return transpose(g, self, axis0, axis1)


@aten_op("t")
def t(g: TorchBuilder, self: Tensor) -> Tensor:
    """Swap the axes of a matrix."""
    return self.transpose(tuple(reversed(range(self.rank))))


@aten_op("numpy_T")
def numpy_t(g: TorchBuilder, self: Tensor) -> Tensor:
    """Turn the axes round."""
    return t(g, self)


@aten_op("mT", "adjoint")
def matrix_t(g: TorchBuilder, self: Tensor) -> Tensor:
    """Swap the last two axes."""
    return transpose(g, self, -2, -1)


@aten_op("movedim.int", "movedim.intlist")
def movedim(g: TorchBuilder, self: Tensor, source: Any, destination: Any) -> Tensor:
    """Move axes to other places."""
    pairs = [[n] if isinstance(n, int) else n for n in (source, destination)]
    moved, places = ([g.axis(n, self.rank) for n in pair] for pair in pairs)
    order = [axis for axis in range(self.rank) if axis not in moved]
    for place, axis in sorted(zip(places, moved, strict=True)):
        order.insert(place, axis)
    return self.transpose(order)


@aten_op("expand")
def expand(
    g: TorchBuilder, self: Tensor, size: Any, *, implicit: bool = False
) -> Tensor:
    """Repeat axes of size one; -1 keeps a size."""
    wanted = g.dims(size)
    missing = len(wanted) - self.rank
    kept = ((1,) * g.bindings,) * missing + self.shape
    sizes = [k if w[0] == -1 else w for w, k in zip(wanted, kept, strict=True)]
    return axes.Expand(g, self, g.sizes(sizes))


@aten_op("expand_as")
def expand_as(g: TorchBuilder, self: Tensor, other: Tensor) -> Tensor:
    """Repeat axes of size one up to the shape of another tensor."""
    return axes.Expand(g, self, g.sizes(other.shape))


@aten_op("repeat")
def repeat(g: TorchBuilder, self: Tensor, repeats: Any) -> Tensor:
    """Repeat the tensor along each axis."""
    times = g.dims(repeats)
    x = g.expanded(self, len(times))
    return tiled(g, x, times)


@aten_op("tile")
def tile(g: TorchBuilder, self: Tensor, dims: Any) -> Tensor:
    """Repeat the tensor along each of the last axes."""
    times = g.dims(dims)
    ones = ((1,) * g.bindings,) * max(0, self.rank - len(times))
    return tiled(g, g.expanded(self, len(times)), (*ones, *times))


def tiled(g: TorchBuilder, x: Tensor, times: tuple[Dim, ...]) -> Tensor:
    """Return a tensor repeated along each axis."""
    if all(set(dim) == {1} for dim in times):
        return x
    if isinstance(x, Constant):
        return g.fold(_tiled, (x, g.sizes(times)))[0]
    return data.Tile(g, x, g.sizes(times))


def _tiled(array: Array, times: Array) -> Array:
    bounded([n * count for n, count in zip(array.shape, times, strict=True)])
    return np.tile(array, times)


@aten_op("repeat_interleave.self_int")
def repeat_interleave(
    g: TorchBuilder,
    self: Tensor,
    repeats: Any,
    dim: int | None = None,
    *,
    output_size: Any = None,
) -> Tensor:
    """Repeat each element of an axis."""
    x = data.flat(g, self) if dim is None else self
    place = g.axis(dim or 0, x.rank)
    count = g.dim(repeats)
    sizes = [*x.shape[: place + 1], count, *x.shape[place + 1 :]]
    grown = axes.Expand(g, unsqueeze(g, x, place + 1), g.sizes(sizes))
    joined = g.product((x.shape[place], count))
    return g.reshape(grown, (*x.shape[:place], joined, *x.shape[place + 1 :]))


@aten_op("cat", "concat", "concatenate")
def cat(g: TorchBuilder, tensors: list[Tensor], dim: int = 0) -> Tensor:
    """Join along an axis; tensors of no elements and one axis do not count."""
    kept = [x for x in tensors if x.rank != 1 or any(x.shape[0])] or tensors[:1]
    if any(dtype_of(x) != dtype_of(kept[0]) for x in kept):
        kept = [g.cast(x, "float32") for x in kept]
    return axes.Concat(g, *kept, axis=dim)


@aten_op("stack")
def stack(g: TorchBuilder, tensors: list[Tensor], dim: int = 0) -> Tensor:
    """Join along a new axis."""
    place = g.axis(dim, tensors[0].rank + 1)
    return cat(g, [unsqueeze(g, x, place) for x in tensors], place)


@aten_op("split.Tensor", "unsafe_split.Tensor")
def split(g: TorchBuilder, self: Tensor, split_size: Any, dim: int = 0) -> Any:
    """Cut into parts of one size; the last may be smaller."""
    place = g.axis(dim, self.rank)
    size = g.fixed(self.shape[place], "the size it cuts")
    part = g.fixed(g.dim(split_size), "the size of its parts")
    return axes.cut(
        g, self, place, tuple(min(part, size - at) for at in range(0, size, part))
    )


@aten_op("chunk", "unsafe_chunk")
def chunk(g: TorchBuilder, self: Tensor, chunks: int, dim: int = 0) -> Any:
    """Cut into a number of parts, of which the last may be smaller or missing."""
    place = g.axis(dim, self.rank)
    size = g.fixed(self.shape[place], "the size it cuts")
    return split(g, self, -(-size // chunks), place)


@aten_op("split_with_sizes", "unsafe_split_with_sizes")
def split_with_sizes(
    g: TorchBuilder, self: Tensor, split_sizes: Any, dim: int = 0
) -> Any:
    """Cut into parts of given sizes."""
    parts = tuple(g.fixed(part, "the size of a part") for part in g.dims(split_sizes))
    return axes.cut(g, self, g.axis(dim, self.rank), parts)


@aten_op("split.sizes")
def split_sizes(g: TorchBuilder, self: Tensor, split_size: Any, dim: int = 0) -> Any:
    """Cut into parts of given sizes."""
    return split_with_sizes(g, self, split_size, dim)


@aten_op("tensor_split.sections")
def tensor_split(g: TorchBuilder, self: Tensor, sections: int, dim: int = 0) -> Any:
    """Cut into a number of parts that differ by one at most."""
    place = g.axis(dim, self.rank)
    size = g.fixed(self.shape[place], "the size it cuts")
    parts = tuple(size // sections + (i < size % sections) for i in range(sections))
    return axes.cut(g, self, place, parts)


@aten_op("unbind.int")
def unbind(g: TorchBuilder, self: Tensor, dim: int = 0) -> Any:
    """Cut into slices."""
    place = g.axis(dim, self.rank)
    count = g.fixed(self.shape[place], "the size it cuts")
    parts = axes.cut(g, self, place, (1,) * count)
    return tuple(squeeze_dim(g, part, place) for part in parts)


@aten_op("slice.Tensor")
def slice(
    g: TorchBuilder,
    self: Tensor,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: Any = 1,
) -> Tensor:
    """Cut out a range of an axis."""
    place = g.axis(dim, self.rank)
    first = 0 if start is None else _bound(g, start, self.shape[place])
    stop = axes.FAR if end is None else _bound(g, end, self.shape[place])
    return axes.sliced(g, self, (first,), (stop,), (place,), (int(step),))


def _bound(g: TorchBuilder, bound: Any, size: Dim) -> int:
    """Return a bound that does not depend on sizes, or is as far from the end."""
    given = g.dim(bound)
    if len(set(given)) == 1:
        return max(-axes.FAR, min(given[0], axes.FAR))
    if given == size:
        return axes.FAR
    left = {b - n for b, n in zip(given, size, strict=True)}
    if len(left) == 1 and max(left) < 0:
        return left.pop()
    return g.fixed(given, "a bound")


@aten_op("narrow")
def narrow(g: TorchBuilder, self: Tensor, dim: int, start: Any, length: Any) -> Tensor:
    """Cut out a range of an axis."""
    first = g.fixed(g.dim(start), "its start")
    count = g.fixed(g.dim(length), "its length")
    return slice(g, self, dim, first, first + count)


@aten_op("select.int")
def select(g: TorchBuilder, self: Tensor, dim: int, index: Any) -> Tensor:
    """Take one slice of an axis."""
    place = g.axis(dim, self.rank)
    chosen = g.fixed(g.dim(index), "its index")
    part = slice(g, self, place, chosen, None if chosen == -1 else chosen + 1)
    return squeeze_dim(g, part, place)


@aten_op("index_select")
def index_select(g: TorchBuilder, self: Tensor, dim: int, index: Tensor) -> Tensor:
    """Take slices of an axis in any order."""
    return axes.Gather(g, self, index, axis=dim)


@aten_op("embedding")
def embedding(
    g: TorchBuilder,
    weight: Tensor,
    indices: Tensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Take rows of a matrix."""
    return axes.Gather(g, weight, indices, axis=0)


@aten_op("gather")
def gather(
    g: TorchBuilder, self: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False
) -> Tensor:
    """Take one element for each index."""
    return data.GatherElements(g, self, index, axis=dim)


@aten_op("index.Tensor")
def index(g: TorchBuilder, self: Tensor, indices: list[Tensor | None]) -> Tensor:
    """Take elements by arrays of indices, of one axis unless all is known."""
    given = {axis: x for axis, x in enumerate(indices) if x is not None}
    if isinstance(self, Constant) and all(
        isinstance(x, Constant) for x in given.values()
    ):
        return g.fold(_indexed, (self, *indices))[0]
    if len(given) != 1:
        return _pairs(g, self, given)
    place, chosen = next(iter(given.items()))
    if dtype_of(chosen) == "bool":
        raise UnsupportedModelError("by a mask: how much it takes depends on the input")
    return axes.Gather(g, self, chosen, axis=place)


def _indexed(array: Any, *where: Any) -> Any:
    key = [np.s_[:] if x is None else x for x in where]
    return array[tuple(key)]


def _pairs(g: TorchBuilder, x: Tensor, given: dict[int, Tensor]) -> Tensor:
    """Take elements by known arrays of indices of axes side by side."""
    places = sorted(given)
    if places != list(range(places[0], places[0] + len(places))):
        raise UnsupportedModelError("by indices of several axes")
    arrays = [g.array(given[place], "its indices") for place in places]
    arrays = list(np.broadcast_arrays(*arrays))
    sizes = [g.fixed(x.shape[place], "a size it indexes") for place in places]
    flat = np.ravel_multi_index(
        [a % n for a, n in zip(arrays, sizes, strict=True)], sizes
    )
    joined = flatten(g, x, places[0], places[-1])
    return axes.Gather(g, joined, g.constant(flat.astype(np.int64)), axis=places[0])


MODES = {
    "constant": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
}
"""What the outside holds, as `numpy.pad` calls it."""


@aten_op("pad")
def pad(
    g: TorchBuilder,
    self: Tensor,
    pad: Any,
    mode: str = "constant",
    value: float | None = None,
) -> Tensor:
    """Pad or crop the last axes, which are given from the last one on."""
    return padded(g, self, pad, mode, value)


def padded(
    g: TorchBuilder, x: Tensor, pad: Any, mode: str, value: float | None
) -> Tensor:
    """Return a tensor padded or cropped, from its last axis on."""
    if mode not in MODES:
        raise UnsupportedModelError(f"mode {mode!r}")
    numbers = [g.fixed(n, "a padding") for n in g.dims(pad)]
    before, after = [0] * x.rank, [0] * x.rank
    for i in range(len(numbers) // 2):
        before[-1 - i], after[-1 - i] = numbers[2 * i], numbers[2 * i + 1]
    if value is not None and math.isinf(value):
        g.note("padding with infinity is done with the largest number there is")
    most = float(np.finfo(np.float32).max)
    filling = max(-most, min(float(value or 0), most))
    return axes.padded(g, x, (*before, *after), MODES[mode], filling)


@aten_op("constant_pad_nd")
def constant_pad_nd(
    g: TorchBuilder, self: Tensor, pad: Any, value: float = 0
) -> Tensor:
    """Pad or crop the last axes."""
    return padded(g, self, pad, "constant", value)


@aten_op("roll")
def roll(g: TorchBuilder, self: Tensor, shifts: Any, dims: Any = ()) -> Tensor:
    """Move elements along axes, from the end to the beginning."""
    x = self if dims else data.flat(g, self)
    steps = [shifts] if isinstance(shifts, int) else shifts
    for shift, dim in zip(steps, dims or [0], strict=True):
        place = g.axis(dim, x.rank)
        size = g.fixed(x.shape[place], "the size it rolls")
        cut = -int(shift) % size
        if cut:
            first, second = axes.cut(g, x, place, (cut, size - cut))
            x = axes.Concat(g, second, first, axis=place)
    return x if x.rank == self.rank else g.reshape(x, self.shape)


@aten_op("flip")
def flip(g: TorchBuilder, self: Tensor, dims: Ints) -> Tensor:
    """Turn axes round."""
    places = [g.axis(dim, self.rank) for dim in dims]
    count = len(places)
    return axes.sliced(
        g, self, (-1,) * count, (-axes.FAR,) * count, places, (-1,) * count
    )


@aten_op("slice_scatter")
def slice_scatter(
    g: TorchBuilder,
    self: Tensor,
    src: Tensor,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: int = 1,
) -> Tensor:
    """Put a tensor in the place of a range of an axis."""
    place = g.axis(dim, self.rank)
    size = g.fixed(self.shape[place], "the size it writes into")
    bounds = [
        None if bound is None else g.fixed(g.dim(bound), "a bound")
        for bound in (start, end)
    ]
    places = range(size)[bounds[0] : bounds[1] : step]
    whole = expand(g, g.cast(src, dtype_of(self)), _sizes(self, place, len(places)))
    if step == 1:
        parts = [
            slice(g, self, place, 0, places.start),
            whole,
            slice(g, self, place, places.stop, None),
        ]
        kept = [x for x in parts if any(x.shape[place])]
        return axes.Concat(g, *kept, axis=place)
    pieces = [slice(g, self, place, i, i + 1) for i in range(size)]
    for at, i in enumerate(places):
        pieces[i] = slice(g, whole, place, at, at + 1)
    return axes.Concat(g, *pieces, axis=place)


def _sizes(x: Tensor, place: int, size: int) -> list[Any]:
    """Return the shape of a tensor with another size of one axis."""
    return [
        size if axis == place else Constant(tuple(np.array(n) for n in dim))
        for axis, dim in enumerate(x.shape)
    ]


@aten_op("select_scatter")
def select_scatter(
    g: TorchBuilder, self: Tensor, src: Tensor, dim: int, index: Any
) -> Tensor:
    """Put a tensor in the place of one slice of an axis."""
    place = g.axis(dim, self.rank)
    size = g.fixed(self.shape[place], "the size it writes into")
    at = g.fixed(g.dim(index), "its index") % size
    x = unsqueeze(g, src, place) if src.rank == self.rank - 1 else src
    return slice_scatter(g, self, x, place, at, at + 1)


@aten_op("copy")
def copy(
    g: TorchBuilder, self: Tensor, src: Tensor, non_blocking: bool = False
) -> Tensor:
    """Return another tensor in the shape and element type of the first."""
    return axes.Expand(g, g.cast(src, dtype_of(self)), g.sizes(self.shape))


@aten_op("unfold")
def unfold(
    g: TorchBuilder, self: Tensor, dimension: int, size: int, step: int
) -> Tensor:
    """Return windows of an axis, each as a new last axis."""
    place = g.axis(dimension, self.rank)
    length = g.fixed(self.shape[place], "the size it cuts")
    starts = np.arange(0, length - size + 1, step)
    chosen = g.constant(starts[:, None] + np.arange(size))
    y = axes.Gather(g, self, chosen, axis=place)
    return movedim(g, y, place + 1, -1)


@aten_op("einsum")
def einsum(
    g: TorchBuilder, equation: str, tensors: list[Tensor], *, path: Any = None
) -> Tensor:
    """Multiply and sum as the letters say."""
    return data.Einsum(g, *tensors, equation=equation)


@aten_op("meshgrid", "meshgrid.indexing")
def meshgrid(g: TorchBuilder, tensors: list[Tensor], *, indexing: str = "ij") -> Any:
    """Return the coordinates of a grid, which must be known."""
    order: Any = indexing
    return g.fold(lambda *arrays: tuple(np.meshgrid(*arrays, indexing=order)), tensors)


@aten_op("diff")
def diff(
    g: TorchBuilder,
    self: Tensor,
    n: int = 1,
    dim: int = -1,
    prepend: Tensor | None = None,
    append: Tensor | None = None,
) -> Tensor:
    """Subtract neighbours along an axis."""
    parts = [x for x in (prepend, self, append) if x is not None]
    x = cat(g, parts, dim) if len(parts) > 1 else self
    for _ in range(n):
        later, earlier = slice(g, x, dim, 1), slice(g, x, dim, 0, -1)
        x = g.combine(ops.Sub(), later, earlier)
    return x
