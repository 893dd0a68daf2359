/* claims.c - the paper's claims in miniature, each a question answered by a measurement

   claims [--only 3,5] [--full] --out DIR
       trains small models of the ring of eight Gaussians, where the exact flow, denoiser and density are known, over several
       seeds; prints a line  claim | measured | verdict  for each claim; leaves in DIR an SVG for each, index.html with all
       of them, claims.csv (the lines), values.csv (every number, seed by seed) and runs.csv (steps and seconds of every run).

   Verdicts are computed. A claim has one or more tests, each a number per seed (smaller is better) and a limit that stands in
   this file. "holds": every test is passed at every seed. "holds weakly": by the median of the seeds. Otherwise "does not show
   here". Nothing printed but the seconds of runs.csv depends on the machine or on --threads.

   How to read this file: what is trained (variants), what is measured (numbers), the claims (one function each: its tests and
   its figure), verdicts, the output. Exit status: 0 done, whatever the verdicts; 1 the world is wrong; 2 wrong usage. */

#include "args.h"
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include "toys.h"
#include "measure.h"
#include "plot.h"
#include "story.h"

enum {
    STEPS      = 6000,                  // training steps of a run; with --full
    FULL_STEPS = 20000,
    SEEDS      = 3,
    SEEDS_MAX  = 8,
    NOISES     = 10000,                 // samples behind every number, fewer if --steps is below 2,000
    POINTS_EACH = 20,                   // so many noises for one point of the likelihood
    FRESH      = 400000,                // data that fill the histogram of the total variation
    CELLS      = 32,                    // its cells along each axis of [-1,1]x[-1,1]
    OWN_NFE    = 79,                    // Heun on a student's own score
    BEST_NFE   = 35                     // evaluations of EDM's teacher: 18 Heun steps
};

// ---- What is trained -----------------------------------------------------------------------------------------------------
//
// Two recipes of ctm.h: `paper`, on which is tested what the paper claims, and `points`, ours for points. Every other variant is one
// of them with the change that the claim is about. The teacher is the exact one unless the claim is about the teacher.

enum { PAPER, OURS, SCORE_ONLY, LOCAL, GLOBAL, NO_DSM, FIXED_WEIGHT, GAN, SELF_SOLVE, SELF_JUMP, ONE_HEUN, OURS_TUNED, CM, CM_TUNED, VARIANTS, TEACHER = VARIANTS };

typedef struct variant {
    const char *name, *text;
    double      steps;                  // times the steps of the others: where a claim compares equal times, see below
    int         most;                   // how many gammas of the table below are sampled
} variant;

// The factors of equal time are ratios of processor time a step, the medians of 14 turns of 20 steps on one thread of a shared AVX-512
// server. They are constants so that results can be repeated to the digit; runs.csv tells how well they fit here.
static const variant variants[VARIANTS] = {
    {"paper",      "recipe paper: soft matching, comparison at time zero, DSM with adaptive weight", 1, 5},
    {"points",     "recipe points, ours: mostly short jumps with u = s, aim at the exact denoiser", 1, 5},
    {"score-only", "a network without s, trained on DSM alone with the paper's rows of it",      1, 0},
    {"local",      "paper, local matching (u one grid step after t)",                           1, 1},
    {"global",     "paper, global matching (u = s)",                                            1.1, 1},
    {"no-dsm",     "paper without L_DSM",                                                       1, 1},
    {"fixed",      "paper with weight 1 instead of the adaptive one",                           1, 1},
    {"gan",        "paper with an adversary in the last 40 % of the steps",                     1, 1},
    {"self-solve", "paper without a teacher: the ODE of its own average (the paper's form)",    0.65, 1},
    {"self-jump",  "paper without a teacher: a jump of its own average (the code's form)",      0.9, 1},
    {"one-heun",   "points, one Heun step per grid interval: the discrete teacher",               1, 1},
    {"points-tuned", "points tuned for one jump: batches of a quarter, nine jumps in ten go to the end", 3.4, 1},
    {"cm",         "recipe cd: consistency distillation, otherwise as points",                  3.2, 2},
    {"cm-tuned",   "cm tuned: batches of a quarter, target average of 0.95, learning rate 0.005", 8, 2}};

// The times of points-tuned, a function of this program's own: as those of `points`, but nine rows in ten jump to the end.
static void times_to_end(const ctm_config *cfg, uint64_t step, uint64_t index, double i[3]) {
    const ctm_rng rng = ctm_stream(cfg->seed, "claims times");
    ctm_times_points(cfg, step, index, i);
    if (ctm_uniform(&rng, step, index) < 0.9) i[1] = i[2] = cfg->noise.N - 1;
}

static ctm_config variant_config(int v, long steps, uint64_t seed) {
    ctm_config c = v == OURS || v == OURS_TUNED || v == ONE_HEUN ? ctm_recipe_points() : v == CM || v == CM_TUNED ? ctm_recipe_cd() : ctm_recipe_paper();
    c.steps = (long)(variants[v].steps*(double)steps + 0.5) > 0 ? (long)(variants[v].steps*(double)steps + 0.5) : 1;
    c.seed = seed;
    if (v == SCORE_ONLY)   { c.times = NULL; c.adaptive = 0; }
    if (v == LOCAL)        c.times = ctm_times_local;
    if (v == GLOBAL)       c.times = ctm_times_global;
    if (v == NO_DSM)       c.aim = NULL;
    if (v == FIXED_WEIGHT) c.adaptive = 0;
    if (v == GAN)          { c.gan = CTM_GAN_LOG; c.gan_start = (long)(0.6*(double)c.steps + 1e-9); }
    if (v == SELF_JUMP)    c.teach = ctm_teach_jump;
    if (v == ONE_HEUN)     c.substeps = 1;
    if (v == OURS_TUNED || v == CM_TUNED) { c.batch /= 4; c.diagonal_batch /= 4; }         // four times the steps, in about the time
    if (v == OURS_TUNED)   { c.times = times_to_end; snprintf(c.recipe, sizeof c.recipe, "points, to the end"); }
    if (v == CM_TUNED)     { c.ema_rate[0] = 0.95; c.lr = 5e-3; }
    return c;
}

// ---- What is measured ------------------------------------------------------------------------------------------------------

enum { CHAINS = MEASURE_CHAINS, GAMMAS = 5 };           // 1, 2, 4, 8, 17 jumps
static const double gammas[GAMMAS] = {0, 1, 0.3, 0.6, 0.9};

// A number by its place. Errors are RMS against the exact flow of the same noise, in units of the data's standard deviation.
enum {
    RMS       = 0,                      // + chain: gamma 0
    TV        = RMS + CHAINS,           // + gamma·CHAINS + chain: total variation between samples and data on the cells
    OFF       = TV + GAMMAS*CHAINS,     // likewise: share of samples off every mode
    DENOISER  = OFF + GAMMAS*CHAINS,    // g(x,t,t) against the exact denoiser
    OWN_ODE,                            // Heun with OWN_NFE evaluations on the student's own score
    NLL_GAP,                            // exact minus model log-density, nats a point
    TO_HEUN,                            // one jump against the 18-level Heun map with one step per interval
    HEUN,                               // + place in nfes: the teacher's Heun;  Euler
    EULER     = HEUN + MEASURE_NFES,
    HEUN_MAP  = EULER + MEASURE_NFES,   // the 18-level Heun map itself
    NUMBERS
};
static const int nfes[MEASURE_NFES] = {1, 2, 3, 4, 5, 7, 9, 13, 17, 25, BEST_NFE};

