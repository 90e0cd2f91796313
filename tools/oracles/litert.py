"""LiteRT on the TensorFlow Lite file a graph was converted from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from striate import Graph
from striate.errors import MissingExtraError
from striate.spec import Array
from striate.tools.oracles import order

COARSE = 0.2
"""What a quantised network may be off by, of its largest number.

The original rounds each result to one of 255 steps, or its inputs on the way, and
striate does not; each layer adds half a step and its share of those before. A network
that was converted wrongly is off by about its largest number.
"""


def oracle(source: str | os.PathLike[str], graph: Graph) -> LiteRT:
    """Return LiteRT on a file.

    Parameters
    ----------
    source : path
        The file.
    graph : Graph
        What it, or a part of it, was converted to.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        from ai_edge_litert import interpreter
    except ImportError as error:
        raise MissingExtraError(
            "comparing with LiteRT needs it: pip install ai-edge-litert"
        ) from error
    return LiteRT(interpreter, Path(source), graph)


class LiteRT:
    """A file behind a graph, as a `striate.tools.oracles.Oracle`.

    Quantised tensors are given and returned as the real numbers that they stand for.

    Parameters
    ----------
    module : module
        LiteRT's interpreters.
    path : Path
        The file.
    graph : Graph
        What it, or a part of it, was converted to.
    """

    name = "litert"

    def __init__(self, module: Any, path: Path, graph: Graph) -> None:
        from importlib.metadata import version

        self.version = version("ai-edge-litert")
        self._order = order(graph)
        self._graph = graph
        plain = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self._interpreter = module.Interpreter(
            model_content=path.read_bytes(),
            experimental_op_resolver_type=plain,
            experimental_preserve_all_tensors=True,
            num_threads=1,
        )
        self._interpreter.allocate_tensors()
        details = self._interpreter.get_tensor_details()
        self._places = {entry["name"]: entry for entry in details}
        if any(entry["dtype"] in (np.int8, np.uint8) for entry in details):
            self.tolerance = COARSE

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs."""
        return self._asked(feeds, self._graph.outputs)

    def layers(self, feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """Yield what every operator computes."""
        made = [value for node in self._graph.nodes for value in node.outputs]
        known = [
            name
            for name in made
            if name in self._order and self._order[name][0] in self._places
        ]
        yield from self._asked(feeds, known).items()

    def _asked(
        self, feeds: Mapping[str, Array], names: Sequence[str]
    ) -> dict[str, Array]:
        """Return results, picture by picture where the file has a batch of one."""
        given = {self._order[name][0]: array for name, array in feeds.items()}
        counts = {
            len(array) // max(int(self._places[source]["shape"][0]), 1)
            for source, array in given.items()
            if array.ndim
        }
        count = counts.pop() if len(counts) == 1 else 1
        found = []
        for index in range(count):
            for source, array in given.items():
                entry = self._places[source]
                size = len(array) // count if array.ndim else 0
                part = array[index * size : (index + 1) * size] if size else array
                self._interpreter.set_tensor(entry["index"], _whole(part, entry))
            self._interpreter.invoke()
            found.append([self._real(name) for name in names])
        joined = (
            np.concatenate(each) if each[0].ndim else each[0]
            for each in zip(*found, strict=True)
        )
        return dict(zip(names, joined, strict=True))

    def _real(self, name: str) -> Array:
        """Return a tensor as the real numbers that it stands for."""
        entry = self._places[self._order[name][0]]
        array = np.array(self._interpreter.get_tensor(entry["index"]))
        scale, zero = entry["quantization"]
        if not scale:
            return array
        real: Array = ((array.astype(np.float64) - zero) * scale).astype(np.float32)
        return real


def _whole(array: Array, entry: Mapping[str, Any]) -> Array:
    """Return real numbers as a tensor has them."""
    scale, zero = entry["quantization"]
    if scale:
        limits = np.iinfo(entry["dtype"])
        array = np.rint(array / np.float32(scale)) + zero
        array = array.clip(limits.min, limits.max)
    return np.ascontiguousarray(array, entry["dtype"])
