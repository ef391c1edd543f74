/* Whole-model matters: states in place, outputs that are inputs or constants, names, memory that
 * is never writable and executable. */
#include "codegen/reuse.h"
#include "tests/diff/diff.h"

#include <stdio.h>
#include <string.h>

/* present = concat(past, new) along `axis`; the sum over present shows that it is read through its
 * strides. */
static void appended_state(int axis, nb_elem elem, int64_t past_length) {
    diff d;
    diff_begin(&d, "state %s, axis %d, %lld entries", nb_elems[elem].text, axis,
               (long long)past_length);
    d.plain = true;
    d.symbols[0] = past_length;
    d.symbols[1] = 2;
    d.capacity = 9;
    int64_t dims[4] = {2, 3, 5, 7};
    dims[axis] = -1;
    nb_value *past = diff_input(&d, elem, 4, dims);
    dims[axis] = -2;
    nb_value *fresh = diff_input(&d, elem, 4, dims);
    nb_begin(&d.b, NB_OP_concat);
    nb_arg(&d.b, past);
    nb_arg(&d.b, fresh);
    nb_set_int(&d.b, "axis", axis);
    nb_value *ys[3] = {nb_end(&d.b)};
    nb_begin(&d.b, NB_OP_reduce_max);
    nb_arg(&d.b, ys[0]);
    nb_set_ints(&d.b, "axes", 2, (int64_t[]){axis ? 0 : 1, axis == 3 ? 2 : 3});
    ys[1] = nb_end(&d.b);
    ys[2] = nb_unary(&d.b, NB_OP_neg, ys[0]);
    nb_state state = {.input = 0, .output = 0, .axis = axis};
    nb_vec_push(d.graph->arena, &d.graph->states, state);
    diff_check_all(&d, 3, ys);
}

static void odd_outputs(void) {
    diff d;
    diff_begin(&d, "outputs that are an input, a constant, a view, the same twice");
    nb_value *x = diff_input(&d, NB_F32, 2, (int64_t[]){3, 4});
    nb_value *c = diff_const(&d, NB_F32, 1, (int64_t[]){5});
    nb_value *s = diff_const(&d, NB_F32, 0, NULL);
    nb_value *y = nb_unary(&d.b, NB_OP_exp, x);
    const nb_dim *twelve = nb_dim_const(d.graph, 12);
    nb_value *view = nb_reshape(&d.b, y, 1, &twelve);
    diff_check_all(&d, 6, (nb_value *[]){x, c, s, y, view, y});
}

/* Equal names and characters that no linker likes must not matter. */
static void hostile_names(void) {
    diff d;
    diff_begin(&d, "node names");
    nb_value *x = diff_input(&d, NB_F32, 1, (int64_t[]){4});
    d.b.loc = nb_loc_at(d.graph, "/a b\"\n$(x)%s\x01");
    nb_value *y = nb_unary(&d.b, NB_OP_neg, x);
    y = nb_unary(&d.b, NB_OP_abs, y);
    diff_check(&d, y);
}

static void unplanned(void) {
    diff d;
    diff_begin(&d, "a graph that is not planned");
    nb_codegen_options options = {.cpu = cg_cpu_find(NULL, "native"), .name = "test"};
    nb_object object = {0};
    if (nb_codegen(d.graph, &options, d.arena, d.diags, &object) == NB_USAGE) {
        diff_passed++;
    } else {
        diff_failed++;
        printf("FAILED: %s\n", d.name);
    }
    nb_graph_destroy(d.graph);
    nb_arena_destroy(d.arena);
}

/* No page of this process, with a model loaded, is writable and executable. */
static bool pages_are_safe(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    bool safe = maps != NULL;
    while (maps && fgets(line, sizeof line, maps)) {
        const char *rights = strchr(line, ' ');
        if (rights && rights[2] == 'w' && rights[3] == 'x') safe = false;
    }
    if (maps) fclose(maps);
    return safe;
}

static void loaded_pages(void) {
    diff d;
    diff_begin(&d, "pages of a loaded model");
    nb_value *y = nb_unary(&d.b, NB_OP_neg, diff_input(&d, NB_F32, 1, (int64_t[]){4}));
    const char *name = "y";
    nb_graph_set_outputs(d.graph, 1, &y, &name);
    d.graph->stage = NB_STAGE_PLANNED;
    d.graph->body.params[0]->storage = (nb_storage){NB_STORE_INPUT, 0};
    y->storage = (nb_storage){NB_STORE_OUTPUT, 0};
    nb_codegen_options options = {.cpu = cg_cpu_find(NULL, "native"), .name = "test"};
    nb_object object = {0};
    nb_jit *loaded = NULL;
    nb_status status = nb_codegen(d.graph, &options, d.arena, d.diags, &object);
    if (status == NB_OK) status = nb_load_object(&object, "test", d.diags, &loaded);
    if (status == NB_OK && pages_are_safe()) {
        diff_passed++;
    } else {
        diff_failed++;
        printf("FAILED: %s\n", d.name);
    }
    nb_jit_free(loaded);
    nb_graph_destroy(d.graph);
    nb_arena_destroy(d.arena);
}

