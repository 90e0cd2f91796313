"""Random convolutions and poolings."""

import math

from .draft import Draft, family, value, weight

GROWTH = 25.0
"""How much more than a direct sum F(4x4, 3x3) may be off, errors being of random sign.

The largest root of the sum of squares through its three matrices, both axes together.
"""


class Geometry:
    """A random window over an image.

    Parameters
    ----------
    d : Draw
        Where choices come from.
    spatial : list of int
        The image's sizes; they grow when a window would not fit, most of the time.
    largest : int
        The largest size of the window.
    inside : bool
        Whether padding is smaller than the window, most of the time.
    """

    def __init__(self, d, spatial, largest=7, inside=False):
        rank = len(spatial)
        largest = {1: 2 * largest, 2: largest, 3: min(largest, 4)}[rank]
        self.kernel = [d.one_of(1, 2, 3, 3, d.integer(1, largest)) for _ in range(rank)]
        if d.chance(0.4):
            self.kernel = [min(self.kernel[0], largest)] * rank
        self.strides = [d.one_of(1, 1, 2, d.integer(1, 5)) for _ in range(rank)]
        self.dilations = [1] * rank
        if d.chance(0.3):
            self.dilations = [d.one_of(1, 2, 3, d.integer(1, 9)) for _ in range(rank)]
        self.auto_pad = "NOTSET"
        self.pads = [0] * (2 * rank)
        way = d.one_of("none", "same", "symmetric", "any", "any", "large", "VALID")
        taps = zip(self.kernel, self.dilations, strict=True)
        reach = [(k - 1) * e + 1 for k, e in taps]
        if way == "same":
            self.auto_pad = d.one_of("SAME_UPPER", "SAME_LOWER")
        elif way == "VALID":
            self.auto_pad = "VALID"
        elif way != "none":
            most = [r + 2 if way == "large" else r - 1 for r in reach]
            if inside and d.chance(0.9):
                most = [k - 1 for k in self.kernel]
            before = [d.integer(0, min(m, 9)) for m in most]
            after = [d.integer(0, min(m, 9)) for m in most]
            self.pads = before + (before if way == "symmetric" else after)
        if d.chance(0.9) and self.auto_pad != "SAME_UPPER":
            for axis in range(rank):
                missing = (
                    reach[axis]
                    - spatial[axis]
                    - self.pads[axis]
                    - self.pads[axis + rank]
                )
                spatial[axis] += max(0, missing)

    def attributes(self, d):
        """Return the window as attributes; what is the default may be left out."""
        found = {
            "kernel_shape": self.kernel,
            "strides": self.strides,
            "dilations": self.dilations,
            "pads": self.pads,
            "auto_pad": self.auto_pad,
        }
        rank = len(self.kernel)
        if self.auto_pad != "NOTSET" or (not any(self.pads) and d.chance(0.5)):
            del found["pads"]
        if self.auto_pad == "NOTSET" and d.chance(0.5):
            del found["auto_pad"]
        for name in ("strides", "dilations"):
            if found[name] == [1] * rank and d.chance(0.5):
                del found[name]
        return found


