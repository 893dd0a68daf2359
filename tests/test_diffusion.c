// Chapters 11-15: noise levels and preconditioning, exact denoisers, solvers, the jump, the laws of the times.
// invariant_NN in a test's name is invariant NN of section 14 of the fact sheet that this project is written from.
#include "golden.h"

// ---- what all tests of these four files share -----------------------------------------------------------------------

// A context, an arena for what stays (networks, denoisers), and a tape with an arena of its own.
typedef struct room {
    ctm_ctx   ctx;
    ctm_arena keep, work;
    ctm_tape  tape;
} room;

static void room_open(room *r) {
    ctm_init(&r->ctx);
    ctm_arena_init(&r->keep, &r->ctx, "keep");
    ctm_arena_init(&r->work, &r->ctx, "work");
    ctm_tape_init(&r->tape, &r->ctx, &r->work);
}
static void room_close(room *r) {
    ctm_arena_free(&r->keep);
    ctm_arena_free(&r->work);
}

static double larger(double a, double b) { return a > b ? a : b; }
static double rounding(double in_float, double in_double) { return IN_DOUBLE ? in_double : in_float; }   // a tolerance of either build

static ctm_tensor *matrix_of(ctm_tape *tp, const char *name, int rows, int cols, const double *v) {
    ctm_tensor *x = ctm_matrix(tp, name, rows, cols);
    size_t i;
    for (i = 0; i < x->len; i++) x->data[i] = (ctm_real)v[i];
    return x;
}
static ctm_tensor *vector_of(ctm_tape *tp, const char *name, int n, const double *v) {
    ctm_tensor *x = ctm_vector(tp, name, n);
    int i;
    for (i = 0; i < n; i++) x->data[i] = (ctm_real)v[i];
    return x;
}
static ctm_tensor *levels(ctm_tape *tp, const char *name, int n, double t) { return ctm_fill(ctm_vector(tp, name, n), t); }

// [rows,dim] numbers x_0 + t·eps of some fixed stream.
static ctm_tensor *noised(ctm_tape *tp, const char *stream, const ctm_tensor *t, int dim, double size) {
    ctm_rng rng = ctm_stream(99, stream);
    ctm_tensor *x = ctm_matrix(tp, "x", t->shape[0], dim);
    size_t i;
    for (i = 0; i < x->len; i++) {
        double level = (double)t->data[i / (size_t)dim];
        x->data[i] = (ctm_real)(size * ctm_normal(&rng, 0, 2 * i) + level * ctm_normal(&rng, 0, 2 * i + 1));
    }
    return x;
}

static int same_bits(const ctm_real *a, const ctm_real *b, size_t n) { return memcmp(a, b, n * sizeof(ctm_real)) == 0; }

// An untrained film network with weights large enough to matter, s-branch included.
static ctm_net *wild_net(ctm_arena *a, int dim, int with_s, uint64_t seed) {
    ctm_config cfg = golden_net_config();
    ctm_net *net;
    cfg.seed = seed;
    net = ctm_mlp(a, &cfg, dim, with_s);
    ctm_net_init(net, seed, 1);
    return net;
}

// Gaussian data N(m, c²): closed forms of the flow and the denoiser (fact sheet, section 13).
static double gauss_G(double x, double t, double s, double m, double c) { return m + (x - m) * sqrt((s * s + c * c) / (t * t + c * c)); }
static double gauss_D(double x, double t, double m, double c) { return m + (x - m) * c * c / (t * t + c * c); }

// A network without weights that is the exact flow of N(0, 0.5²) in any dimension: g = k(t,s)·x, with the inner form `none`, so
// that F = g. It sees c_in(t)·x, so F is its input times k/c_in.
static double gauss_slope(double t, double s) {
    double c = 0.5, r = sqrt((s * s + c * c) / (t * t + c * c));
    return s < t ? (r - s / t) / ((t - s) / t) : c * c / (t * t + c * c);
}
static ctm_tensor *gauss_forward(ctm_tape *tp, ctm_net *net, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    ctm_tensor *k = ctm_vector(tp, "k", t->shape[0]);
    int i;
    for (i = 0; i < t->shape[0]; i++) {
        double level = (double)t->data[i];
        k->data[i] = (ctm_real)(gauss_slope(level, (double)(s ? s : t)->data[i]) / ctm_c_in(&net->noise, level));
    }
    return ctm_mix_rows(tp, k, x, NULL, NULL);
}
static ctm_net *gauss_net(ctm_arena *a, int dim) {
    ctm_noise z = ctm_noise_default();
    ctm_net *net;
    z.inner = CTM_INNER_NONE;
    net = ctm_net_new(a, "gauss", &z, dim, 1);
    ctm_net_ready(a, net);
    net->forward = gauss_forward;
    return net;
}

// A mixture whose components have each their own std, as the golden files want: the tests' own second opinion, in double.
typedef struct wide_mixture { int K; const double *mean, *std, *weight; } wide_mixture;

static double wide_parts(const wide_mixture *m, int dim, const double *x, double t, double *D) {
    double top = -1e300, sum = 0;
    int k, d, pass;
    if (D) for (d = 0; d < dim; d++) D[d] = 0;
    for (pass = 0; pass < 2; pass++)
        for (k = 0; k < m->K; k++) {
            double v = m->std[k] * m->std[k] + t * t, q = 0, l;
            for (d = 0; d < dim; d++) q += (x[d] - m->mean[k * dim + d]) * (x[d] - m->mean[k * dim + d]);
            l = log(m->weight[k]) - q / (2 * v) - 0.5 * dim * log(2 * 3.14159265358979324 * v);
            if (pass == 0) { top = larger(top, l); continue; }
            l = exp(l - top);
            sum += l;
            if (D) for (d = 0; d < dim; d++) D[d] += l * (m->mean[k * dim + d] + m->std[k] * m->std[k] / v * (x[d] - m->mean[k * dim + d]));
        }
    if (D) for (d = 0; d < dim; d++) D[d] /= sum;
    return top + log(sum);
}
static void wide_exact(const ctm_denoiser *self, const double *x, double t, double *D) {
    wide_parts((const wide_mixture *)self->impl, self->dim, x, t, D);
}
static double wide_log_density(const ctm_denoiser *self, const double *x, double t) {
    return wide_parts((const wide_mixture *)self->impl, self->dim, x, t, NULL);
}
static ctm_tensor *wide_denoise(ctm_tape *tp, const ctm_denoiser *self, ctm_tensor *x, ctm_tensor *t) {
    ctm_tensor *out = ctm_matrix(tp, "D", x->shape[0], self->dim);
    double in[8], D[8];
    int n, d;
    for (n = 0; n < x->shape[0]; n++) {
        for (d = 0; d < self->dim; d++) in[d] = (double)x->data[n * self->dim + d];
        wide_exact(self, in, (double)t->data[n], D);
        for (d = 0; d < self->dim; d++) out->data[n * self->dim + d] = (ctm_real)D[d];
    }
    return out;
}
static ctm_denoiser wide_denoiser(wide_mixture *m, int dim) {
    ctm_denoiser D;
    memset(&D, 0, sizeof D);
    D.name = "wide mixture";
    D.dim = dim;
    D.impl = m;
    D.denoise = wide_denoise;
    D.exact = wide_exact;
    D.log_density = wide_log_density;
    return D;
}

// 1-D mixtures: F_t, and the flow as F_s^{-1}(F_t(x)) by bisection; the upper tail is used where it is the smaller one.
static double wide_tail(const wide_mixture *m, double x, double t, int upper) {
    double sum = 0;
    int k;
    for (k = 0; k < m->K; k++) {
        double z = (x - m->mean[k]) / sqrt(2 * (m->std[k] * m->std[k] + t * t));
        sum += m->weight[k] * 0.5 * erfc(upper ? z : -z);
    }
    return sum;
}
static double flow_by_quantiles(const wide_mixture *m, double x, double t, double s) {
    int upper = wide_tail(m, x, t, 1) < 0.5, i;
    double p = wide_tail(m, x, t, upper), lo = -1000, hi = 1000;
    for (i = 0; i < 200; i++) {
        double mid = 0.5 * (lo + hi), q = wide_tail(m, mid, s, upper);
        if ((q < p) == !upper) lo = mid; else hi = mid;
    }
    return 0.5 * (lo + hi);
}

static const double mean_A[2] = {-1.5, 1.5}, std_A[2] = {0.3, 0.3}, weight_A[2] = {0.5, 0.5};
static const double mean_B[2] = {-1.5, 1.5}, std_B[2] = {0.3, 0.2}, weight_B[2] = {0.7, 0.3};

static double flow_1d(room *r, const ctm_denoiser *D, double x, double t, double s) {
    double y;
    ctm_exact_flow(&r->ctx, D, 1, &x, t, 1, &s, 1e-11, &y);
    return y;
}

// The ring of eight Gaussians.
static ctm_denoiser *ring(ctm_arena *a) {
    double mean[16];
    int k;
    for (k = 0; k < 8; k++) { mean[2 * k] = 0.7 * cos(k * 0.785398163397448); mean[2 * k + 1] = 0.7 * sin(k * 0.785398163397448); }
    return ctm_mixture(a, 2, 8, mean, NULL, 0.05);
}

// ---- chapter 11: the grid -------------------------------------------------------------------------------------------

// [eq:karras_grid] t_0 = 80, t_{N-1} = .002, strictly decreasing, the tables to 6 digits.
static void test_grid_falls_from_80_to_0002_as_in_the_tables(void) {
    static const double grid_18[18] = {80, 57.585985, 40.785574, 28.374585, 19.352453, 12.910082, 8.400935, 5.315195, 3.256822, 1.923340,
                                       1.088171, .585348, .296442, .139516, .059947, .022935, .007528, .002};
    static const double ends_40[6] = {80, 69.450946, 60.117395, .006437, .003677, .002};
    golden_file *g = golden_open("schedule");
    ctm_noise z = ctm_noise_default();
    double t[40];
    int i;
    CHECK(z.N == 18 && z.sigma_min == 0.002 && z.sigma_max == 80 && z.sigma_data == 0.5 && z.rho == 7);
    for (i = 0; i < 18; i++) {
        t[i] = ctm_t_of_index(&z, i);
        CHECK_CLOSE(t[i], grid_18[i], 5.1e-7);
        CHECK_CLOSE(ctm_index_of_t(&z, t[i]), i, 1e-9);
        if (i) CHECK(t[i] < t[i - 1]);
    }
    CHECK(t[0] == 80 && t[17] == 0.002);                                         // the ends exactly
    golden_check_double(g, "out.grid_18", t, 18, 1e-13);
    {
        ctm_noise even = z;                                                      // a large rho: even in ln t
        even.rho = 1e5;
        for (i = 0; i < 18; i++) {
            CHECK_CLOSE(log(ctm_t_of_index(&even, i)), log(80.) + i / 17. * log(0.002 / 80), 1e-3);
            CHECK_CLOSE(ctm_index_of_t(&even, ctm_t_of_index(&even, i)), i, 1e-8);
        }
    }
    ctm_karras_times(&z, 40, t);
    golden_check_double(g, "out.grid_40", t, 40, 1e-13);
    for (i = 0; i < 3; i++) { CHECK_CLOSE(t[i], ends_40[i], 5.1e-7); CHECK_CLOSE(t[37 + i], ends_40[3 + i], 5.1e-7); }
    for (i = 1; i < 40; i++) CHECK(t[i] < t[i - 1]);
    ctm_karras_times(&z, 3, t);                                                  // section 6.4: few jumps
    CHECK_CLOSE(t[1], 2.5152189761, 1e-9);
    ctm_karras_times(&z, 5, t);
    CHECK_CLOSE(t[1], 17.5278319646, 1e-9);
    CHECK_CLOSE(t[3], .1697527563, 1e-9);
    golden_close(g);
}

