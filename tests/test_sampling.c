// Chapters 18 and 19: the samplers with recorded noise against the oracle, their invariants, and the likelihood.
#include "golden.h"

// [alg:gamma] [alg:heun] Every sampler of the golden file, with its recorded noise.
static void check_gamma(golden_file *g, room *r, const ctm_jump *G, const char *name, double gamma, int form) {
    ctm_sampler how = ctm_sampler_default();
    size_t len = golden_entry(g, "in.noise")->len;
    ctm_real *noise = (ctm_real *)ctm_alloc(&r->keep, len * sizeof(ctm_real));
    ctm_tensor *y;
    golden_copy(g, "in.noise", noise);
    how.gamma = gamma;
    how.form = form;
    how.noise = noise;
    y = ctm_sample_gamma(&r->tape, G, golden_tensor(&r->tape, g, "in.x_T"), 4, golden(g, "in.ts", NULL), &how);
    CHECK(y != NULL);
    if (y) { golden_check(g, name, y->data, y->len); golden_check_rows(g, name, y->data, y->len); }
    ctm_tape_reset(&r->tape);
}
static void test_sampler_golden(void) {
    golden_file *g = golden_open("sampler");
    room r;
    ctm_net *net;
    ctm_jump *G;
    ctm_denoiser *D;
    ctm_sampler how = ctm_sampler_default();
    const double *ts, *ode;
    double ends[2] = {80, 0.002};
    ctm_tensor *x, *y;
    room_open(&r);
    net = golden_net(&r.keep, g, "film", "w.net.", 1);
    G = ctm_net_jump(&r.keep, net);
    D = ctm_net_denoiser(&r.keep, net);
    check_gamma(g, &r, G, "out.gamma_0", 0, CTM_FORM_PAPER);
    check_gamma(g, &r, G, "out.gamma_0.5", 0.5, CTM_FORM_PAPER);
    check_gamma(g, &r, G, "out.gamma_1", 1, CTM_FORM_PAPER);
    check_gamma(g, &r, G, "out.gamma_0.5_shifted", 0.5, CTM_FORM_AUTHORS);
    check_gamma(g, &r, G, "out.gamma_0", 0, CTM_FORM_AUTHORS);                   // 54: the forms meet at both ends
    check_gamma(g, &r, G, "out.cm", 1, CTM_FORM_PAPER);                          // gamma = 1 is the consistency model's multistep
    check_gamma(g, &r, G, "out.cm", 1, CTM_FORM_AUTHORS);
    ts = golden(g, "in.ts", NULL);
    ode = golden(g, "in.ts_ode", NULL);
    x = golden_tensor(&r.tape, g, "in.x_T");
    y = ctm_sample_gamma(&r.tape, G, x, 1, ends, &how);
    golden_check(g, "out.onestep", y->data, y->len);
    y = ctm_sample_heun(&r.tape, D, x, 6, ode);                                  // the last step, to 0, is Euler's
    golden_check(g, "out.heun", y->data, y->len);
    golden_check_rows(g, "out.heun", y->data, y->len);
    y = ctm_sample_heun(&r.tape, D, x, 5, ode);
    golden_check(g, "out.heun_to_min", y->data, y->len);
    y = ctm_sample_euler(&r.tape, D, x, 6, ode);
    golden_check(g, "out.euler", y->data, y->len);
    y = ctm_sample_euler(&r.tape, D, x, 5, ode);
    golden_check(g, "out.euler_to_min", y->data, y->len);
    CHECK(ts[0] == 80 && x->data[0] == golden_tensor(&r.tape, g, "in.x_T")->data[0]);            // the start is left alone
    room_close(&r);
    golden_close(g);
}

static ctm_tensor *start_noise(room *r, int rows, int dim) {
    ctm_tensor *x = ctm_matrix(&r->tape, "x_T", rows, dim);
    ctm_rng rng = ctm_stream(12, "x_T");
    size_t i;
    ctm_normals(&rng, 0, 0, x->len, x->data);
    for (i = 0; i < x->len; i++) x->data[i] *= 80;
    return x;
}

