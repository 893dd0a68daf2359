// The perceptual distance: its operations against plain loops and finite differences (the workshops of test_operations.c and
// test_unet.c), the whole against PyTorch's golden values [eq:lpips], and every file that is not what it should be.
#include "golden.h"

static ctm_tensor *lp_do_pool(ctm_tape *tp, ctm_tensor **in)   { return ctm_max_pool(tp, in[0]); }
static ctm_tensor *lp_do_unit(ctm_tape *tp, ctm_tensor **in)   { return ctm_unit_channels(tp, in[0], in[1], 0.3); }
static ctm_tensor *lp_do_unit_1(ctm_tape *tp, ctm_tensor **in) { return ctm_unit_channels(tp, in[0], NULL, 1e-10); }
static int lp_to[2];
static ctm_tensor *lp_do_resize(ctm_tape *tp, ctm_tensor **in) { return ctm_resize(tp, in[0], lp_to[0], lp_to[1]); }

// All in one place, tensors used twice.
static ctm_tensor *lp_do_twice(ctm_tape *tp, ctm_tensor **in) {
    ctm_tensor *h = ctm_scale(tp, in[0], 1.5), *pooled = ctm_max_pool(tp, h), *unit = ctm_unit_channels(tp, h, NULL, 0.1);
    unit = ctm_add(tp, unit, ctm_unit_channels(tp, h, in[1], 0.2));
    h = ctm_add(tp, ctm_resize(tp, h, 3, 4), ctm_resize(tp, h, 3, 4));
    return ctm_concat(tp, ctm_concat(tp, h, ctm_resize(tp, ctm_add(tp, pooled, pooled), 3, 4)), ctm_resize(tp, unit, 3, 4));
}

static ctm_real lp_at(const ctm_tensor *x, int n, int r, int q, int c) {
    return x->data[((n * x->shape[1] + r) * x->shape[2] + q) * x->shape[3] + c];
}

static void test_op_max_pool(void) {
    ctm_tensor *in[1], *out;
    size_t i;
    int s, n, r, q, c;
    op_begin();
    for (s = 0; s < 6; s++) {
        int B = un_sizes[s][0], H = un_sizes[s][1], W = un_sizes[s][2], C = un_sizes[s][3];
        in[0] = un_image("x", B, H, W, C);
        for (i = 0; i < in[0]->len; i++) in[0]->data[i] = (ctm_real)((double)((i * 7919 + 13) % in[0]->len) / 4 - 3);   // no two as near as the check's h
        out = ctm_max_pool(&op_tape, in[0]);
        CHECK(out->ndim == 4 && out->shape[0] == B && out->shape[1] == H / 2 && out->shape[2] == W / 2 && out->shape[3] == C);
        for (n = 0; n < B; n++) for (r = 0; r < H / 2; r++) for (q = 0; q < W / 2; q++) for (c = 0; c < C; c++) {
            double above = fmax((double)lp_at(in[0], n, 2 * r, 2 * q, c), (double)lp_at(in[0], n, 2 * r, 2 * q + 1, c));
            double below = fmax((double)lp_at(in[0], n, 2 * r + 1, 2 * q, c), (double)lp_at(in[0], n, 2 * r + 1, 2 * q + 1, c));
            CHECK((double)lp_at(out, n, r, q, c) == fmax(above, below));
        }
        if (in[0]->len <= 600) un_check("max_pool", 1, in, lp_do_pool);
    }
    un_same_bits("max_pool", lp_do_pool, in, 1);
    // Equals share nothing: the first of them gets all. A number that is none is not lost, wherever it stands.
    in[0] = ctm_wants_grad(&op_tape, ctm_fill(ctm_image(&op_tape, "x", 1, 2, 2, 1), 1));
    in[0]->data[0] = 0;
    out = ctm_max_pool(&op_tape, in[0]);
    ctm_fill(out, 0);
    out->grad[0] = 2;
    ctm_backward_seeded(&op_tape, out);
    CHECK(in[0]->grad[0] == 0 && in[0]->grad[1] == 2 && in[0]->grad[2] == 0 && in[0]->grad[3] == 0);
    for (n = 0; n < 4; n++) {
        ctm_fill(in[0], 1);
        in[0]->data[n] = (ctm_real)sqrt(-1.0);
        CHECK(!ctm_is_finite((double)ctm_max_pool(&op_tape, in[0])->data[0]));
    }
    OP_MISUSE(ctm_max_pool(&op_tape, un_image("odd", 1, 3, 4, 2)), "ctm_max_pool", "\"odd\" [1,3,4,2]", "even");
    OP_MISUSE(ctm_max_pool(&op_tape, un_image("odd", 1, 4, 5, 2)), "ctm_max_pool", "\"odd\" [1,4,5,2]", "even");
    OP_MISUSE(ctm_max_pool(&op_tape, op_matrix("flat", 4, 4)), "ctm_max_pool", "\"flat\"", "[B,H,W,C]");
    op_end();
}

