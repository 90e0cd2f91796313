"""TensorFlow Lite files of random weights against LiteRT, which runs them."""

# ruff: noqa: E501

from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
import striate
from ai_edge_litert import schema_py_generated as schema
from striate.errors import ModelFormatError, SettingError, UnsupportedModelError
from striate.spec import Array
from striate.tools.from_tflite import from_tflite, operators
from striate.tools.from_tflite.schema import OPERATORS
from striate.tools.oracles.litert import oracle
from striate.tools.verification import Runtime, compare

TOLERANCE = 1e-5
"""Relative to the largest number; each runtime rounds sums in its own order."""

TYPES = {
    "float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6,
    "int16": 7, "int8": 9,
}  # fmt: skip

SAME, VALID = 0, 1


class File:
    """A file in the making."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.operatorCodes = []
        self.model.buffers = [schema.BufferT()]
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs, self.graph.outputs = [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self,
        shape: Any,
        dtype: str = "float32",
        data: Array | None = None,
        scale: Any = None,
        zero: Any = 0,
        axis: int = 0,
        name: str = "",
    ) -> int:
        """Append a tensor and return its place."""
        tensor = schema.TensorT()
        tensor.shape = list(shape)
        tensor.type = TYPES[dtype]
        tensor.name = (name or f"t{len(self.graph.tensors)}").encode()
        tensor.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            raw = np.ascontiguousarray(data, dtype)
            buffer.data = np.frombuffer(raw.tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        if scale is not None:
            quantization = schema.QuantizationParametersT()
            quantization.scale = np.atleast_1d(np.asarray(scale, "f4"))
            zeros = np.broadcast_to(zero, quantization.scale.shape)
            quantization.zeroPoint = zeros.astype("i8")
            quantization.quantizedDimension = axis
            tensor.quantization = quantization
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def input(self, *shape: int, **more: Any) -> int:
        place = self.tensor(shape, **more)
        self.graph.inputs.append(place)
        return place

    def constant(self, data: Any, dtype: str = "float32", **more: Any) -> int:
        array = np.asarray(data, dtype)
        return self.tensor(array.shape, dtype, array, **more)

    def normal(self, *shape: int, scale: float = 1.0) -> int:
        return self.constant(self.rng.normal(size=shape) * scale)

    def add(
        self,
        name: str,
        inputs: list[int],
        outputs: Any,
        options: str = "",
        **settings: Any,
    ) -> Any:
        """Append an operator; `outputs` are shapes or places of tensors."""
        number = {v: k for k, v in OPERATORS.items()}[name]
        code = schema.OperatorCodeT()
        code.builtinCode = number
        code.deprecatedBuiltinCode = min(number, 127)
        code.version = 1
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes)
        self.model.operatorCodes.append(code)
        places = [
            self.tensor(shape) if isinstance(shape, tuple) else shape
            for shape in outputs
        ]
        operator.inputs, operator.outputs = inputs, places
        if options:
            kind = f"{options}Options"
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = getattr(schema, f"{kind}T")()
            for key, value in settings.items():
                assert hasattr(operator.builtinOptions, key)
                setattr(operator.builtinOptions, key, value)
        self.graph.operators.append(operator)
        self.graph.outputs = places
        return places[0] if len(places) == 1 else places

    def save(self, folder: Path) -> Path:
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path = folder / "net.tflite"
        path.write_bytes(bytes(builder.Output()))
        return path


def agree(
    file: File, folder: Path, batches: Any = (1, 3), tolerance: float = TOLERANCE
) -> striate.Graph:
    """Compare every result with LiteRT's."""
    path = file.save(folder)
    graph = from_tflite(path)
    verdict = compare(graph, Runtime(graph), oracle(path, graph), tolerance=tolerance)
    assert not verdict.notes
    assert verdict.batches == list(batches)
    assert verdict.agrees, verdict
    return graph


