/* The part of the page of `nibble report` about time (report_page.h): for each kind of run what
 * took how long, in order of execution; the roofline with the machine's limits; tables. */
#include "tools/compare.h"
#include "tools/plot.h"
#include "tools/report_page.h"

#include <math.h>
#include <string.h>

#define HEIGHT 300.0

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
    return nbt_plot_colour(before);
}

static void write_legend(FILE *f, const nbt_page *p, const nbt_layers *layers) {
    fprintf(f, "<p>");
    for (size_t i = 0; i < layers->n_kinds; i++) {
        const nbt_layer *k = &layers->kinds[i];
        double share = 100 * k->seconds / layers->all.seconds;
        if (share < 0.5) break;
        nbt_legend(f, colour_of(p, k->kind), nb_format(p->arena, "%s %.1f %%", k->kind, share));
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
                          nbt_of_limit(l), nbt_bound_name(l));
    return nb_format(arena, "%s: %s %s %s: %.1f us%s", l->name, l->kind, nbt_layer_shape(arena, l),
                     l->detail, 1e6 * l->seconds, rates);
}

static void write_bars(FILE *f, const nbt_page *p, const nbt_layers *layers, const char *phase) {
    double most = 0;
    for (size_t i = 0; i < layers->count; i++) most = fmax(most, layers->items[i].seconds);
    if (!(most > 0)) return;
    const bool micro = most < 1e-3;
    const double unit = micro ? 1e6 : 1e3;
    nbt_plot plot = nbt_plot_open(f, p->arena, HEIGHT,
                                  nb_format(p->arena, "time of each operation, %s", phase));
    const char **blocks = (const char **)nb_alloc_array(p->arena, layers->count, sizeof *blocks);
    for (size_t i = 0; i < layers->count; i++) {
        const char *role;
        nbt_name_parts(p->arena, layers->items[i].name, &role, &blocks[i]);
    }
    plot.y.to = unit * most;
    nbt_plot_y(&plot, micro ? "us" : "ms");
    nbt_plot_items(
        &plot, blocks, layers->count,
        nb_format(p->arena, "%zu operations in order of execution, by block", layers->count));
    double each = (plot.x.high - plot.x.low) / (double)layers->count;
    for (size_t i = 0; i < layers->count; i++) {
        const nbt_layer *l = &layers->items[i];
        double top = nbt_axis_at(&plot.y, unit * l->seconds);
        nbt_svg_rect(f, plot.x.low + (double)i * each, top, each > 3 ? each - 1 : each,
                     plot.y.low - top, colour_of(p, l->kind), title_of(p->arena, l));
        /* What it would take at the machine's limit, dark in its bar. */
        double limit = nbt_axis_at(&plot.y, unit * fmin(l->limit, l->seconds));
        if (plot.y.low - limit >= 0.5)
            nbt_svg_rect(f, plot.x.low + (double)i * each, limit, each > 3 ? each - 1 : each,
                         plot.y.low - limit, "rgba(0,0,0,0.35)", title_of(p->arena, l));
    }
    nbt_plot_close(&plot);
}

/* ---- roofline ------------------------------------------------------------------------------ */

static double intensity(const nbt_layer *l) { return l->ops / (double)l->bytes; }
static bool is_point(const nbt_layer *l) { return l->bytes > 0 && l->ops > 0 && l->seconds > 0; }

static void draw_peak(FILE *f, const nbt_axis *x, const nbt_axis *y, double gops, double read,
                      const char *what, double above) {
    double ridge = gops / read, from = ridge < x->from ? x->from : ridge > x->to ? x->to : ridge;
    nbt_svg_line(f, nbt_axis_at(x, from), nbt_axis_at(y, gops), x->high, nbt_axis_at(y, gops),
                 "limit");
    nbt_svg_text(f, nbt_axis_at(x, from) + 8, nbt_axis_at(y, gops) - above, "start", what);
}

/* Both axes cover all points and the ridge. */
static void choose_axes(const nbt_page *p, const nbt_layers *layers, nbt_axis *x, nbt_axis *y) {
    const nbt_limits *m = p->limits;
    const double peak = fmax(m->dot_small, fmax(m->dot, m->fma)), ridge = peak / m->read;
    double low = 1, high = ridge * 3, slow = m->read, fast = peak * 1.3;
    for (size_t i = 0; i < layers->count; i++) {
        const nbt_layer *l = &layers->items[i];
        if (!is_point(l)) continue;
        const double rate = 1e-9 * l->ops / l->seconds;
        low = fmin(low, intensity(l));
        high = fmax(high, intensity(l) * 1.2);
        slow = fmin(slow, rate);
        fast = fmax(fast, rate * 1.2);
    }
    nbt_axis_cover(x, low, high);
    nbt_axis_cover(y, slow, fast);
}

