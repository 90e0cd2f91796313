"""Keras files: every layer against Keras, pitfalls, Keras 2, hostile files."""

import io
import zipfile

import h5py
import keras_models
import numpy as np
import pytest
import striate
from keras_models import Branches, L, difference, keras, keras2, randomise
from striate import ops
from striate.errors import ModelFormatError, UnsupportedModelError
from striate.tools.from_keras import from_keras, operators
from striate.tools.from_keras.registry import layers as registered
from striate.tools.oracles.keras import oracle

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning"
)

NEAR = 2e-5
"""float32 in another order, over sums of at most a few hundred products, relative."""


def saved(model, path):
    model.save(path)
    return path


def predicted(path, feed):
    """Return what the converted network of one input and one output answers."""
    graph = from_keras(path)
    return only(striate.Model(graph).run({graph.inputs[0].name: feed}))


def only(results):
    (found,) = results.values()
    return found


def sequential(path, shape, *parts, seed=0):
    """Save layers in a row with random weights; return the model."""
    model = keras.Sequential([L.Input(shape), *parts])
    randomise(model, np.random.default_rng(seed))
    model.save(path)
    return model


def picture(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def near(found, expected, tolerance=NEAR):
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, 0, tolerance * np.abs(expected).max())


@pytest.mark.parametrize("family", keras_models.FAMILIES, ids=lambda f: f.__name__)
def test_layers_are_those_of_keras(family, tmp_path):
    branches = Branches(seed=7)
    repeats = 4 if family in (keras_models.convolutions, keras_models.pools) else 1
    for _ in range(repeats):
        family(branches)
    path = saved(branches.model(), tmp_path / "all.keras")
    graph = from_keras(path)
    feeds = {e.name: picture(2, *e.shape[1:]) for e in graph.inputs}
    compared = oracle(path, graph)
    expected = compared.run(feeds)
    assert not compared.notes
    found = striate.Model(graph).run(feeds)
    for name, y in expected.items():
        near(found[name], y)


def test_all_registered_layers_but_old_ones_are_made_by_the_families():
    old = {"LocallyConnected1D", "LocallyConnected2D", "ThresholdedReLU"}
    aliases = {"AvgPool2D", "MaxPool2D", "Convolution1D", "BatchNormalizationV1"}
    here = {"CustomScaleLayer", "Embedding", "LayerScale", "SyncBatchNormalization"}
    identities = registered.find("Dropout")
    made = set()
    for family in keras_models.FAMILIES:
        branches = Branches(seed=0)
        family(branches)
        made |= {type(op).__name__ for op in branches.model().operations}
    missing = set(registered.operators()) - made - old - aliases - here
    missing = {kind for kind in missing if registered.find(kind) is not identities}
    assert missing == {"Activation"} - made


@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV3Small", "EfficientNetB0"])
def test_applications(name, tmp_path):
    assert difference(keras_models.application(name, tmp_path), 3) < 1e-4


def test_top_1_is_keras_s_wherever_the_margin_is_clear(tmp_path):
    model = sequential(
        tmp_path / "m.keras",
        (16, 16, 3),
        L.Conv2D(16, 3, padding="same", strides=2, activation="relu"),
        L.SeparableConv2D(32, 3, padding="same"),
        L.BatchNormalization(),
        L.ReLU(6.0),
        L.GlobalAveragePooling2D(),
        L.Dense(20, activation="softmax"),
    )
    x = picture(1000, 16, 16, 3)
    expected = model.predict(x, verbose=0)
    found = predicted(tmp_path / "m.keras", x)
    best = np.sort(expected, axis=-1)
    clear = best[:, -1] - best[:, -2] > 1e-3
    assert clear.sum() > 500
    assert (found.argmax(-1) == expected.argmax(-1))[clear].all()


# Pitfalls.


def test_same_padding_puts_the_odd_pixel_at_the_end(tmp_path):
    kernel = picture(3, 3, 2, 4)
    model = keras.Sequential([L.Input((14, 14, 2)), L.Conv2D(4, 3, 2, "same")])
    model.layers[0].set_weights([kernel, np.zeros(4, np.float32)])
    path = saved(model, tmp_path / "m.keras")
    x = picture(2, 14, 14, 2)
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    expected = ops.Conv((2, 2)).reference(padded.astype(float), kernel)
    near(predicted(path, x), expected)


