"""Convolution with few outputs: several pixels share a vector.

The matrix product of ``conv.pyx`` gives whole vectors of output channels to every pixel;
six channels use six of sixteen lanes. But in channels-last memory the outputs of a row
are one run of numbers, pixel after pixel, and vectors can be cut from it wherever they
end. With six outputs the first holds pixels 0 and 1 and four channels of pixel 2. In lane
l of the vector that begins at number `at` of the row

    pixel, channel = divmod(at + l, outputs)
    y[at + l] = bias[channel]
                + sum over taps t, k of x[pixel * step + tap[t] + k] * w[t, k, channel]

The inputs of a vector lie close together: one load fetches them, one permutation gives
every lane its own. Which lane gets which repeats after `period` vectors; so many kinds
of them there are, and the weights are stored for each kind, in its lanes' order.

A tile is a vector of several output rows, one above the other. The next output row
begins one input row further down, so it reads what this one has read, one row of the
kernel earlier: a tile loads each input once and multiplies it for all of them.

Loop nest, outermost first:

    tiles of rows      up to MOST_ROWS rows of one image or plane
    vectors of a row
    taps, channels     each step loads the inputs of `rows + height - 1` rows
    rows of the kernel
"""

from activation cimport CLAMP, NONE
from libc.math cimport INFINITY
from simd cimport (
    LANES, REGISTERS, ivec, load, load_index, one, pick, splat, store, store_n, vec, vmax,
    vmin,
)
from step cimport bound, share

include "activate_each.pxi"

lanes = LANES
"""Floats in a vector."""

cdef enum:
    MOST_ROWS = 14
    MOST_HEIGHT = 5

heights = (3, 5)
"""How many rows a kernel may have."""


cdef struct Geometry:
    Py_ssize_t size[4]      # output images, planes, rows, pixels of a row
    Py_ssize_t x[4]         # input distance from one output to the next, by axis
    Py_ssize_t y[3]
    Py_ssize_t outputs
    Py_ssize_t taps
    Py_ssize_t run          # contiguous input elements a tap
    Py_ssize_t height       # kernel rows
    Py_ssize_t period
    int code
    float alpha
    float beta


cdef struct Task:
    # One tile: where it reads and writes.
    const float* x
    float* y
    const float* w
    const float* bias
    const int* index        # of each lane's input
    int inputs              # that the lanes read from
    int outputs             # lanes that are stored
    const Py_ssize_t* tap   # offsets into x


ctypedef void (*Tile)(const Geometry* g, const Task* t) noexcept nogil


cdef void finish_tile(
    vec* sums, int rows, const Geometry* g, const Task* t
) noexcept nogil:
    """Activate and store; the vectors may be partly used."""
    cdef int i
    activate_each(g.code, g.alpha, g.beta, sums, 1, rows, <float*>sums, 0)
    for i in range(rows):
        store_n(t.y + i * g.y[2], sums[i], t.outputs)


cdef inline void tile(
    const int rows, const int height, const bint shared, const Geometry* g, const Task* t
) noexcept nogil:
    """Compute one vector of `rows` output rows; `height` is that of the geometry.

    `shared` says that all lanes read one input, which needs no permutation.
    """
    cdef vec acc[MOST_ROWS]
    cdef vec sums[MOST_ROWS]
    cdef vec near[MOST_ROWS + MOST_HEIGHT]
    cdef vec b = load(t.bias)
    cdef vec low, high
    cdef ivec index = load_index(t.index)
    cdef const float* p
    cdef const float* w = t.w
    cdef Py_ssize_t n, k, down = g.x[2]
    cdef int i, j, once
    for once in range(one()):
        for i in range(rows):
            acc[i] = b
        for n in range(g.taps):
            p = t.x + t.tap[n]
            for k in range(g.run):
                for i in range(rows - 1):
                    near[i] = splat(p[i * down]) if shared else pick(p + i * down, index, t.inputs)
                for j in range(height):
                    # Not sooner: near[j - 1] has had its last use and leaves a register.
                    i = rows - 1 + j
                    near[i] = splat(p[i * down]) if shared else pick(p + i * down, index, t.inputs)
                    b = load(w + j * LANES)
                    for i in range(rows):
                        acc[i] = acc[i] + near[i + j] * b
                w += height * LANES
                p += 1
        low = splat(g.alpha)
        high = splat(g.beta)
        if g.code > CLAMP or t.outputs < LANES:
            for i in range(rows):
                sums[i] = acc[i]
            finish_tile(sums, rows, g, t)
        else:
            for i in range(rows):
                store(t.y + i * g.y[2], vmin(high, vmax(low, acc[i])))


cdef inline void tile_of(
    const int rows, const Geometry* g, const Task* t
) noexcept nogil:
    if g.height == 5:
        if t.inputs == 1: tile(rows, 5, True, g, t)
        else: tile(rows, 5, False, g, t)
    else:
        tile(rows, 3, False, g, t)


cdef void tile_1(const Geometry* g, const Task* t) noexcept nogil: tile_of(1, g, t)
cdef void tile_2(const Geometry* g, const Task* t) noexcept nogil: tile_of(2, g, t)
cdef void tile_3(const Geometry* g, const Task* t) noexcept nogil: tile_of(3, g, t)
cdef void tile_4(const Geometry* g, const Task* t) noexcept nogil: tile_of(4, g, t)
cdef void tile_5(const Geometry* g, const Task* t) noexcept nogil: tile_of(5, g, t)
cdef void tile_6(const Geometry* g, const Task* t) noexcept nogil: tile_of(6, g, t)
cdef void tile_7(const Geometry* g, const Task* t) noexcept nogil:
    if REGISTERS == 32: tile_of(7, g, t)
