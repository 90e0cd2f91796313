"""The command that tells whether two models compute the same."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import striate
from striate import Graph
from striate.errors import SettingError
from striate.spec import Array, shape_text
from striate.tools import convert
from striate.tools.console import (
    Parser,
    command,
    print_json,
    print_lines,
    print_table,
    progress,
)
from striate.tools.conversion import sha256_of
from striate.tools.formats import Format, is_striate, recognised
from striate.tools.layout import inverse, last
from striate.tools.oracles import Oracle, order
from striate.tools.verification import (
    INPUTS,
    SEED,
    Agreement,
    Runtime,
    Verdict,
    compare,
    oracle_of,
)

PROG = "compare_model"

DIFFERENT = 1
"""The exit status if the two do not compute the same."""

EXAMPLE = """\
example:
  compare_model resnet50.h5 resnet50.onnx
  compare_model before.h5 after.h5 --layers

Each is a model file or what convert_model takes; a source is run by its own framework.
Inputs and outputs belong together by their names, or else by their order. Both models
get the same seeded inputs. The second is what the first is held against: an error is
told as a part of the largest number that the second computes.

exit status: 0 they compute the same; 1 they do not; 2 the command or a file makes no
sense, one line tells why.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two models as the command line says and return the exit status."""
    parser = Parser(PROG, "Tell whether two models compute the same.", EXAMPLE)
    parser.add_argument("model", help="a model file, or the model of a framework")
    parser.add_argument("reference", help="another one, such as the first one's source")
    parser.add_argument(
        "--inputs",
        type=int,
        default=INPUTS,
        metavar="N",
        help=f"inputs to try, each as a batch of 1 and of 3 (default {INPUTS})",
    )
    parser.add_argument(
        "--seed", type=int, default=SEED, help=f"where they come from (default {SEED})"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="how far an output may be off, as a part of the largest number in it "
        "(default 1e-4)",
    )
    parser.add_argument(
        "--layers",
        action="store_true",
        help="tell how far each layer is off, not only if an output is",
    )
    return command(parser, _run, argv)


def _run(options: argparse.Namespace) -> int:
    if options.inputs < 1 or options.seed < 0:
        raise SettingError("--inputs must be 1 or more, --seed 0 or more")
    if options.tolerance is not None and not options.tolerance >= 0:
        raise SettingError("--tolerance must be 0 or more")
    graph, ours, other, theirs = _sides(options.model, options.reference)
    if other is not graph:
        theirs = Matched(theirs, other, graph)
    with progress("comparing") as bar:
        task = bar.add_task("runs", total=None)
        verdict = compare(
            graph,
            ours,
            theirs,
            inputs=options.inputs,
            seed=options.seed,
            tolerance=options.tolerance,
            layers=options.layers or None,
            progress=lambda done, runs: bar.update(task, completed=done, total=runs),
        )
    if options.json:
        print_json(
            {
                "model": options.model,
                "reference": options.reference,
                "agrees": verdict.agrees,
                **verdict.as_json(),
                "first": verdict.first,
                "layers": [step.as_json() for step in verdict.steps],
            }
        )
    else:
        print_lines({"compared": _compared(options, verdict)})
        show(verdict, complete=options.layers)
    return 0 if verdict.agrees else DIFFERENT


def _compared(options: argparse.Namespace, verdict: Verdict) -> str:
    runs = verdict.inputs * len(verdict.batches)
    return (
        f"{options.model} with {options.reference}, run by {verdict.oracle} "
        f"{verdict.version}, {runs} runs"
    )


def show(verdict: Verdict, complete: bool = False) -> None:
    """Print a verdict.

    Parameters
    ----------
    verdict : Verdict
        What was found.
    complete : bool
        Whether to list every layer, not only some on the way to the first that is off.
    """
    print_table(
        {
            "output": "left",
            "off by": "right",
            "of largest": "right",
            "rms": "right",
            "cosine": "right",
            "top 1": "right",
            "top 5": "right",
            "": "left",
        },
        [
            (name, *_numbers(each), _fault(each, verdict.tolerance))
            for name, each in verdict.outputs.items()
        ],
    )
    if verdict.steps:
        print_table(
            {"layer": "left", "op": "left", "off by": "right", "": "left"},
            [
                (
                    step.layer,
                    step.op,
                    f"{step.relative:.1e}",
                    "first beyond" if step.layer == verdict.first else "",
                )
                for step in (verdict.steps if complete else verdict.path())
            ],
        )
    print_lines(dict.fromkeys(["note"], "; ".join(verdict.notes)))


def _numbers(each: Agreement) -> tuple[str, ...]:
    ranks = [
        f"{same} of {rows}" if rows else "" for same, rows in (each.top1, each.top5)
    ]
    return (
        f"{each.max_abs:.1e}",
        f"{each.relative:.1e}",
        f"{each.rms:.1e}",
        f"{each.cosine:.7f}",
        *ranks,
    )


def _fault(each: Agreement, tolerance: float) -> str:
    faults = list(each.faults)
    if each.unequal:
        faults.append(f"{each.unequal} elements differ")
    if each.relative > tolerance:
        faults.append(f"more than {tolerance:g}")
    return "; ".join(faults)


def _sides(model: str, reference: str) -> tuple[Graph, Oracle, Graph, Oracle]:
    """Return the graphs of two models and what runs them."""
    first, second = _Side(model), _Side(reference)
    ours = first.read(second.stored)
    theirs = second.read(first.stored)
    return ours, first.runtime(ours), theirs, second.runtime(theirs)


class _Side:
    """One of the two models that are compared."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.format: Format | None = None
        self.stored: Graph | None = None
        if is_striate(path):
            self.stored = striate.read(path)
        else:
            self.format = recognised(path)

    def read(self, other: Graph | None) -> Graph:
        """Return the graph; that of the other model if it was made from this one."""
        if self.stored is not None:
            return self.stored
        if other is not None and order(other):
            made_from = other.provenance.get("source_sha256")
            if made_from and made_from == sha256_of(self.path):
                return other
        assert self.format is not None
        return convert(self.path, format=self.format.name)

    def runtime(self, graph: Graph) -> Oracle:
        """Return what runs the model."""
        if self.format is None:
            return Runtime(graph)
        return oracle_of(self.format, self.path, graph)


