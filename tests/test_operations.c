// Chapter 8, and the mixture of chapter 11: every operation against a formula written out here, its gradient against finite
// differences, and what it says of shapes that do not fit. A test is named like the operation's card: op_add, op_sub, ...
#include "test.h"

// ---- the workshop: one context, arena and tape, and numbers to put in

static ctm_ctx   op_ctx;
static ctm_arena op_arena;
static ctm_tape  op_tape;
static uint64_t  op_draws;

static void op_begin(void) {
    ctm_init(&op_ctx);
    ctm_arena_init(&op_arena, &op_ctx, "operations");
    ctm_tape_init(&op_tape, &op_ctx, &op_arena);
    op_draws = 0;
}
static void op_end(void) {
    ctm_arena_free(&op_arena);
    CHECK(op_ctx.allocated == 0);
}
static double op_random(double size) {                       // a normal number times size
    ctm_rng rng = ctm_stream(5, "operations");
    return size * ctm_normal(&rng, 0, op_draws++);
}
static ctm_tensor *op_filled(ctm_tensor *x, double size) {
    size_t i;
    for (i = 0; i < x->len; i++) x->data[i] = (ctm_real)op_random(size);
    return x;
}
static ctm_tensor *op_matrix(const char *name, int rows, int cols) { return ctm_wants_grad(&op_tape, op_filled(ctm_matrix(&op_tape, name, rows, cols), 1)); }
static ctm_tensor *op_vector(const char *name, int n) { return ctm_wants_grad(&op_tape, op_filled(ctm_vector(&op_tape, name, n), 1)); }
static ctm_tensor *op_constants(const char *name, int n) { return op_filled(ctm_vector(&op_tape, name, n), 1); }

// ---- the gradient check
// loss = sum of w·out with random w. For every entry of every input that wants a gradient: backward's number against
// (8(f(h) - f(-h)) - (f(2h) - f(-2h)))/12h. The check fails if a gradient is zero everywhere: then it has shown nothing.

typedef ctm_tensor *(*op_build)(ctm_tape *tp, ctm_tensor **in);

static double op_loss(op_build build, ctm_tensor **in, const double *w) {
    ctm_mark m = ctm_arena_mark(&op_arena);
    ctm_tape tape = op_tape;
    ctm_tensor *out;
    double sum = 0;
    size_t i;
    tape.recording = 0;
    out = build(&tape, in);
    for (i = 0; i < out->len; i++) sum += w[i] * (double)out->data[i];
    ctm_arena_release(&op_arena, m);
    return sum;
}

// Backward into the inputs' gradients, which start from `start` to show that gradients are added to what is there.
static void op_backward(op_build build, ctm_tensor **in, int n, const double *w, double start) {
    ctm_mark m = ctm_arena_mark(&op_arena);
    ctm_tape tape = op_tape;
    ctm_tensor *out;
    size_t i;
    int k;
    tape.first = tape.last = NULL;
    for (k = 0; k < n; k++) for (i = 0; i < in[k]->len; i++) if (in[k]->grad) in[k]->grad[i] = (ctm_real)start;
    out = build(&tape, in);
    CHECK(out->grad != NULL);
    if (out->grad) {
        for (i = 0; i < out->len; i++) out->grad[i] = (ctm_real)w[i];
        ctm_backward_seeded(&tape, out);
    }
    ctm_arena_release(&op_arena, m);
}

static void op_check_here(const char *what, int n, ctm_tensor **in, op_build build) {
    const double h = IN_DOUBLE ? 1e-3 : 0.03, tolerance = IN_DOUBLE ? 1e-7 : 2e-3;
    ctm_mark m = ctm_arena_mark(&op_arena);
    ctm_tensor *out = build(&op_tape, in);
    double *w = (double *)ctm_alloc(&op_arena, (out->len + 1) * sizeof(double));
    ctm_real *was[4], *grad[4];
    size_t i;
    char text[200];
    int k, other;
    for (i = 0; i < out->len; i++) w[i] = (double)(ctm_real)op_random(1);
    op_tape.first = op_tape.last = NULL;
    op_tape.count = 0;
    op_backward(build, in, n, w, 0.5);
    for (k = 0; k < n; k++) {
        double largest = 0, slope[600];
        if (!in[k]->grad) continue;
        if (in[k]->len > 600) { test_fail(__FILE__, __LINE__, "an input too large for the check"); return; }
        for (i = 0; i < in[k]->len; i++) {
            ctm_real x = in[k]->data[i];
            double f[4];
            int s;
            static const double at[4] = {1, -1, 2, -2};
            for (s = 0; s < 4; s++) {
                in[k]->data[i] = (ctm_real)((double)x + at[s] * h);
                f[s] = op_loss(build, in, w);
            }
            in[k]->data[i] = x;
            slope[i] = (8 * (f[0] - f[1]) - (f[2] - f[3])) / (12 * h);
            largest = fmax(largest, fabs(slope[i]));
        }
        for (i = 0; i < in[k]->len; i++) {
            double got = (double)in[k]->grad[i] - 0.5;
            if (ctm_is_finite(got) && fabs(got - slope[i]) <= tolerance * (largest + 1)) continue;
            snprintf(text, sizeof text, "%s on %s: d/d%s[%lu] = %.10g, finite differences say %.10g", what, ctm_isa_name(op_ctx.isa), in[k]->name,
                     (unsigned long)i, got, slope[i]);
            test_fail(__FILE__, __LINE__, text);
        }
        if (largest < 1e-3) {
            snprintf(text, sizeof text, "%s: the gradient by %s is zero everywhere, so nothing has been shown", what, in[k]->name);
            test_fail(__FILE__, __LINE__, text);
        }
    }
    // One input alone wants a gradient: the others are left alone, and it gets the same one.
    for (k = 0; k < n; k++) {
        was[k] = in[k]->grad;
        grad[k] = (ctm_real *)ctm_alloc(&op_arena, in[k]->len * sizeof(ctm_real));
        if (was[k]) memcpy(grad[k], was[k], in[k]->len * sizeof(ctm_real));
    }
    for (k = 0; k < n; k++) {
        if (!was[k]) continue;
        for (other = 0; other < n; other++) in[other]->grad = other == k ? was[k] : NULL;
        op_backward(build, in, n, w, 0.5);
        for (i = 0; i < in[k]->len; i++)
            if (fabs((double)(was[k][i] - grad[k][i])) > (IN_DOUBLE ? 1e-13 : 2e-6) * (1 + fabs((double)grad[k][i]))) {
                snprintf(text, sizeof text, "%s: the gradient by %s alone differs from the one in company", what, in[k]->name);
                test_fail(__FILE__, __LINE__, text);
                break;
            }
    }
    for (k = 0; k < n; k++) in[k]->grad = was[k];
    ctm_arena_release(&op_arena, m);
}

