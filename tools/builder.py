"""Graphs built from operators in a source's axis order.

A convolution asks for ``x.channels_last()`` and answers ``y.channels_first()``, so
between two convolutions nothing moves. A layer is added only when an operator needs its
operands in an order in which they do not lie:

- Flattening an image joins (C, H, W) of an array that lies (H, W, C). A matrix product
  takes its features in whatever order they lie and permutes its rows instead.
- ShuffleNet's reshape, transpose, reshape become one `ChannelShuffle` when the next
  convolution asks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from typing import Any

import numpy as np
from striate import Graph, ops
from striate.errors import UnsupportedModelError
from striate.graph import Node
from striate.ops.base import operand_names
from striate.spec import Array, Spec, spec_of
from striate.tools.layout import (
    Atom,
    Axis,
    Constant,
    Dim,
    Tensor,
    Value,
    inverse,
    last,
    sized,
)

LARGEST = 1 << 28
"""The most elements a constant computed during conversion may have."""

MOST = 1 << 31
"""The most elements that what an operator computes may have."""

FLOATS = ("float32", "float16", "bfloat16", "float64")
"""Element types that are computed in float32."""

DTYPES = ("float32", "int64", "int32", "int8", "uint8", "bool")
"""Element types of values."""

CARRYING = (
    ops.Binary,
    ops.Reduction,
    ops.And,
    ops.ArgMax,
    ops.ArgMin,
    ops.BitwiseAnd,
    ops.BitwiseNot,
    ops.BitwiseOr,
    ops.BitwiseXor,
    ops.Cast,
    ops.Compress,
    ops.Concat,
    ops.Constant,
    ops.ConvInteger,
    ops.CumSum,
    ops.DequantizeLinear,
    ops.Equal,
    ops.Expand,
    ops.EyeLike,
    ops.Flatten,
    ops.GRU,
    ops.Gather,
    ops.GatherElements,
    ops.GatherND,
    ops.Greater,
    ops.GreaterOrEqual,
    ops.Identity,
    ops.IsInf,
    ops.IsNaN,
    ops.LSTM,
    ops.Less,
    ops.LessOrEqual,
    ops.MatMulInteger,
    ops.MaxUnpool,
    ops.NonZero,
    ops.Not,
    ops.OneHot,
    ops.Or,
    ops.Pad,
    ops.QLinearConv,
    ops.QLinearMatMul,
    ops.QuantizeLinear,
    ops.RNN,
    ops.Reshape,
    ops.ReverseSequence,
    ops.RoiAlign,
    ops.ScatterElements,
    ops.ScatterND,
    ops.Slice,
    ops.Split,
    ops.Tile,
    ops.TopK,
    ops.Transpose,
    ops.Trilu,
    ops.Unique,
    ops.Where,
    ops.Xor,
)
"""Operators of more than float32, which say themselves what they do not take."""

LOOSE = (
    ops.Binary,
    ops.Elementwise,
    ops.Cast,
    ops.Concat,
    ops.Equal,
    ops.Expand,
    ops.Flatten,
    ops.Gather,
    ops.GatherElements,
    ops.GatherND,
    ops.Greater,
    ops.GreaterOrEqual,
    ops.Identity,
    ops.Less,
    ops.LessOrEqual,
    ops.Pad,
    ops.Reshape,
    ops.Slice,
    ops.Split,
    ops.Tile,
    ops.Transpose,
    ops.Where,
)
"""What may read a tensor whose size depends on the values: it moves or maps elements.

