/* images.c - consistency trajectory models of images: train, sample, evaluate

   images synth --out out/shapes.bin --n 20000
       a set of drawn shapes in CIFAR-10's format, so that a first run needs no download.
   images train --data DIR|FILE[,FILE...] --config tiny|compact|ddpmpp --out DIR
       first a teacher by denoising score matching (or --teacher FILE), then the CTM, which begins with the teacher's weights.
       Leaves in DIR: samples.png (a column is one noise; rows: 1, 2, 4, 8 jumps, the teacher's solver), onestep.png, loss.svg, loss.csv,
       teacher_loss.csv, metrics.csv, teacher.safetensors, model.safetensors, checkpoint.safetensors. --resume goes on, bit for bit.
       --lpips FILE compares by LPIPS, as the paper does, with weights that apps/to_safetensors.py makes; --recipe paper is its algorithm.
   images sample --weights W.safetensors --sampler gamma|exact|cm|onestep|heun|euler|dpm|ancestral --nfe N --n K --out F.png|.npy|.npz
   images eval --weights W.safetensors --data DIR|FILE [--teacher FILE] [--features FILE] --out DIR
       held-out loss by noise level, jumps against the teacher's solver, bits per dimension, nearest training images; Frechet distance,
       precision, recall and the share recognised, of chains of jumps and of the teacher's solver.
   images judge --data DIR|FILE --out J.safetensors
       a classifier of labelled images, for eval's --features.
   images fit --data DIR|FILE --out G.safetensors --samples S.npy
       a mixture of low-rank Gaussians: train on its samples with --teacher G.safetensors, and `eval --truth G.safetensors` knows all errors.
   images info --weights W.safetensors   or   images info --config compact
       the configuration, and every parameter with its shape.
   images half --weights W.safetensors --out F.safetensors
       the same weights in half precision, half the bytes.

   Exit status: 0 done; 1 the world is wrong (a file, the disk), one line on stderr says what; 2 wrong usage; 3 stopped by a signal, the
   state is saved.

   How to read this file: the chapters are the run, its pictures, train, sample, info, half, synth. Files of their own have eval
   (images_eval.h), judge (images_judge.h) and fit (images_fit.h, gaussians.h). What they share is images_data.h, the training loop train.h.
   The method is ctm.h, the same trainer and samplers as for points: a row of x is an image. The file formats are image.h. */

#include "args.h"
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include "measure.h"
#include "plot.h"
#include "images_data.h"
#include "gaussians.h"
#include "frechet.h"
#include "images_eval.h"
#include "images_judge.h"
#include "images_fit.h"

#define TEACHER_LR    2             // over the student's: the teacher begins from nothing
#define SHEET_SECONDS 60
enum { SHEET_ROWS = 4 };
static const int sheet_jumps[SHEET_ROWS] = {1, 2, 4, 8};

// ---- The run -----------------------------------------------------------------------------------------------------------

typedef struct images {
    run         r;
    dataset     data;
    const char *path, *range, *lpips_path;         // --data, --range, --lpips
    int         config, flips;
    ctm_lpips  *lpips;                             // the perceptual distance of --lpips, or NULL
} images;

static const char *const kept_flags[] = {"data", "range", "config", "teacher", "teacher-steps", "guidance", "recipe", "lpips", "flips", "seed", NULL};

// Files are known by their hash: a resumed run takes them from wherever they are now.
static int names_file(const char *flag, const char *value) {
    return strcmp(flag, "data") == 0 || strcmp(flag, "lpips") == 0 || (strcmp(flag, "teacher") == 0 && !run_is_kind(value));
}

// A ctm_draw_fn and its ctm_label_fn.
static void draw_image(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    dataset *d = &((images *)user)->data;
    image_get(&d->set, drawn_image(d, rng, step, index), d->flips && ctm_uniform(rng, step, 4*index + 2) < 0.5, x0);
}
static int drawn_label(void *user, const ctm_rng *rng, uint64_t step, uint64_t index) {
    dataset *d = &((images *)user)->data;
    return image_label(&d->set, drawn_image(d, rng, step, index));
}

