"""What runtimes do where a service gets hurt, each asked by the same script.

    python benchmarks/trust.py
    python benchmarks/trust.py --runtimes striate,onnxruntime --probes fork,bits --json

Every probe runs in a process of its own, with a time limit; one that does not come back
is reported as hanging. The network is six 3x3 convolutions of 64 channels with ReLU, of
open sizes, the same weights for all, in float32. Runtimes have their default settings
but for the number of threads, where a probe is about threads.

load      threads and open files that importing and loading leave behind
pool      threads of the process after a run with default settings, on one allowed CPU
idle      percent of a CPU used in the second that begins 100 ms after a run
fork      a child made after a run with two threads: seconds to its first answer, if
          it has the parent's bits, and how many threads the child has then
callers   two threads share one loaded network for 2 s: wrong answers, of how many
bits      whether 1, 2 and 3 threads, and both halves of a batch, give the same bits
denormal  time of a run on denormal numbers over that on ordinary ones
shapes    resident memory after 300 random shapes, over that after the 20 largest
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np

Run = Callable[[Any], Any]
"""A function of a channels-first batch that returns one."""

SECONDS = 60
"""A probe that takes longer hangs."""


def network(seed: int = 0, scale: float = 1.0) -> Any:
    """Return the network as a striate graph."""
    from striate import Graph, ops

    rng = np.random.default_rng(seed)
    graph = Graph("trust")
    x = graph.input("x", ("N", "H", "W", 64))
    for index in range(6):
        kernel = scale * rng.standard_normal((3, 3, 64, 64)) / 24
        x = graph.add(ops.Conv(padding=1), x, kernel=kernel, name=f"conv{index}")
        x = graph.add(ops.Relu(), x)
    graph.output(x)
    return graph


def batch(seed: int, *shape: int) -> Any:
    """Return normal noise."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def with_striate(path: str, threads: int | None) -> Run:
    """Return striate's run."""
    import striate

    model = striate.load(path + ".h5", threads=threads)
    return lambda x: model(x)


def with_onnxruntime(path: str, threads: int | None) -> Run:
    """Return ONNX Runtime's run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        path + ".onnx", options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def with_openvino(path: str, threads: int | None) -> Run:
    """Return OpenVINO's run, in float32."""
    import openvino

    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    model = openvino.Core().compile_model(path + ".onnx", "CPU", settings)
    return lambda x: np.array(model(x)[0])


def with_torch(path: str, threads: int | None) -> Run:
    """Return PyTorch's run, eager."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    layers: list[Any] = []
    with np.load(path + ".npz") as weights:
        for index in range(6):
            conv = torch.nn.Conv2d(64, 64, 3, padding=1, bias=False)
            kernel = weights[f"conv{index}"].transpose(3, 2, 0, 1)
            conv.weight.data = torch.from_numpy(np.ascontiguousarray(kernel))
            layers += [conv, torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers).eval()

    def run(x: Any) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(x)).numpy()

    return run


RUNTIMES = {
    "striate": with_striate,
    "onnxruntime": with_onnxruntime,
    "openvino": with_openvino,
    "torch": with_torch,
}


def write_network(path: str, scale: float = 1.0) -> None:
    """Write the network as every runtime reads it, channels first."""
    import striate
    from striate.tools import convert
    from striate.tools.to_onnx.model import save_onnx

    graph = network(scale=scale)
    save_onnx(graph, path + ".onnx", io="channels_first")
    striate.save(convert(path + ".onnx", io="source"), path + ".h5")
    kernels = {f"conv{i}": graph.params[f"conv{i}/kernel"] for i in range(6)}
    np.savez(path + ".npz", **kernels)


def count(kind: str) -> int:
    """Return how many threads (``task``) or open files (``fd``) this process has."""
    return len(list(Path("/proc/self", kind).iterdir()))


def resident() -> int:
    """Return the bytes of memory this process has."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def probe_load(name: str, path: str) -> dict[str, Any]:
    """Return threads and open files that importing and loading leave behind."""
    threads, files = count("task"), count("fd")
    RUNTIMES[name](path, None)
    return {
        "threads": count("task") - threads,
        "files": count("fd") - files,
    }


