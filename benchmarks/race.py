"""striate beside other runtimes: the same networks, pictures and threads, in one run.

    python benchmarks/race.py
    python benchmarks/race.py --threads 2 --nets resnet50,mobilenet_v2 --seconds 5
    python benchmarks/race.py --json > race.json

Every network is one of ``striate.models.architectures`` with seeded random weights,
exported to ONNX with channels first, which is what the others work in; striate runs the
same file, converted. Runs are interleaved, one of each in turn, after a warm-up; times
are medians over all turns. All compute in float32: OpenVINO, which takes bfloat16 where
the machine has it, is told so. Beside each time stands the largest difference of the
runtime's output from a float64 evaluation, relative to the largest output. A runtime
that is not installed is left out, and said so.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import striate
from striate import Model, kernels
from striate.models.architectures import ARCHITECTURES
from striate.tools import convert
from striate.tools.to_onnx.model import save_onnx

NETS = [
    "lenet",
    "squeezenet",
    "mobilenet_v2",
    "efficientnet_b0",
    "resnet18",
    "resnet50",
    "vgg16",
]

Run = Callable[[Any], Any]
"""A function of a channels-first batch that returns the scores."""


def with_striate(path: Path, threads: int) -> Run:
    """Return striate's run of an ONNX file, its arrays in the source's order."""
    return Model(convert(path, io="source"), threads=threads)


def with_onnxruntime(path: Path, threads: int) -> Run:
    """Return ONNX Runtime's run, all its optimisations on."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def with_openvino(path: Path, threads: int) -> Run:
    """Return OpenVINO's run, tuned for latency, in float32."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    model = openvino.Core().compile_model(str(path), "CPU", settings)
    request = model.create_infer_request()
    return lambda x: request.infer([x])[0]


RUNTIMES = {
    "striate": with_striate,
    "onnxruntime": with_onnxruntime,
    "openvino": with_openvino,
}


def raced(runs: dict[str, Run], x: Any, seconds: float) -> dict[str, float]:
    """Return each runtime's median milliseconds over interleaved runs."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(2):
            run(x)
    gc.disable()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["striate"]) < 5:
        for name, run in runs.items():
            start = time.perf_counter()
            run(x)
            times[name].append(time.perf_counter() - start)
    gc.enable()
    return {name: 1e3 * float(np.median(spent)) for name, spent in times.items()}


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one network."""
    graph = ARCHITECTURES[name](seed=0)
    shape = (options.batch, *graph.inputs[0].shape[1:])
    picture = np.random.default_rng(1).standard_normal(shape)
    x = np.ascontiguousarray(np.moveaxis(picture, -1, 1), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        save_onnx(graph, path, io="channels_first")
        runs = {
            runtime: RUNTIMES[runtime](path, options.threads)
            for runtime in options.runtimes
        }
        times = raced(runs, x, options.seconds)
        errors = {}
        if not options.no_errors:
            precise = np.moveaxis(x, 1, -1).astype(np.float64)
            feeds = {graph.inputs[0].name: precise}
            (want,) = graph.reference(feeds).values()
            for runtime, run in runs.items():
                off = np.abs(np.asarray(run(x)) - want).max()
                errors[runtime] = float(off / np.abs(want).max())
    peers = [ms for runtime, ms in times.items() if runtime != "striate"]
    ratio = min(peers) / times["striate"] if peers else math.nan
    return {"net": name, "ms": times, "error": errors, "ratio": ratio}


def main() -> int:
    """Race and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", default=",".join(NETS), help="names, with commas")
    parser.add_argument("--runtimes", default=",".join(RUNTIMES), help="as --nets")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each network")
    parser.add_argument("--no-errors", action="store_true", help="skip float64")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    wanted = options.runtimes.split(",")
    options.runtimes = [n for n in wanted if importlib.util.find_spec(n) is not None]
    for missing in set(wanted) - set(options.runtimes):
        print(f"{missing} is not installed: left out", file=sys.stderr)
    versions = {name: version(name) for name in options.runtimes}
    about = {
        "threads": options.threads,
        "batch": options.batch,
        "isa": kernels.ISA,
        "machine": platform.machine(),
        "versions": versions | {"striate": striate.__version__},
    }
    results = []
    if not options.json:
        print(about)
    for name in options.nets.split(","):
        result = measured(name, options)
        results.append(result)
        if not options.json:
            columns = [
                f"{runtime} {ms:9.3f} ms"
                + (f" ({result['error'][runtime]:.0e})" if result["error"] else "")
                for runtime, ms in result["ms"].items()
            ]
            print(f"{name:16}", *columns, f"ratio {result['ratio']:.2f}", sep="  ")
    mean = math.exp(sum(math.log(r["ratio"]) for r in results) / len(results))
    if options.json:
        print(json.dumps({**about, "results": results, "geometric_mean": mean}))
    else:
        print(f"geometric mean against the fastest other: {mean:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
