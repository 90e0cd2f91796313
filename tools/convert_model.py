"""The command that turns models of other frameworks into model files."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import striate
from striate import Graph, ops
from striate.errors import MissingExtraError, SettingError, UnsupportedModelError
from striate.image import INTERPOLATIONS, Postprocess, Preprocess, Resize
from striate.model_file import read_edited
from striate.spec import shape_text
from striate.tools import convert
from striate.tools.compare_model import show
from striate.tools.console import (
    Parser,
    command,
    complain,
    grouped,
    print_json,
    print_lines,
    print_table,
    progress,
    size_text,
)
from striate.tools.formats import Format, is_striate, named, recognised
from striate.tools.to_onnx.model import save_onnx
from striate.tools.verification import (
    INPUTS,
    Runtime,
    Verdict,
    compare,
    oracle_of,
    told,
)

PROG = "convert_model"

UNSUPPORTED = 1
"""The exit status if the network cannot be converted, or computes something else."""

STORED = (
    "colour",
    "size",
    "shortest_edge",
    "crop",
    "interpolation",
    "scale",
    "mean",
    "std",
    "invert",
    "labels",
    "activation",
)
"""Options for what only a model file stores."""

SOURCE = (
    "from",
    "weights",
    "arch",
    "option",
    "cut_outputs",
    "cut_inputs",
    "verify",
    "no_verify",
)
"""Options for what only sources of other frameworks have."""

RESERVED = ("source", "graph", "entry", "io", "format", "example", "progress")
"""Settings of every format, which are no matter of ``--option``."""

EXAMPLE = """\
example:
  convert_model resnet50.onnx resnet50.h5 --labels imagenet.txt \\
    --shortest-edge 256 --crop 224 \\
    --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
  convert_model yolov3.cfg yolov3.h5 --weights yolov3.weights
  convert_model resnet50.safetensors resnet50.h5 --arch resnet50
  convert_model detector.onnx head.h5 --cut-outputs scores,boxes
  convert_model resnet50.h5 resnet50.onnx

What the source is can be seen from its content: ONNX, PyTorch (.pt2, weights alone),
Keras, TensorFlow Lite, Darknet, Caffe. If its own framework is installed the converted
network is run beside it; one that computes something else is not written.

Images go in and come out of the converted network as (N, H, W, C). With --io source
they keep the order the source has, (N, C, H, W), so that a program can change its
runtime and keep its arrays. The other way round, from a model file to ONNX, the two
words mean the same orders, and --io source saves the transposes at both ends.

