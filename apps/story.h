/* story.h - the figures of points.c and the page that tells them as one story

   Input: a trained CTM, the data, the measures and the losses. Output, in one folder: up to eight SVG figures, and
   index.html, which contains them all and needs no other file. What can be shown depends on what is known: with an exact
   flow (toys.h) everything; for a table of two columns the samples, the paths and the losses; for other tables the losses.

       story s;
       story_init(&s, &arena, ema, "out");             // then fill in the fields that are known
       if (!story_write(&s)) puts(s.error);

   In the plane of the figures a point x at noise level t is shown as x/sqrt(t² + sigma_data²): at t = 80 a cloud of unit
   size, at t = 0 the data in units of sigma_data. Without this the noise would fill the page and the data one pixel of it.

   Functions are static inline. C99, also C++. */

#ifndef STORY_H
#define STORY_H

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "../ctm.h"
#include "args.h"
#include "measure.h"
#include "plot.h"
#include "train.h"
#include "toys.h"

enum { STORY_FIGURES_MAX = 20 };

typedef struct story_figure { const char *file, *title, *text; } story_figure;      // text is HTML

typedef struct story {
    ctm_arena          *memory;
    ctm_net            *net;              // the CTM, an EMA
    const char         *folder;
    const char         *name;             // of the data: "ring", "geyser.csv"
    const char         *recipe;           // of this model: "points"
    const toy          *data;             // NULL: only the rows are known
    const ctm_denoiser *teacher;          // NULL: none
    size_t              rows;             // data points to show, in standardised units
    const ctm_real     *row;              // [rows,dim]
    const char *const  *column;           // [dim] names
    const double       *mean, *unit;      // [dim] own units = mean + unit·standardised
    const measures     *m;
    const run_losses *losses;
    int                 compare_steps;    // of the two short runs that compare recipes; 0: there were none
    double              recipe_rms[2][MEASURE_CHAINS];   // flow_rms of chains: the paper's recipe, ours for points
    uint64_t            seed;
    const char         *command;          // what to type to get this page again
    const char         *settings;         // one line
    int                 figures;
    story_figure        figure[STORY_FIGURES_MAX];
    char                error[512];
} story;

static inline void story_init(story *s, ctm_arena *memory, ctm_net *net, const char *folder) {
    memset(s, 0, sizeof *s);
    s->memory = memory;
    s->net = net;
    s->folder = folder;
}

// ---- Small parts -------------------------------------------------------------------------------------------------------

#define STORY_SIGMA "\xCF\x83"             // UTF-8, written out for compilers with other source character sets
#define STORY_GAMMA "\xCE\xB3"
#define STORY_LAMBDA_SIGN "\xCE\xBB"
#define STORY_ROOT  "\xE2\x88\x9A"
#define STORY_SUB1  "\xE2\x82\x81"
#define STORY_SUB2  "\xE2\x82\x82"
#define STORY_SQUARE "\xC2\xB2"
#define STORY_SUB_T "\xE2\x82\x9C"
#define STORY_PLANE(i) "x" i "/" STORY_ROOT "(t" STORY_SQUARE " + " STORY_SIGMA STORY_SQUARE ")"

enum { STORY_SECTORS = 6 };                // colours for the directions of the starting noise

static inline plot *story_open(story *s, const char *file, double w, double h, const char *title) {
    char path[ARGS_PATH];
    if (!args_join(path, sizeof path, s->folder, file)) return NULL;
    return plot_open(path, w, h, title);
}

// Writes a figure and puts it on the list of the page.
static inline int story_close(story *s, plot *p, const char *file, const char *title, const char *text) {
    story_figure *f = &s->figure[s->figures];
    errno = ENOMEM;
    if (!p || plot_close(p) != 0) return args_fail(s->error, sizeof s->error, "cannot write %s/%s: %s", s->folder, file, strerror(errno));
    f->file = file;
    f->title = title;
    f->text = text;
    s->figures++;
    return 1;
}

static inline double story_shrink(const story *s, double t) { return ctm_c_in(&s->net->noise, t); }   // 1/sqrt(t² + sigma_data²)

static inline float *story_floats(story *s, size_t n) { return (float *)ctm_alloc_raw(s->memory, n*sizeof(float)); }

// A column far from zero, such as milliseconds since 1970, is shown from a round number near its mean: figures are made of floats.
static inline void story_near_zero(story *s) {
    double *mean = (double *)ctm_alloc(s->memory, 2*sizeof *mean);
    const char **column = (const char **)ctm_alloc(s->memory, 2*sizeof *column);
    for (int j = 0; j < 2; j++) {
        mean[j] = s->mean[j];
        column[j] = s->column[j];
        if (fabs(mean[j]) > 1e4*s->unit[j]) {
            const size_t room = strlen(column[j]) + ARGS_NUMBER + 8;
            char number[ARGS_NUMBER], *label = (char *)ctm_alloc(s->memory, room);
            double from = 0;
            int digits = 1;
            for (double scale = 100*s->unit[j]; scale < fabs(mean[j]) && digits < 17; scale *= 10) digits++;
            args_real(args_number(number, mean[j], digits), &from);
            snprintf(label, room, "%s %s %s", column[j], from < 0 ? "+" : "\xE2\x88\x92", number + (from < 0));
            mean[j] -= from;
            column[j] = label;
        }
    }
    s->mean = mean;
    s->column = column;
}

// Standardised points to their own units, for plotting.
static inline float *story_own(story *s, size_t n, const ctm_real *x) {
    float *out = story_floats(s, 2*n);
    for (size_t i = 0; i < 2*n; i++) out[i] = (float)(s->mean[i%2] + s->unit[i%2]*(double)x[i]);
    return out;
}

typedef struct story_box { double x0, x1, y0, y1; int flags; } story_box;

// Limits of the plane of the data with some room. Toys: a square.
static inline story_box story_limits(story *s) {
    const float *v = story_own(s, s->rows, s->row);
    double lo[2], hi[2];
    story_box b;
    for (int j = 0; j < 2; j++) {
        lo[j] = hi[j] = (double)v[j];
        for (size_t i = 0; i < s->rows; i++) {
            const double value = (double)v[2*i + (size_t)j];
            if (value < lo[j]) lo[j] = value;
            if (value > hi[j]) hi[j] = value;
        }
        const double room = 0.1*(hi[j] - lo[j]);
        lo[j] -= room;
        hi[j] += room;
    }
    b.x0 = lo[0]; b.x1 = hi[0]; b.y0 = lo[1]; b.y1 = hi[1];
    b.flags = 0;
    if (s->data) {
        double half = hi[0];
        if (-lo[0] > half) half = -lo[0];
        if (hi[1] > half) half = hi[1];
        if (-lo[1] > half) half = -lo[1];
        b.x0 = b.y0 = -half;
        b.x1 = b.y1 = half;
        b.flags |= PLOT_EQUAL;
    }
    return b;
}

// Which sixth of the circle the point lies in.
static inline int story_sector(const ctm_real *x) {
    const int k = (int)(STORY_SECTORS*(atan2((double)x[1], (double)x[0])/(2*TOY_PI) + 0.5));
    return k < 0 ? 0 : k >= STORY_SECTORS ? STORY_SECTORS - 1 : k;
}

