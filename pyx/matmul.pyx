"""Products of matrices that are both computed, in batches.

# Design
The second factor is packed first: cut into panels of `nr` vectors of columns, each panel
with its rows one after another, the columns that are missing filled with zeros. Then the
product is cut into tiles of up to `mr` rows by one panel, and ``tile.pxi`` computes each
in registers. A unit of work is one panel for a chunk of rows that stays in the
second-level cache; chunks are walked outside, panels inside.

The last panel is narrower where the vectors do not divide by `nr`.
"""

from libc.math cimport INFINITY
from loops cimport Nest, locate, merged
from step cimport bound, share

include "tile.pxi"

lanes = LANES
registers = REGISTERS
"""What a tile may be made of."""


cdef struct Pack:
    Nest batch
    Py_ssize_t k, n
    Py_ssize_t k_stride, n_stride
    Py_ssize_t vectors
    Py_ssize_t nr
    Py_ssize_t panels


cdef struct Product:
    Nest batch
    Py_ssize_t m, n, k
    Py_ssize_t out_stride, x_stride
    Py_ssize_t vectors
    Py_ssize_t nr
    Py_ssize_t panels
    Py_ssize_t tiles
    Py_ssize_t chunk
    Py_ssize_t chunks
    Finish finish


cdef void run_pack(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Pack* g = <const Pack*>geometry
    cdef Py_ssize_t work = g.batch.work * g.panels
    cdef Py_ssize_t offset[2]
    cdef Py_ssize_t unit, panel, first, width, columns, k, i
    cdef float* out
    cdef const float* y
    for unit in range(share(work, part, parts), share(work, part + 1, parts)):
        panel = unit % g.panels
        locate(&g.batch, unit // g.panels, g.batch.rank, offset)
        first = panel * g.nr * LANES
        width = min(g.nr, g.vectors - panel * g.nr) * LANES
        columns = min(width, g.n - first)
        out = <float*>operand[0] + offset[0] + first * g.k
        y = <const float*>operand[1] + offset[1] + first * g.n_stride
        for k in range(g.k):
            if g.n_stride == 1:
                for i in range(columns):
                    out[i] = y[i]
            else:
                for i in range(columns):
                    out[i] = y[i * g.n_stride]
            for i in range(columns, width):
                out[i] = 0
            out += width
            y += g.k_stride


cdef void run_product(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Product* g = <const Product*>geometry
    cdef Py_ssize_t work = g.batch.work * g.chunks * g.panels
    cdef Py_ssize_t offset[3]
    cdef Py_ssize_t unit, panel, first, chunk, t, row, end, tap = 0
    cdef Task task
    cdef Tile run
    cdef int nr
    task.r = NULL
    task.dx, task.dy, task.dr = g.x_stride, g.out_stride, 0
    task.tap, task.taps, task.run = &tap, 1, g.k
    task.bias = <const float*>operand[3]
    task.apart = 0
    task.distant = False
    task.finish = &g.finish
    for unit in range(share(work, part, parts), share(work, part + 1, parts)):
        panel = unit % g.panels
        chunk = unit // g.panels % g.chunks
        locate(&g.batch, unit // (g.panels * g.chunks), g.batch.rank, offset)
        first = panel * g.nr * LANES
        nr = <int>min(g.nr, g.vectors - panel * g.nr)
        task.w = <const float*>operand[2] + offset[2] + first * g.k
        task.ahead = task.w + nr * LANES * g.k
        task.outputs = g.n - first
        for t in range(chunk * g.chunk, min(g.tiles, (chunk + 1) * g.chunk)):
            row = share(g.m, t, g.tiles)
            end = share(g.m, t + 1, g.tiles)
            task.x = <const float*>operand[1] + offset[1] + row * g.x_stride
            task.y = <float*>operand[0] + offset[0] + row * g.out_stride + first
            run = TILES[nr][end - row]
            run(&task)


def pack(
    tuple batch, tuple batch_strides, Py_ssize_t k, Py_ssize_t n, Py_ssize_t k_stride,
    Py_ssize_t n_stride, int nr,
):
    """Return the kernel that packs second factors; operands (packed, y).

    Parameters
    ----------
    batch, batch_strides : tuple
        Shape and strides (of packed, y) of the axes before the matrices.
    k, n, k_stride, n_stride : int
        Rows and columns of a matrix, and their strides.
    nr : int
        Vectors a panel. A packed matrix has k * n elements, n rounded up to vectors.
    """
    cdef Pack g
    g.batch = merged(batch, batch_strides)
    g.k, g.n, g.k_stride, g.n_stride, g.nr = k, n, k_stride, n_stride, nr
    g.vectors = (n + LANES - 1) // LANES
    g.panels = (g.vectors + nr - 1) // nr
    return bound(run_pack, &g, sizeof(g))


def product(
    tuple batch, tuple batch_strides, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
    Py_ssize_t out_stride, Py_ssize_t x_stride, tuple tile, Py_ssize_t chunk,
):
    """Return the kernel of products; operands (out, x, packed, zeros).

    Parameters
    ----------
    batch, batch_strides : tuple
        Shape and strides (of out, x, packed) of the axes before the matrices.
    m, n, k : int
        Rows and columns of the product, and the length of its sums.
    out_stride, x_stride : int
        From row to row; columns are dense.
    tile : (int, int)
        The most rows of a tile, and the vectors of a panel; zeros has as many vectors.
    chunk : int
        Tiles of rows computed before going on to the next panel.
    """
    cdef Product g
    g.batch = merged(batch, batch_strides)
    g.m, g.n, g.k, g.out_stride, g.x_stride = m, n, k, out_stride, x_stride
    rows, g.nr = tile
    g.vectors = (n + LANES - 1) // LANES
    g.panels = (g.vectors + g.nr - 1) // g.nr
    g.tiles = (m + rows - 1) // rows
    g.chunk = chunk
    g.chunks = (g.tiles + chunk - 1) // chunk
    g.finish.code = CLAMP
    g.finish.alpha, g.finish.beta = -INFINITY, INFINITY
    g.finish.residual = False
    return bound(run_product, &g, sizeof(g))
