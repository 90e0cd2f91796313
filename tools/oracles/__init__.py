"""Other runtimes, to compare a converted network with.

Each module has a function ``oracle(source, graph)`` that returns an `Oracle` of its
framework, which is imported only then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from striate import Graph
from striate.spec import Array

__all__ = ["Oracle", "as_source", "as_stored", "order"]


class Oracle(Protocol):
    """A runtime that computes what a graph was converted from.

    Feeds and results are keyed by the graph's names and lie as the graph's tensors do.
    One that is less exact than float32 has an attribute ``tolerance``, and one that has
    something to say to the user ``notes``, a list of str.

    Attributes
    ----------
    name : str
        What the runtime is called.
    version : str
        Which one it is.
    """

    name: str
    version: str

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs."""
        ...

    def layers(self, feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """Yield (value of the graph, its elements), in the order they are computed."""
        ...


def order(graph: Graph) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return for each value of the graph what the source calls it, and its axes.

    The axes are the source's, in the order in which the graph has them. All inputs and
    outputs of a converted graph are there, and of what other layers compute as much as
    is known. A graph that was not converted has none.
    """
    done = graph.metadata.get("conversion")
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for part in ("layers", "order"):
        entries = done.get(part) if isinstance(done, dict) else None
        for name, entry in (entries if isinstance(entries, dict) else {}).items():
            match entry:
                case {"source": str(source), "axes": list(axes)} if _permutes(axes):
                    found[name] = source, tuple(axes)
    return found


def _permutes(axes: list[Any]) -> bool:
    return all(type(a) is int for a in axes) and sorted(axes) == list(range(len(axes)))


def as_source(array: Array, axes: tuple[int, ...]) -> Array:
    """Return an array of the graph with its axes in the source's order."""
    return np.ascontiguousarray(array.transpose(np.argsort(axes)))


def as_stored(array: Array, axes: tuple[int, ...]) -> Array:
    """Return an array of the source with its axes in the graph's order."""
    array = np.asarray(array)
    return np.ascontiguousarray(array.transpose(axes)) if array.ndim else array
