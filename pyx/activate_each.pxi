# Activation of the vectors that a tile has computed. It is a function of its own, not
# inlined, because an array whose address is passed on cannot stay in registers.
#
# This text is included, not imported, so that each module has it compiled for its own
# instruction set.

from activation cimport (
    GELU, HARD_SIGMOID, HARD_SWISH, LEAKY, SIGMOID, SILU, TANH, activate,
)
from simd cimport LANES, store, vec


cdef inline void activate_all(
    const int code, float alpha, float beta, const vec* x, int rows, int vectors, float* y,
    Py_ssize_t dy,
) noexcept nogil:
    cdef int i, j
    for i in range(rows):
        for j in range(vectors):
            store(y + i * dy + j * LANES, activate(code, alpha, beta, x[i * vectors + j]))


cdef void activate_each(
    int code, float alpha, float beta, const vec* x, int rows, int vectors, float* y,
    Py_ssize_t dy,
) noexcept nogil:
    """Write the function `code` of rows of vectors, which lie `dy` apart in y.

    The functions that networks use most have a loop of their own: without a choice for
    every vector the processor works on several at once.
    """
    if code == SILU: activate_all(SILU, alpha, beta, x, rows, vectors, y, dy)
    elif code == HARD_SWISH: activate_all(HARD_SWISH, alpha, beta, x, rows, vectors, y, dy)
    elif code == SIGMOID: activate_all(SIGMOID, alpha, beta, x, rows, vectors, y, dy)
    elif code == TANH: activate_all(TANH, alpha, beta, x, rows, vectors, y, dy)
    elif code == LEAKY: activate_all(LEAKY, alpha, beta, x, rows, vectors, y, dy)
    elif code == HARD_SIGMOID: activate_all(HARD_SIGMOID, alpha, beta, x, rows, vectors, y, dy)
    elif code == GELU: activate_all(GELU, alpha, beta, x, rows, vectors, y, dy)
    else: activate_all(code, alpha, beta, x, rows, vectors, y, dy)
