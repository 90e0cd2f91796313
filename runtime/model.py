"""What a user holds: a network ready to run."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from . import kernels
from .errors import DTypeError, ImageError, SettingError, ShapeError, UnknownLayerError
from .graph import Graph, Input, Node
from .image import Postprocess, load_image
from .kernels._program import Context
from .model_file import read
from .passes import optimise
from .plan import PackedWeights, Plan
from .spec import Array, Shape, Spec, shape_text

MOST_PLANS = 16
"""Plans kept for input shapes; the one not used for the longest time goes first."""

FLOAT32 = np.dtype("float32")

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
        The weights as the graph holds them.
    packed_weights : int
        Their copies in the order in which kernels read them.
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


class Model:
    """A network ready to run, from any number of threads at once.

    Parameters
    ----------
    graph : Graph
        What to compute. It must not be changed afterwards.
    threads : int, optional
        Threads a run may use; by default those the process may use, or
        ``STRIATE_NUM_THREADS`` if that is fewer.
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
        self.graph = graph
        self.isa = kernels.checked_isa(isa) if isa else kernels.ISA
        self.threads = default_threads() if threads is None else _threads(threads)
        self.precision = precision
        self._packed = PackedWeights()
        self._optimised: dict[tuple[str, ...], Graph] = {}
        self._plans: OrderedDict[Any, _Prepared] = OrderedDict()
        self._latest: _Prepared | None = None
        self._lock = Lock()
        self._poison = False
        self._closed = False

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

    def __call__(self, x: Any, out: Array | None = None) -> Any:
        """Run the network on one array.

        Parameters
        ----------
        x : array_like
            The only input. float32 is taken as it is; other real numbers are
            converted if float32 can hold their meaning.
        out : Array, optional
            A contiguous float32 array of the output's shape to write to.

        Returns
        -------
        Array or dict of str to Array
            The output; with several, a dictionary by name.

        Raises
        ------
        ShapeError, DTypeError
            If the array does not fit; the message says what was wanted.
        """
        graph = self.graph
        if len(graph.inputs) != 1:
            names = ", ".join(repr(entry.name) for entry in graph.inputs)
            raise ShapeError(
                f"the model has the inputs {names}: use run({{name: array}})"
            )
        array = _as_array(x, graph.inputs[0])
        prepared = self._prepared((array.shape,), None)
        results = prepared.run((array,), out, self._poison)
        if len(results) == 1:
            return results[0]
        return dict(zip(graph.outputs, results, strict=True))

    def run(
        self, feeds: Mapping[str, Any], outputs: Iterable[str] | None = None
    ) -> dict[str, Array]:
        """Run the network on named arrays and return named arrays.

        Parameters
        ----------
        feeds : dict
            Input name to array.
        outputs : iterable of str, optional
            Any layers or values by name; the model's outputs if left out.

        Raises
        ------
        ShapeError, DTypeError
            If a feed is missing, unknown or does not fit.
        UnknownLayerError
            If an output does not exist.
        """
        wanted = None if outputs is None else tuple(outputs)
        if wanted is not None and not wanted:
            raise UnknownLayerError("no outputs were asked for")
        unknown = feeds.keys() - {entry.name for entry in self.graph.inputs}
        missing = [e.name for e in self.graph.inputs if e.name not in feeds]
        if unknown or missing:
            raise ShapeError(
                f"inputs missing: {missing}, unknown: {sorted(map(str, unknown))}; "
                f"wanted {[e.name for e in self.graph.inputs]}"
            )
        arrays = tuple(_as_array(feeds[e.name], e) for e in self.graph.inputs)
        shapes = tuple(array.shape for array in arrays)
        prepared = self._prepared(shapes, wanted)
        results = prepared.run(arrays, None, self._poison)
        found = dict(zip(prepared.outputs, results, strict=True))
        if wanted is None:
            return found
        return {name: found[self.graph.value_named(name)] for name in wanted}

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
        arrays = tuple(_as_array(feeds[e.name], e) for e in self.graph.inputs)
        shapes = tuple(array.shape for array in arrays)
        return self._prepared(shapes, None).profile(arrays, runs)

    def memory_plan(self, shapes: Mapping[str, Shape] | None = None) -> MemoryPlan:
        """Return the memory that runs with these input shapes need.

        Parameters
        ----------
        shapes : dict, optional
            Input name to shape; `Graph.default_shapes` if left out.
        """
        wanted = self.graph.default_shapes() if shapes is None else shapes
        key = tuple(tuple(wanted[entry.name]) for entry in self.graph.inputs)
        plan = self._prepared(key, None).plan
        return MemoryPlan(
            sum(array.nbytes for array in self.graph.params.values()),
            self._packed.nbytes,
            plan.arena_bytes,
            plan.lower_bound_bytes,
        )

    def close(self) -> None:
        """Free plans, arenas and packed weights; the model cannot run any more."""
        with self._lock:
            self._closed = True
            self._plans.clear()
            self._latest = None
            self._optimised.clear()
            self._packed = PackedWeights()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        inputs = ", ".join(f"{e.name} {shape_text(e.shape)}" for e in self.inputs)
        outputs = ", ".join(self.graph.outputs)
        return f"<Model {self.graph.name!r}: {inputs} -> {outputs}>"

    def _prepared(
        self, shapes: tuple[Shape, ...], outputs: tuple[str, ...] | None
    ) -> _Prepared:
        """Return the plan for the inputs' shapes, made if there is none yet."""
        key = (shapes, outputs)
        prepared = self._plans.get(key)
        if prepared is not None and prepared is self._latest:
            return prepared
        with self._lock:
            if self._closed:
                raise SettingError(f"model {self.graph.name!r} is closed")
            prepared = self._plans.get(key)
            if prepared is not None:
                self._plans.move_to_end(key)
            else:
                graph = self._graph_for(outputs)
                named = _checked_shapes(graph, shapes)
                part, rest = graph.planned()
                plan = Plan(part, named, self.isa, self.threads, self._packed)
                prepared = self._plans[key] = _Prepared(plan, graph, rest)
                while len(self._plans) > MOST_PLANS:
                    self._plans.popitem(last=False)
            self._latest = prepared
        return prepared

    def _graph_for(self, outputs: tuple[str, ...] | None) -> Graph:
        key = tuple(self.graph.outputs if outputs is None else outputs)
        if key not in self._optimised:
            part = self.graph if outputs is None else self.graph.until(outputs)
            self._optimised[key] = optimise(part)
        return self._optimised[key]


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
        self, arrays: tuple[Array, ...], out: Array | None, poison: bool
    ) -> list[Array]:
        if out is None:
            results = [np.empty(shape, dtype) for shape, dtype in self._results]
        else:
            results = [self._checked(out, arrays)]
        try:
            context = self._idle.pop()
        except IndexError:
            context = Context(self.plan.program, poison)
        context.run((*arrays, *results), self.plan.threads)
        self._idle.append(context)
        return self._finished(arrays, results) if self._rest else results

    def _finished(self, arrays: tuple[Array, ...], results: list[Array]) -> list[Array]:
        """Return the outputs, after the layers whose sizes depend on values."""
        names = [name for name, _ in (*self.plan.inputs, *self.plan.outputs)]
        values = dict(zip(names, (*arrays, *results), strict=True))
        self._graph.evaluate(self._rest, values)
        return [np.ascontiguousarray(values[name]) for name in self.outputs]

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

    def _checked(self, out: Array, arrays: tuple[Array, ...]) -> Array:
        name, spec = self.plan.outputs[0]
        if len(self.outputs) != 1 or self._rest:
            raise ShapeError("out= is for models with one output of a known size")
        fits = (
            isinstance(out, np.ndarray)
            and out.shape == spec.shape
            and out.dtype == spec.dtype
            and out.flags.c_contiguous
            and out.flags.writeable
        )
        if not fits:
            raise ShapeError(
                f"out= for {name!r}: wanted a writable contiguous {spec}, found "
                + (
                    f"{out.dtype} {shape_text(out.shape)}"
                    if isinstance(out, np.ndarray)
                    else type(out).__name__
                )
            )
        if any(np.shares_memory(out, array) for array in arrays):
            raise ShapeError("out= shares memory with an input")
        return out


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
    return Model(graph, threads=threads, isa=isa, precision=precision)


