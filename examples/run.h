/* run.h - what a training program keeps beside the weights: its settings, its losses so far, how to stop it.

   Part of the examples of ctm.h, not of ctm.h itself. Include after args.h, ctm.h and table.h. Settings and losses travel as
   lines of metadata in the checkpoint, so that one file holds all of a run. */
#ifndef CTM_EXAMPLES_RUN_H
#define CTM_EXAMPLES_RUN_H

#if defined(__wasi__) && !defined(_WASI_EMULATED_SIGNAL)
#define RUN_NO_SIGNALS                 // WebAssembly has none
#else
#include <signal.h>
#endif
#include "args.h"
#include "../ctm.h"
#include "table.h"

static inline uint64_t hash_bytes(const void *bytes, size_t n) {                // FNV-1a
    const unsigned char *p = (const unsigned char *)bytes;
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i])*1099511628211u;
    return h;
}

// Text kept in an arena.
static inline const char *keep_text(ctm_arena *a, const char *text) {
    char *copy = (char *)ctm_alloc(a, strlen(text) + 1);
    strcpy(copy, text);
    return copy;
}

static inline int ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), k = strlen(end);
    return n >= k && strcmp(text + n - k, end) == 0;
}

// ---- Lines for the metadata of weights: NULL-terminated pairs key, value, key, value, NULL.

typedef struct notes { ctm_arena *arena; int n; const char **pair; } notes;     // begins with n = 0

static inline void note(notes *t, const char *key, const char *value) {
    if ((t->n & (t->n - 1)) == 0) {                    // full at 0, 2, 4, 8, ...: room for as many again, for these two and the NULL
        const char **more = (const char **)ctm_alloc(t->arena, (2*(size_t)t->n + 3)*sizeof *more);
        if (t->n) memcpy(more, t->pair, (size_t)t->n*sizeof *more);
        t->pair = more;
    }
    t->pair[t->n++] = keep_text(t->arena, key);
    t->pair[t->n++] = keep_text(t->arena, value);
    t->pair[t->n] = NULL;
}

static inline void note_number(notes *t, const char *key, double value) {
    char text[40];
    snprintf(text, sizeof text, "%.17g", value);
    note(t, key, text);
}

static inline void note_hash(notes *t, const char *key, uint64_t value) {
    char text[40];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)value);
    note(t, key, text);
}

// 1 if the file's line `key` is this hash.
static inline int same_hash_in(const ctm_file *f, const char *key, uint64_t hash) {
    const char *was = ctm_file_meta(f, key);
    char now[40];
    snprintf(now, sizeof now, "%016llx", (unsigned long long)hash);
    return was && strcmp(was, now) == 0;
}

// ---- The settings that make a run what it is: kept in its checkpoint, restored by --resume, printed.

typedef struct run_settings {
    const char         *program;           // "points": metadata are called points.data, points.steps, ...
    const char *const  *kept;              // names of the flags that are kept
    int                 kept_count;
    const args_option  *option;
    int                 options, argc;
    char              **argv;
} run_settings;

static inline const args_option *option_named(const run_settings *s, const char *name) {
    for (int i = 0; i < s->options; i++)
        if (strcmp(s->option[i].name, name) == 0) return &s->option[i];
    return NULL;
}

// The value of an option as text; 0 if it has none (a text that is NULL, a number 0 that stands for the recipe's).
static inline int option_text(const args_option *o, char *text, size_t size) {
    text[0] = '\0';
    if (o->kind == ARGS_TEXT && *(const char **)o->target) snprintf(text, size, "%s", *(const char **)o->target);
    if (o->kind == ARGS_INT && (*(long long *)o->target || strcmp(o->name, "seed") == 0)) snprintf(text, size, "%lld", *(long long *)o->target);
    if (o->kind == ARGS_REAL && *(double *)o->target > 0) snprintf(text, size, "%.17g", *(double *)o->target);
    if (o->kind == ARGS_CHOICE) args_choice_name(o->choices, *(int *)o->target, text, size);
    if (o->kind == ARGS_FLAG && *(int *)o->target) snprintf(text, size, "yes");
    return text[0] != '\0';
}

