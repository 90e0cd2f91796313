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
    has a name; otherwise it stays a `Constant`.
    """
    known: dict[str, str] = {}
    weights: dict[str, Array] = dict(graph.params)
    kept: list[Node] = []
    for node in graph.nodes:
        current = _with_weights(node, known)
        if not current.reads and not (set(node.outputs) & set(graph.outputs)):
            operands = [
                weights[name] if name else None for _, name in current.operands()
            ]
            result = current.op.reference(*operands)
            results = result if isinstance(result, tuple) else (result,)
            for value, array in zip(current.outputs, results, strict=True):
                tensor = f"{value}/value"
                weights[tensor] = stored(array)
                known[value] = tensor
            continue
        for value in current.reads:
            if value in known:
                tensor = known.pop(value)
                kept.append(Node(value, Constant(), (), {"value": tensor}))
        kept.append(current)
    return graph.with_nodes(kept, weights)


def _with_weights(node: Node, known: dict[str, str]) -> Node:
    """Return the node with constant inputs given as weights by operand name."""
    names = operand_names(type(node.op))
    if any(name.startswith("*") for name in names):
        return node
    free = [name for name in names if name not in node.params]
    params = dict(node.params)
    inputs = []
    for operand, value in zip(free, node.inputs, strict=False):
        if value in known:
            params[operand] = known[value]
        else:
            inputs.append(value)
    return replace(node, inputs=tuple(inputs), params=params)
