"""Operators with weights, sliding windows or statistics.

Each function is named and signed like its operator.
"""

# ruff: noqa: N803

from __future__ import annotations

import math
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.from_onnx import layers, normalise, windows
from striate.tools.from_torch.registry import (
    TorchBuilder,
    aten_op,
    promoted,
    unbatched,
)
from striate.tools.layout import Constant, Tensor, Value

Ints = list[int]


def spread(numbers: Any, rank: int) -> tuple[int, ...]:
    """Return a number for each of `rank` axes, of which one may serve all."""
    given = [numbers] if isinstance(numbers, int) else list(numbers)
    if any(not isinstance(n, int) for n in given):
        raise UnsupportedModelError("a setting depends on the sizes of the input")
    return tuple(given * rank if len(given) == 1 else given)


def pads(numbers: Any, rank: int) -> tuple[int, ...]:
    """Return a symmetric padding as ONNX writes it."""
    return spread(numbers, rank) * 2


@aten_op(
    *("conv1d", "conv2d", "conv3d"),
    *("conv1d.padding", "conv2d.padding", "conv3d.padding"),
)
def conv2d(
    g: TorchBuilder,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Convolve; ``"same"`` pads one more after than before if it must."""
    rank = weight.rank - 2
    strides, dilations = spread(stride, rank), spread(dilation, rank)
    if padding == "same":
        kernel = [dim[0] for dim in weight.shape[2:]]
        total = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
        sides = (*(t // 2 for t in total), *(t - t // 2 for t in total))
    else:
        sides = pads(0 if padding == "valid" else padding, rank)

    def convolve(x: Tensor) -> Tensor:
        return layers.Conv(
            g,
            x,
            weight,
            bias,
            strides=strides,
            pads=sides,
            dilations=dilations,
            group=groups,
        )

    return unbatched(g, input, rank + 2, convolve)


@aten_op("conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input")
def conv_transpose2d(
    g: TorchBuilder,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """Spread every pixel over a window."""
    rank = weight.rank - 2

    def convolve(x: Tensor) -> Tensor:
        return windows.ConvTranspose(
            g,
            x,
            weight,
            bias,
            strides=spread(stride, rank),
            pads=pads(padding, rank),
            output_padding=spread(output_padding, rank),
            dilations=spread(dilation, rank),
            group=groups,
        )

    return unbatched(g, input, rank + 2, convolve)


@aten_op("convolution")
def convolution(
    g: TorchBuilder,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: int,
) -> Any:
    """Convolve or spread."""
    if transposed:
        return conv_transpose2d(
            g, input, weight, bias, stride, padding, output_padding, groups, dilation
        )
    return conv2d(g, input, weight, bias, stride, padding, dilation, groups)


@aten_op("linear")
def linear(
    g: TorchBuilder, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Multiply by a matrix that lies (out, in), and add."""
    if isinstance(weight, Value):
        y = matmul(g, input, weight.transpose((1, 0)))
        return y if bias is None else g.combine(ops.Add(), y, bias)
    kernel = g.array(weight, "its matrix").T
    addend = g.optional(bias, "its bias")
    if input.rank == 1:
        y = layers.dense(g, g.expanded(input, 2), kernel, addend)
        return g.reshape(y, y.shape[1:])
    return layers.dense(g, input, kernel, addend)


@aten_op("matmul")
def matmul(g: TorchBuilder, self: Tensor, other: Tensor) -> Tensor:
    """Multiply matrices, or a matrix and a vector."""
    self, other = promoted(g, self, other)
    x = g.expanded(self, 2) if self.rank == 1 else self
    y = (
        g.reshape(other, (*other.shape, (1,) * g.bindings))
        if other.rank == 1
        else other
    )
    product = layers.MatMul(g, x, y)
    shape = list(product.shape)
    if other.rank == 1:
        del shape[-1]
    if self.rank == 1:
        del shape[-1 if other.rank == 1 else -2]
    return product if len(shape) == product.rank else g.reshape(product, shape)


@aten_op("mm", "bmm")
def mm(g: TorchBuilder, self: Tensor, mat2: Tensor) -> Tensor:
    """Multiply matrices."""
    return matmul(g, self, mat2)


@aten_op("mv")
def mv(g: TorchBuilder, self: Tensor, vec: Tensor) -> Tensor:
    """Multiply a matrix and a vector."""
    return matmul(g, self, vec)


@aten_op("addmm")
def addmm(
    g: TorchBuilder,
    self: Tensor,
    mat1: Tensor,
    mat2: Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> Tensor:
    """Compute ``beta self + alpha mat1 mat2``."""
    return layers.Gemm(g, mat1, mat2, self, alpha=alpha, beta=beta)


@aten_op("baddbmm")
def baddbmm(
    g: TorchBuilder,
    self: Tensor,
    batch1: Tensor,
    batch2: Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> Tensor:
    """Compute ``beta self + alpha batch1 batch2`` for each of a batch."""
    y = matmul(g, batch1, batch2)
    y = y if alpha == 1 else g.combine(ops.Mul(), y, g.tensor(float(alpha)))
    if beta == 0:
        return y
    x = self if beta == 1 else g.combine(ops.Mul(), self, g.tensor(float(beta)))
    return g.combine(ops.Add(), x, y)


@aten_op("max_pool1d", "max_pool2d", "max_pool3d")
def max_pool2d(
    g: TorchBuilder,
    self: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:
    """Take the largest value of each window."""
    g.wanted = 1
    return max_pool2d_with_indices(
        g, self, kernel_size, stride, padding, dilation, ceil_mode
    )


def _spatial(x: Tensor, numbers: Any) -> int:
    """Return the number of axes of windows: of numbers, or all but two."""
    count = 1 if isinstance(numbers, int) else len(numbers)
    return count if count > 1 else max(1, x.rank - 2)


@aten_op("max_pool2d_with_indices", "max_pool3d_with_indices")
def max_pool2d_with_indices(
    g: TorchBuilder,
    self: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:
    """Take the largest value of each window, and where it was in its channel."""
    rank = _spatial(self, kernel_size)
    kernel = spread(kernel_size, rank)
    strides = spread(stride, rank) if stride else kernel

    def pool(x: Tensor) -> Any:
        found = layers.MaxPool(
            g,
            x,
            kernel_shape=kernel,
            ceil_mode=int(ceil_mode),
            dilations=spread(dilation, rank),
            pads=pads(padding, rank),
            strides=strides,
        )
        if g.wanted < 2:
            return found
        y, places = found
        size = g.fixed(g.product(x.shape[2:]), "the count of its indices")
        within = g.combine(ops.Mod(), places, g.tensor(size))
        assert isinstance(within, Value)
        g.pooled[within.name] = (places, x.shape)
        return y, within

    return unbatched(g, self, rank + 2, pool)


@aten_op("max_unpool2d")
def max_unpool2d(
    g: TorchBuilder, self: Tensor, indices: Tensor, output_size: Any
) -> Tensor:
    """Put values where they were before pooling."""
    wanted = g.dims(output_size)
    if not isinstance(indices, Value) or indices.name not in g.pooled:
        raise UnsupportedModelError("its indices are not those of a max pooling")
    places, shape = g.pooled[indices.name]
    if shape[2:] != wanted:
        raise UnsupportedModelError("its size is not that before the pooling")
    sizes = tuple(g.fixed(dim, "its size") for dim in wanted)
    op = ops.MaxUnpool(sizes, "channels_first")
    x, taken = (layers.image(t, "its input") for t in (self, places))
    return g.operate(op, x, taken).channels_first()


@aten_op("avg_pool1d")
def avg_pool1d(
    g: TorchBuilder,
    self: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """Average each window."""
    return avg_pool2d(
        g, self, kernel_size, stride, padding, ceil_mode, count_include_pad
    )


@aten_op("avg_pool2d", "avg_pool3d")
def avg_pool2d(
    g: TorchBuilder,
    self: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """Average each window, or sum it and divide by a given number."""
    rank = _spatial(self, kernel_size)
    kernel = spread(kernel_size, rank)
    sides = pads(padding, rank)
    if divisor_override is not None and ceil_mode:
        raise UnsupportedModelError("divisor_override with ceil_mode")

    def pool(x: Tensor) -> Tensor:
        return layers.AveragePool(
            g,
            x,
            kernel_shape=kernel,
            ceil_mode=int(ceil_mode),
            count_include_pad=int(count_include_pad or divisor_override is not None),
            pads=sides,
            strides=spread(stride, rank) if stride else kernel,
        )

    y = unbatched(g, self, rank + 2, pool)
    if divisor_override is None:
        return y
    return g.combine(ops.Mul(), y, g.tensor(math.prod(kernel) / divisor_override))


@aten_op(
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
    *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
)
def adaptive_avg_pool2d(g: TorchBuilder, self: Tensor, output_size: Any) -> Any:
    """Average bins, as many as the output has pixels."""
    return _adaptive(g, self, output_size, average=True)


@aten_op("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pool2d(g: TorchBuilder, self: Tensor, output_size: Any) -> Any:
    """Take the largest value of bins, as many as the output has pixels."""
    if g.wanted > 1:
        raise UnsupportedModelError("its indices are read")
    return _adaptive(g, self, output_size, average=False)


def _adaptive(g: TorchBuilder, x: Tensor, output_size: Any, average: bool) -> Any:
    wanted = g.dims([output_size] if isinstance(output_size, int) else output_size)
    rank = len(wanted)

    def pool(x: Tensor) -> Tensor:
        if x.shape[2:] == wanted:
            return x
        op: ops.Op
        if all(set(dim) == {1} for dim in wanted):
            whole = ops.GlobalAveragePool if average else ops.GlobalMaxPool
            op = whole(keepdims=True)
        else:
            bins = ops.AdaptiveAveragePool if average else ops.AdaptiveMaxPool
            op = bins(tuple(g.fixed(dim, "its size") for dim in wanted))
        return layers.on_image(g, op, x)

    return unbatched(g, x, rank + 2, pool)


def affine(
    g: TorchBuilder, x: Tensor, weight: Tensor | None, bias: Tensor | None
) -> tuple[Constant, Constant]:
    """Return scale and bias of each channel, ones and zeros if they are left out."""
    channels = g.fixed(x.shape[1], "its number of channels")
    found = []
    for given, default in ((weight, 1.0), (bias, 0.0)):
        if given is None:
            found.append(g.constant(np.full(channels, default, np.float32)))
        else:
            found.append(g.constant(g.array(given, "its scale or bias")))
    return found[0], found[1]


@aten_op("batch_norm")
def batch_norm(
    g: TorchBuilder,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """Normalise with the statistics that training left."""
    statistics = None if training else (running_mean, running_var)
    return _normalised(g, input, weight, bias, statistics, eps)


def _normalised(
    g: TorchBuilder,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    statistics: tuple[Tensor | None, Tensor | None] | None,
    eps: float,
) -> Tensor:
    """Normalise with a mean and a variance, those of a constant if they are missing."""
    scale, beta = affine(g, x, weight, bias)
    mean, var = statistics or (None, None)
    if mean is None or var is None:
        if not isinstance(x, Constant):
            raise UnsupportedModelError(
                "it normalises with the statistics of the batch; wanted a module in "
                "evaluation mode, with running statistics"
            )
        axes = tuple(axis for axis in range(x.rank) if axis != 1)
        exact = x.map(lambda a: a.astype(np.float64))
        mean = exact.map(lambda a: a.mean(axes).astype(np.float32))
        var = exact.map(lambda a: a.var(axes).astype(np.float32))
    return layers.normalise(g, x, (scale, beta, mean, var), eps, 1)


@aten_op("native_batch_norm", "_native_batch_norm_legit")
def native_batch_norm(
    g: TorchBuilder,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """Normalise as `batch_norm`."""
    statistics = None if training else (running_mean, running_var)
    return _normalised(g, input, weight, bias, statistics, eps)


@aten_op("_native_batch_norm_legit.no_stats")
def _native_batch_norm_legit_no_stats(
    g: TorchBuilder,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """Normalise with the statistics of the input, which must be a constant."""
    return _normalised(g, input, weight, bias, None, eps)


@aten_op("_native_batch_norm_legit_no_training")
def _native_batch_norm_legit_no_training(
    g: TorchBuilder,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> Tensor:
    """Normalise with the statistics that training left."""
    return _normalised(g, input, weight, bias, (running_mean, running_var), eps)


@aten_op("instance_norm")
def instance_norm(
    g: TorchBuilder,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """Normalise each channel of each image, or with the statistics of training."""
    scale, beta = affine(g, input, weight, bias)
    if use_input_stats:
        return normalise.InstanceNormalization(g, input, scale, beta, epsilon=eps)
    if running_mean is None or running_var is None:
        raise UnsupportedModelError("it has no statistics")
    weights = (scale, beta, running_mean, running_var)
    return layers.normalise(g, input, weights, eps, 1)


@aten_op("group_norm")
def group_norm(
    g: TorchBuilder,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Normalise groups of channels."""
    scale, beta = affine(g, input, weight, bias)
    x = input
    if x.rank == 2:
        x = g.reshape(x, (*x.shape, (1,) * g.bindings))
    y = normalise.GroupNormalization(
        g, x, scale, beta, num_groups=num_groups, epsilon=eps
    )
    return g.reshape(y, input.shape) if y.rank != input.rank else y


@aten_op("native_group_norm")
def native_group_norm(
    g: TorchBuilder,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    N: Any,
    C: Any,
    HxW: Any,
    group: int,
    eps: float,
) -> Tensor:
    """Normalise as `group_norm`."""
    return group_norm(g, input, group, weight, bias, eps)


@aten_op("layer_norm")
def layer_norm(
    g: TorchBuilder,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    """Normalise over the last axes."""
    g.wanted = 1
    return normalise.LayerNormalization(
        g,
        input,
        _scale(g, normalized_shape, weight),
        bias,
        axis=-len(normalized_shape),
        epsilon=eps,
    )


def _scale(g: TorchBuilder, shape: Any, weight: Tensor | None) -> Tensor:
    """Return a scale for the last axes, ones if it is left out."""
    if weight is not None:
        return weight
    sizes = [g.fixed(dim, "what it normalises") for dim in g.dims(shape)]
    ones: Array = np.ones(sizes, np.float32)
    return g.constant(ones)


@aten_op("native_layer_norm")
def native_layer_norm(
    g: TorchBuilder,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Any:
    """Normalise as `layer_norm`."""
    return layer_norm(g, input, normalized_shape, weight, bias, eps)


@aten_op("rms_norm")
def rms_norm(
    g: TorchBuilder,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Divide by the root mean square over the last axes."""
    return normalise.RMSNormalization(
        g,
        input,
        _scale(g, normalized_shape, weight),
        axis=-len(normalized_shape),
        epsilon=float(np.finfo(np.float32).eps) if eps is None else eps,
    )


@aten_op("local_response_norm")
def local_response_norm(
    g: TorchBuilder, input: Tensor, size: int, alpha: float, beta: float, k: float
) -> Any:
    """Divide by a power of the energy of neighbouring channels.

    No operator of ATen: what `striate.tools.from_torch.source.with_norms_joined` finds.
    """
    return normalise.LRN(g, input, size=size, alpha=alpha, beta=beta, bias=k)


@aten_op("scaled_dot_product_attention")
def scaled_dot_product_attention(
    g: TorchBuilder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Average values by the softmax of the products of queries and keys."""
    if enable_gqa or dropout_p:
        raise UnsupportedModelError("enable_gqa or dropout_p")
    size = g.fixed(query.shape[-1], "the size of its queries")
    factor = g.tensor(1 / math.sqrt(size) if scale is None else scale)
    swap = (*range(key.rank - 2), key.rank - 1, key.rank - 2)
    products = matmul(g, g.combine(ops.Mul(), query, factor), key.transpose(swap))
    if is_causal:
        rows, columns = (g.fixed(d, "a length") for d in products.shape[-2:])
        attn_mask = g.constant(np.tri(rows, columns, dtype=np.bool_))
    if attn_mask is not None:
        mask = g.array(attn_mask, "its mask")
        if mask.dtype == np.bool_:
            mask = np.where(mask, 0, np.finfo(np.float32).min).astype(np.float32)
        products = g.combine(ops.Add(), products, g.constant(mask))
    axes = tuple(range(products.rank))
    shares = g.apply(ops.Softmax(products.rank - 1), products.transpose(axes))
    return matmul(g, shares, value)


@aten_op("im2col")
def im2col(
    g: TorchBuilder,
    self: Tensor,
    kernel_size: Ints,
    dilation: Ints,
    padding: Ints,
    stride: Ints,
) -> Any:
    """Put the pixels of each window into channels, as a convolution that selects."""
    height, width = spread(kernel_size, 2)
    taps = height * width

    def unfold(x: Tensor) -> Tensor:
        channels = g.fixed(x.shape[1], "its number of channels")
        chosen = np.eye(taps, dtype=np.float32).reshape(taps, 1, height, width)
        kernel = g.constant(np.tile(chosen, (channels, 1, 1, 1)))
        y = conv2d(g, x, kernel, None, stride, padding, dilation, channels)
        places = [y.shape[2][b] * y.shape[3][b] for b in range(g.bindings)]
        return g.reshape(y, (*y.shape[:2], tuple(places)))

    return unbatched(g, self, 4, unfold)


@aten_op("col2im")
def col2im(
    g: TorchBuilder,
    self: Tensor,
    output_size: Any,
    kernel_size: Ints,
    dilation: Ints,
    padding: Ints,
    stride: Ints,
) -> Any:
    """Add blocks up into an image."""
    sizes = g.sizes(g.dims(output_size))
    block = g.constant(np.array(spread(kernel_size, 2), np.int64))

    def fold(x: Tensor) -> Tensor:
        return windows.Col2Im(
            g,
            x,
            sizes,
            block,
            dilations=spread(dilation, 2),
            pads=pads(padding, 2),
            strides=spread(stride, 2),
        )

    return unbatched(g, self, 3, fold)
