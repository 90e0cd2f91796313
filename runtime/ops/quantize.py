"""Quantised numbers: conversions to and from small whole numbers."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..record import record
from ..spec import Array, Spec, shape_text
from ..step import Step
from ..view import View
from .base import (
    Lowering,
    Op,
    as_view,
    checked_fields,
    normal_axis,
    require,
    require_float32,
)
from .binary import common_dtype
from .identity import scratch_tensor
from .reduce import reduction_step


@record
class QuantizeLinear(Op):
    """Turn numbers into small whole numbers: round(x / scale) + zero_point.

    Rounding is to the nearest whole number, ties to even; what does not fit becomes the
    end of the range, NaN becomes the zero point. Operands: `x`; `scale`, one number or
    one for each position along the axis; `zero_point` of the shape of `scale` and the
    type of the result, 0 if left out.

    Parameters
    ----------
    axis : int
        The axis along which scales differ; from the back if negative.
    dtype : str
        The type of the result.
    """

    axis: int = -1
    dtype: Literal["int8", "uint8"] = "uint8"

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_fields(self, ("axis",))
        if self.dtype not in ("int8", "uint8"):
            raise ValueError(f"dtype {self.dtype!r}, wanted 'int8' or 'uint8'")

    def infer(self, x: Spec, scale: Spec, zero_point: Spec | None = None) -> Spec:
        """Return the shape of x with the other type."""
        require_float32("QuantizeLinear", x, scale)
        if zero_point is not None:
            common_dtype("QuantizeLinear's zero point", (self.dtype,), zero_point)
        require_scale("QuantizeLinear", self.axis, x, scale, zero_point)
        return Spec(x.shape, self.dtype)

    def reference(
        self, x: Array, scale: Array, zero_point: Array | None = None
    ) -> Array:
        """Return the rounded quotients."""
        rank = x.ndim
        zero = np.zeros_like(scale) if zero_point is None else zero_point
        with np.errstate(all="ignore"):
            y = np.nan_to_num(np.rint(x / along(scale, self.axis, rank)))
        y += along(zero, self.axis, rank).astype(y.dtype)
        limits = np.iinfo(self.dtype)
        z: Array = y.clip(limits.min, limits.max).astype(self.dtype)
        return z

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View | Array,
        scale: View | Array,
        zero_point: View | Array | None = None,
    ) -> list[Step]:
        """Return the kernel."""
        return [quantize_step(low, out, x, scale, zero_point, self.axis)]


@record
class DequantizeLinear(Op):
    """Turn small whole numbers back into numbers: (x - zero_point) scale.

    Operands: `x`, int8, uint8 or int32; `scale`, one number or one for each position
    along the axis; `zero_point` of the shape of `scale` and the type of x, 0 if left
    out.

    Parameters
    ----------
    axis : int
        The axis along which scales differ; from the back if negative.
    """

    axis: int = -1

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` unless it is a whole number."""
        checked_fields(self, ("axis",))

    def infer(self, x: Spec, scale: Spec, zero_point: Spec | None = None) -> Spec:
        """Return the shape of x as float32."""
        require_float32("DequantizeLinear", scale)
        types = ("int8", "uint8", "int32")
        common_dtype("DequantizeLinear", types, x, *filter(None, [zero_point]))
        require_scale("DequantizeLinear", self.axis, x, scale, zero_point)
        return Spec(x.shape)

    def reference(
        self, x: Array, scale: Array, zero_point: Array | None = None
    ) -> Array:
        """Return the products."""
        zero = np.zeros_like(scale) if zero_point is None else zero_point
        exact = x.astype(np.float64) - along(zero, self.axis, x.ndim)
        y: Array = exact * along(scale, self.axis, x.ndim)
        return y.astype(scale.dtype)

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View | Array,
        scale: View | Array,
        zero_point: View | Array | None = None,
    ) -> list[Step]:
        """Return the kernel."""
        return [dequantize_step(low, out, x, scale, zero_point, self.axis)]


