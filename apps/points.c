/* points.c - consistency trajectory models of points: train, look, measure, sample

   points [train] --data ring|grid|moons|checker|swiss|spiral|pinwheel|FILE.csv --recipe points|paper|authors|cd|ct --out DIR
       trains a model and leaves in DIR: index.html (the story, with every figure), *.svg, metrics.csv, loss.csv,
       samples.csv, model.safetensors, checkpoint.safetensors. An interrupted run goes on with --resume, bit for bit.
       --label COL learns the classes of a table's column; every setting of ctm.h is a flag: --lr 0.001, --times local, --gan hinge.
   points sample --weights DIR/model.safetensors --n 1000 --out F.csv
       samples from a trained model, in the units of its data (--out F.npy: standardised); --class NAME of one class,
       --guidance W beyond it.
   points loglik --weights DIR/model.safetensors --data FILE.csv [--class NAME] --out F.csv
       the log-density of given rows under the model, a line for each; --class NAME of one class.

   Exit status: 0 done; 1 the world is wrong (a file, the disk), one line on stderr says what; 2 wrong usage; 3 a signal has
   stopped the training, which --resume takes up again.

   How to read this file: the chapters are data, the run, results, train, sample, loglik. The method itself is ctm.h, the
   training loop train.h; the pictures are story.h, the measures measure.h, the toy data toys.h. */

#include "args.h"
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include "toys.h"
#include "measure.h"
#include "plot.h"
#include "table.h"
#include "train.h"
#include "sample.h"
#include "story.h"

enum {
    SAMPLE_ROWS     = 2000,     // rows of samples.csv,
    SAMPLE_JUMPS    = 4,        // made with so many jumps
    COMPARE_STEPS   = 3000,     // of each of the two short runs that compare the paper's recipe with ours
    COMPARE_NOISES  = 10000,    // measured on so many starting noises
    TABLE_ROWS_MIN  = 10,       // fewer make no model
    TABLE_NOISES    = 5000,     // starting noises for the measures of tables
    DENSITY_DIM_MAX = 16,       // the likelihood needs a backward pass for every column
    CLASS_SAMPLES   = 1000      // per class, for the measure of classes
};
#define LABEL_DROPOUT 0.1           // share of rows trained without their class

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
    int          classes, *label;       // [rows]; 0 and NULL without --label
    const char **class_name;            // [classes]
} dataset;

