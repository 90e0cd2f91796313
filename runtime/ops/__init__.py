"""The operators, one file each; a new file is one more line here."""

from .activation import (
    Abs,
    Activation,
    Clip,
    Elu,
    Erf,
    Exp,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Log,
    Mish,
    Neg,
    Reciprocal,
    Relu,
    Sigmoid,
    Silu,
    Softplus,
    Sqrt,
    Tanh,
)
from .adaptive_pool import AdaptiveAveragePool, AdaptiveMaxPool, FractionalMaxPool
from .base import Op
from .batch_norm import BatchNorm
from .binary import Add, Binary, Div, Maximum, Minimum, Mod, Mul, PRelu, Pow, Sub
from .cast import Cast
from .channel_shuffle import ChannelShuffle
from .col2im import Col2Im
from .compare import Equal, Greater, GreaterOrEqual, Less, LessOrEqual
from .concat import Concat
from .constant import Constant
from .conv import Conv
from .conv_transpose import ConvTranspose
from .dense import Dense
from .identity import Identity
from .logic import And, BitwiseAnd, BitwiseNot, BitwiseOr, BitwiseXor, Not, Or, Xor
from .lp_pool import GlobalLpPool, LpPool
from .max_unpool import MaxPoolIndices, MaxUnpool
from .maxout import Maxout
from .mean import Mean
from .pad import Pad
from .pool import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from .reshape import Flatten, Reshape
from .resize import Resize
from .slice import Slice
from .softmax import LogSoftmax, Softmax
from .split import Split
from .transpose import Transpose
from .where import Where

__all__ = [
    "Abs",
    "Activation",
    "AdaptiveAveragePool",
    "AdaptiveMaxPool",
    "Add",
    "And",
    "AveragePool",
    "BatchNorm",
    "Binary",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Cast",
    "ChannelShuffle",
    "Clip",
    "Col2Im",
    "Concat",
    "Constant",
    "Conv",
    "ConvTranspose",
    "Dense",
    "Div",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Flatten",
    "FractionalMaxPool",
    "Gelu",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "LogSoftmax",
    "LpPool",
    "MaxPool",
    "MaxPoolIndices",
    "MaxUnpool",
    "Maximum",
    "Maxout",
    "Mean",
    "Minimum",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Op",
    "Or",
    "PRelu",
    "Pad",
    "Pow",
    "Reciprocal",
    "Relu",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Silu",
    "Slice",
    "Softmax",
    "Softplus",
    "Split",
    "Sqrt",
    "Sub",
    "Tanh",
    "Transpose",
    "Where",
    "Xor",
]
