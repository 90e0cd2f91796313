"""Every pass keeps what a graph computes, and does what it is for."""

import numpy as np
import pytest
from striate import Graph, Model, kernels, ops, passes

RNG = np.random.default_rng(11)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def norm(channels):
    return {
        "gamma": normal(channels),
        "beta": normal(channels),
        "mean": normal(channels),
        "variance": RNG.uniform(0.5, 2, channels).astype(np.float32),
    }


def kinds(graph):
    return [type(node.op).__name__ for node in graph.nodes]


def unchanged(before, after, shape):
    """Assert that both graphs compute the same outputs, evaluated in float64."""
    assert before.outputs == after.outputs
    x = RNG.standard_normal(shape)
    wanted = before.reference({"x": x})
    found = after.reference({"x": x})
    for name in before.outputs:
        scale = np.abs(wanted[name]).max()
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-6 * scale, rtol=0)


def start(*shape):
    graph = Graph("test")
    return graph, graph.input("x", ("N", *shape))


def test_batch_norm_becomes_weights_of_conv_and_dense():
    graph, x = start(6, 6, 3)
    x = graph.add(ops.Conv(), x, kernel=normal(3, 3, 3, 5), bias=normal(5))
    x = graph.add(ops.BatchNorm(), x, **norm(5))
    x = graph.add(ops.Flatten(), x)
    x = graph.add(ops.Dense(), x, kernel=normal(80, 4))
    x = graph.add(ops.BatchNorm(epsilon=1e-3), x, **norm(4))
    graph.output(x)
    folded = passes.fold_batch_norm(graph)
    assert kinds(folded) == ["Conv", "Flatten", "Dense"]
    unchanged(graph, folded, (2, 6, 6, 3))


def weighted():
    """Yield an operator with its weights."""
    yield ops.ConvTranspose(2), {"kernel": normal(3, 3, 4, 6)}
    yield ops.ConvTranspose(2, groups=2), {"kernel": normal(3, 3, 2, 6)}
    kernel = normal(4, 4, 3, 3, 6, 4)
    yield ops.LocallyConnected(), {"kernel": kernel, "bias": normal(4, 4, 4)}
    yield ops.TiledConv(2), {"kernel": normal(2, 2, 3, 3, 6, 4), "bias": normal(4)}
    yield ops.DeformConv(), {"kernel": normal(3, 3, 6, 4)}


@pytest.mark.parametrize(("op", "weights"), list(weighted()))
def test_every_layer_with_a_kernel_takes_batch_norm_and_shortcut(op, weights):
    graph, x = start(6, 6, 6)
    moved = graph.add(ops.Conv(), x, kernel=normal(3, 3, 6, 18))
    read = (x, moved) if isinstance(op, ops.DeformConv) else (x,)
    y = graph.add(ops.BatchNorm(), graph.add(op, *read, **weights), **norm(4))
    y = graph.add(ops.Add(), graph.add(op, *read, **weights), graph.add(ops.Tanh(), y))
    graph.output(graph.add(ops.Relu(), y))
    folded = passes.fuse_activation(passes.fuse_residual(passes.fold_batch_norm(graph)))
    assert kinds(folded) == ["Conv", type(op).__name__, type(op).__name__]
    unchanged(graph, folded, (2, 6, 6, 6))


def test_a_reshape_that_drops_the_last_axis_is_no_identity():
    graph, x = start(6, 1)
    x = graph.add(ops.Reshape((0, 0)), graph.add(ops.Relu(), x))
    graph.output(graph.add(ops.Tanh(), x))
    dropped = passes.drop_identity(graph)
    assert kinds(dropped) == ["Relu", "Reshape", "Tanh"]
    unchanged(graph, dropped, (2, 6, 1))


def test_a_batch_norm_whose_input_is_wanted_stays():
    for wanted in ("output", "reader"):
        graph, x = start(6, 6, 3)
        conv = graph.add(ops.Conv(), x, kernel=normal(3, 3, 3, 5))
        x = graph.add(ops.BatchNorm(), conv, **norm(5))
        if wanted == "output":
            graph.output(conv)
        else:
            x = graph.add(ops.Mul(), x, conv)
        graph.output(x)
        folded = passes.fold_batch_norm(graph)
        assert "BatchNorm" in kinds(folded)
        unchanged(graph, folded, (1, 6, 6, 3))


def test_two_batch_norms_in_a_row():
    graph, x = start(6, 6, 3)
    x = graph.add(ops.Conv(), x, kernel=normal(1, 1, 3, 5))
    x = graph.add(ops.BatchNorm(), x, **norm(5))
    graph.output(graph.add(ops.BatchNorm(), x, **norm(5)))
    unchanged(graph, passes.fold_batch_norm(graph), (1, 6, 6, 3))