// On every instruction set there is (the double build has one).
static void op_check(const char *what, int n, ctm_tensor **in, op_build build) {
    int isa, best = op_ctx.isa;
    for (isa = 0; isa < CTM_ISA_COUNT; isa++) if (ctm_set_isa(&op_ctx, isa)) op_check_here(what, n, in, build);
    ctm_set_isa(&op_ctx, best);
}

#define OP_TOLERANCE (IN_DOUBLE ? 1e-14 : 2e-6)
// PANICS, with both tensors' names and shapes in the text.
#define OP_MISUSE(expression, op, a, b) do { \
        CHECK(PANICS(expression)); \
        CHECK_TEXT(test_panic, op ":"); CHECK_TEXT(test_panic, a); CHECK_TEXT(test_panic, b); \
    } while (0)

// ---- entry by entry

static ctm_tensor *op_do_add(ctm_tape *tp, ctm_tensor **in) { return ctm_add(tp, in[0], in[1]); }
static ctm_tensor *op_do_sub(ctm_tape *tp, ctm_tensor **in) { return ctm_sub(tp, in[0], in[1]); }
static ctm_tensor *op_do_mul(ctm_tape *tp, ctm_tensor **in) { return ctm_mul(tp, in[0], in[1]); }
static ctm_tensor *op_do_scale(ctm_tape *tp, ctm_tensor **in) { return ctm_scale(tp, in[0], -2.5); }
static ctm_tensor *op_do_square(ctm_tape *tp, ctm_tensor **in) { return ctm_square(tp, in[0]); }
static ctm_tensor *op_do_silu(ctm_tape *tp, ctm_tensor **in) { return ctm_silu(tp, in[0]); }
static ctm_tensor *op_do_twice(ctm_tape *tp, ctm_tensor **in) { return ctm_mul(tp, in[0], in[0]); }

// The shape of a vector, a matrix, a scalar passes through; misfits stop.
static void op_same_shape(const char *what, op_build build) {
    ctm_tensor *in[2], *out;
    char text[200];
    in[0] = op_vector("v", 5); in[1] = op_vector("w", 5);
    out = build(&op_tape, in);
    CHECK(out->ndim == 1 && out->shape[0] == 5 && strcmp(out->op, what) == 0);
    in[0] = op_matrix("a", 2, 3); in[1] = op_matrix("b", 2, 3);
    out = build(&op_tape, in);
    CHECK(out->ndim == 2 && out->shape[0] == 2 && out->shape[1] == 3);
    in[0] = ctm_wants_grad(&op_tape, ctm_scalar(&op_tape, "one", 1)); in[1] = ctm_scalar(&op_tape, "two", 2);
    out = build(&op_tape, in);
    CHECK(out->ndim == 0 && out->len == 1);
    snprintf(text, sizeof text, "ctm_%s", what);
    in[0] = op_matrix("left", 2, 3); in[1] = op_matrix("right", 3, 2);
    CHECK(PANICS(build(&op_tape, in)));
    CHECK(strstr(test_panic, text) != NULL); CHECK_TEXT(test_panic, "\"left\" [2,3]"); CHECK_TEXT(test_panic, "\"right\" [3,2]");
    in[1] = op_vector("flat", 6);
    CHECK(PANICS(build(&op_tape, in)));
    CHECK_TEXT(test_panic, "\"left\" [2,3]"); CHECK_TEXT(test_panic, "\"flat\" [6]");
    in[0] = op_vector("short", 5);
    CHECK(PANICS(build(&op_tape, in)));
    CHECK_TEXT(test_panic, "\"short\" [5]");
}

