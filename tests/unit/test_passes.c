/* Pipelines as text: what is accepted, and what each error says and points at. */
#include "passes/pass.h"
#include "passes/presets.h"
#include "tests/unit/unit.h"

#include <string.h>

typedef struct wrong {
    const char *text;
    const char *at; /* what the caret underlines, from there on */
    const char *message, *help;
} wrong;

static const wrong cases[] = {
    {"simplfy", "simplfy", "there is no pass 'simplfy'", "did you mean 'simplify'?"},
    {"simplify, rais", "rais", "there is no pass 'rais'", "did you mean 'raise'?"},
    {"insert-dqd{act=i8}", "insert-dqd", "there is no pass 'insert-dqd'", "'insert-qdq'"},
    {"zzzzzzzzzzzz", "zzzz", "there is no pass 'zzzzzzzzzzzz'", "lists all passes"},
    {"simplify raise", "raise", "expected ',' between passes", NULL},
    {"simplify,, raise", ", raise", "expected the name of a pass", NULL},
    {", simplify", ", simplify", "expected the name of a pass", NULL},
    {"simplify; raise", "; raise", "expected ',' between passes", NULL},
    {"\xff", "\xff", "expected the name of a pass", NULL},
    {"simplify{x=1}", "x=1}", "pass 'simplify' has no option 'x'", "it has no options"},
    {"smooth-fold{alfa=1}", "alfa=1}", "pass 'smooth-fold' has no option 'alfa'",
     "its options are alpha"},
    {"smooth-fold{alpha=2}", "2}", "option 'alpha' takes 0 to 1, found 2", NULL},
    {"smooth-fold{alpha=-0.1}", "-0.1}", "option 'alpha' takes 0 to 1, found -0.1", NULL},
    {"smooth-fold{alpha=nan}", "nan}", "option 'alpha' takes a number, found 'nan'", NULL},
    {"smooth-fold{alpha=inf}", "inf}", "option 'alpha' takes a number, found 'inf'", NULL},
    {"smooth-fold{alpha=1e999}", "1e999}", "takes a number", NULL},
    {"smooth-fold{alpha=0.5x}", "0.5x}", "option 'alpha' takes a number, found '0.5x'", NULL},
    {"smooth-fold{alpha}", "alpha}", "option 'alpha' takes a number, found 'true'", NULL},
    {"smooth-fold{alpha=}", "}", "expected a value", NULL},
    {"smooth-fold{alpha=0.5", "", "expected ',' or '}' after an option", NULL},
    {"smooth-fold{", "", "expected the name of an option of 'smooth-fold'", NULL},
    {"smooth-fold{,}", ",}", "expected the name of an option", NULL},
    {"smooth-fold{alpha=0.5 alpha=0.6}", "alpha=0.6}", "expected ',' or '}'", NULL},
    {"smooth-fold{alpha=0.5, alpha=0.6}", "alpha=0.6}", "option 'alpha' is given twice", NULL},
    {"quantize-weights{bits=1}", "1}", "option 'bits' takes 2 to 8, found 1", NULL},
    {"quantize-weights{bits=9}", "9}", "option 'bits' takes 2 to 8, found 9", NULL},
    {"quantize-weights{bits=4.5}", "4.5}", "option 'bits' takes a whole number, found '4.5'", NULL},
    {"quantize-weights{bits=99999999999999999999}", "9999", "takes a whole number", NULL},
    {"quantize-weights{group=-1}", "-1}", "option 'group' takes 0 to 65536, found -1", NULL},
    {"quantize-weights{group=65537}", "65537}", "option 'group' takes 0 to 65536", NULL},
    {"quantize-weights{search=maybe}", "maybe}", "option 'search' takes true or false", NULL},
    {"insert-qdq{act=i4}", "i4}", "option 'act' is one of i8, i16, f16, bf16; found 'i4'", NULL},
    {"insert-qdq{act=}", "}", "expected a value", NULL},
    {"insert-qdq{skip=\"a}", "\"a}", "this quotation does not end", NULL},
    {"insert-qdq{skip=\"a\\\"}", "\"a\\\"}", "this quotation does not end", NULL},
    {"calibrate{method=percentile, percentile=101}", "101}", "takes 50 to 100, found 101", NULL},
};

static nb_status parse(const char *text, nb_arena *arena, nb_diags *diags, nb_pipeline *out) {
    return nb_pipeline_parse(nb_registry_create(arena), text, arena, diags, out);
}

START_TEST(errors) {
    const wrong *w = &cases[_i];
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_pipeline pipeline;
    ck_assert_int_eq(parse(w->text, arena, diags, &pipeline), NB_USAGE);
    ck_assert_uint_eq(diags->list.count, 1);
    const nb_diag *d = diags->list.items[0];
    ck_assert_int_eq(d->status, NB_USAGE);
    ck_assert_msg(strstr(d->message, w->message) != NULL, "%s: %s", w->text, d->message);
    ck_assert_msg(!w->help || (d->help && strstr(d->help, w->help)), "%s: %s", w->text, d->help);
    ck_assert_str_eq(d->where.node, "pipeline");
    ck_assert_str_eq(d->where.snippet, w->text);
    size_t caret = (size_t)d->where.caret;
    ck_assert_msg(caret <= strlen(w->text) && strncmp(w->text + caret, w->at, strlen(w->at)) == 0,
                  "%s: the caret is at %zu", w->text, caret);
    ck_assert_int_ge(d->where.length, 1);
    ck_assert_ptr_nonnull(nb_diag_render(arena, d));
    nb_arena_destroy(arena);
}
END_TEST