def test_a_folded_kernel_is_no_array_until_it_is_read():
    graph, x = start(6, 6, 3)
    kernel, weights = normal(3, 3, 3, 5), norm(5)
    x = graph.add(ops.Conv(), x, kernel=kernel, name="c")
    graph.output(graph.add(ops.BatchNorm(), x, name="n", **weights))
    folded = passes.fold_batch_norm(graph).params["n/kernel"]
    assert not isinstance(folded, np.ndarray)
    assert (folded.shape, folded.dtype) == (kernel.shape, kernel.dtype)
    variance = weights["variance"].astype(float)
    scale = weights["gamma"] / np.sqrt(variance + ops.BatchNorm().epsilon)
    wanted = (kernel * scale.astype(float)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(folded), wanted)


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize(
    ("op", "shape", "kernel"),
    [
        (ops.Conv(), (5, 5, 3), (3, 3, 3, 40)),
        (ops.Conv(), (6, 6, 20), (1, 1, 20, 24)),
        (ops.Conv(groups=2), (6, 6, 40), (3, 3, 20, 70)),
        (ops.Conv(padding=2), (8, 8, 1), (5, 5, 1, 6)),
        (ops.Conv(groups=24), (6, 6, 24), (3, 3, 1, 24)),
        (ops.Conv(padding=1), (24, 24, 16), (3, 3, 16, 70)),
        (ops.Conv(padding=1), (7, 7, 16), (3, 3, 16, 33)),
        (ops.Conv(2, padding=1), (16, 16, 64), (3, 3, 64, 72)),
        (ops.Conv(padding=1), (4, 16, 16, 16), (3, 3, 3, 16, 18)),
        (ops.Dense(), (50,), (50, 70)),
    ],
)
def test_outputs_are_scaled_while_their_weights_are_packed(isa, op, shape, kernel):
    """Weights and inputs are whole and scales powers of two: only Winograd's rounds."""
    graph, x = start(*shape)
    outputs = kernel[-1]
    scale = 2.0 ** RNG.integers(-6, 7, outputs).astype(np.float32)
    norm = {"gamma": scale, "variance": np.ones(outputs, np.float32)}
    norm |= dict.fromkeys(("beta", "mean"), np.zeros(outputs, np.float32))
    weights = RNG.integers(-8, 9, kernel).astype(np.float32)
    x = graph.add(op, x, kernel=weights)
    graph.output(graph.add(ops.BatchNorm(epsilon=0.0), x, name="y", **norm))
    batch = RNG.integers(-8, 9, (2, *shape)).astype(np.float32)
    model = Model(graph, isa=isa)
    steps = model.profile(batch)
    assert "BatchNorm" not in [step.op for step in steps]
    wanted = graph.reference({"x": batch})["y"] / scale
    rounds = any("winograd" in step.algorithm for step in steps)
    error = np.abs(model(batch) / scale - wanted).max()
    assert error <= (1e-5 * np.abs(wanted).max() if rounds else 0)


def test_a_shared_kernel_is_folded_for_one_layer_only():
    graph, x = start(6, 6, 3)
    first = graph.add(ops.Conv(), x, kernel=normal(3, 3, 3, 3), name="a")
    x = graph.add(ops.BatchNorm(), first, **norm(3))
    graph.output(graph.add(ops.Conv(), x, kernel="a/kernel"))
    unchanged(graph, passes.fold_batch_norm(graph), (1, 6, 6, 3))


@pytest.mark.parametrize("own", ["valid", ((1, 0),), ((1, 0), (0, 2))])
def test_padding_is_done_by_the_convolution(own):
    graph, x = start(6, 7, 3)
    x = graph.add(ops.Pad(((0, 0), (1, 2), (0, 1), (0, 0))), x)
    graph.output(graph.add(ops.Conv(padding=own), x, kernel=normal(3, 3, 3, 4)))
    folded = passes.fold_padding(graph)
    assert kinds(folded) == ["Conv"]
    unchanged(graph, folded, (2, 6, 7, 3))


