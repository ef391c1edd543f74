/* Every way to misuse the host table, as a pass for each. */
#ifndef NB_MISUSE_H
#define NB_MISUSE_H

#include "passes/nb_pass.h"

typedef struct misuse {
    const char *name;
    const char *message; /* what the diagnostic must hold */
    void (*act)(nb_pass_ctx *ctx);
} misuse;

/* Ends with a NULL name. They expect the graph of plugin_tests.c. */
extern const misuse misuses[];

#endif