START_TEST(values) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_pipeline p;
    ck_assert_int_eq(parse(" simplify ,\n\tquantize-weights { bits = 4, search, asymmetric=0 },"
                           "insert-qdq{act=i16, skip=\"a\\\"b, c}\"}, smooth-fold{},",
                           arena, diags, &p),
                     NB_OK);
    ck_assert_uint_eq(p.steps.count, 4);
    ck_assert_str_eq(p.steps.items[0].pass->name, "simplify");
    const nb_option_value *v = p.steps.items[1].options;
    ck_assert_int_eq(v[0].i, 4);
    ck_assert(v[0].given && !v[1].given);
    ck_assert_int_eq(v[1].i, 0);
    ck_assert(!v[2].b && v[2].given && v[3].b && v[3].given);
    v = p.steps.items[2].options;
    ck_assert_int_eq(v[0].i, 1);
    ck_assert_str_eq(v[0].s, "i16");
    ck_assert_str_eq(v[1].s, "dynamic");
    ck_assert_str_eq(v[2].s, "a\"b, c}");
    ck_assert(p.steps.items[3].options[0].f == 0.5);
    nb_arena_destroy(arena);
}
END_TEST

/* Lines and comments; an error shows its own line. */
START_TEST(lines) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_pipeline p;
    ck_assert_int_eq(
        parse("# first, {not a pass\nsimplify, # and then\nraise{},\n# end", arena, diags, &p),
        NB_OK);
    ck_assert_uint_eq(p.steps.count, 2);
    ck_assert_int_eq(parse("insert-qdq{skip=\"a#b\"}", arena, diags, &p), NB_OK);
    ck_assert_str_eq(p.steps.items[0].options[2].s, "a#b");
    ck_assert_int_eq(parse("simplify,\n  rais,\nsimplify", arena, diags, &p), NB_USAGE);
    const nb_diag *d = diags->list.items[0];
    ck_assert_str_eq(d->where.snippet, "  rais,");
    ck_assert_int_eq(d->where.caret, 2);
    nb_arena_destroy(arena);
}
END_TEST

/* An empty text is a pipeline without steps. */
START_TEST(empty) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_pipeline p;
    ck_assert_int_eq(parse("", arena, diags, &p), NB_OK);
    ck_assert_uint_eq(p.steps.count, 0);
    ck_assert_int_eq(parse(" \n\t", arena, diags, &p), NB_OK);
    ck_assert_uint_eq(p.steps.count, 0);
    nb_arena_destroy(arena);
}
END_TEST

/* Every range ends where it says: the bounds are accepted. */
START_TEST(bounds) {
    static const char *const good[] = {"quantize-weights{bits=4}",  "quantize-weights{bits=8}",
                                       "quantize-weights{group=0}", "quantize-weights{group=65536}",
                                       "smooth-fold{alpha=0}",      "smooth-fold{alpha=1}",
                                       "calibrate{percentile=50}",  "calibrate{percentile=100}"};
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_pipeline p;
    for (size_t i = 0; i < NB_COUNT(good); i++)
        ck_assert_msg(parse(good[i], arena, diags, &p) == NB_OK, "%s", good[i]);
    nb_arena_destroy(arena);
}
END_TEST

/* What declarations promise: names, summaries and defaults that fit, for every built-in pass. */
START_TEST(declarations) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_registry *registry = nb_registry_create(arena);
    for (size_t i = 0; i < registry->passes.count; i++) {
        const nb_pass *pass = registry->passes.items[i];
        nb_pipeline p;
        ck_assert_msg(parse(pass->name, arena, diags, &p) == NB_OK, "%s", pass->name);
        ck_assert_ptr_eq(nb_registry_find(registry, pass->name, strlen(pass->name)), pass);
        ck_assert_uint_gt(strlen(pass->summary), 0);
        ck_assert_msg(!strchr(pass->summary, '\n'), "%s", pass->name);
        for (const nb_option *o = pass->options; o && o->name; o++)
            ck_assert_msg(o->summary && *o->summary, "%s %s", pass->name, o->name);
    }
    nb_arena_destroy(arena);
}
END_TEST

/* Every scheme is a pipeline that can be read, with and without samples. */
START_TEST(presets) {
    static const char *const names[] = {"f32", "w8a16", "w8a8", "w4a16", "w4a8"};
    static const int64_t groups[] = {-1, 0, 128};
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    for (size_t i = 0; i < NB_COUNT(names); i++) {
        ck_assert_ptr_nonnull(strstr(nb_preset_names(arena), names[i]));
        for (size_t k = 0; k < 8 * NB_COUNT(groups); k++) {
            nb_preset_options options = {.group = groups[k / 8],
                                         .calibrated = k & 1,
                                         .static_scales = k & 1 && k & 4,
                                         .last_logits = k & 2};
            if (k & 1) options.adapter = "a \"quoted\" \\ name, {}";
            if (k & 2) options.adapter_scale = "-0.5";
            nb_pipeline p;
            const char *text = nb_preset(names[i], &options, arena);
            ck_assert_msg(parse(text, arena, diags, &p) == NB_OK, "%s", text);
        }
    }
    ck_assert_ptr_null(nb_preset("w3a5", &(nb_preset_options){0}, arena));
    ck_assert_ptr_null(nb_preset("", &(nb_preset_options){0}, arena));
    nb_arena_destroy(arena);
}
END_TEST

Suite *nb_suite_passes(void) {
    Suite *s = suite_create("passes");
    TCase *c = tcase_create("pipelines");
    tcase_add_loop_test(c, errors, 0, NB_COUNT(cases));
    tcase_add_test(c, values);
    tcase_add_test(c, lines);
    tcase_add_test(c, empty);
    tcase_add_test(c, bounds);
    tcase_add_test(c, declarations);
    tcase_add_test(c, presets);
    suite_add_tcase(s, c);
    return s;
}
