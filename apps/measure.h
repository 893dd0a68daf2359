/* measure.h - how good is a consistency trajectory model? The measures of the points, one definition for all

   Three things are compared: the model's jumps G(x,t,s); the exact flow, which is known where the data's denoiser is known
   (toys.h); and the teacher's own discrete map (Heun on the model's grid), which is what the student was trained towards.

   name                            | what it is                                                                 | unit
   flow_rms_onestep                | error of G(x_T, 80, 0.002) against the exact flow from the same noise      | sigma_data
   flow_rms_chain2/4/8/17          | the same for chains of n jumps with gamma 0 on n+1 Karras levels           | sigma_data
   flow_median_*, flow_p99_*       | median and 99th percentile over points instead of the root of the mean square
   flow_rms_grid                   | the same over all pairs t > s of the 18-level grid, from noised data       | sigma_data
   flow_*_onestep_vs_teacher       | one jump against the teacher's discrete map                                | sigma_data
   teacher_rms_onestep             | the teacher's discrete map against the exact flow                          | sigma_data
   denoiser_rms                    | g(x_t,t,t) against the exact denoiser, noised data, all 18 levels together | sigma_data
   sw2_ratio_nfeN                  | sliced W2 of samples to fresh data, over that of the exact flow            | 1
   off_support_nfeN, _exact        | share of samples away from every mode (toy_off_support)                    | 1
   nll_gap                         | mean of exact minus model log-density at 2,000 held-out points             | nats a point

   The error of a point is the root of the mean over its coordinates of the squared difference; rms is the root of the mean of
   its square over points. "Time zero" is sigma_min throughout. Noise, data and projections come from named streams of
   job.seed, and work is cut into pieces of fixed size: the numbers do not depend on how many threads there are.

       measure_job job = measure_job_default(ema, &data, data.denoiser, 3, seed);
       measures m;
       measure_all(&m, &arena, &job);                    // the arena is left as it was
       for (int i = 0; i < m.n; i++) printf("%s,%.6g\n", m.row[i].name, m.row[i].value);

   Functions are static inline, without state of their own. Arrays of points are row-major [n,dim]; the caller owns them. */

#ifndef MEASURE_H
#define MEASURE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "args.h"
#include "../ctm.h"
#include "toys.h"

enum { MEASURE_LEVELS = 18, MEASURE_PAIRS = 153, MEASURE_CHAINS = 5, MEASURE_NFES = 11, MEASURE_MAX_ROWS = 200 };
enum { MEASURE_CHUNK = 512, MEASURE_PIECE = 2048 };    // rows a network sees at once; rows of one piece of parallel work

typedef struct measure_row { char name[48]; double value; } measure_row;

typedef struct measures {
    int         n;
    measure_row row[MEASURE_MAX_ROWS];
    // flow_rms_grid by pairs: level[i] -> level[j] at [i*MEASURE_LEVELS + j] for j > i, else 0. Units of sigma_data.
    double      level[MEASURE_LEVELS], grid_rms[MEASURE_LEVELS*MEASURE_LEVELS];
    double      denoiser_at[MEASURE_LEVELS];           // denoiser_rms level by level
    // RMS against the exact flow at equal numbers of network evaluations; -1: no such sampler (Heun takes odd numbers only).
    int         nfes, nfe[MEASURE_NFES];
    double      ctm_rms[MEASURE_NFES], heun_rms[MEASURE_NFES], euler_rms[MEASURE_NFES];
} measures;

// What to measure, and on how many points.
typedef struct measure_job {
    ctm_net            *net;         // the CTM, usually its EMA; only read
    const toy          *data;        // with its exact denoiser; NULL if the data's density is not known
    const ctm_denoiser *teacher;     // what the net was distilled from; NULL: none
    int                 substeps;    // the teacher's solver steps per grid interval
    uint64_t            seed;
    int                 samples;     // noises for samples and data for sliced W2: 100000
    int                 flows;       // of these, the first so many for flow errors: 50000
    int                 per_level;   // noised data per level for flow_rms_grid and denoiser_rms: 2000
    int                 held_out;    // points for nll_gap: 2000
    int                 projections; // 100
    int                 table;       // noises for the table over numbers of evaluations: 10000; 0: no table
    double              tol;         // relative tolerance of the exact flow: 1e-6
} measure_job;

static inline measure_job measure_job_default(ctm_net *net, const toy *data, const ctm_denoiser *teacher, int substeps,
                                              uint64_t seed) {
    measure_job j;
    j.net = net;
    j.data = data;
    j.teacher = teacher;
    j.substeps = substeps;
    j.seed = seed;
    j.samples = 100000;
    j.flows = 50000;
    j.per_level = 2000;
    j.held_out = 2000;
    j.projections = 100;
    j.table = 10000;
    j.tol = 1e-6;
    return j;
}

static inline void measure_add(measures *m, const char *name, double value) {
    if (m->n == MEASURE_MAX_ROWS) return;
    snprintf(m->row[m->n].name, sizeof m->row[m->n].name, "%s", name);
    m->row[m->n++].value = value;
}

// The value of a row, or `otherwise` if there is none of that name.
static inline double measure_get(const measures *m, const char *name, double otherwise) {
    for (int i = 0; i < m->n; i++)
        if (strcmp(m->row[i].name, name) == 0) return m->row[i].value;
    return otherwise;
}