static void test_op_add(void) {
    ctm_tensor *in[2], *out;
    size_t i;
    op_begin();
    in[0] = op_matrix("a", 3, 5); in[1] = op_matrix("b", 3, 5);
    out = ctm_add(&op_tape, in[0], in[1]);
    for (i = 0; i < 15; i++) CHECK(out->data[i] == in[0]->data[i] + in[1]->data[i]);
    op_check("add", 2, in, op_do_add);
    op_same_shape("add", op_do_add);
    op_end();
}
static void test_op_sub(void) {
    ctm_tensor *in[2], *out;
    size_t i;
    op_begin();
    in[0] = op_matrix("a", 3, 5); in[1] = op_matrix("b", 3, 5);
    out = ctm_sub(&op_tape, in[0], in[1]);
    for (i = 0; i < 15; i++) CHECK(out->data[i] == in[0]->data[i] - in[1]->data[i]);
    op_check("sub", 2, in, op_do_sub);
    op_same_shape("sub", op_do_sub);
    op_end();
}
static void test_op_mul(void) {
    ctm_tensor *in[2], *out;
    size_t i;
    op_begin();
    in[0] = op_matrix("a", 3, 5); in[1] = op_matrix("b", 3, 5);
    out = ctm_mul(&op_tape, in[0], in[1]);
    for (i = 0; i < 15; i++) CHECK(out->data[i] == in[0]->data[i] * in[1]->data[i]);
    op_check("mul", 2, in, op_do_mul);
    op_check("mul with itself", 1, in, op_do_twice);
    op_same_shape("mul", op_do_mul);
    op_end();
}
static void test_op_scale(void) {
    ctm_tensor *in[1], *out;
    size_t i;
    op_begin();
    in[0] = op_matrix("a", 3, 5);
    out = ctm_scale(&op_tape, in[0], -2.5);
    for (i = 0; i < 15; i++) CHECK(out->data[i] == (ctm_real)-2.5 * in[0]->data[i]);
    op_check("scale", 1, in, op_do_scale);
    CHECK(ctm_scale(&op_tape, op_vector("v", 4), 2)->ndim == 1);
    op_end();
}
static void test_op_square(void) {
    ctm_tensor *in[1], *out;
    size_t i;
    op_begin();
    in[0] = op_matrix("a", 3, 5);
    out = ctm_square(&op_tape, in[0]);
    for (i = 0; i < 15; i++) CHECK(out->data[i] == in[0]->data[i] * in[0]->data[i]);
    op_check("square", 1, in, op_do_square);
    op_end();
}
static void test_op_silu(void) {
    ctm_tensor *in[1], *out;
    size_t i;
    op_begin();
    in[0] = op_matrix("x", 3, 19);
    out = ctm_silu(&op_tape, in[0]);
    for (i = 0; i < out->len; i++) {
        double x = (double)in[0]->data[i];
        CHECK_CLOSE(out->data[i], x / (1 + exp(-x)), OP_TOLERANCE * (1 + fabs(x)));
    }
    op_check("silu", 1, in, op_do_silu);
    // Far out: 0 on the left, x on the right, and finite slopes.
    in[0]->data[0] = -200; in[0]->data[1] = 200; in[0]->data[2] = 0;
    memset(in[0]->grad, 0, in[0]->len * sizeof(ctm_real));
    out = ctm_silu(&op_tape, in[0]);
    CHECK_CLOSE(out->data[0], 0, 1e-30); CHECK_CLOSE(out->data[1], 200, 1e-4); CHECK(out->data[2] == 0);
    for (i = 0; i < 3; i++) out->grad[i] = 1;
    ctm_backward_seeded(&op_tape, out);
    CHECK_CLOSE(in[0]->grad[0], 0, 1e-30); CHECK_CLOSE(in[0]->grad[1], 1, 1e-5); CHECK_CLOSE(in[0]->grad[2], 0.5, 1e-6);
    op_end();
}

// ---- linear

static ctm_tensor *op_do_linear(ctm_tape *tp, ctm_tensor **in) { return ctm_linear(tp, in[0], in[1], in[2]); }
static ctm_tensor *op_do_linear_bare(ctm_tape *tp, ctm_tensor **in) { return ctm_linear(tp, in[0], in[1], NULL); }

static void test_op_linear(void) {
    static const int size[][3] = {{4, 3, 5}, {1, 1, 1}, {9, 2, 17}, {17, 9, 2}, {3, 18, 16}};    // B, I, O
    ctm_tensor *in[3], *out;
    int s, n, i, o;
    op_begin();
    for (s = 0; s < 5; s++) {
        int B = size[s][0], I = size[s][1], O = size[s][2];
        in[0] = op_matrix("x", B, I); in[1] = op_matrix("w", I, O); in[2] = op_vector("b", O);
        out = ctm_linear(&op_tape, in[0], in[1], in[2]);
        CHECK(out->ndim == 2 && out->shape[0] == B && out->shape[1] == O);
        for (n = 0; n < B; n++)
            for (o = 0; o < O; o++) {
                double sum = (double)in[2]->data[o], bare = 0;
                for (i = 0; i < I; i++) bare += (double)in[0]->data[n * I + i] * (double)in[1]->data[i * O + o];
                CHECK_CLOSE(out->data[n * O + o], sum + bare, 10 * OP_TOLERANCE);
            }
        op_check("linear", 3, in, op_do_linear);
        op_check("linear without b", 2, in, op_do_linear_bare);
    }
    OP_MISUSE(ctm_linear(&op_tape, op_matrix("x", 4, 3), op_matrix("w", 5, 3), NULL), "ctm_linear", "\"x\" [4,3]", "\"w\" [5,3]");
    OP_MISUSE(ctm_linear(&op_tape, op_vector("flat", 3), op_matrix("w", 3, 5), NULL), "ctm_linear", "\"flat\" [3]", "\"w\" [3,5]");
    OP_MISUSE(ctm_linear(&op_tape, op_matrix("x", 4, 3), op_vector("wv", 3), NULL), "ctm_linear", "\"x\" [4,3]", "\"wv\" [3]");
    OP_MISUSE(ctm_linear(&op_tape, op_matrix("x", 4, 3), op_matrix("w", 3, 5), op_vector("b", 4)), "ctm_linear", "\"w\" [3,5]", "\"b\" [4]");
    OP_MISUSE(ctm_linear(&op_tape, op_matrix("x", 4, 3), op_matrix("w", 3, 5), op_matrix("bm", 1, 5)), "ctm_linear", "\"w\" [3,5]", "\"bm\" [1,5]");
    op_end();
}

