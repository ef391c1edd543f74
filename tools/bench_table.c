/* The tables of `nibble profile` and `nibble bench --layers`, and the same as JSON (bench.h). */
#include "tools/bench.h"

#include <stdio.h>
#include <string.h>

/* Lines of a table without --verbose. */
#define LONGEST 20

/* A figure for a table: empty when there is none. */
static const char *figure(nb_arena *arena, const char *format, double value) {
    char text[32];
    if (!(value > 0)) return "";
    snprintf(text, sizeof text, strcmp(format, "1") == 0 ? "%.1f" : "%.2f", value);
    return nb_strndup(arena, text, strlen(text));
}

/* Of short runs in microseconds. */
static double unit_of(double whole) { return whole < 0.01 ? 1e6 : 1e3; }

static void print_line(nb_arena *arena, const nbt_layer *l, double whole, const char *what) {
    double rate = l->seconds > 0 ? 1e-9 / l->seconds : 0;
    printf("%9.3f %5.1f%% %7s %8s %5s %-5s %s\n", unit_of(whole) * l->seconds,
           whole > 0 ? 100 * l->seconds / whole : 0, figure(arena, "2", (double)l->bytes * rate),
           figure(arena, "1", l->ops * rate), figure(arena, "2", nbt_of_limit(l)),
           nbt_bound_text(l), what);
}

static void print_item(nb_arena *arena, const nbt_layer *l, double whole) {
    print_line(arena, l, whole,
               nb_format(arena, "%-10s %-16s %s%s%s", l->kind, nbt_layer_shape(arena, l),
                         nb_escape(arena, l->name, strlen(l->name)), *l->detail ? "  " : "",
                         l->detail));
}

void nbt_print_layers(nb_arena *arena, const nbt_phase *phase, const nbt_layers *layers, bool all) {
    const nbt_layer **sorted = nbt_layers_by_time(arena, layers);
    size_t shown = all || layers->count <= LONGEST ? layers->count : LONGEST;
    double whole = layers->all.seconds;
    nbt_layer rest = {0};
    printf("\n%s: %zu operations, %.3f ms of %.3f ms\n"
           "       %s  share    GB/s    GOP/s  of limit   operation  M x K x N        node\n",
           phase->name, layers->count, 1e3 * whole, 1e3 * phase->times.median,
           unit_of(whole) > 1e3 ? "us" : "ms");
    for (size_t i = 0; i < layers->count; i++) {
        if (i < shown)
            print_item(arena, all ? &layers->items[i] : sorted[i], whole);
        else
            nbt_layer_add(&rest, sorted[i]);
    }
    if (rest.count)
        print_line(arena, &rest, whole,
                   nb_format(arena, "%zu more (--verbose lists all, in order)", rest.count));
    printf("%s by kind\n", phase->name);
    for (size_t i = 0; i < layers->n_kinds; i++)
        print_line(arena, &layers->kinds[i], whole,
                   nb_format(arena, "%-10s %zu", layers->kinds[i].kind, layers->kinds[i].count));
    print_line(arena, &layers->all, whole, nb_format(arena, "%-10s %zu", "all", layers->count));
    const double rest_of_run = nbt_unaccounted(phase, layers);
    printf("unaccounted %.3f of %.3f %s (%.1f%%): between operations, and by chance\n",
           unit_of(whole) * rest_of_run, unit_of(whole) * phase->times.median,
           unit_of(whole) > 1e3 ? "us" : "ms",
           phase->times.median > 0 ? 100 * rest_of_run / phase->times.median : 0);
}

/* ---- JSON ---------------------------------------------------------------------------------- */

static json_t *number_or_null(double value) { return value > 0 ? json_real(value) : json_null(); }

static json_t *layer_json(nb_arena *arena, const nbt_layer *l, double whole) {
    double rate = l->seconds > 0 ? 1e-9 / l->seconds : 0;
    json_t *j = json_pack(
        "{s:s, s:f, s:f, s:I, s:I, s:f, s:o, s:o, s:o}", "op", l->kind, "ms", 1e3 * l->seconds,
        "share", whole > 0 ? l->seconds / whole : 0, "bytes", (json_int_t)l->bytes, "moved_bytes",
        (json_int_t)l->moved, "ops", l->ops, "gb_s", number_or_null((double)l->bytes * rate),
        "gop_s", number_or_null(l->ops * rate), "of_limit", number_or_null(nbt_of_limit(l)));
    if (l->name) {
        json_object_set_new(j, "node", json_string(nb_escape(arena, l->name, strlen(l->name))));
        json_object_set_new(j, "detail", json_string(l->detail));
        json_object_set_new(j, "bound", l->bound ? json_string(nbt_bound_name(l)) : json_null());
        if (l->k)
            json_object_set_new(
                j, "mkn",
                json_pack("[I,I,I]", (json_int_t)l->m, (json_int_t)l->k, (json_int_t)l->n));
    } else {
        json_object_set_new(j, "count", json_integer((json_int_t)l->count));
    }
    return j;
}

json_t *nbt_layers_json(nb_arena *arena, const nbt_phase *phase, const nbt_layers *layers) {
    json_t *items = json_array(), *kinds = json_array();
    for (size_t i = 0; i < layers->count; i++)
        json_array_append_new(items, layer_json(arena, &layers->items[i], layers->all.seconds));
    for (size_t i = 0; i < layers->n_kinds; i++)
        json_array_append_new(kinds, layer_json(arena, &layers->kinds[i], layers->all.seconds));
    return json_pack("{s:f, s:f, s:f, s:o, s:o}", "ms", 1e3 * layers->all.seconds, "run_ms",
                     1e3 * phase->times.median, "unaccounted_ms",
                     1e3 * nbt_unaccounted(phase, layers), "operations", items, "kinds", kinds);
}
