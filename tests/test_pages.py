"""Memory on large pages where these are at hand."""

import itertools
import mmap
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from striate import pages
from striate.pages import LARGE_PAGE, aligned_zeros

SIZE = 3 * LARGE_PAGE
LARGE, SMALL = "hg", "nh"
"""What the system notes of memory for which large or small pages were asked."""


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


@pytest.fixture
def touches(monkeypatch):
    """Let first touches of large pages take the seconds that are put in a list."""
    seconds = []
    clock = itertools.count()
    monkeypatch.setattr(pages, "_WAITED", Event())
    monkeypatch.setattr(
        pages, "perf_counter", lambda: seconds.pop(0) if next(clock) % 2 else 0.0
    )
    return seconds


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
def test_large_pages_until_one_has_waited(touches):
    touches += [1e-4, 1e-1]
    quick, slow, later = (aligned_zeros(SIZE // 4) for _ in range(3))
    assert LARGE in flags_of(quick)
    assert SMALL in flags_of(slow)
    assert LARGE not in flags_of(slow)
    assert LARGE not in flags_of(later)
    assert touches == []
    for array in (quick, slow, later):
        assert not array.any()
        array[:] = 1
