"""Convolution as a matrix product whose rows are found by a list of offsets.

An output pixel is the sum, over the taps of the kernel and the input channels, of
input times weight. In channels-last memory the channels of one tap are contiguous, and
from one output pixel to the next every tap moves by the same distance. So

    y[pixel, out] = bias[out] + sum over taps t, channels k of
                    x[pixel * step + tap[t] + k] * weight[t, k, out]

is a matrix product with no copy of the input: one, two or three dimensions, stride,
dilation and padding only change `step` and the tap offsets. Padding is a border of
zeros that the planner lays around the input. A 1x1 convolution has one tap; a dense
layer is a 1x1 convolution of one-pixel images.

Loop nest, outermost first:

    chunks of tiles    so many pixels that their input stays in the second-level cache
    blocks of outputs  nr vectors of output channels; their weights are read in order
    tiles of a chunk   mr neighbouring pixels of one output row
    taps, channels     the K loop, inside the tile

A tile (``tile.pxi``) keeps mr x nr vectors of sums in registers: each step of the K loop loads nr
vectors of weights and multiplies them by mr scalars of input. Weights are packed in
the order in which the K loop reads them. If the last vector is needed by half, as for
24 outputs in vectors of 16, two pixels share it: three products for two pixels, not four.
"""

from activation cimport NONE
from libc.math cimport INFINITY
from libc.string cimport memcpy
from step cimport bound, share

include "tile.pxi"

cdef enum:
    PAIRED_LANES = LANES // 2 * (LANES == 16)
    PAIRED_VECTORS = 3

cdef void paired_2x2(const Task* t) noexcept nogil:
    if PAIRED_LANES: tile(2, 2, True, t)
cdef void paired_4x2(const Task* t) noexcept nogil:
    if PAIRED_LANES: tile(4, 2, True, t)
cdef void paired_6x2(const Task* t) noexcept nogil:
    if PAIRED_LANES: tile(6, 2, True, t)
cdef void paired_8x2(const Task* t) noexcept nogil:
    if PAIRED_LANES: tile(8, 2, True, t)
cdef void paired_10x2(const Task* t) noexcept nogil:
    if PAIRED_LANES: tile(10, 2, True, t)
cdef void paired_12x2(const Task* t) noexcept nogil:
    if PAIRED_LANES: tile(12, 2, True, t)
cdef void paired_14x2(const Task* t) noexcept nogil:
    if PAIRED_LANES: tile(14, 2, True, t)
cdef void paired_2x3(const Task* t) noexcept nogil:
    if PAIRED_LANES: tile(2, 3, True, t)
cdef void paired_4x3(const Task* t) noexcept nogil:
    if PAIRED_LANES: tile(4, 3, True, t)
cdef void paired_6x3(const Task* t) noexcept nogil:
    if PAIRED_LANES: tile(6, 3, True, t)
cdef void paired_8x3(const Task* t) noexcept nogil:
    if PAIRED_LANES: tile(8, 3, True, t)
cdef void paired_10x3(const Task* t) noexcept nogil:
    if PAIRED_LANES: tile(10, 3, True, t)

cdef int MOST_PAIRED[MOST_VECTORS + 1]
cdef Tile PAIRED[PAIRED_VECTORS + 1][MOST_ROWS + 1]

MOST_PAIRED[:] = [0, 0, 14, 10, 0]

PAIRED[2][2] = paired_2x2
PAIRED[2][4] = paired_4x2
PAIRED[2][6] = paired_6x2
PAIRED[2][8] = paired_8x2
PAIRED[2][10] = paired_10x2
PAIRED[2][12] = paired_12x2
PAIRED[2][14] = paired_14x2
PAIRED[3][2] = paired_2x3
PAIRED[3][4] = paired_4x3
PAIRED[3][6] = paired_6x3
PAIRED[3][8] = paired_8x3
PAIRED[3][10] = paired_10x3

lanes = LANES
"""Floats in a vector."""

most_paired = {nr: MOST_PAIRED[nr] for nr in range(2, PAIRED_VECTORS + 1) if PAIRED_LANES}
"""The most pixels of a tile in which two share the last vector, by its vectors."""

registers = REGISTERS
"""Vector registers of this instruction set."""


