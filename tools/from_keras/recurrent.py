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
from striate.tools.from_onnx.axes import FAR, sliced
from striate.tools.from_onnx.recurrent import walked
from striate.tools.layout import Tensor

RECURRENT = ("kernel", "recurrent_kernel", "bias if use_bias")

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


Weights = tuple[Array, Array, Array | None]


def walk(
    g: KerasBuilder,
    kind: Any,
    x: Tensor,
    weights: Weights,
    order: tuple[int, ...],
    activations: tuple[Any, ...],
    wanted: tuple[bool, bool, bool],
    **fields: Any,
) -> Any:
    """Return what a recurrent layer gives for sequences (N, time, features).

    Parameters
    ----------
    weights : tuple of Array
        The kernels of input and state, and the bias.
    order : tuple of int
        For each gate of the runtime's, which one of Keras's it is.
    activations : tuple
        Keras's names of the activations, in the runtime's order.
    wanted : tuple of bool
        ``return_sequences``, ``return_state`` and ``go_backwards``.
    **fields
        What else the runtime's operator is told.
    """
    kernel, recurrent_kernel, bias = weights
    sequences, state, backwards = wanted
    found = [_function(g, name) for name in activations]
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
    w, r = (g.constant(gates(k, order).T[None]) for k in (kernel, recurrent_kernel))
    outputs = 3 if kind is ops.LSTM else 2
    rest: list[Tensor | None] = [g.constant(rows.reshape(1, -1))]
    y, *states = walked(g, op, (x, w, r), {}, rest, outputs)
    states = [g.reshape(s, (s.shape[0], s.shape[2])) for s in states]
    result = states[0]
    if sequences:
        result = g.reshape(y, (y.shape[0], y.shape[1], y.shape[3]))
        result = reversed_in_time(g, result) if backwards else result
    return (result, *states) if state else result


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
    activation: Any = "tanh",
    recurrent_activation: Any = "sigmoid",
    return_sequences: bool = False,
    return_state: bool = False,
    go_backwards: bool = False,
) -> Any:
    """Walk with long short-term memory; the gates lie in the order i, f, c, o."""
    weights = (kernel, recurrent_kernel, bias)
    functions = (recurrent_activation, activation, activation)
    wanted = (return_sequences, return_state, go_backwards)
    return walk(g, ops.LSTM, x, weights, (0, 3, 1, 2), functions, wanted)


@keras_layer("GRU", weights=RECURRENT)
def GRU(
    g: KerasBuilder,
    x: Tensor,
    *,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    activation: Any = "tanh",
    recurrent_activation: Any = "sigmoid",
    reset_after: bool | None = None,
    return_sequences: bool = False,
    return_state: bool = False,
    go_backwards: bool = False,
) -> Any:
    """Walk with gated recurrent units, the state reset before or after the product."""
    later = not g.old if reset_after is None else reset_after
    weights = (kernel, recurrent_kernel, bias)
    functions = (recurrent_activation, activation)
    wanted = (return_sequences, return_state, go_backwards)
    return walk(
        *(g, ops.GRU, x, weights, (0, 1, 2), functions, wanted),
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
    activation: Any = "tanh",
    return_sequences: bool = False,
    return_state: bool = False,
    go_backwards: bool = False,
) -> Any:
    """Walk with a state that is one activation of both products."""
    weights = (kernel, recurrent_kernel, bias)
    wanted = (return_sequences, return_state, go_backwards)
    return walk(g, ops.RNN, x, weights, (0,), (activation,), wanted)
