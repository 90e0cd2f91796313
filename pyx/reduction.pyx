"""Sums, products, extremes and norms over any axes, and running sums along one.

# Design
Axes are either kept or reduced, as in ``reduce.pyx``. float32 goes by vectors: along a
kept axis where the input is dense there, each lane computing an output of its own; along
a reduced axis elsewhere, the lanes of WIDE vectors being combined at the end. The order
of operations depends on the shape alone.

A reduction is a start, a way to combine a number with what there is, and an end. The
logarithm of a sum of exponentials goes over the numbers twice, for the largest and for
the sum of exp(x - largest).

Whole numbers and truth values are left to the compiler: CHUNK outputs at once where the
input is dense along a kept axis, or one output over a dense row. Running sums go through
CHUNK rows side by side in the same way; those of floats are carried in float64.
"""

from libc.math cimport INFINITY
from libc.stdint cimport INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint64_t
from activation cimport vexp, vlog
from element cimport FLOAT32, INT8, INT32, INT64, element, whole
from loops cimport Nest, locate, merged, nest
from simd cimport *
from step cimport bound, share

cdef enum:
    WIDE = 4
    CHUNK = 64

cdef enum Kind:
    SUM
    PRODUCT
    MAXIMUM
    MINIMUM
    L1
    L2
    SQUARES
    LOG_SUM
    LOG_SUM_EXP
    EXPONENTIALS

KINDS = {
    "Sum": SUM,
    "Prod": PRODUCT,
    "Max": MAXIMUM,
    "Min": MINIMUM,
    "L1": L1,
    "L2": L2,
    "SumSquare": SQUARES,
    "LogSum": LOG_SUM,
    "LogSumExp": LOG_SUM_EXP,
}
"""The reductions by name; whole numbers have neither L2 nor logarithms."""


cdef struct Geometry:
    Nest kept
    Nest reduced
    Py_ssize_t chunks
    Py_ssize_t work
    int kind
    int type


cdef struct Running:
    Nest kept
    Py_ssize_t chunks
    Py_ssize_t work
    Py_ssize_t n
    Py_ssize_t out_step
    Py_ssize_t x_step
    bint exclusive
    int type


cdef inline float start(const int kind) noexcept nogil:
    """Return what combines with any number to that number."""
    if kind == PRODUCT:
        return 1
    if kind == MAXIMUM:
        return -INFINITY
    if kind == MINIMUM:
        return INFINITY
    return 0


cdef inline vec with_next(const int kind, vec total, vec x, vec largest) noexcept nogil:
    """Return the reduction of what there is and one number more; NaN wins."""
    if kind == PRODUCT:
        return total * x
    if kind == MAXIMUM:
        return larger(x, total)
    if kind == MINIMUM:
        return smaller(x, total)
    if kind == L1:
        return total + vabs(x)
    if kind == L2 or kind == SQUARES:
        return total + x * x
    if kind == EXPONENTIALS:
        return total + vexp(x - largest)
    return total + x


cdef inline vec finished(const int kind, vec total, vec largest) noexcept nogil:
    """Return the result of a reduction."""
    if kind == L2:
        return vsqrt(total)
    if kind == LOG_SUM:
        return vlog(total)
    if kind == EXPONENTIALS:
        return vlog(total) + largest
    return total


cdef inline vec shift(vec largest) noexcept nogil:
    """Return the largest number, or zero where there is no finite one."""
    cdef ivec finite = below(vabs(largest), splat(INFINITY)) | unordered(largest)
    return choose(finite, largest, splat(0))


