"""Which function converts which ATen operator, and what it may ask for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.tools.conversion import Function, Handler, Registry
from striate.tools.from_onnx.registry import OnnxBuilder
from striate.tools.layout import Constant, Dim, Tensor, Value

FLOATING = ("float16", "bfloat16", "float32", "float64")
"""Element types that are computed as float32."""

RANKS = {"bool": 0, "uint8": 1, "int8": 2, "int16": 3, "int32": 4, "int64": 5}
"""The order in which element types give way to others, whole numbers."""

NEWEST = 26
"""The version of ONNX's operators whose meaning is ATen's."""

PLACEMENT = frozenset(
    ("layout", "device", "pin_memory", "memory_format", "non_blocking", "copy")
)
"""Keywords that say where a result lies and how it gets there; that is decided here."""

aten = Registry()


def aten_op(*operators: str) -> Callable[[Function], Function]:
    """Register a function as the meaning of ATen operators.

    Its parameters after the first are the operators' own, with their names and
    defaults, so that it serves for their schemas too; the keywords of `PLACEMENT` are
    left out.

    Parameters
    ----------
    *operators : str
        With their overloads, ``"add.Tensor"``; without one it is ``default``.
    """
    return aten.register(*(op if "." in op else f"{op}.default" for op in operators))


def find_handler(target: str) -> Handler | None:
    """Return the function for an operator or, if it works in place, for its like."""
    found = aten.find(target)
    if found is None and target.split(".")[0].endswith("_"):
        found = aten.find(target.replace("_.", ".", 1))
    return found


def call(
    handler: Handler, g: TorchBuilder, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Call a handler with an operator's arguments.

    Raises
    ------
    UnsupportedModelError
        On an argument that the function does not know, or one it lacks.
    """
    signature = inspect.signature(handler)
    unread = PLACEMENT - signature.parameters.keys()
    known = {name: value for name, value in kwargs.items() if name not in unread}
    try:
        bound = signature.bind(g, *args, **known)
    except TypeError as error:
        raise UnsupportedModelError(str(error)) from None
    return handler(*bound.args, **bound.kwargs)


@dataclass(frozen=True)
class Number(Constant):
    """A number that is no tensor: a size, or what is computed from sizes."""


class TorchBuilder(OnnxBuilder):
    """A `Builder` with what ATen operators need to know.

    Parameters
    ----------
    symbols : dict
        As for `Builder`.
    batch : int, optional
        The batch size that the program fixes and that is left open all the same.

    Attributes
    ----------
    pooled : dict
        Of the indices of a max pooling: those that count over the whole tensor, and
        the size of what was pooled.
    """

    def __init__(
        self, symbols: Mapping[str, tuple[int, int]], batch: int | None = None
    ) -> None:
        super().__init__(symbols, NEWEST, batch)
        self.pooled: dict[str, tuple[Tensor, tuple[Dim, ...]]] = {}

    def tensor(self, x: Any, like: Tensor | None = None) -> Tensor:
        """Return a number as a tensor of no axes, of `like`'s type if that fits."""
        if isinstance(x, Tensor):
            return x
        dtype = "bool" if isinstance(x, bool) else "int64"
        if isinstance(x, float):
            dtype = "float32"
        if like is not None and kind(dtype_of(like)) >= kind(dtype):
            dtype = dtype_of(like)
        return self.constant(np.array(x, dtype))

    def _constant(self, x: Constant) -> str:
        return super()._constant(x) if x.fixed else self._name(self._batched(x))

    def _batched(self, x: Constant) -> Tensor:
        """Return a constant that is the same for each of a batch as a value."""
        grown = [axis for axis, dim in enumerate(x.shape) if len(set(dim)) > 1]
        firsts = [a.take([0], grown[0]) if grown else a for a in x.arrays]
        if (
            [x.shape[axis] for axis in grown] != [self.batch_size]
            or not Constant(tuple(firsts)).fixed
            or any((a != f).any() for a, f in zip(x.arrays, firsts, strict=True))
        ):
            raise UnsupportedModelError("a constant depends on the sizes of the input")
        first = self.constant(firsts[0])
        zeros = self.cast(self._batch_of_false(x.rank, grown[0]), dtype_of(first))
        join = ops.Or() if dtype_of(first) == "bool" else ops.Add()
        return self.combine(join, zeros, first)

    def _batch_of_false(self, rank: int, axis: int) -> Tensor:
        """Return false for each of a batch, with all other axes of size one."""
        key = next(key for key, shape in self.inputs.items() if "N" in shape)
        shape = self.inputs[key]
        others = tuple(i for i, size in enumerate(shape) if size != "N")
        x: Tensor = self._value(key, self._specs[key])
        if others:
            ones = (1,) * len(others)
            x = self.apply(ops.Slice((0,) * len(others), ones, others, ones), x)
        sizes = [(1,) * self.bindings] * rank
        sizes[axis] = self.batch_size
        return self.reshape(self.combine(ops.Greater(), x, x), sizes)

    def dims(self, sizes: Any) -> tuple[Dim, ...]:
        """Return sizes, each a number or a `Number`, under each binding."""
        return tuple(self.dim(size) for size in sizes)

    def dim(self, size: Any) -> Dim:
        """Return a size under each binding."""
        if isinstance(size, Constant):
            return tuple(int(array) for array in size.arrays)
        if isinstance(size, Value):
            raise UnsupportedModelError("a size depends on the values of the input")
        return (int(size),) * self.bindings

    def sizes(self, dims: Sequence[Dim]) -> Constant:
        """Return sizes as a constant of whole numbers."""
        return Constant(
            tuple(
                np.array([dim[binding] for dim in dims], np.int64)
                for binding in range(self.bindings)
            )
        )


def dtype_of(x: Tensor) -> str:
    """Return the element type of a tensor, float32 for all that are computed so."""
    if isinstance(x, Value):
        return x.dtype
    assert isinstance(x, Constant)
    dtype = str(x.arrays[0].dtype)
    return "float32" if dtype in FLOATING else dtype


def kind(dtype: str) -> int:
    """Return 0 for truth values, 1 for whole numbers, 2 for others."""
    return 2 if dtype in FLOATING else int(dtype != "bool")


def promoted(g: TorchBuilder, x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Return two operands with the element type their combination has in PyTorch."""
    x = g.tensor(x, y if isinstance(y, Tensor) else None)
    y = g.tensor(y, x)
    dtypes = dtype_of(x), dtype_of(y)
    if dtypes[0] == dtypes[1]:
        return x, y
    kinds = [(kind(d), bool(t.rank)) for d, t in zip(dtypes, (x, y), strict=True)]
    if kinds[0][0] == kinds[1][0] and kinds[0][1] != kinds[1][1]:
        wanted = dtypes[0] if kinds[0][1] else dtypes[1]
    else:
        wanted = max(dtypes, key=lambda d: (kind(d), RANKS.get(d, 6)))
    return g.cast(x, wanted), g.cast(y, wanted)


def unbatched(
    g: TorchBuilder, x: Tensor, rank: int, function: Callable[[Tensor], Any]
) -> Any:
    """Apply a function of tensors of `rank` axes, also to one that lacks the batch."""
    if x.rank == rank:
        return function(x)
    if x.rank != rank - 1:
        raise UnsupportedModelError(f"its input has rank {x.rank}, wanted {rank}")
    found = function(g.expanded(x, rank))
    if isinstance(found, tuple):
        return tuple(g.reshape(y, y.shape[1:]) for y in found)
    return g.reshape(found, found.shape[1:])
