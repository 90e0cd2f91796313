"""Let a layer apply the activation that follows it before it stores its result."""

from __future__ import annotations

from dataclasses import replace

from ..graph import Graph, Node
from ..ops import Activation


def fuse_activation(graph: Graph) -> Graph:
    """Return the graph with activations done by the layers that compute their input.

    The layer's value must have no other reader.
    """
    consumers = graph.consumers()
    kept: list[Node] = []
    at: dict[str, int] = {}
    for node in graph.nodes:
        place = at.get(node.inputs[0]) if node.inputs else None
        if isinstance(node.op, Activation) and place is not None:
            layer = kept[place]
            value = layer.outputs[0]
            if len(consumers[value]) == 1 and value not in graph.outputs:
                kept[place] = replace(layer, activation=node.op, outputs=node.outputs)
                continue
        if node.op.fuses and node.activation is None:
            at[node.outputs[0]] = len(kept)
        kept.append(node)
    return graph.with_nodes(kept)