// ---- film_silu

static int op_film_row[7] = {2, 0, 2, 1, 1, 2, 0};          // seven rows of h share three of film
static ctm_tensor *op_do_film(ctm_tape *tp, ctm_tensor **in) { return ctm_film_silu(tp, in[0], in[1], 3, NULL); }
static ctm_tensor *op_do_film_shared(ctm_tape *tp, ctm_tensor **in) { return ctm_film_silu(tp, in[0], in[1], 3, op_film_row); }

static void test_op_film_silu(void) {
    enum { B = 7, H = 5, F = 15 };                           // scale in columns 3..7, shift in 8..12
    ctm_tensor *in[2], *out;
    int shared, n, i;
    op_begin();
    for (shared = 0; shared < 2; shared++) {
        in[0] = op_matrix("h", B, H);
        in[1] = op_matrix("film", shared ? 3 : B, F);
        out = (shared ? op_do_film_shared : op_do_film)(&op_tape, in);
        for (n = 0; n < B; n++)
            for (i = 0; i < H; i++) {
                const ctm_real *f = in[1]->data + (shared ? op_film_row[n] : n) * F;
                double v = (1 + (double)f[3 + i]) * (double)in[0]->data[n * H + i] + (double)f[3 + H + i];
                CHECK_CLOSE(out->data[n * H + i], v / (1 + exp(-v)), OP_TOLERANCE * (1 + fabs(v)));
            }
        op_check(shared ? "film_silu, shared rows" : "film_silu", 2, in, shared ? op_do_film_shared : op_do_film);
    }
    OP_MISUSE(ctm_film_silu(&op_tape, op_matrix("h", 4, 5), op_matrix("film", 3, 10), 0, NULL), "ctm_film_silu", "\"h\" [4,5]", "\"film\" [3,10]");
    OP_MISUSE(ctm_film_silu(&op_tape, op_matrix("h", 4, 5), op_matrix("film", 4, 10), 1, NULL), "ctm_film_silu", "\"h\" [4,5]", "\"film\" [4,10]");
    OP_MISUSE(ctm_film_silu(&op_tape, op_matrix("h", 4, 5), op_matrix("film", 4, 12), -1, NULL), "ctm_film_silu", "\"h\" [4,5]", "\"film\" [4,12]");
    op_film_row[3] = 3;
    CHECK(PANICS(ctm_film_silu(&op_tape, op_matrix("h", B, H), op_matrix("three_rows", 3, F), 3, op_film_row)));
    CHECK_TEXT(test_panic, "\"three_rows\" has no row 3");
    op_film_row[3] = 1;
    OP_MISUSE(ctm_film_silu(&op_tape, op_vector("hv", 4), op_matrix("film", 4, 10), 0, NULL), "ctm_film_silu", "\"hv\" [4]", "\"film\" [4,10]");
    op_end();
}

// ---- rows

static ctm_tensor *op_do_concat(ctm_tape *tp, ctm_tensor **in) { return ctm_concat(tp, in[0], in[1]); }
static void test_op_concat(void) {
    ctm_tensor *in[2], *out;
    int n, i;
    op_begin();
    in[0] = op_matrix("a", 3, 2); in[1] = op_matrix("b", 3, 4);
    out = ctm_concat(&op_tape, in[0], in[1]);
    CHECK(out->shape[0] == 3 && out->shape[1] == 6);
    for (n = 0; n < 3; n++) for (i = 0; i < 6; i++) CHECK(out->data[n * 6 + i] == (i < 2 ? in[0]->data[n * 2 + i] : in[1]->data[n * 4 + i - 2]));
    op_check("concat", 2, in, op_do_concat);
    OP_MISUSE(ctm_concat(&op_tape, op_matrix("a", 3, 2), op_matrix("b", 4, 2)), "ctm_concat", "\"a\" [3,2]", "\"b\" [4,2]");
    OP_MISUSE(ctm_concat(&op_tape, op_matrix("a", 3, 2), op_vector("v", 3)), "ctm_concat", "\"a\" [3,2]", "\"v\" [3]");
    op_end();
}

static int op_gather_index[5] = {2, 0, 2, 3, 2};
static ctm_tensor *op_do_gather(ctm_tape *tp, ctm_tensor **in) { return ctm_gather_rows(tp, in[0], op_gather_index, 5); }
static void test_op_gather_rows(void) {
    static int outside[2] = {0, 4}, below[1] = {-1};
    ctm_tensor *in[1], *out, *x;
    int n, i;
    op_begin();
    in[0] = op_matrix("x", 4, 3);
    out = ctm_gather_rows(&op_tape, in[0], op_gather_index, 5);
    CHECK(out->shape[0] == 5 && out->shape[1] == 3);
    for (n = 0; n < 5; n++) for (i = 0; i < 3; i++) CHECK(out->data[n * 3 + i] == in[0]->data[op_gather_index[n] * 3 + i]);
    op_check("gather_rows", 1, in, op_do_gather);
    in[0] = op_vector("v", 4);
    out = ctm_gather_rows(&op_tape, in[0], op_gather_index, 5);
    CHECK(out->ndim == 1 && out->shape[0] == 5);
    for (n = 0; n < 5; n++) CHECK(out->data[n] == in[0]->data[op_gather_index[n]]);
    op_check("gather_rows of a vector", 1, in, op_do_gather);
    x = op_matrix("four_rows", 4, 3);
    CHECK(PANICS(ctm_gather_rows(&op_tape, x, outside, 2)));
    CHECK_TEXT(test_panic, "ctm_gather_rows: \"four_rows\" has no row 4");
    CHECK(PANICS(ctm_gather_rows(&op_tape, x, below, 1)));
    CHECK_TEXT(test_panic, "has no row -1");
    OP_MISUSE(ctm_gather_rows(&op_tape, ctm_scalar(&op_tape, "s", 1), below, 1), "ctm_gather_rows", "\"s\" []", "\"s\" []");
    op_end();
}