// name,value for every row, as a CSV file. 1, or 0 with a line in err.
static inline int measure_write(const measures *m, const char *path, char *err, size_t errlen) {
    char number[ARGS_NUMBER];
    ctm_output file;
    FILE *f = args_open_atomic(&file, path, err, errlen);
    if (!f) return 0;
    fprintf(f, "name,value\n");
    for (int i = 0; i < m->n; i++) fprintf(f, "%s,%s\n", m->row[i].name, args_number(number, m->row[i].value, 6));
    return args_close_atomic(&file, err, errlen);
}

static inline size_t measure__least(size_t a, size_t b) { return a < b ? a : b; }
static inline ctm_real *measure__reals(ctm_arena *a, size_t n) { return (ctm_real *)ctm_alloc_raw(a, n*sizeof(ctm_real)); }
static inline double   *measure__doubles(ctm_arena *a, size_t n) { return (double *)ctm_alloc_raw(a, n*sizeof(double)); }

// ---- Points ------------------------------------------------------------------------------------------------------------

// x [n,dim] = sigma·eps: held-out noise at level sigma, from the stream "measure noise".
static inline void measure_noise(uint64_t seed, double sigma, size_t n, int dim, ctm_real *x) {
    const ctm_rng rng = ctm_stream(seed, "measure noise");
    ctm_normals(&rng, 0, 0, n*(size_t)dim, x);
    for (size_t i = 0; i < n*(size_t)dim; i++) x[i] = (ctm_real)(sigma*(double)x[i]);
}

// x [n,2]: fresh data from the stream "measure data"; different `set` numbers are different points.
static inline void measure_draw(const toy *data, uint64_t seed, uint64_t set, size_t n, ctm_real *x) {
    const ctm_rng rng = ctm_stream(seed, "measure data");
    for (size_t i = 0; i < n; i++) toy_draw((void *)data, &rng, set, i, x + 2*i);
}

// x [n,2]: fresh data of a set with noise of level t.
static inline void measure_noised(const toy *data, uint64_t seed, uint64_t set, double t, size_t n, ctm_real *x) {
    const ctm_rng rng = ctm_stream(seed, "measure data noise");
    measure_draw(data, seed, set, n, x);
    for (size_t i = 0; i < 2*n; i++) x[i] = (ctm_real)((double)x[i] + t*ctm_normal(&rng, set, i));
}

// ---- Maps of points: anything that takes rows and returns rows -----------------------------------------------------------

// Maps the rows x [B,dim] = rows first .. first+B-1 of the whole; the result may live in the tape's arena.
typedef ctm_tensor *(*measure_fn)(ctm_tape *tp, ctm_tensor *x, size_t first, const void *arg);

typedef struct measure__map {
    ctm_ctx *ctx; measure_fn fn; const void *arg;
    size_t n; int dim; const ctm_real *x; ctm_real *out;
} measure__map;

static inline void measure__map_chunk(const measure__map *m, ctm_tape *tp, size_t first, size_t rows) {
    ctm_tensor *x = ctm_matrix(tp, "x", (int)rows, m->dim), *y;
    memcpy(x->data, m->x + first*(size_t)m->dim, x->len*sizeof(ctm_real));
    y = m->fn(tp, x, first, m->arg);
    memcpy(m->out + first*(size_t)m->dim, y->data, x->len*sizeof(ctm_real));
    ctm_tape_reset(tp);
}

static inline void measure__map_piece(void *arg, int i) {
    const measure__map *m = (const measure__map *)arg;
    const size_t begin = (size_t)i*MEASURE_PIECE, end = measure__least(begin + MEASURE_PIECE, m->n);
    ctm_arena arena;
    ctm_tape tape;
    ctm_arena_init(&arena, m->ctx, "measure");
    ctm_tape_init(&tape, m->ctx, &arena);
    tape.recording = 0;
    for (size_t first = begin; first < end; first += MEASURE_CHUNK)
        measure__map_chunk(m, &tape, first, measure__least(end - first, MEASURE_CHUNK));
    ctm_arena_free(&arena);
}

// out [n,dim] = fn(x [n,dim]), without recording, chunk by chunk, on all threads. out may be x.
static inline void measure_map(ctm_ctx *ctx, measure_fn fn, const void *arg, size_t n, int dim, const ctm_real *x, ctm_real *out) {
    measure__map m;
    m.ctx = ctx; m.fn = fn; m.arg = arg;
    m.n = n; m.dim = dim; m.x = x; m.out = out;
    ctm_parallel_for(ctx, (int)((n + MEASURE_PIECE - 1)/MEASURE_PIECE), measure__map_piece, &m);
}

enum { MEASURE_MAX_LEVELS = 128 };                     // of a chain: at most 127 jumps
typedef struct measure__chain { ctm_net *net; const ctm_denoiser *D; int jumps; double ts[MEASURE_MAX_LEVELS]; } measure__chain;

