/* images_eval.h - `images eval`: how good is a model of images?

   Part of the applications of ctm.h, not of ctm.h itself. Include after images_data.h and frechet.h.

   A model that knows classes is asked with the label of every image; without labels where the data have none. Samples have the
   labels of the held-out images, but for those beside training images: they take the classes in turn. */
#ifndef CTM_APPS_IMAGES_EVAL_H
#define CTM_APPS_IMAGES_EVAL_H

enum { HELD_MOST = 10000 };             // held-out images

typedef struct evaluation {
    args_common common;
    const char *weights, *data, *range, *teacher, *features, *truth;
    long long   n, likelihood;
    ctm_ctx     ctx;
    ctm_arena   a;
    dataset     d;
    ctm_net    *net;                    // frozen
    size_t      held;                   // held-out images in use
    size_t      samples;                // at most as many
    size_t      others, first_other;    // the other real images of the set, and the first of them: those trained on if `trained`
    int         trained;
    double      guidance;               // of the teacher's classes; 0: that with which the model was taught
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
typedef struct at_levels { ctm_net *net; const int *label; const ctm_noise *grid; double i_t, i_s, guidance; } at_levels;

static ctm_tensor *denoise_fn(ctm_tape *tp, ctm_tensor *x, size_t first, const void *arg) {
    const at_levels *q = (const at_levels *)arg;
    const ctm_denoiser *D = ctm_net_denoiser(tp->arena, q->net);
    tp->rows.label = q->label ? q->label + first : NULL;
    return D->denoise(tp, D, x, ctm_fill(ctm_vector(tp, "t", x->shape[0]), ctm_t_of_index(q->grid, q->i_t)));
}

static ctm_tensor *jump_fn(ctm_tape *tp, ctm_tensor *x, size_t first, const void *arg) {
    const at_levels *q = (const at_levels *)arg;
    tp->rows.label = q->label ? q->label + first : NULL;
    return ctm_G_theta(tp, q->net, x, ctm_fill(ctm_vector(tp, "t", x->shape[0]), ctm_t_of_index(q->grid, q->i_t)),
                   ctm_fill(ctm_vector(tp, "s", x->shape[0]), ctm_t_of_index(q->grid, q->i_s)));
}

static ctm_tensor *solve_fn(ctm_tape *tp, ctm_tensor *x, size_t first, const void *arg) {
    const at_levels *q = (const at_levels *)arg;
    double from[CHUNK], to[CHUNK];
    for (int i = 0; i < CHUNK; i++) { from[i] = q->i_t; to[i] = q->i_s; }
    tp->rows.label = q->label ? q->label + first : NULL;
    return ctm_solve(tp, q->guidance != 1 ? ctm_guided_denoiser(tp->arena, q->net, q->guidance) : ctm_net_denoiser(tp->arena, q->net), q->grid, CTM_HEUN, x, from, to, 1);
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
        const double rms = rms_between(n*dim, y, e->x), loss = rms*rms*ctm_weight_karras(z, t, t);
        printf("%45.4g %18.4f %19.4f\n", t, rms/z->sigma_data, loss);
        snprintf(name, sizeof name, "dsm_%02d_at_%.4g", i, t);
        measure_add(&e->m, name, loss);
        total += loss/z->N;
        ctm_arena_release(&e->a, mark);
    }
    measure_add(&e->m, "dsm_held_out", total);
    return 1;
}

// |G(x_t,t,s) - Heun of the teacher from t to s| for pairs of grid levels.
static int eval_consistency(evaluation *e, ctm_net *teacher) {
    static const int level[5] = {0, 5, 9, 13, 17};
    const ctm_noise *z = &e->net->noise;
    const size_t dim = (size_t)e->net->dim, n = e->held < 64 ? e->held : 64;
    at_levels q, by_teacher;
    q.guidance = e->label ? e->guidance : 1;                // of the teacher
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
            measure_add(&e->m, name, rms);
            ctm_arena_release(&e->a, mark);
        }
    return 1;
}

