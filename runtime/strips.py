"""Chains of layers that run strip by strip, their intermediate values in the cache.

A depthwise convolution does little arithmetic for the memory it moves. In a mobile
network it stands between two pointwise ones that make its input and read its output,
each many times larger than what goes in and comes out of the three. Run whole, every
one of them goes through memory; run strip by strip, they meet in the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from .graph import Graph, Node
from .lowering import Epilogue, Lowering
from .ops.conv import Conv
from .spec import Array, Spec
from .step import Step
from .view import View, contiguous_strides


@dataclass(frozen=True)
class Layer:
    """A convolution of a chain.

    Parameters
    ----------
    op : Conv
        Pointwise or depthwise.
    kernel, bias : Array
        Its weights; the bias may be missing.
    epilogue : Epilogue
        Its activation; only the last layer has a residual.
    x, out : Spec
        What it reads and writes, whole.
    """

    op: Conv
    kernel: Array
    bias: Array | None
    epilogue: Epilogue
    x: Spec
    out: Spec

    @property
    def depthwise(self) -> bool:
        """Whether every channel has a kernel of its own."""
        return self.op.groups > 1

    def rows_needed(self, first: int, last: int) -> tuple[int, int]:
        """Return the input rows that output rows need, padding counted."""
        window = self.op.window(self.x, Spec(self.kernel.shape))
        start = first * window.stride[0] - window.padding[0][0]
        return start, start + (last - first - 1) * window.stride[0] + window.kernel[0]


def find_chains(
    graph: Graph, specs: Mapping[str, Spec], apart: set[str], level2_bytes: int
) -> dict[str, list[Node]]:
    """Return chains of layers by the name of the last, where they pay.

    They are pointwise, depthwise, pointwise convolutions; one of the pointwise ones may
    be missing. Values between them have no other reader, and are too large together
    for the second-level cache.

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
        if not _is_convolution(node, graph, specs, depthwise=True):
            continue
        chain = [node]
        before = producers.get(node.inputs[0])
        if (
            before is not None
            and _is_convolution(before, graph, specs, depthwise=False)
            and before.residual is None
            and before.name not in taken
            and only_reader(before) is node
        ):
            chain.insert(0, before)
        after = only_reader(node)
        if (
            after is not None
            and node.residual is None
            and _is_convolution(after, graph, specs, depthwise=False)
        ):
            chain.append(after)
        between = sum(specs[each.outputs[0]].nbytes for each in chain[:-1])
        if len(chain) > 1 and between > level2_bytes // 2:
            chains[chain[-1].name] = chain
            taken.update(each.name for each in chain)
    return chains


def _is_convolution(
    node: Node, graph: Graph, specs: Mapping[str, Spec], depthwise: bool
) -> bool:
    op = node.op
    if not isinstance(op, Conv) or len(node.inputs) != 1:
        return False
    x, out = specs[node.inputs[0]], specs[node.outputs[0]]
    shape = graph.params[node.params["kernel"]].shape
    if x.rank != 4 or {*op.dilation} != {1}:
        return False
    if depthwise:
        return op.groups == x.shape[-1] == out.shape[-1] > 1
    return op.groups == 1 and shape[:2] == (1, 1) and x.shape[:3] == out.shape[:3]


