"""Kernels that move elements: copies between any strides, constants, borders.

# Design
A copy is one of three loops, chosen when the geometry is made. Where both tensors are
dense along the last axis it moves rows. Where the input is dense along another axis (a
transposition, such as between channels first and last) it reads squares of LANES rows,
turns them round in registers and writes LANES rows, so that memory sees whole cache
lines on both sides; a riffle, where the output's rows are short and lie side by side,
is a narrow square. Anything else is moved one element at a time, the longer of the two
innermost axes inside.

No arithmetic is done, so the bits of an element do not matter, only how many there are.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from loops cimport MOST_AXES, Block, Nest, block_at, locate, merged, nest
from simd cimport *
from step cimport bound, share

cdef enum:
    STRIP = 16
    SHORT = 1 << 17             # floats; up to here memcpy is slower where ends are aligned differently


cdef struct Copy:
    Nest nest
    Py_ssize_t itemsize


cdef struct Turn:
    Nest outer
    Py_ssize_t m, n
    Py_ssize_t out_stride
    Py_ssize_t x_stride
    Py_ssize_t strips
    Py_ssize_t work


cdef struct Fill:
    Nest nest
    float value


cdef struct Border:
    float value
    Py_ssize_t count
    Py_ssize_t start[2 * MOST_AXES]
    Nest box[2 * MOST_AXES]


cdef void run_rows(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    """Copy rows that are dense on both sides; short ones of 4-byte items by vectors."""
    cdef const Copy* g = <const Copy*>geometry
    cdef Py_ssize_t unit = share(g.nest.work, part, parts)
    cdef Py_ssize_t end = share(g.nest.work, part + 1, parts)
    cdef Py_ssize_t row, k, size = g.itemsize
    cdef char* out
    cdef const char* x
    cdef Block b
    while unit < end:
        unit += block_at(&g.nest, unit, end, &b)
        out = operand[0] + b.offset[0] * size
        x = operand[1] + b.offset[1] * size
        for row in range(b.rows):
            if size == sizeof(float) and b.n < SHORT:
                for k in range(b.n // LANES):
                    store(<float*>out + k * LANES, load(<const float*>x + k * LANES))
                if b.n % LANES:
                    k = b.n - b.n % LANES
                    store_part(
                        <float*>out + k,
                        load_part(<const float*>x + k, <int>(b.n % LANES)),
                        <int>(b.n % LANES),
                    )
            else:
                memcpy(out, x, b.n * size)
            out += b.stride[0] * size
            x += b.stride[1] * size


ctypedef fused item:
    uint8_t
    uint16_t
    uint32_t
    uint64_t


cdef inline void move(
    item* out, const item* x, Py_ssize_t outer, Py_ssize_t out_outer, Py_ssize_t x_outer,
    Py_ssize_t inner, Py_ssize_t out_inner, Py_ssize_t x_inner,
) noexcept nogil:
    """Copy outer x inner elements one at a time."""
    cdef Py_ssize_t i, j
    for j in range(outer):
        for i in range(inner):
            out[i * out_inner] = x[i * x_inner]
        out += out_outer
        x += x_outer


cdef inline void move_block(
    item* out, const item* x, const Nest* g, const Block* b
) noexcept nogil:
    """Copy one block with its longer axis inside."""
    cdef Py_ssize_t step = g.strides[1][g.rank - 1]
    out += b.offset[0]
    x += b.offset[1]
    if b.rows > b.n:
        move(out, x, b.n, 1, step, b.rows, b.stride[0], b.stride[1])
    else:
        move(out, x, b.rows, b.stride[0], b.stride[1], b.n, 1, step)


cdef void run_strided(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    """Copy element by element."""
    cdef const Copy* g = <const Copy*>geometry
    cdef Py_ssize_t unit = share(g.nest.work, part, parts)
    cdef Py_ssize_t end = share(g.nest.work, part + 1, parts)
    cdef Block b
    while unit < end:
        unit += block_at(&g.nest, unit, end, &b)
        if g.itemsize == 1:
            move_block(<uint8_t*>operand[0], <const uint8_t*>operand[1], &g.nest, &b)
        elif g.itemsize == 2:
            move_block(<uint16_t*>operand[0], <const uint16_t*>operand[1], &g.nest, &b)
        elif g.itemsize == 4:
            move_block(<uint32_t*>operand[0], <const uint32_t*>operand[1], &g.nest, &b)
        else:
            move_block(<uint64_t*>operand[0], <const uint64_t*>operand[1], &g.nest, &b)


cdef inline void exchange(vec* a, const int rows) noexcept nogil:
    """Exchange rows and columns of `rows` vectors, a power of two up to LANES.

    Interleaving rows i and i + rows / 2, for all i, moves the highest bit of every
    element's row number to the lowest of its column number; after log2(rows) rounds
    the elements of a column lie side by side.
    """
    cdef vec b[LANES]
    cdef int i, done = 1
    while done < rows:
        for i in range(rows // 2):
            b[2 * i] = interleave_low(a[i], a[i + rows // 2])
            b[2 * i + 1] = interleave_high(a[i], a[i + rows // 2])
        for i in range(rows):
            a[i] = b[i]
        done *= 2


cdef inline void square(
    float* out, Py_ssize_t out_stride, const float* x, Py_ssize_t x_stride, int m, int n
) noexcept nogil:
    """Copy n rows of m elements of x to m rows of n elements of out."""
    cdef vec a[LANES]
    cdef int i
    for i in range(LANES):
        a[i] = load_n(x + i * x_stride, m) if i < n else splat(0)
    exchange(a, LANES)
    for i in range(LANES):
        if i < m:
            store_n(out + i * out_stride, a[i], n)


cdef inline void riffle(
    float* out, const float* x, Py_ssize_t x_stride, Py_ssize_t m, Py_ssize_t n,
    const int rows,
) noexcept nogil:
    """Copy n rows of m elements of x to m rows of n elements that lie in a row.

    They are exchanged as if they were `rows`, the next power of two. The lanes of those
    that are missing are closed up, and what a vector then writes too much is written
    again by the next one.
    """
    cdef vec a[LANES]
    cdef int index[LANES]
    cdef ivec closed
    cdef Py_ssize_t k, i
    cdef int whole = <int>(LANES // rows * n)
    for i in range(LANES):
        index[i] = <int>(i // n * rows + i % n) if i < whole else 0
    closed = load_index(index)
    for k in range(m // LANES):
        for i in range(rows):
            a[i] = load(x + i * x_stride + k * LANES) if i < n else splat(0)
        exchange(a, rows)
        if n < rows:
            for i in range(rows):
                a[i] = permute(a[i], closed)
        for i in range(rows - 1):
            store(out + i * whole, a[i])
        store_n(out + (rows - 1) * whole, a[rows - 1], whole)
        out += LANES * n
    for k in range(m - m % LANES, m):
        for i in range(n):
            out[i] = x[i * x_stride + k]
        out += n


cdef void run_riffled(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    """Copy where the output's rows of two to eight lie side by side."""
    cdef const Turn* g = <const Turn*>geometry
    cdef Py_ssize_t offset[2]
    cdef Py_ssize_t unit
    cdef float* out
    cdef const float* x
    for unit in range(share(g.work, part, parts), share(g.work, part + 1, parts)):
        locate(&g.outer, unit, g.outer.rank, offset)
        out = <float*>operand[0] + offset[0]
        x = <const float*>operand[1] + offset[1]
        if g.n == 2:
            riffle(out, x, g.x_stride, g.m, 2, 2)
        elif g.n <= 4:
            riffle(out, x, g.x_stride, g.m, g.n, 4)
        else:
            riffle(out, x, g.x_stride, g.m, g.n, <int>min(8, <int>LANES))


