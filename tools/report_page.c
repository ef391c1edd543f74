/* Writes the page of `nibble report` (report_page.h): for each kind of run what took how long, in
 * order of execution; the roofline with the machine's limits; tables. */
#include "tools/report_page.h"

#include "tools/svg.h"

#include <math.h>
#include <string.h>

#define WIDTH  960.0
#define HEIGHT 300.0
#define LEFT   64.0
#define RIGHT  10.0
#define TOP    14.0
#define BOTTOM 40.0

/* Kinds of ops by the time they take, and one colour for all others. */
static const char *const colours[] = {"#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951",
                                      "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e"};
static const char other[] = "#9498a0";

static const char style[] =
    "body{font:15px/1.45 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;"
    "color:#1b1e23;background:#fff}\n"
    "h1{font-size:1.5em}h2{margin-top:2em}svg{width:100%;height:auto;font-size:12px}\n"
    "svg "
    "text{fill:#444}.axis{stroke:#888}.grid{stroke:#ddd}.limit{stroke:#c0392b;stroke-width:1.5}\n"
    "table{border-collapse:collapse;font-size:13px}td,th{padding:2px 8px;text-align:right;"
    "border-bottom:1px solid #e4e4e4}\n"
    ".t{text-align:left}.n{text-align:left;overflow-wrap:anywhere}th{background:#f3f4f6}i{display:"
    "inline-block;"
    "width:.8em;height:.8em;margin:0 .35em 0 1em}\n"
    "code{overflow-wrap:anywhere}details{margin:1em 0}\n";

/* ---- colours ------------------------------------------------------------------------------- */

static double seconds_of_kind(const nbt_layers *layers, const char *kind) {
    for (size_t i = 0; i < layers->n_kinds; i++) {
        if (strcmp(layers->kinds[i].kind, kind) == 0) return layers->kinds[i].seconds;
    }
    return 0;
}

/* The share of a kind, summed over all phases, so that it has one colour in all of them. */
static double weight_of(const nbt_page *p, const char *kind) {
    double sum = 0;
    for (size_t i = 0; i < p->measured->n_phases; i++) {
        double all = p->layers[i].all.seconds;
        if (all > 0) sum += seconds_of_kind(&p->layers[i], kind) / all;
    }
    return sum;
}

/* How many kinds come before it; each is counted in the first phase that has it. */
static const char *colour_of(const nbt_page *p, const char *kind) {
    double own = weight_of(p, kind);
    size_t before = 0;
    for (size_t i = 0; i < p->measured->n_phases; i++) {
        for (size_t k = 0; k < p->layers[i].n_kinds; k++) {
            const char *name = p->layers[i].kinds[k].kind;
            if (i > 0 && seconds_of_kind(&p->layers[0], name) > 0) continue;
            double theirs = weight_of(p, name);
            before += theirs > own || (theirs == own && strcmp(name, kind) < 0);
        }
    }
    return before < NB_COUNT(colours) ? colours[before] : other;
}

static void write_legend(FILE *f, const nbt_page *p, const nbt_layers *layers) {
    fprintf(f, "<p>");
    for (size_t i = 0; i < layers->n_kinds; i++) {
        const nbt_layer *k = &layers->kinds[i];
        double share = 100 * k->seconds / layers->all.seconds;
        if (share < 0.5) break;
        fprintf(f, "<i style=\"background:%s\"></i>", colour_of(p, k->kind));
        nbt_html(f, nb_format(p->arena, "%s %.1f %%", k->kind, share));
    }
    fprintf(f, "</p>\n");
}

/* ---- time in order of execution ------------------------------------------------------------ */

/* One line for the mouse. */
static const char *title_of(nb_arena *arena, const nbt_layer *l) {
    const char *rates = "";
    if (l->bound != NBT_BOUND_NONE)
        rates = nb_format(arena, ", %.1f GB/s, %.1f GOP/s, %.2f of the %s limit",
                          1e-9 * (double)l->bytes / l->seconds, 1e-9 * l->ops / l->seconds,
                          nbt_of_limit(l), l->bound == NBT_BOUND_MEMORY ? "memory" : "arithmetic");
    return nb_format(arena, "%s: %s %s %s: %.1f us%s", l->name, l->kind, nbt_layer_shape(arena, l),
                     l->detail, 1e6 * l->seconds, rates);
}

