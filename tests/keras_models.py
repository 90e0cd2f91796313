"""Keras models for tests of the converter: every layer, and files of Keras 2.

As a command it converts all of ``keras.applications`` with random weights and compares
the answers with Keras's: ``python -m tests.keras_models [NAME ...]``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import h5py
import keras
import numpy as np
import striate
from keras import layers as L
from keras import ops as K
from striate.spec import Array
from striate.tools.from_keras import from_keras
from striate.tools.oracles.keras import oracle

ACTIVATIONS = [
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "celu",
    "softplus",
    "softsign",
    "soft_shrink",
    "hard_shrink",
    "hard_tanh",
    "tanh",
    "sigmoid",
    "sparse_sigmoid",
    "exponential",
    "silu",
    "hard_silu",
    "gelu",
    "mish",
    "squareplus",
    "sparse_plus",
    "tanh_shrink",
    "log_sigmoid",
    "glu",
    "softmax",
    "log_softmax",
    "hard_sigmoid",
    "linear",
]

SMALLEST = {
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "Xception": 71,
}
"""The smallest pictures that some networks take."""

NETWORKS = [
    name
    for name in sorted(dir(keras.applications))
    if name[0].isupper() and not name.startswith("NASNet")
]
"""All but NASNet, which Keras does not build on its PyTorch backend."""


def randomise(model: keras.Model, rng: np.random.Generator) -> None:
    """Give a model weights that make every one of them matter."""
    for weight in model.weights:
        shape = tuple(weight.shape)
        if weight.path.endswith("count"):
            continue
        values = rng.standard_normal(shape) * 0.5
        if "variance" in weight.path:
            values = rng.uniform(0.5, 1.5, shape)
        elif "gamma" in weight.path:
            values = rng.uniform(0.7, 1.3, shape)
        elif weight.path.endswith("kernel"):
            fan = max(1, int(np.prod(shape[:-1])))
            values = rng.standard_normal(shape) * np.sqrt(2 / fan)
        weight.assign(values.astype(np.float32))


class Branches:
    """Layers side by side, each on an input of its own choice."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        shapes = {
            "image": (9, 10, 4),
            "other": (9, 10, 4),
            "sequence": (12, 6),
            "volume": (5, 6, 7, 4),
            "vector": (8,),
        }
        self.inputs = {n: keras.Input(s, name=n) for n, s in shapes.items()}
        self.outputs: list[Any] = []

    def add(self, layer: Callable[..., Any], *names: str) -> None:
        """Add what a layer makes of inputs."""
        given = [self.inputs[name] for name in names]
        results = layer(given[0] if len(given) == 1 else given)
        several = isinstance(results, (list, tuple))
        self.outputs += list(results) if several else [results]

    def one(self, *choices: Any) -> Any:
        """Return one of the choices."""
        return choices[int(self.rng.integers(len(choices)))]

    def model(self) -> keras.Model:
        """Return the model of all branches, with random weights."""
        model = keras.Model(list(self.inputs.values()), self.outputs)
        randomise(model, self.rng)
        return model


SPATIAL = {1: "sequence", 2: "image", 3: "volume"}


def convolutions(b: Branches) -> None:
    """Add convolutions of every kind."""
    for rank, name in SPATIAL.items():
        same = b.one("same", "valid")
        size = tuple(int(n) for n in b.rng.integers(1, 5, rank))
        conv = getattr(L, f"Conv{rank}D")
        b.add(
            conv(
                4,
                size,
                strides=b.one(1, 2, 3),
                padding=same,
                groups=b.one(1, 2),
                use_bias=b.one(True, False),
                activation=b.one(*ACTIVATIONS[:12]),
            ),
            name,
        )
        b.add(
            conv(3, b.one(2, 3), dilation_rate=2, padding=b.one("same", "valid")), name
        )
        b.add(
            getattr(L, f"Conv{rank}DTranspose")(
                3, b.one(1, 2, 3, 4), strides=b.one(1, 2, 3), padding=same
            ),
            name,
        )
        b.add(
            getattr(L, f"Conv{rank}DTranspose")(
                2, b.one(2, 3, 4), strides=2, output_padding=b.one(0, 1), padding=same
            ),
            name,
        )
    for rank in (1, 2):
        settings = {
            "kernel_size": b.one(1, 2, 3),
            "strides": b.one(1, 2),
            "padding": b.one("same", "valid"),
            "depth_multiplier": b.one(1, 2, 3),
        }
        b.add(getattr(L, f"DepthwiseConv{rank}D")(**settings), SPATIAL[rank])
        b.add(getattr(L, f"SeparableConv{rank}D")(5, **settings), SPATIAL[rank])
    b.add(L.Conv1D(3, b.one(2, 3), padding="causal", dilation_rate=2), "sequence")


