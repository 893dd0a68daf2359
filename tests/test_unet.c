// Operations on images and the U-Net made of them: every operation against plain loops written out here and against finite
// differences (the workshop of test_operations.c), the network against golden values; and what neither may depend on.
// Images are [B,H,W,C], channels innermost.
#include "test.h"
#include "golden.h"

static ctm_tensor *un_image(const char *name, int B, int H, int W, int C) {
    return ctm_wants_grad(&op_tape, op_filled(ctm_image(&op_tape, name, B, H, W, C), 1));
}
static ctm_tensor *un_kernel(int k, int I, int O) {          // of a size that keeps a convolution's results near 1
    return ctm_wants_grad(&op_tape, op_filled(ctm_image(&op_tape, "w", k, k, I, O), 1 / sqrt((double)(k * k * I))));
}
static double *un_doubles(const ctm_tensor *x) {             // a copy; NULL for no tensor
    double *v;
    size_t i;
    if (!x) return NULL;
    v = (double *)ctm_alloc(&op_arena, (x->len + 1) * sizeof(double));
    for (i = 0; i < x->len; i++) v[i] = (double)x->data[i];
    return v;
}
static double *un_zeros(size_t n) { return (double *)ctm_alloc(&op_arena, (n + 1) * sizeof(double)); }

// got = start + want, to a share of the largest wanted number. One failure for an array is enough.
static void un_close(const char *what, const ctm_real *got, const double *want, size_t n, double start, double share) {
    double allowed = share * (golden_largest(want, n) + fabs(start));
    char text[300];
    size_t i;
    for (i = 0; i < n; i++) {
        double v = (double)got[i] - start;
        if (ctm_is_finite(v) && fabs(v - want[i]) <= allowed) continue;
        snprintf(text, sizeof text, "%s on %s, winograd %d: [%lu] = %.10g, expected %.10g within %.3g", what, ctm_isa_name(op_ctx.isa),
                 op_ctx.winograd, (unsigned long)i, v, want[i], allowed);
        test_fail(__FILE__, __LINE__, text);
        return;
    }
}
#define UN_SHARE (IN_DOUBLE ? 1e-12 : 1e-5)

// Runs forward and backward once, with gradients that start from `start` and a fixed gradient of the result, and lays result
// and gradients one behind the other. The memory that it gets is full of NaN, so that nothing can count on zeros.
static ctm_real un_seed(size_t i) { return (ctm_real)(((double)(i * 7919 % 37) - 17.5) / 16); }
static size_t un_run(op_build build, ctm_tensor **in, int n, int keep_grads, double start, ctm_real *to) {
    ctm_mark m = ctm_arena_mark(&op_arena), again;
    ctm_tape tape = op_tape;
    ctm_tensor *out;
    ctm_real *grad;
    size_t len = 0, i;
    int k;
    again = ctm_arena_mark(&op_arena);
    memset(ctm_alloc_raw(&op_arena, (size_t)1 << 20), 0xff, (size_t)1 << 20);
    ctm_arena_release(&op_arena, again);
    tape.first = tape.last = NULL;
    tape.keep_grads = keep_grads;
    for (k = 0; k < n; k++) for (i = 0; i < in[k]->len; i++) if (in[k]->grad) in[k]->grad[i] = (ctm_real)start;
    out = build(&tape, in);
    memcpy(to, out->data, out->len * sizeof(ctm_real));
    len += out->len;
    grad = ctm_grad(&tape, out);
    CHECK(grad != NULL);
    if (grad) {
        for (i = 0; i < out->len; i++) grad[i] = un_seed(i);
        ctm_backward_seeded(&tape, out);
    }
    for (k = 0; k < n; k++) {
        if (!in[k]->grad) continue;
        memcpy(to + len, in[k]->grad, in[k]->len * sizeof(ctm_real));
        len += in[k]->len;
    }
    ctm_arena_release(&op_arena, m);
    return len;
}
static size_t un_run_room(op_build build, ctm_tensor **in, int n) {      // how many numbers that lays down
    ctm_mark m = ctm_arena_mark(&op_arena);
    ctm_tape tape = op_tape;
    size_t len;
    int k;
    tape.recording = 0;
    len = build(&tape, in)->len;
    for (k = 0; k < n; k++) if (in[k]->grad) len += in[k]->len;
    ctm_arena_release(&op_arena, m);
    return len;
}

// The same bits for every number of threads, on the plainest and the best instruction set, whatever 3x3 products are made of.
static void un_same_bits(const char *what, op_build build, ctm_tensor **in, int n) {
    static const int threads[4] = {1, 2, 3, 5};
    ctm_mark m = ctm_arena_mark(&op_arena);
    size_t room = un_run_room(build, in, n);
    ctm_real *one = (ctm_real *)ctm_alloc(&op_arena, room * sizeof(ctm_real)), *more = (ctm_real *)ctm_alloc(&op_arena, room * sizeof(ctm_real));
    int isa, w, t, best = op_ctx.isa, threads_were = op_ctx.threads, winograd_was = op_ctx.winograd;
    char text[200];
    for (isa = 0; isa <= best; isa += best ? best : 1) {
        if (!ctm_set_isa(&op_ctx, isa)) continue;
        for (w = 0; w < 3; w += 2)
            for (t = 0; t < 4; t++) {
                op_ctx.winograd = w;
                op_ctx.threads = threads[t];
                CHECK(un_run(build, in, n, 1, 0, t ? more : one) == room);
                if (t == 0 || memcmp(one, more, room * sizeof(ctm_real)) == 0) continue;
                snprintf(text, sizeof text, "%s on %s, winograd %d: %d threads give other bits than one", what, ctm_isa_name(isa), w, threads[t]);
                test_fail(__FILE__, __LINE__, text);
            }
    }
    op_ctx.threads = threads_were;
    op_ctx.winograd = winograd_was;
    ctm_set_isa(&op_ctx, best);
    ctm_arena_release(&op_arena, m);
}

// Gradients of results in between come and go (keep_grads 0) or stay: the leaves' are the same.
static void un_same_recycled(const char *what, op_build build, ctm_tensor **in, int n) {
    ctm_mark m = ctm_arena_mark(&op_arena);
    size_t room = un_run_room(build, in, n), i;
    ctm_real *kept = (ctm_real *)ctm_alloc(&op_arena, room * sizeof(ctm_real)), *recycled = (ctm_real *)ctm_alloc(&op_arena, room * sizeof(ctm_real));
    char text[200];
    un_run(build, in, n, 1, 0.5, kept);
    un_run(build, in, n, 0, 0.5, recycled);
    for (i = 0; i < room; i++)
        if (!(fabs((double)(kept[i] - recycled[i])) <= (IN_DOUBLE ? 1e-13 : 2e-6) * (1 + fabs((double)kept[i])))) {
            snprintf(text, sizeof text, "%s: number %lu is %.9g with kept gradients, %.9g with recycled ones", what, (unsigned long)i,
                     (double)kept[i], (double)recycled[i]);
            test_fail(__FILE__, __LINE__, text);
            break;
        }
    ctm_arena_release(&op_arena, m);
}

// The gradient check of test_operations.c. Its thousands of tiny passes would only wait for other threads.
static void un_check(const char *what, int n, ctm_tensor **in, op_build build) {
    int threads = op_ctx.threads;
    op_ctx.threads = 1;
    op_check(what, n, in, build);
    op_ctx.threads = threads;
}

// ---- reshape, concatenation, halving and doubling

static int un_to[5];                                         // ndim and shape
static ctm_tensor *un_do_reshape(ctm_tape *tp, ctm_tensor **in) { return ctm_reshape(tp, in[0], un_to[0], un_to[1], un_to[2], un_to[3], un_to[4]); }
static void test_op_reshape(void) {
    static const int to[4][5] = {{2, 2, 60, 0, 0}, {1, 120, 0, 0, 0}, {4, 1, 2, 12, 5}, {4, 2, 3, 4, 5}};
    ctm_tensor *in[1], *out, *back;
    int k, d;
    op_begin();
    in[0] = un_image("x", 2, 3, 4, 5);
    for (k = 0; k < 4; k++) {
        memcpy(un_to, to[k], sizeof un_to);
        out = un_do_reshape(&op_tape, in);
        CHECK(out->ndim == un_to[0] && out->len == 120);
        for (d = 0; d < un_to[0]; d++) CHECK(out->shape[d] == un_to[1 + d]);
        CHECK(memcmp(out->data, in[0]->data, 120 * sizeof(ctm_real)) == 0);
        back = ctm_reshape(&op_tape, out, 4, 2, 3, 4, 5);
        CHECK(back->shape[3] == 5 && memcmp(back->data, in[0]->data, 120 * sizeof(ctm_real)) == 0);
        un_check("reshape", 1, in, un_do_reshape);
    }
    in[0] = op_matrix("flat", 2, 60);
    CHECK(un_do_reshape(&op_tape, in)->shape[2] == 4);
    CHECK(PANICS(ctm_reshape(&op_tape, in[0], 2, 2, 61, 0, 0)));
    CHECK_TEXT(test_panic, "ctm_reshape: \"flat\"");
    op_end();
}

static void test_op_concat_images(void) {
    ctm_tensor *in[2], *out;
    int p, c;
    op_begin();
    in[0] = un_image("a", 2, 3, 5, 3);
    in[1] = un_image("b", 2, 3, 5, 4);
    out = ctm_concat(&op_tape, in[0], in[1]);
    CHECK(out->ndim == 4 && out->shape[0] == 2 && out->shape[1] == 3 && out->shape[2] == 5 && out->shape[3] == 7);
    for (p = 0; p < 30; p++) for (c = 0; c < 7; c++) CHECK(out->data[p * 7 + c] == (c < 3 ? in[0]->data[p * 3 + c] : in[1]->data[p * 4 + c - 3]));
    un_check("concat of images", 2, in, op_do_concat);
    in[0] = un_image("a", 3, 16, 16, 5);                     // more pixels than one piece of work has
    in[1] = un_image("b", 3, 16, 16, 2);
    out = ctm_concat(&op_tape, in[0], in[1]);
    for (p = 0; p < 768; p++) for (c = 0; c < 7; c++) CHECK(out->data[p * 7 + c] == (c < 5 ? in[0]->data[p * 5 + c] : in[1]->data[p * 2 + c - 5]));
    un_same_bits("concat of images", op_do_concat, in, 2);
    OP_MISUSE(ctm_concat(&op_tape, un_image("a", 2, 3, 5, 3), un_image("b", 2, 5, 3, 3)), "ctm_concat", "\"a\" [2,3,5,3]", "\"b\" [2,5,3,3]");
    OP_MISUSE(ctm_concat(&op_tape, un_image("a", 2, 3, 5, 3), op_matrix("b", 2, 3)), "ctm_concat", "\"a\" [2,3,5,3]", "\"b\" [2,3]");
    op_end();
}

static ctm_tensor *un_do_down(ctm_tape *tp, ctm_tensor **in) { return ctm_down(tp, in[0]); }
static ctm_tensor *un_do_up(ctm_tape *tp, ctm_tensor **in) { return ctm_up(tp, in[0]); }
static double un_dot(const ctm_tensor *a, const ctm_tensor *b) {
    double sum = 0;
    size_t i;
    CHECK(a->len == b->len);
    for (i = 0; i < a->len; i++) sum += (double)a->data[i] * (double)b->data[i];
    return sum;
}
// Sizes of both tests: B, H, W, C.
static const int un_sizes[6][4] = {{1, 2, 2, 1}, {3, 2, 4, 3}, {1, 8, 6, 17}, {3, 4, 2, 48}, {1, 6, 14, 5}, {2, 16, 16, 100}};

static ctm_tensor *un_do_fold(ctm_tape *tp, ctm_tensor **in) { return ctm_fold(tp, in[0], 2); }
static ctm_tensor *un_do_unfold(ctm_tape *tp, ctm_tensor **in) { return ctm_unfold(tp, in[0], 2); }
static void test_op_fold(void) {
    ctm_tensor *in[1], *out, *back;
    int s, p, n, r, q, c;
    op_begin();
    for (s = 0; s < 6; s++) {
        int B = un_sizes[s][0], H = un_sizes[s][1], W = un_sizes[s][2], C = un_sizes[s][3];
        in[0] = un_image("x", B, H, W, C);
        for (p = 1; p <= 2; p++) {
            out = ctm_fold(&op_tape, in[0], p);
            CHECK(out->ndim == 4 && out->shape[0] == B && out->shape[1] == H / p && out->shape[2] == W / p && out->shape[3] == p * p * C);
            for (n = 0; n < B; n++) for (r = 0; r < H; r++) for (q = 0; q < W; q++) for (c = 0; c < C; c++)
                CHECK(in[0]->data[((n * H + r) * W + q) * C + c] ==
                      out->data[((n * (H / p) + r / p) * (W / p) + q / p) * p * p * C + ((r % p) * p + q % p) * C + c]);
            back = ctm_unfold(&op_tape, out, p);
            CHECK(back->shape[1] == H && back->shape[2] == W && back->shape[3] == C);
            CHECK(memcmp(back->data, in[0]->data, in[0]->len * sizeof(ctm_real)) == 0);
        }
        if (in[0]->len <= 600) un_check("fold", 1, in, un_do_fold);
    }
    un_same_bits("fold", un_do_fold, in, 1);
    CHECK(PANICS(ctm_fold(&op_tape, un_image("odd", 1, 3, 4, 2), 2)));
    CHECK_TEXT(test_panic, "\"odd\" [1,3,4,2]");
    CHECK(PANICS(ctm_fold(&op_tape, un_image("even", 1, 4, 4, 2), 0)));
    op_end();
}
static void test_op_unfold(void) {
    ctm_tensor *in[1];
    op_begin();
    in[0] = un_image("x", 2, 3, 2, 12);
    un_check("unfold", 1, in, un_do_unfold);
    in[0] = un_image("x", 3, 16, 8, 100);
    un_same_bits("unfold", un_do_unfold, in, 1);
    CHECK(PANICS(ctm_unfold(&op_tape, un_image("six", 1, 4, 4, 6), 2)));
    CHECK_TEXT(test_panic, "\"six\" [1,4,4,6]");
    op_end();
}

