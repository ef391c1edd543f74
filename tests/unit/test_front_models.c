/* Whole models: every decoder at hand imports and verifies, and the forms that one model was
 * exported in (opsets, with and without mask, contributed operators, packed weights, external data)
 * compute the same logits. */
#include "frontend/frontend.h"
#include "ir/eval.h"
#include "ir/verify.h"
#include "tests/unit/test_front.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS 7
#define VOCAB  512

static nb_diags *diags;

static nb_graph *load(const char *path) {
    diags = nb_diags_create(front_arena(), path);
    nb_graph *g = NULL;
    nb_status status = nb_import(path, NULL, NULL, diags, &g);
    ck_assert_msg(status == NB_OK, "%s: %s", path,
                  diags->list.count ? nb_diag_render(front_arena(), diags->list.items[0]) : "?");
    ck_assert_int_eq(nb_verify(g, diags), NB_OK);
    return g;
}

/* Of the optional data; NULL when it is not there. */
static nb_graph *load_optional(const char *name) {
    char *path = nb_test_data(nb_format(front_arena(), "llm/%s.onnx", name));
    nb_graph *g = path ? load(path) : NULL;
    free(path);
    return g;
}

START_TEST(sample_model) {
    nb_graph *g = load(NIBBLE_SOURCE_DIR "/tests/models/sample/sample.onnx");
    ck_assert_uint_eq(g->body.n_params, 15);
    ck_assert_str_eq(g->outputs.items[0], "logits");
    const nb_op *ret = g->body.last;
    ck_assert_str_eq(nb_type_text(front_arena(), nb_in(ret, 0)->type),
                     "f32[batch_size,sequence_length,256]");
    ck_assert_str_eq(nb_type_text(front_arena(), nb_in(ret, 1)->type),
                     "f32[batch_size,2,past_sequence_length+sequence_length,32]");
    ck_assert_uint_eq(g->symbols.count, 3); /* the total length is past + new */
    nb_graph_destroy(g);
}
END_TEST

START_TEST(decoders_import) {
    static const char *const names[] = {
        "books3m.ort-gqa",      "books3m.outliers",          "books3m.plain",
        "stories260K.outliers", "stories260K.outliers-mild", "stories260K.plain-op13"};
    for (size_t i = 0; i < NB_COUNT(names); i++) {
        nb_graph *g = load_optional(names[i]);
        if (!g) {
            nb_test_skip("no decoders");
            return;
        }
        ck_assert_uint_eq(g->symbols.count, 3);
        nb_graph_destroy(g);
    }
}
END_TEST

/* One input of the model by its name: `count` new tokens after `past` ones, in `rows` rows. */
static nb_tensor input_for(const nb_value *v, int64_t rows, int64_t past, int64_t count,
                           const nb_tensor *caches, size_t *cache) {
    nb_tensor t = {.elem = v->type->elem, .rank = v->type->rank, .dims = {rows, count}};
    if (strncmp(v->name, "past", 4) == 0) {
        if (caches) return caches[(*cache)++];
        t.dims[1] = v->type->dims[1]->value;
        t.dims[2] = 0;
        t.dims[3] = v->type->dims[3]->value;
        return t;
    }
    if (strcmp(v->name, "attention_mask") == 0) t.dims[1] = past + count;
    t.bytes = 8 * rows * t.dims[1];
    int64_t *data = nb_alloc(front_arena(), (size_t)t.bytes);
    for (int64_t i = 0; i < rows * t.dims[1]; i++) {
        int64_t at = i % t.dims[1];
        data[i] = strcmp(v->name, "attention_mask") == 0 ? 1
                  : strcmp(v->name, "position_ids") == 0
                      ? past + at
                      : (31 * (past + at + i / t.dims[1]) + 1) % VOCAB;
    }
    t.data = data;
    return t;
}

/* All outputs of one step; `caches` are outputs 1.. of the step before, or NULL. */
static nb_tensor *step(const nb_graph *g, int64_t rows, int64_t past, int64_t count,
                       const nb_tensor *caches) {
    nb_tensor *in = NB_NEW_ARRAY(front_arena(), nb_tensor, g->body.n_params),
              *out = NB_NEW_ARRAY(front_arena(), nb_tensor, g->outputs.count);
    size_t cache = 0;
    for (uint32_t i = 0; i < g->body.n_params; i++)
        in[i] = input_for(g->body.params[i], rows, past, count, caches, &cache);
    nb_status status = nb_eval(g, in, out, NULL, 0, front_arena(), diags);
    ck_assert_msg(status == NB_OK, "%s",
                  diags->list.count ? nb_diag_render(front_arena(), diags->list.items[0]) : "?");
    return out;
}