cdef struct Geometry:
    Py_ssize_t size[4]      # output images, planes, rows, pixels of a row
    Py_ssize_t x[4]         # input distance from one output to the next, by axis
    Py_ssize_t y[4]
    Py_ssize_t r[4]         # residual
    Py_ssize_t groups
    Py_ssize_t taps
    Py_ssize_t run          # contiguous input elements a tap
    Py_ssize_t x_group      # input distance from one group to the next
    Py_ssize_t outputs      # output channels a group
    Py_ssize_t chunk        # tiles that share a pass over the weights
    int mr
    int nr
    int unit                # pixels of which a tile has a multiple
    int distant_x
    int distant_y
    Finish finish


cdef struct Cursor:
    # Which tile: image, plane, row, and number within the row.
    Py_ssize_t at[4]


cdef inline void seek(
    Cursor* c, const Geometry* g, Py_ssize_t in_row, Py_ssize_t number
) noexcept nogil:
    """Stand on tile `number`, counted over all rows."""
    c.at[3] = number % in_row
    number = number // in_row
    c.at[2] = number % g.size[2]
    number = number // g.size[2]
    c.at[1] = number % g.size[1]
    c.at[0] = number // g.size[1]


cdef inline void advance(
    Cursor* c, const Geometry* g, Py_ssize_t in_row
) noexcept nogil:
    """Go to the next tile."""
    c.at[3] += 1
    if c.at[3] == in_row:
        c.at[3] = 0
        c.at[2] += 1
        if c.at[2] == g.size[2]:
            c.at[2] = 0
            c.at[1] += 1
            if c.at[1] == g.size[1]:
                c.at[1] = 0
                c.at[0] += 1


