"""What random cases are drawn with: numbers, shapes and tensors from a seed."""

import math
from functools import cache

import numpy as np
from onnx import defs

CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 70)
"""Numbers of channels around the vector widths."""

LARGEST = {1: 70, 2: 24, 3: 9}
"""The largest size of a spatial axis, by how many there are."""

OPSETS = range(7, 27)
"""What ONNX Runtime runs."""


class Draw:
    """A source of random choices.

    Parameters
    ----------
    *seed : int
        The same numbers give the same choices.
    """

    def __init__(self, *seed):
        self.rng = np.random.default_rng(seed)

    def integer(self, low, high):
        """Return a whole number from `low` to `high`, both included."""
        return int(self.rng.integers(low, high + 1))

    def real(self, low, high):
        """Return a float32 between two numbers."""
        return float(np.float32(self.rng.uniform(low, high)))

    def chance(self, probability):
        """Return True that often."""
        return bool(self.rng.random() < probability)

    def one_of(self, *options):
        """Return one of the options."""
        return options[int(self.rng.integers(len(options)))]

    def some_of(self, options, least=0):
        """Return some of the options in random order."""
        options = list(options)
        count = self.integer(min(least, len(options)), len(options))
        return [options[int(i)] for i in self.rng.permutation(len(options))[:count]]

    def order(self, count):
        """Return the numbers below `count` in random order."""
        return [int(i) for i in self.rng.permutation(count)]

    def channels(self, most=70):
        """Return a number of channels."""
        if self.chance(0.3):
            return self.integer(1, most)
        return self.one_of(*(c for c in CHANNELS if c <= most))

    def spatial(self, rank):
        """Return spatial sizes."""
        largest = LARGEST[rank]
        return [
            self.one_of(1, 2, 3, 7, min(13, largest))
            if self.chance(0.3)
            else self.integer(1, largest)
            for _ in range(rank)
        ]

    def shape(self, least=1, most=4, elements=4000):
        """Return a shape of so many axes."""
        sizes = []
        for _ in range(self.integer(least, most)):
            room = max(1, elements // math.prod(sizes))
            size = self.channels(33) if self.chance(0.3) else self.integer(1, 6)
            sizes.append(min(size, room))
        return [sizes[i] for i in self.order(len(sizes))]

    def image(self, rank=None, elements=20_000, channels=70):
        """Return a channels-first shape with `rank` spatial axes."""
        spatial = self.spatial(rank or self.one_of(1, 2, 2, 2, 3))
        batch = self.one_of(1, 1, 1, 2, 3)
        room = max(1, elements // (batch * math.prod(spatial)))
        return [batch, min(self.channels(channels), room), *spatial]

    def broadcastable(self, shape):
        """Return a shape that broadcasts to `shape`."""
        kept = shape[self.integer(0, len(shape)) if self.chance(0.4) else 0 :]
        return [1 if self.chance(0.25) else n for n in kept]

    def array(self, shape, dtype="float32", low=-2.0, high=2.0):
        """Return a tensor of some element type."""
        kind = np.dtype(dtype)
        if kind.kind == "b":
            return self.rng.random(shape) < 0.5
        if kind.kind == "f":
            return self.rng.uniform(low, high, shape).astype(dtype)
        least = max(np.iinfo(kind).min, -9)
        return self.rng.integers(least, 10, shape).astype(dtype)

    def normal(self, shape, scale=1.0):
        """Return normally distributed numbers, sometimes whole ones."""
        if self.chance(0.2):
            return self.rng.integers(-4, 5, shape).astype(np.float32)
        return (scale * self.rng.standard_normal(shape)).astype(np.float32)

    def opset(self, op, least=7):
        """Return a version of the operator set, each meaning of `op` as likely."""
        starts = _versions(op)
        ends = [*(start - 1 for start in starts[1:]), OPSETS[-1]]
        ranges = [
            (max(start, least), min(end, OPSETS[-1]))
            for start, end in zip(starts, ends, strict=True)
        ]
        return self.integer(*self.one_of(*(r for r in ranges if r[0] <= r[1])))


@cache
def _versions(op):
    """Return the versions of the operator set in which `op` was defined anew."""
    schemas = defs.get_all_schemas_with_history()
    return sorted(s.since_version for s in schemas if s.name == op and not s.domain)


def known(op, opset, attributes):
    """Return those attributes that the operator has in that version."""
    schema = defs.get_schema(op, opset, "")
    return {n: v for n, v in attributes.items() if n in schema.attributes}
