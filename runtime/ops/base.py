"""What an operator is."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, ClassVar, cast

import numpy as np

from ..errors import DTypeError, GraphError, ShapeError
from ..lowering import NOTHING as NOTHING
from ..lowering import Epilogue as Epilogue
from ..lowering import Lowering as Lowering
from ..record import Record, record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import Halo, View
from ..window import Window, checked_padding, checked_sizes


@record
class Op(Record):
    """An operator: its attributes are its fields, its meaning is `reference`.

    A subclass with fields of its own is a record too. Its class name is its
    name in model files and its fields are its attributes there, so a file needs no
    other schema. The operands are the parameters of `infer` and `reference`, in order;
    a graph may give any of them as a weight, by name, or as the value of another node.
    """

    registry: ClassVar[dict[str, type[Op]]] = {}
    version: ClassVar[int] = 1
    added: ClassVar[dict[str, tuple[int, Any]]] = {}
    """Fields that came later: the version that brought them, what it meant before."""
    fuses: ClassVar[bool] = False
    """Whether `lower` honours an epilogue."""
    dynamic: ClassVar[bool] = False
    """Whether the result's size depends on the values, not only on the shapes.

    `infer` then returns the largest size there can be. Such an operator, and whatever
    reads its result, is computed by `reference` in NumPy after the planned run.
    """
    weights: ClassVar[tuple[str, ...]] = ()
    """Operands that must be weights, because `lower` packs them."""
    linear: ClassVar[bool] = False
    """Whether the result is a product with `kernel`, to which `bias` is added."""

    def __init_subclass__(cls, abstract: bool = False) -> None:
        if not abstract:
            Op.registry[cls.__name__] = cls

    def open_axes(self) -> tuple[int | None, ...]:
        """Return of each output the axis whose size depends on the values, or None."""
        return ()

    def infer(self, *inputs: Any, **_: Any) -> Any:
        """Return the output's spec, or a tuple of them; raise `ShapeError`."""
        raise NotImplementedError

    def reference(self, *inputs: Any, **_: Any) -> Any:
        """Return the output in plain NumPy, in the inputs' own precision."""
        raise NotImplementedError

    def lower(self, *operands: Any, **_: Any) -> list[Step]:
        """Return the compiled steps that write `out`.

        The signature is ``lower(low, out, *inputs)``; with ``epilogue=NOTHING`` behind
        the inputs where `fuses`.

        Parameters
        ----------
        low : Lowering
            The plan's services.
        out : View or tuple of View
            Where the result goes; every stride is allowed but the last axis is dense.
        *inputs : View, Array or None
            The operands in order: a view for a value, an array for a weight, None for
            an operand left out.
        epilogue : Epilogue
            What is done to the result, in the same pass.
        """
        raise NotImplementedError

    def view(self, x: View) -> Any:
        """Return the output as a view of the first input, or None if it needs work."""
        return None

    def views_into(self, out: View, *inputs: Any, **_: Any) -> tuple[View, ...] | None:
        """Return where in `out` each input could be written at once, or None."""
        return None

    def halo(self, *inputs: Any, **_: Any) -> Halo:
        """Return the zeros that `lower` wants around its first input; () for none."""
        return ()

    def multiply_adds(self, *specs: Any, **_: Any) -> int:
        """Return the multiply-adds, given the specs of output and operands."""
        return 0

    def window(self, *inputs: Any, **_: Any) -> Window | None:
        """Return the sliding window over the first input; None for other operators."""
        return None

    def scaled(self, kernel: Array, scale: Array) -> Any:
        """Return the kernel for outputs `scale` times as large; for `linear` operators.

        Parameters
        ----------
        kernel : Array
            The operand of that name.
        scale : Array
            Of each output channel, float64.

        Returns
        -------
        Array or ScaledKernel
            The latter where `lower` reads nothing of it but its shape before packing.
        """
        return (kernel * scale).astype(np.float32)

    def changes_nothing(self, x: Spec) -> bool:
        """Return whether the output is the input, whatever its numbers are."""
        return False

    def attributes(self) -> dict[str, Any]:
        """Return the fields as a model file stores them."""
        return dataclasses.asdict(cast(Any, self))

    @classmethod
    def from_attributes(cls, attributes: dict[str, Any]) -> Op:
        """Build the operator from `attributes`, checked strictly.

        Raises
        ------
        GraphError
            On a name that is no field, a missing field or a value of another type.
        """
        fields = {f.name: f for f in dataclasses.fields(cast(Any, cls))}
        unknown = attributes.keys() - fields.keys()
        missing = fields.keys() - attributes.keys()
        if unknown or missing:
            raise GraphError(
                f"{cls.__name__}: unknown attributes {sorted(unknown)}, "
                f"missing {sorted(missing)}; wanted {sorted(fields)}"
            )
        values = {name: _frozen(value) for name, value in attributes.items()}
        try:
            op = cls(**values)
        except (TypeError, ValueError) as error:
            raise GraphError(f"{cls.__name__}: {error}") from error
        return op


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def operand_names(kind: type[Op]) -> tuple[str, ...]:
    """Return the names of an operator's operands; a variadic one starts with ``*``."""
    return _names(kind.infer)


