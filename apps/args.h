/* args.h - flags, folders, safe files, a progress line and a clock for the programs.

   Part of the applications of ctm.h, not of ctm.h itself, whose files (ctm_output) it uses; C99, also C++. Include it before other
   headers where possible: with -std=c99 that makes the POSIX clock visible (without it a less steady clock is used, nothing breaks).

   A program describes its flags in one table and parses the command line with it:

       long long steps = 20000;  double gamma = 0;  int match = 0;
       args_common c = args_common_defaults("out/points");
       args_option options[] = {
           {"steps", ARGS_INT,    &steps, 1, 1e9, NULL,                "total number of training steps"},
           {"gamma", ARGS_REAL,   &gamma, 0, 1,   NULL,                "0 deterministic ... 1 all noise is new"},
           {"match", ARGS_CHOICE, &match, 0, 0,   "soft,local,global", "where the two routes meet"},
           ARGS_COMMON(c)
       };
       int r = args_parse("points", "points [train] [flags]", options, ARGS_COUNT(options), argc, argv);
       if (r) return args_exit_status(r);

   Conventions. Functions that can fail take (char *err, size_t errlen), return 1 when done and 0 when not, and then leave
   one line without a newline in err (err may be NULL with errlen 0). args_parse is the exception: it prints by itself.
   There is no global state. Numbers are read and written with a decimal point, whatever the locale. Nothing here relies on
   infinities or NaN in arithmetic, so -ffast-math is harmless. */
#ifndef CTM_APPS_ARGS_H
#define CTM_APPS_ARGS_H

// A strict -std=c99 hides POSIX; ask for it as long as nobody has chosen otherwise.
#if defined(__STRICT_ANSI__) && !defined(_WIN32) && !defined(__APPLE__) && !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif

// Microsoft's compiler would have fopen and strcpy replaced by functions of its own.
#if defined(_MSC_VER) && !defined(_CRT_SECURE_NO_WARNINGS)
#define _CRT_SECURE_NO_WARNINGS
#endif

#include <errno.h>
#include <locale.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(_WIN32)
#include <direct.h>
#include <io.h>
#define ARGS_WINDOWS 1
#ifdef __cplusplus
extern "C" {
#endif
__declspec(dllimport) wchar_t * __stdcall GetCommandLineW(void);
__declspec(dllimport) wchar_t **__stdcall CommandLineToArgvW(const wchar_t *line, int *count);
__declspec(dllimport) int       __stdcall MultiByteToWideChar(unsigned, unsigned long, const char *, int, wchar_t *, int);
__declspec(dllimport) int       __stdcall WideCharToMultiByte(unsigned, unsigned long, const wchar_t *, int, char *, int, const char *, int *);
__declspec(dllimport) int       __stdcall SetConsoleOutputCP(unsigned);
__declspec(dllimport) unsigned long long __stdcall GetTickCount64(void);
#ifdef __cplusplus
}
#endif
#if defined(_MSC_VER)
#pragma comment(lib, "shell32")
#endif
#elif defined(__unix__) || defined(__APPLE__) || defined(__wasi__)
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <unistd.h>
#define ARGS_POSIX 1
// When a header was included before this one, the request above came too late. This one exists all the same.
#if defined(__STRICT_ANSI__) && !defined(__cplusplus)
extern int (fileno)(FILE *f);
#endif
#endif
#include "../ctm.h"

#if defined(__MINGW32__) && !defined(__clang__)
#define ARGS_PRINTF(text, first) __attribute__((__format__(gnu_printf, text, first)))
#elif defined(__GNUC__)
#define ARGS_PRINTF(text, first) __attribute__((__format__(__printf__, text, first)))
#else
#define ARGS_PRINTF(text, first)
#endif

#define ARGS_PATH 1024                                            // a convenient size for char path[ARGS_PATH]
#define ARGS_COUNT(array) ((int)(sizeof (array) / sizeof (array)[0]))

// ---- The interface -----------------------------------------------------------------------------------------------------

// What a flag's value is, and what its target points to. Of a flag given twice the last one counts.
enum {
    ARGS_FLAG,      // int *          set to 1; the flag takes no value
    ARGS_INT,       // long long *    a whole number: 20000 or 2e4
    ARGS_REAL,      // double *       a finite number
    ARGS_TEXT,      // const char **  not empty; points into argv
    ARGS_CHOICE,    // int *          position in choices, counted from 0
    ARGS_REST       // args_rest *    name and value go to a function; the row ARGS_ANY takes every other name
};
#define ARGS_ANY "SETTING"

// Who takes flags that this file knows nothing of.
typedef struct {
    // 1; or 0 with a line in err; or -1: there is no such name. With value NULL it only says whether there is the name.
    int       (*take)(void *user, const char *name, const char *value, char *err, size_t errlen);
    void       *user;
} args_rest;

typedef struct {
    const char *name;       // without the dashes: "steps"
    int         kind;       // ARGS_FLAG ... ARGS_CHOICE
    void       *target;     // holds the default value before parsing
    double      min, max;   // permitted range of ARGS_INT and ARGS_REAL, ends included; 0, 0 = any
    const char *choices;    // ARGS_CHOICE: "soft,local,global"; else NULL
    const char *help;       // one sentence; range and default are added
} args_option;

