"""Whether two runtimes compute the same: seeded inputs, differences, where they begin.

A converted network is compared with what computed it before, its `Oracle`. Both get the
same inputs; the verdict tells of each output how far it is off, and if that is too far,
which layer is the first to be.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import striate
from striate import Graph, Model
from striate.errors import StriateError, UnsupportedModelError
from striate.spec import Array, shape_text
from striate.tools import convert
from striate.tools.formats import Format, resolved
from striate.tools.oracles import Oracle

TOLERANCE = 1e-4
"""How far an output may be off, of the oracle's largest number in it."""

FAINT = 1e-3
"""Of an output's largest number in all runs: the least that an error is held against.

What rounds to almost nothing, as after inputs of zeros, has no digits to compare.
"""

MARGIN = 1e-3
"""Of a row's largest score: how far ahead a class must be for its rank to count."""

INPUTS = 3
SEED = 0
BATCHES = (1, 3)
ROWS = 4096
"""The most rows of unknown number that are compared with each other."""

SHOWN = 12
"""Layers of the way to the first that diverges that a report has."""


@dataclass
class Agreement:
    """How far one output is off, over all runs.

    Attributes
    ----------
    tolerance : float
        How far rows of unknown place may be off and still be the same.
    max_abs : float
        The largest difference.
    unequal : int
        Elements that differ, of whole numbers and truth values.
    cosine : float
        Of the angle between the two as vectors, the least of the runs.
    top1, top5 : list of int
        Rows that have the same best class, or best five; and the rows where the oracle
        is sure of them.
    faults : list of str
        What cannot be said in numbers.
    """

    tolerance: float = TOLERANCE
    max_abs: float = 0.0
    unequal: int = 0
    cosine: float = 1.0
    top1: list[int] = field(default_factory=lambda: [0, 0])
    top5: list[int] = field(default_factory=lambda: [0, 0])
    faults: list[str] = field(default_factory=list)
    _runs: list[tuple[float, float]] = field(default_factory=list)
    _squares: float = 0.0
    _count: int = 0

    def add(self, found: Array, wanted: Array, dynamic: bool = False) -> None:
        """Add a run.

        Parameters
        ----------
        found, wanted : Array
            What was computed, and what the oracle says.
        dynamic : bool
            Whether the number of rows depends on the values, so that a row may have
            another place.
        """
        found, wanted = np.asarray(found), np.asarray(wanted)
        if dynamic and found.ndim and found.shape[1:] == wanted.shape[1:]:
            self._add_rows(found, wanted)
        elif found.shape != wanted.shape:
            self._fault(
                f"shape {shape_text(found.shape)}, wanted {shape_text(wanted.shape)}"
            )
        elif wanted.dtype.kind in "iub" and found.dtype.kind in "iub":
            self.unequal += int(np.count_nonzero(found != wanted))
            self._count += found.size
        else:
            self._add_numbers(found.astype(np.float64), wanted.astype(np.float64))

    @property
    def relative(self) -> float:
        """The largest difference of a run by the oracle's largest number in it."""
        overall = max((scale for _, scale in self._runs), default=0.0)
        if not overall:
            return self.max_abs
        return max(error / max(scale, FAINT * overall) for error, scale in self._runs)

    @property
    def rms(self) -> float:
        """The root of the mean squared difference."""
        return math.sqrt(self._squares / self._count) if self._count else 0.0

    def within(self, tolerance: float) -> bool:
        """Return whether it is as near as `tolerance` says."""
        return not self.faults and not self.unequal and self.relative <= tolerance

    def as_json(self) -> dict[str, Any]:
        """Return the numbers under names, those that say nothing left out."""
        facts = {
            "max_abs": _digits(self.max_abs),
            "relative": _digits(self.relative),
            "rms": _digits(self.rms),
            "cosine": round(self.cosine, 9),
        }
        if self.unequal:
            facts["unequal"] = self.unequal
        ranks = {"top1": self.top1, "top5": self.top5}
        return {
            **facts,
            **{name: list(rows) for name, rows in ranks.items() if rows[1]},
            **({"faults": list(self.faults)} if self.faults else {}),
        }

    def _fault(self, text: str) -> None:
        if text not in self.faults:
            self.faults.append(text)

    def _add_numbers(self, found: Array, wanted: Array) -> None:
        for what, test in (
            ("NaN", np.isnan),
            ("inf", np.isposinf),
            ("-inf", np.isneginf),
        ):
            other = int(np.count_nonzero(test(found) != test(wanted)))
            if other:
                self._fault(f"{what} at {other} places in only one of the two")
        known = np.isfinite(found) & np.isfinite(wanted)
        ours, theirs = found[known], wanted[known]
        error = np.abs(ours - theirs)
        self._runs.append(
            (float(error.max(initial=0)), float(np.abs(theirs).max(initial=0)))
        )
        self.max_abs = max(self.max_abs, self._runs[-1][0])
        self._squares += float(np.square(error).sum())
        self._count += error.size
        self.cosine = min(self.cosine, _cosine(ours, theirs))
        if wanted.ndim == 2 and known.all():
            self._rank(found, wanted)

    def _rank(self, found: Array, wanted: Array) -> None:
        for best, tally in ((1, self.top1), (5, self.top5)):
            if wanted.shape[1] <= best:
                return
            for ours, theirs in zip(found, wanted, strict=True):
                order = np.argsort(-theirs, kind="stable")
                ahead = theirs[order[best - 1]] - theirs[order[best]]
                if ahead > MARGIN * np.abs(theirs).max():
                    same = set(np.argsort(-ours, kind="stable")[:best])
                    tally[0] += same == set(order[:best])
                    tally[1] += 1

    def _add_rows(self, found: Array, wanted: Array) -> None:
        """Compare rows wherever they are; each may be taken once."""
        ours, theirs = (
            a.reshape(len(a), math.prod(a.shape[1:])).astype(np.float64)
            for a in (found, wanted)
        )
        if max(len(ours), len(theirs)) > ROWS:
            self._fault(f"more than {ROWS} rows of unknown number")
            return
        scale = np.abs(theirs).max(axis=0, initial=0)
        scale[scale == 0] = 1
        exact = wanted.dtype.kind in "iub"
        free = np.ones(len(ours), bool)
        missing = abs(len(ours) - len(theirs))
        for row in theirs:
            error = np.abs(ours - row)
            distance = np.where(free, (error / scale).max(axis=1, initial=0), np.inf)
            near = int(distance.argmin()) if free.any() else -1
            if near < 0 or not distance[near] <= (0 if exact else self.tolerance):
                missing += near >= 0
                continue
            free[near] = False
            largest = float(error[near].max(initial=0))
            self._runs.append((largest, float(np.abs(row).max(initial=0))))
            self.max_abs = max(self.max_abs, largest)
            self._squares += float(np.square(error[near]).sum())
            self._count += row.size
        if missing:
            self._fault(f"{missing} of {len(theirs)} rows have no equal")


