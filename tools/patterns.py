"""Operators that exporters write out as several, put together again."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from striate import Graph, ops
from striate.graph import Node


def rewrite(graph: Graph) -> tuple[Graph, Counter[str]]:
    """Return an equal graph with fewer layers, and how often each pattern was found."""
    rewriter = _Rewriter(graph)
    for node in graph.nodes:
        rewriter.visit(node)
    found = rewriter.counts
    graph = graph.with_nodes(rewriter.nodes, rewriter.params)
    graph.outputs = [rewriter.renamed.get(name, name) for name in graph.outputs]
    graph = graph.until(graph.outputs)
    graph, splits = _slices_to_splits(graph)
    if splits:
        found["Split"] += splits
    return _shared(graph), found


def _shared(graph: Graph) -> Graph:
    """Return the graph with weights of the same content stored once."""
    shapes = Counter(array.shape for array in graph.params.values())
    first: dict[tuple[tuple[int, ...], str, bytes], str] = {}
    same: dict[str, str] = {}
    for name, array in graph.params.items():
        same[name] = name
        if shapes[array.shape] > 1:
            content = hashlib.blake2b(array.data, digest_size=16).digest()
            key = (array.shape, str(array.dtype), content)
            same[name] = first.setdefault(key, name)
    return graph.with_nodes(
        replace(node, params={o: same[t] for o, t in node.params.items()})
        for node in graph.nodes
    )


class _Rewriter:
    """Walks the nodes in order and replaces the last one of each pattern."""

    def __init__(self, graph: Graph) -> None:
        self.params = dict(graph.params)
        self.counts: Counter[str] = Counter()
        self.nodes: list[Node] = []
        self.made: dict[str, Node] = {}
        self.renamed: dict[str, str] = {}
        self.outputs = set(graph.outputs)
        self.uses = Counter(value for node in graph.nodes for value in node.reads)
        self.uses.update(graph.outputs)
        self.specs = graph.specs()

    def visit(self, node: Node) -> None:
        """Append the node, or what takes its place."""
        inputs = tuple(self.renamed.get(value, value) for value in node.inputs)
        node = replace(node, inputs=inputs)
        if isinstance(node.op, ops.Binary) and len(inputs) == 2:
            node = self._broadcast(node)
        if isinstance(node.op, (ops.Mul, ops.Div)):
            node = self._activation(node) or node
        elif isinstance(node.op, ops.Add):
            node = self._bias(node) or node
        elif isinstance(node.op, ops.Flatten):
            node = self._pooled(node) or node
        self.nodes.append(node)
        for value in node.outputs:
            self.made[value] = node

    def _maker(self, value: str, *kinds: type[ops.Op]) -> Node | None:
        """Return the node that computes `value` for one reader, if of these kinds."""
        node = self.made.get(value)
        if node is None or not isinstance(node.op, kinds) or self.uses[value] != 1:
            return None
        return node

    def _scalar(self, node: Node, operand: str) -> float | None:
        """Return a weight of one element."""
        tensor = node.params.get(operand)
        if tensor is None or self.params[tensor].size != 1:
            return None
        return float(self.params[tensor].reshape(-1)[0])

    def _product(self, node: Node) -> tuple[float, list[str]]:
        """Return the number and the values whose product a node is."""
        scale = 1.0
        factors: list[str] = []
        if isinstance(node.op, ops.Mul):
            for operand in node.params:
                number = self._scalar(node, operand)
                if number is None:
                    return 1.0, [node.outputs[0]]
                scale *= number
            values = list(node.inputs)
        elif isinstance(node.op, ops.Div) and self._scalar(node, "y"):
            scale /= self._scalar(node, "y") or 1.0
            values = list(node.inputs)
        elif isinstance(node.op, ops.Pow) and self._scalar(node, "y") in (2.0, 3.0):
            values = list(node.inputs) * int(self._scalar(node, "y") or 1)
        else:
            return 1.0, [node.outputs[0]]
        for value in values:
            inner = self._maker(value, ops.Mul, ops.Div, ops.Pow)
            if inner is None or isinstance(node.op, ops.Pow):
                factors.append(value)
            else:
                number, parts = self._product(inner)
                scale *= number
                factors += parts
        return scale, factors

    def _sum(self, value: str, number: float) -> str | None:
        """Return x if `value` is ``x + number`` and nothing else reads it."""
        node = self._maker(value, ops.Add)
        if node is None or len(node.inputs) != 1:
            return None
        found = self._scalar(node, next(iter(node.params)))
        return node.inputs[0] if found is not None and close(found, number) else None

    def _activation(self, node: Node) -> Node | None:
        scale, factors = self._product(node)
        op: ops.Op | None = None
        x = ""
        if len(factors) == 1:
            x = self._relu6_of_plus_3(factors[0]) or ""
            if x and close(scale, 1 / 6):
                op = ops.HardSigmoid(1 / 6, 0.5)
        elif len(factors) == 2:
            for x, gate in (factors, factors[::-1]):
                op = self._gated(x, gate, scale)
                if op:
                    break
        if op is None:
            return None
        self.counts[type(op).__name__] += 1
        return Node(node.name, op, (x,), {}, node.outputs)

    def _relu6_of_plus_3(self, value: str) -> str | None:
        node = self._maker(value, ops.Clip)
        if node is None or (node.op.minimum, node.op.maximum) != (0, 6):  # type: ignore[attr-defined]
            return None
        return self._sum(node.inputs[0], 3)

    def _gated(self, x: str, gate: str, scale: float) -> ops.Op | None:
        """Return the activation that is ``scale * x * gate``, if it is one."""
        if close(scale, 1):
            node = self._maker(gate, ops.Sigmoid)
            if node and node.inputs == (x,):
                return ops.Silu()
            node = self._maker(gate, ops.HardSigmoid)
            if node and node.inputs == (x,):
                op = node.op
                assert isinstance(op, ops.HardSigmoid)
                if close(op.alpha, 1 / 6) and close(op.beta, 0.5):
                    return ops.HardSwish()
            node = self._maker(gate, ops.Tanh)
            inner = self._maker(node.inputs[0], ops.Softplus) if node else None
            if inner and inner.inputs == (x,):
                return ops.Mish()
        if close(scale, 1 / 6) and self._relu6_of_plus_3(gate) == x:
            return ops.HardSwish()
        if close(scale, 0.5):
            return self._gelu(x, gate)
        return None

    def _gelu(self, x: str, gate: str) -> ops.Op | None:
        inside = self._sum(gate, 1)
        if inside is None:
            return None
        node = self._maker(inside, ops.Erf)
        if node and self._is_product(node.inputs[0], math.sqrt(0.5), [x]):
            return ops.Gelu("none")
        node = self._maker(inside, ops.Tanh)
        if node is None:
            return None
        scale, factors = self._parts(node.inputs[0])
        if not close(scale, math.sqrt(2 / math.pi)):
            return None
        if len(factors) == 1 and self._is_cubic(factors[0], x):
            return ops.Gelu("tanh")
        if len(factors) == 2 and x in factors:
            other = factors[1 - factors.index(x)]
            square = self._sum(other, 1)
            if square and self._is_product(square, 0.044715, [x, x]):
                return ops.Gelu("tanh")
        return None

    def _is_cubic(self, value: str, x: str) -> bool:
        """Return whether `value` is ``x + 0.044715 x^3``."""
        node = self._maker(value, ops.Add)
        if node is None or len(node.inputs) != 2 or x not in node.inputs:
            return False
        other = node.inputs[1 - node.inputs.index(x)]
        return self._is_product(other, 0.044715, [x, x, x])

    def _parts(self, value: str) -> tuple[float, list[str]]:
        node = self.made.get(value)
        if node is None or self.uses[value] != 1:
            return 1.0, [value]
        return self._product(node)

    def _is_product(self, value: str, scale: float, factors: list[str]) -> bool:
        found, parts = self._parts(value)
        return close(found, scale) and sorted(parts) == sorted(factors)

    def _broadcast(self, node: Node) -> Node:
        """Return a binary node that stretches its operands itself."""
        for place, value in enumerate(node.inputs):
            stretched = self._maker(value, ops.Mul)
            x = self._unstretched(stretched) if stretched else None
            if x is None:
                continue
            other = self.specs[node.inputs[1 - place]].shape
            wanted = self.specs[node.outputs[0]].shape
            if np.broadcast_shapes(self.specs[x].shape, other) == wanted:
                inputs = (*node.inputs[:place], x, *node.inputs[place + 1 :])
                self.counts["broadcast"] += 1
                return replace(node, inputs=inputs)
        return node

    def _unstretched(self, node: Node) -> str | None:
        """Return x if a node is x times a `Constant` of ones."""
        ones = self.made.get(node.inputs[-1])
        if ones is None or not isinstance(ones.op, ops.Constant):
            return None
        return (
            node.inputs[0] if (self.params[ones.params["value"]] == 1).all() else None
        )

    def _bias(self, node: Node) -> Node | None:
        """Return the layer before with the constant that is added as its bias."""
        if len(node.inputs) != 1 or not node.params:
            return None
        layer = self._maker(node.inputs[0], ops.Dense, ops.Conv)
        bias = self.params[next(iter(node.params.values()))]
        if (
            layer is None
            or "bias" in layer.params
            or bias.shape != self.params[layer.params["kernel"]].shape[-1:]
        ):
            return None
        self.counts["bias"] += 1
        name = node.name
        self.nodes.remove(layer)
        if name not in self.outputs:
            name = layer.name
            self.renamed[node.name] = name
            self.uses[name] = self.uses[node.name]
        tensor = f"{name}/bias"
        self.params[tensor] = bias
        return Node(name, layer.op, layer.inputs, {**layer.params, "bias": tensor})

    def _pooled(self, node: Node) -> Node | None:
        """Return global pooling that drops the axes that are flattened away."""
        pool = self._maker(node.inputs[0], ops.GlobalAveragePool, ops.GlobalMaxPool)
        if pool is None:
            return None
        average = isinstance(pool.op, ops.GlobalAveragePool)
        op = ops.GlobalAveragePool() if average else ops.GlobalMaxPool()
        return Node(node.name, op, pool.inputs)


def close(a: float, b: float) -> bool:
    """Return whether two numbers are the same but for rounding to float32 or less."""
    return math.isclose(a, b, rel_tol=1e-4)


def _slices_to_splits(graph: Graph) -> tuple[Graph, int]:
    """Return the graph with slices that together cover an axis as one `Split`."""
    groups = dict(_partitions(graph))
    if not groups:
        return graph, 0
    members = {node.name: value for value, g in groups.items() for node in g}
    taken = {name for node in graph.nodes for name in (node.name, *node.outputs)}
    kept: list[Node] = []
    for node in graph.nodes:
        value = members.get(node.name)
        if value is None:
            kept.append(node)
        elif value in groups:
            parts = groups.pop(value)
            op = parts[0].op
            assert isinstance(op, ops.Slice)
            sizes = tuple(p.op.stops[0] - p.op.starts[0] for p in parts)  # type: ignore[attr-defined]
            name = f"{parts[0].name[:120]}.split"
            while name in taken:
                name += "_"
            split = ops.Split(op.axes[0], sizes)
            outputs = tuple(part.outputs[0] for part in parts)
            kept.append(Node(name, split, (value,), {}, outputs))
    return graph.with_nodes(kept), len(members) and len(set(members.values()))


def _partitions(graph: Graph) -> Iterator[tuple[str, list[Node]]]:
    """Yield values whose slices cover one axis, with the slices in order."""
    slices: dict[tuple[str, int], list[Node]] = {}
    for node in graph.nodes:
        op = node.op
        if isinstance(op, ops.Slice) and len(op.axes) == 1 and op.steps == (1,):
            slices.setdefault((node.inputs[0], op.axes[0]), []).append(node)
    if not any(len(group) > 1 for group in slices.values()):
        return
    shapes = graph.default_shapes()
    changed = {
        entry.name: tuple(
            size + 32 if isinstance(symbol, str) else size
            for size, symbol in zip(shapes[entry.name], entry.shape, strict=True)
        )
        for entry in graph.inputs
    }
    specs = [graph.specs(shapes), graph.specs(changed)]
    for (value, axis), group in slices.items():
        sizes = {found[value].shape[axis] for found in specs}
        if len(sizes) > 1 or len(group) < 2:
            continue
        group.sort(key=lambda node: node.op.starts[0])  # type: ignore[attr-defined]
        edges = [(node.op.starts[0], node.op.stops[0]) for node in group]  # type: ignore[attr-defined]
        ends = [0, *(stop for _, stop in edges)]
        if [start for start, _ in edges] == ends[:-1] and ends[-1] == sizes.pop():
            yield value, group
