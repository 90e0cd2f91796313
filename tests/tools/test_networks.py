"""Well-known networks, from PyTorch through ONNX, against ONNX Runtime.

Logits are compared before any softmax; what may differ is rounding, stated as a part of
the largest logit.
"""

import numpy as np
import pytest
import torch
from nets import NETS, VGG16, export, randomise
from onnx_models import evaluate, session
from striate import Model, kernels
from striate.tools import convert

pytestmark = pytest.mark.usefixtures("one_torch_thread")

TOLERANCE = 1e-4

OPERATORS = {
    "lenet5": {"Conv", "Tanh", "AveragePool", "Flatten", "Dense"},
    "squeezenet1_1": {"Conv", "Relu", "MaxPool", "Concat", "GlobalAveragePool"},
    "mobilenet_v2": {"Conv", "Clip", "Add", "GlobalAveragePool", "Dense"},
    "efficientnet_b0": {
        "Conv",
        "Silu",
        "Sigmoid",
        "Mul",
        "Add",
        "GlobalAveragePool",
        "Dense",
    },
    "resnet18": {"Conv", "Relu", "MaxPool", "Add", "GlobalAveragePool", "Dense"},
    "resnet50": {"Conv", "Relu", "MaxPool", "Add", "GlobalAveragePool", "Dense"},
    "vgg16": {"Conv", "Relu", "MaxPool", "Flatten", "Dense"},
    "densenet121": {
        "Conv",
        "Relu",
        "MaxPool",
        "Concat",
        "AveragePool",
        "GlobalAveragePool",
        "Dense",
    },
    "googlenet": {"Conv", "Relu", "MaxPool", "Concat", "GlobalAveragePool", "Dense"},
    "shufflenet_v2_x1_0": {
        "Conv",
        "Relu",
        "MaxPool",
        "Split",
        "Concat",
        "ChannelShuffle",
        "GlobalAveragePool",
        "Dense",
    },
}
"""What each network should become, apart from batch norms."""


@pytest.fixture(scope="module")
def network():
    """Return a function that makes a network, each once."""
    made = {}

    def make(name):
        if name not in made:
            build, _, channels, size = NETS[name]
            sample = (4, channels, min(size, 64), min(size, 64))
            if name == "vgg16":
                made[name] = randomise(VGG16(pooled=2), 1, sample)
            else:
                made[name] = randomise(build(), 1, sample)
        return made[name]

    return make


@pytest.mark.parametrize("name", NETS)
def test_parameters_are_those_of_torchvision(name):
    build, parameters, _, _ = NETS[name]
    with torch.device("meta"):
        module = build()
    assert sum(p.numel() for p in module.parameters()) == parameters


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
@pytest.mark.parametrize("name", NETS)
def test_small_pictures_in_numpy(name, exporter, network, tmp_path):
    _, _, channels, size = NETS[name]
    size = min(size, 64)
    dynamo = exporter == "dynamo"
    path = export(
        network(name),
        tmp_path / f"{name}.onnx",
        (2, channels, size, size),
        opset=20 if dynamo else 13,
        dynamo=dynamo,
    )
    graph = convert(path)
    done = graph.metadata["conversion"]
    assert done["transposes"] == []
    found = {type(each.op).__name__ for each in graph.nodes}
    assert found - {"BatchNorm"} == OPERATORS[name]
    random = np.random.default_rng(0)
    x = random.standard_normal((3, channels, size, size), np.float32)
    (wanted,) = session(path).run(["logits"], {"image": x})
    found = graph.reference({"image": x.transpose(0, 2, 3, 1)})["logits"]
    assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max()


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x1_0"])
def test_a_fixed_batch_of_one_is_opened(name, network, tmp_path):
    path = export(
        network(name), tmp_path / "net.onnx", (1, 3, 64, 64), dynamic_batch=False
    )
    graph = convert(path, io="source")
    assert graph.inputs[0].shape == ("N", 3, 64, 64)
    x = np.random.default_rng(0).standard_normal((3, 3, 64, 64), np.float32)
    runtime = session(path)
    wanted = [runtime.run(["logits"], {"image": x[i : i + 1]})[0] for i in range(3)]
    found = evaluate(graph, {"image": x})["logits"]
    assert (
        np.abs(found - np.concatenate(wanted)).max() <= TOLERANCE * np.abs(found).max()
    )


@pytest.mark.parametrize("name", NETS)
def test_full_size_on_every_instruction_set(name, tmp_path):
    build, _, channels, size = NETS[name]
    module = randomise(build(), 1, (2, channels, size, size))
    path = export(module, tmp_path / f"{name}.onnx", (1, channels, size, size))
    del module
    x = np.random.default_rng(0).standard_normal((3, channels, size, size), np.float32)
    runtime = session(path)
    graph = convert(path)
    for batch in (1, 3):
        pictures = x[:batch]
        (wanted,) = runtime.run(["logits"], {"image": pictures})
        for isa in kernels.SUPPORTED:
            with Model(graph, threads=1, isa=isa) as model:
                found = model(np.ascontiguousarray(pictures.transpose(0, 2, 3, 1)))
            error = np.abs(found - wanted).max() / np.abs(wanted).max()
            assert error <= TOLERANCE, f"{isa}, batch {batch}: {error:.2e}"
