"""Determinants of square matrices.

A matrix is copied to scratch memory as float64 and eliminated row by row, the largest
element of a column as pivot; threads share the matrices.
"""

from libc.math cimport fabs
from loops cimport Nest, locate, merged
from step cimport bound, share


cdef struct Geometry:
    Nest batch
    Py_ssize_t n
    Py_ssize_t row
    Py_ssize_t column


cdef double eliminated(double* a, Py_ssize_t n) noexcept nogil:
    """Return the determinant of an n x n matrix, which is destroyed."""
    cdef double result = 1, factor, swap
    cdef Py_ssize_t i, j, k, pivot
    for k in range(n):
        pivot = k
        for i in range(k + 1, n):
            if fabs(a[i * n + k]) > fabs(a[pivot * n + k]):
                pivot = i
        if a[pivot * n + k] == 0:
            return 0
        if pivot != k:
            result = -result
            for j in range(k, n):
                swap = a[k * n + j]
                a[k * n + j] = a[pivot * n + j]
                a[pivot * n + j] = swap
        result *= a[k * n + k]
        for i in range(k + 1, n):
            factor = a[i * n + k] / a[k * n + k]
            for j in range(k + 1, n):
                a[i * n + j] -= factor * a[k * n + j]
    return result


cdef void run_determinant(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef double* a = <double*>operand[2] + part * g.n * g.n
    cdef Py_ssize_t offset[2]
    cdef Py_ssize_t unit, i, j
    cdef const float* x
    cdef Py_ssize_t end = share(g.batch.work, part + 1, parts)
    for unit in range(share(g.batch.work, part, parts), end):
        locate(&g.batch, unit, g.batch.rank, offset)
        x = <const float*>operand[1] + offset[1]
        for i in range(g.n):
            for j in range(g.n):
                a[i * g.n + j] = x[i * g.row + j * g.column]
        (<float*>operand[0])[offset[0]] = <float>eliminated(a, g.n)


def determinant(
    tuple batch, tuple strides, Py_ssize_t n, Py_ssize_t row, Py_ssize_t column
):
    """Return the kernel of determinants; operands (out, x, scratch).

    The scratch memory has n * n float64 for each thread.

    Parameters
    ----------
    batch, strides : tuple
        Shape and strides (of out, x) of the axes before the matrices.
    n, row, column : int
        The matrices' size, and their strides.
    """
    cdef Geometry g
    g.batch = merged(batch, strides)
    g.n, g.row, g.column = n, row, column
    return bound(run_determinant, &g, sizeof(g))
