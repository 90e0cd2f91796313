"""Recurrent layers: LSTM, GRU and the plain one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np

from ..algorithms import Moves, matrix_product
from ..algorithms.matrix_product import best_tile
from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from .activation import (
    Activation,
    Elu,
    HardSigmoid,
    LeakyRelu,
    Relu,
    Sigmoid,
    Softplus,
    Softsign,
    Tanh,
    ThresholdedRelu,
)
from .base import (
    NOTHING,
    Lowering,
    Op,
    as_view,
    checked_fields,
    finite_fields,
    require,
    require_float32,
)
from .binary import common_dtype
from .cast import as_int64
from .matmul import packed_panels

FUNCTIONS: dict[str, Callable[..., Activation]] = {
    "Relu": Relu,
    "Sigmoid": Sigmoid,
    "Tanh": Tanh,
    "LeakyRelu": LeakyRelu,
    "ThresholdedRelu": ThresholdedRelu,
    "HardSigmoid": HardSigmoid,
    "Elu": Elu,
    "Softsign": Softsign,
    "Softplus": Softplus,
}
"""The activations there are, by their names in ONNX."""

PARAMETERS = {
    "LeakyRelu": 1,
    "ThresholdedRelu": 1,
    "HardSigmoid": 2,
    "Elu": 1,
}
"""How many numbers an activation takes, if any."""

Direction = Literal["forward", "reverse", "bidirectional"]


@record
class Recurrent(Op, abstract=True):
    """A layer that walks along sequences and keeps a state.

    Parameters
    ----------
    hidden_size : int
        Numbers in a state.
    direction : str
        ``"forward"``, ``"reverse"`` or ``"bidirectional"``.
    activations : tuple of str
        Names of ONNX's, for each direction in ONNX's order; () for the usual ones.
    alphas, betas : tuple of float
        Numbers for each of the activations, those without any included; () for ONNX's.
    clip : float
        What goes into an activation is limited to this magnitude; 0 for no limit.
    batch_first : bool
        Whether x is (batch, time, in) and y (batch, time, direction, hidden), states
        (batch, direction, hidden); else (time, batch, in), (time, direction, batch,
        hidden) and (direction, batch, hidden).
    """

    hidden_size: int
    direction: Direction = "forward"
    activations: tuple[str, ...] = ()
    alphas: tuple[float, ...] = ()
    betas: tuple[float, ...] = ()
    clip: float = 0.0
    batch_first: bool = False

    weights: ClassVar[tuple[str, ...]] = ("w", "r", "b", "p")
    gates: ClassVar[int]
    usual: ClassVar[tuple[str, ...]]
    kind: ClassVar[str]

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_fields(self, ("hidden_size",), ("batch_first",))
        finite_fields(self, "clip")
        for name in ("activations", "alphas", "betas"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.hidden_size < 1:
            raise ValueError(f"hidden_size {self.hidden_size}, wanted at least 1")
        if self.clip < 0:
            raise ValueError(f"clip {self.clip}, wanted at least 0")
        if self.direction not in ("forward", "reverse", "bidirectional"):
            raise ValueError(f"direction {self.direction!r}")
        wanted = self.directions * len(self.usual)
        unknown = set(self.activations) - FUNCTIONS.keys()
        if unknown or len(self.activations) not in (0, wanted):
            raise ValueError(
                f"activations {self.activations}, wanted {wanted} of "
                + ", ".join(FUNCTIONS)
            )
        for name in ("alphas", "betas"):
            if len(getattr(self, name)) not in (0, wanted):
                raise ValueError(f"{name} {getattr(self, name)}, wanted {wanted}")

    @property
    def directions(self) -> int:
        """How many."""
        return 2 if self.direction == "bidirectional" else 1

    @property
    def functions(self) -> list[Activation]:
        """The activations of all directions."""
        names = self.activations or self.usual * self.directions
        found = []
        for index, name in enumerate(names):
            numbers = [n[index] for n in (self.alphas, self.betas) if n]
            found.append(FUNCTIONS[name](*numbers[: PARAMETERS.get(name, 0)]))
        return found

    def specs(
        self,
        x: Spec,
        w: Spec,
        r: Spec,
        b: Spec | None,
        p: Spec | None,
        states: list[Spec | None],
        sequence_lens: Spec | None,
    ) -> tuple[Spec, ...]:
        """Return the specs of y and of the states after the last element."""
        name = type(self).__name__
        floats = [s for s in (x, w, r, b, p, *states) if s is not None]
        require_float32(name, *floats)
        require(
            x.rank == 3 and 0 not in x.shape,
            f"{name} wants sequences of vectors, found {shape_text(x.shape)}",
        )
        batch, times, width = x.shape
        if not self.batch_first:
            batch, times = times, batch
        d, h, g = self.directions, self.hidden_size, self.gates
        wanted: list[tuple[str, Spec | None, Shape]] = [
            ("w", w, (d, g * h, width)),
            ("r", r, (d, g * h, h)),
            ("b", b, (d, 2 * g * h)),
            ("p", p, (d, 3 * h)),
            ("sequence_lens", sequence_lens, (batch,)),
        ]
        for operand, spec, shape in wanted:
            require(
                spec is None or spec.shape == shape,
                f"{name}: {operand} {shape_text(spec.shape) if spec else ''}, wanted "
                f"{shape_text(shape)} for {shape_text(x.shape)}",
            )
        state = (batch, d, h) if self.batch_first else (d, batch, h)
        one = (1, d, h) if self.batch_first else (d, 1, h)
        for spec in states:
            require(
                spec is None or spec.shape in (state, one),
                f"{name}: initial state {shape_text(spec.shape) if spec else ''}, "
                f"wanted {shape_text(state)}",
            )
        if sequence_lens is not None:
            kind = f"{name}'s lengths"
            common_dtype(kind, ("int32", "int64"), sequence_lens)
        y = (batch, times, d, h) if self.batch_first else (times, d, batch, h)
        return Spec(y), *(Spec(state) for _ in states)

    def multiply_adds(self, out: Spec, x: Spec, w: Spec, r: Spec, *_: Any) -> int:
        """Return the products with both matrices at every time."""
        rows = math.prod(x.shape[:2]) * self.gates * self.hidden_size
        return rows * self.directions * (x.shape[-1] + self.hidden_size)

    def evaluate(
        self,
        x: Array,
        w: Array,
        r: Array,
        b: Array | None,
        p: Array | None,
        states: list[Array | None],
        sequence_lens: Array | None,
    ) -> tuple[Array, ...]:
        """Return y and the last states by walking along each sequence."""
        x = np.swapaxes(x, 0, 1) if self.batch_first else x
        times, batch, _ = x.shape
        d, h, g = self.directions, self.hidden_size, self.gates
        y = np.zeros((times, d, batch, h), x.dtype)
        biases = np.zeros((d, 2 * g * h), x.dtype) if b is None else b
        peepholes = np.zeros((d, 3 * h), x.dtype) if p is None else p
        last = [np.zeros((d, batch, h), x.dtype) for _ in states]
        for place, start in zip(last, states, strict=True):
            if start is not None:
                place[:] = np.swapaxes(start, 0, 1) if self.batch_first else start
        for k, n in np.ndindex(d, batch):
            length = times if sequence_lens is None else int(sequence_lens[n])
            order = range(max(0, min(length, times)))
            for t in reversed(order) if self._backwards(k) else order:
                state = [each[k, n] for each in last]
                weights = w[k], r[k], biases[k], peepholes[k]
                new = self.step(k, x[t, n], state, weights)
                for place, value in zip(last, new, strict=True):
                    place[k, n] = value
                y[t, k, n] = new[0]
        if self.batch_first:
            return y.transpose(2, 0, 1, 3), *(np.swapaxes(s, 0, 1) for s in last)
        return y, *last

    def step(
        self, k: int, x: Array, state: list[Array], weights: tuple[Array, ...]
    ) -> list[Array]:
        """Return the state of direction `k` after one more vector.

        `weights` are that direction's w, r, b and p.
        """
        raise NotImplementedError

    def options(self) -> tuple[bool, bool]:
        """Return whether a reset is after the product, and whether f is 1 - i."""
        return False, False

    def _apply(self, k: int, index: int, x: Array) -> Array:
        """Return an activation of direction `k`."""
        x = np.clip(x, -self.clip, self.clip) if self.clip else x
        y: Array = self.functions[k * len(self.usual) + index].reference(x)
        return y

    def _backwards(self, k: int) -> bool:
        return self.direction == "reverse" or k == 1

    def steps(
        self,
        low: Lowering,
        out: tuple[View, ...],
        x: View | Array,
        w: Array,
        r: Array,
        b: Array | None,
        p: Array | None,
        states: list[View | Array | None],
        sequence_lens: View | Array | None,
    ) -> list[Step]:
        """Return the products with the inputs, then the walk."""
        later, input_forget = self.options()
        source = as_view(low, x)
        if self.batch_first:
            source = source.transpose((1, 0, 2))
        times, batch, width = source.shape
        d, h, g = self.directions, self.hidden_size, self.gates
        inputs = low.scratch(d * times * batch * g * h)
        steps: list[Step] = []
        shape = (times, batch, g * h)
        for k in range(d):
            strides = (batch * g * h, g * h, 1)
            place = View(inputs.buffer, shape, strides, k * math.prod(shape))
            kernel, bias = self._input_weights(low, k, w, b, later)
            moves = Moves.between(place, source.strides[:-1], None)
            steps.append(
                matrix_product(
                    low, moves, place, source, kernel, bias, [0], width, 1, NOTHING
                )
            )
        module = low.load("recurrent")
        vectors = -(-g * h // module.lanes)
        tile = best_tile(batch, vectors, module.registers)
        packed, biases = self._state_weights(low, r, b, later, tile[1])
        nothing = low.constant(np.zeros(1, np.float32))
        given = [
            nothing if state is None else as_view(low, state)
            for state in (*states, None)[:2]
        ]
        lengths, more = (
            (low.constant(np.zeros(1, np.int64)), [])
            if sequence_lens is None
            else as_int64(low, sequence_lens)
        )
        moves_out = tuple(map(self._moves, (*out, out[1])[:3]))
        starts = tuple(
            self._moves(v.broadcast(out[1].shape)) if v.rank == 3 else (0, 0, 0)
            for v in given
        )
        functions = []
        for k in range(d):
            own = self.functions[k * len(self.usual) : (k + 1) * len(self.usual)]
            own += [Tanh()] * (3 - len(own))
            functions += [(f.code, f.alpha, f.beta) for f in own]
        walk = module.recurrent(
            self.kind,
            d,
            times,
            batch,
            h,
            tile,
            moves_out + starts,
            tuple(functions),
            self.clip or math.inf,
            self.direction == "reverse",
            later,
            input_forget,
            bool(states) and states[0] is not None,
            len(states) > 1 and states[1] is not None,
            sequence_lens is not None,
            p is not None,
        )
        operands = (
            *(*out, out[1])[:3],
            inputs,
            packed,
            biases,
            *given,
            lengths,
            nothing if p is None else low.constant(p),
            low.scratch(d * batch * (g + 3) * h),
        )
        return [*steps, *more, Step(walk, operands, "recurrent")]

    def _moves(self, view: View) -> tuple[int, int, int]:
        """Return the strides along time, direction and picture."""
        s = view.strides
        if view.rank == 4:
            return (s[1], s[2], s[0]) if self.batch_first else (s[0], s[1], s[2])
        return (0, s[1], s[0]) if self.batch_first else (0, s[0], s[1])

    def _input_weights(
        self, low: Lowering, k: int, w: Array, b: Array | None, later: bool
    ) -> tuple[Array, Array | None]:
        """Return kernel and bias of what the inputs contribute."""
        g, h = self.gates, self.hidden_size
        turned = low.packed(w, ("turned", k), lambda: np.ascontiguousarray(w[k].T))
        kernel = turned.buffer.array
        assert kernel is not None
        if b is None:
            return kernel, None

        def bias() -> Array:
            own, recurrent = b[k].reshape(2, g, h).copy()
            if later:
                recurrent[2] = 0
            return np.ascontiguousarray((own + recurrent).reshape(-1))

        return kernel, low.packed(b, ("bias", k, later), bias).buffer.array

    def _state_weights(
        self, low: Lowering, r: Array, b: Array | None, later: bool, nr: int
    ) -> tuple[View, View]:
        """Return the recurrent weights in panels, and the biases beside them.

        The weights of a GRU's new state are a matrix of their own.
        """
        g, h, lanes = self.gates, self.hidden_size, low.load("recurrent").lanes
        parts = [slice(0, 2 * h), slice(2 * h, 3 * h)]
        if self.kind != "GRU":
            parts = [slice(0, g * h)]

        def pack() -> Array:
            panels = [packed_panels(m[part].T, lanes, nr) for m in r for part in parts]
            return np.concatenate(panels)

        def pack_bias() -> Array:
            rows = []
            for k in range(self.directions):
                for part in parts:
                    size = -(-(part.stop - part.start) // lanes) * lanes
                    row = np.zeros(size, np.float32)
                    if later and part.start and b is not None:
                        row[:h] = b[k].reshape(2, g, h)[1, 2]
                    rows.append(row)
            return np.concatenate(rows)

        key = ("recurrent", nr, later)
        return low.packed(r, key, pack), low.packed(
            r if b is None else b, ("recurrent bias", later, h), pack_bias
        )


@record
class LSTM(Recurrent):
    """Walk along sequences with long short-term memory.

    Operands: `x`, sequences of vectors; the weights `w` (directions, 4 hidden, in), `r`
    (directions, 4 hidden, hidden), `b` (directions, 8 hidden), gates in the order i, o,
    f, c, and the peepholes `p` (directions, 3 hidden) in the order i, o, f; `initial_h`
    and `initial_c`, one for all or one a picture; `sequence_lens`, int32 or int64. All
    after `r` may be left out; who gives a value after one that is left out gives zeros
    there. The outputs are y and the last h and c. `Recurrent` describes the other
    fields.

    Parameters
    ----------
    input_forget : bool
        Whether the forget gate is 1 - i.
    """

    input_forget: bool = False

    gates: ClassVar[int] = 4
    usual: ClassVar[tuple[str, ...]] = ("Sigmoid", "Tanh", "Tanh")
    kind: ClassVar[str] = "LSTM"

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        super().__post_init__()
        checked_fields(self, (), ("input_forget",))

    def infer(
        self,
        x: Spec,
        w: Spec,
        r: Spec,
        b: Spec | None = None,
        p: Spec | None = None,
        initial_h: Spec | None = None,
        initial_c: Spec | None = None,
        sequence_lens: Spec | None = None,
    ) -> tuple[Spec, ...]:
        """Return the specs of y, the last h and the last c."""
        return self.specs(x, w, r, b, p, [initial_h, initial_c], sequence_lens)

    def reference(
        self,
        x: Array,
        w: Array,
        r: Array,
        b: Array | None = None,
        p: Array | None = None,
        initial_h: Array | None = None,
        initial_c: Array | None = None,
        sequence_lens: Array | None = None,
    ) -> tuple[Array, ...]:
        """Return y, the last h and the last c."""
        return self.evaluate(x, w, r, b, p, [initial_h, initial_c], sequence_lens)

    def step(
        self, k: int, x: Array, state: list[Array], weights: tuple[Array, ...]
    ) -> list[Array]:
        """Return h and c after one more vector."""
        w, r, b, p = weights
        h, c = state
        own, recurrent = b.reshape(2, -1)
        i, o, f, new = (w @ x + r @ h + own + recurrent).reshape(4, -1)
        p_i, p_o, p_f = p.reshape(3, -1)
        i = self._apply(k, 0, i + p_i * c)
        f = 1 - i if self.input_forget else self._apply(k, 0, f + p_f * c)
        c = f * c + i * self._apply(k, 1, new)
        o = self._apply(k, 0, o + p_o * c)
        return [o * self._apply(k, 2, c), c]

    def options(self) -> tuple[bool, bool]:
        """Return that there is no reset, and whether f is 1 - i."""
        return False, self.input_forget

    def lower(
        self,
        low: Lowering,
        out: tuple[View, ...],
        x: View | Array,
        w: Array,
        r: Array,
        b: Array | None = None,
        p: Array | None = None,
        initial_h: View | Array | None = None,
        initial_c: View | Array | None = None,
        sequence_lens: View | Array | None = None,
    ) -> list[Step]:
        """Return the products with the inputs, then the walk."""
        states = [initial_h, initial_c]
        return self.steps(low, out, x, w, r, b, p, states, sequence_lens)


class OneState(Recurrent, abstract=True):
    """A recurrent layer whose state is its output."""

    def infer(
        self,
        x: Spec,
        w: Spec,
        r: Spec,
        b: Spec | None = None,
        initial_h: Spec | None = None,
        sequence_lens: Spec | None = None,
    ) -> tuple[Spec, ...]:
        """Return the specs of y and the last h."""
        return self.specs(x, w, r, b, None, [initial_h], sequence_lens)

    def reference(
        self,
        x: Array,
        w: Array,
        r: Array,
        b: Array | None = None,
        initial_h: Array | None = None,
        sequence_lens: Array | None = None,
    ) -> tuple[Array, ...]:
        """Return y and the last h."""
        return self.evaluate(x, w, r, b, None, [initial_h], sequence_lens)

    def lower(
        self,
        low: Lowering,
        out: tuple[View, ...],
        x: View | Array,
        w: Array,
        r: Array,
        b: Array | None = None,
        initial_h: View | Array | None = None,
        sequence_lens: View | Array | None = None,
    ) -> list[Step]:
        """Return the products with the inputs, then the walk."""
        return self.steps(low, out, x, w, r, b, None, [initial_h], sequence_lens)


@record
class GRU(OneState):
    """Walk along sequences with gated recurrent units.

    Operands: `x`, sequences of vectors; the weights `w` (directions, 3 hidden, in), `r`
    (directions, 3 hidden, hidden) and `b` (directions, 6 hidden), gates in the order z,
    r, h; `initial_h`, one for all or one a picture; `sequence_lens`, int32 or int64.
    All after `r` may be left out; who gives a value after one that is left out gives
    zeros there. The outputs are y and the last h. `Recurrent` describes the other
    fields.

    Parameters
    ----------
    linear_before_reset : bool
        Whether the state is multiplied by the weights before it is reset.
    """

    linear_before_reset: bool = False

    gates: ClassVar[int] = 3
    usual: ClassVar[tuple[str, ...]] = ("Sigmoid", "Tanh")
    kind: ClassVar[str] = "GRU"

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        super().__post_init__()
        checked_fields(self, (), ("linear_before_reset",))

    def options(self) -> tuple[bool, bool]:
        """Return whether the reset is after the product."""
        return self.linear_before_reset, False

    def step(
        self, k: int, x: Array, state: list[Array], weights: tuple[Array, ...]
    ) -> list[Array]:
        """Return h after one more vector."""
        w, r, b, _ = weights
        (h,) = state
        own, recurrent = b.reshape(2, 3, -1)
        w, r = w.reshape(3, -1, len(x)), r.reshape(3, -1, len(h))
        z, reset = (
            self._apply(k, 0, w[j] @ x + r[j] @ h + own[j] + recurrent[j])
            for j in range(2)
        )
        if self.linear_before_reset:
            new = w[2] @ x + own[2] + reset * (r[2] @ h + recurrent[2])
        else:
            new = w[2] @ x + own[2] + r[2] @ (reset * h) + recurrent[2]
        return [(1 - z) * self._apply(k, 1, new) + z * h]


class RNN(OneState):
    """Walk along sequences with a state that is one activation of both products.

    Operands: `x`, sequences of vectors; the weights `w` (directions, hidden, in), `r`
    (directions, hidden, hidden) and `b` (directions, 2 hidden); `initial_h`, one for
    all or one a picture; `sequence_lens`, int32 or int64. All after `r` may be left
    out; who gives a value after one that is left out gives zeros there. The outputs are
    y and the last h. `Recurrent` describes the fields.
    """

    gates: ClassVar[int] = 1
    usual: ClassVar[tuple[str, ...]] = ("Tanh",)
    kind: ClassVar[str] = "RNN"

    def step(
        self, k: int, x: Array, state: list[Array], weights: tuple[Array, ...]
    ) -> list[Array]:
        """Return h after one more vector."""
        w, r, b, _ = weights
        own, recurrent = b.reshape(2, -1)
        return [self._apply(k, 0, w @ x + r @ state[0] + own + recurrent)]
