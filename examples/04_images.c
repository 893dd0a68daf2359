/* 04_images.c - consistency trajectory models of images: train, sample, evaluate

   images synth --out out/shapes.bin --n 20000
       a set of drawn shapes in CIFAR-10's format, so that a first run needs no download.
   images train --data DIR|FILE[,FILE...] --config tiny|compact|ddpmpp --out DIR
       first a teacher by denoising score matching (or --teacher FILE), then the CTM, which begins with the teacher's weights.
       Leaves in DIR: samples.png (a column is one noise; rows: 1, 2, 4 jumps, the teacher's solver), onestep.png, loss.svg, loss.csv,
       metrics.csv, teacher.safetensors, model.safetensors, checkpoint.safetensors. --resume goes on, bit for bit.
   images sample --weights W.safetensors --sampler gamma|exact|cm|onestep|heun|euler|dpm|ancestral --nfe N --n K --out F.png|.npy|.npz
   images eval --weights W.safetensors --data DIR|FILE [--teacher FILE] --out DIR
   images info --weights W.safetensors   or   images info --config compact
       the configuration, and every parameter with its shape.

   Exit status: 0 done; 1 the world is wrong (a file, the disk), one line on stderr says what; 2 wrong usage.

   How to read this file: the chapters are data, configuration, drawing, training, results, sample, eval, info, synth. The method is
   ctm.h, the same trainer and samplers as for points: a row of x is an image. The file formats are image.h. */

#include "args.h"
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#define IMAGE_REAL ctm_real
#include "image.h"
#include "plot.h"
#include "table.h"
#include "run.h"

enum {
    CHUNK         = 32,         // images a network sees at once when it samples
    SHEET_COLUMNS = 8,
    HELD_OUT      = 1000,       // at most so many images, and at most a tenth of the set, are never trained on
    WHOLE_JUMPS   = 18          // Heun's steps in the sheet's last row
};
#define LABEL_DROPOUT 0.1
#define GAN_START     0.6
#define SHEET_SECONDS 60.0

// Says what is wrong with the world, in one line; returns the exit status.
static int wrong(const char *line) {
    fprintf(stderr, "images: %s\n", line);
    return 1;
}

// The same for the way the program was called.
static int misused(const char *line) {
    fprintf(stderr, "images: %s\n", line);
    return 2;
}

// ---- Data --------------------------------------------------------------------------------------------------------------

typedef struct dataset {
    image_set set;
    size_t    rows, held;       // images 0 .. rows-1 are trained on, the last `held` are not
    int       flips;            // mirror every other image
    uint64_t  hash;
} dataset;

static int data_open(dataset *d, const char *path, char *err, size_t errlen) {
    memset(d, 0, sizeof *d);
    if (!image_open(&d->set, path, err, errlen)) return 0;
    d->held = d->set.n/10 < HELD_OUT ? d->set.n/10 : HELD_OUT;
    d->rows = d->set.n - d->held;
    d->hash = image_fingerprint(&d->set);
    return 1;
}

// Which image sample `index` is. Two draws of 24 bits, since a set may have more than 2^24 images.
static size_t drawn_image(const dataset *d, const ctm_rng *rng, uint64_t step, uint64_t index) {
    const double u = ctm_uniform(rng, step, 4*index) + (ctm_uniform(rng, step, 4*index + 1) - 0.5)/16777216.0;
    const size_t i = (size_t)(u*(double)d->rows);
    return i < d->rows ? i : d->rows - 1;
}

// A ctm_draw_fn and its ctm_label_fn.
static void draw_image(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    const dataset *d = (const dataset *)user;
    image_get(&d->set, drawn_image(d, rng, step, index), d->flips && ctm_uniform(rng, step, 4*index + 2) < 0.5, x0);
}
static int drawn_label(void *user, const ctm_rng *rng, uint64_t step, uint64_t index) {
    const dataset *d = (const dataset *)user;
    return image_label(&d->set, drawn_image(d, rng, step, index));
}

// Every label must be below `classes`.
static int check_labels(const dataset *d, int classes, const char *path, char *err, size_t errlen) {
    if (!d->set.classes) return args_fail(err, errlen, "%s: has no labels, but --classes %d asks for them", path, classes);
    for (size_t i = 0; i < d->set.n; i++)
        if (image_label(&d->set, i) < 0 || image_label(&d->set, i) >= classes)
            return args_fail(err, errlen, "%s: image %lu has label %d, out of range: --classes %d takes 0 to %d", path, (unsigned long)i,
                             image_label(&d->set, i), classes, classes - 1);
    return 1;
}

// ---- Configuration -----------------------------------------------------------------------------------------------------

typedef struct shape_flags {    // of the network
    int         config;
    const char *mult, *attn;
    long long   width, blocks, classes, size, channels;
    double      dropout;
} shape_flags;

enum { TINY, COMPACT, DDPMPP };

#define SHAPE_OPTIONS(f)                                                                                                         \
    {"config",         ARGS_CHOICE, &(f).config,  0, 0,      "tiny,compact,ddpmpp", "size of the network; ddpmpp is the paper's"},   \
    {"model-channels", ARGS_INT,    &(f).width,   4, 4096,   NULL, "width of the first level; the --config's if not given"},         \
    {"channel-mult",   ARGS_TEXT,   &(f).mult,    0, 0,      NULL, "width of every level over that, A,B,..."},                       \
    {"num-blocks",     ARGS_INT,    &(f).blocks,  1, 12,     NULL, "blocks per level"},                                              \
    {"attn",           ARGS_TEXT,   &(f).attn,    0, 0,      NULL, "resolutions with attention, RES,...; half the size if not given"}, \
    {"classes",        ARGS_INT,    &(f).classes, 1, 256,    NULL, "learn the labels 0 ... K-1 of the data; without it labels are not looked at"}, \
    {"dropout",        ARGS_REAL,   &(f).dropout, 0, 0.9,    NULL, "in every block; the --config's if not given"}