// [eq:karras_grid] get_t(0) = 80, get_t(1) = .002, get_t(i/(N-1)) is the grid; fractional indices are the substeps' ends.
static void test_fractional_indices_are_the_ends_of_substeps(void) {
    golden_file *g = golden_open("schedule");
    ctm_noise z = ctm_noise_default();
    size_t n, i;
    const double *x = golden(g, "in.continuous", &n), *f, *want;
    double t[64];
    for (i = 0; i < n; i++) t[i] = ctm_t_of_index(&z, x[i] * (z.N - 1));
    CHECK(t[0] == 80 && t[n - 1] == 0.002);
    want = golden(g, "out.continuous", NULL);
    for (i = 0; i < n; i++) CHECK_CLOSE(t[i] / want[i], 1, 1e-12);
    f = golden(g, "in.fractional_index", &n);
    want = golden(g, "out.substeps", NULL);
    for (i = 0; i < n; i++) {
        CHECK_CLOSE(ctm_t_of_index(&z, f[i]) / want[i], 1, 1e-12);
        CHECK_CLOSE(ctm_index_of_t(&z, ctm_t_of_index(&z, f[i])), f[i], 1e-9);
    }
    golden_close(g);
}

// Against the golden tables: [eq:edm] [eq:weights], every row by its own size.
static void check_column(golden_file *g, const char *name, const double *got, double tolerance) {
    size_t n, i;
    const double *want = golden(g, name, &n);
    for (i = 0; i < n; i++) golden_compare(g, name, i, got[i], want[i], tolerance * larger(fabs(want[i]), 1e-3));
}
static void test_schedule_golden(void) {
    static const char *const inner[3] = {"edm", "cm", "no"};
    static const struct { const char *name; ctm_weight_fn weight; } weight[6] = {
        {"uniform", ctm_weight_uniform}, {"snr", ctm_weight_snr}, {"karras", ctm_weight_karras}, {"karras_weight", ctm_weight_karras},
        {"truncated-snr", ctm_weight_truncated_snr}, {"uniform_g", ctm_weight_uniform_g}};
    golden_file *g = golden_open("schedule");
    ctm_noise z = ctm_noise_default();
    size_t n, i;
    const double *t = golden(g, "in.t", &n), *s = golden(g, "in.s", NULL), *strict = golden(g, "in.s_strict", NULL);
    double a[64], b[64], m = golden_number(g, "uniform_g_multiplier");
    char name[64];
    int k;
    for (i = 0; i < n; i++) a[i] = ctm_c_in(&z, t[i]);
    check_column(g, "out.c_in", a, 1e-12);
    for (k = 0; k < 3; k++) {
        z.inner = k;
        for (i = 0; i < n; i++) ctm_inner_scalings(&z, t[i], &a[i], &b[i]);
        snprintf(name, sizeof name, "out.inner.%s.c_skip", inner[k]);
        check_column(g, name, a, 1e-12);
        snprintf(name, sizeof name, "out.inner.%s.c_out", inner[k]);
        check_column(g, name, b, 1e-12);
    }
    for (i = 0; i < n; i++) { a[i] = s[i] / t[i]; b[i] = (t[i] - s[i]) / t[i]; }
    check_column(g, "out.outer.euler.C_skip", a, 1e-12);
    check_column(g, "out.outer.euler.C_out", b, 1e-12);
    for (k = 0; k < 6; k++) {
        for (i = 0; i < n; i++) a[i] = weight[k].weight(&z, t[i], strict[i]);
        if (weight[k].weight == ctm_weight_uniform_g) for (i = 0; i < n; i++) a[i] = pow(a[i], m);   // the oracle raises it to a power
        snprintf(name, sizeof name, "out.weight.%s", weight[k].name);
        check_column(g, name, a, 1e-12);
    }
    golden_close(g);
}

// [eq:edm] c_skip²(t²+sd²) + c_out² = sd²; karras_weight·c_out² = 1; c_in²(t²+sd²) = 1.
static void test_edm_scalings_keep_their_identities(void) {
    ctm_noise z = ctm_noise_default();
    double t, skip, out;
    for (t = 0.002; t < 81; t *= 1.3) {
        ctm_inner_scalings(&z, t, &skip, &out);
        CHECK_CLOSE(skip * skip * (t * t + 0.25) + out * out, 0.25, 1e-14);
        CHECK_CLOSE(ctm_weight_karras(&z, t, t) * out * out, 1, 1e-12);
        CHECK_CLOSE(ctm_c_in(&z, t) * ctm_c_in(&z, t) * (t * t + 0.25), 1, 1e-14);
    }
    CHECK_CLOSE(ctm_weight_karras(&z, 0.002, 0.002), 250004, 1e-6);
    z.inner = CTM_INNER_CM;                                                      // cm: g = x at sigma_min
    ctm_inner_scalings(&z, 0.002, &skip, &out);
    CHECK(skip == 1 && out == 0);
}

// ---- chapter 13: the parametrisation --------------------------------------------------------------------------------

// [eq:G] G(x,t,t) = x bit for bit, for any weights, alone or among rows that move.
static void test_jump_to_its_own_level_is_the_identity(void) {
    static const double level[9] = {80, 57.585985, 12.91, 3, 1, 0.7, 0.1, 0.0123, 0.002};
    room r;
    ctm_net *net;
    ctm_tensor *t, *s, *x, *y;
    int i;
    room_open(&r);
    net = wild_net(&r.keep, 3, 1, 5);
    t = vector_of(&r.tape, "t", 9, level);
    x = noised(&r.tape, "no jump", t, 3, 0.5);
    y = ctm_G_theta(&r.tape, net, x, t, t);
    CHECK(same_bits(x->data, y->data, x->len));
    s = vector_of(&r.tape, "s", 9, level);
    for (i = 0; i < 9; i += 2) s->data[i] = (ctm_real)0.002;                     // row 8 has t = s = .002
    y = ctm_G_theta(&r.tape, net, x, t, s);
    for (i = 0; i < 9; i++) CHECK(same_bits(x->data + 3 * i, y->data + 3 * i, 3) == (i % 2 == 1 || i == 8));
    room_close(&r);
}

// [eq:G] g = (G - (s/t)x)/(1 - s/t) away from s = t.
static void test_g_is_recovered_from_G(void) {
    static const double t_[6] = {80, 80, 5, 2, 0.5, 0.004}, s_[6] = {0.002, 5, 1, 0.002, 0.1, 0.002};
    room r;
    ctm_net *net;
    ctm_tensor *t, *s, *x, *G, *g;
    int i, d;
    room_open(&r);
    net = wild_net(&r.keep, 2, 1, 6);
    t = vector_of(&r.tape, "t", 6, t_);
    s = vector_of(&r.tape, "s", 6, s_);
    x = noised(&r.tape, "g from G", t, 2, 0.5);
    G = ctm_G_theta(&r.tape, net, x, t, s);
    g = ctm_g_theta(&r.tape, net, x, t, s);
    for (i = 0; i < 6; i++)
        for (d = 2 * i; d < 2 * i + 2; d++) {
            double q = s_[i] / t_[i];
            CHECK_CLOSE(((double)G->data[d] - q * (double)x->data[d]) / (1 - q), g->data[d], rounding(2e-6, 1e-13) * larger(1, fabs((double)x->data[d])));
        }
    CHECK(strcmp(G->name, "G") == 0 && strcmp(g->name, "g") == 0);
    room_close(&r);
}

// A network whose F is a constant.
static ctm_tensor *constant_forward(ctm_tape *tp, ctm_net *net, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    (void)t; (void)s;
    return ctm_fill(ctm_matrix(tp, "F", x->shape[0], net->dim), net->iconf[0]);
}
static ctm_net *constant_net(ctm_arena *a, int dim, int value) {
    ctm_noise z = ctm_noise_default();
    ctm_net *net = ctm_net_new(a, "constant", &z, dim, 1);
    ctm_net_ready(a, net);
    net->forward = constant_forward;
    net->iconf[0] = value;
    return net;
}

// [eq:g] [eq:G] With F = 0, edm: D = c_skip·x and G = x·(s/t + (1 - s/t)·c_skip). G is affine in F, dG/dF = (1-s/t)·c_out.
static void test_zero_network_gives_c_skip_and_the_slope(void) {
    room r;
    double t, s, skip, out, tol = rounding(1e-6, 1e-13);
    ctm_net *zero, *one, *three;
    room_open(&r);
    zero = constant_net(&r.keep, 1, 0);
    one = constant_net(&r.keep, 1, 1);
    three = constant_net(&r.keep, 1, 3);
    for (t = 0.003; t < 80; t *= 2.7)
        for (s = 0.002; s < t; s *= 3.1) {
            ctm_tensor *x = ctm_fill(ctm_matrix(&r.tape, "x", 1, 1), 1.25), *tt = levels(&r.tape, "t", 1, t), *ss = levels(&r.tape, "s", 1, s);
            double G0 = (double)ctm_G_theta(&r.tape, zero, x, tt, ss)->data[0], G1 = (double)ctm_G_theta(&r.tape, one, x, tt, ss)->data[0];
            double G3 = (double)ctm_G_theta(&r.tape, three, x, tt, ss)->data[0];
            ctm_inner_scalings(&zero->noise, t, &skip, &out);
            CHECK_CLOSE(ctm_D_theta(&r.tape, zero, x, tt)->data[0], skip * 1.25, tol);
            CHECK_CLOSE(G0, 1.25 * (s / t + (1 - s / t) * skip), tol);
            CHECK_CLOSE(G1 - G0, (1 - s / t) * out, tol);
            CHECK_CLOSE(G3 - G0, 3 * (1 - s / t) * out, tol);
            ctm_tape_reset(&r.tape);
        }
    room_close(&r);
}

// [eq:G] The euler form with g replaced by the denoiser is one Euler step x + (s-t)(x-D)/t.  [eq:pf_ode]
static void test_G_with_the_denoiser_is_one_euler_step(void) {
    room r;
    ctm_denoiser *D;
    double t = 3, s = 0.7, from = 0, to = 1, x_[2] = {1.1, -2.3}, d[2];
    ctm_noise z = ctm_noise_default();
    ctm_tensor *y;
    int i;
    room_open(&r);
    D = ring(&r.keep);
    D->exact(D, x_, t, d);
    z.sigma_max = t; z.sigma_min = s; z.N = 2;                                   // a grid of the two levels alone
    y = ctm_solve(&r.tape, D, &z, CTM_EULER, matrix_of(&r.tape, "x", 1, 2, x_), &from, &to, 1);
    for (i = 0; i < 2; i++) {
        double G = s / t * x_[i] + (1 - s / t) * d[i];
        CHECK_CLOSE(G, x_[i] + (s - t) * (x_[i] - d[i]) / t, 1e-14);
        CHECK_CLOSE(y->data[i], G, rounding(1e-6, 1e-13));
    }
    room_close(&r);
}

// [eq:D_from_g] The denoiser recovered from g makes dG/ds at s = t equal (x - D)/t.
static void test_slope_of_G_in_s_gives_the_denoiser(void) {
    static const double level[5] = {60, 5, 1, 0.2, 0.01};
    room r;
    ctm_net *net;
    ctm_tensor *t, *s1, *s2, *x, *D, *G1, *G2;
    double h = IN_DOUBLE ? 1e-4 : 4e-3;                                          // share of t
    int i, d;
    room_open(&r);
    net = wild_net(&r.keep, 2, 1, 7);
    t = vector_of(&r.tape, "t", 5, level);
    s1 = vector_of(&r.tape, "s1", 5, level);
    s2 = vector_of(&r.tape, "s2", 5, level);
    x = noised(&r.tape, "recovery", t, 2, 0.5);
    for (i = 0; i < 5; i++) {
        s1->data[i] = t->data[i] * (ctm_real)(1 - h);
        s2->data[i] = t->data[i] * (ctm_real)(1 - 2 * h);
    }
    D = ctm_D_theta(&r.tape, net, x, t);
    G1 = ctm_G_theta(&r.tape, net, x, t, s1);
    G2 = ctm_G_theta(&r.tape, net, x, t, s2);
    for (i = 0; i < 5; i++)
        for (d = 2 * i; d < 2 * i + 2; d++) {                                    // t·dG/ds by the one-sided formula of second order
            double slope = (3 * (double)x->data[d] - 4 * (double)G1->data[d] + (double)G2->data[d]) / (2 * h);
            CHECK_CLOSE((double)x->data[d] - slope, D->data[d], rounding(4e-3, 1e-5) * larger(1, fabs((double)x->data[d])));
        }
    room_close(&r);
}

