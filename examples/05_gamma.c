/* Lesson 5: gamma, or how much noise a sampler adds on its way.        cc -O2 examples/05_gamma.c -o gamma -lm && ./gamma

   A trained student makes a sample in one jump. It can also take several, over noise levels t_0 = 80 > t_1 > .. > t_n = 0.002. A number
   gamma between 0 and 1 decides how it comes from one level to the next [alg:gamma]:

        jump from t_k to s = sqrt(1 - gamma²)·t_(k+1), then add noise of standard deviation gamma·t_(k+1)

   Variances add, so that both together arrive at t_(k+1). With gamma = 0 no noise is added, and the point stays on the path of the noise
   that it began as. With gamma = 1 every jump goes down to a sample, and nearly all of that sample's details are noised away again: this
   is the sampler of consistency models. Between the two the point forgets a part of its beginning in every step.

   What to look at in the table:
        spread    the distance of samples from the nearest dot, per coordinate. The data have 0.050
        lost      the share of samples further than 0.2 from every dot. The data have 0.0003
        moved     the distance of a sample from where the exact path of its noise ends. 0.70 is that of two samples that have nothing
                  to do with each other
   With the exact jump every gamma makes perfect samples, but those with gamma > 0 have moved to other paths. The student is trained for two
   seconds only, and its jumps have faults. In one jump a tenth of its samples is lost between the dots. With more jumps fewer are, since
   a short jump is easier than a long one. Which gamma is best depends on which faults are worse: with gamma = 0 the faults of all jumps
   add up, with gamma = 1 noise covers all but the last.

   gamma.svg shows it: the samples of four jumps in the colour of the dot that their exact path leads to. */
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include <math.h>
#include <stdio.h>

enum { DOTS = 8, POINTS = 1000 };
static double centre[DOTS][2];                                // eight dots on a ring, each blurred by 0.05

// The data, for the trainer: sample `index` of training step `step` is made of random numbers that belong to it alone.
static void draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x_0) {
    const double *c = centre[(int)(DOTS*ctm_uniform(rng, step, 4*index))];
    for (int j = 0; j < 2; j++) x_0[j] = (ctm_real)(c[j] + 0.05*ctm_normal(rng, step, 4*index + 2 + (uint64_t)j));
    (void)user;
}

static double distance(const ctm_real *x, int k) { return hypot((double)x[0] - centre[k][0], (double)x[1] - centre[k][1]); }

static int nearest(const ctm_real *x) {
    int best = 0;
    for (int k = 1; k < DOTS; k++) if (distance(x, k) < distance(x, best)) best = k;
    return best;
}

static void print_row(const char *name, int jumps, double gamma, const ctm_tensor *x, const ctm_tensor *path_end) {
    double square = 0, moved = 0;
    int lost = 0;
    for (int i = 0; i < POINTS; i++) {
        double off = distance(x->data + 2*i, nearest(x->data + 2*i));
        if (off > 0.2) lost++; else square += off*off/2;
    }
    for (size_t i = 0; i < x->len; i++) moved += pow((double)x->data[i] - (double)path_end->data[i], 2)/(double)x->len;
    printf("   %-10s   %2d   %5.1f    %5.3f   %5.3f    %5.2f\n", name, jumps, gamma, sqrt(square/(POINTS - lost)), (double)lost/POINTS,
           sqrt(moved));
}

static void panel(FILE *svg, int number, const ctm_tensor *x, const ctm_tensor *path_end) {
    fprintf(svg, "<g transform='translate(%d 130)'>\n", 120 + 240*number);
    fprintf(svg, "<text y='-110' text-anchor='middle'>gamma = %.1f</text>\n", 0.5*number);
    for (int i = 0; i < POINTS; i++) {
        const ctm_real *at = x->data + 2*i;
        int hue = 360*nearest(path_end->data + 2*i)/DOTS;
        fprintf(svg, "<circle cx='%.1f' cy='%.1f' r='1.5' fill='hsl(%d,80%%,45%%)'/>\n", 100*(double)at[0], -100*(double)at[1], hue);
    }
    fprintf(svg, "</g>\n");
}

