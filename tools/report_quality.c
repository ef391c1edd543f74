/* The part of the page of `nibble report` about what quantization loses (report_page.h): a table of
 * schemes; how errors grow along the residual stream; and for each scheme the errors of its layers,
 * what they take, their bits, and what passes chose. */
#include "tools/plot.h"
#include "tools/report_page.h"

#include <math.h>
#include <string.h>

#define HEIGHT 300.0
#define MEDIAN "#6cc5b0"
#define WORST  "#c0392b"

/* ---- schemes -------------------------------------------------------------------------------- */

static void write_schemes(FILE *f, const nbt_page *p) {
    static const char *const columns[] = {"<scheme",         "perplexity",      "KL divergence",
                                          "top-1 agreement", "bits per weight", "bytes"};
    nb_arena *a = p->arena;
    const nbt_scores *first = p->qualities[0].scored ? &p->qualities[0].scores : NULL;
    fprintf(f, "<h2>What quantization loses</h2>\n");
    nbt_table_open(f, columns, NB_COUNT(columns));
    if (first) {
        const char *cells[] = {
            "f32 (reference)", nb_format(a, "%.4f", first->ref_ppl), "", "", "", ""};
        nbt_table_row(f, columns, cells, NB_COUNT(columns));
    }
    for (size_t i = 0; i < p->n_qualities; i++) {
        const nbt_quality *q = &p->qualities[i];
        const nbt_scores *s = &q->scores;
        const nbt_size *size = &q->errors.size;
        const char *cells[] = {
            q->errors.scheme,
            q->scored ? nb_format(a, "%.4f +- %.4f", s->ppl, s->ppl_se) : "",
            q->scored ? nb_format(a, "%.3e +- %.1e", s->kld_mean, s->kld_se) : "",
            q->scored ? nb_format(a, "%.2f %% +- %.2f", 100 * s->top1, 100 * s->top1_se) : "",
            nb_format(a, "%.2f", size->bits_per_weight),
            nb_format(a, "%lld", (long long)(size->bytes + size->other_bytes))};
        nbt_table_row(f, columns, cells, NB_COUNT(columns));
    }
    nbt_table_close(f);
    if (first)
        fprintf(f, "<p>%zu predictions, windows of %lld tokens.</p>\n", first->predictions,
                (long long)first->context);
}

/* ---- the residual stream -------------------------------------------------------------------- */

static void cover_errors(const nbt_page *p, nbt_axis *y) {
    double low = INFINITY, high = 0;
    for (size_t k = 0; k < p->n_qualities; k++) {
        const nbt_comparison *c = &p->qualities[k].errors;
        for (size_t i = 0; i < c->n_stream; i++) {
            const double e = nbt_relative_error(c->stream[i].whole);
            if (!(e > 0) || !isfinite(e)) continue;
            low = fmin(low, e);
            high = fmax(high, e);
        }
    }
    nbt_axis_cover(y, high > 0 ? low : 1e-3, high > 0 ? high : 1);
}

static void draw_stream(nbt_plot *plot, const nbt_comparison *c, const char *colour) {
    double *x = NB_NEW_ARRAY(plot->arena, double, 2 * c->n_stream + 1), *y = x + c->n_stream;
    size_t n = 0;
    for (size_t i = 0; i < c->n_stream; i++) {
        const nbt_error e = c->stream[i].whole;
        if (!(e.noise > 0) || !(e.signal > 0)) continue;
        x[n] = nbt_axis_at(&plot->x, (double)i);
        y[n] = nbt_axis_at(&plot->y, nbt_relative_error(e));
        nbt_svg_dot(plot->f, x[n], y[n], colour,
                    nb_format(plot->arena, "%s, after %s: relative error %.3e, SQNR %s dB",
                              c->scheme, c->stream[i].name, nbt_relative_error(e),
                              nbt_sqnr_text(plot->arena, e)));
        n++;
    }
    nbt_svg_path(plot->f, x, y, n, colour);
}

