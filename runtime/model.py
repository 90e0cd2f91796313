"""What a user holds: a network ready to run.

# Design
Any thread may call a model at any time. A call finds the plan for its shapes, takes a
context (an arena) that nobody uses, and runs; the only lock is held while plans are
made. It is reentrant, because a signal's handler may call the model meanwhile, and a
forked child gets one of its own, because the parent's may be held by a thread that the
child does not have.

A call with an array like the last one goes the shortest way: in a small network,
finding out what the caller wants takes longer than a layer.

What a model keeps is bounded: plans by number, a plan's contexts by the CPUs there are.
"""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from threading import RLock
from typing import Any
from weakref import WeakSet

import numpy as np

from . import kernels
from .cache_note import VerifiedFiles
from .errors import ImageError, SettingError, ShapeError, UnknownLayerError
from .graph import Graph, Input
from .image import Postprocess, load_image
from .intake import arrays_of, as_array
from .kernels._mapping import MappedFile
from .kernels._program import Usual, give_back_memory
from .machine import default_threads
from .model_file import read
from .packed_cache import CachedWeights
from .packed_weights import PackedWeights
from .passes import optimise
from .plan import Plan
from .prepared import Prepared
from .record import Record, record
from .spec import Array, Shape, Spec, shape_text
from .tuning import Tuning
from .watch import Hook, Watch, check_finite

MOST_PLANS = 16
"""Plans kept for input shapes; the one not used for the longest time goes first."""

MOST_GRAPHS = 8
"""Optimised graphs kept, one for each choice of outputs."""

LOG = logging.getLogger("striate")
LOG.addHandler(logging.NullHandler())


@record
class StepProfile(Record):
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


