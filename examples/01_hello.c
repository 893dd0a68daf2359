/* 01_hello.c - a consistency trajectory model in forty lines.   cc -O2 examples/01_hello.c -o hello -lm && ./hello */
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include "../apps/args.h"
#include "../apps/plot.h"

enum { N = 2000, DOTS = 8 };
static double centre[DOTS][2];                            // the data: eight dots on a ring, each blurred by 0.05

static void draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    const double *c = centre[(int)(DOTS*ctm_uniform(rng, step, 8*index))];
    for (int j = 0; j < 2; j++) x0[j] = (ctm_real)(c[j] + 0.05*ctm_normal(rng, step, 8*index + 4 + (uint64_t)j));
    (void)user;
}

int main(void) {
    static ctm_real x[2*N], data[2*N];
    static double x_T[2*N], flow[2*N];
    ctm_ctx ctx;
    ctm_arena memory;
    ctm_config cfg = ctm_config_default();
    ctm_rng rng = ctm_stream(2024, "hello");
    double error = 0;
    ctm_init(&ctx);
    ctm_arena_init(&memory, &ctx, "model");
    for (int k = 0; k < DOTS; k++) { centre[k][0] = 0.7*cos(k*6.2832/DOTS); centre[k][1] = 0.7*sin(k*6.2832/DOTS); }

    // The teacher knows the way from noise to data, in small steps. Here it is a formula, the exact denoiser of the dots;
    // for data without a formula one trains it first (points.c). The student learns to jump along the teacher's paths.
    cfg.steps = 4000;
    ctm_denoiser *teacher = ctm_mixture(&memory, 2, DOTS, centre[0], NULL, 0.05);
    ctm_net *student = ctm_mlp(&memory, &cfg, 2, 1);
    ctm_trainer *tr = ctm_trainer_new(&memory, &cfg, student, teacher, draw, NULL);
    while (tr->step < cfg.steps) {
        if (!ctm_train_step(tr)) { fprintf(stderr, "hello: %s\n", ctm_error(&ctx)); return 1; }
        if (tr->step % 500 == 0) printf("step %5ld   L_ctm %.4f   L_dsm %.4f\n", tr->step, tr->L_ctm, tr->L_dsm);
    }

    // Sample: noise of standard deviation 80, one jump. Compare with where the exact flow takes the same noise.
    for (int i = 0; i < 2*N; i++) x[i] = (ctm_real)(x_T[i] = 80*ctm_normal(&rng, 0, (uint64_t)i));
    ctm_sample_points(tr->ema[0], x, N, 1, 0, NULL);      // ema[0]: the moving average of the student's weights
    ctm_exact_flow(&ctx, teacher, N, x_T, 80, 1, &cfg.noise.sigma_min, 1e-6, flow);
    for (int i = 0; i < 2*N; i++) error += (x[i] - flow[i])*(x[i] - flow[i])/(2*N);
    printf("one jump misses the exact flow by %.4f (rms; the data's standard deviation is 0.5)\n", sqrt(error));

    plot *p = plot_open("hello.svg", 760, 380, NULL);
    for (int i = 0; i < N; i++) draw(NULL, &rng, 1, (uint64_t)i, data + 2*i);
    for (int k = 0; k < 2; k++) {
        plot_grid_panel(p, 1, 2, k, k ? "from noise in one jump" : "data");
        plot_axes(p, -1, 1, -1, 1, NULL, NULL, PLOT_EQUAL);
        plot_points(p, N, k ? x : data, 2, plot_color(k), 1.3, 0.7);
    }
    if (plot_close(p) != 0) { perror("hello.svg"); return 1; }
    ctm_trainer_free(tr);
    ctm_arena_free(&memory);
    return args_finish("hello", 0);                       // 0, unless what was printed did not arrive
}

/* It takes about ten seconds on one thread, leaves hello.svg in the current folder and prints

   step   500   L_ctm 0.0088   L_dsm 0.0043
   step  1000   L_ctm 0.0086   L_dsm 0.0028
   ...
   step  4000   L_ctm 0.0011   L_dsm 0.0001
   one jump misses the exact flow by 0.0076 (rms; the data's standard deviation is 0.5)

   Try: one jump -> four in ctm_sample_points; gamma 0 -> 0.5 with the noise of another stream (ctm_rng way = ctm_stream(1, "way");
   then &way: &rng would add the starting noise again); other centres; cfg.steps = 20000. */
