"""Random operators that move, choose, join, cut, look up and reduce."""

import math

import numpy as np
from onnx import TensorProto

from .draft import Draft, family, value, weight

KINDS = ("float32", "float32", "float32", "int64", "int32", "bool", "uint8")

REDUCTIONS = {
    "ReduceSum": "terms",
    "ReduceMean": "terms",
    "ReduceL1": "terms",
    "ReduceSumSquare": "terms",
    "ReduceL2": "share",
    "ReduceMax": "exact",
    "ReduceMin": "exact",
    "ReduceProd": "share",
    "ReduceLogSum": "share",
    "ReduceLogSumExp": "share",
}


def any_shape(d, least=1):
    """Return the shape of an image or of any tensor."""
    return d.image(elements=3000) if d.chance(0.5) else d.shape(least, 5, 2000)


def signed(d, axis, rank):
    """Return an axis, sometimes counted from the back."""
    return axis - rank if d.chance(0.3) else axis


@family("Transpose")
def transpose(d, op):
    shape = any_shape(d)
    attributes = {"perm": d.order(len(shape))} if d.chance(0.8) else {}
    return Draft(op, d.opset(op), [value(d.array(shape, d.one_of(*KINDS)))], attributes)


@family("Reshape")
def reshape(d, op):
    shape = any_shape(d)
    whole = [*shape, d.one_of(1, 2, 3)]
    total = math.prod(shape)
    kept = d.integer(0, len(shape))
    wanted = [0] * d.integer(0, kept)
    rest = total // math.prod(shape[: len(wanted)])
    while rest > 1 and d.chance(0.7):
        divisors = [n for n in range(1, rest + 1) if rest % n == 0]
        wanted.append(d.one_of(*divisors))
        rest //= wanted[-1]
    wanted.append(rest)
    if d.chance(0.5):
        wanted[d.integer(0, len(wanted) - 1)] = -1
    if wanted.count(0) and d.chance(0.1):
        wanted = [whole[i] if n == 0 else n for i, n in enumerate(wanted)]
    x = value(d.array(shape, d.one_of(*KINDS)))
    return Draft(op, d.opset(op), [x, weight(np.int64(wanted))])


@family("Flatten")
def flatten(d, op):
    opset = d.opset(op)
    shape = any_shape(d)
    rank = len(shape)
    axis = d.integer(0 if opset < 11 else -rank, rank)
    attributes = {"axis": axis} if d.chance(0.8) else {}
    return Draft(op, opset, [value(d.array(shape))], attributes)


@family("Squeeze", "Unsqueeze")
def ones(d, op):
    opset = d.opset(op)
    shape = [1 if d.chance(0.4) else n for n in any_shape(d)]
    rank = len(shape)
    if op == "Squeeze":
        axes = [i for i, n in enumerate(shape) if n == 1]
        axes = d.some_of(axes, min(1, len(axes)))
    else:
        axes = sorted(d.some_of(range(rank + 2), 1)[:2])
        rank += len(axes)
        axes = [a for a in axes if a < rank] or [0]
        rank = len(shape) + len(axes)
        axes = [min(a, rank - 1) for a in axes]
        axes = sorted(set(axes))
        rank = len(shape) + len(axes)
    if opset >= 11:
        axes = [signed(d, a, rank) for a in axes]
    x = value(d.array(shape, d.one_of(*KINDS)))
    given = bool(axes) and (op == "Unsqueeze" or d.chance(0.8))
    if opset < 13:
        return Draft(op, opset, [x], {"axes": axes} if given else {})
    return Draft(op, opset, [x, weight(np.int64(axes))] if given else [x])


@family("Concat")
def concat(d, op):
    opset = d.opset(op)
    shape = any_shape(d)
    rank = len(shape)
    axis = d.integer(0, rank - 1)
    dtype = d.one_of(*KINDS)
    operands = []
    for _ in range(d.integer(1, 4)):
        sizes = [*shape]
        sizes[axis] = d.integer(1, 9)
        make = weight if operands and d.chance(0.3) else value
        operands.append(make(d.array(sizes, dtype)))
    axis = axis if opset < 11 else signed(d, axis, rank)
    return Draft(op, opset, operands, {"axis": axis})


@family("Split")
def split(d, op):
    opset = d.opset(op)
    shape = any_shape(d)
    rank = len(shape)
    axis = d.integer(0, rank - 1)
    parts = [d.integer(1, 6) for _ in range(d.integer(1, 4))]
    if d.chance(0.4):
        parts = [parts[0]] * len(parts)
    shape[axis] = sum(parts)
    even = len(set(parts)) == 1
    attributes = {}
    if axis or d.chance(0.5):
        attributes["axis"] = axis if opset < 11 else signed(d, axis, rank)
    operands = [value(d.array(shape, d.one_of(*KINDS)))]
    if opset >= 18 and (even and d.chance(0.6)):
        attributes["num_outputs"] = len(parts)
        if d.chance(0.4) and shape[axis] > 2 * len(parts):
            operands[0] = value(
                d.array([*shape[:axis], shape[axis] - 1, *shape[axis + 1 :]])
            )
    elif not even or d.chance(0.5) or opset >= 18:
        if opset < 13:
            attributes["split"] = parts
        else:
            operands.append(weight(np.int64(parts)))
    return Draft(op, opset, operands, attributes, outputs=len(parts))


