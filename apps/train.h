/* train.h - how a program trains: its flags, a learned teacher, the loop, checkpoints, stopping and going on

   Part of the applications of ctm.h, not of ctm.h itself; C99, also C++. points.c and images.c share it. A program says what is its
   own (data, networks, results) in a run_program; everything else of `train` is here, and run_main is all of it:

       flags -> data -> settings (the recipe, then the program, then the flags) -> a learned teacher -> the student -> results

   A training run is known by its command: the flags that make it what it is. The checkpoint keeps them beside ctm.h's own settings, so
   that --resume needs no other flag than --out.

   How to read this file: small things, metadata, settings by name, the command, losses, stopping, the run, training, the teacher,
   the student, run_main. */
#ifndef CTM_APPS_TRAIN_H
#define CTM_APPS_TRAIN_H

#if defined(__wasi__) && !defined(_WASI_EMULATED_SIGNAL)
#define RUN_NO_SIGNALS                 // WebAssembly has none
#else
#include <signal.h>
#endif
#include "args.h"
#include "../ctm.h"
#include "table.h"

// ---- Small things ------------------------------------------------------------------------------------------------------

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

// ---- Metadata: NULL-terminated pairs key, value, key, value, NULL -----------------------------------------------------

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

// ---- Settings by their names -------------------------------------------------------------------------------------------
//
// --NAME VALUE is a setting of ctm_config if no flag of the program has that name: --lr 0.001, --share-at-s 0.5, --times local,
// --gan hinge, --channel-mult 1,2,2.

enum { SETTINGS_MAX = 64 };
typedef struct settings {
    ctm_ctx *ctx;                          // for messages
    int n;
    struct { char name[ARGS_NAME]; const char *value; } given[SETTINGS_MAX];
} settings;

// Settings that are numbers in ctm.h and words here.
static inline const char *setting_words(const char *name) {
    static const char *const words[][2] = {{"gan", "none,hinge,log,minimax"}, {"distance", "l2,l1,huber"}, {"optimiser", "adam,radam"}};
    for (int i = 0; i < ARGS_COUNT(words); i++)
        if (strcmp(words[i][0], name) == 0) return words[i][1];
    return NULL;
}

static inline int setting_exists(ctm_ctx *ctx, const char *name) {
    static const char unknown[] = "there is no setting";
    ctm_config c = ctm_recipe_paper();
    return ctm_config_set(ctx, &c, name, "") || strncmp(ctm_error(ctx), unknown, strlen(unknown)) != 0;
}

// One number, word or function. ctm.h's reasons begin with the setting's name.
static inline int setting_one(ctm_ctx *ctx, ctm_config *cfg, const char *flag, const char *name, const char *value, char *err, size_t errlen) {
    char number[32], list[200];
    const char *words = setting_words(name), *reason;
    long long v;
    if (words) {
        v = args_choice(words, value);
        if (v < 0) return args_fail(err, errlen, "flag --%s: found \"%.60s\", expected one of %s", flag, value, args_choice_list(words, list, sizeof list));
    }
    if (words || args_int(value, &v) == 1) {           // 2e4 becomes 20000
        snprintf(number, sizeof number, "%lld", v);
        value = number;
    }
    if (ctm_config_set(ctx, cfg, name, value)) return 1;
    reason = strchr(ctm_error(ctx), ':');
    return args_fail(err, errlen, "flag --%s:%s", flag, reason ? reason + 1 : ctm_error(ctx));
}

// A list's numbers one by one; what it does not name is 0. "none" is the empty list.
static inline int setting_list(ctm_ctx *ctx, ctm_config *cfg, const char *flag, const char *name, const char *value, char *err, size_t errlen) {
    const char *rest = strcmp(value, "none") == 0 ? NULL : value;
    int k = 0;
    for (;; k++) {
        char element[ARGS_NAME + 16], word[64] = "0";
        snprintf(element, sizeof element, "%s[%d]", name, k);
        if (!setting_exists(ctx, element)) break;
        if (rest) {
            const size_t n = strcspn(rest, ",");
            snprintf(word, sizeof word, "%.*s", n < sizeof word ? (int)n : (int)sizeof word, rest);
            rest = rest[n] ? rest + n + 1 : NULL;
        }
        if (!setting_one(ctx, cfg, flag, element, word, err, errlen)) return 0;
    }
    return rest ? args_fail(err, errlen, "flag --%s: found \"%.60s\", expected at most %d numbers with commas between, like 1,2,2", flag, value, k) : 1;
}

static inline void setting_name(const char *flag, char name[ARGS_NAME]) {
    snprintf(name, ARGS_NAME, "%s", flag);
    for (char *p = name; *p; p++) if (*p == '-') *p = '_';
}

// --flag value into cfg. 1; or 0 with a line.
static inline int setting_store(ctm_ctx *ctx, ctm_config *cfg, const char *flag, const char *value, char *err, size_t errlen) {
    char name[ARGS_NAME];
    setting_name(flag, name);
    return setting_exists(ctx, name) ? setting_one(ctx, cfg, flag, name, value, err, errlen) : setting_list(ctx, cfg, flag, name, value, err, errlen);
}

static inline const char *settings_given(const settings *s, const char *flag) {
    for (int i = 0; i < s->n; i++)
        if (strcmp(s->given[i].name, flag) == 0) return s->given[i].value;
    return NULL;
}

static inline int settings_add(settings *s, const char *flag, const char *value) {
    int i = 0;
    while (i < s->n && strcmp(s->given[i].name, flag) != 0) i++;
    if (i == SETTINGS_MAX) return 0;
    snprintf(s->given[i].name, ARGS_NAME, "%s", flag);
    s->given[i].value = value;
    if (i == s->n) s->n++;
    return 1;
}