// Jump by jump, in place, so that memory is used again.
static inline ctm_tensor *measure__ctm_fn(ctm_tape *tp, ctm_tensor *x, size_t first, const void *arg) {
    const measure__chain *c = (const measure__chain *)arg;
    const ctm_jump *G = ctm_net_jump(tp->arena, c->net);
    const ctm_mark mark = ctm_arena_mark(tp->arena);
    ctm_sampler how = ctm_sampler_default();
    how.gamma = 0;
    how.first_row = first;
    for (int j = 0; j < c->jumps; j++) {
        ctm_tensor *y = ctm_sample_gamma(tp, G, x, 1, c->ts + j, &how);
        memcpy(x->data, y->data, x->len*sizeof(ctm_real));
        ctm_arena_release(tp->arena, mark);
    }
    return x;
}

static inline ctm_tensor *measure__euler_fn(ctm_tape *tp, ctm_tensor *x, size_t first, const void *arg) {
    const measure__chain *c = (const measure__chain *)arg;
    (void)first;
    return ctm_sample_euler(tp, c->D, x, c->jumps, c->ts);
}

static inline ctm_tensor *measure__heun_fn(ctm_tape *tp, ctm_tensor *x, size_t first, const void *arg) {
    const measure__chain *c = (const measure__chain *)arg;
    (void)first;
    return ctm_sample_heun(tp, c->D, x, c->jumps, c->ts);
}

// out [n,dim] = the CTM's samples from the noises x [n,dim] at sigma_max: `jumps` jumps with gamma 0, Karras levels.
static inline void measure_ctm(ctm_net *net, int jumps, size_t n, const ctm_real *x, ctm_real *out) {
    measure__chain c;
    c.net = net;
    c.D = NULL;
    c.jumps = jumps;
    ctm_karras_times(&net->noise, jumps + 1, c.ts);
    measure_map(net->ctx, measure__ctm_fn, &c, n, net->dim, x, out);
}

// Euler's method on the ODE of D: nfe steps, as many evaluations, on nfe+1 Karras levels.
static inline void measure_euler(ctm_ctx *ctx, const ctm_denoiser *D, const ctm_noise *z, int nfe, size_t n, const ctm_real *x,
                                 ctm_real *out) {
    measure__chain c;
    c.net = NULL;
    c.D = D;
    c.jumps = nfe;
    ctm_karras_times(z, nfe + 1, c.ts);
    measure_map(ctx, measure__euler_fn, &c, n, D->dim, x, out);
}

// Heun's method as Karras et al. use it: k = (nfe+1)/2 Karras levels and then 0, the last step Euler. nfe = 2k-1 is odd.
static inline void measure_heun(ctm_ctx *ctx, const ctm_denoiser *D, const ctm_noise *z, int nfe, size_t n, const ctm_real *x,
                                ctm_real *out) {
    measure__chain c;
    c.net = NULL;
    c.D = D;
    c.jumps = (nfe + 1)/2;
    c.ts[0] = z->sigma_max;
    if (c.jumps > 1) ctm_karras_times(z, c.jumps, c.ts);
    c.ts[c.jumps] = 0;
    measure_map(ctx, measure__heun_fn, &c, n, D->dim, x, out);
}

typedef struct measure__solver { const ctm_denoiser *D; const ctm_noise *z; int substeps; } measure__solver;

static inline ctm_tensor *measure__solve_fn(ctm_tape *tp, ctm_tensor *x, size_t first, const void *arg) {
    const measure__solver *s = (const measure__solver *)arg;
    double from[MEASURE_CHUNK], to[MEASURE_CHUNK];
    (void)first;
    for (int i = 0; i < x->shape[0]; i++) { from[i] = 0; to[i] = s->z->N - 1; }
    return ctm_solve(tp, s->D, s->z, CTM_HEUN, x, from, to, s->substeps);
}

// The teacher's own map from sigma_max to sigma_min: Heun on the grid of z, `substeps` steps for each of its intervals.
static inline void measure_teacher(ctm_ctx *ctx, const ctm_denoiser *D, const ctm_noise *z, int substeps, size_t n,
                                   const ctm_real *x, ctm_real *out) {
    measure__solver s;
    s.D = D; s.z = z; s.substeps = substeps;
    measure_map(ctx, measure__solve_fn, &s, n, D->dim, x, out);
}

// out [k,n,dim]: the exact flow of the points x [n,dim] from t through the k decreasing levels s. Takes n·dim doubles of a.
static inline void measure_flow(ctm_arena *a, const ctm_denoiser *D, size_t n, const ctm_real *x, double t, int k, const double *s,
                                double tol, double *out) {
    const ctm_mark mark = ctm_arena_mark(a);
    double *start = measure__doubles(a, n*(size_t)D->dim);
    for (size_t i = 0; i < n*(size_t)D->dim; i++) start[i] = (double)x[i];
    ctm_exact_flow(a->ctx, D, n, start, t, k, s, tol, out);
    ctm_arena_release(a, mark);
}

// ---- Errors ------------------------------------------------------------------------------------------------------------

typedef struct measure_error { double rms, median, p99; } measure_error;

static inline int measure__by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

// Sum over n points of the mean over coordinates of (x - y)².
static inline double measure_squares(size_t n, int dim, const ctm_real *x, const double *y) {
    double sum = 0;
    for (size_t i = 0; i < n*(size_t)dim; i++) sum += ((double)x[i] - y[i])*((double)x[i] - y[i]);
    return sum/dim;
}

