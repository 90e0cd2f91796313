"""Chains of layers that run strip by strip, their intermediate values in the cache.

A depthwise convolution does little arithmetic for the memory it moves. In a mobile
network it stands between two pointwise ones that make its input and read its output,
each many times larger than what goes in and comes out of the three. Run whole, every
one of them goes through memory; run strip by strip, they meet in the cache. So do a
network's first convolution, whose result is its largest, and the pooling after it.

A tile of Winograd's algorithm holds whole windows of a pooling of 2x2. These two layers
need no strips, they are one step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from itertools import pairwise

from .graph import Graph, Node
from .lowering import Epilogue, Lowering
from .ops.conv import Conv
from .ops.pool import MaxPool
from .record import Record, record
from .spec import Array, Shape, Spec
from .step import Step
from .view import Buffer, View, contiguous_strides
from .window import Window

BEFORE = {
    "depthwise": ("pointwise",),
    "max pool": ("pointwise", "convolution"),
    "halving": ("pointwise", "convolution", "winograd"),
}
"""What may come before the layer that a chain is made for, by kinds of layers."""

CACHE = 0.625
"""How much of the second-level cache a strip may take: each reads all weights again."""

POOLED_CACHE = 0.5
"""The same where pooling comes last, whose chains have few weights to read again."""


@record
class Layer(Record):
    """A convolution or a pooling of a chain.

    Parameters
    ----------
    op : Conv or MaxPool
        What it does.
    params : tuple of Array
        A convolution's kernel and, if it has one, bias.
    epilogue : Epilogue
        Its activation; only the last layer has a residual.
    x, out : Spec
        What it reads and writes, whole.
    """

    op: Conv | MaxPool
    params: tuple[Array, ...]
    epilogue: Epilogue
    x: Spec
    out: Spec

    @cached_property
    def window(self) -> Window:
        """The kernel's size, the stride, the dilation and the padding."""
        return self.op.window(self.x, *[Spec(each.shape) for each in self.params])

    @cached_property
    def pointwise(self) -> bool:
        """Whether an output pixel depends on the input pixel of its place alone."""
        alone = {*self.window.kernel, *self.window.stride} == {1}
        return alone and isinstance(self.op, Conv)

    @cached_property
    def by_winograd(self) -> bool:
        """Whether Winograd's algorithm computes it."""
        if isinstance(self.op, MaxPool):
            return False
        return bool(self.op.winograd_tile(self.x, Spec(self.params[0].shape)))

    @cached_property
    def border(self) -> tuple[int, int]:
        """The zeros that each row of its input has before and after it."""
        return (0, 0) if isinstance(self.op, MaxPool) else self.window.padding[1]

    @cached_property
    def kind(self) -> str:
        """What a reader of the plan calls it."""
        if isinstance(self.op, MaxPool):
            return "max pool"
        if self.op.groups > 1:
            return "depthwise"
        return "pointwise" if self.pointwise else "convolution"

    def rows_needed(self, first: int, last: int) -> tuple[int, int]:
        """Return the input rows that output rows need, padding counted."""
        window = self.window
        start = first * window.stride[0] - window.padding[0][0]
        return start, start + (last - first - 1) * window.stride[0] + window.kernel[0]

    def rows_inside(self, first: int, last: int) -> tuple[int, int, tuple[int, int]]:
        """Return the input rows that output rows read, and the padding around them."""
        start, stop = self.rows_needed(first, last)
        low, high = max(start, 0), min(stop, self.x.shape[1])
        return low, high, (low - start, stop - high)

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View,
        padding: tuple[int, int],
        residual: View | None = None,
        halved: bool = False,
    ) -> list[Step]:
        """Return the steps for some rows, with `padding` rows before and after them."""
        around = (padding, self.window.padding[1])
        if isinstance(self.op, MaxPool):
            return replace(self.op, padding=around).lower(low, out, x)
        epilogue = self.epilogue._replace(residual=residual, halved=halved)
        op = replace(self.op, padding=around)
        kernel, *bias = self.params
        return op.lower(low, out, x, kernel, bias[0] if bias else None, epilogue)


def find_chains(
    graph: Graph, specs: Mapping[str, Spec], apart: set[str], level2_bytes: int
) -> dict[str, list[Node]]:
    """Return chains of layers by the name of the last, where they pay.

    They are pointwise, depthwise, pointwise convolutions, of which one of the pointwise
    ones may be missing; or a convolution and max pooling. Values between them have no
    other reader, and are too large together for the second-level cache.

    Parameters
    ----------
    specs : dict
        The spec of every value.
    apart : set of str
        Values that must be written where they are, whole.
    """
    consumers = graph.consumers()
    producers = {value: node for node in graph.nodes for value in node.outputs}

    def only_reader(node: Node) -> Node | None:
        value = node.outputs[0]
        readers = consumers.get(value, [])
        if len(readers) != 1 or value in apart or readers[0].inputs[0] != value:
            return None
        return None if readers[0].residual == value else readers[0]

    chains: dict[str, list[Node]] = {}
    taken: set[str] = set()
    for node in graph.nodes:
        kind = _kind(node, graph, specs)
        if kind not in BEFORE:
            continue
        chain = [node]
        before = producers.get(node.inputs[0])
        if (
            before is not None
            and _kind(before, graph, specs) in BEFORE[kind]
            and before.residual is None
            and before.name not in taken
            and only_reader(before) is node
        ):
            chain.insert(0, before)
        after = None
        if kind == "depthwise" and node.residual is None:
            after = only_reader(node)
        if after is not None and _kind(after, graph, specs) == "pointwise":
            chain.append(after)
        between = sum(specs[each.outputs[0]].nbytes for each in chain[:-1])
        if len(chain) > 1 and between > level2_bytes // 2:
            chains[chain[-1].name] = chain
            taken.update(each.name for each in chain)
    return chains


