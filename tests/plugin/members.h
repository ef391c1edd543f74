/* What members of the host table do when they are used rightly, as a pass for each. */
#ifndef NB_MEMBERS_H
#define NB_MEMBERS_H

#include "passes/nb_pass.h"

typedef struct member {
    const char *name;
    /* NULL when all is right, else what is not. */
    const char *(*act)(nb_pass_ctx *ctx);
} member;

/* Ends with a NULL name. They expect this graph, after calibrate on a sample. */
extern const member members[];
extern const char members_graph[];

#endif
