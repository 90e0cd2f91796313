"""Weights in the order in which kernels read them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Thread
from typing import NamedTuple

import numpy as np

from .kernels._mapping import MappedFile
from .pages import aligned_zeros
from .spec import Array

LARGE = 1 << 20
"""Bytes of packed weights after which pages of the file are worth giving back."""

BYTES_PER_THREAD = 1 << 22
"""Bytes below which one more thread costs more than it brings."""

Key = tuple[int, object]
"""The identity of an array, and what sets one way to pack it apart from others."""


class PackedWeights:
    """Weights in the order in which kernels read them, made once and shared.

    Parameters
    ----------
    file : MappedFile, optional
        Where they come from; its pages are given back to the system as they are packed.
    """

    def __init__(self, file: MappedFile | None = None) -> None:
        self._made: dict[Key, tuple[Array, Array]] = {}
        self._file = file

    def find(self, array: Array, tag: object) -> Array | None:
        """Return what was made of this `array` for this `tag`; None if nothing was."""
        found = self._made.get((id(array), tag))
        return None if found is None else found[0]

    def add(self, array: Array, tag: object, packed: Array) -> None:
        """Remember what was made of an array."""
        self._made[id(array), tag] = packed, array
        if self._file is not None and packed.nbytes >= LARGE:
            self._file.forget()

    def arrays(self) -> list[Array]:
        """Return the packed arrays and those they were made of."""
        pairs = list(self._made.values())
        return [a for pair in pairs for a in pair if isinstance(a, np.ndarray)]

    def retain(self, arrays: Iterable[Array]) -> None:
        """Forget what was not made of these arrays."""
        wanted = {id(array) for array in arrays}
        self._made = {k: pair for k, pair in self._made.items() if k[0] in wanted}


class Filling:
    """The weights of one plan that have their place but are not written yet.

    Parameters
    ----------
    packed : PackedWeights
        What remembers them once they are complete.
    """

    def __init__(self, packed: PackedWeights) -> None:
        self._packed = packed
        self._begun: dict[Key, Job] = {}

    def place(
        self, array: Array, tag: object, elements: int, fill: Callable[[Array], None]
    ) -> Array:
        """Return where the elements are, or will be once `finish` has called `fill`."""
        found = self._packed.find(array, tag)
        if found is not None:
            return found
        key = id(array), tag
        if key not in self._begun:
            self._begun[key] = Job(array, tag, aligned_zeros(elements), fill)
        return self._begun[key].packed

    def finish(self, threads: int) -> None:
        """Fill the places, on up to so many threads; the others end before it does."""
        jobs = sorted(self._begun.values(), key=lambda job: -job.packed.nbytes)
        left = deque(jobs)
        nbytes = sum(job.packed.nbytes for job in jobs)
        errors: list[Exception] = []
        others: list[Thread] = []
        try:
            for _ in range(min(threads, nbytes // BYTES_PER_THREAD) - 1):
                other = Thread(target=self._work, args=(left, errors), daemon=True)
                with suppress(RuntimeError):  # the system has no more threads
                    other.start()
                    others.append(other)
            self._work(left, errors)
        finally:
            left.clear()
            for other in others:
                other.join()
        if errors:
            raise errors[0]

    def _work(self, left: deque[Job], errors: list[Exception]) -> None:
        """Do what is left until there is nothing, or something went wrong."""
        while not errors:
            try:
                job = left.popleft()
            except IndexError:
                return
            try:
                job.fill(job.packed)
                self._packed.add(job.array, job.tag, job.packed)
            except Exception as error:
                errors.append(error)


class Job(NamedTuple):
    """What to write where, from which weights."""

    array: Array
    tag: object
    packed: Array
    fill: Callable[[Array], None]