@pytest.mark.parametrize(("size", "stride"), [(3, 2), (2, 1), (4, 3), (3, 1)])
def test_average_pooling_same_leaves_padding_out_as_tensorflow_does(
    size, stride, tmp_path
):
    sequential(
        tmp_path / "m.keras", (8, 8, 2), L.AveragePooling2D(size, stride, "same")
    )
    x = picture(2, 8, 8, 2)
    count = -(-8 // stride)
    before = max(0, (count - 1) * stride + size - 8) // 2
    starts = [max(0, i * stride - before) for i in range(count)]
    stops = [min(8, i * stride - before + size) for i in range(count)]
    windows = [
        [x[:, a:b, c:d].mean((1, 2)) for c, d in zip(starts, stops, strict=True)]
        for a, b in zip(starts, stops, strict=True)
    ]
    expected = np.array(windows).transpose(2, 0, 1, 3)
    near(predicted(tmp_path / "m.keras", x), expected)


def test_the_oracle_says_where_the_backend_is_not_tensorflow(tmp_path):
    path = tmp_path / "m.keras"
    sequential(
        path,
        (8, 8, 2),
        L.AveragePooling2D(3, 2, "same", name="pool"),
        L.UpSampling2D(2, interpolation="bicubic", name="up"),
        L.Conv2D(2, 3),
    )
    graph = from_keras(path)
    compared = oracle(path, graph)
    assert [note.split()[0] for note in compared.notes] == ["pool", "up"]
    assert difference(path, 2) < NEAR
    feeds = {graph.inputs[0].name: picture(1, 8, 8, 2)}
    names = [name for name, _ in compared.layers(feeds)]
    assert names[:2] == ["pool", "up"]
    assert len(names) == 3


def test_bicubic_is_keys_kernel_without_what_lies_outside(tmp_path):
    sequential(
        tmp_path / "m.keras", (6, 1, 1), L.Resizing(13, 1, interpolation="bicubic")
    )
    x = picture(1, 6, 1, 1)
    matrix = np.zeros((13, 6))
    for row in range(13):
        place = (row + 0.5) * 6 / 13 - 0.5
        for tap in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            d = abs(place - tap)
            near_one = 1.5 * d**3 - 2.5 * d**2 + 1
            beyond = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
            if 0 <= tap < 6:
                matrix[row, tap] = near_one if d <= 1 else beyond
    matrix /= matrix.sum(1, keepdims=True)
    expected = (matrix @ x.reshape(6)).reshape(1, 13, 1, 1)
    near(predicted(tmp_path / "m.keras", x), expected)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("more", [None, 0, 1])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_transposed_convolution_is_tensorflow_s_gradient(padding, more, size, tmp_path):
    layer = L.Conv1DTranspose(3, size, 2, padding, output_padding=more)
    model = keras.Sequential([L.Input((5, 2)), layer])
    randomise(model, np.random.default_rng(0))
    path = saved(model, tmp_path / "m.keras")
    kernel, bias = layer.get_weights()
    x = picture(2, 5, 2)
    spread = np.zeros((2, 4 * 2 + size + 2, 3), np.float32)
    for place in range(5):
        spread[:, 2 * place : 2 * place + size] += np.einsum(
            "kmc,nc->nkm", kernel, x[:, place]
        )
    length = model.output_shape[1] or layer.compute_output_shape((None, 5, 2))[1]
    outside = max(4 * 2 + size - length, 0) if padding == "same" else 0
    start = outside // 2
    near(predicted(path, x), spread[:, start : start + length] + bias)


def test_batch_normalization_without_scale_or_center_has_fewer_weights(tmp_path):
    path = tmp_path / "m.keras"
    sequential(
        path,
        (4, 4, 3),
        L.BatchNormalization(scale=False),
        L.BatchNormalization(center=False),
        L.BatchNormalization(scale=False, center=False),
    )
    assert difference(path, 2) < NEAR


def test_epsilons_are_the_file_s(tmp_path):
    path = tmp_path / "m.keras"
    model = sequential(
        path,
        (3,),
        L.BatchNormalization(epsilon=1e-3),
        L.BatchNormalization(epsilon=1.001e-5),
    )
    for layer in model.layers:
        gamma, beta, mean, variance = layer.get_weights()
        layer.set_weights([gamma, beta, mean, variance * 1e-4])
    model.save(path)
    assert difference(path, 2) < NEAR


def test_hard_sigmoid_has_another_slope_in_files_of_keras_2(tmp_path):
    x = np.linspace(-4, 4, 9, dtype=np.float32)[None]
    old = keras2(
        tmp_path / "old.h5",
        [entry("Activation", "a", batch_input_shape=[None, 9], activation=HARD)],
        {},
    )
    near(predicted(old, x), np.clip(0.2 * x + 0.5, 0, 1))
    sequential(tmp_path / "new.keras", (9,), L.Activation("hard_sigmoid"))
    near(predicted(tmp_path / "new.keras", x), np.clip(x / 6 + 0.5, 0, 1))


HARD = "hard_sigmoid"


def entry(kind, name, **config):
    return {"class_name": kind, "config": {"name": name, **config}, "name": name}


def test_leaky_relu_defaults_to_a_slope_of_three_tenths(tmp_path):
    sequential(tmp_path / "m.keras", (3,), L.LeakyReLU())
    x = np.array([[-1, 0, 2]], np.float32)
    near(predicted(tmp_path / "m.keras", x), [[-0.3, 0, 2]])
    old = keras2(
        tmp_path / "old.h5",
        [entry("LeakyReLU", "a", batch_input_shape=[None, 3], alpha=0.1)],
        {},
    )
    near(predicted(old, x), [[-0.1, 0, 2]])


@pytest.mark.parametrize("shared", [None, [1, 2], [2]])
def test_prelu_slopes_are_shared_or_not(shared, tmp_path):
    model = sequential(tmp_path / "m.keras", (4, 5, 3), L.PReLU(shared_axes=shared))
    x = picture(2, 4, 5, 3)
    alpha = model.get_weights()[0]
    near(predicted(tmp_path / "m.keras", x), np.where(x < 0, x * alpha, x))


def test_depthwise_channels_are_those_of_one_input_together(tmp_path):
    model = sequential(
        tmp_path / "m.keras", (5, 5, 3), L.DepthwiseConv2D(1, depth_multiplier=2)
    )
    kernel, bias = model.get_weights()
    x = picture(2, 5, 5, 3)
    expected = np.einsum("nhwc,cm->nhwcm", x, kernel[0, 0]).reshape(2, 5, 5, 6) + bias
    near(predicted(tmp_path / "m.keras", x), expected)


def test_channels_first_flattens_channels_last_and_transposes_nothing(tmp_path):
    path = tmp_path / "m.keras"
    first = {"data_format": "channels_first"}
    model = sequential(
        path,
        (3, 8, 9),
        L.Conv2D(4, 3, padding="same", strides=2, **first),
        L.BatchNormalization(axis=1),
        L.PReLU(shared_axes=[2, 3]),
        L.MaxPooling2D(2, **first),
        L.ZeroPadding2D(1, **first),
        L.UpSampling2D(2, **first),
        L.Flatten(**first),
        L.Dense(5),
    )
    x = picture(2, 3, 8, 9)
    expected = model.predict(x, verbose=0)
    graph = from_keras(path)
    assert graph.metadata["conversion"]["transposes"] == []
    name = graph.inputs[0].name
    last = only(striate.Model(graph).run({name: x.transpose(0, 2, 3, 1)}))
    near(last, expected)
    source = from_keras(path, io="source")
    near(only(striate.Model(source).run({name: x})), expected)
    assert difference(path, 2) < NEAR


def test_layer_normalization_over_an_inner_axis(tmp_path):
    model = sequential(tmp_path / "m.keras", (4, 3), L.LayerNormalization(axis=1))
    gamma, beta = (w[:, None] for w in model.get_weights())
    x = picture(2, 4, 3)
    normal = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-3)
    near(predicted(tmp_path / "m.keras", x), normal * gamma + beta)