def pools(b: Branches) -> None:
    """Add pooling of every kind; averages at the edge of an image are not here."""
    for rank, name in SPATIAL.items():
        size, stride = b.one(1, 2, 3, 4), b.one(1, 2, 3)
        padding = b.one("same", "valid")
        b.add(getattr(L, f"MaxPooling{rank}D")(size, stride, padding), name)
        b.add(getattr(L, f"AveragePooling{rank}D")(size, stride), name)
        b.add(
            getattr(L, f"GlobalAveragePooling{rank}D")(keepdims=b.one(False, True)),
            name,
        )
        b.add(getattr(L, f"GlobalMaxPooling{rank}D")(keepdims=b.one(False, True)), name)
        b.add(getattr(L, f"AdaptiveAveragePooling{rank}D")(b.one(2, 3, 4)), name)
        b.add(getattr(L, f"AdaptiveMaxPooling{rank}D")(b.one(2, 3, 4)), name)


def pointwise(b: Branches) -> None:
    """Add activations and normalisation on tensors of every rank."""
    for name in ACTIVATIONS:
        b.add(L.Activation(name), "image")
    for name, x in b.inputs.items():
        rest = list(range(1, len(x.shape)))
        for layer in (
            L.BatchNormalization(),
            L.BatchNormalization(scale=False, epsilon=1e-5),
            L.BatchNormalization(center=False, axis=1),
            L.BatchNormalization(scale=False, center=False),
            L.LayerNormalization(scale=b.one(True, False)),
            L.LayerNormalization(axis=rest, center=b.one(True, False)),
            L.GroupNormalization(2),
            L.GroupNormalization(-1, scale=False),
            L.UnitNormalization(),
            L.UnitNormalization(axis=rest),
            L.RMSNormalization(),
            L.Dense(3, use_bias=b.one(True, False), activation="relu"),
            L.Flatten(),
            L.Dropout(0.5),
            L.GaussianNoise(0.5),
            L.PReLU(),
            L.Softmax(),
            L.LeakyReLU(),
            L.LeakyReLU(0.2),
            L.ELU(0.7),
            L.ReLU(6.0),
            L.ReLU(b.one(None, 3.0), b.one(0.0, 0.1), b.one(0.0, 0.5)),
            L.Reshape((2, -1)),
            L.Rescaling(1 / 255, -1.0),
            L.Normalization(mean=1.0, variance=2.0),
            L.Normalization(),
            L.Normalization(invert=True),
        ):
            b.add(layer, name)
    for layer in (
        L.PReLU(shared_axes=[1, 2]),
        L.PReLU(shared_axes=[1]),
        L.Softmax(axis=[1, 2]),
        L.Softmax(axis=1),
        L.GroupNormalization(3, axis=1),
        L.Normalization(axis=1),
        L.Normalization(axis=None),
        L.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0, 2.0, 3.0, 0.1]),
        L.Rescaling([1.0, 2.0, 3.0, 4.0], [1.0, 0.0, 2.0, 0.0]),
    ):
        b.add(layer, "image")


