"""Which function converts which layer, what it may ask for, and its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.conversion import Function, Registry
from striate.tools.from_onnx.registry import OnnxBuilder
from striate.tools.layout import Tensor

NEWEST = 26
"""The version of ONNX's operators whose functions are called here."""

UNREAD = frozenset(
    (
        *("filters", "units", "kernel_size", "depth_multiplier", "groups"),
        *("use_bias", "center", "scale", "quantization_config"),
        *("dropout", "recurrent_dropout", "momentum", "renorm", "renorm_clipping"),
        *("renorm_momentum", "virtual_batch_size", "synchronized", "fused"),
        *("implementation", "unroll", "use_cudnn", "zero_output_for_mask"),
    )
)
"""Settings that the weights tell, or that are of training or of speed."""

layers = Registry()

operations = Registry()

wrappers = Registry()


@dataclass(frozen=True)
class Weights:
    """The names of a layer's weights in the order of a file.

    Parameters
    ----------
    trained, kept : tuple of str
        Those that training changes, then those it does not. ``"bias if use_bias"`` is
        there if the layer has that setting or leaves it out, ``"mean if not mean"`` if
        it is left out or None.
    """

    trained: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def names(self, settings: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """Return the trained and the kept ones that a layer of these settings has."""
        return _there(self.trained, settings), _there(self.kept, settings)


def _there(names: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    found = []
    for entry in names:
        name, _, condition = entry.partition(" if ")
        absent = condition.removeprefix("not ")
        if absent != condition:
            there = settings.get(absent) is None
        else:
            there = not condition or bool(settings.get(condition, True))
        if there:
            found.append(name)
    return found


_weights: dict[str, Weights] = {}


def keras_layer(
    *kinds: str, weights: Sequence[str] = (), kept: Sequence[str] = ()
) -> Callable[[Function], Function]:
    """Register a function as the meaning of layers.

    The function gets a `KerasBuilder`, then the tensors the layer is called with, then
    its settings and its weights by name; it returns the output, or a tuple of outputs.
    It may do without the settings of `UNREAD`.

    Parameters
    ----------
    *kinds : str
        The names of their classes.
    weights, kept : sequence of str
        As for `Weights`.
    """
    for kind in kinds:
        _weights[kind] = Weights(tuple(weights), tuple(kept))
    return layers.register(*kinds)


def keras_operation(*kinds: str) -> Callable[[Function], Function]:
    """Register a function as the meaning of operations of ``keras.ops``.

    The function gets a `KerasBuilder`, then what the operation is called with, tensors
    or numbers, then its settings by name.
    """
    return operations.register(*kinds)


def keras_wrapper(*kinds: str) -> Callable[[Function], Function]:
    """Register a function as the meaning of layers around other layers.

    The function gets a `KerasBuilder`, a tensor, a function of tensors for each layer
    inside, then its settings by name.
    """
    return wrappers.register(*kinds)


def operators() -> list[str]:
    """Return the names of the layers and operations that can be converted."""
    named = [f"ops.{name}" for name in operations.operators()]
    nets = ["Functional", "InputLayer", "Sequential", "TFOpLambda"]
    return sorted([*layers.operators(), *wrappers.operators(), *nets, *named])


def weights_of(kind: str) -> Weights:
    """Return the names of the weights of a layer; none if it is not known."""
    return _weights.get(kind, Weights())


class KerasBuilder(OnnxBuilder):
    """A `Builder` with what layers need to know.

    Parameters
    ----------
    symbols : dict
        As for `Builder`.
    old : bool
        Whether the file is of Keras 2, which means something else by some names.
    channels_first : bool
        Whether the network's images are (N, C, spatial...).
    """

    def __init__(
        self,
        symbols: Mapping[str, tuple[int, int]],
        old: bool,
        channels_first: bool = False,
    ) -> None:
        super().__init__(symbols, NEWEST)
        self.old = old
        self.channels_first = channels_first

    def image(self, x: Tensor, data_format: str | None) -> Tensor:
        """Return an image as (N, spatial..., C)."""
        if not 3 <= x.rank <= 5:
            raise UnsupportedModelError(f"its input has rank {x.rank}, wanted 3 to 5")
        return x.channels_last() if self.first(data_format) else x

    def flat(self, x: Tensor, data_format: str | None) -> Tensor:
        """Return a tensor whose channels, if it has any, are last."""
        return x.channels_last() if self.first(data_format) and x.rank > 2 else x

    def placed(self, x: Tensor, data_format: str | None) -> Tensor:
        """Return an image, which is (N, spatial..., C), as the layer gives it."""
        return x.channels_first() if self.first(data_format) else x

    def first(self, data_format: str | None) -> bool:
        """Return whether a layer takes images as (N, C, spatial...)."""
        if data_format in (None, "", "default"):
            return self.channels_first
        if data_format not in ("channels_first", "channels_last"):
            raise UnsupportedModelError(f"data_format {data_format!r}")
        return data_format == "channels_first"

    def numbers_of(self, value: Any) -> Array:
        """Return a setting that is a number, or an array as Keras writes one."""
        if isinstance(value, Mapping):
            value = value["config"]["value"]
        return np.asarray(value, np.float32)


def each(value: Any, count: int, name: str) -> tuple[int, ...]:
    """Return a setting that is one number, or one for each axis, as the latter.

    Raises
    ------
    UnsupportedModelError
        If it is neither.
    """
    numbers = (value,) * count if isinstance(value, int) else tuple(value)
    if len(numbers) == 1:
        numbers *= count
    if len(numbers) != count or not all(isinstance(n, int) for n in numbers):
        raise UnsupportedModelError(f"{name} {value}, wanted {count} whole numbers")
    return numbers
