// A CSV file, with the columns and the label that a user might ask for. The input's first line has these: the list of columns, a
// bar, the name of the label; a side that is empty is not given. The rest is the file. A table that was read, written and read
// again is the same, names and numbers.
#include "fuzz.h"
#include "../../apps/table.h"

static void csv_check(const table *t) {
    size_t i;
    FUZZ_EXPECT(t->n > 0 && t->d > 0);
    for (i = 0; i < t->n * (size_t)t->d; i++) FUZZ_EXPECT(args_finite(t->data[i]));
    for (i = 0; i < (size_t)t->d; i++) FUZZ_EXPECT(t->names[i] && args_finite(t->mean[i]) && args_finite(t->std[i]) && t->std[i] >= 0);
    for (i = 0; t->label && i < t->n; i++) FUZZ_EXPECT(t->label[i] >= 0 && t->label[i] < t->classes);
    for (i = 0; i < (size_t)t->classes; i++) FUZZ_EXPECT(t->class_names[i]);
}

// Written as table_write_rows does, but into memory.
static void csv_write_and_read(const table *t) {
    char *text = NULL, *list, err[600] = "";
    size_t size = 0, i, names;
    FILE *f = open_memstream(&text, &size);
    table again;
    for (i = 0; i < (size_t)t->d; i++) { if (i) fputc(',', f); table_write_text(f, t->names[i]); }
    fflush(f);
    names = size;
    fputc('\n', f);
    for (i = 0; i < t->n * (size_t)t->d; i++) {
        table_write_number(f, t->data[i]);
        fputc((i + 1) % (size_t)t->d ? ',' : '\n', f);
    }
    fclose(f);
    list = (char *)malloc(names + 1);
    memcpy(list, text, names);
    list[names] = '\0';
    FUZZ_EXPECT(table_read_any_csv(fuzz_file(1, (uint8_t *)text, size), list, NULL, &again, err, sizeof err));
    FUZZ_EXPECT(again.n == t->n && again.d == t->d && memcmp(again.data, t->data, t->n * (size_t)t->d * sizeof *t->data) == 0);
    for (i = 0; i < (size_t)t->d; i++) FUZZ_EXPECT(strcmp(again.names[i], t->names[i]) == 0);
    table_free(&again);
    free(list);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *end = (const uint8_t *)memchr(data, '\n', size);
    char columns[256] = "", *label, err[600] = "";
    const char *path;
    table t;
    size_t n = end ? (size_t)(end - data) : 0;
    if (!end || n >= sizeof columns || memchr(data, 0, n)) return 0;
    memcpy(columns, data, n);
    label = strchr(columns, '|');
    if (label) *label++ = '\0';
    path = fuzz_file(0, end + 1, size - n - 1);
    if (table_read_any_csv(path, columns[0] ? columns : NULL, label && label[0] ? label : NULL, &t, err, sizeof err)) {
        csv_check(&t);
        if (size % 4 == 0) csv_write_and_read(&t);
        table_free(&t);
    } else fuzz_check_line(err, path);
    if (size % 8 == 1 && table_read_csv(path, columns[0] ? columns : NULL, label && label[0] ? label : NULL, &t, err, sizeof err)) {
        FUZZ_EXPECT(t.n >= 2 && t.std[0] > 0);
        table_free(&t);
    }
    return 0;
}