class DynamicQuantizeLinear(Op):
    """Turn numbers into uint8 with a scale and a zero point that fit them.

    The outputs are the numbers, the scale (float32) and the zero point (uint8). The
    range is that of the numbers and zero; if all are zero, so are scale and zero point.
    """

    def infer(self, x: Spec) -> tuple[Spec, Spec, Spec]:
        """Return the specs of the three outputs."""
        require_float32("DynamicQuantizeLinear", x)
        return Spec(x.shape, "uint8"), Spec(()), Spec((), "uint8")

    def reference(self, x: Array) -> tuple[Array, Array, Array]:
        """Return the numbers, the scale and the zero point."""
        least, most = min(x.min(), 0), max(x.max(), 0)
        scale = np.asarray(np.float32((np.float32(most) - np.float32(least)) / 255))
        zero = np.asarray(np.rint(-np.float32(least) / scale) if scale else 0)
        zero = zero.clip(0, 255).astype("uint8")
        return QuantizeLinear().reference(x, scale, zero), scale, zero

    def lower(
        self, low: Lowering, out: tuple[View, View, View], x: View | Array
    ) -> list[Step]:
        """Return the search for the range, its use, and the conversion."""
        source = as_view(low, x)
        y, scale, zero = out
        axes = list(range(source.rank))
        least, most = (scratch_tensor(low, ()) for _ in range(2))
        return [
            reduction_step(low, "Min", least, source, axes),
            reduction_step(low, "Max", most, source, axes),
            Step(
                low.load("quantize").value_range(), (scale, zero, least, most), "range"
            ),
            quantize_step(low, y, source, scale, zero),
        ]


def require_scale(
    name: str, axis: int, x: Spec, scale: Spec, zero_point: Spec | None
) -> None:
    """Raise `ShapeError` unless scales and zero points fit the tensor."""
    fits = scale.size == 1 and scale.rank <= 1
    if not fits:
        fits = scale.shape == (x.shape[normal_axis(axis, x.rank, name)],)
    require(
        fits,
        f"{name}: scale {shape_text(scale.shape)} for axis {axis} of "
        f"{shape_text(x.shape)}; wanted one number, or one for each position",
    )
    require(
        zero_point is None or zero_point.shape == scale.shape,
        f"{name}: zero point {shape_text(zero_point.shape) if zero_point else ''}, "
        f"wanted {shape_text(scale.shape)} as the scale",
    )


def along(numbers: Array, axis: int, rank: int) -> Array:
    """Return a vector of numbers so that it broadcasts along an axis."""
    if numbers.size == 1:
        return numbers.reshape(())
    return numbers.reshape([-1 if a == axis % rank else 1 for a in range(rank)])


def quantize_step(
    low: Lowering,
    out: View,
    x: View | Array,
    scale: View | Array,
    zero: View | Array | None,
    axis: int = -1,
) -> Step:
    """Return the step ``out = round(x / scale) + zero``."""
    views = _operands(low, out, x, scale, zero, out.dtype, axis)
    strides = tuple(view.strides for view in views)
    kernel = low.load("quantize").quantize(out.dtype, out.shape, strides)
    return Step(kernel, views, "quantize")


def dequantize_step(
    low: Lowering,
    out: View,
    x: View | Array,
    scale: View | Array,
    zero: View | Array | None,
    axis: int = -1,
) -> Step:
    """Return the step ``out = (x - zero) * scale``."""
    source = as_view(low, x)
    views = _operands(low, out, source, scale, zero, source.dtype, axis)
    strides = tuple(view.strides for view in views)
    kernel = low.load("quantize").dequantize(source.dtype, out.shape, strides)
    return Step(kernel, views, "dequantize")


def _operands(
    low: Lowering,
    out: View,
    x: View | Array,
    scale: View | Array,
    zero: View | Array | None,
    dtype: str,
    axis: int,
) -> tuple[View, ...]:
    """Return the four operands, stretched to the shape of `out`."""
    if zero is None:
        zero = np.zeros((), dtype)
    views = [out, as_view(low, x)]
    for numbers in (as_view(low, scale), as_view(low, zero)):
        shape = [1] * out.rank
        if numbers.size > 1:
            shape[axis] = numbers.size
        views.append(numbers.reshape(tuple(shape)) or numbers)
    return tuple(view.broadcast(out.shape) for view in views)