cdef inline void reduce_columns(
    const int kind, vec* total, const vec* largest, const float* x, const Geometry* g,
    const int wide, int lanes,
) noexcept nogil:
    """Combine `wide` vectors of outputs; the last one has `lanes` lanes."""
    cdef Py_ssize_t last = g.reduced.rank - 1
    cdef Py_ssize_t n = g.reduced.shape[last], stride = g.reduced.strides[0][last]
    cdef Py_ssize_t outer, k, offset
    cdef const float* p
    cdef vec sums[WIDE]
    cdef vec v
    cdef int i
    for i in range(wide):
        sums[i] = splat(start(kind))
    for outer in range(g.reduced.work // n):
        locate(&g.reduced, outer, last, &offset)
        p = x + offset
        for k in range(n):
            for i in range(wide):
                v = load_n(p + i * LANES, lanes if i == wide - 1 else LANES)
                sums[i] = with_next(kind, sums[i], v, largest[i])
            p += stride
    for i in range(wide):
        total[i] = sums[i]


cdef inline void columns(
    const int kind, float* out, const float* x, const Geometry* g, const int wide,
    int lanes,
) noexcept nogil:
    """Write `wide` vectors of results; the last one has `lanes` lanes."""
    cdef vec total[WIDE]
    cdef vec largest[WIDE]
    cdef int i
    for i in range(WIDE):
        largest[i] = splat(0)
    if kind == EXPONENTIALS:
        reduce_columns(MAXIMUM, total, largest, x, g, wide, lanes)
        for i in range(wide):
            largest[i] = shift(total[i])
    reduce_columns(kind, total, largest, x, g, wide, lanes)
    for i in range(wide):
        store_n(
            out + i * LANES, finished(kind, total[i], largest[i]),
            lanes if i == wide - 1 else LANES,
        )


cdef inline void any_columns(
    const int kind, float* out, const float* x, const Geometry* g, Py_ssize_t n
) noexcept nogil:
    """Write n results, 1 <= n <= WIDE * LANES."""
    cdef int wide = <int>((n + LANES - 1) // LANES)
    cdef int lanes = <int>(n - (wide - 1) * LANES), i
    if n == WIDE * LANES:
        columns(kind, out, x, g, WIDE, LANES)
    else:
        for i in range(wide):
            columns(
                kind, out + i * LANES, x + i * LANES, g, 1,
                lanes if i == wide - 1 else LANES,
            )


cdef inline vec combined(const int kind, vec a, vec b) noexcept nogil:
    """Return the reduction of two reductions."""
    if kind == PRODUCT or kind == MAXIMUM or kind == MINIMUM:
        return with_next(kind, a, b, a)
    return a + b


cdef inline float over_lanes(const int kind, vec v) noexcept nogil:
    """Return the reduction of all lanes of a vector of reductions."""
    cdef int n = 1
    while n < LANES:
        v = combined(kind, interleave_low(v, v), interleave_high(v, v))
        n *= 2
    cdef float lanes[LANES]
    store(lanes, v)
    return lanes[0]


cdef inline float reduce_rows(
    const int kind, float largest, const float* x, const Geometry* g
) noexcept nogil:
    """Return the reduction of all reduced elements, which lie in dense rows."""
    cdef vec total[WIDE]
    cdef vec most = splat(largest), nothing = splat(start(kind))
    cdef Py_ssize_t last = g.reduced.rank - 1
    cdef Py_ssize_t n = g.reduced.shape[last]
    cdef Py_ssize_t outer, k, offset, whole_parts = n // (WIDE * LANES)
    cdef const float* p
    cdef vec v
    cdef int i, lanes
    for i in range(WIDE):
        total[i] = nothing
    for outer in range(g.reduced.work // n):
        locate(&g.reduced, outer, last, &offset)
        p = x + offset
        for k in range(whole_parts):
            for i in range(WIDE):
                total[i] = with_next(kind, total[i], load(p + i * LANES), most)
            p += WIDE * LANES
        k = n - whole_parts * WIDE * LANES
        while k > 0:
            lanes = <int>min(k, <Py_ssize_t>LANES)
            v = with_next(kind, total[0], load_n(p, lanes), most)
            total[0] = choose(first_lanes(lanes), v, total[0])
            p += LANES
            k -= LANES
    for i in range(1, WIDE):
        total[0] = combined(kind, total[0], total[i])
    return over_lanes(kind, total[0])


cdef inline void rows(
    const int kind, float* out, const float* x, const Geometry* g
) noexcept nogil:
    """Write one result."""
    cdef float largest = 0
    cdef vec v
    if kind == EXPONENTIALS:
        v = shift(splat(reduce_rows(MAXIMUM, 0, x, g)))
        store_part(&largest, v, 1)
    v = finished(kind, splat(reduce_rows(kind, largest, x, g)), splat(largest))
    store_part(out, v, 1)


cdef inline void unit_of(
    const int kind, const bint by_rows, float* out, const float* x, const Geometry* g,
    Py_ssize_t n,
) noexcept nogil:
    if by_rows:
        rows(kind, out, x, g)
    else:
        any_columns(kind, out, x, g, n)


cdef inline void any_unit(
    const bint by_rows, float* out, const float* x, const Geometry* g, Py_ssize_t n
) noexcept nogil:
    """Write n results of float32 by the loop made for their kind."""
    if g.kind == SUM:
        unit_of(SUM, by_rows, out, x, g, n)
    elif g.kind == PRODUCT:
        unit_of(PRODUCT, by_rows, out, x, g, n)
    elif g.kind == MAXIMUM:
        unit_of(MAXIMUM, by_rows, out, x, g, n)
    elif g.kind == MINIMUM:
        unit_of(MINIMUM, by_rows, out, x, g, n)
    elif g.kind == L1:
        unit_of(L1, by_rows, out, x, g, n)
    elif g.kind == L2:
        unit_of(L2, by_rows, out, x, g, n)
    elif g.kind == SQUARES:
        unit_of(SQUARES, by_rows, out, x, g, n)
    elif g.kind == LOG_SUM:
        unit_of(LOG_SUM, by_rows, out, x, g, n)
    else:
        unit_of(EXPONENTIALS, by_rows, out, x, g, n)


cdef inline whole first(const int kind, whole* _) noexcept nogil:
    """Return the whole number that combines with any to that one."""
    if kind == PRODUCT:
        return 1
    if kind == MAXIMUM or kind == MINIMUM:
        if whole is uint8_t:
            return 0 if kind == MAXIMUM else 255
        elif whole is int8_t:
            return -128 if kind == MAXIMUM else 127
        elif whole is int32_t:
            return INT32_MIN if kind == MAXIMUM else INT32_MAX
        else:
            return INT64_MIN if kind == MAXIMUM else INT64_MAX
    return 0


cdef inline whole with_whole(const int kind, whole total, whole x) noexcept nogil:
    if kind == PRODUCT:
        return <whole>(<uint64_t>total * <uint64_t>x)
    if kind == MAXIMUM:
        return x if x > total else total
    if kind == MINIMUM:
        return x if x < total else total
    if kind == L1:
        return <whole>(<uint64_t>total + (0 - <uint64_t>x if x < 0 else <uint64_t>x))
    if kind == SQUARES:
        return <whole>(<uint64_t>total + <uint64_t>x * <uint64_t>x)
    return <whole>(<uint64_t>total + <uint64_t>x)


cdef inline void whole_unit(
    const int kind, const bint by_rows, whole* out, const whole* x, const Geometry* g,
    Py_ssize_t n,
) noexcept nogil:
    """Write n results; one, of dense rows, with `by_rows`."""
    cdef Py_ssize_t last = g.reduced.rank - 1
    cdef Py_ssize_t length = g.reduced.shape[last], stride = g.reduced.strides[0][last]
    cdef Py_ssize_t outer, k, i, offset
    cdef whole total[CHUNK]
    cdef whole one = first(kind, out)
    for i in range(n):
        total[i] = one
    for outer in range(g.reduced.work // length):
        locate(&g.reduced, outer, last, &offset)
        if by_rows:
            for k in range(length):
                one = with_whole(kind, one, x[offset + k])
        else:
            for k in range(length):
                for i in range(n):
                    total[i] = with_whole(kind, total[i], x[offset + i])
                offset += stride
    if by_rows:
        out[0] = one
    else:
        for i in range(n):
            out[i] = total[i]


cdef inline void any_whole_unit(
    const bint by_rows, whole* out, const whole* x, const Geometry* g, Py_ssize_t n
) noexcept nogil:
    """Write n results of whole numbers by the loop made for their kind."""
    if g.kind == SUM:
        whole_unit(SUM, by_rows, out, x, g, n)
    elif g.kind == PRODUCT:
        whole_unit(PRODUCT, by_rows, out, x, g, n)
    elif g.kind == MAXIMUM:
        whole_unit(MAXIMUM, by_rows, out, x, g, n)
    elif g.kind == MINIMUM:
        whole_unit(MINIMUM, by_rows, out, x, g, n)
    elif g.kind == L1:
        whole_unit(L1, by_rows, out, x, g, n)
    else:
        whole_unit(SQUARES, by_rows, out, x, g, n)


cdef inline void typed_unit(
    const bint by_rows, char** operand, const Py_ssize_t* offset, Py_ssize_t column,
    const Geometry* g, Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t to = offset[0] + column, at = offset[1] + column
    cdef char* out = operand[0]
    cdef char* x = operand[1]
    if g.type == FLOAT32:
        any_unit(by_rows, <float*>out + to, <const float*>x + at, g, n)
    elif g.type == INT64:
        any_whole_unit(by_rows, <int64_t*>out + to, <const int64_t*>x + at, g, n)
    elif g.type == INT32:
        any_whole_unit(by_rows, <int32_t*>out + to, <const int32_t*>x + at, g, n)
    elif g.type == INT8:
        any_whole_unit(by_rows, <int8_t*>out + to, <const int8_t*>x + at, g, n)
    else:
        any_whole_unit(by_rows, <uint8_t*>out + to, <const uint8_t*>x + at, g, n)


cdef inline Py_ssize_t chunk(const int type) noexcept nogil:
    """Return how many outputs make a unit of work."""
    return WIDE * LANES if type == FLOAT32 else <Py_ssize_t>CHUNK


cdef void run_columns(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t last = g.kept.rank - 1, width = chunk(g.type)
    cdef Py_ssize_t offset[2]
    cdef Py_ssize_t unit, column
    for unit in range(share(g.work, part, parts), share(g.work, part + 1, parts)):
        locate(&g.kept, unit // g.chunks, last, offset)
        column = unit % g.chunks * width
        typed_unit(
            False, operand, offset, column, g, min(g.kept.shape[last] - column, width)
        )


cdef void run_rows(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t offset[2]
    cdef Py_ssize_t unit
    for unit in range(share(g.work, part, parts), share(g.work, part + 1, parts)):
        locate(&g.kept, unit, g.kept.rank, offset)
        typed_unit(True, operand, offset, 0, g, 1)


ctypedef fused number:
    int32_t
    int64_t
    float


ctypedef fused carried:
    int64_t
    double


cdef inline void run_along(
    number* out, const number* x, carried* total, const Running* g, Py_ssize_t n
) noexcept nogil:
    """Write n running sums side by side."""
    cdef Py_ssize_t k, i
    cdef carried next
    for i in range(n):
        total[i] = 0
    for k in range(g.n):
        for i in range(n):
            if carried is double:
                next = total[i] + <double>x[i]
            else:
                next = <carried>(<uint64_t>total[i] + <uint64_t>x[i])
            out[i] = <number>(total[i] if g.exclusive else next)
            total[i] = next
        out += g.out_step
        x += g.x_step


cdef void run_running(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Running* g = <const Running*>geometry
    cdef Py_ssize_t last = g.kept.rank - 1
    cdef Py_ssize_t offset[2]
    cdef Py_ssize_t unit, column, n
    cdef double floats[CHUNK]
    cdef int64_t wholes[CHUNK]
    for unit in range(share(g.work, part, parts), share(g.work, part + 1, parts)):
        locate(&g.kept, unit // g.chunks, last, offset)
        column = unit % g.chunks * CHUNK
        n = min(g.kept.shape[last] - column, <Py_ssize_t>CHUNK)
        offset[0] += column
        offset[1] += column
        if g.type == FLOAT32:
            run_along(
                <float*>operand[0] + offset[0], <const float*>operand[1] + offset[1],
                floats, g, n,
            )
        elif g.type == INT64:
            run_along(
                <int64_t*>operand[0] + offset[0],
                <const int64_t*>operand[1] + offset[1], wholes, g, n,
            )
        else:
            run_along(
                <int32_t*>operand[0] + offset[0],
                <const int32_t*>operand[1] + offset[1], wholes, g, n,
            )


def reduction(
    str kind, str dtype, tuple kept_shape, tuple out_strides, tuple kept_x_strides,
    tuple reduced_shape, tuple reduced_x_strides,
):
    """Return the kernel of a reduction over at least one element; operands (out, x).

    Parameters
    ----------
    kind, dtype : str
        A key of KINDS, and the element type.
    kept_shape, out_strides, kept_x_strides : tuple of int
        The axes that remain; strides in elements.
    reduced_shape, reduced_x_strides : tuple of int
        The other axes.
    """
    cdef Geometry g
    cdef Py_ssize_t last, width
    g.kind, g.type = KINDS[kind], element(dtype)
    g.reduced = merged(reduced_shape, (reduced_x_strides,))
    last = g.reduced.rank - 1
    if last > 0 and g.reduced.strides[0][last] == 1:
        g.kept = merged(kept_shape, (out_strides, kept_x_strides))
        g.work = g.kept.work
        return bound(run_rows, &g, sizeof(g))
    g.kept = nest(kept_shape, (out_strides, kept_x_strides))
    last = g.kept.rank - 1
    width = chunk(g.type)
    g.chunks = (g.kept.shape[last] + width - 1) // width
    g.work = g.chunks
    for axis in range(last):
        g.work *= g.kept.shape[axis]
    return bound(run_columns, &g, sizeof(g))


def running_sum(
    str dtype, tuple kept_shape, tuple out_strides, tuple x_strides, Py_ssize_t n,
    Py_ssize_t out_step, Py_ssize_t x_step, bint exclusive,
):
    """Return the kernel of sums of all elements up to each; operands (out, x).

    Parameters
    ----------
    dtype : str
        float32, int32 or int64.
    kept_shape, out_strides, x_strides : tuple of int
        The other axes; strides in elements.
    n, out_step, x_step : int
        The axis along which sums run; negative strides run backwards.
    exclusive : bool
        Whether the element itself is left out.
    """
    cdef Running g
    cdef Py_ssize_t last
    g.type = element(dtype)
    g.n, g.out_step, g.x_step, g.exclusive = n, out_step, x_step, exclusive
    g.kept = nest(kept_shape, (out_strides, x_strides))
    last = g.kept.rank - 1
    g.chunks = (g.kept.shape[last] + CHUNK - 1) // CHUNK
    g.work = g.chunks
    for axis in range(last):
        g.work *= g.kept.shape[axis]
    return bound(run_running, &g, sizeof(g))