// [alg:gamma] gamma = 0 uses no random numbers after x_T: no stream is needed, and two runs agree bit for bit, as does a stream's presence.
static void test_invariant_51_gamma_0_is_deterministic(void) {
    room r;
    ctm_jump *G;
    ctm_sampler how = ctm_sampler_default();
    ctm_rng rng = ctm_stream(1, "unused");
    double ts[6];
    ctm_tensor *x, *a, *b;
    room_open(&r);
    G = ctm_net_jump(&r.keep, wild_net(&r.keep, 2, 1, 20));
    ctm_karras_times(&G->noise, 6, ts);
    x = start_noise(&r, 50, 2);
    a = ctm_sample_gamma(&r.tape, G, x, 5, ts, &how);
    how.rng = &rng;
    b = ctm_sample_gamma(&r.tape, G, x, 5, ts, &how);
    CHECK(a && b && same_bits(a->data, b->data, a->len));
    how.gamma = 0.3;
    b = ctm_sample_gamma(&r.tape, G, x, 5, ts, &how);
    CHECK(a && b && !same_bits(a->data, b->data, a->len));
    room_close(&r);
}

// [alg:gamma] gamma = 0 is the chain of jumps; one jump is G(x,80,.002) whatever gamma is; n jumps take n evaluations, Heun 2n - 1.
static long jumps_made;
static ctm_tensor *counted_jump(ctm_tape *tp, const ctm_jump *self, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    const ctm_jump *inner = (const ctm_jump *)self->impl;
    jumps_made++;
    return inner->jump(tp, inner, x, t, s);
}
static void test_invariant_52_chain_and_evaluations(void) {
    room r;
    ctm_net *net;
    ctm_jump *G, C;
    ctm_denoiser D;
    counted count;
    ctm_sampler how = ctm_sampler_default();
    double ts[8], one[2] = {80, 0.002}, gamma;
    ctm_tensor *x, *y, *chain;
    int n, j;
    room_open(&r);
    net = wild_net(&r.keep, 2, 1, 21);
    G = ctm_net_jump(&r.keep, net);
    C = *G;
    C.impl = G;
    C.jump = counted_jump;
    D = counting(&count, ctm_net_denoiser(&r.keep, net));
    x = start_noise(&r, 9, 2);
    for (n = 1; n <= 6; n++) {
        ctm_karras_times(&net->noise, n + 1, ts);
        jumps_made = 0;
        how.gamma = 0;
        y = ctm_sample_gamma(&r.tape, &C, x, n, ts, &how);
        CHECK(jumps_made == n);
        for (chain = x, j = 0; j < n; j++) chain = ctm_G_theta(&r.tape, net, chain, levels(&r.tape, "t", 9, ts[j]), levels(&r.tape, "s", 9, ts[j + 1]));
        CHECK(y && same_bits(y->data, chain->data, chain->len));
        ts[n] = 0;                                                               // Heun's last step, to 0, is Euler's
        count.calls = 0;
        ctm_sample_heun(&r.tape, &D, x, n, ts);
        CHECK(count.calls == 2 * n - 1);
        count.calls = 0;
        ctm_sample_euler(&r.tape, &D, x, n, ts);
        CHECK(count.calls == n);
    }
    chain = ctm_G_theta(&r.tape, net, x, levels(&r.tape, "t", 9, 80), levels(&r.tape, "s", 9, 0.002));
    for (gamma = 0; gamma <= 1; gamma += 0.25) {
        how.gamma = gamma;
        y = ctm_sample_gamma(&r.tape, G, x, 1, one, &how);                       // no noise is needed for one jump
        CHECK(y && same_bits(y->data, chain->data, chain->len));
    }
    room_close(&r);
}

