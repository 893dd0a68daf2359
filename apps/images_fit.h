/* images_fit.h - `images fit`: a mixture of low-rank Gaussians that resembles a set of images, whose truth is known

   Part of the applications of ctm.h, not of ctm.h itself. Include after gaussians.h. */
#ifndef CTM_APPS_IMAGES_FIT_H
#define CTM_APPS_IMAGES_FIT_H

typedef struct fitting {
    args_common common;
    const char *data, *range, *samples;
    long long   components, rank, images, rounds, n;
    double      noise;
    ctm_ctx     ctx;
    ctm_arena   a;
    dataset     d;
    char        line[600];
} fitting;

static int fit_samples(fitting *f, const gaussians *g) {
    const size_t n = (size_t)f->n, dim = (size_t)g->dim;
    ctm_real *x = (ctm_real *)ctm_alloc(&f->a, n*dim*sizeof *x);
    gaussians_samples(g, &f->a, (uint64_t)f->common.seed, "gaussians.samples", n, x);
    if (ends_with(f->samples, ".png")) return image_write_sheet(f->samples, n, g->size, g->channels, x, SHEET_COLUMNS, f->line, sizeof f->line);
    return image_write_npy(f->samples, n, g->size, g->channels, x, f->line, sizeof f->line);
}

static int fit_run(fitting *f) {
    if (!data_open(&f->d, f->data, f->range, f->line, sizeof f->line)) return wrong(f->line);
    const image_set *s = &f->d.set;
    const size_t dim = (size_t)s->size*(size_t)s->size*(size_t)s->channels, n = f->d.rows < (size_t)f->images ? f->d.rows : (size_t)f->images;
    const double bits = log(2)*(double)dim;
    if (n < 2*(size_t)f->components || (size_t)f->rank + 1 >= dim) {
        args_fail(f->line, sizeof f->line, "%s: %lu images of %lu numbers are too few for %lld components of rank %lld", f->data, (unsigned long)n, (unsigned long)dim,
                  f->components, f->rank);
        return wrong(f->line);
    }
    if (!image_can_write(f->common.out, f->line, sizeof f->line)) return wrong(f->line);
    gaussians *g = gaussians_new(&f->a, s->size, s->channels, (int)f->components, (int)f->rank);
    ctm_real *x = (ctm_real *)ctm_alloc(&f->a, n*dim*sizeof *x);
    for (size_t i = 0; i < n; i++) image_get(&f->d.set, i, 0, x + i*dim);
    if (!image_intact(s, f->line, sizeof f->line)) return wrong(f->line);
    gaussians_begin(&f->a, g, n, x, (uint64_t)f->common.seed);
    for (long long i = 1; i <= f->rounds; i++) {
        const double l = gaussians_round(&f->a, g, n, x);
        if (!f->common.quiet) printf("round %lld: %.3f bits per dimension, c %.4f\n", i, log(127.5)/log(2) - l/bits, sqrt(g->c2));
        fflush(stdout);
    }
    if (f->noise > 0) g->c2 = f->noise*f->noise;
    if (!gaussians_save(&f->a, g, f->common.out)) return wrong(ctm_error(&f->ctx));
    if (f->samples && !fit_samples(f, g)) return wrong(f->line);
    printf("%d Gaussians of rank %d, noise %.4f across, in %s\n", g->K, g->rank, sqrt(g->c2), f->common.out);
    return 0;
}

static int fit_main(int argc, char **argv) {
    static fitting f;
    int status;
    f.common = args_common_defaults("gaussians.safetensors");
    f.components = 100;
    f.rank = 10;
    f.images = 20000;
    f.rounds = 20;
    f.n = 20000;
    f.noise = 0.05;
    const args_option options[] = {
        {"data",       ARGS_TEXT, &f.data,       0, 0,      NULL, "images"},
        RANGE_OPTION(f.range),
        {"components", ARGS_INT,  &f.components, 1, 10000,  NULL, "how many Gaussians"},
        {"rank",       ARGS_INT,  &f.rank,       1, 1000,   NULL, "directions in which each varies by itself"},
        {"noise",      ARGS_REAL, &f.noise,      0, 10,     NULL, "standard deviation in all others; 0: as fitted"},
        {"images",     ARGS_INT,  &f.images,     2, 1e9,    NULL, "at most so many images are looked at"},
        {"rounds",     ARGS_INT,  &f.rounds,     1, 1e6,    NULL, "of expectation and maximisation"},
        {"samples",    ARGS_TEXT, &f.samples,    0, 0,      NULL, "write samples of the mixture into this .npy, to train on, or .png"},
        {"n",          ARGS_INT,  &f.n,          1, 1e9,    NULL, "how many samples"},
        ARGS_COMMON(f.common)
    };
    status = args_parse("images", "images fit --data FILE --out G.safetensors [flags]", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_exit_status(status);
    if (!f.data) return misused("flag --data: is missing; expected a folder or files of images");
    if (!check_range(f.range, f.line, sizeof f.line)) return misused(f.line);
    if (f.samples && !ends_with(f.samples, ".npy") && !ends_with(f.samples, ".png")) return misused("flag --samples: expected a name that ends in .npy or .png");
    ctm_init(&f.ctx);
    f.ctx.threads = (int)f.common.threads;
    ctm_arena_init(&f.a, &f.ctx, "fit");
    status = fit_run(&f);
    image_close(&f.d.set);
    ctm_arena_free(&f.a);
    return status;
}

#endif