// "1,2,2" into a list of at most max numbers that ends with 0. 0 if it is no such list.
static int int_list(const char *text, int max, int *out) {
    int n = 0;
    for (; n < max; n++) {
        char word[16];
        const size_t length = strcspn(text, ",");
        long long v;
        if (length == 0 || length >= sizeof word) return 0;
        memcpy(word, text, length);
        word[length] = '\0';
        if (args_int(word, &v) != 1 || v < 1 || v > 4096) return 0;
        out[n] = (int)v;
        text += length;
        if (!*text) break;
        text++;
    }
    if (n == max) return 0;
    for (n++; n < max; n++) out[n] = 0;
    return 1;
}

static void preset(ctm_config *c, int which) {
    static const int mults[3][3] = {{1, 2, 2}, {1, 2, 2}, {2, 2, 2}}, width[3] = {16, 32, 128}, blocks[3] = {1, 2, 4};
    memset(c->channel_mult, 0, sizeof c->channel_mult);
    memcpy(c->channel_mult, mults[which], sizeof mults[which]);
    c->model_channels = width[which];
    c->num_blocks = blocks[which];
    c->dropout = which == DDPMPP ? 0.13 : 0;
}

// The network that the flags describe, for images of this size. Returns the exit status of wrong usage, or 0.
static int shape_config(ctm_ctx *ctx, ctm_config *c, const shape_flags *f, int size, int channels) {
    preset(c, f->config);
    c->size = size;
    c->channels = channels;
    c->classes = (int)f->classes;
    c->label_dropout = f->classes ? LABEL_DROPOUT : 0;
    if (f->width)        c->model_channels = (int)f->width;
    if (f->blocks)       c->num_blocks = (int)f->blocks;
    if (f->dropout >= 0) c->dropout = f->dropout;
    if (f->mult && !int_list(f->mult, 8, c->channel_mult)) return misused("flag --channel-mult: expected at most seven numbers, like 1,2,2");
    memset(c->attn, 0, sizeof c->attn);
    c->attn[0] = size/2;
    if (f->attn && strcmp(f->attn, "none") == 0) c->attn[0] = 0;
    else if (f->attn && !int_list(f->attn, 4, c->attn)) return misused("flag --attn: expected at most three sizes, like 16,8, or none");
    if (!ctm_unet_fits(ctx, c)) return misused(ctm_error(ctx));
    return 0;
}

// What images want other than ctm_config_default(): the denoising loss of the data, weighted as the authors do; one solver step a
// grid interval, since the teacher is a network; a moderate learning rate.
static void recipe(ctm_config *c, int which) {
    *c = ctm_config_default();
    c->substeps = 1;
    c->diagonal = CTM_DIAG_DSM;
    c->adaptive = 1;
    c->lambda_dsm = 1;
    c->batch = c->diagonal_batch = which == TINY ? 32 : 64;
    c->shards = 4;
    c->lr = which == TINY ? 1e-3 : which == COMPACT ? 6e-4 : 2e-4;
    c->clip = 1;
    c->steps = which == TINY ? 10000 : which == COMPACT ? 40000 : 100000;
    c->gan_lr = 2e-4;
}

static ctm_config teacher_config(const ctm_config *student, long steps) {
    ctm_config c = *student;
    c.consistency = 0;
    c.gan = CTM_GAN_NONE;
    c.adaptive = 0;
    c.dsm_law = CTM_DSM_LOGNORMAL;
    c.steps = steps;
    return c;
}

static void print_shape(const ctm_config *c, size_t parameters, int with_s) {
    printf("network: %d x %d x %d, model_channels %d, channel_mult", c->size, c->size, c->channels, c->model_channels);
    for (int i = 0; i < 8 && c->channel_mult[i]; i++) printf(i ? ",%d" : " %d", c->channel_mult[i]);
    printf(", num_blocks %d, attention at", c->num_blocks);
    for (int i = 0; i < 4 && c->attn[i]; i++) printf(i ? ",%d" : " %d", c->attn[i]);
    printf("%s, dropout %g, classes %d, %s: %.3f M parameters\n", c->attn[0] ? "" : " the bottom only", c->dropout, c->classes, with_s ? "t and s" : "t only", (double)parameters/1e6);
}

// ---- Drawing samples ---------------------------------------------------------------------------------------------------

enum { BY_GAMMA, BY_EXACT, BY_CM, BY_ONESTEP, BY_HEUN, BY_EULER, BY_DPM, BY_ANCESTRAL };
#define SAMPLERS "gamma,exact,cm,onestep,heun,euler,dpm,ancestral"

typedef struct drawing {
    ctm_net     *net;
    int          sampler, form, steps;
    double       gamma, guidance;
    double      *ts;                    // [steps+1] levels
    const int   *label;                 // of every image; NULL: none
    ctm_rng      rng;
    size_t       draws, rows;           // recorded noise [draws,rows,dim], or NULL
    const ctm_real *noise;
} drawing;

static int by_score(int sampler) { return sampler >= BY_HEUN; }

// Steps that make `nfe` evaluations, or 0 if none do.
static int steps_of(int sampler, long long nfe) {
    if (sampler == BY_HEUN) return nfe%2 ? (int)(nfe + 1)/2 : 0;
    if (sampler == BY_DPM) return nfe%2 ? 0 : (int)nfe/2;
    if (sampler == BY_ONESTEP) return nfe == 1;
    return (int)nfe;
}

// Karras levels from sigma_max to sigma_min; Heun's go on to 0, where its last step is Euler's.
static void drawing_levels(drawing *q, ctm_arena *a) {
    const ctm_noise *z = &q->net->noise;
    q->ts = (double *)ctm_alloc(a, ((size_t)q->steps + 2)*sizeof(double));
    if (q->sampler != BY_HEUN) { ctm_karras_times(z, q->steps + 1, q->ts); return; }
    q->ts[0] = z->sigma_max;
    if (q->steps > 1) ctm_karras_times(z, q->steps, q->ts);
    q->ts[q->steps] = 0;
}