It is computed by its reference, which for a convolution would be far too slow.
"""

FOUND = "the values"
"""What stands among the symbols for every size that depends on the values."""


SETTLING = (ops.ScatterND, ops.ScatterElements)
"""Operators whose result is as large as their first operand is."""


def computed_dtype(dtype: str) -> str:
    """Return the element type in which numbers of another are computed.

    Raises
    ------
    UnsupportedModelError
        If there is none.
    """
    if dtype in FLOATS:
        return "float32"
    if dtype not in DTYPES:
        raise UnsupportedModelError(f"there are no {dtype} values")
    return dtype


class Builder:
    """Builds a graph from operators in a source's axis order.

    Parameters
    ----------
    symbols : dict
        Two sizes to try for each symbol, the second different from all others.

    Attributes
    ----------
    site : str
        The layer of the source that is being converted, for names and reports.
    transposes : list of dict
        The transposes that were necessary: value, axes and the layer that asked.
    notes : list of str
        What a user should know of the conversion.
    names : dict of str to str
        What the graph calls each value, once it is built.
    """

    def __init__(self, symbols: Mapping[str, tuple[int, int]]) -> None:
        self.symbols = (*symbols, FOUND)
        base = {symbol: sizes[0] for symbol, sizes in symbols.items()}
        self.bound = [base] + [{**base, s: symbols[s][1]} for s in symbols] + [base]
        self.site = ""
        self.transposes: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.names: dict[str, str] = {}
        self.inputs: dict[str, tuple[int | str, ...]] = {}
        self.outputs: list[str] = []
        self.nodes: list[Node] = []
        self._keys = count()
        self._specs: dict[str, tuple[Spec, ...]] = {}
        self._weights: dict[str, Array] = {}
        self._arranged: dict[tuple[str, tuple[Axis, ...]], str] = {}
        self._wanted: dict[str, str] = {}
        self._sites: dict[str, str] = {}
        self._makers: dict[str, Node] = {}
        self._dtypes: dict[str, str] = {}
        self._loose: set[str] = set()
        self._found = count(1)

    @property
    def bindings(self) -> int:
        """How many bindings of the symbols there are."""
        return len(self.bound)

    def product(self, dims: Sequence[Dim]) -> Dim:
        """Return the number of elements of a shape."""
        return tuple(math.prod(dim[b] for dim in dims) for b in range(self.bindings))

    def note(self, text: str) -> None:
        """Tell the user something, once."""
        if text not in self.notes:
            self.notes.append(text)

    def constant(self, array: Array) -> Constant:
        """Return a constant that is the same under every binding."""
        return Constant((array,) * self.bindings)

    def fixed(self, dim: Dim, what: str) -> int:
        """Return a size that must not depend on a symbol.

        Raises
        ------
        UnsupportedModelError
            If it does; the message names the symbol.
        """
        if any(n != dim[0] for n in dim):
            raise UnsupportedModelError(f"{what} depends on {self.culprit(dim)}")
        return dim[0]

    def culprit(self, dim: Dim) -> str:
        """Return what a size depends on, for a message; the batch if nothing else."""
        found = [s for s, n in zip(self.symbols, dim[1:], strict=True) if n != dim[0]]
        found = [symbol for symbol in found if symbol != "N"] or found
        return ", ".join(map(_described, found))

    def array(self, x: Tensor | None, what: str) -> Array:
        """Return the value of a constant.

        Raises
        ------
        UnsupportedModelError
            If `x` is computed by the network, or differs between bindings.
        """
        if not isinstance(x, Constant):
            raise UnsupportedModelError(f"{what} is computed, wanted a constant")
        if not x.fixed:
            for symbol, array in zip(self.symbols, x.arrays[1:], strict=True):
                if not np.array_equal(array, x.arrays[0]):
                    raise UnsupportedModelError(
                        f"{what} depends on {_described(symbol)}"
                    )
        return x.arrays[0]

    def optional(self, x: Tensor | None, what: str) -> Array | None:
        """Return the value of a constant, None if it is left out."""
        return None if x is None else self.array(x, what)

    def input(
        self,
        name: str,
        shape: Sequence[int | str],
        stored: Sequence[int],
        dtype: str = "float32",
    ) -> Value:
        """Declare an input and return it as the source sees it.

        Parameters
        ----------
        name : str
            Its name in the graph.
        shape : sequence of int or str
            Its shape in the source.
        stored : sequence of int
            The source's axes in the order the graph has them.
        dtype : str
            Element type.
        """
        key = self._fresh()
        self.inputs[key] = tuple(shape[axis] for axis in stored)
        self._wanted[key] = name
        dtype = computed_dtype(dtype)
        self._dtypes[key] = dtype
        self._specs[key] = tuple(
            Spec(
                tuple(b[s] if isinstance(s, str) else s for s in self.inputs[key]),
                dtype,
            )
            for b in self.bound
        )
        return self._value(key, self._specs[key]).transpose(inverse(stored))

    def loose(self, x: Tensor) -> bool:
        """Return whether the size of a tensor depends on the values of others."""
        return isinstance(x, Value) and x.name in self._loose

    def number(self, number: float) -> Constant:
        """Return a constant of one number."""
        return self.constant(np.array(number, np.float32))

    def apply(self, op: ops.Op, /, *tensors: Tensor, **weights: Array | None) -> Tensor:
        """Apply an operator of one output to tensors in the axis order they show.

        Parameters
        ----------
        op : Op
            The operator.
        *tensors : Tensor
            The operands no weight fills. If all are constants the result is one.
        **weights : Array
            Weights by operand name; None for one left out.

        Returns
        -------
        Tensor
            In the operator's own axis order.
        """
        return self.split(op, *tensors, outputs=1, **weights)[0]

    def permuted(
        self, op: ops.Op, x: Tensor, order: Sequence[int], **weights: Array | None
    ) -> Tensor:
        """Apply an operator to a tensor with its axes in that order; put them back."""
        return self.apply(op, x.transpose(order), **weights).transpose(inverse(order))

    def split(
        self, op: ops.Op, /, *tensors: Tensor, outputs: int, **operands: Array | None
    ) -> tuple[Tensor, ...]:
        """Apply an operator of several outputs, otherwise as `apply`."""
        weights = {k: w for k, w in operands.items() if w is not None}
        if all(isinstance(x, Constant) for x in tensors):
            return self._fold(op, tensors, outputs, weights)
        names = [self._name(x) for x in tensors]
        if not isinstance(op, CARRYING):
            other = [self._specs[n][0].dtype for n in names]
            other += [str(w.dtype) for w in weights.values()]
            for dtype in other:
                if dtype not in FLOATS:
                    raise UnsupportedModelError(f"it computes with {dtype} values")
        sizing = names[:1] if isinstance(op, SETTLING) else names
        loose = op.dynamic or any(name in self._loose for name in sizing)
        if loose and not op.dynamic and not isinstance(op, LOOSE):
            raise UnsupportedModelError(
                "it reads a tensor whose size depends on the values"
            )
        key = self._fresh()
        keys = tuple(self._fresh() for _ in range(outputs)) if outputs > 1 else (key,)
        params = {k: self._weight(w) for k, w in weights.items()}
        node = Node(key, op, tuple(names), params, keys)
        results = self._inferred(node)
        self.nodes.append(node)
        self._sites[key] = self.site
        if loose:
            self._loose.update(keys)
        values = []
        for value, specs in zip(keys, zip(*results, strict=True), strict=True):
            self._specs[value] = specs
            self._makers[value] = node
            values.append(self._value(value, specs))
        return tuple(values)

    def _inferred(self, node: Node) -> list[tuple[Spec, ...]]:
        """Return the specs of a node's outputs under each binding."""
        done: dict[tuple[Spec | None, ...], tuple[Spec, ...]] = {}
        results = []
        for binding in range(self.bindings):
            operands = tuple(
                None
                if name is None
                else self._specs[name][binding]
                if kind == "value"
                else spec_of(self._weights[name])
                for kind, name in node.operands()
            )
            if operands not in done:
                found = node.op.infer(*operands)
                done[operands] = found if isinstance(found, tuple) else (found,)
            results.append(done[operands])
        if node.op.dynamic:
            more = next(self._found)
            results[-1] = tuple(
                spec if axis is None else _larger(spec, axis, more)
                for spec, axis in zip(results[-1], node.op.open_axes(), strict=True)
            )
        return results

    def alike(
        self, op: ops.Op, like: Value, /, *tensors: Tensor, **weights: Array
    ) -> Value:
        """Apply an operator whose result's elements lie as those of `like` do."""
        value = self.apply(op, *tensors, **weights)
        assert isinstance(value, Value)
        return replace(like, name=value.name, dtype=value.dtype)

    def operate(self, op: ops.Op, /, *operands: Tensor | None) -> Tensor:
        """Apply an operator to its operands in order, None for one left out.

        Constants become weights unless there is nothing else.
        """
        return self.operate_split(op, *operands, outputs=1)[0]

    def operate_split(
        self, op: ops.Op, /, *operands: Tensor | None, outputs: int
    ) -> tuple[Tensor, ...]:
        """Apply an operator of several outputs, otherwise as `operate`."""
        named = dict(zip(operand_names(type(op)), operands, strict=False))
        given = {name: x for name, x in named.items() if x is not None}
        free = [x for x in given.values() if isinstance(x, Value)]
        missing = [name for name, x in named.items() if x is None]
        for name in missing:
            later = list(named.values())[list(named).index(name) :]
            if any(isinstance(x, Value) for x in later):
                raise UnsupportedModelError(f"{name} is left out before one computed")
        first = next(iter(given))
        weights = {
            name: self.array(x, name)
            for name, x in given.items()
            if isinstance(x, Constant) and (free or name != first)
        }
        return self.split(op, *(free or (given[first],)), outputs=outputs, **weights)

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        """Return the tensor with another element type."""
        if isinstance(x, Constant):
            return x.map(lambda array: array.astype(dtype))
        assert isinstance(x, Value)
        wanted: Any = dtype
        return x if x.dtype == dtype else self.elementwise(ops.Cast(wanted), x)

    def elementwise(self, op: ops.Op, x: Tensor, /, **constants: Array) -> Tensor:
        """Apply an operator that treats every element alike, wherever it lies.

        Parameters
        ----------
        op : Op
            The operator.
        x : Tensor
            Its operand that is no constant.
        **constants : Array
            The others by name; they broadcast against `x` as the source sees it.
        """
        if isinstance(x, Constant):
            if not constants:
                return x.map(op.reference)
            return self.apply(op, x, **constants)
        assert isinstance(x, Value)
        for name, array in constants.items():
            if not x.fits(array):
                raise UnsupportedModelError(
                    f"{name} of shape {array.shape} does not broadcast to its input"
                )
        if any(map(x.repeats, constants.values())):
            name = self._name(x)
            x = self._value(name, self._specs[name])
        adapted = {name: x.lying(array) for name, array in constants.items()}
        return self.alike(op, x, x.as_stored(), **adapted)

    def combine(self, op: ops.Op, x: Tensor, y: Tensor) -> Tensor:
        """Apply a binary operator with NumPy broadcasting."""
        for one, other, operand in ((x, y, "y"), (y, x, "x")):
            if (
                isinstance(one, Value)
                and isinstance(other, Constant)
                and other.fixed
                and one.fits(other.arrays[0])
            ):
                return self.elementwise(op, one, **{operand: other.arrays[0]})
        if isinstance(x, Constant) and isinstance(y, Constant):
            return self.apply(op, x, y)
        if (
            isinstance(x, Value)
            and isinstance(y, Value)
            and x.structure() == y.structure()
        ):
            return self.alike(op, x, x.as_stored(), y.as_stored())
        rank = max(x.rank, y.rank)
        x, y = (self.expanded(t, rank) for t in (x, y))
        axes = self.order(x, y)
        return self.apply(op, x.transpose(axes), y.transpose(axes)).transpose(
            inverse(axes)
        )

    def expanded(self, x: Tensor, rank: int) -> Tensor:
        """Return the tensor with axes of size one in front up to `rank`."""
        ones = ((1,) * self.bindings,) * (rank - x.rank)
        return self.reshape(x, (*ones, *x.shape))

    def reshape(self, x: Tensor, shape: Sequence[Dim]) -> Tensor:
        """Return the tensor with another shape over the same elements."""
        if isinstance(x, Constant):
            return Constant(
                tuple(
                    array.reshape([dim[binding] for dim in shape])
                    for binding, array in enumerate(x.arrays)
                )
            )
        assert isinstance(x, Value)
        reshaped = x.reshape(shape)
        if reshaped is None:
            op = ops.Reshape(self._shape_attribute(shape, x.shape))
            return self.apply(op, x)
        return reshaped

    def without(self, x: Tensor, axes: Collection[int]) -> Tensor:
        """Return a tensor without some axes of size one."""
        return self.reshape(x, [n for i, n in enumerate(x.shape) if i not in axes])

    def order(self, *tensors: Tensor) -> tuple[int, ...]:
        """Return the axis order in which the fewest elements of the tensors move.

        Channels-last is taken if it is as good as any.
        """
        values = [x for x in tensors if isinstance(x, Value)]
        rank = tensors[0].rank
        candidates = [last(rank), tuple(range(rank))]
        for x in values:
            position = x.position()
            end = len(position)
            candidates.append(
                tuple(
                    sorted(
                        range(rank),
                        key=lambda a: min(
                            (position[p] for p in x.axes[a]), default=end
                        ),
                    )
                )
            )

        def moved(axes: tuple[int, ...]) -> int:
            return sum(
                math.prod(d[0] for d in x.shape) for x in values if not x.lies(axes)
            )

        return min(candidates, key=moved)

    def prefer(self, x: Tensor, name: str) -> None:
        """Ask for the layer of a value to be called `name`; the first wish counts."""
        node = self._makers.get(x.name) if isinstance(x, Value) else None
        if node is not None:
            self._wanted.setdefault(node.name, name)

    def output(self, x: Tensor, name: str) -> None:
        """Declare an output, in the axis order that `x` shows."""
        if isinstance(x, Constant):
            key = self._constant(x)
        else:
            key = self._name(x)
            if key in self.inputs or key in self.outputs:
                key = self._added(ops.Identity(), key)
        self._wanted[key] = name
        self.outputs.append(key)

    def graph(self, name: str) -> Graph:
        """Return what has been built, without what no output needs."""
        needed = set(self.outputs)
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if needed & set(node.outputs):
                needed |= set(node.reads)
                kept.append(node)
        kept.reverse()
        names = self.names = self._names(kept)
        graph = Graph(name)
        for key, shape in self.inputs.items():
            graph.input(names[key], shape, self._dtypes[key])
        tensors: dict[str, str] = {}
        for node in kept:
            added: dict[str, Array] = {}
            for operand, weight in node.params.items():
                if weight not in tensors:
                    tensors[weight] = f"{names[node.name]}/{operand}"
                    added[tensors[weight]] = self._weights[weight]
            graph.append(
                Node(
                    names[node.name],
                    node.op,
                    tuple(names[value] for value in node.inputs),
                    {o: tensors[w] for o, w in node.params.items()},
                    tuple(names[value] for value in node.outputs),
                ),
                added,
            )
        graph.output(*(names[key] for key in self.outputs))
        self.transposes = [
            {
                **entry,
                "layer": names[entry["layer"]],
                "reader": sanitised(entry["reader"]),
            }
            for entry in self.transposes
            if entry["layer"] in needed
        ]
        return graph

    def _names(self, nodes: list[Node]) -> dict[str, str]:
        """Return a final name for every key, as wished where that is possible."""
        names: dict[str, str] = {}
        taken: set[str] = set()

        def settle(key: str, wish: str) -> None:
            if key not in names:
                names[key] = unique(wish, taken)
                taken.add(names[key])

        for key in (*self.inputs, *self.outputs):
            settle(key, self._wanted[key])
        for key in (key for node in nodes for key in (node.name, *node.outputs)):
            if key in self._wanted:
                settle(key, self._wanted[key])
        for node in nodes:
            site = self._sites[node.name]
            kind = type(node.op).__name__.lower()
            settle(node.name, f"{site}.{kind}" if site else kind)
            for index, key in enumerate(node.outputs):
                settle(key, f"{names[node.name]}.{index}")
        return names

    def _fresh(self) -> str:
        return f"v{next(self._keys)}"

    def _value(self, key: str, specs: Sequence[Spec]) -> Value:
        dims = zip(*(spec.shape for spec in specs), strict=True)
        axes = tuple((Atom(dim),) if any(n != 1 for n in dim) else () for dim in dims)
        return Value(key, axes, axes, specs[0].dtype, self.bindings)

    def _name(self, x: Tensor) -> str:
        """Return the value that holds `x` in the axis order it shows."""
        if isinstance(x, Constant):
            return self._constant(x)
        assert isinstance(x, Value)
        name = self._arrange(x.name, x.stored, x.axes)
        if x.label and name != x.name:
            self._wanted.setdefault(name, x.label)
        return name

    def _constant(self, x: Constant) -> str:
        key = self._fresh()
        weight = self._weight(self.array(x, "an operand"))
        self.nodes.append(Node(key, ops.Constant(), (), {"value": weight}))
        self._sites[key] = self.site
        self._specs[key] = (spec_of(self._weights[weight]),) * self.bindings
        return key

    def _weight(self, array: Array) -> str:
        """Keep a weight and return its key."""
        key = f"w{len(self._weights)}"
        dtype = computed_dtype(str(array.dtype))
        self._weights[key] = np.require(array, dtype, ["C", "A"])
        return key

    def _fold(
        self,
        op: ops.Op,
        tensors: tuple[Tensor, ...],
        outputs: int,
        weights: Mapping[str, Array],
    ) -> tuple[Tensor, ...]:
        columns = [x.arrays for x in tensors if isinstance(x, Constant)]
        done: dict[tuple[int, ...], Any] = {}
        results = []
        for arrays in zip(*columns, strict=True):
            key = tuple(map(id, arrays))
            if key not in done:
                named = {k: spec_of(w) for k, w in weights.items()}
                found = op.infer(*(spec_of(a) for a in arrays), **named)
                for spec in found if isinstance(found, tuple) else (found,):
                    bounded(spec.shape)
                done[key] = op.reference(*arrays, **weights)
            results.append(done[key] if outputs > 1 else (done[key],))
        constants = [
            Constant(tuple(map(np.asarray, c))) for c in zip(*results, strict=True)
        ]
        return tuple(constants)

    def _arrange(
        self, name: str, stored: tuple[Axis, ...], target: tuple[Axis, ...]
    ) -> str:
        """Return the value that holds `name` with other axes over the same atoms."""
        if stored == target:
            return name
        memo = (name, target)
        if memo not in self._arranged:
            self._arranged[memo] = self._rearranged(name, stored, target)
        return self._arranged[memo]

    def _rearranged(
        self, name: str, stored: tuple[Axis, ...], target: tuple[Axis, ...]
    ) -> str:
        before, after = list(chain(*stored)), list(chain(*target))
        if before == after:
            return self._regrouped(name, stored, target)
        groups = self._shuffled(stored, target)
        if groups:
            return self._added(ops.ChannelShuffle(groups), name)
        if sorted(map(_key, stored)) == sorted(map(_key, target)):
            units = (i for i, axis in enumerate(stored) if not axis)
            axes = tuple(stored.index(a) if a else next(units) for a in target)
            return self._transposed(name, axes)
        place = {atom: i for i, atom in enumerate(after)}
        runs: list[Axis] = []
        for atom in before:
            if runs and place[runs[-1][-1]] + 1 == place[atom]:
                runs[-1] = (*runs[-1], atom)
            else:
                runs.append((atom,))
        axes = tuple(sorted(range(len(runs)), key=lambda i: place[runs[i][0]]))
        name = self._regrouped(name, stored, tuple(runs))
        name = self._transposed(name, axes)
        return self._regrouped(name, tuple(runs[i] for i in axes), target)

    def _shuffled(self, stored: tuple[Axis, ...], target: tuple[Axis, ...]) -> int:
        """Return the groups of the channel shuffle from `stored` to `target`, or 0."""
        if not 3 <= len(stored) == len(target) <= 5 or stored[:-1] != target[:-1]:
            return 0
        old, new = stored[-1], target[-1]
        for cut in range(1, len(old)):
            if new == old[cut:] + old[:cut]:
                return self.fixed(sized(old[:cut], self.bindings), "a channel count")
        return 0

    def _transposed(self, name: str, axes: tuple[int, ...]) -> str:
        key = self._added(ops.Transpose(axes), name)
        self.transposes.append({"layer": key, "axes": list(axes), "reader": self.site})
        return key

    def _regrouped(
        self, name: str, stored: tuple[Axis, ...], target: tuple[Axis, ...]
    ) -> str:
        if stored == target:
            return name
        if len(stored) > 2 == len(target) and stored[0] == target[0]:
            return self._added(ops.Flatten(), name)
        old = [sized(axis, self.bindings) for axis in stored]
        new = [sized(axis, self.bindings) for axis in target]
        return self._added(ops.Reshape(self._shape_attribute(new, old)), name)

    def _shape_attribute(
        self, shape: Sequence[Dim], old: Sequence[Dim]
    ) -> tuple[int, ...]:
        """Return a `Reshape` shape: sizes, 0 to keep an axis, -1 once for the rest."""
        sizes: list[int] = []
        for axis, dim in enumerate(shape):
            if len(set(dim)) == 1:
                sizes.append(dim[0])
            elif axis < len(old) and old[axis] == dim:
                sizes.append(0)
            elif -1 not in sizes:
                sizes.append(-1)
            else:
                raise UnsupportedModelError(
                    f"more than one size of a reshape depends on {self.culprit(dim)}"
                )
        return tuple(sizes)

    def _added(self, op: ops.Op, name: str) -> str:
        value = self.apply(op, self._value(name, self._specs[name]))
        assert isinstance(value, Value)
        return value.name


