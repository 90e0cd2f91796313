"""Small ONNX models, and the comparison of what becomes of them with ONNX Runtime."""

import itertools
import math

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from striate.tools import convert

TOLERANCE = 1e-5
"""Of the largest output, against a float64 evaluation: what ONNX Runtime rounds."""

node = helper.make_node


def onnx_model(
    nodes,
    inputs,
    outputs=("y",),
    opset=17,
    constants=None,
    dtypes=None,
    domains=(),
    name="net",
):
    """Return a model; the sizes of `inputs` are numbers, symbols or None."""
    dtypes = dtypes or {}
    named = []
    for i, each in enumerate(nodes):
        if each.name == "-":
            each.name = ""
        elif not each.name:
            each.name = f"{each.op_type.lower()}{i}"
        named.append(each)
    graph = helper.make_graph(
        named,
        name,
        [
            helper.make_tensor_value_info(
                key, dtypes.get(key, TensorProto.FLOAT), list(shape)
            )
            for key, shape in inputs.items()
        ],
        [
            helper.make_tensor_value_info(key, dtypes.get(key, TensorProto.FLOAT), None)
            for key in outputs
        ],
        [
            numpy_helper.from_array(np.asarray(array), key)
            for key, array in (constants or {}).items()
        ],
    )
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(domain, 1) for domain in domains]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def session(path):
    """Return ONNX Runtime on a file, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )


def feeds_of(model, batch, seed=0, low=-2.0, high=2.0):
    """Return random float32 inputs with open sizes filled in; batches of `batch`."""
    random = np.random.default_rng(seed)
    feeds = {}
    for entry in model.graph.input:
        dims = entry.type.tensor_type.shape.dim
        shape = [
            d.dim_value or (batch if axis == 0 else 6 + 2 * axis)
            for axis, d in enumerate(dims)
        ]
        feeds[entry.name] = random.uniform(low, high, shape).astype(np.float32)
    return feeds


def evaluate(graph, feeds):
    """Return the graph's outputs in the source's names and axis order, in float64."""
    order = graph.metadata["conversion"]["order"]
    given = {
        name: feeds[order[name]["source"]].transpose(order[name]["axes"])
        for name in (entry.name for entry in graph.inputs)
    }
    given = {name: x.astype(np.float64) for name, x in given.items()}
    found = graph.reference(given)
    return {
        order[name]["source"]: y.transpose(np.argsort(order[name]["axes"]))
        for name, y in found.items()
    }


def assert_close(found, wanted, what="", tolerance=TOLERANCE):
    """Assert that arrays agree up to `tolerance` times the largest element."""
    assert found.shape == wanted.shape, f"{what}: {found.shape} is not {wanted.shape}"
    assert np.isfinite(wanted).all(), f"{what}: the oracle is not finite"
    scale = max(float(np.abs(wanted).max(initial=0)), 1e-3)
    error = float(np.abs(found - wanted).max(initial=0)) / scale
    assert error <= tolerance, f"{what}: off by {error:.2e} of the largest output"


def check_model(tmp_path, model, oracle=None, batches=(1, 3), low=-2.0, high=2.0):
    """Convert `model` both ways, compare with the oracle, return the default graph.

    Parameters
    ----------
    oracle : callable, optional
        Feeds to outputs; ONNX Runtime if left out.
    """
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    if oracle is None:
        runtime = session(path)

        def oracle(feeds):
            names = [entry.name for entry in model.graph.output]
            return dict(zip(names, runtime.run(names, feeds), strict=True))

    graphs = {io: convert(path, io=io) for io in ("channels_last", "source")}
    first = model.graph.input[0].type.tensor_type.shape.dim
    fixed = first[0].dim_value if first else 1
    for batch, (io, graph) in itertools.product(batches, graphs.items()):
        if fixed not in (0, batch):
            continue
        feeds = feeds_of(model, batch, seed=batch, low=low, high=high)
        found = evaluate(graph, feeds)
        for name, wanted in oracle(feeds).items():
            assert_close(found[name], wanted, f"{name}, io {io}, batch {batch}")
    for entry in graphs["source"].metadata["conversion"]["order"].values():
        assert entry["axes"] == sorted(entry["axes"])
    return graphs["channels_last"]


def weights(*shape, seed=0, low=-1.0, high=1.0):
    """Return random float32 weights."""
    random = np.random.default_rng(seed + math.prod(shape))
    return random.uniform(low, high, shape).astype(np.float32)


def kinds(graph):
    """Return the operators' names, in order."""
    return [type(each.op).__name__ for each in graph.nodes]
