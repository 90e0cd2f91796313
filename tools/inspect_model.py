"""The command that shows what a model file holds."""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import numpy as np
import striate
from striate import Graph, Model, Node, Spec, kernels, machine, ops, receptive_fields
from striate.errors import SettingError
from striate.ops.base import operand_names, required_operands
from striate.receptive_field import Fields
from striate.spec import Shape, shape_text, spec_of
from striate.tools.console import (
    Parser,
    command,
    grouped,
    input_shapes,
    print_json,
    print_lines,
    print_table,
    size_text,
)
from striate.tools.replay import replay
from striate.tools.verification import told
from striate.window import Padding

PROG = "inspect_model"

EXAMPLE = """\
example:
  inspect_model models/digits.h5
  inspect_model net.h5 --shape 1x320x320x3
  inspect_model net.h5 --check

"sees" is the receptive field: how many pixels along each axis reach one position, "all"
if every pixel does. "step" is how many pixels apart neighbouring positions look, "from"
the first pixel that position 0 sees (below 0: padding).

exit status: 0 done; 1 an example of the file comes out otherwise here; 2 the command or
the file makes no sense, one line tells why.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Show a model as the command line says and return the exit status."""
    parser = Parser(PROG, "Show the layers of a model and what they cost.", EXAMPLE)
    parser.add_argument("model", nargs="?", help="the model file, .h5")
    parser.add_argument(
        "--operators",
        action="store_true",
        help="list the operators there are instead, as model files hold them",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="compute the examples in the file instead, and compare",
    )
    parser.add_argument(
        "--machine",
        action="store_true",
        help="show this machine instead, as a bug report wants it",
    )
    parser.add_shape()
    return command(parser, _run, argv)


def _run(options: argparse.Namespace) -> int:
    if options.operators:
        _show_operators(options.json)
        return 0
    if options.machine:
        _show_machine(options.json)
        return 0
    if options.model is None:
        raise SettingError("no model was named")
    graph = striate.read(options.model)
    if options.check:
        return _check(options.model, graph, options.json)
    shapes = input_shapes(graph, options.shape)
    document = {
        "model": options.model,
        "name": graph.name,
        "file_bytes": Path(options.model).stat().st_size,
        "model_id": graph.model_id,
        **_description(graph, shapes),
    }
    if options.json:
        print_json(document)
    else:
        _show(document)
    return 0


def _check(path: str, graph: Graph, as_json: bool) -> int:
    """Compute the examples of a file; return whether one comes out otherwise."""
    found = replay(graph)
    if as_json:
        print_json({"model": path, "model_id": graph.model_id, **found.as_json()})
    else:
        columns = {"output": "left", "largest error": "right", "relative": "right"}
        rows = [
            (name, f"{each.max_abs:.3g}", f"{each.relative:.3g}")
            for name, each in found.outputs.items()
        ]
        print_table(columns, rows)
        faults = [f"{n}: {f}" for n, each in found.outputs.items() for f in each.faults]
        unequal = {n: each.unequal for n, each in found.outputs.items() if each.unequal}
        print_lines(
            {
                "examples": str(found.examples),
                "verdict": "as the file says"
                if found.agrees
                else "not as the file says",
                "unequal": ", ".join(f"{count} in {n}" for n, count in unequal.items()),
                "faults": "; ".join(faults),
                "first diverging": found.first,
            }
        )
    return 0 if found.agrees else 1