def reshaping(b: Branches) -> None:
    """Add what moves, cuts, repeats, resamples and merges."""
    for rank, name in SPATIAL.items():
        b.add(getattr(L, f"UpSampling{rank}D")(b.one(2, 3)), name)
        b.add(getattr(L, f"ZeroPadding{rank}D")(b.one(1, 2)), name)
        b.add(getattr(L, f"Cropping{rank}D")(1), name)
    for layer in (
        L.ZeroPadding2D(((1, 2), (0, 3))),
        L.Cropping2D(((1, 2), (0, 3))),
        L.UpSampling2D((2, 3), interpolation="bilinear"),
        L.Permute((3, 1, 2)),
        L.Reshape((3, 3, 40)),
        L.CenterCrop(4, 5),
        L.CenterCrop(12, 12),
        L.CenterCrop(6, 12),
        L.Resizing(4, 8, crop_to_aspect_ratio=True),
        *(L.Resizing(5, 4, interpolation=i) for i in ("nearest", "bilinear")),
        *(L.Resizing(13, 17, interpolation=i) for i in ("nearest", "bilinear")),
        *(L.Resizing(4, 5, i, antialias=True) for i in ("bilinear", "bicubic")),
    ):
        b.add(layer, "image")
    b.add(L.Permute((2, 1)), "sequence")
    b.add(L.ZeroPadding1D((1, 3)), "sequence")
    b.add(L.Cropping1D((0, 3)), "sequence")
    b.add(L.Cropping3D(((1, 0), (0, 1), (2, 2))), "volume")
    b.add(L.RepeatVector(5), "vector")
    for kind in (L.Add, L.Multiply, L.Average, L.Maximum, L.Minimum, L.Concatenate):
        b.add(kind(), "image", "other")
        b.add(kind(), "image", "other", "image")
    b.add(L.Subtract(), "image", "other")
    b.add(L.Concatenate(axis=1), "image", "other")
    b.add(L.Dot(-1, normalize=b.one(True, False)), "vector", "vector")
    for axes in ((2, 2), (1, 1)):
        b.add(L.Dot(axes), "sequence", "sequence")


def recurrent(b: Branches) -> None:
    """Add layers that walk along sequences, and layers around layers."""
    for whole in (True, False):
        turned = b.one(True, False)
        for layer in (
            L.LSTM(5, return_sequences=whole, go_backwards=turned),
            L.GRU(5, return_sequences=whole, go_backwards=turned),
            L.GRU(
                5,
                reset_after=False,
                return_sequences=whole,
                recurrent_activation="hard_sigmoid",
            ),
            L.SimpleRNN(5, return_sequences=whole, activation="relu"),
            L.Bidirectional(
                L.LSTM(4, return_sequences=whole),
                merge_mode=b.one("concat", "sum", "ave", "mul", None),
            ),
            L.Bidirectional(L.GRU(4, return_sequences=whole)),
        ):
            b.add(layer, "sequence")
    b.add(L.LSTM(3, return_state=True, use_bias=False), "sequence")
    b.add(L.GRU(3, return_state=True, return_sequences=True), "sequence")
    b.add(L.TimeDistributed(L.Dense(3)), "sequence")
    b.add(L.TimeDistributed(L.Conv2D(3, 3, padding="same")), "volume")