@pytest.mark.parametrize(
    "pad",
    [
        ops.Pad(((0, 0), (1, 1), (1, 1), (0, 0)), value=1.0),
        ops.Pad(((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"),
        ops.Pad(((0, 0), (1, 1), (1, 1), (0, 1))),
    ],
)
def test_other_padding_stays(pad):
    graph, x = start(6, 7, 3)
    channels = 3 + pad.padding[-1][1]
    x = graph.add(pad, x)
    graph.output(graph.add(ops.Conv(), x, kernel=normal(3, 3, channels, 4)))
    folded = passes.fold_padding(graph)
    assert kinds(folded) == ["Pad", "Conv"]
    unchanged(graph, folded, (1, 6, 7, 3))


def test_padding_of_a_same_convolution_stays():
    graph, x = start(6, 7, 3)
    x = graph.add(ops.Pad(((0, 0), (1, 1), (1, 1), (0, 0))), x)
    graph.output(graph.add(ops.Conv(padding="same"), x, kernel=normal(3, 3, 3, 4)))
    unchanged(graph, passes.fold_padding(graph), (1, 6, 7, 3))


def test_residual_and_activation_are_fused():
    graph, x = start(6, 6, 4)
    a = graph.add(ops.Conv(padding="same"), x, kernel=normal(3, 3, 4, 4))
    a = graph.add(ops.Add(), a, x)
    graph.output(graph.add(ops.Relu(), a))
    fused = passes.fuse_activation(passes.fuse_residual(graph))
    (node,) = fused.nodes
    assert node.residual == "x"
    assert isinstance(node.activation, ops.Relu)
    unchanged(graph, fused, (2, 6, 6, 4))


def test_a_shortcut_computed_later_is_fused():
    graph, x = start(6, 6, 4)
    a = graph.add(ops.Conv(), x, kernel=normal(1, 1, 4, 8))
    b = graph.add(ops.Conv(), x, kernel=normal(1, 1, 4, 8))
    graph.output(graph.add(ops.Add(), a, b))
    fused = passes.fuse_residual(graph)
    assert kinds(fused) == ["Conv", "Conv"]
    unchanged(graph, fused, (2, 6, 6, 4))


def test_broadcasting_additions_are_not_residuals():
    graph, x = start("H", "W", 4)
    a = graph.add(ops.Conv(), x, kernel=normal(1, 1, 4, 4))
    gate = graph.add(ops.GlobalAveragePool(keepdims=True), x)
    gate = graph.add(ops.Conv(), gate, kernel=normal(1, 1, 4, 4))
    graph.output(graph.add(ops.Add(), a, gate))
    fused = passes.fuse_residual(graph)
    assert "Add" in kinds(fused)
    unchanged(graph, fused, (1, 5, 6, 4))


def test_a_value_read_twice_is_not_fused_away():
    graph, x = start(6, 6, 4)
    a = graph.add(ops.Conv(), x, kernel=normal(1, 1, 4, 4))
    b = graph.add(ops.Relu(), a)
    graph.output(graph.add(ops.Add(), a, b))
    fused = passes.optimise(graph)
    unchanged(graph, fused, (1, 6, 6, 4))


def test_an_output_keeps_its_name_and_value():
    graph, x = start(6, 6, 4)
    a = graph.add(ops.Conv(), x, kernel=normal(1, 1, 4, 4))
    b = graph.add(ops.Relu(), a)
    c = graph.add(ops.Identity(), b)
    graph.output(a, b, c)
    unchanged(graph, passes.optimise(graph), (1, 6, 6, 4))


def test_identities_go():
    graph, x = start(6, 6, 4)
    x = graph.add(ops.Identity(), x)
    x = graph.add(ops.Transpose((0, 1, 2, 3)), x)
    x = graph.add(ops.Reshape((0, 0, 0, 0)), x)
    x = graph.add(ops.Relu(), graph.add(ops.Relu(), x))
    x = graph.add(ops.Transpose((0, 2, 1, 3)), x)
    x = graph.add(ops.Reshape((0, 4, 9, 0)), x)
    graph.output(graph.add(ops.Abs(), x))
    smaller = passes.drop_identity(graph)
    assert kinds(smaller) == ["Relu", "Transpose", "Reshape", "Abs"]
    unchanged(graph, smaller, (2, 6, 6, 4))


def test_constants_are_computed_once():
    graph, x = start(4)
    c = graph.add(ops.Constant(), value=normal(1, 4))
    c = graph.add(ops.Exp(), c)
    d = graph.add(ops.Concat(), c, c)
    graph.output(graph.add(ops.Add(), x, c))
    graph.output(graph.add(ops.Concat(0), d, d))
    folded = passes.fold_constants(graph)
    assert kinds(folded) == ["Add", "Constant", "Concat"]
    assert folded.nodes[0].params == {"y": "exp1/value"}
    unchanged(graph, folded, (1, 4))


def test_weights_that_nothing_uses_are_left_out():
    graph, x = start(6, 6, 3)
    x = graph.add(ops.Conv(), x, kernel=normal(3, 3, 3, 5), bias=normal(5), name="c")
    graph.output(graph.add(ops.BatchNorm(), x, **norm(5), name="n"))
    assert passes.optimise(graph).params.keys() == {"n/kernel", "n/bias"}
