"""Convolution by Winograd's minimal filtering along the rows: F(m, r).

A kernel's row of r taps makes m outputs that follow each other from m + r - 1 inputs.
Taken as a product of polynomials, evaluated at as many points, they cost one product a
point where the definition needs m r:

    y = A^T [ (G g) * (B^T d) ]                 (* element by element)

d are the inputs, g is the kernel's row. Over channels and rows of the kernel the
products at each point p are sums, so each point is a matrix product of its own:

    M[p][i, t, out] = sum over kernel rows k and channels c of
                      V[p][i * stride + k * dilation, t, c] * U[p][k, c, out]

for output row i and tile t, which is m outputs wide. V is made of every input row once,
whichever rows of the kernel read it; planes of a volume's kernel are more rows. Tiles in
two dimensions (``winograd.pyx``) save more products with 3x3 taps, but are transformed
several times as often. So rows serve where there are few channels, where there is no
second dimension, and 5x5 kernels: F(5, 5) needs nine products for each output and kernel
row of 5, as many as tiles of 2x2 would, and a fifth of their transforms.

A stride s along the row is none if s pixels are taken as one with s times the channels;
the kernel then has r / s taps, the last perhaps in part zeros. A row of 7 taps with a
stride of 2 becomes one of 4, and 4 outputs cost 14 products instead of 28.

The points are pairs +-a, zero where their number is odd, and infinity. With two pairs
they are those of ``winograd.pyx``. For a pair the rows of B^T are the coefficients of
(x +- a) q(x^2) with q the product of the other x^2 - b^2, and once more x where there is
a zero. So inputs at odd and even places are added up apart, and a pair takes both sums.

Loop nest, outermost first:

    blocks             `lines` rows by `wide` tiles, whose V and M stay in the cache
    input transform    rows, tiles, vectors of channels
    products           points, blocks of outputs, tiles; see ``places.pxi``
    output transform   rows, tiles, vectors of outputs

References
----------
Winograd, "Arithmetic Complexity of Computations", 1980.
Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.
"""

from step cimport bound, share

include "places.pxi"

lanes = LANES
"""Floats in a vector."""

registers = REGISTERS
"""Vector registers of this instruction set."""

POINTS = {
    6: (0.625, 1.5),
    7: (0.3125, 0.875, 1.625),
    8: (0.5, 1.0, 2.0),
    9: (0.25, 0.6875, 1.125, 2.0),
}
"""The points above zero, by how many there are with their opposites, zero and infinity."""

cdef enum:
    MOST_POINTS = 9
    MOST_PAIRS = 4
    MOST_TILE = 5
    MOST_TAPS = 64


cdef struct Geometry:
    Py_ssize_t tile         # outputs of a tile
    Py_ssize_t points
    Py_ssize_t size[4]      # output images, planes, rows and pixels
    Py_ssize_t lines        # rows of a block
    Py_ssize_t wide         # tiles of a block's row
    Py_ssize_t taps[2]      # the kernel's planes and rows
    Py_ssize_t stride[2]    # inputs from one output plane and row to the next
    Py_ssize_t dilation[2]  # and from one of the kernel to the next
    Py_ssize_t channels
    Py_ssize_t outputs
    Py_ssize_t x[4]         # distances between images, planes, rows, pixels
    Py_ssize_t y[4]
    Py_ssize_t r[4]
    float point[MOST_PAIRS]
    float other[MOST_PAIRS][MOST_PAIRS]     # q of each pair, lowest power first
    float all[MOST_PAIRS + 1]               # the product of every x^2 - a^2
    float power[MOST_TILE][MOST_PAIRS]      # powers of the points
    int mr
    int nr
    Finish finish


cdef inline Py_ssize_t v_place(const Geometry* g) noexcept nogil:
    """Return the distance from one point to the next in V."""
    return g.channels if g.channels < LANES else filled(g.channels)


