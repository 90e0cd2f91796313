"""3x3 convolution by Winograd's minimal filtering, F(4x4, 3x3) and F(2x2, 3x3).

A 4x4 tile of outputs depends on 6x6 inputs. Evaluated as a product of polynomials at
six points, the tile costs 36 products where the definition needs 144:

    Y = A^T [ (G g G^T) * (B^T d B) ] A        (* element by element)

d is the input tile, g the kernel. Over all input channels the products at each of the
36 places (i, j) are sums, so each place is a matrix product of its own:

    M[ij][tile, out] = sum over channels of V[ij][tile, channel] * U[ij][channel, out]

Three phases: the input transform makes V, 36 matrix products make M, the output
transform makes Y, adds bias and residual and activates. U is made once, in float64.

The points are 0, +-a, +-b and infinity with a = 5/8, b = 3/2. The usual a = 1, b = 2
is as cheap and rounds three times worse; for these, a**2, b**2 and all the sums of them
that appear are exact in float32.

A 2x2 tile takes the four points 0, +-1 and infinity: 16 products instead of 36, and
weights 16/9 of the kernel's size where the larger tile makes them four times as large.
It serves small images, of which the larger tile would waste much and whose weights
take longer to read than to multiply.

All phases are done for a chunk of tiles whose V and M stay in the cache, each thread
its own chunks. Where all tiles are one chunk the threads share out the output channels;
each makes V for itself, which costs less than reading it from another's cache.

References
----------
Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.
Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for
Deep Neural Networks", 2018.
"""

from activation cimport NONE
from libc.math cimport INFINITY
from step cimport bound, share

include "tile.pxi"

lanes = LANES
"""Floats in a vector."""

registers = REGISTERS
"""Vector registers of this instruction set."""

POINTS = {2: (1.0,), 4: (0.625, 1.5)}
"""Tile size to the points above zero."""

cdef enum:
    MOST_PLACES = 36

cdef Py_ssize_t NO_TAP = 0
cdef float NO_BIAS[4 * 16]


cdef struct Geometry:
    Py_ssize_t tile         # outputs of a tile along a side: 2 or 4
    Py_ssize_t places       # its inputs
    Py_ssize_t tiles        # in all images
    Py_ssize_t down         # tiles of an image, by axis
    Py_ssize_t across
    Py_ssize_t rows         # outputs of an image, by axis
    Py_ssize_t pixels
    Py_ssize_t channels
    Py_ssize_t outputs
    Py_ssize_t chunk        # tiles whose V and M are in memory at once
    Py_ssize_t x[3]         # distances between images, rows, pixels
    Py_ssize_t y[3]
    Py_ssize_t r[3]
    int mr
    int nr
    Finish finish


cdef inline Py_ssize_t v_place(const Geometry* g) noexcept nogil:
    """Return the distance from one place of V to the next; an odd number of lines."""
    return g.chunk * g.channels + LANES


cdef inline Py_ssize_t m_width(const Geometry* g) noexcept nogil:
    """Return the outputs of a tile in M, whole vectors."""
    return (g.outputs + LANES - 1) // LANES * LANES


cdef inline Py_ssize_t m_place(const Geometry* g) noexcept nogil:
    """Return the distance from one place of M to the next."""
    return g.chunk * m_width(g) + LANES


cdef inline void evaluate(const int size, vec* d, const int step) noexcept nogil:
    """Replace `size` values, `step` apart, by B^T d: the input at as many points."""
    cdef vec d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step]
    cdef vec d4, d5, even, odd
    cdef vec aa = splat(0.390625), bb = splat(2.25)
    if size == 4:
        d[0] = d2 - d0
        d[step] = d2 + d1
        d[2 * step] = d2 - d1
        d[3 * step] = d3 - d1
        return
    d4 = d[4 * step]
    d5 = d[5 * step]
    even = d4 - bb * d2
    odd = splat(0.625) * (d3 - bb * d1)
    d[step] = even + odd
    d[2 * step] = even - odd
    even = d4 - aa * d2
    odd = splat(1.5) * (d3 - aa * d1)
    d[3 * step] = even + odd
    d[4 * step] = even - odd
    d[0] = splat(0.87890625) * d0 - splat(2.640625) * d2 + d4
    d[5 * step] = splat(0.87890625) * d1 - splat(2.640625) * d3 + d5


