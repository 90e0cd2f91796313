"""Let a layer with a kernel add the shortcut before it stores its result."""

from __future__ import annotations

from dataclasses import replace

from ..errors import ShapeError
from ..graph import DEFAULT_SIZE, Graph, Node
from ..ops import Add
from ..spec import Shape


def fuse_residual(graph: Graph) -> Graph:
    """Return the graph with ``Add(layer, shortcut)`` done by the layer.

    The layer moves to where the addition was. Its value must have no other reader, and
    the two must have one shape whatever the input's size; a network that takes only
    some sizes, not those tried here, stays as it is.
    """
    consumers = graph.consumers()
    try:
        shapes = graph.specs(), graph.specs(_other_shapes(graph))
    except ShapeError:
        return graph
    layers: dict[str, Node] = {}
    kept: dict[str, Node] = {}
    for node in graph.nodes:
        if isinstance(node.op, Add) and len(node.inputs) == 2:
            first, second = node.inputs
            same = all(specs[first] == specs[second] for specs in shapes)
            fused = _fused(node, layers) if same else None
            if fused is not None:
                del kept[fused.name]
                kept[fused.name] = fused
                continue
        value = node.outputs[0]
        if (
            node.op.fuses
            and "kernel" in node.params
            and node.activation is None
            and node.residual is None
            and value not in graph.outputs
            and len(consumers.get(value, ())) == 1
        ):
            layers[value] = node
        kept[node.name] = node
    return graph.with_nodes(kept.values())


def _fused(add: Node, layers: dict[str, Node]) -> Node | None:
    """Return the later of the two summed layers with the other value as residual."""
    first, second = add.inputs
    if first == second or add.activation or add.residual:
        return None
    for value, other in ((second, first), (first, second)):
        if value in layers:
            return replace(layers[value], outputs=add.outputs, residual=other)
    return None


def _other_shapes(graph: Graph) -> dict[str, Shape]:
    """Return input shapes with every free size changed."""
    return {
        entry.name: entry.spec(
            {
                d: 2 if axis == 0 else 2 * DEFAULT_SIZE
                for axis, d in reversed(list(enumerate(entry.shape)))
                if isinstance(d, str)
            }
        ).shape
        for entry in graph.inputs
    }