// What is known of a seed before any training.
typedef struct truth {
    ctm_real *noise, *heun;             // [noises,2]: starting points at sigma_max; where the discrete teacher takes them
    double   *exact;                    // [noises,2]: where the exact flow takes them
    double    cell[CELLS*CELLS + 1];    // probability of each cell; the last: outside
    double    number[NUMBERS];          // the teacher's own
} truth;

typedef struct trial {
    int         variant, seed;          // seed: its place, 0 .. seeds-1
    ctm_ctx     ctx;
    ctm_arena   memory;
    struct lab *home;
    double      seconds;
    int         ok;
    double      number[NUMBERS];
} trial;

typedef struct lab {
    args_common common;
    const char *only;
    long long   steps, seeds;
    int         full, noises;
    ctm_ctx     ctx;
    ctm_arena   memory;
    toy         data;
    truth       known[SEEDS_MAX];
    trial       job[VARIANTS*SEEDS_MAX], *of[VARIANTS][SEEDS_MAX];
    int         runs;
    char        line[600];
} lab;

static int wrong(const char *line) {
    fprintf(stderr, "claims: %s\n", line);
    return 1;
}

static int cell_of(const ctm_real *x) {
    const int i = (int)floor(((double)x[0] + 1)*CELLS/2), j = (int)floor(((double)x[1] + 1)*CELLS/2);
    return i < 0 || j < 0 || i >= CELLS || j >= CELLS ? CELLS*CELLS : j*CELLS + i;
}

// Total variation between the samples and the data, on the cells; differences within a cell are not seen. A perfect sampler
// does not reach 0 with finitely many samples; its own value is in the truth.
static double total_variation(const truth *t, size_t n, const ctm_real *x) {
    double count[CELLS*CELLS + 1], sum = 0;
    memset(count, 0, sizeof count);
    for (size_t i = 0; i < n; i++) count[cell_of(x + 2*i)]++;
    for (int c = 0; c <= CELLS*CELLS; c++) sum += fabs(count[c]/(double)n - t->cell[c]);
    return sum/2;
}

static void fill_cells(truth *t, const toy *data, uint64_t seed) {
    const ctm_rng rng = ctm_stream(seed, "claims data");
    memset(t->cell, 0, sizeof t->cell);
    for (uint64_t i = 0; i < FRESH; i++) {
        ctm_real x[2];
        toy_draw((void *)data, &rng, 0, i, x);
        t->cell[cell_of(x)] += 1.0/FRESH;
    }
}

static double rms(const lab *l, const ctm_real *x, const double *y) {
    return sqrt(measure_squares((size_t)l->noises, 2, x, y)/l->noises)/TOY_SIGMA_DATA;
}

static void find_truth(void *arg, int seed) {
    lab *l = (lab *)arg;
    truth *t = &l->known[seed];
    const uint64_t name = (uint64_t)(l->common.seed + seed);
    const ctm_noise z = ctm_noise_default();
    const size_t n = (size_t)l->noises;
    ctm_ctx ctx;
    ctm_arena scratch;
    ctm_init(&ctx);
    ctx.threads = 1;
    ctm_arena_init(&scratch, &ctx, "truth");
    ctm_real *y = (ctm_real *)ctm_alloc(&scratch, 2*n*sizeof *y);
    double *map = (double *)ctm_alloc(&scratch, 2*n*sizeof *map);
    const ctm_denoiser *D = l->data.denoiser;
    measure_noise(name, z.sigma_max, n, 2, t->noise);
    measure_flow(&scratch, D, n, t->noise, z.sigma_max, 1, &z.sigma_min, 1e-6, t->exact);
    measure_teacher(&ctx, D, &z, 1, n, t->noise, t->heun);
    fill_cells(t, &l->data, name);
    for (size_t i = 0; i < 2*n; i++) { map[i] = (double)t->heun[i]; y[i] = (ctm_real)t->exact[i]; }
    t->number[TV] = total_variation(t, n, y);
    t->number[OFF] = measure_off_support(&l->data, n, y);
    t->number[HEUN_MAP] = rms(l, t->heun, t->exact);
    for (int k = 0; k < MEASURE_NFES; k++) {
        measure_euler(&ctx, D, &z, nfes[k], n, t->noise, y);
        t->number[EULER + k] = rms(l, y, t->exact);
        if (nfes[k]%2 == 0) continue;
        measure_heun(&ctx, D, &z, nfes[k], n, t->noise, y);
        t->number[HEUN + k] = rms(l, y, t->exact);
    }
    ctm_arena_free(&scratch);
}

typedef struct walk { ctm_net *net; double gamma; int jumps; double ts[MEASURE_MAX_LEVELS]; ctm_rng rng; } walk;

static ctm_tensor *walk_rows(ctm_tape *tp, ctm_tensor *x, size_t first, const void *arg) {    // a measure_fn
    const walk *w = (const walk *)arg;
    ctm_sampler how = ctm_sampler_default();
    how.gamma = w->gamma;
    how.rng = &w->rng;
    how.first_row = first;
    return ctm_sample_gamma(tp, ctm_net_jump(tp->arena, w->net), x, w->jumps, w->ts, &how);
}

static void measure_samples(trial *r, ctm_net *net, const truth *t, ctm_real *y) {
    const lab *l = r->home;
    const size_t n = (size_t)l->noises;
    walk w;
    w.net = net;
    w.rng = ctm_stream((uint64_t)(l->common.seed + r->seed), "claims noise");
    for (int g = 0; g < variants[r->variant].most; g++)
        for (int c = 0; c < CHAINS; c++) {
            w.gamma = gammas[g];
            w.jumps = measure_chains()[c];
            ctm_karras_times(&net->noise, w.jumps + 1, w.ts);
            measure_map(net->ctx, walk_rows, &w, n, 2, t->noise, y);
            r->number[TV + g*CHAINS + c] = total_variation(t, n, y);
            r->number[OFF + g*CHAINS + c] = measure_off_support(&l->data, n, y);
            if (g == 0) r->number[RMS + c] = rms(l, y, t->exact);
        }
}

static void measure_run(trial *r, ctm_net *net) {
    const lab *l = r->home;
    const truth *t = &l->known[r->seed];
    const uint64_t name = (uint64_t)(l->common.seed + r->seed);
    const size_t n = (size_t)l->noises;
    ctm_real *y = (ctm_real *)ctm_alloc(&r->memory, 2*n*sizeof *y);
    double *map = (double *)ctm_alloc(&r->memory, 2*n*sizeof *map);
    const ctm_denoiser *score = ctm_net_denoiser(&r->memory, net);
    measures levels;
    if (r->variant != SCORE_ONLY) {
        measure_samples(r, net, t, y);
        measure_ctm(net, 1, n, t->noise, y);
        for (size_t i = 0; i < 2*n; i++) map[i] = (double)t->heun[i];
        r->number[TO_HEUN] = rms(l, y, map);
    }
    measure_heun(net->ctx, score, &net->noise, OWN_NFE, n, t->noise, y);
    r->number[OWN_ODE] = rms(l, y, t->exact);
    r->number[DENOISER] = measure_denoiser(&levels, &r->memory, net, &l->data, name, l->noises/10);
    r->number[NLL_GAP] = measure_nll_gap(&r->memory, net, &l->data, name, l->noises/POINTS_EACH);
}

