"""striate beside other runtimes: the same networks, pictures and threads, in one run.

    python benchmarks/race.py
    python benchmarks/race.py --threads 2 --nets resnet50,mobilenet_v2 --seconds 5
    python benchmarks/race.py --batch 8 --runtimes striate,onnxruntime,openvino,ncnn
    python benchmarks/race.py --nets others --runtimes all --json > race.json
    python benchmarks/race.py --isa avx2,base --runtimes striate,onnxruntime

Every network is one of ``striate.models.architectures`` with seeded random weights,
exported to ONNX with channels first, which is what the others work in; striate runs the
same file, converted, on the same array. `peers.py` says how each is set up: float32
(OpenVINO, which takes bfloat16 where the machine has it, is told so), the same number
of threads, the batch known beforehand, telemetry off, all else that makes it fast on.

Runtimes take turns: one untimed run, then timed ones, five or as many as take 5 ms;
times are medians over all turns. Before a turn the process rests until it uses no
processor, because the idle threads of some runtimes spin for up to 50 ms after a run
and would take a core from whoever comes next.

Beside each time stands the largest difference of the runtime's output from a float64
evaluation of the graph, relative to the largest output. striate's own output is also
computed with another number of threads and must have the same bits. With several
instruction sets striate runs once on each; the first is compared with the others. A
runtime that is not installed, or cannot run a network, is left out, and said so.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import striate
from peers import RUNTIMES, Run, network, own_file, with_striate
from striate import Graph, kernels, machine
from striate.models.architectures import ARCHITECTURES

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

OURS = "striate"


def entrants(
    options: argparse.Namespace, graph: Graph, x: Any
) -> tuple[dict[str, Run], bool]:
    """Return the runs of a network by name, and if ours has the same bits on threads.

    Who cannot run the network is told on standard error.
    """
    runs: dict[str, Run] = {}
    same = True
    for name in options.runtimes:
        runtime = RUNTIMES[name]
        try:
            file = own_file(name, runtime, graph, x.shape, options.folder)
            if name == OURS:
                for isa in options.isa:
                    load = partial(with_striate, file, x.shape, isa=isa)
                    run = runs[f"{OURS} {isa}"] = load(options.threads)
                    other = load(1 if options.threads > 1 else 2)
                    same &= first(run(x)).tobytes() == first(other(x)).tobytes()
            else:
                run = runtime.load(file, x.shape, options.threads)
                run(x)
                runs[name] = run
        except Exception as error:  # whatever another runtime may raise
            if name == OURS:
                raise
            print(f"{graph.name}: {name} is left out: {error}", file=sys.stderr)
    return runs, same


def first(result: Any) -> Any:
    """Return the first output."""
    return next(iter(result.values())) if isinstance(result, dict) else result


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
    while time.perf_counter() < end or min(map(len, times.values())) < 10:
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
    graph = network(name)
    shape = (options.batch, *graph.inputs[0].shape[1:])
    picture = np.random.default_rng(1).standard_normal(shape, np.float32)
    x = np.ascontiguousarray(np.moveaxis(picture, -1, 1))
    runs, same_bits = entrants(options, graph, x)
    times = raced(runs, x, options.seconds)
    results = {runtime: np.array(first(run(x))) for runtime, run in runs.items()}
    errors = {}
    if not options.no_errors:
        feeds = {graph.inputs[0].name: picture.astype(np.float64)}
        (want,) = graph.reference(feeds).values()
        if want.ndim > 2:
            want = np.moveaxis(want, -1, 1)
        for runtime, y in results.items():
            errors[runtime] = float(np.abs(y - want).max() / np.abs(want).max())
    peers = [ms for runtime, ms in times.items() if not runtime.startswith(OURS)]
    ours = times[f"{OURS} {options.isa[0]}"]
    return {
        "net": name,
        "ms": times,
        "error": errors,
        "same_bits": same_bits,
        "ratio": min(peers) / ours if peers else None,
    }


def summary(results: list[dict[str, Any]], ours: str) -> dict[str, dict[str, Any]]:
    """Return, for the fastest other and for each, the mean and the worst ratio."""
    fastest = {r["net"]: r["ratio"] for r in results if r["ratio"] is not None}
    ratios = {"the fastest other": fastest} if fastest else {}
    for runtime in dict.fromkeys(name for r in results for name in r["ms"]):
        if runtime != ours:
            ratios[runtime] = {
                r["net"]: r["ms"][runtime] / r["ms"][ours]
                for r in results
                if runtime in r["ms"]
            }
    return {
        runtime: {
            "nets": len(found),
            "geometric_mean": math.exp(sum(map(math.log, found.values())) / len(found)),
            "worst": min(found.values()),
            "worst_net": min(found, key=lambda net: found[net]),
        }
        for runtime, found in ratios.items()
    }


def line(result: dict[str, Any]) -> str:
    """Return the figures of one network as a line."""
    columns = [f"{result['net']:16}"]
    for runtime, ms in result["ms"].items():
        error = f" ({result['error'][runtime]:.0e})" if result["error"] else ""
        columns.append(f"{runtime} {ms:9.3f} ms{error}")
    if result["ratio"] is not None:
        columns.append(f"ratio {result['ratio']:.2f}")
    if not result["same_bits"]:
        columns.append("OTHER BITS WITH OTHER THREADS")
    return "  ".join(columns)


def parsed() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--nets",
        default=",".join(NETS),
        help="names of architectures, with commas; or 'others': all but the default's "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--runtimes",
        default="striate,onnxruntime,openvino",
        help=f"of {', '.join(RUNTIMES)}, or 'all' (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument(
        "--isa",
        default=kernels.ISA,
        help=f"instruction sets of striate, of {', '.join(kernels.SUPPORTED)}; the "
        "others use the best they have (default: %(default)s)",
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="for each network")
    parser.add_argument(
        "--folder", type=Path, help="where to keep converted files for the next race"
    )
    parser.add_argument("--no-errors", action="store_true", help="skip float64")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    others = [name for name in ARCHITECTURES if name not in NETS]
    options.nets = others if options.nets == "others" else options.nets.split(",")
    options.isa = options.isa.split(",")
    wanted = options.runtimes.split(",")
    wanted = list(RUNTIMES) if wanted == ["all"] else wanted
    for given, known in (
        (options.nets, ARCHITECTURES),
        (options.isa, kernels.SUPPORTED),
        (wanted, RUNTIMES),
    ):
        for name in given:
            if name not in known:
                parser.error(f"{name!r} is not one of {', '.join(known)}")
    options.runtimes = [n for n in wanted if RUNTIMES[n].installed]
    for missing in set(wanted) - set(options.runtimes):
        print(f"{missing} is not installed: left out", file=sys.stderr)
    if OURS not in options.runtimes:
        parser.error(
            f"{OURS} must be among the runtimes: the others are compared to it"
        )
    return options


def main() -> int:
    """Race and print."""
    options = parsed()
    with tempfile.TemporaryDirectory() as folder:
        options.folder = options.folder or Path(folder)
        options.folder.mkdir(parents=True, exist_ok=True)
        race(options)
    return 0


def race(options: argparse.Namespace) -> None:
    """Race as the options say, and print."""
    # Some runtimes print from C: only what is meant goes to standard output.
    report = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    versions = {name: version(name) for name in options.runtimes}
    about = {
        "threads": options.threads,
        "batch": options.batch,
        "isa": options.isa,
        "machine": platform.machine(),
        "cpu": machine.cpu_name(),
        "versions": versions | {OURS: striate.__version__},
    }
    results = []
    if not options.json:
        print(about, file=report)
    for name in options.nets:
        result = measured(name, options)
        results.append(result)
        if not options.json:
            print(line(result), file=report)
    ours = f"{OURS} {options.isa[0]}"
    against = summary(results, ours)
    if options.json:
        document = {**about, "results": results, "against": against}
        print(json.dumps(document), file=report)
        return
    for runtime, figures in against.items():
        print(
            f"against {runtime}: geometric mean {figures['geometric_mean']:.2f} of "
            f"{figures['nets']}, worst {figures['worst']:.2f} ({figures['worst_net']})",
            file=report,
        )
    errors = {r["net"]: r["error"][ours] for r in results if r["error"]}
    if errors:
        net = max(errors, key=lambda net: errors[net])
        print(f"largest error of {ours}: {errors[net]:.1e} ({net})", file=report)


if __name__ == "__main__":
    sys.exit(main())
