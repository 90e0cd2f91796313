"""Small networks that use every kind of kernel, for tests of the runtime itself."""

import numpy as np
from striate import Graph, ops


def any_size(seed=0):
    """Return a classifier of pictures of any size: each convolution algorithm once."""
    normal = np.random.default_rng(seed).standard_normal
    graph = Graph("any size")
    x = graph.input("image", ("N", "H", "W", 3))
    x = graph.add(
        ops.Conv(stride=2, padding=1), x, kernel=normal((3, 3, 3, 16)) / 5, name="stem"
    )
    x = graph.add(ops.Relu(), x)
    side = x = graph.add(
        ops.Conv(padding=1), x, kernel=normal((3, 3, 16, 16)) / 12, name="winograd"
    )
    x = graph.add(ops.Conv(), x, kernel=normal((1, 1, 16, 48)) / 4, name="wide")
    x = graph.add(ops.Clip(0, 6), x)
    kernel = normal((3, 3, 1, 48)) / 3
    x = graph.add(ops.Conv(padding=1, groups=48), x, kernel=kernel, name="depthwise")
    x = graph.add(ops.Conv(), x, kernel=normal((1, 1, 48, 16)) / 7, name="narrow")
    x = graph.add(ops.Add(), x, side, name="join")
    x = graph.add(ops.MaxPool(2, 2, padding="same"), x, name="pool")
    x = graph.add(ops.Mean(axes=(1, 2)), x, name="mean")
    x = graph.add(ops.Dense(), x, kernel=normal((16, 10)) / 4, name="logits")
    graph.output(graph.add(ops.Softmax(), x, name="odds"))
    return graph


def wide(channels=64, layers=6):
    """Return a network heavy enough that a plan allows several threads."""
    rng = np.random.default_rng(5)
    graph = Graph("wide")
    x = graph.input("x", ("N", 24, 24, channels))
    for _ in range(layers):
        kernel = rng.standard_normal((3, 3, channels, channels)) / 24
        x = graph.add(ops.Conv(padding="same"), x, kernel=kernel)
        x = graph.add(ops.Relu(), x)
    graph.output(x)
    return graph


def picture(seed, *shape):
    """Return normal noise as float32."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
