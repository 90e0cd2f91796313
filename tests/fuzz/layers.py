"""Random normalisation, products, recurrent and quantised layers."""

import math

import numpy as np

from .draft import Draft, family, value, weight
from .windows import Geometry, grouped


@family("BatchNormalization")
def batch_normalisation(d, op):
    shape = d.image() if d.chance(0.8) else d.shape(2, 2)
    c = shape[1]
    statistics = [
        d.normal([c]),
        d.normal([c]),
        d.normal([c]),
        d.array([c], low=0.1, high=3),
    ]
    operands = [value(d.normal(shape)), *map(weight, statistics)]
    attributes = {"epsilon": d.one_of(1e-5, 1e-3, 0.1)} if d.chance(0.6) else {}
    return Draft(op, d.opset(op), operands, attributes, rule=("share", 1e-5))


@family("InstanceNormalization")
def instance_normalisation(d, op):
    shape = d.image()
    weights = [weight(d.normal([shape[1]])) for _ in range(2)]
    attributes = {"epsilon": d.one_of(1e-5, 1e-2)} if d.chance(0.6) else {}
    operands = [value(d.normal(shape)), *weights]
    return Draft(op, d.opset(op), operands, attributes, rule=("share", 1e-4))


@family("GroupNormalization")
def group_normalisation(d, op):
    opset = d.opset(op, 18)
    batch, channels, *spatial = d.image()
    groups = d.one_of(*(n for n in range(1, channels + 1) if channels % n == 0))
    size = groups if opset < 21 else channels
    operands = [
        value(d.normal([batch, channels, *spatial])),
        weight(d.normal([size])),
        weight(d.normal([size])),
    ]
    attributes = {"num_groups": groups, "epsilon": d.one_of(1e-5, 1e-2)}
    return Draft(op, opset, operands, attributes, rule=("share", 1e-4))


@family("LayerNormalization", "RMSNormalization")
def layer_normalisation(d, op):
    shape = d.image() if d.chance(0.5) else d.shape(1, 5)
    rank = len(shape)
    axis = d.integer(0, rank - 1)
    sizes = shape[axis:]
    attributes = {"axis": axis - rank if d.chance(0.5) else axis}
    if d.chance(0.5):
        attributes["epsilon"] = d.one_of(1e-5, 1e-2)
    operands = [value(d.normal(shape)), weight(d.normal(sizes))]
    outputs = 1
    if op == "LayerNormalization":
        if d.chance(0.7):
            operands.append(weight(d.normal(sizes)))
        outputs = d.one_of(1, 1, 3)
    opset = d.opset(op, 17 if op == "LayerNormalization" else 23)
    return Draft(op, opset, operands, attributes, outputs, ("share", 1e-4))


@family("LRN")
def lrn(d, op):
    attributes = {"size": d.one_of(1, 3, 5, 7, d.integer(1, 9))}
    if d.chance(0.7):
        attributes |= {
            "alpha": d.real(1e-4, 2),
            "beta": d.one_of(0.5, 0.75, 1.0, d.real(0.1, 2)),
            "bias": d.real(0.5, 3),
        }
    x = value(d.normal(d.image(d.one_of(2, 2, 2, 2, 2, 2, 1, 3))))
    return Draft(op, d.opset(op), [x], attributes, rule=("share", 1e-5))


@family("LpNormalization")
def lp_normalisation(d, op):
    shape = d.image() if d.chance(0.5) else d.shape(1, 4)
    rank = len(shape)
    attributes = {"p": d.integer(1, 2), "axis": d.integer(-rank, rank - 1)}
    x = value(d.normal(shape) + np.float32(0.01))
    return Draft(op, d.opset(op), [x], attributes, rule=("share", 1e-5))


@family("MeanVarianceNormalization")
def mean_variance(d, op):
    shape = d.image(2)
    attributes = {"axes": [*d.some_of(range(3)), 3]} if d.chance(0.7) else {}
    shape[3] = max(shape[3], 2)
    x = value(d.normal(shape))
    return Draft(op, d.opset(op, 9), [x], attributes, rule=("share", 1e-3))


