"""Reading and writing elements at places that a tensor of indices gives.

# Design
A place is given by one or several indices, each along an axis of its own. To gather is
to walk the output with three tensors in step: the output, the input without its indexed
axes, and the indices; the indexed axes add their part. So one loop serves a gather of
slices, of elements and by index tuples; they differ in strides alone. A row that lies at
one place is copied at once.

To scatter, the updates are split in two: *lines* never write to the same element, and
threads share them; the *turns* within a line are taken in order, so that of several
updates of one element the last is kept, whatever the number of threads.

An index counts from the end if negative. One that is still outside is taken as the
nearest inside when reading, and skipped when writing: memory outside is never touched.
"""

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from element cimport FLOAT32, INT8, INT32, INT64, element, item, number
from loops cimport MOST_AXES, Block, Nest, block_at, locate, merged, nest
from step cimport bound, share

cdef enum Kind:
    NONE
    ADD
    MUL
    MAXIMUM
    MINIMUM

KINDS = {"none": NONE, "add": ADD, "mul": MUL, "max": MAXIMUM, "min": MINIMUM}
"""What `scatter` does with an update and the element there, by name."""


cdef struct Axes:
    # The indexed axes: sizes, strides, and the stride between the indices of a tuple.
    Py_ssize_t count
    Py_ssize_t between
    Py_ssize_t size[MOST_AXES]
    Py_ssize_t stride[MOST_AXES]


cdef struct Gather:
    Nest nest
    Axes axes
    Py_ssize_t itemsize


cdef struct Scatter:
    Nest lines
    Nest turns
    Axes axes
    int kind
    int type


cdef inline Py_ssize_t place(const Axes* a, const int64_t* index) noexcept nogil:
    """Return how far the element lies that an index tuple names, the nearest inside."""
    cdef Py_ssize_t j, at, offset = 0
    for j in range(a.count):
        at = index[j * a.between]
        if at < 0:
            at += a.size[j]
        at = max(<Py_ssize_t>0, min(at, a.size[j] - 1))
        offset += at * a.stride[j]
    return offset


cdef inline bint is_inside(const Axes* a, const int64_t* index) noexcept nogil:
    """Return whether an index tuple names an element."""
    cdef Py_ssize_t j
    for j in range(a.count):
        if index[j * a.between] < -a.size[j] or index[j * a.between] >= a.size[j]:
            return False
    return True


cdef inline void gather_rows(
    const Gather* g, const Block* b, item* out, const item* x, const int64_t* index
) noexcept nogil:
    cdef Py_ssize_t last = g.nest.rank - 1, row, i
    cdef Py_ssize_t x_step = g.nest.strides[1][last]
    cdef Py_ssize_t index_step = g.nest.strides[2][last]
    cdef const item* p
    out += b.offset[0]
    x += b.offset[1]
    index += b.offset[2]
    for row in range(b.rows):
        if index_step == 0:
            p = x + place(&g.axes, index)
            if x_step == 1:
                memcpy(out, p, b.n * sizeof(item))
            else:
                for i in range(b.n):
                    out[i] = p[i * x_step]
        else:
            for i in range(b.n):
                out[i] = x[i * x_step + place(&g.axes, index + i * index_step)]
        out += b.stride[0]
        x += b.stride[1]
        index += b.stride[2]


