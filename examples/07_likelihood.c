/* Lesson 7: how likely is a point?        cc -O2 examples/07_likelihood.c -o likelihood -lm && ./likelihood

   A sampler answers "what may come?", a likelihood answers "how probable was this?". The ODE of lesson 2 can do that, too. Follow a data
   point upwards, from t = 0.002 to t = 80, where the density is known: there everything is Gaussian noise. On the way a small cloud of
   points around ours swells or shrinks, and the density falls or rises by as much. The rate is the divergence of the ODE's slope:

        log p(x_0) = log N(x_T; 0, 80²) + integral over t of div( (x - D(x,t))/t )                            [eq:loglik]

   So whoever has a denoiser has a density, and a student has one: g(x,t,t). The results are natural logarithms, "nats", of a density in
   the data's units.

   What to look at in the output:
   1. With the exact denoiser the integral gives the known log-density. Runge and Kutta's fourth-order method needs fewer steps than Heun's.
   2. With a student's denoiser the mean over the data is lower than the truth, and rises with training. On average no density fits data
      better than their own, so that the difference measures what the student's density lacks.
   3. The exact divergence takes one backward pass for each dimension. Hutchinson's estimate takes one for each probe: multiply the
      Jacobian from both sides by a random vector of +1 and -1, and the mean over such vectors is the divergence. In two dimensions that
      saves nothing, for an image of 3072 numbers it is the only way. Its answers scatter, less with more probes.
   4. The last table goes from the middle of a dot outwards. log p falls: a low likelihood marks what does not belong to the data. The
      student's falls too slowly, since it has been shown hardly any point out there. */
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include <math.h>
#include <stdio.h>

enum { DOTS = 8, POINTS = 100 };
static double centre[DOTS][2];

static void draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x_0) {
    const double *c = centre[(int)(DOTS*ctm_uniform(rng, step, 4*index))];
    for (int j = 0; j < 2; j++) x_0[j] = (ctm_real)(c[j] + 0.05*ctm_normal(rng, step, 4*index + 2 + (uint64_t)j));
    (void)user;
}

// log p of every point by the ODE of D; returns their mean.
static double log_p(ctm_tape *tape, const ctm_denoiser *D, const ctm_likelihood *how, int n, const ctm_real *x, double *each) {
    ctm_noise z = ctm_noise_default();
    double mean = 0;
    if (!ctm_loglik(tape, D, &z, how, (size_t)n, x, each)) { fprintf(stderr, "likelihood: %s\n", ctm_error(tape->ctx)); return 0; }
    for (int i = 0; i < n; i++) mean += each[i]/n;
    return mean;
}

static double rms(const double *a, const double *b) {
    double sum = 0;
    for (int i = 0; i < POINTS; i++) sum += (a[i] - b[i])*(a[i] - b[i])/POINTS;
    return sqrt(sum);
}

