"""Conversion between element types.

# Design
One loop for each pair of types, elementwise between any strides. Whole numbers become
narrower ones by dropping high bits, as NumPy does. A float becomes the whole number next
to it towards zero; one outside the range becomes the range's end, NaN becomes zero. Any
number but zero is true.
"""

from libc.stdint cimport INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t
from element cimport FLOAT32, INT8, INT32, INT64, UINT8, element, number
from loops cimport Block, Nest, block_at, nest
from step cimport bound, share

cdef enum:
    BOOL = 8  # as a target; its elements are otherwise bytes


cdef struct Geometry:
    Nest nest
    int to
    int type


ctypedef fused target:
    int8_t
    uint8_t
    int32_t
    int64_t
    float


cdef inline int32_t limited(float x, int32_t least, int32_t most) noexcept nogil:
    """Return the whole number next to x towards zero, within bounds; zero for NaN."""
    if x <= least:
        return least
    if x >= most:
        return most
    return <int32_t>x if x == x else 0


cdef inline target converted(const bint truth, number x, target* _) noexcept nogil:
    """Return x as another type; `_` only says which."""
    if truth:
        return x != 0
    if number is float:
        if target is float:
            return x
        elif target is int8_t:
            return <target>limited(x, -128, 127)
        elif target is uint8_t:
            return <target>limited(x, 0, 255)
        elif target is int32_t:
            if x >= <float>2147483648.0:
                return INT32_MAX
            if x <= <float>-2147483648.0:
                return INT32_MIN
            return <target>x if x == x else 0
        else:
            if x >= <float>9223372036854775808.0:
                return INT64_MAX
            if x <= <float>-9223372036854775808.0:
                return INT64_MIN
            return <target>x if x == x else 0
    else:
        return <target>x


cdef inline void rows(
    const bint truth, const Geometry* g, const Block* b, target* out, const number* x
) noexcept nogil:
    cdef Py_ssize_t step = g.nest.strides[1][g.nest.rank - 1], k, i
    out += b.offset[0]
    x += b.offset[1]
    for k in range(b.rows):
        if step == 1:
            for i in range(b.n):
                out[i] = converted(truth, x[i], out)
        else:
            for i in range(b.n):
                out[i] = converted(truth, x[i * step], out)
        out += b.stride[0]
        x += b.stride[1]


cdef inline void block_of(
    const Geometry* g, const Block* b, char* out, const number* x
) noexcept nogil:
    if g.to == BOOL:
        rows(True, g, b, <uint8_t*>out, x)
    elif g.to == INT8:
        rows(False, g, b, <int8_t*>out, x)
    elif g.to == UINT8:
        rows(False, g, b, <uint8_t*>out, x)
    elif g.to == INT32:
        rows(False, g, b, <int32_t*>out, x)
    elif g.to == INT64:
        rows(False, g, b, <int64_t*>out, x)
    else:
        rows(False, g, b, <float*>out, x)


cdef void run_cast(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t unit = share(g.nest.work, part, parts)
    cdef Py_ssize_t end = share(g.nest.work, part + 1, parts)
    cdef char* x = operand[1]
    cdef Block b
    while unit < end:
        unit += block_at(&g.nest, unit, end, &b)
        if g.type == FLOAT32:
            block_of(g, &b, operand[0], <const float*>x)
        elif g.type == INT64:
            block_of(g, &b, operand[0], <const int64_t*>x)
        elif g.type == INT32:
            block_of(g, &b, operand[0], <const int32_t*>x)
        elif g.type == INT8:
            block_of(g, &b, operand[0], <const int8_t*>x)
        else:
            block_of(g, &b, operand[0], <const uint8_t*>x)


def cast(str to, str dtype, tuple shape, tuple out_strides, tuple x_strides):
    """Return the kernel of ``out = x`` with another element type; operands (out, x).

    Parameters
    ----------
    to, dtype : str
        The element types of out and x.
    shape : tuple of int
        At most 8 axes.
    out_strides, x_strides : tuple of int
        In elements; 1 along the last axis of out.
    """
    cdef Geometry g
    g.nest = nest(shape, (out_strides, x_strides), True)
    g.to = BOOL if to == "bool" else element(to)
    g.type = element(dtype)
    return bound(run_cast, &g, sizeof(g))