// Points coloured by the direction of the noise they started from.
static inline void story_points_by_noise(story *s, plot *p, size_t n, const float *xy, const ctm_real *noise, double radius) {
    const ctm_mark mark = ctm_arena_mark(s->memory);
    float *part = story_floats(s, 2*n);
    for (int k = 0; k < STORY_SECTORS; k++) {
        int count = 0;
        for (size_t i = 0; i < n; i++)
            if (story_sector(noise + 2*i) == k) {
                part[2*count] = xy[2*i];
                part[2*count + 1] = xy[2*i + 1];
                count++;
            }
        plot_points(p, count, part, 2, plot_color(k), radius, 0.75);
    }
    ctm_arena_release(s->memory, mark);
}

// ---- Sampling for figures ----------------------------------------------------------------------------------------------

// A tape for a few network calls; story_tape_end gives its memory back.
typedef struct story_tape { ctm_arena arena; ctm_tape tape; } story_tape;

static inline ctm_tape *story_tape_begin(story *s, story_tape *t) {
    ctm_arena_init(&t->arena, s->memory->ctx, "figure");
    ctm_tape_init(&t->tape, s->memory->ctx, &t->arena);
    t->tape.recording = 0;
    return &t->tape;
}
static inline void story_tape_end(story_tape *t) { ctm_arena_free(&t->arena); }

static inline ctm_tensor *story_tensor(ctm_tape *tp, size_t n, const ctm_real *x) {
    ctm_tensor *v = ctm_matrix(tp, "x", (int)n, 2);
    memcpy(v->data, x, v->len*sizeof(ctm_real));
    return v;
}

static inline ctm_real *story_noise(story *s, size_t n) {
    ctm_real *x = measure__reals(s->memory, 2*n);
    measure_noise(s->seed, s->net->noise.sigma_max, n, 2, x);
    return x;
}

// Samples of n starting noises: `jumps` jumps with the given gamma.
static inline ctm_real *story_samples(story *s, size_t n, const ctm_real *noise, int jumps, double gamma) {
    const ctm_rng rng = ctm_stream(s->seed, "story gamma");
    ctm_real *x = measure__reals(s->memory, 2*n);
    memcpy(x, noise, 2*n*sizeof *x);
    ctm_sample_points(s->net, x, (int)n, jumps, gamma, &rng);
    return x;
}

// G(x,t,s) of n points that share t and s.
static inline ctm_real *story_jump(story *s, size_t n, const ctm_real *x, double t, double to) {
    ctm_real *out = measure__reals(s->memory, 2*n);
    story_tape scratch;
    ctm_tape *tp = story_tape_begin(s, &scratch);
    ctm_tensor *tt = ctm_fill(ctm_vector(tp, "t", (int)n), t), *ts = ctm_fill(ctm_vector(tp, "s", (int)n), to);
    const ctm_tensor *y = ctm_G_theta(tp, s->net, story_tensor(tp, n, x), tt, ts);
    memcpy(out, y->data, y->len*sizeof(ctm_real));
    story_tape_end(&scratch);
    return out;
}

// Paths of the flow through k decreasing levels, out [k,n,2]: the exact flow where it is known; otherwise one Heun step from
// each level to the next, with the teacher's denoiser, or the CTM's own if it had no teacher.
static inline double *story_paths(story *s, size_t n, const ctm_real *x, int k, const double *level) {
    double *out = (double *)ctm_alloc(s->memory, (size_t)k*2*n*sizeof(double));
    if (s->data) {
        measure_flow(s->memory, s->data->denoiser, n, x, level[0], k - 1, level + 1, 1e-6, out + 2*n);
        for (size_t i = 0; i < 2*n; i++) out[i] = (double)x[i];
        return out;
    }
    story_tape scratch;
    ctm_tape *tp = story_tape_begin(s, &scratch);
    const ctm_denoiser *D = s->teacher ? s->teacher : ctm_net_denoiser(tp->arena, s->net);
    ctm_tensor *at = story_tensor(tp, n, x);
    for (int j = 0; j < k; j++) {
        for (size_t i = 0; i < 2*n; i++) out[(size_t)j*2*n + i] = (double)at->data[i];
        if (j + 1 < k) at = ctm_sample_heun(tp, D, at, 1, level + j);
    }
    story_tape_end(&scratch);
    return out;
}

// ---- Figure: samples ---------------------------------------------------------------------------------------------------

static inline void story_samples_panel(story *s, plot *p, int i, const char *title, story_box b) {
    const int left = i%4 == 0, bottom = i >= 8;
    if (!left) b.flags |= PLOT_NOYTICKS;
    if (!bottom) b.flags |= PLOT_NOXTICKS;
    plot_grid_panel(p, 3, 4, i, title);
    plot_axes(p, b.x0, b.x1, b.y0, b.y1, bottom ? s->column[0] : NULL, left ? s->column[1] : NULL, b.flags);
}

// The left column: the data, what the flow makes of the noise, and one jump. Then 2, 4, 8 jumps for three values of gamma.
static inline int story_samples_figure(story *s) {
    enum { N = 900 };
    static const double gammas[3] = {0, 0.5, 1};
    static const int jumps[3] = {2, 4, 8};
    const ctm_mark mark = ctm_arena_mark(s->memory);
    const story_box b = story_limits(s);
    const ctm_real *noise = story_noise(s, N);
    const size_t shown = s->rows < (size_t)N ? s->rows : (size_t)N;
    double ends[2];
    char title[64], number[ARGS_NUMBER];
    plot *p = story_open(s, "samples.svg", 1200, 1000, "Data and samples, coloured by the direction of the starting noise");
    plot_margins(p, 56, 4, 32, 46);

    story_samples_panel(s, p, 0, "data", b);
    plot_points(p, (int)shown, story_own(s, shown, s->row), 2, PLOT_INK, 1.3, 0.6);

    ends[0] = s->net->noise.sigma_max;
    ends[1] = s->net->noise.sigma_min;
    if (s->data || s->teacher) {
        ctm_real *flow = measure__reals(s->memory, 2*(size_t)N);
        if (s->data) {
            const double *exact = story_paths(s, N, noise, 2, ends);
            for (size_t i = 0; i < 2*N; i++) flow[i] = (ctm_real)exact[2*N + i];
        } else measure_teacher(s->memory->ctx, s->teacher, &s->net->noise, 8, N, noise, flow);
        story_samples_panel(s, p, 4, s->data ? "exact flow of the noise" : "teacher's flow of the noise", b);
        story_points_by_noise(s, p, N, story_own(s, N, flow), noise, 1.3);
    }
    story_samples_panel(s, p, 8, "1 jump (any " STORY_GAMMA ")", b);
    story_points_by_noise(s, p, N, story_own(s, N, story_samples(s, N, noise, 1, 0)), noise, 1.3);

    for (int row = 0; row < 3; row++)
        for (int c = 0; c < 3; c++) {
            snprintf(title, sizeof title, "%d jumps, " STORY_GAMMA " = %s", jumps[c], args_number(number, gammas[row], 6));
            story_samples_panel(s, p, 4*row + c + 1, title, b);
            story_points_by_noise(s, p, N, story_own(s, N, story_samples(s, N, noise, jumps[c], gammas[row])), noise, 1.3);
        }
    ctm_arena_release(s->memory, mark);
    return story_close(s, p, "samples.svg", "Data and samples",
        "Every panel starts from the same 900 noises; a sample has the colour of the direction its noise came from. "
        "One jump, <i>G</i>(<i>x<sub>T</sub></i>, <i>T</i>, 0), already gives the data's shape with the colours where the flow puts them. "
        "With <i>&gamma;</i> = 0 more jumps follow the same path, so the colours stay; with <i>&gamma;</i> &gt; 0 each jump goes to "
        "&radic;(1&minus;&gamma;&sup2;)&middot;<i>t&prime;</i> and fresh noise <i>&gamma;t&prime;</i> is added: the same cloud, but it forgets where it started.");
}

