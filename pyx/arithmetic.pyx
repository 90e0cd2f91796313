"""Elementwise kernels on whole numbers: two operands, broadcasting.

# Design
As in ``elementwise.pyx`` every loop is one function, called with literals for the kind
of operation and for which operands are scalars along the row; the compiler makes vectors
of it. Sums, differences and products wrap around as NumPy's do. Nothing here can trap:
dividing by zero gives zero, and the smallest number divided by -1 is itself.

The remainder is defined for float32 as well and lives here with the others.
"""

from libc.math cimport fmodf
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint64_t
from element cimport FLOAT32, INT8, INT32, INT64, UINT8, element, whole
from loops cimport Block, Nest, block_at, nest
from step cimport bound, share

cdef enum Kind:
    ADD
    SUB
    MUL
    DIV
    MAXIMUM
    MINIMUM
    POW
    MOD
    FMOD
    AND
    OR
    XOR

KINDS = {
    "Add": ADD,
    "Sub": SUB,
    "Mul": MUL,
    "Div": DIV,
    "Maximum": MAXIMUM,
    "Minimum": MINIMUM,
    "Pow": POW,
    "Mod": MOD,
    "Remainder": FMOD,
    "And": AND,
    "Or": OR,
    "Xor": XOR,
}
"""The operations of `binary` by name."""


cdef struct Geometry:
    Nest nest
    int kind
    int type


cdef inline whole power(whole x, whole y) noexcept nogil:
    """Return x to the power of y, wrapping around; the integer part if y < 0."""
    cdef uint64_t result = 1, base = <uint64_t>x
    if y < 0:
        if x == 1 or (x == <whole>-1 and not y & 1):
            return 1
        return x if x == <whole>-1 else 0
    while y > 0:
        if y & 1:
            result *= base
        base *= base
        y >>= 1
    return <whole>result


cdef inline whole remainder(const int kind, whole x, whole y) noexcept nogil:
    """Return x modulo y with the sign of y, or with that of x for FMOD."""
    cdef whole rest
    if y == 0 or (y < 0 and y == <whole>-1):
        return 0
    rest = x % y
    if kind == MOD and rest != 0 and (rest < 0) != (y < 0):
        rest += y
    return rest


cdef inline float remainder_of_floats(const int kind, float x, float y) noexcept nogil:
    cdef float rest = fmodf(x, y)
    if kind == MOD and rest != 0 and (rest < 0) != (y < 0):
        rest += y
    return rest


cdef inline whole combined(const int kind, whole x, whole y) noexcept nogil:
    """Return the operation `kind` of its operands."""
    if kind == ADD:
        return <whole>(<uint64_t>x + <uint64_t>y)
    if kind == SUB:
        return <whole>(<uint64_t>x - <uint64_t>y)
    if kind == MUL:
        return <whole>(<uint64_t>x * <uint64_t>y)
    if kind == DIV:
        if y == 0:
            return 0
        return <whole>(0 - <uint64_t>x) if y < 0 and y == <whole>-1 else x / y
    if kind == MAXIMUM:
        return x if x > y else y
    if kind == MINIMUM:
        return x if x < y else y
    if kind == POW:
        return power(x, y)
    if kind == AND:
        return x & y
    if kind == OR:
        return x | y
    if kind == XOR:
        return x ^ y
    return remainder(kind, x, y)


