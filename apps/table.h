/* table.h - tables of points: CSV in and out, and float32 arrays as .npy files in and out.

   Part of the applications of ctm.h, not of ctm.h itself. Needs args.h; libc and libm only; C99, also C++.

       table t;  char err[512];
       if (!table_read_csv("geyser.csv", "duration,waiting", "kind", &t, err, sizeof err)) { puts(err); return 1; }
       // t.data[row * t.d + column], row < t.n, in the file's own units; t.mean, t.std; t.label[row] < t.classes
       table_free(&t);

   What a CSV file may look like: a header row, then one row a line; separated by comma, semicolon or tab (found out from
   the first two rows); fields in double quotes may hold separators, line ends and doubled quotes (RFC 4180); lines end in
   LF, CRLF or CR; a UTF-8 byte-order mark is skipped; blanks around a field do not count. Empty, NA, N/A, NaN and null
   cells (any case) are missing, and a row with a missing value in a column that is read is skipped and counted. Empty
   lines are no rows (in a file of one column, an empty line between two others is a missing cell). Anything else that is
   not a finite number with a decimal point is an error, told with its line and column; so is a byte that is no UTF-8.

   Conventions. Functions that can fail take (char *err, size_t errlen), return 1 when done and 0 when not, and then leave
   one line in err. What a reader returns belongs to the caller: table_free, npy_free; after a failure the result is empty
   and freeing it is harmless. There is no global state. Bytes are assembled one by one, so big-endian machines agree. */
#ifndef CTM_APPS_TABLE_H
#define CTM_APPS_TABLE_H

#include "args.h"

#include <math.h>

// ---- The interface -----------------------------------------------------------------------------------------------------

#define TABLE_CLASSES_MAX 1000      // more distinct labels than this are surely not class labels

typedef struct {
    size_t  n;              // rows
    int     d;              // columns
    double *data;           // [n,d] row-major, in the file's units, all finite
    char  **names;          // [d] column names
    double *mean, *std;     // [d] of each column, in its units; std is the population's (divides by n)
    size_t  skipped;        // rows left out because a value was missing
    size_t *at;             // [n] which row of the file each is: the file's rows are 0 ... n+skipped-1
    int    *label;          // [n] class of each row, 0 ... classes-1; NULL when no label column was asked for
    int     classes;        // number of distinct labels, numbered in order of first appearance
    char  **class_names;    // [classes] their texts
    int     left_out;       // columns not used because nobody chose columns and these are not numbers
    char  **left_out_names; // [left_out]
} table;

enum { NPY_DIMS = 5 };

typedef struct {
    int    ndim;            // 0 ... NPY_DIMS
    size_t shape[NPY_DIMS]; // the entries from ndim on are 1
    size_t count;           // product of the shape
    float *data;            // [count], last index fastest
} npy_array;

// ---- Memory and whole files --------------------------------------------------------------------------------------------

// count zeroed elements of the given size, at least one, or NULL when memory is short or the size overflows.
static inline void *table_alloc(size_t count, size_t size) { return calloc(count ? count : 1, size); }

// A copy of text that the caller frees, or NULL.
static inline char *table_copy(const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = (char *)malloc(size);
    if (copy) memcpy(copy, text, size);
    return copy;
}

// Free n texts and the list of them.
static inline void table_free_texts(char **texts, size_t n) {
    size_t i;
    if (texts == NULL) return;
    for (i = 0; i < n; i++) free(texts[i]);
    free(texts);
}

// Free everything a table holds and leave it empty.
static inline void table_free(table *t) {
    table_free_texts(t->names, (size_t)t->d);
    table_free_texts(t->class_names, (size_t)t->classes);
    table_free_texts(t->left_out_names, (size_t)t->left_out);
    free(t->data);
    free(t->at);
    free(t->mean);
    free(t->std);
    free(t->label);
    memset(t, 0, sizeof *t);
}

// The bytes of a file (or pipe) with a zero byte behind them; the caller frees them. NULL with a reason on failure.
static inline unsigned char *table_read_file(const char *path, size_t *length, char *err, size_t errlen) {
    size_t size = 1 << 16, used = 0, got;
    unsigned char *buffer = (unsigned char *)malloc(size), *bigger;
    FILE *f = ctm_fopen(path, "rb");
    if (f == NULL) args_fail(err, errlen, "cannot read %s: %s", path, strerror(errno));
    while (f && buffer) {
        errno = 0;
        got = fread(buffer + used, 1, size - used - 1, f);
        used += got;
        if (got == 0) break;
        if (used < size - 1) continue;
        bigger = size > (size_t)-1 / 2 ? NULL : (unsigned char *)realloc(buffer, size * 2);
        if (bigger == NULL) free(buffer);
        buffer = bigger;
        size *= 2;
    }
    if (f && buffer == NULL) args_fail(err, errlen, "cannot read %s: no memory", path);
    if (f && buffer && ferror(f)) {
        args_fail(err, errlen, "cannot read %s: %s", path, errno ? strerror(errno) : "the file is damaged");
        free(buffer);
        buffer = NULL;
    }
    if (f == NULL) {
        free(buffer);
        return NULL;
    }
    fclose(f);
    if (buffer) buffer[used] = '\0';
    *length = used;
    return buffer;
}

// ---- Fields of a CSV file ----------------------------------------------------------------------------------------------

// A place in the text of a CSV file.
typedef struct {
    const char   *p, *end;
    unsigned long line;     // of the file, the first is 1
    char          separator;
} table_cursor;

// One field, without its quotes and the blanks around it. text has room for the longest field that can come.
typedef struct {
    char         *text;
    unsigned long line;     // where it begins
} table_field;

// What came behind a field.
enum { TABLE_MORE, TABLE_END_OF_ROW, TABLE_UNCLOSED, TABLE_AFTER_QUOTE };

// What a cell holds. TABLE_INFINITE is Inf, or a number beyond the range of double; TABLE_COMMA is a number with a decimal
// comma or in groups of thousands ("1,5", "1.234,5"). Both are refused, but they show that the column is meant to hold numbers.
enum { TABLE_MISSING, TABLE_NUMBER, TABLE_INFINITE, TABLE_COMMA, TABLE_TEXT };