exit status: 0 done; 1 the network holds what cannot be converted, one table tells all
of it, or it computes something else; 2 the command or a file makes no sense, one line
tells why. Nothing is written unless it is 0.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a model as the command line says and return the exit status."""
    parser = Parser(
        PROG,
        "Turn a model of another framework into a model file; export one to ONNX; "
        "clean an edited one.",
        EXAMPLE,
    )
    parser.add_argument(
        "source",
        help="the model of a framework; or a model file, .h5, to export to .onnx, or "
        "to write anew after another tool has edited it (only if you trust it)",
    )
    parser.add_argument("target", help="the model file to write, .h5; or an .onnx file")
    parser.add_argument(
        "--from",
        metavar="FORMAT",
        help="what the source is, if that cannot be seen: onnx, torch, weights, keras, "
        "tflite, darknet, caffe",
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="the weights, where they are in another file"
    )
    parser.add_argument(
        "--arch", metavar="NAME", help="the network that weights alone are for"
    )
    parser.add_argument(
        "--option",
        type=setting,
        action="append",
        metavar="NAME=VALUE",
        help="what else the source's format takes, such as nms=0.45 for Darknet; may "
        "be given again",
    )
    parser.add_argument(
        "--cut-outputs",
        type=names,
        metavar="NAMES",
        help="layers or tensors of the source that become the outputs",
    )
    parser.add_argument(
        "--cut-inputs",
        type=names,
        metavar="NAMES",
        help="layers or tensors of the source that become the inputs",
    )
    parser.add_argument(
        "--io",
        choices=("channels_last", "source"),
        default="channels_last",
        help="the order of images at inputs and outputs (default: channels_last)",
    )
    check = parser.add_mutually_exclusive_group()
    check.add_argument(
        "--verify",
        type=int,
        metavar="N",
        help="compare with the source's own runtime on N inputs, each as a batch of 1 "
        f"and of 3 (default {INPUTS}, if it is installed)",
    )
    check.add_argument(
        "--no-verify", action="store_true", default=None, help="do not compare"
    )
    parser.add_argument("--name", help="what to call the network")
    _add_pictures(parser)
    _add_classes(parser)
    return command(parser, _run, argv)


def _add_pictures(parser: Parser) -> None:
    """Add the options that say how a picture becomes the input."""
    picture = parser.add_argument_group(
        "pictures", "how a picture becomes the input; stored in the model file"
    )
    picture.add_argument("--colour", choices=("RGB", "BGR", "L"), help="default RGB")
    picture.add_argument(
        "--size", type=size, metavar="HxW", help="resize to this, whatever the shape"
    )
    picture.add_argument(
        "--shortest-edge", type=int, metavar="N", help="resize, keeping the shape"
    )
    picture.add_argument(
        "--crop", type=size, metavar="HxW", help="then cut this out of the middle"
    )
    picture.add_argument(
        "--interpolation", choices=INTERPOLATIONS, help="default bilinear"
    )
    picture.add_argument(
        "--scale",
        type=float,
        metavar="X",
        help="multiply 0 to 255 by it, default 1/255",
    )
    picture.add_argument(
        "--mean", type=numbers, metavar="R,G,B", help="then subtract, default 0"
    )
    picture.add_argument(
        "--std", type=numbers, metavar="R,G,B", help="then divide by, default 1"
    )
    picture.add_argument(
        "--invert", action="store_true", default=None, help="take the negative"
    )


def _add_classes(parser: Parser) -> None:
    """Add the options that say what the output means."""
    classes = parser.add_argument_group("classes")
    classes.add_argument(
        "--labels", metavar="FILE", help="the names of the classes, one a line"
    )
    classes.add_argument(
        "--activation",
        choices=("softmax", "sigmoid", "none"),
        help="what makes the output probabilities (default: softmax, or none if the "
        "network ends in one)",
    )


def size(text: str) -> tuple[int, int]:
    """Return (height, width) of ``224`` or ``192x256``."""
    try:
        height, width = (int(part) for part in text.split("x") * (2 - text.count("x")))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, wanted HEIGHTxWIDTH or one number for both"
        ) from None
    return height, width


def names(text: str) -> tuple[str, ...]:
    """Return the names of ``boxes,scores``."""
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise argparse.ArgumentTypeError(
            f"found {text!r}, wanted names with commas between them"
        )
    return found


def setting(text: str) -> tuple[str, Any]:
    """Return name and value of ``nms=0.45``."""
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not equals or name in RESERVED:
        raise argparse.ArgumentTypeError(f"found {text!r}, wanted NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def numbers(text: str) -> tuple[float, ...]:
    """Return the numbers of ``0.485,0.456,0.406``."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, wanted numbers with commas between them"
        ) from None


def _run(options: argparse.Namespace) -> int:
    target = Path(options.target)
    _require_writable(target, Path(options.source))
    if is_striate(options.source):
        _refuse(options, SOURCE, "models of other frameworks")
        return (_export if _is_onnx(target) else _clean)(options, target)
    if options.verify is not None and options.verify < 1:
        raise SettingError("--verify: wanted 1 or more; --no-verify turns it off")
    chosen = getattr(options, "from")
    entry = named(chosen) if chosen else recognised(options.source)
    if _is_onnx(target):
        raise SettingError(
            f"{target}: only model files are exported to ONNX, {options.source} is "
            f"{entry.title}; convert it to .h5 first"
        )
    labels = _labels(options.labels) if options.labels else ()
    preprocess = _preprocess(options)
    try:
        graph = _converted(options, entry)
    except UnsupportedModelError as error:
        return _refused(options, error)
    _complete(graph, options, preprocess, labels)
    verdict = _verdict(options, entry, graph)
    if isinstance(verdict, Verdict):
        if not verdict.agrees:
            return _differs(options, verdict)
        graph.provenance["verification"] = verdict.as_json()
    model_id = striate.save(graph, target)
    summary = _summary(options, entry, graph, model_id, verdict)
    if options.json:
        print_json(summary)
    else:
        _show(summary)
    return 0


