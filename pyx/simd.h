/* One vector type, as wide as the instruction set this file is compiled for.
 *
 * `vec` may lie at any address a float may; arithmetic on it is plain + - * /. */
#pragma once
#include <math.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define REGISTERS 32
#elif defined(__AVX2__)
#define LANES 8
#define REGISTERS 16
#elif defined(__aarch64__)
#define LANES 4
#define REGISTERS 32
#else
#define LANES 4
#define REGISTERS 16
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline vec load(const float *p) { return *(const vec *)p; }
static inline void store(float *p, vec v) { *(vec *)p = v; }
static inline vec splat(float x) { return x - (vec){0}; }

/* Ask for a line of memory to be in the second-level cache soon; any address will do. */
static inline void prefetch(const float *p) { __builtin_prefetch(p, 0, 2); }
static inline void prefetch_write(float *p) { __builtin_prefetch(p, 1, 3); }

/* p, of which the compiler does not know that it was read before. */
static inline const float *afresh(const float *p) {
    __asm__ volatile("" : "+r"(p));
    return p;
}

/* v, which the compiler may not read from memory again for each use. */
static inline vec in_register(vec v) {
#if defined(__x86_64__)
    __asm__ volatile("" : "+v"(v));
#endif
    return v;
}

/* 1, which the compiler does not know. GCC unrolls loops that lie in another loop early
 * enough to give the vectors of an array registers of their own, other loops too late:
 * a function that keeps sums in an array does its work in `for once in range(one())`. */
static inline int one(void) {
    int n = 1;
    __asm__ volatile("" : "+r"(n));
    return n;
}

