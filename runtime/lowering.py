"""What a plan offers an operator that is choosing its kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple, Protocol, TypeVar

from .spec import Array
from .view import View

Choice = str | int
"""An option among which a plan may choose."""

Option = TypeVar("Option", str, int)


class Lowering(Protocol):
    """What a plan offers an operator that is choosing its kernel."""

    isa: str
    threads: int
    """How many threads may work on a step at once; only the size of scratch memory may
    depend on it."""
    level1_bytes: int
    level2_bytes: int

    def load(self, family: str) -> ModuleType:
        """Return the kernel module of `family` for the plan's instruction set."""

    def constant(self, array: Array) -> View:
        """Return a view of an array that never changes, such as weights."""

    def packed(self, array: Array, tag: object, pack: Callable[[], Array]) -> View:
        """Return `pack()` as a constant, made once for each (`array`, `tag`)."""

    def filled(
        self, array: Array, tag: object, elements: int, fill: Callable[[Array], None]
    ) -> View:
        """Return `elements` zeros that `fill` writes before the plan is run.

        Made once for each (`array`, `tag`), like `packed`, but after all lowering and
        on several threads, so for what is large and written without the interpreter.
        """

    def choose(self, question: str, options: Sequence[Option]) -> Option:
        """Return one of the options: the first, unless another was measured faster.

        They compute the same to rounding. The question must know neither the batch nor
        the number of threads.
        """

    def scratch(self, elements: int, dtype: str = "float32") -> View:
        """Return memory that lives as long as the steps being lowered."""


class Epilogue(NamedTuple):
    """What follows an operator's sum before it is stored: ``activation(y + residual)``.

    Parameters
    ----------
    activation : Op, optional
        An elementwise operator with the attributes `code`, `alpha` and `beta`.
    residual : View, optional
        A tensor of the output's shape to add first.
    halved : bool
        Whether only the largest of every 2x2 of these is stored.
    """

    activation: Any = None
    residual: View | None = None
    halved: bool = False


NOTHING = Epilogue()