static void test_op_down(void) {
    ctm_tensor *in[1], *out, *y;
    int s, n, r, q, c, isa, best;
    op_begin();
    best = op_ctx.isa;
    for (s = 0; s < 6; s++) {
        int B = un_sizes[s][0], H = un_sizes[s][1], W = un_sizes[s][2], C = un_sizes[s][3];
        in[0] = un_image("x", B, H, W, C);
        for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
            if (!ctm_set_isa(&op_ctx, isa)) continue;
            out = ctm_down(&op_tape, in[0]);
            CHECK(out->ndim == 4 && out->shape[0] == B && out->shape[1] == H / 2 && out->shape[2] == W / 2 && out->shape[3] == C);
            for (n = 0; n < B; n++) for (r = 0; r < H / 2; r++) for (q = 0; q < W / 2; q++) for (c = 0; c < C; c++) {
                const ctm_real *x = in[0]->data + ((size_t)(n * H + 2 * r) * (size_t)W + (size_t)(2 * q)) * (size_t)C + c;
                double want = ((double)x[0] + (double)x[C] + (double)x[W * C] + (double)x[W * C + C]) / 4;
                CHECK_CLOSE(out->data[((size_t)(n * (H / 2) + r) * (size_t)(W / 2) + (size_t)q) * (size_t)C + (size_t)c], want, OP_TOLERANCE);
            }
            y = un_image("y", B, H / 2, W / 2, C);           // <down x, y> = <x, up y>/4
            CHECK_CLOSE(un_dot(out, y), un_dot(in[0], ctm_up(&op_tape, y)) / 4, (IN_DOUBLE ? 1e-12 : 1e-5) * (double)(1 + H * W));
        }
        ctm_set_isa(&op_ctx, best);
        if (in[0]->len <= 600) un_check("down", 1, in, un_do_down);
    }
    un_same_bits("down", un_do_down, in, 1);
    CHECK(PANICS(ctm_down(&op_tape, un_image("odd", 1, 3, 4, 2))));
    CHECK_TEXT(test_panic, "\"odd\" [1,3,4,2]");
    CHECK(PANICS(ctm_down(&op_tape, un_image("odd", 1, 4, 5, 2))));
    CHECK_TEXT(test_panic, "\"odd\" [1,4,5,2]");
    CHECK(PANICS(ctm_down(&op_tape, op_matrix("flat", 4, 4))));
    op_end();
}
static void test_op_up(void) {
    ctm_tensor *in[1], *out;
    int s, n, r, q, c, isa, best;
    op_begin();
    best = op_ctx.isa;
    for (s = 0; s < 6; s++) {
        int B = un_sizes[s][0], H = un_sizes[s][1] / 2, W = un_sizes[s][2] / 2, C = un_sizes[s][3];
        in[0] = un_image("x", B, H, W, C);
        for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
            if (!ctm_set_isa(&op_ctx, isa)) continue;
            out = ctm_up(&op_tape, in[0]);
            CHECK(out->ndim == 4 && out->shape[0] == B && out->shape[1] == 2 * H && out->shape[2] == 2 * W && out->shape[3] == C);
            for (n = 0; n < B; n++) for (r = 0; r < 2 * H; r++) for (q = 0; q < 2 * W; q++) for (c = 0; c < C; c++)
                CHECK(out->data[((n * 2 * H + r) * 2 * W + q) * C + c] == in[0]->data[((n * H + r / 2) * W + q / 2) * C + c]);
        }
        ctm_set_isa(&op_ctx, best);
        if (in[0]->len <= 600) un_check("up", 1, in, un_do_up);
    }
    un_same_bits("up", un_do_up, in, 1);
    CHECK(PANICS(ctm_up(&op_tape, op_matrix("flat", 4, 4))));
    op_end();
}

// ---- convolution

typedef struct un_size { int B, H, W, I, O, k; } un_size;

// The definition, in double: out += x * w with zeros around the image; with dout instead of out: dx and dw.
static void un_plain_conv(const un_size *s, const double *x, const double *w, double *out, const double *dout, double *dx, double *dw) {
    int n, r, q, a, b, i, o, half = s->k / 2;
    for (n = 0; n < s->B; n++) for (r = 0; r < s->H; r++) for (q = 0; q < s->W; q++) {
        size_t to = ((size_t)(n * s->H + r) * (size_t)s->W + (size_t)q) * (size_t)s->O;
        for (a = 0; a < s->k; a++) for (b = 0; b < s->k; b++) {
            int y = r + a - half, z = q + b - half;
            size_t from = ((size_t)(n * s->H + y) * (size_t)s->W + (size_t)z) * (size_t)s->I;
            if (y < 0 || y >= s->H || z < 0 || z >= s->W) continue;
            for (i = 0; i < s->I; i++) {
                size_t tap = ((size_t)(a * s->k + b) * (size_t)s->I + (size_t)i) * (size_t)s->O;
                double v = x[from + (size_t)i], sum = 0;
                if (out) for (o = 0; o < s->O; o++) out[to + (size_t)o] += v * w[tap + (size_t)o];
                if (!dout) continue;
                for (o = 0; o < s->O; o++) {
                    sum += w[tap + (size_t)o] * dout[to + (size_t)o];
                    dw[tap + (size_t)o] += v * dout[to + (size_t)o];
                }
                dx[from + (size_t)i] += sum;
            }
        }
    }
}

// x, w and, by the bits of `parts`, b, shift and res; all want gradients.
enum { UN_B = 1, UN_SHIFT = 2, UN_RES = 4 };
static double un_alpha;
static int un_parts;
static ctm_tensor *un_do_conv(ctm_tape *tp, ctm_tensor **in) {
    return ctm_conv(tp, in[0], in[1], un_parts & UN_B ? in[2] : NULL, un_parts & UN_SHIFT ? in[3] : NULL, un_parts & UN_RES ? in[4] : NULL, un_alpha);
}
static int un_conv_inputs(const un_size *s, ctm_tensor **in) {
    in[0] = un_image("x", s->B, s->H, s->W, s->I);
    in[1] = un_kernel(s->k, s->I, s->O);
    in[2] = op_vector("b", s->O);
    in[3] = op_matrix("shift", s->B, s->O);
    in[4] = un_image("res", s->B, s->H, s->W, s->O);
    return 5;
}

static void un_conv_against_plain(const un_size *s, int parts, double alpha) {
    ctm_mark m = ctm_arena_mark(&op_arena);
    ctm_tensor *in[5];
    double *x, *w, *b, *shift, *res, *out, *dout, *want[5];
    ctm_real *got, *at;
    size_t O = (size_t)s->O, pixels = (size_t)(s->H * s->W), len = pixels * (size_t)s->B * O, i, n;
    int isa, best = op_ctx.isa, k;
    char what[3][120];
    un_conv_inputs(s, in);
    un_parts = parts;
    un_alpha = alpha;
    x = un_doubles(in[0]); w = un_doubles(in[1]); b = un_doubles(in[2]); shift = un_doubles(in[3]); res = un_doubles(in[4]);
    out = un_zeros(len);
    dout = un_zeros(len);
    for (k = 0; k < 5; k++) want[k] = un_zeros(in[k]->len);
    for (i = 0; i < len; i++) dout[i] = alpha * (double)un_seed(i);
    un_plain_conv(s, x, w, out, dout, want[0], want[1]);
    for (i = 0; i < len; i++) {
        n = i / O / pixels;
        out[i] = alpha * (out[i] + (parts & UN_B ? b[i % O] : 0) + (parts & UN_SHIFT ? shift[n * O + i % O] : 0) + (parts & UN_RES ? res[i] : 0));
        if (parts & UN_B) want[2][i % O] += dout[i];
        if (parts & UN_SHIFT) want[3][n * O + i % O] += dout[i];
        if (parts & UN_RES) want[4][i] += dout[i];
    }
    for (k = 0; k < 3; k++)
        snprintf(what[k], sizeof what[k], "%s of conv %dx%d, x [%d,%d,%d,%d] to %d, parts %d", k == 0 ? "result" : k == 1 ? "dx" : "dw and others", s->k, s->k, s->B,
                 s->H, s->W, s->I, s->O, parts);
    got = (ctm_real *)ctm_alloc(&op_arena, (un_run_room(un_do_conv, in, 5) + 1) * sizeof(ctm_real));
    for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
        if (!ctm_set_isa(&op_ctx, isa)) continue;
        for (op_ctx.winograd = 0; op_ctx.winograd <= (s->k == 3 ? 2 : 0); op_ctx.winograd++) {
            un_run(un_do_conv, in, 5, 1, 0.5, got);
            un_close(what[0], got, out, len, 0, UN_SHARE);
            at = got + len;
            for (k = 0; k < 5; k++) {
                un_close(what[k ? 2 : 1], at, want[k], in[k]->len, 0.5, UN_SHARE);
                at += in[k]->len;
            }
        }
    }
    op_ctx.winograd = 1;
    ctm_set_isa(&op_ctx, best);
    ctm_arena_release(&op_arena, m);
}

// Widths and channels that fit no register, no tile and no block; one pixel; one row; one column; a batch of one and of three.
static const un_size un_conv_sizes[] = {
    {1, 1, 1, 1, 1, 3}, {3, 1, 1, 17, 3, 1}, {3, 1, 1, 48, 100, 3}, {1, 5, 7, 3, 17, 3}, {3, 7, 5, 17, 3, 3}, {1, 8, 8, 48, 48, 3},
    {3, 8, 8, 3, 100, 3}, {1, 32, 5, 1, 17, 3}, {1, 5, 32, 17, 1, 3}, {3, 1, 8, 48, 17, 3}, {1, 8, 1, 100, 3, 3}, {1, 7, 7, 100, 48, 3},
    {3, 5, 5, 48, 100, 1}, {1, 32, 32, 3, 48, 3}, {1, 32, 32, 48, 3, 3}, {1, 32, 32, 17, 17, 3}, {1, 8, 8, 100, 100, 3}, {1, 8, 7, 1, 1, 3},
    {3, 7, 8, 100, 1, 1}, {1, 32, 7, 48, 48, 3}, {3, 8, 32, 1, 3, 3}, {1, 5, 5, 17, 100, 1}, {3, 32, 32, 3, 3, 3}, {1, 32, 32, 17, 17, 1},
    {1, 2, 2, 17, 5, 3}, {3, 6, 2, 100, 48, 3}, {1, 10, 14, 33, 65, 3}};

// The Winograd products are another order of the same sums, so they have to agree with the same plain loops.
static void test_op_conv_plain(void) {
    int count = (int)(sizeof un_conv_sizes / sizeof un_conv_sizes[0]), s;
    op_begin();
    CHECK(op_ctx.winograd == 1);                             // what ctm_init chooses
    for (s = 0; s < count; s++) {
        un_conv_against_plain(un_conv_sizes + s, s % 8, s % 8 == 0 ? 1 : sqrt(0.5));
        if (s % 3 == 0) un_conv_against_plain(un_conv_sizes + s, 7 - s % 8, -1.5);
    }
    op_end();
}

// ctm_conv_naive is the definition that the text shows.
static void test_op_conv_naive(void) {
    static const un_size size[4] = {{2, 3, 5, 3, 4, 3}, {1, 1, 1, 2, 3, 3}, {3, 4, 1, 5, 2, 1}, {1, 6, 7, 1, 1, 3}};
    ctm_tensor *in[5];
    int s;
    op_begin();
    for (s = 0; s < 4; s++) {
        size_t len = (size_t)(size[s].B * size[s].H * size[s].W * size[s].O);
        double *want = un_zeros(len);
        ctm_real *got = (ctm_real *)ctm_alloc(&op_arena, len * sizeof(ctm_real));
        un_conv_inputs(size + s, in);
        un_plain_conv(size + s, un_doubles(in[0]), un_doubles(in[1]), want, NULL, NULL, NULL);
        ctm_conv_naive(size[s].B, size[s].H, size[s].W, size[s].I, size[s].O, size[s].k, in[0]->data, in[1]->data, got);
        un_close("ctm_conv_naive", got, want, len, 0, UN_SHARE);
    }
    op_end();
}

// Finite differences: of x, w, b and shift with a residual that is constant; of x, w and the residual without them.
static ctm_tensor *un_res;
static ctm_tensor *un_do_conv_all(ctm_tape *tp, ctm_tensor **in) { return ctm_conv(tp, in[0], in[1], in[2], in[3], un_res, -0.7); }
static ctm_tensor *un_do_conv_res(ctm_tape *tp, ctm_tensor **in) { return ctm_conv(tp, in[0], in[1], NULL, NULL, in[2], 1); }
static ctm_tensor *un_do_conv_bare(ctm_tape *tp, ctm_tensor **in) { return ctm_conv(tp, in[0], in[1], NULL, NULL, NULL, 2); }
static void test_op_conv(void) {
    static const un_size size[4] = {{2, 4, 2, 3, 5, 3}, {2, 2, 3, 4, 3, 1}, {1, 1, 1, 2, 3, 3}, {1, 5, 2, 1, 2, 3}};
    ctm_tensor *in[5], *three[3];
    int s;
    op_begin();
    for (s = 0; s < 4; s++)
        for (op_ctx.winograd = 0; op_ctx.winograd <= (size[s].k == 3 ? 2 : 0); op_ctx.winograd++) {
            un_conv_inputs(size + s, in);
            un_res = in[4];
            un_res->grad = NULL;
            un_check("conv", 4, in, un_do_conv_all);
            three[0] = in[0]; three[1] = in[1]; three[2] = un_image("res", size[s].B, size[s].H, size[s].W, size[s].O);
            un_check("conv with a residual", 3, three, un_do_conv_res);
            un_check("conv alone", 2, in, un_do_conv_bare);
        }
    op_ctx.winograd = 1;
    OP_MISUSE(ctm_conv(&op_tape, un_image("x", 2, 3, 4, 3), un_kernel(3, 4, 5), NULL, NULL, NULL, 1), "ctm_conv", "\"x\" [2,3,4,3]", "\"w\" [3,3,4,5]");
    OP_MISUSE(ctm_conv(&op_tape, op_matrix("x", 2, 3), un_kernel(3, 3, 5), NULL, NULL, NULL, 1), "ctm_conv", "\"x\" [2,3]", "\"w\" [3,3,3,5]");
    OP_MISUSE(ctm_conv(&op_tape, un_image("x", 2, 3, 4, 3), op_matrix("wm", 3, 5), NULL, NULL, NULL, 1), "ctm_conv", "\"x\" [2,3,4,3]", "\"wm\" [3,5]");
    CHECK(PANICS(ctm_conv(&op_tape, un_image("x", 2, 3, 4, 3), un_kernel(2, 3, 5), NULL, NULL, NULL, 1)));      // k is 1 or 3
    CHECK_TEXT(test_panic, "\"w\" [2,2,3,5]");
    CHECK(PANICS(ctm_conv(&op_tape, un_image("x", 2, 3, 4, 3), un_kernel(3, 3, 5), op_vector("b", 4), NULL, NULL, 1)));
    CHECK_TEXT(test_panic, "\"b\" [4]");
    CHECK(PANICS(ctm_conv(&op_tape, un_image("x", 2, 3, 4, 3), un_kernel(3, 3, 5), NULL, op_matrix("shift", 3, 5), NULL, 1)));
    CHECK_TEXT(test_panic, "\"shift\" [3,5]");
    CHECK(PANICS(ctm_conv(&op_tape, un_image("x", 2, 3, 4, 3), un_kernel(3, 3, 5), NULL, NULL, un_image("res", 2, 3, 4, 3), 1)));
    CHECK_TEXT(test_panic, "\"res\" [2,3,4,3]");
    op_end();
}

