// A safetensors file as the checkpoint of a training run. The trainer has the configuration that the file holds, if it is small, as
// when a program resumes; what loads does a step, and is then as it was read when it is saved and loaded.
#include "safetensors.h"
#include "../../ctm.h"

static void checkpoint_draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    int j;
    for (j = 0; j < *(const int *)user; j++) x0[j] = (ctm_real)ctm_normal(rng, step, 4 * index + (uint64_t)j);
}

static int checkpoint_small(const ctm_config *c) {
    return c->hidden <= 8 && c->layers <= 2 && c->embed <= 8 && c->batch <= 8 && c->diagonal_batch <= 16 && c->shards <= 4 && c->substeps <= 4 &&
           c->noise.N <= 64 && c->classes <= 4 && c->gan_hidden <= 8 && c->gan_layers <= 2;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = fuzz_file(0, data, size), *text, *again = FUZZ_AGAIN;
    ctm_ctx ctx;
    ctm_arena a, scratch;
    ctm_config cfg;
    const ctm_file *f;
    int dim;
    ctm_init(&ctx);
    ctx.threads = 1;
    ctm_arena_init(&a, &ctx, "run");
    ctm_arena_init(&scratch, &ctx, "scratch");
    f = ctm_file_read(&a, path);
    FUZZ_EXPECT(ctx.high <= 32 * size + (1 << 18));
    if (!f || !ctm_config_read(f, &cfg)) fuzz_check_line(ctm_error(&ctx), path);
    else if (checkpoint_small(&cfg) && ctm_config_fits(&ctx, &cfg)) {
        const double mean[4] = {0, 0, 0, 0};
        ctm_trainer *tr;
        ctm_net *student;
        text = ctm_file_meta(f, "ctm.dim");
        dim = text && text[0] >= '1' && text[0] <= '4' ? text[0] - '0' : 1;
        student = ctm_mlp(&a, &cfg, dim, 1);
        tr = ctm_trainer_new(&a, &cfg, student, cfg.aim == ctm_aim_teacher || fuzz_hash(data, size) % 4 ? ctm_mixture(&a, dim, 1, mean, NULL, 0.5) : NULL, checkpoint_draw, &dim);
        if (cfg.gan) ctm_trainer_adversary(&a, tr, ctm_mlp_discriminator(&a, &cfg, dim));
        ctx.error[0] = 0;
        if (!ctm_checkpoint_load(&scratch, tr, path)) fuzz_check_line(ctm_error(&ctx), path);
        else if (fuzz_hash(data, size) % 32) ctm_train_step(tr);
        else {
            const long step = tr->step;
            ctm_real *kept = (ctm_real *)ctm_alloc(&a, student->len * sizeof *kept);
            memcpy(kept, student->theta, student->len * sizeof *kept);
            FUZZ_EXPECT(ctm_checkpoint_save(&scratch, tr, again, NULL));
            ctm_train_step(tr);
            FUZZ_EXPECT(ctm_checkpoint_load(&scratch, tr, again));
            FUZZ_EXPECT(tr->step == step && memcmp(kept, student->theta, student->len * sizeof *kept) == 0);
        }
        ctm_trainer_free(tr);
    }
    ctm_arena_free(&scratch);
    ctm_arena_free(&a);
    FUZZ_EXPECT(ctx.allocated == 0);
    return 0;
}
