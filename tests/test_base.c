// Chapters 1-7 and the engine room: numbers, random numbers, memory, threads, tensors, printing, the tape, and the kernels.
#include "test.h"
#include <errno.h>
#include <stdint.h>
#ifdef _OPENMP
#include <omp.h>
#endif

// ---- helpers

static double base_bits_to_double(uint64_t bits) { double v; memcpy(&v, &bits, 8); return v; }
static double base_inf(void) { return base_bits_to_double(0x7ff0000000000000ull); }
static ctm_real base_real_nan(void) { ctm_real v; memset(&v, 0xff, sizeof v); return v; }   // NaN even under -ffast-math

// Exactly n numbers from malloc, so that AddressSanitizer sees one read or write too many.
static ctm_real *base_reals(size_t n) {
    ctm_real *p = (ctm_real *)malloc(n * sizeof(ctm_real) + (n == 0));
    if (!p) { printf("no memory\n"); exit(1); }
    return p;
}
static double base_random(uint64_t i) {          // uniform in (-1,1)
    ctm_rng rng = ctm_stream(99, "test");
    return 2 * ctm_uniform(&rng, 7, i) - 1;
}

// ---- chapter 1

static void test_base_is_finite(void) {
    static const uint64_t no[] = {0x7ff0000000000000ull, 0xfff0000000000000ull, 0x7ff8000000000000ull, 0xfff8000000000000ull,
                                  0x7ff0000000000001ull, 0x7fffffffffffffffull};
    static const uint64_t yes[] = {0, 0x8000000000000000ull, 1, 0x000fffffffffffffull, 0x3ff0000000000000ull, 0x7fefffffffffffffull,
                                   0xffefffffffffffffull};
    size_t i;
    for (i = 0; i < sizeof no / sizeof *no; i++) CHECK(!ctm_is_finite(base_bits_to_double(no[i])));
    for (i = 0; i < sizeof yes / sizeof *yes; i++) CHECK(ctm_is_finite(base_bits_to_double(yes[i])));
    CHECK(!ctm_is_finite((double)base_real_nan()));
}

static void test_base_isa(void) {
    static const char *const name[] = {"portable", "v128", "avx2", "avx512"};
    ctm_ctx ctx;
    int isa, best = -1;
    ctm_init(&ctx);
    CHECK(ctx.error[0] == 0 && ctx.threads == 0 && ctx.allocated == 0);
    for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
        CHECK(strcmp(ctm_isa_name(isa), name[isa]) == 0);
        if (ctm_set_isa(&ctx, isa)) {
            CHECK(ctx.isa == isa && ctx.kernels != NULL);
            best = isa;
        } else {
            int before = ctx.isa;
            CHECK_TEXT(ctm_error(&ctx), "is not available here");
            CHECK(strstr(ctm_error(&ctx), name[isa]) != NULL);
            CHECK(ctx.isa == before);                                       // a refusal changes nothing
        }
    }
    CHECK(ctm_set_isa(&ctx, CTM_ISA_PORTABLE));
    CHECK(!ctm_set_isa(&ctx, -1));
    CHECK_TEXT(ctm_error(&ctx), "unknown");
    CHECK(!ctm_set_isa(&ctx, CTM_ISA_COUNT));
    CHECK(ctx.isa == CTM_ISA_PORTABLE);
    ctm_init(&ctx);
    CHECK(ctx.isa == best);                                                 // ctm_init takes the fastest there is
    if (IN_DOUBLE) CHECK(best == CTM_ISA_PORTABLE);
}

// ---- chapter 2

// The vectors published with Philox4x32-10. ctm_bits takes the counter's low two words as block, its high two as step.
static void test_base_philox(void) {
    static const struct { uint32_t counter[4], key[2], want[4]; } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}},
        {{0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu}, {0xffffffffu, 0xffffffffu}, {0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}},
        {{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}, {0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}}};
    size_t i;
    int w;
    for (i = 0; i < sizeof kat / sizeof *kat; i++) {
        ctm_rng rng;
        uint32_t out[4];
        rng.key[0] = kat[i].key[0];
        rng.key[1] = kat[i].key[1];
        ctm_bits(&rng, (uint64_t)kat[i].counter[3] << 32 | kat[i].counter[2], (uint64_t)kat[i].counter[1] << 32 | kat[i].counter[0], out);
        for (w = 0; w < 4; w++) CHECK(out[w] == kat[i].want[w]);
    }
}

static void test_base_streams(void) {
    ctm_rng a = ctm_stream(1, "data"), b = ctm_stream(1, "noise"), c = ctm_stream(2, "data"), again = ctm_stream(1, "data");
    enum { N = 20000 };
    double ab = 0, ac = 0, next = 0, step = 0, mean = 0, half = 0;
    int i;
    CHECK(a.key[0] == again.key[0] && a.key[1] == again.key[1]);
    CHECK(ctm_stream(1, "date").key[0] != a.key[0] && ctm_stream(1, "atad").key[0] != a.key[0]);
    CHECK(a.key[0] != b.key[0] && a.key[1] != b.key[1] && a.key[0] != c.key[0] && a.key[1] != c.key[1]);
    for (i = 0; i < N; i++) {
        double u = ctm_uniform(&a, 5, (uint64_t)i);
        CHECK(u > 0 && u < 1);
        CHECK(u * 33554432.0 == floor(u * 33554432.0));                      // (k + 1/2) / 2^24
        mean += u;
        half += u < 0.25;
        ab += (u - 0.5) * (ctm_uniform(&b, 5, (uint64_t)i) - 0.5);
        ac += (u - 0.5) * (ctm_uniform(&c, 5, (uint64_t)i) - 0.5);
        next += (u - 0.5) * (ctm_uniform(&a, 5, (uint64_t)i + 1) - 0.5);
        step += (u - 0.5) * (ctm_uniform(&a, 6, (uint64_t)i) - 0.5);
    }
    // Means have standard deviation 0.289/sqrt(N), products of two independent uniforms 1/12/sqrt(N).
    CHECK_CLOSE(mean / N, 0.5, 4 * 0.289 / sqrt((double)N));
    CHECK_CLOSE(half / N, 0.25, 4 * 0.433 / sqrt((double)N));
    CHECK_CLOSE(ab / N, 0, 4 / 12.0 / sqrt((double)N));
    CHECK_CLOSE(ac / N, 0, 4 / 12.0 / sqrt((double)N));
    CHECK_CLOSE(next / N, 0, 4 / 12.0 / sqrt((double)N));
    CHECK_CLOSE(step / N, 0, 4 / 12.0 / sqrt((double)N));
}