// [eq:G] The outer jump at s = sigma_min changes nothing, and its Jacobian is the identity.
static void test_jump_from_the_end_is_the_identity_and_so_is_its_gradient(void) {
    static const double s_[4] = {0.002, 1, 0.002, 0.3};
    room r;
    ctm_net *net;
    ctm_tensor *x, *s, *zero, *y;
    size_t i;
    room_open(&r);
    net = ctm_net_clone(&r.keep, wild_net(&r.keep, 2, 1, 8));                    // frozen, like an EMA
    s = vector_of(&r.tape, "s", 4, s_);
    zero = levels(&r.tape, "zero", 4, 0.002);
    x = ctm_wants_grad(&r.tape, noised(&r.tape, "outer", s, 2, 0.5));
    y = ctm_G_theta(&r.tape, net, x, s, zero);
    for (i = 0; i < y->len; i++) y->grad[i] = (ctm_real)(0.25 * (double)(i + 1));
    ctm_backward_seeded(&r.tape, y);
    for (i = 0; i < y->len; i++)
        if (i / 2 % 2 == 0) {
            CHECK(y->data[i] == x->data[i]);
            CHECK(x->grad[i] == (ctm_real)(0.25 * (double)(i + 1)));
        } else {
            CHECK(y->data[i] != x->data[i]);
            CHECK(x->grad[i] != 0 && x->grad[i] != (ctm_real)(0.25 * (double)(i + 1)));
        }
    CHECK(ctm_G_theta(&r.tape, net, x, zero, zero) == x);
    room_close(&r);
}

// g, D, G, denoiser, score and teacher of both networks with all three scalings, against the oracle.
// [eq:g] [eq:G] [eq:D_from_g] [eq:tweedie] [eq:edm] [eq:film]
static void check_param_file(const char *kind) {
    static const char *const inner[3] = {"edm", "cm", "no"};
    char file[32], name[64];
    golden_file *g;
    room r;
    ctm_net *net, *teacher;
    ctm_tensor *x, *t, *s, *D, *G, *gg;
    ctm_denoiser *as_denoiser;
    int a;
    snprintf(file, sizeof file, "param_%s", kind);
    g = golden_open(file);
    room_open(&r);
    net = golden_net(&r.keep, g, kind, "w.net.", 1);
    teacher = golden_net(&r.keep, g, kind, "w.teacher.", 0);
    for (a = 0; a < 3; a++) {
        x = golden_tensor(&r.tape, g, "in.x");
        t = golden_tensor(&r.tape, g, "in.t");
        s = golden_tensor(&r.tape, g, "in.s");
        net->noise.inner = a;
        gg = ctm_g_theta(&r.tape, net, x, t, s);
        G = ctm_G_theta(&r.tape, net, x, t, s);
        snprintf(name, sizeof name, "out.g.%s", inner[a]);
        golden_check(g, name, gg->data, gg->len);
        golden_check_rows(g, name, gg->data, gg->len);
        snprintf(name, sizeof name, "out.G.%s.euler", inner[a]);
        golden_check(g, name, G->data, G->len);
        golden_check_rows(g, name, G->data, G->len);
        snprintf(name, sizeof name, "out.D.%s.euler", inner[a]);
        golden_check(g, name, gg->data, gg->len);                                // the file's D uses g at (t,s)
        gg = ctm_g_theta(&r.tape, net, x, t, t);                                 // and ctm_D_theta is that formula at s = t
        D = ctm_D_theta(&r.tape, net, x, t);
        CHECK(same_bits(D->data, gg->data, D->len));
        ctm_tape_reset(&r.tape);
    }
    net->noise = ctm_noise_default();
    x = golden_tensor(&r.tape, g, "in.x");
    t = golden_tensor(&r.tape, g, "in.t");
    D = ctm_D_theta(&r.tape, net, x, t);
    golden_check(g, "out.denoiser", D->data, D->len);
    golden_check_rows(g, "out.denoiser", D->data, D->len);
    D = ctm_score(&r.tape, ctm_net_denoiser(&r.keep, net), x, t);
    golden_check(g, "out.score", D->data, D->len);
    golden_check_rows(g, "out.score", D->data, D->len);
    D = ctm_D_theta(&r.tape, teacher, x, t);
    golden_check(g, "out.teacher", D->data, D->len);
    golden_check_rows(g, "out.teacher", D->data, D->len);
    as_denoiser = ctm_net_denoiser(&r.keep, teacher);
    D = as_denoiser->denoise(&r.tape, as_denoiser, x, t);
    golden_check(g, "out.teacher", D->data, D->len);
    room_close(&r);
    golden_close(g);
}
static void test_param_golden_concat(void) { check_param_file("concat"); }
static void test_param_golden_film(void) { check_param_file("film"); }

static void test_jump_refuses_what_cannot_be(void) {
    static const double up_t[2] = {1, 2}, up_s[2] = {0.5, 3};
    room r;
    ctm_net *net, *teacher;
    ctm_tensor *x, *t, *s;
    room_open(&r);
    net = wild_net(&r.keep, 2, 1, 9);
    teacher = wild_net(&r.keep, 2, 0, 9);
    t = vector_of(&r.tape, "t", 2, up_t);
    s = vector_of(&r.tape, "s", 2, up_s);
    x = ctm_matrix(&r.tape, "x", 2, 2);
    CHECK(PANICS(ctm_G_theta(&r.tape, net, x, t, s)));
    CHECK_TEXT(test_panic, "row 1 would jump up, from 2 to 3");
    CHECK(PANICS(ctm_G_theta(&r.tape, net, x, t, ctm_vector(&r.tape, "zero", 2))));
    CHECK_TEXT(test_panic, "row 0 would jump to 0, but the network's time zero is sigma_min = 0.002");
    CHECK(PANICS(ctm_G_theta(&r.tape, teacher, x, t, t)));
    CHECK_TEXT(test_panic, "without s cannot jump");
    CHECK(PANICS(ctm_g_theta(&r.tape, net, ctm_matrix(&r.tape, "points", 2, 3), t, s)));
    CHECK_TEXT(test_panic, "x must be [B,2], t [B]");
    CHECK_TEXT(test_panic, "\"points\" [2,3]");
    CHECK(PANICS(ctm_g_theta(&r.tape, net, x, t, NULL)));
    CHECK_TEXT(test_panic, "needs s");
    CHECK(PANICS(ctm_flow_jump(&r.keep, ctm_net_denoiser(&r.keep, net), &net->noise)));
    CHECK_TEXT(test_panic, "has no exact formula");
    room_close(&r);
}

// ---- chapter 11: exact denoisers ------------------------------------------------------------------------------------

// [eq:D_gmm] [eq:flow] Gaussian data: exact flow, denoiser and g against the closed form, and the values of section 13.
static void test_gaussian_flow_has_its_closed_form(void) {
    static const double v[5][4] = {{1, 2, 1, .542326144547}, {1, 2, .5, .342997170285}, {1, 2, .002, .242537565314},
                                   {80, 80, .002, .499994234567}, {.7, .5, .1, .504777178565}};
    room r;
    ctm_denoiser *D, *M;
    double zero = 0, m = 0.3, t, D1, G;
    int i;
    room_open(&r);
    D = ctm_mixture(&r.keep, 1, 1, &zero, NULL, 0.5);
    for (i = 0; i < 5; i++) {
        CHECK_CLOSE(gauss_G(v[i][0], v[i][1], v[i][2], 0, 0.5), v[i][3], 1e-12);
        CHECK_CLOSE(flow_1d(&r, D, v[i][0], v[i][1], v[i][2]), v[i][3], 1e-9);
    }
    G = flow_1d(&r, D, 1, 2, 1);
    CHECK_CLOSE((G - 0.5) / 0.5, .084652289093, 1e-8);                           // g(1,2,1)
    G = flow_1d(&r, D, .7, .5, .1);
    CHECK_CLOSE((G - 0.2 * .7) / 0.8, .455971473206, 1e-8);
    t = .7;
    D->exact(D, &t, .5, &D1);
    CHECK_CLOSE(D1, 0.35, 1e-15);
    M = ctm_mixture(&r.keep, 1, 1, &m, NULL, 0.2);                               // with a mean
    for (t = 0.01; t < 80; t *= 4) {
        double x = m + 1.3 * t;
        CHECK_CLOSE(flow_1d(&r, M, x, t, 0.002), gauss_G(x, t, 0.002, m, 0.2), 1e-9);
        M->exact(M, &x, t, &D1);
        CHECK_CLOSE(D1, gauss_D(x, t, m, 0.2), 1e-13);
        CHECK_CLOSE(M->log_density(M, &x, t), -(x - m) * (x - m) / (2 * (t * t + .04)) - 0.5 * log(2 * 3.14159265358979324 * (t * t + .04)), 1e-12);
    }
    room_close(&r);
}

// [eq:flow] 1-D mixtures: the flow is F_s^{-1}(F_t(x)); the values of section 13.
static void test_mixture_flow_has_the_recorded_values(void) {
    static const double a[9][4] = {{1, 2, 1, .9625039774}, {1, 2, .5, 1.1844003393}, {1, 2, .002, 1.3376198991}, {1, 80, .002, .8017586327},
                                   {40, 80, .002, 1.4106050769}, {120, 80, .002, 1.8327486468}, {-.2, .5, .002, -.8140624202},
                                   {.7, .5, .1, 1.0659751611}, {.7, .5, .499, .7011671425}};
    static const double b[4][4] = {{1, 2, .5, .9403500088}, {1, 2, .002, 1.2921122151}, {40, 80, .002, -.7835847606}, {0, .5, .002, -.7018819426}};
    static const double d[3][3] = {{1, 2, .5371307069}, {-.2, .5, -.8333780727}, {.7, .5, 1.2836615293}};
    room r;
    wide_mixture A, B;
    ctm_denoiser *D, WB;
    double y, x, t;
    int i;
    A.K = B.K = 2;
    A.mean = mean_A; A.std = std_A; A.weight = weight_A;
    B.mean = mean_B; B.std = std_B; B.weight = weight_B;
    room_open(&r);
    D = ctm_mixture(&r.keep, 1, 2, mean_A, weight_A, 0.3);
    WB = wide_denoiser(&B, 1);
    for (i = 0; i < 9; i++) {
        CHECK_CLOSE(flow_by_quantiles(&A, a[i][0], a[i][1], a[i][2]), a[i][3], 2e-9);
        CHECK_CLOSE(flow_1d(&r, D, a[i][0], a[i][1], a[i][2]), a[i][3], 2e-9);
    }
    for (i = 0; i < 4; i++) {
        CHECK_CLOSE(flow_by_quantiles(&B, b[i][0], b[i][1], b[i][2]), b[i][3], 2e-9);
        CHECK_CLOSE(flow_1d(&r, &WB, b[i][0], b[i][1], b[i][2]), b[i][3], 2e-9);
    }
    for (i = 0; i < 3; i++) {
        D->exact(D, &d[i][0], d[i][1], &y);
        CHECK_CLOSE(y, d[i][2], 1e-10);
    }
    CHECK_CLOSE((flow_1d(&r, D, .7, .5, .499) - .998 * .7) / .002, 1.2835712611, 1e-6);          // g near the diagonal
    for (t = 0.05; t < 80; t *= 3)
        for (x = -2.2; x < 2.5; x += 0.9) {
            CHECK_CLOSE(flow_1d(&r, D, x * (1 + t), t, 0.01), flow_by_quantiles(&A, x * (1 + t), t, 0.01), 1e-8);
            CHECK_CLOSE(flow_1d(&r, D, x * (1 + t), t, 0.3 * t), flow_by_quantiles(&A, x * (1 + t), t, 0.3 * t), 1e-8);
        }
    room_close(&r);
}

