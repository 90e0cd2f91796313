"""How fast a core multiplies and adds when nothing else holds it up.

Ten sums in registers, more than the multiplier has products under way, and nothing read
from memory. What kernels reach is measured against this.
"""

from simd cimport LANES, splat, vec

cdef extern from "team.h" nogil:
    double seconds() noexcept

cdef extern from *:
    """
    /* Read after the clock before it and written before the clock after it. */
    typedef volatile float observed;
    """
    ctypedef float observed

cdef enum:
    SUMS = 10
    ROUNDS = 20000


cdef double rounds(observed* number) noexcept nogil:
    """Return the seconds of ROUNDS steps of every sum."""
    cdef vec sums[SUMS]
    cdef vec scale, step
    cdef double start = seconds()
    cdef int i, k
    scale = splat(number[0])
    step = splat(number[1])
    for i in range(SUMS):
        sums[i] = splat(<float>i)
    for k in range(ROUNDS):
        for i in range(SUMS):
            sums[i] = sums[i] * scale + step
    for i in range(1, SUMS):
        sums[0] = sums[0] + sums[i]
    number[2] = (<float*>&sums[0])[0]
    return seconds() - start


def gflops(int tries=20):
    """Return the most GFLOP/s seen on this core in `tries` short measurements."""
    cdef double best = 1e9
    cdef observed[3] number
    cdef int i
    number[0] = 0.999
    number[1] = 0.001
    with nogil:
        for i in range(tries):
            best = min(best, rounds(number))
    return 2e-9 * ROUNDS * SUMS * LANES / best
