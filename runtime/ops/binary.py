"""Functions of two numbers, applied to every pair of elements."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..errors import DTypeError, ShapeError
from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from .base import (
    NOTHING,
    Epilogue,
    Lowering,
    Op,
    as_view,
    checked_fields,
    require,
    require_float32,
)

ROW = 512
"""Weights of a shorter last axis are repeated up to this many elements."""

WHOLE = ("int8", "uint8", "int32", "int64")
"""The element types of whole numbers."""

NUMBERS = ("float32", *WHOLE)
"""The element types one can compute with."""


class Pairwise(Op, abstract=True):
    """A function of two elements of one type, with NumPy's broadcasting.

    Shapes are aligned at their last axes; an axis of one element, or a missing leading
    one, is stretched to the other operand's. So (N, H, W, C) with (C,) or (N, 1, 1, C)
    is per channel, with (N, H, W, 1) per pixel.
    """

    function: ClassVar[np.ufunc]
    dtypes: ClassVar[tuple[str, ...]] = NUMBERS

    def infer(self, x: Spec, y: Spec) -> Spec:
        """Return the shape to which both operands stretch."""
        name = type(self).__name__
        dtype = common_dtype(name, self.dtypes, x, y)
        return Spec(broadcast_shape(name, x.shape, y.shape), dtype)

    def reference(self, x: Array, y: Array) -> Array:
        """Return the function of each pair."""
        z: Array = self.function(x, y)
        return z


class Binary(Pairwise, abstract=True):
    """A function of two numbers, float32 or whole numbers, which wrap around."""

    fuses: ClassVar[bool] = True

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View | Array,
        y: View | Array,
        epilogue: Epilogue = NOTHING,
    ) -> list[Step]:
        """Return the kernel; `out` may be an operand of its own shape."""
        kind = type(self).__name__
        if out.dtype != "float32":
            return [arithmetic_step(low, kind, out, x, y)]
        return [binary_step(low, kind, out, (x, y), epilogue)]


def common_dtype(name: str, allowed: tuple[str, ...], *operands: Spec) -> str:
    """Return the element type of all operands; raise `DTypeError` unless it is one.

    Parameters
    ----------
    name : str
        The operator, for the message.
    allowed : tuple of str
        Element types.
    *operands : Spec
        At least one.
    """
    first = operands[0].dtype
    for operand in operands:
        if operand.dtype not in allowed or operand.dtype != first:
            beside = f" beside {operands[0]}" if operand.dtype in allowed else ""
            raise DTypeError(
                f"{name}: found {operand}{beside}, "
                f"wanted one type of {', '.join(allowed)}"
            )
    return first


def broadcast_shape(name: str, *shapes: Shape) -> Shape:
    """Return the shape to which operands stretch; raise `ShapeError` if none."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        found = " and ".join(map(shape_text, shapes))
        raise ShapeError(f"{name}: {found} do not broadcast together") from None


def arithmetic_step(
    low: Lowering, kind: str, out: View, x: View | Array, y: View | Array
) -> Step:
    """Return the step ``out = kind(x, y)`` on whole numbers or truth values.

    Parameters
    ----------
    kind : str
        A key of KINDS in ``arithmetic.pyx``.
    x, y : View or Array
        Of the type of `out`; each broadcasts to its shape.
    """
    views = (out, as_view(low, x), as_view(low, y))
    strides = tuple(view.broadcast(out.shape).strides for view in views)
    kernel = low.load("arithmetic").binary(kind, out.dtype, out.shape, strides)
    return Step(kernel, views, "elementwise")


