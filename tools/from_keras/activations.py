"""Activations, as layers and by name.

Each function is named and signed like its layer.
"""

# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.conversion import call
from striate.tools.from_keras.registry import (
    KerasBuilder,
    keras_layer,
    layers,
    weights_of,
)
from striate.tools.from_onnx.axes import cut
from striate.tools.layout import Tensor, inverse

Meaning = Callable[[KerasBuilder, Tensor], Tensor]

SIMPLE: dict[str, ops.Op] = {
    "relu": ops.Relu(),
    "relu6": ops.Clip(0.0, 6.0),
    "leaky_relu": ops.LeakyRelu(0.2),
    "elu": ops.Elu(1.0),
    "selu": ops.Selu(),
    "celu": ops.Celu(1.0),
    "softplus": ops.Softplus(),
    "softsign": ops.Softsign(),
    "soft_shrink": ops.Shrink(0.5, 0.5),
    "hard_shrink": ops.Shrink(0.0, 0.5),
    "hard_tanh": ops.Clip(-1.0, 1.0),
    "tanh": ops.Tanh(),
    "sigmoid": ops.Sigmoid(),
    "sparse_sigmoid": ops.HardSigmoid(0.5, 0.5),
    "exponential": ops.Exp(),
    "silu": ops.Silu(),
    "swish": ops.Silu(),
    "hard_silu": ops.HardSwish(),
    "hard_swish": ops.HardSwish(),
    "gelu": ops.Gelu("none"),
    "mish": ops.Mish(),
}
"""Activations that are one operator."""

HARD_SIGMOID = ops.HardSigmoid(1 / 6, 0.5)

OLD_HARD_SIGMOID = ops.HardSigmoid(0.2, 0.5)
"""What Keras 2 called by that name."""


def squareplus(g: KerasBuilder, x: Tensor) -> Tensor:
    """Return ``(x + sqrt(x^2 + 4)) / 2``."""
    square = g.elementwise(ops.Add(), g.combine(ops.Mul(), x, x), y=_number(4.0))
    total = g.combine(ops.Add(), x, g.elementwise(ops.Sqrt(), square))
    return g.elementwise(ops.Mul(), total, y=_number(0.5))


def sparse_plus(g: KerasBuilder, x: Tensor) -> Tensor:
    """Return 0 up to -1, a parabola to 1, x from there on."""
    inner = g.elementwise(ops.Clip(-1.0, 1.0), x)
    risen = g.elementwise(ops.Add(), inner, y=_number(1.0))
    parabola = g.elementwise(
        ops.Mul(), g.combine(ops.Mul(), risen, risen), y=_number(0.25)
    )
    beyond = g.elementwise(ops.Relu(), g.elementwise(ops.Add(), x, y=_number(-1.0)))
    return g.combine(ops.Add(), parabola, beyond)


def tanh_shrink(g: KerasBuilder, x: Tensor) -> Tensor:
    """Return ``x - tanh(x)``."""
    return g.combine(ops.Sub(), x, g.elementwise(ops.Tanh(), x))


def log_sigmoid(g: KerasBuilder, x: Tensor) -> Tensor:
    """Return ``-softplus(-x)``."""
    negative = g.elementwise(ops.Neg(), x)
    return g.elementwise(ops.Neg(), g.elementwise(ops.Softplus(), negative))


def glu(g: KerasBuilder, x: Tensor, axis: int = -1) -> Tensor:
    """Return the first half of the channels times the sigmoid of the second."""
    axis = g.axis(axis, x.rank)
    half = g.fixed(x.shape[axis], "its number of channels") // 2
    value, gate = cut(g, x, axis, (half, half))
    return g.combine(ops.Mul(), value, g.elementwise(ops.Sigmoid(), gate))


COMPOSED: dict[str, Meaning] = {
    "squareplus": squareplus,
    "sparse_plus": sparse_plus,
    "tanh_shrink": tanh_shrink,
    "log_sigmoid": log_sigmoid,
    "glu": glu,
    "softmax": lambda g, x: along(g, ops.Softmax, x, -1),
    "log_softmax": lambda g, x: along(g, ops.LogSoftmax, x, -1),
}
"""Activations that are several operators, or care which axis is the last."""


def _number(number: float) -> Array:
    return np.array([number], np.float32)


def along(g: KerasBuilder, kind: Callable[..., ops.Op], x: Tensor, axis: int) -> Tensor:
    """Return an operator of that kind along an axis, in the order the axes lie."""
    axis = g.axis(axis, x.rank)
    order = g.order(x)
    return g.apply(kind(order.index(axis)), x.transpose(order)).transpose(
        inverse(order)
    )


def activated(g: KerasBuilder, x: Tensor, activation: Any) -> Tensor:
    """Return `x` under an activation as a layer's setting writes it.

    Parameters
    ----------
    activation : str or dict or None
        Its name, or the description of a function or of a layer.
    """
    if activation is None:
        return x
    if isinstance(activation, Mapping):
        return _described(g, x, activation)
    name = str(activation)
    if name == "linear":
        return x
    if name == "hard_sigmoid":
        if g.old:
            g.note("hard_sigmoid is Keras 2's, 0.2 x + 0.5; Keras 3 has another")
        return g.elementwise(OLD_HARD_SIGMOID if g.old else HARD_SIGMOID, x)
    if name in SIMPLE:
        return g.elementwise(SIMPLE[name], x)
    if name in COMPOSED:
        return COMPOSED[name](g, x)
    raise UnsupportedModelError(f"activation {name!r}")


