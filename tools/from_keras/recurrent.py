"""Layers that walk along sequences.

Each function is named and signed like its layer.
"""

# ruff: noqa: N802

from __future__ import annotations

from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.from_keras.registry import KerasBuilder, keras_layer
from striate.tools.from_onnx.axes import sliced
from striate.tools.from_onnx.recurrent import walked
from striate.tools.layout import Tensor

RECURRENT = ("kernel", "recurrent_kernel", "bias if use_bias")

FAR = 1 << 31

FUNCTIONS = {
    "tanh": ("Tanh", 0.0, 0.0),
    "sigmoid": ("Sigmoid", 0.0, 0.0),
    "relu": ("Relu", 0.0, 0.0),
    "softsign": ("Softsign", 0.0, 0.0),
    "softplus": ("Softplus", 0.0, 0.0),
    "elu": ("Elu", 1.0, 0.0),
    "linear": ("LeakyRelu", 1.0, 0.0),
    "hard_sigmoid": ("HardSigmoid", 1 / 6, 0.5),
}
"""For each activation the runtime's name of it, and its numbers."""

OLD_HARD_SIGMOID = ("HardSigmoid", 0.2, 0.5)


def gates(weight: Array, order: tuple[int, ...]) -> Array:
    """Return the gates along the last axis in another order, on axis -2."""
    parts = np.split(weight, len(order), axis=-1)
    return np.concatenate([parts[i] for i in order], axis=-1)


def walk(
    g: KerasBuilder,
    kind: Any,
    x: Tensor,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None,
    order: tuple[int, ...],
    activations: tuple[Any, ...],
    settings: dict[str, Any],
    **fields: Any,
) -> Any:
    """Return what a recurrent layer gives for sequences (N, time, features).

    Parameters
    ----------
    order : tuple of int
        For each gate of the runtime's, which one of Keras's it is.
    activations : tuple
        Keras's names of the activations, in the runtime's order.
    settings : dict
        ``return_sequences``, ``return_state``, ``go_backwards`` and what must not be.
    """
    if settings.get("stateful"):
        raise UnsupportedModelError("stateful: it remembers from run to run")
    found = [_function(g, name) for name in activations]
    backwards = bool(settings.get("go_backwards"))
    units = recurrent_kernel.shape[0]
    op = kind(
        hidden_size=units,
        direction="reverse" if backwards else "forward",
        activations=tuple(name for name, _, _ in found),
        alphas=tuple(alpha for _, alpha, _ in found),
        betas=tuple(beta for _, _, beta in found),
        batch_first=True,
        **fields,
    )
    rows = np.zeros((2, len(order) * units), np.float32)
    if bias is not None:
        rows[: len(np.atleast_2d(bias))] = gates(np.atleast_2d(bias), order)
    weights = (
        x,
        g.constant(gates(kernel, order).T[None]),
        g.constant(gates(recurrent_kernel, order).T[None]),
    )
    outputs = 3 if kind is ops.LSTM else 2
    rest: list[Tensor | None] = [g.constant(rows.reshape(1, -1))]
    y, *states = walked(g, op, weights, {}, rest, outputs)
    states = [g.reshape(s, (s.shape[0], s.shape[2])) for s in states]
    result = states[0]
    if settings.get("return_sequences"):
        result = g.reshape(y, (y.shape[0], y.shape[1], y.shape[3]))
        result = reversed_in_time(g, result) if backwards else result
    return (result, *states) if settings.get("return_state") else result


def reversed_in_time(g: KerasBuilder, x: Tensor) -> Tensor:
    """Return sequences from their end to their start."""
    return sliced(g, x, (-1,), (-FAR,), (1,), (-1,))


def _function(g: KerasBuilder, name: Any) -> tuple[str, float, float]:
    if name == "hard_sigmoid" and g.old:
        return OLD_HARD_SIGMOID
    if name not in FUNCTIONS:
        raise UnsupportedModelError(f"activation {name!r} inside")
    return FUNCTIONS[name]


@keras_layer("LSTM", weights=RECURRENT)
def LSTM(
    g: KerasBuilder,
    x: Tensor,
    *,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    units: int = 0,
    activation: Any = "tanh",
    recurrent_activation: Any = "sigmoid",
    use_bias: bool = True,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    implementation: int = 2,
    return_sequences: bool = False,
    return_state: bool = False,
    go_backwards: bool = False,
    stateful: bool = False,
    unroll: bool = False,
    time_major: bool = False,
    zero_output_for_mask: bool = False,
    use_cudnn: Any = "auto",
) -> Any:
    """Walk with long short-term memory; the gates lie in the order i, f, c, o."""
    settings = {
        "return_sequences": return_sequences,
        "return_state": return_state,
        "go_backwards": go_backwards,
        "stateful": stateful,
    }
    activations = (recurrent_activation, activation, activation)
    order = (0, 3, 1, 2)
    return walk(
        g, ops.LSTM, x, kernel, recurrent_kernel, bias, order, activations, settings
    )


@keras_layer("GRU", weights=RECURRENT)
def GRU(
    g: KerasBuilder,
    x: Tensor,
    *,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    units: int = 0,
    activation: Any = "tanh",
    recurrent_activation: Any = "sigmoid",
    use_bias: bool = True,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    implementation: int = 2,
    reset_after: bool | None = None,
    return_sequences: bool = False,
    return_state: bool = False,
    go_backwards: bool = False,
    stateful: bool = False,
    unroll: bool = False,
    time_major: bool = False,
    zero_output_for_mask: bool = False,
    use_cudnn: Any = "auto",
) -> Any:
    """Walk with gated recurrent units, the state reset before or after the product."""
    later = not g.old if reset_after is None else reset_after
    settings = {
        "return_sequences": return_sequences,
        "return_state": return_state,
        "go_backwards": go_backwards,
        "stateful": stateful,
    }
    return walk(
        g,
        ops.GRU,
        x,
        kernel,
        recurrent_kernel,
        bias,
        (0, 1, 2),
        (recurrent_activation, activation),
        settings,
        linear_before_reset=later,
    )


@keras_layer("SimpleRNN", weights=RECURRENT)
def SimpleRNN(
    g: KerasBuilder,
    x: Tensor,
    *,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    units: int = 0,
    activation: Any = "tanh",
    use_bias: bool = True,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    implementation: int = 2,
    return_sequences: bool = False,
    return_state: bool = False,
    go_backwards: bool = False,
    stateful: bool = False,
    unroll: bool = False,
    time_major: bool = False,
    zero_output_for_mask: bool = False,
) -> Any:
    """Walk with a state that is one activation of both products."""
    settings = {
        "return_sequences": return_sequences,
        "return_state": return_state,
        "go_backwards": go_backwards,
        "stateful": stateful,
    }
    return walk(
        g, ops.RNN, x, kernel, recurrent_kernel, bias, (0,), (activation,), settings
    )
