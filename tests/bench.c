// Speed, as lines `bench NAME value UNIT`. Two threads unless the name ends in _1t. Each figure is the median of several runs.
// How each is counted stands in tests/README.md.   usage: build/bench [PART OF A NAME]      ("rss" lines only on request)
#define _POSIX_C_SOURCE 200809L
#define CTM_IMPLEMENTATION
#define CTM_PIECE(loop, work) do { bench_piece_begins(loop); work; bench_piece_ends(loop); } while (0)
struct ctm__loop;
static void bench_piece_begins(const struct ctm__loop *l);
static void bench_piece_ends(const struct ctm__loop *l);
#include "../apps/args.h"
#include "../ctm.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static const char *bench_only = "";
static int bench_wanted(const char *name) { return strstr(name, bench_only) != NULL; }

static int bench_compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

// Median seconds of one call of work(arg): calls are grouped so that a group lasts 20 ms.
static double bench_median_of(void (*work)(void *), void *arg, int groups) {
    double group[15], start;
    int calls = 1, g, i;
    work(arg);
    for (;;) {
        start = args_seconds();
        for (i = 0; i < calls; i++) work(arg);
        start = args_seconds() - start;
        if (start > 0.02) break;
        calls *= 2;
    }
    for (g = 0; g < groups; g++) {
        start = args_seconds();
        for (i = 0; i < calls; i++) work(arg);
        group[g] = (args_seconds() - start) / calls;
    }
    qsort(group, (size_t)groups, sizeof *group, bench_compare);
    return group[groups / 2];
}
static double bench_seconds(void (*work)(void *), void *arg) { return bench_median_of(work, arg, 15); }

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
static double bench_peak_now(ctm_ctx *ctx, int threads) {            // GFLOP/s
    bench_peak p;
    double lanes = ctx->isa == CTM_ISA_AVX512 ? 16 : 8;
    if (ctx->isa < CTM_ISA_AVX2) return 0;
    p.ctx = ctx;
    p.threads = threads;
    return 2.0 * lanes * PEAK_SUMS * PEAK_LOOPS * threads / bench_median_of(bench_peak_work, &p, 5) / 1e9;
}
#else
static double bench_peak_now(ctm_ctx *ctx, int threads) { (void)ctx; (void)threads; return 0; }
#endif

// ---- memory: y = c·x over 64 MB, two numbers moved for each
typedef struct bench_memory { ctm_ctx *ctx; size_t n; ctm_real *x, *y; } bench_memory;
static void bench_memory_work(void *arg) {
    bench_memory *m = (bench_memory *)arg;
    ctm__scaled(m->ctx, m->n, 1.5, m->x, m->y, 0);
}
static double bench_memory_now(ctm_ctx *ctx) {                       // GB/s
    ctm_arena a;
    bench_memory m;
    double seconds;
    ctm_arena_init(&a, ctx, "memory");
    m.ctx = ctx;
    m.n = 16000000;
    m.x = (ctm_real *)ctm_alloc(&a, m.n * sizeof(ctm_real));
    m.y = (ctm_real *)ctm_alloc(&a, m.n * sizeof(ctm_real));
    seconds = bench_median_of(bench_memory_work, &m, 5);
    ctm_arena_free(&a);
    return 2.0 * (double)m.n * sizeof(ctm_real) / seconds / 1e9;
}

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
    bench_line(name, threads, 2.0 * n * n * n / bench_median_of(bench_gemm_work, &j, 9) / 1e9, "GFLOP/s");
    ctm_arena_free(&a);
}