// A flag for args_rest: one of ctm_config's settings, remembered after a look at its value.
static inline int settings_take(void *user, const char *flag, const char *value, char *err, size_t errlen) {
    settings *s = (settings *)user;
    ctm_config c = ctm_recipe_paper();
    char name[ARGS_NAME], first[ARGS_NAME + 4], plain[ARGS_NAME];
    setting_name(flag, name);
    snprintf(first, sizeof first, "%s[0]", name);
    if (!setting_exists(s->ctx, name) && !setting_exists(s->ctx, first)) return -1;
    if (!value) return 1;
    if (!setting_store(s->ctx, &c, flag, value, err, errlen)) return 0;
    snprintf(plain, sizeof plain, "%s", flag);
    for (char *p = plain; *p; p++) if (*p == '_') *p = '-';
    return settings_add(s, plain, value) || args_fail(err, errlen, "flag --%s: is one setting too many, expected at most %d", flag, (int)SETTINGS_MAX);
}

static inline int settings_apply(const settings *s, ctm_config *cfg, char *err, size_t errlen) {
    for (int i = 0; i < s->n; i++)
        if (!setting_store(s->ctx, cfg, s->given[i].name, s->given[i].value, err, errlen)) return 0;
    return 1;
}

// ---- The command: the flags that make a run what it is -----------------------------------------------------------------
//
// Kept as one text in the metadata PROGRAM.command: name, value, name, value, each followed by COMMAND_END.

#define COMMAND_END '\x1F'                  // ASCII's unit separator

typedef struct command {
    const char         *program;           // "points"
    const char *const  *kept;              // NULL-terminated names of the program's own flags that are kept; all settings are, too
    const args_option  *option;
    int                 options, argc;
    char              **argv;
    int               (*names_file)(const char *flag, const char *value);    // 1: the value is a file's name; the file may move
    settings           *set;
} command;

static inline const args_option *option_named(const command *c, const char *name) {
    for (int i = 0; i < c->options; i++)
        if (strcmp(c->option[i].name, name) == 0) return &c->option[i];
    return NULL;
}

// The value of an option as text, in `room` unless it is one already; NULL if it has none (a number 0 stands for the recipe's).
enum { OPTION_TEXT = 64 };
static inline const char *option_text(const args_option *o, char room[OPTION_TEXT]) {
    room[0] = '\0';
    if (o->kind == ARGS_TEXT) return *(const char **)o->target;
    if (o->kind == ARGS_INT && (*(long long *)o->target || strcmp(o->name, "seed") == 0)) snprintf(room, OPTION_TEXT, "%lld", *(long long *)o->target);
    if (o->kind == ARGS_REAL && *(double *)o->target > 0) args_number(room, *(double *)o->target, 17);
    if (o->kind == ARGS_CHOICE && *(int *)o->target) args_choice_name(o->choices, *(int *)o->target, room, OPTION_TEXT);
    if (o->kind == ARGS_FLAG && *(int *)o->target) snprintf(room, OPTION_TEXT, "yes");
    return room[0] ? room : NULL;
}

static inline char *command_put(char *p, const char *text) {
    p += sprintf(p, "%s", text);
    *p++ = COMMAND_END;
    *p = '\0';
    return p;
}

static inline const char *command_text(ctm_arena *a, const command *c) {
    char number[OPTION_TEXT], *text = NULL, *p = NULL;
    size_t room = 1;
    for (int pass = 0; pass < 2; pass++) {             // how long it is, then itself
        if (pass) p = text = (char *)ctm_alloc(a, room);
        for (int i = 0; c->kept[i]; i++) {
            const char *value = option_text(option_named(c, c->kept[i]), number);
            if (!value) continue;
            if (pass) p = command_put(command_put(p, c->kept[i]), value);
            room += strlen(c->kept[i]) + strlen(value) + 2;
        }
        for (int i = 0; i < c->set->n; i++) {
            if (pass) p = command_put(command_put(p, c->set->given[i].name), c->set->given[i].value);
            room += strlen(c->set->given[i].name) + strlen(c->set->given[i].value) + 2;
        }
    }
    return text;
}

// The next word of a command, copied; NULL at its end.
static inline const char *command_word(ctm_arena *a, const char **text) {
    const char *end = strchr(*text, COMMAND_END);
    char *word;
    if (!end) return NULL;
    word = (char *)ctm_alloc(a, (size_t)(end - *text) + 1);
    memcpy(word, *text, (size_t)(end - *text));
    *text = end + 1;
    return word;
}

// The value of a flag in a command; NULL: it is not there.
static inline const char *command_value(ctm_arena *a, const char *text, const char *flag) {
    const char *name, *value;
    while ((name = command_word(a, &text)) != NULL && (value = command_word(a, &text)) != NULL)
        if (strcmp(name, flag) == 0) return value;
    return NULL;
}

// All text that is kept must be UTF-8, as all of a safetensors file's is: else 0 with a line.
static inline int command_check(const command *c, char *err, size_t errlen) {
    for (int i = 0; c->kept[i]; i++) {
        const args_option *o = option_named(c, c->kept[i]);
        const char *text = o->kind == ARGS_TEXT ? *(const char **)o->target : NULL, *bad = text ? args_not_utf8(text) : NULL;
        if (bad) return args_fail(err, errlen, "flag --%s: byte %d, 0x%02X, is no UTF-8, which text in a model's file must be; rename the file or column",
                                  o->name, (int)(bad - text) + 1, (unsigned)(unsigned char)*bad);
        if (text && strchr(text, COMMAND_END)) return args_fail(err, errlen, "flag --%s: holds the control character 0x1F", o->name);
    }
    return 1;
}