// Bilinear by its hat functions: pixel p of m counts at place y by 1 - |y - p|, places beyond the centres of the edge are moved there.
static double lp_hat(int i, int n, int m, int p) {
    double y = fmin(fmax((i + 0.5) * m / n - 0.5, 0), m - 1);
    return fmax(0, 1 - fabs(y - p));
}
static void test_op_resize(void) {
    static const int sizes[7][6] = {{1, 2, 2, 1, 4, 4}, {2, 3, 5, 2, 7, 4}, {1, 1, 1, 3, 3, 2}, {2, 4, 6, 3, 4, 6}, {1, 5, 4, 2, 2, 9}, {1, 4, 4, 2, 1, 1}, {2, 8, 8, 3, 21, 28}};
    ctm_tensor *in[1], *out;
    int s, n, r, q, c, i, k;
    op_begin();
    for (s = 0; s < 7; s++) {
        int B = sizes[s][0], h = sizes[s][1], w = sizes[s][2], C = sizes[s][3];
        lp_to[0] = sizes[s][4];
        lp_to[1] = sizes[s][5];
        in[0] = un_image("x", B, h, w, C);
        out = lp_do_resize(&op_tape, in);
        CHECK(out->ndim == 4 && out->shape[0] == B && out->shape[1] == lp_to[0] && out->shape[2] == lp_to[1] && out->shape[3] == C);
        for (n = 0; n < B; n++) for (i = 0; i < lp_to[0]; i++) for (k = 0; k < lp_to[1]; k++) for (c = 0; c < C; c++) {
            double want = 0;
            for (r = 0; r < h; r++) for (q = 0; q < w; q++) want += lp_hat(i, lp_to[0], h, r) * lp_hat(k, lp_to[1], w, q) * (double)lp_at(in[0], n, r, q, c);
            CHECK_CLOSE(lp_at(out, n, i, k, c), want, OP_TOLERANCE);
        }
        if (h == lp_to[0] && w == lp_to[1]) CHECK(memcmp(out->data, in[0]->data, out->len * sizeof(ctm_real)) == 0);
        un_check("resize", 1, in, lp_do_resize);
    }
    un_same_bits("resize", lp_do_resize, in, 1);
    CHECK(PANICS(ctm_resize(&op_tape, in[0], 0, 4)));
    CHECK_TEXT(test_panic, "0 x 4");
    OP_MISUSE(ctm_resize(&op_tape, op_matrix("flat", 4, 4), 8, 8), "ctm_resize", "\"flat\"", "[B,H,W,C]");
    op_end();
}