// The mean over n rows x of their log densities by the ODE of D, or of the bound on them, in bits per dimension. 0 with a line.
static int mean_bits(evaluation *e, const ctm_denoiser *D, int bound, const int *label, size_t n, const ctm_real *x, double *bits) {
    const ctm_rng probe = ctm_stream((uint64_t)e->common.seed, "eval.probe");
    const ctm_noise *z = &e->net->noise;
    const size_t dim = (size_t)e->net->dim;
    ctm_likelihood how = ctm_likelihood_default();
    double value[8];
    ctm_arena arena;
    ctm_tape tape;
    int ok = 1;
    how.rng = &probe;
    how.steps = 20;
    how.probes = bound ? 16 : 1;
    *bits = 0;
    ctm_arena_init(&arena, &e->ctx, "likelihood");
    ctm_tape_init(&tape, &e->ctx, &arena);
    tape.keep_grads = 0;
    for (size_t first = 0; first < n && ok; first += 8) {
        const size_t rows = n - first < 8 ? n - first : 8;
        tape.rows.label = label ? label + first : NULL;
        how.first_row = first;
        ctm_tape_reset(&tape);
        ok = bound ? ctm_elbo(&tape, D, z, &how, rows, x + first*dim, value) : ctm_loglik(&tape, D, z, &how, rows, x + first*dim, value);
        for (size_t i = 0; i < rows && ok; i++) *bits += ctm_bits_per_dim(value[i], (int)dim, 127.5)/(double)n;
    }
    ctm_arena_free(&arena);
    return ok || failed_line(e->line, sizeof e->line, &e->ctx);
}

// Bits per dimension of bytes: images with noise of one grey step, so that they have a density.
static int eval_bits(evaluation *e) {
    const ctm_rng step = ctm_stream((uint64_t)e->common.seed, "eval.dequantise");
    const size_t dim = (size_t)e->net->dim, n = e->held < (size_t)e->likelihood ? e->held : (size_t)e->likelihood;
    const ctm_denoiser *D = ctm_net_denoiser(&e->a, e->net);
    ctm_real *x = (ctm_real *)ctm_alloc(&e->a, n*dim*sizeof *x);
    double ode, bound;
    for (size_t i = 0; i < n*dim; i++) x[i] = (ctm_real)((double)e->x[i] + (ctm_uniform(&step, i/dim, i%dim) - 0.5)/127.5);
    if (!mean_bits(e, D, 0, e->label, n, x, &ode) || !mean_bits(e, D, 1, e->label, n, x, &bound)) return 0;
    printf("bits per dimension, %lu image%s: %.3f by the ODE (Hutchinson, 1 probe, 20 steps of RK4), at most %.3f by the bound (16 draws)\n", (unsigned long)n, plural(n), ode, bound);
    measure_add(&e->m, "bits_ode", ode);
    measure_add(&e->m, "bits_elbo", bound);
    return 1;
}

// Real images, as a measure of others.
typedef struct reals { region r; gaussian g; } reals;

// How good n images x are, printed behind `what` and measured as NAME_KIND; label: what they were to be, or NULL.
static int eval_quality(evaluation *e, const reals *real, size_t n, const ctm_real *x, const int *label, const char *what, const char *kind) {
    const ctm_mark mark = ctm_arena_mark(&e->a);
    const int width = features_count(&e->by);
    const ctm_real *f = features_of(&e->a, &e->by, n, x);
    gaussian g;
    char name[48];
    if (!f) return failed_line(e->line, sizeof e->line, &e->ctx);
    gaussian_of(&e->a, width, n, f, &g);
    const region own = region_of(&e->a, (size_t)width, n, f);
    const double figure[3] = {frechet(&e->a, &real->g, &g), share_within(&e->a, &real->r, n, f), share_within(&e->a, &own, real->r.n, real->r.f)};
    static const char *const names[3] = {"frechet", "precision", "recall"};
    printf("%-34s %10.4g %10.1f %10.1f", what, figure[0], 100*figure[1], 100*figure[2]);
    for (int k = 0; k < 3; k++) {
        snprintf(name, sizeof name, "%s_%s_%s", names[k], e->by.path ? "user" : "random", kind);
        measure_add(&e->m, name, figure[k]);
    }
    if (label && e->by.classes) {
        const double share = share_recognised(&e->by, n, f, label);
        printf(" %10.1f", 100*share);
        snprintf(name, sizeof name, "recognised_%s", kind);
        measure_add(&e->m, name, share);
    }
    printf("\n");
    ctm_arena_release(&e->a, mark);
    return 1;
}