static int op_scatter_index[3] = {4, 0, 2};
static ctm_tensor *op_do_scatter(ctm_tape *tp, ctm_tensor **in) { return ctm_scatter_rows(tp, in[0], in[1], op_scatter_index); }
static void test_op_scatter_rows(void) {
    static int outside[1] = {5};
    ctm_tensor *in[2], *out, *x;
    int n, i;
    op_begin();
    in[0] = op_matrix("x", 5, 3); in[1] = op_matrix("y", 3, 3);
    out = ctm_scatter_rows(&op_tape, in[0], in[1], op_scatter_index);
    for (n = 0; n < 5; n++)
        for (i = 0; i < 3; i++) {
            int from = n == 4 ? 0 : n == 0 ? 1 : n == 2 ? 2 : -1;
            CHECK(out->data[n * 3 + i] == (from < 0 ? in[0]->data[n * 3 + i] : in[1]->data[from * 3 + i]));
        }
    op_check("scatter_rows", 2, in, op_do_scatter);
    OP_MISUSE(ctm_scatter_rows(&op_tape, op_matrix("x", 5, 3), op_matrix("y", 3, 2), op_scatter_index), "ctm_scatter_rows", "\"x\" [5,3]", "\"y\" [3,2]");
    OP_MISUSE(ctm_scatter_rows(&op_tape, op_vector("v", 5), op_vector("w", 3), op_scatter_index), "ctm_scatter_rows", "\"v\" [5]", "\"w\" [3]");
    x = op_matrix("five_rows", 5, 3);
    CHECK(PANICS(ctm_scatter_rows(&op_tape, x, op_matrix("y", 1, 3), outside)));
    CHECK_TEXT(test_panic, "ctm_scatter_rows: \"five_rows\" has no row 5");
    op_end();
}

static ctm_tensor *op_mix_a, *op_mix_b;
static ctm_tensor *op_do_mix(ctm_tape *tp, ctm_tensor **in) { return ctm_mix_rows(tp, op_mix_a, in[0], op_mix_b, in[1]); }
static ctm_tensor *op_do_mix_one(ctm_tape *tp, ctm_tensor **in) { return ctm_mix_rows(tp, op_mix_a, in[0], NULL, NULL); }
static void test_op_mix_rows(void) {
    ctm_tensor *in[2], *out, *one;
    int n, i;
    op_begin();
    op_mix_a = op_constants("a", 4); op_mix_b = op_constants("b", 4);
    in[0] = op_matrix("x", 4, 3); in[1] = op_matrix("y", 4, 3);
    out = op_do_mix(&op_tape, in);
    one = op_do_mix_one(&op_tape, in);
    for (n = 0; n < 4; n++)
        for (i = n * 3; i < n * 3 + 3; i++) {
            CHECK_CLOSE(out->data[i], (double)op_mix_a->data[n] * (double)in[0]->data[i] + (double)op_mix_b->data[n] * (double)in[1]->data[i], OP_TOLERANCE);
            CHECK(one->data[i] == op_mix_a->data[n] * in[0]->data[i]);
        }
    op_check("mix_rows", 2, in, op_do_mix);
    op_check("mix_rows of one", 1, in, op_do_mix_one);
    OP_MISUSE(ctm_mix_rows(&op_tape, op_constants("a", 3), op_matrix("x", 4, 3), NULL, NULL), "ctm_mix_rows", "\"a\" [3]", "\"x\" [4,3]");
    OP_MISUSE(ctm_mix_rows(&op_tape, op_constants("a", 4), op_matrix("x", 4, 3), op_mix_b, op_matrix("y", 4, 2)), "ctm_mix_rows", "\"x\" [4,3]", "\"y\" [4,2]");
    OP_MISUSE(ctm_mix_rows(&op_tape, op_constants("a", 4), op_matrix("x", 4, 3), op_constants("b", 5), op_matrix("y", 4, 3)), "ctm_mix_rows", "\"x\" [4,3]", "\"y\" [4,3]");
    OP_MISUSE(ctm_mix_rows(&op_tape, op_constants("a", 4), op_matrix("x", 4, 3), NULL, op_matrix("y", 4, 3)), "ctm_mix_rows", "\"x\" [4,3]", "\"y\" [4,3]");
    CHECK(PANICS(ctm_mix_rows(&op_tape, op_vector("wants_one", 4), op_matrix("x", 4, 3), NULL, NULL)));
    CHECK_TEXT(test_panic, "\"wants_one\" are constants and cannot want a gradient");
    op_end();
}

// ---- time_features

