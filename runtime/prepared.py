"""A plan made ready: the contexts that no run is using, and how a run goes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from .errors import ShapeError
from .graph import Graph, Node
from .intake import take_outputs
from .kernels._program import Context, Contexts, Usual
from .machine import allowed_cpus
from .plan import Plan, Value
from .spec import Array
from .watch import Watch

MOST_IDLE = len(allowed_cpus())
"""Contexts of a plan kept for the next run; more at once bring no more speed."""


class Prepared:
    """A plan, the contexts that no run is using, and the layers after the plan.

    Parameters
    ----------
    plan : Plan
        The steps.
    graph : Graph
        What they and the other layers compute.
    rest : list of Node
        The layers after the plan, whose sizes depend on values.

    Attributes
    ----------
    usual : Usual or None
        The call with one array of float32, if it gives one and nothing comes after.
    """

    def __init__(self, plan: Plan, graph: Graph, rest: list[Node]) -> None:
        self.plan = plan
        self.outputs = graph.outputs
        self._graph = graph
        self._rest = rest
        self._contexts = Contexts(plan.program, MOST_IDLE)
        self._results = [(spec.shape, np.dtype(spec.dtype)) for _, spec in plan.outputs]
        self.usual: Usual | None = None
        inputs = [spec for _, spec in plan.inputs]
        plain = len(inputs) == len(self._results) == 1 and not rest
        if plain and inputs[0].dtype == "float32":
            empty = partial(np.empty, *self._results[0])
            shape = inputs[0].shape
            self.usual = Usual(self._contexts, shape, np.ndarray, empty, plan.threads)

    def run(
        self,
        arrays: tuple[Array, ...],
        out: Mapping[str, Array] | None,
        poison: bool,
        watch: Watch | None,
    ) -> list[Array]:
        """Run once, in a context of its own.

        Parameters
        ----------
        arrays : tuple of Array
            The inputs, as `striate.intake` leaves them.
        out : dict, optional
            Output name to the array to write to.
        poison : bool
            Whether a new arena begins full of NaN.
        watch : Watch, optional
            What is wanted between the steps.

        Returns
        -------
        list of Array
            One for each of `outputs`.
        """
        results = [np.empty(shape, dtype) for shape, dtype in self._results]
        if out is not None:
            if self._rest:
                raise ShapeError("out= is for models whose outputs have a known size")
            take_outputs(out, self.plan.outputs, arrays, results)
        everything = (*arrays, *results)
        if watch is None:
            self._contexts.run(everything, self.plan.threads, poison)
        else:
            context = self._contexts.take(poison)
            self._run_watched(context, everything, watch)
            self._contexts.give(context)
        return self._finished(arrays, results, watch) if self._rest else results

    def _run_watched(
        self, context: Context, arrays: tuple[Array, ...], watch: Watch
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
        watch: Watch,
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
        watch: Watch | None,
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

    def times(self, arrays: tuple[Array, ...], runs: int) -> Array:
        """Return the seconds every step took in every run."""
        results = [np.empty(shape, dtype) for shape, dtype in self._results]
        context = Context(self.plan.program)
        times = np.empty((runs, len(self.plan.stages) + 1))
        for row in times:
            context.run((*arrays, *results), self.plan.threads, row)
        return np.diff(times, axis=1)
