/* Writes the page of `nibble report` (report_page.h): what was measured and how, then its parts. */
#include "tools/report_page.h"

#include "tools/plot.h"

static const char style[] =
    ":root{color-scheme:light dark;--ink:#1b1e23;--paper:#fff;--faint:#444;--line:#e4e4e4;"
    "--grid:#ddd;--head:#f3f4f6}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#e3e5e8;--paper:#16181c;--faint:#b6bac2;"
    "--line:#33373e;--grid:#30343b;--head:#22252b}}\n"
    "body{font:15px/1.45 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;"
    "color:var(--ink);background:var(--paper)}\n"
    "h1{font-size:1.5em;overflow-wrap:anywhere}h2{margin-top:2em}\n"
    ".plot{overflow-x:auto}svg{width:100%;min-width:700px;height:auto;font-size:12px;display:block}"
    "\nsvg text{fill:var(--faint)}.axis{stroke:#888}.grid{stroke:var(--grid)}"
    ".limit{stroke:#c0392b;stroke-width:1.5}\n"
    "table{border-collapse:collapse;font-size:13px}td,th{padding:2px 8px;text-align:right;"
    "border-bottom:1px solid var(--line)}\n"
    ".t{text-align:left}.n{text-align:left;overflow-wrap:anywhere;min-width:8em}"
    "th{background:var(--head);white-space:nowrap}\n"
    "span{white-space:nowrap;margin-right:1em}i{display:inline-block;width:.8em;height:.8em;"
    "margin-right:.35em}\n"
    "code{overflow-wrap:anywhere}details{margin:1em 0}\n";

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
    fprintf(f, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
               "<meta name=\"viewport\" content=\"width=device-width\">\n<title>");
    nbt_html(f, p->title);
    fprintf(f, "</title>\n<style>\n%s</style></head><body>\n<h1>", style);
    nbt_html(f, p->title);
    fprintf(f, "</h1>\n");
    if (p->measured) write_facts(f, p);
    if (p->n_qualities) nbt_write_quality(f, p);
    for (size_t i = 0; i < p->n_curves; i++) nbt_write_curve(f, p->arena, &p->curves[i]);
    if (p->measured) nbt_write_time(f, p);
    fprintf(f, "<p>Written by nibble %s.</p>\n</body></html>\n", NIBBLE_VERSION);
}