// ---- convolutions, batch 16: forward, input gradient, weight gradient, all three
typedef struct bench_conv_job { ctm_arena *a; ctm__conv forward, dx, dw; int which; } bench_conv_job;
static void bench_conv_work(void *arg) {
    bench_conv_job *j = (bench_conv_job *)arg;
    if (j->which == 0 || j->which == 3) ctm__conv_run(j->a, &j->forward);
    if (j->which == 1 || j->which == 3) ctm__conv_run(j->a, &j->dx);
    if (j->which == 2 || j->which == 3) ctm__conv_weights_run(j->a, &j->dw);
}
static ctm_real *bench_numbers(ctm_arena *a, size_t n) {
    ctm_real *x = (ctm_real *)ctm_alloc_raw(a, n * sizeof *x);
    size_t i;
    for (i = 0; i < n; i++) x[i] = (ctm_real)(i * 7919 % 1000) / 1000 - (ctm_real)0.5;
    return x;
}
static void bench_conv(ctm_ctx *ctx, int threads, int winograd, int C, int H) {
    static const char *const name[] = {"fwd", "bwd_x", "bwd_w", "fwdbwd"};
    ctm_arena a;
    bench_conv_job j;
    size_t n = 16 * (size_t)H * (size_t)H * (size_t)C, weights = 9 * (size_t)C * (size_t)C;
    double peak;
    char text[64];
    ctm_arena_init(&a, ctx, "conv");
    memset(&j, 0, sizeof j);
    j.a = &a;
    j.forward.B = 16; j.forward.H = j.forward.W = H; j.forward.I = j.forward.O = C; j.forward.k = 3; j.forward.alpha = 1;
    j.forward.x = bench_numbers(&a, n);
    j.forward.w = bench_numbers(&a, weights);
    j.forward.out = bench_numbers(&a, n);
    j.dx = j.dw = j.forward;
    j.dx.turned = 1;
    j.dx.x = j.dw.dout = bench_numbers(&a, n);
    j.dw.dw = bench_numbers(&a, weights);
    ctx->winograd = winograd;
    for (j.which = 0; j.which < 4; j.which++) {
        double flop = (j.which == 3 ? 3 : 1) * 2.0 * 9 * (double)n * C;
        snprintf(text, sizeof text, "%s_%s_c%dh%d", winograd ? "winograd" : "conv3x3", name[j.which], C, H);
        if (!bench_wanted(text)) continue;
        peak = bench_peak_now(ctx, threads);
        flop /= bench_median_of(bench_conv_work, &j, 9) * 1e9;
        bench_line(text, threads, flop, "GFLOP/s");
        peak = (peak + bench_peak_now(ctx, threads)) / 2;            // before and after: the clock may drift
        strcat(text, "_share");
        if (peak > 0) bench_line(text, threads, 100 * flop / peak, "% of fma_peak");
    }
    ctx->winograd = 1;
    ctm_arena_free(&a);
}

// ---- norm with SiLU, and attention, forward and backward through the tape
typedef struct bench_op { ctm_tape tape; ctm_arena own, work; ctm_tensor *x, *gamma, *beta; int attention; } bench_op;
static void bench_op_work(void *arg) {
    bench_op *o = (bench_op *)arg;
    ctm_tensor *out;
    ctm_tape_reset(&o->tape);
    out = o->attention ? ctm_attention(&o->tape, o->x, 1) : ctm_group_norm(&o->tape, o->x, o->gamma, o->beta, 16, 1e-6, 1);
    if (!o->tape.recording) return;
    ctm_grad(&o->tape, out);
    ctm_backward_seeded(&o->tape, out);
}
static void bench_ops(ctm_ctx *ctx, int threads) {
    bench_op o;
    double numbers = 16.0 * 32 * 32 * 64, memory, seconds[2];
    ctm_tape leaves;
    memset(&o, 0, sizeof o);
    ctm_arena_init(&o.own, ctx, "operands");
    ctm_arena_init(&o.work, ctx, "work");
    ctm_tape_init(&leaves, ctx, &o.own);
    ctm_tape_init(&o.tape, ctx, &o.work);
    o.tape.keep_grads = 0;
    if (bench_wanted("memory_bandwidth") || bench_wanted("groupnorm")) {
        memory = bench_memory_now(ctx);
        bench_line("memory_bandwidth", threads, memory, "GB/s");
        o.x = ctm_wants_grad(&leaves, ctm_image(&leaves, "x", 16, 32, 32, 64));
        memcpy(o.x->data, bench_numbers(&o.own, o.x->len), o.x->len * sizeof(ctm_real));
        o.gamma = ctm_wants_grad(&leaves, ctm_fill(ctm_vector(&leaves, "gamma", 64), 1));
        o.beta = ctm_wants_grad(&leaves, ctm_vector(&leaves, "beta", 64));
        for (o.tape.recording = 0; o.tape.recording < 2; o.tape.recording++) seconds[o.tape.recording] = bench_seconds(bench_op_work, &o);
        bench_line("groupnorm_silu_fwd_c64h32", threads, 3 * 4 * numbers / seconds[0] / 1e9, "GB/s (two reads, a write)");
        bench_line("groupnorm_silu_bwd_c64h32", threads, 6 * 4 * numbers / (seconds[1] - seconds[0]) / 1e9, "GB/s (four reads, a read and write)");
    }
    if (bench_wanted("attention")) {
        o.attention = 1;
        o.x = ctm_wants_grad(&leaves, ctm_image(&leaves, "qkv", 16, 16, 16, 3 * 128));
        memcpy(o.x->data, bench_numbers(&o.own, o.x->len), o.x->len * sizeof(ctm_real));
        for (o.tape.recording = 0; o.tape.recording < 2; o.tape.recording++) seconds[o.tape.recording] = bench_seconds(bench_op_work, &o);
        bench_line("attention_fwd_c128h16", threads, 16 * 4.0 * 256 * 256 * 128 / seconds[0] / 1e9, "GFLOP/s");
        bench_line("attention_fwdbwd_c128h16", threads, 16 * 12.0 * 256 * 256 * 128 / seconds[1] / 1e9, "GFLOP/s");
    }
    ctm_arena_free(&o.own);
    ctm_arena_free(&o.work);
}

