"""Operators that vanish: they make constants, or work with sizes.

Each function is named and signed like its operator.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.builder import bounded
from striate.tools.from_onnx import data
from striate.tools.from_torch.axes import converted
from striate.tools.from_torch.registry import (
    FLOATING,
    Number,
    TorchBuilder,
    aten_op,
    dtype_of,
)
from striate.tools.layout import Constant, Tensor, Value


def filled(
    g: TorchBuilder, size: Any, value: Any, dtype: str | None, usual: str
) -> Constant:
    """Return a constant of one number everywhere."""
    name = usual if dtype is None else dtype
    name = "float32" if name in FLOATING else name
    found = []
    for sizes in zip(*g.dims(size), strict=True) if size else [()] * g.bindings:
        bounded(sizes)
        found.append(np.broadcast_to(np.array(value, name), sizes))
    return Constant(tuple(found))


@aten_op("zeros", "empty.memory_format")
def zeros(g: TorchBuilder, size: Any, *, dtype: str | None = None) -> Tensor:
    """Return zeros, also for memory of which nothing is said."""
    return filled(g, size, 0, dtype, "float32")


@aten_op("ones")
def ones(g: TorchBuilder, size: Any, *, dtype: str | None = None) -> Tensor:
    """Return ones."""
    return filled(g, size, 1, dtype, "float32")


@aten_op("full")
def full(
    g: TorchBuilder, size: Any, fill_value: Any, *, dtype: str | None = None
) -> Tensor:
    """Return one number everywhere."""
    return filled(g, size, fill_value, dtype, _dtype(fill_value))


def _dtype(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "int64" if isinstance(value, int) else "float32"


def _like(g: TorchBuilder, x: Tensor, value: Any, dtype: str | None) -> Tensor:
    sizes = [Number(tuple(np.array(n) for n in dim)) for dim in x.shape]
    return filled(g, sizes, value, dtype, dtype_of(x))


def _register_like(value: int, *names: str) -> None:
    @aten_op(*names)
    def like(g: TorchBuilder, self: Tensor, *, dtype: str | None = None) -> Tensor:
        return _like(g, self, value, dtype)


def _register_new(value: int, *names: str) -> None:
    @aten_op(*names)
    def new(
        g: TorchBuilder, self: Tensor, size: Any, *, dtype: str | None = None
    ) -> Tensor:
        return filled(g, size, value, dtype, dtype_of(self))


_register_like(0, "zeros_like", "empty_like")
_register_like(1, "ones_like")
_register_new(0, "new_zeros", "new_empty")
_register_new(1, "new_ones")


@aten_op("full_like")
def full_like(
    g: TorchBuilder, self: Tensor, fill_value: Any, *, dtype: str | None = None
) -> Tensor:
    """Return one number in another tensor's shape."""
    return _like(g, self, fill_value, dtype)


@aten_op("fill.Scalar", "fill.Tensor")
def fill(g: TorchBuilder, self: Tensor, value: Any) -> Tensor:
    """Return one number in another tensor's shape."""
    if isinstance(value, Tensor):
        value = g.array(value, "its number").item()
    return _like(g, self, value, None)


@aten_op("zero")
def zero(g: TorchBuilder, self: Tensor) -> Tensor:
    """Return zeros of another tensor's shape."""
    return _like(g, self, 0, None)


@aten_op("new_full")
def new_full(
    g: TorchBuilder,
    self: Tensor,
    size: Any,
    fill_value: Any,
    *,
    dtype: str | None = None,
) -> Tensor:
    """Return one number everywhere, of another tensor's element type."""
    return filled(g, size, fill_value, dtype, dtype_of(self))


@aten_op("scalar_tensor")
def scalar_tensor(g: TorchBuilder, s: Any, *, dtype: str | None = None) -> Tensor:
    """Return a number."""
    return filled(g, [], s, dtype, _dtype(s))


def _stepped(
    g: TorchBuilder, start: Any, end: Any, step: Any, dtype: str | None
) -> Tensor:
    numbers = [g.tensor(n) for n in (start, end, step)]
    usual = "float32" if any(dtype_of(n) == "float32" for n in numbers) else "int64"
    name = usual if dtype is None else dtype

    def range_of(start: Array, end: Array, step: Array) -> Array:
        first, stop, each = (a.item() for a in (start, end, step))
        bounded((max(0, math.ceil((stop - first) / each)),))
        found: Array = np.arange(first, stop, each)
        return found.astype("float32" if name in FLOATING else name)

    return g.fold(range_of, numbers)[0]


@aten_op("arange")
def arange(g: TorchBuilder, end: Any, *, dtype: str | None = None) -> Tensor:
    """Return whole numbers from zero."""
    return _stepped(g, 0, end, 1, dtype)


@aten_op("arange.start")
def arange_start(
    g: TorchBuilder, start: Any, end: Any, *, dtype: str | None = None
) -> Tensor:
    """Return numbers a distance of one apart."""
    return _stepped(g, start, end, 1, dtype)