// 1 if this value of a flag is the name of a file, whose contents are known by their hash.
static inline int command_is_file(const command *c, const args_option *o, const char *value) {
    return o->kind == ARGS_TEXT && value && c->names_file && c->names_file(o->name, value);
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

// A flag of the checkpoint replaces the default; one on this command line that contradicts it is an error. Only files may have moved:
// another name is taken, and the caller compares the hash of what is in them (same_hash_in).
static inline int restore_option(const command *c, const args_option *o, const char *was, const ctm_file *from, ctm_arena *a, char *err, size_t errlen) {
    char room[OPTION_TEXT];
    const char *now, *out = *(const char **)option_named(c, "out")->target;
    if (args_given(o->name, c->argc, c->argv)) {
        now = option_text(o, room);
        if (command_is_file(c, o, was) && command_is_file(c, o, now)) return 1;
        if (was && now && strcmp(was, now) == 0) return 1;
        return args_fail(err, errlen, "%s: is the checkpoint of a run with --%s %s, not %s; --resume needs no other flags than --out",
                         from->path, o->name, was ? was : "left to the recipe", now ? now : "so");
    }
    if (!was) return 1;
    if (o->kind == ARGS_FLAG) { *(int *)o->target = 1; return 1; }
    if (!args_store(o, was)) return args_fail(err, errlen, "%s: its command has --%s \"%.60s\", which is no value of that flag", from->path, o->name, was);
    if (command_is_file(c, o, was) && !strchr(was, ',') && ctm_path_kind(was) == CTM_NOTHING)
        return args_fail(err, errlen, "%s is not there, the file of the run's --%s; if it has moved, say where to: build/%s train --resume --out %s --%s FILE",
                         was, o->name, c->program, run_quoted(a, out), o->name);
    return 1;
}

// Flags and settings of the checkpoint's command. Strings need the arena.
static inline int command_restore(const command *c, const ctm_file *from, ctm_arena *a, char *err, size_t errlen) {
    char key[64];
    const char *text, *name, *value, *rest;
    settings now = *c->set;
    snprintf(key, sizeof key, "%s.command", c->program);
    rest = text = ctm_file_meta(from, key);
    for (int i = 0; c->kept[i]; i++)
        if (!restore_option(c, option_named(c, c->kept[i]), command_value(a, text, c->kept[i]), from, a, err, errlen)) return 0;
    c->set->n = 0;
    while ((name = command_word(a, &rest)) != NULL && (value = command_word(a, &rest)) != NULL) {
        const args_option *o = option_named(c, name);
        if (o && o->kind != ARGS_REST) continue;
        if (settings_take(c->set, name, value, err, errlen) != 1)
            return args_fail(err, errlen, "%s: its command has --%.40s \"%.60s\", which is no setting", from->path, name, value);
    }
    for (int i = 0; i < now.n; i++) {
        const char *was = settings_given(c->set, now.given[i].name);
        if (!was || strcmp(was, now.given[i].value) != 0)
            return args_fail(err, errlen, "%s: is the checkpoint of a run with --%s %s, not %s; --resume needs no other flags than --out",
                             from->path, now.given[i].name, was ? was : "left to the recipe", now.given[i].value);
    }
    return 1;
}

// The line that began this run, "build/points train --data ring ...", ready to be typed again.
static inline const char *command_line(ctm_arena *a, const command *c) {
    const char *rest = command_text(a, c), *name, *value;
    const char *out = run_quoted(a, *(const char **)option_named(c, "out")->target);
    char *text = (char *)ctm_alloc(a, 8*strlen(rest) + strlen(out) + 100), *p = text;
    p += sprintf(p, "build/%s train", c->program);
    while ((name = command_word(a, &rest)) != NULL && (value = command_word(a, &rest)) != NULL) {
        const args_option *o = option_named(c, name);
        p += sprintf(p, " --%s", name);
        if (!o || o->kind != ARGS_FLAG) p += sprintf(p, " %s", run_quoted(a, value));
    }
    sprintf(p, " --out %s", out);
    return text;
}

// ---- Losses over training: rows of loss.csv, values averaged over the steps since the row before ----------------------

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

// ---- Stopping ----------------------------------------------------------------------------------------------------------

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

// The only variable outside of a program's own structures: a signal handler can reach nothing else.

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

// ---- The run -----------------------------------------------------------------------------------------------------------

typedef struct run run;
typedef struct run_program {               // what a program of this kind has of its own
    const char *name;
    const char *recipe;                    // if --recipe is not given
    double      save_seconds;              // between two checkpoints
    int       (*open)(run *r);             // data; sets data_hash and teacher_default. Exit status, with its line said
    int       (*adapt)(run *r, ctm_config *cfg);    // what the data and the network's size want other than the recipe. Exit status, too
    void      (*untaught)(run *r, ctm_config *cfg);                      // the same for a run without a teacher; NULL
    void      (*teacher)(run *r, const ctm_config *student, ctm_config *cfg);    // and for a learned teacher; NULL
    int       (*ready)(run *r);            // after the settings, before the folder is made. Exit status, too
    const ctm_denoiser *(*exact)(run *r);  // --teacher exact; NULL with r->line: there is no such teacher
    int       (*exact_file)(run *r, const ctm_file *f);    // may be NULL: sets r->teacher if the file is a formula. 1; 0: it is none; -1 with r->line
    int       (*teacher_fits)(run *r, const ctm_file *f, const ctm_net *net);    // 1; or 0 with r->line, as those below
    void      (*report)(run *r);           // the program's lines after the first, before training
    ctm_net  *(*network)(run *r, ctm_arena *a, const ctm_config *cfg);   // a student with cfg->times, otherwise a teacher
    void      (*prepare)(run *r, ctm_trainer *tr);                       // a student's trainer before the first step; NULL
    ctm_net  *(*discriminator)(ctm_arena *a, const ctm_config *cfg, int dim);
    ctm_draw_fn  draw;                     // both with the run as their user
    ctm_label_fn label;
    int       (*intact)(run *r);           // 0: this step has seen data that are none; NULL
    void      (*notes)(run *r, notes *t);  // for the metadata of weights
    int       (*sheet)(run *r, ctm_net *net);                            // pictures of the state, with every checkpoint; NULL
    int       (*results)(run *r, ctm_net *net);
} run_program;

struct run {                               // begins a program's own struct; run_init fills in the defaults
    const run_program  *program;
    args_common         common;
    const char         *recipe, *teacher_kind;     // of the teacher: "exact", "learned", "none", or a file; NULL until the settings are known
    const char         *teacher_default;           // "exact" or "learned"
    long long           teacher_steps, stop_at, save_every;
    double              seconds_given, save_seconds;
    double              guidance;                  // of the teacher's classes; 0: none, as 1
    int                 resume;
    settings            set;
    args_rest           rest;
    command             flags;
    run_lock            lock;
    ctm_ctx             ctx;
    ctm_arena           memory, scratch;
    ctm_config          cfg;                       // the student's
    const ctm_denoiser *teacher;                   // NULL: none
    ctm_net            *teacher_net;               // if it is a network
    uint64_t            teacher_hash, data_hash, extra_hash;    // extra: of another file that decides the run; 0: there is none
    ctm_trainer        *tr;                        // at work: the teacher's, then the student's
    run_losses         *losses;
    double              seconds, teacher_seconds;  // spent on training, both together and the teacher
    double              rows_per_second;           // of the phase at work
    const ctm_file     *from;                      // the checkpoint of a resumed run
    char                line[600];                 // the last error
};

#define RUN_RECIPES "paper, authors, points, images, cd (consistency distillation) or ct (consistency training)"
#define RUN_OPTIONS(r)                                                                                                                      \
    {"recipe",        ARGS_TEXT, &(r).recipe,        0, 0,   NULL, RUN_RECIPES ": chapter 15 of ctm.h"},                                   \
    {"steps",         ARGS_REST, &(r).rest,          0, 0,   NULL, "training steps of the student; set by the data and the recipe if not given"}, \
    {"teacher-steps", ARGS_INT,  &(r).teacher_steps, 1, 1e9, NULL, "of a learned teacher"},                                                 \
    {"guidance",      ARGS_REAL, &(r).guidance,      0.1, 100, NULL, "the student learns from a teacher that exaggerates classes so much; 1: as they are"}, \
    {"seconds",       ARGS_REAL, &(r).seconds_given, 0.1, 1e7, NULL, "instead of --steps: train about so long (not reproducible)"},         \
    {"batch",         ARGS_REST, &(r).rest,          0, 0,   NULL, "rows of a step"},                                                       \
    {"lr",            ARGS_REST, &(r).rest,          0, 0,   NULL, "learning rate"},                                                        \
    {"times",         ARGS_REST, &(r).rest,          0, 0,   NULL, "which jumps (t,u,s) are practised: paper, local, global, authors, points, images, cm"}, \
    {"teach",         ARGS_REST, &(r).rest,          0, 0,   NULL, "who walks from t to u: solver (on the teacher, or the student's average without one); without a teacher jump, jumps, data"}, \
    {"gan",           ARGS_REST, &(r).rest,          0, 0,   NULL, "an adversary in the last four tenths of the steps: none, hinge (the authors' code), log, minimax (the paper's)"}, \
    {ARGS_ANY,        ARGS_REST, &(r).rest,          0, 0,   NULL, "any other setting of ctm_config (chapter 14 of ctm.h) by its name: --share-at-s 0.5, --ema-rate 0.999,0.9999"}, \
    {"resume",        ARGS_FLAG, &(r).resume,        0, 0,   NULL, "go on from checkpoint.safetensors in --out"},                           \
    {"stop-at",       ARGS_INT,  &(r).stop_at,       1, 1e9, NULL, "stop after this step of the student as if interrupted; --resume goes on"}, \
    {"save-every",    ARGS_INT,  &(r).save_every,    1, 1e9, NULL, "steps between two checkpoints, beside those that the clock makes"}

static inline void run_init(run *r, const run_program *program, const char *out) {
    r->program = program;
    r->common = args_common_defaults(out);
    r->save_seconds = program->save_seconds;
    r->lock.held = -1;
    ctm_init(&r->ctx);
    r->set.ctx = &r->ctx;
    r->rest.take = settings_take;
    r->rest.user = &r->set;
}

// Says what is wrong with the world, in one line; returns the exit status.
static inline int run_wrong(const run *r) {
    fprintf(stderr, "%s: %s\n", r->program->name, r->line);
    return 1;
}

// The same for the way the program was called.
static inline int run_misused(const run *r, const char *line) {
    fprintf(stderr, "%s: %s\n", r->program->name, line);
    return 2;
}

static inline int run_failed(run *r) { return args_fail(r->line, sizeof r->line, "%s", ctm_error(&r->ctx)); }

static inline const char *run_path(run *r, const char *file, char path[ARGS_PATH]) {
    args_join(path, ARGS_PATH, r->common.out, file);
    return path;
}

static inline const char *run_key(const run *r, const char *what, char key[64]) {
    snprintf(key, 64, "%s.%s", r->program->name, what);
    return key;
}

static inline int run_is_kind(const char *word) { return strcmp(word, "exact") == 0 || strcmp(word, "learned") == 0 || strcmp(word, "none") == 0; }
static inline int run_teacher_is(const run *r, const char *kind) { return strcmp(r->teacher_kind, kind) == 0; }

// ---- Training ----------------------------------------------------------------------------------------------------------

// A trainer for a fresh network: a student if cfg has jumps, otherwise a teacher.
static inline ctm_trainer *run_trainer(run *r, ctm_arena *a, const ctm_config *cfg, const ctm_denoiser *teacher) {
    ctm_net *net = r->program->network(r, a, cfg);
    ctm_trainer *tr = ctm_trainer_new(a, cfg, net, teacher, r->program->draw, r);
    if (cfg->classes) {
        tr->label = r->program->label;
        tr->label_user = r;
    }
    if (cfg->times && r->program->prepare) r->program->prepare(r, tr);
    if (cfg->gan) ctm_trainer_adversary(a, tr, r->program->discriminator(a, cfg, net->dim));
    return tr;
}

static inline ctm_config run_teacher_config(run *r) {
    ctm_config cfg = ctm_recipe_teacher(&r->cfg);
    if (r->program->teacher) r->program->teacher(r, &r->cfg, &cfg);
    if (r->teacher_steps) cfg.steps = (long)r->teacher_steps;
    return cfg;
}

// Seconds for one step of a run with this configuration: tried out on a trainer that is then thrown away.
static inline double run_step_seconds(run *r, const ctm_config *cfg, const ctm_denoiser *teacher) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    ctm_trainer *tr = run_trainer(r, &r->scratch, cfg, teacher);
    double start;
    ctm_train_step(tr);                              // the first step also allocates
    start = args_seconds();
    while (tr->step < 100 && (tr->step < 2 || args_seconds() - start < 3)) ctm_train_step(tr);
    const double each = (args_seconds() - start)/(double)(tr->step - 1);
    ctm_trainer_free(tr);
    ctm_arena_release(&r->scratch, mark);
    return each;
}

