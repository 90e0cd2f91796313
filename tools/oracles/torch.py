"""PyTorch on the program a graph was converted from.

A ``.pt2`` file is read by us and its operators are called one by one, so that nothing
of it is unpickled; only ATen's operators and arithmetic are called.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from striate import Graph
from striate.errors import MissingExtraError, UnsupportedModelError
from striate.spec import Array
from striate.tools.from_torch import constants, exported
from striate.tools.from_torch.archive import read_pt2
from striate.tools.from_torch.source import Ref, SourceNode, SourceProgram
from striate.tools.oracles import as_source, as_stored, order

Tensors = dict[str, Any]


def oracle(source: Any, graph: Graph) -> Torch:
    """Return PyTorch on a module, an exported program or a ``.pt2`` file.

    Parameters
    ----------
    source : torch.nn.Module, torch.export.ExportedProgram or path
        What was converted; a module is one of tensors only.
    graph : Graph
        What it was converted to.

    Raises
    ------
    MissingExtraError
        If PyTorch is not installed.
    """
    try:
        return Torch(source, graph)
    except ImportError as error:
        raise MissingExtraError(
            'PyTorch is not installed: pip install "striate[torch]"'
        ) from error


class Torch:
    """The program behind a graph, as a `striate.tools.oracles.Oracle`.

    Parameters
    ----------
    source : torch.nn.Module, torch.export.ExportedProgram or path
        What was converted.
    graph : Graph
        What it was converted to.
    """

    def __init__(self, source: Any, graph: Graph) -> None:
        import torch

        self.name, self.version = "torch", str(torch.__version__)
        self._graph = graph
        self._order = order(graph)
        self._source = source
        self._program: SourceProgram | None = None
        if exported.is_program(source):
            self._program = exported.read_program(source, "program")
        elif isinstance(source, (str, os.PathLike)):
            self._program = read_pt2(source)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs."""
        program, tensors = self._prepared(feeds)
        places = {
            name: program.outputs[int(self._order[name][0])][1].name
            for name in self._graph.outputs
        }
        found = computed(program, tensors, set(places.values()))
        return {
            name: as_stored(found[value], self._order[name][1])
            for name, value in places.items()
        }

    def layers(self, feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """Yield what every layer computes of which the program has the tensor."""
        program, tensors = self._prepared(feeds)
        made = [value for node in self._graph.nodes for value in node.outputs]
        wanted = {
            name: self._order[name]
            for name in made
            if name in self._order and name not in self._graph.outputs
        }
        found = computed(program, tensors, {value for value, _ in wanted.values()})
        for name, (value, axes) in wanted.items():
            if value in found and found[value].ndim == len(axes):
                yield name, as_stored(found[value], axes)

    def _prepared(self, feeds: Mapping[str, Array]) -> tuple[SourceProgram, Tensors]:
        """Return the program and its inputs by its own names."""
        import torch

        given: Tensors = {}
        for name, feed in feeds.items():
            source, axes = self._order[name]
            given[source] = torch.from_numpy(as_source(np.asarray(feed), axes).copy())
        program = self._program
        if program is None:
            called = (self._order[entry.name][0] for entry in self._graph.inputs)
            args = tuple(given[name] for name in called)
            done = exported.exported(self._source, args, {}, open_batch=False)
            program = exported.read_program(done, "module")
        tensors = {
            name: given[called]
            for name, called in zip(program.inputs, given, strict=True)
        }
        return program, tensors


def computed(
    program: SourceProgram, tensors: Tensors, wanted: set[str]
) -> dict[str, Array]:
    """Return values of a program by name, also for another batch than it fixes."""
    import torch

    sizes = {program.tensors[name].shape[:1] for name in tensors}
    fixed = sizes.pop()[0] if len(sizes) == 1 and sizes != {()} else None
    count = next(iter(tensors.values())).shape[0] if fixed is not None else 0
    if not isinstance(fixed, int) or fixed == count:
        return evaluated(program, tensors, wanted)
    parts: list[dict[str, Array]] = []
    for start in range(0, count, fixed):
        rows = [min(row, count - 1) for row in range(start, start + fixed)]
        part = {name: x[torch.tensor(rows)] for name, x in tensors.items()}
        parts.append(evaluated(program, part, wanted))
    return {
        name: np.concatenate([part[name] for part in parts])[:count]
        for name in parts[0]
        if parts[0][name].ndim and parts[0][name].shape[0] == fixed
    }


def evaluated(
    program: SourceProgram, tensors: Tensors, wanted: Iterable[str]
) -> dict[str, Array]:
    """Return values of a program by name."""
    import torch

    values: dict[str, Any] = {**program.fixed, **tensors}
    values.update(
        {
            name: torch.from_numpy(load().copy())
            for name, load in program.weights.items()
        }
    )
    kept: dict[str, Array] = {}
    chosen = set(wanted)
    with torch.no_grad():
        for node in program.nodes:
            result = _call(node, values)
            many = result if isinstance(result, (tuple, list)) else (result,)
            for name, value in zip(node.outputs, many, strict=False):
                values[name] = value
                if name in chosen:
                    kept[name] = value.clone().numpy()
    for name in chosen & tensors.keys():
        kept[name] = tensors[name].numpy()
    return kept


def _call(node: SourceNode, values: Mapping[str, Any]) -> Any:
    """Call an operator of ATen, or compute with sizes."""
    import torch

    args = [_given(value, values) for value in node.args]
    kwargs = {key: _given(value, values) for key, value in node.kwargs.items()}
    namespace, _, name = node.target.partition(".")
    if namespace == "_operator" and name in constants.ARITHMETIC:
        return constants.ARITHMETIC[name](*args, *kwargs.values())
    packet = getattr(torch.ops.aten, namespace, None)
    operator = getattr(packet, name, None)
    if operator is None:
        raise UnsupportedModelError(f"PyTorch has no operator {node.target!r} here")
    named = dict(zip((a.name for a in operator._schema.arguments), args, strict=False))
    named.update(kwargs)
    for key, value in list(named.items()):
        if key == "dtype" and isinstance(value, str):
            named[key] = getattr(torch, value)
        elif key == "device":
            named[key] = torch.device("cpu")
        elif key in ("layout", "memory_format", "pin_memory"):
            del named[key]
    return operator(**named)


def _given(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, Ref):
        return values[value.name]
    if isinstance(value, list):
        return [_given(each, values) for each in value]
    return value