def _as_array(x: Any, entry: Input) -> Array:
    """Return `x` as a contiguous array of the input's element type.

    Raises
    ------
    DTypeError
        If a conversion would change what the numbers mean.
    """
    array = x if type(x) is np.ndarray else np.asarray(x)
    if array.dtype is not FLOAT32 or entry.dtype != "float32":
        array = _converted(array, entry)
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned):
        array = np.array(array, order="C")
    return array


def _converted(array: Array, entry: Input) -> Array:
    kind, want = array.dtype.kind, np.dtype(entry.dtype)
    if array.dtype == want:
        return array
    found = f"input {entry.name!r}: found {array.dtype}, wanted {want}"
    if kind not in "fiub" or (want.kind in "iu" and kind not in "iub"):
        raise DTypeError(f"{found}; only real numbers can be converted")
    if want.kind in "iu" and kind in "iu" and array.size:
        limits = np.iinfo(want)
        if array.min() < limits.min or array.max() > limits.max:
            raise DTypeError(f"{found}, and a value is out of its range")
    if want.kind == "f" and kind in "iu" and array.size:
        largest = max(abs(int(array.min())), abs(int(array.max())))
        if largest > EXACT_INTEGERS:
            raise DTypeError(f"{found}, which cannot hold {largest} exactly")
    with np.errstate(over="ignore"):
        converted = array.astype(want)
    if kind == "f" and np.isinf(converted).sum() > np.isinf(array).sum():
        raise DTypeError(f"{found}, and a value is too large for it")
    return converted


def default_threads() -> int:
    """Return how many threads the process may use, or ``STRIATE_NUM_THREADS``."""
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:
        available = os.cpu_count() or 1
    wish = os.environ.get("STRIATE_NUM_THREADS")
    if not wish:
        return available
    try:
        return min(available, _threads(int(wish)))
    except ValueError:
        raise SettingError(
            f"STRIATE_NUM_THREADS={wish!r}: wanted a whole number, at least 1"
        ) from None


def _checked_shapes(graph: Graph, shapes: tuple[Shape, ...]) -> dict[str, Shape]:
    """Return the shapes by input name; raise `ShapeError` if one does not fit."""
    for entry, shape in zip(graph.inputs, shapes, strict=True):
        entry.symbols(shape)
    return {e.name: shape for e, shape in zip(graph.inputs, shapes, strict=True)}


def _threads(threads: int) -> int:
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise SettingError(f"threads {threads!r}: wanted a whole number, at least 1")
    return threads