@family("MatMul")
def matmul(d, op):
    m, k, n = (d.channels(40) for _ in range(3))
    outer = d.shape(0, 2, 6)
    left, right = [*outer, m, k], [*d.broadcastable(outer), k, n]
    if d.chance(0.1):
        left = [k]
    if d.chance(0.1):
        right = [k]
    operands = [value(d.normal(left)), value(d.normal(right))]
    operands[d.integer(0, 1)].constant = d.chance(0.6)
    return Draft(op, d.opset(op), operands, rule=("terms", k))


@family("Gemm")
def gemm(d, op):
    opset = d.opset(op)
    m, k, n = (d.channels(40) for _ in range(3))
    flips = d.integer(0, 1), d.integer(0, 1)
    left = [k, m] if flips[0] else [m, k]
    right = [n, k] if flips[1] else [k, n]
    operands = [value(d.normal(left)), value(d.normal(right))]
    operands[d.one_of(1, 1, 1, 0)].constant = d.chance(0.8)
    attributes = {"transA": flips[0], "transB": flips[1]}
    if d.chance(0.4):
        attributes |= {"alpha": d.real(0.2, 2), "beta": d.one_of(1.0, d.real(0.2, 2))}
    if d.chance(0.7) or opset < 11:
        bias = d.normal(d.one_of([n], [1, n], [m, n], [m, 1], [1], []))
        operands.append(weight(bias) if d.chance(0.7) else value(bias))
    return Draft(op, opset, operands, attributes, rule=("terms", k + 2))


@family("Einsum")
def einsum(d, op):
    sizes = {c: d.integer(1, 9) for c in "abcdeij"}
    equation = d.one_of(
        "ij,jk->ik".replace("k", "a"),
        "bij,bja->bia",
        "abcd->adbc",
        "abij,abjc->abic",
        "abc->ac",
        "ij->",
        "i,j->ij",
        "abi,aci->abc",
        "ab,ab->a",
        "abcd,ce->abed",
        "aij,aij",
    )
    reads = equation.split("->")[0].split(",")
    operands = [value(d.normal([sizes[c] for c in letters])) for letters in reads]
    if len(operands) > 1 and d.chance(0.4):
        operands[1].constant = True
    terms = math.prod(sizes.values())
    attributes = {"equation": equation}
    return Draft(op, d.opset(op, 12), operands, attributes, rule=("terms", terms))


@family("Det")
def det(d, op):
    n = d.integer(1, 5)
    x = value(d.normal([*d.shape(0, 2, 9), n, n]))
    return Draft(op, d.opset(op, 11), [x], rule=("share", 1e-4))


@family("LSTM", "GRU", "RNN")
def recurrent(d, op):
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    steps, batch, inputs, hidden = (d.integer(1, n) for n in (6, 3, 17, 17))
    direction = d.one_of("forward", "reverse", "bidirectional")
    directions = 2 if direction == "bidirectional" else 1
    rows = gates * hidden
    state = [directions, batch, hidden]
    operands = [
        value(d.normal([steps, batch, inputs])),
        weight(d.normal([directions, rows, inputs], 0.4)),
        weight(d.normal([directions, rows, hidden], 0.4)),
        weight(d.normal([directions, 2 * rows], 0.4)) if d.chance(0.7) else None,
        None,
        (value if d.chance(0.5) else weight)(d.normal(state))
        if d.chance(0.5)
        else None,
    ]
    if d.chance(0.3):
        lengths = d.rng.integers(1, steps + 1, batch).astype(np.int32)
        operands[4] = (value if d.chance(0.6) else weight)(lengths)
    if op == "LSTM":
        operands.append(value(d.normal(state)) if d.chance(0.5) else None)
        peephole = weight(d.normal([directions, 3 * hidden], 0.4))
        operands.append(peephole if d.chance(0.3) else None)
    attributes = {"hidden_size": hidden, "direction": direction}
    if op == "GRU" and d.chance(0.7):
        attributes["linear_before_reset"] = d.integer(0, 1)
    if d.chance(0.2):
        attributes["clip"] = d.real(0.3, 2)
    if op == "LSTM" and d.chance(0.15):
        attributes["input_forget"] = 1
    if op == "RNN" and d.chance(0.4):
        attributes["activations"] = [d.one_of("Tanh", "Relu", "Sigmoid")] * directions
    while operands[-1] is None:
        operands.pop()
    outputs = d.integer(1, 3 if op == "LSTM" else 2)
    return Draft(op, d.opset(op), operands, attributes, outputs, ("share", 2e-5))