// One run from beginning to end, on one thread; many of them go side by side. A measure that the variant does not define (the
// score of a consistency model) is a number all the same, and no claim asks for it.
static void train_and_measure(void *arg, int i) {
    trial *r = &((lab *)arg)->job[i];
    lab *l = r->home;
    const ctm_config cfg = variant_config(r->variant, (long)l->steps, (uint64_t)(l->common.seed + r->seed));
    const int taught = r->variant != SELF_SOLVE && r->variant != SELF_JUMP;
    double start;
    ctm_init(&r->ctx);
    r->ctx.threads = 1;
    ctm_arena_init(&r->memory, &r->ctx, variants[r->variant].name);
    ctm_trainer *tr = ctm_trainer_new(&r->memory, &cfg, ctm_mlp(&r->memory, &cfg, 2, cfg.times != NULL), taught ? l->data.denoiser : NULL, toy_draw, &l->data);
    if (cfg.gan) ctm_trainer_adversary(&r->memory, tr, ctm_mlp_discriminator(&r->memory, &cfg, 2));
    start = args_seconds();
    r->ok = 1;
    while (r->ok && tr->step < cfg.steps) r->ok = ctm_train_step(tr);
    r->seconds = args_seconds() - start;
    if (r->ok) measure_run(r, tr->ema[0]);
    if (!l->common.quiet) fprintf(stderr, "claims: %s, seed %lld: %ld steps, %.1f s\n", variants[r->variant].name, l->common.seed + r->seed, tr->step, r->seconds);
    ctm_trainer_free(tr);
    ctm_arena_free(&r->memory);
}

// ---- What a claim is made of -----------------------------------------------------------------------------------------------

enum { LINES_MAX = 12, PAGE_TEXT = 2400 };
typedef struct line { char text[96]; int judged; double limit, value[SEEDS_MAX]; } line;
typedef struct result {
    lab  *home;
    plot *figure;
    int   lines;
    line  part[LINES_MAX];
    int   verdict;                      // 0, 1, 2: place in verdict_names
    char  measured[1200], why[600];
} result;
static const char *const verdict_names[3] = {"does not show here", "holds weakly", "holds"};

static const double *numbers(const lab *l, int v, int seed) { return v == TEACHER ? l->known[seed].number : l->of[v][seed]->number; }

// A line of a result; the caller fills in its values. limit >= 0: a test. limit < 0: told for information.
static line *add_line(result *r, double limit, const char *text) {
    line *a = &r->part[r->lines++];
    snprintf(a->text, sizeof a->text, "%s", text);
    a->judged = limit >= 0;
    a->limit = limit;
    return a;
}

static void value(result *r, double limit, const char *text, int v, int at) {
    line *a = add_line(r, limit, text);
    for (int k = 0; k < r->home->seeds; k++) a->value[k] = fabs(numbers(r->home, v, k)[at]);
}

// Number `at` of variant v over number `at2` of variant v2, seed by seed.
static void ratio(result *r, double limit, const char *text, int v, int at, int v2, int at2) {
    line *a = add_line(r, limit, text);
    for (int k = 0; k < r->home->seeds; k++) a->value[k] = fabs(numbers(r->home, v, k)[at])/(fabs(numbers(r->home, v2, k)[at2]) + 1e-12);
}

typedef struct spread { double median, least, most; } spread;

static spread spread_of(int n, const double *value) {
    double v[SEEDS_MAX];
    spread s;
    memcpy(v, value, (size_t)n*sizeof *v);
    qsort(v, (size_t)n, sizeof *v, measure__by_value);
    s.median = (v[(n - 1)/2] + v[n/2])/2;
    s.least = v[0];
    s.most = v[n - 1];
    return s;
}

static spread spread_at(const lab *l, int v, int at) {
    double value[SEEDS_MAX];
    for (int k = 0; k < l->seeds; k++) value[k] = fabs(numbers(l, v, k)[at]);
    return spread_of((int)l->seeds, value);
}

static int passed(const result *r, const line *a) {      // at how many seeds
    int n = 0;
    for (int k = 0; k < r->home->seeds; k++) n += a->value[k] <= a->limit;
    return n;
}

static void judge(result *r) {
    const int n = (int)r->home->seeds;
    size_t at = 0, why = 0;
    r->verdict = 2;
    for (int i = 0; i < r->lines; i++) {
        const line *a = &r->part[i];
        const spread s = spread_of(n, a->value);
        at += (size_t)snprintf(r->measured + at, sizeof r->measured - at, "%s%s %.3g (%.3g to %.3g)", i ? "; " : "", a->text, s.median, s.least, s.most);
        if (!a->judged) continue;
        at += (size_t)snprintf(r->measured + at, sizeof r->measured - at, ", limit %g", a->limit);
        if (passed(r, a) == n) continue;
        if (s.median > a->limit)   r->verdict = 0;
        else if (r->verdict > 1)   r->verdict = 1;
        why += (size_t)snprintf(r->why + why, sizeof r->why - why, "%s%s is within its limit at %d of %d seeds", why ? "; " : "", a->text, passed(r, a), n);
    }
    if (!why) snprintf(r->why, sizeof r->why, "every test passed at all %d seeds", n);
}

// ---- Figures ---------------------------------------------------------------------------------------------------------------

typedef struct bar { int variant, at; } bar;

// Medians of groups x series as bars, the seeds as marks upon them. cell[g·series + s] says which number.
static void bars(result *r, int panel, int panels, const char *title, const char *unit, int log_scale, int groups, const char *const *group,
                 int series, const char *const *label, const bar *cell) {
    const lab *l = r->home;
    double height[64], least = 1e30, most = 1e-9;
    for (int i = 0; i < groups*series; i++) {
        const spread s = spread_at(l, cell[i].variant, cell[i].at);
        height[i] = s.median;
        if (s.least > 0) least = fmin(least, s.least);
        most = fmax(most, s.most);
    }
    plot_grid_panel(r->figure, 1, panels, panel, title);
    plot_axes(r->figure, 0, groups, log_scale ? fmax(least, 1e-5*most)/2 : 0, log_scale ? 6*most : 1.4*most, NULL, unit, PLOT_NOXTICKS | (log_scale ? PLOT_LOGY : 0));
    plot_bars(r->figure, groups, series, height, group, 0);
    for (int g = 0; g < groups; g++)
        for (int s = 0; s < series; s++)
            for (int k = 0; k < l->seeds; k++) {
                const bar b = cell[g*series + s];
                const double x = g + 0.12 + (s + 0.5)*0.76/series, y = fabs(numbers(l, b.variant, k)[b.at]);
                plot_marks(r->figure, 1, &x, &y, PLOT_CIRCLE, PLOT_INK, 6);
            }
    for (int s = 0; series > 1 && s < series; s++) plot_legend_add(r->figure, PLOT_BOX, plot_color(s), label[s]);
}