static void write_stream_table(FILE *f, const nbt_page *p) {
    const size_t n = 1 + 2 * p->n_qualities;
    const nbt_comparison *first = &p->qualities[0].errors;
    const char **columns = (const char **)nb_alloc_array(p->arena, n, sizeof *columns),
               **cells = (const char **)nb_alloc_array(p->arena, n, sizeof *cells);
    columns[0] = "<after";
    for (size_t k = 0; k < p->n_qualities; k++) {
        columns[1 + 2 * k] = nb_format(p->arena, "%s: error", p->qualities[k].errors.scheme);
        columns[2 + 2 * k] = "SQNR, dB";
    }
    fprintf(f, "<details><summary>As a table</summary>\n");
    nbt_table_open(f, columns, n);
    for (size_t i = 0; i < first->n_stream; i++) {
        cells[0] = first->stream[i].name;
        for (size_t k = 0; k < p->n_qualities; k++) {
            const nbt_comparison *c = &p->qualities[k].errors;
            const nbt_error e = i < c->n_stream ? c->stream[i].whole : (nbt_error){0};
            cells[1 + 2 * k] = nb_format(p->arena, "%.3e", nbt_relative_error(e));
            cells[2 + 2 * k] = nbt_sqnr_text(p->arena, e);
        }
        nbt_table_row(f, columns, cells, n);
    }
    nbt_table_close(f);
    fprintf(f, "</details>\n");
}

static void write_stream(FILE *f, const nbt_page *p) {
    const nbt_comparison *first = &p->qualities[0].errors;
    if (!first->n_stream) return;
    fprintf(f, "<h2>How errors grow</h2>\n<p>The residual stream after each sum, against that of "
               "the float model: norm of the difference by norm of the float values.</p>\n<p>");
    for (size_t k = 0; k < p->n_qualities; k++)
        nbt_legend(f, nbt_plot_colour(k), p->qualities[k].errors.scheme);
    fprintf(f, "</p>\n");
    const char **blocks = (const char **)nb_alloc_array(p->arena, first->n_stream, sizeof *blocks);
    for (size_t i = 0; i < first->n_stream; i++) {
        const char *role;
        nbt_name_parts(p->arena, first->stream[i].name, &role, &blocks[i]);
    }
    nbt_plot plot = nbt_plot_open(f, p->arena, HEIGHT, "error of the residual stream");
    cover_errors(p, &plot.y);
    nbt_plot_y(&plot, "relative error");
    nbt_plot_items(&plot, blocks, first->n_stream, "sums of the residual stream, by block");
    for (size_t k = 0; k < p->n_qualities; k++)
        draw_stream(&plot, &p->qualities[k].errors, nbt_plot_colour(k));
    nbt_plot_close(&plot);
    write_stream_table(f, p);
}

/* ---- layers --------------------------------------------------------------------------------- */

/* Layers as a plot has them: what block each is in, and its colour by role. */
typedef struct shown {
    const nbt_comparison *c;
    nb_arena *arena;
    const char **blocks;
    size_t *roles;
    NB_VEC(const char *) names; /* of roles */
} shown;

static shown show(nb_arena *arena, const nbt_comparison *c) {
    shown s = {.c = c, .arena = arena};
    s.blocks = (const char **)nb_alloc_array(arena, c->n_layers + 1, sizeof *s.blocks);
    s.roles = NB_NEW_ARRAY(arena, size_t, c->n_layers + 1);
    for (size_t i = 0; i < c->n_layers; i++) {
        size_t *role = &s.roles[i];
        s.blocks[i] = c->layers[i].block;
        while (*role < s.names.count && strcmp(s.names.items[*role], c->layers[i].role) != 0)
            ++*role;
        if (*role == s.names.count) nb_vec_push(arena, &s.names, c->layers[i].role);
    }
    return s;
}

static void write_roles(FILE *f, const shown *s) {
    fprintf(f, "<p>");
    for (size_t i = 0; i < s->names.count && i < 12; i++)
        nbt_legend(f, nbt_plot_colour(i), s->names.items[i]);
    fprintf(f, "</p>\n");
}

