"""Where the largest or smallest elements along an axis are.

# Design
The place of one extreme is found for CHUNK neighbours at once where the tensor is dense
across the axis. Along a dense row of floats the extreme is found by vectors, then its
place; anything else is scanned. For the first k, a heap of the k best so
far is kept, its worst on top; it is sorted at the end. An element is better than another
if it is larger (or smaller), then if it comes earlier, so there are no ties. NaN counts
as larger than all numbers.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t
from element cimport FLOAT32, INT8, INT32, INT64, element, number
from loops cimport Nest, locate, merged, nest
from simd cimport *
from step cimport bound, share

cdef enum:
    CHUNK = 64


cdef struct Extreme:
    Nest kept
    Py_ssize_t chunks
    Py_ssize_t work
    Py_ssize_t n
    Py_ssize_t step
    bint largest
    bint select_last
    int type


cdef struct Best:
    Nest kept
    Py_ssize_t n
    Py_ssize_t step
    Py_ssize_t k
    Py_ssize_t value_step
    Py_ssize_t index_step
    bint largest
    int type


cdef inline bint beats(
    const bint largest, const bint even, number x, number y
) noexcept nogil:
    """Return whether x takes the place of y; if they are equal, with `even`."""
    if number is float:
        if x != x:
            return even or y == y
        if y != y:
            return False
    if largest:
        return x >= y if even else x > y
    return x <= y if even else x < y


cdef inline bint beats_nan_low(
    const bint largest, const bint even, number x, number y
) noexcept nogil:
    """As `beats`, but in an ascending order NaN comes last."""
    if number is float:
        if not largest:
            if y != y:
                return x == x or even
            if x != x:
                return False
    return beats(largest, even, x, y)


cdef Py_ssize_t extreme_of_row(
    const bint largest, const bint even, const float* x, Py_ssize_t n
) noexcept nogil:
    """Return the place of the extreme of a dense row, or -1 if there is a NaN."""
    cdef vec best = splat(-INFINITY), v
    cdef vec odd = splat(0)
    cdef Py_ssize_t k, whole = n // LANES
    cdef float most
    for k in range(whole):
        v = load(x + k * LANES)
        odd = choose(unordered(v), splat(1), odd)
        best = vmax(best, v if largest else -v)
    if n % LANES:
        v = load_part(x + whole * LANES, <int>(n % LANES))
        odd = choose(unordered(v), splat(1), odd)
        v = v if largest else -v
        best = vmax(best, choose(first_lanes(<int>(n % LANES)), v, best))
    if max_lanes(odd) > 0:
        return -1
    most = max_lanes(best) if largest else -max_lanes(best)
    if even:
        k = n - 1
        while x[k] != most:
            k -= 1
    else:
        k = 0
        while x[k] != most:
            k += 1
    return k


cdef inline void extremes(
    const bint largest, const bint even, int64_t* out, const number* x,
    const Extreme* g, Py_ssize_t n,
) noexcept nogil:
    cdef number best[CHUNK]
    cdef int64_t at[CHUNK]
    cdef Py_ssize_t k, i
    if number is float:
        if n == 1 and g.step == 1:
            k = extreme_of_row(largest, even, x, g.n)
            if k >= 0:
                out[0] = k
                return
    for i in range(n):
        best[i] = x[i]
        at[i] = 0
    for k in range(1, g.n):
        x += g.step
        for i in range(n):
            if beats(largest, even, x[i], best[i]):
                best[i] = x[i]
                at[i] = k
    for i in range(n):
        out[i] = at[i]


cdef inline void any_extremes(
    int64_t* out, const number* x, const Extreme* g, Py_ssize_t n
) noexcept nogil:
    if g.largest and g.select_last:
        extremes(True, True, out, x, g, n)
    elif g.largest:
        extremes(True, False, out, x, g, n)
    elif g.select_last:
        extremes(False, True, out, x, g, n)
    else:
        extremes(False, False, out, x, g, n)


cdef void run_extreme(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Extreme* g = <const Extreme*>geometry
    cdef Py_ssize_t last = g.kept.rank - 1
    cdef Py_ssize_t offset[2]
    cdef Py_ssize_t unit, column, n
    cdef int64_t* out
    cdef char* x = operand[1]
    for unit in range(share(g.work, part, parts), share(g.work, part + 1, parts)):
        locate(&g.kept, unit // g.chunks, last, offset)
        column = unit % g.chunks * CHUNK
        n = min(g.kept.shape[last] - column, <Py_ssize_t>CHUNK)
        out = <int64_t*>operand[0] + offset[0] + column
        column += offset[1]
        if g.type == FLOAT32:
            any_extremes(out, <const float*>x + column, g, n)
        elif g.type == INT64:
            any_extremes(out, <const int64_t*>x + column, g, n)
        elif g.type == INT32:
            any_extremes(out, <const int32_t*>x + column, g, n)
        elif g.type == INT8:
            any_extremes(out, <const int8_t*>x + column, g, n)
        else:
            any_extremes(out, <const uint8_t*>x + column, g, n)


cdef inline bint better(
    const bint largest, const number* x, Py_ssize_t step, int64_t a, int64_t b
) noexcept nogil:
    """Return whether element a comes before element b."""
    return beats_nan_low(largest, a < b, x[a * step], x[b * step])


cdef inline void sink(
    const bint largest, int64_t* heap, Py_ssize_t size, Py_ssize_t at, const number* x,
    Py_ssize_t step,
) noexcept nogil:
    """Let the element at a place of the heap go down to where it belongs."""
    cdef int64_t one = heap[at]
    cdef Py_ssize_t below = 2 * at + 1
    while below < size:
        if below + 1 < size and better(largest, x, step, heap[below], heap[below + 1]):
            below += 1
        if not better(largest, x, step, one, heap[below]):
            break
        heap[at] = heap[below]
        at = below
        below = 2 * at + 1
    heap[at] = one


cdef inline void best_of(
    const bint largest, number* values, int64_t* indices, const number* x, int64_t* heap,
    const Best* g,
) noexcept nogil:
    """Write the k best of one row, the best first."""
    cdef Py_ssize_t i, size = g.k
    cdef int64_t one
    for i in range(size):
        heap[i] = i
    i = size // 2
    while i > 0:
        i -= 1
        sink(largest, heap, size, i, x, g.step)
    for i in range(size, g.n):
        if better(largest, x, g.step, i, heap[0]):
            heap[0] = i
            sink(largest, heap, size, 0, x, g.step)
    while size > 0:
        size -= 1
        one = heap[0]
        indices[size * g.index_step] = one
        values[size * g.value_step] = x[one * g.step]
        heap[0] = heap[size]
        sink(largest, heap, size, 0, x, g.step)


cdef inline void any_best(
    number* values, int64_t* indices, const number* x, int64_t* heap, const Best* g
) noexcept nogil:
    if g.largest:
        best_of(True, values, indices, x, heap, g)
    else:
        best_of(False, values, indices, x, heap, g)


cdef void run_best(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Best* g = <const Best*>geometry
    cdef int64_t* heap = <int64_t*>operand[3] + part * g.k
    cdef int64_t* indices
    cdef Py_ssize_t offset[3]
    cdef Py_ssize_t unit
    cdef char* out = operand[0]
    cdef char* x = operand[2]
    cdef Py_ssize_t end = share(g.kept.work, part + 1, parts)
    for unit in range(share(g.kept.work, part, parts), end):
        locate(&g.kept, unit, g.kept.rank, offset)
        indices = <int64_t*>operand[1] + offset[1]
        if g.type == FLOAT32:
            any_best(
                <float*>out + offset[0], indices, <const float*>x + offset[2], heap, g
            )
        elif g.type == INT64:
            any_best(
                <int64_t*>out + offset[0], indices, <const int64_t*>x + offset[2], heap,
                g,
            )
        elif g.type == INT32:
            any_best(
                <int32_t*>out + offset[0], indices, <const int32_t*>x + offset[2], heap,
                g,
            )
        elif g.type == INT8:
            any_best(
                <int8_t*>out + offset[0], indices, <const int8_t*>x + offset[2], heap, g
            )
        else:
            any_best(
                <uint8_t*>out + offset[0], indices, <const uint8_t*>x + offset[2], heap,
                g,
            )


def extreme(
    str dtype, tuple kept_shape, tuple out_strides, tuple x_strides, Py_ssize_t n,
    Py_ssize_t step, bint largest, bint select_last,
):
    """Return the kernel of the place of an extreme; operands (out int64, x).

    Parameters
    ----------
    dtype : str
        The element type of x.
    kept_shape, out_strides, x_strides : tuple of int
        The other axes; strides in elements.
    n, step : int
        Size of the axis and its stride in x.
    largest, select_last : bool
        Which extreme, and which of several.
    """
    cdef Extreme g
    cdef Py_ssize_t last
    g.type, g.n, g.step = element(dtype), n, step
    g.largest, g.select_last = largest, select_last
    g.kept = nest(kept_shape, (out_strides, x_strides))
    last = g.kept.rank - 1
    g.chunks = (g.kept.shape[last] + CHUNK - 1) // CHUNK
    g.work = g.chunks
    for axis in range(last):
        g.work *= g.kept.shape[axis]
    return bound(run_extreme, &g, sizeof(g))


def best(
    str dtype, tuple kept_shape, tuple strides, Py_ssize_t n, Py_ssize_t k,
    tuple steps, bint largest,
):
    """Return the kernel of the k best, best first.

    The operands are (values, indices int64, x, scratch); the scratch memory has k int64
    for each thread.

    Parameters
    ----------
    dtype : str
        The element type of x and the values.
    kept_shape : tuple of int
        The other axes.
    strides : tuple of tuple of int
        The other axes' strides in values, indices and x.
    n, k : int
        Size of the axis, and how many are wanted.
    steps : tuple of int
        The axis' stride in values, indices and x.
    largest : bool
        Whether large elements are good.
    """
    cdef Best g
    g.type, g.n, g.k, g.largest = element(dtype), n, k, largest
    g.value_step, g.index_step, g.step = steps
    g.kept = merged(kept_shape, strides)
    return bound(run_best, &g, sizeof(g))
