/* run.h - what a training program keeps beside the weights: its settings, its losses so far, how to stop it.

   Part of the applications of ctm.h, not of ctm.h itself. Include after args.h, ctm.h and table.h. Settings and losses travel as
   lines of metadata in the checkpoint, so that one file holds all of a run. */
#ifndef CTM_APPS_RUN_H
#define CTM_APPS_RUN_H

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

// The same of numbers, on machines of either byte order.
static inline uint64_t hash_numbers(const double *x, size_t n) {
    uint64_t h = 14695981039346656037u, bits;
    for (size_t i = 0; i < n; i++) {
        memcpy(&bits, x + i, sizeof bits);
        for (int k = 0; k < 64; k += 8) h = (h ^ (bits >> k & 255))*1099511628211u;
    }
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
    note(t, key, args_number(text, value, 17));
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
    // Both may be NULL. 1 if this value of the flag is a file's name (whose hash is in the checkpoint): the file may move.
    int               (*names_file)(const char *flag, const char *value);
    // 1 if the flag means nothing beside the others, and is left out of the command that is shown.
    int               (*hidden)(const void *settings, const char *flag);
    const void         *settings;          // for `hidden`
} run_settings;

static inline const args_option *option_named(const run_settings *s, const char *name) {
    for (int i = 0; i < s->options; i++)
        if (strcmp(s->option[i].name, name) == 0) return &s->option[i];
    return NULL;
}

// The value of an option as text, in `room` unless it is one already; NULL if it has none (a number 0 stands for the recipe's).
enum { OPTION_TEXT = 64 };
static inline const char *option_text(const args_option *o, char room[OPTION_TEXT]) {
    room[0] = '\0';
    if (o->kind == ARGS_TEXT) return *(const char **)o->target;
    if (o->kind == ARGS_INT && (*(long long *)o->target || strcmp(o->name, "seed") == 0)) snprintf(room, OPTION_TEXT, "%lld", *(long long *)o->target);
    if (o->kind == ARGS_REAL && *(double *)o->target > 0) args_number(room, *(double *)o->target, 17);
    if (o->kind == ARGS_CHOICE) args_choice_name(o->choices, *(int *)o->target, room, OPTION_TEXT);
    if (o->kind == ARGS_FLAG && *(int *)o->target) snprintf(room, OPTION_TEXT, "yes");
    return room[0] ? room : NULL;
}

static inline void note_settings(notes *t, const run_settings *s) {
    for (int i = 0; i < s->kept_count; i++) {
        char key[64], room[OPTION_TEXT];
        const char *text = option_text(option_named(s, s->kept[i]), room);
        snprintf(key, sizeof key, "%s.%s", s->program, s->kept[i]);
        if (text) note(t, key, text);
    }
}

// All text that is kept must be UTF-8, as all of a safetensors file's is: else 0 with a line.
static inline int run_check_texts(const run_settings *s, char *err, size_t errlen) {
    for (int i = 0; i < s->kept_count; i++) {
        const args_option *o = option_named(s, s->kept[i]);
        const char *text = o->kind == ARGS_TEXT ? *(const char **)o->target : NULL, *bad = text ? args_not_utf8(text) : NULL;
        if (bad) return args_fail(err, errlen, "flag --%s: byte %d, 0x%02X, is no UTF-8, which text in a model's file must be; rename the file or column",
                                  o->name, (int)(bad - text) + 1, (unsigned)(unsigned char)*bad);
    }
    return 1;
}

// 1 if this value of a flag is the name of a file, whose contents are known by their hash.
static inline int run_is_file(const run_settings *s, const args_option *o, const char *value) {
    return o->kind == ARGS_TEXT && value && s->names_file && s->names_file(o->name, value);
}