def _kind(node: Node, graph: Graph, specs: Mapping[str, Spec]) -> str | None:
    """Return what a chain may have the node as; None if it may not."""
    op = node.op
    if not isinstance(op, Conv | MaxPool) or len(node.inputs) != 1:
        return None
    x, out = specs[node.inputs[0]], specs[node.outputs[0]]
    if x.rank != 4 or {*op.dilation} != {1}:
        return None
    if isinstance(op, MaxPool):
        window = op.window(x)
        halving = window == Window((2, 2), (2, 2), (1, 1), ((0, 0), (0, 0)))
        whole = all(2 * n <= m for n, m in zip(out.spatial, x.spatial, strict=True))
        return "halving" if halving and whole else "max pool"
    kernel = Spec(graph.params[node.params["kernel"]].shape)
    window = op.window(x, kernel)
    if any(max(a) >= k for a, k in zip(window.padding, window.kernel, strict=True)):
        return None
    if op.groups == x.shape[-1] == out.shape[-1] > 1:
        return "depthwise"
    if op.groups > 1:
        return None
    if op.winograd_tile(x, kernel):
        return "winograd"
    pointwise = kernel.shape[:2] == (1, 1) and x.shape[:3] == out.shape[:3]
    return "pointwise" if pointwise else "convolution"


def lower_chain(low: Lowering, layers: list[Layer], x: View, out: View) -> Step | None:
    """Return the step that runs a chain, or None if even one row is too large.

    A convolution by Winograd's algorithm does the pooling after it.

    Parameters
    ----------
    low : Lowering
        The plan's services.
    layers : list of Layer
        In order; the last may have a residual in its epilogue.
    x, out : View
        What the first reads, with the halo it wants, and what the last writes.
    """
    if layers[0].by_winograd:
        padding = layers[0].window.padding[0]
        [step] = layers[0].lower(low, out, x, padding, halved=True)
        return step
    cache = POOLED_CACHE if layers[-1].kind == "max pool" else CACHE
    edges = _strip_edges(layers, int(cache * low.level2_bytes))
    if not edges:
        return None
    rows = max(last - first for first, last in pairwise(edges))
    buffers = _Buffers(low, layers, rows)
    ways: list[list[Step]] = []
    for image in range(out.shape[0]):
        before = 0
        for first, last in pairwise(edges):
            strip = _Strip(low, layers, buffers, x, out, image, first, last)
            ways += strip.calls(before)
            before = last - first
    residual = layers[-1].epilogue.residual
    given = [view.buffer for view in (x, out, residual) if view]
    buffers.take_scratch([step for way in ways for step in way], given)
    calls = [[(*step.kernel, buffers.private(step)) for step in way] for way in ways]
    operands = [
        buffers.placed(view) for way in ways for step in way for view in step.operands
    ]
    pairs = list(zip(calls[::2], calls[1::2], strict=True))
    kernel = low.load("strips").strips(pairs, 4 * buffers.elements)
    name = f"strips of {rows}: {', '.join(layer.kind for layer in layers)}"
    return Step(kernel, tuple(operands), name)


