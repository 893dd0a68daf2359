/* use_weights.c - samples from trained weights, as an application would.

   cc -O2 examples/use_weights.c -o use_weights -lm && ./use_weights out/demo/model.safetensors 5 */
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include "../apps/args.h"
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    ctm_ctx ctx;
    ctm_arena memory;
    ctm_rng rng = ctm_stream(1, "my application");
    int n = argc > 2 ? atoi(argv[2]) : 5;
    if (argc < 2 || n < 1) { fprintf(stderr, "usage: use_weights FILE.safetensors [COUNT]\n"); return 2; }
    ctm_init(&ctx);
    ctm_arena_init(&memory, &ctx, "weights");
    ctm_net *net = ctm_load(&memory, argv[1], NULL);
    if (!net) { fprintf(stderr, "use_weights: %s\n", ctm_error(&ctx)); return 1; }
    if (!net->with_s) { fprintf(stderr, "use_weights: %s: holds a teacher, which makes no jumps\n", argv[1]); return 1; }

    size_t len = (size_t)n*(size_t)net->dim;
    ctm_real *x = (ctm_real *)ctm_alloc(&memory, len*sizeof *x);
    ctm_normals(&rng, 0, 0, len, x);                                        // unit noise,
    for (size_t i = 0; i < len; i++) x[i] *= (ctm_real)net->noise.sigma_max; // scaled to noise level 80,
    ctm_sample_points(net, x, n, 4, 0.0, NULL);                             // becomes samples: four jumps, gamma 0
    for (size_t i = 0; i < len; i++) printf("%.4f%c", (double)x[i], (i + 1)%(size_t)net->dim ? ' ' : '\n');
    ctm_arena_free(&memory);
    return args_finish("use_weights", 0);
}

/* It prints COUNT lines, one sample each with a number for every column, in standardised units (standard deviation 0.5; a
   table's means and units are in the file's metadata, and `points sample` applies them). */
