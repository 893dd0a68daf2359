/* Lesson 4: one training step, written out.        cc -O2 examples/04_step.c -o step -lm && ./step

   The student G of lesson 3 is a network now, and this is how it learns, as the paper says (Kim et al., Algorithm 1). In each step:

        draw         data x_0, noise levels t > u >= s, noise eps; then x_t = x_0 + t·eps
        solve        the teacher walks along the ODE from x_t at t to x_u at u, one step of Heun for each level of the grid (lesson 2)
        x_target     a jump from x_u to s                                       and from there to 0     no gradient: this is what is right
        x_est        the student's jump from x_t to s                           and from there to 0     both should end at one point
        L_CTM        the squared distance of x_est and x_target
        L_DSM        the squared distance of g(x_t,t,t) and x_0, which makes g(x,t,t) the denoiser (lesson 1: the best guess is the mean)
        lambda       scales L_DSM so that the gradients of both losses are equally long at the last layer
        RAdam        moves the weights against the gradient
        EMA          the average of the weights follows slowly. It makes the jumps of the target, and the jump from s to 0

   Why is the average in the target? A target that the student makes itself would move with every step of the student; the average moves
   slowly. Why go on from s to 0 before comparing? At s both points are noisy, and their distance says little. At 0 they are samples.
   The gradient of L_CTM passes through the average's jump from s to 0, but it changes the student only.

   In your own programs ctm_train_step does all this, on several threads (lesson 5). What to look at: L_CTM falls to nearly nothing,
   L_DSM does not, since nobody can guess x_0 from x_t; and one jump comes near the place where the exact path ends. */
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { DOTS = 8, BATCH = 64, STEPS = 3000, TEST = 1000 };
static double centre[DOTS][2];                                // the data: eight dots on a ring, each blurred by 0.05
static ctm_ctx ctx;
static ctm_arena memory, scratch;                             // what lasts, and what belongs to one step
static ctm_tape tape;
static ctm_denoiser *teacher;
static ctm_net *student, *average;
static const ctm_noise *z;                                    // the N = 18 noise levels: index 0 is T = 80, index 17 "zero", 0.002

static void draw_data(const ctm_rng *rng, uint64_t step, uint64_t row, ctm_real *x_0) {
    const double *c = centre[(int)(DOTS*ctm_uniform(rng, step, 4*row))];
    for (int j = 0; j < 2; j++) x_0[j] = (ctm_real)(c[j] + 0.05*ctm_normal(rng, step, 4*row + 2 + (uint64_t)j));
}

static ctm_tensor *loss_ctm(uint64_t step) {
    ctm_rng data = ctm_stream(1, "data"), noise = ctm_stream(1, "noise"), times = ctm_stream(1, "times");
    ctm_tensor *x_t = ctm_matrix(&tape, "x_t", BATCH, 2), *zero = ctm_fill(ctm_vector(&tape, "zero", BATCH), z->sigma_min);
    ctm_tensor *t = ctm_vector(&tape, "t", BATCH), *u = ctm_vector(&tape, "u", BATCH), *s = ctm_vector(&tape, "s", BATCH);
    double i_t[BATCH], i_u[BATCH];
    for (int i = 0; i < BATCH; i++) {                                                                           // draw
        uint64_t row = (uint64_t)i;
        int a = (int)((z->N - 1)*ctm_uniform(&times, step, 4*row));                        // t: any level but the last
        int c = a + 1 + (int)((z->N - 1 - a)*ctm_uniform(&times, step, 4*row + 1));        // s: any below t
        int b = a + 1 + (int)((c - a)*ctm_uniform(&times, step, 4*row + 2));               // u: any from below t down to s
        i_t[i] = a;
        i_u[i] = b;
        t->data[i] = (ctm_real)ctm_t_of_index(z, a);
        u->data[i] = (ctm_real)ctm_t_of_index(z, b);
        s->data[i] = (ctm_real)ctm_t_of_index(z, c);
        draw_data(&data, step, row, x_t->data + 2*i);
        for (int j = 0; j < 2; j++) x_t->data[2*i + j] += t->data[i]*(ctm_real)ctm_normal(&noise, step, 2*row + (uint64_t)j);
    }
    tape.recording = 0;                                       // what the tape does not record, no gradient passes through
    ctm_tensor *x_u = ctm_solve(&tape, teacher, z, CTM_HEUN, x_t, i_t, i_u, 1);                                 // solve
    ctm_tensor *x_target = ctm_G_theta(&tape, average, ctm_G_theta(&tape, average, x_u, u, s), s, zero);        // x_target
    tape.recording = 1;
    ctm_tensor *x_est = ctm_G_theta(&tape, average, ctm_G_theta(&tape, student, x_t, t, s), s, zero);           // x_est
    return ctm_weighted_mean(&tape, ctm_distance(&tape, x_est, x_target, CTM_L2, 0), NULL, BATCH);              // L_CTM
}

