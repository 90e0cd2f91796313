"""Local response normalisation: x (bias + alpha * mean square nearby)^-beta.

# Design
Across channels the squares of one position go into a row of scratch memory with zeros at
both ends, and each vector of sums adds up `size` shifted loads from it. Within a channel
each position adds up the window around it directly, a vector of channels at once. The
square root serves the powers 1/2 and 3/4; others are exp(-beta ln s).

A unit of work is one position.
"""

from activation cimport vexp, vlog
from simd cimport *
from step cimport bound, share

cdef enum:
    AXES = 3


cdef struct Geometry:
    Py_ssize_t images
    Py_ssize_t channels
    Py_ssize_t inner[AXES]      # planes, rows, pixels
    Py_ssize_t x[AXES + 1]      # distances between images, planes, rows, pixels
    Py_ssize_t y[AXES + 1]
    Py_ssize_t before
    Py_ssize_t after
    Py_ssize_t scratch
    float alpha
    float beta
    float bias


cdef inline vec response(const Geometry* g, vec x, vec total) noexcept nogil:
    """Return x (bias + alpha total)^-beta."""
    cdef vec s = splat(g.bias) + splat(g.alpha) * total
    cdef vec root
    if g.beta == 0.75:
        root = vsqrt(s)
        return x / (root * vsqrt(root))
    if g.beta == 0.5:
        return x / vsqrt(s)
    if g.beta == 1:
        return x / s
    return x * vexp(splat(-g.beta) * vlog(s))


cdef inline void across(
    const Geometry* g, float* out, const float* x, float* squares
) noexcept nogil:
    """Write one position from windows over its channels."""
    cdef Py_ssize_t c, k
    cdef int lanes
    cdef vec v
    for k in range(g.before):
        squares[k] = 0
    c = 0
    while c < g.channels:
        lanes = <int>min(g.channels - c, <Py_ssize_t>LANES)
        v = load_n(x + c, lanes)
        store_n(squares + g.before + c, v * v, lanes)
        c += LANES
    for k in range(g.before + g.channels, g.before + g.channels + g.after + LANES):
        squares[k] = 0
    c = 0
    while c < g.channels:
        lanes = <int>min(g.channels - c, <Py_ssize_t>LANES)
        v = splat(0)
        for k in range(g.before + 1 + g.after):
            v = v + load(squares + c + k)
        store_n(out + c, response(g, load_n(x + c, lanes), v), lanes)
        c += LANES


cdef inline void within(
    const Geometry* g, float* out, const float* x, const Py_ssize_t* at
) noexcept nogil:
    """Write one position from windows over the positions around it."""
    cdef Py_ssize_t first[AXES]
    cdef Py_ssize_t end[AXES]
    cdef Py_ssize_t c, d, h, i
    cdef int lanes, axis
    cdef vec total, v
    for axis in range(AXES):
        first[axis] = -min(at[axis], g.before) if g.inner[axis] > 1 else 0
        end[axis] = min(g.inner[axis] - at[axis], g.after + 1)
    c = 0
    while c < g.channels:
        lanes = <int>min(g.channels - c, <Py_ssize_t>LANES)
        total = splat(0)
        for d in range(first[0], end[0]):
            for h in range(first[1], end[1]):
                for i in range(first[2], end[2]):
                    v = load_n(x + c + d * g.x[1] + h * g.x[2] + i * g.x[3], lanes)
                    total = total + v * v
        store_n(out + c, response(g, load_n(x + c, lanes), total), lanes)
        c += LANES


cdef inline void run(
    const bint channels, char** operand, const Geometry* g, Py_ssize_t part,
    Py_ssize_t parts,
) noexcept nogil:
    cdef Py_ssize_t work = g.images * g.inner[0] * g.inner[1] * g.inner[2]
    cdef Py_ssize_t unit, left
    cdef Py_ssize_t at[AXES]
    cdef float* out
    cdef const float* x
    for unit in range(share(work, part, parts), share(work, part + 1, parts)):
        at[2] = unit % g.inner[2]
        left = unit // g.inner[2]
        at[1] = left % g.inner[1]
        left = left // g.inner[1]
        at[0] = left % g.inner[0]
        left = left // g.inner[0]
        out = (
            <float*>operand[0] + left * g.y[0] + at[0] * g.y[1] + at[1] * g.y[2]
            + at[2] * g.y[3]
        )
        x = (
            <const float*>operand[1] + left * g.x[0] + at[0] * g.x[1] + at[1] * g.x[2]
            + at[2] * g.x[3]
        )
        if channels:
            across(g, out, x, <float*>operand[2] + part * g.scratch)
        else:
            within(g, out, x, at)


cdef void run_across(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    run(True, operand, <const Geometry*>geometry, part, parts)


cdef void run_within(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    run(False, operand, <const Geometry*>geometry, part, parts)


def scratch(Py_ssize_t channels, Py_ssize_t before, Py_ssize_t after):
    """Return how many floats of scratch memory one thread needs across channels."""
    return before + channels + after + LANES


def lrn(
    Py_ssize_t images, Py_ssize_t channels, tuple inner, tuple x, tuple y,
    Py_ssize_t before, Py_ssize_t after, float alpha, float beta, float bias,
    bint across_channels,
):
    """Return the kernel; operands (out, x), and scratch memory across channels.

    Parameters
    ----------
    inner : tuple of int
        Planes, rows and pixels.
    x, y : tuple of int
        Distances between images, planes, rows and pixels of input and output, in
        elements; the last axis is dense.
    before, after : int
        How far windows reach; less than the axis is long.
    alpha, beta, bias : float
        ``x * (bias + alpha * sum of squares) ** -beta``.
    """
    cdef Geometry g
    cdef int axis
    g.images, g.channels = images, channels
    g.before, g.after = before, after
    g.alpha, g.beta, g.bias = alpha, beta, bias
    g.scratch = scratch(channels, before, after)
    for axis in range(AXES):
        g.inner[axis] = inner[axis]
    for axis in range(AXES + 1):
        g.x[axis], g.y[axis] = x[axis], y[axis]
    if across_channels:
        return bound(run_across, &g, sizeof(g))
    return bound(run_within, &g, sizeof(g))