def _digits(number: float) -> float:
    return float(f"{number:.3g}")


def _cosine(x: Array, y: Array) -> float:
    scale = float(np.linalg.norm(x)) * float(np.linalg.norm(y))
    if not scale:
        return 1.0 if np.array_equal(x, y) else 0.0
    return min(float(np.dot(x, y)) / scale, 1.0)


@dataclass(frozen=True)
class Step:
    """How far a layer is off.

    Parameters
    ----------
    layer, op : str
        The layer and its operator.
    relative : float
        How far what it computes is off.
    inherited : float
        How far the worst of what it reads is, as far as that is known.
    """

    layer: str
    op: str
    relative: float
    inherited: float

    def as_json(self) -> dict[str, Any]:
        """Return the step; what is not finite is off altogether, and None."""
        off = self.relative if math.isfinite(self.relative) else None
        return {"layer": self.layer, "op": self.op, "relative": off}


@dataclass
class Verdict:
    """What a comparison found.

    Attributes
    ----------
    oracle, version : str
        What the network was compared with.
    seed, inputs : int
        Where the inputs come from, and how many kinds there were.
    batches : list of int
        The batch sizes that were tried.
    tolerance : float
        How far an output may be off.
    outputs : dict of str to Agreement
        What was found of each output.
    steps : list of Step
        The layers in order, if they were compared.
    first : str
        The first layer that is off by more than the tolerance; empty if none is.
    notes : list of str
        What could not be compared.
    """

    oracle: str
    version: str
    seed: int
    inputs: int
    tolerance: float
    batches: list[int] = field(default_factory=list)
    outputs: dict[str, Agreement] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    first: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether every output is as near as the tolerance says."""
        return all(each.within(self.tolerance) for each in self.outputs.values())

    def as_json(self) -> dict[str, Any]:
        """Return the verdict as it is stored in a model's provenance."""
        return {
            "oracle": self.oracle,
            "version": self.version,
            "seed": self.seed,
            "inputs": self.inputs,
            "batches": self.batches,
            "tolerance": self.tolerance,
            "outputs": {name: each.as_json() for name, each in self.outputs.items()},
            **({"notes": self.notes} if self.notes else {}),
        }

    def path(self) -> list[Step]:
        """Return the steps to show: how the error grows up to `first`, and after it."""
        if len(self.steps) <= SHOWN:
            return self.steps
        at = next((i for i, s in enumerate(self.steps) if s.layer == self.first), 0)
        early = np.linspace(0, max(at - 3, 0), SHOWN // 2)
        late = np.linspace(min(at + 1, len(self.steps) - 1), len(self.steps) - 1, 3)
        near = range(max(at - 2, 0), at + 1)
        wanted = {*map(int, early), *near, *map(int, late)}
        return [self.steps[index] for index in sorted(wanted)]


def told(verification: Any) -> str:
    """Return a line on a verdict as a file has it, or what else the file has there."""
    match verification:
        case {
            "oracle": str(oracle),
            "version": str(version),
            "outputs": dict(outputs),
        } if outputs:
            errors = [_relative(output) for output in outputs.values()]
            if None not in errors:
                worst = max(error for error in errors if error is not None)
                return (
                    f"as {oracle} {version} computes it, to {worst:.1e} of the largest "
                    "output"
                )
    return str(verification)


def _relative(output: Any) -> float | None:
    match output:
        case {"relative": float() | int() as error}:
            return float(error)
    return None


class Runtime:
    """A graph run by striate, as an `Oracle`.

    Parameters
    ----------
    graph : Graph
        The network.
    """

    name = "striate"
    version = striate.__version__

    def __init__(self, graph: Graph) -> None:
        self._model = Model(graph)
        self._values = [value for node in graph.nodes for value in node.outputs]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs."""
        return self._model.run(feeds)

    def layers(self, feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """Yield what every layer computes."""
        yield from self._model.run(feeds, self._values).items()


def oracle_of(entry: Format, source: Any, graph: Graph, **options: Any) -> Oracle:
    """Return what a source is run by where it comes from.

    Parameters
    ----------
    entry : Format
        What the source is.
    source : path or model
        The source.
    graph : Graph
        What it was converted to.
    **options
        How it was converted; what the oracle has no use for is left out.

    Raises
    ------
    UnsupportedModelError
        If there is none, or it cannot run the model.
    MissingExtraError
        If it is not installed.
    """
    if entry.oracle is None:
        raise UnsupportedModelError(f"nothing else runs {entry.title}")
    start = resolved(entry.oracle)
    known = inspect.signature(start).parameters
    taken = {key: value for key, value in options.items() if key in known}
    whole = graph
    match graph.metadata.get("conversion"):
        case {"cut": {"io": "channels_last" | "source" as io}}:
            kept = {k: v for k, v in options.items() if k != "cut_outputs"}
            whole = convert(source, format=entry.name, io=io, **kept)
    found: Oracle = _asked(
        entry.title, lambda: start(source, whole, **taken), "cannot be run"
    )
    return found if whole is graph else Part(found, graph.outputs)


class Part:
    """An oracle of a whole network, asked for other outputs.

    Parameters
    ----------
    oracle : Oracle
        What knows the whole.
    outputs : sequence of str
        The values that are outputs instead.
    """

    def __init__(self, oracle: Oracle, outputs: Sequence[str]) -> None:
        self.name, self.version = oracle.name, oracle.version
        self.tolerance = float(getattr(oracle, "tolerance", TOLERANCE))
        self.notes: list[str] = getattr(oracle, "notes", [])
        self._oracle = oracle
        self._outputs = outputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs."""
        found = dict(chain(self.layers(feeds), self._oracle.run(feeds).items()))
        return {name: found[name] for name in self._outputs}

    def layers(self, feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """Yield what every layer computes."""
        return self._oracle.layers(feeds)


def compare(
    graph: Graph,
    ours: Oracle,
    theirs: Oracle,
    *,
    inputs: int = INPUTS,
    seed: int = SEED,
    tolerance: float | None = None,
    layers: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Verdict:
    """Return how far two runtimes are apart on a network.

    Parameters
    ----------
    graph : Graph
        Whose inputs and outputs both know.
    ours, theirs : Oracle
        What is judged, and what it is held against.
    inputs : int
        How many inputs: of uniform numbers from 0 to 1, of normal ones, of zeros, and
        so on; each for a batch of 1 and of 3 where the network leaves that open.
    seed : int
        Where they come from.
    tolerance : float, optional
        How far an output may be off, of the largest number in it.
    layers : bool, optional
        Whether to compare what the layers compute; by default if an output is off.
    progress : callable, optional
        Called with the runs done and their number.

    Raises
    ------
    UnsupportedModelError
        If `theirs` cannot run the network.
    """
    if tolerance is None:
        tolerance = float(getattr(theirs, "tolerance", TOLERANCE))
    verdict = Verdict(theirs.name, theirs.version, seed, inputs, tolerance)
    verdict.outputs = {name: Agreement(tolerance) for name in graph.outputs}
    dynamic = {name: _is_dynamic(graph, name) for name in graph.outputs}
    worst: Mapping[str, Array] = {}
    batches = _batches(graph)
    runs = [(kind, batch) for batch in batches for kind in range(inputs)]
    refused: set[int] = set()
    runtime = f"{theirs.name} {theirs.version}"
    for done, (kind, batch) in enumerate(runs):
        if progress:
            progress(done, len(runs))
        if batch in refused:
            continue
        feeds = example(graph, kind, batch, seed)
        found = ours.run(feeds)
        try:
            wanted = _asked(runtime, partial(theirs.run, feeds))
        except UnsupportedModelError as error:
            if batch == batches[0]:
                raise
            refused.add(batch)
            verdict.notes.append(f"batches of {batch} were not compared: {error}")
            continue
        agreed = verdict.agrees
        for name, agreement in verdict.outputs.items():
            agreement.add(found[name], wanted[name], dynamic[name])
        if not worst or (agreed and not verdict.agrees):
            worst = feeds
    verdict.notes += getattr(theirs, "notes", [])
    verdict.batches = [batch for batch in batches if batch not in refused]
    if layers or (layers is None and not verdict.agrees):
        verdict.steps = _asked(runtime, partial(steps, graph, ours, theirs, worst))
        beyond = (s.layer for s in verdict.steps if not s.relative <= tolerance)
        verdict.first = next(beyond, "")
    return verdict


def _asked(
    runtime: str, question: Callable[[], Any], refusal: str = "cannot run it"
) -> Any:
    """Return what another package answers, or say in one line that it does not."""
    try:
        return question()
    except (StriateError, MemoryError):
        raise
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        raise UnsupportedModelError(
            f"{runtime} {refusal}: {type(error).__name__}: {line}"
        ) from error


def steps(
    graph: Graph, ours: Oracle, theirs: Oracle, feeds: Mapping[str, Array]
) -> list[Step]:
    """Return how far each layer is off that both runtimes know, in order."""
    mine = dict(ours.layers(feeds))
    errors: dict[str, float] = {}
    for name, wanted in chain(theirs.layers(feeds), theirs.run(feeds).items()):
        if name in mine:
            agreement = Agreement()
            agreement.add(mine.pop(name), wanted)
            off = agreement.unequal or agreement.faults
            errors[name] = math.inf if off else agreement.relative
    found = []
    for node in graph.nodes:
        known = [errors[value] for value in node.outputs if value in errors]
        if known:
            inherited = max((errors.get(value, 0.0) for value in node.reads), default=0)
            op = type(node.op).__name__
            found.append(Step(node.name, op, max(known), inherited))
    return found


def example(graph: Graph, kind: int, batch: int, seed: int = SEED) -> dict[str, Array]:
    """Return inputs for a network, the same for the same numbers.

    Parameters
    ----------
    graph : Graph
        The network.
    kind : int
        0 for uniform numbers from 0 to 1, 1 for normal ones, 2 for zeros, and so on.
        Whole numbers are 0 or 1, those of one byte any.
    batch : int
        The size of the first axis where it is open.
    seed : int
        Where the numbers come from.
    """
    random = np.random.default_rng((seed, kind, batch))
    feeds: dict[str, Array] = {}
    shapes = graph.default_shapes()
    for entry in graph.inputs:
        shape = shapes[entry.name]
        if entry.shape and isinstance(entry.shape[0], str):
            shape = (batch, *shape[1:])
        if kind % 3 == 2:
            feeds[entry.name] = np.zeros(shape, entry.dtype)
        elif entry.dtype == "float32":
            draw = random.random if kind % 3 == 0 else random.standard_normal
            feeds[entry.name] = draw(shape, dtype=np.float32)
        else:
            limits = np.iinfo(entry.dtype) if entry.dtype in ("int8", "uint8") else None
            low, high = (limits.min, limits.max) if limits else (0, 1)
            drawn = random.integers(low, high, shape, endpoint=True)
            feeds[entry.name] = drawn.astype(entry.dtype)
    return feeds


def _batches(graph: Graph) -> tuple[int, ...]:
    opened = any(e.shape and isinstance(e.shape[0], str) for e in graph.inputs)
    return BATCHES if opened else BATCHES[:1]


def _is_dynamic(graph: Graph, output: str) -> bool:
    return any(node.op.dynamic for node in graph.until([output]).nodes)