// ---- Figure: the flow and the jumps ------------------------------------------------------------------------------------

enum { STORY_PATHS = 24, STORY_LEVELS = 140 };

// Levels from sigma_max to sigma_min, equally far apart in ln t.
static inline void story_log_levels(const ctm_noise *z, int k, double *level) {
    for (int j = 0; j < k; j++) level[j] = z->sigma_max*pow(z->sigma_min/z->sigma_max, j/(k - 1.0));
    level[k - 1] = z->sigma_min;
}

// Path i in the plane: thin lines.
static inline void story_draw_paths(story *s, plot *p, const double *path, const double *level, double opacity) {
    double x[STORY_LEVELS], y[STORY_LEVELS];
    for (int i = 0; i < STORY_PATHS; i++) {
        for (int j = 0; j < STORY_LEVELS; j++) {
            const double *at = path + (size_t)(j*STORY_PATHS + i)*2;
            x[j] = at[0]*story_shrink(s, level[j]);
            y[j] = at[1]*story_shrink(s, level[j]);
        }
        plot_line(p, STORY_LEVELS, x, y, PLOT_INK, 1.5, 0, opacity);
    }
}

static inline void story_draw_marks(story *s, plot *p, const ctm_real *x, double t, const char *color, double size) {
    for (int i = 0; i < STORY_PATHS; i++) {
        const double px = (double)x[2*i]*story_shrink(s, t), py = (double)x[2*i + 1]*story_shrink(s, t);
        plot_marks(p, 1, &px, &py, PLOT_CIRCLE, color, size);
    }
}

// Half the side of a square that holds the starting points and the ends.
static inline double story_reach(story *s, const double *path, const double *level) {
    double half = 1.5;
    for (int j = 0; j < STORY_LEVELS; j += STORY_LEVELS - 1)
        for (int i = 0; i < 2*STORY_PATHS; i++) half = fmax(half, 1.1*fabs(path[(size_t)j*2*STORY_PATHS + (size_t)i])*story_shrink(s, level[j]));
    return half;
}

// From the starting noises straight to every level of the grid: each mark is one evaluation.
static inline void story_fan_panel(story *s, plot *p, const ctm_real *noise, const double *path, const double *level) {
    const double half = story_reach(s, path, level);
    const ctm_noise *z = &s->net->noise;
    plot_panel(p, 75, 80, 490, 490, "from T = 80 straight to every level");
    plot_axes(p, -half, half, -half, half, STORY_PLANE(STORY_SUB1), STORY_PLANE(STORY_SUB2), PLOT_EQUAL);
    story_draw_paths(s, p, path, level, 0.55);
    for (int j = 1; j < z->N; j++) {
        const double to = ctm_t_of_index(z, j);
        story_draw_marks(s, p, story_jump(s, STORY_PATHS, noise, z->sigma_max, to), to, plot_color(j == z->N - 1), j == z->N - 1 ? 9 : 6);
    }
    plot_legend_add(p, PLOT_LINE, PLOT_INK, s->data ? "exact flow" : s->teacher ? "teacher's flow" : "flow of g(x,t,t)");
    plot_legend_add(p, PLOT_CIRCLE, plot_color(0), "G(x, 80, s)");
    plot_legend_add(p, PLOT_CIRCLE, plot_color(1), "G(x, 80, 0)");
}

// Four jumps, each from where the last one landed.
static inline void story_chain_panel(story *s, plot *p, const ctm_real *noise, const double *path, const double *level) {
    const double half = story_reach(s, path, level);
    double ts[5];
    const ctm_real *x = noise;
    ctm_karras_times(&s->net->noise, 5, ts);
    plot_panel(p, 685, 80, 490, 490, "a chain of four jumps");
    plot_axes(p, -half, half, -half, half, STORY_PLANE(STORY_SUB1), STORY_PLANE(STORY_SUB2), PLOT_EQUAL);
    story_draw_paths(s, p, path, level, 0.55);
    for (int j = 0; j < 4; j++) {
        const ctm_real *next = story_jump(s, STORY_PATHS, x, ts[j], ts[j + 1]);
        const double a = story_shrink(s, ts[j]), b = story_shrink(s, ts[j + 1]);
        for (int i = 0; i < STORY_PATHS; i++)
            plot_arrow(p, a*(double)x[2*i], a*(double)x[2*i + 1], b*(double)next[2*i], b*(double)next[2*i + 1], plot_color(j), 1.4, 0.95);
        x = next;
    }
    for (int j = 0; j < 4; j++) {
        char label[64], number[2][ARGS_NUMBER];
        snprintf(label, sizeof label, "%s to %s", args_number(number[0], ts[j], 3), args_number(number[1], ts[j + 1], 3));
        plot_legend_add(p, PLOT_LINE, plot_color(j), label);
    }
}

// The first coordinate against the noise level.
static inline void story_time_panel(story *s, plot *p, const ctm_real *noise, const double *path, const double *level) {
    enum { SHOWN = 10 };
    const ctm_noise *z = &s->net->noise;
    const double half = story_reach(s, path, level);
    double y[STORY_LEVELS];
    plot_panel(p, 75, 660, 1100, 270, "the same paths over the noise level (ten of them)");
    plot_axes(p, z->sigma_max*1.15, z->sigma_min/1.15, -half, half, "noise level t (data's units), running down", STORY_PLANE(STORY_SUB1), PLOT_LOGX);
    for (int i = 0; i < SHOWN; i++) {
        for (int j = 0; j < STORY_LEVELS; j++) y[j] = path[(size_t)(j*STORY_PATHS + i)*2]*story_shrink(s, level[j]);
        plot_line(p, STORY_LEVELS, level, y, PLOT_INK, 1.1, 0, 0.55);
    }
    for (int j = 1; j < z->N; j++) {
        const double to = ctm_t_of_index(z, j);
        const ctm_real *x = story_jump(s, SHOWN, noise, z->sigma_max, to);
        for (int i = 0; i < SHOWN; i++) {
            const double v = (double)x[2*i]*story_shrink(s, to);
            plot_marks(p, 1, &to, &v, PLOT_CIRCLE, plot_color(j == z->N - 1), 6);
        }
    }
}