// How many steps fit into --seconds. The learning rate falls over the whole run, so the number must be known beforehand. A learned
// teacher takes `share` steps for one of the student's.
static inline void run_plan(run *r, long share) {
    const int learned = run_teacher_is(r, "learned");
    char number[32], *kept;
    if (r->seconds_given > 0) {
        const ctm_config teacher = run_teacher_config(r);
        const ctm_denoiser *D = learned ? ctm_net_denoiser(&r->scratch, r->program->network(r, &r->scratch, &teacher)) : r->teacher;
        const double each = run_step_seconds(r, &r->cfg, D) + (learned ? (double)share*run_step_seconds(r, &teacher, NULL) : 0);
        const double n = r->seconds_given/each;
        r->cfg.steps = n < 1 ? 1 : n > 1e9 ? 1000000000L : (long)n;
    }
    if (learned && !r->teacher_steps) r->teacher_steps = share*r->cfg.steps;
    if (!settings_given(&r->set, "gan-start")) r->cfg.gan_start = (long)(0.6*(double)r->cfg.steps + 1e-9);
    snprintf(number, sizeof number, "%ld", r->cfg.steps);
    kept = (char *)ctm_alloc(&r->memory, sizeof number);
    strcpy(kept, number);
    settings_add(&r->set, "steps", kept);            // from now on as if it had been asked for
}

