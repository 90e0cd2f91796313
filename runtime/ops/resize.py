"""Making tensors larger or smaller by resampling."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View, contiguous_strides
from ..window import checked_sizes
from .base import (
    Lowering,
    Op,
    as_view,
    checked_fields,
    finite_fields,
    normal_axis,
    product,
    require,
    require_float32,
)
from .identity import copy_step

TOGETHER = 3
"""Axes that one pass of the kernel can take."""

TAPS_TOGETHER = 8
"""Axes are resampled in one pass while each result has no more taps than this."""

WORK_OF_A_POSITION = 8
"""What finding an output position's taps costs, in vector operations."""

COORDINATES = (
    "half_pixel",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "half_pixel_symmetric",
    "tf_crop_and_resize",
    "tf_half_pixel_for_nn",
)
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
KEEP_ASPECT = ("stretch", "not_larger", "not_smaller")


@record
class Taps:
    """Which input positions each output position of one axis takes.

    Parameters
    ----------
    first, count : Array
        The first one and how many; a count of zero is outside the image.
    weights : Array
        (positions, most taps), float64; zeros behind the count.
    """

    first: Array
    count: Array
    weights: Array

    @property
    def most(self) -> int:
        """The largest number of taps."""
        return int(self.weights.shape[1])

    def keeps(self, n: int) -> bool:
        """Return whether an axis of n positions stays as it is."""
        same = np.array_equal(self.first, np.arange(n)) and self.most == 1
        return same and bool((self.weights == 1).all() and self.count.all())