def probe_pool(name: str, path: str) -> dict[str, Any]:
    """Return the threads of the process after a run, one CPU being allowed."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    run = RUNTIMES[name](path, None)
    run(batch(0, 1, 64, 56, 56))
    return {
        "threads": count("task"),
        "CPUs allowed": 1,
        "CPUs of the host": os.cpu_count(),
    }


def probe_idle(name: str, path: str) -> dict[str, Any]:
    """Return the CPU used in the second that begins 100 ms after a run."""
    run = RUNTIMES[name](path, 2)
    x = batch(0, 1, 64, 56, 56)
    for _ in range(3):
        run(x)
    time.sleep(0.1)
    before = time.process_time()
    time.sleep(1)
    return {"percent": round(100 * (time.process_time() - before), 2)}


def probe_fork(name: str, path: str) -> dict[str, Any]:
    """Return what a child made after a run with two threads does."""
    run = RUNTIMES[name](path, 2)
    x = batch(0, 1, 64, 56, 56)
    wanted = run(x).tobytes()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        start = time.perf_counter()
        same = run(x).tobytes() == wanted
        seconds = round(time.perf_counter() - start, 3)
        answer = {"seconds": seconds, "same bits": same, "threads": count("task")}
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    end = time.monotonic() + 15
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            os.close(writing)
            text = os.read(reading, 1 << 16)
            return dict(json.loads(text)) if text else {"child": "died"}
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return {"child": "hangs"}


def probe_callers(name: str, path: str) -> dict[str, Any]:
    """Return what two threads get that share one loaded network for 2 s."""
    run = RUNTIMES[name](path, 2)
    inputs = [batch(seed, 1, 64, 20 + seed, 24) for seed in range(4)]
    wanted = [run(x).copy() for x in inputs]
    counts = {"answers": 0, "wrong": 0, "errors": 0}
    end = time.monotonic() + 2

    def call(seed: int) -> None:
        draw = random.Random(seed)
        while time.monotonic() < end:
            index = draw.randrange(len(inputs))
            try:
                found = run(inputs[index])
            except Exception:
                counts["errors"] += 1
                continue
            want = wanted[index]
            counts["answers"] += 1
            close = found.shape == want.shape and np.allclose(found, want, atol=1e-4)
            counts["wrong"] += not close

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return counts


def probe_bits(name: str, path: str) -> dict[str, Any]:
    """Return whether thread counts, and halves of a batch, give the same bits."""
    x = batch(0, 2, 64, 56, 56)
    found = {}
    for threads in (1, 2, 3):
        run = RUNTIMES[name](path, threads)
        found[threads] = run(x).copy()
        halves = np.concatenate([run(x[:1]).copy(), run(x[1:].copy()).copy()])
    return {
        "threads": all(found[n].tobytes() == found[1].tobytes() for n in (2, 3)),
        "halves": halves.tobytes() == found[3].tobytes(),
    }


def probe_denormal(name: str, path: str) -> dict[str, Any]:
    """Return the time of a run on denormal numbers over that on ordinary ones."""
    x = np.abs(batch(0, 1, 64, 28, 28))
    times = {}
    for label, scale in (("ordinary", 1.0), ("denormal", 1e-39)):
        run = RUNTIMES[name](path, 1)
        given = (x * np.float32(scale)).astype(np.float32)
        run(given)
        spent = []
        for _ in range(7):
            start = time.perf_counter()
            run(given)
            spent.append(time.perf_counter() - start)
        times[label] = min(spent)
    return {"ratio": round(times["denormal"] / times["ordinary"], 2)}


def probe_shapes(name: str, path: str) -> dict[str, Any]:
    """Return memory after 300 random shapes, over that after the 20 largest."""
    rng = random.Random(1)
    shapes = [(1, 64, rng.randint(8, 96), rng.randint(8, 96)) for _ in range(300)]
    run = RUNTIMES[name](path, 1)
    for shape in sorted(shapes, key=np.prod)[-20:]:
        run(np.zeros(shape, np.float32))
    before = resident()
    for shape in shapes:
        run(np.zeros(shape, np.float32))
    return {"ratio": round(resident() / before, 3), "MB": resident() >> 20}


PROBES = {
    name.partition("_")[2]: probe
    for name, probe in list(globals().items())
    if name.startswith("probe_")
}


def asked(name: str, probe: str, path: str) -> dict[str, Any]:
    """Return what a probe finds, in a process of its own."""
    command = [sys.executable, __file__, "--ask", name, probe, path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return {"process": "hangs"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return {"process": f"ended with {done.returncode}: {last}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Ask every runtime and print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runtimes", default=",".join(RUNTIMES))
    parser.add_argument("--probes", default=",".join(PROBES))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--ask", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        name, probe, path = options.ask
        print(json.dumps(PROBES[probe](name, path)))
        return
    names = [n for n in options.runtimes.split(",") if importlib.util.find_spec(n)]
    document: dict[str, Any] = {"versions": {name: version(name) for name in names}}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "net")
        write_network(path)
        for probe in options.probes.split(","):
            document[probe] = {name: asked(name, probe, path) for name in names}
            if not options.json:
                for name, found in document[probe].items():
                    facts = ", ".join(f"{k} {v}" for k, v in found.items())
                    print(f"{probe:<9} {name:<12} {facts}", flush=True)
    if options.json:
        print(json.dumps(document, indent=1))
    else:
        print(", ".join(f"{n} {v}" for n, v in document["versions"].items()))


if __name__ == "__main__":
    main()
