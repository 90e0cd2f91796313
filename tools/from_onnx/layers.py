"""Operators with weights or sliding windows.

Each function is named and signed like its operator.
"""

# ruff: noqa: N802, N803

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.builder import bounded
from striate.tools.from_onnx.axes import mean
from striate.tools.from_onnx.registry import OnnxBuilder, onnx_op
from striate.tools.layout import Constant, Tensor, Value, inverse

Ints = tuple[int, ...]


def padding(auto_pad: str, pads: Ints | None, rank: int) -> Any:
    """Return an ONNX padding as operators take it."""
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        return "same" if auto_pad == "SAME_UPPER" else "same_lower"
    if auto_pad not in ("NOTSET", "VALID", ""):
        raise UnsupportedModelError(f"auto_pad {auto_pad!r}")
    if auto_pad == "VALID" or not pads or not any(pads):
        return "valid"
    if len(pads) != 2 * rank:
        raise UnsupportedModelError(f"pads {list(pads)} for {rank} spatial axes")
    if min(pads) < 0:
        raise UnsupportedModelError(f"negative pads {list(pads)}")
    return tuple(zip(pads[:rank], pads[rank:], strict=True))


def window_padding(auto_pad: str, pads: Ints | None, span: Ints, strides: Ints) -> Any:
    """Return the padding of sliding windows; refuse what has no agreed meaning.

    By ONNX's definition automatic padding is less than none where windows do not meet;
    some runtimes cut off as much and some cut off nothing.

    Parameters
    ----------
    span : tuple of int
        How many positions a window spans along each axis.
    """
    apart = strides * len(span) if len(strides) == 1 else strides
    if auto_pad in ("SAME_UPPER", "SAME_LOWER") and any(
        s > k + 1 for s, k in zip(apart, span, strict=True)
    ):
        raise UnsupportedModelError(
            f"auto_pad {auto_pad!r} of windows of {list(span)}, {list(apart)} apart"
        )
    return padding(auto_pad, pads, len(span))


def pool_padding(
    auto_pad: str, pads: Ints | None, kernel: Ints, strides: Ints, dilations: Ints
) -> Any:
    """Return a pooling's padding; not all runtimes see that dilated windows span more.

    Parameters
    ----------
    auto_pad, pads, kernel, strides, dilations
        As the operators have them.
    """
    if auto_pad in ("SAME_UPPER", "SAME_LOWER") and {*dilations} != {1}:
        raise UnsupportedModelError(f"auto_pad {auto_pad!r} of dilated windows")
    return window_padding(auto_pad, pads, kernel, strides)


def image(x: Tensor, name: str) -> Tensor:
    """Return an image tensor channels-last; refuse one that is no image."""
    if not 3 <= x.rank <= 5:
        raise UnsupportedModelError(f"{name} has rank {x.rank}, wanted 3 to 5")
    return x.channels_last()


def on_image(g: OnnxBuilder, op: ops.Op, x: Tensor, **weights: Array | None) -> Tensor:
    """Apply an operator of an image to one that is channels-first."""
    return g.apply(op, image(x, "its input"), **weights).channels_first()


def kernel_of(
    g: OnnxBuilder, w: Tensor, rank: int, kernel_shape: Ints | None = None
) -> Array:
    """Return the kernel (out, in, spatial...) for an image channels-last."""
    weights = g.array(w, "its kernel")
    if weights.ndim != rank or rank < 3:
        raise UnsupportedModelError(
            f"a kernel of shape {weights.shape} for an input of rank {rank}"
        )
    if kernel_shape is not None and tuple(kernel_shape) != weights.shape[2:]:
        raise UnsupportedModelError(
            f"kernel_shape {list(kernel_shape)} for a kernel of {weights.shape}"
        )
    kernel: Array = weights.transpose(*range(2, rank), 1, 0)
    return kernel


@onnx_op("Conv")
def Conv(
    g: OnnxBuilder,
    X: Tensor,
    W: Tensor,
    B: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints = (1,),
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints = (1,),
) -> Tensor:
    """Convolve; the kernel (M, C/group, spatial...) becomes channels-last."""
    kernel = kernel_of(g, W, X.rank, kernel_shape)
    spread = dilations * (X.rank - 2) if len(dilations) == 1 else dilations
    span = [d * (k - 1) + 1 for d, k in zip(spread, kernel.shape[:-2], strict=True)]
    sides = window_padding(auto_pad, pads, tuple(span), strides)
    op = ops.Conv(strides, dilations, sides, group)
    return on_image(g, op, X, kernel=kernel, bias=g.optional(B, "its bias"))


