"""Functions of truth values, and of the bits of whole numbers."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..spec import Array, Spec
from ..step import Step
from ..view import View
from .base import Lowering, Op
from .binary import WHOLE, Pairwise, arithmetic_step, common_dtype


class _Logic(Pairwise, abstract=True):
    """A function of two truth values, or of each bit, with NumPy's broadcasting."""

    kind: ClassVar[str]
    dtypes: ClassVar[tuple[str, ...]] = ("bool",)

    def lower(
        self, low: Lowering, out: View, x: View | Array, y: View | Array
    ) -> list[Step]:
        """Return the kernel; `out` may be an operand of its own shape."""
        return [arithmetic_step(low, self.kind, out, x, y)]


class And(_Logic):
    """Tell where both of two tensors are true, broadcasting."""

    kind: ClassVar[str] = "And"
    function: ClassVar[np.ufunc] = np.bitwise_and


class Or(_Logic):
    """Tell where one of two tensors is true, or both are, broadcasting."""

    kind: ClassVar[str] = "Or"
    function: ClassVar[np.ufunc] = np.bitwise_or


class Xor(_Logic):
    """Tell where just one of two tensors is true, broadcasting."""

    kind: ClassVar[str] = "Xor"
    function: ClassVar[np.ufunc] = np.bitwise_xor


class BitwiseAnd(And):
    """Keep the bits that two tensors of whole numbers share, broadcasting."""

    dtypes: ClassVar[tuple[str, ...]] = WHOLE


class BitwiseOr(Or):
    """Join the bits of two tensors of whole numbers, broadcasting."""

    dtypes: ClassVar[tuple[str, ...]] = WHOLE


class BitwiseXor(Xor):
    """Keep the bits in which two tensors of whole numbers differ, broadcasting."""

    dtypes: ClassVar[tuple[str, ...]] = WHOLE


class Not(Op):
    """Make true what is false and false what is true: any shape to the same."""

    ones: ClassVar[int] = 1
    dtypes: ClassVar[tuple[str, ...]] = ("bool",)

    def infer(self, x: Spec) -> Spec:
        """Return the input's spec."""
        common_dtype(type(self).__name__, self.dtypes, x)
        return x

    def reference(self, x: Array) -> Array:
        """Return not x."""
        y: Array = ~x
        return y

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return the kernel; `out` may be `x`."""
        ones = np.array(self.ones).astype(out.dtype)
        return [arithmetic_step(low, "Xor", out, x, ones)]


class BitwiseNot(Not):
    """Turn every bit of whole numbers: any shape to the same."""

    ones: ClassVar[int] = -1
    dtypes: ClassVar[tuple[str, ...]] = WHOLE