static void test_op_time_features(void) {
    enum { B = 9 };
    static const double level[B] = {80, 0.002, 1, 0.5, 57.586, 0.017, 3.3, 0.14, 20};
    ctm_tensor *t, *out;
    int isa, keep, n, k, i;
    op_begin();
    t = ctm_vector(&op_tape, "t", B);
    for (i = 0; i < B; i++) t->data[i] = (ctm_real)level[i];
    for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
        if (!ctm_set_isa(&op_ctx, isa)) continue;
        for (keep = 0; keep < 2; keep++)
            for (n = 1; n < 6; n++) {
                double f_0 = keep ? 1.57079632679489662 : 0.5;
                int W = 2 * n + keep;
                out = ctm_time_features(&op_tape, t, n, f_0, keep);
                CHECK(out->ndim == 2 && out->shape[0] == B && out->shape[1] == W && out->grad == NULL);
                for (i = 0; i < B; i++) {
                    double z = log((double)t->data[i]) / 4;
                    if (keep) CHECK_CLOSE(out->data[i * W], z, OP_TOLERANCE);
                    for (k = 0; k < n; k++) {                    // the angle itself is rounded: its size counts
                        double angle = f_0 * pow(2, k) * z, tol = (IN_DOUBLE ? 1e-15 : 3e-7) * (1 + fabs(angle));
                        CHECK_CLOSE(out->data[i * W + keep + k], sin(angle), tol);
                        CHECK_CLOSE(out->data[i * W + keep + n + k], cos(angle), tol);
                    }
                }
            }
    }
    OP_MISUSE(ctm_time_features(&op_tape, op_matrix("tm", 3, 1), 4, 1, 0), "ctm_time_features", "\"tm\" [3,1]", "cannot want a gradient");
    OP_MISUSE(ctm_time_features(&op_tape, op_vector("tg", 3), 4, 1, 0), "ctm_time_features", "\"tg\" [3]", "cannot want a gradient");
    op_end();
}

// ---- distance and mean

static int op_distance_kind;
static ctm_tensor *op_do_distance(ctm_tape *tp, ctm_tensor **in) { return ctm_distance(tp, in[0], in[1], op_distance_kind, 0.3); }
static void test_op_distance(void) {
    enum { B = 5, D = 3 };
    ctm_tensor *in[2], *out, *back;
    int n, d;
    op_begin();
    in[0] = op_matrix("a", B, D); in[1] = op_matrix("b", B, D);
    for (d = 0; d < B * D; d++)                                  // L1 has a corner at a = b: stay away from it
        if (fabs((double)(in[0]->data[d] - in[1]->data[d])) < 0.2) in[0]->data[d] = in[1]->data[d] + (ctm_real)0.5;
    for (op_distance_kind = CTM_L2; op_distance_kind <= CTM_HUBER; op_distance_kind++) {
        out = op_do_distance(&op_tape, in);
        back = ctm_distance(&op_tape, in[1], in[0], op_distance_kind, 0.3);
        CHECK(out->ndim == 1 && out->shape[0] == B);
        for (n = 0; n < B; n++) {
            double sum = 0, abs_sum = 0, want;
            for (d = 0; d < D; d++) {
                double r = (double)in[0]->data[n * D + d] - (double)in[1]->data[n * D + d];
                sum += r * r;
                abs_sum += fabs(r);
            }
            want = op_distance_kind == CTM_L2 ? sum / D : op_distance_kind == CTM_L1 ? abs_sum / D : sqrt(sum + 0.09) - 0.3;
            CHECK_CLOSE(out->data[n], want, OP_TOLERANCE * (1 + want));
            CHECK(out->data[n] == back->data[n]);               // symmetric
        }
        op_check(op_distance_kind == CTM_L2 ? "distance L2" : op_distance_kind == CTM_L1 ? "distance L1" : "distance HUBER", 2, in, op_do_distance);
    }
    // Equal rows: distance and gradient are zero, whatever the kind.
    for (op_distance_kind = CTM_L2; op_distance_kind <= CTM_HUBER; op_distance_kind++) {
        memcpy(in[1]->data, in[0]->data, in[0]->len * sizeof(ctm_real));
        memset(in[0]->grad, 0, in[0]->len * sizeof(ctm_real));
        out = op_do_distance(&op_tape, in);
        for (n = 0; n < B; n++) { CHECK(out->data[n] == 0); out->grad[n] = 1; }
        ctm_backward_seeded(&op_tape, out);
        for (d = 0; d < B * D; d++) CHECK(in[0]->grad[d] == 0);
    }
    OP_MISUSE(ctm_distance(&op_tape, op_matrix("a", 3, 2), op_matrix("b", 2, 3), CTM_L2, 0), "ctm_distance", "\"a\" [3,2]", "\"b\" [2,3]");
    OP_MISUSE(ctm_distance(&op_tape, op_vector("va", 3), op_vector("vb", 3), CTM_L2, 0), "ctm_distance", "\"va\" [3]", "\"vb\" [3]");
    CHECK(PANICS(ctm_distance(&op_tape, op_matrix("a", 3, 2), op_matrix("b", 3, 2), 3, 0)));
    CHECK_TEXT(test_panic, "ctm_distance: 3 is no kind of distance");
    op_end();
}

static ctm_tensor *op_mean_w;
static ctm_tensor *op_do_mean(ctm_tape *tp, ctm_tensor **in) { return ctm_weighted_mean(tp, in[0], op_mean_w, 5); }
static ctm_tensor *op_do_mean_bare(ctm_tape *tp, ctm_tensor **in) { return ctm_weighted_mean(tp, in[0], NULL, 7); }
static void test_op_weighted_mean(void) {
    ctm_tensor *in[1], *out;
    double with_w = 0, bare = 0;
    int i;
    op_begin();
    in[0] = op_vector("d", 7);
    op_mean_w = op_constants("w", 7);
    for (i = 0; i < 7; i++) { with_w += (double)op_mean_w->data[i] * (double)in[0]->data[i] / 5; bare += (double)in[0]->data[i] / 7; }
    out = op_do_mean(&op_tape, in);
    CHECK(out->ndim == 0 && out->len == 1);
    CHECK_CLOSE(out->data[0], with_w, OP_TOLERANCE);
    CHECK_CLOSE(op_do_mean_bare(&op_tape, in)->data[0], bare, OP_TOLERANCE);
    op_check("weighted_mean", 1, in, op_do_mean);
    op_check("weighted_mean without w", 1, in, op_do_mean_bare);
    OP_MISUSE(ctm_weighted_mean(&op_tape, op_vector("d", 7), op_constants("w", 6), 7), "ctm_weighted_mean", "\"d\" [7]", "\"w\" [6]");
    OP_MISUSE(ctm_weighted_mean(&op_tape, op_vector("d", 7), op_vector("wg", 7), 7), "ctm_weighted_mean", "\"d\" [7]", "\"wg\" [7]");
    op_end();
}

