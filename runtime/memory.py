"""Lifetimes in, offsets in one arena out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

ALIGNMENT = 64
"""Offsets are multiples of a cache line."""


class Lifetime(NamedTuple):
    """A piece of memory needed from one step to another, both included.

    Parameters
    ----------
    nbytes : int
        Its size.
    first, last : int
        Numbers of steps.
    """

    nbytes: int
    first: int
    last: int


def place(lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    """Return an offset for each lifetime, and the size of the arena.

    Pieces that live at the same time do not overlap. The largest are placed first,
    each in the smallest gap that holds it.

    References
    ----------
    Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference",
    2020: greedy by size.
    """
    offsets = [0] * len(lifetimes)
    placed: list[int] = []
    total = 0
    order = sorted(range(len(lifetimes)), key=lambda i: -lifetimes[i].nbytes)
    for i in order:
        piece = lifetimes[i]
        size = -(-piece.nbytes // ALIGNMENT) * ALIGNMENT
        taken = sorted(
            (offsets[j], offsets[j] + lifetimes[j].nbytes)
            for j in placed
            if lifetimes[j].first <= piece.last and piece.first <= lifetimes[j].last
        )
        best: tuple[int, int] | None = None
        end = 0
        for start, stop in taken:
            gap = start - end
            if gap >= size and (best is None or gap < best[0]):
                best = (gap, end)
            end = max(end, -(-stop // ALIGNMENT) * ALIGNMENT)
        offsets[i] = end if best is None else best[1]
        placed.append(i)
        total = max(total, offsets[i] + size)
    return offsets, total


def lower_bound(lifetimes: Sequence[Lifetime]) -> int:
    """Return the most bytes that are alive at one step; no arena can be smaller."""
    steps = {piece.first for piece in lifetimes}
    return max(
        (
            sum(p.nbytes for p in lifetimes if p.first <= step <= p.last)
            for step in steps
        ),
        default=0,
    )
