"""Run a chain of layers strip by strip, so that what is between them stays in the cache.

A chain's result is cut into strips of rows. For each strip the layers run one after the
other on just the rows that the strip needs, into scratch memory of the thread that
works on it. A layer with a kernel of several rows needs some that the strip above
needed too; they are still in the scratch if the same thread did that strip. So every
strip has two lists of calls: one that computes all the rows it needs, and one that
follows on from the strip before.

The inner calls are ordinary kernels, each run by one thread. The strips are what is
shared among threads, and since rows are the same whoever computes them, so is the
result.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memset
from step cimport Kernel, bound, share

cdef enum:
    MOST_OPERANDS = 16


cdef struct Call:
    Kernel run
    Py_ssize_t geometry     # where in the block
    Py_ssize_t first        # operand
    Py_ssize_t operands
    unsigned int private    # bit i: operand i lies in the thread's scratch


cdef struct Strip:
    Py_ssize_t first[2]     # call: from scratch, following on
    Py_ssize_t calls[2]


cdef struct Header:
    Py_ssize_t strips
    Py_ssize_t scratch      # bytes a thread
    Py_ssize_t table        # where the calls begin


cdef void run_strips(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const char* block = <const char*>geometry
    cdef const Header* header = <const Header*>geometry
    cdef const Strip* strips = <const Strip*>(block + sizeof(Header))
    cdef const Call* calls = <const Call*>(block + header.table)
    cdef const Call* call
    cdef char* local[MOST_OPERANDS]
    cdef Py_ssize_t first = share(header.strips, part, parts)
    cdef Py_ssize_t s, c, i
    cdef int way
    for s in range(first, share(header.strips, part + 1, parts)):
        way = 1 if s > first and strips[s].calls[1] > 0 else 0
        for c in range(strips[s].calls[way]):
            call = &calls[strips[s].first[way] + c]
            for i in range(call.operands):
                local[i] = operand[call.first + i]
                if call.private >> i & 1:
                    local[i] += part * header.scratch
            call.run(local, block + call.geometry, 0, 1)


def strips(list ways, Py_ssize_t scratch_bytes):
    """Bind a chain.

    Operands: those of all calls, one after the other.

    Parameters
    ----------
    ways : list of (list, list)
        For each strip the calls that compute it alone and those that follow on from
        the strip before (empty if they cannot). A call is (address, geometry, which),
        where ``which`` has a truth value an operand: whether it lies in the scratch.
    scratch_bytes : int
        From one thread's scratch to the next.
    """
    cdef Header header
    cdef Strip strip
    cdef Call call
    cdef list table = []
    cdef list blocks = []
    cdef Py_ssize_t count = sum(len(way) for pair in ways for way in pair)
    cdef Py_ssize_t operand = 0, at, way, i
    cdef size_t address
    header.strips = len(ways)
    header.scratch = scratch_bytes
    header.table = sizeof(Header) + len(ways) * sizeof(Strip)
    at = header.table + count * sizeof(Call)
    cdef list parts = [PyBytes_FromStringAndSize(<const char*>&header, sizeof(Header))]
    for pair in ways:
        for way in range(2):
            strip.first[way] = len(table)
            strip.calls[way] = len(pair[way])
            for address, geometry, which in pair[way]:
                if len(which) > MOST_OPERANDS:
                    raise ValueError(f"{len(which)} operands, at most {MOST_OPERANDS}")
                memset(&call, 0, sizeof(Call))
                at = (at + 15) // 16 * 16
                call.run = <Kernel>address
                call.geometry = at
                call.first = operand
                call.operands = len(which)
                for i in range(len(which)):
                    if which[i]:
                        call.private |= 1 << i
                table.append(
                    PyBytes_FromStringAndSize(<const char*>&call, sizeof(Call))
                )
                blocks.append((at, geometry))
                at += len(geometry)
                operand += len(which)
        parts.append(PyBytes_FromStringAndSize(<const char*>&strip, sizeof(Strip)))
    whole = bytearray(b"".join(parts + table))
    for start, geometry in blocks:
        whole.extend(bytes(start - len(whole)))
        whole.extend(geometry)
    block = bytes(whole)
    return bound(run_strips, PyBytes_AS_STRING(block), len(block))
