"""Run a planned network: an ordered list of kernels, walked without the interpreter.

# Design
A `Program` is what every run of a plan has in common: functions, geometry blocks and
where each operand lies. It never changes and is shared. A `Context` is one caller's
arena and table of addresses; it is used by one run at a time.

A run is one region without the GIL. The calling thread and the workers it leases walk
the same list. Every step is cut into as many parts as the run may use threads; each
thread takes its own part of a step and then those that nobody has taken, and they wait
for each other between steps that depend on each other. So a worker that the system
wakes late, or never, delays nobody. Which thread does a part changes nothing in the
result. Workers belong to the process, not to a model: a run takes as many idle ones as
it may use, makes new ones only when there are too few, and they return by themselves.

Waiting spins for a short time and then sleeps, so an idle process uses no CPU. A child
of ``fork`` has none of its parent's workers; it starts with an empty pool.

A run can end between two steps: at its deadline, or when a signal's handler raises,
which the main thread looks for a few times a second. The calling thread decides; it
takes what is left, so that nobody does it.
"""

from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_ND,
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport INFINITY
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strcmp
from step cimport Kernel

cdef extern from "team.h" nogil:
    ctypedef struct Team:
        int parts
        int steps
        int* after
    ctypedef void (*Work)(void* job, Team* team, int part) noexcept nogil
    int team_run(
        Work work, void* job, int parts, int first, int steps, const int* after
    ) noexcept
    int team_begin(Team* team) noexcept
    void team_wait(Team* team, int steps) noexcept
    bint team_take(Team* team, int part, int step) noexcept
    void team_finish(Team* team) noexcept
    int team_end(Team* team) noexcept
    int team_workers() noexcept
    unsigned int flush_denormals() noexcept
    void restore_denormals(unsigned int state) noexcept
    double seconds() noexcept
    void* aligned_allocate(size_t bytes) noexcept
    void aligned_release(void* memory) noexcept

cdef extern from *:
    """
    #include <time.h>
    #include <unistd.h>
    #if defined(__linux__)
    #include <sys/syscall.h>
    static inline int on_main_thread(void) { return syscall(SYS_gettid) == getpid(); }
    /* The scheduler's clock: some milliseconds coarse, and almost free. */
    static inline double coarse_seconds(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
        return now.tv_sec + 1e-9 * now.tv_nsec;
    }
    #else
    static inline int on_main_thread(void) { return 1; }
    static inline double coarse_seconds(void) { return seconds(); }
    #endif
    #if defined(__GLIBC__)
    #include <malloc.h>
    static inline void trim(void) { malloc_trim(0); }
    #else
    static inline void trim(void) {}
    #endif
    """
    bint on_main_thread() noexcept nogil
    double coarse_seconds() noexcept nogil
    void trim() noexcept nogil


cdef struct Call:
    Kernel run
    const void* geometry
    char** operand


cdef struct Place:
    int slot
    Py_ssize_t offset


cdef struct Run:
    const Call* calls
    int first
    int end
    int done
    double* times
    double deadline
    double due  # when to look round again
    void* context


ARENA = 0
"""The slot of the context's own memory; the caller's arrays follow from 1."""

ABSOLUTE = -1
"""The slot of constants, whose offset is their address."""


# Seconds from one look for signals to the next.
cdef double BETWEEN_LOOKS = 0.05


cdef bint signalled(void* context) noexcept with gil:
    """Run the handlers of pending signals; return whether one raised."""
    try:
        PyErr_CheckSignals()
    except BaseException as error:
        (<Context>context).raised = error
        return True
    return False


cdef bint must_end(Run* run, unsigned int state) noexcept nogil:
    """Return whether the run must end now; a handler sees the caller's float state."""
    cdef double now = seconds()
    cdef bint raised
    run.due = min(run.deadline, now + BETWEEN_LOOKS)
    if now >= run.deadline:
        return True
    if not on_main_thread():
        return False
    restore_denormals(state)
    raised = signalled(run.context)
    flush_denormals()
    return raised