int main(void) {
    static ctm_real x[2*POINTS];
    static double truth[POINTS], each[POINTS], reference[POINTS];
    ctm_ctx ctx;
    ctm_arena memory;
    ctm_tape tape;
    ctm_config cfg = ctm_recipe_paper();
    ctm_likelihood how = ctm_likelihood_default();
    ctm_rng data = ctm_stream(1, "test"), probes = ctm_stream(1, "probes");
    double mean = 0;
    ctm_init(&ctx);
    ctx.threads = 1;
    ctm_arena_init(&memory, &ctx, "lesson 7");
    ctm_tape_init(&tape, &ctx, &memory);
    for (int k = 0; k < DOTS; k++) { centre[k][0] = 0.7*cos(k*6.2832/DOTS); centre[k][1] = 0.7*sin(k*6.2832/DOTS); }
    ctm_denoiser *exact = ctm_mixture(&memory, 2, DOTS, centre[0], NULL, 0.05);
    for (int i = 0; i < POINTS; i++) {
        double y[2];
        draw(NULL, &data, 0, (uint64_t)i, x + 2*i);
        for (int j = 0; j < 2; j++) y[j] = (double)x[2*i + j];
        truth[i] = exact->log_density(exact, y, cfg.noise.sigma_min);
        mean += truth[i]/POINTS;
    }
    printf("1. Mean log p of %d data points, exact: %.3f nats. By the ODE of the exact denoiser:\n", POINTS, mean);
    printf("   steps      Heun  error      Runge-Kutta  error\n");
    for (int steps = 20; steps <= 80; steps *= 2) {
        how.steps = steps;
        how.method = CTM_HEUN;
        mean = log_p(&tape, exact, &how, POINTS, x, each);
        printf("   %5d   %7.3f  %.4f", steps, mean, rms(each, truth));
        how.method = CTM_RK4;
        mean = log_p(&tape, exact, &how, POINTS, x, each);
        printf("          %7.3f  %.4f\n", mean, rms(each, truth));
    }

    cfg.hidden = 48;
    cfg.layers = 3;
    cfg.batch = cfg.diagonal_batch = 64;
    cfg.steps = 2000;
    ctm_trainer *tr = ctm_trainer_new(&memory, &cfg, ctm_mlp(&memory, &cfg, 2, 1), exact, draw, NULL);
    ctm_denoiser *student = ctm_net_denoiser(&memory, tr->ema[0]);             // reads the student at s = t
    printf("2. The same by the student's denoiser, 40 steps of Runge-Kutta:\n");
    how.steps = 40;
    while (tr->step < cfg.steps) {
        if (!ctm_train_step(tr)) { fprintf(stderr, "likelihood: %s\n", ctm_error(&ctx)); return 1; }
        if (tr->step % 500 == 0) {
            mean = log_p(&tape, student, &how, POINTS, x, reference);
            printf("   trained for %4ld steps: %.3f nats, %.3f bits per dimension\n", tr->step, mean, -mean/2/log(2));
        }
    }
    printf("3. The same with Hutchinson's estimate of the divergence:\n");
    how.rng = &probes;
    for (how.probes = 1; how.probes <= 16; how.probes *= 4) {
        mean = log_p(&tape, student, &how, POINTS, x, each);
        printf("   probes %2d: %.3f nats, single points off by %.3f (rms)\n", how.probes, mean, rms(each, reference));
    }
    how.probes = 0;

    printf("4. From the middle of the first dot outwards:\n     distance   exact log p   student's\n");
    for (int k = 0; k < 6; k++) {
        double at[2] = {0.7 + 0.05*k, 0};
        ctm_real point[2] = {(ctm_real)at[0], 0};
        printf("         %.2f       %7.2f", 0.05*k, exact->log_density(exact, at, cfg.noise.sigma_min));
        printf("     %7.2f\n", log_p(&tape, student, &how, 1, point, each));
    }
    ctm_trainer_free(tr);
    ctm_arena_free(&memory);
    return 0;
}
/* OUTPUT, numbers within 30 %
1. Mean log p of 100 data points, exact: 1.085 nats. By the ODE of the exact denoiser:
   steps      Heun  error      Runge-Kutta  error
      20     1.544  0.4923            1.114  0.0868
      40     1.186  0.1060            1.086  0.0057
      80     1.107  0.0243            1.085  0.0003
2. The same by the student's denoiser, 40 steps of Runge-Kutta:
   trained for  500 steps: 0.050 nats, -0.036 bits per dimension
   trained for 1000 steps: 0.745 nats, -0.538 bits per dimension
   trained for 1500 steps: 1.012 nats, -0.730 bits per dimension
   trained for 2000 steps: 1.026 nats, -0.740 bits per dimension
3. The same with Hutchinson's estimate of the divergence:
   probes  1: 0.985 nats, single points off by 1.067 (rms)
   probes  4: 1.030 nats, single points off by 0.532 (rms)
   probes 16: 1.083 nats, single points off by 0.297 (rms)
4. From the middle of the first dot outwards:
     distance   exact log p   student's
         0.00          2.07        2.38
         0.05          1.57        1.67
         0.10          0.08        0.49
         0.15         -2.42       -0.64
         0.20         -5.91       -1.94
         0.25        -10.41       -3.46 */
