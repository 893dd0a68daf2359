// Speed, as lines `bench NAME value UNIT`. Two threads unless the name ends in _1t. Each figure is the median of several runs.
// How each is counted stands in tests/README.md.   usage: build/bench [PART OF A NAME]
#define CTM_IMPLEMENTATION
#include "../examples/args.h"
#include "../ctm.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int bench_compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

// Median seconds of one call of work(arg): calls are grouped so that a group lasts 20 ms, and 15 groups are timed.
static double bench_seconds(void (*work)(void *), void *arg) {
    double group[15], start;
    int calls = 1, g, i;
    for (;;) {
        start = args_seconds();
        for (i = 0; i < calls; i++) work(arg);
        start = args_seconds() - start;
        if (start > 0.02) break;
        calls *= 2;
    }
    for (g = 0; g < 15; g++) {
        start = args_seconds();
        for (i = 0; i < calls; i++) work(arg);
        group[g] = (args_seconds() - start) / calls;
    }
    qsort(group, 15, sizeof *group, bench_compare);
    return group[7];
}

static void bench_line(const char *name, int threads, double value, const char *unit) {
    printf("bench %s%s %.4g %s\n", name, threads == 1 ? "_1t" : "", value, unit);
    fflush(stdout);
}

// ---- the peak: multiply-adds on registers, nothing else
typedef struct bench_peak { ctm_ctx *ctx; int threads; float sink[64]; } bench_peak;
enum { PEAK_LOOPS = 200000, PEAK_SUMS = 24 };
#if defined(__GNUC__) && defined(__x86_64__) && !defined(__TINYC__)
#define PEAK_BODY(V)                                                                     \
    V sum[PEAK_SUMS], a, b;                                                              \
    int i, j;                                                                            \
    memset(sum, 0, sizeof sum);                                                          \
    for (j = 0; j < PEAK_SUMS; j++) sum[j] = sum[j] + (float)j; /* all different, or the compiler keeps one */ \
    memset(&a, 0, sizeof a); a = a + 0.999f;                                             \
    memset(&b, 0, sizeof b); b = b + 0.001f;                                             \
    for (i = 0; i < PEAK_LOOPS; i++) { PEAK_UNROLL for (j = 0; j < PEAK_SUMS; j++) sum[j] = sum[j] * a + b; } \
    for (j = 1; j < PEAK_SUMS; j++) sum[0] += sum[j];                                    \
    memcpy(sink, &sum[0], 4);
#if defined(__clang__)
#define PEAK_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PEAK_UNROLL _Pragma("GCC unroll 32")
#endif
typedef float peak16 __attribute__((vector_size(64)));
typedef float peak8 __attribute__((vector_size(32)));
__attribute__((target("avx512f"))) static void peak_avx512(float *sink) { PEAK_BODY(peak16) }
__attribute__((target("avx2,fma"))) static void peak_avx2(float *sink) {
    peak8 sum[12], a, b;                                // 12 sums fit into AVX2's 16 registers
    int i, j;
    memset(sum, 0, sizeof sum);
    for (j = 0; j < 12; j++) sum[j] = sum[j] + (float)j;
    memset(&a, 0, sizeof a); a = a + 0.999f;
    memset(&b, 0, sizeof b); b = b + 0.001f;
    for (i = 0; i < 2 * PEAK_LOOPS; i++) { PEAK_UNROLL for (j = 0; j < 12; j++) sum[j] = sum[j] * a + b; }
    for (j = 1; j < 12; j++) sum[0] += sum[j];
    memcpy(sink, &sum[0], 4);
}
static void bench_peak_piece(void *arg, int i) {
    bench_peak *p = (bench_peak *)arg;
    if (p->ctx->isa == CTM_ISA_AVX512) peak_avx512(p->sink + i); else peak_avx2(p->sink + i);
}
static void bench_peak_work(void *arg) {
    bench_peak *p = (bench_peak *)arg;
    ctm_parallel_for(p->ctx, p->threads, bench_peak_piece, p);
}
static void bench_fma(ctm_ctx *ctx, int threads) {
    bench_peak p;
    double lanes = ctx->isa == CTM_ISA_AVX512 ? 16 : 8;
    if (ctx->isa < CTM_ISA_AVX2) return;
    p.ctx = ctx;
    p.threads = threads;
    bench_line("fma_peak", threads, 2.0 * lanes * PEAK_SUMS * PEAK_LOOPS * threads / bench_seconds(bench_peak_work, &p) / 1e9, "GFLOP/s");
}
#else
static void bench_fma(ctm_ctx *ctx, int threads) { (void)ctx; (void)threads; }
#endif

// ---- matrix products n x n x n
typedef struct bench_gemm_job { ctm_ctx *ctx; int n; ctm_real *a, *b, *c; } bench_gemm_job;
static void bench_gemm_work(void *arg) {
    bench_gemm_job *j = (bench_gemm_job *)arg;
    ctm_gemm(j->ctx, j->n, j->n, j->n, j->a, j->n, 1, j->b, j->n, j->c, j->n, NULL, 0);
}
static void bench_gemm(ctm_ctx *ctx, int threads, int n) {
    ctm_arena a;
    bench_gemm_job j;
    char name[32];
    int i;
    ctm_arena_init(&a, ctx, "gemm");
    j.ctx = ctx;
    j.n = n;
    j.a = (ctm_real *)ctm_alloc(&a, (size_t)n * (size_t)n * sizeof(ctm_real));
    j.b = (ctm_real *)ctm_alloc(&a, (size_t)n * (size_t)n * sizeof(ctm_real));
    j.c = (ctm_real *)ctm_alloc(&a, (size_t)n * (size_t)n * sizeof(ctm_real));
    for (i = 0; i < n * n; i++) { j.a[i] = (ctm_real)(i % 7); j.b[i] = (ctm_real)(i % 5); }
    snprintf(name, sizeof name, "gemm_n%d", n);
    bench_line(name, threads, 2.0 * n * n * n / bench_seconds(bench_gemm_work, &j) / 1e9, "GFLOP/s");
    ctm_arena_free(&a);
}

