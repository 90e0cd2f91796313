"""Trading channels for pixels, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from ..window import checked_sizes
from .base import Lowering, Op, as_view, require, require_image
from .identity import copy_step


@record
class _Blocks(Op, abstract=True):
    """What both directions share: the block and the order of its channels."""

    block: int
    mode: Literal["DCR", "CRD"] = "DCR"

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        (block,) = checked_sizes(self.block, "block")
        object.__setattr__(self, "block", block)
        if self.mode not in ("DCR", "CRD"):
            raise ValueError(f"mode {self.mode!r}, wanted 'DCR' or 'CRD'")

    def _channel_axes(self, channels: int, rank: int) -> tuple[Shape, Shape]:
        """Return the deep channels as axes, and which of them is which.

        The second tuple has where in the first the blocks' axes are, then the channels.
        """
        blocks = (self.block,) * rank
        if self.mode == "DCR":
            return (*blocks, channels), (*range(rank), rank)
        return (channels, *blocks), (*range(1, rank + 1), 0)


class DepthToSpace(_Blocks):
    """Spread channels over a block of pixels each.

    (N, spatial..., C) to (N, block spatial..., C / block^axes); also called pixel
    shuffle.

    Parameters
    ----------
    block : int
        How many pixels along each spatial axis one pixel becomes.
    mode : str
        How channels are counted: ``"DCR"``, place in the block first (TensorFlow), or
        ``"CRD"``, new channel first (pixel shuffle of PyTorch).
    """

    def infer(self, x: Spec) -> Spec:
        """Return the shape with more pixels and fewer channels."""
        require_image("DepthToSpace", x)
        pixels = self.block ** (x.rank - 2)
        require(
            x.shape[-1] % pixels == 0,
            f"DepthToSpace: a block of {pixels} pixels does not divide the channels of "
            f"{shape_text(x.shape)}",
        )
        size = (n * self.block for n in x.spatial)
        return Spec((x.shape[0], *size, x.shape[-1] // pixels), x.dtype)

    def reference(self, x: Array) -> Array:
        """Return the array with the block's axes beside those they refine."""
        rank = x.ndim - 2
        out = self.infer(Spec(x.shape)).shape
        split, order = self._channel_axes(out[-1], rank)
        parts = x.reshape(*x.shape[:-1], *split)
        axes = [0]
        for axis in range(rank):
            axes += [1 + axis, 1 + rank + order[axis]]
        axes.append(1 + rank + order[-1])
        return np.transpose(parts, axes).reshape(out)

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return a copy between the two as tensors with the block's axes."""
        source = as_view(low, x)
        return [copy_step(low, *_as_blocks(self, out, source))]


class SpaceToDepth(_Blocks):
    """Gather each block of pixels into the channels of one.

    (N, spatial..., C) to (N, spatial / block..., C block^axes).

    Parameters
    ----------
    block : int
        How many pixels along each spatial axis become one; a divisor of its size.
    mode : str
        How the new channels are counted: ``"DCR"``, place in the block first
        (TensorFlow), or ``"CRD"``, old channel first (pixel unshuffle of PyTorch).
    """

    def infer(self, x: Spec) -> Spec:
        """Return the shape with fewer pixels and more channels."""
        require_image("SpaceToDepth", x)
        require(
            all(n % self.block == 0 for n in x.spatial),
            f"SpaceToDepth: a block of {self.block} does not divide the pixels of "
            f"{shape_text(x.shape)}",
        )
        size = (n // self.block for n in x.spatial)
        channels = x.shape[-1] * self.block ** (x.rank - 2)
        return Spec((x.shape[0], *size, channels), x.dtype)

    def reference(self, x: Array) -> Array:
        """Return the array with the block's axes before or behind the channels."""
        rank = x.ndim - 2
        out = self.infer(Spec(x.shape)).shape
        parts = x.reshape(
            x.shape[0],
            *(k for n in out[1:-1] for k in (n, self.block)),
            x.shape[-1],
        )
        blocks = [2 + 2 * axis for axis in range(rank)]
        deep = [*blocks, parts.ndim - 1]
        if self.mode == "CRD":
            deep = [parts.ndim - 1, *blocks]
        axes = [0, *(1 + 2 * axis for axis in range(rank)), *deep]
        return np.transpose(parts, axes).reshape(out)

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return a copy between the two as tensors with the block's axes."""
        wide, deep = _as_blocks(self, as_view(low, x), out)
        return [copy_step(low, deep, wide)]


def _as_blocks(op: _Blocks, wide: View, deep: View) -> tuple[View, View]:
    """Return a tensor of many pixels and one of many channels with the same axes.

    Those are N, then the deep one's pixels and their place in the block for each
    spatial axis, then the wide one's channels.
    """
    rank = wide.rank - 2
    split, order = op._channel_axes(wide.shape[-1], rank)
    steps = [1] * len(split)
    for axis in range(len(split) - 2, -1, -1):
        steps[axis] = steps[axis + 1] * split[axis + 1]
    shape = [wide.shape[0]]
    wide_strides = [wide.strides[0]]
    deep_strides = [deep.strides[0]]
    for axis in range(rank):
        shape += [deep.shape[1 + axis], op.block]
        wide_strides += [wide.strides[1 + axis] * op.block, wide.strides[1 + axis]]
        deep_strides += [deep.strides[1 + axis], steps[order[axis]]]
    shape.append(wide.shape[-1])
    wide_strides.append(1)
    deep_strides.append(steps[order[-1]])
    return (
        replace(wide, shape=tuple(shape), strides=tuple(wide_strides), halo=()),
        replace(deep, shape=tuple(shape), strides=tuple(deep_strides), halo=()),
    )
