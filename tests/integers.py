"""What hypothesis draws for operators on whole numbers."""

import numpy as np
from hypothesis import strategies as st
from strategies import shapes

INTEGERS = ["int8", "uint8", "int32", "int64"]
"""The element types of whole numbers."""


@st.composite
def stretching(draw):
    """Draw two shapes that broadcast together."""
    shape = draw(shapes())
    keep = [draw(st.booleans()) for _ in shape]
    thin = tuple(n if k else 1 for n, k in zip(shape, keep, strict=True))
    return draw(st.permutations([shape, draw(st.sampled_from([thin, shape, ()]))]))


def any_integers(rng, shape, dtype):
    """Return numbers of the whole range, and often its ends, zero and minus one."""
    limits = np.iinfo(dtype)
    x = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    ends = np.array([limits.min, limits.max, 0, 1, -1]).astype(dtype)
    return np.where(rng.random(shape) < 0.5, rng.choice(ends, shape), x).astype(dtype)