# How networks are put together.


def linked():
    """Return a model with shared, nested and repeated layers, inputs and outputs."""
    a, b = keras.Input((8, 8, 3), name="a"), keras.Input((8, 8, 3), name="b")
    shared = L.Conv2D(4, 3, padding="same", name="shared")
    inner = keras.Sequential(
        [
            L.Input((8, 8, 4)),
            L.Conv2D(4, 3, padding="same"),
            L.BatchNormalization(),
            L.PReLU(shared_axes=[1, 2]),
        ],
        name="inner",
    )
    inside = keras.Input((8, 8, 4))
    both = keras.Model(
        inside, [L.Conv2D(2, 1)(inside), L.ReLU()(inner(inside))], name="both"
    )
    x, y = shared(a), shared(b)
    one, two = both(inner(x))
    three, four = both(y)
    total = L.Concatenate()([one, three, L.Add()([two, four])])
    out = L.Dense(5, name="classes")(L.GlobalMaxPooling2D()(total))
    model = keras.Model([a, b], {"z": out, "map": both(x)[1]}, name="linked")
    randomise(model, np.random.default_rng(3))
    return model


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("frozen", [False, True])
def test_shared_and_nested_layers(ending, frozen, tmp_path):
    model = linked()
    model.get_layer("both").get_layer("inner").layers[1].trainable = not frozen
    graph = from_keras(saved(model, tmp_path / f"m.{ending}"))
    feeds = {name: picture(2, 8, 8, 3, seed=ord(name)) for name in "ab"}
    expected = model.predict([feeds["a"], feeds["b"]], verbose=0)
    found = striate.Model(graph).run(feeds)
    for name, y in zip(graph.outputs, [expected["map"], expected["z"]], strict=True):
        near(found[name], y)
    assert {entry.name for entry in graph.inputs} == {"a", "b"}
    assert (
        graph.node("shared").params["kernel"] == graph.node("shared_2").params["kernel"]
    )


