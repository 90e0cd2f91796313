"""The register tile of every matrix product, and what is done to its sums.

`tile` is written once for any number of rows and vectors; called with literals it is
compiled into a loop whose sums never leave the registers. `any_tile` picks the instance
at run time. Which sizes exist follows from the number of vector registers.
"""

from activation cimport CLAMP, activate
from simd cimport LANES, REGISTERS, load, load_n, splat, store, store_n, vec, vmax, vmin

cdef enum:
    MOST_ROWS = 14


cdef struct Finish:
    # What happens to a sum before it is stored.
    int code
    float alpha
    float beta
    int residual


cdef struct Place:
    # One tile: addresses of its first pixel, and the distances between pixels.
    const float* x
    float* y
    const float* r
    Py_ssize_t dx
    Py_ssize_t dy
    Py_ssize_t dr


cdef inline void finish_tile(
    const vec* sums, int mr, int nr, Py_ssize_t outputs, const Place* at,
    const Finish* finish,
) noexcept nogil:
    """Add the residual, activate and store; the last vector may be partly used."""
    cdef int i, j, n
    cdef vec v
    for i in range(mr):
        for j in range(nr):
            n = <int>min(<Py_ssize_t>LANES, outputs - j * LANES)
            v = sums[i * nr + j]
            if finish.residual:
                v = v + load_n(at.r + i * at.dr + j * LANES, n)
            v = activate(finish.code, finish.alpha, finish.beta, v)
            store_n(at.y + i * at.dy + j * LANES, v, n)


cdef inline void tile(
    const int mr, const int nr, const Place* at, const Py_ssize_t* tap,
    Py_ssize_t taps, Py_ssize_t run, const float* w, const float* bias,
    Py_ssize_t outputs, const Finish* finish,
) noexcept nogil:
    """Compute mr pixels by nr vectors of output channels."""
    cdef vec acc[MOST_ROWS][4]
    cdef vec b[4]
    cdef vec sums[MOST_ROWS * 4]
    cdef vec low, high
    cdef const float* p
    cdef Py_ssize_t t, k, dx = at.dx
    cdef int i, j
    for j in range(nr):
        b[j] = load(bias + j * LANES)
        for i in range(mr):
            acc[i][j] = b[j]
    for t in range(taps):
        p = at.x + tap[t]
        for k in range(run):
            for j in range(nr):
                b[j] = load(w + j * LANES)
            for i in range(mr):
                for j in range(nr):
                    acc[i][j] = acc[i][j] + p[i * dx] * b[j]
            w += nr * LANES
            p += 1
    if finish.code <= CLAMP and not finish.residual and outputs >= nr * LANES:
        low = splat(finish.alpha)
        high = splat(finish.beta)
        for i in range(mr):
            for j in range(nr):
                store(at.y + i * at.dy + j * LANES, vmin(high, vmax(low, acc[i][j])))
    else:
        for i in range(mr):
            for j in range(nr):
                sums[i * nr + j] = acc[i][j]
        finish_tile(sums, mr, nr, outputs, at, finish)


cdef inline void tile_of_two(
    int mr, const Place* at, const Py_ssize_t* tap, Py_ssize_t taps, Py_ssize_t run,
    const float* w, const float* bias, Py_ssize_t n, const Finish* f,
) noexcept nogil:
    if REGISTERS == 32:
        if mr == 14: tile(14, 2, at, tap, taps, run, w, bias, n, f)
        elif mr == 13: tile(13, 2, at, tap, taps, run, w, bias, n, f)
        elif mr == 12: tile(12, 2, at, tap, taps, run, w, bias, n, f)
        elif mr == 11: tile(11, 2, at, tap, taps, run, w, bias, n, f)
        elif mr == 10: tile(10, 2, at, tap, taps, run, w, bias, n, f)
        elif mr == 9: tile(9, 2, at, tap, taps, run, w, bias, n, f)
        elif mr == 8: tile(8, 2, at, tap, taps, run, w, bias, n, f)
        elif mr == 7: tile(7, 2, at, tap, taps, run, w, bias, n, f)
    if mr == 6: tile(6, 2, at, tap, taps, run, w, bias, n, f)
    elif mr == 5: tile(5, 2, at, tap, taps, run, w, bias, n, f)
    elif mr == 4: tile(4, 2, at, tap, taps, run, w, bias, n, f)
    elif mr == 3: tile(3, 2, at, tap, taps, run, w, bias, n, f)
    elif mr == 2: tile(2, 2, at, tap, taps, run, w, bias, n, f)
    elif mr == 1: tile(1, 2, at, tap, taps, run, w, bias, n, f)


