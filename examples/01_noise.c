/* Lesson 1: noise, and the denoiser that undoes it.        cc -O2 examples/01_noise.c -o noise -lm && ./noise

   Take a data point x_0 and add Gaussian noise of standard deviation t, the noise level:

        x_t = x_0 + t·eps                                                                        [eq:x_t]

   Whoever sees only x_t cannot know which x_0 it was made of: many are possible. The best single guess, in the sense of least squares, is
   the mean of all of them. This function is the denoiser, the one object that everything in ctm.h is built on:

        D(x,t) = E[x_0 | x_t = x]

   A diffusion model is a network that has learned D. Here the data are simple enough for D to be a formula (ctm_mixture). What to look
   at in the output:

   1. At low noise D gives x_0 back, nearly. At t = 0.4 the point may have come from either half of the data, and the guess lies between
      them, where no data are: D is a mean, not a sample. At t = 80 nothing is left to see, and D answers with the mean of all data, 0.
   2. D is a mean, and we can take it literally: add noise to a million data points, keep those that land near x, and average the x_0
      that they came from.
   3. D knows where the data are dense. Tweedie's formula [eq:tweedie] says that the slope of the log-density of noisy data, the score,
      is (D(x,t) - x)/t², the arrow from x to the guess over t². We compare it with a difference quotient of the exact log-density. */
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include <math.h>
#include <stdio.h>

// The data are numbers: half of them lie near -0.5, half near 0.5, each half with standard deviation 0.1.
static const double centre[2] = {-0.5, 0.5}, blur = 0.1;

static double draw_data(const ctm_rng *rng, uint64_t index) {
    return centre[ctm_uniform(rng, 0, 4*index) < 0.5 ? 0 : 1] + blur*ctm_normal(rng, 0, 4*index + 2);
}

static double denoise(const ctm_denoiser *D, double x, double t) {
    double answer;
    D->exact(D, &x, t, &answer);                              // one point, in double precision
    return answer;
}

int main(void) {
    ctm_ctx ctx;                                              // settings and the last error
    ctm_arena memory;                                         // all memory comes from here
    ctm_rng data = ctm_stream(1, "data"), noise = ctm_stream(1, "noise");     // a stream of random numbers has a seed and a name
    ctm_init(&ctx);
    ctm_arena_init(&memory, &ctx, "lesson 1");
    ctm_denoiser *D = ctm_mixture(&memory, 1, 2, centre, NULL, blur);         // dimension 1, two Gaussians of equal weight

    printf("1. The point x_0 = 0.45 under more and more noise, with the same eps = -1:\n");
    printf("        t      x_t   D(x_t,t)\n");
    double level[8] = {0.01, 0.05, 0.2, 0.4, 0.6, 1, 3, 80};
    for (int i = 0; i < 8; i++) {
        double x_t = 0.45 - level[i];
        printf("   %6.2f  %7.3f   %7.3f\n", level[i], x_t, denoise(D, x_t, level[i]));
    }

    printf("2. A million x_0 with noise of level 0.5. Of those whose x_t falls within 0.01 of x:\n");
    printf("        x    how many   mean of their x_0   D(x,0.5)\n");
    double at[5] = {-1, -0.5, 0, 0.5, 1}, sum[5] = {0, 0, 0, 0, 0};
    int found[5] = {0, 0, 0, 0, 0};
    for (uint64_t k = 0; k < 1000000; k++) {
        double x_0 = draw_data(&data, k), x_t = x_0 + 0.5*ctm_normal(&noise, 0, k);
        for (int i = 0; i < 5; i++) if (fabs(x_t - at[i]) < 0.01) { sum[i] += x_0; found[i]++; }
    }
    for (int i = 0; i < 5; i++)
        printf("   %6.2f      %6d             %7.3f    %7.3f\n", at[i], found[i], sum[i]/found[i], denoise(D, at[i], 0.5));

    printf("3. The score, by the denoiser and as a slope of the exact log-density:\n");
    printf("        t        x   (D - x)/t²     slope\n");
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3; k++) {
            double t = level[2*i + 1], x = -0.3 + 0.4*k, h = 1e-4*t, above = x + h, below = x - h;
            double slope = (D->log_density(D, &above, t) - D->log_density(D, &below, t))/(2*h);
            printf("   %6.2f   %6.2f    %9.4f %9.4f\n", t, x, (denoise(D, x, t) - x)/(t*t), slope);
        }
    ctm_arena_free(&memory);
    return 0;
}
/* OUTPUT, exactly
1. The point x_0 = 0.45 under more and more noise, with the same eps = -1:
        t      x_t   D(x_t,t)
     0.01    0.440     0.441
     0.05    0.400     0.420
     0.20    0.250     0.445
     0.40    0.050     0.072
     0.60   -0.150    -0.101
     1.00   -0.550    -0.137
     3.00   -2.550    -0.073
    80.00  -79.550    -0.003
2. A million x_0 with noise of level 0.5. Of those whose x_t falls within 0.01 of x:
        x    how many   mean of their x_0   D(x,0.5)
    -1.00        4970              -0.505     -0.499
    -0.50        8830              -0.381     -0.377
     0.00        9751               0.002      0.000
     0.50        8987               0.378      0.377
     1.00        4818               0.501      0.499
3. The score, by the denoiser and as a slope of the exact log-density:
        t        x   (D - x)/t²     slope
     0.05    -0.30     -16.0000  -16.0000
     0.05     0.10      31.9732   31.9732
     0.05     0.50       0.0000    0.0000
     0.40    -0.30      -0.3165   -0.3165
     0.40     0.10       0.2527    0.2527
     0.40     0.50      -0.2950   -0.2950
     1.00    -0.30       0.2240    0.2240
     1.00     0.10      -0.0745   -0.0745
     1.00     0.50      -0.3750   -0.3750 */