// The same of samples from x at sigma_max; y is room for them.
static int eval_sampler(evaluation *e, const reals *real, ctm_net *net, int sampler, int nfe, size_t n, const ctm_real *x, ctm_real *y) {
    const ctm_mark mark = ctm_arena_mark(&e->a);
    sampling q = sampling_of(&e->a, net, sampler, nfe);
    char what[64], kind[32];
    q.label = e->label ? e->label : labels_in_turn(&e->a, net, n);
    if (sampler == BY_HEUN) q.guidance = e->guidance;
    q.rng = ctm_stream((uint64_t)e->common.seed, "eval.gamma");
    if (!draw_all(&q, n, x, y)) return failed_line(e->line, sizeof e->line, &e->ctx);
    if (sampler == BY_HEUN) {
        snprintf(what, sizeof what, "%s, Heun, %d evaluation%s", net == e->net ? "the model" : "the teacher", nfe, plural((size_t)nfe));
        snprintf(kind, sizeof kind, "%s%d", net == e->net ? "heun" : "teacher", nfe);
    } else {
        snprintf(what, sizeof what, "%d jump%s, gamma %d", nfe, plural((size_t)nfe), sampler == BY_CM);
        snprintf(kind, sizeof kind, "%dsteps%s", nfe, sampler == BY_CM ? "_gamma1" : "");
    }
    const int ok = eval_quality(e, real, n, y, net->classes ? q.label : NULL, what, kind);
    ctm_arena_release(&e->a, mark);
    return ok;
}

// The figure: the Frechet distance over the number of evaluations, as in the paper's figure 7.
enum { CURVE = 6, FAR_OFF = 300 };
static const int curve_jumps[CURVE] = {1, 2, 4, 8, 16, 0}, curve_heun[CURVE] = {1, 3, 7, 15, 35, 0};
static int draw_curves(evaluation *e) {
    static const struct { const char *kind, *end, *label; const int *n; } line[4] = {
        {"", "steps", "jumps, gamma 0", curve_jumps}, {"", "steps_gamma1", "jumps, gamma 1 (as consistency models sample)", curve_jumps},
        {"teacher", "", "the teacher's Heun", curve_heun}, {"heun", "", "the model's own ODE, Heun", curve_heun}};
    const char *by = e->by.path ? "user" : "random";
    double x[CURVE], y[CURVE], lo = 1e30, hi = 0, floor;
    char path[ARGS_PATH], name[64];
    args_join(path, sizeof path, e->common.out, "eval.svg");
    snprintf(name, sizeof name, "frechet_%s_training", by);
    floor = measure_get(&e->m, name, 0);
    for (int i = 0; i < e->m.n; i++)
        if (strncmp(e->m.row[i].name, "frechet_", 8) == 0) lo = fmin(lo, e->m.row[i].value);
    for (int i = 0; i < e->m.n; i++)                         // two steps of Heun may explode: such a point is above the figure
        if (strncmp(e->m.row[i].name, "frechet_", 8) == 0 && e->m.row[i].value < FAR_OFF*lo) hi = fmax(hi, e->m.row[i].value);
    if (!(hi > 0)) lo = hi = 1;
    plot *p = plot_open(path, 720, 420, "Quality over evaluations");
    plot_grid_panel(p, 1, 1, 0, e->by.path ? "Frechet distance of samples to held-out images" : "Frechet distance on random features");
    plot_axes(p, 0.9, 40, fmax(lo, hi*1e-6)/1.5, hi*1.5, "evaluations of the network", "Frechet distance", PLOT_LOGX | PLOT_LOGY);
    for (int k = 0; k < 4; k++) {
        int n = 0;
        for (int i = 0; line[k].n[i]; i++) {
            snprintf(name, sizeof name, "frechet_%s_%s%d%s", by, line[k].kind, line[k].n[i], line[k].end);
            const double v = measure_get(&e->m, name, -1);
            if (v > 0) { x[n] = line[k].n[i]; y[n++] = v; }
        }
        if (!n) continue;
        plot_line(p, n, x, y, plot_color(k), 1.6, 0, 1);
        plot_marks(p, n, x, y, PLOT_CIRCLE, plot_color(k), 5);
        plot_legend_add(p, PLOT_LINE, plot_color(k), line[k].label);
    }
    if (floor > 0) {
        x[0] = 0.9; x[1] = 40; y[0] = y[1] = floor;
        plot_line(p, 2, x, y, "#888", 1, 1, 1);
        plot_legend_add(p, PLOT_DASH, "#888", "real images: the floor");
    }
    errno = ENOMEM;
    return p && plot_close(p) == 0 ? 1 : args_fail(e->line, sizeof e->line, "cannot write %s: %s", path, strerror(errno));
}