// [alg:gamma] With the exact flow of N(0,c²) every gamma, in both forms, keeps the variance t² + c² at every node.
typedef struct moments { double t[8], var[8]; int n; } moments;
static int take_moments(void *user, int n, double t, const ctm_tensor *x) {
    moments *m = (moments *)user;
    double sum = 0;
    size_t i;
    for (i = 0; i < x->len; i++) sum += (double)x->data[i] * (double)x->data[i];
    m->t[m->n] = t;
    m->var[m->n++] = sum / (double)x->len;
    return n == m->n;
}
static void test_invariant_53_variance_is_kept(void) {
    room r;
    ctm_net *net;
    ctm_jump *G;
    double ts[5], gamma;
    int form, j;
    room_open(&r);
    net = gauss_net(&r.keep, 2);                                                 // the exact flow, as a network
    G = ctm_net_jump(&r.keep, net);
    ctm_karras_times(&net->noise, 5, ts);
    for (form = 0; form < 2; form++)
        for (gamma = 0; gamma < 1.01; gamma += 0.2) {
            ctm_sampler how = ctm_sampler_default();
            ctm_rng rng = ctm_stream(7, "gamma");
            moments m;
            ctm_tensor *x = start_noise(&r, 10000, 2);
            size_t i;
            m.n = 0;
            for (i = 0; i < x->len; i++) x->data[i] *= (ctm_real)(sqrt(6400.25) / 80);           // x_T with its exact variance
            how.gamma = gamma < 1 ? gamma : 1;
            how.form = form ? CTM_FORM_AUTHORS : CTM_FORM_PAPER;
            how.rng = &rng;
            how.watch = take_moments;
            how.user = &m;
            CHECK(ctm_sample_gamma(&r.tape, G, x, 4, ts, &how) != NULL);
            CHECK(m.n == 4);
            for (j = 0; j < m.n; j++) {
                CHECK_CLOSE(m.t[j], ts[j + 1], 1e-12);
                CHECK_CLOSE(m.var[j] / (ts[j + 1] * ts[j + 1] + 0.25), 1, 0.05); // standard error .01, a little more after some noises
            }
            ctm_tape_reset(&r.tape);
        }
    room_close(&r);
}

// [alg:gamma] 54: the noise is gamma·t' where s > sigma_min, sqrt(t'² - s²) in any case; gamma -> 1 gives s -> .002.
static double seen_s[16];
static int seen_n;
static ctm_tensor *spying_jump(ctm_tape *tp, const ctm_jump *self, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    (void)self; (void)t;
    seen_s[seen_n++] = (double)s->data[0];
    return ctm_matrix(tp, "zero", x->shape[0], x->shape[1]);                     // everything lands on 0: what follows is the noise alone
}
static void test_invariant_54_levels_and_noise(void) {
    static const double ts[4] = {80, 10, 0.5, 0.002}, gammas[4] = {0.2, 0.8, 0.99999999, 1};
    ctm_real noise[4] = {1, -2, 0.5, 1};
    int k, form;
    for (form = 0; form < 2; form++)
        for (k = 0; k < 4; k++) {
            room r;
            ctm_jump G;
            ctm_sampler how = ctm_sampler_default();
            double gamma = gammas[k], root = sqrt(1 - gamma * gamma), s0 = form ? root * (10 - .002) + .002 : larger(root * 10, .002);
            double s1 = form ? root * (.5 - .002) + .002 : larger(root * .5, .002);
            moments m;
            room_open(&r);
            memset(&G, 0, sizeof G);
            G.dim = 2;
            G.noise = ctm_noise_default();
            G.jump = spying_jump;
            m.n = 0;
            how.gamma = gamma;
            how.form = form ? CTM_FORM_AUTHORS : CTM_FORM_PAPER;
            how.noise = noise;
            how.watch = take_moments;
            how.user = &m;
            seen_n = 0;
            CHECK(ctm_sample_gamma(&r.tape, &G, start_noise(&r, 1, 2), 3, ts, &how) != NULL);
            CHECK(seen_n == 3);
            CHECK_CLOSE(seen_s[0], s0, 1e-6 * s0);
            CHECK_CLOSE(seen_s[1], s1, 1e-6 * s1);
            CHECK_CLOSE(seen_s[2], 0.002, 1e-9);
            CHECK_CLOSE(m.var[0], (100 - s0 * s0) * (1 + 4) / 2, 1e-4);          // noise[0], noise[1]
            CHECK_CLOSE(m.var[1], (.25 - s1 * s1) * (.25 + 1) / 2, 1e-6);        // noise[2], noise[3]
            CHECK(m.var[2] == 0);                                                // the last jump adds none
            if (!form && k < 2) CHECK_CLOSE(sqrt(100 - s0 * s0), gamma * 10, 1e-9);
            room_close(&r);
        }
}