// Everything needed to go on, in one file that is replaced as a whole.
static inline int run_save(run *r, const ctm_trainer *tr) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    char path[ARGS_PATH], key[64];
    notes t;
    int ok;
    t.arena = &r->scratch;
    t.n = 0;
    note(&t, run_key(r, "phase", key), tr->cfg.times ? "student" : "teacher");
    note(&t, run_key(r, "command", key), command_text(&r->scratch, &r->flags));
    note_hash(&t, run_key(r, "data_hash", key), r->data_hash);
    note_hash(&t, run_key(r, "teacher_hash", key), r->teacher_hash);
    if (r->extra_hash) note_hash(&t, run_key(r, "extra_hash", key), r->extra_hash);
    note_number(&t, run_key(r, "seconds", key), r->seconds);
    note_number(&t, run_key(r, "teacher_seconds", key), r->teacher_seconds);
    note_losses(&t, r->program->name, r->losses);
    ok = ctm_checkpoint_save(&r->scratch, tr, run_path(r, "checkpoint.safetensors", path), t.pair);
    ctm_arena_release(&r->scratch, mark);
    return ok ? run_losses_write(r->losses, run_path(r, "loss.csv", path), r->line, sizeof r->line) : run_failed(r);
}

static inline int run_save_weights(run *r, ctm_net *net, const ctm_config *cfg, const char *file) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    char path[ARGS_PATH], key[64];
    notes t;
    int ok;
    t.arena = &r->scratch;
    t.n = 0;
    note(&t, run_key(r, "command", key), command_text(&r->scratch, &r->flags));
    r->program->notes(r, &t);
    ok = ctm_save_with(&r->scratch, net, cfg, run_path(r, file, path), t.pair);
    ctm_arena_release(&r->scratch, mark);
    return ok ? 1 : run_failed(r);
}

static inline void run_text(const run *r, const ctm_trainer *tr, char *text, size_t size) {
    char adversary[60] = "";
    if (tr->cfg.gan && tr->step > tr->cfg.gan_start) snprintf(adversary, sizeof adversary, " D %.2f %.2f", tr->disc_real, tr->disc_fake);
    if (tr->cfg.times) snprintf(text, size, "L_ctm %.2g L_dsm %.2g%s  %.0f rows/s", tr->L_ctm, tr->L_dsm, adversary, r->rows_per_second);
    else snprintf(text, size, "teacher L_dsm %.3g  %.0f rows/s", tr->L_dsm, r->rows_per_second);
}

// The state now and then: a checkpoint, and where there are pictures a contact sheet and a line that stays.
static inline int run_keep(run *r, ctm_trainer *tr) {
    char text[120];
    if (!run_save(r, tr)) return 0;
    if (!r->program->sheet) return 1;
    if (!r->program->sheet(r, tr->ema[0])) return 0;
    run_text(r, tr, text, sizeof text);
    if (!r->common.quiet) printf("%sstep %ld of %ld  %s\n", args_is_terminal() ? "\r" : "", tr->step, tr->cfg.steps, text);
    fflush(stdout);
    return 1;
}

