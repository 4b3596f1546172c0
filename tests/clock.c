/* Shifts the wall clock of a process by CLOCK_OFFSET seconds; tests/clock.py preloads it.
 *
 * Monotonic clocks and relative timeouts stay as they are. A deadline on the wall clock is shifted
 * back before the kernel gets it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t offset(void) {
    static time_t known;
    static int is_known;
    if (!is_known) {
        const char *text = getenv("CLOCK_OFFSET");
        known = text ? atol(text) : 0;
        is_known = 1;
    }
    return known;
}

static int is_wall_clock(clockid_t clock) {
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int result = syscall(SYS_clock_gettime, clock, at);
    if (!result && is_wall_clock(clock))
        at->tv_sec += offset();
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    int result = syscall(SYS_gettimeofday, at, zone);
    if (!result)
        at->tv_sec += offset();
    return result;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *at, int base) {
    return clock_gettime(CLOCK_REALTIME, at) ? 0 : base;
}

/* Return the deadline on the true clock. No machine has been up for 30 years, so that a smaller
 * number is a time of the monotonic clock. */
static struct timespec shift_back(const struct timespec *deadline) {
    struct timespec shifted = *deadline;
    if (shifted.tv_sec > 1000000000)
        shifted.tv_sec -= offset();
    return shifted;
}

#define ORIGINAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict deadline) {
    struct timespec shifted = shift_back(deadline);
    return ORIGINAL(sem_timedwait)(semaphore, &shifted);
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict deadline) {
    struct timespec shifted = shift_back(deadline);
    return ORIGINAL(pthread_cond_timedwait)(condition, mutex, &shifted);
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until,
                    struct timespec *left) {
    struct timespec shifted = *until;
    if (is_wall_clock(clock) && flags == TIMER_ABSTIME)
        shifted = shift_back(until);
    return syscall(SYS_clock_nanosleep, clock, flags, &shifted, left) ? errno : 0;
}
