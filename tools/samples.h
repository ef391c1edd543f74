/* Samples from files: for calibration (--calib), where the model may write its own, and held out
 * (--tokens). */
#ifndef NBT_SAMPLES_H
#define NBT_SAMPLES_H

#include "tools/model.h"
#include "tools/tensor_file.h"

typedef struct nbt_sample_options {
    const char *files, *most, *what; /* options of files and of tokens; for messages */
} nbt_sample_options;
extern const nbt_sample_options nbt_calibration, nbt_held_out;

/* All samples of all files, in order, checked against the graph's inputs: names, types, shapes,
 * numbers that are finite, tokens that the vocabulary has. None without files, except
 * that a budget needs some to calibrate: those the model writes then. */
nb_status nbt_read_samples(nbt_args *args, const nbt_sample_options *which, const nb_graph *g,
                           const nb_sample **samples, size_t *n);

typedef struct nbt_samples {
    const nb_graph *graph; /* whose inputs they are */
    const nb_sample *items;
    size_t count;
} nbt_samples;

/* The same for another form of the graph: one that passes gave other states, which begin empty. */
nb_status nbt_samples_like(nbt_args *args, const nbt_samples *samples, const nb_graph *to,
                           nbt_samples *out);

/* ---- between samples.c, sample_arrays.c and self_text.c ------------------------------------- */

typedef struct nbt_reader {
    nbt_args *args;
    const nbt_sample_options *which;
    const nb_graph *g;
    const char *path;      /* of the file that is read */
    int tokens;            /* the input that takes them, -1: there is none */
    int64_t vocab;         /* 0: not known */
    int64_t context, left; /* tokens in a window; tokens still wanted */
    NB_VEC(nb_sample) samples;
} nbt_reader;

/* An error about the file, with a help line that lists the model's inputs. */
nb_status nbt_reader_error(const nbt_reader *r, nb_status status, const char *fmt, ...)
    NB_PRINTF(3, 4);
/* Tokens of so many windows, one behind the other, as the model writes them. */
nb_status nbt_write_samples(nbt_reader *r, int64_t windows, int64_t **tokens);
/* One tensor for each input. */
nb_status nbt_add_sample(nbt_reader *r, const nb_tensor *inputs);
/* Arrays named as inputs, of one sample or of many. */
nb_status nbt_add_arrays(nbt_reader *r, const nbt_named_tensor *arrays, size_t n);

#endif
