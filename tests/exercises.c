/* exercises.c - the numbers that EXERCISES.md asks for, computed. It is also one solution of each exercise: look here last.

   make build/exercises && build/exercises [NUMBER]      prints lines `exercise N: what value` */
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { N = 2000, DOTS = 8 };
static double centre[DOTS][2];
static ctm_ctx ctx;
static ctm_arena memory;
static ctm_denoiser *exact;

static void draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    const double *c = centre[(int)(DOTS*ctm_uniform(rng, step, 4*index))];
    for (int j = 0; j < 2; j++) x0[j] = (ctm_real)(c[j] + 0.05*ctm_normal(rng, step, 4*index + 2 + (uint64_t)j));
    (void)user;
}

// The ring of examples/05_gamma.c and its exact denoiser.
static void set_up(void) {
    ctm_init(&ctx);
    ctx.threads = 1;
    ctm_arena_init(&memory, &ctx, "exercises");
    for (int k = 0; k < DOTS; k++) { centre[k][0] = 0.7*cos(k*6.2832/DOTS); centre[k][1] = 0.7*sin(k*6.2832/DOTS); }
    exact = ctm_mixture(&memory, 2, DOTS, centre[0], NULL, 0.05);
}

// The settings of examples/05_gamma.c.
static ctm_config lesson(void) {
    ctm_config cfg = ctm_recipe_paper();
    cfg.hidden = 48;
    cfg.layers = 3;
    cfg.batch = cfg.diagonal_batch = 64;
    cfg.steps = 2000;
    return cfg;
}

static ctm_trainer *train(const ctm_config *cfg, ctm_distance_fn distance) {
    ctm_trainer *tr = ctm_trainer_new(&memory, cfg, ctm_mlp(&memory, cfg, 2, 1), exact, draw, NULL);
    tr->distance = distance;
    while (tr->step < cfg->steps) if (!ctm_train_step(tr)) { puts(ctm_error(&ctx)); exit(1); }
    return tr;
}

static ctm_net *lesson_student(void) {            // trained once, used by several exercises
    static ctm_net *net;
    ctm_config cfg = lesson();
    if (!net) net = train(&cfg, NULL)->ema[0];
    return net;
}

static ctm_tape *new_tape(void) {
    ctm_tape *tp = (ctm_tape *)ctm_alloc(&memory, sizeof *tp);
    ctm_tape_init(tp, &ctx, &memory);
    return tp;
}

static ctm_tensor *level(ctm_tape *tp, int n, double t) { return ctm_fill(ctm_vector(tp, "level", n), t); }

static double rms(const ctm_tensor *a, const ctm_tensor *b) {
    double sum = 0;
    for (size_t i = 0; i < a->len; i++) sum += ((double)a->data[i] - (double)b->data[i])*((double)a->data[i] - (double)b->data[i]);
    return sqrt(sum/(double)a->len);
}

static ctm_tensor *noise(ctm_tape *tp) {
    ctm_rng rng = ctm_stream(1, "start");
    ctm_tensor *x = ctm_matrix(tp, "x_T", N, 2);
    for (size_t i = 0; i < x->len; i++) x->data[i] = (ctm_real)(80*ctm_normal(&rng, 0, i));
    return x;
}

// A chain of n jumps against the exact flow of the same noise.
static double chain_error(ctm_net *net, int n) {
    ctm_tape *tp = new_tape();
    ctm_tensor *x = noise(tp), *y;
    ctm_jump *flow = ctm_flow_jump(&memory, exact, &net->noise);
    y = flow->jump(tp, flow, x, level(tp, N, 80), level(tp, N, 0.002));
    if (!ctm_sample_points(net, x->data, N, n, 0, NULL)) { puts(ctm_error(&ctx)); exit(1); }
    return rms(x, y);
}

