"""Random activations, arithmetic, comparisons and casts."""

import numpy as np
from onnx import TensorProto

from .draft import Draft, family, value, weight

UNARY = {
    "Relu": ("exact", 0),
    "Neg": ("exact", 0),
    "Abs": ("exact", 0),
    "Sign": ("exact", 0),
    "Floor": ("exact", 0),
    "Ceil": ("exact", 0),
    "Round": ("exact", 0),
    "Sqrt": ("ulps", 1),
    "Reciprocal": ("ulps", 1),
    "Sigmoid": ("share", 1e-6),
    "Tanh": ("share", 1e-6),
    "Exp": ("ulps", 8),
    "Log": ("ulps", 8),
    "Erf": ("share", 1e-6),
    "Softsign": ("ulps", 4),
    "Softplus": ("share", 1e-6),
    "HardSwish": ("share", 1e-6),
    "Mish": ("share", 1e-6),
    "Sin": ("share", 1e-6),
    "Cos": ("share", 1e-6),
    "Tan": ("share", 1e-5),
    "Asin": ("ulps", 16),
    "Acos": ("ulps", 16),
    "Atan": ("ulps", 16),
    "Sinh": ("ulps", 16),
    "Cosh": ("ulps", 16),
    "Asinh": ("share", 1e-6),
    "Acosh": ("share", 1e-6),
    "Atanh": ("share", 1e-6),
}

SCALED = {
    "LeakyRelu": (("alpha",), ("ulps", 1)),
    "Elu": (("alpha",), ("share", 1e-6)),
    "Selu": (("alpha", "gamma"), ("share", 1e-6)),
    "Celu": (("alpha",), ("share", 1e-6)),
    "HardSigmoid": (("alpha", "beta"), ("share", 1e-6)),
    "ThresholdedRelu": (("alpha",), ("exact", 0)),
    "Shrink": (("bias", "lambd"), ("ulps", 2)),
    "Swish": (("alpha",), ("share", 1e-6)),
}

FLOATS_AND_INTS = ("float32", "float32", "int32", "int64")


@family(*UNARY)
def unary(d, op):
    low, high = {
        "Sqrt": (0, 9),
        "Log": (0.01, 9),
        "Asin": (-1, 1),
        "Acos": (-1, 1),
        "Acosh": (1, 9),
        "Atanh": (-0.99, 0.99),
        "Tan": (-1.4, 1.4),
    }.get(op, (-6, 6))
    shape = d.image() if d.chance(0.5) else d.shape(0, 5)
    x = d.array(shape, low=low, high=high)
    if op in ("Neg", "Abs", "Sign") and d.chance(0.3):
        x = d.array(shape, d.one_of("int32", "int64"))
    return Draft(op, d.opset(op), [value(x)], rule=UNARY[op])


@family(*SCALED)
def scaled(d, op):
    names, rule = SCALED[op]
    attributes = {name: abs(d.real(0.1, 2)) for name in names if d.chance(0.7)}
    shape = d.image() if d.chance(0.5) else d.shape(0, 5)
    x = value(d.array(shape, low=-4, high=4))
    return Draft(op, d.opset(op), [x], attributes, rule=rule)


@family("Gelu")
def gelu(d, op):
    attributes = {"approximate": d.one_of("none", "tanh")} if d.chance(0.7) else {}
    x = value(d.array(d.image(), low=-4, high=4))
    return Draft(op, d.opset(op, 20), [x], attributes, rule=("share", 2e-6))


def pair(d, shape):
    """Return two shapes that broadcast together to `shape`."""
    left, right = list(shape), d.broadcastable(shape)
    if d.chance(0.2):
        left = [1 if d.chance(0.25) else n for n in left]
    return (left, right) if d.chance(0.5) else (right, left)


def either(d, array):
    """Return an operand that is fed or that the model holds."""
    return weight(array) if d.chance(0.4) else value(array)


def two(d, dtype, low=-3.0, high=3.0, least=0):
    """Return two operands that broadcast, at least one of them fed."""
    shape = d.image(elements=4000) if d.chance(0.5) else d.shape(least, 5, 2000)
    left, right = (d.array(s, dtype, low, high) for s in pair(d, shape))
    kept = d.integer(0, 1)
    operands = [either(d, left), either(d, right)]
    operands[kept].constant = False
    return operands


@family("Add", "Sub", "Mul")
def arithmetic(d, op):
    operands = two(d, d.one_of(*FLOATS_AND_INTS))
    return Draft(op, d.opset(op), operands, rule=("ulps", 1))


@family("Div")
def divide(d, op):
    dtype = d.one_of(*FLOATS_AND_INTS)
    operands = two(d, dtype)
    below = operands[1].array
    small = np.abs(below) < 0.1
    below[small] = 1
    return Draft(op, d.opset(op), operands, rule=("ulps", 1))


@family("Pow")
def power(d, op):
    operands = two(d, "float32", 0.1, 3.0)
    if d.chance(0.3):
        operands[1].array = np.array(d.one_of(2, 3, 0.5, -1, 1, 0), np.float32)
        operands = [value(operands[0].array), weight(operands[1].array)]
    return Draft(op, d.opset(op), operands, rule=("ulps", 8))


@family("Mod")
def modulo(d, op):
    opset = d.opset(op, 10)
    dtype = d.one_of("float32", "int32", "int64", "uint8")
    operands = two(d, dtype, 0.5, 6.0)
    operands[1].array[operands[1].array == 0] = 1
    attributes = {"fmod": 1} if dtype == "float32" or d.chance(0.3) else {}
    return Draft(op, opset, operands, attributes, rule=("exact", 0))


