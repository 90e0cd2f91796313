"""Resampling along axes: every output position is a weighted sum of input positions.

# Design
Which input positions an output position takes, and with what weights, is known for each
axis before anything runs: a table with the first position, how many, and the weights. A
pass takes up to AXES axes at once, with the products of their weights, and works on the
elements along the last axis as vectors. A unit of work is one output position; threads
get equal numbers of them.

A position with no taps at all, along any axis, is `outside` and gets a constant.
"""

from libc.stdint cimport int32_t
from loops cimport Nest, locate, merged
from step cimport bound, share
from taps cimport MOST_TAPS, Taps, add_taps

cdef enum:
    AXES = 3


cdef struct Geometry:
    Nest rest
    Py_ssize_t n
    Py_ssize_t positions
    Py_ssize_t outer[AXES]
    Py_ssize_t taps[AXES]
    Py_ssize_t out_stride[AXES]
    Py_ssize_t x_stride[AXES]
    float outside


cdef inline void fill(float* out, Py_ssize_t n, float value) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(n):
        out[k] = value


cdef void resample(
    const Geometry* g, char** operand, const Py_ssize_t* at, float* out, const float* x
) noexcept nogil:
    """Write the elements of one output position."""
    cdef const int32_t* span[AXES]
    cdef const float* w[AXES]
    cdef Py_ssize_t a, i, j, k
    cdef float outer_weight
    cdef Taps t
    cdef bint again = False
    for a in range(AXES):
        span[a] = <const int32_t*>operand[2 + 2 * a] + 2 * at[a]
        w[a] = <const float*>operand[3 + 2 * a] + at[a] * g.taps[a]
        if span[a][1] == 0:
            fill(out, g.n, g.outside)
            return
        x += span[a][0] * g.x_stride[a]
    t.count = 0
    for i in range(span[0][1]):
        for j in range(span[1][1]):
            outer_weight = w[0][i] * w[1][j]
            for k in range(span[2][1]):
                if t.count == MOST_TAPS:
                    add_taps(out, x, &t, g.n, again)
                    again = True
                    t.count = 0
                t.offset[t.count] = (
                    i * g.x_stride[0] + j * g.x_stride[1] + k * g.x_stride[2]
                )
                t.weight[t.count] = outer_weight * w[2][k]
                t.count += 1
    add_taps(out, x, &t, g.n, again)


cdef void run(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t work = g.positions * g.rest.work
    cdef Py_ssize_t unit = share(work, part, parts)
    cdef Py_ssize_t end = share(work, part + 1, parts)
    cdef Py_ssize_t offset[2]
    cdef Py_ssize_t at[AXES]
    cdef Py_ssize_t left = unit % g.positions
    at[2] = left % g.outer[2]
    at[1] = left // g.outer[2] % g.outer[1]
    at[0] = left // g.outer[2] // g.outer[1]
    if unit < end:
        locate(&g.rest, unit // g.positions, g.rest.rank, offset)
    while unit < end:
        resample(
            g, operand, at,
            <float*>operand[0] + offset[0] + at[0] * g.out_stride[0]
            + at[1] * g.out_stride[1] + at[2] * g.out_stride[2],
            <const float*>operand[1] + offset[1],
        )
        unit += 1
        at[2] += 1
        if at[2] == g.outer[2]:
            at[2] = 0
            at[1] += 1
        if at[1] == g.outer[1]:
            at[1] = 0
            at[0] += 1
        if at[0] == g.outer[0]:
            at[0] = 0
            locate(&g.rest, unit // g.positions, g.rest.rank, offset)


def resize(
    tuple shape, tuple out_strides, tuple x_strides, tuple axes, tuple taps,
    float outside,
):
    """Return the kernel of one pass.

    Operands are out, x, then a span table and a weight table for each of AXES axes: the
    span table has (first position, how many), int32, for each output position, the
    weight table `taps` float32. Missing leading axes have tables of one position, one tap
    and the weight one.

    Parameters
    ----------
    shape, out_strides, x_strides : tuple of int
        Of the output; strides in elements, 1 along the last axis.
    axes : tuple of int
        One to AXES of them, from 0, rising.
    taps : tuple of int
        Width of each axis's weight table.
    outside : float
        What a position without taps gets.
    """
    cdef Geometry g
    cdef Py_ssize_t slot, last = len(shape) - 1
    rest = [axis for axis in range(last + 1) if axis not in axes]
    g.n = 1
    while rest and rest[len(rest) - 1] == last and (
        out_strides[last] == x_strides[last] == g.n or shape[last] == 1
    ):
        g.n *= shape[rest.pop()]
        last -= 1
    g.rest = merged(
        tuple([shape[a] for a in rest]),
        (tuple([out_strides[a] for a in rest]), tuple([x_strides[a] for a in rest])),
    )
    g.outside = outside
    g.positions = 1
    for slot in range(AXES):
        g.outer[slot] = g.taps[slot] = 1
        g.out_stride[slot] = g.x_stride[slot] = 0
    for slot, axis in enumerate(axes, AXES - len(axes)):
        g.outer[slot] = shape[axis]
        g.taps[slot] = taps[slot - (AXES - len(axes))]
        g.out_stride[slot] = out_strides[axis]
        g.x_stride[slot] = x_strides[axis]
        g.positions *= shape[axis]
    return bound(run, &g, sizeof(g))
