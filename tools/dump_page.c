/* The page of `--dump`: a frame around data and scripts (dump_page.h). */
#include "tools/dump_page.h"

#include "ir/support/output.h"
#include "tools/svg.h"

/* Made of the files in tools/dump by cmake/embed.cmake. */
extern const char nbt_dump_style[], nbt_dump_body[], nbt_dump_script[];

/* '<' stands in strings only. Written as an escape it cannot end the script, or begin a comment. */
static int write_data(const char *bytes, size_t size, void *user) {
    FILE *f = user;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] == '<')
            fputs("\\u003c", f);
        else
            fputc(bytes[i], f);
    }
    return 0;
}

nb_status nbt_write_dump_page(const char *path, const char *title, json_t *data, nb_diags *diags) {
    nb_output f;
    nb_status status = nb_output_open(path, diags, &f);
    if (status != NB_OK) {
        json_decref(data);
        return status;
    }
    fprintf(f.stream, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<title>");
    nbt_html(f.stream, title);
    fprintf(f.stream, "</title>\n<style>\n%s</style></head>\n<body>\n%s", nbt_dump_style,
            nbt_dump_body);
    fprintf(f.stream, "<script type=\"application/json\" id=\"data\">");
    json_dump_callback(data, write_data, f.stream, JSON_COMPACT | JSON_REAL_PRECISION(9));
    fprintf(f.stream, "</script>\n<script>\n%s</script>\n</body></html>\n", nbt_dump_script);
    json_decref(data);
    return nb_output_close(&f, NB_OK);
}
