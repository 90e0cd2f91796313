"""What a fresh process spends on a network: time to the first answer, and memory.

    python benchmarks/fresh.py
    python benchmarks/fresh.py --nets resnet50 --rounds 9 --runtimes striate,ncnn,MNN
    python benchmarks/fresh.py --json > fresh.json

Every figure comes from a process of its own, which imports one runtime and opens a file
that this runtime has made beforehand; `peers.py` says how. Files are in the page cache.
Processes take turns, one round is not counted, and figures are medians of the rounds.
Each round has an order of its own: on a virtual machine whoever comes after a slow one
may have to wait for memory that the system gave back to the host meanwhile.

import    milliseconds of the import in an interpreter that has imported nothing else;
          beside it stands ``import numpy``
load      milliseconds to open the file
first     milliseconds of the first run
answer    both: from the file to the first answer
start     from the start of the process to the first answer, interpreter and all
peak      megabytes of the process' peak resident memory over what it had after the
          import, once it has opened the file and run it 20 times
total     megabytes of that peak, with the interpreter and the import
private   the peak over the import without pages of files, which processes share and
          the system can take back; sampled from outside each millisecond, so a
          shorter peak is missed
files     resident pages of files at the end, over those after the import

Runtimes also stand here with files that start faster. "onnxruntime-optimised" and
"onnxruntime-ort" load a graph that was optimised on this machine; "openvino-cached"
finds the compiled model in its cache; "striate-cached" maps its packed weights;
"striate-unverified" does not compute the file's checksums.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from peers import (
    RUNTIMES,
    Runtime,
    network,
    onnxruntime_file,
    openvino_file,
    own_file,
    striate_file,
    with_onnxruntime,
    with_openvino,
    with_striate,
)

OURS = "striate"

ENTRANTS = {
    "striate": RUNTIMES["striate"],
    "striate-unverified": Runtime(
        "striate", striate_file, partial(with_striate, verify=False)
    ),
    "striate-cached": Runtime(
        "striate", striate_file, partial(with_striate, cache=True)
    ),
    "onnxruntime": RUNTIMES["onnxruntime"],
    "onnxruntime-optimised": Runtime(
        "onnxruntime",
        partial(onnxruntime_file, suffix=".onnx"),
        partial(with_onnxruntime, optimise=False),
    ),
    "onnxruntime-ort": Runtime(
        "onnxruntime",
        partial(onnxruntime_file, suffix=".ort"),
        partial(with_onnxruntime, optimise=False),
    ),
    "openvino": RUNTIMES["openvino"],
    "openvino-cached": Runtime(
        "openvino", openvino_file, partial(with_openvino, cache=True)
    ),
    "ncnn": RUNTIMES["ncnn"],
    "MNN": RUNTIMES["MNN"],
    "torch": RUNTIMES["torch"],
}

RUNS = 20
"""Runs of a network before the memory is read."""

SAMPLE_SECONDS = 0.001


def resident(process: int | str = "self") -> dict[str, float]:
    """Return the lines of a process' status that are in kB, as megabytes."""
    found = {}
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            found[name] = int(value.split()[0]) * 1.024e-3
    return found


def child(task: dict[str, Any]) -> dict[str, float]:
    """Open a file in this process, run it, and return what it took."""
    runtime = ENTRANTS[task["entrant"]]
    import_module(runtime.module)
    import numpy as np

    shape = tuple(task["shape"])
    x = np.random.default_rng(1).standard_normal(shape, np.float32)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident()
    start = time.perf_counter()
    run = runtime.load(Path(task["file"]), shape, task["threads"])
    loaded = time.perf_counter()
    run(x)
    answered = time.perf_counter()
    since_start = time.monotonic() - task["started"]
    for _ in range(RUNS - 1):
        run(x)
    after = resident()
    return {
        "load": 1e3 * (loaded - start),
        "first": 1e3 * (answered - loaded),
        "answer": 1e3 * (answered - start),
        "start": 1e3 * since_start,
        "peak": after["VmHWM"] - before["VmRSS"],
        "total": after["VmHWM"],
        "private_before": before["RssAnon"],
        "files": after["RssFile"] - before["RssFile"],
    }


def spawned(task: dict[str, Any], sample: bool) -> dict[str, float]:
    """Return what a child process says; with `sample`, its private peak as well.

    Raises
    ------
    RuntimeError
        If it fails.
    """
    task["started"] = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, __file__, "--child", json.dumps(task)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    private = 0.0
    while sample and process.poll() is None:
        try:
            private = max(private, resident(process.pid).get("RssAnon", 0.0))
        except OSError:
            break
        time.sleep(SAMPLE_SECONDS)
    out, err = process.communicate()
    if process.returncode:
        raise RuntimeError((err.strip().splitlines() or ["no reason given"])[-1])
    figures: dict[str, float] = json.loads(out.splitlines()[-1])
    before = figures.pop("private_before")
    if sample:
        figures["private"] = private - before
    return figures


