"""Arithmetic, activations and softmax: operators that keep or broadcast shapes.

Each function is named and signed like its operator.
"""

# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.tools.builder import bounded
from striate.tools.from_onnx.registry import OnnxBuilder, onnx_op
from striate.tools.layout import Constant, Tensor, Value

OPEN = 3.4028234663852886e38
"""The bound of a `Clip` that has none: the largest float32."""

UNARY: dict[str, ops.Op] = {
    "Relu": ops.Relu(),
    "Sigmoid": ops.Sigmoid(),
    "Tanh": ops.Tanh(),
    "HardSwish": ops.HardSwish(),
    "Softplus": ops.Softplus(),
    "Mish": ops.Mish(),
    "Exp": ops.Exp(),
    "Log": ops.Log(),
    "Sqrt": ops.Sqrt(),
    "Abs": ops.Abs(),
    "Neg": ops.Neg(),
    "Erf": ops.Erf(),
    "Reciprocal": ops.Reciprocal(),
    "Softsign": ops.Softsign(),
    "Sign": ops.Sign(),
    "Floor": ops.Floor(),
    "Ceil": ops.Ceil(),
    "Round": ops.Round(),
    "Sin": ops.Sin(),
    "Cos": ops.Cos(),
    "Tan": ops.Tan(),
    "Asin": ops.Asin(),
    "Acos": ops.Acos(),
    "Atan": ops.Atan(),
    "Sinh": ops.Sinh(),
    "Cosh": ops.Cosh(),
    "Asinh": ops.Asinh(),
    "Acosh": ops.Acosh(),
    "Atanh": ops.Atanh(),
}


def _divide(a: Any, b: Any) -> Any:
    """Divide; whole numbers are rounded towards zero."""
    if a.dtype.kind == "f" or b.dtype.kind == "f":
        return a / b
    return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)


def _power(a: Any, b: Any) -> Any:
    """Raise to a power; the result has the type of the base."""
    return np.power(a, b).astype(a.dtype)


BINARY: dict[str, tuple[type[ops.Op], Callable[..., Any]]] = {
    "Add": (ops.Add, np.add),
    "Sub": (ops.Sub, np.subtract),
    "Mul": (ops.Mul, np.multiply),
    "Div": (ops.Div, _divide),
    "Pow": (ops.Pow, _power),
    "Max": (ops.Maximum, np.maximum),
    "Min": (ops.Minimum, np.minimum),
}
"""What computes each, and what computes it of constants."""


def combined(g: OnnxBuilder, name: str, x: Tensor, y: Tensor) -> Tensor:
    """Apply the binary operator of that name."""
    kind, function = BINARY[name]
    if isinstance(x, Constant) and isinstance(y, Constant):

        def bounded_function(a: Any, b: Any) -> Any:
            bounded(np.broadcast_shapes(a.shape, b.shape))
            return function(a, b)

        return g.fold(bounded_function, (x, y))[0]
    if name == "Pow" and isinstance(x, Value):
        y = _exponent(g, y, x.dtype)
    return g.combine(kind(), x, y)


def _exponent(g: OnnxBuilder, y: Tensor, dtype: str) -> Tensor:
    """Return an exponent in the type of its base, unless that loses a fraction."""
    if dtype == "float32":
        return g.cast(y, dtype)
    whole = isinstance(y, Constant) and all((a == np.rint(a)).all() for a in y.arrays)
    return g.cast(y, dtype) if whole else y


def _register_unary(name: str, op: ops.Op) -> None:
    @onnx_op(name, since=1)
    def unary_1(g: OnnxBuilder, X: Tensor, *, consumed_inputs: Any = ()) -> Tensor:
        return g.elementwise(op, X)

    @onnx_op(name, since=6)
    def unary(g: OnnxBuilder, X: Tensor) -> Tensor:
        return g.elementwise(op, X)


def _register_binary(name: str) -> None:
    @onnx_op(name, since=1)
    def binary_1(
        g: OnnxBuilder,
        A: Tensor,
        B: Tensor,
        *,
        axis: int | None = None,
        broadcast: int = 0,
        consumed_inputs: Any = (),
    ) -> Tensor:
        if broadcast and axis is not None:
            ones = ((1,) * g.bindings,) * (A.rank - g.axis(axis, A.rank) - B.rank)
            return combined(g, name, A, g.reshape(B, (*B.shape, *ones)))
        return combined(g, name, A, B)

    @onnx_op(name, since=7)
    def binary(g: OnnxBuilder, A: Tensor, B: Tensor) -> Tensor:
        return combined(g, name, A, B)


for _name, _op in UNARY.items():
    _register_unary(_name, _op)
for _name in ("Add", "Sub", "Mul", "Div", "Pow"):
    _register_binary(_name)