// A curve through the medians of n numbers in a row, with the range of the seeds as a band. Numbers that are 0 are left out.
static void curve(result *r, int color, const char *label, int v, int at, int n, const int *x) {
    double px[MEASURE_NFES], mid[MEASURE_NFES], lo[MEASURE_NFES], hi[MEASURE_NFES];
    int m = 0;
    for (int i = 0; i < n; i++) {
        const spread s = spread_at(r->home, v, at + i);
        if (!(s.least > 0)) continue;
        px[m] = x[i]; mid[m] = s.median; lo[m] = s.least; hi[m++] = s.most;
    }
    plot_band(r->figure, m, px, lo, hi, plot_color(color), 0.25);
    plot_line(r->figure, m, px, mid, plot_color(color), 2, 0, 1);
    plot_marks(r->figure, m, px, mid, PLOT_CIRCLE, plot_color(color), 7);
    plot_legend_add(r->figure, PLOT_LINE, plot_color(color), label);
}

static const char *const error_axis = "RMS error / " STORY_SIGMA " of the data";
static const char *const tv_axis = "total variation on " "32 x 32 cells";

static void tv_panel(result *r, int panel, int panels, const char *title, double top) {
    plot_grid_panel(r->figure, 1, panels, panel, title);
    plot_axes(r->figure, 0.9, 20, 0, top, "jumps", tv_axis, PLOT_LOGX);
}

// The largest total variation that a variant shows at gammas 0 and 1.
static double tv_top(const lab *l, int v) {
    double top = 0;
    for (int i = 0; i < 2*CHAINS; i++) top = fmax(top, spread_at(l, v, TV + i).most);
    return top;
}

// A curve that a perfect sampler would show: its total variation is not 0 because samples are finite.
static void perfect_line(result *r) {
    const double x[2] = {0.9, 20}, y[2] = {spread_at(r->home, TEACHER, TV).median, spread_at(r->home, TEACHER, TV).median};
    plot_line(r->figure, 2, x, y, PLOT_INK, 1.4, 5, 0.8);
    plot_legend_add(r->figure, PLOT_DASH, PLOT_INK, "the exact flow");
}

// ---- The claims: tests and figure of each ----------------------------------------------------------------------------------

enum { ONE = 0, FOUR = 2, SEVENTEEN = 4, GAMMA_1 = CHAINS };       // chains; where the numbers of gamma 1 begin

// Its score against that of a network which learns nothing else; its jump against many steps on its own score.
static void score_and_jumps(result *r) {
    static const char *const group[3] = {"denoiser", "ODE of its score, 79 evaluations", "one jump"}, *const label[3] = {"CTM, recipe paper", "CTM, recipe points", "score alone"};
    static const bar cell[9] = {{PAPER, DENOISER}, {OURS, DENOISER}, {SCORE_ONLY, DENOISER}, {PAPER, OWN_ODE}, {OURS, OWN_ODE}, {SCORE_ONLY, OWN_ODE},
                                {PAPER, RMS + ONE}, {OURS, RMS + ONE}, {SCORE_ONLY, RMS + ONE}};
    ratio(r, 1.25, "denoiser error over that of a network for the score alone", PAPER, DENOISER, SCORE_ONLY, DENOISER);
    ratio(r, 1.25, "error of its ODE in 79 evaluations over that network's", PAPER, OWN_ODE, SCORE_ONLY, OWN_ODE);
    ratio(r, 1, "error of one jump over its own ODE in 79 evaluations", PAPER, RMS + ONE, PAPER, OWN_ODE);
    value(r, -1, "one jump", PAPER, RMS + ONE);
    value(r, -1, "its ODE in 79 evaluations", PAPER, OWN_ODE);
    bars(r, 0, 1, NULL, error_axis, 1, 3, group, 3, label, cell);
}

static void few_steps(result *r) {
    static const int jumps[CHAINS] = {1, 2, 4, 8, 17}, place[3] = {0, 1, 3};     // of 1, 2, 4 evaluations in nfes
    for (int c = 0; c < 3; c++) {
        char text[96];
        snprintf(text, sizeof text, "%d jump%s over the teacher's best with as many evaluations", jumps[c], c ? "s" : "");
        line *a = add_line(r, 0.5, text);
        for (int k = 0; k < r->home->seeds; k++) {
            const double *t = numbers(r->home, TEACHER, k), heun = t[HEUN + place[c]], euler = t[EULER + place[c]];
            a->value[k] = numbers(r->home, PAPER, k)[RMS + c]/(heun > 0 ? fmin(heun, euler) : euler);
        }
    }
    ratio(r, 1.25, "one jump over the teacher's Heun with 35 evaluations", PAPER, RMS + ONE, TEACHER, HEUN + MEASURE_NFES - 1);
    ratio(r, -1, "the same, recipe points", OURS, RMS + ONE, TEACHER, HEUN + MEASURE_NFES - 1);
    plot_grid_panel(r->figure, 1, 1, 0, NULL);
    plot_axes(r->figure, 0.9, 40, 0.005, 200, "network evaluations per sample", error_axis, PLOT_LOGX | PLOT_LOGY);
    curve(r, 0, "CTM, recipe paper", PAPER, RMS, CHAINS, jumps);
    curve(r, 1, "CTM, recipe points", OURS, RMS, CHAINS, jumps);
    curve(r, 2, "teacher, Heun", TEACHER, HEUN, MEASURE_NFES, nfes);
    curve(r, 3, "teacher, Euler", TEACHER, EULER, MEASURE_NFES, nfes);
}

// Both halves for one recipe: total variation at 17 jumps against 1 with gamma 0; at 2 against 17 with gamma 1.
static void more_jumps(result *r, int v) {
    const double top = 1.7*tv_top(r->home, v);
    ratio(r, 0.95, "gamma 0: TV of 17 jumps over 1", v, TV + SEVENTEEN, v, TV + ONE);
    ratio(r, 0.95, "gamma 1: TV of 2 jumps over 17", v, TV + GAMMA_1 + 1, v, TV + GAMMA_1 + SEVENTEEN);
    ratio(r, -1, "gamma 0: flow error of 17 jumps over 1", v, RMS + SEVENTEEN, v, RMS + ONE);
    ratio(r, -1, "gamma 0: off-mode share of 17 jumps over 1", v, OFF + SEVENTEEN, v, OFF + ONE);
    tv_panel(r, 0, 2, "distribution", top);
    curve(r, 0, STORY_GAMMA " = 0", v, TV, CHAINS, measure_chains());
    curve(r, 1, STORY_GAMMA " = 1", v, TV + GAMMA_1, CHAINS, measure_chains());
    perfect_line(r);
    plot_grid_panel(r->figure, 1, 2, 1, "against the exact flow");
    plot_axes(r->figure, 0.9, 20, 0, 2*spread_at(r->home, v, RMS + SEVENTEEN).most + spread_at(r->home, v, RMS).most, "jumps", error_axis, PLOT_LOGX);
    curve(r, 0, STORY_GAMMA " = 0", v, RMS, CHAINS, measure_chains());
}
static void more_jumps_paper(result *r) { more_jumps(r, PAPER); }
static void more_jumps_ours(result *r)  { more_jumps(r, OURS); }

