"""Pooling: the largest or the mean value of each channel in a sliding window.

A vector of channels is reduced at once. Each output position first finds which part of
its window lies inside the input, so padding needs no memory: what lies outside is never
read. An average divides by the positions inside, or, if padding counts, by those inside
the padded input (a window that ceil mode pushes past the padding counts only up to it).

Where pixels have so few channels that the windows of several fit into two vectors, these
are reduced together: the rows of the windows first, then the taps of a row, which
permutations bring to the lanes of their pixels.
"""

from libc.math cimport INFINITY
from simd cimport (
    LANES, larger, load, load_index, load_n, load_part, permute_two, prefetch, splat, store, store_n, store_part,
    vec,
)
from step cimport bound, share


cdef enum:
    MOST_PIXELS = 8
    MOST_WIDTH = 4


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
    Py_ssize_t beside       # pixels that share a vector, or 0
    int index[MOST_WIDTH * LANES]   # where each lane finds each tap in two vectors


cdef struct Window:
    # Along each axis: the first input position inside, how many, and the divisor.
    Py_ssize_t first[3]
    Py_ssize_t count[3]
    Py_ssize_t divisor


cdef inline Py_ssize_t steps(Py_ssize_t distance, Py_ssize_t step) noexcept nogil:
    """Return how many steps reach a positive distance; most are one long."""
    return distance if step == 1 else (distance + step - 1) // step


cdef inline void clip(
    const Geometry* g, int axis, Py_ssize_t at, Window* w
) noexcept nogil:
    """Find the taps of the window at output position `at` that lie inside."""
    cdef Py_ssize_t step = g.dilation[axis], size = g.inner[axis]
    cdef Py_ssize_t start = at * g.stride[axis] - g.before[axis]
    cdef Py_ssize_t skip = steps(-start, step) if start < 0 else 0
    cdef Py_ssize_t stop = 0
    if start < size:
        stop = min(g.kernel[axis], steps(size - start, step))
    w.first[axis] = start + skip * step
    w.count[axis] = max(<Py_ssize_t>0, stop - skip)
    if g.count_padding:
        stop = min(g.kernel[axis], steps(size + g.after[axis] - start, step))
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


cdef inline void reduce_beside(
    const bint average, const Geometry* g, const Window* w, const float* x, float* y,
    Py_ssize_t pixels, Py_ssize_t groups,
) noexcept nogil:
    """Reduce the windows of `groups` times so many neighbouring pixels."""
    cdef vec low, high, a, tap, divisor = splat(<float>w.divisor)
    cdef Py_ssize_t channels = g.channels, width = g.kernel[2], across = pixels * g.stride[2] * channels
    cdef Py_ssize_t planes = w.count[0], rows = w.count[1]
    cdef Py_ssize_t plane = g.dilation[0] * g.x[1], row = g.dilation[1] * g.x[2], d, h, u, i
    cdef int n = <int>(((pixels - 1) * g.stride[2] + width) * channels)
    cdef int first = min(n, LANES), rest = n - first, out = <int>(pixels * channels)
    for u in range(groups):
        low = splat(0.0 if average else -INFINITY)
        high = low
        for d in range(planes):
            for h in range(rows):
                a = load_part(x + d * plane + h * row, first)
                low = low + a if average else larger(low, a)
                a = load_part(x + d * plane + h * row + LANES, rest)
                high = high + a if average else larger(high, a)
        a = permute_two(low, high, load_index(g.index))
        for i in range(1, width):
            tap = permute_two(low, high, load_index(g.index + i * LANES))
            a = a + tap if average else larger(a, tap)
        store_part(y, a / divisor if average else a, out)
        x += across
        y += out


cdef inline void reduce_row(
    const bint average, const Geometry* g, Window* w, const float* x, float* y
) noexcept nogil:
    """Reduce the windows of one output row; planes and rows of `w` are set.

    `x` is the input row of pixel 0 at which the windows begin. Most windows lie inside
    along the row, and several of them are reduced together; those at its ends are
    clipped one by one.
    """
    cdef Py_ssize_t pixel = 0, divisor = w.divisor, stride = g.stride[2], start, count, left
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
            if g.beside:
                left = count % g.beside
                reduce_beside(average, g, w, p, y, g.beside, count // g.beside)
                if left:
                    p += (count - left) * stride * g.x[3]
                    reduce_beside(average, g, w, p, y + (count - left) * g.y[3], left, 1)
                pixel += count
                y += count * g.y[3]
                continue
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
    cdef Py_ssize_t first = share(rows, part, parts), left = share(rows, part + 1, parts) - first
    cdef Py_ssize_t h = first % g.outer[1], d = first // g.outer[1] % g.outer[0]
    cdef Py_ssize_t image = first // g.outer[1] // g.outer[0]
    cdef Window w
    cdef const float* x
    cdef float* y
    while left > 0:
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
        left -= 1
        h += 1
        if h == g.outer[1]:
            h = 0
            d += 1
            if d == g.outer[0]:
                d = 0
                image += 1


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
    g.beside = 0
    if LANES >= 8 and g.x[3] == channels == g.y[3] and g.dilation[2] == 1 and g.kernel[2] <= MOST_WIDTH:
        spread_pixels(&g)
    return bound(run_pool, &g, sizeof(g))


cdef void spread_pixels(Geometry* g):
    """Find how many pixels share a vector, if more than one, and where their taps lie."""
    cdef Py_ssize_t left = 2 * LANES // g.channels - g.kernel[2]
    cdef int lane, tap
    if left < g.stride[2] or 2 * g.channels > LANES:
        return
    g.beside = min(LANES // g.channels, left // g.stride[2] + 1)
    for tap in range(<int>g.kernel[2]):
        for lane in range(LANES):
            g.index[tap * LANES + lane] = <int>(
                min(lane // g.channels, g.beside - 1) * g.stride[2] * g.channels
                + tap * g.channels + lane % g.channels
            )


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
