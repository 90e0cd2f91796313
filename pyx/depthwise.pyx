"""Depthwise convolution: every channel has a kernel of its own.

There is nothing to share between channels, so a vector of channels takes the place of
the matrix product: for several neighbouring pixels of an output row at once,

    y[pixel, c] = bias[c] + sum over taps t of x[pixel * step + tap[t] + c] * w[t, c]

A weight vector is loaded once for all the pixels of a tile. Where neighbouring pixels
read the same inputs, because the stride is one, and there are registers for it, a tile
loads the inputs of one row of the kernel once; elsewhere each product reads its input
straight from the cache.

Loop nest, outermost first:

    spans of channels  so many that the input rows of one output row fit the first-level
                       cache, where the next output row finds most of them again
    output rows
    vectors of a span
    tiles of a row     up to MOST_PIXELS pixels, their sums in registers
    taps
"""

from activation cimport CLAMP, NONE
from libc.math cimport INFINITY
from simd cimport (
    LANES, REGISTERS, load, load_n, load_part, splat, store, store_n, vec, vmax, vmin,
)
from step cimport bound, share

include "activate_each.pxi"

lanes = LANES
"""Floats in a vector."""

cdef enum:
    MOST_PIXELS = 8
    MOST_WIDTH = 5


cdef struct Geometry:
    Py_ssize_t size[4]      # output images, planes, rows, pixels of a row
    Py_ssize_t x[4]
    Py_ssize_t y[4]
    Py_ssize_t r[4]
    Py_ssize_t channels
    Py_ssize_t taps
    Py_ssize_t width        # taps of a row, if the next one is the next pixel's first
    Py_ssize_t span         # vectors of channels that are done together
    int code
    float alpha
    float beta
    int residual


cdef inline void tile(
    const int pixels, const int width, const bint whole, const Geometry* g, const float* x, float* y,
    const float* r, const Py_ssize_t* tap, const float* w, vec bias, int n,
) noexcept nogil:
    """Compute `pixels` outputs for one vector of channels, the first `n` of it.

    `width` is that of the geometry if inputs are to be kept in registers, else 0.
    """
    cdef vec acc[MOST_PIXELS]
    cdef vec sums[MOST_PIXELS]
    cdef vec near[MOST_PIXELS + MOST_WIDTH]
    cdef vec b
    cdef const float* p
    cdef Py_ssize_t t, dx = g.x[3]
    cdef int i, k
    for i in range(pixels):
        acc[i] = bias
    if width > 0:
        t = 0
        while t < g.taps:
            p = x + tap[t]
            for i in range(pixels + width - 1):
                near[i] = load(p + i * dx)
            for k in range(width):
                b = load(w + (t + k) * LANES)
                for i in range(pixels):
                    acc[i] = acc[i] + near[i + k] * b
            t += width
    else:
        for t in range(g.taps):
            b = load(w + t * LANES)
            p = x + tap[t]
            for i in range(pixels):
                if whole:
                    acc[i] = acc[i] + load(p + i * dx) * b
                else:
                    acc[i] = acc[i] + load_part(p + i * dx, n) * b
    if g.residual:
        for i in range(pixels):
            acc[i] = acc[i] + load_n(r + i * g.r[3], n)
    if g.code <= CLAMP:
        for i in range(pixels):
            acc[i] = vmin(splat(g.beta), vmax(splat(g.alpha), acc[i]))
    else:
        for i in range(pixels):
            sums[i] = acc[i]
        activate_each(g.code, g.alpha, g.beta, sums, pixels)
        for i in range(pixels):
            acc[i] = sums[i]
    for i in range(pixels):
        if whole:
            store(y + i * g.y[3], acc[i])
        else:
            store_n(y + i * g.y[3], acc[i], n)