def scale_of(d, *shape):
    """Return a positive scale."""
    return d.array(shape, low=0.01, high=0.1)


def point(d, dtype, *shape):
    """Return a zero point."""
    low, high = (0, 255) if dtype == "uint8" else (-128, 127)
    return d.rng.integers(low // 2, high // 2, shape).astype(dtype)


@family("QuantizeLinear", "DequantizeLinear")
def quantise(d, op):
    opset = d.opset(op, 10)
    shape = d.image(elements=3000)
    dtype = d.one_of("uint8", "int8")
    axis = d.integer(0, len(shape) - 1)
    each = [shape[axis]] if opset >= 13 and d.chance(0.5) else []
    if op == "QuantizeLinear":
        x = d.array(shape, low=-6, high=6)
    else:
        x = point(d, dtype, *shape)
    operands = [value(x), weight(scale_of(d, *each))]
    if d.chance(0.8) or dtype == "int8":
        operands.append(weight(point(d, dtype, *each)))
    attributes = {"axis": axis} if each or d.chance(0.3) else {}
    return Draft(op, opset, operands, attributes, rule=("ulps", 1))


@family("DynamicQuantizeLinear")
def dynamic_quantise(d, op):
    x = value(d.array(d.image(elements=3000), low=d.real(-3, 1), high=d.real(1.1, 4)))
    return Draft(op, d.opset(op, 11), [x], outputs=3, rule=("ulps", 1))


@family("MatMulInteger")
def matmul_integer(d, op):
    m, k, n = (d.channels(40) for _ in range(3))
    operands = [
        value(point(d, "uint8", m, k)),
        weight(point(d, "uint8", k, n)),
        weight(point(d, "uint8")) if d.chance(0.7) else None,
        weight(point(d, "uint8")) if d.chance(0.7) else None,
    ]
    return Draft(op, d.opset(op, 10), operands)


@family("QLinearMatMul")
def quantised_matmul(d, op):
    m, k, n = (d.channels(40) for _ in range(3))
    dtype = d.one_of("uint8", "int8")
    operands = [
        value(point(d, dtype, m, k)),
        weight(scale_of(d)),
        weight(point(d, dtype)),
        weight(point(d, dtype, k, n)),
        weight(scale_of(d)),
        weight(point(d, dtype)),
        weight(scale_of(d) * np.float32(20)),
        weight(point(d, dtype)),
    ]
    return Draft(op, d.opset(op, 10), operands, rule=("steps", 1))


@family("ConvInteger", "QLinearConv")
def quantised_convolution(d, op):
    shape = d.image(elements=4000, channels=24)
    spatial = list(shape[2:])
    window = Geometry(d, spatial, 4)
    groups, inputs, outputs = grouped(d, shape[1], 24)
    x = value(point(d, "uint8", shape[0], inputs, *spatial))
    kernel = weight(point(d, "uint8", outputs, inputs // groups, *window.kernel))
    attributes = {**window.attributes(d), "group": groups}
    if op == "ConvInteger":
        operands = [x, kernel]
        if d.chance(0.7):
            operands.append(weight(point(d, "uint8")))
            if d.chance(0.7):
                operands.append(weight(point(d, "uint8")))
        return Draft(op, d.opset(op, 10), operands, attributes)
    taps = inputs // groups * math.prod(window.kernel)
    operands = [
        x,
        weight(scale_of(d)),
        weight(point(d, "uint8")),
        kernel,
        weight(scale_of(d)),
        weight(point(d, "uint8")),
        weight(scale_of(d) * np.float32(3 * math.sqrt(taps))),
        weight(point(d, "uint8")),
    ]
    if d.chance(0.5):
        operands.append(weight(d.rng.integers(-900, 900, outputs).astype(np.int32)))
    return Draft(op, d.opset(op, 10), operands, attributes, rule=("steps", 1))