static int is_toy_name(const char *name) {
    for (int i = 0; i < TOY_COUNT; i++)
        if (strcmp(name, toy_names()[i]) == 0) return 1;
    return 0;
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
    free(d->file.data);                 // the rows are enough from here on
    d->file.data = NULL;
    if (label) {
        d->classes = f->classes;
        d->class_name = (const char **)ctm_alloc(a, (size_t)f->classes*sizeof *d->class_name);
        for (int k = 0; k < f->classes; k++) d->class_name[k] = f->class_names[k];
        d->label = (int *)ctm_alloc(a, f->n*sizeof(int));
        for (size_t i = 0; i < f->n; i++) d->label[i] = f->label[order[i]];
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

// ---- The run -----------------------------------------------------------------------------------------------------------

typedef struct points {
    run         r;
    dataset     data;
    const char *name, *columns, *label;            // --data, --columns, --label
    long long   compare_steps, noises;
    int         plain, init;
} points;

// The flags that make a run what it is: kept in its checkpoint, restored by --resume, printed on its page. So are all settings.
static const char *const kept_flags[] = {"data", "columns", "label", "teacher", "teacher-steps", "guidance", "recipe", "init", "seed", NULL};

// A ctm_draw_fn: a toy's next point, or one of the rows, all equally likely.
static void draw_point(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    const dataset *d = &((points *)user)->data;
    if (d->is_toy) { toy_draw((void *)&d->toy_set, rng, step, index, x0); return; }
    const size_t i = (size_t)(ctm_uniform(rng, step, index)*(double)d->rows);
    memcpy(x0, d->row + i*(size_t)d->dim, (size_t)d->dim*sizeof *x0);
}

// A ctm_label_fn: the class of the row that draw_point gives.
static int point_label(void *user, const ctm_rng *rng, uint64_t step, uint64_t index) {
    const dataset *d = &((points *)user)->data;
    return d->label[(size_t)(ctm_uniform(rng, step, index)*(double)d->rows)];
}

static int open_data(run *r) {
    points *p = (points *)r;
    r->teacher_default = is_toy_name(p->name) ? "exact" : "learned";
    if (is_toy_name(p->name)) data_toy(&p->data, &r->memory, p->name, (uint64_t)r->common.seed);
    else if (!data_table(&p->data, &r->memory, p->name, p->columns, p->label, (uint64_t)r->common.seed, r->line, sizeof r->line)) return run_wrong(r);
    r->data_hash = p->data.hash;
    return 0;
}

// What a data set wants other than its recipe. The moons bend their paths sharply at the tips: more solver steps. A learned teacher
// is dear, and has errors of its own: fewer.
static int adapt(run *r, ctm_config *cfg) {
    const dataset *d = &((points *)r)->data;
    const int ours = strcmp(cfg->recipe, "points") == 0;
    cfg->steps = strcmp(d->name, "ring") == 0 || strcmp(d->name, "grid") == 0 ? 42000 : strcmp(d->name, "moons") == 0 ? 28000 : d->is_toy ? 34000 : 10000;
    if (ours && strcmp(d->name, "moons") == 0) cfg->substeps = 6;
    if (ours && !d->is_toy) cfg->substeps = 1;
    cfg->classes = d->classes;
    cfg->label_dropout = d->classes ? LABEL_DROPOUT : 0;
    return 0;
}

static int ready(run *r) {
    const dataset *d = &((points *)r)->data;
    return r->cfg.classes == d->classes ? 0 : run_misused(r, "flag --classes: the classes are those of --label");
}

// Without a teacher the data are the only source of truth: full weight.
static void untaught(run *r, ctm_config *cfg) {
    (void)r;
    if (cfg->aim != ctm_aim_teacher) return;
    cfg->aim = ctm_aim_data;
    cfg->lambda_dsm = 1;
}

static ctm_net *network(run *r, ctm_arena *a, const ctm_config *cfg) {
    const points *p = (const points *)r;
    ctm_net *net = ctm_mlp(a, cfg, p->data.dim, cfg->times != NULL);
    if (p->init && cfg->times && r->teacher_net) ctm_net_copy_matching(net, r->teacher_net);
    return net;
}

// Of a teacher from a file: its data must be this data, in the same units.
static int teacher_fits(run *r, const ctm_file *f, const ctm_net *net) {
    const dataset *d = &((points *)r)->data;
    dataset other;
    memset(&other, 0, sizeof other);
    if (net->dim != d->dim) return args_fail(r->line, sizeof r->line, "%s: is a teacher of %d columns, but the data has %d", f->path, net->dim, d->dim);
    if (net->classes && net->classes != d->classes)
        return args_fail(r->line, sizeof r->line, "%s: is a teacher of %d classes, but the data has %d", f->path, net->classes, d->classes);
    if (!units_of_file(&other, &r->memory, f, net->dim, r->line, sizeof r->line)) return 0;
    for (int j = 0; j < net->dim; j++)
        if (fabs(other.mean[j] - d->mean[j]) > 1e-6*d->unit[j] || fabs(other.unit[j]/d->unit[j] - 1) > 1e-6)
            return args_fail(r->line, sizeof r->line, "%s: was trained on other data: its column %d (\"%s\") has mean %g and unit %g, here they are %g and %g",
                             f->path, j + 1, other.column[j], other.mean[j], other.unit[j], d->mean[j], d->unit[j]);
    return 1;
}

static const ctm_denoiser *exact_teacher(run *r) {
    const dataset *d = &((points *)r)->data;
    const size_t n = d->rows*(size_t)d->dim;
    if (d->classes) {
        args_fail(r->line, sizeof r->line, "--teacher exact: knows nothing of classes; with --label use learned, none, or a file");
        return NULL;
    }
    if (d->is_toy) return d->toy_set.denoiser;
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    double *rows = (double *)ctm_alloc(&r->scratch, n*sizeof(double));
    for (size_t i = 0; i < n; i++) rows[i] = (double)d->row[i];
    const ctm_denoiser *D = ctm_empirical(&r->memory, d->dim, (int)d->rows, rows);
    ctm_arena_release(&r->scratch, mark);
    return D;
}

static void notes_of(run *r, notes *t) { note_units(t, &((points *)r)->data); }

// Column names may hold whatever a table may: args_fail makes one line of them.
static void report(run *r) {
    const dataset *d = &((points *)r)->data;
    if (!d->is_toy)
        printf("%s: %lu rows for training, %lu held out, %lu skipped (a value is missing)\n", d->name, (unsigned long)d->rows, (unsigned long)d->held,
               (unsigned long)d->file.skipped);
    for (int j = 0; !d->is_toy && j < d->dim; j++) {
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
    ctm_config_print(&r->cfg);
}

// ---- Results -----------------------------------------------------------------------------------------------------------

static int save_samples(run *r, ctm_net *net) {
    const dataset *d = &((points *)r)->data;
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    const size_t n = (size_t)SAMPLE_ROWS*(size_t)net->dim;
    ctm_real *x = (ctm_real *)ctm_alloc(&r->scratch, n*sizeof(ctm_real));
    const ctm_rng rng = ctm_stream(r->cfg.seed, "samples");
    char path[ARGS_PATH];
    ctm_normals(&rng, 0, 0, n, x);
    for (size_t i = 0; i < n; i++) x[i] *= (ctm_real)net->noise.sigma_max;
    ctm_sample_points(net, x, SAMPLE_ROWS, SAMPLE_JUMPS, 0, NULL);
    const int ok = write_own_units(run_path(r, "samples.csv", path), &r->scratch, d, SAMPLE_ROWS, x, r->line, sizeof r->line);
    ctm_arena_release(&r->scratch, mark);
    return ok;
}

// Minus the mean log-density of held-out rows.
static double held_out_nll(run *r, ctm_net *net) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    const dataset *d = &((points *)r)->data;
    const size_t n = d->held < 2000 ? d->held : 2000;
    double *logp = (double *)ctm_alloc(&r->scratch, n*sizeof(double)), sum = 0;
    measure_loglik(net, NULL, n, d->held_row, 80, logp);
    for (size_t i = 0; i < n; i++) sum -= logp[i];
    ctm_arena_release(&r->scratch, mark);
    return sum/(double)n;
}

// How well the classes are told apart: RMS over classes and columns of (mean of one-jump samples of the class) - (mean of its
// rows), over the data's standard deviation. And the same for samples without a class, which should be far worse.
static double class_mean_rms(run *r, ctm_net *net, int with_class) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    const dataset *d = &((points *)r)->data;
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
    const toy *data = &((points *)r)->data.toy_set;
    const size_t n = COMPARE_NOISES;
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
    const size_t n = COMPARE_NOISES;
    const ctm_noise *z = &r->cfg.noise;
    ctm_real *noise = (ctm_real *)ctm_alloc(&r->scratch, 2*n*sizeof(ctm_real)), *y = (ctm_real *)ctm_alloc(&r->scratch, 2*n*sizeof(ctm_real));
    double *exact = (double *)ctm_alloc(&r->scratch, 2*n*sizeof(double));
    measure_noise(r->cfg.seed, z->sigma_max, n, 2, noise);
    measure_flow(&r->scratch, ((points *)r)->data.toy_set.denoiser, n, noise, z->sigma_max, 1, &z->sigma_min, 1e-6, exact);
    measure_heun(&r->ctx, r->teacher, z, 79, n, noise, y);
    const double rms = sqrt(measure_squares(n, 2, y, exact)/(double)n)/z->sigma_data;
    ctm_arena_release(&r->scratch, mark);
    return rms;
}

static void measure_run(run *r, ctm_net *net, measures *m) {
    const dataset *d = &((points *)r)->data;
    measure_job job = measure_job_default(net, d->is_toy ? &d->toy_set : NULL, r->teacher, r->cfg.substeps, r->cfg.seed);
    job.samples = (int)((points *)r)->noises;
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
    measure_add(m, "steps_per_second", (double)(r->cfg.steps + (long)r->teacher_steps)/r->seconds);
}

// One short run by a recipe, and the flow errors of its chains.
static int try_recipe(run *r, ctm_config cfg, long steps, const ctm_real *noise, const double *exact, double rms[MEASURE_CHAINS]) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    ctm_real *y = (ctm_real *)ctm_alloc(&r->scratch, 2*COMPARE_NOISES*sizeof(ctm_real));
    char text[80];
    args_progress line;
    ctm_trainer *tr;
    int ok = 1;
    cfg.seed = r->cfg.seed;
    cfg.steps = steps;
    tr = run_trainer(r, &r->scratch, &cfg, r->teacher);
    snprintf(text, sizeof text, "for recipes.svg: %s", cfg.recipe);
    args_progress_begin(&line, 0, steps, 0, r->common.quiet);
    while (ok && tr->step < steps) {
        ok = ctm_train_step(tr);
        args_progress_step(&line, tr->step, text);
    }
    args_progress_end(&line, tr->step, text);
    for (int c = 0; c < MEASURE_CHAINS; c++) {
        measure_ctm(tr->ema[0], measure_chains()[c], COMPARE_NOISES, noise, y);
        rms[c] = sqrt(measure_squares(COMPARE_NOISES, 2, y, exact)/COMPARE_NOISES)/cfg.noise.sigma_data;
    }
    ctm_trainer_free(tr);
    ctm_arena_release(&r->scratch, mark);
    return ok;
}