// 1. On N(0, sd²) everything is linear: one Gaussian as data, one point at x = 80.
static void ex1(void) {
    double zero[1] = {0}, ts[18], from[1] = {0}, to[1] = {17};
    ctm_noise z = ctm_noise_default();
    ctm_denoiser *D = ctm_mixture(&memory, 1, 1, zero, NULL, 0.5);
    ctm_tape *tp = new_tape();
    ctm_jump *flow = ctm_flow_jump(&memory, D, &z);
    ctm_tensor *x = ctm_matrix(tp, "x", 1, 1);
    x->data[0] = 80;
    ctm_karras_times(&z, 18, ts);
    printf("exercise 1: exact flow %.4f\n", (double)flow->jump(tp, flow, x, level(tp, 1, 80), level(tp, 1, 0.002))->data[0]);
    printf("exercise 1: Heun, 17 steps %.4f\n", (double)ctm_sample_heun(tp, D, x, 17, ts)->data[0]);
    printf("exercise 1: Heun, 51 steps %.4f\n", (double)ctm_solve(tp, D, &z, CTM_HEUN, x, from, to, 3)->data[0]);
    printf("exercise 1: Euler, 17 steps %.4f\n", (double)ctm_sample_euler(tp, D, x, 17, ts)->data[0]);
}

// 2. g of the same Gaussian, from G; at s -> t it is the denoiser's factor 0.25/1.25.
static void ex2(void) {
    for (double s = 0.1; s < 1; s += 0.44999) {
        double G = sqrt((s*s + 0.25)/(1 + 0.25));
        printf("exercise 2: g(1, t = 1, s = %.2f) = %.4f\n", s, (G - s)/(1 - s));
    }
}

// 3. How often each recipe practises what.
static void ex3(void) {
    static const char *const name[3] = {"paper", "authors", "points"};
    for (int k = 0; k < 3; k++) {
        ctm_config cfg;
        double i[3], short_walk = 0, same = 0, from_T = 0, n = 200000;
        ctm_recipe_named(&ctx, name[k], &cfg);
        for (uint64_t step = 0; step < (uint64_t)n; step++) {
            cfg.times(&cfg, step, 0, i);
            short_walk += i[1] - i[0] == 1; same += i[1] == i[2]; from_T += i[0] == 0;
        }
        printf("exercise 3: %s: the teacher walks one grid step in %.4f, u = s in %.3f, t = T in %.3f of the rows\n", name[k], short_walk/n,
               same/n, from_T/n);
    }
}

// 4. gamma and what a point remembers: the share of points that end at the dot of their own path, four jumps.
static int nearest(const ctm_real *x) {
    int best = 0;
    for (int k = 1; k < DOTS; k++)
        if (hypot((double)x[0] - centre[k][0], (double)x[1] - centre[k][1]) < hypot((double)x[0] - centre[best][0], (double)x[1] - centre[best][1])) best = k;
    return best;
}
// The share for one stream of the way's noise, from the same starting noise.
static double remembered(ctm_net *net, double gamma, const ctm_rng *way) {
    ctm_tape *tp = new_tape();
    ctm_tensor *x = noise(tp), *y = noise(tp);
    double same = 0;
    ctm_sample_points(net, x->data, N, 4, gamma, way);
    ctm_sample_points(net, y->data, N, 1, 0, NULL);
    for (int i = 0; i < N; i++) same += nearest(x->data + 2*i) == nearest(y->data + 2*i);
    return same/N;
}
static void ex4(void) {
    enum { STREAMS = 10 };
    ctm_net *net = lesson_student();
    ctm_rng start = ctm_stream(1, "start");
    for (int g = 0; g <= 2; g++) {
        double least = 1, most = 0, sum = 0;
        for (uint64_t k = 1; k <= STREAMS; k++) {
            ctm_rng way = ctm_stream(k, "way");
            double share = remembered(net, 0.5*g, &way);
            sum += share;
            least = fmin(least, share);
            most = fmax(most, share);
        }
        printf("exercise 4: gamma %.1f: %.3f at the dot of one jump (%d streams: %.3f to %.3f)\n", 0.5*g, sum/STREAMS, STREAMS, least, most);
    }
    printf("exercise 4: gamma 1.0 with the stream of x_T: %.3f\n", remembered(net, 1, &start));
}

// 5. Do jumps compose? t = 80 -> 1 -> 0.002 against t = 80 -> 0.002, trained and untrained.
static double composition(ctm_net *net) {
    ctm_tape *tp = new_tape();
    ctm_jump *G = ctm_net_jump(&memory, net);
    ctm_tensor *x = noise(tp), *half = G->jump(tp, G, x, level(tp, N, 80), level(tp, N, 1));
    return rms(G->jump(tp, G, x, level(tp, N, 80), level(tp, N, 0.002)), G->jump(tp, G, half, level(tp, N, 1), level(tp, N, 0.002)));
}
static void ex5(void) {
    ctm_config cfg = lesson();
    printf("exercise 5: untrained %.3f, and one jump misses the flow by %.2f\n", composition(ctm_mlp(&memory, &cfg, 2, 1)),
           chain_error(ctm_mlp(&memory, &cfg, 2, 1), 1));
    printf("exercise 5: trained %.4f\n", composition(lesson_student()));
}

