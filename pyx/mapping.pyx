"""Map a file into memory without keeping it open.

The standard library's ``mmap`` holds a descriptor for every mapping before Python 3.13;
a service with many models would spend one on each.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.exc cimport PyErr_SetFromErrno

cdef extern from "<sys/mman.h>" nogil:
    enum: PROT_READ
    enum: MAP_PRIVATE
    enum: MADV_DONTNEED
    void* MAP_FAILED
    void* mmap(void* at, size_t size, int access, int flags, int file, long start)
    int munmap(void* at, size_t size)
    int madvise(void* at, size_t size, int advice)


cdef class MappedFile:
    """A file's bytes, read-only, as long as this object or a view of it lives.

    Parameters
    ----------
    descriptor : int
        An open file; it may be closed afterwards.
    size : int
        How many bytes of it, at least one.

    Raises
    ------
    OSError
        If it cannot be mapped.
    """

    cdef void* start
    cdef size_t size

    def __cinit__(self, int descriptor, size_t size):
        self.size = size
        self.start = mmap(NULL, size, PROT_READ, MAP_PRIVATE, descriptor, 0)
        if self.start == MAP_FAILED:
            self.start = NULL
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        if self.start != NULL:
            munmap(self.start, self.size)

    def forget(self):
        """Give the pages back to the system, which reads them again when wanted."""
        madvise(self.start, self.size, MADV_DONTNEED)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.start, self.size, True, flags)
