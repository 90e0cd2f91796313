"""What a user holds: a network ready to run.

# Design
Any thread may call a model at any time. A call finds the plan for its shapes, takes a
context (an arena) that nobody uses, and runs; the only lock is held while plans are
made. It is reentrant, because a signal's handler may call the model meanwhile, and a
forked child gets one of its own, because the parent's may be held by a thread that the
child does not have.

What a model keeps is bounded: plans by number, a plan's contexts by the CPUs there are.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Any
from weakref import WeakSet

import numpy as np

from . import kernels
from .errors import (
    DeadlineError,
    DTypeError,
    ImageError,
    NotFiniteError,
    SettingError,
    ShapeError,
    UnknownLayerError,
)
from .graph import Graph, Input, Node
from .image import Postprocess, load_image
from .kernels._program import Context, give_back_memory
from .machine import allowed_cpus, default_threads
from .model_file import read
from .packed_cache import CachedWeights
from .passes import optimise
from .plan import PackedWeights, Plan, Value
from .spec import Array, Shape, Spec, shape_text

MOST_PLANS = 16
"""Plans kept for input shapes; the one not used for the longest time goes first."""

MOST_GRAPHS = 8
"""Optimised graphs kept, one for each choice of outputs."""

MOST_IDLE = len(allowed_cpus())
"""Contexts of a plan kept for the next run; more at once bring no more speed."""

Hook = Callable[[str, Array], object]
"""Called with the name and a copy of every layer's value as a run computes it."""

FLOAT32 = np.dtype("float32")

LOG = logging.getLogger("striate")
LOG.addHandler(logging.NullHandler())

EXACT_INTEGERS = 1 << 24
"""Up to here float32 holds every whole number."""


@dataclass(frozen=True)
class StepProfile:
    """What one step of a run was and took.

    Parameters
    ----------
    name, op : str
        The layer and its operator.
    algorithm : str
        The kernel chosen.
    ms : float
        Milliseconds, the median over the runs.
    multiply_adds : int
        Products the layer is made of, however it is computed.
    bytes : int
        The sizes of the tensors it reads and writes, weights included.
    """

    name: str
    op: str
    algorithm: str
    ms: float
    multiply_adds: int
    bytes: int

    @property
    def gflops(self) -> float:
        """Billions of floating-point operations a second, two a multiply-add."""
        return 2e-6 * self.multiply_adds / self.ms if self.ms else 0.0


@dataclass(frozen=True)
class MemoryPlan:
    """The memory a model needs for given input shapes, in bytes.

    Parameters
    ----------
    weights : int
        The weights as the graph holds them and as its passes made them.
    packed_weights : int
        Their copies in the order in which kernels read them, and the kernels' tables;
        for all the plans so far.
    arena : int
        Intermediate values; once for every run that goes on at the same time.
    lower_bound : int
        The most bytes of intermediate values alive at any step: no arena of these
        steps can be smaller.
    """

    weights: int
    packed_weights: int
    arena: int
    lower_bound: int

    @property
    def total(self) -> int:
        """What the model needs to answer one caller at a time."""
        return self.weights + self.packed_weights + self.arena