@onnx_op("MaxPool")
def MaxPool(
    g: OnnxBuilder,
    X: Tensor,
    *,
    kernel_shape: Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints = (1,),
    pads: Ints | None = None,
    storage_order: int = 0,
    strides: Ints = (1,),
) -> Any:
    """Take the largest value of each window, and where it was if that is read."""
    sides = pool_padding(auto_pad, pads, kernel_shape, strides, dilations)
    if g.wanted > 1:
        order: Any = "channels_first_columns" if storage_order else "channels_first"
        both = ops.MaxPoolIndices(
            kernel_shape, strides, dilations, sides, bool(ceil_mode), order
        )
        found = g.split(both, image(X, "its input"), outputs=2)
        return tuple(y.channels_first() for y in found)
    op = ops.MaxPool(kernel_shape, strides, dilations, sides, bool(ceil_mode))
    return pooled(g, op, X)


@onnx_op("AveragePool")
def AveragePool(
    g: OnnxBuilder,
    X: Tensor,
    *,
    kernel_shape: Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Ints = (1,),
    pads: Ints | None = None,
    strides: Ints = (1,),
) -> Tensor:
    """Average each window."""
    sides = pool_padding(auto_pad, pads, kernel_shape, strides, dilations)
    op = ops.AveragePool(
        kernel_shape,
        strides,
        dilations,
        sides,
        bool(ceil_mode),
        count_include_pad=bool(count_include_pad),
    )
    return pooled(g, op, X)


def pooled(g: OnnxBuilder, op: ops.MaxPool | ops.AveragePool, x: Tensor) -> Tensor:
    """Return `x` pooled; windows of one element side by side leave it as it is."""
    pixels = image(x, "its input")
    if {*op.kernel, *op.stride} == {1} and op.padding in (
        "valid",
        "same",
        "same_lower",
    ):
        return x
    return g.apply(op, pixels).channels_first()


@onnx_op("GlobalAveragePool")
def GlobalAveragePool(g: OnnxBuilder, X: Tensor) -> Tensor:
    """Average each channel; the spatial axes stay with size one."""
    return on_image(g, ops.GlobalAveragePool(keepdims=True), X)


@onnx_op("GlobalMaxPool")
def GlobalMaxPool(g: OnnxBuilder, X: Tensor) -> Tensor:
    """Take the largest value of each channel; the spatial axes stay with size one."""
    return on_image(g, ops.GlobalMaxPool(keepdims=True), X)


def dense(
    g: OnnxBuilder, x: Tensor, kernel: Array, bias: Array | None = None
) -> Tensor:
    """Return ``x @ kernel + bias``; its rows follow the features as they lie."""
    if x.shape[-1] != (kernel.shape[0],) * g.bindings:
        size = x.shape[-1]
        open_size = (
            f", which depends on {g.culprit(size)}" if len(set(size)) > 1 else ""
        )
        raise UnsupportedModelError(
            f"a matrix of {kernel.shape[0]} rows for {size[0]} features{open_size}"
        )
    axes = tuple(range(x.rank))
    if isinstance(x, Value):
        axes = (*(a for a in g.order(x) if a != x.rank - 1), x.rank - 1)
        x, kernel = x.transpose(axes).as_it_lies(x.rank - 1, kernel)
    y = g.apply(ops.Dense(), x, kernel=kernel, bias=bias)
    return y.transpose(inverse(axes))


def _multiplied(a: Array, b: Array) -> Any:
    batches = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    bounded([*batches, *a.shape[-2:-1], *b.shape[-1:]])
    return a @ b


@onnx_op("MatMul")
def MatMul(g: OnnxBuilder, A: Tensor, B: Tensor) -> Tensor:
    """Multiply by a constant matrix on either side."""
    if isinstance(A, Constant) and isinstance(B, Constant):
        return g.fold(_multiplied, (A, B))[0]
    if isinstance(B, Constant) and B.rank == 2 and A.rank >= 2:
        return dense(g, A, g.array(B, "its matrix"))
    if isinstance(A, Constant) and A.rank == 2 and B.rank >= 2:
        swap = (*range(B.rank - 2), B.rank - 1, B.rank - 2)
        product = dense(g, B.transpose(swap), g.array(A, "its matrix").T)
        return product.transpose(swap)
    g.one_picture_at_a_time(A, (A.rank - 1,))
    return g.operate(ops.MatMul(), A, B)


@onnx_op("Gemm")
def Gemm(
    g: OnnxBuilder,
    A: Tensor,
    B: Tensor,
    C: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    broadcast: int = 0,
) -> Tensor:
    """Compute ``alpha A B + beta C``."""
    x = A.transpose((1, 0)) if transA else A
    if isinstance(B, Value):
        return _product(g, x, B.transpose((1, 0)) if transB else B, C, alpha, beta)
    kernel = g.array(B, "its matrix B")
    if kernel.ndim != 2 or x.rank != 2:
        raise UnsupportedModelError(f"operands of rank {x.rank} and {kernel.ndim}")
    kernel = kernel.T if transB else kernel
    kernel = kernel if alpha == 1 else kernel * np.float32(alpha)
    if C is None or beta == 0:
        return dense(g, x, kernel)
    if isinstance(C, Constant) and C.fixed:
        bias = C.arrays[0] if beta == 1 else C.arrays[0] * np.float32(beta)
        if bias.ndim < 2 or bias.shape[0] == 1:
            bias = np.broadcast_to(bias.reshape(-1), (kernel.shape[1],))
            return dense(g, x, kernel, bias)
    scaled = C if beta == 1 else g.combine(ops.Mul(), C, g.number(beta))
    return g.combine(ops.Add(), dense(g, x, kernel), scaled)


