/* Loading: hash, descriptor checks, weights files, shared objects. Files go to a folder of the
 * test's own below the temporary folder. */
#include "runtime/hash.h"
#include "tests/unit/test_runtime_toy.h"
#include "tests/unit/unit.h"

#include <elf.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64], path[96];
static nb_error_text err;
static nb_loaded *loaded;

static void make_folder(void) {
    strcpy(folder, "/tmp/nibble-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

/* What a test may leave behind; each line removes nothing when the file does not exist. */
static void remove_folder(void) {
    static const char *const names[] = {"w.nbw", "m.so", "m.nbw", "toy.nbw", "n.so", "m.c"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

static const char *in_folder(const char *name) {
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, const void *data, size_t size) {
    FILE *f = fopen(in_folder(name), "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(data, 1, size, f), size);
    fclose(f);
}

/* err has to hold `text`. */
static void expect(nb_rt_status got, nb_rt_status wanted, const char *text) {
    ck_assert_msg(got == wanted, "status %d, expected %d: %s", (int)got, (int)wanted, err);
    ck_assert_msg(strstr(err, text), "message '%s', expected '%s'", err, text);
    ck_assert_ptr_null(loaded);
}

/* The values come from another implementation of the definition in hash.h. */
START_TEST(hash_values) {
    unsigned char bytes[1000];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(i * 7);
    ck_assert_uint_eq(nb_weights_hash("", 0), UINT64_C(0xde0f824ef1741751));
    ck_assert_uint_eq(nb_weights_hash("\0", 1), UINT64_C(0xfc71f31e08646849));
    ck_assert_uint_eq(nb_weights_hash("\0\0", 2), UINT64_C(0x916d7d38c7dc6173));
    ck_assert_uint_eq(nb_weights_hash("nibble", 6), UINT64_C(0x9c173127173f182a));
    ck_assert_uint_eq(nb_weights_hash(bytes, 1000), UINT64_C(0xb15fd9bbbcbfd2fa));
    for (size_t a = 0; a < 100; a++)
        for (size_t b = a; b < 200; b += 13) {
            nb_hash h;
            nb_hash_start(&h);
            nb_hash_add(&h, bytes, a);
            nb_hash_add(&h, bytes + a, b - a);
            nb_hash_add(&h, bytes + b, 1000 - b);
            ck_assert_uint_eq(nb_hash_end(&h), UINT64_C(0xb15fd9bbbcbfd2fa));
        }
}
END_TEST

START_TEST(hash_sees_each_bit) {
    unsigned char bytes[100] = {0};
    uint64_t whole = nb_weights_hash(bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof bytes * 8; i++) {
        bytes[i / 8] = (unsigned char)(1u << i % 8);
        ck_assert_uint_ne(nb_weights_hash(bytes, sizeof bytes), whole);
        bytes[i / 8] = 0;
    }
}
END_TEST

START_TEST(linked_model) {
    ck_assert_int_eq(nb_load_model(&toy_model, NULL, NULL, NULL, &loaded, err), NB_RT_OK);
    ck_assert_ptr_eq(nb_loaded_model(loaded), &toy_model);
    nb_unload(loaded);
    nb_load_options huge = {.huge = 1, .verify = 1};
    ck_assert_int_eq(nb_load_model(&toy_sidecar, toy_weights, NULL, &huge, &loaded, err), NB_RT_OK);
    nb_unload(loaded);
    nb_unload(NULL);
    ck_assert_ptr_null(nb_loaded_model(NULL));
    ck_assert_int_eq(nb_find_input(&toy_model, "h"), TOY_H);
    ck_assert_int_eq(nb_find_output(&toy_model, "h.out"), TOY_H_OUT);
    ck_assert_int_eq(nb_find_output(&toy_model, "h"), -1);
    ck_assert_int_eq(nb_find_input(&toy_model, NULL), -1);
    ck_assert_int_eq(nb_find_input(NULL, "h"), -1);
}
END_TEST

static nb_rt_status load_changed(const nb_model *model) {
    return nb_load_model(model, NULL, NULL, NULL, &loaded, err);
}

START_TEST(bad_arguments) {
    ck_assert_int_eq(nb_load_model(&toy_model, NULL, NULL, NULL, NULL, err), NB_RT_ARGUMENT);
    ck_assert_int_eq(nb_load(NULL, NULL, &loaded, err), NB_RT_ARGUMENT);
    ck_assert_int_eq(nb_load("x", NULL, NULL, NULL), NB_RT_ARGUMENT);
    expect(load_changed(NULL), NB_RT_ARGUMENT, "the model is null");
    expect(load_changed(&toy_sidecar), NB_RT_ARGUMENT, "give them, or the path of toy-sidecar.nbw");
    const char *odd = (const char *)toy_weights + 4;
    expect(nb_load_model(&toy_sidecar, odd, NULL, NULL, &loaded, err), NB_RT_ARGUMENT,
           "not 64-byte aligned");
}
END_TEST

START_TEST(bad_descriptors) {
    nb_model m;
#define CHANGED(change, status, text) m = toy_model, change, expect(load_changed(&m), status, text)
    CHANGED(m.abi = 9, NB_RT_ABI, "ABI version 9, expected 1");
    CHANGED(m.size = 8, NB_RT_ABI, "has 8 bytes");
    CHANGED(m.name = NULL, NB_RT_CORRUPT, "no name");
    CHANGED(m.run = NULL, NB_RT_CORRUPT, "a function is missing");
    CHANGED(m.inputs = NULL, NB_RT_CORRUPT, "a table is missing");
    CHANGED(m.n_inputs = 3, NB_RT_CORRUPT, "port does not exist");
    CHANGED(m.n_states = 1, NB_RT_CORRUPT, "state that does not exist");
    CHANGED(m.n_symbols = UINT32_MAX, NB_RT_CORRUPT, "too many");
    CHANGED(m.n_symbols = 2, NB_RT_CORRUPT, "axis or symbol");
    CHANGED(m.features = UINT64_C(1) << 63, NB_RT_CPU, "0x8000000000000000");
    CHANGED(m.weights_hash ^= 1, NB_RT_CORRUPT, "are damaged");

    nb_port ports[4];
    memcpy(ports, toy_model.inputs, sizeof ports);
    ports[0].elem = 8;
    ports[0].name = "a\nb";
    CHANGED(m.inputs = ports, NB_RT_ABI, "input 'a?b' has the element type 8");
    ports[0].elem = 1;
    ports[0].rank = 9;
    CHANGED(m.inputs = ports, NB_RT_CORRUPT, "too many dimensions");
    nb_model_symbol symbols[3];
    memcpy(symbols, toy_model.symbols, sizeof symbols);
    symbols[1].min = 9;
    CHANGED(m.symbols = symbols, NB_RT_CORRUPT, "empty range");
}
END_TEST

/* A weights file of toy_sidecar, after `change` of one byte unless that is negative. */
static void write_weights(const char *name, long change, size_t size) {
    static unsigned char file[NB_WEIGHTS_OFFSET + sizeof toy_weights + 1];
    nb_weights_header header = {NB_WEIGHTS_MAGIC, NB_MODEL_ABI, 0, toy_sidecar.weights_size,
                                toy_sidecar.weights_hash};
    memset(file, 0, sizeof file);
    memcpy(file, &header, sizeof header);
    memcpy(file + NB_WEIGHTS_OFFSET, toy_weights, sizeof toy_weights);
    if (change >= 0) file[change] ^= 1;
    write_file(name, file, size);
}

START_TEST(weights_files) {
    const size_t size = NB_WEIGHTS_OFFSET + sizeof toy_weights;
    const nb_load_options trust = {.verify = 0}, huge = {.huge = 1, .verify = 1};
#define LOAD(options) nb_load_model(&toy_sidecar, NULL, in_folder("w.nbw"), options, &loaded, err)
    expect(LOAD(NULL), NB_RT_IO, "weights of 'toy-sidecar': No such file");
    write_weights("w.nbw", -1, size);
    const nb_load_options *options[] = {NULL, &trust, &huge};
    for (int i = 0; i < 3; i++) {
        ck_assert_msg(LOAD(options[i]) == NB_RT_OK, "%s", err);
        nb_unload(loaded);
        loaded = NULL;
    }
    write_weights("w.nbw", 0, size);
    expect(LOAD(NULL), NB_RT_CORRUPT, "not a weights file");
    write_weights("w.nbw", 8, size);
    expect(LOAD(NULL), NB_RT_ABI, "ABI version 0, expected 1");
    write_weights("w.nbw", 16, size);
    expect(LOAD(NULL), NB_RT_CORRUPT, "another model");
    write_weights("w.nbw", 24, size);
    expect(LOAD(&trust), NB_RT_CORRUPT, "another model");
    write_weights("w.nbw", -1, size - 1);
    expect(LOAD(&trust), NB_RT_CORRUPT, "has 63 bytes of weights, expected 64");
    write_weights("w.nbw", -1, size + 1);
    expect(LOAD(&trust), NB_RT_CORRUPT, "has 65 bytes of weights, expected 64");
    write_weights("w.nbw", -1, 100);
    expect(LOAD(NULL), NB_RT_CORRUPT, "not a weights file");
    write_weights("w.nbw", NB_WEIGHTS_OFFSET + 5, size);
    expect(LOAD(NULL), NB_RT_CORRUPT, "are damaged");
    expect(LOAD(&huge), NB_RT_CORRUPT, "are damaged");
    ck_assert_int_eq(LOAD(&trust), NB_RT_OK);
    nb_unload(loaded);
}
END_TEST

/* Builds `source` as a shared object; false where there is no compiler. */
static bool compile(const char *name, const char *source) {
    char source_path[96], include[sizeof NIBBLE_SOURCE_DIR + 2] = "-I" NIBBLE_SOURCE_DIR;
    write_file("m.c", source, strlen(source));
    strcpy(source_path, path);
    in_folder(name);
    pid_t child = fork();
    if (child == 0) {
        execlp("cc", "cc", "-shared", "-fPIC", include, "-o", path, source_path, (char *)NULL);
        _exit(127);
    }
    int status = 1;
    waitpid(child, &status, 0);
    if (status != 0) nb_test_skip("cc does not work here");
    return status == 0;
}

static const char source[] =
    "#include \"runtime/nb_model.h\"\n"
    "static int64_t bind(const int64_t *const *s, int64_t *v) { (void)s; (void)v; return 0; }\n"
    "static void shape(const int64_t *s, int64_t i, int64_t *d) { (void)s; (void)i; (void)d; }\n"
    "static int64_t plan(const int64_t *s, int64_t *o) { (void)s; (void)o; return 0; }\n"
    "static int32_t run(const nb_frame *f) {\n"
    "    *(float *)f->ports[0] = *(const float *)(const void *)f->weights; return 0; }\n"
    "static const nb_port out = {\"y\", 1, 0, -1, 0, \"[]\"};\n"
    "static const nb_model m = {.size = sizeof m, .abi = 1, .name = \"toy\", .n_outputs = 1,\n"
    "    .outputs = &out, .weights_size = 64, .weights_hash = HASH, .bind = bind,\n"
    "    .input_shape = shape, .shape = shape, .plan = plan, .run = run};\n"
    "const nb_model *toy_model(uint32_t abi) { return abi == VERSION ? &m : 0; }\n"
    "int other_symbol(void) { return 0; }\n";

static bool compile_model(const char *name, int version, const char *more) {
    static char text[sizeof source + 300];
    snprintf(text, sizeof text, "#define HASH 0x%llxull\n#define VERSION %d\n%s%s",
             (unsigned long long)toy_sidecar.weights_hash, version, source, more);
    return compile(name, text);
}

static void run_shared(void) {
    nb_session *s;
    ck_assert_msg(nb_load(in_folder("m.so"), NULL, &loaded, err) == NB_RT_OK, "%s", err);
    ck_assert_int_eq(nb_session_create(loaded, NULL, &s, err), NB_RT_OK);
    ck_assert_int_eq(nb_session_run(s, err), NB_RT_OK);
    ck_assert_float_eq(*(const float *)nb_session_output(s, 0, NULL), 10);
    nb_session_destroy(s);
    nb_unload(loaded);
    loaded = NULL;
}

START_TEST(shared_object) {
    const size_t size = NB_WEIGHTS_OFFSET + sizeof toy_weights;
    if (!compile_model("m.so", 1, "")) return;
    expect(nb_load(in_folder("m.so"), NULL, &loaded, err), NB_RT_IO, "toy.nbw: weights of 'toy'");
    write_weights("toy.nbw", -1, size); /* by the model's name */
    run_shared();
    write_weights("toy.nbw", 0, size); /* the name of the .so comes first */
    write_weights("m.nbw", -1, size);
    run_shared();
    ck_assert_int_eq(chdir(folder), 0);
    ck_assert_msg(nb_load("m.so", NULL, &loaded, err) == NB_RT_OK, "%s", err);
    nb_unload(loaded);
}
END_TEST

START_TEST(other_shared_objects) {
    if (!compile_model("n.so", 2, "")) return;
    expect(nb_load(in_folder("n.so"), NULL, &loaded, err), NB_RT_ABI, "another ABI version");
    compile_model("n.so", 1, "const nb_model *b_model(uint32_t a) { return toy_model(a); }\n");
    expect(nb_load(in_folder("n.so"), NULL, &loaded, err), NB_RT_CORRUPT, "exports two models");
    compile("n.so", "int a_model_not(void) { return 0; }\nint b_model;\n");
    expect(nb_load(in_folder("n.so"), NULL, &loaded, err), NB_RT_CORRUPT, "not a compiled model");
}
END_TEST

START_TEST(damaged_shared_objects) {
    expect(nb_load(in_folder("m.so"), NULL, &loaded, err), NB_RT_IO, "No such file");
    expect(nb_load(folder, NULL, &loaded, err), NB_RT_CORRUPT, "not a file");
    write_file("n.so", "", 0);
    expect(nb_load(in_folder("n.so"), NULL, &loaded, err), NB_RT_CORRUPT, "empty");
    write_file("n.so", "hello", 5);
    expect(nb_load(in_folder("n.so"), NULL, &loaded, err), NB_RT_CORRUPT, "not a shared object");

    if (!compile_model("m.so", 1, "")) return;
    static unsigned char good[1 << 16], bad[1 << 16];
    FILE *f = fopen(in_folder("m.so"), "rb");
    size_t size = fread(good, 1, sizeof good, f);
    fclose(f);
    ck_assert(size > 0 && size < sizeof good);
    for (size_t cut = 1; cut < size; cut += 97) { /* never crashes, never opens */
        write_file("n.so", good, cut);
        ck_assert_int_eq(nb_load(in_folder("n.so"), NULL, &loaded, err), NB_RT_CORRUPT);
    }
    memcpy(bad, good, size);
    bad[offsetof(Elf64_Ehdr, e_machine)] = 243;
    bad[offsetof(Elf64_Ehdr, e_machine) + 1] = 0;
    write_file("n.so", bad, size);
    expect(nb_load(in_folder("n.so"), NULL, &loaded, err), NB_RT_ABI, "made for RISC-V, this is");
    bad[EI_CLASS] ^= 3;
    write_file("n.so", bad, size);
    expect(nb_load(in_folder("n.so"), NULL, &loaded, err), NB_RT_ABI, "another machine");
    memcpy(bad, good, size);
    bad[offsetof(Elf64_Ehdr, e_type)] = ET_EXEC;
    write_file("n.so", bad, size);
    expect(nb_load(in_folder("n.so"), NULL, &loaded, err), NB_RT_CORRUPT, "not a shared object");
    memcpy(bad, good, size);
    bad[offsetof(Elf64_Ehdr, e_shoff) + 5] = 1;
    write_file("n.so", bad, size);
    expect(nb_load(in_folder("n.so"), NULL, &loaded, err), NB_RT_CORRUPT, "point outside");
}
END_TEST

Suite *nb_suite_runtime_load(void) {
    Suite *suite = suite_create("runtime_load");
    TCase *tcase = tcase_create("memory");
    tcase_add_test(tcase, hash_values);
    tcase_add_test(tcase, hash_sees_each_bit);
    tcase_add_test(tcase, linked_model);
    tcase_add_test(tcase, bad_arguments);
    tcase_add_test(tcase, bad_descriptors);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("files");
    tcase_add_checked_fixture(tcase, make_folder, remove_folder);
    tcase_add_test(tcase, weights_files);
    tcase_add_test(tcase, shared_object);
    tcase_add_test(tcase, other_shared_objects);
    tcase_add_test(tcase, damaged_shared_objects);
    suite_add_tcase(suite, tcase);
    return suite;
}
