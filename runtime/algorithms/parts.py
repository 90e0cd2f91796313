"""Convolutions that are cut into several steps, each with part of the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType

from ..lowering import Lowering, Option
from ..spec import Array
from ..view import View


class Part:
    """The plan's services for a step that reads arrays made from a layer's weights.

    An array made while lowering is another one in every plan. What is packed from it is
    remembered under the weight it was made from instead.

    Parameters
    ----------
    low : Lowering
        The plan's services.
    key : object
        Says, together with a weight, what was made from it.
    made : list of (Array, Array)
        Each made array and its weight.
    """

    def __init__(
        self, low: Lowering, key: object, made: list[tuple[Array, Array]]
    ) -> None:
        self.isa = low.isa
        self.threads = low.threads
        self.level1_bytes = low.level1_bytes
        self.level2_bytes = low.level2_bytes
        self._low = low
        self._key = key
        self._made = made

    def load(self, family: str) -> ModuleType:
        """Return the plan's kernel module."""
        return self._low.load(family)

    def constant(self, array: Array) -> View:
        """Return the plan's view of a constant."""
        return self._low.constant(array)

    def packed(self, array: Array, tag: object, pack: Callable[[], Array]) -> View:
        """Return `pack()`, remembered under the weight that `array` was made from."""
        return self._low.packed(*self._source(array, tag), pack)

    def filled(
        self, array: Array, tag: object, elements: int, fill: Callable[[Array], None]
    ) -> View:
        """Return what `fill` writes, remembered in the same way."""
        return self._low.filled(*self._source(array, tag), elements, fill)

    def choose(self, question: str, options: Sequence[Option]) -> Option:
        """Return the plan's choice."""
        return self._low.choose(f"{self._key} {question}", options)

    def scratch(self, elements: int, dtype: str = "float32") -> View:
        """Return scratch memory of the plan."""
        return self._low.scratch(elements, dtype)

    def _source(self, array: Array, tag: object) -> tuple[Array, object]:
        """Return the weight that an array was made from, and its tag."""
        for made, weight in self._made:
            if made is array:
                return weight, (self._key, tag)
        return array, tag
