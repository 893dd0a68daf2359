/* points.c - consistency trajectory models of points: train, look, measure, sample

   points [train] --data ring|grid|moons|checker|swiss|spiral|pinwheel|FILE.csv --out DIR
       trains a model and leaves in DIR: index.html (the story, with every figure), *.svg, metrics.csv, loss.csv,
       samples.csv, model.safetensors, checkpoint.safetensors. An interrupted run goes on with --resume, bit for bit.
       --gan adds an adversary; --label COL learns the classes of a table's column; --method cm the plain consistency model.
   points sample --weights DIR/model.safetensors --n 1000 --out F.csv
       samples from a trained model, in the units of its data (--out F.npy: standardised); --class NAME of one class,
       --guidance W beyond it.
   points loglik --weights DIR/model.safetensors --data FILE.csv [--class NAME] --out F.csv
       the log-density of given rows under the model, a line for each; --class NAME of one class.

   Exit status: 0 done; 1 the world is wrong (a file, the disk), one line on stderr says what; 2 wrong usage; 3 a signal has
   stopped the training, which --resume takes up again.

   How to read this file: the chapters are data, recipe, losses, teacher, training, results, sample, loglik. The method
   itself is ctm.h; the pictures are story.h, the measures measure.h, the toy data toys.h. */

#include "args.h"
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include "toys.h"
#include "measure.h"
#include "plot.h"
#include "table.h"
#include "run.h"
#include "story.h"

enum {
    SAMPLE_ROWS     = 2000,     // rows of samples.csv,
    SAMPLE_JUMPS    = 4,        // made with so many jumps
    LAW_STEPS       = 3000,     // of each of the two short runs that compare the laws of (t,u,s)
    LAW_NOISES      = 10000,    // measured on so many starting noises
    TABLE_ROWS_MIN  = 10,       // fewer make no model
    TABLE_NOISES    = 5000,     // starting noises for the measures of tables
    DENSITY_DIM_MAX = 16,       // the likelihood needs a backward pass for every column
    CLASS_SAMPLES   = 1000      // per class, for the measure of classes
};
#define LABEL_DROPOUT 0.1           // share of rows trained without their class
#define GAN_START     0.6           // share of the steps before the adversary enters
#define CHECKPOINT_SECONDS 10.0

// Says what is wrong with the world, in one line; returns the exit status.
static int wrong(const char *line) {
    fprintf(stderr, "points: %s\n", line);
    return 1;
}

// The same for the way the program was called.
static int misused(const char *line) {
    fprintf(stderr, "points: %s\n", line);
    return 2;
}

// ---- Data --------------------------------------------------------------------------------------------------------------
//
// The trainer wants points with standard deviation sigma_data = 0.5. A toy set has that by definition; the columns of a
// table are shifted and scaled, and mean and unit remember how:  own units = mean + unit·standardised.

typedef struct dataset {
    const char  *name;                  // "ring", or the file
    int          dim, is_toy;
    toy          toy_set;
    table        file;
    const char **column;                // [dim] names
    double      *mean, *unit;           // [dim]
    size_t       rows, held;            // for training (toys: for figures), and held out
    ctm_real    *row, *held_row;        // [rows,dim], [held,dim], standardised
    uint64_t     hash;                  // of the table's numbers and labels: a resumed run must see the same ones
    uint64_t     rows_hash;             // the same of the standardised rows, as files of version 0.2.0 have it
    int          classes, *label;       // [rows]; 0 and NULL without --label
    const char **class_name;            // [classes]
} dataset;

static int is_toy_name(const char *name) {
    for (int i = 0; i < TOY_COUNT; i++)
        if (strcmp(name, toy_names()[i]) == 0) return 1;
    return 0;
}

// A ctm_draw_fn: one of the rows, all equally likely.
static void draw_row(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    const dataset *d = (const dataset *)user;
    const size_t i = (size_t)(ctm_uniform(rng, step, index)*(double)d->rows);
    memcpy(x0, d->row + i*(size_t)d->dim, (size_t)d->dim*sizeof *x0);
}

// A ctm_label_fn: the class of the row that draw_row gives.
static int row_label(void *user, const ctm_rng *rng, uint64_t step, uint64_t index) {
    const dataset *d = (const dataset *)user;
    return d->label[(size_t)(ctm_uniform(rng, step, index)*(double)d->rows)];
}

static void units_alloc(dataset *d, ctm_arena *a, int dim) {
    d->dim = dim;
    d->column = (const char **)ctm_alloc(a, (size_t)dim*sizeof *d->column);
    d->mean = (double *)ctm_alloc(a, (size_t)dim*sizeof(double));
    d->unit = (double *)ctm_alloc(a, (size_t)dim*sizeof(double));
}

static void data_toy(dataset *d, ctm_arena *a, const char *name, uint64_t seed) {
    static const char *const xy[2] = {"x", "y"};
    toy_make(&d->toy_set, a, name);
    units_alloc(d, a, 2);
    for (int j = 0; j < 2; j++) { d->column[j] = xy[j]; d->unit[j] = 1; }
    d->name = d->toy_set.name;
    d->is_toy = 1;
    d->rows = SAMPLE_ROWS;
    d->row = (ctm_real *)ctm_alloc(a, 2*d->rows*sizeof(ctm_real));
    measure_draw(&d->toy_set, seed, 1000, d->rows, d->row);
}

// A random order of 0..n-1 (Fisher and Yates).
static size_t *shuffled(ctm_arena *a, size_t n, uint64_t seed) {
    const ctm_rng rng = ctm_stream(seed, "held out");
    size_t *order = (size_t *)ctm_alloc(a, n*sizeof *order);
    for (size_t i = 0; i < n; i++) order[i] = i;
    for (size_t i = n; i > 1; i--) {
        const size_t j = (size_t)(ctm_uniform(&rng, 0, i)*(double)i), keep = order[i - 1];
        order[i - 1] = order[j];
        order[j] = keep;
    }
    return order;
}

// Numbers of the file become rows of standard deviation 0.5; a tenth of them is held out for measures.
static int data_table(dataset *d, ctm_arena *a, const char *path, const char *columns, const char *label, uint64_t seed, char *err, size_t errlen) {
    const table *f = &d->file;
    if (!table_read_csv(path, columns, label, &d->file, err, errlen)) return 0;
    units_alloc(d, a, f->d);
    d->name = path;
    for (int j = 0; j < d->dim; j++) {
        d->column[j] = f->names[j];
        d->mean[j] = f->mean[j];
        d->unit[j] = f->std[j]/TOY_SIGMA_DATA;
    }
    if (f->n < TABLE_ROWS_MIN)
        return args_fail(err, errlen, "%s: has %lu complete rows, expected at least %d (a tenth of them is held out for measures)", path, (unsigned long)f->n,
                         TABLE_ROWS_MIN);
    d->held = f->n/10;
    d->rows = f->n - d->held;
    d->row = (ctm_real *)ctm_alloc(a, f->n*(size_t)d->dim*sizeof(ctm_real));
    d->held_row = d->row + d->rows*(size_t)d->dim;
    const size_t *order = shuffled(a, f->n, seed);
    for (size_t i = 0; i < f->n; i++)
        for (int j = 0; j < d->dim; j++) {
            const double value = f->data[order[i]*(size_t)d->dim + (size_t)j];
            d->row[i*(size_t)d->dim + (size_t)j] = (ctm_real)((value - d->mean[j])/d->unit[j]);
        }
    d->hash = hash_numbers(f->data, f->n*(size_t)d->dim);
    d->rows_hash = hash_bytes(d->row, f->n*(size_t)d->dim*sizeof(ctm_real));
    if (label) {
        d->classes = f->classes;
        d->class_name = (const char **)ctm_alloc(a, (size_t)f->classes*sizeof *d->class_name);
        for (int k = 0; k < f->classes; k++) d->class_name[k] = f->class_names[k];
        d->label = (int *)ctm_alloc(a, f->n*sizeof(int));
        for (size_t i = 0; i < f->n; i++) d->label[i] = f->label[order[i]];
        d->rows_hash ^= hash_bytes(d->label, f->n*sizeof(int));
        for (size_t i = 0; i < f->n; i++) d->hash = (d->hash ^ (uint64_t)f->label[i])*1099511628211u;
    }
    return 1;
}

// Standardised points as a CSV file in the data's own units.
static int write_own_units(const char *path, ctm_arena *a, const dataset *d, size_t n, const ctm_real *x, char *err, size_t errlen) {
    double *own = (double *)ctm_alloc(a, n*(size_t)d->dim*sizeof(double));
    for (size_t i = 0; i < n; i++)
        for (int j = 0; j < d->dim; j++) {
            const size_t k = i*(size_t)d->dim + (size_t)j;
            own[k] = d->mean[j] + d->unit[j]*(double)x[k];
        }
    return table_write_rows(path, d->column, n, d->dim, own, d->unit, err, errlen);
}

// What `sample` must know to write in the data's own units.
static void note_units(notes *t, const dataset *d) {
    note(t, "data.name", d->name);
    for (int j = 0; j < d->dim; j++) {
        char key[40];
        snprintf(key, sizeof key, "data.column.%d", j);
        note(t, key, d->column[j]);
        snprintf(key, sizeof key, "data.mean.%d", j);
        note_number(t, key, d->mean[j]);
        snprintf(key, sizeof key, "data.unit.%d", j);
        note_number(t, key, d->unit[j]);
    }
    for (int k = 0; k < d->classes; k++) {
        char key[40];
        snprintf(key, sizeof key, "data.class.%d", k);
        note(t, key, d->class_name[k]);
    }
}