// 1 if the cursor stands at the end of a line or of the text.
static inline int table_at_end(const table_cursor *c) { return c->p == c->end || *c->p == '\n' || *c->p == '\r'; }

// 1 for a space or a tab that does not separate fields.
static inline int table_is_blank(const table_cursor *c, char x) { return (x == ' ' || x == '\t') && x != c->separator; }

static inline void table_skip_blanks(table_cursor *c) {
    while (c->p < c->end && table_is_blank(c, *c->p)) c->p++;
}

// Step over one byte and count lines: LF, CRLF and CR each end one.
static inline void table_step(table_cursor *c) {
    char x = *c->p++;
    if (x == '\n' || (x == '\r' && (c->p == c->end || *c->p != '\n'))) c->line++;
}

// Step over the end of a line, if the cursor stands at one.
static inline void table_end_line(table_cursor *c) {
    if (c->p < c->end && *c->p == '\r') table_step(c);
    else if (c->p < c->end && *c->p == '\n') { table_step(c); return; }
    else return;
    if (c->p < c->end && *c->p == '\n') table_step(c);
}

// Remove blanks at both ends of text.
static inline void table_trim(char *text) {
    size_t length = strlen(text), lead = 0;
    while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t')) length--;
    while (lead < length && (text[lead] == ' ' || text[lead] == '\t')) lead++;
    memmove(text, text + lead, length - lead);
    text[length - lead] = '\0';
}

// Read the inside of a quoted field; the cursor stands behind the opening quote, and finally behind the closing one.
// Returns the number of bytes stored, or (size_t)-1 when the text ends first.
static inline size_t table_quoted(table_cursor *c, char *out) {
    size_t n = 0;
    while (c->p < c->end) {
        if (*c->p == '"') {
            c->p++;
            if (c->p == c->end || *c->p != '"') return n;
        }
        out[n++] = *c->p;
        table_step(c);
    }
    return (size_t)-1;
}

// Read the next field. Returns TABLE_MORE (a separator followed), TABLE_END_OF_ROW (a line end, stepped over) or one of
// the two errors of quoting.
static inline int table_next(table_cursor *c, table_field *f) {
    size_t n = 0;
    table_skip_blanks(c);
    f->line = c->line;
    if (c->p < c->end && *c->p == '"') {
        c->p++;
        n = table_quoted(c, f->text);
        if (n == (size_t)-1) return TABLE_UNCLOSED;
        table_skip_blanks(c);
        if (!table_at_end(c) && *c->p != c->separator) return TABLE_AFTER_QUOTE;
    } else {
        while (!table_at_end(c) && *c->p != c->separator) f->text[n++] = *c->p++;
    }
    f->text[n] = '\0';
    table_trim(f->text);
    if (c->p < c->end && *c->p == c->separator) {
        c->p++;
        return TABLE_MORE;
    }
    table_end_line(c);
    return TABLE_END_OF_ROW;
}

// Step over empty lines; returns how many there were.
static inline size_t table_skip_empty_lines(table_cursor *c) {
    size_t count = 0;
    for (;;) {
        table_cursor ahead = *c;
        table_skip_blanks(&ahead);
        if (ahead.p == ahead.end) *c = ahead;
        if (ahead.p == ahead.end || !table_at_end(&ahead)) return count;
        table_end_line(&ahead);
        *c = ahead;
        count++;
    }
}

// 1 if text equals word (given in lower case), whatever its case.
static inline int table_same_word(const char *text, const char *word) {
    while (*text && args_lower(*text) == *word) {
        text++;
        word++;
    }
    return *text == *word;
}

// Bytes of what stands between two groups of thousands at text: 1,234  1.234  1'234, or a blank that breaks no line; else 0.
static inline size_t table_group_mark(const char *text) {
    if (*text == ',' || *text == '.' || *text == '\'') return 1;
    return strncmp(text, "\xC2\xA0", 2) == 0 ? 2 : strncmp(text, "\xE2\x80\xAF", 3) == 0 ? 3 : 0;
}

// 1 for "1,5", "-1,5e3", "1,234,567.8" and "1.234,5": a number as other programs write it. A date ("1.2.2024") is none.
static inline int table_has_comma(const char *text) {
    const char *first;
    size_t mark, groups = 0;
    text += *text == '+' || *text == '-';
    if (!args_digit(*text)) return 0;
    while (args_digit(*text)) text++;
    if (*text == ',' && args_digit(text[1]) && args_is_number(text + 1)) return 1;
    for (first = text; (mark = table_group_mark(text)) > 0 && strncmp(text, first, mark) == 0 && args_digit(text[mark]) &&
                       args_digit(text[mark + 1]) && args_digit(text[mark + 2]) && !args_digit(text[mark + 3]); text += mark + 3) groups++;
    if (groups == 0 || (*text == '\0' && *first == '.')) return 0;
    return *text == '\0' || ((*text == ',' || *text == '.') && *text != *first && args_digit(text[1]) && args_is_number(text + 1));
}

// What a trimmed cell holds; *value is set for TABLE_NUMBER.
static inline int table_classify(const char *text, double *value) {
    const char *bare = text + (*text == '+' || *text == '-');
    int number;
    if (*text == '\0' || table_same_word(text, "na") || table_same_word(text, "n/a") || table_same_word(text, "null") ||
        table_same_word(bare, "nan")) return TABLE_MISSING;
    number = args_real(text, value);
    if (number == 1) return TABLE_NUMBER;
    if (number == -1 || table_same_word(bare, "inf") || table_same_word(bare, "infinity")) return TABLE_INFINITE;
    return table_has_comma(text) ? TABLE_COMMA : TABLE_TEXT;
}

// ---- Reading CSV -------------------------------------------------------------------------------------------------------

// Everything known while a file is being read.
typedef struct {
    const char  *path;
    char        *text;          // the whole file
    table_cursor first, body;   // at the header; at the first row of data
    table_field  field;
    int          columns;       // in the file
    char       **header;        // [columns] names
    size_t      *numbers;       // [columns] cells that are numbers, good or refused
    size_t      *texts;         // [columns] cells that are other text
    size_t       rows;          // of data
    int         *chosen;        // [table.d] which columns of the file
    int          label;         // label column, or -1
    char        *err;
    size_t       errlen;
} table_reader;

