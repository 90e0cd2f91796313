"""Layers that walk along sequences.

Each function is named and signed like its operator.
"""

# ruff: noqa: N802, N803

from __future__ import annotations

from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.tools.from_onnx.registry import OnnxBuilder, onnx_op
from striate.tools.layout import Tensor, Value

Floats = tuple[float, ...]
Names = tuple[str, ...]


def settings(
    g: OnnxBuilder,
    R: Tensor,
    direction: str,
    activations: Names,
    alphas: Floats,
    betas: Floats,
    clip: float,
    layout: int,
) -> dict[str, Any]:
    """Return the fields that all recurrent operators have."""
    return {
        "hidden_size": g.array(R, "its weights").shape[-1],
        "direction": direction,
        "activations": tuple(activations),
        "alphas": tuple(alphas),
        "betas": tuple(betas),
        "clip": clip,
        "batch_first": bool(layout),
    }


def walked(
    g: OnnxBuilder,
    op: Any,
    weights: tuple[Tensor, Tensor, Tensor],
    left_out: dict[int, int],
    rest: list[Tensor | None],
    outputs: int,
) -> tuple[Tensor, ...]:
    """Apply a recurrent operator, with zeros for what a computed operand follows.

    Parameters
    ----------
    weights : tuple of Tensor
        x, w and r.
    left_out : dict
        The size of the zeros for each place in `rest`: of a direction if it is
        negative, of a state if not.
    rest : list
        The other operands in order.
    """
    directions = 2 if op.direction == "bidirectional" else 1
    last = max((i for i, t in enumerate(rest) if isinstance(t, Value)), default=-1)
    for place in range(last):
        if rest[place] is None and place in left_out:
            size = left_out[place]
            shape = (directions, -size) if size < 0 else (directions, 1, size)
            if size >= 0 and op.batch_first:
                shape = (1, directions, size)
            rest[place] = g.constant(np.zeros(shape, np.float32))
    g.one_picture_at_a_time(weights[0], (1 if op.batch_first else 0, 2))
    return g.operate_split(op, *weights, *rest, outputs=outputs)


@onnx_op("LSTM", since=7)
def LSTM(
    g: OnnxBuilder,
    X: Tensor,
    W: Tensor,
    R: Tensor,
    B: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    P: Tensor | None = None,
    *,
    activation_alpha: Floats = (),
    activation_beta: Floats = (),
    activations: Names = (),
    clip: float = 0.0,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> Any:
    """Walk along sequences with long short-term memory."""
    if clip:
        raise UnsupportedModelError(
            f"clip {clip}: whether the memory's activation is clipped is not agreed"
        )
    fields = settings(
        g, R, direction, activations, activation_alpha, activation_beta, clip, layout
    )
    op = ops.LSTM(**fields, input_forget=bool(input_forget))
    n = op.hidden_size
    zeros = {0: -8 * n, 1: -3 * n, 2: n, 3: n}
    rest = [B, P, initial_h, initial_c, sequence_lens]
    return walked(g, op, (X, W, R), zeros, rest, 3)


@onnx_op("GRU", since=7)
def GRU(
    g: OnnxBuilder,
    X: Tensor,
    W: Tensor,
    R: Tensor,
    B: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: Floats = (),
    activation_beta: Floats = (),
    activations: Names = (),
    clip: float = 0.0,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> Any:
    """Walk along sequences with gated recurrent units."""
    fields = settings(
        g, R, direction, activations, activation_alpha, activation_beta, clip, layout
    )
    op = ops.GRU(**fields, linear_before_reset=bool(linear_before_reset))
    zeros = {0: -6 * op.hidden_size, 1: op.hidden_size}
    return walked(g, op, (X, W, R), zeros, [B, initial_h, sequence_lens], 2)


@onnx_op("RNN", since=7)
def RNN(
    g: OnnxBuilder,
    X: Tensor,
    W: Tensor,
    R: Tensor,
    B: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: Floats = (),
    activation_beta: Floats = (),
    activations: Names = (),
    clip: float = 0.0,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> Any:
    """Walk along sequences with a state that is one activation of both products."""
    fields = settings(
        g, R, direction, activations, activation_alpha, activation_beta, clip, layout
    )
    op = ops.RNN(**fields)
    zeros = {0: -2 * op.hidden_size, 1: op.hidden_size}
    return walked(g, op, (X, W, R), zeros, [B, initial_h, sequence_lens], 2)
