/* Lesson 5: gamma, or how much noise a sampler adds on its way.        cc -O2 examples/05_gamma.c -o gamma -lm && ./gamma

   A trained student makes a sample in one jump. It can also take several, over noise levels t_0 = 80 > t_1 > .. > t_n = 0.002, and one
   number between 0 and 1 decides how [alg:gamma]:

        jump from t_k to s = sqrt(1 - gamma²)·t_(k+1), then add noise of standard deviation gamma·t_(k+1)

   which together bring the point to level t_(k+1), since variances add. With gamma = 0 there is no noise: the point stays on the path of
   the noise it began with. With gamma = 1 every jump goes all the way to data, and all but that is noised anew: this is the sampler of
   consistency models. Between them the sampler forgets a part of its beginning at each step.

   The table has, for samples of four jumps,
        forgets   how far two samples from the same x_T end apart when the noise on the way is another (over the square root of 2)
        spread    the distance of samples from the nearest dot, per coordinate; that of the data is 0.050
        lost      the share of samples further than 0.2 from every dot; of the data it is 0.0003
        error     the distance from where the exact path of x_T ends

   With the exact jump every gamma samples the data, whatever it forgets. (Its error is then no fault: it is on another path.) What the
   learned jump gets wrong depends on gamma. With gamma = 0 each jump begins where the last one ended, so that faults add up, but paths
   are kept. With gamma = 1 the noise covers up the faults of all jumps but the last, which goes from t_(n-1) to 0 and makes its own.
   gamma.svg shows the samples.

   The student is trained by ctm_train_step, which does what lesson 4 wrote out. Your own program may begin as this one. */
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include <math.h>
#include <stdio.h>

enum { DOTS = 8, POINTS = 400, JUMPS = 4 };
static double centre[DOTS][2];
static ctm_ctx ctx;
static ctm_arena memory;

// The data, called by the trainer: sample `index` of training step `step`, made of random numbers that belong to it alone.
static void draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x_0) {
    const double *c = centre[(int)(DOTS*ctm_uniform(rng, step, 4*index))];
    for (int j = 0; j < 2; j++) x_0[j] = (ctm_real)(c[j] + 0.05*ctm_normal(rng, step, 4*index + 2 + (uint64_t)j));
    (void)user;
}

static double to_nearest_dot(const ctm_real *x) {
    double least = 1e9;
    for (int k = 0; k < DOTS; k++) least = fmin(least, hypot((double)x[0] - centre[k][0], (double)x[1] - centre[k][1]));
    return least;
}

static double rms(const ctm_tensor *a, const ctm_tensor *b) {
    double sum = 0;
    for (size_t i = 0; i < a->len; i++) sum += pow((double)a->data[i] - (double)b->data[i], 2)/(double)a->len;
    return sqrt(sum);
}

int main(void) {
    ctm_tape tape;
    ctm_config cfg = ctm_recipe_paper();
    ctm_init(&ctx);
    ctx.threads = 1;
    ctm_arena_init(&memory, &ctx, "lesson 5");
    ctm_tape_init(&tape, &ctx, &memory);
    for (int k = 0; k < DOTS; k++) { centre[k][0] = 0.7*cos(k*6.2832/DOTS); centre[k][1] = 0.7*sin(k*6.2832/DOTS); }

    cfg.hidden = 48;
    cfg.layers = 3;
    cfg.batch = cfg.diagonal_batch = 64;
    cfg.steps = 2000;
    cfg.lr = 3e-3;
    cfg.final_lr = 0;
    cfg.ema_rate[0] = 0.99;
    ctm_denoiser *teacher = ctm_mixture(&memory, 2, DOTS, centre[0], NULL, 0.05);
    ctm_trainer *tr = ctm_trainer_new(&memory, &cfg, ctm_mlp(&memory, &cfg, 2, 1), teacher, draw, NULL);
    while (tr->step < cfg.steps)
        if (!ctm_train_step(tr)) { fprintf(stderr, "gamma: %s\n", ctm_error(&ctx)); return 1; }
    printf("trained for %ld steps: L_ctm %.4f   L_dsm %.3f\n", tr->step, tr->L_ctm, tr->L_dsm);

    const char *name[2] = {"exact", "learned"};
    ctm_jump *jump[2];
    jump[0] = ctm_flow_jump(&memory, teacher, &cfg.noise);
    jump[1] = ctm_net_jump(&memory, tr->ema[0]);              // the average of the weights is the one to sample from
    ctm_rng start = ctm_stream(1, "start"), way[2] = {ctm_stream(1, "way"), ctm_stream(1, "another way")};
    double t[JUMPS + 1], straight[2] = {80, 0.002};
    ctm_karras_times(&cfg.noise, JUMPS + 1, t);
    tape.recording = 0;
    ctm_tensor *x_T = ctm_matrix(&tape, "x_T", POINTS, 2), *end[2];
    ctm_normals(&start, 0, 0, x_T->len, x_T->data);
    x_T = ctm_scale(&tape, x_T, 80);
    end[0] = ctm_sample_gamma(&tape, jump[0], x_T, 1, straight, NULL);
    printf("   jump     gamma   forgets   spread     lost    error\n");
    for (int k = 0; k < 2; k++)
        for (int g = 0; g < 3; g++) {
            ctm_sampler how = ctm_sampler_default();
            ctm_tensor *x[2];
            double square = 0;
            int lost = 0;
            how.gamma = 0.5*g;
            for (int w = 0; w < 2; w++) {
                how.rng = &way[w];
                x[w] = ctm_sample_gamma(&tape, jump[k], x_T, JUMPS, t, &how);
            }
            for (int i = 0; i < POINTS; i++) {
                double off = to_nearest_dot(x[0]->data + 2*i);
                if (off > 0.2) lost++; else square += off*off/2;
            }
            printf("   %-7s   %5.1f   %7.3f   %6.3f   %6.3f   %6.3f\n", name[k], how.gamma, rms(x[0], x[1])/sqrt(2), sqrt(square/(POINTS - lost)),
                   (double)lost/POINTS, rms(x[0], end[0]));
        }
    ctm_trainer_free(tr);
    ctm_arena_free(&memory);
    return 0;
}