// Bad arguments: NULL and one line.
static void refused(room *r, const ctm_jump *G, int n, const double *ts, const ctm_sampler *how, const char *part) {
    r->ctx.error[0] = 0;
    CHECK(ctm_sample_gamma(&r->tape, G, ctm_matrix(&r->tape, "x", 3, 2), n, ts, how) == NULL);
    if (!strstr(ctm_error(&r->ctx), part)) { test_fail(__FILE__, __LINE__, part); printf("     is not in \"%s\"\n", ctm_error(&r->ctx)); }
    CHECK(strchr(ctm_error(&r->ctx), '\n') == NULL);
}
static void test_samplers_refuse_bad_arguments(void) {
    static const double good[3] = {80, 1, 0.002}, flat[3] = {80, 80, 0.002}, rising[3] = {1, 80, 0.002}, low[2] = {80, 0.001}, below[2] = {80, -1};
    double not_a_level[2];
    room r;
    ctm_net *net;
    ctm_jump *G;
    ctm_denoiser *D;
    ctm_sampler how = ctm_sampler_default();
    ctm_rng rng = ctm_stream(1, "noise");
    ctm_real x[6] = {1, 2, 3, 4, 5, 6}, keep[6];
    room_open(&r);
    net = wild_net(&r.keep, 2, 1, 22);
    G = ctm_net_jump(&r.keep, net);
    D = ctm_net_denoiser(&r.keep, net);
    how.rng = &rng;
    how.gamma = 1.5;     refused(&r, G, 2, good, &how, "gamma is 1.5; it must lie in [0,1]");
    how.gamma = -0.1;    refused(&r, G, 2, good, &how, "gamma is -0.1; it must lie in [0,1]");
    how.gamma = nan(""); refused(&r, G, 2, good, &how, "it must lie in [0,1]");
    how.gamma = 0.5;
    refused(&r, G, 2, flat, &how, "noise levels must decrease: level 0 is 80, level 1 is 80");
    refused(&r, G, 2, rising, &how, "level 0 is 1, level 1 is 80");
    refused(&r, G, 0, good, &how, "at least one jump, not 0");
    refused(&r, G, -3, good, &how, "at least one jump, not -3");
    refused(&r, G, 1, low, &how, "cannot be below 0.002");
    not_a_level[0] = 80; not_a_level[1] = nan("");
    refused(&r, G, 1, not_a_level, &how, "must decrease");
    how.rng = NULL;
    refused(&r, G, 2, good, &how, "gamma is 0.5, but no stream of noise was given");
    CHECK(ctm_sample_heun(&r.tape, D, ctm_matrix(&r.tape, "x", 3, 2), 2, flat) == NULL);
    CHECK(ctm_sample_euler(&r.tape, D, ctm_matrix(&r.tape, "x", 3, 2), 1, below) == NULL);
    CHECK_TEXT(ctm_error(&r.ctx), "the last noise level is -1");
    memcpy(keep, x, sizeof x);
    CHECK(ctm_sample_points(net, x, 3, 0, 0, NULL) == 0);
    CHECK_TEXT(ctm_error(&r.ctx), "at least one jump, not 0");
    CHECK(ctm_sample_points(net, x, 3, 2, 1.5, &rng) == 0);
    CHECK_TEXT(ctm_error(&r.ctx), "gamma is 1.5");
    CHECK(ctm_sample_points(net, x, 3, 2, 0.5, NULL) == 0);
    CHECK_TEXT(ctm_error(&r.ctx), "no stream of noise");
    CHECK(same_bits(x, keep, 6));                                                // nothing half-done
    room_close(&r);
    CHECK(r.ctx.allocated == 0);
}

// The watch callback sees every jump and can stop.
static int stop_at_two(void *user, int n, double t, const ctm_tensor *x) {
    double *last = (double *)user;
    last[0] = n;
    last[1] = t;
    last[2] = (double)x->data[0];
    return n < 2;
}
static void test_watch_stops(void) {
    room r;
    ctm_jump *G;
    ctm_sampler how = ctm_sampler_default();
    double ts[6], last[3] = {0, 0, 0};
    ctm_tensor *y;
    room_open(&r);
    G = ctm_net_jump(&r.keep, wild_net(&r.keep, 2, 1, 23));
    ctm_karras_times(&G->noise, 6, ts);
    how.watch = stop_at_two;
    how.user = last;
    y = ctm_sample_gamma(&r.tape, G, start_noise(&r, 4, 2), 5, ts, &how);
    CHECK(last[0] == 2 && last[1] == ts[2]);
    CHECK(y && (double)y->data[0] == last[2]);
    room_close(&r);
}