@aten_op("arange.start_step")
def arange_start_step(
    g: TorchBuilder, start: Any, end: Any, step: Any = 1, *, dtype: str | None = None
) -> Tensor:
    """Return numbers at equal distances."""
    return _stepped(g, start, end, step, dtype)


@aten_op("linspace")
def linspace(
    g: TorchBuilder, start: Any, end: Any, steps: int, *, dtype: str | None = None
) -> Tensor:
    """Return numbers at equal distances, both ends included."""
    bounded((steps,))
    steady: Array = np.linspace(start, end, steps)
    return converted(g, g.constant(steady), dtype or "float32")


@aten_op("eye")
def eye(g: TorchBuilder, n: int, *, dtype: str | None = None) -> Tensor:
    """Return ones on a diagonal."""
    bounded((n, n))
    return converted(g, g.constant(np.eye(n)), dtype or "float32")


@aten_op("tril")
def tril(g: TorchBuilder, self: Tensor, diagonal: int = 0) -> Tensor:
    """Keep the lower triangle of matrices."""
    return _triangle(g, self, diagonal, upper=False)


@aten_op("triu")
def triu(g: TorchBuilder, self: Tensor, diagonal: int = 0) -> Tensor:
    """Keep the upper triangle of matrices."""
    return _triangle(g, self, diagonal, upper=True)


def _triangle(g: TorchBuilder, x: Tensor, diagonal: int, *, upper: bool) -> Tensor:
    if isinstance(x, Value):
        shift = g.constant(np.array(diagonal))
        return data.Trilu(g, x, shift, upper=int(upper))
    assert isinstance(x, Constant)
    return x.map(lambda a: np.triu(a, diagonal) if upper else np.tril(a, diagonal))


def number(g: TorchBuilder, dim: tuple[int, ...]) -> Number:
    """Return a size as a number to compute with."""
    return Number(tuple(np.array(n) for n in dim))


@aten_op("sym_size.int")
def sym_size(g: TorchBuilder, self: Tensor, dim: int) -> Number:
    """Return a size."""
    if g.loose(self):
        raise UnsupportedModelError("it asks for a size that depends on the values")
    return number(g, self.shape[g.axis(dim, self.rank)])


@aten_op("sym_numel", "numel")
def sym_numel(g: TorchBuilder, self: Tensor) -> Number:
    """Return the number of elements."""
    return number(g, g.product(self.shape))


ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "truediv": operator.truediv,
    "mod": operator.mod,
    "pow": operator.pow,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "and_": operator.and_,
    "or_": operator.or_,
}
"""What programs compute sizes with."""


def _computed(function: Callable[..., Any], *operands: Any) -> Number:
    columns = [x.arrays if isinstance(x, Constant) else None for x in operands]
    bindings = next(len(c) for c in columns if c is not None)
    rows = zip(
        *(
            [x] * bindings if c is None else [a.item() for a in c]
            for x, c in zip(operands, columns, strict=True)
        ),
        strict=True,
    )
    return Number(tuple(np.array(function(*row)) for row in rows))


def _register_arithmetic(name: str, function: Callable[..., Any]) -> None:
    @aten_op(f"_operator.{name}")
    def arithmetic(g: TorchBuilder, a: Any, b: Any) -> Number:
        if not isinstance(a, Constant) and not isinstance(b, Constant):
            a = number(g, g.dim(a)) if isinstance(a, int) else a
        return _computed(function, a, b)


def _register_rounding(name: str, function: Callable[..., Any]) -> None:
    @aten_op(name)
    def rounding(g: TorchBuilder, a: Any) -> Any:
        return _computed(function, a) if isinstance(a, Constant) else function(a)


for _name, _function in ARITHMETIC.items():
    _register_arithmetic(_name, _function)
for _name, _function in (
    ("math.trunc", math.trunc),
    ("math.floor", math.floor),
    ("math.ceil", math.ceil),
    ("_operator.neg", operator.neg),
    ("torch.sym_float", float),
    ("torch.sym_int", int),
    ("torch.sym_not", operator.not_),
):
    _register_rounding(_name, _function)


def _register_choice(name: str, function: Callable[..., Any]) -> None:
    @aten_op(name)
    def choice(g: TorchBuilder, a: Any, b: Any) -> Number:
        return _computed(function, a, b)


_register_choice("torch.sym_max", max)
_register_choice("torch.sym_min", min)


@aten_op("item", "_local_scalar_dense")
def item(g: TorchBuilder, self: Tensor) -> Number:
    """Return a number of a tensor, which must be known."""
    if not isinstance(self, Constant):
        raise UnsupportedModelError("it asks for a value of the input")
    return Number(tuple(a.reshape(()) for a in self.arrays))


@aten_op("one_hot")
def one_hot(g: TorchBuilder, self: Tensor, num_classes: int = -1) -> Tensor:
    """Make a vector for each index."""
    return g.apply(ops.OneHot(num_classes, self.rank, 0.0, 1.0, "int64"), self)