static void write_bars(FILE *f, const nbt_page *p, const nbt_layers *layers, const char *phase) {
    double most = 0;
    for (size_t i = 0; i < layers->count; i++) most = fmax(most, layers->items[i].seconds);
    if (!(most > 0)) return;
    bool micro = most < 1e-3;
    double unit = micro ? 1e6 : 1e3;
    nbt_axis y = {0, unit * most, HEIGHT - BOTTOM, TOP, false};
    nbt_svg_open(f, WIDTH, HEIGHT, nb_format(p->arena, "time of each operation, %s", phase));
    for (double t = 0; t <= y.to; t = nbt_axis_tick(&y, t, 5)) {
        nbt_svg_line(f, LEFT, nbt_axis_at(&y, t), WIDTH - RIGHT, nbt_axis_at(&y, t), "grid");
        nbt_svg_text(f, LEFT - 6, nbt_axis_at(&y, t) + 4, "end",
                     nb_format(p->arena, "%g %s", t, micro ? "us" : "ms"));
    }
    double each = (WIDTH - LEFT - RIGHT) / (double)layers->count;
    for (size_t i = 0; i < layers->count; i++) {
        const nbt_layer *l = &layers->items[i];
        double top = nbt_axis_at(&y, unit * l->seconds);
        nbt_svg_rect(f, LEFT + (double)i * each, top, each > 3 ? each - 1 : each, y.low - top,
                     colour_of(p, l->kind), title_of(p->arena, l));
    }
    nbt_svg_line(f, LEFT, y.low, WIDTH - RIGHT, y.low, "axis");
    nbt_svg_text(f, (LEFT + WIDTH) / 2, HEIGHT - 12, "middle",
                 nb_format(p->arena, "%zu operations in order of execution", layers->count));
    nbt_svg_close(f);
}

/* ---- roofline ------------------------------------------------------------------------------ */

static double intensity(const nbt_layer *l) { return l->ops / (double)l->bytes; }
static bool is_point(const nbt_layer *l) { return l->bytes > 0 && l->ops > 0 && l->seconds > 0; }

static void draw_peak(FILE *f, const nbt_axis *x, const nbt_axis *y, double gops, double read,
                      const char *what) {
    double ridge = gops / read, from = ridge < x->from ? x->from : ridge > x->to ? x->to : ridge;
    nbt_svg_line(f, nbt_axis_at(x, from), nbt_axis_at(y, gops), x->high, nbt_axis_at(y, gops),
                 "limit");
    nbt_svg_text(f, nbt_axis_at(x, from) + 8, nbt_axis_at(y, gops) - 4, "start", what);
}

static void draw_grid(FILE *f, const nbt_page *p, const nbt_axis *x, const nbt_axis *y) {
    for (double t = nbt_axis_tick(x, 0, 0); t <= x->to * 1.001; t = nbt_axis_tick(x, t, 0)) {
        nbt_svg_line(f, nbt_axis_at(x, t), y->low, nbt_axis_at(x, t), y->high, "grid");
        nbt_svg_text(f, nbt_axis_at(x, t), y->low + 16, "middle", nb_format(p->arena, "%g", t));
    }
    for (double t = nbt_axis_tick(y, 0, 0); t <= y->to * 1.001; t = nbt_axis_tick(y, t, 0)) {
        nbt_svg_line(f, x->low, nbt_axis_at(y, t), x->high, nbt_axis_at(y, t), "grid");
        nbt_svg_text(f, x->low - 6, nbt_axis_at(y, t) + 4, "end", nb_format(p->arena, "%g", t));
    }
    nbt_svg_text(f, x->low, y->high - 4, "start", "GOP/s");
    nbt_svg_text(f, (x->low + x->high) / 2, y->low + 34, "middle",
                 "operations for each byte of weights and cache");
}