cdef void run_turned(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    """Copy by squares: the input is dense along m, the output along n.

    A unit is up to STRIP squares side by side along n.
    """
    cdef const Turn* g = <const Turn*>geometry
    cdef Py_ssize_t unit = share(g.work, part, parts)
    cdef Py_ssize_t end = share(g.work, part + 1, parts)
    cdef Py_ssize_t columns = (g.m + LANES - 1) // LANES
    cdef Py_ssize_t offset[2]
    cdef Py_ssize_t left, i, j, i_end
    cdef int height, width
    cdef float* out
    cdef const float* x
    while unit < end:
        i = unit % g.strips * STRIP * LANES
        left = unit // g.strips
        j = left % columns * LANES
        locate(&g.outer, left // columns, g.outer.rank, offset)
        out = <float*>operand[0] + offset[0] + j * g.out_stride
        x = <const float*>operand[1] + offset[1] + j
        width = <int>min(g.m - j, <Py_ssize_t>LANES)
        i_end = min(g.n, i + STRIP * LANES)
        while i < i_end:
            height = <int>min(i_end - i, <Py_ssize_t>LANES)
            if width == LANES and height == LANES:
                square(out + i, g.out_stride, x + i * g.x_stride, g.x_stride, LANES, LANES)
            else:
                square(out + i, g.out_stride, x + i * g.x_stride, g.x_stride, width, height)
            i += LANES
        unit += 1


cdef void fill_nest(
    float* out, const Nest* g, float value, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef Py_ssize_t unit = share(g.work, part, parts)
    cdef Py_ssize_t end = share(g.work, part + 1, parts)
    cdef Py_ssize_t row, k
    cdef float* p
    cdef Block b
    while unit < end:
        unit += block_at(g, unit, end, &b)
        p = out + b.offset[0]
        for row in range(b.rows):
            for k in range(b.n // LANES):
                store(p + k * LANES, splat(value))
            if b.n % LANES:
                k = b.n - b.n % LANES
                store_part(p + k, splat(value), <int>(b.n % LANES))
            p += b.stride[0]


cdef void run_fill(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Fill* g = <const Fill*>geometry
    fill_nest(<float*>operand[0], &g.nest, g.value, part, parts)


cdef void run_border(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Border* g = <const Border*>geometry
    cdef Py_ssize_t i
    for i in range(g.count):
        fill_nest(<float*>operand[0] + g.start[i], &g.box[i], g.value, part, parts)


def copy(tuple shape, tuple out_strides, tuple x_strides, Py_ssize_t itemsize):
    """Return the kernel of ``out = x``; operands (out, x), which must not overlap.

    Parameters
    ----------
    shape : tuple of int
        At most 8 axes.
    out_strides, x_strides : tuple of int
        In elements, of any sign; zero repeats an element of x.
    itemsize : int
        1, 2, 4 or 8.

    Raises
    ------
    ValueError
        If there are too many axes or the item size is another.
    """
    cdef Copy g
    cdef Py_ssize_t last
    if itemsize not in (1, 2, 4, 8):
        raise ValueError(f"itemsize {itemsize}, wanted 1, 2, 4 or 8")
    turned = _turned(shape, out_strides, x_strides) if itemsize == 4 else None
    if turned is not None:
        return turned
    g.nest = nest(shape, (out_strides, x_strides), True)
    g.itemsize = itemsize
    last = g.nest.rank - 1
    if g.nest.strides[1][last] == 1 and g.nest.shape[last] > 1:
        return bound(run_rows, &g, sizeof(g))
    return bound(run_strided, &g, sizeof(g))


def _turned(tuple shape, tuple out_strides, tuple x_strides):
    """Return the kernel that copies by squares, or None where it does not fit."""
    cdef Nest all = merged(shape, (out_strides, x_strides))
    cdef Turn g
    cdef Py_ssize_t axis, last = all.rank - 1, dense = 0
    for axis in range(1, last):
        if all.strides[1][axis] == 1:
            dense = axis
    if not dense or all.strides[0][last] != 1 or all.strides[1][last] == 1:
        return None
    g.m, g.n = all.shape[dense], all.shape[last]
    g.out_stride = all.strides[0][dense]
    g.x_stride = all.strides[1][last]
    rest = [axis for axis in range(1, last) if axis != dense]
    g.outer = merged(
        tuple([all.shape[axis] for axis in rest]),
        (
            tuple([all.strides[0][axis] for axis in rest]),
            tuple([all.strides[1][axis] for axis in rest]),
        ),
    )
    g.work = g.outer.work
    if g.m >= LANES and 2 <= g.n <= min(8, LANES) and g.out_stride == g.n:
        return bound(run_riffled, &g, sizeof(g))
    if g.m < LANES // 2 or g.n < LANES // 2:
        return None
    g.strips = (g.n + STRIP * LANES - 1) // (STRIP * LANES)
    g.work *= g.strips * ((g.m + LANES - 1) // LANES)
    return bound(run_turned, &g, sizeof(g))


def fill(tuple shape, tuple strides, float value):
    """Return the kernel that writes `value` everywhere; one operand, of float32.

    Parameters
    ----------
    shape, strides : tuple of int
        At most 8 axes; strides in elements.
    """
    cdef Fill g
    g.nest = nest(shape, (strides,))
    g.value = value
    return bound(run_fill, &g, sizeof(g))


def border(tuple shape, tuple strides, tuple halo, float value=0):
    """Return the kernel that writes zeros, or `value`, around a tensor of float32.

    The operand is the tensor's first element, not that of its halo.

    Parameters
    ----------
    shape, strides : tuple of int
        Of the tensor without its halo; at most 8 axes.
    halo : tuple of (int, int)
        How many positions before and after each axis. Corners belong to it.
    """
    cdef Border g
    cdef Py_ssize_t axis, inner, start
    g.value = value
    g.count = 0
    for axis, (before, after) in enumerate(halo):
        for first, positions in ((-before, before), (shape[axis], after)):
            if positions == 0:
                continue
            box = list(shape)
            box[axis] = positions
            start = first * strides[axis]
            for inner in range(axis + 1, len(shape)):
                box[inner] += halo[inner][0] + halo[inner][1]
                start -= halo[inner][0] * strides[inner]
            g.start[g.count] = start
            g.box[g.count] = nest(tuple(box), (strides,))
            g.count += 1
    return bound(run_border, &g, <char*>&g.box[g.count] - <char*>&g)
