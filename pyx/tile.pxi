# The register tile of every matrix product, and what is done to its sums.
#
# `tile` is written once for any number of rows and vectors; called with literals it is
# compiled into a loop whose sums never leave the registers. Each instance is a function
# of its own, found through TILES: inlined side by side into one caller, they would
# spill. Which sizes exist follows from the number of vector registers.
#
# This text is included, not imported, so that each module has its instances compiled
# for its own instruction set.

include "activate_each.pxi"

from activation cimport CLAMP
from simd cimport (
    LANES, REGISTERS, afresh, halves, in_register, load, load_n, one, prefetch, prefetch_write, splat, store,
    store_n, store_part, swap_halves, vec, vmax, vmin,
)

cdef enum:
    MOST_ROWS = 14
    MOST_VECTORS = 4
    LINE = 16                   # floats of a cache line


cdef struct Finish:
    # What happens to a sum before it is stored.
    int code
    float alpha
    float beta
    int residual


cdef struct Task:
    # One tile: where it reads and writes, and the distances between its rows.
    const float* x
    float* y
    const float* r              # residual
    Py_ssize_t dx
    Py_ssize_t dy
    Py_ssize_t dr
    const Py_ssize_t* tap       # offsets into x
    Py_ssize_t taps
    Py_ssize_t run              # elements of x that follow each offset
    const float* w
    const float* ahead          # weights wanted soon: each step fetches a line here
    Py_ssize_t apart            # and one so far behind it
    const float* bias
    Py_ssize_t outputs          # columns of y from here on; the last vector is cut
    int distant                 # y and r are fetched while the sums are computed
    const Finish* finish


ctypedef void (*Tile)(const Task* t) noexcept nogil


cdef void finish_tile(vec* sums, int mr, int nr, const Task* t) noexcept nogil:
    """Add the residual, activate and store; the last vector may be partly used."""
    cdef const Finish* f = t.finish
    cdef float* narrow = <float*>sums
    cdef int i, j, n, width = <int>t.outputs
    if f.residual:
        for i in range(mr):
            for j in range(nr):
                n = <int>min(<Py_ssize_t>LANES, t.outputs - j * LANES)
                sums[i * nr + j] = sums[i * nr + j] + load_n(
                    t.r + i * t.dr + j * LANES, n
                )
    if t.outputs > LANES // 2:
        activate_each(f.code, f.alpha, f.beta, sums, 1, mr * nr, narrow, 0)
        for i in range(mr):
            for j in range(nr):
                n = <int>min(<Py_ssize_t>LANES, t.outputs - j * LANES)
                store_n(t.y + i * t.dy + j * LANES, sums[i * nr + j], n)
        return
    # Few outputs: their rows move together, so that fewer vectors are activated.
    for i in range(mr):
        store(narrow + i * width, sums[i])
    n = (mr * width + LANES - 1) // LANES
    activate_each(f.code, f.alpha, f.beta, sums, 1, n, narrow, 0)
    for i in range(mr):
        store_part(t.y + i * t.dy, load(narrow + i * width), width)