// Errors of the points x against y, divided by `unit`.
static inline measure_error measure_compare(ctm_arena *a, size_t n, int dim, const ctm_real *x, const double *y, double unit) {
    const ctm_mark mark = ctm_arena_mark(a);
    double *e = measure__doubles(a, n);
    measure_error r;
    for (size_t i = 0; i < n; i++) e[i] = sqrt(measure_squares(1, dim, x + i*(size_t)dim, y + i*(size_t)dim))/unit;
    r.rms = sqrt(measure_squares(n, dim, x, y)/(double)n)/unit;
    qsort(e, n, sizeof *e, measure__by_value);
    r.median = e[n/2];
    r.p99 = e[(size_t)(0.99*(double)n)];
    ctm_arena_release(a, mark);
    return r;
}

static inline void measure__widen(size_t n, const ctm_real *x, double *out) {
    for (size_t i = 0; i < n; i++) out[i] = (double)x[i];
}

// ---- Jumps between all levels, and the denoiser ------------------------------------------------------------------------

typedef struct measure__times { ctm_net *net; const ctm_real *t, *s; } measure__times;   // one t, and s unless NULL, per row

static inline ctm_tensor *measure__column(ctm_tape *tp, const char *name, const ctm_real *values, int rows) {
    ctm_tensor *v = ctm_vector(tp, name, rows);
    memcpy(v->data, values, v->len*sizeof(ctm_real));
    return v;
}

static inline ctm_tensor *measure__jump_fn(ctm_tape *tp, ctm_tensor *x, size_t first, const void *arg) {
    const measure__times *r = (const measure__times *)arg;
    ctm_tensor *t = measure__column(tp, "t", r->t + first, x->shape[0]);
    ctm_tensor *s = measure__column(tp, "s", r->s + first, x->shape[0]);
    return ctm_G_theta(tp, r->net, x, t, s);
}

static inline ctm_tensor *measure__denoise_fn(ctm_tape *tp, ctm_tensor *x, size_t first, const void *arg) {
    const measure__times *r = (const measure__times *)arg;
    ctm_tensor *t = measure__column(tp, "t", r->t + first, x->shape[0]);
    return ctm_D_theta(tp, r->net, x, t);
}

// RMS of G(x_t,t,s) against the exact flow for every pair t > s of the grid, each from the same n noised data per t. Fills in
// level, grid_rms and returns flow_rms_grid: the RMS over all pairs and points.
static inline double measure_grid(measures *m, ctm_arena *a, ctm_net *net, const toy *data, uint64_t seed, int n, double tol) {
    const ctm_mark mark = ctm_arena_mark(a);
    const size_t all = (size_t)MEASURE_PAIRS*n;
    ctm_real *x = measure__reals(a, 2*all), *t = measure__reals(a, all), *s = measure__reals(a, all);
    double *exact = measure__doubles(a, 2*all), total = 0;
    measure__times rows;
    size_t at = 0;
    ctm_karras_times(&net->noise, MEASURE_LEVELS, m->level);
    // Rows in the order (t, s, point): the points of a level, repeated for each s, beside what the exact flow returns.
    for (int i = 0; i < MEASURE_LEVELS - 1; i++) {
        const int k = MEASURE_LEVELS - 1 - i;
        measure_noised(data, seed, 2 + (uint64_t)i, m->level[i], (size_t)n, x + 2*at);
        measure_flow(a, data->denoiser, (size_t)n, x + 2*at, m->level[i], k, m->level + i + 1, tol, exact + 2*at);
        for (int j = 0; j < k; j++) memmove(x + 2*(at + (size_t)j*n), x + 2*at, 2*(size_t)n*sizeof *x);
        for (int r = 0; r < k*n; r++) { t[at + r] = (ctm_real)m->level[i]; s[at + r] = (ctm_real)m->level[i + 1 + r/n]; }
        at += (size_t)k*n;
    }
    rows.net = net; rows.t = t; rows.s = s;
    measure_map(net->ctx, measure__jump_fn, &rows, all, 2, x, x);
    memset(m->grid_rms, 0, sizeof m->grid_rms);
    at = 0;
    for (int i = 0; i < MEASURE_LEVELS; i++)
        for (int j = i + 1; j < MEASURE_LEVELS; j++, at += (size_t)n) {
            const double squares = measure_squares((size_t)n, 2, x + 2*at, exact + 2*at);
            m->grid_rms[i*MEASURE_LEVELS + j] = sqrt(squares/n)/net->noise.sigma_data;
            total += squares;
        }
    ctm_arena_release(a, mark);
    return sqrt(total/(double)all)/net->noise.sigma_data;
}

typedef struct measure__exact { const ctm_denoiser *D; int n; const double *level; const ctm_real *x; double *out; } measure__exact;

static inline void measure__exact_piece(void *arg, int i) {      // piece i: the points of level i
    const measure__exact *e = (const measure__exact *)arg;
    for (size_t r = (size_t)i*e->n; r < (size_t)(i + 1)*e->n; r++) {
        double point[2];
        point[0] = (double)e->x[2*r]; point[1] = (double)e->x[2*r + 1];
        e->D->exact(e->D, point, e->level[i], e->out + 2*r);
    }
}

