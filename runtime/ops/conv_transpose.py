"""Transposed convolution: the adjoint of a convolution, which enlarges images."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import ClassVar

import numpy as np

from ..algorithms import Moves, depthwise, matrix_product, suits_depthwise
from ..algorithms.parts import Part
from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import Halo, View
from ..window import Padding, Window, checked_sizes, reach
from .base import (
    NOTHING,
    Epilogue,
    Lowering,
    Op,
    checked_window,
    per_axis,
    require,
    require_bias,
    require_float32,
    require_image,
)


@record
class ConvTranspose(Op):
    """Spread every input pixel with a kernel: (N, spatial..., C) to (N, spatial..., M).

    It is the adjoint of the convolution `Conv` with the same kernel, stride, dilation,
    padding and groups, which takes M channels to C.

    Parameters
    ----------
    stride, dilation : tuple of int
        Of that convolution, for each spatial axis; one number serves all.
    padding : str or tuple of (int, int)
        How many positions are cut off (before, after) along each axis; ``"valid"``
        none. With ``"same"`` and ``"same_lower"`` so many that the output is the input
        times the stride; of an odd number the extra one is cut off last, or first.
    output_padding : tuple of int
        Positions that are added after each axis before `padding` is cut off.
    groups : int
        Input and output channels are cut into this many parts that do not see each
        other.

    Notes
    -----
    The operands are `x`, `kernel` of shape (spatial..., M / groups, C) and `bias` of
    shape (M,), which may be left out. Kernel and bias must be weights. Along each axis
    the output has ``(n - 1) * stride + reach - before - after + output_padding``
    positions, where ``reach = dilation * (kernel - 1) + 1``.

    Output positions that are a stride apart meet the same taps of the kernel, so they
    are a convolution of stride one. There are as many of them, the phases, as the
    strides multiplied.
    """

    stride: Shape = (1,)
    dilation: Shape = (1,)
    padding: Padding = "valid"
    output_padding: Shape = (0,)
    groups: int = 1

    fuses: ClassVar[bool] = True
    weights: ClassVar[tuple[str, ...]] = ("kernel", "bias")
    linear: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_window(self, "groups")
        added = checked_sizes(self.output_padding, "output_padding", 0)
        object.__setattr__(self, "output_padding", added)

    def infer(self, x: Spec, kernel: Spec, bias: Spec | None = None) -> Spec:
        """Return (N, positions along each axis..., M)."""
        require_image("ConvTranspose", x)
        require_float32("ConvTranspose", x)
        require(
            kernel.rank == x.rank
            and 0 not in kernel.shape
            and kernel.shape[-1] == x.shape[-1]
            and x.shape[-1] % self.groups == 0,
            f"ConvTranspose with {self.groups} groups: kernel "
            f"{shape_text(kernel.shape)} does not fit the input {shape_text(x.shape)}; "
            f"wanted (spatial..., outputs a group, {x.shape[-1]})",
        )
        outputs = kernel.shape[-2] * self.groups
        require_bias("ConvTranspose", bias, outputs)
        sizes = tuple(size for *_, size in self._axes(x, kernel))
        require(
            min(sizes) > 0,
            f"ConvTranspose: the padding {self.padding} leaves nothing of the input "
            f"{shape_text(x.shape)} under the kernel {shape_text(kernel.shape)}",
        )
        return Spec((x.shape[0], *sizes, outputs))

    def reference(self, x: Array, kernel: Array, bias: Array | None = None) -> Array:
        """Return the sum of every pixel's kernel, each put where its pixel falls."""
        axes = self._axes(Spec(x.shape), Spec(kernel.shape))
        inside = [slice(before, before + size) for _, _, before, size in axes]
        full = [
            max(cut.stop, (n - 1) * s + d * (k - 1) + 1)
            for cut, (s, d, *_), n, k in zip(
                inside, axes, x.shape[1:-1], kernel.shape[:-2], strict=True
            )
        ]
        parts = x.reshape(*x.shape[:-1], self.groups, -1)
        weight = kernel.reshape(*kernel.shape[:-1], self.groups, -1)
        y = np.zeros((x.shape[0], *full, self.groups, kernel.shape[-2]), x.dtype)
        for tap in np.ndindex(kernel.shape[:-2]):
            where = [
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, (s, d, *_), n in zip(tap, axes, x.shape[1:-1], strict=True)
            ]
            index = (slice(None), *where)
            y[index] += np.einsum("...gi,ogi->...go", parts, weight[tap])
        index = (slice(None), *inside)
        y = y[index].reshape(x.shape[0], *(axis[3] for axis in axes), -1)
        return y if bias is None else y + bias

    def halo(self, x: Spec, kernel: Spec, bias: Spec | None = None) -> Halo:
        """Return the zeros that the phases' convolutions reach into."""
        pairs = []
        for n, phases in zip(x.spatial, self._phases(x, kernel), strict=True):
            ends = [
                (p.offsets[0], p.offsets[-1] + p.count) for p in phases if p.offsets
            ]
            before = max([0, *(-first for first, _ in ends)])
            pairs.append((before, max([0, *(end - n for _, end in ends)])))
        return ((0, 0), *pairs, (0, 0))

    def multiply_adds(
        self, out: Spec, x: Spec, kernel: Spec, bias: Spec | None = None
    ) -> int:
        """Return input elements times products of each."""
        return x.size * math.prod(kernel.shape[:-1])

    def scaled(self, kernel: Array, scale: Array) -> Array:
        """Return the product; a group's outputs are on the last axis but one."""
        columns = scale.reshape(self.groups, -1).T
        across = np.repeat(columns, kernel.shape[-1] // self.groups, axis=1)
        product: Array = super().scaled(kernel, across)
        return product

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View,
        kernel: Array,
        bias: Array | None = None,
        epilogue: Epilogue = NOTHING,
    ) -> list[Step]:
        """Return a convolution for each phase; they may run side by side.

        Where the phases along the last axis meet the same input they become one, with
        their outputs side by side.
        """
        *outer, last = self._phases(x.spec, Spec(kernel.shape))
        forward = _forward(kernel, self.groups)
        residual = epilogue.residual
        width = len(last) if self._joins(last, out, residual) else 1
        steps = []
        for phases in itertools.product(*outer, last[:1] if width > 1 else last):
            index = tuple(phase.taps for phase in phases[:-1])
            inner = last if width > 1 else phases[-1:]
            wanted = [(*index, phase.taps) for phase in inner]
            parts = [forward[where] for where in wanted]
            part = parts[0] if width == 1 else np.concatenate(parts, axis=-1)
            wide = bias if bias is None or width == 1 else np.tile(bias, width)
            made = [(part, kernel)]
            if wide is not None and bias is not None:
                made.append((wide, bias))
            key = (self, width, *(phase.first for phase in phases))
            place = _places(out, phases, width)
            if residual is not None:
                epilogue = epilogue._replace(residual=_places(residual, phases, width))
            step = self._convolution(
                Part(low, key, made), place, x, part, wide, phases, epilogue
            )
            steps.append(step._replace(together=True))
        return [*steps[:-1], steps[-1]._replace(together=False)]

    def window(self, x: Spec, kernel: Spec, bias: Spec | None = None) -> Window | None:
        """Return the window of the convolution it is, if every stride is one."""
        axes = self._axes(x, kernel)
        if any(stride > 1 for stride, *_ in axes):
            return None
        dilation = tuple(d for _, d, *_ in axes)
        span = reach(kernel.shape[:-2], dilation)
        padding = tuple(
            (k - 1 - before, size - n + before)
            for k, n, (*_, before, size) in zip(span, x.spatial, axes, strict=True)
        )
        return Window(kernel.shape[:-2], (1,) * len(axes), dilation, padding)

    def _convolution(
        self,
        low: Lowering,
        out: View,
        x: View,
        kernel: Array,
        bias: Array | None,
        phases: tuple[_Phase, ...],
        epilogue: Epilogue,
    ) -> Step:
        """Return the step of one phase."""
        distances = [
            [o * stride for o in phase.offsets]
            for phase, stride in zip(phases, x.strides[1:-1], strict=True)
        ]
        taps = [sum(tap) for tap in itertools.product(*distances)]
        moves = Moves.between(out, x.strides[:-1], epilogue.residual)
        run = kernel.shape[-2]
        if taps and suits_depthwise(low, kernel, self.groups):
            return depthwise(
                low, moves, out, x, kernel, bias, taps, self.groups, epilogue
            )
        width = len(phases[-1].offsets)
        if taps and self.groups == 1 and phases[-1].gap * x.strides[-2] == x.shape[-1]:
            taps, run = taps[::width], run * width
        return matrix_product(
            low, moves, out, x, kernel, bias, taps, run, self.groups, epilogue
        )

    def _joins(self, phases: list[_Phase], out: View, residual: View | None) -> bool:
        """Return whether the phases along the last axis can be computed as one."""
        first = phases[0]
        return (
            len(phases) > 1
            and self.groups == 1
            and all(p.count == first.count for p in phases)
            and all(p.offsets == first.offsets for p in phases)
            and all(
                view.strides[-2:] == (view.shape[-1], 1)
                for view in (out, residual)
                if view is not None
            )
        )

    def _axes(self, x: Spec, kernel: Spec) -> list[tuple[int, int, int, int]]:
        """Return (stride, dilation, cut off before, output size) for each axis."""
        rank = x.rank - 2
        stride = per_axis(self.stride, rank, "stride")
        dilation = per_axis(self.dilation, rank, "dilation")
        added = per_axis(self.output_padding, rank, "output_padding")
        span = reach(kernel.shape[:-2], dilation)
        axes = []
        pairs: tuple[tuple[int, int], ...] = ((0, 0),)
        if not isinstance(self.padding, str):
            pairs = self.padding
        require(
            len(pairs) in (1, rank),
            f"ConvTranspose: padding for {len(pairs)} axes {pairs}, the input has "
            f"{rank}",
        )
        pairs = pairs * rank if len(pairs) == 1 else pairs
        for n, s, d, k, more, (before, after) in zip(
            x.spatial, stride, dilation, span, added, pairs, strict=True
        ):
            size = (n - 1) * s + k - before - after + more
            if self.padding in ("same", "same_lower"):
                total = max(0, size - n * s)
                before = total // 2 if self.padding == "same" else total - total // 2
                size = n * s
            axes.append((s, d, before, size))
        return axes

    def _phases(self, x: Spec, kernel: Spec) -> list[list[_Phase]]:
        """Return the phases along each axis."""
        return [
            [_Phase.of(first, *axis, taps) for first in range(min(axis[0], axis[3]))]
            for axis, taps in zip(self._axes(x, kernel), kernel.shape[:-2], strict=True)
        ]


