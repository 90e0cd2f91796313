"""Adding overlapping blocks up into an image."""

from __future__ import annotations

import math

import numpy as np

from ..algorithms.boxes import three
from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from ..window import (
    Padding,
    Window,
    checked_sizes,
    explicit_padding,
    output_size,
    reach,
)
from .base import (
    Lowering,
    Op,
    as_view,
    checked_window,
    per_axis,
    require,
    require_float32,
)


@record
class Col2Im(Op):
    """Add blocks up into the image they were cut from.

    (N, positions, block * C), a row a block, to (N, image..., C). It is the adjoint of
    taking the block of every window of a sliding window, in the order of the windows;
    a row holds the block's positions in order, the channels of each together.

    Parameters
    ----------
    image : tuple of int
        The spatial size of the result, one to three axes.
    block : tuple of int
        The window's size along each axis; one number serves all.
    stride, dilation : tuple of int
        Of the window, for each axis; one number serves all.
    padding : str or tuple of (int, int)
        Of the image; what falls there is dropped.
    """

    image: Shape
    block: Shape
    stride: Shape = (1,)
    dilation: Shape = (1,)
    padding: Padding = "valid"

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_window(self)
        for name in ("image", "block"):
            object.__setattr__(self, name, checked_sizes(getattr(self, name), name))
        if len(self.image) > 3:
            raise ValueError(f"image {self.image}, wanted one to three sizes")

    def infer(self, x: Spec) -> Spec:
        """Return (N, image..., C)."""
        require_float32("Col2Im", x)
        window, counts = self._geometry()
        positions, taps = math.prod(counts), math.prod(window.kernel)
        require(
            x.rank == 3
            and 0 not in x.shape
            and x.shape[1] == positions
            and x.shape[2] % taps == 0,
            f"Col2Im: found {shape_text(x.shape)}, wanted (N, {positions}, a multiple "
            f"of {taps}) for blocks of {window.kernel} in an image of {self.image}",
        )
        return Spec((x.shape[0], *self.image, x.shape[2] // taps), x.dtype)

    def reference(self, x: Array) -> Array:
        """Return the image, tap by tap."""
        window, counts = self._geometry()
        taps = x.reshape(x.shape[0], *counts, math.prod(window.kernel), -1)
        padded = [
            n + b + a for n, (b, a) in zip(self.image, window.padding, strict=True)
        ]
        y = np.zeros((x.shape[0], *padded, taps.shape[-1]), x.dtype)
        for number, tap in enumerate(np.ndindex(window.kernel)):
            where = [
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, s, n in zip(
                    tap, window.dilation, window.stride, counts, strict=True
                )
            ]
            index = (slice(None), *where)
            y[index] += taps[..., number, :]
        inside = [
            slice(b, b + n)
            for n, (b, _) in zip(self.image, window.padding, strict=True)
        ]
        index = (slice(None), *inside)
        return y[index]

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return the kernel."""
        source = as_view(low, x)
        kernel = low.load("col2im").col2im(
            out.shape[0],
            three(self.image, 1),
            out.shape[-1],
            source.strides[0],
            (out.strides[0], *three(out.strides[1:-1], 0)),
        )
        table = low.constant(self._table(source.strides[1], out.shape[-1]))
        return [Step(kernel, (out, source, table), "col2im")]

    def _table(self, row: int, channels: int) -> Array:
        """Return which blocks cover each place of each axis, for the kernel."""
        window, counts = self._geometry()
        lists = [[0]] * (3 - len(self.image))
        for axis, n in enumerate(self.image):
            far = row * math.prod(counts[axis + 1 :])
            near = channels * math.prod(window.kernel[axis + 1 :])
            found: list[list[int]] = [[] for _ in range(n)]
            for tap in range(window.kernel[axis]):
                for block in range(counts[axis]):
                    at = block * window.stride[axis] + tap * window.dilation[axis]
                    at -= window.padding[axis][0]
                    if 0 <= at < n:
                        found[at].append(block * far + tap * near)
            lists += found
        most = 1 + max(map(len, lists))
        table = np.zeros((len(lists), most), np.int64)
        for line, offsets in zip(table, lists, strict=True):
            line[0] = len(offsets)
            line[1 : 1 + len(offsets)] = offsets
        return np.concatenate([[most], table.reshape(-1)]).astype(np.int64)

    def _geometry(self) -> tuple[Window, Shape]:
        """Return the window and how many there are along each axis."""
        rank = len(self.image)
        kernel = per_axis(self.block, rank, "block")
        stride = per_axis(self.stride, rank, "stride")
        dilation = per_axis(self.dilation, rank, "dilation")
        span = reach(kernel, dilation)
        padding = explicit_padding(self.padding, self.image, span, stride)
        counts = output_size(self.image, span, stride, padding)
        return Window(kernel, stride, dilation, padding), counts
