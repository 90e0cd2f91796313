"""A graph lowered for one set of input shapes: ordered steps and one arena.

# Design
Placing comes before lowering, because where a tensor lies decides what its neighbours
need to do. First every value's wish is known: a convolution that pads wants a halo of
zeros around its input, a concatenation wants its inputs written side by side. Then
values are placed: in a buffer of their own, inside a concatenation's buffer, or as
another view of their producer's input. Then each operator lowers itself against these
views. Last, the buffers' lifetimes give them offsets in the arena.

A plan holds no memory but constants. It is shared by all contexts that run it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import NamedTuple

from . import kernels, memory
from .errors import GraphError, ShapeError
from .graph import Graph, Node
from .kernels._program import ABSOLUTE, ARENA, Program
from .lowering import Choice, Epilogue, Option
from .ops.base import Op
from .ops.conv import Conv
from .ops.pool import MaxPool
from .packed_weights import Filling, PackedWeights
from .spec import Array, Shape, Spec, shape_text, spec_of
from .step import Step
from .strips import Layer, find_chains, lower_chain
from .view import Buffer, Halo, View, contiguous_strides

WORK_PER_THREAD = 2_000_000
"""Multiply-adds, and bytes moved, below which one more thread costs more than it
brings."""

MOST_BYTES = 1 << 47
"""What a process can address."""


class Stage(NamedTuple):
    """One step of a plan and the layer it belongs to."""

    layer: str
    operator: str
    step: Step
    multiply_adds: int
    nbytes: int


class Value(NamedTuple):
    """A layer's result, and where it lies once a number of steps are done.

    Parameters
    ----------
    name : str
        The value, as the optimised graph calls it.
    steps : int
        How many steps must be done. Later ones may use its memory again.
    view : View
        Its shape and strides.
    start : int
        Where it begins, in bytes, in the arena or array; a constant's address.
    """

    name: str
    steps: int
    view: View
    start: int


class Question(NamedTuple):
    """What a layer asked, and among what.

    Parameters
    ----------
    layer : str
        The layer.
    key : str
        The question together with the layer and the size of its result.
    options : tuple of str or int
        The guess first.
    """

    layer: str
    key: str
    options: tuple[Choice, ...]


class Plan:
    """The steps that compute a graph's outputs for given input shapes.

    Parameters
    ----------
    graph : Graph
        Optimised or not.
    shapes : dict
        Input name to shape.
    isa : str
        Instruction set of the kernels.
    threads : int
        How many threads a run may use.
    packed : PackedWeights
        Shared by the plans of one model.
    choices : dict, optional
        Answers to what operators ask, by the questions' keys.

    Attributes
    ----------
    stages : list of Stage
        In running order.
    program : Program
        What contexts run.
    specs : dict
        The spec of every value.
    threads : int
        How many of the threads are worth using.
    lower_bound_bytes : int
        The most bytes of live values at any step.
    values : list of Value
        The results of the layers, in running order.
    constants : list of Array
        What the steps read besides values.
    questions : list of Question
        What operators asked, each once.
    """

    def __init__(
        self,
        graph: Graph,
        shapes: Mapping[str, Shape],
        isa: str,
        threads: int,
        packed: PackedWeights,
        choices: Mapping[str, Choice] | None = None,
    ) -> None:
        self.graph = graph
        self.isa = isa
        self.specs = graph.specs(shapes)
        _check_sizes(self.specs)
        self.inputs = [(i.name, self.specs[i.name]) for i in graph.inputs]
        self.outputs = [(name, self.specs[name]) for name in graph.outputs]
        builder = _Builder(graph, self.specs, isa, threads, packed, choices or {})
        self.stages = builder.stages
        self.constants = builder.constants
        self.questions = list(builder.questions.values())
        self._finish(builder, threads)
        builder.filling.finish(threads)

    @property
    def arena_bytes(self) -> int:
        """What each context allocates."""
        return int(self.program.arena_bytes)

    def _finish(self, builder: _Builder, threads: int) -> None:
        groups: list[int] = []
        group = 0
        for stage in self.stages:
            groups.append(group)
            group += not stage.step.together
        lives: dict[Buffer, tuple[int, int]] = {}
        for at, stage in zip(groups, self.stages, strict=True):
            for view in stage.step.operands:
                if view.buffer.source == "arena":
                    first, _ = lives.get(view.buffer, (at, at))
                    lives[view.buffer] = (first, at)
        lifetimes = [memory.Lifetime(b.nbytes, *lives[b]) for b in lives]
        offsets, arena = memory.place(lifetimes)
        self.lower_bound_bytes = memory.lower_bound(lifetimes)
        base = dict(zip(lives, offsets, strict=True))
        addresses: dict[Buffer, int] = {}
        inputs = len(self.inputs)

        def where(view: View) -> tuple[int, int]:
            start = view.offset * view.itemsize
            buffer = view.buffer
            if buffer.source == "arena":
                return ARENA, base[buffer] + start
            if buffer.array is not None:
                if buffer not in addresses:
                    addresses[buffer] = buffer.array.ctypes.data
                return ABSOLUTE, addresses[buffer] + start
            shift = 1 if buffer.source == "input" else 1 + inputs
            return buffer.index + shift, start

        steps = [
            (
                *stage.step.kernel,
                [where(view) for view in stage.step.operands],
                stage.step.together,
            )
            for stage in self.stages
        ]
        self.program = Program(
            steps,
            arena,
            [spec.nbytes for _, spec in (*self.inputs, *self.outputs)],
            len(self.outputs),
            builder.constants,
        )
        self.values = [
            Value(name, steps, view, where(view)[1])
            for steps, name, view in builder.finished
            if view.buffer.source != "arena" or view.buffer in base
        ]
        work = sum(s.multiply_adds + s.nbytes for s in self.stages)
        self.threads = min(threads, max(1, work // WORK_PER_THREAD))


class _Builder:
    """Places values and lowers nodes; it is what operators see as `Lowering`."""

    def __init__(
        self,
        graph: Graph,
        specs: dict[str, Spec],
        isa: str,
        threads: int,
        packed: PackedWeights,
        choices: Mapping[str, Choice],
    ) -> None:
        self.isa = isa
        self.threads = threads
        self.level1_bytes = kernels.LEVEL1_BYTES
        self.level2_bytes = kernels.LEVEL2_BYTES
        self.constants: list[Array] = []
        self.stages: list[Stage] = []
        self._graph = graph
        self._specs = specs
        self._packed = packed
        self.filling = Filling(packed)
        self._choices = choices
        self.questions: dict[str, Question] = {}
        self.finished: list[tuple[int, str, View]] = []
        self._constant_views: dict[int, View] = {}
        self._views: dict[str, View] = {}
        self._padded: dict[tuple[str, Halo], View] = {}
        self._targets: dict[str, tuple[Node, int]] = {}
        self._halos: dict[str, Halo] = {}
        self._layer = self._operator = self._result = ""
        for index, entry in enumerate(graph.inputs):
            spec = specs[entry.name]
            buffer = Buffer(spec.nbytes, "input", index)
            self._views[entry.name] = _dense(buffer, spec)
        self._choose_targets()
        apart = {*graph.outputs, *self._targets}
        chains = find_chains(graph, specs, apart, self.level2_bytes)
        self._chains = chains
        self._chained = {n.name for chain in chains.values() for n in chain[:-1]}
        self._gather_halos()
        self._note_order()
        for node in graph.nodes:
            if node.name in self._chains:
                self._lower_chain(self._chains[node.name])
            elif node.name not in self._chained:
                self._lower(node)
        self._write_outputs()

    # What operators ask for.

    def load(self, family: str) -> ModuleType:
        return kernels.load(family, self.isa)

    def constant(self, array: Array) -> View:
        view = self._constant_views.get(id(array))
        if view is None:
            self.constants.append(array)
            buffer = Buffer(array.nbytes, "constant", array=array)
            view = self._constant_views[id(array)] = _dense(buffer, spec_of(array))
        return view

    def packed(self, array: Array, tag: object, pack: Callable[[], Array]) -> View:
        found = self._packed.find(array, tag)
        if found is None:
            found = pack()
            self._packed.add(array, tag, found)
        return self.constant(found)

    def filled(
        self, array: Array, tag: object, elements: int, fill: Callable[[Array], None]
    ) -> View:
        return self.constant(self.filling.place(array, tag, elements, fill))

    def choose(self, question: str, options: Sequence[Option]) -> Option:
        size = shape_text(self._specs[self._result].shape[1:])
        key = f"{self._layer} {size}: {question}"
        self.questions.setdefault(key, Question(self._layer, key, tuple(options)))
        answer = self._choices.get(key)
        return next((each for each in options if each == answer), options[0])

    def scratch(self, elements: int, dtype: str = "float32") -> View:
        spec = Spec((elements,), dtype)
        return _dense(Buffer(spec.nbytes), spec)

    # Where values lie.

    def _choose_targets(self) -> None:
        """Decide which values are written straight into a larger one."""
        producers = {v: node for node in self._graph.nodes for v in node.outputs}
        for node in self._graph.nodes:
            if type(node.op).views_into is Op.views_into:
                continue
            for index, value in enumerate(node.inputs):
                producer = producers.get(value)
                if (
                    producer is not None
                    and type(producer.op).view is Op.view
                    and value not in self._targets
                    and value not in self._graph.outputs
                    and node.inputs.count(value) == 1
                ):
                    self._targets[value] = (node, index)

    def _gather_halos(self) -> None:
        """Find the zeros wanted around every value, by those who read any part."""
        for node in self._graph.nodes:
            halo = node.op.halo(*self._graph.operand_specs(node, self._specs))
            if halo and any(b or a for b, a in halo):
                self._want(node.inputs[0], halo)
        changed = True
        while changed:
            changed = False
            for value, (node, _) in self._targets.items():
                changed |= self._pass_on(value, node.outputs[0])
            for node in self._graph.nodes:
                if type(node.op).view is not Op.view and node.inputs:
                    for value in node.outputs:
                        changed |= self._pass_on(value, node.inputs[0])

    def _pass_on(self, part: str, whole: str) -> bool:
        halo = self._halos.get(part)
        inner, outer = self._specs[part].shape, self._specs[whole].shape
        if halo is None or inner[:-1] != outer[:-1]:
            return False
        return self._want(whole, halo)

    def _want(self, value: str, halo: Halo) -> bool:
        old = self._halos.get(value, ((0, 0),) * len(halo))
        new = tuple(
            (max(a, c), max(b, d)) for (a, b), (c, d) in zip(old, halo, strict=True)
        )
        self._halos[value] = new
        return new != old

    def _note_order(self) -> None:
        """Note who makes a value, and the last to read it; a chain acts at its end."""
        self._makers = {v: n for n in self._graph.nodes for v in n.outputs}
        end = {n.name: last for last, chain in self._chains.items() for n in chain}
        self._position = {n.name: i for i, n in enumerate(self._graph.nodes)}
        self._last_read = dict.fromkeys(self._graph.outputs, len(self._position))
        for node in self._graph.nodes:
            position = self._position[end.get(node.name, node.name)]
            for value in (*node.inputs, node.residual or ""):
                last = self._last_read.get(value, -1)
                self._last_read[value] = max(last, position)

    def _place(self, value: str) -> View:
        if value not in self._views:
            self._views[value] = self._choose_place(value)
        return self._views[value]

    def _choose_place(self, value: str) -> View:
        spec = self._specs[value]
        if value in self._targets:
            node, index = self._targets[value]
            specs = [self._specs[v] for v in node.inputs]
            views = node.op.views_into(self._place(node.outputs[0]), *specs)
            if views is not None:
                return views[index]
        halo = self._halos.get(value)
        residual = self._place_of_residual(value, halo)
        if residual is not None:
            return residual
        if halo is not None:
            return self._with_border(spec, halo)
        if value in self._graph.outputs:
            index = self._graph.outputs.index(value)
            return _dense(Buffer(spec.nbytes, "output", index), spec)
        return _dense(Buffer(spec.nbytes), spec)

    def _place_of_residual(self, value: str, halo: Halo | None) -> View | None:
        """Return where what a convolution adds lies, if nobody reads it afterwards."""
        node = self._makers.get(value)
        if node is None or node.residual is None or not isinstance(node.op, Conv):
            return None
        if value in self._graph.outputs:
            return None
        view = self._views[node.residual]
        if view.buffer.source != "arena" or view.shape != self._specs[value].shape:
            return None
        if halo is not None and not _covers(view.padding, halo):
            return None
        now = self._position[node.name]
        read = {v for n in self._chains.get(node.name, [node]) for v in n.inputs}
        here = [v for v, its in self._views.items() if its.buffer is view.buffer]
        if any(v in read or self._last_read.get(v, -1) > now for v in here):
            return None
        return view

    def _with_border(self, spec: Spec, halo: Halo) -> View:
        """Return a new place with zeros around it."""
        outer = Spec(
            tuple(n + a + b for n, (b, a) in zip(spec.shape, halo, strict=True)),
            spec.dtype,
        )
        whole = _dense(Buffer(outer.nbytes), outer)
        start = sum(b * s for (b, _), s in zip(halo, whole.strides, strict=True))
        view = replace(whole, shape=spec.shape, offset=start, halo=halo)
        border = self.load("copy").border(view.shape, view.strides, halo)
        self._emit(Step(border, (view,), "border", together=True), 0)
        return view

    def _padded_view(self, value: str, halo: Halo) -> View:
        """Return the value with at least `halo` zeros around it, copied if need be."""
        view = self._views[value]
        if _covers(view.padding, halo):
            return view
        key = (value, halo)
        if key not in self._padded:
            wide = self._with_border(self._specs[value], halo)
            self._copy(wide, view)
            self._padded[key] = wide
        return self._padded[key]

    def _copy(self, out: View, x: View) -> None:
        kernel = self.load("copy").copy(out.shape, out.strides, x.strides, x.itemsize)
        self._emit(Step(kernel, (out, x), "copy"), 0)

    # Nodes.

    def _lower(self, node: Node) -> None:
        self._layer, self._operator = node.name, type(node.op).__name__
        self._result = node.outputs[0]
        specs = self._graph.operand_specs(node, self._specs)
        if self._lower_as_view(node):
            self._mark_finished(node)
            return
        outs = tuple(self._place(value) for value in node.outputs)
        halo = node.op.halo(*specs)
        operands: list[View | Array | None] = []
        for kind, name in node.operands():
            if name is None:
                operands.append(None)
            elif kind == "param":
                operands.append(self._graph.params[name])
            elif halo and not operands:
                operands.append(self._padded_view(name, halo))
            else:
                operands.append(self._views[name])
        extra: dict[str, Epilogue] = {}
        if node.activation is not None or node.residual is not None:
            if not node.op.fuses:
                raise GraphError(f"layer {node.name!r}: {self._operator} fuses nothing")
            residual = self._views[node.residual] if node.residual else None
            extra["epilogue"] = Epilogue(node.activation, residual)
        out = outs[0] if len(outs) == 1 else outs
        steps = node.op.lower(self, out, *operands, **extra)
        work = node.op.multiply_adds(self._specs[node.outputs[0]], *specs)
        for index, step in enumerate(steps):
            self._emit(step, work if index == len(steps) - 1 else 0)
        self._mark_finished(node)

    def _mark_finished(self, node: Node) -> None:
        """Note that the steps so far compute the node's values."""
        self.finished += [(len(self.stages), v, self._views[v]) for v in node.outputs]

    def _lower_chain(self, chain: list[Node]) -> None:
        """Lower several layers as one step, or one by one if they are too wide."""
        last = chain[-1]
        self._layer, self._operator = last.name, type(last.op).__name__
        self._result = last.outputs[0]
        layers = []
        for node in chain:
            residual = self._views[node.residual] if node.residual else None
            assert isinstance(node.op, Conv | MaxPool)
            names = [node.params[w] for w in node.op.weights if w in node.params]
            layers.append(
                Layer(
                    node.op,
                    tuple(self._graph.params[name] for name in names),
                    Epilogue(node.activation, residual),
                    self._specs[node.inputs[0]],
                    self._specs[node.outputs[0]],
                )
            )
        specs = self._graph.operand_specs(chain[0], self._specs)
        halo = chain[0].op.halo(*specs)
        x = self._padded_view(chain[0].inputs[0], halo)
        out = self._place(last.outputs[0])
        step = lower_chain(self, layers, x, out)
        if step is None:
            for node in chain:
                self._lower(node)
            return
        work = 0
        for node in chain:
            operands = self._graph.operand_specs(node, self._specs)
            work += node.op.multiply_adds(self._specs[node.outputs[0]], *operands)
        self._emit(step, work)
        self._mark_finished(last)

    def _lower_as_view(self, node: Node) -> bool:
        """Give the outputs as views of the input, if that is possible at no cost."""
        if any(v in self._graph.outputs or v in self._targets for v in node.outputs):
            return False
        if not node.inputs:
            return False
        found = node.op.view(self._views[node.inputs[0]])
        views = found if isinstance(found, tuple) else (found,)
        for view in views:
            if view is None:
                return False
            if view.rank and view.shape[-1] > 1 and view.strides[-1] != 1:
                return False
        self._views.update(zip(node.outputs, views, strict=True))
        return True

    def _emit(self, step: Step, work: int) -> None:
        nbytes = sum(math.prod(v.shape) * v.itemsize for v in set(step.operands))
        self.stages.append(Stage(self._layer, self._operator, step, work, nbytes))

    def _write_outputs(self) -> None:
        for index, value in enumerate(self._graph.outputs):
            view = self._views[value]
            if view.buffer.source != "output" or view.buffer.index != index:
                self._layer, self._operator = value, "Identity"
                spec = self._specs[value]
                self._copy(_dense(Buffer(spec.nbytes, "output", index), spec), view)


def _check_sizes(specs: Mapping[str, Spec]) -> None:
    """Raise `ShapeError` if a value is larger than any memory."""
    for name, spec in specs.items():
        if spec.nbytes > MOST_BYTES:
            raise ShapeError(
                f"{name!r} of shape {shape_text(spec.shape)} would take {spec.nbytes} "
                "bytes, more than a process can address"
            )


def _dense(buffer: Buffer, spec: Spec) -> View:
    return View(buffer, spec.shape, contiguous_strides(spec.shape), 0, spec.dtype)


def _covers(have: Halo, want: Halo) -> bool:
    """Return whether there are at least as many zeros on every side as wanted."""
    return all(h[0] >= w[0] and h[1] >= w[1] for h, w in zip(have, want, strict=True))
