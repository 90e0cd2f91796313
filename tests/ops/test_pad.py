"""Making a tensor larger at its ends."""

import numpy as np
import pytest
from check import check, reference, run
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators, normal, shapes
from striate import Graph, ShapeError, Spec, kernels, ops

MODES = ["constant", "reflect", "edge", "wrap"]


@st.composite
def paddings(draw, mode):
    """Draw a shape and padding that fits the mode."""
    shape = draw(shapes())

    def size(n):
        return draw(st.integers(0, min(3, {"reflect": n - 1, "wrap": n}.get(mode, 3))))

    return shape, tuple((size(n), size(n)) for n in shape)


@pytest.mark.parametrize("mode", MODES)
@given(data=st.data(), rng=generators())
def test_matches_reference(mode, data, rng):
    shape, padding = data.draw(paddings(mode))
    check(ops.Pad(padding, mode, -1.5), normal(rng, shape), exact=True)


@pytest.mark.parametrize("mode", MODES)
def test_images(mode):
    x = normal(np.random.default_rng(1), (2, 6, 7, 3))
    check(ops.Pad(((0, 0), (2, 3), (4, 1), (0, 0)), mode), x, exact=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("isa", kernels.SUPPORTED)
def test_the_inside_is_written_at_once(mode, isa):
    graph = Graph()
    x = graph.add(ops.Neg(), graph.input("x", (2, 5, 6, 17)))
    graph.output(graph.add(ops.Pad(((0, 0), (1, 2), (3, 1), (0, 0)), mode), x))
    feeds = {"x": normal(np.random.default_rng(2), (2, 5, 6, 17))}
    for threads in (1, 2):
        got = run(graph, feeds, isa, threads)
        np.testing.assert_array_equal(got, reference(graph, feeds))


def test_known_values():
    x = np.float32([1, 2, 3, 4])

    def padded(mode):
        return check(ops.Pad(((2, 3),), mode, 9), x, exact=True).tolist()

    assert padded("constant") == [9, 9, 1, 2, 3, 4, 9, 9, 9]
    assert padded("edge") == [1, 1, 1, 2, 3, 4, 4, 4, 4]
    assert padded("reflect") == [3, 2, 1, 2, 3, 4, 3, 2, 1]
    assert padded("wrap") == [3, 4, 1, 2, 3, 4, 1, 2, 3]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "bool"])
@pytest.mark.parametrize("mode", MODES)
def test_other_types(mode, dtype):
    x = np.arange(24).reshape(2, 3, 4).astype(dtype)
    value = 1 if mode == "constant" else 0
    y = check(ops.Pad(((0, 1), (2, 0), (1, 3)), mode, value), x, exact=True)
    assert y.dtype == dtype


def test_rejects():
    with pytest.raises(ShapeError, match=r"padding for 1 axes, .* \(3, 4\)"):
        ops.Pad(((1, 1),)).infer(Spec((3, 4)))
    with pytest.raises(ShapeError, match=r"more than reflect can take .* 3 in \(3,\)"):
        ops.Pad(((3, 0),), "reflect").infer(Spec((3,)))
    with pytest.raises(ShapeError, match="more than wrap can take"):
        ops.Pad(((0, 4),), "wrap").infer(Spec((3,)))
    with pytest.raises(ValueError, match="mode 'mirror'"):
        ops.Pad(((1, 1),), "mirror")
    with pytest.raises(ValueError, match="before, after"):
        ops.Pad(((-1, 1),))
    with pytest.raises(ValueError, match="value nan"):
        ops.Pad(((1, 1),), value=float("nan"))