// ---- the U-Net
typedef struct bench_unet { ctm_ctx *ctx; ctm_arena own, work; ctm_tape tape; ctm_net *net; int B; } bench_unet;
static void bench_unet_open(bench_unet *u, ctm_ctx *ctx, int C, int backward) {
    ctm_config cfg = ctm_recipe_points();
    ctm_net *net;
    int p;
    size_t i;
    memset(u, 0, sizeof *u);
    u->ctx = ctx;
    u->B = C == 128 ? 4 : 16;
    cfg.size = 32;
    cfg.channels = 3;
    cfg.model_channels = C;
    cfg.num_blocks = C == 32 ? 1 : C == 64 ? 2 : 4;
    cfg.channel_mult[0] = C == 128 ? 2 : 1;
    ctm_arena_init(&u->own, ctx, "net");
    ctm_arena_init(&u->work, ctx, "work");
    net = ctm_unet(&u->own, &cfg, 1);
    for (p = 0; p < net->count; p++)                                  // the nearly zero ones of a fresh network, too
        if (net->param[p]->ndim > 1)
            for (i = 0; i < net->param[p]->len; i++) net->param[p]->data[i] = (ctm_real)(((double)(i * 7919 % 1000) / 500 - 1) / sqrt(3.0 * net->param[p]->shape[net->param[p]->ndim - 2]));
    u->net = backward ? net : ctm_net_view(&u->own, net, 0);
    ctm_tape_init(&u->tape, ctx, &u->work);
    u->tape.keep_grads = 0;
    u->tape.recording = backward;
}
static void bench_unet_close(bench_unet *u) {
    ctm_arena_free(&u->own);
    ctm_arena_free(&u->work);
}
static ctm_tensor *bench_unet_forward(bench_unet *u) {
    ctm_tensor *x, *t, *s;
    size_t i;
    ctm_tape_reset(&u->tape);
    x = ctm_matrix(&u->tape, "x", u->B, u->net->dim);
    for (i = 0; i < x->len; i++) x->data[i] = (ctm_real)(i * 31 % 97) / 97 - (ctm_real)0.5;
    t = ctm_fill(ctm_vector(&u->tape, "t", u->B), 2);
    s = ctm_fill(ctm_vector(&u->tape, "s", u->B), 1);
    return u->net->forward(&u->tape, u->net, x, t, s);
}
static void bench_unet_work(void *arg) {
    bench_unet *u = (bench_unet *)arg;
    ctm_tensor *y = bench_unet_forward(u);
    ctm_real *dy;
    size_t i;
    if (!u->tape.recording) return;
    dy = ctm_grad(&u->tape, y);
    for (i = 0; i < y->len; i++) dy[i] = (ctm_real)1e-3;
    ctm_backward_seeded(&u->tape, y);
}
// Operations of the forward pass, read off a recorded tape: products in convolutions, linear layers and attention.
static double bench_unet_flop(bench_unet *u) {
    const ctm_tensor *x;
    double flop = 0;
    bench_unet_forward(u);
    for (x = u->tape.first; x; x = x->next) {
        const ctm_tensor *w = x->src[1];
        if (strstr(x->op, "conv"))             flop += 2.0 * (double)x->len * w->shape[0] * w->shape[1] * w->shape[2];
        else if (strcmp(x->op, "linear") == 0) flop += 2.0 * (double)x->len * w->shape[0];
        else if (strcmp(x->op, "attention") == 0) flop += 4.0 * (double)x->len * x->shape[1] * x->shape[2];
    }
    return flop;
}
static double bench_unet_count(ctm_ctx *ctx, int C) {
    bench_unet u;
    double flop;
    bench_unet_open(&u, ctx, C, 1);
    flop = bench_unet_flop(&u);
    bench_unet_close(&u);
    return flop;
}
static void bench_unets(ctm_ctx *ctx, int C, int backward, int direct) {
    bench_unet u;
    char name[64], text[80];
    double flop, peak, seconds, one;
    snprintf(name, sizeof name, "unet_%s_c%d%s", backward ? "fwdbwd" : "fwd", C, direct ? "_direct" : "");
    if (!bench_wanted(name)) return;
    flop = bench_unet_count(ctx, C) * (backward ? 3 : 1);
    bench_unet_open(&u, ctx, C, backward);
    ctx->winograd = !direct;
    peak = bench_peak_now(ctx, 2);
    seconds = bench_median_of(bench_unet_work, &u, 5);
    ctx->threads = 1;
    one = bench_median_of(bench_unet_work, &u, 3);
    ctx->threads = 2;
    seconds = (seconds + bench_median_of(bench_unet_work, &u, 5)) / 2;
    peak = (peak + bench_peak_now(ctx, 2)) / 2;
    bench_line(name, 2, seconds * 1e3, "ms");
    snprintf(text, sizeof text, "%s_share", name);
    if (peak > 0) bench_line(text, 2, 100 * flop / seconds / 1e9 / peak, "% of fma_peak_2t");
    snprintf(text, sizeof text, "%s_scaling", name);
    bench_line(text, 2, one / seconds, "x one thread");
    snprintf(text, sizeof text, "%s_memory", name);
    bench_line(text, 2, (double)(u.work.high + u.net->len * sizeof(ctm_real) * (backward ? 2 : 1)) / 1e6, "MB in arenas");
    ctx->winograd = 1;
    bench_unet_close(&u);
}
// The whole process's peak memory after a few passes: run on its own, as build/bench rss_unet_fwdbwd_c64.
static void bench_rss(ctm_ctx *ctx, int C, int backward) {
    bench_unet u;
    char name[64];
    struct rusage usage;
    int r;
    snprintf(name, sizeof name, "rss_unet_%s_c%d", backward ? "fwdbwd" : "fwd", C);
    if (strcmp(name, bench_only) != 0) return;
    bench_unet_open(&u, ctx, C, backward);
    for (r = 0; r < 3; r++) bench_unet_work(&u);
    getrusage(RUSAGE_SELF, &usage);
    bench_line(name, 2, (double)usage.ru_maxrss / 1000, "MB");
    bench_line("parameters", 2, (double)u.net->len * sizeof(ctm_real) / 1e6, "MB");
    bench_unet_close(&u);
}