// [eq:D_gmm] The tests' own mixture against the golden file, then ctm_mixture against it, in four dimensions, with weights.
static void test_mixture_against_second_opinion(void) {
    static const char *const file[2] = {"mixture", "mixture_far"};
    static const double mean[12] = {0, 0, 0, 0, 1, -1, .5, .2, -.7, .3, .1, -.9}, weight[3] = {2, 3, 5}, sums[3] = {.2, .3, .5}, one_std[3] = {.15, .15, .15};
    room r;
    wide_mixture m;
    ctm_denoiser W, *D;
    ctm_rng rng = ctm_stream(3, "mixture");
    double x[4], a[4], b[4], t;
    int f, i, d;
    for (f = 0; f < 2; f++) {
        golden_file *g = golden_open(file[f]);
        size_t n;
        const double *xs = golden(g, "in.x", NULL), *ts = golden(g, "in.t", &n), *D_want = golden(g, "out.D", NULL), *logp = golden(g, "out.logp", NULL);
        m.K = 4;
        m.mean = golden(g, "in.means", NULL);
        m.std = golden(g, "in.stds", NULL);
        m.weight = golden(g, "in.weights", NULL);
        for (i = 0; i < (int)n; i++) {
            double got[2], l = wide_parts(&m, 2, xs + 2 * i, ts[i], got);
            for (d = 0; d < 2; d++) CHECK_CLOSE(got[d], D_want[2 * i + d], 1e-9 * larger(1, fabs(D_want[2 * i + d])));
            CHECK_CLOSE(l, logp[i], 1e-10 * larger(1, fabs(logp[i])));
        }
        golden_close(g);
    }
    room_open(&r);
    m.K = 3; m.mean = mean; m.std = one_std; m.weight = sums;
    W = wide_denoiser(&m, 4);
    D = ctm_mixture(&r.keep, 4, 3, mean, weight, .15);                           // weights need not sum to 1
    for (t = 0.002, i = 0; t < 90; t *= 2, i++) {
        for (d = 0; d < 4; d++) x[d] = ctm_normal(&rng, 0, (uint64_t)(4 * i + d)) * (1 + t);
        D->exact(D, x, t, a);
        W.exact(&W, x, t, b);
        for (d = 0; d < 4; d++) CHECK_CLOSE(a[d], b[d], 1e-12 * (1 + t));
        CHECK_CLOSE(D->log_density(D, x, t), W.log_density(&W, x, t), 1e-9 * larger(1, fabs(W.log_density(&W, x, t))));
    }
    room_close(&r);
}

// [eq:D_gmm] with c = 0: a data set, against the golden file: exact, log density, and `denoise` on every instruction set.
static void test_empirical_golden(void) {
    static const char *const file[2] = {"empirical", "empirical_far"};
    int f, i, isa;
    for (f = 0; f < 2; f++) {
        golden_file *g = golden_open(file[f]);
        size_t n;
        const double *points = golden(g, "in.points", NULL), *x = golden(g, "in.x", NULL), *t = golden(g, "in.t", &n);
        double D[64], logp[32];
        ctm_denoiser *E;
        room r;
        room_open(&r);
        E = ctm_empirical(&r.keep, 2, 7, points);
        CHECK(strcmp(E->name, "empirical") == 0 && E->dim == 2);
        for (i = 0; i < (int)n; i++) {
            E->exact(E, x + 2 * i, t[i], D + 2 * i);
            logp[i] = E->log_density(E, x + 2 * i, t[i]);
        }
        golden_check_double(g, "out.D", D, 2 * n, 1e-9);
        golden_check_double(g, "out.logp", logp, n, 1e-12);
        for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
            ctm_tensor *y;
            if (!ctm_set_isa(&r.ctx, isa)) continue;
            y = E->denoise(&r.tape, E, golden_tensor(&r.tape, g, "in.x"), golden_tensor(&r.tape, g, "in.t"));
            golden_check_rows(g, "out.D", y->data, y->len);
            ctm_tape_reset(&r.tape);
        }
        room_close(&r);
        golden_close(g);
    }
}

// `denoise` in ctm_real against `exact` in double: all instruction sets, any number of rows and components, near and far.
static void test_mixture_denoise_all_isas(void) {
    static const int rows[5] = {1, 7, 16, 33, 700};
    room r;
    int isa, q, i, d, dim;
    room_open(&r);
    for (dim = 1; dim <= 5; dim += 2) {
        ctm_rng rng = ctm_stream(4, "means");
        double mean[55], weight[11], x[5], want[5];
        ctm_denoiser *D;
        for (i = 0; i < 11 * dim; i++) mean[i] = ctm_normal(&rng, 0, (uint64_t)i);
        for (i = 0; i < 11; i++) weight[i] = 1 + i;
        weight[3] = 0;                                                           // a component that is not there
        D = ctm_mixture(&r.keep, dim, 11, mean, weight, 0.1);
        for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
            if (!ctm_set_isa(&r.ctx, isa)) continue;
            for (q = 0; q < 5; q++) {
                ctm_tensor *t = ctm_vector(&r.tape, "t", rows[q]), *X, *y;
                double worst = 0;
                for (i = 0; i < rows[q]; i++) t->data[i] = (ctm_real)(0.002 * pow(40000, i / (double)rows[q]));
                X = noised(&r.tape, "denoise", t, dim, 1);
                if (rows[q] > 20) for (d = 0; d < dim; d++) { X->data[3 * dim + d] = 1000; X->data[(rows[q] - 2) * dim + d] = -900; }
                y = D->denoise(&r.tape, D, X, t);
                for (i = 0; i < rows[q]; i++) {
                    double size = 1;
                    for (d = 0; d < dim; d++) { x[d] = (double)X->data[i * dim + d]; size = larger(size, fabs(x[d])); }
                    D->exact(D, x, (double)t->data[i], want);
                    for (d = 0; d < dim; d++) worst = larger(worst, ctm_is_finite((double)y->data[i * dim + d])
                                                                    ? fabs((double)y->data[i * dim + d] - want[d]) / size : 1e9);
                }
                CHECK_CLOSE(worst, 0, rounding(2e-4, 1e-11));
                ctm_tape_reset(&r.tape);
            }
        }
    }
    room_close(&r);
}

// The same bits whatever the number of threads, and for any cut of the rows.
static void test_mixture_same_bits_for_threads(void) {
    static const int threads[3] = {1, 2, 7};
    room r;
    ctm_denoiser *D;
    ctm_real *first = NULL;
    int k, i;
    room_open(&r);
    D = ring(&r.keep);
    for (k = 0; k < 3; k++) {
        ctm_tensor *t = ctm_vector(&r.tape, "t", 3000), *x, *y;
        for (i = 0; i < 3000; i++) t->data[i] = (ctm_real)(0.01 * (i + 1));
        x = noised(&r.tape, "threads", t, 2, 0.7);
        r.ctx.threads = threads[k];
        y = D->denoise(&r.tape, D, x, t);
        if (k == 0) {
            ctm_tensor *part, *tail = ctm_matrix(&r.tape, "tail", 37, 2), *tt = ctm_vector(&r.tape, "t", 37);
            first = (ctm_real *)ctm_alloc(&r.keep, y->len * sizeof *first);
            memcpy(first, y->data, y->len * sizeof *first);
            memcpy(tail->data, x->data + 2 * 2963, 74 * sizeof(ctm_real));
            memcpy(tt->data, t->data + 2963, 37 * sizeof(ctm_real));
            part = D->denoise(&r.tape, D, tail, tt);
            CHECK(same_bits(part->data, y->data + 2 * 2963, 74));
        }
        CHECK(same_bits(first, y->data, y->len));
        ctm_tape_reset(&r.tape);
    }
    room_close(&r);
}

// [eq:D_gmm] The Jacobian of D is symmetric, and is what the tape computes.
static void test_mixture_jacobian(void) {
    room r;
    ctm_denoiser *D;
    double x_[2] = {0.3, -0.2}, t;
    room_open(&r);
    D = ring(&r.keep);
    for (t = 0.05; t < 3; t *= 2) {
        double J[2][2], h = 1e-5, p[2], m[2];
        int i, j;
        for (j = 0; j < 2; j++) {
            double y[2];
            y[0] = x_[0]; y[1] = x_[1];
            y[j] += h;
            D->exact(D, y, t, p);
            y[j] -= 2 * h;
            D->exact(D, y, t, m);
            for (i = 0; i < 2; i++) J[i][j] = (p[i] - m[i]) / (2 * h);
        }
        CHECK_CLOSE(J[0][1], J[1][0], 1e-6 * larger(1, fabs(J[0][1])));
        CHECK(fabs(J[0][0]) > 1e-3);
        for (i = 0; i < 2; i++) {
            ctm_tensor *x = ctm_wants_grad(&r.tape, matrix_of(&r.tape, "x", 1, 2, x_)), *y = D->denoise(&r.tape, D, x, levels(&r.tape, "t", 1, t));
            y->grad[i] = 1;
            ctm_backward_seeded(&r.tape, y);
            for (j = 0; j < 2; j++) CHECK_CLOSE(x->grad[j], J[i][j], rounding(1e-4, 1e-5) * larger(1, fabs(J[i][j])));
            ctm_tape_reset(&r.tape);
        }
    }
    room_close(&r);
}

// [eq:tweedie] (D - x)/t² is the gradient of the log density.
static void test_score_is_the_gradient_of_the_density(void) {
    static const double at[4][2] = {{0.3, -0.2}, {0.72, 0.03}, {-2, 1}, {30, -40}}, ts[4] = {0.1, 0.05, 1, 40};
    room r;
    ctm_denoiser *D;
    int i, d;
    room_open(&r);
    D = ring(&r.keep);
    for (i = 0; i < 4; i++) {
        ctm_tensor *s = ctm_score(&r.tape, D, matrix_of(&r.tape, "x", 1, 2, at[i]), levels(&r.tape, "t", 1, ts[i]));
        for (d = 0; d < 2; d++) {
            double y[2], h = 1e-5 * ts[i], p, m;
            y[0] = at[i][0]; y[1] = at[i][1];
            y[d] += h;
            p = D->log_density(D, y, ts[i]);
            y[d] -= 2 * h;
            m = D->log_density(D, y, ts[i]);
            CHECK_CLOSE(s->data[d], (p - m) / (2 * h), rounding(1e-4, 1e-5) * larger(1, fabs((p - m) / (2 * h))));
        }
    }
    room_close(&r);
}

static void test_mixture_refuses_nonsense(void) {
    room r;
    double mean[2] = {0, 1};
    ctm_denoiser *D;
    room_open(&r);
    CHECK(PANICS(ctm_mixture(&r.keep, 2, 0, mean, NULL, 1)));
    CHECK(PANICS(ctm_mixture(&r.keep, 0, 1, mean, NULL, 1)));
    CHECK(PANICS(ctm_mixture(&r.keep, 2, 1, mean, NULL, -1)));
    D = ctm_mixture(&r.keep, 2, 1, mean, NULL, 1);
    CHECK(PANICS(D->denoise(&r.tape, D, ctm_matrix(&r.tape, "table", 4, 3), ctm_vector(&r.tape, "t", 4))));
    CHECK_TEXT(test_panic, "\"table\" [4,3]");
    room_close(&r);
}

// ---- chapter 12: the ODE --------------------------------------------------------------------------------------------