static void draw_error(nbt_plot *plot, const shown *s, size_t i, nbt_error e, bool alone) {
    const nbt_layer_error *l = &s->c->layers[i];
    if (!(e.noise > 0) || !(e.signal > 0)) return;
    const double x = nbt_axis_at(&plot->x, (double)i), y = nbt_axis_at(&plot->y, nbt_sqnr(e));
    const char *colour = nbt_plot_colour(s->roles[i]),
               *title = nb_format(plot->arena, "%s %s: %.1f dB %s", l->name, l->detail, nbt_sqnr(e),
                                  alone ? "alone" : "in the whole model");
    if (alone)
        nbt_svg_dot(plot->f, x, y, colour, title);
    else
        nbt_svg_ring(plot->f, x, y, colour, title);
}

static void cover_sqnr(const nbt_comparison *c, nbt_axis *y) {
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < c->n_layers; i++) {
        const nbt_error both[] = {c->layers[i].alone, c->layers[i].whole};
        for (size_t k = 0; k < 2; k++) {
            if (!(both[k].noise > 0) || !(both[k].signal > 0)) continue;
            low = fmin(low, nbt_sqnr(both[k]));
            high = fmax(high, nbt_sqnr(both[k]));
        }
    }
    y->from = low <= high ? 10 * floor(low / 10) : 0;
    y->to = low <= high ? 10 * ceil(high / 10) : 10;
    if (y->from == y->to) y->to += 10;
}

static void write_sqnr(FILE *f, const shown *s) {
    fprintf(f, "<p>Filled: the layer alone, on float inputs. Ring: in the whole quantized "
               "model.</p>\n");
    write_roles(f, s);
    nbt_plot plot = nbt_plot_open(f, s->arena, HEIGHT, "SQNR of each layer's output");
    cover_sqnr(s->c, &plot.y);
    nbt_plot_y(&plot, "SQNR of the output, dB");
    nbt_plot_items(&plot, s->blocks, s->c->n_layers, "layers in order of execution, by block");
    for (size_t i = 0; i < s->c->n_layers; i++) {
        draw_error(&plot, s, i, s->c->layers[i].whole, false);
        draw_error(&plot, s, i, s->c->layers[i].alone, true);
    }
    nbt_plot_close(&plot);
}

static void write_bits(FILE *f, const shown *s) {
    double most = 1;
    for (size_t i = 0; i < s->c->n_layers; i++) most = fmax(most, nbt_bits_of(&s->c->layers[i]));
    fprintf(f, "<h3>Bits of each layer</h3>\n");
    nbt_plot plot = nbt_plot_open(f, s->arena, 200, "bits per weight of each layer");
    plot.y.to = ceil(most);
    nbt_plot_y(&plot, "bits per weight, with scales");
    nbt_plot_items(&plot, s->blocks, s->c->n_layers, "layers in order of execution, by block");
    const double each = (plot.x.high - plot.x.low) / (double)nb_max_i64(1, (int64_t)s->c->n_layers);
    for (size_t i = 0; i < s->c->n_layers; i++) {
        const nbt_layer_error *l = &s->c->layers[i];
        const double top = nbt_axis_at(&plot.y, nbt_bits_of(l));
        nbt_svg_rect(f, plot.x.low + (double)i * each, top, each > 3 ? each - 1 : each,
                     plot.y.low - top, nbt_plot_colour(s->roles[i]),
                     nb_format(s->arena, "%s %s: %.2f bits, %lld bytes", l->name, l->detail,
                               nbt_bits_of(l), (long long)l->bytes));
    }
    nbt_plot_close(&plot);
}

static void write_layer_table(FILE *f, const shown *s) {
    static const char *const columns[] = {"alone, dB", "whole, dB", "weights", "bits",
                                          "bytes",     "<layer",    "<"};
    fprintf(f, "<details><summary>All layers</summary>\n");
    nbt_table_open(f, columns, NB_COUNT(columns));
    for (size_t i = 0; i < s->c->n_layers; i++) {
        const nbt_layer_error *l = &s->c->layers[i];
        const char *cells[] = {nbt_sqnr_text(s->arena, l->alone),
                               nbt_sqnr_text(s->arena, l->whole),
                               nb_format(s->arena, "%lld", (long long)l->weights),
                               nb_format(s->arena, "%.2f", nbt_bits_of(l)),
                               nb_format(s->arena, "%lld", (long long)l->bytes),
                               l->name,
                               l->detail};
        nbt_table_row(f, columns, cells, NB_COUNT(columns));
    }
    nbt_table_close(f);
    fprintf(f, "</details>\n");
}

