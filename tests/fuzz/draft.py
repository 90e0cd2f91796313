"""One operator with its operands, and the ONNX model that holds it."""

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .draw import Draw, known

FAMILIES = {}
"""Functions that draw a `Draft`, by the operator's name."""


@dataclass
class Operand:
    """A tensor an operator reads.

    Parameters
    ----------
    array : Array
        Its elements.
    constant : bool
        Whether the model holds it; if not, it is fed.
    """

    array: np.ndarray
    constant: bool = False


def weight(array):
    """Return an operand that the model holds."""
    return Operand(np.asarray(array), True)


def value(array):
    """Return an operand that is fed."""
    return Operand(np.asarray(array))


@dataclass
class Draft:
    """One operator and how exactly it is computed.

    Parameters
    ----------
    op : str
        The operator.
    opset : int
        The version of the operator set.
    operands : list of Operand or None
        What it reads; None for one left out.
    attributes : dict
        Those that the version does not know are dropped.
    outputs : int
        How many.
    rule : tuple of str and float
        ("exact", 0); ("ulps", n), units in the last place of the result; ("terms", K),
        a sum of K products; ("filtered", K), such a sum by Winograd's filtering;
        ("share", s), of the largest number fed or computed;
        ("steps", n), of whole numbers that were rounded.
    """

    op: str
    opset: int
    operands: list
    attributes: dict = field(default_factory=dict)
    outputs: int = 1
    rule: tuple = ("exact", 0)

    def __post_init__(self):
        self.attributes = known(self.op, self.opset, self.attributes)


def family(*names):
    """Register a function of `Draw` and an operator's name that returns a `Draft`."""

    def register(function):
        FAMILIES.update(dict.fromkeys(names, function))
        return function

    return register


@dataclass
class Case:
    """A model, what to feed it, and how exact the answer must be.

    Parameters
    ----------
    model : ModelProto
        The model.
    feeds : dict of str to Array
        By input name.
    rule : tuple of str and float
        As of a `Draft`.
    magnitudes : ModelProto
        The same sums of products without what comes after; fed with magnitudes it
        returns the sums of the products' magnitudes.
    narrow : bool
        Whether the model's tensors are float16.
    """

    model: onnx.ModelProto
    feeds: dict
    rule: tuple
    magnitudes: onnx.ModelProto
    narrow: bool = False


AFTER = ("Relu", "Neg", "Identity", "Transpose", "Concat")
"""What may follow an operator: it is exact and enlarges no error."""


class Assembly:
    """Makes a model around a draft, as exporters and people write models.

    Operands are inputs, initializers, initializers that are inputs too, or outputs of
    Constant and Identity nodes; sizes are fixed, named or left open.
    """

    def __init__(self, draft, draw, plain=False, magnitudes=False):
        self.draft = draft
        self.draw = draw
        self.plain = plain
        self.magnitudes = magnitudes
        self.narrow = False
        self.nodes = []
        self.inputs = []
        self.initializers = []
        self.feeds = {}

    def model(self):
        """Return the model."""
        draft, draw = self.draft, self.draw
        self.narrow = not self.plain and draw.chance(0.04)
        fed = sum(o is not None and not o.constant for o in draft.operands)
        open_sizes = draw.one_of("fixed", "batch", "all")
        if self.plain or (fed > 1 and draw.chance(0.8)):
            open_sizes = "fixed"
        read = []
        for index, operand in enumerate(draft.operands):
            if operand is None:
                read.append("")
            elif operand.constant:
                read.append(self._constant(f"w{index}", operand.array))
            else:
                read.append(self._input(f"x{index}", operand.array, open_sizes))
        outputs = [f"y{i}" for i in range(draft.outputs)]
        node = helper.make_node(draft.op, read, outputs, "layer", **draft.attributes)
        self.nodes.append(node)
        if not self.plain:
            outputs = self._after(outputs)
        graph = helper.make_graph(
            self.nodes,
            "random",
            self.inputs,
            [onnx.ValueInfoProto(name=name) for name in outputs],
            self.initializers,
        )
        opset = helper.make_opsetid("", draft.opset)
        return helper.make_model(graph, opset_imports=[opset], ir_version=10)

    def _array(self, array):
        if self.magnitudes and array.dtype.kind == "f":
            array = np.abs(array)
        narrow = self.narrow and array.dtype == np.float32
        return array.astype(np.float16) if narrow else array

    def _constant(self, name, array):
        array = self._array(array)
        way = (
            "plain" if self.plain else self.draw.one_of("plain", "plain", "node", "id")
        )
        tensor = numpy_helper.from_array(array, name)
        if way == "node":
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
            return name
        self.initializers.append(tensor)
        if not self.plain and self.draw.chance(0.1):
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            entry = helper.make_tensor_value_info(name, kind, array.shape)
            self.inputs.append(entry)
        if way == "id":
            self.nodes.append(helper.make_node("Identity", [name], [f"{name}_same"]))
            return f"{name}_same"
        return name

    def _input(self, name, array, open_sizes):
        array = self._array(array)
        self.feeds[name] = array
        sizes = list(array.shape)
        for axis, size in enumerate(array.shape):
            if (axis == 1 or size == 1) and self.draw.chance(0.9):
                continue
            if open_sizes == "all" or (open_sizes == "batch" and axis == 0):
                named = f"size_{size}" if self.draw.chance(0.9) else f"{name}_{axis}"
                sizes[axis] = named if self.draw.chance(0.8) else None
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.inputs.append(helper.make_tensor_value_info(name, kind, sizes))
        return name

    def _after(self, outputs):
        """Add what may follow the operator; return the model's outputs."""
        draw = self.draw
        first = outputs[0]
        returned = list(outputs)
        if draw.chance(0.15):
            returned.remove(draw.one_of(*returned)) if len(returned) > 1 else None
        if self.draft.rule[0] != "exact" and draw.chance(0.3):
            made = self._follow(draw.one_of(*AFTER), first)
            if first in returned and draw.chance(0.5):
                returned.remove(first)
            returned.append(made)
        if draw.chance(0.05):
            self.nodes.append(helper.make_node("Shape", [first], ["never_read"]))
        if draw.chance(0.04) and self.feeds:
            returned.append(draw.one_of(*self.feeds))
        return returned

    def _follow(self, op, name):
        made = f"{name}_{op.lower()}"
        read = [name, name] if op == "Concat" else [name]
        attributes = {"axis": 0} if op == "Concat" else {}
        self.nodes.append(helper.make_node(op, read, [made], **attributes))
        return made


def assemble(draft, draw):
    """Return a `Case` of a draft."""
    made = Assembly(draft, draw)
    model = made.model()
    magnitudes = Assembly(draft, draw, plain=True, magnitudes=True).model()
    return Case(model, made.feeds, draft.rule, magnitudes, made.narrow)


def drawn(op, seed, index):
    """Return the case of that number of an operator's family."""
    draw = Draw(seed, index, *op.encode())
    return assemble(FAMILIES[op](draw, op), draw)
