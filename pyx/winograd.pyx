"""3x3 convolution by Winograd's minimal filtering, of stride one and two.

F(4x4, 3x3): a 4x4 tile of outputs depends on 6x6 inputs. Evaluated as a product of
polynomials at six points, the tile costs 36 products where the definition needs 144:

    Y = A^T [ (G g G^T) * (B^T d B) ] A        (* element by element)

d is the input tile, g the kernel. Over all input channels the products at each of the
36 places (i, j) are sums, so each place is a matrix product of its own:

    M[ij][tile, out] = sum over channels of V[ij][tile, channel] * U[ij][channel, out]

Three phases: the input transform makes V, 36 matrix products make M, the output
transform makes Y, adds bias and residual and activates. U is made once, in float64. In
memory the places of a tile
are neighbours, so that both transforms go through memory in order; the products, whose
loads wait for nothing, are the ones that jump.

The points are 0, +-a, +-b and infinity with a = 5/8, b = 3/2. The usual a = 1, b = 2
is as cheap and rounds three times worse; for these, a**2, b**2 and all the sums of them
that appear are exact in float32.

F(2x2, 3x3) takes the four points 0, +-1 and infinity: 16 products instead of 36, and
weights 16/9 of the kernel's size where the larger tile makes them four times as large.
It serves small images, of which the larger tile would waste much and whose weights
take longer to read than to multiply.

With a stride of two the outer taps meet only even inputs and the inner tap only odd
ones. Two outputs depend on five inputs; the outer taps are a polynomial of two terms,
which takes the points 0, 1 and infinity:

    y0 = (d0 - d2) g0 + d1 g1 + d2 (g0 + g2)
    y1 = (d4 - d2) g2 + d3 g1 + d2 (g0 + g2)

So a 2x2 tile costs 25 products instead of 36, transforms that only add, and weights
25/9 of the kernel's size. The first two products of an output have no other use: the
matrix product adds them, and M has 3x3 places, the sums over one, two or four of V's.

A volume's kernel is several such kernels, one for each of its planes, whose results add
up. V is made of every plane once, and a sum of M runs over places in `depth` planes.

All phases are done for a chunk of tiles whose V and M stay in the cache, each thread
its own chunks. Where all tiles are one chunk the threads share out the output channels;
each makes V for itself, which costs less than reading it from another's cache.

References
----------
Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.
Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for
Deep Neural Networks", 2018.
"""

from simd cimport larger
from step cimport bound, share

include "places.pxi"

lanes = LANES
"""Floats in a vector."""

registers = REGISTERS
"""Vector registers of this instruction set."""

POINTS = {2: (1.0,), 4: (0.625, 1.5)}
"""Tile size to the points above zero."""

cdef enum:
    MOST_POINTS = 6
    MOST_DEPTH = 7
    MOST_TAPS = 4 * MOST_DEPTH


cdef struct Geometry:
    Py_ssize_t tile         # outputs of a tile along a side: 2 or 4
    Py_ssize_t stride
    Py_ssize_t points       # inputs of a tile along a side, and places of V
    Py_ssize_t sums         # places of M along a side
    Py_ssize_t edge[MOST_POINTS + 1]    # place i of M adds V's from edge[i] to edge[i + 1]
    Py_ssize_t depth        # planes of a kernel
    Py_ssize_t tiles        # in a plane of all images
    Py_ssize_t down         # tiles of an image, by axis
    Py_ssize_t across
    Py_ssize_t planes       # outputs of an image, by axis
    Py_ssize_t rows
    Py_ssize_t pixels
    Py_ssize_t channels
    Py_ssize_t outputs
    Py_ssize_t chunk        # of `tiles`: V and M of these are in memory at once
    Py_ssize_t x[4]         # distances between images, planes, rows, pixels
    Py_ssize_t y[4]
    Py_ssize_t r[4]
    int mr
    int nr
    bint halved             # the largest of every 2x2 outputs is stored
    Finish finish