// Which word of which block an index reads, and that the high bits of step and index count.
static void test_base_uniform_index(void) {
    ctm_rng rng = ctm_stream(3, "index");
    uint32_t r[4];
    uint64_t at;
    for (at = 0; at < 12; at++) {
        ctm_bits(&rng, 2, at / 4, r);
        CHECK_CLOSE(ctm_uniform(&rng, 2, at), ((double)(r[at % 4] >> 8) + 0.5) / 16777216.0, 0);
    }
    CHECK(ctm_uniform(&rng, 0, 5) != ctm_uniform(&rng, (uint64_t)1 << 32, 5));
    CHECK(ctm_uniform(&rng, 0, 5) != ctm_uniform(&rng, 0, ((uint64_t)1 << 34) + 5));
}

static int base_by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void test_base_normal(void) {
    enum { N = 100000 };
    ctm_rng rng = ctm_stream(11, "normal");
    double *z = (double *)malloc(N * sizeof(double)), m1 = 0, m2 = 0, m3 = 0, m4 = 0, pair = 0, squares = 0, ks = 0;
    int i;
    for (i = 0; i < N; i++) {
        z[i] = ctm_normal(&rng, 1, (uint64_t)i);
        m1 += z[i]; m2 += z[i] * z[i]; m3 += z[i] * z[i] * z[i]; m4 += z[i] * z[i] * z[i] * z[i];
        if (i % 2) { pair += z[i] * z[i - 1]; squares += (z[i] * z[i] - 1) * (z[i - 1] * z[i - 1] - 1); }   // cos and sin of one angle
    }
    CHECK_CLOSE(m1 / N, 0, 3.5 / sqrt((double)N));
    CHECK_CLOSE(m2 / N, 1, 3.5 * sqrt(2.0 / N));
    CHECK_CLOSE(m3 / N, 0, 3.5 * sqrt(15.0 / N));
    CHECK_CLOSE(m4 / N, 3, 3.5 * sqrt(96.0 / N));
    CHECK_CLOSE(pair / (N / 2), 0, 3.5 / sqrt(N / 2.0));
    CHECK_CLOSE(squares / (N / 2), 0, 3.5 * 2 / sqrt(N / 2.0));
    // Kolmogorov-Smirnov: the empirical distribution against (1 + erf(z/sqrt 2))/2; 1.63/sqrt(N) is exceeded once in 100.
    qsort(z, N, sizeof *z, base_by_value);
    for (i = 0; i < N; i++) {
        double F = 0.5 * (1 + erf(z[i] / sqrt(2.0))), low = F - (double)i / N, high = (double)(i + 1) / N - F;
        if (low > ks) ks = low;
        if (high > ks) ks = high;
    }
    CHECK_CLOSE(ks, 0, 1.63 / sqrt((double)N));
    CHECK(z[0] > -6.1 && z[0] < -3.5 && z[N - 1] > 3.5 && z[N - 1] < 6.1);
    free(z);
}

static void test_base_normals(void) {
    ctm_rng rng = ctm_stream(12, "normals");
    ctm_real out[32];
    uint64_t first;
    size_t n, i;
    for (first = 0; first < 9; first++)
        for (n = 0; n <= 13; n++) {
            for (i = 0; i < 32; i++) out[i] = 77;
            ctm_normals(&rng, 4, first + ((uint64_t)1 << 33), n, out);
            for (i = 0; i < n; i++) CHECK(out[i] == (ctm_real)ctm_normal(&rng, 4, first + i + ((uint64_t)1 << 33)));
            CHECK(out[n] == 77);
        }
}

// The header's own logarithm, cosine and sine, over the numbers they are asked for.
static void test_base_own_ln_cos(void) {
    double ln = 0, cs = 0;
    uint32_t bits;
    for (bits = 0; bits < 0xffffff00u - 65536; bits += 40503) {
        double u = ctm__unit(bits), l = log(u), angle = 2 * 3.14159265358979323846 * u, c, s;
        ln = fmax(ln, fabs(ctm__ln(u) - l) / fabs(l));
        ctm__cos_sin_2pi(u, &c, &s);
        cs = fmax(cs, fmax(fabs(c - cos(angle)), fabs(s - sin(angle))));
    }
    ln = fmax(ln, fabs(ctm__ln(ctm__unit(0)) / log(0.5 / 16777216) - 1));
    ln = fmax(ln, fabs(ctm__ln(ctm__unit(0xffffffffu)) / log(1 - 0.5 / 16777216) - 1));
    CHECK_CLOSE(ln, 0, 1e-11);
    CHECK_CLOSE(cs, 0, 1e-12);
    CHECK(ctm__unit(0) > 0 && ctm__unit(0xffffffffu) < 1);
}

// ---- chapter 3