cdef inline void row(
    const int kind, whole* out, const whole* x, const Py_ssize_t x_step, const whole* y,
    const Py_ssize_t y_step, Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = combined(kind, x[i * x_step], y[i * y_step])


cdef inline void rows(
    const int kind, const Geometry* g, const Block* b, whole* out, const whole* x,
    const whole* y,
) noexcept nogil:
    """Write one block by the loop made for its strides."""
    cdef Py_ssize_t last = g.nest.rank - 1, k
    cdef Py_ssize_t x_step = g.nest.strides[1][last], y_step = g.nest.strides[2][last]
    out += b.offset[0]
    x += b.offset[1]
    y += b.offset[2]
    for k in range(b.rows):
        if kind == DIV or kind == POW or kind == MOD or kind == FMOD:
            row(kind, out, x, x_step, y, y_step, b.n)
        elif x_step == 1 and y_step == 1:
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
    const Geometry* g, const Block* b, whole* out, const whole* x, const whole* y
) noexcept nogil:
    if g.kind == ADD:
        rows(ADD, g, b, out, x, y)
    elif g.kind == SUB:
        rows(SUB, g, b, out, x, y)
    elif g.kind == MUL:
        rows(MUL, g, b, out, x, y)
    elif g.kind == DIV:
        rows(DIV, g, b, out, x, y)
    elif g.kind == MAXIMUM:
        rows(MAXIMUM, g, b, out, x, y)
    elif g.kind == MINIMUM:
        rows(MINIMUM, g, b, out, x, y)
    elif g.kind == POW:
        rows(POW, g, b, out, x, y)
    elif g.kind == MOD:
        rows(MOD, g, b, out, x, y)
    elif g.kind == FMOD:
        rows(FMOD, g, b, out, x, y)
    elif g.kind == AND:
        rows(AND, g, b, out, x, y)
    elif g.kind == OR:
        rows(OR, g, b, out, x, y)
    else:
        rows(XOR, g, b, out, x, y)


cdef inline void float_rows(
    const int kind, const Geometry* g, const Block* b, float* out, const float* x,
    const float* y,
) noexcept nogil:
    cdef Py_ssize_t last = g.nest.rank - 1, k, i
    cdef Py_ssize_t x_step = g.nest.strides[1][last], y_step = g.nest.strides[2][last]
    out += b.offset[0]
    x += b.offset[1]
    y += b.offset[2]
    for k in range(b.rows):
        for i in range(b.n):
            out[i] = remainder_of_floats(kind, x[i * x_step], y[i * y_step])
        out += b.stride[0]
        x += b.stride[1]
        y += b.stride[2]


cdef void run_binary(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t unit = share(g.nest.work, part, parts)
    cdef Py_ssize_t end = share(g.nest.work, part + 1, parts)
    cdef char* out = operand[0]
    cdef char* x = operand[1]
    cdef char* y = operand[2]
    cdef Block b
    while unit < end:
        unit += block_at(&g.nest, unit, end, &b)
        if g.type == INT64:
            block_of(g, &b, <int64_t*>out, <const int64_t*>x, <const int64_t*>y)
        elif g.type == INT32:
            block_of(g, &b, <int32_t*>out, <const int32_t*>x, <const int32_t*>y)
        elif g.type == INT8:
            block_of(g, &b, <int8_t*>out, <const int8_t*>x, <const int8_t*>y)
        elif g.type == UINT8:
            block_of(g, &b, <uint8_t*>out, <const uint8_t*>x, <const uint8_t*>y)
        else:
            float_rows(g.kind, g, &b, <float*>out, <const float*>x, <const float*>y)


def binary(str kind, str dtype, tuple shape, tuple operand_strides):
    """Return the kernel of ``out = kind(x, y)``; operands (out, x, y).

    Parameters
    ----------
    kind : str
        A key of KINDS. Mod has the sign of y, Remainder that of x.
    dtype : str
        An element type; all operands have it.
    shape : tuple of int
        At most 8 axes.
    operand_strides : tuple of tuple of int
        One an operand, in elements; 1 along the last axis of out.

    Raises
    ------
    ValueError
        If float32 is asked for another kind than Mod and Remainder.
    """
    cdef Geometry g
    g.nest = nest(shape, operand_strides, True)
    g.kind, g.type = KINDS[kind], element(dtype)
    if g.type == FLOAT32 and g.kind != MOD and g.kind != FMOD:
        raise ValueError(f"{kind} of float32, wanted Mod or Remainder")
    return bound(run_binary, &g, sizeof(g))
