"""Memory for what kernels read, on large pages where these are at hand."""

from __future__ import annotations

import mmap
from contextlib import suppress
from threading import Event
from time import perf_counter

import numpy as np

from .spec import Array

LARGE_PAGE = 1 << 21
"""Bytes of a large page."""

SLOW_SECONDS = 2e-3
"""The first touch of a large page that takes longer has waited for more than zeros."""

_WAITED = Event()
"""Set once that has happened; the process then asks for no more large pages."""


def aligned_zeros(elements: int, dtype: str = "float32") -> Array:
    """Return a flat array of zeros that begins on a cache line."""
    nbytes = elements * np.dtype(dtype).itemsize
    if nbytes >= LARGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        return np.frombuffer(_mapped(nbytes), dtype)
    raw = np.zeros(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes].view(dtype)


def _mapped(nbytes: int) -> mmap.mmap:
    """Return memory whose pages are large where they come quickly.

    A first touch of each small page would take longer than filling it. But if the host
    of a virtual machine has taken back the memory that was free here, a large page
    waits for it, much longer than the small ones together. The first of each piece
    tells.
    """
    try:
        memory = mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no memory for {nbytes} bytes") from error
    if _WAITED.is_set():
        return memory
    first = -np.frombuffer(memory, np.uint8).ctypes.data % LARGE_PAGE
    with suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
        if first + LARGE_PAGE <= nbytes:
            began = perf_counter()
            memory[first] = 0
            if perf_counter() - began > SLOW_SECONDS:
                _WAITED.set()
                memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory
