"""Operations of ``keras.ops`` in a functional network.

Each function is named and signed like its class: first what it is called with, then
its settings. Keras 2 keeps such calls as layers of the class TFOpLambda, which name a
function of TensorFlow.
"""

# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.tools.from_keras import merging, pictures, windows
from striate.tools.from_keras.activations import activated, along
from striate.tools.from_keras.normalise import axes_of, of_unit_norm
from striate.tools.from_keras.registry import (
    KerasBuilder,
    keras_operation,
    operations,
)
from striate.tools.from_onnx import axes as onnx_axes
from striate.tools.from_onnx.axes import FAR
from striate.tools.from_onnx.layers import MatMul
from striate.tools.layout import Tensor, Value, positions

BINARY: dict[str, ops.Op] = {
    "Add": ops.Add(),
    "Subtract": ops.Sub(),
    "Multiply": ops.Mul(),
    "Divide": ops.Div(),
    "TrueDivide": ops.Div(),
    "Power": ops.Pow(),
    "Maximum": ops.Maximum(),
    "Minimum": ops.Minimum(),
}
"""Operations of two operands with NumPy's broadcasting."""

UNARY: dict[str, ops.Op] = {
    "Absolute": ops.Abs(),
    "Abs": ops.Abs(),
    "Ceil": ops.Ceil(),
    "Cos": ops.Cos(),
    "Erf": ops.Erf(),
    "Exp": ops.Exp(),
    "Floor": ops.Floor(),
    "Log": ops.Log(),
    "Negative": ops.Neg(),
    "Reciprocal": ops.Reciprocal(),
    "Round": ops.Round(),
    "Sign": ops.Sign(),
    "Sin": ops.Sin(),
    "Sqrt": ops.Sqrt(),
}
"""Operations of one operand."""

ACTIVATIONS = {
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
    "HardSwish": "hard_silu",
    "HardTanh": "hard_tanh",
    "LogSigmoid": "log_sigmoid",
    "Mish": "mish",
    "Relu": "relu",
    "Relu6": "relu6",
    "Selu": "selu",
    "Sigmoid": "sigmoid",
    "Silu": "silu",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "SparsePlus": "sparse_plus",
    "SparseSigmoid": "sparse_sigmoid",
    "Swish": "silu",
    "Tanh": "tanh",
    "TanhShrink": "tanh_shrink",
}
"""Operations that are activations without settings."""

REDUCTIONS: dict[str, Callable[..., ops.Op]] = {
    "Max": ops.ReduceMax,
    "Amax": ops.ReduceMax,
    "Min": ops.ReduceMin,
    "Amin": ops.ReduceMin,
    "Prod": ops.ReduceProd,
    "Sum": ops.ReduceSum,
}
"""Operations along axes."""


def tensor(g: KerasBuilder, x: Any) -> Tensor:
    """Return an operand, which may be a number or an array."""
    return x if isinstance(x, Tensor) else g.constant(np.asarray(x, np.float32))


def _binary(op: ops.Op) -> Callable[..., Tensor]:
    def handler(g: KerasBuilder, x1: Any, x2: Any) -> Tensor:
        return g.combine(op, tensor(g, x1), tensor(g, x2))

    return handler


def _unary(op: ops.Op) -> Callable[..., Tensor]:
    def handler(g: KerasBuilder, x: Tensor) -> Tensor:
        return g.elementwise(op, x)

    return handler


def _activation(name: str) -> Callable[..., Tensor]:
    def handler(g: KerasBuilder, x: Tensor) -> Tensor:
        return activated(g, x, name)

    return handler


def _reduction(kind: Callable[..., ops.Op]) -> Callable[..., Tensor]:
    def handler(
        g: KerasBuilder,
        x: Tensor,
        *,
        axis: Any = None,
        keepdims: bool = False,
    ) -> Tensor:
        axes = behind_the_batch(g, x, axis)
        order = g.order(x)
        op = kind(positions(order, axes), True)
        y = g.permuted(op, x, order)
        return y if keepdims else g.without(y, axes)

    return handler


for _name, _op in BINARY.items():
    keras_operation(_name)(_binary(_op))
