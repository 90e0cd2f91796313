"""Pooling in sliding windows and over whole images."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from ..window import (
    Padding,
    Window,
    checked_sizes,
    explicit_padding,
    output_size,
    reach,
)
from .base import Lowering, Op, checked_window, per_axis, require, require_image

MOST_WINDOWS = 65_536
"""How many windows that start in the padding of a narrow input are looked at."""


@record
class SlidingPool(Op, abstract=True):
    """What pooling in sliding windows shares: where they are."""

    kernel: Shape
    stride: Shape = (1,)
    dilation: Shape = (1,)
    padding: Padding = "valid"
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        object.__setattr__(self, "kernel", checked_sizes(self.kernel, "kernel"))
        checked_window(self)
        if not isinstance(self.ceil_mode, bool):
            raise ValueError(f"ceil_mode {self.ceil_mode!r}, wanted a bool")

    def window(self, x: Spec) -> Window:
        """Return the window with a number or a pair for each spatial axis."""
        rank = x.rank - 2
        kernel = per_axis(self.kernel, rank, "kernel")
        stride = per_axis(self.stride, rank, "stride")
        dilation = per_axis(self.dilation, rank, "dilation")
        span = reach(kernel, dilation)
        padding = explicit_padding(self.padding, x.spatial, span, stride)
        return Window(kernel, stride, dilation, padding)

    def pooled(self, x: Spec) -> Shape:
        """Return (N, windows along each axis..., C)."""
        window = self.window(x)
        span = reach(window.kernel, window.dilation)
        counts = output_size(
            x.spatial, span, window.stride, window.padding, self.ceil_mode
        )
        return x.shape[0], *counts, x.shape[-1]


def all_see_input(window: Window, size: Shape, counts: Shape) -> bool:
    """Return whether each window has something of the input inside.

    A window that starts before the input has its first tap at ``start % dilation``,
    which can only miss inputs narrower than the dilation. Of those, some are not tried.
    """
    paddings = (before for before, _ in window.padding)
    axes = zip(
        window.kernel,
        window.stride,
        window.dilation,
        paddings,
        size,
        counts,
        strict=True,
    )
    for k, s, d, before, n, count in axes:
        last = (count - 1) * s - before
        early = range(-before, min(0, last + 1), s)
        narrow = n < d and (
            len(early) > MOST_WINDOWS or any(start % d >= n for start in early)
        )
        if before >= reach((k,), (d,))[0] or last >= n or narrow:
            return False
    return True


class _DensePool(SlidingPool, abstract=True):
    """What max and average pooling share."""

    def infer(self, x: Spec) -> Spec:
        """Return (N, windows along each axis..., C)."""
        require_image(type(self).__name__, x)
        window = self.window(x)
        span = reach(window.kernel, window.dilation)
        for (before, after), k in zip(window.padding, span, strict=True):
            require(
                max(before, after) < k,
                f"{type(self).__name__}: padding ({before}, {after}) leaves windows "
                f"of {k} with nothing inside",
            )
        shape = self.pooled(x)
        require(
            all_see_input(window, x.spatial, shape[1:-1]),
            f"{type(self).__name__}: the padding {self.padding} leaves a window "
            f"with nothing of the input {shape_text(x.shape)} inside",
        )
        return Spec(shape, x.dtype)

    def _windows(self, x: Array, fill: float) -> Array:
        """Return each output's window, what lies outside the input as `fill`.

        The result has the output's axes, then one axis of taps. Windows that ceil
        mode pushes past the padding are filled as well.
        """
        window = self.window(Spec(x.shape))
        counts = self.infer(Spec(x.shape)).shape[1:-1]
        span = reach(window.kernel, window.dilation)
        padding = [
            (before, max(after, (n - 1) * s + k - before - size))
            for n, s, k, size, (before, after) in zip(
                counts, window.stride, span, x.shape[1:-1], window.padding, strict=True
            )
        ]
        padded = np.pad(x, [(0, 0), *padding, (0, 0)], constant_values=fill)
        taps = []
        for tap in itertools.product(*map(range, window.kernel)):
            where = [
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, n, s in zip(
                    tap, window.dilation, counts, window.stride, strict=True
                )
            ]
            index = (slice(None), *where)
            taps.append(padded[index])
        return np.stack(taps, axis=-1)

    def _step(self, low: Lowering, out: View, x: View, count_padding: bool) -> Step:
        window = self.window(x.spec)
        average = isinstance(self, AveragePool)
        kernel = low.load("pool").pool(
            x.shape[0],
            x.shape[-1],
            _three(x.shape[1:-1], 1),
            _three(out.shape[1:-1], 1),
            _three(window.kernel, 1),
            _three(window.stride, 1),
            _three(window.dilation, 1),
            _three([before for before, _ in window.padding], 0),
            _three([after for _, after in window.padding], 0),
            (x.strides[0], *_three(x.strides[1:-1], 0)),
            (out.strides[0], *_three(out.strides[1:-1], 0)),
            average,
            count_padding,
            x.spec.nbytes > low.level2_bytes // 2,
        )
        size = "x".join(map(str, window.kernel))
        return Step(kernel, (out, x), f"{'average' if average else 'max'} {size}")


class MaxPool(_DensePool):
    """Take the largest value of each channel in a sliding window.

    (N, spatial..., C) to (N, windows along each axis..., C).

    Parameters
    ----------
    kernel, stride, dilation : tuple of int
        For each spatial axis; one number serves all.
    padding : str or tuple of (int, int)
        What lies outside the input is never the largest.
    ceil_mode : bool
        Whether a last window that is only partly inside counts.
    """

    def reference(self, x: Array) -> Array:
        """Return the largest value of each window."""
        y: Array = self._windows(x, -np.inf).max(axis=-1)
        return y

    def lower(self, low: Lowering, out: View, x: View) -> list[Step]:
        """Return the kernel."""
        return [self._step(low, out, x, False)]


@record
class AveragePool(_DensePool):
    """Take the mean of each channel in a sliding window.

    (N, spatial..., C) to (N, windows along each axis..., C).

    Parameters
    ----------
    kernel, stride, dilation, padding, ceil_mode
        As for `MaxPool`.
    count_include_pad : bool
        Whether padding counts as zeros; otherwise a mean is over what is inside.
    """

    count_include_pad: bool = False

    def reference(self, x: Array) -> Array:
        """Return the sum of each window divided by the positions that count."""
        total = self._windows(x, 0.0).sum(axis=-1)
        inside = np.ones_like(x)
        if self.count_include_pad:
            padding = self.window(Spec(x.shape)).padding
            inside = np.pad(inside, [(0, 0), *padding, (0, 0)], constant_values=1)
            unpadded = AveragePool(
                self.kernel, self.stride, self.dilation, "valid", self.ceil_mode
            )
            count = unpadded._windows(inside, 0.0).sum(axis=-1)
            count = count[tuple(slice(0, n) for n in total.shape)]
        else:
            count = self._windows(inside, 0.0).sum(axis=-1)
        y: Array = total / count
        return y

    def lower(self, low: Lowering, out: View, x: View) -> list[Step]:
        """Return the kernel."""
        return [self._step(low, out, x, self.count_include_pad)]


@record
class _GlobalPool(Op, abstract=True):
    """What global pooling of either kind shares."""

    keepdims: bool = False

    function: ClassVar[Callable[..., Array]]

    def infer(self, x: Spec) -> Spec:
        """Return (N, C), or (N, 1..., C) with `keepdims`."""
        require_image(type(self).__name__, x)
        kept = (1,) * (x.rank - 2) if self.keepdims else ()
        return Spec((x.shape[0], *kept, x.shape[-1]), x.dtype)

    def reference(self, x: Array) -> Array:
        """Return the function of each channel."""
        axes = tuple(range(1, x.ndim - 1))
        return type(self).function(x, axis=axes, keepdims=self.keepdims)

    def lower(self, low: Lowering, out: View, x: View) -> list[Step]:
        """Return the kernel."""
        average = isinstance(self, GlobalAveragePool)
        kernel = low.load("pool").global_pool(
            x.shape[0],
            x.shape[-1],
            _three(x.shape[1:-1], 1),
            (x.strides[0], *_three(x.strides[1:-1], 0)),
            out.strides[0],
            average,
        )
        return [Step(kernel, (out, x), f"global {'average' if average else 'max'}")]


class GlobalAveragePool(_GlobalPool):
    """Average each channel over the whole image: (N, spatial..., C) to (N, C).

    Parameters
    ----------
    keepdims : bool
        Keep the spatial axes, each of size one.
    """

    function: ClassVar[Callable[..., Array]] = np.mean


class GlobalMaxPool(_GlobalPool):
    """Take each channel's largest value: (N, spatial..., C) to (N, C).

    Parameters
    ----------
    keepdims : bool
        Keep the spatial axes, each of size one.
    """

    function: ClassVar[Callable[..., Array]] = np.max


def _three(values: Shape | list[int], fill: int) -> Shape:
    """Return three numbers, one an axis, those of missing leading axes as `fill`."""
    return (fill,) * (3 - len(values)) + tuple(values)
