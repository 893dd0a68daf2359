// examples/00_mini.c against ctm.h: both train the same network on the same draws, and after 100 steps every loss and every weight agrees.
#define CTM_REAL_DOUBLE
#define CTM_IMPLEMENTATION
#define CTM_NO_OPENMP
#include "../ctm.h"
#define MINI_AS_TEST
#include "../examples/00_mini.c"

static int passed, failed;
static void check(int ok, const char *what, double got, double want) {
    if (ok) passed++; else { failed++; printf("FAILED: %s: %.17g, not %.17g\n", what, got, want); }
}
static int close_to(double a, double b) { return fabs(a - b) <= 1e-5 * (1e-3 + fabs(b)); }

// The network of 00_mini.c made of ctm.h's operations; its weights stand in the same order.
static ctm_tensor *mini_forward(ctm_tape *tp, ctm_net *net, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    ctm_tensor **w = net->param, *h = ctm_concat(tp, x, ctm_time_features(tp, t, 1, PI, 1));
    h = ctm_concat(tp, h, ctm_time_features(tp, s, 1, PI, 1));
    h = ctm_silu(tp, ctm_linear(tp, h, w[0], w[1]));
    h = ctm_silu(tp, ctm_linear(tp, h, w[2], w[3]));
    return ctm_linear(tp, h, w[4], w[5]);
}
static ctm_net *mini_net(ctm_arena *a) {
    ctm_noise z = ctm_noise_default();
    ctm_net *net = ctm_net_new(a, "mini", &z, DIM, 1);
    ctm_param(a, net, "1.weight", IN, WIDTH);    ctm_param(a, net, "1.bias", WIDTH, 0);
    ctm_param(a, net, "2.weight", WIDTH, WIDTH); ctm_param(a, net, "2.bias", WIDTH, 0);
    ctm_param(a, net, "3.weight", WIDTH, DIM);   ctm_param(a, net, "3.bias", DIM, 0);
    ctm_net_ready(a, net);
    net->forward = mini_forward;
    return net;
}

// The draws of one step of 00_mini.c, in its order.
typedef struct draws { double i_t[BATCH], i_u[BATCH], i_s[BATCH], x_t[BATCH * DIM], sigma[BATCH], x0[BATCH * DIM], x_sigma[BATCH * DIM]; } draws;
static void draw_step(draws *q) {
    int i, d;
    for (i = 0; i < BATCH; i++) {
        q->i_t[i] = (int)(uniform() * (LEVELS - 1));
        q->i_s[i] = q->i_t[i] + 1 + (int)(uniform() * (LEVELS - 1 - q->i_t[i]));
        q->i_u[i] = q->i_t[i] + 1 + (int)(uniform() * (q->i_s[i] - q->i_t[i]));
        draw_data(q->x_t + DIM * i);
        for (d = 0; d < DIM; d++) q->x_t[DIM * i + d] += level(q->i_t[i]) * normal();
    }
    for (i = 0; i < BATCH; i++) {
        q->sigma[i] = fmax(ZERO, fmin(T, exp(-1.2 + 1.2 * normal())));
        draw_data(q->x0 + DIM * i);
        for (d = 0; d < DIM; d++) q->x_sigma[DIM * i + d] = q->x0[DIM * i + d] + q->sigma[i] * normal();
    }
}

static ctm_tensor *points_of(ctm_tape *tp, const char *name, const double *v) {
    ctm_tensor *x = ctm_matrix(tp, name, BATCH, DIM);
    memcpy(x->data, v, sizeof(double) * BATCH * DIM);
    return x;
}
static ctm_tensor *levels_of(ctm_tape *tp, const char *name, const ctm_noise *z, const double *index) {
    ctm_tensor *t = ctm_vector(tp, name, BATCH);
    int i;
    for (i = 0; i < BATCH; i++) t->data[i] = ctm_t_of_index(z, index[i]);
    return t;
}

