"""The cases, by suite: what to convert, what to feed it and what must come out.

``node``, ``pytorch-converted`` and ``pytorch-operator`` are those of the installed
onnx. ``light`` are its nine architectures with weights worth the name: as shipped every
weight is 0.02 and every answer one number. ``onnx-1.6.0`` and the like are the node
cases in the wheel of that version, which speak older operator sets.
"""

import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

SHIPPED = ("node", "pytorch-converted", "pytorch-operator")
SUITES = (*SHIPPED, "light")
WHEELS = {
    "1.2.3": ("36", "manylinux1_x86_64"),
    "1.6.0": ("37", "manylinux1_x86_64"),
    "1.8.1": ("38", "manylinux2010_x86_64"),
    "1.12.0": ("39", "manylinux_2_17_x86_64"),
    "1.16.2": ("311", "manylinux_2_17_x86_64"),
    "1.22.0": ("312", "manylinux_2_28_x86_64"),
}
"""The versions whose cases are kept, and for which Python and system they were made."""

WRONG = frozenset(
    (
        "onnx-1.6.0/test_resize_upsample_sizes_nearest_ceil_half_pixel",
        "onnx-1.6.0/test_resize_upsample_sizes_nearest_floor_align_corners",
        "onnx-1.6.0/test_resize_upsample_sizes_nearest_round_prefer_ceil_asymmetric",
        "onnx-1.6.0/test_unique_not_sorted_without_axis",
        "onnx-1.16.2/test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_"
        "mode_is_True",
        "onnx-1.16.2/test_qlinearmatmul_2D_int8_float32",
        "onnx-1.16.2/test_qlinearmatmul_3D_int8_float32",
    )
)
"""Cases whose outputs were not what ONNX says, and that a later version corrected.

ONNX Runtime does not give these outputs either; it agrees with what striate gives.
"""

PLAIN = frozenset(("float32", "int64", "int32", "bool", "uint8", "int8"))

TIERS = {
    1: """
    Conv ConvTranspose MaxPool AveragePool GlobalAveragePool GlobalMaxPool
    BatchNormalization InstanceNormalization LayerNormalization LRN Gemm MatMul Relu
    LeakyRelu PRelu Elu Clip Sigmoid Tanh HardSigmoid HardSwish Gelu Erf Softmax
    LogSoftmax Add Sub Mul Div Sum Pow Sqrt Concat Split Slice Pad Resize Upsample
    DepthToSpace Reshape Flatten Transpose Squeeze Unsqueeze ReduceMean Dropout Identity
    Constant ConstantOfShape Shape Gather Cast
    """,
    2: """
    SpaceToDepth GroupNormalization LpNormalization MeanVarianceNormalization Mish Swish
    Softplus Softsign Selu Celu ThresholdedRelu Exp Log Abs Neg Reciprocal Floor Ceil
    Round Sin Cos Max Min Mean ReduceMax ReduceMin ReduceSum ReduceL2 ReduceSumSquare
    ReduceProd ArgMax ArgMin TopK NonMaxSuppression Expand Tile Where Equal Greater
    GreaterOrEqual Less LessOrEqual And Or Not Range Size GatherElements GatherND
    ScatterND ScatterElements LSTM GRU QuantizeLinear DequantizeLinear QLinearConv
    QLinearMatMul ConvInteger MatMulInteger DynamicQuantizeLinear Mod Sign OneHot
    NonZero CumSum
    """,
    3: """
    LpPool GlobalLpPool MaxUnpool RoiAlign GridSample DeformConv Col2Im AffineGrid
    CenterCropPad RNN Einsum Trilu EyeLike RMSNormalization Hardmax Shrink Det Unique
    ReverseSequence Compress ReduceL1 ReduceLogSum ReduceLogSumExp IsNaN IsInf Xor If
    Loop Scan Attention STFT DFT MelWeightMatrix HannWindow
    """,
}
"""Operators by how often convolutional networks have them."""

_tier = {op: tier for tier, names in TIERS.items() for op in names.split()}


@dataclass
class Case:
    """A model with inputs and the outputs that are wanted for them.

    `absolute` and `relative` bound how far a float may be from the one wanted, the
    first as a share of the largest of its tensor if `scaled`.
    """

    suite: str
    name: str
    read: Callable
    relative: float = 1e-3
    absolute: float = 1e-5
    scaled: bool = False

    @cached_property
    def _contents(self):
        return self.read()

    @property
    def model(self):
        return self._contents[0]

    @property
    def data(self):
        return self._contents[1]

    @property
    def op(self):
        return next((n.op_type for n in self.model.graph.node), "?")

    @property
    def tier(self):
        """Return the tier of a case of one operator, 0 for others."""
        alone = len(self.model.graph.node) == 1 and "_expanded" not in self.name
        return _tier.get(self.op, 0) if alone else 0

    @property
    def plain(self):
        """Return whether all of its tensors have the usual element types."""
        return all(
            isinstance(v, (onnx.TensorProto, np.ndarray, np.generic))
            and _dtype(v) in PLAIN
            for both in self.data
            for part in both
            for v in part
        )


