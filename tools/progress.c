/* Progress on standard error (progress.h). */
#include "tools/progress.h"

#include "lib/timing.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WIDTH 30 /* of the bar */

/* Seconds between two lines. */
#define PAUSE_BAR  0.1
#define PAUSE_LINE 10

static void put_time(double seconds) {
    if (seconds < 120)
        fprintf(stderr, "%.0f s", seconds);
    else
        fprintf(stderr, "%.0f min", seconds / 60);
}

static void show(const nbt_progress *p, const char *what, size_t done, size_t total, double seconds,
                 bool terminal) {
    double rate = (double)(done - p->first) / seconds, left = (double)(total - done) / rate;
    size_t filled = done * WIDTH / total;
    char bar[WIDTH + 4] = "";
    if (terminal) {
        snprintf(bar, sizeof bar, "[%*s] ", WIDTH, "");
        memset(bar + 1, '#', filled);
    }
    fprintf(stderr, "%s%s %s%zu/%zu, %.3g/s, ", terminal ? "\r" : "", what, bar, done, total, rate);
    put_time(done < total ? left : seconds);
    if (done < total) fputs(" left", stderr);
    fputs(!terminal ? "\n" : done < total ? "\033[K" : "\033[K\n", stderr);
}

void nbt_show_progress(void *user, const char *what, size_t done, size_t total) {
    nbt_progress *p = user;
    double now = nbl_now();
    if (p->quiet) return;
    if (p->start == 0 || done <= p->last) {
        nbt_end_progress(p);
        *p = (nbt_progress){.start = now, .first = done};
    }
    p->last = done;
    bool terminal = isatty(STDERR_FILENO);
    double pause = terminal ? PAUSE_BAR : PAUSE_LINE;
    bool begun = p->shown > 0, due = begun ? now - p->shown >= pause : now - p->start >= 1;
    if (done == p->first || !(due || (begun && done == total))) return;
    p->shown = now;
    p->open = terminal && done < total;
    show(p, what, done, total, now - p->start, terminal);
}

void nbt_end_progress(nbt_progress *p) {
    if (p->open) fputc('\n', stderr);
    p->open = false;
}