static inline int story_flow_figure(story *s) {
    const ctm_mark mark = ctm_arena_mark(s->memory);
    const ctm_real *noise = story_noise(s, STORY_PATHS);
    double level[STORY_LEVELS], *path;
    plot *p = story_open(s, "flow.svg", 1200, 1000, "Paths of the flow and the jumps that were learned");
    story_log_levels(&s->net->noise, STORY_LEVELS, level);
    path = story_paths(s, STORY_PATHS, noise, STORY_LEVELS, level);
    story_fan_panel(s, p, noise, path, level);
    story_chain_panel(s, p, noise, path, level);
    story_time_panel(s, p, noise, path, level);
    ctm_arena_release(s->memory, mark);
    return story_close(s, p, "flow.svg", "The flow, and jumps along it",
        "Thin lines: solutions of <i>dx/dt</i> = (<i>x</i> &minus; <i>D</i>(<i>x,t</i>))/<i>t</i> from <i>t</i> = 80 to 0.002, drawn as "
        "<i>x</i>/&radic;(<i>t</i>&sup2; + &sigma;&sup2;), &sigma; = 0.5 the data's, so that noise and data have the same size. Each dot is <em>one</em> evaluation of the network: "
        "<i>G</i>(<i>x<sub>T</sub>, T, s</i>) should lie on the path of its <i>x<sub>T</sub></i>, wherever <i>s</i> is. "
        "Right: four jumps in a row, <i>&gamma;</i> = 0; every arrow ends on the path again. Where the noise is strong a path hardly "
        "moves in these coordinates; the decisions between the parts of the data fall between <i>t</i> = 3 and 0.1, where the paths bend.");
}

// ---- Figure: the error over the triangle t > s -------------------------------------------------------------------------

enum { STORY_RASTER = 150 };

// Index of the grid level nearest to t on the logarithmic scale.
static inline int story_nearest(const double *level, double t) {
    int best = 0;
    for (int i = 1; i < MEASURE_LEVELS; i++)
        if (fabs(log(level[i]/t)) < fabs(log(level[best]/t))) best = i;
    return best;
}

static inline void story_triangle_panel(story *s, plot *p) {
    const double lo = s->net->noise.sigma_min/1.6, hi = s->net->noise.sigma_max*1.2;
    double *v = measure__doubles(s->memory, (size_t)STORY_RASTER*STORY_RASTER);
    int index[STORY_RASTER];
    for (int i = 0; i < STORY_RASTER; i++) index[i] = story_nearest(s->m->level, lo*pow(hi/lo, (i + 0.5)/STORY_RASTER));
    for (int y = 0; y < STORY_RASTER; y++)
        for (int x = 0; x < STORY_RASTER; x++) {
            const int t = index[x], to = index[y];
            v[y*STORY_RASTER + x] = to > t ? s->m->grid_rms[t*MEASURE_LEVELS + to] : PLOT_MISSING;
        }
    plot_panel(p, 75, 85, 440, 440, "RMS error of G(x, t, s)");
    plot_axes(p, lo, hi, lo, hi, "t: level of departure", "s: level of arrival", PLOT_LOGX | PLOT_LOGY);
    plot_heat(p, STORY_RASTER, STORY_RASTER, v, 0, 0, PLOT_LOGCOLOR, "RMS error / " STORY_SIGMA " of the data");
}

static inline void story_slices_panel(story *s, plot *p) {
    const measures *m = s->m;
    double to_end[MEASURE_LEVELS], one_step[MEASURE_LEVELS], lo = 1, hi = 1e-4;
    for (int i = 0; i + 1 < MEASURE_LEVELS; i++) {
        to_end[i] = m->grid_rms[i*MEASURE_LEVELS + MEASURE_LEVELS - 1];
        one_step[i] = m->grid_rms[i*MEASURE_LEVELS + i + 1];
        lo = fmin(lo, fmin(to_end[i], one_step[i]));
        hi = fmax(hi, fmax(to_end[i], m->denoiser_at[i]));
    }
    plot_panel(p, 715, 85, 455, 440, "three edges of it");
    plot_axes(p, s->net->noise.sigma_min/1.6, s->net->noise.sigma_max*1.2, fmax(lo/9, 1e-6), 2*hi, "noise level t", "RMS error / " STORY_SIGMA " of the data",
              PLOT_LOGX | PLOT_LOGY);
    plot_line(p, MEASURE_LEVELS - 1, m->level, to_end, plot_color(0), 2, 0, 1);
    plot_line(p, MEASURE_LEVELS - 1, m->level, one_step, plot_color(1), 2, 0, 1);
    plot_line(p, MEASURE_LEVELS, m->level, m->denoiser_at, plot_color(2), 2, 5, 1);
    plot_legend_place(p, PLOT_BOTTOMRIGHT);
    plot_legend_add(p, PLOT_LINE, plot_color(0), "to the end: s = 0.002");
    plot_legend_add(p, PLOT_LINE, plot_color(1), "one grid step");
    plot_legend_add(p, PLOT_DASH, plot_color(2), "no step: g(x,t,t) against D(x,t)");
}

static inline int story_triangle_figure(story *s) {
    const ctm_mark mark = ctm_arena_mark(s->memory);
    plot *p = story_open(s, "triangle.svg", 1200, 590, "How far each jump misses the exact flow");
    story_triangle_panel(s, p);
    story_slices_panel(s, p);
    ctm_arena_release(s->memory, mark);
    return story_close(s, p, "triangle.svg", "Every jump at once",
        "A consistency trajectory model is a function on the triangle <i>t</i> &gt; <i>s</i>. Each cell is the RMS distance of "
        "<i>G</i>(<i>x<sub>t</sub>,t,s</i>) from the exact flow, over 2000 noised data, in units of the data's standard deviation. The bottom row is the "
        "consistency model (<i>s</i> = 0); at the diagonal <i>G</i> is the identity, and what is left of the network there, "
        "<i>g</i>(<i>x,t,t</i>), is the denoiser. Long jumps across <i>t</i> &asymp; 1 are the hard ones: points near a border between parts of the data must choose a side.");
}

// ---- Figure: score and density -----------------------------------------------------------------------------------------

enum { STORY_CELLS = 40, STORY_ARROWS = 11 };

typedef struct story_density { story *s; const ctm_real *x; ctm_noise z; double *logp; } story_density;

static inline void story_density_row(void *arg, int row) {             // one row of cells, on one thread
    const story_density *d = (const story_density *)arg;
    const size_t first = (size_t)row*STORY_CELLS;
    story_tape scratch;
    ctm_tape *tp = story_tape_begin(d->s, &scratch);
    const ctm_denoiser *D = ctm_net_denoiser(tp->arena, ctm_net_view(tp->arena, d->s->net, 0));
    ctm_likelihood how = ctm_likelihood_default();
    how.steps = 40;
    how.prior_var = d->z.sigma_data*d->z.sigma_data;
    ctm_loglik(tp, D, &d->z, &how, STORY_CELLS, d->x + 2*first, d->logp + first);
    story_tape_end(&scratch);
}

