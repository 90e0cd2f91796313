"""Sampling images at places that are values: grids, regions of interest, affine grids.

# Design
A place is computed in float64 from the float32 value that gives it, so that which pixels
it falls between does not depend on rounding; then each axis gives up to four taps, whose
products are summed over vectors of channels as in resampling. Places are never trusted:
NaN and what is far away count as FAR outside, and indices are limited to the image.

A unit of work is one output position.
"""

from libc.math cimport ceil, fabs, floor, rint
from libc.stdint cimport int32_t, int64_t
from loops cimport Nest, locate, merged
from simd cimport *
from step cimport bound, share
from taps cimport MOST_TAPS, Taps, add_taps

cdef enum:
    AXES = 3
    FAR = 1000000000
    MOST_SAMPLES = 4096

cdef enum Mode:
    NEAREST
    LINEAR
    CUBIC

cdef enum Outside:
    ZEROS
    BORDER
    REFLECTION

MODES = {"nearest": NEAREST, "linear": LINEAR, "cubic": CUBIC}
OUTSIDE = {"zeros": ZEROS, "border": BORDER, "reflection": REFLECTION}


cdef struct Grid:
    Nest places
    Py_ssize_t channels
    Py_ssize_t axes
    Py_ssize_t size[AXES]
    Py_ssize_t stride[AXES]
    int mode
    int outside
    bint align_corners


cdef struct AxisTaps:
    int count
    Py_ssize_t offset[4]
    double weight[4]


cdef inline double reflected(double at, double low, double high) noexcept nogil:
    """Return `at` mirrored at both ends until it lies between them."""
    cdef double reach = high - low, beyond, turns
    if low <= at <= high:
        return at
    if reach <= 0:
        return low
    beyond = low - at if at < low else at - high
    turns = floor(beyond / reach)
    beyond -= turns * reach
    if (at < low) == (turns - 2 * floor(turns / 2) == 0):
        return low + beyond
    return high - beyond


cdef inline double cubic(double d) noexcept nogil:
    """Return the weight at a distance, for the slope -3/4 at distance one."""
    d = fabs(d)
    if d <= 1:
        return (1.25 * d - 2.25) * d * d + 1
    if d < 2:
        return ((-0.75 * d + 3.75) * d - 6) * d + 3
    return 0


cdef inline void axis_taps(
    const Grid* g, Py_ssize_t axis, double at, AxisTaps* t
) noexcept nogil:
    """Fill in which positions of an axis are taken at the coordinate -1 .. 1."""
    cdef Py_ssize_t n = g.size[axis]
    cdef double low = 0, high = n - 1, first, index
    cdef int k, taps = 1
    if g.align_corners:
        at = (at + 1) / 2 * (n - 1)
    else:
        at = ((at + 1) * n - 1) / 2
        low -= 0.5
        high += 0.5
    if not at > -FAR:
        at = -FAR
    if at > FAR:
        at = FAR
    if g.mode == NEAREST:
        at = rint(at)
    if at < low or at > high:
        if g.outside == BORDER and g.mode != CUBIC:
            at = min(max(at, 0.0), <double>(n - 1))
        elif g.outside == REFLECTION:
            at = reflected(at, low, high)
    first = floor(at)
    if g.mode == LINEAR:
        taps = 2
    elif g.mode == CUBIC:
        taps = 4
        first -= 1
    t.count = 0
    for k in range(taps):
        index = first + k
        if g.mode == NEAREST:
            t.weight[t.count] = 1
        elif g.mode == LINEAR:
            t.weight[t.count] = 1 - fabs(at - index)
        else:
            t.weight[t.count] = cubic(at - index)
        if g.outside == ZEROS and (index < 0 or index > n - 1):
            continue
        if g.outside == REFLECTION:
            index = reflected(index, low, high)
        t.offset[t.count] = (
            <Py_ssize_t>min(max(index, 0.0), <double>(n - 1)) * g.stride[axis]
        )
        t.count += 1


