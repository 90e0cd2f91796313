"""Convolutions whose kernels differ from place to place."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from ..algorithms import Moves, matrix_product
from ..algorithms.boxes import three
from ..algorithms.moves import finish, fused
from ..algorithms.parts import Part
from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import Halo, View
from ..window import (
    Padding,
    Window,
    checked_sizes,
    explicit_padding,
    output_size,
    reach,
)
from .base import (
    NOTHING,
    Epilogue,
    Lowering,
    Op,
    checked_window,
    per_axis,
    require,
    require_float32,
    require_image,
)

MOST_STEPS = 256
"""A step a tile; with more tiles all are done in one."""

LEAST_POSITIONS = 8
"""With fewer positions a tile, reading its weights takes longer than using them."""


class _Unshared(Op, abstract=True):
    """What the two share: windows as in `Conv`, and one kernel for every tile."""

    stride: Shape
    dilation: Shape
    padding: Padding

    fuses: ClassVar[bool] = True
    weights: ClassVar[tuple[str, ...]] = ("kernel", "bias")
    linear: ClassVar[bool] = True

    def halo(self, x: Spec, kernel: Spec, bias: Spec | None = None) -> Halo:
        """Return the padding that windows really reach into."""
        window = self.window(x, kernel)
        span = reach(window.kernel, window.dilation)
        return (
            (0, 0),
            *(
                (before, max(0, (count - 1) * s + k - before - n))
                for n, k, s, (before, _), count in zip(
                    x.spatial,
                    span,
                    window.stride,
                    window.padding,
                    self._counts(x, kernel),
                    strict=True,
                )
            ),
            (0, 0),
        )

    def multiply_adds(
        self, out: Spec, x: Spec, kernel: Spec, bias: Spec | None = None
    ) -> int:
        """Return output elements times products in each."""
        return out.size * math.prod(kernel.shape[x.rank - 2 : -1])

    def window(self, x: Spec, kernel: Spec, bias: Spec | None = None) -> Window:
        """Return the kernel's size, the stride, the dilation and the padding."""
        rank = x.rank - 2
        size = kernel.shape[rank:-2]
        stride = per_axis(self.stride, rank, "stride")
        dilation = per_axis(self.dilation, rank, "dilation")
        span = reach(size, dilation)
        padding = explicit_padding(self.padding, x.spatial, span, stride)
        return Window(size, stride, dilation, padding)

    def _counts(self, x: Spec, kernel: Spec) -> Shape:
        window = self.window(x, kernel)
        span = reach(window.kernel, window.dilation)
        return output_size(x.spatial, span, window.stride, window.padding)

    def _require(self, x: Spec, kernel: Spec) -> None:
        name = type(self).__name__
        require_image(name, x)
        require_float32(name, x)
        require(
            kernel.rank == 2 * x.rank - 2
            and 0 not in kernel.shape
            and kernel.shape[-2] == x.shape[-1],
            f"{name}: kernel {shape_text(kernel.shape)} does not fit the input "
            f"{shape_text(x.shape)}; wanted {x.rank - 2} numbers of kernels, "
            f"{x.rank - 2} sizes, {x.shape[-1]}, outputs",
        )

    def _require_bias(self, kernel: Spec, bias: Spec | None) -> None:
        tiles = kernel.shape[: (kernel.rank - 2) // 2]
        outputs = kernel.shape[-1]
        require(
            bias is None or bias.shape in ((outputs,), (*tiles, outputs)),
            f"{type(self).__name__}: bias {shape_text(bias.shape) if bias else ''}, "
            f"wanted ({outputs},) or {shape_text((*tiles, outputs))}",
        )

    def _sums(self, x: Array, kernel: Array, kernels: Array) -> Array:
        """Return the sums of products; `kernels` has one for every position."""
        window = self.window(Spec(x.shape), Spec(kernel.shape))
        spatial = tuple(range(1, x.ndim - 1))
        span = reach(window.kernel, window.dilation)
        padded = np.pad(x, ((0, 0), *window.padding, (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, span, axis=spatial)
        every = [slice(None, None, s) for s in window.stride]
        nth = [slice(None, None, d) for d in window.dilation]
        strided: Any = (slice(None), *every)
        dilated: Any = (Ellipsis, *nth)
        taken = np.moveaxis(windows[strided][dilated], x.ndim - 1, -1)
        counts = taken.shape[1 : x.ndim - 1]
        rows = taken.reshape(x.shape[0], math.prod(counts), -1)
        columns = kernels.reshape(math.prod(counts), -1, kernel.shape[-1])
        y: Array = np.einsum("npk,pko->npo", rows, columns)
        return y.reshape(x.shape[0], *counts, -1)

    def _taps(self, x: View, kernel: Array) -> tuple[list[int], int]:
        """Return offsets into the input, and how many elements follow each."""
        window = self.window(x.spec, Spec(kernel.shape))
        steps = [d * s for d, s in zip(window.dilation, x.strides[1:-1], strict=True)]
        origin = -sum(
            before * s
            for (before, _), s in zip(window.padding, x.strides[1:-1], strict=True)
        )
        taps = [
            origin + sum(k * s for k, s in zip(tap, steps, strict=True))
            for tap in itertools.product(*map(range, window.kernel))
        ]
        channels = x.shape[-1]
        if steps[-1] == channels and x.strides[-1] == 1:
            return taps[:: window.kernel[-1]], channels * window.kernel[-1]
        return taps, channels

    def _in_one(
        self,
        low: Lowering,
        out: View,
        x: View,
        kernel: Array,
        bias: Array | None,
        epilogue: Epilogue,
    ) -> Step:
        """Return the step that reads each position's weights where they lie."""
        rank = x.rank - 2
        stride = self.window(x.spec, Spec(kernel.shape)).stride
        moving = [a * b for a, b in zip(stride, x.strides[1:-1], strict=True)]
        r = epilogue.residual.strides if epilogue.residual else (0,) * out.rank
        taps, run = self._taps(x, kernel)
        outputs = kernel.shape[-1]
        step = low.load("unshared").unshared(
            x.shape[0],
            three(out.shape[1:-1], 1),
            three(kernel.shape[:rank], 1),
            (x.strides[0], *three(moving, 0)),
            (out.strides[0], *three(out.strides[1:-1], 0)),
            (r[0], *three(r[1:-1], 0)),
            len(taps),
            run,
            outputs,
            0 if bias is None or bias.ndim == 1 else outputs,
            finish(epilogue),
            epilogue.residual is not None,
        )
        zeros = np.zeros(outputs, np.float32)
        return Step(
            step,
            (
                out,
                x,
                _as_stored(low, kernel),
                low.constant(zeros) if bias is None else _as_stored(low, bias),
                low.constant(np.array(taps, np.int64)),
                epilogue.residual or out,
            ),
            fused("unshared", epilogue),
        )


@record
class LocallyConnected(_Unshared):
    """Convolve with a kernel of its own at every output position.

    (N, spatial..., C) to (N, spatial..., M).

    Parameters
    ----------
    stride : tuple of int
        For each spatial axis; one number serves all.
    padding : str or tuple of (int, int)
        ``"valid"``, ``"same"``, ``"same_lower"`` or zeros (before, after) an axis.
    dilation : tuple of int
        As `stride`.

    Notes
    -----
    The operands are `x`, `kernel` of shape (output spatial..., kernel spatial..., C, M)
    and `bias` of shape (output spatial..., M) or (M,), which may be left out. Kernel
    and bias must be weights. So the input's size is fixed.
    """

    stride: Shape = (1,)
    padding: Padding = "valid"
    dilation: Shape = (1,)

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_window(self)

    def infer(self, x: Spec, kernel: Spec, bias: Spec | None = None) -> Spec:
        """Return (N, windows along each axis..., M)."""
        self._require(x, kernel)
        counts = self._counts(x, kernel)
        require(
            kernel.shape[: x.rank - 2] == counts,
            f"LocallyConnected: kernel {shape_text(kernel.shape)} for windows "
            f"{shape_text(counts)} of the input {shape_text(x.shape)}; wanted a kernel "
            "for each",
        )
        self._require_bias(kernel, bias)
        return Spec((x.shape[0], *counts, kernel.shape[-1]), x.dtype)

    def reference(self, x: Array, kernel: Array, bias: Array | None = None) -> Array:
        """Return the sums of products, window by window."""
        y = self._sums(x, kernel, kernel)
        return y if bias is None else y + bias

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View,
        kernel: Array,
        bias: Array | None = None,
        epilogue: Epilogue = NOTHING,
    ) -> list[Step]:
        """Return the kernel."""
        return [self._in_one(low, out, x, kernel, bias, epilogue)]


@record
class TiledConv(_Unshared):
    """Convolve with kernels that repeat after some output positions along each axis.

    (N, spatial..., C) to (N, spatial..., M). Position p of an axis uses kernel
    ``p % tiles`` of it. With one tile this is `Conv`, with as many tiles as positions
    `LocallyConnected`.

    Parameters
    ----------
    tiles : tuple of int
        After how many output positions the kernels repeat, for each spatial axis; one
        number serves all.
    stride, dilation : tuple of int
        As `tiles`.
    padding : str or tuple of (int, int)
        ``"valid"``, ``"same"``, ``"same_lower"`` or zeros (before, after) an axis.

    Notes
    -----
    The operands are `x`, `kernel` of shape (tiles..., kernel spatial..., C, M) and
    `bias` of shape (tiles..., M) or (M,), which may be left out. Kernel and bias must
    be weights.

    References
    ----------
    Q. V. Le et al., Tiled convolutional neural networks, 2010.
    """

    tiles: Shape
    stride: Shape = (1,)
    dilation: Shape = (1,)
    padding: Padding = "valid"

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        object.__setattr__(self, "tiles", checked_sizes(self.tiles, "tiles"))
        checked_window(self)

    def infer(self, x: Spec, kernel: Spec, bias: Spec | None = None) -> Spec:
        """Return (N, windows along each axis..., M)."""
        self._require(x, kernel)
        tiles = per_axis(self.tiles, x.rank - 2, "tiles")
        require(
            kernel.shape[: x.rank - 2] == tiles,
            f"TiledConv: kernel {shape_text(kernel.shape)} for tiles "
            f"{shape_text(tiles)}; wanted a kernel for each",
        )
        self._require_bias(kernel, bias)
        return Spec((x.shape[0], *self._counts(x, kernel), kernel.shape[-1]), x.dtype)

    def reference(self, x: Array, kernel: Array, bias: Array | None = None) -> Array:
        """Return the sums of products, window by window."""
        counts = self._counts(Spec(x.shape), Spec(kernel.shape))
        tiles = kernel.shape[: len(counts)]
        tile = np.ix_(*(np.arange(n) % t for n, t in zip(counts, tiles, strict=True)))
        y = self._sums(x, kernel, kernel[tile])
        if bias is None:
            return y
        return y + (bias if bias.ndim == 1 else bias[tile])

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View,
        kernel: Array,
        bias: Array | None = None,
        epilogue: Epilogue = NOTHING,
    ) -> list[Step]:
        """Return a strided convolution for each tile, or one step for many tiles."""
        counts = out.shape[1:-1]
        tiles = kernel.shape[: len(counts)]
        used = [min(n, t) for n, t in zip(counts, tiles, strict=True)]
        many = math.prod(used)
        if many > MOST_STEPS or out.size < many * LEAST_POSITIONS * out.shape[-1]:
            return [self._in_one(low, out, x, kernel, bias, epilogue)]
        steps = [
            self._tile(low, out, x, kernel, bias, tile, epilogue)
            for tile in np.ndindex(*used)
        ]
        return [*(s._replace(together=True) for s in steps[:-1]), steps[-1]]

    def _tile(
        self,
        low: Lowering,
        out: View,
        x: View,
        kernel: Array,
        bias: Array | None,
        tile: Shape,
        epilogue: Epilogue,
    ) -> Step:
        """Return the step of the positions that share a kernel."""
        tiles = kernel.shape[: len(tile)]
        stride = self.window(x.spec, Spec(kernel.shape)).stride
        taps, run = self._taps(x, kernel)
        part = kernel[tile]
        made = [(part, kernel)]
        shift = bias
        if bias is not None and bias.ndim > 1:
            shift = bias[tile]
            made.append((shift, bias))
        source, moving = x, []
        for axis, (at, t, s) in enumerate(zip(tile, tiles, stride, strict=True), 1):
            count = -(-(out.shape[axis] - at) // t)
            out = out.slice(axis, at, count, t)
            if epilogue.residual is not None:
                residual = epilogue.residual.slice(axis, at, count, t)
                epilogue = epilogue._replace(residual=residual)
            moving.append(t * s * x.strides[axis])
            offset = source.offset + at * s * x.strides[axis]
            source = replace(source, offset=offset)
        moves = Moves.between(out, (x.strides[0], *moving), epilogue.residual)
        return matrix_product(
            Part(low, (self, tile), made),
            moves,
            out,
            source,
            part,
            shift,
            taps,
            run,
            1,
            epilogue,
        )


def _as_stored(low: Lowering, weight: Array) -> View:
    """Return a weight as it is, if it lies in order and is float32."""
    if weight.dtype == np.float32 and weight.flags.c_contiguous:
        return low.constant(weight)
    return low.packed(
        weight, "in order", lambda: np.ascontiguousarray(weight, np.float32)
    )
