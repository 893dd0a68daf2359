/* images.c - consistency trajectory models of images: train, sample, evaluate

   images synth --out out/shapes.bin --n 20000
       a set of drawn shapes in CIFAR-10's format, so that a first run needs no download.
   images train --data DIR|FILE[,FILE...] --config tiny|compact|ddpmpp --out DIR
       first a teacher by denoising score matching (or --teacher FILE), then the CTM, which begins with the teacher's weights.
       Leaves in DIR: samples.png (a column is one noise; rows: 1, 2, 4, 18 jumps, the teacher's solver), onestep.png, loss.svg, loss.csv,
       teacher_loss.csv, metrics.csv, teacher.safetensors, model.safetensors, checkpoint.safetensors. --resume goes on, bit for bit.
       --distance lpips --lpips FILE compares by LPIPS, as the paper does, with weights that apps/to_safetensors.py makes.
   images sample --weights W.safetensors --sampler gamma|exact|cm|onestep|heun|euler|dpm|ancestral --nfe N --n K --out F.png|.npy|.npz
   images eval --weights W.safetensors --data DIR|FILE [--teacher FILE] [--features FILE] --out DIR
       held-out loss by noise level, jumps against the teacher's solver, bits per dimension, Frechet distance, nearest training images.
   images info --weights W.safetensors   or   images info --config compact
       the configuration, and every parameter with its shape.

   Exit status: 0 done; 1 the world is wrong (a file, the disk), one line on stderr says what; 2 wrong usage; 3 stopped by a signal, the
   state is saved.

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
    WHOLE_JUMPS   = 18,         // Heun's steps in the sheet's last row, the student's jumps above it
    SHEET_ROWS    = 4
};
static const int sheet_jumps[SHEET_ROWS] = {1, 2, 4, WHOLE_JUMPS};
#define LABEL_DROPOUT 0.1
#define GAN_START     0.6
#define TEACHER_LR    2             // over the student's: the teacher begins from nothing
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

// The context's reason into line; returns 0.
static int failed_line(char *line, size_t size, const ctm_ctx *ctx) { return args_fail(line, size, "%s", ctm_error(ctx)); }

// ---- Data --------------------------------------------------------------------------------------------------------------

typedef struct dataset {
    image_set set;
    size_t    rows, held;       // images 0 .. rows-1 are trained on, the last `held` are not
    int       flips;            // mirror every other image
    uint64_t  hash;
} dataset;

#define RANGE_OPTION(target) {"range", ARGS_TEXT, &(target), 0, 0, NULL, "BLACK,WHITE: these numbers of --data; 0,255 of bytes and -1,1 of floats if not given"}

static const char *plural(size_t n) { return n == 1 ? "" : "s"; }

static int misused_range(const char *range) {
    char line[200];
    snprintf(line, sizeof line, "flag --range: found \"%.60s\", expected two different numbers, those of black and white: 0,1", range);
    return misused(line);
}

// range: of the flag, or NULL.
static int data_open(dataset *d, const char *path, const char *range, char *err, size_t errlen) {
    double numbers[2];
    char doubt[600];
    memset(d, 0, sizeof *d);
    if (range) image_range(range, numbers);
    if (!image_open_scaled(&d->set, path, range ? numbers : NULL, err, errlen)) return 0;
    d->held = d->set.n/10 < (size_t)HELD_OUT ? d->set.n/10 : (size_t)HELD_OUT;
    d->rows = d->set.n - d->held;
    d->hash = image_fingerprint(&d->set);
    if (image_doubtful(&d->set, doubt, sizeof doubt)) fprintf(stderr, "note: %s\n", doubt);
    return image_intact(&d->set, err, errlen);
}

// Which image sample `index` is. Two draws of 24 bits, since a set may have more than 2^24 images.
static size_t drawn_image(const dataset *d, const ctm_rng *rng, uint64_t step, uint64_t index) {
    const double u = ctm_uniform(rng, step, 4*index) + (ctm_uniform(rng, step, 4*index + 1) - 0.5)/16777216.0;
    const size_t i = (size_t)(u*(double)d->rows);
    return i < d->rows ? i : d->rows - 1;
}

// A ctm_draw_fn and its ctm_label_fn.
static void draw_image(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    dataset *d = (dataset *)user;
    image_get(&d->set, drawn_image(d, rng, step, index), d->flips && ctm_uniform(rng, step, 4*index + 2) < 0.5, x0);
}
static int drawn_label(void *user, const ctm_rng *rng, uint64_t step, uint64_t index) {
    dataset *d = (dataset *)user;
    return image_label(&d->set, drawn_image(d, rng, step, index));
}

// Every label must be below `classes`.
static int check_labels(dataset *d, int classes, const char *path, char *err, size_t errlen) {
    if (!d->set.classes) return args_fail(err, errlen, "%s: has no labels, but --classes %d asks for them", path, classes);
    for (size_t i = 0; i < d->set.n; i++)
        if (image_label(&d->set, i) < 0 || image_label(&d->set, i) >= classes)
            return args_fail(err, errlen, "%s: image %lu has label %d, out of range: %d classes take 0 to %d", path, (unsigned long)i,
                             image_label(&d->set, i), classes, classes - 1);
    return image_intact(&d->set, err, errlen);
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
    {"attn",           ARGS_TEXT,   &(f).attn,    0, 0,      NULL, "sizes of the levels with attention, 16,8; none: at the bottom only; the --config's if not given"}, \
    {"classes",        ARGS_INT,    &(f).classes, 1, 256,    NULL, "learn the labels 0 ... K-1 of the data; without it labels are not looked at"}, \
    {"dropout",        ARGS_REAL,   &(f).dropout, 0, 0.9,    NULL, "in every block; the --config's if not given"}

// "1,2,2" into a list of at most max numbers; 0 ends a shorter one. 0 if it is no such list.
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

// tiny is for two cores and twenty minutes. Widths of 16 down to half the size and 32 below cost 0.6 of 16, 32, 32 for an image and learn as
// much in a step; the fourth level, of 4 x 4 pixels, and attention at a quarter of the size let the network see a shape as one thing.
static void preset(ctm_config *c, int which, int size) {
    static const int mults[3][4] = {{1, 1, 2, 2}, {1, 2, 2, 0}, {2, 2, 2, 0}}, width[3] = {16, 32, 128}, blocks[3] = {1, 2, 4};
    int side = size, levels = 1;
    memset(c->channel_mult, 0, sizeof c->channel_mult);
    memcpy(c->channel_mult, mults[which], sizeof mults[which]);
    c->model_channels = width[which];
    c->num_blocks = blocks[which];
    c->dropout = which == DDPMPP ? 0.13 : 0;
    while (levels < 4 && c->channel_mult[levels] && side%2 == 0 && side >= 8) { side /= 2; levels++; }     // the levels that the size allows: 28, 14, 7
    for (int l = levels; l < 4; l++) c->channel_mult[l] = 0;
}

static int levels_of(const ctm_config *c) {
    int levels = 0;
    while (levels < 8 && c->channel_mult[levels]) levels++;
    return levels;
}

// An odd size leaves one level, with attention between all of its pixels. That goes for small images; for large ones say what does.
static int check_bottom(const ctm_config *c, const shape_flags *f) {
    const int levels = levels_of(c), bottom = c->size >> (levels - 1), more = (c->size + 7)/8*8 - c->size;
    char line[400];
    if (f->mult || bottom <= 64 || more == 0) return 0;
    snprintf(line, sizeof line, "images of %d x %d pixels cannot be halved often enough for attention over those of the last level, %d x %d; "
             "pad them to %d x %d: numpy.pad(x, ((0,0),(0,%d),(0,%d),(0,0)), 'edge') of uint8 [n,h,w,c]", c->size, c->size, bottom, bottom, c->size + more,
             c->size + more, more, more);
    return misused(line);
}

// The network that the flags describe, for images of this size. Returns the exit status of wrong usage, or 0.
static int shape_config(ctm_ctx *ctx, ctm_config *c, const shape_flags *f, int size, int channels) {
    preset(c, f->config, size);
    c->size = size;
    c->channels = channels;
    c->classes = (int)f->classes;
    c->label_dropout = f->classes ? LABEL_DROPOUT : 0;
    if (f->width)        c->model_channels = (int)f->width;
    if (f->blocks)       c->num_blocks = (int)f->blocks;
    if (f->dropout >= 0) c->dropout = f->dropout;
    if (f->mult && !int_list(f->mult, 8, c->channel_mult)) return misused("flag --channel-mult: expected at most eight numbers, like 1,2,2");
    memset(c->attn, 0, sizeof c->attn);
    if (levels_of(c) > 1) c->attn[0] = f->config == TINY && c->channel_mult[2] ? size/4 : size/2;
    if (f->attn && strcmp(f->attn, "none") == 0) c->attn[0] = 0;
    else if (f->attn && !int_list(f->attn, 4, c->attn)) return misused("flag --attn: expected at most four sizes, like 16,8, or none");
    if (!ctm_unet_fits(ctx, c)) {
        char line[600];
        snprintf(line, sizeof line, "%.500s; see --channel-mult and --attn", ctm_error(ctx));
        return misused(line);
    }
    return check_bottom(c, f);
}

// What images want other than ctm_config_default(). The figures were tried out with tiny on drawn shapes (PAPER_NOTES.md, results on images).
static void recipe(ctm_config *c, int which) {
    *c = ctm_config_default();
    c->diagonal = CTM_DIAG_DSM;                      // the teacher is no exact denoiser; weighted as the authors do
    c->adaptive = 1;
    c->lambda_dsm = 1;
    c->substeps = 1;                                 // the teacher is a network: every solver step costs two evaluations
    c->law_mix = 0.6;                                // six draws in ten go straight to the end, as one-step samples do:
    c->s_smallest = 1;                               //     s = sigma_min,
    c->max_gap = 6;                                  //     and the teacher walks 4.3 grid steps on average, not the authors' 11.7
    c->law_power = -1;                               // the others practise jumps from t to s that the teacher walks whole, short ones most
    c->law_to_end = 0.05;
    c->batch = which == TINY ? 16 : 64;              // tiny: in a short training many small steps learn more than few large ones
    c->diagonal_batch = (c->batch + 1)/2;            // the student begins as its teacher: it need not learn to denoise, only not forget it
    c->shards = 4;
    c->lr = which == TINY ? 2e-3 : which == COMPACT ? 6e-4 : 2e-4;
    c->clip = 1;
    c->steps = which == TINY ? 5000 : which == COMPACT ? 40000 : 100000;
    c->gan_lr = 2e-4;
}

// A teacher's step costs a quarter of a student's, and no student is better than its teacher: this many steps for one of the student's.
static long teacher_share(int which) { return which == TINY ? 4 : 2; }

static ctm_config teacher_config(const ctm_config *student, long steps) {
    ctm_config c = ctm_config_teacher(student);
    c.diagonal_batch = c.batch;
    c.lr = TEACHER_LR*student->lr;
    c.beta2 = student->beta2;
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

static const int *labels_from(const int *label, size_t first) { return label ? label + first : NULL; }

static ctm_tensor *draw_chunk(ctm_tape *tp, const drawing *q, ctm_tensor *x, size_t first) {
    static const int method[] = {CTM_HEUN, CTM_EULER, CTM_DPM2, CTM_ANCESTRAL};
    ctm_sampler how = ctm_sampler_default();
    const int labelled = q->net->classes > 0 && q->label != NULL;
    tp->rows.label = labels_from(q->label, first);
    how.rng = &q->rng;
    how.first_row = first;
    how.noise = noise_of(q, tp->arena, first, (size_t)x->shape[0]);
    how.form = q->form ? CTM_FORM_AUTHORS : CTM_FORM_PAPER;
    how.gamma = q->sampler == BY_GAMMA ? q->gamma : q->sampler == BY_CM;
    if (by_score(q->sampler))
        return ctm_sample_score(tp, labelled ? ctm_guided_denoiser(tp->arena, q->net, q->guidance) : ctm_net_denoiser(tp->arena, q->net),
                                method[q->sampler - BY_HEUN], x, q->steps, q->ts, &how);
    return ctm_sample_gamma(tp, labelled ? ctm_guided_jump(tp->arena, q->net, q->guidance) : ctm_net_jump(tp->arena, q->net), x, q->steps, q->ts, &how);
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
        const size_t rows = n - first < (size_t)CHUNK ? n - first : (size_t)CHUNK;
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
    const char *data, *range, *teacher, *lpips;
    long long   steps, teacher_steps, batch, shards, stop_at, save_every;      // 0: the recipe's
    double      seconds, lr, sheet_seconds;
    int         match, law, distance, flips, gan, gan_loss, resume;
} settings;

enum { PIXELS, LPIPS };                            // --distance

typedef struct run {
    settings            set;
    run_settings        flags;
    run_lock            lock;
    ctm_ctx             ctx;
    ctm_arena           memory, scratch;
    dataset             data;
    ctm_config          cfg;
    long                teacher_steps;             // of a learned teacher; 0: none is learned
    const ctm_denoiser *teacher;                   // NULL: none
    ctm_net            *teacher_net;
    uint64_t            teacher_hash;              // of its weights
    ctm_lpips          *lpips;                     // the perceptual distance of --lpips, or NULL
    uint64_t            lpips_hash;
    ctm_trainer        *tr;
    run_losses         *losses;
    double              seconds;                   // spent on training, all phases
    double              teacher_seconds;           // of these on a learned teacher
    double              images_per_second;         // of the phase at work
    const ctm_file     *from;                      // the checkpoint of a resumed run
    char                line[600];                 // the last error
} run;

static const char *const kept_flags[] = {"data", "range", "config", "model-channels", "channel-mult", "num-blocks", "attn", "classes", "dropout", "teacher",
                                         "teacher-steps", "match", "law", "distance", "lpips", "seed", "steps", "batch", "shards", "lr", "flips",
                                         "gan", "gan-loss"};

// Files are known by their hash: a resumed run takes them from wherever they are now.
static int names_file(const char *flag, const char *value) {
    return strcmp(flag, "data") == 0 || strcmp(flag, "lpips") == 0 || (strcmp(flag, "teacher") == 0 && strcmp(value, "learned") != 0 && strcmp(value, "none") != 0);
}

static int option_hidden(const void *of, const char *flag) { return strcmp(flag, "gan-loss") == 0 && !((const settings *)of)->gan; }

static const char *out_path(run *r, const char *file, char *path) {
    args_join(path, ARGS_PATH, r->set.common.out, file);
    return path;
}

static int failed(run *r) { return failed_line(r->line, sizeof r->line, &r->ctx); }

// 0, or the exit status of wrong usage.
static int configure(run *r) {
    ctm_config *c = &r->cfg;
    const settings *s = &r->set;
    int status;
    recipe(c, s->shape.config);
    status = shape_config(&r->ctx, c, &s->shape, r->data.set.size, r->data.set.channels);
    if (status) return status;
    c->match = s->match == 0 ? CTM_SOFT : s->match == 1 ? CTM_LOCAL : CTM_GLOBAL;
    if (s->law == 1) {
        c->law = CTM_LAW_AUTHORS;
        c->s_smallest = 0;
        c->max_gap = 17;
    }
    c->seed = (uint64_t)s->common.seed;
    if (s->distance == LPIPS) c->compare = CTM_AT_ZERO;        // a network that knows photographs has no judgement of noise
    if (strcmp(s->teacher, "none") == 0) c->adaptive = 0;      // without a teacher the data are the only source of truth: full weight
    if (s->gan)    c->gan = CTM_GAN_HINGE + s->gan_loss;
    if (s->batch)  c->batch = (int)s->batch;
    c->diagonal_batch = strcmp(s->teacher, "none") == 0 ? c->batch : (c->batch + 1)/2;
    if (s->shards) c->shards = (int)s->shards;
    if (s->lr > 0) c->lr = s->lr;
    if (s->steps)  c->steps = (long)s->steps;
    r->data.flips = s->flips == 1 || (s->flips == 0 && r->data.set.channels == 3);
    return 0;
}

// The student begins as its teacher: with the teacher's weights and no word yet from s, so that g(x,t,s) = D(x,t) and a jump is one
// step of Euler's. Random weights for s would first triple the denoising loss.
static void begin_as(ctm_net *net, const ctm_net *teacher) {
    ctm_net_copy_matching(net, teacher);
    for (int p = 0; p < net->count; p++)
        if (strstr(net->param[p]->name, ".affine_s.")) memset(net->param[p]->data, 0, net->param[p]->len*sizeof(ctm_real));
}

static ctm_trainer *trainer(run *r, ctm_arena *a, const ctm_config *cfg, const ctm_denoiser *teacher) {
    ctm_net *net = ctm_unet(a, cfg, cfg->consistency);
    if (cfg->consistency && r->teacher_net) begin_as(net, r->teacher_net);
    ctm_trainer *tr = ctm_trainer_new(a, cfg, net, teacher, draw_image, &r->data);
    if (cfg->classes) {
        tr->label = drawn_label;
        tr->label_user = &r->data;
    }
    if (cfg->consistency && r->lpips) {
        tr->distance = ctm_lpips_distance;
        tr->distance_user = r->lpips;
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
    r->teacher_steps = !learned ? 0 : r->set.teacher_steps ? (long)r->set.teacher_steps : teacher_share(r->set.shape.config)*r->cfg.steps;
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
    r->cfg.gan_start = (long)(GAN_START*(double)r->cfg.steps + 1e-9);
}

// ---- Pictures of a run -------------------------------------------------------------------------------------------------

// Rows of images that begin with the same noises: 1, 2, 4, 18 jumps of the student, then the teacher's Heun.
static int write_sheet(run *r, ctm_net *net) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    const size_t n = SHEET_COLUMNS, size = n*(size_t)net->dim;
    const ctm_real *x = start_noise(&r->scratch, r->cfg.seed, net, n);
    ctm_real *y = (ctm_real *)ctm_alloc(&r->scratch, (SHEET_ROWS + 1)*size*sizeof *y);
    const int *label = labels_in_turn(&r->scratch, net, n);
    char path[ARGS_PATH];
    size_t rows = 0;
    int ok = 1;
    for (int k = 0; net->with_s && k < SHEET_ROWS; k++) {
        drawing q = drawing_of(&r->scratch, net, BY_EXACT, sheet_jumps[k]);
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
    if (r->lpips) note_hash(t, "images.lpips_hash", r->lpips_hash);
    note_number(t, "images.seconds", r->seconds);
    note_number(t, "images.teacher_seconds", r->teacher_seconds);
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
    char text[120] = "", why[500];
    args_progress line;
    args_progress_begin(&line, tr->step, tr->cfg.steps, 0, r->set.common.quiet);
    while (tr->step < tr->cfg.steps && tr->step < stop_at && !asked_to_stop) {
        if (!ctm_train_step(tr)) {
            args_progress_end(&line, tr->step, text);
            args_fail(r->line, sizeof r->line, "%s; try a smaller --lr (the last checkpoint is untouched)", ctm_error(&r->ctx));
            return -1;
        }
        if (!image_intact(&r->data.set, why, sizeof why)) {          // this step has seen images that are none: its state is not kept
            args_progress_end(&line, tr->step, text);
            args_fail(r->line, sizeof r->line, "%s (the last checkpoint is untouched)", why);
            return -1;
        }
        run_losses_add(r->losses, tr);
        worked += args_seconds() - now;
        r->seconds += args_seconds() - now;
        now = args_seconds();
        r->images_per_second = (double)(tr->step - begun)*tr->cfg.batch/(worked > 0 ? worked : 1e-9);
        losses_text(tr, r->images_per_second, text, sizeof text);
        args_progress_step(&line, tr->step, text);
        if (r->set.save_every && tr->step%(long)r->set.save_every == 0 && !save_checkpoint(r, tr)) return -1;
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

static int in_phase(const run *r, const char *phase) { return r->from && strcmp(ctm_file_meta(r->from, "images.phase"), phase) == 0; }

// 1 if the checkpoint belongs to this phase and was loaded into tr, 0 if not, -1 on an error.
static int resume_phase(run *r, ctm_trainer *tr, const char *phase) {
    if (!in_phase(r, phase)) return 0;
    if (!ctm_checkpoint_load(&r->scratch, tr, r->from->path)) { failed(r); return -1; }
    if (tr->note[0]) fprintf(stderr, "note: %s\n", tr->note);
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

// LPIPS looks at images of 1 or 3 channels, from 256 pixels on at multiples of 16.
static int load_lpips(run *r, const char *path) {
    const image_set *s = &r->data.set;
    if (s->channels != 1 && s->channels != 3)
        return args_fail(r->line, sizeof r->line, "%s: LPIPS looks at images in grey or RGB, but the data have %d channels",
                         path, s->channels);
    if (s->size >= 256 && s->size%16)
        return args_fail(r->line, sizeof r->line,
                         "%s: LPIPS looks at images below 256 pixels or of a multiple of 16, but the data are %d x %d", path, s->size, s->size);
    r->lpips = ctm_lpips_load(&r->memory, path, s->size, s->channels);
    if (!r->lpips) return failed(r);
    r->lpips_hash = hash_bytes(r->lpips->net->theta, r->lpips->net->len*sizeof(ctm_real));
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
    if (state < 1) return state;
    if (!save_model(r, tr->ema[0], &cfg, "teacher.safetensors") || !write_sheet(r, tr->ema[0]) ||
        !run_losses_write(r->losses, out_path(r, "teacher_loss.csv", path), r->line, sizeof r->line)) return -1;
    if (!r->set.common.quiet)
        printf("teacher learned: %ld steps, L_dsm %.4f, %.0f s, %.0f images/s\n", tr->step, r->losses->row[r->losses->n - 1][RUN_L_DSM], r->seconds, r->images_per_second);
    r->teacher_seconds = r->seconds;
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
    ctm_output file;
    char number[ARGS_NUMBER];
    FILE *f = args_open_atomic(&file, path, err, errlen);
    if (!f) return 0;
    fprintf(f, "name,value\n");
    for (int i = 0; i < m->n; i++) fprintf(f, "%s,%s\n", m->name[i], args_number(number, m->value[i], 6));
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
    measure(m, "teacher_seconds", r->teacher_seconds);
    measure(m, "train_seconds", r->seconds);
    measure(m, "images_per_second", r->images_per_second);
    measure(m, "memory_mb", (double)r->ctx.high/1048576);
    if (!save_model(r, net, &r->cfg, "model.safetensors") || !write_sheet(r, net) || !write_onestep(r, net) || !write_losses(r) ||
        !write_measures(m, out_path(r, "metrics.csv", path), r->line, sizeof r->line)) return wrong(r->line);
    for (int i = 0; i < m->n; i++) printf("%-28s %.4g\n", m->name[i], m->value[i]);
    printf("look at %s/samples.png (rows: 1, 2, 4, %d jumps%s) and %s/onestep.png\n", r->set.common.out, WHOLE_JUMPS,
           r->teacher_net ? ", the teacher's Heun" : "", r->set.common.out);
    return 0;
}

// ---- images train ------------------------------------------------------------------------------------------------------

static void report_settings(run *r) {
    const image_set *s = &r->data.set;
    if (r->set.common.quiet) return;
    printf("%s\nctm.h %s, %s; %lu images of %d x %d x %d for training, %lu held out; %s\n", run_command(&r->scratch, &r->flags), CTM_VERSION, ctm_isa_name(r->ctx.isa), (unsigned long)r->data.rows,
           s->size, s->size, s->channels, (unsigned long)r->data.held, r->data.flips ? "every other one mirrored" : "none mirrored");
    if (r->set.seconds > 0) printf("the number of steps was fitted to --seconds: another machine or moment gives another; --steps is reproducible\n");
    fflush(stdout);
}

// A resumed run: its settings come from the checkpoint, whatever else is known of it must agree.
static int open_checkpoint(run *r) {
    char path[ARGS_PATH];
    r->from = ctm_file_read(&r->memory, out_path(r, "checkpoint.safetensors", path));
    if (!r->from) return args_fail(r->line, sizeof r->line, "--resume: %s", ctm_error(&r->ctx));
    if (!ctm_file_meta(r->from, "images.phase") || !ctm_file_meta(r->from, "images.data"))
        return args_fail(r->line, sizeof r->line, "--resume: %s: is not a checkpoint of `images train`", path);
    r->seconds = run_number(r->from, "images.seconds");
    r->teacher_seconds = run_number(r->from, "images.teacher_seconds");
    return restore_settings(&r->flags, r->from, &r->memory, r->line, sizeof r->line);
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
    if (state == 0) return run_stopped(&r->flags, &r->scratch, tr);
    run_leave_signals();               // nothing is lost any more: from here on a signal ends the program
    return results(r, tr->ema[0]);
}

static int train_run(run *r) {
    double numbers[2];
    int status;
    if (r->set.resume && !open_checkpoint(r)) return wrong(r->line);
    if (!r->set.data) return misused("flag --data: is missing; expected a folder or files of images, e.g. of `images synth`");
    if (r->set.range && !image_range(r->set.range, numbers)) return misused_range(r->set.range);
    if (!data_open(&r->data, r->set.data, r->set.range, r->line, sizeof r->line)) {
        const size_t n = strlen(r->line);
        if (r->from) args_fail(r->line + n, sizeof r->line - n, "; if the data have moved, --data says where to");
        return wrong(r->line);
    }
    if (r->data.rows == 0) return wrong("the data: expected at least one image to train on");
    if (r->set.shape.classes && !check_labels(&r->data, (int)r->set.shape.classes, r->set.data, r->line, sizeof r->line)) return wrong(r->line);
    status = configure(r);
    if (status) return status;
    if (r->from && !same_hash(r, "images.data_hash", r->data.hash, r->set.data)) return wrong(r->line);
    if (strcmp(r->set.teacher, "learned") != 0 && strcmp(r->set.teacher, "none") != 0 && !load_teacher(r, r->set.teacher)) return wrong(r->line);
    if (r->set.distance == LPIPS && !load_lpips(r, r->set.lpips)) return wrong(r->line);
    if (r->from && r->lpips && !same_hash(r, "images.lpips_hash", r->lpips_hash, "the file of --lpips")) return wrong(r->line);
    if (!args_mkdir(r->set.common.out, r->line, sizeof r->line) || !run_take(&r->lock, r->set.common.out, r->line, sizeof r->line)) return wrong(r->line);
    if (!r->set.resume) run_say_earlier(r->set.common.out);
    plan_steps(r);
    report_settings(r);
    if (r->teacher_steps > 0) {
        const int state = learn_teacher(r);
        if (state < 1) return state < 0 ? wrong(r->line) : run_stopped(&r->flags, &r->scratch, r->tr);
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
    r->lock.held = -1;
    run_catch_signals();
    status = train_run(r);
    run_release(&r->lock);
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
        RANGE_OPTION(s->range),
        SHAPE_OPTIONS(s->shape),
        {"teacher",       ARGS_TEXT,   &s->teacher,       0, 0,   NULL, "learned (from the data, before the student), none, or a safetensors file"},
        {"steps",         ARGS_INT,    &s->steps,         1, 1e9, NULL, "number of training steps of the student; the --config's if not given"},
        {"teacher-steps", ARGS_INT,    &s->teacher_steps, 1, 1e9, NULL, "of a learned teacher; four times --steps if not given, twice unless tiny"},
        {"seconds",       ARGS_REAL,   &s->seconds,       1, 1e7, NULL, "instead of both: train about so long, half of it a learned teacher (not reproducible)"},
        {"batch",         ARGS_INT,    &s->batch,         1, 65536, NULL, "images per step; the --config's if not given"},
        {"shards",        ARGS_INT,    &s->shards,        1, 256, NULL, "pieces of a batch: at most so many threads have work; decides rounding; 4 if not given"},
        {"lr",            ARGS_REAL,   &s->lr,            1e-9, 10, NULL, "learning rate; the --config's if not given"},
        {"flips",         ARGS_CHOICE, &s->flips,         0, 0,   "auto,on,off", "mirror every other image; auto: those in colour"},
        {"match",         ARGS_CHOICE, &s->match,         0, 0,   "soft,local,global", "u anywhere between t and s; u one grid step after t; u = s"},
        {"law",           ARGS_CHOICE, &s->law,           0, 0,   "gap,authors", "which jumps (t,u,s) are practised"},
        {"distance",      ARGS_CHOICE, &s->distance,      0, 0,   "pixels,lpips", "of two jumps: by their pixels, or by LPIPS at time zero (the paper's)"},
        {"lpips",         ARGS_TEXT,   &s->lpips,         0, 0,   NULL, "LPIPS's weights, a safetensors file of apps/to_safetensors.py"},
        {"gan",           ARGS_FLAG,   &s->gan,           0, 0,   NULL, "adversarial loss in the last four tenths of the steps, every other one trains the discriminator"},
        {"gan-loss",      ARGS_CHOICE, &s->gan_loss,      0, 0,   "hinge,log,minimax", "hinge: the authors' code; log: the paper's, with a live gradient; minimax: the paper to the letter"},
        {"resume",        ARGS_FLAG,   &s->resume,        0, 0,   NULL, "go on from checkpoint.safetensors in --out"},
        {"stop-at",       ARGS_INT,    &s->stop_at,       1, 1e9, NULL, "stop after this step of the student as if interrupted; --resume goes on"},
        {"save-every",    ARGS_INT,    &s->save_every,    1, 1e9, NULL, "steps between two checkpoints, beside those with a contact sheet"},
        {"sheet-seconds", ARGS_REAL,   &s->sheet_seconds, 0.1, 1e7, NULL, "time between two checkpoints with a contact sheet"},
        ARGS_COMMON(s->common)
    };
    status = args_parse("images", "images train --data FILE [flags]      (also: images sample|eval|info|synth --help)", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_exit_status(status);
    if (s->seconds > 0 && (s->steps || s->teacher_steps)) return misused("flags --steps and --seconds: give one of them");
    if (s->seconds > 0 && s->resume) return misused("flags --seconds and --resume: the number of steps is kept in the checkpoint");
    if (s->distance == LPIPS && !s->lpips && !s->resume) return misused("flag --distance lpips: needs --lpips FILE.safetensors");
    if (s->distance != LPIPS && s->lpips && !s->resume) return misused("flag --lpips: goes with --distance lpips");
    if (s->gan_loss && !s->gan && !s->resume) return misused("flag --gan-loss: goes with --gan");
    if (s->teacher_steps && strcmp(s->teacher, "learned") != 0 && !s->resume) return misused("flag --teacher-steps: goes with --teacher learned");
    r.flags.program = "images";
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

// ---- images sample -----------------------------------------------------------------------------------------------------

typedef struct sampling {
    args_common common;
    shape_flags shape;
    const char *weights, *noise, *labels;
    long long   n, nfe, columns;
    double      gamma, guidance;
    int         sampler, form;
    npy_array   file;                   // of --noise
    int        *label;
    size_t      rows;
} sampling;

// Weights without our metadata: the network of the flags, filled by the authors' names, with "model." before them or without.
static ctm_net *load_foreign(ctm_arena *a, const ctm_file *f, const shape_flags *shape, char *err, size_t errlen) {
    const char *prefix = ctm_file_find(f, "model.map_layer0.weight") ? "model." : "";
    char with_s[64];
    ctm_config c;
    ctm_net *net;
    recipe(&c, shape->config);
    if (shape_config(a->ctx, &c, shape, (int)shape->size, (int)shape->channels)) {
        args_fail(err, errlen, "%s: has no metadata of ctm.h, and the flags describe no network", f->path);
        return NULL;
    }
    snprintf(with_s, sizeof with_s, "%smap_layer0_s.weight", prefix);
    net = ctm_unet(a, &c, ctm_file_find(f, with_s) != NULL);
    if (ctm_net_read(net, f, prefix)) return net;
    args_fail(err, errlen, "%s", ctm_error(a->ctx));
    return NULL;
}

static ctm_net *load_weights(ctm_arena *a, const char *path, const shape_flags *shape, char *err, size_t errlen) {
    const ctm_file *f = ctm_file_read(a, path);
    if (!f) { args_fail(err, errlen, "%s", ctm_error(a->ctx)); return NULL; }
    return ctm_file_meta(f, "ctm.format") ? load_images(a, path, NULL, err, errlen) : load_foreign(a, f, shape, err, errlen);
}

// Draws of noise that a sampler wants after the first.
static size_t draws_of(int sampler, int steps, double gamma) {
    if (sampler == BY_ANCESTRAL) return (size_t)steps;
    return sampler == BY_CM || (sampler == BY_GAMMA && gamma > 0) ? (size_t)steps - 1 : 0;
}

static int check_noise(const sampling *q, const ctm_net *net, size_t draws, char *err, size_t errlen) {
    const npy_array *f = &q->file;
    const size_t *s = f->shape + (f->ndim == 5);
    size_t where;
    if (f->ndim < 4 || s[1] != (size_t)net->channels || s[2] != (size_t)net->size || s[3] != (size_t)net->size || f->count == 0) {
        char found[120] = "";
        size_t at = 0;
        for (int i = 0; i < f->ndim; i++) at += (size_t)snprintf(found + at, sizeof found - at, i ? ",%lu" : "%lu", (unsigned long)f->shape[i]);
        return args_fail(err, errlen, "%s: found an array [%s], expected [n,%d,%d,%d], or [k,n,%d,%d,%d] with the noise of every draw", q->noise, found,
                         net->channels, net->size, net->size, net->channels, net->size, net->size);
    }
    if (f->ndim == 5 && f->shape[0] < draws + 1)
        return args_fail(err, errlen, "%s: found noise for %lu draws, expected %lu: the start and %lu on the way", q->noise, (unsigned long)f->shape[0],
                         (unsigned long)draws + 1, (unsigned long)draws);
    if (!npy_all_finite(f, &where)) return args_fail(err, errlen, "%s: number %lu is not finite", q->noise, (unsigned long)where);
    return 1;
}

// The starting points, and the noise on the way if the file has it.
static ctm_real *noise_of_file(const sampling *q, ctm_arena *a, drawing *d) {
    const ctm_net *net = d->net;
    const size_t dim = (size_t)net->dim, pixels = (size_t)net->size*(size_t)net->size, total = q->file.count/dim;
    ctm_real *all = (ctm_real *)ctm_alloc(a, total*dim*sizeof *all);
    for (size_t i = 0; i < total; i++) image_from_planes(pixels, net->channels, q->file.data + i*dim, all + i*dim);
    for (size_t i = 0; i < q->rows*dim; i++) all[i] = (ctm_real)(net->noise.sigma_max*(double)all[i]);
    if (total > q->rows) {
        d->rows = q->rows;
        d->noise = all + q->rows*dim;
    }
    return all;
}

static int write_images(const char *path, size_t n, const ctm_net *net, const ctm_real *x, int columns, char *err, size_t errlen) {
    if (ends_with(path, ".npy")) return image_write_npy(path, n, net->size, net->channels, x, err, errlen);
    if (ends_with(path, ".npz")) return image_write_npz(path, n, net->size, net->channels, x, err, errlen);
    return image_write_sheet(path, n, net->size, net->channels, x, columns, err, errlen);
}

static int sample_run(sampling *q, ctm_ctx *ctx, ctm_arena *a) {
    char err[600];
    ctm_net *net = load_weights(a, q->weights, &q->shape, err, sizeof err);
    const int steps = steps_of(q->sampler, q->nfe);
    size_t labels = 0;
    drawing d;
    ctm_real *x;
    if (!net) return wrong(err);
    if (!net->with_s && !by_score(q->sampler)) {
        args_fail(err, sizeof err, "%s: is a teacher, a network without s; it cannot jump: use --sampler heun, euler, dpm or ancestral", q->weights);
        return wrong(err);
    }
    d = drawing_of(a, net, q->sampler, steps);
    d.gamma = q->gamma;
    d.guidance = q->guidance;
    d.form = q->form;
    d.draws = draws_of(q->sampler, steps, q->gamma);
    d.rng = ctm_stream((uint64_t)q->common.seed, "sample.gamma");
    q->rows = (size_t)q->n;
    if (q->noise) {
        if (!npy_read_f32(q->noise, &q->file, err, sizeof err) || !check_noise(q, net, d.draws, err, sizeof err)) return wrong(err);
        q->rows = q->file.shape[q->file.ndim - 4];
    }
    if (q->labels) {
        if (!net->classes) { args_fail(err, sizeof err, "%s: was trained without --classes: it takes no labels", q->weights); return wrong(err); }
        if (!image_read_labels(q->labels, net->classes, &q->label, &labels, err, sizeof err)) return wrong(err);
        if (labels != q->rows) {
            args_fail(err, sizeof err, "%s: found %lu labels, expected %lu, one for each image", q->labels, (unsigned long)labels, (unsigned long)q->rows);
            return wrong(err);
        }
    }
    d.label = q->label;
    if (q->rows > (size_t)-1/64/(size_t)net->dim) {
        args_fail(err, sizeof err, "flag --n: %lu images of %d x %d x %d are more than this machine can count", (unsigned long)q->rows, net->size, net->size, net->channels);
        return wrong(err);
    }
    if (ends_with(q->common.out, ".png") && !image_sheet_fits(q->common.out, q->rows, net->size, net->channels, (int)q->columns, err, sizeof err)) return wrong(err);
    if (!image_can_write(q->common.out, err, sizeof err)) return wrong(err);
    x = q->noise ? noise_of_file(q, a, &d) : start_noise(a, (uint64_t)q->common.seed, net, q->rows);
    if (!draw_all(&d, q->rows, x, x)) return wrong(ctm_error(ctx));
    if (!write_images(q->common.out, q->rows, net, x, (int)q->columns, err, sizeof err)) return wrong(err);
    if (!q->common.quiet)
        printf("%lu image%s in %s%s\n", (unsigned long)q->rows, plural(q->rows), q->common.out,
               ends_with(q->common.out, ".npy") ? ", float32 [n,c,h,w]: -1 is black and 1 is white" : "");
    return 0;
}

static int check_sampling(const sampling *q, int argc, char **argv) {
    char line[600];
    if (!q->weights) return misused("flag --weights: is missing; expected a safetensors file");
    if (q->sampler == BY_HEUN && q->nfe%2 == 0) {
        snprintf(line, sizeof line, "flag --nfe: found %lld, but Heun needs an odd number: two evaluations a step, one for the last", q->nfe);
        return misused(line);
    }
    if (q->sampler == BY_DPM && q->nfe%2) {
        snprintf(line, sizeof line, "flag --nfe: found %lld, but dpm needs an even number: two evaluations a step", q->nfe);
        return misused(line);
    }
    if (q->sampler == BY_ONESTEP && q->nfe != 1) return misused("flag --nfe: --sampler onestep takes one evaluation");
    if (q->sampler != BY_GAMMA && args_given("gamma", argc, argv)) return misused("flag --gamma: goes with --sampler gamma");
    if (!q->labels && args_given("guidance", argc, argv)) return misused("flag --guidance: goes with --labels");
    if (q->noise && args_given("n", argc, argv)) return misused("flags --n and --noise: give one of them");
    if (!ends_with(q->common.out, ".png") && !ends_with(q->common.out, ".npy") && !ends_with(q->common.out, ".npz")) {
        args_fail(line, sizeof line, "flag --out: found \"%.400s\", expected a name that ends in .png, .npy or .npz", q->common.out);
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
    q.common = args_common_defaults("samples.png");
    q.n = 64;
    q.nfe = 1;
    q.columns = SHEET_COLUMNS;
    q.guidance = 1;
    q.shape.size = 32;
    q.shape.channels = 3;
    q.shape.dropout = -1;
    const args_option options[] = {
        {"weights",    ARGS_TEXT,   &q.weights, 0, 0,    NULL, "model.safetensors of a training folder, or weights with the authors' names"},
        {"n",          ARGS_INT,    &q.n,       1, 1e7,  NULL, "how many images"},
        {"noise",      ARGS_TEXT,   &q.noise,   0, 0,    NULL, "start from this .npy file: float32 [n,c,h,w] of unit variance, or [k,n,c,h,w] in the order drawn"},
        {"labels",     ARGS_TEXT,   &q.labels,  0, 0,    NULL, "a .npy file with the class of every image, -1: none"},
        {"guidance",   ARGS_REAL,   &q.guidance, 0, 100, NULL, "with --labels: 1 the class as learned, more exaggerates it, 0 ignores it"},
        {"sampler",    ARGS_CHOICE, &q.sampler, 0, 0,    SAMPLERS, "gamma: jumps with --gamma; exact: gamma 0; cm: gamma 1; onestep; the others: small steps of the network at s = t"},
        {"nfe",        ARGS_INT,    &q.nfe,     1, 1e6,  NULL, "network evaluations per image (heun: an odd number; dpm: an even one)"},
        {"gamma",      ARGS_REAL,   &q.gamma,   0, 1,    NULL, "share of fresh noise: 0 none, 1 all of it"},
        {"gamma-form", ARGS_CHOICE, &q.form,    0, 0,    "paper,authors", "how the level below the next one is chosen"},
        {"columns",    ARGS_INT,    &q.columns, 1, 1000, NULL, "images in a row of a .png"},
        {"size",       ARGS_INT,    &q.shape.size, 1, IMAGE_SIZE_MAX, NULL, "for weights without metadata: pixels along a side"},
        {"channels",   ARGS_INT,    &q.shape.channels, 1, 16, NULL, "for weights without metadata: 3 for RGB"},
        SHAPE_OPTIONS(q.shape),
        ARGS_COMMON(q.common)
    };
    status = args_parse("images", "images sample --weights W.safetensors [flags]      (network flags: for weights without metadata)", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_exit_status(status);
    status = check_sampling(&q, argc, argv);
    if (status) return status;
    ctm_init(&ctx);
    ctx.threads = (int)q.common.threads;
    ctm_arena_init(&a, &ctx, "sample");
    status = sample_run(&q, &ctx, &a);
    npy_free(&q.file);
    free(q.label);
    ctm_arena_free(&a);
    return status;
}

// ---- images eval -------------------------------------------------------------------------------------------------------
//
// A model that knows classes is asked with the label of every image; without labels where the data have none. Samples have the
// labels of the held-out images, but for those beside training images: they take the classes in turn.

// A network whose last layer is looked at: convolutions with a ReLU behind each, the mean or the maximum of 2x2 behind some.
enum { FEATURE_LAYERS = 64, FEATURES_MAX = 1024 };
typedef struct extractor {
    ctm_net    *net;                    // keeps the weights
    const char *path;                   // of a user's network; NULL: the random ones
    int         layers, weight[FEATURE_LAYERS], bias[FEATURE_LAYERS], halved[FEATURE_LAYERS];     // numbers of parameters; bias -1: none
} extractor;

typedef struct evaluation {
    args_common common;
    const char *weights, *data, *range, *teacher, *features;
    long long   n, likelihood;
    ctm_ctx     ctx;
    ctm_arena   a;
    dataset     d;
    ctm_net    *net;                    // frozen
    size_t      held;                   // held-out images in use
    ctm_real   *x;                      // [held,dim]
    int        *label;                  // [held]; NULL: the model knows no classes, or the data have no labels
    extractor   by;                     // what the Frechet distance looks at
    measures    m;
    char        line[600];
} evaluation;

// x + t·eps of a named stream.
static ctm_real *noised(evaluation *e, const char *stream, uint64_t step, size_t n, const ctm_real *x, double t) {
    const ctm_rng rng = ctm_stream((uint64_t)e->common.seed, stream);
    const size_t len = n*(size_t)e->net->dim;
    ctm_real *y = (ctm_real *)ctm_alloc(&e->a, len*sizeof *y);
    ctm_normals(&rng, step, 0, len, y);
    for (size_t i = 0; i < len; i++) y[i] = (ctm_real)((double)x[i] + t*(double)y[i]);
    return y;
}

static double rms_between(size_t len, const ctm_real *x, const ctm_real *y) {
    double sum = 0;
    for (size_t i = 0; i < len; i++) sum += ((double)x[i] - (double)y[i])*((double)x[i] - (double)y[i]);
    return sqrt(sum/(double)len);
}

// What a chunk of rows is asked: by which network, with which labels, at which levels.
typedef struct at_levels { ctm_net *net; const int *label; const ctm_noise *grid; double i_t, i_s; } at_levels;

static ctm_tensor *denoise_fn(ctm_tape *tp, const void *arg, ctm_tensor *x, size_t first) {
    const at_levels *q = (const at_levels *)arg;
    const ctm_denoiser *D = ctm_net_denoiser(tp->arena, q->net);
    tp->rows.label = labels_from(q->label, first);
    return D->denoise(tp, D, x, ctm_fill(ctm_vector(tp, "t", x->shape[0]), ctm_t_of_index(q->grid, q->i_t)));
}

static ctm_tensor *jump_fn(ctm_tape *tp, const void *arg, ctm_tensor *x, size_t first) {
    const at_levels *q = (const at_levels *)arg;
    tp->rows.label = labels_from(q->label, first);
    return ctm_G_theta(tp, q->net, x, ctm_fill(ctm_vector(tp, "t", x->shape[0]), ctm_t_of_index(q->grid, q->i_t)),
                   ctm_fill(ctm_vector(tp, "s", x->shape[0]), ctm_t_of_index(q->grid, q->i_s)));
}

static ctm_tensor *solve_fn(ctm_tape *tp, const void *arg, ctm_tensor *x, size_t first) {
    const at_levels *q = (const at_levels *)arg;
    double from[CHUNK], to[CHUNK];
    for (int i = 0; i < CHUNK; i++) { from[i] = q->i_t; to[i] = q->i_s; }
    tp->rows.label = labels_from(q->label, first);
    return ctm_solve(tp, ctm_net_denoiser(tp->arena, q->net), q->grid, CTM_HEUN, x, from, to, 1);
}

// E|D(x_t,t) - x_0|²/dim on held-out images at every noise level of the grid, and times the training's weight.
static int eval_dsm(evaluation *e) {
    const ctm_noise *z = &e->net->noise;
    const size_t dim = (size_t)e->net->dim, n = e->held < 256 ? e->held : 256;
    at_levels q;
    double total = 0;
    q.net = e->net;
    q.label = e->label;
    q.grid = z;
    printf("held-out denoising, %lu image%s:   noise level   RMS error/sigma_data   weighted loss\n", (unsigned long)n, plural(n));
    for (int i = 0; i < z->N; i++) {
        const ctm_mark mark = ctm_arena_mark(&e->a);
        const double t = ctm_t_of_index(z, i);
        ctm_real *x = noised(e, "eval.dsm", (uint64_t)i, n, e->x, t), *y = (ctm_real *)ctm_alloc(&e->a, n*dim*sizeof *y);
        char name[48];
        q.i_t = q.i_s = i;
        if (!map_chunks(&e->ctx, denoise_fn, &q, n, dim, x, dim, y)) return failed_line(e->line, sizeof e->line, &e->ctx);
        const double rms = rms_between(n*dim, y, e->x), loss = rms*rms*ctm_weight(z, CTM_W_KARRAS_WEIGHT, t, t, 1);
        printf("%45.4g %18.4f %19.4f\n", t, rms/z->sigma_data, loss);
        snprintf(name, sizeof name, "dsm_%02d_at_%.4g", i, t);
        measure(&e->m, name, loss);
        total += loss/z->N;
        ctm_arena_release(&e->a, mark);
    }
    measure(&e->m, "dsm_held_out", total);
    return 1;
}

// |G(x_t,t,s) - Heun of the teacher from t to s| for pairs of grid levels.
static int eval_consistency(evaluation *e, ctm_net *teacher) {
    static const int level[5] = {0, 5, 9, 13, 17};
    const ctm_noise *z = &e->net->noise;
    const size_t dim = (size_t)e->net->dim, n = e->held < 64 ? e->held : 64;
    at_levels q, by_teacher;
    q.net = e->net;
    q.label = e->label;
    q.grid = z;
    printf("jump against the teacher's Heun, RMS/sigma_data, %lu image%s:\n       t       s\n", (unsigned long)n, plural(n));
    for (int j = 0; j < 5; j++)
        for (int k = j + 1; k < 5; k++) {
            const ctm_mark mark = ctm_arena_mark(&e->a);
            q.i_t = level[j]*(z->N - 1)/17.0;
            q.i_s = level[k]*(z->N - 1)/17.0;
            ctm_real *x = noised(e, "eval.jump", (uint64_t)j, n, e->x, ctm_t_of_index(z, q.i_t));
            ctm_real *y = (ctm_real *)ctm_alloc(&e->a, 2*n*dim*sizeof *y);
            char name[48];
            by_teacher = q;
            by_teacher.net = teacher;
            if (!map_chunks(&e->ctx, jump_fn, &q, n, dim, x, dim, y) ||
                !map_chunks(&e->ctx, solve_fn, &by_teacher, n, dim, x, dim, y + n*dim))
                return failed_line(e->line, sizeof e->line, &e->ctx);
            const double rms = rms_between(n*dim, y, y + n*dim)/z->sigma_data;
            printf("%8.4g %7.4g %10.4f\n", ctm_t_of_index(z, q.i_t), ctm_t_of_index(z, q.i_s), rms);
            snprintf(name, sizeof name, "jump_rms_%d_to_%d", level[j], level[k]);
            measure(&e->m, name, rms);
            ctm_arena_release(&e->a, mark);
        }
    return 1;
}

// Bits per dimension of bytes: images with noise of one grey step, so that they have a density.
static int eval_bits(evaluation *e) {
    const ctm_rng step = ctm_stream((uint64_t)e->common.seed, "eval.dequantise"), probe = ctm_stream((uint64_t)e->common.seed, "eval.probe");
    const size_t dim = (size_t)e->net->dim, n = e->held < (size_t)e->likelihood ? e->held : (size_t)e->likelihood;
    ctm_likelihood how = ctm_likelihood_default();
    ctm_real *x = (ctm_real *)ctm_alloc(&e->a, n*dim*sizeof *x);
    double *value = (double *)ctm_alloc(&e->a, 2*n*sizeof *value), bits[2] = {0, 0};
    ctm_arena arena;
    ctm_tape tape;
    int ok = 1;
    for (size_t i = 0; i < n*dim; i++) x[i] = (ctm_real)((double)e->x[i] + (ctm_uniform(&step, i/dim, i%dim) - 0.5)/127.5);
    how.rng = &probe;
    how.steps = 20;
    ctm_arena_init(&arena, &e->ctx, "likelihood");
    ctm_tape_init(&tape, &e->ctx, &arena);
    tape.keep_grads = 0;
    const ctm_denoiser *D = ctm_net_denoiser(&e->a, e->net);
    for (size_t first = 0; first < n && ok; first += 8) {
        const size_t rows = n - first < 8 ? n - first : 8;
        tape.rows.label = labels_from(e->label, first);
        how.first_row = first;
        how.probes = 1;
        ctm_tape_reset(&tape);
        ok = ctm_loglik(&tape, D, &e->net->noise, &how, rows, x + first*dim, value + first);
        how.probes = 16;
        ctm_tape_reset(&tape);
        ok = ok && ctm_elbo(&tape, D, &e->net->noise, &how, rows, x + first*dim, value + n + first);
    }
    ctm_arena_free(&arena);
    if (!ok) return failed_line(e->line, sizeof e->line, &e->ctx);
    for (size_t i = 0; i < 2*n; i++) bits[i/n] += ctm_bits_per_dim(value[i], (int)dim, 127.5)/(double)n;
    printf("bits per dimension, %lu image%s: %.3f by the ODE (Hutchinson, 1 probe, 20 steps of RK4), at most %.3f by the bound (16 draws)\n", (unsigned long)n, plural(n), bits[0], bits[1]);
    measure(&e->m, "bits_ode", bits[0]);
    measure(&e->m, "bits_elbo", bits[1]);
    return 1;
}

// -- Frechet distance: how far apart two sets of images are to a network, each set's features taken as a Gaussian. The network is the
// user's (--features), or fixed random convolutional features: three convolutions that nobody trained. Those tell a worse model from a
// better one of the same kind; that is no FID, and its values compare with nothing else.

static void random_features(extractor *q, ctm_arena *a, int size, int channels) {
    static const int width[3] = {16, 32, 64};
    const ctm_rng rng = ctm_stream(0, "frechet.features");
    const ctm_noise none = ctm_noise_default();
    q->net = ctm_net_new(a, "features", &none, size*size*channels, 0);
    q->layers = 3;
    for (int l = 0; l < 3; l++) {
        char name[32];
        snprintf(name, sizeof name, "%d.weight", l);
        q->weight[l] = ctm_param_conv(a, q->net, name, 3, l ? width[l - 1] : channels, width[l]);
        q->bias[l] = -1;
        q->halved[l] = l < 2 && size%2 == 0;
        if (q->halved[l]) size /= 2;
    }
    ctm_net_ready(a, q->net);
    for (int l = 0; l < 3; l++) {
        ctm_tensor *w = q->net->param[q->weight[l]];
        ctm_normals(&rng, (uint64_t)l + 1, 0, w->len, w->data);
        for (size_t i = 0; i < w->len; i++) w->data[i] = (ctm_real)((double)w->data[i]*sqrt(2/(9.0*w->shape[2])));
    }
}

// Layer k of a user's network, behind `in` channels of `side` pixels; its width, or 0 with a line.
static int user_layer(evaluation *e, const ctm_file *f, const char *prefix, int k, int in, int side) {
    extractor *q = &e->by;
    const int l = q->layers++;
    char name[64];
    const ctm_entry *w;
    snprintf(name, sizeof name, "%s%d.weight", prefix, k);
    w = ctm_file_find(f, name);
    if (w->ndim != 4 || w->shape[0] < 1 || w->shape[1] != in || w->shape[2] != w->shape[3] || (w->shape[2] != 3 && w->shape[2] != 1))
        return args_fail(e->line, sizeof e->line, "%s: tensor \"%s\" must be a convolution's, [its width,%d,3,3] or [its width,%d,1,1]",
                         f->path, name, in, in);
    if (l && q->halved[l - 1] && side%2)
        return args_fail(e->line, sizeof e->line, "%s: halves images of %d x %d pixels before \"%s\", expected an even number",
                         f->path, side, side, name);
    q->weight[l] = ctm_param_conv(&e->a, q->net, name + strlen(prefix), w->shape[2], in, w->shape[0]);
    snprintf(name, sizeof name, "%s%d.bias", prefix, k);
    q->bias[l] = ctm_file_find(f, name) ? ctm_param(&e->a, q->net, name + strlen(prefix), w->shape[0], 0) : -1;
    return w->shape[0];
}

// An nn.Sequential of Conv2d, ReLU and MaxPool2d(2), or the `features` of a network, as torchvision's VGG16 has them. What has no
// weights is known by the numbers left out: after a convolution k the next is k + 2, or k + 3 with a halving between.
static int user_features(evaluation *e, const char *path) {
    const ctm_file *f = ctm_file_read(&e->a, path);
    const ctm_noise none = ctm_noise_default();
    const char *prefix = f && ctm_file_find(f, "features.0.weight") ? "features." : "";
    extractor *q = &e->by;
    int width = e->net->channels, side = e->net->size, last = -2;
    if (!f) return failed_line(e->line, sizeof e->line, &e->ctx);
    q->net = ctm_net_new(&e->a, "features", &none, e->net->dim, 0);
    for (int k = 0; k < 3*FEATURE_LAYERS && q->layers < FEATURE_LAYERS; k++) {
        char name[64];
        snprintf(name, sizeof name, "%s%d.weight", prefix, k);
        if (!ctm_file_find(f, name)) continue;
        if (q->layers ? k - last != 2 && k - last != 3 : k != 0)
            return args_fail(e->line, sizeof e->line, "%s: layer \"%s\" does not follow on a convolution, a ReLU and perhaps a halving",
                             path, name);
        if (q->layers) q->halved[q->layers - 1] = k - last == 3;
        width = user_layer(e, f, prefix, k, width, side);
        if (!width) return 0;
        if (q->layers > 1 && q->halved[q->layers - 2]) side /= 2;
        last = k;
    }
    if (!q->layers) return args_fail(e->line, sizeof e->line,
                                     "%s: has no tensor \"0.weight\" or \"features.0.weight\": expected an nn.Sequential of convolutions", path);
    if (width > FEATURES_MAX) return args_fail(e->line, sizeof e->line, "%s: its last layer has %d channels, expected at most %d",
                                               path, width, FEATURES_MAX);
    ctm_net_ready(&e->a, q->net);
    q->path = path;
    return ctm_net_read(q->net, f, prefix) ? 1 : failed_line(e->line, sizeof e->line, &e->ctx);
}

static int features_count(const extractor *q) { return q->net->param[q->weight[q->layers - 1]]->shape[3]; }

// The last layer's means over the image.
static ctm_tensor *features_fn(ctm_tape *tp, const void *arg, ctm_tensor *x, size_t first) {
    const evaluation *e = (const evaluation *)arg;
    const extractor *q = &e->by;
    const size_t count = (size_t)features_count(q);
    ctm_tensor *h = ctm_reshape(tp, x, 4, x->shape[0], e->net->size, e->net->size, e->net->channels);
    ctm_tensor *out = ctm_matrix(tp, "features", x->shape[0], (int)count);
    (void)first;
    for (int l = 0; l < q->layers; l++) {
        h = ctm_relu(tp, ctm_conv(tp, h, q->net->param[q->weight[l]], q->bias[l] < 0 ? NULL : q->net->param[q->bias[l]], NULL, NULL, 1));
        if (q->halved[l]) h = q->path ? ctm_max_pool(tp, h) : ctm_down(tp, h);
    }
    const size_t pixels = (size_t)h->shape[1]*(size_t)h->shape[2];
    for (size_t i = 0; i < h->len; i++) out->data[i/(pixels*count)*count + i%count] += h->data[i]/(ctm_real)pixels;
    return out;
}

// Features as a Gaussian: mean [dim], covariance L·L^T with L [dim,dim], and the covariance's trace.
typedef struct gaussian { int dim; double *mean, *L, trace; } gaussian;

// L of a = L·L^T in a's place, zeros above the diagonal; a direction without variance gives a column of zeros.
static void cholesky(int dim, double *a) {
    for (int j = 0; j < dim; j++) {
        const double variance = a[j*dim + j];
        for (int i = j; i < dim; i++) {
            double sum = a[i*dim + j];
            for (int k = 0; k < j; k++) sum -= a[i*dim + k]*a[j*dim + k];
            a[i*dim + j] = sum;
        }
        const double pivot = a[j*dim + j];
        for (int i = j; i < dim; i++) a[i*dim + j] = pivot > 1e-12*variance ? a[i*dim + j]/sqrt(pivot) : 0;
        for (int i = 0; i < j; i++) a[i*dim + j] = 0;
    }
}

static int gaussian_of(evaluation *e, size_t n, const ctm_real *x, gaussian *g) {
    const int dim = g->dim = features_count(&e->by);
    const size_t width = (size_t)dim;
    g->mean = (double *)ctm_alloc(&e->a, width*sizeof *g->mean);
    g->L = (double *)ctm_alloc(&e->a, width*width*sizeof *g->L);
    const ctm_mark mark = ctm_arena_mark(&e->a);
    ctm_real *f = (ctm_real *)ctm_alloc(&e->a, n*width*sizeof *f);
    double *d = (double *)ctm_alloc(&e->a, width*sizeof *d);
    if (!map_chunks(&e->ctx, features_fn, e, n, (size_t)e->net->dim, x, width, f)) return failed_line(e->line, sizeof e->line, &e->ctx);
    for (size_t i = 0; i < n*width; i++) g->mean[i%width] += (double)f[i]/(double)n;
    for (size_t i = 0; i < n; i++) {
        for (int j = 0; j < dim; j++) d[j] = (double)f[i*width + (size_t)j] - g->mean[j];
        for (int j = 0; j < dim; j++)
            for (int k = 0; k <= j; k++) g->L[j*dim + k] += d[j]*d[k]/(double)n;
    }
    g->trace = 0;
    for (int j = 0; j < dim; j++) g->trace += g->L[j*dim + j];
    cholesky(dim, g->L);
    ctm_arena_release(&e->a, mark);
    return 1;
}

// The sum of m's singular values: its rows are turned in pairs until all are orthogonal; their lengths are the values (Hestenes).
static double singular_sum(int dim, double *m) {
    double sum = 0;
    int turned = 1;
    for (int sweep = 0; sweep < 40 && turned; sweep++) {
        turned = 0;
        for (int p = 0; p < dim; p++)
            for (int q = p + 1; q < dim; q++) {
                double *x = m + p*dim, *y = m + q*dim, xx = 0, yy = 0, xy = 0;
                for (int k = 0; k < dim; k++) { xx += x[k]*x[k]; yy += y[k]*y[k]; xy += x[k]*y[k]; }
                if (fabs(xy) <= 1e-13*sqrt(xx*yy)) continue;
                const double zeta = (yy - xx)/(2*xy), t = (zeta < 0 ? -1 : 1)/(fabs(zeta) + sqrt(1 + zeta*zeta));
                const double c = 1/sqrt(1 + t*t), s = c*t;
                for (int k = 0; k < dim; k++) {
                    const double was = x[k];
                    x[k] = c*was - s*y[k];
                    y[k] = s*was + c*y[k];
                }
                turned = 1;
            }
    }
    for (int p = 0; p < dim; p++) {
        double xx = 0;
        for (int k = 0; k < dim; k++) xx += m[p*dim + k]*m[p*dim + k];
        sum += sqrt(xx);
    }
    return sum;
}

// |m_1 - m_2|² + tr(C_1 + C_2 - 2·sqrt(C_1·C_2)). With C = L·L^T the root's trace is the sum of the singular values of L_1^T·L_2.
static double frechet(ctm_arena *a, const gaussian *g1, const gaussian *g2) {
    const ctm_mark mark = ctm_arena_mark(a);
    const int dim = g1->dim;
    double *m = (double *)ctm_alloc(a, (size_t)dim*(size_t)dim*sizeof *m), sum = g1->trace + g2->trace;
    for (int k = 0; k < dim; k++)
        for (int i = 0; i <= k; i++)
            for (int j = 0; j <= k; j++) m[i*dim + j] += g1->L[k*dim + i]*g2->L[k*dim + j];
    for (int j = 0; j < dim; j++) sum += (g1->mean[j] - g2->mean[j])*(g1->mean[j] - g2->mean[j]);
    sum -= 2*singular_sum(dim, m);
    ctm_arena_release(a, mark);
    return sum > 0 ? sum : 0;
}

// The distance of n images x from the Gaussian `real`, as a figure of that name; negative: failed.
static double eval_distance(evaluation *e, const gaussian *real, size_t n, const ctm_real *x, const char *name) {
    const ctm_mark mark = ctm_arena_mark(&e->a);
    gaussian other;
    char whole[48];
    double d;
    if (!gaussian_of(e, n, x, &other)) return -1;
    d = frechet(&e->a, real, &other);
    snprintf(whole, sizeof whole, "frechet_%s_%s", e->by.path ? "user" : "random", name);
    measure(&e->m, whole, d);
    ctm_arena_release(&e->a, mark);
    return d;
}

// The distance of samples from x at sigma_max to held-out images, printed and measured under this name; y is room for the samples.
static int eval_sampler(evaluation *e, const gaussian *real, ctm_net *net, int sampler, int steps, size_t n, const ctm_real *x, ctm_real *y, const char *name) {
    const ctm_mark mark = ctm_arena_mark(&e->a);
    drawing q = drawing_of(&e->a, net, sampler, steps);
    double d;
    q.label = e->label ? e->label : labels_in_turn(&e->a, net, n);
    if (!draw_all(&q, n, x, y)) return failed_line(e->line, sizeof e->line, &e->ctx);
    d = eval_distance(e, real, n, y, name);
    if (d < 0) return 0;
    printf(", %d %s%s %.5f", steps, sampler == BY_HEUN ? "steps of Heun" : steps == 1 ? "jump" : "jumps", net == e->net ? "" : " by the teacher", d);
    ctm_arena_release(&e->a, mark);
    return 1;
}

// Of samples with 1, 2 and 4 jumps, and of the teacher's from the same noises; and, for scale, of as many training images.
static int eval_frechet(evaluation *e, ctm_net *teacher) {
    const size_t n = e->held, dim = (size_t)e->net->dim;
    const int heun = WHOLE_JUMPS/2;
    ctm_real *x = start_noise(&e->a, (uint64_t)e->common.seed, e->net, n), *y = (ctm_real *)ctm_alloc(&e->a, n*dim*sizeof *y);
    const ctm_rng rng = ctm_stream((uint64_t)e->common.seed, "eval.training");
    gaussian real;
    double d;
    if (!gaussian_of(e, n, e->x, &real)) return 0;
    for (size_t i = 0; i < n; i++) image_get(&e->d.set, drawn_image(&e->d, &rng, 0, i), 0, y + i*dim);
    d = eval_distance(e, &real, n, y, "training");
    if (d < 0) return 0;
    printf("Frechet distance on %s%s, %lu against %lu held-out image%s: training images %.5f",
           e->features ? "features of " : "fixed random convolutional features", e->features ? e->features : "", (unsigned long)n, (unsigned long)n, plural(n), d);
    if (!e->net->with_s && !eval_sampler(e, &real, e->net, BY_HEUN, heun, n, x, y, "9steps")) return 0;
    for (int jumps = 1; e->net->with_s && jumps <= 4; jumps *= 2) {
        char name[48];
        snprintf(name, sizeof name, "%dsteps", jumps);
        if (!eval_sampler(e, &real, e->net, BY_EXACT, jumps, n, x, y, name)) return 0;
    }
    if (teacher && !eval_sampler(e, &real, teacher, BY_HEUN, heun, n, x, y, "teacher")) return 0;
    printf("\n");
    return 1;
}

// A row of samples above the training images that are nearest to them in the mean square of pixels.
static int eval_nearest(evaluation *e) {
    const size_t n = SHEET_COLUMNS, dim = (size_t)e->net->dim;
    ctm_real *x = start_noise(&e->a, (uint64_t)e->common.seed, e->net, n), *y = (ctm_real *)ctm_alloc(&e->a, 2*n*dim*sizeof *y);
    ctm_real *row = (ctm_real *)ctm_alloc(&e->a, dim*sizeof *row);
    drawing q = drawing_of(&e->a, e->net, e->net->with_s ? BY_ONESTEP : BY_HEUN, e->net->with_s ? 1 : WHOLE_JUMPS);
    double best[SHEET_COLUMNS], mean = 0;
    char path[ARGS_PATH];
    q.label = labels_in_turn(&e->a, e->net, n);
    if (!draw_all(&q, n, x, y)) return failed_line(e->line, sizeof e->line, &e->ctx);
    for (size_t k = 0; k < n; k++) best[k] = 1e30;
    for (size_t i = 0; i < e->d.rows; i++) {
        image_get(&e->d.set, i, 0, row);
        for (size_t k = 0; k < n; k++) {
            double sum = 0;
            for (size_t j = 0; j < dim && sum < best[k]; j++) sum += ((double)row[j] - (double)y[k*dim + j])*((double)row[j] - (double)y[k*dim + j]);
            if (sum >= best[k]) continue;
            best[k] = sum;
            memcpy(y + (n + k)*dim, row, dim*sizeof *row);
        }
    }
    for (size_t k = 0; k < n; k++) mean += sqrt(best[k]/(double)dim)/(double)n;
    printf("nearest of %lu training image%s: RMS distance %.4f on average; nearest.png shows them below the samples\n", (unsigned long)e->d.rows, plural(e->d.rows), mean);
    measure(&e->m, "nearest_rms", mean);
    args_join(path, sizeof path, e->common.out, "nearest.png");
    return image_write_sheet(path, 2*n, e->net->size, e->net->channels, y, SHEET_COLUMNS, e->line, sizeof e->line);
}

// The labels of the held-out images, for a model that knows classes.
static int eval_labels(evaluation *e, size_t first) {
    if (!e->d.set.classes) {
        printf("%s: has no labels, so the model, which knows %d classes, is asked without\n", e->data, e->net->classes);
        return 1;
    }
    if (!check_labels(&e->d, e->net->classes, e->data, e->line, sizeof e->line)) return 0;
    e->label = (int *)ctm_alloc(&e->a, e->held*sizeof *e->label);
    for (size_t i = 0; i < e->held; i++) e->label[i] = image_label(&e->d.set, first + i);
    printf("the model knows %d classes and is told every image's label\n", e->net->classes);
    return 1;
}

// The held-out images: the last ones of the set that the model was trained on; all, up to --n, of another.
static int eval_open(evaluation *e) {
    const ctm_file *f = ctm_file_read(&e->a, e->weights);
    ctm_net *net = f ? load_images(&e->a, e->weights, NULL, e->line, sizeof e->line) : NULL;
    const image_set *s = &e->d.set;
    int same;
    size_t first;
    if (!f) return failed_line(e->line, sizeof e->line, &e->ctx);
    if (!net || !data_open(&e->d, e->data, e->range, e->line, sizeof e->line)) return 0;
    if (net->size != s->size || net->channels != s->channels)
        return args_fail(e->line, sizeof e->line, "%s: holds images of %d x %d with %d channels, but the model makes %d x %d with %d", e->data, s->size, s->size,
                         s->channels, net->size, net->size, net->channels);
    same = same_hash_in(f, "images.data_hash", e->d.hash);
    if (same && e->d.held == 0) return args_fail(e->line, sizeof e->line, "%s: the model was trained on all of its %lu images; expected others", e->data, (unsigned long)s->n);
    first = same ? e->d.rows : 0;
    e->held = s->n - first < (size_t)e->n ? s->n - first : (size_t)e->n;
    e->net = ctm_net_view(&e->a, net, 0);
    e->x = (ctm_real *)ctm_alloc(&e->a, e->held*(size_t)net->dim*sizeof *e->x);
    for (size_t i = 0; i < e->held; i++) image_get(&e->d.set, first + i, 0, e->x + i*(size_t)net->dim);
    if (!image_intact(s, e->line, sizeof e->line)) return 0;
    printf("%lu held-out image%s: %s\n", (unsigned long)e->held, plural(e->held), same ? "the end of the set, which training left out" : "of a set that the model was not trained on");
    return !net->classes || eval_labels(e, first);
}

static int eval_run(evaluation *e) {
    ctm_net *teacher = NULL;
    char path[ARGS_PATH];
    if (!eval_open(e) || (e->features && !user_features(e, e->features))) return wrong(e->line);
    if (!e->features) random_features(&e->by, &e->a, e->net->size, e->net->channels);
    if (e->teacher) {
        teacher = load_images(&e->a, e->teacher, NULL, e->line, sizeof e->line);
        if (!teacher) return wrong(e->line);
        if (teacher->dim != e->net->dim || teacher->size != e->net->size ||
            (e->label && teacher->classes && teacher->classes != e->net->classes)) {
            args_fail(e->line, sizeof e->line, "%s: is a teacher of other images or classes than %s", e->teacher, e->weights);
            return wrong(e->line);
        }
    }
    if (!args_mkdir(e->common.out, e->line, sizeof e->line)) return wrong(e->line);
    if (!eval_dsm(e) || (teacher && e->net->with_s && !eval_consistency(e, ctm_net_view(&e->a, teacher, 0))) || (e->likelihood > 0 && !eval_bits(e)) ||
        !eval_frechet(e, teacher) || !eval_nearest(e)) return wrong(e->line);
    if (!image_intact(&e->d.set, e->line, sizeof e->line)) return wrong(e->line);
    args_join(path, sizeof path, e->common.out, "eval.csv");
    if (!write_measures(&e->m, path, e->line, sizeof e->line)) return wrong(e->line);
    if (!e->common.quiet) printf("all figures are in %s\n", path);
    return 0;
}

static int eval_main(int argc, char **argv) {
    static evaluation e;
    double numbers[2];
    int status;
    e.common = args_common_defaults("out/eval");
    e.n = 1000;
    e.likelihood = 16;
    const args_option options[] = {
        {"weights",    ARGS_TEXT, &e.weights,    0, 0,   NULL, "model.safetensors of a training folder"},
        {"data",       ARGS_TEXT, &e.data,       0, 0,   NULL, "the images it was trained on (their held-out end is used), or others"},
        RANGE_OPTION(e.range),
        {"teacher",    ARGS_TEXT, &e.teacher,    0, 0,   NULL, "teacher.safetensors: compare jumps and samples with its solver's"},
        {"features",   ARGS_TEXT, &e.features,   0, 0,   NULL, "a network for the Frechet distance: nn.Sequential of Conv2d, ReLU, MaxPool2d(2)"},
        {"n",          ARGS_INT,  &e.n,          2, 1e6, NULL, "at most so many held-out images, and as many samples"},
        {"likelihood", ARGS_INT,  &e.likelihood, 0, 1e6, NULL, "images for bits per dimension; 0: none"},
        ARGS_COMMON(e.common)
    };
    status = args_parse("images", "images eval --weights W.safetensors --data FILE [flags]", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_exit_status(status);
    if (!e.weights) return misused("flag --weights: is missing; expected a safetensors file");
    if (!e.data) return misused("flag --data: is missing; expected a folder or files of images");
    if (e.range && !image_range(e.range, numbers)) return misused_range(e.range);
    ctm_init(&e.ctx);
    e.ctx.threads = (int)e.common.threads;
    ctm_arena_init(&e.a, &e.ctx, "eval");
    status = eval_run(&e);
    image_close(&e.d.set);
    ctm_arena_free(&e.a);
    return status;
}

// ---- images info -------------------------------------------------------------------------------------------------------

static int info_run(ctm_arena *a, const char *weights, const shape_flags *shape) {
    char err[600], text[48];
    ctm_config c;
    ctm_net *net;
    recipe(&c, shape->config);
    if (weights) {
        net = load_images(a, weights, &c, err, sizeof err);
        if (!net) return wrong(err);
    } else {
        const int status = shape_config(a->ctx, &c, shape, (int)shape->size, (int)shape->channels);
        if (status) return status;
        net = ctm_unet(a, &c, 1);
    }
    ctm_config_print(&c);
    for (int p = 0; p < net->count; p++) {
        ctm_shape_text(net->param[p], text, sizeof text);
        printf("%-34s %-18s %10lu\n", net->param[p]->name, text, (unsigned long)net->param[p]->len);
    }
    print_shape(&c, net->len, net->with_s);
    return 0;
}

static int info_main(int argc, char **argv) {
    args_common common = args_common_defaults("-");
    const char *weights = NULL;
    shape_flags shape;
    ctm_ctx ctx;
    ctm_arena a;
    int status;
    memset(&shape, 0, sizeof shape);
    shape.size = 32;
    shape.channels = 3;
    shape.dropout = -1;
    const args_option options[] = {
        {"weights",  ARGS_TEXT, &weights,        0, 0,              NULL, "a safetensors file of a training folder; without it: the network of the flags"},
        {"size",     ARGS_INT,  &shape.size,     1, IMAGE_SIZE_MAX, NULL, "pixels along a side"},
        {"channels", ARGS_INT,  &shape.channels, 1, 16,             NULL, "3 for RGB"},
        SHAPE_OPTIONS(shape),
        ARGS_COMMON(common)
    };
    status = args_parse("images", "images info [--weights W.safetensors]", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_exit_status(status);
    ctm_init(&ctx);
    ctm_arena_init(&a, &ctx, "info");
    status = info_run(&a, weights, &shape);
    ctm_arena_free(&a);
    return status;
}

// ---- images synth ------------------------------------------------------------------------------------------------------

static int synth_main(int argc, char **argv) {
    args_common common = args_common_defaults("out/shapes.bin");
    long long n = 10000;
    int status;
    char err[600];
    ctm_output file;
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
    for (long long i = 0; i < n && !ferror(f); i++) {
        unsigned char record[IMAGE_RECORD];
        double draw[IMAGE_SYNTH_DRAWS];
        for (int j = 0; j < IMAGE_SYNTH_DRAWS; j++) draw[j] = ctm_uniform(&rng, (uint64_t)i, (uint64_t)j);
        image_synth(draw, record);
        fwrite(record, 1, sizeof record, f);
    }
    if (!args_close_atomic(&file, err, sizeof err)) return wrong(err);
    if (!common.quiet) printf("%lld image%s of ten kinds of shapes in %s, CIFAR-10's format\n", n, plural((size_t)n), common.out);
    return 0;
}

int main(int argc, char **argv) {
    args_utf8(&argc, &argv);
    const int command = args_command("images", "train,sample,eval,info,synth", &argc, &argv);
    int status;
    if (command < 0) return 2;
    if (command == 1) status = sample_main(argc, argv);
    else if (command == 2) status = eval_main(argc, argv);
    else if (command == 3) status = info_main(argc, argv);
    else if (command == 4) status = synth_main(argc, argv);
    else status = train_main(argc, argv);
    return args_finish("images", status);
}