cdef inline Py_ssize_t v_tile(const Geometry* g) noexcept nogil:
    """Return the distance from one tile to the next in V; an odd number of lines."""
    return g.points * g.points * filled(g.channels) + LANES


cdef inline Py_ssize_t m_width(const Geometry* g) noexcept nogil:
    """Return the outputs of a tile in M, whole vectors."""
    return filled(g.outputs)


cdef inline Py_ssize_t m_tile(const Geometry* g) noexcept nogil:
    """Return the distance from one tile to the next in M."""
    return g.sums * g.sums * m_width(g) + LANES


cdef inline Py_ssize_t v_size(const Geometry* g) noexcept nogil:
    """Return the floats of V."""
    return g.chunk * (g.planes + g.depth - 1) * v_tile(g)


cdef inline Py_ssize_t scratch(const Geometry* g) noexcept nogil:
    """Return the floats of V and M of one thread."""
    return v_size(g) + g.chunk * g.planes * m_tile(g)


cdef inline void evaluate(const int points, vec* d) noexcept nogil:
    """Replace inputs by B^T d: their polynomial at as many points."""
    cdef vec d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3]
    cdef vec d4, d5, even, odd
    cdef vec aa = splat(0.390625), bb = splat(2.25)
    if points == 5:
        d[0] = d0 - d2
        d[4] = d[4] - d2
        return
    if points == 4:
        d[0] = d2 - d0
        d[1] = d2 + d1
        d[2] = d2 - d1
        d[3] = d3 - d1
        return
    d4 = d[4]
    d5 = d[5]
    even = d4 - bb * d2
    odd = splat(0.625) * (d3 - bb * d1)
    d[1] = even + odd
    d[2] = even - odd
    even = d4 - aa * d2
    odd = splat(1.5) * (d3 - aa * d1)
    d[3] = even + odd
    d[4] = even - odd
    d[0] = splat(0.87890625) * d0 - splat(2.640625) * d2 + d4
    d[5] = splat(0.87890625) * d1 - splat(2.640625) * d3 + d5


cdef inline void interpolate(
    const int sums, const vec* m, vec* y, Py_ssize_t step
) noexcept nogil:
    """Write A^T m, `step` apart: the outputs along a side from as many sums."""
    cdef vec sum_a = m[1] + m[2], difference_a = m[1] - m[2]
    cdef vec sum_b, difference_b
    if sums == 3:
        y[0] = m[0] + m[1]
        y[step] = sum_a
        return
    if sums == 4:
        y[0] = m[0] + sum_a
        y[step] = difference_a + m[3]
        return
    sum_b = m[3] + m[4]
    difference_b = m[3] - m[4]
    y[0] = m[0] + sum_a + sum_b
    y[step] = splat(0.625) * difference_a + splat(1.5) * difference_b
    y[2 * step] = splat(0.390625) * sum_a + splat(2.25) * sum_b
    y[3 * step] = (
        splat(0.244140625) * difference_a + splat(3.375) * difference_b + m[5]
    )


cdef inline void input_vector(
    const int points, const int apart, const Geometry* g, const float* x, float* v,
    const int lanes,
) noexcept nogil:
    """Transform one vector of channels of a tile; the next one is `apart` pixels on."""
    cdef vec rows[MOST_POINTS * MOST_POINTS]
    cdef vec d[MOST_POINTS]
    cdef Py_ssize_t place = filled(g.channels)
    cdef Py_ssize_t i
    cdef int k
    # The loops over i are not unrolled: their count is not a literal.
    for i in range(g.points):
        for k in range(points):
            d[k] = load_n(x + k * g.x[3], lanes)
        for k in range(points - apart, points):
            prefetch(x + (apart + k) * g.x[3])
        evaluate(points, d)
        for k in range(points):
            rows[i * points + k] = d[k]
        x += g.x[2]
    for i in range(g.points):
        for k in range(points):
            d[k] = rows[k * points + i]
        evaluate(points, d)
        for k in range(points):
            store(v + k * points * place, d[k])
        v += place