static const char *meta_of(const ctm_file *f, const char *key, int j) {
    char name[64];
    snprintf(name, sizeof name, "%s.%d", key, j);
    return ctm_file_meta(f, name);
}

// The other way round. A model without any such line works in standardised units, columns x0, x1, ... Some of them only: a line in err.
static int units_of_file(dataset *d, ctm_arena *a, const ctm_file *f, int dim, char *err, size_t errlen) {
    const int has_units = ctm_file_meta(f, "data.name") || meta_of(f, "data.column", 0) || meta_of(f, "data.mean", 0) || meta_of(f, "data.unit", 0);
    units_alloc(d, a, dim);
    for (int j = 0; j < dim; j++) {
        char plain[16];
        const char *name = meta_of(f, "data.column", j), *mean = meta_of(f, "data.mean", j), *unit = meta_of(f, "data.unit", j);
        snprintf(plain, sizeof plain, "x%d", j);
        d->column[j] = keep_text(a, name ? name : plain);
        d->mean[j] = 0;
        d->unit[j] = 1;
        if (has_units && (!name || !mean || !unit || args_real(mean, &d->mean[j]) != 1 || args_real(unit, &d->unit[j]) != 1 || !(d->unit[j] > 0)))
            return args_fail(err, errlen, "%s: has no sound data.column.%d, data.mean.%d and data.unit.%d in its metadata, without which the "
                             "units of its data are not known", f->path, j, j, j);
    }
    return 1;
}

// The classes of a model, by name; if the file names none of them, they are called by their numbers.
static int classes_of_file(dataset *d, ctm_arena *a, const ctm_file *f, int classes, char *err, size_t errlen) {
    d->classes = classes;
    d->class_name = (const char **)ctm_alloc(a, ((size_t)classes + 1)*sizeof *d->class_name);
    for (int k = 0; k < classes; k++) {
        char number[16];
        const char *name = meta_of(f, "data.class", k);
        if (!name && meta_of(f, "data.class", 0)) return args_fail(err, errlen, "%s: has no data.class.%d in its metadata", f->path, k);
        snprintf(number, sizeof number, "%d", k);
        d->class_name[k] = keep_text(a, name ? name : number);
    }
    return 1;
}

// ---- The run and its settings ------------------------------------------------------------------------------------------

typedef struct settings {
    args_common common;
    const char *data, *columns, *label, *teacher;
    long long   steps, batch, hidden, layers;      // 0: the recipe's
    long long   stop_at, save_every, law_steps, noises;
    double      seconds, lr, chains;
    int         match, law, gan, resume, plain;
    int         gan_loss, method, self_teach, init;
} settings;

typedef struct run {
    settings            set;
    run_settings        flags;
    run_lock            lock;
    ctm_ctx             ctx;
    ctm_arena           memory, scratch;
    dataset             data;
    ctm_config          cfg;
    long                teacher_steps;             // of a learned teacher
    const ctm_denoiser *teacher;                   // NULL: none
    ctm_net            *teacher_net;               // if it is a network
    ctm_trainer        *tr;                        // at work: the teacher's, then the student's
    uint64_t            teacher_hash;              // of its weights
    story_losses       *losses;
    double              seconds;                   // spent on training, all phases
    const ctm_file     *from;                      // the checkpoint of a resumed run
    char                line[600];                 // the last error
} run;

// The settings that make a run what it is: kept in its checkpoint, restored by --resume, printed on its page.
static const char *const kept_flags[] = {"data", "columns", "teacher", "match", "law", "seed", "steps", "batch", "hidden", "layers", "lr", "chains",
                                         "label", "gan", "gan-loss", "method", "self", "init"};

static const char *out_path(run *r, const char *file, char *path) {
    args_join(path, ARGS_PATH, r->set.common.out, file);
    return path;
}

// ---- The recipe --------------------------------------------------------------------------------------------------------

// What a data set wants other than ctm_config_default(). The moons bend their paths sharply at the tips: more solver steps.
static void recipe_for(const char *name, ctm_config *cfg) {
    cfg->steps = 42000;                                     // the ring and the grid
    if (strcmp(name, "moons") == 0) { cfg->substeps = 6; cfg->steps = 28000; }
    if (strcmp(name, "spiral") == 0 || strcmp(name, "swiss") == 0 || strcmp(name, "pinwheel") == 0) cfg->steps = 34000;
    if (strcmp(name, "checker") == 0) cfg->steps = 34000;
    if (!is_toy_name(name)) { cfg->substeps = 1; cfg->steps = 10000; }     // a learned teacher is dear, and has errors of its own
}

// The student's configuration: defaults, then the data's recipe, then the teacher's kind, then the flags.
static void configure(run *r) {
    ctm_config *cfg = &r->cfg;
    *cfg = r->set.method ? ctm_config_cm() : ctm_config_default();
    recipe_for(r->data.name, cfg);
    if (strcmp(r->set.teacher, "none") == 0 && cfg->diagonal == CTM_DIAG_EXACT) {
        cfg->diagonal = CTM_DIAG_DSM;      // without a teacher the data are the only source of truth: full weight
        cfg->lambda_dsm = 1;
    }
    if (!r->set.method) {
        cfg->match = r->set.match == 0 ? CTM_SOFT : r->set.match == 1 ? CTM_LOCAL : CTM_GLOBAL;
        cfg->law = r->set.law == 0 ? CTM_LAW_GAP : CTM_LAW_AUTHORS;
        cfg->law_chain = r->set.chains;
        cfg->self_teach = r->set.self_teach == 0 ? CTM_SELF_SOLVE : r->set.self_teach == 1 ? CTM_SELF_JUMP : CTM_SELF_JUMP_EACH;
    }
    if (r->set.gan) cfg->gan = CTM_GAN_HINGE + r->set.gan_loss;
    cfg->classes = r->data.classes;
    cfg->label_dropout = r->data.classes ? LABEL_DROPOUT : 0;
    cfg->seed = (uint64_t)r->set.common.seed;
    if (r->set.batch)  cfg->batch = (int)r->set.batch;
    if (r->set.hidden) cfg->hidden = (int)r->set.hidden;
    if (r->set.layers) cfg->layers = (int)r->set.layers;
    if (r->set.lr > 0) cfg->lr = r->set.lr;
    if (r->set.steps)  cfg->steps = (long)r->set.steps;
}

// A teacher is the same network without s, trained on the diagonal term alone: denoising score matching.
static ctm_config teacher_config(const run *r) {
    ctm_config cfg = ctm_config_teacher(&r->cfg);
    if (r->teacher_steps > 0) cfg.steps = r->teacher_steps;
    return cfg;
}

static ctm_draw_fn drawing(run *r, void **user) {
    *user = r->data.is_toy ? (void *)&r->data.toy_set : (void *)&r->data;
    return r->data.is_toy ? toy_draw : draw_row;
}

// A trainer for a fresh network: with consistency for a student, without for a teacher.
static ctm_trainer *trainer(run *r, ctm_arena *a, const ctm_config *cfg, const ctm_denoiser *teacher) {
    void *user;
    const ctm_draw_fn draw = drawing(r, &user);
    ctm_net *net = ctm_mlp(a, cfg, r->data.dim, cfg->consistency);
    if (r->set.init && cfg->consistency && r->teacher_net) ctm_net_copy_matching(net, r->teacher_net);
    ctm_trainer *tr = ctm_trainer_new(a, cfg, net, teacher, draw, user);
    if (cfg->classes) {
        tr->label = row_label;
        tr->label_user = user;
    }
    if (cfg->gan) ctm_trainer_adversary(a, tr, ctm_mlp_discriminator(a, cfg, r->data.dim));
    return tr;
}

// Seconds for one step of a run with this configuration: tried out on a trainer that is then thrown away.
static double step_seconds(run *r, const ctm_config *cfg, const ctm_denoiser *teacher) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    ctm_trainer *tr = trainer(r, &r->scratch, cfg, teacher);
    double start;
    ctm_train_step(tr);                              // the first step also allocates
    start = args_seconds();
    while (tr->step < 100 && args_seconds() - start < 2) ctm_train_step(tr);
    const double each = (args_seconds() - start)/(double)(tr->step > 1 ? tr->step - 1 : 1);
    ctm_trainer_free(tr);
    ctm_arena_release(&r->scratch, mark);
    return each;
}

// How many steps fit into --seconds. The learning rate falls over the whole run, so the number must be known beforehand. A
// learned teacher takes as many steps as its student (they are cheaper: no solver, no target).
static void plan_steps(run *r) {
    const int learned = strcmp(r->set.teacher, "learned") == 0;
    if (r->set.seconds > 0) {
        const ctm_config teacher = teacher_config(r);
        const double each = step_seconds(r, &r->cfg, r->teacher) + (learned ? step_seconds(r, &teacher, NULL) : 0);
        const double n = r->set.seconds/each;
        r->cfg.steps = n < 1 ? 1 : n > 1e9 ? 1000000000L : (long)n;
    }
    r->set.steps = r->cfg.steps;                     // from now on as if it had been asked for
    r->cfg.gan_start = (long)(GAN_START*(double)r->cfg.steps + 1e-9);
    r->teacher_steps = learned ? r->cfg.steps : 0;
}

// ---- Training ----------------------------------------------------------------------------------------------------------

