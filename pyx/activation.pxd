"""Elementwise functions on the vector type, and the codes by which kernels know them.

`activate` is the one entry. Called with a literal code it compiles to that function
alone, so a loop made for one code has no branch in it; called with a variable it walks
the chain of comparisons for every vector.

The functions are plain arithmetic. Each reduces its argument to a short interval and
evaluates a polynomial there; the polynomials are minimax fits of the relative error.
NaN passes through all of them. Runs flush denormal numbers, here they count as zero.

Largest error against float64 over all arguments and instruction sets, in units in the
last place of the result, where that is above 2^-119 in magnitude; below, results may be
flushed to zero.

==============  ===  ==============  ===  ==============  ===
exp             1.5  sigmoid         3    gelu            8
expm1 (x <= 0)  1.5  tanh            3    erfc (x >= 0)   8
log             1    silu            3.5  softplus        3.5
erf             2    hard swish      3    mish            5
selu            3.5  celu            3.5  softsign        1.5
==============  ===  ==============  ===  ==============  ===

The tanh form of GELU is x / (1 + exp(-2 u)); a relative error of u is one of the result
2 |u| times as large, which matters only where the result is tiny: 4 + 8 |u| units.
So it is with alpha x in swish: 3.5 + 2 |alpha x| units.
At minus infinity silu, swish, hard swish, gelu and mish give NaN, as their formulas do;
so does softsign at both ends.
"""

from libc.math cimport INFINITY, NAN
from simd cimport *

cdef enum:
    NONE = 0
    CLAMP = 1
    LEAKY = 2
    ELU = 3
    SIGMOID = 4
    TANH = 5
    SILU = 6
    HARD_SIGMOID = 7
    HARD_SWISH = 8
    GELU = 9
    GELU_TANH = 10
    SOFTPLUS = 11
    MISH = 12
    EXP = 13
    LOG = 14
    SQRT = 15
    ABS = 16
    NEG = 17
    ERF = 18
    RECIPROCAL = 19
    SELU = 20
    CELU = 21
    SOFTSIGN = 22
    THRESHOLD = 23
    SHRINK = 24
    SWISH = 25
    SIGN = 26
    FLOOR = 27
    CEIL = 28
    ROUND = 29


cdef inline vec remainder(vec x, vec n) noexcept nogil:
    """Return x - n ln 2 for |x| < 2^21 and n a multiple of 1 / STEPS next to x / ln 2.

    ln 2 is taken in two parts of which the first has trailing zeros, so that n times it
    is exact.
    """
    x = x - n * splat(0.693359375)
    return x - n * splat(-2.12194440e-4)


cdef inline vec quotient(vec r) noexcept nogil:
    """Return (exp(r) - 1) / r for |r| <= ln 2 / 2."""
    cdef vec p = splat(0.00138823799)
    p = p * r + splat(0.00836654579)
    p = p * r + splat(0.0416672027)
    p = p * r + splat(0.166665434)
    p = p * r + splat(0.499999981)
    return p * r + splat(1)


cdef inline vec vexpm1_near(vec r) noexcept nogil:
    """Return exp(r) - 1 to 2^-28 for |r| <= ln 2 / 2 / STEPS."""
    if STEPS == 1:
        return quotient(r) * r
    cdef vec p = splat(0.166670576)
    p = p * r + splat(0.500016212)
    p = p * r + splat(1)
    return p * r


cdef inline vec vexp_sum(vec x, vec rest) noexcept nogil:
    """Return exp(x + rest) as if the sum were exact, for -150 < x < 150, |rest| < 1.

    x + rest = n ln 2 + r, and 2^n = 2^floor(n) times a power from a table.
    """
    cdef vec power
    cdef vec n = nearest_step((x + rest) * splat(1.44269504), &power)
    cdef vec r = remainder(x, n) + rest
    return times_any_two_to(vexpm1_near(r) * power + power, n)


cdef inline vec vexp(vec x) noexcept nogil:
    """Return exp(x); infinity from 88.73, zero where the result is not normal."""
    # Unlike zero, -0.0 changes no number it is added to, and the addition is left out.
    x = vmin(splat(89), vmax(splat(-104), x))
    return vexp_sum(x, splat(-0.0))


cdef inline vec vexp_next(vec x) noexcept nogil:
    """Return 1 + exp(-x); infinity may begin at x = -88.3.

    A multiplication less than with `vexp`, because the power of two is scaled first.
    """
    cdef vec power
    x = vmin(splat(104), vmax(splat(-104), x))
    cdef vec n = nearest_step(x * splat(-1.44269504), &power)
    power = times_any_two_to(power, n)
    return (vexpm1_near(remainder(-x, n)) + splat(1)) * power + splat(1)


cdef inline vec vexpm1(vec x) noexcept nogil:
    """Return exp(x) - 1 without cancellation, for x <= 0."""
    x = vmax(splat(-87), x)
    cdef vec n = nearest(x * splat(1.44269504))
    cdef vec r = remainder(x, n)
    return times_two_to(quotient(r) * r, n) + (times_two_to(splat(1), n) - splat(1))