// ctm_sample_points is the long way, row by row the same for any chunk and any number of threads.
static void test_sample_points_is_the_long_way(void) {
    enum { N = 2500 };                                                           // more than two of its pieces
    static const double gammas[2] = {0, 0.7};
    room r;
    ctm_net *net;
    ctm_jump *G;
    ctm_rng rng = ctm_stream(4, "noise");
    ctm_real *a, *b;
    double ts[4];
    int k, q;
    room_open(&r);
    net = wild_net(&r.keep, 2, 1, 24);
    G = ctm_net_jump(&r.keep, net);
    ctm_karras_times(&net->noise, 4, ts);
    a = (ctm_real *)ctm_alloc(&r.keep, 2 * N * sizeof *a);
    b = (ctm_real *)ctm_alloc(&r.keep, 2 * N * sizeof *b);
    for (k = 0; k < 2; k++) {
        ctm_sampler how = ctm_sampler_default();
        ctm_tensor *x = start_noise(&r, N, 2), *y, *part;
        memcpy(a, x->data, 2 * N * sizeof *a);
        memcpy(b, x->data, 2 * N * sizeof *b);
        how.gamma = gammas[k];
        how.rng = &rng;
        r.tape.recording = 0;
        y = ctm_sample_gamma(&r.tape, G, x, 3, ts, &how);
        CHECK(ctm_sample_points(net, a, N, 3, gammas[k], &rng));
        CHECK(y && same_bits(a, y->data, 2 * N));
        for (q = 1; q < 8; q += 3) {
            memcpy(b, x->data, 2 * N * sizeof *b);
            r.ctx.threads = q;
            CHECK(ctm_sample_points(net, b, N, 3, gammas[k], &rng));
            CHECK(same_bits(a, b, 2 * N));
        }
        part = ctm_matrix(&r.tape, "part", 100, 2);                              // rows 1777..1876 alone
        memcpy(part->data, x->data + 2 * 1777, 200 * sizeof(ctm_real));
        how.first_row = 1777;
        part = ctm_sample_gamma(&r.tape, G, part, 3, ts, &how);
        CHECK(part && same_bits(part->data, a + 2 * 1777, 200));
        CHECK(ctm_sample_points(net, b, 0, 3, gammas[k], &rng));                 // no points: nothing to do
        ctm_tape_reset(&r.tape);
    }
    room_close(&r);
}

// [alg:heun] As a sampler, Heun's chain is ctm_solve's; Heun and Euler approach the exact flow with more steps.
static void test_heun_sampler_is_the_solver(void) {
    room r;
    ctm_denoiser *D;
    ctm_noise z = ctm_noise_default();
    double ts[129], from[20], to[20], in[40], out[40], s = 0.002, last[2] = {1e9, 1e9};
    ctm_tensor *x, *a, *b;
    int i, n, m;
    room_open(&r);
    D = ring(&r.keep);
    x = start_noise(&r, 20, 2);
    for (i = 0; i < 20; i++) { from[i] = 0; to[i] = 17; }
    for (i = 0; i < 40; i++) in[i] = (double)x->data[i];
    ctm_karras_times(&z, 18, ts);
    a = ctm_sample_heun(&r.tape, D, x, 17, ts);
    b = ctm_solve(&r.tape, D, &z, CTM_HEUN, x, from, to, 1);
    CHECK(a && same_bits(a->data, b->data, a->len));
    a = ctm_sample_euler(&r.tape, D, x, 17, ts);
    b = ctm_solve(&r.tape, D, &z, CTM_EULER, x, from, to, 1);
    CHECK(a && same_bits(a->data, b->data, a->len));
    ctm_exact_flow(&r.ctx, D, 20, in, 80, 1, &s, 1e-10, out);
    for (n = 32; n <= 128; n *= 2)
        for (m = 0; m < 2; m++) {
            double err = 0;
            ctm_karras_times(&z, n + 1, ts);
            a = m ? ctm_sample_euler(&r.tape, D, x, n, ts) : ctm_sample_heun(&r.tape, D, x, n, ts);
            for (i = 0; i < 40; i++) err += fabs((double)a->data[i] - out[i]) / 40;
            CHECK(err < last[m] / (m ? 1.5 : 2.5));
            last[m] = err;
        }
    CHECK(last[0] < 0.004 && last[0] < last[1] / 4);
    room_close(&r);
}

