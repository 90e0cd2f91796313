"""An ONNX file as a PyTorch module, for networks of images.

Each function is an ONNX operator of that name in terms of PyTorch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional

CONVOLUTIONS = {
    1: functional.conv1d,
    2: functional.conv2d,
    3: functional.conv3d,
}
TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
MAXIMA = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}


def symmetric(pads: Sequence[int]) -> list[int]:
    """Return one number an axis; raise `ValueError` if the sides differ."""
    half = len(pads) // 2
    if pads[:half] != pads[half:]:
        raise ValueError(f"pads {pads}: PyTorch's layers pad both sides alike")
    return list(pads[:half])


def conv(
    x: Tensor, w: Tensor, b: Tensor | None = None, *, pads: Any, **given: Any
) -> Tensor:
    """Return Conv."""
    return CONVOLUTIONS[x.ndim - 2](
        x, w, b, given["strides"], symmetric(pads), given["dilations"], given["group"]
    )


def conv_transpose(
    x: Tensor, w: Tensor, b: Tensor | None = None, *, pads: Any, **given: Any
) -> Tensor:
    """Return ConvTranspose."""
    return TRANSPOSED[x.ndim - 2](
        x,
        w,
        b,
        given["strides"],
        symmetric(pads),
        given["output_padding"],
        given["group"],
        given["dilations"],
    )


def max_pool(x: Tensor, *, pads: Any, **given: Any) -> Tensor:
    """Return MaxPool."""
    return MAXIMA[x.ndim - 2](
        x,
        given["kernel_shape"],
        given["strides"],
        symmetric(pads),
        given["dilations"],
        bool(given["ceil_mode"]),
    )


def average_pool(x: Tensor, *, pads: Any, **given: Any) -> Tensor:
    """Return AveragePool of images."""
    return functional.avg_pool2d(
        x,
        given["kernel_shape"],
        given["strides"],
        symmetric(pads),
        bool(given["ceil_mode"]),
        bool(given["count_include_pad"]),
    )


def batch_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, *, epsilon: float
) -> Tensor:
    """Return BatchNormalization."""
    return functional.batch_norm(x, mean, var, scale, bias, eps=epsilon)


def split(x: Tensor, sizes: list[int], *, axis: int) -> tuple[Tensor, ...]:
    """Return Split."""
    return torch.split(x, sizes, axis)


def reshape(x: Tensor, shape: list[int]) -> Tensor:
    """Return Reshape, in which 0 keeps a size."""
    return x.reshape([n or x.shape[axis] for axis, n in enumerate(shape)])


def layer_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, axis: int, epsilon: float
) -> Tensor:
    """Return LayerNormalization."""
    return functional.layer_norm(x, x.shape[axis:], scale, bias, epsilon)


def reduce_mean(x: Tensor, axes: list[int], *, keepdims: int) -> Tensor:
    """Return ReduceMean."""
    return x.mean(axes, bool(keepdims))


def constant(array: Any) -> Any:
    """Return what stays the same as a tensor, or as numbers if it is a setting."""
    setting = array.ndim == 0 or array.dtype.kind == "i"
    return array.tolist() if setting else torch.tensor(array)


OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": torch.add,
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Clip": lambda x, low, high: functional.hardtanh(x, low, high),
    "Concat": lambda *parts, axis: torch.cat(parts, axis),
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Flatten": lambda x: x.flatten(1),
    "Gelu": lambda x, approximate: functional.gelu(x, approximate=approximate.decode()),
    "Gemm": lambda x, w, b: functional.linear(x, w.t(), b),
    "GlobalAveragePool": lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "HardSigmoid": lambda x, alpha, beta: functional.hardsigmoid(x),
    "HardSwish": functional.hardswish,
    "LayerNormalization": layer_normalization,
    "LeakyRelu": lambda x, alpha: functional.leaky_relu(x, alpha),
    "LogSoftmax": lambda x, axis: functional.log_softmax(x, axis),
    "MatMul": torch.matmul,
    "MaxPool": max_pool,
    "Mul": torch.mul,
    "ReduceMean": reduce_mean,
    "Relu": torch.relu,
    "Reshape": reshape,
    "Sigmoid": torch.sigmoid,
    "Softmax": lambda x, axis: functional.softmax(x, axis),
    "Split": split,
    "Tanh": torch.tanh,
    "Transpose": lambda x, perm: x.permute(perm),
}


class Network(torch.nn.Module):
    """The network of an ONNX file with one input, whose first output it returns.

    Raises
    ------
    KeyError
        If an operator is not among the known ones.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        graph = onnx.load(path).graph
        self.entry, self.result = graph.input[0].name, graph.output[0].name
        self.constants = {
            each.name: constant(numpy_helper.to_array(each))
            for each in graph.initializer
        }
        self.steps = [
            (
                OPERATORS[node.op_type],
                list(node.input),
                {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
                list(node.output),
            )
            for node in graph.node
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Return the first output."""
        values: dict[str, Any] = {"": None, **self.constants, self.entry: x}
        for operator, inputs, attributes, outputs in self.steps:
            found = operator(*(values[name] for name in inputs), **attributes)
            results = found if isinstance(found, tuple) else (found,)
            values.update(zip(outputs, results, strict=True))
        return values[self.result]