class Model:
    """A network ready to run, from any number of threads at once.

    Parameters
    ----------
    graph : Graph
        What to compute. It must not be changed afterwards.
    threads : int, optional
        Threads a run may use; by default as `striate.machine.default_threads` decides,
        from the CPUs allowed, the container's quota and ``STRIATE_NUM_THREADS``.
    isa : str, optional
        Instruction set, one of `striate.kernels.SUPPORTED`; the best by default.
    precision : str
        ``"highest"``: float32 throughout. There is no other yet.

    Raises
    ------
    SettingError
        If a setting makes no sense.

    Examples
    --------
    >>> import numpy as np, striate
    >>> graph = striate.Graph("double")
    >>> x = graph.input("x", ("N", 3))
    >>> graph.output(graph.add(striate.ops.Dense(), x, kernel=2 * np.eye(3)))
    >>> striate.Model(graph)(np.ones((1, 3), np.float32))
    array([[2., 2., 2.]], dtype=float32)
    """

    def __init__(
        self,
        graph: Graph,
        *,
        threads: int | None = None,
        isa: str | None = None,
        precision: str = "highest",
    ) -> None:
        if precision != "highest":
            raise SettingError(f"precision {precision!r}: there is only 'highest'")
        if not graph.outputs:
            raise SettingError(f"graph {graph.name!r} has no outputs")
        self._graph: Graph | None = graph
        self._name = graph.name
        self.isa = kernels.checked_isa(isa) if isa else kernels.ISA
        self.threads = default_threads().count if threads is None else _threads(threads)
        self.precision = precision
        self._packed = PackedWeights()
        self._optimised: OrderedDict[tuple[str, ...], Graph] = OrderedDict()
        self._plans: OrderedDict[Any, _Prepared] = OrderedDict()
        self._latest: tuple[Any, _Prepared] | None = None
        self._lock = RLock()
        self._poison = False
        _MODELS.add(self)
        LOG.debug("model %r: %s, %d threads", self._name, self.isa, self.threads)

    @property
    def graph(self) -> Graph:
        """The network.

        Raises
        ------
        SettingError
            If the model is closed.
        """
        graph = self._graph
        if graph is None:
            raise SettingError(f"model {self._name!r} is closed")
        return graph

    @property
    def inputs(self) -> list[Input]:
        """Names, shapes and element types of what a run takes."""
        return self.graph.inputs

    @property
    def outputs(self) -> dict[str, Spec]:
        """What a run returns, with specs for the default input shapes."""
        specs = self.graph.specs()
        return {name: specs[name] for name in self.graph.outputs}

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names; empty if the model has none."""
        return self.graph.labels

    def __call__(
        self,
        x: Any,
        out: Array | None = None,
        *,
        timeout: float | None = None,
        check_finite: bool = False,
        hook: Hook | None = None,
    ) -> Any:
        """Run the network on one array.

        Parameters
        ----------
        x : array_like
            The only input. float32 is taken as it is, also from other libraries' arrays
            (buffer protocol, DLPack); other real numbers are converted if float32 can
            hold their meaning.
        out : Array, optional
            A contiguous array of the output's shape and element type to write to.
        timeout, check_finite, hook
            As for `run`.

        Returns
        -------
        Array or dict of str to Array
            The output; with several, a dictionary by name.

        Raises
        ------
        ShapeError, DTypeError
            If the array does not fit; the message says what was wanted.
        DeadlineError, NotFiniteError
            As `run`.
        """
        watch = _watch(timeout, check_finite, hook)
        graph = self.graph
        if len(graph.inputs) != 1:
            names = ", ".join(repr(entry.name) for entry in graph.inputs)
            raise ShapeError(
                f"the model has the inputs {names}: use run({{name: array}})"
            )
        array = _as_array(x, graph.inputs[0])
        prepared = self._prepared((array.shape,), None)
        given = None
        if out is not None:
            if len(graph.outputs) != 1:
                raise ShapeError(
                    "out= is for one output: use run(..., out={name: array})"
                )
            given = {graph.outputs[0]: out}
        results = self._run(prepared, (array,), given, watch)
        if len(results) == 1:
            return results[0]
        return dict(zip(graph.outputs, results, strict=True))

    def run(
        self,
        feeds: Mapping[str, Any],
        outputs: Iterable[str] | None = None,
        *,
        out: Mapping[str, Array] | None = None,
        timeout: float | None = None,
        check_finite: bool = False,
        hook: Hook | None = None,
    ) -> dict[str, Array]:
        """Run the network on named arrays and return named arrays.

        Parameters
        ----------
        feeds : dict
            Input name to array.
        outputs : iterable of str, optional
            Any layers or values by name; the model's outputs if left out.
        out : dict, optional
            Output name to a contiguous array to write to, which is returned. After an
            error its content is undefined.
        timeout : float, optional
            Seconds after which the run ends with the layer it is at. Preparing for new
            shapes counts, and is kept for the next run.
        check_finite : bool
            Whether to look at every layer's value for NaN and infinity.
        hook : callable, optional
            Called with the name and a copy of every layer's value as it is computed,
            in this thread. Layers that run as one have one value, the last. What it
            raises ends the run.

        Raises
        ------
        ShapeError, DTypeError
            If a feed or an array of `out` is missing, unknown or does not fit.
        UnknownLayerError
            If an output does not exist.
        DeadlineError
            If there was not time enough; `layer` says which would have been next.
        NotFiniteError
            With `check_finite`, if an input is not finite or a layer's value is not;
            `layer` names the first.
        """
        watch = _watch(timeout, check_finite, hook)
        graph = self.graph
        wanted = None if outputs is None else _names(outputs)
        arrays = self._arrays(feeds)
        shapes = tuple(array.shape for array in arrays)
        prepared = self._prepared(shapes, wanted)
        given = None
        if out is not None:
            given = {graph.value_named(name): array for name, array in out.items()}
        results = self._run(prepared, arrays, given, watch)
        found = dict(zip(prepared.outputs, results, strict=True))
        if wanted is None:
            return found
        return {name: found[graph.value_named(name)] for name in wanted}

    def _arrays(self, feeds: Mapping[str, Any]) -> tuple[Array, ...]:
        """Return the inputs' arrays in order.

        Raises
        ------
        ShapeError, DTypeError
            If one is missing, unknown or does not fit.
        """
        if not isinstance(feeds, Mapping):
            raise ShapeError(
                f"feeds: found {type(feeds).__name__}, wanted a dictionary of arrays"
            )
        entries = self.graph.inputs
        unknown = feeds.keys() - {entry.name for entry in entries}
        missing = [e.name for e in entries if e.name not in feeds]
        if unknown or missing:
            raise ShapeError(
                f"inputs missing: {missing}, unknown: {sorted(map(str, unknown))}; "
                f"wanted {[e.name for e in entries]}"
            )
        return tuple(_as_array(feeds[entry.name], entry) for entry in entries)

    def _run(
        self,
        prepared: _Prepared,
        arrays: tuple[Array, ...],
        out: Mapping[str, Array] | None,
        watch: _Watch | None,
    ) -> list[Array]:
        if watch is None or not watch.check:
            return prepared.run(arrays, out, self._poison, watch)
        for entry, array in zip(self.graph.inputs, arrays, strict=True):
            _check_finite(f"input {entry.name!r} holds", entry.name, array)
        try:
            return prepared.run(arrays, out, self._poison, watch)
        except NotFiniteError as error:
            found = error
        self._blame(arrays)
        raise found

    def _blame(self, arrays: tuple[Array, ...]) -> None:
        """Raise `NotFiniteError` for the first layer, every layer run by itself."""
        graph = self.graph
        values = [value for node in graph.nodes for value in node.outputs]
        shapes = tuple(array.shape for array in arrays)
        prepared = self._prepared(shapes, tuple(values))
        results = prepared.run(arrays, None, self._poison, None)
        for name, array in zip(prepared.outputs, results, strict=True):
            _check_finite(_made_by(name), name, array)

    def classify(self, picture: Any, top: int = 5) -> list[tuple[str, float]]:
        """Return the most likely classes of a picture, the likeliest first.

        Parameters
        ----------
        picture : str, Path or Array
            A file, or an array as `striate.image.load_image` takes it. The model says
            how it is prepared.
        top : int
            How many classes.

        Returns
        -------
        list of (str, float)
            Label (the class's number if there are no labels) and probability.

        Raises
        ------
        ImageError
            If the picture cannot be read, or the model takes no pictures.
        """
        x = self.prepare(picture)
        score = self.postprocess.output
        scores = self.run({self.graph.inputs[0].name: x}, [score])[score]
        return self.top_classes(scores[0], top)

    def prepare(self, picture: Any) -> Array:
        """Return a picture as the model's input, a batch of one.

        Raises
        ------
        ImageError
            If the picture cannot be read, or the model takes no pictures.
        """
        if self.graph.preprocess is None:
            raise ImageError(
                f"{self.graph.name!r} does not say how a picture becomes its input"
            )
        height, width = self.graph.inputs[0].shape[1:3]
        size = None
        if isinstance(height, int) and isinstance(width, int):
            size = height, width
        return load_image(picture, self.graph.preprocess, size)

    @property
    def postprocess(self) -> Postprocess:
        """How the output is read as classes; softmax if the model does not say."""
        return self.graph.postprocess or Postprocess(self.graph.outputs[0])

    def top_classes(self, scores: Array, top: int = 5) -> list[tuple[str, float]]:
        """Return the most likely classes for the scores of one picture.

        Parameters
        ----------
        scores : Array
            The value that `postprocess` names, for one picture.
        top : int
            How many classes.
        """
        if top < 1:
            raise SettingError(f"top {top}: wanted at least 1")
        odds = self.postprocess.probabilities(scores.reshape(-1).astype(np.float64))
        best = np.argsort(-odds, kind="stable")[:top]
        labels = self.labels or tuple(map(str, range(len(odds))))
        return [(labels[i], float(odds[i])) for i in best]

    def profile(self, x: Any, runs: int = 5) -> list[StepProfile]:
        """Run the network some times and return what each step took.

        Parameters
        ----------
        x : array_like or dict
            The input, or named inputs.
        runs : int
            How many runs the median is over, after one that is not counted.
        """
        if runs < 1:
            raise SettingError(f"runs {runs}: wanted at least 1")
        feeds = x if isinstance(x, Mapping) else {self.graph.inputs[0].name: x}
        arrays = self._arrays(feeds)
        shapes = tuple(array.shape for array in arrays)
        return self._prepared(shapes, None).profile(arrays, runs)

    def memory_plan(
        self, shapes: Mapping[str, Shape] | Sequence[int] | None = None
    ) -> MemoryPlan:
        """Return the memory that runs with these input shapes need.

        Parameters
        ----------
        shapes : dict or tuple of int, optional
            Input name to shape, or the shape of the only input; `Graph.default_shapes`
            if left out.

        Raises
        ------
        ShapeError
            If a shape is missing or does not fit.
        """
        graph = self.graph
        if shapes is None:
            shapes = graph.default_shapes()
        elif not isinstance(shapes, Mapping):
            shapes = {graph.inputs[0].name: tuple(shapes)}
        missing = [entry.name for entry in graph.inputs if entry.name not in shapes]
        if missing:
            raise ShapeError(f"shapes of the inputs {missing} are missing")
        key = tuple(tuple(shapes[entry.name]) for entry in graph.inputs)
        plan = self._prepared(key, None).plan
        with self._lock:
            weights = {id(a): a for g in self._graphs() for a in g.params.values()}
            others = {id(a): a for a in (*self._packed.arrays(), *plan.constants)}
        return MemoryPlan(
            _nbytes(weights.values()),
            _nbytes(a for key, a in others.items() if key not in weights),
            plan.arena_bytes,
            plan.lower_bound_bytes,
        )

    def close(self) -> None:
        """Free plans, arenas and weights; the model cannot run any more.

        Runs that go on in other threads come to their end and free theirs then.
        """
        with self._lock:
            self._graph = None
            self._plans.clear()
            self._latest = None
            self._optimised.clear()
            self._packed = PackedWeights()
        give_back_memory()

    def __del__(self) -> None:
        if getattr(self, "_plans", None):
            self.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._graph is None:
            return f"<Model {self._name!r}: closed>"
        inputs = ", ".join(f"{e.name} {shape_text(e.shape)}" for e in self.inputs)
        outputs = ", ".join(self.graph.outputs)
        return f"<Model {self.graph.name!r}: {inputs} -> {outputs}>"

    def _prepared(
        self, shapes: tuple[Shape, ...], outputs: tuple[str, ...] | None
    ) -> _Prepared:
        """Return the plan for the inputs' shapes, made if there is none yet."""
        latest = self._latest
        if latest is not None and latest[0] == (shapes, outputs):
            return latest[1]
        with self._lock:
            whole = self.graph
            if outputs is not None:
                outputs = tuple(dict.fromkeys(map(whole.value_named, outputs)))
            key = shapes, None if outputs == tuple(whole.outputs) else outputs
            prepared = self._plans.get(key)
            if prepared is not None:
                self._plans.move_to_end(key)
            else:
                prepared = self._plans[key] = self._planned(*key)
                while len(self._plans) > MOST_PLANS:
                    self._plans.popitem(last=False)
                give_back_memory()
            self._latest = key, prepared
        return prepared

    def _planned(
        self, shapes: tuple[Shape, ...], outputs: tuple[str, ...] | None
    ) -> _Prepared:
        start = time.perf_counter()
        graph = self._graph_for(outputs)
        named = _checked_shapes(graph, shapes)
        part, rest = graph.planned()
        packed = self._packed
        if isinstance(packed, CachedWeights):
            packed.serve(part if outputs is None else None)
        plan = Plan(part, named, self.isa, self.threads, packed)
        if isinstance(packed, CachedWeights) and packed.keep():
            plan = Plan(part, named, self.isa, self.threads, packed)
        LOG.debug(
            "model %r: plan for %s in %.1f ms, %d steps, %d bytes of arena",
            self._name,
            ", ".join(map(shape_text, shapes)),
            1e3 * (time.perf_counter() - start),
            len(plan.stages),
            plan.arena_bytes,
        )
        return _Prepared(plan, graph, rest)

    def _graph_for(self, outputs: tuple[str, ...] | None) -> Graph:
        """Return the optimised graph of some outputs, made if there is none yet."""
        whole = self.graph
        key = tuple(whole.outputs if outputs is None else outputs)
        if key in self._optimised:
            self._optimised.move_to_end(key)
        else:
            part = whole if outputs is None else whole.until(outputs)
            self._optimised[key] = optimise(part)
            if len(self._optimised) > MOST_GRAPHS:
                self._optimised.popitem(last=False)
                kept = [a for g in self._graphs() for a in g.params.values()]
                self._packed.retain(kept)
        return self._optimised[key]

    def _graphs(self) -> list[Graph]:
        """Return the graphs whose weights are kept."""
        return [self.graph, *self._optimised.values()]


_MODELS: WeakSet[Model] = WeakSet()


def _renew_locks() -> None:
    """Give the models of a forked child locks that nobody holds."""
    for model in _MODELS:
        model._lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


@dataclass(frozen=True)
class _Watch:
    """What a caller wants between the steps of a run.

    Parameters
    ----------
    timeout, end : float
        Seconds allowed, and when they are over, by `time.monotonic`.
    check : bool
        Whether every value must be finite.
    hook : callable or None
        Gets every value.
    """

    timeout: float
    end: float
    check: bool
    hook: Hook | None

    @property
    def looks(self) -> bool:
        """Whether it wants to see the values."""
        return self.check or self.hook is not None

    def left(self, layer: str) -> float:
        """Return the seconds that are left.

        Raises
        ------
        DeadlineError
            If there are none; `layer` is what would have been next.
        """
        left = self.end - time.monotonic()
        if left <= 0:
            raise DeadlineError(
                f"not done after {self.timeout:g} s, reached layer {layer!r}",
                layer=layer,
            )
        return left

    def see(self, name: str, array: Array) -> None:
        """Look at a value; raise `NotFiniteError` if it must be finite and is not."""
        if self.check:
            _check_finite(_made_by(name), name, array)
        if self.hook is not None:
            self.hook(name, array.copy())


def _watch(
    timeout: float | None, check_finite: bool, hook: Hook | None
) -> _Watch | None:
    """Return what is to be watched; None, for the shortest way, if nothing is."""
    if timeout is None:
        if not check_finite and hook is None:
            return None
        timeout = math.inf
    elif not isinstance(timeout, (int, float)) or not timeout > 0:
        raise SettingError(f"timeout {timeout!r}: wanted seconds, more than 0")
    return _Watch(timeout, time.monotonic() + timeout, check_finite, hook)


def _made_by(name: str) -> str:
    return f"layer {name!r} made of finite inputs"


def _check_finite(what: str, name: str, array: Array) -> None:
    """Raise `NotFiniteError` if a value is NaN or infinite."""
    if array.dtype.kind != "f":
        return
    finite = np.isfinite(array)
    if finite.all():
        return
    wrong = np.argwhere(~finite)
    at = tuple(map(int, wrong[0]))
    raise NotFiniteError(
        f"{what} {array[at]} at {at}; "
        f"{len(wrong)} of {array.size} values are not finite",
        layer=name,
    )


class _Prepared:
    """A plan, the contexts that no run is using, and the layers after the plan."""

    def __init__(self, plan: Plan, graph: Graph, rest: list[Node]) -> None:
        self.plan = plan
        self.outputs = graph.outputs
        self._graph = graph
        self._rest = rest
        self._idle: list[Context] = []
        self._results = [(spec.shape, np.dtype(spec.dtype)) for _, spec in plan.outputs]

    def run(
        self,
        arrays: tuple[Array, ...],
        out: Mapping[str, Array] | None,
        poison: bool,
        watch: _Watch | None,
    ) -> list[Array]:
        results = [np.empty(shape, dtype) for shape, dtype in self._results]
        if out is not None:
            self._take(out, arrays, results)
        try:
            context = self._idle.pop()
        except IndexError:
            context = Context(self.plan.program, poison)
        if watch is None:
            context.run((*arrays, *results), self.plan.threads)
        else:
            self._run_watched(context, (*arrays, *results), watch)
        if len(self._idle) < MOST_IDLE:
            self._idle.append(context)
        return self._finished(arrays, results, watch) if self._rest else results

    def _run_watched(
        self, context: Context, arrays: tuple[Array, ...], watch: _Watch
    ) -> None:
        """Run the steps, stopping after every layer if `watch` wants to see it."""
        done = 0
        for value in self.plan.values if watch.looks else ():
            done = self._advance(context, arrays, done, value.steps, watch)
            watch.see(value.name, self._array(context, arrays, value))
        self._advance(context, arrays, done, len(self.plan.stages), watch)

    def _advance(
        self,
        context: Context,
        arrays: tuple[Array, ...],
        first: int,
        end: int,
        watch: _Watch,
    ) -> int:
        """Run some steps; raise `DeadlineError` if there is no time for them all."""
        stages, threads = self.plan.stages, self.plan.threads
        while first < end:
            left = watch.left(stages[first].layer)
            first = context.run(arrays, threads, timeout=left, first=first, end=end)
        return first

    def _array(
        self, context: Context, arrays: tuple[Array, ...], value: Value
    ) -> Array:
        """Return a layer's value where it lies."""
        view = value.view
        buffer = view.buffer
        memory: Any = context
        start = value.start
        if buffer.array is not None:
            memory, start = buffer.array, view.offset * view.itemsize
        elif buffer.source != "arena":
            inputs = len(self.plan.inputs) if buffer.source == "output" else 0
            memory = arrays[buffer.index + inputs]
        strides = tuple(view.itemsize * stride for stride in view.strides)
        array: Array = np.ndarray(
            view.shape, np.dtype(view.dtype), memoryview(memory), start, strides
        )
        return array

    def _finished(
        self,
        arrays: tuple[Array, ...],
        results: list[Array],
        watch: _Watch | None,
    ) -> list[Array]:
        """Return the outputs, after the layers whose sizes depend on values."""
        names = [name for name, _ in (*self.plan.inputs, *self.plan.outputs)]
        values = dict(zip(names, (*arrays, *results), strict=True))
        for node in self._rest:
            if watch is None:
                self._graph.evaluate([node], values)
                continue
            watch.left(node.name)
            self._graph.evaluate([node], values)
            for name in node.outputs if watch.looks else ():
                watch.see(name, values[name])
        return [np.asarray(values[name], order="C") for name in self.outputs]

    def profile(self, arrays: tuple[Array, ...], runs: int) -> list[StepProfile]:
        results = [np.empty(spec.shape, spec.dtype) for _, spec in self.plan.outputs]
        context = Context(self.plan.program)
        times = np.empty((runs + 1, len(self.plan.stages) + 1))
        for row in times:
            context.run((*arrays, *results), self.plan.threads, row)
        spent = np.median(np.diff(times[1:], axis=1), axis=0) * 1e3
        return [
            StepProfile(
                stage.layer,
                stage.operator,
                stage.step.algorithm,
                float(ms),
                stage.multiply_adds,
                stage.nbytes,
            )
            for stage, ms in zip(self.plan.stages, spent, strict=True)
        ]

    def _take(
        self, out: Mapping[str, Array], arrays: tuple[Array, ...], results: list[Array]
    ) -> None:
        """Put the arrays of `out` in the places of the results they stand for.

        Raises
        ------
        ShapeError
            If one does not fit, is unknown, or overlaps another array of the run.
        """
        if self._rest:
            raise ShapeError("out= is for models whose outputs have a known size")
        unknown = [name for name in out if name not in self.outputs]
        if unknown:
            raise ShapeError(f"out= names {unknown}, wanted some of {self.outputs}")
        taken = list(arrays)
        for index, (name, spec) in enumerate(self.plan.outputs):
            if name not in out:
                continue
            array = _checked_out(name, spec, out[name])
            if any(np.shares_memory(array, other) for other in taken):
                raise ShapeError(
                    f"out= for {name!r} shares memory with an input or another output"
                )
            taken.append(array)
            results[index] = array


def _checked_out(name: str, spec: Spec, out: Any) -> Array:
    """Return the array if a run can write `spec` to it, else raise `ShapeError`."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        found = type(out).__name__
    else:
        flags = out.flags
        whole = flags.c_contiguous and flags.aligned and flags.writeable
        if whole and (out.shape, out.dtype) == (spec.shape, np.dtype(spec.dtype)):
            return out
        found = f"{out.dtype} {shape_text(out.shape)}" + (
            "" if whole else " that is not contiguous, aligned and writable"
        )
    raise ShapeError(
        f"out= for {name!r}: wanted a writable contiguous {spec}, found {found}"
    )


def load(
    source: str | os.PathLike[str] | bytes,
    *,
    threads: int | None = None,
    isa: str | None = None,
    precision: str = "highest",
    verify: bool = True,
    model_id: str | None = None,
    copy: bool = False,
    max_activation_bytes: int = 1 << 30,
    cache: str | os.PathLike[str] | None = None,
) -> Model:
    """Return the model of a file, ready to run.

    Parameters
    ----------
    source : path or bytes
        The file, or its content.
    threads, isa, precision
        As for `Model`.
    verify, model_id, copy, max_activation_bytes
        As for `read`.
    cache : path, optional
        A folder for files of weights in the order in which kernels read them, which
        processes then share. Only those who may choose the model may write to it.

    Raises
    ------
    ModelFormatError
        If the file is refused.
    SettingError
        If a setting makes no sense.
    """
    graph = read(
        source,
        verify=verify,
        model_id=model_id,
        copy=copy,
        max_activation_bytes=max_activation_bytes,
    )
    model = Model(graph, threads=threads, isa=isa, precision=precision)
    if cache is not None:
        model._packed = CachedWeights(cache, graph.model_id, model.isa)
    return model


def _as_array(x: Any, entry: Input) -> Array:
    """Return `x` as a contiguous array of the input's element type.

    Raises
    ------
    ShapeError
        If it has another shape; nothing is copied before that is known.
    DTypeError
        If it is no array of numbers, or a conversion would change what they mean.
    """
    array = x if type(x) is np.ndarray else _foreign(x, entry)
    flags = array.flags
    ready = flags.c_contiguous and flags.aligned
    if ready and array.dtype is FLOAT32 and entry.dtype == "float32":
        return array
    if array.dtype.kind in "fiub":
        entry.symbols(array.shape)
    array = _converted(array, entry)
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned):
        array = np.array(array, order="C")
    return array


def _foreign(x: Any, entry: Input) -> Array:
    """Return what is not a plain NumPy array as one, without a copy if it can be.

    Raises
    ------
    DTypeError
        If it cannot be read as an array, or has masked elements.
    """
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise DTypeError(
            f"input {entry.name!r}: found masked elements, which have no value; "
            "wanted an array without, such as x.filled(0)"
        )
    try:
        if hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
            return np.from_dlpack(x)
        array = np.asarray(x)
    except MemoryError:
        raise
    except Exception as error:
        raise DTypeError(
            f"input {entry.name!r}: found {type(x).__name__}, wanted an array of "
            f"{entry.dtype} {shape_text(entry.shape)}: {error}"
        ) from error
    return array


def _converted(array: Array, entry: Input) -> Array:
    kind, want = array.dtype.kind, np.dtype(entry.dtype)
    if array.dtype == want:
        return array
    found = f"input {entry.name!r}: found {array.dtype}, wanted {want}"
    if kind not in "fiub" or (want.kind in "iub" and kind not in "iub"):
        raise DTypeError(f"{found}; only real numbers can be converted")
    if want.kind in "iu" and kind in "iu" and array.size:
        limits = np.iinfo(want)
        if array.min() < limits.min or array.max() > limits.max:
            raise DTypeError(f"{found}, and a value is out of its range")
    if want.kind == "f" and kind in "iu" and array.size:
        largest = max(abs(int(array.min())), abs(int(array.max())))
        if largest > EXACT_INTEGERS:
            raise DTypeError(f"{found}, which cannot hold {largest} exactly")
    with np.errstate(all="ignore"):
        converted = array.astype(want, order="C")
    if kind == "f" and np.isinf(converted).sum() > np.isinf(array).sum():
        raise DTypeError(f"{found}, and a value is too large for it")
    return converted


def _checked_shapes(graph: Graph, shapes: tuple[Shape, ...]) -> dict[str, Shape]:
    """Return the shapes by input name; raise `ShapeError` if one does not fit."""
    for entry, shape in zip(graph.inputs, shapes, strict=True):
        entry.symbols(shape)
    return {e.name: shape for e, shape in zip(graph.inputs, shapes, strict=True)}


def _names(outputs: Iterable[str]) -> tuple[str, ...]:
    """Return names of outputs as a tuple, one name alone being no list of letters."""
    names = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    if not names:
        raise UnknownLayerError("no outputs were asked for")
    return names


def _nbytes(arrays: Iterable[Array]) -> int:
    """Return the memory of some arrays, counting what they share once."""
    found = {(a.__array_interface__["data"][0], a.nbytes) for a in arrays}
    return sum(nbytes for _, nbytes in found)


def _threads(threads: int) -> int:
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise SettingError(f"threads {threads!r}: wanted a whole number, at least 1")
    return threads