// ln p_t of the model on a grid of cells: the ODE is integrated from t instead of sigma_min up to sigma_max.
static inline void story_model_density(story *s, double t, const ctm_real *x, double *logp) {
    story_density d;
    d.s = s; d.x = x; d.z = s->net->noise; d.logp = logp;
    d.z.sigma_min = t;
    ctm_parallel_for(s->memory->ctx, STORY_CELLS, story_density_row, &d);
}

// Centres of n x n cells of the square [-half,half]².
static inline ctm_real *story_cells(story *s, int n, double half) {
    ctm_real *x = measure__reals(s->memory, 2*(size_t)n*(size_t)n);
    for (int k = 0; k < n*n; k++) {
        x[2*k]     = (ctm_real)(half*((k%n + 0.5)*2/n - 1));
        x[2*k + 1] = (ctm_real)(half*((k/n + 0.5)*2/n - 1));
    }
    return x;
}

// t²·score = D(x,t) - x on the arrow grid, from the exact denoiser or from the CTM at s = t.
static inline double *story_pull(story *s, double t, double half, int exact) {
    enum { N = STORY_ARROWS*STORY_ARROWS };
    const ctm_real *x = story_cells(s, STORY_ARROWS, half);
    double *out = measure__doubles(s->memory, 2*N);
    story_tape scratch;
    ctm_tape *tp = story_tape_begin(s, &scratch);
    const ctm_tensor *D = ctm_D_theta(tp, s->net, story_tensor(tp, N, x), ctm_fill(ctm_vector(tp, "t", N), t));
    for (int k = 0; k < N; k++) {
        double point[2], d[2];
        point[0] = (double)x[2*k]; point[1] = (double)x[2*k + 1];
        d[0] = (double)D->data[2*k]; d[1] = (double)D->data[2*k + 1];
        if (exact) s->data->denoiser->exact(s->data->denoiser, point, t, d);
        out[2*k] = d[0] - point[0];
        out[2*k + 1] = d[1] - point[1];
    }
    story_tape_end(&scratch);
    return out;
}

static inline void story_score_row(story *s, plot *p, int row, double t) {
    enum { N = STORY_CELLS*STORY_CELLS };
    const story_box b = story_limits(s);
    const double half = b.x1 + 0.5*t;
    const ctm_real *x = story_cells(s, STORY_CELLS, half);
    double *exact = measure__doubles(s->memory, N), *model = measure__doubles(s->memory, N), *gap = measure__doubles(s->memory, N);
    double top = 0, widest = 0;
    char title[3][80], number[ARGS_NUMBER];
    for (int k = 0; k < N; k++) {
        double point[2];
        point[0] = (double)x[2*k]; point[1] = (double)x[2*k + 1];
        exact[k] = exp(s->data->denoiser->log_density(s->data->denoiser, point, t));
        if (exact[k] > top) top = exact[k];
    }
    story_model_density(s, t, x, model);
    for (int k = 0; k < N; k++) {
        gap[k] = exact[k] > 0.01*top ? model[k] - log(exact[k]) : PLOT_MISSING;
        if (gap[k] < PLOT_MISSING && fabs(gap[k]) > widest) widest = fabs(gap[k]);
        model[k] = exp(model[k]);
    }
    args_number(number, t, 6);
    snprintf(title[0], sizeof title[0], "exact, t = %s", number);
    snprintf(title[1], sizeof title[1], "learned, t = %s", number);
    snprintf(title[2], sizeof title[2], "ln(learned/exact), t = %s", number);
    for (int c = 0; c < 3; c++) {
        const double *v = c == 0 ? exact : c == 1 ? model : gap;
        plot_grid_panel(p, 2, 3, 3*row + c, title[c]);
        plot_axes(p, -half, half, -half, half, row ? s->column[0] : NULL, c ? NULL : s->column[1], PLOT_EQUAL | PLOT_NOTICKS);
        if (c < 2) plot_heat(p, STORY_CELLS, STORY_CELLS, v, 0, top, 0, "");
        else       plot_heat(p, STORY_CELLS, STORY_CELLS, v, -widest, widest, PLOT_DIVERGING, "");
        if (c < 2) plot_field(p, STORY_ARROWS, STORY_ARROWS, story_pull(s, t, half, c == 0), 1.2, "#fff", 1.2, 0.85);
    }
}

static inline int story_score_figure(story *s) {
    const ctm_mark mark = ctm_arena_mark(s->memory);
    plot *p = story_open(s, "score.svg", 1200, 790, "The density and the score at two noise levels");
    plot_layout(p, PLOT_NOTICKS | PLOT_COLORBAR);
    plot_margins(p, 30, 72, 32, 28);
    story_score_row(s, p, 0, 0.25);
    story_score_row(s, p, 1, 0.1);
    ctm_arena_release(s->memory, mark);
    return story_close(s, p, "score.svg", "Score and density",
        "The same network, asked with <i>s</i> = <i>t</i>, is a denoiser: the arrows are <i>g</i>(<i>x,t,t</i>) &minus; <i>x</i> = "
        "<i>t</i>&sup2;&middot;&nabla; ln <i>p<sub>t</sub></i>(<i>x</i>). Integrating the divergence of its flow up to <i>T</i> gives the density behind them: "
        "ln <i>p<sub>t</sub></i>(<i>x</i>) = ln <i>p<sub>T</sub></i>(<i>x<sub>T</sub></i>) + &int; div <i>f dt</i>. "
        "Right: the difference of the logarithms, where the density is at least a hundredth of its maximum.");
}

// ---- Figure: what the noise does ---------------------------------------------------------------------------------------

enum { STORY_CONTINUATIONS = 350, STORY_CHAIN = 4 };

typedef struct story_watch { story *s; float *cloud[STORY_CHAIN]; double level[STORY_CHAIN]; } story_watch;

static inline int story_watch_jump(void *user, int n, double t, const ctm_tensor *x) {
    story_watch *w = (story_watch *)user;
    const double shrink = story_shrink(w->s, t);
    w->level[n - 1] = t;
    for (size_t i = 0; i < x->len; i++) w->cloud[n - 1][i] = (float)(shrink*(double)x->data[i]);
    return 1;
}

// Four jumps of gamma-sampling, many times from one and the same starting noise.
static inline void story_continue(story *s, const ctm_real *start, double gamma, story_watch *w) {
    const ctm_rng rng = ctm_stream(s->seed, "story continuations");
    double ts[STORY_CHAIN + 1];
    story_tape scratch;
    ctm_tape *tp = story_tape_begin(s, &scratch);
    ctm_sampler how = ctm_sampler_default();
    ctm_tensor *x = ctm_matrix(tp, "x", STORY_CONTINUATIONS, 2);
    for (size_t i = 0; i < x->len; i++) x->data[i] = start[i%2];
    w->s = s;
    for (int j = 0; j < STORY_CHAIN; j++) w->cloud[j] = story_floats(s, 2*STORY_CONTINUATIONS);
    ctm_karras_times(&s->net->noise, STORY_CHAIN + 1, ts);
    how.gamma = gamma;
    how.rng = &rng;
    how.watch = story_watch_jump;
    how.user = w;
    ctm_sample_gamma(tp, ctm_net_jump(tp->arena, s->net), x, STORY_CHAIN, ts, &how);
    story_tape_end(&scratch);
}