// Chains of jumps with gamma 0 and 1, and the teacher's solver from the same noises; and, for scale, as many other real images.
static int eval_samples(evaluation *e, ctm_net *teacher) {
    const size_t n = e->samples, dim = (size_t)e->net->dim, others = e->others < n ? e->others : n;
    ctm_real *x = sampling_start(&e->a, (uint64_t)e->common.seed, e->net, n), *y = (ctm_real *)ctm_alloc(&e->a, n*dim*sizeof *y);
    int *label = e->d.set.classes ? (int *)ctm_alloc(&e->a, n*sizeof *label) : NULL;
    const ctm_rng rng = ctm_stream((uint64_t)e->common.seed, "eval.training");
    ctm_net *solved = e->net->with_s ? teacher : e->net;
    reals real;
    int ok = 1;
    const ctm_real *f = features_of(&e->a, &e->by, e->held, e->x);
    if (!f) return failed_line(e->line, sizeof e->line, &e->ctx);
    gaussian_of(&e->a, features_count(&e->by), e->held, f, &real.g);
    real.r = region_of(&e->a, (size_t)features_count(&e->by), e->held, f);
    for (size_t i = 0; i < others; i++) {
        const size_t which = e->first_other + (size_t)(ctm_uniform(&rng, 0, i)*(double)e->others);
        image_get(&e->d.set, which, 0, y + i*dim);
        if (label) label[i] = image_label(&e->d.set, which);
    }
    printf("quality by %s%s, %lu samples against %lu held-out image%s:\n%-34s %10s %10s %10s%s\n",
           e->features ? "features of " : "fixed random convolutional features", e->features ? e->features : "", (unsigned long)n, (unsigned long)e->held, plural(e->held),
           "", "Frechet", "precision", "recall", e->by.classes ? " recognised" : "");
    if (others > 1) ok = eval_quality(e, &real, others, y, label, e->trained ? "training images" : "other images of the set", "training");
    for (int k = 0; ok && e->net->with_s && curve_jumps[k]; k++)
        ok = eval_sampler(e, &real, e->net, BY_EXACT, curve_jumps[k], n, x, y) && (curve_jumps[k] == 1 || eval_sampler(e, &real, e->net, BY_CM, curve_jumps[k], n, x, y));
    for (int k = 0; ok && solved && curve_heun[k]; k++) ok = eval_sampler(e, &real, solved, BY_HEUN, curve_heun[k], n, x, y);
    return ok && draw_curves(e);
}