/* Both axes cover all points, the ridge, and whole powers of ten. */
static void choose_axes(const nbt_page *p, const nbt_layers *layers, nbt_axis *x, nbt_axis *y) {
    const nbt_limits *m = p->limits;
    double peak = fmax(m->dot_small, fmax(m->dot, m->fma)), ridge = peak / m->read;
    *x = (nbt_axis){1, ridge * 3, LEFT, WIDTH - RIGHT, true};
    *y = (nbt_axis){m->read, peak * 1.3, HEIGHT + 60 - BOTTOM, TOP + 10, true};
    for (size_t i = 0; i < layers->count; i++) {
        const nbt_layer *l = &layers->items[i];
        if (!is_point(l)) continue;
        double rate = 1e-9 * l->ops / l->seconds;
        x->from = fmin(x->from, intensity(l));
        x->to = fmax(x->to, intensity(l) * 1.2);
        y->from = fmin(y->from, rate);
        y->to = fmax(y->to, rate * 1.2);
    }
    x->from = pow(10, floor(log10(x->from)));
    y->from = pow(10, floor(log10(y->from)));
}

static void write_roofline(FILE *f, const nbt_page *p, const nbt_layers *layers,
                           const char *phase) {
    const nbt_limits *m = p->limits;
    double peak = fmax(m->dot_small, fmax(m->dot, m->fma));
    nbt_axis x, y;
    choose_axes(p, layers, &x, &y);
    nbt_svg_open(f, WIDTH, HEIGHT + 60, nb_format(p->arena, "roofline, %s", phase));
    draw_grid(f, p, &x, &y);
    /* The slope of memory, from where it enters the plot to the highest peak. */
    double start = fmax(x.from, y.from / m->read);
    nbt_svg_line(f, nbt_axis_at(&x, start), nbt_axis_at(&y, start * m->read),
                 nbt_axis_at(&x, peak / m->read), nbt_axis_at(&y, peak), "limit");
    double middle = sqrt(start * peak / m->read);
    nbt_svg_text(f, nbt_axis_at(&x, middle) + 14, nbt_axis_at(&y, middle * m->read) + 14, "start",
                 nb_format(p->arena, "memory %.1f GB/s", m->read));
    draw_peak(f, &x, &y, m->fma, m->read, nb_format(p->arena, "f32 %.0f GFLOP/s", m->fma));
    draw_peak(f, &x, &y, m->dot, m->read, nb_format(p->arena, "8-bit weights %.0f GOP/s", m->dot));
    if (m->dot_small > 1.05 * m->dot)
        draw_peak(f, &x, &y, m->dot_small, m->read,
                  nb_format(p->arena, "4-bit weights %.0f GOP/s", m->dot_small));
    for (size_t i = 0; i < layers->count; i++) {
        const nbt_layer *l = &layers->items[i];
        if (is_point(l))
            nbt_svg_dot(f, nbt_axis_at(&x, intensity(l)),
                        nbt_axis_at(&y, 1e-9 * l->ops / l->seconds), colour_of(p, l->kind),
                        title_of(p->arena, l));
    }
    nbt_svg_close(f);
}

/* ---- tables -------------------------------------------------------------------------------- */

static void cell(FILE *f, const char *text) {
    fprintf(f, "<td>");
    nbt_html(f, text);
}

/* Names may be long: they break anywhere. */
static void text_cell(FILE *f, const char *text) {
    fprintf(f, "<td class=n>");
    nbt_html(f, text);
}

static void row(FILE *f, const nbt_page *p, const nbt_layer *l, const nbt_layer *all) {
    bool bounded = l->limit > 0;
    fprintf(f, "<tr>");
    cell(f, nb_format(p->arena, "%.2f", 1e6 * l->seconds));
    cell(f, nb_format(p->arena, "%.1f", 100 * l->seconds / all->seconds));
    cell(f, l->bytes ? nb_format(p->arena, "%lld", (long long)l->bytes) : "");
    cell(f, l->bytes ? nb_format(p->arena, "%.2f", 1e-9 * (double)l->bytes / l->seconds) : "");
    cell(f, l->ops > 0 ? nb_format(p->arena, "%.1f", 1e-9 * l->ops / l->seconds) : "");
    cell(f, bounded ? nb_format(p->arena, "%.2f %s", nbt_of_limit(l), nbt_bound_text(l)) : "");
    fprintf(f, "<td class=t>");
    nbt_html(f, l->kind ? l->kind : "all");
    cell(f, l->name ? nbt_layer_shape(p->arena, l) : nb_format(p->arena, "%zu", l->count));
    text_cell(f, l->name ? l->name : "");
    text_cell(f, l->name ? l->detail : "");
    fprintf(f, "</tr>\n");
}