def _described(g: KerasBuilder, x: Tensor, activation: Mapping[str, Any]) -> Tensor:
    kind = str(activation.get("class_name"))
    settings = activation.get("config")
    registered = str(activation.get("registered_name") or "")
    if kind == "function" and registered in ("function", "None", ""):
        return activated(g, x, str(settings))
    if kind == "function" or not isinstance(settings, Mapping):
        raise UnsupportedModelError(f"activation {registered or kind}, code of its own")
    handler = layers.find(kind)
    if handler is None or any(weights_of(kind).names(settings)) or ">" in registered:
        raise UnsupportedModelError(f"activation {registered or kind}")
    return activation_layer(g, x, kind, settings)


def activation_layer(
    g: KerasBuilder, x: Tensor, kind: str, settings: Mapping[str, Any]
) -> Tensor:
    """Return `x` under a layer without weights."""
    handler = layers.find(kind)
    assert handler is not None
    found: Tensor = call(handler, g, [x], meaningful(settings))
    return found


def meaningful(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that say what a layer computes, without those left out."""
    return {
        name: value
        for name, value in settings.items()
        if value is not None
        and name not in MEANINGLESS
        and not name.endswith(("_initializer", "_regularizer", "_constraint"))
    }


MEANINGLESS = frozenset(
    (
        "name",
        "trainable",
        "dtype",
        "batch_shape",
        "batch_input_shape",
        "batch_size",
        "input_dtype",
        "autocast",
        "seed",
        "unit_forget_bias",
        "sparse",
        "ragged",
        "optional",
    )
)
"""Settings of training, of storage, or of no layer in particular."""


@keras_layer("Activation")
def Activation(g: KerasBuilder, x: Tensor, *, activation: Any = "linear") -> Tensor:
    """Apply an activation by name."""
    return activated(g, x, activation)


@keras_layer("ReLU")
def ReLU(
    g: KerasBuilder,
    x: Tensor,
    *,
    max_value: float | None = None,
    negative_slope: Any = 0.0,
    threshold: Any = 0.0,
) -> Tensor:
    """Keep what is above a threshold, up to a maximum; tilt what is below."""
    slope = float(g.numbers_of(negative_slope))
    start = float(g.numbers_of(threshold))
    highest = None if max_value is None else float(g.numbers_of(max_value))
    if start == 0 and slope == 0:
        op = ops.Relu() if highest is None else ops.Clip(0.0, highest)
        return g.elementwise(op, x)
    if start == 0 and highest is None:
        return g.elementwise(ops.LeakyRelu(slope), x)
    y = x if start == 0 else g.elementwise(ops.ThresholdedRelu(start), x)
    if highest is not None or start == 0:
        y = g.elementwise(
            ops.Clip(0.0, float("inf") if highest is None else highest), y
        )
    if slope == 0:
        return y
    below = g.elementwise(ops.Neg(), x)
    if start:
        below = g.elementwise(ops.Add(), below, y=_number(start))
    below = g.elementwise(ops.Mul(), g.elementwise(ops.Relu(), below), y=_number(slope))
    return g.combine(ops.Sub(), y, below)


@keras_layer("ThresholdedReLU")
def ThresholdedReLU(g: KerasBuilder, x: Tensor, *, theta: Any = 1.0) -> Tensor:
    """Keep what is above a threshold."""
    return g.elementwise(ops.ThresholdedRelu(float(g.numbers_of(theta))), x)


@keras_layer("LeakyReLU")
def LeakyReLU(
    g: KerasBuilder, x: Tensor, *, negative_slope: Any = 0.3, alpha: Any = None
) -> Tensor:
    """Tilt what is negative; Keras 2 calls the slope alpha."""
    slope = negative_slope if alpha is None else alpha
    return g.elementwise(ops.LeakyRelu(float(g.numbers_of(slope))), x)


@keras_layer("ELU")
def ELU(g: KerasBuilder, x: Tensor, *, alpha: Any = 1.0) -> Tensor:
    """Bend what is negative."""
    return g.elementwise(ops.Elu(float(g.numbers_of(alpha))), x)


@keras_layer("PReLU", weights=("alpha",))
def PReLU(
    g: KerasBuilder, x: Tensor, *, alpha: Array, shared_axes: Any = None
) -> Tensor:
    """Tilt what is negative by slopes that are learned; shared ones have size one."""
    return g.elementwise(ops.PRelu(), x, slope=alpha)


@keras_layer("Softmax")
def Softmax(g: KerasBuilder, x: Tensor, *, axis: Any = -1) -> Tensor:
    """Make numbers that add up to one along an axis, or over several."""
    axes = [axis] if isinstance(axis, int) else list(axis)
    if len(axes) == 1:
        return along(g, ops.Softmax, x, axes[0])
    axes = sorted(g.axis(a, x.rank) for a in axes)
    rest = [a for a in range(x.rank) if a not in axes]
    order = (*rest, *axes)
    y = x.transpose(order)
    size = g.product(y.shape[len(rest) :])
    joined = g.reshape(y, (*y.shape[: len(rest)], size))
    done = g.apply(ops.Softmax(-1), joined)
    return g.reshape(done, y.shape).transpose(inverse(order))
