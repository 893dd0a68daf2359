// A safetensors file as the weights of LPIPS.
#include "safetensors.h"
#include "../../ctm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = fuzz_file(0, data, size);
    ctm_ctx ctx;
    ctm_arena a;
    ctm_lpips *q;
    size_t i;
    ctm_init(&ctx);
    ctx.threads = 1;
    ctm_arena_init(&a, &ctx, "fuzz");
    q = ctm_lpips_load(&a, path, 32, size % 2 ? 1 : 3);
    FUZZ_EXPECT(ctx.high <= 32 * size + (1 << 20));
    if (!q) fuzz_check_line(ctm_error(&ctx), path);
    else for (i = 0; i < q->net->len; i++) FUZZ_EXPECT(ctm_is_finite((double)q->net->theta[i]));
    ctm_arena_free(&a);
    FUZZ_EXPECT(ctx.allocated == 0);
    return 0;
}