@family("Max", "Min", "Sum", "Mean")
def several(d, op):
    opset = d.opset(op, 8)
    dtype = (
        "float32" if opset < 12 or op in ("Sum", "Mean") else d.one_of(*FLOATS_AND_INTS)
    )
    shape = d.image(elements=3000) if d.chance(0.5) else d.shape(0, 4, 1000)
    arrays = [d.array(shape, dtype)]
    arrays += [d.array(d.broadcastable(shape), dtype) for _ in range(d.integer(0, 3))]
    operands = [value(arrays[0]), *(either(d, a) for a in arrays[1:])]
    operands = [operands[i] for i in d.order(len(operands))]
    rule = ("terms", len(operands) + 1) if op in ("Sum", "Mean") else ("exact", 0)
    return Draft(op, opset, operands, rule=rule)


@family("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
def comparison(d, op):
    opset = d.opset(op, 9 if op in ("Greater", "Less") else 11)
    dtype = d.one_of(*FLOATS_AND_INTS)
    operands = two(d, dtype)
    for operand in operands:
        operand.array = np.round(operand.array)
    return Draft(op, opset, operands)


@family("And", "Or", "Xor")
def logic(d, op):
    return Draft(op, d.opset(op), two(d, "bool"))


@family("BitwiseAnd", "BitwiseOr", "BitwiseXor")
def bitwise(d, op):
    dtype = d.one_of("int32", "int64", "uint8", "int8")
    return Draft(op, d.opset(op), two(d, dtype))


@family("Not", "BitwiseNot", "IsNaN", "IsInf")
def single(d, op):
    shape = d.image(elements=3000)
    attributes = {}
    if op == "Not":
        x = d.array(shape, "bool")
    elif op == "BitwiseNot":
        x = d.array(shape, d.one_of("int32", "int64", "uint8"))
    else:
        x = d.array(shape)
        places = d.rng.random(shape)
        x[places < 0.2] = np.nan
        x[places > 0.8] = np.inf
        x[places > 0.9] = -np.inf
        if op == "IsInf":
            attributes = {"detect_negative": d.integer(0, 1)}
            attributes["detect_positive"] = d.integer(0, 1)
    return Draft(op, d.opset(op), [value(x)], attributes)


@family("Clip")
def clip(d, op):
    opset = d.opset(op)
    dtype = "float32" if opset < 12 else d.one_of(*FLOATS_AND_INTS)
    x = value(d.array(d.image(elements=4000), dtype, -6, 6))
    low, high = d.array([], dtype, -3, 1), d.array([], dtype, 1, 3)
    has_low, has_high = d.chance(0.7), d.chance(0.7)
    if opset < 11:
        attributes = {}
        if has_low:
            attributes["min"] = float(low)
        if has_high:
            attributes["max"] = float(high)
        return Draft(op, opset, [x], attributes)
    operands = [x, either(d, low) if has_low else None]
    operands.append(either(d, high) if has_high else None)
    return Draft(op, opset, operands)


@family("PRelu")
def prelu(d, op):
    shape = d.image(elements=4000) if d.chance(0.7) else d.shape(1, 4)
    slope = d.array(d.broadcastable(shape))
    if len(shape) > 2 and d.chance(0.4):
        slope = d.array([shape[1], *[1] * (len(shape) - 2)])
    return Draft(
        op, d.opset(op), [value(d.normal(shape)), either(d, slope)], rule=("ulps", 1)
    )


@family("Where")
def where(d, op):
    dtype = d.one_of(*FLOATS_AND_INTS)
    shape = d.image(elements=3000) if d.chance(0.5) else d.shape(0, 4, 1000)
    shapes = [shape, d.broadcastable(shape), d.broadcastable(shape)]
    shapes = [shapes[i] for i in d.order(3)]
    condition, *arrays = (
        d.array(s, kind) for s, kind in zip(shapes, ("bool", dtype, dtype), strict=True)
    )
    operands = [value(condition), *(either(d, a) for a in arrays)]
    return Draft(op, d.opset(op), operands)


@family("Cast")
def cast(d, op):
    kinds = ("float32", "int32", "int64", "uint8", "int8", "bool")
    x = d.array(d.image(elements=3000), d.one_of(*kinds), 0, 6)
    to = d.one_of("FLOAT", "INT32", "INT64", "BOOL", "UINT8", "INT8", "DOUBLE")
    if to == "UINT8":
        x = np.abs(x)
    attributes = {"to": getattr(TensorProto, to)}
    return Draft(op, d.opset(op), [value(x)], attributes)


@family("Softmax", "LogSoftmax", "Hardmax")
def softmax(d, op):
    shape = d.image(elements=4000) if d.chance(0.5) else d.shape(1, 5)
    rank = len(shape)
    attributes = {"axis": d.integer(-rank, rank - 1)} if d.chance(0.8) else {}
    opset = d.opset(op)
    if opset < 11 and "axis" in attributes:
        attributes["axis"] %= rank
    if opset < 13 and rank == 1:
        attributes["axis"] = 0
    x = value(d.array(shape, low=-5, high=5))
    rule = ("exact", 0) if op == "Hardmax" else ("share", 2e-6)
    return Draft(op, opset, [x], attributes, rule=rule)


@family("Identity", "Dropout")
def nothing(d, op):
    return Draft(op, d.opset(op), [value(d.normal(d.shape(0, 5)))])