/* ---- what layers take ----------------------------------------------------------------------- */

static bool has_range(const nbt_input *in) { return in->ranges.largest > 0; }
/* Channels that rest may be most: the plot ends below. */
static double median_of(const nbt_input *in) {
    return fmax((double)in->ranges.median, 1e-4 * (double)in->ranges.largest);
}

static void draw_range(nbt_plot *plot, const nbt_input *in, size_t i) {
    const double x = nbt_axis_at(&plot->x, (double)i), low = nbt_axis_at(&plot->y, median_of(in)),
                 high = nbt_axis_at(&plot->y, (double)in->ranges.largest);
    const char *title =
        nb_format(plot->arena, "%s: median %.3g, largest %.3g, that of channel %lld of %lld",
                  in->layer, (double)in->ranges.median, (double)in->ranges.largest,
                  (long long)in->largest, (long long)in->channels);
    nbt_svg_rect(plot->f, x - 2, high, 4, fmax(low - high, 0.5), MEDIAN, title);
    nbt_svg_dot(plot->f, x, low, MEDIAN, title);
    for (int64_t k = 0; k < in->ranges.count; k++)
        nbt_svg_dot(plot->f, x, nbt_axis_at(&plot->y, (double)in->amax[in->outliers[k]]), WORST,
                    nb_format(plot->arena, "%s: channel %lld, %.3g, %.0f times the median",
                              in->layer, (long long)in->outliers[k],
                              (double)in->amax[in->outliers[k]],
                              (double)(in->amax[in->outliers[k]] / in->ranges.median)));
}

static const char *numbers_of(nb_arena *arena, const nbt_input *in) {
    const char *all = "";
    for (int64_t k = 0; k < in->ranges.count && k < 16; k++)
        all = nb_format(arena, "%s%s%lld", all, k ? ", " : "", (long long)in->outliers[k]);
    return in->ranges.count > 16
               ? nb_format(arena, "%s and %lld more", all, (long long)in->ranges.count - 16)
               : all;
}

static void write_range_table(FILE *f, nb_arena *arena, const nbt_comparison *c) {
    static const char *const columns[] = {"channels",           "median",           "largest",
                                          "times the median",   "<largest channel", "<outliers",
                                          "<input of the layer"};
    fprintf(f, "<details><summary>As a table</summary>\n");
    nbt_table_open(f, columns, NB_COUNT(columns));
    for (size_t i = 0; i < c->n_inputs; i++) {
        const nbt_input *in = &c->inputs[i];
        const nb_outliers *r = &in->ranges;
        const char *cells[] = {
            nb_format(arena, "%lld", (long long)in->channels),
            nb_format(arena, "%.4g", (double)r->median),
            nb_format(arena, "%.4g", (double)r->largest),
            r->median > 0 ? nb_format(arena, "%.1f", (double)(r->largest / r->median)) : "",
            nb_format(arena, "%lld", (long long)in->largest),
            numbers_of(arena, in),
            in->layer};
        nbt_table_row(f, columns, cells, NB_COUNT(columns));
    }
    nbt_table_close(f);
    fprintf(f, "</details>\n");
}

static void write_ranges(FILE *f, nb_arena *arena, const nbt_comparison *c) {
    double low = INFINITY, high = 0;
    const char **blocks = (const char **)nb_alloc_array(arena, c->n_inputs + 1, sizeof *blocks);
    for (size_t i = 0; i < c->n_inputs; i++) {
        const char *role;
        nbt_name_parts(arena, c->inputs[i].layer, &role, &blocks[i]);
        if (!has_range(&c->inputs[i])) continue;
        low = fmin(low, median_of(&c->inputs[i]));
        high = fmax(high, (double)c->inputs[i].ranges.largest);
    }
    if (!(high > 0) || !(high < HUGE_VAL)) return;
    fprintf(f, "<h3>What layers take</h3>\n<p>The largest |x| of each channel in the float model, "
               "as smoothing and rotation left it.</p>\n<p>");
    nbt_legend(f, MEDIAN, "from the median channel to the largest");
    nbt_legend(f, WORST,
               nb_format(arena, "outlier channels: above %g times the median", (double)NB_OUTLIER));
    fprintf(f, "</p>\n");
    nbt_plot plot = nbt_plot_open(f, arena, HEIGHT, "ranges of the inputs of layers");
    nbt_axis_cover(&plot.y, low, high);
    nbt_plot_y(&plot, "largest |x| of a channel");
    nbt_plot_items(&plot, blocks, c->n_inputs, "inputs of linear layers, by block");
    for (size_t i = 0; i < c->n_inputs; i++) {
        if (has_range(&c->inputs[i])) draw_range(&plot, &c->inputs[i], i);
    }
    nbt_plot_close(&plot);
    write_range_table(f, arena, c);
}

