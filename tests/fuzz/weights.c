// A safetensors file as weights: what loads can be sampled from, and comes back bit for bit when it is saved.
#include "safetensors.h"
#include "../../ctm.h"

static int weights_affordable(const ctm_net *net, const ctm_config *c) {
    return net->len < 20000 && net->dim <= 256 && (strcmp(net->kind, "mlp") == 0 || c->size <= 8);
}

// One step of a teacher's ODE.
static void weights_teacher(ctm_arena *a, ctm_net *net, const ctm_real *x) {
    const double levels[2] = {net->noise.sigma_max, net->noise.sigma_min};
    ctm_tape tape;
    ctm_tensor *in;
    ctm_tape_init(&tape, a->ctx, a);
    tape.recording = 0;
    in = ctm_matrix(&tape, "x", 1, net->dim);
    memcpy(in->data, x, (size_t)net->dim * sizeof *x);
    if (!net->classes) ctm_sample_heun(&tape, ctm_net_denoiser(a, net), in, 1, levels);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = fuzz_file(0, data, size);
    const ctm_rng rng = {{1, 2}};
    ctm_ctx ctx;
    ctm_arena a;
    ctm_config cfg;
    ctm_net *net;
    ctm_init(&ctx);
    ctx.threads = 1;
    ctm_arena_init(&a, &ctx, "fuzz");
    net = ctm_load(&a, path, &cfg);
    FUZZ_EXPECT(ctx.high <= 32 * size + (1 << 20));
    if (!net) fuzz_check_line(ctm_error(&ctx), path);
    else if (weights_affordable(net, &cfg)) {
        ctm_real *x = (ctm_real *)ctm_alloc(&a, (size_t)net->dim * sizeof *x);
        ctm_normals(&rng, 0, 0, (size_t)net->dim, x);
        if (!net->with_s) weights_teacher(&a, net, x);
        else if (!net->classes) FUZZ_EXPECT(ctm_sample_points(net, x, 1, 1, 0, NULL));
        if (fuzz_hash(data, size) % 32 == 0) {
            const char *again = FUZZ_AGAIN;
            ctm_config other;
            ctm_net *back;
            FUZZ_EXPECT(ctm_save(&a, net, &cfg, again));
            back = ctm_load(&a, again, &other);
            FUZZ_EXPECT(back && back->len == net->len && memcmp(back->theta, net->theta, net->len * sizeof *net->theta) == 0);
            FUZZ_EXPECT(other.hidden == cfg.hidden && other.lr == cfg.lr && other.seed == cfg.seed && other.noise.rho == cfg.noise.rho);
        }
    }
    ctm_arena_free(&a);
    FUZZ_EXPECT(ctx.allocated == 0);
    return 0;
}