// Whatever Winograd's rule is: it changes roundings only, and a batch of pictures is pictures one by one.
static void test_op_conv_rows(void) {
    static const un_size five = {5, 16, 16, 24, 40, 3};
    ctm_tensor *in[5], *out, *one, *part;
    int n, w;
    size_t len = (size_t)16 * 16 * 40;
    op_begin();
    un_conv_inputs(&five, in);
    for (w = 0; w < 3; w++) {
        op_ctx.winograd = w;
        out = ctm_conv(&op_tape, in[0], in[1], in[2], NULL, NULL, 1);
        for (n = 0; n < 5; n++) {
            double *want = un_doubles(out) + (size_t)n * len;
            part = ctm_image(&op_tape, "part", 1, 16, 16, 24);
            memcpy(part->data, in[0]->data + (size_t)n * 16 * 16 * 24, part->len * sizeof(ctm_real));
            one = ctm_conv(&op_tape, part, in[1], in[2], NULL, NULL, 1);
            un_close("conv of one picture", one->data, want, len, 0, UN_SHARE);
        }
    }
    op_end();
}

static void test_op_conv_same_bits(void) {
    static const un_size size[3] = {{3, 16, 16, 24, 40, 3}, {1, 32, 32, 17, 20, 3}, {5, 8, 9, 40, 24, 1}};
    ctm_tensor *in[5];
    int s;
    op_begin();
    for (s = 0; s < 3; s++) {
        un_conv_inputs(size + s, in);
        un_parts = 7;
        un_alpha = 0.7;
        un_same_bits("conv", un_do_conv, in, 5);
    }
    op_end();
}

// ---- group norm

typedef struct un_norm { int B, H, W, C, groups; } un_norm;

// out, and from dout the gradients, all in double.
static void un_plain_norm(const un_norm *s, double eps, int silu, const double *x, const double *gamma, const double *beta, const double *dout,
                          double *out, double *dx, double *dgamma, double *dbeta) {
    int P = s->H * s->W, C = s->C, wide = C / s->groups, n, g, p, c;
    double count = (double)P * wide;
    for (n = 0; n < s->B; n++) for (g = 0; g < s->groups; g++) {
        double mean = 0, var = 0, sum = 0, along = 0, scale;
        const double *v = x + (size_t)n * (size_t)(P * C);
        size_t base = (size_t)n * (size_t)(P * C);
        for (p = 0; p < P; p++) for (c = g * wide; c < (g + 1) * wide; c++) mean += v[p * C + c] / count;
        for (p = 0; p < P; p++) for (c = g * wide; c < (g + 1) * wide; c++) var += (v[p * C + c] - mean) * (v[p * C + c] - mean) / count;
        scale = 1 / sqrt(var + eps);
        for (p = 0; p < P; p++) for (c = g * wide; c < (g + 1) * wide; c++) {
            double hat = (v[p * C + c] - mean) * scale, y = gamma[c] * hat + beta[c], sig = 1 / (1 + exp(-y));
            double dy = dout[base + (size_t)(p * C + c)] * (silu ? sig * (1 + y * (1 - sig)) : 1);
            out[base + (size_t)(p * C + c)] = silu ? y * sig : y;
            dgamma[c] += dy * hat;
            dbeta[c] += dy;
            sum += dy * gamma[c] / count;
            along += dy * gamma[c] * hat / count;
        }
        for (p = 0; p < P; p++) for (c = g * wide; c < (g + 1) * wide; c++) {
            size_t at = base + (size_t)(p * C + c);
            double hat = (v[p * C + c] - mean) * scale, y = gamma[c] * hat + beta[c], sig = 1 / (1 + exp(-y));
            dx[at] = scale * (dout[at] * (silu ? sig * (1 + y * (1 - sig)) : 1) * gamma[c] - sum - hat * along);
        }
    }
}

static int un_groups, un_silu;
static double un_eps;
static ctm_tensor *un_do_norm(ctm_tape *tp, ctm_tensor **in) { return ctm_group_norm(tp, in[0], in[1], in[2], un_groups, un_eps, un_silu); }
static void un_norm_inputs(const un_norm *s, double offset, ctm_tensor **in) {
    size_t i;
    un_groups = s->groups;
    un_eps = 1e-6;
    in[0] = un_image("x", s->B, s->H, s->W, s->C);
    in[1] = op_vector("gamma", s->C);
    in[2] = op_vector("beta", s->C);
    for (i = 0; i < in[0]->len; i++) in[0]->data[i] += (ctm_real)offset;
    for (i = 0; i < in[1]->len; i++) in[1]->data[i] = (ctm_real)(1 + 0.3 * (double)in[1]->data[i]);
}

static void un_norm_against_plain(const un_norm *s, double offset, double share) {
    ctm_mark m = ctm_arena_mark(&op_arena);
    ctm_tensor *in[3];
    double *x, *gamma, *beta, *dout, *out, *dx, *dgamma, *dbeta;
    ctm_real *got;
    size_t len, C = (size_t)s->C, i;
    int isa, best = op_ctx.isa, numbers = s->H * s->W * s->C / s->groups;
    char what[160];
    un_norm_inputs(s, offset, in);
    x = un_doubles(in[0]); gamma = un_doubles(in[1]); beta = un_doubles(in[2]);
    len = in[0]->len;
    dout = un_zeros(len); out = un_zeros(len); dx = un_zeros(len);
    for (i = 0; i < len; i++) dout[i] = (double)un_seed(i);
    got = (ctm_real *)ctm_alloc(&op_arena, (2 * len + 2 * C) * sizeof(ctm_real));
    for (un_silu = 0; un_silu < 2; un_silu++) {
        dgamma = un_zeros(C); dbeta = un_zeros(C);
        un_plain_norm(s, un_eps, un_silu, x, gamma, beta, dout, out, dx, dgamma, dbeta);
        for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
            if (!ctm_set_isa(&op_ctx, isa)) continue;
            snprintf(what, sizeof what, "group_norm%s of [%d,%d,%d,%d] in %d groups around %g", un_silu ? " and silu" : "", s->B, s->H, s->W, s->C,
                     s->groups, offset);
            un_run(un_do_norm, in, 3, 1, 0.5, got);
            un_close(what, got, out, len, 0, share);
            strcat(what, ": dx");
            // One or two numbers say nothing but their mean: dx is what rounding leaves, and 1/sqrt(eps) = 1000 times that.
            un_close(what, got + len, dx, len, 0.5, numbers < 3 ? 1000 * share : share);
            what[strlen(what) - 2] = 0;
            strcat(what, "dgamma");
            un_close(what, got + 2 * len, dgamma, C, 0.5, share);
            what[strlen(what) - 6] = 0;
            strcat(what, "dbeta");
            un_close(what, got + 2 * len + C, dbeta, C, 0.5, share);
        }
        ctm_set_isa(&op_ctx, best);
    }
    ctm_arena_release(&op_arena, m);
}

// One group, one group for every few channels or for each; groups whose width is no multiple of 4; one pixel.
static const un_norm un_norm_sizes[] = {{2, 3, 5, 8, 2}, {1, 1, 1, 6, 2}, {1, 1, 1, 3, 3}, {3, 7, 5, 17, 1}, {2, 5, 5, 12, 12}, {1, 8, 8, 100, 25},
                                        {3, 4, 4, 48, 12}, {2, 5, 3, 21, 7}, {1, 32, 32, 16, 4}, {1, 5, 1, 34, 2}, {3, 1, 7, 1, 1}, {2, 16, 16, 256, 32}};

static void test_op_group_norm(void) {
    int count = (int)(sizeof un_norm_sizes / sizeof un_norm_sizes[0]), s;
    ctm_tensor *in[3];
    op_begin();
    for (s = 0; s < count; s++) un_norm_against_plain(un_norm_sizes + s, 0.3, UN_SHARE);
    for (s = 0; s < count; s++) {
        if (un_norm_sizes[s].B * un_norm_sizes[s].H * un_norm_sizes[s].W * un_norm_sizes[s].C > 300 || un_norm_sizes[s].H == 1) continue;
        for (un_silu = 0; un_silu < 2; un_silu++) {
            un_norm_inputs(un_norm_sizes + s, 0.3, in);
            un_check(un_silu ? "group_norm and silu" : "group_norm", 3, in, un_do_norm);
        }
    }
    un_silu = 1;
    un_norm_inputs(un_norm_sizes + 11, 0, in);
    un_same_bits("group_norm", un_do_norm, in, 3);
    un_norm_inputs(un_norm_sizes + 7, 0, in);
    un_same_bits("group_norm in uneven groups", un_do_norm, in, 3);
    CHECK(PANICS(ctm_group_norm(&op_tape, un_image("x", 1, 2, 2, 6), op_vector("gamma", 6), op_vector("beta", 6), 4, 1e-6, 0)));
    CHECK_TEXT(test_panic, "ctm_group_norm: 4 groups do not divide the 6 channels of \"x\"");
    CHECK(PANICS(ctm_group_norm(&op_tape, un_image("x", 1, 2, 2, 6), op_vector("gamma", 6), op_vector("beta", 6), 0, 1e-6, 0)));
    CHECK(PANICS(ctm_group_norm(&op_tape, un_image("x", 1, 2, 2, 6), op_vector("gamma", 5), op_vector("beta", 6), 2, 1e-6, 0)));
    CHECK_TEXT(test_panic, "\"gamma\" [5]");
    CHECK(PANICS(ctm_group_norm(&op_tape, un_image("x", 1, 2, 2, 6), op_vector("gamma", 6), op_vector("beta", 7), 2, 1e-6, 0)));
    CHECK_TEXT(test_panic, "ctm_group_norm");
    CHECK(PANICS(ctm_group_norm(&op_tape, op_matrix("flat", 2, 6), op_vector("gamma", 6), op_vector("beta", 6), 2, 1e-6, 0)));
    op_end();
}

// A variance that is taken as a difference of squares drowns beside a large mean: here 1 beside a million. The inputs
// themselves are rounded to 6e-5 in float, but the loops in double start from the rounded ones.
static void test_op_group_norm_offset(void) {
    int count = (int)(sizeof un_norm_sizes / sizeof un_norm_sizes[0]), s;
    op_begin();
    for (s = 0; s < count; s++)
        if (un_norm_sizes[s].H > 1) un_norm_against_plain(un_norm_sizes + s, 1000, IN_DOUBLE ? 1e-9 : 1e-3);
    op_end();
}

// A constant picture: nothing to divide by but eps. And far out SiLU is 0 on the left, the identity on the right.
static void test_op_group_norm_constant(void) {
    ctm_tensor *in[3], *out;
    ctm_real *got;
    size_t i, k;
    int isa, best;
    op_begin();
    for (un_silu = 0; un_silu < 2; un_silu++) {
        un_norm_inputs(un_norm_sizes, 0, in);
        ctm_fill(in[0], 3);
        out = un_do_norm(&op_tape, in);
        for (i = 0; i < out->len; i++) {
            double y = (double)in[2]->data[i % 8];
            CHECK_CLOSE(out->data[i], un_silu ? y / (1 + exp(-y)) : y, IN_DOUBLE ? 1e-12 : 1e-3);
        }
    }
    best = op_ctx.isa;
    un_silu = 1;
    un_norm_inputs(un_norm_sizes, 0, in);
    in[2]->data[0] = -1000; in[2]->data[1] = 1000; in[2]->data[2] = -95; in[2]->data[3] = 95;
    got = (ctm_real *)ctm_alloc(&op_arena, (2 * in[0]->len + 16) * sizeof(ctm_real));
    for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
        if (!ctm_set_isa(&op_ctx, isa)) continue;
        k = un_run(un_do_norm, in, 3, 1, 0, got);
        for (i = 0; i < k; i++) CHECK(ctm_is_finite((double)got[i]));
        for (i = 0; i < in[0]->len; i += 8) {
            CHECK_CLOSE(got[i], 0, 1e-30); CHECK_CLOSE(got[i + 1], 1000, 10); CHECK_CLOSE(got[i + 2], 0, 1e-30); CHECK_CLOSE(got[i + 3], 95, 10);
        }
    }
    ctm_set_isa(&op_ctx, best);
    op_end();
}

// ---- group norm, SiLU and convolution in one: the same as one after the other

