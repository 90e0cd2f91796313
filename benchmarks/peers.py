"""The runtimes that are compared: how each gets its own file, and how it runs it.

Every one is given the same ONNX file, channels first, whose batch is free. It is
converted with the runtime's own tool, told the input's shape by the runtime's own
means, and run in float32 with the number of threads that is asked for. Whatever else a
runtime offers for speed on a CPU is on. Nothing is imported before it is needed.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

Run = Callable[[Any], Any]
"""A function of a channels-first batch that returns the first output."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Runtime:
    """A runtime and the file it likes best.

    Parameters
    ----------
    module : str
        What is imported; also the name under which it is installed.
    convert : callable
        Makes the runtime's file of an ONNX file, for inputs of a shape.
    load : callable
        Returns the run of that file, with a number of threads.
    """

    module: str
    convert: Callable[[Path, Shape], Path]
    load: Callable[[Path, Shape, int], Run]

    @property
    def installed(self) -> bool:
        """Whether it can be imported."""
        return importlib.util.find_spec(self.module) is not None


def network(name: str) -> Any:
    """Return an architecture with seeded weights, as a striate graph of one output."""
    from striate.models.architectures import ARCHITECTURES

    graph = ARCHITECTURES[name](seed=0)
    return graph.until(graph.outputs[:1])


def own_file(
    entrant: str, runtime: Runtime, graph: Any, shape: Shape, at: Path
) -> Path:
    """Return a runtime's file of a network, made if the folder `at` has none yet.

    Parameters
    ----------
    entrant : str
        What the runtime is called here.
    graph : Graph
        The network.
    shape : tuple of int
        Of its input, channels first.
    at : Path
        A folder for files of all networks and runtimes.
    """
    from striate.tools.to_onnx.model import save_onnx

    source = at / f"{graph.name}.onnx"
    if not source.exists():
        save_onnx(graph, source, io="channels_first")
    folder = at / f"{graph.name}-{shape[0]}-{entrant}"
    done = folder / "file"
    if not done.exists():
        folder.mkdir(exist_ok=True)
        own = folder / source.name
        if not own.exists():
            own.hardlink_to(source)
        done.write_text(runtime.convert(own, shape).name)
    return folder / done.read_text()


def unchanged(path: Path, shape: Shape) -> Path:
    """Return the ONNX file itself."""
    return path


def striate_file(path: Path, shape: Shape) -> Path:
    """Write striate's file, its arrays in the source's order."""
    import striate
    from striate.tools import convert

    written = path.with_suffix(".h5")
    striate.save(convert(path, io="source"), written)
    return written


def with_striate(
    path: Path,
    shape: Shape,
    threads: int,
    isa: str | None = None,
    verify: bool = True,
    cache: bool = False,
) -> Run:
    """Return striate's run; with `cache` it keeps packed weights beside the file."""
    import striate

    folder = path.parent if cache else None
    return striate.load(path, threads=threads, isa=isa, verify=verify, cache=folder)


def with_onnxruntime(
    path: Path, shape: Shape, threads: int, optimise: bool = True
) -> Run:
    """Return ONNX Runtime's run, all its optimisations on unless the file has them."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_free_dimension_override_by_name("N", shape[0])
    if not optimise:
        off = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = off
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    entry, result = session.get_inputs()[0].name, [session.get_outputs()[0].name]
    return lambda x: session.run(result, {entry: x})[0]


def onnxruntime_file(path: Path, shape: Shape, suffix: str) -> Path:
    """Write the graph as ONNX Runtime has optimised it for this machine."""
    import onnxruntime

    written = path.with_name(f"{path.stem}_optimised{suffix}")
    options = onnxruntime.SessionOptions()
    options.add_free_dimension_override_by_name("N", shape[0])
    options.optimized_model_filepath = str(written)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return written


def openvino_file(path: Path, shape: Shape) -> Path:
    """Write OpenVINO's intermediate representation, weights in float32."""
    import openvino

    model = openvino.Core().read_model(str(path))
    model.reshape(list(shape))
    written = path.with_suffix(".xml")
    openvino.save_model(model, str(written), compress_to_fp16=False)
    return written


def with_openvino(path: Path, shape: Shape, threads: int, cache: bool = False) -> Run:
    """Return OpenVINO's run, tuned for latency, in float32, sharing our arrays.

    With `cache` it keeps the compiled model beside the file.
    """
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    if cache:
        settings["CACHE_DIR"] = str(path.parent / "openvino")
    model = openvino.Core().compile_model(str(path), "CPU", settings)
    request = model.create_infer_request()
    return lambda x: request.infer([x], share_inputs=True, share_outputs=True)[0]