// 6. A distance of your own: L2 from sub and square, and the mean over columns as a product with a column of 1/D.
static ctm_tensor *my_l2(void *user, ctm_tape *tp, ctm_tensor *a, ctm_tensor *b) {
    int B = a->shape[0], D = a->shape[1];
    ctm_tensor *mean = ctm_fill(ctm_matrix(tp, "1/D", D, 1), 1.0/D);
    (void)user;
    return ctm_reshape(tp, ctm_linear(tp, ctm_square(tp, ctm_sub(tp, a, b)), mean, NULL), 1, B, 0, 0, 0);
}
static void ex6(void) {
    ctm_config cfg = lesson();
    double own, built_in;
    cfg.steps = 100;
    own = train(&cfg, my_l2)->L_ctm;
    built_in = train(&cfg, NULL)->L_ctm;
    printf("exercise 6: L_ctm of step 100: own %.6f, CTM_L2 %.6f\n", own, built_in);
}

// 7. A new operation: tanh.
static void tanh_backward(ctm_tape *tp, ctm_tensor *out) {      // dx += (1 - out²)·dout
    ctm_real *dx = ctm_grad(tp, out->src[0]);
    for (size_t i = 0; i < out->len; i++) dx[i] += (1 - out->data[i]*out->data[i])*out->grad[i];
}
static ctm_tensor *my_tanh(ctm_tape *tp, ctm_tensor *x) {
    ctm_tensor *out = ctm_result(tp, "tanh", x->ndim, x->shape, 1, &x, tanh_backward);
    for (size_t i = 0; i < x->len; i++) out->data[i] = (ctm_real)tanh((double)x->data[i]);
    return ctm_done(out);
}
static ctm_tensor *twice_tanh(void *user, ctm_tape *tp, ctm_tensor *x) {       // x is an input of two operations: gradients must add
    (void)user;
    return ctm_weighted_mean(tp, ctm_add(tp, my_tanh(tp, x), my_tanh(tp, x)), NULL, 1);
}
static void ex7(void) {
    ctm_tape *tp = new_tape();
    ctm_tensor *x = ctm_wants_grad(tp, ctm_vector(tp, "x", 3));
    double wrong;
    x->data[0] = -1; x->data[1] = 0.25f; x->data[2] = 2;
    wrong = ctm_gradcheck(tp, twice_tanh, NULL, x, 1e-2);       // leaves the gradient in x
    printf("exercise 7: gradient of the sum of tanh(x) + tanh(x): %.5f %.5f %.5f\n", (double)x->grad[0], (double)x->grad[1], (double)x->grad[2]);
    printf("exercise 7: ctm_gradcheck finds it %s\n", wrong < 1e-3 ? "right" : "WRONG");
}

// 8. Without the diagonal loss the student still jumps, but what is its denoiser worth?
static double denoiser_error(ctm_net *net) {
    ctm_tape *tp = new_tape();
    ctm_rng data = ctm_stream(9, "data"), eps = ctm_stream(9, "noise");
    ctm_denoiser *D = ctm_net_denoiser(&memory, net);
    double sum = 0;
    for (int k = 0; k < 4; k++) {
        double t = 0.1*pow(4, k);
        ctm_tensor *x = ctm_matrix(tp, "x", N, 2), *tt = level(tp, N, t);
        for (int i = 0; i < N; i++) draw(NULL, &data, (uint64_t)k, (uint64_t)i, x->data + 2*i);
        for (size_t i = 0; i < x->len; i++) x->data[i] += (ctm_real)(t*ctm_normal(&eps, (uint64_t)k, i));
        sum += pow(rms(D->denoise(tp, D, x, tt), exact->denoise(tp, exact, x, tt)), 2)/4;
    }
    return sqrt(sum);
}
static void ex8(void) {
    for (uint64_t seed = 0; seed < 3; seed++) {
        ctm_config cfg = lesson();
        ctm_net *net[2];
        cfg.seed = seed;
        net[0] = train(&cfg, NULL)->ema[0];
        cfg.aim = NULL;
        net[1] = train(&cfg, NULL)->ema[0];
        for (int k = 0; k < 2; k++)
            printf("exercise 8: seed %d, %s the diagonal: denoiser %.4f, one jump %.4f, chain of four %.4f\n", (int)seed, k ? "without" : "with   ",
                   denoiser_error(net[k]), chain_error(net[k], 1), chain_error(net[k], 4));
    }
}

