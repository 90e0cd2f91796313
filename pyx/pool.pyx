"""Pooling: the largest or the mean value of each channel in a sliding window.

A vector of channels is reduced at once. Each output position first finds which part of
its window lies inside the input, so padding needs no memory: what lies outside is never
read. An average divides by the positions inside, or, if padding counts, by those inside
the padded input (a window that ceil mode pushes past the padding counts only up to it).
"""

from libc.math cimport INFINITY
from simd cimport (
    LANES, choose, load_n, splat, store_n, unordered, vec, vmax,
)
from step cimport bound, share


cdef struct Geometry:
    Py_ssize_t images
    Py_ssize_t channels
    Py_ssize_t inner[3]     # input planes, rows, pixels
    Py_ssize_t outer[3]     # output planes, rows, pixels
    Py_ssize_t kernel[3]
    Py_ssize_t stride[3]
    Py_ssize_t dilation[3]
    Py_ssize_t before[3]    # padding
    Py_ssize_t after[3]
    Py_ssize_t x[4]         # distances between images, planes, rows, pixels
    Py_ssize_t y[4]
    bint average
    bint count_padding


cdef struct Window:
    # Along each axis: the first input position inside, how many, and the divisor.
    Py_ssize_t first[3]
    Py_ssize_t count[3]
    Py_ssize_t divisor


