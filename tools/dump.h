/* `--dump DIR`: the graph's text after each pass that changed it, as NN-pass.nir, and index.html, a
 * page that shows all of them and what differs between any two. */
#ifndef NBT_DUMP_H
#define NBT_DUMP_H

#include "passes/pass.h"

typedef struct nbt_dump nbt_dump;

/* Makes the folder if it is not there. `g` is the graph before the first pass, `pipeline` the text
 * of all passes. */
nb_status nbt_dump_open(const char *folder, const nb_graph *g, const char *pipeline,
                        nb_arena *arena, nb_diags *diags, nbt_dump **out);
/* Told of every pass, as nb_pass_env.after is. Writes its file. */
void nbt_dump_see(nbt_dump *dump, const nb_pass_event *event);
/* Writes the page, of a pipeline that failed too, and frees what is not the arena's; returns the
 * first error of all that was written. */
nb_status nbt_dump_close(nbt_dump *dump);

#endif