static ctm_tensor *un_do_norm_conv(ctm_tape *tp, ctm_tensor **in) {
    return ctm_norm_conv(tp, in[0], in[5], in[6], un_groups, 1e-6, in[1], un_parts & UN_B ? in[2] : NULL, un_parts & UN_SHIFT ? in[3] : NULL,
                         un_parts & UN_RES ? in[4] : NULL, un_alpha);
}
static ctm_tensor *un_do_norm_then_conv(ctm_tape *tp, ctm_tensor **in) {
    ctm_tensor *a = ctm_group_norm(tp, in[0], in[5], in[6], un_groups, 1e-6, 1);
    return ctm_conv(tp, a, in[1], un_parts & UN_B ? in[2] : NULL, un_parts & UN_SHIFT ? in[3] : NULL, un_parts & UN_RES ? in[4] : NULL, un_alpha);
}
static int un_norm_conv_inputs(const un_size *s, int groups, ctm_tensor **in) {
    ctm_tensor *norm[3];
    un_norm n;
    n.B = s->B; n.H = s->H; n.W = s->W; n.C = s->I; n.groups = groups;
    un_conv_inputs(s, in);
    un_norm_inputs(&n, 0, norm);
    in[5] = norm[1];
    in[6] = norm[2];
    return 7;
}
// The gradient check takes four inputs: those of the norm with w, and those of the convolution's sum. The others are constant.
static ctm_tensor *un_fixed[7];
static ctm_tensor *un_do_norm_conv_norm(ctm_tape *tp, ctm_tensor **in) {
    return ctm_norm_conv(tp, in[0], in[2], in[3], un_groups, 1e-6, in[1], NULL, un_fixed[3], un_fixed[4], -0.7);
}
static ctm_tensor *un_do_norm_conv_sum(ctm_tape *tp, ctm_tensor **in) {
    return ctm_norm_conv(tp, in[0], un_fixed[5], un_fixed[6], un_groups, 1e-6, un_fixed[1], in[1], in[2], in[3], -0.7);
}
static ctm_tensor *un_do_norm_conv_twice(ctm_tape *tp, ctm_tensor **in) {
    ctm_tensor *h = ctm_scale(tp, in[0], 1.5);
    h = ctm_norm_conv(tp, h, in[2], in[3], 2, 1e-6, in[1], NULL, NULL, h, 0.7);
    return ctm_add(tp, h, ctm_norm_conv(tp, h, in[2], in[3], 1, 1e-6, in[1], in[3], NULL, h, 1));
}
static void test_op_norm_conv(void) {
    static const un_size size[6] = {{2, 4, 2, 4, 5, 3}, {1, 5, 3, 6, 3, 1}, {3, 16, 16, 24, 40, 3}, {1, 8, 8, 100, 48, 3}, {3, 7, 5, 17, 20, 3}, {1, 1, 1, 4, 3, 3}};
    static const int groups[6] = {2, 3, 6, 25, 1, 1};
    ctm_tensor *in[7], *four[4];
    int s, isa, best, k;
    op_begin();
    best = op_ctx.isa;
    for (s = 0; s < 6; s++) {
        ctm_mark m = ctm_arena_mark(&op_arena);
        size_t room, at;
        ctm_real *got, *want;
        double *v;
        un_norm_conv_inputs(size + s, groups[s], in);
        room = un_run_room(un_do_norm_conv, in, 7);
        got = (ctm_real *)ctm_alloc(&op_arena, room * sizeof(ctm_real));
        want = (ctm_real *)ctm_alloc(&op_arena, room * sizeof(ctm_real));
        v = un_zeros(room);
        for (un_parts = 0; un_parts < 8; un_parts += 7) for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
            if (!ctm_set_isa(&op_ctx, isa)) continue;
            for (op_ctx.winograd = 0; op_ctx.winograd <= (size[s].k == 3 ? 2 : 0); op_ctx.winograd++) {
                size_t len = (size_t)(size[s].B * size[s].H * size[s].W * size[s].O);
                un_alpha = un_parts ? sqrt(0.5) : 1;
                un_run(un_do_norm_then_conv, in, 7, 1, 0.5, want);
                un_run(un_do_norm_conv, in, 7, s % 2, 0.5, got);
                for (at = 0; at < room; at++) v[at] = (double)want[at];
                un_close("norm_conv", got, v, len, 0, UN_SHARE);
                for (k = 0, at = len; k < 7; at += in[k]->len, k++) un_close("gradient of norm_conv", got + at, v + at, in[k]->len, 0, UN_SHARE);
            }
        }
        op_ctx.winograd = 1;
        ctm_set_isa(&op_ctx, best);
        ctm_arena_release(&op_arena, m);
    }
    for (s = 0; s < 2; s++)
        for (op_ctx.winograd = 0; op_ctx.winograd <= (size[s].k == 3 ? 2 : 0); op_ctx.winograd++) {
            un_norm_conv_inputs(size + s, groups[s], in);
            for (k = 0; k < 7; k++) un_fixed[k] = in[k];
            in[3]->grad = in[4]->grad = NULL;
            four[0] = in[0]; four[1] = in[1]; four[2] = in[5]; four[3] = in[6];
            un_check("norm_conv", 4, four, un_do_norm_conv_norm);
            for (k = 0; k < 7; k++) in[k]->grad = NULL;
            four[1] = in[2]; four[2] = in[3]; four[3] = in[4];
            for (k = 0; k < 4; k++) ctm_wants_grad(&op_tape, four[k]);
            un_check("norm_conv, the sum", 4, four, un_do_norm_conv_sum);
        }
    four[0] = un_image("x", 2, 4, 2, 4); four[1] = un_kernel(3, 4, 4); four[2] = op_vector("gamma", 4); four[3] = op_vector("beta", 4);
    for (op_ctx.winograd = 0; op_ctx.winograd < 3; op_ctx.winograd++) {
        un_check("norm_conv, twice", 4, four, un_do_norm_conv_twice);
        un_same_recycled("norm_conv, twice", un_do_norm_conv_twice, four, 4);
    }
    op_ctx.winograd = 1;
    un_norm_conv_inputs(size + 2, groups[2], in);
    un_parts = 7;
    un_same_bits("norm_conv", un_do_norm_conv, in, 7);
    un_groups = 5;
    CHECK(PANICS(un_do_norm_conv(&op_tape, in)));
    CHECK_TEXT(test_panic, "5 groups do not divide the 24 channels");
    un_groups = 6;
    in[1] = un_kernel(3, 20, 40);
    CHECK(PANICS(un_do_norm_conv(&op_tape, in)));
    CHECK_TEXT(test_panic, "\"w\" [3,3,20,40]");
    op_end();
}

// ---- attention

typedef struct un_att { int B, H, W, C, heads; } un_att;

static void un_plain_attention(const un_att *s, const double *qkv, const double *dout, double *out, double *dqkv) {
    int P = s->H * s->W, C = s->C, d = C / s->heads, n, h, p, r, i;
    double scale = 1 / sqrt((double)d), *w = un_zeros((size_t)P), *dw = un_zeros((size_t)P);
    for (n = 0; n < s->B; n++) for (h = 0; h < s->heads; h++) for (p = 0; p < P; p++) {
        const double *q = qkv + (size_t)(n * P + p) * (size_t)(3 * C) + h * 3 * d, *k = qkv + (size_t)(n * P) * (size_t)(3 * C) + h * 3 * d + 1;
        const double *dy = dout + (size_t)(n * P + p) * (size_t)C + h * d, *v = k + 1;
        double *dq = dqkv + (q - qkv), *dk = dqkv + (k - qkv), *dv = dk + 1, *y = out + (size_t)(n * P + p) * (size_t)C + h * d;
        double top = -1e300, sum = 0, mean = 0;
        for (r = 0; r < P; r++) {
            w[r] = 0;
            for (i = 0; i < d; i++) w[r] += scale * q[3 * i] * k[r * 3 * C + 3 * i];
            if (w[r] > top) top = w[r];
        }
        for (r = 0; r < P; r++) sum += w[r] = exp(w[r] - top);
        for (r = 0; r < P; r++) {
            w[r] /= sum;
            dw[r] = 0;
            for (i = 0; i < d; i++) {
                y[i] += w[r] * v[r * 3 * C + 3 * i];
                dv[r * 3 * C + 3 * i] += w[r] * dy[i];
                dw[r] += v[r * 3 * C + 3 * i] * dy[i];
            }
            mean += w[r] * dw[r];
        }
        for (r = 0; r < P; r++) for (i = 0; i < d; i++) {
            dq[3 * i] += scale * w[r] * (dw[r] - mean) * k[r * 3 * C + 3 * i];
            dk[r * 3 * C + 3 * i] += scale * w[r] * (dw[r] - mean) * q[3 * i];
        }
    }
}

static int un_heads;
static ctm_tensor *un_do_attention(ctm_tape *tp, ctm_tensor **in) { return ctm_attention(tp, in[0], un_heads); }

static void un_attention_against_plain(const un_att *s, double size, double share) {
    ctm_mark m = ctm_arena_mark(&op_arena);
    ctm_tensor *in[1];
    double *qkv, *dout, *out, *dqkv;
    ctm_real *got;
    size_t len = (size_t)(s->B * s->H * s->W * s->C), i;
    int isa, best = op_ctx.isa;
    char what[160];
    un_heads = s->heads;
    in[0] = un_image("qkv", s->B, s->H, s->W, 3 * s->C);
    for (i = 0; i < 3 * len; i++) in[0]->data[i] *= (ctm_real)size;
    qkv = un_doubles(in[0]);
    dout = un_zeros(len); out = un_zeros(len); dqkv = un_zeros(3 * len);
    for (i = 0; i < len; i++) dout[i] = (double)un_seed(i);
    un_plain_attention(s, qkv, dout, out, dqkv);
    got = (ctm_real *)ctm_alloc(&op_arena, 4 * len * sizeof(ctm_real));
    for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
        if (!ctm_set_isa(&op_ctx, isa)) continue;
        snprintf(what, sizeof what, "attention [%d,%d,%d,%d] with %d heads, inputs of size %g", s->B, s->H, s->W, s->C, s->heads, size);
        un_run(un_do_attention, in, 1, 1, 0.5, got);
        un_close(what, got, out, len, 0, share);
        strcat(what, ": gradient");
        un_close(what, got + len, dqkv, 3 * len, 0.5, share);
    }
    ctm_set_isa(&op_ctx, best);
    ctm_arena_release(&op_arena, m);
}

static const un_att un_att_sizes[] = {{2, 1, 1, 4, 1}, {3, 1, 1, 6, 2}, {1, 5, 7, 3, 1}, {3, 5, 7, 10, 2}, {1, 8, 8, 48, 1}, {2, 4, 4, 96, 2},
                                      {1, 7, 5, 17, 1}, {1, 16, 16, 20, 1}, {1, 1, 5, 1, 1}, {1, 2, 8, 100, 4}};

static void test_op_attention(void) {
    int count = (int)(sizeof un_att_sizes / sizeof un_att_sizes[0]), s;
    ctm_tensor *in[1], *out;
    size_t i;
    op_begin();
    for (s = 0; s < count; s++) un_attention_against_plain(un_att_sizes + s, 1, UN_SHARE);
    // Products in the hundreds: the weights are nearly 0 or 1, and a rounded product is what an error is made of.
    for (s = 2; s < 6; s++) un_attention_against_plain(un_att_sizes + s, 12, IN_DOUBLE ? 1e-10 : 2e-3);
    for (un_heads = 1; un_heads < 3; un_heads++) {
        in[0] = un_image("qkv", 2, 2, 3, 12);
        un_check(un_heads == 1 ? "attention" : "attention with two heads", 1, in, un_do_attention);
        in[0] = un_image("qkv", 1, 5, 7, 12);
        un_check("attention among 35 pixels", 1, in, un_do_attention);
    }
    un_heads = 1;                                            // one pixel attends to itself: out is v, whatever q and k
    in[0] = un_image("qkv", 2, 1, 1, 12);
    out = un_do_attention(&op_tape, in);
    CHECK(out->ndim == 4 && out->shape[0] == 2 && out->shape[3] == 4);
    for (i = 0; i < 8; i++) CHECK_CLOSE(out->data[i], in[0]->data[3 * i + 2], OP_TOLERANCE * 4);
    for (un_heads = 1; un_heads < 3; un_heads++) {
        in[0] = un_image("qkv", 3, 8, 8, 72);
        un_same_bits("attention", un_do_attention, in, 1);
    }
    CHECK(PANICS(ctm_attention(&op_tape, un_image("qkv", 1, 2, 2, 10), 1)));
    CHECK_TEXT(test_panic, "\"qkv\" [1,2,2,10]");
    CHECK(PANICS(ctm_attention(&op_tape, un_image("qkv", 1, 2, 2, 9), 2)));
    CHECK_TEXT(test_panic, "\"qkv\" [1,2,2,9]");
    CHECK(PANICS(ctm_attention(&op_tape, op_matrix("flat", 4, 6), 1)));
    op_end();
}

// ---- dropout

static ctm_rng un_rng;
static ctm_tensor *un_do_dropout(ctm_tape *tp, ctm_tensor **in) { return ctm_dropout(tp, in[0], 0.3); }
static ctm_tensor *un_do_dropout_twice(ctm_tape *tp, ctm_tensor **in) { return ctm_dropout(tp, ctm_dropout(tp, in[0], 0.3), 0.13); }
static size_t un_agree(const ctm_tensor *a, const ctm_tensor *b) {       // how many entries are zero in both or in neither
    size_t i, n = 0;
    for (i = 0; i < a->len; i++) n += (a->data[i] == 0) == (b->data[i] == 0);
    return n;
}
static void test_op_dropout(void) {
    static const double p[3] = {0.13, 0.5, 0.9};
    enum { LEN = 4 * 16 * 16 * 10 };
    ctm_tensor *in[1], *x, *a, *b, *rows;
    ctm_tape other;
    int k, isa, best;
    size_t i;
    op_begin();
    best = op_ctx.isa;
    un_rng = ctm_stream(3, "dropout");
    x = ctm_fill(un_image("x", 4, 16, 16, 10), 2);
    a = ctm_dropout(&op_tape, x, 0.5);                       // no stream: nothing happens
    CHECK(memcmp(a->data, x->data, LEN * sizeof(ctm_real)) == 0);
    op_tape.rows.dropout = &un_rng;
    op_tape.rows.step = 7;
    a = ctm_dropout(&op_tape, x, 0);
    CHECK(memcmp(a->data, x->data, LEN * sizeof(ctm_real)) == 0);
    for (k = 0; k < 3; k++) {
        double kept = 0, first = 0;
        ctm_real scale = 0;
        int n;
        a = ctm_dropout(&op_tape, x, p[k]);
        CHECK(a->ndim == 4 && a->len == LEN);
        for (i = 0; i < LEN; i++) {
            if (a->data[i] == 0) continue;
            CHECK_CLOSE(a->data[i], 2 / (1 - p[k]), 2e-4 / (1 - p[k]));    // p is rounded to the next 1/65536
            if (kept++ == 0) scale = a->data[i];
            CHECK(a->data[i] == scale);
        }
        CHECK_CLOSE(kept / LEN, 1 - p[k], 4 * sqrt(p[k] * (1 - p[k]) / LEN));
        for (i = 0; i < LEN; i += 10) first += a->data[i] != 0;            // one channel among them
        CHECK_CLOSE(first / (LEN / 10), 1 - p[k], 4 * sqrt(p[k] * (1 - p[k]) / (LEN / 10)));
        for (n = 0; n < 4; n++) {                                          // every picture
            double in_row = 0;
            for (i = 0; i < LEN / 4; i++) in_row += a->data[(size_t)n * (LEN / 4) + i] != 0;
            CHECK_CLOSE(in_row / (LEN / 4), 1 - p[k], 4 * sqrt(p[k] * (1 - p[k]) / (LEN / 4)));
        }
        rows = ctm_image(&op_tape, "row", 1, 16, 16, 10);                  // no two pictures by the same mask
        b = ctm_image(&op_tape, "row", 1, 16, 16, 10);
        memcpy(rows->data, a->data, rows->len * sizeof(ctm_real));
        memcpy(b->data, a->data + LEN / 4, rows->len * sizeof(ctm_real));
        CHECK_CLOSE((double)un_agree(rows, b) / (LEN / 4), p[k] * p[k] + (1 - p[k]) * (1 - p[k]), 4 * 0.5 / sqrt(LEN / 4.0));
    }
    // Another call, another step and another stream agree with the first as often as chance has it; the same call does always.
    other = op_tape;
    a = ctm_dropout(&op_tape, x, 0.5);
    b = ctm_dropout(&op_tape, x, 0.5);
    CHECK_CLOSE((double)un_agree(a, b) / LEN, 0.5, 4 * 0.5 / sqrt((double)LEN));
    for (k = 8; k < LEN / 2; k += 8) {                       // no mask is another one, or itself, a few places further on
        double same = 0, different = 0;
        for (i = 0; i < LEN / 2; i++) {
            int zero = a->data[(size_t)k + i] == 0;
            same += zero == (a->data[i] == 0);
            different += zero == (b->data[i] == 0);
        }
        CHECK_CLOSE(same / (LEN / 2), 0.5, 5 * 0.5 / sqrt(LEN / 2.0));
        CHECK_CLOSE(different / (LEN / 2), 0.5, 5 * 0.5 / sqrt(LEN / 2.0));
    }
    b = ctm_dropout(&other, x, 0.5);
    CHECK(memcmp(a->data, b->data, LEN * sizeof(ctm_real)) == 0);
    for (k = 0; k < 3; k++) {
        ctm_tape_reset(&op_tape);
        x = ctm_fill(un_image("x", 4, 16, 16, 10), 2);
        a = ctm_dropout(&op_tape, x, 0.5);
        other = op_tape;
        other.drops = 0;
        if (k == 1) other.rows.step = 8;
        if (k == 2) {
            static ctm_rng stream;
            stream = ctm_stream(3, "another");
            other.rows.dropout = &stream;
        }
        b = ctm_dropout(&other, x, 0.5);
        if (k == 0) CHECK(memcmp(a->data, b->data, LEN * sizeof(ctm_real)) == 0);
        else CHECK_CLOSE((double)un_agree(a, b) / LEN, 0.5, 4 * 0.5 / sqrt((double)LEN));
    }
    // Rows 1.. of the batch on a tape of their own.
    other = op_tape;
    other.drops = 0;
    other.rows.first = 1;
    rows = ctm_fill(ctm_image(&op_tape, "rows", 3, 16, 16, 10), 2);
    b = ctm_dropout(&other, rows, 0.5);
    CHECK(memcmp(a->data + LEN / 4, b->data, rows->len * sizeof(ctm_real)) == 0);
    // The same on every instruction set and for any number of threads; backward by the same mask.
    for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
        if (!ctm_set_isa(&op_ctx, isa)) continue;
        other = op_tape;
        other.drops = 0;
        b = ctm_dropout(&other, x, 0.5);
        CHECK(memcmp(a->data, b->data, LEN * sizeof(ctm_real)) == 0);
    }
    ctm_set_isa(&op_ctx, best);
    in[0] = x;
    un_same_bits("dropout", un_do_dropout, in, 1);
    in[0] = un_image("x", 2, 3, 4, 5);
    un_check("dropout", 1, in, un_do_dropout);
    un_check("dropout twice", 1, in, un_do_dropout_twice);
    in[0] = op_matrix("points", 7, 5);
    un_check("dropout of points", 1, in, un_do_dropout);
    op_end();
}