def test_order_and_provenance_are_told(tmp_path):
    path = saved(linked(), tmp_path / "m.keras")
    steps = []
    graph = from_keras(path, progress=lambda done, count: steps.append((done, count)))
    assert steps[-1][0] == steps[-1][1]
    assert graph.provenance["source_framework"] == "keras"
    assert graph.provenance["source_format"] == f"Keras {keras.__version__} archive"
    assert len(graph.provenance["source_sha256"]) == 64
    done = graph.metadata["conversion"]
    assert done["order"]["a"] == {"source": "a", "axes": [0, 1, 2, 3]}
    assert done["nodes_in"] == steps[-1][1]


def test_a_chain_that_was_built_by_a_call_has_its_shape_from_that(tmp_path):
    model = keras.Sequential([L.Conv2D(3, 3), L.Flatten(), L.Dense(2)])
    model(np.zeros((1, 6, 6, 2), np.float32))
    randomise(model, np.random.default_rng(0))
    path = saved(model, tmp_path / "m.keras")
    x = picture(3, 6, 6, 2)
    near(predicted(path, x), model.predict(x, verbose=0))


def test_sizes_that_are_open_stay_open(tmp_path):
    model = sequential(
        tmp_path / "m.keras",
        (None, None, 3),
        L.Conv2D(4, 3, strides=2, padding="same"),
        L.UpSampling2D(2, interpolation="bilinear"),
        L.GlobalAveragePooling2D(),
        L.Dense(2),
    )
    graph = from_keras(tmp_path / "m.keras")
    assert graph.inputs[0].shape == ("N", "H", "W", 3)
    network = striate.Model(graph)
    for shape in ((1, 9, 12, 3), (2, 32, 20, 3)):
        x = picture(*shape)
        found = only(network.run({graph.inputs[0].name: x}))
        near(found, model.predict(x, verbose=0))


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_float16"])
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_short_weights_are_widened(policy, ending, tmp_path):
    path = tmp_path / f"m.{ending}"
    model = keras.Sequential([L.Input((6,)), L.Dense(4, dtype=policy)])
    randomise(model, np.random.default_rng(0))
    model.save(path)
    kernel, bias = (
        keras.ops.convert_to_numpy(keras.ops.cast(w, "float32")) for w in model.weights
    )
    x = picture(2, 6)
    near(predicted(path, x), x @ kernel + bias)
    notes = from_keras(path).metadata["conversion"]["notes"]
    assert any("computed in float32" in note for note in notes)


