/* images_eval.h - `images eval`: how good is a model of images?

   Part of the applications of ctm.h, not of ctm.h itself. Include after images_data.h and frechet.h.

   A model that knows classes is asked with the label of every image; without labels where the data have none. Samples have the
   labels of the held-out images, but for those beside training images: they take the classes in turn. */
#ifndef CTM_APPS_IMAGES_EVAL_H
#define CTM_APPS_IMAGES_EVAL_H

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
        tape.rows.label = e->label ? e->label + first : NULL;
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
    measure_add(&e->m, "bits_ode", bits[0]);
    measure_add(&e->m, "bits_elbo", bits[1]);
    return 1;
}

// The distance of n images x from the Gaussian `real`, as a figure of that name; negative: failed.
static double eval_distance(evaluation *e, const gaussian *real, size_t n, const ctm_real *x, const char *name) {
    const ctm_mark mark = ctm_arena_mark(&e->a);
    gaussian other;
    char whole[48];
    double d;
    if (!gaussian_of(&e->a, &e->by, n, x, &other)) { failed_line(e->line, sizeof e->line, &e->ctx); return -1; }
    d = frechet(&e->a, real, &other);
    snprintf(whole, sizeof whole, "frechet_%s_%s", e->by.path ? "user" : "random", name);
    measure_add(&e->m, whole, d);
    ctm_arena_release(&e->a, mark);
    return d;
}

// The distance of samples from x at sigma_max to held-out images, printed and measured under this name; y is room for the samples.
static int eval_sampler(evaluation *e, const gaussian *real, ctm_net *net, int sampler, int steps, size_t n, const ctm_real *x, ctm_real *y, const char *name) {
    const ctm_mark mark = ctm_arena_mark(&e->a);
    sampling q = sampling_of(&e->a, net, sampler, sampler == BY_HEUN ? 2*steps - 1 : steps);
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
    ctm_real *x = sampling_start(&e->a, (uint64_t)e->common.seed, e->net, n), *y = (ctm_real *)ctm_alloc(&e->a, n*dim*sizeof *y);
    const ctm_rng rng = ctm_stream((uint64_t)e->common.seed, "eval.training");
    gaussian real;
    double d;
    if (!gaussian_of(&e->a, &e->by, n, e->x, &real)) return failed_line(e->line, sizeof e->line, &e->ctx);
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
    ctm_real *x = sampling_start(&e->a, (uint64_t)e->common.seed, e->net, n), *y = (ctm_real *)ctm_alloc(&e->a, 2*n*dim*sizeof *y);
    ctm_real *row = (ctm_real *)ctm_alloc(&e->a, dim*sizeof *row);
    sampling q = sampling_of(&e->a, e->net, e->net->with_s ? BY_ONESTEP : BY_HEUN, e->net->with_s ? 1 : 2*WHOLE_JUMPS - 1);
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
    measure_add(&e->m, "nearest_rms", mean);
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
    ctm_net *net = load_images(&e->a, f, NULL, e->line, sizeof e->line);
    const image_set *s = &e->d.set;
    int same;
    size_t first;
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
        !eval_frechet(e, teacher) || !eval_nearest(e)) return wrong(e->line);
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
        {"features",   ARGS_TEXT, &e.features,   0, 0,   NULL, "a network for the Frechet distance: nn.Sequential of Conv2d, ReLU, MaxPool2d(2)"},
        {"n",          ARGS_INT,  &e.n,          2, 1e6, NULL, "at most so many held-out images, and as many samples"},
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
