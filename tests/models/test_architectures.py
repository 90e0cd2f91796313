"""Every architecture: its size, its shapes, and that it computes what it says."""

import functools

import numpy as np
import pytest
import striate
from striate import GraphError, Model, ops
from striate.models.architectures import ARCHITECTURES, parameter_count

PARAMETERS = {
    "lenet": 61_706,
    "alexnet": 61_100_840,
    "vgg16": 138_357_544,
    "googlenet": 6_624_904,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "resnext50": 25_028_904,
    "densenet121": 7_978_856,
    "squeezenet": 1_235_496,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3": 5_483_032,
    "shufflenet_v2": 2_278_604,
    "efficientnet_b0": 5_288_548,
    "convnext_tiny": 28_589_128,
    "unet": 7_763_041,
    "tiny_yolo": 1_637_901,
    "m5": 26_915,
    "r3d_18": 33_371_472,
}
"""As published, or as torchvision counts them."""

OUTPUTS = {
    "lenet": (1, 10),
    "unet": (1, 256, 256, 1),
    "tiny_yolo": (1, 845, 4),
    "m5": (1, 35),
    "r3d_18": (1, 400),
}
"""The shape of the first output where it is not (1, 1000)."""

SMALL = {
    "lenet": {},
    "vgg16": {"image": 32},
    "m5": {"samples": 7000},
    "r3d_18": {"image": 32, "frames": 8},
}
"""What makes a network small enough to test; for the others pictures of 64 pixels."""

TOLERANCE = 5e-5
"""Of the largest number of an output: what float32 rounds on the way."""


@functools.cache
def small(name):
    return ARCHITECTURES[name](seed=1, **SMALL.get(name, {"image": 64}))


def random_input(graph, batch=2):
    entry = graph.inputs[0]
    shape = (batch, *graph.default_shapes()[entry.name][1:])
    return {entry.name: np.random.default_rng(0).standard_normal(shape, np.float32)}


def test_every_architecture_is_tested():
    assert ARCHITECTURES.keys() == PARAMETERS.keys()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_and_shapes(name):
    graph = ARCHITECTURES[name]()
    assert parameter_count(graph) == PARAMETERS[name]
    specs = graph.specs()
    assert specs[graph.outputs[0]].shape == OUTPUTS.get(name, (1, 1000))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_model_computes_what_the_reference_says(name):
    graph = small(name)
    feeds = random_input(graph)
    wanted = graph.reference(feeds)
    with Model(graph, threads=1) as model:
        found = model.run(feeds)
    for output in graph.outputs:
        limit = TOLERANCE * np.abs(wanted[output]).max()
        assert np.abs(found[output] - wanted[output]).max() <= limit


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_activations_neither_vanish_nor_explode(name):
    graph = small(name)
    values = [
        node.outputs[0]
        for node in graph.nodes
        if isinstance(node.op, ops.Conv | ops.BatchNorm | ops.Add | ops.Dense)
    ]
    values = [*values[: -1 : len(values) // 12 + 1], values[-1]]
    with Model(graph, threads=1) as model:
        found = model.run(random_input(graph, 3), outputs=values)
    for value, array in found.items():
        assert 0.02 < array.std() < 50, value
    last = found[values[-1]]
    assert last.std(axis=0).mean() > 0.01 * last.std(), "all images look the same"


@pytest.mark.parametrize("name", ["lenet", "squeezenet", "mobilenet_v3", "m5"])
def test_weights_are_drawn_by_seed_or_given(name):
    build = functools.partial(ARCHITECTURES[name], **SMALL.get(name, {"image": 64}))
    graph = small(name)
    same, other = build(seed=1), build(seed=2)
    given = build({key: array + 0 for key, array in graph.params.items()}, seed=2)
    assert graph.params.keys() == same.params.keys() == given.params.keys()
    assert all(
        np.array_equal(graph.params[key], same.params[key]) for key in same.params
    )
    assert all(
        np.array_equal(graph.params[key], given.params[key]) for key in given.params
    )
    assert any(
        not np.array_equal(graph.params[key], other.params[key]) for key in other.params
    )


def test_weights_that_do_not_fit():
    weights = dict(small("lenet").params)
    build = ARCHITECTURES["lenet"]
    with pytest.raises(
        GraphError, match=r"no layer has the weights \['conv9/kernel'\]"
    ):
        build({**weights, "conv9/kernel": np.zeros(3, np.float32)})
    with pytest.raises(GraphError, match=r"'fc1/bias' is \(2,\), wanted \(120,\)"):
        build({**weights, "fc1/bias": np.zeros(2, np.float32)})
    del weights["conv2/bias"]
    with pytest.raises(GraphError, match="the weight 'conv2/bias' is missing"):
        build(weights)


@pytest.mark.parametrize("name", ["lenet", "shufflenet_v2"])
def test_a_file_holds_all_of_it(name, tmp_path):
    graph = small(name)
    striate.save(graph, tmp_path / "net.h5")
    back = striate.read(tmp_path / "net.h5")
    feeds = random_input(graph)
    with Model(graph, threads=1) as first, Model(back, threads=1) as second:
        wanted, found = first.run(feeds), second.run(feeds)
    assert [node.name for node in back.nodes] == [node.name for node in graph.nodes]
    for output in graph.outputs:
        assert found[output].tobytes() == wanted[output].tobytes()


def test_pictures_are_prepared_as_for_imagenet():
    graph = ARCHITECTURES["squeezenet"](image=96)
    assert graph.preprocess.crop == (96, 96)
    assert graph.preprocess.std == (0.229, 0.224, 0.225)
    picture = np.random.default_rng(0).integers(0, 256, (120, 150, 3), np.uint8)
    with Model(graph, threads=1) as model:
        answers = model.classify(picture, top=3)
    assert len(answers) == 3
    assert answers[0][1] >= answers[1][1] > 0