// Fields in the row at the cursor, which is moved behind it; 0 when its quotes are wrong.
static inline int table_count_fields(table_cursor *c, table_field *f) {
    int count = 1, after;
    while ((after = table_next(c, f)) == TABLE_MORE) count++;
    return after == TABLE_END_OF_ROW ? count : 0;
}

// The separator that cuts the first two rows into equally many fields (tab before semicolon before comma: "1,5;2,5" is
// a semicolon file with decimal commas); failing that, the one that occurs most often in the header.
static inline char table_separator(const table_reader *r) {
    const char candidates[3] = {'\t', ';', ','};
    char best = ',';
    int i, most = 1;
    for (i = 0; i < 3; i++) {
        table_cursor c = r->first;
        table_field f = r->field;
        int header, row;
        c.separator = candidates[i];
        header = table_count_fields(&c, &f);
        table_skip_empty_lines(&c);
        row = c.p < c.end ? table_count_fields(&c, &f) : header;
        if (header > 1 && header == row) return candidates[i];
        if (header > most) {
            most = header;
            best = candidates[i];
        }
    }
    return best;
}

// Error: quotes that do not fit, in the field that began at r->field.line.
static inline int table_bad_quotes(table_reader *r, int after) {
    return args_fail(r->err, r->errlen, "%s: line %lu: found %s", r->path, r->field.line, after == TABLE_UNCLOSED
                     ? "an opening quote, expected a closing quote before the end of the file"
                     : "text behind a closing quote, expected a separator or the end of the line");
}

// Load the file, skip the byte-order mark, refuse what is not text.
static inline int table_open(table_reader *r) {
    size_t length = 0;
    const char *zero, *bad;
    r->text = (char *)table_read_file(r->path, &length, r->err, r->errlen);
    if (r->text == NULL) return 0;
    r->first.p = r->text;
    r->first.end = r->text + length;
    r->first.line = 1;
    r->first.separator = ',';
    if (length >= 3 && memcmp(r->text, "\xEF\xBB\xBF", 3) == 0) r->first.p += 3;
    if (length >= 2 && (memcmp(r->text, "\xFF\xFE", 2) == 0 || memcmp(r->text, "\xFE\xFF", 2) == 0))
        return args_fail(r->err, r->errlen, "%s: found UTF-16 text, expected UTF-8: save it as \"CSV UTF-8\"", r->path);
    zero = (const char *)memchr(r->text, 0, length);
    if (zero) {
        table_cursor c = r->first;
        while (c.p < zero) table_step(&c);
        return args_fail(r->err, r->errlen, "%s: line %lu: found a zero byte, expected a CSV text file", r->path, c.line);
    }
    bad = args_not_utf8(r->text);
    if (bad) {
        table_cursor c = r->first;
        while (c.p < bad) table_step(&c);
        return args_fail(r->err, r->errlen, "%s, line %lu: byte 0x%02X is no UTF-8; save the table as CSV UTF-8", r->path, c.line,
                         (unsigned)(unsigned char)*bad);
    }
    table_skip_empty_lines(&r->first);
    if (r->first.p == r->first.end) return args_fail(r->err, r->errlen, "%s: the file is empty, expected a header row", r->path);
    r->field.text = (char *)malloc(length + 1);     // no field is longer than the file
    return r->field.text ? 1 : args_fail(r->err, r->errlen, "cannot read %s: no memory", r->path);
}

// Read the column names and leave r->body behind them.
static inline int table_read_header(table_reader *r) {
    table_cursor c = r->first;
    int count, i, after = TABLE_MORE;
    c.separator = table_separator(r);
    r->first = r->body = c;
    count = table_count_fields(&c, &r->field);
    if (count > 0) {
        r->header = (char **)table_alloc((size_t)count, sizeof *r->header);
        r->numbers = (size_t *)table_alloc((size_t)count, sizeof *r->numbers);
        r->texts = (size_t *)table_alloc((size_t)count, sizeof *r->texts);
        r->chosen = (int *)table_alloc((size_t)count, sizeof *r->chosen);
        if (!r->header || !r->numbers || !r->texts || !r->chosen)
            return args_fail(r->err, r->errlen, "%s: no memory for %d columns", r->path, count);
        r->columns = count;
    }
    for (i = 0; after == TABLE_MORE; i++) {
        after = table_next(&r->body, &r->field);
        if (after == TABLE_UNCLOSED || after == TABLE_AFTER_QUOTE) return table_bad_quotes(r, after);
        if (count == 0) continue;                   // only here to find out where the quotes go wrong
        r->header[i] = table_copy(r->field.text);
        if (r->header[i] == NULL) return args_fail(r->err, r->errlen, "%s: no memory for column names", r->path);
    }
    return 1;
}

// Go through all rows once: check their lengths, count rows and the kinds of cells in each column.
static inline int table_survey(table_reader *r) {
    table_cursor c = r->body;
    for (;;) {
        unsigned long line;
        int count = 0, after = TABLE_MORE;
        size_t empty = table_skip_empty_lines(&c);
        if (c.p == c.end) break;
        if (r->columns == 1) r->rows += empty;
        line = c.line;
        while (after == TABLE_MORE) {
            double value;
            int kind;
            after = table_next(&c, &r->field);
            if (after == TABLE_UNCLOSED || after == TABLE_AFTER_QUOTE) return table_bad_quotes(r, after);
            kind = table_classify(r->field.text, &value);
            if (count < r->columns && kind == TABLE_TEXT) r->texts[count]++;
            else if (count < r->columns && kind != TABLE_MISSING) r->numbers[count]++;
            count++;
        }
        if (count != r->columns)
            return args_fail(r->err, r->errlen, "%s: line %lu: found %d field%s, expected %d as in the header", r->path, line,
                             count, count == 1 ? "" : "s", r->columns);
        r->rows++;
    }
    if (r->rows == 0) return args_fail(r->err, r->errlen, "%s: found a header but no rows, expected at least 2", r->path);
    return 1;
}

// A column counts as numeric when at least half of its cells that are not missing are numbers. One bad cell among
// numbers is thus an error to be told, not a reason to drop the column in silence.
static inline int table_is_numeric(const table_reader *r, int column) {
    return r->numbers[column] > 0 && r->numbers[column] >= r->texts[column];
}

