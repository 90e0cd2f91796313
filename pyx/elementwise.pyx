"""Elementwise kernels: one or two operands, broadcasting, an activation.

# Design
Every loop here is `rows`: for each row of a block, for each vector of the row, load what
is there, combine, limit, store. It is written once and called with literals for the
kind of operation and for which operands are scalars along the row; the compiler makes a
loop without branches of each call. `loops.pxd` says what rows and blocks are.

The result of two operands is always clamped, to plus and minus infinity when nothing is
asked; this costs two instructions in loops that wait for memory. An activation other
than a clamp is a second pass over the block while it is in the first-level cache.

The output may be any of the operands with the same strides.
"""

from libc.math cimport (
    INFINITY, acosf, acoshf, asinf, asinhf, atanf, atanhf, cosf, coshf, powf, sinf, sinhf,
    tanf,
)
from activation cimport *
from loops cimport BLOCK, Block, Nest, block_at, nest
from simd cimport *
from step cimport bound, share

cdef enum Kind:
    ADD
    SUB
    MUL
    DIV
    MAXIMUM
    MINIMUM
    POW
    PRELU
    MULTIPLY_ADD

KINDS = {
    "Add": ADD,
    "Sub": SUB,
    "Mul": MUL,
    "Div": DIV,
    "Maximum": MAXIMUM,
    "Minimum": MINIMUM,
    "Pow": POW,
    "PRelu": PRELU,
    "MultiplyAdd": MULTIPLY_ADD,
}
"""The operations of `binary` by name."""

cdef enum Library:
    SIN = 100
    COS
    TAN
    ASIN
    ACOS
    ATAN
    SINH
    COSH
    ASINH
    ACOSH
    ATANH

ctypedef float (*Function)(float) noexcept nogil

CODES = {
    "NONE": NONE, "CLAMP": CLAMP, "LEAKY": LEAKY, "ELU": ELU, "SIGMOID": SIGMOID,
    "TANH": TANH, "SILU": SILU, "HARD_SIGMOID": HARD_SIGMOID, "HARD_SWISH": HARD_SWISH,
    "GELU": GELU, "GELU_TANH": GELU_TANH, "SOFTPLUS": SOFTPLUS, "MISH": MISH,
    "EXP": EXP, "LOG": LOG, "SQRT": SQRT, "ABS": ABS, "NEG": NEG, "ERF": ERF,
    "RECIPROCAL": RECIPROCAL, "SELU": SELU, "CELU": CELU, "SOFTSIGN": SOFTSIGN,
    "THRESHOLD": THRESHOLD, "SHRINK": SHRINK, "SWISH": SWISH, "SIGN": SIGN,
    "FLOOR": FLOOR, "CEIL": CEIL, "ROUND": ROUND,
}
"""The activation codes of ``activation.pxd`` by name."""

LIBRARY_CODES = {
    "SIN": SIN, "COS": COS, "TAN": TAN, "ASIN": ASIN, "ACOS": ACOS, "ATAN": ATAN,
    "SINH": SINH, "COSH": COSH, "ASINH": ASINH, "ACOSH": ACOSH, "ATANH": ATANH,
}
"""Codes of functions that only `unary` knows: the C library computes them."""


cdef struct Geometry:
    Nest nest
    int kind
    int code
    float alpha
    float beta
    float low
    float high
    bint residual


cdef inline vec power(vec x, vec y) noexcept nogil:
    """Return x to the power of y, lane by lane, as the C library does."""
    cdef float a[LANES]
    cdef float b[LANES]
    cdef int i
    store(a, x)
    store(b, y)
    for i in range(LANES):
        a[i] = powf(a[i], b[i])
    return load(a)


cdef inline vec combined(const int kind, vec x, vec y, vec z) noexcept nogil:
    """Return the operation `kind` of its operands; NaN wins over numbers."""
    if kind == ADD:
        return x + y
    if kind == SUB:
        return x - y
    if kind == MUL:
        return x * y
    if kind == DIV:
        return x / y
    if kind == MAXIMUM:
        return larger(x, y)
    if kind == MINIMUM:
        return smaller(x, y)
    if kind == POW:
        return power(x, y)
    if kind == PRELU:
        return choose(below(x, splat(0)), x * y, x)
    return x * y + z


cdef inline void vector(
    const int kind, const bint x_dense, const bint y_dense, const bint residual,
    float* out, const float* x, const float* y, const float* z, const float* more,
    vec low, vec high, int n,
) noexcept nogil:
    """Write n elements of ``clamp(kind(x, y, z) + more)``."""
    cdef vec v = splat(0)
    if kind == MULTIPLY_ADD:
        v = load_n(z, n) if y_dense else splat(z[0])
    v = combined(
        kind,
        load_n(x, n) if x_dense else splat(x[0]),
        load_n(y, n) if y_dense else splat(y[0]),
        v,
    )
    if residual:
        v = v + load_n(more, n)
    store_n(out, vmin(high, vmax(low, v)), n)


