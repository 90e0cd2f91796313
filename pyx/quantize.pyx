"""Conversion between numbers and small whole numbers, and products of the latter.

# Design
A quantised number q stands for (q - zero point) * scale. Scales and zero points are
tensors that broadcast: one number, or one a channel. Rounding is to the nearest whole
number, ties to even, and what does not fit becomes the end of the range.

Products are sums of (x - x zero point) (w - w zero point) in int32, which is exact. One
kernel serves convolution and matrices, of which a row is an image of one pixel: for each
pixel the outputs of a group are summed side by side, so the compiler makes vectors of
them; a tap outside the image adds nothing. The weights are int32 with their zero points
taken off, (taps, channels, outputs) with the outputs dense.
"""

from libc.stdint cimport int8_t, int32_t, uint8_t
from element cimport INT8, UINT8, element
from loops cimport Block, Nest, block_at, nest
from step cimport bound, share

cdef enum:
    CHUNK = 64


cdef struct Elementwise:
    Nest nest
    int type


cdef struct Product:
    Py_ssize_t channels
    Py_ssize_t outputs
    Py_ssize_t groups
    Py_ssize_t spatial
    Py_ssize_t size[4]          # of the image
    Py_ssize_t out_size[4]
    Py_ssize_t kernel[4]
    Py_ssize_t stride[4]
    Py_ssize_t dilation[4]
    Py_ssize_t before[4]
    Py_ssize_t x_strides[4]
    Py_ssize_t out_strides[4]
    Py_ssize_t batch
    Py_ssize_t batch_x, batch_out, batch_w
    Py_ssize_t x_zero_step
    int type


ctypedef fused small:
    int8_t
    uint8_t
    int32_t


ctypedef fused byte:
    int8_t
    uint8_t


cdef inline byte rounded(float x, byte zero) noexcept nogil:
    """Return the whole number next to x, plus `zero`, or the end of the range.

    Adding 1.5 2^23 rounds, ties to even; NaN counts as nothing.
    """
    cdef int32_t least = -128 if byte is int8_t else 0
    cdef int32_t most = 127 if byte is int8_t else 255
    cdef int32_t q
    cdef bint number = x == x
    x = x if x > -1000 else -1000
    x = x if x < 1000 else 1000
    q = <int32_t>((x + <float>12582912.0) - <float>12582912.0)
    q = (q if number else 0) + zero
    q = q if q > least else least
    return <byte>(q if q < most else most)


