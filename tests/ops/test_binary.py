"""Elementwise functions of two numbers, with broadcasting."""

import itertools

import numpy as np
import pytest
from check import check, compare, reference, run
from hypothesis import given
from hypothesis import strategies as st
from strategies import WIDTHS, any_magnitude, generators, normal, shapes, whole
from striate import DTypeError, Graph, Node, ShapeError, Spec, kernels, ops

EXACT = [ops.Add(), ops.Sub(), ops.Mul(), ops.Maximum(), ops.Minimum()]

ALL = [*EXACT, ops.Div(), ops.Pow(), ops.PRelu()]


@st.composite
def broadcasting(draw):
    """Draw a shape and two that together stretch to it."""
    shape = draw(shapes())

    def shrunk(keep):
        sizes = [n if k else 1 for n, k in zip(shape, keep, strict=True)]
        lead = draw(st.integers(0, len(shape)))
        return tuple(sizes if any(keep[:lead]) else sizes[lead:])

    keep = draw(st.tuples(*[st.booleans()] * len(shape)))
    also = [not k or draw(st.booleans()) for k in keep]
    return draw(st.permutations([shrunk(keep), shrunk(also)]))


@pytest.mark.parametrize("op", EXACT, ids=repr)
@given(pair=broadcasting(), rng=generators())
def test_whole_numbers_are_exact(op, pair, rng):
    check(op, *(whole(rng, shape) for shape in pair), exact=True)


@pytest.mark.parametrize("op", [*EXACT, ops.Div()], ids=repr)
@given(pair=broadcasting(), rng=generators())
def test_rounds_once(op, pair, rng):
    check(op, *(normal(rng, shape, 3) for shape in pair), ulps=0.5)


@pytest.mark.parametrize("op", [ops.Add(), ops.Div(), ops.Maximum()], ids=repr)
@pytest.mark.parametrize("which", ["x", "y"])
@given(pair=broadcasting(), rng=generators())
def test_either_operand_may_be_a_weight(op, which, pair, rng):
    weight, value = (normal(rng, shape, 3) for shape in pair)
    check(op, value, ulps=0.5, **{which: weight})


@pytest.mark.parametrize("channels", WIDTHS)
@pytest.mark.parametrize("which", ["x", "y"])
def test_a_weight_for_each_channel(channels, which):
    rng = np.random.default_rng(channels)
    x = whole(rng, (2, 6, 11, channels))
    check(ops.Sub(), x, exact=True, **{which: whole(rng, channels)})
    check(ops.Sub(), x, exact=True, **{which: whole(rng, (1, 1, channels))})
    check(ops.Sub(), x, exact=True, **{which: whole(rng, ())})


@pytest.mark.parametrize("op", ALL, ids=repr)
def test_nan_and_infinity_as_reference(op):
    special = [np.nan, np.inf, -np.inf, 0.0, 1.5, -2.0]
    pairs = np.array(list(itertools.product(special, special)), np.float32)
    check(op, pairs[:, 0].copy(), pairs[:, 1].copy(), ulps=1)


def test_error_over_all_magnitudes():
    rng = np.random.default_rng(6)
    x, y = any_magnitude(rng, 20_003), any_magnitude(rng, 20_003)
    check(ops.Div(), x, y, ulps=0.5)
    check(ops.Mul(), x, y, ulps=0.5)
    check(ops.Add(), x, y, ulps=0.5)


@given(pair=broadcasting(), rng=generators())
def test_pow(pair, rng):
    x, y = (rng.uniform(0.1, 4, shape).astype(np.float32) for shape in pair)
    check(ops.Pow(), x, y, ulps=1)
    check(ops.Pow(), whole(rng, pair[0]), ulps=1, y=np.float32([3]))


@given(shape=shapes(), rng=generators())
def test_a_square_is_one_product(shape, rng):
    check(ops.Pow(), normal(rng, shape), ulps=0.5, y=np.float32(2))
    check(
        ops.Pow(), whole(rng, shape), exact=True, y=np.full(shape[-1:], 2, np.float32)
    )


@given(shape=shapes(2), rng=generators())
def test_prelu(shape, rng):
    check(ops.PRelu(), whole(rng, shape), exact=True, slope=whole(rng, shape[-1:]))
    check(ops.PRelu(), normal(rng, shape), normal(rng, shape), ulps=0.5)
    check(ops.PRelu(), normal(rng, shape), ulps=0.5, slope=np.float32([0.25]))


def layers(op, shape, pair, activation, residual):
    """Return a graph of one layer with an epilogue."""
    graph = Graph("fused")
    graph.input("x", pair[0])
    graph.input("y", pair[1])
    graph.input("more", shape)
    node = Node("layer", op, ("x", "y"), activation=activation, residual=residual)
    graph.append(node)
    graph.output("layer")
    return graph


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize("op", [ops.Add(), ops.Mul(), ops.Maximum()], ids=repr)
@pytest.mark.parametrize("residual", [None, "more"])
@pytest.mark.parametrize(
    "activation",
    [None, ops.Relu(), ops.Clip(-3, 6), ops.HardSwish(), ops.Neg()],
    ids=repr,
)
def test_epilogue(isa, op, residual, activation):
    rng = np.random.default_rng(8)
    full = (2, 5, 33)
    for pair in [(full, full), (full, (33,)), ((5, 33), (2, 1, 1)), (full, (2, 5, 1))]:
        graph = layers(op, full, pair, activation, residual)
        feeds = {name: whole(rng, s) for name, s in zip("xy", pair, strict=True)}
        feeds["more"] = whole(rng, full)
        (want,) = reference(graph, feeds)
        got = run(graph, feeds, isa, 1)[0]
        compare(got, want, 1e-6 * np.abs(want), f"{op} {activation} {residual}")
        assert run(graph, feeds, isa, 2)[0].tobytes() == got.tobytes()


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
def test_epilogue_with_a_weight_for_each_channel(isa):
    rng = np.random.default_rng(9)
    graph = Graph("fused")
    graph.input("x", (2, 4, 6, 3))
    node = Node(
        "layer", ops.Mul(), ("x",), {"y": "w"}, activation=ops.Relu(), residual="x"
    )
    graph.append(node, {"w": whole(rng, 3)})
    graph.output("layer")
    feeds = {"x": whole(rng, (2, 4, 6, 3))}
    np.testing.assert_array_equal(run(graph, feeds, isa, 1), reference(graph, feeds))


def test_long_rows_are_cut():
    rng = np.random.default_rng(10)
    for n in (2047, 2048, 2049, 4097):
        check(ops.Add(), whole(rng, (3, n)), whole(rng, (3, 1)), exact=True)
        check(ops.Add(), whole(rng, (3, n)), whole(rng, (n,)), exact=True)


@given(pair=broadcasting())
def test_infer_is_numpys_rule(pair):
    assert ops.Add().infer(*map(Spec, pair)).shape == np.broadcast_shapes(*pair)


def test_rejects():
    with pytest.raises(ShapeError, match=r"Add: \(2, 3\) and \(4,\) do not broadcast"):
        ops.Add().infer(Spec((2, 3)), Spec((4,)))
    with pytest.raises(ShapeError, match=r"PRelu: slope \(2, 3\) .* \(3,\) of x"):
        ops.PRelu().infer(Spec((3,)), Spec((2, 3)))
    with pytest.raises(DTypeError, match="Mul: found int64"):
        ops.Mul().infer(Spec((3,)), Spec((3,), "int64"))