cdef inline Py_ssize_t tiles_in_row(const Geometry* g) noexcept nogil:
    cdef Py_ssize_t most = g.mr // g.unit
    return (g.size[3] // g.unit + most - 1) // most


cdef void region(
    const Geometry* g, char** operand, Py_ssize_t first_tile, Py_ssize_t last_tile,
    Py_ssize_t first_block, Py_ssize_t last_block,
) noexcept nogil:
    """Compute some tiles of pixels for some blocks of output channels."""
    cdef Py_ssize_t in_row = tiles_in_row(g), units = g.size[3] // g.unit
    cdef Py_ssize_t short_tile = units // in_row, longer = units % in_row
    cdef Py_ssize_t vectors = (g.outputs + LANES - 1) // LANES
    cdef Py_ssize_t blocks = (vectors + g.nr - 1) // g.nr
    cdef Py_ssize_t depth = g.taps * g.run
    cdef Py_ssize_t chunk, end, u, b, group, vector, pixel, channel
    cdef const float* after
    cdef Task task
    cdef Cursor c
    cdef Tile run
    cdef int mr, nr, axis
    cdef Py_ssize_t xo, yo, ro
    task.dx = g.x[3]
    task.dy = g.y[3]
    task.dr = g.r[3]
    task.tap = <const Py_ssize_t*>operand[4]
    task.taps = g.taps
    task.run = g.run
    task.apart = 0
    task.distant = g.distant_y
    task.finish = &g.finish
    chunk = first_tile
    while chunk < last_tile:
        end = min(chunk + g.chunk, last_tile)
        for b in range(first_block, last_block):
            group = b // blocks
            vector = (b % blocks) * g.nr
            nr = <int>min(<Py_ssize_t>g.nr, vectors - vector)
            channel = group * g.outputs + vector * LANES
            task.w = (
                <const float*>operand[2] + (group * vectors + vector) * LANES * depth
            )
            task.bias = <const float*>operand[3] + (group * vectors + vector) * LANES
            task.outputs = g.outputs - vector * LANES
            after = task.w + nr * LANES * depth
            seek(&c, g, in_row, chunk)
            for u in range(chunk, end):
                mr = g.unit * <int>(short_tile + (1 if c.at[3] < longer else 0))
                pixel = g.unit * (c.at[3] * short_tile + min(c.at[3], longer))
                xo = pixel * g.x[3] + group * g.x_group
                yo = pixel * g.y[3] + channel
                ro = pixel * g.r[3] + channel
                for axis in range(3):
                    xo += c.at[axis] * g.x[axis]
                    yo += c.at[axis] * g.y[axis]
                    ro += c.at[axis] * g.r[axis]
                task.x = <const float*>operand[1] + xo
                task.y = <float*>operand[0] + yo
                task.r = <const float*>operand[5] + ro
                # The first tiles of a block fetch the weights of the next one, the
                # others the next tile's input. A tile alone reads its weights as one
                # stream, which the processor fetches by itself.
                if u - chunk < nr and end > chunk + 1:
                    task.ahead = after + (u - chunk) * LINE * depth
                elif g.distant_x and g.taps > 0:
                    task.ahead = task.x + task.tap[0] + mr * g.x[3]
                else:
                    task.ahead = task.w
                run = TILES[nr][mr]
                if g.unit == 2 and vector + nr == vectors:
                    run = PAIRED[nr][mr]
                run(&task)
                advance(&c, g, in_row)
        chunk = end


cdef struct Place:
    # A tile of a block, where one part's work ends and the next one's begins.
    Py_ssize_t block
    Py_ssize_t tile


cdef Place place(
    const Geometry* g, Py_ssize_t tiles, Py_ssize_t vectors, Py_ssize_t work
) noexcept nogil:
    """Return where about so many tiles of one vector are done, block after block."""
    cdef Py_ssize_t blocks = (vectors + g.nr - 1) // g.nr
    cdef Py_ssize_t group = work // (vectors * tiles)
    cdef Py_ssize_t rest = work - group * vectors * tiles
    cdef Py_ssize_t block = min(rest // (g.nr * tiles), blocks - 1)
    cdef Py_ssize_t nr = min(<Py_ssize_t>g.nr, vectors - block * g.nr)
    cdef Place found
    found.block = group * blocks + block
    found.tile = (rest - block * g.nr * tiles + nr // 2) // nr
    return found


cdef void run_conv(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t in_row = tiles_in_row(g)
    cdef Py_ssize_t tiles = g.size[0] * g.size[1] * g.size[2] * in_row
    cdef Py_ssize_t vectors = (g.outputs + LANES - 1) // LANES
    cdef Py_ssize_t blocks = g.groups * ((vectors + g.nr - 1) // g.nr)
    cdef Py_ssize_t work = tiles * vectors * g.groups
    # What the busiest thread does: with some of the tiles, with some of the blocks, or
    # with an even share of both, where only one block is not done by one thread alone.
    cdef Py_ssize_t by_tiles = (tiles + parts - 1) // parts * vectors * g.groups
    cdef Py_ssize_t by_blocks = (blocks + parts - 1) // parts * tiles * g.nr
    cdef Py_ssize_t evenly = (work + parts - 1) // parts + g.nr // 2
    cdef Place first, last
    if evenly + evenly // 32 < min(by_tiles, by_blocks):
        first = place(g, tiles, vectors, share(work, part, parts))
        last = place(g, tiles, vectors, share(work, part + 1, parts))
        if first.block == last.block:
            region(g, operand, first.tile, last.tile, first.block, first.block + 1)
            return
        region(g, operand, first.tile, tiles, first.block, first.block + 1)
        region(g, operand, 0, tiles, first.block + 1, last.block)
        if last.tile > 0:
            region(g, operand, 0, last.tile, last.block, last.block + 1)
    elif by_tiles <= by_blocks:
        region(g, operand, share(tiles, part, parts), share(tiles, part + 1, parts),
               0, blocks)
    else:
        region(g, operand, 0, tiles,
               share(blocks, part, parts), share(blocks, part + 1, parts))


def conv(size, x, y, r, Py_ssize_t groups, Py_ssize_t taps, Py_ssize_t run,
         Py_ssize_t x_group, Py_ssize_t outputs, tile, Py_ssize_t chunk,
         finish, bint residual, distant):
    """Bind a convolution.

    Operands: output, input at its first tap's origin, weights from `pack_weights`,
    bias from `pack_bias`, tap offsets (int64), residual (any address if there is
    none). The output may not overlap the input; it may be the residual.

    Parameters
    ----------
    size : tuple of 4 int
        Output images, planes, rows and pixels of a row.
    x, y, r : tuple of 4 int
        How far input, output and residual move from one output position to the next.
    groups, outputs : int
        Groups, and output channels of each.
    taps, run : int
        How many offsets there are, and how many input elements follow each.
    x_group : int
        How far the input moves from one group to the next.
    tile : (int, int, int)
        Most pixels and most vectors of output channels of a tile; 2 if two pixels share
        the last vector, of which they need a half, else 1.
    chunk : int
        Tiles that share one pass over the weights.
    finish : (int, float, float)
        Activation code and its two numbers.
    residual : bool
        Whether to add the residual.
    distant : (bool, bool)
        Whether input, and output with residual, lie beyond the second-level cache.
    """
    cdef Geometry g
    cdef int axis
    for axis in range(4):
        g.size[axis] = size[axis]
        g.x[axis] = x[axis]
        g.y[axis] = y[axis]
        g.r[axis] = r[axis]
    g.groups = groups
    g.taps = taps
    g.run = run
    g.x_group = x_group
    g.outputs = outputs
    g.chunk = chunk
    g.mr, g.nr, g.unit = tile
    g.distant_x, g.distant_y = distant
    g.finish.code, g.finish.alpha, g.finish.beta = finish
    if g.finish.code == NONE:
        g.finish.alpha = -INFINITY
        g.finish.beta = INFINITY
    g.finish.residual = residual
    cdef Py_ssize_t vectors = (outputs + LANES - 1) // LANES
    cdef Py_ssize_t last = vectors - (vectors - 1) // g.nr * g.nr if g.nr > 0 else 0
    cdef bint fits = g.mr * g.nr + g.nr <= REGISTERS
    if g.unit == 2:
        fits = (
            0 < outputs % LANES <= PAIRED_LANES and 1 < last <= PAIRED_VECTORS
            and g.mr % 2 == 0 and g.size[3] % 2 == 0
            and (fits or g.nr == vectors and g.mr <= MOST_PAIRED[g.nr])
        )
    if not (0 < g.mr <= MOST_ROWS and 0 < g.nr <= MOST_VECTORS and 0 < g.unit <= 2 and fits):
        raise ValueError(f"no tile of {g.mr} pixels by {g.nr} vectors, {g.unit} at a time")
    return bound(run_conv, &g, sizeof(g))


cdef void pair(float* packed, Py_ssize_t used) noexcept nogil:
    """Write what a last vector has for its lower half into the upper half too."""
    cdef Py_ssize_t last = used % LANES
    if 0 < last <= LANES // 2:
        memcpy(packed + used - last + LANES // 2, packed + used - last, last * sizeof(float))


def pack_weights(const float[:, :, ::1] weight, const double[::1] scale,
                 Py_ssize_t groups, int nr, float[::1] out):
    """Write weights in the order in which tiles of `nr` vectors read them.

    Parameters
    ----------
    weight : array of shape (taps, channels a group, groups * outputs)
    scale : array of groups * outputs
        What the weights of each output are multiplied by.
    groups, nr : int
        As for `conv`.
    out : array of zeros
        Of groups * taps * channels a group * outputs a group filled up to vectors.
    """
    cdef Py_ssize_t taps = weight.shape[0], run = weight.shape[1]
    cdef Py_ssize_t outputs = weight.shape[2] // groups
    cdef Py_ssize_t vectors = (outputs + LANES - 1) // LANES
    cdef Py_ssize_t g, v, t, k, n, width, used, at = 0
    cdef const float* row
    cdef const double* times
    with nogil:
        for g in range(groups):
            v = 0
            while v < vectors:
                width = min(<Py_ssize_t>nr, vectors - v) * LANES
                used = min(width, outputs - v * LANES)
                times = &scale[g * outputs + v * LANES]
                for t in range(taps):
                    for k in range(run):
                        row = &weight[t, k, g * outputs + v * LANES]
                        for n in range(used):
                            out[at + n] = <float>(row[n] * times[n])
                        pair(&out[at], used)
                        at += width
                v += nr


def pack_bias(const float[::1] bias, Py_ssize_t groups, float[::1] out):
    """Write `bias` with each group's outputs padded to whole vectors."""
    cdef Py_ssize_t outputs = bias.shape[0] // groups
    cdef Py_ssize_t width = (outputs + LANES - 1) // LANES * LANES
    cdef Py_ssize_t g, n
    for g in range(groups):
        for n in range(width):
            out[g * width + n] = bias[g * outputs + n] if n < outputs else 0
        pair(&out[g * width], outputs)
