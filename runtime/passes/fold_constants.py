"""Compute at once what does not depend on any input."""

from __future__ import annotations

from dataclasses import replace

from ..graph import Graph, Node, stored
from ..ops import Constant
from ..ops.base import operand_names
from ..spec import Array


def fold_constants(graph: Graph) -> Graph:
    """Return the graph with constant layers evaluated by their reference.

    A constant that another layer reads becomes a weight of that layer, if the operand
    has a name; otherwise a `Constant` layer gives it.
    """
    tensors: dict[str, str] = {}
    weights: dict[str, Array] = dict(graph.params)
    kept: list[Node] = []
    given: set[str] = set()
    for node in graph.nodes:
        if tensors.keys() >= set(node.reads) and graph.outputs_of(node) == ():
            operands = [
                weights[tensors[name] if kind == "value" else name] if name else None
                for kind, name in node.operands()
            ]
            result = node.op.reference(*operands)
            results = result if isinstance(result, tuple) else (result,)
            for value, array in zip(node.outputs, results, strict=True):
                tensors[value] = f"{value}/value"
                weights[f"{value}/value"] = stored(array)
            continue
        constant = not tensors.keys().isdisjoint(node.inputs)
        current = _with_weights(node, tensors) if constant else node
        for value in dict.fromkeys(current.reads):
            if value in tensors and value not in given:
                kept.append(Node(value, Constant(), (), {"value": tensors[value]}))
                given.add(value)
        kept.append(current)
    return graph.with_nodes(kept, weights)


def _with_weights(node: Node, tensors: dict[str, str]) -> Node:
    """Return the node with constant inputs given as weights by operand name."""
    names = operand_names(type(node.op))
    if any(name.startswith("*") for name in names):
        return node
    free = [name for name in names if name not in node.params]
    pairs = list(zip(free, node.inputs, strict=False))
    return replace(
        node,
        inputs=tuple(value for _, value in pairs if value not in tensors),
        params=node.params
        | {operand: tensors[value] for operand, value in pairs if value in tensors},
    )