static void expect_close(const nb_tensor *a, const nb_tensor *b, const char *what) {
    ck_assert_int_eq(a->bytes, b->bytes);
    for (int64_t i = 0; i < nb_tensor_count(a); i++) {
        double x = nb_tensor_get(a, i), y = nb_tensor_get(b, i);
        ck_assert_msg(fabs(x - y) <= 1e-4, "%s: element %lld is %g, expected %g", what,
                      (long long)i, x, y);
    }
}

START_TEST(forms_of_one_model_agree) {
    static const char *const forms[] = {"stories260K.plain-op13", "stories260K.plain-op18",
                                        "stories260K.nomask",     "stories260K.ort-rope",
                                        "stories260K.ort-gqa",    "stories260K.packed",
                                        "stories260K.ext/model"};
    nb_graph *g = load_optional("stories260K.plain-op17");
    if (!g) {
        nb_test_skip("no decoders");
        return;
    }
    nb_tensor *prompt = step(g, 2, 0, TOKENS, NULL), *next = step(g, 2, TOKENS, 1, prompt + 1);
    /* Logits tell tokens apart, so that agreement means something. */
    ck_assert(fabs(nb_tensor_get(&prompt[0], 0) - nb_tensor_get(&prompt[0], VOCAB)) > 0.01);
    for (size_t i = 0; i < NB_COUNT(forms); i++) {
        nb_graph *form = load_optional(forms[i]);
        ck_assert_ptr_nonnull(form);
        nb_tensor *p = step(form, 2, 0, TOKENS, NULL), *n = step(form, 2, TOKENS, 1, p + 1);
        expect_close(&p[0], &prompt[0], forms[i]);
        expect_close(&n[0], &next[0], forms[i]);
        nb_graph_destroy(form);
    }
    /* A prompt of one more token ends in the same logits as the step did. */
    nb_tensor *whole = step(g, 1, 0, TOKENS + 1, NULL);
    for (int64_t i = 0; i < VOCAB; i++)
        ck_assert(nb_tensor_get(&whole[0], TOKENS * VOCAB + i) == nb_tensor_get(&next[0], i));
    nb_graph_destroy(g);
}
END_TEST

/* A row of GroupQueryAttention that is shorter than its batch's prompt: keys beyond its length are
 * not seen, so that its logits are those of the short prompt. */
START_TEST(short_rows_do_not_see_padding) {
    nb_graph *g = load_optional("stories260K.ort-gqa");
    if (!g) {
        nb_test_skip("no decoders");
        return;
    }
    enum { SHORT = 4 };
    nb_tensor *expected = step(g, 1, 0, SHORT, NULL);
    nb_tensor *in = NB_NEW_ARRAY(front_arena(), nb_tensor, g->body.n_params),
              *out = NB_NEW_ARRAY(front_arena(), nb_tensor, g->outputs.count);
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        in[i] = input_for(g->body.params[i], 1, 0, TOKENS, NULL, NULL);
        if (strcmp(g->body.params[i]->name, "attention_mask") != 0) continue;
        for (int k = SHORT; k < TOKENS; k++) ((int64_t *)in[i].data)[k] = 0;
    }
    ck_assert_int_eq(nb_eval(g, in, out, NULL, 0, front_arena(), diags), NB_OK);
    for (int64_t i = 0; i < SHORT * VOCAB; i++)
        ck_assert(nb_tensor_get(&out[0], i) == nb_tensor_get(&expected[0], i));
    nb_graph_destroy(g);
}
END_TEST

Suite *nb_suite_front_models(void) {
    Suite *suite = suite_create("front_models");
    TCase *tests = tcase_create("front_models");
    tcase_add_checked_fixture(tests, front_begin, front_end);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, sample_model);
    tcase_add_test(tests, decoders_import);
    tcase_add_test(tests, forms_of_one_model_agree);
    tcase_add_test(tests, short_rows_do_not_see_padding);
    suite_add_tcase(suite, tests);
    return suite;
}
