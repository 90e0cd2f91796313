/* Callers, leases, rests, steps, early ends and forks of the thread team, for the sanitizers.
 *
 * Several threads run jobs at once. Every part of a step reads what all parts of the step
 * before wrote, and writes its own place: a missing edge between steps is a data race, as
 * -DWITHOUT_ORDER shows. */
#include "team.h"
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_PARTS 6
#define STEPS 20
#define RUNS 40
#define CALLERS 4

typedef struct {
    long place[2][MOST_PARTS];
    int stop, done;
    long wrong[MOST_PARTS];
} Places;

static void step(Places *places, int number, int part, int parts) {
    for (int k = 0; k < parts && number; k++)
        places->wrong[part] += places->place[(number - 1) % 2][k] != number;
#ifdef WITHOUT_ORDER
    usleep(50);
#endif
    places->place[number % 2][part] = number + 1;
    if (part && number % 4 == part % 4) usleep(300); /* longer than others spin */
}

static void walk(void *argument, Team *team, int part) {
    Places *places = argument;
    for (int i = team_begin(team); i < team->steps; i++) {
        team_wait(team, team->after[i]);
        if (part == 0 && i == places->stop) {
            places->done = team_end(team);
            return;
        }
        for (int turn = 0; turn < team->parts; turn++) {
            int own = (part + turn) % team->parts;
            if (!team_take(team, own, i)) continue;
            step(places, i, own, team->parts);
            team_finish(team);
        }
    }
}

static long runs(int seed) {
    int after[STEPS];
    long wrong = 0;
#ifdef WITHOUT_ORDER
    for (int i = 0; i < STEPS; i++) after[i] = 0;
#else
    for (int i = 0; i < STEPS; i++) after[i] = i;
#endif
    for (int i = 0; i < RUNS; i++) {
        int parts = 1 + (seed + i) % MOST_PARTS;
        Places places = {.stop = i % 3 ? STEPS : i % STEPS, .done = STEPS};
        wrong += !team_run(walk, &places, parts, 0, STEPS, after);
        for (int k = 0; k < parts; k++) wrong += places.wrong[k];
        wrong += places.done < places.stop && places.done < STEPS;
        if (i % 4 == 3) usleep(400); /* workers go to sleep, here or elsewhere */
    }
    return wrong;
}

static void *caller(void *seed) { return (void *)runs((int)(intptr_t)seed); }

int main(void) {
    pthread_t threads[CALLERS];
    long wrong = 0;
    for (intptr_t i = 0; i < CALLERS; i++)
        pthread_create(&threads[i], NULL, caller, (void *)i);
    for (int i = 0; i < CALLERS; i++) {
        void *found;
        pthread_join(threads[i], &found);
        wrong += (long)found;
    }
    wrong += team_workers() > 2 * CALLERS * (MOST_PARTS - 1);
    int status;
    pid_t child = fork();
    if (child == 0) _exit(team_workers() != 0 || runs(3) != 0);
    waitpid(child, &status, 0);
    printf("%ld wrong, child %d\n", wrong, WEXITSTATUS(status));
    return wrong != 0 || status != 0;
}
