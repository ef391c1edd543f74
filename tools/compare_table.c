/* Comparisons as text and as JSON (compare.h). */
#include "tools/compare.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *shown(nb_arena *arena, const char *name) {
    return nb_escape(arena, name, strlen(name));
}

double nbt_bits_of(const nbt_layer_error *l) {
    return l->weights ? 8.0 * (double)l->bytes / (double)l->weights : 0;
}

/* ---- text ----------------------------------------------------------------------------------- */

const char *nbt_sqnr_text(nb_arena *arena, nbt_error e) {
    const double db = nbt_sqnr(e);
    return nbt_is_exact(e) ? "-" : isnan(db) ? "nan" : nb_format(arena, "%.1f", db);
}

static void print_layers(nb_arena *arena, const nbt_comparison *c) {
    printf("%s: SQNR of each layer's output in dB, on float inputs and in the whole model\n"
           " alone  whole   bits  layer\n",
           c->scheme);
    for (size_t i = 0; i < c->n_layers; i++) {
        const nbt_layer_error *l = &c->layers[i];
        printf("%6s %6s %6.2f  %s%s%s\n", nbt_sqnr_text(arena, l->alone),
               nbt_sqnr_text(arena, l->whole), nbt_bits_of(l), shown(arena, l->name),
               *l->detail ? "  " : "", l->detail);
    }
}

static void print_inputs(nb_arena *arena, const nbt_comparison *c) {
    for (size_t i = 0; i < c->n_inputs; i++) {
        const nbt_input *in = &c->inputs[i];
        if (!in->ranges.count) continue;
        const char *numbers = "";
        for (int64_t k = 0; k < in->ranges.count && k < 8; k++)
            numbers = nb_format(arena, "%s %lld", numbers, (long long)in->outliers[k]);
        printf("outliers: %s takes %lld of %lld channels up to %.0f times the median:%s%s\n",
               shown(arena, in->layer), (long long)in->ranges.count, (long long)in->channels,
               (double)(in->ranges.largest / in->ranges.median), numbers,
               in->ranges.count > 8 ? " ..." : "");
    }
}

/* The streams have the same places: all begin with one model. */
static void print_streams(nb_arena *arena, const nbt_comparison *all, size_t n) {
    if (!all->n_stream) return;
    printf("residual stream: relative error, and SQNR in dB\n");
    for (size_t k = 0; k < n; k++) printf("%16s  ", all[k].scheme);
    printf("after\n");
    for (size_t i = 0; i < all->n_stream; i++) {
        for (size_t k = 0; k < n; k++) {
            const nbt_error e = i < all[k].n_stream ? all[k].stream[i].whole : (nbt_error){0};
            printf("%10.3e %5s  ", nbt_relative_error(e), nbt_sqnr_text(arena, e));
        }
        printf("%s\n", shown(arena, all->stream[i].name));
    }
}

void nbt_print_comparisons(nb_arena *arena, const nbt_comparison *all, size_t n) {
    for (size_t k = 0; k < n; k++) {
        print_layers(arena, &all[k]);
        print_inputs(arena, &all[k]);
    }
    print_streams(arena, all, n);
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static json_t *error_json(nbt_error e) {
    return json_pack("{s:o, s:o}", "relative", nbt_json_number(nbt_relative_error(e)), "sqnr_db",
                     nbt_json_number(nbt_sqnr(e)));
}

static json_t *layer_json(nb_arena *arena, const nbt_layer_error *l) {
    return json_pack("{s:s, s:s, s:I, s:I, s:f, s:o, s:o}", "node", shown(arena, l->name), "detail",
                     l->detail, "weights", (json_int_t)l->weights, "bytes", (json_int_t)l->bytes,
                     "bits", nbt_bits_of(l), "alone", error_json(l->alone), "whole",
                     error_json(l->whole));
}

static json_t *input_json(nb_arena *arena, const nbt_input *in) {
    json_t *numbers = json_array();
    for (int64_t i = 0; i < in->ranges.count; i++)
        json_array_append_new(numbers, json_integer((json_int_t)in->outliers[i]));
    return json_pack("{s:s, s:I, s:f, s:f, s:I, s:o}", "layer", shown(arena, in->layer), "channels",
                     (json_int_t)in->channels, "median", (double)in->ranges.median, "max",
                     (double)in->ranges.largest, "largest", (json_int_t)in->largest, "outliers",
                     numbers);
}

static json_t *fact_json(nb_arena *arena, const nb_fact *f) {
    return json_pack("{s:s, s:s, s:s, s:f}", "pass", f->pass, "node", shown(arena, f->node), "name",
                     shown(arena, f->name), "value", f->value);
}

json_t *nbt_comparison_json(nb_arena *arena, const nbt_comparison *c) {
    json_t *layers = json_array(), *inputs = json_array(), *stream = json_array(),
           *facts = json_array();
    for (size_t i = 0; i < c->n_layers; i++)
        json_array_append_new(layers, layer_json(arena, &c->layers[i]));
    for (size_t i = 0; i < c->n_inputs; i++)
        json_array_append_new(inputs, input_json(arena, &c->inputs[i]));
    for (size_t i = 0; i < c->n_stream; i++) {
        json_t *place = error_json(c->stream[i].whole);
        json_object_set_new(place, "after", json_string(shown(arena, c->stream[i].name)));
        json_array_append_new(stream, place);
    }
    for (size_t i = 0; i < c->facts.count; i++)
        json_array_append_new(facts, fact_json(arena, &c->facts.items[i]));
    return json_pack("{s:s, s:I, s:I, s:f, s:o, s:o, s:o, s:o}", "scheme", c->scheme, "samples",
                     (json_int_t)c->n_samples, "bytes",
                     (json_int_t)(c->size.bytes + c->size.other_bytes), "bpw",
                     c->size.bits_per_weight, "layers", layers, "inputs", inputs, "stream", stream,
                     "facts", facts);
}