cdef inline void row(
    const int width, const bint whole, const Geometry* g, const float* x, float* y, const float* r,
    const Py_ssize_t* tap, const float* w, const float* bias, int n,
) noexcept nogil:
    """Compute one output row for one vector of channels, in tiles of even size."""
    cdef Py_ssize_t left = g.size[3]
    cdef Py_ssize_t tiles = (left + MOST_PIXELS - 1) // MOST_PIXELS
    cdef Py_ssize_t count
    cdef vec b = load(bias)
    while tiles > 0:
        count = (left + tiles - 1) // tiles
        if count == 8: tile(8, width, whole, g, x, y, r, tap, w, b, n)
        elif count == 7: tile(7, width, whole, g, x, y, r, tap, w, b, n)
        elif count == 6: tile(6, width, whole, g, x, y, r, tap, w, b, n)
        elif count == 5: tile(5, width, whole, g, x, y, r, tap, w, b, n)
        elif count == 4: tile(4, width, whole, g, x, y, r, tap, w, b, n)
        elif count == 3: tile(3, width, whole, g, x, y, r, tap, w, b, n)
        elif count == 2: tile(2, width, whole, g, x, y, r, tap, w, b, n)
        else: tile(1, width, whole, g, x, y, r, tap, w, b, n)
        x += count * g.x[3]
        y += count * g.y[3]
        r += count * g.r[3]
        left -= count
        tiles -= 1


cdef void run_depthwise(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t vectors = (g.channels + LANES - 1) // LANES
    cdef Py_ssize_t spans = (vectors + g.span - 1) // g.span
    cdef Py_ssize_t rows = g.size[0] * g.size[1] * g.size[2]
    cdef Py_ssize_t u, v, i, h, d, image, xo, yo, ro
    cdef const Py_ssize_t* tap = <const Py_ssize_t*>operand[4]
    cdef const float* x
    cdef float* y
    cdef const float* r
    cdef const float* w
    cdef const float* bias
    cdef int n
    for u in range(
        share(spans * rows, part, parts), share(spans * rows, part + 1, parts)
    ):
        i = u % rows
        h = i % g.size[2]
        i = i // g.size[2]
        d = i % g.size[1]
        image = i // g.size[1]
        xo = image * g.x[0] + d * g.x[1] + h * g.x[2]
        yo = image * g.y[0] + d * g.y[1] + h * g.y[2]
        ro = image * g.r[0] + d * g.r[1] + h * g.r[2]
        i = u // rows * g.span
        for v in range(i, min(i + g.span, vectors)):
            w = <const float*>operand[2] + v * LANES * g.taps
            bias = <const float*>operand[3] + v * LANES
            n = <int>min(<Py_ssize_t>LANES, g.channels - v * LANES)
            x = <const float*>operand[1] + xo + v * LANES
            y = <float*>operand[0] + yo + v * LANES
            r = <const float*>operand[5] + ro + v * LANES
            if n < LANES:
                row(0, False, g, x, y, r, tap, w, bias, n)
            elif REGISTERS == 32 and g.width == 3:
                row(3, True, g, x, y, r, tap, w, bias, n)
            elif REGISTERS == 32 and g.width == 5:
                row(5, True, g, x, y, r, tap, w, bias, n)
            else:
                row(0, True, g, x, y, r, tap, w, bias, n)


def depthwise(size, x, y, r, Py_ssize_t channels, Py_ssize_t taps, Py_ssize_t width,
              Py_ssize_t span, finish, bint residual):
    """Bind a depthwise convolution.

    Operands and parameters as `conv` of ``conv.pyx``; weights from `pack_weights`,
    bias padded with zeros to whole vectors; `span` vectors of channels are done
    together. `width` is how many taps follow each other as pixels do, 1 if none.
    """
    cdef Geometry g
    cdef int axis
    for axis in range(4):
        g.size[axis] = size[axis]
        g.x[axis] = x[axis]
        g.y[axis] = y[axis]
        g.r[axis] = r[axis]
    g.channels = channels
    g.taps = taps
    g.width = width
    g.span = span
    g.code, g.alpha, g.beta = finish
    if g.code == NONE:
        g.alpha = -INFINITY
        g.beta = INFINITY
    g.residual = residual
    return bound(run_depthwise, &g, sizeof(g))


def pack_weights(const float[:, ::1] weight, float[::1] out):
    """Write (taps, channels) as (vectors of channels, taps, LANES), tails zero."""
    cdef Py_ssize_t taps = weight.shape[0], channels = weight.shape[1]
    cdef Py_ssize_t vectors = (channels + LANES - 1) // LANES
    cdef Py_ssize_t v, t, n
    for v in range(vectors):
        for t in range(taps):
            for n in range(LANES):
                out[(v * taps + t) * LANES + n] = (
                    weight[t, v * LANES + n] if v * LANES + n < channels else 0
                )
