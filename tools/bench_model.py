"""The command that measures how long a model takes."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import striate
from numpy.typing import NDArray
from striate import Model, kernels
from striate.errors import SettingError
from striate.model import StepProfile
from striate.spec import Shape, shape_text
from striate.tools.console import (
    Parser,
    command,
    input_shapes,
    print_json,
    print_lines,
    print_table,
    progress,
)

PROG = "bench_model"

EXAMPLE = """\
examples:
  bench_model models/digits.h5
  bench_model net.h5 --batch 8 --threads 2 --layers
  bench_model net.h5 --tune --cache ~/.cache/striate

A run is one call of the model on random numbers, once its input shape is known. Times
are of the caller: what a program waits for. With --layers each rate stands beside
the machine's measured peak; a Winograd step may exceed it, for it is counted with the
multiplications of the definition. MB is what the step reads and writes. With --tune
each layer first tries its tiles and algorithms, which is not part of the times; with
--cache the choice is kept for programs that load the model with both.

exit status: 0 done; 2 the command or the file makes no sense, one line tells why.
"""

WARM_UP = 3
"""Runs at least before times count."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure a model as the command line says and return the exit status."""
    parser = Parser(PROG, "Measure how long a model takes.", EXAMPLE)
    parser.add_argument("model", help="the model file, .h5")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--runs", type=int, help="how many runs to measure")
    length.add_argument(
        "--seconds", type=float, default=2.0, help="how long to measure (default: 2)"
    )
    parser.add_argument("--batch", type=int, help="pictures in one run (default: 1)")
    parser.add_shape()
    parser.add_argument(
        "--layers", action="store_true", help="tell the time of each step of a run"
    )
    parser.add_argument(
        "--tune", action="store_true", help="time the ways to compute each layer first"
    )
    parser.add_argument(
        "--cache", metavar="FOLDER", help="where choices and packed weights are kept"
    )
    parser.add_running()
    return command(parser, _run, argv)


def _run(options: argparse.Namespace) -> int:
    if options.runs is not None and options.runs < 1:
        raise SettingError(f"runs {options.runs}: wanted at least 1")
    if not 0 < options.seconds <= 86400:
        raise SettingError(
            f"seconds {options.seconds}: wanted more than 0, up to a day"
        )
    with striate.load(
        options.model,
        threads=options.threads,
        isa=options.isa,
        cache=options.cache,
        tune=options.tune,
    ) as model:
        shapes = input_shapes(model.graph, options.shape, options.batch)
        feeds = _feeds(model, shapes)
        times = _times(model, feeds, options.runs, options.seconds)
        profile = model.profile(feeds)
        document = _document(options, model, shapes, times, profile)
    if options.json:
        print_json(document)
    else:
        _show(document)
    return 0


def _feeds(model: Model, shapes: Mapping[str, Shape]) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    return {
        entry.name: rng.standard_normal(shapes[entry.name]).astype(entry.dtype)
        for entry in model.inputs
    }


def _times(
    model: Model, feeds: Mapping[str, Any], runs: int | None, seconds: float
) -> NDArray[np.float64]:
    """Return the milliseconds of each run."""
    warm = time.perf_counter() + min(0.2, seconds / 4)
    done = 0
    while done < WARM_UP or time.perf_counter() < warm:
        model.run(feeds)
        done += 1
        if runs is not None and done >= max(WARM_UP, runs):
            break
    times: list[float] = []
    with progress("measuring", shown=seconds >= 1) as bar:
        task = bar.add_task("", total=runs)
        stop = time.perf_counter() + seconds
        shown = 0.0
        now = time.perf_counter()
        while len(times) < runs if runs is not None else not times or now < stop:
            started = time.perf_counter()
            model.run(feeds)
            now = time.perf_counter()
            times.append((now - started) * 1e3)
            if now - shown > 0.2:
                bar.update(task, completed=len(times))
                shown = now
    return np.array(times)


def _document(
    options: argparse.Namespace,
    model: Model,
    shapes: Mapping[str, Shape],
    times: NDArray[np.float64],
    profile: list[StepProfile],
) -> dict[str, Any]:
    peak = model.threads * kernels.load("peak", model.isa).gflops()
    median = float(np.median(times))
    pictures = next(iter(shapes.values()))[0] if shapes else 1
    work = sum(step.multiply_adds for step in profile)
    spent = sum(step.ms for step in profile)
    return {
        "model": options.model,
        "name": model.graph.name,
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        "threads": model.threads,
        "isa": model.isa,
        "tuned": options.tune,
        "runs": len(times),
        "min_ms": float(times.min()),
        "median_ms": median,
        "p90_ms": float(np.percentile(times, 90)),
        "pictures_per_second": 1e3 * pictures / median,
        "multiply_adds": work,
        "gflops": 2e-6 * work / median,
        "peak_gflops": peak,
        "layers": [
            {
                "name": step.name,
                "operator": step.op,
                "algorithm": step.algorithm,
                "ms": step.ms,
                "share": step.ms / spent if spent else 0.0,
                "multiply_adds": step.multiply_adds,
                "gflops": step.gflops,
                "peak_share": step.gflops / peak,
                "bytes": step.bytes,
            }
            for step in profile
            if options.layers
        ],
    }


def _show(document: dict[str, Any]) -> None:
    if document["layers"]:
        columns = {
            "layer": "left",
            "operator": "left",
            "ms": "right",
            "share": "right",
            "GFLOP/s": "right",
            "of peak": "right",
            "MB": "right",
            "algorithm": "left",
        }
        rows = [
            (
                layer["name"],
                layer["operator"],
                f"{layer['ms']:.4f}",
                f"{layer['share']:.1%}",
                f"{layer['gflops']:.1f}" if layer["multiply_adds"] else "",
                f"{layer['peak_share']:.0%}" if layer["multiply_adds"] else "",
                f"{layer['bytes'] / 1e6:.2f}",
                layer["algorithm"],
            )
            for layer in document["layers"]
        ]
        print_table(columns, rows)
    shapes = (
        f"{name} {shape_text(tuple(shape))}"
        for name, shape in document["shapes"].items()
    )
    threads = document["threads"]
    print_lines(
        {
            "model": f"{document['name']}: {', '.join(shapes)}",
            "on": f"{document['isa']}, {threads} thread{'s' * (threads > 1)}"
            + ", tuned" * document["tuned"],
            "runs": str(document["runs"]),
            "median": f"{document['median_ms']:.4f} ms",
            "minimum": f"{document['min_ms']:.4f} ms",
            "90 %": f"{document['p90_ms']:.4f} ms or less",
            "rate": f"{document['pictures_per_second']:.1f} pictures/s, "
            f"{document['gflops']:.1f} GFLOP/s",
            "peak": f"{document['peak_gflops']:.0f} GFLOP/s, measured on this machine",
        }
    )


if __name__ == "__main__":
    sys.exit(main())
