/* Progress on standard error of what takes more than a second: a bar with rate and time left when
 * it is a terminal, else a plain line now and then. */
#ifndef NBT_PROGRESS_H
#define NBT_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct nbt_progress {
    bool quiet; /* say nothing */
    bool open;  /* the cursor stands behind a bar */
    double start, shown;
    size_t first, last; /* done when it began, and when it was called last */
} nbt_progress;

/* An nb_pass_env's progress; `user` is an nbt_progress, all zeros at first. `done` that does not
 * grow is the beginning of something else. */
void nbt_show_progress(void *user, const char *what, size_t done, size_t total);

/* Ends a line that is open: what is written next, an error above all, has one of its own. */
void nbt_end_progress(nbt_progress *p);

#endif
