"""Products of matrices, and of tensors by Einstein's convention."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..algorithms.matrix_product import best_tile
from ..errors import ShapeError
from ..pages import aligned_zeros
from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View, contiguous_strides
from .base import NOTHING, Epilogue, Lowering, Op, as_view, require, require_float32
from .identity import copy_step, scratch_tensor
from .reduce import reduction_step


class MatMul(Op):
    """Multiply matrices, as `numpy.matmul`: (..., M, K) and (..., K, N) to (..., M, N).

    The axes before the matrices broadcast. An operand of one axis is a row on the left,
    a column on the right, and its other axis is not in the result.
    """

    def infer(self, x: Spec, y: Spec) -> Spec:
        """Return the batch, the rows of x and the columns of y."""
        require_float32("MatMul", x, y)
        message = (
            f"MatMul: {shape_text(x.shape)} and {shape_text(y.shape)} do not fit; "
            "wanted (..., M, K) and (..., K, N)"
        )
        require(x.rank > 0 and y.rank > 0 and 0 not in x.shape + y.shape, message)
        left, right = _matrix(x.shape, 0), _matrix(y.shape, 1)
        require(left[-1] == right[-2], message)
        try:
            batch = np.broadcast_shapes(left[:-2], right[:-2])
        except ValueError:
            raise ShapeError(message) from None
        rows = left[-2:-1] if x.rank > 1 else ()
        return Spec((*batch, *rows, *(right[-1:] if y.rank > 1 else ())))

    def reference(self, x: Array, y: Array) -> Array:
        """Return ``x @ y``."""
        z: Array = x @ y
        return z

    def multiply_adds(self, out: Spec, x: Spec, y: Spec) -> int:
        """Return output elements times products in each."""
        return out.size * x.shape[-1]

    def lower(
        self, low: Lowering, out: View, x: View | Array, y: View | Array
    ) -> list[Step]:
        """Return a packing of y, unless it is a weight, and the products."""
        left = as_view(low, x)
        if y.ndim == 1 if isinstance(y, np.ndarray) else y.rank == 1:
            out = _with_one(out, out.rank)
        if left.rank == 1:
            left, out = _with_one(left, 0), _with_one(out, out.rank - 1)
        if isinstance(y, np.ndarray):
            return product_steps(low, out, left, y[:, None] if y.ndim == 1 else y)
        return product_steps(low, out, left, _with_one(y, 1) if y.rank == 1 else y)


@record
class Einsum(Op):
    """Multiply tensors and add up by Einstein's convention, as `numpy.einsum`.

    Parameters
    ----------
    equation : str
        Letters for the axes of each operand, separated by commas; after ``->`` those of
        the result. Axes of one letter go together, letters that the result lacks are
        summed over, ``...`` stands for axes that broadcast. Without ``->`` the result
        has the letters that occur once, in alphabetical order.
    """

    equation: str

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` unless it is an equation."""
        terms, result = _terms(self.equation)
        for term in (*terms, result):
            letters = term.replace("...", "", 1)
            if letters and not (letters.isascii() and letters.isalpha()):
                raise ValueError(f"equation {self.equation!r}: found {term!r}")
        letters = result.replace("...", "")
        if len(set(letters)) < len(letters) or not set(letters) <= set("".join(terms)):
            raise ValueError(f"equation {self.equation!r}: result {result!r}")

    def infer(self, *xs: Spec) -> Spec:
        """Return the sizes of the result's letters."""
        require_float32("Einsum", *xs)
        labels, result = self._labels([x.rank for x in xs])
        sizes: dict[str | int, int] = {}
        for x, names in zip(xs, labels, strict=True):
            for name, n in zip(names, x.shape, strict=True):
                have = sizes.setdefault(name, n)
                if have == 1 and isinstance(name, int):
                    sizes[name] = n
                require(
                    n == sizes[name] or (n == 1 and isinstance(name, int)),
                    f"Einsum {self.equation!r}: an axis has {n} and {sizes[name]} "
                    f"elements in " + ", ".join(shape_text(x.shape) for x in xs),
                )
        return Spec(tuple(sizes[name] for name in result))

    def reference(self, *xs: Array) -> Array:
        """Return the sums of products."""
        y: Array = np.einsum(self.equation.replace(" ", ""), *xs)
        return y

    def multiply_adds(self, out: Spec, *xs: Spec) -> int:
        """Return the products, each factor after the first being one."""
        labels, _ = self._labels([x.rank for x in xs])
        sizes = {
            name: n
            for x, names in zip(xs, labels, strict=True)
            for name, n in zip(names, x.shape, strict=True)
        }
        return math.prod(sizes.values()) * max(1, len(xs) - 1)

    def lower(
        self, low: Lowering, out: View, *xs: View, epilogue: Epilogue = NOTHING
    ) -> list[Step]:
        """Return products of two operands at a time, as matrices."""
        labels, result = self._labels([x.rank for x in xs])
        steps: list[Step] = []
        view, names = _diagonal(xs[0], labels[0])
        for index in range(1, len(xs)):
            other, others = _diagonal(xs[index], labels[index])
            later = {name for each in labels[index + 1 :] for name in each}
            kept = later | set(result)
            view, names = _summed(low, steps, view, names, kept | set(others))
            other, others = _summed(low, steps, other, others, kept | set(names))
            view, names = _paired(low, steps, (view, names), (other, others), kept)
        view, names = _summed(low, steps, view, names, set(result))
        steps.append(copy_step(low, out, _ordered(view, names, result, out.shape)))
        return steps

    def _labels(self, ranks: list[int]) -> tuple[list[Names], Names]:
        """Return a name for each axis of each operand, and of the result's.

        The axes of ``...`` are numbered from the back.
        """
        terms, result = _terms(self.equation)
        require(
            len(terms) == len(ranks),
            f"Einsum {self.equation!r}: {len(ranks)} operands, wanted {len(terms)}",
        )
        most = 0
        labels = []
        for term, rank in zip(terms, ranks, strict=True):
            free = rank - len(term.replace("...", ""))
            require(
                free == 0 or (free > 0 and "..." in term),
                f"Einsum {self.equation!r}: {term!r} for a tensor of {rank} axes",
            )
            most = max(most, free)
            labels.append(_named(term, free))
        return labels, _named(result, most if "..." in result else 0)


