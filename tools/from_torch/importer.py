"""Programs of `torch.export` to graphs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from striate import Graph
from striate.errors import SettingError, UnsupportedModelError
from striate.tools.builder import DTYPES, FLOATS
from striate.tools.conversion import Conversion, Progress, probe
from striate.tools.from_torch import (
    axes,
    constants,
    elementwise,
    exported,
    layers,
    recurrent,
    reductions,
    resample,
)
from striate.tools.from_torch.archive import read_pt2
from striate.tools.from_torch.registry import (
    Number,
    TorchBuilder,
    aten,
    call,
    find_handler,
)
from striate.tools.from_torch.source import (
    Ref,
    SourceNode,
    SourceProgram,
    overwritten,
    simplified,
)
from striate.tools.layout import Tensor, last

OPERATORS = (axes, constants, elementwise, layers, recurrent, reductions, resample)
"""The modules that register operators."""

SOURCE_OPERATORS = frozenset(
    ("linear", "matmul", "layer_norm", "lstm", "gru", "rnn_tanh", "rnn_relu", "bmm")
)
"""What reads axes in their own order."""

KEEPING = frozenset(
    (
        "add",
        "sub",
        "mul",
        "div",
        "clamp",
        "pad",
        "cat",
        "dropout",
        "alias",
        "clone",
        "contiguous",
        "detach",
        "leaky_relu",
        "prelu",
        "slice",
        "to",
        "sym_size",
    )
)
"""What leaves axes where they are, besides what is elementwise."""

LETTERS = {3: "NCL", 4: "NCHW", 5: "NCDHW"}
"""What open sizes are called."""

HINTS = {
    "nms": "convert the part before it: wrap the module in one that returns boxes and "
    "scores",
    "batch_norm.default": "call .eval() before exporting",
    "cond": "a branch that depends on values cannot be converted",
}
"""What the user of an operator that cannot be converted can do."""


def operators() -> list[str]:
    """Return the names of the ATen operators that can be converted."""
    assert OPERATORS
    return aten.operators()


def from_torch(
    source: Any,
    *,
    example: Any = None,
    io: str = "channels_last",
    progress: Progress | None = None,
) -> Graph:
    """Return the network of a module of PyTorch or of a program it exported.

    Parameters
    ----------
    source : torch.nn.Module, torch.export.ExportedProgram or path
        The module, which is exported in evaluation mode; its program; or a ``.pt2``
        file, which is read without PyTorch.
    example : tensor, tuple or dict
        What a module is called with: its only argument, its arguments in order, or by
        name. The first axis of the tensors becomes the batch, which stays open if it
        is the same in all of them and the module allows it.
    io : str
        ``"channels_last"``: images go in and come out as (N, H, W, C).
        ``"source"``: as in the program, (N, C, H, W), transposed at the boundary.
    progress : callable, optional
        Called with (operators done, operators).

    Raises
    ------
    ModelFormatError
        If a file is not a whole program.
    SettingError
        If a module comes without an example, or an example without a module.
    UnsupportedModelError
        If PyTorch cannot export the module, or it holds what has no equal here; the
        message is a table of all of it.
    """
    *general, last_resort = _attempts(source, example)
    for attempt in general:
        with suppress(UnsupportedModelError):
            return _converted(attempt(), io, progress)
    return _converted(last_resort(), io, progress)


def _attempts(source: Any, example: Any) -> Iterator[Callable[[], SourceProgram]]:
    """Yield what makes a program to convert, from the most general one on."""
    if exported.is_module(source):
        args, kwargs = exported.arguments(example)
        for open_batch in (True, False):
            yield partial(_module, source, args, kwargs, open_batch)
        return
    if example is not None:
        raise SettingError("an example is for a module")
    if exported.is_program(source):
        yield lambda: _in_process(source, "program")
    elif isinstance(source, (str, os.PathLike)):
        yield lambda: read_pt2(source)
    else:
        raise SettingError(
            f"found a {type(source).__name__}, wanted a torch.nn.Module, an "
            "ExportedProgram or the path of a .pt2 file"
        )


def _module(
    module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], open_batch: bool
) -> SourceProgram:
    """Return a module's program in our terms."""
    program = exported.exported(module, args, kwargs, open_batch=open_batch)
    return _in_process(program, type(module).__name__)