cdef inline void quantize_row(
    byte* out, const float* x, const Py_ssize_t x_step, const float* scale,
    const Py_ssize_t s_step, const byte* zero, const Py_ssize_t z_step, Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = rounded(x[i * x_step] / scale[i * s_step], zero[i * z_step])


cdef inline void quantize_rows(
    const Elementwise* g, const Block* b, byte* out, const float* x, const float* scale,
    const byte* zero,
) noexcept nogil:
    cdef Py_ssize_t last = g.nest.rank - 1, k
    cdef Py_ssize_t x_step = g.nest.strides[1][last], s_step = g.nest.strides[2][last]
    cdef Py_ssize_t z_step = g.nest.strides[3][last]
    out += b.offset[0]
    x += b.offset[1]
    scale += b.offset[2]
    zero += b.offset[3]
    for k in range(b.rows):
        if x_step == 1 and s_step == 0 and z_step == 0:
            quantize_row(out, x, 1, scale, 0, zero, 0, b.n)
        elif x_step == 1 and s_step == 1 and z_step == 1:
            quantize_row(out, x, 1, scale, 1, zero, 1, b.n)
        else:
            quantize_row(out, x, x_step, scale, s_step, zero, z_step, b.n)
        out += b.stride[0]
        x += b.stride[1]
        scale += b.stride[2]
        zero += b.stride[3]


cdef inline void dequantize_rows(
    const Elementwise* g, const Block* b, float* out, const small* x, const float* scale,
    const small* zero,
) noexcept nogil:
    cdef Py_ssize_t last = g.nest.rank - 1, k, i
    cdef Py_ssize_t x_step = g.nest.strides[1][last], s_step = g.nest.strides[2][last]
    cdef Py_ssize_t z_step = g.nest.strides[3][last]
    out += b.offset[0]
    x += b.offset[1]
    scale += b.offset[2]
    zero += b.offset[3]
    for k in range(b.rows):
        for i in range(b.n):
            out[i] = (
                <float>(<double>x[i * x_step] - <double>zero[i * z_step])
                * scale[i * s_step]
            )
        out += b.stride[0]
        x += b.stride[1]
        scale += b.stride[2]
        zero += b.stride[3]


cdef void run_quantize(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Elementwise* g = <const Elementwise*>geometry
    cdef Py_ssize_t unit = share(g.nest.work, part, parts)
    cdef Py_ssize_t end = share(g.nest.work, part + 1, parts)
    cdef const float* x = <const float*>operand[1]
    cdef const float* scale = <const float*>operand[2]
    cdef char* out = operand[0]
    cdef char* zero = operand[3]
    cdef Block b
    while unit < end:
        unit += block_at(&g.nest, unit, end, &b)
        if g.type == UINT8:
            quantize_rows(g, &b, <uint8_t*>out, x, scale, <const uint8_t*>zero)
        else:
            quantize_rows(g, &b, <int8_t*>out, x, scale, <const int8_t*>zero)


cdef void run_dequantize(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Elementwise* g = <const Elementwise*>geometry
    cdef Py_ssize_t unit = share(g.nest.work, part, parts)
    cdef Py_ssize_t end = share(g.nest.work, part + 1, parts)
    cdef float* out = <float*>operand[0]
    cdef const float* scale = <const float*>operand[2]
    cdef char* x = operand[1]
    cdef char* zero = operand[3]
    cdef Block b
    while unit < end:
        unit += block_at(&g.nest, unit, end, &b)
        if g.type == UINT8:
            dequantize_rows(g, &b, out, <const uint8_t*>x, scale, <const uint8_t*>zero)
        elif g.type == INT8:
            dequantize_rows(g, &b, out, <const int8_t*>x, scale, <const int8_t*>zero)
        else:
            dequantize_rows(g, &b, out, <const int32_t*>x, scale, <const int32_t*>zero)


cdef void run_range(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    """Choose scale and zero point from the least and the largest number."""
    cdef float least = min(<float>0, (<const float*>operand[2])[0])
    cdef float most = max(<float>0, (<const float*>operand[3])[0])
    cdef float scale = (most - least) / 255
    if part == 0:
        (<float*>operand[0])[0] = scale
        (<uint8_t*>operand[1])[0] = rounded(
            -least / scale if scale > 0 else <float>0, <uint8_t>0
        )


cdef inline bint tap_at(
    const Product* g, Py_ssize_t tap, const Py_ssize_t* position, Py_ssize_t* offset
) noexcept nogil:
    """Find the pixel under a tap of the kernel; return whether there is one."""
    cdef Py_ssize_t axis, at
    offset[0] = 0
    for axis in range(g.spatial - 1, -1, -1):
        at = (
            position[axis] * g.stride[axis] + tap % g.kernel[axis] * g.dilation[axis]
            - g.before[axis]
        )
        tap //= g.kernel[axis]
        if at < 0 or at >= g.size[axis]:
            return False
        offset[0] += at * g.x_strides[axis]
    return True


cdef inline void sum_products(
    const Product* g, int32_t* out, const byte* x, int32_t x_zero, const int32_t* w,
    const int32_t* bias, const Py_ssize_t* position, Py_ssize_t taps,
) noexcept nogil:
    """Write all outputs of one pixel."""
    cdef Py_ssize_t outputs = g.outputs // g.groups
    cdef int32_t total[CHUNK]
    cdef Py_ssize_t group, first, n, tap, c, i, offset
    cdef const int32_t* row
    cdef int32_t v
    for group in range(g.groups):
        first = group * outputs
        while first < (group + 1) * outputs:
            n = min((group + 1) * outputs - first, <Py_ssize_t>CHUNK)
            for i in range(n):
                total[i] = bias[first + i]
            for tap in range(taps):
                if not tap_at(g, tap, position, &offset):
                    continue
                offset += group * g.channels
                for c in range(g.channels):
                    v = <int32_t>x[offset + c] - x_zero
                    row = w + (tap * g.channels + c) * g.outputs + first
                    for i in range(n):
                        total[i] += v * row[i]
            for i in range(n):
                out[first + i] = total[i]
            first += n


cdef void run_product(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Product* g = <const Product*>geometry
    cdef Py_ssize_t position[4]
    cdef Py_ssize_t axis, unit, left, taps = 1, pixels = 1, image
    cdef Py_ssize_t out_offset
    cdef const int32_t* w
    cdef char* zero = operand[3]
    cdef int32_t x_zero
    for axis in range(g.spatial):
        taps *= g.kernel[axis]
        pixels *= g.out_size[axis]
    for unit in range(
        share(g.batch * pixels, part, parts), share(g.batch * pixels, part + 1, parts)
    ):
        image = unit // pixels
        left = unit % pixels
        out_offset = image * g.batch_out
        for axis in range(g.spatial - 1, -1, -1):
            position[axis] = left % g.out_size[axis]
            left //= g.out_size[axis]
            out_offset += position[axis] * g.out_strides[axis]
        left = position[g.spatial - 1] * g.x_zero_step
        w = <const int32_t*>operand[2] + image * g.batch_w
        if g.type == UINT8:
            x_zero = (<const uint8_t*>zero)[left]
            sum_products(
                g, <int32_t*>operand[0] + out_offset,
                <const uint8_t*>operand[1] + image * g.batch_x, x_zero, w,
                <const int32_t*>operand[4], position, taps,
            )
        else:
            x_zero = (<const int8_t*>zero)[left]
            sum_products(
                g, <int32_t*>operand[0] + out_offset,
                <const int8_t*>operand[1] + image * g.batch_x, x_zero, w,
                <const int32_t*>operand[4], position, taps,
            )


def quantize(str dtype, tuple shape, tuple operand_strides):
    """Return the kernel of ``out = round(x / scale) + zero``.

    The operands are (out, x, scale, zero).

    Parameters
    ----------
    dtype : str
        That of out and zero, int8 or uint8.
    shape : tuple of int
        At most 8 axes.
    operand_strides : tuple of tuple of int
        One an operand, in elements; 1 along the last axis of out.
    """
    cdef Elementwise g
    g.nest = nest(shape, operand_strides, True)
    g.type = element(dtype)
    return bound(run_quantize, &g, sizeof(g))


def dequantize(str dtype, tuple shape, tuple operand_strides):
    """Return the kernel of ``out = (x - zero) * scale``.

    The operands are (out, x, scale, zero).

    Parameters
    ----------
    dtype : str
        That of x and zero: int8, uint8 or int32.
    shape, operand_strides
        As for `quantize`.
    """
    cdef Elementwise g
    g.nest = nest(shape, operand_strides, True)
    g.type = element(dtype)
    return bound(run_dequantize, &g, sizeof(g))


def value_range():
    """Return the kernel that fits scale and zero point of uint8 to numbers.

    The operands are (scale, zero, least, most); zero is always among the numbers.
    """
    cdef Elementwise g
    g.type = UINT8
    return bound(run_range, &g, sizeof(g))


def product(
    str dtype, Py_ssize_t batch, tuple batch_strides, tuple size, tuple out_size,
    tuple kernel, tuple stride, tuple dilation, tuple before, tuple x_strides,
    tuple out_strides, Py_ssize_t channels, Py_ssize_t outputs, Py_ssize_t groups,
    Py_ssize_t x_zero_step=0,
):
    """Return the kernel of sums of products; operands (out, x, w, x zero, bias).

    Parameters
    ----------
    dtype : str
        That of x and its zero point, int8 or uint8; the others are int32.
    batch, batch_strides : int and tuple of int
        Images; the strides of out, x and w.
    size, out_size, kernel, stride, dilation, before : tuple of int
        For each of up to 4 spatial axes.
    x_strides, out_strides : tuple of int
        Of the spatial axes; channels are dense.
    channels, outputs, groups : int
        Channels of a group, all outputs, and groups.
    x_zero_step : int
        The stride of the zero points of x along the last spatial axis.
    """
    cdef Product g
    cdef Py_ssize_t axis
    g.type = element(dtype)
    g.batch = batch
    g.batch_out, g.batch_x, g.batch_w = batch_strides
    g.spatial = len(size)
    if not 1 <= g.spatial <= 4:
        raise ValueError(f"{g.spatial} spatial axes, wanted 1 to 4")
    for axis in range(g.spatial):
        g.size[axis], g.out_size[axis] = size[axis], out_size[axis]
        g.kernel[axis], g.stride[axis] = kernel[axis], stride[axis]
        g.dilation[axis], g.before[axis] = dilation[axis], before[axis]
        g.x_strides[axis], g.out_strides[axis] = x_strides[axis], out_strides[axis]
    g.channels, g.outputs, g.groups = channels, outputs, groups
    g.x_zero_step = x_zero_step
    return bound(run_product, &g, sizeof(g))
