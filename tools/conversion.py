"""What is the same wherever a network comes from: its account, and the table of faults.

A door, `striate.tools.from_onnx` say, walks the operators of its source with one
`Conversion`. Each goes through `Conversion.node`, which gives the layers their source's
names and keeps what cannot be converted; `Conversion.finish` refuses all of that at
once, or returns the graph with the account of what was done.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import striate
from striate import Graph
from striate.errors import (
    ModelFormatError,
    SettingError,
    StriateError,
    UnsupportedModelError,
)
from striate.tools.builder import Builder
from striate.tools.layout import Axis, Constant, Tensor, Value, last
from striate.tools.patterns import rewrite

MALFORMED = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError)
"""What a setting or constant that makes no sense may raise in a handler."""

PROBES = {"N": (2, 3), "D": (24, 32), "H": (224, 256), "W": (192, 320), "L": (224, 288)}
"""Two sizes to try for what is left open; no two alike, so that each is told apart."""

NAMED = 5
"""How many of the layers that share a fault are named."""

LARGEST_SUM = 1 << 29
"""The most elements that all constants computed during conversion may have."""

CHUNK = 1 << 20
"""Bytes of a file that are hashed at a time."""

Progress = Callable[[int, int], None]

Handler = Callable[..., Any]

Function = TypeVar("Function", bound=Handler)


class Registry:
    """Functions by the name of the source's operator that they convert.

    Examples
    --------
    >>> sections = Registry()
    >>> @sections.register("convolutional", "conv")
    ... def convolutional(g, x, *, filters=1): ...
    >>> sections.find("conv") is convolutional
    True
    """

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def register(self, *operators: str) -> Callable[[Function], Function]:
        """Register a function as the meaning of operators.

        The function gets a builder, then the inputs as the operator orders them, then
        the settings by name; it returns the output, or a tuple of outputs.
        """

        def registered(function: Function) -> Function:
            self._handlers.update(dict.fromkeys(operators, function))
            return function

        return registered

    def find(self, operator: str) -> Handler | None:
        """Return the function for an operator, None if there is none."""
        return self._handlers.get(operator)

    def operators(self) -> list[str]:
        """Return the names of the operators that have a function."""
        return sorted(self._handlers)


def call(
    handler: Handler,
    g: Builder,
    inputs: Sequence[Tensor | None],
    settings: Mapping[str, Any],
) -> Any:
    """Call a handler with an operator's inputs and settings.

    Raises
    ------
    UnsupportedModelError
        On a setting or input that the function does not know, or one it lacks.
    """
    signature = inspect.signature(handler)
    positional = [
        p
        for p in signature.parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ][1:]
    open_ended = any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())
    known = {p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}
    unknown = sorted(settings.keys() - known)
    if unknown:
        raise UnsupportedModelError(f"attribute {', '.join(unknown)}")
    if len(inputs) > len(positional) and not open_ended:
        raise UnsupportedModelError(f"it has {len(inputs)} inputs")
    for parameter, tensor in zip(positional, inputs, strict=False):
        if tensor is None and parameter.default is parameter.empty:
            raise UnsupportedModelError(f"input {parameter.name} is left out")
    missing = [p.name for p in positional[len(inputs) :] if p.default is p.empty]
    if missing:
        raise UnsupportedModelError(f"input {missing[0]} is missing")
    return handler(g, *inputs, **settings)


@dataclass
class Problem:
    """An operator that cannot be converted, and where it is.

    Parameters
    ----------
    op : str
        The operator, as the source names it.
    reason : str
        What is wrong with it.
    version : str
        Which version of the operator it is; empty where there are none.
    layers : list of str
        The layers it is in.
    """

    op: str
    reason: str
    version: str = ""
    layers: list[str] = field(default_factory=list)


def table(
    title: str,
    problems: Sequence[Problem],
    version: str = "version",
    layers: str = "layers",
) -> str:
    """Return one table of everything that cannot be converted, under its title."""
    rows = [("operator", version, "count", "reason", layers)]
    for problem in sorted(problems, key=lambda p: (-len(p.layers), p.op)):
        named = ", ".join(problem.layers[:NAMED])
        rows.append(
            (
                problem.op,
                problem.version,
                str(len(problem.layers)),
                problem.reason,
                named + (", ..." if problem.layers[NAMED:] else ""),
            )
        )
    columns = [c for c in range(5) if c != 1 or any(p.version for p in problems)]
    widths = {c: max(len(row[c]) for row in rows) for c in columns[:-1]}
    lines = ["  ".join(row[c].ljust(widths.get(c, 0)) for c in columns) for row in rows]
    return "\n".join([title, *lines])


class Conversion:
    """The account of one conversion, from the first operator to the graph.

    Parameters
    ----------
    source : path or str
        The file, or what to call the source in messages.
    framework : str
        Who wrote it, for the provenance: ``"onnx"``.
    operators : int
        How many operators the source has.
    progress : callable, optional
        Called with (operators done, operators).
    hints : dict, optional
        Operator to what its user can do about it if it cannot be converted.
    version, layers : str
        What the source calls the version of an operator, and its layers.

    Attributes
    ----------
    problems : list of Problem
        What cannot be converted.
    folded, free : Counter
        Operators that were computed, and that became nothing, by name.
    notes : list of str
        What a user should know, besides the builder's own notes.
    orders : list of (str, tuple of int)
        For each input, then each output: its name in the source, and the source's axes
        in the order in which the graph has them. The door fills it in.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        framework: str,
        operators: int,
        progress: Progress | None = None,
        *,
        hints: Mapping[str, str] | None = None,
        version: str = "version",
        layers: str = "layers",
    ) -> None:
        self.source = str(source)
        self.framework = framework
        self.operators = operators
        self.progress = progress
        self.hints = dict(hints or {})
        self.version = version
        self.layers = layers
        self.problems: list[Problem] = []
        self.folded: Counter[str] = Counter()
        self.free: Counter[str] = Counter()
        self.notes: list[str] = []
        self.orders: list[tuple[str, tuple[int, ...]]] = []
        self._computed: list[tuple[str, Value]] = []
        self._done = 0
        self._elements = 0
        self._owners: set[int] = set()

    def problem(self, op: str, reason: str, layer: str, version: str = "") -> None:
        """Keep what cannot be converted, to be told with all the rest."""
        for known in self.problems:
            if (known.op, known.version, known.reason) == (op, version, reason):
                known.layers.append(layer)
                return
        self.problems.append(Problem(op, reason, version, [layer]))

    def node(
        self,
        g: Builder,
        op: str,
        layer: str,
        convert: Callable[[], Any],
        *,
        reads: Sequence[Tensor | None] = (),
        outputs: Sequence[str] = (),
        version: str = "",
    ) -> tuple[Tensor | None, ...] | None:
        """Convert one operator and return its results.

        Parameters
        ----------
        g : Builder
            What the operator is built with.
        op : str
            Its name, for the account and the table of faults.
        layer : str
            Its layer's name; the striate layers it becomes are called so.
        convert : callable
            Returns its output, or a tuple of outputs.
        reads : sequence of Tensor
            Its inputs.
        outputs : sequence of str
            What the source calls its outputs; `layer` if there is only one.
        version : str
            Which version of the operator it is.

        Returns
        -------
        tuple of Tensor or None
            None if it cannot be converted, which is then among `problems`.
        """
        g.site = layer
        before = len(g.nodes)
        try:
            found = convert()
        except StriateError as error:
            self.problem(op, str(error), layer, version)
            return None
        except MALFORMED as error:
            self.problem(op, f"{type(error).__name__}: {error}", layer, version)
            return None
        finally:
            self._advance()
        self._require_room(found)
        emitted = len(g.nodes) > before
        results = []
        for result in found if isinstance(found, tuple) else (found,):
            if isinstance(result, Value):
                if not emitted and not any(result is value for value in reads):
                    result = replace(result, label=layer)
                g.prefer(result, layer)
            results.append(result)
        self._count(op, results, emitted)
        self._computed += [
            (name, result)
            for name, result in zip(outputs or (layer,), results, strict=False)
            if isinstance(result, Value) and emitted
        ]
        return tuple(results)

    def output(
        self, g: Builder, x: Tensor, name: str, io: str, source: str = ""
    ) -> None:
        """Declare an output of a channels-first source.

        Parameters
        ----------
        g : Builder
            What it was built with.
        x : Tensor
            The output.
        name : str
            What to call it.
        io : str
            ``"channels_last"`` to have images so if they lie so.
        source : str
            What the source calls it, if not `name`.
        """
        axes = tuple(range(x.rank))
        if io == "channels_last" and 3 <= x.rank <= 5 and g.order(x) == last(x.rank):
            axes = last(x.rank)
        g.site = name
        g.output(x.transpose(axes), name)
        self.orders.append((source or name, axes))

    @contextmanager
    def located(self) -> Iterator[None]:
        """Raise what goes wrong as `UnsupportedModelError` that names the source."""
        try:
            yield
        except (ModelFormatError, MemoryError):
            raise
        except StriateError as error:
            raise UnsupportedModelError(f"{self.source}: {error}") from None
        except MALFORMED as error:
            raise UnsupportedModelError(
                f"{self.source}: {type(error).__name__}: {error}"
            ) from None

    def require_supported(self) -> None:
        """Raise `UnsupportedModelError` if there are problems: a table of them all."""
        if not self.problems:
            return
        count = sum(len(problem.layers) for problem in self.problems)
        title = f"{self.source}: {count} {self.layers} cannot be converted"
        faults = table(title, self.problems, self.version, self.layers)
        found = dict.fromkeys(problem.op for problem in self.problems)
        hints = [f"{op}: {self.hints[op]}" for op in found if op in self.hints]
        raise UnsupportedModelError("\n".join([faults, *hints]))

    def finish(self, g: Builder, name: str, **provenance: Any) -> Graph:
        """Return the graph, with operators put together and the account stored.

        Parameters
        ----------
        g : Builder
            What has been built; its inputs and outputs are those of `orders`.
        name : str
            What to call the network.
        **provenance
            What else to say of the source: ``source_format``, ``source_sha256``.

        Raises
        ------
        UnsupportedModelError
            If there are `problems`; the message is a table of all of them.
        """
        self.require_supported()
        with self.located():
            name = "".join(filter(str.isprintable, name))
            graph, patterns = rewrite(g.graph(name))
        graph.provenance = {
            "name": graph.name,
            "source_framework": self.framework,
            **provenance,
            "converter": f"striate {striate.__version__}",
        }
        ends = [*(entry.name for entry in graph.inputs), *graph.outputs]
        graph.metadata["conversion"] = {
            "nodes_in": self.operators,
            "nodes_out": len(graph.nodes),
            "parameters": sum(array.size for array in graph.params.values()),
            "transposes": g.transposes,
            "constants": dict(self.folded),
            "free": dict(self.free),
            "patterns": dict(patterns),
            "notes": [*self.notes, *g.notes],
            "order": {
                end: {"source": source, "axes": list(axes)}
                for end, (source, axes) in zip(ends, self.orders, strict=True)
            },
            "layers": self._layers(g, graph),
        }
        return graph

    def _require_room(self, found: Any) -> None:
        """Refuse to hold more computed constants than `LARGEST_SUM`."""
        for result in found if isinstance(found, tuple) else (found,):
            for array in result.arrays if isinstance(result, Constant) else ():
                owner = array
                while isinstance(owner.base, np.ndarray) and 0 not in owner.strides:
                    owner = owner.base
                fresh = owner.base is None or 0 in owner.strides
                if fresh and id(owner) not in self._owners:
                    self._owners.add(id(owner))
                    self._elements += owner.size
        if self._elements > LARGEST_SUM:
            raise UnsupportedModelError(
                f"{self.source}: it computes constants of more than {LARGEST_SUM} "
                "elements in all"
            )

    def _advance(self) -> None:
        self._done += 1
        if self.progress:
            self.progress(min(self._done, self.operators), self.operators)

    def _count(self, op: str, results: Sequence[Any], emitted: bool) -> None:
        known = [result for result in results if result is not None]
        if known and all(isinstance(result, Constant) for result in known):
            self.folded[op] += 1
        elif known and not emitted:
            self.free[op] += 1

    def _layers(self, g: Builder, graph: Graph) -> dict[str, dict[str, Any]]:
        """Return where each value of the graph is in the source, as `order` says it."""
        made = {value for node in graph.nodes for value in node.outputs}
        found: dict[str, dict[str, Any]] = {}
        for source, value in self._computed:
            name = g.names.get(value.name, "")
            axes = stored_order(value)
            if name in made and name not in found and axes is not None:
                found[name] = {"source": source, "axes": list(axes)}
        return found