static inline void note_settings(notes *t, const run_settings *s) {
    for (int i = 0; i < s->kept_count; i++) {
        char key[64], text[ARGS_PATH];
        snprintf(key, sizeof key, "%s.%s", s->program, s->kept[i]);
        if (option_text(option_named(s, s->kept[i]), text, sizeof text)) note(t, key, text);
    }
}

// Settings of the checkpoint replace the defaults; a flag that contradicts it is an error.
static inline int restore_settings(const run_settings *s, const ctm_file *from, char *err, size_t errlen) {
    for (int i = 0; i < s->kept_count; i++) {
        const args_option *o = option_named(s, s->kept[i]);
        char key[64], given[ARGS_PATH];
        const char *was;
        snprintf(key, sizeof key, "%s.%s", s->program, s->kept[i]);
        was = ctm_file_meta(from, key);
        if (args_given(s->kept[i], s->argc, s->argv)) {
            option_text(o, given, sizeof given);
            if (!was || strcmp(was, given) != 0)
                return args_fail(err, errlen, "%s: is the checkpoint of a run with --%s %s, not %s; --resume needs no other flags than --out",
                                 from->path, s->kept[i], was ? was : "left to the recipe", given);
        } else if (was && o->kind == ARGS_FLAG) *(int *)o->target = 1;
        else if (was && !args_store(o, was))
            return args_fail(err, errlen, "%s: \"%s\" is \"%s\", which is not a value of --%s", from->path, key, was, s->kept[i]);
    }
    return 1;
}

// ---- Losses over training: rows of loss.csv, values averaged over the steps since the row before.

enum { RUN_LOSSES_MAX = 1200, RUN_LOSS_ROWS = 500 };               // room; about so many are written
enum { RUN_STEP, RUN_L_CTM, RUN_L_DSM, RUN_LAMBDA, RUN_LR, RUN_GRAD_NORM, RUN_LOSS_COLUMNS };
typedef struct run_losses {
    int    n;
    double row[RUN_LOSSES_MAX][RUN_LOSS_COLUMNS];
    double sum[RUN_LOSS_COLUMNS];                                  // of the steps since the last row
    long   summed;
} run_losses;

static const char *const run_loss_names[RUN_LOSS_COLUMNS] = {"step", "L_ctm", "L_dsm", "lambda_dsm", "lr", "grad_norm"};

// Nine digits, so that a row read back from the checkpoint is the row that was written.
static inline double run_rounded(double v) {
    char text[40];
    snprintf(text, sizeof text, "%.9g", v);
    return strtod(text, NULL);
}

static inline void run_losses_add(run_losses *l, const ctm_trainer *tr) {
    const double now[RUN_LOSS_COLUMNS] = {0, tr->L_ctm, tr->L_dsm, tr->lambda_dsm, tr->lr, tr->grad_norm};
    const long every = tr->cfg.steps/RUN_LOSS_ROWS > 0 ? tr->cfg.steps/RUN_LOSS_ROWS : 1;
    for (int k = 1; k < RUN_LOSS_COLUMNS; k++) l->sum[k] += now[k];
    l->summed++;
    if ((tr->step%every != 0 && tr->step != tr->cfg.steps) || l->n == RUN_LOSSES_MAX) return;
    double *row = l->row[l->n++];
    row[RUN_STEP] = (double)tr->step;
    for (int k = 1; k < RUN_LOSS_COLUMNS; k++) row[k] = run_rounded(l->sum[k]/(double)l->summed);
    memset(l->sum, 0, sizeof l->sum);
    l->summed = 0;
}

static inline int run_losses_write(const run_losses *l, const char *path, char *err, size_t errlen) {
    return table_write_csv(path, run_loss_names, (size_t)l->n, RUN_LOSS_COLUMNS, l->row[0], err, errlen);
}

