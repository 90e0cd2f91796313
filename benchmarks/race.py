"""striate beside other runtimes: the same networks, pictures and threads, in one run.

    python benchmarks/race.py
    python benchmarks/race.py --threads 2 --nets resnet50,mobilenet_v2 --seconds 5
    python benchmarks/race.py --runtimes striate,onnxruntime,openvino,MNN,ncnn
    python benchmarks/race.py --json > race.json

Every network is one of ``striate.models.architectures`` with seeded random weights,
exported to ONNX with channels first, which is what the others work in; striate runs the
same file, converted. Runtimes take turns: one untimed run, then timed ones, five or as
many as take 5 ms; times are medians over all turns. Before a turn the process rests
until it uses no processor, because the idle threads of some runtimes spin for up to
50 ms after a run and would take a core from whoever comes next. All compute in float32:
OpenVINO, which takes bfloat16 where the machine has it, is told so. Beside each time
stands the largest difference of the runtime's output from a float64 evaluation,
relative to the largest output. A runtime that is not installed, or cannot run a
network, is left out, and said so.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
import os
import platform
import subprocess
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

RUNS_A_TURN = 5
SECONDS_A_TURN = 0.005

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


def with_mnn(path: Path, threads: int) -> Run:
    """Return MNN's run of the file, converted by its own tool, in full precision."""
    import MNN

    converted = path.with_suffix(".mnn")
    command = [Path(sys.executable).with_name("mnnconvert"), "-f", "ONNX"]
    command += ["--modelFile", path, "--MNNModel", converted, "--bizCode", "race"]
    subprocess.run(command, check=True, capture_output=True)
    interpreter = MNN.Interpreter(str(converted))
    settings = {"numThread": threads, "backend": "CPU", "precision": "high"}
    session = interpreter.createSession(settings)
    entry = interpreter.getSessionInput(session)
    order = MNN.Tensor_DimensionType_Caffe

    def run(x: Any) -> Any:
        if tuple(entry.getShape()) != x.shape:
            interpreter.resizeTensor(entry, x.shape)
            interpreter.resizeSession(session)
        entry.copyFrom(MNN.Tensor(x.shape, MNN.Halide_Type_Float, x, order))
        interpreter.runSession(session)
        result = interpreter.getSessionOutput(session)
        shape = result.getShape()
        y = np.empty(shape, np.float32)
        host = MNN.Tensor(shape, MNN.Halide_Type_Float, y, order)
        result.copyToHostTensor(host)
        return np.array(host.getData(), np.float32).reshape(shape)

    return run


def with_ncnn(path: Path, threads: int) -> Run:
    """Return ncnn's run of the file, converted by pnnx, in float32."""
    import ncnn
    import onnx

    (entry,) = onnx.load(path).graph.input
    sizes = [str(d.dim_value or 1) for d in entry.type.tensor_type.shape.dim]
    command = [Path(sys.executable).with_name("pnnx"), path.name, "fp16=0"]
    command.append(f"inputshape=[{','.join(sizes)}]")
    subprocess.run(command, check=True, capture_output=True, cwd=path.parent)
    net = ncnn.Net()
    for storage in ("packed", "storage", "arithmetic"):
        setattr(net.opt, f"use_fp16_{storage}", False)
    net.opt.use_bf16_storage = False
    net.opt.num_threads = threads
    if net.load_param(str(path.with_suffix(".ncnn.param"))):
        raise RuntimeError("it does not know all layers that pnnx has written")
    net.load_model(str(path.with_suffix(".ncnn.bin")))

    def run(x: Any) -> Any:
        if len(x) != 1:
            return np.concatenate([run(each[None]) for each in x])
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(x[0]))
        _, result = extractor.extract("out0")
        return np.array(result)[None]

    return run


RUNTIMES = {
    "striate": with_striate,
    "onnxruntime": with_onnxruntime,
    "openvino": with_openvino,
    "MNN": with_mnn,
    "ncnn": with_ncnn,
}


def prepared(runtime: str, path: Path, threads: int, x: Any) -> Run | None:
    """Return a runtime's run of a file; None, and say so, if it cannot run it."""
    try:
        run = RUNTIMES[runtime](path, threads)
        run(x)
    except Exception as error:  # whatever another runtime may raise
        print(f"{path.stem}: {runtime} is left out: {error}", file=sys.stderr)
        return None
    return run


def rest() -> None:
    """Wait until no thread of this process is spinning."""
    for _ in range(50):
        before = time.process_time()
        time.sleep(0.01)
        if time.process_time() - before < 0.001:
            return


def raced(runs: dict[str, Run], x: Any, seconds: float) -> dict[str, float]:
    """Return each runtime's median milliseconds over their turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(2):
            run(x)
    gc.disable()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["striate"]) < 10:
        for name, run in runs.items():
            rest()
            run(x)
            turn: list[float] = []
            while len(turn) < RUNS_A_TURN or sum(turn) < SECONDS_A_TURN:
                start = time.perf_counter()
                run(x)
                turn.append(time.perf_counter() - start)
            times[name] += turn
    gc.enable()
    return {name: 1e3 * float(np.median(spent)) for name, spent in times.items()}


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one network."""
    graph = ARCHITECTURES[name](seed=0)
    shape = (options.batch, *graph.inputs[0].shape[1:])
    picture = np.random.default_rng(1).standard_normal(shape)
    x = np.ascontiguousarray(np.moveaxis(picture, -1, 1), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.onnx"
        save_onnx(graph, path, io="channels_first")
        runs = {}
        for runtime in options.runtimes:
            run = prepared(runtime, path, options.threads, x)
            if run is not None:
                runs[runtime] = run
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
    parser.add_argument(
        "--runtimes",
        default="striate,onnxruntime,openvino",
        help=f"of {', '.join(RUNTIMES)} (default: %(default)s); MNN prints on its own",
    )
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