def binary_step(
    low: Lowering,
    kind: str,
    out: View,
    operands: tuple[View | Array, ...],
    epilogue: Epilogue = NOTHING,
) -> Step:
    """Return the step ``out = activation(kind(*operands) + residual)``.

    Parameters
    ----------
    kind : str
        A key of KINDS in ``elementwise.pyx``.
    operands : tuple of View or Array
        Each broadcasts to the shape of `out`.
    """
    views = [out, *(as_view(low, operand) for operand in operands)]
    if epilogue.residual is not None:
        views.append(epilogue.residual)
    repeats = _repeats(out, views)
    shape = out.shape
    if repeats > 1:
        shape = (out.size // (repeats * shape[-1]), repeats * shape[-1])
        views = [_with_long_rows(low, view, shape, repeats) for view in views]
    activation = epilogue.activation
    kernel = low.load("elementwise").binary(
        kind,
        shape,
        tuple(view.broadcast(shape).strides for view in views),
        *(
            (activation.code, activation.alpha, activation.beta)
            if activation
            else (0, 0, 0)
        ),
        epilogue.residual is not None,
    )
    return Step(kernel, tuple(views), "elementwise")


class Add(Binary):
    """Add two tensors, broadcasting."""

    function: ClassVar[np.ufunc] = np.add


class Sub(Binary):
    """Subtract one tensor from another, broadcasting."""

    function: ClassVar[np.ufunc] = np.subtract


class Mul(Binary):
    """Multiply two tensors element by element, broadcasting."""

    function: ClassVar[np.ufunc] = np.multiply


class Div(Binary):
    """Divide one tensor by another element by element, broadcasting.

    Of whole numbers it is the quotient without its fraction; zero if y is zero.
    """

    def reference(self, x: Array, y: Array) -> Array:
        """Return x / y."""
        z: Array
        if x.dtype.kind == "f":
            z = x / y
            return z
        with np.errstate(all="ignore"):
            z = x // y
            inexact = (y != 0) & (x - z * y != 0)
            z = z + (inexact & ((x < 0) != (y < 0)))
        return z


class Maximum(Binary):
    """Take the larger of two elements, broadcasting; NaN if either is."""

    function: ClassVar[np.ufunc] = np.maximum


class Minimum(Binary):
    """Take the smaller of two elements, broadcasting; NaN if either is."""

    function: ClassVar[np.ufunc] = np.minimum


class Pow(Binary):
    """Raise one tensor to the power of another, broadcasting.

    Of whole numbers it is the result without its fraction where y is negative.
    """

    def reference(self, x: Array, y: Array) -> Array:
        """Return x to the power of y."""
        z: Array
        if x.dtype.kind == "f":
            z = np.power(x, y)
            return z
        z = np.power(x, np.maximum(y, 0))
        unit = (x == 1) | ((x + 1 == 0) & (y < 0))
        z = np.where(y < 0, np.where(unit, np.power(x, y & 1), 0), z)
        return z.astype(x.dtype)

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View | Array,
        y: View | Array,
        epilogue: Epilogue = NOTHING,
    ) -> list[Step]:
        """Return the kernel; a square is a product."""
        square = isinstance(y, np.ndarray) and bool((y == 2).all())
        if square and out.dtype == "float32":
            return [binary_step(low, "Mul", out, (x, x), epilogue)]
        return super().lower(low, out, x, y, epilogue)


@record
class Mod(Binary):
    """Take the remainder of a division, broadcasting.

    Parameters
    ----------
    fmod : bool
        Whether it has the sign of x, as in C; else it has that of y, as in Python. The
        remainder of whole numbers is zero if y is zero.
    """

    fmod: bool = False

    fuses: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` unless it is a truth value."""
        checked_fields(self, truths=("fmod",))

    def reference(self, x: Array, y: Array) -> Array:
        """Return the remainder of x / y."""
        with np.errstate(all="ignore"):
            z: Array = np.fmod(x, y) if self.fmod else np.mod(x, y)
        return z

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View | Array,
        y: View | Array,
        epilogue: Epilogue = NOTHING,
    ) -> list[Step]:
        """Return the kernel."""
        kind = "Remainder" if self.fmod else "Mod"
        return [arithmetic_step(low, kind, out, x, y)]


class PRelu(Binary):
    """Scale negative numbers by a slope that is learned: x, or x slope where x < 0.

    Operands: `x`, and `slope`, which broadcasts to the shape of `x`; one slope a
    channel has the shape (C,).
    """

    def infer(self, x: Spec, slope: Spec) -> Spec:
        """Return the spec of x."""
        require_float32("PRelu", x, slope)
        require(
            broadcast_shape("PRelu", x.shape, slope.shape) == x.shape,
            f"PRelu: slope {shape_text(slope.shape)} does not broadcast to the shape "
            f"{shape_text(x.shape)} of x",
        )
        return x

    def reference(self, x: Array, slope: Array) -> Array:
        """Return x, or x slope where x < 0."""
        return np.where(x < 0, x * slope, x)


def _repeats(out: View, views: list[View]) -> int:
    """Return how often to repeat per-channel weights, so that short rows become long.

    That needs weights of the shape (C,), or scalars, and dense tensors of one shape.
    """
    channels = out.shape[-1] if out.rank else 1
    weights = [v for v in views if v.buffer.source == "constant"]
    tensors = [v for v in views if v.buffer.source != "constant"]
    if (
        not any(w.size == channels > 1 for w in weights)
        or not all(w.size == 1 or w.shape[-1] == w.size == channels for w in weights)
        or not all(v.shape == out.shape and v.contiguous for v in tensors)
    ):
        return 1
    rows = out.size // channels
    return max(k for k in range(1, max(1, ROW // channels) + 1) if rows % k == 0)


def _with_long_rows(low: Lowering, view: View, shape: Shape, repeats: int) -> View:
    """Return a tensor with `repeats` pixels a row, or weights repeated as often."""
    if view.buffer.source != "constant":
        reshaped = view.reshape(shape)
    elif view.size == 1:
        reshaped = view.reshape((1,))
    else:
        weight = view.buffer.array
        assert weight is not None
        tag = ("repeated", repeats)
        reshaped = low.packed(weight, tag, lambda: np.tile(weight.reshape(-1), repeats))
    assert reshaped is not None
    return reshaped