def _show_machine(as_json: bool) -> None:
    """Print CPU, instruction sets, caches, threads and versions."""
    threads = machine.default_threads()
    document = {
        "cpu": machine.cpu_name(),
        "architecture": platform.machine(),
        "instruction_sets": kernels.SUPPORTED,
        "instruction_set": kernels.ISA,
        "caches": [cache._asdict() for cache in machine.caches()],
        "threads": threads.count,
        "threads_reason": threads.reason,
        "environment": {k: v for k, v in os.environ.items() if k[:8] == "STRIATE_"},
        "system": platform.platform(),
        "versions": {
            "striate": striate.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }
    if as_json:
        print_json(document)
        return
    print_lines(
        {
            "cpu": f"{document['cpu']} ({document['architecture']})",
            "instruction sets": ", ".join(kernels.SUPPORTED) + f"; uses {kernels.ISA}",
            "caches": ", ".join(
                f"L{cache.level} {size_text(cache.nbytes)}"
                + f" for {cache.shared_by} CPUs" * (cache.shared_by > 1)
                for cache in machine.caches()
            ),
            "threads": f"{threads.count}: {threads.reason}",
            "environment": _pairs(document["environment"]),
            "system": platform.platform(),
            "versions": _pairs(document["versions"]),
        }
    )


def _pairs(facts: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _show_operators(as_json: bool) -> None:
    """Print every operator: version, operands ([optional], *many), attributes."""
    rows = []
    for name, kind in ops.operators().items():
        required = required_operands(kind)
        operands = [
            operand if operand in required or operand[0] == "*" else f"[{operand}]"
            for operand in operand_names(kind)
        ]
        hints = get_type_hints(kind)
        rows.append(
            {
                "operator": name,
                "version": kind.version,
                "operands": ", ".join(operands),
                "attributes": ", ".join(
                    f"{field.name}: {_type_text(hints[field.name])}"
                    for field in dataclasses.fields(cast(Any, kind))
                ),
                "meaning": (kind.__doc__ or "").partition("\n")[0],
            }
        )
    if as_json:
        print_json(rows)
    else:
        columns = dict.fromkeys(rows[0], "left")
        print_table(columns, [[str(row[key]) for key in row] for row in rows])


def _type_text(hint: Any) -> str:
    """Return the type of an attribute in the words of ``docs/format.md``."""
    names = {
        int: "int",
        float: "float",
        bool: "bool",
        str: "string",
        Padding: "padding",
        tuple[int, ...]: "ints",
        tuple[float, ...]: "floats",
        tuple[tuple[int, int], ...]: "pairs",
    }
    if get_origin(hint) is Literal:
        return " or ".join(f'"{word}"' for word in get_args(hint))
    return names.get(hint) or str(hint).replace("typing.", "")


def _description(graph: Graph, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    specs = graph.specs(shapes)
    fields = receptive_fields(graph, shapes)
    layers = [
        layer for node in graph.nodes for layer in _layers(graph, node, specs, fields)
    ]
    with Model(graph, threads=1) as model:
        memory = model.memory_plan(shapes)
    return {
        "inputs": {entry.name: list(entry.shape) for entry in graph.inputs},
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        "outputs": {name: list(specs[name].shape) for name in graph.outputs},
        "labels": list(graph.labels),
        "examples": len(graph.examples),
        "layers": layers,
        "parameters": sum(array.size for array in graph.params.values()),
        "multiply_adds": sum(layer["multiply_adds"] for layer in layers),
        "weight_bytes": sum(array.nbytes for array in graph.params.values()),
        "packed_weight_bytes": memory.packed_weights,
        "arena_bytes": memory.arena,
        "arena_lower_bound_bytes": memory.lower_bound,
        "preprocess": graph.preprocess and graph.preprocess.attributes(),
        "postprocess": graph.postprocess and graph.postprocess.attributes(),
        "provenance": graph.provenance,
        "metadata": graph.metadata,
    }


def _layers(
    graph: Graph, node: Node, specs: Mapping[str, Spec], fields: Mapping[str, Fields]
) -> list[dict[str, Any]]:
    """Return a row for each value of a layer; the first has what the layer costs."""
    operands = [
        name and (specs[name] if kind == "value" else spec_of(graph.params[name]))
        for kind, name in node.operands()
    ]
    first = specs[node.outputs[0]]
    costs = {
        "parameters": sum(graph.params[name].size for name in node.params.values()),
        "multiply_adds": node.op.multiply_adds(first, *operands),
    }
    rows = []
    for value in node.outputs:
        rows.append(
            {
                "name": value,
                "operator": type(node.op).__name__,
                "reads": list(node.reads),
                "shape": list(specs[value].shape),
                "bytes": specs[value].nbytes,
                **costs,
                "receptive_field": [
                    {"size": f.size, "stride": f.stride, "offset": f.offset}
                    for f in fields[value]
                ],
            }
        )
        costs = dict.fromkeys(costs, 0)
    return rows


def _show(document: dict[str, Any]) -> None:
    rows = [_row(layer) for layer in document["layers"]]
    rows.append(
        (
            "total",
            "",
            "",
            grouped(document["parameters"]),
            grouped(document["multiply_adds"]),
            "",
            "",
            "",
            "",
        )
    )
    columns = {
        "layer": "left",
        "operator": "left",
        "output": "left",
        "parameters": "right",
        "mult-adds": "right",
        "sees": "right",
        "step": "right",
        "from": "right",
        "memory": "right",
    }
    print_table(columns, rows, total=True)
    print_lines(
        {
            "name": document["name"],
            "inputs": _shapes(document["inputs"]),
            "outputs": _shapes(document["outputs"]),
            "labels": _labels(document["labels"]),
            "examples": f"{document['examples']}, --check computes them again"
            if document["examples"]
            else "",
            "weights": size_text(document["weight_bytes"])
            + f", and {size_text(document['packed_weight_bytes'])} in kernels' order",
            "values": f"{size_text(document['arena_bytes'])} of memory planned, "
            f"{size_text(document['arena_lower_bound_bytes'])} in use at most",
            "pictures": _settings(document["preprocess"]),
            "classes": _settings(document["postprocess"]),
            **{
                key: told(value)
                for key, value in document["provenance"].items()
                if key != "name"
            },
            "file": f"{document['model']}, {size_text(document['file_bytes'])}",
            "model id": document["model_id"],
        }
    )


def _row(layer: dict[str, Any]) -> tuple[str, ...]:
    fields = layer["receptive_field"]
    everything = bool(fields) and all(field["stride"] == 0 for field in fields)
    return (
        layer["name"],
        layer["operator"],
        shape_text(tuple(layer["shape"])),
        grouped(layer["parameters"]) if layer["parameters"] else "",
        grouped(layer["multiply_adds"]) if layer["multiply_adds"] else "",
        "all" if everything else _axes(fields, "size"),
        "" if everything else _axes(fields, "stride"),
        "" if everything else _axes(fields, "offset"),
        size_text(layer["bytes"]),
    )


def _axes(fields: list[dict[str, int]], key: str) -> str:
    """Return a number an axis, or one if it serves them all."""
    numbers = [str(field[key]) for field in fields]
    return numbers[0] if len(set(numbers)) == 1 else " x ".join(numbers)


def _shapes(shapes: dict[str, list[int | str]]) -> str:
    return ", ".join(f"{name} {shape_text(tuple(s))}" for name, s in shapes.items())


def _labels(labels: list[str]) -> str:
    if not labels:
        return ""
    some = ", ".join(labels[:3] + ["..."] * (len(labels) > 3))
    return f"{len(labels)}: {some}"


def _settings(settings: dict[str, Any] | None) -> str:
    if settings is None:
        return ""
    return ", ".join(
        f"{key} ({_settings(value)})" if isinstance(value, dict) else f"{key} {value}"
        for key, value in settings.items()
        if value is not None
    )


if __name__ == "__main__":
    sys.exit(main())