static inline int story_gamma_figure(story *s) {
    static const double gammas[4] = {0, 0.3, 0.6, 1};
    enum { SHOWN = 700 };
    const ctm_mark mark = ctm_arena_mark(s->memory);
    const ctm_real *start = story_noise(s, 1);
    const int shown = s->rows < SHOWN ? (int)s->rows : (int)SHOWN;
    float *data = story_floats(s, 2*SHOWN);
    double x0[2], unit = story_shrink(s, s->net->noise.sigma_min), half = 0;
    story_watch w;
    char title[100], number[2][ARGS_NUMBER];
    plot *p = story_open(s, "gamma.svg", 1200, 1190, "One starting noise, 350 continuations: the cloud after each of four jumps");
    plot_layout(p, PLOT_NOTICKS);
    for (int i = 0; i < 2*shown; i++) {
        data[i] = (float)(unit*(double)s->row[i]);
        if (fabs((double)data[i]) > half) half = fabs((double)data[i]);
    }
    half = fmax(1.15*half, 2.6);
    x0[0] = (double)start[0]*story_shrink(s, s->net->noise.sigma_max);
    x0[1] = (double)start[1]*story_shrink(s, s->net->noise.sigma_max);
    for (int c = 0; c < 4; c++) {
        story_continue(s, start, gammas[c], &w);
        for (int j = 0; j < STORY_CHAIN; j++) {
            snprintf(title, sizeof title, STORY_GAMMA " = %s, t = %s", args_number(number[0], gammas[c], 6), args_number(number[1], w.level[j], 3));
            plot_grid_panel(p, STORY_CHAIN, 4, 4*j + c, title);
            plot_axes(p, -half, half, -half, half, j == STORY_CHAIN - 1 ? STORY_PLANE(STORY_SUB1) : NULL, c ? NULL : STORY_PLANE(STORY_SUB2),
                      PLOT_EQUAL | PLOT_NOTICKS);
            plot_points(p, shown, data, 2, PLOT_INK, 0.8, 0.22);
            plot_marks(p, 1, &x0[0], &x0[1], PLOT_CROSS, PLOT_INK, 12);
            plot_points(p, STORY_CONTINUATIONS, w.cloud[j], 2, plot_color(c), c ? 1.4 : 4, 0.85);
            if (c) plot_marks(p, 1, &x0[0], &x0[1], PLOT_CROSS, PLOT_INK, 12);
        }
    }
    ctm_arena_release(s->memory, mark);
    return story_close(s, p, "gamma.svg", "What the noise does",
        "All 350 points of a panel began at the same noise (the cross), and have made 1, 2, 3 and 4 jumps (rows), with more fresh noise from left to right; "
        "grey is the data. <i>&gamma;</i> = 0 adds none and all of them are one point. With <i>&gamma;</i> = 1, the consistency model's sampler, "
        "every jump goes to the end and is noised up again by the whole of <i>t&prime;</i>: after the first jump the start is forgotten, and all parts of the data are reached. "
        "A small <i>&gamma;</i> reaches mostly the neighbours of where the path leads. The grey data stays where it is; the clouds come to it as <i>t</i> falls.");
}

// ---- Figure: equal numbers of evaluations; two recipes -----------------------------------------------------------------

static inline void story_curve(plot *p, const measures *m, const double *v, int color, const char *label) {
    double x[MEASURE_NFES], y[MEASURE_NFES];
    int n = 0;
    for (int i = 0; i < m->nfes; i++)
        if (v[i] > 0) { x[n] = m->nfe[i]; y[n++] = v[i]; }
    if (n == 0) return;
    plot_line(p, n, x, y, plot_color(color), 2, 0, 1);
    plot_marks(p, n, x, y, PLOT_CIRCLE, plot_color(color), 8);
    plot_legend_add(p, PLOT_LINE, plot_color(color), label);
}

static inline int story_nfe_figure(story *s) {
    const measures *m = s->m;
    double lo = 1, hi = 1;
    plot *p = story_open(s, "nfe.svg", 900, 520, "Error at equal numbers of network evaluations");
    for (int i = 0; i < m->nfes; i++) {
        const double v[3] = {m->ctm_rms[i], m->euler_rms[i], m->heun_rms[i]};
        for (int k = 0; k < 3; k++) {
            if (v[k] > 0) lo = fmin(lo, v[k]);
            hi = fmax(hi, v[k]);
        }
    }
    plot_grid_panel(p, 1, 1, 0, NULL);
    plot_axes(p, 0.9, 40, lo/2, fmin(2*hi, 200), "network evaluations per sample", "RMS distance from the exact flow / " STORY_SIGMA " of the data", PLOT_LOGX | PLOT_LOGY);
    story_curve(p, m, m->ctm_rms, 0, "CTM, that many jumps, " STORY_GAMMA " = 0");
    story_curve(p, m, m->heun_rms, 1, "teacher, Heun");
    story_curve(p, m, m->euler_rms, 2, "teacher, Euler");
    return story_close(s, p, "nfe.svg", "The student against its teacher",
        "The teacher needs many small steps, because a straight line is a bad approximation of a bent path; the student was trained on where the path ends. "
        "All three start from the same 10,000 noises. Heun with a handful of steps is worse than Euler: its correction is "
        "evaluated far outside the data at a step this long. The last points are chains of more than 17 jumps, whose levels lie between those of the grid that was practised.");
}

static inline int story_recipes_figure(story *s) {
    static const char *const groups[MEASURE_CHAINS] = {"1 jump", "2", "4", "8", "17 jumps"};
    double bar[3*MEASURE_CHAINS], top = 0;
    char label[3][80];
    plot *p = story_open(s, "recipes.svg", 900, 480, "The paper's recipe and ours for points");
    for (int c = 0; c < MEASURE_CHAINS; c++) {
        char name[48];
        if (c == 0) snprintf(name, sizeof name, "flow_rms_onestep");
        else        snprintf(name, sizeof name, "flow_rms_chain%d", measure_chains()[c]);
        bar[3*c] = s->recipe_rms[0][c];
        bar[3*c + 1] = s->recipe_rms[1][c];
        bar[3*c + 2] = measure_get(s->m, name, 0);
        for (int k = 0; k < 3; k++) top = fmax(top, bar[3*c + k]);
    }
    snprintf(label[0], sizeof label[0], "recipe paper, %d steps", s->compare_steps);
    snprintf(label[1], sizeof label[1], "recipe points, %d steps", s->compare_steps);
    snprintf(label[2], sizeof label[2], "this page's model (recipe %s)", s->recipe);
    plot_grid_panel(p, 1, 1, 0, NULL);
    plot_axes(p, 0, MEASURE_CHAINS, 0, 1.45*top, NULL, "RMS distance from the exact flow / " STORY_SIGMA " of the data", PLOT_NOXTICKS);
    plot_bars(p, MEASURE_CHAINS, 3, bar, groups, 1);
    for (int k = 0; k < 3; k++) plot_legend_add(p, PLOT_BOX, plot_color(1 + k), label[k]);
    plot_legend_place(p, PLOT_TOPLEFT);
    return story_close(s, p, "recipes.svg", "The paper's recipe and ours",
        "Two short runs of equally many steps. <code>paper</code> is the paper's algorithm: <i>t</i>, <i>s</i> and <i>u</i> between them are uniform (soft matching), "
        "the two routes are compared at time zero, and <i>g</i>(<i>x<sub>t</sub>,t,t</i>) is compared with the data. <code>points</code> is our departure from it for points "
        "that have an exact teacher: it practises mostly short jumps with <i>u</i> = <i>s</i>, so that the target is a point of the teacher's solver, compares half at <i>s</i>, "
        "and compares <i>g</i>(<i>x<sub>t</sub>,t,t</i>) with the teacher's denoiser, which has far less noise than the data. Both runs are much shorter than the one that made this page; compare them with each other.");
}