def _described(symbol: str) -> str:
    return symbol if symbol == FOUND else f"the open size {symbol!r}"


def _larger(spec: Spec, axis: int, more: int) -> Spec:
    """Return the spec with so many more positions along an axis."""
    sizes = list(spec.shape)
    sizes[axis] += more
    return replace(spec, shape=tuple(sizes))


def _key(axis: Axis) -> tuple[int, ...]:
    return tuple(map(id, axis))


def bounded(shape: Sequence[int]) -> None:
    """Raise `UnsupportedModelError` on a constant that is too large to compute."""
    if min(shape, default=0) < 0 or math.prod(shape) > LARGEST:
        raise UnsupportedModelError(f"it computes a constant of shape {tuple(shape)}")


def computable(x: Tensor) -> Tensor:
    """Return a result; raise `UnsupportedModelError` if it has too many elements."""
    sizes = [dim[0] for dim in x.shape]
    if math.prod(sizes) > MOST:
        raise UnsupportedModelError(
            f"it computes {' x '.join(map(str, sizes))} numbers"
        )
    return x


def unique(wish: str, taken: set[str]) -> str:
    """Return an allowed name like `wish` that is not taken yet."""
    name = sanitised(wish)
    number = 2
    found = name
    while found in taken:
        found = f"{name[: 127 - len(str(number))]}_{number}"
        number += 1
    return found


def sanitised(name: str) -> str:
    """Return a name the graph allows: of ``/a/a.1/a.1.0/Conv`` it is ``a.1.0.Conv``.

    A part that the next one repeats as its beginning is left out.
    """
    parts = [part for part in re.split(r"[/:]+", name) if part]
    kept = [
        part
        for part, following in zip(parts, [*parts[1:], ""], strict=False)
        if not following.startswith(f"{part}.")
    ]
    text = re.sub(r"[^A-Za-z0-9_.-]+", "_", ".".join(kept)).lstrip(".-")
    return text[-120:].lstrip(".-") or "layer"
