"""Questions about single numbers, answered by one byte each: is it NaN, is it infinite."""

from libc.math cimport INFINITY
from libc.stdint cimport uint8_t
from loops cimport Block, Nest, block_at, nest
from step cimport bound, share


cdef struct Geometry:
    Nest nest
    bint nan
    bint negative
    bint positive


cdef inline void rows(
    const bint nan, const Geometry* g, const Block* b, uint8_t* out, const float* x
) noexcept nogil:
    """Answer for one block."""
    cdef Py_ssize_t last = g.nest.rank - 1, step = g.nest.strides[1][last]
    cdef float low = -INFINITY if g.negative else INFINITY
    cdef float high = INFINITY if g.positive else -INFINITY
    cdef Py_ssize_t row, i
    cdef float v
    for row in range(b.rows):
        for i in range(b.n):
            v = x[i * step]
            if nan:
                out[i] = v != v
            else:
                out[i] = (g.negative & (v == low)) | (g.positive & (v == high))
        out += b.stride[0]
        x += b.stride[1]


cdef void run(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t unit = share(g.nest.work, part, parts)
    cdef Py_ssize_t end = share(g.nest.work, part + 1, parts)
    cdef uint8_t* out
    cdef const float* x
    cdef Block b
    while unit < end:
        unit += block_at(&g.nest, unit, end, &b)
        out = <uint8_t*>operand[0] + b.offset[0]
        x = <const float*>operand[1] + b.offset[1]
        if g.nan:
            rows(True, g, &b, out, x)
        else:
            rows(False, g, &b, out, x)


def classify(
    tuple shape, tuple out_strides, tuple x_strides, bint nan, bint negative,
    bint positive,
):
    """Return the kernel; operands (out, x), bytes and float32.

    Parameters
    ----------
    shape, out_strides, x_strides : tuple of int
        At most 8 axes; strides in elements.
    nan : bool
        Whether to ask for NaN; otherwise for infinity.
    negative, positive : bool
        Which infinities count.
    """
    cdef Geometry g
    g.nest = nest(shape, (out_strides, x_strides), True)
    g.nan, g.negative, g.positive = nan, negative, positive
    return bound(run, &g, sizeof(g))