// "a, b, c" of the names in the header (numeric ones only, or all) into out; long lists end in "...".
static inline void table_list(const table_reader *r, int numeric_only, char *out, size_t size) {
    size_t used = 0;
    int i;
    out[0] = '\0';
    for (i = 0; i < r->columns; i++) {
        char name[64];
        if (numeric_only && !table_is_numeric(r, i)) continue;
        args_excerpt(r->header[i], name, sizeof name);
        if (used + strlen(name) + 8 > size) {
            snprintf(out + used, size - used, ", ...");
            return;
        }
        used += (size_t)snprintf(out + used, size - used, "%s%s", used ? ", " : "", name);
    }
    if (used == 0) snprintf(out, size, "none");
}

// The column called name; -1 after an error when there is none, or more than one.
static inline int table_find_column(table_reader *r, const char *name) {
    char shown[64], list[300];
    const char *near_name;
    int i, found = -1, times = 0;
    for (i = 0; i < r->columns; i++)
        if (strcmp(r->header[i], name) == 0 && times++ == 0) found = i;
    args_excerpt(name, shown, sizeof shown);
    if (times == 1) return found;
    if (times > 1) {
        args_fail(r->err, r->errlen, "%s: the header names column \"%s\" %d times, expected once", r->path, shown, times);
        return -1;
    }
    table_list(r, 0, list, sizeof list);
    near_name = args_suggest(name, (const char *const *)r->header, r->columns);
    if (near_name) {
        char near_shown[64];
        args_fail(r->err, r->errlen, "%s: no column \"%s\"; did you mean \"%s\"? columns: %s", r->path, shown,
                  args_excerpt(near_name, near_shown, sizeof near_shown), list);
    } else {
        args_fail(r->err, r->errlen, "%s: no column \"%s\"; columns: %s", r->path, shown, list);
    }
    return -1;
}

// Add a column of the file to the table's.
static inline int table_choose(table_reader *r, table *t, int column) {
    char shown[64];
    int i;
    args_excerpt(r->header[column], shown, sizeof shown);
    for (i = 0; i < t->d; i++)
        if (r->chosen[i] == column)
            return args_fail(r->err, r->errlen, "%s: column \"%s\" was chosen twice", r->path, shown);
    if (column == r->label)
        return args_fail(r->err, r->errlen, "%s: column \"%s\" was chosen both as a value and as the label", r->path, shown);
    if (r->numbers[column] + r->texts[column] == 0)
        return args_fail(r->err, r->errlen, "%s: column \"%s\" has no values", r->path, shown);
    t->names[t->d] = table_copy(r->header[column]);
    if (t->names[t->d] == NULL) return args_fail(r->err, r->errlen, "%s: no memory for column names", r->path);
    r->chosen[t->d++] = column;
    return 1;
}

// Choose the columns of a list "A,B,C"; a name that holds a comma may stand in double quotes.
static inline int table_choose_listed(table_reader *r, table *t, const char *list) {
    table_cursor c;
    table_field name;
    int after = TABLE_MORE, good = 1;
    c.p = list;
    c.end = list + strlen(list);
    c.line = 1;
    c.separator = ',';
    name.text = (char *)malloc(strlen(list) + 1);
    if (name.text == NULL) return args_fail(r->err, r->errlen, "%s: no memory for column names", r->path);
    while (good && after == TABLE_MORE) {
        int column;
        after = table_next(&c, &name);
        if (after == TABLE_UNCLOSED || after == TABLE_AFTER_QUOTE) {
            good = args_fail(r->err, r->errlen, "%s: the list of columns has quotes that do not fit", r->path);
        } else if (name.text[0] == '\0') {
            good = args_fail(r->err, r->errlen, "%s: the list of columns has an empty name", r->path);
        } else {
            column = table_find_column(r, name.text);
            good = column >= 0 && table_choose(r, t, column);
        }
    }
    free(name.text);
    return good;
}

// Choose every numeric column that has a name, except the label; keep a list of the others.
static inline int table_choose_numeric(table_reader *r, table *t) {
    char list[300];
    int i;
    for (i = 0; i < r->columns; i++) {
        if (i == r->label) continue;
        if (table_is_numeric(r, i) && r->header[i][0] != '\0') {
            if (table_find_column(r, r->header[i]) < 0 || !table_choose(r, t, i)) return 0;
            continue;
        }
        t->left_out_names[t->left_out] = table_copy(r->header[i][0] ? r->header[i] : "(no name)");
        if (t->left_out_names[t->left_out] == NULL)
            return args_fail(r->err, r->errlen, "%s: no memory for column names", r->path);
        t->left_out++;
    }
    if (t->d > 0) return 1;
    table_list(r, 0, list, sizeof list);
    return args_fail(r->err, r->errlen, "%s: found no column of numbers, expected at least one; columns: %s", r->path, list);
}

// 1 if the header consists of numbers and is not 0, 1, 2, ... (which some programs write as names).
static inline int table_header_is_data(const table_reader *r) {
    double value;
    int i, counted = 1;
    for (i = 0; i < r->columns; i++) {
        if (table_classify(r->header[i], &value) != TABLE_NUMBER) return 0;
        if (value != (double)i) counted = 0;
    }
    return !counted;
}

// Decide which columns are read.
static inline int table_select(table_reader *r, table *t, const char *columns, const char *label) {
    t->names = (char **)table_alloc((size_t)r->columns, sizeof *t->names);
    t->left_out_names = (char **)table_alloc((size_t)r->columns, sizeof *t->left_out_names);
    if (!t->names || !t->left_out_names) return args_fail(r->err, r->errlen, "%s: no memory for column names", r->path);
    if (columns == NULL && table_header_is_data(r))
        return args_fail(r->err, r->errlen, "%s: line %lu: found numbers, expected a header row with the names of the columns "
                         "(if they are names, choose them with --columns)", r->path, r->first.line);
    if (label && (r->label = table_find_column(r, label)) < 0) return 0;
    return columns ? table_choose_listed(r, t, columns) : table_choose_numeric(r, t);
}