cdef void run_gather(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Gather* g = <const Gather*>geometry
    cdef Py_ssize_t unit = share(g.nest.work, part, parts)
    cdef Py_ssize_t end = share(g.nest.work, part + 1, parts)
    cdef char* out = operand[0]
    cdef char* x = operand[1]
    cdef const int64_t* index = <const int64_t*>operand[2]
    cdef Block b
    while unit < end:
        unit += block_at(&g.nest, unit, end, &b)
        if g.itemsize == 4:
            gather_rows(g, &b, <uint32_t*>out, <const uint32_t*>x, index)
        elif g.itemsize == 8:
            gather_rows(g, &b, <uint64_t*>out, <const uint64_t*>x, index)
        else:
            gather_rows(g, &b, <uint8_t*>out, <const uint8_t*>x, index)


cdef inline number updated(const int kind, number x, number y) noexcept nogil:
    """Return the element x after the update y; NaN wins over numbers."""
    if kind == ADD:
        if number is float:
            return x + y
        else:
            return <number>(<uint64_t>x + <uint64_t>y)
    if kind == MUL:
        if number is float:
            return x * y
        else:
            return <number>(<uint64_t>x * <uint64_t>y)
    if number is float:
        if y != y:
            return y
    if kind == MAXIMUM:
        return y if y > x else x
    if kind == MINIMUM:
        return y if y < x else x
    return y


cdef inline void scatter_lines(
    const int kind, number* out, const number* updates, const int64_t* index,
    const Scatter* g, Py_ssize_t part, Py_ssize_t parts,
) noexcept nogil:
    cdef Py_ssize_t line[3]
    cdef Py_ssize_t turn[2]
    cdef Py_ssize_t unit, k, last = g.turns.rank - 1, i, n = g.turns.shape[last]
    cdef const int64_t* at
    cdef number* p
    for unit in range(share(g.lines.work, part, parts), share(g.lines.work, part + 1, parts)):
        locate(&g.lines, unit, g.lines.rank, line)
        for k in range(g.turns.work // n if n else 0):
            locate(&g.turns, k, last, turn)
            for i in range(n):
                at = index + line[2] + turn[1] + i * g.turns.strides[1][last]
                if is_inside(&g.axes, at):
                    p = out + line[0] + place(&g.axes, at)
                    p[0] = updated(
                        kind, p[0],
                        updates[line[1] + turn[0] + i * g.turns.strides[0][last]],
                    )


cdef inline void scatter_kind(
    number* out, const number* updates, const int64_t* index, const Scatter* g,
    Py_ssize_t part, Py_ssize_t parts,
) noexcept nogil:
    if g.kind == NONE:
        scatter_lines(NONE, out, updates, index, g, part, parts)
    elif g.kind == ADD:
        scatter_lines(ADD, out, updates, index, g, part, parts)
    elif g.kind == MUL:
        scatter_lines(MUL, out, updates, index, g, part, parts)
    elif g.kind == MAXIMUM:
        scatter_lines(MAXIMUM, out, updates, index, g, part, parts)
    else:
        scatter_lines(MINIMUM, out, updates, index, g, part, parts)


cdef void run_scatter(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Scatter* g = <const Scatter*>geometry
    cdef char* out = operand[0]
    cdef char* updates = operand[1]
    cdef const int64_t* index = <const int64_t*>operand[2]
    if g.type == FLOAT32:
        scatter_kind(<float*>out, <const float*>updates, index, g, part, parts)
    elif g.type == INT64:
        scatter_kind(<int64_t*>out, <const int64_t*>updates, index, g, part, parts)
    elif g.type == INT32:
        scatter_kind(<int32_t*>out, <const int32_t*>updates, index, g, part, parts)
    elif g.type == INT8:
        scatter_kind(<int8_t*>out, <const int8_t*>updates, index, g, part, parts)
    else:
        scatter_kind(<uint8_t*>out, <const uint8_t*>updates, index, g, part, parts)


cdef Axes axes_of(tuple sizes, tuple strides, Py_ssize_t between):
    cdef Axes a
    cdef Py_ssize_t j
    if len(sizes) > MOST_AXES:
        raise ValueError(f"{len(sizes)} indexed axes, wanted up to {MOST_AXES}")
    a.count = len(sizes)
    a.between = between
    for j in range(a.count):
        a.size[j] = sizes[j]
        a.stride[j] = strides[j]
    return a


def gather(
    Py_ssize_t itemsize, tuple shape, tuple operand_strides, tuple sizes, tuple strides,
    Py_ssize_t between=0,
):
    """Return the kernel of ``out = x at indices``; operands (out, x, indices int64).

    Parameters
    ----------
    itemsize : int
        1, 4 or 8 bytes an element.
    shape : tuple of int
        Of out, at most 8 axes.
    operand_strides : tuple of tuple of int
        For each of out, x without its indexed axes, and the indices; 1 along the last
        axis of out.
    sizes, strides : tuple of int
        Of the indexed axes of x.
    between : int
        The stride from one index of a tuple to the next.

    Raises
    ------
    ValueError
        If the item size is another, or there are too many axes.
    """
    cdef Gather g
    if itemsize not in (1, 4, 8):
        raise ValueError(f"itemsize {itemsize}, wanted 1, 4 or 8")
    g.nest = nest(shape, operand_strides, True)
    g.axes = axes_of(sizes, strides, between)
    g.itemsize = itemsize
    return bound(run_gather, &g, sizeof(g))


def scatter(
    str kind, str dtype, tuple line_shape, tuple line_strides, tuple turn_shape,
    tuple turn_strides, tuple sizes, tuple strides, Py_ssize_t between=0,
):
    """Return the kernel that updates elements; operands (out, updates, indices int64).

    Parameters
    ----------
    kind, dtype : str
        A key of KINDS, and the element type.
    line_shape, line_strides : tuple
        Axes along which updates never meet; strides for out, updates and indices.
    turn_shape, turn_strides : tuple
        The other axes; strides for updates and indices.
    sizes, strides : tuple of int
        Of the indexed axes of out.
    between : int
        The stride from one index of a tuple to the next.

    Raises
    ------
    ValueError
        If there are too many axes.
    """
    cdef Scatter g
    g.kind, g.type = KINDS[kind], element(dtype)
    g.lines = merged(line_shape, line_strides)
    g.turns = merged(turn_shape, turn_strides)
    g.axes = axes_of(sizes, strides, between)
    return bound(run_scatter, &g, sizeof(g))