def lower_chain(low: Lowering, layers: list[Layer], x: View, out: View) -> Step | None:
    """Return the step that runs a chain, or None if even one row is too large.

    Parameters
    ----------
    low : Lowering
        The plan's services.
    layers : list of Layer
        In order; the last may have a residual in its epilogue.
    x, out : View
        What the first reads, with the halo it wants, and what the last writes.
    """
    rows = _strip_rows(layers, low.level2_bytes // 2)
    if rows == 0:
        return None
    buffers = _Buffers(low, layers, rows)
    images, height = out.shape[:2]
    ways = []
    operands: list[View] = []
    for image in range(images):
        for first in range(0, height, rows):
            last = min(first + rows, height)
            strip = _Strip(low, layers, buffers, x, out, image, first, last)
            pair = [strip.calls(follows=False), []]
            if first:
                pair[1] = strip.calls(follows=True, before=rows)
            for way in pair:
                for step in way:
                    operands += step.operands
            ways.append(
                tuple(
                    [
                        (*s.kernel, [v.buffer is buffers.memory for v in s.operands])
                        for s in way
                    ]
                    for way in pair
                )
            )
    kernel = low.load("strips").strips(ways, 4 * buffers.elements)
    kinds = ["depthwise" if layer.depthwise else "pointwise" for layer in layers]
    name = f"strips of {rows}: {', '.join(kinds)}"
    return Step(kernel, tuple(operands), name)


def _strip_rows(layers: list[Layer], budget: int) -> int:
    """Return how many rows a strip has: as many as fit, the strips about equal."""
    height = layers[-1].out.shape[1]
    rows = height
    while rows and 4 * sum(_scratch_sizes(layers, rows)) > budget:
        rows -= 1
    if rows < 2:
        return 0
    strips = -(-height // rows)
    strips += strips % 2 if strips > 1 else 0
    return -(-height // strips)


def _scratch_sizes(layers: list[Layer], rows: int) -> list[int]:
    """Return the elements between the layers for a strip of so many rows."""
    sizes = []
    for layer, after in pairwise(layers):
        wide = layer.out.shape[2]
        count = rows
        if after.depthwise:
            start, stop = after.rows_needed(0, rows)
            count = stop - start
            wide += sum(after.op.window(after.x, Spec(after.kernel.shape)).padding[1])
        sizes.append(count * wide * layer.out.shape[3])
    return sizes


class _Buffers:
    """One thread's memory between the layers of a chain."""

    def __init__(self, low: Lowering, layers: list[Layer], rows: int) -> None:
        sizes = [-(-size // 16) * 16 for size in _scratch_sizes(layers, rows)]
        self.elements = sum(sizes)
        whole = low.scratch(low.threads * self.elements)
        self.memory = whole.buffer
        self.views = []
        start = 0
        for layer, after, size in zip(layers[:-1], layers[1:], sizes, strict=True):
            left = right = 0
            if after.depthwise:
                window = after.op.window(after.x, Spec(after.kernel.shape))
                left, right = window.padding[1]
            wide, channels = layer.out.shape[2] + left + right, layer.out.shape[3]
            count = (size // (wide * channels)) if wide * channels else 0
            shape = (1, count, wide, channels)
            view = View(self.memory, shape, contiguous_strides(shape), start)
            self.views.append((view, left))
            start += size


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

    def calls(self, follows: bool, before: int = 0) -> list[Step]:
        """Return the steps; with `follows`, after a strip of `before` rows."""
        steps: list[Step] = []
        layers = self.layers
        source: View | None = None
        if not layers[0].depthwise:
            source = self._expand(steps, follows, before)
            layers = layers[1:]
        for index, layer in enumerate(layers):
            at_end = index == len(layers) - 1
            rows = self.last - self.first
            epilogue = layer.epilogue
            if at_end:
                target = self.out.slice(1, self.first, rows)
                if self.residual is not None:
                    part = self.residual.slice(1, self.first, rows)
                    epilogue = replace(epilogue, residual=part)
            else:
                place = len(self.layers) - len(layers) + index
                target = self.buffers.views[place][0].slice(1, 0, rows)
            if source is None:
                source, op = self._from_outside(layer)
            elif layer.depthwise:
                op = replace(layer.op, padding=((0, 0),))
            else:
                op = layer.op
            steps += op.lower(
                self.low, target, source, layer.kernel, layer.bias, epilogue=epilogue
            )
            source = target
        return steps

    def _expand(self, steps: list[Step], follows: bool, before: int) -> View:
        """Add the first pointwise layer's steps; return the depthwise layer's input."""
        layer, after = self.layers[:2]
        view, left = self.buffers.views[0]
        start, stop = after.rows_needed(self.first, self.last)
        height, width = layer.out.shape[1:3]
        low, high = max(start, 0), min(stop, height)
        window = after.op.window(after.x, Spec(after.kernel.shape))
        whole = view.slice(1, 0, stop - start)
        kept = 0
        if follows:
            kept = max(0, window.kernel[0] - window.stride[0])
            shift = before * window.stride[0]
            for at in range(0, kept, shift):
                count = min(shift, kept - at)
                moved = view.slice(1, at + shift, count)
                steps.append(self._copy(view.slice(1, at, count), moved))
            low = max(low, start + kept)
        inside = view.slice(1, low - start, high - low).slice(2, left, width)
        right = view.shape[2] - left - width
        top = 0 if follows else low - start
        halo = ((0, 0), (top, stop - high), (left, right), (0, 0))
        if any(sum(pair) for pair in halo):
            kernel = self.low.load("copy").border(inside.shape, inside.strides, halo)
            steps.append(Step(kernel, (inside,), "border"))
        if high > low:
            x = self.x.slice(1, low, high - low)
            steps += layer.op.lower(
                self.low, inside, x, layer.kernel, layer.bias, epilogue=layer.epilogue
            )
        return whole

    def _from_outside(self, layer: Layer) -> tuple[View, Conv]:
        """Return the rows of the chain's input that a depthwise first layer reads."""
        window = layer.op.window(layer.x, Spec(layer.kernel.shape))
        start, stop = layer.rows_needed(self.first, self.last)
        top = self.x.slice(1, start, stop - start)
        return top, replace(layer.op, padding=((0, 0), window.padding[1]))

    def _copy(self, out: View, x: View) -> Step:
        kernel = self.low.load("copy").copy(out.shape, out.strides, x.strides, 4)
        return Step(kernel, (out, x), "copy")