// Everything needed to go on, in one file that is replaced as a whole.
static int save_checkpoint(run *r, const ctm_trainer *tr) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    char path[ARGS_PATH];
    notes t;
    t.arena = &r->scratch;
    t.n = 0;
    note(&t, "points.phase", tr->cfg.consistency ? "student" : "teacher");
    note_settings(&t, &r->flags);
    note_hash(&t, "points.data_hash", r->data.hash);
    note_hash(&t, "points.teacher_hash", r->teacher_hash);
    note_number(&t, "points.seconds", r->seconds);
    note_losses(&t, "points", r->losses);
    const int ok = ctm_checkpoint_save(&r->scratch, tr, out_path(r, "checkpoint.safetensors", path), t.pair);
    ctm_arena_release(&r->scratch, mark);
    return ok ? run_losses_write(r->losses, out_path(r, "loss.csv", path), r->line, sizeof r->line) : args_fail(r->line, sizeof r->line, "%s", ctm_error(&r->ctx));
}

// Steps until the end, a signal or --stop-at. 1 finished; 0 stopped, state saved; -1 failed, r->line says why.
static int train(run *r, ctm_trainer *tr) {
    const long stop_at = r->set.stop_at > 0 && tr->cfg.consistency ? (long)r->set.stop_at : tr->cfg.steps;
    const char *text = tr->cfg.consistency ? "" : "teacher ";
    double now = args_seconds(), saved = now;
    char losses[80] = "";
    args_progress line;
    args_progress_begin(&line, tr->step, tr->cfg.steps, 0, r->set.common.quiet);
    while (tr->step < tr->cfg.steps && tr->step < stop_at && !asked_to_stop) {
        if (!ctm_train_step(tr)) {
            args_progress_end(&line, tr->step, losses);
            args_fail(r->line, sizeof r->line, "%s; try a smaller --lr (the last checkpoint is untouched)", ctm_error(&r->ctx));
            return -1;
        }
        run_losses_add(r->losses, tr);
        r->seconds += args_seconds() - now;
        now = args_seconds();
        if (args_progress_due(&line)) {
            snprintf(losses, sizeof losses, "%sL_ctm %.2g L_dsm %.2g lambda %.2g", text, tr->L_ctm, tr->L_dsm, tr->lambda_dsm);
            args_progress_print(&line, tr->step, losses);
        }
        if (r->set.save_every ? tr->step%(long)r->set.save_every != 0 : now - saved < CHECKPOINT_SECONDS) continue;
        if (!save_checkpoint(r, tr)) return -1;
        saved = now = args_seconds();
    }
    args_progress_end(&line, tr->step, losses);
    if (!save_checkpoint(r, tr)) return -1;
    return tr->step == tr->cfg.steps;
}

// 1 if the checkpoint belongs to this phase and was loaded into tr, 0 if not, -1 on an error.
static int resume_phase(run *r, ctm_trainer *tr, const char *phase) {
    if (!r->from || strcmp(ctm_file_meta(r->from, "points.phase"), phase) != 0) return 0;
    if (!ctm_checkpoint_load(&r->scratch, tr, r->from->path)) {
        args_fail(r->line, sizeof r->line, "%s", ctm_error(&r->ctx));
        return -1;
    }
    if (tr->note[0]) fprintf(stderr, "note: %s\n", tr->note);
    restore_losses(r->losses, "points", r->from);
    return 1;
}

// ---- The teacher -------------------------------------------------------------------------------------------------------

static void use_network_as_teacher(run *r, ctm_net *net) {
    r->teacher = ctm_net_denoiser(&r->memory, net);
    r->teacher_net = net;
    r->teacher_hash = hash_bytes(net->theta, net->len*sizeof(ctm_real));
}

// Weights from a file. Their data must be this data, in the same units.
static int load_teacher(run *r, const char *path) {
    const ctm_file *f = ctm_file_read(&r->memory, path);
    ctm_net *net = f ? ctm_load(&r->memory, path, NULL) : NULL;
    dataset other;
    memset(&other, 0, sizeof other);
    if (!net) return args_fail(r->line, sizeof r->line, "%s", ctm_error(&r->ctx));
    if (net->dim != r->data.dim)
        return args_fail(r->line, sizeof r->line, "%s: is a teacher of %d columns, but the data has %d", path, net->dim, r->data.dim);
    if (net->classes && net->classes != r->data.classes)
        return args_fail(r->line, sizeof r->line, "%s: is a teacher of %d classes, but the data has %d", path, net->classes, r->data.classes);
    if (!units_of_file(&other, &r->memory, f, net->dim, r->line, sizeof r->line)) return 0;
    for (int j = 0; j < net->dim; j++)
        if (fabs(other.mean[j] - r->data.mean[j]) > 1e-6*r->data.unit[j] || fabs(other.unit[j]/r->data.unit[j] - 1) > 1e-6)
            return args_fail(r->line, sizeof r->line, "%s: was trained on other data: its column %d (\"%s\") has mean %g and unit %g, here they are %g and %g",
                             path, j + 1, other.column[j], other.mean[j], other.unit[j], r->data.mean[j], r->data.unit[j]);
    use_network_as_teacher(r, net);
    return 1;
}

// A denoiser trained from the data, before the student. 1 done, 0 stopped, -1 failed.
static int learn_teacher(run *r) {
    const ctm_config cfg = teacher_config(r);
    char path[ARGS_PATH];
    ctm_trainer *tr;
    notes t;
    int state;
    out_path(r, "teacher.safetensors", path);
    if (r->from && strcmp(ctm_file_meta(r->from, "points.phase"), "student") == 0) return load_teacher(r, path) ? 1 : -1;
    tr = r->tr = trainer(r, &r->memory, &cfg, NULL);
    if (resume_phase(r, tr, "teacher") < 0) return -1;
    state = train(r, tr);
    if (state < 1) return state;
    t.arena = &r->memory;
    t.n = 0;
    note_units(&t, &r->data);
    if (!ctm_save_with(&r->scratch, tr->ema[0], &cfg, path, t.pair)) {
        args_fail(r->line, sizeof r->line, "%s", ctm_error(&r->ctx));
        return -1;
    }
    if (!r->set.common.quiet)
        printf("teacher learned: %ld steps, L_dsm %.4f, %.0f s; in %s\n", tr->step, r->losses->row[r->losses->n - 1][STORY_L_DSM], r->seconds, path);
    use_network_as_teacher(r, tr->ema[0]);
    ctm_trainer_free(tr);
    r->tr = NULL;
    r->losses->n = 0;                                // loss.csv is about the student
    return 1;
}

static const ctm_denoiser *exact_teacher(run *r) {
    const dataset *d = &r->data;
    if (d->is_toy) return d->toy_set.denoiser;
    double *rows = (double *)ctm_alloc(&r->memory, d->rows*(size_t)d->dim*sizeof(double));
    for (size_t i = 0; i < d->rows*(size_t)d->dim; i++) rows[i] = (double)d->row[i];
    return ctm_empirical(&r->memory, d->dim, (int)d->rows, rows);
}

// All kinds but `learned`, which needs the number of steps first.
static int find_teacher(run *r) {
    const char *kind = r->set.teacher;
    if (strcmp(kind, "exact") == 0 && r->data.classes)
        return args_fail(r->line, sizeof r->line, "--teacher exact: knows nothing of classes; with --label use learned, none, or a file");
    if (strcmp(kind, "exact") == 0) r->teacher = exact_teacher(r);
    else if (strcmp(kind, "learned") != 0 && strcmp(kind, "none") != 0) return load_teacher(r, kind);
    return 1;
}

// ---- Results -----------------------------------------------------------------------------------------------------------

static int save_model(run *r, ctm_net *net) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    char path[ARGS_PATH];
    notes t;
    t.arena = &r->scratch;
    t.n = 0;
    note_units(&t, &r->data);
    note_settings(&t, &r->flags);
    const int ok = ctm_save_with(&r->scratch, net, &r->cfg, out_path(r, "model.safetensors", path), t.pair);
    ctm_arena_release(&r->scratch, mark);
    return ok ? 1 : args_fail(r->line, sizeof r->line, "%s", ctm_error(&r->ctx));
}

static int save_samples(run *r, ctm_net *net) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    const size_t n = (size_t)SAMPLE_ROWS*(size_t)net->dim;
    ctm_real *x = (ctm_real *)ctm_alloc(&r->scratch, n*sizeof(ctm_real));
    const ctm_rng rng = ctm_stream(r->cfg.seed, "samples");
    char path[ARGS_PATH];
    ctm_normals(&rng, 0, 0, n, x);
    for (size_t i = 0; i < n; i++) x[i] *= (ctm_real)net->noise.sigma_max;
    ctm_sample_points(net, x, SAMPLE_ROWS, SAMPLE_JUMPS, 0, NULL);
    const int ok = write_own_units(out_path(r, "samples.csv", path), &r->scratch, &r->data, SAMPLE_ROWS, x, r->line, sizeof r->line);
    ctm_arena_release(&r->scratch, mark);
    return ok;
}

// Minus the mean log-density of held-out rows.
static double held_out_nll(run *r, ctm_net *net) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    const size_t n = r->data.held < 2000 ? r->data.held : 2000;
    double *logp = (double *)ctm_alloc(&r->scratch, n*sizeof(double)), sum = 0;
    measure_loglik(net, NULL, n, r->data.held_row, 80, logp);
    for (size_t i = 0; i < n; i++) sum -= logp[i];
    ctm_arena_release(&r->scratch, mark);
    return sum/(double)n;
}

