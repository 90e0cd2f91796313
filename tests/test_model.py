"""What a caller meets: conversions, refusals, any layer, profiles, memory."""

import threading

import numpy as np
import pytest
from striate import (
    DeadlineError,
    DTypeError,
    Graph,
    ImageError,
    Model,
    NotFiniteError,
    SettingError,
    ShapeError,
    UnknownLayerError,
    kernels,
    ops,
)

RNG = np.random.default_rng(3)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def lenet():
    """Return LeNet-5 in a dozen lines."""
    graph = Graph("lenet")
    x = graph.input("image", ("N", 28, 28, 1))
    x = graph.add(ops.Conv(padding=2), x, kernel=normal(5, 5, 1, 6), name="conv1")
    x = graph.add(ops.MaxPool(2, 2), graph.add(ops.Relu(), x))
    x = graph.add(ops.Conv(), x, kernel=normal(5, 5, 6, 16) / 12, name="conv2")
    x = graph.add(ops.MaxPool(2, 2), graph.add(ops.Relu(), x))
    x = graph.add(ops.Flatten(), x)
    x = graph.add(ops.Relu(), graph.add(ops.Dense(), x, kernel=normal(400, 120) / 20))
    x = graph.add(ops.Relu(), graph.add(ops.Dense(), x, kernel=normal(120, 84) / 11))
    graph.output(graph.add(ops.Dense(), x, kernel=normal(84, 10) / 9, name="logits"))
    return graph


@pytest.fixture(scope="module")
def graph():
    return lenet()


@pytest.fixture(scope="module")
def model(graph):
    return Model(graph)


X = normal(2, 28, 28, 1)


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_matches_the_reference(graph, isa, batch):
    x = normal(batch, 28, 28, 1)
    wanted = graph.reference({"image": x.astype(np.float64)})["logits"]
    found = Model(graph, isa=isa)(x)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_a_batch_is_its_pictures(model):
    whole = model(X)
    for index in range(len(X)):
        np.testing.assert_array_equal(model(X[index : index + 1])[0], whole[index])


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.astype(np.float64),
        lambda x: x.astype(">f4"),
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x.tolist(),
        lambda x: (
            np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view("f4").reshape(x.shape)
        ),
        lambda x: x.view(type("Sub", (np.ndarray,), {})),
    ],
    ids=[
        "float64",
        "big-endian",
        "fortran",
        "strided",
        "list",
        "unaligned",
        "subclass",
    ],
)
def test_arrays_of_any_kind_give_the_same_answer(model, convert):
    np.testing.assert_array_equal(model(convert(X)), model(X))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "bool", "float16"])
def test_exact_conversions(model, dtype):
    x = RNG.integers(0, 2, X.shape).astype(dtype)
    np.testing.assert_array_equal(model(x), model(x.astype(np.float32)))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X.astype(complex), "found complex128, wanted float32"),
        (X.astype(str), "only real numbers"),
        (np.full(X.shape, 2**24 + 1), "cannot hold 16777217 exactly"),
        (np.full(X.shape, 1e39), "too large"),
    ],
)
def test_conversions_that_lose_meaning_are_refused(model, x, message):
    with pytest.raises(DTypeError, match=message):
        model(x)


def test_infinity_stays_infinity(model):
    x = X.astype(np.float64)
    x[0, 0, 0, 0] = np.inf
    model(x)


@pytest.mark.parametrize(
    "shape",
    [(28, 28, 1), (1, 28, 28), (1, 1, 28, 28), (1, 27, 28, 1), (0, 28, 28, 1), ()],
)
def test_wrong_shapes_are_refused_with_both_shapes(model, shape):
    with pytest.raises(ShapeError, match=r"found shape .*wanted \(N, 28, 28, 1\)"):
        model(np.zeros(shape, np.float32))


def test_a_call_is_not_taken_for_the_last_one(graph):
    model = Model(graph, threads=1)
    x = normal(1, 28, 28, 1)
    want = model(x)
    wide = np.zeros((1, 28, 28, 2), np.float32)
    wide[..., :1] = x
    loose = np.frombuffer(b"." + x.tobytes(), np.uint8)[1:].view(np.float32)
    for same in (x, x.astype(np.float64), wide[..., :1], loose.reshape(x.shape)):
        np.testing.assert_array_equal(model(same), want)
        np.testing.assert_array_equal(model(x), want)
    assert model(x) is not model(x)
    out = np.empty((1, 10), np.float32)
    assert model(x, out=out) is out
    with pytest.raises(ShapeError):
        model(x[0])
    with pytest.raises(DeadlineError):
        model(x, timeout=1e-9)
    with pytest.raises(NotFiniteError):
        model(x * np.float32(np.inf), check_finite=True)
    seen = []
    model(x, hook=lambda name, value: seen.append(name))
    assert seen
    assert model(np.concatenate([x, x])).shape == (2, 10)
    model.close()
    with pytest.raises(SettingError):
        model(x)


def test_out_is_written(model):
    out = np.full((2, 10), np.nan, np.float32)
    assert model(X, out=out) is out
    np.testing.assert_array_equal(out, model(X))


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((1, 10), np.float32),
        np.zeros((2, 10)),
        np.zeros((2, 20), np.float32)[:, ::2],
        [0.0],
    ],
)
def test_an_out_that_does_not_fit_is_refused(model, out):
    with pytest.raises(ShapeError, match="wanted a writable contiguous float32"):
        model(X, out=out)