// RMS of the CTM's denoiser g(x_t,t,t) against the exact one at each of the 18 levels, n noised data each. Fills in level and
// denoiser_at; returns denoiser_rms, the root of the mean of their squares.
static inline double measure_denoiser(measures *m, ctm_arena *a, ctm_net *net, const toy *data, uint64_t seed, int n) {
    const ctm_mark mark = ctm_arena_mark(a);
    const size_t all = (size_t)MEASURE_LEVELS*n;
    ctm_real *x = measure__reals(a, 2*all), *t = measure__reals(a, all);
    double *exact = measure__doubles(a, 2*all), total = 0;
    measure__times rows;
    measure__exact truth;
    ctm_karras_times(&net->noise, MEASURE_LEVELS, m->level);
    for (int i = 0; i < MEASURE_LEVELS; i++) {
        measure_noised(data, seed, 2 + (uint64_t)i, m->level[i], (size_t)n, x + 2*(size_t)i*n);
        for (int r = 0; r < n; r++) t[(size_t)i*n + r] = (ctm_real)m->level[i];
    }
    truth.D = data->denoiser; truth.n = n; truth.level = m->level; truth.x = x; truth.out = exact;
    ctm_parallel_for(net->ctx, MEASURE_LEVELS, measure__exact_piece, &truth);
    rows.net = net; rows.t = t; rows.s = NULL;
    measure_map(net->ctx, measure__denoise_fn, &rows, all, 2, x, x);
    for (int i = 0; i < MEASURE_LEVELS; i++) {
        const double mean = measure_squares((size_t)n, 2, x + 2*(size_t)i*n, exact + 2*(size_t)i*n)/n;
        m->denoiser_at[i] = sqrt(mean)/net->noise.sigma_data;
        total += mean/(double)MEASURE_LEVELS;
    }
    ctm_arena_release(a, mark);
    return sqrt(total)/net->noise.sigma_data;
}

// ---- Sliced Wasserstein distance ---------------------------------------------------------------------------------------

// Bits of a float as an integer that sorts the way the float does: flip all bits of negative numbers, else the sign.
static inline uint32_t measure__key(float v) {
    uint32_t b;
    memcpy(&b, &v, 4);
    return b & 0x80000000u ? ~b : b | 0x80000000u;
}
static inline float measure__value(uint32_t key) {
    float v;
    key = key & 0x80000000u ? key ^ 0x80000000u : ~key;
    memcpy(&v, &key, 4);
    return v;
}

// Sorts n floats upwards by their bits, 11 at a time (radix sort). work: 2n integers.
static inline void measure_sort(size_t n, float *v, uint32_t *work) {
    uint32_t *from = work, *to = work + n;
    for (size_t i = 0; i < n; i++) from[i] = measure__key(v[i]);
    for (int shift = 0; shift < 33; shift += 11) {
        size_t start[2049] = {0};
        for (size_t i = 0; i < n; i++) start[((from[i] >> shift) & 2047) + 1]++;
        for (int b = 0; b < 2048; b++) start[b + 1] += start[b];
        for (size_t i = 0; i < n; i++) to[start[(from[i] >> shift) & 2047]++] = from[i];
        uint32_t *swap = from; from = to; to = swap;
    }
    for (size_t i = 0; i < n; i++) v[i] = measure__value(from[i]);
}

// W2² of two sorted samples on the line: the integral over q in (0,1) of the squared difference of their quantiles, which
// are step functions with n and m equal steps. For n = m: the mean of (a_i - b_i)².
static inline double measure_w2_squared(size_t n, const float *a, size_t m, const float *b) {
    double sum = 0, q = 0;
    size_t i = 0, j = 0;
    while (i < n && j < m) {
        const double end_a = (double)(i + 1)/(double)n, end_b = (double)(j + 1)/(double)m;
        const double end = end_a < end_b ? end_a : end_b, d = (double)a[i] - (double)b[j];
        sum += (end - q)*d*d;
        q = end;
        if (end_a <= end) i++;
        if (end_b <= end) j++;
    }
    return sum;
}

enum { MEASURE_MAX_SETS = 16, MEASURE_SW2_PIECES = 20 };
typedef struct measure__sw2 {
    int dim, projections, sets;
    size_t n_ref, n[MEASURE_MAX_SETS];
    const ctm_real *ref, *set[MEASURE_MAX_SETS];
    const double *direction;           // [projections,dim], unit length
    float *project[MEASURE_SW2_PIECES], *project_ref[MEASURE_SW2_PIECES];
    uint32_t *work[MEASURE_SW2_PIECES];
    double *w2;                        // [projections,sets]
} measure__sw2;

static inline void measure__project(size_t n, int dim, const ctm_real *x, const double *direction, float *out) {
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (int d = 0; d < dim; d++) sum += direction[d]*(double)x[i*(size_t)dim + d];
        out[i] = (float)sum;
    }
}

static inline void measure__sw2_piece(void *arg, int piece) {
    const measure__sw2 *w = (const measure__sw2 *)arg;
    for (int p = piece; p < w->projections; p += MEASURE_SW2_PIECES) {
        const double *direction = w->direction + (size_t)p*w->dim;
        float *ref = w->project_ref[piece], *v = w->project[piece];
        measure__project(w->n_ref, w->dim, w->ref, direction, ref);
        measure_sort(w->n_ref, ref, w->work[piece]);
        for (int k = 0; k < w->sets; k++) {
            measure__project(w->n[k], w->dim, w->set[k], direction, v);
            measure_sort(w->n[k], v, w->work[piece]);
            w->w2[(size_t)p*w->sets + k] = measure_w2_squared(w->n[k], v, w->n_ref, ref);
        }
    }
}

