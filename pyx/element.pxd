"""Element types: as the kernels number them, and as a function takes several.

Truth values are bytes, 0 or 1.
"""

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef enum Element:
    INT8
    UINT8
    INT32
    INT64
    FLOAT32


ctypedef fused whole:
    int8_t
    uint8_t
    int32_t
    int64_t


ctypedef fused number:
    int8_t
    uint8_t
    int32_t
    int64_t
    float


ctypedef fused item:
    uint8_t
    uint32_t
    uint64_t


cdef inline int element(str dtype) except -1:
    """Return the number of an element type.

    Raises
    ------
    ValueError
        If no kernel has it.
    """
    if dtype == "float32":
        return FLOAT32
    if dtype == "int64":
        return INT64
    if dtype == "int32":
        return INT32
    if dtype == "int8":
        return INT8
    if dtype == "uint8" or dtype == "bool":
        return UINT8
    raise ValueError(f"there are no {dtype} kernels")