def test_an_out_that_is_the_input_is_refused():
    graph = Graph()
    x = graph.input("x", (2, 2))
    graph.output(graph.add(ops.Relu(), x))
    array = np.zeros((2, 2), np.float32)
    with pytest.raises(ShapeError, match="shares memory"):
        Model(graph)(array, out=array)


def test_any_layer_can_be_asked_for(graph, model):
    names = ["conv1", "relu1", "maxpool1", "flatten1", "logits"]
    found = model.run({"image": X}, outputs=names)
    wanted = graph.reference({"image": X.astype(np.float64)}, names)
    assert list(found) == names
    for name in names:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-4, rtol=1e-4)


def test_every_layer_can_be_asked_for_at_once():
    graph = Graph()
    x = graph.input("x", (1, 5))
    for _ in range(40):
        x = graph.add(ops.LeakyRelu(0.9), x)
    graph.output(x)
    names = [node.name for node in graph.nodes]
    found = Model(graph).run({"x": -np.ones((1, 5))}, names)
    for power, name in enumerate(names, 1):
        np.testing.assert_allclose(found[name], -(0.9**power), rtol=1e-5)


def test_unknown_names_are_refused(model):
    with pytest.raises(UnknownLayerError, match=r"no layer 'conv9'.*conv1"):
        model.run({"image": X}, outputs=["conv9"])
    with pytest.raises(UnknownLayerError, match="no outputs"):
        model.run({"image": X}, outputs=[])
    with pytest.raises(
        ShapeError, match=r"missing: \['image'\], unknown: \['picture'\]"
    ):
        model.run({"picture": X})


def test_an_input_can_be_an_output():
    graph = Graph()
    x = graph.input("x", ("N", 3))
    graph.output(x)
    graph.output(graph.add(ops.Relu(), x))
    array = normal(2, 3)
    found = Model(graph)(array)
    np.testing.assert_array_equal(found["x"], array)


def test_several_inputs():
    graph = Graph()
    a, b = graph.input("a", ("N", 3)), graph.input("b", ("N", 3))
    graph.output(graph.add(ops.Sub(), a, b))
    model = Model(graph)
    left, right = normal(2, 3), normal(2, 3)
    np.testing.assert_array_equal(
        model.run({"b": right, "a": left})["sub1"], left - right
    )
    with pytest.raises(ShapeError, match=r"inputs 'a', 'b': use run"):
        model(left)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_thread_counts_that_make_no_sense(graph, threads):
    with pytest.raises(SettingError, match="wanted a whole number, at least 1"):
        Model(graph, threads=threads)


def test_other_settings_that_make_no_sense(graph):
    with pytest.raises(SettingError, match="this machine runs"):
        Model(graph, isa="mmx")
    with pytest.raises(SettingError, match="only 'highest'"):
        Model(graph, precision="low")
    with pytest.raises(SettingError, match="no outputs"):
        Model(Graph())


def test_the_thread_count_can_come_from_the_environment(graph, monkeypatch):
    monkeypatch.setenv("STRIATE_NUM_THREADS", "1")
    assert Model(graph).threads == 1
    monkeypatch.setenv("STRIATE_NUM_THREADS", "many")
    with pytest.raises(SettingError, match="STRIATE_NUM_THREADS='many'"):
        Model(graph)


def test_a_model_that_takes_no_pictures_says_so(model):
    with pytest.raises(ImageError, match="'lenet' does not say how"):
        model.classify("cat.jpg")


def test_profile_tells_every_step(model):
    steps = model.profile(X, runs=2)
    assert {"conv1", "logits"} <= {step.name for step in steps}
    conv = next(s for s in steps if s.name == "conv1" and s.op == "Conv" and s.gflops)
    assert conv.multiply_adds == 2 * 28 * 28 * 25 * 6
    assert sum(step.ms for step in steps) > 0


def test_memory_is_planned(model):
    plan = model.memory_plan()
    assert plan.weights == sum(a.nbytes for a in model.graph.params.values())
    assert plan.arena >= plan.lower_bound > 0
    assert model.memory_plan({"image": (8, 28, 28, 1)}).arena > plan.arena


def test_a_closed_model_says_so(graph):
    with Model(graph) as model:
        model(X)
    with pytest.raises(SettingError, match="closed"):
        model(X)


def test_plans_for_old_shapes_are_dropped(graph):
    model = Model(graph)
    for batch in range(1, 40):
        model(np.zeros((batch, 28, 28, 1), np.float32))
    assert len(model._plans) <= 16


def test_threads_may_ask_for_different_shapes_at_once(graph):
    model = Model(graph, threads=1)
    wanted = {n: model(np.ones((n, 28, 28, 1), np.float32)) for n in range(1, 5)}
    right = []

    def call(n):
        x = np.ones((n, 28, 28, 1), np.float32)
        right.append(all(np.array_equal(model(x), wanted[n]) for _ in range(50)))

    callers = [threading.Thread(target=call, args=(n,)) for n in wanted]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert right == [True] * 4
