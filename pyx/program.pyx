"""Run a planned network: an ordered list of kernels, walked without the interpreter.

# Design
A `Program` is what every run of a plan has in common: functions, geometry blocks and
where each operand lies. It never changes and is shared. A `Context` is one caller's
arena and table of addresses; it is used by one run at a time.

A run is one region without the GIL. The calling thread and the workers it leases walk
the same list; each does its part of every step and they meet at a barrier between
steps. Workers belong to the process, not to a model: a run takes as many idle ones as
it may use, makes new ones only when there are too few, and gives them back.

Waiting spins for a short time and then sleeps, so an idle process uses no CPU. A child
of ``fork`` has none of its parent's workers; it starts with an empty pool.
"""

from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from step cimport Kernel

cdef extern from "team.h" nogil:
    ctypedef void (*Work)(void* job, int part, int parts) noexcept nogil
    ctypedef struct Team:
        pass
    int team_run(Work work, void* job, int parts) noexcept
    void team_barrier(Team* team, int* phase) noexcept
    Team* team_of(void* job) noexcept
    int team_workers() noexcept
    ctypedef struct Job:
        Team* team
    unsigned int flush_denormals() noexcept
    void restore_denormals(unsigned int state) noexcept
    double seconds() noexcept
    void* aligned_allocate(size_t bytes) noexcept
    void aligned_release(void* memory) noexcept


cdef struct Call:
    Kernel run
    const void* geometry
    char** operand
    bint together


cdef struct Place:
    int slot
    Py_ssize_t offset


cdef struct Run:
    Job job
    const Call* calls
    Py_ssize_t count
    double* times


ARENA = 0
"""The slot of the context's own memory; the caller's arrays follow from 1."""

ABSOLUTE = -1
"""The slot of constants, whose offset is their address."""


cdef void walk(void* argument, int part, int parts) noexcept nogil:
    """Do one part of every step."""
    cdef Run* run = <Run*>argument
    cdef Py_ssize_t i
    cdef int phase = 0
    cdef unsigned int state = flush_denormals()
    for i in range(run.count):
        run.calls[i].run(run.calls[i].operand, run.calls[i].geometry, part, parts)
        if parts > 1 and not run.calls[i].together:
            team_barrier(run.job.team, &phase)
        if part == 0 and run.times != NULL:
            run.times[i + 1] = seconds()
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
    cdef Py_ssize_t count
    cdef Py_ssize_t operands
    cdef Call* calls
    cdef Place* places
    cdef Py_ssize_t* first

    def __cinit__(self, list steps, Py_ssize_t arena_bytes, external_bytes,
                  int written, keep):
        cdef Py_ssize_t i, j = 0
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
        if self.calls == NULL or self.places == NULL or self.first == NULL:
            raise MemoryError()
        for i, (address, geometry, places, together) in enumerate(steps):
            self.calls[i].run = <Kernel>address
            self.calls[i].geometry = <const char*>geometry
            self.calls[i].together = together
            self.first[i] = j
            for slot, offset in places:
                self.places[j].slot = slot
                self.places[j].offset = offset
                j += 1

    def __dealloc__(self):
        free(self.calls)
        free(self.places)
        free(self.first)

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

    def run(self, tuple arrays, int threads, times=None):
        """Run the program once on the caller's arrays.

        Parameters
        ----------
        arrays : tuple
            C-contiguous arrays: the inputs, then the outputs.
        threads : int
            At most this many threads, the calling one included.
        times : writable buffer of float64, optional
            Gets a time stamp in seconds before the first and after every step.

        Raises
        ------
        ValueError, BufferError
            If an array has the wrong number of bytes or is not contiguous.
        """
        cdef Py_buffer* views
        cdef double[::1] stamps
        cdef Run run
        cdef Program program = self.program
        cdef Py_ssize_t i, slot, held = 0, count = len(arrays)
        cdef Py_ssize_t readable = count - program.written
        cdef Place place
        if count != len(program.external_bytes):
            raise ValueError(f"{count} arrays, wanted {len(program.external_bytes)}")
        run.calls = self.calls
        run.count = program.count
        run.times = NULL
        if times is not None:
            stamps = times
            if stamps.shape[0] != program.count + 1:
                raise ValueError("times wants one element more than there are steps")
            run.times = &stamps[0]
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
            for i in range(program.operands):
                place = program.places[i]
                if place.slot > ARENA:
                    self.operand[i] = <char*>views[place.slot - 1].buf + place.offset
            with nogil:
                if run.times != NULL:
                    run.times[0] = seconds()
                team_run(walk, &run, threads)
        finally:
            for i in range(held):
                PyBuffer_Release(&views[i])
            free(views)


def workers():
    """Return how many worker threads this process has, busy or asleep."""
    return team_workers()
