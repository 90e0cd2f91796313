"""Passing a tensor on, and the copy that other operators need."""

from __future__ import annotations

import math

from ..spec import Array, Shape, Spec
from ..step import Step
from ..view import View, contiguous_strides
from .base import Lowering, Op, as_view


class Identity(Op):
    """Pass a tensor on unchanged: any shape to the same shape."""

    def infer(self, x: Spec) -> Spec:
        """Return the input's spec."""
        return x

    def reference(self, x: Array) -> Array:
        """Return the input."""
        return x

    def changes_nothing(self, x: Spec) -> bool:
        """Return True."""
        return True

    def view(self, x: View) -> View:
        """Return the input."""
        return x

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return a copy."""
        return [copy_step(low, out, as_view(low, x))]


def copy_step(low: Lowering, out: View, x: View, together: bool = False) -> Step:
    """Return the step that copies `x` to `out`; they have one shape, do not overlap."""
    kernel = low.load("copy").copy(out.shape, out.strides, x.strides, out.itemsize)
    return Step(kernel, (out, x), "copy", together)


def scratch_tensor(low: Lowering, shape: Shape, dtype: str = "float32") -> View:
    """Return contiguous scratch memory as a tensor."""
    buffer = low.scratch(math.prod(shape), dtype).buffer
    return View(buffer, shape, contiguous_strides(shape), 0, dtype)


def in_place(out: View, x: View) -> bool:
    """Return whether the elements of `x` lie exactly where those of `out` do."""
    return (
        x.buffer is out.buffer
        and x.offset == out.offset
        and x.shape == out.shape
        and all(
            n == 1 or a == b
            for n, a, b in zip(out.shape, x.strides, out.strides, strict=True)
        )
    )