static void test_base_arena(void) {
    ctm_ctx ctx;
    ctm_arena a;
    ctm_mark m, start;
    unsigned char *p[200], *q, *big;
    size_t i, k, before, high;
    ctm_init(&ctx);
    ctm_arena_init(&a, &ctx, "an arena");
    CHECK(strcmp(a.name, "an arena") == 0 && ctx.allocated == 0);
    start = ctm_arena_mark(&a);
    for (i = 0; i < 200; i++) {                                             // 20 MB: the arena grows many times
        p[i] = (unsigned char *)ctm_alloc(&a, i * 997 + 1);
        CHECK((uintptr_t)p[i] % 64 == 0);
        for (k = 0; k < i * 997 + 1; k += 61) CHECK(p[i][k] == 0);
        memset(p[i], (int)i, i * 997 + 1);
    }
    for (i = 0; i < 200; i++) CHECK(p[i][0] == (unsigned char)i && p[i][i * 997] == (unsigned char)i);   // growth moved nothing
    before = ctx.allocated;
    high = a.high;
    CHECK(a.used == high && high >= 200 * 199 / 2 * 997 && before >= high && ctx.high == before);
    CHECK(ctm_alloc(&a, 0) != NULL);

    // Release and allocate the same again: the same memory, zeroed, nothing asked of the system.
    for (k = 0; k < 3; k++) {
        ctm_arena_release(&a, start);
        CHECK(a.used == 0 && a.high == high);
        for (i = 0; i < 200; i++) {
            q = (unsigned char *)ctm_alloc(&a, i * 997 + 1);
            CHECK(q == p[i] && q[0] == 0 && q[i * 997] == 0);
            memset(q, 255, i * 997 + 1);
        }
        CHECK(ctx.allocated == before && a.used == high);
    }

    // A mark in the middle keeps what came before it.
    ctm_arena_release(&a, start);
    q = (unsigned char *)ctm_alloc(&a, 100);
    q[0] = 42;
    m = ctm_arena_mark(&a);
    big = (unsigned char *)ctm_alloc(&a, 100);
    ctm_alloc(&a, 5000000);
    ctm_arena_release(&a, m);
    CHECK(q[0] == 42 && a.used == 128);
    CHECK((unsigned char *)ctm_alloc(&a, 7) == big);

    // One piece larger than any block, then a small one, twice: the second time nothing grows.
    ctm_arena_release(&a, start);
    before = 0;
    for (k = 0; k < 3; k++) {
        ctm_arena_release(&a, start);
        big = (unsigned char *)ctm_alloc(&a, (size_t)3 << 20);
        big[((size_t)3 << 20) - 1] = 1;
        ctm_alloc(&a, 10);
        ctm_alloc(&a, (size_t)9 << 20);
        if (before) CHECK(ctx.allocated == before);
        before = ctx.allocated;
    }
    // Zeroing after dirty memory came back through ctm_alloc_raw.
    ctm_arena_release(&a, start);
    q = (unsigned char *)ctm_alloc_raw(&a, 64);
    memset(q, 9, 64);
    ctm_arena_release(&a, start);
    q = (unsigned char *)ctm_alloc(&a, 3);
    CHECK(q[0] == 0 && q[1] == 0 && q[2] == 0);

    high = ctx.high;
    ctm_arena_free(&a);
    CHECK(ctx.allocated == 0 && ctx.high == high && a.used == 0);
    q = (unsigned char *)ctm_alloc(&a, 10);                                 // usable again
    CHECK(q != NULL && q[9] == 0);
    ctm_arena_free(&a);
    CHECK(ctx.allocated == 0);
}

// Steps of ever different sizes: what is held stays within a few times of what was used at most.
static void test_base_arena_bounded(void) {
    ctm_ctx ctx;
    ctm_arena a;
    ctm_mark start;
    ctm_rng rng = ctm_stream(4, "sizes");
    int step, i;
    ctm_init(&ctx);
    ctm_arena_init(&a, &ctx, "bounded");
    start = ctm_arena_mark(&a);
    for (step = 0; step < 3000; step++) {
        int n = (int)(60 * ctm_uniform(&rng, (uint64_t)step, 0));
        ctm_arena_release(&a, start);
        for (i = 0; i < n; i++) ctm_alloc_raw(&a, (size_t)exp(14 * ctm_uniform(&rng, (uint64_t)step, (uint64_t)i + 1)));
    }
    if (ctx.allocated > 4 * a.high) {
        test_fail(__FILE__, __LINE__, "an arena holds more than four times what was ever used:");
        printf("     %lu bytes held, %lu used at most\n", (unsigned long)ctx.allocated, (unsigned long)a.high);
    }
    ctm_arena_free(&a);
    CHECK(ctx.allocated == 0);
}

static void test_base_arena_panics(void) {
    ctm_ctx ctx;
    ctm_arena a;
    ctm_init(&ctx);
    ctm_arena_init(&a, &ctx, "too small");
    CHECK(PANICS(ctm_alloc_raw(&a, SIZE_MAX - 10)));
    CHECK_TEXT(test_panic, "\"too small\"");
    CHECK(PANICS(ctm_alloc_raw(&a, SIZE_MAX - 200)));
    CHECK_TEXT(test_panic, "out of memory: arena \"too small\"");
    ctm_arena_free(&a);
}

// ---- chapter 4

typedef struct base_count { ctm_ctx *ctx; int n, count[1000], threads; void *who[1000]; struct base_count *inner; int inner_ok; } base_count;
static void base_work(void *arg, int i) {
    base_count *c = (base_count *)arg;
    c->count[i]++;
    c->who[i] = (void *)&errno;                                             // errno has another address in every thread
#ifdef _OPENMP
    if (i == 0) c->threads = omp_get_num_threads();
#else
    if (i == 0) c->threads = 1;
#endif
}
static void base_outer(void *arg, int i) {
    base_count *c = (base_count *)arg, *inner = c->inner + i;
    int k;
    c->count[i]++;
    ctm_parallel_for(c->ctx, 50, base_work, inner);
    inner->inner_ok = 1;
    for (k = 0; k < 50; k++) if (inner->count[k] != 1 || inner->who[k] != (void *)&errno) inner->inner_ok = 0;
}
static void test_base_parallel_for(void) {
    static const int threads[] = {1, 2, 7, 0}, sizes[] = {0, 1, 2, 5, 1000};
    static base_count c, inner[8];
    ctm_ctx ctx;
    int t, s, i;
    ctm_init(&ctx);
    for (t = 0; t < 4; t++) {
        ctx.threads = threads[t];
        for (s = 0; s < 5; s++) {
            memset(&c, 0, sizeof c);
            ctm_parallel_for(&ctx, sizes[s], base_work, &c);
            for (i = 0; i < 1000; i++) CHECK(c.count[i] == (i < sizes[s]));
#ifdef _OPENMP
            if (sizes[s] == 1000 && threads[t]) CHECK(c.threads == threads[t]);
            if (sizes[s] == 5 && threads[t] == 7) CHECK(c.threads == 5);
#endif
        }
        // Nested: the inner loop runs on its caller's thread alone, even where OpenMP would allow more.
        memset(&c, 0, sizeof c);
        memset(inner, 0, sizeof inner);
        c.ctx = &ctx;
        c.inner = inner;
#ifdef _OPENMP
        omp_set_max_active_levels(3);
#endif
        ctm_parallel_for(&ctx, 8, base_outer, &c);
        // A loop of one piece has no workers of its own, but what it calls has.
        for (i = 0; i < 8; i++) {
            CHECK(c.count[i] == 1);
            if (threads[t] > 1) CHECK(inner[i].inner_ok);
        }
#ifdef _OPENMP
        omp_set_max_active_levels(1);
#endif
    }
}