cdef inline Py_ssize_t v_tile(const Geometry* g) noexcept nogil:
    """Return the distance from one tile to the next in V."""
    cdef Py_ssize_t size = g.points * v_place(g)
    return size if g.channels < LANES else size + (1 - size // LANES % 2) * LANES


cdef inline Py_ssize_t m_tile(const Geometry* g) noexcept nogil:
    """Return the distance from one tile to the next in M; an odd number of vectors."""
    cdef Py_ssize_t size = g.points * filled(g.outputs)
    return size + (1 - size // LANES % 2) * LANES


cdef inline Py_ssize_t rows_of(const Geometry* g, Py_ssize_t lines) noexcept nogil:
    """Return how many input rows of a plane that many output rows read."""
    return (lines - 1) * g.stride[1] + (g.taps[1] - 1) * g.dilation[1] + 1


cdef inline Py_ssize_t v_phase(const Geometry* g, Py_ssize_t lines, Py_ssize_t wide) noexcept nogil:
    """Return how far apart in V rows are whose numbers differ by less than the stride.

    Those that lie a stride apart follow each other, as output rows do.
    """
    return (rows_of(g, lines) + g.stride[1] - 1) // g.stride[1] * wide * v_tile(g)


cdef inline Py_ssize_t v_size(const Geometry* g) noexcept nogil:
    """Return the floats of V."""
    return filled(g.taps[0] * g.stride[1] * v_phase(g, g.lines, g.wide))


cdef inline Py_ssize_t scratch(const Geometry* g) noexcept nogil:
    """Return the floats of V and M of one thread."""
    return v_size(g) + g.lines * g.wide * m_tile(g)


cdef inline void input_vector(
    const int points, const Geometry* g, const float* x, float* v, const int lanes
) noexcept nogil:
    """Write B^T d for one vector of channels of a tile."""
    cdef vec d[MOST_POINTS]
    cdef vec even, odd
    cdef Py_ssize_t place = v_place(g)
    cdef int pairs = (points - 1) // 2, zero = (points - 1) % 2, i, j, once
    for once in range(one()):
        for i in range(points):
            d[i] = load_n(x + i * g.x[3], lanes)
        for i in range(pairs):
            # The highest coefficient is one.
            odd = d[2 * pairs - 2 + zero]
            even = d[2 * pairs - 1 + zero]
            for j in range(pairs - 1):
                odd = odd + splat(g.other[i][j]) * d[2 * j + zero]
                even = even + splat(g.other[i][j]) * d[2 * j + 1 + zero]
            odd = splat(g.point[i]) * odd
            store_n(v + (zero + 2 * i) * place, even + odd, lanes)
            store_n(v + (zero + 2 * i + 1) * place, even - odd, lanes)
        if zero:
            even = d[2 * pairs]
            for j in range(pairs):
                even = even + splat(g.all[j]) * d[2 * j]
            store_n(v, even, lanes)
        even = d[points - 1]
        for j in range(pairs):
            even = even + splat(g.all[j]) * d[2 * j + zero]
        store_n(v + (points - 1) * place, even, lanes)


cdef inline void output_vector(
    const int points, const int tile, const Geometry* g, const float* m,
    const float* bias, float* y, const float* r, Py_ssize_t pixels, const int lanes,
) noexcept nogil:
    """Write A^T m for one vector of outputs of a tile, finished; what is inside."""
    cdef vec sums[MOST_PAIRS]
    cdef vec differences[MOST_PAIRS]
    cdef vec out[MOST_TILE]
    cdef vec a, b = load(bias)
    cdef Py_ssize_t place = filled(g.outputs)
    cdef int pairs = (points - 1) // 2, zero = (points - 1) % 2, i, k, once
    for k in range(tile):
        prefetch_write(y + (tile + k) * g.y[3])
    for once in range(one()):
        for i in range(pairs):
            a = load(m + (zero + 2 * i) * place)
            sums[i] = a + load(m + (zero + 2 * i + 1) * place)
            differences[i] = a - load(m + (zero + 2 * i + 1) * place)
        for k in range(tile):
            out[k] = b
            if k == 0 and zero:
                out[k] = b + load(m)
            for i in range(pairs):
                a = differences[i] if k % 2 else sums[i]
                out[k] = out[k] + (splat(g.power[k][i]) * a if k else a)
        out[tile - 1] = out[tile - 1] + load(m + (points - 1) * place)
        if g.finish.residual:
            for k in range(tile):
                if k < pixels:
                    out[k] = out[k] + load_n(r + k * g.r[3], lanes)
        finish_results(&g.finish, tile, out)
        for k in range(tile):
            if k < pixels:
                store_n(y + k * g.y[3], out[k], lanes)


cdef inline void input_tile(
    const int points, const Geometry* g, const float* x, float* v
) noexcept nogil:
    """Transform all channels of a tile."""
    cdef Py_ssize_t c = 0
    while c + LANES <= g.channels:
        input_vector(points, g, x + c, v + c, LANES)
        c += LANES
    if c < g.channels:
        input_vector(points, g, x + c, v + c, <int>(g.channels - c))


cdef inline void output_tile(
    const int points, const int tile, const Geometry* g, const float* m,
    const float* bias, float* y, const float* r, Py_ssize_t pixels, Py_ssize_t outputs,
) noexcept nogil:
    """Transform that many outputs of a tile."""
    cdef Py_ssize_t c = 0
    while c + LANES <= outputs:
        output_vector(points, tile, g, m + c, bias + c, y + c, r + c, pixels, LANES)
        c += LANES
    if c < outputs:
        output_vector(points, tile, g, m + c, bias + c, y + c, r + c, pixels,
                      <int>(outputs - c))


cdef void transform_inputs(
    const Geometry* g, const float* x, float* v, Py_ssize_t lines, Py_ssize_t wide
) noexcept nogil:
    """Transform the input of a block."""
    cdef Py_ssize_t line = wide * v_tile(g), phase = v_phase(g, lines, wide)
    cdef Py_ssize_t plane, row, t
    cdef const float* p
    cdef float* to
    for plane in range(g.taps[0]):
        for row in range(rows_of(g, lines)):
            p = x + plane * g.dilation[0] * g.x[1] + row * g.x[2]
            to = v + row % g.stride[1] * phase + row // g.stride[1] * line
            for t in range(wide):
                if g.points == 6: input_tile(6, g, p, to)
                elif g.points == 7: input_tile(7, g, p, to)
                elif g.points == 8: input_tile(8, g, p, to)
                else: input_tile(9, g, p, to)
                p += g.tile * g.x[3]
                to += v_tile(g)
        v += g.stride[1] * phase


cdef void products(
    const Geometry* g, const float* v, const float* u, float* m, Py_ssize_t lines,
    Py_ssize_t wide, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """Multiply at every point, for some blocks of outputs."""
    cdef Py_ssize_t line = wide * v_tile(g), phase = v_phase(g, lines, wide)
    cdef Py_ssize_t vectors = filled(g.outputs) // LANES, plane, k, p, row, taps = 0
    cdef Py_ssize_t tap[MOST_TAPS]
    cdef Task task
    for plane in range(g.taps[0]):
        for k in range(g.taps[1]):
            row = k * g.dilation[1]
            tap[taps] = (
                (plane * g.stride[1] + row % g.stride[1]) * phase
                + row // g.stride[1] * line
            )
            taps += 1
    begin_places(&task, tap, taps, g.channels, v_tile(g), m_tile(g))
    for p in range(g.points):
        multiply_place(&task, v + p * v_place(g), u, m + p * filled(g.outputs),
                       lines * wide, vectors, first, last, g.mr, g.nr)
        u += vectors * LANES * g.channels * taps


cdef void transform_outputs(
    const Geometry* g, const float* m, const float* bias, float* y, const float* r,
    Py_ssize_t lines, Py_ssize_t wide, Py_ssize_t pixels, Py_ssize_t outputs,
) noexcept nogil:
    """Transform that many outputs of a block; its rows end after so many pixels."""
    cdef Py_ssize_t i, t, left
    for i in range(lines):
        for t in range(wide):
            left = pixels - t * g.tile
            if g.points == 6: output_tile(6, 4, g, m, bias, y, r, left, outputs)
            elif g.points == 7: output_tile(7, 4, g, m, bias, y, r, left, outputs)
            elif g.points == 8: output_tile(8, 4, g, m, bias, y, r, left, outputs)
            else: output_tile(9, 5, g, m, bias, y, r, left, outputs)
            m += m_tile(g)
            y += g.tile * g.y[3]
            r += g.tile * g.r[3]
        y += g.y[2] - wide * g.tile * g.y[3]
        r += g.r[2] - wide * g.tile * g.r[3]


cdef void run_winograd_row(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t across = (g.size[3] + g.tile - 1) // g.tile
    cdef Py_ssize_t down = (g.size[2] + g.lines - 1) // g.lines
    cdef Py_ssize_t beside = (across + g.wide - 1) // g.wide
    cdef Py_ssize_t units = g.size[0] * g.size[1] * down * beside
    cdef Py_ssize_t blocks = (filled(g.outputs) // LANES + g.nr - 1) // g.nr
    cdef Py_ssize_t u = share(units, part, parts), stop = share(units, part + 1, parts)
    cdef Py_ssize_t block = 0, end = blocks
    cdef Py_ssize_t image, plane, row, lines, tile, wide, pixel, output, outputs
    cdef float* v = <float*>operand[5] + part * scratch(g)
    cdef float* m = v + v_size(g)
    if units == 1:
        u, stop = 0, 1
        block = share(blocks, part, parts)
        end = share(blocks, part + 1, parts)
        if block == end:
            return
    output = block * g.nr * LANES
    outputs = min(g.outputs, end * g.nr * LANES) - output
    while u < stop:
        image = u // beside // down // g.size[1]
        plane = u // beside // down % g.size[1]
        row = share(g.size[2], u // beside % down, down)
        lines = share(g.size[2], u // beside % down + 1, down) - row
        tile = share(across, u % beside, beside)
        wide = share(across, u % beside + 1, beside) - tile
        pixel = tile * g.tile
        transform_inputs(
            g,
            <const float*>operand[1] + image * g.x[0] + plane * g.stride[0] * g.x[1]
            + row * g.stride[1] * g.x[2] + pixel * g.x[3],
            v, lines, wide,
        )
        products(g, v, <const float*>operand[2], m, lines, wide, block, end)
        transform_outputs(
            g, m + output, <const float*>operand[3] + output,
            <float*>operand[0] + output
            + image * g.y[0] + plane * g.y[1] + row * g.y[2] + pixel * g.y[3],
            <const float*>operand[4] + output
            + image * g.r[0] + plane * g.r[1] + row * g.r[2] + pixel * g.r[3],
            lines, wide, g.size[3] - pixel, outputs,
        )
        u += 1


cdef int set_points(Geometry* g, Py_ssize_t tile, Py_ssize_t width) except -1:
    """Set the tile, and what evaluates and interpolates."""
    cdef Py_ssize_t i, j, k, n, pairs
    if (tile, width) not in ((4, 3), (4, 4), (4, 5), (5, 5)):
        raise ValueError(f"no tile of {tile} for rows of {width} taps")
    g.tile = tile
    g.points = tile + width - 1
    points = POINTS[g.points]
    pairs = len(points)
    for i in range(pairs + 1):
        row = [1.0]
        for k in range(pairs):
            if k != i:
                square = points[k] ** 2
                row = [
                    low - square * high for low, high in zip([0.0, *row], [*row, 0.0])
                ]
        for j in range(len(row)):
            if i < pairs:
                g.other[i][j] = row[j]
            else:
                g.all[j] = row[j]
    for i in range(pairs):
        g.point[i] = points[i]
        for n in range(tile):
            g.power[n][i] = points[i] ** n
    return 0


cdef int set_kernel(Geometry* g, block, taps, stride, dilation, channels, outputs) except -1:
    """Set what the size of scratch depends on."""
    cdef int axis
    g.lines, g.wide = block
    for axis in range(2):
        g.taps[axis] = taps[axis]
        g.stride[axis] = stride[axis]
        g.dilation[axis] = dilation[axis]
    if not 0 < g.taps[0] * g.taps[1] <= MOST_TAPS:
        raise ValueError(f"a kernel of {taps} planes and rows, at most {MOST_TAPS}")
    g.channels = channels
    g.outputs = outputs
    return 0


def winograd_row(Py_ssize_t tile, Py_ssize_t width, size, block, taps, stride, dilation,
                 Py_ssize_t channels, Py_ssize_t outputs, x, y, r, shape, finish,
                 bint residual):
    """Bind the convolution.

    Operands: output, input at its first tap's origin, weights, bias, residual (any
    address if there is none), and scratch of `scratch_elements` for each thread. The
    input can be read to the end of the last tile.

    Parameters
    ----------
    tile : int
        Outputs of a tile: 4, or 5 with rows of 5 taps.
    width : int
        Taps of a row, 3 to 5.
    size : tuple of 4 int
        Output images, planes, rows and pixels; the last tile of a row may reach beyond.
    block : (int, int)
        Rows and tiles done together.
    taps : (int, int)
        The kernel's planes and rows.
    stride : (int, int)
        Input planes and rows from one output plane and row to the next.
    dilation : (int, int)
        The same from one plane and row of the kernel to the next.
    channels, outputs : int
        Of a pixel of input and output.
    x, y, r : tuple of 4 int
        Distances between images, planes, rows and pixels of input, output and residual.
    shape : (int, int)
        Most tiles and most vectors of outputs of a register tile.
    finish : (int, float, float)
        Activation code and its two numbers.
    residual : bool
        Whether to add the residual.
    """
    cdef Geometry g
    cdef int axis
    set_points(&g, tile, width)
    set_kernel(&g, block, taps, stride, dilation, channels, outputs)
    for axis in range(4):
        g.size[axis] = size[axis]
        g.x[axis] = x[axis]
        g.y[axis] = y[axis]
        g.r[axis] = r[axis]
    g.mr, g.nr = shape
    if not (0 < g.mr <= MOST_ROWS and 0 < g.nr <= MOST_VECTORS
            and g.mr * g.nr + g.nr <= REGISTERS):
        raise ValueError(f"no register tile of {g.mr} tiles by {g.nr} vectors")
    g.finish.code, g.finish.alpha, g.finish.beta = finish
    if g.finish.code == NONE:
        g.finish.alpha = -INFINITY
        g.finish.beta = INFINITY
    g.finish.residual = residual
    return bound(run_winograd_row, &g, sizeof(g))


def scratch_elements(Py_ssize_t tile, Py_ssize_t width, block, taps, stride, dilation,
                     Py_ssize_t channels, Py_ssize_t outputs):
    """Return the floats of scratch of one thread; the parameters are `winograd_row`'s."""
    cdef Geometry g
    set_points(&g, tile, width)
    set_kernel(&g, block, taps, stride, dilation, channels, outputs)
    return scratch(&g)