static void table_begin(FILE *f, const char *size, const char *name) {
    fprintf(f,
            "<table><tr><th>us<th>%%<th>bytes<th>GB/s<th>GOP/s<th>of limit<th class=t>operation"
            "<th>%s<th class=t>%s<th></tr>\n",
            size, name);
}

static void write_tables(FILE *f, const nbt_page *p, const nbt_layers *layers) {
    table_begin(f, "count", "");
    for (size_t i = 0; i < layers->n_kinds; i++) row(f, p, &layers->kinds[i], &layers->all);
    row(f, p, &layers->all, &layers->all);
    fprintf(f, "</table>\n<details open><summary>All operations, the longest first</summary>\n");
    table_begin(f, "M x K x N", "node");
    const nbt_layer **sorted = nbt_layers_by_time(p->arena, layers);
    for (size_t i = 0; i < layers->count; i++) row(f, p, sorted[i], &layers->all);
    fprintf(f, "</table></details>\n");
}

/* ---- the page ------------------------------------------------------------------------------ */

static void fact(FILE *f, const char *name, const char *value) {
    fprintf(f, "<tr><td class=t>");
    nbt_html(f, name);
    fprintf(f, "<td class=n><code>");
    nbt_html(f, value);
    fprintf(f, "</code></tr>\n");
}

static void write_facts(FILE *f, const nbt_page *p) {
    const nbt_measured *b = p->measured;
    const nbt_limits *m = p->limits;
    nb_arena *a = p->arena;
    fprintf(f, "<table>\n");
    for (size_t i = 0; i < b->n_phases; i++) {
        const nbt_phase *ph = &b->phases[i];
        const char *rate = "";
        if (ph->tokens)
            rate = nb_format(a, "; %.1f tokens/s", (double)ph->tokens / ph->times.median);
        fact(f, ph->name,
             nb_format(a, "%.4g ms (%.4g to %.4g, %lld rounds)%s", 1e3 * ph->times.median,
                       1e3 * ph->times.min, 1e3 * ph->times.max, (long long)b->rounds, rate));
    }
    if (b->decoder)
        fact(f, "tokens",
             nb_format(a, "prompt of %lld, %lld more, %lld side by side; logits of %s",
                       (long long)b->prompt, (long long)b->out, (long long)b->batch,
                       b->last_logits || b->prompt == 1 ? "the last position" : "all positions"));
    fact(f, "weights",
         nb_format(a, "%lld bytes in %s", (long long)b->weights.bytes,
                   nbt_where_text(a, b->weights)));
    fact(f, "machine",
         nb_format(a,
                   "%s, %d threads: memory %.1f GB/s, i8 by 8-bit weights %.1f GOP/s, by 4-bit "
                   "weights %.1f GOP/s, f32 %.1f GFLOP/s, %.2f GHz",
                   m->cpu, m->threads, m->read, m->dot, m->dot_small, m->fma, m->clock));
    const char *options = "";
    for (size_t i = 0; i < p->options->count; i++)
        options = nb_format(a, "%s%s%s", options, i ? " " : "", p->options->items[i]);
    fact(f, "options", *options ? options : "none");
    fact(f, "passes", p->pipeline);
    fprintf(f, "</table>\n");
}

void nbt_write_page(FILE *f, const nbt_page *p) {
    fprintf(f, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<title>");
    nbt_html(f, p->model);
    fprintf(f, "</title>\n<style>\n%s</style></head><body>\n<h1>", style);
    nbt_html(f, p->model);
    fprintf(f, "</h1>\n");
    write_facts(f, p);
    for (size_t i = 0; i < p->measured->n_phases; i++) {
        const char *phase = p->measured->phases[i].name;
        fprintf(f, "<h2>%s: where the time goes</h2>\n", phase);
        write_legend(f, p, &p->layers[i]);
        write_bars(f, p, &p->layers[i], phase);
        fprintf(f, "<h3>How close to the machine's limits</h3>\n");
        write_roofline(f, p, &p->layers[i], phase);
        write_tables(f, p, &p->layers[i]);
    }
    fprintf(f,
            "<p>Written by nibble %s. Times are medians. Bytes are weights and cached entries; "
            "what fits into caches is read faster than memory.</p>\n</body></html>\n",
            NIBBLE_VERSION);
}