static inline void measure__directions(uint64_t seed, int projections, int dim, double *direction) {
    const ctm_rng rng = ctm_stream(seed, "measure directions");
    for (int p = 0; p < projections; p++) {
        double *v = direction + (size_t)p*dim, length = 0;
        for (int d = 0; d < dim; d++) {
            v[d] = ctm_normal(&rng, 0, (uint64_t)p*(uint64_t)dim + (uint64_t)d);
            length += v[d]*v[d];
        }
        for (int d = 0; d < dim; d++) v[d] /= sqrt(length);
    }
}

// out[k] = sliced W2 between set[k] [n[k],dim] and ref [n_ref,dim], data units: the root of the mean over random directions
// of W2² of the projections. Directions from the stream "measure directions". At most MEASURE_MAX_SETS sets.
static inline void measure_sw2(ctm_arena *a, uint64_t seed, int projections, int dim, size_t n_ref, const ctm_real *ref, int sets,
                               const size_t *n, const ctm_real *const *set, double *out) {
    const ctm_mark mark = ctm_arena_mark(a);
    double *direction = measure__doubles(a, (size_t)projections*(size_t)dim);
    size_t most = n_ref;
    measure__sw2 w;
    memset(&w, 0, sizeof w);
    measure__directions(seed, projections, dim, direction);
    w.dim = dim; w.projections = projections; w.sets = sets;
    w.n_ref = n_ref; w.ref = ref; w.direction = direction;
    for (int k = 0; k < sets; k++) {
        w.n[k] = n[k];
        w.set[k] = set[k];
        if (n[k] > most) most = n[k];
    }
    for (int i = 0; i < MEASURE_SW2_PIECES; i++) {
        w.project[i] = (float *)ctm_alloc_raw(a, most*sizeof(float));
        w.project_ref[i] = (float *)ctm_alloc_raw(a, most*sizeof(float));
        w.work[i] = (uint32_t *)ctm_alloc_raw(a, 2*most*sizeof(uint32_t));
    }
    w.w2 = measure__doubles(a, (size_t)projections*(size_t)sets);
    ctm_parallel_for(a->ctx, MEASURE_SW2_PIECES, measure__sw2_piece, &w);
    for (int k = 0; k < sets; k++) {
        double sum = 0;
        for (int p = 0; p < projections; p++) sum += w.w2[(size_t)p*sets + k];
        out[k] = sqrt(sum/projections);
    }
    ctm_arena_release(a, mark);
}

// ---- Support and likelihood --------------------------------------------------------------------------------------------

// Share of the points x [n,2] that toy_off_support.
static inline double measure_off_support(const toy *data, size_t n, const ctm_real *x) {
    size_t off = 0;
    for (size_t i = 0; i < n; i++) off += (size_t)toy_off_support(data, x + 2*i);
    return (double)off/(double)n;
}

enum { MEASURE_LOGLIK_ROWS = 125 };
typedef struct measure__loglik {
    ctm_net *net; const int *label; size_t n; const ctm_real *x; int steps; double prior_var; double *logp;
} measure__loglik;

static inline void measure__loglik_piece(void *arg, int i) {
    const measure__loglik *l = (const measure__loglik *)arg;
    const size_t first = (size_t)i*MEASURE_LOGLIK_ROWS;
    const size_t rows = measure__least(l->n - first, MEASURE_LOGLIK_ROWS);
    ctm_arena arena;
    ctm_tape tape;
    ctm_denoiser *D;
    ctm_likelihood how = ctm_likelihood_default();
    how.steps = l->steps;
    how.prior_var = l->prior_var;
    ctm_arena_init(&arena, l->net->ctx, "loglik");
    ctm_tape_init(&tape, l->net->ctx, &arena);
    tape.rows.label = l->label;
    D = ctm_net_denoiser(&arena, ctm_net_view(&arena, l->net, 0));
    ctm_loglik(&tape, D, &l->net->noise, &how, rows, l->x + first*(size_t)l->net->dim, l->logp + first);
    ctm_arena_free(&arena);
}

// logp[i] = the model's log-density of x [n,dim] at time zero, nats: its ODE with the score of g(x,t,t) and the exact
// divergence, fourth-order Runge-Kutta on `steps` Karras intervals; prior N(0, (sigma_max² + sigma_data²)·I). label: NULL, or
// MEASURE_LOGLIK_ROWS times one class, which is then every row's.
static inline void measure_loglik(ctm_net *net, const int *label, size_t n, const ctm_real *x, int steps, double *logp) {
    measure__loglik l;
    l.net = net; l.label = label; l.n = n; l.x = x; l.steps = steps; l.logp = logp;
    l.prior_var = net->noise.sigma_data*net->noise.sigma_data;
    ctm_parallel_for(net->ctx, (int)((n + MEASURE_LOGLIK_ROWS - 1)/MEASURE_LOGLIK_ROWS), measure__loglik_piece, &l);
}

