/* Threads that share every run of a network among them, each a part of its rows.
 *
 *     struct team *team = condensenet_team(threads);         // NULL: the system has no more threads
 *     condensenet_team_run(team, model, image, logits, workspace);
 *     condensenet_team_end(team);                            // ends the threads, frees all
 *
 * Build: cc -O3 -pthread condensenet_threads.c with a kernel that has condensenet_part: condensenet_int8.c as it is,
 * condensenet.c by way of condensenet_parts.c. The workspace holds condensenet_parts_workspace(model, words, threads)
 * floats. The thread that calls is one of the team, so `threads` - 1 are started; between runs they sleep.
 * One run of a team at a time; several teams can run at once. Whatever core a thread may use, its team may use.
 *
 * A part that is ready before the others looks for them for at most WAIT_NS, and then sleeps until the last one comes.
 */

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

enum { MOST_THREADS = 64, WAIT_NS = 50000, LOOKS = 64 };

void condensenet_part(const int32_t *model, const float *image, float *logits, float *workspace, int part, int parts,
                      void (*meet)(void *), void *place);

struct team {
    pthread_mutex_t lock;
    pthread_cond_t came; /* the last one */
    int parts, arrived, asleep, ending;
    unsigned turn; /* how often all have met */
    const int32_t *model;
    const float *image;
    float *logits, *workspace;
    struct member {
        struct team *team;
        int part;
        pthread_t thread;
    } members[MOST_THREADS];
};

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void breathe(void) {
#if defined(__aarch64__) || defined(__arm__)
    __asm__ volatile("yield");
#elif defined(__x86_64__) || defined(__i386__)
    __asm__ volatile("pause");
#endif
}

/* Returns once every member has called it. */
static void meet(void *place) {
    struct team *team = place;
    unsigned turn = __atomic_load_n(&team->turn, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&team->arrived, 1, __ATOMIC_ACQ_REL) == team->parts) {
        __atomic_store_n(&team->arrived, 0, __ATOMIC_RELAXED);
        pthread_mutex_lock(&team->lock);
        __atomic_store_n(&team->turn, turn + 1, __ATOMIC_RELEASE);
        if (team->asleep) pthread_cond_broadcast(&team->came);
        pthread_mutex_unlock(&team->lock);
        return;
    }
    int64_t end = now_ns() + WAIT_NS;
    do {
        for (int look = 0; look < LOOKS; look++, breathe())
            if (__atomic_load_n(&team->turn, __ATOMIC_ACQUIRE) != turn) return;
    } while (now_ns() < end);
    pthread_mutex_lock(&team->lock);
    team->asleep++;
    while (__atomic_load_n(&team->turn, __ATOMIC_ACQUIRE) == turn) pthread_cond_wait(&team->came, &team->lock);
    team->asleep--;
    pthread_mutex_unlock(&team->lock);
}

static void do_part(struct team *team, int part) {
    condensenet_part(team->model, team->image, team->logits, team->workspace, part, team->parts, meet, team);
}

static void *serve(void *argument) {
    struct member *member = argument;
    for (;;) {
        meet(member->team);
        if (member->team->ending) return NULL;
        do_part(member->team, member->part);
        meet(member->team);
    }
}

/* Ends the threads that were started: members 1 to started - 1. */
static void end(struct team *team, int started) {
    team->parts = started;
    team->ending = 1;
    meet(team);
    for (int part = 1; part < started; part++) pthread_join(team->members[part].thread, NULL);
    pthread_cond_destroy(&team->came);
    pthread_mutex_destroy(&team->lock);
    free(team);
}

void condensenet_team_end(struct team *team) { end(team, team->parts); }

struct team *condensenet_team(int threads) {
    struct team *team = threads < 1 || threads > MOST_THREADS ? NULL : calloc(1, sizeof *team);
    if (!team) return NULL;
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->came, NULL);
    team->parts = threads;
    for (int part = 1; part < threads; part++) {
        struct member *member = &team->members[part];
        *member = (struct member){.team = team, .part = part};
        if (pthread_create(&member->thread, NULL, serve, member) != 0) {
            end(team, part);
            return NULL;
        }
    }
    return team;
}

void condensenet_team_run(struct team *team, const int32_t *model, const float *image, float *logits,
                          float *workspace) {
    team->model = model;
    team->image = image;
    team->logits = logits;
    team->workspace = workspace;
    meet(team);
    do_part(team, 0);
    meet(team);
}