// 9. Your own sampler: one jump to t = 1, then Heun's steps on the network's own score.
static void ex9(void) {
    ctm_net *net = lesson_student();
    ctm_jump *flow = ctm_flow_jump(&memory, exact, &net->noise), *G = ctm_net_jump(&memory, net);
    ctm_denoiser *D = ctm_net_denoiser(&memory, net);
    ctm_tape *tp = new_tape();
    ctm_tensor *x = noise(tp), *half, *exact_half, *truth;
    ctm_noise from_1 = net->noise;
    double few[9], many[65];
    tp->recording = 0;
    truth = flow->jump(tp, flow, x, level(tp, N, 80), level(tp, N, 0.002));
    half = G->jump(tp, G, x, level(tp, N, 80), level(tp, N, 1));
    exact_half = flow->jump(tp, flow, x, level(tp, N, 80), level(tp, N, 1));
    from_1.sigma_max = 1;
    ctm_karras_times(&from_1, 9, few);
    ctm_karras_times(&from_1, 65, many);
    printf("exercise 9: one jump %.4f, jump to 1 and 8 Heun steps %.4f, 64 steps %.4f\n", chain_error(net, 1),
           rms(ctm_sample_heun(tp, D, half, 8, few), truth), rms(ctm_sample_heun(tp, D, half, 64, many), truth));
    printf("exercise 9: of the 64 steps: network's score from the exact point at 1 %.4f, exact score from the network's %.4f\n",
           rms(ctm_sample_heun(tp, D, exact_half, 64, many), truth), rms(ctm_sample_heun(tp, exact, half, 64, many), truth));
}

// 10. Learning rate: falling to zero or constant, the weights themselves and averages of them.
static void ex10(void) {
    for (int constant = 0; constant < 2; constant++) {
        ctm_config cfg = lesson();
        ctm_trainer *tr;
        cfg.final_lr = constant;
        cfg.ema_rate[1] = 0.9;
        cfg.ema_rate[2] = 0.98;
        tr = train(&cfg, NULL);
        printf("exercise 10: %s rate: the weights %.4f, averages with rate 0.9 %.4f, 0.98 %.4f, 0.999 %.4f\n", constant ? "constant" : "falling",
               chain_error(tr->theta, 1), chain_error(tr->ema[1], 1), chain_error(tr->ema[2], 1), chain_error(tr->ema[0], 1));
    }
}

// 11. Where the teacher stops: soft, local and global matching.
static void ex11(void) {
    static const char *const name[3] = {"soft", "local", "global"};
    const ctm_times_fn times[3] = {ctm_times_paper, ctm_times_local, ctm_times_global};
    for (int k = 0; k < 3; k++)
        for (uint64_t seed = 0; seed < 3; seed++) {
            ctm_config cfg = lesson();
            double walked = 0, i[3], n = 100000;
            ctm_net *net;
            cfg.times = times[k];
            cfg.seed = seed;
            for (uint64_t step = 0; step < (uint64_t)n; step++) { cfg.times(&cfg, step, 0, i); walked += (i[1] - i[0])/n; }
            net = train(&cfg, NULL)->ema[0];
            printf("exercise 11: %s, seed %d: the teacher walks %.2f grid steps, one jump %.4f, chain of four %.4f\n", name[k], (int)seed, walked,
                   chain_error(net, 1), chain_error(net, 4));
        }
}