// 16 images drawn by one jump from sigma_max to sigma_min.
typedef struct bench_draws { bench_unet u; ctm_jump *G; double ts[2]; } bench_draws;
static void bench_draws_open(bench_draws *d, ctm_ctx *ctx, int C) {
    bench_unet_open(&d->u, ctx, C, 0);
    d->u.B = 16;
    d->G = ctm_net_jump(&d->u.own, d->u.net);
    ctm_karras_times(&d->u.net->noise, 2, d->ts);
}
static void bench_draws_work(void *arg) {
    bench_draws *d = (bench_draws *)arg;
    ctm_sampler how = ctm_sampler_default();
    ctm_tensor *x;
    size_t i;
    ctm_tape_reset(&d->u.tape);
    x = ctm_matrix(&d->u.tape, "x", d->u.B, d->u.net->dim);
    for (i = 0; i < x->len; i++) x->data[i] = (ctm_real)(d->ts[0] * ((double)(i * 31 % 97) / 28 - 1.7));
    if (!ctm_sample_gamma(&d->u.tape, d->G, x, 1, d->ts, &how)) { fprintf(stderr, "%s\n", ctm_error(d->u.ctx)); exit(1); }
}
static void bench_sample(ctm_ctx *ctx, int C) {
    bench_draws d;
    char name[64];
    struct rusage usage;
    int r;
    snprintf(name, sizeof name, "rss_sample_onestep_c%d", C);
    if (strcmp(name, bench_only) == 0) {                              // on its own, like the other lines of peak memory
        bench_draws_open(&d, ctx, C);
        for (r = 0; r < 3; r++) bench_draws_work(&d);
        getrusage(RUSAGE_SELF, &usage);
        bench_line(name, 2, (double)usage.ru_maxrss / 1000, "MB");
        bench_line("parameters", 2, (double)d.u.net->len * sizeof(ctm_real) / 1e6, "MB");
        bench_unet_close(&d.u);
    } else if (bench_wanted(name + 4)) {
        bench_draws_open(&d, ctx, C);
        bench_line(name + 4, 2, bench_median_of(bench_draws_work, &d, 5) * 1e3, "ms");
        bench_unet_close(&d.u);
    }
}

