// A mutator that knows what a safetensors file looks like. Bytes changed at random seldom get past the header; this one changes a
// word, a number, an entry of the header or a number of the data, and mostly puts the length of the header, often also the offsets
// and the size of the data, right again. So what is broken is broken in one place, and the rest of the file is read.
#ifndef FUZZ_SAFETENSORS_H
#define FUZZ_SAFETENSORS_H

#include "fuzz.h"

#ifdef __clang__                                           // nobody looks at how the mutator runs
#pragma clang attribute push(__attribute__((no_sanitize("coverage", "address", "undefined"))), apply_to = function)
#endif

enum { ST_MAX = 1 << 16, ST_SPANS = 512 };
typedef struct st_span { size_t at, len; } st_span;
typedef struct st_file { char head[ST_MAX]; size_t n; uint8_t data[ST_MAX]; size_t size; } st_file;

// Spans of the header: whole strings and numbers.
static int st_words(const st_file *f, st_span *s) {
    size_t i = 0, from;
    int n = 0;
    while (i < f->n && n < ST_SPANS) {
        from = i;
        if (f->head[i] == '"') {
            for (i++; i < f->n && f->head[i] != '"'; i++) if (f->head[i] == '\\') i++;
            i = i < f->n ? i + 1 : f->n;
        } else if (f->head[i] == '-' || (f->head[i] >= '0' && f->head[i] <= '9')) {
            for (i++; i < f->n && f->head[i] >= '0' && f->head[i] <= '9'; ) i++;
        } else { i++; continue; }
        s[n].at = from;
        s[n++].len = i - from;
    }
    return n;
}

// Spans of `"key":value` inside the braces of the given depth.
static int st_pairs(const st_file *f, int depth, st_span *s) {
    size_t i, from = 0;
    int n = 0, now = 0, open = 0;
    for (i = 0; i < f->n && n < ST_SPANS; i++) {
        char c = f->head[i];
        if (now == depth && open && (c == ',' || c == '}')) { s[n].at = from; s[n++].len = i - from; open = 0; }
        if (c == '{' || c == '[') now++;
        else if (c == '}' || c == ']') now--;
        else if (c == '"') {
            if (now == depth && !open) { open = 1; from = i; }
            for (i++; i < f->n && f->head[i] != '"'; i++) if (f->head[i] == '\\') i++;
        }
    }
    return n;
}

// Puts text in place of a span; 0 if there is no room.
static int st_replace(st_file *f, st_span s, const char *text, size_t len) {
    if (f->n - s.len + len > ST_MAX) return 0;
    memmove(f->head + s.at + len, f->head + s.at + s.len, f->n - s.at - s.len);
    memcpy(f->head + s.at, text, len);
    f->n += len - s.len;
    return 1;
}

static const char *st_odd_word(void) {
    static const char *const odd[] = {"0", "1", "2", "3", "4", "8", "16", "-1", "-0", "00", "007", "1e3", "0.5", "1e400", "nan", "2147483647", "2147483648",
        "4294967295", "4294967296", "4294967297", "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616",
        "1e-320", "100000000", "1.5", "\"\"", "\"F32\"", "\"F64\"", "\"I64\"", "\"F16\"", "\"BF16\"", "\"BOOL\"", "\"U8\"", "\"\\u00e9\"", "\"\\ud83d\\ude00\"", "\"\\ud83d\"",
        "\"\\udc00x\"", "\"\\u0000\"", "\"\\n\"", "\"\\q\"", "\"\xc3\xa9\"", "\"\xff\"", "\"\xed\xa0\x80\"", "\"mlp\"", "\"unet\"", "\"model\"", "\"checkpoint\"",
        "\"__metadata__\"", "{}", "[]", "null", "true"};
    return odd[fuzz_random(sizeof odd / sizeof odd[0])];
}

static void st_change_word(st_file *f) {
    static st_span s[ST_SPANS];
    char text[300];
    int n = st_words(f, s), k, j;
    const char *odd = st_odd_word();
    if (!n) return;
    k = (int)fuzz_random((unsigned)n);
    j = (int)fuzz_random((unsigned)n);
    if (fuzz_random(3) == 0 && s[j].len < sizeof text) {                              // another word of the file
        memcpy(text, f->head + s[j].at, s[j].len);
        st_replace(f, s[k], text, s[j].len);
    } else if (f->head[s[k].at] == '"' && odd[0] != '"' && fuzz_random(8)) {          // values of the metadata are strings
        st_replace(f, s[k], text, (size_t)snprintf(text, sizeof text, "\"%s\"", odd));
    } else st_replace(f, s[k], odd, strlen(odd));
}

