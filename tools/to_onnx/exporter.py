"""An ONNX graph under construction, and which function exports which operator.

Every value of a striate graph is channels-last. ONNX's operators want images
channels-first, so a `Tensor` remembers in which order its axes lie. It is put in
another order only when a reader needs that, once for all readers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from striate import Spec
from striate.errors import UnsupportedModelError
from striate.spec import Array, Shape

Handler = Callable[..., Any]

Function = TypeVar("Function", bound=Handler)

_handlers: dict[str, Handler] = {}


def exports(*names: str) -> Callable[[Function], Function]:
    """Register a function as the export of the operators of these names.

    The function gets an `Exporter`, the operator and its operands, `Tensor` or None;
    it returns a `Placed` for each output.
    """

    def register(handler: Function) -> Function:
        for name in names:
            _handlers[name] = handler
        return handler

    return register


def find_handler(name: str) -> Handler | None:
    """Return the function that exports an operator, or None."""
    return _handlers.get(name)


def channels_first(rank: int) -> Shape:
    """Return the axes of a channels-last tensor in channels-first order."""
    return (0, rank - 1, *range(1, rank - 1)) if rank > 2 else tuple(range(rank))


def in_order(rank: int) -> Shape:
    """Return the axes of a tensor in their own order."""
    return tuple(range(rank))


@dataclass(frozen=True)
class Placed:
    """An ONNX value; its axis i is axis ``axes[i]`` of the striate value."""

    name: str
    axes: Shape


@dataclass(frozen=True)
class Tensor:
    """An operand: a value or a weight.

    Parameters
    ----------
    name : str
        What ONNX calls it; of a weight, what striate does.
    axes : tuple of int
        Its axis i there is axis ``axes[i]`` here.
    spec : Spec
        Shape, channels-last, and element type.
    open : tuple of bool
        Which sizes each run may choose; the shape then has an example.
    array : Array, optional
        What it holds, if that is known, channels-last.
    """

    name: str
    axes: Shape
    spec: Spec
    open: tuple[bool, ...]
    array: Array | None = None

    @property
    def rank(self) -> int:
        """The number of axes."""
        return self.spec.rank

    @property
    def shape(self) -> Shape:
        """The sizes, channels-last."""
        return self.spec.shape

    @property
    def is_image(self) -> bool:
        """Whether ONNX could see an image in it: batch, channels, 1 to 3 axes."""
        return 3 <= self.rank <= 5

    @property
    def is_first(self) -> bool:
        """Whether it lies channels-first."""
        return self.axes == channels_first(self.rank)

    def position(self, axis: int) -> int:
        """Return where an axis lies, which may be given from the back."""
        return self.axes.index(axis % self.rank)

    def sizes(self, axes: Sequence[int] | None = None) -> list[int | None]:
        """Return the sizes as the axes lie, or in the order given; None for open."""
        order = self.axes if axes is None else axes
        return [None if self.open[a] else self.shape[a] for a in order]


@dataclass
class OnnxNode:
    """A node to be."""

    op: str
    inputs: list[str]
    outputs: list[str]
    name: str
    attributes: dict[str, Any]


class Exporter:
    """Nodes and constants, and the layer at work.

    Attributes
    ----------
    site : str
        The layer's name.
    results : tuple of Tensor
        Its values, as they would lie in order.
    only_dense : frozenset of str
        The values that only fully connected layers read.
    rows : dict of str to Array
        For an ONNX value of flattened images: which feature of the striate value each
        of its features is.
    """

    def __init__(self) -> None:
        self.nodes: list[OnnxNode] = []
        self.constants: dict[str, Array] = {}
        self.site = ""
        self.results: tuple[Tensor, ...] = ()
        self.only_dense: frozenset[str] = frozenset()
        self.rows: dict[str, Array] = {}
        self._lying: dict[tuple[str, Shape], str] = {}
        self._count = 0

    def node(
        self, op: str, *inputs: str, outputs: int = 1, name: str = "", **attributes: Any
    ) -> Any:
        """Append a node; return the name of its output, or a tuple of names.

        Parameters
        ----------
        op : str
            ONNX's operator.
        *inputs : str
            Values; ``""`` for one left out.
        outputs : int
            How many.
        name : str
            What to call the output; made up by default.
        **attributes
            Those that are None are left out.
        """
        names = [name or self._fresh() for _ in range(outputs)]
        given = {key: value for key, value in attributes.items() if value is not None}
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        self.nodes.append(OnnxNode(op, list(inputs), names, self.site, given))
        return names[0] if outputs == 1 else tuple(names)

    def constant(self, value: Any, name: str = "", dtype: Any = None) -> str:
        """Return the name of a constant; whole numbers are int64 by default."""
        array = np.asarray(value, dtype)
        if (
            dtype is None
            and array.dtype.kind == "i"
            and not isinstance(value, np.ndarray)
        ):
            array = array.astype(np.int64)
        if not name:
            name = f"constant/{array.dtype}/{'x'.join(map(str, array.shape))}/"
            name += "_".join(map(str, array.reshape(-1)[:8].tolist()))
        plain, count = name, 1
        while name in self.constants:
            held = self.constants[name]
            if held.dtype == array.dtype and np.array_equal(held, array):
                return name
            count += 1
            name = f"{plain}/{count}"
        self.constants[name] = array
        return name

    def weight(self, x: Tensor, array: Array, form: str) -> str:
        """Return the name of a weight that was put in another form."""
        return self.constant(array, f"{x.name}/{form}" if form else x.name)

    def array(self, x: Tensor, what: str) -> Array:
        """Return the weight an operand is; refuse a value."""
        if x.array is None:
            raise UnsupportedModelError(f"{what} is computed, ONNX wants a constant")
        return x.array

    def lying(self, x: Tensor, axes: Sequence[int]) -> str:
        """Return the name of a tensor whose axes lie in the given order."""
        order = tuple(axes)
        if x.array is not None:
            form = "" if order == in_order(x.rank) else _form(order)
            return self.weight(x, x.array.transpose(order), form)
        if x.axes == order:
            return x.name
        perm = tuple(x.axes.index(axis) for axis in order)
        if (x.name, perm) not in self._lying:
            name = f"{x.name}/{_form(order)}"
            here, self.site = self.site, name
            self._lying[x.name, perm] = self.node("Transpose", x.name, perm=perm)
            self.site = here
        return self._lying[x.name, perm]

    def first(self, x: Tensor) -> str:
        """Return the name of an image, channels-first."""
        return self.lying(x, channels_first(x.rank))

    def last(self, x: Tensor) -> str:
        """Return the name of a tensor, channels-last."""
        return self.lying(x, in_order(x.rank))

    def image(self, x: Tensor, name: str) -> Placed:
        """Return an output that lies channels-first, as many axes as `x` has."""
        return Placed(name, channels_first(x.rank))

    def size(self, x: Tensor, axis: int) -> int:
        """Return a size; refuse one that each run may choose."""
        if x.open[axis]:
            raise UnsupportedModelError(
                f"needs to know the size of axis {axis}, which each run may choose"
            )
        return x.shape[axis]

    def reshape(self, name: str, sizes: Sequence[int | None], like: str = "") -> str:
        """Return a value under another shape.

        Parameters
        ----------
        sizes : sequence of int or None
            None for one that is not known; the first is then that of the value.
        like : str
            A value of the wanted shape, if more than one other is not known.
        """
        if sizes[1:].count(None) > 1:
            return str(self.node("Reshape", name, self.node("Shape", like)))
        shape = [-1 if size is None else size for size in sizes]
        if shape[:1] == [-1]:
            shape[0] = 0
        return str(self.node("Reshape", name, self.constant(shape)))

    def aligned(self, *xs: Tensor) -> tuple[list[str], Shape]:
        """Return operands that broadcast together, and how the result's axes lie.

        They are put in the order in which the largest value lies.
        """
        rank = max(x.rank for x in xs)
        full = [x for x in xs if x.rank == rank and x.array is None]
        axes = max(full, key=lambda x: x.spec.size).axes if full else in_order(rank)
        return [self._spread(x, rank, axes) for x in xs], axes

    def _spread(self, x: Tensor, rank: int, axes: Shape) -> str:
        added = rank - x.rank
        if added == 0:
            return self.lying(x, axes)
        if x.rank == 0 or axes == in_order(rank):
            return self.last(x)
        shape = (1,) * added + x.shape
        spec = Spec(shape, x.spec.dtype)
        if x.array is not None:
            name = f"{x.name}/{'x'.join(map(str, shape))}"
            wide = replace(x, spec=spec, array=x.array.reshape(shape), name=name)
            return self.lying(wide, axes)
        name = self.node("Unsqueeze", self.last(x), self.constant(list(range(added))))
        opened = (False,) * added + x.open
        return self.lying(Tensor(name, in_order(rank), spec, opened), axes)

    def _fresh(self) -> str:
        self._count += 1
        return f"{self.site}/{self._count}"


def _form(axes: Shape) -> str:
    """Return a word for an order of axes."""
    if axes == in_order(len(axes)):
        return "channels_last"
    if axes == channels_first(len(axes)):
        return "channels_first"
    return "axes_" + "_".join(map(str, axes))
