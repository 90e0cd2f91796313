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
#include <time.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define SPINS 4000
#define MOST_WORKERS 1024

static inline void pause_briefly(void) {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Those who work on one run, and the barrier between its steps. */
typedef struct Team {
    int parts;
    atomic_int arrived, phase, sleepers, left;
    pthread_mutex_t lock;
    pthread_cond_t moved;
} Team;

/* What a job begins with, so that its parts can find the barrier. */
typedef struct Job {
    Team *team;
} Job;

typedef void (*Work)(void *job, int part, int parts);

typedef struct Worker {
    struct Worker *next;
    pthread_mutex_t lock;
    pthread_cond_t called;
    atomic_int busy;
    Work work;
    void *job;
    int part;
} Worker;

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static Worker *idle_workers;
static int worker_count;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void forget_workers(void) {
    pthread_mutex_init(&pool_lock, NULL);
    idle_workers = NULL;
    worker_count = 0;
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, forget_workers); }

/* Wait until every part has come here. `phase` starts at 0 and belongs to the part. */
static void team_barrier(Team *team, int *phase) {
    int mine = (*phase)++;
    if (atomic_fetch_add(&team->arrived, 1) + 1 == team->parts) {
        atomic_store(&team->arrived, 0);
        atomic_store(&team->phase, mine + 1);
        if (atomic_load(&team->sleepers)) {
            pthread_mutex_lock(&team->lock);
            pthread_cond_broadcast(&team->moved);
            pthread_mutex_unlock(&team->lock);
        }
        return;
    }
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&team->phase, memory_order_acquire) != mine) return;
        pause_briefly();
    }
    pthread_mutex_lock(&team->lock);
    atomic_fetch_add(&team->sleepers, 1);
    while (atomic_load(&team->phase) == mine)
        pthread_cond_wait(&team->moved, &team->lock);
    atomic_fetch_sub(&team->sleepers, 1);
    pthread_mutex_unlock(&team->lock);
}

static void *serve(void *argument) {
    Worker *self = argument;
    for (;;) {
        for (int i = 0; i < SPINS && !atomic_load_explicit(&self->busy, memory_order_acquire); i++)
            pause_briefly();
        if (!atomic_load(&self->busy)) {
            pthread_mutex_lock(&self->lock);
            while (!atomic_load(&self->busy)) pthread_cond_wait(&self->called, &self->lock);
            pthread_mutex_unlock(&self->lock);
        }
        Team *team = ((Job *)self->job)->team;
        self->work(self->job, self->part, team->parts);
        atomic_store(&self->busy, 0);
        /* The last touch: after it the team may be gone. */
        atomic_fetch_add(&team->left, 1);
    }
    return NULL;
}

static Worker *new_worker(void) {
    Worker *worker = calloc(1, sizeof *worker);
    if (!worker) return NULL;
    pthread_mutex_init(&worker->lock, NULL);
    pthread_cond_init(&worker->called, NULL);
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

/* Call `work` for every part at once, the calling thread being part 0; return how many
 * parts there were: fewer than asked if threads cannot be had. */
static int team_run(Work work, void *job, int parts) {
    Team team = {.parts = 1};
    ((Job *)job)->team = &team;
    if (parts <= 1) {
        work(job, 0, 1);
        return 1;
    }
    pthread_once(&fork_once, watch_forks);
    Worker *leased = NULL;
    pthread_mutex_lock(&pool_lock);
    while (team.parts < parts) {
        Worker *worker = idle_workers;
        if (worker) {
            idle_workers = worker->next;
        } else {
            if (worker_count >= MOST_WORKERS || !(worker = new_worker())) break;
            worker_count++;
        }
        worker->next = leased;
        leased = worker;
        team.parts++;
    }
    pthread_mutex_unlock(&pool_lock);
    pthread_mutex_init(&team.lock, NULL);
    pthread_cond_init(&team.moved, NULL);
    int part = 1;
    for (Worker *worker = leased; worker; worker = worker->next) {
        worker->work = work;
        worker->job = job;
        worker->part = part++;
        pthread_mutex_lock(&worker->lock);
        atomic_store(&worker->busy, 1);
        pthread_cond_signal(&worker->called);
        pthread_mutex_unlock(&worker->lock);
    }
    work(job, 0, team.parts);
    for (int i = 0; atomic_load(&team.left) < team.parts - 1; i++) {
        if (i < SPINS) pause_briefly(); else sched_yield();
    }
    pthread_mutex_destroy(&team.lock);
    pthread_cond_destroy(&team.moved);
    if (leased) {
        Worker *last = leased;
        while (last->next) last = last->next;
        pthread_mutex_lock(&pool_lock);
        last->next = idle_workers;
        idle_workers = leased;
        pthread_mutex_unlock(&pool_lock);
    }
    return team.parts;
}

/* Denormal numbers cost dozens of cycles each; a run treats them as zero and puts the
 * caller's floating-point state back. */
#if defined(__x86_64__)
static inline unsigned int flush_denormals(void) {
    unsigned int state = _mm_getcsr();
    _mm_setcsr((state & ~0x3fu) | 0x8040);
    return state;
}
static inline void restore_denormals(unsigned int state) { _mm_setcsr(state); }
#elif defined(__aarch64__)
static inline unsigned int flush_denormals(void) {
    uint64_t state;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(state));
    __asm__ __volatile__("msr fpcr, %0" : : "r"(state | (1u << 24)));
    return (unsigned int)state;
}
static inline void restore_denormals(unsigned int state) {
    __asm__ __volatile__("msr fpcr, %0" : : "r"((uint64_t)state));
}
#else
static inline unsigned int flush_denormals(void) { return 0; }
static inline void restore_denormals(unsigned int state) { (void)state; }
#endif

static inline double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

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
