"""Normalisation: every set of elements scaled by a statistic of its own.

    out = ((x - mean) * scale) * gamma + beta

# Design
Axes are either kept or reduced; mean and scale are one number for each position of the
kept ones. Where the reduced elements lie in dense rows, a unit of work is one set, walked
by vectors (layer normalisation). Otherwise vectors run along the last kept axis, each
lane a set of its own (instance normalisation), and a unit is one vector; with `run` > 1
that many neighbouring lanes share a set (narrow groups), and a vector holds whole groups.

A unit passes over its elements up to three times: sum, sum of squared deviations, result.
Sums are float32: WIDE running sums take turns and are added to a total after CHAIN
additions each, so an error grows with CHAIN + n / (WIDE * CHAIN), not with n.

gamma and beta may have any strides; a stride of zero makes one number serve many.
"""

from libc.math cimport sqrtf
from loops cimport Nest, locate, merged, nest
from simd cimport *
from step cimport bound, share

cdef enum:
    WIDE = 4
    CHAIN = 32

cdef enum Kind:
    STANDARD
    DEVIATION
    ROOT_MEAN_SQUARE
    L1
    L2

KINDS = {
    "standard": STANDARD,
    "deviation": DEVIATION,
    "root mean square": ROOT_MEAN_SQUARE,
    "L1": L1,
    "L2": L2,
}
"""The statistics of `normalise` by name."""

VECTOR = LANES
"""Numbers in a vector."""


cdef struct Geometry:
    Nest kept
    Nest reduced
    Nest statistics
    int kind
    bint write_statistics
    int run
    int width
    Py_ssize_t columns
    Py_ssize_t work
    float count
    float epsilon


cdef struct Sum:
    vec total
    vec part[WIDE]
    int added


cdef inline void begin(Sum* s) noexcept nogil:
    cdef int i
    s.total = splat(0)
    s.added = 0
    for i in range(WIDE):
        s.part[i] = splat(0)


cdef inline vec finished(Sum* s) noexcept nogil:
    """Return the sum of everything, lane by lane, and begin again."""
    cdef vec total = s.total + ((s.part[0] + s.part[1]) + (s.part[2] + s.part[3]))
    begin(s)
    return total


cdef inline void keep_short(Sum* s) noexcept nogil:
    """Add the running sums to the total when they have taken CHAIN additions."""
    cdef vec total
    s.added += 1
    if s.added == CHAIN:
        total = finished(s)
        s.total = total


cdef inline vec term(const bint square, const bint magnitude, vec v, vec mean) noexcept nogil:
    """Return what a pass adds up."""
    if magnitude:
        return vabs(v)
    if square:
        v = v - mean
        return v * v
    return v


cdef inline float scale_of(const Geometry* g, float total) noexcept nogil:
    """Return what deviations are multiplied by, from the sum of their squares."""
    if g.kind == STANDARD or g.kind == ROOT_MEAN_SQUARE:
        return 1 / sqrtf(total / g.count + g.epsilon)
    if g.kind == DEVIATION:
        return 1 / (sqrtf(total / g.count) + g.epsilon)
    if g.kind == L2:
        total = sqrtf(total)
    if total < g.epsilon:
        total = g.epsilon
    return 0 if total == 0 else 1 / total


cdef inline void reach(
    const Geometry* g, Py_ssize_t outer, Py_ssize_t axes, Py_ssize_t* offset
) noexcept nogil:
    """Set each operand's offset at `outer`, counted over the first reduced axes."""
    if axes > 1:
        locate(&g.reduced, outer, axes, offset)
    else:
        offset[0] = offset[1] = offset[2] = offset[3] = 0