// ---- frequencies of a noise level

static void test_op_frequencies(void) {
    enum { B = 9 };
    static const double level[B] = {80, 0.002, 1, 0.5, 57.586, 0.017, 3.3, 0.14, 20};
    static const int n[4] = {4, 8, 32, 128};
    ctm_tensor *t, *out;
    int isa, best, k, i, j;
    op_begin();
    best = op_ctx.isa;
    t = ctm_vector(&op_tape, "t", B);
    for (i = 0; i < B; i++) t->data[i] = (ctm_real)level[i];
    for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
        if (!ctm_set_isa(&op_ctx, isa)) continue;
        for (k = 0; k < 4; k++) {
            int half = n[k] / 2;
            out = ctm_frequencies(&op_tape, t, n[k]);
            CHECK(out->ndim == 2 && out->shape[0] == B && out->shape[1] == n[k] && out->grad == NULL);
            for (i = 0; i < B; i++) for (j = 0; j < half; j++) {
                double angle = log((double)t->data[i]) / 4 * pow(10000, -(double)j / (half - 1));
                CHECK_CLOSE(out->data[i * n[k] + j], sin(angle), OP_TOLERANCE);
                CHECK_CLOSE(out->data[i * n[k] + half + j], cos(angle), OP_TOLERANCE);
            }
        }
    }
    ctm_set_isa(&op_ctx, best);
    CHECK(PANICS(ctm_frequencies(&op_tape, t, 7)));          // a sine needs its cosine
    CHECK(PANICS(ctm_frequencies(&op_tape, t, 2)));          // one frequency has no ratio to the next
    CHECK(PANICS(ctm_frequencies(&op_tape, op_matrix("tm", 3, 1), 8)));
    CHECK_TEXT(test_panic, "\"tm\" [3,1]");
    op_end();
}

// ln 1 = 0, so the sines at t = 1 are zeros and the cosines ones; 1000·ln(t)/4 at both ends of the grid.
// [eq:unet]
static void test_frequencies_at_level_one_are_zeros_and_ones(void) {
    ctm_tensor *t, *out;
    int k;
    op_begin();
    t = ctm_vector(&op_tape, "t", 3);
    t->data[0] = 1; t->data[1] = 80; t->data[2] = (ctm_real)0.002;
    out = ctm_frequencies(&op_tape, t, 128);
    for (k = 0; k < 64; k++) {
        CHECK_CLOSE(out->data[k], 0, 0);
        CHECK_CLOSE(out->data[64 + k], 1, 0);
    }
    CHECK_CLOSE(atan2((double)out->data[128], (double)out->data[192]), 1.095507, 1e-6);          // the first frequency is the angle itself
    CHECK_CLOSE(atan2((double)out->data[256], (double)out->data[320]), -1.553652, 1e-6);
    op_end();
}

// for the augmentations we have: every pixel comes from at most size/8 away in each direction, mirrored or not; one
// contrast from 0.5 to 1.5 and one brightness within 0.25 serve the whole image; nothing is cut out, and a flat image stays flat.
// [eq:L_disc]
static void test_augmentation_moves_mirrors_and_recolours_within_its_limits(void) {
    enum { SIZE = 16, PIXELS = SIZE * SIZE, ROWS = 40 };
    const ctm_rng rng = ctm_stream(5, "disc.augment");
    ctm_tensor *x, *y;
    int i, p, mirrored = 0, still = 0;
    op_begin();
    x = ctm_matrix(&op_tape, "x", ROWS, PIXELS * 3);
    for (i = 0; i < ROWS; i++) for (p = 0; p < PIXELS; p++) {
        ctm_real *pixel = x->data + 3 * (i * PIXELS + p);
        pixel[0] = (ctm_real)(p / SIZE) / SIZE;                                                   // where it comes from: row, column
        pixel[1] = (ctm_real)(p % SIZE) / SIZE;
        pixel[2] = (ctm_real)0.25;
    }
    y = ctm__augment(&op_tape, x, &rng, SIZE, 3);
    for (i = 0; i < ROWS; i++) {
        const ctm_real *row = y->data + 3 * i * PIXELS;
        double across = (double)row[3 * 8 + 1] - (double)row[3 * 7 + 1], along = (double)row[3 * 8 * SIZE] - (double)row[3 * 7 * SIZE];
        double contrast = along * SIZE, brightness = (double)row[2] - 0.25 * contrast;
        int flip = across < 0, down, right;
        CHECK(contrast >= 0.4999 && contrast <= 1.5001 && fabs(brightness) <= 0.2501);
        CHECK_CLOSE(fabs(across), along, 1e-6);
        down = (int)floor((((double)row[3 * 8 * SIZE] - brightness) / contrast) * SIZE + 0.5) - 8;
        right = (int)floor((((double)row[3 * 8 + 1] - brightness) / contrast) * SIZE + 0.5) - (flip ? SIZE - 1 - 8 : 8);
        if (flip) right = -right;
        CHECK(abs(down) <= SIZE / 8 && abs(right) <= SIZE / 8);
        mirrored += flip;
        still += down == 0 && right == 0;
        for (p = 0; p < PIXELS; p++) {
            int column = p % SIZE + right, from_row = p / SIZE + down;
            from_row = from_row < 0 ? 0 : from_row > SIZE - 1 ? SIZE - 1 : from_row;
            column = column < 0 ? 0 : column > SIZE - 1 ? SIZE - 1 : column;
            if (flip) column = SIZE - 1 - column;
            CHECK_CLOSE(row[3 * p], contrast * from_row / SIZE + brightness, 1e-5);
            CHECK_CLOSE(row[3 * p + 1], contrast * column / SIZE + brightness, 1e-5);
            CHECK_CLOSE(row[3 * p + 2], contrast * 0.25 + brightness, 1e-5);
        }
    }
    CHECK(mirrored > ROWS / 4 && mirrored < 3 * ROWS / 4);
    CHECK(still < ROWS / 4);
    op_end();
}

// ---- a result in between that several operations use: the first gradient to arrive may be set, the others have to add

static ctm_tensor *un_do_conv_twice(ctm_tape *tp, ctm_tensor **in) {
    ctm_tensor *h = ctm_scale(tp, in[0], 1.5);
    return ctm_add(tp, ctm_conv(tp, h, in[1], NULL, NULL, h, 0.7), ctm_conv(tp, h, in[1], in[2], in[3], NULL, 1));
}
static ctm_tensor *un_do_norm_twice(ctm_tape *tp, ctm_tensor **in) {
    ctm_tensor *h = ctm_scale(tp, in[0], 1.5);
    return ctm_add(tp, ctm_mul(tp, h, ctm_group_norm(tp, h, in[1], in[2], 2, 1e-6, 1)), ctm_group_norm(tp, h, in[1], in[2], 1, 1e-6, 0));
}
static ctm_tensor *un_do_attention_twice(ctm_tape *tp, ctm_tensor **in) {
    ctm_tensor *h = ctm_scale(tp, in[0], 1.5);
    return ctm_concat(tp, ctm_concat(tp, ctm_attention(tp, h, 1), ctm_attention(tp, h, 2)), h);
}
static ctm_tensor *un_do_sizes_twice(ctm_tape *tp, ctm_tensor **in) {
    ctm_tensor *h = ctm_scale(tp, in[0], 1.5), *small = ctm_down(tp, h);
    h = ctm_add(tp, ctm_up(tp, small), ctm_up(tp, ctm_down(tp, h)));
    return ctm_concat(tp, ctm_concat(tp, h, h), ctm_dropout(tp, ctm_reshape(tp, ctm_reshape(tp, h, 2, 2, 48, 0, 0), 4, 2, 4, 4, 3), 0.3));
}
static void test_op_images_used_twice(void) {
    ctm_tensor *in[4];
    op_begin();
    un_rng = ctm_stream(4, "dropout");
    op_tape.rows.dropout = &un_rng;
    in[0] = un_image("x", 2, 3, 4, 4); in[1] = un_kernel(3, 4, 4); in[2] = op_vector("b", 4); in[3] = op_matrix("shift", 2, 4);
    for (op_ctx.winograd = 0; op_ctx.winograd < 3; op_ctx.winograd++) {
        un_check("conv, twice", 4, in, un_do_conv_twice);
        un_same_recycled("conv, twice", un_do_conv_twice, in, 4);
    }
    op_ctx.winograd = 1;
    in[1] = op_vector("gamma", 4);
    un_check("group_norm, twice", 3, in, un_do_norm_twice);
    un_same_recycled("group_norm, twice", un_do_norm_twice, in, 3);
    in[0] = un_image("qkv", 2, 2, 3, 12);
    un_check("attention, twice", 1, in, un_do_attention_twice);
    un_same_recycled("attention, twice", un_do_attention_twice, in, 1);
    in[0] = un_image("x", 2, 4, 4, 3);
    un_check("down, up, reshape, concat, dropout, twice", 1, in, un_do_sizes_twice);
    un_same_recycled("down, up, reshape, concat, dropout, twice", un_do_sizes_twice, in, 1);
    op_end();
}

// All together, as in a block of the U-Net, and down a level and up again.
static ctm_tensor *un_do_block(ctm_tape *tp, ctm_tensor **in) {
    ctm_tensor *x = in[0], *h, *small;
    h = ctm_conv(tp, ctm_group_norm(tp, x, in[2], in[3], 2, 1e-6, 1), in[1], NULL, ctm_reshape(tp, ctm_down(tp, ctm_down(tp, x)), 2, 2, 4, 0, 0), NULL, 1);
    h = ctm_conv(tp, ctm_dropout(tp, h, 0.2), in[1], in[3], NULL, x, sqrt(0.5));
    small = ctm_conv(tp, ctm_down(tp, h), in[1], NULL, NULL, NULL, 1);
    small = ctm_attention(tp, ctm_concat(tp, ctm_concat(tp, small, small), ctm_down(tp, h)), 1);
    return ctm_concat(tp, ctm_up(tp, small), h);
}
static void test_op_images_composite(void) {
    ctm_tensor *in[4];
    op_begin();
    un_rng = ctm_stream(4, "dropout");
    op_tape.rows.dropout = &un_rng;
    in[0] = un_image("x", 2, 4, 4, 4); in[1] = un_kernel(3, 4, 4); in[2] = op_vector("gamma", 4); in[3] = op_vector("beta", 4);
    for (op_ctx.winograd = 0; op_ctx.winograd < 3; op_ctx.winograd++) {
        un_check("a block", 4, in, un_do_block);
        un_same_recycled("a block", un_do_block, in, 4);
    }
    op_end();
}

// ---- the network

static ctm_arena un_memory;                                  // networks
static void un_begin(void) {
    op_begin();
    op_ctx.threads = 1;                                      // networks as small as these would only wait for other threads
    ctm_arena_init(&un_memory, &op_ctx, "networks");
}
static void un_end(void) {
    ctm_arena_free(&un_memory);
    op_end();
}

static void un_list(const char *text, int *to, int room) {   // "1,3" -> 1, 3, 0 ...
    char *end = NULL;
    int n;
    for (n = 0; n < room; n++) {
        to[n] = (int)strtol(text, &end, 10);
        text = *end == ',' ? end + 1 : end;
    }
}
static ctm_config un_golden_config(golden_file *g) {
    ctm_config cfg = ctm_recipe_points();
    cfg.size = (int)golden_number(g, "size");
    cfg.channels = (int)golden_number(g, "channels");
    cfg.model_channels = (int)golden_number(g, "width");
    cfg.num_blocks = (int)golden_number(g, "num_blocks");
    cfg.classes = (int)golden_number(g, "classes");
    cfg.dropout = 0;
    un_list(golden_text(g, "mult"), cfg.channel_mult, 8);
    un_list(golden_text(g, "attn"), cfg.attn, 4);
    return cfg;
}