cdef inline void interpolate(
    const int size, const vec* m, const int step, vec* y, const int to
) noexcept nogil:
    """Write A^T m: two outputs less than there are products at points."""
    cdef vec sum_a = m[step] + m[2 * step], difference_a = m[step] - m[2 * step]
    cdef vec sum_b, difference_b
    if size == 4:
        y[0] = m[0] + sum_a
        y[to] = difference_a + m[3 * step]
        return
    sum_b = m[3 * step] + m[4 * step]
    difference_b = m[3 * step] - m[4 * step]
    y[0] = m[0] + sum_a + sum_b
    y[to] = splat(0.625) * difference_a + splat(1.5) * difference_b
    y[2 * to] = splat(0.390625) * sum_a + splat(2.25) * sum_b
    y[3 * to] = (
        splat(0.244140625) * difference_a + splat(3.375) * difference_b + m[5 * step]
    )


cdef inline void input_tile(
    const int size, const Geometry* g, const float* x, float* v, Py_ssize_t place
) noexcept nogil:
    """Transform the inputs of one tile, all channels; `size` points along a side."""
    cdef vec d[MOST_PLACES]
    cdef Py_ssize_t c = 0
    cdef int i, j, n
    while c < g.channels:
        n = <int>min(<Py_ssize_t>LANES, g.channels - c)
        for i in range(size):
            for j in range(size):
                d[size * i + j] = load_n(x + i * g.x[1] + j * g.x[2] + c, n)
        for i in range(size):
            evaluate(size, &d[i], size)
        for i in range(size):
            evaluate(size, &d[size * i], 1)
        for i in range(size * size):
            store_n(v + i * place + c, d[i], n)
        c += LANES