// The flags that every program has (and --help, which needs no row).
typedef struct {
    long long   seed;       // of all random numbers
    long long   threads;    // 0 = all cores
    const char *out;        // folder or file
    int         quiet;      // 1: no progress line, only results and errors
} args_common;

#define ARGS_COMMON(c) ARGS_COMMON_OUT(c, "where results go")
#define ARGS_COMMON_OUT(c, out_help)                                                                                   \
    {"seed",    ARGS_INT,  &(c).seed,    0, 9223372036854775807.0, NULL, "seed of all random numbers"},                \
    {"threads", ARGS_INT,  &(c).threads, 0, 4096,                  NULL, "number of threads; 0 takes all cores"},      \
    {"out",     ARGS_TEXT, &(c).out,     0, 0,                     NULL, out_help},                                    \
    {"quiet",   ARGS_FLAG, &(c).quiet,   0, 0,                     NULL, "no progress line"}

// args_parse's answer as an exit status: help was printed -> 0, wrong usage -> 2.
static inline int args_exit_status(int parsed) { return parsed == 2 ? 2 : 0; }

// The end of every main: what was printed must have arrived. Returns status, or 1 after one line when stdout took not all of
// it (a full disk).
static inline int args_finish(const char *program, int status) {
    int reason, bad = ferror(stdout);
    errno = 0;
    if (fflush(stdout) == 0 && !bad) return status;
    reason = errno;
    if (status) return status;                      // that fault has its line
    fprintf(stderr, "%s: cannot write to standard output%s%s\n", program, reason ? ": " : "", reason ? strerror(reason) : "");
    return 1;
}

// The progress line of a loop over steps.
typedef struct {
    int       visible;      // 0: stderr is not a terminal, or --quiet
    long long first, total; // the loop runs from step first (0, or where it resumes) to step total
    double    seconds;      // time limit that replaces total; 0 = none
    double    start, last;  // clock readings: at the beginning, at the last print
    int       width;        // characters of the last print, to overwrite them; 0 = nothing printed
} args_progress;

// ---- Errors ------------------------------------------------------------------------------------------------------------

// Put a formatted reason into err (cut to errlen), on one line: control characters become blanks. Returns 0.
ARGS_PRINTF(3, 4)
static inline int args_fail(char *err, size_t errlen, const char *format, ...) {
    va_list list;
    char *p;
    if (err == NULL || errlen == 0) return 0;
    va_start(list, format);
    if (vsnprintf(err, errlen, format, list) < 0) err[0] = '\0';
    va_end(list);
    for (p = err; *p; p++)
        if ((unsigned char)*p < 32 || *p == 127) *p = ' ';
    return 0;
}

// The first byte of text that is no UTF-8, or NULL when all of it is. (Neither longer than needed, nor half of a UTF-16 pair.)
static inline const char *args_not_utf8(const char *text) {
    const unsigned char *p = (const unsigned char *)text;
    while (*p) {
        int n = *p < 0x80 ? 1 : *p >= 0xC2 && *p <= 0xDF ? 2 : *p >= 0xE0 && *p <= 0xEF ? 3 : *p >= 0xF0 && *p <= 0xF4 ? 4 : 0, i;
        for (i = 1; i < n; i++)
            if ((p[i] & 0xC0) != 0x80) n = 0;
        if (n == 0 || (*p == 0xE0 && p[1] < 0xA0) || (*p == 0xED && p[1] > 0x9F) || (*p == 0xF0 && p[1] < 0x90) ||
            (*p == 0xF4 && p[1] > 0x8F)) return (const char *)p;
        p += n;
    }
    return NULL;
}

// Copy text into out for use in a message: at most 40 bytes (and at most size - 1), then "...". A character of several
// bytes (UTF-8) is kept whole or dropped. Returns out.
static inline const char *args_excerpt(const char *text, char *out, size_t size) {
    size_t length = strlen(text), keep = size > 44 ? 40 : size - 4;
    if (length <= keep) {
        memcpy(out, text, length + 1);
        return out;
    }
    while (keep > 0 && ((unsigned char)text[keep] & 0xC0) == 0x80) keep--;
    memcpy(out, text, keep);
    memcpy(out + keep, "...", 4);
    return out;
}

// ---- Numbers -----------------------------------------------------------------------------------------------------------

// 1 if x is neither infinite nor NaN; looks at the bits, since -ffast-math removes comparisons meant to find out.
static inline int args_finite(double x) {
    unsigned long long bits;
    memcpy(&bits, &x, sizeof bits);
    return ((bits >> 52) & 0x7FF) != 0x7FF;
}

// 1 for '0'...'9'. (isdigit is undefined for negative chars and may follow the locale.)
static inline int args_digit(char c) { return c >= '0' && c <= '9'; }

// 'A'...'Z' to 'a'...'z'; other characters unchanged.
static inline char args_lower(char c) { return (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c); }

// 1 if all of s is a decimal number: [+-] digits [. digits] [e [+-] digits], with a digit before the exponent.
static inline int args_is_number(const char *s) {
    int digits = 0;
    if (*s == '+' || *s == '-') s++;
    for (; args_digit(*s); s++) digits++;
    if (*s == '.')
        for (s++; args_digit(*s); s++) digits++;
    if (digits == 0) return 0;
    if (*s == 'e' || *s == 'E') {
        s++;
        if (*s == '+' || *s == '-') s++;
        if (!args_digit(*s)) return 0;
        while (args_digit(*s)) s++;
    }
    return *s == '\0';
}

