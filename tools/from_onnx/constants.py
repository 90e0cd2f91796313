"""Operators that vanish: they only work on what is known during conversion.

Each function is named and signed like its operator. Those registered with `folded` get
arrays instead of tensors.
"""

# ruff: noqa: N802, N803

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.builder import bounded
from striate.tools.from_onnx.registry import OnnxBuilder, folded, onnx_op
from striate.tools.layout import Constant as ConstantTensor
from striate.tools.layout import Tensor

Ints = tuple[int, ...]


@onnx_op("Constant")
def Constant(
    g: OnnxBuilder,
    *,
    value: Array | None = None,
    value_float: float | None = None,
    value_floats: tuple[float, ...] | None = None,
    value_int: int | None = None,
    value_ints: Ints | None = None,
) -> Tensor:
    """Return the value of the attribute."""
    for number, dtype in (
        (value_float, np.float32),
        (value_floats, np.float32),
        (value_int, np.int64),
        (value_ints, np.int64),
    ):
        if number is not None:
            return g.constant(np.asarray(number, dtype))
    if value is None:
        raise UnsupportedModelError("it has no value")
    return g.constant(value)


@onnx_op("Shape")
def Shape(
    g: OnnxBuilder, data: Tensor, *, start: int = 0, end: int | None = None
) -> Tensor:
    """Return the sizes, as far as they are open under each binding."""
    shape = data.shape[start:end]
    return ConstantTensor(
        tuple(np.array([d[b] for d in shape], np.int64) for b in range(g.bindings))
    )


@onnx_op("Size")
def Size(g: OnnxBuilder, data: Tensor) -> Tensor:
    """Return the number of elements."""
    return ConstantTensor(tuple(np.array(n, np.int64) for n in g.product(data.shape)))


@onnx_op("If")
def If(g: OnnxBuilder, cond: Tensor, *, then_branch: Any, else_branch: Any) -> Any:
    """Convert the branch that a constant condition takes."""
    taken = bool(g.array(cond, "its condition").reshape(-1)[0])
    results = g.inline(then_branch if taken else else_branch)
    return results if len(results) > 1 else results[0]


@onnx_op("Loop")
def Loop(g: OnnxBuilder, *inputs: Tensor | None, body: Any) -> Any:
    """Refuse what repeats nodes."""
    raise UnsupportedModelError("it repeats nodes, and a plan has a fixed list of them")


@onnx_op("Scan")
def Scan(
    g: OnnxBuilder,
    *inputs: Tensor | None,
    body: Any,
    num_scan_inputs: int,
    directions: Ints = (),
    scan_input_axes: Ints = (),
    scan_input_directions: Ints = (),
    scan_output_axes: Ints = (),
    scan_output_directions: Ints = (),
) -> Any:
    """Refuse what repeats nodes."""
    return Loop(g, *inputs, body=body)


@folded("BitShift", since=11)
def BitShift(X: Array, Y: Array, *, direction: Any) -> Array:
    """Move bits up (LEFT) or down; those that leave the number are lost."""
    bounded(np.broadcast_shapes(X.shape, Y.shape))
    shift = np.left_shift if direction == "LEFT" else np.right_shift
    return np.asarray(shift(X, Y))


@folded("ConstantOfShape")
def ConstantOfShape(input: Array, *, value: Array | None = None) -> Array:
    """Return one number everywhere."""
    shape = tuple(int(n) for n in input)
    bounded(shape)
    fill = np.zeros(1, np.float32) if value is None else value
    return np.broadcast_to(fill.reshape(-1)[:1], shape or ()).reshape(shape)


@folded("Range")
def Range(start: Array, limit: Array, delta: Array) -> Array:
    """Return numbers at equal distances."""
    first, stop, step = (a.reshape(-1)[0] for a in (start, limit, delta))
    bounded((max(0, math.ceil((float(stop) - float(first)) / float(step))),))
    found: Array = np.arange(first, stop, step).astype(start.dtype)
    return found


