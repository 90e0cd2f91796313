# Activation of the vectors that a tile has computed. It is a function of its own, not
# inlined, because an array whose address is passed on cannot stay in registers.
#
# This text is included, not imported, so that each module has it compiled for its own
# instruction set.

from activation cimport (
    GELU, HARD_SIGMOID, HARD_SWISH, LEAKY, SIGMOID, SILU, TANH, activate,
)
from simd cimport vec


cdef void activate_each(
    int code, float alpha, float beta, vec* x, int count
) noexcept nogil:
    """Replace `count` vectors by the function `code` of them.

    The functions that networks use most have a loop of their own: without a choice for
    every vector the processor works on several at once.
    """
    cdef int i
    if code == SILU:
        for i in range(count):
            x[i] = activate(SILU, alpha, beta, x[i])
    elif code == HARD_SWISH:
        for i in range(count):
            x[i] = activate(HARD_SWISH, alpha, beta, x[i])
    elif code == SIGMOID:
        for i in range(count):
            x[i] = activate(SIGMOID, alpha, beta, x[i])
    elif code == TANH:
        for i in range(count):
            x[i] = activate(TANH, alpha, beta, x[i])
    elif code == LEAKY:
        for i in range(count):
            x[i] = activate(LEAKY, alpha, beta, x[i])
    elif code == HARD_SIGMOID:
        for i in range(count):
            x[i] = activate(HARD_SIGMOID, alpha, beta, x[i])
    elif code == GELU:
        for i in range(count):
            x[i] = activate(GELU, alpha, beta, x[i])
    else:
        for i in range(count):
            x[i] = activate(code, alpha, beta, x[i])