Names = tuple[str | int, ...]
"""The axes of a tensor: letters, and numbers for those of ``...``."""


def product_steps(low: Lowering, out: View, x: View, y: View | Array) -> list[Step]:
    """Return the steps of ``out = x @ y``.

    Parameters
    ----------
    out, x, y : View or Array
        (..., M, N), (..., M, K) and (..., K, N); the axes before broadcast.
    """
    module = low.load("matmul")
    shape = y.shape
    if math.prod(shape[:-2]) == 1:
        rows = math.prod(out.shape[:-1])
        flat = x.broadcast((*out.shape[:-1], x.shape[-1])).reshape((rows, x.shape[-1]))
        target = out.reshape((rows, out.shape[-1]))
        if flat is not None and target is not None:
            x, out = flat, target
            y = (
                y.reshape(shape[-2:]) or y
                if isinstance(y, View)
                else y.reshape(shape[-2:])
            )
            shape = shape[-2:]
    (m, n), k = out.shape[-2:], x.shape[-1]
    vectors = -(-n // module.lanes)
    mr, nr = best_tile(m, vectors, module.registers)
    size = vectors * module.lanes * k
    steps: list[Step] = []
    if k > 1 and x.strides[-1] != 1:
        dense = scratch_tensor(low, x.shape)
        steps.append(copy_step(low, dense, x))
        x = dense
    if isinstance(y, View):
        packed = low.scratch(math.prod(shape[:-2]) * size)
        pack = module.pack(
            shape[:-2],
            (_batch_strides(shape[:-2], size), y.strides[:-2]),
            k,
            n,
            *y.strides[-2:],
            nr,
        )
        steps.append(Step(pack, (packed, y), "pack"))
    else:
        weight = y
        packed = low.packed(
            weight, ("matmul", nr), lambda: packed_panels(weight, module.lanes, nr)
        )
    batch = out.shape[:-2]
    panels = View(packed.buffer, shape[:-2], _batch_strides(shape[:-2], size))
    product = module.product(
        batch,
        (
            out.strides[:-2],
            replace(x, shape=x.shape[:-2], strides=x.strides[:-2], halo=())
            .broadcast(batch)
            .strides,
            panels.broadcast(batch).strides,
        ),
        m,
        n,
        k,
        out.strides[-2],
        x.strides[-2],
        (mr, nr),
        max(1, low.level2_bytes // 3 // (4 * mr * k)),
    )
    zeros = low.constant(aligned_zeros(nr * module.lanes))
    steps.append(Step(product, (out, x, packed, zeros), f"gemm {mr}x{nr}"))
    return steps


def packed_panels(weight: Array, lanes: int, nr: int) -> Array:
    """Return matrices in the order in which the product reads them."""
    *batch, k, n = weight.shape
    vectors = -(-n // lanes)
    wide = np.zeros((math.prod(batch), k, vectors * lanes), np.float32)
    wide[:, :, :n] = weight.reshape(-1, k, n)
    packed = aligned_zeros(wide.size)
    rows = packed.reshape(len(wide), -1)
    for first in range(0, vectors, nr):
        start, stop = first * lanes, min(first + nr, vectors) * lanes
        panel = wide[:, :, start:stop].reshape(len(wide), -1)
        rows[:, start * k : stop * k] = panel
    return packed


def _batch_strides(batch: Shape, size: int) -> Shape:
    return tuple(stride * size for stride in contiguous_strides(batch))


def _matrix(shape: Shape, axis: int) -> Shape:
    """Return the shape of a matrix; a vector gets an axis of size one."""
    return (*shape[:axis], 1, *shape[axis:]) if len(shape) == 1 else shape


def _with_one(view: View, axis: int) -> View:
    """Return the view with an axis of size one more."""
    return View(
        view.buffer,
        (*view.shape[:axis], 1, *view.shape[axis:]),
        (*view.strides[:axis], 1, *view.strides[axis:]),
        view.offset,
        view.dtype,
    )


def _terms(equation: str) -> tuple[list[str], str]:
    """Return the letters of each operand and of the result."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        letters = "".join(terms).replace("...", "")
        once = sorted(c for c in set(letters) if letters.count(c) == 1)
        result = ("..." if "..." in left else "") + "".join(once)
    return terms, result


def _named(term: str, free: int) -> Names:
    before, dots, after = term.partition("...")
    return (*before, *(range(-free, 0) if dots else ()), *after)


def _diagonal(x: View, names: Names) -> tuple[View, Names]:
    """Return the view in which each name is one axis."""
    different = tuple(dict.fromkeys(names))
    places = [[a for a, name in enumerate(names) if name == one] for one in different]
    shape = tuple(x.shape[axes[0]] for axes in places)
    strides = tuple(sum(x.strides[a] for a in axes) for axes in places)
    return replace(x, shape=shape, strides=strides, halo=()), different


def _summed(
    low: Lowering, steps: list[Step], x: View, names: Names, kept: set[str | int]
) -> tuple[View, Names]:
    """Return the tensor summed over the axes not in `kept`."""
    reduced = [axis for axis, name in enumerate(names) if name not in kept]
    if not reduced:
        return x, names
    remaining = tuple(name for name in names if name in kept)
    left = [axis for axis in range(x.rank) if axis not in reduced]
    y = scratch_tensor(low, tuple(x.shape[axis] for axis in left))
    if x.rank and x.strides[-1] != 1:
        dense = scratch_tensor(low, x.shape)
        steps.append(copy_step(low, dense, x))
        x = dense
    steps.append(reduction_step(low, "Sum", y, x, reduced))
    return y, remaining


def _paired(
    low: Lowering,
    steps: list[Step],
    first: tuple[View, Names],
    second: tuple[View, Names],
    kept: set[str | int],
) -> tuple[View, Names]:
    """Return the product of two tensors, summed over the axes not in `kept`."""
    (x, a), (y, b) = first, second
    batch = tuple(n for n in a if n in b and n in kept)
    inner = tuple(n for n in a if n in b and n not in kept)
    rows = tuple(n for n in a if n not in b)
    columns = tuple(n for n in b if n not in a)
    sizes = dict(zip(b, y.shape, strict=True))
    for name, n in zip(a, x.shape, strict=True):
        sizes[name] = max(n, sizes.get(name, 1))

    def matrices(view: View, names: Names, groups: tuple[Names, Names, Names]) -> View:
        """Return (batch..., matrix rows, matrix columns), copied into that order."""
        order = tuple(n for group in groups for n in group)
        shape = tuple(sizes[n] for n in order)
        moved = _ordered(view, names, order, shape)
        whole = scratch_tensor(low, shape)
        steps.append(copy_step(low, whole, moved))
        ends = (math.prod(sizes[n] for n in group) for group in groups[1:])
        matrix = whole.reshape((math.prod(sizes[n] for n in groups[0]), *ends))
        assert matrix is not None
        return matrix

    left = matrices(x, a, (batch, rows, inner))
    right = matrices(y, b, (batch, inner, columns))
    out = scratch_tensor(low, (left.shape[0], left.shape[1], right.shape[2]))
    steps += product_steps(low, out, left, right)
    names = (*batch, *rows, *columns)
    result = out.reshape(tuple(sizes[n] for n in names))
    assert result is not None
    return result, names


def _ordered(view: View, names: Names, order: Names, shape: Shape) -> View:
    """Return the view with its axes in another order, stretched to `shape`.

    Axes of ``...`` that a tensor lacks are stretched ones.
    """
    strides = tuple(
        view.strides[names.index(name)]
        if name in names and view.shape[names.index(name)] == n
        else 0
        for name, n in zip(order, shape, strict=True)
    )
    return replace(view, shape=shape, strides=strides, halo=())