for _name, _op in UNARY.items():
    keras_operation(_name)(_unary(_op))
for _name, _other in ACTIVATIONS.items():
    keras_operation(_name)(_activation(_other))
for _name, _kind in REDUCTIONS.items():
    keras_operation(_name)(_reduction(_kind))


def behind_the_batch(g: KerasBuilder, x: Tensor, axis: Any) -> list[int]:
    """Return axes; the batch must not be among them."""
    axes = list(range(x.rank)) if axis is None else axes_of(g, axis, x.rank)
    if 0 in axes:
        raise UnsupportedModelError("it works along the batch")
    return axes


@keras_operation("Square")
def Square(g: KerasBuilder, x: Tensor) -> Tensor:
    """Multiply by itself."""
    return g.combine(ops.Mul(), x, x)


@keras_operation("Rsqrt")
def Rsqrt(g: KerasBuilder, x: Tensor) -> Tensor:
    """Divide one by the root."""
    return g.elementwise(ops.Reciprocal(), g.elementwise(ops.Sqrt(), x))


@keras_operation("Clip")
def Clip(g: KerasBuilder, x: Tensor, *, x_min: float, x_max: float) -> Tensor:
    """Limit to a range."""
    return g.elementwise(ops.Clip(float(x_min), float(x_max)), x)


@keras_operation("Gelu")
def Gelu(g: KerasBuilder, x: Tensor, *, approximate: bool = True) -> Tensor:
    """Apply GELU, by default the approximate one."""
    return g.elementwise(ops.Gelu("tanh" if approximate else "none"), x)


@keras_operation("LeakyRelu")
def LeakyRelu(g: KerasBuilder, x: Tensor, *, negative_slope: float = 0.2) -> Tensor:
    """Tilt what is negative."""
    return g.elementwise(ops.LeakyRelu(negative_slope), x)


