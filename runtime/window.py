"""The arithmetic of sliding windows: padding, output sizes, which taps fall where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import ShapeError
from .record import Record, record
from .spec import Shape

Padding = str | tuple[tuple[int, int], ...]
"""``"valid"``, ``"same"``, ``"same_lower"`` or (before, after) for each axis.

``"same"`` makes the output as large as the input divided by the stride, rounded up; of
an odd number of padding pixels the extra one comes last (``"same_lower"``: first).
"""


@record
class Window(Record):
    """A sliding window, one number or pair a spatial axis."""

    kernel: Shape
    stride: Shape
    dilation: Shape
    padding: tuple[tuple[int, int], ...]


def checked_padding(padding: Any, name: str) -> Padding:
    """Return `padding` as a field holds it: a word or a tuple of pairs.

    Raises
    ------
    ValueError
        If it is neither; one number or one pair serves every axis.
    """
    if isinstance(padding, str):
        if padding not in ("valid", "same", "same_lower"):
            raise ValueError(
                f"{name}: padding {padding!r}, wanted 'valid', 'same', 'same_lower' "
                "or (before, after) pairs"
            )
        return padding
    if isinstance(padding, int):
        padding = ((padding, padding),)
    pairs = tuple(tuple(pair) for pair in padding)
    for pair in pairs:
        if len(pair) != 2 or not all(isinstance(p, int) and p >= 0 for p in pair):
            raise ValueError(f"{name}: padding {pair}, wanted (before, after) >= 0")
    return pairs


def checked_sizes(values: Any, name: str, least: int = 1) -> Shape:
    """Return one or more whole numbers as a tuple, none below `least`.

    Raises
    ------
    ValueError
        If there is none, or one is not a whole number or too small.
    """
    sizes = (values,) if isinstance(values, int) else tuple(values)
    whole = all(isinstance(v, int) and not isinstance(v, bool) for v in sizes)
    if not sizes or not whole or min(sizes) < least:
        raise ValueError(f"{name} {values!r}, wanted whole numbers >= {least}")
    return sizes


def reach(kernel: Sequence[int], dilation: Sequence[int]) -> Shape:
    """Return how many input positions a dilated kernel spans along each axis."""
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))


def explicit_padding(
    padding: Padding, size: Shape, span: Shape, stride: Shape
) -> tuple[tuple[int, int], ...]:
    """Return (before, after) for every axis.

    Parameters
    ----------
    padding : str or tuple of pairs
        As a field holds it.
    size, span, stride : tuple of int
        Input size, `reach` of the kernel and stride along each axis.

    Raises
    ------
    ShapeError
        If there are pairs, but neither one nor one an axis.
    """
    if padding == "valid":
        return ((0, 0),) * len(size)
    if isinstance(padding, str):
        pairs = []
        for n, k, s in zip(size, span, stride, strict=True):
            total = max(0, (-(-n // s) - 1) * s + k - n)
            small, large = total // 2, total - total // 2
            pairs.append((small, large) if padding == "same" else (large, small))
        return tuple(pairs)
    if len(padding) == 1:
        return padding * len(size)
    if len(padding) != len(size):
        raise ShapeError(
            f"padding for {len(padding)} axes {padding}, the input has {len(size)}"
        )
    return padding


def output_size(
    size: Shape,
    span: Shape,
    stride: Shape,
    padding: tuple[tuple[int, int], ...],
    ceil_mode: bool = False,
) -> Shape:
    """Return how many windows fit along each axis.

    Along each axis that is ``(size + before + after - span) // stride + 1``. With
    `ceil_mode` the division rounds up, but no window may start behind the input.

    Raises
    ------
    ShapeError
        If not even one window fits.
    """
    found = []
    for n, k, s, (before, after) in zip(size, span, stride, padding, strict=True):
        room = n + before + after - k
        if room < 0:
            raise ShapeError(
                f"a window of {k} does not fit an input of {n} padded by "
                f"({before}, {after})"
            )
        count = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (count - 1) * s >= n + before:
            count -= 1
        found.append(count)
    return tuple(found)