// Pictures between [B,C,size,size] of the files and [B,size·size·C] of the network.
static void un_pixels(ctm_real *to, const ctm_real *from, int B, int C, int P, int channels_inside) {
    int n, c, p;
    for (n = 0; n < B; n++) for (c = 0; c < C; c++) for (p = 0; p < P; p++) {
        size_t in = ((size_t)n * (size_t)P + (size_t)p) * (size_t)C + (size_t)c, outer = ((size_t)n * (size_t)C + (size_t)c) * (size_t)P + (size_t)p;
        if (channels_inside) to[in] = from[outer]; else to[outer] = from[in];
    }
}
static void un_golden_pixels(golden_file *g, const char *name, const ctm_net *net, ctm_real *to) {
    const ctm_entry *e = golden_entry(g, name);
    ctm_real *v = (ctm_real *)ctm_alloc(&g->arena, e->len * sizeof(ctm_real));
    CHECK(e->ndim == 4 && e->shape[1] == net->channels && e->shape[2] == net->size && e->shape[3] == net->size);
    golden_copy(g, name, v);
    un_pixels(to, v, e->shape[0], net->channels, net->size * net->size, 1);
}
static void un_check_pixels(golden_file *g, const char *name, const ctm_net *net, const ctm_real *v, size_t len) {
    ctm_real *turned = (ctm_real *)ctm_alloc(&g->arena, len * sizeof(ctm_real));
    un_pixels(turned, v, (int)(len / (size_t)net->dim), net->channels, net->size * net->size, 0);
    golden_check(g, name, turned, len);
}
// A parameter's numbers in the file's order: [out,in] for [in,out], [out,in,k,k] for [k,k,in,out].
static void un_turned(const ctm_tensor *w, const ctm_real *v, ctm_real *to) {
    int taps = w->ndim == 4 ? w->shape[0] * w->shape[1] : 1, I = w->ndim == 1 ? 1 : w->shape[w->ndim - 2], O = w->shape[w->ndim - 1], k, i, o;
    for (k = 0; k < taps; k++) for (i = 0; i < I; i++) for (o = 0; o < O; o++) to[(o * I + i) * taps + k] = v[(k * I + i) * O + o];
}
static void un_check_param(golden_file *g, const char *prefix, const ctm_tensor *w, const ctm_real *v) {
    char name[160];
    ctm_real *turned = (ctm_real *)ctm_alloc(&g->arena, w->len * sizeof(ctm_real));
    un_turned(w, v, turned);
    snprintf(name, sizeof name, "%s%s", prefix, w->name);
    golden_check(g, name, turned, w->len);
}

// The network and its inputs as the file has them, labels included.
typedef struct un_model { ctm_net *net; ctm_tensor *x, *t, *s; int label[16]; } un_model;
static un_model un_golden_model(golden_file *g, int with_s) {
    ctm_config cfg = un_golden_config(g);
    un_model m;
    int B = golden_entry(g, "in.x")->shape[0], n;
    memset(&m, 0, sizeof m);
    m.net = ctm_unet(&un_memory, &cfg, with_s);
    CHECK(m.net != NULL && ctm_net_read(m.net, g->file, "w.net."));
    m.x = ctm_wants_grad(&op_tape, ctm_matrix(&op_tape, "x", B, m.net->dim));
    un_golden_pixels(g, "in.x", m.net, m.x->data);
    m.t = golden_tensor(&op_tape, g, "in.t");
    m.s = with_s ? golden_tensor(&op_tape, g, "in.s") : NULL;
    if (cfg.classes) for (n = 0; n < B; n++) m.label[n] = (int)golden(g, "in.label", NULL)[n];
    return m;
}

static void un_golden(const char *file, int with_s) {
    golden_file *g = golden_open(file);
    un_model m;
    ctm_tensor *y;
    ctm_real *grad;
    int isa, best, keep, p;
    un_begin();
    best = op_ctx.isa;
    m = un_golden_model(g, with_s);
    if (m.net->classes) op_tape.rows.label = m.label;
    for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
        if (!ctm_set_isa(&op_ctx, isa)) continue;
        for (op_ctx.winograd = 0; op_ctx.winograd < 3; op_ctx.winograd++) for (keep = 0; keep < 2; keep++) {
            op_tape.first = op_tape.last = NULL;
            op_tape.pool = NULL;
            op_tape.keep_grads = keep;
            memset(m.net->grad, 0, m.net->len * sizeof(ctm_real));
            memset(m.x->grad, 0, m.x->len * sizeof(ctm_real));
            y = m.net->forward(&op_tape, m.net, m.x, m.t, m.s);
            CHECK(y->ndim == 2 && y->shape[0] == m.x->shape[0] && y->shape[1] == m.net->dim);
            un_check_pixels(g, "out.y", m.net, y->data, y->len);
            grad = ctm_grad(&op_tape, y);
            un_golden_pixels(g, "in.grad_y", m.net, grad);
            ctm_backward_seeded(&op_tape, y);
            un_check_pixels(g, "out.grad.x", m.net, m.x->grad, m.x->len);
            for (p = 0; p < m.net->count; p++) un_check_param(g, "out.grad.", m.net->param[p], m.net->param[p]->grad);
        }
    }
    CHECK(ctm_set_isa(&op_ctx, best));
    un_end();
    golden_close(g);
}
// [eq:unet]
static void test_unet_golden(void)         { un_golden("unet", 1); }
static void test_unet_golden_teacher(void) { un_golden("unet_teacher", 0); }

// Names, shapes and number of the parameters are those of the file, none more and none less; and what the file says is
// where it belongs (reading a matrix untransposed into a square one would not show in a shape).
static void test_unet_parameters(void) {
    static const char *const file[2] = {"unet_teacher", "unet"};
    int with_s, p, e;
    for (with_s = 0; with_s < 2; with_s++) {
        golden_file *g = golden_open(file[with_s]);
        ctm_config cfg = un_golden_config(g);
        ctm_net *net;
        int in_file = 0;
        size_t numbers = 0;
        un_begin();
        net = ctm_unet(&un_memory, &cfg, with_s);
        CHECK(net->dim == cfg.size * cfg.size * cfg.channels && net->with_s == with_s && net->size == cfg.size && net->channels == cfg.channels);
        CHECK(net->classes == cfg.classes);
        CHECK(strcmp(net->param[net->last_weight]->name, "dec.8x8_aux_conv.weight") == 0);
        CHECK(ctm_net_read(net, g->file, "w.net."));
        for (p = 0; p < net->count; p++) {
            const ctm_tensor *w = net->param[p];
            ctm_real *turned = (ctm_real *)ctm_alloc(&g->arena, w->len * sizeof(ctm_real));
            const ctm_entry *found;
            const double *want;
            char name[160];
            size_t i;
            snprintf(name, sizeof name, "w.net.%s", w->name);
            CHECK(golden_has(g, name));
            if (!golden_has(g, name)) { printf("     %s\n", name); continue; }
            found = golden_entry(g, name);
            CHECK(w->ndim == found->ndim && w->len == found->len && w->shape[w->ndim - 1] == found->shape[0]);
            if (w->ndim == 4) CHECK(w->shape[0] == found->shape[2] && w->shape[1] == found->shape[3] && w->shape[2] == found->shape[1]);
            if (w->ndim == 2) CHECK(w->shape[0] == found->shape[1]);
            want = golden(g, name, NULL);
            un_turned(w, w->data, turned);
            for (i = 0; i < w->len; i++) CHECK((double)turned[i] == want[i]);
            CHECK((uintptr_t)w->data % 64 == 0 && w->grad - net->grad == w->data - net->theta);
            numbers += w->len;
        }
        for (e = 0; e < g->file->count; e++) in_file += strncmp(g->file->entry[e].name, "w.net.", 6) == 0;
        CHECK(net->count == in_file);
        CHECK(numbers == (with_s ? 25451u : 19661u));
        un_end();
        golden_close(g);
    }
}

// The authors' network for CIFAR-10. It is large (two arrays of 240 MB), so only where asked for.
static void test_unet_authors_size(void) {
    static const double want[3] = {55732739, 60395267, 60396675};
    int kind, p;
    if (IN_DOUBLE || !getenv("CTM_TEST_LONG")) SKIP("480 MB: only in the float build, with CTM_TEST_LONG set");
    for (kind = 0; kind < 3; kind++) {
        ctm_config cfg = ctm_recipe_points();
        ctm_net *net;
        double numbers = 0;
        un_begin();
        cfg.size = 32; cfg.channels = 3; cfg.model_channels = 128; cfg.num_blocks = 4; cfg.dropout = 0.13; cfg.classes = kind == 2 ? 10 : 0;
        memset(cfg.channel_mult, 0, sizeof cfg.channel_mult);
        cfg.channel_mult[0] = cfg.channel_mult[1] = cfg.channel_mult[2] = 2;
        memset(cfg.attn, 0, sizeof cfg.attn);
        cfg.attn[0] = 16;
        net = ctm_unet(&un_memory, &cfg, kind > 0);
        for (p = 0; p < net->count; p++) numbers += (double)net->param[p]->len;
        CHECK_CLOSE(numbers, want[kind], 0);
        un_end();
    }
}

// How it starts: uniform within sqrt(6/(fan_in + fan_out)), fans counted with the kernel's pixels; the last layer of every
// residual branch and of the network a hundred-thousandth of that, qkv sqrt(0.2) of it; norms neutral, biases zero.
static ctm_config un_small_config(void) {
    ctm_config cfg = ctm_recipe_points();
    cfg.size = 16; cfg.channels = 3; cfg.model_channels = 16; cfg.num_blocks = 1; cfg.dropout = 0; cfg.classes = 3;
    memset(cfg.channel_mult, 0, sizeof cfg.channel_mult);
    cfg.channel_mult[0] = 1; cfg.channel_mult[1] = 2; cfg.channel_mult[2] = 1;
    memset(cfg.attn, 0, sizeof cfg.attn);
    cfg.attn[0] = 8;
    return cfg;
}
static void test_unet_init(void) {
    ctm_config cfg = un_small_config();
    ctm_net *net, *teacher, *other;
    int p;
    size_t i;
    un_begin();
    cfg.seed = 3;
    net = ctm_unet(&un_memory, &cfg, 1);
    teacher = ctm_unet(&un_memory, &cfg, 0);
    cfg.seed = 4;
    other = ctm_unet(&un_memory, &cfg, 1);
    CHECK(strcmp(net->kind, "unet") == 0);
    for (p = 0; p < net->count; p++) {
        const ctm_tensor *w = net->param[p], *same = ctm_param_named(teacher, w->name);
        double top = 0, mean = 0, square = 0, n = (double)w->len, bound, taps;
        int weight = strstr(w->name, ".weight") != NULL;
        if (same) CHECK(memcmp(w->data, same->data, w->len * sizeof(ctm_real)) == 0);      // each from a stream of its own name
        if (w->ndim == 1) {
            for (i = 0; i < w->len; i++) CHECK(w->data[i] == (weight ? 1 : 0));
            continue;
        }
        CHECK(memcmp(w->data, other->param[p]->data, w->len * sizeof(ctm_real)) != 0);
        for (i = 0; i < w->len; i++) {
            top = fmax(top, fabs((double)w->data[i]));
            mean += (double)w->data[i] / n;
            square += (double)w->data[i] * (double)w->data[i] / n;
        }
        taps = w->ndim == 4 ? w->shape[0] * w->shape[1] : 1;
        bound = sqrt(6 / (taps * (w->shape[w->ndim - 2] + w->shape[w->ndim - 1])));
        if (strstr(w->name, "conv1") || strstr(w->name, "proj") || strstr(w->name, "aux_conv")) bound *= 1e-5;
        if (strstr(w->name, "qkv")) bound *= sqrt(0.2);
        CHECK_CLOSE(top, bound, (bound * 8) / n + bound * 1e-6);
        CHECK(top <= bound * (1 + 1e-6));
        CHECK_CLOSE(mean / bound, 0, 4 / sqrt(3 * n));
        CHECK_CLOSE(square / (bound * bound), 1.0 / 3, 4 * 0.3 / sqrt(n));
    }
    un_end();
}

// ---- a small one whose every weight matters

static int un_labels[8] = {2, -1, 0, 1, 1, 2, -1, 0};
static ctm_net *un_small(const ctm_config *cfg, int with_s) {
    ctm_net *net = ctm_unet(&un_memory, cfg, with_s);
    ctm_rng rng = ctm_stream(8, "unet");
    int p;
    size_t i;
    for (p = 0; p < net->count; p++) {
        ctm_tensor *w = net->param[p];
        double fan_in = (double)w->len / w->shape[w->ndim - 1];
        for (i = 0; i < w->len; i++) {
            double r = ctm_normal(&rng, (uint64_t)p, i);
            w->data[i] = (ctm_real)(w->ndim > 1 ? r / sqrt(fan_in) : 0.2 * r + (strstr(w->name, "norm") && strstr(w->name, ".weight") ? 1 : 0));
        }
    }
    if (cfg->classes) op_tape.rows.label = un_labels;
    return net;
}
static ctm_tensor *un_points(ctm_tape *tp, const ctm_net *net, int first, int B) {        // rows first, first+1, ... of a fixed batch
    ctm_rng rng = ctm_stream(9, "unet");
    ctm_tensor *x = ctm_matrix(tp, "x", B, net->dim);
    ctm_normals(&rng, 0, (uint64_t)first * (uint64_t)net->dim, x->len, x->data);
    return x;
}
static ctm_tensor *un_levels(ctm_tape *tp, const char *name, int first, int B, double size) {
    static const double level[8] = {80, 5, 0.5, 0.02, 1, 20, 3, 0.1};
    ctm_tensor *t = ctm_vector(tp, name, B);
    int n;
    for (n = 0; n < B; n++) t->data[n] = (ctm_real)(size * level[first + n]);
    return t;
}
// Rows first .. first+B of the batch, forward and (y_grad) backward; the result is copied, the gradients are in the leaves.
static ctm_tensor *un_pass(ctm_tape *tp, ctm_net *net, int first, int B, ctm_real *y_out, int backward) {
    ctm_tensor *x = un_points(tp, net, first, B), *y;
    ctm_real *grad;
    size_t i;
    if (backward) ctm_wants_grad(tp, x);
    y = net->forward(tp, net, x, un_levels(tp, "t", first, B, 1), net->with_s ? un_levels(tp, "s", first, B, 0.3) : NULL);
    if (y_out) memcpy(y_out, y->data, y->len * sizeof(ctm_real));
    if (!backward) return y;
    grad = ctm_grad(tp, y);
    for (i = 0; i < y->len; i++) grad[i] = un_seed((size_t)first * (size_t)net->dim + i);
    ctm_backward_seeded(tp, y);
    return x;
}
enum { UN_BATCH = 5, UN_DIM = 16 * 16 * 3 };
static ctm_real *un_room(size_t n) { return (ctm_real *)ctm_alloc(&un_memory, n * sizeof(ctm_real)); }