// Steps until the end, a signal or --stop-at. 1 finished; 0 stopped, state saved; -1 failed, r->line says why.
static inline int run_steps(run *r, ctm_trainer *tr) {
    const long stop_at = r->stop_at > 0 && tr->cfg.times ? (long)r->stop_at : tr->cfg.steps, begun = tr->step;
    double now = args_seconds(), kept = now, pause = r->save_seconds, worked = 0;
    char text[120] = "", why[600];
    args_progress line;
    args_progress_begin(&line, tr->step, tr->cfg.steps, 0, r->common.quiet);
    while (tr->step < tr->cfg.steps && tr->step < stop_at && !asked_to_stop) {
        const int stepped = ctm_train_step(tr);
        if (!stepped || (r->program->intact && !r->program->intact(r))) {
            snprintf(why, sizeof why, "%s", stepped ? r->line : ctm_error(&r->ctx));
            args_progress_end(&line, tr->step, text);
            args_fail(r->line, sizeof r->line, stepped ? "%s (the last checkpoint is untouched)" : "%s; try a smaller --lr (the last checkpoint is untouched)", why);
            return -1;
        }
        run_losses_add(r->losses, tr);
        worked += args_seconds() - now;
        r->seconds += args_seconds() - now;
        now = args_seconds();
        if (args_progress_due(&line)) {
            r->rows_per_second = (double)(tr->step - begun)*tr->cfg.batch/(worked > 0 ? worked : 1e-9);
            run_text(r, tr, text, sizeof text);
            args_progress_print(&line, tr->step, text);
        }
        if (r->save_every && tr->step%(long)r->save_every == 0 && !run_save(r, tr)) return -1;
        if (now - kept >= pause) {
            r->rows_per_second = (double)(tr->step - begun)*tr->cfg.batch/(worked > 0 ? worked : 1e-9);
            if (!run_keep(r, tr)) return -1;
            kept = args_seconds();
            if (20*(kept - now) > pause) pause = 20*(kept - now);      // never more than a twentieth of the time
        }
        now = args_seconds();
    }
    r->rows_per_second = (double)(tr->step - begun)*tr->cfg.batch/(worked > 0 ? worked : 1e-9);
    args_progress_end(&line, tr->step, text);
    if (!run_save(r, tr)) return -1;
    return tr->step == tr->cfg.steps;
}

// Says where a run has stopped and how it goes on. Returns the exit status: --stop-at has got what it asked for.
static inline int run_stopped(run *r) {
    printf("stopped after step %ld of %ld of the %s; saved; to go on: build/%s train --resume --out %s\n", r->tr->step, r->tr->cfg.steps,
           r->tr->cfg.times ? "student" : "teacher", r->program->name, run_quoted(&r->scratch, r->common.out));
    return asked_to_stop ? RUN_STOPPED : 0;
}

// ---- Going on ----------------------------------------------------------------------------------------------------------

static inline int run_in_phase(const run *r, const char *phase) {
    char key[64];
    return r->from && strcmp(ctm_file_meta(r->from, run_key(r, "phase", key)), phase) == 0;
}

// A resumed run: its flags come from the checkpoint, whatever else is known of it must agree.
static inline int run_open_checkpoint(run *r) {
    char path[ARGS_PATH], key[64];
    r->from = ctm_file_read(&r->memory, run_path(r, "checkpoint.safetensors", path));
    if (!r->from) return args_fail(r->line, sizeof r->line, "--resume: %s", ctm_error(&r->ctx));
    if (!ctm_file_meta(r->from, run_key(r, "phase", key)) || !ctm_file_meta(r->from, run_key(r, "command", key)))
        return args_fail(r->line, sizeof r->line, "--resume: %s: is not a checkpoint of `%s train`", path, r->program->name);
    r->seconds = run_number(r->from, run_key(r, "seconds", key));
    r->teacher_seconds = run_number(r->from, run_key(r, "teacher_seconds", key));
    return command_restore(&r->flags, r->from, &r->memory, r->line, sizeof r->line);
}

static inline int run_same_hash(run *r, const char *what, uint64_t hash, const char *whose) {
    char key[64];
    if (!r->from || same_hash_in(r->from, run_key(r, what, key), hash)) return 1;
    return args_fail(r->line, sizeof r->line, "%s: %s is not the one this run began with", r->from->path, whose);
}

// 1 if the checkpoint belongs to this phase and was loaded into tr, 0 if not, -1 on an error.
static inline int run_resume_phase(run *r, ctm_trainer *tr, const char *phase) {
    if (!run_in_phase(r, phase)) return 0;
    if (!ctm_checkpoint_load_file(tr, r->from)) { run_failed(r); return -1; }
    if (tr->note[0]) fprintf(stderr, "note: %s\n", tr->note);
    restore_losses(r->losses, r->program->name, r->from);
    if (!r->common.quiet) printf("resumed after step %ld of the %s\n", tr->step, phase);
    return 1;
}

// A choice that is a function is kept by its name; one of the user's own, or of another version, is not in this program.
static inline int run_has_functions(run *r, const ctm_config *c) {
    static const char *const name[] = {"times", "teach", "weight", "aim", "level"};
    const int here[] = {c->times != NULL, c->teach != NULL, c->weight != NULL, c->aim != NULL, c->level != NULL};
    for (int i = 0; i < ARGS_COUNT(name); i++) {
        char key[40];
        const char *text;
        snprintf(key, sizeof key, "ctm.%s", name[i]);
        text = ctm_file_meta(r->from, key);
        if (!here[i] && text && strcmp(text, "none") != 0)
            return args_fail(r->line, sizeof r->line, "%s: its recipe \"%s\" has a function \"%.40s\" for %s, which this program does not have", r->from->path, c->recipe, text, name[i]);
    }
    return 1;
}

// ---- Settings ----------------------------------------------------------------------------------------------------------

static inline int run_needs_no_teacher(const ctm_config *c) {
    return c->teach == ctm_teach_data || c->teach == ctm_teach_jump || c->teach == ctm_teach_jumps;
}

static inline int run_guided(const run *r) { return r->guidance > 0 && r->guidance != 1; }

