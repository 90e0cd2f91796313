"""Recurrent layers."""

import numpy as np
import pytest
from check import check
from ops_in_onnx import onnx_runtime_answers
from strategies import normal
from striate import DTypeError, ShapeError, Spec, ops

GATES = {ops.LSTM: 4, ops.GRU: 3, ops.RNN: 1}
DIRECTIONS = ["forward", "reverse", "bidirectional"]


def parts(kind, d, hidden, width, seed=0):
    """Return weights by name."""
    rng = np.random.default_rng(seed)
    g = GATES[kind]
    return {
        "w": normal(rng, (d, g * hidden, width), 0.4),
        "r": normal(rng, (d, g * hidden, hidden), 0.4),
        "b": normal(rng, (d, 2 * g * hidden), 0.4),
    }


def compare(kind, x, weights, direction="forward", lengths=None, start=(), **fields):
    """Check a layer against its reference, and against ONNX Runtime."""
    d = 2 if direction == "bidirectional" else 1
    hidden = weights["r"].shape[-1]
    p = weights.pop("p", None)
    states = dict(zip(("initial_h", "initial_c"), start, strict=False))
    given = {**weights, **states}
    if kind is ops.LSTM:
        given["p"] = p
    op = kind(hidden, direction, **fields)
    found = check(op, x, bound=3e-5, sequence_lens=lengths, **given)
    extra = [lengths, *start] + [None] * (2 - len(start)) + [p]
    extra = extra[: 4 if kind is ops.LSTM else 2]
    attributes = {
        name: int(getattr(op, name))
        for name in ("linear_before_reset", "input_forget")
        if hasattr(op, name)
    }
    if op.clip:
        attributes["clip"] = op.clip
    if op.activations:
        attributes["activations"] = list(op.activations)
    wanted = onnx_runtime_answers(
        kind.__name__,
        x,
        *weights.values(),
        *extra,
        outputs=3 if kind is ops.LSTM else 2,
        hidden_size=hidden,
        direction=direction,
        **attributes,
    )
    assert found[0].shape == (x.shape[0], d, x.shape[1], hidden)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("hidden", [1, 3, 8, 17, 33])
@pytest.mark.parametrize("kind", GATES)
def test_every_layer(kind, hidden, direction):
    rng = np.random.default_rng(hidden)
    d = 2 if direction == "bidirectional" else 1
    for batch in (1, 3, 17):
        x = normal(rng, (4, batch, 5))
        compare(kind, x, parts(kind, d, hidden, 5), direction)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", GATES)
def test_states_and_lengths(kind, direction):
    rng = np.random.default_rng(1)
    d = 2 if direction == "bidirectional" else 1
    x = normal(rng, (6, 4, 3))
    lengths = np.int32([6, 1, 4, 3])
    start = [normal(rng, (d, 4, 5)) for _ in range(2 if kind is ops.LSTM else 1)]
    compare(kind, x, parts(kind, d, 5, 3), direction, lengths, start)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_peepholes_and_coupled_gates(direction):
    rng = np.random.default_rng(2)
    d = 2 if direction == "bidirectional" else 1
    x = normal(rng, (4, 2, 3))
    weights = parts(ops.LSTM, d, 19, 3) | {"p": normal(rng, (d, 3 * 19))}
    compare(ops.LSTM, x, dict(weights), direction)
    del weights["p"]
    compare(ops.LSTM, x, weights, direction, input_forget=True)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_reset_after_the_product(direction):
    rng = np.random.default_rng(3)
    d = 2 if direction == "bidirectional" else 1
    for hidden in (1, 16, 21):
        x = normal(rng, (4, 2, 3))
        weights = parts(ops.GRU, d, hidden, 3)
        compare(ops.GRU, x, weights, direction, linear_before_reset=True)


