"""Layers that walk along sequences.

Each function is named and signed like its operator.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from striate.errors import UnsupportedModelError
from striate.tools.from_onnx import axes, recurrent
from striate.tools.from_torch.registry import TorchBuilder, aten_op
from striate.tools.layout import Constant, Tensor


def _register_layer(
    name: str,
    onnx: Callable[..., Any],
    gates: tuple[int, ...],
    activation: str = "",
    **attributes: int,
) -> None:
    """Register a layer of PyTorch as one of ONNX with an activation and attributes.

    `gates` says where ONNX's gates are among PyTorch's.
    """

    @aten_op(f"{name}.input")
    def layer(
        g: TorchBuilder,
        input: Tensor,
        hx: Any,
        params: list[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Tensor, ...]:
        if train and dropout:
            raise UnsupportedModelError("it is for training")
        if input.rank != 3:
            raise UnsupportedModelError(f"its input has rank {input.rank}, wanted 3")
        directions = 2 if bidirectional else 1
        each = directions * (4 if has_biases else 2)
        if len(params) != num_layers * each:
            raise UnsupportedModelError("its states are projected")
        walk = partial(
            onnx,
            g,
            direction="bidirectional" if bidirectional else "forward",
            activations=(activation,) * directions if activation else (),
            layout=int(batch_first),
            **attributes,
        )
        weights = [
            _weights(g, params[first : first + each], directions, gates)
            for first in range(0, len(params), each)
        ]
        states = [hx] if isinstance(hx, Tensor) else hx
        return walked(g, walk, input, weights, states, directions, batch_first)


# ONNX's gates are i, o, f, c and z, r, h; PyTorch's i, f, g, o and r, z, n.
_register_layer("lstm", recurrent.LSTM, (0, 3, 1, 2))
_register_layer("gru", recurrent.GRU, (1, 0, 2), linear_before_reset=1)
_register_layer("rnn_tanh", recurrent.RNN, (0,), "Tanh")
_register_layer("rnn_relu", recurrent.RNN, (0,), "Relu")


def walked(
    g: TorchBuilder,
    walk: Callable[..., Any],
    x: Tensor,
    weights: list[tuple[Tensor, Tensor, Tensor | None]],
    states: list[Tensor],
    directions: int,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """Return the sequence after all layers, and the last states of all layers.

    Parameters
    ----------
    walk : callable
        The layer of ONNX.
    weights : list of tuple
        For each layer the matrices of input and state, and the biases.
    states : list of Tensor
        The first states, (layers and directions, batch, hidden).
    batch_first : bool
        Whether batches come before time.
    """
    last: list[list[Tensor]] = [[] for _ in states]
    for layer, (w, r, b) in enumerate(weights):
        first = layer * directions
        begin = [_first(g, state, first, directions, batch_first) for state in states]
        y, *ends = walk(x, w, r, b, None, *begin)
        if not batch_first:
            y = y.transpose((0, 2, 1, 3))
        width = tuple(n * directions for n in y.shape[-1])
        x = g.reshape(y, (*y.shape[:2], width))
        for kept, end in zip(last, ends, strict=True):
            kept.append(end.transpose((1, 0, 2)) if batch_first else end)
    return (x, *(h[0] if len(h) == 1 else axes.Concat(g, *h, axis=0) for h in last))


def _weights(
    g: TorchBuilder, params: list[Tensor], directions: int, gates: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the weights of one layer as ONNX orders them, its directions stacked."""
    arrays = [g.array(p, "its weights") for p in params]

    def ordered(array: Any) -> Any:
        parts = np.split(array, len(gates))
        return np.concatenate([parts[gate] for gate in gates])

    found = [ordered(array) for array in arrays]
    each = len(found) // directions
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
