"""Weights as small whole numbers in a model file, and back.

It is a way to store them, as bfloat16 is: layers get float32, whatever the file holds.
"""

from __future__ import annotations

import numpy as np

from .errors import DTypeError, ShapeError
from .record import Record, record
from .spec import Array, Shape, shape_text

INTEGERS = ("int8", "uint8", "int32")
"""The element types a file may quantise to."""


@record
class Quantisation(Record):
    """How whole numbers stand for real ones: ``(number - zero_point) * scale``.

    Parameters
    ----------
    dtype : str
        The whole numbers' type: int8, uint8 or int32.
    scale : Array
        float32, positive: one number, or one for each position along `axis`.
    zero_point : Array
        int32, of the shape of `scale`: what stands for zero.
    axis : int, optional
        The axis along which scales differ; None for one scale.

    Raises
    ------
    DTypeError, ShapeError
        If the parts do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from striate import Quantisation
    >>> kernel = np.float32([[0.5, 2], [-1, 4]])
    >>> per_column = Quantisation.fitting(kernel, axis=1)
    >>> per_column.integers(kernel)
    array([[  64,   64],
           [-127,  127]], dtype=int8)
    """

    dtype: str
    scale: Array
    zero_point: Array
    axis: int | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.dtype not in INTEGERS:
            raise DTypeError(f"dtype {self.dtype!r}, wanted one of {INTEGERS}")
        scale, zero = self.scale, self.zero_point
        if scale.dtype != np.float32 or zero.dtype != np.int32:
            raise DTypeError(
                f"scale {scale.dtype} and zero point {zero.dtype}, wanted float32 and "
                "int32"
            )
        if scale.ndim != (self.axis is not None) or scale.shape != zero.shape:
            raise ShapeError(
                f"scale {shape_text(scale.shape)} and zero point "
                f"{shape_text(zero.shape)}, wanted one number each, or as many as the "
                "axis has positions"
            )
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise ShapeError("a scale is not a positive finite number")
        limits = np.iinfo(self.dtype)
        if zero.min() < limits.min or zero.max() > limits.max:
            raise ShapeError(f"a zero point is no {self.dtype}")

    @classmethod
    def fitting(cls, weights: Array, axis: int | None = None) -> Quantisation:
        """Return int8 with zero at zero, as fine as the largest weights allow.

        Parameters
        ----------
        weights : Array
            What is to be stored.
        axis : int, optional
            The axis each of whose positions gets a scale of its own, such as the last
            one for the output channels of a kernel.
        """
        others = tuple(a for a in range(weights.ndim) if a != axis)
        largest = np.abs(weights).max(axis=None if axis is None else others)
        scale = np.where(largest > 0, largest / np.float32(127), 1)
        return cls("int8", np.float32(scale), np.zeros(scale.shape, np.int32), axis)

    def integers(self, weights: Array) -> Array:
        """Return the nearest whole numbers that the type has."""
        scale, zero = self._along(weights.shape)
        limits = np.iinfo(self.dtype)
        rounded: Array = np.rint(np.float64(weights) / scale) + zero
        return rounded.clip(limits.min, limits.max).astype(self.dtype)

    def numbers(self, integers: Array) -> Array:
        """Return the float32 numbers that whole numbers stand for.

        The difference is exact, the product is rounded to float64, then to float32.
        """
        scale, zero = self._along(integers.shape)
        # A buffered walk needs no temporary arrays as large as the tensor.
        walk = np.nditer(
            [integers, scale, zero, None],
            ["external_loop", "buffered"],
            [["readonly"], ["readonly"], ["readonly"], ["writeonly", "allocate"]],
            [np.float64, np.float64, np.float64, np.float32],
            "C",
            "same_kind",
        )
        with walk, np.errstate(over="ignore"):
            for number, factor, offset, result in walk:
                result[...] = (number - offset) * factor
            found: Array = walk.operands[3]
        return found

    def rounded(self, weights: Array) -> Array:
        """Return the weights that `striate.save` can store in this way."""
        return self.numbers(self.integers(weights))

    def _along(self, shape: Shape) -> tuple[Array, Array]:
        """Return scale and zero point, of a shape that broadcasts to `shape`."""
        wanted = [1] * len(shape)
        if self.axis is not None:
            if not 0 <= self.axis < len(shape) or shape[self.axis] != self.scale.size:
                raise ShapeError(
                    f"{self.scale.size} scales along axis {self.axis} of a tensor "
                    f"{shape_text(shape)}"
                )
            wanted[self.axis] = self.scale.size
        return (
            self.scale.astype(np.float64).reshape(wanted),
            self.zero_point.astype(np.int64).reshape(wanted),
        )
