/* Lesson 3: what a jump is.        cc -O2 examples/03_jump.c -o jump -lm && ./jump

   Lesson 2 followed the paths of the ODE in small steps. A consistency trajectory model learns where they lead:

        G(x,t,s) = the point at level s of the path that passes through x at level t,     s <= t.

   One evaluation of such a network replaces the whole walk. For the data of lesson 1 we can compute G without any network, by walking
   in tiny steps (ctm_exact_flow). So we can look at what a network will have to learn:

   1. The network does not give G itself but a function g, of which G is made:

        G(x,t,s) = (s/t)·x + (1 - s/t)·g(x,t,s)                                                  [eq:G]

      The first part is what remains of the noise. The rest, g, is always of the data's size, even where x is as large as 80, and that
      is easy to learn. Jumps all the way, to s = 0, have g as their end. As s rises to t, g becomes the denoiser D(x,t) of lesson 1.
      So one function g is a one-step sampler at one end and a diffusion model at the other.
   2. Boundary: G(x,t,t) = x. There the factor 1 - s/t is zero, so this holds for an untrained network, too.
   3. Composition: a jump from t to u and one from u on to s must end where one jump from t to s ends, as all three points lie on one
      path. An untrained network fails here. CTM trains for this, with random t > u >= s.

   The last row of the table is a warning. G = (s/t)·x obeys 2 and 3 exactly, and turns noise into nothing: that jumps agree with one
   another does not make them right. Somebody has to show the true paths. That is the teacher, in lesson 4. */
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include <math.h>
#include <stdio.h>

enum { POINTS = 500 };
static const double centre[2] = {-0.5, 0.5}, blur = 0.1;

// One of the three jumps below, for POINTS points at once. The tape is where ctm.h computes.
static ctm_tensor *jump(ctm_tape *tp, const ctm_jump *G, ctm_tensor *x, double t, double s) {
    return G->jump(tp, G, x, ctm_fill(ctm_vector(tp, "t", POINTS), t), ctm_fill(ctm_vector(tp, "s", POINTS), s));
}

static ctm_tensor *shrink(ctm_tape *tp, const ctm_jump *self, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    (void)self;
    return ctm_scale(tp, x, (double)s->data[0]/(double)t->data[0]);            // G with g = 0
}

static double rms(const ctm_tensor *a, const ctm_tensor *b) {
    double sum = 0;
    for (int i = 0; i < POINTS; i++) sum += pow((double)a->data[i] - (double)b->data[i], 2)/POINTS;
    return sqrt(sum);
}

int main(void) {
    ctm_ctx ctx;
    ctm_arena memory;
    ctm_tape tape;
    ctm_rng rng = ctm_stream(1, "noise");
    ctm_config cfg = ctm_recipe_paper();
    ctm_init(&ctx);
    ctm_arena_init(&memory, &ctx, "lesson 3");
    ctm_tape_init(&tape, &ctx, &memory);
    ctm_denoiser *D = ctm_mixture(&memory, 1, 2, centre, NULL, blur);

    double x = 0.6, t = 1, s[8] = {1 - 1e-6, 0.999, 0.9, 0.5, 0.2, 0.1, 0.05, 0.002}, G[8], guess;
    ctm_exact_flow(&ctx, D, 1, &x, t, 8, s, 1e-12, G);        // all eight points of the path
    D->exact(D, &x, t, &guess);
    printf("1. The path through x = 0.6 at t = 1, where the denoiser says D = %.4f:\n", guess);
    printf("          s   G(x,1,s)   g(x,1,s)   one Euler step, (s/t)x + (1 - s/t)D\n");
    for (int i = 0; i < 8; i++)
        printf("   %8.6f    %7.4f    %7.4f   %7.4f\n", s[i], G[i], (G[i] - s[i]*x)/(1 - s[i]), s[i]*x + (1 - s[i])*guess);

    ctm_jump *all[3];
    ctm_jump zero;
    all[0] = ctm_flow_jump(&memory, D, &cfg.noise);           // the exact G
    all[1] = ctm_net_jump(&memory, ctm_mlp(&memory, &cfg, 1, 1));              // an untrained network
    zero = *all[0];
    zero.jump = shrink;
    all[2] = &zero;
    const char *name[3] = {"exact", "untrained network", "G = (s/t)x"};
    ctm_tensor *x_T = ctm_matrix(&tape, "x_T", POINTS, 1);
    for (int i = 0; i < POINTS; i++) x_T->data[i] = (ctm_real)(80*ctm_normal(&rng, 0, (uint64_t)i));
    ctm_tensor *truth = jump(&tape, all[0], x_T, 80, 0.002), *at_1 = jump(&tape, all[0], x_T, 80, 1);
    printf("2, 3. %d points of noise; root mean squares:\n", POINTS);
    printf("                       G(x,1,1) - x    G(G(x,80,1),1,0) - G(x,80,0)    G(x,80,0) - exact\n");
    for (int k = 0; k < 3; k++) {
        ctm_tensor *once = jump(&tape, all[k], x_T, 80, 0.002);
        ctm_tensor *twice = jump(&tape, all[k], jump(&tape, all[k], x_T, 80, 1), 1, 0.002);
        printf("   %-17s         %8.4f                         %8.4f             %8.4f\n", name[k],
               rms(jump(&tape, all[k], at_1, 1, 1), at_1), rms(twice, once), rms(once, truth));
    }
    ctm_arena_free(&memory);
    return 0;
}
/* OUTPUT, exactly
1. The path through x = 0.6 at t = 1, where the denoiser says D = 0.1488:
          s   G(x,1,s)   g(x,1,s)   one Euler step, (s/t)x + (1 - s/t)D
   0.999999     0.6000     0.1488    0.6000
   0.999000     0.5995     0.1489    0.5995
   0.900000     0.5558     0.1584    0.5549
   0.500000     0.4208     0.2415    0.3744
   0.200000     0.4450     0.4062    0.2390
   0.100000     0.4652     0.4502    0.1939
   0.050000     0.4725     0.4658    0.1714
   0.002000     0.4754     0.4751    0.1497
2, 3. 500 points of noise; root mean squares:
                       G(x,1,1) - x    G(G(x,80,1),1,0) - G(x,80,0)    G(x,80,0) - exact
   exact                       0.0000                           0.0000               0.0000
   untrained network           0.0000                           0.1958               0.5021
   G = (s/t)x                  0.0000                           0.0000               0.5054 */
