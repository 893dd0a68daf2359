/* Lesson 9: weights in an application.        cc -O2 examples/09_weights.c -o weights -lm && ./weights

   Training happens once; the application that uses the weights runs every day, elsewhere. Between the two stands a file. It holds the
   weights of the average, ema[0], with all settings of the training, and lines of your own: here what the columns are called and how they
   were scaled, without which nobody can read the samples. (The format is safetensors, which Python reads, too.)

   The application's part is the function use(): load, make noise, jump, undo the scaling. It needs neither the recipe nor the data nor the
   teacher. It must be ready for a file that is missing, damaged or something else: then ctm_load returns NULL, and ctm_error has one line
   that says why.

   Without arguments the program plays both parts: it trains for a second, saves geyser.safetensors, and uses it. What to look at: the
   samples from the file are the same, bit for bit, as those of the network in memory, and are in minutes again.
   With arguments it is the application alone, for any file of ctm.h:        ./weights out/demo/model.safetensors 5 */
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The data: a geyser's eruptions, how long they last and how long one waited for them, in minutes. Short ones and long ones.
static const double minutes[2][2] = {{2.0, 55}, {4.3, 80}}, mean[2] = {3.15, 67.5}, unit[2] = {2.5, 27};
static double centre[2][2];                                   // the same, scaled: (minutes - mean)/unit

static void draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x_0) {
    const double *c = centre[ctm_uniform(rng, step, 4*index) < 0.5];
    for (int j = 0; j < 2; j++) x_0[j] = (ctm_real)(c[j] + 0.2*ctm_normal(rng, step, 4*index + 2 + (uint64_t)j));
    (void)user;
}

// n samples of four jumps: x [n,dim].
static int sample(ctm_net *net, int n, ctm_real *x) {
    ctm_rng rng = ctm_stream(1, "my application");            // other names or numbers, other samples
    size_t len = (size_t)n*(size_t)net->dim;
    ctm_normals(&rng, 0, 0, len, x);
    for (size_t i = 0; i < len; i++) x[i] *= (ctm_real)net->noise.sigma_max;
    return ctm_sample_points(net, x, n, 4, 0, NULL);
}

static int train_and_save(const char *path, int n, ctm_real *x) {
    ctm_ctx ctx;
    ctm_arena memory;
    ctm_config cfg = ctm_recipe_paper();
    char text[4][32];
    const char *lines[] = {"data.column.0", "eruption", "data.column.1", "waiting", "data.mean.0", text[0], "data.mean.1", text[1],
                           "data.unit.0", text[2], "data.unit.1", text[3], NULL};
    ctm_init(&ctx);
    ctx.threads = 1;
    ctm_arena_init(&memory, &ctx, "training");
    for (int j = 0; j < 2; j++) {
        for (int k = 0; k < 2; k++) centre[k][j] = (minutes[k][j] - mean[j])/unit[j];
        snprintf(text[j], sizeof text[j], "%.17g", mean[j]);
        snprintf(text[2 + j], sizeof text[j], "%.17g", unit[j]);
    }
    cfg.hidden = 32;
    cfg.layers = 2;
    cfg.batch = cfg.diagonal_batch = 64;
    cfg.steps = 1000;
    ctm_denoiser *teacher = ctm_mixture(&memory, 2, 2, centre[0], NULL, 0.2);
    ctm_trainer *tr = ctm_trainer_new(&memory, &cfg, ctm_mlp(&memory, &cfg, 2, 1), teacher, draw, NULL);
    int ok = 1;
    while (ok && tr->step < cfg.steps) ok = ctm_train_step(tr);
    ok = ok && ctm_save_with(&memory, tr->ema[0], &cfg, path, lines) && sample(tr->ema[0], n, x);
    if (!ok) fprintf(stderr, "weights: %s\n", ctm_error(&ctx));
    ctm_trainer_free(tr);
    ctm_arena_free(&memory);
    return ok;
}

// The application. Prints n samples; if x is not NULL, says whether they are those of x [n,2], too.
static int use(const char *path, int n, const ctm_real *x) {
    ctm_ctx ctx;
    ctm_arena memory;
    ctm_config cfg;
    ctm_init(&ctx);
    ctm_arena_init(&memory, &ctx, "application");
    ctm_net *net = ctm_load(&memory, path, &cfg);
    if (!net) { fprintf(stderr, "weights: %s\n", ctm_error(&ctx)); return 0; }
    if (!net->with_s) { fprintf(stderr, "weights: %s: holds a teacher, which makes no jumps\n", path); return 0; }
    ctm_file *file = ctm_file_read(&memory, path);            // once more, for the lines of our own
    ctm_real *y = (ctm_real *)ctm_alloc(&memory, (size_t)n*(size_t)net->dim*sizeof *y);
    if (!file || !sample(net, n, y)) { fprintf(stderr, "weights: %s\n", ctm_error(&ctx)); return 0; }
    if (x) printf("%s: recipe %s, %ld steps, %d weights\n", path, cfg.recipe, cfg.steps, (int)net->len);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < net->dim; j++) {
            char key[2][32];
            snprintf(key[0], sizeof key[0], "data.mean.%d", j);
            snprintf(key[1], sizeof key[1], "data.unit.%d", j);
            const char *m = ctm_file_meta(file, key[0]), *u = ctm_file_meta(file, key[1]);
            double value = (double)y[i*net->dim + j];
            printf("%.2f%c", (m ? atof(m) : 0) + (u ? atof(u) : 1)*value, j + 1 < net->dim ? ' ' : '\n');
        }
    if (x) printf("The network that was trained made %s samples.\n", memcmp(x, y, (size_t)n*sizeof *y*2) == 0 ? "exactly these" : "OTHER");
    ctm_arena_free(&memory);
    return 1;
}

int main(int argc, char **argv) {
    enum { COUNT = 5 };
    ctm_real x[2*COUNT];
    int n = argc > 2 ? atoi(argv[2]) : COUNT, ok;
    if (argc > 3 || n < 1) { fprintf(stderr, "usage: weights [FILE.safetensors [COUNT]]\n"); return 2; }
    if (argc > 1) ok = use(argv[1], n, NULL);
    else ok = train_and_save("geyser.safetensors", COUNT, x) && use("geyser.safetensors", COUNT, x);
    if (ok && (fflush(stdout) != 0 || ferror(stdout))) { fprintf(stderr, "weights: cannot write to standard output\n"); ok = 0; }
    return !ok;
}
/* OUTPUT, numbers within 10 %
geyser.safetensors: recipe paper, 1000 steps, 6064 weights
2.52 60.06
3.84 71.11
1.64 55.85
2.09 54.06
4.19 77.33
The network that was trained made exactly these samples. */