static int open_data(run *r) {
    images *p = (images *)r;
    r->teacher_default = "learned";
    if (!p->path) return run_misused(r, "flag --data: is missing; expected a folder or files of images, e.g. of `images synth`");
    if (!check_range(p->range, r->line, sizeof r->line)) return run_misused(r, r->line);
    if (!data_open(&p->data, p->path, p->range, r->line, sizeof r->line)) {
        const size_t n = strlen(r->line);
        if (r->from) args_fail(r->line + n, sizeof r->line - n, "; if the data have moved, --data says where to");
        return run_wrong(r);
    }
    if (p->data.rows == 0) return wrong("the data: expected at least one image to train on");
    p->data.flips = p->flips == 1 || (p->flips == 0 && p->data.set.channels == 3);
    r->data_hash = p->data.hash;
    return 0;
}

// What hangs on the size of the network, whatever the recipe: tiny is for a short training, in which many small steps learn more than
// few large ones. (The authors' learning rate stays theirs.)
static int adapt(run *r, ctm_config *c) {
    static const int batch[3] = {16, 64, 64};
    static const double lr[3] = {2e-3, 6e-4, 2e-4};
    static const long steps[3] = {5000, 40000, 100000};
    const images *p = (const images *)r;
    c->diagonal_batch = (int)((int64_t)c->diagonal_batch*batch[p->config]/c->batch);
    c->batch = batch[p->config];
    c->shards = 4;
    c->steps = steps[p->config];
    c->gan_lr = 2e-4;
    if (strcmp(c->recipe, "authors") != 0) c->lr = lr[p->config];
    if (p->lpips_path) c->share_at_s = 0;            // a network that knows photographs has no judgement of noise
    if (!network_config(&r->ctx, c, p->config, &r->set, p->data.set.size, p->data.set.channels, r->line, sizeof r->line)) return run_misused(r, r->line);
    if (c->classes && !check_labels(&((images *)r)->data.set, c->classes, p->path, r->line, sizeof r->line)) return run_wrong(r);
    return 0;
}

// Without a teacher the data are the only source of truth: full weight.
static void untaught(run *r, ctm_config *c) {
    (void)r;
    if (strcmp(c->recipe, "images") != 0) return;
    c->adaptive = 0;
    c->diagonal_batch = c->batch;
}

static void teacher_config(run *r, const ctm_config *student, ctm_config *c) {
    (void)r;
    c->diagonal_batch = c->batch;
    c->lr = TEACHER_LR*student->lr;
    c->beta2 = student->beta2;
}

// LPIPS looks at images of 1 or 3 channels, from 256 pixels on at multiples of 16.
static int load_lpips(images *p) {
    run *r = &p->r;
    const image_set *s = &p->data.set;
    if (s->channels != 1 && s->channels != 3)
        return args_fail(r->line, sizeof r->line, "%s: LPIPS looks at images in grey or RGB, but the data have %d channels", p->lpips_path, s->channels);
    if (s->size >= 256 && s->size%16)
        return args_fail(r->line, sizeof r->line, "%s: LPIPS looks at images below 256 pixels or of a multiple of 16, but the data are %d x %d", p->lpips_path,
                         s->size, s->size);
    p->lpips = ctm_lpips_load(&r->memory, p->lpips_path, s->size, s->channels);
    if (!p->lpips) return run_failed(r);
    r->extra_hash = hash_bytes(p->lpips->net->theta, p->lpips->net->len*sizeof(ctm_real));
    return run_same_hash(r, "extra_hash", r->extra_hash, "the file of --lpips");
}

static int ready(run *r) {
    images *p = (images *)r;
    if (r->cfg.size != p->data.set.size || r->cfg.channels != p->data.set.channels) return run_misused(r, "flags --size and --channels: are those of the data");
    if (!ctm_unet_fits(&r->ctx, &r->cfg)) return run_failed(r) + run_wrong(r);
    return !p->lpips_path || load_lpips(p) ? 0 : run_wrong(r);
}

// A file of `images fit` is a teacher, too. 1: it is and fits; 0: it is a network; -1: it does not fit.
static int exact_teacher(run *r, const ctm_file *f) {
    const image_set *s = &((images *)r)->data.set;
    gaussians *g;
    if (!gaussians_is(f)) return 0;
    g = gaussians_read(&r->memory, f, r->line, sizeof r->line);
    if (!g) return -1;
    if (g->size != s->size || g->channels != s->channels) {
        args_fail(r->line, sizeof r->line, "%s: is a teacher of images of %d x %d with %d channels, but the data are %d x %d with %d", f->path, g->size, g->size,
                  g->channels, s->size, s->size, s->channels);
        return -1;
    }
    r->teacher = gaussians_denoiser(&r->memory, g);
    r->teacher_hash = hash_bytes(g->basis, (size_t)g->K*(size_t)(1 + g->rank)*(size_t)g->dim*sizeof *g->basis);
    return 1;
}

