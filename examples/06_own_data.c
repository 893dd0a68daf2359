/* Lesson 6: data of your own, and a teacher that must learn them.        cc -O2 examples/06_own_data.c -o own_data -lm && ./own_data

   So far the data were a formula, and so was the teacher. Real data are rows of a table. Four steps lead from there to a student:

   1. Scale. ctm.h expects columns with mean 0 and standard deviation 0.5, so that the noise levels from 80 to 0.002 fit.
   2. Train a teacher: a network D(x,t) that learns to denoise. Its loss is L_DSM alone: show it a row with noise, ask for the row.
      ctm_recipe_teacher makes these settings from the student's. A network without s is a denoiser (the last argument of ctm_mlp is 0).
   3. Train the student with the teacher as in lesson 5.
   4. Sample, and undo the scaling.

   The table is the first 40 rows of R's data set "faithful": how long an eruption of the geyser Old Faithful lasted, and how long one had
   to wait for it, in minutes. Short eruptions come after short waits. Forty rows are few. A perfect model of exactly these rows would
   give back the rows and nothing else, so draw() blurs each of them a little, by a fifth of its column's standard deviation.

   What to look at: we know the exact denoiser of 40 blurred rows (ctm_mixture), so we can say how wrong the teacher is, and the student.
   (At t = 10 the teacher has seen hardly any row: its training prefers the levels where something can be learned.) The student learns
   from the teacher only. Its distance from the teacher's walk is its own fault, its distance from the exact path is that of both.
   The samples should have the means, standard deviations and correlation of the blurred rows, and their share of long eruptions. */
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 40, POINTS = 500 };
static const double table[ROWS][2] = {                        // minutes of eruption, minutes of waiting
    {3.600, 79}, {1.800, 54}, {3.333, 74}, {2.283, 62}, {4.533, 85}, {2.883, 55}, {4.700, 88}, {3.600, 85}, {1.950, 51}, {4.350, 85},
    {1.833, 54}, {3.917, 84}, {4.200, 78}, {1.750, 47}, {4.700, 83}, {2.167, 52}, {1.750, 62}, {4.800, 84}, {1.600, 52}, {4.250, 79},
    {1.800, 51}, {1.750, 47}, {3.450, 78}, {3.067, 69}, {4.533, 74}, {3.600, 83}, {1.967, 55}, {4.083, 76}, {3.850, 78}, {4.433, 79},
    {4.300, 73}, {4.467, 77}, {3.367, 66}, {4.033, 80}, {3.833, 74}, {2.017, 52}, {1.867, 48}, {4.833, 80}, {1.833, 59}, {4.783, 90}};
static const double blur = 0.1;
static double row[ROWS][2], mean[2], unit[2];                 // the scaled table; x in the model is (x - mean)/unit in the table

static void scale_table(void) {
    for (int j = 0; j < 2; j++) {
        double square = 0;
        for (int i = 0; i < ROWS; i++) mean[j] += table[i][j]/ROWS;
        for (int i = 0; i < ROWS; i++) square += (table[i][j] - mean[j])*(table[i][j] - mean[j])/ROWS;
        unit[j] = sqrt(square/(0.25 - blur*blur));            // 0.25 with the blur that draw() adds
        for (int i = 0; i < ROWS; i++) row[i][j] = (table[i][j] - mean[j])/unit[j];
    }
}

static void draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x_0) {
    const double *r = row[(int)(ROWS*ctm_uniform(rng, step, 4*index))];
    for (int j = 0; j < 2; j++) x_0[j] = (ctm_real)(r[j] + blur*ctm_normal(rng, step, 4*index + 2 + (uint64_t)j));
    (void)user;
}

// Trains net, and returns the average of its weights.
static ctm_net *train(ctm_arena *memory, const ctm_config *cfg, ctm_net *net, const ctm_denoiser *teacher) {
    ctm_trainer *tr = ctm_trainer_new(memory, cfg, net, teacher, draw, NULL);
    while (tr->step < cfg->steps)
        if (!ctm_train_step(tr)) { fprintf(stderr, "own_data: %s\n", ctm_error(net->ctx)); exit(1); }
    ctm_trainer_free(tr);
    return tr->ema[0];
}

static double rms(const ctm_tensor *a, const ctm_tensor *b) {
    double sum = 0;
    for (size_t i = 0; i < a->len; i++) sum += pow((double)a->data[i] - (double)b->data[i], 2)/(double)a->len;
    return sqrt(sum);
}

static void describe(const char *name, const double *x, int n) {               // x [n,2] in minutes
    double m[2] = {0, 0}, v[2] = {0, 0}, both = 0, share = 0;
    for (int i = 0; i < 2*n; i++) m[i%2] += x[i]/n;
    for (int i = 0; i < 2*n; i++) v[i%2] += (x[i] - m[i%2])*(x[i] - m[i%2])/n;
    for (int i = 0; i < n; i++) { both += (x[2*i] - m[0])*(x[2*i+1] - m[1])/n; share += x[2*i] > 3; }
    printf("   %-15s %5.2f +- %4.2f    %4.1f +- %4.1f          %5.2f          %5.2f\n", name, m[0], sqrt(v[0]), m[1], sqrt(v[1]),
           both/sqrt(v[0]*v[1]), share/n);
}