// The paper's recipe and ours, equally long and with nothing changed by flags. Leaves s->compare_steps = 0 if that makes no sense here.
static void compare_recipes(run *r, story *s) {
    const points *p = (const points *)r;
    const long steps = r->cfg.steps/4 < (long)p->compare_steps ? r->cfg.steps/4 : (long)p->compare_steps;
    const ctm_noise *z = &r->cfg.noise;
    if (!p->data.is_toy || !run_teacher_is(r, "exact") || steps < 1) return;
    ctm_real *noise = (ctm_real *)ctm_alloc(&r->memory, 2*COMPARE_NOISES*sizeof(ctm_real));
    double *exact = (double *)ctm_alloc(&r->memory, 2*COMPARE_NOISES*sizeof(double));
    measure_noise(r->cfg.seed, z->sigma_max, COMPARE_NOISES, 2, noise);
    measure_flow(&r->scratch, p->data.toy_set.denoiser, COMPARE_NOISES, noise, z->sigma_max, 1, &z->sigma_min, 1e-6, exact);
    if (try_recipe(r, ctm_recipe_paper(), steps, noise, exact, s->recipe_rms[0]) && try_recipe(r, ctm_recipe_points(), steps, noise, exact, s->recipe_rms[1]))
        s->compare_steps = (int)steps;
}