static const ctm_denoiser *no_exact_teacher(run *r) {
    args_fail(r->line, sizeof r->line, "--teacher exact: images have none; expected learned, none, or a safetensors file");
    return NULL;
}

static int teacher_fits(run *r, const ctm_file *f, const ctm_net *net) {
    const image_set *s = &((images *)r)->data.set;
    if (!net->size) return args_fail(r->line, sizeof r->line, "%s: is a model of points (%d numbers a row), expected one of images", f->path, net->dim);
    if (net->size != s->size || net->channels != s->channels)
        return args_fail(r->line, sizeof r->line, "%s: is a teacher of images of %d x %d with %d channels, but the data are %d x %d with %d", f->path,
                         net->size, net->size, net->channels, s->size, s->size, s->channels);
    if (net->classes && net->classes != r->cfg.classes)
        return args_fail(r->line, sizeof r->line, "%s: is a teacher of %d classes, but --classes is %d", f->path, net->classes, r->cfg.classes);
    return 1;
}

// The student begins as its teacher: with the teacher's weights and no word yet from s, so that g(x,t,s) = D(x,t) and a jump is one
// step of Euler's. Random weights for s would first triple the denoising loss.
static ctm_net *network(run *r, ctm_arena *a, const ctm_config *cfg) {
    ctm_net *net = ctm_unet(a, cfg, cfg->times != NULL);
    if (!cfg->times || !r->teacher_net) return net;
    ctm_net_copy_matching(net, r->teacher_net);
    for (int p = 0; p < net->count; p++)
        if (strstr(net->param[p]->name, ".affine_s.")) memset(net->param[p]->data, 0, net->param[p]->len*sizeof(ctm_real));
    return net;
}

static void prepare(run *r, ctm_trainer *tr) {
    const images *p = (const images *)r;
    if (!p->lpips) return;
    tr->distance = ctm_lpips_distance;
    tr->distance_user = p->lpips;
}

static ctm_net *discriminator(ctm_arena *a, const ctm_config *cfg, int dim) {
    (void)dim;
    return ctm_conv_discriminator(a, cfg);
}

static int intact(run *r) { return image_intact(&((images *)r)->data.set, r->line, sizeof r->line); }

static void notes_of(run *r, notes *t) {
    const images *p = (const images *)r;
    note_hash(t, "images.data_hash", p->data.hash);
    if (p->range) note(t, "images.range", p->range);
}

static void report(run *r) {
    const dataset *d = &((images *)r)->data;
    const ctm_net *net = ctm_unet(&r->scratch, &r->cfg, 1);
    printf("%lu image%s of %d x %d x %d for training, %lu held out; %s\nrecipe %s\n", (unsigned long)d->rows, plural(d->rows), d->set.size, d->set.size, d->set.channels,
           (unsigned long)d->held, d->flips ? "every other one mirrored" : "none mirrored", r->cfg.recipe);
    print_shape(&r->cfg, net->len, 1);
}

// ---- Pictures of a run -------------------------------------------------------------------------------------------------

// Rows of images that begin with the same noises, a column for each class if there are some: 1, 2, 4, 8 jumps of the student, then the
// teacher's Heun.
static int write_sheet(run *r, ctm_net *net) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    const size_t n = (size_t)sheet_columns(net), size = n*(size_t)net->dim;
    const ctm_real *x = sampling_start(&r->scratch, r->cfg.seed, net, n);
    ctm_real *y = (ctm_real *)ctm_alloc(&r->scratch, (SHEET_ROWS + 1)*size*sizeof *y);
    const int *label = labels_in_turn(&r->scratch, net, n);
    char path[ARGS_PATH];
    size_t rows = 0;
    int ok = 1;
    for (int k = 0; net->with_s && k < SHEET_ROWS; k++) {
        sampling q = sampling_of(&r->scratch, net, BY_EXACT, sheet_jumps[k]);
        q.label = label;
        ok = ok && draw_all(&q, n, x, y + rows++*size);
    }
    if (!net->with_s || r->teacher_net) {
        sampling q = sampling_of(&r->scratch, net->with_s ? r->teacher_net : net, BY_HEUN, 2*WHOLE_JUMPS - 1);
        q.label = label;
        if (net->with_s && run_guided(r)) q.guidance = r->guidance;
        ok = ok && draw_all(&q, n, x, y + rows++*size);
    }
    if (!ok) run_failed(r);
    else ok = image_write_sheet(run_path(r, "samples.png", path), rows*n, net->size, net->channels, y, (int)n, r->line, sizeof r->line);
    ctm_arena_release(&r->scratch, mark);
    return ok;
}

