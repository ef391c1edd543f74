/* The contract between a compiled model and whoever runs it.
 *
 * A compiled model exports one function, `const nb_model *NAME_model(uint32_t abi)`, and nothing
 * else. The descriptor it returns is constant data. Its functions allocate nothing, print nothing,
 * keep no state between calls, and call nothing but `frame->parallel_for`, memcpy, memmove and
 * memset; so one model serves any number of sessions and threads at once.
 *
 * Most programs use nb_runtime.h, which allocates, plans and keeps the state. This header is for
 * those who do that themselves, and for other languages: only fixed-width types, no bit fields.
 *
 * The layout is append-only within one NB_MODEL_ABI; `size` tells which members exist. */
#ifndef NB_MODEL_H
#define NB_MODEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NB_MODEL_ABI 1u

/* Most dimensions a tensor at the boundary can have. */
#define NB_MODEL_MAX_RANK 8

/* Element types are ONNX's TensorProto.DataType numbers: 1 float, 2 uint8, 3 int8, 6 int32,
 * 7 int64, 9 bool, 10 float16, 11 double, 16 bfloat16, ... */

/* One input or output. Bytes are row-major and contiguous, except an appended state (below). */
typedef struct nb_port {
    const char *name;  /* the ONNX name */
    int32_t elem;      /* ONNX data type */
    int32_t rank;      /* 0 .. NB_MODEL_MAX_RANK */
    int32_t state;     /* index into nb_model.states, or -1 */
    int32_t reserved;  /* 0 */
    const char *shape; /* for messages, e.g. "[batch_size,4,past_sequence_length,8]" */
} nb_port;

/* A symbolic dimension; it gets its value from the inputs' shapes at each call, or is counted: the
 * data of the run tell it (nb_model.counted). */
typedef struct nb_model_symbol {
    const char *name;
    int64_t min, max; /* inclusive; the model was compiled for this range; INT64_MAX: no limit */
} nb_model_symbol;

/* An output that becomes an input of the next call (a key/value cache, a recurrent state).
 *
 * appended = 1: input and output are one buffer whose `axis` has room for `capacity` entries
 *   (row-major with capacity in place of the axis' length); the run reads the first
 *   symbols[symbol] entries and writes the new ones behind them. ports[input] and ports[output]
 *   hold the same address. The run reads nothing behind what is written: that is not initialized.
 *   All appended states of a model have the same symbol, and so one length and one capacity.
 * appended = 0: two separate contiguous buffers; the caller makes the output the next input. The
 *   first input is zeros; when axis >= 0, it has no entries along it. */
typedef struct nb_model_state {
    int32_t input, output; /* indices into nb_model.inputs, nb_model.outputs */
    int32_t appended;
    int32_t axis;   /* the axis that grows; -1 only when not appended */
    int32_t symbol; /* the symbol that is the input's length along `axis`; -1 when axis is */
    int32_t reserved;
} nb_model_state;

struct nb_frame;

/* Work on items [begin, end) of a parallel loop. */
typedef void (*nb_task_fn)(const struct nb_frame *frame, int64_t begin, int64_t end);

/* Everything one call of `run` uses. Set by the caller; the model only reads it, except `error` and
 * counted symbols. */
typedef struct nb_frame {
    uint32_t size;      /* sizeof(nb_frame) */
    int32_t threads;    /* what parallel_for will use, >= 1 */
    void *const *ports; /* data of the n_inputs inputs, then of the n_outputs outputs */
    /* n_symbols values from `bind`, then the capacity of appended states, then `threads`. */
    int64_t *symbols;
    const int64_t *offsets;       /* n_buffers values from `plan` */
    unsigned char *arena;         /* 64-byte aligned, as large as `plan` said */
    const unsigned char *weights; /* 64-byte aligned, nb_model.weights_size bytes */
    /* Calls task over [0, count) in any split and order, from any threads, and returns when all is
     * done. NULL: the model runs on the calling thread. Results do not depend on the split. Only
     * `run` itself calls this, never a task. */
    void (*parallel_for)(void *pool, int64_t count, nb_task_fn task, const struct nb_frame *frame);
    void *pool;
    const volatile int32_t *cancel; /* run stops soon after it becomes non-zero; may be NULL */
    int64_t *error; /* on NB_RUN_INDEX: the op's index into nb_model.op_names; may be NULL */
    /* Only models compiled to be profiled call this, on the thread that runs them: with -1 when
     * they begin, then with each op's index into op_names when it is done. May be NULL. */
    void (*mark)(void *mark_user, int64_t op);
    void *mark_user;
    /* n_symbols values, those that `plan` was given: what the memory of this run is large enough
     * for. May be NULL for a model without counted symbols. */
    const int64_t *planned;
} nb_frame;

