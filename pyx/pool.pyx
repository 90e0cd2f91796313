"""Pooling: the largest or the mean value of each channel in a sliding window.

A vector of channels is reduced at once. Each output position first finds which part of
its window lies inside the input, so padding needs no memory: what lies outside is never
read. An average divides by the positions inside, or, if padding counts, by those inside
the padded input (a window that ceil mode pushes past the padding counts only up to it).
"""

from libc.math cimport INFINITY
from simd cimport (
    LANES, larger, load, load_n, load_part, prefetch, splat, store, store_n, store_part, vec,
)
from step cimport bound, share


cdef enum:
    MOST_PIXELS = 8


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
    bint distant            # the next tile's inputs are fetched
    Py_ssize_t inside       # output pixels before the first whose window ends outside


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


cdef inline void reduce_tile(
    const bint average, const int pixels, const bint whole, const Geometry* g,
    const Window* w, const float* x, float* y, int n,
) noexcept nogil:
    """Reduce the windows of some neighbouring pixels, which have as many taps inside,
    for one vector of channels, the first `n` of it.
    """
    cdef vec total[MOST_PIXELS]
    cdef vec v
    cdef Py_ssize_t d, h, i, across = g.stride[2] * g.x[3], out = g.y[3]
    cdef Py_ssize_t step = g.dilation[2] * g.x[3], taps = w.count[2]
    cdef const float* p
    cdef int k
    for k in range(pixels):
        total[k] = splat(0.0 if average else -INFINITY)
    for d in range(w.count[0]):
        for h in range(w.count[1]):
            p = x + d * g.dilation[0] * g.x[1] + h * g.dilation[1] * g.x[2]
            for i in range(taps):
                if g.distant:
                    for k in range(pixels):
                        prefetch(p + (k + pixels) * across)
                for k in range(pixels):
                    v = load(p + k * across) if whole else load_part(p + k * across, n)
                    if average:
                        total[k] = total[k] + v
                    else:
                        total[k] = larger(total[k], v)
                p += step
    v = splat(<float>w.divisor)
    for k in range(pixels):
        if average:
            total[k] = total[k] / v
        if whole:
            store(y + k * out, total[k])
        else:
            store_part(y + k * out, total[k], n)


cdef inline void reduce_pixels(
    const bint average, const int pixels, const Geometry* g, const Window* w,
    const float* x, float* y,
) noexcept nogil:
    """Reduce the windows of some neighbouring pixels."""
    cdef Py_ssize_t c = 0
    while c + LANES <= g.channels:
        reduce_tile(average, pixels, True, g, w, x + c, y + c, LANES)
        c += LANES
    if c < g.channels:
        reduce_tile(average, pixels, False, g, w, x + c, y + c, <int>(g.channels - c))


cdef inline void reduce_row(
    const bint average, const Geometry* g, Window* w, const float* x, float* y
) noexcept nogil:
    """Reduce the windows of one output row; planes and rows of `w` are set.

    `x` is the input row of pixel 0 at which the windows begin. Most windows lie inside
    along the row, and several of them are reduced together; those at its ends are
    clipped one by one.
    """
    cdef Py_ssize_t pixel = 0, divisor = w.divisor, stride = g.stride[2], start, count
    cdef const float* p
    while pixel < g.outer[2]:
        start = pixel * stride - g.before[2]
        count = min(g.outer[2], g.inside) - pixel
        if start < 0 or count <= 0:
            w.divisor = divisor
            clip(g, 2, pixel, w)
            p = x + w.first[2] * g.x[3]
            count = 1
            reduce_pixels(average, 1, g, w, p, y)
        else:
            w.count[2] = g.kernel[2]
            w.divisor = divisor * g.kernel[2]
            p = x + start * g.x[3]
            if count > MOST_PIXELS:
                count = min(<Py_ssize_t>MOST_PIXELS, (count + 1) // 2)
            if count == 8: reduce_pixels(average, 8, g, w, p, y)
            elif count == 7: reduce_pixels(average, 7, g, w, p, y)
            elif count == 6: reduce_pixels(average, 6, g, w, p, y)
            elif count == 5: reduce_pixels(average, 5, g, w, p, y)
            elif count == 4: reduce_pixels(average, 4, g, w, p, y)
            elif count == 3: reduce_pixels(average, 3, g, w, p, y)
            elif count == 2: reduce_pixels(average, 2, g, w, p, y)
            else: reduce_pixels(average, 1, g, w, p, y)
        pixel += count
        y += count * g.y[3]


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
         dilation, before, after, x, y, bint average, bint count_padding, bint distant):
    """Bind max or average pooling.

    Operands: output, input. All tuples have three numbers (planes, rows, pixels);
    `x` and `y` four, the distances between images, planes, rows and pixels. `distant`
    says that the input lies beyond the second-level cache.
    """
    cdef Geometry g
    cdef Py_ssize_t last
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
    g.distant = distant
    last = g.inner[2] - 1 - (g.kernel[2] - 1) * g.dilation[2]
    g.inside = (last + g.before[2] + g.stride[2]) // g.stride[2] if last >= 0 else 0
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
