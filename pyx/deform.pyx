"""Reading an image between its pixels, where offsets say.

For every output pixel and tap a row of channels is interpolated from the four pixels
around the tap's place; what lies outside the image counts as zero. The rows of a pixel
lie side by side, so that the convolution of what was read is one matrix product. Places
are computed in double precision, a few for each vector of channels.
"""

from libc.math cimport floor
from simd cimport LANES, load_n, splat, store_n, vec
from step cimport bound, share


cdef struct Geometry:
    Py_ssize_t size[3]      # output images, rows and pixels of a row
    Py_ssize_t first        # the first output row's number in its image
    Py_ssize_t inner[2]     # rows and pixels of the input
    Py_ssize_t kernel[2]
    Py_ssize_t stride[2]
    Py_ssize_t dilation[2]
    Py_ssize_t before[2]
    Py_ssize_t channels
    Py_ssize_t groups
    Py_ssize_t x[3]         # distances between images, rows, pixels
    Py_ssize_t offset[3]
    Py_ssize_t mask[3]
    bint masked


cdef inline void interpolate(
    const Geometry* g, const float* x, double row, double column, float scale, float* y,
    Py_ssize_t channels,
) noexcept nogil:
    """Write `scale` times some channels of the image at a place."""
    cdef const float* corner[4]
    cdef float weight[4]
    cdef int corners = 0, i, down, right, n
    cdef Py_ssize_t top, left, c
    cdef double low, beside
    cdef vec total
    if row > -1 and column > -1 and row < g.inner[0] and column < g.inner[1]:
        top = <Py_ssize_t>floor(row)
        left = <Py_ssize_t>floor(column)
        low = row - top
        beside = column - left
        for down in range(2):
            for right in range(2):
                if (0 <= top + down < g.inner[0]) and (0 <= left + right < g.inner[1]):
                    corner[corners] = x + (top + down) * g.x[1] + (left + right) * g.x[2]
                    weight[corners] = scale * <float>(
                        (low if down else 1 - low) * (beside if right else 1 - beside)
                    )
                    corners += 1
    c = 0
    while c < channels:
        n = <int>min(<Py_ssize_t>LANES, channels - c)
        total = splat(0)
        if corners == 4:
            total = (
                splat(weight[0]) * load_n(corner[0] + c, n)
                + splat(weight[1]) * load_n(corner[1] + c, n)
                + splat(weight[2]) * load_n(corner[2] + c, n)
                + splat(weight[3]) * load_n(corner[3] + c, n)
            )
        else:
            for i in range(corners):
                total = total + splat(weight[i]) * load_n(corner[i] + c, n)
        store_n(y + c, total, n)
        c += LANES


cdef void run_sample(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t taps = g.kernel[0] * g.kernel[1]
    cdef Py_ssize_t channels = g.channels // g.groups
    cdef Py_ssize_t positions = g.size[0] * g.size[1] * g.size[2]
    cdef Py_ssize_t unit, image, row, pixel, tap, group, at
    cdef double down, right
    cdef const float* x
    cdef const float* offset
    cdef const float* mask
    cdef float* y
    for unit in range(share(positions, part, parts), share(positions, part + 1, parts)):
        pixel = unit % g.size[2]
        row = unit // g.size[2] % g.size[1]
        image = unit // g.size[2] // g.size[1]
        x = <const float*>operand[1] + image * g.x[0]
        offset = (
            <const float*>operand[2] + image * g.offset[0] + row * g.offset[1]
            + pixel * g.offset[2]
        )
        mask = (
            <const float*>operand[3] + image * g.mask[0] + row * g.mask[1]
            + pixel * g.mask[2]
        )
        y = <float*>operand[0] + unit * taps * g.channels
        for tap in range(taps):
            down = (
                (g.first + row) * g.stride[0] - g.before[0]
                + tap // g.kernel[1] * g.dilation[0]
            )
            right = (
                pixel * g.stride[1] - g.before[1] + tap % g.kernel[1] * g.dilation[1]
            )
            for group in range(g.groups):
                at = group * taps + tap
                interpolate(
                    g, x + group * channels, down + offset[2 * at],
                    right + offset[2 * at + 1], mask[at] if g.masked else 1,
                    y + tap * g.channels + group * channels, channels,
                )


def sample(size, Py_ssize_t first, inner, kernel, stride, dilation, before,
           Py_ssize_t channels, Py_ssize_t groups, x, offset, mask, bint masked):
    """Bind the reading of every tap of some output rows.

    Operands: output of shape (images, rows, pixels, taps, channels), input, offsets,
    mask (any address if there is none).

    Parameters
    ----------
    size : tuple of 3 int
        Output images, rows and pixels of a row.
    first : int
        The number of the first of these rows in its image.
    inner, kernel, stride, dilation, before : tuple of 2 int
        Input size, and the window's, with its padding.
    channels, groups : int
        Channels, and how many groups of them have offsets of their own.
    x, offset, mask : tuple of 3 int
        Distances between images, rows and pixels.
    masked : bool
        Whether what is read is multiplied by the mask.
    """
    cdef Geometry g
    cdef int axis
    for axis in range(3):
        g.size[axis] = size[axis]
        g.x[axis] = x[axis]
        g.offset[axis] = offset[axis]
        g.mask[axis] = mask[axis]
    for axis in range(2):
        g.inner[axis] = inner[axis]
        g.kernel[axis] = kernel[axis]
        g.stride[axis] = stride[axis]
        g.dilation[axis] = dilation[axis]
        g.before[axis] = before[axis]
    g.first = first
    g.channels = channels
    g.groups = groups
    g.masked = masked
    return bound(run_sample, &g, sizeof(g))