// Shapes that do not fit stop with the names.
static void test_sampler_shape_panics(void) {
    room r;
    ctm_jump *G;
    ctm_sampler how = ctm_sampler_default();
    double ts[2] = {80, 0.002};
    room_open(&r);
    G = ctm_net_jump(&r.keep, wild_net(&r.keep, 2, 1, 25));
    CHECK(PANICS(ctm_sample_gamma(&r.tape, G, ctm_matrix(&r.tape, "three columns", 4, 3), 1, ts, &how)));
    CHECK_TEXT(test_panic, "\"three columns\" [4,3]");
    room_close(&r);
}

// ---- likelihood -----------------------------------------------------------------------------------------------------

// [eq:loglik] Against the oracle: Heun on the point and the divergence, 11 Karras intervals, prior N(0, 80²).
static void test_likelihood_golden(void) {
    golden_file *g = golden_open("likelihood");
    room r;
    ctm_denoiser *D;
    ctm_noise z = ctm_noise_default();
    size_t n, i;
    const double *ts = golden(g, "in.ts", &n);
    double mine[12], logp[6];
    ctm_tensor *x;
    ctm_real got[6];
    room_open(&r);
    ctm_karras_times(&z, (int)n, mine);
    for (i = 0; i < n; i++) CHECK_CLOSE(ts[i] / mine[n - 1 - i], 1, 1e-12);
    D = ctm_net_denoiser(&r.keep, golden_net(&r.keep, g, "film", "w.net.", 1));
    x = golden_tensor(&r.tape, g, "in.x");
    ctm_loglik(&r.tape, D, &z, CTM_HEUN, 6, x->data, (int)n - 1, 0, logp);
    for (i = 0; i < 6; i++) got[i] = (ctm_real)logp[i];
    golden_check(g, "out.logp", got, 6);
    CHECK(r.tape.first == NULL && r.tape.recording == 1);
    room_close(&r);
    golden_close(g);
}

// [eq:loglik] Gaussian data: the closed form to 1e-4; prior N(0, 80²) as in section 7.2, or the exact N(0, 80² + c²).
static void test_invariant_60_gaussian_likelihood(void) {
    room r;
    ctm_denoiser *D;
    ctm_noise z = ctm_noise_default();
    double zero[2] = {0, 0}, logp[5];
    ctm_real x1[1] = {(ctm_real)0.3}, x2[10];
    int i;
    room_open(&r);
    D = ctm_mixture(&r.keep, 1, 1, zero, NULL, 0.5);
    ctm_loglik(&r.tape, D, &z, CTM_RK4, 1, x1, 80, 0, logp);
    CHECK_CLOSE(logp[0], -.40578397, 1e-4);
    ctm_loglik(&r.tape, D, &z, CTM_RK4, 1, x1, 80, 0.25, logp);
    CHECK_CLOSE(logp[0], -.40579647, 1e-4);
    CHECK_CLOSE(.5 * log((.002 * .002 + .25) / (6400 + .25)), -5.0751853, 1e-7);
    if (IN_DOUBLE) {                                                             // 12 parts in a million apart: only double sees it
        ctm_loglik(&r.tape, D, &z, CTM_RK4, 1, x1, 300, 0, logp);
        CHECK_CLOSE(logp[0], -.40578397, 1e-6);
        ctm_loglik(&r.tape, D, &z, CTM_RK4, 1, x1, 300, 0.25, logp);
        CHECK_CLOSE(logp[0], -.40579647, 1e-6);
    }
    D = ctm_mixture(&r.keep, 2, 1, zero, NULL, 0.5);
    for (i = 0; i < 10; i++) x2[i] = (ctm_real)(0.25 * i - 1);
    ctm_loglik(&r.tape, D, &z, CTM_RK4, 5, x2, 80, 0.25, logp);
    for (i = 0; i < 5; i++) {
        double q = (double)x2[2 * i] * (double)x2[2 * i] + (double)x2[2 * i + 1] * (double)x2[2 * i + 1];
        CHECK_CLOSE(logp[i], -q / (2 * .250004) - log(2 * 3.14159265358979324 * .250004), 2e-4);
    }
    room_close(&r);
}