// ---- the mixture's denoiser

static ctm_denoiser *op_mixture_D;
static ctm_tensor   *op_mixture_t;
static ctm_tensor *op_do_mixture(ctm_tape *tp, ctm_tensor **in) { return op_mixture_D->denoise(tp, op_mixture_D, in[0], op_mixture_t); }
// [eq:D_gmm]
static void test_op_mixture(void) {
    enum { B = 19, D = 2 };
    static const double mean[10] = {-0.7, 0.1, 0.6, 0.5, 0.2, -0.8, -0.1, 0.9, 0.8, -0.3}, weight[5] = {1, 2, 0.5, 3, 1};
    ctm_tensor *in[1], *out;
    ctm_arena keep;
    int isa, n, d, k, points;
    op_begin();
    ctm_arena_init(&keep, &op_ctx, "keep");
    for (points = 0; points < 2; points++) {                     // five Gaussians; five points (c = 0)
        op_mixture_D = points ? ctm_empirical(&keep, D, 5, mean) : ctm_mixture(&keep, D, 5, mean, weight, 0.2);
        CHECK(op_mixture_D->dim == D && strcmp(op_mixture_D->name, points ? "empirical" : "mixture") == 0);
        in[0] = op_matrix("x", B, D);
        op_mixture_t = ctm_vector(&op_tape, "t", B);
        for (n = 0; n < B; n++) op_mixture_t->data[n] = (ctm_real)(0.3 + 0.1 * n);
        for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
            if (!ctm_set_isa(&op_ctx, isa)) continue;
            out = op_do_mixture(&op_tape, in);
            for (n = 0; n < B; n++) {                            // the posterior mean, written out
                double t = (double)op_mixture_t->data[n], c2 = points ? 0 : 0.04, v = t * t + c2, sum = 0, m[2] = {0, 0}, x[2], exact[2];
                for (d = 0; d < D; d++) x[d] = (double)in[0]->data[n * D + d];
                for (k = 0; k < 5; k++) {
                    double p = (points ? 1 : weight[k]) * exp(-((x[0] - mean[2*k]) * (x[0] - mean[2*k]) + (x[1] - mean[2*k+1]) * (x[1] - mean[2*k+1])) / (2 * v));
                    sum += p;
                    m[0] += p * mean[2*k];
                    m[1] += p * mean[2*k+1];
                }
                op_mixture_D->exact(op_mixture_D, x, t, exact);
                for (d = 0; d < D; d++) {
                    double want = c2 / v * x[d] + t * t / v * m[d] / sum;
                    CHECK_CLOSE(out->data[n * D + d], want, 10 * OP_TOLERANCE);
                    CHECK_CLOSE(exact[d], want, 1e-13);
                }
            }
        }
        op_check(points ? "empirical" : "mixture", 1, in, op_do_mixture);
    }
    OP_MISUSE(op_mixture_D->denoise(&op_tape, op_mixture_D, op_matrix("x", 4, 3), op_constants("t", 4)), "mixture", "\"x\" [4,3]", "\"t\" [4]");
    OP_MISUSE(op_mixture_D->denoise(&op_tape, op_mixture_D, op_matrix("x", 4, 2), op_constants("t", 3)), "mixture", "\"x\" [4,2]", "\"t\" [3]");
    CHECK(PANICS(ctm_mixture(&keep, 2, 0, mean, NULL, 0.1)));
    CHECK(PANICS(ctm_mixture(&keep, 2, 2, mean, NULL, -0.1)));
    ctm_arena_free(&keep);
    op_end();
}

// ---- all together: two layers, FiLM, rows moved about, a loss

static ctm_tensor *op_do_composite(ctm_tape *tp, ctm_tensor **in) {
    static int some[3] = {3, 1, 1}, rows[3] = {0, 2, 3};
    ctm_tensor *x = in[0], *w = in[1], *film = in[2], *b = in[3], *h, *y, *z;
    h = ctm_concat(tp, x, ctm_scale(tp, x, 0.5));                                // [4,4]
    h = ctm_film_silu(tp, ctm_linear(tp, h, w, b), film, 0, NULL);               // [4,4]
    y = ctm_linear(tp, ctm_silu(tp, h), w, NULL);                                // w a second time
    z = ctm_scatter_rows(tp, ctm_mul(tp, y, h), ctm_gather_rows(tp, y, some, 3), rows);
    return ctm_weighted_mean(tp, ctm_distance(tp, ctm_square(tp, z), ctm_sub(tp, h, y), CTM_HUBER, 0.5), NULL, 4);
}
static void test_op_composite(void) {
    ctm_tensor *in[4];
    op_begin();
    in[0] = op_matrix("x", 4, 2); in[1] = op_matrix("w", 4, 4); in[2] = op_matrix("film", 4, 8); in[3] = op_vector("b", 4);
    op_check("a composite", 4, in, op_do_composite);
    op_end();
}

