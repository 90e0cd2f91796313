"""Comparisons of two tensors: truth values."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from ..spec import Array, Spec
from ..step import Step
from ..view import View
from .base import Lowering, as_view
from .binary import NUMBERS, Pairwise


class _Comparison(Pairwise, abstract=True):
    """A comparison with NumPy's broadcasting; false if an operand is NaN."""

    kind: ClassVar[str]
    exchanged: ClassVar[bool] = False

    def infer(self, x: Spec, y: Spec) -> Spec:
        """Return truth values of the shape to which both operands stretch."""
        return replace(super().infer(x, y), dtype="bool")

    def lower(
        self, low: Lowering, out: View, x: View | Array, y: View | Array
    ) -> list[Step]:
        """Return the kernel."""
        return [
            compare_step(low, self.kind, out, *((y, x) if self.exchanged else (x, y)))
        ]


def compare_step(
    low: Lowering, kind: str, out: View, x: View | Array, y: View | Array
) -> Step:
    """Return the step ``out = kind(x, y)``.

    Parameters
    ----------
    kind : str
        ``"Equal"``, ``"Greater"`` or ``"GreaterOrEqual"``.
    out : View
        Of truth values.
    x, y : View or Array
        Of one type; each broadcasts to the shape of `out`.
    """
    views = (out, as_view(low, x), as_view(low, y))
    strides = tuple(view.broadcast(out.shape).strides for view in views)
    kernel = low.load("compare").compare(kind, views[1].dtype, out.shape, strides)
    return Step(kernel, views, "elementwise")


class Equal(_Comparison):
    """Tell where two tensors are equal, broadcasting."""

    kind: ClassVar[str] = "Equal"
    function: ClassVar[np.ufunc] = np.equal
    dtypes: ClassVar[tuple[str, ...]] = (*NUMBERS, "bool")


class Greater(_Comparison):
    """Tell where x is greater than y, broadcasting."""

    kind: ClassVar[str] = "Greater"
    function: ClassVar[np.ufunc] = np.greater


class GreaterOrEqual(_Comparison):
    """Tell where x is at least y, broadcasting."""

    kind: ClassVar[str] = "GreaterOrEqual"
    function: ClassVar[np.ufunc] = np.greater_equal


class Less(_Comparison):
    """Tell where x is less than y, broadcasting."""

    kind: ClassVar[str] = "Greater"
    function: ClassVar[np.ufunc] = np.less
    exchanged: ClassVar[bool] = True


class LessOrEqual(_Comparison):
    """Tell where x is at most y, broadcasting."""

    kind: ClassVar[str] = "GreaterOrEqual"
    function: ClassVar[np.ufunc] = np.less_equal
    exchanged: ClassVar[bool] = True
