/* Lesson 2: the ODE that leads from noise to data, and its solvers.        cc -O2 examples/02_ode.c -o ode -lm && ./ode

   Lower the noise level a little and move the point a little towards the denoiser's guess. In the limit of small moves that is a
   differential equation, the probability-flow ODE:

        dx/dt = (x - D(x,t))/t                                                                   [eq:pf_ode]

   Start it at pure noise, x = 80·eps at t = 80, follow it down to t = 0.002 ("time zero"), and you have a sample of the data. No
   randomness enters on the way, so every point of noise has one path and one sample at the end of it. A computer must take steps:

        Euler   keeps the slope that it finds where a step begins:              one denoiser a step,  error ~ step
        Heun    makes Euler's step, looks at the slope there, and repeats the
                step with the mean of both slopes:                              two denoisers a step, error ~ step²

   What to look at in the output: when the number of steps doubles, Euler's error halves and Heun's falls to a quarter. Both need dozens
   of denoisers for one sample. (That is the cost that a consistency trajectory model takes away: lesson 3.)

   And with very few steps Heun explodes; the last table shows why. A path from 80 is nearly straight until t comes down to the size of
   the data, and there it bends. A step that begins at 80 and ends beyond the bend averages the slope before with the slope behind it,
   and multiplies the mean by the length of the step: where the slopes differ by 1, Heun ends 40 away from Euler. Euler knows only the
   first slope, which leads straight to the mean of all data: wrong, too, but never far away. */
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include <math.h>
#include <stdio.h>

enum { POINTS = 200, HEUN = 1 };
static const double centre[2] = {-0.5, 0.5}, blur = 0.1;      // the data of lesson 1

static double slope(const ctm_denoiser *D, double x, double t) {
    double guess;
    D->exact(D, &x, t, &guess);
    return (x - guess)/t;
}

// From level t[0] to level t[n] in n steps.
static double walk(const ctm_denoiser *D, int heun, double x, int n, const double *t) {
    for (int i = 0; i < n; i++) {
        double h = t[i+1] - t[i];                             // negative: the noise level falls
        double here = slope(D, x, t[i]), there = here;
        if (heun) there = slope(D, x + h*here, t[i+1]);
        x += h*(here + there)/2;
    }
    return x;
}

int main(void) {
    static double x_T[POINTS], exact[POINTS], t[513];
    ctm_ctx ctx;
    ctm_arena memory;
    ctm_tape tape;
    ctm_noise z = ctm_noise_default();                        // levels from 80 to 0.002
    ctm_rng rng = ctm_stream(1, "noise");
    ctm_init(&ctx);
    ctm_arena_init(&memory, &ctx, "lesson 2");
    ctm_tape_init(&tape, &ctx, &memory);
    ctm_denoiser *D = ctm_mixture(&memory, 1, 2, centre, NULL, blur);

    // The truth: the header follows the same ODE with steps so small that their error cannot be seen here.
    for (int i = 0; i < POINTS; i++) x_T[i] = z.sigma_max*ctm_normal(&rng, 0, (uint64_t)i);
    ctm_exact_flow(&ctx, D, POINTS, x_T, z.sigma_max, 1, &z.sigma_min, 1e-10, exact);
    int left = 0;
    for (int i = 0; i < POINTS; i++) left += exact[i] < 0;
    printf("The exact paths end %d times on the left, %d times on the right.\n", left, POINTS - left);

    printf("Root mean square error of the end points (the data's standard deviation is 0.51):\n");
    printf("   steps       Euler  times      Heun  times\n");
    double before[2] = {0, 0};
    for (int n = 1; n <= 512; n *= 2) {
        double error[2] = {0, 0};
        ctm_karras_times(&z, n + 1, t);                       // n + 1 levels, dense near the data
        for (int heun = 0; heun < 2; heun++) {
            for (int i = 0; i < POINTS; i++) error[heun] += pow(walk(D, heun, x_T[i], n, t) - exact[i], 2)/POINTS;
            error[heun] = sqrt(error[heun]);
        }
        printf("   %5d %11.5f", n, error[0]);
        if (n > 1) printf("  %5.2f", error[0]/before[0]); else printf("       ");
        printf(" %11.5f", error[1]);
        if (n > 1) printf("  %5.2f", error[1]/before[1]);
        printf("\n");
        before[0] = error[0];
        before[1] = error[1];
    }

    // The header's solvers do the same, for many points at once and in single precision.
    ctm_tensor *x = ctm_matrix(&tape, "x_T", POINTS, 1), *end;
    double apart = 0;
    for (int i = 0; i < POINTS; i++) x->data[i] = (ctm_real)x_T[i];
    ctm_karras_times(&z, 33, t);
    end = ctm_sample_heun(&tape, D, x, 32, t);
    for (int i = 0; i < POINTS; i++) apart = fmax(apart, fabs((double)end->data[i] - walk(D, HEUN, x_T[i], 32, t)));
    printf("ctm_sample_heun with 32 steps and our own walk end %s.\n", apart < 1e-4 ? "at the same points" : "APART");

    printf("One step of Heun from 80 to a level t, from x = 40:\n");
    printf("        t   Euler's end   guess there   slope there   Heun's end   exact\n");
    double to[4] = {20, 2, 0.2, 0.002}, truth[4], start = 40;
    ctm_exact_flow(&ctx, D, 1, &start, 80, 4, to, 1e-10, truth);
    for (int i = 0; i < 4; i++) {
        double two[2] = {80, to[i]}, y = walk(D, 0, start, 1, two), there = slope(D, y, to[i]), heun = walk(D, HEUN, start, 1, two);
        printf("   %6.3f   %11.4f   %11.4f   %11.4f   %10.3f   %5.3f\n", to[i], y, y - to[i]*there, there, heun, truth[i]);
    }
    ctm_arena_free(&memory);
    return 0;
}
/* OUTPUT, exactly
The exact paths end 98 times on the left, 102 times on the right.
Root mean square error of the end points (the data's standard deviation is 0.51):
   steps       Euler  times      Heun  times
       1     0.50412           41.06816
       2     0.42057   0.83     1.71181   0.04
       4     0.14229   0.34     1.14478   0.67
       8     0.09296   0.65     0.12645   0.11
      16     0.04660   0.50     0.01740   0.14
      32     0.02230   0.48     0.00342   0.20
      64     0.01087   0.49     0.00079   0.23
     128     0.00536   0.49     0.00019   0.24
     256     0.00266   0.50     0.00005   0.25
     512     0.00133   0.50     0.00001   0.25
ctm_sample_heun with 32 steps and our own walk end at the same points.
One step of Heun from 80 to a level t, from x = 40:
        t   Euler's end   guess there   slope there   Heun's end   exact
   20.000       10.0012        0.0065        0.4997       10.009   10.003
    2.000        1.0016        0.0645        0.4686        2.227   1.033
    0.200        0.1016        0.3277       -1.1302       65.144   0.433
    0.002        0.0026        0.0026       -0.0125       20.502   0.470 */
