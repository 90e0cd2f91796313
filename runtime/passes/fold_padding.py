"""Let convolutions do the padding of their input."""

from __future__ import annotations

from dataclasses import replace

from ..graph import Graph, Node
from ..ops import Conv, Pad


def fold_padding(graph: Graph) -> Graph:
    """Return the graph with zero padding moved into the convolution that reads it."""
    consumers = graph.consumers()
    pads: dict[str, Node] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        source = pads.get(node.inputs[0]) if node.inputs else None
        if source is not None and isinstance(node.op, Conv):
            assert isinstance(source.op, Pad)
            own = node.op.padding
            rank = len(source.op.padding) - 2
            pairs = ((0, 0),) * rank if own == "valid" else own
            assert not isinstance(pairs, str)
            pairs = pairs * rank if len(pairs) == 1 else pairs
            padding = tuple(
                (a + c, b + d)
                for (a, b), (c, d) in zip(pairs, source.op.padding[1:-1], strict=True)
            )
            op = replace(node.op, padding=padding)
            kept.append(
                replace(node, op=op, inputs=(source.inputs[0], *node.inputs[1:]))
            )
        elif _only_feeds_convolutions(node, graph, consumers):
            pads[node.outputs[0]] = node
        else:
            kept.append(node)
    return graph.with_nodes(kept)


def _only_feeds_convolutions(
    node: Node, graph: Graph, consumers: dict[str, list[Node]]
) -> bool:
    op = node.op
    value = node.outputs[0]
    return (
        isinstance(op, Pad)
        and len(op.padding) > 2
        and op.mode == "constant"
        and op.value == 0
        and op.padding[0] == (0, 0) == op.padding[-1]
        and min(min(pair) for pair in op.padding) >= 0
        and value not in graph.outputs
        and bool(consumers.get(value))
        and all(
            isinstance(reader.op, Conv)
            and reader.op.padding not in ("same", "same_lower")
            and reader.inputs[0] == value
            and reader.residual != value
            for reader in consumers[value]
        )
    )