def _chained(g: OnnxBuilder, name: str, tensors: tuple[Tensor, ...]) -> Tensor:
    return reduce(lambda x, y: combined(g, name, x, y), tensors)


@onnx_op("Sum")
def Sum(g: OnnxBuilder, *data_0: Tensor, consumed_inputs: Any = ()) -> Tensor:
    """Add any number of tensors."""
    return _chained(g, "Add", data_0)


@onnx_op("Max")
def Max(g: OnnxBuilder, *data_0: Tensor, consumed_inputs: Any = ()) -> Tensor:
    """Take the largest of any number of tensors, element by element."""
    return _chained(g, "Max", data_0)


@onnx_op("Min")
def Min(g: OnnxBuilder, *data_0: Tensor, consumed_inputs: Any = ()) -> Tensor:
    """Take the smallest of any number of tensors, element by element."""
    return _chained(g, "Min", data_0)


@onnx_op("Mean")
def Mean(g: OnnxBuilder, *data_0: Tensor, consumed_inputs: Any = ()) -> Tensor:
    """Average any number of tensors, element by element."""
    total = _chained(g, "Add", data_0)
    share = g.number(1 / len(data_0))
    return total if len(data_0) == 1 else combined(g, "Mul", total, share)


@onnx_op("Clip", since=1)
def Clip_1(
    g: OnnxBuilder,
    input: Tensor,
    *,
    min: float = -OPEN,
    max: float = OPEN,
    consumed_inputs: Any = (),
) -> Tensor:
    """Limit to bounds that are attributes."""
    return g.elementwise(_clip(min, max), input)


@onnx_op("Clip", since=11)
def Clip(
    g: OnnxBuilder,
    input: Tensor,
    min: Tensor | None = None,
    max: Tensor | None = None,
) -> Tensor:
    """Limit to bounds that are inputs."""
    if isinstance(input, Constant):
        return g.fold(np.clip, (input, min, max))[0]
    assert isinstance(input, Value)
    if input.dtype != "float32" or not all(
        bound is None or isinstance(bound, Constant) for bound in (min, max)
    ):
        x = input if min is None else g.combine(ops.Maximum(), input, min)
        return x if max is None else g.combine(ops.Minimum(), x, max)
    low, high = (
        default if bound is None else float(g.array(bound, what).reshape(-1)[0])
        for bound, default, what in (
            (min, -OPEN, "its lower bound"),
            (max, OPEN, "its upper bound"),
        )
    )
    return g.elementwise(_clip(low, high), input)


def _clip(low: float, high: float) -> ops.Op:
    if low == 0 and high >= OPEN:
        return ops.Relu()
    bounds = (min(max(bound, -OPEN), OPEN) for bound in (low, high))
    return ops.Clip(*bounds)


@onnx_op("LeakyRelu")
def LeakyRelu(
    g: OnnxBuilder, X: Tensor, *, alpha: float = 0.01, consumed_inputs: Any = ()
) -> Tensor:
    """Keep positive values and scale negative ones."""
    return g.elementwise(ops.LeakyRelu(alpha), X)


@onnx_op("PRelu", since=1)
def PRelu_1(
    g: OnnxBuilder, X: Tensor, slope: Tensor, *, consumed_inputs: Any = ()
) -> Tensor:
    """Scale negative values by a slope for each channel, axis 1."""
    slopes = g.array(slope, "its slope")
    if slopes.size > 1:
        slopes = slopes.reshape(-1, *(1,) * (X.rank - 2))
    return g.elementwise(ops.PRelu(), X, slope=slopes)


@onnx_op("PRelu", since=7)
def PRelu(g: OnnxBuilder, X: Tensor, slope: Tensor) -> Tensor:
    """Scale negative values by a slope that broadcasts to the input."""
    if isinstance(slope, Value):
        return g.combine(ops.PRelu(), X, slope)
    return g.elementwise(ops.PRelu(), X, slope=g.array(slope, "its slope"))


@onnx_op("Elu")
def Elu(
    g: OnnxBuilder, X: Tensor, *, alpha: float = 1.0, consumed_inputs: Any = ()
) -> Tensor:
    """Keep positive values, take ``alpha (exp(x) - 1)`` of negative ones."""
    return g.elementwise(ops.Elu(alpha), X)


@onnx_op("HardSigmoid")
def HardSigmoid(
    g: OnnxBuilder,
    X: Tensor,
    *,
    alpha: float = 0.2,
    beta: float = 0.5,
    consumed_inputs: Any = (),
) -> Tensor:
    """Limit ``alpha x + beta`` to 0 to 1."""
    return g.elementwise(ops.HardSigmoid(alpha, beta), X)