static int better(const lab *l, int a, int b) {           // by one jump, the median over seeds
    return spread_at(l, a, RMS + ONE).median < spread_at(l, b, RMS + ONE).median ? a : b;
}

static void cm_degrades(result *r) {
    const int cm = better(r->home, CM, CM_TUNED);
    ratio(r, 0.95, "CM: TV of 2 jumps over 17", cm, TV + GAMMA_1 + 1, cm, TV + GAMMA_1 + SEVENTEEN);
    ratio(r, 0.95, "TV of 17 jumps, CTM at gamma 0 over CM", PAPER, TV + SEVENTEEN, cm, TV + GAMMA_1 + SEVENTEEN);
    ratio(r, -1, "CM: TV of 2 jumps over 1", cm, TV + GAMMA_1 + 1, cm, TV + GAMMA_1);
    tv_panel(r, 0, 1, NULL, 1.6*fmax(tv_top(r->home, PAPER), spread_at(r->home, cm, TV + GAMMA_1).most));
    curve(r, 0, "CTM, " STORY_GAMMA " = 0", PAPER, TV, CHAINS, measure_chains());
    curve(r, 1, "CTM, " STORY_GAMMA " = 1", PAPER, TV + GAMMA_1, CHAINS, measure_chains());
    curve(r, 2, "CM (its multistep sampler)", cm, TV + GAMMA_1, CHAINS, measure_chains());
    perfect_line(r);
}

static void matching(result *r) {
    static const char *const group[3] = {"1 jump", "4 jumps", "17 jumps"}, *const label[3] = {"soft", "local", "global"};
    static const bar cell[9] = {{PAPER, RMS + ONE}, {LOCAL, RMS + ONE}, {GLOBAL, RMS + ONE}, {PAPER, RMS + FOUR}, {LOCAL, RMS + FOUR},
                                {GLOBAL, RMS + FOUR}, {PAPER, RMS + SEVENTEEN}, {LOCAL, RMS + SEVENTEEN}, {GLOBAL, RMS + SEVENTEEN}};
    ratio(r, 0.95, "one jump, soft over local", PAPER, RMS + ONE, LOCAL, RMS + ONE);
    ratio(r, 0.95, "one jump, soft over global", PAPER, RMS + ONE, GLOBAL, RMS + ONE);
    ratio(r, -1, "17 jumps, soft over local", PAPER, RMS + SEVENTEEN, LOCAL, RMS + SEVENTEEN);
    ratio(r, -1, "17 jumps, soft over global", PAPER, RMS + SEVENTEEN, GLOBAL, RMS + SEVENTEEN);
    bars(r, 0, 1, NULL, error_axis, 0, 3, group, 3, label, cell);
}

static void dsm(result *r) {
    static const char *const group[4] = {"denoiser", "likelihood gap (nats)", "1 jump", "17 jumps"}, *const label[2] = {"with DSM", "without"};
    static const bar cell[8] = {{PAPER, DENOISER}, {NO_DSM, DENOISER}, {PAPER, NLL_GAP}, {NO_DSM, NLL_GAP}, {PAPER, RMS + ONE},
                                {NO_DSM, RMS + ONE}, {PAPER, RMS + SEVENTEEN}, {NO_DSM, RMS + SEVENTEEN}};
    ratio(r, 0.5, "denoiser error, with over without", PAPER, DENOISER, NO_DSM, DENOISER);
    ratio(r, 0.5, "likelihood gap, with over without", PAPER, NLL_GAP, NO_DSM, NLL_GAP);
    ratio(r, 0.95, "17 jumps, with over without", PAPER, RMS + SEVENTEEN, NO_DSM, RMS + SEVENTEEN);
    ratio(r, -1, "one jump, with over without", PAPER, RMS + ONE, NO_DSM, RMS + ONE);
    bars(r, 0, 1, NULL, "error (" STORY_SIGMA " of the data; nats)", 1, 4, group, 2, label, cell);
}

static void adversary(result *r) {
    static const char *const tv[2] = {"1 jump", "4 jumps"}, *const flow[2] = {"1 jump", "4 jumps"}, *const label[2] = {"with GAN", "without"};
    static const bar cell[4] = {{GAN, TV + ONE}, {PAPER, TV + ONE}, {GAN, TV + FOUR}, {PAPER, TV + FOUR}};
    static const bar error[4] = {{GAN, RMS + ONE}, {PAPER, RMS + ONE}, {GAN, RMS + FOUR}, {PAPER, RMS + FOUR}};
    ratio(r, 0.95, "TV of one jump, with over without", GAN, TV + ONE, PAPER, TV + ONE);
    ratio(r, -1, "off-mode share, with over without", GAN, OFF + ONE, PAPER, OFF + ONE);
    ratio(r, -1, "flow error, with over without", GAN, RMS + ONE, PAPER, RMS + ONE);
    bars(r, 0, 2, "distribution", tv_axis, 0, 2, tv, 2, label, cell);
    bars(r, 1, 2, "against the exact flow", error_axis, 0, 2, flow, 2, label, error);
}

static void adaptive_weight(result *r) {
    static const char *const group[3] = {"1 jump", "17 jumps", "denoiser"}, *const label[2] = {"adaptive", "weight 1"};
    static const bar cell[6] = {{PAPER, RMS + ONE}, {FIXED_WEIGHT, RMS + ONE}, {PAPER, RMS + SEVENTEEN}, {FIXED_WEIGHT, RMS + SEVENTEEN},
                                {PAPER, DENOISER}, {FIXED_WEIGHT, DENOISER}};
    line *a = add_line(r, 0.95, "adaptive over fixed, geometric mean of the three errors");
    for (int k = 0; k < r->home->seeds; k++) {
        double product = 1;
        for (int i = 0; i < 6; i += 2) product *= numbers(r->home, PAPER, k)[cell[i].at]/numbers(r->home, FIXED_WEIGHT, k)[cell[i].at];
        a->value[k] = cbrt(product);
    }
    ratio(r, -1, "one jump", PAPER, RMS + ONE, FIXED_WEIGHT, RMS + ONE);
    ratio(r, -1, "17 jumps", PAPER, RMS + SEVENTEEN, FIXED_WEIGHT, RMS + SEVENTEEN);
    ratio(r, -1, "denoiser", PAPER, DENOISER, FIXED_WEIGHT, DENOISER);
    bars(r, 0, 1, NULL, error_axis, 0, 3, group, 2, label, cell);
}

static void self_teaching(result *r) {
    static const char *const group[3] = {"1 jump", "17 jumps", "denoiser"}, *const label[3] = {"with the exact teacher", "own ODE (paper)", "own jump (code)"};
    static const bar cell[9] = {{PAPER, RMS + ONE}, {SELF_SOLVE, RMS + ONE}, {SELF_JUMP, RMS + ONE}, {PAPER, RMS + SEVENTEEN}, {SELF_SOLVE, RMS + SEVENTEEN},
                                {SELF_JUMP, RMS + SEVENTEEN}, {PAPER, DENOISER}, {SELF_SOLVE, DENOISER}, {SELF_JUMP, DENOISER}};
    ratio(r, 1.5, "one jump, own ODE (paper) over teacher", SELF_SOLVE, RMS + ONE, PAPER, RMS + ONE);
    ratio(r, 1.5, "one jump, own jump (code) over teacher", SELF_JUMP, RMS + ONE, PAPER, RMS + ONE);
    ratio(r, -1, "TV, own ODE over teacher", SELF_SOLVE, TV + ONE, PAPER, TV + ONE);
    ratio(r, -1, "TV, own jump over teacher", SELF_JUMP, TV + ONE, PAPER, TV + ONE);
    bars(r, 0, 1, NULL, error_axis, 1, 3, group, 3, label, cell);
}

