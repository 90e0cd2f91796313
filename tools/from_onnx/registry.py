"""Which function converts which operator, and what it may ask for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.builder import Builder
from striate.tools.layout import Constant, Dim, Tensor

Handler = Callable[..., Any]

Function = TypeVar("Function", bound=Handler)

_handlers: dict[tuple[str, str], dict[int, Handler]] = {}
_folds: dict[str, dict[int, Handler]] = {}


def onnx_op(
    op: str, since: int = 1, domain: str = ""
) -> Callable[[Function], Function]:
    """Register a function as the meaning of an operator from a version on.

    The function gets an `OnnxBuilder`, then the inputs as the operator orders them
    (None for one left out), then the attributes by name; it returns the outputs.

    Parameters
    ----------
    op : str
        The operator's name.
    since : int
        The first version of the operator set that means this.
    domain : str
        Where the operator is defined; "" is ONNX itself.
    """

    def register(handler: Function) -> Function:
        _handlers.setdefault((domain, op), {})[since] = handler
        return handler

    return register


def folded(op: str, since: int = 1) -> Callable[[Function], Function]:
    """Register a function of arrays for an operator that only constants go through."""

    def register(function: Function) -> Function:
        def handler(g: OnnxBuilder, *tensors: Tensor | None, **attributes: Any) -> Any:
            return g.fold(function, tensors, attributes)

        setattr(handler, "__signature__", _with_builder(function))  # noqa: B010
        _folds.setdefault(op, {})[since] = handler
        _handlers.setdefault(("", op), {}).setdefault(since, handler)
        return function

    return register


def computed(op: str, since: int = 1) -> Callable[[Function], Function]:
    """Register a function as `onnx_op`, but fold constants as `folded` says."""

    def register(function: Function) -> Function:
        def handler(g: OnnxBuilder, *tensors: Tensor | None, **attributes: Any) -> Any:
            fold = _latest(_folds.get(op, {}), since)
            known = all(x is None or isinstance(x, Constant) for x in tensors)
            chosen = fold if fold is not None and known else function
            return chosen(g, *tensors, **attributes)

        setattr(handler, "__signature__", inspect.signature(function))  # noqa: B010
        onnx_op(op, since)(handler)
        return function

    return register


def _with_builder(function: Handler) -> inspect.Signature:
    first = inspect.Parameter("g", inspect.Parameter.POSITIONAL_ONLY)
    rest = inspect.signature(function).parameters.values()
    kept = [
        p.replace(kind=inspect.Parameter.POSITIONAL_ONLY)
        if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        else p
        for p in rest
    ]
    return inspect.Signature([first, *kept])


def find_handler(op: str, domain: str, opset: int) -> Handler | None:
    """Return the function with the largest `since` that is not above `opset`."""
    return _latest(_handlers.get((domain, op), {}), opset)


def _latest(versions: Mapping[int, Handler], opset: int) -> Handler | None:
    fitting = [since for since in versions if since <= opset]
    return versions[max(fitting)] if fitting else None


def operators() -> list[str]:
    """Return the names of the operators that have a function."""
    return sorted(f"{d}::{op}" if d else op for d, op in _handlers)


class OnnxBuilder(Builder):
    """A `Builder` with what ONNX operators need to know.

    Parameters
    ----------
    symbols : dict
        As for `Builder`.
    opset : int
        The version of ONNX's operator set.
    batch : int, optional
        The batch size that the file fixes and that is left open all the same.
    """

    def __init__(
        self,
        symbols: Mapping[str, tuple[int, int]],
        opset: int,
        batch: int | None = None,
    ) -> None:
        super().__init__(symbols)
        self.opset = opset
        self.batch = batch
        self.results = 1
        self.wanted = 1
        self.inline: Callable[[Any], tuple[Tensor, ...]] = lambda graph: ()

    def fold(
        self,
        function: Handler,
        tensors: Sequence[Tensor | None],
        attributes: Mapping[str, Any] | None = None,
    ) -> tuple[Constant, ...]:
        """Apply a function of arrays to constants, under each binding.

        Raises
        ------
        UnsupportedModelError
            If the network computes one of the tensors.
        """
        for tensor in tensors:
            if tensor is not None and not isinstance(tensor, Constant):
                raise UnsupportedModelError("only for constants, its input is computed")
        columns = [
            (None,) * self.bindings if t is None else t.arrays
            for t in tensors
            if t is None or isinstance(t, Constant)
        ]
        done: dict[tuple[int, ...], tuple[Array, ...]] = {}
        results = []
        for arrays in zip(*columns, strict=True) if columns else [()] * self.bindings:
            key = tuple(map(id, arrays))
            if key not in done:
                result = function(*arrays, **(attributes or {}))
                many = result if isinstance(result, tuple) else (result,)
                done[key] = tuple(map(np.asarray, many))
            results.append(done[key])
        return tuple(Constant(column) for column in zip(*results, strict=True))

    def numbers(self, x: Tensor | None, what: str) -> tuple[int, ...] | None:
        """Return a constant as whole numbers, None if it is left out."""
        if x is None:
            return None
        return tuple(int(n) for n in self.array(x, what).reshape(-1))

    def axis(self, axis: int, rank: int) -> int:
        """Return an axis counted from the front.

        Raises
        ------
        UnsupportedModelError
            If the tensor has no such axis.
        """
        if not -rank <= axis < max(rank, 1):
            raise UnsupportedModelError(f"axis {axis} of a tensor of rank {rank}")
        return axis % max(rank, 1)

    def one_picture_at_a_time(self, x: Tensor, axes: Sequence[int]) -> None:
        """Refuse to work along a batch axis that the file says has a fixed size."""
        if self.batch is not None and any(
            x.shape[axis] == self.batch_size for axis in axes
        ):
            raise UnsupportedModelError("it works along the batch")

    def whole(self, *tensors: Tensor | None) -> None:
        """Refuse to mix the pictures of a batch that the file says has a fixed size."""
        for x in tensors:
            if x is not None and not isinstance(x, Constant):
                self.one_picture_at_a_time(x, range(x.rank))

    @property
    def batch_size(self) -> Dim:
        """The size of the open batch axis."""
        return tuple(binding.get("N", 0) for binding in self.bound)

    def reshape_to(
        self, x: Tensor, wanted: Sequence[Dim], zero_copies: bool = True
    ) -> Tensor:
        """Return `x` reshaped, with 0 for a size that stays and -1 for the rest.

        Where the file fixes a batch size that is left open, a leading size equal to
        it means the batch.
        """
        literal = list(wanted)
        if (
            self.batch is not None
            and literal
            and x.rank
            and x.shape[0] == self.batch_size
            and all(n == self.batch for n in literal[0])
        ):
            shape = self._resolved(x, [self.batch_size, *literal[1:]], zero_copies)
            if shape is not None:
                return self.reshape(x, shape)
        shape = self._resolved(x, literal, zero_copies)
        if shape is None:
            raise UnsupportedModelError(self._misfit(x, literal))
        return self.reshape(x, shape)

    def _resolved(
        self, x: Tensor, wanted: Sequence[Dim], zero_copies: bool
    ) -> tuple[Dim, ...] | None:
        columns = []
        for binding in range(self.bindings):
            old = [dim[binding] for dim in x.shape]
            new = [dim[binding] for dim in wanted]
            if zero_copies:
                new = [
                    old[i] if n == 0 and i < len(old) else n for i, n in enumerate(new)
                ]
            size = int(np.prod(old, dtype=np.int64))
            if new.count(-1) == 1:
                rest = -int(np.prod(new, dtype=np.int64))
                if rest == 0 or size % rest:
                    return None
                new[new.index(-1)] = size // rest
            if min(new, default=1) < 0 or int(np.prod(new, dtype=np.int64)) != size:
                return None
            columns.append(new)
        return tuple(zip(*columns, strict=True))

    def _misfit(self, x: Tensor, wanted: Sequence[Dim]) -> str:
        found, shape = (
            "x".join(str(dim[0]) for dim in sizes) for sizes in (x.shape, wanted)
        )
        size = self.product(x.shape)
        opened = (
            f", which depends on {self.culprit(size)}" if len(set(size)) > 1 else ""
        )
        return f"the shape {shape} does not fit a tensor of {found}{opened}"