// [eq:loglik] A mixture through its exact denoiser: log p of the data noised by sigma_min, to 1e-3 nats.
static void test_mixture_likelihood(void) {
    room r;
    ctm_denoiser *D;
    ctm_noise z = ctm_noise_default();
    ctm_real x[24];
    double logp[12], coarse[12], in[2], worst = 0, heun = 0;
    ctm_rng rng = ctm_stream(9, "likelihood");
    int i, k;
    room_open(&r);
    D = ring(&r.keep);
    for (i = 0; i < 12; i++) {
        double a = (i % 8) * 0.785398163397448;
        x[2 * i] = (ctm_real)(0.7 * cos(a) + 0.05 * ctm_normal(&rng, 0, (uint64_t)(2 * i)));
        x[2 * i + 1] = (ctm_real)(0.7 * sin(a) + 0.05 * ctm_normal(&rng, 0, (uint64_t)(2 * i + 1)));
    }
    ctm_loglik(&r.tape, D, &z, CTM_RK4, 12, x, 120, 0.25, logp);
    ctm_loglik(&r.tape, D, &z, CTM_HEUN, 12, x, 80, 0.25, coarse);
    for (i = 0; i < 12; i++) {
        double want;
        for (k = 0; k < 2; k++) in[k] = (double)x[2 * i + k];
        want = D->log_density(D, in, 0.002);
        worst = larger(worst, fabs(logp[i] - want));
        heun = larger(heun, fabs(coarse[i] - want));
    }
    CHECK(worst < 1e-3);
    CHECK(heun > worst && heun < 0.1);                                           // as the interface says: about .02
    room_close(&r);
}

// [eq:loglik] A denoiser that cannot be differentiated, and a tape that is in use, stop with a sentence.
static void test_likelihood_refuses(void) {
    room r;
    wide_mixture m;
    ctm_denoiser W, *D;
    ctm_noise z = ctm_noise_default();
    ctm_real x[2] = {0, 0};
    double logp;
    room_open(&r);
    m.K = 2; m.mean = mean_A; m.std = std_A; m.weight = weight_A;
    W = wide_denoiser(&m, 1);
    CHECK(PANICS(ctm_loglik(&r.tape, &W, &z, CTM_RK4, 1, x, 4, 0, &logp)));
    CHECK_TEXT(test_panic, "cannot be differentiated");
    ctm_tape_reset(&r.tape);
    D = ring(&r.keep);
    CHECK(PANICS(ctm_loglik(&r.tape, D, &z, CTM_RK4, 1, x, 0, 0, &logp)));
    CHECK_TEXT(test_panic, "steps must be positive");
    room_close(&r);
}

// The likelihood leaves the network's own gradients out of it, and gives the same bits for a chunk of the points.
static void test_likelihood_rows(void) {
    room r;
    ctm_net *net;
    ctm_denoiser *D;
    ctm_noise z = ctm_noise_default();
    ctm_real x[20];
    double all[10], part[10];
    int i;
    room_open(&r);
    net = ctm_net_clone(&r.keep, wild_net(&r.keep, 2, 1, 26));
    D = ctm_net_denoiser(&r.keep, net);
    for (i = 0; i < 20; i++) x[i] = (ctm_real)(0.1 * i - 1);
    ctm_loglik(&r.tape, D, &z, CTM_RK4, 10, x, 8, 0, all);
    ctm_loglik(&r.tape, D, &z, CTM_RK4, 4, x + 6, 8, 0, part);
    for (i = 0; i < 4; i++) CHECK_CLOSE(part[i], all[3 + i], rounding(1e-4, 1e-10));
    room_close(&r);
}

static void run_sampling(void) {
    RUN(sampler_golden); RUN(invariant_51_gamma_0_is_deterministic); RUN(invariant_52_chain_and_evaluations); RUN(invariant_53_variance_is_kept);
    RUN(invariant_54_levels_and_noise); RUN(samplers_refuse_bad_arguments); RUN(watch_stops); RUN(sample_points_is_the_long_way);
    RUN(heun_sampler_is_the_solver); RUN(sampler_shape_panics);
    RUN(likelihood_golden); RUN(invariant_60_gaussian_likelihood); RUN(mixture_likelihood); RUN(likelihood_refuses); RUN(likelihood_rows);
}