// Eight rows of samples of one jump each.
static int write_onestep(run *r, ctm_net *net) {
    const ctm_mark mark = ctm_arena_mark(&r->scratch);
    const int columns = sheet_columns(net);
    const size_t n = 8*(size_t)columns;
    ctm_real *x = sampling_start(&r->scratch, r->cfg.seed, net, n);
    sampling q = sampling_of(&r->scratch, net, BY_ONESTEP, 1);
    char path[ARGS_PATH];
    q.label = labels_in_turn(&r->scratch, net, n);
    const int ok = draw_all(&q, n, x, x) ? image_write_sheet(run_path(r, "onestep.png", path), n, net->size, net->channels, x, columns, r->line, sizeof r->line)
                                         : run_failed(r);
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

static int draw_losses(run *r) {
    static double x[RUN_LOSSES_MAX], y[RUN_LOSSES_MAX];
    const run_losses *l = r->losses;
    double lo = 1e30, hi = 0;
    char path[ARGS_PATH];
    plot *p;
    for (int i = 0; i < l->n; i++)
        for (int k = RUN_L_CTM; k <= RUN_L_DSM; k++) {
            if (l->row[i][k] > 0 && l->row[i][k] < lo) lo = l->row[i][k];
            if (l->row[i][k] > hi) hi = l->row[i][k];
        }
    if (!(hi > 0)) lo = hi = 1;
    p = plot_open(run_path(r, "loss.svg", path), 720, 420, "Training");
    plot_grid_panel(p, 1, 1, 0, r->teacher ? "losses of the student" : "losses");
    plot_axes(p, 0, l->n ? l->row[l->n - 1][RUN_STEP] : 1, lo/1.5, hi*2, "training step", "loss", PLOT_LOGY);
    loss_line(p, l, RUN_L_CTM, x, y, 0, "L_CTM: the jumps agree");
    loss_line(p, l, RUN_L_DSM, x, y, 1, "L_DSM: the denoiser");
    errno = ENOMEM;
    return p && plot_close(p) == 0 ? 1 : args_fail(r->line, sizeof r->line, "cannot write %s: %s", path, strerror(errno));
}

static int sheet(run *r, ctm_net *net) { return write_sheet(r, net) && draw_losses(r); }

static int results(run *r, ctm_net *net) {
    measures *m = (measures *)ctm_alloc(&r->memory, sizeof *m);
    const double *last = r->losses->row[r->losses->n - 1];
    char path[ARGS_PATH];
    measure_add(m, "parameters", (double)net->len);
    measure_add(m, "steps", (double)r->cfg.steps);
    measure_add(m, "teacher_steps", run_teacher_is(r, "learned") ? (double)r->teacher_steps : 0);
    measure_add(m, "L_ctm", last[RUN_L_CTM]);
    measure_add(m, "L_dsm", last[RUN_L_DSM]);
    measure_add(m, "lambda_dsm", last[RUN_LAMBDA]);
    if (r->cfg.gan) {
        measure_add(m, "lambda_gan", r->tr->lambda_gan);
        measure_add(m, "disc_real", r->tr->disc_real);
        measure_add(m, "disc_fake", r->tr->disc_fake);
    }
    measure_add(m, "teacher_seconds", r->teacher_seconds);
    measure_add(m, "train_seconds", r->seconds);
    measure_add(m, "images_per_second", r->rows_per_second);
    measure_add(m, "memory_mb", (double)r->ctx.high/1048576);
    if (!run_save_weights(r, net, &r->cfg, "model.safetensors") || !sheet(r, net) || !write_onestep(r, net) ||
        !measure_write(m, run_path(r, "metrics.csv", path), r->line, sizeof r->line)) return 0;
    for (int i = 0; i < m->n; i++) printf("%-28s %.4g\n", m->row[i].name, m->row[i].value);
    printf("look at %s/samples.png (rows: 1, 2, 4, 8 jumps%s) and %s/onestep.png\n", r->common.out,
           r->teacher_net ? ", the teacher's Heun" : "", r->common.out);
    return 1;
}

// ---- images train ------------------------------------------------------------------------------------------------------

static const run_program program = {"images", "images", SHEET_SECONDS, open_data, adapt, untaught, teacher_config, ready, no_exact_teacher, exact_teacher, teacher_fits, report,
                                    network, prepare, discriminator, draw_image, drawn_label, intact, notes_of, sheet, results};

static int train_main(int argc, char **argv) {
    static images p;
    run *r = &p.r;
    int status;
    memset(&p, 0, sizeof p);
    run_init(r, &program, "out/images");
    const args_option options[] = {
        {"data",          ARGS_TEXT,   &p.path,          0, 0,   NULL, "a folder, or files A,B,...: CIFAR-10's binary batches, idx, .npy"},
        RANGE_OPTION(p.range),
        NETWORK_OPTIONS(p.config, r->rest),
        {"teacher",       ARGS_TEXT,   &r->teacher_kind, 0, 0,   NULL, "learned (from the data, before the student; four times --steps, twice unless tiny), none, or a safetensors file"},
        RUN_OPTIONS(*r),
        {"shards",        ARGS_REST,   &r->rest,         0, 0,   NULL, "pieces of a batch, shared by the threads; those that get none help inside; decides rounding; 4 if not given"},
        {"flips",         ARGS_CHOICE, &p.flips,         0, 0,   "auto,on,off", "mirror every other image; auto: those in colour"},
        {"lpips",         ARGS_TEXT,   &p.lpips_path,    0, 0,   NULL, "compare by LPIPS at time zero (the paper's): its weights, a safetensors file of apps/to_safetensors.py"},
        {"sheet-seconds", ARGS_REAL,   &r->save_seconds, 0.1, 1e7, NULL, "time between two checkpoints with a contact sheet"},
        ARGS_COMMON(r->common)
    };
    const command flags = {"images", kept_flags, options, ARGS_COUNT(options), argc, argv, names_file, &r->set};
    r->flags = flags;
    status = args_parse("images", "images train --data FILE [flags]      (also: images sample|eval|info|half|judge|fit|synth --help)", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_exit_status(status);
    status = run_check(r);
    if (status == 0) {
        status = run_main(r, p.config == TINY ? 4 : 2);
        image_close(&p.data.set);
    }
    return status;
}

// ---- images sample -----------------------------------------------------------------------------------------------------

typedef struct drawing {
    sampling    q;
    args_common common;
    settings    set;                    // of the network, for weights without metadata
    int         config;
    const char *weights, *noise, *labels, *class_name;
    long long   n, columns, size, channels;      // columns 0: as many as there are classes
    npy_array   file;                   // of --noise
    int        *label;
} drawing;

// Weights without our metadata: the network of the flags, filled by the authors' names, with "model." before them or without.
static ctm_net *load_foreign(ctm_arena *a, const ctm_file *f, const drawing *d, char *err, size_t errlen) {
    const char *prefix = ctm_file_find(f, "model.map_layer0.weight") ? "model." : "";
    char with_s[64], why[400];
    ctm_config c = ctm_recipe_images();
    ctm_net *net;
    if (!network_config(a->ctx, &c, d->config, &d->set, (int)d->size, (int)d->channels, why, sizeof why)) {
        args_fail(err, errlen, "%s: has no metadata of ctm.h, and the flags describe no network: %s", f->path, why);
        return NULL;
    }
    snprintf(with_s, sizeof with_s, "%smap_layer0_s.weight", prefix);
    net = ctm_unet(a, &c, ctm_file_find(f, with_s) != NULL);
    if (ctm_net_read(net, f, prefix)) return net;
    args_fail(err, errlen, "%s", ctm_error(a->ctx));
    return NULL;
}

static ctm_net *load_weights(ctm_arena *a, const drawing *d, char *err, size_t errlen) {
    const ctm_file *f = ctm_file_read(a, d->weights);
    return !f || ctm_file_meta(f, "ctm.format") ? load_images(a, f, NULL, err, errlen) : load_foreign(a, f, d, err, errlen);
}

static int check_noise(const drawing *d, char *err, size_t errlen) {
    const npy_array *f = &d->file;
    const ctm_net *net = d->q.net;
    const size_t draws = d->q.draws;
    const size_t *s = f->shape + (f->ndim == 5);
    size_t where;
    if (f->ndim < 4 || s[1] != (size_t)net->channels || s[2] != (size_t)net->size || s[3] != (size_t)net->size || f->count == 0) {
        char found[120] = "";
        size_t at = 0;
        for (int i = 0; i < f->ndim; i++) at += (size_t)snprintf(found + at, sizeof found - at, i ? ",%lu" : "%lu", (unsigned long)f->shape[i]);
        return args_fail(err, errlen, "%s: found an array [%s], expected [n,%d,%d,%d], or [k,n,%d,%d,%d] with the noise of every draw", d->noise, found,
                         net->channels, net->size, net->size, net->channels, net->size, net->size);
    }
    if (f->ndim == 5 && f->shape[0] < draws + 1)
        return args_fail(err, errlen, "%s: found noise for %lu draws, expected %lu: the start and %lu on the way", d->noise, (unsigned long)f->shape[0],
                         (unsigned long)draws + 1, (unsigned long)draws);
    if (!npy_all_finite(f, &where)) return args_fail(err, errlen, "%s: number %lu is not finite", d->noise, (unsigned long)where);
    return 1;
}

// The starting points, and the noise on the way if the file has it.
static ctm_real *noise_of_file(drawing *d, ctm_arena *a, size_t rows) {
    const ctm_net *net = d->q.net;
    const size_t dim = (size_t)net->dim, pixels = (size_t)net->size*(size_t)net->size, total = d->file.count/dim;
    ctm_real *all = (ctm_real *)ctm_alloc(a, total*dim*sizeof *all);
    for (size_t i = 0; i < total; i++) image_from_planes(pixels, net->channels, d->file.data + i*dim, all + i*dim);
    return sampling_recorded(&d->q, rows, total, all);
}

static int write_images(const char *path, size_t n, const ctm_net *net, const ctm_real *x, int columns, char *err, size_t errlen) {
    if (ends_with(path, ".npy")) return image_write_npy(path, n, net->size, net->channels, x, err, errlen);
    if (ends_with(path, ".npz")) return image_write_npz(path, n, net->size, net->channels, x, err, errlen);
    return image_write_sheet(path, n, net->size, net->channels, x, columns, err, errlen);
}

// One class for all rows, none for any, or, without --class, the classes in turn.
static int one_class(drawing *d, ctm_arena *a, size_t rows, char *err, size_t errlen) {
    const int classes = d->q.net->classes;
    long long k = -1;
    int *label = labels_in_turn(a, d->q.net, rows);
    d->q.label = label;
    if (!d->class_name) return 1;
    if (strcmp(d->class_name, "none") != 0 && (args_int(d->class_name, &k) != 1 || k < 0 || k >= classes))
        return args_fail(err, errlen, "flag --class: found \"%.40s\", expected none or one of 0 to %d, the classes of %s", d->class_name, classes - 1, d->weights);
    for (size_t i = 0; i < rows; i++) label[i] = (int)k;
    return 1;
}

// The label of every row. 0 with a line.
static int choose_labels(drawing *d, ctm_arena *a, size_t rows, int guided, char *err, size_t errlen) {
    size_t n = 0;
    if (!d->q.net->classes)
        return !(d->labels || d->class_name || guided) || args_fail(err, errlen, "%s: was trained without --classes: it takes no labels", d->weights);
    if (!d->labels) return one_class(d, a, rows, err, errlen);
    if (!image_read_labels(d->labels, d->q.net->classes, &d->label, &n, err, errlen)) return 0;
    d->q.label = d->label;
    return n == rows || args_fail(err, errlen, "%s: found %lu labels, expected %lu, one for each image", d->labels, (unsigned long)n, (unsigned long)rows);
}

static int sample_run(drawing *d, ctm_arena *a, int guided) {
    char err[600];
    ctm_net *net = load_weights(a, d, err, sizeof err);
    size_t rows = (size_t)d->n;
    ctm_real *x;
    if (!net || !sampling_ready(&d->q, a, net, (uint64_t)d->common.seed, d->weights, err, sizeof err)) return wrong(err);
    if (d->noise) {
        if (!npy_read_f32(d->noise, &d->file, err, sizeof err) || !check_noise(d, err, sizeof err)) return wrong(err);
        rows = d->file.shape[d->file.ndim - 4];
    }
    if (!choose_labels(d, a, rows, guided, err, sizeof err)) return wrong(err);
    if (!d->columns) d->columns = sheet_columns(net);
    if (rows > (size_t)-1/64/(size_t)net->dim) {
        args_fail(err, sizeof err, "flag --n: %lu images of %d x %d x %d are more than this machine can count", (unsigned long)rows, net->size, net->size, net->channels);
        return wrong(err);
    }
    if (ends_with(d->common.out, ".png") && !image_sheet_fits(d->common.out, rows, net->size, net->channels, (int)d->columns, err, sizeof err)) return wrong(err);
    if (!image_can_write(d->common.out, err, sizeof err)) return wrong(err);
    x = d->noise ? noise_of_file(d, a, rows) : sampling_start(a, (uint64_t)d->common.seed, net, rows);
    if (!draw_all(&d->q, rows, x, x)) return wrong(ctm_error(a->ctx));
    if (!write_images(d->common.out, rows, net, x, (int)d->columns, err, sizeof err)) return wrong(err);
    if (!d->common.quiet)
        printf("%lu image%s in %s%s\n", (unsigned long)rows, plural(rows), d->common.out,
               ends_with(d->common.out, ".npy") ? ", float32 [n,c,h,w]: -1 is black and 1 is white" : "");
    return 0;
}

static int sample_main(int argc, char **argv) {
    static drawing d;
    ctm_ctx ctx;
    ctm_arena a;
    args_rest rest = {settings_take, NULL};
    char line[600];
    int status;
    memset(&d, 0, sizeof d);
    ctm_init(&ctx);
    rest.user = &d.set;
    d.set.ctx = &ctx;
    d.q = sampling_default();
    d.common = args_common_defaults("samples.png");
    d.n = 64;
    d.size = 32;
    d.channels = 3;
    const args_option options[] = {
        {"weights",    ARGS_TEXT,   &d.weights, 0, 0,    NULL, "model.safetensors of a training folder, or weights with the authors' names"},
        {"n",          ARGS_INT,    &d.n,       1, 1e7,  NULL, "how many images"},
        {"noise",      ARGS_TEXT,   &d.noise,   0, 0,    NULL, "start from this .npy file: float32 [n,c,h,w] of unit variance, or [k,n,c,h,w] with the noise on the way"},
        {"class",      ARGS_TEXT,   &d.class_name, 0, 0, NULL, "one class for all, or none; if not given, classes in turn"},
        {"labels",     ARGS_TEXT,   &d.labels,  0, 0,    NULL, "a .npy file with the class of every image, -1: none"},
        SAMPLING_OPTIONS(d.q, "class"),
        {"columns",    ARGS_INT,    &d.columns, 1, 1000, NULL, "images in a row of a .png; as many as classes, or 8"},
        {"size",       ARGS_INT,    &d.size,    1, IMAGE_SIZE_MAX, NULL, "for weights without metadata: pixels along a side"},
        {"channels",   ARGS_INT,    &d.channels, 1, 16,  NULL, "for weights without metadata: 3 for RGB"},
        NETWORK_OPTIONS(d.config, rest),
        ARGS_COMMON(d.common)
    };
    status = args_parse("images", "images sample --weights W.safetensors [flags]      (network flags: for weights without metadata)", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_exit_status(status);
    if (!d.weights) return misused("flag --weights: is missing; expected a safetensors file");
    if (!sampling_check(&d.q, argc, argv, line, sizeof line)) return misused(line);
    if (d.labels && d.class_name) return misused("flags --class and --labels: give one of them");
    if (!ends_with(d.common.out, ".png") && !ends_with(d.common.out, ".npy") && !ends_with(d.common.out, ".npz")) {
        args_fail(line, sizeof line, "flag --out: found \"%.400s\", expected a name that ends in .png, .npy or .npz", d.common.out);
        return misused(line);
    }
    ctx.threads = (int)d.common.threads;
    ctm_arena_init(&a, &ctx, "sample");
    status = sample_run(&d, &a, args_given("guidance", argc, argv));
    npy_free(&d.file);
    free(d.label);
    ctm_arena_free(&a);
    return status;
}

// ---- images info -------------------------------------------------------------------------------------------------------

static int info_main(int argc, char **argv) {
    args_common common = args_common_defaults("-");
    const char *weights = NULL;
    long long size = 32, channels = 3;
    int config = TINY, status;
    char err[600], text[48];
    settings set;
    args_rest rest;
    ctm_config c = ctm_recipe_images();
    ctm_net *net;
    ctm_ctx ctx;
    ctm_arena a;
    ctm_init(&ctx);
    set.n = 0;
    set.ctx = &ctx;
    rest.take = settings_take;
    rest.user = &set;
    const args_option options[] = {
        {"weights",  ARGS_TEXT, &weights,  0, 0,              NULL, "a safetensors file of a training folder; without it: the network of the flags"},
        {"size",     ARGS_INT,  &size,     1, IMAGE_SIZE_MAX, NULL, "pixels along a side"},
        {"channels", ARGS_INT,  &channels, 1, 16,             NULL, "3 for RGB"},
        NETWORK_OPTIONS(config, rest),
        ARGS_COMMON(common)
    };
    status = args_parse("images", "images info [--weights W.safetensors]", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_exit_status(status);
    if (!weights && !network_config(&ctx, &c, config, &set, (int)size, (int)channels, err, sizeof err)) return misused(err);
    ctm_arena_init(&a, &ctx, "info");
    net = weights ? load_images(&a, ctm_file_read(&a, weights), &c, err, sizeof err) : ctm_unet(&a, &c, 1);
    if (net) {
        ctm_config_print(&c);
        for (int p = 0; p < net->count; p++) {
            ctm_shape_text(net->param[p], text, sizeof text);
            printf("%-34s %-18s %10lu\n", net->param[p]->name, text, (unsigned long)net->param[p]->len);
        }
        print_shape(&c, net->len, net->with_s);
    }
    ctm_arena_free(&a);
    return net ? 0 : wrong(err);
}

// ---- images half -------------------------------------------------------------------------------------------------------

// Any safetensors file again, names, shapes and metadata as they are, with numbers of half precision.
static int half_run(ctm_arena *a, const char *from, const char *to, int quiet) {
    const ctm_file *f = ctm_file_read(a, from);
    ctm_writer w;
    ctm_writer_init(&w, a);
    w.half = 1;
    if (!f) return wrong(ctm_error(a->ctx));
    for (int i = 0; i < f->metas; i++) ctm_writer_meta(&w, f->meta[i].key, f->meta[i].value);
    for (int i = 0; i < f->count; i++) {
        const ctm_entry *e = &f->entry[i];
        double *number = (double *)ctm_alloc(a, (e->len + 1)*sizeof *number);
        ctm_real *x = (ctm_real *)ctm_alloc(a, (e->len + 1)*sizeof *x);
        if (e->ndim > 4) {
            char line[600];
            args_fail(line, sizeof line, "%s: tensor \"%.80s\" has %d dimensions, expected at most 4", f->path, e->name, e->ndim);
            return wrong(line);
        }
        if (!ctm_file_get(f, e, number)) return wrong(ctm_error(a->ctx));
        for (size_t k = 0; k < e->len; k++) x[k] = (ctm_real)number[k];
        ctm_writer_add(&w, e->name, x, e->ndim, e->shape, 0);
    }
    if (!ctm_writer_save(&w, to)) return wrong(ctm_error(a->ctx));
    if (!quiet) printf("%s: %d tensor%s in half precision\n", to, f->count, plural((size_t)f->count));
    return 0;
}

static int half_main(int argc, char **argv) {
    args_common common = args_common_defaults("half.safetensors");
    const char *weights = NULL;
    ctm_ctx ctx;
    ctm_arena a;
    int status;
    const args_option options[] = {
        {"weights", ARGS_TEXT, &weights, 0, 0, NULL, "a safetensors file"},
        ARGS_COMMON(common)
    };
    status = args_parse("images", "images half --weights W.safetensors --out FILE.safetensors", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_exit_status(status);
    if (!weights) return misused("flag --weights: is missing; expected a safetensors file");
    ctm_init(&ctx);
    ctm_arena_init(&a, &ctx, "half");
    status = half_run(&a, weights, common.out, common.quiet);
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
    const int command = args_command("images", "train,sample,eval,info,half,judge,fit,synth", &argc, &argv);
    int status;
    if (command < 0) return 2;
    if (command == 1) status = sample_main(argc, argv);
    else if (command == 2) status = eval_main(argc, argv);
    else if (command == 3) status = info_main(argc, argv);
    else if (command == 4) status = half_main(argc, argv);
    else if (command == 5) status = judge_main(argc, argv);
    else if (command == 6) status = fit_main(argc, argv);
    else if (command == 7) status = synth_main(argc, argv);
    else status = train_main(argc, argv);
    return args_finish("images", status);
}
