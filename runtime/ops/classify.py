"""Questions about single numbers, answered by true or false."""

from __future__ import annotations

import numpy as np

from ..record import record
from ..spec import Array, Spec
from ..step import Step
from ..view import View
from .base import Lowering, Op, as_view, require_float32


class _Question(Op, abstract=True):
    """What both questions share: the shape stays, the answers are bool."""

    def infer(self, x: Spec) -> Spec:
        """Return the input's shape, as bool."""
        require_float32(type(self).__name__, x)
        return Spec(x.shape, "bool")

    def _step(
        self,
        low: Lowering,
        out: View,
        x: View | Array,
        nan: bool,
        negative: bool = False,
        positive: bool = False,
    ) -> list[Step]:
        source = as_view(low, x)
        kernel = low.load("classify").classify(
            out.shape, out.strides, source.strides, nan, negative, positive
        )
        return [Step(kernel, (out, source), "classify")]


class IsNaN(_Question):
    """Tell which numbers are NaN: any shape to the same shape of bool."""

    def reference(self, x: Array) -> Array:
        """Return whether x is NaN."""
        y: Array = np.isnan(x)
        return y

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return the kernel."""
        return self._step(low, out, x, True)


@record
class IsInf(_Question):
    """Tell which numbers are infinite: any shape to the same shape of bool.

    Parameters
    ----------
    negative, positive : bool
        Which infinities count.
    """

    negative: bool = True
    positive: bool = True

    def reference(self, x: Array) -> Array:
        """Return whether x is an infinity that counts."""
        below = np.isneginf(x) if self.negative else np.zeros(x.shape, bool)
        above = np.isposinf(x) if self.positive else np.zeros(x.shape, bool)
        y: Array = below | above
        return y

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return the kernel."""
        return self._step(low, out, x, False, self.negative, self.positive)
