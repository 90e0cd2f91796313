"""Mixing the groups of a grouped convolution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..record import record
from ..spec import Array, Spec, shape_text
from ..step import Step
from ..view import View
from ..window import checked_sizes
from .base import Lowering, Op, as_view, require
from .identity import copy_step


@record
class ChannelShuffle(Op):
    """Deal out the channels of each group in turn: (..., C) to (..., C).

    Channel ``j * groups + g`` of the output is channel ``g * (C / groups) + j`` of the
    input.

    Parameters
    ----------
    groups : int
        A divisor of C.
    """

    groups: int

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` unless it is a positive number."""
        (groups,) = checked_sizes(self.groups, "groups")
        object.__setattr__(self, "groups", groups)

    def infer(self, x: Spec) -> Spec:
        """Return the input's spec."""
        require(
            x.rank > 0 and x.shape[-1] % self.groups == 0,
            f"ChannelShuffle: {self.groups} groups do not divide the channels of "
            f"{shape_text(x.shape)}",
        )
        return x

    def reference(self, x: Array) -> Array:
        """Return the channels as a matrix of groups, transposed."""
        groups = x.reshape(*x.shape[:-1], self.groups, -1)
        return np.swapaxes(groups, -1, -2).reshape(x.shape)

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return a copy with the channels as two axes."""
        source = as_view(low, x)
        each = out.shape[-1] // self.groups
        shape = (*out.shape[:-1], each, self.groups)
        to = replace(
            out, shape=shape, strides=(*out.strides[:-1], self.groups, 1), halo=()
        )
        origin = replace(
            source, shape=shape, strides=(*source.strides[:-1], 1, each), halo=()
        )
        return [copy_step(low, to, origin)]