cdef inline void output_tile(
    const int size, const Geometry* g, const float* m, Py_ssize_t place,
    const float* bias, float* y, const float* r, Py_ssize_t rows, Py_ssize_t pixels,
    Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """Transform one tile's products, finish and store the outputs inside the image."""
    cdef vec d[MOST_PLACES]
    cdef vec half[24]
    cdef vec out[16]
    cdef vec b
    cdef Py_ssize_t c = first
    cdef int i, j, n
    while c < last:
        n = <int>min(<Py_ssize_t>LANES, g.outputs - c)
        for i in range(size * size):
            d[i] = load(m + i * place + c)
        for j in range(size):
            interpolate(size, &d[j], size, &half[j], size)
        for i in range(size - 2):
            interpolate(size, &half[size * i], 1, &out[(size - 2) * i], 1)
        b = load(bias + c)
        for i in range(size - 2):
            for j in range(size - 2):
                out[(size - 2) * i + j] = out[(size - 2) * i + j] + b
                if g.finish.residual and i < rows and j < pixels:
                    out[(size - 2) * i + j] = out[(size - 2) * i + j] + load_n(
                        r + i * g.r[1] + j * g.r[2] + c, n
                    )
        activate_each(
            g.finish.code, g.finish.alpha, g.finish.beta, out, (size - 2) * (size - 2)
        )
        for i in range(size - 2):
            for j in range(size - 2):
                if i < rows and j < pixels:
                    store_n(
                        y + i * g.y[1] + j * g.y[2] + c, out[(size - 2) * i + j], n
                    )
        c += LANES


cdef void transform_inputs(
    const Geometry* g, const float* x, float* v, Py_ssize_t first, Py_ssize_t last,
    Py_ssize_t base,
) noexcept nogil:
    """Transform tiles; V's row of a tile is its number less `base`."""
    cdef Py_ssize_t t, image, i, j, xo
    for t in range(first, last):
        j = t % g.across
        i = t // g.across % g.down
        image = t // (g.across * g.down)
        xo = image * g.x[0] + g.tile * (i * g.x[1] + j * g.x[2])
        if g.tile == 4:
            input_tile(6, g, x + xo, v + (t - base) * g.channels, v_place(g))
        else:
            input_tile(4, g, x + xo, v + (t - base) * g.channels, v_place(g))


cdef void products(
    const Geometry* g, const float* v, const float* u, float* m, Py_ssize_t tiles,
    Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """Multiply, for the blocks of outputs from `first` to `last`."""
    cdef Py_ssize_t vectors = m_width(g) // LANES
    cdef Py_ssize_t strips = (tiles + g.mr - 1) // g.mr
    cdef Py_ssize_t place, block, vector, strip, rows
    cdef const float* after
    cdef Task task
    cdef Tile run
    cdef Finish plain
    cdef int nr
    plain.code = NONE
    plain.alpha = -INFINITY
    plain.beta = INFINITY
    plain.residual = 0
    task.r = NULL
    task.dx = g.channels
    task.dy = m_width(g)
    task.dr = 0
    task.tap = &NO_TAP
    task.taps = 1
    task.run = g.channels
    task.bias = NO_BIAS
    task.distant = False
    task.finish = &plain
    for place in range(g.places):
        for block in range(first, last):
            vector = block * g.nr
            nr = <int>min(<Py_ssize_t>g.nr, vectors - vector)
            task.w = u + (place * vectors + vector) * LANES * g.channels
            task.outputs = nr * LANES
            task.x = v + place * v_place(g)
            task.y = m + place * m_place(g) + vector * LANES
            after = task.w + nr * LANES * g.channels
            if block + 1 == last:
                after = u + ((place + 1) * vectors + first * g.nr) * LANES * g.channels
            for strip in range(strips):
                # Two lines a step, so that two strips fetch a block of four vectors.
                task.ahead = after + min(2 * strip, <Py_ssize_t>nr - 1) * LINE * g.channels
                task.apart = LINE * g.channels if 2 * strip + 1 < nr else 0
                rows = tiles // strips + (1 if strip < tiles % strips else 0)
                run = TILES[nr][rows]
                run(&task)
                task.x += rows * task.dx
                task.y += rows * task.dy


cdef void transform_outputs(
    const Geometry* g, char** operand, const float* m, Py_ssize_t first,
    Py_ssize_t last, Py_ssize_t base, Py_ssize_t first_output, Py_ssize_t last_output,
) noexcept nogil:
    """Transform tiles; M's row of a tile is its number less `base`."""
    cdef Py_ssize_t t, image, i, j, rows, pixels
    cdef const float* bias = <const float*>operand[3]
    cdef const float* products
    cdef const float* r
    cdef float* y
    for t in range(first, last):
        j = t % g.across
        i = t // g.across % g.down
        image = t // (g.across * g.down)
        y = <float*>operand[0] + image * g.y[0] + g.tile * (i * g.y[1] + j * g.y[2])
        r = (
            <const float*>operand[4] + image * g.r[0]
            + g.tile * (i * g.r[1] + j * g.r[2])
        )
        products = m + (t - base) * m_width(g)
        rows = g.rows - g.tile * i
        pixels = g.pixels - g.tile * j
        if g.tile == 4:
            output_tile(6, g, products, m_place(g), bias, y, r, rows, pixels,
                        first_output, last_output)
        else:
            output_tile(4, g, products, m_place(g), bias, y, r, rows, pixels,
                        first_output, last_output)


cdef void run_winograd(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t chunks = (g.tiles + g.chunk - 1) // g.chunk
    cdef Py_ssize_t blocks = (m_width(g) // LANES + g.nr - 1) // g.nr
    cdef Py_ssize_t k, first, last, block = 0, end = blocks
    cdef Py_ssize_t chunk = share(chunks, part, parts), stop = share(chunks, part + 1, parts)
    cdef float* v = <float*>operand[5] + part * g.places * (v_place(g) + m_place(g))
    cdef float* m = v + g.places * v_place(g)
    if chunks == 1:
        chunk, stop = 0, 1
        block = share(blocks, part, parts)
        end = share(blocks, part + 1, parts)
        if block == end:
            return
    for k in range(chunk, stop):
        first = g.tiles * k // chunks
        last = g.tiles * (k + 1) // chunks
        transform_inputs(g, <const float*>operand[1], v, first, last, first)
        products(g, v, <const float*>operand[2], m, last - first, block, end)
        transform_outputs(g, operand, m, first, last, first, block * g.nr * LANES,
                          min(g.outputs, end * g.nr * LANES))


def winograd(Py_ssize_t tile, Py_ssize_t images, down, across, rows, pixels, Py_ssize_t channels,
             Py_ssize_t outputs, Py_ssize_t chunk, x, y, r, shape, finish,
             bint residual):
    """Bind the convolution.

    Operands: output, input, weights, bias, residual (any address if there is none), and
    scratch of `scratch_elements` for each thread.

    Parameters
    ----------
    tile : int
        Outputs of a tile along a side, 2 or 4.
    images, down, across : int
        How many images there are, and tiles in each.
    rows, pixels : int
        Outputs of an image; the last tiles may reach beyond.
    channels, outputs : int
        Of input and output.
    chunk : int
        Tiles done together.
    x, y, r : tuple of 3 int
        Distances between images, rows and pixels of input, output and residual.
    shape : (int, int)
        Most tiles and most vectors of outputs of a register tile.
    finish : (int, float, float)
        Activation code and its two numbers.
    residual : bool
        Whether to add the residual.
    """
    cdef Geometry g
    cdef int axis
    g.tile = tile
    g.places = (tile + 2) * (tile + 2)
    g.tiles = images * down * across
    g.down = down
    g.across = across
    g.rows = rows
    g.pixels = pixels
    g.channels = channels
    g.outputs = outputs
    g.chunk = chunk
    for axis in range(3):
        g.x[axis] = x[axis]
        g.y[axis] = y[axis]
        g.r[axis] = r[axis]
    g.mr, g.nr = shape
    g.finish.code, g.finish.alpha, g.finish.beta = finish
    g.finish.residual = residual
    if not (0 < g.mr <= MOST_ROWS and 0 < g.nr <= MOST_VECTORS
            and g.mr * g.nr + g.nr <= REGISTERS):
        raise ValueError(f"no register tile of {g.mr} tiles by {g.nr} vectors")
    return bound(run_winograd, &g, sizeof(g))


def scratch_elements(Py_ssize_t tile, Py_ssize_t channels, Py_ssize_t outputs,
                     Py_ssize_t chunk):
    """Return the floats of V and M of one thread for `chunk` tiles."""
    cdef Geometry g
    cdef Py_ssize_t places = (tile + 2) * (tile + 2)
    g.channels = channels
    g.outputs = outputs
    g.chunk = chunk
    return places * (v_place(&g) + m_place(&g))


cdef void transform_vector(
    const Geometry* g, const float* k, Py_ssize_t tap, int lanes, const double* m,
    float* out, Py_ssize_t place,
) noexcept nogil:
    """Write G k G^T for one input channel and up to LANES outputs, in float64."""
    cdef double w[9][LANES]
    cdef double half[18][LANES]
    cdef int size = <int>g.tile + 2
    cdef int i, j, n
    for i in range(9):
        for n in range(LANES):
            w[i][n] = k[i * tap + n] if n < lanes else 0
    for i in range(size):
        for j in range(3):
            for n in range(LANES):
                half[3 * i + j][n] = (
                    m[3 * i] * w[j][n] + m[3 * i + 1] * w[3 + j][n]
                    + m[3 * i + 2] * w[6 + j][n]
                )
    for i in range(size):
        for j in range(size):
            for n in range(LANES):
                out[n] = <float>(
                    half[3 * i][n] * m[3 * j] + half[3 * i + 1][n] * m[3 * j + 1]
                    + half[3 * i + 2][n] * m[3 * j + 2]
                )
            out += place


def pack_weights(const float[:, :, :, ::1] kernel, const double[:, ::1] g_matrix, int nr,
                 float[::1] out):
    """Write U in the order in which the products read it.

    Parameters
    ----------
    kernel : array of shape (3, 3, channels, outputs)
    g_matrix : array of shape (tile + 2, 3)
        G: evaluates a kernel at the points.
    nr : int
        Vectors of outputs of a register tile.
    out : array of (tile + 2)^2 * channels * outputs, these filled up to whole vectors
    """
    cdef Geometry g
    cdef Py_ssize_t channels = kernel.shape[2], outputs = kernel.shape[3]
    cdef Py_ssize_t vectors = (outputs + LANES - 1) // LANES
    cdef Py_ssize_t block, vector, c, width
    g.tile = g_matrix.shape[0] - 2
    with nogil:
        for block in range((vectors + nr - 1) // nr):
            width = min(<Py_ssize_t>nr, vectors - block * nr)
            for c in range(channels):
                for vector in range(block * nr, block * nr + width):
                    transform_vector(
                        &g, &kernel[0, 0, c, vector * LANES], channels * outputs,
                        <int>min(<Py_ssize_t>LANES, outputs - vector * LANES),
                        &g_matrix[0, 0],
                        &out[
                            (block * nr * channels + c * width + vector - block * nr)
                            * LANES
                        ],
                        vectors * LANES * channels,
                    )
