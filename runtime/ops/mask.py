"""Triangles, diagonals and one-hot vectors."""

from __future__ import annotations

import numpy as np

from ..errors import DTypeError
from ..record import record
from ..spec import Array, Spec, shape_text
from ..step import Step
from ..view import View
from .base import Lowering, Op, checked_fields, finite_fields, require
from .binary import NUMBERS, arithmetic_step, common_dtype
from .cast import DTYPES, DType, as_int64, checked_dtype
from .compare import compare_step
from .identity import copy_step, scratch_tensor
from .where import where_step


@record
class Trilu(Op):
    """Keep a triangle of matrices, the last two axes, and make the rest zero.

    Parameters
    ----------
    upper : bool
        Keep what is above the diagonal; else what is below. The diagonal is kept.
    k : int
        Which diagonal: above the main one if positive.
    """

    upper: bool = True
    k: int = 0

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_fields(self, ("k",), ("upper",))

    def infer(self, x: Spec) -> Spec:
        """Return the input's spec."""
        require(x.rank >= 2, f"Trilu wants matrices, found {shape_text(x.shape)}")
        common_dtype("Trilu", DTYPES, x)
        return x

    def reference(self, x: Array) -> Array:
        """Return the triangles."""
        y: Array = np.triu(x, self.k) if self.upper else np.tril(x, self.k)
        return y

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return a choice between the tensor and zero."""
        kept = self.reference(np.ones(out.shape[-2:], bool))
        return [where_step(low, out, kept, x, np.zeros((), out.dtype))]


@record
class EyeLike(Op):
    """Make a matrix of ones on a diagonal and zeros, of the shape of the input.

    Parameters
    ----------
    dtype : str
        The type of the result.
    k : int
        Which diagonal: above the main one if positive.
    """

    dtype: DType = "float32"
    k: int = 0

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_dtype(self.dtype)
        checked_fields(self, ("k",))

    def infer(self, x: Spec) -> Spec:
        """Return the shape of x."""
        require(x.rank == 2, f"EyeLike wants a matrix, found {shape_text(x.shape)}")
        return Spec(x.shape, self.dtype)

    def reference(self, x: Array) -> Array:
        """Return the matrix."""
        rows, columns = x.shape
        return np.eye(rows, columns, self.k, np.dtype(self.dtype))

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return a copy of a constant."""
        ones = self.reference(np.empty(out.shape))
        return [copy_step(low, out, low.constant(ones))]


@record
class OneHot(Op):
    """Make a vector for each index that is `on` there and `off` elsewhere.

    The operand is `indices`, of numbers; floats lose their fraction. An index counts
    from the end if negative; a vector whose index is outside is `off` throughout.

    Parameters
    ----------
    depth : int
        The length of the vectors.
    axis : int
        Where the new axis stands in the result; from the back if negative.
    off, on : float
        The numbers in the vectors.
    dtype : str
        Their type.
    """

    depth: int
    axis: int = -1
    off: float = 0.0
    on: float = 1.0
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_fields(self, ("depth", "axis"))
        finite_fields(self, "off", "on")
        checked_dtype(self.dtype)
        if self.depth < 1:
            raise ValueError(f"depth {self.depth}, wanted at least 1")

    def infer(self, indices: Spec) -> Spec:
        """Return the shape of the indices with one axis more."""
        if indices.dtype not in NUMBERS:
            raise DTypeError(f"OneHot: found {indices}, wanted {', '.join(NUMBERS)}")
        axis = self._axis(indices.rank)
        shape = (*indices.shape[:axis], self.depth, *indices.shape[axis:])
        return Spec(shape, self.dtype)

    def reference(self, indices: Array) -> Array:
        """Return the vectors."""
        axis = self._axis(indices.ndim)
        index = np.expand_dims(indices.astype(np.int64), axis)
        places = np.arange(self.depth).reshape((-1,) + (1,) * (indices.ndim - axis))
        hot = (index == places) | (index == places - self.depth)
        y: Array = np.where(hot, self.on, self.off).astype(self.dtype)
        return y

    def lower(self, low: Lowering, out: View, indices: View | Array) -> list[Step]:
        """Return comparisons with all places and a choice."""
        index, steps = as_int64(low, indices)
        axis = self._axis(index.rank)
        index = View(
            index.buffer,
            (*index.shape[:axis], 1, *index.shape[axis:]),
            (*index.strides[:axis], 1, *index.strides[axis:]),
            index.offset,
            index.dtype,
        )
        places = np.arange(self.depth).reshape((-1,) + (1,) * (out.rank - axis - 1))
        hot, negative = (scratch_tensor(low, out.shape, "bool") for _ in range(2))
        on, off = (np.array(v).astype(self.dtype) for v in (self.on, self.off))
        return [
            *steps,
            compare_step(low, "Equal", hot, index, places),
            compare_step(low, "Equal", negative, index, places - self.depth),
            arithmetic_step(low, "Or", hot, hot, negative),
            where_step(low, out, hot, on, off),
        ]

    def _axis(self, rank: int) -> int:
        require(
            -rank - 1 <= self.axis <= rank,
            f"OneHot: axis {self.axis} is outside a tensor of rank {rank + 1}",
        )
        return self.axis % (rank + 1)