// More threads than pieces: those without one help with the loops inside. Three pieces of each inner loop must be at work at the same
// time (each waits for the others), each with scratch memory that nobody else touches.
#if CTM__TASKS
typedef struct base_team { ctm_arena memory; int begun, times[3], kept[3]; } base_team;
static void base_team_piece(void *arg, int i, void *scratch) {
    base_team *t = (base_team *)arg;
    double until = omp_get_wtime() + 30;
    int begun = 0;
    memset(scratch, i + 1, 100);
    #pragma omp atomic
    t->begun++;
    while (begun < 3 && omp_get_wtime() < until) {
        #pragma omp atomic read
        begun = t->begun;
    }
    t->times[i]++;
    t->kept[i] = begun >= 3 && ((unsigned char *)scratch)[0] == i + 1 && ((unsigned char *)scratch)[99] == i + 1;
}
static void base_team_outer(void *arg, int i) {
    base_team *t = (base_team *)arg + i;
    ctm__parallel_scratch(&t->memory, 3, 100, base_team_piece, t);
}
#endif
static void test_base_teams(void) {
#if CTM__TASKS
    base_team t[2];
    ctm_ctx ctx;
    int i, k;
    ctm_init(&ctx);
    ctx.threads = 6;
    memset(t, 0, sizeof t);
    for (i = 0; i < 2; i++) ctm_arena_init(&t[i].memory, &ctx, "team");
    ctx.most_pieces = 3;                                                    // as if loops of three pieces had been met before
    ctm__parallel_teams(&ctx, 2, base_team_outer, t);
    for (i = 0; i < 2; i++) {
        for (k = 0; k < 3; k++) CHECK(t[i].times[k] == 1 && t[i].kept[k]);
        ctm_arena_free(&t[i].memory);
    }
    CHECK(ctx.team == 1);                                                   // other loops inside loops stay on their thread
#endif
}

// ---- chapters 5 and 6

static void test_base_tensors(void) {
    ctm_ctx ctx;
    ctm_arena a;
    ctm_tape tp;
    ctm_tensor *s, *v, *m, *top;
    char text[48], longer[100];
    const char *volatile at_run_time = longer;                              // so that the compiler does not warn of the cut
    size_t where = 99;
    int i;
    ctm_init(&ctx);
    ctm_arena_init(&a, &ctx, "tensors");
    ctm_tape_init(&tp, &ctx, &a);
    CHECK(tp.recording == 1 && tp.count == 0 && tp.first == NULL);
    s = ctm_scalar(&tp, "s", 2.5);
    v = ctm_vector(&tp, "v", 7);
    m = ctm_matrix(&tp, "m", 3, 4);
    CHECK(s->ndim == 0 && s->len == 1 && s->data[0] == (ctm_real)2.5);
    CHECK(v->ndim == 1 && v->shape[0] == 7 && v->len == 7);
    CHECK(m->ndim == 2 && m->shape[0] == 3 && m->shape[1] == 4 && m->len == 12);
    CHECK(strcmp(m->name, "m") == 0 && strcmp(m->op, "leaf") == 0 && m->grad == NULL && tp.count == 0);
    for (i = 0; i < 12; i++) CHECK(m->data[i] == 0);
    CHECK(ctm_fill(m, -3) == m);
    for (i = 0; i < 12; i++) CHECK(m->data[i] == -3);
    CHECK(ctm_wants_grad(&tp, m) == m && m->grad != NULL);
    for (i = 0; i < 12; i++) CHECK(m->grad[i] == 0);
    CHECK((uintptr_t)m->data % 64 == 0 && (uintptr_t)m->grad % 64 == 0);

    top = ctm_rows_of(&tp, m, 2);
    CHECK(top->data == m->data && top->shape[0] == 2 && top->shape[1] == 4 && top->len == 8 && top->grad == NULL);
    top = ctm_rows_of(&tp, v, 3);
    CHECK(top->data == v->data && top->ndim == 1 && top->len == 3);
    CHECK(PANICS(ctm_rows_of(&tp, m, 4)));
    CHECK_TEXT(test_panic, "\"m\" has no 4 rows");
    CHECK(PANICS(ctm_matrix(&tp, "negative", 3, -4)));
    CHECK_TEXT(test_panic, "negative: a dimension cannot be -4");

    ctm_shape_text(s, text, sizeof text); CHECK(strcmp(text, "[]") == 0);
    ctm_shape_text(v, text, sizeof text); CHECK(strcmp(text, "[7]") == 0);
    ctm_shape_text(m, text, sizeof text); CHECK(strcmp(text, "[3,4]") == 0);
    ctm_shape_text(ctm_matrix(&tp, "wide", 2, 12345), text, sizeof text); CHECK(strcmp(text, "[2,12345]") == 0);
    memset(text, 'x', sizeof text);
    ctm_shape_text(ctm_matrix(&tp, "wide", 2, 12345), text, 5);             // too small a buffer: cut, ended, not overrun
    CHECK(strcmp(text, "[2,1") == 0 && text[5] == 'x');

    CHECK(ctm_name(m, "a new name") == m && strcmp(m->name, "a new name") == 0);
    memset(text, 'n', sizeof text);                                         // longer than fits: cut
    text[47] = 0;
    ctm_name(m, text);
    CHECK(strcmp(m->name, text) == 0);
    snprintf(longer, sizeof longer, "%s%s", text, text);
    ctm_name(m, at_run_time);
    CHECK(strlen(m->name) == sizeof m->name - 1);

    CHECK(!ctm_first_nonfinite(v, &where) && where == 99);
    v->data[5] = base_real_nan();
    CHECK(ctm_first_nonfinite(v, &where) && where == 5);
    v->data[3] = (ctm_real)base_inf();
    CHECK(ctm_first_nonfinite(v, &where) && where == 3);
    v->data[0] = (ctm_real)-base_inf();
    CHECK(ctm_first_nonfinite(v, &where) && where == 0 && ctm_first_nonfinite(v, NULL));
    ctm_arena_free(&a);
}