// How well the classes are told apart: RMS over classes and columns of (mean of one-jump samples of the class) - (mean of its
// rows), over the data's standard deviation. And the same for samples without a class, which should be far worse.
static double class_mean_rms(run *r, ctm_net *net, int with_class) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    const dataset *d = &r->data;
    const size_t dim = (size_t)d->dim;
    const ctm_rng rng = ctm_stream(r->cfg.seed, "classes");
    int *label = (int *)ctm_alloc(&r->scratch, CLASS_SAMPLES*sizeof(int));
    double sum = 0;
    for (int k = 0; k < d->classes; k++) {
        double *mean = (double *)ctm_alloc(&r->scratch, 2*dim*sizeof(double)), rows = 0;
        ctm_tape tp;
        ctm_tape_init(&tp, &r->ctx, &r->scratch);
        tp.recording = 0;
        for (int i = 0; i < CLASS_SAMPLES; i++) label[i] = k;
        tp.rows.label = label;
        ctm_jump *G = ctm_guided_jump(&r->scratch, net, with_class);
        ctm_tensor *x = ctm_matrix(&tp, "x", CLASS_SAMPLES, d->dim), *T = ctm_fill(ctm_vector(&tp, "T", CLASS_SAMPLES), net->noise.sigma_max);
        ctm_normals(&rng, (uint64_t)k, 0, x->len, x->data);
        for (size_t i = 0; i < x->len; i++) x->data[i] *= (ctm_real)net->noise.sigma_max;
        ctm_tensor *y = G->jump(&tp, G, x, T, ctm_fill(ctm_vector(&tp, "0", CLASS_SAMPLES), net->noise.sigma_min));
        for (size_t i = 0; i < d->rows; i++) {
            if (d->label[i] != k) continue;
            for (size_t j = 0; j < dim; j++) mean[j] += (double)d->row[i*dim + j];
            rows++;
        }
        for (size_t i = 0; i < y->len; i++) mean[dim + i%dim] += (double)y->data[i]/CLASS_SAMPLES;
        for (size_t j = 0; j < dim && rows > 0; j++) sum += (mean[j]/rows - mean[dim + j])*(mean[j]/rows - mean[dim + j]);
    }
    ctm_arena_release(&r->scratch, mark);
    return sqrt(sum/(d->classes*d->dim))/TOY_SIGMA_DATA;
}

// What an adversary might spoil: the share of the least visited part of a mixture among one-jump samples, times the number of
// parts. 1 would be perfect balance, 0 a lost mode.
static double least_visited(run *r, ctm_net *net) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    const toy *data = &r->data.toy_set;
    const size_t n = LAW_NOISES;
    ctm_real *x = (ctm_real *)ctm_alloc(&r->scratch, 2*n*sizeof(ctm_real));
    size_t count[TOY_MAX_PARTS], least = n;
    memset(count, 0, sizeof count);
    measure_noise(r->cfg.seed, net->noise.sigma_max, n, 2, x);
    measure_ctm(net, 1, n, x, x);
    for (size_t i = 0; i < n; i++) {
        int nearest = 0;
        double best = 1e30;
        for (int k = 0; k < data->K; k++) {
            const double a = (double)x[2*i] - data->mean[k][0], b = (double)x[2*i + 1] - data->mean[k][1];
            if (a*a + b*b < best) { best = a*a + b*b; nearest = k; }
        }
        count[nearest]++;
    }
    for (int k = 0; k < data->K; k++) if (count[k] < least) least = count[k];
    ctm_arena_release(&r->scratch, mark);
    return (double)least*data->K/(double)n;
}

// The learned teacher's own 40 Heun steps against the exact flow: the yardstick for a student that has seen nothing else.
static double teacher_heun40(run *r) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    const size_t n = LAW_NOISES;
    const ctm_noise *z = &r->cfg.noise;
    ctm_real *noise = (ctm_real *)ctm_alloc(&r->scratch, 2*n*sizeof(ctm_real)), *y = (ctm_real *)ctm_alloc(&r->scratch, 2*n*sizeof(ctm_real));
    double *exact = (double *)ctm_alloc(&r->scratch, 2*n*sizeof(double));
    measure_noise(r->cfg.seed, z->sigma_max, n, 2, noise);
    measure_flow(&r->scratch, r->data.toy_set.denoiser, n, noise, z->sigma_max, 1, &z->sigma_min, 1e-6, exact);
    measure_heun(&r->ctx, r->teacher, z, 79, n, noise, y);
    const double rms = sqrt(measure_squares(n, 2, y, exact)/(double)n)/z->sigma_data;
    ctm_arena_release(&r->scratch, mark);
    return rms;
}

static void measure_run(run *r, ctm_net *net, measures *m) {
    const dataset *d = &r->data;
    measure_job job = measure_job_default(net, d->is_toy ? &d->toy_set : NULL, r->teacher, r->cfg.substeps, r->cfg.seed);
    job.samples = (int)r->set.noises;
    if (d->is_toy) {
        job.flows = job.samples/2;
        job.table = job.samples/10;
        job.per_level = job.samples/50;
        job.held_out = job.samples/50;
        measure_all(m, &r->scratch, &job);
    } else {
        job.flows = job.samples < TABLE_NOISES ? job.samples : TABLE_NOISES;
        measure_rows(m, &r->scratch, &job, d->rows, d->row, d->held, d->held_row);
        if (d->dim <= DENSITY_DIM_MAX) measure_add(m, "nll_held_out", held_out_nll(r, net));
        measure_add(m, "rows_train", (double)d->rows);
        measure_add(m, "rows_held_out", (double)d->held);
        measure_add(m, "rows_skipped", (double)d->file.skipped);
    }
    if (d->is_toy && r->teacher_net) measure_add(m, "teacher_rms_heun40", teacher_heun40(r));
    if (d->classes) {
        measure_add(m, "class_mean_rms", class_mean_rms(r, net, 1));
        measure_add(m, "class_mean_rms_without", class_mean_rms(r, net, 0));
    }
    if (r->cfg.gan) {
        if (d->is_toy) measure_add(m, "least_visited_mode", least_visited(r, net));
        measure_add(m, "disc_real", r->tr->disc_real);
        measure_add(m, "disc_fake", r->tr->disc_fake);
        measure_add(m, "lambda_gan", r->tr->lambda_gan);
    }
    measure_add(m, "train_seconds", r->seconds);
    measure_add(m, "steps_per_second", (double)(r->cfg.steps + r->teacher_steps)/r->seconds);
}

static int write_metrics(run *r, const measures *m) {
    char path[ARGS_PATH], number[ARGS_NUMBER];
    ctm_output file;
    FILE *f = args_open_atomic(&file, out_path(r, "metrics.csv", path), r->line, sizeof r->line);
    if (!f) return 0;
    fprintf(f, "name,value\n");
    for (int i = 0; i < m->n; i++) fprintf(f, "%s,%s\n", m->row[i].name, args_number(number, m->row[i].value, 6));
    return args_close_atomic(&file, r->line, sizeof r->line);
}

// One short run with a given law of (t,u,s), and the flow errors of its chains.
static int try_law(run *r, int law, long steps, const ctm_real *noise, const double *exact, double rms[MEASURE_CHAINS]) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    ctm_real *y = (ctm_real *)ctm_alloc(&r->scratch, 2*LAW_NOISES*sizeof(ctm_real));
    ctm_config cfg = r->cfg;
    args_progress line;
    ctm_trainer *tr;
    int ok = 1;
    cfg.law = law;
    cfg.gan = CTM_GAN_NONE;
    cfg.steps = steps;
    tr = trainer(r, &r->scratch, &cfg, r->teacher);
    args_progress_begin(&line, 0, steps, 0, r->set.common.quiet);
    while (ok && tr->step < steps) {
        ok = ctm_train_step(tr);
        args_progress_step(&line, tr->step, law == CTM_LAW_GAP ? "for laws.svg: gap law" : "for laws.svg: authors' law");
    }
    args_progress_end(&line, tr->step, "for laws.svg");
    for (int c = 0; c < MEASURE_CHAINS; c++) {
        measure_ctm(tr->ema[0], measure_chains()[c], LAW_NOISES, noise, y);
        rms[c] = sqrt(measure_squares(LAW_NOISES, 2, y, exact)/LAW_NOISES)/cfg.noise.sigma_data;
    }
    ctm_trainer_free(tr);
    ctm_arena_release(&r->scratch, mark);
    return ok;
}

// Both laws, equally long. Leaves s->law_steps = 0 if that makes no sense here.
static void compare_laws(run *r, story *s) {
    const long steps = r->cfg.steps/4 < (long)r->set.law_steps ? r->cfg.steps/4 : (long)r->set.law_steps;
    if (!r->data.is_toy || strcmp(r->set.teacher, "exact") != 0 || steps < 1 || r->set.method) return;
    ctm_real *noise = (ctm_real *)ctm_alloc(&r->memory, 2*LAW_NOISES*sizeof(ctm_real));
    double *exact = (double *)ctm_alloc(&r->memory, 2*LAW_NOISES*sizeof(double));
    measure_noise(r->cfg.seed, r->cfg.noise.sigma_max, LAW_NOISES, 2, noise);
    measure_flow(&r->scratch, r->data.toy_set.denoiser, LAW_NOISES, noise, r->cfg.noise.sigma_max, 1, &r->cfg.noise.sigma_min, 1e-6, exact);
    if (try_law(r, CTM_LAW_AUTHORS, steps, noise, exact, s->law_rms[0]) && try_law(r, CTM_LAW_GAP, steps, noise, exact, s->law_rms[1]))
        s->law_steps = (int)steps;
}

// Choices that mean nothing without another flag are not shown.
static int option_hidden(const void *of, const char *name) {
    const settings *s = (const settings *)of;
    return (strcmp(name, "gan-loss") == 0 && !s->gan) || (strcmp(name, "self") == 0 && strcmp(s->teacher, "none") != 0) ||
           (strcmp(name, "init") == 0 && !s->init) || (strcmp(name, "method") == 0 && !s->method) ||
           (strcmp(name, "chains") == 0 && !(s->chains > 0));
}