// ---- training steps
static void bench_step_work(void *arg) {
    ctm_trainer *tr = (ctm_trainer *)arg;
    if (!ctm_train_step(tr)) { fprintf(stderr, "%s\n", ctm_error(tr->ctx)); exit(1); }
}

static void bench_draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    (void)user;
    ctm_normals(rng, step, 2 * index, 2, x0);
}

// The network of the PyTorch peer, from public layers: [x, sin and cos of ln t/4 and ln s/4 at 8 frequencies] -> 3 x 128 SiLU -> 2.
static ctm_tensor *bench_concat_forward(ctm_tape *tp, ctm_net *net, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    ctm_tensor *h = ctm_concat(tp, x, ctm_time_features(tp, t, 8, 0.5, 0));
    int p;
    if (s) h = ctm_concat(tp, h, ctm_time_features(tp, s, 8, 0.5, 0));
    for (p = 0; p < 6; p += 2) h = ctm_silu(tp, ctm_linear(tp, h, net->param[p], net->param[p + 1]));
    return ctm_linear(tp, h, net->param[6], net->param[7]);
}
static ctm_net *bench_concat_net(ctm_arena *a, const ctm_noise *z, int with_s) {
    ctm_net *net = ctm_net_new(a, "concat", z, 2, with_s);
    int l;
    for (l = 0; l < 4; l++) {
        char name[32];
        snprintf(name, sizeof name, "layers.%d.weight", l);
        ctm_param(a, net, name, l ? 128 : with_s ? 34 : 18, l < 3 ? 128 : 2);
        snprintf(name, sizeof name, "layers.%d.bias", l);
        ctm_param(a, net, name, l < 3 ? 128 : 2, 0);
    }
    ctm_net_ready(a, net);
    ctm_net_init(net, 1, 1);
    net->forward = bench_concat_forward;
    return net;
}

// One step as the peer times it: batch 256, teacher network with two Heun steps, L2 at time zero, DSM on 256 rows, adaptive
// weight, RAdam, EMA. (gap_power 60 makes h = 2 always.)
static void bench_ctm_step_mlp(ctm_ctx *ctx, int threads) {
    ctm_arena a;
    ctm_config cfg = ctm_config_authors();
    ctm_trainer *tr;
    ctm_arena_init(&a, ctx, "bench");
    cfg.max_gap = 2;
    cfg.gap_power = 60;
    cfg.shards = 2;
    cfg.ema_rate[1] = 0;
    tr = ctm_trainer_new(&a, &cfg, bench_concat_net(&a, &cfg.noise, 1), ctm_net_denoiser(&a, bench_concat_net(&a, &cfg.noise, 0)), bench_draw, NULL);
    bench_line("ctm_step_mlp", threads, bench_seconds(bench_step_work, tr) * 1e3, "ms");
    ctm_trainer_free(tr);
    ctm_arena_free(&a);
}

// One step of `make demo`: the ring with the exact teacher.
static void bench_points_step(ctm_ctx *ctx, int threads) {
    ctm_arena a;
    ctm_config cfg = ctm_config_default();
    double mean[16], scale = 0.5 / sqrt(2 + 0.15 * 0.15);
    ctm_trainer *tr;
    int k;
    ctm_arena_init(&a, ctx, "bench");
    for (k = 0; k < 8; k++) {
        mean[2 * k] = 2 * scale * cos(k * 0.785398163);
        mean[2 * k + 1] = 2 * scale * sin(k * 0.785398163);
    }
    tr = ctm_trainer_new(&a, &cfg, ctm_mlp(&a, &cfg, 2, 1), ctm_mixture(&a, 2, 8, mean, NULL, 0.15 * scale), bench_draw, NULL);
    bench_line("points_step", threads, bench_seconds(bench_step_work, tr) * 1e3, "ms");
    ctm_trainer_free(tr);
    ctm_arena_free(&a);
}

int main(int argc, char **argv) {
    const char *only = argc > 1 ? argv[1] : "";
    ctm_ctx ctx;
    int threads, n;
    ctm_init(&ctx);
    printf("# ctm.h %s, instruction set %s\n", CTM_VERSION, ctm_isa_name(ctx.isa));
    for (threads = 1; threads <= 2; threads++) {
        ctx.threads = threads;
        if (strstr("fma_peak", only)) bench_fma(&ctx, threads);
        if (strstr("gemm", only)) for (n = 256; n <= 1024; n *= 2) bench_gemm(&ctx, threads, n);
        if (strstr("ctm_step_mlp", only)) bench_ctm_step_mlp(&ctx, threads);
        if (strstr("points_step", only)) bench_points_step(&ctx, threads);
    }
    return 0;
}