// Without a gradient, a result moves down to where its ingredients were: also onto a part of itself.
static void test_unet_result_moves_down(void) {
    int gap;
    un_begin();
    for (gap = 0; gap < 3; gap++) {
        ctm_mark m = ctm_arena_mark(op_tape.arena);
        ctm_tensor *x;
        int i;
        if (gap) ctm_alloc(op_tape.arena, gap == 1 ? 256 : 100000);        // shorter than the result, or longer
        op_tape.recording = 0;
        x = ctm_matrix(&op_tape, "x", 10, 1000);
        for (i = 0; i < 10000; i++) x->data[i] = (ctm_real)i;
        x = ctm__keep_only(&op_tape, m, x);
        op_tape.recording = 1;
        CHECK(x->shape[0] == 10 && x->shape[1] == 1000);
        for (i = 0; i < 10000; i++) if (x->data[i] != (ctm_real)i) break;
        CHECK(i == 10000);
        ctm_arena_release(op_tape.arena, m);
    }
    un_end();
}

// Any number of threads: the same bits of the result and of every gradient, with dropout, directly and by Winograd.
static void test_unet_same_bits(void) {
    static const int threads[4] = {1, 2, 3, 5};
    ctm_config cfg = un_small_config();
    ctm_net *net;
    ctm_real *y, *y_1, *theta_1, *x_1;
    ctm_rng rng = ctm_stream(1, "dropout");
    int t, best;
    un_begin();
    best = op_ctx.isa;
    cfg.dropout = 0.13;
    net = un_small(&cfg, 1);
    y = un_room(UN_BATCH * UN_DIM); y_1 = un_room(UN_BATCH * UN_DIM); x_1 = un_room(UN_BATCH * UN_DIM); theta_1 = un_room(net->len);
    op_tape.rows.dropout = &rng;
    op_tape.keep_grads = 0;
    for (op_ctx.isa = 0; op_ctx.isa <= best; op_ctx.isa += best ? best : 1)
        for (op_ctx.winograd = 0; op_ctx.winograd < 3; op_ctx.winograd += 2)
            for (t = 0; t < 4; t++) {
                ctm_tensor *x;
                if (!ctm_set_isa(&op_ctx, op_ctx.isa)) continue;
                op_ctx.threads = threads[t];
                ctm_tape_reset(&op_tape);
                memset(net->grad, 0, net->len * sizeof(ctm_real));
                x = un_pass(&op_tape, net, 0, UN_BATCH, t ? y : y_1, 1);
                if (t == 0) {
                    memcpy(x_1, x->grad, x->len * sizeof(ctm_real));
                    memcpy(theta_1, net->grad, net->len * sizeof(ctm_real));
                    continue;
                }
                CHECK(memcmp(y, y_1, UN_BATCH * UN_DIM * sizeof(ctm_real)) == 0);
                CHECK(memcmp(x->grad, x_1, UN_BATCH * UN_DIM * sizeof(ctm_real)) == 0);
                CHECK(memcmp(net->grad, theta_1, net->len * sizeof(ctm_real)) == 0);
            }
    un_end();
}

// With patches the network is the one of the folded images, whose channels are the patches' numbers; a file keeps the patch.
static void test_unet_patch(void) {
    ctm_config cfg = un_small_config(), loaded;
    ctm_net *net, *folded, *read;
    ctm_tensor *x, *t, *s, *y, *want;
    const char *path = "un_patch.safetensors";
    un_begin();
    cfg.patch = 2;
    cfg.attn[0] = 4;
    cfg.channel_mult[2] = 0;
    net = un_small(&cfg, 1);
    cfg.patch = 1; cfg.size = 8; cfg.channels = 12;
    folded = un_small(&cfg, 1);
    CHECK(net->dim == 16 * 16 * 3 && net->len == folded->len && memcmp(net->theta, folded->theta, net->len * sizeof(ctm_real)) == 0);
    op_tape.recording = 0;
    x = ctm_reshape(&op_tape, un_image("x", 2, 16, 16, 3), 2, 2, net->dim, 0, 0);
    t = un_levels(&op_tape, "t", 0, 2, 1);
    s = un_levels(&op_tape, "s", 0, 2, 0.5);
    y = net->forward(&op_tape, net, x, t, s);
    want = folded->forward(&op_tape, folded,
                           ctm_reshape(&op_tape, ctm_fold(&op_tape, ctm_reshape(&op_tape, x, 4, 2, 16, 16, 3), 2), 2, 2, net->dim, 0, 0), t, s);
    want = ctm_unfold(&op_tape, ctm_reshape(&op_tape, want, 4, 2, 8, 8, 12), 2);
    CHECK(y->len == want->len && memcmp(y->data, want->data, y->len * sizeof(ctm_real)) == 0);
    cfg.patch = 2; cfg.size = 16; cfg.channels = 3;
    CHECK(ctm_save(&un_memory, net, &cfg, path));
    read = ctm_load(&un_memory, path, &loaded);
    CHECK(read != NULL && loaded.patch == 2 && loaded.size == 16);
    if (read) CHECK(memcmp(read->forward(&op_tape, read, x, t, s)->data, y->data, y->len * sizeof(ctm_real)) == 0);
    remove(path);
    op_tape.recording = 1;
    cfg.patch = 3;
    CHECK(PANICS(ctm_unet(&un_memory, &cfg, 1)));
    CHECK_TEXT(test_panic, "patches of 3 x 3");
    cfg.patch = 0;
    CHECK(PANICS(ctm_unet(&un_memory, &cfg, 1)));
    cfg.patch = 8;                                           // 2 positions cannot be halved as often as attention at 4 wants
    CHECK(PANICS(ctm_unet(&un_memory, &cfg, 1)));
    un_end();
}

// Pictures do not see each other: a batch is its rows one by one, with the same labels, levels and dropout; gradients add up.
static void test_unet_rows(void) {
    ctm_config cfg = un_small_config();
    ctm_net *net, *view;
    ctm_real *y, *part, *x_grad;
    ctm_rng rng = ctm_stream(1, "dropout");
    ctm_tensor *x;
    double *want;
    size_t i;
    int dropped, first;
    un_begin();
    cfg.dropout = 0.13;
    net = un_small(&cfg, 1);
    view = ctm_net_view(&un_memory, net, 1);
    y = un_room(UN_BATCH * UN_DIM); part = un_room(UN_BATCH * UN_DIM); x_grad = un_room(UN_BATCH * UN_DIM);
    want = (double *)ctm_alloc(&un_memory, net->len * sizeof(double));
    for (dropped = 0; dropped < 2; dropped++) {
        memset(net->grad, 0, net->len * sizeof(ctm_real));
        memset(view->grad, 0, net->len * sizeof(ctm_real));
        ctm_tape_reset(&op_tape);
        op_tape.rows.dropout = dropped ? &rng : NULL;
        op_tape.rows.step = 11;
        op_tape.rows.first = 0;
        op_tape.rows.label = un_labels;
        x = un_pass(&op_tape, net, 0, UN_BATCH, y, 1);
        memcpy(x_grad, x->grad, x->len * sizeof(ctm_real));
        for (first = 0; first < UN_BATCH; first += 2) {      // two rows, two rows, one row
            int B = first + 2 <= UN_BATCH ? 2 : 1, k;
            double *w = (double *)ctm_alloc(&un_memory, 2 * UN_DIM * sizeof(double));
            ctm_tape_reset(&op_tape);
            op_tape.rows.first = (uint64_t)first;
            op_tape.rows.label = un_labels + first;
            x = un_pass(&op_tape, view, first, B, part, 1);
            for (k = 0; k < B * UN_DIM; k++) w[k] = (double)y[first * UN_DIM + k];
            un_close(dropped ? "rows alone, with dropout" : "rows alone", part, w, (size_t)(B * UN_DIM), 0, IN_DOUBLE ? 1e-12 : 1e-5);
            for (k = 0; k < B * UN_DIM; k++) w[k] = (double)x_grad[first * UN_DIM + k];
            un_close("gradient by rows alone", x->grad, w, (size_t)(B * UN_DIM), 0, IN_DOUBLE ? 1e-12 : 1e-5);
        }
        for (i = 0; i < net->len; i++) want[i] = (double)net->grad[i];
        un_close("gradients of the weights from rows alone", view->grad, want, net->len, 0, IN_DOUBLE ? 1e-12 : 1e-5);
        if (!dropped) continue;
        ctm_tape_reset(&op_tape);                            // dropout does something, and another thing in another step
        op_tape.rows.first = 0;
        op_tape.rows.step = 12;
        op_tape.rows.label = un_labels;
        un_pass(&op_tape, net, 0, UN_BATCH, part, 0);
        CHECK(memcmp(part, y, UN_BATCH * UN_DIM * sizeof(ctm_real)) != 0);
        ctm_tape_reset(&op_tape);
        op_tape.rows.dropout = NULL;
        un_pass(&op_tape, net, 0, UN_BATCH, part, 0);
        CHECK(memcmp(part, y, UN_BATCH * UN_DIM * sizeof(ctm_real)) != 0);
    }
    un_end();
}

// Labels: each has its effect on its own row; no labels at all are labels of -1.
static void test_unet_labels(void) {
    static const int none[UN_BATCH] = {-1, -1, -1, -1, -1}, changed[UN_BATCH] = {2, -1, 1, 1, 1};
    static int outside[UN_BATCH] = {0, 0, 3, 0, 0}, below[UN_BATCH] = {0, -2, 0, 0, 0};
    ctm_config cfg = un_small_config();
    ctm_net *net;
    ctm_real *y, *other;
    int n;
    un_begin();
    net = un_small(&cfg, 1);
    y = un_room(UN_BATCH * UN_DIM); other = un_room(UN_BATCH * UN_DIM);
    un_pass(&op_tape, net, 0, UN_BATCH, y, 0);
    op_tape.rows.label = changed;                                    // row 2 only
    un_pass(&op_tape, net, 0, UN_BATCH, other, 0);
    for (n = 0; n < UN_BATCH; n++) CHECK((memcmp(y + n * UN_DIM, other + n * UN_DIM, UN_DIM * sizeof(ctm_real)) == 0) == (n != 2));
    op_tape.rows.label = none;
    un_pass(&op_tape, net, 0, UN_BATCH, y, 0);
    op_tape.rows.label = NULL;
    un_pass(&op_tape, net, 0, UN_BATCH, other, 0);
    CHECK(memcmp(y, other, UN_BATCH * UN_DIM * sizeof(ctm_real)) == 0);
    op_tape.rows.label = outside;
    CHECK(PANICS(un_pass(&op_tape, net, 0, UN_BATCH, other, 0)));
    CHECK_TEXT(test_panic, "3");
    op_tape.rows.label = below;
    CHECK(PANICS(un_pass(&op_tape, net, 0, UN_BATCH, other, 0)));
    CHECK_TEXT(test_panic, "-2");
    un_end();
}

// Copies: a frozen view passes the gradient through to its input and into no weights; a clone computes the same.
static void test_unet_copies(void) {
    ctm_config cfg = un_small_config();
    ctm_net *net, *clone, *frozen, *teacher;
    ctm_tensor *x;
    ctm_real *y, *other, *x_grad, *theta_grad;
    un_begin();
    net = un_small(&cfg, 1);
    clone = ctm_net_clone(&un_memory, net);
    frozen = ctm_net_view(&un_memory, net, 0);
    CHECK(clone->theta != net->theta && clone->grad == NULL && clone->dim == UN_DIM && clone->size == 16 && clone->classes == 3);
    CHECK(clone->param[net->last_weight]->ndim == 4 && clone->param[net->last_weight]->shape[3] == 3);
    y = un_room(UN_BATCH * UN_DIM); other = un_room(UN_BATCH * UN_DIM); x_grad = un_room(UN_BATCH * UN_DIM); theta_grad = un_room(net->len);
    x = un_pass(&op_tape, net, 0, UN_BATCH, y, 1);
    memcpy(x_grad, x->grad, x->len * sizeof(ctm_real));
    memcpy(theta_grad, net->grad, net->len * sizeof(ctm_real));
    op_tape.first = op_tape.last = NULL;
    un_pass(&op_tape, clone, 0, UN_BATCH, other, 0);
    CHECK(memcmp(y, other, UN_BATCH * UN_DIM * sizeof(ctm_real)) == 0);
    x = un_pass(&op_tape, frozen, 0, UN_BATCH, other, 1);
    CHECK(memcmp(y, other, UN_BATCH * UN_DIM * sizeof(ctm_real)) == 0);
    CHECK(memcmp(x_grad, x->grad, x->len * sizeof(ctm_real)) == 0);
    CHECK(memcmp(theta_grad, net->grad, net->len * sizeof(ctm_real)) == 0);
    cfg.seed = 99;                                           // a student starts from all that its teacher has
    teacher = ctm_unet(&un_memory, &cfg, 0);
    CHECK(ctm_net_copy_matching(net, teacher) == teacher->count);
    CHECK(memcmp(ctm_param_named(net, "dec.4x4_in0.qkv.weight")->data, ctm_param_named(teacher, "dec.4x4_in0.qkv.weight")->data, 3 * 16 * 16 * sizeof(ctm_real)) == 0);
    un_end();
}

// Without recording: the same bits, and less than a third of a forward pass's memory (told without Winograd, whose scratch is
// of one size for all pictures and weighs much beside small ones). And a second step asks the system for nothing.
static void test_unet_memory(void) {
    ctm_config cfg = un_small_config();
    ctm_arena arena[2];
    ctm_tape tape;
    ctm_net *net;
    ctm_real *y[2];
    size_t high[2], backward[2], allocated = 0;
    int recording, step, keep;
    un_begin();
    net = un_small(&cfg, 1);
    op_ctx.winograd = 0;
    for (recording = 0; recording < 2; recording++) {
        y[recording] = un_room(UN_BATCH * UN_DIM);
        ctm_arena_init(&arena[recording], &op_ctx, "pass");
        ctm_tape_init(&tape, &op_ctx, &arena[recording]);
        tape.recording = recording;
        tape.keep_grads = 0;
        un_pass(&tape, net, 0, UN_BATCH, y[recording], 0);
        high[recording] = arena[recording].high;
        CHECK((tape.count > 0) == recording);
        ctm_arena_free(&arena[recording]);
    }
    CHECK(memcmp(y[0], y[1], UN_BATCH * UN_DIM * sizeof(ctm_real)) == 0);
    CHECK(3 * high[0] < high[1]);
    if (3 * high[0] >= high[1]) printf("     %lu bytes without recording, %lu with\n", (unsigned long)high[0], (unsigned long)high[1]);
    for (keep = 0; keep < 2; keep++) {                       // recycled gradients need less than half the room of kept ones
        ctm_arena_init(&arena[keep], &op_ctx, "gradients");
        ctm_tape_init(&tape, &op_ctx, &arena[keep]);
        tape.keep_grads = keep;
        un_pass(&tape, net, 0, UN_BATCH, NULL, 1);
        backward[keep] = arena[keep].high - high[1];
        ctm_arena_free(&arena[keep]);
    }
    CHECK(2 * backward[0] < backward[1]);
    if (2 * backward[0] >= backward[1]) printf("     %lu bytes recycled, %lu kept\n", (unsigned long)backward[0], (unsigned long)backward[1]);
    op_ctx.winograd = 1;
    for (recording = 0; recording < 2; recording++) {
        ctm_arena_init(&arena[0], &op_ctx, "steps");
        ctm_tape_init(&tape, &op_ctx, &arena[0]);
        tape.keep_grads = 0;
        tape.recording = recording;
        for (step = 0; step < 4; step++) {
            ctm_tape_reset(&tape);
            un_pass(&tape, net, 0, UN_BATCH, NULL, recording);
            if (step == 0) { allocated = op_ctx.allocated; high[0] = arena[0].high; }
            CHECK(op_ctx.allocated == allocated && arena[0].high == high[0]);
        }
        ctm_arena_free(&arena[0]);
    }
    un_end();
}