// Error: the cell in r->field, of the given column, is not a finite number.
static inline int table_bad_cell(table_reader *r, int column, int kind) {
    char name[64], found[64], list[300];
    const char *expected = kind == TABLE_INFINITE ? "a finite number" :
                           kind == TABLE_COMMA ? "a number with a decimal point and no other separators" : "a number";
    args_excerpt(r->header[column], name, sizeof name);
    args_excerpt(r->field.text, found, sizeof found);
    if (!table_is_numeric(r, column)) {
        table_list(r, 1, list, sizeof list);
        return args_fail(r->err, r->errlen, "%s: column \"%s\" holds text (line %lu: \"%s\"), expected numbers; numeric "
                         "columns: %s", r->path, name, r->field.line, found, list);
    }
    return args_fail(r->err, r->errlen, "%s: line %lu: column \"%s\": found \"%s\", expected %s", r->path, r->field.line, name,
                     found, expected);
}

// The class of the label in r->field, a new one if need be; -1 after an error.
static inline int table_class(table_reader *r, table *t) {
    char shown[64];
    int i;
    for (i = 0; i < t->classes; i++)
        if (strcmp(t->class_names[i], r->field.text) == 0) return i;
    if (t->classes == TABLE_CLASSES_MAX) {
        args_fail(r->err, r->errlen, "%s: line %lu: label column \"%s\": found more than %d different values, expected classes",
                  r->path, r->field.line, args_excerpt(r->header[r->label], shown, sizeof shown), TABLE_CLASSES_MAX);
        return -1;
    }
    t->class_names[i] = table_copy(r->field.text);
    if (t->class_names[i] == NULL) {
        args_fail(r->err, r->errlen, "%s: no memory for the classes", r->path);
        return -1;
    }
    t->classes++;
    return i;
}

// Read one row into row t->n of the table. place[column] is the table's column or -1. Returns 1: kept; 0: error;
// 2: a value was missing. The class of a row is decided only when the row is kept: label_text gets the text meanwhile.
static inline int table_fill_row(table_reader *r, table *t, table_cursor *c, const int *place, char *label_text) {
    int column, kind, missing = 0, after = TABLE_MORE;
    for (column = 0; after == TABLE_MORE; column++) {
        double value = 0;
        after = table_next(c, &r->field);
        if (column != r->label && place[column] < 0) continue;
        kind = table_classify(r->field.text, &value);
        if (kind == TABLE_MISSING) missing = 1;
        else if (column == r->label) memcpy(label_text, r->field.text, strlen(r->field.text) + 1);
        else if (kind != TABLE_NUMBER) return table_bad_cell(r, column, kind);
        else t->data[t->n * (size_t)t->d + (size_t)place[column]] = value;
    }
    return missing ? 2 : 1;
}

// Go through all rows again and store their values. The rows and their lengths have been checked by table_survey.
static inline int table_fill_rows(table_reader *r, table *t, const int *place, char *label_text) {
    table_cursor c = r->body;
    for (;;) {
        size_t empty = table_skip_empty_lines(&c);
        int kept;
        if (c.p == c.end) return 1;
        if (r->columns == 1) t->skipped += empty;
        kept = table_fill_row(r, t, &c, place, label_text);
        if (kept == 0) return 0;
        if (kept == 2) {
            t->skipped++;
            continue;
        }
        if (t->label) {
            char *text = r->field.text;
            int label;
            r->field.text = label_text;
            label = table_class(r, t);
            r->field.text = text;
            if (label < 0) return 0;
            t->label[t->n] = label;
        }
        t->at[t->n] = t->n + t->skipped;
        t->n++;
    }
}

// Allocate the table's arrays and fill them.
static inline int table_fill(table_reader *r, table *t) {
    size_t d = (size_t)t->d;
    int *place = (int *)table_alloc((size_t)r->columns, sizeof *place);
    char *label_text = r->label < 0 ? NULL : (char *)malloc((size_t)(r->first.end - r->text) + 1);
    int i, good = place != NULL && (r->label < 0 || label_text != NULL);
    if (good && r->rows <= (size_t)-1 / d) t->data = (double *)table_alloc(r->rows * d, sizeof *t->data);
    t->at = (size_t *)table_alloc(r->rows, sizeof *t->at);
    t->mean = (double *)table_alloc(d, sizeof *t->mean);
    t->std = (double *)table_alloc(d, sizeof *t->std);
    if (r->label >= 0) {
        t->label = (int *)table_alloc(r->rows, sizeof *t->label);
        t->class_names = (char **)table_alloc(TABLE_CLASSES_MAX, sizeof *t->class_names);
        good = good && t->label && t->class_names;
    }
    if (!good || !t->data || !t->at || !t->mean || !t->std) {
        good = args_fail(r->err, r->errlen, "%s: no memory for %lu rows of %d columns", r->path, (unsigned long)r->rows, t->d);
    } else {
        for (i = 0; i < r->columns; i++) place[i] = -1;
        for (i = 0; i < t->d; i++) place[r->chosen[i]] = i;
        good = table_fill_rows(r, t, place, label_text);
    }
    free(place);
    free(label_text);
    return good;
}

// Mean and standard deviation of column j; 0 for the latter when it is constant. Values are taken relative to the column's
// range, so that squares neither overflow nor vanish. Returns 0 when a double cannot hold values a few ranges away.
static inline int table_moments(table *t, int j) {
    const double *x = t->data + j;
    size_t i, d = (size_t)t->d;
    double low = x[0], high = x[0], range, centre, sum = 0, squares = 0;
    for (i = 0; i < t->n; i++) {
        if (x[i * d] < low) low = x[i * d];
        if (x[i * d] > high) high = x[i * d];
    }
    range = high - low;
    if (!args_finite(range) || !args_finite(low - 8 * range) || !args_finite(high + 8 * range)) return 0;
    t->mean[j] = low;
    t->std[j] = 0;
    if (!(range > 0)) return 1;
    for (i = 0; i < t->n; i++) sum += (x[i * d] - low) / range;
    centre = sum / (double)t->n;
    for (i = 0; i < t->n; i++) {
        double z = (x[i * d] - low) / range - centre;
        squares += z * z;
    }
    t->mean[j] = low + range * centre;
    t->std[j] = range * sqrt(squares / (double)t->n);
    return 1;
}

