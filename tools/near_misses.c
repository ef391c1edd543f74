/* Rewrites that nearly fired (near_misses.h). */
#include "tools/near_misses.h"

#include "ir/text.h"
#include "passes/linear.h"

#include <string.h>

bool nbt_is_asked(const nbt_near_misses *n, const nb_op *op) {
    if (!n->selector) return true;
    for (uint32_t i = 0; op && op->loc && i < op->loc->n_at; i++)
        if (nb_match_name(n->selector, op->loc->at[i])) return true;
    return false;
}

static void hear(void *user, const nb_near_miss *m) {
    nbt_near_misses *n = user;
    if (!nbt_is_asked(n, m->op)) return;
    nb_arena *arena = n->arena;
    const nbt_near_miss found = {.pass = m->pass,
                                 .rule = nb_strdup(arena, m->rule),
                                 .equation = nb_strdup(arena, m->equation),
                                 .why = nb_strdup(arena, m->why),
                                 .node = m->op ? nb_strdup(arena, nb_loc_name(m->op->loc)) : "",
                                 .text = m->op ? nb_print_op(arena, m->op) : "",
                                 .op = m->op ? m->op->id : UINT32_MAX};
    nb_vec_push(arena, &n->now, found);
}

/* A pass that goes over the graph several times may have done later what it could not do first. */
static void keep(void *user, const nb_pass_event *event) {
    nbt_near_misses *n = user;
    if (!n->now.count) return;
    bool *there = NB_NEW_ARRAY(n->arena, bool, (size_t)event->graph->n_ops + 1);
    NB_FOR_OPS(op, &event->graph->body) there[op->id] = true;
    for (size_t i = 0; i < n->now.count; i++) {
        const nbt_near_miss *m = &n->now.items[i];
        const char *key = nb_format(n->arena, "%u %s %s %s", m->op, m->pass, m->rule, m->why);
        if (m->op != UINT32_MAX && !there[m->op]) continue;
        if (nb_map_get_str(&n->known, key, strlen(key))) continue;
        nb_map_set_str(&n->known, key, strlen(key), (void *)(uintptr_t)key);
        nb_vec_push(n->arena, &n->all, *m);
    }
    n->now.count = 0;
}

nbt_watch nbt_watch_misses(nbt_near_misses *misses) {
    return (nbt_watch){.near_miss = hear, .after = keep, .user = misses};
}
