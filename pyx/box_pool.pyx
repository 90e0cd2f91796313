"""Pooling over boxes: every output position reduces a box of input positions.

Along each axis a table says where the boxes begin and how many positions they hold, so
that windows which slide, adapt to the output's size or are drawn by lot are one loop;
what lies outside the input is in no box. A vector of channels is reduced at once.

A power pool is the p-th root of the sum of the p-th powers of magnitudes. The index of
a largest value counts elements of the whole input, in the order the caller asks for; of
equal values the first of a box counts, and NaN is larger than any number.
"""

from libc.math cimport INFINITY, pow
from libc.stdint cimport int64_t
from simd cimport (
    LANES, above, choose, first_lanes, ivec, larger, load_n, splat, store_n, unordered,
    vabs, vec, vsqrt,
)
from step cimport bound, share

cdef enum:
    MAX = 0
    AVERAGE = 1
    POWER = 2

KINDS = {"max": MAX, "average": AVERAGE, "power": POWER}
"""What a box is reduced to."""


cdef struct Geometry:
    Py_ssize_t images
    Py_ssize_t channels
    Py_ssize_t size[3]      # output planes, rows, pixels
    Py_ssize_t dilation[3]
    Py_ssize_t x[4]         # distances between images, planes, rows, pixels
    Py_ssize_t y[4]
    Py_ssize_t z[4]         # of the indices
    Py_ssize_t place[3]     # what a step along an axis adds to a position's number
    Py_ssize_t image        # and an image, a position and a channel to an index
    Py_ssize_t position
    Py_ssize_t channel
    int kind
    int power


cdef struct Box:
    # Along each axis: the first input position, and how many.
    Py_ssize_t first[3]
    Py_ssize_t count[3]


cdef inline vec powered(vec v, int power) noexcept nogil:
    """Return |v| to a whole power."""
    cdef vec size = vabs(v)
    cdef vec result = size
    cdef int i
    for i in range(power - 1):
        result = result * size
    return result


cdef inline vec rooted(vec v, int power) noexcept nogil:
    """Return the root of v >= 0."""
    cdef float lane[LANES]
    cdef int i
    if power == 1:
        return v
    if power == 2:
        return vsqrt(v)
    store_n(lane, v, LANES)
    for i in range(LANES):
        lane[i] = <float>pow(lane[i], 1.0 / power)
    return load_n(lane, LANES)


cdef inline void reduce_box(
    const int kind, const Geometry* g, const Box* b, const float* x, float* y, int n
) noexcept nogil:
    """Reduce one box of one vector of channels; `x` is its first position."""
    cdef vec total = splat(-INFINITY if kind == MAX else 0.0)
    cdef vec v
    cdef Py_ssize_t d, h, i
    cdef Py_ssize_t step = g.dilation[2] * g.x[3]
    cdef const float* p
    for d in range(b.count[0]):
        for h in range(b.count[1]):
            p = x + d * g.dilation[0] * g.x[1] + h * g.dilation[1] * g.x[2]
            for i in range(b.count[2]):
                v = load_n(p, n)
                if kind == MAX:
                    total = larger(total, v)
                elif kind == AVERAGE:
                    total = total + v
                elif g.power == 2:
                    total = total + v * v
                else:
                    total = total + powered(v, g.power)
                p += step
    if kind == AVERAGE:
        total = total / splat(<float>(b.count[0] * b.count[1] * b.count[2]))
    elif kind == POWER:
        total = rooted(total, g.power)
    store_n(y, total, n)


cdef inline void find_largest(
    const Geometry* g, const Box* b, const float* x, float* y, int64_t* z,
    int64_t base, int n,
) noexcept nogil:
    """Find the largest value of a box and the number of its position."""
    cdef vec best = splat(-INFINITY)
    cdef vec v
    cdef ivec none = first_lanes(0)
    cdef ivec wins
    cdef ivec found
    cdef ivec here
    cdef int place[LANES]
    cdef Py_ssize_t d, h, i, at
    cdef Py_ssize_t step = g.dilation[2] * g.x[3]
    cdef const float* p
    at = b.first[0] * g.place[0] + b.first[1] * g.place[1] + b.first[2] * g.place[2]
    found = none + <int>at
    for d in range(b.count[0]):
        for h in range(b.count[1]):
            p = x + d * g.dilation[0] * g.x[1] + h * g.dilation[1] * g.x[2]
            at = (
                (b.first[0] + d * g.dilation[0]) * g.place[0]
                + (b.first[1] + h * g.dilation[1]) * g.place[1]
                + b.first[2] * g.place[2]
            )
            for i in range(b.count[2]):
                v = load_n(p, n)
                here = none + <int>at
                wins = above(v, best) | (unordered(v) & ~unordered(best))
                best = choose(wins, v, best)
                found = <ivec>choose(wins, <vec>here, <vec>found)
                p += step
                at += g.dilation[2] * g.place[2]
    store_n(y, best, n)
    store_n(<float*>place, <vec>found, LANES)
    for i in range(n):
        z[i] = base + place[i] * g.position + i * g.channel


cdef inline void run_row(
    const int kind, const Geometry* g, const int64_t* table, Box* b, const float* x,
    float* y, int n,
) noexcept nogil:
    """Reduce the boxes of one output row; their planes and rows are known."""
    cdef Py_ssize_t pixel
    for pixel in range(g.size[2]):
        b.count[2] = table[2 * pixel + 1]
        reduce_box(kind, g, b, x + table[2 * pixel] * g.x[3], y, n)
        y += g.y[3]


