"""The operators, one file each; a new file is one more line here."""

from .activation import (
    Abs,
    Acos,
    Acosh,
    Activation,
    Asin,
    Asinh,
    Atan,
    Atanh,
    Ceil,
    Celu,
    Clip,
    Cos,
    Cosh,
    Elementwise,
    Elu,
    Erf,
    Exp,
    Floor,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Log,
    Mish,
    Neg,
    Reciprocal,
    Relu,
    Round,
    Selu,
    Shrink,
    Sigmoid,
    Sign,
    Silu,
    Sin,
    Sinh,
    Softplus,
    Softsign,
    Sqrt,
    Swish,
    Tan,
    Tanh,
    ThresholdedRelu,
)
from .adaptive_pool import AdaptiveAveragePool, AdaptiveMaxPool, FractionalMaxPool
from .arg_reduce import ArgMax, ArgMin
from .base import Op
from .batch_norm import BatchNorm
from .binary import Add, Binary, Div, Maximum, Minimum, Mod, Mul, Pow, PRelu, Sub
from .cast import Cast
from .center_crop_pad import CenterCropPad
from .channel_shuffle import ChannelShuffle
from .classify import IsInf, IsNaN
from .col2im import Col2Im
from .compare import Equal, Greater, GreaterOrEqual, Less, LessOrEqual
from .concat import Concat
from .constant import Constant
from .conv import Conv
from .conv_transpose import ConvTranspose
from .cumulative import CumSum
from .deform_conv import DeformConv
from .dense import Dense
from .depth_to_space import DepthToSpace, SpaceToDepth
from .det import Det
from .dynamic import Compress, NonMaxSuppression, NonZero, Unique
from .gather import Gather, GatherElements, GatherND
from .grid_sample import AffineGrid, GridSample
from .identity import Identity
from .integer_product import ConvInteger, MatMulInteger, QLinearConv, QLinearMatMul
from .locally_connected import LocallyConnected, TiledConv
from .logic import And, BitwiseAnd, BitwiseNot, BitwiseOr, BitwiseXor, Not, Or, Xor
from .lp_pool import GlobalLpPool, LpPool
from .lrn import LRN
from .mask import EyeLike, OneHot, Trilu
from .matmul import Einsum, MatMul
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
from .quantize import DequantizeLinear, DynamicQuantizeLinear, QuantizeLinear
from .recurrent import GRU, LSTM, RNN
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
from .repeat import Expand, Tile
from .reshape import Flatten, Reshape
from .resize import Resize
from .reverse_sequence import ReverseSequence
from .roi_align import RoiAlign
from .scatter import ScatterElements, ScatterND
from .slice import Slice
from .softmax import Hardmax, LogSoftmax, Softmax
from .split import Split
from .top_k import TopK
from .transpose import Transpose
from .where import Where

__all__ = [
    "GRU",
    "LRN",
    "LSTM",
    "RNN",
    "Abs",
    "Acos",
    "Acosh",
    "Activation",
    "AdaptiveAveragePool",
    "AdaptiveMaxPool",
    "Add",
    "AffineGrid",
    "And",
    "ArgMax",
    "ArgMin",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "AveragePool",
    "BatchNorm",
    "Binary",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Cast",
    "Ceil",
    "Celu",
    "CenterCropPad",
    "ChannelShuffle",
    "Clip",
    "Col2Im",
    "Compress",
    "Concat",
    "Constant",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "Cos",
    "Cosh",
    "CumSum",
    "DeformConv",
    "Dense",
    "DepthToSpace",
    "DequantizeLinear",
    "Det",
    "Div",
    "DynamicQuantizeLinear",
    "Einsum",
    "Elementwise",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "EyeLike",
    "Flatten",
    "Floor",
    "FractionalMaxPool",
    "Gather",
    "GatherElements",
    "GatherND",
    "Gelu",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "GridSample",
    "GroupNorm",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "Identity",
    "InstanceNorm",
    "IsInf",
    "IsNaN",
    "LayerNorm",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "LocallyConnected",
    "Log",
    "LogSoftmax",
    "LpNorm",
    "LpPool",
    "MatMul",
    "MatMulInteger",
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
    "NonMaxSuppression",
    "NonZero",
    "Not",
    "OneHot",
    "Op",
    "Or",
    "PRelu",
    "Pad",
    "Pow",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
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
    "ReverseSequence",
    "RoiAlign",
    "Round",
    "ScatterElements",
    "ScatterND",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Silu",
    "Sin",
    "Sinh",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Sub",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Tile",
    "TiledConv",
    "TopK",
    "Transpose",
    "Trilu",
    "Unique",
    "Where",
    "Xor",
]
