"""What hypothesis draws: shapes around the vector width, and numbers."""

import numpy as np
from hypothesis import strategies as st

WIDTHS = (1, 7, 8, 9, 15, 16, 17, 31, 32, 33)
"""Sizes around the vector width of every instruction set."""


def widths():
    """Draw the size of a last axis."""
    return st.sampled_from(WIDTHS)


def shapes(least=1, most=4):
    """Draw a shape of `least` to `most` axes, the last of a width that matters."""
    return st.integers(least, most).flatmap(
        lambda rank: st.tuples(*[st.integers(1, 4)] * (rank - 1), widths())
    )


def images(spatial=(1, 3)):
    """Draw the shape of an image batch with so many spatial axes."""
    return st.integers(*spatial).flatmap(
        lambda axes: st.tuples(st.integers(1, 2), *[st.integers(1, 6)] * axes, widths())
    )


def generators():
    """Draw a random number generator."""
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


def whole(rng, shape):
    """Return small whole numbers: every sum of their products is exact."""
    return rng.integers(-8, 9, shape).astype(np.float32)


def normal(rng, shape, scale=1.0):
    """Return numbers of a normal distribution."""
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def any_magnitude(rng, shape):
    """Return numbers of either sign and of every magnitude that is not denormal."""
    exponent = rng.uniform(-125, 127, shape)
    return (rng.choice([-1.0, 1.0], shape) * 2**exponent).astype(np.float32)