// ---- Figure: the losses ------------------------------------------------------------------------------------------------

static inline void story_loss_panel(story *s, plot *p, int panel, const char *title, const char *ylabel, int n, const int *column,
                                    const char *const *label) {
    const run_losses *l = s->losses;
    double *x = measure__doubles(s->memory, (size_t)l->n), *y = measure__doubles(s->memory, 3*(size_t)l->n), lo = 1e30, hi = 0;
    for (int i = 0; i < l->n; i++) {
        x[i] = l->row[i][RUN_STEP];
        for (int k = 0; k < n; k++) {
            const double v = l->row[i][column[k]];
            y[k*l->n + i] = v;
            if (v > 0 && v < lo) lo = v;
            if (v > hi) hi = v;
        }
    }
    if (!(hi > 0)) lo = hi = 1;
    if (lo < 1e-5*hi) lo = 1e-5*hi;
    plot_grid_panel(p, 1, 2, panel, title);
    plot_axes(p, 0, l->n ? x[l->n - 1] : 1, lo/1.5, hi*4, "training step", ylabel, PLOT_LOGY);
    for (int k = 0; k < n; k++) {
        plot_line(p, l->n, x, y + k*l->n, plot_color(k), 1.4, 0, 0.9);
        plot_legend_add(p, PLOT_LINE, plot_color(k), label[k]);
    }
    if (panel == 1) plot_legend_place(p, PLOT_BOTTOMLEFT);
}

static inline int story_loss_figure(story *s) {
    static const int losses[2] = {RUN_L_CTM, RUN_L_DSM}, others[3] = {RUN_LAMBDA, RUN_LR, RUN_GRAD_NORM};
    static const char *const loss_names[2] = {"L_CTM: the jumps agree", "L_DSM: the denoiser"};
    static const char *const other_names[3] = {STORY_LAMBDA_SIGN ", weight of L_DSM", "learning rate", "norm of the gradient"};
    const ctm_mark mark = ctm_arena_mark(s->memory);
    plot *p = story_open(s, "loss.svg", 1200, 440, "Training");
    story_loss_panel(s, p, 0, "losses", "loss", 2, losses, loss_names);
    story_loss_panel(s, p, 1, "what steers them", "value", 3, others, other_names);
    ctm_arena_release(s->memory, mark);
    return story_close(s, p, "loss.svg", "The losses",
        "<i>L</i><sub>CTM</sub> = <i>d</i>(<i>G</i>(<i>x<sub>t</sub>,t,s</i>), <i>G</i>(Solver(<i>x<sub>t</sub>,t,u</i>),<i>u,s</i>)) compares two ways to the same place; "
        "<i>L</i><sub>DSM</sub> = <i>w</i>(<i>t</i>)&middot;|<i>g</i>(<i>x<sub>t</sub>,t,t</i>) &minus; target|&sup2; holds the diagonal; they are added with weight &lambda;. "
        "Values are means over the steps between two points. A loss curve tells that training runs, not how good the samples are: both targets move. For that there are the measures.");
}

// ---- The page ----------------------------------------------------------------------------------------------------------

static inline void story_escape(FILE *f, const char *text) {
    char buf[8];
    for (int n; *text; text += n) fputs(plot_markup(text, &n, buf), f);
}

// One line about a measure, by the beginning of its name.
static inline const char *story_meaning(const char *name) {
    static const char *const table[][2] = {
        {"flow_rms_grid", "RMS error of jumps between all pairs of the 18 levels, from noised data"},
        {"flow_rms_onestep_vs", "one jump against the teacher's own discrete map"},
        {"flow_rms_onestep", "RMS error of one jump, 80 to 0.002, against the exact flow of the same noise; unit: the data's standard deviation"},
        {"flow_median_onestep", "median over points of the same"},
        {"flow_p99_onestep", "99th percentile over points of the same"},
        {"flow_rms_chain", "RMS error after that many jumps with gamma 0"},
        {"flow_median_chain", "median over points of the same"},
        {"flow_p99_chain", "99th percentile over points of the same"},
        {"teacher_rms_onestep", "the teacher's discrete map against the exact flow: no student is better than this by design"},
        {"teacher_rms_vs_fine", "the teacher's map with the training's solver steps against one with 16 a grid interval"},
        {"denoiser_rms", "g(x,t,t) against the exact denoiser, over all levels"},
        {"sw2_ratio_nfe", "sliced Wasserstein-2 distance of samples to fresh data, over that of a perfect sampler"},
        {"off_support_exact", "share of perfect samples further than 4 standard deviations from every part of the data"},
        {"off_support_nfe", "share of samples further than 4 standard deviations from every part of the data"},
        {"nll_gap", "mean of exact minus model log-density, nats a point"},
        {"nll_held_out", "minus the mean log-density of held-out rows (standardised units), nats a row"},
        {"train_seconds", "seconds spent on training"},
        {"steps_per_second", "training steps a second"},
        {"rows_", "rows of the table"}};
    for (size_t i = 0; i < sizeof table/sizeof table[0]; i++)
        if (strncmp(name, table[i][0], strlen(table[i][0])) == 0) return table[i][1];
    return "";
}

static inline void story_measures_table(const story *s, FILE *f) {
    fputs("<section><h2>The measures</h2>\n<p>All of <code>metrics.csv</code>.</p>\n<div class='wide'><table>\n", f);
    for (int i = 0; i < s->m->n; i++) {
        char number[ARGS_NUMBER];
        fprintf(f, "<tr><td><code>%s</code></td><td class='n'>%s</td><td>%s</td></tr>\n", s->m->row[i].name, args_number(number, s->m->row[i].value, 4),
                story_meaning(s->m->row[i].name));
    }
    fputs("</table></div></section>\n", f);
}