// 12. Data of your own: twelve points, no blur; every sample must end on one of them.
static double rows[12][2];
static void draw_rows(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    int k = (int)(12*ctm_uniform(rng, step, index));
    (void)user;
    for (int j = 0; j < 2; j++) x0[j] = (ctm_real)rows[k][j];
}
static double row_distance(const ctm_real *x) {
    double best = 1e9;
    for (int k = 0; k < 12; k++) best = fmin(best, hypot((double)x[0] - rows[k][0], (double)x[1] - rows[k][1]));
    return best;
}
static void ex12(void) {
    for (int k = 0; k < 12; k++) { rows[k][0] = 0.5*(k%4 - 1.5)/sqrt(1.25); rows[k][1] = 0.5*(k/4 - 1)/sqrt(2.0/3); }    // 4 x 3, std 0.5
    for (int points = 0; points < 2; points++) {
        ctm_config cfg = points ? ctm_recipe_points() : lesson(), sizes = lesson();
        ctm_denoiser *D = ctm_empirical(&memory, 2, 12, rows[0]);
        ctm_tape *tp = new_tape();
        ctm_tensor *x = noise(tp), *y;
        ctm_trainer *tr;
        ctm_jump *flow = ctm_flow_jump(&memory, D, &cfg.noise);
        int near = 0, near_exact = 0;
        cfg.hidden = sizes.hidden; cfg.layers = sizes.layers; cfg.batch = sizes.batch; cfg.diagonal_batch = sizes.diagonal_batch;
        cfg.steps = sizes.steps;
        tr = ctm_trainer_new(&memory, &cfg, ctm_mlp(&memory, &cfg, 2, 1), D, draw_rows, NULL);
        while (tr->step < cfg.steps) if (!ctm_train_step(tr)) { puts(ctm_error(&ctx)); exit(1); }
        y = flow->jump(tp, flow, x, level(tp, N, 80), level(tp, N, 0.002));
        ctm_sample_points(tr->ema[0], x->data, N, 1, 0, NULL);
        for (int i = 0; i < N; i++) {
            near += row_distance(x->data + 2*i) < 0.1;
            near_exact += row_distance(y->data + 2*i) < 0.1;
        }
        printf("exercise 12: recipe %s: %.3f of the samples within 0.1 of a row, of the exact flow's %.3f\n", cfg.recipe, (double)near/N,
               (double)near_exact/N);
    }
}

// Share of N points that are further than this from every dot.
static double off_dots(const ctm_tensor *x, double radius) {
    int off = 0;
    for (int i = 0; i < N; i++) {
        int k = nearest(x->data + 2*i);
        off += hypot((double)x->data[2*i] - centre[k][0], (double)x->data[2*i + 1] - centre[k][1]) > radius;
    }
    return (double)off/N;
}
static void print_off(const char *what, const ctm_tensor *x) {
    printf("exercise 13: further than 0.15, 0.2 from every dot: %s %.4f %.4f\n", what, off_dots(x, 0.15), off_dots(x, 0.2));
}

// 13. A plain consistency model of the same size, same steps.
static void ex13(void) {
    ctm_config cfg = lesson();
    ctm_net *cm;
    cfg.times = ctm_times_cm;                    // u one grid step after t, s the end
    cfg.aim = NULL;                              // no L_DSM
    cm = train(&cfg, NULL)->ema[0];
    printf("exercise 13: one jump: CTM %.4f, consistency model %.4f\n", chain_error(lesson_student(), 1), chain_error(cm, 1));
    printf("exercise 13: chain of 4: CTM %.4f, consistency model %.4f\n", chain_error(lesson_student(), 4), chain_error(cm, 4));
    for (int model = 0; model < 2; model++) {
        ctm_tape *tp = new_tape();
        ctm_tensor *one = noise(tp), *four = noise(tp);
        ctm_rng way = ctm_stream(1, "way");
        ctm_sample_points(model ? cm : lesson_student(), one->data, N, 1, 0, NULL);
        ctm_sample_points(model ? cm : lesson_student(), four->data, N, 4, 1, &way);
        print_off(model ? "consistency model, one jump" : "CTM, one jump", one);
        print_off(model ? "consistency model, four jumps, gamma 1" : "CTM, four jumps, gamma 1", four);
    }
    {
        ctm_tape *tp = new_tape();
        ctm_jump *flow = ctm_flow_jump(&memory, exact, &cfg.noise);
        print_off("exact flow", flow->jump(tp, flow, noise(tp), level(tp, N, 80), level(tp, N, 0.002)));
    }
}

int main(int argc, char **argv) {
    void (*const exercise[13])(void) = {ex1, ex2, ex3, ex4, ex5, ex6, ex7, ex8, ex9, ex10, ex11, ex12, ex13};
    int only = argc > 1 ? atoi(argv[1]) : 0;
    if (argc > 2 || only < 0 || only > 13 || (argc > 1 && only == 0)) { fprintf(stderr, "usage: exercises [1..13]\n"); return 2; }
    set_up();
    for (int k = 1; k <= 13; k++) if (!only || only == k) exercise[k - 1]();
    ctm_arena_free(&memory);
    return 0;
}
