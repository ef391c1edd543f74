/* Private to frontend/: an open ONNX file. */
#ifndef NB_MODEL_FILE_H
#define NB_MODEL_FILE_H

#include "ir/ir.h"
#include "ir/support/file.h"

#include <onnx/onnx.pb-c.h>

typedef struct nb_onnx {
    nb_arena *arena; /* for the protobuf objects; goes after the import */
    nb_diags *diags;
    nb_graph *graph;
    const char *name;
    const char *directory; /* of external data; NULL: refused */
    const uint8_t *bytes;
    size_t size;
    bool mapped; /* a file's, which need not be in memory */
    Onnx__ModelProto *proto;
    bool skeleton;   /* proto was unpacked from the guard's skeleton, with tokens for weights */
    nb_map external; /* location -> nb_external; files are open while the graph lives */
    bool warned_checksum;
    size_t n_pins;
    const char *const *pins; /* "NAME=NUMBER" */
} nb_onnx;

/* Guard and unpack m->bytes into m->proto; checks versions. */
nb_status nb_onnx_unpack(nb_onnx *m);
/* The opset version of a domain ("" and "ai.onnx" are one), 0 when it is not imported. */
int64_t nb_onnx_opset(const nb_onnx *m, const char *domain);

/* A tensor's type and bytes. The blob borrows from the file where it can; the caller owns a
 * reference. */
typedef struct nb_onnx_tensor {
    nb_elem elem;
    int rank;
    int64_t dims[NB_MAX_RANK];
    nb_blob *blob;
} nb_onnx_tensor;

/* `what` begins messages, e.g. `initializer "fc.weight"`. */
nb_status nb_onnx_read_tensor(nb_onnx *m, const Onnx__TensorProto *t, const char *what,
                              nb_onnx_tensor *out);
/* The bytes of a tensor with data_location EXTERNAL, of exactly `size` bytes. */
nb_status nb_onnx_external(nb_onnx *m, const Onnx__TensorProto *t, const char *what, int64_t size,
                           nb_blob **out);

#endif