// The decimal point of the locale, which an application that includes this file may have set.
static inline const char *args_locale_point(void) {
    const struct lconv *l = localeconv();
    return l && l->decimal_point && l->decimal_point[0] ? l->decimal_point : ".";
}

// strtod for a text that args_is_number accepts, in every locale with a decimal point. 0 when memory is short.
static inline int args_strtod(const char *s, double *value) {
    const char *point = args_locale_point(), *dot = strchr(s, '.');
    char near_by[64], *copy = near_by;
    size_t length = strlen(s), extra = strlen(point);
    if (dot == NULL || strcmp(point, ".") == 0) {
        *value = strtod(s, NULL);
        return 1;
    }
    if (length + extra >= sizeof near_by) copy = (char *)malloc(length + extra);
    if (copy == NULL) return 0;
    memcpy(copy, s, (size_t)(dot - s));
    memcpy(copy + (dot - s), point, extra);
    memcpy(copy + (dot - s) + extra, dot + 1, strlen(dot + 1) + 1);
    *value = strtod(copy, NULL);
    if (copy != near_by) free(copy);
    return 1;
}

enum { ARGS_NUMBER = 40 };                          // room for a number as text

// x as text with so many significant digits, in every locale with a decimal point. Returns out.
static inline const char *args_number(char out[ARGS_NUMBER], double x, int digits) {
    const char *point = args_locale_point();
    char *found;
    snprintf(out, ARGS_NUMBER, "%.*g", digits, x);
    found = strstr(out, point);
    if (found) {
        *found = '.';
        memmove(found + 1, found + strlen(point), strlen(found + strlen(point)) + 1);
    }
    return out;
}

// x with the fewest significant digits, at_least so many, from which strtod gets it back. Returns out.
static inline const char *args_shortest(char out[ARGS_NUMBER], double x, int at_least) {
    double back = 0;
    int digits = at_least;
    while (args_strtod(args_number(out, x, digits), &back) && back != x && digits < 17) digits++;
    return out;
}

// Read all of s as a finite number. 1: *value is set; 0: not a number; -1: a number too large for a double.
static inline int args_real(const char *s, double *value) {
    double v;
    if (!args_is_number(s) || !args_strtod(s, &v)) return 0;
    if (!args_finite(v)) return -1;
    *value = v;
    return 1;
}

// *m = 10 * *m + digit unless that exceeds the largest long long: then 0 is returned.
static inline int args_append_digit(unsigned long long *m, int digit) {
    const unsigned long long largest = 9223372036854775807ULL;
    if (*m > (largest - (unsigned)digit) / 10) return 0;
    *m = *m * 10 + (unsigned)digit;
    return 1;
}

// The exponent of a number that args_is_number accepts, limited to +-100000; 0 if it has none.
static inline long args_exponent(const char *s) {
    long exponent = 0;
    int negative;
    while (*s && *s != 'e' && *s != 'E') s++;
    if (*s == '\0') return 0;
    s++;
    negative = *s == '-';
    if (*s == '+' || *s == '-') s++;
    for (; args_digit(*s); s++)
        if (exponent < 100000) exponent = exponent * 10 + (*s - '0');
    if (exponent > 100000) exponent = 100000;
    return negative ? -exponent : exponent;
}

// Read all of s as a whole number, exactly: "20000", "2e4", "1.5e3", "7.0". 1: *value is set; 0: not a whole number;
// -1: does not fit into 64 bits.
static inline int args_int(const char *s, long long *value) {
    unsigned long long m = 0;                       // the digits up to the last that is not zero
    long zeros = 0, fraction = 0, shift;            // zeros after these; digits behind the point; power of ten left
    int negative = *s == '-', point = 0;
    const char *p = s;
    if (!args_is_number(s)) return 0;
    if (*p == '+' || *p == '-') p++;
    for (; *p == '.' || args_digit(*p); p++) {
        if (*p == '.') { point = 1; continue; }
        fraction += point;
        if (*p == '0') { zeros++; continue; }
        for (; zeros > 0 && m > 0; zeros--)
            if (!args_append_digit(&m, 0)) return -1;
        zeros = 0;
        if (!args_append_digit(&m, *p - '0')) return -1;
    }
    shift = zeros - fraction + args_exponent(s);
    if (m > 0 && shift < 0) return 0;
    for (; m > 0 && shift > 0; shift--)
        if (!args_append_digit(&m, 0)) return -1;
    *value = negative ? -(long long)m : (long long)m;
    return 1;
}

// ---- Did you mean ...? -------------------------------------------------------------------------------------------------