def operations(b: Branches) -> None:
    """Add operations of ``keras.ops``."""
    x, other, s = (b.inputs[name] for name in ("image", "other", "sequence"))
    b.outputs += [
        K.relu(x),
        K.relu6(x) * 2,
        3 - x,
        x / 2,
        -x,
        K.abs(x),
        K.exp(x),
        K.square(x),
        K.sqrt(K.abs(x)),
        K.rsqrt(K.abs(x) + 1),
        K.power(K.abs(x), 1.5),
        K.mean(x, axis=(1, 2)),
        K.mean(x, axis=-1, keepdims=True),
        K.sum(x, axis=1),
        K.max(x, axis=(1, 2)),
        K.min(x, axis=-1),
        K.reshape(x, (-1, 90, 4)),
        K.transpose(x, (0, 3, 1, 2)),
        K.concatenate([x, other], axis=-1),
        K.stack([x, other], axis=-1),
        K.squeeze(K.mean(x, axis=1, keepdims=True), 1),
        K.expand_dims(x, 1),
        x[:, 1:4],
        x[:, :, ::2, 0],
        x[..., -1],
        x[:, None, 2],
        *K.split(x, 2, axis=-1),
        K.softmax(x, axis=1),
        K.log_softmax(x),
        K.gelu(x),
        K.gelu(x, approximate=False),
        K.leaky_relu(x, 0.3),
        K.elu(x),
        K.clip(x, -0.5, 0.5),
        K.maximum(x, 0.1),
        K.minimum(x, other),
        K.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0))),
        K.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), mode="reflect"),
        K.matmul(s, K.transpose(s, (0, 2, 1))),
        K.normalize(x, axis=-1),
        K.normalize(x, axis=-1, epsilon=3.0),
        K.flip(x, axis=1),
        K.max_pool(x, 2, 2),
        K.average_pool(x, 2, 2, "valid"),
        K.silu(x),
        K.hard_sigmoid(x),
        K.image.resize(x, (5, 5)),
        K.add(x, np.ones((9, 1, 1), np.float32)),
    ]


FAMILIES = (convolutions, pools, pointwise, reshaping, recurrent, operations)
"""Functions that together add every layer that Keras 3 and the converter have."""


def keras2(
    path: Path,
    layers: Sequence[Mapping[str, Any]],
    weights: Mapping[str, Sequence[tuple[str, Array]]],
    ends: tuple[Any, Any] | None = None,
    kind: str = "Functional",
) -> Path:
    """Write an ``.h5`` file as Keras 2 does.

    Parameters
    ----------
    layers : sequence of dict
        Their descriptions.
    weights : dict
        Names and values by layer, in the order of the file.
    ends : tuple, optional
        ``input_layers`` and ``output_layers``; None for a Sequential.
    """
    config: dict[str, Any] = {"name": "model", "layers": list(layers)}
    if ends is not None:
        config["input_layers"], config["output_layers"] = ends
    model = {"class_name": kind if ends else "Sequential", "config": config}
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.11.0"
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps(model)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [n.encode() for n in weights]
        for layer, arrays in weights.items():
            inside = group.create_group(layer)
            inside.attrs["weight_names"] = [name.encode() for name, _ in arrays]
            for name, array in arrays:
                inside.create_dataset(name, data=array)
    return path


def difference(path: Path, batch: int, seed: int = 0) -> float:
    """Return the largest error of a converted file, relative to the largest answer."""
    graph = from_keras(path)
    rng = np.random.default_rng(seed)
    feeds = {
        entry.name: rng.standard_normal((batch, *entry.shape[1:])).astype(np.float32)
        for entry in graph.inputs
    }
    expected = oracle(path, graph).run(feeds)
    found = striate.Model(graph).run(feeds)
    return max(
        float(np.abs(found[name] - y).max() / max(1e-9, np.abs(y).max()))
        for name, y in expected.items()
    )


def application(name: str, folder: Path, seed: int = 0) -> Path:
    """Save a network of ``keras.applications`` with random weights."""
    side = SMALLEST.get(name, 64)
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(side, side, 3))
    randomise(model, np.random.default_rng(seed))
    path = folder / f"{name}.keras"
    model.save(path)
    return path


def main(names: Sequence[str]) -> int:
    """Convert networks and print how far the answers are from Keras's."""
    worst = 0.0
    for name in names or NETWORKS:
        begun = time.perf_counter()
        keras.backend.clear_session()
        with tempfile.TemporaryDirectory() as folder:
            error = difference(application(name, Path(folder)), 3)
        worst = max(worst, error)
        taken = time.perf_counter() - begun
        sys.stdout.write(f"{name:20} {error:.1e} {taken:5.1f} s\n")
        sys.stdout.flush()
    return int(worst > 1e-4)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