// [eq:heun] [eq:pf_ode] Heun and Euler on both teachers, with one or three substeps, equal or different gaps.
static void check_solver_file(const char *kind) {
    static const char *const method[2] = {"heun", "euler"}, *const gap[2] = {"k3", "each"};
    char file[32], name[64];
    golden_file *g;
    room r;
    ctm_denoiser *D;
    ctm_noise z = ctm_noise_default();
    size_t n, i;
    const double *from, *each;
    double to[16], u[16];
    int m, k, sub;
    snprintf(file, sizeof file, "solver_%s", kind);
    g = golden_open(file);
    room_open(&r);
    D = ctm_net_denoiser(&r.keep, golden_net(&r.keep, g, kind, "w.teacher.", 0));
    from = golden(g, "in.i", &n);
    each = golden(g, "in.k_each", NULL);
    for (k = 0; k < 2; k++) {
        for (i = 0; i < n; i++) { to[i] = from[i] + (k ? each[i] : 3); u[i] = ctm_t_of_index(&z, to[i]); }
        snprintf(name, sizeof name, "out.u.%s", gap[k]);
        golden_check_double(g, name, u, n, 1e-13);
        for (m = 0; m < 2; m++)
            for (sub = 1; sub <= 3; sub += 2) {
                ctm_tensor *x = golden_tensor(&r.tape, g, "in.x"), *y = ctm_solve(&r.tape, D, &z, m ? CTM_EULER : CTM_HEUN, x, from, to, sub);
                snprintf(name, sizeof name, "out.%s.%s.sub%d", method[m], gap[k], sub);
                golden_check(g, name, y->data, y->len);
                golden_check_rows(g, name, y->data, y->len);
                CHECK(r.tape.first == NULL && r.tape.recording == 1 && y->grad == NULL);         // nothing recorded, flag restored
                ctm_tape_reset(&r.tape);
            }
    }
    room_close(&r);
    golden_close(g);
}
static void test_solver_golden_concat(void) { check_solver_file("concat"); }
static void test_solver_golden_film(void) { check_solver_file("film"); }

// A denoiser that counts who asks it. impl: the denoiser behind it and two counters.
typedef struct counted { const ctm_denoiser *inner; long calls, rows; } counted;
static ctm_tensor *counted_denoise(ctm_tape *tp, const ctm_denoiser *self, ctm_tensor *x, ctm_tensor *t) {
    counted *c = (counted *)self->impl;
    c->calls++;
    c->rows += x->shape[0];
    return c->inner->denoise(tp, c->inner, x, t);
}
static ctm_denoiser counting(counted *c, const ctm_denoiser *inner) {
    ctm_denoiser D = *inner;
    c->inner = inner;
    c->calls = c->rows = 0;
    D.impl = c;
    D.denoise = counted_denoise;
    D.exact = NULL;
    D.log_density = NULL;
    return D;
}

// [eq:heun] Orders on Gaussian data, x = 1, t = 2 -> 1, n uniform steps (rho = 1 makes the grid uniform): section 13's tables.
static void test_euler_has_order_one_and_heun_order_two(void) {
    static const double heun[6] = {1.06e-2, 2.70e-3, 6.58e-4, 1.603e-4, 3.94e-5, 9.77e-6}, euler[6] = {1.29e-2, 7.03e-3, 3.61e-3, 1.82e-3, 9.13e-4, 4.57e-4};
    static const double heun_digit[6] = {5.1e-5, 5.1e-6, 5.1e-7, 5.1e-8, 5.1e-8, 5.1e-9}, euler_digit[6] = {5.1e-5, 5.1e-6, 5.1e-6, 5.1e-6, 5.1e-7, 5.1e-7};
    room r;
    ctm_denoiser *D, C;
    counted c;
    double zero = 0, x1 = 1, from = 0, to, last[2] = {0, 0}, err;
    int n, k, m;
    room_open(&r);
    D = ctm_mixture(&r.keep, 1, 1, &zero, NULL, 0.5);
    C = counting(&c, D);
    for (k = 0, n = 1; k < 6; k++, n *= 2)
        for (m = 0; m < 2; m++) {
            ctm_noise z = ctm_noise_default();
            z.sigma_max = 2; z.sigma_min = 1; z.rho = 1; z.N = n + 1;
            to = n;
            c.calls = 0;
            err = fabs((double)ctm_solve(&r.tape, &C, &z, m ? CTM_EULER : CTM_HEUN, matrix_of(&r.tape, "x", 1, 1, &x1), &from, &to, 1)->data[0]
                       - .542326144547);
            CHECK(c.calls == (m ? n : 2 * n));                                   // Heun: exactly two evaluations a step
            CHECK_CLOSE(err, m ? euler[k] : heun[k], (m ? euler_digit[k] : heun_digit[k]) + rounding(3e-7, 0));
            if (IN_DOUBLE && k) CHECK_CLOSE(last[m] / err, m ? 2 : 4, m ? 0.2 : 0.15);
            last[m] = err;
            ctm_tape_reset(&r.tape);
        }
    room_close(&r);
}

// [eq:heun] Rows with different gaps: every row is evaluated as often as it alone would be, and no more.
static void test_solver_wastes_no_evaluation(void) {
    static const double from[6] = {0, 3, 5, 5, 16, 2.25}, to[6] = {17, 4, 5, 9, 17, 5.5};
    room r;
    ctm_denoiser *D, C;
    counted c;
    ctm_noise z = ctm_noise_default();
    ctm_tensor *t, *x, *y;
    int i;
    room_open(&r);
    D = ring(&r.keep);
    C = counting(&c, D);
    t = ctm_vector(&r.tape, "t", 6);
    for (i = 0; i < 6; i++) t->data[i] = (ctm_real)ctm_t_of_index(&z, from[i]);
    x = noised(&r.tape, "waste", t, 2, 0.5);
    y = ctm_solve(&r.tape, &C, &z, CTM_HEUN, x, from, to, 1);
    CHECK(c.calls == 34);
    CHECK(c.rows == 2 * (17 + 1 + 0 + 4 + 1 + 4));                               // 3.25 intervals take four steps
    CHECK(same_bits(y->data + 4, x->data + 4, 2));                               // from = to: stays
    c.rows = 0;
    ctm_solve(&r.tape, &C, &z, CTM_EULER, x, from, to, 3);
    CHECK(c.rows == 51 + 3 + 0 + 12 + 3 + 10);
    room_close(&r);
}

// [eq:heun] A batch equals its rows solved alone, bit for bit; fractional indices equal a loop written out here.
static void test_solver_rows_and_fractions(void) {
    static const double from[5] = {0, 7, 2.25, 16, 11}, to[5] = {17, 8, 5.5, 17, 16.5};
    room r;
    ctm_denoiser *D;
    ctm_noise z = ctm_noise_default();
    ctm_tensor *t, *x, *y;
    int i, d, j, sub;
    room_open(&r);
    D = ring(&r.keep);
    for (sub = 1; sub <= 3; sub++) {
        t = ctm_vector(&r.tape, "t", 5);
        for (i = 0; i < 5; i++) t->data[i] = (ctm_real)ctm_t_of_index(&z, from[i]);
        x = noised(&r.tape, "fractions", t, 2, 0.5);
        y = ctm_solve(&r.tape, D, &z, CTM_HEUN, x, from, to, sub);
        for (i = 0; i < 5; i++) {
            ctm_tensor *row = ctm_matrix(&r.tape, "row", 1, 2), *alone;
            int n = (int)ceil((to[i] - from[i]) * sub - 1e-9);
            double p[2], D1[2], D2[2], q[2], f[2];
            memcpy(row->data, x->data + 2 * i, 2 * sizeof(ctm_real));
            alone = ctm_solve(&r.tape, D, &z, CTM_HEUN, row, from + i, to + i, sub);
            CHECK(same_bits(alone->data, y->data + 2 * i, 2));
            for (d = 0; d < 2; d++) p[d] = (double)x->data[2 * i + d];
            for (j = 0; j < n; j++) {
                double a = ctm_t_of_index(&z, from[i] + (to[i] - from[i]) * j / n), b = ctm_t_of_index(&z, from[i] + (to[i] - from[i]) * (j + 1) / n);
                D->exact(D, p, a, D1);
                for (d = 0; d < 2; d++) { f[d] = (p[d] - D1[d]) / a; q[d] = p[d] + (b - a) * f[d]; }
                D->exact(D, q, b, D2);
                for (d = 0; d < 2; d++) p[d] += (b - a) * (f[d] + (q[d] - D2[d]) / b) / 2;
            }
            for (d = 0; d < 2; d++) CHECK_CLOSE(y->data[2 * i + d], p[d], rounding(5e-5, 1e-10) * larger(1, fabs(p[d])));
        }
        ctm_tape_reset(&r.tape);
    }
    room_close(&r);
}

// [eq:heun] 18 nodes of Heun from x = 80 on N(0, .5²) end at .527633, not at the flow's .499994; substeps approach it.
static void test_heun_on_18_levels_ends_where_it_should(void) {
    room r;
    ctm_denoiser *D;
    ctm_noise z = ctm_noise_default();
    double zero = 0, x = 80, from = 0, to = 17, last = 1, err;
    int sub;
    room_open(&r);
    D = ctm_mixture(&r.keep, 1, 1, &zero, NULL, 0.5);
    CHECK_CLOSE(ctm_solve(&r.tape, D, &z, CTM_HEUN, matrix_of(&r.tape, "x", 1, 1, &x), &from, &to, 1)->data[0], .527633, 6e-7 + rounding(1e-6, 0));
    for (sub = 1; sub <= 8; sub *= 2) {
        err = fabs((double)ctm_solve(&r.tape, D, &z, CTM_HEUN, matrix_of(&r.tape, "x", 1, 1, &x), &from, &to, sub)->data[0] - .499994234567);
        CHECK(err < last / 3.2);
        last = err;
    }
    room_close(&r);
}

// [eq:heun] One Heun step in the form of g: g_Heun = D_t + (t/2s)(D_s' - D_t), in the euler outer form.
static void test_heun_step_has_the_form_of_g(void) {
    room r;
    ctm_denoiser *D;
    ctm_noise z = ctm_noise_default();
    double x[2] = {2.1, -1.4}, from = 8, to = 9, t, s, Dt[2], Ds[2], y[2];
    ctm_tensor *got;
    int d;
    room_open(&r);
    D = ring(&r.keep);
    t = ctm_t_of_index(&z, 8);
    s = ctm_t_of_index(&z, 9);
    D->exact(D, x, t, Dt);
    for (d = 0; d < 2; d++) y[d] = s / t * x[d] + (1 - s / t) * Dt[d];           // the Euler point
    D->exact(D, y, s, Ds);
    got = ctm_solve(&r.tape, D, &z, CTM_HEUN, matrix_of(&r.tape, "x", 1, 2, x), &from, &to, 1);
    for (d = 0; d < 2; d++) {
        double g = Dt[d] + t / (2 * s) * (Ds[d] - Dt[d]);
        CHECK_CLOSE(got->data[d], s / t * x[d] + (1 - s / t) * g, rounding(1e-6, 1e-13));
    }
    room_close(&r);
}

static void test_solver_refuses_what_cannot_be(void) {
    room r;
    ctm_denoiser *D;
    ctm_noise z = ctm_noise_default();
    double from[2] = {3, 5}, to[2] = {4, 4};
    ctm_tensor *x;
    room_open(&r);
    D = ring(&r.keep);
    x = ctm_matrix(&r.tape, "x", 2, 2);
    CHECK(PANICS(ctm_solve(&r.tape, D, &z, CTM_HEUN, x, from, to, 1)));
    CHECK_TEXT(test_panic, "row 1 cannot go from index 5 to 4");
    to[1] = 17.5;
    CHECK(PANICS(ctm_solve(&r.tape, D, &z, CTM_HEUN, x, from, to, 1)));
    CHECK_TEXT(test_panic, "row 1 cannot go from index 5 to 17.5");
    to[1] = 6;
    CHECK(PANICS(ctm_solve(&r.tape, D, &z, CTM_HEUN, x, from, to, 0)));
    CHECK_TEXT(test_panic, "substeps positive");
    CHECK(PANICS(ctm_solve(&r.tape, D, &z, CTM_HEUN, x, from, to, -2)));
    CHECK_TEXT(test_panic, "substeps positive");
    CHECK(PANICS(ctm_solve(&r.tape, D, &z, CTM_DPM2, x, from, to, 1)));
    CHECK_TEXT(test_panic, "3 is neither CTM_HEUN nor CTM_EULER");
    room_close(&r);
}

