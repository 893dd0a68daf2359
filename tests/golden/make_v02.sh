#!/bin/sh
# Makes version_0_2.safetensors and version_0_2_checkpoint.safetensors with the ctm.h of version 0.2.0 (commit e80350b of this
# repository): weights of a tiny network with what two points become in two jumps, and a checkpoint after one step.
# usage: sh tests/golden/make_v02.sh
cd "$(dirname "$0")" || exit 1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
git show e80350b:ctm.h >"$tmp/ctm.h" || exit 1
cat >"$tmp/make.c" <<'END'
#include <stdio.h>
#define CTM_IMPLEMENTATION
#include "ctm.h"
static void draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    (void)user;
    x0[0] = (ctm_real)ctm_normal(rng, step, 2 * index);
    x0[1] = (ctm_real)ctm_normal(rng, step, 2 * index + 1);
}
int main(void) {
    ctm_ctx ctx;
    ctm_arena a;
    ctm_config c = ctm_config_default();
    ctm_net *net;
    ctm_trainer *tr;
    double mean[2] = {0, 0};
    ctm_real x[4] = {40, -30, 8, 90};
    char text[200];
    const char *pairs[5];
    ctm_init(&ctx);
    ctm_arena_init(&a, &ctx, "0.2");
    c.hidden = 4; c.layers = 2; c.embed = 4; c.batch = 4; c.diagonal_batch = 2; c.shards = 1; c.steps = 10; c.seed = 7;
    net = ctm_mlp(&a, &c, 2, 1);
    ctm_net_init(net, 9, 1);
    tr = ctm_trainer_new(&a, &c, net, ctm_mixture(&a, 2, 1, mean, NULL, 0.5), draw, NULL);
    if (!ctm_train_step(tr) || !ctm_checkpoint_save(&a, tr, "version_0_2_checkpoint.safetensors", NULL)) return 1;
    if (!ctm_sample_points(tr->ema[0], x, 2, 2, 0, NULL)) return 1;
    snprintf(text, sizeof text, "%.9g %.9g %.9g %.9g", (double)x[0], (double)x[1], (double)x[2], (double)x[3]);
    pairs[0] = "in"; pairs[1] = "40 -30 8 90"; pairs[2] = "out"; pairs[3] = text; pairs[4] = NULL;
    if (!ctm_save_with(&a, tr->ema[0], &c, "version_0_2.safetensors", pairs)) return 1;
    ctm_trainer_free(tr);
    ctm_arena_free(&a);
    return 0;
}
END
${CC:-cc} -O1 -I"$tmp" "$tmp/make.c" -o "$tmp/make" -lm && "$tmp/make"