@onnx_op("Gelu", since=20)
def Gelu(g: OnnxBuilder, X: Tensor, *, approximate: Any = "none") -> Tensor:
    """Weigh by the normal distribution, exactly or through tanh."""
    return g.elementwise(ops.Gelu(approximate), X)


@onnx_op("Swish", since=24)
def Swish(g: OnnxBuilder, X: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Weigh by ``sigmoid(alpha x)``."""
    return g.elementwise(ops.Silu() if alpha == 1 else ops.Swish(alpha), X)


@onnx_op("Selu")
def Selu(
    g: OnnxBuilder,
    X: Tensor,
    *,
    alpha: float | None = None,
    gamma: float | None = None,
    consumed_inputs: Any = (),
) -> Tensor:
    """Scale positive values, take ``gamma alpha (exp(x) - 1)`` of negative ones."""
    early = g.opset < 6
    alpha = (1.6732 if early else 1.6732632) if alpha is None else alpha
    gamma = (1.0507 if early else 1.050701) if gamma is None else gamma
    return g.elementwise(ops.Selu(alpha, gamma), X)


@onnx_op("Celu", since=12)
def Celu(g: OnnxBuilder, X: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Keep positive values, take ``alpha (exp(x / alpha) - 1)`` of negative ones."""
    return g.elementwise(ops.Celu(alpha), X)


@onnx_op("ThresholdedRelu")
def ThresholdedRelu(g: OnnxBuilder, X: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Keep what is above a threshold."""
    return g.elementwise(ops.ThresholdedRelu(alpha), X)


@onnx_op("Shrink", since=9)
def Shrink(
    g: OnnxBuilder, input: Tensor, *, bias: float = 0.0, lambd: float = 0.5
) -> Tensor:
    """Move what is beyond a threshold towards zero and drop the rest."""
    return g.elementwise(ops.Shrink(bias, lambd), input)


def _register_softmax(name: str, kind: Callable[..., ops.Op]) -> None:
    @onnx_op(name, since=1)
    def softmax_1(g: OnnxBuilder, input: Tensor, *, axis: int = 1) -> Tensor:
        axis = g.axis(axis, input.rank)
        ones = (1,) * g.bindings
        if all(dim == ones for dim in input.shape[axis + 1 :]):
            return softmax(g, input, axis=axis)
        sizes = (g.product(input.shape[:axis]), (-1,) * g.bindings)
        rows = g.reshape_to(input, sizes, zero_copies=False)
        return g.reshape(softmax(g, rows, axis=1), input.shape)

    @onnx_op(name, since=13)
    def softmax(g: OnnxBuilder, input: Tensor, *, axis: int = -1) -> Tensor:
        axis = g.axis(axis, input.rank)
        g.one_picture_at_a_time(input, (axis,))
        axes = g.order(input)
        return g.permuted(kind(axis=axes.index(axis)), input, axes)


_register_softmax("Softmax", ops.Softmax)
_register_softmax("LogSoftmax", ops.LogSoftmax)
_register_softmax("Hardmax", ops.Hardmax)


@onnx_op("Dropout", since=1)
def Dropout_1(
    g: OnnxBuilder,
    data: Tensor,
    *,
    ratio: float = 0.5,
    is_test: int = 0,
    consumed_inputs: Any = (),
) -> Any:
    """Do nothing: a trained network drops nothing."""
    return kept(g, data)


@onnx_op("Dropout", since=12)
def Dropout(
    g: OnnxBuilder,
    data: Tensor,
    ratio: Tensor | None = None,
    training_mode: Tensor | None = None,
    *,
    seed: int | None = None,
) -> Any:
    """Do nothing, unless it is for training and has a seed: each run drops the same."""
    if training_mode is None or not g.array(training_mode, "training_mode").any():
        return kept(g, data)
    rate = 0.5 if ratio is None else float(g.array(ratio, "its ratio").reshape(-1)[0])
    if rate == 0:
        return kept(g, data)
    if seed is None:
        raise UnsupportedModelError("it drops other elements in every run")
    mask = np.random.RandomState(seed).uniform(size=mask_shape(g, data)) >= rate
    factor = (mask / (1 - rate)).astype(np.float32)
    return g.elementwise(ops.Mul(), data, y=factor), g.constant(mask)


def kept(g: OnnxBuilder, x: Tensor) -> tuple[Tensor, ...]:
    """Return a tensor of which nothing is dropped, and the mask if it is read."""
    if g.wanted < 2:
        return (x,)
    return x, g.constant(np.ones(mask_shape(g, x), np.bool_))


def mask_shape(g: OnnxBuilder, x: Tensor) -> tuple[int, ...]:
    """Return the shape of a mask, which must be known."""
    shape = tuple(g.fixed(dim, "the shape of its mask") for dim in x.shape)
    bounded(shape)
    return shape
