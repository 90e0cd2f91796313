"""Convolution in which output positions have kernels of their own.

Along each axis the kernels repeat after some positions, the tiles; where there are as
many tiles as positions the layer is locally connected. A kernel is read once for a
batch, in the order in which it is stored, and used for few images, so the reading is
what takes time: weights go straight from where they lie to the multiplication.

    y[image, p, out] = bias[out] + sum over taps t, channels k of
                       x[image, p * step + tap[t] + k] * weight[p mod tiles, t, k, out]

Units of work are a position and a span of output channels; inside, one or two images
and one to SPAN vectors of outputs have their sums in registers.
"""

from activation cimport activate
from simd cimport LANES, load, load_n, load_part, splat, store_n, vec
from step cimport bound, share

cdef enum:
    SPAN = 4


cdef struct Geometry:
    Py_ssize_t images
    Py_ssize_t size[3]      # output planes, rows, pixels
    Py_ssize_t tiles[3]
    Py_ssize_t x[4]         # input distance from one output to the next, by axis
    Py_ssize_t y[4]
    Py_ssize_t r[4]         # residual
    Py_ssize_t taps
    Py_ssize_t run          # contiguous input elements a tap
    Py_ssize_t outputs
    Py_ssize_t bias         # distance from one tile's bias to the next
    int code
    float alpha
    float beta
    int residual


cdef inline void product(
    const int images, const int vectors, const bint whole, const Geometry* g,
    const float* x, float* y, const float* r, const Py_ssize_t* tap, const float* w,
    const float* bias, int n,
) noexcept nogil:
    """Compute one position of some images; `n` channels of the last vector count."""
    cdef vec acc[2][SPAN]
    cdef vec b[SPAN]
    cdef vec v
    cdef const float* p
    cdef Py_ssize_t t, k
    cdef int i, j
    for j in range(vectors):
        b[j] = load(bias + j * LANES) if whole else load_part(bias + j * LANES, n)
        for i in range(images):
            acc[i][j] = b[j]
    for t in range(g.taps):
        p = x + tap[t]
        for k in range(g.run):
            for j in range(vectors):
                b[j] = load(w + j * LANES) if whole else load_part(w + j * LANES, n)
            for i in range(images):
                for j in range(vectors):
                    acc[i][j] = acc[i][j] + p[i * g.x[0]] * b[j]
            w += g.outputs
            p += 1
    for i in range(images):
        for j in range(vectors):
            v = acc[i][j]
            if g.residual:
                v = v + load_n(r + i * g.r[0] + j * LANES, n)
            v = activate(g.code, g.alpha, g.beta, v)
            store_n(y + i * g.y[0] + j * LANES, v, n)


cdef void one_by_four(
    const Geometry* g, const float* x, float* y, const float* r, const Py_ssize_t* tap,
    const float* w, const float* bias, int n,
) noexcept nogil:
    product(1, 4, True, g, x, y, r, tap, w, bias, LANES)


cdef void one_by_one(
    const Geometry* g, const float* x, float* y, const float* r, const Py_ssize_t* tap,
    const float* w, const float* bias, int n,
) noexcept nogil:
    product(1, 1, True, g, x, y, r, tap, w, bias, LANES)


cdef void one_by_part(
    const Geometry* g, const float* x, float* y, const float* r, const Py_ssize_t* tap,
    const float* w, const float* bias, int n,
) noexcept nogil:
    product(1, 1, False, g, x, y, r, tap, w, bias, n)


cdef void two_by_four(
    const Geometry* g, const float* x, float* y, const float* r, const Py_ssize_t* tap,
    const float* w, const float* bias, int n,
) noexcept nogil:
    product(2, 4, True, g, x, y, r, tap, w, bias, LANES)


cdef void two_by_one(
    const Geometry* g, const float* x, float* y, const float* r, const Py_ssize_t* tap,
    const float* w, const float* bias, int n,
) noexcept nogil:
    product(2, 1, True, g, x, y, r, tap, w, bias, LANES)


cdef void two_by_part(
    const Geometry* g, const float* x, float* y, const float* r, const Py_ssize_t* tap,
    const float* w, const float* bias, int n,
) noexcept nogil:
    product(2, 1, False, g, x, y, r, tap, w, bias, n)