def _is_onnx(target: Path) -> bool:
    return target.suffix.lower() == ".onnx"


def _complete(
    graph: Graph,
    options: argparse.Namespace,
    preprocess: Preprocess | None,
    labels: tuple[str, ...],
) -> None:
    """Give the graph what the options say besides what the source does."""
    if options.name:
        graph.name = options.name
        graph.provenance["name"] = options.name
    if preprocess is not None:
        _require_pictures(preprocess, graph, options.io)
        graph.preprocess = preprocess
    if labels:
        _require_as_many(labels, graph)
        graph.labels = labels
    if options.activation or (labels and graph.postprocess is None):
        activation = options.activation or _activation(graph)
        graph.postprocess = Postprocess(graph.outputs[0], activation)


def _verdict(options: argparse.Namespace, entry: Format, graph: Graph) -> Verdict | str:
    """Return how the graph compares with its source, or why nobody knows."""
    if options.no_verify:
        return "no, --no-verify"
    with progress("verifying") as bar:
        task = bar.add_task("runs", total=None)
        try:
            return compare(
                graph,
                Runtime(graph),
                oracle_of(entry, options.source, graph, **_given(options)),
                inputs=options.verify or INPUTS,
                progress=lambda done, n: bar.update(task, completed=done, total=n),
            )
        except (MissingExtraError, UnsupportedModelError) as error:
            if options.verify is not None:
                raise SettingError(f"--verify: {error}") from error
            return f"no: {error}"


def _differs(options: argparse.Namespace, verdict: Verdict) -> int:
    """Tell that the network computes something else than its source."""
    off = [
        n for n, each in verdict.outputs.items() if not each.within(verdict.tolerance)
    ]
    text = (
        f"not written: {', '.join(off)} not as {verdict.oracle} {verdict.version} "
        "computes it"
    )
    if verdict.first:
        text += f", the first layer that is off is {verdict.first}"
    complain(PROG, f"{options.source}: {text}")
    if options.json:
        layers = [step.as_json() for step in verdict.steps]
        facts = {"verification": verdict.as_json(), "layers": layers}
        print_json({"error": text, "status": UNSUPPORTED, **facts})
    else:
        show(verdict)
    return UNSUPPORTED


def _refused(options: argparse.Namespace, error: UnsupportedModelError) -> int:
    sys.stderr.write(f"{PROG}: {error}\n")
    if options.json:
        print_json({"error": str(error), "status": UNSUPPORTED})
    return UNSUPPORTED


def _clean(options: argparse.Namespace, target: Path) -> int:
    """Write a model file anew that another tool has edited; for files one trusts."""
    _refuse(options, STORED, "models of other frameworks")
    graph = read_edited(options.source)
    graph.name = options.name or graph.name
    model_id = striate.save(graph, target)
    facts = {
        "source": options.source,
        "target": options.target,
        "bytes": target.stat().st_size,
        "layers": len(graph.nodes),
        "model_id": model_id,
    }
    if options.json:
        print_json(facts)
    else:
        print_lines({name: str(fact) for name, fact in facts.items()})
    return 0


def _refuse(options: argparse.Namespace, refused: Sequence[str], wanted: str) -> None:
    """Raise `SettingError` if an option was given that has no effect here."""
    for name in refused:
        if getattr(options, name) is not None:
            raise SettingError(f"--{name.replace('_', '-')} is for {wanted}")


