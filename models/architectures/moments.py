"""Mean and variance of every channel, followed through a network without running it.

Random weights are of zero mean and independent of what they are applied to, so both
moments of a convolution's output follow from those of its input. What is not linear
is integrated over a normal distribution of these moments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from striate import ops
from striate.spec import Array

POINTS, SHARES = np.polynomial.hermite_e.hermegauss(32)
"""Where to evaluate a function of a normal number, and what each value counts."""

GRID = np.linspace(-6, 6, 601)
"""Where the distribution of the largest of several normal numbers is evaluated."""


@dataclass(frozen=True)
class Moments:
    """Mean and variance of each channel of a value."""

    mean: Array
    variance: Array

    @classmethod
    def standard(cls, channels: int) -> Moments:
        """Return mean 0 and variance 1."""
        return cls(np.zeros(channels), np.ones(channels))

    def over(self, channels: int) -> Moments:
        """Return the moments for another number of channels, averaged if it differs."""
        if channels == len(self.mean):
            return self
        return Moments(
            np.full(channels, self.mean.mean()), np.full(channels, self.variance.mean())
        )

    def filtered(self, kernel: Array, groups: int = 1) -> Moments:
        """Return the moments behind a kernel (..., in / groups, out)."""
        weights = kernel.reshape(
            -1, kernel.shape[-2], groups, kernel.shape[-1] // groups
        )
        means = self.mean.reshape(groups, -1)
        variances = self.variance.reshape(groups, -1)
        sums = weights.sum(axis=0, dtype=np.float64)
        squares = np.einsum("tigo,tigo->igo", weights, weights, dtype=np.float64)
        return Moments(
            np.einsum("igo,gi->go", sums, means).reshape(-1),
            np.einsum("igo,gi->go", squares, variances).reshape(-1),
        )

    def scaled(self, factor: Array, offset: Array) -> Moments:
        """Return the moments of ``x * factor + offset``."""
        return Moments(self.mean * factor + offset, self.variance * factor**2)


def after(op: ops.Op, inputs: Sequence[Moments]) -> tuple[Moments, ...]:
    """Return the moments of an operator's outputs, as if its inputs were independent.

    Operators that only move elements, and those not known here, keep the moments of
    their first input.
    """
    first = inputs[0] if inputs else Moments.standard(1)
    if isinstance(op, ops.Activation):
        return (_bent(op, first),)
    if isinstance(op, ops.Add):
        return (
            Moments(*(sum(pair) for pair in zip(*map(_pair, inputs), strict=True))),
        )
    if isinstance(op, ops.Mul):
        return (_multiplied(*inputs),)
    if isinstance(op, ops.Concat):
        return (Moments(*map(np.concatenate, zip(*map(_pair, inputs), strict=True))),)
    if isinstance(op, ops.Split):
        cuts = np.cumsum(op.sizes)[:-1]
        parts = (np.split(each, cuts) for each in _pair(first))
        return tuple(Moments(*part) for part in zip(*parts, strict=True))
    if isinstance(op, ops.ChannelShuffle):
        return (Moments(*(op.reference(each) for each in _pair(first))),)
    if isinstance(op, ops.MaxPool):
        return (_largest(first, math.prod(op.kernel)),)
    if isinstance(op, ops.AveragePool):
        return (Moments(first.mean, first.variance / math.prod(op.kernel)),)
    return (first,)


def _pair(moments: Moments) -> tuple[Any, Any]:
    return moments.mean, moments.variance


def _bent(op: ops.Activation, x: Moments) -> Moments:
    shares = SHARES / SHARES.sum()
    y = op.reference(x.mean[:, None] + np.sqrt(x.variance)[:, None] * POINTS)
    mean = y @ shares
    return Moments(mean, np.maximum(y**2 @ shares - mean**2, 0))


def _multiplied(x: Moments, y: Moments) -> Moments:
    squares = (x.variance + x.mean**2) * (y.variance + y.mean**2)
    mean = x.mean * y.mean
    return Moments(mean, squares - mean**2)


def _largest(x: Moments, count: int) -> Moments:
    """Return the moments of the largest of `count` rectified numbers.

    Rectifying takes as much of the variance as the largest of several then lacks.
    """
    below = np.array([(1 + math.erf(z / math.sqrt(2))) / 2 for z in GRID]) ** count
    middles = (GRID[1:] + GRID[:-1]) / 2
    return Moments(
        x.mean + np.sqrt(x.variance) * (middles @ np.diff(below)), x.variance
    )
