"""Where a tensor lies in memory: a buffer, an offset, a stride an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from .spec import Array, Shape, Spec

Halo = tuple[tuple[int, int], ...]
"""How many zero elements lie before and after each axis."""


@dataclass(eq=False)
class Buffer:
    """A piece of memory that a plan's steps read or write.

    ``arena`` buffers share one allocation and get their place from the lifetime
    planner; ``input`` and ``output`` buffers are the caller's arrays, known only
    when a run begins; ``constant`` buffers hold weights.
    """

    nbytes: int
    source: Literal["arena", "input", "output", "constant"] = "arena"
    index: int = 0
    array: Array | None = None


@dataclass(frozen=True)
class View:
    """A tensor in a buffer; offset and strides count elements, not bytes."""

    buffer: Buffer
    shape: Shape
    strides: tuple[int, ...]
    offset: int = 0
    dtype: str = "float32"
    halo: Halo = field(default=())

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def spec(self) -> Spec:
        """Shape and element type."""
        return Spec(self.shape, self.dtype)

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return int(np.dtype(self.dtype).itemsize)

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie one after another in C order."""
        wanted = contiguous_strides(self.shape)
        return all(
            n == 1 or have == want
            for n, have, want in zip(self.shape, self.strides, wanted, strict=True)
        )

    @property
    def padding(self) -> Halo:
        """The halo of every axis; zeros where the view has none."""
        return self.halo or ((0, 0),) * self.rank

    def slice(self, axis: int, start: int, count: int, step: int = 1) -> View:
        """Return `count` positions of `axis` from `start`, every `step`-th."""
        shape = list(self.shape)
        strides = list(self.strides)
        halo = list(self.padding)
        shape[axis] = count
        strides[axis] *= step
        halo[axis] = (0, 0)
        offset = self.offset + start * self.strides[axis]
        return View(
            self.buffer, tuple(shape), tuple(strides), offset, self.dtype, tuple(halo)
        )

    def transpose(self, axes: Sequence[int]) -> View:
        """Return the view with its axes reordered, as `numpy.transpose`."""
        return replace(
            self,
            shape=tuple(self.shape[a] for a in axes),
            strides=tuple(self.strides[a] for a in axes),
            halo=tuple(self.padding[a] for a in axes),
        )

    def broadcast(self, shape: Shape) -> View:
        """Return the view stretched to `shape` by strides of zero, as NumPy does."""
        lead = len(shape) - self.rank
        strides = [0] * lead + [
            0 if have == 1 and want != 1 else stride
            for have, want, stride in zip(
                self.shape, shape[lead:], self.strides, strict=True
            )
        ]
        return replace(self, shape=shape, strides=tuple(strides), halo=())

    def reshape(self, shape: Shape) -> View | None:
        """Return the same elements under another shape; None if it takes a copy."""
        if shape == self.shape:
            return self
        strides = _reshaped_strides(self.shape, self.strides, shape)
        if strides is None:
            return None
        return replace(self, shape=shape, strides=strides, halo=())


def contiguous_strides(shape: Shape) -> tuple[int, ...]:
    """Return the strides of a C-ordered array, in elements."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)


def _reshaped_strides(
    old: Shape, strides: tuple[int, ...], new: Shape
) -> tuple[int, ...] | None:
    """Return strides that walk `new` over memory laid out as `old`, if any do."""
    axes = [(n, s) for n, s in zip(old, strides, strict=True) if n != 1]
    runs: list[tuple[int, int]] = []
    for n, stride in axes:
        if runs and runs[-1][1] == n * stride:
            runs[-1] = (runs[-1][0] * n, stride)
        else:
            runs.append((n, stride))
    result = [1] * len(new)
    left = 1
    for axis in range(len(new) - 1, -1, -1):
        if new[axis] == 1:
            continue
        if left == 1:
            if not runs:
                return None
            left, stride = runs.pop()
        if left % new[axis]:
            return None
        result[axis] = stride
        stride *= new[axis]
        left //= new[axis]
    return tuple(result) if left == 1 and not runs else None
