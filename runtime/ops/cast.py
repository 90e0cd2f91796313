"""Conversion to another element type."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..record import record
from ..spec import Array, Spec
from ..step import Step
from ..view import View
from .base import Lowering, Op, as_view
from .binary import NUMBERS, common_dtype
from .identity import copy_step, scratch_tensor

DType = Literal["float32", "int64", "int32", "int8", "uint8", "bool"]

DTYPES = (*NUMBERS, "bool")


@record
class Cast(Op):
    """Convert to another element type: any shape to the same.

    A float becomes the whole number next to it towards zero, one that is out of range
    the end of the range, NaN zero. Whole numbers lose their high bits if need be. Any
    number but zero is true.

    Parameters
    ----------
    dtype : str
        The type of the result.
    """

    dtype: DType

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` if there is no such type."""
        checked_dtype(self.dtype)

    def infer(self, x: Spec) -> Spec:
        """Return the shape of x with the other type."""
        common_dtype("Cast", DTYPES, x)
        return Spec(x.shape, self.dtype)

    def reference(self, x: Array) -> Array:
        """Return the converted array."""
        to = np.dtype(self.dtype)
        if x.dtype.kind != "f" or to.kind not in "iu":
            y: Array = x if x.dtype.kind == to.kind == "f" else x.astype(to)
            return y
        least, most = np.iinfo(to).min, np.iinfo(to).max
        inside = (x > least) & (x < most)
        y = np.where(inside, x, 0).astype(to)
        ends = np.where(x <= least, least, most).astype(to)
        return np.where(inside | np.isnan(x), y, ends)

    def view(self, x: View) -> View | None:
        """Return the input if it has the type already."""
        return x if x.dtype == self.dtype else None

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return the kernel."""
        return [cast_step(low, out, as_view(low, x))]


def checked_dtype(dtype: str, allowed: tuple[str, ...] = DTYPES) -> str:
    """Return the name of an element type; raise `ValueError` if there is no such."""
    if dtype not in allowed:
        raise ValueError(f"dtype {dtype!r}, wanted one of {', '.join(allowed)}")
    return dtype


def cast_step(low: Lowering, out: View, x: View) -> Step:
    """Return the step that converts `x` to the type of `out`; they have one shape."""
    if x.dtype == out.dtype:
        return copy_step(low, out, x)
    kernel = low.load("cast").cast(
        out.dtype, x.dtype, out.shape, out.strides, x.strides
    )
    return Step(kernel, (out, x), "cast")


def as_int64(low: Lowering, x: View | Array) -> tuple[View, list[Step]]:
    """Return a tensor of int64, and the steps that make it of `x` if it is none."""
    if not isinstance(x, View):
        return low.constant(np.ascontiguousarray(x, np.int64)), []
    if x.dtype == "int64":
        return x, []
    wide = scratch_tensor(low, x.shape, "int64")
    return wide, [cast_step(low, wide, x)]
