"""ONNX Runtime on the model a graph was converted from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from striate import Graph
from striate.errors import MissingExtraError
from striate.spec import Array
from striate.tools.conversion import upstream
from striate.tools.oracles import as_source, as_stored, order

NEWEST_OPSET = 26
"""What ONNX Runtime knows; ONNX's own reference evaluator knows them all."""

HALF = 2e-3
"""What a network in float16 loses, which striate computes in float32."""


def oracle(source: Any, graph: Graph) -> OnnxRuntime:
    """Return ONNX Runtime on a model, or ONNX's reference evaluator if it is too new.

    Parameters
    ----------
    source : path, bytes or onnx.ModelProto
        The model.
    graph : Graph
        What it, or a part of it, was converted to.

    Raises
    ------
    MissingExtraError
        If neither is installed.
    """
    return OnnxRuntime(source, graph)


class OnnxRuntime:
    """The ONNX model behind a graph, as a `striate.tools.oracles.Oracle`.

    Parameters
    ----------
    source : path, bytes or onnx.ModelProto
        The model.
    graph : Graph
        What it, or a part of it, was converted to.
    """

    def __init__(self, source: Any, graph: Graph) -> None:
        import onnx

        self._graph = graph
        self._order = order(graph)
        if isinstance(source, (str, os.PathLike)):
            source = onnx.load(os.fspath(source))
        elif isinstance(source, bytes):
            source = onnx.load_from_string(source)
        self._model = source
        self._newest = max(
            (o.version for o in source.opset_import if o.domain in ("", "ai.onnx")),
            default=1,
        )
        self._inputs = self._sources(entry.name for entry in graph.inputs)
        self._runtime = self._started(graph.outputs)
        self.name, self.version = self._runtime.name, self._runtime.version
        if self._runtime.halves:
            self.tolerance = HALF

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs."""
        return self._asked(self._runtime, feeds, self._graph.outputs)

    def layers(self, feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """Yield what every layer computes of which the model has the tensor."""
        known = {name for node in self._model.graph.node for name in node.output}
        made = [value for node in self._graph.nodes for value in node.outputs]
        wanted = [
            name
            for name in made
            if name in self._order and self._order[name][0] in known
        ]
        yield from self._asked(self._started(wanted), feeds, wanted).items()

    def _started(self, outputs: Sequence[str]) -> _Session | _Evaluator:
        part = between(self._model, self._inputs, self._sources(outputs))
        return (_Session if self._newest <= NEWEST_OPSET else _Evaluator)(part)

    def _sources(self, names: Iterable[str]) -> list[str]:
        return [self._order[name][0] for name in names]

    def _asked(
        self,
        runtime: _Session | _Evaluator,
        feeds: Mapping[str, Array],
        outputs: Sequence[str],
    ) -> dict[str, Array]:
        given = {}
        for name, array in feeds.items():
            source, axes = self._order[name]
            given[source] = as_source(array, axes).astype(runtime.dtypes[source])
        found = dict(
            zip(runtime.outputs, _batchwise(runtime, given, self._model), strict=True)
        )
        return {
            name: as_stored(found[source], axes)
            for name, (source, axes) in ((n, self._order[n]) for n in outputs)
        }


def between(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Return the part of an ONNX model from some tensors to others."""
    import onnx

    part = onnx.ModelProto()
    part.CopyFrom(model)
    entries = {entry.name: entry for entry in part.graph.input}
    weights = {tensor.name for tensor in part.graph.initializer}
    if not set(inputs) <= entries.keys():
        shown = onnx.shape_inference.infer_shapes(model).graph.value_info
        entries.update({entry.name: entry for entry in shown})
    kept = upstream(
        [(list(_reads(node)), list(node.output)) for node in part.graph.node],
        outputs,
        inputs,
    )
    nodes = [part.graph.node[index] for index in kept]
    names = [*inputs, *(entry.name for entry in part.graph.input)]
    del part.graph.node[:]
    del part.graph.input[:]
    del part.graph.output[:]
    part.graph.node.extend(nodes)
    for name in dict.fromkeys(names):
        if name in inputs or name in weights:
            part.graph.input.append(entries[name])
    for name in dict.fromkeys(outputs):
        part.graph.output.append(onnx.ValueInfoProto(name=name))
    return part


def _reads(node: Any) -> Iterator[str]:
    """Yield the tensors a node reads, those of its branches included."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (*attribute.graphs, attribute.g):
            yield from (entry.name for entry in inner.output)
            for branch_node in inner.node:
                yield from _reads(branch_node)


def _dtypes(model: Any) -> dict[str, np.dtype[Any]]:
    """Return the element type of each input."""
    from onnx import helper

    return {
        entry.name: np.dtype(
            helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
        )
        for entry in model.graph.input
    }


def _halves(model: Any) -> bool:
    """Return whether a model computes in less than float32."""
    from onnx import TensorProto

    small = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    return any(tensor.data_type in small for tensor in model.graph.initializer) or any(
        entry.type.tensor_type.elem_type in small for entry in model.graph.input
    )


class _Session:
    """ONNX Runtime, one operator after the other as the model says."""

    name = "onnxruntime"

    def __init__(self, model: Any) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError(
                "comparing with ONNX Runtime needs it: pip install onnxruntime"
            ) from error
        onnxruntime.disable_telemetry_events()
        self.version = onnxruntime.__version__
        self.dtypes = _dtypes(model)
        self.halves = _halves(model)
        self.outputs = [entry.name for entry in model.graph.output]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = (
            onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        )
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, feeds: Mapping[str, Array]) -> list[Array]:
        found: list[Array] = self._session.run(self.outputs, dict(feeds))
        return found


class _Evaluator:
    """ONNX's own evaluator of reference, for operators newer than ONNX Runtime."""

    name = "onnx.reference"

    def __init__(self, model: Any) -> None:
        import onnx
        from onnx.reference import ReferenceEvaluator

        self.version = onnx.__version__
        self.dtypes = _dtypes(model)
        self.halves = _halves(model)
        self.outputs = [entry.name for entry in model.graph.output]
        self._evaluator = ReferenceEvaluator(model)

    def __call__(self, feeds: Mapping[str, Array]) -> list[Array]:
        return list(self._evaluator.run(self.outputs, dict(feeds)))


def _batchwise(
    runtime: _Session | _Evaluator, feeds: Mapping[str, Array], model: Any
) -> list[Array]:
    """Return the outputs, picture by picture where the model has a batch of one."""
    batch = {len(array) for array in feeds.values() if array.ndim}
    sizes = [
        entry.type.tensor_type.shape.dim[0].dim_value
        for entry in model.graph.input
        if entry.name in feeds and entry.type.tensor_type.shape.dim
    ]
    if batch == {1} or len(batch) != 1 or not sizes or set(sizes) != {1}:
        return runtime(feeds)
    (count,) = batch
    pictures = [
        runtime({name: array[i : i + 1] for name, array in feeds.items()})
        for i in range(count)
    ]
    return [np.concatenate(each) for each in zip(*pictures, strict=True)]
