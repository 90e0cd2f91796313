"""Tensors whose axes move and whose shapes change without any work.

An importer speaks of tensors as its source does: batch, channels, rows, columns. What
it holds is a `Value`, which remembers where each of its elements lies in an array of
the graph. Transposing or reshaping a value only changes what is remembered; a
`striate.tools.builder.Builder` adds the layers that put elements elsewhere when an
operator needs them there.

To that end an axis is a row-major product of atoms, runs of elements that stay
together. Flattening (C, H, W) of an array that lies (H, W, C) gives one axis of three
atoms; the array keeps its three axes of one atom each. An axis of size one has none.

A size that each run may choose has no value at conversion. Every size is therefore a
tuple: what it is under each of a few bindings of the symbols, of which the first is
arbitrary and each other one changes one symbol. Shapes are inferred and constants are
folded once for each binding; what comes out equal everywhere does not depend on the
symbols.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from striate.spec import Array

Dim = tuple[int, ...]
"""A size under each binding of the symbols."""


@dataclass(frozen=True, eq=False)
class Atom:
    """A run of elements that is kept together; of two equal ones each is itself."""

    size: Dim


Axis = tuple[Atom, ...]


def sized(axis: Iterable[Atom], bindings: int) -> Dim:
    """Return the product of the sizes."""
    size = (1,) * bindings
    for atom in axis:
        size = tuple(a * b for a, b in zip(size, atom.size, strict=True))
    return size


def positions(order: Sequence[int], axes: Iterable[int]) -> tuple[int, ...]:
    """Return where axes stand in an order of all axes, from the front."""
    return tuple(sorted(order.index(axis) for axis in axes))


def inverse(axes: Sequence[int]) -> tuple[int, ...]:
    """Return the permutation that undoes `axes`."""
    return tuple(int(axis) for axis in np.argsort(axes))


def last(rank: int) -> tuple[int, ...]:
    """Return the axes of a channels-first tensor in channels-last order."""
    return (0, *range(2, rank), 1) if rank > 2 else tuple(range(rank))


class Tensor:
    """What operators read: a `Value` of the graph or a `Constant`."""

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The sizes of the axes."""
        raise NotImplementedError

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def transpose(self, axes: Sequence[int]) -> Tensor:
        """Return the tensor with its axes in another order."""
        raise NotImplementedError

    def channels_last(self) -> Tensor:
        """Return the tensor with axis 1 moved to the end."""
        return self.transpose(last(self.rank))

    def channels_first(self) -> Tensor:
        """Return the tensor with its last axis moved to axis 1."""
        return self.transpose(inverse(last(self.rank)))