def _strip_edges(layers: list[Layer], budget: int) -> list[int]:
    """Return where strips begin and the last ends; none if one row is too large.

    A strip has as many rows as fit; strips differ by one row at most.
    """
    height = layers[-1].out.shape[1]
    rows = height
    while rows and 4 * sum(map(math.prod, _scratch_shapes(layers, rows))) > budget:
        rows -= 1
    if rows < 2:
        return []
    strips = -(-height // rows)
    strips += strips % 2 if strips > 1 else 0
    return [height * strip // strips for strip in range(strips + 1)]


def _scratch_shapes(layers: list[Layer], rows: int) -> list[Shape]:
    """Return the rows, pixels and channels between the layers for a strip of rows."""
    shapes: list[Shape] = []
    for layer, after in pairwise(layers):
        start, stop = after.rows_needed(0, rows)
        wide = layer.out.shape[2] + sum(after.border)
        shapes.append((stop - start, wide, layer.out.shape[3]))
    return shapes


class _Buffers:
    """One thread's memory: between the layers of a chain, and their steps' scratch.

    The steps run one after the other, so the same scratch serves them all.
    """

    def __init__(self, low: Lowering, layers: list[Layer], rows: int) -> None:
        self.threads = low.threads
        shapes = _scratch_shapes(layers, rows)
        sizes = [_whole_lines(math.prod(shape)) for shape in shapes]
        self.between = self.elements = sum(sizes)
        self.memory = low.scratch(self.threads * self.elements).buffer
        self.scratch: set[Buffer] = set()
        self.views = []
        start = 0
        for shape, size in zip(shapes, sizes, strict=True):
            strides = contiguous_strides((1, *shape))
            self.views.append(View(self.memory, (1, *shape), strides, start))
            start += size

    def take_scratch(self, steps: list[Step], given: list[Buffer]) -> None:
        """Make room for what is neither `given` nor constant nor between the layers."""
        buffers = {view.buffer for step in steps for view in step.operands}
        buffers -= {self.memory, *given}
        self.scratch = {each for each in buffers if each.source == "arena"}
        most = max((each.nbytes for each in self.scratch), default=0)
        self.elements = self.between + _whole_lines(most // (4 * self.threads))
        self.memory.nbytes = 4 * self.threads * self.elements

    def placed(self, view: View) -> View:
        """Return where an operand lies, for the first thread."""
        if view.buffer not in self.scratch:
            return view
        return replace(view, buffer=self.memory, offset=self.between)

    def private(self, step: Step) -> list[bool]:
        """Return which operands every thread has its own of."""
        return [
            view.buffer is self.memory or view.buffer in self.scratch
            for view in step.operands
        ]


def _whole_lines(elements: int) -> int:
    return -(-elements // 16) * 16


class _Strip:
    """The calls of one strip of a chain."""

    def __init__(
        self,
        low: Lowering,
        layers: list[Layer],
        buffers: _Buffers,
        x: View,
        out: View,
        image: int,
        first: int,
        last: int,
    ) -> None:
        self.low = low
        self.layers = layers
        self.buffers = buffers
        self.x = x.slice(0, image, 1)
        self.out = out.slice(0, image, 1)
        residual = layers[-1].epilogue.residual
        self.residual = residual.slice(0, image, 1) if residual else None
        self.first = first
        self.last = last

    def calls(self, before: int) -> tuple[list[Step], list[Step]]:
        """Return the steps by itself, and those after a strip of `before` rows."""
        alone: list[Step] = []
        following: list[Step] = []
        done = int(not self.layers[1].pointwise)
        if done:
            source = self._produce(alone, 0)
            if before:
                self._produce(following, before)
        else:
            low, high, _ = self.layers[0].rows_inside(self.first, self.last)
            source = self.x.slice(1, low, high - low)
        others = self._others(source, done)
        return alone + others, following + others if before else []

    def _others(self, source: View, done: int) -> list[Step]:
        """Return the steps of the layers after those that are done."""
        steps: list[Step] = []
        rows = self.last - self.first
        for index, layer in enumerate(self.layers[done:], done):
            padding, residual = (0, 0), None
            if not layer.pointwise:
                _, _, padding = layer.rows_inside(self.first, self.last)
            if index < len(self.layers) - 1:
                target = self.buffers.views[index].slice(1, 0, rows)
            else:
                target = self.out.slice(1, self.first, rows)
                if self.residual is not None:
                    residual = self.residual.slice(1, self.first, rows)
            steps += layer.lower(self.low, target, source, padding, residual)
            source = target
        return steps

    def _produce(self, steps: list[Step], before: int) -> View:
        """Add the first layer's steps; return the rows that the second reads."""
        layer, after = self.layers[:2]
        view = self.buffers.views[0]
        left, right = after.border
        pixels = layer.out.shape[2]
        low, high, (top, bottom) = after.rows_inside(self.first, self.last)

        def rows(first: int, last: int) -> View:
            return view.slice(1, first - low + top, last - first).slice(2, left, pixels)

        new = low
        if before:
            kept = max(0, after.window.kernel[0] - after.window.stride[0])
            shift = before * after.window.stride[0]
            for at in range(0, kept, shift):
                count = min(shift, kept - at)
                moved = view.slice(1, at + shift, count)
                steps.append(self._copy(view.slice(1, at, count), moved))
            new = max(low, low - top + kept)
        fresh = rows(new, high)
        if isinstance(after.op, Conv):
            if not before:
                steps += self._zeros(view.slice(2, left, pixels), 2, (left, right))
            steps += self._zeros(fresh, 1, (0 if before else top, bottom))
        if high > new:
            start, stop, padding = layer.rows_inside(new, high)
            x = self.x.slice(1, start, stop - start)
            steps += layer.lower(self.low, fresh, x, padding)
        return rows(low, high)

    def _zeros(self, x: View, axis: int, counts: tuple[int, int]) -> list[Step]:
        """Return the step that writes zeros before and after `x`; none for none.

        No strip writes over those beside the rows, so the first one's serve the others.
        """
        if counts == (0, 0):
            return []
        halo = tuple(counts if a == axis else (0, 0) for a in range(x.rank))
        kernel = self.low.load("copy").border(x.shape, x.strides, halo)
        return [Step(kernel, (x,), "border")]

    def _copy(self, out: View, x: View) -> Step:
        kernel = self.low.load("copy").copy(out.shape, out.strides, x.strides, 4)
        return Step(kernel, (out, x), "copy")
