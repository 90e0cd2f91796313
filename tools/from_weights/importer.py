"""Files of weights to graphs, for the architectures that striate knows."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import striate
from striate import Graph, ops
from striate.errors import SettingError, UnsupportedModelError
from striate.graph import Node
from striate.spec import Array, Shape, shape_text
from striate.tools.conversion import Progress, sha256_of
from striate.tools.from_torch.storage import refusal
from striate.tools.from_weights.pickled import read_pickled, tensors
from striate.tools.from_weights.safetensors import read_safetensors
from striate.tools.layout import inverse, last

OPERANDS = {
    "kernel": ".weight",
    "bias": ".bias",
    "gamma": ".weight",
    "beta": ".bias",
    "mean": ".running_mean",
    "variance": ".running_var",
    "y": "",
}
"""What torchvision calls a layer's operands, after the layer's name."""

PREFIXES = ("module.", "model.", "ema.", "_orig_mod.")
"""What training puts before the names of a network's weights."""

PARTS = ("state_dict", "model_state_dict", "model", "ema", "net", "module")
"""Where in a dictionary of more than weights the weights are."""

TRAINING = re.compile(r"(^|\.)num_batches_tracked$|^(aux1|aux2|AuxLogits)\.")
"""Names of what only training needs."""

OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")
"""Names that torchvision's DenseNets had at first."""


def architectures() -> Mapping[str, Callable[..., Graph]]:
    """Return the functions that build networks, by name."""
    from striate.models.architectures import ARCHITECTURES

    return ARCHITECTURES


def operators() -> list[str]:
    """Return the names of the architectures."""
    return sorted(architectures())


def from_weights(
    source: str | os.PathLike[str],
    arch: str = "",
    *,
    io: str = "channels_last",
    progress: Progress | None = None,
    **options: Any,
) -> Graph:
    """Return a network of a known architecture with the weights of a file.

    Parameters
    ----------
    source : path
        A safetensors file, or a state dictionary that `torch.save` wrote. Its names
        are torchvision's; for architectures torchvision lacks, those of our layers
        with PyTorch's ``weight``, ``bias``, ``running_mean`` and ``running_var``.
        What training adds to names is left out: ``module.``, ``model.``, ``ema.``,
        ``_orig_mod.``.
    arch : str
        A name of `striate.models.architectures.ARCHITECTURES`.
    io : str
        ``"channels_last"``: images go in and come out as (N, H, W, C).
        ``"source"``: as in PyTorch, (N, C, H, W), transposed at the boundary.
    progress : callable, optional
        Called with (weights placed, weights).
    **options
        What the architecture takes: ``image``, the size of pictures, and so on. The
        number of classes is that of the weights unless it is given.

    Raises
    ------
    ModelFormatError
        If the file is not whole, or holds more than tensors.
    SettingError
        On an unknown architecture or option.
    UnsupportedModelError
        If weights are missing, unexpected or of another shape; the message lists all.
    """
    build = _builder(arch, options)
    path = Path(source)
    named, notes = _weights(path)
    fitting = _Fitting(named, progress)
    graph = fitting.build(build, options)
    classes = fitting.classes(build)
    if classes is not None and "classes" not in options:
        fitting = _Fitting(named, progress)
        graph = fitting.build(build, {**options, "classes": classes})
    fitting.require_all(str(path), arch)
    graph = _flattened_as_stored(graph)
    orders = {entry.name: last(len(entry.shape)) for entry in graph.inputs}
    specs = graph.specs()
    orders.update({name: last(len(specs[name].shape)) for name in graph.outputs})
    if io == "source":
        graph, orders = (
            _channels_first(graph),
            {n: _plain(a) for n, a in orders.items()},
        )
    graph.provenance = {
        "name": graph.name,
        "source_framework": "weights",
        "source_format": f"{_format(path)} for {arch}",
        "source_sha256": sha256_of(path),
        "converter": f"striate {striate.__version__}",
    }
    graph.metadata["conversion"] = {
        "nodes_in": len(named),
        "nodes_out": len(graph.nodes),
        "parameters": sum(array.size for array in graph.params.values()),
        "transposes": [],
        "constants": {},
        "free": {},
        "patterns": {},
        "notes": notes,
        "order": {
            name: {"source": name, "axes": list(axes)} for name, axes in orders.items()
        },
        "layers": {},
    }
    return graph