static int write_story(run *r, ctm_net *net, const measures *m) {
    static const char *const laws[2] = {"authors'", "gap"};
    char line[512];
    story s;
    story_init(&s, &r->scratch, net, r->set.common.out);
    s.name = r->data.name;
    s.data = r->data.is_toy ? &r->data.toy_set : NULL;
    s.teacher = r->teacher;
    s.rows = r->data.rows;
    s.row = r->data.row;
    s.column = r->data.column;
    s.mean = r->data.mean;
    s.unit = r->data.unit;
    s.m = m;
    s.losses = r->losses;
    s.seed = r->cfg.seed;
    compare_laws(r, &s);
    snprintf(line, sizeof line, "%ld training steps with batches of %d + %d in %.0f s, seed %llu, %s law, %d solver step%s a grid interval, ctm.h %s%s",
             r->cfg.steps, r->cfg.batch, r->cfg.diagonal_batch, r->seconds, (unsigned long long)r->cfg.seed, laws[r->cfg.law == CTM_LAW_GAP],
             r->cfg.substeps, r->cfg.substeps == 1 ? "" : "s", CTM_VERSION, r->set.seconds > 0 ? "; the number of steps was fitted to --seconds" : "");
    s.command = run_command(&r->scratch, &r->flags);
    s.settings = line;
    return story_write(&s) ? 1 : args_fail(r->line, sizeof r->line, "%s", s.error);
}

static void print_results(const run *r, const measures *m, double after) {
    static const char *const shown[] = {"flow_rms_onestep", "flow_median_onestep", "flow_rms_chain4", "flow_rms_chain17", "flow_rms_onestep_vs_teacher",
                                        "flow_rms_chain4_vs_teacher", "denoiser_rms", "sw2_ratio_nfe1", "sw2_ratio_nfe4", "off_support_nfe1", "nll_gap",
                                        "nll_held_out", "teacher_rms_heun40", "class_mean_rms", "class_mean_rms_without", "least_visited_mode",
                                        "disc_real", "disc_fake", "train_seconds", "steps_per_second"};
    for (int i = 0; i < ARGS_COUNT(shown); i++)
        if (measure_get(m, shown[i], -1e9) > -1e9) printf("%-28s %.4g\n", shown[i], measure_get(m, shown[i], 0));
    if (r->set.plain) printf("measures took %.1f s\nsee %s/metrics.csv\n", after, r->set.common.out);
    else              printf("measures and figures took %.1f s\nopen %s/index.html\n", after, r->set.common.out);
}

static int results(run *r, ctm_net *net) {
    measures *m = (measures *)ctm_alloc(&r->memory, sizeof *m);
    const double start = args_seconds();
    if (!save_model(r, net) || !save_samples(r, net)) return wrong(r->line);
    measure_run(r, net, m);
    if (!write_metrics(r, m)) return wrong(r->line);
    if (!r->set.plain && !write_story(r, net, m)) return wrong(r->line);
    print_results(r, m, args_seconds() - start);
    return 0;
}

// ---- points train ------------------------------------------------------------------------------------------------------

static int read_data(run *r) {
    const settings *s = &r->set;
    if (is_toy_name(s->data)) {
        data_toy(&r->data, &r->memory, s->data, (uint64_t)s->common.seed);
        return 1;
    }
    return data_table(&r->data, &r->memory, s->data, s->columns, s->label, (uint64_t)s->common.seed, r->line, sizeof r->line);
}

// Column names may hold whatever a table may: args_fail makes one line of them.
static void report_data(run *r) {
    const dataset *d = &r->data;
    if (d->is_toy) return;
    printf("%s: %lu rows for training, %lu held out, %lu skipped (a value is missing)\n", d->name, (unsigned long)d->rows, (unsigned long)d->held,
           (unsigned long)d->file.skipped);
    for (int j = 0; j < d->dim; j++) {
        args_fail(r->line, sizeof r->line, "    %-24.400s mean %-10.5g std %.5g", d->column[j], d->file.mean[j], d->file.std[j]);
        puts(r->line);
    }
    for (int k = 0; k < d->classes; k++) {
        args_fail(r->line, sizeof r->line, k ? ", %s" : "    classes: %s", d->class_name[k]);
        fputs(r->line, stdout);
    }
    if (d->classes) printf("\n");
    for (int j = 0; j < d->file.left_out; j++) {
        args_fail(r->line, sizeof r->line, "    %-24.400s left out: not a column of numbers", d->file.left_out_names[j]);
        puts(r->line);
    }
}

static void report_settings(run *r) {
    char threads[32];
    if (r->set.common.quiet) return;
    snprintf(threads, sizeof threads, "%lld threads", r->set.common.threads);
    printf("%s\nctm.h %s, seed %llu, %s, %s\n", run_command(&r->scratch, &r->flags), CTM_VERSION, (unsigned long long)r->cfg.seed,
           r->set.common.threads ? threads : "all cores", ctm_isa_name(r->ctx.isa));
    report_data(r);
    ctm_config_print(&r->cfg);
    if (r->set.seconds > 0) printf("the number of steps was fitted to --seconds: another machine or moment gives another; --steps is reproducible\n");
    fflush(stdout);
}

// A resumed run: its settings come from the checkpoint, whatever else is known of it must agree.
static int open_checkpoint(run *r) {
    char path[ARGS_PATH];
    r->from = ctm_file_read(&r->memory, out_path(r, "checkpoint.safetensors", path));
    if (!r->from) return args_fail(r->line, sizeof r->line, "--resume: %s", ctm_error(&r->ctx));
    if (!ctm_file_meta(r->from, "points.phase") || !ctm_file_meta(r->from, "points.data"))
        return args_fail(r->line, sizeof r->line, "--resume: %s: is not a checkpoint of `points train`", path);
    return restore_settings(&r->flags, r->from, &r->memory, r->line, sizeof r->line);
}

static int same_hash(run *r, const char *key, uint64_t hash, const char *what) {
    return same_hash_in(r->from, key, hash) ? 1 : args_fail(r->line, sizeof r->line, "%s: %s is not the one this run began with", r->from->path, what);
}

// The student's configuration is that of the checkpoint if it is already in training.
static int resume_config(run *r) {
    ctm_config was;
    r->seconds = run_number(r->from, "points.seconds");
    if (!(ctm_file_meta(r->from, "points.data_hash") ? same_hash(r, "points.data_hash", r->data.hash, r->data.name) :
          same_hash(r, "points.rows_hash", r->data.rows_hash, r->data.name))) return 0;
    if (!ctm_config_read(r->from, &was)) return args_fail(r->line, sizeof r->line, "%s", ctm_error(&r->ctx));
    if (was.consistency) r->cfg = was;
    return 1;
}

// What a checkpoint's configuration may ask for and this run does not have.
static int trainable(run *r) {
    const ctm_config *c = &r->cfg;
    const ctm_noise *z = r->teacher ? r->teacher->noise : NULL;
    const int still = c->self_teach == CTM_SELF_JUMP && (c->law == CTM_LAW_GAP || c->match == CTM_GLOBAL);
    if (r->from && !r->teacher && (c->diagonal == CTM_DIAG_EXACT || still))
        return args_fail(r->line, sizeof r->line, "%s: its configuration needs a teacher, and this run has none", r->from->path);
    if (r->from && z && (z->sigma_min > c->noise.sigma_min || z->sigma_max < c->noise.sigma_max))
        return args_fail(r->line, sizeof r->line, "%s: its noise levels reach beyond those of its teacher", r->from->path);
    return 1;
}

static int train_student(run *r) {
    if (!trainable(r)) return wrong(r->line);
    ctm_trainer *tr = r->tr = trainer(r, &r->memory, &r->cfg, r->teacher);
    int resumed = resume_phase(r, tr, "student"), state;
    if (resumed < 0) return wrong(r->line);
    if (resumed && !same_hash(r, "points.teacher_hash", r->teacher_hash, "the teacher")) return wrong(r->line);
    if (resumed && !r->set.common.quiet) printf("resumed after step %ld\n", tr->step);
    state = train(r, tr);
    if (state < 0) return wrong(r->line);
    if (state == 0) return run_stopped(&r->flags, &r->scratch, tr);
    run_leave_signals();               // nothing is lost any more: from here on a signal ends the program
    return results(r, tr->ema[0]);
}

static int train_run(run *r) {
    if (r->set.resume && !open_checkpoint(r)) return wrong(r->line);
    if (!read_data(r)) return wrong(r->line);
    if (!r->set.teacher) r->set.teacher = r->data.is_toy ? "exact" : "learned";
    configure(r);
    if (!find_teacher(r)) return wrong(r->line);
    if (!args_mkdir(r->set.common.out, r->line, sizeof r->line) || !run_take(&r->lock, r->set.common.out, r->line, sizeof r->line)) return wrong(r->line);
    if (!r->set.resume) run_say_earlier(r->set.common.out);
    plan_steps(r);
    if (r->from && !resume_config(r)) return wrong(r->line);
    report_settings(r);
    if (r->teacher_steps > 0) {
        const int state = learn_teacher(r);
        if (state < 1) return state < 0 ? wrong(r->line) : run_stopped(&r->flags, &r->scratch, r->tr);
    }
    return train_student(r);
}

// A word that is no toy, no file, and does not look like the name of one.
static int unknown_data(const char *data) {
    const char *near_name = args_suggest(data, toy_names(), TOY_COUNT);
    char shown[64], line[300];
    args_fail(line, sizeof line, "flag --data: found \"%s\", expected ring, grid, moons, checker, swiss, spiral, pinwheel or a CSV file%s%s%s",
              args_excerpt(data, shown, sizeof shown), near_name ? "; did you mean " : "", near_name ? near_name : "", near_name ? "?" : "");
    return misused(line);
}

