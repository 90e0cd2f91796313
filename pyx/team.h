/* Worker threads that belong to the process and are leased for one run at a time. */
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define MOST_WORKERS 1024
#define PATIENCE 1e-4 /* seconds of spinning before sleeping */
#define AWAKE -1

static inline void pause_briefly(void) {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static inline double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

/* A number of its own cache line. */
typedef struct Line {
    _Alignas(64) atomic_int value;
} Line;

/* One run. Its steps are cut into parts, and whoever is free takes a part: a thread that
 * comes late, or never, costs the others nothing but its help. A part is taken in the
 * order of the steps, so one number says how far it has been taken. */
typedef struct Team {
    int parts, steps;
    atomic_int users; /* the last to leave frees the team */
    int helpers, over; /* workers that are at it, and whether the caller has gone: both
                        * under the pool's lock */
    atomic_int sleepers;
    atomic_int ending; /* the caller waits for single parts, not for whole steps */
    pthread_mutex_t lock;
    pthread_cond_t moved;
    int *after;     /* for each step how many steps must be finished before it */
    Line finished;  /* parts of steps, all counted together */
    Line taken[];   /* for each part how many steps */
} Team;

typedef void (*Work)(void *job, Team *team, int part);

typedef struct Worker {
    struct Worker *next;
    int slept_on; /* the CPU it went to sleep on, or AWAKE: under the pool's lock */
    pthread_mutex_t lock;
    pthread_cond_t called;
    _Atomic(Team *) team;
    Work work;
    void *job;
    int part;
} Worker;

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static Worker *idle_workers;
static int worker_count, leased_count, most_leased, stragglers;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void forget_workers(void) {
    pthread_mutex_init(&pool_lock, NULL);
    idle_workers = NULL;
    worker_count = leased_count = most_leased = stragglers = 0;
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, forget_workers); }

/* Return the step to begin with: those before it are finished. */
static inline int team_begin(Team *team) {
    return atomic_load_explicit(&team->finished.value, memory_order_acquire) / team->parts;
}

static void team_wake(Team *team) {
    if (!atomic_load(&team->sleepers)) return;
    pthread_mutex_lock(&team->lock);
    pthread_cond_broadcast(&team->moved);
    pthread_mutex_unlock(&team->lock);
}

/* Wait until so many parts of steps are finished. */
static void team_wait_for(Team *team, int wanted) {
    double patience = 0;
    for (int i = 0;; i++) {
        if (atomic_load_explicit(&team->finished.value, memory_order_acquire) >= wanted) return;
        pause_briefly();
        if (i % 16 != 15) continue;
        double now = seconds();
        if (patience == 0) patience = now + PATIENCE;
        if (now > patience) break;
    }
    pthread_mutex_lock(&team->lock);
    atomic_fetch_add(&team->sleepers, 1);
    while (atomic_load(&team->finished.value) < wanted)
        pthread_cond_wait(&team->moved, &team->lock);
    atomic_fetch_sub(&team->sleepers, 1);
    pthread_mutex_unlock(&team->lock);
}

/* Wait until so many steps are finished. */
static inline void team_wait(Team *team, int steps) {
    team_wait_for(team, steps * team->parts);
}

/* Take a part of a step; return whether nobody had. */
static inline int team_take(Team *team, int part, int step) {
    atomic_int *taken = &team->taken[part].value;
    int before = step;
    return atomic_load_explicit(taken, memory_order_relaxed) == step &&
           atomic_compare_exchange_strong(taken, &before, step + 1);
}

/* Tell that a part that was taken is done. */
static inline void team_finish(Team *team) {
    int finished = atomic_fetch_add(&team->finished.value, 1) + 1;
    if (finished % team->parts == 0 || atomic_load(&team->ending)) team_wake(team);
}

/* Take what is left of all parts and let nobody do it; return how many steps are done.
 * Only the caller may, and not while it holds a part. */