cdef inline void tile_of_one(
    int mr, const Place* at, const Py_ssize_t* tap, Py_ssize_t taps, Py_ssize_t run,
    const float* w, const float* bias, Py_ssize_t n, const Finish* f,
) noexcept nogil:
    if REGISTERS == 32:
        if mr == 14: tile(14, 1, at, tap, taps, run, w, bias, n, f)
        elif mr == 13: tile(13, 1, at, tap, taps, run, w, bias, n, f)
    if mr == 12: tile(12, 1, at, tap, taps, run, w, bias, n, f)
    elif mr == 11: tile(11, 1, at, tap, taps, run, w, bias, n, f)
    elif mr == 10: tile(10, 1, at, tap, taps, run, w, bias, n, f)
    elif mr == 9: tile(9, 1, at, tap, taps, run, w, bias, n, f)
    elif mr == 8: tile(8, 1, at, tap, taps, run, w, bias, n, f)
    elif mr == 7: tile(7, 1, at, tap, taps, run, w, bias, n, f)
    elif mr == 6: tile(6, 1, at, tap, taps, run, w, bias, n, f)
    elif mr == 5: tile(5, 1, at, tap, taps, run, w, bias, n, f)
    elif mr == 4: tile(4, 1, at, tap, taps, run, w, bias, n, f)
    elif mr == 3: tile(3, 1, at, tap, taps, run, w, bias, n, f)
    elif mr == 2: tile(2, 1, at, tap, taps, run, w, bias, n, f)
    elif mr == 1: tile(1, 1, at, tap, taps, run, w, bias, n, f)


cdef inline void tile_of_three(
    int mr, const Place* at, const Py_ssize_t* tap, Py_ssize_t taps, Py_ssize_t run,
    const float* w, const float* bias, Py_ssize_t n, const Finish* f,
) noexcept nogil:
    if REGISTERS == 32:
        if mr == 9: tile(9, 3, at, tap, taps, run, w, bias, n, f)
        elif mr == 8: tile(8, 3, at, tap, taps, run, w, bias, n, f)
        elif mr == 7: tile(7, 3, at, tap, taps, run, w, bias, n, f)
        elif mr == 6: tile(6, 3, at, tap, taps, run, w, bias, n, f)
        elif mr == 5: tile(5, 3, at, tap, taps, run, w, bias, n, f)
    if mr == 4: tile(4, 3, at, tap, taps, run, w, bias, n, f)
    elif mr == 3: tile(3, 3, at, tap, taps, run, w, bias, n, f)
    elif mr == 2: tile(2, 3, at, tap, taps, run, w, bias, n, f)
    elif mr == 1: tile(1, 3, at, tap, taps, run, w, bias, n, f)


cdef inline void tile_of_four(
    int mr, const Place* at, const Py_ssize_t* tap, Py_ssize_t taps, Py_ssize_t run,
    const float* w, const float* bias, Py_ssize_t n, const Finish* f,
) noexcept nogil:
    if REGISTERS == 32:
        if mr == 7: tile(7, 4, at, tap, taps, run, w, bias, n, f)
        elif mr == 6: tile(6, 4, at, tap, taps, run, w, bias, n, f)
        elif mr == 5: tile(5, 4, at, tap, taps, run, w, bias, n, f)
        elif mr == 4: tile(4, 4, at, tap, taps, run, w, bias, n, f)
    if mr == 3: tile(3, 4, at, tap, taps, run, w, bias, n, f)
    elif mr == 2: tile(2, 4, at, tap, taps, run, w, bias, n, f)
    elif mr == 1: tile(1, 4, at, tap, taps, run, w, bias, n, f)


cdef inline void any_tile(
    int mr, int nr, const Place* at, const Py_ssize_t* tap, Py_ssize_t taps,
    Py_ssize_t run, const float* w, const float* bias, Py_ssize_t outputs,
    const Finish* finish,
) noexcept nogil:
    """Compute one tile of any size there is."""
    if nr == 2:
        tile_of_two(mr, at, tap, taps, run, w, bias, outputs, finish)
    elif nr == 4:
        tile_of_four(mr, at, tap, taps, run, w, bias, outputs, finish)
    elif nr == 3:
        tile_of_three(mr, at, tap, taps, run, w, bias, outputs, finish)
    else:
        tile_of_one(mr, at, tap, taps, run, w, bias, outputs, finish)