// For each of n images x, the nearest of those trained on: its RMS distance, and itself into `nearest` (which may be NULL).
typedef struct neighbour_job { evaluation *e; size_t n; const ctm_real *x; double *rms; ctm_real *nearest; } neighbour_job;
enum { NEIGHBOURS_OF = 200, NEIGHBOUR_BLOCK = 8 };
static void nearest_block(void *arg, int block) {
    const neighbour_job *j = (const neighbour_job *)arg;
    const size_t dim = (size_t)j->e->net->dim, from = (size_t)block*NEIGHBOUR_BLOCK, to = from + NEIGHBOUR_BLOCK < j->n ? from + NEIGHBOUR_BLOCK : j->n;
    ctm_real *row = (ctm_real *)malloc(dim*sizeof *row);
    if (!row) return;
    for (size_t i = 0; i < j->e->d.rows; i++) {
        image_get(&j->e->d.set, i, 0, row);
        for (size_t k = from; k < to; k++) {
            double sum = 0;
            for (size_t at = 0; at < dim && sum < j->rms[k]; at += 16)
                for (size_t d = at; d < dim && d < at + 16; d++) sum += ((double)row[d] - (double)j->x[k*dim + d])*((double)row[d] - (double)j->x[k*dim + d]);
            if (sum >= j->rms[k]) continue;
            j->rms[k] = sum;
            if (j->nearest) memcpy(j->nearest + k*dim, row, dim*sizeof *row);
        }
    }
    free(row);
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// The median over n images of the RMS distance to the nearest image that was trained on.
static double median_nearest(evaluation *e, size_t n, const ctm_real *x, ctm_real *nearest) {
    neighbour_job j;
    j.e = e;
    j.n = n;
    j.x = x;
    j.rms = (double *)ctm_alloc(&e->a, n*sizeof *j.rms);
    j.nearest = nearest;
    for (size_t k = 0; k < n; k++) j.rms[k] = 1e300;
    ctm_parallel_for(&e->ctx, (int)((n + NEIGHBOUR_BLOCK - 1)/NEIGHBOUR_BLOCK), nearest_block, &j);
    qsort(j.rms, n, sizeof *j.rms, by_size);
    return sqrt((j.rms[(n - 1)/2] + j.rms[n/2])/2/(double)e->net->dim);
}

// Are samples copies? Their distance to the nearest image that was trained on, beside that of images that were not. The sheet has the
// first samples above their neighbours.
static int eval_nearest(evaluation *e) {
    const size_t held = e->held < (size_t)NEIGHBOURS_OF ? e->held : (size_t)NEIGHBOURS_OF, n = held < (size_t)SHEET_COLUMNS ? (size_t)SHEET_COLUMNS : held, dim = (size_t)e->net->dim;
    ctm_real *x = sampling_start(&e->a, (uint64_t)e->common.seed, e->net, n), *y = (ctm_real *)ctm_alloc(&e->a, n*dim*sizeof *y);
    ctm_real *near = (ctm_real *)ctm_alloc(&e->a, n*dim*sizeof *near), *sheet = (ctm_real *)ctm_alloc(&e->a, 2*SHEET_COLUMNS*dim*sizeof *sheet);
    sampling q = sampling_of(&e->a, e->net, e->net->with_s ? BY_ONESTEP : BY_HEUN, e->net->with_s ? 1 : 2*WHOLE_JUMPS - 1);
    double median;
    char path[ARGS_PATH];
    if (!e->trained) { printf("nearest training images: not looked for, as --data is not the set that the model was trained on\n"); return 1; }
    q.label = labels_in_turn(&e->a, e->net, n);
    if (!draw_all(&q, n, x, y)) return failed_line(e->line, sizeof e->line, &e->ctx);
    median = median_nearest(e, n, y, near);
    printf("nearest of %lu training image%s, RMS distance in the median: %.4f of %lu samples", (unsigned long)e->d.rows, plural(e->d.rows), median, (unsigned long)n);
    measure_add(&e->m, "nearest_rms", median);
    median = median_nearest(e, held, e->x, NULL);
    printf(", %.4f of %lu held-out image%s; nearest.png shows them below the samples\n", median, (unsigned long)held, plural(held));
    measure_add(&e->m, "nearest_rms_held_out", median);
    memcpy(sheet, y, SHEET_COLUMNS*dim*sizeof *y);
    memcpy(sheet + SHEET_COLUMNS*dim, near, SHEET_COLUMNS*dim*sizeof *y);
    args_join(path, sizeof path, e->common.out, "nearest.png");
    return image_write_sheet(path, 2*SHEET_COLUMNS, e->net->size, e->net->channels, sheet, SHEET_COLUMNS, e->line, sizeof e->line);
}

// ---- Against the truth -------------------------------------------------------------------------------------------------
//
// A model of samples of `images fit` has an exact denoiser, so that its error is known: of the denoiser at every level, of jumps and
// chains from noise against the flow, of the likelihood against the density.

typedef struct exact_at { const ctm_denoiser *D; double t; int steps; const ctm_noise *z; } exact_at;

static ctm_tensor *exact_denoise_fn(ctm_tape *tp, ctm_tensor *x, size_t first, const void *arg) {
    const exact_at *q = (const exact_at *)arg;
    (void)first;
    return q->D->denoise(tp, q->D, x, ctm_fill(ctm_vector(tp, "t", x->shape[0]), q->t));
}

// From sigma_max to sigma_min by that many steps of Heun.
static ctm_tensor *exact_flow_fn(ctm_tape *tp, ctm_tensor *x, size_t first, const void *arg) {
    const exact_at *q = (const exact_at *)arg;
    double *ts = (double *)ctm_alloc(tp->arena, ((size_t)q->steps + 1)*sizeof *ts);
    (void)first;
    ctm_karras_times(q->z, q->steps + 1, ts);
    return ctm_sample_heun(tp, q->D, x, q->steps, ts);
}

static int truth_denoiser(evaluation *e, const ctm_denoiser *D, size_t n, const ctm_real *x_0) {
    const ctm_noise *z = &e->net->noise;
    const size_t dim = (size_t)e->net->dim;
    at_levels q;
    exact_at exact;
    double square = 0;
    memset(&q, 0, sizeof q);
    q.net = e->net;
    q.grid = z;
    exact.D = D;
    printf("against the truth, %lu images:   noise level   RMS error of the denoiser/sigma_data\n", (unsigned long)n);
    for (int i = 0; i < z->N; i++) {
        const ctm_mark mark = ctm_arena_mark(&e->a);
        const double t = exact.t = ctm_t_of_index(z, i);
        ctm_real *x = noised(e, "eval.truth", (uint64_t)i, n, x_0, t), *y = (ctm_real *)ctm_alloc(&e->a, n*dim*sizeof *y), *w = (ctm_real *)ctm_alloc(&e->a, n*dim*sizeof *w);
        q.i_t = q.i_s = i;
        if (!map_chunks(&e->ctx, denoise_fn, &q, n, dim, x, dim, y) || !map_chunks(&e->ctx, exact_denoise_fn, &exact, n, dim, x, dim, w))
            return failed_line(e->line, sizeof e->line, &e->ctx);
        const double rms = rms_between(n*dim, y, w)/z->sigma_data;
        square += rms*rms/z->N;
        printf("%45.4g %18.4f\n", t, rms);
        ctm_arena_release(&e->a, mark);
    }
    measure_add(&e->m, "truth_denoiser_rms", sqrt(square));
    return 1;
}

enum { TRUTH_ROWS = 256, TRUTH_STEPS = 256 };
static int truth_flow(evaluation *e, const ctm_denoiser *D, size_t n) {
    const size_t dim = (size_t)e->net->dim;
    const double sd = e->net->noise.sigma_data;
    const ctm_real *x = sampling_start(&e->a, (uint64_t)e->common.seed, e->net, n);
    ctm_real *y = (ctm_real *)ctm_alloc(&e->a, n*dim*sizeof *y), *half = (ctm_real *)ctm_alloc(&e->a, n*dim*sizeof *half), *w = (ctm_real *)ctm_alloc(&e->a, n*dim*sizeof *w);
    exact_at exact;
    char name[48];
    exact.D = D;
    exact.z = &e->net->noise;
    exact.steps = TRUTH_STEPS/2;
    if (!map_chunks(&e->ctx, exact_flow_fn, &exact, n, dim, x, dim, half)) return failed_line(e->line, sizeof e->line, &e->ctx);
    exact.steps = TRUTH_STEPS;
    if (!map_chunks(&e->ctx, exact_flow_fn, &exact, n, dim, x, dim, y)) return failed_line(e->line, sizeof e->line, &e->ctx);
    printf("the exact flow from noise, %lu noises, by %d steps of Heun (half as many differ by %.5f):\n", (unsigned long)n, TRUTH_STEPS, rms_between(n*dim, half, y)/sd);
    measure_add(&e->m, "truth_flow_doubt", rms_between(n*dim, half, y)/sd);
    for (int k = 0; e->net->with_s && curve_jumps[k]; k++) {
        sampling q = sampling_of(&e->a, e->net, BY_EXACT, curve_jumps[k]);
        if (!draw_all(&q, n, x, w)) return failed_line(e->line, sizeof e->line, &e->ctx);
        printf("  %2d jump%s  RMS error/sigma_data %.4f\n", curve_jumps[k], curve_jumps[k] == 1 ? " " : "s", rms_between(n*dim, w, y)/sd);
        snprintf(name, sizeof name, "truth_rms_%dsteps", curve_jumps[k]);
        measure_add(&e->m, name, rms_between(n*dim, w, y)/sd);
    }
    for (int k = 0; curve_heun[k]; k++) {                    // the same solver on the exact denoiser: what few steps cost without any network
        exact.steps = (curve_heun[k] + 1)/2;
        if (!map_chunks(&e->ctx, exact_flow_fn, &exact, n, dim, x, dim, w)) return failed_line(e->line, sizeof e->line, &e->ctx);
        printf("  %2d step%s of Heun on the truth  %.4f\n", exact.steps, exact.steps == 1 ? "" : "s", rms_between(n*dim, w, y)/sd);
        snprintf(name, sizeof name, "truth_rms_heun%d", exact.steps);
        measure_add(&e->m, name, rms_between(n*dim, w, y)/sd);
    }
    return 1;
}

// Log densities of n rows, in bits per dimension: exact at sigma_min, by the ODE of the truth, by that of the model.
static int truth_bits(evaluation *e, const ctm_denoiser *D, size_t n, const ctm_real *x) {
    const size_t dim = (size_t)e->net->dim;
    double *row = (double *)ctm_alloc(&e->a, dim*sizeof *row), exact = 0, ode, model;
    for (size_t i = 0; i < n; i++) {
        for (size_t d = 0; d < dim; d++) row[d] = (double)x[i*dim + d];
        exact += ctm_bits_per_dim(D->log_density(D, row, e->net->noise.sigma_min), (int)dim, 127.5)/(double)n;
    }
    if (!mean_bits(e, D, 0, NULL, n, x, &ode) || !mean_bits(e, ctm_net_denoiser(&e->a, e->net), 0, NULL, n, x, &model)) return 0;
    printf("bits per dimension, %lu samples of the truth: %.4f exactly, %.4f by its ODE, %.4f by the model's (Hutchinson, 1 probe, 20 steps of RK4)\n", (unsigned long)n,
           exact, ode, model);
    measure_add(&e->m, "truth_bits", exact);
    measure_add(&e->m, "truth_bits_ode", ode);
    measure_add(&e->m, "truth_bits_model", model);
    return 1;
}

static int eval_truth(evaluation *e) {
    const ctm_file *f = ctm_file_read(&e->a, e->truth);
    const size_t dim = (size_t)e->net->dim, n = e->n < TRUTH_ROWS ? (size_t)e->n : (size_t)TRUTH_ROWS, likely = (size_t)e->likelihood < n ? (size_t)e->likelihood : n;
    gaussians *g;
    if (!f) return failed_line(e->line, sizeof e->line, &e->ctx);
    if (!gaussians_is(f)) return args_fail(e->line, sizeof e->line, "%s: is no mixture of Gaussians as `images fit` writes it", e->truth);
    g = gaussians_read(&e->a, f, e->line, sizeof e->line);
    if (!g) return 0;
    if (g->size != e->net->size || g->channels != e->net->channels)
        return args_fail(e->line, sizeof e->line, "%s: is the truth of images of %d x %d with %d channels, but the model makes %d x %d with %d", e->truth, g->size, g->size,
                         g->channels, e->net->size, e->net->size, e->net->channels);
    const ctm_denoiser *D = gaussians_denoiser(&e->a, g);
    ctm_real *x = (ctm_real *)ctm_alloc(&e->a, n*dim*sizeof *x);
    gaussians_samples(g, &e->a, (uint64_t)e->common.seed, "eval.samples", n, x);
    return truth_denoiser(e, D, n, x) && truth_flow(e, D, n) && (likely == 0 || truth_bits(e, D, likely, x));
}

// The labels of the held-out images, for a model that knows classes.
static int eval_labels(evaluation *e, size_t first) {
    if (!e->d.set.classes) {
        printf("%s: has no labels, so the model, which knows %d classes, is asked without\n", e->data, e->net->classes);
        return 1;
    }
    if (!check_labels(&e->d.set, e->net->classes, e->data, e->line, sizeof e->line)) return 0;
    e->label = (int *)ctm_alloc(&e->a, e->held*sizeof *e->label);
    for (size_t i = 0; i < e->held; i++) e->label[i] = image_label(&e->d.set, first + i);
    printf("the model knows %d classes and is told every image's label\n", e->net->classes);
    return 1;
}

// The held-out images: the last ones of the set that the model was trained on; all, up to --n, of another.
static int eval_open(evaluation *e) {
    const ctm_file *f = ctm_file_read(&e->a, e->weights);
    ctm_net *net = load_images(&e->a, f, NULL, e->line, sizeof e->line);
    const image_set *s = &e->d.set;
    int same;
    size_t first;
    if (!net || !data_open(&e->d, e->data, e->range, e->line, sizeof e->line)) return 0;
    if (net->size != s->size || net->channels != s->channels)
        return args_fail(e->line, sizeof e->line, "%s: holds images of %d x %d with %d channels, but the model makes %d x %d with %d", e->data, s->size, s->size,
                         s->channels, net->size, net->size, net->channels);
    const char *command = ctm_file_meta(f, "images.command"), *guidance = command ? command_value(&e->a, command, "guidance") : NULL;
    if (!(e->guidance > 0) && (!guidance || args_real(guidance, &e->guidance) != 1)) e->guidance = 1;
    same = e->trained = same_hash_in(f, "images.data_hash", e->d.hash);
    if (same && e->d.held == 0) return args_fail(e->line, sizeof e->line, "%s: the model was trained on all of its %lu images; expected others", e->data, (unsigned long)s->n);
    first = same ? e->d.rows : 0;
    e->held = s->n - first < (size_t)HELD_MOST ? s->n - first : (size_t)HELD_MOST;
    e->samples = e->held < (size_t)e->n ? e->held : (size_t)e->n;
    e->first_other = same ? 0 : e->held;
    e->others = same ? e->d.rows : s->n - e->held;
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
    if (!eval_open(e) || (e->features && !user_features(&e->by, &e->a, e->features, e->net->size, e->net->channels, e->line, sizeof e->line))) return wrong(e->line);
    if (!e->features) random_features(&e->by, &e->a, e->net->size, e->net->channels);
    if (e->teacher) {
        teacher = load_images(&e->a, ctm_file_read(&e->a, e->teacher), NULL, e->line, sizeof e->line);
        if (!teacher) return wrong(e->line);
        if (teacher->dim != e->net->dim || teacher->size != e->net->size ||
            (e->label && teacher->classes && teacher->classes != e->net->classes)) {
            args_fail(e->line, sizeof e->line, "%s: is a teacher of other images or classes than %s", e->teacher, e->weights);
            return wrong(e->line);
        }
    }
    if (!args_mkdir(e->common.out, e->line, sizeof e->line)) return wrong(e->line);
    if (!eval_dsm(e) || (teacher && e->net->with_s && !eval_consistency(e, ctm_net_view(&e->a, teacher, 0))) || (e->likelihood > 0 && !eval_bits(e)) ||
        !eval_samples(e, teacher) || !eval_nearest(e) || (e->truth && !eval_truth(e))) return wrong(e->line);
    if (!image_intact(&e->d.set, e->line, sizeof e->line)) return wrong(e->line);
    args_join(path, sizeof path, e->common.out, "eval.csv");
    if (!measure_write(&e->m, path, e->line, sizeof e->line)) return wrong(e->line);
    if (!e->common.quiet) printf("all figures are in %s\n", path);
    return 0;
}

static int eval_main(int argc, char **argv) {
    static evaluation e;
    int status;
    e.common = args_common_defaults("out/eval");
    e.n = 1000;
    e.likelihood = 16;
    const args_option options[] = {
        {"weights",    ARGS_TEXT, &e.weights,    0, 0,   NULL, "model.safetensors of a training folder"},
        {"data",       ARGS_TEXT, &e.data,       0, 0,   NULL, "the images it was trained on (their held-out end is used), or others"},
        RANGE_OPTION(e.range),
        {"teacher",    ARGS_TEXT, &e.teacher,    0, 0,   NULL, "teacher.safetensors: compare jumps and samples with its solver's"},
        {"features",   ARGS_TEXT, &e.features,   0, 0,   NULL, "the network that judges: of `images judge`, or an nn.Sequential of Conv2d, ReLU, MaxPool2d(2)"},
        {"truth",      ARGS_TEXT, &e.truth,      0, 0,   NULL, "of a model of samples of `images fit`: that mixture, against which it is held"},
        {"guidance",   ARGS_REAL, &e.guidance,   0.1, 100, NULL, "by which the teacher exaggerates classes; if not given, that of the model's training"},
        {"n",          ARGS_INT,  &e.n,          2, 1e6, NULL, "at most so many samples"},
        {"likelihood", ARGS_INT,  &e.likelihood, 0, 1e6, NULL, "images for bits per dimension; 0: none"},
        ARGS_COMMON(e.common)
    };
    status = args_parse("images", "images eval --weights W.safetensors --data FILE [flags]", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_exit_status(status);
    if (!e.weights) return misused("flag --weights: is missing; expected a safetensors file");
    if (!e.data) return misused("flag --data: is missing; expected a folder or files of images");
    if (!check_range(e.range, e.line, sizeof e.line)) return misused(e.line);
    ctm_init(&e.ctx);
    e.ctx.threads = (int)e.common.threads;
    ctm_arena_init(&e.a, &e.ctx, "eval");
    status = eval_run(&e);
    image_close(&e.d.set);
    ctm_arena_free(&e.a);
    return status;
}

#endif