#ifdef CTM__POSIX
// What a function prints.
static void base_print_both(ctm_tape *tp, ctm_tensor *x, char *text, size_t size) {
    FILE *f = tmpfile();
    size_t n;
    int keep;
    text[0] = 0;
    if (!f) return;
    fflush(stdout);
    keep = dup(1);
    dup2(fileno(f), 1);
    ctm_print(x);
    ctm_tape_dump(tp);
    fflush(stdout);
    dup2(keep, 1);
    close(keep);
    rewind(f);
    n = fread(text, 1, size - 1, f);
    text[n] = 0;
    fclose(f);
}
static void test_base_printing(void) {
    ctm_ctx ctx;
    ctm_arena a;
    ctm_tape tp;
    ctm_tensor *x, *y;
    char text[2000];
    ctm_init(&ctx);
    ctm_arena_init(&a, &ctx, "printing");
    ctm_tape_init(&tp, &ctx, &a);
    x = ctm_wants_grad(&tp, ctm_fill(ctm_matrix(&tp, "x_est", 2, 3), 1.5));
    x->data[4] = -2;
    y = ctm_name(ctm_weighted_mean(&tp, ctm_square(&tp, x), NULL, 6), "loss");
    ctm_backward(&tp, y);
    base_print_both(&tp, x, text, sizeof text);
    CHECK_TEXT(text, "x_est [2,3] leaf");
    CHECK_TEXT(text, "data  min -2  mean 0.91667  max 1.5 : 1.5 1.5 1.5 1.5 -2 1.5");
    CHECK_TEXT(text, "grad  min -0.66667");
    CHECK_TEXT(text, "square");
    CHECK_TEXT(text, "weighted_mean");
    CHECK_TEXT(text, "loss");
    x->len = 0;                                                              // nothing to print is no reason to fall over
    base_print_both(&tp, x, text, sizeof text);
    CHECK_TEXT(text, "x_est");
    ctm_arena_free(&a);
}
#else
static void test_base_printing(void) { SKIP("needs dup2 to look at what is printed"); }
#endif

// ---- chapter 7

static void test_base_tape(void) {
    ctm_ctx ctx;
    ctm_arena a;
    ctm_tape tp;
    ctm_tensor *x, *c, *y, *z, *L;
    size_t high;
    int i;
    ctm_init(&ctx);
    ctm_arena_init(&a, &ctx, "tape");
    ctm_tape_init(&tp, &ctx, &a);

    // L = sum(x·x + x): a tensor used three times gets 2x + 1; and again what it had before.
    x = ctm_wants_grad(&tp, ctm_vector(&tp, "x", 3));
    for (i = 0; i < 3; i++) { x->data[i] = (ctm_real)(i - 1.5); x->grad[i] = 100; }
    y = ctm_add(&tp, ctm_mul(&tp, x, x), x);
    L = ctm_weighted_mean(&tp, y, NULL, 1);
    CHECK(tp.count == 3 && tp.first->id == 1 && tp.last == L && L->prev == y && y->next == L && L->id == 3);
    CHECK(strcmp(y->name, "add") == 0 && strcmp(y->op, "add") == 0);
    ctm_backward(&tp, L);
    for (i = 0; i < 3; i++) CHECK_CLOSE(x->grad[i], 100 + 2 * (double)x->data[i] + 1, 0);
    CHECK(L->grad[0] == 1);
    ctm_tape_zero_grads(&tp);
    CHECK(L->grad[0] == 0 && y->grad[0] == 0 && x->grad[0] != 0);            // results are cleared, leaves are not
    ctm_backward(&tp, L);
    for (i = 0; i < 3; i++) CHECK_CLOSE(x->grad[i], 100 + 2 * (2 * (double)x->data[i] + 1), 0);

    // Only what depends on a wanted gradient is recorded; a constant gets none.
    ctm_tape_reset(&tp);
    CHECK(tp.count == 0 && tp.first == NULL && tp.last == NULL && a.used == 0);
    x = ctm_wants_grad(&tp, ctm_fill(ctm_vector(&tp, "x", 3), 2));
    c = ctm_fill(ctm_vector(&tp, "c", 3), 5);
    z = ctm_mul(&tp, c, c);
    CHECK(z->grad == NULL && tp.count == 0 && z->data[0] == 25);
    y = ctm_mul(&tp, z, x);
    CHECK(y->grad != NULL && tp.count == 1);
    CHECK(z->id == 1 && y->id == 2);                                         // numbered all the same
    ctm_backward(&tp, ctm_weighted_mean(&tp, y, NULL, 1));
    CHECK(x->grad[1] == 25 && c->grad == NULL);

    // Recording off: the same numbers, no gradients; and stop-gradient by a tensor without one.
    tp.recording = 0;
    y = ctm_mul(&tp, c, x);
    CHECK(y->grad == NULL && tp.count == 2 && y->data[2] == 10);
    tp.recording = 1;
    ctm_fill(x, 3);
    memset(x->grad, 0, 3 * sizeof(ctm_real));
    ctm_tape_zero_grads(&tp);
    L = ctm_weighted_mean(&tp, ctm_mul(&tp, x, y), NULL, 1);                 // y = sg(5x) at x = 2
    ctm_backward(&tp, L);
    CHECK_CLOSE(x->grad[0], 10, 0);

    // Seeded: any shape, with dL/dy given.
    ctm_tape_reset(&tp);
    x = ctm_wants_grad(&tp, ctm_fill(ctm_matrix(&tp, "x", 2, 2), 3));
    y = ctm_square(&tp, x);
    for (i = 0; i < 4; i++) y->grad[i] = (ctm_real)i;
    ctm_backward_seeded(&tp, y);
    for (i = 0; i < 4; i++) CHECK_CLOSE(x->grad[i], 6 * i, 0);

    // What is recorded after y is not y's business.
    ctm_tape_zero_grads(&tp);
    memset(x->grad, 0, 4 * sizeof(ctm_real));
    z = ctm_square(&tp, y);
    for (i = 0; i < 4; i++) z->grad[i] = 1;
    y->grad[0] = 1;
    ctm_backward_seeded(&tp, y);
    CHECK(x->grad[0] == 6 && x->grad[1] == 0);

    // A loss must be a scalar and depend on something.
    CHECK(PANICS(ctm_backward(&tp, ctm_name(y, "not_a_loss"))));
    CHECK_TEXT(test_panic, "a loss must be a scalar");
    CHECK_TEXT(test_panic, "\"not_a_loss\" [2,2]");
    {
        ctm_ctx blank;
        ctm_arena none;
        ctm_tape tape;
        memset(&blank, 0, sizeof blank);
        memset(&none, 0, sizeof none);
        CHECK(PANICS(ctm_arena_init(&none, &blank, "early")));
        CHECK_TEXT(test_panic, "\"early\" needs a context on which ctm_init was called");
        CHECK(PANICS(ctm_tape_init(&tape, &blank, &none)));
        CHECK_TEXT(test_panic, "ctm_arena_init first");
    }
    CHECK(PANICS(ctm_backward(&tp, ctm_scalar(&tp, "lonely", 1))));
    CHECK_TEXT(test_panic, "\"lonely\" depends on nothing that wants a gradient");
    CHECK(PANICS(ctm_backward_seeded(&tp, ctm_vector(&tp, "alone", 2))));
    CHECK_TEXT(test_panic, "\"alone\" depends on nothing");

    // A tape on an arena that holds other things gives back its own alone; and an arena that was freed does not confuse it.
    {
        ctm_arena shared;
        ctm_tape guest;
        int *kept, round;
        ctm_arena_init(&shared, &ctx, "shared");
        kept = (int *)ctm_alloc(&shared, 1000 * sizeof(int));
        kept[999] = 17;
        ctm_tape_init(&guest, &ctx, &shared);
        for (round = 0; round < 3; round++) {
            ctm_fill(ctm_matrix(&guest, "large", 1000, 1000), 3);
            ctm_tape_reset(&guest);
            CHECK(kept[999] == 17 && shared.used >= 4000 && shared.used < 5000);
        }
        ctm_arena_free(&shared);
        ctm_tape_reset(&guest);
        CHECK(ctm_fill(ctm_vector(&guest, "again", 10), 2)->data[9] == 2);
        ctm_tape_reset(&guest);
        ctm_arena_free(&shared);
    }

    // Numbers and memory are the same in every step.
    high = 0;
    for (i = 0; i < 5; i++) {
        ctm_tape_reset(&tp);
        x = ctm_wants_grad(&tp, ctm_matrix(&tp, "x", 50, 60));
        L = ctm_weighted_mean(&tp, ctm_square(&tp, ctm_add(&tp, x, x)), NULL, 1);
        CHECK(L->id == 3);
        ctm_backward(&tp, L);
        if (i) CHECK(a.high == high);
        high = a.high;
    }
    ctm_arena_free(&a);
    CHECK(ctx.allocated == 0);
}