@folded("Tile")
def Tile(input: Array, repeats: Array) -> Array:
    """Repeat along each axis."""
    times = [int(n) for n in repeats]
    bounded([a * b for a, b in zip(input.shape, times, strict=True)])
    return np.tile(input, times)


@folded("Where")
def Where(condition: Array, X: Array, Y: Array) -> Array:
    """Choose from two arrays."""
    bounded(np.broadcast_shapes(condition.shape, X.shape, Y.shape))
    return np.where(condition, X, Y)


@folded("Not")
def Not(X: Array) -> Array:
    """Return the opposite."""
    return np.logical_not(X)


def _register_comparison(name: str, function: Callable[..., Any]) -> None:
    @folded(name)
    def comparison(A: Array, B: Array) -> Any:
        bounded(np.broadcast_shapes(A.shape, B.shape))
        return function(A, B)


COMPARISONS: dict[str, Callable[..., Any]] = {
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
}

for _name, _function in COMPARISONS.items():
    _register_comparison(_name, _function)


@folded("Mod")
def Mod(A: Array, B: Array, *, fmod: int = 0) -> Any:
    """Return the remainder, of the sign of B, or of A with `fmod`."""
    bounded(np.broadcast_shapes(A.shape, B.shape))
    return np.fmod(A, B) if fmod else np.mod(A, B)


@folded("NonZero")
def NonZero(X: Array) -> Array:
    """Return the places that are not zero, a column each."""
    return np.stack(np.nonzero(X)).astype(np.int64)


@folded("GatherND", since=11)
def GatherND(data: Array, indices: Array, *, batch_dims: int = 0) -> Array:
    """Take elements by their places."""
    if batch_dims:
        raise UnsupportedModelError(f"batch_dims {batch_dims}")
    bounded([*indices.shape[:-1], *data.shape[indices.shape[-1] :]])
    found: Array = data[tuple(np.moveaxis(indices, -1, 0))]
    return found


def _register_reduction(name: str, function: Callable[..., Any]) -> None:
    @folded(name)
    def reduction_1(data: Array, *, axes: Ints | None = None, keepdims: int = 1) -> Any:
        chosen = None if axes is None else tuple(axes)
        return _applied(function, data, chosen, keepdims)

    @folded(name, since=13 if name == "ReduceSum" else 18)
    def reduction(
        data: Array,
        axes: Array | None = None,
        *,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Any:
        chosen = () if axes is None else tuple(int(n) for n in axes)
        if not chosen and noop_with_empty_axes:
            return data
        return _applied(function, data, chosen or None, keepdims)


def _applied(
    function: Callable[..., Any], data: Array, axes: Ints | None, keepdims: int
) -> Any:
    """Return the reduction, computed in no less than float64, in the type of `data`."""
    exact = data.astype(np.float64) if data.dtype.kind == "f" else data
    return function(exact, axis=axes, keepdims=bool(keepdims)).astype(data.dtype)


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Return the least and the greatest number of an element type."""
    if dtype.kind == "f":
        return -np.inf, np.inf
    if dtype.kind == "b":
        return False, True
    return np.iinfo(dtype).min, np.iinfo(dtype).max


def _logarithm(array: Any) -> Any:
    with np.errstate(divide="ignore"):
        return np.log(array)


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceSum": np.sum,
    "ReduceProd": np.prod,
    "ReduceMax": lambda x, **how: np.max(x, initial=_limits(x.dtype)[0], **how),
    "ReduceMin": lambda x, **how: np.min(x, initial=_limits(x.dtype)[1], **how),
    "ReduceL1": lambda x, **how: np.abs(x).sum(**how),
    "ReduceL2": lambda x, **how: np.sqrt(np.square(x).sum(**how)),
    "ReduceSumSquare": lambda x, **how: np.square(x).sum(**how),
    "ReduceLogSum": lambda x, **how: _logarithm(x.sum(**how)),
    "ReduceLogSumExp": lambda x, **how: _logarithm(np.exp(x).sum(**how)),
}
"""What computes each of constants; of none at all too."""

for _name, _function in REDUCTIONS.items():
    _register_reduction(_name, _function)