cdef inline bint is_due(const Run* run) noexcept nogil:
    """Return whether it is time to look round; precise if there is a deadline."""
    if run.deadline == INFINITY:
        return coarse_seconds() >= run.due
    return seconds() >= run.due


cdef void walk_alone(Run* run) noexcept nogil:
    """Do every step."""
    cdef int i
    cdef unsigned int state = flush_denormals()
    for i in range(run.first, run.end):
        run.calls[i].run(run.calls[i].operand, run.calls[i].geometry, 0, 1)
        if run.times != NULL:
            run.times[i + 1] = seconds()
        if is_due(run) and must_end(run, state):
            run.done = i + 1
            break
    restore_denormals(state)


cdef void walk(void* argument, Team* team, int part) noexcept nogil:
    """Take parts of steps until all are taken, first the own one of each.

    The run may be over before a late worker comes. Only who has taken a part may look at
    it, for then the caller still waits.
    """
    cdef Run* run = <Run*>argument
    cdef const Call* call
    cdef int i, turn, own, begin = team_begin(team)
    cdef unsigned int state = flush_denormals()
    if part == 0 and run.times != NULL:
        # Workers may have done these before the caller came.
        for i in range(run.first + 1, begin):
            run.times[i] = seconds()
    for i in range(begin, team.steps):
        team_wait(team, team.after[i])
        if part == 0:
            if run.times != NULL:
                run.times[i] = seconds()
            if is_due(run) and must_end(run, state):
                run.done = team_end(team)
                break
        for turn in range(team.parts):
            own = (part + turn) % team.parts
            if team_take(team, own, i):
                call = &run.calls[i]
                call.run(call.operand, call.geometry, own, team.parts)
                team_finish(team)
    restore_denormals(state)


cdef class Program:
    """The steps of a plan, shared by all its contexts.

    Parameters
    ----------
    steps : list of (address, geometry, places, together)
        ``places`` is a list of (slot, byte offset), one an operand.
    arena_bytes : int
        What a context allocates.
    external_bytes : list of int
        The size of each array of the caller, in slot order from 1.
    written : int
        How many of the last external arrays a run writes.
    keep : object
        Whatever must live as long as the program, such as arrays of constants.
    """

    cdef readonly Py_ssize_t arena_bytes
    cdef readonly tuple external_bytes
    cdef readonly int written
    cdef object keep
    cdef list geometries
    cdef int count
    cdef Py_ssize_t operands
    cdef Call* calls
    cdef Place* places
    cdef Py_ssize_t* first
    cdef int* after

    def __cinit__(self, list steps, Py_ssize_t arena_bytes, external_bytes,
                  int written, keep):
        cdef Py_ssize_t i, j = 0, group = 0
        cdef size_t address
        cdef bytes geometry
        self.arena_bytes = arena_bytes
        self.external_bytes = tuple(external_bytes)
        self.written = written
        self.keep = keep
        self.count = len(steps)
        self.operands = sum(len(places) for _, _, places, _ in steps)
        self.geometries = [geometry for _, geometry, _, _ in steps]
        self.calls = <Call*>calloc(self.count + 1, sizeof(Call))
        self.places = <Place*>calloc(self.operands + 1, sizeof(Place))
        self.first = <Py_ssize_t*>calloc(self.count + 1, sizeof(Py_ssize_t))
        self.after = <int*>calloc(self.count + 1, sizeof(int))
        if (
            self.calls == NULL or self.places == NULL
            or self.first == NULL or self.after == NULL
        ):
            raise MemoryError()
        for i, (address, geometry, places, together) in enumerate(steps):
            self.calls[i].run = <Kernel>address
            self.calls[i].geometry = <const char*>geometry
            self.after[i] = group
            if not together:
                group = i + 1
            self.first[i] = j
            for slot, offset in places:
                self.places[j].slot = slot
                self.places[j].offset = offset
                j += 1

    def __dealloc__(self):
        free(self.calls)
        free(self.places)
        free(self.first)
        free(self.after)

    def __len__(self):
        return self.count


