"""Arithmetic, activations, comparisons and softmax.

Each function is named and signed like its operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.tools.from_onnx import data, elementwise
from striate.tools.from_torch.axes import chunk
from striate.tools.from_torch.registry import (
    TorchBuilder,
    aten_op,
    dtype_of,
    kind,
    promoted,
)
from striate.tools.layout import Tensor

UNARY: dict[str, ops.Op] = {
    "relu": ops.Relu(),
    "relu6": ops.Clip(0, 6),
    "sigmoid": ops.Sigmoid(),
    "tanh": ops.Tanh(),
    "hardswish": ops.HardSwish(),
    "hardsigmoid": ops.HardSigmoid(1 / 6, 0.5),
    "silu": ops.Silu(),
    "mish": ops.Mish(),
    "selu": ops.Selu(1.6732632423543772, 1.0507009873554805),
    "exp": ops.Exp(),
    "log": ops.Log(),
    "sqrt": ops.Sqrt(),
    "erf": ops.Erf(),
    "reciprocal": ops.Reciprocal(),
    "sin": ops.Sin(),
    "cos": ops.Cos(),
    "tan": ops.Tan(),
    "asin": ops.Asin(),
    "acos": ops.Acos(),
    "atan": ops.Atan(),
    "sinh": ops.Sinh(),
    "cosh": ops.Cosh(),
    "asinh": ops.Asinh(),
    "acosh": ops.Acosh(),
    "atanh": ops.Atanh(),
}
"""Functions of real numbers; of whole ones they are taken after a conversion."""

KEEPING: dict[str, ops.Op] = {
    "abs": ops.Abs(),
    "neg": ops.Neg(),
    "sign": ops.Sign(),
    "floor": ops.Floor(),
    "ceil": ops.Ceil(),
    "round": ops.Round(),
}
"""Functions whose result has the element type of their argument."""


def _register_unary(name: str, op: ops.Op, *, real: bool) -> None:
    @aten_op(name)
    def unary(g: TorchBuilder, self: Tensor) -> Tensor:
        if real:
            return g.elementwise(op, g.cast(self, "float32"))
        if kind(dtype_of(self)) < 2 and name in ("floor", "ceil", "round"):
            return self
        return g.elementwise(op, self)


for _name, _op in UNARY.items():
    _register_unary(_name, _op, real=True)
for _name, _op in KEEPING.items():
    _register_unary(_name, _op, real=False)


def apply(g: TorchBuilder, name: str, x: Any, y: Any) -> Tensor:
    """Apply a binary operator of ONNX's name to operands of any types."""
    return elementwise.combined(g, name, *promoted(g, x, y))


def real(g: TorchBuilder, x: Tensor, name: str, number: float) -> Tensor:
    """Apply a binary operator of ONNX's name to a tensor and a number."""
    return apply(g, name, g.cast(x, "float32"), float(number))


@aten_op("square")
def square(g: TorchBuilder, self: Tensor) -> Tensor:
    """Multiply by itself."""
    return apply(g, "Mul", self, self)


@aten_op("rsqrt")
def rsqrt(g: TorchBuilder, self: Tensor) -> Tensor:
    """Divide 1 by the square root."""
    return g.elementwise(ops.Reciprocal(), g.elementwise(ops.Sqrt(), self))


@aten_op("log1p")
def log1p(g: TorchBuilder, self: Tensor) -> Tensor:
    """Return ``log(1 + x)``."""
    return g.elementwise(ops.Log(), real(g, self, "Add", 1))


@aten_op("expm1")
def expm1(g: TorchBuilder, self: Tensor) -> Tensor:
    """Return ``exp(x) - 1``."""
    return real(g, g.elementwise(ops.Exp(), self), "Sub", 1)


@aten_op("log2")
def log2(g: TorchBuilder, self: Tensor) -> Tensor:
    """Return the binary logarithm."""
    return real(g, g.elementwise(ops.Log(), self), "Mul", 1 / math.log(2))


@aten_op("exp2")
def exp2(g: TorchBuilder, self: Tensor) -> Tensor:
    """Return the power of 2."""
    return g.elementwise(ops.Exp(), real(g, self, "Mul", math.log(2)))


@aten_op("hardtanh")
def hardtanh(
    g: TorchBuilder, self: Tensor, min_val: float = -1, max_val: float = 1
) -> Tensor:
    """Limit to bounds."""
    return clamp(g, self, min_val, max_val)


