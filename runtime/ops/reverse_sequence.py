"""Turning sequences round."""

from __future__ import annotations

import numpy as np

from ..record import record
from ..spec import Array, Spec, shape_text
from ..step import Step
from ..view import View
from .base import Lowering, Op, as_view, checked_fields, normal_axis, require
from .binary import arithmetic_step
from .cast import as_int64
from .compare import compare_step
from .gather import beside, require_indices
from .identity import scratch_tensor
from .where import where_step


@record
class ReverseSequence(Op):
    """Turn round the first elements of sequences and leave the others where they are.

    Operands: `x`; `sequence_lens`, int32 or int64, one length a sequence: how many
    elements are turned round, at most as many as there are.

    Parameters
    ----------
    batch_axis, time_axis : int
        Along which sequences are counted, and along which they run.
    """

    batch_axis: int = 1
    time_axis: int = 0

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` unless they are whole numbers."""
        checked_fields(self, ("batch_axis", "time_axis"))

    def infer(self, x: Spec, sequence_lens: Spec) -> Spec:
        """Return the input's spec."""
        require_indices("ReverseSequence", sequence_lens)
        batch, time = self._axes(x.rank)
        require(batch != time, "ReverseSequence: batch_axis and time_axis are the same")
        require(
            sequence_lens.shape == (x.shape[batch],),
            f"ReverseSequence: {shape_text(sequence_lens.shape)} lengths for "
            f"{x.shape[batch]} sequences in {shape_text(x.shape)}",
        )
        return x

    def reference(self, x: Array, sequence_lens: Array) -> Array:
        """Return the sequences turned round."""
        batch, time = self._axes(x.ndim)
        places = np.indices(x.shape, sparse=True)
        t: Array = places[time]
        lengths = np.clip(sequence_lens, 0, x.shape[time])[places[batch]]
        y: Array = x[beside(x.shape, time, np.where(t < lengths, lengths - 1 - t, t))]
        return y

    def lower(
        self, low: Lowering, out: View, x: View | Array, sequence_lens: View | Array
    ) -> list[Step]:
        """Return the index of every element's origin, and a gather."""
        source = as_view(low, x)
        lengths, steps = as_int64(low, sequence_lens)
        batch, time = self._axes(source.rank)
        n, size = source.shape[time], source.shape[batch]
        t = np.arange(n)[:, None]
        index, turned = (scratch_tensor(low, (n, size), "int64") for _ in range(2))
        kept = scratch_tensor(low, (n, size), "bool")
        strides = [0] * source.rank
        strides[time], strides[batch] = index.strides
        along = tuple(0 if a == time else s for a, s in enumerate(source.strides))
        gather = low.load("gather").gather(
            out.itemsize,
            out.shape,
            (out.strides, along, tuple(strides)),
            (n,),
            (source.strides[time],),
        )
        return [
            *steps,
            arithmetic_step(low, "Minimum", turned, lengths, np.array(n)),
            arithmetic_step(low, "Sub", turned, turned, t + 1),
            compare_step(low, "Greater", kept, np.array(0), turned),
            where_step(low, index, kept, t, turned),
            Step(gather, (out, source, index), "gather"),
        ]

    def _axes(self, rank: int) -> tuple[int, int]:
        return (
            normal_axis(self.batch_axis, rank, "ReverseSequence"),
            normal_axis(self.time_axis, rank, "ReverseSequence"),
        )