// ---- the exact flow -------------------------------------------------------------------------------------------------

// [eq:g] g(x,t,s) -> D as s -> t, with an error that halves with the gap.
static void test_g_tends_to_the_denoiser(void) {
    room r;
    ctm_denoiser *D;
    double x = 0.7, t = 0.5, d, gap, last = 0;
    room_open(&r);
    D = ctm_mixture(&r.keep, 1, 2, mean_A, weight_A, 0.3);
    D->exact(D, &x, t, &d);
    for (gap = 0.01; gap > 0.001; gap /= 2) {
        double s = t - gap, g = (flow_1d(&r, D, x, t, s) - s / t * x) / (gap / t), err = fabs(g - d);
        if (last > 0) CHECK_CLOSE(last / err, 2, 0.1);
        last = err;
    }
    CHECK(last < 1e-3);
    room_close(&r);
}

// [eq:flow] Semigroup: G(G(x,t,u),u,s) = G(x,t,s).
static void test_exact_jumps_compose(void) {
    static const double level[3] = {5, 0.6, 0.01};
    room r;
    ctm_denoiser *D;
    ctm_rng rng = ctm_stream(5, "semigroup");
    double x[40], all[120], part[40];
    int i, j;
    room_open(&r);
    D = ring(&r.keep);
    for (i = 0; i < 40; i++) x[i] = 80 * ctm_normal(&rng, 0, (uint64_t)i);
    ctm_exact_flow(&r.ctx, D, 20, x, 80, 3, level, 1e-10, all);                  // three levels in one go
    for (i = 0; i < 3; i++) {
        ctm_exact_flow(&r.ctx, D, 20, i ? all + 40 * (i - 1) : x, i ? level[i - 1] : 80, 1, level + i, 1e-10, part);
        for (j = 0; j < 40; j++) CHECK_CLOSE(part[j], all[40 * i + j], 1e-6);
        ctm_exact_flow(&r.ctx, D, 20, x, 80, 1, level + i, 1e-10, part);
        for (j = 0; j < 40; j++) CHECK_CLOSE(part[j], all[40 * i + j], 1e-6);
    }
    room_close(&r);
}

// [eq:flow] [eq:pf_ode] dG/ds = (G - D(G,s))/s and dG/dt + (dG/dx)(x - D(x,t))/t = 0, by finite differences.
static void test_exact_jumps_solve_both_differential_equations(void) {
    static const double at[4][3] = {{1, 2, 0.5}, {-0.4, 1, 0.1}, {30, 80, 1}, {0.9, 0.3, 0.05}};
    room r;
    ctm_denoiser *D;
    int i;
    room_open(&r);
    D = ctm_mixture(&r.keep, 1, 2, mean_A, weight_A, 0.3);
    for (i = 0; i < 4; i++) {
        double x = at[i][0], t = at[i][1], s = at[i][2], h = 1e-4, G = flow_1d(&r, D, x, t, s), dG_ds, dG_dt, dG_dx, D_G, D_x;
        dG_ds = (flow_1d(&r, D, x, t, s * (1 + h)) - flow_1d(&r, D, x, t, s * (1 - h))) / (2 * h * s);
        dG_dt = (flow_1d(&r, D, x, t * (1 + h), s) - flow_1d(&r, D, x, t * (1 - h), s)) / (2 * h * t);
        dG_dx = (flow_1d(&r, D, x + h * t, t, s) - flow_1d(&r, D, x - h * t, t, s)) / (2 * h * t);
        D->exact(D, &G, s, &D_G);
        D->exact(D, &x, t, &D_x);
        CHECK_CLOSE(dG_ds, (G - D_G) / s, 1e-5 * larger(1, fabs(dG_ds)));
        CHECK_CLOSE(dG_dt, -dG_dx * (x - D_x) / t, 1e-5 * larger(1, fabs(dG_dt)));
    }
    room_close(&r);
}

// [eq:flow] Monotone in 1-D (trajectories never cross); odd for symmetric data.
static void test_paths_do_not_cross_and_are_odd(void) {
    room r;
    ctm_denoiser *D;
    double x, last = -1e300;
    room_open(&r);
    D = ctm_mixture(&r.keep, 1, 2, mean_A, weight_A, 0.3);
    for (x = -150; x <= 150; x += 7.5) {
        double y = flow_1d(&r, D, x, 80, 0.002);
        CHECK(y > last);
        last = y;
        CHECK_CLOSE(flow_1d(&r, D, -x, 80, 0.002), -y, 1e-8);
    }
    CHECK_CLOSE(flow_1d(&r, D, 0, 80, 0.002), 0, 1e-12);
    room_close(&r);
}

// [eq:flow] Scaling data, x and all times scales G; shifting data and x shifts G.
static void test_flow_scales_and_shifts_with_the_data(void) {
    static const double scaled[2] = {-4.5, 4.5}, shifted[2] = {-1.1, 1.9};
    room r;
    ctm_denoiser *D, *K, *S;
    double x;
    room_open(&r);
    D = ctm_mixture(&r.keep, 1, 2, mean_A, NULL, 0.3);
    K = ctm_mixture(&r.keep, 1, 2, scaled, NULL, 0.9);
    S = ctm_mixture(&r.keep, 1, 2, shifted, NULL, 0.3);
    for (x = -2; x < 2.1; x += 0.5) {
        double y = flow_1d(&r, D, x, 1.2, 0.1);
        CHECK_CLOSE(flow_1d(&r, K, 3 * x, 3.6, 0.3), 3 * y, 1e-8);
        CHECK_CLOSE(flow_1d(&r, S, x + 0.4, 1.2, 0.1), y + 0.4, 1e-8);
    }
    room_close(&r);
}

// [eq:flow] The ODE of a point mass at m: D = m, G = m + (s/t)(x - m); the drift at x = D is zero.
static void test_point_mass_has_straight_paths(void) {
    room r;
    ctm_denoiser *D;
    ctm_noise z = ctm_noise_default();
    double m[2] = {0.3, -1}, x[2] = {40, -7}, y[2], d[2], s = 0.002, from = 0, to = 17;
    ctm_tensor *h;
    int i;
    room_open(&r);
    D = ctm_empirical(&r.keep, 2, 1, m);
    D->exact(D, x, 3, d);
    ctm_exact_flow(&r.ctx, D, 1, x, 80, 1, &s, 1e-11, y);
    h = ctm_solve(&r.tape, D, &z, CTM_HEUN, matrix_of(&r.tape, "x", 1, 2, x), &from, &to, 1);
    for (i = 0; i < 2; i++) {
        CHECK_CLOSE(d[i], m[i], 1e-15);
        CHECK_CLOSE(y[i], m[i] + s / 80 * (x[i] - m[i]), 1e-8);
        CHECK_CLOSE(h->data[i], m[i] + s / 80 * (x[i] - m[i]), rounding(3e-5, 1e-12));           // straight lines: Heun is exact
    }
    ctm_exact_flow(&r.ctx, D, 1, m, 80, 1, &s, 1e-9, y);
    h = ctm_solve(&r.tape, D, &z, CTM_EULER, matrix_of(&r.tape, "x", 1, 2, m), &from, &to, 1);
    for (i = 0; i < 2; i++) { CHECK_CLOSE(y[i], m[i], 1e-12); CHECK_CLOSE(h->data[i], m[i], rounding(1e-7, 1e-15)); }
    room_close(&r);
}

// [eq:flow] The tolerance is kept: against a fine classical Runge-Kutta in ln t; 70 points, cut among threads.
static void test_flow_accuracy(void) {
    static const double level[2] = {1, 0.002};
    room r;
    ctm_denoiser *D;
    ctm_rng rng = ctm_stream(6, "flow");
    double x[140], tight[280], loose[280], one[280], p[2], worst = 0, far = 0;
    int i, j, d, k, n = 4000;
    room_open(&r);
    D = ring(&r.keep);
    for (i = 0; i < 140; i++) x[i] = 80 * ctm_normal(&rng, 0, (uint64_t)i);
    r.ctx.threads = 2;
    ctm_exact_flow(&r.ctx, D, 70, x, 80, 2, level, 1e-11, tight);
    ctm_exact_flow(&r.ctx, D, 70, x, 80, 2, level, 1e-8, loose);
    r.ctx.threads = 1;
    ctm_exact_flow(&r.ctx, D, 70, x, 80, 2, level, 1e-8, one);
    CHECK(memcmp(loose, one, sizeof one) == 0);
    for (i = 0; i < 280; i++) far = larger(far, fabs(tight[i] - loose[i]));
    CHECK(far < 1e-6);
    for (i = 0; i < 3; i++) {
        double tau = log(80), h = (log(0.002) - log(80)) / n;
        p[0] = x[2 * i]; p[1] = x[2 * i + 1];
        for (j = 0; j < n; j++, tau += h) {
            double f[4][2], y[2], D1[2];
            for (k = 0; k < 4; k++) {
                double c = k == 0 ? 0 : k == 3 ? 1 : 0.5;
                for (d = 0; d < 2; d++) y[d] = p[d] + (k ? c * h * f[k - 1][d] : 0);
                D->exact(D, y, exp(tau + c * h), D1);
                for (d = 0; d < 2; d++) f[k][d] = y[d] - D1[d];
            }
            for (d = 0; d < 2; d++) p[d] += h / 6 * (f[0][d] + 2 * f[1][d] + 2 * f[2][d] + f[3][d]);
        }
        for (d = 0; d < 2; d++) worst = larger(worst, fabs(p[d] - tight[140 + 2 * i + d]));
    }
    CHECK(worst < 1e-8);
    CHECK(PANICS(ctm_exact_flow(&r.ctx, ctm_net_denoiser(&r.keep, wild_net(&r.keep, 2, 1, 1)), 1, x, 80, 1, level, 1e-8, one)));
    CHECK_TEXT(test_panic, "has no exact formula");
    CHECK(PANICS(ctm_exact_flow(&r.ctx, ring(&r.keep), 1, x, 80, 1, level, 0, one)));
    CHECK_TEXT(test_panic, "no step can be as exact as the tolerance 0");
    room_close(&r);
}

// A number that is none must come out as none, not keep the solver busy for ever; so must a level that is no noise level.
#if defined(__unix__)
#include <sys/types.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>
static int ends_in_time(void (*work)(void)) {      // runs work() in a child that may take two seconds; 1 if it came back (or panicked)
    int status = 0;
    pid_t child;
    fflush(stdout);
    child = fork();
    if (child == 0) { alarm(2); work(); _exit(0); }
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status);
}
static void flow_of(double x0, double t, double s) {
    room r;
    ctm_denoiser *D;
    double x[2], y[2];
    x[0] = x0; x[1] = 1;
    room_open(&r);
    r.ctx.threads = 1;
    D = ring(&r.keep);
    (void)PANICS(ctm_exact_flow(&r.ctx, D, 1, x, t, 1, &s, 1e-8, y));
}
static void flow_of_nan(void)      { flow_of(nan(""), 80, 0.002); }
static void flow_of_infinity(void) { flow_of(INFINITY, 80, 0.002); }
static void flow_to_zero(void)     { flow_of(1, 80, 0); }
static void flow_to_nan(void)      { flow_of(1, 80, nan("")); }
static void flow_from_nan(void)    { flow_of(1, nan(""), 0.002); }
static void test_flow_always_ends(void) {
    CHECK(ends_in_time(flow_of_nan));
    CHECK(ends_in_time(flow_of_infinity));
    CHECK(ends_in_time(flow_to_zero));
    CHECK(ends_in_time(flow_to_nan));
    CHECK(ends_in_time(flow_from_nan));
}
#else
static void test_flow_always_ends(void) { SKIP("needs fork"); }
#endif