int main(void) {
    static draws q;
    static double grad_ctm[WEIGHTS], first[WEIGHTS];
    ctm_ctx ctx;
    ctm_arena keep, arena;
    ctm_tape tape;
    ctm_net *net, *average;
    ctm_denoiser *teacher;
    ctm_opt opt;
    double centre[MODES * DIM], worst = 0, moved = 0;
    int step, i, k;
    ctm_init(&ctx);
    ctm_arena_init(&keep, &ctx, "model");
    ctm_arena_init(&arena, &ctx, "step");
    ctm_tape_init(&tape, &ctx, &arena);
    for (k = 0; k < MODES; k++) for (i = 0; i < DIM; i++) centre[DIM * k + i] = mode(k, i);
    teacher = ctm_mixture(&keep, DIM, MODES, centre, NULL, STD);
    net = mini_net(&keep);
    init();
    check(net->param[5]->data - net->theta == B3, "where the last bias stands", (double)(net->param[5]->data - net->theta), B3);
    memcpy(first, theta, sizeof first);
    memcpy(net->theta, theta, sizeof theta);
    average = ctm_net_clone(&keep, net);
    ctm_opt_init(&keep, &opt, CTM_RADAM, WEIGHTS, LEARNING_RATE);
    for (step = 0; step < 100; step++) {
        unsigned long long before = state, after;
        double L_ctm, L_dsm, lambda;
        const ctm_noise *z = &net->noise;
        ctm_tensor *x_t, *t, *s, *x_u, *target, *est, *L, *sigma, *w;
        train_step(step, LEARNING_RATE, &L_ctm, &L_dsm);
        after = state;
        state = before;
        draw_step(&q);
        check(state == after, "the random numbers used by a step", (double)state, (double)after);

        ctm_tape_reset(&tape);
        memset(net->grad, 0, sizeof(double) * WEIGHTS);
        x_t = points_of(&tape, "x_t", q.x_t);
        t = levels_of(&tape, "t", z, q.i_t);
        s = levels_of(&tape, "s", z, q.i_s);
        x_u = ctm_solve(&tape, teacher, z, CTM_HEUN, x_t, q.i_t, q.i_u, 1);
        target = ctm_x_target(&tape, average, average, x_u, levels_of(&tape, "u", z, q.i_u), s, NULL);
        est = ctm_x_est(&tape, net, average, x_t, t, s, NULL);
        L = ctm_weighted_mean(&tape, ctm_distance(&tape, est, target, CTM_L2, 0), NULL, BATCH);
        ctm_backward(&tape, L);
        check(close_to(L->data[0], L_ctm), "L_CTM", L_ctm, L->data[0]);
        memcpy(grad_ctm, net->grad, sizeof grad_ctm);

        ctm_tape_reset(&tape);
        memset(net->grad, 0, sizeof(double) * WEIGHTS);
        sigma = ctm_vector(&tape, "sigma", BATCH);
        w = ctm_vector(&tape, "w", BATCH);
        for (i = 0; i < BATCH; i++) { sigma->data[i] = q.sigma[i]; w->data[i] = ctm_weight_karras(z, q.sigma[i], q.sigma[i]); }
        est = ctm_D_theta(&tape, net, points_of(&tape, "x_sigma", q.x_sigma), sigma);
        L = ctm_weighted_mean(&tape, ctm_distance(&tape, est, points_of(&tape, "x0", q.x0), CTM_L2, 0), w, BATCH);
        ctm_backward(&tape, L);
        check(close_to(L->data[0], L_dsm), "L_DSM", L_dsm, L->data[0]);

        lambda = ctm_adaptive_weight(grad_ctm + W3, net->grad + W3, B3 - W3);
        for (i = 0; i < WEIGHTS; i++) grad_ctm[i] += lambda * net->grad[i];
        ctm_opt_step(&ctx, &opt, net->theta, grad_ctm);
        ctm_ema_step(&ctx, WEIGHTS, average->theta, net->theta, EMA_RATE);
    }
    for (i = 0; i < WEIGHTS; i++) {
        worst = fmax(worst, fmax(fabs(theta[i] - net->theta[i]), fabs(ema[i] - average->theta[i])));
        moved = fmax(moved, fabs(theta[i] - first[i]));
    }
    check(worst <= 1e-5, "the largest difference of weights after 100 steps", worst, 0);
    check(moved >= 0.05, "how far the weights have moved", moved, 0.05);
    printf("mini: %d passed, %d failed\n", passed, failed);
    return failed != 0;
}