// ---- the story of chapter 22, step by step, on one thread
typedef struct bench_story_job { const ctm__kernels *k; int n, step; ctm_real *a, *b, *c; bench_conv_job conv; } bench_story_job;
static void bench_story_work(void *arg) {
    bench_story_job *s = (bench_story_job *)arg;
    int n = s->n, i, j;
    ctm_ctx *ctx = s->conv.a->ctx;
    switch (s->step) {
    case 0: ctm_gemm_naive(n, n, n, s->a, n, 1, s->b, n, s->c, n, NULL, 0); break;
    case 1:                                                          // one vector of sums at a time
        for (i = 0; i < n; i++)
            for (j = 0; j < n; j += s->k->lanes) s->k->gemm(1, s->k->lanes, n, s->a + i * n, n, 1, s->b + j, n, s->c + i * n + j, n, NULL, 0);
        break;
    case 2: s->k->gemm(n, n, n, s->a, n, 1, s->b, n, s->c, n, NULL, 0); break;
    case 3: ctm_gemm(ctx, n, n, n, s->a, n, 1, s->b, n, s->c, n, NULL, 0); break;
    case 4: ctm_conv_naive(1, 32, 32, 64, 64, 3, s->conv.forward.x, s->conv.forward.w, s->conv.forward.out); break;
    default: bench_conv_work(&s->conv); break;
    }
}
static void bench_story(ctm_ctx *ctx) {
    static const char *const name[] = {"story_1_loops_n512", "story_2_vectors_n512", "story_3_tile_n512", "story_3_tile_n2048", "story_5_panels_n2048",
                                       "story_conv_loops_c64h32", "story_4_conv_pointers_c64h32", "story_6_winograd_c64h32"};
    static const int step[] = {0, 1, 2, 2, 3, 4, 5, 5}, size[] = {512, 512, 512, 2048, 2048, 0, 0, 0};
    ctm_arena a;
    bench_story_job s;
    int i;
    if (!bench_wanted("story")) return;
    memset(&s, 0, sizeof s);
    ctm_arena_init(&a, ctx, "story");
    ctx->threads = 1;
    s.k = ctx->kernels;
    s.a = bench_numbers(&a, 2048 * 2048);
    s.b = bench_numbers(&a, 2048 * 2048);
    s.c = bench_numbers(&a, 2048 * 2048);
    s.conv.a = &a;
    s.conv.forward.B = 16; s.conv.forward.H = s.conv.forward.W = 32; s.conv.forward.I = s.conv.forward.O = 64;
    s.conv.forward.k = 3; s.conv.forward.alpha = 1;
    s.conv.forward.x = s.a;
    s.conv.forward.w = s.b;
    s.conv.forward.out = s.c;
    for (i = 0; i < 8; i++) {
        double flop = size[i] ? 2.0 * size[i] * size[i] * size[i] : 2.0 * 9 * (i == 5 ? 1 : 16) * 1024 * 64 * 64;
        s.step = step[i];
        s.n = size[i];
        ctx->winograd = i == 7;
        bench_line(name[i], 1, flop / bench_median_of(bench_story_work, &s, 3) / 1e9, "GFLOP/s");
    }
    ctx->winograd = 1;
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
// weight, RAdam, EMA.
static void bench_times(const ctm_config *cfg, uint64_t step, uint64_t index, double i[3]) {
    ctm_rng rng = ctm_stream(cfg->seed, "bench");
    i[0] = (int)(16 * ctm_uniform(&rng, step, 2 * index));
    i[1] = i[0] + 2;
    i[2] = i[1] + (int)((18 - i[1]) * ctm_uniform(&rng, step, 2 * index + 1));
}
static void bench_ctm_step_mlp(ctm_ctx *ctx, int threads) {
    ctm_arena a;
    ctm_config cfg = ctm_recipe_authors();
    ctm_trainer *tr;
    ctm_arena_init(&a, ctx, "bench");
    cfg.times = bench_times;
    cfg.shards = 2;
    cfg.ema_rate[1] = 0;
    tr = ctm_trainer_new(&a, &cfg, bench_concat_net(&a, &cfg.noise, 1), ctm_net_denoiser(&a, bench_concat_net(&a, &cfg.noise, 0)), bench_draw, NULL);
    bench_line("ctm_step_mlp", threads, bench_seconds(bench_step_work, tr) * 1e3, "ms");
    ctm_trainer_free(tr);
    ctm_arena_free(&a);
}

// A whole step on images, as the peer times it: batch 16, a teacher U-Net with two Heun steps, L2 at time zero, DSM on 16 rows,
// adaptive weight, RAdam, EMA.
static void bench_images_draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    (void)user;
    ctm_normals(rng, step, 3072 * index, 3072, x0);
}
static ctm_trainer *bench_images_trainer(ctm_arena *a, int C, int batch, int shards) {
    ctm_config cfg = ctm_recipe_authors();
    cfg.times = bench_times;
    cfg.batch = cfg.diagonal_batch = batch;
    cfg.shards = shards;
    cfg.ema_rate[1] = 0;
    cfg.size = 32;
    cfg.channels = 3;
    cfg.model_channels = C;
    cfg.num_blocks = C == 32 ? 1 : 2;
    return ctm_trainer_new(a, &cfg, ctm_unet(a, &cfg, 1), ctm_net_denoiser(a, ctm_unet(a, &cfg, 0)), bench_images_draw, NULL);
}
static void bench_ctm_step_unet(ctm_ctx *ctx, int C) {
    ctm_arena a;
    ctm_trainer *tr;
    char name[32];
    snprintf(name, sizeof name, "ctm_step_unet_c%d", C);
    if (!bench_wanted(name)) return;
    ctm_arena_init(&a, ctx, "bench");
    tr = bench_images_trainer(&a, C, 16, 2);
    bench_line(name, 2, bench_median_of(bench_step_work, tr, 5) * 1e3, "ms");
    ctm_trainer_free(tr);
    ctm_arena_free(&a);
}

