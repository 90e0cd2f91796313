"""Operators that reduce axes, sort them or add along them.

Each function is named and signed like its operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.tools.from_onnx import axes, data
from striate.tools.from_torch.axes import converted
from striate.tools.from_torch.elementwise import apply
from striate.tools.from_torch.registry import TorchBuilder, aten_op, dtype_of, kind
from striate.tools.layout import Tensor

Ints = list[int]


def chosen(g: TorchBuilder, x: Tensor, dim: Any) -> tuple[int, ...]:
    """Return axes counted from the front; all of them if none is named."""
    if dim is None or dim == []:
        return tuple(range(x.rank))
    return tuple(g.axis(d, x.rank) for d in ([dim] if isinstance(dim, int) else dim))


def reduced(
    g: TorchBuilder, kind: type[ops.Reduction], x: Tensor, dim: Any, keepdim: bool
) -> Tensor:
    """Return a function of all elements along some axes."""
    places = chosen(g, x, dim)
    return data.reduced(g, kind, x, places, int(keepdim)) if places else x


def terms(g: TorchBuilder, x: Tensor, dtype: str | None) -> Tensor:
    """Return what sums and products are of; without a type, no whole ones but int64."""
    if dtype is None and kind(dtype_of(x)) < 2:
        dtype = "int64"
    return converted(g, x, dtype)


@aten_op("mean.dim")
def mean(
    g: TorchBuilder,
    self: Tensor,
    dim: Any,
    keepdim: bool = False,
    *,
    dtype: str | None = None,
) -> Tensor:
    """Average."""
    places = chosen(g, self, dim)
    x = g.cast(converted(g, self, dtype), "float32")
    return axes.mean(g, x, places, int(keepdim)) if places else x


@aten_op("mean")
def mean_all(g: TorchBuilder, self: Tensor, *, dtype: str | None = None) -> Tensor:
    """Average all."""
    return mean(g, self, None, dtype=dtype)


@aten_op("sum.dim_IntList")
def sum(
    g: TorchBuilder,
    self: Tensor,
    dim: Any,
    keepdim: bool = False,
    *,
    dtype: str | None = None,
) -> Tensor:
    """Add up."""
    return reduced(g, ops.ReduceSum, terms(g, self, dtype), dim, keepdim)


@aten_op("sum")
def sum_all(g: TorchBuilder, self: Tensor, *, dtype: str | None = None) -> Tensor:
    """Add up all."""
    return sum(g, self, None, dtype=dtype)


@aten_op("prod.dim_int")
def prod(
    g: TorchBuilder,
    self: Tensor,
    dim: int,
    keepdim: bool = False,
    *,
    dtype: str | None = None,
) -> Tensor:
    """Multiply up."""
    return reduced(g, ops.ReduceProd, terms(g, self, dtype), dim, keepdim)


@aten_op("amax")
def amax(g: TorchBuilder, self: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """Take the largest."""
    return reduced(g, ops.ReduceMax, self, list(dim), keepdim)


@aten_op("amin")
def amin(g: TorchBuilder, self: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """Take the smallest."""
    return reduced(g, ops.ReduceMin, self, list(dim), keepdim)


@aten_op("max")
def max_all(g: TorchBuilder, self: Tensor) -> Tensor:
    """Take the largest of all."""
    return reduced(g, ops.ReduceMax, self, None, False)


@aten_op("min")
def min_all(g: TorchBuilder, self: Tensor) -> Tensor:
    """Take the smallest of all."""
    return reduced(g, ops.ReduceMin, self, None, False)


def _register_extreme(
    name: str, reduction: type[ops.Reduction], place: Callable[..., ops.Op]
) -> None:
    @aten_op(f"{name}.dim")
    def extreme(g: TorchBuilder, self: Tensor, dim: int, keepdim: bool = False) -> Any:
        values = reduced(g, reduction, self, dim, keepdim)
        if g.wanted < 2:
            return values
        return values, placed(g, place, self, dim, keepdim)

    @aten_op(f"arg{name}")
    def argument(
        g: TorchBuilder, self: Tensor, dim: int | None = None, keepdim: bool = False
    ) -> Tensor:
        x = data.flat(g, self) if dim is None else self
        return placed(g, place, x, dim or 0, keepdim and dim is not None)


def placed(
    g: TorchBuilder, kind: Callable[..., ops.Op], x: Tensor, dim: int, keepdim: bool
) -> Tensor:
    """Return where along an axis the extreme is, the first of several."""
    place = g.axis(dim, x.rank)
    y = data.along(g, kind(axis=place, keepdims=True), x, place)[0]
    if keepdim:
        return y
    return g.without(y, (place,))


_register_extreme("max", ops.ReduceMax, ops.ArgMax)
_register_extreme("min", ops.ReduceMin, ops.ArgMin)


@aten_op("aminmax")
def aminmax(
    g: TorchBuilder, self: Tensor, *, dim: int | None = None, keepdim: bool = False
) -> Any:
    """Take the smallest and the largest."""
    return tuple(
        reduced(g, kind, self, dim, keepdim) for kind in (ops.ReduceMin, ops.ReduceMax)
    )


@aten_op("logsumexp")
def logsumexp(g: TorchBuilder, self: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """Return the logarithm of the sum of exponentials."""
    return reduced(g, ops.ReduceLogSumExp, self, dim, keepdim)


@aten_op("all", "all.dim", "all.dims")
def all_of(
    g: TorchBuilder, self: Tensor, dim: Any = None, keepdim: bool = False
) -> Tensor:
    """Tell whether all are true."""
    return reduced(g, ops.ReduceMin, g.cast(self, "bool"), dim, keepdim)


@aten_op("any", "any.dim", "any.dims")
def any_of(
    g: TorchBuilder, self: Tensor, dim: Any = None, keepdim: bool = False
) -> Tensor:
    """Tell whether any is true."""
    return reduced(g, ops.ReduceMax, g.cast(self, "bool"), dim, keepdim)


def moments(
    g: TorchBuilder, x: Tensor, dim: Any, correction: float, keepdim: bool
) -> tuple[Tensor, Tensor]:
    """Return variance and mean."""
    places = chosen(g, x, dim)
    centre = axes.mean(g, x, places, 1)
    apart = apply(g, "Sub", x, centre)
    spread = axes.mean(g, apply(g, "Mul", apart, apart), places, 1)
    if correction:
        count = g.product([x.shape[place] for place in places])
        size = g.fixed(count, "how many numbers its variance is of")
        spread = apply(g, "Mul", spread, size / (size - correction))
    if keepdim:
        return spread, centre
    return g.without(spread, places), g.without(centre, places)


def _register_spread(name: str, *, root: bool = False, mean: bool = False) -> None:
    def found(
        g: TorchBuilder, x: Tensor, dim: Any, correction: float, keepdim: bool
    ) -> Any:
        spread, centre = moments(g, x, dim, correction, keepdim)
        spread = g.elementwise(ops.Sqrt(), spread) if root else spread
        return (spread, centre) if mean else spread

    @aten_op(name)
    def whole(g: TorchBuilder, self: Tensor, unbiased: bool = True) -> Any:
        return found(g, self, None, int(unbiased), False)

    @aten_op(f"{name}.dim")
    def along(
        g: TorchBuilder,
        self: Tensor,
        dim: Any,
        unbiased: bool = True,
        keepdim: bool = False,
    ) -> Any:
        return found(g, self, dim, int(unbiased), keepdim)

    @aten_op(f"{name}.correction")
    def corrected(
        g: TorchBuilder,
        self: Tensor,
        dim: Any = None,
        *,
        correction: float | None = None,
        keepdim: bool = False,
    ) -> Any:
        return found(g, self, dim, 1 if correction is None else correction, keepdim)


_register_spread("var")
_register_spread("var_mean", mean=True)
_register_spread("std", root=True)
_register_spread("std_mean", root=True, mean=True)


@aten_op("linalg_vector_norm")
def linalg_vector_norm(
    g: TorchBuilder,
    self: Tensor,
    ord: float = 2,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: str | None = None,
) -> Tensor:
    """Return the norm of vectors."""
    self = converted(g, self, dtype)
    if ord in (math.inf, -math.inf):
        extreme = ops.ReduceMax if ord > 0 else ops.ReduceMin
        return reduced(g, extreme, g.elementwise(ops.Abs(), self), dim, keepdim)
    kinds: dict[float, type[ops.Reduction]] = {1: ops.ReduceL1, 2: ops.ReduceL2}
    if ord in kinds:
        return reduced(g, kinds[ord], self, dim, keepdim)
    if ord <= 0:
        raise UnsupportedModelError(f"ord {ord}")
    powers = apply(g, "Pow", g.elementwise(ops.Abs(), self), float(ord))
    total = reduced(g, ops.ReduceSum, powers, dim, keepdim)
    return apply(g, "Pow", total, 1 / ord)


@aten_op("norm.ScalarOpt_dim")
def norm(
    g: TorchBuilder, self: Tensor, p: float | None, dim: Any, keepdim: bool = False
) -> Tensor:
    """Return the norm of vectors."""
    return linalg_vector_norm(g, self, 2 if p is None else p, dim, keepdim)


@aten_op("norm.Scalar")
def norm_all(g: TorchBuilder, self: Tensor, p: float = 2) -> Tensor:
    """Return the norm of all elements."""
    return linalg_vector_norm(g, self, p)


@aten_op("cosine_similarity")
def cosine_similarity(
    g: TorchBuilder, x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8
) -> Tensor:
    """Return the cosine of the angle between vectors."""
    product = reduced(g, ops.ReduceSum, apply(g, "Mul", x1, x2), dim, False)
    for x in (x1, x2):
        length = reduced(g, ops.ReduceL2, x, dim, False)
        product = apply(g, "Div", product, apply(g, "Max", length, eps))
    return product


@aten_op("cumsum")
def cumsum(
    g: TorchBuilder, self: Tensor, dim: int, *, dtype: str | None = None
) -> Tensor:
    """Add up the elements along an axis up to each one."""
    return data.CumSum(g, terms(g, self, dtype), g.constant(np.array(dim)))


@aten_op("topk")
def topk(
    g: TorchBuilder,
    self: Tensor,
    k: Any,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,
) -> Any:
    """Find the largest or smallest elements along an axis."""
    place = g.axis(dim, self.rank)
    count = g.fixed(g.dim(k), "how many it takes")
    op = ops.TopK(count, place, largest, sorted)
    return data.along(g, op, self, place, outputs=2)


@aten_op("sort")
def sort(g: TorchBuilder, self: Tensor, dim: int = -1, descending: bool = False) -> Any:
    """Sort along an axis."""
    place = g.axis(dim, self.rank)
    size = g.fixed(self.shape[place], "how many it sorts")
    return topk(g, self, size, place, descending)
