"""Means over any axes.

# Design
Axes are either kept or reduced. Where the input is dense along a kept axis, vectors run
along it and each lane adds up its own output; up to WIDE vectors go on at once so that
additions do not wait for each other. Where it is dense along a reduced axis, WIDE vectors
add up one output and their lanes are added at the end. The sums are float32; the order
of additions depends on the shape alone.

A unit of work is one row of up to WIDE vectors of outputs, or one output.
"""

from loops cimport Nest, locate, merged, nest
from simd cimport *
from step cimport bound, share

cdef enum:
    WIDE = 4


cdef struct Geometry:
    Nest kept
    Nest reduced
    Py_ssize_t chunks
    Py_ssize_t work
    float count


cdef inline void add_columns(
    float* out, const float* x, const Geometry* g, const int wide, int lanes
) noexcept nogil:
    """Write `wide` vectors of means; the last one has `lanes` lanes."""
    cdef vec total[WIDE]
    cdef Py_ssize_t last = g.reduced.rank - 1
    cdef Py_ssize_t n = g.reduced.shape[last], stride = g.reduced.strides[0][last]
    cdef Py_ssize_t outer, k, offset
    cdef const float* p
    cdef int i
    for i in range(WIDE):
        total[i] = splat(0)
    for outer in range(g.reduced.work // n):
        locate(&g.reduced, outer, last, &offset)
        p = x + offset
        for k in range(n):
            for i in range(wide):
                total[i] = total[i] + load_n(
                    p + i * LANES, lanes if i == wide - 1 else LANES
                )
            p += stride
    for i in range(wide):
        store_n(
            out + i * LANES, total[i] / splat(g.count), lanes if i == wide - 1 else LANES
        )


cdef inline void add_chunk(
    float* out, const float* x, const Geometry* g, Py_ssize_t n
) noexcept nogil:
    """Write n means, 1 <= n <= WIDE * LANES."""
    cdef int wide = <int>((n + LANES - 1) // LANES)
    cdef int lanes = <int>(n - (wide - 1) * LANES)
    if n == WIDE * LANES:
        add_columns(out, x, g, WIDE, LANES)
    elif wide == 4:
        add_columns(out, x, g, 4, lanes)
    elif wide == 3:
        add_columns(out, x, g, 3, lanes)
    elif wide == 2:
        add_columns(out, x, g, 2, lanes)
    else:
        add_columns(out, x, g, 1, lanes)


cdef void run_columns(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t last = g.kept.rank - 1
    cdef Py_ssize_t offset[2]
    cdef Py_ssize_t unit, first
    for unit in range(share(g.work, part, parts), share(g.work, part + 1, parts)):
        locate(&g.kept, unit // g.chunks, last, offset)
        first = unit % g.chunks * WIDE * LANES
        add_chunk(
            <float*>operand[0] + offset[0] + first,
            <const float*>operand[1] + offset[1] + first,
            g, min(g.kept.shape[last] - first, <Py_ssize_t>(WIDE * LANES)),
        )


cdef inline float mean_of_rows(const float* x, const Geometry* g) noexcept nogil:
    """Return the mean of all reduced elements, which lie in dense rows."""
    cdef vec total[WIDE]
    cdef Py_ssize_t last = g.reduced.rank - 1
    cdef Py_ssize_t n = g.reduced.shape[last]
    cdef Py_ssize_t outer, k, offset, whole = n // (WIDE * LANES)
    cdef const float* p
    cdef int i
    for i in range(WIDE):
        total[i] = splat(0)
    for outer in range(g.reduced.work // n):
        locate(&g.reduced, outer, last, &offset)
        p = x + offset
        for k in range(whole):
            for i in range(WIDE):
                total[i] = total[i] + load(p + i * LANES)
            p += WIDE * LANES
        k = n - whole * WIDE * LANES
        while k > 0:
            total[0] = total[0] + load_n(p, <int>min(k, <Py_ssize_t>LANES))
            p += LANES
            k -= LANES
    for i in range(1, WIDE):
        total[0] = total[0] + total[i]
    return sum_lanes(total[0]) / g.count


cdef void run_rows(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t offset[2]
    cdef Py_ssize_t unit
    for unit in range(share(g.work, part, parts), share(g.work, part + 1, parts)):
        locate(&g.kept, unit, g.kept.rank, offset)
        (<float*>operand[0])[offset[0]] = mean_of_rows(
            <const float*>operand[1] + offset[1], g
        )


def mean(
    tuple kept_shape, tuple out_strides, tuple kept_x_strides,
    tuple reduced_shape, tuple reduced_x_strides,
):
    """Return the kernel of means; operands (out, x).

    Parameters
    ----------
    kept_shape, out_strides, kept_x_strides : tuple of int
        The axes that remain; strides in elements.
    reduced_shape, reduced_x_strides : tuple of int
        The axes over which the mean is taken.
    """
    cdef Geometry g
    cdef Py_ssize_t last
    g.reduced = merged(reduced_shape, (reduced_x_strides,))
    g.count = g.reduced.work
    last = g.reduced.rank - 1
    if last > 0 and g.reduced.strides[0][last] == 1:
        g.kept = merged(kept_shape, (out_strides, kept_x_strides))
        g.work = g.kept.work
        g.chunks = 1
        return bound(run_rows, &g, sizeof(g))
    g.kept = nest(kept_shape, (out_strides, kept_x_strides))
    last = g.kept.rank - 1
    g.chunks = (g.kept.shape[last] + WIDE * LANES - 1) // (WIDE * LANES)
    g.work = g.chunks
    for axis in range(last):
        g.work *= g.kept.shape[axis]
    return bound(run_columns, &g, sizeof(g))
