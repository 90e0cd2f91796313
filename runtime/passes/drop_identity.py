"""Remove layers that change nothing."""

from __future__ import annotations

from dataclasses import replace

from ..graph import Graph, Node
from ..ops import Relu
from ..spec import Spec


def drop_identity(graph: Graph) -> Graph:
    """Return the graph without the layers that pass their input on unchanged.

    These are identities, transpositions and reshapes to the same order and shape, and
    a ReLU of a ReLU. A layer whose value is an output stays: outputs keep their names.
    """
    specs = graph.specs()
    producers: dict[str, Node] = {}
    same: dict[str, str] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        current = node
        if not same.keys().isdisjoint(node.reads):
            current = replace(
                node,
                inputs=tuple(same.get(v, v) for v in node.inputs),
                residual=same.get(node.residual or "", node.residual),
            )
        value = node.outputs[0]
        if value not in graph.outputs and _changes_nothing(current, producers, specs):
            same[value] = current.inputs[0]
        else:
            kept.append(current)
            producers.update((v, current) for v in current.outputs)
    return graph.with_nodes(kept)


def _changes_nothing(
    node: Node, producers: dict[str, Node], specs: dict[str, Spec]
) -> bool:
    op = node.op
    if len(node.inputs) != 1 or node.params or node.activation or node.residual:
        return False
    if isinstance(op, Relu):
        before = producers.get(node.inputs[0])
        return (
            before is not None
            and isinstance(before.op, Relu)
            and before.activation is None
        )
    return op.changes_nothing(specs[node.inputs[0]])