static ctm_tensor *loss_dsm(uint64_t step) {
    ctm_rng data = ctm_stream(1, "data of L_DSM"), noise = ctm_stream(1, "noise of L_DSM");
    ctm_tensor *x_0 = ctm_matrix(&tape, "x_0", BATCH, 2), *x_t = ctm_matrix(&tape, "x_t", BATCH, 2);
    ctm_tensor *t = ctm_vector(&tape, "t", BATCH), *weight = ctm_vector(&tape, "weight", BATCH);
    for (int i = 0; i < BATCH; i++) {
        uint64_t row = (uint64_t)i;
        double c_skip, c_out, level = exp(-1.2 + 1.2*ctm_normal(&noise, step, 4*row));     // mostly near the data's size
        level = fmin(fmax(level, z->sigma_min), z->sigma_max);
        ctm_inner_scalings(z, level, &c_skip, &c_out);
        t->data[i] = (ctm_real)level;
        weight->data[i] = (ctm_real)(1/(c_out*c_out));        // makes all levels count alike
        draw_data(&data, step, row, x_0->data + 2*i);
        for (int j = 0; j < 2; j++)
            x_t->data[2*i + j] = x_0->data[2*i + j] + (ctm_real)(level*ctm_normal(&noise, step, 4*row + 2 + (uint64_t)j));
    }
    ctm_tensor *g = ctm_g_theta(&tape, student, x_t, t, t);
    return ctm_weighted_mean(&tape, ctm_distance(&tape, g, x_0, CTM_L2, 0), weight, BATCH);                     // L_DSM
}

// The gradient of a loss with respect to the student's weights, into grad; then the loss is only a number.
static double gradient(ctm_tensor *L, ctm_real *grad) {
    double value = (double)L->data[0];
    memset(student->grad, 0, student->len*sizeof *grad);
    ctm_backward(&tape, L);
    memcpy(grad, student->grad, student->len*sizeof *grad);
    ctm_tape_reset(&tape);
    return value;
}

int main(void) {
    ctm_opt opt;
    ctm_rng test = ctm_stream(1, "test");
    ctm_config cfg = ctm_recipe_paper();
    ctm_init(&ctx);
    ctx.threads = 1;                                          // there is too little to do for two
    ctm_arena_init(&memory, &ctx, "model");
    ctm_arena_init(&scratch, &ctx, "one step");
    ctm_tape_init(&tape, &ctx, &scratch);
    for (int k = 0; k < DOTS; k++) { centre[k][0] = 0.7*cos(k*6.2832/DOTS); centre[k][1] = 0.7*sin(k*6.2832/DOTS); }
    cfg.hidden = 48;
    cfg.layers = 3;
    teacher = ctm_mixture(&memory, 2, DOTS, centre[0], NULL, 0.05);
    student = ctm_mlp(&memory, &cfg, 2, 1);
    average = ctm_net_clone(&memory, student);
    z = &student->noise;
    ctm_opt_init(&memory, &opt, CTM_RADAM, student->len, 0);
    ctm_real *grad = (ctm_real *)ctm_alloc(&memory, student->len*sizeof *grad);
    ctm_real *grad_dsm = (ctm_real *)ctm_alloc(&memory, student->len*sizeof *grad);
    ptrdiff_t last = student->param[student->last_weight]->data - student->theta;          // where the last layer's weights begin
    size_t last_len = student->param[student->last_weight]->len;

    static double x_T[2*TEST], exact[2*TEST];                 // noise, and where the exact flow takes it
    for (int i = 0; i < 2*TEST; i++) x_T[i] = 80*ctm_normal(&test, 0, (uint64_t)i);
    ctm_exact_flow(&ctx, teacher, TEST, x_T, 80, 1, &z->sigma_min, 1e-6, exact);

    for (long step = 0; step < STEPS; step++) {
        double L_ctm = gradient(loss_ctm((uint64_t)step), grad), L_dsm = gradient(loss_dsm((uint64_t)step), grad_dsm);
        double lambda = ctm_adaptive_weight(grad + last, grad_dsm + last, last_len);                            // lambda
        for (size_t i = 0; i < student->len; i++) grad[i] += (ctm_real)lambda*grad_dsm[i];
        opt.lr = 5e-3*(1 + cos(3.14159265*(double)step/STEPS))/2;                          // falls to zero
        ctm_opt_step(&ctx, &opt, student->theta, grad);                                                         // RAdam
        ctm_ema_step(&ctx, student->len, average->theta, student->theta, fmin(0.999, (step + 1.0)/(step + 10.0)));  // EMA
        if (step % 500 == 499) {
            static ctm_real x[2*TEST];
            double sum = 0;
            for (int i = 0; i < 2*TEST; i++) x[i] = (ctm_real)x_T[i];
            ctm_sample_points(average, x, TEST, 1, 0, NULL);                               // one jump from 80 to zero
            for (int i = 0; i < 2*TEST; i++) sum += pow((double)x[i] - exact[i], 2)/(2*TEST);
            printf("step %4ld   L_CTM %.4f   L_DSM %.3f   lambda %.4f   error of one jump %.3f\n", step + 1, L_ctm, L_dsm, lambda,
                   sqrt(sum));
        }
    }
    ctm_arena_free(&scratch);
    ctm_arena_free(&memory);
    return 0;
}
/* OUTPUT, numbers within 30 %
step  500   L_CTM 0.0013   L_DSM 0.705   lambda 0.0224   error of one jump 0.093
step 1000   L_CTM 0.0012   L_DSM 0.615   lambda 0.0212   error of one jump 0.065
step 1500   L_CTM 0.0003   L_DSM 0.658   lambda 0.0065   error of one jump 0.056
step 2000   L_CTM 0.0005   L_DSM 0.809   lambda 0.0051   error of one jump 0.047
step 2500   L_CTM 0.0001   L_DSM 0.641   lambda 0.0020   error of one jump 0.044
step 3000   L_CTM 0.0002   L_DSM 0.659   lambda 0.0070   error of one jump 0.042 */
