"""Random valid networks, with what passes and plans rewrite in them on purpose."""

import contextlib
import math

from striate import Graph, ops
from striate.errors import ShapeError

from .draw import Draw

ACTIVATIONS = (
    ops.Relu(),
    ops.Relu(),
    ops.Clip(0.0, 6.0),
    ops.Sigmoid(),
    ops.Tanh(),
    ops.HardSwish(),
    ops.HardSigmoid(),
    ops.Silu(),
    ops.LeakyRelu(0.1),
    ops.Elu(),
    ops.Gelu(),
    ops.Mish(),
    ops.Softplus(),
    ops.Selu(),
)

SMOOTH = (ops.Abs(), ops.Neg(), ops.Erf(), ops.Softsign(), ops.Sin(), ops.Cos())

LARGEST_IMAGE = {1: 40, 2: 14, 3: 6}
"""The largest size of an input's spatial axis, by how many there are."""

MOST_ELEMENTS = 12_000
"""Of any value of a network."""


class Network:
    """A graph that grows by random blocks.

    Parameters
    ----------
    d : Draw
        Where choices come from.
    """

    def __init__(self, d):
        self.d = d
        self.graph = Graph("random")
        self.values = []
        self.specs = {}
        self.feeds = {}
        self.open_axes = d.one_of(0, 0, 1, 1, 1, 9)

    def shape(self, value):
        """Return a value's shape for the sizes it is fed."""
        return self.specs[value].shape

    def channels(self, most=40):
        """Return a number of channels."""
        return self.d.channels(most)

    def input(self, name, batch):
        """Declare an image input and what to feed it."""
        d = self.d
        rank = d.one_of(1, 2, 2, 2, 2, 2, 3)
        sizes = [d.integer(1, LARGEST_IMAGE[rank]) for _ in range(rank)]
        channels = self.channels(24)
        shape = [batch, *sizes, channels]
        symbols = ["N", *(f"{name}_{axis}" for axis in range(rank))][: self.open_axes]
        self.graph.input(name, [*symbols, *shape[len(symbols) :]])
        self.feeds[name] = d.normal(shape)
        self.known(name)

    def known(self, *names):
        """Take note of new values."""
        shapes = {name: x.shape for name, x in self.feeds.items()}
        if names[0] in self.feeds or self.specs == {}:
            self.specs = self.graph.specs(shapes)
        else:
            node = self.graph.node(names[0])
            operands = self.graph.operand_specs(node, self.specs)
            found = node.op.infer(*operands)
            found = found if isinstance(found, tuple) else (found,)
            self.specs.update(zip(node.outputs, found, strict=True))
        self.values += names

    def add(self, op, *inputs, outputs=0, **weights):
        """Add a layer; return its value, or the last of them."""
        weights = {name: w for name, w in weights.items() if w is not None}
        names = tuple(f"v{len(self.values)}_{i}" for i in range(outputs))
        made = self.graph.add(op, *inputs, outputs=names, **weights)
        self.known(*(made if names else (made,)))
        return made

    def recent(self):
        """Return a value, more likely a late one."""
        if self.d.chance(0.7):
            return self.values[-1]
        return self.d.one_of(*self.values[-6:])

    def images(self):
        """Return the values that have spatial axes."""
        return [v for v in self.values if 3 <= len(self.shape(v)) <= 5]

    def image(self):
        """Return a value with spatial axes, or None if there is none."""
        found = self.images()
        if not found:
            return None
        return found[-1] if self.d.chance(0.6) else self.d.one_of(*found[-6:])

    def weight(self, *shape):
        """Return a kernel that keeps numbers about as large as they are."""
        inputs = math.prod(shape[:-1])
        return self.d.normal(shape, 1 / math.sqrt(inputs))

    def bias(self, channels):
        """Return a bias, or None."""
        return self.d.normal([channels], 0.3) if self.d.chance(0.6) else None

    # Blocks: each adds some layers to some value, or nothing where it does not fit.

    def conv(self, x=None, outputs=None, depthwise=False, **settings):
        """Add a convolution."""
        d = self.d
        x = x or self.image()
        shape = self.shape(x)
        rank, inputs = len(shape) - 2, shape[-1]
        kernel = settings.pop("kernel", None) or [
            d.one_of(1, 2, 3, 3, 3, 5) for _ in range(rank)
        ]
        if d.chance(0.4) and rank == 2 and not depthwise:
            kernel = d.one_of([3, 3], [1, 1])
        each = [d.integer(1, 3) for _ in range(rank)]
        fields = {
            "stride": d.one_of([1], [1], [2], each),
            "dilation": d.one_of([1], [1], [1], [2], each),
            "padding": d.one_of("same", "same", "same_lower", "valid", "pairs"),
            **settings,
        }
        dilation = (fields["dilation"] * rank)[:rank]
        reach = [(k - 1) * e + 1 for k, e in zip(kernel, dilation, strict=True)]
        if fields["padding"] == "pairs" or any(
            r > n for r, n in zip(reach, shape[1:-1], strict=True)
        ):
            fields["padding"] = [
                (max(d.integer(0, r), r - n), d.integer(0, r))
                for r, n in zip(reach, shape[1:-1], strict=True)
            ]
        outputs = outputs or self.channels()
        groups = inputs if depthwise else fields.get("groups", 1)
        if depthwise:
            outputs = inputs
        elif "groups" not in fields and d.chance(0.25):
            groups = d.one_of(*(g for g in range(1, inputs + 1) if inputs % g == 0))
            outputs = max(groups, outputs // groups * groups)
        fields["groups"] = groups
        fields = {n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()}
        weights = {"kernel": self.weight(*kernel, inputs // groups, outputs)}
        shared = [
            (node.params["kernel"], w)
            for node in self.graph.nodes
            if isinstance(node.op, ops.Conv)
            for w in [self.graph.params[node.params["kernel"]]]
            if w.shape == weights["kernel"].shape
        ]
        if shared and d.chance(0.5):
            weights["kernel"] = shared[0][0]
        return self.add(ops.Conv(**fields), x, bias=self.bias(outputs), **weights)

    def normalised(self):
        """Add a convolution with what folds into it, in some order."""
        y = self.conv()
        for step in self.d.some_of(("norm", "act", "residual", "act", "pool")):
            y = self.after(step, y)

    def after(self, step, y):
        """Add one of the things that follow a convolution."""
        d = self.d
        channels = self.shape(y)[-1]
        if step == "norm":
            return self.add(
                ops.BatchNorm(d.one_of(1e-5, 1e-3)),
                y,
                gamma=d.array([channels], low=0.5, high=1.5),
                beta=d.normal([channels], 0.3),
                mean=d.normal([channels], 0.3),
                variance=d.array([channels], low=0.3, high=2),
            )
        if step == "act":
            return self.add(d.one_of(*ACTIVATIONS), y)
        if step == "residual":
            same = [v for v in self.values if self.specs[v] == self.specs[y] and v != y]
            if same:
                pair = [y, d.one_of(*same)]
                return self.add(ops.Add(), *(pair[i] for i in d.order(2)))
        if step == "pool" and min(self.shape(y)[1:-1]) > 1:
            return self.add(ops.MaxPool(2, d.integer(1, 2)), y)
        return y

    def separable(self):
        """Add pointwise, depthwise and pointwise convolutions."""
        d = self.d
        x = self.image()
        shape = self.shape(x)
        rank = len(shape) - 2
        pointwise = {"kernel": [1] * rank, "stride": [1], "padding": "valid"}
        pointwise |= {"dilation": [1], "groups": 1}
        y = x
        if d.chance(0.8):
            wide = min(
                self.channels(64), max(1, MOST_ELEMENTS // math.prod(shape[:-1]))
            )
            y = self.conv(y, wide, **pointwise)
            y = self.after("act", y) if d.chance(0.8) else y
        y = self.conv(
            y, depthwise=True, kernel=[d.one_of(3, 3, 5, 1)] * rank, dilation=[1]
        )
        y = self.after("act", y) if d.chance(0.8) else y
        if d.chance(0.8):
            y = self.conv(y, shape[-1] if d.chance(0.7) else None, **pointwise)
            y = self.after("norm", y) if d.chance(0.5) else y
            y = self.after("residual", y)
            y = self.after("act", y) if d.chance(0.5) else y

    def excite(self):
        """Add a squeeze-and-excitation block."""
        d = self.d
        x = self.image()
        channels = self.shape(x)[-1]
        rank = len(self.shape(x)) - 2
        squeeze = self.channels(12)
        point = {"stride": [1], "padding": "valid", "dilation": [1], "groups": 1}
        point["kernel"] = [1] * rank
        kind = d.one_of(ops.GlobalAveragePool, ops.GlobalMaxPool)
        y = self.add(kind(keepdims=True), x)
        y = self.after("act", self.conv(y, squeeze, **point))
        y = self.conv(y, channels, **point)
        y = self.add(d.one_of(ops.Sigmoid(), ops.HardSigmoid()), y)
        pair = [x, y]
        self.add(ops.Mul(), *(pair[i] for i in d.order(2)))

    def join(self):
        """Concatenate branches, some of them nothing but what is there."""
        d = self.d
        x = self.image()
        shape = self.shape(x)
        rank = len(shape) - 2
        same = {"stride": [1], "padding": "same", "dilation": [1]}
        parts = []
        for _ in range(d.integer(1, 4)):
            way = d.one_of("conv", "conv", "pool", "old", "self", "again", "act")
            fits = [v for v in self.values if self.shape(v)[:-1] == shape[:-1]]
            if way == "conv":
                part = self.conv(x, self.channels(16), **same)
                part = self.after("act", part) if d.chance(0.5) else part
            elif way == "pool":
                kind = d.one_of(ops.MaxPool, ops.AveragePool)
                part = self.add(kind(3, 1, padding="same"), x)
            elif way == "old":
                part = d.one_of(*fits)
            elif way == "again" and parts:
                part = parts[0]
            elif way == "act":
                part = self.add(d.one_of(*ACTIVATIONS), d.one_of(*fits))
            else:
                part = x
            parts.append(part)
        axis = -1
        if d.chance(0.15):
            axis = d.integer(1, rank)
            parts = [v for v in parts if self.shape(v)[-1] == shape[-1]] or [x]
        if sum(math.prod(self.shape(v)) for v in parts) <= MOST_ELEMENTS:
            self.add(ops.Concat(axis), *parts)

    def split(self):
        """Cut the channels, work on one part, join and shuffle."""
        d = self.d
        x = self.image()
        channels = self.shape(x)[-1]
        if channels < 2:
            return
        first = d.integer(1, channels - 1)
        left, right = self.add(ops.Split(-1, (first, channels - first)), x, outputs=2)
        if d.chance(0.8):
            same = {"stride": [1], "padding": "same", "dilation": [1], "groups": 1}
            right = self.conv(right, channels - first, **same)
        if d.chance(0.5):
            left = self.after("act", left)
        y = self.add(ops.Concat(), *(d.one_of((left, right), (right, left))))
        divisors = [n for n in range(1, channels + 1) if channels % n == 0]
        if d.chance(0.6):
            self.add(ops.ChannelShuffle(d.one_of(*divisors)), y)

    def pool(self):
        """Pool in windows."""
        d = self.d
        x = self.image()
        sizes = self.shape(x)[1:-1]
        kernel = tuple(d.integer(1, min(4, n)) for n in sizes)
        stride = tuple(d.integer(1, 3) for _ in sizes)
        padding = tuple((d.integer(0, k - 1), d.integer(0, k - 1)) for k in kernel)
        padding = d.one_of("valid", "same", "same_lower", padding)
        ceil = d.chance(0.3)
        if d.chance(0.5):
            op = ops.MaxPool(kernel, stride, (1,), padding, ceil)
        elif d.chance(0.8):
            counted = d.chance(0.5)
            op = ops.AveragePool(
                kernel, stride, (1,), padding, ceil, count_include_pad=counted
            )
        else:
            op = ops.LpPool(kernel, stride, (1,), padding, ceil, d.integer(1, 3))
        self.add(op, x)

    def enlarge(self):
        """Resize, transpose-convolve or spread channels over pixels."""
        d = self.d
        x = self.image()
        shape = self.shape(x)
        sizes = shape[1:-1]
        spatial = tuple(range(1, len(shape) - 1))
        room = MOST_ELEMENTS // math.prod(shape)
        way = d.one_of("resize", "transposed", "depth", "space")
        if way == "resize":
            new = tuple(d.integer(1, min(2 * n, 16)) for n in sizes)
            mode = d.one_of("nearest", "linear", "cubic")
            coordinates = d.one_of("half_pixel", "asymmetric", "align_corners")
            if mode == "nearest":
                coordinates = "asymmetric"
                new = tuple(n * d.integer(1, 2) for n in sizes)
            self.add(
                ops.Resize(
                    sizes=new,
                    axes=spatial,
                    mode=mode,
                    coordinates=coordinates,
                    nearest="floor",
                ),
                x,
            )
        elif way == "transposed" and room > 4:
            kernel = [d.integer(1, 4) for _ in sizes]
            stride = tuple(d.integer(1, 2) for _ in sizes)
            outputs = self.channels(16)
            weights = self.weight(*kernel, outputs, shape[-1])
            op = ops.ConvTranspose(stride, padding=d.one_of("same", "valid"))
            y = self.add(op, x, kernel=weights, bias=self.bias(outputs))
            self.after("act", y)
        elif way == "depth" and len(sizes) == 2 and shape[-1] % 4 == 0:
            self.add(ops.DepthToSpace(2, d.one_of("DCR", "CRD")), x)
        elif way == "space" and len(sizes) == 2 and not any(n % 2 for n in sizes):
            self.add(ops.SpaceToDepth(2, d.one_of("DCR", "CRD")), x)

    def pad(self):
        """Pad, and perhaps convolve the result."""
        d = self.d
        x = self.image()
        sizes = self.shape(x)[1:-1]
        mode = d.one_of("constant", "constant", "constant", "reflect", "edge", "wrap")
        most = {"reflect": -1, "wrap": 0}.get(mode, 3)
        pairs = [tuple(d.integer(0, min(3, n + most)) for _ in range(2)) for n in sizes]
        edges = [(0, 0), (0, 0)]
        if d.chance(0.1):
            edges[1] = (
                (d.integer(0, 2), d.integer(0, 2)) if mode == "constant" else (0, 0)
            )
        fill = d.one_of(0.0, 0.0, 0.0, d.real(-1, 1)) if mode == "constant" else 0.0
        y = self.add(ops.Pad((edges[0], *pairs, edges[1]), mode, fill), x)
        for _ in range(d.integer(0, 2)):
            self.conv(y)

    def elementwise(self):
        """Apply something to every element."""
        d = self.d
        x = self.recent()
        shape = self.shape(x)
        way = d.one_of("act", "smooth", "scale", "prelu", "two", "twice")
        if len(shape) < 2 and way in ("scale", "prelu"):
            way = "act"
        if way == "act":
            self.add(d.one_of(*ACTIVATIONS), x)
        elif way == "smooth":
            self.add(d.one_of(*SMOOTH), x)
        elif way == "prelu":
            self.add(ops.PRelu(), x, slope=d.array([shape[-1]], low=0, high=1))
        elif way == "scale":
            kind = d.one_of(
                ops.Add, ops.Sub, ops.Mul, ops.Div, ops.Maximum, ops.Minimum
            )
            size = d.one_of([shape[-1]], [1], [1] * (len(shape) - 1) + [shape[-1]])
            operand = d.one_of("y", "y", "x")
            low = 0.5
            if kind is ops.Div and operand == "x":
                operand = "y"
            self.add(kind(), x, **{operand: d.array(size, low=low, high=1.5)})
        elif way == "twice":
            self.add(d.one_of(ops.Add(), ops.Maximum(), ops.Sub()), x, x)
        else:
            fits = [v for v in self.values if broadcasts(self.shape(v), shape)] or [x]
            pair = [x, d.one_of(*fits)]
            kind = d.one_of(ops.Add, ops.Sub, ops.Maximum, ops.Minimum)
            self.add(kind(), *(pair[i] for i in d.order(2)))

    def normalise(self):
        """Normalise without fixed statistics."""
        d = self.d
        x = self.image()
        shape = self.shape(x)
        channels = shape[-1]
        weights = {
            "gamma": d.array([channels], low=0.5, high=1.5),
            "beta": d.normal([channels], 0.3),
        }
        way = d.one_of("instance", "group", "layer", "rms", "lrn", "lp")
        if way == "instance":
            self.add(ops.InstanceNorm(0.1), x, **weights)
        elif way == "group":
            divisors = [n for n in range(1, channels + 1) if channels % n == 0]
            self.add(ops.GroupNorm(d.one_of(*divisors), 0.1), x, **weights)
        elif way == "layer":
            self.add(ops.LayerNorm((-1,), 0.1), x, **weights)
        elif way == "rms":
            self.add(ops.RMSNorm((-1,), 0.1), x, gamma=weights["gamma"])
        elif way == "lrn":
            self.add(ops.LRN(d.one_of(1, 3, 5), 0.1), x)
        else:
            self.add(ops.LpNorm(-1, d.integer(1, 2), 0.1), x)

    def rearrange(self):
        """Move elements about."""
        d = self.d
        x = self.recent()
        shape = self.shape(x)
        rank = len(shape)
        way = d.one_of(
            "slice", "transpose", "gather", "softmax", "sum", "reshape", "same"
        )
        if rank == 1:
            way = "same"
        axis = d.integer(1, rank - 1) if rank > 1 else 0
        n = shape[axis]
        if way == "slice" and n > 1:
            first, last = sorted(d.some_of(range(n + 1), 2)[:2])
            step = d.one_of(1, 1, 2)
            if d.chance(0.2):
                last_reversed = first - 1 if first else -n - 1
                self.add(ops.Slice((last - 1,), (last_reversed,), (axis,), (-1,)), x)
            else:
                self.add(ops.Slice((first,), (last,), (axis,), (step,)), x)
        elif way == "transpose" and rank > 2:
            self.add(ops.Transpose((0, *(1 + i for i in d.order(rank - 1)))), x)
        elif way == "gather":
            places = d.rng.integers(0, n, d.integer(1, 6))
            self.add(ops.Gather(axis), x, indices=places)
        elif way == "softmax":
            self.add(d.one_of(ops.Softmax(axis), ops.LogSoftmax(axis)), x)
        elif way == "sum" and rank > 2:
            axes = tuple(d.some_of(range(1, rank), 1))
            kind = d.one_of(ops.Mean, ops.ReduceMax, ops.ReduceL2, ops.ReduceSumSquare)
            self.add(kind(axes, d.chance(0.6)), x)
        elif way == "reshape" and rank > 1:
            self.add(d.one_of(ops.Flatten(), ops.Reshape((0, -1))), x)
        else:
            self.add(ops.Identity(), x)

    def dense(self):
        """Multiply the last axis by a matrix, alone or with what follows it."""
        d = self.d
        x = self.recent()
        shape = self.shape(x)
        if d.chance(0.4) and len(shape) > 2:
            x = self.add(ops.GlobalAveragePool(), self.image())
            shape = self.shape(x)
        if shape[-1] * 16 > MOST_ELEMENTS or len(shape) < 2:
            return
        outputs = shape[-1] if d.chance(0.5) else self.channels()
        y = self.add(
            ops.Dense(),
            x,
            kernel=self.weight(shape[-1], outputs),
            bias=self.bias(outputs),
        )
        for step in d.some_of(("act", "residual", "act")):
            y = self.after(step, y)

    def constants(self):
        """Compute with constants that a pass folds."""
        d = self.d
        x = self.recent()
        if len(self.shape(x)) < 2:
            return
        c = self.add(ops.Constant(), value=d.normal([self.shape(x)[-1]], 0.5))
        if d.chance(0.5):
            c = self.add(d.one_of(*ACTIVATIONS), c)
        self.values = [v for v in self.values if not self.constant(v)]
        pair = [x, c]
        self.add(d.one_of(ops.Add(), ops.Mul()), *(pair[i] for i in d.order(2)))

    def constant(self, value):
        """Return whether a value depends on no input."""
        if value in self.feeds:
            return False
        return all(self.constant(v) for v in self.graph.node(value).reads)


def broadcasts(shape, to):
    """Return whether one shape broadcasts to the other."""
    if len(shape) != len(to):
        return False
    return all(n in (1, m) for n, m in zip(shape, to, strict=True))


IMAGE_BLOCKS = (
    "normalised",
    "normalised",
    "separable",
    "separable",
    "excite",
    "join",
    "join",
    "split",
    "pool",
    "enlarge",
    "pad",
    "normalise",
)
BLOCKS = ("elementwise", "rearrange", "dense", "constants")


def network(seed, index):
    """Return (graph, feeds, Draw) of the network of that number."""
    d = Draw(seed, index, 1)
    net = Network(d)
    batch = d.integer(1, 3)
    for i in range(d.one_of(1, 1, 1, 2)):
        net.input(f"x{i}", batch)
    wanted = d.integer(3, 20)
    for _ in range(40):
        if len(net.graph.nodes) >= wanted:
            break
        blocks = IMAGE_BLOCKS + BLOCKS if net.image() else BLOCKS
        with contextlib.suppress(ShapeError):
            getattr(net, d.one_of(*blocks))()
        large = [v for v in net.values if math.prod(net.shape(v)) > MOST_ELEMENTS]
        net.values = [v for v in net.values if v not in large] or net.values[:1]
    made = [v for node in net.graph.nodes for v in node.outputs if not net.constant(v)]
    read = {v for node in net.graph.nodes for v in node.reads}
    ends = [v for v in made if v not in read]
    chosen = [*ends, *d.some_of(made)[: d.one_of(0, 0, 1, 3)]]
    net.graph.output(*dict.fromkeys(chosen[-6:] or made[-1:]))
    return net.graph, net.feeds, d