// The gradient check itself: it must see a wrong sign and a gradient of zero.
static ctm_tensor *op_do_wrong(ctm_tape *tp, ctm_tensor **in) { return tp->recording ? ctm_scale(tp, in[0], -1) : ctm_scale(tp, in[0], 1); }
static ctm_tensor *op_do_nothing(ctm_tape *tp, ctm_tensor **in) { return ctm_scale(tp, in[0], 0); }
static void test_op_check_can_fail(void) {
    ctm_tensor *in[1];
    const char *name = test_now.name;
    int failed_before = test_now.failed, wrong, nothing;
    op_begin();
    in[0] = op_vector("x", 3);
    test_now.failed = 100;                                       // silent: only the first five failures are printed
    op_check("a wrong sign", 1, in, op_do_wrong);
    wrong = test_now.failed > 100;
    test_now.failed = 100;
    op_check("nothing", 1, in, op_do_nothing);
    nothing = test_now.failed > 100;
    test_now.failed = failed_before;
    test_now.name = name;
    CHECK(wrong);
    CHECK(nothing);
    op_end();
}

// CTM_DEBUG's question, asked here of every operation: the tape keeps what the program did, in order.
static void test_op_on_the_tape(void) {
    ctm_tensor *x, *y;
    op_begin();
    x = op_matrix("x", 3, 2);
    y = ctm_silu(&op_tape, ctm_linear(&op_tape, x, op_matrix("w", 2, 4), op_vector("b", 4)));
    CHECK(op_tape.count == 2 && strcmp(op_tape.first->op, "linear") == 0 && op_tape.last == y && y->src[0] == op_tape.first);
    CHECK(op_tape.first->src[0] == x && strcmp(op_tape.first->src[1]->name, "w") == 0 && strcmp(op_tape.first->src[2]->name, "b") == 0);
    CHECK(y->saved != NULL);
    op_tape.recording = 0;
    y = ctm_silu(&op_tape, x);
    CHECK(y->saved == NULL && y->grad == NULL);                  // nothing is kept for a backward pass that will not come
    op_end();
}

// ---- ctm_result, ctm_done, ctm_gradcheck: what an operation of the user's own is made of
static int own_square_is;      // 2: right; 3: the gradient of another operation; 0: none
static void own_square_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_tensor *a = out->src[0];
    ctm_real *da = ctm_grad(tp, a);
    size_t i;
    for (i = 0; i < out->len; i++) da[i] += own_square_is * a->data[i] * out->grad[i];
}
static ctm_tensor *own_square(ctm_tape *tp, ctm_tensor *a) {
    ctm_tensor *out = ctm_result(tp, "own_square", a->ndim, a->shape, 1, &a, own_square_backward);
    size_t i;
    for (i = 0; i < out->len; i++) out->data[i] = a->data[i] * a->data[i];
    return ctm_done(out);
}
static ctm_tensor *own_sum(void *user, ctm_tape *tp, ctm_tensor *x) {        // sum of (x + x)², times what user says
    ctm_tensor *y = own_square(tp, ctm_add(tp, x, x));
    return ctm_scale(tp, ctm_weighted_mean(tp, ctm_reshape(tp, y, 1, (int)y->len, 0, 0, 0), NULL, 1), *(double *)user);
}
static void test_gradcheck(void) {
    const double h = IN_DOUBLE ? 1e-5 : 1e-2, small = IN_DOUBLE ? 1e-8 : 2e-3;
    double factor = 1;
    ctm_tensor *x, *other;
    size_t used, i;
    op_begin();
    x = op_matrix("x", 3, 2);
    other = ctm_square(&op_tape, op_matrix("other", 2, 2));                  // what is on the tape already
    used = op_arena.used;
    own_square_is = 2;
    CHECK(ctm_gradcheck(&op_tape, own_sum, &factor, x, h) < small);
    for (i = 0; i < x->len; i++) CHECK_CLOSE(x->grad[i], 8 * x->data[i], small * 10);
    CHECK(ctm_gradcheck(&op_tape, own_sum, &factor, x, h) < small);          // gradients start from zero again
    CHECK(op_tape.last == other && op_tape.count == 1 && op_tape.recording == 1 && op_arena.used == used);
    own_square_is = 3;
    CHECK_CLOSE(ctm_gradcheck(&op_tape, own_sum, &factor, x, h), 1.0 / 3, 0.01);     // 12 for 8, over 12
    own_square_is = 0;
    CHECK_CLOSE(ctm_gradcheck(&op_tape, own_sum, &factor, x, h), 1, 0.01);
    own_square_is = 2;
    factor = 0;
    CHECK(ctm_gradcheck(&op_tape, own_sum, &factor, x, h) == 1);             // all zero: nothing was checked
    factor = 1;
    x->data[4] = base_real_nan();
    CHECK(ctm_gradcheck(&op_tape, own_sum, &factor, x, h) == 1e30);
    x->grad = NULL;
    CHECK(PANICS(ctm_gradcheck(&op_tape, own_sum, &factor, x, h)));
    CHECK_TEXT(test_panic, "the leaf \"x\" has no gradient");
    CHECK(PANICS(ctm_result(&op_tape, "many", 0, NULL, 9, NULL, NULL)));
    CHECK_TEXT(test_panic, "\"many\" has 9 inputs, but room for 8");
    op_end();
}

static void run_operations(void) {
    RUN(op_add);
    RUN(op_sub);
    RUN(op_mul);
    RUN(op_scale);
    RUN(op_square);
    RUN(op_linear);
    RUN(op_silu);
    RUN(op_film_silu);
    RUN(op_concat);
    RUN(op_gather_rows);
    RUN(op_scatter_rows);
    RUN(op_mix_rows);
    RUN(op_time_features);
    RUN(op_distance);
    RUN(op_weighted_mean);
    RUN(op_mixture);
    RUN(op_composite);
    RUN(op_check_can_fail);
    RUN(op_on_the_tape);
    RUN(gradcheck);
}