@keras_operation("Elu")
def Elu(g: KerasBuilder, x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Bend what is negative."""
    return g.elementwise(ops.Elu(alpha), x)


@keras_operation("Celu")
def Celu(g: KerasBuilder, x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Bend what is negative, smoothly."""
    return g.elementwise(ops.Celu(alpha), x)


@keras_operation("Softmax")
def Softmax(g: KerasBuilder, x: Tensor, *, axis: int = -1) -> Tensor:
    """Make numbers that add up to one along an axis."""
    return along(g, ops.Softmax, x, axis)


@keras_operation("LogSoftmax")
def LogSoftmax(g: KerasBuilder, x: Tensor, *, axis: int = -1) -> Tensor:
    """Return the logarithm of the softmax."""
    return along(g, ops.LogSoftmax, x, axis)


@keras_operation("Normalize")
def Normalize(
    g: KerasBuilder,
    x: Tensor,
    *,
    axis: Any = -1,
    order: Any = 2,
    epsilon: float = 1e-12,
) -> Tensor:
    """Divide by the norm."""
    if order != 2:
        raise UnsupportedModelError(f"order {order}")
    return of_unit_norm(g, x, axis, epsilon)


@keras_operation("Mean")
def Mean(
    g: KerasBuilder, x: Tensor, *, axis: Any = None, keepdims: bool = False
) -> Tensor:
    """Average along axes."""
    axes = tuple(behind_the_batch(g, x, axis))
    return onnx_axes.mean(g, x, axes, int(keepdims))


@keras_operation("Matmul")
def Matmul(g: KerasBuilder, x1: Any, x2: Any) -> Tensor:
    """Multiply matrices."""
    found: Tensor = MatMul(g, tensor(g, x1), tensor(g, x2))
    return found


@keras_operation("Reshape")
def Reshape(g: KerasBuilder, x: Tensor, *, newshape: Sequence[int]) -> Tensor:
    """Give another shape, in which -1 stands for what remains."""
    wanted = [(int(n),) * g.bindings for n in newshape]
    if wanted and wanted[0][0] == -1 and [n[0] for n in wanted].count(-1) == 1:
        wanted[0] = x.shape[0]
    return g.reshape_to(x, wanted, zero_copies=False)


@keras_operation("Transpose")
def Transpose(
    g: KerasBuilder, x: Tensor, *, axes: Sequence[int] | None = None
) -> Tensor:
    """Put the axes in another order."""
    order = tuple(reversed(range(x.rank))) if axes is None else axes
    return x.transpose([g.axis(a, x.rank) for a in order])


@keras_operation("ExpandDims")
def ExpandDims(g: KerasBuilder, x: Tensor, *, axis: Any) -> Tensor:
    """Add axes of size one."""
    count = 1 if isinstance(axis, int) else len(axis)
    new = axes_of(g, axis, x.rank + count)
    rest = iter(x.shape)
    ones = (1,) * g.bindings
    shape = [ones if a in new else next(rest) for a in range(x.rank + count)]
    return g.reshape(x, shape)


@keras_operation("Squeeze")
def Squeeze(g: KerasBuilder, x: Tensor, *, axis: Any = None) -> Tensor:
    """Drop axes of size one."""
    if axis is None:
        ones = (1,) * g.bindings
        return g.without(x, [a for a, dim in enumerate(x.shape) if dim == ones])
    return g.without(x, axes_of(g, axis, x.rank))


@keras_operation("Concatenate")
def Concatenate(g: KerasBuilder, xs: Sequence[Any], *, axis: int = 0) -> Tensor:
    """Join along an axis."""
    return merging.Concatenate(g, *(tensor(g, x) for x in xs), axis=axis)


@keras_operation("Stack")
def Stack(g: KerasBuilder, x: Sequence[Tensor], *, axis: int = 0) -> Tensor:
    """Join along a new axis."""
    return merging.Concatenate(
        g, *(ExpandDims(g, part, axis=axis) for part in x), axis=axis
    )


@keras_operation("Split")
def Split(
    g: KerasBuilder, x: Tensor, *, indices_or_sections: Any, axis: int = 0
) -> tuple[Tensor, ...]:
    """Cut along an axis, in equal parts or at places."""
    axis = behind_the_batch(g, x, axis)[0]
    size = g.fixed(x.shape[axis], "the size it cuts")
    if isinstance(indices_or_sections, int):
        part = size // indices_or_sections
        return onnx_axes.cut(g, x, axis, (part,) * indices_or_sections)
    places = [0, *indices_or_sections, size]
    parts = tuple(int(n) for n in np.diff(places))
    return onnx_axes.cut(g, x, axis, parts)


@keras_operation("GetItem")
def GetItem(g: KerasBuilder, x: Tensor, key: Any) -> Tensor:
    """Take part of a tensor, as NumPy writes it."""
    parts = list(key) if isinstance(key, (list, tuple)) else [key]
    if Ellipsis not in parts:
        parts.append(Ellipsis)
    place = parts.index(Ellipsis)
    taken = sum(part is not None for part in parts) - 1
    parts[place : place + 1] = [slice(None)] * (x.rank - taken)
    ones = (1,) * g.bindings
    y = x
    kept: list[int | None] = []
    axis = 0
    for part in parts:
        if part is None:
            kept.append(None)
            continue
        if isinstance(part, int):
            stop = part + 1 if part != -1 else FAR
            y = onnx_axes.sliced(g, y, (part,), (stop,), (axis,), None)
        elif isinstance(part, slice):
            if part != slice(None):
                y = _ranged(g, y, part, axis)
            kept.append(axis)
        else:
            raise UnsupportedModelError(f"the index {part!r}")
        axis += 1
    return g.reshape(y, [ones if a is None else y.shape[a] for a in kept])


def _ranged(g: KerasBuilder, x: Tensor, part: slice, axis: int) -> Tensor:
    step = 1 if part.step is None else int(part.step)
    first = 0 if step > 0 else -1
    last = FAR if step > 0 else -FAR
    start = first if part.start is None else int(part.start)
    stop = last if part.stop is None else int(part.stop)
    if axis == 0:
        raise UnsupportedModelError("it works along the batch")
    return onnx_axes.sliced(g, x, (start,), (stop,), (axis,), (step,))


@keras_operation("Flip")
def Flip(g: KerasBuilder, x: Tensor, *, axis: Any = None) -> Tensor:
    """Turn axes round."""
    axes = behind_the_batch(g, x, axis)
    count = len(axes)
    return onnx_axes.sliced(g, x, (-1,) * count, (-FAR,) * count, axes, (-1,) * count)


@keras_operation("Pad")
def Pad(
    g: KerasBuilder,
    x: Tensor,
    *,
    pad_width: Any,
    mode: str = "constant",
    constant_values: float = 0.0,
) -> Tensor:
    """Add positions before and after axes."""
    pairs = [tuple(pair) if len(pair) == 2 else tuple(pair) * 2 for pair in pad_width]
    pairs = pairs * x.rank if len(pairs) == 1 else pairs
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise UnsupportedModelError(f"mode {mode!r}")
    if any(pairs[0]):
        raise UnsupportedModelError("it works along the batch")
    pads = (*(before for before, _ in pairs), *(after for _, after in pairs))
    return onnx_axes.padded(g, x, pads, mode, float(constant_values))


@keras_operation("Cast")
def Cast(g: KerasBuilder, x: Tensor, *, dtype: str) -> Tensor:
    """Do nothing to numbers that are floats before and after."""
    if isinstance(x, Value) and x.dtype == "float32" and "float" in dtype:
        return x
    raise UnsupportedModelError(f"it makes {dtype} of computed values")


@keras_operation("Identity", "StopGradient", "Copy")
def Identity(g: KerasBuilder, x: Tensor) -> Tensor:
    """Do nothing."""
    return x


@keras_operation("MaxPool")
def MaxPool(g: KerasBuilder, inputs: Tensor, **settings: Any) -> Tensor:
    """Take the largest value of each window."""
    return windows.MaxPooling2D(g, inputs, **settings)


@keras_operation("AveragePool")
def AveragePool(g: KerasBuilder, inputs: Tensor, **settings: Any) -> Tensor:
    """Average each window."""
    return windows.AveragePooling2D(g, inputs, **settings)


@keras_operation("Resize")
def Resize(g: KerasBuilder, images: Tensor, *, size: Any, **settings: Any) -> Tensor:
    """Resample to a size."""
    height, width = size
    return pictures.Resizing(g, images, height=height, width=width, **settings)


OF_TENSORFLOW = {
    "__operators__.add": ("Add", "x", "y"),
    "math.add": ("Add", "x", "y"),
    "__operators__.sub": ("Subtract", "x", "y"),
    "math.subtract": ("Subtract", "x", "y"),
    "__operators__.mul": ("Multiply", "x", "y"),
    "math.multiply": ("Multiply", "x", "y"),
    "math.truediv": ("Divide", "x", "y"),
    "math.divide": ("Divide", "x", "y"),
    "math.maximum": ("Maximum", "x", "y"),
    "math.minimum": ("Minimum", "x", "y"),
    "math.pow": ("Power", "x", "y"),
    "math.sqrt": ("Sqrt", "x"),
    "math.square": ("Square", "x"),
    "math.exp": ("Exp", "x"),
    "math.sigmoid": ("Sigmoid", "x"),
    "math.tanh": ("Tanh", "x"),
    "nn.relu": ("Relu", "features"),
    "nn.relu6": ("Relu6", "features"),
    "nn.sigmoid": ("Sigmoid", "x"),
    "nn.silu": ("Silu", "features"),
    "nn.tanh": ("Tanh", "x"),
}
"""For functions of TensorFlow the operation here, and what its operands are called."""


def of_tensorflow(
    g: KerasBuilder, function: str, args: Sequence[Any], kwargs: dict[str, Any]
) -> Any:
    """Return what a TFOpLambda computes."""
    if function not in OF_TENSORFLOW:
        raise UnsupportedModelError(f"the function tf.{function}")
    kind, *names = OF_TENSORFLOW[function]
    given = {k: v for k, v in kwargs.items() if v is not None and k != "name"}
    operands = list(args)
    operands += [given.pop(name) for name in names[len(args) :]]
    if given:
        raise UnsupportedModelError(f"argument {', '.join(given)}")
    handler = operations.find(kind)
    assert handler is not None
    return handler(g, *operands)