def windows(
    size: int, kernel: int, stride: int, padding: int, dilation: int = 1
) -> int:
    reach = dilation * (kernel - 1) + 1
    return -(-size // stride) if padding == SAME else (size - reach) // stride + 1


@pytest.mark.parametrize("seed", range(12))
def test_convolution(tmp_path: Path, seed: int) -> None:
    file = File(seed)
    rng = file.rng
    kernel, stride = rng.integers(1, 4, 2), rng.integers(1, 3, 2)
    dilation = rng.integers(1, 3, 2) if seed % 3 == 0 else np.ones(2, int)
    if seed % 3 == 0:
        stride = np.ones(2, int)
    padding = seed % 2
    size = rng.integers(7, 15, 2)
    channels = int(rng.integers(1, 6))
    depthwise = seed % 4 > 1
    outputs = (
        channels * int(rng.integers(1, 3)) if depthwise else int(rng.integers(1, 6))
    )
    x = file.input(1, *map(int, size), channels)
    shape = (1, *kernel, outputs) if depthwise else (outputs, *kernel, channels)
    weights = [file.normal(*map(int, shape)), file.normal(outputs)]
    counts = [
        windows(*map(int, each), padding=padding, dilation=int(d))
        for *each, d in zip(size, kernel, stride, dilation, strict=True)
    ]
    settings = {
        "padding": padding, "strideH": int(stride[0]), "strideW": int(stride[1]),
        "dilationHFactor": int(dilation[0]), "dilationWFactor": int(dilation[1]),
        "fusedActivationFunction": seed % 5,
    }  # fmt: skip
    if depthwise:
        settings["depthMultiplier"] = outputs // channels
    if settings["fusedActivationFunction"] == 4:
        settings["fusedActivationFunction"] = 0
    kind = "DepthwiseConv2D" if depthwise else "Conv2D"
    name = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    file.add(name, [x, *weights], [(1, *counts, outputs)], kind, **settings)
    agree(file, tmp_path)


@pytest.mark.parametrize("padding", [SAME, VALID])
@pytest.mark.parametrize(
    ("kernel", "stride"), [(3, 2), (2, 2), (4, 2), (3, 1), (2, 3), (5, 3)]
)
def test_transposed_convolution(
    tmp_path: Path, padding: int, kernel: int, stride: int
) -> None:
    file = File()
    x = file.input(1, 5, 6, 3)
    if padding == SAME:
        size = (5 * stride, 6 * stride)
    else:
        size = tuple((n - 1) * stride + max(kernel, stride) for n in (5, 6))
    shape = file.constant([1, *size, 4], "int32")
    weights = [file.normal(4, kernel, kernel, 3), x, file.normal(4)]
    file.add("TRANSPOSE_CONV", [shape, *weights], [(1, *size, 4)], "TransposeConv",
             padding=padding, strideH=stride, strideW=stride)  # fmt: skip
    file.model.operatorCodes[0].version = 3
    agree(file, tmp_path)


POOL = {"strideW": 2, "strideH": 3, "filterWidth": 3, "filterHeight": 2}


def cases() -> dict[str, Any]:
    """Return operators of one float input of (1, 6, 8, 4), and what they need."""

    def plain(
        name: str,
        shape: tuple[int, ...] = (1, 6, 8, 4),
        options: str = "",
        **settings: Any,
    ) -> Any:
        return lambda f, x: f.add(name, [x], [shape], options, **settings)

    def binary(
        name: str, options: str = "", shape: Any = (1, 6, 8, 4), **settings: Any
    ) -> Any:
        return lambda f, x: f.add(
            name,
            [x, f.constant(f.rng.uniform(0.5, 2, shape))],
            [(1, 6, 8, 4)],
            options,
            **settings,
        )

    def given(
        name: str, shape: Any, *numbers: Any, options: str = "", **settings: Any
    ) -> Any:
        return lambda f, x: f.add(
            name,
            [x, *(f.constant(n, "int32") for n in numbers)],
            [shape],
            options,
            **settings,
        )

    found = {
        name.lower(): plain(name)
        for name in ("ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "HARD_SWISH", "LOGISTIC", "NEG", "RELU", "RELU6",
                     "RELU_N1_TO_1", "ROUND", "SIN", "SQUARE", "TANH", "LOG_SOFTMAX", "SIGN")
    }  # fmt: skip
    found |= {
        "relu 0 to 1": plain("RELU_0_TO_1"),
        "softmax": plain("SOFTMAX", options="Softmax", beta=1.0),
        "softmax beta": plain("SOFTMAX", options="Softmax", beta=0.5),
        "leaky": plain("LEAKY_RELU", options="LeakyRelu", alpha=0.3),
        "gelu": plain("GELU", options="Gelu", approximate=False),
        "gelu tanh": plain("GELU", options="Gelu", approximate=True),
        "prelu": lambda f, x: f.add("PRELU", [x, f.normal(1, 1, 4)], [(1, 6, 8, 4)]),
        "l2": plain("L2_NORMALIZATION", options="L2Norm"),
        "lrn": plain("LOCAL_RESPONSE_NORMALIZATION", options="LocalResponseNormalization", radius=1, bias=1.5, alpha=0.4, beta=0.7),
        "add": binary("ADD", "Add", fusedActivationFunction=1),
        "sub": binary("SUB", "Sub", shape=(4,)),
        "mul": binary("MUL", "Mul", shape=(1, 6, 8, 1), fusedActivationFunction=3),
        "div": binary("DIV", "Div", shape=(1, 1, 1, 1)),
        "maximum": binary("MAXIMUM", "MaximumMinimum"),
        "minimum": binary("MINIMUM", "MaximumMinimum"),
        "squared difference": binary("SQUARED_DIFFERENCE"),
        "average": plain("AVERAGE_POOL_2D", (1, 2, 4, 4), "Pool2D", padding=SAME, **POOL),
        "average valid": plain("AVERAGE_POOL_2D", (1, 2, 3, 4), "Pool2D", padding=VALID, **POOL),
        "max": plain("MAX_POOL_2D", (1, 2, 4, 4), "Pool2D", padding=SAME, fusedActivationFunction=1, **POOL),
        "l2 pool": plain("L2_POOL_2D", (1, 2, 3, 4), "Pool2D", padding=VALID, **POOL),
        "reshape": given("RESHAPE", (1, 48, 4), [1, -1, 4], options="Reshape", newShape=[1, -1, 4]),
        "flatten": given("RESHAPE", (1, 192), [-1, 192]),
        "pad": given("PAD", (1, 9, 9, 5), [[0, 0], [1, 2], [0, 1], [1, 0]]),
        "mirror": given("MIRROR_PAD", (1, 9, 9, 4), [[0, 0], [1, 2], [0, 1], [0, 0]], options="MirrorPad", mode=0),
        "mirror edge": given("MIRROR_PAD", (1, 8, 9, 4), [[0, 0], [1, 1], [0, 1], [0, 0]], options="MirrorPad", mode=1),
        "mean": given("MEAN", (1, 4), [1, 2], options="Reducer", keepDims=False),
        "mean kept": given("MEAN", (1, 1, 1, 4), [1, 2], options="Reducer", keepDims=True),
        "mean channels": given("MEAN", (1, 6, 8, 1), [-1], options="Reducer", keepDims=True),
        "sum": given("SUM", (1, 6, 4), [2], options="Reducer", keepDims=False),
        "reduce max": given("REDUCE_MAX", (1, 8, 4), [1], options="Reducer"),
        "reduce min": given("REDUCE_MIN", (1, 6, 8), [3], options="Reducer"),
        "reduce prod": given("REDUCE_PROD", (1, 6, 1, 4), [2], options="Reducer", keepDims=True),
        "slice": given("SLICE", (1, 3, 6, 2), [0, 1, 2, 0], [1, 3, -1, 2]),
        "transpose": given("TRANSPOSE", (1, 4, 8, 6), [0, 3, 2, 1]),
        "space to depth": plain("SPACE_TO_DEPTH", (1, 3, 4, 16), "SpaceToDepth", blockSize=2),
        "depth to space": plain("DEPTH_TO_SPACE", (1, 12, 16, 1), "DepthToSpace", blockSize=2),
        "expand": given("EXPAND_DIMS", (1, 6, 1, 8, 4), [2]),
        "tile": given("TILE", (1, 6, 16, 4), [1, 1, 2, 1]),
        "reverse": given("REVERSE_V2", (1, 6, 8, 4), [2]),
        "gather": given("GATHER", (1, 6, 3, 4), [5, 0, 2], options="Gather", axis=2),
        "cumsum": given("CUMSUM", (1, 6, 8, 4), 2, options="Cumsum", exclusive=True),
        "split": lambda f, x: f.add("SPLIT", [f.constant(3, "int32"), x], [(1, 6, 8, 2)] * 2, "Split", numSplits=2),
        "split v": lambda f, x: f.add("SPLIT_V", [x, f.constant([3, 5], "int32"), f.constant(2, "int32")],
                                      [(1, 6, 3, 4), (1, 6, 5, 4)], "SplitV", numSplits=2),
        "unpack": plain_unpack,
        "pack": lambda f, x: f.add("PACK", [x, x], [(1, 6, 2, 8, 4)], "Pack", valuesCount=2, axis=2),
        "concatenation": lambda f, x: f.add("CONCATENATION", [x, x], [(1, 6, 8, 8)], "Concatenation", axis=-1),
        "strided": lambda f, x: f.add("STRIDED_SLICE", [x, *(f.constant(n, "int32") for n in ([0, 1, 7, 0], [0, 6, 0, 3], [1, 2, -2, 1]))],
                                      [(1, 3, 4, 3)], "StridedSlice", beginMask=1, endMask=1),
        "strided away": lambda f, x: f.add("STRIDED_SLICE", [x, *(f.constant(n, "int32") for n in ([0, 0, 3, 0], [1, 6, 4, 4], [1, 1, 1, 1]))],
                                           [(1, 6, 4)], "StridedSlice", endMask=2, shrinkAxisMask=4),
        "fully": lambda f, x: f.add("FULLY_CONNECTED", [x, f.normal(5, 192), f.normal(5)], [(1, 5)], "FullyConnected", fusedActivationFunction=1),
        "fully kept": lambda f, x: f.add("FULLY_CONNECTED", [x, f.normal(5, 4), -1], [(1, 6, 8, 5)], "FullyConnected", keepNumDims=True),
        "matmul": lambda f, x: f.add("BATCH_MATMUL", [x, f.normal(1, 6, 4, 3)], [(1, 6, 8, 3)], "BatchMatMul"),
        "matmul turned": lambda f, x: f.add("BATCH_MATMUL", [x, x], [(1, 6, 8, 8)], "BatchMatMul", adjY=True),
        "arg max": lambda f, x: f.add("ARG_MAX", [x, f.constant(3, "int32")], [f.tensor((1, 6, 8), "int64")], "ArgMax", outputType=4),
        "arg min": lambda f, x: f.add("ARG_MIN", [x, f.constant(1, "int32")], [f.tensor((1, 8, 4), "int32")], "ArgMin", outputType=2),
        "top k": lambda f, x: f.add("TOPK_V2", [x, f.constant([2], "int32")], [(1, 6, 8, 2), f.tensor((1, 6, 8, 2), "int32")], "TopKV2"),
        "cast": lambda f, x: f.add("CAST", [x], [f.tensor((1, 6, 8, 4), "int32")], "Cast", inDataType=0, outDataType=2),
        "half weights": half_weights,
        "dilated": dilated,
    }  # fmt: skip
    for name in ("BILINEAR", "NEAREST_NEIGHBOR"):
        option = "ResizeBilinear" if name == "BILINEAR" else "ResizeNearestNeighbor"
        for size in ((13, 11), (3, 5), (12, 16)):
            for mode in ("", "alignCorners", "halfPixelCenters"):
                settings = {mode: True} if mode else {}
                found[f"{name} {size} {mode}"] = given(
                    f"RESIZE_{name}", (1, *size, 4), size, options=option, **settings
                )
    return found


def plain_unpack(f: File, x: int) -> Any:
    return f.add("UNPACK", [x], [(1, 6, 8)] * 4, "Unpack", num=4, axis=3)


def half_weights(f: File, x: int) -> Any:
    half = f.constant(f.rng.normal(size=(5, 1, 1, 4)), "float16")
    whole = f.add("DEQUANTIZE", [half], [(5, 1, 1, 4)])
    return f.add(
        "CONV_2D",
        [x, whole, f.normal(5)],
        [(1, 6, 8, 5)],
        "Conv2D",
        padding=SAME,
        strideH=1,
        strideW=1,
    )


def dilated(f: File, x: int) -> Any:
    block = f.constant([2, 2], "int32")
    pads = f.constant([[2, 2], [2, 2]], "int32")
    dealt = f.add(
        "SPACE_TO_BATCH_ND", [x, block, pads], [(4, 5, 6, 4)], "SpaceToBatchND"
    )
    made = f.add("CONV_2D", [dealt, f.normal(3, 3, 3, 4), f.normal(3)], [(4, 3, 4, 3)], "Conv2D",
                 padding=VALID, strideH=1, strideW=1, fusedActivationFunction=1)  # fmt: skip
    crops = f.constant([[0, 0], [0, 0]], "int32")
    return f.add(
        "BATCH_TO_SPACE_ND", [made, block, crops], [(1, 6, 8, 3)], "BatchToSpaceND"
    )


@pytest.mark.parametrize("case", cases())
def test_operator(tmp_path: Path, case: str) -> None:
    file = File()
    cases()[case](file, file.input(1, 6, 8, 4))
    agree(file, tmp_path)


@pytest.mark.parametrize("name", ["LOG", "SQRT", "RSQRT", "POW"])
def test_operators_of_positive_numbers(tmp_path: Path, name: str) -> None:
    file = File()
    x = file.input(1, 5, 7)
    positive = file.add("EXP", [x], [(1, 5, 7)])
    more = [file.constant([0.7])] if name == "POW" else []
    file.add(name, [positive, *more], [(1, 5, 7)])
    agree(file, tmp_path)


def quantised(file: File, shape: Any, bound: float = 4.0, dtype: str = "int8") -> int:
    """Append an activation that stands for numbers up to a bound."""
    scale = np.float32(bound / 127)
    return file.tensor(shape, dtype, scale=scale, zero=3 if dtype == "int8" else 131)


def layer(file: File, x: int, source: tuple[int, ...], kind: str, dtype: str) -> int:
    """Append a quantised layer and return its result."""
    low, high = (-127, 128) if dtype == "int8" else (0, 256)
    zero = 0 if dtype == "int8" else 120
    channels = source[-1]
    scale = file.graph.tensors[x].quantization.scale[0]
    if kind in ("conv", "depthwise"):
        outputs = 6 if kind == "conv" else channels
        shape = (6, 3, 3, channels) if kind == "conv" else (1, 3, 3, channels)
        many = dtype == "int8"
        scales = file.rng.uniform(0.001, 0.003, outputs if many else 1).astype("f4")
        weights = file.constant(
            file.rng.integers(low, high, shape), dtype,
            scale=scales, zero=zero, axis=0 if kind == "conv" else 3,
        )  # fmt: skip
        bias = file.constant(
            file.rng.integers(-900, 900, outputs), "int32",
            scale=np.broadcast_to(scales * scale, outputs) if many else scales * scale,
        )  # fmt: skip
        result = quantised(file, (*source[:3], outputs), 2.0, dtype)
        name, option = (
            ("CONV_2D", "Conv2D")
            if kind == "conv"
            else ("DEPTHWISE_CONV_2D", "DepthwiseConv2D")
        )
        more = {} if kind == "conv" else {"depthMultiplier": 1}
        file.add(name, [x, weights, bias], [result], option, padding=SAME, strideH=1, strideW=1,
                 fusedActivationFunction=3, **more)  # fmt: skip
        file.model.operatorCodes[-1].version = 3
        return result
    if kind == "fully":
        count = int(np.prod(source[1:]))
        weights = file.constant(
            file.rng.integers(low, high, (7, count)), dtype, scale=0.001, zero=zero
        )
        bias = file.constant(
            file.rng.integers(-900, 900, 7), "int32", scale=np.float32(0.001) * scale
        )
        result = quantised(file, (1, 7), 3.0, dtype)
        file.add("FULLY_CONNECTED", [x, weights, bias], [result], "FullyConnected")
        file.model.operatorCodes[-1].version = 4
        return result
    if kind == "add":
        result = quantised(file, source, 2.5, dtype)
        file.add("ADD", [x, x], [result], "Add")
        file.model.operatorCodes[-1].version = 2
        return result
    if kind == "average":
        result = file.tensor(
            (1, source[1], source[2], channels),
            dtype,
            scale=scale,
            zero=file.graph.tensors[x].quantization.zeroPoint[0],
        )
        file.add(
            "AVERAGE_POOL_2D",
            [x],
            [result],
            "Pool2D",
            padding=SAME,
            strideH=1,
            strideW=1,
            filterWidth=3,
            filterHeight=3,
        )
        file.model.operatorCodes[-1].version = 2
        return result
    result = file.tensor(
        source, dtype, scale=1 / 256, zero=-128 if dtype == "int8" else 0
    )
    if kind == "logistic":
        file.add("LOGISTIC", [x], [result])
    else:
        file.add("SOFTMAX", [x], [result], "Softmax", beta=1.0)
    file.model.operatorCodes[-1].version = 2
    return result


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize(
    "kind", ["conv", "depthwise", "fully", "add", "average", "logistic", "softmax"]
)
def test_quantised_layers_are_within_a_step(
    tmp_path: Path, kind: str, dtype: str
) -> None:
    file = File()
    x = quantised(file, (1, 6, 7, 5), 3.0, dtype)
    file.graph.inputs.append(x)
    result = layer(file, x, (1, 6, 7, 5), kind, dtype)
    step = float(file.graph.tensors[result].quantization.scale[0])
    path = file.save(tmp_path)
    graph = from_tflite(path)
    feed = file.rng.normal(size=(2, 6, 7, 5)).astype(np.float32) * 2
    found = striate.Model(graph).run({graph.inputs[0].name: feed})
    wanted = oracle(path, graph).run({graph.inputs[0].name: feed})
    (name,) = graph.outputs
    assert np.ptp(wanted[name]) > 10 * step
    assert np.abs(found[name] - wanted[name]).max() <= 1.001 * step


def test_a_quantised_network(tmp_path: Path) -> None:
    file = File()
    shape = (1, 8, 8, 5)
    x = file.input(*shape)
    start = quantised(file, shape, 3.0)
    file.add("QUANTIZE", [x], [start])
    y = layer(file, start, shape, "conv", "int8")
    y = layer(file, y, (1, 8, 8, 6), "depthwise", "int8")
    y = layer(file, y, (1, 8, 8, 6), "average", "int8")
    y = layer(file, y, (1, 8, 8, 6), "fully", "int8")
    end = file.tensor((1, 7))
    file.add("DEQUANTIZE", [y], [end])
    path = file.save(tmp_path)
    graph = from_tflite(path)
    assert (
        "a quantised network, computed with real numbers"
        in graph.metadata["conversion"]["notes"]
    )
    other = oracle(path, graph)
    feed = {graph.inputs[0].name: file.rng.normal(size=(3, *shape[1:])).astype("f4")}
    step = 3.0 / 127
    (found,), (wanted,) = (each.run(feed).values() for each in (Runtime(graph), other))
    assert np.abs(found - wanted).max() <= 2 * step, "rounding, of four layers"
    places = {tensor.name.decode(): tensor for tensor in file.graph.tensors}
    layers = dict(other.layers(feed))
    mine = dict(Runtime(graph).layers(feed))
    for name in set(layers) & set(mine):
        quantization = places[name].quantization
        if quantization is not None:
            off = np.abs(layers[name] - mine[name]).max()
            assert off <= 2 * quantization.scale[0]


def test_weights_of_whole_numbers_for_real_ones(tmp_path: Path) -> None:
    file = File()
    x = file.input(1, 20)
    weights = file.constant(file.rng.integers(-127, 128, (9, 20)), "int8", scale=0.01)
    file.add(
        "FULLY_CONNECTED", [x, weights, file.normal(9)], [(1, 9)], "FullyConnected"
    )
    path = file.save(tmp_path)
    graph = from_tflite(path)
    verdict = compare(graph, Runtime(graph), oracle(path, graph))
    assert verdict.agrees, verdict
    feed = file.rng.normal(size=(1, 20)).astype(np.float32)
    raw = np.frombuffer(bytes(file.model.buffers[1].data), np.int8).reshape(9, 20)
    bias = np.frombuffer(bytes(file.model.buffers[2].data), np.float32)
    (found,) = striate.Model(graph).run({graph.inputs[0].name: feed}).values()
    assert np.allclose(found, feed @ (raw.T * np.float32(0.01)) + bias, atol=1e-5)


def mobile(file: File) -> None:
    """Build a network of the MobileNet kind: inverted residuals, hard swish, gates."""
    x, channels, size = file.input(1, 32, 32, 3), 3, 32

    def conv(
        x: int,
        inputs: int,
        outputs: int,
        kernel: int,
        size: int,
        stride: int = 1,
        act: int = 0,
    ) -> int:
        weights = [
            file.normal(
                outputs,
                kernel,
                kernel,
                inputs,
                scale=(kernel * kernel * inputs) ** -0.5,
            ),
            file.normal(outputs, scale=0.1),
        ]
        return file.add("CONV_2D", [x, *weights], [(1, size, size, outputs)], "Conv2D",
                        padding=SAME, strideH=stride, strideW=stride, fusedActivationFunction=act)  # fmt: skip

    size //= 2
    x, channels = conv(x, 3, 8, 3, size, 2), 8
    x = file.add("HARD_SWISH", [x], [(1, size, size, 8)])
    for _ in range(2):
        wide = conv(x, channels, 24, 1, size, act=3)
        deep = file.add("DEPTHWISE_CONV_2D", [wide, file.normal(1, 3, 3, 24, scale=0.3), file.normal(24)],
                        [(1, size, size, 24)], "DepthwiseConv2D", padding=SAME, strideH=1, strideW=1,
                        depthMultiplier=1, fusedActivationFunction=1)  # fmt: skip
        axes = file.constant([1, 2], "int32")
        gate = file.add("MEAN", [deep, axes], [(1, 1, 1, 24)], "Reducer", keepDims=True)
        gate = file.add("LOGISTIC", [conv(gate, 24, 24, 1, 1)], [(1, 1, 1, 24)])
        deep = file.add("MUL", [deep, gate], [(1, size, size, 24)], "Mul")
        x = file.add(
            "ADD",
            [conv(deep, 24, channels, 1, size), x],
            [(1, size, size, channels)],
            "Add",
        )
    x = file.add(
        "MEAN", [x, file.constant([1, 2], "int32")], [(1, channels)], "Reducer"
    )
    x = file.add(
        "FULLY_CONNECTED",
        [x, file.normal(10, channels), file.normal(10)],
        [(1, 10)],
        "FullyConnected",
    )
    file.add("SOFTMAX", [x], [(1, 10)], "Softmax", beta=1.0)


def test_network(tmp_path: Path) -> None:
    file = File()
    mobile(file)
    graph = agree(file, tmp_path)
    assert graph.inputs[0].shape == ("N", 32, 32, 3)
    assert not graph.metadata["conversion"]["transposes"]


def test_a_shape_that_is_computed(tmp_path: Path) -> None:
    file = File()
    x = file.input(1, 4, 6, 2)
    sizes = file.add("SHAPE", [x], [file.tensor((4,), "int32")], "Shape", outType=2)
    bounds = [file.constant([n], "int32") for n in (0, 1, 1)]
    batch = file.add("STRIDED_SLICE", [sizes, *bounds], [file.tensor((), "int32")],
                     "StridedSlice", shrinkAxisMask=1)  # fmt: skip
    shape = file.add("PACK", [batch, file.constant(48, "int32")], [file.tensor((2,), "int32")],
                     "Pack", valuesCount=2, axis=0)  # fmt: skip
    flat = file.add("RESHAPE", [x, shape], [(1, 48)])
    first = file.add(
        "STRIDED_SLICE", [sizes, *bounds], [file.tensor((1,), "int32")], "StridedSlice"
    )
    both = file.add(
        "CONCATENATION",
        [first, file.constant([12, 4], "int32")],
        [file.tensor((3,), "int32")],
        "Concatenation",
    )
    again = file.add("RESHAPE", [flat, both], [(1, 12, 4)])
    file.add("RELU", [again], [(1, 12, 4)])
    graph = agree(file, tmp_path)
    assert graph.inputs[0].shape[0] == "N"


def test_cut_outputs(tmp_path: Path) -> None:
    file = File()
    mobile(file)
    path = file.save(tmp_path)
    graph = from_tflite(path, cut_outputs=("t3",))
    assert graph.outputs == ["t3"]
    with pytest.raises(SettingError, match="no tensor 'nothing'"):
        from_tflite(path, cut_outputs=("nothing",))


def metadata() -> bytes:
    """Return what a file says of its input and output, as a flatbuffer."""
    b = flatbuffers.Builder(256)

    def vector(places: list[int]) -> int:
        b.StartVector(4, len(places), 4)
        for place in reversed(places):
            b.PrependUOffsetTRelative(place)
        return int(b.EndVector())

    def floats(numbers: list[float]) -> int:
        return int(b.CreateNumpyVector(np.asarray(numbers, np.float32)))

    def table(fields: dict[int, int], numbers: dict[int, int] | None = None) -> int:
        b.StartObject(8)
        for slot, place in fields.items():
            b.PrependUOffsetTRelativeSlot(slot, place, 0)
        for slot, number in (numbers or {}).items():
            b.PrependUint8Slot(slot, number, 0)
        return int(b.EndObject())

    options = table({0: floats([127.5]), 1: floats([127.5])})
    unit = table({1: options}, {0: 1})
    entry = table({4: vector([unit])})
    labels = table({0: b.CreateString("labels.txt")}, {2: 2})
    result = table({6: vector([labels])})
    network = table({2: vector([entry]), 3: vector([result])})
    b.Finish(table({3: vector([network])}), b"M001")
    return bytes(b.Output())


def test_labels_and_preprocessing_of_the_metadata(tmp_path: Path) -> None:
    file = File()
    mobile(file)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(metadata(), np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = b"TFLITE_METADATA", len(file.model.buffers)
    file.model.buffers.append(buffer)
    file.model.metadata = [entry]
    path = file.save(tmp_path)
    names = [f"class {index}" for index in range(10)]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("labels.txt", "\n".join(names))
    path.write_bytes(path.read_bytes() + archive.getvalue())
    graph = from_tflite(path)
    assert graph.labels == tuple(names)
    assert graph.preprocess is not None
    assert graph.preprocess.mean == (127.5,)
    assert graph.preprocess.std == (127.5,)
    assert graph.preprocess.scale == 1


def test_everything_that_cannot_be_converted_is_told_at_once(tmp_path: Path) -> None:
    file = File()
    x = file.input(1, 4, 4, 2)
    y = file.add("SVDF", [x], [(1, 4, 4, 2)])
    y = file.add("RELU", [y], [(1, 4, 4, 2)])
    y = file.add("RFFT2D", [y], [(1, 4, 4, 2)])
    file.add("SVDF", [y], [(1, 4, 4, 2)])
    with pytest.raises(UnsupportedModelError) as caught:
        from_tflite(file.save(tmp_path))
    message = str(caught.value)
    assert "3 operators cannot be converted" in message
    assert "SVDF" in message
    assert "RFFT2D" in message


def test_damaged_files(tmp_path: Path) -> None:
    file = File()
    mobile(file)
    path = file.save(tmp_path)
    data = path.read_bytes()
    for end in (0, 3, 8, 30, 100, len(data) // 2, len(data) - 40):
        path.write_bytes(data[:end])
        with pytest.raises((ModelFormatError, UnsupportedModelError)) as caught:
            from_tflite(path)
        assert str(path) in str(caught.value)
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 6):
            damaged[place] = rng.integers(0, 256)
        for place in rng.integers(0, 400, 3):
            damaged[8 + place] = rng.integers(0, 256)
        path.write_bytes(bytes(damaged))
        with suppress(ModelFormatError, UnsupportedModelError):
            from_tflite(path)


def test_sizes_that_make_no_sense(tmp_path: Path) -> None:
    for shape in ((1, 10**9, 10**9, 3), (1, -4, 4, 2), (1, 0, 4, 2)):
        file = File()
        file.add("RELU", [file.input(*shape)], [shape])
        with pytest.raises(ModelFormatError, match="of shape"):
            from_tflite(file.save(tmp_path))
    file = File()
    x = file.input(1, 4, 4, 2)
    file.add("TILE", [x, file.constant([1, 10**6, 10**6, 1], "int32")], [(1, 4, 4, 2)])
    with pytest.raises(UnsupportedModelError, match="numbers"):
        from_tflite(file.save(tmp_path))
    file = File()
    x = file.input(1, 4, 4, 2)
    file.add(
        "FILL", [file.constant([10**5, 10**5], "int32"), file.constant(1.0)], [(4, 4)]
    )
    with pytest.raises(UnsupportedModelError, match="constant of shape"):
        from_tflite(file.save(tmp_path))


def test_files_that_are_something_else(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    for content in (b"", b"PK\x03\x04" + bytes(50), bytes(100)):
        path.write_bytes(content)
        with pytest.raises(ModelFormatError, match="TFL3"):
            from_tflite(path)
    with pytest.raises(ModelFormatError, match="no regular file"):
        from_tflite(tmp_path)
    with pytest.raises(ModelFormatError, match="no such file"):
        from_tflite(tmp_path / "none.tflite")


def test_operators() -> None:
    assert {"CONV_2D", "RESIZE_BILINEAR", "BATCH_MATMUL"} <= set(operators())