def mnn_file(path: Path, shape: Shape) -> Path:
    """Write MNN's file with its own converter.

    Not with its command, which installs a package to report each conversion with.
    """
    written = path.with_suffix(".mnn")
    convert = "import sys, _tools; _tools.mnnconvert(sys.argv)"
    command = [sys.executable, "-c", convert, "-f", "ONNX", "--bizCode", "peers"]
    command += ["--modelFile", str(path), "--MNNModel", str(written)]
    subprocess.run(command, check=True, capture_output=True)
    return written


def with_mnn(path: Path, shape: Shape, threads: int) -> Run:
    """Return MNN's run, in full precision."""
    import MNN
    import numpy as np

    interpreter = MNN.Interpreter(str(path))
    settings = {"numThread": threads, "backend": "CPU", "precision": "high"}
    session = interpreter.createSession(settings)
    entry = interpreter.getSessionInput(session)
    order = MNN.Tensor_DimensionType_Caffe
    if tuple(entry.getShape()) != shape:
        interpreter.resizeTensor(entry, shape)
        interpreter.resizeSession(session)

    def run(x: Any) -> Any:
        entry.copyFrom(MNN.Tensor(shape, MNN.Halide_Type_Float, x, order))
        interpreter.runSession(session)
        result = interpreter.getSessionOutput(session)
        y = np.empty(result.getShape(), np.float32)
        host = MNN.Tensor(y.shape, MNN.Halide_Type_Float, y, order)
        result.copyToHostTensor(host)
        return np.array(host.getData(), np.float32).reshape(y.shape)

    return run


def ncnn_file(path: Path, shape: Shape) -> Path:
    """Write ncnn's files with pnnx, in float32, for one picture: it has no batch."""
    import onnx

    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "AveragePool":  # pnnx does not know that it has dilations
            for attribute in node.attribute:
                if attribute.name == "dilations" and {*attribute.ints} == {1}:
                    node.attribute.remove(attribute)
                    break
    source = path.with_name(f"{path.stem}_ncnn.onnx")
    onnx.save(model, source)
    sizes = ",".join(map(str, (1, *shape[1:])))
    command = [Path(sys.executable).with_name("pnnx"), source.name, "fp16=0"]
    command.append(f"inputshape=[{sizes}]")
    subprocess.run(command, check=True, capture_output=True, cwd=path.parent)
    return source.with_suffix(".ncnn.param")


def with_ncnn(path: Path, shape: Shape, threads: int) -> Run:
    """Return ncnn's run, in float32, picture by picture."""
    import ncnn
    import numpy as np

    net = ncnn.Net()
    for storage in ("packed", "storage", "arithmetic"):
        setattr(net.opt, f"use_fp16_{storage}", False)
    net.opt.use_bf16_storage = False
    net.opt.num_threads = threads
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise RuntimeError("it cannot read what pnnx has written")

    def run(x: Any) -> Any:
        results = []
        for picture in x:
            extractor = net.create_extractor()
            extractor.input("in0", ncnn.Mat(picture))
            _, result = extractor.extract("out0")
            results.append(np.array(result))
        return np.stack(results)

    return run


def torch_file(path: Path, shape: Shape) -> Path:
    """Write the network as PyTorch traces and freezes it."""
    import torch
    from onnx_in_torch import Network

    written = path.with_suffix(".pt")
    with torch.inference_mode():
        traced = torch.jit.trace(Network(path).eval(), torch.zeros(shape))
        torch.jit.freeze(traced).save(str(written))
    return written


def with_torch(path: Path, shape: Shape, threads: int) -> Run:
    """Return PyTorch's run of a frozen network, optimised for inference."""
    import torch

    torch.set_num_threads(threads)
    with torch.inference_mode():
        module = torch.jit.optimize_for_inference(torch.jit.load(str(path)))

    def run(x: Any) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(x)).numpy()

    return run


RUNTIMES = {
    "striate": Runtime("striate", striate_file, with_striate),
    "onnxruntime": Runtime("onnxruntime", unchanged, with_onnxruntime),
    "openvino": Runtime("openvino", openvino_file, with_openvino),
    "ncnn": Runtime("ncnn", ncnn_file, with_ncnn),
    "MNN": Runtime("MNN", mnn_file, with_mnn),
    "torch": Runtime("torch", torch_file, with_torch),
}
"""Every runtime by name, each with the file it starts from as a rule."""
