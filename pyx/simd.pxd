"""The vector type of ``simd.h``: Cython sees a float, C sees LANES of them."""

cdef extern from "simd.h" nogil:
    ctypedef float vec
    ctypedef int ivec
    enum: LANES
    enum: REGISTERS
    enum: STEPS
    void prefetch(const float* p) noexcept
    void prefetch_write(float* p) noexcept
    const float* afresh(const float* p) noexcept
    int one() noexcept
    vec load(const float* p) noexcept
    void store(float* p, vec v) noexcept
    vec load_part(const float* p, int n) noexcept
    void store_part(float* p, vec v, int n) noexcept
    vec load_n(const float* p, int n) noexcept
    void store_n(float* p, vec v, int n) noexcept
    ivec load_index(const int* p) noexcept
    vec permute(vec v, ivec index) noexcept
    vec permute_two(vec a, vec b, ivec index) noexcept
    vec pick(const float* p, ivec index, int n) noexcept
    vec splat(float x) noexcept
    vec choose(ivec mask, vec a, vec b) noexcept
    vec vmax(vec a, vec b) noexcept
    vec vmin(vec a, vec b) noexcept
    vec vsqrt(vec a) noexcept
    vec vabs(vec a) noexcept
    vec copysign_of(vec a, vec sign) noexcept
    ivec above(vec a, vec b) noexcept
    ivec below(vec a, vec b) noexcept
    ivec unordered(vec a) noexcept
    vec larger(vec a, vec b) noexcept
    vec smaller(vec a, vec b) noexcept
    vec nearest(vec x) noexcept
    vec nearest_step(vec x, vec* power) noexcept
    vec nearest_power(vec x, vec* n) noexcept
    vec times_two_to(vec x, vec n) noexcept
    vec times_any_two_to(vec x, vec n) noexcept
    vec split_exponent(vec x, vec* e) noexcept
    ivec first_lanes(int n) noexcept
    vec halves(vec a, vec b) noexcept
    vec in_register(vec v) noexcept
    vec swap_halves(vec v) noexcept
    vec interleave_low(vec a, vec b) noexcept
    vec interleave_high(vec a, vec b) noexcept
    float sum_lanes(vec v) noexcept
    float max_lanes(vec v) noexcept
