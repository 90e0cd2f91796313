"""Denormals, the caller's floating-point state, and the ways of NaN and infinity."""

import ctypes
import ctypes.util
import platform
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from small_nets import any_size, picture, wide
from striate import DeadlineError, Graph, Model, NotFiniteError, kernels, ops

NAN, INF = np.nan, np.inf

ON_X86 = pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.system() != "Linux",
    reason="reads the control register through the C library of Linux on x86-64",
)


class FloatState:
    """The control register MXCSR, read and written through ``fegetenv``."""

    AT = 28

    def __init__(self):
        self.library = ctypes.CDLL(ctypes.util.find_library("m"))
        self.environment = ctypes.create_string_buffer(64)

    def get(self):
        self.library.fegetenv(self.environment)
        return int.from_bytes(self.environment.raw[self.AT : self.AT + 4], "little")

    def set(self, word):
        self.library.fegetenv(self.environment)
        self.environment[self.AT : self.AT + 4] = word.to_bytes(4, "little")
        self.library.fesetenv(self.environment)


STATES = {
    "default": 0x1F80,
    "flags raised": 0x1FBF,
    "upward": 0x5F80,
    "towards zero, flushing": 0xFF80,
}


@ON_X86
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("word", STATES.values(), ids=STATES)
def test_the_callers_state_is_put_back_and_changes_no_bit(word, threads):
    state = FloatState()
    model, x = Model(wide(48, 3), threads=threads), picture(0, 1, 24, 24, 48)
    wanted = model(x).tobytes()
    found, after = [], []

    def call():
        state.set(word)
        found.append(model(x).tobytes())
        after.append(state.get())
        try:
            model(x, timeout=1e-9)
        except DeadlineError:
            after.append(state.get())
        try:
            model(x, hook=lambda *_: 1 / 0)
        except ZeroDivisionError:
            after.append(state.get())

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert found == [wanted]
    flags = 0x3F  # the interpreter's own arithmetic raises some
    assert [word | flags] * 3 == [end | flags for end in after]
    if word & flags == flags:
        assert after == [word] * 3


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
def test_denormals_are_zero_inside_a_run_and_not_outside(isa):
    graph = Graph("tiny")
    x = graph.input("x", (1, 64))
    kernel = np.full((64, 64), 2.0**-20, np.float32)
    graph.output(graph.add(ops.Dense(), x, kernel=kernel))
    tiny = np.full((1, 64), 2.0**-130, np.float32)
    for threads in (1, 2):
        assert not Model(graph, isa=isa, threads=threads)(tiny).any()
    assert (tiny * np.float32(0.5)).all()


# NaN and infinity, an operator a row. docs/trust.md shows the same table.

GIVEN = [NAN, INF, -INF, 1.0, -1.0, 0.0]
"""What elementwise operators are given."""

ELEMENTWISE = {
    "Relu": (ops.Relu(), [NAN, INF, 0, 1, 0, 0]),
    "Clip": (ops.Clip(-0.5, 0.5), [NAN, 0.5, -0.5, 0.5, -0.5, 0]),
    "LeakyRelu": (ops.LeakyRelu(0.5), [NAN, INF, -INF, 1, -0.5, 0]),
    "Sigmoid": (ops.Sigmoid(), [NAN, 1, 0, None, None, 0.5]),
    "Tanh": (ops.Tanh(), [NAN, 1, -1, None, None, 0]),
    "HardSigmoid": (ops.HardSigmoid(0.5, 0.25), [NAN, 1, 0, 0.75, 0, 0.25]),
    "Exp": (ops.Exp(), [NAN, INF, 0, None, None, 1]),
    "Log": (ops.Log(), [NAN, INF, NAN, 0, NAN, -INF]),
    "Sqrt": (ops.Sqrt(), [NAN, INF, NAN, 1, NAN, 0]),
    "Abs": (ops.Abs(), [NAN, INF, INF, 1, 1, 0]),
    "Neg": (ops.Neg(), [NAN, -INF, INF, -1, 1, 0]),
    "Reciprocal": (ops.Reciprocal(), [NAN, 0, 0, 1, -1, INF]),
    "Floor": (ops.Floor(), [NAN, INF, -INF, 1, -1, 0]),
    "Sign": (ops.Sign(), [NAN, 1, -1, 1, -1, 0]),
    "Softplus": (ops.Softplus(), [NAN, INF, 0, None, None, None]),
    "Elu": (ops.Elu(), [NAN, INF, -1, 1, None, 0]),
    "Gelu": (ops.Gelu(), [NAN, INF, NAN, None, None, 0]),
    "Silu": (ops.Silu(), [NAN, INF, NAN, None, None, 0]),
    "HardSwish": (ops.HardSwish(), [NAN, INF, NAN, None, None, 0]),
}
"""Operator and what it must make of `GIVEN`; None where the number is ordinary."""