// One step of `make demo`: the ring with the exact teacher.
static void bench_points_step(ctm_ctx *ctx, int threads) {
    ctm_arena a;
    ctm_config cfg = ctm_recipe_points();
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

// ---- many cores, from a step measured on one
// Every piece of every loop of a step is timed on one thread, and so is all that lies between. What p cores would take is then computed
// under the schedule of chapter 4: a core takes the next piece as soon as it has none; with p > shards each shard has p/shards cores.
// A loop that is offered to k threads costs what such a loop of empty pieces costs, measured on two threads.
enum { BENCH_CORES = 7, BENCH_MOST = 128 };      // 2, 4, ... 128
typedef struct bench_trace {
    int on, depth, shards, shard;
    double last, began[4];                       // when the last piece ended, or its bookkeeping; when the open ones began
    double offer[BENCH_CORES];                   // seconds that it costs to share a loop among 2, 4, ...
    int pieces;                                  // of the open loop
    double outside[BENCH_CORES], *here;          // the step without its shards; what is being added up
    double shard_seconds[BENCH_CORES][64], shard_now[BENCH_CORES];
    double busy[BENCH_CORES][BENCH_MOST];        // of the open loop: when each core gets free
    double work, serial, serial_outside, loops;  // seconds in all pieces; in no loop, in shards and outside; loops inside shards
} bench_trace;
static bench_trace bench_t;

static double bench_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static int bench_team(int c) {                   // cores that share a loop which begins now
    int p = 2 << c;
    return bench_t.depth == 0 ? p : p > bench_t.shards ? p / bench_t.shards : 1;
}
static void bench_loop_done(void) {              // the open loop's last core gets free
    int c, k;
    for (c = 0; c < BENCH_CORES; c++) {
        double end = 0;
        for (k = 0; k < BENCH_MOST; k++) {
            if (bench_t.busy[c][k] > end) end = bench_t.busy[c][k];
            bench_t.busy[c][k] = 0;
        }
        bench_t.here[c] += end;
        for (k = 0; k < BENCH_CORES && bench_t.pieces > 1 && ctm__imin(bench_team(c), bench_t.pieces) >= 2 << k; k++)
            if (ctm__imin(bench_team(c), bench_t.pieces) < 4 << k || k == BENCH_CORES - 1) bench_t.here[c] += bench_t.offer[k];
    }
    bench_t.pieces = 0;
}
static void bench_gap(double now) {              // time outside pieces counts for every number of cores
    int c;
    for (c = 0; c < BENCH_CORES; c++) bench_t.here[c] += now - bench_t.last;
    *(bench_t.depth ? &bench_t.serial : &bench_t.serial_outside) += now - bench_t.last;
}
static void bench_piece_begins(const struct ctm__loop *l) {
    double now;
    if (!bench_t.on) return;
    now = bench_clock();
    if (l->next == 1) bench_loop_done();         // the first piece: the loop before it is over
    if (bench_t.depth < 2) bench_gap(now);
    if (l->plain == ctm__shard_work) {
        memset(bench_t.shard_now, 0, sizeof bench_t.shard_now);
        bench_t.here = bench_t.shard_now;
    } else if (l->next == 1 && bench_t.depth < 2) {
        bench_t.pieces = l->n;
        bench_t.loops += bench_t.depth == 1;
    }
    bench_t.depth++;
    bench_t.last = bench_t.began[bench_t.depth] = bench_clock();
}
static void bench_piece_ends(const struct ctm__loop *l) {
    double now;
    int c, k;
    if (!bench_t.on) return;
    now = bench_clock();
    if (l->plain == ctm__shard_work) {
        bench_loop_done();
        bench_gap(now);
        for (c = 0; c < BENCH_CORES; c++) bench_t.shard_seconds[c][bench_t.shard] = bench_t.shard_now[c];
        bench_t.shard++;
        bench_t.here = bench_t.outside;
        bench_t.depth--;
    } else {
        double took = now - bench_t.began[bench_t.depth--];
        for (c = 0; c < BENCH_CORES && bench_t.depth < 2; c++) {
            int first = 0, team = bench_team(c);
            for (k = 1; k < team; k++) if (bench_t.busy[c][k] < bench_t.busy[c][first]) first = k;
            bench_t.busy[c][first] += took;
        }
        if (bench_t.depth < 2) bench_t.work += took;
    }
    bench_t.last = bench_clock();
}

// Seconds of one step on 1, 2, 4, ... 128 cores.
static void bench_predict(ctm_trainer *tr, double seconds[1 + BENCH_CORES]) {
    double offer[BENCH_CORES];
    int c, s, k;
    memcpy(offer, bench_t.offer, sizeof offer);
    memset(&bench_t, 0, sizeof bench_t);
    memcpy(bench_t.offer, offer, sizeof offer);
    bench_t.shards = tr->shards;
    bench_t.here = bench_t.outside;
    bench_t.on = 1;
    bench_t.last = bench_clock();
    bench_step_work(tr);
    bench_loop_done();
    bench_gap(bench_clock());
    bench_t.on = 0;
    seconds[0] = bench_t.work + bench_t.serial + bench_t.serial_outside;
    for (c = 0; c < BENCH_CORES; c++) {
        double *busy = bench_t.busy[c], end = 0;
        memset(busy, 0, sizeof bench_t.busy[c]);
        for (s = 0; s < tr->shards; s++) {
            int first = 0;
            for (k = 1; k < 2 << c; k++) if (busy[k] < busy[first]) first = k;
            busy[first] += bench_t.shard_seconds[c][s];
        }
        for (k = 0; k < BENCH_MOST; k++) if (busy[k] > end) end = busy[k];
        seconds[c + 1] = bench_t.outside[c] + end;
    }
}

// What it costs to share a loop: a team of k, empty pieces, the second thread of two helping.
typedef struct bench_offers { ctm_ctx *ctx; int k; } bench_offers;
static void bench_nothing(void *arg, int i) { (void)arg; (void)i; }
static void bench_offer_piece(void *arg, int i) {
    const bench_offers *o = (const bench_offers *)arg;
    int r;
    for (r = 0; i == 0 && r < 1000; r++) ctm_parallel_for(o->ctx, o->k, bench_nothing, NULL);
}
static void bench_offer_work(void *arg) {
    bench_offers *o = (bench_offers *)arg;
    ctm__loop l;
    memset(&l, 0, sizeof l);
    l.n = 2; l.plain = bench_offer_piece; l.arg = o;
    o->ctx->team = o->k;
    ctm__share(&l, 2);
    o->ctx->team = 1;
}

static void bench_scaling_of(ctm_ctx *ctx, int C, int batch) {
    ctm_arena a;
    ctm_trainer *tr;
    double one, two, best[1 + BENCH_CORES], now[1 + BENCH_CORES], bytes = 0;
    char name[64];
    int c, s, r;
    ctm_arena_init(&a, ctx, "bench");
    tr = bench_images_trainer(&a, C, batch, 4);  // in as many shards as ctm_recipe_images has
    for (c = 0; c < BENCH_CORES; c++) {
        bench_offers o;
        o.ctx = ctx;
        o.k = 2 << c;
        bench_t.offer[c] = bench_median_of(bench_offer_work, &o, 5) / 1000;
    }
    ctx->threads = 2;
    bench_step_work(tr);
    two = bench_median_of(bench_step_work, tr, 3);
    ctx->threads = 1;
    one = bench_median_of(bench_step_work, tr, 3);
    for (r = 0; r < 3; r++) {                    // the quickest: a neighbour's load is no part of the step
        bench_predict(tr, now);
        if (r == 0 || now[0] < best[0]) memcpy(best, now, sizeof best);
    }
    for (s = 0; s < tr->shards; s++) bytes += 2.0 * 2 * (double)tr->shard[s].arena.high;     // two losses; written and read
    printf("# scaling_c%d_b%d: one core %.3f s measured, %.3f as the sum of its pieces; two cores %.3f measured, %.3f predicted\n",
           C, batch, one, best[0], two, best[1]);
    printf("#   %.0f loops in the shards; in no loop: %.1f %% of the step in the shards, %.1f %% outside\n", bench_t.loops,
           100 * bench_t.serial / now[0], 100 * bench_t.serial_outside / now[0]);
    for (c = 0; c < BENCH_CORES; c++) {
        snprintf(name, sizeof name, "scaling_c%d_b%d_%dcores", C, batch, 2 << c);
        bench_line(name, 2, 100 * best[0] / best[c + 1] / (2 << c), "% efficiency");
        printf("#   %.3f s a step, %.1f us to share a loop among so many, %.1f GB/s of activations and gradients\n", best[c + 1],
               1e6 * bench_t.offer[c], bytes / best[c + 1] / 1e9);
    }
    ctm_trainer_free(tr);
    ctm_arena_free(&a);
}
static void bench_scaling(ctm_ctx *ctx) {
    int threads = ctx->threads;
    if (strncmp(bench_only, "scaling", 7) != 0) return;
    if (bench_wanted("scaling_c32_b16")) bench_scaling_of(ctx, 32, 16);
    if (bench_wanted("scaling_c64_b16")) bench_scaling_of(ctx, 64, 16);
    if (bench_wanted("scaling_c64_b64")) bench_scaling_of(ctx, 64, 64);
    ctx->threads = threads;
}

int main(int argc, char **argv) {
    static const int conv[5][2] = {{64, 32}, {128, 16}, {128, 32}, {256, 8}, {256, 16}};
    ctm_ctx ctx;
    int threads, n, i, C;
    if (argc > 1) bench_only = argv[1];
    ctm_init(&ctx);
    printf("# ctm.h %s, instruction set %s\n", CTM_VERSION, ctm_isa_name(ctx.isa));
    for (threads = 1; threads <= 2; threads++) {
        char name[32];
        ctx.threads = threads;
        snprintf(name, sizeof name, "fma_peak_%dt", threads);
        if (bench_wanted(name)) bench_line(name, 2, bench_peak_now(&ctx, threads), "GFLOP/s");
        for (n = 256; n <= 2048; n *= 2) {
            snprintf(name, sizeof name, "gemm_n%d", n);
            if (bench_wanted(name)) bench_gemm(&ctx, threads, n);
        }
        if (bench_wanted("ctm_step_mlp")) bench_ctm_step_mlp(&ctx, threads);
        if (bench_wanted("points_step")) bench_points_step(&ctx, threads);
    }
    for (i = 0; i < 5; i++) bench_conv(&ctx, 2, 0, conv[i][0], conv[i][1]);
    for (i = 0; i < 5; i++) bench_conv(&ctx, 2, 1, conv[i][0], conv[i][1]);
    bench_ops(&ctx, 2);
    for (C = 32; C <= 128; C *= 2)
        for (i = 0; i < 4; i++) bench_unets(&ctx, C, i / 2, i % 2);
    for (C = 32; C <= 128; C *= 2)
        for (i = 0; i < 2; i++) bench_rss(&ctx, C, i);
    for (C = 32; C <= 128; C *= 2) bench_sample(&ctx, C);
    for (C = 32; C <= 64; C *= 2) bench_ctm_step_unet(&ctx, C);
    bench_story(&ctx);
    bench_scaling(&ctx);
    return 0;
}