// ---- chapter 22

// One product on the context's instruction set against the definition. Small whole numbers, so every order of summation gives
// the same bits; NaN wherever neither should look; arrays end where the last number does.
static void base_one_gemm(ctm_ctx *ctx, int M, int N, int K, int mode) {
    int turned = mode & 1, with_bias = mode & 2, add = (mode & 4) != 0, i, j;
    ptrdiff_t a_row = turned ? 1 : K + 3, a_step = turned ? M + 2 : 1, b_step = N + (mode & 8 ? 5 : 0), c_row = N + (mode & 8 ? 3 : 0);
    size_t a_len = K ? (size_t)((M - 1) * a_row + (K - 1) * a_step + 1) : 0, b_len = K ? (size_t)((K - 1) * b_step + N) : 0;
    size_t c_len = (size_t)((M - 1) * c_row + N), l;
    ctm_real *A = base_reals(a_len), *B = base_reals(b_len), *C = base_reals(c_len), *want = base_reals(c_len), *bias = base_reals((size_t)N);
    ctm_real hole = base_real_nan();
    uint32_t seed = (uint32_t)(M * 7919 + N * 104729 + K * 31 + mode);
    int bad = 0;
#define BASE_SMALL() ((ctm_real)((int)((seed = seed * 1664525u + 1013904223u) >> 28) - 8))
    for (l = 0; l < a_len; l++) A[l] = hole;
    for (l = 0; l < b_len; l++) B[l] = hole;
    for (i = 0; i < M; i++) for (j = 0; j < K; j++) A[i * a_row + j * a_step] = BASE_SMALL();
    for (i = 0; i < K; i++) for (j = 0; j < N; j++) B[i * b_step + j] = BASE_SMALL();
    for (j = 0; j < N; j++) bias[j] = BASE_SMALL();
    for (l = 0; l < c_len; l++) C[l] = want[l] = add ? BASE_SMALL() : hole;
    for (i = 0; i < M - 1; i++) for (j = N; j < c_row; j++) C[i * c_row + j] = want[i * c_row + j] = 12345;   // between the rows
    ctm_gemm_naive(M, N, K, A, a_row, a_step, B, b_step, want, c_row, with_bias ? bias : NULL, add);
    ctm_gemm(ctx, M, N, K, A, a_row, a_step, B, b_step, C, c_row, with_bias ? bias : NULL, add);
    for (l = 0; l < c_len && !bad; l++) bad = !(ctm_is_finite((double)C[l]) && C[l] == want[l]);
    if (bad) {
        char text[200];
        snprintf(text, sizeof text, "ctm_gemm on %s: M %d N %d K %d mode %d differs from ctm_gemm_naive", ctm_isa_name(ctx->isa), M, N, K, mode);
        test_fail(__FILE__, __LINE__, text);
    }
    free(A); free(B); free(C); free(want); free(bias);
}

static void test_base_gemm(void) {
    static const int size[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 33, 48, 49, 65}, depth[] = {0, 1, 2, 3, 17, 127, 128, 129, 260};
    ctm_ctx ctx;
    int isa, m, n, k, mode = 0;
    ctm_init(&ctx);
    for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
        if (!ctm_set_isa(&ctx, isa)) continue;
        for (m = 0; m < 18; m++)
            for (n = 0; n < 18; n++)
                for (k = 0; k < 9; k++)
                    if (depth[k] < 100 || (m + n + k) % 4 == 0) base_one_gemm(&ctx, size[m], size[n], depth[k], mode++ * 7 % 16);
        for (mode = 0; mode < 16; mode++) {
            base_one_gemm(&ctx, 100, 100, 100, mode);                        // through the threads, rows cut
            base_one_gemm(&ctx, 20, 331, 100, mode);                         // columns cut
            base_one_gemm(&ctx, 1, 49, 33, mode);
            base_one_gemm(&ctx, 33, 1, 49, mode);
            base_one_gemm(&ctx, 8, 48, 130, mode);
            if (mode % 5 == 1) base_one_gemm(&ctx, 259, 301, 270, mode);     // blocks of both factors copied; A turned, or not
        }
        ctm_gemm(&ctx, 0, 5, 3, NULL, 1, 1, NULL, 1, NULL, 1, NULL, 0);       // nothing to do
        ctm_gemm(&ctx, 5, 0, 3, NULL, 1, 1, NULL, 1, NULL, 1, NULL, 0);
    }
}

// A row of ones with both strides zero sums columns: the gradient of a bias.
static void test_base_gemm_row_of_ones(void) {
    ctm_ctx ctx;
    ctm_real one = 1, B[35 * 6], C[6];
    int isa, i, j;
    ctm_init(&ctx);
    for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
        if (!ctm_set_isa(&ctx, isa)) continue;
        for (i = 0; i < 35 * 6; i++) B[i] = (ctm_real)(i % 13);
        memset(C, 0, sizeof C);
        ctm_gemm(&ctx, 1, 6, 35, &one, 0, 0, B, 6, C, 6, NULL, 0);
        for (j = 0; j < 6; j++) {
            double sum = 0;
            for (i = 0; i < 35; i++) sum += (double)B[i * 6 + j];
            CHECK_CLOSE(C[j], sum, 0);
        }
    }
}