static drawing drawing_of(ctm_arena *a, ctm_net *net, int sampler, int steps) {
    drawing q;
    memset(&q, 0, sizeof q);
    q.net = net;
    q.sampler = sampler;
    q.steps = steps;
    q.guidance = 1;
    drawing_levels(&q, a);
    return q;
}

// Recorded noise of some rows: [draws,count,dim].
static const ctm_real *noise_of(const drawing *q, ctm_arena *a, size_t first, size_t count) {
    const size_t dim = (size_t)q->net->dim;
    ctm_real *out;
    if (!q->noise || !q->draws) return NULL;
    out = (ctm_real *)ctm_alloc(a, q->draws*count*dim*sizeof *out);
    for (size_t j = 0; j < q->draws; j++) memcpy(out + j*count*dim, q->noise + (j*q->rows + first)*dim, count*dim*sizeof *out);
    return out;
}

static ctm_tensor *draw_chunk(ctm_tape *tp, const drawing *q, ctm_tensor *x, size_t first) {
    static const int method[] = {CTM_HEUN, CTM_EULER, CTM_DPM2, CTM_ANCESTRAL};
    ctm_sampler how = ctm_sampler_default();
    const int labelled = q->net->classes > 0 && q->label != NULL;
    const int *label = labelled ? q->label + first : NULL;
    how.rng = &q->rng;
    how.first_row = first;
    how.noise = noise_of(q, tp->arena, first, (size_t)x->shape[0]);
    how.form = q->form ? CTM_FORM_AUTHORS : CTM_FORM_PAPER;
    how.gamma = q->sampler == BY_GAMMA ? q->gamma : q->sampler == BY_CM;
    if (by_score(q->sampler))
        return ctm_sample_score(tp, labelled ? ctm_guided_denoiser(tp->arena, q->net, label, q->guidance) : ctm_net_denoiser(tp->arena, q->net),
                                method[q->sampler - BY_HEUN], x, q->steps, q->ts, &how);
    return ctm_sample_gamma(tp, labelled ? ctm_guided_jump(tp->arena, q->net, label, q->guidance) : ctm_net_jump(tp->arena, q->net), x, q->steps, q->ts, &how);
}

// A map of rows to rows, chunk by chunk, nothing recorded. Operations share out their work among the threads themselves.
typedef ctm_tensor *(*chunk_fn)(ctm_tape *tp, const void *arg, ctm_tensor *x, size_t first);
static int map_chunks(ctm_ctx *ctx, chunk_fn fn, const void *arg, size_t n, size_t dim, const ctm_real *x, size_t width, ctm_real *out) {
    ctm_arena arena;
    ctm_tape tape;
    int ok = 1;
    ctm_arena_init(&arena, ctx, "chunk");
    ctm_tape_init(&tape, ctx, &arena);
    tape.recording = 0;
    for (size_t first = 0; first < n && ok; first += CHUNK) {
        const size_t rows = n - first < CHUNK ? n - first : CHUNK;
        ctm_tape_reset(&tape);
        ctm_tensor *in = ctm_matrix(&tape, "x", (int)rows, (int)dim), *y;
        memcpy(in->data, x + first*dim, rows*dim*sizeof(ctm_real));
        y = fn(&tape, arg, in, first);
        ok = y != NULL;
        if (ok) memcpy(out + first*width, y->data, rows*width*sizeof(ctm_real));
    }
    ctm_arena_free(&arena);
    return ok;
}

static ctm_tensor *draw_fn(ctm_tape *tp, const void *arg, ctm_tensor *x, size_t first) { return draw_chunk(tp, (const drawing *)arg, x, first); }

// out [n,dim]: samples from x [n,dim] at sigma_max.
static int draw_all(const drawing *q, size_t n, const ctm_real *x, ctm_real *out) {
    const size_t dim = (size_t)q->net->dim;
    return map_chunks(q->net->ctx, draw_fn, q, n, dim, x, dim, out);
}

static ctm_real *start_noise(ctm_arena *a, uint64_t seed, const ctm_net *net, size_t n) {
    const ctm_rng rng = ctm_stream(seed, "samples");
    ctm_real *x = (ctm_real *)ctm_alloc(a, n*(size_t)net->dim*sizeof *x);
    ctm_normals(&rng, 0, 0, n*(size_t)net->dim, x);
    for (size_t i = 0; i < n*(size_t)net->dim; i++) x[i] = (ctm_real)(net->noise.sigma_max*(double)x[i]);
    return x;
}

// Classes in turn, for the sheets of a model that knows some.
static int *labels_in_turn(ctm_arena *a, const ctm_net *net, size_t n) {
    int *label = (int *)ctm_alloc(a, (n + 1)*sizeof(int));
    for (size_t i = 0; i < n; i++) label[i] = net->classes ? (int)(i%(size_t)net->classes) : -1;
    return label;
}

// ---- The run and its settings ------------------------------------------------------------------------------------------

typedef struct settings {
    args_common common;
    shape_flags shape;
    const char *data, *teacher;
    long long   steps, teacher_steps, batch, shards, stop_at;      // 0: the recipe's
    double      seconds, lr, sheet_seconds;
    int         match, law, flips, gan, gan_loss, resume;
} settings;

typedef struct run {
    settings            set;
    run_settings        flags;
    ctm_ctx             ctx;
    ctm_arena           memory, scratch;
    dataset             data;
    ctm_config          cfg;
    long                teacher_steps;             // of a learned teacher; 0: none is learned
    const ctm_denoiser *teacher;                   // NULL: none
    ctm_net            *teacher_net;
    uint64_t            teacher_hash;              // of its weights
    ctm_trainer        *tr;
    run_losses         *losses;
    double              seconds;                   // spent on training, all phases
    double              images_per_second;         // of the phase at work
    const ctm_file     *from;                      // the checkpoint of a resumed run
    char                line[600];                 // the last error
} run;