/* Bitwise choice: a where the mask is all ones, b where it is zero. */
static inline vec choose(ivec mask, vec a, vec b) {
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

/* The larger and the smaller; b where either is NaN, as maxps and minps. */
#if defined(__x86_64__)
#include <immintrin.h>
#if LANES == 16
static inline vec vmax(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
static inline vec vmin(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
static inline vec vsqrt(vec a) { return (vec)_mm512_sqrt_ps((__m512)a); }
#elif LANES == 8
static inline vec vmax(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
static inline vec vmin(vec a, vec b) { return (vec)_mm256_min_ps((__m256)a, (__m256)b); }
static inline vec vsqrt(vec a) { return (vec)_mm256_sqrt_ps((__m256)a); }
#else
static inline vec vmax(vec a, vec b) { return (vec)_mm_max_ps((__m128)a, (__m128)b); }
static inline vec vmin(vec a, vec b) { return (vec)_mm_min_ps((__m128)a, (__m128)b); }
static inline vec vsqrt(vec a) { return (vec)_mm_sqrt_ps((__m128)a); }
#endif
#else
static inline vec vmax(vec a, vec b) { return choose((ivec)(a > b), a, b); }
static inline vec vmin(vec a, vec b) { return choose((ivec)(a < b), a, b); }
static inline vec vsqrt(vec a) {
    for (int i = 0; i < LANES; i++) a[i] = sqrtf(a[i]);
    return a;
}
#endif

/* The first n lanes, 1 <= n <= LANES; the others are zero, or left as they are. */
#if LANES == 16
static inline vec load_part(const float *p, int n) {
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
static inline void store_part(float *p, vec v, int n) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
}
#elif LANES == 8
static inline __m256i part_mask(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vec load_part(const float *p, int n) {
    return (vec)_mm256_maskload_ps(p, part_mask(n));
}
static inline void store_part(float *p, vec v, int n) {
    _mm256_maskstore_ps(p, part_mask(n), (__m256)v);
}
#else
static inline vec load_part(const float *p, int n) {
    vec v = {0};
    for (int i = 0; i < n; i++) v[i] = p[i];
    return v;
}
static inline void store_part(float *p, vec v, int n) {
    for (int i = 0; i < n; i++) p[i] = v[i];
}
#endif

static inline vec load_n(const float *p, int n) {
    return n >= LANES ? load(p) : load_part(p, n);
}
static inline void store_n(float *p, vec v, int n) {
    if (n >= LANES) store(p, v); else store_part(p, v, n);
}

static inline ivec load_index(const int *p) { return *(const ivec *)p; }

/* v[index] in every lane. */
#if LANES == 16
static inline vec permute(vec v, ivec index) {
    return (vec)_mm512_permutexvar_ps((__m512i)index, (__m512)v);
}
#elif LANES == 8
static inline vec permute(vec v, ivec index) {
    return (vec)_mm256_permutevar8x32_ps((__m256)v, (__m256i)index);
}
#else
static inline vec permute(vec v, ivec index) {
    vec picked;
    for (int i = 0; i < LANES; i++) picked[i] = v[index[i]];
    return picked;
}
#endif

/* In every lane the element of a and then b at index. */
static inline vec permute_two(vec a, vec b, ivec index) {
#if LANES == 16
    return (vec)_mm512_permutex2var_ps((__m512)a, (__m512i)index, (__m512)b);
#else
    return choose(index >= LANES, permute(b, index & (LANES - 1)), permute(a, index & (LANES - 1)));
#endif
}

/* p[index] in every lane whose index, below LANES, is one of the first n; else any number. */
static inline vec pick(const float *p, ivec index, int n) {
    return permute(load_part(p, n), index);
}

/* Lane masks, all ones or zero. */
static inline ivec above(vec a, vec b) { return (ivec)(a > b); }
static inline ivec below(vec a, vec b) { return (ivec)(a < b); }
static inline ivec unordered(vec a) { return (ivec)(a != a); }

/* The larger and the smaller of each pair, NaN if either is. */
static inline vec larger(vec a, vec b) { return choose(unordered(a), a, vmax(a, b)); }
static inline vec smaller(vec a, vec b) { return choose(unordered(a), a, vmin(a, b)); }

static inline vec vabs(vec a) { return (vec)((ivec)a & 0x7fffffff); }
#if LANES == 16
static inline vec copysign_of(vec a, vec sign) { /* one instruction; GCC makes three */
    __m512i mask = _mm512_set1_epi32(0x7fffffff);
    return (vec)_mm512_ternarylogic_epi32((__m512i)a, (__m512i)sign, mask, 0xe4);
}
#else
static inline vec copysign_of(vec a, vec sign) {
    return (vec)(((ivec)a & 0x7fffffff) | ((ivec)sign & (int)0x80000000));
}
#endif

/* The nearest whole number of |x| < 2^22, ties to even. */
#if LANES == 16
static inline vec nearest(vec x) { return (vec)_mm512_roundscale_ps((__m512)x, 8); }
#else
static inline vec nearest(vec x) { return (x + 12582912.0f) - 12582912.0f; }
#endif

/* The multiple n of 1 / STEPS next to x, |x| < 2^18, and 2^(n - floor n). Sixteen powers fit
 * a register. In a sum of this size the lowest bits of the mantissa are STEPS (n - floor n),
 * and the permutation looks at no others. */
#if LANES == 16
#define STEPS 16
static const float POWERS[STEPS] = {
    1,           1.04427373f, 1.09050775f, 1.13878858f, 1.18920708f, 1.24185777f,
    1.29683959f, 1.35425556f, 1.41421354f, 1.47682619f, 1.54221082f, 1.61049032f,
    1.68179286f, 1.75625217f, 1.8340081f,  1.91520655f,
};
static inline vec nearest_step(vec x, vec *power) {
    vec sum = x + 12582912.0f / STEPS;
    *power = permute(load(POWERS), (ivec)sum);
    return sum - 12582912.0f / STEPS;
}
#else
#define STEPS 1
static inline vec nearest_step(vec x, vec *power) {
    *power = splat(1);
    return nearest(x);
}
#endif

/* 2^n for the whole number n next to x, -126 <= x <= 127, and n: in a sum of this size the
 * lowest bits of the mantissa are n + 127. */
static inline vec nearest_power(vec x, vec *n) {
    vec sum = x + (12582912.0f + 127);
    *n = sum - (12582912.0f + 127);
    return (vec)((ivec)sum << 23);
}

/* x * 2^n for a whole n in -126 .. 127. */
static inline vec times_two_to(vec x, vec n) {
    ivec i = __builtin_convertvector(n, ivec);
    return x * (vec)((i + 127) << 23);
}

/* x * 2^floor(n) for a multiple n of 1 / STEPS in -252 .. 254. */
#if LANES == 16
static inline vec times_any_two_to(vec x, vec n) {
    return (vec)_mm512_scalef_ps((__m512)x, (__m512)n);
}
#else
static inline vec times_any_two_to(vec x, vec n) {
    vec half = nearest(n * 0.5f);
    return times_two_to(times_two_to(x, half), n - half);
}
#endif

/* x as m * 2^e with m in [sqrt(1/2), sqrt(2)), for positive normal x. */
static inline vec split_exponent(vec x, vec *e) {
    ivec bits = (ivec)x;
    ivec shifted = bits - 0x3f3504f3;
    ivec n = shifted >> 23;
    *e = __builtin_convertvector(n, vec);
    return (vec)(bits - (n << 23));
}

static inline ivec lane_numbers(void) {
#if LANES == 16
    return (ivec){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif LANES == 8
    return (ivec){0, 1, 2, 3, 4, 5, 6, 7};
#else
    return (ivec){0, 1, 2, 3};
#endif
}

/* All ones in the first n lanes. */
static inline ivec first_lanes(int n) { return lane_numbers() < n; }

/* A vector whose lower half is a everywhere, and the upper half b; a vector whose halves
 * have changed places. */
static inline vec halves(vec a, vec b) {
#if LANES == 16
    return (vec)_mm512_mask_blend_ps(0xff00, (__m512)a, (__m512)b);
#else
    return choose(first_lanes(LANES / 2), a, b);
#endif
}
static inline vec swap_halves(vec v) { return permute(v, lane_numbers() ^ (LANES / 2)); }

/* Lanes of a and b in turn, those of the lower halves and those of the upper halves. */
#if defined(__clang__) || __GNUC__ >= 12
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif
#if LANES == 16
static inline vec interleave_low(vec a, vec b) {
    return PICK(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
static inline vec interleave_high(vec a, vec b) {
    return PICK(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#elif LANES == 8
static inline vec interleave_low(vec a, vec b) { return PICK(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
static inline vec interleave_high(vec a, vec b) { return PICK(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
#else
static inline vec interleave_low(vec a, vec b) { return PICK(a, b, 0, 4, 1, 5); }
static inline vec interleave_high(vec a, vec b) { return PICK(a, b, 2, 6, 3, 7); }
#endif

/* The sum of all lanes, and the largest; of a vector with NaN no particular lane. */
static inline float sum_lanes(vec v) {
    for (int n = 1; n < LANES; n *= 2) v = interleave_low(v, v) + interleave_high(v, v);
    return v[0];
}
static inline float max_lanes(vec v) {
    for (int n = 1; n < LANES; n *= 2) v = vmax(interleave_low(v, v), interleave_high(v, v));
    return v[0];
}