@dataclass(frozen=True)
class Constant(Tensor):
    """A tensor known during conversion.

    Parameters
    ----------
    arrays : tuple of Array
        Its value under each binding; the same object if they do not differ.
    """

    arrays: tuple[Array, ...]

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The sizes of the axes."""
        return tuple(zip(*(array.shape for array in self.arrays), strict=True))

    @property
    def fixed(self) -> bool:
        """Whether the value is the same under every binding."""
        first = self.arrays[0]
        return all(a is first or np.array_equal(a, first) for a in self.arrays)

    def transpose(self, axes: Sequence[int]) -> Constant:
        """Return the constant with its axes in another order."""
        return self.map(lambda array: array.transpose(axes))

    def map(self, function: Callable[[Array], Array]) -> Constant:
        """Return `function` of the value."""
        done: dict[int, Array] = {}
        for array in self.arrays:
            if id(array) not in done:
                done[id(array)] = function(array)
        return Constant(tuple(done[id(array)] for array in self.arrays))


@dataclass(frozen=True)
class Value(Tensor):
    """A tensor that the network computes.

    Parameters
    ----------
    name : str
        The value of the graph that holds its elements.
    axes : tuple of Axis
        The axes the source sees, each a row-major product of atoms; none for size 1.
    stored : tuple of Axis
        The axes of the graph's array: the same atoms, in the order they lie.
    dtype : str
        The element type in the source.
    bindings : int
        How many bindings of the symbols there are.
    label : str
        What to call it if it must be put in another order first.
    """

    name: str
    axes: tuple[Axis, ...]
    stored: tuple[Axis, ...]
    dtype: str
    bindings: int
    label: str = ""

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The sizes of the axes."""
        return tuple(sized(axis, self.bindings) for axis in self.axes)

    def transpose(self, axes: Sequence[int]) -> Value:
        """Return the value with its axes in another order; nothing moves."""
        return replace(self, axes=tuple(self.axes[axis] for axis in axes))

    def as_stored(self) -> Value:
        """Return the graph's array itself."""
        return replace(self, axes=self.stored)

    def reshape(self, shape: Sequence[Dim]) -> Value | None:
        """Return the value with other axes over the same elements.

        None if an axis would begin or end inside an atom that cannot be cut there.
        """
        pending = list(reversed(list(chain(*self.axes))))
        cuts: dict[Atom, tuple[Atom, Atom]] = {}
        axes: list[Axis] = []
        for size in shape:
            axis: list[Atom] = []
            while any(n != 1 for n in size):
                if not pending:
                    return None
                atom = pending.pop()
                if _divides(atom.size, size):
                    size = _quotient(size, atom.size)
                elif _divides(size, atom.size):
                    rest = Atom(_quotient(atom.size, size))
                    cuts[atom] = (Atom(size), rest)
                    atom = cuts[atom][0]
                    pending.append(rest)
                    size = (1,) * self.bindings
                else:
                    return None
                axis.append(atom)
            axes.append(tuple(axis))
        if pending:
            return None

        def pieces(atom: Atom) -> Iterator[Atom]:
            for piece in cuts.get(atom, ()):
                yield from pieces(piece)
            if atom not in cuts:
                yield atom

        stored = tuple(
            tuple(chain.from_iterable(map(pieces, axis))) for axis in self.stored
        )
        return replace(self, axes=tuple(axes), stored=stored)

    def position(self) -> dict[Atom, int]:
        """Return where each atom lies."""
        return {atom: i for i, atom in enumerate(chain(*self.stored))}

    def lies(self, axes: Sequence[int]) -> bool:
        """Return whether the elements already lie in this order of the axes."""
        wanted = chain.from_iterable(self.axes[axis] for axis in axes)
        return list(wanted) == list(chain(*self.stored))

    def as_it_lies(self, axis: int, rows: Array) -> tuple[Value, Array]:
        """Return the value with the elements along `axis` in the order they lie.

        Parameters
        ----------
        axis : int
            An axis whose size does not depend on a symbol.
        rows : Array
            Something for each position along that axis, on its own first axis.

        Returns
        -------
        value : Value
        rows : Array
            Reordered like the elements.
        """
        atoms = self.axes[axis]
        position = self.position()
        order = sorted(range(len(atoms)), key=lambda i: position[atoms[i]])
        axes = list(self.axes)
        axes[axis] = tuple(atoms[i] for i in order)
        sizes = [atom.size[0] for atom in atoms]
        reordered = rows.reshape(*sizes, -1).transpose(*order, len(order))
        return replace(self, axes=tuple(axes)), reordered.reshape(rows.shape)

    def fits(self, array: Array) -> bool:
        """Return whether `array` broadcasts to the shape."""
        if array.ndim > self.rank:
            return False
        shape = self.shape[self.rank - array.ndim :]
        return all(
            n == 1 or all(d == n for d in dim)
            for n, dim in zip(array.shape, shape, strict=True)
        )

    def repeats(self, array: Array) -> bool:
        """Return whether `lying` would repeat an array along an axis of open size."""
        full = self._extents(array)
        return any(
            len({full[atom] == 1 for atom in axis}) > 1
            and any(len(set(atom.size)) > 1 for atom in axis)
            for axis in self.stored
        )

    def _extents(self, array: Array) -> dict[Atom, int]:
        """Return how many elements an array that `fits` has along each atom."""
        full: dict[Atom, int] = {}
        spread = (1,) * (self.rank - array.ndim) + array.shape
        for size, axis in zip(spread, self.axes, strict=True):
            full.update({atom: atom.size[0] if size != 1 else 1 for atom in axis})
        return full

    def lying(self, array: Array) -> Array:
        """Return an array that `fits` so that it broadcasts to the stored axes."""
        full = self._extents(array)
        position = self.position()
        atoms = list(full)
        order = sorted(range(len(atoms)), key=lambda i: position[atoms[i]])
        array = array.reshape([full[atom] for atom in atoms]).transpose(order)
        sizes: list[int] = []
        for axis in self.stored:
            mixed = len({full[atom] == 1 for atom in axis}) > 1
            sizes += [atom.size[0] if mixed else full[atom] for atom in axis]
        array = np.broadcast_to(array, sizes)
        shape, start = [], 0
        for axis in self.stored:
            shape.append(math.prod(sizes[start : start + len(axis)]))
            start += len(axis)
        while len(shape) > 1 and shape[0] == 1:
            del shape[0]
        return array.reshape(shape)

    def structure(self) -> Any:
        """Return something equal for values whose elements lie alike."""
        number = {atom: i for i, atom in enumerate(chain(*self.axes))}
        return (
            tuple(tuple(atom.size for atom in axis) for axis in self.axes),
            tuple(tuple(number[atom] for atom in axis) for axis in self.stored),
        )


def _divides(divisor: Dim, size: Dim) -> bool:
    return all(n % d == 0 for d, n in zip(divisor, size, strict=True))


def _quotient(size: Dim, divisor: Dim) -> Dim:
    return tuple(n // d for n, d in zip(size, divisor, strict=True))