PAIRS = [NAN, 1, INF, 1, -INF, 1, -INF, -INF, INF, -INF]
"""What operators of two numbers are given: pairs in neighbouring places."""

OF_PAIRS = {
    "MaxPool": (ops.MaxPool(2, 2), [NAN, INF, 1, -INF, INF]),
    "AveragePool": (ops.AveragePool(2, 2), [NAN, INF, -INF, -INF, NAN]),
    "GlobalMaxPool": (ops.GlobalMaxPool(), [NAN, INF, 1, -INF, INF]),
    "GlobalAveragePool": (ops.GlobalAveragePool(), [NAN, INF, -INF, -INF, NAN]),
    "Mean": (ops.Mean((1,)), [NAN, INF, -INF, -INF, NAN]),
    "ReduceMax": (ops.ReduceMax((1,)), [NAN, INF, 1, -INF, INF]),
    "ReduceSum": (ops.ReduceSum((1,)), [NAN, INF, -INF, -INF, NAN]),
    "Softmax": (ops.Softmax(1), [NAN, NAN, 0, NAN, NAN]),
    "LogSoftmax": (ops.LogSoftmax(1), [NAN, NAN, -INF, NAN, NAN]),
    "Maximum": (ops.Maximum(), [NAN, INF, 1, -INF, INF]),
    "Minimum": (ops.Minimum(), [NAN, 1, -INF, -INF, -INF]),
    "Add": (ops.Add(), [NAN, INF, -INF, -INF, NAN]),
    "Sub": (ops.Sub(), [NAN, INF, -INF, NAN, INF]),
    "Mul": (ops.Mul(), [NAN, INF, -INF, INF, -INF]),
    "Div": (ops.Div(), [NAN, INF, -INF, NAN, NAN]),
    "Dense": (ops.Dense(), [NAN, INF, -INF, -INF, NAN]),
    "Conv": (ops.Conv(stride=2), [NAN, INF, -INF, -INF, NAN]),
}
"""Operator and the first number it must make of each of `PAIRS`.

Windows, axes and rows are a pair; `Dense` and `Conv` add it up with weights of 1.
"""


def of_elements(op):
    """Return the network of one elementwise layer, and its input."""
    graph = Graph()
    graph.output(graph.add(op, graph.input("x", (1, len(GIVEN)))))
    return graph, {"x": np.array([GIVEN], np.float32)}


def of_pairs(op):
    """Return the network of one layer that combines pairs, and its inputs."""
    graph, pairs = Graph(), np.array(PAIRS, np.float32).reshape(5, 2)
    weights, shape = {}, (5, 2, 1)
    if isinstance(op, (ops.MaxPool, ops.AveragePool, ops.Conv)):
        shape = (1, 10, 1)
    if isinstance(op, ops.Conv):
        weights = {"kernel": np.ones((2, 1, 1), np.float32)}
    if isinstance(op, ops.Dense):
        shape, weights = (5, 2), {"kernel": np.ones((2, 1), np.float32)}
    if isinstance(op, ops.Binary):
        names = [graph.input(name, (5, 1)) for name in "ab"]
        graph.output(graph.add(op, *names))
        return graph, {"a": pairs[:, :1].copy(), "b": pairs[:, 1:].copy()}
    graph.output(graph.add(op, graph.input("x", shape), **weights))
    return graph, {"x": pairs.reshape(shape)}


