"""Which instruction sets this CPU and its OS can run, and how large its caches are."""

cdef extern from *:
    """
    #include <unistd.h>
    #if defined(__x86_64__)
    static int has_avx2(void)   { return __builtin_cpu_supports("x86-64-v3"); }
    static int has_avx512(void) { return __builtin_cpu_supports("x86-64-v4"); }
    #else
    static int has_avx2(void)   { return 0; }
    static int has_avx512(void) { return 0; }
    #endif
    #ifdef _SC_LEVEL2_CACHE_SIZE
    static long level1(void) { return sysconf(_SC_LEVEL1_DCACHE_SIZE); }
    static long level2(void) { return sysconf(_SC_LEVEL2_CACHE_SIZE); }
    #else
    static long level1(void) { return 0; }
    static long level2(void) { return 0; }
    #endif
    """
    bint has_avx2() noexcept
    bint has_avx512() noexcept
    long level1() noexcept
    long level2() noexcept


def supported():
    """Return the names of the runnable instruction sets, best first."""
    found = ["avx512"] if has_avx512() else []
    if has_avx2():
        found.append("avx2")
    return [*found, "base"]


def cache_bytes():
    """Return the sizes of the first- and second-level data caches of one core.

    Where the system does not tell, 32 KiB and 512 KiB stand in.
    """
    one, two = level1(), level2()
    return (one if one > 0 else 32 << 10, two if two > 0 else 512 << 10)