@family("Slice")
def cut(d, op):
    opset = d.opset(op)
    shape = any_shape(d)
    rank = len(shape)
    axes = d.some_of(range(rank), 1)
    if d.chance(0.3):
        axes = list(range(d.integer(1, rank)))
    starts, ends, steps = [], [], []
    for axis in axes:
        n = shape[axis]
        step = d.one_of(1, 1, 1, 2, 3, -1, -2) if opset >= 10 else 1
        a, b = sorted((d.integer(0, n), d.integer(0, n)))
        if a == b and d.chance(0.9):
            a, b = 0, n
        first, last = (a, b) if step > 0 else (b - 1, a - 1)
        if d.chance(0.2):
            last = d.one_of(2**31 - 1, 2**63 - 1) if step > 0 else -(2**31)
        elif last >= 0 and last < n and d.chance(0.3):
            last -= n
        elif last < 0:
            last = -n - 1
        if 0 <= first < n and d.chance(0.3):
            first -= n
        starts.append(first)
        ends.append(last)
        steps.append(step)
    x = value(d.array(shape, d.one_of(*KINDS)))
    plain = axes == list(range(len(axes))) and d.chance(0.5)
    if opset < 10:
        attributes = {"starts": starts, "ends": ends}
        if not plain:
            attributes["axes"] = axes
        return Draft(op, opset, [x], attributes)
    operands = [x, weight(np.int64(starts)), weight(np.int64(ends))]
    if not plain:
        operands.append(weight(np.int64([signed(d, a, rank) for a in axes])))
    if set(steps) != {1} or d.chance(0.3):
        if plain:
            operands.append(None)
        operands.append(weight(np.int64(steps)))
    return Draft(op, opset, operands)


@family("Gather")
def gather(d, op):
    opset = d.opset(op)
    shape = any_shape(d)
    axis = d.integer(0, len(shape) - 1)
    n = shape[axis]
    least = -n if opset >= 11 else 0
    places = d.rng.integers(least, n, d.shape(0, 2, 12)).astype(
        d.one_of("int64", "int32")
    )
    make = weight if d.chance(0.6) else value
    attributes = {"axis": signed(d, axis, len(shape))} if axis or d.chance(0.5) else {}
    x = value(d.array(shape, d.one_of(*KINDS)))
    return Draft(op, opset, [x, make(places)], attributes)


@family("GatherElements")
def gather_elements(d, op):
    shape = d.shape(1, 4, 800)
    axis = d.integer(0, len(shape) - 1)
    sizes = [d.integer(1, n) for n in shape]
    sizes[axis] = d.integer(1, 9)
    n = shape[axis]
    places = d.rng.integers(-n, n, sizes)
    x = value(d.array(shape, d.one_of(*KINDS)))
    make = weight if d.chance(0.4) else value
    attributes = {"axis": signed(d, axis, len(shape))} if axis or d.chance(0.5) else {}
    return Draft(op, d.opset(op, 11), [x, make(places)], attributes)


@family("GatherND")
def gather_nd(d, op):
    opset = d.opset(op, 12)
    shape = d.shape(1, 4, 800)
    batch = d.integer(0, len(shape) - 1)
    depth = d.integer(1, len(shape) - batch)
    outer = [*shape[:batch], *d.shape(0, 2, 9)]
    places = np.stack(
        [d.rng.integers(-n, n, outer) for n in shape[batch : batch + depth]], -1
    )
    x = value(d.array(shape, d.one_of(*KINDS)))
    return Draft(op, opset, [x, value(places)], {"batch_dims": batch})


@family("ScatterElements")
def scatter_elements(d, op):
    opset = d.opset(op, 11)
    shape = d.shape(1, 4, 800)
    axis = d.integer(0, len(shape) - 1)
    n = shape[axis]
    sizes = [d.integer(1, m) for m in shape]
    reduction = "none"
    if opset >= 16:
        reduction = d.one_of("none", "add", "mul", *(("max", "min") * (opset >= 18)))
    if reduction == "none":
        lines = np.argsort(d.rng.random([*sizes[:axis], n, *sizes[axis + 1 :]]), axis)
        places = np.take(lines, range(sizes[axis]), axis)
        places = np.where(d.rng.random(places.shape) < 0.3, places - n, places)
    else:
        places = d.rng.integers(-n, n, sizes)
    attributes = {"axis": signed(d, axis, len(shape)), "reduction": reduction}
    dtype = d.one_of("float32", "float32", "int64")
    operands = [
        value(d.array(shape, dtype)),
        value(places),
        value(d.array(sizes, dtype)),
    ]
    return Draft(op, opset, operands, attributes, rule=("share", 1e-5))


