"""Flatbuffers: tables of numbered fields, read in place, every step within bounds.

The classes that Google's compiler generates trust a file. Here an offset that leads out
of the file, or more elements in all than a file of its size can need, is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from striate.spec import Array

SPARE = 1 << 20
"""Elements that may be read besides four for each byte of the file."""

LONGEST_TEXT = 1 << 12
"""The most bytes of a text that are kept."""


class Flatbuffer:
    """The bytes of a file, and how much of them was read.

    Parameters
    ----------
    data : memoryview
        All of it.

    Notes
    -----
    Tables may refer to the same bytes again and again, so that a small file could take
    very long; the elements read are counted.
    """

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self._left = 4 * len(data) + SPARE

    def root(self) -> Table:
        """Return the outermost table; raise `ValueError` if there is none."""
        return Table(self, self.number("<I", 0))

    def number(self, kind: str, position: int) -> Any:
        """Return a number; raise `ValueError` if it is not inside."""
        if not 0 <= position <= len(self.data) - struct.calcsize(kind):
            raise ValueError(f"an offset leads to byte {position} of {len(self.data)}")
        return struct.unpack_from(kind, self.data, position)[0]

    def span(self, position: int, width: int) -> tuple[int, int]:
        """Return where the elements of a vector begin, and how many there are."""
        count: int = self.number("<I", position)
        if count * width > len(self.data) - position - 4:
            raise ValueError(f"{count} elements at byte {position} are not all there")
        return position + 4, count

    def spend(self, count: int) -> None:
        """Count elements that are read; raise `ValueError` if there are too many."""
        self._left -= count
        if self._left < 0:
            raise ValueError("its tables refer to the same bytes too often")


class Table:
    """A table of fields, which are numbered from zero.

    Parameters
    ----------
    buffer : Flatbuffer
        Where it is.
    position : int
        Where it begins.
    """

    def __init__(self, buffer: Flatbuffer, position: int) -> None:
        buffer.spend(1)
        self.buffer = buffer
        self.position = position
        self._fields = position - buffer.number("<i", position)
        self._size: int = buffer.number("<H", self._fields)

    def _place(self, field: int) -> int:
        """Return where a field is; 0 if the table has it not."""
        entry = 4 + 2 * field
        if entry + 2 > self._size:
            return 0
        offset: int = self.buffer.number("<H", self._fields + entry)
        return self.position + offset if offset else 0

    def _target(self, field: int) -> int:
        place = self._place(field)
        return place + int(self.buffer.number("<I", place)) if place else 0

    def number(self, field: int, kind: str, default: Any = 0) -> Any:
        """Return a number."""
        place = self._place(field)
        return self.buffer.number(f"<{kind}", place) if place else default

    def table(self, field: int) -> Table | None:
        """Return an inner table."""
        target = self._target(field)
        return Table(self.buffer, target) if target else None

    def tables(self, field: int) -> list[Table]:
        """Return a vector of tables."""
        target = self._target(field)
        if not target:
            return []
        start, count = self.buffer.span(target, 4)
        self.buffer.spend(count)
        places = range(start, start + 4 * count, 4)
        return [Table(self.buffer, p + self.buffer.number("<I", p)) for p in places]

    def numbers(self, field: int, kind: str) -> Sequence[Any]:
        """Return a vector of numbers."""
        found: list[Any] = self.array(field, kind).tolist()
        self.buffer.spend(len(found))
        return found

    def array(self, field: int, kind: str) -> Array:
        """Return a vector of numbers without copying it."""
        target = self._target(field)
        dtype = np.dtype(f"<{kind}")
        if not target:
            return np.empty(0, dtype)
        start, count = self.buffer.span(target, dtype.itemsize)
        return np.frombuffer(self.buffer.data, dtype, count, start)

    def text(self, field: int) -> str:
        """Return text, of a very long one the beginning."""
        raw = self.array(field, "u1")[:LONGEST_TEXT]
        self.buffer.spend(len(raw))
        return raw.tobytes().decode("utf-8", "replace")