def _export(options: argparse.Namespace, target: Path) -> int:
    """Write a model file as ONNX, which has no place for pictures and labels."""
    _refuse(options, STORED, f"model files, not for {target}")
    graph = striate.read(options.source)
    graph.name = options.name or graph.name
    io = "channels_first" if options.io == "source" else "channels_last"
    try:
        model = save_onnx(graph, target, io=io)
    except UnsupportedModelError as error:
        return _refused(options, error)
    ends = (
        {
            entry.name: [
                d.dim_param or d.dim_value for d in entry.type.tensor_type.shape.dim
            ]
            for entry in entries
        }
        for entries in (model.graph.input, model.graph.output)
    )
    inputs, outputs = ends
    nodes = [node.op_type for node in model.graph.node]
    summary = {
        "source": options.source,
        "target": options.target,
        "bytes": target.stat().st_size,
        "name": graph.name,
        "inputs": inputs,
        "outputs": outputs,
        "nodes_in": len(graph.nodes),
        "nodes_out": len(nodes),
        "transposes": nodes.count("Transpose"),
        "opset": model.opset_import[0].version,
    }
    if options.json:
        print_json(summary)
        return 0
    print_lines(
        {
            "converted": f"{options.source} to {options.target}, "
            f"{size_text(target.stat().st_size)}",
            "nodes": f"{len(graph.nodes)} in, {len(nodes)} out",
            "inputs": _shapes(inputs),
            "outputs": _shapes(outputs),
            "transposes": str(nodes.count("Transpose") or "none"),
            "opset": str(model.opset_import[0].version),
        }
    )
    return 0


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options that say what of the source is meant."""
    wishes = {
        name: getattr(options, name)
        for name in ("weights", "arch", "cut_outputs", "cut_inputs")
    }
    given = {name: value for name, value in wishes.items() if value}
    return {**dict(options.option or ()), **given}


def _converted(options: argparse.Namespace, entry: Format) -> Graph:
    with progress("converting") as bar:
        task = bar.add_task("nodes", total=None)

        def advance(done: int, nodes: int) -> None:
            bar.update(task, completed=done, total=nodes)

        return convert(
            options.source,
            io=options.io,
            format=entry.name,
            progress=advance,
            **_given(options),
        )


def _require_writable(target: Path, source: Path) -> None:
    if target.exists() and source.exists() and target.samefile(source):
        raise SettingError(f"{target}: is the source itself")
    folder = target.absolute().parent
    if not folder.is_dir():
        raise SettingError(f"{target}: no folder {folder}")
    if target.is_dir():
        raise SettingError(f"{target}: found a folder, wanted a file to write")
    if target.suffix.lower() not in (".h5", ".onnx"):
        raise SettingError(f"{target}: wanted a name that ends in .h5, or in .onnx")
    if not os.access(target if target.exists() else folder, os.W_OK):
        raise SettingError(f"{target}: cannot be written")


def _labels(path: str) -> tuple[str, ...]:
    try:
        text = Path(path).read_text("utf-8")
    except UnicodeDecodeError:
        raise SettingError(f"{path}: not UTF-8 text, wanted a label a line") from None
    except OSError as error:
        raise SettingError(f"{path}: {error.strerror}") from None
    labels = tuple(line.strip() for line in text.splitlines())
    while labels and not labels[-1]:
        labels = labels[:-1]
    if not labels:
        raise SettingError(f"{path}: no labels in it, wanted one a line")
    return labels


def _preprocess(options: argparse.Namespace) -> Preprocess | None:
    """Return what the options say of pictures; None if they say nothing."""
    if options.size and options.shortest_edge:
        raise SettingError("--size and --shortest-edge exclude each other")
    resize = None
    interpolation = options.interpolation or "bilinear"
    if options.size:
        resize = Resize("exact", options.size, interpolation)
    elif options.shortest_edge:
        resize = Resize("shortest_edge", (options.shortest_edge,), interpolation)
    elif options.interpolation:
        raise SettingError("--interpolation needs --size or --shortest-edge")
    given = {
        "colour": options.colour,
        "invert": options.invert,
        "resize": resize,
        "crop": options.crop,
        "scale": options.scale,
        "mean": options.mean,
        "std": options.std,
    }
    chosen = {key: value for key, value in given.items() if value is not None}
    return Preprocess(**chosen) if chosen else None


def _require_pictures(preprocess: Preprocess, graph: Graph, io: str) -> None:
    """Raise `SettingError` unless the network reads what `preprocess` gives."""
    if io == "source":
        raise SettingError("pictures are (N, H, W, C): they need --io channels_last")
    first = graph.inputs[0]
    if len(first.shape) != 4 or first.shape[3] != preprocess.channels:
        raise SettingError(
            f"{preprocess.colour} pictures have {preprocess.channels} channels, the "
            f"input {first.name!r} is {shape_text(first.shape)}; see --colour"
        )


def _require_as_many(labels: tuple[str, ...], graph: Graph) -> None:
    shape = graph.specs()[graph.outputs[0]].shape
    classes = shape[-1] if shape else 0
    if len(labels) != classes:
        raise SettingError(
            f"{len(labels)} labels, but the output {graph.outputs[0]!r} has "
            f"{classes} classes"
        )


def _activation(graph: Graph) -> str:
    last = graph.node(graph.outputs[0]).op
    if isinstance(last, ops.Softmax):
        return "none"
    if isinstance(last, ops.LogSoftmax):
        return "softmax"
    return "none" if isinstance(last, ops.Sigmoid) else "softmax"


def _summary(
    options: argparse.Namespace,
    entry: Format,
    graph: Graph,
    model_id: str,
    verdict: Verdict | str,
) -> dict[str, Any]:
    specs = graph.specs()
    done = graph.metadata["conversion"]
    return {
        "source": options.source,
        "target": options.target,
        "format": entry.name,
        "bytes": Path(options.target).stat().st_size,
        "model_id": model_id,
        "name": graph.name,
        "verified": isinstance(verdict, Verdict),
        "verification": verdict.as_json() if isinstance(verdict, Verdict) else verdict,
        "inputs": {entry.name: list(entry.shape) for entry in graph.inputs},
        "outputs": {
            name: _open_shape(graph, specs[name].shape) for name in graph.outputs
        },
        **{key: value for key, value in done.items() if key not in ("order", "layers")},
    }


def _open_shape(graph: Graph, shape: tuple[int, ...]) -> list[int | str]:
    """Return a shape with the batch's symbol, if the graph leaves that open."""
    batch = graph.inputs[0].shape[:1] if graph.inputs else ()
    is_open = bool(batch) and isinstance(batch[0], str) and bool(shape)
    return [*batch, *shape[1:]] if is_open else list(shape)