cdef inline void tile(const int mr, const int nr, const bint paired, const Task* t) noexcept nogil:
    """Compute mr rows by nr vectors of columns.

    If the last vector has columns for a half only, two rows can be `paired` in it: then
    its weights and its bias are there twice, and the number of rows is even.
    """
    cdef vec acc[MOST_ROWS][MOST_VECTORS]
    cdef vec b[MOST_VECTORS]
    cdef vec sums[MOST_ROWS * MOST_VECTORS]
    cdef vec low, high
    cdef const float* p
    cdef const float* q
    cdef const float* w = t.w
    cdef const float* ahead = t.ahead
    cdef Py_ssize_t n, k, dx = t.dx
    # Distances to more rows than these do not fit the registers; the others go from q.
    cdef int near = mr if mr <= 8 else (mr + 1) // 2
    cdef vec a[2]
    # Vectors of weights in registers; if there is no room for one, products read it.
    cdef int kept = nr if mr * nr + nr < REGISTERS else nr - 1
    cdef int i, j, once
    for once in range(one()):
        for j in range(nr):
            b[j] = load(t.bias + j * LANES)
            for i in range(mr):
                acc[i][j] = b[j]
        if t.distant:
            for i in range(mr):
                for j in range(nr):
                    prefetch_write(t.y + i * t.dy + j * LANES)
                    if t.finish.residual:
                        prefetch(t.r + i * t.dr + j * LANES)
        for n in range(t.taps):
            p = t.x + t.tap[n]
            q = p + near * dx
            for k in range(t.run):
                prefetch(ahead)
                prefetch(ahead + t.apart)
                for j in range(min(nr, kept)):
                    b[j] = load(w + j * LANES)
                for i in range(mr):
                    a[i % 2] = splat(p[i * dx] if i < near else q[(i - near) * dx])
                    if paired:
                        a[i % 2] = in_register(a[i % 2])
                    for j in range(nr):
                        if j == kept:
                            b[j] = load(afresh(w + j * LANES))
                        if not paired or j < nr - 1:
                            acc[i][j] = acc[i][j] + a[i % 2] * b[j]
                        elif i % 2:
                            acc[i - 1][j] = acc[i - 1][j] + halves(a[0], a[1]) * b[j]
                w += nr * LANES
                ahead += LINE
                p += 1
                q += 1
        low = splat(t.finish.alpha)
        high = splat(t.finish.beta)
        if paired or t.outputs < nr * LANES:
            for i in range(mr):
                for j in range(nr):
                    if paired and j == nr - 1 and i % 2:
                        sums[i * nr + j] = swap_halves(acc[i - 1][j])
                    else:
                        sums[i * nr + j] = acc[i][j]
            finish_tile(sums, mr, nr, t)
            continue
        if t.finish.residual:
            for i in range(mr):
                for j in range(nr):
                    acc[i][j] = acc[i][j] + load(t.r + i * t.dr + j * LANES)
        if t.finish.code > CLAMP:
            for i in range(mr):
                for j in range(nr):
                    sums[i * nr + j] = acc[i][j]
            activate_each(
                t.finish.code, t.finish.alpha, t.finish.beta, sums, mr, nr, t.y, t.dy
            )
        else:
            for i in range(mr):
                for j in range(nr):
                    store(t.y + i * t.dy + j * LANES, vmin(high, vmax(low, acc[i][j])))


cdef void tile_1x1(const Task* t) noexcept nogil: tile(1, 1, False, t)
cdef void tile_2x1(const Task* t) noexcept nogil: tile(2, 1, False, t)
cdef void tile_3x1(const Task* t) noexcept nogil: tile(3, 1, False, t)
cdef void tile_4x1(const Task* t) noexcept nogil: tile(4, 1, False, t)
cdef void tile_5x1(const Task* t) noexcept nogil: tile(5, 1, False, t)
cdef void tile_6x1(const Task* t) noexcept nogil: tile(6, 1, False, t)
cdef void tile_7x1(const Task* t) noexcept nogil: tile(7, 1, False, t)
cdef void tile_8x1(const Task* t) noexcept nogil: tile(8, 1, False, t)
cdef void tile_9x1(const Task* t) noexcept nogil: tile(9, 1, False, t)
cdef void tile_10x1(const Task* t) noexcept nogil: tile(10, 1, False, t)
cdef void tile_11x1(const Task* t) noexcept nogil: tile(11, 1, False, t)
cdef void tile_12x1(const Task* t) noexcept nogil: tile(12, 1, False, t)
cdef void tile_13x1(const Task* t) noexcept nogil: tile(13, 1, False, t)
cdef void tile_14x1(const Task* t) noexcept nogil: tile(14, 1, False, t)
cdef void tile_1x2(const Task* t) noexcept nogil: tile(1, 2, False, t)
cdef void tile_2x2(const Task* t) noexcept nogil: tile(2, 2, False, t)
cdef void tile_3x2(const Task* t) noexcept nogil: tile(3, 2, False, t)
cdef void tile_4x2(const Task* t) noexcept nogil: tile(4, 2, False, t)
cdef void tile_5x2(const Task* t) noexcept nogil: tile(5, 2, False, t)
cdef void tile_6x2(const Task* t) noexcept nogil: tile(6, 2, False, t)
cdef void tile_7x2(const Task* t) noexcept nogil:
    if REGISTERS == 32: tile(7, 2, False, t)
cdef void tile_8x2(const Task* t) noexcept nogil:
    if REGISTERS == 32: tile(8, 2, False, t)
cdef void tile_9x2(const Task* t) noexcept nogil:
    if REGISTERS == 32: tile(9, 2, False, t)
