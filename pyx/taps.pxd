"""Weighted sums of a few places of a tensor, a vector of channels at a time."""

from libc.string cimport memcpy
from simd cimport *

cdef enum:
    MOST_TAPS = 64
    MOST_VECTORS = 4


cdef struct Taps:
    # Places by their offset in elements, and their weights.
    int count
    Py_ssize_t offset[MOST_TAPS]
    float weight[MOST_TAPS]


cdef inline void add_vectors(
    const int wide, float* out, const float* x, const Taps* t, bint again, int lanes
) noexcept nogil:
    """Write `wide` vectors of weighted sums, or add to what is there."""
    cdef vec total[MOST_VECTORS]
    cdef vec w
    cdef const float* p
    cdef int i, k
    for i in range(wide):
        total[i] = load_n(out + i * LANES, lanes) if again else splat(0)
    for k in range(t.count):
        w = splat(t.weight[k])
        p = x + t.offset[k]
        for i in range(wide):
            total[i] = total[i] + w * load_n(p + i * LANES, lanes)
    for i in range(wide):
        store_n(out + i * LANES, total[i], lanes)


cdef inline void add_taps(
    float* out, const float* x, const Taps* t, Py_ssize_t n, bint again
) noexcept nogil:
    """Write the weighted sums of n elements, or add to what is there."""
    cdef Py_ssize_t k = 0
    if t.count == 1 and t.weight[0] == 1 and not again:
        memcpy(out, x + t.offset[0], n * sizeof(float))
        return
    while k + MOST_VECTORS * LANES <= n:
        add_vectors(MOST_VECTORS, out + k, x + k, t, again, LANES)
        k += MOST_VECTORS * LANES
    while k + LANES <= n:
        add_vectors(1, out + k, x + k, t, again, LANES)
        k += LANES
    if k < n:
        add_vectors(1, out + k, x + k, t, again, <int>(n - k))
