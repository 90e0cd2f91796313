"""Loop nests over tensors that share a shape, each with strides of its own.

# Design
Axes that every operand walks without a gap are merged when the geometry is made, so a
contiguous tensor is one long row whatever its rank. What remains is a last axis of n
elements, the row, along which an operand is dense (stride 1) or one element stretched
(stride 0); the axis before it, along which rows repeat; and outer axes. Where the last
axis has another stride, a row is one element.

`Block` is what an inner loop gets: some rows of n elements and each operand's offset. A
long row is cut into pieces of BLOCK elements, short rows are taken several at once, so a
block always fits the first-level cache and one that is worked on twice stays there. The
units of work that threads share are rows, or pieces of rows if those are long.
"""

cdef enum:
    MOST_AXES = 8
    MOST_OPERANDS = 5
    BLOCK = 2048


cdef struct Nest:
    Py_ssize_t rank
    Py_ssize_t operands
    Py_ssize_t work
    Py_ssize_t pieces
    Py_ssize_t shape[MOST_AXES + 2]
    Py_ssize_t strides[MOST_OPERANDS][MOST_AXES + 2]


cdef struct Block:
    Py_ssize_t rows
    Py_ssize_t n
    Py_ssize_t offset[MOST_OPERANDS]
    Py_ssize_t stride[MOST_OPERANDS]


cdef inline Nest merged(tuple shape, tuple strides):
    """Return the axes of a shape, merged where all operands allow it.

    Axis 0 has one element, so there is always one. `strides` has one tuple an operand.

    Raises
    ------
    ValueError
        If there are more than MOST_AXES axes or MOST_OPERANDS operands.
    """
    cdef Nest g
    cdef Py_ssize_t axis, j, last = 0
    cdef bint joins
    g.operands = len(strides)
    if len(shape) > MOST_AXES or g.operands > MOST_OPERANDS:
        raise ValueError(f"{len(shape)} axes and {g.operands} operands are too many")
    g.shape[0] = 1
    g.work = 1
    g.pieces = 1
    for j in range(g.operands):
        g.strides[j][0] = 0
    for axis, n in enumerate(shape):
        g.work *= n
        if n == 1:
            continue
        joins = last > 0
        for j in range(g.operands):
            joins = joins and g.strides[j][last] == n * strides[j][axis]
        if not joins:
            last += 1
            g.shape[last] = 1
        g.shape[last] *= n
        for j in range(g.operands):
            g.strides[j][last] = strides[j][axis]
    g.rank = last + 1
    return g


cdef inline Nest nest(tuple shape, tuple strides, bint any_stride=False):
    """Return the loop nest of rows; `strides` has one tuple an operand.

    With `any_stride` only the output must be dense along the last axis.

    Raises
    ------
    ValueError
        As `merged`.
    """
    cdef Nest g = merged(shape, strides)
    cdef Py_ssize_t j, last = g.rank - 1
    cdef bint dense = last > 0 and g.strides[0][last] == 1
    for j in range(g.operands):
        dense = dense and (any_stride or 0 <= g.strides[j][last] <= 1)
    if not dense:
        g.rank += 1
        g.shape[last + 1] = 1
        for j in range(g.operands):
            g.strides[j][last + 1] = 1
    last = g.rank - 1
    g.pieces = (g.shape[last] + BLOCK - 1) // BLOCK
    if g.work:
        g.work = g.work // g.shape[last] * g.pieces
    return g


cdef inline void locate(
    const Nest* g, Py_ssize_t index, Py_ssize_t axes, Py_ssize_t* offset
) noexcept nogil:
    """Set each operand's offset at `index`, counted over the first `axes` axes."""
    cdef Py_ssize_t axis, j, at
    for j in range(g.operands):
        offset[j] = 0
    for axis in range(axes - 1, 0, -1):
        at = index % g.shape[axis]
        index //= g.shape[axis]
        for j in range(g.operands):
            offset[j] += at * g.strides[j][axis]


cdef inline Py_ssize_t block_at(
    const Nest* g, Py_ssize_t unit, Py_ssize_t end, Block* block
) noexcept nogil:
    """Fill in the block that begins at `unit`; return how many units it covers."""
    cdef Py_ssize_t last = g.rank - 1
    cdef Py_ssize_t n = g.shape[last]
    cdef Py_ssize_t row = unit // g.pieces
    cdef Py_ssize_t first = (unit - row * g.pieces) * BLOCK
    cdef Py_ssize_t j
    block.rows = 1
    block.n = min(n - first, <Py_ssize_t>BLOCK)
    if g.pieces == 1:
        block.rows = min(end - unit, g.shape[last - 1] - row % g.shape[last - 1])
        block.rows = min(block.rows, max(<Py_ssize_t>1, BLOCK // n))
    locate(g, row, last, block.offset)
    for j in range(g.operands):
        block.offset[j] += first * g.strides[j][last]
        block.stride[j] = g.strides[j][last - 1]
    return block.rows