cdef inline void output_vector(
    const int tile, const int sums, const Geometry* g, const float* m, const float* bias,
    float* y, const float* r, Py_ssize_t rows, Py_ssize_t pixels, const int lanes,
) noexcept nogil:
    """Transform one vector of a tile's products, finish and store what is inside."""
    cdef vec half[(MOST_POINTS - 2) * MOST_POINTS]
    cdef vec d[MOST_POINTS]
    cdef vec out[MOST_POINTS - 2]
    cdef vec over[MOST_POINTS - 4]
    cdef vec b = load(bias)
    cdef Py_ssize_t place = m_width(g)
    cdef Py_ssize_t i
    cdef int k, wide = tile // 2 if g.halved else tile
    for i in range(g.sums):
        for k in range(sums):
            d[k] = load(m + k * sums * place)
        interpolate(sums, d, &half[i], sums)
        m += place
    for i in range(min(g.tile, rows)):
        for k in range(tile):
            prefetch_write(y + (wide + k) * g.y[3])
        interpolate(sums, &half[i * sums], out, 1)
        for k in range(tile):
            out[k] = out[k] + b
            if g.finish.residual and k < pixels:
                out[k] = out[k] + load_n(r + k * g.r[3], lanes)
        finish_results(&g.finish, tile, out)
        r += g.r[2]
        if not g.halved:
            for k in range(tile):
                if k < pixels:
                    store_n(y + k * g.y[3], out[k], lanes)
            y += g.y[2]
            continue
        for k in range(tile // 2):
            out[k] = larger(out[2 * k], out[2 * k + 1])
        if i % 2 == 0:
            for k in range(tile // 2):
                over[k] = out[k]
            continue
        for k in range(tile // 2):
            if 2 * k < pixels:
                store_n(y + k * g.y[3], larger(over[k], out[k]), lanes)
        y += g.y[2]


cdef inline void input_tile(
    const int points, const int apart, const Geometry* g, const float* x, float* v
) noexcept nogil:
    """Transform all channels of a tile."""
    cdef Py_ssize_t c = 0
    while c + LANES <= g.channels:
        input_vector(points, apart, g, x + c, v + c, LANES)
        c += LANES
    if c < g.channels:
        input_vector(points, apart, g, x + c, v + c, <int>(g.channels - c))


cdef inline void output_tile(
    const int tile, const int sums, const Geometry* g, const float* m, const float* bias,
    float* y, const float* r, Py_ssize_t rows, Py_ssize_t pixels, Py_ssize_t outputs,
) noexcept nogil:
    """Transform that many outputs of a tile."""
    cdef Py_ssize_t c = 0
    while c + LANES <= outputs:
        output_vector(tile, sums, g, m + c, bias + c, y + c, r + c, rows, pixels, LANES)
        c += LANES
    if c < outputs:
        output_vector(tile, sums, g, m + c, bias + c, y + c, r + c, rows, pixels,
                      <int>(outputs - c))


cdef void transform_inputs(
    const Geometry* g, const float* x, float* v, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Transform the tiles from `first` to `last`, plane after plane."""
    cdef Py_ssize_t plane, t, image, i, j, at
    for plane in range(g.planes + g.depth - 1):
        for t in range(first, last):
            j = t % g.across
            i = t // g.across % g.down
            image = t // (g.across * g.down)
            at = (
                image * g.x[0] + plane * g.x[1]
                + g.stride * g.tile * (i * g.x[2] + j * g.x[3])
            )
            if g.points == 6:
                input_tile(6, 4, g, x + at, v)
            elif g.points == 5:
                input_tile(5, 4, g, x + at, v)
            else:
                input_tile(4, 2, g, x + at, v)
            v += v_tile(g)


cdef Py_ssize_t taps_of(
    const Geometry* g, Py_ssize_t place, Py_ssize_t plane_size, Py_ssize_t* tap
) noexcept nogil:
    """Write the offsets in V of the places that one of M adds; return how many.

    They are in `depth` planes, `plane_size` from each other.
    """
    cdef Py_ssize_t i = place // g.sums, j = place % g.sums, taps = 0, plane, p, q
    for plane in range(g.depth):
        for p in range(g.edge[i], g.edge[i + 1]):
            for q in range(g.edge[j], g.edge[j + 1]):
                tap[taps] = (
                    plane * plane_size + (p * g.points + q) * filled(g.channels)
                )
                taps += 1
    return taps


cdef void products(
    const Geometry* g, const float* v, const float* u, float* m, Py_ssize_t tiles,
    Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """Multiply, for that many tiles of each plane and some blocks of outputs."""
    cdef Py_ssize_t vectors = m_width(g) // LANES, place
    cdef Py_ssize_t tap[MOST_TAPS]
    cdef Task task
    for place in range(g.sums * g.sums):
        begin_places(&task, tap, taps_of(g, place, tiles * v_tile(g), tap), g.channels,
                     v_tile(g), m_tile(g))
        multiply_place(&task, v, u, m + place * m_width(g), tiles * g.planes, vectors,
                       first, last, g.mr, g.nr)
        u += vectors * LANES * g.channels * task.taps


cdef void transform_outputs(
    const Geometry* g, char** operand, const float* m, Py_ssize_t first,
    Py_ssize_t last, Py_ssize_t output, Py_ssize_t outputs,
) noexcept nogil:
    """Transform `outputs` channels from `output` on, of the tiles from `first` to `last`."""
    cdef Py_ssize_t unit, plane, t, image, i, j, rows, pixels
    cdef Py_ssize_t side = g.tile // 2 if g.halved else g.tile
    cdef const float* bias = <const float*>operand[3] + output
    cdef const float* r
    cdef float* y
    for unit in range(g.planes * (last - first)):
        plane = unit // (last - first)
        t = first + unit % (last - first)
        j = t % g.across
        i = t // g.across % g.down
        image = t // (g.across * g.down)
        y = (
            <float*>operand[0] + output + image * g.y[0] + plane * g.y[1]
            + side * (i * g.y[2] + j * g.y[3])
        )
        r = (
            <const float*>operand[4] + output + image * g.r[0] + plane * g.r[1]
            + g.tile * (i * g.r[2] + j * g.r[3])
        )
        rows = g.rows - g.tile * i
        pixels = g.pixels - g.tile * j
        if g.sums == 6:
            output_tile(4, 6, g, m, bias, y, r, rows, pixels, outputs)
        elif g.sums == 4:
            output_tile(2, 4, g, m, bias, y, r, rows, pixels, outputs)
        else:
            output_tile(2, 3, g, m, bias, y, r, rows, pixels, outputs)
        m += m_tile(g)


cdef void run_winograd(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t chunks = (g.tiles + g.chunk - 1) // g.chunk
    cdef Py_ssize_t blocks = (filled(g.outputs) // LANES + g.nr - 1) // g.nr
    cdef Py_ssize_t k, first, last, output, end = blocks, block = 0
    cdef Py_ssize_t chunk = share(chunks, part, parts), stop = share(chunks, part + 1, parts)
    cdef float* v = <float*>operand[5] + part * scratch(g)
    cdef float* m = v + v_size(g)
    if chunks == 1:
        chunk, stop = 0, 1
        block = share(blocks, part, parts)
        end = share(blocks, part + 1, parts)
        if block == end:
            return
    for k in range(chunk, stop):
        first = g.tiles * k // chunks
        last = g.tiles * (k + 1) // chunks
        transform_inputs(g, <const float*>operand[1], v, first, last)
        products(g, v, <const float*>operand[2], m, last - first, block, end)
        output = block * g.nr * LANES
        transform_outputs(g, operand, m + output, first, last, output,
                          min(g.outputs, end * g.nr * LANES) - output)


cdef int set_tile(
    Geometry* g, Py_ssize_t tile, Py_ssize_t stride, Py_ssize_t depth
) except -1:
    """Set the kernel's depth and what follows from the tile and the stride."""
    cdef Py_ssize_t i
    if not 0 < depth <= MOST_DEPTH:
        raise ValueError(f"a kernel of {depth} planes, at most {MOST_DEPTH}")
    g.depth = depth
    if (tile, stride) not in ((2, 1), (4, 1), (2, 2)):
        raise ValueError(f"no tile of {tile} for a stride of {stride}")
    g.tile = tile
    g.stride = stride
    g.points = stride * (tile - 1) + 3
    g.sums = 3 if stride == 2 else g.points
    for i in range(g.sums + 1):
        g.edge[i] = i
    if stride == 2:
        g.edge[1], g.edge[2], g.edge[3] = 2, 3, 5


def winograd(Py_ssize_t tile, Py_ssize_t stride, Py_ssize_t depth, Py_ssize_t images, down,
             across, planes, rows, pixels, Py_ssize_t channels, Py_ssize_t outputs,
             Py_ssize_t chunk, x, y, r, shape, finish, bint residual, bint halved):
    """Bind the convolution.

    Operands: output, input, weights, bias, residual (any address if there is none), and
    scratch of `scratch_elements` for each thread.

    Parameters
    ----------
    tile : int
        Outputs of a tile along a side, 2 or 4.
    stride : int
        1, or 2 with a tile of 2.
    depth : int
        Planes of a kernel.
    images, down, across : int
        How many images there are, and tiles in a plane of each.
    planes, rows, pixels : int
        Outputs of an image; the last tiles may reach beyond.
    channels, outputs : int
        Of input and output.
    chunk : int
        Tiles of a plane done together, each in all planes.
    x, y, r : tuple of 4 int
        Distances between images, planes, rows and pixels of input, output and residual.
    shape : (int, int)
        Most tiles and most vectors of outputs of a register tile.
    finish : (int, float, float)
        Activation code and its two numbers.
    residual : bool
        Whether to add the residual.
    halved : bool
        Whether to store the largest of every 2x2 outputs alone. Rows and pixels are
        even then, and `y` are the distances of what is stored.
    """
    cdef Geometry g
    cdef int axis
    set_tile(&g, tile, stride, depth)
    g.tiles = images * down * across
    g.down = down
    g.across = across
    g.planes = planes
    g.rows = rows
    g.pixels = pixels
    g.channels = channels
    g.outputs = outputs
    g.chunk = chunk
    for axis in range(4):
        g.x[axis] = x[axis]
        g.y[axis] = y[axis]
        g.r[axis] = r[axis]
    g.mr, g.nr = shape
    g.finish.code, g.finish.alpha, g.finish.beta = finish
    if g.finish.code == NONE:
        g.finish.alpha = -INFINITY
        g.finish.beta = INFINITY
    g.finish.residual = residual
    g.halved = halved
    if not (0 < g.mr <= MOST_ROWS and 0 < g.nr <= MOST_VECTORS
            and g.mr * g.nr + g.nr <= REGISTERS):
        raise ValueError(f"no register tile of {g.mr} tiles by {g.nr} vectors")
    return bound(run_winograd, &g, sizeof(g))


def scratch_elements(Py_ssize_t tile, Py_ssize_t stride, Py_ssize_t depth,
                     Py_ssize_t planes, Py_ssize_t channels, Py_ssize_t outputs,
                     Py_ssize_t chunk):
    """Return the floats of scratch of one thread; the parameters are `winograd`'s."""
    cdef Geometry g
    set_tile(&g, tile, stride, depth)
    g.planes = planes
    g.channels = channels
    g.outputs = outputs
    g.chunk = chunk
    return scratch(&g)


cdef inline void pack_vector(
    const int points, const float* k, const double* scale, Py_ssize_t tap, int lanes,
    const double* m, float* out, const Py_ssize_t* to,
) noexcept nogil:
    """Write G k G^T for one input channel and up to LANES outputs, in float64.

    Each output's kernel is multiplied by its scale. The value at place i is written
    `to[i]` behind `out`.
    """
    cdef float given[LANES]
    cdef double w[9][LANES]
    cdef double half[3 * MOST_POINTS][LANES]
    cdef int i, j, n
    cdef float* u
    for i in range(9):
        store(given, load_n(k + i * tap, lanes))
        for n in range(LANES):
            w[i][n] = given[n] * scale[n]
    for i in range(points):
        for j in range(3):
            for n in range(LANES):
                half[3 * i + j][n] = (
                    m[3 * i] * w[j][n] + m[3 * i + 1] * w[3 + j][n]
                    + m[3 * i + 2] * w[6 + j][n]
                )
    for i in range(points):
        for j in range(points):
            u = out + to[i * points + j]
            for n in range(LANES):
                u[n] = <float>(
                    half[3 * i][n] * m[3 * j] + half[3 * i + 1][n] * m[3 * j + 1]
                    + half[3 * i + 2][n] * m[3 * j + 2]
                )


cdef void pack_channel(
    const Geometry* g, const float* k, const double* scale, Py_ssize_t tap, int lanes,
    const double* m, float* out, const Py_ssize_t* to,
) noexcept nogil:
    """Write G k G^T; the parameters are those of `pack_vector`."""
    if g.points == 6:
        pack_vector(6, k, scale, tap, lanes, m, out, to)
    elif g.points == 5:
        pack_vector(5, k, scale, tap, lanes, m, out, to)
    else:
        pack_vector(4, k, scale, tap, lanes, m, out, to)


def pack_weights(const float[:, :, :, :, ::1] kernel, const double[::1] scale,
                 const double[:, ::1] g_matrix, Py_ssize_t tile, Py_ssize_t stride, int nr,
                 float[::1] out):
    """Write U in the order in which the products read it.

    Parameters
    ----------
    kernel : array of shape (depth, 3, 3, channels, outputs)
    scale : array of outputs
        What the kernels of each output are multiplied by.
    g_matrix : array of shape (points, 3)
        G: evaluates a kernel at the points.
    tile, stride : int
        As in `winograd`.
    nr : int
        Vectors of outputs of a register tile.
    out : array of depth * points^2 * channels * outputs, these filled up to whole vectors
    """
    cdef Geometry g
    cdef Py_ssize_t depth = kernel.shape[0]
    cdef Py_ssize_t channels = kernel.shape[3], outputs = kernel.shape[4]
    cdef Py_ssize_t vectors = (outputs + LANES - 1) // LANES
    cdef Py_ssize_t tap[MOST_TAPS]
    cdef Py_ssize_t to[MOST_POINTS * MOST_POINTS]
    cdef double scales[MOST_VECTORS * LANES]
    cdef Py_ssize_t plane, block, start, width, vector, c, place, taps, t, before
    if not 0 < nr <= MOST_VECTORS:
        raise ValueError(f"no register tile of {nr} vectors")
    set_tile(&g, tile, stride, 1)
    g.channels = LANES
    with nogil:
        for block in range((vectors + nr - 1) // nr):
            start = block * nr
            width = min(<Py_ssize_t>nr, vectors - start)
            for t in range(width * LANES):
                c = start * LANES + t
                scales[t] = scale[c] if c < outputs else 0
            for plane in range(depth):
                before = 0
                for place in range(g.sums * g.sums):
                    taps = taps_of(&g, place, 0, tap)
                    for t in range(taps):
                        to[tap[t] // LANES] = LANES * channels * (
                            (before * vectors + start * taps) * depth
                            + (plane * taps + t) * width
                        )
                    before += taps
                for c in range(channels):
                    for vector in range(width):
                        pack_channel(
                            &g, &kernel[plane, 0, 0, c, (start + vector) * LANES],
                            &scales[vector * LANES], channels * outputs,
                            <int>min(
                                <Py_ssize_t>LANES, outputs - (start + vector) * LANES
                            ),
                            &g_matrix[0, 0], &out[(c * width + vector) * LANES], to,
                        )
