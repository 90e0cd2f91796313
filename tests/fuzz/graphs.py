"""Random networks: what a model computes against the reference.

``python -m tests.fuzz.graphs --graphs 1000 --seed 7`` from the project's root runs them
and prints how many there were and how many were wrong, which is none. Of each network
these are compared:

- every output with the reference in float64;
- one thread, two threads and each picture of the batch alone: the same bits;
- every value of every layer, asked for by name, with the reference;
- of some, what comes out of a model file, out of ONNX Runtime after an export to ONNX
  (unless it refuses that), and out of the network that is made of the export again.

Rounding errors of a network cannot be bounded usefully in advance. So the reference
runs in float32 too, on feeds that are off by a little and with every layer's result off
by what rounding its largest operand would do, and a value may be off by `SPREAD` times
what that one is off, or by some units in the last place of the largest number on the
way to it, where that one is off by less.
"""

import argparse
import importlib
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from striate import Model, kernels, load, save
from striate.errors import UnsupportedModelError
from striate.tools import convert
from striate.tools.to_onnx.model import to_onnx

from .isolated import isolated
from .models import by_onnx_runtime
from .networks import network

SPREAD = 64.0
"""How much more than the float32 reference a value may be off.

The order of the sums differs, and Winograd's products are larger than their result.
"""

DISTURBANCE = 2.0**-20
"""By how much feeds are changed to see how much a network enlarges errors."""

UNIT = 2.0**-24
"""Half a unit in the last place of one."""

FLOOR = 64 * UNIT
"""Of the largest number on the way to a value: what it may be off in any case."""

CACHES = (1 << 11, 1 << 13, 1 << 15, 1 << 20)
"""Sizes of the second-level cache, so that small networks run strip by strip too."""


MANY = 1 << 20
"""More tiles than any small network has: no Winograd."""


winograd = importlib.import_module("striate.algorithms.winograd")
winograd_row = importlib.import_module("striate.algorithms.winograd_row")


class Wrong(Exception):
    """A model's answer is not what was wanted."""


def check(seed, index):
    """Return what is wrong with the network of that number, or ""."""
    graph, feeds, d = network(seed, index)
    kernels.LEVEL2_BYTES = d.one_of(*CACHES)
    winograd.LEAST_CHANNELS = d.one_of(1, 16)
    winograd.LEAST_TILES = d.one_of(1, MANY)
    winograd.LEAST_STRIDED_TILES = d.one_of(1, MANY)
    winograd.LEAST_STRIDED_CHANNELS = winograd.LEAST_STRIDED_PAIRS = 1
    winograd.MOST_STRIDED_PRODUCTS = 100
    winograd_row.LEAST_OUTPUTS = d.one_of(1, MANY)
    winograd_row.LEAST_SAVED = dict.fromkeys((4, 8, 16), 1)
    winograd_row.LEAST_PIXELS = winograd_row.LEAST_ALONE = d.one_of(1, 4)
    try:
        with np.errstate(all="ignore"):
            _check(graph, feeds, d)
    except Wrong as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _check(graph, feeds, d):
    names = [value for node in graph.nodes for value in node.outputs]
    precise = {name: x.astype(np.float64) for name, x in feeds.items()}
    wanted = graph.reference(precise, names)
    rounded = disturbed_reference(graph, feeds)
    with Model(graph, threads=2) as model:
        model._poison = True
        alone = run(model, feeds, 1)
        largest = largest_so_far(graph, precise | wanted)
        compare(alone, wanted, rounded, largest)
        same(run(model, feeds, 2), alone, "two threads")
        compare(model.run(feeds, names), wanted, rounded, largest, ", by name")
        batch = next(iter(feeds.values())).shape[0]
        if batch > 1 and graph.inputs[0].shape[0] == "N":
            parts = [
                run(model, {n: x[i : i + 1] for n, x in feeds.items()}, 1)
                for i in range(batch)
            ]
            whole = {
                name: np.concatenate([part[name] for part in parts]) for name in alone
            }
            same(whole, alone, "one picture at a time")
    if d.chance(0.08):
        through_onnx(graph, feeds, wanted, rounded, largest)
    if d.chance(0.05):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.h5"
            save(graph, path)
            with load(path, max_activation_bytes=1 << 50) as model:
                same(run(model, feeds, 1), alone, "from a file")