// The rows so far, and the unfinished one, as text under PROGRAM.losses, .sums and .summed.
static inline void note_losses(notes *t, const char *program, const run_losses *l) {
    enum { WIDTH = 26 };
    const size_t size = ((size_t)l->n*RUN_LOSS_COLUMNS + 1)*WIDTH;
    char *text = (char *)ctm_alloc(t->arena, size), sums[RUN_LOSS_COLUMNS*32], key[64];
    size_t at = 0;
    for (int i = 0; i < l->n; i++)
        for (int k = 0; k < RUN_LOSS_COLUMNS; k++) at += (size_t)snprintf(text + at, size - at, "%.9g ", l->row[i][k]);
    snprintf(key, sizeof key, "%s.losses", program);
    note(t, key, text);
    at = 0;
    for (int k = 1; k < RUN_LOSS_COLUMNS; k++) at += (size_t)snprintf(sums + at, sizeof sums - at, "%.17g ", l->sum[k]);
    snprintf(key, sizeof key, "%s.sums", program);
    note(t, key, sums);
    snprintf(key, sizeof key, "%s.summed", program);
    note_number(t, key, (double)l->summed);
}

// One row of numbers out of a text, which moves on; 0 when it has no more.
static inline int run_losses_row(const char **text, double *row, int from) {
    char *end;
    for (int k = from; k < RUN_LOSS_COLUMNS; k++) {
        row[k] = strtod(*text, &end);
        if (end == *text) return 0;
        *text = end;
    }
    return 1;
}

static inline void restore_losses(run_losses *l, const char *program, const ctm_file *from) {
    char key[64];
    const char *text, *sums, *summed;
    snprintf(key, sizeof key, "%s.losses", program);
    text = ctm_file_meta(from, key);
    snprintf(key, sizeof key, "%s.sums", program);
    sums = ctm_file_meta(from, key);
    snprintf(key, sizeof key, "%s.summed", program);
    summed = ctm_file_meta(from, key);
    l->n = 0;
    while (text && l->n < RUN_LOSSES_MAX && run_losses_row(&text, l->row[l->n], 0)) l->n++;
    if (sums) run_losses_row(&sums, l->sum, 1);
    l->summed = summed ? strtol(summed, NULL, 10) : 0;
}

// Two runs in one folder would replace each other's files: the second is told. The lock goes with the process, however that ends.
typedef struct run_lock { int held; char path[ARGS_PATH]; } run_lock;

static inline int run_take(run_lock *l, const char *out, char *err, size_t errlen) {
    if (!args_join(l->path, sizeof l->path, out, ".lock")) return args_fail(err, errlen, "%.40s...: the path is too long", out);
    l->held = ctm_hold(l->path, 1);
    if (l->held >= 0) return 1;
    if (errno != EAGAIN) return args_fail(err, errlen, "cannot write into folder %s: %s", out, strerror(errno));
    return args_fail(err, errlen, "%s: another run is writing into this folder; wait for it, or choose another with --out", out);
}

static inline void run_release(const run_lock *l) { ctm_let_go(l->held, l->path); }

// A folder that is used again: said on stderr, because a run that is stopped leaves some files of the earlier one beside its own.
static inline void run_say_earlier(const char *out) {
    char path[ARGS_PATH];
    args_join(path, sizeof path, out, "checkpoint.safetensors");
    if (ctm_path_kind(path) != CTM_NOTHING) fprintf(stderr, "note: %s holds an earlier run, whose files are replaced one by one (--resume would go on with it)\n", out);
}

// ---- Stopping. The only variable outside of a program's own structures: a signal handler can reach nothing else.

#ifdef RUN_NO_SIGNALS
static int asked_to_stop;
static inline void run_catch_signals(void) {}
static inline void run_leave_signals(void) {}
#else
static volatile sig_atomic_t asked_to_stop;

static void on_signal(int number) {
    asked_to_stop = 1;
    signal(number, SIG_DFL);           // a second one ends the program at once
}

static inline void run_catch_signals(void) {
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
}

static inline void run_leave_signals(void) {
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
}
#endif

#endif
