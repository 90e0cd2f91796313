"""The command that tells what is on pictures."""

from __future__ import annotations

import argparse
import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import striate
from numpy.typing import NDArray
from striate import Model
from striate.errors import ImageError, SettingError
from striate.spec import shape_text
from striate.tools.console import (
    Parser,
    command,
    complain,
    print_json,
    print_table,
    progress,
)

PROG = "run_model"

EXAMPLE = """\
examples:
  run_model models/digits.h5 models/samples/seven.png
  run_model models/digits.h5 scans/ --top 1 --json > answers.json
  run_model models/digits.h5 seven.png --output relu1 --output pool2 --save seven.npz

A saved file has an array for each layer, the pictures along its first axis in the
order of the array "pictures", which has their names.

exit status: 0 done; 1 some pictures could not be read, one line tells why, the others
are done; 2 the command, the model or every picture makes no sense, one line tells why.
"""

Array = NDArray[Any]


@dataclass
class Answer:
    """What the model says of one picture."""

    picture: str
    classes: list[tuple[str, float]]
    layers: dict[str, Array]


@dataclass
class Answers:
    """What the model says of all pictures, and which could not be read."""

    read: list[Answer] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a model on pictures as the command line says; return the exit status."""
    parser = Parser(PROG, "Tell what a model sees on pictures.", EXAMPLE)
    parser.add_argument("model", help="the model file, .h5")
    parser.add_argument("pictures", nargs="+", help="picture files, or folders of them")
    parser.add_argument(
        "--top", type=int, help="classes to tell (default: as the model says)"
    )
    parser.add_argument(
        "--output",
        action="append",
        default=[],
        metavar="LAYER",
        help="a layer whose values are wanted; may be given again",
    )
    parser.add_argument(
        "--save", metavar="FILE", help="write those values to this .npz file"
    )
    parser.add_running()
    return command(parser, _run, argv)


def _run(options: argparse.Namespace) -> int:
    if options.top is not None and options.top < 1:
        raise SettingError(f"top {options.top}: wanted at least 1")
    pictures = list(_pictures(options.pictures))
    with striate.load(options.model, threads=options.threads, isa=options.isa) as model:
        for layer in options.output:
            model.graph.value_named(layer)
        wanted = options.output or (model.graph.outputs if options.save else [])
        if options.save:
            _require_writable(Path(options.save))
        answers = _answers(model, pictures, wanted, options.top)
    for _, reason in answers.skipped[: None if answers.read else -1]:
        complain(PROG, reason)
    if not answers.read:
        raise ImageError(answers.skipped[-1][1])
    if options.save:
        _save(Path(options.save), answers.read)
    if options.json:
        print_json(_document(options, answers))
    else:
        _show(answers)
    return 1 if answers.skipped else 0


def _pictures(paths: Sequence[str]) -> Iterator[str]:
    """Yield the pictures that the command line names, those of folders sorted."""
    from PIL import Image

    for path in map(Path, paths):
        if not path.is_dir():
            yield str(path)
            continue
        endings = Image.registered_extensions()
        found = [
            str(file)
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in endings and not file.name.startswith(".")
        ]
        if not found:
            raise ImageError(f"{path}: no pictures in this folder")
        yield from found


def _answers(
    model: Model, pictures: list[str], wanted: Sequence[str], top: int | None
) -> Answers:
    graph = model.graph
    if graph.preprocess is None:
        raise ImageError(
            f"{graph.name!r} does not say how a picture becomes its input; "
            "run it on arrays, from Python"
        )
    score = model.postprocess
    names = [*dict.fromkeys([score.output, *wanted])]
    answers = Answers()
    with progress("running", shown=len(pictures) > 1) as bar:
        for picture in bar.track(pictures):
            try:
                x = model.prepare(picture)
            except ImageError as error:
                answers.skipped.append((picture, str(error)))
                continue
            values = model.run({graph.inputs[0].name: x}, names)
            scores = values[score.output]
            each = scores.size == scores.shape[-1]
            classes = model.top_classes(scores, top or score.top) if each else []
            layers = {layer: values[layer] for layer in wanted}
            answers.read.append(Answer(picture, classes, layers))
    return answers


def _require_writable(target: Path) -> None:
    folder = target.absolute().parent
    if not folder.is_dir():
        raise SettingError(f"{target}: no folder {folder}")
    if target.is_dir():
        raise SettingError(f"{target}: found a folder, wanted a file to write")
    if not os.access(folder, os.W_OK):
        raise SettingError(f"{target}: its folder cannot be written to")


def _save(target: Path, answers: list[Answer]) -> None:
    """Write every layer's values; the file appears complete or not at all."""
    arrays: dict[str, Array] = {}
    for layer in answers[0].layers:
        if layer == "pictures":
            raise SettingError("a layer named 'pictures' cannot be saved")
        values = [answer.layers[layer] for answer in answers]
        for answer, value in zip(answers, values, strict=True):
            if value.shape != values[0].shape:
                raise SettingError(
                    f"{layer} is {shape_text(values[0].shape)} for "
                    f"{answers[0].picture} and {shape_text(value.shape)} for "
                    f"{answer.picture}: save pictures of one size together"
                )
        arrays[layer] = np.concatenate(values)
    arrays["pictures"] = np.array([answer.picture for answer in answers])
    target = target.resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with zipfile.ZipFile(temporary, "x") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SettingError(f"{target}: {error.strerror}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _document(options: argparse.Namespace, answers: Answers) -> dict[str, Any]:
    return {
        "model": options.model,
        "pictures": [
            {
                "picture": answer.picture,
                "classes": [
                    {"label": label, "probability": probability}
                    for label, probability in answer.classes
                ],
                "layers": {
                    layer: {"shape": value.shape, **_summary(value)}
                    for layer, value in answer.layers.items()
                },
            }
            for answer in answers.read
        ],
        "skipped": [
            {"picture": picture, "error": reason} for picture, reason in answers.skipped
        ],
        "saved": options.save,
    }


def _summary(value: Array) -> dict[str, float]:
    return {
        "min": float(value.min()),
        "mean": float(value.mean()),
        "max": float(value.max()),
    }


def _show(answers: Answers) -> None:
    rows: list[tuple[str, ...]] = []
    for answer in answers.read:
        name = answer.picture
        for label, probability in answer.classes:
            rows.append((name, label, f"{probability:.1%}"))
            name = ""
    if rows:
        print_table({"picture": "left", "class": "left", "probability": "right"}, rows)
    rows = []
    for answer in answers.read:
        name = answer.picture
        for layer, value in answer.layers.items():
            numbers = (f"{number:.4g}" for number in _summary(value).values())
            rows.append((name, layer, shape_text(value.shape), *numbers))
            name = ""
    if rows:
        headings = {"picture": "left", "layer": "left", "shape": "left"}
        sides = {"min": "right", "mean": "right", "max": "right"}
        print_table({**headings, **sides}, rows)


if __name__ == "__main__":
    sys.exit(main())