// The same for a teacher.
static int unknown_teacher(const char *teacher) {
    static const char *const kinds[] = {"exact", "learned", "none"};
    const char *near_kind = args_suggest(teacher, kinds, 3);
    char shown[64], line[300];
    args_fail(line, sizeof line, "flag --teacher: found \"%s\", expected exact, learned, none or a safetensors file%s%s%s",
              args_excerpt(teacher, shown, sizeof shown), near_kind ? "; did you mean " : "", near_kind ? near_kind : "", near_kind ? "?" : "");
    return misused(line);
}

static int is_teacher_kind(const char *word) { return strcmp(word, "exact") == 0 || strcmp(word, "learned") == 0 || strcmp(word, "none") == 0; }

// Which values of --data and --teacher are files: a resumed run knows them by their hash, so that they may have moved.
static int names_file(const char *flag, const char *value) {
    return (strcmp(flag, "data") == 0 && !is_toy_name(value)) || (strcmp(flag, "teacher") == 0 && !is_teacher_kind(value));
}

// Flags that contradict each other or what exists.
static int check_settings(const settings *s) {
    if (s->teacher && !is_teacher_kind(s->teacher) && ctm_path_kind(s->teacher) == CTM_NOTHING && !strpbrk(s->teacher, "./\\")) return unknown_teacher(s->teacher);
    if (!is_toy_name(s->data) && ctm_path_kind(s->data) == CTM_NOTHING && !strpbrk(s->data, "./\\")) return unknown_data(s->data);
    if (s->label && is_toy_name(s->data) && !s->resume) return misused("flag --label: goes with --data FILE.csv");
    if (s->method && s->gan) return misused("flags --method cm and --gan: give one of them; the plain consistency model has no adversary");
    if (s->method && (s->match || s->law)) return misused("flags --method cm and --match or --law: the consistency model has its own (t,u,s)");
    if (s->chains > 0 && (s->method || s->law)) return misused("flag --chains: is a share of the gap law; neither --law authors nor --method cm has it");
    if (s->gan_loss && !s->gan && !s->resume) return misused("flag --gan-loss: goes with --gan");
    if (s->self_teach && (!s->teacher || strcmp(s->teacher, "none") != 0) && !s->resume) return misused("flag --self: goes with --teacher none");
    if (s->self_teach && s->method) return misused("flag --self: --method cm without a teacher learns from the data (x_0 + u·eps)");
    if (s->init && !s->resume && (s->teacher ? strcmp(s->teacher, "exact") == 0 || strcmp(s->teacher, "none") == 0 : is_toy_name(s->data)))
        return misused("flag --init teacher: needs a teacher that is a network: --teacher learned or a file");
    if (s->seconds > 0 && s->steps) return misused("flags --steps and --seconds: give one of them");
    if (s->seconds > 0 && s->resume) return misused("flags --seconds and --resume: the number of steps is kept in the checkpoint");
    if (s->columns && is_toy_name(s->data) && !s->resume) return misused("flag --columns: goes with --data FILE.csv");
    return 0;
}

static int train_with(run *r) {
    int status;
    ctm_init(&r->ctx);
    r->ctx.threads = (int)r->set.common.threads;
    ctm_arena_init(&r->memory, &r->ctx, "model");
    ctm_arena_init(&r->scratch, &r->ctx, "scratch");
    r->losses = (story_losses *)ctm_alloc(&r->memory, sizeof *r->losses);
    r->lock.held = -1;
    run_catch_signals();
    status = train_run(r);
    run_release(&r->lock);
    if (r->tr) ctm_trainer_free(r->tr);
    table_free(&r->data.file);
    ctm_arena_free(&r->scratch);
    ctm_arena_free(&r->memory);
    return status;
}

