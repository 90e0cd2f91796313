"""Examples that a model file brings, computed again on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import striate
from striate import Graph, Model
from striate.errors import SettingError
from striate.spec import Array
from striate.tools.verification import TOLERANCE, Agreement, Runtime, steps


class Reference:
    """The operators' own definition in NumPy, in float64, as an `Oracle`.

    Parameters
    ----------
    graph : Graph
        The network.
    """

    name = "reference"
    version = striate.__version__

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs."""
        return self._graph.reference(_precise(feeds))

    def layers(self, feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """Yield what every layer computes."""
        values = _precise(feeds)
        for node in self._graph.nodes:
            self._graph.evaluate([node], values)
            yield from ((name, values[name]) for name in node.outputs)


def _precise(feeds: Mapping[str, Array]) -> dict[str, Array]:
    return {
        name: array.astype(np.float64) if array.dtype.kind == "f" else array
        for name, array in feeds.items()
    }


@dataclass
class Replay:
    """How far the examples are off.

    Attributes
    ----------
    examples : int
        How many there are.
    outputs : dict of str to Agreement
        What was found of each output.
    layer, op : str
        The first layer that differs from its definition, and its operator; empty if
        none does.
    """

    examples: int
    outputs: dict[str, Agreement] = field(default_factory=dict)
    layer: str = ""
    op: str = ""

    @property
    def agrees(self) -> bool:
        """Whether every output is as near as float32 lets it be."""
        return all(each.within(TOLERANCE) for each in self.outputs.values())

    @property
    def first(self) -> str:
        """What is to be said of the first layer that differs."""
        if self.agrees:
            return ""
        return f"{self.layer} ({self.op})" if self.layer else "no layer by itself"

    def as_json(self) -> dict[str, Any]:
        """Return what was found, under names."""
        return {
            "examples": self.examples,
            "tolerance": TOLERANCE,
            "agrees": self.agrees,
            "outputs": {name: each.as_json() for name, each in self.outputs.items()},
            "first_diverging": {"layer": self.layer, "op": self.op}
            if self.layer
            else None,
        }


def replay(graph: Graph) -> Replay:
    """Compute the examples of a graph and return how far the outputs are off.

    If one is, each layer is compared with its definition, for the first such example.

    Raises
    ------
    SettingError
        If there are no examples.
    """
    if not graph.examples:
        raise SettingError(f"{graph.name!r} holds no examples; striate.save adds them")
    found = Replay(len(graph.examples), {name: Agreement() for name in graph.outputs})
    dynamic = any(node.op.dynamic for node in graph.nodes)
    worst: Mapping[str, Array] | None = None
    with Model(graph) as model:
        for example in graph.examples:
            feeds = {entry.name: example[entry.name] for entry in graph.inputs}
            results = model.run(feeds)
            for name, agreement in found.outputs.items():
                agreement.add(results[name], example[name], dynamic)
            if worst is None and not found.agrees:
                worst = feeds
    if worst is not None:
        for step in steps(graph, Runtime(graph), Reference(graph), worst):
            if not step.relative <= TOLERANCE:
                found.layer, found.op = step.layer, step.op
                break
    return found