@family("ScatterND")
def scatter_nd(d, op):
    opset = d.opset(op, 11)
    shape = d.shape(1, 4, 800)
    depth = d.integer(1, len(shape))
    cells = math.prod(shape[:depth])
    count = d.integer(1, min(cells, 6))
    chosen = d.rng.permutation(cells)[:count]
    reduction = "none"
    if opset >= 16:
        reduction = d.one_of("none", "add", "mul", *(("max", "min") * (opset >= 18)))
    if reduction != "none":
        chosen = d.rng.integers(0, cells, count)
    places = np.stack(np.unravel_index(chosen, shape[:depth]), -1).astype(np.int64)
    dtype = d.one_of("float32", "float32", "int64")
    updates = d.array([count, *shape[depth:]], dtype)
    operands = [value(d.array(shape, dtype)), value(places), value(updates)]
    attributes = {"reduction": reduction}
    return Draft(op, opset, operands, attributes, rule=("share", 1e-5))


@family("Expand")
def expand(d, op):
    shape = d.shape(0, 4, 1000)
    x = value(d.array(d.broadcastable(shape), d.one_of(*KINDS)))
    wanted = [1 if d.chance(0.2) else n for n in shape]
    return Draft(op, d.opset(op, 8), [x, weight(np.int64(wanted))])


@family("Tile")
def tile(d, op):
    shape = any_shape(d)
    times = [d.one_of(1, 1, 2, 3) for _ in shape]
    operands = [value(d.array(shape, d.one_of(*KINDS))), weight(np.int64(times))]
    return Draft(op, d.opset(op), operands)


@family("OneHot")
def one_hot(d, op):
    shape = d.shape(0, 3, 100)
    depth = d.integer(1, 12)
    places = d.rng.integers(-depth, depth + 2, shape)
    values = d.array([2], d.one_of("float32", "int64"))
    axis = d.integer(-1, len(shape))
    kind = d.one_of("int64", "float32", "int32")
    operands = [
        value(places.astype(kind)),
        weight(np.array(depth if d.chance(0.5) else [depth], np.int64)),
        weight(values),
    ]
    return Draft(op, d.opset(op, 9), operands, {"axis": axis})


@family("Trilu")
def trilu(d, op):
    x = value(d.array(d.shape(2, 4, 1000), d.one_of("float32", "int64", "bool")))
    operands = [x]
    if d.chance(0.7):
        operands.append(weight(np.array(d.integer(-9, 9), np.int64)))
    attributes = {"upper": d.integer(0, 1)} if d.chance(0.8) else {}
    return Draft(op, d.opset(op, 14), operands, attributes)


@family("EyeLike")
def eye_like(d, op):
    x = value(d.array([d.integer(1, 9), d.integer(1, 9)], d.one_of("float32", "int64")))
    attributes = {}
    if d.chance(0.5):
        attributes["k"] = d.integer(-9, 9)
    if d.chance(0.5):
        attributes["dtype"] = d.one_of(TensorProto.FLOAT, TensorProto.INT64)
    return Draft(op, d.opset(op, 9), [x], attributes)


@family("TopK")
def top_k(d, op):
    opset = d.opset(op, 10)
    shape = any_shape(d)
    axis = d.integer(0, len(shape) - 1)
    count = d.integer(1, shape[axis])
    x = d.array(shape)
    if d.chance(0.3):
        x = np.round(x)
    attributes = {"axis": signed(d, axis, len(shape))}
    if d.chance(0.5):
        attributes["largest"] = d.integer(0, 1)
    operands = [value(x), weight(np.int64([count]))]
    return Draft(op, opset, operands, attributes, outputs=2)


@family("ArgMax", "ArgMin")
def arg(d, op):
    opset = d.opset(op)
    shape = any_shape(d)
    axis = d.integer(0, len(shape) - 1)
    x = d.array(shape)
    if d.chance(0.4):
        x = np.round(x)
    attributes = {"keepdims": d.integer(0, 1)} if d.chance(0.7) else {}
    if axis or d.chance(0.5):
        attributes["axis"] = axis if opset < 11 else signed(d, axis, len(shape))
    if d.chance(0.4):
        attributes["select_last_index"] = d.integer(0, 1)
    return Draft(op, opset, [value(x)], attributes)