static int train_main(int argc, char **argv) {
    run r;
    settings *s = &r.set;
    int status;
    memset(&r, 0, sizeof r);
    s->common = args_common_defaults("out/points");
    s->data = "ring";
    s->law_steps = LAW_STEPS;
    s->noises = 100000;
    const args_option options[] = {
        {"data",      ARGS_TEXT,   &s->data,      0, 0,   NULL, "ring, grid, moons, checker, swiss, spiral, pinwheel, or a CSV file"},
        {"columns",   ARGS_TEXT,   &s->columns,   0, 0,   NULL, "columns of the CSV file, A,B,...; all columns of numbers if not given"},
        {"label",     ARGS_TEXT,   &s->label,     0, 0,   NULL, "column of the CSV file whose texts are classes to learn"},
        {"steps",     ARGS_INT,    &s->steps,     1, 1e9, NULL, "total number of training steps; the recipe's if not given"},
        {"seconds",   ARGS_REAL,   &s->seconds,   0.1, 1e7, NULL, "instead of --steps: train about so long (not reproducible)"},
        {"teacher",   ARGS_TEXT,   &s->teacher,   0, 0,   NULL, "exact (default of the toys), learned (default of tables; as many steps as the student, before it), none, or a safetensors file"},
        {"gan",       ARGS_FLAG,   &s->gan,       0, 0,   NULL, "adversarial loss in the last four tenths of the steps, every other one trains the discriminator"},
        {"gan-loss",  ARGS_CHOICE, &s->gan_loss,  0, 0,   "hinge,log,minimax", "hinge: the authors' code; log: the paper's, with a live gradient; minimax: the paper to the letter"},
        {"method",    ARGS_CHOICE, &s->method,    0, 0,   "ctm,cm", "cm: the plain consistency model; distilled from the teacher, or from the data with --teacher none"},
        {"self",      ARGS_CHOICE, &s->self_teach, 0, 0,  "solve,jump,jump-each", "with --teacher none: the student's average solves its ODE (paper), or jumps (code), in one go (then --law authors) or per grid step"},
        {"init",      ARGS_CHOICE, &s->init,      0, 0,   "random,teacher", "teacher: the student begins with its teacher's weights"},
        {"match",     ARGS_CHOICE, &s->match,     0, 0,   "soft,local,global", "u anywhere between t and s; u one grid step after t; u = s"},
        {"law",       ARGS_CHOICE, &s->law,       0, 0,   "gap,authors", "which jumps (t,u,s) are practised"},
        {"chains",    ARGS_REAL,   &s->chains,    0, 0.9, NULL, "with --law gap: share of the practised jumps that are pieces of a chain of 2 to 17 equal jumps"},
        {"resume",    ARGS_FLAG,   &s->resume,    0, 0,   NULL, "go on from checkpoint.safetensors in --out"},
        {"stop-at",   ARGS_INT,    &s->stop_at,   1, 1e9, NULL, "stop after this step as if interrupted; --resume goes on"},
        {"save-every", ARGS_INT,   &s->save_every, 1, 1e9, NULL, "steps between two checkpoints; one every ten seconds if not given"},
        {"batch",     ARGS_INT,    &s->batch,     1, 65536, NULL, "points per step; the recipe's if not given"},
        {"hidden",    ARGS_INT,    &s->hidden,    1, 4096, NULL, "width of the network; the recipe's if not given"},
        {"layers",    ARGS_INT,    &s->layers,    1, 64,  NULL, "depth of the network; the recipe's if not given"},
        {"lr",        ARGS_REAL,   &s->lr,        1e-9, 10, NULL, "learning rate; the recipe's if not given"},
        {"plain",     ARGS_FLAG,   &s->plain,     0, 0,   NULL, "no figures and no index.html"},
        {"law-steps", ARGS_INT,    &s->law_steps, 0, 1e9, NULL, "steps of each of the two short runs for laws.svg, at most a quarter of --steps; 0: no such figure"},
        {"noises",    ARGS_INT,    &s->noises,    1000, 1e7, NULL, "starting noises for the measures; half of them are behind the errors"},
        ARGS_COMMON_OUT(s->common, "folder where results go")
    };
    status = args_parse("points", "points [train] [flags]      (also: points sample --help, points loglik --help)", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_exit_status(status);
    if (s->self_teach == 1 && s->law == 0) {           // the gap law has u = s: one jump there is the target itself, and teaches nothing
        if (args_given("law", argc, argv)) return misused("flags --self jump and --law gap: with u = s the jump would be its own target; use --law authors");
        s->law = 1;
    }
    status = check_settings(s);
    if (status) return status;
    r.flags.program = "points";
    r.flags.kept = kept_flags;
    r.flags.kept_count = ARGS_COUNT(kept_flags);
    r.flags.option = options;
    r.flags.options = ARGS_COUNT(options);
    r.flags.argc = argc;
    r.flags.argv = argv;
    r.flags.names_file = names_file;
    r.flags.hidden = option_hidden;
    r.flags.settings = s;
    if (!run_check_texts(&r.flags, r.line, sizeof r.line)) return misused(r.line);
    return train_with(&r);
}

// ---- points sample -----------------------------------------------------------------------------------------------------

enum { BY_GAMMA, BY_EXACT, BY_ONESTEP, BY_CM, BY_HEUN, BY_EULER };

typedef struct sampling {
    args_common common;
    const char *weights, *noise, *class_name;
    long long   n, nfe;
    double      gamma, guidance;
    int         sampler, form;
    int        *label;                  // the class of every row, all the same; NULL: none
    ctm_net    *net;
    double     *ts;                     // levels
    int         jumps;
    ctm_rng     rng;
    npy_array   file;                   // of --noise
    size_t      rows;
} sampling;

// Karras levels from sigma_max to sigma_min; Heun's go on to 0, where its last step is Euler's.
static void sampling_levels(sampling *q, ctm_arena *a) {
    const ctm_noise *z = &q->net->noise;
    q->jumps = q->sampler == BY_HEUN ? (int)(q->nfe + 1)/2 : q->sampler == BY_ONESTEP ? 1 : (int)q->nfe;
    q->ts = (double *)ctm_alloc(a, ((size_t)q->jumps + 2)*sizeof(double));
    if (q->sampler != BY_HEUN) ctm_karras_times(z, q->jumps + 1, q->ts);
    else {
        q->ts[0] = z->sigma_max;
        if (q->jumps > 1) ctm_karras_times(z, q->jumps, q->ts);
        q->ts[q->jumps] = 0;
    }
}

// Noise for the jumps of one piece of the rows, if the file holds it: [jump,rows,dim] cut from [1+jumps,n,dim].
static const ctm_real *noise_of_piece(const sampling *q, ctm_arena *a, size_t first, size_t rows) {
    const size_t dim = (size_t)q->net->dim;
    ctm_real *out;
    if (q->file.ndim != 3 || q->jumps < 2) return NULL;
    out = (ctm_real *)ctm_alloc(a, (size_t)(q->jumps - 1)*rows*dim*sizeof *out);
    for (int j = 1; j < q->jumps; j++)
        for (size_t i = 0; i < rows*dim; i++) out[(size_t)(j - 1)*rows*dim + i] = (ctm_real)q->file.data[((size_t)j*q->rows + first)*dim + i];
    return out;
}

// A measure_fn: the samples of rows first, first + 1, ...
static ctm_tensor *sample_piece(ctm_tape *tp, ctm_tensor *x, size_t first, const void *arg) {
    const sampling *q = (const sampling *)arg;
    ctm_sampler how = ctm_sampler_default();
    const double w = q->label ? q->guidance : 0;
    const int by_class = q->net->classes > 0;
    tp->rows.label = q->label;
    if (q->sampler == BY_HEUN || q->sampler == BY_EULER) {
        const ctm_denoiser *D = by_class ? ctm_guided_denoiser(tp->arena, q->net, w) : ctm_net_denoiser(tp->arena, q->net);
        return q->sampler == BY_HEUN ? ctm_sample_heun(tp, D, x, q->jumps, q->ts) : ctm_sample_euler(tp, D, x, q->jumps, q->ts);
    }
    how.gamma = q->sampler == BY_GAMMA ? q->gamma : q->sampler == BY_CM ? 1 : 0;
    how.form = q->form == 0 ? CTM_FORM_PAPER : CTM_FORM_AUTHORS;
    how.rng = &q->rng;
    how.first_row = first;
    how.noise = noise_of_piece(q, tp->arena, first, (size_t)x->shape[0]);
    return ctm_sample_gamma(tp, by_class ? ctm_guided_jump(tp->arena, q->net, w) : ctm_net_jump(tp->arena, q->net), x, q->jumps, q->ts, &how);
}

// The starting points: sigma_max times unit noise, from the file or from a stream of the seed.
static ctm_real *sampling_start(sampling *q, ctm_arena *a, char *err, size_t errlen) {
    const size_t dim = (size_t)q->net->dim;
    const ctm_rng rng = ctm_stream((uint64_t)q->common.seed, "samples");
    size_t where;
    ctm_real *x;
    q->rows = (size_t)q->n;
    if (q->noise) {
        if (!npy_read_f32(q->noise, &q->file, err, errlen)) return NULL;
        if (q->file.ndim < 2 || q->file.ndim > 3 || q->file.shape[q->file.ndim - 1] != dim || q->file.count == 0) {
            args_fail(err, errlen, "%s: found an array of %d dimensions, the last of length %lu; expected [n,%lu] or [jumps,n,%lu] with n > 0", q->noise,
                      q->file.ndim, q->file.ndim ? (unsigned long)q->file.shape[q->file.ndim - 1] : 0ul, (unsigned long)dim, (unsigned long)dim);
            return NULL;
        }
        if (!npy_all_finite(&q->file, &where)) {
            args_fail(err, errlen, "%s: number %lu is not finite", q->noise, (unsigned long)where);
            return NULL;
        }
        if (q->file.ndim == 3 && q->file.shape[0] < (size_t)q->jumps) {
            args_fail(err, errlen, "%s: found noise for %lu jumps, expected %d", q->noise, (unsigned long)q->file.shape[0], q->jumps);
            return NULL;
        }
        q->rows = q->file.shape[q->file.ndim - 2];
    }
    x = (ctm_real *)ctm_alloc(a, q->rows*dim*sizeof *x);
    if (!q->noise) ctm_normals(&rng, 0, 0, q->rows*dim, x);
    for (size_t i = 0; i < q->rows*dim; i++)
        x[i] = (ctm_real)(q->net->noise.sigma_max*(q->noise ? (double)q->file.data[i] : (double)x[i]));
    return x;
}

// .npy: standardised, float32. .csv: the data's own units.
static int write_points(const char *path, ctm_arena *a, const dataset *units, size_t n, const ctm_real *x, char *err, size_t errlen) {
    const int dim = units->dim;
    if (ends_with(path, ".npy")) {
        const size_t shape[2] = {n, (size_t)dim};
        float *f = (float *)ctm_alloc(a, n*(size_t)dim*sizeof *f);
        for (size_t i = 0; i < n*(size_t)dim; i++) f[i] = (float)x[i];
        return npy_write_f32(path, 2, shape, f, err, errlen);
    }
    return write_own_units(path, a, units, n, x, err, errlen);
}

// A network of points from the file, or NULL with a line.
static ctm_net *load_points(ctm_arena *a, const char *path, char *err, size_t errlen) {
    ctm_net *net = ctm_load(a, path, NULL);
    if (!net) args_fail(err, errlen, "%s", ctm_error(a->ctx));
    else if (net->size) {
        args_fail(err, errlen, "%s: is a model of images of %d x %d, expected one of points", path, net->size, net->size);
        return NULL;
    }
    return net;
}

// --class NAME as labels for `rows` rows, the most that are worked on at once; without it NULL. 0 if there is no such class.
static int choose_class(int **label, int rows, const char *name, ctm_arena *a, const dataset *units, const char *weights, char *err, size_t errlen) {
    int k = 0;
    size_t at = 0;
    char names[300] = "";
    *label = NULL;
    if (!name) return 1;
    if (!units->classes) return args_fail(err, errlen, "%s: was trained without --label: it has no classes", weights);
    while (k < units->classes && strcmp(units->class_name[k], name) != 0) k++;
    if (k == units->classes) {
        for (int i = 0; i < units->classes && at < sizeof names; i++)
            at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "", units->class_name[i]);
        return args_fail(err, errlen, "%s: has no class \"%.60s\"; it knows %s", weights, name, names);
    }
    *label = (int *)ctm_alloc(a, (size_t)rows*sizeof(int));
    for (int i = 0; i < rows; i++) (*label)[i] = k;
    return 1;
}

static int sample_run(sampling *q, ctm_ctx *ctx, ctm_arena *a) {
    char err[600];
    dataset units;
    const ctm_file *f = ctm_file_read(a, q->weights);
    ctm_real *x;
    memset(&units, 0, sizeof units);
    if (!f) return wrong(ctm_error(ctx));
    q->net = load_points(a, q->weights, err, sizeof err);
    if (!q->net) return wrong(err);
    if (!q->net->with_s && q->sampler != BY_HEUN && q->sampler != BY_EULER) {
        args_fail(err, sizeof err, "%s: is a teacher, a network without s; it cannot jump: use --sampler heun or euler", q->weights);
        return wrong(err);
    }
    if (!units_of_file(&units, a, f, q->net->dim, err, sizeof err)) return wrong(err);
    if (!classes_of_file(&units, a, f, q->net->classes, err, sizeof err)) return wrong(err);
    if (!choose_class(&q->label, MEASURE_CHUNK, q->class_name, a, &units, q->weights, err, sizeof err)) return wrong(err);
    sampling_levels(q, a);
    q->rng = ctm_stream((uint64_t)q->common.seed, "sample.gamma");
    x = sampling_start(q, a, err, sizeof err);
    if (!x) return wrong(err);
    measure_map(ctx, sample_piece, q, q->rows, q->net->dim, x, x);
    if (!write_points(q->common.out, a, &units, q->rows, x, err, sizeof err)) return wrong(err);
    if (!q->common.quiet)
        printf("%lu samples in %s%s\n", (unsigned long)q->rows, q->common.out,
               ends_with(q->common.out, ".npy") ? ", standardised: (value - mean)/unit; .csv is in the data's units" : "");
    return 0;
}

static int check_sampling(const sampling *q, int argc, char **argv) {
    char line[600];
    if (!q->weights) return misused("flag --weights: is missing; expected a safetensors file");
    if (q->sampler == BY_HEUN && q->nfe%2 == 0) {
        snprintf(line, sizeof line, "flag --nfe: found %lld, but Heun needs an odd number: two evaluations a step, one for the last", q->nfe);
        return misused(line);
    }
    if (q->sampler == BY_ONESTEP && q->nfe != 1) return misused("flag --nfe: --sampler onestep takes one evaluation");
    if (q->sampler != BY_GAMMA && args_given("gamma", argc, argv)) return misused("flag --gamma: goes with --sampler gamma");
    if (!q->class_name && args_given("guidance", argc, argv)) return misused("flag --guidance: goes with --class");
    if (q->noise && args_given("n", argc, argv)) return misused("flags --n and --noise: give one of them");
    if (!ends_with(q->common.out, ".csv") && !ends_with(q->common.out, ".npy")) {
        args_fail(line, sizeof line, "flag --out: found \"%.400s\", expected a name that ends in .csv or .npy", q->common.out);
        return misused(line);
    }
    return 0;
}