int main(void) {
    ctm_ctx ctx;
    ctm_arena memory;
    ctm_tape tape;
    ctm_config cfg = ctm_recipe_paper();                      // the settings of lesson 4
    ctm_init(&ctx);
    ctx.threads = 1;                                          // there is too little to do for two
    ctm_arena_init(&memory, &ctx, "lesson 5");
    ctm_tape_init(&tape, &ctx, &memory);
    for (int k = 0; k < DOTS; k++) { centre[k][0] = 0.7*cos(k*6.2832/DOTS); centre[k][1] = 0.7*sin(k*6.2832/DOTS); }

    cfg.hidden = 48;                                          // a small network, small batches and few steps: two seconds
    cfg.layers = 3;
    cfg.batch = cfg.diagonal_batch = 64;
    cfg.steps = 2000;
    ctm_denoiser *teacher = ctm_mixture(&memory, 2, DOTS, centre[0], NULL, 0.05);
    ctm_trainer *tr = ctm_trainer_new(&memory, &cfg, ctm_mlp(&memory, &cfg, 2, 1), teacher, draw, NULL);
    while (tr->step < cfg.steps)
        if (!ctm_train_step(tr)) { fprintf(stderr, "gamma: %s\n", ctm_error(&ctx)); return 1; }

    ctm_jump *exact = ctm_flow_jump(&memory, teacher, &cfg.noise);
    ctm_jump *learned = ctm_net_jump(&memory, tr->ema[0]);    // the average of the weights is the one to sample from
    ctm_rng start = ctm_stream(1, "start"), way = ctm_stream(1, "way");
    ctm_sampler how = ctm_sampler_default();
    ctm_tensor *x_T = ctm_matrix(&tape, "x_T", POINTS, 2);
    double t[17] = {80, 0.002};
    tape.recording = 0;
    how.rng = &way;
    ctm_normals(&start, 0, 0, x_T->len, x_T->data);
    x_T = ctm_scale(&tape, x_T, 80);
    ctm_tensor *path_end = ctm_sample_gamma(&tape, exact, x_T, 1, t, NULL);

    FILE *svg = fopen("gamma.svg", "w");
    if (!svg) { perror("gamma.svg"); return 1; }
    fprintf(svg, "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 720 250' font-family='sans-serif' font-size='15'>\n");
    printf("   jump         n   gamma   spread    lost   moved\n");
    for (int run = 0; run < 4; run++) {
        const ctm_jump *G = run == 0 ? exact : learned;
        int n = run == 1 ? 1 : run == 3 ? 16 : 4;
        ctm_karras_times(&cfg.noise, n + 1, t);
        for (int g = 0; g < (n == 1 ? 1 : 3); g++) {          // gamma says nothing about a single jump
            how.gamma = 0.5*g;
            ctm_tensor *x = ctm_sample_gamma(&tape, G, x_T, n, t, &how);
            print_row(G->name, n, how.gamma, x, path_end);
            if (run == 2) panel(svg, g, x, path_end);
        }
    }
    fprintf(svg, "</svg>\n");
    if (ferror(svg) | fclose(svg)) { perror("gamma.svg"); return 1; }
    ctm_trainer_free(tr);
    ctm_arena_free(&memory);
    if (fflush(stdout) != 0) { perror("gamma"); return 1; }
    return 0;
}
/* OUTPUT, numbers within 30 %
   jump         n   gamma   spread    lost   moved
   exact flow    4     0.0    0.050   0.000     0.00
   exact flow    4     0.5    0.050   0.000     0.41
   exact flow    4     1.0    0.050   0.000     0.70
   ctm           1     0.0    0.066   0.127     0.05
   ctm           4     0.0    0.051   0.051     0.03
   ctm           4     0.5    0.053   0.043     0.42
   ctm           4     1.0    0.060   0.077     0.71
   ctm          16     0.0    0.046   0.037     0.03
   ctm          16     0.5    0.049   0.027     0.62
   ctm          16     1.0    0.054   0.036     0.70 */
