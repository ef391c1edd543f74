/* Voice activity detection: models with If inside If, chosen by an input, and an LSTM whose state
 * comes in and goes out. Compiled code against what onnxruntime gave for 300 frames of speech, and
 * against the evaluator to the bit. */
#include "ir/eval.h"
#include "tests/models/compiled.h"
#include "tests/support/test_data.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FRAMES = 300, FRAME = 576, STATE = 2 * 128, RATE = 16000, EVALUATED = 2 };

/* The last `n` floats of a .npy file; false when it is not there. */
static bool read_floats(const char *name, float *to, size_t n) {
    char *path = nb_test_data(name);
    FILE *f = path ? fopen(path, "rb") : NULL;
    const bool ok =
        f && fseek(f, -(long)(n * sizeof *to), SEEK_END) == 0 && fread(to, sizeof *to, n, f) == n;
    if (f) fclose(f);
    free(path);
    return ok;
}

typedef struct voice {
    const char *name; /* of the model */
    int64_t rate;
    int threads;
    const float *frames;
    float probability[FRAMES], state[STATE];
} voice;

/* All frames in order, in a session. */
static bool run_frames(const compiled *c, voice *v) {
    const int64_t sizes[] = {1, FRAME}, states[] = {2, 1, 128}, none[] = {0};
    nb_session_options options = {.threads = v->threads};
    nb_session *s = NULL;
    nb_error_text err = "";
    const int input = nb_find_input(c->model, "input"), state = nb_find_input(c->model, "state"),
              rate = nb_find_input(c->model, "sr"), out = nb_find_output(c->model, "output"),
              next = nb_find_output(c->model, "stateN");
    bool ok = input >= 0 && state >= 0 && rate >= 0 && out >= 0 && next >= 0 &&
              nb_session_create(c->loaded, &options, &s, err) == NB_RT_OK &&
              nb_session_set_input(s, rate, &v->rate, none, err) == NB_RT_OK &&
              nb_session_set_input(s, state, v->state, states, err) == NB_RT_OK;
    memset(v->state, 0, sizeof v->state);
    for (size_t i = 0; ok && i < FRAMES; i++) {
        ok = nb_session_set_input(s, input, v->frames + i * FRAME, sizes, err) == NB_RT_OK &&
             nb_session_run(s, err) == NB_RT_OK;
        if (!ok) break;
        v->probability[i] = *(const float *)nb_session_output(s, out, NULL);
        memcpy(v->state, nb_session_output(s, next, NULL), sizeof v->state);
    }
    if (!ok) printf("%s\n", err);
    if (s) nb_session_destroy(s);
    return ok;
}

/* The first frames by the evaluator: equal bits. */
static bool evaluate(const compiled *c, const voice *v) {
    float state[STATE] = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < EVALUATED; i++) {
        nb_tensor in[3], out[2];
        for (uint32_t p = 0; p < 3; p++) {
            const char *name = c->graph->body.params[p]->name;
            in[p] = (nb_tensor){.elem = NB_I64, .data = (void *)(uintptr_t)&v->rate, .bytes = 8};
            if (strcmp(name, "input") == 0)
                in[p] = (nb_tensor){.elem = NB_F32,
                                    .rank = 2,
                                    .dims = {1, FRAME},
                                    .data = (void *)(uintptr_t)(v->frames + i * FRAME),
                                    .bytes = FRAME * sizeof(float)};
            if (strcmp(name, "state") == 0)
                in[p] = (nb_tensor){.elem = NB_F32,
                                    .rank = 3,
                                    .dims = {2, 1, 128},
                                    .data = state,
                                    .bytes = sizeof state};
        }
        ok = nb_eval(c->graph, in, out, NULL, 0, c->arena, c->diags) == NB_OK &&
             memcmp(out[0].data, &v->probability[i], sizeof(float)) == 0;
        if (ok) memcpy(state, out[1].data, sizeof state);
    }
    return ok;
}

static double worst_of(const voice *v, const float *expected) {
    double worst = 0;
    for (size_t i = 0; i < FRAMES; i++)
        worst = fmax(worst, fabs((double)v->probability[i] - (double)expected[i]));
    return worst;
}

void test_voice(void (*verdict)(bool ok, const char *model, const char *scheme, const char *what),
                int *skipped) {
    static const char *const models[] = {"silero_vad_v5", "silero_vad_op18"};
    static const char *const samples[] = {"samples/silero_v5.prob.npy",
                                          "samples/silero_op18.prob.npy"};
    static float frames[FRAMES * FRAME], expected[FRAMES];
    for (size_t i = 0; i < NB_COUNT(models); i++) {
        char name[128];
        snprintf(name, sizeof name, "audio/%s.onnx", models[i]);
        char *path = nb_test_data(name);
        if (!path || !read_floats("samples/silero.frames576.npy", frames, NB_COUNT(frames)) ||
            !read_floats(samples[i], expected, NB_COUNT(expected))) {
            printf("skipped %s: the optional data directory is not there\n", models[i]);
            ++*skipped;
            free(path);
            continue;
        }
        compiled c = {0};
        voice v = {.name = models[i], .rate = RATE, .threads = 2, .frames = frames}, one = v;
        one.threads = 1;
        bool ok = compiled_plan(&c, path, "simplify, plan-memory") && compiled_load(&c, "native");
        if (!ok) compiled_complain(&c);
        ok = ok && run_frames(&c, &v) && run_frames(&c, &one);
        verdict(ok && worst_of(&v, expected) < 1e-4, models[i], "f32",
                "probabilities are not onnxruntime's");
        verdict(ok && memcmp(v.probability, one.probability, sizeof v.probability) == 0 &&
                    memcmp(v.state, one.state, sizeof v.state) == 0,
                models[i], "f32", "threads change bits");
        verdict(ok && evaluate(&c, &v), models[i], "f32",
                "compiled code gives other bits than the evaluator");
        /* The other branch of the first If is for another rate; it takes fewer samples. */
        v.rate = RATE / 2;
        verdict(ok && strcmp(models[i], "silero_vad_v5") == 0
                    ? !run_frames(&c, &v)
                    : ok && run_frames(&c, &v) && worst_of(&v, expected) > 0,
                models[i], "f32", "the other rate");
        compiled_discard(&c);
        free(path);
    }
}