def through_onnx(graph, feeds, wanted, rounded, largest):
    """Compare what ONNX Runtime and a graph read back make of the network."""
    try:
        exported = to_onnx(graph)
        back = convert(exported, io="source")
    except UnsupportedModelError:
        return
    found, refusal = by_onnx_runtime(exported, feeds)
    if "invalid model" in refusal.lower():
        raise Wrong(f"the export is refused: {refusal[:300]}")
    compare(found or {}, wanted, rounded, largest, " by ONNX Runtime")
    order = back.metadata["conversion"]["order"]
    given = {entry.name: feeds[order[entry.name]["source"]] for entry in back.inputs}
    with Model(back, threads=1) as model:
        again = {order[name]["source"]: y for name, y in model.run(given).items()}
    compare(again, wanted, rounded, largest, " out of and back into ONNX")


def run(model, feeds, threads):
    """Return the outputs, computed by so many threads however little there is to do."""
    shapes = tuple(x.shape for x in feeds.values())
    model._prepared(shapes, None).plan.threads = threads
    return model.run(feeds)


def disturbed_reference(graph, feeds):
    """Return all values in float32, with every layer off by a little."""
    rng = np.random.default_rng(1)

    def near(x, size):
        if x.dtype.kind != "f" or not np.isfinite(size):
            return x
        return x + np.float32(size) * rng.uniform(-1, 1, x.shape).astype(np.float32)

    values = {n: near(x, DISTURBANCE * greatest(x)) for n, x in feeds.items()}
    for node in graph.nodes:
        graph.evaluate([node], values)
        size = UNIT * max(
            greatest(values[name]) for name in (*node.reads, *node.outputs)
        )
        values |= {name: near(values[name], size) for name in node.outputs}
    return values


def greatest(x):
    """Return the largest finite magnitude."""
    return np.abs(x[np.isfinite(x)]).max(initial=0)


def largest_so_far(graph, values):
    """Return for each value the largest number among it and what it depends on."""
    largest = {name: greatest(x) for name, x in values.items()}
    for node in graph.nodes:
        before = [largest[name] for name in node.reads]
        largest |= {name: max(largest[name], *before, 0) for name in node.outputs}
    return largest


def compare(found, wanted, rounded, largest, what=""):
    """Raise `Wrong` if a value is further off than rounding explains."""
    for name, have in found.items():
        want, near = wanted[name], rounded[name]
        if have.shape != want.shape:
            raise Wrong(f"{name}{what}: shape {have.shape}, wanted {want.shape}")
        error = np.abs(have - want)
        finite = np.isfinite(want) & np.isfinite(near)
        limit = SPREAD * np.abs(near - want)[finite].max(initial=0)
        limit += FLOOR * largest[name]
        wrong = ~(error <= limit) & finite
        wrong |= np.isnan(want) != np.isnan(have)
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise Wrong(
                f"{name}{what}: {int(wrong.sum())} of {want.size} off, at {at} found "
                f"{have[at]:.9g}, wanted {want[at]:.9g}, allowed {limit:.2g}"
            )


def same(found, wanted, what):
    """Raise `Wrong` if an output has other bits."""
    for name, have in found.items():
        if have.tobytes() != wanted[name].tobytes():
            off = np.abs(have - wanted[name]).max()
            raise Wrong(f"{name}, {what}: other bits, by up to {off:.3g}")


def fuzz(graphs, seed, first=0):
    """Yield (number, what is wrong or "") of every network."""
    calls = ((seed, index) for index in range(first, first + graphs))
    for (_, index), text, ended in isolated(check, calls):
        yield index, ended or text


def main(arguments=None):
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--show", action="store_true", help="print the layers too")
    options = parser.parse_args(arguments)
    layers = Counter()
    wrong = count = 0
    for index, text in fuzz(options.graphs, options.seed, options.first):
        graph, feeds, _ = network(options.seed, index)
        layers.update(type(node.op).__name__ for node in graph.nodes)
        count += 1
        if text:
            wrong += 1
            sys.stderr.write(f"seed {options.seed} graph {index}: {text}\n")
        if options.show:
            lines = [f"{n.name}: {n.op} of {', '.join(n.inputs)}" for n in graph.nodes]
            shapes = {name: x.shape for name, x in feeds.items()}
            sys.stdout.write("\n".join([f"{shapes} {graph.inputs}", *lines, ""]))
    kinds = ", ".join(f"{op} {n}" for op, n in layers.most_common())
    sys.stdout.write(f"{count} networks, {wrong} wrong; layers: {kinds}\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