cdef inline void rows(
    const int kind, const bint x_dense, const bint y_dense, const bint residual,
    const Geometry* g, const Block* b, char** operand,
) noexcept nogil:
    """Write one block; a dense operand has stride 1 along the row, another 0."""
    cdef Py_ssize_t last = g.nest.operands - 1
    cdef Py_ssize_t whole = b.n // LANES
    cdef int tail = <int>(b.n % LANES)
    cdef float* out = <float*>operand[0] + b.offset[0]
    cdef const float* x = <const float*>operand[1] + b.offset[1]
    cdef const float* y = <const float*>operand[2] + b.offset[2]
    cdef const float* z = y
    cdef const float* more = x
    cdef vec low = splat(g.low)
    cdef vec high = splat(g.high)
    cdef Py_ssize_t row, k, i
    if kind == MULTIPLY_ADD:
        z = <const float*>operand[3] + b.offset[3]
    if residual:
        more = <const float*>operand[last] + b.offset[last]
    for row in range(b.rows):
        for k in range(whole):
            i = k * LANES
            vector(
                kind, x_dense, y_dense, residual, out + i, x + i * x_dense,
                y + i * y_dense, z + i * y_dense, more + i, low, high, LANES,
            )
        if tail:
            i = whole * LANES
            vector(
                kind, x_dense, y_dense, residual, out + i, x + i * x_dense,
                y + i * y_dense, z + i * y_dense, more + i, low, high, tail,
            )
        out += b.stride[0]
        x += b.stride[1]
        y += b.stride[2]
        if kind == MULTIPLY_ADD:
            z += b.stride[3]
        if residual:
            more += b.stride[last]


cdef inline void block_of(
    const int kind, const Geometry* g, const Block* b, char** operand
) noexcept nogil:
    """Write one block by the loop made for its strides."""
    cdef Py_ssize_t last = g.nest.rank - 1
    cdef bint x_dense = g.nest.strides[1][last] != 0
    cdef bint y_dense = g.nest.strides[2][last] != 0
    if g.residual:
        if x_dense and y_dense:
            rows(kind, True, True, True, g, b, operand)
        elif x_dense:
            rows(kind, True, False, True, g, b, operand)
        else:
            rows(kind, False, y_dense, True, g, b, operand)
    elif x_dense and y_dense:
        rows(kind, True, True, False, g, b, operand)
    elif x_dense:
        rows(kind, True, False, False, g, b, operand)
    else:
        rows(kind, False, y_dense, False, g, b, operand)


cdef inline void activate_rows(
    const int code, const Geometry* g, const Block* b, float* out, const float* x,
    Py_ssize_t x_stride,
) noexcept nogil:
    """Write one block of ``activate(x)``."""
    cdef Py_ssize_t whole = b.n // LANES
    cdef int tail = <int>(b.n % LANES)
    cdef Py_ssize_t row, k, i
    for row in range(b.rows):
        for k in range(whole):
            i = k * LANES
            store(out + i, activate(code, g.alpha, g.beta, load(x + i)))
        if tail:
            i = whole * LANES
            store_part(
                out + i, activate(code, g.alpha, g.beta, load_part(x + i, tail)), tail
            )
        out += b.stride[0]
        x += x_stride


cdef Function library(int code) noexcept nogil:
    """Return the C library's function of that code."""
    if code == SIN:
        return sinf
    if code == COS:
        return cosf
    if code == TAN:
        return tanf
    if code == ASIN:
        return asinf
    if code == ACOS:
        return acosf
    if code == ATAN:
        return atanf
    if code == SINH:
        return sinhf
    if code == COSH:
        return coshf
    if code == ASINH:
        return asinhf
    if code == ACOSH:
        return acoshf
    return atanhf


cdef void library_rows(
    Function function, const Block* b, float* out, const float* x, Py_ssize_t x_stride
) noexcept nogil:
    """Write one block of a function of the C library."""
    cdef Py_ssize_t row, i
    for row in range(b.rows):
        for i in range(b.n):
            out[i] = function(x[i])
        out += b.stride[0]
        x += x_stride


