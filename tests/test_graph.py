import numpy as np
import pytest
from striate import Graph, GraphError, ShapeError, UnknownLayerError, ops


def small():
    graph = Graph("small")
    x = graph.input("x", ("N", 5, 5, 2))
    x = graph.add(ops.Conv(), x, kernel=np.ones((3, 3, 2, 4)), name="conv")
    x = graph.add(ops.Relu(), x)
    graph.output(x)
    return graph


def test_names_are_given_and_kept():
    graph = small()
    assert [node.name for node in graph.nodes] == ["conv", "relu1"]
    assert graph.add(ops.Relu(), "relu1") == "relu2"
    assert graph.params.keys() == {"conv/kernel"}
    assert graph.params["conv/kernel"].dtype == np.float32


@pytest.mark.parametrize(
    "given",
    [
        lambda x: x.astype(np.float64),
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=3)[..., ::2],
        lambda x: np.frombuffer(b"?" + x.tobytes(), np.float32, offset=1).reshape(
            x.shape
        ),
    ],
    ids=["float64", "fortran", "every other", "unaligned"],
)
def test_weights_are_held_in_c_order_and_aligned(given):
    kernel = np.arange(72, dtype=np.float32).reshape(3, 3, 2, 4)
    graph = Graph()
    graph.add(ops.Conv(), graph.input("x", (1, 5, 5, 2)), kernel=given(kernel))
    (held,) = graph.params.values()
    np.testing.assert_array_equal(held, kernel)
    assert held.dtype == np.float32
    assert held.flags.c_contiguous
    assert held.flags.aligned


def test_a_given_name_does_not_collide_with_a_made_one():
    graph = small()
    graph.add(ops.Relu(), "x", name="relu2")
    assert graph.add(ops.Relu(), "x") == "relu3"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda g: g.add(ops.Relu(), "y"), "'y', which no earlier layer computes"),
        (lambda g: g.add(ops.Relu(), "x", name="conv"), "'conv' is taken"),
        (lambda g: g.add(ops.Relu(), "x", name="a/b"), "name 'a/b'"),
        (lambda g: g.add(ops.Relu()), "got 0 values"),
        (lambda g: g.add(ops.Relu(), "x", "x"), "got 2 values"),
        (lambda g: g.add(ops.Relu(), "x", kernel=np.ones(3)), "has no operand"),
        (lambda g: g.add(ops.Conv(), "x", "conv"), "wants \\['kernel'\\] as weights"),
        (lambda g: g.add(ops.Conv(), "x", kernel="none/kernel"), "no weight"),
        (lambda g: g.input("x", (1,)), "'x' is taken"),
        (lambda g: g.input("z", (0, 3)), "shape \\(0, 3\\)"),
        (lambda g: g.output("nothing"), "'nothing' is not a value"),
        (lambda g: g.output("relu1"), "declared twice"),
        (lambda g: g.add(ops.Split(sizes=(1, 1)), "x"), "names 1 outputs"),
    ],
)
def test_what_does_not_fit_is_refused(build, message):
    with pytest.raises(GraphError, match=message):
        build(small())


def test_shape_errors_name_the_layer_and_both_shapes():
    with pytest.raises(
        ShapeError, match=r"layer 'bad'.*\(3, 3, 3, 4\).*\(1, 5, 5, 2\)"
    ):
        small().add(ops.Conv(), "x", kernel=np.ones((3, 3, 3, 4)), name="bad")


def test_a_refused_layer_leaves_no_trace():
    graph = small()
    with pytest.raises(ShapeError):
        graph.add(ops.Conv(), "x", kernel=np.ones((3, 3, 3, 4)), name="bad")
    assert "bad/kernel" not in graph.params
    graph.add(ops.Relu(), "x", name="bad")


def test_symbols_stand_for_equal_sizes():
    graph = Graph()
    a = graph.input("a", ("N", "S", "S", 1))
    b = graph.input("b", ("N", "S", "S", 1))
    graph.output(graph.add(ops.Add(), a, b))
    specs = graph.specs({"a": (2, 3, 3, 1), "b": (2, 3, 3, 1)})
    assert specs["add1"].shape == (2, 3, 3, 1)
    with pytest.raises(ShapeError, match="input 'a'"):
        graph.specs({"a": (2, 3, 4, 1), "b": (2, 3, 3, 1)})
    with pytest.raises(ShapeError, match="N is 1 here and 2"):
        graph.specs({"a": (2, 3, 3, 1), "b": (1, 3, 3, 1)})


def test_other_weights_under_the_same_names_are_checked():
    graph = small()
    wider = {"conv/kernel": np.ones((3, 3, 2, 6), np.float32)}
    again = graph.with_nodes(graph.nodes, wider)
    again.add(ops.Conv(), "relu1", kernel=np.ones((1, 1, 6, 1)))
    with pytest.raises(ShapeError):
        graph.with_nodes(graph.nodes, {"conv/kernel": np.ones((3, 3, 3, 4))})


def test_default_shapes():
    graph = Graph()
    graph.input("a", ("N", "H", 64, 3))
    assert graph.default_shapes() == {"a": (1, 224, 64, 3)}


def test_until_keeps_what_is_needed():
    graph = small()
    graph.add(ops.MaxPool(2), "relu1", name="pool")
    part = graph.until(["conv"])
    assert [node.name for node in part.nodes] == ["conv"]
    assert part.outputs == ["conv"]
    with pytest.raises(UnknownLayerError, match=r"no layer 'nope'.*conv, relu1, pool"):
        graph.until(["nope"])


def test_reference_follows_the_precision_of_the_feed():
    graph = small()
    x = np.ones((1, 5, 5, 2))
    assert graph.reference({"x": x})["relu1"].dtype == np.float64
    single = graph.reference({"x": x.astype(np.float32)})["relu1"]
    assert single.dtype == np.float32
    assert (single == 18).all()
