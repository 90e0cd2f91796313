"""Depthwise convolution, and grouped convolution whose groups are narrower than a vector.

Where every channel has a kernel of its own there is nothing to share between channels,
so a vector of channels takes the place of the matrix product: for several neighbouring
pixels of an output row at once,

    y[pixel, c] = bias[c] + sum over taps t of x[pixel * step + tap[t] + c] * w[t, c]

A weight vector is loaded once for all the pixels of a tile. Where neighbouring pixels
read the same inputs, because the stride is one, and there are registers for it, a tile
loads the inputs of one row of the kernel once; elsewhere each product reads its input
straight from the cache.

Groups of a few channels stand side by side in the same way. A lane then needs every
input of its group in turn: the k-th permutation of the vector brings each lane the k-th
input of its group, for as many taps of the row as read this pixel.

    y[pixel, c] = bias[c] + sum over taps t, inputs k of a group of
                  x[pixel * step + tap[t] + inputs * group(c) + k] * w[t, k, c]

Loop nest, outermost first:

    spans of channels  so many that the input rows of one output row fit the first-level
                       cache, where the next output row finds most of them again
    output rows
    vectors of a span
    tiles of a row     up to MOST_PIXELS pixels, their sums in registers
    taps, inputs of a group
"""

from activation cimport CLAMP, NONE
from libc.math cimport INFINITY
from simd cimport (
    LANES, REGISTERS, ivec, load, load_index, load_n, load_part, permute, splat, store, store_n, vec, vmax, vmin,
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
    Py_ssize_t channels     # outputs
    Py_ssize_t taps
    Py_ssize_t width        # taps of a row, if the next one is the next pixel's first
    int inputs              # of a group
    int outputs
    int beside              # groups of a vector
    Py_ssize_t span         # vectors of channels that are done together
    int code
    float alpha
    float beta
    int residual


cdef inline void tile(
    const int pixels, const int width, const bint whole, const bint mixed, const Geometry* g, const float* x,
    float* y, const float* r, const Py_ssize_t* tap, const int* lane, const float* w, vec bias, int n,
) noexcept nogil:
    """Compute `pixels` outputs for one vector of channels, the first `n` of it.

    `width` is that of the geometry if inputs are to be kept in registers, else 0.
    """
    cdef vec acc[MOST_PIXELS]
    cdef vec sums[MOST_PIXELS]
    cdef vec near[MOST_PIXELS + MOST_WIDTH]
    cdef vec b[MOST_WIDTH]
    cdef vec each
    cdef ivec spread
    cdef const float* p
    cdef Py_ssize_t t, k, dx = g.x[3]
    cdef int i, j, inputs = n // g.outputs * g.inputs
    for i in range(pixels):
        acc[i] = bias
    if mixed:
        t = 0
        while t < g.taps:
            p = x + tap[t]
            for k in range(g.inputs):
                spread = load_index(lane + k * LANES)
                for j in range(width):
                    b[j] = load(w + j * LANES)
                for i in range(pixels + width - 1):
                    each = load(p + i * dx) if whole else load_part(p + i * dx, inputs)
                    each = permute(each, spread)
                    for j in range(width):
                        if 0 <= i - j < pixels:
                            acc[i - j] = acc[i - j] + each * b[j]
                w += width * LANES
            t += width
    elif width > 0:
        t = 0
        while t < g.taps:
            p = x + tap[t]
            for i in range(pixels + width - 1):
                near[i] = load(p + i * dx)
            for j in range(width):
                b[0] = load(w + (t + j) * LANES)
                for i in range(pixels):
                    acc[i] = acc[i] + near[i + j] * b[0]
            t += width
    else:
        for t in range(g.taps):
            b[0] = load(w + t * LANES)
            p = x + tap[t]
            for i in range(pixels):
                if whole:
                    acc[i] = acc[i] + load(p + i * dx) * b[0]
                else:
                    acc[i] = acc[i] + load_part(p + i * dx, n) * b[0]
    if g.residual:
        for i in range(pixels):
            acc[i] = acc[i] + load_n(r + i * g.r[3], n)
    if g.code <= CLAMP:
        for i in range(pixels):
            acc[i] = vmin(splat(g.beta), vmax(splat(g.alpha), acc[i]))
    else:
        for i in range(pixels):
            sums[i] = acc[i]
        if whole:
            activate_each(g.code, g.alpha, g.beta, sums, pixels, 1, y, g.y[3])
            return
        activate_each(g.code, g.alpha, g.beta, sums, 1, pixels, <float*>sums, 0)
        for i in range(pixels):
            acc[i] = sums[i]
    for i in range(pixels):
        if whole:
            store(y + i * g.y[3], acc[i])
        else:
            store_n(y + i * g.y[3], acc[i], n)


cdef inline void row(
    const int width, const bint whole, const bint mixed, const Geometry* g, const float* x, float* y,
    const float* r, const Py_ssize_t* tap, const int* lane, const float* w, const float* bias, int n,
) noexcept nogil:
    """Compute one output row for one vector of channels, in tiles of even size."""
    cdef Py_ssize_t left = g.size[3]
    cdef Py_ssize_t tiles = (left + MOST_PIXELS - 1) // MOST_PIXELS
    cdef Py_ssize_t count
    cdef vec b = load(bias)
    while tiles > 0:
        count = (left + tiles - 1) // tiles
        if count == 8: tile(8, width, whole, mixed, g, x, y, r, tap, lane, w, b, n)
        elif count == 7: tile(7, width, whole, mixed, g, x, y, r, tap, lane, w, b, n)
        elif count == 6: tile(6, width, whole, mixed, g, x, y, r, tap, lane, w, b, n)
        elif count == 5: tile(5, width, whole, mixed, g, x, y, r, tap, lane, w, b, n)
        elif count == 4: tile(4, width, whole, mixed, g, x, y, r, tap, lane, w, b, n)
        elif count == 3: tile(3, width, whole, mixed, g, x, y, r, tap, lane, w, b, n)
        elif count == 2: tile(2, width, whole, mixed, g, x, y, r, tap, lane, w, b, n)
        else: tile(1, width, whole, mixed, g, x, y, r, tap, lane, w, b, n)
        x += count * g.x[3]
        y += count * g.y[3]
        r += count * g.r[3]
        left -= count
        tiles -= 1


cdef void run_depthwise(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef int channels = g.beside * g.outputs, inputs = g.beside * g.inputs
    cdef Py_ssize_t vectors = (g.channels + channels - 1) // channels
    cdef Py_ssize_t spans = (vectors + g.span - 1) // g.span
    cdef Py_ssize_t rows = g.size[0] * g.size[1] * g.size[2]
    cdef Py_ssize_t u, v, i, h, d, image, xo, yo, ro
    cdef const Py_ssize_t* tap = <const Py_ssize_t*>operand[4]
    cdef const int* lane = <const int*>operand[6]
    cdef const float* x
    cdef float* y
    cdef const float* r
    cdef const float* w
    cdef const float* bias
    cdef bint mixed = g.inputs * g.outputs > 1, whole
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
            w = <const float*>operand[2] + v * LANES * g.taps * g.inputs
            bias = <const float*>operand[3] + v * LANES
            n = <int>min(<Py_ssize_t>channels, g.channels - v * channels)
            x = <const float*>operand[1] + xo + v * inputs
            y = <float*>operand[0] + yo + v * channels
            r = <const float*>operand[5] + ro + v * channels
            whole = n == LANES and inputs == LANES
            if mixed:
                if g.width == 3:
                    if whole: row(3, True, True, g, x, y, r, tap, lane, w, bias, n)
                    else: row(3, False, True, g, x, y, r, tap, lane, w, bias, n)
                elif whole: row(1, True, True, g, x, y, r, tap, lane, w, bias, n)
                else: row(1, False, True, g, x, y, r, tap, lane, w, bias, n)
            elif not whole:
                row(0, False, False, g, x, y, r, tap, lane, w, bias, n)
            elif REGISTERS == 32 and g.width == 3:
                row(3, True, False, g, x, y, r, tap, lane, w, bias, n)
            elif REGISTERS == 32 and g.width == 5:
                row(5, True, False, g, x, y, r, tap, lane, w, bias, n)
            else:
                row(0, True, False, g, x, y, r, tap, lane, w, bias, n)


def depthwise(size, x, y, r, Py_ssize_t channels, group, Py_ssize_t taps, Py_ssize_t width,
              Py_ssize_t span, finish, bint residual):
    """Bind a depthwise convolution, or one whose groups are narrower than a vector.

    Operands as `conv` of ``conv.pyx``, parameters too: each vector's weights follow each
    other in the order of the sums, rows of `width` taps, inputs of a group, taps of a
    row; bias has zeros where a vector has no channel. A last operand: for each input of
    a group, from which lane each lane takes it (int32).

    Parameters
    ----------
    channels : int
        Output channels.
    group : (int, int, int)
        Inputs and outputs of a group, and how many groups share a vector, none of which
        may be more than its lanes; (1, 1, lanes) for a depthwise convolution.
    width : int
        How many taps follow each other as pixels do, 1 if none; for groups of more than
        one channel 1 or 3.
    span : int
        Vectors of channels that are done together.
    """
    cdef Geometry g
    cdef int axis
    for axis in range(4):
        g.size[axis] = size[axis]
        g.x[axis] = x[axis]
        g.y[axis] = y[axis]
        g.r[axis] = r[axis]
    g.channels = channels
    g.inputs, g.outputs, g.beside = group
    g.taps = taps
    g.width = width
    g.span = span
    g.code, g.alpha, g.beta = finish
    if g.code == NONE:
        g.alpha = -INFINITY
        g.beta = INFINITY
    g.residual = residual
    if not (0 < g.inputs * g.beside <= LANES and 0 < g.outputs * g.beside <= LANES):
        raise ValueError(f"no vector of {group}")
    if g.inputs * g.outputs > 1 and g.width not in (1, 3):
        raise ValueError(f"a row of {width} taps")
    return bound(run_depthwise, &g, sizeof(g))