def _plain(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(range(len(axes)))


def _builder(arch: str, options: Mapping[str, Any]) -> Callable[..., Graph]:
    """Return the function that builds an architecture, if it takes the options."""
    known = architectures()
    if arch not in known:
        asked = (
            f"architecture {arch!r}" if arch else "weights alone say no architecture"
        )
        raise SettingError(f"{asked}: wanted one of {', '.join(sorted(known))}")
    build = known[arch]
    taken = [p for p in inspect.signature(build).parameters if p != "weights"]
    for name in options:
        if name not in taken:
            raise SettingError(f"{name} makes no sense for {arch}, which takes {taken}")
    return build


def _format(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(9)
    return "safetensors" if head[8:9] == b"{" else "state dictionary"


def _weights(path: Path) -> tuple[dict[str, Array], list[str]]:
    """Return a file's weights by torchvision's names, and what to say of them."""
    notes: list[str] = []
    if _format(path) == "safetensors":
        found = read_safetensors(path)
    else:
        whole = read_pickled(path)
        if not isinstance(whole, dict):
            raise refusal(
                str(path),
                f"a {type(whole).__name__} in it, wanted a dictionary",
                "pickle",
            )
        found = tensors(whole)
        for part in PARTS:
            inner = whole.get(part)
            if isinstance(inner, dict) and tensors(inner):
                found = tensors(inner)
                notes.append(f"the weights are those under {part!r}")
                break
    named: dict[str, Array] = {}
    for key, array in found.items():
        name = _stripped(key)
        if TRAINING.search(name):
            continue
        if name in named:
            raise UnsupportedModelError(
                f"{path}: two weights are called {name!r} without what training put "
                f"before their names"
            )
        named[name] = array
    return named, notes


def _stripped(name: str) -> str:
    """Return a name without what training put before it."""
    while True:
        prefix = next((p for p in PREFIXES if name.startswith(p)), "")
        if not prefix:
            break
        name = name[len(prefix) :]
    old = OLD_DENSENET.fullmatch(name)
    return f"{old[1]}{old[2]}" if old else name


class _Fitting:
    """Weights on their way into an architecture."""

    def __init__(self, named: Mapping[str, Array], progress: Progress | None) -> None:
        self.named = named
        self.progress = progress
        self.used: set[str] = set()
        self.missing: list[str] = []
        self.wrong: dict[str, tuple[Shape, Shape]] = {}

    def build(self, build: Callable[..., Graph], options: Mapping[str, Any]) -> Graph:
        """Return the network; what does not fit is kept."""
        return build(self.weight, **options)

    def weight(self, layer: str, operand: str, shape: Shape) -> Array:
        """Return a layer's weight in our layout, zeros for one that does not fit."""
        name = f"{layer}{OPERANDS[operand]}"
        if name not in self.named:
            self.missing.append(name)
            return np.zeros(shape, np.float32)
        self.used.add(name)
        if self.progress:
            self.progress(len(self.used), len(self.named))
        array = self.named[name]
        if operand == "kernel":
            array = array.transpose((*range(2, array.ndim), *range(array.ndim)[1::-1]))
        elif operand == "y":
            array = array.reshape(-1)
        if array.shape != shape or array.dtype.kind != "f":
            self.wrong[name] = (array.shape, shape)
            return np.zeros(shape, np.float32)
        return np.ascontiguousarray(array, np.float32)

    def classes(self, build: Callable[..., Graph]) -> int | None:
        """Return how many classes the weights are for, if only that does not fit."""
        usual = inspect.signature(build).parameters.get("classes")
        last_sizes = {
            (found[-1], wanted[-1])
            for found, wanted in self.wrong.values()
            if len(found) == len(wanted) and found[:-1] == wanted[:-1]
        }
        if usual is None or len(last_sizes) != 1 or self.missing:
            return None
        found, wanted = last_sizes.pop()
        return int(found) if wanted == usual.default else None

    def require_all(self, path: str, arch: str) -> None:
        """Raise `UnsupportedModelError`, a list of all that does not fit, if any."""
        unexpected = sorted(self.named.keys() - self.used)
        lines = [f"missing: {name}" for name in self.missing]
        lines += [
            f"unexpected: {name} {shape_text(self.named[name].shape)}"
            for name in unexpected
        ]
        lines += [
            f"of another shape: {name} {shape_text(found)}, "
            f"wanted {shape_text(wanted)} (in channels-last order)"
            for name, (found, wanted) in self.wrong.items()
        ]
        if lines:
            raise UnsupportedModelError(
                "\n".join(
                    [
                        f"{path}: {len(self.missing)} weights of {arch} are missing, "
                        f"{len(unexpected)} are unexpected and {len(self.wrong)} have "
                        "another shape",
                        *lines,
                    ]
                )
            )


def _flattened_as_stored(graph: Graph) -> Graph:
    """Return the graph with dense layers that read images in the order they lie."""
    specs = graph.specs()
    made = {value: node for node in graph.nodes for value in node.outputs}
    changed: dict[str, Array] = {}
    for node in graph.nodes:
        before = made.get(node.inputs[0]) if node.inputs else None
        if not isinstance(node.op, ops.Dense) or before is None:
            continue
        if not isinstance(before.op, ops.Flatten):
            continue
        *spatial, channels = specs[before.inputs[0]].shape[1:]
        kernel = graph.params[node.params["kernel"]]
        rows = kernel.reshape(channels, *spatial, kernel.shape[-1])
        rank = rows.ndim
        order = (*range(1, rank - 1), 0, rank - 1)
        changed[node.params["kernel"]] = np.ascontiguousarray(
            rows.transpose(order)
        ).reshape(kernel.shape)
    return graph.with_nodes(graph.nodes, changed) if changed else graph


def _channels_first(graph: Graph) -> Graph:
    """Return the graph with images that go in and come out channels-first."""
    turned = Graph(graph.name)
    renamed: dict[str, str] = {}
    for entry in graph.inputs:
        order = last(len(entry.shape))
        shape = tuple(entry.shape[axis] for axis in inverse(order))
        name = turned.input(entry.name, shape, entry.dtype)
        if len(shape) > 2:
            renamed[name] = f"{name}.channels_last"
            turned.add(ops.Transpose(order), name, name=renamed[name])
    specs = graph.specs()
    images = {name for name in graph.outputs if len(specs[name].shape) > 2}
    for name in images:
        renamed[name] = f"{name}.pixels"
    for node in graph.nodes:
        outputs = tuple(renamed.get(value, value) for value in node.outputs)
        moved = Node(
            renamed.get(node.name, node.name),
            node.op,
            tuple(renamed.get(value, value) for value in node.inputs),
            node.params,
            outputs,
        )
        turned.append(moved, {t: graph.params[t] for t in node.params.values()})
    for name in graph.outputs:
        if name in images:
            order = inverse(last(len(specs[name].shape)))
            turned.add(ops.Transpose(order), renamed[name], name=name)
    turned.output(*graph.outputs)
    turned.labels = graph.labels
    turned.postprocess = graph.postprocess
    return turned