def required_operands(kind: type[Op]) -> tuple[str, ...]:
    """Return the operands that have no default."""
    return tuple(
        p.name
        for p in _operands(kind.infer)
        if p.default is inspect.Parameter.empty
        and p.kind is not inspect.Parameter.VAR_POSITIONAL
    )


@cache
def _names(infer: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(
        "*" + p.name if p.kind is inspect.Parameter.VAR_POSITIONAL else p.name
        for p in _operands(infer)
    )


@cache
def _operands(infer: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    return tuple(inspect.signature(infer).parameters.values())[1:]


def checked_fields(
    op: Op,
    numbers: Sequence[str] = (),
    truths: Sequence[str] = (),
    several: Sequence[str] = (),
) -> None:
    """Check that fields are whole numbers, truth values or several whole numbers.

    The last ones are made tuples.

    Raises
    ------
    ValueError
        If one is something else.
    """
    for name in numbers:
        value = getattr(op, name)
        if not _whole(value):
            raise ValueError(f"{name} {value!r}, wanted a whole number")
    for name in truths:
        value = getattr(op, name)
        if not isinstance(value, bool):
            raise ValueError(f"{name} {value!r}, wanted true or false")
    for name in several:
        values = tuple(getattr(op, name))
        if not all(map(_whole, values)):
            raise ValueError(f"{name} {values}, wanted whole numbers")
        object.__setattr__(op, name, values)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def finite_fields(op: Any, *names: str) -> None:
    """Make fields of a frozen operator floats; raise `ValueError` if not finite."""
    for name in names:
        value = getattr(op, name)
        if isinstance(value, bool) or not math.isfinite(value):
            raise ValueError(f"{name} {value!r}, wanted a finite number")
        object.__setattr__(op, name, float(value))


def checked_window(op: Op, *counts: str) -> None:
    """Check stride, dilation and padding, and fields that are one number from 1 on.

    Raises
    ------
    ValueError
        If one makes no sense.
    """
    for name in ("stride", "dilation"):
        object.__setattr__(op, name, checked_sizes(getattr(op, name), name))
    padding = checked_padding(getattr(op, "padding", None), type(op).__name__)
    object.__setattr__(op, "padding", padding)
    for name in counts:
        (count,) = checked_sizes(getattr(op, name), name)
        object.__setattr__(op, name, count)


def require(condition: bool, message: str) -> None:
    """Raise `ShapeError` with `message` unless `condition` holds."""
    if not condition:
        raise ShapeError(message)


def require_bias(name: str, bias: Spec | None, outputs: int) -> None:
    """Raise `ShapeError` unless a bias is left out or has a number for each output."""
    if bias is not None and bias.shape != (outputs,):
        raise ShapeError(f"{name}: bias {shape_text(bias.shape)}, wanted ({outputs},)")


def require_float32(name: str, *operands: Spec) -> None:
    """Raise `DTypeError` unless every operand is float32."""
    for operand in operands:
        if operand.dtype != "float32":
            raise DTypeError(f"{name}: found {operand}, wanted float32")


def require_image(name: str, x: Spec) -> None:
    """Raise `ShapeError` unless `x` is (N, spatial..., C) with one to three axes."""
    if not 3 <= x.rank <= 5 or 0 in x.shape:
        raise ShapeError(
            f"{name} wants a non-empty (N, L, C), (N, H, W, C) or (N, D, H, W, C), "
            f"found {shape_text(x.shape)}"
        )


def as_view(low: Lowering, operand: View | Array) -> View:
    """Return an operand as a view; a weight becomes a constant."""
    return operand if isinstance(operand, View) else low.constant(operand)


def normal_axis(axis: int, rank: int, name: str) -> int:
    """Return `axis` counted from the front; raise `ShapeError` if out of range."""
    require(
        -rank <= axis < rank,
        f"{name}: axis {axis} is outside a tensor of rank {rank}",
    )
    return axis % rank


def normal_axes(axes: Shape, rank: int, name: str) -> Shape:
    """Return axes counted from the front, in order.

    Raises
    ------
    ShapeError
        If one is out of range, or there twice.
    """
    found = sorted(normal_axis(axis, rank, name) for axis in axes)
    require(len(set(found)) == len(found), f"{name}: axes {axes} repeat one")
    return tuple(found)


def reduced_shape(shape: Shape, axes: Shape, keepdims: bool) -> Shape:
    """Return a shape with axes of size one, or without them."""
    if keepdims:
        return tuple(1 if a in axes else n for a, n in enumerate(shape))
    return tuple(n for a, n in enumerate(shape) if a not in axes)


def per_axis(setting: Sequence[int], rank: int, name: str) -> Shape:
    """Return a setting for each of `rank` spatial axes; one number serves them all."""
    values = tuple(setting)
    if len(values) == 1:
        return values * rank
    require(
        len(values) == rank,
        f"{name} has {len(values)} numbers {values}, wanted 1 or {rank}",
    )
    return values


def product(shape: Shape) -> int:
    """Return the number of elements of a shape."""
    return math.prod(shape)