@record
class MemoryPlan(Record):
    """The memory a model needs for given input shapes, in bytes.

    Parameters
    ----------
    weights : int
        The weights as the graph holds them and as its passes made them. Those of a
        mapped file do not count: its pages are the system's, which they are given back
        to once the weights are packed.
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
        self._packed = PackedWeights(graph.file)
        self._tuning: Tuning | None = None
        self._optimised: OrderedDict[tuple[str, ...], Graph] = OrderedDict()
        self._plans: OrderedDict[Any, Prepared] = OrderedDict()
        self._latest: tuple[Any, Prepared] | None = None
        self._usual: Usual | None = None
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
        usual = self._usual
        if (
            usual is not None
            and out is None
            and timeout is None
            and hook is None
            and not check_finite
        ):
            answer = usual.answer(x, self._poison)
            if answer is not None:
                return answer
        watch = Watch.wanted(timeout, check_finite, hook)
        graph = self.graph
        if len(graph.inputs) != 1:
            names = ", ".join(repr(entry.name) for entry in graph.inputs)
            raise ShapeError(
                f"the model has the inputs {names}: use run({{name: array}})"
            )
        array = as_array(x, graph.inputs[0])
        prepared = self._prepared((array.shape,), None)
        given = None
        if out is not None:
            if len(graph.outputs) != 1:
                raise ShapeError(
                    "out= is for one output: use run(..., out={name: array})"
                )
            given = {graph.outputs[0]: out}
        results = self._run(prepared, (array,), given, watch)
        self._usual = prepared.usual
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
            Whether to look at every layer's value for NaN and infinity. Layers that
            else run as one run by themselves first, and all their values are kept.
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
        watch = Watch.wanted(timeout, check_finite, hook)
        graph = self.graph
        wanted = None if outputs is None else _names(outputs)
        arrays = arrays_of(feeds, graph.inputs)
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

    def _run(
        self,
        prepared: Prepared,
        arrays: tuple[Array, ...],
        out: Mapping[str, Array] | None,
        watch: Watch | None,
    ) -> list[Array]:
        if watch is None or not watch.check:
            return prepared.run(arrays, out, self._poison, watch)
        for entry, array in zip(self.graph.inputs, arrays, strict=True):
            check_finite(f"input {entry.name!r} holds", entry.name, array)
        self._check_layers(arrays, watch)
        return prepared.run(arrays, out, self._poison, watch)

    def _check_layers(self, arrays: tuple[Array, ...], watch: Watch) -> None:
        """Raise `NotFiniteError` for the first layer, every layer run by itself."""
        values = [value for node in self.graph.nodes for value in node.outputs]
        shapes = tuple(array.shape for array in arrays)
        prepared = self._prepared(shapes, tuple(values))
        prepared.run(arrays, None, self._poison, watch._replace(hook=None))

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
        arrays = arrays_of(feeds, self.graph.inputs)
        shapes = tuple(array.shape for array in arrays)
        prepared = self._prepared(shapes, None)
        spent = 1e3 * np.median(prepared.times(arrays, 1 + runs)[1:], axis=0)
        return [
            StepProfile(
                stage.layer,
                stage.operator,
                stage.step.algorithm,
                float(ms),
                stage.multiply_adds,
                stage.nbytes,
            )
            for stage, ms in zip(prepared.plan.stages, spent, strict=True)
        ]

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
            given = [a for g in self._graphs() for a in g.params.values()]
            weights = {id(a): a for a in given if isinstance(a, np.ndarray)}
            mapped = {k for k, a in weights.items() if _lies_in(a, graph.file)}
            others = {id(a): a for a in (*self._packed.arrays(), *plan.constants)}
        return MemoryPlan(
            _nbytes(a for key, a in weights.items() if key not in mapped),
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
            self._latest = self._usual = None
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
    ) -> Prepared:
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
    ) -> Prepared:
        start = time.perf_counter()
        graph = self._graph_for(outputs)
        named = _checked_shapes(graph, shapes)
        part, rest = graph.planned()
        packed = self._packed
        choices = None
        if self._tuning is not None:
            choices = self._tuning.choices(part, named, measure=outputs is None)
        if isinstance(packed, CachedWeights):
            packed.serve(part if outputs is None else None)
        plan = Plan(part, named, self.isa, self.threads, packed, choices)
        if isinstance(packed, CachedWeights) and packed.keep():
            plan = Plan(part, named, self.isa, self.threads, packed, choices)
        LOG.debug(
            "model %r: plan for %s in %.1f ms, %d steps, %d bytes of arena",
            self._name,
            ", ".join(map(shape_text, shapes)),
            1e3 * (time.perf_counter() - start),
            len(plan.stages),
            plan.arena_bytes,
        )
        self._forget_pages()
        return Prepared(plan, graph, rest)

    def _forget_pages(self) -> None:
        """Give back the file's pages: what is read of them from now on is packed."""
        if self.graph.file is not None:
            self.graph.file.forget()

    def _graph_for(self, outputs: tuple[str, ...] | None) -> Graph:
        """Return the optimised graph of some outputs, made if there is none yet."""
        whole = self.graph
        key = tuple(whole.outputs if outputs is None else outputs)
        if key in self._optimised:
            self._optimised.move_to_end(key)
        else:
            part = whole if outputs is None else whole.until(outputs)
            self._optimised[key] = optimise(part)
            self._forget_pages()
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
    tune: bool = False,
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
        processes then share, and for notes of files that need not be verified again
        until they change. Only those who may choose the model may write to it.
    tune : bool
        Whether to time the ways to compute each layer when the first picture of a size
        comes, and to take the fastest. Another process may then choose otherwise, and
        its results differ by rounding; with `cache` the choice is kept in the folder,
        and whoever tunes with it gets the same bits, on any number of threads.

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
        verified=None if cache is None else VerifiedFiles(cache),
    )
    model = Model(graph, threads=threads, isa=isa, precision=precision)
    if cache is not None:
        model._packed = CachedWeights(cache, graph, model.isa)
    if tune:
        model._tuning = Tuning(model.isa, graph.model_id, cache)
    return model


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


def _lies_in(array: Array, file: MappedFile | None) -> bool:
    """Return whether an array is part of a mapped file."""
    if file is None:
        return False
    whole = np.frombuffer(memoryview(file), np.uint8)
    first: int = array.ctypes.data - whole.ctypes.data
    return 0 <= first < whole.nbytes


def _nbytes(arrays: Iterable[Array]) -> int:
    """Return the memory of some arrays, counting what they share once."""
    found = {(a.__array_interface__["data"][0], a.nbytes) for a in arrays}
    return sum(nbytes for _, nbytes in found)


def _threads(threads: int) -> int:
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise SettingError(f"threads {threads!r}: wanted a whole number, at least 1")
    return threads