// Every entry of C is one sum in the order of k, so neither threads nor cuts of rows and columns change a bit.
static void base_gemm_bits(ctm_ctx *ctx, int M, int N, int K) {
    static const int threads[] = {1, 2, 7};
    size_t c_len = (size_t)M * (size_t)N, l;
    ctm_real *A = base_reals((size_t)M * (size_t)K), *B = base_reals((size_t)K * (size_t)N), *C = base_reals(c_len), *D = base_reals(c_len);
    int t, i, j;
    double worst = 0;
    for (l = 0; l < (size_t)M * (size_t)K; l++) A[l] = (ctm_real)base_random(l);
    for (l = 0; l < (size_t)K * (size_t)N; l++) B[l] = (ctm_real)base_random(l + 1000000);
    ctx->kernels->gemm(M, N, K, A, K, 1, B, N, C, N, NULL, 0);                // in one piece
    for (t = 0; t < 3; t++) {
        ctx->threads = threads[t];
        memset(D, 0xff, c_len * sizeof *D);
        ctm_gemm(ctx, M, N, K, A, K, 1, B, N, D, N, NULL, 0);
        CHECK(memcmp(C, D, c_len * sizeof *D) == 0);
    }
    memset(D, 0xff, c_len * sizeof *D);
    for (i = 0; i < M; i += 13)                                              // in odd pieces
        for (j = 0; j < N; j += 29)
            ctx->kernels->gemm(M - i < 13 ? M - i : 13, N - j < 29 ? N - j : 29, K, A + i * K, K, 1, B + j, N, D + i * N + j, N, NULL, 0);
    CHECK(memcmp(C, D, c_len * sizeof *D) == 0);
    ctm_gemm_naive(M, N, K, A, K, 1, B, N, D, N, NULL, 0);
    for (l = 0; l < c_len; l++) worst = fmax(worst, fabs((double)(C[l] - D[l])));
    CHECK_CLOSE(worst, 0, (IN_DOUBLE ? 1e-15 : 6e-7) * sqrt((double)K) * 4);
    free(A); free(B); free(C); free(D);
}

static void test_base_gemm_bits(void) {
    ctm_ctx ctx;
    int isa;
    ctm_init(&ctx);
    for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
        if (!ctm_set_isa(&ctx, isa)) continue;
        base_gemm_bits(&ctx, 201, 67, 70);
        base_gemm_bits(&ctx, 33, 250, 140);
        base_gemm_bits(&ctx, 64, 128, 128);
        base_gemm_bits(&ctx, 260, 290, 300);
    }
}

static double base_ulp(double v) {                                           // spacing of real numbers at v
    int e;
    frexp(v, &e);
    return ldexp(1.0, e - (IN_DOUBLE ? 53 : 24));
}

enum { BASE_N = 40000 };
static void test_base_exp_log(void) {
    ctm_ctx ctx;
    ctm_real *x = base_reals(BASE_N), *y = base_reals(BASE_N);
    int isa, i;
    ctm_init(&ctx);
    for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
        double worst_exp = 0, worst_log = 0;
        if (!ctm_set_isa(&ctx, isa)) continue;
        for (i = 0; i < BASE_N; i++)
            x[i] = (ctm_real)(i < BASE_N / 2 ? -87 + 175.0 * i / (BASE_N / 2) : 1.5 * base_random((uint64_t)i));
        ctm_exp_rows(&ctx, BASE_N, x, y);
        for (i = 0; i < BASE_N; i++) worst_exp = fmax(worst_exp, fabs((double)y[i] - exp((double)x[i])) / base_ulp(exp((double)x[i])));
        for (i = 0; i < BASE_N; i++)                                         // 1e-37 .. 1e38, and dense around 1
            x[i] = (ctm_real)(i < BASE_N / 2 ? pow(10, -37 + 75.0 * i / (BASE_N / 2)) : exp(1e-3 * (i - 0.75 * BASE_N) / BASE_N * (i % 1000)));
        ctm_log_rows(&ctx, BASE_N, x, y);
        for (i = 0; i < BASE_N; i++) {
            double l = log((double)x[i]);
            if (l == 0) CHECK(y[i] == 0);
            else worst_log = fmax(worst_log, fabs((double)y[i] - l) / base_ulp(l));
        }
        CHECK_CLOSE(worst_exp, 0, 2);
        CHECK_CLOSE(worst_log, 0, 3);

        x[0] = -100; x[1] = 0; x[2] = 100; x[3] = 1;
        ctm_exp_rows(&ctx, 4, x, y);
        CHECK(y[0] >= 0 && y[0] < (ctm_real)2e-38 && y[1] == 1 && ctm_is_finite((double)y[2]) && y[2] > (ctm_real)1e38);
        x[0] = 1; x[1] = (ctm_real)0.002; x[2] = 80; x[3] = 2;
        ctm_log_rows(&ctx, 4, x, y);
        CHECK(y[0] == 0);
        for (i = 1; i < 4; i++) CHECK_CLOSE(y[i], log((double)x[i]), 3 * base_ulp(log((double)x[i])));
        // What is no number stays none: losses are judged by that.
        x[0] = x[1] = x[2] = base_real_nan();
        ctm_exp_rows(&ctx, 3, x, y);
        CHECK(!ctm_is_finite((double)y[0]) && !ctm_is_finite((double)y[2]));
    }
    free(x); free(y);
}