// Demand what training needs: at least 2 rows, and a spread in every column.
static inline int table_check_spread(const table *t, const char *path, char *err, size_t errlen) {
    char shown[64], number[ARGS_NUMBER];
    int j;
    if (t->n < 2)
        return args_fail(err, errlen, "%s: found %lu usable row%s (%lu skipped for missing values), expected at least 2", path,
                         (unsigned long)t->n, t->n == 1 ? "" : "s", (unsigned long)t->skipped);
    for (j = 0; j < t->d; j++)
        if (!(t->std[j] > 0))
            return args_fail(err, errlen, "%s: column \"%s\" is constant (%s in all %lu rows), expected values that vary", path,
                             args_excerpt(t->names[j], shown, sizeof shown), args_shortest(number, t->mean[j], 1), (unsigned long)t->n);
    return 1;
}

// Compute mean and std of all columns.
static inline int table_measure(table_reader *r, table *t) {
    char shown[64];
    int j;
    if (t->n == 0)
        return args_fail(r->err, r->errlen, "%s: found no usable row (%lu skipped for missing values), expected at least one",
                         r->path, (unsigned long)t->skipped);
    for (j = 0; j < t->d; j++)
        if (!table_moments(t, j))
            return args_fail(r->err, r->errlen, "%s: column \"%s\" spans a range too large for a double", r->path,
                             args_excerpt(t->names[j], shown, sizeof shown));
    return 1;
}

// Like table_read_csv, but one row is enough and columns may be constant: for points to be evaluated, not trained on.
static inline int table_read_any_csv(const char *path, const char *columns, const char *label, table *out, char *err,
                                     size_t errlen) {
    table_reader r;
    int good;
    memset(&r, 0, sizeof r);
    memset(out, 0, sizeof *out);
    r.path = path;
    r.label = -1;
    r.err = err;
    r.errlen = errlen;
    good = table_open(&r) && table_read_header(&r) && table_survey(&r) && table_select(&r, out, columns, label) &&
           table_fill(&r, out) && table_measure(&r, out);
    table_free_texts(r.header, (size_t)r.columns);
    free(r.text);
    free(r.field.text);
    free(r.numbers);
    free(r.texts);
    free(r.chosen);
    if (!good) table_free(out);
    return good;
}

// Read points from a CSV file (the opening comment says what such a file may look like).
// columns   "A,B,C" in the wanted order, or NULL for all columns of numbers (out->left_out_names says which are not)
// label     a column whose distinct texts become classes 0, 1, ..., or NULL
// Fewer than 2 usable rows, or a column that does not vary, are errors: nothing could be learned from them.
static inline int table_read_csv(const char *path, const char *columns, const char *label, table *out, char *err,
                                 size_t errlen) {
    if (!table_read_any_csv(path, columns, label, out, err, errlen)) return 0;
    if (table_check_spread(out, path, err, errlen)) return 1;
    table_free(out);
    return 0;
}

// ---- Writing CSV -------------------------------------------------------------------------------------------------------

// Write a text as one CSV field, in quotes when it would be misread without. Errors stay in f (ferror).
static inline void table_write_text(FILE *f, const char *text) {
    size_t length = strlen(text);
    int quote = length == 0 || text[strcspn(text, ",;\t\"\r\n")] != '\0' || text[0] == ' ' || text[length - 1] == ' ' ||
                (unsigned char)text[0] == 0xEF;     // perhaps a byte-order mark, which would be skipped
    if (!quote) {
        fputs(text, f);
        return;
    }
    fputc('"', f);
    for (; *text; text++) {
        if (*text == '"') fputc('"', f);
        fputc(*text, f);
    }
    fputc('"', f);
}

// Write a number with as many digits as it takes to get it back, nine to seventeen; nan, inf and -inf by these names.
static inline void table_write_number(FILE *f, double x) {
    unsigned long long bits;
    char text[ARGS_NUMBER];
    memcpy(&bits, &x, sizeof bits);
    if (!args_finite(x)) fputs(bits & 0xFFFFFFFFFFFFFULL ? "nan" : bits >> 63 ? "-inf" : "inf", f);
    else fputs(args_shortest(text, x, 9), f);
}

// Digits that a value of a column needs whose values differ by about `unit`: those of a float, and more if it is far from zero.
static inline int table_digits(double x, double unit) {
    int digits = 9;
    for (; unit > 0 && unit < fabs(x) && digits < 17; unit *= 10) digits++;
    return digits;
}

// Write n rows of d columns. With unit[d] as many digits as values of that spread need, else all there are.
static inline int table_write_rows(const char *path, const char *const *names, size_t n, int d, const double *data,
                                   const double *unit, char *err, size_t errlen) {
    ctm_output a;
    size_t i, columns = (size_t)d;
    char text[ARGS_NUMBER];
    if (args_open_atomic(&a, path, err, errlen) == NULL) return 0;
    for (i = 0; i < columns; i++) {
        if (i > 0) fputc(',', a.file);
        table_write_text(a.file, names[i]);
    }
    fputc('\n', a.file);
    for (i = 0; i < n * columns && !ferror(a.file); i++) {
        if (unit && args_finite(data[i])) fputs(args_number(text, data[i], table_digits(data[i], unit[i % columns])), a.file);
        else table_write_number(a.file, data[i]);
        fputc((i + 1) % columns ? ',' : '\n', a.file);
    }
    return args_close_atomic(&a, err, errlen);
}

// Write data [n,d] (row-major, the data's own units) under the d names, comma separated. All or nothing: path is replaced
// only when the new file is complete.
static inline int table_write_csv(const char *path, const char *const *names, size_t n, int d, const double *data, char *err,
                                  size_t errlen) {
    return table_write_rows(path, names, n, d, data, NULL, err, errlen);
}

// ---- .npy files --------------------------------------------------------------------------------------------------------

// Layout: \x93NUMPY, major, minor; length of the header (2 bytes little endian in version 1, 4 bytes in 2 and 3); the
// header, a Python dictionary {'descr': '<f4', 'fortran_order': False, 'shape': (50, 2), }, blanks and a line end; then
// the values.

// The header while it is being read.
typedef struct {
    const char *p;                  // ends with a zero byte
    char        descr[24];          // cut to size; only compared and shown
    int         fortran_order;
    int         seen;               // bit 0 descr, bit 1 fortran_order, bit 2 shape
    const char *reason;             // what was expected, when something else was found
} npy_header;