static void write_roofline(FILE *f, const nbt_page *p, const nbt_layers *layers,
                           const char *phase) {
    const nbt_limits *m = p->limits;
    double peak = fmax(m->dot_small, fmax(m->dot, m->fma));
    nbt_plot plot =
        nbt_plot_open(f, p->arena, HEIGHT + 60, nb_format(p->arena, "roofline, %s", phase));
    choose_axes(p, layers, &plot.x, &plot.y);
    nbt_plot_y(&plot, "GOP/s");
    nbt_plot_x(&plot, "operations for each byte of weights and cache");
    const nbt_axis x = plot.x, y = plot.y;
    /* The slope of memory, from where it enters the plot to the highest peak. */
    double start = fmax(x.from, y.from / m->read);
    nbt_svg_line(f, nbt_axis_at(&x, start), nbt_axis_at(&y, start * m->read),
                 nbt_axis_at(&x, peak / m->read), nbt_axis_at(&y, peak), "limit");
    /* Its name stands at the lower end, where no peak's is. */
    const double low = pow(start, 0.8) * pow(peak / m->read, 0.2);
    nbt_svg_text(f, nbt_axis_at(&x, low) + 10, nbt_axis_at(&y, low * m->read) + 14, "start",
                 nb_format(p->arena, "memory %.1f GB/s", m->read));
    draw_peak(f, &x, &y, m->fma, m->read, nb_format(p->arena, "f32 %.0f GFLOP/s", m->fma), -14);
    draw_peak(f, &x, &y, m->dot, m->read, nb_format(p->arena, "8-bit weights %.0f GOP/s", m->dot),
              4);
    if (m->dot_small > 1.05 * m->dot)
        draw_peak(f, &x, &y, m->dot_small, m->read,
                  nb_format(p->arena, "4-bit weights %.0f GOP/s", m->dot_small), 4);
    for (size_t i = 0; i < layers->count; i++) {
        const nbt_layer *l = &layers->items[i];
        if (is_point(l))
            nbt_svg_dot(f, nbt_axis_at(&x, intensity(l)),
                        nbt_axis_at(&y, 1e-9 * l->ops / l->seconds), colour_of(p, l->kind),
                        title_of(p->arena, l));
    }
    nbt_plot_close(&plot);
}

/* ---- tables -------------------------------------------------------------------------------- */

static const char *const kinds_columns[] = {"us",    "%",        "bytes",      "GB/s",
                                            "GOP/s", "of limit", "<operation", "count"};
static const char *const items_columns[] = {"us",       "%",          "bytes",     "GB/s",  "GOP/s",
                                            "of limit", "<operation", "M x K x N", "<node", "<"};

static void row(FILE *f, const nbt_page *p, const nbt_layer *l, const nbt_layer *all) {
    nb_arena *a = p->arena;
    const char *cells[NB_COUNT(items_columns)] = {
        nb_format(a, "%.2f", 1e6 * l->seconds),
        nb_format(a, "%.1f", 100 * l->seconds / all->seconds),
        l->bytes ? nb_format(a, "%lld", (long long)l->bytes) : "",
        l->bytes ? nb_format(a, "%.2f", 1e-9 * (double)l->bytes / l->seconds) : "",
        l->ops > 0 ? nb_format(a, "%.1f", 1e-9 * l->ops / l->seconds) : "",
        l->limit > 0 ? nb_format(a, "%.2f %s", nbt_of_limit(l), nbt_bound_text(l)) : "",
        l->kind ? l->kind : "all",
        l->name ? nbt_layer_shape(a, l) : nb_format(a, "%zu", l->count),
        l->name ? l->name : "",
        l->name ? l->detail : ""};
    nbt_table_row(f, items_columns, cells,
                  l->name ? NB_COUNT(items_columns) : NB_COUNT(kinds_columns));
}

static void write_tables(FILE *f, const nbt_page *p, const nbt_layers *layers) {
    nbt_table_open(f, kinds_columns, NB_COUNT(kinds_columns));
    for (size_t i = 0; i < layers->n_kinds; i++) row(f, p, &layers->kinds[i], &layers->all);
    row(f, p, &layers->all, &layers->all);
    nbt_table_close(f);
    fprintf(f, "<details><summary>All operations, the longest first</summary>\n");
    nbt_table_open(f, items_columns, NB_COUNT(items_columns));
    const nbt_layer **sorted = nbt_layers_by_time(p->arena, layers);
    for (size_t i = 0; i < layers->count; i++) row(f, p, sorted[i], &layers->all);
    nbt_table_close(f);
    fprintf(f, "</details>\n");
}

void nbt_write_time(FILE *f, const nbt_page *p) {
    for (size_t i = 0; i < p->measured->n_phases; i++) {
        const char *phase = p->measured->phases[i].name;
        fprintf(f, "<h2>%s: where the time goes</h2>\n", phase);
        const nbt_phase *ph = &p->measured->phases[i];
        fprintf(
            f,
            "<p>%zu operations: %.4g ms; the whole run: %.4g ms; unaccounted, between operations "
            "and by chance: %.4g ms.</p>\n",
            p->layers[i].count, 1e3 * p->layers[i].all.seconds, 1e3 * ph->times.median,
            1e3 * nbt_unaccounted(ph, &p->layers[i]));
        write_legend(f, p, &p->layers[i]);
        write_bars(f, p, &p->layers[i], phase);
        fprintf(f, "<h3>How close to the machine's limits</h3>\n");
        write_roofline(f, p, &p->layers[i], phase);
        write_tables(f, p, &p->layers[i]);
    }
    fprintf(f,
            "<p>Times are medians. Bytes are weights and cached entries; what fits into caches "
            "is read faster than memory. The dark part of a bar is what the operation would take "
            "at the limit that binds it: of memory, of arithmetic, or, where there are neither "
            "weights nor products, of caches through which activations go.</p>\n");
}
