"""The golden files: a small model of each kind, kept for ever as it was written.

``python -m tests.golden_files`` writes those of `MODELS` that ``golden/`` lacks; none
is ever written again. Most hold examples, so what they must compute is in the file.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import striate
from striate import Graph, Postprocess, Preprocess, Quantisation, Resize, ops

FOLDER = Path(__file__).with_name("golden")
LIST = FOLDER / "files.json"
MODELS = {}


def golden(build):
    """Register a function that returns a graph and the options of saving it."""
    MODELS[build.__name__] = build
    return build


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def conv_net(name="pictures"):
    """Return a small network for pictures."""
    graph = Graph(name)
    x = graph.input("image", ("N", 8, 8, 3))
    conv = ops.Conv(padding=((1, 1), (1, 1)))
    kernel, bias = normal(3, 3, 3, 8), normal(8, seed=1)
    x = graph.add(conv, x, name="conv1", kernel=kernel, bias=bias)
    x = graph.add(ops.Relu(), x, name="relu1")
    x = graph.add(ops.MaxPool(kernel=(2, 2), stride=(2, 2)), x, name="pool1")
    x = graph.add(ops.GlobalAveragePool(), x, name="pool2")
    kernel, bias = normal(8, 3, seed=2), normal(3, seed=3)
    graph.output(graph.add(ops.Dense(), x, name="fc", kernel=kernel, bias=bias))
    return graph


def picture():
    return {"image": normal(2, 8, 8, 3, seed=4)}


@golden
def pictures():
    """A network with labels, preprocessing and everything that is said of it."""
    graph = conv_net()
    graph.labels = ("left", "right", "\u00fc")
    graph.preprocess = Preprocess(resize=Resize("exact", (8, 8)), scale=0.1)
    graph.postprocess = Postprocess("fc", top=2)
    graph.provenance = {"licence": "Apache-2.0", "authors": ["\u00e9"]}
    graph.metadata = {"numbers": [1, 2.5, None, True], "text": "\u2028"}
    return graph, {"examples": [picture()]}


@golden
def quantised():
    """Weights as whole numbers: of one scale, of one a channel, with zero points."""
    graph = conv_net("quantised")
    scale = np.linspace(0.01, 0.05, 3, dtype=np.float32)
    zero = np.array([100, 128, 255], np.int32)
    schemes = {
        "conv1/kernel": Quantisation.fitting(graph.params["conv1/kernel"], axis=3),
        "conv1/bias": Quantisation("int32", np.float32(1e-6), np.int32(0).reshape(())),
        "fc/kernel": Quantisation("uint8", scale, zero, axis=1),
        "fc/bias": Quantisation.fitting(graph.params["fc/bias"]),
    }
    for name, scheme in schemes.items():
        graph.params[name] = scheme.rounded(graph.params[name])
    return graph, {"quantised": schemes, "examples": [picture()]}


@golden
def bfloat16():
    """Weights of two bytes."""
    graph = conv_net("bfloat16")
    for name, array in graph.params.items():
        bits = array.view(np.uint32) & np.uint32(0xFFFF0000)
        graph.params[name] = bits.view(np.float32)
    return graph, {"bfloat16": list(graph.params), "examples": [picture()]}


@golden
def types():
    """A weight of each type."""
    graph = Graph("types")
    numbers = np.array([[-3, 0, 1], [2, 100, 127]])
    for dtype in ("float32", "float16", "int8", "uint8", "int32", "int64", "bool"):
        value = (np.abs(numbers) if dtype == "uint8" else numbers).astype(dtype)
        graph.output(graph.add(ops.Constant(), name=f"a_{dtype}", value=value))
    graph.output(graph.add(ops.Constant(), name="scalar", value=np.float32(2.5)))
    return graph, {"examples": [{}]}


@golden
def sequences():
    """One spatial axis, free sizes, a recurrent layer."""
    graph = Graph("sequences")
    x = graph.input("sound", ("N", "L", 4))
    x = graph.add(ops.Conv(), x, name="conv1", kernel=normal(3, 4, 6))
    w, r = normal(1, 12, 6, seed=1), normal(1, 12, 3, seed=2)
    lstm = ops.LSTM(hidden_size=3, batch_first=True)
    x = graph.add(lstm, x, name="lstm", outputs=("all", "last", "cell"), w=w, r=r)[0]
    graph.output(x, "last")
    sounds = [{"sound": normal(1, n, 4, seed=n)} for n in (5, 9)]
    return graph, {"examples": sounds}


@golden
def volumes():
    """Three spatial axes, two inputs, several outputs, a shared weight."""
    graph = Graph("volumes")
    x = graph.input("volume", ("N", 4, 4, 4, 2))
    factor = graph.input("factor", ("N", 2))
    y = graph.add(ops.Conv(), x, name="conv1", kernel=normal(2, 2, 2, 2, 4))
    z = graph.add(ops.Conv(), x, name="conv2", kernel="conv1/kernel")
    graph.add(ops.Split(sizes=(2, 2)), z, name="cut", outputs=("front", "back"))
    y = graph.add(ops.GlobalAveragePool(), "front", name="mean")
    graph.output(graph.add(ops.Mul(), y, factor, name="scaled"), "back")
    feeds = {"volume": normal(1, 4, 4, 4, 2, seed=1), "factor": normal(1, 2, seed=2)}
    return graph, {"examples": [feeds]}


@golden
def indices():
    """Whole numbers and truth values as inputs, and an output of unknown size."""
    graph = Graph("indices")
    x = graph.input("x", ("N", 4))
    rows = graph.input("rows", ("N",), "int64")
    some = graph.add(ops.Gather(1), x, name="some", indices=np.int64([3, -4, 1]))
    mask = np.array([True, False, True])
    some = graph.add(ops.Where(), some, name="chosen", condition=mask, y=np.float32(-1))
    kept = graph.add(ops.NonZero(), some, name="kept")
    graph.output(some, graph.add(ops.Add(), rows, name="next", y=np.int64([1])), kept)
    feeds = {"x": np.float32([[1, 2, 3, 0]]), "rows": np.int64([2**62])}
    return graph, {"examples": [feeds]}


@golden
def many_layers():
    """More layers than a group's header has room for: links in a heap."""
    graph = Graph("many layers")
    x = graph.input("x", ("N", 2))
    for number in range(60):
        slope = np.float32([1 + number / 64, 1])
        x = graph.add(ops.Mul(), x, name=f"layer_with_a_long_name_{number:03}", y=slope)
    graph.output(x)
    return graph, {"examples": [{"x": np.float32([[1, -1]])}]}


@golden
def no_weights():
    """Nothing but an operator."""
    graph = Graph("no weights")
    graph.output(graph.add(ops.Relu(), graph.input("x", ("N", 3)), name="relu"))
    return graph, {}


def main():
    """Write the files that are missing, and their list."""
    known = json.loads(LIST.read_text()) if LIST.exists() else {}
    for name, build in MODELS.items():
        path = FOLDER / f"{name}.h5"
        if name not in known:
            graph, options = build()
            model_id = striate.save(graph, path, **options)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            known[name] = {"model_id": model_id, "sha256": digest}
    LIST.write_text(json.dumps(known, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
