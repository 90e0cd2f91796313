import numpy as np
import pytest
from striate.view import LARGE_PAGE, aligned_zeros


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