static void test_op_unit_channels(void) {
    ctm_tensor *in[2], *out;
    size_t p, k, C = 5;
    op_begin();
    in[0] = un_image("x", 2, 3, 4, 5);
    in[1] = op_constants("c", 5);
    out = lp_do_unit(&op_tape, in);
    for (p = 0; p < 24; p++) {
        double sum = 0;
        for (k = 0; k < C; k++) sum += (double)in[0]->data[p * C + k] * (double)in[0]->data[p * C + k];
        for (k = 0; k < C; k++) CHECK_CLOSE(out->data[p * C + k], (double)in[1]->data[k] * (double)in[0]->data[p * C + k] / (sqrt(sum) + 0.3), OP_TOLERANCE);
    }
    un_check("unit_channels", 2, in, lp_do_unit);
    un_check("unit_channels without factors", 1, in, lp_do_unit_1);
    // A pixel of zeros stays zeros, and its gradient is none.
    for (k = 0; k < C; k++) in[0]->data[k] = 0;
    ctm_tape_reset(&op_tape);
    in[0] = un_image("x", 1, 1, 2, 3);
    for (k = 0; k < 3; k++) in[0]->data[k] = 0;
    out = lp_do_unit_1(&op_tape, in);
    CHECK(out->data[0] == 0 && out->data[2] == 0 && fabs((double)out->data[3]) > 0.001);
    for (k = 0; k < 6; k++) out->grad[k] = un_seed(k);
    ctm_backward_seeded(&op_tape, out);
    for (k = 0; k < 3; k++) CHECK(in[0]->grad[k] == 0 && in[0]->grad[3 + k] != 0);
    in[0] = un_image("x", 2, 16, 9, 40);                         // more pixels than one piece of work has
    in[1] = op_constants("c", 40);
    un_same_bits("unit_channels", lp_do_unit, in, 1);
    in[0] = un_image("x", 1, 2, 4, 3);
    for (k = 0; k < 24; k++) in[0]->data[k] = (ctm_real)((double)(k * 7 % 24) / 4 - 3);     // no two as near as the check's h
    in[1] = op_constants("c", 3);
    un_check("max_pool, resize, unit_channels, twice", 1, in, lp_do_twice);
    un_same_recycled("max_pool, resize, unit_channels, twice", lp_do_twice, in, 1);
    OP_MISUSE(ctm_unit_channels(&op_tape, in[0], op_constants("c", 4), 1), "ctm_unit_channels", "\"x\" [1,2,4,3]", "\"c\" [4]");
    OP_MISUSE(ctm_unit_channels(&op_tape, in[0], op_vector("c", 3), 1), "ctm_unit_channels", "constants", "\"c\" [3]");
    OP_MISUSE(ctm_unit_channels(&op_tape, op_matrix("flat", 4, 4), NULL, 1), "ctm_unit_channels", "\"flat\"", "[B,H,W,C]");
    CHECK(PANICS(ctm_unit_channels(&op_tape, in[0], NULL, 0)));
    CHECK_TEXT(test_panic, "eps is 0");
    op_end();
}

// ---- the distance

#define LP_WEIGHTS CTM_TEST_DATA "/lpips_weights.safetensors"

static ctm_lpips *lp_load(int size, int channels) {
    ctm_lpips *q = ctm_lpips_load(&un_memory, LP_WEIGHTS, size, channels);
    if (!q) { printf("FAIL %s  %s\n", test_now.name, ctm_error(&op_ctx)); exit(1); }
    return q;
}
static ctm_tensor *lp_image_256(int k) {                        // make_lpips.py's large(k)
    ctm_tensor *x = ctm_matrix(&op_tape, "large", 1, 256 * 256 * 3);
    size_t i;
    for (i = 0; i < x->len; i++) x->data[i] = (ctm_real)(sin((double)i * (0.01 + 0.003 * k)) * 0.75);
    return x;
}