static const char *const kept_flags[] = {"data", "config", "model-channels", "channel-mult", "num-blocks", "attn", "classes", "dropout", "teacher",
                                         "teacher-steps", "match", "law", "seed", "steps", "batch", "shards", "lr", "flips", "gan", "gan-loss"};

static const char *out_path(run *r, const char *file, char *path) {
    args_join(path, ARGS_PATH, r->set.common.out, file);
    return path;
}

static int failed(run *r) { return args_fail(r->line, sizeof r->line, "%s", ctm_error(&r->ctx)); }

// 0, or the exit status of wrong usage.
static int configure(run *r) {
    ctm_config *c = &r->cfg;
    const settings *s = &r->set;
    int status;
    recipe(c, s->shape.config);
    status = shape_config(&r->ctx, c, &s->shape, r->data.set.size, r->data.set.channels);
    if (status) return status;
    c->match = s->match == 0 ? CTM_SOFT : s->match == 1 ? CTM_LOCAL : CTM_GLOBAL;
    c->law = s->law == 0 ? CTM_LAW_GAP : CTM_LAW_AUTHORS;
    c->seed = (uint64_t)s->common.seed;
    if (strcmp(s->teacher, "none") == 0) c->adaptive = 0;      // without a teacher the data are the only source of truth: full weight
    if (s->gan)    c->gan = CTM_GAN_HINGE + s->gan_loss;
    if (s->batch)  c->batch = c->diagonal_batch = (int)s->batch;
    if (s->shards) c->shards = (int)s->shards;
    if (s->lr > 0) c->lr = s->lr;
    if (s->steps)  c->steps = (long)s->steps;
    r->data.flips = s->flips == 1 || (s->flips == 0 && r->data.set.channels == 3);
    return 0;
}

static ctm_trainer *trainer(run *r, ctm_arena *a, const ctm_config *cfg, const ctm_denoiser *teacher) {
    ctm_net *net = ctm_unet(a, cfg, cfg->consistency);
    if (cfg->consistency && r->teacher_net) ctm_net_copy_matching(net, r->teacher_net);
    ctm_trainer *tr = ctm_trainer_new(a, cfg, net, teacher, draw_image, &r->data);
    if (cfg->classes) {
        tr->label = drawn_label;
        tr->label_user = &r->data;
    }
    if (cfg->gan) ctm_trainer_adversary(a, tr, ctm_conv_discriminator(a, cfg));
    return tr;
}

// Seconds for one step, tried out on a trainer that is then thrown away.
static double step_seconds(run *r, const ctm_config *cfg, const ctm_denoiser *teacher) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    ctm_trainer *tr = trainer(r, &r->scratch, cfg, teacher);
    double start;
    ctm_train_step(tr);                              // the first step also allocates
    start = args_seconds();
    while (tr->step < 50 && (tr->step < 2 || args_seconds() - start < 5)) ctm_train_step(tr);
    const double each = (args_seconds() - start)/(double)(tr->step - 1);
    ctm_trainer_free(tr);
    ctm_arena_release(&r->scratch, mark);
    return each;
}

static long steps_for(double seconds, double each) {
    const double n = seconds/each;
    return n < 1 ? 1 : n > 1e9 ? 1000000000L : (long)n;
}

// How many steps fit into --seconds: half of the time is the learned teacher's.
static void plan_steps(run *r) {
    const int learned = strcmp(r->set.teacher, "learned") == 0;
    r->teacher_steps = !learned ? 0 : r->set.teacher_steps ? (long)r->set.teacher_steps : 2*r->cfg.steps;
    if (r->set.seconds > 0) {
        const ctm_config teacher = teacher_config(&r->cfg, 1);
        ctm_net *stand_in = learned ? ctm_unet(&r->scratch, &teacher, 0) : NULL;
        const ctm_denoiser *D = learned ? ctm_net_denoiser(&r->scratch, stand_in) : r->teacher;
        const double share = learned ? 0.5 : 1;
        if (learned) r->teacher_steps = steps_for(share*r->set.seconds, step_seconds(r, &teacher, NULL));
        r->cfg.steps = steps_for(share*r->set.seconds, step_seconds(r, &r->cfg, D));
    }
    r->set.steps = r->cfg.steps;                     // from now on as if they had been asked for
    r->set.teacher_steps = r->teacher_steps;
    r->cfg.gan_start = (long)(GAN_START*(double)r->cfg.steps);
}

// ---- Pictures of a run -------------------------------------------------------------------------------------------------

// Rows of images that begin with the same noises: 1, 2, 4 jumps of the student, then the teacher's Heun.
static int write_sheet(run *r, ctm_net *net) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    const size_t n = SHEET_COLUMNS, size = n*(size_t)net->dim;
    const ctm_real *x = start_noise(&r->scratch, r->cfg.seed, net, n);
    ctm_real *y = (ctm_real *)ctm_alloc(&r->scratch, 4*size*sizeof *y);
    const int *label = labels_in_turn(&r->scratch, net, n);
    char path[ARGS_PATH];
    size_t rows = 0;
    int ok = 1;
    for (int jumps = 1; net->with_s && jumps <= 4; jumps *= 2) {
        drawing q = drawing_of(&r->scratch, net, BY_EXACT, jumps);
        q.label = label;
        ok = ok && draw_all(&q, n, x, y + rows++*size);
    }
    if (!net->with_s || r->teacher_net) {
        drawing q = drawing_of(&r->scratch, net->with_s ? r->teacher_net : net, BY_HEUN, WHOLE_JUMPS);
        q.label = label;
        ok = ok && draw_all(&q, n, x, y + rows++*size);
    }
    if (!ok) failed(r);
    else ok = image_write_sheet(out_path(r, "samples.png", path), rows*n, net->size, net->channels, y, SHEET_COLUMNS, r->line, sizeof r->line);
    ctm_arena_release(&r->scratch, mark);
    return ok;
}

