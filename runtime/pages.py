"""Memory for what kernels read, on large pages where the system has them."""

from __future__ import annotations

import mmap
from contextlib import suppress

import numpy as np

from .spec import Array

LARGE_PAGE = 1 << 21
"""Bytes of a large page."""


def aligned_zeros(elements: int, dtype: str = "float32") -> Array:
    """Return a flat array of zeros that begins on a cache line.

    On large pages a first touch of all of it is quicker, and weights that are read once
    a run, those of dense layers above all, come faster.
    """
    nbytes = elements * np.dtype(dtype).itemsize
    if nbytes >= LARGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        return np.frombuffer(_mapped(nbytes), dtype)
    raw = np.zeros(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes].view(dtype)


def _mapped(nbytes: int) -> mmap.mmap:
    try:
        memory = mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no memory for {nbytes} bytes") from error
    with suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