/* ---- what passes chose ---------------------------------------------------------------------- */

static bool same_kind(const nb_fact *a, const nb_fact *b) {
    return strcmp(a->pass, b->pass) == 0 && strcmp(a->name, b->name) == 0;
}

static void write_fact_table(FILE *f, nb_arena *arena, const nb_fact *const *facts, size_t n) {
    const char *columns[] = {facts[0]->name, "<node"};
    fprintf(f, "<details><summary>As a table</summary>\n");
    nbt_table_open(f, columns, NB_COUNT(columns));
    for (size_t i = 0; i < n; i++) {
        const char *cells[] = {nb_format(arena, "%g", facts[i]->value), facts[i]->node};
        nbt_table_row(f, columns, cells, NB_COUNT(columns));
    }
    nbt_table_close(f);
    fprintf(f, "</details>\n");
}

static void write_facts_of(FILE *f, nb_arena *arena, const nb_fact *const *facts, size_t n) {
    const char *what = nb_format(arena, "%s of %s", facts[0]->name, facts[0]->pass);
    const char **blocks = (const char **)nb_alloc_array(arena, n, sizeof *blocks);
    nbt_plot plot;
    double low = 0, high = 0;
    for (size_t i = 0; i < n; i++) {
        const char *role;
        nbt_name_parts(arena, facts[i]->node, &role, &blocks[i]);
        low = fmin(low, facts[i]->value);
        high = fmax(high, facts[i]->value);
    }
    fprintf(f, "<h3>Chosen: ");
    nbt_html(f, what);
    fprintf(f, "</h3>\n");
    plot = nbt_plot_open(f, arena, 200, what);
    plot.y.from = low;
    plot.y.to = high > low ? high : low + 1;
    nbt_plot_y(&plot, facts[0]->name);
    nbt_plot_items(&plot, blocks, n, "places in order of execution, by block");
    for (size_t i = 0; i < n; i++)
        nbt_svg_dot(f, nbt_axis_at(&plot.x, (double)i), nbt_axis_at(&plot.y, facts[i]->value),
                    nbt_plot_colour(0),
                    nb_format(arena, "%s: %g", facts[i]->node, facts[i]->value));
    nbt_plot_close(&plot);
    write_fact_table(f, arena, facts, n);
}

/* Those of one pass and name together, in the order of the first. */
static void write_facts(FILE *f, nb_arena *arena, const nb_facts *facts) {
    for (size_t i = 0; i < facts->count; i++) {
        NB_VEC(const nb_fact *) same = {0};
        for (size_t k = 0; k < facts->count; k++) {
            if (!same_kind(&facts->items[i], &facts->items[k])) continue;
            if (k < i) break;
            nb_vec_push(arena, &same, (const nb_fact *)&facts->items[k]);
        }
        if (same.count) write_facts_of(f, arena, same.items, same.count);
    }
}

/* ---- the whole ------------------------------------------------------------------------------ */

void nbt_write_quality(FILE *f, const nbt_page *p) {
    write_schemes(f, p);
    write_stream(f, p);
    for (size_t i = 0; i < p->n_qualities; i++) {
        const nbt_comparison *c = &p->qualities[i].errors;
        const shown s = show(p->arena, c);
        fprintf(f, "<h2>");
        nbt_html(f, c->scheme);
        fprintf(f, ": where errors come from</h2>\n");
        if (c->n_layers) {
            write_sqnr(f, &s);
            write_bits(f, &s);
            write_layer_table(f, &s);
        }
        write_ranges(f, p->arena, c);
        write_facts(f, p->arena, &c->facts);
    }
}