cdef class Context:
    """One arena with every operand of a program bound to its address.

    Parameters
    ----------
    program : Program
        What to run.
    poison : bool
        Fill the arena with NaN, so that a test sees memory read before it is written.

    Raises
    ------
    MemoryError
        If the arena cannot be had.
    """

    cdef readonly Program program
    cdef char* arena
    cdef char** operand
    cdef Call* calls
    cdef object raised

    def __cinit__(self, Program program, bint poison=False):
        cdef Py_ssize_t i
        self.program = program
        self.arena = <char*>aligned_allocate(program.arena_bytes)
        self.operand = <char**>calloc(program.operands + 1, sizeof(char*))
        self.calls = <Call*>calloc(program.count + 1, sizeof(Call))
        if self.arena == NULL or self.operand == NULL or self.calls == NULL:
            raise MemoryError(f"an arena of {program.arena_bytes} bytes cannot be had")
        if poison:
            memset(self.arena, 0xFF, program.arena_bytes)
        for i in range(program.operands):
            if program.places[i].slot == ARENA:
                self.operand[i] = self.arena + program.places[i].offset
            elif program.places[i].slot == ABSOLUTE:
                self.operand[i] = <char*>program.places[i].offset
        for i in range(program.count):
            self.calls[i] = program.calls[i]
            self.calls[i].operand = &self.operand[program.first[i]]

    def __dealloc__(self):
        aligned_release(self.arena)
        free(self.operand)
        free(self.calls)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(
            buffer, self, self.arena, self.program.arena_bytes, True, flags
        )

    def run(self, tuple arrays, int threads, times=None, *,
            double timeout=INFINITY, Py_ssize_t first=0, end=None):
        """Run the program once on the caller's arrays.

        Parameters
        ----------
        arrays : tuple
            C-contiguous arrays: the inputs, then the outputs.
        threads : int
            At most this many threads, the calling one included.
        times : writable buffer of float64, optional
            Gets a time stamp in seconds before the first and after every step.
        timeout : float
            Seconds after which the run ends with the step it is at.
        first, end : int, optional
            Only these steps; those before have been run and left their values.

        Returns
        -------
        int
            How many steps are done, those before `first` included.

        Raises
        ------
        ValueError, BufferError
            If an array has the wrong number of bytes or is not contiguous.
        BaseException
            What a signal's handler raised, such as KeyboardInterrupt.
        """
        cdef double[::1] stamps
        cdef double* stamp = NULL
        if times is not None:
            stamps = times
            if stamps.shape[0] != self.program.count + 1:
                raise ValueError("times wants one element more than there are steps")
            stamp = &stamps[0]
        return self.compute(
            arrays, threads, stamp, timeout, first, self.program.count if end is None else end
        )

    cdef int compute(
        self, tuple arrays, int threads, double* times, double timeout, Py_ssize_t first, Py_ssize_t end
    ) except -1:
        """Do what `run` says."""
        cdef Program program = self.program
        cdef Py_ssize_t i, held = 0, count = len(arrays)
        cdef Py_ssize_t readable = count - program.written
        cdef Py_buffer* views
        if count != len(program.external_bytes):
            raise ValueError(f"{count} arrays, wanted {len(program.external_bytes)}")
        if not 0 <= first <= end <= program.count:
            raise ValueError(f"steps {first} to {end} of {program.count}")
        views = <Py_buffer*>calloc(count + 1, sizeof(Py_buffer))
        if views == NULL:
            raise MemoryError()
        try:
            for i in range(count):
                PyObject_GetBuffer(
                    arrays[i], &views[i],
                    PyBUF_SIMPLE if i < readable else PyBUF_WRITABLE,
                )
                held += 1
                if views[i].len != program.external_bytes[i]:
                    raise ValueError(
                        f"array {i} has {views[i].len} bytes, "
                        f"wanted {program.external_bytes[i]}"
                    )
            return self.walked(views, threads, times, timeout, first, end)
        finally:
            for i in range(held):
                PyBuffer_Release(&views[i])
            free(views)

    cdef int walked(
        self, const Py_buffer* views, int threads, double* times, double timeout, Py_ssize_t first, Py_ssize_t end
    ) except -1:
        """Run the steps on the caller's memory; return how many are done."""
        cdef Program program = self.program
        cdef Py_ssize_t i
        cdef Place place
        cdef Run run
        run.calls = self.calls
        run.first = first
        run.end = run.done = end
        run.context = <void*>self
        run.times = times
        for i in range(program.operands):
            place = program.places[i]
            if place.slot > ARENA:
                self.operand[i] = <char*>views[place.slot - 1].buf + place.offset
        with nogil:
            run.deadline = seconds() + timeout
            run.due = min(run.deadline, coarse_seconds() + BETWEEN_LOOKS)
            if run.times != NULL:
                run.times[first] = seconds()
            if threads <= 1 or not team_run(
                walk, &run, threads, run.first, run.end, program.after
            ):
                walk_alone(&run)
            elif run.times != NULL:
                run.times[run.done] = seconds()
        if self.raised is not None:
            error, self.raised = self.raised, None
            raise error
        return run.done


