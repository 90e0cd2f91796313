"""Choices among the ways to compute a layer, made by timing them on this machine.

# Design
An operator that lowers itself may ask the plan to choose, its guess first
(`Lowering.choose`). Tuning answers by measurement: round by round it takes the first
open question of every layer, makes one trial plan for each option, all layers at once,
lets the plans take turns, and keeps what was fastest. Unless the whole network is
faster in the end, the guesses stay. Trials run on one thread, and questions know
neither threads nor batch, so that neither changes a result's bits.

Answers can be kept in a file. An answer counts only if it is among the options that
the operator offers, so whatever the file holds, it can cost time and nothing else.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from . import kernels
from .cache_note import CacheNote
from .graph import Graph
from .lowering import Choice
from .machine import cpu_name
from .packed_weights import PackedWeights
from .plan import Plan
from .prepared import Prepared
from .spec import Array, Shape, shape_text

TURNS = 8
"""Timed runs of a trial. The least counts: what else the machine does only adds."""

GAIN = 0.97
"""The share of the guess' time that another option must stay below to be taken."""


Seconds = dict[str, float]
"""Of each layer."""


class Tuning:
    """The answers for one model on one machine.

    Parameters
    ----------
    isa : str
        The instruction set.
    model_id : str
        The model's id.
    folder : path, optional
        Where the answers are kept; only writable by whom the model's users trust.
    """

    def __init__(
        self, isa: str, model_id: str, folder: str | os.PathLike[str] | None
    ) -> None:
        self._isa = isa
        version = import_module(__name__.partition(".")[0]).__version__
        sizes = f"{kernels.LEVEL1_BYTES} {kernels.LEVEL2_BYTES}"
        machine = hashlib.sha256(f"{cpu_name()} {sizes}".encode()).hexdigest()[:12]
        self._note = None
        if folder is not None:
            name = f"{model_id}-{version}-{isa}-{machine}.json"
            self._note = CacheNote(Path(folder) / name)
        self._known = self._read()

    def choices(
        self, graph: Graph, shapes: Mapping[str, Shape], measure: bool = True
    ) -> dict[str, Choice]:
        """Return the answers for a graph, measured if there are none for its shapes.

        Parameters
        ----------
        graph : Graph
            Optimised.
        shapes : dict
            Input name to shape; the batch does not matter.
        measure : bool
            Whether what is not known may be measured.
        """
        pictures = ", ".join(f"{n} {shape_text(s[1:])}" for n, s in shapes.items())
        if pictures not in self._known and measure:
            self._known = {**self._read(), **self._known}
        if pictures not in self._known and measure:
            self._known[pictures] = fastest(graph, shapes, self._isa)
            if self._note is not None:
                self._note.write(self._known)
        return self._known.get(pictures, {})

    def _read(self) -> dict[str, dict[str, Choice]]:
        """Return what the file holds; nothing if there is none, or it is no such."""
        found: Any = self._note.read() if self._note is not None else None
        return found if _is_answers(found) else {}


def _is_answers(found: Any) -> bool:
    return isinstance(found, dict) and all(
        isinstance(answers, dict)
        and all(isinstance(answer, (str, int)) for answer in answers.values())
        for answers in found.values()
    )


def fastest(graph: Graph, shapes: Mapping[str, Shape], isa: str) -> dict[str, Choice]:
    """Return the fastest options of all questions, by what they are called.

    Parameters
    ----------
    graph : Graph
        Optimised.
    shapes : dict
        Input name to shape.
    isa : str
        The instruction set.
    """
    specs = graph.specs(shapes)
    random = np.random.default_rng(0)
    inputs = tuple(
        random.standard_normal(specs[entry.name].shape).astype(entry.dtype)
        for entry in graph.inputs
    )
    packed = PackedWeights()

    def planned(choices: Mapping[str, Choice]) -> Plan:
        return Plan(graph, shapes, isa, 1, packed, choices)

    chosen: dict[str, Choice] = {}
    while True:
        guess = planned(chosen)
        asked = {
            question.layer: question
            for question in reversed(guess.questions)
            if question.key not in chosen and len(question.options) > 1
        }
        if not asked:
            break
        plans = [guess]
        for number in range(1, max(len(q.options) for q in asked.values())):
            given = {
                question.key: question.options[number]
                for question in asked.values()
                if number < len(question.options)
            }
            plans.append(planned({**chosen, **given}))
        trials = _layer_seconds(plans, inputs)
        for layer, question in asked.items():
            spent = [trial[layer] for trial in trials[: len(question.options)]]
            best = spent.index(min(spent))
            taken = best if spent[best] < GAIN * spent[0] else 0
            chosen[question.key] = question.options[taken]
    before, after = _layer_seconds([planned({}), guess], inputs)
    if sum(after.values()) < sum(before.values()):
        return chosen
    return {}


def _layer_seconds(plans: list[Plan], inputs: tuple[Array, ...]) -> list[Seconds]:
    """Return for each plan the least seconds of every layer; the plans take turns."""
    prepared = [Prepared(plan, plan.graph, []) for plan in plans]
    turns = [[each.times(inputs, 2)[1] for each in prepared] for _ in range(TURNS)]
    trials = []
    for plan, *spent in zip(plans, *turns, strict=True):
        least = np.min(spent, axis=0)
        layers: Seconds = {}
        for stage, seconds in zip(plan.stages, least, strict=True):
            layers[stage.layer] = layers.get(stage.layer, 0.0) + float(seconds)
        trials.append(layers)
    return trials