static void st_change_pairs(st_file *f) {
    static st_span s[ST_SPANS];
    static char text[2048];
    int n = st_pairs(f, 1 + (fuzz_random(3) == 0), s), k, j;
    st_span place;
    if (n < 2) return;
    k = (int)fuzz_random((unsigned)n);
    j = (int)fuzz_random((unsigned)n);
    if (s[j].len + 1 >= sizeof text) return;
    memcpy(text, f->head + s[j].at, s[j].len);
    text[s[j].len] = ',';
    place = s[k];
    switch (fuzz_random(3)) {
    case 0: place.len += f->head[place.at + place.len] == ','; st_replace(f, place, "", 0); break;      // gone
    case 1: place.len = 0; st_replace(f, place, text, s[j].len + 1); break;                              // there twice
    default: st_replace(f, place, text, s[j].len); break;                                                // in place of another
    }
}

static size_t st_width(const char *type, size_t n) {
    if (n >= 4 && (memcmp(type, "BF16", 4) == 0)) return 2;
    if (n >= 3 && memcmp(type, "F16", 3) == 0) return 2;
    if (n >= 3 && memcmp(type + 1, "64", 2) == 0) return 8;
    if (n >= 3 && memcmp(type + 1, "32", 2) == 0) return 4;
    return 1;
}

static const char *st_search(const char *p, size_t n, const char *word) {
    size_t k = strlen(word), i;
    for (i = 0; i + k <= n; i++) if (memcmp(p + i, word, k) == 0) return p + i;
    return NULL;
}

// Gives every tensor the place after the one before it, and the data the size that they ask for.
static void st_fit(st_file *f) {
    static st_span s[ST_SPANS];
    char text[80];
    size_t at = 0;
    int n = st_pairs(f, 1, s), k, j;
    for (k = 0; k < n; k++) {
        const char *p = f->head + s[k].at, *type = st_search(p, s[k].len, "\"dtype\":\""), *shape = st_search(p, s[k].len, "\"shape\":["),
                   *offsets = st_search(p, s[k].len, "\"data_offsets\":[");
        st_span place;
        size_t bytes, grown;
        const char *q;
        if (!type || !shape || !offsets) continue;
        bytes = st_width(type + 9, (size_t)(p + s[k].len - type - 9));
        for (q = shape + 9; q < p + s[k].len && *q != ']'; ) {
            size_t v = 0;
            for (; q < p + s[k].len && *q >= '0' && *q <= '9'; q++) v = v > ST_MAX ? v : v * 10 + (size_t)(*q - '0');
            bytes = bytes > ST_MAX ? bytes : bytes * v;
            while (q < p + s[k].len && *q != ']' && (*q < '0' || *q > '9')) q++;
        }
        for (q = offsets; q < p + s[k].len && *q != ']'; ) q++;
        place.at = (size_t)(offsets - f->head);
        place.len = (size_t)(q - offsets);
        grown = (size_t)snprintf(text, sizeof text, "\"data_offsets\":[%lu,%lu", (unsigned long)at, (unsigned long)(at + bytes));
        if (!st_replace(f, place, text, grown)) return;
        for (j = k + 1; j < n; j++) s[j].at = s[j].at + grown - place.len;
        at += bytes;
        if (at > ST_MAX) return;
    }
    for (; f->size < at; f->size++) f->data[f->size] = f->size >= 8 ? f->data[f->size - 8] : 0;
    f->size = at;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed) {
    static st_file f;
    uint64_t header = 0;
    unsigned what, keep;
    int i;
    fuzz_state = seed * 0x9e3779b97f4a7c15u + 1;
    what = fuzz_random(16);
    keep = fuzz_random(16);                                // 0: the length of the header is left wrong
    for (i = 7; size >= 8 && i >= 0; i--) header = header << 8 | data[i];
    if (size < 10 || header > size - 8 || max > ST_MAX || what < 2) return LLVMFuzzerMutate(data, size, max);
    f.n = (size_t)header;
    memcpy(f.head, data + 8, f.n);
    f.size = size - 8 - f.n;
    memcpy(f.data, data + 8 + f.n, f.size);
    if (what < 5) f.n = LLVMFuzzerMutate((uint8_t *)f.head, f.n, max - 8 - f.size > 0 ? max - 8 - f.size : 1);
    else if (what < 6) { if (f.size) f.size = LLVMFuzzerMutate(f.data, f.size, max - 8 - f.n > 0 ? max - 8 - f.n : 1); }
    else if (what < 8) {
        int width = fuzz_random(3) ? 4 : 8;
        if (f.size >= 8) fuzz_put(f.data + fuzz_random((unsigned)(f.size / 4 - 1)) * 4, fuzz_bits(width), width, 0);
    } else if (what < 12) st_change_word(&f);
    else if (what < 15) st_change_pairs(&f);
    if (what >= 8 && fuzz_random(2)) st_fit(&f);
    if (8 + f.n + f.size > max) { if (8 + f.n >= max) return LLVMFuzzerMutate(data, size, max); f.size = max - 8 - f.n; }
    fuzz_put(data, keep ? f.n : f.n + fuzz_random(64), 8, 0);
    memcpy(data + 8, f.head, f.n);
    memcpy(data + 8 + f.n, f.data, f.size);
    return 8 + f.n + f.size;
}
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
