"""Layers that walk along sequences."""

from __future__ import annotations

from striate import ops
from striate.spec import Shape
from striate.tools.to_onnx.elementwise import cast_to
from striate.tools.to_onnx.exporter import Exporter, Placed, Tensor, exports

ALPHA = ("LeakyRelu", "ThresholdedRelu", "HardSigmoid", "Elu")
"""Activations for which ONNX reads a number alpha."""

BETA = ("HardSigmoid",)
"""Those for which it reads a second one."""


@exports("LSTM")
def lstm(
    g: Exporter,
    op: ops.LSTM,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    p: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    sequence_lens: Tensor | None = None,
) -> tuple[Placed, ...]:
    """Walk with a long short-term memory."""
    states = [initial_h, initial_c]
    last = g.last(p) if p else ""
    forget = int(op.input_forget)
    names = _inputs(g, op, x, w, r, b, states, sequence_lens)
    return _walk(g, op, [*names, last], input_forget=forget)


@exports("GRU")
def gru(
    g: Exporter,
    op: ops.GRU,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    initial_h: Tensor | None = None,
    sequence_lens: Tensor | None = None,
) -> tuple[Placed, ...]:
    """Walk with gated units."""
    names = _inputs(g, op, x, w, r, b, [initial_h], sequence_lens)
    return _walk(g, op, names, linear_before_reset=int(op.linear_before_reset))


@exports("RNN")
def rnn(
    g: Exporter,
    op: ops.RNN,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    initial_h: Tensor | None = None,
    sequence_lens: Tensor | None = None,
) -> tuple[Placed, ...]:
    """Walk with plain units."""
    return _walk(g, op, _inputs(g, op, x, w, r, b, [initial_h], sequence_lens))


def _inputs(
    g: Exporter,
    op: ops.LSTM | ops.GRU | ops.RNN,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    states: list[Tensor | None],
    sequence_lens: Tensor | None,
) -> list[str]:
    """Return ONNX's inputs; ONNX Runtime wants time first."""
    order: Shape = (1, 0, 2) if op.batch_first else (0, 1, 2)
    sequences = g.lying(x, order)
    weights = [g.last(each) if each else "" for each in (w, r, b)]
    lengths = cast_to(g, g.last(sequence_lens), "int32") if sequence_lens else ""
    starts = []
    for state in states:
        name = g.lying(state, order) if state else ""
        batch, one = order[1], (state is not None and state.sizes()[order[1]] == 1)
        if one and x.sizes((batch,)) != [1]:
            pictures = g.node("Shape", sequences, start=1, end=2)
            parts = (g.constant([1]), pictures, g.constant([1]))
            name = g.node("Expand", name, g.node("Concat", *parts, axis=0))
        starts.append(name)
    return [sequences, *weights, lengths, *starts]


def _walk(
    g: Exporter, op: ops.LSTM | ops.GRU | ops.RNN, names: list[str], **own: int
) -> tuple[Placed, ...]:
    """Return y and the last states."""
    count = len(g.results)
    functions = op.activations
    alphas = [a for f, a in zip(functions, op.alphas, strict=False) if f in ALPHA]
    betas = [b for f, b in zip(functions, op.betas, strict=False) if f in BETA]
    attributes: dict[str, object] = {
        "hidden_size": op.hidden_size,
        "direction": op.direction,
        "activations": list(functions) or None,
        "activation_alpha": alphas or None,
        "activation_beta": betas or None,
        "clip": op.clip or None,
        **own,
    }
    found = g.node(type(op).__name__, *names, outputs=count, name="", **attributes)
    axes: list[Shape] = [(0, 1, 2, 3), *[(0, 1, 2)] * (count - 1)]
    if op.batch_first:
        axes = [(1, 2, 0, 3), *[(1, 0, 2)] * (count - 1)]
    return tuple(Placed(*each) for each in zip(found, axes, strict=True))
