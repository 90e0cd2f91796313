"""Layers that walk along sequences.

Each function is named and signed like its operator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from striate.errors import UnsupportedModelError
from striate.tools.from_onnx import axes, recurrent
from striate.tools.from_torch.registry import TorchBuilder, aten_op
from striate.tools.layout import Constant, Tensor

LSTM_GATES = (0, 3, 1, 2)
"""Where ONNX's gates i, o, f, c are among PyTorch's i, f, g, o."""

GRU_GATES = (1, 0, 2)
"""Where ONNX's gates z, r, h are among PyTorch's r, z, n."""


@aten_op("lstm.input")
def lstm(
    g: TorchBuilder,
    input: Tensor,
    hx: list[Tensor],
    params: list[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    """Walk along sequences with long short-term memory."""
    return walked(
        g,
        recurrent.LSTM,
        LSTM_GATES,
        input,
        hx,
        params,
        (has_biases, num_layers, bidirectional, batch_first, train and dropout),
    )


@aten_op("gru.input")
def gru(
    g: TorchBuilder,
    input: Tensor,
    hx: Tensor,
    params: list[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    """Walk along sequences with gated recurrent units."""
    return walked(
        g,
        recurrent.GRU,
        GRU_GATES,
        input,
        [hx],
        params,
        (has_biases, num_layers, bidirectional, batch_first, train and dropout),
        linear_before_reset=1,
    )


def _register_rnn(name: str, activation: str) -> None:
    @aten_op(f"{name}.input")
    def rnn(
        g: TorchBuilder,
        input: Tensor,
        hx: Tensor,
        params: list[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        return walked(
            g,
            recurrent.RNN,
            (0,),
            input,
            [hx],
            params,
            (has_biases, num_layers, bidirectional, batch_first, train and dropout),
            activations=(activation,) * (1 + bidirectional),
        )


_register_rnn("rnn_tanh", "Tanh")
_register_rnn("rnn_relu", "Relu")


def walked(
    g: TorchBuilder,
    onnx: Callable[..., Any],
    gates: tuple[int, ...],
    x: Tensor,
    states: list[Tensor],
    params: list[Tensor],
    settings: tuple[bool, int, bool, bool, Any],
    **more: Any,
) -> tuple[Tensor, ...]:
    """Return the sequence after all layers, and the last states of all layers.

    Parameters
    ----------
    onnx : callable
        The layer of ONNX.
    gates : tuple of int
        Where its gates are among PyTorch's.
    states : list of Tensor
        The first states, (layers and directions, batch, hidden).
    params : list of Tensor
        For each layer and direction the matrices of input and state, and two biases.
    settings : tuple
        Whether there are biases, how many layers, whether they walk both ways, whether
        batches come before time, and whether something is dropped.
    """
    biases, layers, both, batch_first, dropping = settings
    directions, each = 1 + both, 4 if biases else 2
    if dropping:
        raise UnsupportedModelError("it is for training")
    if len(params) != layers * directions * each:
        raise UnsupportedModelError("its states are projected")
    if x.rank != 3:
        raise UnsupportedModelError(f"its input has rank {x.rank}, wanted 3")
    last: list[list[Tensor]] = [[] for _ in states]
    for layer in range(layers):
        first = layer * directions
        given = params[first * each : (first + directions) * each]
        w, r, b = _weights(g, given, each, gates)
        begin = [_first(g, state, first, directions, batch_first) for state in states]
        y, *ends = onnx(
            g,
            x,
            w,
            r,
            b,
            None,
            *begin,
            direction="bidirectional" if both else "forward",
            layout=int(batch_first),
            **more,
        )
        if not batch_first:
            y = y.transpose((0, 2, 1, 3))
        width = tuple(n * directions for n in y.shape[-1])
        x = g.reshape(y, (*y.shape[:2], width))
        for kept, end in zip(last, ends, strict=True):
            kept.append(end.transpose((1, 0, 2)) if batch_first else end)
    return (x, *(h[0] if len(h) == 1 else axes.Concat(g, *h, axis=0) for h in last))


def _weights(
    g: TorchBuilder, params: list[Tensor], each: int, gates: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the weights of one layer as ONNX orders them, its directions stacked."""
    arrays = [g.array(p, "its weights") for p in params]

    def ordered(array: Any) -> Any:
        parts = np.split(array, len(gates))
        return np.concatenate([parts[gate] for gate in gates])

    found = [ordered(array) for array in arrays]
    w, r = (g.constant(np.stack(found[i::each])) for i in (0, 1))
    if each == 2:
        return w, r, None
    pairs = [np.concatenate(p) for p in zip(found[2::4], found[3::4], strict=True)]
    return w, r, g.constant(np.stack(pairs))


def _first(
    g: TorchBuilder, state: Tensor, first: int, directions: int, batch_first: bool
) -> Tensor | None:
    """Return the first state of a layer, None for zeros."""
    if isinstance(state, Constant) and not any(a.any() for a in state.arrays):
        return None
    part = axes.sliced(g, state, (first,), (first + directions,), (0,), None)
    return part.transpose((1, 0, 2)) if batch_first else part