static void likelihood(result *r) {
    static const char *const group[1] = {"mean of exact minus model log-density"}, *const label[2] = {"recipe paper", "recipe points"};
    static const bar cell[2] = {{PAPER, NLL_GAP}, {OURS, NLL_GAP}};
    value(r, 0.05, "likelihood gap, nats a point", PAPER, NLL_GAP);
    value(r, -1, "the same, recipe points", OURS, NLL_GAP);
    bars(r, 0, 1, NULL, "nats a point (absolute value)", 0, 1, group, 2, label, cell);
}

// Theorem's sum over the jumps of a chain: sqrt(t_n - sqrt(1 - gamma²)·t_(n+1)).
static double theorem_sum(double gamma, int jumps) {
    const ctm_noise z = ctm_noise_default();
    double ts[MEASURE_MAX_LEVELS], sum = 0;
    ctm_karras_times(&z, jumps + 1, ts);
    for (int j = 0; j < jumps; j++) sum += sqrt(ts[j] - sqrt(1 - gamma*gamma)*(j == jumps - 1 ? 0 : ts[j + 1]));
    return sum;
}

// Spearman's correlation of ranks; equal values do not occur in practice and would only be put in order.
static double rank_correlation(int n, const double *x, const double *y) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        int rx = 0, ry = 0;
        for (int j = 0; j < n; j++) { rx += x[j] < x[i]; ry += y[j] < y[i]; }
        sum += (double)(rx - ry)*(rx - ry);
    }
    return 1 - 6*sum/((double)n*(n*n - 1.0));
}

static void theorem_panel(result *r, int panel, int v, const char *title) {
    static const char *const label[GAMMAS] = {STORY_GAMMA " = 0", "1", "0.3", "0.6", "0.9"};
    plot_grid_panel(r->figure, 1, 2, panel, title);
    plot_axes(r->figure, 8, 55, 0, 1.8*tv_top(r->home, v), "the bound's sum over the jumps (2, 4, 8, 17 from left to right)", tv_axis, 0);
    for (int g = 0; g < GAMMAS; g++) {
        double x[CHAINS], y[CHAINS];
        for (int c = 1; c < CHAINS; c++) { x[c - 1] = theorem_sum(gammas[g], measure_chains()[c]); y[c - 1] = spread_at(r->home, v, TV + g*CHAINS + c).median; }
        plot_line(r->figure, CHAINS - 1, x, y, plot_color(g), 1.6, 0, 0.9);
        plot_marks(r->figure, CHAINS - 1, x, y, PLOT_CIRCLE, plot_color(g), 7);
        plot_legend_add(r->figure, PLOT_LINE, plot_color(g), label[g]);
    }
}

// Does the error rank chains as the bound does? Tested: 1 - correlation.
static void theorem(result *r) {
    static const int recipe[2] = {PAPER, OURS};
    for (int i = 0; i < 2; i++) {
        line *a = add_line(r, i ? -1 : 0.3, i ? "the same, recipe points" : "1 - rank correlation of TV with the theorem's sum over 20 samplers");
        for (int k = 0; k < r->home->seeds; k++) {
            double x[GAMMAS*CHAINS], y[GAMMAS*CHAINS];
            int n = 0;
            for (int g = 0; g < GAMMAS; g++)
                for (int c = 1; c < CHAINS; c++) {
                    x[n] = theorem_sum(gammas[g], measure_chains()[c]);
                    y[n++] = numbers(r->home, recipe[i], k)[TV + g*CHAINS + c];
                }
            a->value[k] = 1 - rank_correlation(n, x, y);
        }
    }
    ratio(r, -1, "17 jumps: TV at gamma 1 over gamma 0", PAPER, TV + GAMMA_1 + SEVENTEEN, PAPER, TV + SEVENTEEN);
    theorem_panel(r, 0, PAPER, "recipe paper");
    theorem_panel(r, 1, OURS, "recipe points");
}

static void discrete_teacher(result *r) {
    static const char *const group[2] = {"against the 18-level Heun map", "against the exact flow"}, *const label[2] = {"taught by that map", "taught by 3 steps per interval"};
    static const bar cell[4] = {{ONE_HEUN, TO_HEUN}, {OURS, TO_HEUN}, {ONE_HEUN, RMS + ONE}, {OURS, RMS + ONE}};
    ratio(r, 0.95, "error against its teacher's map over that against the exact flow", ONE_HEUN, TO_HEUN, ONE_HEUN, RMS + ONE);
    value(r, -1, "the map itself against the exact flow", TEACHER, HEUN_MAP);
    ratio(r, -1, "flow error, 3 Heun steps per interval over 1", OURS, RMS + ONE, ONE_HEUN, RMS + ONE);
    bars(r, 0, 1, NULL, error_axis, 0, 2, group, 2, label, cell);
}

static void against_cm(result *r) {
    static const char *const group[3] = {"same settings", "tuned for one jump", "recipe paper"}, *const label[2] = {"CTM", "CM"};
    static const bar cell[6] = {{OURS, RMS + ONE}, {CM, RMS + ONE}, {OURS_TUNED, RMS + ONE}, {CM_TUNED, RMS + ONE}, {PAPER, RMS + ONE}, {CM_TUNED, RMS + ONE}};
    const int ctm = better(r->home, OURS, OURS_TUNED), cm = better(r->home, CM, CM_TUNED);
    ratio(r, 0.6, "one jump, the better CTM over the better CM", ctm, RMS + ONE, cm, RMS + ONE);
    ratio(r, -1, "at the same settings", OURS, RMS + ONE, CM, RMS + ONE);
    ratio(r, -1, "recipe paper over the better CM", PAPER, RMS + ONE, cm, RMS + ONE);
    value(r, -1, "the better CTM", ctm, RMS + ONE);
    value(r, -1, "the better CM", cm, RMS + ONE);
    bars(r, 0, 1, NULL, error_axis, 0, 3, group, 2, label, cell);
}

typedef struct claim {
    int         number;
    const char *id, *question;
    void      (*test)(result *r);
    unsigned    needs;                  // bit v: variant v is to be trained
    const char *text;                   // for the page
} claim;
#define NEEDS(v) (1u << (v))

