"""What the architectures are made with: a graph whose weights are drawn or given."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from striate import Graph, GraphError, Postprocess, Preprocess, Resize, ops
from striate.models.architectures.moments import Moments, after
from striate.spec import Array, Shape, Spec, shape_text

Weights = Mapping[str, Array] | Callable[[str, str, Shape], Array]
"""Arrays by ``layer/operand``, in the layout of striate's operators.

Or a function that returns the array for a layer, an operand and a shape.
"""

RELU = ops.Relu()

FIXED = ("mean", "variance", "value")
"""Operands that are not learned: what batch norms measure, and constants."""


def parameter_count(graph: Graph) -> int:
    """Return the number of learned numbers: not batch norms' statistics."""
    return sum(
        array.size
        for name, array in graph.params.items()
        if name.rpartition("/")[2] not in FIXED
    )


class Network:
    """A graph under construction.

    Kernels are drawn He-normal; batch norms get statistics near those their inputs have
    for standard normal images, so that activations neither vanish nor explode, however
    deep the network.

    Parameters
    ----------
    name : str
        The graph's name.
    weights : dict, callable or None
        Every weight by ``layer/operand``, or what returns it for layer, operand and
        shape; None draws them.
    seed : int
        For drawing.
    """

    def __init__(self, name: str, weights: Weights | None, seed: int) -> None:
        self.graph = Graph(name)
        self._given = weights
        self._random = np.random.default_rng(seed)
        self._moments: dict[str, Moments] = {}
        self._specs: dict[str, Spec] = {}

    def input(self, name: str, *sizes: int) -> str:
        """Declare an input of batches of the given sizes."""
        self._specs[name] = Spec((1, *sizes))
        self._moments[name] = Moments.standard(sizes[-1])
        return self.graph.input(name, ("N", *sizes))

    def shape(self, x: str) -> Shape:
        """Return the shape of a value, for a batch of one."""
        return self._specs[x].shape

    def channels(self, x: str) -> int:
        """Return the size of a value's last axis."""
        return self.shape(x)[-1]

    def apply(
        self, op: ops.Op, *xs: str, name: str | None = None, **weights: Array
    ) -> Any:
        """Append any layer; return the name of its value, or a tuple of names."""
        outputs: tuple[str, ...] = ()
        if isinstance(op, ops.Split):
            name = name or f"split{len(self.graph.nodes)}"
            outputs = tuple(f"{name}.{index}" for index in range(len(op.sizes)))
        added = self.graph.add(op, *xs, name=name, outputs=outputs, **weights)
        values = self.graph.nodes[-1].outputs
        known = after(op, [self._moments[x] for x in xs])
        self._place(values, known)
        return added

    def conv(
        self,
        name: str,
        x: str,
        outputs: int,
        kernel: int | Shape = 3,
        stride: int | Shape = 1,
        *,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = True,
    ) -> str:
        """Append a convolution; by default it is padded to keep the size."""
        spatial = len(self.shape(x)) - 2
        sizes = (kernel,) * spatial if isinstance(kernel, int) else kernel
        strides = (stride,) if isinstance(stride, int) else stride
        sides = [(n - 1) // 2 if padding is None else padding for n in sizes]
        pairs = tuple((side, side) for side in sides)
        op = ops.Conv(strides, padding=pairs if any(sides) else "valid", groups=groups)
        shape = (*sizes, self.channels(x) // groups, outputs)
        drawn = {"kernel": self._kernel(name, shape)}
        moments = self._moments[x].filtered(drawn["kernel"], groups)
        if bias:
            drawn["bias"] = self._bias(name, outputs)
            moments = moments.scaled(np.ones(outputs), drawn["bias"])
        return self._layer(op, name, x, drawn, moments)

    def transposed_conv(
        self, name: str, x: str, outputs: int, kernel: int = 2, stride: int = 2
    ) -> str:
        """Append a transposed convolution."""
        inputs, spatial = self.channels(x), len(self.shape(x)) - 2
        shape = (*(kernel,) * spatial, outputs, inputs)
        fan_in = inputs * kernel**spatial // stride**spatial
        drawn = {
            "kernel": self._kernel(name, shape, fan_in),
            "bias": self._bias(name, outputs),
        }
        mean = float(self._moments[x].variance.mean())
        moments = Moments(np.zeros(outputs), np.full(outputs, 2 * mean))
        return self._layer(ops.ConvTranspose((stride,)), name, x, drawn, moments)

    def dense(self, name: str, x: str, outputs: int) -> str:
        """Append a fully connected layer."""
        inputs = self.channels(x)
        drawn = {
            "kernel": self._kernel(name, (inputs, outputs)),
            "bias": self._bias(name, outputs),
        }
        power = self._moments[x].variance + self._moments[x].mean ** 2
        moments = Moments(
            drawn["bias"].astype(np.float64), np.full(outputs, 2 * power.mean())
        )
        return self._layer(ops.Dense(), name, x, drawn, moments)

    def norm(
        self, name: str, x: str, *, epsilon: float = 1e-5, last: bool = False
    ) -> str:
        """Append a batch norm.

        Parameters
        ----------
        last : bool
            Whether it ends a branch that is added to a shortcut: then its gamma is
            small, so that a sum of many branches stays near its first term.
        """
        channels, moments = self.channels(x), self._moments[x]
        deviation = np.sqrt(moments.variance)
        low, high = (0.1, 0.4) if last else (0.5, 1.5)
        drawn = {
            "gamma": self._weight(name, "gamma", (channels,), self._uniform(low, high)),
            "beta": self._bias(name, channels, "beta", 0.2 * high / 1.5),
            "mean": self._weight(
                name,
                "mean",
                (channels,),
                lambda n: moments.mean + 0.1 * deviation * self._normal(n),
            ),
            "variance": self._weight(
                name,
                "variance",
                (channels,),
                lambda n: moments.variance * 1.2 ** self._random.uniform(-1, 1, n),
            ),
        }
        factor = drawn["gamma"] / np.sqrt(drawn["variance"].astype(float) + epsilon)
        offset = drawn["beta"] - drawn["mean"] * factor
        return self._layer(
            ops.BatchNorm(epsilon), name, x, drawn, moments.scaled(factor, offset)
        )

    def layer_norm(self, name: str, x: str, *, epsilon: float = 1e-6) -> str:
        """Append a normalisation over channels, pixel by pixel."""
        channels = self.channels(x)
        drawn = {
            "gamma": self._weight(name, "gamma", (channels,), self._uniform(0.5, 1.5)),
            "beta": self._bias(name, channels, "beta", 0.2),
        }
        moments = Moments.standard(channels).scaled(drawn["gamma"], drawn["beta"])
        return self._layer(ops.LayerNorm((-1,), epsilon), name, x, drawn, moments)

    def scale(self, name: str, x: str) -> str:
        """Append a small factor for each channel, which ends a residual branch."""
        channels = self.channels(x)
        factor = self._weight(name, "y", (channels,), self._uniform(0.1, 0.4))
        moments = self._moments[x].scaled(factor, np.zeros(channels))
        return self._layer(ops.Mul(), name, x, {"y": factor}, moments)

    def conv_norm(
        self,
        names: tuple[str, str],
        x: str,
        outputs: int,
        kernel: int | Shape = 3,
        stride: int | Shape = 1,
        activation: ops.Op | None = RELU,
        *,
        padding: int | None = None,
        groups: int = 1,
        epsilon: float = 1e-5,
        last: bool = False,
    ) -> str:
        """Append a convolution without bias, a batch norm and an activation.

        Parameters
        ----------
        names : tuple of str
            Of the convolution and the batch norm.
        """
        conv, norm = names
        x = self.conv(
            conv, x, outputs, kernel, stride, padding=padding, groups=groups, bias=False
        )
        x = self.norm(norm, x, epsilon=epsilon, last=last)
        return x if activation is None else self.activate(activation, x)

    def activate(self, op: ops.Op, x: str) -> str:
        """Append an activation, named after what it follows."""
        return str(self.apply(op, x, name=f"{x}.{type(op).__name__.lower()}"))

    def pool_to(self, size: int, x: str) -> str:
        """Append averaging to a square of that size, if it is not one already."""
        if self.shape(x)[1:-1] == (size, size):
            return x
        return str(self.apply(ops.AdaptiveAveragePool((size, size)), x, name="avgpool"))

    def classifies(self, x: str, image: int) -> Graph:
        """Return the graph, whose output `x` are logits, for pictures of that size.

        Pictures are prepared as for ImageNet: the middle of a picture whose shorter
        side is 8/7 of the size.
        """
        graph = self.finish(x)
        graph.preprocess = Preprocess(
            resize=Resize("shortest_edge", (image * 8 // 7,)),
            crop=(image, image),
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )
        graph.postprocess = Postprocess(x, "softmax")
        return graph

    def finish(self, *outputs: str) -> Graph:
        """Return the graph with its outputs.

        Raises
        ------
        GraphError
            If weights were given that no layer has.
        """
        given = self._given if isinstance(self._given, Mapping) else {}
        unknown = sorted(given.keys() - self.graph.params.keys())
        if unknown:
            raise GraphError(f"{self.graph.name}: no layer has the weights {unknown}")
        self.graph.output(*outputs)
        return self.graph

    def _layer(
        self, op: ops.Op, name: str, x: str, drawn: dict[str, Array], moments: Moments
    ) -> str:
        added: str = self.graph.add(op, x, name=name, **drawn)
        self._place((added,), (moments,))
        return added

    def _place(self, values: tuple[str, ...], moments: tuple[Moments, ...]) -> None:
        node = self.graph.nodes[-1]
        found = node.op.infer(*self.graph.operand_specs(node, self._specs))
        specs = found if isinstance(found, tuple) else (found,)
        for index, (value, spec) in enumerate(zip(values, specs, strict=True)):
            channels = spec.shape[-1] if spec.shape else 1
            known = moments[index] if index < len(moments) else Moments.standard(1)
            self._specs[value] = spec
            self._moments[value] = known.over(channels)

    def _weight(
        self, layer: str, operand: str, shape: Shape, draw: Callable[[Shape], Array]
    ) -> Array:
        """Return a given weight, checked, or draw it."""
        if self._given is None:
            return draw(shape).astype(np.float32, copy=False)
        name = f"{layer}/{operand}"
        if not isinstance(self._given, Mapping):
            return self._given(layer, operand, shape)
        if name not in self._given:
            raise GraphError(f"{self.graph.name}: the weight {name!r} is missing")
        array = np.asarray(self._given[name])
        if array.shape != shape:
            raise GraphError(
                f"{self.graph.name}: the weight {name!r} is {shape_text(array.shape)}, "
                f"wanted {shape_text(shape)}"
            )
        return array

    def _kernel(self, layer: str, shape: Shape, fan_in: int | None = None) -> Array:
        deviation = np.float32(math.sqrt(2 / (fan_in or math.prod(shape[:-1]))))

        def draw(n: Shape) -> Array:
            kernel = self._normal(n)
            kernel *= deviation
            return kernel

        return self._weight(layer, "kernel", shape, draw)

    def _bias(
        self, layer: str, size: int, operand: str = "bias", deviation: float = 0.1
    ) -> Array:
        return self._weight(
            layer, operand, (size,), lambda n: np.float32(deviation) * self._normal(n)
        )

    def _normal(self, shape: Shape) -> Array:
        return self._random.standard_normal(shape, np.float32)

    def _uniform(self, low: float, high: float) -> Callable[[Shape], Array]:
        return lambda shape: self._random.uniform(low, high, shape)