@record
class _Phase:
    """Output positions a stride apart along one axis, and the taps that reach them.

    Parameters
    ----------
    first, count, step : int
        The first output position, how many there are, and their distance.
    taps : slice
        Of the flipped kernel.
    offsets : tuple of int
        Where in the input those taps fall for the first position, in rising order.
    gap : int
        The distance from one to the next.
    """

    first: int
    count: int
    step: int
    taps: slice
    offsets: tuple[int, ...]
    gap: int

    @classmethod
    def of(
        cls, first: int, stride: int, dilation: int, before: int, size: int, taps: int
    ) -> _Phase:
        """Return a phase; tap u of the flipped kernel falls where it divides."""
        count = -(-(size - first) // stride)
        period = stride // math.gcd(stride, dilation)
        falls = [first + before - (taps - 1 - u) * dilation for u in range(taps)]
        hits = [u for u in range(min(taps, period)) if falls[u] % stride == 0]
        found = slice(hits[0], None, period) if hits else slice(0, 0)
        offsets = tuple(fall // stride for fall in falls[found])
        return cls(first, count, stride, found, offsets, dilation * period // stride)


def _forward(kernel: Array, groups: int) -> Array:
    """Return the kernel, flipped, as (spatial..., C / groups, M), group after group."""
    flipped = np.flip(kernel, tuple(range(kernel.ndim - 2)))
    outputs, channels = kernel.shape[-2:]
    parted = flipped.reshape(*kernel.shape[:-1], groups, channels // groups)
    turned = np.moveaxis(parted, -1, -3).swapaxes(-1, -2)
    forward: Array = turned.reshape(
        *kernel.shape[:-2], channels // groups, groups * outputs
    )
    return forward


def _places(view: View, phases: tuple[_Phase, ...], width: int) -> View:
    """Return the positions of the phases; `width` neighbours in a row are one."""
    if width > 1:
        *shape, _, channels = view.shape
        view = replace(
            view,
            shape=(*shape, phases[-1].count, width * channels),
            strides=(*view.strides[:-2], width * channels, 1),
            halo=(),
        )
        phases = phases[:-1]
    for axis, phase in enumerate(phases, 1):
        view = view.slice(axis, phase.first, phase.count, phase.step)
    return view
