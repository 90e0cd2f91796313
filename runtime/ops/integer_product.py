"""Convolution and matrix products of quantised numbers, exact in int32."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from ..errors import DTypeError, ShapeError
from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from ..window import (
    Padding,
    explicit_padding,
    reach,
)
from .base import (
    Lowering,
    Op,
    as_view,
    checked_window,
    per_axis,
    require,
    require_bias,
    require_float32,
)
from .binary import arithmetic_step, binary_step, common_dtype
from .cast import cast_step
from .conv import Conv
from .identity import copy_step, scratch_tensor
from .quantize import QuantizeLinear, dequantize_step, quantize_step

BYTES = ("int8", "uint8")


class MatMulInteger(Op):
    """Multiply matrices of whole numbers: (..., M, K) and (..., K, N) to int32.

    Operands: `x` and `y`, int8 or uint8; `x_zero`, one number or one for each row, and
    `y_zero`, one number or one for each column, of the type of the operand they are
    subtracted from; 0 if left out.
    """

    def infer(
        self, x: Spec, y: Spec, x_zero: Spec | None = None, y_zero: Spec | None = None
    ) -> Spec:
        """Return the batch, the rows of x and the columns of y."""
        common_dtype("MatMulInteger", BYTES, x, *filter(None, [x_zero]))
        common_dtype("MatMulInteger", BYTES, y, *filter(None, [y_zero]))
        return matrix_spec("MatMulInteger", x, y, x_zero, y_zero)

    def reference(
        self,
        x: Array,
        y: Array,
        x_zero: Array | None = None,
        y_zero: Array | None = None,
    ) -> Array:
        """Return the products of the differences."""
        left = x.astype(np.int32) - rows_of(x_zero)
        right = y.astype(np.int32) - (0 if y_zero is None else y_zero.astype(np.int32))
        z: Array = left @ right
        return z

    def multiply_adds(
        self,
        out: Spec,
        x: Spec,
        y: Spec,
        x_zero: Spec | None = None,
        y_zero: Spec | None = None,
    ) -> int:
        """Return output elements times products in each."""
        return out.size * x.shape[-1]

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View | Array,
        y: View | Array,
        x_zero: View | Array | None = None,
        y_zero: View | Array | None = None,
    ) -> list[Step]:
        """Return the subtraction of y_zero, unless both are weights, and the sums."""
        source = as_view(low, x)
        steps: list[Step] = []
        right = _differences(low, steps, y, y_zero)
        m, k = source.shape[-2:]
        n = right.shape[-1]
        batch = out.shape[:-2]
        images = math.prod(batch)
        left = _flat(low, steps, source, (*batch, m, k))
        shared = math.prod(right.shape[:-2]) == 1
        if not shared:
            right = _flat(low, steps, right, (*batch, k, n))
        target = out.reshape((images, m, n))
        whole = target or scratch_tensor(low, (images, m, n), "int32")
        zero = as_view(low, np.zeros((), source.dtype) if x_zero is None else x_zero)
        kernel = low.load("quantize").product(
            source.dtype,
            images,
            (whole.strides[0], m * k, 0 if shared else k * n),
            (m,),
            (m,),
            (1,),
            (1,),
            (1,),
            (0,),
            (k,),
            (whole.strides[1],),
            k,
            n,
            1,
            0 if zero.size == 1 else 1,
        )
        bias = low.constant(np.zeros(n, np.int32))
        steps.append(Step(kernel, (whole, left, right, zero, bias), "integer gemm"))
        if target is None:
            result = whole.reshape(out.shape)
            assert result is not None
            steps.append(copy_step(low, out, result))
        return steps


class QLinearMatMul(Op):
    """Multiply matrices of quantised numbers and quantise the result.

    Operands: `x`, `x_scale`, `x_zero`; `y`, `y_scale`, `y_zero`, whose scale and zero
    point are one number or one for each column; `scale` and `zero` of the result, one
    number each. The result has the type of `zero`, int8 or uint8.
    """

    def infer(
        self,
        x: Spec,
        x_scale: Spec,
        x_zero: Spec,
        y: Spec,
        y_scale: Spec,
        y_zero: Spec,
        scale: Spec,
        zero: Spec,
    ) -> Spec:
        """Return the batch, the rows of x and the columns of y."""
        require_float32("QLinearMatMul", x_scale, y_scale, scale)
        common_dtype("QLinearMatMul", BYTES, x, x_zero)
        common_dtype("QLinearMatMul", BYTES, y, y_zero)
        common_dtype("QLinearMatMul", BYTES, zero)
        found = matrix_spec("QLinearMatMul", x, y, x_zero, y_zero)
        require(
            x_scale.size == scale.size == zero.size == 1
            and x_scale.shape == x_zero.shape
            and y_scale.shape == y_zero.shape,
            "QLinearMatMul: wanted one scale and zero point for x and the result, and "
            f"for y as many scales as zero points; found {x_scale}, {x_zero}, "
            f"{y_scale}, {y_zero}, {scale}, {zero}",
        )
        return Spec(found.shape, zero.dtype)

    def reference(
        self,
        x: Array,
        x_scale: Array,
        x_zero: Array,
        y: Array,
        y_scale: Array,
        y_zero: Array,
        scale: Array,
        zero: Array,
    ) -> Array:
        """Return the quantised products."""
        sums = MatMulInteger().reference(x, y, x_zero, y_zero)
        real = sums * (x_scale * y_scale)
        quantize = QuantizeLinear(dtype=zero.dtype.name)
        return quantize.reference(real, scale.reshape(()), zero.reshape(()))

    def multiply_adds(self, out: Spec, x: Spec, *_: Spec) -> int:
        """Return output elements times products in each."""
        return out.size * x.shape[-1]

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View | Array,
        x_scale: View | Array,
        x_zero: View | Array,
        y: View | Array,
        y_scale: View | Array,
        y_zero: View | Array,
        scale: View | Array,
        zero: View | Array,
    ) -> list[Step]:
        """Return the exact sums and their conversion."""
        sums = scratch_tensor(low, out.shape, "int32")
        steps = MatMulInteger().lower(low, sums, x, y, x_zero, y_zero)
        return steps + _requantized(low, out, sums, (x_scale, y_scale), scale, zero)


@record
class _IntegerConv(Op, abstract=True):
    """What convolutions of whole numbers share: where the kernel slides."""

    stride: Shape = (1,)
    dilation: Shape = (1,)
    padding: Padding = "valid"
    groups: int = 1

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_window(self, "groups")

    def _conv(self) -> Conv:
        return Conv(self.stride, self.dilation, self.padding, self.groups)


class ConvInteger(_IntegerConv):
    """Slide a kernel of whole numbers over an image of whole numbers, to int32.

    Operands: `x` and `kernel` (spatial..., C / groups, M), int8 or uint8; `x_zero`, one
    number, and `kernel_zero`, one number or one for each output channel, of the types
    of x and the kernel; 0 if left out. Padding has the value of `x_zero`.

    Parameters
    ----------
    stride, dilation, padding, groups
        As for `Conv`.
    """

    weights: ClassVar[tuple[str, ...]] = ("kernel", "kernel_zero")

    def infer(
        self,
        x: Spec,
        kernel: Spec,
        x_zero: Spec | None = None,
        kernel_zero: Spec | None = None,
    ) -> Spec:
        """Return (N, windows along each axis..., M)."""
        common_dtype("ConvInteger", BYTES, x, *filter(None, [x_zero]))
        common_dtype("ConvInteger", BYTES, kernel, *filter(None, [kernel_zero]))
        return image_spec("ConvInteger", self._conv(), x, kernel, x_zero, kernel_zero)

    def reference(
        self,
        x: Array,
        kernel: Array,
        x_zero: Array | None = None,
        kernel_zero: Array | None = None,
    ) -> Array:
        """Return the sums of products of the differences."""
        left = x.astype(np.int32) - (0 if x_zero is None else int(x_zero.item()))
        zero = 0 if kernel_zero is None else kernel_zero.astype(np.int32)
        return self._conv().reference(left, kernel.astype(np.int32) - zero)

    def multiply_adds(self, out: Spec, x: Spec, kernel: Spec, *_: Spec) -> int:
        """Return output elements times products in each."""
        return out.size * math.prod(kernel.shape[:-1])

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View | Array,
        kernel: Array,
        x_zero: View | Array | None = None,
        kernel_zero: Array | None = None,
    ) -> list[Step]:
        """Return the kernel."""
        return [conv_step(low, self._conv(), out, x, kernel, x_zero, kernel_zero)]


class QLinearConv(_IntegerConv):
    """Slide a quantised kernel over a quantised image and quantise the result.

    Operands: `x`, `x_scale`, `x_zero`; `kernel` (spatial..., C / groups, M),
    `kernel_scale`, `kernel_zero`, one number or one for each output channel; `scale`
    and `zero` of the result; `bias`, int32 of shape (M,) in units of x_scale
    kernel_scale, which may be left out. The result has the type of `zero`.

    Parameters
    ----------
    stride, dilation, padding, groups
        As for `Conv`.
    """

    weights: ClassVar[tuple[str, ...]] = ("kernel", "kernel_zero", "bias")

    def infer(
        self,
        x: Spec,
        x_scale: Spec,
        x_zero: Spec,
        kernel: Spec,
        kernel_scale: Spec,
        kernel_zero: Spec,
        scale: Spec,
        zero: Spec,
        bias: Spec | None = None,
    ) -> Spec:
        """Return (N, windows along each axis..., M)."""
        require_float32("QLinearConv", x_scale, kernel_scale, scale)
        common_dtype("QLinearConv", BYTES, x, x_zero)
        common_dtype("QLinearConv", BYTES, kernel, kernel_zero)
        common_dtype("QLinearConv", BYTES, zero)
        found = image_spec("QLinearConv", self._conv(), x, kernel, x_zero, kernel_zero)
        outputs = kernel.shape[-1]
        if bias is not None:
            common_dtype("QLinearConv's bias", ("int32",), bias)
            require_bias("QLinearConv", bias, outputs)
        require(
            x_scale.size == scale.size == zero.size == 1
            and kernel_scale.shape in ((), (1,), (outputs,)),
            "QLinearConv: wanted one scale for x and the result and one or "
            f"{outputs} for the kernel; found {x_scale}, {scale}, {kernel_scale}",
        )
        return Spec(found.shape, zero.dtype)

    def reference(
        self,
        x: Array,
        x_scale: Array,
        x_zero: Array,
        kernel: Array,
        kernel_scale: Array,
        kernel_zero: Array,
        scale: Array,
        zero: Array,
        bias: Array | None = None,
    ) -> Array:
        """Return the quantised sums of products."""
        conv = ConvInteger(self.stride, self.dilation, self.padding, self.groups)
        sums = conv.reference(x, kernel, x_zero, kernel_zero)
        real = (sums if bias is None else sums + bias) * (x_scale * kernel_scale)
        quantize = QuantizeLinear(dtype=zero.dtype.name)
        return quantize.reference(real, scale.reshape(()), zero.reshape(()))

    def multiply_adds(
        self, out: Spec, x: Spec, x_scale: Spec, x_zero: Spec, kernel: Spec, *_: Spec
    ) -> int:
        """Return output elements times products in each."""
        return out.size * math.prod(kernel.shape[:-1])

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View | Array,
        x_scale: View | Array,
        x_zero: View | Array,
        kernel: Array,
        kernel_scale: View | Array,
        kernel_zero: Array,
        scale: View | Array,
        zero: View | Array,
        bias: Array | None = None,
    ) -> list[Step]:
        """Return the exact sums and their conversion."""
        sums = scratch_tensor(low, out.shape, "int32")
        step = conv_step(low, self._conv(), sums, x, kernel, x_zero, kernel_zero, bias)
        scales = x_scale, kernel_scale
        return [step, *_requantized(low, out, sums, scales, scale, zero)]


def matrix_spec(
    name: str, x: Spec, y: Spec, x_zero: Spec | None, y_zero: Spec | None
) -> Spec:
    """Return the spec of a product of matrices; raise `ShapeError`."""
    message = (
        f"{name}: {shape_text(x.shape)} and {shape_text(y.shape)} do not fit; "
        "wanted (..., M, K) and (..., K, N)"
    )
    require(x.rank >= 2 and y.rank >= 2 and 0 not in x.shape + y.shape, message)
    require(x.shape[-1] == y.shape[-2], message)
    try:
        batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise ShapeError(message) from None
    m, n = x.shape[-2], y.shape[-1]
    for zero, size in ((x_zero, m), (y_zero, n)):
        require(
            zero is None or zero.shape in ((), (1,), (size,)),
            f"{name}: zero point {shape_text(zero.shape) if zero else ''}, wanted one "
            f"number or ({size},)",
        )
    return Spec((*batch, m, n), "int32")


def image_spec(
    name: str,
    conv: Conv,
    x: Spec,
    kernel: Spec,
    x_zero: Spec | None,
    kernel_zero: Spec | None,
) -> Spec:
    """Return the spec of a convolution; raise `ShapeError`."""
    found: Spec = conv.infer(Spec(x.shape), Spec(kernel.shape))
    outputs = kernel.shape[-1]
    require(
        (x_zero is None or x_zero.size == 1)
        and (kernel_zero is None or kernel_zero.shape in ((), (1,), (outputs,))),
        f"{name}: zero points {x_zero} and {kernel_zero}, wanted one number for x and "
        f"one or ({outputs},) for the kernel",
    )
    return Spec(found.shape, "int32")


def rows_of(zero: Array | None) -> Array | int:
    """Return zero points of rows so that they broadcast against a matrix."""
    if zero is None:
        return 0
    return zero.astype(np.int32).reshape((-1, 1) if zero.size > 1 else ())


def conv_step(
    low: Lowering,
    conv: Conv,
    out: View,
    x: View | Array,
    kernel: Array,
    x_zero: View | Array | None,
    kernel_zero: Array | None,
    bias: Array | None = None,
) -> Step:
    """Return the step of a convolution of whole numbers, plus a bias, to int32."""
    source = as_view(low, x)
    rank = source.rank - 2
    if source.dtype not in BYTES:
        raise DTypeError(f"found {source.spec}, wanted int8 or uint8")
    stride = per_axis(conv.stride, rank, "stride")
    dilation = per_axis(conv.dilation, rank, "dilation")
    size = kernel.shape[:-2]
    padding = explicit_padding(
        conv.padding, source.shape[1:-1], reach(size, dilation), stride
    )
    channels, outputs = kernel.shape[-2:]
    zero = np.int32(0) if kernel_zero is None else kernel_zero.astype(np.int32)
    wide = low.packed(
        kernel,
        ("integer", zero.tobytes()),
        lambda: np.ascontiguousarray(kernel.astype(np.int32) - zero, np.int32),
    )
    added = np.zeros(outputs, np.int32) if bias is None else bias
    offset = np.zeros((), source.dtype) if x_zero is None else x_zero
    step = low.load("quantize").product(
        source.dtype,
        source.shape[0],
        (out.strides[0], source.strides[0], 0),
        source.shape[1:-1],
        out.shape[1:-1],
        size,
        stride,
        dilation,
        tuple(before for before, _ in padding),
        source.strides[1:-1],
        out.strides[1:-1],
        channels,
        outputs,
        conv.groups,
    )
    operands = (out, source, wide, as_view(low, offset), low.constant(added))
    return Step(step, operands, "integer convolution")


def _requantized(
    low: Lowering,
    out: View,
    sums: View,
    scales: tuple[View | Array, View | Array],
    scale: View | Array,
    zero: View | Array,
) -> list[Step]:
    """Return the steps that turn exact sums into quantised numbers."""
    steps: list[Step] = []
    first, second = scales
    unit: View | Array
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        unit = np.ascontiguousarray(first.reshape(()) * second)
    else:
        one = as_view(low, first).reshape(())
        other = as_view(low, second)
        assert one is not None
        unit = scratch_tensor(low, other.shape)
        steps.append(binary_step(low, "Mul", unit, (one, other)))
    real = scratch_tensor(low, out.shape)
    steps.append(dequantize_step(low, real, sums, unit, None))
    steps.append(quantize_step(low, out, real, scale, zero))
    return steps


def _differences(
    low: Lowering, steps: list[Step], y: View | Array, zero: View | Array | None
) -> View:
    """Return ``y - zero`` as int32."""
    if isinstance(y, np.ndarray) and not isinstance(zero, View):
        less = 0 if zero is None else zero.astype(np.int32)
        array = np.ascontiguousarray(y.astype(np.int32) - less, np.int32)
        return low.constant(array)
    source = as_view(low, y)
    wide = scratch_tensor(low, source.shape, "int32")
    steps.append(cast_step(low, wide, source))
    if zero is not None:
        offset = as_view(low, zero)
        less32 = scratch_tensor(low, offset.shape, "int32")
        steps.append(cast_step(low, less32, offset))
        steps.append(arithmetic_step(low, "Sub", wide, wide, less32))
    return wide


def _flat(low: Lowering, steps: list[Step], x: View, shape: Shape) -> View:
    """Return a contiguous tensor, stretched to `shape`."""
    if x.shape == shape and x.contiguous:
        return x
    whole = scratch_tensor(low, shape, x.dtype)
    steps.append(copy_step(low, whole, x.broadcast(shape)))
    return whole