static const claim claims[] = {
    {1, "1", "One network gives score and jumps", score_and_jumps, NEEDS(PAPER) | NEEDS(OURS) | NEEDS(SCORE_ONLY),
     "The same weights are read at s = t as a denoiser, hence as a score whose ODE can be solved, and at s below t as a jump. Beside it a network of the same size that learns the score and nothing else, in as many steps. It has no jumps."},
    {2, "2", "One step is close to the teacher's many", few_steps, NEEDS(PAPER) | NEEDS(OURS),
     "Student and teacher (the exact denoiser, in Heun's and in Euler's method) start from the same noises. 35 evaluations are what EDM's sampler takes."},
    {3, "3", "More jumps help at gamma 0 and hurt at gamma 1", more_jumps_paper, NEEDS(PAPER),
     "The paper's figure shows FID; here it is the total variation between samples and data, beside the error against the exact flow."},
    {3, "3-ours", "The same with our recipe, points", more_jumps_ours, NEEDS(OURS),
     "The recipe points practises the short jumps that chains are made of."},
    {4, "4", "A consistency model degrades with steps, CTM does not", cm_degrades, NEEDS(PAPER) | NEEDS(CM) | NEEDS(CM_TUNED),
     "The consistency model's multistep sampler goes to time zero and back up at every step, which is gamma = 1. The better of two consistency models is shown."},
    {5, "5", "Soft matching beats local and global matching at equal time", matching, NEEDS(PAPER) | NEEDS(LOCAL) | NEEDS(GLOBAL),
     "Where the teacher's route ends and the student's own begins: one grid step on, anywhere, or only at s. The teacher here is a formula and cheap; a network as teacher would make soft and global dearer."},
    {6, "6", "DSM improves score, likelihood and chains", dsm, NEEDS(PAPER) | NEEDS(NO_DSM),
     "The paper adds denoising score matching for the short jumps, whose consistency loss says little."},
    {7, "7", "A GAN improves the samples", adversary, NEEDS(PAPER) | NEEDS(GAN),
     "The adversary enters after six tenths of the steps, and every other step is then its own."},
    {8, "8", "Adaptive weights beat a fixed one", adaptive_weight, NEEDS(PAPER) | NEEDS(FIXED_WEIGHT),
     "The weight of DSM is the ratio of the two gradients' norms, or 1."},
    {9, "9", "Self-teaching comes close to a teacher", self_teaching, NEEDS(PAPER) | NEEDS(SELF_SOLVE) | NEEDS(SELF_JUMP),
     "Without a teacher x_u comes from the student's own average: by its ODE, one Heun step per grid interval, as in the paper's text, or by a jump, as in the code. At about equal time, which gives the first fewer steps."},
    {10, "10", "The likelihood is that of the data", likelihood, NEEDS(PAPER) | NEEDS(OURS),
     "The probability-flow ODE with the score of g(x,t,t) and the exact divergence, against the exact density at fresh points."},
    {11, "11", "The error of gamma-sampling follows the theorem's sum", theorem, NEEDS(PAPER) | NEEDS(OURS),
     "The bound is the sum over jumps of the root of t minus root(1 - gamma squared) times the next t. It grows with gamma and with the number of jumps."},
    {12, "12", "The student learns its discrete teacher, not the exact flow", discrete_teacher, NEEDS(OURS) | NEEDS(ONE_HEUN),
     "One Heun step per interval of the 18-level grid is a map of its own, some way from the exact flow. Which of the two is the student nearer to?"},
    {13, "13", "CTM beats CM at one step, at equal time and equal care", against_cm, NEEDS(PAPER) | NEEDS(OURS) | NEEDS(OURS_TUNED) | NEEDS(CM) | NEEDS(CM_TUNED),
     "A consistency model's step is cheaper, so it gets 3.2 times the steps, and 8 times as many with batches of a quarter (CTM: 3.4 times); and of either model the better of two settings counts, the second one found by a search."}};
enum { CLAIMS = sizeof claims/sizeof claims[0], CLAIMS_LAST = 13 };

// ---- The command line --------------------------------------------------------------------------------------------------------

// --only 3,5 as bits; 0 and a message if a part of it is no claim.
static unsigned chosen(const char *only) {
    unsigned bits = 0;
    const char *p = only;
    if (!only) return ~0u;
    for (;;) {
        char *end;
        const long n = strtol(p, &end, 10);
        if (!args_digit(*p) || n < 1 || n > CLAIMS_LAST || (*end != ',' && *end != '\0')) {
            char shown[64];
            fprintf(stderr, "claims: flag --only: found \"%s\", expected numbers of claims from 1 to %d with commas between, as in 3,5\n",
                    args_excerpt(only, shown, sizeof shown), CLAIMS_LAST);
            return 0;
        }
        bits |= 1u << n;
        if (*end == '\0') return bits;
        p = end + 1;
    }
}

// ---- Everything is trained -----------------------------------------------------------------------------------------------------

// Longest runs first, so that the threads finish together.
static int by_length(const void *a, const void *b) {
    const trial *x = (const trial *)a, *y = (const trial *)b;
    const double d = variants[y->variant].steps - variants[x->variant].steps;
    return d < 0 ? -1 : d > 0 ? 1 : x->variant != y->variant ? x->variant - y->variant : x->seed - y->seed;
}

static int train_all(lab *l, unsigned needs) {
    const size_t points = 2*(size_t)l->noises;
    for (int k = 0; k < l->seeds; k++) {
        truth *t = &l->known[k];
        t->noise = (ctm_real *)ctm_alloc(&l->memory, points*sizeof(ctm_real));
        t->heun = (ctm_real *)ctm_alloc(&l->memory, points*sizeof(ctm_real));
        t->exact = (double *)ctm_alloc(&l->memory, points*sizeof(double));
        for (int v = 0; v < VARIANTS; v++) {
            if (!(needs & NEEDS(v))) continue;
            trial *r = &l->job[l->runs++];
            r->variant = v; r->seed = k; r->home = l;
        }
    }
    qsort(l->job, (size_t)l->runs, sizeof(trial), by_length);
    for (int i = 0; i < l->runs; i++) l->of[l->job[i].variant][l->job[i].seed] = &l->job[i];
    ctm_parallel_for(&l->ctx, (int)l->seeds, find_truth, l);
    ctm_parallel_for(&l->ctx, l->runs, train_and_measure, l);
    for (int i = 0; i < l->runs; i++)
        if (!l->job[i].ok) return args_fail(l->line, sizeof l->line, "%s, seed %lld: %s", variants[l->job[i].variant].name, l->common.seed + l->job[i].seed, ctm_error(&l->job[i].ctx));
    return 1;
}

// ---- Output ----------------------------------------------------------------------------------------------------------------------

static FILE *open_csv(lab *l, ctm_output *a, const char *name) {
    char path[ARGS_PATH];
    if (!args_join(path, sizeof path, l->common.out, name)) { args_fail(l->line, sizeof l->line, "%s: the path is too long", l->common.out); return NULL; }
    return args_open_atomic(a, path, l->line, sizeof l->line);
}

static int write_claims(lab *l, int n, const claim *const *which, const result *r) {
    ctm_output a;
    FILE *f = open_csv(l, &a, "claims.csv");
    if (!f) return 0;
    fputs("claim,question,measured,verdict,why\n", f);                 // no text of ours holds a quote
    for (int i = 0; i < n; i++) fprintf(f, "%s,\"%s\",\"%s\",%s,\"%s\"\n", which[i]->id, which[i]->question, r[i].measured, verdict_names[r[i].verdict], r[i].why);
    return args_close_atomic(&a, l->line, sizeof l->line);
}