cdef inline vec vlog(vec x) noexcept nogil:
    """Return ln(x); minus infinity at zero, NaN below it."""
    cdef vec e
    cdef vec f = split_exponent(x, &e) - splat(1)
    cdef vec square = f * f
    cdef vec p = splat(-0.0763610229)
    p = p * f + splat(0.127628183)
    p = p * f + splat(-0.131601255)
    p = p * f + splat(0.142015531)
    p = p * f + splat(-0.166233416)
    p = p * f + splat(0.200012371)
    p = p * f + splat(-0.250008218)
    p = p * f + splat(0.333333316)
    p = p * (square * f) + e * splat(-2.12194440e-4)
    p = p - splat(0.5) * square
    p = (f + p) + e * splat(0.693359375)
    p = choose(below(x, splat(INFINITY)), p, x)
    p = choose(above(x, splat(0)), p, splat(-INFINITY))
    return choose(below(x, splat(0)) | unordered(x), splat(NAN), p)


cdef inline vec vlog1p(vec u) noexcept nogil:
    """Return ln(1 + u) = 2 atanh(u / (2 + u)) for 0 <= u <= 1."""
    cdef vec s = u / (splat(2) + u)
    cdef vec square = s * s
    cdef vec p = splat(0.280309427)
    p = p * square + splat(0.279979655)
    p = p * square + splat(0.400217609)
    p = p * square + splat(0.666664123)
    return p * (square * s) + (s + s)


cdef inline vec vsigmoid(vec x) noexcept nogil:
    """Return 1 / (1 + exp(-x))."""
    return splat(1) / vexp_next(x)


cdef inline vec vtanh(vec x) noexcept nogil:
    """Return tanh(x) = (1 - e) / (1 + e) with e = exp(-2 |x|).

    -|x| = n ln(2)/2 + r and e - 1 = 2^n (exp(2 r) - 1) + (2^n - 1). Where n is not zero
    an error of r counts e times, so ln 2 needs no second part. From 43 on e is nothing.
    """
    cdef vec n
    cdef vec h = vmax(splat(-43), copysign_of(x, splat(-1)))
    cdef vec power = nearest_power(h * splat(2.88539008), &n)
    cdef vec r = h - n * splat(0.346573590)
    cdef vec p = splat(0.0888472314)
    p = p * r + splat(0.267729465)
    p = p * r + splat(0.666675243)
    p = p * r + splat(1.33332347)
    p = p * r + splat(1.99999992)
    p = p * (r * r) + (r + r)
    p = p * power + (power - splat(1))
    return copysign_of(p / (p + splat(2)), x)


cdef inline vec vsoftplus(vec x) noexcept nogil:
    """Return ln(1 + exp(x)) = max(x, 0) + ln(1 + exp(-|x|))."""
    return vmax(splat(0), x) + vlog1p(vexp(-vabs(x)))


cdef inline vec vmish(vec x) noexcept nogil:
    """Return x tanh(softplus(x)) = x n / (n + 2) with e = exp(x), n = e (e + 2)."""
    cdef vec e = vexp(vmin(splat(20), x))
    cdef vec n = e * (e + splat(2))
    return x * (n / (n + splat(2)))


cdef inline vec verfc(float scale, float root, vec x) noexcept nogil:
    """Return 1 - erf(root x) for x >= 0 and scale = root^2 one of 1 and 1/2.

    It is exp(-z^2) t P(t) with z = root x and t = 1 / (1 + 0.45 z). The exponential
    would magnify the rounding of z^2; so z^2 = scale (h^2 + (x - h)(x + h)), where h has
    so few bits that its square is exact.

    References
    ----------
    The form is that of Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
    """
    x = vmin(splat(10.25) / splat(root), x)
    cdef vec h = nearest(x * splat(128)) * splat(0.0078125)
    cdef vec t = splat(1) / (splat(1) + splat(0.45) * splat(root) * x)
    cdef vec p = splat(-0.0341928945)
    p = p * t + splat(0.152379488)
    p = p * t + splat(-0.212955662)
    p = p * t + splat(0.0297200858)
    p = p * t + splat(0.0670731003)
    p = p * t + splat(0.0747025904)
    p = p * t + splat(0.189786856)
    p = p * t + splat(0.22542407)
    p = p * t + splat(0.254191004)
    p = p * t + splat(0.253871348)
    cdef vec near = splat(-scale) * (h * h)
    return (p * t) * vexp_sum(near, splat(scale) * ((h - x) * (h + x)))