// 32 bits, little endian.
static inline unsigned long npy_u32(const unsigned char *b) {
    return (unsigned long)b[0] | (unsigned long)b[1] << 8 | (unsigned long)b[2] << 16 | (unsigned long)b[3] << 24;
}

// Skip blanks, then step over c if it comes next: 1, else 0.
static inline int npy_accept(npy_header *h, char c) {
    while (*h->p == ' ' || *h->p == '\n' || *h->p == '\t') h->p++;
    if (*h->p != c) return 0;
    h->p++;
    return 1;
}

// Note what was expected. Returns 0.
static inline int npy_expected(npy_header *h, const char *what) {
    h->reason = what;
    return 0;
}

// A Python string, 'x' or "x", cut to size.
static inline int npy_string(npy_header *h, char *out, size_t size) {
    char quote;
    size_t n = 0;
    if (npy_accept(h, '\'')) quote = '\'';
    else if (npy_accept(h, '"')) quote = '"';
    else return 0;
    for (; *h->p && *h->p != quote; h->p++)
        if (n + 1 < size) out[n++] = *h->p;
    out[n] = '\0';
    return npy_accept(h, quote);
}

// A whole number that fits size_t.
static inline int npy_size(npy_header *h, size_t *out) {
    size_t value = 0, largest = (size_t)-1;
    if (!args_digit(*h->p)) return npy_expected(h, "a whole number in the shape");
    for (; args_digit(*h->p); h->p++) {
        size_t digit = (size_t)(*h->p - '0');
        if (value > (largest - digit) / 10) return npy_expected(h, "a shape that fits into memory");
        value = value * 10 + digit;
    }
    if (*h->p == 'L') h->p++;                       // written by Python 2
    *out = value;
    return 1;
}

// A shape: (), (5,), (5, 2), ...
static inline int npy_shape(npy_header *h, npy_array *a) {
    if (!npy_accept(h, '(')) return npy_expected(h, "a shape in parentheses");
    while (!npy_accept(h, ')')) {                   // npy_accept has also skipped the blanks
        if (a->ndim == NPY_DIMS) return npy_expected(h, "at most 5 dimensions");
        if (!npy_size(h, &a->shape[a->ndim])) return 0;
        a->ndim++;
        if (npy_accept(h, ',')) continue;
        if (npy_accept(h, ')')) return 1;
        return npy_expected(h, "a comma or a closing parenthesis in the shape");
    }
    return 1;
}

// The value that belongs to key.
static inline int npy_value(npy_header *h, const char *key, npy_array *a) {
    int bit = strcmp(key, "descr") == 0 ? 1 : strcmp(key, "fortran_order") == 0 ? 2 : strcmp(key, "shape") == 0 ? 4 : 0;
    if (bit == 0 || (h->seen & bit)) return npy_expected(h, "descr, fortran_order and shape, once each");
    h->seen |= bit;
    if (bit == 4) return npy_shape(h, a);
    if (bit == 1) return npy_string(h, h->descr, sizeof h->descr) ? 1 : npy_expected(h, "dtype '<f4', not a compound one");
    while (*h->p == ' ') h->p++;
    h->fortran_order = strncmp(h->p, "True", 4) == 0;
    if (!h->fortran_order && strncmp(h->p, "False", 5) != 0) return npy_expected(h, "fortran_order True or False");
    h->p += h->fortran_order ? 4 : 5;
    return 1;
}

// The whole dictionary.
static inline int npy_dictionary(npy_header *h, npy_array *a) {
    char key[24];
    if (!npy_accept(h, '{')) return npy_expected(h, "a dictionary as the header");
    while (!npy_accept(h, '}')) {
        if (!npy_string(h, key, sizeof key) || !npy_accept(h, ':')) return npy_expected(h, "a key and a colon in the header");
        if (!npy_value(h, key, a)) return 0;
        if (npy_accept(h, ',')) continue;
        if (!npy_accept(h, '}')) return npy_expected(h, "a comma or a closing brace in the header");
        break;
    }
    h->p += strspn(h->p, " \n");
    if (*h->p != '\0') return npy_expected(h, "nothing behind the header's dictionary");
    return h->seen == 7 ? 1 : npy_expected(h, "descr, fortran_order and shape, once each");
}

// Multiply up a->count. Returns 0 when count * 4 bytes overflows. A zero anywhere makes an empty array.
static inline int npy_count(npy_array *a) {
    size_t largest = (size_t)-1 / 4;
    int i;
    a->count = 1;
    for (i = 0; i < a->ndim; i++)
        if (a->shape[i] == 0) a->count = 0;
    for (i = 0; i < a->ndim && a->count > 0; i++) {
        if (a->count > largest / a->shape[i]) return 0;
        a->count *= a->shape[i];
    }
    return 1;
}

// Interpret the header in the first bytes of a file, of any type. On success *start is where the values begin, descr (24
// bytes) names their type, and a has shape and count. bytes[length] must exist.
static inline int npy_parse_head(const char *path, unsigned char *bytes, size_t length, npy_array *a, char *descr, size_t *start,
                                 char *err, size_t errlen) {
    npy_header h;
    size_t at, header;
    unsigned char first;
    int good;
    memset(&h, 0, sizeof h);
    if (length < 10 || memcmp(bytes, "\x93NUMPY", 6) != 0)
        return args_fail(err, errlen, "%s: found no .npy header, expected a file written by numpy.save", path);
    if (bytes[6] < 1 || bytes[6] > 3)
        return args_fail(err, errlen, "%s: found .npy version %d, expected 1, 2 or 3", path, bytes[6]);
    at = bytes[6] == 1 ? 10 : 12;
    if (length < at) return args_fail(err, errlen, "%s: the file ends within its header", path);
    header = bytes[6] == 1 ? (size_t)bytes[8] | (size_t)bytes[9] << 8 : (size_t)npy_u32(bytes + 8);
    if (header > length - at) return args_fail(err, errlen, "%s: the file ends within its header", path);
    if (memchr(bytes + at, 0, header)) return args_fail(err, errlen, "%s: found a zero byte in the header, expected text", path);
    *start = at + header;
    first = bytes[*start];                          // the byte behind the file's last is there, and zero
    bytes[*start] = '\0';
    h.p = (const char *)bytes + at;
    good = npy_dictionary(&h, a);
    bytes[*start] = first;
    if (!good) return args_fail(err, errlen, "%s: bad .npy header, expected %s", path, h.reason);
    if (h.fortran_order && a->ndim > 1)
        return args_fail(err, errlen, "%s: found fortran_order True, expected False: save it as numpy.ascontiguousarray(x)", path);
    if (!npy_count(a)) return args_fail(err, errlen, "%s: the shape is too large for this machine's memory", path);
    memcpy(descr, h.descr, sizeof h.descr);
    return 1;
}