// [eq:lpips] distances and gradients of both kinds of pooling; images of one channel; images that are not enlarged.
static void test_lpips_golden(void) {
    static const char *const kind[2] = {"mean", "max"};
    golden_file *g = golden_open("lpips");
    ctm_lpips *rgb, *grey, *large;
    ctm_tensor *a, *b, *d, *a1, *b1;
    char name[40];
    size_t i;
    int pool;
    un_begin();
    op_ctx.threads = 2;
    rgb = lp_load(12, 3);
    grey = lp_load(12, 1);
    large = lp_load(256, 3);
    CHECK(rgb->pool == CTM_POOL_MEAN && rgb->net->grad == NULL);
    for (pool = 0; pool < 2; pool++) {
        rgb->pool = grey->pool = large->pool = pool ? CTM_POOL_MAX : CTM_POOL_MEAN;
        a = ctm_wants_grad(&op_tape, golden_tensor(&op_tape, g, "in.a"));
        b = golden_tensor(&op_tape, g, "in.b");
        a1 = ctm_matrix(&op_tape, "a1", 2, 144);
        b1 = ctm_matrix(&op_tape, "b1", 2, 144);
        for (i = 0; i < a1->len; i++) { a1->data[i] = a->data[3 * i]; b1->data[i] = b->data[3 * i]; }
        d = ctm_lpips_distance(rgb, &op_tape, a, b);
        CHECK(d->ndim == 1 && d->shape[0] == 2 && strcmp(d->name, "lpips") == 0);
        snprintf(name, sizeof name, "out.%s.d", kind[pool]);
        golden_check(g, name, d->data, 2);
        golden_copy(g, "in.seed", d->grad);
        ctm_backward_seeded(&op_tape, d);
        snprintf(name, sizeof name, "out.%s.grad.a", kind[pool]);
        golden_check(g, name, a->grad, a->len);
        snprintf(name, sizeof name, "out.%s.grey", kind[pool]);
        golden_check(g, name, ctm_lpips_distance(grey, &op_tape, a1, b1)->data, 2);
        snprintf(name, sizeof name, "out.%s.large", kind[pool]);
        golden_check(g, name, ctm_lpips_distance(large, &op_tape, lp_image_256(0), lp_image_256(1))->data, 1);
        d = ctm_lpips_distance(rgb, &op_tape, a, ctm_rows_of(&op_tape, a, 2));
        CHECK(d->data[0] == 0 && d->data[1] == 0);               // identical images
        ctm_tape_reset(&op_tape);
    }
    OP_MISUSE(ctm_lpips_distance(rgb, &op_tape, op_matrix("a", 2, 7), op_matrix("b", 2, 7)), "ctm_lpips_distance", "\"a\" [2,7]", "\"b\" [2,7]");
    CHECK(PANICS(ctm_lpips_load(&un_memory, LP_WEIGHTS, 32, 2)));
    CHECK_TEXT(test_panic, "2 channels");
    CHECK(PANICS(ctm_lpips_load(&un_memory, LP_WEIGHTS, 260, 3)));
    CHECK_TEXT(test_panic, "260 x 260");
    un_end();
    golden_close(g);
}

// In the trainer: the loss of a step is the mean of the distances that the same step has with this as its distance, whatever the threads.
static void lp_draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    int i;
    (void)user;
    for (i = 0; i < 48; i++) x0[i] = (ctm_real)(0.5 * ctm_normal(rng, step, index * 48 + (uint64_t)i));
}
static void test_lpips_trains(void) {
    ctm_config cfg = ctm_recipe_points();
    double L[3], norm[3];
    int run;
    cfg.size = 4; cfg.channels = 3; cfg.model_channels = 4; cfg.channel_mult[0] = 1; cfg.channel_mult[1] = 0; cfg.num_blocks = 1; cfg.attn[0] = 0;
    cfg.batch = 2; cfg.shards = 2; cfg.aim = NULL; cfg.share_at_s = 0; cfg.steps = 2;
    for (run = 0; run < 3; run++) {
        ctm_trainer *tr;
        un_begin();
        op_ctx.threads = run + 1;
        tr = ctm_trainer_new(&un_memory, &cfg, ctm_unet(&un_memory, &cfg, 1), NULL, lp_draw, NULL);
        if (run < 2) {
            tr->distance = ctm_lpips_distance;
            tr->distance_user = lp_load(4, 3);
        }
        CHECK(ctm_train_step(tr) && ctm_train_step(tr));
        L[run] = tr->L_ctm;
        norm[run] = tr->grad_norm;
        ctm_trainer_free(tr);
        un_end();
    }
    CHECK(L[0] == L[1] && norm[0] == norm[1] && L[0] > 0 && norm[0] > 0);
    CHECK(L[0] != L[2]);                                         // mean squares
}

// ---- files that are no LPIPS

