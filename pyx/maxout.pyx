"""Maxout: the largest of neighbouring channels.

The pieces of one output lie side by side, those of the next follow. For the common
small counts the inner loop has literal bounds, so the compiler unrolls it.
"""

from loops cimport Block, Nest, block_at, nest
from step cimport bound, share


cdef struct Geometry:
    Nest nest
    Py_ssize_t pieces


cdef inline void largest(
    float* out, const float* x, Py_ssize_t n, const Py_ssize_t pieces
) noexcept nogil:
    """Write the largest of each `pieces` numbers, NaN if there is one."""
    cdef Py_ssize_t i, k
    cdef float best, v
    for i in range(n):
        best = x[i * pieces]
        for k in range(1, pieces):
            v = x[i * pieces + k]
            best = best if best > v or best != best else v
        out[i] = best


cdef void run_maxout(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t unit = share(g.nest.work, part, parts)
    cdef Py_ssize_t end = share(g.nest.work, part + 1, parts)
    cdef Py_ssize_t row
    cdef float* out
    cdef const float* x
    cdef Block b
    while unit < end:
        unit += block_at(&g.nest, unit, end, &b)
        out = <float*>operand[0] + b.offset[0]
        x = <const float*>operand[1] + b.offset[1]
        for row in range(b.rows):
            if g.pieces == 2:
                largest(out, x, b.n, 2)
            elif g.pieces == 3:
                largest(out, x, b.n, 3)
            elif g.pieces == 4:
                largest(out, x, b.n, 4)
            else:
                largest(out, x, b.n, g.pieces)
            out += b.stride[0]
            x += b.stride[1]


def maxout(shape, out, x, Py_ssize_t pieces):
    """Bind maxout.

    Operands: output, input.

    Parameters
    ----------
    shape : tuple of int
        Of the output.
    out, x : tuple of int
        Strides; that of the last axis of `x` is `pieces`.
    pieces : int
        Neighbouring channels that share an output.
    """
    cdef Geometry g
    g.nest = nest(tuple(shape), (tuple(out), tuple(x)), True)
    g.pieces = pieces
    return bound(run_maxout, &g, sizeof(g))