// ctm_flow_jump: rows may differ in t and s; s = t stays; the formula of the closed case.
static void test_flow_jump_rows(void) {
    static const double t_[5] = {80, 2, 2, 0.5, 0.3}, s_[5] = {0.002, 1, 2, 0.1, 0.002}, x_[5] = {80, 1, 1, .7, -.2};
    room r;
    ctm_jump *G;
    ctm_noise z = ctm_noise_default();
    double zero = 0;
    ctm_tensor *x, *y;
    int i;
    room_open(&r);
    G = ctm_flow_jump(&r.keep, ctm_mixture(&r.keep, 1, 1, &zero, NULL, 0.5), &z);
    CHECK(G->dim == 1 && G->noise.N == 18);
    x = matrix_of(&r.tape, "x", 5, 1, x_);
    y = G->jump(&r.tape, G, x, vector_of(&r.tape, "t", 5, t_), vector_of(&r.tape, "s", 5, s_));
    for (i = 0; i < 5; i++) CHECK_CLOSE(y->data[i], gauss_G(x_[i], t_[i], s_[i], 0, 0.5), rounding(3e-6, 1e-7));
    CHECK(y->data[2] == x->data[2]);
    CHECK(PANICS(G->jump(&r.tape, G, x, levels(&r.tape, "t", 5, 1), levels(&r.tape, "s", 5, 2))));           // up, as ctm_G_theta
    CHECK(PANICS(G->jump(&r.tape, G, x, levels(&r.tape, "t", 5, 1), ctm_vector(&r.tape, "s", 5))));          // to 0, whose logarithm is none
    room_close(&r);
}

// [eq:G] ctm_net_jump is ctm_G_theta; the tests' exact network is the exact flow (which later tests rely on).
static void test_net_jump(void) {
    static const double t_[4] = {80, 2, 0.5, 0.3}, s_[4] = {0.002, 1, 0.1, 0.3};
    room r;
    ctm_net *net;
    ctm_jump *G;
    ctm_tensor *t, *s, *x, *y, *D;
    int i;
    room_open(&r);
    net = gauss_net(&r.keep, 1);
    G = ctm_net_jump(&r.keep, net);
    t = vector_of(&r.tape, "t", 4, t_);
    s = vector_of(&r.tape, "s", 4, s_);
    x = noised(&r.tape, "net jump", t, 1, 0.5);
    y = G->jump(&r.tape, G, x, t, s);
    D = ctm_D_theta(&r.tape, net, x, t);
    for (i = 0; i < 4; i++) {
        CHECK_CLOSE(y->data[i], gauss_G((double)x->data[i], t_[i], s_[i], 0, 0.5), rounding(1e-6, 1e-13) * larger(1, fabs((double)x->data[i])));
        CHECK_CLOSE(D->data[i], gauss_D((double)x->data[i], t_[i], 0, 0.5), rounding(1e-6, 1e-13));
    }
    room_close(&r);
}

// ---- chapter 15: times ----------------------------------------------------------------------------------------------

// Pearson's statistic of counts against probabilities; cells expecting fewer than 5 are pooled. Drawing an impossible cell
// costs the test at once. Returns (chi² - k)/sqrt(2k), about a standard normal.
static double chi_squared(const long *count, const double *p, int cells, long n) {
    double chi = 0, rest_p = 0;
    long rest = 0;
    int i, k = -1;
    for (i = 0; i < cells; i++) {
        double e = p[i] * (double)n;
        if (p[i] < 1e-15) { if (count[i]) return 1e9; continue; }
        if (e < 5) { rest += count[i]; rest_p += p[i]; continue; }
        chi += ((double)count[i] - e) * ((double)count[i] - e) / e;
        k++;
    }
    if (rest_p * (double)n >= 5) { chi += ((double)rest - rest_p * (double)n) * ((double)rest - rest_p * (double)n) / (rest_p * (double)n); k++; }
    return k > 0 ? (chi - k) / sqrt(2.0 * k) : 0;
}

static const struct { const char *name; ctm_times_fn times; int whole; } all_times[7] = {
    {"paper", ctm_times_paper, 1}, {"local", ctm_times_local, 1}, {"global", ctm_times_global, 1}, {"authors", ctm_times_authors, 1},
    {"cm", ctm_times_cm, 1}, {"points", ctm_times_points, 0}, {"images", ctm_times_images, 0}};

// [eq:law_paper] [eq:law_h] [eq:law_gap] [eq:cm]  t > u >= s >= sigma_min for every distribution and grid, and what each promises of u and s.
static void test_times_are_in_order_on_every_grid(void) {
    static const int sizes[5] = {2, 3, 6, 18, 40};
    int q, f, k;
    for (q = 0; q < 5; q++) for (f = 0; f < 7; f++) {
        ctm_config c = ctm_recipe_paper();
        c.noise.N = sizes[q];
        c.seed = 5;
        for (k = 0; k < 400; k++) {
            double i[3];
            all_times[f].times(&c, (uint64_t)k, 3, i);
            CHECK(i[0] >= 0 && i[0] < i[1] && i[1] <= i[2] && i[2] <= c.noise.N - 1);
            CHECK(ctm_t_of_index(&c.noise, i[2]) >= c.noise.sigma_min && ctm_t_of_index(&c.noise, i[0]) > ctm_t_of_index(&c.noise, i[1]));
            if (all_times[f].whole) CHECK(i[0] == floor(i[0]) && i[1] == floor(i[1]) && i[2] == floor(i[2]));
            if (all_times[f].times == ctm_times_local || all_times[f].times == ctm_times_cm) CHECK(i[1] == i[0] + 1);
            if (all_times[f].times == ctm_times_global) CHECK(i[1] == i[2]);
            if (all_times[f].times == ctm_times_cm) CHECK(i[2] == c.noise.N - 1);
            if (all_times[f].times == ctm_times_authors) CHECK(i[1] - i[0] <= 17);
        }
    }
}

// Counts n draws of `times` in cells [t][u][s] and compares them with p; only draws that stay on the grid count.
static void check_joint(ctm_times_fn times, int N, int one_batch, const double *p) {
    static long count[18 * 18 * 18];
    ctm_config c = ctm_recipe_paper();
    long k, n = 0;
    c.noise.N = N;
    c.seed = 21;
    memset(count, 0, sizeof count);
    for (k = 0; k < 120000; k++) {
        uint64_t step = one_batch ? 3 : (uint64_t)k, index = one_batch ? (uint64_t)k : 5;
        double i[3];
        if (ctm__chance(&c, step, index, 6) < 0.3) continue;                     // these leave the grid, if any do
        times(&c, step, index, i);
        CHECK(i[0] == floor(i[0]) && i[1] == floor(i[1]) && i[2] == floor(i[2]));
        count[((int)i[0] * N + (int)i[1]) * N + (int)i[2]]++;
        n++;
    }
    CHECK_CLOSE(chi_squared(count, p, N * N * N, n), 0, 4);
}

// [eq:law_h] The joint distribution of (t,u,s) in the authors' code against the oracle, with one h for each batch; and P(h) = h/153.
static void test_authors_times_have_the_joint_distribution_of_the_oracle(void) {
    golden_file *g = golden_open("law");
    const double *p = golden(g, "out.tus.weighted", NULL), *p_h;
    ctm_config c = ctm_recipe_authors();
    long count[17] = {0}, k, n = 40000;
    size_t M;
    check_joint(ctm_times_authors, 18, 0, p);
    p_h = golden(g, "out.h.weighted", &M);
    CHECK(M == 17);
    CHECK_CLOSE(p_h[4], 5.0 / 153, 1e-15);
    for (k = 0; k < n; k++) {
        double i[3];
        ctm_times_authors(&c, (uint64_t)k, 0, i);
        count[(int)(i[1] - i[0]) - 1]++;
    }
    CHECK_CLOSE(chi_squared(count, p_h, 17, n), 0, 4);
    golden_close(g);
}

// [eq:law_h] E[h], P(t = 80), P(s = u), P(s = sigma_min): the numbers that follow from the formula, for three grids and limits of h.
static void test_authors_times_have_the_moments_of_the_formula(void) {
    static const double want[3][4] = {{11.667, .29354, .49577, .49577}, {13.667, .0392, .14979, .14979}, {26.33, .16813, .33731, .33731}};
    static const int size[3] = {18, 40, 40}, M[3] = {17, 20, 39};
    int q, k;
    for (q = 0; q < 3; q++) {
        ctm_config c = ctm_recipe_authors();
        double h = 0, t = 0, su = 0, end = 0, n = 100000;
        c.noise.N = size[q];
        for (k = 0; k < (int)n; k++) {
            double i[3];
            ctm__times_by_h(&c, (uint64_t)k, (uint64_t)(k % 7), 0, M[q], i);
            h += (i[1] - i[0]) / n;
            t += (i[0] == 0) / n;
            su += (i[2] == i[1]) / n;
            end += (i[2] == c.noise.N - 1) / n;
        }
        CHECK_CLOSE(h, want[q][0], 0.14);                                        // five standard errors or so
        CHECK_CLOSE(t, want[q][1], 0.008);
        CHECK_CLOSE(su, want[q][2], 0.008);
        CHECK_CLOSE(end, want[q][3], 0.008);
    }
}

// [eq:law_h] The authors draw one h for the whole batch, while t and s differ inside it; our recipes draw one for every row.
static void test_authors_times_have_one_h_for_a_batch(void) {
    ctm_config c = ctm_recipe_authors();
    int step, k, t_differs = 0, s_differs = 0, h_differs = 0;
    for (step = 0; step < 50; step++) {
        double a[3], b[3];
        ctm_times_authors(&c, (uint64_t)step, 0, a);
        for (k = 1; k < 20; k++) {
            ctm_times_authors(&c, (uint64_t)step, (uint64_t)k, b);
            CHECK(b[1] - b[0] == a[1] - a[0]);
            t_differs += b[0] != a[0];
            s_differs += b[2] != a[2];
        }
        ctm__times_by_h(&c, (uint64_t)step, 1, 1, 17, a);
        ctm__times_by_h(&c, (uint64_t)step, 2, 2, 17, b);
        h_differs += b[1] - b[0] != a[1] - a[0];
    }
    CHECK(t_differs > 100 && s_differs > 100 && h_differs > 25);
}

// Adds `share` of the distribution by h (M at most; s at the end if to_end, else anywhere from u) to p[t][u][s].
static void add_by_h(double *p, int N, double share, int M, int to_end) {
    int last = N - 1, h, t, s;
    double total = 0;
    if (M > last) M = last;
    for (h = 1; h <= M; h++) total += h;
    for (h = 1; h <= M; h++)
        for (t = 0; t + h <= last; t++) {
            if (to_end) p[(t * N + t + h) * N + last] += share * h / total / (N - h);
            else for (s = t + h; s <= last; s++) p[(t * N + t + h) * N + s] += share * h / total / (N - h) / (N - t - h);
        }
}
// The same of the distribution by gaps. t has four times the weight between 6/17 and 13/17 of the grid.
static void add_by_gap(double *p, int N, double share, double to_end, double power) {
    int last = N - 1, t, k;
    double total = 0;
    for (t = 0; t < last; t++) total += t >= 6.0 / 17 * last - 1e-9 && t <= 13.0 / 17 * last + 1e-9 ? 4 : 1;
    for (t = 0; t < last; t++) {
        double p_t = (t >= 6.0 / 17 * last - 1e-9 && t <= 13.0 / 17 * last + 1e-9 ? 4 : 1) / total, H = 0;
        for (k = 1; k <= last - t; k++) H += pow(k, power);
        for (k = 1; k <= last - t; k++)
            p[(t * N + t + k) * N + t + k] += share * p_t * ((1 - to_end) * pow(k, power) / H + (k == last - t ? to_end : 0));
    }
}