// Edits that turn a into b: insert, delete or replace a character, or swap two neighbours; upper and lower case are the
// same. Words are compared up to 63 characters.
static inline int args_distance(const char *a, const char *b) {
    int row[3][64];                                 // rows i-2, i-1 and i of the table of distances, in rotation
    int na = (int)strlen(a), nb = (int)strlen(b), i, j;
    if (na > 63) na = 63;
    if (nb > 63) nb = 63;
    for (j = 0; j <= nb; j++) row[0][j] = j;
    for (i = 1; i <= na; i++) {
        int *now = row[i % 3];
        const int *up = row[(i + 2) % 3], *upper = row[(i + 1) % 3];
        now[0] = i;
        for (j = 1; j <= nb; j++) {
            char x = args_lower(a[i - 1]), y = args_lower(b[j - 1]);
            int best = up[j - 1] + (x != y);
            if (up[j] + 1 < best) best = up[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && x == args_lower(b[j - 2]) && args_lower(a[i - 2]) == y && upper[j - 2] + 1 < best)
                best = upper[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[na % 3][nb];
}

// args_distance, or a value above 1000 when the two are too far apart to be a slip. A beginning of at least three
// letters counts as one edit ("bill" for "bill_length_mm").
static inline int args_slip(const char *word, const char *candidate) {
    size_t length = strlen(word), i = 0;
    int distance = args_distance(word, candidate);
    while (i < length && args_lower(word[i]) == args_lower(candidate[i])) i++;
    if (i == length && length >= 3 && distance > 1) distance = 1;
    return distance <= 1 + (int)(length < 63 ? length : 63) / 4 && distance < (int)length ? distance : 1001;
}

// The one of n candidates (flags, column names, ...) that word is most likely a slip of; NULL if none is near.
static inline const char *args_suggest(const char *word, const char *const *candidates, int n) {
    const char *best = NULL;
    int i, least = 1000;
    for (i = 0; i < n; i++) {
        int distance = args_slip(word, candidates[i]);
        if (distance < least) {
            least = distance;
            best = candidates[i];
        }
    }
    return best;
}

// Copy entry i of "soft,local,global" to out (cut to size). Returns 0 when there are not that many entries.
static inline int args_choice_name(const char *choices, int i, char *out, size_t size) {
    size_t length;
    for (; i > 0; i--) {
        choices = strchr(choices, ',');
        if (choices == NULL) return 0;
        choices++;
    }
    length = strcspn(choices, ",");
    if (length >= size) length = size - 1;
    memcpy(out, choices, length);
    out[length] = '\0';
    return 1;
}

// "soft, local, global" into out (cut to size), for messages. Returns out.
static inline const char *args_choice_list(const char *choices, char *out, size_t size) {
    size_t used = 0;
    for (; *choices && used + 3 < size; choices++) {
        out[used++] = *choices;
        if (*choices == ',') out[used++] = ' ';
    }
    out[used] = '\0';
    return out;
}

// Position of word in "soft,local,global", or -1.
static inline int args_choice(const char *choices, const char *word) {
    char name[64];
    int i;
    for (i = 0; args_choice_name(choices, i, name, sizeof name); i++)
        if (strcmp(name, word) == 0) return i;
    return -1;
}

// Copy to out the entry that word is most likely a slip of. Returns 0 if none is near.
static inline int args_choice_suggest(const char *choices, const char *word, char *out, size_t size) {
    char name[64];
    int i, best = -1, least = 1000;
    for (i = 0; args_choice_name(choices, i, name, sizeof name); i++) {
        int distance = args_slip(word, name);
        if (distance < least) {
            least = distance;
            best = i;
        }
    }
    return best >= 0 && args_choice_name(choices, best, out, size);
}

// ---- The command line --------------------------------------------------------------------------------------------------

// The usual settings: seed 1, all cores, results to out, not quiet.
static inline args_common args_common_defaults(const char *out) {
    args_common c;
    c.seed = 1;
    c.threads = 0;
    c.out = out;
    c.quiet = 0;
    return c;
}

// "from 0 to 1", "at least 0", "at most 3" or "" into out: the range of an ARGS_INT or ARGS_REAL.
static inline void args_range(const args_option *o, char *out, size_t size) {
    double huge = o->kind == ARGS_INT ? 9.2e18 : 1e300;
    int low = o->min > -huge, high = o->max < huge;
    char least[ARGS_NUMBER], most[ARGS_NUMBER];
    args_number(least, o->min, 15);
    args_number(most, o->max, 15);
    out[0] = '\0';
    if (o->min == 0 && o->max == 0) return;
    if (low && high) snprintf(out, size, "from %s to %s", least, most);
    else if (low)    snprintf(out, size, "at least %s", least);
    else if (high)   snprintf(out, size, "at most %s", most);
}

static inline int args_in_range(const args_option *o, double value) {
    return (o->min == 0 && o->max == 0) || (value >= o->min && value <= o->max);
}

// Say on stderr which word was found instead of one of the choices. Returns 2.
static inline int args_bad_choice(const char *program, const char *what, const char *choices, const char *word) {
    char found[64], list[512], near_name[64], line[1024];
    args_excerpt(word, found, sizeof found);
    args_choice_list(choices, list, sizeof list);
    if (args_choice_suggest(choices, word, near_name, sizeof near_name))
        args_fail(line, sizeof line, "%s: found \"%s\", expected one of %s; did you mean %s?", what, found, list, near_name);
    else
        args_fail(line, sizeof line, "%s: found \"%s\", expected one of %s", what, found, list);
    fprintf(stderr, "%s: %s\n", program, line);
    return 2;
}

// Say on stderr which value of a flag was found and what was expected. Returns 2.
static inline int args_bad_value(const char *program, const args_option *o, const char *value) {
    char what[80], range[96], found[64], line[512];
    const char *kind = o->kind == ARGS_INT ? "a whole number" : o->kind == ARGS_REAL ? "a number" : "a text";
    long long v;
    snprintf(what, sizeof what, "flag --%s", o->name);
    if (o->kind == ARGS_CHOICE) return args_bad_choice(program, what, o->choices, value);
    args_range(o, range, sizeof range);
    args_excerpt(value, found, sizeof found);
    args_fail(line, sizeof line, "%s: found \"%s\", expected %s%s%s%s", what, found, kind,
              range[0] == 'a' ? " of " : range[0] ? " " : "", range,
              o->kind == ARGS_INT && args_int(value, &v) < 0 && range[0] != 'f' ? " that fits into 64 bits" : "");
    fprintf(stderr, "%s: %s\n", program, line);
    return 2;
}

// Store value in the flag's target. Returns 1, or 0 when the value is malformed or outside the range.
static inline int args_store(const args_option *o, const char *value) {
    int any = o->min == 0 && o->max == 0;
    if (o->kind == ARGS_INT) {
        long long v;
        if (args_int(value, &v) != 1) return 0;
        if (!any && ((double)v < o->min || (double)v > o->max)) return 0;
        *(long long *)o->target = v;
    } else if (o->kind == ARGS_REAL) {
        double v;
        if (args_real(value, &v) != 1) return 0;
        if (!any && (v < o->min || v > o->max)) return 0;
        *(double *)o->target = v;
    } else if (o->kind == ARGS_CHOICE) {
        int v = args_choice(o->choices, value);
        if (v < 0) return 0;
        *(int *)o->target = v;
    } else {
        if (*value == '\0') return 0;
        *(const char **)o->target = value;
    }
    return 1;
}

// Say on stderr that a flag is unknown and which one was probably meant. Returns 2.
static inline int args_unknown(const char *program, const args_option *o, int n, const char *found) {
    char word[64], shown[72], line[256];
    const char *best = NULL;
    const char *name = found + (found[0] == '-') + (found[0] == '-' && found[1] == '-');
    size_t length = strcspn(name, "=");
    int i, least = 1000;
    if (length >= sizeof word) length = sizeof word - 1;
    memcpy(word, name, length);
    word[length] = '\0';
    for (i = 0; i <= n; i++) {
        const char *candidate = i == n ? "help" : strcmp(o[i].name, ARGS_ANY) == 0 ? "" : o[i].name;
        int distance = strcmp(word, candidate) == 0 ? 0 : args_slip(word, candidate);
        if (distance < least) {
            least = distance;
            best = candidate;
        }
    }
    snprintf(shown, sizeof shown, "%.*s%s", (int)(name - found), found, word);
    if (found[0] != '-') args_fail(line, sizeof line, "unexpected \"%s\"; flags begin with -- (--help lists them)", shown);
    else if (best)       args_fail(line, sizeof line, "unknown flag %s; did you mean --%s?", shown, best);
    else                 args_fail(line, sizeof line, "unknown flag %s (--help lists the flags)", shown);
    fprintf(stderr, "%s: %s\n", program, line);
    return 2;
}

// The name in "steps=5" or "steps". 0: it is too long to be one.
enum { ARGS_NAME = 48 };
static inline int args_name(const char *argument, char name[ARGS_NAME]) {
    size_t length = strcspn(argument, "=");
    if (length >= ARGS_NAME) return 0;
    memcpy(name, argument, length);
    name[length] = '\0';
    return 1;
}

// The row of the flag that argument ("--steps" or "--steps=5") names, or NULL. *value is what follows '=', or NULL.
static inline const args_option *args_find(const args_option *o, int n, const char *argument, const char **value) {
    size_t length;
    char name[ARGS_NAME];
    int i;
    *value = NULL;
    if (argument[0] != '-' || argument[1] != '-') return NULL;
    argument += 2;
    length = strcspn(argument, "=");
    if (argument[length] == '=') *value = argument + length + 1;
    for (i = 0; i < n; i++)
        if (strcmp(o[i].name, ARGS_ANY) != 0 && strlen(o[i].name) == length && strncmp(o[i].name, argument, length) == 0) return &o[i];
    for (i = 0; i < n; i++) {
        const args_rest *rest = (const args_rest *)o[i].target;
        if (o[i].kind == ARGS_REST && strcmp(o[i].name, ARGS_ANY) == 0 && args_name(argument, name) &&
            rest->take(rest->user, name, NULL, NULL, 0) == 1) return &o[i];
    }
    return NULL;
}

// "--steps N" as it stands on the left of the help text.
static inline void args_help_head(const args_option *o, char *out, size_t size) {
    const char *value = o->kind == ARGS_INT ? " N" : o->kind == ARGS_REAL ? " X" : o->kind == ARGS_TEXT ? " TEXT" : o->kind == ARGS_REST ? " VALUE" : " WORD";
    snprintf(out, size, "  --%s%s", o->name, o->kind == ARGS_FLAG ? "" : value);
}

// "(from 1 to 1000; default 20)": range or choices and the present value of the target; "" for a flag that is off.
static inline void args_help_tail(const args_option *o, char *out, size_t size) {
    char range[96], list[256], word[64];
    const char *text;
    args_range(o, range, sizeof range);
    out[0] = '\0';
    if (o->kind == ARGS_FLAG && *(int *)o->target) snprintf(out, size, " (default: on)");
    if (o->kind == ARGS_INT && args_in_range(o, (double)*(long long *)o->target))
        snprintf(out, size, " (%s%sdefault %lld)", range, range[0] ? "; " : "", *(long long *)o->target);
    else if (o->kind == ARGS_REAL && args_in_range(o, *(double *)o->target))
        snprintf(out, size, " (%s%sdefault %s)", range, range[0] ? "; " : "", args_number(word, *(double *)o->target, 6));
    else if ((o->kind == ARGS_INT || o->kind == ARGS_REAL) && range[0])
        snprintf(out, size, " (%s)", range);           // a default out of range stands for "not given"
    if (o->kind == ARGS_TEXT) {
        text = *(const char **)o->target;
        if (text) snprintf(out, size, " (default %s)", text);
    }
    if (o->kind == ARGS_CHOICE) {
        if (!args_choice_name(o->choices, *(int *)o->target, word, sizeof word)) word[0] = '\0';
        snprintf(out, size, " (%s; default %s)", args_choice_list(o->choices, list, sizeof list), word);
    }
}

// Print text word by word from column on, with lines of at most 79 characters that begin at column indent.
static inline void args_wrap(FILE *f, const char *text, int column, int indent) {
    while (*text) {
        int length;
        while (*text == ' ') text++;
        length = (int)strcspn(text, " ");
        if (length == 0) break;
        if (column > indent && column + 1 + length > 79) {
            fprintf(f, "\n");
            column = 0;
        }
        if (column < indent) column += fprintf(f, "%*s", indent - column, "");
        else if (column > indent) column += fprintf(f, " ");
        column += fprintf(f, "%.*s", length, text);
        text += length;
    }
    fprintf(f, "\n");
}

// Print usage and one paragraph per flag to f.
static inline void args_print_help(FILE *f, const char *usage, const args_option *o, int n) {
    const int indent = 22;
    int i;
    fprintf(f, "usage: %s\n\n", usage);
    for (i = 0; i < n; i++) {
        char head[80], tail[512], text[1024];
        int column;
        args_help_head(&o[i], head, sizeof head);
        args_help_tail(&o[i], tail, sizeof tail);
        column = fprintf(f, "%s", head);
        if (column >= indent) {
            fprintf(f, "\n");
            column = 0;
        }
        snprintf(text, sizeof text, "%s%s", o[i].help, tail);
        args_wrap(f, text, column, indent);
    }
    fprintf(f, "  --help              this text\n\n"
               "exit status: 0 done; 1 a file or the machine is at fault, one line says how;\n"
               "2 wrong usage; 3 a signal has stopped a training run: its state is saved, and\n"
               "--resume goes on (a second signal ends it at once)\n");
}

// 1 if the command line holds --name or --name=value.
static inline int args_given(const char *name, int argc, char **argv) {
    size_t length = strlen(name);
    int i;
    for (i = 1; i < argc; i++)
        if (strncmp(argv[i], "--", 2) == 0 && strncmp(argv[i] + 2, name, length) == 0 &&
            (argv[i][2 + length] == '\0' || argv[i][2 + length] == '=')) return 1;
    return 0;
}

// Store argument i (and its value, which may be argument i + 1) by the table. Returns the number of arguments used, or
// -1 after one line on stderr. A value that begins with -- is taken for a flag: write --name=--value for such a text.
static inline int args_one(const char *program, const args_option *o, int n, int i, int argc, char **argv) {
    const char *value;
    const args_option *row = args_find(o, n, argv[i], &value);
    if (row == NULL) {
        args_unknown(program, o, n, argv[i]);
        return -1;
    }
    if (row->kind == ARGS_FLAG) {
        if (value) {
            char shown[64];
            fprintf(stderr, "%s: flag --%s takes no value, found \"%s\"\n", program, row->name,
                    args_excerpt(value, shown, sizeof shown));
            return -1;
        }
        *(int *)row->target = 1;
        return 1;
    }
    if (value == NULL && (i + 1 >= argc || strncmp(argv[i + 1], "--", 2) == 0)) {
        char shown[64];
        const char *next = i + 1 < argc ? argv[i + 1] : NULL;
        fprintf(stderr, "%s: flag %s needs a value, found %s\n", program, argv[i],
                next ? args_excerpt(next, shown, sizeof shown) : "the end of the line");
        return -1;
    }
    if (row->kind == ARGS_REST) {
        const args_rest *rest = (const args_rest *)row->target;
        char name[ARGS_NAME], line[512];
        args_name(argv[i] + 2, name);
        if (rest->take(rest->user, name, value ? value : argv[i + 1], line, sizeof line) != 1) {
            fprintf(stderr, "%s: %s\n", program, line);
            return -1;
        }
    } else if (!args_store(row, value ? value : argv[i + 1])) {
        args_bad_value(program, row, value ? value : argv[i + 1]);
        return -1;
    }
    return value ? 1 : 2;
}

// Parse argv[1] ... argv[argc-1] by a table of n flags; --name value and --name=value are the same.
// program   name that begins the error line
// usage     first line of the help: "points [train] [flags]"
// Returns 0: go on;  1: help was printed on stdout;  2: wrong usage, said in one line on stderr (targets may be partly
// set). See args_exit_status.
static inline int args_parse(const char *program, const char *usage, const args_option *o, int n, int argc, char **argv) {
    int i;
    for (i = 1; i < argc; i++)                      // first of all, so that help shows the defaults
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            args_print_help(stdout, usage, o, n);
            return 1;
        }
    for (i = 1; i < argc; ) {
        int used = args_one(program, o, n, i, argc, argv);
        if (used < 0) return 2;
        i += used;
    }
    return 0;
}

// The first thing in main: the arguments in UTF-8. Other systems hand them over so; Windows has them in 16 bits a character,
// and its console is told that UTF-8 comes. The copy is never freed; without memory for it the arguments stay as they are.
static inline void args_utf8(int *argc, char ***argv) {
#if defined(ARGS_WINDOWS)
    int count = 0, i, length;
    wchar_t **wide = CommandLineToArgvW(GetCommandLineW(), &count);
    char **list = wide ? (char **)calloc((size_t)count + 1, sizeof *list) : NULL;
    SetConsoleOutputCP(65001);
    for (i = 0; list && i < count; i++) {
        length = WideCharToMultiByte(65001, 0, wide[i], -1, NULL, 0, NULL, NULL);
        list[i] = length > 0 ? (char *)malloc((size_t)length) : NULL;
        if (list[i] == NULL) return;
        WideCharToMultiByte(65001, 0, wide[i], -1, list[i], length, NULL, NULL);
    }
    if (list == NULL) return;
    *argc = count;
    *argv = list;
#else
    (void)argc;
    (void)argv;
#endif
}

// A program with commands: take the word argv[1] off the line. Returns its position in commands ("train,sample,loglik"),
// 0 when the line begins with a flag or is empty, -1 after one line on stderr when the word is none of them.
static inline int args_command(const char *program, const char *commands, int *argc, char ***argv) {
    const char *word = *argc > 1 ? (*argv)[1] : "-";
    int position;
    if (word[0] == '-') return 0;
    position = args_choice(commands, word);
    if (position < 0) {
        args_bad_choice(program, "command", commands, word);
        return -1;
    }
    (*argc)--;
    (*argv)++;
    return position;
}

// ---- Folders and files -------------------------------------------------------------------------------------------------

// 1 if c separates folders in a path.
static inline int args_is_slash(char c) {
#if defined(ARGS_WINDOWS)
    return c == '/' || c == '\\';
#else
    return c == '/';
#endif
}

// folder/name into out (size bytes). Returns 0, with out empty, when it does not fit. An empty folder gives name.
static inline int args_join(char *out, size_t size, const char *folder, const char *name) {
    size_t length = strlen(folder);
    const char *slash = length == 0 || args_is_slash(folder[length - 1]) ? "" : "/";
    if (size > 0) out[0] = '\0';
    if (length + strlen(slash) + strlen(name) + 1 > size) return 0;
    snprintf(out, size, "%s%s%s", folder, slash, name);
    return 1;
}

// Make one folder; its parent must exist. Returns 1, also when it is there already, or 0 with the reason in errno.
static inline int args_mkdir_one(const char *path) {
    int made = -1, reason;
    errno = ENOENT;
#if defined(ARGS_POSIX)
    made = mkdir(path, 0777);
#elif defined(ARGS_WINDOWS)
    {
        wchar_t wide[ARGS_PATH];
        if (MultiByteToWideChar(65001, 0, path, -1, wide, ARGS_PATH) > 0) made = _wmkdir(wide);
    }
#endif
    if (made == 0) return 1;
    reason = errno;
    if (ctm_path_kind(path) == CTM_FOLDER) return 1;
    errno = reason;
    return 0;
}

// Try to create and remove a file in folder. Returns 1, or 0 with the reason in errno.
static inline int args_can_write(const char *folder) {
    char probe[ARGS_PATH];
    int held;
    if (!args_join(probe, sizeof probe, folder, ".write_test.tmp")) {
        errno = ERANGE;
        return 0;
    }
    held = ctm_hold(probe, 1);
    if (held < 0 && errno != EAGAIN) return 0;      // another program that is trying just this can write, too
    ctm_let_go(held, probe);
    return 1;
}

// How much of path is there without being a folder that could be made: "/", on Windows "C:\", "\\server\share\".
static inline size_t args_root(const char *path) {
    size_t i = 0;
#if defined(ARGS_WINDOWS)
    if (path[0] && path[1] == ':') return args_is_slash(path[2]) ? 3 : 2;
    if (args_is_slash(path[0]) && args_is_slash(path[1])) {
        int names = 0;
        for (i = 2; path[i] && names < 2; i++) names += args_is_slash(path[i]);
        return i;
    }
#endif
    while (args_is_slash(path[i])) i++;
    return i;
}

// Make a folder with its parents, unless it exists, and make sure that files can be created in it. On failure err says
// which folder and why.
static inline int args_mkdir(const char *path, char *err, size_t errlen) {
    char part[ARGS_PATH], shown[64];
    size_t i, length = strlen(path);
    if (length == 0) return args_fail(err, errlen, "cannot make a folder without a name");
    if (length >= sizeof part)
        return args_fail(err, errlen, "cannot make folder %s: the name is too long", args_excerpt(path, shown, sizeof shown));
    memcpy(part, path, length + 1);
    for (i = args_root(path) + 1; i <= length; i++) {
        char c = part[i];
        if (c != '\0' && !args_is_slash(c)) continue;
        if (args_is_slash(part[i - 1])) continue;   // "a//b"
        part[i] = '\0';
        if (ctm_path_kind(part) != CTM_FOLDER && !args_mkdir_one(part)) {
            int reason = errno;
            return args_fail(err, errlen, "cannot make folder %s: %s", part,
                             ctm_path_kind(part) != CTM_NOTHING ? "a file of that name is in the way" : strerror(reason));
        }
        part[i] = c;
    }
    if (!args_can_write(path)) return args_fail(err, errlen, "cannot write into folder %s: %s", path, strerror(errno));
    return 1;
}

// A ctm_output whose failures are a line in err: args_open_atomic returns out->file or NULL, args_close_atomic 1 or 0.
static inline FILE *args_open_atomic(ctm_output *out, const char *path, char *err, size_t errlen) {
    if (!ctm_output_open(out, path)) args_fail(err, errlen, "cannot write %s: %s", path, strerror(errno));
    return out->file;
}
static inline int args_close_atomic(ctm_output *out, char *err, size_t errlen) {
    return ctm_output_close(out) ? 1 : args_fail(err, errlen, "cannot write %s: %s", out->path, strerror(errno));
}

// ---- Time and progress -------------------------------------------------------------------------------------------------

// Wall-clock seconds since an arbitrary moment; only differences mean something.
static inline double args_seconds(void) {
#if defined(ARGS_WINDOWS)
    return 1e-3 * (double)GetTickCount64();         // (clock(), wall time here, ends after 25 days)
#elif defined(ARGS_POSIX) && defined(CLOCK_MONOTONIC)
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
#elif defined(ARGS_POSIX)
    struct timeval t;
    gettimeofday(&t, NULL);
    return (double)t.tv_sec + 1e-6 * (double)t.tv_usec;
#else
    return (double)time(NULL);
#endif
}

// 1 if stderr is a terminal.
static inline int args_is_terminal(void) {
#if defined(ARGS_POSIX)
    return isatty(fileno(stderr));
#elif defined(ARGS_WINDOWS)
    return _isatty(_fileno(stderr));
#else
    return 0;
#endif
}

// Seconds as "0:42" or "1:02:03" into out (24 bytes).
static inline const char *args_duration(double seconds, char *out, size_t size) {
    long s = seconds < 0 ? 0 : seconds > 1e8 ? 100000000L : (long)(seconds + 0.5);
    if (s < 3600) snprintf(out, size, "%ld:%02ld", s / 60, s % 60);
    else          snprintf(out, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    return out;
}

// Start a progress line for a loop from step first to step total, or, with seconds > 0, until these have passed.
static inline void args_progress_begin(args_progress *p, long long first, long long total, double seconds, int quiet) {
    p->visible = !quiet && args_is_terminal();
    p->first = first;
    p->total = total;
    p->seconds = seconds;
    p->start = args_seconds();
    p->last = p->start - 1;
    p->width = 0;
}

// 1 if the line is due for a print (at most five times a second), so that a loop need not format its text for nothing.
static inline int args_progress_due(const args_progress *p) {
    return p->visible && args_seconds() - p->last >= 0.2;
}

// Print the line now: "  42%  8400/20000  TEXT  512 steps/s  0:23 left", cut to 79 characters. done counts from 0, not
// from first. text is the caller's, e.g. its losses; it may be "".
static inline void args_progress_print(args_progress *p, long long done, const char *text) {
    char line[256], left[24];
    double now = args_seconds(), elapsed = now - p->start, rate = 0, share, remaining;
    int length;
    if (elapsed > 0) rate = (double)(done - p->first) / elapsed;
    if (p->seconds > 0) {
        share = elapsed / p->seconds;
        remaining = p->seconds - elapsed;
    } else {
        share = p->total > 0 ? (double)done / (double)p->total : 1;
        remaining = rate > 0 ? (double)(p->total - done) / rate : -1;
    }
    if (share > 1) share = 1;
    if (p->seconds > 0) length = snprintf(line, sizeof line, "%4d%%  step %lld  %.120s", (int)(100 * share), done, text);
    else length = snprintf(line, sizeof line, "%4d%%  %lld/%lld  %.120s", (int)(100 * share), done, p->total, text);
    if (length < 0 || length > 200) return;
    if (rate > 0)
        length += snprintf(line + length, sizeof line - (size_t)length, "  %.*f steps/s", rate < 10 ? 2 : 0, rate);
    if (rate > 0 && length < 230 && remaining >= 0)
        length += snprintf(line + length, sizeof line - (size_t)length, "  %s left", args_duration(remaining, left, sizeof left));
    if (length > 79) length = 79;
    fprintf(stderr, "\r%.*s%*s", length, line, p->width > length ? p->width - length : 0, "");
    fflush(stderr);
    p->width = length;
    p->last = now;
}

// Tell the line that done steps are finished; prints when it is due.
static inline void args_progress_step(args_progress *p, long long done, const char *text) {
    if (args_progress_due(p)) args_progress_print(p, done, text);
}

// Show the last state and end the line, before anything else is printed. Also right after an interrupted loop.
static inline void args_progress_end(args_progress *p, long long done, const char *text) {
    if (!p->visible) return;
    args_progress_print(p, done, text);
    fprintf(stderr, "\n");
    p->visible = 0;
}

#endif