// The student's configuration: the recipe, then the data's and the network's, then the flags, which have the last word.
// Exit status.
static inline int run_configure(run *r) {
    ctm_config *c = &r->cfg;
    int batch, status;
    if (!r->recipe) r->recipe = r->program->recipe;
    if (!ctm_recipe_named(&r->ctx, r->recipe, c)) {
        args_fail(r->line, sizeof r->line, "flag --recipe: %s", ctm_error(&r->ctx));
        return run_misused(r, r->line);
    }
    status = r->program->adapt(r, c);
    if (status) return status;
    c->seed = (uint64_t)r->common.seed;
    for (int pass = 0; pass < 2; pass++) {           // whether a teacher is wanted may hang on --teach
        if (pass && run_teacher_is(r, "none") && r->program->untaught) r->program->untaught(r, c);
        if (run_guided(r)) c->aim = ctm_aim_teacher;        // at s = t, too, the student is the guided teacher
        batch = c->batch;
        if (!settings_apply(&r->set, c, r->line, sizeof r->line)) return run_misused(r, r->line);
        if (c->batch != batch && !settings_given(&r->set, "diagonal-batch")) c->diagonal_batch = (int)(((int64_t)c->diagonal_batch*c->batch + batch - 1)/batch);
        if (!r->teacher_kind) r->teacher_kind = run_needs_no_teacher(c) ? "none" : r->teacher_default;
    }
    if (c->steps < 1) return run_misused(r, "flag --steps: expected at least 1");
    if (run_guided(r) && !c->classes) return run_misused(r, "flag --guidance: goes with classes, and this run has none");
    if (run_guided(r) && (run_teacher_is(r, "none") || run_teacher_is(r, "exact"))) return run_misused(r, "flag --guidance: goes with a teacher that is a network");
    if (run_teacher_is(r, "none") && (c->aim == ctm_aim_teacher || (!c->aim && c->teach == ctm_teach_solver))) {
        args_fail(r->line, sizeof r->line, "flag --recipe: %s needs a teacher, but --teacher is none%s", c->recipe, c->aim ? "" : "; without one there is --recipe ct");
        return run_misused(r, r->line);
    }
    if (c->times && ctm_config_fits(&r->ctx, c)) return 0;
    args_fail(r->line, sizeof r->line, "the recipe %s with these flags: %s", c->recipe, c->times ? ctm_error(&r->ctx) : "there are no jumps to learn (--times none)");
    return run_misused(r, r->line);
}

// The configuration of a student that is already in training is that of its checkpoint.
static inline int run_resume_config(run *r) {
    const ctm_noise *z = r->teacher ? r->teacher->noise : NULL;
    if (!run_in_phase(r, "student")) return 1;
    if (!ctm_config_read(r->from, &r->cfg)) return run_failed(r);
    if (!run_has_functions(r, &r->cfg)) return 0;
    if (strcmp(r->cfg.recipe, r->recipe) != 0)
        return args_fail(r->line, sizeof r->line, "%s: its recipe is \"%s\", but its command has --recipe %s", r->from->path, r->cfg.recipe, r->recipe);
    if (!r->cfg.times || !ctm_config_fits(&r->ctx, &r->cfg))
        return args_fail(r->line, sizeof r->line, "%s: no student can have its settings%s%s", r->from->path, r->cfg.times ? ": " : "", r->cfg.times ? ctm_error(&r->ctx) : "");
    if (run_teacher_is(r, "none") && r->cfg.aim == ctm_aim_teacher)
        return args_fail(r->line, sizeof r->line, "%s: its configuration needs a teacher, and this run has none", r->from->path);
    if (z && (z->sigma_min > r->cfg.noise.sigma_min || z->sigma_max < r->cfg.noise.sigma_max))
        return args_fail(r->line, sizeof r->line, "%s: its noise levels reach beyond those of its teacher", r->from->path);
    return 1;
}

// ---- The teacher -------------------------------------------------------------------------------------------------------

static inline void run_use_teacher(run *r, ctm_net *net) {
    r->teacher = run_guided(r) ? ctm_guided_denoiser(&r->memory, net, r->guidance) : ctm_net_denoiser(&r->memory, net);
    r->teacher_net = net;
    r->teacher_hash = hash_bytes(net->theta, net->len*sizeof(ctm_real));
}

static inline int run_load_teacher(run *r, const char *path) {
    const ctm_file *f = ctm_file_read(&r->memory, path);
    const int exact = f && r->program->exact_file ? r->program->exact_file(r, f) : 0;
    ctm_net *net = f && !exact ? ctm_load_file(&r->memory, f, NULL) : NULL;
    if (exact > 0 && run_guided(r)) return args_fail(r->line, sizeof r->line, "%s: is a teacher without classes, which --guidance needs", path);
    if (exact) return exact > 0;
    if (!net) return run_failed(r);
    if (!r->program->teacher_fits(r, f, net)) return 0;
    if (run_guided(r) && !net->classes) return args_fail(r->line, sizeof r->line, "%s: is a teacher without classes, which --guidance needs", path);
    if (net->noise.sigma_min > r->cfg.noise.sigma_min || net->noise.sigma_max < r->cfg.noise.sigma_max)
        return args_fail(r->line, sizeof r->line, "%s: is a teacher of the noise levels %g to %g, but the student's are %g to %g", path, net->noise.sigma_min,
                         net->noise.sigma_max, r->cfg.noise.sigma_min, r->cfg.noise.sigma_max);
    run_use_teacher(r, net);
    return 1;
}

