"""Adding blocks into the image they overlap in: the adjoint of taking them out.

Every pixel of the image gathers what the blocks that cover it hold for it, so nothing
is added to memory, and the order of a sum is the order of the taps.
"""

from libc.stdint cimport int64_t
from simd cimport LANES, load_n, splat, store_n, vec
from step cimport bound, share


cdef struct Geometry:
    Py_ssize_t images
    Py_ssize_t size[3]      # planes, rows and pixels of the image
    Py_ssize_t channels
    Py_ssize_t x            # distance between input images
    Py_ssize_t y[4]         # distances between images, planes, rows, pixels


cdef inline void gather(
    const int64_t* const* list, const float* x, float* y, int n
) noexcept nogil:
    """Add up one vector of channels of a pixel.

    Each of the three lists holds a count, then that many offsets.
    """
    cdef vec total = splat(0)
    cdef Py_ssize_t d, h, i
    cdef const float* p
    for d in range(list[0][0]):
        for h in range(list[1][0]):
            p = x + list[0][d + 1] + list[1][h + 1]
            for i in range(list[2][0]):
                total = total + load_n(p + list[2][i + 1], n)
    store_n(y, total, n)


cdef void run_col2im(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef const int64_t* table = <const int64_t*>operand[2]
    cdef Py_ssize_t rows = g.images * g.size[0] * g.size[1]
    cdef Py_ssize_t most = table[0]
    cdef Py_ssize_t row, i, c, pixel
    cdef const int64_t* list[3]
    cdef const float* x
    cdef float* y
    cdef float* out
    table += 1
    for row in range(share(rows, part, parts), share(rows, part + 1, parts)):
        i = row % g.size[1]
        list[1] = table + (g.size[0] + i) * most
        y = <float*>operand[0] + i * g.y[2]
        i = row // g.size[1] % g.size[0]
        list[0] = table + i * most
        y += i * g.y[1]
        i = row // g.size[1] // g.size[0]
        y += i * g.y[0]
        x = <const float*>operand[1] + i * g.x
        for pixel in range(g.size[2]):
            list[2] = table + (g.size[0] + g.size[1] + pixel) * most
            out = y + pixel * g.y[3]
            c = 0
            while c < g.channels:
                gather(list, x + c, out + c,
                       <int>min(<Py_ssize_t>LANES, g.channels - c))
                c += LANES


def col2im(Py_ssize_t images, size, Py_ssize_t channels, Py_ssize_t x, y):
    """Bind the addition of blocks.

    Operands: output, input, table.

    Parameters
    ----------
    images, channels : int
    size : tuple of 3 int
        Planes, rows and pixels of the image.
    x : int
        Distance between input images.
    y : tuple of 4 int
        Distances between output images, planes, rows and pixels.

    Notes
    -----
    The table (int64) begins with the length of its lists. Then there is a list for each
    plane, each row and each pixel: how many blocks cover it along that axis, and what
    each adds to the place of the input, filled up to that length.
    """
    cdef Geometry g
    cdef int axis
    g.images = images
    g.channels = channels
    g.x = x
    for axis in range(3):
        g.size[axis] = size[axis]
    for axis in range(4):
        g.y[axis] = y[axis]
    return bound(run_col2im, &g, sizeof(g))