// Mean over n fresh data of log p_data - log p_model: an estimate of the Kullback-Leibler divergence, nats a point. p_data is
// the density without noise; the model's is that at sigma_min, which by itself costs the checker's sharp edges 0.01.
// (80 Heun steps would show a perfect model as -0.02; 80 Runge-Kutta steps of fourth order do not.)
static inline double measure_nll_gap(ctm_arena *a, ctm_net *net, const toy *data, uint64_t seed, int n) {
    const ctm_mark mark = ctm_arena_mark(a);
    ctm_real *x = measure__reals(a, 2*(size_t)n);
    double *logp = measure__doubles(a, (size_t)n), sum = 0;
    measure_draw(data, seed, 1, (size_t)n, x);
    measure_loglik(net, NULL, (size_t)n, x, 80, logp);
    for (int i = 0; i < n; i++) {
        double point[2];
        point[0] = (double)x[2*i]; point[1] = (double)x[2*i + 1];
        sum += data->denoiser->log_density(data->denoiser, point, 0) - logp[i];
    }
    ctm_arena_release(a, mark);
    return sum/n;
}

// ---- Everything --------------------------------------------------------------------------------------------------------

static inline const int *measure_chains(void) {          // jumps of the chains that are measured
    static const int n[MEASURE_CHAINS] = {1, 2, 4, 8, 17};
    return n;
}

// "flow", "rms", 4, "" -> flow_rms_chain4;  1 jump -> flow_rms_onestep.
static inline void measure__add_flow(measures *m, const char *what, int jumps, const char *against, double value) {
    char name[48];
    if (jumps == 1) snprintf(name, sizeof name, "flow_%s_onestep%s", what, against);
    else            snprintf(name, sizeof name, "flow_%s_chain%d%s", what, jumps, against);
    measure_add(m, name, value);
}

static inline void measure__add_errors(measures *m, int jumps, const char *against, measure_error e) {
    measure__add_flow(m, "rms", jumps, against, e.rms);
    measure__add_flow(m, "median", jumps, against, e.median);
    measure__add_flow(m, "p99", jumps, against, e.p99);
}

static inline void measure__add_nfe(measures *m, const char *what, int nfe, double value) {
    char name[48];
    snprintf(name, sizeof name, "%s_nfe%d", what, nfe);
    measure_add(m, name, value);
}

// The table: RMS against the exact flow (exact [n,2], of the noises x [n,2]) at equal numbers of evaluations. The teacher's
// samplers are left out if it is NULL.
static inline void measure_table(measures *m, ctm_arena *a, ctm_net *net, const ctm_denoiser *teacher, size_t n, const ctm_real *x,
                                 const double *exact) {
    static const int nfe[MEASURE_NFES] = {1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 35};
    const ctm_mark mark = ctm_arena_mark(a);
    ctm_real *y = measure__reals(a, n*(size_t)net->dim);
    const double unit = net->noise.sigma_data*sqrt((double)n);
    m->nfes = MEASURE_NFES;
    for (int i = 0; i < MEASURE_NFES; i++) {
        m->nfe[i] = nfe[i];
        m->heun_rms[i] = m->euler_rms[i] = -1;
        measure_ctm(net, nfe[i], n, x, y);
        m->ctm_rms[i] = sqrt(measure_squares(n, net->dim, y, exact))/unit;
        if (!teacher) continue;
        measure_euler(net->ctx, teacher, &net->noise, nfe[i], n, x, y);
        m->euler_rms[i] = sqrt(measure_squares(n, net->dim, y, exact))/unit;
        if (nfe[i]%2 == 0) continue;
        measure_heun(net->ctx, teacher, &net->noise, nfe[i], n, x, y);
        m->heun_rms[i] = sqrt(measure_squares(n, net->dim, y, exact))/unit;
    }
    ctm_arena_release(a, mark);
}

// Flow errors of one jump against the teacher's discrete map, and of that map against the exact flow (NULL: skipped).
static inline void measure__against_teacher(measures *m, ctm_arena *a, const measure_job *j, const ctm_real *x, const double *exact,
                                            const ctm_real *onestep) {
    const ctm_mark mark = ctm_arena_mark(a);
    const int dim = j->net->dim;
    const size_t n = (size_t)j->flows;
    ctm_real *y = measure__reals(a, n*(size_t)dim);
    double *wide = measure__doubles(a, n*(size_t)dim);
    measure_teacher(j->net->ctx, j->teacher, &j->net->noise, j->substeps, n, x, y);
    measure__widen(n*(size_t)dim, y, wide);
    measure__add_errors(m, 1, "_vs_teacher", measure_compare(a, n, dim, onestep, wide, j->net->noise.sigma_data));
    measure_add(m, "teacher_rms_onestep", measure_compare(a, n, dim, y, exact, j->net->noise.sigma_data).rms);
    ctm_arena_release(a, mark);
}

