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
from .base import Op
from .batch_norm import BatchNorm
from .binary import Add, Binary, Div, Maximum, Minimum, Mul, Pow, PRelu, Sub
from .channel_shuffle import ChannelShuffle
from .concat import Concat
from .constant import Constant
from .conv import Conv
from .dense import Dense
from .identity import Identity
from .mean import Mean
from .pad import Pad
from .pool import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from .reshape import Flatten, Reshape
from .slice import Slice
from .softmax import LogSoftmax, Softmax
from .split import Split
from .transpose import Transpose

__all__ = [
    "Abs",
    "Activation",
    "Add",
    "AveragePool",
    "BatchNorm",
    "Binary",
    "ChannelShuffle",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "Dense",
    "Div",
    "Elu",
    "Erf",
    "Exp",
    "Flatten",
    "Gelu",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "MaxPool",
    "Maximum",
    "Mean",
    "Minimum",
    "Mish",
    "Mul",
    "Neg",
    "Op",
    "PRelu",
    "Pad",
    "Pow",
    "Reciprocal",
    "Relu",
    "Reshape",
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
]