// The weights' file again, but without tensor `drop`, with `name` instead of `from`, and with value `first` at the start of `at`.
static void lp_write(const char *path, const char *drop, const char *from, const char *name, const char *at, double first) {
    ctm_file *f = ctm_file_read(&un_memory, LP_WEIGHTS);
    ctm_writer w;
    int i;
    size_t k;
    CHECK(f != NULL);
    if (!f) return;
    ctm_writer_init(&w, &un_memory);
    for (i = 0; i < f->count; i++) {
        const ctm_entry *e = f->entry + i;
        double *v = (double *)ctm_alloc(&un_memory, e->len * sizeof *v);
        ctm_real *real = (ctm_real *)ctm_alloc(&un_memory, e->len * sizeof *real);
        if (strcmp(e->name, drop) == 0) continue;
        ctm_file_get(f, e, v);
        for (k = 0; k < e->len; k++) real[k] = (ctm_real)v[k];
        if (strcmp(e->name, at) == 0) real[0] = (ctm_real)first;
        ctm_writer_add(&w, strcmp(e->name, from) == 0 ? name : e->name, real, e->ndim, e->shape, 0);
    }
    CHECK(ctm_writer_save(&w, path));
}
static void lp_refused(const char *path, const char *part) {
    op_ctx.error[0] = 0;
    CHECK(ctm_lpips_load(&un_memory, path, 32, 3) == NULL);
    check_error(&op_ctx, path, part);
}
static void test_lpips_files(void) {
    const char *path = scratch_path("lpips.safetensors");
    static const int wrong[3] = {6, 4, 9};
    ctm_lpips *q;
    ctm_writer w;
    ctm_real numbers[300];
    un_begin();
    memset(numbers, 0, sizeof numbers);
    lp_refused("no/such/file.safetensors", "no/such/file");
    lp_write(path, "", "", "", "", 0);
    q = ctm_lpips_load(&un_memory, path, 32, 3);
    CHECK(q != NULL && q->net->param[2 * 13]->len == 6 && q->size == 32);
    lp_write(path, "features.17.weight", "", "", "", 0);
    lp_refused(path, "no tensor \"features.17.weight\"");
    lp_write(path, "features.28.bias", "", "", "", 0);
    lp_refused(path, "no tensor \"features.28.bias\"");
    lp_write(path, "lin3.model.1.weight", "", "", "", 0);
    lp_refused(path, "no tensor \"lin3.model.1.weight\"");
    lp_write(path, "", "lin4.model.1.weight", "lin5.model.1.weight", "", 0);
    lp_refused(path, "no tensor \"lin4.model.1.weight\"");
    lp_write(path, "", "", "", "lin2.model.1.weight", -0.25);
    lp_refused(path, "\"lin2.model.1.weight\" holds -0.25");
    lp_write(path, "", "", "", "features.5.bias", sqrt(-1.0));
    lp_refused(path, "\"features.5.bias\" holds a number that is not finite");
    lp_write(path, "", "features.0.weight", "x", "", 0);         // the second convolution where the first should be
    lp_refused(path, "\"features.0.weight\"");
    lp_write(path, "features.2.weight", "features.10.weight", "features.2.weight", "", 0);
    lp_refused(path, "\"features.2.weight\" must be [its width,5,3,3]");
    ctm_writer_init(&w, &un_memory);                             // of points, not of images
    ctm_writer_add(&w, "features.0.weight", numbers, 3, wrong, 0);
    CHECK(ctm_writer_save(&w, path));
    lp_refused(path, "\"features.0.weight\" must be [its width,3,3,3]");
    remove(path);
    un_end();
}
// One tensor too many.
static void test_lpips_extra(void) {
    const char *path = scratch_path("lpips.safetensors");
    ctm_file *f;
    ctm_writer w;
    ctm_real numbers[2000];
    int i, one = 1;
    un_begin();
    memset(numbers, 0, sizeof numbers);
    f = ctm_file_read(&un_memory, LP_WEIGHTS);
    ctm_writer_init(&w, &un_memory);
    for (i = 0; f && i < f->count; i++) ctm_writer_add(&w, f->entry[i].name, numbers, f->entry[i].ndim, f->entry[i].shape, 0);
    ctm_writer_add(&w, "classifier.0.bias", numbers, 1, &one, 0);
    CHECK(ctm_writer_save(&w, path));
    lp_refused(path, "\"classifier.0.bias\" has no place");
    remove(path);
    un_end();
}

static void run_lpips(void) {
    RUN(op_max_pool);
    RUN(op_resize);
    RUN(op_unit_channels);
    RUN(lpips_golden);
    RUN(lpips_trains);
    RUN(lpips_files);
    RUN(lpips_extra);
}