def probe(letter: str, symbols: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """Return two sizes for a symbol, as `PROBES` has them, that no other symbol has."""
    used = {size for sizes in symbols.values() for size in sizes}
    first, second = PROBES.get(letter, PROBES["H"])
    while {first, second} & used:
        first, second = first + 32, second + 64
    return first, second


def with_outputs(graph: Graph, names: Sequence[str], io: str) -> Graph:
    """Return a converted graph with other outputs, and without what none of them needs.

    Parameters
    ----------
    graph : Graph
        The whole.
    names : sequence of str
        Layers or tensors, as the source or the graph calls them.
    io : str
        How the graph was converted, for whoever must do it again to compare.

    Raises
    ------
    SettingError
        If there is nothing of that name.
    """
    done = graph.metadata["conversion"]
    places = {**done["layers"], **done["order"]}
    by_source = {entry["source"]: value for value, entry in places.items()}
    wanted = [name if name in places else by_source.get(name, "") for name in names]
    if "" in wanted:
        raise SettingError(f"no layer {names[wanted.index('')]!r} to cut at")
    cut = graph.until(dict.fromkeys(wanted))
    ends = [*(entry.name for entry in cut.inputs), *cut.outputs]
    made = {value for node in cut.nodes for value in node.outputs}
    cut.metadata = {
        **graph.metadata,
        "conversion": {
            **done,
            "nodes_out": len(cut.nodes),
            "parameters": sum(array.size for array in cut.params.values()),
            "transposes": [t for t in done["transposes"] if t["layer"] in made],
            "order": {end: places[end] for end in ends},
            "layers": {v: e for v, e in done["layers"].items() if v in made},
            "cut": {"outputs": list(names), "io": io},
        },
    }
    cut.postprocess = None
    return cut


def stored_order(value: Value) -> tuple[int, ...] | None:
    """Return the source's axes of a value in the order in which the graph has them.

    None if the graph's array has other axes than the source's.
    """
    if sorted(map(_identity, value.stored)) != sorted(map(_identity, value.axes)):
        return None
    units = (i for i, axis in enumerate(value.axes) if not axis)
    return tuple(value.axes.index(a) if a else next(units) for a in value.stored)


def _identity(axis: Axis) -> tuple[int, ...]:
    return tuple(map(id, axis))


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def upstream(
    operators: Sequence[tuple[Sequence[str], Sequence[str]]],
    outputs: Sequence[str],
    inputs: Sequence[str] = (),
) -> list[int]:
    """Return which operators are needed to compute some values, in their order.

    Parameters
    ----------
    operators : sequence of (inputs, outputs)
        What each operator reads and computes, in an order in which they can run.
    outputs : sequence of str
        The values wanted.
    inputs : sequence of str
        Values that are given, so that what computes them is not needed.
    """
    needed = set(outputs) - set(inputs)
    kept = []
    for index in range(len(operators) - 1, -1, -1):
        reads, computes = operators[index]
        if needed.intersection(computes):
            needed |= set(reads) - set(inputs)
            kept.append(index)
    return kept[::-1]