def test_activations():
    rng = np.random.default_rng(4)
    x = normal(rng, (4, 2, 3))
    for names in [("HardSigmoid", "Softsign", "Relu"), ("Sigmoid", "Elu", "LeakyRelu")]:
        op = ops.LSTM(7, activations=names)
        check(op, x, bound=1e-4, **parts(ops.LSTM, 1, 7, 3))
    names = ("Sigmoid", "Relu", "HardSigmoid", "Tanh")
    weights = parts(ops.GRU, 2, 7, 3)
    compare(ops.GRU, x, weights, "bidirectional", activations=names)
    op = ops.RNN(7, activations=("LeakyRelu",), alphas=(0.3,))
    check(op, x, bound=1e-4, **parts(ops.RNN, 1, 7, 3))
    assert op.functions[0].alpha == pytest.approx(0.3)


@pytest.mark.parametrize("kind", GATES)
def test_clip(kind):
    rng = np.random.default_rng(5)
    x = normal(rng, (4, 2, 3), 3)
    compare(kind, x, parts(kind, 1, 5, 3), clip=0.5)


@pytest.mark.parametrize("kind", GATES)
def test_batch_first(kind):
    rng = np.random.default_rng(6)
    x = normal(rng, (4, 3, 5))
    weights = parts(kind, 2, 9, 5)
    lengths = np.int64([4, 2, 3])
    start = normal(rng, (2, 3, 9))
    plain = check(
        kind(9, "bidirectional"),
        x, bound=3e-5, sequence_lens=lengths, initial_h=start, **weights,
    )  # fmt: skip
    turned = check(
        kind(9, "bidirectional", batch_first=True),
        x.swapaxes(0, 1).copy(), bound=3e-5, sequence_lens=lengths,
        initial_h=start.swapaxes(0, 1).copy(), **weights,
    )  # fmt: skip
    np.testing.assert_array_equal(turned[0], plain[0].transpose(2, 0, 1, 3))
    for one, other in zip(turned[1:], plain[1:], strict=True):
        np.testing.assert_array_equal(one, other.swapaxes(0, 1))


def test_states_and_lengths_may_be_values():
    rng = np.random.default_rng(7)
    x, start = normal(rng, (4, 3, 5)), normal(rng, (1, 3, 9))
    weights = parts(ops.GRU, 1, 9, 5)
    check(ops.GRU(9), x, start, np.int64([4, 0, 3]), bound=3e-5, **weights)


def test_a_state_for_all():
    rng = np.random.default_rng(8)
    x, start = normal(rng, (4, 3, 5)), normal(rng, (1, 1, 9))
    weights = parts(ops.RNN, 1, 9, 5)
    one = check(ops.RNN(9), x, bound=3e-5, initial_h=start, **weights)
    every = np.repeat(start, 3, axis=1)
    other = check(ops.RNN(9), x, bound=3e-5, initial_h=every, **weights)
    np.testing.assert_array_equal(one[0], other[0])


def test_without_biases():
    x = normal(np.random.default_rng(9), (4, 3, 5))
    for kind in GATES:
        weights = parts(kind, 1, 6, 5)
        del weights["b"]
        check(kind(6), x, bound=3e-5, **weights)


def test_rejects():
    x, w, r = Spec((4, 3, 5)), Spec((1, 36, 5)), Spec((1, 36, 9))
    with pytest.raises(ShapeError, match=r"LSTM: w \(1, 36, 5\), wanted \(1, 24, 5\)"):
        ops.LSTM(6).infer(x, w, r)
    with pytest.raises(ShapeError, match=r"LSTM: initial state \(1, 2, 9\), wanted"):
        ops.LSTM(9).infer(x, w, r, initial_h=Spec((1, 2, 9)))
    with pytest.raises(ShapeError, match="LSTM wants sequences of vectors"):
        ops.LSTM(9).infer(Spec((4, 3)), w, r)
    with pytest.raises(DTypeError, match="LSTM's lengths: found int8"):
        ops.LSTM(9).infer(x, w, r, sequence_lens=Spec((3,), "int8"))
    with pytest.raises(ValueError, match=r"activations \('Tanh',\), wanted 3 of"):
        ops.LSTM(9, activations=("Tanh",))
    with pytest.raises(ValueError, match=r"activations .* wanted 1 of"):
        ops.RNN(9, activations=("Affine",))
    with pytest.raises(ValueError, match="direction 'both'"):
        ops.RNN(9, "both")
    with pytest.raises(ValueError, match="clip -1"):
        ops.RNN(9, clip=-1)