static int write_story(run *r, ctm_net *net, const measures *m) {
    const dataset *d = &((points *)r)->data;
    char line[512];
    story s;
    story_init(&s, &r->scratch, net, r->common.out);
    s.name = d->name;
    s.recipe = r->cfg.recipe;
    s.data = d->is_toy ? &d->toy_set : NULL;
    s.teacher = r->teacher;
    s.rows = d->rows;
    s.row = d->row;
    s.column = d->column;
    s.mean = d->mean;
    s.unit = d->unit;
    s.m = m;
    s.losses = r->losses;
    s.seed = r->cfg.seed;
    compare_recipes(r, &s);
    snprintf(line, sizeof line, "Recipe \"%s\", %ld training steps with batches of %d + %d in %.0f s, seed %llu, %d solver step%s a grid interval, ctm.h %s%s",
             r->cfg.recipe, r->cfg.steps, r->cfg.batch, r->cfg.diagonal_batch, r->seconds, (unsigned long long)r->cfg.seed,
             r->cfg.substeps, r->cfg.substeps == 1 ? "" : "s", CTM_VERSION, r->seconds_given > 0 ? "; the number of steps was fitted to --seconds" : "");
    s.command = command_line(&r->scratch, &r->flags);
    s.settings = line;
    return story_write(&s) ? 1 : args_fail(r->line, sizeof r->line, "%s", s.error);
}