static int team_end(Team *team) {
    int taken = 0, done = team->steps;
    atomic_store(&team->ending, 1);
    for (int part = 0; part < team->parts; part++) {
        int steps = atomic_exchange(&team->taken[part].value, team->steps);
        taken += steps;
        if (steps < done) done = steps;
    }
    team_wait_for(team, taken);
    atomic_store(&team->finished.value, team->steps * team->parts);
    team_wake(team);
    return done;
}

static Team *new_team(int parts, int first, int steps, const int *after) {
    size_t head = sizeof(Team) + parts * sizeof(Line);
    Team *team = NULL;
    if (posix_memalign((void **)&team, 64, head + steps * sizeof(int))) return NULL;
    memset(team, 0, head);
    team->parts = parts;
    team->steps = steps;
    team->after = (int *)((char *)team + head);
    memcpy(team->after, after, steps * sizeof(int));
    atomic_store(&team->finished.value, first * parts);
    for (int part = 0; part < parts; part++) atomic_store(&team->taken[part].value, first);
    atomic_store(&team->users, 1);
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->moved, NULL);
    return team;
}

static void team_leave(Team *team) {
    if (atomic_fetch_sub(&team->users, 1) > 1) return;
    pthread_mutex_destroy(&team->lock);
    pthread_cond_destroy(&team->moved);
    free(team);
}

static inline int current_cpu(void) {
#if defined(__linux__)
    return sched_getcpu();
#else
    return AWAKE;
#endif
}

/* Prepare to sleep; 0 if there is an idle worker too many and another sleeps on this CPU,
 * in which case this one has left the pool. */
static int lie_down(Worker *self) {
    int here = current_cpu(), beside = 0;
    Worker **link = NULL;
    pthread_mutex_lock(&pool_lock);
    for (Worker **at = &idle_workers; *at; at = &(*at)->next) {
        if (*at == self) link = at;
        else beside |= here != AWAKE && (*at)->slept_on == here;
    }
    int leaves = link && beside && worker_count > most_leased;
    if (leaves) {
        *link = self->next;
        worker_count--;
    } else {
        self->slept_on = here;
    }
    pthread_mutex_unlock(&pool_lock);
    return !leaves;
}

static void *serve(void *argument) {
    Worker *self = argument;
    for (;;) {
        double patience = seconds() + PATIENCE;
        for (int i = 0; !atomic_load_explicit(&self->team, memory_order_acquire); i++) {
            pause_briefly();
            if (i % 16 == 15 && seconds() > patience) break;
        }
        if (!atomic_load(&self->team)) {
            if (!lie_down(self)) break;
            pthread_mutex_lock(&self->lock);
            while (!atomic_load(&self->team)) pthread_cond_wait(&self->called, &self->lock);
            pthread_mutex_unlock(&self->lock);
        }
        Team *team = atomic_load(&self->team);
        self->work(self->job, team, self->part);
        pthread_mutex_lock(&pool_lock);
        atomic_store(&self->team, NULL);
        team->helpers--;
        stragglers -= team->over;
        leased_count--;
        self->slept_on = AWAKE;
        self->next = idle_workers;
        idle_workers = self;
        pthread_mutex_unlock(&pool_lock);
        team_leave(team);
    }
    pthread_cond_destroy(&self->called);
    pthread_mutex_destroy(&self->lock);
    free(self);
    return NULL;
}

static Worker *new_worker(void) {
    Worker *worker = calloc(1, sizeof *worker);
    if (!worker) return NULL;
    pthread_mutex_init(&worker->lock, NULL);
    pthread_cond_init(&worker->called, NULL);
    worker->slept_on = AWAKE;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    int failed = pthread_create(&thread, &detached, serve, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&detached);
    if (failed) {
        free(worker);
        return NULL;
    }
    return worker;
}

static int team_workers(void) {
    pthread_mutex_lock(&pool_lock);
    int count = worker_count;
    pthread_mutex_unlock(&pool_lock);
    return count;
}

/* Whether a thread that is made now may be put on another CPU than the caller's. */
static int has_many_cpus(void) {
#if defined(__linux__)
    cpu_set_t allowed;
    return sched_getaffinity(0, sizeof allowed, &allowed) || CPU_COUNT(&allowed) > 1;
#else
    return 0;
#endif
}

