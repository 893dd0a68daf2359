// What a build computes, down to the last bit: training of points by two recipes, of images with an adversary, and samplers and
// likelihoods of what came out. One line for each instruction set that is here: its name and a hash of every result. Two builds
// compute the same where the lines are equal; tests/test_builds.sh compares compilers, tests/test_emulated.sh processors.
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include <stdio.h>

static uint64_t hash;
static void hash_reals(const ctm_real *v, size_t n) {              // by the bits, whatever the order of their bytes in memory
    for (size_t i = 0; i < n; i++) hash = ctm__mix(hash, (double)v[i]);
}

static void draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {      // two dots, or noisy images
    const int dim = *(const int *)user;
    const double side = ctm_uniform(rng, step, index) < 0.5 ? -0.5 : 0.5;
    const ctm_rng noise = ctm_stream(rng->key[0], "draw");
    for (int d = 0; d < dim; d++) x0[d] = (ctm_real)(side + 0.05 * ctm_normal(&noise, step, index * (uint64_t)dim + (uint64_t)d));
}

static int train(ctm_trainer *tr, long steps) {
    while (tr->step < steps) if (!ctm_train_step(tr)) { printf("%s\n", ctm_error(tr->ctx)); return 0; }
    hash_reals(tr->theta->theta, tr->theta->len);
    hash_reals(tr->ema[0]->theta, tr->ema[0]->len);
    if (tr->disc) hash_reals(tr->disc->theta, tr->disc->len);
    return 1;
}

static int points(ctm_arena *a, ctm_tape *tp, ctm_config cfg) {
    static const double mean[4] = {-0.5, -0.5, 0.5, 0.5};
    static int dim = 2;
    const ctm_rng rng = ctm_stream(5, "noise");
    ctm_denoiser *teacher = ctm_mixture(a, 2, 2, mean, NULL, 0.05);
    ctm_sampler how = ctm_sampler_default();
    ctm_likelihood density = ctm_likelihood_default();
    ctm_real x[64];
    double ts[10], logp[8];
    cfg.batch = 48; cfg.diagonal_batch = 24; cfg.hidden = 32; cfg.layers = 2; cfg.shards = 2; cfg.steps = 20;
    ctm_trainer *tr = ctm_trainer_new(a, &cfg, ctm_mlp(a, &cfg, 2, 1), teacher, draw, &dim);
    if (!train(tr, cfg.steps)) return 0;
    ctm_net *net = tr->ema[0];
    ctm_normals(&rng, 0, 0, 64, x);
    for (int i = 0; i < 64; i++) x[i] *= 80;
    ctm_tensor *y, *start = ctm_matrix(tp, "x", 32, 2);
    memcpy(start->data, x, sizeof x);
    if (!ctm_sample_points(net, x, 32, 3, 0.5, &rng)) return 0;
    hash_reals(x, 64);
    ctm_karras_times(&cfg.noise, 10, ts);
    how.rng = &rng;
    how.S_churn = 5;
    if (!(y = ctm_sample_score(tp, ctm_net_denoiser(a, net), CTM_HEUN, start, 9, ts, &how))) return 0;
    hash_reals(y->data, y->len);
    density.steps = 6;
    if (!ctm_loglik(tp, ctm_net_denoiser(a, net), &cfg.noise, &density, 8, x, logp)) return 0;
    for (int i = 0; i < 8; i++) hash = ctm__mix(hash, logp[i]);
    ctm_trainer_free(tr);
    return 1;
}

static int images(ctm_arena *a) {
    static int dim = 8 * 8 * 3;
    ctm_config cfg = ctm_recipe_authors();
    cfg.size = 8; cfg.channels = 3; cfg.model_channels = 16; cfg.num_blocks = 1; cfg.dropout = 0.1;
    memset(cfg.channel_mult, 0, sizeof cfg.channel_mult);
    memset(cfg.attn, 0, sizeof cfg.attn);
    cfg.channel_mult[0] = 1; cfg.channel_mult[1] = 2; cfg.attn[0] = 4;
    cfg.batch = 4; cfg.diagonal_batch = 4; cfg.shards = 2; cfg.steps = 4;
    cfg.gan = CTM_GAN_LOG; cfg.gan_start = 1; cfg.gan_hidden = 16; cfg.gan_layers = 2;
    ctm_trainer *tr = ctm_trainer_new(a, &cfg, ctm_unet(a, &cfg, 1), ctm_net_denoiser(a, ctm_unet(a, &cfg, 0)), draw, &dim);
    ctm_trainer_adversary(a, tr, ctm_conv_discriminator(a, &cfg));
    const int ok = train(tr, cfg.steps);
    ctm_trainer_free(tr);
    return ok;
}

int main(void) {
    for (int isa = 0; isa < CTM_ISA_COUNT; isa++) {
        ctm_ctx ctx;
        ctm_arena a;
        ctm_tape tp;
        ctm_init(&ctx);
        ctx.threads = 2;
        ctx.winograd = 2;
        if (!ctm_set_isa(&ctx, isa)) continue;
        ctm_arena_init(&a, &ctx, "bits");
        ctm_tape_init(&tp, &ctx, &a);
        hash = 1469598103934665603ull;
        if (!points(&a, &tp, ctm_recipe_points()) || !points(&a, &tp, ctm_recipe_authors()) || !images(&a)) { printf("failed: %s\n", ctm_error(&ctx)); return 1; }
        printf("%s %08lx%08lx\n", ctm_isa_name(isa), (unsigned long)(hash >> 32), (unsigned long)(hash & 0xffffffffu));
        ctm_arena_free(&a);
    }
    return 0;
}