// A denoiser trained from the data, before the student. 1 done, 0 stopped, -1 failed.
static inline int run_learn_teacher(run *r) {
    ctm_config cfg = run_teacher_config(r);
    char path[ARGS_PATH];
    ctm_trainer *tr;
    int state;
    if (run_in_phase(r, "student")) return run_load_teacher(r, run_path(r, "teacher.safetensors", path)) ? 1 : -1;
    if (r->from && !ctm_config_read(r->from, &cfg)) { run_failed(r); return -1; }
    if (r->from && (!run_has_functions(r, &cfg) || cfg.times || !ctm_config_fits(&r->ctx, &cfg))) {
        if (!r->line[0]) args_fail(r->line, sizeof r->line, "%s: no teacher can have its settings", r->from->path);
        return -1;
    }
    tr = r->tr = run_trainer(r, &r->memory, &cfg, NULL);
    if (run_resume_phase(r, tr, "teacher") < 0) return -1;
    state = run_steps(r, tr);
    if (state < 1) return state;
    if (!run_save_weights(r, tr->ema[0], &cfg, "teacher.safetensors") || (r->program->sheet && !r->program->sheet(r, tr->ema[0])) ||
        !run_losses_write(r->losses, run_path(r, "teacher_loss.csv", path), r->line, sizeof r->line)) return -1;
    if (!r->common.quiet)
        printf("teacher learned: %ld steps, L_dsm %.4f, %.0f s; in %s\n", tr->step, r->losses->row[r->losses->n - 1][RUN_L_DSM], r->seconds,
               run_path(r, "teacher.safetensors", path));
    r->teacher_seconds = r->seconds;
    run_use_teacher(r, tr->ema[0]);
    ctm_trainer_free(tr);
    r->tr = NULL;
    memset(r->losses, 0, sizeof *r->losses);         // loss.csv is about the student
    return 1;
}

// All kinds but `learned`, which needs the number of steps first.
static inline int run_find_teacher(run *r) {
    if (run_teacher_is(r, "exact")) return (r->teacher = r->program->exact(r)) != NULL;
    return run_is_kind(r->teacher_kind) || run_load_teacher(r, r->teacher_kind);
}

// ---- The student, and all of it ----------------------------------------------------------------------------------------

static inline int run_student(run *r) {
    int resumed, state;
    r->tr = run_trainer(r, &r->memory, &r->cfg, r->teacher);
    resumed = run_resume_phase(r, r->tr, "student");
    if (resumed < 0 || (resumed && !run_same_hash(r, "teacher_hash", r->teacher_hash, "the teacher"))) return run_wrong(r);
    state = run_steps(r, r->tr);
    if (state < 0) return run_wrong(r);
    if (state == 0) return run_stopped(r);
    run_leave_signals();               // nothing is lost any more: from here on a signal ends the program
    return r->program->results(r, r->tr->ema[0]) ? 0 : run_wrong(r);
}

static inline void run_report(run *r) {
    char threads[32];
    if (r->common.quiet) return;
    snprintf(threads, sizeof threads, "%lld threads", r->common.threads);
    printf("%s\nctm.h %s, %s, %s\n", command_line(&r->scratch, &r->flags), CTM_VERSION, r->common.threads ? threads : "all cores", ctm_isa_name(r->ctx.isa));
    r->program->report(r);
    if (r->seconds_given > 0) printf("the number of steps was fitted to --seconds: another machine or moment gives another; --steps is reproducible\n");
    fflush(stdout);
}

static inline int run_all(run *r, long teacher_share) {
    int status;
    if (r->resume && !run_open_checkpoint(r)) return run_wrong(r);
    status = r->program->open(r);
    if (status) return status;
    status = run_configure(r);
    if (status) return status;
    if (!run_same_hash(r, "data_hash", r->data_hash, "the data") || !run_find_teacher(r) || !run_resume_config(r)) return run_wrong(r);
    status = r->program->ready(r);
    if (status) return status;
    if (!args_mkdir(r->common.out, r->line, sizeof r->line) || !run_take(&r->lock, r->common.out, r->line, sizeof r->line)) return run_wrong(r);
    if (!r->resume) run_say_earlier(r->common.out);
    if (!run_in_phase(r, "student")) run_plan(r, teacher_share);
    run_report(r);
    if (run_teacher_is(r, "learned")) {
        const int state = run_learn_teacher(r);
        if (state < 1) return state < 0 ? run_wrong(r) : run_stopped(r);
    }
    return run_student(r);
}

// Flags of `train` that contradict each other in every program.
static inline int run_check(run *r) {
    const int learned = !r->teacher_kind || run_teacher_is(r, "learned");
    if (r->seconds_given > 0 && (settings_given(&r->set, "steps") || r->teacher_steps)) return run_misused(r, "flags --steps and --seconds: give one of them");
    if (r->seconds_given > 0 && r->resume) return run_misused(r, "flags --seconds and --resume: the number of steps is kept in the checkpoint");
    if (r->teacher_steps && !learned && !r->resume) return run_misused(r, "flag --teacher-steps: goes with --teacher learned");
    if (r->recipe && !ctm_recipe_named(&r->ctx, r->recipe, &r->cfg)) {
        args_fail(r->line, sizeof r->line, "flag --recipe: %s", ctm_error(&r->ctx));
        return run_misused(r, r->line);
    }
    return command_check(&r->flags, r->line, sizeof r->line) ? 0 : run_misused(r, r->line);
}

// The rest of `train` once its flags are parsed: r->flags is filled in. teacher_share: steps of a learned teacher for one of the student's.
static inline int run_main(run *r, long teacher_share) {
    int status;
    r->ctx.threads = (int)r->common.threads;
    ctm_arena_init(&r->memory, &r->ctx, "model");
    ctm_arena_init(&r->scratch, &r->ctx, "scratch");
    r->losses = (run_losses *)ctm_alloc(&r->memory, sizeof *r->losses);
    run_catch_signals();
    status = run_all(r, teacher_share);
    run_release(&r->lock);
    if (r->tr) ctm_trainer_free(r->tr);
    ctm_arena_free(&r->scratch);
    ctm_arena_free(&r->memory);
    return status;
}

#endif
