"""Immutable records whose methods are written once.

A frozen dataclass has six methods that are put together as text and compiled, for each
class, whenever it is imported; for the operators and settings of one network that takes
longer than reading its file. Here five of them are inherited. Generated ones are faster
to call, so what a plan makes by the thousand is a frozen dataclass.
"""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from typing import TYPE_CHECKING, ClassVar

__all__ = ["Record", "record"]

if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:

    def record(kind):
        """Give a class a constructor with its annotated names, like `dataclass`.

        `dataclasses.replace`, `fields` and `asdict` take its instances.
        """
        return dataclass(eq=False, repr=False)(kind)


@record
class Record:
    """Base of classes decorated with `record`: compared, hashed and shown by fields."""

    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.__dict__ or name not in self.__match_args__:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        fields = zip(self.__match_args__, self._values(), strict=True)
        shown = ", ".join(f"{name}={value!r}" for name, value in fields)
        return f"{type(self).__qualname__}({shown})"

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__match_args__)