CASES = [
    *((name, *of_elements(op), wanted) for name, (op, wanted) in ELEMENTWISE.items()),
    *((name, *of_pairs(op), wanted) for name, (op, wanted) in OF_PAIRS.items()),
]


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize(
    ("name", "graph", "feeds", "wanted"), CASES, ids=[case[0] for case in CASES]
)
def test_what_becomes_of_nan_and_infinity(name, graph, feeds, wanted, isa):
    (found,) = Model(graph, isa=isa).run(feeds).values()
    with np.errstate(all="ignore"):
        (reference,) = graph.reference(feeds).values()
    first = found.reshape(len(wanted), -1)[:, 0]
    for got, same, want in zip(
        first, reference.reshape(len(wanted), -1)[:, 0], wanted, strict=True
    ):
        if want is None:
            assert np.isfinite(got)
            continue
        assert got == want or (np.isnan(got) and np.isnan(want))
        assert same == want or (np.isnan(same) and np.isnan(want))


def shown(number):
    """Return a number as the table of the page shows it."""
    if number is None:
        return "finite"
    return {NAN: "NaN", INF: "∞", -INF: "-∞"}.get(number, f"{number:g}")


@pytest.mark.parametrize("table", [ELEMENTWISE, OF_PAIRS], ids=["elements", "pairs"])
def test_the_page_shows_this_table(table):
    page = (Path(__file__).parent.parent / "docs" / "trust.md").read_text()
    for name, (_, wanted) in table.items():
        cells = " | ".join(map(shown, wanted))
        assert re.search(rf"(?m)^\| `{name}` \| {re.escape(cells)} \|$", page), (
            f"| `{name}` | {cells} |"
        )


# Finding the layer.


def spoilt(**weights):
    """Return a network whose weights make a NaN or an infinity half-way."""
    graph = any_size()
    params = {name: array.copy() for name, array in graph.params.items()}
    for name, value in weights.items():
        params[name.replace("__", "/")].flat[0] = value
    graph.params.update(params)
    return graph


X = picture(0, 1, 24, 24, 3)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("layer", ["stem", "winograd", "wide", "narrow", "logits"])
def test_the_layer_that_makes_a_nan_is_named(layer, value, threads):
    """Also where it is fused with what follows, which clips an infinity away."""
    graph = spoilt(**{f"{layer}__kernel": value})
    with pytest.raises(
        NotFiniteError, match=f"layer '{layer}' made .*not fin"
    ) as error:
        Model(graph, threads=threads)(X, check_finite=True)
    assert error.value.layer == layer


def test_an_input_that_is_not_finite_is_named():
    x = X.copy()
    x[0, 3, 5, 1] = -INF
    with pytest.raises(
        NotFiniteError, match=r"input 'image' holds -inf at .0, 3, 5, 1"
    ):
        Model(any_size())(x, check_finite=True)


def test_finite_numbers_are_left_alone():
    model = Model(any_size(), threads=2)
    assert model(X, check_finite=True).tobytes() == model(X).tobytes()


def test_layers_of_unknown_size_are_looked_at_too():
    graph = Graph("dynamic")
    x = graph.input("x", (1, 4))
    found = graph.add(ops.NonZero(), x, name="where")
    graph.output(graph.add(ops.Log(), x, name="log"), found)
    model = Model(graph)
    with pytest.raises(NotFiniteError, match="'log'"):
        model(np.zeros((1, 4), np.float32), check_finite=True)
    seen = []
    model(np.ones((1, 4), np.float32), hook=lambda name, x: seen.append(name))
    assert sorted(seen) == ["log", "where"]
