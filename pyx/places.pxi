# The matrix products at the places of Winograd's tiles, and what is done to the results.
#
# At each place a row is a tile, a column an output; neighbouring rows of V and M are a
# tile apart. This text is included, not imported, so that each module has it compiled
# for its own instruction set.

from activation cimport NONE
from libc.math cimport INFINITY

include "tile.pxi"

cdef enum:
    MOST_RESULTS = 5            # of a tile along a row

cdef float NO_BIAS[4 * 16]
cdef Finish PLAIN

PLAIN.code = NONE
PLAIN.alpha = -INFINITY
PLAIN.beta = INFINITY
PLAIN.residual = 0


cdef inline Py_ssize_t filled(Py_ssize_t n) noexcept nogil:
    """Return n filled up to whole vectors."""
    return (n + LANES - 1) // LANES * LANES


cdef void begin_places(
    Task* task, const Py_ssize_t* tap, Py_ssize_t taps, Py_ssize_t run, Py_ssize_t dx,
    Py_ssize_t dy,
) noexcept nogil:
    """Set what products at all places have in common."""
    task.r = NULL
    task.dx = dx
    task.dy = dy
    task.dr = 0
    task.tap = tap
    task.taps = taps
    task.run = run
    task.bias = NO_BIAS
    task.distant = False
    task.finish = &PLAIN


cdef void multiply_place(
    Task* task, const float* v, const float* u, float* m, Py_ssize_t count,
    Py_ssize_t vectors, Py_ssize_t first, Py_ssize_t last, Py_ssize_t mr, Py_ssize_t most,
) noexcept nogil:
    """Multiply, for `count` rows and the blocks of outputs from `first` to `last`.

    A register tile has at most `mr` rows and `most` vectors; a block is that wide. The
    weights of the next place follow those of this one.
    """
    cdef Py_ssize_t depth = task.run * task.taps, line = LINE * depth
    cdef Py_ssize_t strips = (count + mr - 1) // mr
    cdef Py_ssize_t block, vector, strip, rows, lines, each
    cdef const float* after
    cdef Tile run
    cdef int nr
    for block in range(first, last):
        vector = block * most
        nr = <int>min(most, vectors - vector)
        task.w = u + vector * LANES * depth
        task.outputs = nr * LANES
        task.x = v
        task.y = m + vector * LANES
        after = task.w + nr * LANES * depth
        if block + 1 == last:
            after = u + (vectors + first * most) * LANES * depth
        # The strips share the next block's lines, one or two for each step.
        lines = max(1, nr * LANES // LINE)
        each = 1 if strips >= lines else 2
        task.apart = line * (each - 1)
        for strip in range(strips):
            task.ahead = after + min(each * strip, lines - each) * line
            rows = count // strips + (1 if strip < count % strips else 0)
            run = TILES[nr][rows]
            run(task)
            task.x += rows * task.dx
            task.y += rows * task.dy


cdef inline void finish_results(const Finish* f, const int count, vec* out) noexcept nogil:
    """Activate results, to which residuals have been added, where they are."""
    # A copy, because what has an address does not stay in registers.
    cdef vec active[MOST_RESULTS]
    cdef vec low = splat(f.alpha), high = splat(f.beta)
    cdef int k
    if f.code > CLAMP:
        for k in range(count):
            active[k] = out[k]
        activate_each(f.code, f.alpha, f.beta, active, 1, count, <float*>active, 0)
        for k in range(count):
            out[k] = active[k]
    else:
        for k in range(count):
            out[k] = vmin(high, vmax(low, out[k]))
