"""A program of `torch.export`, wherever it was read from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from striate.spec import Array

VIEWS = frozenset(
    (
        "alias",
        "chunk",
        "contiguous",
        "detach",
        "diagonal",
        "expand",
        "expand_as",
        "flatten",
        "mT",
        "movedim",
        "narrow",
        "numpy_T",
        "permute",
        "reshape",
        "reshape_as",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "squeeze",
        "swapaxes",
        "t",
        "tensor_split",
        "to",
        "transpose",
        "type_as",
        "unbind",
        "unflatten",
        "unfold",
        "unsqueeze",
        "view",
        "view_as",
    )
)
"""Operators whose result may be the same memory as their first argument."""

IDLE = frozenset(
    ("dropout_", "feature_dropout_", "alpha_dropout_", "feature_alpha_dropout_")
)
"""Operators that write to their argument only during training."""


@dataclass(frozen=True)
class Ref:
    """An argument that is the value of that name."""

    name: str


@dataclass(frozen=True)
class SourceNode:
    """One call of an operator.

    Parameters
    ----------
    target : str
        The operator: ``"conv2d.default"``, ``"_operator.mul"``.
    args, kwargs : tuple, dict
        Its arguments: `Ref`, numbers, strings (element types by NumPy's names), None,
        and lists of them.
    outputs : tuple of str
        The names of its results, "" for one nobody reads.
    path : str
        The module it belongs to.
    """

    target: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[str, ...]
    path: str = ""

    @property
    def op(self) -> str:
        """The operator without its overload."""
        return self.target.split(".")[0]

    @property
    def reads(self) -> Iterator[str]:
        """The names of the values it reads."""
        yield from _names([*self.args, *self.kwargs.values()])

    @property
    def written(self) -> str:
        """The value an in-place operator changes, "" for all other operators."""
        in_place = self.op.endswith("_") and not self.op.endswith("__")
        return next(self.reads, "") if in_place and self.op not in IDLE else ""


def _names(arguments: list[Any]) -> Iterator[str]:
    for argument in arguments:
        if isinstance(argument, Ref):
            yield argument.name
        elif isinstance(argument, list):
            yield from _names(argument)


@dataclass(frozen=True)
class SourceTensor:
    """The shape, with open sizes as expressions, and element type of a value."""

    shape: tuple[int | str, ...]
    dtype: str


@dataclass
class SourceProgram:
    """A whole program.

    Parameters
    ----------
    name : str
        What to call it: the file, or the module's class.
    inputs : dict
        The name each tensor that callers give has among the values, and what to call
        it.
    outputs : list of (str, Ref or object)
        What each result is called, and where it is; "" for what has no name.
    weights : dict of str to callable
        Returns the value of a parameter, buffer or constant.
    fixed : dict
        Arguments that are no tensors, by name.
    nodes : list of SourceNode
    tensors : dict of str to SourceTensor
        What is known of the values.
    format : str
        What wrote it.
    sha256 : str
        Of the file; "" if there is none.
    """

    name: str
    inputs: dict[str, str]
    outputs: list[tuple[str, Any]]
    weights: Mapping[str, Callable[[], Array]]
    nodes: list[SourceNode]
    tensors: dict[str, SourceTensor]
    fixed: dict[str, Any] = field(default_factory=dict)
    format: str = ""
    sha256: str = ""

    def labels(self) -> list[str]:
        """Return a name for each node: its module's, if it is the only one there."""
        count: dict[str, int] = {}
        for node in self.nodes:
            count[node.path] = count.get(node.path, 0) + 1
        return [
            node.path
            if node.path and count[node.path] == 1
            else f"{node.path}.{node.op.strip('_')}".lstrip(".")
            for node in self.nodes
        ]


def overwritten(program: SourceProgram) -> dict[int, str]:
    """Return the nodes that read memory which another name has changed, and that name.

    An in-place operator changes all views of its argument; only the argument and the
    result are followed.
    """
    base: dict[str, str] = {}
    stale: set[str] = set()
    found: dict[int, str] = {}
    for index, node in enumerate(program.nodes):
        reads = list(node.reads)
        for name in reads:
            if name in stale:
                found[index] = name
        first = base.get(reads[0], reads[0]) if reads else ""
        if node.written:
            if first in program.weights:
                found[index] = first
            same = {name for name in (*base, first) if base.get(name, name) == first}
            stale |= same - {reads[0]}
        shared = node.written or node.op in VIEWS or node.op in IDLE
        for name in node.outputs:
            base[name] = first if shared else name
    last = len(program.nodes)
    for _, result in program.outputs:
        if isinstance(result, Ref) and result.name in stale:
            found[last] = result.name
    return found


def with_norms_joined(program: SourceProgram) -> SourceProgram:
    """Return the program with local response normalisations as one node each.

    PyTorch has no operator for them: it squares, pads and averages over channels.
    """
    made = {name: node for node in program.nodes for name in node.outputs}
    uses: dict[str, int] = {}
    for node in program.nodes:
        for name in node.reads:
            uses[name] = uses.get(name, 0) + 1
    joined: dict[str, SourceNode] = {}
    for node in program.nodes:
        if node.target == "div.Tensor":
            norm = _local_response_norm(node, made, uses)
            if norm is not None:
                joined[node.outputs[0]] = norm
    nodes = [
        next((joined[name] for name in node.outputs if name in joined), node)
        for node in program.nodes
    ]
    return replace(program, nodes=nodes)


def _local_response_norm(
    node: SourceNode, made: Mapping[str, SourceNode], uses: Mapping[str, int]
) -> SourceNode | None:
    """Return one node for ``x / (k + alpha mean(x^2))^beta``, or None."""

    def step(value: Any, *targets: str) -> SourceNode | None:
        found = made.get(value.name) if isinstance(value, Ref) else None
        if found is None or found.target not in targets or uses[value.name] != 1:
            return None
        return found

    x, below = _first_two(node)
    numbers: list[float] = []
    for target in ("pow.Tensor_Scalar", "add.Tensor", "mul.Tensor"):
        power = step(below, target)
        if power is None:
            return None
        below, number = _first_two(power)
        if not isinstance(number, (int, float)):
            return None
        numbers.append(number)
    moves = ("view.default", "squeeze.dim", "unsqueeze.default", "reshape.default")
    while (move := step(below, *moves)) is not None:
        below = _first_two(move)[0]
    pool = step(below, "avg_pool3d.default", "avg_pool2d.default")
    if pool is None:
        return None
    below, kernel = _first_two(pool)
    pad = step(below, "pad.default", "constant_pad_nd.default")
    if pad is None or not isinstance(kernel, list) or set(kernel[1:]) != {1}:
        return None
    below, sides = _first_two(pad)
    size = kernel[0]
    if sides != [0, 0] * (len(kernel) - 1) + [size // 2, (size - 1) // 2]:
        return None
    while (move := step(below, *moves)) is not None:
        below = _first_two(move)[0]
    square = step(below, "mul.Tensor")
    if square is None or _first_two(square) != (x, x) or not size % 2:
        return None
    beta, k, alpha = numbers
    args = (x, size, alpha, beta, k)
    return replace(node, target="local_response_norm.default", args=args, kwargs={})


def _first_two(node: SourceNode) -> tuple[Any, Any]:
    """Return the first two arguments, given by place or by name."""
    given = [*node.args, *node.kwargs.values(), None, None]
    return given[0], given[1]


def simplified(program: SourceProgram) -> SourceProgram:
    """Return the program with norms joined, and without what no output needs."""
    program = with_norms_joined(program)
    needed = {r.name for _, r in program.outputs if isinstance(r, Ref)}
    kept = []
    for node in reversed(program.nodes):
        if node.written or needed.intersection(node.outputs):
            needed.update(node.reads)
            kept.append(node)
    return replace(program, nodes=kept[::-1])