static int sample_main(int argc, char **argv) {
    sampling q;
    ctm_ctx ctx;
    ctm_arena a;
    int status;
    memset(&q, 0, sizeof q);
    q.common = args_common_defaults("samples.csv");
    q.n = 1000;
    q.nfe = 1;
    q.guidance = 1;
    const args_option options[] = {
        {"weights",    ARGS_TEXT,   &q.weights, 0, 0,    NULL, "model.safetensors of a training folder"},
        {"n",          ARGS_INT,    &q.n,       1, 1e8,  NULL, "how many samples"},
        {"noise",      ARGS_TEXT,   &q.noise,   0, 0,    NULL, "start from this .npy file: float32 [n,d] of unit variance, or [jumps,n,d] with the noise of all jumps"},
        {"sampler",    ARGS_CHOICE, &q.sampler, 0, 0,    "gamma,exact,onestep,cm,heun,euler",
         "gamma: jumps with --gamma; exact: gamma 0; onestep; cm: gamma 1; heun, euler: small steps along the ODE of the network at s = t"},
        {"nfe",        ARGS_INT,    &q.nfe,     1, 1e6,  NULL, "network evaluations per sample (heun: an odd number)"},
        {"gamma",      ARGS_REAL,   &q.gamma,   0, 1,    NULL, "share of fresh noise: 0 none, 1 all of it"},
        {"gamma-form", ARGS_CHOICE, &q.form,    0, 0,    "paper,authors", "how the level below the next one is chosen"},
        {"class",      ARGS_TEXT,   &q.class_name, 0, 0, NULL, "of a model trained with --label: samples of this class only"},
        {"guidance",   ARGS_REAL,   &q.guidance, 0, 100, NULL, "with --class: 1 the class as learned, more exaggerates it, 0 ignores it"},
        ARGS_COMMON_OUT(q.common, "F.csv: in the data's units; F.npy: standardised, (value - mean)/unit, float32 [n,d]; mean and unit of every "
                        "column are in the metadata of --weights")
    };
    status = args_parse("points", "points sample --weights W.safetensors [flags]", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_exit_status(status);
    status = check_sampling(&q, argc, argv);
    if (status) return status;
    ctm_init(&ctx);
    ctx.threads = (int)q.common.threads;
    ctm_arena_init(&a, &ctx, "sample");
    status = sample_run(&q, &ctx, &a);
    npy_free(&q.file);
    ctm_arena_free(&a);
    return status;
}

// ---- points loglik -----------------------------------------------------------------------------------------------------

// "A","B","C": the columns that the model was trained on, as table_read_any_csv wants them.
static char *column_list(ctm_arena *a, const dataset *units) {
    size_t room = 1;
    char *list, *p;
    for (int j = 0; j < units->dim; j++) room += 2*strlen(units->column[j]) + 3;
    p = list = (char *)ctm_alloc(a, room);
    for (int j = 0; j < units->dim; j++) {
        if (j) *p++ = ',';
        *p++ = '"';
        for (const char *c = units->column[j]; *c; c++) {
            if (*c == '"') *p++ = '"';
            *p++ = *c;
        }
        *p++ = '"';
    }
    *p = '\0';
    return list;
}

// A line for every row of the table; that of a row with a missing value is "", since an empty line would be no row.
static int write_logp(const char *path, const table *t, const double *logp, char *err, size_t errlen) {
    ctm_output file;
    FILE *f = args_open_atomic(&file, path, err, errlen);
    if (!f) return 0;
    fputs("logp\n", f);
    for (size_t row = 0, i = 0; row < t->n + t->skipped; row++) {
        if (i < t->n && t->at[i] == row) table_write_number(f, logp[i++]);
        else fputs("\"\"", f);
        fputc('\n', f);
    }
    return args_close_atomic(&file, err, errlen);
}

// ln p of every row in its own units: that of the standardised row, minus the logarithms of the units. With a class, ln p(row | class).
static int loglik_run(ctm_ctx *ctx, ctm_arena *a, const char *weights, const char *data, const char *class_name, const args_common *common) {
    const ctm_file *f = ctm_file_read(a, weights);
    ctm_net *net;
    dataset units;
    char err[600];
    double *logp, sum = 0;
    ctm_real *x;
    table t;
    int ok, *label;
    memset(&units, 0, sizeof units);
    if (!f) return wrong(ctm_error(ctx));
    net = load_points(a, weights, err, sizeof err);
    if (!net) return wrong(err);
    if (!units_of_file(&units, a, f, net->dim, err, sizeof err)) return wrong(err);
    if (!classes_of_file(&units, a, f, net->classes, err, sizeof err)) return wrong(err);
    if (!choose_class(&label, MEASURE_LOGLIK_ROWS, class_name, a, &units, weights, err, sizeof err)) return wrong(err);
    if (!table_read_any_csv(data, column_list(a, &units), NULL, &t, err, sizeof err)) return wrong(err);
    x = (ctm_real *)ctm_alloc(a, t.n*(size_t)t.d*sizeof *x);
    logp = (double *)ctm_alloc(a, t.n*sizeof *logp);
    for (size_t i = 0; i < t.n*(size_t)t.d; i++) {
        const size_t j = i%(size_t)t.d;
        x[i] = (ctm_real)((t.data[i] - units.mean[j])/units.unit[j]);
    }
    measure_loglik(net, label, t.n, x, 80, logp);
    for (size_t i = 0; i < t.n; i++) {
        for (int j = 0; j < t.d; j++) logp[i] -= log(units.unit[j]);
        sum += logp[i];
    }
    ok = write_logp(common->out, &t, logp, err, sizeof err);
    if (ok && !common->quiet)
        printf("%lu rows (%lu skipped), mean log-density %.5g nats, in %s\n", (unsigned long)t.n, (unsigned long)t.skipped, sum/(double)t.n, common->out);
    table_free(&t);
    return ok ? 0 : wrong(err);
}

static int loglik_main(int argc, char **argv) {
    const char *weights = NULL, *data = NULL, *class_name = NULL;
    args_common common = args_common_defaults("loglik.csv");
    ctm_ctx ctx;
    ctm_arena a;
    int status;
    const args_option options[] = {
        {"weights", ARGS_TEXT, &weights, 0, 0, NULL, "model.safetensors of a training folder"},
        {"data",    ARGS_TEXT, &data,    0, 0, NULL, "CSV file with the columns that the model was trained on"},
        {"class",   ARGS_TEXT, &class_name, 0, 0, NULL, "of a model trained with --label: the density of this class; without it that of all"},
        ARGS_COMMON_OUT(common, "CSV file to write: a line for every row of --data, empty (\"\") if a value is missing in it")
    };
    status = args_parse("points", "points loglik --weights W.safetensors --data FILE.csv [--class NAME] --out F.csv", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_exit_status(status);
    if (!weights) return misused("flag --weights: is missing; expected a safetensors file");
    if (!data) return misused("flag --data: is missing; expected a CSV file");
    ctm_init(&ctx);
    ctx.threads = (int)common.threads;
    ctm_arena_init(&a, &ctx, "loglik");
    status = loglik_run(&ctx, &a, weights, data, class_name, &common);
    ctm_arena_free(&a);
    return status;
}

int main(int argc, char **argv) {
    args_utf8(&argc, &argv);
    const int command = args_command("points", "train,sample,loglik", &argc, &argv);
    const int status = command < 0 ? 2 : command == 1 ? sample_main(argc, argv) : command == 2 ? loglik_main(argc, argv) : train_main(argc, argv);
    return args_finish("points", status);
}

/* What it prints (42000 steps; the settings in the middle are ctm_config_print's)

   $ build/points train --data ring --out out/demo
   build/points train --data ring --teacher exact --match soft --law gap --seed 1 --steps 42000 --out out/demo
   ctm.h 0.2.0, seed 1, all cores, avx512
   noise.sigma_min    0.002      noise.sigma_max    80         noise.sigma_data   0.5        noise.rho          7
   ...
   flow_rms_onestep             0.007274
   flow_median_onestep          0.002363
   flow_rms_chain4              0.007213
   flow_rms_chain17             0.008236
   flow_rms_onestep_vs_teacher  0.006562
   denoiser_rms                 0.001542
   sw2_ratio_nfe1               0.9851
   sw2_ratio_nfe4               1.01
   off_support_nfe1             0.00381
   nll_gap                      0.00419
   train_seconds                ...
   steps_per_second             ...
   measures and figures took ... s
   open out/demo/index.html

   and leaves in out/demo: index.html; samples, flow, triangle, score, gamma, nfe, laws and loss.svg; metrics.csv,
   loss.csv, samples.csv; model.safetensors, checkpoint.safetensors. More to try:

   $ build/points --data moons --steps 200 --stop-at 100 --out out/moons && build/points --resume --out out/moons
   $ build/points --data geyser.csv --columns duration,waiting --out out/geyser
   $ build/points sample --weights out/geyser/model.safetensors --n 5 --nfe 4 --out five.csv
   5 samples in five.csv
   $ build/points loglik --weights out/geyser/model.safetensors --data geyser.csv --out logp.csv
   $ build/points --data penguins.csv --columns bill_length_mm,bill_depth_mm --label species --out out/penguins
   $ build/points sample --weights out/penguins/model.safetensors --class Adelie --guidance 1.5 --n 5 --out adelie.csv
   $ build/points --data ring --gan --out out/gan                       (no better on points: PAPER_NOTES.md)
   $ build/points --data ring --method cm --out out/cm                  (the consistency model, for comparison)
   $ build/points sample --weights out/demo/model.safetensors --gamma 2
   points: flag --gamma: found "2", expected a number from 0 to 1 */