cdef class Contexts:
    """The contexts of a program that no run is using.

    Parameters
    ----------
    program : Program
        What to run.
    most : int
        How many to keep for the next run.
    """

    cdef Program program
    cdef Py_ssize_t most
    cdef list idle

    def __init__(self, Program program, Py_ssize_t most):
        self.program = program
        self.most = most
        self.idle = []

    def __len__(self):
        return len(self.idle)

    cpdef Context take(self, bint poison):
        """Return a context that no other run uses, until it is given back.

        Raises
        ------
        MemoryError
            As `Context`.
        """
        try:
            return self.idle.pop()
        except IndexError:
            return Context(self.program, poison)

    cpdef give(self, Context context):
        """Take a context back."""
        if len(self.idle) < self.most:
            self.idle.append(context)

    def run(self, tuple arrays, int threads, bint poison):
        """Run the whole program once, as `Context.run`, in a context of its own."""
        cdef Context context = self.take(poison)
        context.compute(arrays, threads, NULL, INFINITY, 0, self.program.count)
        self.give(context)


cdef class Usual:
    """The call that most models get most of the time: one array in, one array out.

    Parameters
    ----------
    contexts : Contexts
        Of a program with one input, of float32, and one output.
    shape : tuple of int
        Of the input.
    array : type
        What the input must be; not a kind of it, which may mean something else.
    empty : callable
        Returns a new array for the output.
    threads : int
        At most this many threads.
    """

    cdef Contexts contexts
    cdef tuple shape
    cdef object array
    cdef object empty
    cdef int threads

    def __init__(self, Contexts contexts, tuple shape, array, empty, int threads):
        self.contexts = contexts
        self.shape = shape
        self.array = array
        self.empty = empty
        self.threads = threads

    def answer(self, x, bint poison):
        """Return the output for `x`, None if it is not what this call is for."""
        cdef Py_buffer views[2]
        cdef Context context
        cdef object result = None
        if type(x) is not self.array:
            return None
        try:
            PyObject_GetBuffer(x, &views[0], PyBUF_ND | PyBUF_FORMAT)
        except (BufferError, ValueError):
            return None
        try:
            if not self.fits(&views[0]):
                return None
            result = self.empty()
            PyObject_GetBuffer(result, &views[1], PyBUF_WRITABLE)
            try:
                context = self.contexts.take(poison)
                context.walked(views, self.threads, NULL, INFINITY, 0, context.program.count)
                self.contexts.give(context)
            finally:
                PyBuffer_Release(&views[1])
        finally:
            PyBuffer_Release(&views[0])
        return result

    cdef bint fits(self, const Py_buffer* view):
        """Return whether an array is float32, of the shape, and aligned."""
        cdef Py_ssize_t axis
        if view.ndim != len(self.shape) or <size_t>view.buf % sizeof(float):
            return False
        for axis in range(view.ndim):
            if view.shape[axis] != self.shape[axis]:
                return False
        return strcmp(view.format, b"f") == 0


def give_back_memory():
    """Give pages that nobody uses to the system; the allocator would keep them."""
    with nogil:
        trim()


def workers():
    """Return how many worker threads this process has, busy or asleep."""
    return team_workers()