def _show(summary: dict[str, Any]) -> None:
    transposes = summary["transposes"]
    print_lines(
        {
            "converted": f"{summary['source']} ({named(summary['format']).title}) to "
            f"{summary['target']}, {size_text(summary['bytes'])}",
            "nodes": f"{summary['nodes_in']} in, {summary['nodes_out']} out",
            "parameters": grouped(summary["parameters"]),
            "inputs": _shapes(summary["inputs"]),
            "outputs": _shapes(summary["outputs"]),
            "computed": _counts(summary["constants"]),
            "for free": _counts(summary["free"]),
            "joined into": _counts(summary["patterns"]),
            "transposes": str(len(transposes)) if transposes else "none",
            "verified": told(summary["verification"]),
            "notes": "; ".join([*summary["notes"], *_notes(summary["verification"])]),
            "model id": summary["model_id"],
        }
    )
    if transposes:
        print_table(
            {"transpose": "left", "axes": "left", "for": "left"},
            [
                (each["layer"], shape_text(tuple(each["axes"])), each["reader"])
                for each in transposes
            ],
        )


def _notes(verification: dict[str, Any] | str) -> list[str]:
    return [] if isinstance(verification, str) else verification.get("notes", [])


def _shapes(shapes: dict[str, list[int | str]]) -> str:
    return ", ".join(f"{name} {shape_text(tuple(s))}" for name, s in shapes.items())


def _counts(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in ordered)


if __name__ == "__main__":
    sys.exit(main())