def test_text_classifier(tmp_path):
    model = keras.Sequential(
        [
            L.Input((12,), dtype="int32"),
            L.Embedding(20, 6),
            L.Conv1D(5, 3, activation="relu"),
            L.GlobalMaxPooling1D(),
            L.Dense(3),
        ]
    )
    randomise(model, np.random.default_rng(0))
    path = saved(model, tmp_path / "m.keras")
    tokens = np.random.default_rng(0).integers(0, 20, (2, 12)).astype(np.int32)
    near(predicted(path, tokens), model.predict(tokens, verbose=0))


def test_networks_that_scale_pixels_say_that_they_take_them(tmp_path):
    path = tmp_path / "m.keras"
    sequential(path, (8, 6, 3), L.Rescaling(1 / 127.5, -1), L.Conv2D(2, 3))
    found = from_keras(path).preprocess
    assert found is not None
    assert (found.scale, found.mean, found.std, found.colour) == (
        1.0,
        (0.0,),
        (1.0,),
        "RGB",
    )
    assert found.resize is not None
    assert found.resize.size == (8, 6)
    sequential(path, (8, 6, 3), L.Conv2D(2, 3))
    assert from_keras(path).preprocess is None
    sequential(path, (8, 6, 3), L.Rescaling(2.0), L.Conv2D(2, 3))
    assert from_keras(path).preprocess is None


def test_activations_that_are_layers(tmp_path):
    path = tmp_path / "m.keras"
    sequential(path, (6, 6, 2), L.Conv2D(3, 3, activation=L.LeakyReLU(0.1)))
    assert difference(path, 2) < NEAR


# Keras 2.


def called(name, *reads, **kwargs):
    return [[[layer, index, 0, kwargs] for layer, index in reads]]


def test_functional_network_of_keras_2_with_one_inside(tmp_path):
    kernel, bias, matrix = picture(3, 3, 2, 2), picture(2), picture(2, 3)
    inside = {
        "class_name": "Sequential",
        "name": "body",
        "config": {
            "name": "body",
            "layers": [
                entry("InputLayer", "body_input", batch_input_shape=[None, 6, 6, 2]),
                entry("Conv2D", "conv", filters=2, kernel_size=[3, 3], padding="same"),
                entry("BatchNormalization", "bn", axis=[3], epsilon=0.001),
            ],
        },
        "inbound_nodes": [*called("body", ("x", 0)), *called("body", ("body", 1))],
    }
    gamma, beta, mean, variance = picture(2), picture(2), picture(2), np.ones(2, "f")
    layers = [
        {
            **entry("InputLayer", "x", batch_input_shape=[None, 6, 6, 2]),
            "inbound_nodes": [],
        },
        inside,
        {
            **entry("Add", "add"),
            "inbound_nodes": called("add", ("body", 1), ("body", 2)),
        },
        {
            **entry("TFOpLambda", "tf.math.multiply", function="math.multiply"),
            "inbound_nodes": [["add", 0, 0, {"y": 0.5, "name": None}]],
        },
        {
            **entry("GlobalAveragePooling2D", "gap"),
            "inbound_nodes": called("gap", ("tf.math.multiply", 0)),
        },
        {
            **entry("Dense", "dense", units=3, use_bias=False),
            "inbound_nodes": called("dense", ("gap", 0)),
        },
    ]
    path = keras2(
        tmp_path / "m.h5",
        layers,
        {
            "body": [
                ("conv/kernel:0", kernel),
                ("conv/bias:0", bias),
                ("bn/gamma:0", gamma),
                ("bn/beta:0", beta),
                ("bn/moving_mean:0", mean),
                ("bn/moving_variance:0", variance),
            ],
            "dense": [("dense/kernel:0", matrix)],
        },
        ([["x", 0, 0]], [["dense", 0, 0]]),
    )

    def body(x):
        y = ops.Conv(padding="same").reference(x, kernel, bias)
        return ops.BatchNorm(1e-3).reference(y, gamma, beta, mean, variance)

    x = picture(2, 6, 6, 2).astype(np.float64)
    one = body(x)
    expected = ((one + body(one)) * 0.5).mean((1, 2)) @ matrix
    near(predicted(path, x.astype(np.float32)), expected)