class Matched:
    """A runtime that answers by the names and axes of another graph.

    Parameters
    ----------
    oracle : Oracle
        The runtime, which knows `own`.
    own, graph : Graph
        Its own graph, and the one whose names and axes callers use.

    Raises
    ------
    SettingError
        If inputs or outputs do not belong together.
    """

    def __init__(self, oracle: Oracle, own: Graph, graph: Graph) -> None:
        self.name, self.version = oracle.name, oracle.version
        if hasattr(oracle, "tolerance"):
            self.tolerance = oracle.tolerance
        self._oracle = oracle
        self._orders = order(own), order(graph)
        self._alike = _framework(own) == _framework(graph) != ""
        self._inputs = self._paired(
            [entry.name for entry in own.inputs],
            [entry.name for entry in graph.inputs],
            "input",
        )
        self._outputs = self._paired(own.outputs, graph.outputs, "output")
        self._shapes = {e.name: e.shape for e in own.inputs}
        self._wanted = {name: spec.shape for name, spec in graph.specs().items()}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs."""
        found = self._oracle.run(self._given(feeds))
        return {
            name: self._moved(found[own], own, name, backwards=True)
            for name, own in self._outputs.items()
        }

    def layers(self, feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """Yield what layers compute that have the same name in both graphs."""
        for name, array in self._oracle.layers(self._given(feeds)):
            if name in self._wanted:
                yield name, self._moved(array, name, name, backwards=True)

    def _given(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {
            own: self._moved(feeds[name], own, name, backwards=False)
            for name, own in self._inputs.items()
        }

    def _paired(
        self, owns: Sequence[str], names: Sequence[str], kind: str
    ) -> dict[str, str]:
        """Return the own name that belongs to each name."""
        if len(owns) != len(names):
            raise SettingError(
                f"the models have {len(names)} and {len(owns)} {kind}s: "
                f"{', '.join(names)}; {', '.join(owns)}"
            )
        mine, theirs = self._orders
        sources = {mine[own][0]: own for own in owns if own in mine}
        found: dict[str, str] = {}
        for name in names:
            own = name if name in owns else sources.get(theirs.get(name, ("",))[0])
            if own is not None and own not in found.values():
                found[name] = own
        left = (own for own in owns if own not in found.values())
        return {name: found.get(name) or next(left) for name in names}

    def _moved(self, array: Array, own: str, name: str, backwards: bool) -> Array:
        """Return an array with its axes as the other graph has them."""
        wanted: tuple[Any, ...] = self._wanted[name] if backwards else self._shapes[own]
        for axes in self._candidates(own, name, array.ndim, backwards):
            shape = tuple(array.shape[axis] for axis in axes)
            if _fits(shape, wanted):
                return np.ascontiguousarray(array.transpose(axes))
        if backwards:
            return array
        raise SettingError(
            f"input {name!r} is {shape_text(array.shape)}, in the other model "
            f"{shape_text(wanted)}"
        )

    def _candidates(
        self, own: str, name: str, rank: int, backwards: bool
    ) -> Iterator[tuple[int, ...]]:
        mine, theirs = self._orders
        same = tuple(range(rank))
        if self._alike and own in mine and name in theirs:
            start, end = theirs[name][1], mine[own][1]
            if backwards:
                start, end = end, start
            if len(start) == len(end) == rank:
                yield tuple(inverse(start)[axis] for axis in end)
        yield same
        if rank > 2:
            yield last(rank)
            yield inverse(last(rank))


def _framework(graph: Graph) -> str:
    return str(graph.provenance.get("source_framework", ""))


def _fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    """Return whether a shape is the one wanted but for the batch and open sizes."""
    return len(shape) == len(wanted) and all(
        isinstance(want, str) or size == want or axis == 0
        for axis, (size, want) in enumerate(zip(shape, wanted, strict=True))
    )


if __name__ == "__main__":
    sys.exit(main())
