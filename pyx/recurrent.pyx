"""Recurrent layers: LSTM, GRU and the plain one.

# Design
What the input contributes to the gates has been computed for all times at once; here
the sequence is walked. At each time the state of some pictures is multiplied by the
recurrent weights (``tile.pxi``), then the gates are applied, by vectors along the hidden
units. A unit of work is a direction and a tile's rows of the batch, from the first time
to the last, since nothing else can be done before a state is known.

A sequence may be shorter than the tensor: its state then stays, and the output is zero.
The reverse direction begins at its last element.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from step cimport bound, share

include "tile.pxi"

from activation cimport SIGMOID, TANH

lanes = LANES
registers = REGISTERS
"""What a tile may be made of."""

cdef enum Kind:
    LSTM
    GRU
    RNN

KINDS = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}
"""The layers by name."""


cdef struct Function:
    int code
    float alpha
    float beta


cdef struct Geometry:
    int kind
    bint reversed               # the first direction
    bint linear_before_reset
    bint input_forget
    bint peepholes
    bint lengths
    bint initial_h
    bint initial_c
    float clip
    Py_ssize_t directions
    Py_ssize_t times
    Py_ssize_t batch
    Py_ssize_t hidden
    Py_ssize_t rows
    Py_ssize_t nr
    # Time, direction, picture.
    Py_ssize_t y[3]
    Py_ssize_t y_h[3]
    Py_ssize_t y_c[3]
    Py_ssize_t first_h[3]
    Py_ssize_t first_c[3]
    Function functions[2][3]
    Finish finish


cdef inline vec applied(const Geometry* g, const Function* f, vec x) noexcept nogil:
    """Return an activation of a sum, which is limited first."""
    x = vmin(splat(g.clip), vmax(splat(-g.clip), x))
    if f.code == SIGMOID:
        return activate(SIGMOID, 0, 0, x)
    if f.code == TANH:
        return activate(TANH, 0, 0, x)
    return activate(f.code, f.alpha, f.beta, x)


cdef void multiply(
    const Geometry* g, float* out, Py_ssize_t out_stride, const float* h,
    const float* w, const float* bias, Py_ssize_t rows, Py_ssize_t n,
) noexcept nogil:
    """Write the products of some states and a packed matrix of n columns."""
    cdef Py_ssize_t vectors = (n + LANES - 1) // LANES, vector = 0, tap = 0
    cdef Py_ssize_t nr
    cdef Task task
    cdef Tile run
    task.x, task.dx, task.dy, task.dr, task.r = h, g.hidden, out_stride, 0, NULL
    task.tap, task.taps, task.run = &tap, 1, g.hidden
    task.apart = 0
    task.distant = False
    task.finish = &g.finish
    while vector < vectors:
        nr = min(g.nr, vectors - vector)
        task.w = w + vector * LANES * g.hidden
        task.ahead = task.w + nr * LANES * g.hidden
        task.bias = bias + vector * LANES
        task.outputs = n - vector * LANES
        task.y = out + vector * LANES
        run = TILES[nr][rows]
        run(&task)
        vector += nr


cdef inline void lstm_row(
    const Geometry* g, const Function* f, const float* gates, const float* x,
    const float* p, float* h, float* c,
) noexcept nogil:
    """Update the state of one picture; gates come in the order i, o, f, c."""
    cdef Py_ssize_t H = g.hidden, k = 0
    cdef vec i, o, forget, new, cell
    cdef int n
    while k < H:
        n = <int>min(H - k, <Py_ssize_t>LANES)
        cell = load_n(c + k, n)
        i = load_n(gates + k, n) + load_n(x + k, n)
        o = load_n(gates + H + k, n) + load_n(x + H + k, n)
        forget = load_n(gates + 2 * H + k, n) + load_n(x + 2 * H + k, n)
        new = load_n(gates + 3 * H + k, n) + load_n(x + 3 * H + k, n)
        if g.peepholes:
            i = i + load_n(p + k, n) * cell
            forget = forget + load_n(p + 2 * H + k, n) * cell
        i = applied(g, f, i)
        forget = splat(1) - i if g.input_forget else applied(g, f, forget)
        cell = forget * cell + i * applied(g, f + 1, new)
        if g.peepholes:
            o = o + load_n(p + H + k, n) * cell
        store_n(c + k, cell, n)
        store_n(h + k, applied(g, f, o) * applied(g, f + 2, cell), n)
        k += LANES


cdef inline void reset_row(
    const Geometry* g, const Function* f, float* gates, const float* x, const float* h,
    float* reset,
) noexcept nogil:
    """Turn the sums of z and r into gates, and write r h unless it comes later."""
    cdef Py_ssize_t H = g.hidden, k = 0
    cdef vec r
    cdef int n
    while k < H:
        n = <int>min(H - k, <Py_ssize_t>LANES)
        r = applied(g, f, load_n(gates + H + k, n) + load_n(x + H + k, n))
        store_n(gates + H + k, r, n)
        r = r * load_n(h + k, n)
        if not g.linear_before_reset:
            store_n(reset + k, r, n)
        r = applied(g, f, load_n(gates + k, n) + load_n(x + k, n))
        store_n(gates + k, r, n)
        k += LANES


cdef inline void gru_row(
    const Geometry* g, const Function* f, const float* gates, const float* x, float* h
) noexcept nogil:
    """Update the state of one picture from z, r and the sums of the new state."""
    cdef Py_ssize_t H = g.hidden, k = 0
    cdef vec z, new
    cdef int n
    while k < H:
        n = <int>min(H - k, <Py_ssize_t>LANES)
        z = load_n(gates + k, n)
        new = load_n(gates + 2 * H + k, n)
        if g.linear_before_reset:
            new = new * load_n(gates + H + k, n)
        new = applied(g, f + 1, new + load_n(x + 2 * H + k, n))
        store_n(h + k, (splat(1) - z) * new + z * load_n(h + k, n), n)
        k += LANES


cdef inline void rnn_row(
    const Geometry* g, const Function* f, const float* gates, const float* x, float* h
) noexcept nogil:
    cdef Py_ssize_t k = 0
    cdef int n
    while k < g.hidden:
        n = <int>min(g.hidden - k, <Py_ssize_t>LANES)
        store_n(h + k, applied(g, f, load_n(gates + k, n) + load_n(x + k, n)), n)
        k += LANES


cdef inline void put(float* out, const float* x, Py_ssize_t n) noexcept nogil:
    """Copy n numbers; zeros if there are none."""
    cdef Py_ssize_t k
    for k in range(n):
        out[k] = x[k] if x != NULL else 0


cdef inline Py_ssize_t at(
    const Py_ssize_t* stride, Py_ssize_t time, Py_ssize_t direction, Py_ssize_t picture
) noexcept nogil:
    return time * stride[0] + direction * stride[1] + picture * stride[2]


cdef void walk(
    const Geometry* g, char** operand, Py_ssize_t direction, Py_ssize_t first,
    Py_ssize_t rows,
) noexcept nogil:
    """Run some pictures through one direction."""
    cdef Py_ssize_t H = g.hidden, gates_count = 1
    cdef bint backwards = g.reversed or direction == 1
    cdef const Function* f = &g.functions[direction][0]
    cdef const int64_t* lengths = <const int64_t*>operand[8]
    cdef Py_ssize_t s, b, t, length, whole, line
    cdef float* y = <float*>operand[0]
    cdef const float* x
    cdef const float* w = <const float*>operand[4]
    cdef const float* bias = <const float*>operand[5]
    cdef const float* p = <const float*>operand[9] + direction * 3 * H
    cdef float* h
    cdef float* c
    cdef float* gates
    cdef float* reset
    if g.kind == LSTM:
        gates_count = 4
    elif g.kind == GRU:
        gates_count = 3
    # Vectors of the packed matrices: z and r of a GRU lie before its new state.
    whole = ((2 if g.kind == GRU else gates_count) * H + LANES - 1) // LANES * LANES
    line = (H + LANES - 1) // LANES * LANES
    w += direction * (whole + (line if g.kind == GRU else 0)) * H
    bias += direction * (whole + (line if g.kind == GRU else 0))
    h = <float*>operand[10] + (direction * g.batch + first) * (gates_count + 3) * H
    c = h + rows * H
    reset = c + rows * H
    gates = reset + rows * H
    for b in range(rows):
        put(
            h + b * H,
            <const float*>operand[6] + at(g.first_h, 0, direction, first + b)
            if g.initial_h else NULL, H,
        )
        put(
            c + b * H,
            <const float*>operand[7] + at(g.first_c, 0, direction, first + b)
            if g.initial_c else NULL, H,
        )
    for s in range(g.times):
        if g.kind == GRU:
            multiply(g, gates, 3 * H, h, w, bias, rows, 2 * H)
        else:
            multiply(g, gates, gates_count * H, h, w, bias, rows, gates_count * H)
        if g.kind == GRU:
            for b in range(rows):
                length = time_of(g, lengths, first + b)
                t = place(backwards, s, length)
                x = <const float*>operand[3] + (
                    ((direction * g.times + t) * g.batch + first + b) * gates_count * H
                )
                reset_row(g, f, gates + b * 3 * H, x, h + b * H, reset + b * H)
            multiply(
                g, gates + 2 * H, 3 * H, h if g.linear_before_reset else reset,
                w + whole * H, bias + whole, rows, H,
            )
        for b in range(rows):
            length = time_of(g, lengths, first + b)
            if s >= length:
                put(y + at(g.y, s, direction, first + b), NULL, H)
                continue
            t = place(backwards, s, length)
            x = <const float*>operand[3] + (
                ((direction * g.times + t) * g.batch + first + b) * gates_count * H
            )
            if g.kind == LSTM:
                lstm_row(g, f, gates + b * 4 * H, x, p, h + b * H, c + b * H)
            elif g.kind == GRU:
                gru_row(g, f, gates + b * 3 * H, x, h + b * H)
            else:
                rnn_row(g, f, gates + b * H, x, h + b * H)
            put(y + at(g.y, t, direction, first + b), h + b * H, H)
    for b in range(rows):
        put(<float*>operand[1] + at(g.y_h, 0, direction, first + b), h + b * H, H)
        if g.kind == LSTM:
            put(<float*>operand[2] + at(g.y_c, 0, direction, first + b), c + b * H, H)


cdef inline Py_ssize_t time_of(
    const Geometry* g, const int64_t* lengths, Py_ssize_t picture
) noexcept nogil:
    """Return how long a sequence is."""
    if not g.lengths:
        return g.times
    return max(<Py_ssize_t>0, min(<Py_ssize_t>lengths[picture], g.times))


cdef inline Py_ssize_t place(
    bint backwards, Py_ssize_t step, Py_ssize_t length
) noexcept nogil:
    """Return which element of a sequence comes at a step; the first after its end."""
    if step >= length:
        return 0
    return length - 1 - step if backwards else step


cdef void run_recurrent(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t tiles = (g.batch + g.rows - 1) // g.rows
    cdef Py_ssize_t work = g.directions * tiles
    cdef Py_ssize_t unit, first, end
    for unit in range(share(work, part, parts), share(work, part + 1, parts)):
        first = share(g.batch, unit % tiles, tiles)
        end = share(g.batch, unit % tiles + 1, tiles)
        walk(g, operand, unit // tiles, first, end - first)


def recurrent(
    str kind, Py_ssize_t directions, Py_ssize_t times, Py_ssize_t batch,
    Py_ssize_t hidden, tuple tile, tuple strides, tuple functions, float clip,
    bint reversed, bint linear_before_reset, bint input_forget, bint initial_h,
    bint initial_c, bint lengths, bint peepholes,
):
    """Return the kernel of a recurrent layer.

    The operands are (y, last h, last c, what the inputs contribute to the gates, packed
    recurrent weights, biases in vectors, initial h, initial c, lengths int64,
    peepholes, scratch). The contributions are (direction, time, picture, gate, hidden).
    The scratch memory has (gates + 3) * hidden numbers for each direction and picture.

    Parameters
    ----------
    kind : str
        A key of KINDS.
    directions, times, batch, hidden : int
        The sizes.
    tile : (int, int)
        Rows and vectors of the tiles for the recurrent products.
    strides : tuple of tuple of int
        For y, last h, last c, initial h and initial c: along time, direction, picture.
    functions : tuple of (code, alpha, beta)
        Three for each direction, in ONNX's order; the plain layer and GRU use fewer.
    clip : float
        Sums are limited to this magnitude; infinity for none.
    reversed : bool
        Whether the first direction runs backwards.
    linear_before_reset, input_forget : bool
        As in ONNX.
    initial_h, initial_c, lengths, peepholes : bool
        Which operands there are; the others are not read.
    """
    cdef Geometry g
    cdef int i, j
    g.kind = KINDS[kind]
    g.directions, g.times, g.batch, g.hidden = directions, times, batch, hidden
    g.rows, g.nr = tile
    for i in range(3):
        g.y[i], g.y_h[i], g.y_c[i] = strides[0][i], strides[1][i], strides[2][i]
        g.first_h[i], g.first_c[i] = strides[3][i], strides[4][i]
    for i in range(directions):
        for j in range(3):
            code, alpha, beta = functions[3 * i + j]
            g.functions[i][j].code = code
            g.functions[i][j].alpha = alpha
            g.functions[i][j].beta = beta
    g.clip, g.reversed = clip, reversed
    g.linear_before_reset, g.input_forget = linear_before_reset, input_forget
    g.initial_h, g.initial_c = initial_h, initial_c
    g.lengths, g.peepholes = lengths, peepholes
    g.finish.code = CLAMP
    g.finish.alpha, g.finish.beta = -INFINITY, INFINITY
    g.finish.residual = False
    return bound(run_recurrent, &g, sizeof(g))