static int write_values(lab *l, int n, const claim *const *which, const result *r) {
    ctm_output a;
    FILE *f = open_csv(l, &a, "values.csv");
    if (!f) return 0;
    fputs("claim,quantity,limit,seed,value\n", f);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < r[i].lines; j++)
            for (int k = 0; k < l->seeds; k++) {
                const line *q = &r[i].part[j];
                fprintf(f, "%s,\"%s\",", which[i]->id, q->text);
                if (q->judged) fprintf(f, "%g", q->limit);
                fprintf(f, ",%lld,%.9g\n", l->common.seed + k, q->value[k]);
            }
    return args_close_atomic(&a, l->line, sizeof l->line);
}

static int write_runs(lab *l) {
    ctm_output a;
    FILE *f = open_csv(l, &a, "runs.csv");
    if (!f) return 0;
    fputs("variant,seed,steps,seconds,text\n", f);
    for (int i = 0; i < l->runs; i++) {
        const trial *r = &l->job[i];
        fprintf(f, "%s,%lld,%ld,%.2f,\"%s\"\n", variants[r->variant].name, l->common.seed + r->seed,
                variant_config(r->variant, (long)l->steps, 0).steps, r->seconds, variants[r->variant].text);
    }
    return args_close_atomic(&a, l->line, sizeof l->line);
}

static int write_page(lab *l, story *s, int n, const claim *const *which, const result *r, const char *command) {
    ctm_output page;
    FILE *f = open_csv(l, &page, "index.html");
    if (!f) return 0;
    story_head(s, f);
    fputs("<h1>The paper's claims, in miniature</h1>\n<p>Each claim is a question put to small models of eight Gaussians on a ring, where the exact flow, denoiser and density are known. "
          "A test is passed if its number is within its limit: at every seed, the claim <em>holds</em>; by the median, it <em>holds weakly</em>; otherwise it <em>does not show here</em>. "
          "What does not show on eight dots in the plane may be true of images, and the other way round.</p>\n<pre>", f);
    story_escape(f, command);
    fputs("</pre>\n<div class='wide'><table>\n<tr><td><b>claim</b></td><td></td><td><b>verdict</b></td><td><b>why</b></td></tr>\n", f);
    for (int i = 0; i < n; i++)
        fprintf(f, "<tr><td class='n'>%s</td><td>%s</td><td>%s</td><td>%s</td></tr>\n", which[i]->id, which[i]->question, verdict_names[r[i].verdict], r[i].why);
    fputs("</table></div>\n", f);
    for (int i = 0; i < n; i++) {
        fprintf(f, "<section><h2>%s. %s: %s</h2>\n<p>%s</p>\n<div class='wide'>\n", which[i]->id, which[i]->question, verdict_names[r[i].verdict], which[i]->text);
        if (!story_inline(s, f, s->figure[i].file)) { ctm_output_drop(&page); return args_fail(l->line, sizeof l->line, "%s", s->error); }
        fprintf(f, "</div>\n<p>%s. <b>Verdict:</b> %s, because %s. <a href='%s'>(figure alone)</a></p></section>\n", r[i].measured, verdict_names[r[i].verdict], r[i].why, s->figure[i].file);
    }
    fputs("<p>All numbers: <a href='claims.csv'>claims.csv</a>, <a href='values.csv'>values.csv</a>, <a href='runs.csv'>runs.csv</a>. Bars and curves are medians over seeds, "
          "marks and bands the seeds.</p>\n</body></html>\n", f);
    return args_close_atomic(&page, l->line, sizeof l->line);
}

// Tests and figure of one claim.
static int answer(lab *l, story *s, const claim *c, result *r) {
    char *file = (char *)ctm_alloc(&l->memory, 32);
    snprintf(file, 32, "claim-%s.svg", c->id);
    r->home = l;
    r->figure = story_open(s, file, 900, 440, c->question);
    c->test(r);
    judge(r);
    if (!story_close(s, r->figure, file, c->question, c->text)) return args_fail(l->line, sizeof l->line, "%s", s->error);
    return 1;
}

static int answer_all(lab *l, unsigned only, const char *command) {
    const claim *which[CLAIMS];
    result *r = (result *)ctm_alloc(&l->memory, CLAIMS*sizeof(result));
    story s;
    int n = 0;
    story_init(&s, &l->memory, NULL, l->common.out);
    s.name = "The paper's claims";
    printf("claim | measured | verdict\n");
    for (int i = 0; i < CLAIMS; i++) {
        if (!(only & 1u << claims[i].number)) continue;
        which[n] = &claims[i];
        if (!answer(l, &s, which[n], &r[n])) return 0;
        printf("%s. %s | %s | %s: %s\n", which[n]->id, which[n]->question, r[n].measured, verdict_names[r[n].verdict], r[n].why);
        n++;
    }
    return write_claims(l, n, which, r) && write_values(l, n, which, r) && write_runs(l) && write_page(l, &s, n, which, r, command);
}

int main(int argc, char **argv) {
    lab *l = (lab *)calloc(1, sizeof *l);
    unsigned only, needs = 0;
    char command[200];
    int status, done;
    if (!l) return wrong("not enough memory");
    args_utf8(&argc, &argv);
    l->common = args_common_defaults("out/claims");
    l->common.seed = 0;
    const args_option options[] = {
        {"only",  ARGS_TEXT, &l->only,  0, 0, NULL, "numbers of the claims to test, as in 3,5; all if not given"},
        {"full",  ARGS_FLAG, &l->full,  0, 0, NULL, "20000 training steps a run instead of 6000"},
        {"seeds", ARGS_INT,  &l->seeds, 1, SEEDS_MAX, NULL, "how many seeds, from --seed upwards; 3 if not given"},
        {"steps", ARGS_INT,  &l->steps, 1, 1e7, NULL, "training steps of a run; 6000 if not given. Below 2000 fewer samples are measured, too"},
        ARGS_COMMON(l->common)
    };
    status = args_parse("claims", "claims [flags]: tests the paper's claims on eight Gaussians", options, ARGS_COUNT(options), argc, argv);
    only = status ? 0 : chosen(l->only);
    if (status || !only) { free(l); return args_finish("claims", status ? args_exit_status(status) : 2); }
    if (!l->steps) l->steps = l->full ? FULL_STEPS : STEPS;
    if (!l->seeds) l->seeds = SEEDS;
    l->noises = l->steps >= 2000 ? NOISES : (int)(NOISES*l->steps/2000) > 256 ? (int)(NOISES*l->steps/2000) : 256;
    if (!args_mkdir(l->common.out, l->line, sizeof l->line)) { status = wrong(l->line); free(l); return status; }
    ctm_init(&l->ctx);
    l->ctx.threads = (int)l->common.threads;
    ctm_arena_init(&l->memory, &l->ctx, "claims");
    toy_make(&l->data, &l->memory, "ring");
    for (int i = 0; i < CLAIMS; i++) if (only & 1u << claims[i].number) needs |= claims[i].needs;
    snprintf(command, sizeof command, "claims --steps %lld --seeds %lld --seed %lld%s%s", l->steps, l->seeds, l->common.seed, l->only ? " --only " : "", l->only ? l->only : "");
    done = train_all(l, needs) && answer_all(l, only, command);
    if (done && !l->common.quiet) fprintf(stderr, "claims: open %s/index.html\n", l->common.out);
    status = done ? 0 : wrong(l->line);
    ctm_arena_free(&l->memory);
    free(l);
    return args_finish("claims", status);
}