def _product(
    g: OnnxBuilder, x: Tensor, y: Tensor, C: Tensor | None, alpha: float, beta: float
) -> Tensor:
    """Return ``alpha x y + beta C`` for a computed y."""
    g.one_picture_at_a_time(x, (1,))
    product = g.operate(ops.MatMul(), x, y)
    if alpha != 1:
        product = g.combine(ops.Mul(), product, g.number(alpha))
    if C is None or beta == 0:
        return product
    scaled = C if beta == 1 else g.combine(ops.Mul(), C, g.number(beta))
    return g.combine(ops.Add(), product, scaled)


@onnx_op("BatchNormalization", since=1)
def BatchNormalization_1(
    g: OnnxBuilder,
    X: Tensor,
    scale: Tensor,
    B: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    is_test: int = 0,
    spatial: int = 1,
    consumed_inputs: Ints = (),
) -> Tensor:
    """Normalise; before version 7 the file says whether it is for training."""
    if not is_test:
        raise UnsupportedModelError("is_test = 0: it is for training")
    return normalise(g, X, (scale, B, mean, var), epsilon, spatial)


@onnx_op("BatchNormalization", since=7)
def BatchNormalization(
    g: OnnxBuilder,
    X: Tensor,
    scale: Tensor,
    B: Tensor,
    input_mean: Tensor,
    input_var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    training_mode: int = 0,
) -> Any:
    """Normalise with fixed statistics, or with those of the batch."""
    weights = (scale, B, input_mean, input_var)
    if training_mode:
        return of_the_batch(g, X, weights, epsilon, momentum)
    return normalise(g, X, weights, epsilon, spatial)


def of_the_batch(
    g: OnnxBuilder,
    x: Tensor,
    weights: tuple[Tensor, ...],
    epsilon: float,
    momentum: float,
) -> tuple[Tensor, ...]:
    """Return `x` normalised with its own statistics, and the running ones."""
    ones = (1,) * g.bindings
    column = (g.fixed(x.shape[1], "its number of channels"),) * g.bindings
    axes = tuple(axis for axis in range(x.rank) if axis != 1)
    centre = mean(g, x, axes, keepdims=1)
    distance = g.combine(ops.Sub(), x, centre)
    variance = mean(g, g.combine(ops.Mul(), distance, distance), axes, keepdims=1)
    deviation = g.elementwise(
        ops.Sqrt(), g.combine(ops.Add(), variance, g.number(epsilon))
    )
    spread = [g.reshape(w, (column, *(ones,) * (x.rank - 2))) for w in weights[:2]]
    y = g.combine(ops.Mul(), g.combine(ops.Div(), distance, deviation), spread[0])
    running = [
        g.combine(
            ops.Add(),
            g.combine(ops.Mul(), old, g.number(momentum)),
            g.combine(ops.Mul(), g.reshape(new, (column,)), g.number(1 - momentum)),
        )
        for old, new in zip(weights[2:], (centre, variance), strict=True)
    ]
    return (g.combine(ops.Add(), y, spread[1]), *running)


def normalise(
    g: OnnxBuilder, X: Tensor, weights: tuple[Tensor, ...], epsilon: float, spatial: int
) -> Tensor:
    """Return ``(X - mean) / sqrt(variance + epsilon) * gamma + beta``."""
    names = ("its scale", "its bias", "its mean", "its variance")
    gamma, beta, mean, variance = map(g.array, weights, names)
    if X.rank < 2:
        raise UnsupportedModelError(f"its input has rank {X.rank}, wanted 2 or more")
    if not spatial and gamma.ndim > 1:
        factor = gamma / np.sqrt(variance + np.float32(epsilon))
        x = g.elementwise(ops.Mul(), X, y=factor)
        return g.elementwise(ops.Add(), x, y=beta - mean * factor)
    statistics = {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance}
    op = ops.BatchNorm(epsilon)
    if X.rank != 2 or not isinstance(X, Value):
        return g.apply(op, X.channels_last(), **statistics).channels_first()
    x = X
    for name, weight in statistics.items():
        x, statistics[name] = X.as_it_lies(1, weight)
    return g.alike(op, replace(X, stored=x.axes), x, **statistics)