def import_ms(module: str) -> float:
    """Return how long a fresh interpreter takes to import a module."""
    code = (
        f"import time; start = time.perf_counter(); import {module}; "
        "print(1e3 * (time.perf_counter() - start))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return float(done.stdout.splitlines()[-1])


def imports(modules: list[str], rounds: int) -> dict[str, float]:
    """Return the milliseconds of each import, taking turns."""
    times: dict[str, list[float]] = {module: [] for module in modules}
    for counted in range(rounds + 1):
        for module in modules:
            spent = import_ms(module)
            if counted:
                times[module].append(spent)
    return {module: median(spent) for module, spent in times.items()}


def measured(name: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the figures of one network by entrant."""
    graph = network(name)
    _, *spatial, channels = graph.inputs[0].shape
    shape = (1, channels, *spatial)
    tasks = {}
    figures: dict[str, dict[str, list[float]]] = {}
    for entrant in options.entrants:
        try:
            runtime = ENTRANTS[entrant]
            task = {
                "entrant": entrant,
                "file": str(own_file(entrant, runtime, graph, shape, options.folder)),
                "shape": shape,
                "threads": options.threads,
            }
            spawned(task, sample=False)
        except Exception as error:  # whatever another runtime may raise
            print(f"{name}: {entrant} is left out: {error}", file=sys.stderr)
            continue
        tasks[entrant] = task
        figures[entrant] = {}
    order = list(tasks.items())
    shuffle = Random(0).shuffle
    for sample in [False] * options.rounds + [True] * options.rounds:
        shuffle(order)
        for entrant, task in order:
            found = spawned(task, sample)
            memory = {"peak", "total", "private", "files"}
            for key in memory if sample else found.keys() - memory:
                figures[entrant].setdefault(key, []).append(found[key])
    return {
        entrant: {key: median(values) for key, values in found.items()}
        for entrant, found in figures.items()
    }


def least_other(figures: dict[str, dict[str, float]], key: str) -> str:
    """Return which of the others has the smallest figure; empty if there is none."""
    others = [entrant for entrant in figures if ENTRANTS[entrant].module != OURS]
    return min(others, key=lambda entrant: figures[entrant][key], default="")


def show(name: str, figures: dict[str, dict[str, float]]) -> None:
    """Print a network's table and who needs least of the others."""
    columns = ("load", "first", "answer", "start", "peak", "total", "private", "files")
    print(f"{name:22}", *(f"{column:>8}" for column in columns))
    for entrant, found in figures.items():
        print(f"{entrant:22}", *(f"{found[column]:8.1f}" for column in columns))
    for key, unit in (
        ("answer", "ms"),
        ("start", "ms"),
        ("peak", "MB"),
        ("total", "MB"),
    ):
        other = least_other(figures, key)
        if other:
            ours, theirs = figures[OURS][key], figures[other][key]
            print(
                f"{key}: {OURS} {ours:.1f} {unit}, the least of the others, {other}, "
                f"{theirs:.1f}: {theirs / ours:.2f}"
            )
    print()


def parsed() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--nets", default="resnet50,mobilenet_v2")
    parser.add_argument(
        "--runtimes",
        default=",".join(name for name in ENTRANTS if name != "torch"),
        help=f"of {', '.join(ENTRANTS)} (default: all but torch)",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, help="where to keep converted files for the next time"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    wanted = options.runtimes.split(",")
    for name in wanted:
        if name not in ENTRANTS:
            parser.error(f"{name!r} is not one of {', '.join(ENTRANTS)}")
    if OURS not in wanted:
        parser.error(
            f"{OURS} must be among the runtimes: the others are compared to it"
        )
    options.entrants = [name for name in wanted if ENTRANTS[name].installed]
    for missing in set(wanted) - set(options.entrants):
        print(f"{missing} is not installed: left out", file=sys.stderr)
    return options


def main() -> int:
    """Measure and print."""
    options = parsed()
    # Some runtimes print from C: only what is meant goes to standard output.
    report = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.stdout = report
    if options.child is not None:
        print(json.dumps(child(options.child)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        options.folder = (options.folder or Path(folder)).absolute()
        options.folder.mkdir(parents=True, exist_ok=True)
        measure(options)
    return 0


def measure(options: argparse.Namespace) -> None:
    """Measure as the options say, and print."""
    modules = ["numpy", *dict.fromkeys(ENTRANTS[n].module for n in options.entrants)]
    loading = imports(modules, options.rounds)
    if not options.json:
        print(*(f"import {module} {ms:.1f} ms" for module, ms in loading.items()))
        print()
    results = {}
    for name in options.nets.split(","):
        results[name] = measured(name, options)
        if not options.json:
            show(name, results[name])
    if options.json:
        print(json.dumps({"threads": options.threads, "import": loading, **results}))


if __name__ == "__main__":
    sys.exit(main())
