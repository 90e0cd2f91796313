"""Softmax, its logarithm and its limit along one axis.

# Design
Three passes over the positions of the axis: the largest value; the sum of exp(x - largest),
which the softmax also stores; the quotient. Along the last axis vectors run along the
axis and their lanes are reduced at the end. Along another axis vectors run along the
last one, every lane a softmax of its own.

The limit, hardmax, looks for the first largest element and knows no vectors.

A unit of work is one row, or LANES columns. The output may be the input.
"""

from libc.math cimport INFINITY
from activation cimport vexp, vlog
from loops cimport Nest, locate, merged
from simd cimport *
from step cimport bound, share


cdef struct Geometry:
    Nest outer
    Py_ssize_t n
    Py_ssize_t columns
    Py_ssize_t out_stride
    Py_ssize_t x_stride
    Py_ssize_t work
    bint log


cdef inline void row(float* out, const float* x, Py_ssize_t n, bint log) noexcept nogil:
    """Write the softmax of n elements in a row."""
    cdef Py_ssize_t k, whole = n // LANES
    cdef int tail = <int>(n % LANES)
    cdef vec largest = splat(-INFINITY)
    cdef vec total = splat(0)
    cdef vec v
    for k in range(whole):
        largest = vmax(load(x + k * LANES), largest)
    if tail:
        v = load_part(x + whole * LANES, tail)
        largest = vmax(choose(first_lanes(tail), v, largest), largest)
    largest = splat(max_lanes(largest))
    for k in range(whole):
        v = vexp(load(x + k * LANES) - largest)
        total = total + v
        if not log:
            store(out + k * LANES, v)
    if tail:
        v = vexp(load_part(x + whole * LANES, tail) - largest)
        total = total + choose(first_lanes(tail), v, splat(0))
        if not log:
            store_part(out + whole * LANES, v, tail)
    total = splat(sum_lanes(total))
    if log:
        total = vlog(total)
        for k in range(whole):
            store(out + k * LANES, (load(x + k * LANES) - largest) - total)
        if tail:
            v = load_part(x + whole * LANES, tail)
            store_part(out + whole * LANES, (v - largest) - total, tail)
        return
    total = splat(1) / total
    for k in range(whole):
        store(out + k * LANES, load(out + k * LANES) * total)
    if tail:
        v = load_part(out + whole * LANES, tail)
        store_part(out + whole * LANES, v * total, tail)


cdef inline void columns(
    float* out, const float* x, const Geometry* g, int lanes
) noexcept nogil:
    """Write the softmax of each of up to LANES columns."""
    cdef vec largest = splat(-INFINITY)
    cdef vec total = splat(0)
    cdef vec v
    cdef Py_ssize_t k
    for k in range(g.n):
        largest = vmax(load_n(x + k * g.x_stride, lanes), largest)
    for k in range(g.n):
        v = vexp(load_n(x + k * g.x_stride, lanes) - largest)
        total = total + v
        if not g.log:
            store_n(out + k * g.out_stride, v, lanes)
    total = vlog(total) if g.log else splat(1) / total
    for k in range(g.n):
        if g.log:
            v = (load_n(x + k * g.x_stride, lanes) - largest) - total
        else:
            v = load_n(out + k * g.out_stride, lanes) * total
        store_n(out + k * g.out_stride, v, lanes)


cdef void run_rows(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t offset[2]
    cdef Py_ssize_t unit
    for unit in range(share(g.work, part, parts), share(g.work, part + 1, parts)):
        locate(&g.outer, unit, g.outer.rank, offset)
        row(
            <float*>operand[0] + offset[0], <const float*>operand[1] + offset[1], g.n,
            g.log,
        )


cdef void run_columns(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t vectors = (g.columns + LANES - 1) // LANES
    cdef Py_ssize_t offset[2]
    cdef Py_ssize_t unit, first
    for unit in range(share(g.work, part, parts), share(g.work, part + 1, parts)):
        locate(&g.outer, unit // vectors, g.outer.rank, offset)
        first = unit % vectors * LANES
        columns(
            <float*>operand[0] + offset[0] + first,
            <const float*>operand[1] + offset[1] + first,
            g, <int>min(g.columns - first, <Py_ssize_t>LANES),
        )


cdef void run_hardmax(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t vectors = (g.columns + LANES - 1) // LANES
    cdef Py_ssize_t offset[2]
    cdef Py_ssize_t largest[LANES]
    cdef float best[LANES]
    cdef Py_ssize_t unit, first, k
    cdef float* out
    cdef const float* x
    cdef int i, lanes
    for unit in range(share(g.work, part, parts), share(g.work, part + 1, parts)):
        locate(&g.outer, unit // vectors, g.outer.rank, offset)
        first = unit % vectors * LANES
        lanes = <int>min(g.columns - first, <Py_ssize_t>LANES)
        out = <float*>operand[0] + offset[0] + first
        x = <const float*>operand[1] + offset[1] + first
        for i in range(lanes):
            largest[i] = 0
            best[i] = x[i]
        for k in range(1, g.n):
            for i in range(lanes):
                if not (x[k * g.x_stride + i] <= best[i]) and best[i] == best[i]:
                    largest[i] = k
                    best[i] = x[k * g.x_stride + i]
        for k in range(g.n):
            for i in range(lanes):
                out[k * g.out_stride + i] = 1 if largest[i] == k else 0


cdef Geometry along(tuple shape, tuple out_strides, tuple x_strides, Py_ssize_t axis):
    """Return the geometry; the work is counted in vectors of columns."""
    cdef Geometry g
    cdef Py_ssize_t last = len(shape) - 1
    rest = [a for a in range(last) if a != axis]
    g.outer = merged(
        tuple([shape[a] for a in rest]),
        (tuple([out_strides[a] for a in rest]), tuple([x_strides[a] for a in rest])),
    )
    g.n = shape[axis]
    g.log = False
    g.out_stride, g.x_stride = out_strides[axis], x_strides[axis]
    g.columns = 1 if axis == last else shape[last]
    g.work = g.outer.work * ((g.columns + LANES - 1) // LANES)
    return g


def softmax(tuple shape, tuple out_strides, tuple x_strides, Py_ssize_t axis, bint log):
    """Return the kernel of softmax along `axis`, or of its logarithm.

    Operands are (out, x), both dense along the last axis.

    Parameters
    ----------
    shape : tuple of int
        At most 8 axes.
    out_strides, x_strides : tuple of int
        In elements.
    axis : int
        From 0.
    log : bool
        Whether to write ``x - log(sum(exp(x)))``.
    """
    cdef Geometry g = along(shape, out_strides, x_strides, axis)
    g.log = log
    if axis == len(shape) - 1:
        return bound(run_rows, &g, sizeof(g))
    return bound(run_columns, &g, sizeof(g))


def hardmax(tuple shape, tuple out_strides, tuple x_strides, Py_ssize_t axis):
    """Return the kernel that writes 1 at the first largest element along `axis`, else 0.

    Operands and parameters are those of `softmax`; NaN counts as the largest.
    """
    cdef Geometry g = along(shape, out_strides, x_strides, axis)
    return bound(run_hardmax, &g, sizeof(g))