cdef inline void clip(
    const Geometry* g, int axis, Py_ssize_t at, Window* w
) noexcept nogil:
    """Find the taps of the window at output position `at` that lie inside."""
    cdef Py_ssize_t step = g.dilation[axis], size = g.inner[axis]
    cdef Py_ssize_t start = at * g.stride[axis] - g.before[axis]
    cdef Py_ssize_t skip = (-start + step - 1) // step if start < 0 else 0
    cdef Py_ssize_t stop = 0
    if start < size:
        stop = min(g.kernel[axis], (size - start + step - 1) // step)
    w.first[axis] = start + skip * step
    w.count[axis] = max(<Py_ssize_t>0, stop - skip)
    if g.count_padding:
        stop = min(
            g.kernel[axis], (size + g.after[axis] - start + step - 1) // step
        )
        w.divisor *= max(<Py_ssize_t>1, stop)
    else:
        w.divisor *= max(<Py_ssize_t>1, w.count[axis])


cdef inline vec larger(vec best, vec v) noexcept nogil:
    """Return the larger of each pair, NaN if either is NaN."""
    return choose(unordered(best), best, vmax(best, v))


cdef inline void reduce_window(
    const bint average, const Geometry* g, const Window* w, const float* x, float* y,
    int n,
) noexcept nogil:
    """Reduce one window of one vector of channels."""
    cdef vec total = splat(0.0 if average else -INFINITY)
    cdef Py_ssize_t d, h, i
    cdef Py_ssize_t step = g.dilation[2] * g.x[3]
    cdef const float* p
    for d in range(w.count[0]):
        for h in range(w.count[1]):
            p = x + d * g.dilation[0] * g.x[1] + h * g.dilation[1] * g.x[2]
            for i in range(w.count[2]):
                if average:
                    total = total + load_n(p, n)
                else:
                    total = larger(total, load_n(p, n))
                p += step
    if average:
        total = total / splat(<float>w.divisor)
    store_n(y, total, n)


cdef inline void reduce_row(
    const bint average, const Geometry* g, Window* w, const float* x, float* y
) noexcept nogil:
    """Reduce the windows of one output row; planes and rows of `w` are set.

    `x` is the input row of pixel 0 at which the windows begin. Most windows lie inside
    along the row; only those at its ends are clipped one by one.
    """
    cdef Py_ssize_t pixel, c, divisor = w.divisor
    cdef Py_ssize_t start = -g.before[2]
    cdef Py_ssize_t reach = (g.kernel[2] - 1) * g.dilation[2]
    cdef const float* p
    for pixel in range(g.outer[2]):
        if start >= 0 and start + reach < g.inner[2]:
            w.first[2] = start
            w.count[2] = g.kernel[2]
            w.divisor = divisor * g.kernel[2]
        else:
            w.divisor = divisor
            clip(g, 2, pixel, w)
        p = x + w.first[2] * g.x[3]
        c = 0
        while c + LANES <= g.channels:
            reduce_window(average, g, w, p + c, y + c, LANES)
            c += LANES
        if c < g.channels:
            reduce_window(average, g, w, p + c, y + c, <int>(g.channels - c))
        start += g.stride[2]
        y += g.y[3]


cdef void run_pool(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t rows = g.images * g.outer[0] * g.outer[1]
    cdef Py_ssize_t u, i, image, d, h
    cdef Window w
    cdef const float* x
    cdef float* y
    for u in range(share(rows, part, parts), share(rows, part + 1, parts)):
        h = u % g.outer[1]
        i = u // g.outer[1]
        d = i % g.outer[0]
        image = i // g.outer[0]
        w.divisor = 1
        clip(g, 0, d, &w)
        clip(g, 1, h, &w)
        x = (
            <const float*>operand[1] + image * g.x[0] + w.first[0] * g.x[1]
            + w.first[1] * g.x[2]
        )
        y = <float*>operand[0] + image * g.y[0] + d * g.y[1] + h * g.y[2]
        if g.average:
            reduce_row(True, g, &w, x, y)
        else:
            reduce_row(False, g, &w, x, y)


def pool(Py_ssize_t images, Py_ssize_t channels, inner, outer, kernel, stride,
         dilation, before, after, x, y, bint average, bint count_padding):
    """Bind max or average pooling.

    Operands: output, input. All tuples have three numbers (planes, rows, pixels);
    `x` and `y` four, the distances between images, planes, rows and pixels.
    """
    cdef Geometry g
    cdef int axis
    g.images = images
    g.channels = channels
    for axis in range(3):
        g.inner[axis] = inner[axis]
        g.outer[axis] = outer[axis]
        g.kernel[axis] = kernel[axis]
        g.stride[axis] = stride[axis]
        g.dilation[axis] = dilation[axis]
        g.before[axis] = before[axis]
        g.after[axis] = after[axis]
    for axis in range(4):
        g.x[axis] = x[axis]
        g.y[axis] = y[axis]
    g.average = average
    g.count_padding = count_padding
    return bound(run_pool, &g, sizeof(g))


cdef inline void reduce_image(
    const bint average, const Geometry* g, const float* x, float* y, int n
) noexcept nogil:
    """Reduce all positions of one vector of channels, four running results at once."""
    cdef vec total[4]
    cdef Py_ssize_t d, h, i
    cdef Py_ssize_t pixels = g.inner[2], step = g.x[3]
    cdef const float* p
    cdef int k
    for k in range(4):
        total[k] = splat(0.0 if average else -INFINITY)
    for d in range(g.inner[0]):
        for h in range(g.inner[1]):
            p = x + d * g.x[1] + h * g.x[2]
            i = 0
            while i + 4 <= pixels:
                for k in range(4):
                    if average:
                        total[k] = total[k] + load_n(p + k * step, n)
                    else:
                        total[k] = larger(total[k], load_n(p + k * step, n))
                p += 4 * step
                i += 4
            while i < pixels:
                if average:
                    total[0] = total[0] + load_n(p, n)
                else:
                    total[0] = larger(total[0], load_n(p, n))
                p += step
                i += 1
    if average:
        total[0] = (total[0] + total[1]) + (total[2] + total[3])
        total[0] = total[0] / splat(<float>(g.inner[0] * g.inner[1] * pixels))
    else:
        total[0] = larger(larger(total[0], total[1]), larger(total[2], total[3]))
    store_n(y, total[0], n)


cdef void run_global(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t vectors = (g.channels + LANES - 1) // LANES
    cdef Py_ssize_t units = g.images * vectors, u, c, image
    cdef const float* x
    cdef float* y
    cdef int n
    for u in range(share(units, part, parts), share(units, part + 1, parts)):
        image = u // vectors
        c = u % vectors * LANES
        n = <int>min(<Py_ssize_t>LANES, g.channels - c)
        x = <const float*>operand[1] + image * g.x[0] + c
        y = <float*>operand[0] + image * g.y[0] + c
        if g.average:
            reduce_image(True, g, x, y, n)
        else:
            reduce_image(False, g, x, y, n)


def global_pool(Py_ssize_t images, Py_ssize_t channels, inner, x, Py_ssize_t y,
                bint average):
    """Bind pooling over the whole image.

    Operands: output, input. `inner` holds planes, rows and pixels, `x` the distances
    between images, planes, rows and pixels, `y` that between output images.
    """
    cdef Geometry g
    cdef int axis
    g.images = images
    g.channels = channels
    for axis in range(3):
        g.inner[axis] = inner[axis]
    for axis in range(4):
        g.x[axis] = x[axis]
    g.y[0] = y
    g.average = average
    return bound(run_global, &g, sizeof(g))
