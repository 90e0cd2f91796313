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
from .graph import Graph, Input
from .image import Postprocess, load_image
from .kernels._program import Context
from .passes import optimise
from .plan import PackedWeights, Plan
from .spec import Array, Shape, Spec, shape_text

MOST_PLANS = 16
"""Plans kept for input shapes; the one not used for the longest time goes first."""

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
            raise ShapeError(f"the model has the inputs {names}: use run({{name: array}})")
        array = _accepted(x, graph.inputs[0])
        prepared = self._prepared(((graph.inputs[0].name, array.shape),), None)
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
        arrays = tuple(_accepted(feeds[e.name], e) for e in self.graph.inputs)
        shapes = tuple(
            (e.name, a.shape) for e, a in zip(self.graph.inputs, arrays, strict=True)
        )
        prepared = self._prepared(shapes, wanted)
        results = prepared.run(arrays, None, self._poison)
        found = dict(zip(prepared.plan.graph.outputs, results, strict=True))
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
        if top < 1:
            raise SettingError(f"top {top}: wanted at least 1")
        if self.graph.preprocess is None:
            raise ImageError(
                f"{self.graph.name!r} does not say how a picture becomes its input"
            )
        entry = self.graph.inputs[0]
        spatial = entry.shape[1:3]
        fixed = all(isinstance(size, int) for size in spatial)
        x = load_image(picture, self.graph.preprocess, spatial if fixed else None)
        post = self.graph.postprocess or Postprocess(self.graph.outputs[0])
        scores = self.run({entry.name: x}, [post.output])[post.output]
        odds = post.probabilities(scores[0].reshape(-1).astype(np.float64))
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
        arrays = tuple(_accepted(feeds[e.name], e) for e in self.graph.inputs)
        shapes = tuple(
            (e.name, a.shape) for e, a in zip(self.graph.inputs, arrays, strict=True)
        )
        return self._prepared(shapes, None).profile(arrays, runs)

    def memory_plan(self, shapes: Mapping[str, Shape] | None = None) -> MemoryPlan:
        """Return the memory that runs with these input shapes need.

        Parameters
        ----------
        shapes : dict, optional
            Input name to shape; `Graph.default_shapes` if left out.
        """
        wanted = self.graph.default_shapes() if shapes is None else shapes
        key = tuple((e.name, tuple(wanted[e.name])) for e in self.graph.inputs)
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
        return f"<Model {self.graph.name!r}: {inputs} -> {', '.join(self.graph.outputs)}>"

    def _prepared(self, shapes: Any, outputs: tuple[str, ...] | None) -> _Prepared:
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
                plan = Plan(graph, dict(shapes), self.isa, self.threads, self._packed)
                prepared = self._plans[key] = _Prepared(plan)
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
    """A plan and the contexts that no run is using."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._idle: list[Context] = []
        self._shapes = [spec.shape for _, spec in plan.outputs]
        self._dtypes = [np.dtype(spec.dtype) for _, spec in plan.outputs]

    def run(
        self, arrays: tuple[Array, ...], out: Array | None, poison: bool
    ) -> list[Array]:
        if out is None:
            results = [
                np.empty(shape, dtype)
                for shape, dtype in zip(self._shapes, self._dtypes, strict=True)
            ]
        else:
            results = [self._checked(out, arrays)]
        try:
            context = self._idle.pop()
        except IndexError:
            context = Context(self.plan.program, poison)
        context.run((*arrays, *results), self.plan.threads)
        self._idle.append(context)
        return results

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
        if len(self.plan.outputs) != 1:
            raise ShapeError("out= is for models with one output")
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


def _accepted(x: Any, entry: Input) -> Array:
    """Return `x` as a contiguous array of the input's element type.

    Raises
    ------
    DTypeError
        If a conversion would change what the numbers mean.
    ShapeError
        If the shape does not fit.
    """
    array = x if type(x) is np.ndarray else np.asarray(x)
    if array.dtype != entry.dtype or not array.dtype.isnative:
        array = _converted(array, entry)
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    if array.ctypes.data % array.itemsize:
        array = array.copy()
    shape = array.shape
    if len(shape) != len(entry.shape) or any(
        (have != want if isinstance(want, int) else have < 1)
        for have, want in zip(shape, entry.shape, strict=True)
    ):
        entry.symbols(shape)
    return array


def _converted(array: Array, entry: Input) -> Array:
    kind, want = array.dtype.kind, np.dtype(entry.dtype)
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


def _threads(threads: int) -> int:
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise SettingError(f"threads {threads!r}: wanted a whole number, at least 1")
    return threads