// 64 samples of one jump each.
static int write_onestep(run *r, ctm_net *net) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    const size_t n = 64;
    ctm_real *x = start_noise(&r->scratch, r->cfg.seed, net, n);
    drawing q = drawing_of(&r->scratch, net, BY_ONESTEP, 1);
    char path[ARGS_PATH];
    q.label = labels_in_turn(&r->scratch, net, n);
    const int ok = draw_all(&q, n, x, x) ? image_write_sheet(out_path(r, "onestep.png", path), n, net->size, net->channels, x, SHEET_COLUMNS, r->line, sizeof r->line)
                                         : failed(r);
    ctm_arena_release(&r->scratch, mark);
    return ok;
}

static void loss_line(plot *p, const run_losses *l, int column, double *x, double *y, int colour, const char *label) {
    int n = 0;
    for (int i = 0; i < l->n; i++)
        if (l->row[i][column] > 0) {
            x[n] = l->row[i][RUN_STEP];
            y[n++] = l->row[i][column];
        }
    plot_line(p, n, x, y, plot_color(colour), 1.4, 0, 0.9);
    plot_legend_add(p, PLOT_LINE, plot_color(colour), label);
}

static int write_losses(run *r) {
    static double x[RUN_LOSSES_MAX], y[RUN_LOSSES_MAX];
    const run_losses *l = r->losses;
    double lo = 1e30, hi = 0;
    char path[ARGS_PATH];
    plot *p;
    if (!run_losses_write(l, out_path(r, "loss.csv", path), r->line, sizeof r->line)) return 0;
    for (int i = 0; i < l->n; i++)
        for (int k = RUN_L_CTM; k <= RUN_L_DSM; k++) {
            if (l->row[i][k] > 0 && l->row[i][k] < lo) lo = l->row[i][k];
            if (l->row[i][k] > hi) hi = l->row[i][k];
        }
    if (!(hi > 0)) lo = hi = 1;
    p = plot_open(out_path(r, "loss.svg", path), 720, 420, "Training");
    plot_grid_panel(p, 1, 1, 0, r->cfg.consistency && r->teacher ? "losses of the student" : "losses");
    plot_axes(p, 0, l->n ? l->row[l->n - 1][RUN_STEP] : 1, lo/1.5, hi*2, "training step", "loss", PLOT_LOGY);
    loss_line(p, l, RUN_L_CTM, x, y, 0, "L_CTM: the jumps agree");
    loss_line(p, l, RUN_L_DSM, x, y, 1, "L_DSM: the denoiser");
    errno = ENOMEM;
    return p && plot_close(p) == 0 ? 1 : args_fail(r->line, sizeof r->line, "cannot write %s: %s", path, strerror(errno));
}

// ---- Training ----------------------------------------------------------------------------------------------------------

// Everything needed to go on, in one file that is replaced as a whole.
static int save_checkpoint(run *r, const ctm_trainer *tr) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    char path[ARGS_PATH];
    notes *t = (notes *)ctm_alloc(&r->scratch, sizeof *t);
    t->arena = &r->scratch;
    note(t, "images.phase", tr->cfg.consistency ? "student" : "teacher");
    note_settings(t, &r->flags);
    note_hash(t, "images.data_hash", r->data.hash);
    note_hash(t, "images.teacher_hash", r->teacher_hash);
    note_number(t, "images.seconds", r->seconds);
    note_losses(t, "images", r->losses);
    const int ok = ctm_checkpoint_save(&r->scratch, tr, out_path(r, "checkpoint.safetensors", path), t->pair);
    ctm_arena_release(&r->scratch, mark);
    return ok ? write_losses(r) : failed(r);
}

static int save_model(run *r, ctm_net *net, const ctm_config *cfg, const char *file) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    char path[ARGS_PATH];
    notes *t = (notes *)ctm_alloc(&r->scratch, sizeof *t);
    t->arena = &r->scratch;
    note_settings(t, &r->flags);
    note_hash(t, "images.data_hash", r->data.hash);
    const int ok = ctm_save_with(&r->scratch, net, cfg, out_path(r, file, path), t->pair);
    ctm_arena_release(&r->scratch, mark);
    return ok ? 1 : failed(r);
}

static void losses_text(const ctm_trainer *tr, double rate, char *text, size_t size) {
    if (!tr->cfg.consistency) snprintf(text, size, "teacher L_dsm %.3f  %.0f img/s", tr->L_dsm, rate);
    else if (tr->cfg.gan && tr->step > tr->cfg.gan_start)
        snprintf(text, size, "L_ctm %.3f L_dsm %.3f D %.2f %.2f  %.0f img/s", tr->L_ctm, tr->L_dsm, tr->disc_real, tr->disc_fake, rate);
    else snprintf(text, size, "L_ctm %.3f L_dsm %.3f  %.0f img/s", tr->L_ctm, tr->L_dsm, rate);
}

// The state now and then: checkpoint, contact sheet, curve, and a line that stays.
static int keep_state(run *r, ctm_trainer *tr, const char *text) {
    if (!save_checkpoint(r, tr) || !write_sheet(r, tr->ema[0])) return 0;
    if (!r->set.common.quiet) {
        printf("%sstep %ld of %ld  %s\n", args_is_terminal() ? "\r" : "", tr->step, tr->cfg.steps, text);
        fflush(stdout);
    }
    return 1;
}

