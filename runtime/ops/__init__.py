"""The operators, one file each; a new file is one more line in each list here.

A file is imported when one of its operators is first named: a program pays for the
operators of its networks only.
"""

# ruff: noqa: F403

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base import Op

if TYPE_CHECKING:
    from .activation import *
    from .adaptive_pool import *
    from .arg_reduce import *
    from .batch_norm import *
    from .binary import *
    from .cast import *
    from .center_crop_pad import *
    from .channel_shuffle import *
    from .classify import *
    from .col2im import *
    from .compare import *
    from .concat import *
    from .constant import *
    from .conv import *
    from .conv_transpose import *
    from .cumulative import *
    from .deform_conv import *
    from .dense import *
    from .depth_to_space import *
    from .det import *
    from .dynamic import *
    from .gather import *
    from .grid_sample import *
    from .identity import *
    from .integer_product import *
    from .locally_connected import *
    from .logic import *
    from .lp_pool import *
    from .lrn import *
    from .mask import *
    from .matmul import *
    from .max_unpool import *
    from .maxout import *
    from .mean import *
    from .normalise import *
    from .pad import *
    from .pool import *
    from .quantize import *
    from .recurrent import *
    from .reduce import *
    from .repeat import *
    from .reshape import *
    from .resize import *
    from .reverse_sequence import *
    from .roi_align import *
    from .scatter import *
    from .slice import *
    from .softmax import *
    from .split import *
    from .top_k import *
    from .transpose import *
    from .where import *

OPERATORS = {
    "activation": (
        "Abs",
        "Acos",
        "Acosh",
        "Activation",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "Ceil",
        "Celu",
        "Clip",
        "Cos",
        "Cosh",
        "Elementwise",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Log",
        "Mish",
        "Neg",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Shrink",
        "Sigmoid",
        "Sign",
        "Silu",
        "Sin",
        "Sinh",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Swish",
        "Tan",
        "Tanh",
        "ThresholdedRelu",
    ),
    "adaptive_pool": ("AdaptiveAveragePool", "AdaptiveMaxPool", "FractionalMaxPool"),
    "arg_reduce": ("ArgMax", "ArgMin"),
    "batch_norm": ("BatchNorm",),
    "binary": (
        "Add",
        "Binary",
        "Div",
        "Maximum",
        "Minimum",
        "Mod",
        "Mul",
        "Pow",
        "PRelu",
        "Sub",
    ),
    "cast": ("Cast",),
    "center_crop_pad": ("CenterCropPad",),
    "channel_shuffle": ("ChannelShuffle",),
    "classify": ("IsInf", "IsNaN"),
    "col2im": ("Col2Im",),
    "compare": ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
    "concat": ("Concat",),
    "constant": ("Constant",),
    "conv": ("Conv",),
    "conv_transpose": ("ConvTranspose",),
    "cumulative": ("CumSum",),
    "deform_conv": ("DeformConv",),
    "dense": ("Dense",),
    "depth_to_space": ("DepthToSpace", "SpaceToDepth"),
    "det": ("Det",),
    "dynamic": ("Compress", "NonMaxSuppression", "NonZero", "Unique"),
    "gather": ("Gather", "GatherElements", "GatherND"),
    "grid_sample": ("AffineGrid", "GridSample"),
    "identity": ("Identity",),
    "integer_product": ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"),
    "locally_connected": ("LocallyConnected", "TiledConv"),
    "logic": (
        "And",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "Not",
        "Or",
        "Xor",
    ),
    "lp_pool": ("GlobalLpPool", "LpPool"),
    "lrn": ("LRN",),
    "mask": ("EyeLike", "OneHot", "Trilu"),
    "matmul": ("Einsum", "MatMul"),
    "max_unpool": ("MaxPoolIndices", "MaxUnpool"),
    "maxout": ("Maxout",),
    "mean": ("Mean",),
    "normalise": (
        "GroupNorm",
        "InstanceNorm",
        "LayerNorm",
        "LpNorm",
        "MeanVarianceNorm",
        "RMSNorm",
    ),
    "pad": ("Pad",),
    "pool": ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"),
    "quantize": ("DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"),
    "recurrent": ("GRU", "LSTM", "RNN"),
    "reduce": (
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Reduction",
    ),
    "repeat": ("Expand", "Tile"),
    "reshape": ("Flatten", "Reshape"),
    "resize": ("Resize",),
    "reverse_sequence": ("ReverseSequence",),
    "roi_align": ("RoiAlign",),
    "scatter": ("ScatterElements", "ScatterND"),
    "slice": ("Slice",),
    "softmax": ("Hardmax", "LogSoftmax", "Softmax"),
    "split": ("Split",),
    "top_k": ("TopK",),
    "transpose": ("Transpose",),
    "where": ("Where",),
}
"""The names that are public here, by the file that has them."""

FILES = {name: file for file, names in OPERATORS.items() for name in names}

__all__ = ["Op", "operator", "operators", *sorted(FILES)]


def __getattr__(name: str) -> Any:
    if name in FILES:
        return getattr(import_module(f"{__name__}.{FILES[name]}"), name)
    if name in OPERATORS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *FILES, *OPERATORS})


def operator(name: str) -> type[Op] | None:
    """Return the operator of that name in model files; None if there is none."""
    if name in FILES:
        import_module(f"{__name__}.{FILES[name]}")
    return Op.registry.get(name)


def operators() -> dict[str, type[Op]]:
    """Return every operator by its name in model files."""
    for file in OPERATORS:
        import_module(f"{__name__}.{file}")
    return dict(sorted(Op.registry.items()))