cdef void activate_block(
    const Geometry* g, const Block* b, float* out, const float* x, Py_ssize_t x_stride
) noexcept nogil:
    """Write one block of ``activate(x)`` by the loop made for its code."""
    if g.code == CLAMP:
        activate_rows(CLAMP, g, b, out, x, x_stride)
    elif g.code == LEAKY:
        activate_rows(LEAKY, g, b, out, x, x_stride)
    elif g.code == ELU:
        activate_rows(ELU, g, b, out, x, x_stride)
    elif g.code == SIGMOID:
        activate_rows(SIGMOID, g, b, out, x, x_stride)
    elif g.code == TANH:
        activate_rows(TANH, g, b, out, x, x_stride)
    elif g.code == SILU:
        activate_rows(SILU, g, b, out, x, x_stride)
    elif g.code == HARD_SIGMOID:
        activate_rows(HARD_SIGMOID, g, b, out, x, x_stride)
    elif g.code == HARD_SWISH:
        activate_rows(HARD_SWISH, g, b, out, x, x_stride)
    elif g.code == GELU:
        activate_rows(GELU, g, b, out, x, x_stride)
    elif g.code == GELU_TANH:
        activate_rows(GELU_TANH, g, b, out, x, x_stride)
    elif g.code == SOFTPLUS:
        activate_rows(SOFTPLUS, g, b, out, x, x_stride)
    elif g.code == MISH:
        activate_rows(MISH, g, b, out, x, x_stride)
    elif g.code == EXP:
        activate_rows(EXP, g, b, out, x, x_stride)
    elif g.code == LOG:
        activate_rows(LOG, g, b, out, x, x_stride)
    elif g.code >= SIN:
        library_rows(library(g.code), b, out, x, x_stride)
    else:
        activate_rows(g.code, g, b, out, x, x_stride)


cdef void run_unary(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t unit = share(g.nest.work, part, parts)
    cdef Py_ssize_t end = share(g.nest.work, part + 1, parts)
    cdef Block b
    while unit < end:
        unit += block_at(&g.nest, unit, end, &b)
        activate_block(
            g, &b, <float*>operand[0] + b.offset[0],
            <const float*>operand[1] + b.offset[1], b.stride[1],
        )


cdef void run_binary(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t unit = share(g.nest.work, part, parts)
    cdef Py_ssize_t end = share(g.nest.work, part + 1, parts)
    cdef float* out
    cdef Block b
    while unit < end:
        unit += block_at(&g.nest, unit, end, &b)
        if g.kind == ADD:
            block_of(ADD, g, &b, operand)
        elif g.kind == SUB:
            block_of(SUB, g, &b, operand)
        elif g.kind == MUL:
            block_of(MUL, g, &b, operand)
        elif g.kind == DIV:
            block_of(DIV, g, &b, operand)
        elif g.kind == MAXIMUM:
            block_of(MAXIMUM, g, &b, operand)
        elif g.kind == MINIMUM:
            block_of(MINIMUM, g, &b, operand)
        elif g.kind == POW:
            block_of(POW, g, &b, operand)
        elif g.kind == PRELU:
            block_of(PRELU, g, &b, operand)
        else:
            block_of(MULTIPLY_ADD, g, &b, operand)
        if g.code != NONE and g.code != CLAMP:
            out = <float*>operand[0] + b.offset[0]
            activate_block(g, &b, out, out, b.stride[0])


def unary(shape, out_strides, x_strides, int code, float alpha, float beta):
    """Return the kernel of ``out = activation(x)``; operands (out, x).

    Parameters
    ----------
    shape : tuple of int
        At most 8 axes.
    out_strides, x_strides : tuple of int
        In elements; 1 along the last axis unless it has one element.
    code, alpha, beta
        The activation, as in ``activation.pxd``, or one of LIBRARY_CODES.
    """
    cdef Geometry g
    g.nest = nest(shape, (out_strides, x_strides))
    g.code, g.alpha, g.beta = code, alpha, beta
    return bound(run_unary, &g, sizeof(g))


def binary(
    str kind, shape, operand_strides, int code, float alpha, float beta, bint residual
):
    """Return the kernel of ``out = activation(kind(x, y) + residual)``.

    Parameters
    ----------
    kind : str
        A key of KINDS; MultiplyAdd is ``x * y + z``, PRelu ``x * y`` where x is negative.
    shape : tuple of int
        At most 8 axes.
    operand_strides : tuple of tuple of int
        One an operand: out, x, y, then z for MultiplyAdd, then the residual if there is
        one. Along the last axis out and residual have stride 1, x and y 1 or 0, z as y.
    code, alpha, beta
        The activation, as in ``activation.pxd``.
    """
    cdef Geometry g
    g.nest = nest(shape, operand_strides)
    g.kind, g.code, g.alpha, g.beta = KINDS[kind], code, alpha, beta
    g.low = alpha if code == CLAMP else -INFINITY
    g.high = beta if code == CLAMP else INFINITY
    g.residual = residual
    return bound(run_binary, &g, sizeof(g))