@aten_op("clamp", "clamp.Tensor", "clip", "clip.Tensor")
def clamp(g: TorchBuilder, self: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Limit to bounds, of which one may be left out."""
    bounds = [None if b is None else g.tensor(b, self) for b in (min, max)]
    if all(b is None or b.rank == 0 for b in bounds):
        return elementwise.Clip(g, self, *bounds)
    x = self
    for name, bound in zip(("Max", "Min"), bounds, strict=True):
        x = x if bound is None else apply(g, name, x, bound)
    return x


@aten_op("clamp_min", "clamp_min.Tensor")
def clamp_min(g: TorchBuilder, self: Tensor, min: Any) -> Tensor:
    """Limit from below."""
    return clamp(g, self, min)


@aten_op("clamp_max", "clamp_max.Tensor")
def clamp_max(g: TorchBuilder, self: Tensor, max: Any) -> Tensor:
    """Limit from above."""
    return clamp(g, self, None, max)


@aten_op("gelu")
def gelu(g: TorchBuilder, self: Tensor, *, approximate: Any = "none") -> Tensor:
    """Weigh by the normal distribution, exactly or through tanh."""
    return g.elementwise(ops.Gelu(approximate), self)


@aten_op("elu")
def elu(
    g: TorchBuilder,
    self: Tensor,
    alpha: float = 1,
    scale: float = 1,
    input_scale: float = 1,
) -> Tensor:
    """Keep positive values, take ``alpha (exp(x) - 1)`` of negative ones."""
    if input_scale != 1:
        raise UnsupportedModelError(f"input_scale {input_scale}, wanted 1")
    y = g.elementwise(ops.Elu(float(alpha)), self)
    return y if scale == 1 else real(g, y, "Mul", scale)


@aten_op("celu")
def celu(g: TorchBuilder, self: Tensor, alpha: float = 1.0) -> Tensor:
    """Keep positive values, take ``alpha (exp(x / alpha) - 1)`` of negative ones."""
    return g.elementwise(ops.Celu(float(alpha)), self)


@aten_op("leaky_relu")
def leaky_relu(g: TorchBuilder, self: Tensor, negative_slope: float = 0.01) -> Tensor:
    """Keep positive values and scale negative ones."""
    return g.elementwise(ops.LeakyRelu(float(negative_slope)), self)


@aten_op("rrelu")
def rrelu(
    g: TorchBuilder,
    self: Tensor,
    lower: float = 0.125,
    upper: float = 0.3333333333333333,
    training: bool = False,
    generator: None = None,
) -> Tensor:
    """Scale negative values by the middle of a range; in training it is random."""
    if training:
        raise UnsupportedModelError("it is for training")
    return g.elementwise(ops.LeakyRelu((lower + upper) / 2), self)


@aten_op("prelu")
def prelu(g: TorchBuilder, self: Tensor, weight: Tensor) -> Tensor:
    """Scale negative values by one slope, or by one for each channel, axis 1."""
    if weight.shape[0] == (1,) * g.bindings:
        slope = g.reshape(weight, ())
    else:
        ones = ((1,) * g.bindings,) * max(0, self.rank - 2)
        slope = g.reshape(weight, (*weight.shape, *ones))
    return _prelu_kernel(g, self, slope)


@aten_op("_prelu_kernel")
def _prelu_kernel(g: TorchBuilder, self: Tensor, weight: Tensor) -> Tensor:
    """Scale negative values by a slope that broadcasts."""
    return elementwise.PRelu(g, self, weight)


@aten_op("threshold")
def threshold(g: TorchBuilder, self: Tensor, threshold: float, value: float) -> Tensor:
    """Keep what is above a threshold and put a value for the rest."""
    if threshold == value == 0:
        return g.elementwise(ops.Relu(), self)
    above = compare(g, ops.Greater(), self, float(threshold))
    return where(g, above, self, float(value))


@aten_op("softplus")
def softplus(
    g: TorchBuilder, self: Tensor, beta: float = 1, threshold: float = 20
) -> Tensor:
    """Return ``log(1 + exp(beta x)) / beta``."""
    if beta == 1:
        return g.elementwise(ops.Softplus(), self)
    y = g.elementwise(ops.Softplus(), real(g, self, "Mul", beta))
    return real(g, y, "Mul", 1 / beta)


@aten_op("log_sigmoid", "log_sigmoid_forward")
def log_sigmoid(g: TorchBuilder, self: Tensor) -> Tensor:
    """Return the logarithm of the logistic function."""
    negative = g.elementwise(ops.Neg(), self)
    return g.elementwise(ops.Neg(), g.elementwise(ops.Softplus(), negative))


@aten_op("hardshrink")
def hardshrink(g: TorchBuilder, self: Tensor, lambd: float = 0.5) -> Tensor:
    """Drop what is near zero."""
    return g.elementwise(ops.Shrink(0.0, float(lambd)), self)


@aten_op("softshrink")
def softshrink(g: TorchBuilder, self: Tensor, lambd: float = 0.5) -> Tensor:
    """Drop what is near zero and move the rest towards it."""
    return g.elementwise(ops.Shrink(float(lambd), float(lambd)), self)


@aten_op("logit")
def logit(g: TorchBuilder, self: Tensor, eps: float | None = None) -> Tensor:
    """Return ``log(x / (1 - x))``."""
    x = self if eps is None else clamp(g, self, eps, 1 - eps)
    return g.elementwise(ops.Log(), apply(g, "Div", x, apply(g, "Sub", 1.0, x)))


def scaled(g: TorchBuilder, x: Any, factor: float) -> Any:
    """Return a number or tensor times a factor."""
    if factor == 1:
        return x
    return apply(g, "Mul", x, factor) if isinstance(x, Tensor) else x * factor


@aten_op("add.Tensor")
def add(g: TorchBuilder, self: Tensor, other: Any, *, alpha: float = 1) -> Tensor:
    """Add ``alpha other``."""
    return apply(g, "Add", self, scaled(g, other, alpha))


@aten_op("add.Scalar")
def add_scalar(g: TorchBuilder, self: Tensor, other: Any, alpha: float = 1) -> Tensor:
    """Add a number."""
    return add(g, self, other, alpha=alpha)


@aten_op("sub.Tensor")
def sub(g: TorchBuilder, self: Tensor, other: Any, *, alpha: float = 1) -> Tensor:
    """Subtract ``alpha other``."""
    return apply(g, "Sub", self, scaled(g, other, alpha))


@aten_op("sub.Scalar")
def sub_scalar(g: TorchBuilder, self: Tensor, other: Any, alpha: float = 1) -> Tensor:
    """Subtract a number."""
    return sub(g, self, other, alpha=alpha)


@aten_op("rsub.Tensor")
def rsub(g: TorchBuilder, self: Tensor, other: Any, *, alpha: float = 1) -> Tensor:
    """Subtract from ``other``."""
    return apply(g, "Sub", other, scaled(g, self, alpha))


@aten_op("rsub.Scalar")
def rsub_scalar(g: TorchBuilder, self: Tensor, other: Any, alpha: float = 1) -> Tensor:
    """Subtract from a number."""
    return rsub(g, self, other, alpha=alpha)


@aten_op("mul.Tensor", "mul.Scalar", "multiply.Tensor", "multiply.Scalar")
def mul(g: TorchBuilder, self: Tensor, other: Any) -> Tensor:
    """Multiply."""
    return apply(g, "Mul", self, other)


@aten_op("div.Tensor", "div.Scalar", "divide.Tensor", "true_divide.Tensor")
def div(g: TorchBuilder, self: Tensor, other: Any) -> Tensor:
    """Divide; the quotient of whole numbers is real."""
    x, y = promoted(g, self, other)
    if kind(dtype_of(x)) < 2:
        x, y = g.cast(x, "float32"), g.cast(y, "float32")
    return apply(g, "Div", x, y)


@aten_op("div.Tensor_mode", "div.Scalar_mode")
def div_mode(
    g: TorchBuilder, self: Tensor, other: Any, *, rounding_mode: str | None
) -> Tensor:
    """Divide and round down or towards zero."""
    y = div(g, self, other)
    if rounding_mode is None:
        return y
    if rounding_mode == "trunc":
        below = g.elementwise(ops.Floor(), g.elementwise(ops.Abs(), y))
        y = apply(g, "Mul", below, g.elementwise(ops.Sign(), y))
    else:
        y = g.elementwise(ops.Floor(), y)
    x, _ = promoted(g, self, other)
    return g.cast(y, dtype_of(x))


@aten_op("floor_divide", "floor_divide.Scalar")
def floor_divide(g: TorchBuilder, self: Tensor, other: Any) -> Tensor:
    """Divide and round down."""
    return div_mode(g, self, other, rounding_mode="floor")


@aten_op("remainder.Tensor", "remainder.Scalar")
def remainder(g: TorchBuilder, self: Tensor, other: Any) -> Tensor:
    """Return what dividing leaves, of the divisor's sign."""
    x, y = promoted(g, self, other)
    if kind(dtype_of(x)) < 2:
        return data.Mod(g, x, y)
    floor = g.elementwise(ops.Floor(), apply(g, "Div", x, y))
    return apply(g, "Sub", x, apply(g, "Mul", floor, y))


@aten_op("fmod.Tensor", "fmod.Scalar")
def fmod(g: TorchBuilder, self: Tensor, other: Any) -> Tensor:
    """Return what dividing leaves, of the dividend's sign."""
    return data.Mod(g, *promoted(g, self, other), fmod=1)


@aten_op("pow.Tensor_Tensor", "pow.Tensor_Scalar", "pow.Scalar")
def pow(g: TorchBuilder, self: Any, exponent: Any) -> Tensor:
    """Raise to a power."""
    if exponent == 0.5 and isinstance(self, Tensor):
        return g.elementwise(ops.Sqrt(), g.cast(self, "float32"))
    return apply(g, "Pow", self, exponent)


@aten_op("maximum", "max.other")
def maximum(g: TorchBuilder, self: Tensor, other: Tensor) -> Tensor:
    """Take the larger."""
    return apply(g, "Max", self, other)


@aten_op("minimum", "min.other")
def minimum(g: TorchBuilder, self: Tensor, other: Tensor) -> Tensor:
    """Take the smaller."""
    return apply(g, "Min", self, other)


@aten_op("addcmul")
def addcmul(
    g: TorchBuilder,
    self: Tensor,
    tensor1: Tensor,
    tensor2: Tensor,
    *,
    value: float = 1,
) -> Tensor:
    """Add a product."""
    return add(g, self, apply(g, "Mul", tensor1, tensor2), alpha=value)


@aten_op("addcdiv")
def addcdiv(
    g: TorchBuilder,
    self: Tensor,
    tensor1: Tensor,
    tensor2: Tensor,
    *,
    value: float = 1,
) -> Tensor:
    """Add a quotient."""
    return add(g, self, div(g, tensor1, tensor2), alpha=value)


@aten_op("lerp.Scalar", "lerp.Tensor")
def lerp(g: TorchBuilder, self: Tensor, end: Tensor, weight: Any) -> Tensor:
    """Mix two tensors."""
    return apply(g, "Add", self, apply(g, "Mul", apply(g, "Sub", end, self), weight))


COMPARISONS: dict[str, ops.Op] = {
    "gt": ops.Greater(),
    "ge": ops.GreaterOrEqual(),
    "lt": ops.Less(),
    "le": ops.LessOrEqual(),
    "eq": ops.Equal(),
}

LOGIC: dict[str, ops.Op] = {
    "logical_and": ops.And(),
    "logical_or": ops.Or(),
    "logical_xor": ops.Xor(),
}


def compare(g: TorchBuilder, op: ops.Op, x: Any, y: Any) -> Tensor:
    """Apply an operator that compares or joins, of any operand types."""
    return g.combine(op, *promoted(g, x, y))


def _register_comparison(name: str, op: ops.Op) -> None:
    @aten_op(f"{name}.Tensor", f"{name}.Scalar")
    def comparison(g: TorchBuilder, self: Tensor, other: Any) -> Tensor:
        return compare(g, op, self, other)


def _register_logic(name: str, op: ops.Op) -> None:
    @aten_op(name)
    def logic(g: TorchBuilder, self: Tensor, other: Tensor) -> Tensor:
        return g.combine(op, g.cast(self, "bool"), g.cast(other, "bool"))


def _register_bitwise(name: str, logic: ops.Op, bits: ops.Op) -> None:
    operator = name.replace("bitwise", "_") + "__"

    @aten_op(
        f"{name}.Tensor", f"{name}.Scalar", f"{operator}.Tensor", f"{operator}.Scalar"
    )
    def bitwise(g: TorchBuilder, self: Tensor, other: Any) -> Tensor:
        x, y = promoted(g, self, other)
        return g.combine(logic if dtype_of(x) == "bool" else bits, x, y)


for _name, _op in COMPARISONS.items():
    _register_comparison(_name, _op)
for _name, _op in LOGIC.items():
    _register_logic(_name, _op)
_register_bitwise("bitwise_and", ops.And(), ops.BitwiseAnd())
_register_bitwise("bitwise_or", ops.Or(), ops.BitwiseOr())
_register_bitwise("bitwise_xor", ops.Xor(), ops.BitwiseXor())


@aten_op("ne.Tensor", "ne.Scalar")
def ne(g: TorchBuilder, self: Tensor, other: Any) -> Tensor:
    """Tell where two tensors differ."""
    return g.elementwise(ops.Not(), compare(g, ops.Equal(), self, other))


@aten_op("logical_not", "bitwise_not")
def logical_not(g: TorchBuilder, self: Tensor) -> Tensor:
    """Return the opposite."""
    if dtype_of(self) != "bool":
        raise UnsupportedModelError(f"of {dtype_of(self)} values")
    return g.elementwise(ops.Not(), self)


@aten_op("isnan")
def isnan(g: TorchBuilder, self: Tensor) -> Tensor:
    """Tell which numbers are NaN."""
    return g.elementwise(ops.IsNaN(), self)


@aten_op("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def where(g: TorchBuilder, condition: Tensor, self: Any, other: Any) -> Tensor:
    """Choose from two tensors."""
    return data.Where(g, condition, *promoted(g, self, other))


@aten_op("masked_fill.Scalar", "masked_fill.Tensor")
def masked_fill(g: TorchBuilder, self: Tensor, mask: Tensor, value: Any) -> Tensor:
    """Put a value where a mask is true."""
    filled = g.cast(g.tensor(value, self), dtype_of(self))
    return data.Where(g, mask, filled, self)


def _register_softmax(
    name: str, old: str, function: Callable[..., Tensor], *more: str
) -> None:
    @aten_op(name, *more)
    def softmax(
        g: TorchBuilder, self: Tensor, dim: int, dtype: str | None = None
    ) -> Tensor:
        return function(g, g.cast(self, "float32"), axis=dim)

    @aten_op(old)
    def old_softmax(
        g: TorchBuilder, self: Tensor, dim: int, half_to_float: bool
    ) -> Tensor:
        return function(g, self, axis=dim)


def _softmax(kind: Callable[..., ops.Op]) -> Callable[..., Tensor]:
    def function(g: TorchBuilder, x: Tensor, *, axis: int) -> Tensor:
        place = g.axis(axis, x.rank)
        return data.along(g, kind(axis=place), x, place)[0]

    return function


_register_softmax("softmax.int", "_softmax", _softmax(ops.Softmax), "_safe_softmax")
_register_softmax("log_softmax.int", "_log_softmax", _softmax(ops.LogSoftmax))


@aten_op("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def dropout(g: TorchBuilder, input: Tensor, p: float, train: bool) -> Tensor:
    """Do nothing, unless it is for training."""
    if train and p:
        raise UnsupportedModelError(
            "it is for training; wanted a module in evaluation mode"
        )
    return input


@aten_op("glu")
def glu(g: TorchBuilder, self: Tensor, dim: int = -1) -> Tensor:
    """Weigh the first half of an axis by the logistic function of the second."""
    x, gate = chunk(g, self, 2, dim)
    return apply(g, "Mul", x, g.elementwise(ops.Sigmoid(), gate))


@aten_op("nan_to_num")
def nan_to_num(
    g: TorchBuilder,
    self: Tensor,
    nan: float | None = None,
    posinf: float | None = None,
    neginf: float | None = None,
) -> Tensor:
    """Put numbers for what is none."""
    most = float(np.finfo(np.float32).max)
    x = where(g, g.elementwise(ops.IsNaN(), self), float(nan or 0), self)
    high = g.elementwise(ops.IsInf(False, True), x)
    x = where(g, high, most if posinf is None else float(posinf), x)
    low = g.elementwise(ops.IsInf(True, False), x)
    return where(g, low, -most if neginf is None else float(neginf), x)