static int results(run *r, ctm_net *net) {
    static const char *const shown[] = {"flow_rms_onestep", "flow_median_onestep", "flow_rms_chain4", "flow_rms_chain17", "flow_rms_onestep_vs_teacher",
                                        "flow_rms_chain4_vs_teacher", "denoiser_rms", "sw2_ratio_nfe1", "sw2_ratio_nfe4", "off_support_nfe1", "nll_gap",
                                        "nll_held_out", "teacher_rms_heun40", "class_mean_rms", "class_mean_rms_without", "least_visited_mode",
                                        "disc_real", "disc_fake", "train_seconds", "steps_per_second"};
    const int plain = ((points *)r)->plain;
    measures *m = (measures *)ctm_alloc(&r->memory, sizeof *m);
    const double start = args_seconds();
    char path[ARGS_PATH];
    if (!run_save_weights(r, net, &r->cfg, "model.safetensors") || !save_samples(r, net)) return 0;
    measure_run(r, net, m);
    if (!measure_write(m, run_path(r, "metrics.csv", path), r->line, sizeof r->line) || (!plain && !write_story(r, net, m))) return 0;
    printf("%-28s %s\n", "recipe", r->cfg.recipe);
    for (int i = 0; i < ARGS_COUNT(shown); i++)
        if (measure_get(m, shown[i], -1e9) > -1e9) printf("%-28s %.4g\n", shown[i], measure_get(m, shown[i], 0));
    printf(plain ? "measures took %.1f s\nsee %s/metrics.csv\n" : "measures and figures took %.1f s\nopen %s/index.html\n", args_seconds() - start, r->common.out);
    return 1;
}

// ---- points train ------------------------------------------------------------------------------------------------------

static const run_program program = {"points", "points", 10, open_data, adapt, untaught, NULL, ready, exact_teacher, NULL, teacher_fits, report, network, NULL,
                                    ctm_mlp_discriminator, draw_point, point_label, NULL, notes_of, NULL, results};

// A word that is none of a flag's words, no file, and does not look like the name of one.
static int unknown_word(const run *r, const char *flag, const char *word, const char *expected, const char *const *known, int n) {
    const char *near_name = args_suggest(word, known, n);
    char shown[64], line[300];
    args_fail(line, sizeof line, "flag --%s: found \"%s\", expected %s%s%s%s", flag, args_excerpt(word, shown, sizeof shown), expected,
              near_name ? "; did you mean " : "", near_name ? near_name : "", near_name ? "?" : "");
    return run_misused(r, line);
}

static int is_nothing(const char *word) { return ctm_path_kind(word) == CTM_NOTHING && !strpbrk(word, "./\\"); }

// Which values of --data and --teacher are files: a resumed run knows them by their hash, so that they may have moved.
static int names_file(const char *flag, const char *value) {
    return (strcmp(flag, "data") == 0 && !is_toy_name(value)) || (strcmp(flag, "teacher") == 0 && !run_is_kind(value));
}

