"""Layers around other layers.

Each function is named and signed like its layer, but gets the layers inside as
functions of tensors.
"""

# ruff: noqa: N802

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.tools.from_keras.recurrent import reversed_in_time
from striate.tools.from_keras.registry import KerasBuilder, keras_wrapper
from striate.tools.layout import Tensor

Inner = Callable[[Tensor], Any]


@keras_wrapper("TimeDistributed")
def TimeDistributed(g: KerasBuilder, x: Tensor, inner: Inner, *, layer: Any) -> Tensor:
    """Apply a layer to every time step, as if they were pictures of one batch."""
    batch, times, *rest = x.shape
    pictures = tuple(math.prod(pair) for pair in zip(batch, times, strict=True))
    y = inner(g.reshape(x, (pictures, *rest)))
    if isinstance(y, tuple):
        raise UnsupportedModelError("its layer has several outputs")
    return g.reshape(y, (batch, times, *y.shape[1:]))


@keras_wrapper("Bidirectional")
def Bidirectional(
    g: KerasBuilder,
    x: Tensor,
    forwards: Inner,
    backwards: Inner,
    *,
    layer: Any,
    backward_layer: Any = None,
    merge_mode: str | None = None,
) -> Any:
    """Walk in both directions and join the results; without a mode they stay two."""
    first, *states = _several(forwards(x))
    second, *others = _several(backwards(x))
    if layer["config"].get("return_sequences"):
        second = reversed_in_time(g, second)
    rest = (*states, *others)
    if merge_mode is None:
        return (first, second, *rest)
    joined = _joined(g, first, second, merge_mode)
    return (joined, *rest) if rest else joined


def _several(results: Any) -> tuple[Tensor, ...]:
    return results if isinstance(results, tuple) else (results,)


def _joined(g: KerasBuilder, x: Tensor, y: Tensor, merge_mode: str) -> Tensor:
    if merge_mode == "concat":
        return g.apply(ops.Concat(-1), x, y)
    if merge_mode == "mul":
        return g.combine(ops.Mul(), x, y)
    if merge_mode not in ("sum", "ave"):
        raise UnsupportedModelError(f"merge_mode {merge_mode!r}")
    total = g.combine(ops.Add(), x, y)
    if merge_mode == "sum":
        return total
    return g.elementwise(ops.Mul(), total, y=np.array([0.5], np.float32))