// Steps until the end, a signal or --stop-at. 1 finished; 0 stopped, state saved; -1 failed, r->line says why.
static int train(run *r, ctm_trainer *tr) {
    const long stop_at = r->set.stop_at > 0 && tr->cfg.consistency ? (long)r->set.stop_at : tr->cfg.steps, begun = tr->step;
    double now = args_seconds(), kept = now, pause = r->set.sheet_seconds, worked = 0;
    char text[120] = "";
    args_progress line;
    args_progress_begin(&line, tr->step, tr->cfg.steps, 0, r->set.common.quiet);
    while (tr->step < tr->cfg.steps && tr->step < stop_at && !asked_to_stop) {
        if (!ctm_train_step(tr)) {
            args_progress_end(&line, tr->step, text);
            args_fail(r->line, sizeof r->line, "%s; try a smaller --lr (the last checkpoint is untouched)", ctm_error(&r->ctx));
            return -1;
        }
        run_losses_add(r->losses, tr);
        worked += args_seconds() - now;
        r->seconds += args_seconds() - now;
        now = args_seconds();
        r->images_per_second = (double)(tr->step - begun)*tr->cfg.batch/(worked > 0 ? worked : 1e-9);
        losses_text(tr, r->images_per_second, text, sizeof text);
        args_progress_step(&line, tr->step, text);
        if (now - kept < pause) continue;
        if (!keep_state(r, tr, text)) return -1;
        kept = args_seconds();
        if (20*(kept - now) > pause) pause = 20*(kept - now);      // never more than a twentieth of the time
        now = kept;
    }
    args_progress_end(&line, tr->step, text);
    if (!save_checkpoint(r, tr)) return -1;
    return tr->step == tr->cfg.steps;
}

static int stopped(const run *r, const ctm_trainer *tr) {
    printf("stopped after step %ld of %ld of the %s; saved; to go on: images train --resume --out %s\n", tr->step, tr->cfg.steps,
           tr->cfg.consistency ? "student" : "teacher", r->set.common.out);
    return 0;
}

static int in_phase(const run *r, const char *phase) { return r->from && strcmp(ctm_file_meta(r->from, "images.phase"), phase) == 0; }

// 1 if the checkpoint belongs to this phase and was loaded into tr, 0 if not, -1 on an error.
static int resume_phase(run *r, ctm_trainer *tr, const char *phase) {
    if (!in_phase(r, phase)) return 0;
    if (!ctm_checkpoint_load(&r->scratch, tr, r->from->path)) { failed(r); return -1; }
    restore_losses(r->losses, "images", r->from);
    if (!r->set.common.quiet) printf("resumed after step %ld of the %s\n", tr->step, phase);
    return 1;
}

// A network of images from a file, or NULL with a line.
static ctm_net *load_images(ctm_arena *a, const char *path, ctm_config *cfg, char *err, size_t errlen) {
    ctm_net *net = ctm_load(a, path, cfg);
    if (!net) args_fail(err, errlen, "%s", ctm_error(a->ctx));
    else if (!net->size) {
        args_fail(err, errlen, "%s: is a model of points (%d numbers a row), expected one of images", path, net->dim);
        return NULL;
    }
    return net;
}

static void use_as_teacher(run *r, ctm_net *net) {
    r->teacher = ctm_net_denoiser(&r->memory, net);
    r->teacher_net = net;
    r->teacher_hash = hash_bytes(net->theta, net->len*sizeof(ctm_real));
}

static int load_teacher(run *r, const char *path) {
    ctm_net *net = load_images(&r->memory, path, NULL, r->line, sizeof r->line);
    const image_set *s = &r->data.set;
    if (!net) return 0;
    if (net->size != s->size || net->channels != s->channels)
        return args_fail(r->line, sizeof r->line, "%s: is a teacher of images of %d x %d with %d channels, but the data are %d x %d with %d", path,
                         net->size, net->size, net->channels, s->size, s->size, s->channels);
    if (net->classes && net->classes != r->cfg.classes)
        return args_fail(r->line, sizeof r->line, "%s: is a teacher of %d classes, but --classes is %d", path, net->classes, r->cfg.classes);
    use_as_teacher(r, net);
    return 1;
}

// A denoiser trained from the data, before the student. 1 done, 0 stopped, -1 failed.
static int learn_teacher(run *r) {
    const ctm_config cfg = teacher_config(&r->cfg, r->teacher_steps);
    char path[ARGS_PATH];
    ctm_trainer *tr;
    int state;
    if (in_phase(r, "student")) return load_teacher(r, out_path(r, "teacher.safetensors", path)) ? 1 : -1;
    tr = r->tr = trainer(r, &r->memory, &cfg, NULL);
    if (resume_phase(r, tr, "teacher") < 0) return -1;
    state = train(r, tr);
    if (state < 1) return state < 0 ? -1 : stopped(r, tr);
    if (!save_model(r, tr->ema[0], &cfg, "teacher.safetensors") || !write_sheet(r, tr->ema[0])) return -1;
    if (!r->set.common.quiet)
        printf("teacher learned: %ld steps, L_dsm %.4f, %.0f s, %.0f images/s\n", tr->step, r->losses->row[r->losses->n - 1][RUN_L_DSM], r->seconds, r->images_per_second);
    use_as_teacher(r, tr->ema[0]);
    ctm_trainer_free(tr);
    r->tr = NULL;
    memset(r->losses, 0, sizeof *r->losses);         // loss.csv is about the student
    return 1;
}

// ---- Results -----------------------------------------------------------------------------------------------------------

typedef struct measures { int n; char name[200][48]; double value[200]; } measures;

static void measure(measures *m, const char *name, double value) {
    if (m->n == 200) return;
    snprintf(m->name[m->n], sizeof m->name[0], "%s", name);
    m->value[m->n++] = value;
}

static int write_measures(const measures *m, const char *path, char *err, size_t errlen) {
    args_file file;
    FILE *f = args_open_atomic(&file, path, err, errlen);
    if (!f) return 0;
    fprintf(f, "name,value\n");
    for (int i = 0; i < m->n; i++) fprintf(f, "%s,%.6g\n", m->name[i], m->value[i]);
    return args_close_atomic(&file, err, errlen);
}