// The same for the whole of a file of float32.
static inline int npy_parse(const char *path, unsigned char *bytes, size_t length, npy_array *a, size_t *start, char *err,
                            size_t errlen) {
    char descr[24];
    if (!npy_parse_head(path, bytes, length, a, descr, start, err, errlen)) return 0;
    if (strcmp(descr, "<f4") != 0)
        return args_fail(err, errlen, "%s: found dtype '%s', expected '<f4': save it as x.astype('<f4')", path, descr);
    if ((length - *start) / 4 != a->count || (length - *start) % 4 != 0)
        return args_fail(err, errlen, "%s: found %lu bytes of values, expected %lu as the shape says", path,
                         (unsigned long)(length - *start), (unsigned long)(a->count * 4));
    return 1;
}

// Turn the values, from byte start on, into floats at the beginning of the same memory (start is at least 10, so a float
// is never written over bytes still to be read). Returns the memory as floats.
static inline float *npy_decode(unsigned char *bytes, size_t start, size_t count) {
    size_t i;
    for (i = 0; i < count; i++) {
        unsigned int bits = (unsigned int)npy_u32(bytes + start + 4 * i);
        memcpy(bytes + 4 * i, &bits, 4);
    }
    return (float *)(void *)bytes;
}

// Free the values and leave the array empty.
static inline void npy_free(npy_array *a) {
    free(a->data);
    memset(a, 0, sizeof *a);
}

// Read an array of float32 from a .npy file (versions 1 to 3, '<f4', C order, at most 5 dimensions; exactly the values
// that the shape asks for). Infinite values and NaN are not looked for: see npy_all_finite. Free with npy_free.
static inline int npy_read_f32(const char *path, npy_array *out, char *err, size_t errlen) {
    size_t length = 0, start = 0;
    unsigned char *bytes;
    int i;
    memset(out, 0, sizeof *out);
    for (i = 0; i < NPY_DIMS; i++) out->shape[i] = 1;
    bytes = table_read_file(path, &length, err, errlen);
    if (bytes && npy_parse(path, bytes, length, out, &start, err, errlen)) {
        out->data = npy_decode(bytes, start, out->count);
        return 1;
    }
    free(bytes);
    memset(out, 0, sizeof *out);
    return 0;
}

// 1 if no value is infinite or NaN; otherwise 0, and *where is the position of the first that is.
static inline int npy_all_finite(const npy_array *a, size_t *where) {
    size_t i;
    for (i = 0; i < a->count; i++) {
        unsigned int bits;
        memcpy(&bits, a->data + i, 4);
        if (((bits >> 23) & 0xFF) != 0xFF) continue;
        *where = i;
        return 0;
    }
    return 1;
}

enum { NPY_HEADER_MAX = 320 };

// Magic, version 1.0 and a header that ends at a multiple of 64 bytes, for values of type descr, into out (NPY_HEADER_MAX
// bytes). Returns its length.
static inline size_t npy_make_header(unsigned char *out, const char *descr, int ndim, const size_t *shape) {
    char text[256];
    size_t n, header;
    int i;
    n = (size_t)snprintf(text, sizeof text, "{'descr': '%.8s', 'fortran_order': False, 'shape': (", descr);
    for (i = 0; i < ndim; i++) {
        char digits[24];
        size_t left = shape[i], k = sizeof digits;
        do { digits[--k] = (char)('0' + left % 10); left /= 10; } while (left > 0);
        if (i > 0) text[n++] = ' ';
        memcpy(text + n, digits + k, sizeof digits - k);
        n += sizeof digits - k;
        if (ndim == 1 || i + 1 < ndim) text[n++] = ',';
    }
    n += (size_t)snprintf(text + n, sizeof text - n, "), }");
    header = (10 + n + 1 + 63) / 64 * 64 - 10;
    while (n + 1 < header) text[n++] = ' ';
    text[n++] = '\n';
    memcpy(out, "\x93NUMPY\1\0", 8);
    out[8] = (unsigned char)(header & 0xFF);
    out[9] = (unsigned char)(header >> 8);
    memcpy(out + 10, text, n);
    return 10 + n;
}

// Write float32 data of the given shape (ndim 0 ... 5, last index fastest) as a .npy file. All or nothing: path is
// replaced only when the new file is complete.
static inline int npy_write_f32(const char *path, int ndim, const size_t *shape, const float *data, char *err, size_t errlen) {
    unsigned char block[4096], head[NPY_HEADER_MAX];
    ctm_output a;
    size_t i, count = 1, used = 0;
    if (ndim < 0 || ndim > NPY_DIMS) return args_fail(err, errlen, "cannot write %s: found %d dimensions, expected 0 to 5", path, ndim);
    for (i = 0; i < (size_t)ndim; i++) count *= shape[i];
    if (args_open_atomic(&a, path, err, errlen) == NULL) return 0;
    fwrite(head, 1, npy_make_header(head, "<f4", ndim, shape), a.file);
    for (i = 0; i < count && !ferror(a.file); i++) {
        unsigned int bits;
        memcpy(&bits, data + i, 4);
        block[used++] = (unsigned char)(bits & 0xFF);
        block[used++] = (unsigned char)(bits >> 8 & 0xFF);
        block[used++] = (unsigned char)(bits >> 16 & 0xFF);
        block[used++] = (unsigned char)(bits >> 24 & 0xFF);
        if (used < sizeof block && i + 1 < count) continue;
        fwrite(block, 1, used, a.file);
        used = 0;
    }
    return args_close_atomic(&a, err, errlen);
}

#endif
