"""Reductions over axes: sums, products, extremes, norms, logarithms of sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ..record import record
from ..spec import Array, Shape, Spec
from ..step import Step
from ..view import View
from .base import Lowering, Op, as_view, checked_fields, normal_axes, reduced_shape
from .binary import NUMBERS, common_dtype
from .identity import copy_step


@record
class Reduction(Op, abstract=True):
    """A function of all elements along some axes.

    Parameters
    ----------
    axes : tuple of int
        From the back if negative; none of them leaves each element by itself.
    keepdims : bool
        Keep the axes, each of size one.
    """

    axes: Shape
    keepdims: bool = True

    dtypes: ClassVar[tuple[str, ...]] = ("float32", "int32", "int64")
    kind: ClassVar[str]
    """A key of KINDS in ``reduction.pyx``."""

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_fields(self, truths=("keepdims",), several=("axes",))

    def infer(self, x: Spec) -> Spec:
        """Return the shape with the axes of size one, or without them."""
        dtype = common_dtype(type(self).__name__, self.dtypes, x)
        shape = reduced_shape(x.shape, self._reduced(x.rank), self.keepdims)
        return Spec(shape, dtype)

    def reference(self, x: Array) -> Array:
        """Return the reduction over the axes."""
        y: Array = self.reduced(x)
        y = y if self.keepdims else y.squeeze(self._reduced(x.ndim))
        return y.astype(x.dtype)

    def reduced(self, x: Array) -> Array:
        """Return the reduction; the axes have size one."""
        raise NotImplementedError

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return the kernel; of no elements at all, a constant."""
        source = as_view(low, x)
        if source.size == 0:
            nothing = np.zeros(source.shape, source.dtype)
            return [copy_step(low, out, low.constant(self.reference(nothing)))]
        return [reduction_step(low, self.kind, out, source, self._reduced(source.rank))]

    def _reduced(self, rank: int) -> Shape:
        return normal_axes(self.axes, rank, type(self).__name__)


def reduction_step(
    low: Lowering, kind: str, out: View, x: View, reduced: Sequence[int]
) -> Step:
    """Return the step ``out = kind(x)`` over the axes `reduced`.

    Parameters
    ----------
    kind : str
        A key of KINDS in ``reduction.pyx``.
    out : View
        With the axes, of size one, or without them.
    """
    kept = [axis for axis in range(x.rank) if axis not in reduced]
    strides = out.strides
    if out.rank == x.rank:
        strides = tuple(out.strides[axis] for axis in kept)
    kernel = low.load("reduction").reduction(
        kind,
        x.dtype,
        tuple(x.shape[axis] for axis in kept),
        strides,
        tuple(x.strides[axis] for axis in kept),
        tuple(x.shape[axis] for axis in reduced),
        tuple(x.strides[axis] for axis in reduced),
    )
    return Step(kernel, (out, x), "reduction")


class ReduceSum(Reduction):
    """Add up elements over axes; `Reduction` describes the fields."""

    kind: ClassVar[str] = "Sum"

    def reduced(self, x: Array) -> Array:
        """Return the sums."""
        y: Array = x.sum(self.axes, keepdims=True)
        return y


class ReduceProd(Reduction):
    """Multiply elements over axes; `Reduction` describes the fields."""

    kind: ClassVar[str] = "Prod"

    def reduced(self, x: Array) -> Array:
        """Return the products."""
        y: Array = x.prod(self.axes, keepdims=True)
        return y


class ReduceMax(Reduction):
    """Find the largest element over axes; `Reduction` describes the fields.

    It is NaN if one element is; of no elements, the least there can be.
    """

    kind: ClassVar[str] = "Max"
    dtypes: ClassVar[tuple[str, ...]] = (*NUMBERS, "bool")

    def reduced(self, x: Array) -> Array:
        """Return the largest elements."""
        y: Array = x.max(self.axes, keepdims=True, initial=_end(x.dtype, False))
        return y


class ReduceMin(Reduction):
    """Find the smallest element over axes; `Reduction` describes the fields.

    It is NaN if one element is; of no elements, the greatest there can be.
    """

    kind: ClassVar[str] = "Min"
    dtypes: ClassVar[tuple[str, ...]] = (*NUMBERS, "bool")

    def reduced(self, x: Array) -> Array:
        """Return the smallest elements."""
        y: Array = x.min(self.axes, keepdims=True, initial=_end(x.dtype, True))
        return y


class ReduceL1(Reduction):
    """Add up magnitudes over axes; `Reduction` describes the fields."""

    kind: ClassVar[str] = "L1"

    def reduced(self, x: Array) -> Array:
        """Return the sums of magnitudes."""
        y: Array = np.abs(x).sum(self.axes, keepdims=True)
        return y


class ReduceSumSquare(Reduction):
    """Add up squares over axes; `Reduction` describes the fields."""

    kind: ClassVar[str] = "SumSquare"

    def reduced(self, x: Array) -> Array:
        """Return the sums of squares."""
        y: Array = (x * x).sum(self.axes, keepdims=True)
        return y


class ReduceL2(Reduction):
    """Take the Euclidean length over axes; `Reduction` describes the fields."""

    kind: ClassVar[str] = "L2"
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)

    def reduced(self, x: Array) -> Array:
        """Return the square roots of the sums of squares."""
        y: Array = np.sqrt((x * x).sum(self.axes, keepdims=True))
        return y


class ReduceLogSum(Reduction):
    """Take the logarithm of sums over axes; `Reduction` describes the fields."""

    kind: ClassVar[str] = "LogSum"
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)

    def reduced(self, x: Array) -> Array:
        """Return the logarithms of the sums."""
        with np.errstate(divide="ignore", invalid="ignore"):
            y: Array = np.log(x.sum(self.axes, keepdims=True))
        return y


class ReduceLogSumExp(Reduction):
    """Take the logarithm of sums of exponentials over axes.

    The largest element is taken out first, so that no exponential is too large;
    `Reduction` describes the fields.
    """

    kind: ClassVar[str] = "LogSumExp"
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)

    def reduced(self, x: Array) -> Array:
        """Return the logarithms of the sums of exponentials."""
        most = x.max(self.axes, keepdims=True, initial=-np.inf)
        most = np.where(np.isinf(most), 0, most)
        with np.errstate(divide="ignore"):
            sums = np.exp(x - most).sum(self.axes, keepdims=True)
            y: Array = np.log(sums) + most
        return y


def _end(dtype: np.dtype, top: bool) -> float | int | bool:
    """Return the greatest or the least number of a type."""
    if dtype.kind == "f":
        return np.inf if top else -np.inf
    if dtype.kind == "b":
        return top
    limits = np.iinfo(dtype)
    return int(limits.max if top else limits.min)