int main(void) {
    static double samples[2*POINTS];
    ctm_ctx ctx;
    ctm_arena memory;
    ctm_tape tape;
    ctm_rng start = ctm_stream(1, "start");
    ctm_config cfg = ctm_recipe_paper(), cfg_teacher;
    ctm_init(&ctx);
    ctx.threads = 1;
    ctm_arena_init(&memory, &ctx, "lesson 6");
    ctm_tape_init(&tape, &ctx, &memory);
    scale_table();

    cfg.hidden = 48;
    cfg.layers = 3;
    cfg.batch = cfg.diagonal_batch = 64;
    cfg.steps = 1200;
    cfg_teacher = ctm_recipe_teacher(&cfg);
    ctm_net *teacher_net = train(&memory, &cfg_teacher, ctm_mlp(&memory, &cfg_teacher, 2, 0), NULL);
    ctm_denoiser *teacher = ctm_net_denoiser(&memory, teacher_net), *exact = ctm_mixture(&memory, 2, ROWS, row[0], NULL, blur);
    ctm_net *student = train(&memory, &cfg, ctm_mlp(&memory, &cfg, 2, 1), teacher);

    tape.recording = 0;
    printf("1. The teacher's error: rms distance from the exact denoiser, for rows with noise\n");
    printf("      t     teacher   guessing the mean\n");
    ctm_tensor *x_T = ctm_matrix(&tape, "x_T", POINTS, 2), *x = ctm_matrix(&tape, "x", POINTS, 2);
    ctm_tensor *zero = ctm_matrix(&tape, "0", POINTS, 2);
    ctm_normals(&start, 0, 0, x_T->len, x_T->data);           // unit noise, for all that follows
    for (int k = 0; k < 5; k++) {
        double level[5] = {0.1, 0.3, 1, 3, 10};
        ctm_tensor *t = ctm_fill(ctm_vector(&tape, "t", POINTS), level[k]);
        for (int i = 0; i < POINTS; i++) draw(NULL, &start, 1, (uint64_t)i, x->data + 2*i);
        for (size_t i = 0; i < x->len; i++) x->data[i] += (ctm_real)level[k]*x_T->data[i];
        ctm_tensor *D = exact->denoise(&tape, exact, x, t);
        printf("   %5.1f     %.3f     %.3f\n", level[k], rms(teacher->denoise(&tape, teacher, x, t), D), rms(zero, D));
    }

    double T_to_0[2] = {80, 0.002}, t[65];
    ctm_karras_times(&cfg.noise, 65, t);
    x_T = ctm_scale(&tape, x_T, 80);
    ctm_tensor *walk = ctm_sample_heun(&tape, teacher, x_T, 64, t);            // 127 evaluations of the teacher
    ctm_tensor *jump = ctm_sample_gamma(&tape, ctm_net_jump(&memory, student), x_T, 1, T_to_0, NULL);
    ctm_tensor *path = ctm_sample_gamma(&tape, ctm_flow_jump(&memory, exact, &cfg.noise), x_T, 1, T_to_0, NULL);
    printf("2. Where %d points of noise end (rms; the data's standard deviation is 0.5):\n", POINTS);
    printf("   teacher's walk from the exact path   %.3f\n", rms(walk, path));
    printf("   student's jump from teacher's walk   %.3f\n", rms(jump, walk));
    printf("   student's jump from the exact path   %.3f\n", rms(jump, path));

    printf("3. In minutes:     eruption           waiting   correlation   longer than 3\n");
    describe("table", table[0], ROWS);
    for (int i = 0; i < POINTS; i++) draw(NULL, &start, 2, (uint64_t)i, x->data + 2*i);
    for (int i = 0; i < 2*POINTS; i++) samples[i] = mean[i%2] + unit[i%2]*(double)x->data[i];
    describe("blurred rows", samples, POINTS);
    for (int i = 0; i < 2*POINTS; i++) samples[i] = mean[i%2] + unit[i%2]*(double)walk->data[i];
    describe("teacher's walk", samples, POINTS);
    for (int i = 0; i < 2*POINTS; i++) samples[i] = mean[i%2] + unit[i%2]*(double)jump->data[i];
    describe("student's jump", samples, POINTS);
    printf("   five samples of the student:");
    for (int i = 0; i < 5; i++) printf("  %.2f %.0f%s", samples[2*i], samples[2*i + 1], i < 4 ? "," : "\n");
    ctm_arena_free(&memory);
    return 0;
}
/* OUTPUT, numbers within 30 %
1. The teacher's error: rms distance from the exact denoiser, for rows with noise
      t     teacher   guessing the mean
     0.1     0.015     0.487
     0.3     0.012     0.454
     1.0     0.012     0.273
     3.0     0.011     0.107
    10.0     0.039     0.033
2. Where 500 points of noise end (rms; the data's standard deviation is 0.5):
   teacher's walk from the exact path   0.031
   student's jump from teacher's walk   0.022
   student's jump from the exact path   0.038
3. In minutes:     eruption           waiting   correlation   longer than 3
   table            3.30 +- 1.13    69.6 +- 13.6           0.92           0.62
   blurred rows     3.32 +- 1.13    69.9 +- 13.7           0.88           0.62
   teacher's walk   3.25 +- 1.16    69.1 +- 13.8           0.88           0.58
   student's jump   3.24 +- 1.20    69.1 +- 14.3           0.87           0.57
   five samples of the student:  4.49 84,  3.64 83,  4.41 75,  2.17 53,  4.55 92 */
