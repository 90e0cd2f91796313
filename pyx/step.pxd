"""The one signature of every kernel.

A kernel writes ``operand[0]`` from the other operands. Its geometry is a struct of
sizes and strides (in elements), known when the network is planned; the operands are
addresses, known when it runs. ``parts`` threads call it at once, each with its own
``part``; together they do the whole work, and every output element is computed by
the same instructions whatever ``parts`` is.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize

ctypedef void (*Kernel)(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil


cdef inline tuple bound(Kernel run, const void* geometry, Py_ssize_t size):
    """Return (address, geometry), the form in which a plan keeps a kernel."""
    return <size_t>run, PyBytes_FromStringAndSize(<const char*>geometry, size)


cdef inline Py_ssize_t share(
    Py_ssize_t work, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    """Return where the share of `part` begins when `work` items are split evenly."""
    return work * part // parts