cdef inline Py_ssize_t find_row(
    const Geometry* g, const int64_t* table, Py_ssize_t row, Box* b, Py_ssize_t* at
) noexcept nogil:
    """Fill in the planes and rows of an output row's boxes; return its image."""
    at[1] = row % g.size[1]
    row = row // g.size[1]
    at[0] = row % g.size[0]
    b.first[0] = table[2 * at[0]]
    b.count[0] = table[2 * at[0] + 1]
    table += 2 * g.size[0]
    b.first[1] = table[2 * at[1]]
    b.count[1] = table[2 * at[1] + 1]
    return row // g.size[0]


cdef void run_pool(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef const int64_t* table = <const int64_t*>operand[2]
    cdef Py_ssize_t vectors = (g.channels + LANES - 1) // LANES
    cdef Py_ssize_t units = g.images * g.size[0] * g.size[1] * vectors
    cdef Py_ssize_t unit, image, c
    cdef Py_ssize_t at[2]
    cdef const int64_t* pixels = table + 2 * (g.size[0] + g.size[1])
    cdef const float* x
    cdef float* y
    cdef Box b
    cdef int n
    for unit in range(share(units, part, parts), share(units, part + 1, parts)):
        image = find_row(g, table, unit // vectors, &b, at)
        c = unit % vectors * LANES
        n = <int>min(<Py_ssize_t>LANES, g.channels - c)
        x = <const float*>operand[1] + image * g.x[0] + c
        x += b.first[0] * g.x[1] + b.first[1] * g.x[2]
        y = <float*>operand[0] + image * g.y[0] + at[0] * g.y[1] + at[1] * g.y[2] + c
        if g.kind == MAX:
            run_row(MAX, g, pixels, &b, x, y, n)
        elif g.kind == AVERAGE:
            run_row(AVERAGE, g, pixels, &b, x, y, n)
        else:
            run_row(POWER, g, pixels, &b, x, y, n)


cdef void run_with_indices(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef const int64_t* table = <const int64_t*>operand[3]
    cdef Py_ssize_t vectors = (g.channels + LANES - 1) // LANES
    cdef Py_ssize_t units = g.images * g.size[0] * g.size[1] * vectors
    cdef Py_ssize_t unit, image, c, pixel
    cdef Py_ssize_t at[2]
    cdef const int64_t* pixels = table + 2 * (g.size[0] + g.size[1])
    cdef const float* x
    cdef float* y
    cdef int64_t* z
    cdef Box b
    cdef int n
    for unit in range(share(units, part, parts), share(units, part + 1, parts)):
        image = find_row(g, table, unit // vectors, &b, at)
        c = unit % vectors * LANES
        n = <int>min(<Py_ssize_t>LANES, g.channels - c)
        x = <const float*>operand[2] + image * g.x[0] + c
        x += b.first[0] * g.x[1] + b.first[1] * g.x[2]
        y = <float*>operand[0] + image * g.y[0] + at[0] * g.y[1] + at[1] * g.y[2] + c
        z = <int64_t*>operand[1] + image * g.z[0] + at[0] * g.z[1] + at[1] * g.z[2] + c
        for pixel in range(g.size[2]):
            b.first[2] = pixels[2 * pixel]
            b.count[2] = pixels[2 * pixel + 1]
            find_largest(g, &b, x + b.first[2] * g.x[3], y, z,
                         image * g.image + c * g.channel, n)
            y += g.y[3]
            z += g.z[3]


def pool(Py_ssize_t images, Py_ssize_t channels, size, dilation, x, y, int kind,
         int power):
    """Bind pooling over boxes.

    Operands: output, input, table.

    Parameters
    ----------
    images, channels : int
    size, dilation : tuple of 3 int
        Of output planes, rows and pixels; how far apart a box's positions are.
    x, y : tuple of 4 int
        Distances between images, planes, rows and pixels.
    kind : int
        One of `KINDS`.
    power : int
        Of a power pool.

    Notes
    -----
    The table (int64) holds, for each output plane, then each row, then each pixel, the
    first input position of its boxes and how many there are.
    """
    cdef Geometry g
    cdef int axis
    g.images = images
    g.channels = channels
    for axis in range(3):
        g.size[axis] = size[axis]
        g.dilation[axis] = dilation[axis]
    for axis in range(4):
        g.x[axis] = x[axis]
        g.y[axis] = y[axis]
    g.kind = kind
    g.power = power
    return bound(run_pool, &g, sizeof(g))


def pool_with_indices(Py_ssize_t images, Py_ssize_t channels, size, dilation, x, y, z,
                      place, Py_ssize_t image, Py_ssize_t position,
                      Py_ssize_t channel):
    """Bind max pooling that also says where each largest value was.

    Operands: values, indices (int64), input, table; otherwise as `pool`.

    Parameters
    ----------
    z : tuple of 4 int
        Distances in the indices.
    place : tuple of 3 int
        What a step along an axis of the input adds to the number of a position.
    image, position, channel : int
        What an image, a position and a channel add to an index.
    """
    cdef Geometry g
    cdef int axis
    g.images = images
    g.channels = channels
    for axis in range(3):
        g.size[axis] = size[axis]
        g.dilation[axis] = dilation[axis]
        g.place[axis] = place[axis]
    for axis in range(4):
        g.x[axis] = x[axis]
        g.y[axis] = y[axis]
        g.z[axis] = z[axis]
    g.image = image
    g.position = position
    g.channel = channel
    return bound(run_with_indices, &g, sizeof(g))