def windows(x, size, stride, before, counts):
    """Return (N, positions..., elements of a window) of a padded image."""
    pads = [(b, 9) for b in before]
    padded = np.pad(x, [(0, 0), *pads, (0, 0)])
    rows = [
        [
            padded[:, i * stride[0] :, j * stride[1] :][:, : size[0], : size[1]]
            for j in range(counts[1])
        ]
        for i in range(counts[0])
    ]
    return np.array(rows).transpose(2, 0, 1, 3, 4, 5)


@pytest.mark.parametrize("implementation", [1, 2, 3])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("first", [False, True])
def test_locally_connected_layers_of_keras_2(implementation, padding, first, tmp_path):
    if (implementation, padding) == (1, "same"):
        padding = "valid"
    size, stride, n, channels, filters = (3, 2), (2, 1), (7, 5), 2, 3
    counts = [
        -(-n[a] // stride[a])
        if padding == "same"
        else (n[a] - size[a]) // stride[a] + 1
        for a in (0, 1)
    ]
    before = [k // 2 if padding == "same" else 0 for k in size]
    own = picture(*counts, *size, channels, filters)
    bias = picture(*counts, filters)
    dense = np.zeros((*n, channels, *counts, filters), np.float32)
    for place in np.ndindex(*counts):
        for tap in np.ndindex(*size):
            at = tuple(
                p * s - b + t
                for p, s, b, t in zip(place, stride, before, tap, strict=True)
            )
            if all(0 <= i < m for i, m in zip(at, n, strict=True)):
                dense[(*at, slice(None), *place)] = own[place + tap]
    connected = dense != 0
    if first:
        dense = dense.transpose(2, 0, 1, 5, 3, 4)
        connected = connected.transpose(2, 0, 1, 5, 3, 4)
    patches = own.transpose(0, 1, 4, 2, 3, 5) if first else own
    kernel = {
        1: patches.reshape(counts[0] * counts[1], -1, filters),
        2: dense,
        3: dense.transpose(3, 4, 5, 0, 1, 2)[connected.transpose(3, 4, 5, 0, 1, 2)],
    }[implementation]
    shape = (channels, *n) if first else (*n, channels)
    path = keras2(
        tmp_path / "m.h5",
        [
            entry(
                "LocallyConnected2D",
                "local",
                batch_input_shape=[None, *shape],
                filters=filters,
                kernel_size=size,
                strides=stride,
                padding=padding,
                data_format="channels_first" if first else "channels_last",
                activation="linear",
                use_bias=True,
                implementation=implementation,
            )
        ],
        {"local": [("local/kernel:0", kernel), ("local/bias:0", bias)]},
    )
    x = picture(2, *n, channels)
    expected = np.einsum(
        "npqijc,pqijcf->npqf", windows(x, size, stride, before, counts), own
    )
    near(predicted(path, x), expected + bias)


def test_locally_connected_sequence_of_keras_2(tmp_path):
    own = picture(4, 3 * 2, 5)
    path = keras2(
        tmp_path / "m.h5",
        [
            entry(
                "LocallyConnected1D",
                "local",
                batch_input_shape=[None, 6, 2],
                filters=5,
                kernel_size=[3],
                strides=[1],
                use_bias=False,
            )
        ],
        {"local": [("local/kernel:0", own)]},
    )
    x = picture(2, 6, 2)
    rows = np.stack([x[:, i : i + 3].reshape(2, -1) for i in range(4)], axis=1)
    near(predicted(path, x), np.einsum("npk,pkf->npf", rows, own))


def test_early_archives_call_the_group_of_layers_otherwise(archive, tmp_path):
    def early(file):
        file.move("layers", "_layer_checkpoint_dependencies")

    path = written(tmp_path / "old.keras", hostile(archive, early))
    new = written(tmp_path / "new.keras", archive)
    x = picture(2, 4, 4, 2)
    np.testing.assert_array_equal(predicted(path, x), predicted(new, x))


def test_layers_called_by_keyword(tmp_path):
    x = keras.Input((4,))
    y = L.Add()(inputs=[x, L.Dense(4)(inputs=x)])
    model = keras.Model(x, y)
    randomise(model, np.random.default_rng(0))
    path = saved(model, tmp_path / "m.keras")
    assert difference(path, 2) < NEAR


def test_old_layers(tmp_path):
    path = keras2(
        tmp_path / "m.h5",
        [
            entry("InputLayer", "x", batch_input_shape=[None, 4]),
            entry("ThresholdedReLU", "t", theta=0.5),
        ],
        {},
    )
    x = picture(2, 4)
    near(predicted(path, x), np.where(x > 0.5, x, 0))


# What is refused.


def test_everything_unsupported_is_told_at_once(tmp_path):
    @keras.saving.register_keras_serializable("mine")
    class Own(L.Layer):
        def call(self, x):
            return x + 1

    x = keras.Input((4, 4, 2))
    y = L.Lambda(lambda z: z * 2, name="double", output_shape=(4, 4, 2))(x)
    y = Own(name="own")(y)
    y = L.Conv2D(2, 1, activation="sparsemax", name="odd")(y)
    y = L.Dropout(0.5)(L.Masking()(L.Reshape((16, 2))(y)))
    path = saved(keras.Model(x, y), tmp_path / "m.keras")
    with pytest.raises(UnsupportedModelError) as caught:
        from_keras(path)
    text = str(caught.value)
    for part in (
        "double",
        "no code of a file is run",
        "Own",
        "sparsemax",
        "Masking",
    ):
        assert part in text
    assert "Dropout" not in text


@pytest.mark.parametrize("setting", ["stateful", "time_major"])
def test_layers_that_do_not_walk_along_each_picture_s_time_are_refused(
    setting, tmp_path
):
    lstm = entry("LSTM", "walk", batch_input_shape=[None, 5, 3], units=2)
    lstm["config"][setting] = True
    shapes = {"kernel": (3, 8), "recurrent_kernel": (2, 8), "bias": (8,)}
    weights = [(name, np.ones(shape, np.float32)) for name, shape in shapes.items()]
    path = keras2(tmp_path / "m.h5", [lstm], {"walk": weights})
    with pytest.raises(UnsupportedModelError, match=setting):
        from_keras(path)
    lstm["config"][setting] = False
    allowed = keras2(tmp_path / "allowed.h5", [lstm], {"walk": weights})
    assert from_keras(allowed).nodes


def test_lambda_of_keras_2_is_not_run(tmp_path):
    marker = tmp_path / "run"
    code = f"import pathlib; pathlib.Path({str(marker)!r}).touch()"
    path = keras2(
        tmp_path / "m.h5",
        [
            entry(
                "Lambda",
                "evil",
                batch_input_shape=[None, 3],
                function=[code, None, None],
            )
        ],
        {},
    )
    with pytest.raises(UnsupportedModelError, match="evil"):
        from_keras(path)
    assert not marker.exists()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Return the bytes of each member of a sound archive."""
    path = tmp_path_factory.mktemp("sound") / "m.keras"
    sequential(path, (4, 4, 2), L.Conv2D(2, 3), L.Flatten(), L.Dense(3))
    with zipfile.ZipFile(path) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def written(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as opened:
        for name, contents in members.items():
            opened.writestr(name, contents)
    return path


def refused(path, code):
    before = sorted(path.parent.iterdir())
    with pytest.raises(ModelFormatError) as caught:
        from_keras(path)
    assert caught.value.code == code
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(path.parent.iterdir()) == before


def test_foreign_and_broken_files_are_refused(archive, tmp_path):
    path = tmp_path / "m.keras"
    path.write_bytes(b"not a model at all")
    refused(path, "not_keras")
    refused(tmp_path, "not_a_file")
    whole = written(path, archive).read_bytes()
    for length in (10, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:length])
        refused(path, "keras_archive")
    for name in archive:
        written(path, {k: v for k, v in archive.items() if k != name})
        refused(path, "keras_archive")


def test_bombs_and_paths_in_archives_are_refused(archive, tmp_path):
    path = tmp_path / "m.keras"
    zeros = bytes(80 << 20)
    bomb = {**archive, "model.weights.h5": archive["model.weights.h5"] + zeros}
    refused(written(path, bomb, zipfile.ZIP_DEFLATED), "keras_archive")
    refused(written(path, {**archive, "../../evil": b"x"}), "keras_archive")
    refused(written(path, {**archive, "/evil": b"x"}), "keras_archive")
    pickled = {k: v for k, v in archive.items() if k != "model.weights.h5"}
    refused(written(path, {**pickled, "model.weights.npz": b"x"}), "keras_archive")


@pytest.mark.parametrize(
    "config",
    [
        b"{",
        b"[]",
        b'{"class_name": "Sequential"}',
        b"[" * 100_000,
        b'{"class_name": "Functional", "config": {"layers": 3, "input_layers": []}}',
        b'{"class_name": "Sequential", "config": "text"}',
        b'{"class_name": "Functional", "config": {"layers": [], "input_layers": '
        b'["a", [], 0], "output_layers": []}}',
    ],
)
def test_descriptions_that_make_no_sense_are_refused(config, archive, tmp_path):
    path = written(tmp_path / "m.keras", {**archive, "config.json": config})
    with pytest.raises((ModelFormatError, UnsupportedModelError)) as caught:
        from_keras(path)
    assert str(path) in str(caught.value)


def hostile(archive, change):
    """Return the archive with another file of weights."""
    stream = io.BytesIO(archive["model.weights.h5"])
    with h5py.File(stream, "r+") as file:
        change(file)
    return {**archive, "model.weights.h5": stream.getvalue()}


KERNEL = "layers/conv2d/vars/0"


def test_hostile_weights_are_refused(archive, tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.ones((3, 3, 2, 2), np.float32)

    def external_link(file):
        del file[KERNEL]
        file[KERNEL] = h5py.ExternalLink(str(secret), "/x")

    def soft_link(file):
        del file[KERNEL]
        file[KERNEL] = h5py.SoftLink("/layers/conv2d/vars/1")

    def hard_link(file):
        file["layers/conv2d/vars/2"] = file[KERNEL]

    def cycle(file):
        file["layers/conv2d/layers"] = file["layers"]

    def external_storage(file):
        del file[KERNEL]
        file.create_dataset(
            KERNEL, (3, 3, 2, 2), "f4", external=[(str(secret), 0, 144)]
        )

    def virtual(file):
        del file[KERNEL]
        layout = h5py.VirtualLayout((3, 3, 2, 2), "f4")
        layout[...] = h5py.VirtualSource(str(secret), "x", (3, 3, 2, 2))
        file.create_virtual_dataset(KERNEL, layout)

    def compressed(file):
        del file[KERNEL]
        file.create_dataset(KERNEL, data=np.ones((3, 3, 2, 2), "f4"), compression=4)

    def unwritten(file):
        del file[KERNEL]
        file.create_dataset(KERNEL, (1 << 20, 1 << 20, 2, 2), "f4", chunks=True)

    for change in (
        external_link,
        soft_link,
        hard_link,
        cycle,
        external_storage,
        virtual,
        compressed,
        unwritten,
    ):
        path = written(tmp_path / "m.keras", hostile(archive, change))
        refused(path, "hdf5")


def test_weights_that_are_cut_off_or_garbage_are_refused(archive, tmp_path):
    sound = archive["model.weights.h5"]
    path = tmp_path / "m.keras"
    rng = np.random.default_rng(0)
    for length in (0, 7, 100, len(sound) // 2):
        short = {**archive, "model.weights.h5": sound[:length]}
        refused(written(path, short), "not_keras" if length < 8 else "hdf5")
    garbage = sound[:8] + rng.bytes(len(sound) - 8)
    refused(written(path, {**archive, "model.weights.h5": garbage}), "hdf5")


def test_links_in_h5_files_are_refused(tmp_path):
    path = tmp_path / "m.h5"
    sequential(path, (3,), L.Dense(2, name="dense"))
    with h5py.File(path, "r+") as file:
        file["model_weights/dense/away"] = h5py.ExternalLink("/etc/passwd", "/x")
    refused(path, "hdf5")


def test_weights_alone_are_no_model(tmp_path):
    model = keras.Sequential([L.Input((3,)), L.Dense(2)])
    path = tmp_path / "m.weights.h5"
    model.save_weights(path)
    refused(path, "not_keras")


def test_a_missing_weight_is_told_with_its_layer(archive, tmp_path):
    def fewer(file):
        del file["layers/conv2d/vars/1"]

    path = written(tmp_path / "m.keras", hostile(archive, fewer))
    with pytest.raises(UnsupportedModelError, match="kernel, bias"):
        from_keras(path)


def test_operators_are_listed():
    names = operators()
    assert {"Conv2D", "ops.Add", "Bidirectional", "LocallyConnected2D"} <= set(names)
    assert names == sorted(names)
