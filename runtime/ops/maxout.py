"""Maxout: an activation that is learnt."""

from __future__ import annotations

from ..record import record
from ..spec import Array, Spec, shape_text
from ..step import Step
from ..view import View
from ..window import checked_sizes
from .base import Lowering, Op, as_view, require, require_float32


@record
class Maxout(Op):
    """Take the largest of each group of channels: (..., C) to (..., C / pieces).

    Output channel j is the largest of input channels ``j * pieces`` to
    ``j * pieces + pieces - 1``. After a convolution or dense layer it is a convex
    function, piecewise linear, of that layer's input.

    Parameters
    ----------
    pieces : int
        Channels in a group.

    References
    ----------
    I. J. Goodfellow et al., Maxout networks, 2013.
    """

    pieces: int

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        (pieces,) = checked_sizes(self.pieces, "pieces")
        object.__setattr__(self, "pieces", pieces)

    def infer(self, x: Spec) -> Spec:
        """Return the shape with the channels divided by `pieces`."""
        require_float32("Maxout", x)
        require(
            x.rank > 0 and x.shape[-1] % self.pieces == 0,
            f"Maxout: the last axis of {shape_text(x.shape)} is no multiple of "
            f"{self.pieces} pieces",
        )
        return Spec((*x.shape[:-1], x.shape[-1] // self.pieces), x.dtype)

    def reference(self, x: Array) -> Array:
        """Return the largest of each group."""
        groups = x.reshape(*x.shape[:-1], x.shape[-1] // self.pieces, self.pieces)
        y: Array = groups.max(axis=-1)
        return y

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return the kernel."""
        source = as_view(low, x)
        strides = (*source.strides[:-1], self.pieces)
        kernel = low.load("maxout").maxout(out.shape, out.strides, strides, self.pieces)
        return [Step(kernel, (out, source), f"maxout of {self.pieces}")]
