"""A tensor that no input changes."""

from __future__ import annotations

from typing import ClassVar

from ..spec import Array, Spec
from ..step import Step
from ..view import View
from .base import Lowering, Op, as_view
from .identity import copy_step


class Constant(Op):
    """Give a weight as a value; the operand is `value`, of any shape."""

    weights: ClassVar[tuple[str, ...]] = ("value",)

    def infer(self, value: Spec) -> Spec:
        """Return the weight's spec."""
        return value

    def reference(self, value: Array) -> Array:
        """Return the weight."""
        return value

    def lower(self, low: Lowering, out: View, value: View | Array) -> list[Step]:
        """Return a copy."""
        return [copy_step(low, out, as_view(low, value))]