cdef inline void span(
    const Geometry* g, const float* x, float* y, const float* r, const Py_ssize_t* tap,
    const float* w, const float* bias, Py_ssize_t outputs, Py_ssize_t images,
) noexcept nogil:
    """Compute one position of one or two images for up to SPAN vectors of outputs."""
    cdef int n
    if outputs >= SPAN * LANES:
        if images == 2:
            two_by_four(g, x, y, r, tap, w, bias, LANES)
        else:
            one_by_four(g, x, y, r, tap, w, bias, LANES)
        return
    while outputs > 0:
        n = <int>min(outputs, <Py_ssize_t>LANES)
        if n == LANES and images == 2:
            two_by_one(g, x, y, r, tap, w, bias, n)
        elif n == LANES:
            one_by_one(g, x, y, r, tap, w, bias, n)
        elif images == 2:
            two_by_part(g, x, y, r, tap, w, bias, n)
        else:
            one_by_part(g, x, y, r, tap, w, bias, n)
        y += LANES
        r += LANES
        w += LANES
        bias += LANES
        outputs -= LANES


cdef void run_unshared(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t spans = (g.outputs + SPAN * LANES - 1) // (SPAN * LANES)
    cdef Py_ssize_t units = g.size[0] * g.size[1] * g.size[2] * spans
    cdef Py_ssize_t unit, image, i, axis, at, tile, first, xo, yo, ro, period
    cdef const float* w
    cdef const float* bias
    for unit in range(share(units, part, parts), share(units, part + 1, parts)):
        first = unit % spans * SPAN * LANES
        i = unit // spans
        xo = 0
        yo = ro = first
        tile = 0
        period = 1
        for axis in range(2, -1, -1):
            at = i % g.size[axis]
            i = i // g.size[axis]
            xo += at * g.x[axis + 1]
            yo += at * g.y[axis + 1]
            ro += at * g.r[axis + 1]
            tile += at % g.tiles[axis] * period
            period *= g.tiles[axis]
        w = <const float*>operand[2] + tile * g.taps * g.run * g.outputs + first
        bias = <const float*>operand[3] + tile * g.bias + first
        image = 0
        while image < g.images:
            i = min(<Py_ssize_t>2, g.images - image)
            span(
                g,
                <const float*>operand[1] + xo + image * g.x[0],
                <float*>operand[0] + yo + image * g.y[0],
                <const float*>operand[5] + ro + image * g.r[0],
                <const Py_ssize_t*>operand[4], w, bias,
                min(g.outputs - first, <Py_ssize_t>(SPAN * LANES)), i,
            )
            image += i


def unshared(Py_ssize_t images, size, tiles, x, y, r, Py_ssize_t taps, Py_ssize_t run,
             Py_ssize_t outputs, Py_ssize_t bias, finish, bint residual):
    """Bind a convolution with a kernel for each tile.

    Operands: output, input at its first tap's origin, weights of shape (tiles..., taps,
    run, outputs), bias, tap offsets (int64), residual (any address if there is none).

    Parameters
    ----------
    images : int
    size, tiles : tuple of 3 int
        Output planes, rows and pixels; after how many of each the kernels repeat.
    x, y, r : tuple of 4 int
        How far input, output and residual move from one image, plane, row and pixel of
        the output to the next.
    taps, run : int
        How many offsets there are, and how many input elements follow each.
    outputs : int
        Output channels.
    bias : int
        How far the bias moves from one tile to the next.
    finish : (int, float, float)
        Activation code and its two numbers.
    residual : bool
        Whether to add the residual.
    """
    cdef Geometry g
    cdef int axis
    g.images = images
    for axis in range(3):
        g.size[axis] = size[axis]
        g.tiles[axis] = tiles[axis]
    for axis in range(4):
        g.x[axis] = x[axis]
        g.y[axis] = y[axis]
        g.r[axis] = r[axis]
    g.taps = taps
    g.run = run
    g.outputs = outputs
    g.bias = bias
    g.code, g.alpha, g.beta = finish
    g.residual = residual
    return bound(run_unshared, &g, sizeof(g))