cdef void tile_10x2(const Task* t) noexcept nogil:
    if REGISTERS == 32: tile(10, 2, False, t)
cdef void tile_11x2(const Task* t) noexcept nogil:
    if REGISTERS == 32: tile(11, 2, False, t)
cdef void tile_12x2(const Task* t) noexcept nogil:
    if REGISTERS == 32: tile(12, 2, False, t)
cdef void tile_13x2(const Task* t) noexcept nogil:
    if REGISTERS == 32: tile(13, 2, False, t)
cdef void tile_14x2(const Task* t) noexcept nogil:
    if REGISTERS == 32: tile(14, 2, False, t)
cdef void tile_1x3(const Task* t) noexcept nogil: tile(1, 3, False, t)
cdef void tile_2x3(const Task* t) noexcept nogil: tile(2, 3, False, t)
cdef void tile_3x3(const Task* t) noexcept nogil: tile(3, 3, False, t)
cdef void tile_4x3(const Task* t) noexcept nogil: tile(4, 3, False, t)
cdef void tile_5x3(const Task* t) noexcept nogil:
    if REGISTERS == 32: tile(5, 3, False, t)
cdef void tile_6x3(const Task* t) noexcept nogil:
    if REGISTERS == 32: tile(6, 3, False, t)
cdef void tile_7x3(const Task* t) noexcept nogil:
    if REGISTERS == 32: tile(7, 3, False, t)
cdef void tile_8x3(const Task* t) noexcept nogil:
    if REGISTERS == 32: tile(8, 3, False, t)
cdef void tile_9x3(const Task* t) noexcept nogil:
    if REGISTERS == 32: tile(9, 3, False, t)
cdef void tile_1x4(const Task* t) noexcept nogil: tile(1, 4, False, t)
cdef void tile_2x4(const Task* t) noexcept nogil: tile(2, 4, False, t)
cdef void tile_3x4(const Task* t) noexcept nogil:
    if REGISTERS == 32: tile(3, 4, False, t)
cdef void tile_4x4(const Task* t) noexcept nogil:
    if REGISTERS == 32: tile(4, 4, False, t)
cdef void tile_5x4(const Task* t) noexcept nogil:
    if REGISTERS == 32: tile(5, 4, False, t)
cdef void tile_6x4(const Task* t) noexcept nogil:
    if REGISTERS == 32: tile(6, 4, False, t)
cdef void tile_7x4(const Task* t) noexcept nogil:
    if REGISTERS == 32: tile(7, 4, False, t)

cdef Tile TILES[MOST_VECTORS + 1][MOST_ROWS + 1]

TILES[1][1] = tile_1x1
TILES[1][2] = tile_2x1
TILES[1][3] = tile_3x1
TILES[1][4] = tile_4x1
TILES[1][5] = tile_5x1
TILES[1][6] = tile_6x1
TILES[1][7] = tile_7x1
TILES[1][8] = tile_8x1
TILES[1][9] = tile_9x1
TILES[1][10] = tile_10x1
TILES[1][11] = tile_11x1
TILES[1][12] = tile_12x1
TILES[1][13] = tile_13x1
TILES[1][14] = tile_14x1
TILES[2][1] = tile_1x2
TILES[2][2] = tile_2x2
TILES[2][3] = tile_3x2
TILES[2][4] = tile_4x2
TILES[2][5] = tile_5x2
TILES[2][6] = tile_6x2
TILES[2][7] = tile_7x2
TILES[2][8] = tile_8x2
TILES[2][9] = tile_9x2
TILES[2][10] = tile_10x2
TILES[2][11] = tile_11x2
TILES[2][12] = tile_12x2
TILES[2][13] = tile_13x2
TILES[2][14] = tile_14x2
TILES[3][1] = tile_1x3
TILES[3][2] = tile_2x3
TILES[3][3] = tile_3x3
TILES[3][4] = tile_4x3
TILES[3][5] = tile_5x3
TILES[3][6] = tile_6x3
TILES[3][7] = tile_7x3
TILES[3][8] = tile_8x3
TILES[3][9] = tile_9x3
TILES[4][1] = tile_1x4
TILES[4][2] = tile_2x4
TILES[4][3] = tile_3x4
TILES[4][4] = tile_4x4
TILES[4][5] = tile_5x4
TILES[4][6] = tile_6x4
TILES[4][7] = tile_7x4