// Flags that contradict each other or what exists.
static int check_flags(points *p) {
    static const char *const kinds[] = {"exact", "learned", "none"};
    run *r = &p->r;
    const char *teacher = r->teacher_kind;
    if (teacher && !run_is_kind(teacher) && is_nothing(teacher)) return unknown_word(r, "teacher", teacher, "exact, learned, none or a safetensors file", kinds, 3);
    if (!is_toy_name(p->name) && is_nothing(p->name))
        return unknown_word(r, "data", p->name, "ring, grid, moons, checker, swiss, spiral, pinwheel or a CSV file", toy_names(), TOY_COUNT);
    if (r->resume) return run_check(r);
    if (p->label && is_toy_name(p->name)) return run_misused(r, "flag --label: goes with --data FILE.csv");
    if (p->columns && is_toy_name(p->name)) return run_misused(r, "flag --columns: goes with --data FILE.csv");
    if (p->init && (teacher ? strcmp(teacher, "exact") == 0 || strcmp(teacher, "none") == 0 : is_toy_name(p->name)))
        return run_misused(r, "flag --init teacher: needs a teacher that is a network: --teacher learned or a file");
    return run_check(r);
}

static int train_main(int argc, char **argv) {
    static points p;
    run *r = &p.r;
    int status;
    memset(&p, 0, sizeof p);
    run_init(r, &program, "out/points");
    p.name = "ring";
    p.compare_steps = COMPARE_STEPS;
    p.noises = 100000;
    const args_option options[] = {
        {"data",      ARGS_TEXT,   &p.name,       0, 0,   NULL, "ring, grid, moons, checker, swiss, spiral, pinwheel, or a CSV file"},
        {"columns",   ARGS_TEXT,   &p.columns,    0, 0,   NULL, "columns of the CSV file, A,B,...; all columns of numbers if not given"},
        {"label",     ARGS_TEXT,   &p.label,      0, 0,   NULL, "column of the CSV file whose texts are classes to learn"},
        {"teacher",   ARGS_TEXT,   &r->teacher_kind, 0, 0, NULL, "exact (default of the toys), learned (default of tables; as many steps as the student, before it), none, or a safetensors file"},
        {"hidden",    ARGS_REST,   &r->rest,      0, 0,   NULL, "width of the network"},
        {"layers",    ARGS_REST,   &r->rest,      0, 0,   NULL, "depth of the network"},
        RUN_OPTIONS(*r),
        {"init",      ARGS_CHOICE, &p.init,       0, 0,   "random,teacher", "teacher: the student begins with its teacher's weights"},
        {"plain",     ARGS_FLAG,   &p.plain,      0, 0,   NULL, "no figures and no index.html"},
        {"compare-steps", ARGS_INT, &p.compare_steps, 0, 1e9, NULL, "steps of each of the two short runs for recipes.svg, at most a quarter of --steps; 0: no such figure"},
        {"noises",    ARGS_INT,    &p.noises,     1000, 1e7, NULL, "starting noises for the measures; half of them are behind the errors"},
        ARGS_COMMON_OUT(r->common, "folder where results go")
    };
    const command flags = {"points", kept_flags, options, ARGS_COUNT(options), argc, argv, names_file, &r->set};
    r->flags = flags;
    status = args_parse("points", "points [train] [flags]      (also: points sample --help, points loglik --help)", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_exit_status(status);
    status = check_flags(&p);
    if (status == 0) {
        status = run_main(r, 1);
        table_free(&p.data.file);
    }
    return status;
}

// ---- points sample -----------------------------------------------------------------------------------------------------

typedef struct drawing {
    sampling    q;
    args_common common;
    const char *weights, *noise, *class_name;
    long long   n;
    npy_array   file;                   // of --noise
    size_t      rows;
} drawing;

// The starting points: from the file, which may hold the noise on the way, too, or from a stream of the seed. NULL with a line.
static ctm_real *starting_points(drawing *d, ctm_arena *a, char *err, size_t errlen) {
    npy_array *f = &d->file;
    const size_t dim = (size_t)d->q.net->dim;
    size_t where;
    ctm_real *all;
    d->rows = (size_t)d->n;
    if (!d->noise) return sampling_start(a, (uint64_t)d->common.seed, d->q.net, d->rows);
    if (!npy_read_f32(d->noise, f, err, errlen)) return NULL;
    if (f->ndim < 2 || f->ndim > 3 || f->shape[f->ndim - 1] != dim || f->count == 0) {
        args_fail(err, errlen, "%s: found an array of %d dimensions, the last of length %lu; expected [n,%lu] or [k,n,%lu] with n > 0", d->noise,
                  f->ndim, f->ndim ? (unsigned long)f->shape[f->ndim - 1] : 0ul, (unsigned long)dim, (unsigned long)dim);
        return NULL;
    }
    if (!npy_all_finite(f, &where)) {
        args_fail(err, errlen, "%s: number %lu is not finite", d->noise, (unsigned long)where);
        return NULL;
    }
    if (f->ndim == 3 && f->shape[0] < d->q.draws + 1) {
        args_fail(err, errlen, "%s: found noise for %lu draws, expected %lu: the start and %lu on the way", d->noise, (unsigned long)f->shape[0],
                  (unsigned long)d->q.draws + 1, (unsigned long)d->q.draws);
        return NULL;
    }
    d->rows = f->shape[f->ndim - 2];
    all = (ctm_real *)ctm_alloc(a, f->count*sizeof *all);
    for (size_t i = 0; i < f->count; i++) all[i] = (ctm_real)f->data[i];
    return sampling_recorded(&d->q, d->rows, f->count/dim, all);
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

// --class NAME as labels for `rows` rows; without it NULL. 0 if there is no such class.
static int choose_class(int **label, size_t rows, const char *name, ctm_arena *a, const dataset *units, const char *weights, char *err, size_t errlen) {
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
    *label = (int *)ctm_alloc(a, rows*sizeof(int));
    for (size_t i = 0; i < rows; i++) (*label)[i] = k;
    return 1;
}

// Weights, and what their metadata say of units and classes. NULL with a line.
static ctm_net *open_model(ctm_arena *a, const char *weights, dataset *units, char *err, size_t errlen) {
    const ctm_file *f = ctm_file_read(a, weights);
    ctm_net *net = f ? ctm_load_file(a, f, NULL) : NULL;
    memset(units, 0, sizeof *units);
    if (!net) { args_fail(err, errlen, "%s", ctm_error(a->ctx)); return NULL; }
    if (net->size) {
        args_fail(err, errlen, "%s: is a model of images of %d x %d, expected one of points", weights, net->size, net->size);
        return NULL;
    }
    return units_of_file(units, a, f, net->dim, err, errlen) && classes_of_file(units, a, f, net->classes, err, errlen) ? net : NULL;
}

static int sample_run(drawing *d, ctm_arena *a) {
    char err[600];
    dataset units;
    ctm_net *net = open_model(a, d->weights, &units, err, sizeof err);
    int *label;
    ctm_real *x;
    if (!net || !sampling_ready(&d->q, a, net, (uint64_t)d->common.seed, d->weights, err, sizeof err)) return wrong(err);
    x = starting_points(d, a, err, sizeof err);
    if (!x || !choose_class(&label, d->rows, d->class_name, a, &units, d->weights, err, sizeof err)) return wrong(err);
    d->q.label = label;
    measure_map(a->ctx, sampling_chunk, &d->q, d->rows, net->dim, x, x);
    if (!write_points(d->common.out, a, &units, d->rows, x, err, sizeof err)) return wrong(err);
    if (!d->common.quiet)
        printf("%lu samples in %s%s\n", (unsigned long)d->rows, d->common.out,
               ends_with(d->common.out, ".npy") ? ", standardised: (value - mean)/unit; .csv is in the data's units" : "");
    return 0;
}

static int sample_main(int argc, char **argv) {
    drawing d;
    ctm_ctx ctx;
    ctm_arena a;
    char line[600];
    int status;
    memset(&d, 0, sizeof d);
    d.q = sampling_default();
    d.common = args_common_defaults("samples.csv");
    d.n = 1000;
    const args_option options[] = {
        {"weights",    ARGS_TEXT,   &d.weights, 0, 0,    NULL, "model.safetensors of a training folder"},
        {"n",          ARGS_INT,    &d.n,       1, 1e8,  NULL, "how many samples"},
        {"noise",      ARGS_TEXT,   &d.noise,   0, 0,    NULL, "start from this .npy file: float32 [n,d] of unit variance, or [k,n,d] with the noise on the way"},
        {"class",      ARGS_TEXT,   &d.class_name, 0, 0, NULL, "of a model trained with --label: samples of this class only"},
        SAMPLING_OPTIONS(d.q, "class"),
        ARGS_COMMON_OUT(d.common, "F.csv: in the data's units; F.npy: standardised, (value - mean)/unit, float32 [n,d]; mean and unit of every "
                        "column are in the metadata of --weights")
    };
    status = args_parse("points", "points sample --weights W.safetensors [flags]", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_exit_status(status);
    if (!d.weights) return misused("flag --weights: is missing; expected a safetensors file");
    if (!sampling_check(&d.q, argc, argv, line, sizeof line)) return misused(line);
    if (!d.class_name && args_given("guidance", argc, argv)) return misused("flag --guidance: goes with --class");
    if (!ends_with(d.common.out, ".csv") && !ends_with(d.common.out, ".npy")) {
        args_fail(line, sizeof line, "flag --out: found \"%.400s\", expected a name that ends in .csv or .npy", d.common.out);
        return misused(line);
    }
    ctm_init(&ctx);
    ctx.threads = (int)d.common.threads;
    ctm_arena_init(&a, &ctx, "sample");
    status = sample_run(&d, &a);
    npy_free(&d.file);
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
static int loglik_run(ctm_arena *a, const char *weights, const char *data, const char *class_name, const args_common *common) {
    dataset units;
    char err[600];
    ctm_net *net = open_model(a, weights, &units, err, sizeof err);
    double *logp, sum = 0;
    ctm_real *x;
    table t;
    int ok, *label;
    if (!net) return wrong(err);
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
    status = loglik_run(&a, weights, data, class_name, &common);
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
   build/points train --data ring --teacher exact --recipe points --seed 1 --steps 42000 --out out/demo
   ctm.h 0.3.0, all cores, avx512
   recipe             points
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

   and leaves in out/demo: index.html; samples, flow, triangle, score, gamma, nfe, recipes and loss.svg; metrics.csv,
   loss.csv, samples.csv; model.safetensors, checkpoint.safetensors. More to try:

   $ build/points --data moons --steps 200 --stop-at 100 --out out/moons && build/points --resume --out out/moons
   $ build/points --data geyser.csv --columns duration,waiting --out out/geyser
   $ build/points sample --weights out/geyser/model.safetensors --n 5 --nfe 4 --out five.csv
   5 samples in five.csv
   $ build/points loglik --weights out/geyser/model.safetensors --data geyser.csv --out logp.csv
   $ build/points --data penguins.csv --columns bill_length_mm,bill_depth_mm --label species --out out/penguins
   $ build/points sample --weights out/penguins/model.safetensors --class Adelie --guidance 1.5 --n 5 --out adelie.csv
   $ build/points --data ring --recipe paper --out out/paper            (the paper's algorithm)
   $ build/points --data ring --recipe cd --out out/cd                  (a consistency model, for comparison)
   $ build/points --data ring --gan hinge --out out/gan                 (no better on points: docs/results.md)
   $ build/points --data ring --recipe papr
   points: flag --recipe: there is no recipe "papr"; there are paper, authors, points, images, cd, ct
   $ build/points sample --weights out/demo/model.safetensors --gamma 2
   points: flag --gamma: found "2", expected a number from 0 to 1 */