@record
class Resize(Op):
    """Resample some axes: (N, spatial..., C) to (N, other sizes..., C), or any tensor.

    Each axis is resampled by itself: output position p lies at some coordinate of the
    input, and the result there is interpolated from the input positions around it;
    those beyond its ends repeat the outermost one.

    Parameters
    ----------
    sizes : tuple of int
        The new size of each of the axes; empty where `scales` are given.
    scales : tuple of float
        New size over old of each of the axes; the size is rounded down, coordinates are
        computed with the scale as given.
    axes : tuple of int
        From the back if negative; empty for every axis.
    mode : str
        ``"nearest"``, ``"linear"`` or ``"cubic"``.
    coordinates : str
        The coordinate of position p, where n is the old size and m = n scale:
        ``"half_pixel"`` (p + 1/2) / scale - 1/2; ``"pytorch_half_pixel"`` the same, but
        0 if the new size is 1; ``"half_pixel_symmetric"`` the same, shifted so that the
        centres coincide though m was rounded; ``"asymmetric"`` p / scale;
        ``"align_corners"`` p (n - 1) / (m - 1); ``"tf_half_pixel_for_nn"``
        (p + 1/2) / scale; ``"tf_crop_and_resize"`` `align_corners` inside `region`.
    nearest : str
        Which neighbour is the nearest one: ``"round_prefer_floor"``,
        ``"round_prefer_ceil"``, ``"floor"`` or ``"ceil"``.
    cubic_coefficient : float
        The slope of the cubic kernel at distance one.
    antialias : bool
        Whether linear and cubic kernels widen by the factor by which an axis shrinks.
    exclude_outside : bool
        Whether positions beyond the ends get no weight instead of repeating the end.
    extrapolation : float
        For ``"tf_crop_and_resize"``: the result where the coordinate is not inside.
    region : tuple of float
        For ``"tf_crop_and_resize"``: where the axes start, then where they end; 0 is
        the first position, 1 the last.
    keep_aspect : str
        ``"stretch"``, or one scale for all axes: the largest that makes no axis larger
        than `sizes` (``"not_larger"``), or the smallest that makes none smaller.
    """

    sizes: Shape = ()
    scales: tuple[float, ...] = ()
    axes: Shape = ()
    mode: Literal["nearest", "linear", "cubic"] = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic_coefficient: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False
    extrapolation: float = 0.0
    region: tuple[float, ...] = ()
    keep_aspect: str = "stretch"

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        finite_fields(self, "cubic_coefficient", "extrapolation")
        one_of(self, "mode", ("nearest", "linear", "cubic"))
        one_of(self, "coordinates", COORDINATES)
        one_of(self, "nearest", NEAREST)
        one_of(self, "keep_aspect", KEEP_ASPECT)
        checked_fields(self, several=("axes",))
        axes = self.axes
        sizes = checked_sizes(self.sizes, "sizes") if self.sizes else ()
        scales = tuple(float(s) for s in self.scales)
        if not all(0 < s < math.inf for s in scales):
            raise ValueError(f"scales {scales}, wanted positive numbers")
        region = tuple(float(r) for r in self.region)
        for name, value in (
            ("sizes", sizes),
            ("scales", scales),
            ("region", region),
        ):
            object.__setattr__(self, name, value)
        if bool(sizes) == bool(scales):
            raise ValueError(
                f"sizes {sizes} and scales {scales}, wanted one or the other"
            )
        count = len(sizes) + len(scales)
        if axes and len(axes) != count:
            raise ValueError(f"{count} sizes or scales do not fit the axes {axes}")
        if scales and self.keep_aspect != "stretch":
            raise ValueError(
                f"keep_aspect {self.keep_aspect!r} wants sizes, not scales"
            )
        cropped = self.coordinates == "tf_crop_and_resize"
        if len(region) != (2 * count if cropped else 0) or not all(
            map(math.isfinite, region)
        ):
            raise ValueError(
                f"region {region} does not fit {count} axes and the coordinates "
                f"{self.coordinates!r}"
            )
        if self.antialias and self.mode == "nearest":
            raise ValueError("antialias wants the mode 'linear' or 'cubic'")
        if self.exclude_outside and self.mode == "nearest":
            raise ValueError("exclude_outside wants the mode 'linear' or 'cubic'")

    def infer(self, x: Spec) -> Spec:
        """Return the shape with the new sizes."""
        require_float32("Resize", x)
        require(0 not in x.shape, f"Resize: {shape_text(x.shape)} is empty")
        shape = list(x.shape)
        asked = f"scales {self.scales}"
        if self.sizes:
            asked = f"sizes {self.sizes} with keep_aspect {self.keep_aspect!r}"
        for axis, size, _ in self._targets(x.shape):
            require(
                size > 0,
                f"Resize: the {asked} leave nothing of axis {axis} of "
                f"{shape_text(x.shape)}",
            )
            shape[axis] = size
        return Spec(tuple(shape))

    def reference(self, x: Array) -> Array:
        """Return the weighted sum of taps, axis after axis."""
        for axis, taps in self.tables(x.shape).items():
            total: Array = np.zeros(1, x.dtype)
            for k in range(taps.most):
                source = np.minimum(taps.first + k, x.shape[axis] - 1)
                rest = (1,) * (x.ndim - axis - 1)
                weight = taps.weights[:, k].astype(x.dtype).reshape(-1, *rest)
                used = (k < taps.count).reshape(-1, *rest)
                total = total + np.where(used, weight * x.take(source, axis), 0)
            inside = (taps.count > 0).reshape(-1, *rest)
            x = np.where(inside, total, np.asarray(self.extrapolation, x.dtype))
        return x

    def tables(self, shape: Shape) -> dict[int, Taps]:
        """Return the taps of every axis that is resampled, for an input of `shape`."""
        regions = [(0.0, 1.0)] * len(shape)
        if self.region:
            half = len(self.region) // 2
            regions = list(zip(self.region[:half], self.region[half:], strict=True))
        tables = {}
        for (axis, size, scale), region in zip(
            self._targets(shape), regions, strict=False
        ):
            tables[axis] = self._taps(shape[axis], size, scale, region)
        return {a: t for a, t in sorted(tables.items()) if not t.keeps(shape[a])}

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return one pass for all axes, or one an axis, whichever takes least work."""
        source = as_view(low, x)
        tables = self.tables(source.shape)
        if not tables:
            return [copy_step(low, out, source)]
        passes = min(
            self._ways(tables), key=lambda way: self._work(way, tables, source.shape)
        )
        steps = []
        for number, axes in enumerate(passes):
            place = out
            if number < len(passes) - 1:
                shape = tuple(
                    out.shape[a] if a in axes else n for a, n in enumerate(source.shape)
                )
                place = replace(
                    low.scratch(product(shape)),
                    shape=shape,
                    strides=contiguous_strides(shape),
                )
            steps.append(self._pass(low, place, source, {a: tables[a] for a in axes}))
            source = place
        return steps

    def multiply_adds(self, out: Spec, x: Spec) -> int:
        """Return the taps of every output element, as if in one pass."""
        taps = math.prod(table.most for table in self.tables(x.shape).values())
        return out.size * min(taps, TAPS_TOGETHER)

    def _ways(self, tables: dict[int, Taps]) -> list[list[Shape]]:
        """Return the ways to divide the axes into passes."""
        ways: list[list[Shape]] = []
        taps = math.prod(table.most for table in tables.values())
        if len(tables) == 1 or (taps <= TAPS_TOGETHER and len(tables) <= TOGETHER):
            ways.append([tuple(tables)])
        orders = itertools.permutations(tables) if len(tables) < 4 else [tuple(tables)]
        ways += [[(axis,) for axis in order] for order in orders]
        return ways

    def _work(
        self, passes: list[Shape], tables: dict[int, Taps], shape: Shape
    ) -> float:
        """Return the vector operations of all passes over an input of `shape`."""
        total = 0.0
        sizes = list(shape)
        for axes in passes:
            taps = 1
            for axis in axes:
                sizes[axis] = len(tables[axis].first)
                taps *= tables[axis].most
            run = product(tuple(sizes[max(axes) + 1 :]))
            vectors = math.ceil(run / 16)
            positions = product(tuple(sizes)) // run
            total += positions * (WORK_OF_A_POSITION + vectors * (taps + 2))
        return total

    def _pass(self, low: Lowering, out: View, x: View, tables: dict[int, Taps]) -> Step:
        operands = [out, x]
        nothing = Taps(np.zeros(1), np.ones(1), np.ones((1, 1)))
        for taps in [nothing] * (TOGETHER - len(tables)) + list(tables.values()):
            spans = np.stack([taps.first, taps.count], axis=1).astype(np.int32)
            operands.append(low.constant(spans))
            operands.append(low.constant(taps.weights.astype(np.float32)))
        kernel = low.load("resize").resize(
            out.shape,
            out.strides,
            x.strides,
            tuple(tables),
            tuple(taps.most for taps in tables.values()),
            self.extrapolation,
        )
        sizes = "x".join(str(taps.most) for taps in tables.values())
        return Step(kernel, tuple(operands), f"resample {sizes} taps")

    def _targets(self, shape: Shape) -> list[tuple[int, int, float | None]]:
        """Return (axis, new size, scale) of the axes; without a scale sizes decide."""
        where = self.axes or tuple(range(len(shape)))
        given = len(self.sizes) + len(self.scales)
        require(
            len(where) == given,
            f"Resize: {given} sizes or scales for the input {shape_text(shape)}",
        )
        axes = [normal_axis(axis, len(shape), "Resize") for axis in where]
        require(len(set(axes)) == len(axes), f"Resize: axes {self.axes} repeat one")
        old = [shape[axis] for axis in axes]
        if self.scales:
            return [
                (axis, math.floor(n * scale), scale)
                for axis, n, scale in zip(axes, old, self.scales, strict=True)
            ]
        if self.keep_aspect == "stretch":
            return [(a, size, None) for a, size in zip(axes, self.sizes, strict=True)]
        ratios = [size / n for size, n in zip(self.sizes, old, strict=True)]
        scale = (min if self.keep_aspect == "not_larger" else max)(ratios)
        return [
            (axis, math.floor(scale * n + 0.5), scale)
            for axis, n in zip(axes, old, strict=True)
        ]

    def _taps(
        self, n: int, size: int, scale: float | None, region: tuple[float, float]
    ) -> Taps:
        """Return the taps of an axis of n positions that becomes one of `size`."""
        at, inside = self._coordinates(n, size, scale, region)
        if self.mode == "nearest":
            nearest: Any = {
                "round_prefer_floor": lambda: np.ceil(at - 0.5),
                "round_prefer_ceil": lambda: np.floor(at + 0.5),
                "floor": lambda: np.floor(at),
                "ceil": lambda: np.ceil(at),
            }[self.nearest]()
            first = np.clip(nearest, 0, n - 1).astype(np.int64)
            return Taps(first, inside.astype(np.int64), np.ones((size, 1)))
        stretch = scale or size / n
        stretch = min(stretch, 1.0) if self.antialias else 1.0
        reach = math.floor((1 if self.mode == "linear" else 2) / -stretch) + 1
        taps = np.ceil(at)[:, None] - 1 + np.arange(reach, 2 - reach)
        weights = self._kernel(np.abs(taps - at[:, None]) * stretch)
        if self.exclude_outside:
            weights = np.where((taps < 0) | (taps > n - 1), 0.0, weights)
        total = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(total == 0, 1.0, total)
        return _gathered(np.clip(taps, 0, n - 1).astype(np.int64), weights, inside)

    def _coordinates(
        self, n: int, size: int, scale: float | None, region: tuple[float, float]
    ) -> tuple[Array, Array]:
        """Return where in the input each output position lies, and whether inside."""
        p = np.arange(size, dtype=np.float64)
        resized = n * scale if scale else float(size)
        inside = np.ones(size, bool)

        def divided(q: Array) -> Array:
            return q / scale if scale else q * n / size

        if self.coordinates == "asymmetric":
            at = divided(p)
        elif self.coordinates == "tf_half_pixel_for_nn":
            at = divided(p + 0.5)
        elif self.coordinates == "align_corners":
            at = p * (n - 1) / (resized - 1) if resized != 1 else p * 0
        elif self.coordinates == "tf_crop_and_resize":
            start, end = region
            span = (end - start) * (n - 1)
            at = p * span / (resized - 1) if resized != 1 else p * 0 + span / 2
            at = at + start * (n - 1)
            inside = (at >= 0) & (at <= n - 1)
        else:
            at = divided(p + 0.5) - 0.5
            if self.coordinates == "pytorch_half_pixel" and size == 1:
                at = p * 0
            elif self.coordinates == "half_pixel_symmetric":
                at = at + n / 2 * (1 - size / resized)
        return at, inside

    def _kernel(self, distance: Array) -> Array:
        """Return the weight of an input position at a distance."""
        d = distance
        if self.mode == "linear":
            hat: Array = np.maximum(1 - d, 0)
            return hat
        return cubic_kernel(d, self.cubic_coefficient)


def cubic_kernel(distance: Array, a: float) -> Array:
    """Return the weight of a position at a distance >= 0; `a` is the slope at one."""
    d = distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def one_of(op: Any, name: str, words: tuple[str, ...]) -> None:
    """Raise `ValueError` unless a field is one of some words."""
    value = getattr(op, name)
    if value not in words:
        raise ValueError(f"{name} {value!r}, wanted one of {', '.join(words)}")


def _gathered(taps: Array, weights: Array, inside: Array) -> Taps:
    """Return the taps with repeated ones joined and zeros at the ends dropped."""
    size, most = taps.shape
    column = taps - taps[:, :1]
    joined = np.zeros((size, most))
    np.add.at(joined, (np.arange(size)[:, None], column), weights)
    used = joined != 0
    skip = np.where(used.any(axis=1), used.argmax(axis=1), 0)
    end = most - used[:, ::-1].argmax(axis=1)
    count = np.where(used.any(axis=1), end - skip, 1)
    width = int(count.max())
    source = skip[:, None] + np.arange(width)
    kept = np.take_along_axis(joined, np.minimum(source, most - 1), axis=1)
    kept = np.where(np.arange(width) < count[:, None], kept, 0.0)
    return Taps(taps[:, 0] + skip, np.where(inside, count, 0), kept)