cdef inline float sum_of_rows(
    const bint square, const bint magnitude, const Geometry* g, const float* x, float mean
) noexcept nogil:
    """Return the sum over one set that lies in dense rows."""
    cdef Py_ssize_t last = g.reduced.rank - 1, n = g.reduced.shape[last]
    cdef Py_ssize_t rows = g.reduced.shape[last - 1]
    cdef Py_ssize_t outer, row, k
    cdef Py_ssize_t offset[4]
    cdef int tail = <int>(n % LANES)
    cdef vec shift = splat(mean)
    cdef vec v
    cdef const float* p
    cdef int i
    cdef Sum s
    begin(&s)
    for outer in range(g.reduced.work // (n * rows)):
        reach(g, outer, last - 1, offset)
        p = x + offset[1]
        for row in range(rows):
            k = 0
            while k + WIDE * LANES <= n:
                for i in range(WIDE):
                    s.part[i] = s.part[i] + term(
                        square, magnitude, load(p + k + i * LANES), shift
                    )
                keep_short(&s)
                k += WIDE * LANES
            for i in range(WIDE - 1):
                if k + LANES <= n:
                    s.part[i] = s.part[i] + term(square, magnitude, load(p + k), shift)
                    k += LANES
            if tail:
                v = term(square, magnitude, load_part(p + k, tail), shift)
                s.part[3] = s.part[3] + choose(first_lanes(tail), v, splat(0))
            if n % (WIDE * LANES):
                keep_short(&s)
            p += g.reduced.strides[1][last - 1]
    return sum_lanes(finished(&s))


cdef inline void write_vector(
    const bint gammas, const bint betas, float* out, const float* x, const float* gamma,
    const float* beta, vec mean, vec scale, int lanes
) noexcept nogil:
    """Write one vector; gammas and betas say whether those are dense along it."""
    cdef vec v = (load_n(x, lanes) - mean) * scale
    v = v * (load_n(gamma, lanes) if gammas else splat(gamma[0]))
    v = v + (load_n(beta, lanes) if betas else splat(beta[0]))
    store_n(out, v, lanes)


cdef inline void write_rows(
    const bint gammas, const bint betas, const Geometry* g, float* out, const float* x,
    const float* gamma, const float* beta, float mean, float scale
) noexcept nogil:
    """Write one set; gammas and betas say whether those are dense along the rows."""
    cdef Py_ssize_t last = g.reduced.rank - 1, n = g.reduced.shape[last]
    cdef Py_ssize_t rows = g.reduced.shape[last - 1]
    cdef Py_ssize_t outer, row, k
    cdef Py_ssize_t offset[4]
    cdef const float* a
    cdef const float* b
    cdef const float* p
    cdef float* o
    for outer in range(g.reduced.work // (n * rows)):
        reach(g, outer, last - 1, offset)
        o = out + offset[0]
        p = x + offset[1]
        a = gamma + offset[2]
        b = beta + offset[3]
        for row in range(rows):
            k = 0
            while k + LANES <= n:
                write_vector(
                    gammas, betas, o + k, p + k, a + k * gammas, b + k * betas,
                    splat(mean), splat(scale), LANES,
                )
                k += LANES
            if k < n:
                write_vector(
                    gammas, betas, o + k, p + k, a + k * gammas, b + k * betas,
                    splat(mean), splat(scale), <int>(n - k),
                )
            o += g.reduced.strides[0][last - 1]
            p += g.reduced.strides[1][last - 1]
            a += g.reduced.strides[2][last - 1]
            b += g.reduced.strides[3][last - 1]


cdef inline void note(
    const Geometry* g, char** operand, Py_ssize_t index, float mean, float scale
) noexcept nogil:
    """Write mean and scale of the set of that number, if they are wanted."""
    cdef Py_ssize_t offset[2]
    if g.write_statistics:
        locate(&g.statistics, index, g.statistics.rank, offset)
        (<float*>operand[4])[offset[0]] = mean
        (<float*>operand[5])[offset[1]] = scale


cdef inline void normalise_rows(
    const Geometry* g, char** operand, Py_ssize_t unit, const Py_ssize_t* offset
) noexcept nogil:
    """Do one set."""
    cdef Py_ssize_t last = g.reduced.rank - 1
    cdef bint gammas = g.reduced.strides[2][last] != 0
    cdef bint betas = g.reduced.strides[3][last] != 0
    cdef float* out = <float*>operand[0] + offset[0]
    cdef const float* x = <const float*>operand[1] + offset[1]
    cdef const float* gamma = <const float*>operand[2] + offset[2]
    cdef const float* beta = <const float*>operand[3] + offset[3]
    cdef float mean = 0, scale
    if g.kind == STANDARD or g.kind == DEVIATION:
        mean = sum_of_rows(False, False, g, x, 0) / g.count
    if g.kind == L1:
        scale = sum_of_rows(False, True, g, x, 0)
    else:
        scale = sum_of_rows(True, False, g, x, mean)
    scale = scale_of(g, scale)
    if gammas and betas:
        write_rows(True, True, g, out, x, gamma, beta, mean, scale)
    elif gammas:
        write_rows(True, False, g, out, x, gamma, beta, mean, scale)
    elif betas:
        write_rows(False, True, g, out, x, gamma, beta, mean, scale)
    else:
        write_rows(False, False, g, out, x, gamma, beta, mean, scale)
    note(g, operand, unit, mean, scale)


cdef void run_rows(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t last = g.kept.rank - 1, n = g.kept.shape[last]
    cdef Py_ssize_t offset[4]
    cdef Py_ssize_t unit = share(g.work, part, parts)
    cdef Py_ssize_t end = share(g.work, part + 1, parts)
    cdef Py_ssize_t at = unit % n
    cdef int j
    locate(&g.kept, unit, g.kept.rank, offset)
    while unit < end:
        normalise_rows(g, operand, unit, offset)
        unit += 1
        at += 1
        for j in range(4):
            offset[j] += g.kept.strides[j][last]
        if at == n:
            at = 0
            locate(&g.kept, unit, g.kept.rank, offset)


cdef inline vec sum_of_columns(
    const bint square, const bint magnitude, const Geometry* g, const float* x, vec mean,
    int lanes
) noexcept nogil:
    """Return the sum over the reduced axes, a lane a column."""
    cdef Py_ssize_t last = g.reduced.rank - 1, n = g.reduced.shape[last]
    cdef Py_ssize_t stride = g.reduced.strides[1][last]
    cdef Py_ssize_t outer, k
    cdef Py_ssize_t offset[4]
    cdef const float* p
    cdef int i
    cdef Sum s
    begin(&s)
    for outer in range(g.reduced.work // n):
        reach(g, outer, last, offset)
        p = x + offset[1]
        k = 0
        while k + WIDE <= n:
            for i in range(WIDE):
                s.part[i] = s.part[i] + term(
                    square, magnitude, load_n(p + i * stride, lanes), mean
                )
            keep_short(&s)
            p += WIDE * stride
            k += WIDE
        while k < n:
            s.part[0] = s.part[0] + term(square, magnitude, load_n(p, lanes), mean)
            keep_short(&s)
            p += stride
            k += 1
    return finished(&s)


cdef inline void write_columns(
    const bint gammas, const bint betas, const Geometry* g, float* out, const float* x,
    const float* gamma, const float* beta, vec mean, vec scale, int lanes
) noexcept nogil:
    """Write a vector of columns; gammas and betas: whether they differ by column."""
    cdef Py_ssize_t last = g.reduced.rank - 1, n = g.reduced.shape[last]
    cdef Py_ssize_t outer, k
    cdef Py_ssize_t offset[4]
    cdef float* o
    cdef const float* p
    cdef const float* a
    cdef const float* b
    for outer in range(g.reduced.work // n):
        reach(g, outer, last, offset)
        o = out + offset[0]
        p = x + offset[1]
        a = gamma + offset[2]
        b = beta + offset[3]
        for k in range(n):
            write_vector(gammas, betas, o, p, a, b, mean, scale, lanes)
            o += g.reduced.strides[0][last]
            p += g.reduced.strides[1][last]
            a += g.reduced.strides[2][last]
            b += g.reduced.strides[3][last]


cdef void share_in_groups(float* values, int run, int lanes) noexcept nogil:
    """Replace each `run` numbers by their sum."""
    cdef int group, first, i
    cdef float total
    for group in range(lanes // run):
        first = group * run
        total = 0
        for i in range(first, first + run):
            total += values[i]
        for i in range(first, first + run):
            values[i] = total


cdef inline void normalise_columns(
    const Geometry* g, char** operand, Py_ssize_t row, Py_ssize_t first,
    const Py_ssize_t* offset, int lanes
) noexcept nogil:
    """Do one vector of columns."""
    cdef Py_ssize_t last = g.kept.rank - 1
    cdef bint gammas = g.kept.strides[2][last] != 0
    cdef bint betas = g.kept.strides[3][last] != 0
    cdef float* out = <float*>operand[0] + offset[0] + first
    cdef const float* x = <const float*>operand[1] + offset[1] + first
    cdef const float* gamma = <const float*>operand[2] + offset[2] + first * gammas
    cdef const float* beta = <const float*>operand[3] + offset[3] + first * betas
    cdef float means[LANES]
    cdef float scales[LANES]
    cdef int i
    for i in range(LANES):
        means[i] = 0
    if g.kind == STANDARD or g.kind == DEVIATION:
        store(means, sum_of_columns(False, False, g, x, splat(0), lanes))
        if g.run > 1:
            share_in_groups(means, g.run, lanes)
        for i in range(lanes):
            means[i] = means[i] / g.count
    if g.kind == L1:
        store(scales, sum_of_columns(False, True, g, x, splat(0), lanes))
    else:
        store(scales, sum_of_columns(True, False, g, x, load(means), lanes))
    if g.run > 1:
        share_in_groups(scales, g.run, lanes)
    for i in range(lanes):
        scales[i] = scale_of(g, scales[i])
        note(g, operand, row * g.columns + first + i, means[i], scales[i])
    for i in range(lanes, LANES):
        scales[i] = 0
    if gammas and betas:
        write_columns(
            True, True, g, out, x, gamma, beta, load(means), load(scales), lanes
        )
    elif gammas:
        write_columns(
            True, False, g, out, x, gamma, beta, load(means), load(scales), lanes
        )
    elif betas:
        write_columns(
            False, True, g, out, x, gamma, beta, load(means), load(scales), lanes
        )
    else:
        write_columns(
            False, False, g, out, x, gamma, beta, load(means), load(scales), lanes
        )


cdef void run_columns(
    char** operand, const void* geometry, Py_ssize_t part, Py_ssize_t parts
) noexcept nogil:
    cdef const Geometry* g = <const Geometry*>geometry
    cdef Py_ssize_t vectors = (g.columns + g.width - 1) // g.width
    cdef Py_ssize_t offset[4]
    cdef Py_ssize_t unit, first, row
    for unit in range(share(g.work, part, parts), share(g.work, part + 1, parts)):
        row = unit // vectors
        first = unit % vectors * g.width
        locate(&g.kept, row, g.kept.rank - 1, offset)
        if g.columns - first >= LANES and g.width == LANES:
            normalise_columns(g, operand, row, first, offset, LANES)
        else:
            normalise_columns(
                g, operand, row, first, offset,
                <int>min(g.columns - first, <Py_ssize_t>g.width),
            )


def normalise(
    str kind, tuple shape, tuple strides, tuple reduced, int run, float epsilon,
    tuple statistics=(),
):
    """Return the kernel; operands (out, x, gamma, beta), then (mean, scale) if wanted.

    Parameters
    ----------
    kind : str
        A key of KINDS. "standard": scale = 1 / sqrt(variance + epsilon); "deviation":
        1 / (sqrt(variance) + epsilon); "root mean square": the same as "standard", the
        mean taken as zero; "L1" and "L2": 1 / max(norm, epsilon), zero for a norm of zero,
        the mean taken as zero.
    shape : tuple of int
        At most 8 axes.
    strides : tuple of tuple of int
        Of out, x, gamma and beta, in elements; along the last axis 1, of gamma and beta
        also 0.
    reduced : tuple of int
        The axes that make up a set, from 0, rising.
    run : int
        How many neighbours along the last axis also belong to one set; if more than one
        the last axis is not in `reduced`, is a multiple of it, and `run` <= VECTOR.
    epsilon : float
        As above.
    statistics : tuple of tuple of int
        The strides of mean and scale along the axes that are kept.
    """
    cdef Geometry g
    cdef Py_ssize_t j, last
    cdef bint rows = run == 1
    kept = [axis for axis in range(len(shape)) if axis not in reduced]
    kept_shape = tuple([shape[axis] for axis in kept])
    kept_strides = tuple([tuple([s[axis] for axis in kept]) for s in strides])
    g.reduced = merged(
        tuple([shape[axis] for axis in reduced]),
        tuple([tuple([s[axis] for axis in reduced]) for s in strides]),
    )
    last = g.reduced.rank - 1
    for j in range(4):
        rows = rows and (g.reduced.strides[j][last] == 1 or (
            j > 1 and g.reduced.strides[j][last] == 0
        ))
    g.kind, g.epsilon, g.run = KINDS[kind], epsilon, run
    g.count = g.reduced.work * run
    g.width = LANES // run * run
    g.write_statistics = len(statistics) == 2
    g.statistics = merged(kept_shape, statistics or (kept_strides[0], kept_strides[0]))
    if rows:
        g.kept = merged(kept_shape, kept_strides)
        g.work = g.kept.work
        return bound(run_rows, &g, sizeof(g))
    g.kept = nest(kept_shape, kept_strides)
    last = g.kept.rank - 1
    g.columns = g.kept.shape[last]
    g.work = (g.columns + g.width - 1) // g.width
    for j in range(last):
        g.work *= g.kept.shape[j]
    return bound(run_columns, &g, sizeof(g))