static const char *scratch_path(const char *name);           // test_checkpoints.c
// Saved and loaded: the same bits and settings. The file has the authors' order, [out,in,k,k].
static void test_unet_saved(void) {
    ctm_config cfg = un_small_config(), back;
    const char *path = scratch_path("unet.safetensors");
    ctm_arena scratch;
    ctm_net *net, *again;
    ctm_file *f;
    int with_s, p;
    size_t i;
    for (with_s = 0; with_s < 2; with_s++) {
        un_begin();
        ctm_arena_init(&scratch, &op_ctx, "file");
        cfg.classes = with_s ? 3 : 0;
        cfg.dropout = 0.13;
        net = un_small(&cfg, with_s);
        CHECK(ctm_save(&scratch, net, &cfg, path));
        again = ctm_load(&un_memory, path, &back);
        CHECK(again != NULL);
        if (again) {
            CHECK(again->with_s == with_s && again->count == net->count && again->dim == net->dim && again->classes == cfg.classes);
            CHECK(back.size == 16 && back.channel_mult[1] == 2 && back.channel_mult[3] == 0 && back.attn[0] == 8 && back.dropout == 0.13);
            for (p = 0; p < net->count && p < again->count; p++)
                CHECK(memcmp(net->param[p]->data, again->param[p]->data, net->param[p]->len * sizeof(ctm_real)) == 0);
        }
        f = ctm_file_read(&scratch, path);
        for (p = 0; f && p < net->count; p++) {
            const ctm_tensor *w = net->param[p];
            const ctm_entry *e = ctm_file_find(f, w->name);
            ctm_real *turned = (ctm_real *)ctm_alloc(&scratch, w->len * sizeof(ctm_real));
            double *v = un_zeros(w->len);
            CHECK(e != NULL && e->len == w->len && e->ndim == w->ndim && e->shape[0] == w->shape[w->ndim - 1]);
            if (!e || e->len != w->len) continue;
            if (w->ndim == 4) CHECK(e->shape[1] == w->shape[2] && e->shape[2] == w->shape[0] && e->shape[3] == w->shape[1]);
            ctm_file_get(f, e, v);
            un_turned(w, w->data, turned);
            for (i = 0; i < w->len; i++) CHECK(v[i] == (double)turned[i]);
        }
        CHECK(f != NULL);
        remove(path);
        ctm_arena_free(&scratch);
        un_end();
    }
}

// What is said of settings that make no network.
static void test_unet_misuse(void) {
    ctm_config cfg;
    ctm_net *net;
    un_begin();
    cfg = un_small_config(); cfg.size = 18;                  // 18, 9, and then?
    CHECK(PANICS(ctm_unet(&un_memory, &cfg, 1)));
    CHECK_TEXT(test_panic, "size 18");
    cfg = un_small_config(); cfg.attn[0] = 5;                // no level is 5 x 5
    CHECK(PANICS(ctm_unet(&un_memory, &cfg, 1)));
    CHECK_TEXT(test_panic, "resolution 5");
    cfg = un_small_config(); cfg.size = 0;
    CHECK(PANICS(ctm_unet(&un_memory, &cfg, 1)));
    cfg = un_small_config(); cfg.channels = 0;
    CHECK(PANICS(ctm_unet(&un_memory, &cfg, 1)));
    cfg = un_small_config(); cfg.channel_mult[0] = 0;
    CHECK(PANICS(ctm_unet(&un_memory, &cfg, 1)));
    cfg = un_small_config(); cfg.num_blocks = 0;
    CHECK(PANICS(ctm_unet(&un_memory, &cfg, 1)));
    cfg = un_small_config(); cfg.model_channels = 6;         // groups of four channels
    CHECK(PANICS(ctm_unet(&un_memory, &cfg, 1)));
    CHECK_TEXT(test_panic, "model_channels is 6");
    cfg = un_small_config(); cfg.num_blocks = 12;            // either refused, or built: a file may ask for it
    CHECK(!ctm_unet_fits(&op_ctx, &cfg) || !PANICS(ctm_unet(&un_memory, &cfg, 1)));
    cfg = un_small_config();
    net = ctm_unet(&un_memory, &cfg, 1);
    CHECK(PANICS(net->forward(&op_tape, net, op_matrix("x", 2, 7), un_levels(&op_tape, "t", 0, 2, 1), un_levels(&op_tape, "s", 0, 2, 0.5))));
    CHECK_TEXT(test_panic, "\"x\"");
    un_end();
}

// The discriminator of images: one logit a patch; rows of a step are treated by their numbers, so that real and fake rows of a step
// are moved and recoloured alike; the gradient comes back to the image through all of it.
static ctm_net *un_disc(ctm_config *cfg) {
    cfg->gan_hidden = 3;
    cfg->gan_layers = 2;
    return ctm_conv_discriminator(&un_memory, cfg);
}
static double un_logit_sum(ctm_net *disc, const ctm_real *x, int rows, uint64_t step, uint64_t first, ctm_real *dx) {
    ctm_tensor *in, *l;
    double sum = 0;
    size_t i;
    ctm_tape_reset(&op_tape);
    op_tape.rows.step = step;
    op_tape.rows.first = first;
    in = ctm_matrix(&op_tape, "x", rows, disc->dim);
    memcpy(in->data, x, in->len * sizeof(ctm_real));
    if (dx) ctm_wants_grad(&op_tape, in);
    l = disc->forward(&op_tape, disc, in, NULL, NULL);
    CHECK(l->ndim == 2 && l->shape[0] == rows && l->shape[1] == 16);           // 16 x 16 halved twice
    for (i = 0; i < l->len; i++) sum += (double)l->data[i] * (double)(1 + i % 3);
    if (dx) {
        ctm_real *g = ctm_grad(&op_tape, l);
        for (i = 0; i < l->len; i++) g[i] = (ctm_real)(1 + i % 3);
        ctm_backward_seeded(&op_tape, l);
        memcpy(dx, in->grad, in->len * sizeof(ctm_real));
    }
    return sum;
}
static void test_unet_discriminator(void) {
    ctm_config cfg = un_small_config();
    const ctm_rng rng = ctm_stream(1, "disc");
    ctm_net *disc;
    ctm_real *x, *dx, keep;
    double up, down, step = IN_DOUBLE ? 1e-5 : 1e-2, largest = 0;
    size_t k;
    un_begin();
    disc = un_disc(&cfg);
    x = (ctm_real *)ctm_alloc(&un_memory, 2 * (size_t)disc->dim * sizeof *x);
    dx = (ctm_real *)ctm_alloc(&un_memory, 2 * (size_t)disc->dim * sizeof *dx);
    ctm_normals(&rng, 0, 0, (size_t)disc->dim, x);
    memcpy(x + disc->dim, x, (size_t)disc->dim * sizeof *x);
    CHECK(un_logit_sum(disc, x, 1, 4, 7, NULL) == un_logit_sum(disc, x, 1, 4, 7, NULL));
    CHECK(un_logit_sum(disc, x, 1, 4, 7, NULL) != un_logit_sum(disc, x, 1, 5, 7, NULL));
    CHECK(un_logit_sum(disc, x, 1, 4, 7, NULL) != un_logit_sum(disc, x, 1, 4, 8, NULL));
    CHECK_CLOSE(un_logit_sum(disc, x, 2, 4, 7, NULL),               // 16 logits a row: the second row's begin with weight 2
                un_logit_sum(disc, x, 2, 4, 7, dx), 0);
    for (k = 0; k < 2 * (size_t)disc->dim; k += 97) {
        keep = x[k];
        x[k] = (ctm_real)((double)keep + step);
        up = un_logit_sum(disc, x, 2, 4, 7, NULL);
        x[k] = (ctm_real)((double)keep - step);
        down = un_logit_sum(disc, x, 2, 4, 7, NULL);
        x[k] = keep;
        CHECK_CLOSE((up - down) / (2 * step), dx[k], IN_DOUBLE ? 1e-7 : 2e-2);
        largest = fabs((double)dx[k]) > largest ? fabs((double)dx[k]) : largest;
    }
    CHECK(largest > 1e-3);                                                      // a gradient of zeros would agree, too
    un_end();
}

// Dropout in a training step draws by the rows' numbers in the whole batch: one shard and four give the same loss to rounding; and
// the teacher has none.
static void un_draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    const ctm_net *net = (const ctm_net *)user;
    ctm_normals(rng, step, index * (uint64_t)net->dim, (size_t)net->dim, x0);
}
static ctm_tensor *un_no_dropout(ctm_tape *tp, const ctm_denoiser *self, ctm_tensor *x, ctm_tensor *t) {
    (void)self;
    (void)t;
    CHECK(tp->rows.dropout == NULL);
    return ctm_scale(tp, x, 0.1);
}
static void test_unet_training_dropout(void) {
    double L[3][2];
    int k;
    for (k = 0; k < 3; k++) {
        ctm_config cfg = un_small_config();
        ctm_denoiser teacher;
        ctm_trainer *tr;
        ctm_net *net;
        size_t i;
        un_begin();
        memset(&teacher, 0, sizeof teacher);
        cfg.dropout = k == 2 ? 0 : 0.3;
        cfg.classes = 0;
        cfg.batch = cfg.diagonal_batch = 4;
        cfg.shards = k ? 4 : 1;
        cfg.aim = ctm_aim_data;
        net = ctm_unet(&un_memory, &cfg, 1);
        for (i = 0; i < net->len; i++) net->theta[i] += (ctm_real)(0.05 * sin((double)i));      // fresh, its blocks are nearly nothing
        teacher.name = "a tenth";
        teacher.dim = net->dim;
        teacher.denoise = un_no_dropout;
        tr = ctm_trainer_new(&un_memory, &cfg, net, &teacher, un_draw, net);
        CHECK(tr->shard[0].tape.keep_grads == 0);
        CHECK(ctm_train_step(tr));
        L[k][0] = tr->L_ctm;
        L[k][1] = tr->L_dsm;
        ctm_trainer_free(tr);
        un_end();
    }
    CHECK_CLOSE(L[0][0], L[1][0], 1e-5 * L[0][0]);
    CHECK_CLOSE(L[0][1], L[1][1], 1e-5 * L[0][1]);
    CHECK(fabs(L[1][0] - L[2][0]) > 1e-4 * L[1][0] && fabs(L[1][1] - L[2][1]) > 1e-4 * L[1][1]);
}

// The authors' two kinds of unread tensors are passed over; other names are not, and the first of them are listed.
static void test_unet_names(void) {
    static const int one[4] = {1, 1, 2, 2};
    ctm_config cfg = un_small_config();
    const char *path = scratch_path("names.safetensors");
    const ctm_real quarter[4] = {(ctm_real)0.25, (ctm_real)0.25, (ctm_real)0.25, (ctm_real)0.25};
    int k, p;
    for (k = 0; k < 2; k++) {
        ctm_arena scratch;
        ctm_writer w;
        ctm_net *net;
        ctm_file *f;
        un_begin();
        ctm_arena_init(&scratch, &op_ctx, "file");
        cfg.classes = 0;
        net = ctm_unet(&un_memory, &cfg, 1);
        ctm_writer_init(&w, &scratch);
        for (p = 5 * k; p < net->count; p++) ctm_writer_add(&w, net->param[p]->name, net->param[p]->data, net->param[p]->ndim, net->param[p]->shape, net->param[p]->ndim > 1);
        ctm_writer_add(&w, "enc.8x8_down.conv0.resample_filter", quarter, 4, one, 0);
        ctm_writer_add(&w, "map_augment.weight", quarter, 4, one, 0);
        if (k) ctm_writer_add(&w, "enc.stranger", quarter, 4, one, 0);
        CHECK(ctm_writer_save(&w, path));
        f = ctm_file_read(&scratch, path);
        CHECK(f && ctm_net_read(net, f, "") == !k);
        if (k) CHECK_TEXT(ctm_error(&op_ctx), "has no tensor \"map_layer0.weight\" (5 missing); tensor \"enc.stranger\"");
        if (k) CHECK_TEXT(ctm_error(&op_ctx), "\"enc.stranger\" has no place in this network (1 in all)");
        remove(path);
        ctm_arena_free(&scratch);
        un_end();
    }
}

static void run_unet(void) {
    RUN(op_reshape);
    RUN(op_concat_images);
    RUN(op_down);
    RUN(op_fold);
    RUN(op_unfold);
    RUN(op_up);
    RUN(op_conv);
    RUN(op_conv_plain);
    RUN(op_conv_naive);
    RUN(op_conv_rows);
    RUN(op_conv_same_bits);
    RUN(op_group_norm);
    RUN(op_group_norm_offset);
    RUN(op_group_norm_constant);
    RUN(op_norm_conv);
    RUN(op_attention);
    RUN(op_dropout);
    RUN(op_frequencies); RUN(frequencies_at_level_one_are_zeros_and_ones); RUN(augmentation_moves_mirrors_and_recolours_within_its_limits);
    RUN(op_images_used_twice);
    RUN(op_images_composite);
    RUN(unet_golden);
    RUN(unet_golden_teacher);
    RUN(unet_parameters);
    RUN(unet_authors_size);
    RUN(unet_init);
    RUN(unet_result_moves_down); RUN(unet_patch); RUN(unet_same_bits);
    RUN(unet_rows);
    RUN(unet_labels);
    RUN(unet_copies);
    RUN(unet_memory);
    RUN(unet_saved);
    RUN(unet_misuse);
    RUN(unet_discriminator);
    RUN(unet_training_dropout);
    RUN(unet_names);
}