// Copies a figure into the page. Its ids are its own (plot.h derives them from the path).
static inline int story_inline(story *s, FILE *f, const char *file) {
    char path[ARGS_PATH], buffer[4096];
    size_t n;
    FILE *in;
    args_join(path, sizeof path, s->folder, file);
    in = ctm_fopen(path, "rb");
    if (!in) return args_fail(s->error, sizeof s->error, "cannot read %s: %s", path, strerror(errno));
    while ((n = fread(buffer, 1, sizeof buffer, in)) > 0) fwrite(buffer, 1, n, f);
    fclose(in);
    return 1;
}

static inline void story_head(const story *s, FILE *f) {
    fputs("<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>\n"
          "<meta name='viewport' content='width=device-width,initial-scale=1'>\n<meta name='color-scheme' content='light dark'>\n<title>", f);
    story_escape(f, s->name);
    fputs(": a consistency trajectory model</title>\n<style>\n"
          "body{margin:0 auto;max-width:68rem;padding:1.5rem 1rem 4rem;font:17px/1.6 system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','DejaVu Sans',sans-serif;"
          "color:#1f2328;background:#fff}\n"
          "h1{font-size:1.9rem;line-height:1.25;margin:.5rem 0 1rem}h2{font-size:1.3rem;margin:2.8rem 0 .6rem}\n"
          "p,pre{max-width:46rem}.wide{overflow-x:auto}svg.plot{width:100%;height:auto;display:block}\n"
          "pre,code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:.87em}\n"
          "pre{background:#f3f5f7;padding:.8rem 1rem;border-radius:6px;white-space:pre-wrap}\n"
          "table{border-collapse:collapse;font-size:.9rem}td{border-bottom:1px solid #dde2e7;padding:.25rem .9rem .25rem 0;vertical-align:top}\n"
          "td.n{text-align:right;font-variant-numeric:tabular-nums}a{color:#2459c7}\n"
          ".key{display:flex;flex-wrap:wrap;gap:.6rem 2.4rem;padding:0;margin:1.2rem 0;list-style:none}.key b{display:block;font-size:1.45rem;line-height:1.3}\n"
          "@media (prefers-color-scheme:dark){body{color:#e3e8ee;background:#10151c}pre{background:#1a212b}td{border-color:#2c3642}a{color:#8fb4ff}}\n"
          "</style></head><body>\n", f);
}

static inline void story_key_number(const story *s, FILE *f, const char *name, double factor, int decimals, const char *sign, const char *text) {
    const double v = measure_get(s->m, name, -1e9);
    char number[ARGS_NUMBER];
    if (v <= -1e9) return;
    plot_fixed(number, factor*v, decimals, 0, "-");
    fprintf(f, "<li><b>%s%s</b>%s</li>\n", number, sign, text);
}

static inline void story_opening(const story *s, FILE *f) {
    unsigned long weights = 0;
    for (int i = 0; i < s->net->count; i++) weights += (unsigned long)s->net->param[i]->len;
    fputs("<h1>From noise to data in one jump: ", f);
    story_escape(f, s->name);
    fputs("</h1>\n"
          "<p>Add Gaussian noise of standard deviation <i>t</i> to data until nothing is left of them at <i>t</i> = 80. A diffusion model knows the way back: the denoiser "
          "<i>D</i>(<i>x,t</i>) = E[<i>x</i><sub>0</sub> | <i>x<sub>t</sub></i> = <i>x</i>] defines a flow <i>dx/dt</i> = (<i>x</i> &minus; <i>D</i>)/<i>t</i> from noise to data, "
          "which takes dozens of small steps to follow. A <em>consistency trajectory model</em> learns the solution of that flow: one network "
          "<i>G</i>(<i>x,t,s</i>) = (<i>s/t</i>)&middot;<i>x</i> + (1 &minus; <i>s/t</i>)&middot;<i>g</i>(<i>x,t,s</i>) that jumps from any level <i>t</i> to any lower level <i>s</i>. "
          "This page shows one such network, ", f);
    fprintf(f, "%lu weights in all, trained by the recipe <code>", weights);
    story_escape(f, s->recipe);
    fputs("</code>, and how well it does.</p>\n<ul class='key'>\n", f);
    story_key_number(s, f, "flow_rms_onestep", 1, 4, "", "RMS error of one jump");
    story_key_number(s, f, "flow_median_onestep", 1, 4, "", "median error of one jump");
    story_key_number(s, f, "flow_rms_chain17", 1, 4, "", "RMS error of 17 jumps");
    story_key_number(s, f, "off_support_nfe1", 100, 2, "&thinsp;%", "samples off every part of the data");
    story_key_number(s, f, "nll_gap", 1, 4, "", "nats lost in likelihood");
    story_key_number(s, f, "sw2_ratio_nfe1", 1, 2, "", "distance to data over that of perfect samples");
    story_key_number(s, f, "train_seconds", 1, 0, "&thinsp;s", "of training");
    fputs("</ul>\n", f);
}

static inline void story_closing(const story *s, FILE *f) {
    fputs("<section><h2>To get this page again</h2>\n<pre>", f);
    story_escape(f, s->command);
    fputs("</pre>\n<p>", f);
    story_escape(f, s->settings);
    fputs(". The numbers behind the pictures: <a href='metrics.csv'>metrics.csv</a>, <a href='loss.csv'>loss.csv</a>, <a href='samples.csv'>samples.csv</a>; "
          "the network: <a href='model.safetensors'>model.safetensors</a>.</p></section>\n</body></html>\n", f);
}

static inline int story_page(story *s) {
    char path[ARGS_PATH];
    ctm_output page;
    FILE *f;
    args_join(path, sizeof path, s->folder, "index.html");
    f = args_open_atomic(&page, path, s->error, sizeof s->error);
    if (!f) return 0;
    story_head(s, f);
    story_opening(s, f);
    for (int i = 0; i < s->figures; i++) {
        fprintf(f, "<section><h2>%s</h2>\n<div class='wide'>\n", s->figure[i].title);
        if (!story_inline(s, f, s->figure[i].file)) { ctm_output_drop(&page); return 0; }
        fprintf(f, "</div>\n<p>%s <a href='%s'>(figure alone)</a></p></section>\n", s->figure[i].text, s->figure[i].file);
    }
    story_measures_table(s, f);
    story_closing(s, f);
    return args_close_atomic(&page, s->error, sizeof s->error);
}

// All figures that can be drawn, then the page. 1, or 0 with a line in s->error.
static inline int story_write(story *s) {
    const int plane = s->net->dim == 2, known = s->data != NULL;
    s->figures = 0;
    if (plane) story_near_zero(s);
    if (plane && !story_samples_figure(s)) return 0;
    if (plane && !story_flow_figure(s)) return 0;
    if (known && !story_triangle_figure(s)) return 0;
    if (known && !story_score_figure(s)) return 0;
    if (plane && !story_gamma_figure(s)) return 0;
    if (known && s->teacher && s->m->nfes > 0 && !story_nfe_figure(s)) return 0;
    if (known && s->compare_steps > 0 && !story_recipes_figure(s)) return 0;
    if (!story_loss_figure(s)) return 0;
    return story_page(s);
}

#endif // STORY_H