static int results(run *r, ctm_net *net) {
    measures *m = (measures *)ctm_alloc(&r->memory, sizeof *m);
    const double *last = r->losses->row[r->losses->n - 1];
    char path[ARGS_PATH];
    measure(m, "parameters", (double)net->len);
    measure(m, "steps", (double)r->cfg.steps);
    measure(m, "teacher_steps", (double)r->teacher_steps);
    measure(m, "L_ctm", last[RUN_L_CTM]);
    measure(m, "L_dsm", last[RUN_L_DSM]);
    measure(m, "lambda_dsm", last[RUN_LAMBDA]);
    if (r->cfg.gan) {
        measure(m, "lambda_gan", r->tr->lambda_gan);
        measure(m, "disc_real", r->tr->disc_real);
        measure(m, "disc_fake", r->tr->disc_fake);
    }
    measure(m, "train_seconds", r->seconds);
    measure(m, "images_per_second", r->images_per_second);
    measure(m, "memory_mb", (double)r->ctx.high/1048576);
    if (!save_model(r, net, &r->cfg, "model.safetensors") || !write_sheet(r, net) || !write_onestep(r, net) || !write_losses(r) ||
        !write_measures(m, out_path(r, "metrics.csv", path), r->line, sizeof r->line)) return wrong(r->line);
    for (int i = 0; i < m->n; i++) printf("%-28s %.4g\n", m->name[i], m->value[i]);
    printf("look at %s/samples.png and %s/onestep.png\n", r->set.common.out, r->set.common.out);
    return 0;
}

// ---- images train ------------------------------------------------------------------------------------------------------

static void report_settings(const run *r) {
    const image_set *s = &r->data.set;
    char text[ARGS_PATH];
    if (r->set.common.quiet) return;
    printf("images train");
    for (int i = 0; i < ARGS_COUNT(kept_flags); i++) {
        const args_option *o = option_named(&r->flags, kept_flags[i]);
        if (!option_text(o, text, sizeof text) || (strcmp(o->name, "gan-loss") == 0 && !r->set.gan)) continue;
        printf(o->kind == ARGS_FLAG ? " --%s" : " --%s %s", kept_flags[i], text);
    }
    printf("\nctm.h %s, %s; %lu images of %d x %d x %d for training, %lu held out; %s\n", CTM_VERSION, ctm_isa_name(r->ctx.isa), (unsigned long)r->data.rows,
           s->size, s->size, s->channels, (unsigned long)r->data.held, r->data.flips ? "every other one mirrored" : "none mirrored");
    if (r->set.seconds > 0) printf("the number of steps was fitted to --seconds: another machine or moment gives another; --steps is reproducible\n");
    fflush(stdout);
}

// A resumed run: its settings come from the checkpoint, whatever else is known of it must agree.
static int open_checkpoint(run *r) {
    char path[ARGS_PATH];
    const char *seconds;
    r->from = ctm_file_read(&r->memory, out_path(r, "checkpoint.safetensors", path));
    if (!r->from) return args_fail(r->line, sizeof r->line, "--resume: %s", ctm_error(&r->ctx));
    if (!ctm_file_meta(r->from, "images.phase") || !ctm_file_meta(r->from, "images.data"))
        return args_fail(r->line, sizeof r->line, "--resume: %s: is not a checkpoint of `images train`", path);
    seconds = ctm_file_meta(r->from, "images.seconds");
    r->seconds = seconds ? strtod(seconds, NULL) : 0;
    return restore_settings(&r->flags, r->from, r->line, sizeof r->line);
}

static int same_hash(run *r, const char *key, uint64_t hash, const char *what) {
    return same_hash_in(r->from, key, hash) ? 1 : args_fail(r->line, sizeof r->line, "%s: %s is not the one this run began with", r->from->path, what);
}

static int train_student(run *r) {
    ctm_trainer *tr = r->tr = trainer(r, &r->memory, &r->cfg, r->teacher);
    const int resumed = resume_phase(r, tr, "student");
    int state;
    if (resumed < 0) return wrong(r->line);
    if (resumed && !same_hash(r, "images.teacher_hash", r->teacher_hash, "the teacher")) return wrong(r->line);
    if (!r->set.common.quiet) print_shape(&r->cfg, tr->theta->len, 1);
    state = train(r, tr);
    if (state < 0) return wrong(r->line);
    if (state == 0) return stopped(r, tr);
    run_leave_signals();               // nothing is lost any more: from here on a signal ends the program
    return results(r, tr->ema[0]);
}

static int train_run(run *r) {
    int status;
    if (r->set.resume && !open_checkpoint(r)) return wrong(r->line);
    if (!r->set.data) return misused("flag --data: is missing; expected a folder or files of images, e.g. of `images synth`");
    if (!data_open(&r->data, r->set.data, r->line, sizeof r->line)) return wrong(r->line);
    if (r->data.rows == 0) return wrong("the data: expected at least one image to train on");
    if (r->set.shape.classes && !check_labels(&r->data, (int)r->set.shape.classes, r->set.data, r->line, sizeof r->line)) return wrong(r->line);
    status = configure(r);
    if (status) return status;
    if (!args_mkdir(r->set.common.out, r->line, sizeof r->line)) return wrong(r->line);
    if (r->from && !same_hash(r, "images.data_hash", r->data.hash, r->set.data)) return wrong(r->line);
    if (strcmp(r->set.teacher, "learned") != 0 && strcmp(r->set.teacher, "none") != 0 && !load_teacher(r, r->set.teacher)) return wrong(r->line);
    plan_steps(r);
    report_settings(r);
    if (r->teacher_steps > 0) {
        const int state = learn_teacher(r);
        if (state < 1) return state < 0 ? wrong(r->line) : 0;
    }
    return train_student(r);
}

static int train_with(run *r) {
    int status;
    ctm_init(&r->ctx);
    r->ctx.threads = (int)r->set.common.threads;
    ctm_arena_init(&r->memory, &r->ctx, "model");
    ctm_arena_init(&r->scratch, &r->ctx, "scratch");
    r->losses = (run_losses *)ctm_alloc(&r->memory, sizeof *r->losses);
    run_catch_signals();
    status = train_run(r);
    if (r->tr) ctm_trainer_free(r->tr);
    image_close(&r->data.set);
    ctm_arena_free(&r->scratch);
    ctm_arena_free(&r->memory);
    return status;
}