cdef void tile_8(const Geometry* g, const Task* t) noexcept nogil:
    if REGISTERS == 32: tile_of(8, g, t)
cdef void tile_9(const Geometry* g, const Task* t) noexcept nogil:
    if REGISTERS == 32: tile_of(9, g, t)
cdef void tile_10(const Geometry* g, const Task* t) noexcept nogil:
    if REGISTERS == 32: tile_of(10, g, t)
cdef void tile_11(const Geometry* g, const Task* t) noexcept nogil:
    if REGISTERS == 32: tile_of(11, g, t)
cdef void tile_12(const Geometry* g, const Task* t) noexcept nogil:
    if REGISTERS == 32: tile_of(12, g, t)
cdef void tile_13(const Geometry* g, const Task* t) noexcept nogil:
    if REGISTERS == 32: tile_of(13, g, t)
cdef void tile_14(const Geometry* g, const Task* t) noexcept nogil:
    if REGISTERS == 32: tile_of(14, g, t)

cdef Tile TILES[MOST_ROWS + 1]

TILES[1] = tile_1
TILES[2] = tile_2
TILES[3] = tile_3
TILES[4] = tile_4
TILES[5] = tile_5
TILES[6] = tile_6
TILES[7] = tile_7
TILES[8] = tile_8
TILES[9] = tile_9
TILES[10] = tile_10
TILES[11] = tile_11
TILES[12] = tile_12
TILES[13] = tile_13
TILES[14] = tile_14


cdef void run_narrow(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    # A sum and an input a row, one vector of weights, the lanes' indices and the mask.
    cdef Py_ssize_t most = min(<Py_ssize_t>MOST_ROWS, (REGISTERS - 3) // 2)
    cdef Py_ssize_t tiles = (g.size[2] + most - 1) // most
    cdef Py_ssize_t units = g.size[0] * g.size[1] * tiles
    cdef Py_ssize_t width = g.size[3] * g.outputs
    cdef Py_ssize_t step = g.taps * g.run * g.height * LANES
    cdef Py_ssize_t u, image, plane, row, rows, at, first, kind, begin
    cdef const float* x
    cdef float* y
    cdef Tile run
    cdef Task t
    t.tap = <const Py_ssize_t*>operand[4]
    for u in range(share(units, part, parts), share(units, part + 1, parts)):
        row = share(g.size[2], u % tiles, tiles)
        rows = share(g.size[2], u % tiles + 1, tiles) - row
        plane = u // tiles % g.size[1]
        image = u // tiles // g.size[1]
        x = <const float*>operand[1] + image * g.x[0] + plane * g.x[1] + row * g.x[2]
        y = <float*>operand[0] + image * g.y[0] + plane * g.y[1] + row * g.y[2]
        run = TILES[rows]
        at = kind = 0
        while at < width:
            first = at // g.outputs
            begin = at - first * g.outputs
            t.outputs = <int>min(<Py_ssize_t>LANES, width - at)
            t.inputs = <int>((begin + t.outputs - 1) // g.outputs * g.x[3] + 1)
            t.x = x + first * g.x[3]
            t.y = y + at
            t.w = <const float*>operand[2] + kind * step
            t.bias = <const float*>operand[3] + kind * LANES
            t.index = <const int*>operand[5] + kind * LANES
            run(g, &t)
            at += LANES
            kind += 1
            if kind == g.period:
                kind = 0


def narrow(size, x, y, Py_ssize_t outputs, Py_ssize_t taps, Py_ssize_t run,
           Py_ssize_t height, Py_ssize_t period, finish):
    """Bind a convolution with few outputs.

    Operands: output, whose pixels follow each other without a gap; input at its first
    tap's origin; weights of shape (period, taps, run, height, LANES); bias (period,
    LANES); offsets of the taps of the kernel's first row (int64); which of its inputs
    each lane reads (int32, (period, LANES)). The output may not overlap the input.

    Parameters
    ----------
    size : tuple of 4 int
        Output images, planes, rows and pixels of a row.
    x : tuple of 4 int
        How far the input moves from one output position to the next.
    y : tuple of 3 int
        How far the output moves from one image, plane and row to the next.
    outputs, taps, run
        As for `conv` of ``conv.pyx``.
    height : int
        Kernel rows, one of `heights`. Each is one move `x` of a row below the one before.
    period : int
        Kinds of vectors.
    finish : (int, float, float)
        Activation code and its two numbers.
    """
    cdef Geometry g
    cdef int axis
    for axis in range(4):
        g.size[axis] = size[axis]
        g.x[axis] = x[axis]
    for axis in range(3):
        g.y[axis] = y[axis]
    g.outputs = outputs
    g.taps = taps
    g.run = run
    g.height = height
    g.period = period
    g.code, g.alpha, g.beta = finish
    if g.code == NONE:
        g.alpha = -INFINITY
        g.beta = INFINITY
    if height not in heights:
        raise ValueError(f"a kernel of {height} rows, wanted one of {heights}")
    return bound(run_narrow, &g, sizeof(g))