cdef inline vec verf(vec x) noexcept nogil:
    """Return erf(x): an odd polynomial up to 1, 1 - erfc beyond."""
    cdef vec a = vabs(x)
    cdef vec square = vmin(splat(1), a * a)
    cdef vec p = splat(7.85541086e-5)
    p = p * square + splat(-0.000801074937)
    p = p * square + splat(0.00518840856)
    p = p * square + splat(-0.0268538657)
    p = p * square + splat(0.112835870)
    p = p * square + splat(-0.376126261)
    p = p * square + splat(0.128379166)
    p = choose(below(a, splat(1)), p * a + a, splat(1) - verfc(1, 1, a))
    return copysign_of(p, x)


cdef inline vec vgelu(vec x) noexcept nogil:
    """Return x Phi(x), where Phi(x) = erfc(-x / sqrt 2) / 2 is the normal distribution."""
    cdef vec tail = splat(0.5) * verfc(0.5, 0.707106781, vabs(x))
    return x * choose(above(x, splat(0)), splat(1) - tail, tail)


cdef inline vec vgelu_tanh(vec x) noexcept nogil:
    """Return x (1 + tanh u) / 2 = x / (1 + exp(-2 u)), u = sqrt(2/pi) (x + 0.044715 x^3).
    """
    cdef vec u = x * (splat(1) + splat(0.044715) * (x * x))
    return x / vexp_next(splat(1.59576912) * u)


cdef inline vec vround(vec x) noexcept nogil:
    """Return the nearest whole number, ties to even."""
    cdef vec a = vabs(x)
    cdef vec r = (a + splat(8388608)) - splat(8388608)
    return choose(below(a, splat(8388608)), copysign_of(r, x), x)


cdef inline vec vfloor(vec x) noexcept nogil:
    """Return the largest whole number that is not above x."""
    cdef vec r = vround(x)
    return choose(above(r, x), r - splat(1), r)


cdef inline vec vceil(vec x) noexcept nogil:
    """Return the smallest whole number that is not below x."""
    cdef vec r = vround(x)
    return choose(below(r, x), r + splat(1), r)


cdef inline vec vshrink(vec lambd, vec bias, vec x) noexcept nogil:
    """Return x moved towards zero by bias, zero between -lambd and lambd."""
    cdef vec r = choose(above(x, lambd), x - bias, splat(0))
    r = choose(below(x, -lambd), x + bias, r)
    return choose(unordered(x), x, r)


cdef inline vec activate(
    const int code, float alpha, float beta, vec x
) noexcept nogil:
    """Return the function `code` of x.

    CLAMP limits x to alpha .. beta; LEAKY and ELU scale the negative part by alpha;
    HARD_SIGMOID is CLAMP(alpha x + beta) to 0 .. 1; SELU is beta ELU, CELU has a slope
    of 1 at zero; THRESHOLD drops what is not above alpha; SHRINK has the threshold alpha
    and the bias beta; SWISH is x SIGMOID(alpha x); the others have no parameters.
    """
    if code == NONE:
        return x
    if code == CLAMP:
        return vmin(splat(beta), vmax(splat(alpha), x))
    if code == LEAKY:
        return choose(below(x, splat(0)), splat(alpha) * x, x)
    if code == HARD_SIGMOID:
        x = splat(alpha) * x + splat(beta)
        return vmin(splat(1), vmax(splat(0), x))
    if code == HARD_SWISH:
        return x * (vmin(splat(6), vmax(splat(0), x + splat(3))) * splat(0.166666667))
    if code == SILU:
        return x / vexp_next(x)
    if code == SIGMOID:
        return vsigmoid(x)
    if code == ELU:
        return choose(below(x, splat(0)), splat(alpha) * vexpm1(x), x)
    if code == TANH:
        return vtanh(x)
    if code == GELU:
        return vgelu(x)
    if code == GELU_TANH:
        return vgelu_tanh(x)
    if code == SOFTPLUS:
        return vsoftplus(x)
    if code == MISH:
        return vmish(x)
    if code == EXP:
        return vexp(x)
    if code == LOG:
        return vlog(x)
    if code == SQRT:
        return vsqrt(x)
    if code == ABS:
        return vabs(x)
    if code == NEG:
        return -x
    if code == ERF:
        return verf(x)
    if code == SELU:
        return splat(beta) * choose(above(x, splat(0)), x, splat(alpha) * vexpm1(x))
    if code == CELU:
        return choose(
            below(x, splat(0)), splat(alpha) * vexpm1(x / splat(alpha)), x
        )
    if code == SOFTSIGN:
        return x / (splat(1) + vabs(x))
    if code == THRESHOLD:
        return choose(above(x, splat(alpha)) | unordered(x), x, splat(0))
    if code == SHRINK:
        return vshrink(splat(alpha), splat(beta), x)
    if code == SWISH:
        return x / (splat(1) + vexp(splat(-alpha) * x))
    if code == SIGN:
        return choose(
            above(x, splat(0)), splat(1), choose(below(x, splat(0)), splat(-1), x)
        )
    if code == FLOOR:
        return vfloor(x)
    if code == CEIL:
        return vceil(x)
    if code == ROUND:
        return vround(x)
    return splat(1) / x