def grouped(d, inputs, most=70):
    """Return groups, input channels and output channels."""
    way = d.one_of("one", "one", "one", "depthwise", "multiplier", "some")
    if way == "one":
        return 1, inputs, d.channels(most)
    if way == "depthwise":
        return inputs, inputs, inputs
    if way == "multiplier":
        return inputs, inputs, inputs * d.integer(1, 3)
    groups = d.integer(1, 5)
    part = max(1, inputs // groups)
    return groups, groups * part, groups * d.integer(1, max(1, most // groups))


@family("Conv")
def conv(d, op):
    shape = d.image()
    spatial = list(shape[2:])
    window = Geometry(d, spatial)
    groups, inputs, outputs = grouped(d, shape[1])
    terms = inputs // groups * math.prod(window.kernel)
    outputs = groups * max(1, min(outputs, 60_000 // terms) // groups)
    x = d.normal([shape[0], inputs, *spatial])
    kernel = d.normal([outputs, inputs // groups, *window.kernel])
    operands = [value(x), weight(kernel)]
    if d.chance(0.6):
        operands.append(weight(d.normal([outputs])))
    attributes = window.attributes(d)
    if groups > 1 or d.chance(0.5):
        attributes["group"] = groups
    if d.chance(0.3):
        del attributes["kernel_shape"]
    rule = ("terms", terms + 1)
    rows = 2 < window.kernel[-1] / window.strides[-1] <= 5 and outputs >= 16
    if groups == 1 and (
        rows or (window.kernel == [3, 3] and min(inputs, outputs) >= 16)
    ):
        rule = ("filtered", terms + 1)
    return Draft(op, d.opset(op), operands, attributes, rule=rule)


@family("ConvTranspose")
def conv_transpose(d, op):
    shape = d.image(elements=6000)
    spatial = list(shape[2:])
    window = Geometry(d, spatial, 5)
    rank = len(spatial)
    groups, inputs, outputs = grouped(d, shape[1])
    outputs //= groups
    outputs = max(1, min(outputs, 30_000 // (inputs * math.prod(window.kernel))))
    operands = [
        value(d.normal([shape[0], inputs, *spatial])),
        weight(d.normal([inputs, outputs, *window.kernel])),
    ]
    if d.chance(0.6):
        operands.append(weight(d.normal([outputs * groups])))
    attributes = window.attributes(d)
    if groups > 1 or d.chance(0.5):
        attributes["group"] = groups
    if d.chance(0.3):
        del attributes["kernel_shape"]
    if d.chance(0.4):
        attributes["output_padding"] = [
            d.integer(0, max(s, e) - 1 if d.chance(0.9) else max(s, e))
            for s, e in zip(window.strides, window.dilations, strict=True)
        ]
    if d.chance(0.2):
        attributes["output_shape"] = [
            max(1, (n - 1) * s + (k - 1) * e + 1 + d.integer(-3, 3 if s > 3 else 1))
            for n, s, k, e in zip(
                spatial, window.strides, window.kernel, window.dilations, strict=False
            )
        ]
        attributes.pop("pads", None)
        if rank > 1 and d.chance(0.05):
            attributes["output_shape"] = [
                1,
                outputs * groups,
                *attributes["output_shape"],
            ]
    terms = inputs // groups * math.prod(window.kernel) + 1
    return Draft(op, d.opset(op), operands, attributes, rule=("terms", terms))


@family("MaxPool", "AveragePool", "LpPool")
def pool(d, op):
    shape = d.image()
    spatial = list(shape[2:])
    window = Geometry(d, spatial, inside=True)
    attributes = window.attributes(d)
    if d.chance(0.5):
        attributes["ceil_mode"] = d.integer(0, 1)
    if d.chance(0.5):
        attributes["count_include_pad"] = d.integer(0, 1)
    if op == "LpPool" and d.chance(0.7):
        attributes["p"] = d.integer(1, 4)
    outputs = 1
    if op == "MaxPool" and d.chance(0.25):
        outputs = 2
        attributes["storage_order"] = d.integer(0, 1)
    rules = {
        "MaxPool": ("exact", 0),
        "AveragePool": ("terms", math.prod(window.kernel)),
        "LpPool": ("ulps", 8 + 2 * math.sqrt(math.prod(window.kernel))),
    }
    x = d.normal([*shape[:2], *spatial])
    return Draft(op, d.opset(op), [value(x)], attributes, outputs, rules[op])


@family("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(d, op):
    shape = d.image()
    x = d.normal(shape)
    positions = math.prod(shape[2:])
    attributes = {"p": d.integer(1, 4)} if d.chance(0.7) else {}
    rules = {
        "GlobalAveragePool": ("terms", positions),
        "GlobalMaxPool": ("exact", 0),
        "GlobalLpPool": ("ulps", 8 + 2 * math.sqrt(positions)),
    }
    return Draft(op, d.opset(op), [value(x)], attributes, rule=rules[op])


@family("MaxUnpool")
def max_unpool(d, op):
    batch, channels, *spatial = d.image(d.one_of(1, 2, 2, 3), elements=3000)
    kernel = [d.integer(1, 3) for _ in spatial]
    strides = [d.integer(k, 3) for k in kernel]
    sizes = [(n - 1) * s + k for n, s, k in zip(spatial, strides, kernel, strict=True)]
    x = d.normal([batch, channels, *spatial])
    each = channels * math.prod(sizes)
    count = channels * math.prod(spatial)
    places = [d.rng.permutation(each)[:count] + i * each for i in range(batch)]
    indices = [place.reshape(x.shape[1:]) for place in places]
    attributes = {"kernel_shape": kernel, "strides": strides}
    operands = [value(x), value(indices)]
    if d.chance(0.3):
        operands.append(weight([batch, channels, *sizes]))
    return Draft(op, d.opset(op, 9), operands, attributes)


@family("Col2Im")
def col2im(d, op):
    rank = d.one_of(1, 2, 2, 3)
    spatial = d.spatial(rank)
    window = Geometry(d, spatial, 4)
    rank = len(spatial)
    pads = window.pads
    positions = math.prod(
        max(0, (n + pads[i] + pads[i + rank] - (k - 1) * e - 1) // s + 1)
        for i, (n, k, s, e) in enumerate(
            zip(spatial, window.kernel, window.strides, window.dilations, strict=True)
        )
    )
    channels = d.integer(1, 9)
    x = d.normal([d.integer(1, 3), channels * math.prod(window.kernel), positions])
    attributes = {
        "strides": window.strides,
        "dilations": window.dilations,
        "pads": pads,
    }
    operands = [value(x), weight(spatial), weight(window.kernel)]
    rule = ("terms", math.prod(window.kernel))
    return Draft(op, d.opset(op), operands, attributes, rule=rule)


@family("DeformConv")
def deform_conv(d, op):
    batch, channels, *spatial = d.image(2, elements=1500, channels=24)
    window = Geometry(d, spatial, 4)
    groups, inputs, outputs = grouped(d, channels, 24)
    kernel = window.kernel
    pads = window.pads
    sizes = [
        max(1, (n + pads[i] + pads[i + 2] - (k - 1) * e - 1) // s + 1)
        for i, (n, k, s, e) in enumerate(
            zip(spatial, kernel, window.strides, window.dilations, strict=True)
        )
    ]
    parts = d.one_of(*(n for n in range(1, inputs + 1) if inputs % n == 0))
    taps = math.prod(kernel)
    offsets = d.array([batch, 2 * parts * taps, *sizes], low=-3, high=3)
    operands = [
        value(d.normal([batch, inputs, *spatial])),
        weight(d.normal([outputs, inputs // groups, *kernel])),
        value(offsets),
        weight(d.normal([outputs])) if d.chance(0.5) else None,
        value(d.array([batch, parts * taps, *sizes])) if d.chance(0.5) else None,
    ]
    attributes = {
        "group": groups,
        "offset_group": parts,
        "strides": window.strides,
        "dilations": window.dilations,
        "pads": pads,
    }
    return Draft(op, d.opset(op), operands, attributes, rule=("share", 1e-5))
