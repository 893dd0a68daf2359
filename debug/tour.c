/* tour.c - the program for the guided tour of one training step (debug/TOUR.md). It trains a small student on eight Gaussians for
   400 steps by the paper's recipe and then makes the one step at which the tour stops. It has one shard, so that everything happens on
   one tape.

   make build/tour && build/tour        without a debugger it prints the losses of the 401st step */
#define CTM_IMPLEMENTATION
#include "../ctm.h"

enum { DOTS = 8, BEFORE = 400 };
static double centre[DOTS][2];

static void draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    const double *c = centre[(int)(DOTS*ctm_uniform(rng, step, 4*index))];
    for (int j = 0; j < 2; j++) x0[j] = (ctm_real)(c[j] + 0.05*ctm_normal(rng, step, 4*index + 2 + (uint64_t)j));
    (void)user;
}

// The step that the tour is about.
static int the_step(ctm_trainer *tr) {
    return ctm_train_step(tr);
}

int main(void) {
    ctm_ctx ctx;
    ctm_arena memory;
    ctm_config cfg = ctm_recipe_paper();
    ctm_trainer *tr;
    int ok = 1;
    ctm_init(&ctx);
    ctm_arena_init(&memory, &ctx, "model");
    for (int k = 0; k < DOTS; k++) { centre[k][0] = 0.7*cos(k*6.2832/DOTS); centre[k][1] = 0.7*sin(k*6.2832/DOTS); }
    cfg.hidden = 32;
    cfg.batch = cfg.diagonal_batch = 64;
    cfg.shards = 1;
    cfg.steps = 2000;
    tr = ctm_trainer_new(&memory, &cfg, ctm_mlp(&memory, &cfg, 2, 1), ctm_mixture(&memory, 2, DOTS, centre[0], NULL, 0.05), draw, NULL);
    while (ok && tr->step < BEFORE) ok = ctm_train_step(tr);
    ok = ok && the_step(tr);
    if (ok) printf("step %ld   L_ctm %.6f   L_dsm %.6f   gradient %.6f\n", tr->step, tr->L_ctm, tr->L_dsm, tr->grad_norm);
    else puts(ctm_error(&ctx));
    ctm_trainer_free(tr);
    ctm_arena_free(&memory);
    return !ok;
}
