"""What ONNX's own evaluator and ONNX Runtime compute for a single node."""

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator


def node_model(kind, outputs, *arrays, **attributes):
    """Return a model of one node at opset 21; an array of None is left out."""
    names = [f"x{i}" if a is not None else "" for i, a in enumerate(arrays)]
    graph = helper.make_graph(
        [helper.make_node(kind, names, outputs, **attributes)],
        "one",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape
            )
            for name, a in zip(names, arrays, strict=True)
            if a is not None
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    opset = helper.make_opsetid("", 21)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def _feeds(arrays):
    return {f"x{i}": a for i, a in enumerate(arrays) if a is not None}


def onnx_answers(kind, outputs, *arrays, **attributes):
    """Return the outputs by ONNX's evaluator."""
    names = [f"y{i}" for i in range(outputs)]
    model = node_model(kind, names, *arrays, **attributes)
    return [np.asarray(y) for y in ReferenceEvaluator(model).run(None, _feeds(arrays))]


def onnx_runtime_answers(kind, *arrays, outputs=1, **attributes):
    """Return the outputs by ONNX Runtime."""
    import onnxruntime

    names = [f"y{i}" for i in range(outputs)]
    model = node_model(kind, names, *arrays, **attributes)
    inferred = onnx.shape_inference.infer_shapes(model)
    session = onnxruntime.InferenceSession(
        inferred.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, _feeds(arrays))
