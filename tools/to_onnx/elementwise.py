"""Functions of single elements, and those that broadcast their operands."""

from __future__ import annotations

from typing import Any

import numpy as np
from striate import ops
from striate.tools.to_onnx.exporter import Exporter, Placed, Tensor, exports

OPEN = 3.4028234663852886e38
"""A bound of `Clip` that bounds nothing."""

UNARY = (
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitwiseNot",
    "Ceil",
    "Celu",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
)
"""Operators that ONNX calls the same, with attributes called like the fields."""

BINARY = {
    "Add": "Add",
    "And": "And",
    "BitwiseAnd": "BitwiseAnd",
    "BitwiseOr": "BitwiseOr",
    "BitwiseXor": "BitwiseXor",
    "Div": "Div",
    "Equal": "Equal",
    "Greater": "Greater",
    "GreaterOrEqual": "GreaterOrEqual",
    "Less": "Less",
    "LessOrEqual": "LessOrEqual",
    "Maximum": "Max",
    "Minimum": "Min",
    "Mul": "Mul",
    "Or": "Or",
    "Pow": "Pow",
    "PRelu": "PRelu",
    "Sub": "Sub",
    "Where": "Where",
    "Xor": "Xor",
}
"""What ONNX calls operators that broadcast."""


def mapped(g: Exporter, name: str, op: ops.Op, x: Tensor) -> Placed:
    """Return an operator of one tensor, wherever its axes lie."""
    return Placed(g.node(name, lying(g, x), **op.attributes()), x.axes)


def lying(g: Exporter, x: Tensor) -> str:
    """Return the name of a tensor as it lies."""
    return g.lying(x, x.axes)


def _register_unary(name: str) -> None:
    @exports(name)
    def unary(g: Exporter, op: ops.Op, x: Tensor) -> Placed:
        return mapped(g, name, op, x)


for _name in UNARY:
    _register_unary(_name)


def broadcast(g: Exporter, name: str, *xs: Tensor, **attributes: Any) -> Placed:
    """Return an operator that broadcasts its operands."""
    names, axes = g.aligned(*xs)
    return Placed(g.node(name, *names, **attributes), axes)


def _register_binary(name: str, onnx: str) -> None:
    @exports(name)
    def binary(g: Exporter, op: ops.Op, *xs: Tensor) -> Placed:
        return broadcast(g, onnx, *xs)


for _name, _onnx in BINARY.items():
    _register_binary(_name, _onnx)


@exports("Identity")
def identity(g: Exporter, op: ops.Op, x: Tensor) -> Placed:
    """Export nothing."""
    return Placed(lying(g, x), x.axes)


@exports("Clip")
def clip(g: Exporter, op: ops.Clip, x: Tensor) -> Placed:
    """Limit; an open end is an input left out."""
    low, high = (
        "" if abs(bound) >= OPEN else g.constant(bound, dtype=np.float32)
        for bound in (op.minimum, op.maximum)
    )
    return Placed(g.node("Clip", lying(g, x), low, high), x.axes)


@exports("Silu")
def silu(g: Exporter, op: ops.Silu, x: Tensor) -> Placed:
    """Multiply by the sigmoid."""
    name = lying(g, x)
    return Placed(g.node("Mul", name, g.node("Sigmoid", name)), x.axes)


@exports("Swish")
def swish(g: Exporter, op: ops.Swish, x: Tensor) -> Placed:
    """Multiply by the sigmoid of alpha times the input."""
    name = lying(g, x)
    scaled = g.node("Mul", name, g.constant(op.alpha, dtype=np.float32))
    return Placed(g.node("Mul", name, g.node("Sigmoid", scaled)), x.axes)


@exports("IsInf")
def is_inf(g: Exporter, op: ops.IsInf, x: Tensor) -> Placed:
    """Tell where numbers are infinite."""
    name = g.node(
        "IsInf",
        lying(g, x),
        detect_negative=int(op.negative),
        detect_positive=int(op.positive),
    )
    return Placed(name, x.axes)


@exports("Mod")
def mod(g: Exporter, op: ops.Mod, x: Tensor, y: Tensor) -> Placed:
    """Take the remainder; ONNX wants `fmod` for floats."""
    return broadcast(g, "Mod", x, y, fmod=int(op.fmod))


@exports("Cast")
def cast(g: Exporter, op: ops.Cast, x: Tensor) -> Placed:
    """Convert to another element type."""
    return Placed(cast_to(g, lying(g, x), op.dtype), x.axes)


def cast_to(g: Exporter, name: str, dtype: str) -> str:
    """Return a value converted to another element type."""
    return str(g.node("Cast", name, to=element(dtype)))


def element(dtype: str) -> int:
    """Return ONNX's number of an element type."""
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def along(g: Exporter, onnx: str, op: Any, x: Tensor) -> Placed:
    """Return an operator along one axis."""
    return Placed(g.node(onnx, lying(g, x), axis=x.position(op.axis)), x.axes)


def _register_along(name: str) -> None:
    @exports(name)
    def handler(g: Exporter, op: Any, x: Tensor) -> Placed:
        return along(g, name, op, x)


for _name in ("Softmax", "LogSoftmax", "Hardmax"):
    _register_along(_name)


def number(g: Exporter, value: float) -> str:
    """Return the name of a float."""
    return g.constant(value, dtype=np.float32)