def _in_process(program: Any, name: str) -> SourceProgram:
    """Return a program in our terms, without in-place operators if need be."""
    found = exported.read_program(program, name)
    if overwritten(found):
        found = exported.read_program(exported.functional(program), name)
    return found


def _converted(program: SourceProgram, io: str, progress: Progress | None) -> Graph:
    """Return the graph with the batch open, if that can be."""
    program = simplified(program)
    fixed = _fixed_batch(program)
    if fixed is None:
        return _Walk(program, io, None, progress).run()
    try:
        return _Walk(program, io, fixed, progress).run()
    except UnsupportedModelError as error:
        closed = _Walk(program, io, None, progress)
        closed.account.notes.append(f"the batch size stays {fixed}; open, {error}")
        return closed.run()


def _fixed_batch(program: SourceProgram) -> int | None:
    """Return the size of the first axis of all inputs, if it is one number."""
    sizes = {program.tensors[name].shape[:1] for name in program.inputs}
    ranks = [len(program.tensors[name].shape) for name in program.inputs]
    only = sizes.pop() if len(sizes) == 1 and min(ranks) > 1 else ()
    return next((size for size in only if isinstance(size, int)), None)


class _Walk:
    """One pass over a program's operators."""

    def __init__(
        self,
        program: SourceProgram,
        io: str,
        batch: int | None,
        progress: Progress | None,
    ) -> None:
        self.program = program
        self.io = io
        self.batch = batch
        self.account = Conversion(
            program.name, "torch", len(program.nodes), progress, hints=HINTS
        )
        self.values: dict[str, Any] = dict(program.fixed)
        self.symbols: dict[str, tuple[int, int]] = {}
        self.letters: dict[str, str] = {}

    def run(self) -> Graph:
        """Return the graph; raise `UnsupportedModelError` telling all it cannot."""
        program, account = self.program, self.account
        with account.located():
            if not program.inputs:
                raise UnsupportedModelError("it has no inputs")
            shapes = {name: self._shape(name) for name in program.inputs}
            self.g = TorchBuilder(self.symbols, self.batch)
            for name, shape in shapes.items():
                self._input(name, shape)
            for name, value in program.weights.items():
                self.values[name] = self.g.constant(value())
        bad = overwritten(program)
        labels = program.labels()
        used = {name for node in program.nodes for name in node.reads}
        used.update(r.name for _, r in program.outputs if isinstance(r, Ref))
        for index, (node, label) in enumerate(zip(program.nodes, labels, strict=True)):
            self._node(node, label, used, bad.get(index))
        if len(program.nodes) in bad:
            account.problem("output", self._changed(bad[len(program.nodes)]), "output")
        account.require_supported()
        with account.located():
            self._outputs(labels)
        extra = {"source_sha256": program.sha256} if program.sha256 else {}
        return account.finish(
            self.g, Path(program.name).stem, source_format=program.format, **extra
        )

    def _shape(self, name: str) -> tuple[int | str, ...]:
        """Return an input's shape with a symbol for each size that is open."""
        found = self.program.tensors[name].shape
        letters = LETTERS.get(len(found), "N")
        shape: list[int | str] = []
        for axis, size in enumerate(found):
            if isinstance(size, int) and not (axis == 0 and self.batch is not None):
                shape.append(size)
                continue
            letter = letters[axis] if axis < len(letters) else f"D{axis}"
            if isinstance(size, str):
                if not size.isidentifier():
                    raise UnsupportedModelError(
                        f"the size {size!r} of its input {name!r}"
                    )
                letter = self.letters.setdefault(size, letter)
            if letter not in self.symbols:
                self.symbols[letter] = probe(letter, self.symbols)
            shape.append(letter)
        return tuple(shape)

    def _input(self, name: str, shape: tuple[int | str, ...]) -> None:
        dtype = self.program.tensors[name].dtype
        stored = tuple(range(len(shape)))
        if self.io == "channels_last":
            stored = self._input_order(name, len(shape))
        if dtype not in (*FLOATS, *DTYPES):
            raise UnsupportedModelError(f"its input {name!r} has {dtype} elements")
        called = self.program.inputs[name]
        self.values[name] = self.g.input(called, shape, stored, dtype)
        if dtype in FLOATS[1:]:
            self.g.note(f"input {called!r} takes float32, not {dtype}")
        self.account.orders.append((called, stored))

    def _input_order(self, name: str, rank: int) -> tuple[int, ...]:
        """Return the order of an input's axes that its first reader wants."""
        if not 3 <= rank <= 5:
            return tuple(range(rank))
        seen = {name: tuple(range(rank))}
        for node in self.program.nodes:
            read = next((value for value in node.reads if value in seen), None)
            if read is None:
                continue
            if node.op in SOURCE_OPERATORS:
                return seen[read]
            if node.op == "permute":
                dims = [*node.args, *node.kwargs.values()][1]
                order = tuple(seen[read][axis] for axis in dims)
                seen.update(dict.fromkeys(node.outputs, order))
            elif node.op.strip("_") in elementwise.UNARY or node.op in KEEPING:
                seen.update(dict.fromkeys(node.outputs, seen[read]))
            else:
                return tuple(seen[read][axis] for axis in last(rank))
        return last(rank)

    def _node(
        self, node: SourceNode, label: str, used: set[str], changed: str | None
    ) -> None:
        wanted = [i for i, name in enumerate(node.outputs) if name in used]
        count = max(wanted, default=0) + 1
        refs = [self.values.get(name) for name in node.reads]
        results = self.account.node(
            self.g,
            node.target.removesuffix(".default"),
            label,
            lambda: self._results(node, count, changed),
            reads=[x for x in refs if isinstance(x, Tensor)],
            outputs=node.outputs,
        )
        if results is None:
            results = tuple(self._assumed(name) for name in node.outputs)
        self.values.update(zip(node.outputs, results, strict=False))
        if node.written and results:
            self.values[node.written] = results[0]

    def _results(self, node: SourceNode, count: int, changed: str | None) -> Any:
        self.g.results = len(node.outputs)
        self.g.wanted = count
        if changed is not None:
            raise UnsupportedModelError(self._changed(changed))
        handler = find_handler(node.target)
        if handler is None:
            raise UnsupportedModelError("no such operator here")
        missing = [name for name in node.reads if self._missing(name)]
        if missing:
            return (None,) * len(node.outputs)
        args = [self._argument(value) for value in node.args]
        kwargs = {key: self._argument(value) for key, value in node.kwargs.items()}
        found = call(handler, self.g, args, kwargs)
        results = found if isinstance(found, tuple) else (found,)
        if len(results) < count and any(node.outputs):
            raise UnsupportedModelError(f"its result {count} is not computed here")
        return results

    def _missing(self, name: str) -> bool:
        if name not in self.values:
            raise UnsupportedModelError(f"no earlier operator computes {name!r}")
        return self.values[name] is None and name not in self.program.fixed

    def _changed(self, name: str) -> str:
        return (
            f"{name!r} was changed in place under another name; export with "
            "run_decompositions({}) first"
        )

    def _argument(self, value: Any) -> Any:
        """Return an argument with values for names; fixed numbers as Python's."""
        if isinstance(value, Ref):
            found = self.values[value.name]
            if isinstance(found, Number) and found.fixed:
                return found.arrays[0].item()
            return found
        if isinstance(value, list):
            return [self._argument(each) for each in value]
        return value

    def _assumed(self, name: str) -> Tensor | None:
        """Return a stand-in for what could not be converted, to look on behind it."""
        known = self.program.tensors.get(name)
        if known is None or known.dtype not in (*FLOATS, *DTYPES):
            return None
        shape: list[int | str] = []
        for axis, size in enumerate(known.shape):
            symbol = self.letters.get(size) if isinstance(size, str) else size
            if axis == 0 and self.batch is not None and size == self.batch:
                symbol = "N"
            if symbol is None:
                return None
            shape.append(symbol)
        return self.g.input(name, shape, range(len(shape)), known.dtype)

    def _outputs(self, labels: list[str]) -> None:
        made: Mapping[str, str] = {
            name: label
            for node, label in zip(self.program.nodes, labels, strict=True)
            for name in node.outputs
        }
        for place, (key, result) in enumerate(self.program.outputs):
            if result is None:
                self.g.note(f"result {place} is no tensor and is left out")
                continue
            x = self.values.get(result.name)
            if not isinstance(x, Tensor):
                raise UnsupportedModelError(f"result {place} is not computed")
            self._output(x, key or made.get(result.name, "output"), str(place))

    def _output(self, x: Tensor, name: str, source: str) -> None:
        self.account.output(self.g, x, name, self.io, source)