cdef void run_grid(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Grid* g = <const Grid*>geometry
    cdef Py_ssize_t offset[3]
    cdef Py_ssize_t unit, axis
    cdef const float* at
    cdef AxisTaps along[AXES]
    cdef Taps t
    cdef int i, j, k
    for axis in range(AXES):
        along[axis].count = 1
        along[axis].offset[0] = 0
        along[axis].weight[0] = 1
    for unit in range(
        share(g.places.work, part, parts), share(g.places.work, part + 1, parts)
    ):
        locate(&g.places, unit, g.places.rank, offset)
        at = <const float*>operand[2] + offset[2]
        for axis in range(g.axes):
            axis_taps(
                g, AXES - 1 - axis, at[axis], &along[AXES - 1 - axis]
            )
        t.count = 0
        for i in range(along[0].count):
            for j in range(along[1].count):
                for k in range(along[2].count):
                    t.offset[t.count] = (
                        along[0].offset[i] + along[1].offset[j] + along[2].offset[k]
                    )
                    t.weight[t.count] = <float>(
                        along[0].weight[i] * along[1].weight[j] * along[2].weight[k]
                    )
                    t.count += 1
        add_taps(
            <float*>operand[0] + offset[0], <const float*>operand[1] + offset[1], &t,
            g.channels, False,
        )


def grid_sample(
    tuple shape, tuple out_strides, tuple x_shape, tuple x_strides, tuple grid_strides,
    str mode, str outside, bint align_corners,
):
    """Return the kernel; operands (out, x, grid).

    Parameters
    ----------
    shape, out_strides : tuple of int
        Of the output; strides in elements, 1 along the last axis.
    x_shape, x_strides : tuple of int
        Of the input, (N, one to AXES spatial axes, C).
    grid_strides : tuple of int
        Of the grid, whose last axis has the coordinates, last spatial axis first.
    mode, outside : str
        Keys of MODES and OUTSIDE.
    align_corners : bool
        Whether -1 and 1 are the centres of the outermost pixels, not their outer edges.
    """
    cdef Grid g
    cdef Py_ssize_t axis, slot, last = len(shape) - 1
    g.axes = last - 1
    g.channels = shape[last]
    g.mode, g.outside, g.align_corners = MODES[mode], OUTSIDE[outside], align_corners
    for axis in range(AXES):
        g.size[axis], g.stride[axis] = 1, 0
    for axis in range(g.axes):
        slot = AXES - g.axes + axis
        g.size[slot], g.stride[slot] = x_shape[1 + axis], x_strides[1 + axis]
    g.places = merged(
        shape[:last],
        (out_strides[:last], (x_strides[0],) + (0,) * g.axes, grid_strides[:last]),
    )
    return bound(run_grid, &g, sizeof(g))


cdef struct Affine:
    Nest places
    Py_ssize_t axes
    Py_ssize_t size[AXES]
    Py_ssize_t row
    Py_ssize_t column


cdef void run_affine(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Affine* g = <const Affine*>geometry
    cdef Py_ssize_t offset[2]
    cdef Py_ssize_t unit, left, axis, first, i, k
    cdef float at[AXES]
    cdef float total
    cdef float* out
    cdef const float* theta
    cdef const float* table = <const float*>operand[2]
    for unit in range(
        share(g.places.work, part, parts), share(g.places.work, part + 1, parts)
    ):
        locate(&g.places, unit, g.places.rank, offset)
        out = <float*>operand[0] + offset[0]
        theta = <const float*>operand[1] + offset[1]
        left = unit
        first = 0
        for k in range(g.axes):
            axis = g.axes - 1 - k
            at[k] = table[first + left % g.size[axis]]
            left = left // g.size[axis]
            first += g.size[axis]
        for i in range(g.axes):
            total = theta[i * g.row + g.axes * g.column]
            for k in range(g.axes):
                total += theta[i * g.row + k * g.column] * at[k]
            out[i] = total


def affine_grid(tuple shape, tuple out_strides, tuple theta_strides):
    """Return the kernel; operands (out, theta, table).

    The table has the coordinates of the positions along the last spatial axis, then of
    the one before, and so on.

    Parameters
    ----------
    shape, out_strides : tuple of int
        Of the output, (N, two or three spatial axes, as many coordinates).
    theta_strides : tuple of int
        Of the matrices.
    """
    cdef Affine g
    cdef Py_ssize_t axis, last = len(shape) - 1
    g.axes = last - 1
    g.row, g.column = theta_strides[1], theta_strides[2]
    for axis in range(g.axes):
        g.size[axis] = shape[1 + axis]
    g.places = merged(
        shape[:last], (out_strides[:last], (theta_strides[0],) + (0,) * g.axes)
    )
    return bound(run_affine, &g, sizeof(g))


cdef struct Regions:
    Py_ssize_t regions
    Py_ssize_t rows
    Py_ssize_t columns
    Py_ssize_t channels
    Py_ssize_t images
    Py_ssize_t height
    Py_ssize_t width
    Py_ssize_t out[3]       # distances between regions, rows, pixels
    Py_ssize_t x[3]         # distances between images, rows, pixels
    Py_ssize_t roi          # distance between regions
    Py_ssize_t index        # distance between batch indices
    bint wide_index
    int sampling
    double scale
    bint half_pixel
    bint largest


cdef struct Bin:
    # The samples of one bin along one axis: the first, their distance, how many.
    double first
    double step
    int count


cdef inline Bin bin_of(
    const Regions* g, float start, float end, Py_ssize_t bins, Py_ssize_t at
) noexcept nogil:
    cdef double offset = 0.5 if g.half_pixel else 0.0
    cdef double low = start * g.scale - offset
    cdef double size = (end * g.scale - offset) - low
    cdef double samples
    cdef Bin b
    if not g.half_pixel and not size > 1:
        size = 1
    size = size / bins
    samples = g.sampling if g.sampling > 0 else ceil(size)
    b.count = <int>min(samples, <double>MOST_SAMPLES) if samples > 0 else 0
    b.step = size / b.count if b.count else 0
    b.first = low + at * size + b.step / 2
    return b


cdef inline bint place(
    const Bin* b, int sample, Py_ssize_t n, Py_ssize_t stride, AxisTaps* t
) noexcept nogil:
    """Fill in the two positions around a sample; return whether it is in the image."""
    cdef double at = b.first + sample * b.step
    cdef Py_ssize_t low
    if not (-1 <= at <= n):
        return False
    at = max(at, 0.0)
    low = <Py_ssize_t>at
    if low >= n - 1:
        low = n - 1
        at = low
    t.offset[0] = low * stride
    t.offset[1] = min(low + 1, n - 1) * stride
    t.weight[1] = at - low
    t.weight[0] = 1 - t.weight[1]
    return True


cdef inline void average_bin(
    const Regions* g, const Bin* rows, const Bin* columns, float* out, const float* x
) noexcept nogil:
    """Write the mean of a bin's samples."""
    cdef double share_of_one = 1.0 / max(1.0, <double>rows.count * columns.count)
    cdef AxisTaps y, at
    cdef bint again = False
    cdef int i, j, k, m
    cdef Taps t
    t.count = 0
    for i in range(rows.count):
        if not place(rows, i, g.height, g.x[1], &y):
            continue
        for j in range(columns.count):
            if not place(columns, j, g.width, g.x[2], &at):
                continue
            if t.count + 4 > MOST_TAPS:
                add_taps(out, x, &t, g.channels, again)
                again = True
                t.count = 0
            for k in range(2):
                for m in range(2):
                    t.offset[t.count] = y.offset[k] + at.offset[m]
                    t.weight[t.count] = <float>(
                        y.weight[k] * at.weight[m] * share_of_one
                    )
                    t.count += 1
    add_taps(out, x, &t, g.channels, again)


cdef inline void largest_of_bin(
    const Regions* g, const Bin* rows, const Bin* columns, float* out, const float* x
) noexcept nogil:
    """Write the largest weighted pixel of a bin's samples; one outside counts as zero."""
    cdef AxisTaps y, at
    cdef Py_ssize_t c = 0
    cdef int i, j, k, m, lanes
    cdef bint inside, any_sample
    cdef vec best, v
    while c < g.channels:
        lanes = <int>min(g.channels - c, <Py_ssize_t>LANES)
        best = splat(0)
        any_sample = False
        for i in range(rows.count):
            for j in range(columns.count):
                inside = place(rows, i, g.height, g.x[1], &y)
                inside = inside and place(columns, j, g.width, g.x[2], &at)
                for k in range(2 if inside else 1):
                    for m in range(2 if inside else 1):
                        v = splat(0)
                        if inside:
                            v = load_n(x + y.offset[k] + at.offset[m] + c, lanes)
                            v = v * splat(<float>(y.weight[k] * at.weight[m]))
                        best = vmax(best, v) if any_sample else v
                        any_sample = True
        store_n(out + c, best, lanes)
        c += LANES


cdef void run_regions(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Regions* g = <const Regions*>geometry
    cdef Py_ssize_t work = g.regions * g.rows * g.columns
    cdef Py_ssize_t unit, column, row, region, image
    cdef const float* roi
    cdef const float* x
    cdef float* out
    cdef Bin rows, columns
    for unit in range(share(work, part, parts), share(work, part + 1, parts)):
        column = unit % g.columns
        row = unit // g.columns % g.rows
        region = unit // g.columns // g.rows
        if g.wide_index:
            image = <Py_ssize_t>(<const int64_t*>operand[3])[region * g.index]
        else:
            image = (<const int32_t*>operand[3])[region * g.index]
        image = min(max(image, <Py_ssize_t>0), g.images - 1)
        roi = <const float*>operand[2] + region * g.roi
        rows = bin_of(g, roi[1], roi[3], g.rows, row)
        columns = bin_of(g, roi[0], roi[2], g.columns, column)
        x = <const float*>operand[1] + image * g.x[0]
        out = (
            <float*>operand[0] + region * g.out[0] + row * g.out[1] + column * g.out[2]
        )
        if g.largest:
            largest_of_bin(g, &rows, &columns, out, x)
        else:
            average_bin(g, &rows, &columns, out, x)


def roi_align(
    tuple shape, tuple out_strides, tuple x_shape, tuple x_strides, Py_ssize_t roi,
    Py_ssize_t index, bint wide_index, int sampling, float scale, bint half_pixel,
    bint largest,
):
    """Return the kernel; operands (out, x, rois, batch indices).

    Parameters
    ----------
    shape, out_strides : tuple of int
        Of the output, (regions, rows, columns, C); strides in elements.
    x_shape, x_strides : tuple of int
        Of the images, (N, H, W, C).
    roi, index : int
        The distance between regions and between batch indices.
    wide_index : bool
        Whether batch indices are int64, not int32.
    sampling : int
        Samples of a bin along each axis; zero for one a pixel.
    scale : float
        What the corners of regions are multiplied by.
    half_pixel : bool
        Whether half a pixel is taken off them, and regions may be smaller than one.
    largest : bool
        Whether the result is the largest weighted pixel, not the mean.
    """
    cdef Regions g
    cdef int axis
    g.regions, g.rows, g.columns, g.channels = shape
    g.images, g.height, g.width, _ = x_shape
    for axis in range(3):
        g.out[axis], g.x[axis] = out_strides[axis], x_strides[axis]
    g.roi, g.index, g.wide_index = roi, index, wide_index
    g.sampling, g.scale = sampling, scale
    g.half_pixel, g.largest = half_pixel, largest
    return bound(run_regions, &g, sizeof(g))