// Text as a shell takes it for one word: in quotes where it needs them.
static inline const char *run_quoted(ctm_arena *a, const char *text) {
    char *out, *p;
    if (*text && !text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./\\:=@%+,-")]) return text;
    p = out = (char *)ctm_alloc(a, 4*strlen(text) + 3);
#ifdef _WIN32
    *p++ = '"';
    for (; *text; text++) *p++ = *text;
    *p = '"';
#else
    *p++ = '\'';
    for (; *text; text++) {
        if (*text == '\'') p += sprintf(p, "'\\''");
        else *p++ = *text;
    }
    *p = '\'';
#endif
    return out;
}

// A file that the run was given and that is no longer where it was: say what to type.
static inline int run_file_gone(const run_settings *s, const char *flag, const char *path, ctm_arena *a, char *err, size_t errlen) {
    const char *out = *(const char **)option_named(s, "out")->target;
    return args_fail(err, errlen, "%s is not there, the file of the run's --%s; if it has moved, say where to: build/%s train --resume --out %s --%s FILE",
                     path, flag, s->program, run_quoted(a, out), flag);
}

// Settings of the checkpoint replace the defaults; a flag that contradicts it is an error. Only files may have moved: another
// name is taken, and the caller compares the hash of what is in them (same_hash_in). Strings and errors need the arena.
static inline int restore_settings(const run_settings *s, const ctm_file *from, ctm_arena *a, char *err, size_t errlen) {
    for (int i = 0; i < s->kept_count; i++) {
        const args_option *o = option_named(s, s->kept[i]);
        char key[64], room[OPTION_TEXT];
        const char *was, *now;
        snprintf(key, sizeof key, "%s.%s", s->program, s->kept[i]);
        was = ctm_file_meta(from, key);
        if (args_given(s->kept[i], s->argc, s->argv)) {
            now = option_text(o, room);
            if (run_is_file(s, o, was) && run_is_file(s, o, now)) continue;
            if (!was || !now || strcmp(was, now) != 0)
                return args_fail(err, errlen, "%s: is the checkpoint of a run with --%s %s, not %s; --resume needs no other flags than --out",
                                 from->path, s->kept[i], was ? was : "left to the recipe", now ? now : "so");
        } else if (was && o->kind == ARGS_FLAG) *(int *)o->target = 1;
        else if (was && !args_store(o, was))
            return args_fail(err, errlen, "%s: \"%s\" is \"%s\", which is not a value of --%s", from->path, key, was, s->kept[i]);
        else if (run_is_file(s, o, was) && !strchr(was, ',') && ctm_path_kind(was) == CTM_NOTHING) return run_file_gone(s, o->name, was, a, err, errlen);
    }
    return 1;
}

// The line that began this run, "build/points train --data ring ...", ready to be typed again.
static inline const char *run_command(ctm_arena *a, const run_settings *s) {
    size_t room = 100;
    char number[OPTION_TEXT], *text, *p;
    for (int i = 0; i <= s->kept_count; i++) {
        const char *value = option_text(option_named(s, i < s->kept_count ? s->kept[i] : "out"), number);
        if (value) room += 4*strlen(value) + 80;
    }
    p = text = (char *)ctm_alloc(a, room);
    p += sprintf(p, "build/%s train", s->program);
    for (int i = 0; i <= s->kept_count; i++) {
        const args_option *o = option_named(s, i < s->kept_count ? s->kept[i] : "out");
        const char *value = option_text(o, number);
        if (!value || (s->hidden && s->hidden(s->settings, o->name))) continue;
        p += sprintf(p, " --%s", o->name);
        if (o->kind != ARGS_FLAG) p += sprintf(p, " %s", run_quoted(a, value));
    }
    return text;
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
    char text[ARGS_NUMBER];
    args_real(args_number(text, v, 9), &v);
    return v;
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
    char *text = (char *)ctm_alloc(t->arena, ((size_t)l->n*RUN_LOSS_COLUMNS + 1)*ARGS_NUMBER), *p = text;
    char sums[RUN_LOSS_COLUMNS*ARGS_NUMBER], number[ARGS_NUMBER], key[64];
    for (int i = 0; i < l->n; i++)
        for (int k = 0; k < RUN_LOSS_COLUMNS; k++) p += sprintf(p, "%s ", args_number(number, l->row[i][k], 9));
    snprintf(key, sizeof key, "%s.losses", program);
    note(t, key, text);
    p = sums;
    for (int k = 1; k < RUN_LOSS_COLUMNS; k++) p += sprintf(p, "%s ", args_number(number, l->sum[k], 17));
    snprintf(key, sizeof key, "%s.sums", program);
    note(t, key, sums);
    snprintf(key, sizeof key, "%s.summed", program);
    note_number(t, key, (double)l->summed);
}

// One row of numbers out of a text, which moves on; 0 when it has no more.
static inline int run_losses_row(const char **text, double *row, int from) {
    for (int k = from; k < RUN_LOSS_COLUMNS; k++) {
        char number[ARGS_NUMBER];
        const size_t n = strcspn(*text, " ");
        snprintf(number, sizeof number, "%.*s", n < sizeof number ? (int)n : 0, *text);
        if (args_real(number, &row[k]) != 1) return 0;
        *text += n + ((*text)[n] == ' ');
    }
    return 1;
}

// A number among the metadata, or 0.
static inline double run_number(const ctm_file *from, const char *key) {
    const char *text = ctm_file_meta(from, key);
    double value = 0;
    if (text) args_real(text, &value);
    return value;
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

enum { RUN_STOPPED = 3 };                  // the exit status of a run that a signal has stopped: its state is saved, it is not done

#ifdef RUN_NO_SIGNALS
static int asked_to_stop;
static inline void run_catch_signals(void) {}
static inline void run_leave_signals(void) {}
#else
static volatile sig_atomic_t asked_to_stop;

static const int run_signals[] = {SIGINT, SIGTERM,
#ifdef SIGHUP
    SIGHUP,                                // the terminal is gone
#endif
#ifdef SIGBREAK
    SIGBREAK,                              // so it is called on Windows
#endif
};

static inline void run_leave_signals(void) {
    for (size_t i = 0; i < sizeof run_signals/sizeof run_signals[0]; i++)
        if (signal(run_signals[i], SIG_DFL) == SIG_IGN) signal(run_signals[i], SIG_IGN);
}

static void on_signal(int number) {
    (void)number;
    asked_to_stop = 1;
    run_leave_signals();                   // a second one, of whatever kind, ends the program at once
}

// Whoever started the program may have told it to ignore some (nohup does): then it does.
static inline void run_catch_signals(void) {
    for (size_t i = 0; i < sizeof run_signals/sizeof run_signals[0]; i++)
        if (signal(run_signals[i], on_signal) == SIG_IGN) signal(run_signals[i], SIG_IGN);
#ifdef SIGXFSZ
    signal(SIGXFSZ, SIG_IGN);              // a file that outgrows a limit: the write fails and is told, the program is not killed
#endif
}
#endif

// Says where a run has stopped and how it goes on. Returns the exit status: --stop-at has got what it asked for.
static inline int run_stopped(const run_settings *s, ctm_arena *a, const ctm_trainer *tr) {
    printf("stopped after step %ld of %ld of the %s; saved; to go on: build/%s train --resume --out %s\n", tr->step, tr->cfg.steps,
           tr->cfg.consistency ? "student" : "teacher", s->program, run_quoted(a, *(const char **)option_named(s, "out")->target));
    return asked_to_stop ? RUN_STOPPED : 0;
}

#endif