def _dtype(value):
    if isinstance(value, onnx.TensorProto):
        return str(onnx.helper.tensor_dtype_to_np_dtype(value.data_type))
    return str(value.dtype)


@cache
def cases(suite, wheels=None):
    """Return the cases of a suite by name; old ones from a folder of wheels."""
    if suite == "light":
        found = {name: partial(_light, name) for name in _lights()}
        bounds = {"relative": 0, "absolute": 1e-4, "scaled": True}
        return {n: Case(suite, n, read, **bounds) for n, read in found.items()}
    if suite in SHIPPED:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            entries = load_model_tests(kind=suite)
        return {e.name: Case(suite, e.name, partial(_shipped, e)) for e in entries}
    archive = zipfile.ZipFile(_wheel(suite.removeprefix("onnx-"), Path(wheels)))
    names = {}
    for member in archive.namelist():
        parts = member.split("/")
        if parts[:5] == ["onnx", "backend", "test", "data", "node"] and parts[-1]:
            names.setdefault(parts[5], []).append(member)
    return {
        name: Case(suite, name, partial(_archived, archive, members))
        for name, members in sorted(names.items())
    }


def _shipped(entry):
    if entry.model is not None:
        return entry.model, entry.data_sets
    folder = Path(entry.model_dir)
    files = {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*.*")
        if file.suffix in (".onnx", ".pb")
    }
    return _parsed(files)


def _archived(archive, members):
    return _parsed({"/".join(m.split("/")[6:]): archive.read(m) for m in members})


def _parsed(files):
    """Return the model of a case's folder and its sets of inputs and outputs."""
    model = onnx.ModelProto.FromString(files["model.onnx"])
    kinds = {"input": model.graph.input, "output": model.graph.output}
    folders = sorted({name.split("/")[0] for name in files if name.endswith(".pb")})
    data = []
    for folder in folders:
        both = []
        for what, entries in kinds.items():
            names = sorted(
                (n for n in files if n.startswith(f"{folder}/{what}_")),
                key=lambda name: int(name.rpartition("_")[2].removesuffix(".pb")),
            )
            both.append(
                [
                    onnx.TensorProto.FromString(files[name])
                    if entry.type.HasField("tensor_type")
                    else None
                    for name, entry in zip(names, entries, strict=False)
                ]
            )
        data.append(tuple(both))
    return model, data


def _wheel(version, folder):
    """Return the wheel of a version, which is downloaded if it is not there."""
    found = sorted(folder.glob(f"onnx-{version}-*.whl"))
    if not found:
        python, system = WHEELS[version]
        command = f"-m pip download onnx=={version} --no-deps --only-binary=:all:"
        command += f" --python-version {python} --platform {system} --quiet --dest"
        subprocess.run([sys.executable, *command.split(), str(folder)], check=True)
        found = sorted(folder.glob(f"onnx-{version}-*.whl"))
    return found[0]


def _lights():
    folder = Path(onnx.__file__).parent / "backend/test/data/light"
    return {path.stem: path for path in sorted(folder.glob("*.onnx"))}


def _light(name):
    """Return an architecture with random weights, and what ONNX Runtime answers.

    It ends before the softmax, behind which all but the largest number vanish.
    """
    import onnxruntime

    model = onnx.load(_lights()[name])
    graph = model.graph
    rng = np.random.default_rng(list(name.encode()))
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            weight = _weight(rng, tuple(map(int, shapes[node.input[0]])))
            graph.initializer.append(numpy_helper.from_array(weight, node.output[0]))
    if nodes[-1].op_type == "Softmax":
        graph.output[0].CopyFrom(onnx.ValueInfoProto(name=nodes.pop().input[0]))
        graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    model.ir_version = max(model.ir_version, 4)
    given = {tensor.name for tensor in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in given]
    for field, kept in ((graph.node, nodes), (graph.input, inputs)):
        copies = [type(entry).FromString(entry.SerializeToString()) for entry in kept]
        del field[:]
        field.extend(copies)
    feeds = {
        entry.name: rng.standard_normal(
            [dim.dim_value for dim in entry.type.tensor_type.shape.dim], np.float32
        )
        for entry in inputs
    }
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings)
    return model, [(list(feeds.values()), session.run(None, feeds))]


def _weight(rng, shape):
    """Return a weight that keeps the size of what goes through it, as He et al. do."""
    if len(shape) < 2:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    scale = np.float32(np.sqrt(2 / np.prod(shape[1:])))
    return rng.standard_normal(shape, np.float32) * scale