// [eq:law_gap]
static void test_points_and_images_times_have_their_joint_distributions(void) {
    static const int sizes[4] = {18, 10, 3, 2};
    static double p[18 * 18 * 18];
    int q;
    for (q = 0; q < 4; q++) {
        memset(p, 0, sizeof p);
        add_by_h(p, sizes[q], 0.1, 17, 0);
        add_by_gap(p, sizes[q], 0.9, 0.03, -0.7);
        check_joint(ctm_times_points, sizes[q], 1, p);
        memset(p, 0, sizeof p);
        add_by_h(p, sizes[q], 0.6, 6, 1);
        add_by_gap(p, sizes[q], 0.4, 0.05, -1);
        check_joint(ctm_times_images, sizes[q], 1, p);
    }
}

// [eq:law_gap] The noise levels 8.4 to 0.14 are where jumps begin four times as often, however fine the grid is.
static void test_points_times_begin_most_often_where_modes_part(void) {
    static const int sizes[3] = {18, 35, 137};
    ctm_noise z = ctm_noise_default();
    double high = ctm_t_of_index(&z, 6), low = ctm_t_of_index(&z, 13);
    int q, t;
    CHECK_CLOSE(high, 8.4, 0.01);
    CHECK_CLOSE(low, 0.14, 0.001);
    for (q = 0; q < 3; q++) {
        ctm_config c = ctm_recipe_points();
        c.noise.N = sizes[q];
        for (t = 0; t < c.noise.N - 1; t++) {
            double level = ctm_t_of_index(&c.noise, t);
            CHECK(ctm__focus(t, c.noise.N - 1) == (level < high * (1 + 1e-9) && level > low * (1 - 1e-9) ? 4 : 1));
        }
    }
}

// [eq:law_gap] A share 0.3 of the draws moves up to half an index away from the grid, where the middle of the shift is nought.
static void test_points_times_leave_the_grid_evenly(void) {
    ctm_config c = ctm_recipe_points();
    long inner = 0, off = 0, j, n = 60000;
    double mean = 0, square = 0;
    c.seed = 41;
    for (j = 0; j < n; j++) {
        double i[3], d;
        if (ctm__chance(&c, (uint64_t)j, 7, 2) < 0.1) continue;
        ctm_times_points(&c, (uint64_t)j, 7, i);
        CHECK(i[0] >= 0 && i[0] < i[1] && i[1] == i[2] && i[2] <= 17);
        d = i[0] - floor(i[0] + 0.5);
        if (i[0] < 0.5) continue;                                                // index 0 moves inwards only
        inner++;
        off += d != 0;
        mean += d;
        square += d * d;
    }
    CHECK_CLOSE((double)off / (double)inner, 0.3, 0.01);
    CHECK_CLOSE(mean / (double)off, 0, 0.011);
    CHECK_CLOSE(square / (double)off, 1.0 / 12, 0.004);
}

// [eq:law_paper] t uniform on 0..N-2, s uniform after it, u uniform from t+1 to s; local and global share t and s.
static void test_paper_times_are_nested_and_uniform(void) {
    static double p[3][18 * 18 * 18];
    int N, t, u, s;
    for (N = 2; N <= 18; N += 16) {
        memset(p, 0, sizeof p);
        for (t = 0; t < N - 1; t++) for (s = t + 1; s < N; s++) {
            double both = 1.0 / (N - 1) / (N - 1 - t);
            for (u = t + 1; u <= s; u++) p[0][(t * N + u) * N + s] += both / (s - t);
            p[1][(t * N + t + 1) * N + s] += both;
            p[2][(t * N + s) * N + s] += both;
        }
        check_joint(ctm_times_paper, N, 1, p[0]);
        check_joint(ctm_times_local, N, 1, p[1]);
        check_joint(ctm_times_global, N, 1, p[2]);
    }
}

// [eq:cm] t uniform on 0..N-2.
static void test_cm_times_are_uniform(void) {
    static double p[18 * 18 * 18];
    int t;
    memset(p, 0, sizeof p);
    for (t = 0; t < 17; t++) p[(t * 18 + t + 1) * 18 + 17] = 1.0 / 17;
    check_joint(ctm_times_cm, 18, 1, p);
}

// [eq:dsm_law] What a normal and a uniform number become: the formulas, which the oracle confirms.
static double level_of_normal(const ctm_noise *z, double draw) { return z->sigma_data / 0.5 * exp(-1.2 + 1.2 * draw); }
static double level_of_uniform(const ctm_noise *z, double draw) { return ctm_t_of_index(z, 0.7 * draw * (z->N - 1)); }

static void test_levels_of_the_diagonal_follow_the_oracle(void) {
    golden_file *g = golden_open("schedule");
    ctm_config c = ctm_recipe_authors();
    ctm_rng rng;
    size_t n, m, i;
    const double *z = golden(g, "in.dsm_normals", &n), *u = golden(g, "in.dsm_uniforms", &m);
    double sigma[32];
    int wide, k, B;
    for (i = 0; i < n; i++) sigma[i] = level_of_normal(&c.noise, z[i]);
    for (i = 0; i < m; i++) sigma[n + i] = level_of_uniform(&c.noise, u[i]);
    golden_check_double(g, "out.dsm_sigma", sigma, n + m, 1e-12);
    golden_close(g);
    c.seed = 77;
    rng = ctm_stream(77, "dsm.sigma");
    for (wide = 0; wide < 2; wide++) {
        for (B = 6; B < 8; B++) for (k = 0; k < B; k++) {                        // of seven rows, 0..2 are the first half, 3..6 the rest
            uint64_t row = (uint64_t)k, half = (uint64_t)B / 2;
            double normal = level_of_normal(&c.noise, ctm_normal(&rng, 9, row));
            double uniform = level_of_uniform(&c.noise, ctm_uniform(&rng, 9, row + half % 2));
            c.diagonal_batch = B;
            CHECK_CLOSE(ctm_level_edm(&c, 9, row) / normal, 1, 1e-12);
            CHECK_CLOSE(ctm_level_authors(&c, 9, row) / (row < half ? normal : uniform), 1, 1e-12);
            CHECK_CLOSE(ctm_level_uniform(&c, 9, row) / ctm_t_of_index(&c.noise, ctm_uniform(&rng, 9, row) * 17), 1, 1e-12);
        }
        c.noise.sigma_data *= 6; c.noise.sigma_min *= 6; c.noise.sigma_max *= 6; // data six times as wide: levels six times as high
    }
}

// [eq:dsm_law] First floor(B/2): log-normal (mean log -1.2, sd 1.2); the rest within (.3183, 80], uniform in the index.
static void test_levels_of_the_diagonal_have_their_moments(void) {
    ctm_config c = ctm_recipe_authors();
    double mean = 0, square = 0, index = 0, all = 0;
    int k, outside = 0;
    c.diagonal_batch = 7;
    CHECK_CLOSE(level_of_uniform(&c.noise, 1), .3183, 5e-5);
    for (k = 0; k < 20000; k++) {
        double low = log(ctm_level_authors(&c, (uint64_t)k, (uint64_t)(k % 3))), high = ctm_level_authors(&c, (uint64_t)k, (uint64_t)(3 + k % 4));
        mean += low / 20000;
        square += low * low / 20000;
        CHECK(high > level_of_uniform(&c.noise, 1) && high <= 80);
        index += ctm_index_of_t(&c.noise, high) / (0.7 * 17) / 20000;
        all += ctm_index_of_t(&c.noise, ctm_level_uniform(&c, (uint64_t)k, 1)) / 17 / 20000;
        outside += exp(low) < .3183;
    }
    CHECK_CLOSE(mean, -1.2, 0.045);
    CHECK_CLOSE(sqrt(square - mean * mean), 1.2, 0.035);
    CHECK_CLOSE(index, 0.5, 0.012);
    CHECK_CLOSE(all, 0.5, 0.012);
    CHECK(outside > 9000 && outside < 11000);
}

// A draw depends on (seed, step, index) and on nothing else.
static void test_times_and_levels_are_functions_of_seed_step_and_row(void) {
    int f, k;
    for (f = 0; f < 7; f++) {
        ctm_config c = ctm_recipe_points();
        int changed[2] = {0, 0};
        c.noise.N = 40;                                                          // so many cells that two draws seldom agree
        for (k = 0; k < 200; k++) {
            double a[3], b[3], s;
            c.seed = 1;
            all_times[f].times(&c, 5, (uint64_t)k, a);
            s = ctm_level_edm(&c, 5, (uint64_t)k);
            all_times[f].times(&c, 6, (uint64_t)k, b);
            changed[0] += memcmp(a, b, sizeof a) != 0;
            c.seed = 2;
            all_times[f].times(&c, 5, (uint64_t)k, b);
            changed[1] += memcmp(a, b, sizeof a) != 0;
            CHECK(ctm_level_edm(&c, 5, (uint64_t)k) != s);
            c.seed = 1;
            c.batch = 7; c.shards = 3; c.steps = 12; c.lr = 1;                   // none of its business
            all_times[f].times(&c, 5, (uint64_t)k, b);
            CHECK(memcmp(a, b, sizeof a) == 0 && ctm_level_edm(&c, 5, (uint64_t)k) == s);
        }
        CHECK(changed[0] > 150 && changed[1] > 150);
    }
}

static void run_diffusion(void) {
    RUN(grid_falls_from_80_to_0002_as_in_the_tables); RUN(fractional_indices_are_the_ends_of_substeps); RUN(schedule_golden); RUN(edm_scalings_keep_their_identities);
    RUN(jump_to_its_own_level_is_the_identity); RUN(g_is_recovered_from_G); RUN(zero_network_gives_c_skip_and_the_slope); RUN(G_with_the_denoiser_is_one_euler_step);
    RUN(slope_of_G_in_s_gives_the_denoiser); RUN(jump_from_the_end_is_the_identity_and_so_is_its_gradient); RUN(param_golden_concat); RUN(param_golden_film);
    RUN(jump_refuses_what_cannot_be);
    RUN(gaussian_flow_has_its_closed_form); RUN(mixture_flow_has_the_recorded_values); RUN(mixture_against_second_opinion); RUN(empirical_golden);
    RUN(mixture_denoise_all_isas); RUN(mixture_same_bits_for_threads); RUN(mixture_jacobian); RUN(score_is_the_gradient_of_the_density);
    RUN(mixture_refuses_nonsense);
    RUN(solver_golden_concat); RUN(solver_golden_film); RUN(euler_has_order_one_and_heun_order_two); RUN(solver_wastes_no_evaluation);
    RUN(solver_rows_and_fractions); RUN(heun_on_18_levels_ends_where_it_should); RUN(heun_step_has_the_form_of_g); RUN(solver_refuses_what_cannot_be);
    RUN(g_tends_to_the_denoiser); RUN(exact_jumps_compose); RUN(exact_jumps_solve_both_differential_equations); RUN(paths_do_not_cross_and_are_odd);
    RUN(flow_scales_and_shifts_with_the_data); RUN(point_mass_has_straight_paths); RUN(flow_accuracy); RUN(flow_always_ends); RUN(flow_jump_rows); RUN(net_jump);
    RUN(times_are_in_order_on_every_grid); RUN(authors_times_have_the_joint_distribution_of_the_oracle);
    RUN(authors_times_have_the_moments_of_the_formula); RUN(authors_times_have_one_h_for_a_batch);
    RUN(points_and_images_times_have_their_joint_distributions); RUN(points_times_begin_most_often_where_modes_part);
    RUN(points_times_leave_the_grid_evenly); RUN(paper_times_are_nested_and_uniform); RUN(cm_times_are_uniform);
    RUN(levels_of_the_diagonal_follow_the_oracle); RUN(levels_of_the_diagonal_have_their_moments);
    RUN(times_and_levels_are_functions_of_seed_step_and_row);
}
