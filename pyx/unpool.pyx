"""Putting values where indices say, zeros elsewhere.

A thread owns some rows of the output: it clears them, then goes through all indices and
writes what falls there. So no thread waits for another, and of several values for one
place the last is kept whatever the number of threads. Indices outside the output are
passed over.
"""

from libc.stdint cimport int64_t
from libc.string cimport memset
from step cimport bound, share


cdef struct Geometry:
    Py_ssize_t inner[4]     # input images, planes, rows, pixels
    Py_ssize_t outer[4]
    Py_ssize_t channels
    Py_ssize_t x[4]         # distances
    Py_ssize_t z[4]         # of the indices
    Py_ssize_t y[4]
    bint channels_first


cdef void run_unpool(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef float* out = <float*>operand[0]
    cdef Py_ssize_t rows = g.outer[1] * g.outer[2]
    cdef Py_ssize_t first = share(g.outer[0] * rows, part, parts)
    cdef Py_ssize_t end = share(g.outer[0] * rows, part + 1, parts)
    cdef Py_ssize_t positions = rows * g.outer[3]
    cdef int64_t volume = positions * g.channels
    cdef int64_t low = first * g.outer[3] * g.channels
    cdef int64_t high = end * g.outer[3] * g.channels
    cdef Py_ssize_t image, d, h, i, c, row, place, channel
    cdef int64_t at
    cdef const float* x
    cdef const int64_t* z
    cdef float* y
    for row in range(first, end):
        y = (
            out + row // rows * g.y[0] + row % rows // g.outer[2] * g.y[1]
            + row % g.outer[2] * g.y[2]
        )
        for i in range(g.outer[3]):
            memset(y + i * g.y[3], 0, g.channels * sizeof(float))
    for image in range(g.inner[0]):
        for d in range(g.inner[1]):
            for h in range(g.inner[2]):
                for i in range(g.inner[3]):
                    x = (
                        <const float*>operand[1] + image * g.x[0] + d * g.x[1]
                        + h * g.x[2] + i * g.x[3]
                    )
                    z = (
                        <const int64_t*>operand[2] + image * g.z[0] + d * g.z[1]
                        + h * g.z[2] + i * g.z[3]
                    )
                    for c in range(g.channels):
                        at = z[c]
                        if at < 0 or at >= g.outer[0] * volume:
                            continue
                        if not g.channels_first:
                            if at < low or at >= high:
                                continue
                            row = at // volume
                            channel = at % g.channels
                            place = at % volume // g.channels
                        else:
                            row = at // volume
                            channel = at % volume // positions
                            place = at % positions
                        if not first <= row * rows + place // g.outer[3] < end:
                            continue
                        y = out + row * g.y[0] + place % g.outer[3] * g.y[3] + channel
                        place = place // g.outer[3]
                        y[place // g.outer[2] * g.y[1] + place % g.outer[2] * g.y[2]] = (
                            x[c]
                        )


def unpool(inner, outer, Py_ssize_t channels, x, z, y, bint channels_first):
    """Bind unpooling.

    Operands: output, values, indices (int64).

    Parameters
    ----------
    inner, outer : tuple of 4 int
        Input and output images, planes, rows and pixels.
    channels : int
    x, z, y : tuple of 4 int
        Distances of values, indices and output between images, planes, rows, pixels.
    channels_first : bool
        Whether indices count channels before positions.
    """
    cdef Geometry g
    cdef int axis
    for axis in range(4):
        g.inner[axis] = inner[axis]
        g.outer[axis] = outer[axis]
        g.x[axis] = x[axis]
        g.z[axis] = z[axis]
        g.y[axis] = y[axis]
    g.channels = channels
    g.channels_first = channels_first
    return bound(run_unpool, &g, sizeof(g))