@family("CumSum")
def cumulative(d, op):
    shape = any_shape(d)
    axis = signed(d, d.integer(0, len(shape) - 1), len(shape))
    attributes = {"exclusive": d.integer(0, 1), "reverse": d.integer(0, 1)}
    place = np.array(axis if d.chance(0.7) else [axis], d.one_of("int64", "int32"))
    dtype = d.one_of("float32", "float32", "int64", "int32")
    operands = [value(d.array(shape, dtype)), weight(place)]
    return Draft(op, d.opset(op, 11), operands, attributes, rule=("share", 1e-5))


@family(*REDUCTIONS)
def reduction(d, op):
    opset = d.opset(op)
    shape = any_shape(d)
    rank = len(shape)
    axes = d.some_of(range(rank), 1)
    low = 0.2 if op in ("ReduceLogSum", "ReduceProd") else -2
    dtype = "float32"
    if op in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd") and d.chance(0.2):
        dtype = d.one_of("int32", "int64")
    if op == "ReduceProd":
        shape = [min(n, 6) for n in shape]
    x = value(d.array(shape, dtype, low, 2))
    terms = math.prod(shape[a] for a in axes)
    if opset >= 11:
        axes = [signed(d, a, rank) for a in axes]
    attributes = {"keepdims": d.integer(0, 1)} if d.chance(0.7) else {}
    given = d.chance(0.8)
    if not given:
        terms = math.prod(shape)
    since = 13 if op == "ReduceSum" else 18
    operands = [x]
    if opset < since:
        attributes |= {"axes": axes} if given else {}
    else:
        if given:
            operands.append(weight(np.int64(axes)))
        elif d.chance(0.3):
            operands.append(weight(np.int64([])))
        if d.chance(0.3):
            attributes["noop_with_empty_axes"] = d.integer(0, 1)
    rule = {"terms": ("terms", terms + 1), "share": ("share", 1e-5)}.get(
        REDUCTIONS[op], ("exact", 0)
    )
    return Draft(op, opset, operands, attributes, rule=rule)


@family("ReverseSequence")
def reverse_sequence(d, op):
    shape = d.shape(2, 4, 1000)
    batch = d.integer(0, 1)
    lengths = d.rng.integers(1, shape[1 - batch] + 1, shape[batch])
    attributes = {"batch_axis": batch, "time_axis": 1 - batch}
    make = weight if d.chance(0.4) else value
    return Draft(
        op, d.opset(op, 10), [value(d.array(shape)), make(lengths)], attributes
    )


@family("NonZero")
def non_zero(d, op):
    x = np.round(d.array(d.shape(1, 4, 600)))
    return Draft(op, d.opset(op, 9), [value(x)])


@family("Compress")
def compress(d, op):
    shape = d.shape(1, 4, 600)
    axis = d.integer(0, len(shape) - 1)
    flat = d.chance(0.3)
    length = math.prod(shape) if flat else shape[axis]
    condition = d.array([max(1, length - d.integer(0, 2))], "bool")
    condition[0] = True
    attributes = {} if flat else {"axis": axis}
    make = weight if d.chance(0.4) else value
    return Draft(
        op, d.opset(op, 9), [value(d.array(shape)), make(condition)], attributes
    )


@family("Unique")
def unique(d, op):
    shape = d.shape(1, 3, 300)
    attributes = {"sorted": d.integer(0, 1)}
    if d.chance(0.6):
        attributes["axis"] = signed(d, d.integer(0, len(shape) - 1), len(shape))
    x = value(np.round(d.array(shape)))
    return Draft(op, d.opset(op, 11), [x], attributes, outputs=4)


@family("NonMaxSuppression")
def suppress(d, op):
    batch, classes, count = d.integer(1, 2), d.integer(1, 3), d.integer(1, 30)
    corner = d.array([batch, count, 2], low=0, high=1)
    size = d.array([batch, count, 2], low=0.05, high=0.8)
    centred = d.integer(0, 1)
    boxes = np.concatenate([corner, size if centred else corner + size], -1)
    if not centred and d.chance(0.3):
        boxes = boxes[..., [2, 3, 0, 1]]
    scores = d.array([batch, classes, count], low=0, high=1)
    operands = [
        value(boxes),
        value(scores),
        weight(np.int64([d.integer(1, 10)])),
        weight(np.float32([d.real(0.1, 0.9)])) if d.chance(0.8) else None,
        weight(np.float32([d.real(0.1, 0.9)])) if d.chance(0.5) else None,
    ]
    return Draft(op, d.opset(op, 10), operands, {"center_point_box": centred})


@family("Shape", "Size")
def sizes(d, op):
    opset = d.opset(op)
    attributes = {}
    if opset >= 15 and d.chance(0.6):
        attributes = {"start": d.integer(-3, 2)}
        if d.chance(0.5):
            attributes["end"] = d.integer(-2, 4)
    return Draft(op, opset, [value(d.array(any_shape(d)))], attributes)
