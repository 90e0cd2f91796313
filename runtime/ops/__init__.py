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
from .arg_reduce import ArgMax, ArgMin
from .base import Op
from .batch_norm import BatchNorm
from .binary import Add, Binary, Div, Maximum, Minimum, Mod, Mul, Pow, PRelu, Sub
from .cast import Cast
from .channel_shuffle import ChannelShuffle
from .col2im import Col2Im
from .compare import Equal, Greater, GreaterOrEqual, Less, LessOrEqual
from .concat import Concat
from .constant import Constant
from .conv import Conv
from .conv_transpose import ConvTranspose
from .cumulative import CumSum
from .dense import Dense
from .identity import Identity
from .locally_connected import LocallyConnected, TiledConv
from .logic import And, BitwiseAnd, BitwiseNot, BitwiseOr, BitwiseXor, Not, Or, Xor
from .lp_pool import GlobalLpPool, LpPool
from .max_unpool import MaxPoolIndices, MaxUnpool
from .maxout import Maxout
from .mean import Mean
from .normalise import (
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LpNorm,
    MeanVarianceNorm,
    RMSNorm,
)
from .pad import Pad
from .pool import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from .reduce import (
    ReduceL1,
    ReduceL2,
    ReduceLogSum,
    ReduceLogSumExp,
    ReduceMax,
    ReduceMin,
    ReduceProd,
    ReduceSum,
    ReduceSumSquare,
    Reduction,
)
from .reshape import Flatten, Reshape
from .resize import Resize
from .slice import Slice
from .softmax import LogSoftmax, Softmax
from .split import Split
from .top_k import TopK
from .transpose import Transpose
from .where import Where

__all__ = [
    "Abs",
    "Activation",
    "AdaptiveAveragePool",
    "AdaptiveMaxPool",
    "Add",
    "And",
    "ArgMax",
    "ArgMin",
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
    "CumSum",
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
    "GroupNorm",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNorm",
    "LayerNorm",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "LocallyConnected",
    "Log",
    "LogSoftmax",
    "LpNorm",
    "LpPool",
    "MaxPool",
    "MaxPoolIndices",
    "MaxUnpool",
    "Maximum",
    "Maxout",
    "Mean",
    "MeanVarianceNorm",
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
    "RMSNorm",
    "Reciprocal",
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
    "TiledConv",
    "TopK",
    "Transpose",
    "Where",
    "Xor",
]