/* What `run` returns. */
enum {
    NB_RUN_OK = 0,
    NB_RUN_CANCELLED = 1,
    /* A run-time index (Gather, embedding) was out of range, or a number is not what the model
     * declares (a shape given at run time); outputs are invalid. */
    NB_RUN_INDEX = 2,
    /* A counted symbol is larger than what was planned for: it stands in `symbols`. Plan for it,
     * with outputs that are as large, and run again. Outputs are invalid. */
    NB_RUN_MORE = 3
};

/* CPU features a model may need (nb_model.features). The runtime refuses to run without them. */
#define NB_CPU_AVX2_FMA    UINT64_C(1) /* x86-64-v3: AVX2, FMA, F16C, BMI */
#define NB_CPU_AVX512      UINT64_C(2) /* F, BW, DQ, VL */
#define NB_CPU_AVX512_VNNI UINT64_C(4)
#define NB_CPU_ARM_DOTPROD UINT64_C(8)

typedef struct nb_model {
    uint32_t size; /* sizeof(nb_model) when compiled */
    uint32_t abi;  /* NB_MODEL_ABI */
    const char *name;
    const char *compiler; /* "nibble 0.1.0" */
    const char *target;   /* triple, e.g. "x86_64-linux-gnu" */
    const char *scheme;   /* "w4a16", for information */
    uint64_t features;    /* NB_CPU_* */

    uint32_t n_inputs, n_outputs, n_symbols, n_states;
    const nb_port *inputs, *outputs;
    const nb_model_symbol *symbols;
    const nb_model_state *states;

    uint32_t n_buffers; /* length of the offsets array */
    uint32_t n_ops;
    const char *const *op_names; /* ONNX names, for messages */

    uint64_t weights_size;        /* bytes; 0 = no weights */
    uint64_t weights_hash;        /* nb_weights_hash of them (runtime/hash.h) */
    const unsigned char *weights; /* inside the object, or NULL: in the file NAME.nbw */

    /* Reads the symbols from the shapes of all inputs (shapes[i] has inputs[i].rank values). A
     * dimension of -1 is unknown: it agrees with everything and tells nothing. Returns 0 when every
     * symbol has a value and all known dimensions agree; 1 + 16 * input + axis for the first
     * dimension that disagrees; -1 - symbol for the first symbol that nothing tells. Ranges of the
     * symbols are the caller's to check, before any of the functions below is called. */
    int64_t (*bind)(const int64_t *const *shapes, int64_t *symbols);
    /* Writes inputs[input].rank dimensions, all known, for symbols from `bind`. */
    void (*input_shape)(const int64_t *symbols, int64_t input, int64_t *dims);
    /* Writes outputs[output].rank dimensions. */
    void (*shape)(const int64_t *symbols, int64_t output, int64_t *dims);
    /* `symbols` with capacity and threads as in nb_frame. Returns the arena's size in bytes and
     * fills n_buffers offsets, or returns -1 when a size overflows. */
    int64_t (*plan)(const int64_t *symbols, int64_t *offsets);
    int32_t (*run)(const nb_frame *frame);

    /* Indices of symbols that the data of a run tell. `bind` sets them to the most they can be, or
     * where there is no such bound to the least; `shape` and `plan` are asked with that, or more.
     * `run` sets them to what they are, after which `shape` tells how large the outputs are. */
    uint32_t n_counted, reserved;
    const int32_t *counted;
} nb_model;

typedef const nb_model *(*nb_model_fn)(uint32_t abi);

/* The weights file NAME.nbw: this header, zeros, weights_size bytes at offset 4096, and no more. */
#define NB_WEIGHTS_MAGIC  "nibble-w"
#define NB_WEIGHTS_OFFSET 4096
typedef struct nb_weights_header {
    char magic[8];
    uint32_t abi, reserved;
    uint64_t size, hash; /* as in nb_model */
} nb_weights_header;

#ifdef __cplusplus
}
#endif
#endif