// All measures of a job whose data set is known (job->data). Memory from a, given back. job->flows and job->table are at most
// job->samples.
static inline void measure_all(measures *m, ctm_arena *a, const measure_job *j) {
    const ctm_mark mark = ctm_arena_mark(a);
    const size_t n = (size_t)j->samples, flows = (size_t)j->flows;
    ctm_net *net = j->net;
    const ctm_noise *z = &net->noise;
    ctm_real *noise = measure__reals(a, 2*n), *fresh = measure__reals(a, 2*n), *truth = measure__reals(a, 2*n);
    ctm_real *sample[MEASURE_CHAINS];
    const ctm_real *set[MEASURE_CHAINS + 1];
    double *exact = measure__doubles(a, 2*n), sw2[MEASURE_CHAINS + 1];
    size_t count[MEASURE_CHAINS + 1];
    memset(m, 0, sizeof *m);

    // Noises, their exact samples, and fresh data.
    measure_noise(j->seed, z->sigma_max, n, 2, noise);
    measure_flow(a, j->data->denoiser, n, noise, z->sigma_max, 1, &z->sigma_min, j->tol, exact);
    for (size_t i = 0; i < 2*n; i++) truth[i] = (ctm_real)exact[i];
    measure_draw(j->data, j->seed, 0, n, fresh);

    // The model's samples from the same noises.
    for (int c = 0; c < MEASURE_CHAINS; c++) {
        set[c] = sample[c] = measure__reals(a, 2*n);
        measure_ctm(net, measure_chains()[c], n, noise, sample[c]);
        measure__add_errors(m, measure_chains()[c], "", measure_compare(a, flows, 2, sample[c], exact, z->sigma_data));
    }
    if (j->teacher) measure__against_teacher(m, a, j, noise, exact, sample[0]);

    // Jumps between all levels; the denoiser on the diagonal.
    measure_add(m, "flow_rms_grid", measure_grid(m, a, net, j->data, j->seed, j->per_level, j->tol));
    measure_add(m, "denoiser_rms", measure_denoiser(m, a, net, j->data, j->seed, j->per_level));

    // The distribution of the samples.
    set[MEASURE_CHAINS] = truth;
    for (int k = 0; k <= MEASURE_CHAINS; k++) count[k] = n;
    measure_sw2(a, j->seed, j->projections, 2, n, fresh, MEASURE_CHAINS + 1, count, set, sw2);
    for (int c = 0; c < MEASURE_CHAINS; c++) measure__add_nfe(m, "sw2_ratio", measure_chains()[c], sw2[c]/sw2[MEASURE_CHAINS]);
    for (int c = 0; c < MEASURE_CHAINS; c++)
        measure__add_nfe(m, "off_support", measure_chains()[c], measure_off_support(j->data, n, sample[c]));
    measure_add(m, "off_support_exact", measure_off_support(j->data, n, truth));
    measure_add(m, "nll_gap", measure_nll_gap(a, net, j->data, j->seed, j->held_out));
    if (j->table > 0) measure_table(m, a, net, j->teacher, (size_t)j->table, noise, exact);
    ctm_arena_release(a, mark);
}

// ---- Data without a known density --------------------------------------------------------------------------------------

// For tables of any width: rows train [n_train,dim] and held [n_held,dim] (standardised). Gives
//     sw2_ratio_nfeN        sliced W2 of samples to held-out rows, over that of training rows to held-out rows;
//     flow_rms_*_vs_teacher and median, p99: chains of jumps against the teacher's Heun map with 16 steps per grid interval;
//     teacher_rms_vs_fine   the teacher's map with job->substeps against that fine one. The last two need job->teacher.
// As many samples are drawn as there are training rows, at most job->samples, so that both distances have the same bias.
static inline void measure_rows(measures *m, ctm_arena *a, const measure_job *j, size_t n_train, const ctm_real *train,
                                size_t n_held, const ctm_real *held) {
    const ctm_mark mark = ctm_arena_mark(a);
    ctm_net *net = j->net;
    const ctm_noise *z = &net->noise;
    const size_t dim = (size_t)net->dim, n = measure__least(n_train, (size_t)j->samples);
    const size_t flows = (size_t)j->flows, most = n > flows ? n : flows;
    ctm_real *noise = measure__reals(a, most*dim), *y = measure__reals(a, flows*dim), *sample[MEASURE_CHAINS];
    const ctm_real *set[MEASURE_CHAINS + 1];
    double *fine = measure__doubles(a, flows*dim), sw2[MEASURE_CHAINS + 1];
    size_t count[MEASURE_CHAINS + 1];
    memset(m, 0, sizeof *m);

    measure_noise(j->seed, z->sigma_max, most, net->dim, noise);
    if (j->teacher) {
        measure_teacher(net->ctx, j->teacher, z, 16, flows, noise, y);
        measure__widen(flows*dim, y, fine);
    }
    for (int c = 0; c < MEASURE_CHAINS; c++) {
        set[c] = sample[c] = measure__reals(a, most*dim);
        measure_ctm(net, measure_chains()[c], most, noise, sample[c]);
        if (!j->teacher) continue;
        measure__add_errors(m, measure_chains()[c], "_vs_teacher",
                            measure_compare(a, flows, net->dim, sample[c], fine, z->sigma_data));
    }
    if (j->teacher) {
        measure_teacher(net->ctx, j->teacher, z, j->substeps, flows, noise, y);
        measure_add(m, "teacher_rms_vs_fine", measure_compare(a, flows, net->dim, y, fine, z->sigma_data).rms);
    }
    for (int k = 0; k <= MEASURE_CHAINS; k++) count[k] = n;
    set[MEASURE_CHAINS] = train;
    measure_sw2(a, j->seed, j->projections, net->dim, n_held, held, MEASURE_CHAINS + 1, count, set, sw2);
    for (int c = 0; c < MEASURE_CHAINS; c++) measure__add_nfe(m, "sw2_ratio", measure_chains()[c], sw2[c]/sw2[MEASURE_CHAINS]);
    ctm_arena_release(a, mark);
}

#endif // MEASURE_H