/* Return an idle worker or a new one, if there is one to be had. A worker that went to
 * sleep on the caller's CPU is the last choice: the system likes to wake a thread where it
 * slept, and there it waits for the caller, for milliseconds and beside an idle CPU. A new
 * one is placed afresh. None is made in the stead of those that are `late`. */
static Worker *find_worker(int late) {
    int here = current_cpu();
    Worker **link = &idle_workers;
    while (*link && here != AWAKE && (*link)->slept_on == here) link = &(*link)->next;
    int more = !*link && !late && worker_count < MOST_WORKERS;
    if (idle_workers) more = more && worker_count < 2 * most_leased && has_many_cpus();
    Worker *worker = more ? new_worker() : NULL;
    if (worker) {
        worker_count++;
        return worker;
    }
    if (!*link) link = &idle_workers;
    worker = *link;
    if (worker) *link = worker->next;
    return worker;
}

/* Lease workers for all parts but the caller's, as far as they can be had. A worker that
 * is late in leaving another run will be back. */
static Worker *lease(Team *team) {
    Worker *leased = NULL;
    pthread_mutex_lock(&pool_lock);
    int late = stragglers;
    for (int part = 1; part < team->parts; part++) {
        Worker *worker = find_worker(late);
        if (!worker && late-- > 0) continue;
        if (!worker) break;
        if (++leased_count > most_leased) most_leased = leased_count;
        worker->part = part;
        worker->next = leased;
        leased = worker;
        team->helpers++;
    }
    pthread_mutex_unlock(&pool_lock);
    return leased;
}

/* Have `work` called by the calling thread, as part 0, and by others that begin with
 * another part; return when every part of the steps from `first` to `steps` is finished.
 * 0 if memory is short. */
static int team_run(Work work, void *job, int parts, int first, int steps,
                    const int *after) {
    pthread_once(&fork_once, watch_forks);
    Team *team = new_team(parts, first, steps, after);
    if (!team) return 0;
    for (Worker *worker = lease(team), *next; worker; worker = next) {
        next = worker->next;
        worker->work = work;
        worker->job = job;
        atomic_fetch_add(&team->users, 1);
        pthread_mutex_lock(&worker->lock);
        atomic_store(&worker->team, team);
        pthread_cond_signal(&worker->called);
        pthread_mutex_unlock(&worker->lock);
    }
    work(job, team, 0);
    team_wait(team, steps);
    pthread_mutex_lock(&pool_lock);
    team->over = 1;
    stragglers += team->helpers;
    pthread_mutex_unlock(&pool_lock);
    team_leave(team);
    return 1;
}

/* Denormal numbers cost dozens of cycles each; a run treats them as zero, rounds to
 * nearest, traps nothing, and puts the caller's floating-point state back. */
#if defined(__x86_64__)
static inline unsigned int flush_denormals(void) {
    unsigned int state = _mm_getcsr();
    _mm_setcsr(0x9fc0);
    return state;
}
static inline void restore_denormals(unsigned int state) { _mm_setcsr(state); }
#elif defined(__aarch64__)
static inline unsigned int flush_denormals(void) {
    uint64_t state;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(state));
    __asm__ __volatile__("msr fpcr, %0" : : "r"((uint64_t)1 << 24));
    return (unsigned int)state;
}
static inline void restore_denormals(unsigned int state) {
    __asm__ __volatile__("msr fpcr, %0" : : "r"((uint64_t)state));
}
#else
static inline unsigned int flush_denormals(void) { return 0; }
static inline void restore_denormals(unsigned int state) { (void)state; }
#endif

/* Memory on a cache line, on large pages where the system offers them. */
static void *aligned_allocate(size_t bytes) {
    size_t large = (size_t)2 << 20;
    size_t align = bytes >= 2 * large ? large : 64;
    void *memory = NULL;
    if (posix_memalign(&memory, align, bytes ? bytes : 1)) return NULL;
#if defined(MADV_HUGEPAGE)
    if (align == large) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return memory;
}
static void aligned_release(void *memory) { free(memory); }