/* A layer with weights and names of its own, `columns` wide. */
static void layer(nb_object_cache *cache, const char *name, int64_t columns) {
    diff d;
    diff_begin(&d, "shared objects: %s", name);
    d.cache = cache;
    d.b.loc = nb_loc_at(d.graph, name);
    nb_value *x = diff_input(&d, NB_F32, 2, (int64_t[]){3, 20}),
             *w = diff_const(&d, NB_F32, 2, (int64_t[]){20, columns}),
             *b = diff_const(&d, NB_F32, 1, (int64_t[]){columns}),
             *y = nb_binary(&d.b, NB_OP_matmul, x, w);
    nb_set_name(d.graph, y, nb_format(d.arena, "%s.y", name));
    diff_check(&d, nb_binary(&d.b, NB_OP_add, y, b));
}

/* What differs in weights and names alone is compiled once, and computes with its own weights. */
static void shared_objects(void) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_object_cache *cache = nb_object_cache_create(arena, NULL);
    layer(cache, "first", 24);
    const size_t once = nb_object_cache_count(cache);
    layer(cache, "second", 24);
    const size_t twice = nb_object_cache_count(cache);
    layer(cache, "wider", 25);
    const size_t wider = nb_object_cache_count(cache);
    if (twice == once && wider == 2 * once) {
        diff_passed++;
    } else {
        diff_failed++;
        printf("FAILED: %zu, %zu, %zu objects\n", once, twice, wider);
    }
    nb_object_cache_free(cache);
    nb_arena_destroy(arena);
}

/* Quick code has the same bits; it is not made where there is good code, and good code is. */
static void quick_code(void) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_object_cache *cache = nb_object_cache_create(arena, NULL);
    const bool before = diff_quick;
    size_t counts[4];
    for (int i = 0; i < 4; i++) {
        diff_quick = i != 2;
        layer(cache, "made quickly, then well", 26);
        counts[i] = nb_object_cache_count(cache);
    }
    diff_quick = before;
    const size_t each = counts[0];
    if ((each > 0 || !diff_is_whole()) && counts[1] == each && counts[2] == 2 * each &&
        counts[3] == 2 * each) {
        diff_passed++;
    } else {
        diff_failed++;
        printf("FAILED: %zu, %zu, %zu, %zu objects, quick and good\n", counts[0], counts[1],
               counts[2], counts[3]);
    }
    nb_object_cache_free(cache);
    nb_arena_destroy(arena);
}

/* A store in memory: an object for each module and CPU. */
typedef struct shelf {
    nb_arena *arena;
    nb_map names; /* -> nb_part */
} shelf;

static nb_part load(void *user, const char *name, nb_arena *arena) {
    shelf *s = user;
    const nb_part *kept = nb_map_get_str(&s->names, name, strlen(name));
    if (!kept) return (nb_part){0};
    nb_part copy = {nb_alloc(arena, kept->size + 1), kept->size};
    memcpy(copy.data, kept->data, kept->size);
    return copy;
}

static nb_status save(void *user, const char *name, const nb_part *parts, size_t n) {
    shelf *s = user;
    nb_part *kept = NB_NEW(s->arena, nb_part);
    for (size_t i = 0; i < n; i++) kept->size += parts[i].size;
    char *to = kept->data = nb_alloc(s->arena, kept->size + 1);
    for (size_t i = 0; i < n; to += parts[i++].size) memcpy(to, parts[i].data, parts[i].size);
    nb_map_set_str(&s->names, name, strlen(name), kept);
    return NB_OK;
}

/* How many objects a cache of its own compiles for a layer with what the store has. */
static size_t compiled_with(shelf *s, const char *name, int64_t columns) {
    const nb_store store = {.user = s, .load = load, .save = save};
    nb_object_cache *cache = nb_object_cache_create(s->arena, &store);
    layer(cache, name, columns);
    const size_t count = nb_object_cache_count(cache);
    nb_object_cache_free(cache);
    return count;
}

/* From run to run objects are found where they are whole and of the same module. */
static void kept_objects(void) {
    if (!diff_is_whole()) return; /* it counts what several cases compile */
    shelf s = {.arena = nb_arena_create(NULL, NULL)};
    s.names.arena = s.arena;
    const size_t made = compiled_with(&s, "kept", 24), again = compiled_with(&s, "taken up", 24);
    for (size_t i = 0; i < s.names.count; i++) {
        const nb_part *kept = s.names.entries[i].value;
        ((char *)kept->data)[kept->size - 1] ^= 1;
    }
    const size_t damaged = compiled_with(&s, "damaged", 24),
                 other = compiled_with(&s, "of another module", 25);
    if (made > 0 && again == 0 && damaged == made && other == made) {
        diff_passed++;
    } else {
        diff_failed++;
        printf("FAILED: %zu, %zu, %zu, %zu objects with a store\n", made, again, damaged, other);
    }
    nb_arena_destroy(s.arena);
}

void diff_test_model(void) {
    for (int axis = 0; axis < 4; axis++) {
        appended_state(axis, NB_F32, 4);
        appended_state(axis, NB_BF16, 7);
        appended_state(axis, NB_I8, 0);
    }
    odd_outputs();
    shared_objects();
    quick_code();
    kept_objects();
    hostile_names();
    unplanned();
    loaded_pages();
}
