"""Memory on large pages where these are at hand."""

import mmap
from pathlib import Path

import numpy as np
import pytest
from striate.pages import LARGE_PAGE, aligned_zeros

SIZE = 3 * LARGE_PAGE


def flags_of(array):
    """Return the flags of the mapping that an array lies in."""
    found = ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.startswith("VmFlags:") and found:
            return line.split()[1:]
        start, dash, rest = line.partition("-")
        if dash and " " in rest and not line.startswith("VmFlags"):
            end = rest.split()[0]
            inside = int(start, 16) <= array.ctypes.data < int(end, 16)
            found = line if inside else ""
    raise AssertionError("no mapping holds the array")


@pytest.mark.parametrize("nbytes", [4, 4096, LARGE_PAGE, 3 * LARGE_PAGE + 68])
def test_zeros_begin_on_a_cache_line(nbytes):
    array = aligned_zeros(nbytes // 4)
    assert (array.nbytes, array.dtype) == (nbytes, np.float32)
    assert array.ctypes.data % 64 == 0
    assert not array.any()
    array[:] = 1


def test_memory_that_is_not_there_is_a_memory_error():
    with pytest.raises(MemoryError):
        aligned_zeros(1 << 60)


@pytest.mark.skipif(
    not hasattr(mmap, "MADV_HUGEPAGE")
    or not Path("/sys/kernel/mm/transparent_hugepage").exists(),
    reason="this system has no large pages to ask for",
)
def test_large_pages_are_asked_for():
    array = aligned_zeros(SIZE // 4)
    assert "hg" in flags_of(array)
    assert not array.any()
    array[:] = 1
