"""The checksum of HDF5 metadata."""

from libc.string cimport memcpy

ctypedef unsigned int uint32


cdef inline uint32 rotate(uint32 x, int bits) noexcept nogil:
    return (x << bits) | (x >> (32 - bits))


cdef inline uint32 word(
    const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """Return up to four bytes from `start` as a little-endian number."""
    cdef uint32 value = 0
    cdef Py_ssize_t size = min(4, stop - start)
    if size > 0:
        memcpy(&value, &data[start], size)
    return value


def lookup3(const unsigned char[::1] data not None, uint32 initial=0):
    """Return Bob Jenkins' ``hashlittle`` of `data`.

    Parameters
    ----------
    data : bytes-like
        Any length, any alignment.
    initial : int
        What the state starts from; HDF5 starts from 0.

    Returns
    -------
    int
        32 bits.

    References
    ----------
    B. Jenkins, lookup3.c, 2006; HDF5 File Format Specification, "Checksums".
    """
    cdef Py_ssize_t size = data.shape[0], i = 0
    cdef uint32 a = <uint32>0xDEADBEEF + <uint32>size + initial
    cdef uint32 b = a, c = a
    if size == 0:
        return c
    with nogil:
        while size - i > 12:
            a += word(data, i, size)
            b += word(data, i + 4, size)
            c += word(data, i + 8, size)
            a -= c; a ^= rotate(c, 4); c += b
            b -= a; b ^= rotate(a, 6); a += c
            c -= b; c ^= rotate(b, 8); b += a
            a -= c; a ^= rotate(c, 16); c += b
            b -= a; b ^= rotate(a, 19); a += c
            c -= b; c ^= rotate(b, 4); b += a
            i += 12
        a += word(data, i, size)
        b += word(data, i + 4, size)
        c += word(data, i + 8, size)
        c ^= b; c -= rotate(b, 14)
        a ^= c; a -= rotate(c, 11)
        b ^= a; b -= rotate(a, 25)
        c ^= b; c -= rotate(b, 16)
        a ^= c; a -= rotate(c, 4)
        b ^= a; b -= rotate(a, 14)
        c ^= b; c -= rotate(b, 24)
    return c