static void test_base_sincos(void) {
    ctm_ctx ctx;
    ctm_real *x = base_reals(BASE_N), *s = base_reals(BASE_N), *c = base_reals(BASE_N);
    int isa, i, range;
    ctm_init(&ctx);
    for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
        if (!ctm_set_isa(&ctx, isa)) continue;
        for (range = 0; range < 2; range++) {                                // the embeddings' range, and the promised one
            double worst = 0, size = range ? 1e4 : 20;
            for (i = 0; i < BASE_N; i++) x[i] = (ctm_real)(size * base_random((uint64_t)i));
            ctm_sincos_rows(&ctx, BASE_N, x, s, c);
            for (i = 0; i < BASE_N; i++)
                worst = fmax(worst, fmax(fabs((double)s[i] - sin((double)x[i])), fabs((double)c[i] - cos((double)x[i]))));
            CHECK_CLOSE(worst, 0, (range ? 3 : 1.01) * (IN_DOUBLE ? 2.3e-16 : 1.2e-7));     // in units of the last place of 1
        }
        for (i = 0; i < BASE_N; i++) x[i] = (ctm_real)(0.7 * base_random((uint64_t)i) * pow(10, -(i % 8)));   // small: relative
        ctm_sincos_rows(&ctx, BASE_N, x, s, c);
        for (i = 0; i < BASE_N; i++) CHECK_CLOSE(s[i], sin((double)x[i]), 2 * base_ulp(sin((double)x[i])));
        x[0] = 0; x[1] = 1; x[2] = -1; x[3] = (ctm_real)(0.25 * 3.14159265358979324);
        ctm_sincos_rows(&ctx, 4, x, s, c);
        CHECK(s[0] == 0 && c[0] == 1 && s[1] == -s[2] && c[1] == c[2]);
    }
    free(x); free(s); free(c);
}

// Rows of every length up to two registers and more: the same numbers as one long row, and nothing written behind the end.
static void test_base_tails(void) {
    enum { LONG = 40 };
    ctm_ctx ctx;
    ctm_real in[LONG], e[LONG], l[LONG], s[LONG], c[LONG];
    int isa, n, i;
    ctm_init(&ctx);
    for (i = 0; i < LONG; i++) in[i] = (ctm_real)(0.1 + fabs(base_random((uint64_t)i)) * 5);
    for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
        if (!ctm_set_isa(&ctx, isa)) continue;
        ctm_exp_rows(&ctx, LONG, in, e);
        ctm_log_rows(&ctx, LONG, in, l);
        ctm_sincos_rows(&ctx, LONG, in, s, c);
        for (n = 0; n <= LONG - 4; n++) {
            size_t bytes = (size_t)n * sizeof(ctm_real);
            ctm_real *x = base_reals((size_t)n), *y = base_reals((size_t)n), *z = base_reals((size_t)n);    // ASan looks on
            memcpy(x, in, bytes);
            ctm_exp_rows(&ctx, (size_t)n, x, y);
            CHECK(memcmp(y, e, bytes) == 0);
            ctm_log_rows(&ctx, (size_t)n, x, y);
            CHECK(memcmp(y, l, bytes) == 0);
            ctm_sincos_rows(&ctx, (size_t)n, x, y, z);
            CHECK(memcmp(y, s, bytes) == 0 && memcmp(z, c, bytes) == 0);
            free(x); free(y); free(z);
            {
                ctm_real out[LONG];
                memset(out, 0x55, sizeof out);
                ctm_exp_rows(&ctx, (size_t)n, in, out);
                CHECK(((unsigned char *)(out + n))[0] == 0x55 && ((unsigned char *)(out + LONG))[-1] == 0x55);
            }
        }
    }
}

// The other fast rows: every instruction set against plain formulas in double, with a tail.
static void test_base_rows(void) {
    enum { N = 53 };
    double tol = IN_DOUBLE ? 1e-14 : 2e-6;
    ctm_ctx ctx;
    ctm_real x[N], b[N], c[N], d[N], out[N], sig[N], g1[N], g2[N], g3[N];
    int isa, i;
    ctm_init(&ctx);
    for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
        const struct ctm__kernels *k;
        double sum = 0;
        if (!ctm_set_isa(&ctx, isa)) continue;
        k = ctx.kernels;
        for (i = 0; i < N; i++) {
            x[i] = (ctm_real)(3 * base_random((uint64_t)i));
            b[i] = (ctm_real)base_random((uint64_t)i + 100);
            c[i] = (ctm_real)base_random((uint64_t)i + 200);
            d[i] = (ctm_real)base_random((uint64_t)i + 300);
            g1[i] = g2[i] = g3[i] = 1;
        }
        k->silu(N, x, out, sig);
        k->silu_backward(N, sig, out, d, g1);
        for (i = 0; i < N; i++) {
            double v = (double)x[i], g = 1 / (1 + exp(-v));
            CHECK_CLOSE(sig[i], g, tol);
            CHECK_CLOSE(out[i], v * g, 3 * tol);
            CHECK_CLOSE(g1[i], 1 + (double)d[i] * (g + v * g * (1 - g)), 3 * tol);
            g1[i] = 1;
        }
        k->silu(N, x, out, NULL);
        k->film(N, x, b, c, out, sig);
        k->film_backward(N, x, b, out, sig, d, g1, g2, g3);
        for (i = 0; i < N; i++) {
            double v = (1 + (double)b[i]) * (double)x[i] + (double)c[i], g = 1 / (1 + exp(-v)), dv = (double)d[i] * (g + v * g * (1 - g));
            CHECK_CLOSE(out[i], v * g, 5 * tol);
            CHECK_CLOSE(g1[i], 1 + (1 + (double)b[i]) * dv, 5 * tol);
            CHECK_CLOSE(g2[i], 1 + (double)x[i] * dv, 5 * tol);
            CHECK_CLOSE(g3[i], 1 + dv, 5 * tol);
        }
        memcpy(out, b, sizeof out);
        k->axpy(N, 0.75, x, out);
        memcpy(sig, b, sizeof sig);
        k->ema(N, sig, x, 0.9);
        for (i = 0; i < N; i++) {
            CHECK_CLOSE(out[i], (double)b[i] + 0.75 * (double)x[i], tol);
            CHECK_CLOSE(sig[i], 0.9 * (double)b[i] + 0.1 * (double)x[i], tol);
            sum += (double)x[i] * (double)x[i];
        }
        CHECK_CLOSE(k->sumsq(N, x), sum, tol * sum);
        CHECK(k->sumsq(0, x) == 0);
    }
}

static void run_base(void) {
    RUN(base_is_finite);
    RUN(base_isa);
    RUN(base_philox);
    RUN(base_streams);
    RUN(base_uniform_index);
    RUN(base_normal);
    RUN(base_normals);
    RUN(base_own_ln_cos);
    RUN(base_arena);
    RUN(base_arena_bounded);
    RUN(base_arena_panics);
    RUN(base_parallel_for); RUN(base_teams);
    RUN(base_tensors);
    RUN(base_printing);
    RUN(base_tape);
    RUN(base_gemm);
    RUN(base_gemm_row_of_ones);
    RUN(base_gemm_bits);
    RUN(base_exp_log);
    RUN(base_sincos);
    RUN(base_tails);
    RUN(base_rows);
}
