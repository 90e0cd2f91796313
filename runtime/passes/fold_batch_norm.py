"""Fold a batch normalisation into the weights of the layer before it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..graph import Graph, Node
from ..ops import BatchNorm
from ..spec import Array


def fold_batch_norm(graph: Graph) -> Graph:
    """Return the graph with each `BatchNorm` after a layer with a kernel folded.

    With scale ``s = gamma / sqrt(variance + epsilon)`` per output channel, the layer's
    kernel becomes ``kernel * s`` and its bias ``(bias - mean) * s + beta``, computed in
    float64. The layer's value must have no other reader.
    """
    consumers = graph.consumers()
    weights: dict[str, Array] = {}
    kept: list[Node] = []
    at: dict[str, int] = {}
    for node in graph.nodes:
        place = at.get(node.inputs[0]) if len(node.inputs) == 1 else None
        if isinstance(node.op, BatchNorm) and node.params and place is not None:
            layer = kept[place]
            value = layer.outputs[0]
            if len(consumers[value]) == 1 and value not in graph.outputs:
                kept[place], added = _folded(graph, layer, node)
                weights.update(added)
                continue
        if node.op.linear:
            at[node.outputs[0]] = len(kept)
        kept.append(node)
    return graph.with_nodes(kept, weights)


def _folded(graph: Graph, layer: Node, norm: Node) -> tuple[Node, dict[str, Array]]:
    assert isinstance(norm.op, BatchNorm)
    gamma, beta, mean, variance = (
        graph.params[norm.params[name]].astype(np.float64)
        for name in ("gamma", "beta", "mean", "variance")
    )
    scale = gamma / np.sqrt(variance + norm.op.epsilon)
    kernel = graph.params[layer.params["kernel"]]
    tensor = layer.params.get("bias")
    bias = graph.params[tensor] if tensor else 0.0
    added = {
        f"{norm.name}/kernel": layer.op.scaled(kernel, scale),
        f"{norm.name}/bias": ((bias - mean) * scale + beta).astype(np.float32),
    }
    params = {name.rpartition("/")[2]: name for name in added}
    folded = replace(layer, params={**layer.params, **params}, outputs=norm.outputs)
    return folded, added
