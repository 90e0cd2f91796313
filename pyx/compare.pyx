"""Elementwise kernels that compare and that choose: truth values are bytes, 0 or 1.

# Design
Comparisons read two operands of one element type and write bytes; there are three, the
others are these with their operands exchanged. A choice moves elements, so only their
size matters. As everywhere the loops are made for scalars and rows apart.
"""

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from element cimport FLOAT32, INT8, INT32, INT64, element, item, number
from loops cimport Block, Nest, block_at, nest
from step cimport bound, share

cdef enum Kind:
    EQUAL
    GREATER
    GREATER_OR_EQUAL

KINDS = {"Equal": EQUAL, "Greater": GREATER, "GreaterOrEqual": GREATER_OR_EQUAL}
"""The comparisons of `compare` by name."""


cdef struct Geometry:
    Nest nest
    int kind
    int type


cdef inline uint8_t holds(const int kind, number x, number y) noexcept nogil:
    if kind == EQUAL:
        return x == y
    if kind == GREATER:
        return x > y
    return x >= y


cdef inline void row(
    const int kind, uint8_t* out, const number* x, const Py_ssize_t x_step,
    const number* y, const Py_ssize_t y_step, Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = holds(kind, x[i * x_step], y[i * y_step])


cdef inline void rows(
    const int kind, const Geometry* g, const Block* b, uint8_t* out, const number* x,
    const number* y,
) noexcept nogil:
    """Write one block by the loop made for its strides."""
    cdef Py_ssize_t last = g.nest.rank - 1, k
    cdef Py_ssize_t x_step = g.nest.strides[1][last], y_step = g.nest.strides[2][last]
    out += b.offset[0]
    x += b.offset[1]
    y += b.offset[2]
    for k in range(b.rows):
        if x_step == 1 and y_step == 1:
            row(kind, out, x, 1, y, 1, b.n)
        elif x_step == 1 and y_step == 0:
            row(kind, out, x, 1, y, 0, b.n)
        elif x_step == 0 and y_step == 1:
            row(kind, out, x, 0, y, 1, b.n)
        else:
            row(kind, out, x, x_step, y, y_step, b.n)
        out += b.stride[0]
        x += b.stride[1]
        y += b.stride[2]


cdef inline void block_of(
    const Geometry* g, const Block* b, uint8_t* out, const number* x, const number* y
) noexcept nogil:
    if g.kind == EQUAL:
        rows(EQUAL, g, b, out, x, y)
    elif g.kind == GREATER:
        rows(GREATER, g, b, out, x, y)
    else:
        rows(GREATER_OR_EQUAL, g, b, out, x, y)


cdef void run_compare(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t unit = share(g.nest.work, part, parts)
    cdef Py_ssize_t end = share(g.nest.work, part + 1, parts)
    cdef uint8_t* out = <uint8_t*>operand[0]
    cdef char* x = operand[1]
    cdef char* y = operand[2]
    cdef Block b
    while unit < end:
        unit += block_at(&g.nest, unit, end, &b)
        if g.type == FLOAT32:
            block_of(g, &b, out, <const float*>x, <const float*>y)
        elif g.type == INT64:
            block_of(g, &b, out, <const int64_t*>x, <const int64_t*>y)
        elif g.type == INT32:
            block_of(g, &b, out, <const int32_t*>x, <const int32_t*>y)
        elif g.type == INT8:
            block_of(g, &b, out, <const int8_t*>x, <const int8_t*>y)
        else:
            block_of(g, &b, out, <const uint8_t*>x, <const uint8_t*>y)


cdef inline void choose_row(
    item* out, const uint8_t* c, const Py_ssize_t c_step, const item* x,
    const Py_ssize_t x_step, const item* y, const Py_ssize_t y_step, Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t i
    cdef item one, other
    for i in range(n):
        one = x[i * x_step]
        other = y[i * y_step]
        out[i] = one if c[i * c_step] else other


cdef inline void choose_rows(
    const Geometry* g, const Block* b, item* out, const uint8_t* c, const item* x,
    const item* y,
) noexcept nogil:
    cdef Py_ssize_t last = g.nest.rank - 1, k
    cdef Py_ssize_t c_step = g.nest.strides[1][last], x_step = g.nest.strides[2][last]
    cdef Py_ssize_t y_step = g.nest.strides[3][last]
    out += b.offset[0]
    c += b.offset[1]
    x += b.offset[2]
    y += b.offset[3]
    for k in range(b.rows):
        if c_step == 1 and x_step == 1 and y_step == 1:
            choose_row(out, c, 1, x, 1, y, 1, b.n)
        elif c_step == 1 and x_step == 1 and y_step == 0:
            choose_row(out, c, 1, x, 1, y, 0, b.n)
        elif c_step == 1 and x_step == 0 and y_step == 1:
            choose_row(out, c, 1, x, 0, y, 1, b.n)
        else:
            choose_row(out, c, c_step, x, x_step, y, y_step, b.n)
        out += b.stride[0]
        c += b.stride[1]
        x += b.stride[2]
        y += b.stride[3]


cdef void run_where(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t unit = share(g.nest.work, part, parts)
    cdef Py_ssize_t end = share(g.nest.work, part + 1, parts)
    cdef char* out = operand[0]
    cdef const uint8_t* c = <const uint8_t*>operand[1]
    cdef char* x = operand[2]
    cdef char* y = operand[3]
    cdef Block b
    while unit < end:
        unit += block_at(&g.nest, unit, end, &b)
        if g.type == 4:
            choose_rows(
                g, &b, <uint32_t*>out, c, <const uint32_t*>x, <const uint32_t*>y
            )
        elif g.type == 8:
            choose_rows(
                g, &b, <uint64_t*>out, c, <const uint64_t*>x, <const uint64_t*>y
            )
        else:
            choose_rows(g, &b, <uint8_t*>out, c, <const uint8_t*>x, <const uint8_t*>y)


def compare(str kind, str dtype, tuple shape, tuple operand_strides):
    """Return the kernel of ``out = kind(x, y)``; operands (out, x, y).

    Parameters
    ----------
    kind : str
        A key of KINDS.
    dtype : str
        The element type of x and y; out is bytes.
    shape : tuple of int
        At most 8 axes.
    operand_strides : tuple of tuple of int
        One an operand, in elements; 1 along the last axis of out.
    """
    cdef Geometry g
    g.nest = nest(shape, operand_strides, True)
    g.kind, g.type = KINDS[kind], element(dtype)
    return bound(run_compare, &g, sizeof(g))


def where(Py_ssize_t itemsize, tuple shape, tuple operand_strides):
    """Return the kernel of ``out = x if condition else y``.

    The operands are (out, condition, x, y).

    Parameters
    ----------
    itemsize : int
        1, 4 or 8 bytes an element of out, x and y.
    shape, operand_strides
        As for `compare`.

    Raises
    ------
    ValueError
        If the item size is another.
    """
    cdef Geometry g
    if itemsize not in (1, 4, 8):
        raise ValueError(f"itemsize {itemsize}, wanted 1, 4 or 8")
    g.nest = nest(shape, operand_strides, True)
    g.type = itemsize
    return bound(run_where, &g, sizeof(g))