static int train_main(int argc, char **argv) {
    static run r;
    settings *s = &r.set;
    int status;
    s->common = args_common_defaults("out/images");
    s->teacher = "learned";
    s->shape.dropout = -1;
    s->sheet_seconds = SHEET_SECONDS;
    const args_option options[] = {
        {"data",          ARGS_TEXT,   &s->data,          0, 0,   NULL, "a folder, or files A,B,...: CIFAR-10's binary batches, idx, .npy"},
        SHAPE_OPTIONS(s->shape),
        {"teacher",       ARGS_TEXT,   &s->teacher,       0, 0,   NULL, "learned (from the data, before the student), none, or a safetensors file"},
        {"steps",         ARGS_INT,    &s->steps,         1, 1e9, NULL, "number of training steps of the student; the --config's if not given"},
        {"teacher-steps", ARGS_INT,    &s->teacher_steps, 1, 1e9, NULL, "of a learned teacher; twice --steps if not given"},
        {"seconds",       ARGS_REAL,   &s->seconds,       1, 1e7, NULL, "instead of both: train about so long, half of it a learned teacher (not reproducible)"},
        {"batch",         ARGS_INT,    &s->batch,         1, 65536, NULL, "images per step; the --config's if not given"},
        {"shards",        ARGS_INT,    &s->shards,        1, 256, NULL, "pieces of a batch: at most so many threads have work; decides rounding; 4 if not given"},
        {"lr",            ARGS_REAL,   &s->lr,            1e-9, 10, NULL, "learning rate; the --config's if not given"},
        {"flips",         ARGS_CHOICE, &s->flips,         0, 0,   "auto,on,off", "mirror every other image; auto: those in colour"},
        {"match",         ARGS_CHOICE, &s->match,         0, 0,   "soft,local,global", "u anywhere between t and s; u one grid step after t; u = s"},
        {"law",           ARGS_CHOICE, &s->law,           0, 0,   "gap,authors", "which jumps (t,u,s) are practised"},
        {"gan",           ARGS_FLAG,   &s->gan,           0, 0,   NULL, "adversarial loss in the last four tenths of the steps, every other one trains the discriminator"},
        {"gan-loss",      ARGS_CHOICE, &s->gan_loss,      0, 0,   "hinge,log,minimax", "hinge: the authors' code; log: the paper's, with a live gradient; minimax: the paper to the letter"},
        {"resume",        ARGS_FLAG,   &s->resume,        0, 0,   NULL, "go on from checkpoint.safetensors in --out"},
        {"stop-at",       ARGS_INT,    &s->stop_at,       1, 1e9, NULL, "stop after this step of the student as if interrupted; --resume goes on"},
        {"sheet-seconds", ARGS_REAL,   &s->sheet_seconds, 0.1, 1e7, NULL, "time between two checkpoints with a contact sheet"},
        ARGS_COMMON(s->common)
    };
    status = args_parse("images", "images train --data FILE [flags]      (also: images sample|eval|info|synth --help)", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_exit_status(status);
    if (s->seconds > 0 && (s->steps || s->teacher_steps)) return misused("flags --steps and --seconds: give one of them");
    if (s->seconds > 0 && s->resume) return misused("flags --seconds and --resume: the number of steps is kept in the checkpoint");
    if (s->gan_loss && !s->gan && !s->resume) return misused("flag --gan-loss: goes with --gan");
    if (s->teacher_steps && strcmp(s->teacher, "learned") != 0 && !s->resume) return misused("flag --teacher-steps: goes with --teacher learned");
    r.flags.program = "images";
    r.flags.kept = kept_flags;
    r.flags.kept_count = ARGS_COUNT(kept_flags);
    r.flags.option = options;
    r.flags.options = ARGS_COUNT(options);
    r.flags.argc = argc;
    r.flags.argv = argv;
    return train_with(&r);
}

// ---- images synth ------------------------------------------------------------------------------------------------------

static int synth_main(int argc, char **argv) {
    args_common common = args_common_defaults("out/shapes.bin");
    long long n = 10000;
    int status;
    char err[600];
    args_file file;
    FILE *f;
    const args_option options[] = {
        {"n", ARGS_INT, &n, 1, 1e9, NULL, "how many images"},
        ARGS_COMMON(common)
    };
    status = args_parse("images", "images synth --out FILE.bin [--n N]", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_exit_status(status);
    const ctm_rng rng = ctm_stream((uint64_t)common.seed, "synth");
    char folder[ARGS_PATH] = "";
    size_t k = strlen(common.out);
    while (k > 0 && !args_is_slash(common.out[k - 1])) k--;
    if (k > 1 && k < sizeof folder) {
        memcpy(folder, common.out, k - 1);
        if (!args_mkdir(folder, err, sizeof err)) return wrong(err);
    }
    f = args_open_atomic(&file, common.out, err, sizeof err);
    if (!f) return wrong(err);
    for (long long i = 0; i < n; i++) {
        unsigned char record[IMAGE_RECORD];
        double draw[IMAGE_SYNTH_DRAWS];
        for (int j = 0; j < IMAGE_SYNTH_DRAWS; j++) draw[j] = ctm_uniform(&rng, (uint64_t)i, (uint64_t)j);
        image_synth(draw, record);
        fwrite(record, 1, sizeof record, f);
    }
    if (!args_close_atomic(&file, err, sizeof err)) return wrong(err);
    if (!common.quiet) printf("%lld images of ten kinds of shapes in %s, CIFAR-10's format\n", n, common.out);
    return 0;
}

int main(int argc, char **argv) {
    const int command = args_command("images", "train,synth", &argc, &argv);
    if (command < 0) return 2;
    if (command == 1) return synth_main(argc, argv);
    return train_main(argc, argv);
}
