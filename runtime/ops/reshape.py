"""The same elements under another shape."""

from __future__ import annotations

from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from .base import Lowering, Op, as_view, product, require
from .identity import copy_step


class _Reshaping(Op, abstract=True):
    """What reshaping and flattening share: they move nothing if they can."""

    def reference(self, x: Array) -> Array:
        """Return the reshaped array."""
        shape: Shape = self.infer(Spec(x.shape)).shape
        return x.reshape(shape)

    def view(self, x: View) -> View | None:
        """Return the input under the new shape, or None if it lies too scattered."""
        shape: Shape = self.infer(x.spec).shape
        return x.reshape(shape)

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return a copy, or two if both tensors lie scattered."""
        source = as_view(low, x)
        reshaped = source.reshape(out.shape)
        if reshaped is not None:
            return [copy_step(low, out, reshaped)]
        place = out.reshape(source.shape)
        if place is not None:
            return [copy_step(low, place, source)]
        between = low.scratch(source.size, source.dtype)
        first, second = between.reshape(source.shape), between.reshape(out.shape)
        assert first is not None
        assert second is not None
        return [copy_step(low, first, source), copy_step(low, out, second)]


@record
class Reshape(_Reshaping):
    """Give the elements, in their order, another shape.

    Parameters
    ----------
    shape : tuple of int
        0 keeps the size of that axis; -1, once, stands for what remains.
    """

    shape: Shape

    def __post_init__(self) -> None:
        """Check the shape; raise `ValueError` if it makes no sense."""
        shape = tuple(self.shape)
        whole = all(isinstance(n, int) and not isinstance(n, bool) for n in shape)
        if not whole or min(shape, default=0) < -1 or shape.count(-1) > 1:
            raise ValueError(f"shape {shape}, wanted sizes, 0 or one -1")
        object.__setattr__(self, "shape", shape)

    def infer(self, x: Spec) -> Spec:
        """Return the shape with 0 and -1 filled in."""
        message = (
            f"Reshape: {shape_text(x.shape)} does not fit {shape_text(self.shape)}"
        )
        require(all(n or i < x.rank for i, n in enumerate(self.shape)), message)
        shape = [n or x.shape[i] for i, n in enumerate(self.shape)]
        known = product(tuple(n for n in shape if n != -1))
        if -1 in shape and known:
            shape[shape.index(-1)] = x.size // known
        require(product(tuple(shape)) == x.size and -1 not in shape, message)
        return Spec(tuple(shape), x.dtype)

    def changes_nothing(self, x: Spec) -> bool:
        """Return whether every size is kept."""
        return self.shape == (0,) * x.rank


class Flatten(_Reshaping):
    """Put all axes but the first in one: (N, ...) to (N, rest)."""

    def infer(self, x: Spec) -> Spec:
        """Return (N, product of the other sizes)."""
        require(x.rank > 0, "Flatten: the input has no axes")
        return Spec((x.shape[0], product(x.shape[1:])), x.dtype)
