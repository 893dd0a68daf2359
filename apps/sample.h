/* sample.h - samples from trained weights, for points and images alike: the flags of `sample`, levels, recorded noise, one chunk of rows

   Part of the applications of ctm.h, not of ctm.h itself; C99, also C++. */
#ifndef CTM_APPS_SAMPLE_H
#define CTM_APPS_SAMPLE_H

#include "args.h"
#include "../ctm.h"

enum { BY_GAMMA, BY_EXACT, BY_CM, BY_ONESTEP, BY_HEUN, BY_EULER, BY_DPM, BY_ANCESTRAL };

typedef struct sampling {
    ctm_net        *net;
    int             sampler, form;
    long long       nfe;
    double          gamma, guidance;
    int             steps;              // jumps, or solver steps
    double         *ts;                 // [steps+1] levels
    const int      *label;              // of every row; NULL: none
    ctm_rng         rng;                // noise on the way
    size_t          draws, rows;        // or recorded noise [draws,rows,dim]
    const ctm_real *noise;              // NULL: not recorded
} sampling;

#define SAMPLING_OPTIONS(q, guide_with)                                                                                                     \
    {"guidance",   ARGS_REAL,   &(q).guidance, 0, 100, NULL, "with --" guide_with ": 1 the class as learned, more exaggerates it, 0 ignores it"}, \
    {"sampler",    ARGS_CHOICE, &(q).sampler,  0, 0,   "gamma,exact,cm,onestep,heun,euler,dpm,ancestral",                                   \
     "gamma: jumps with --gamma; exact: gamma 0; cm: gamma 1; onestep; the others: small steps along the ODE of the network at s = t"},      \
    {"nfe",        ARGS_INT,    &(q).nfe,      1, 1e6, NULL, "network evaluations per sample (heun: an odd number; dpm: an even one)"},     \
    {"gamma",      ARGS_REAL,   &(q).gamma,    0, 1,   NULL, "share of fresh noise: 0 none, 1 all of it"},                                  \
    {"gamma-form", ARGS_CHOICE, &(q).form,     0, 0,   "paper,authors", "how the level below the next one is chosen"}

static inline sampling sampling_default(void) {
    sampling q;
    memset(&q, 0, sizeof q);
    q.nfe = 1;
    q.guidance = 1;
    return q;
}

static inline int sampling_by_score(const sampling *q) { return q->sampler >= BY_HEUN; }

// What is wrong with these flags, in line; 1: nothing.
static inline int sampling_check(const sampling *q, int argc, char **argv, char *line, size_t size) {
    if (q->sampler == BY_HEUN && q->nfe%2 == 0)
        return args_fail(line, size, "flag --nfe: found %lld, but Heun needs an odd number: two evaluations a step, one for the last", q->nfe);
    if (q->sampler == BY_DPM && q->nfe%2)
        return args_fail(line, size, "flag --nfe: found %lld, but dpm needs an even number: two evaluations a step", q->nfe);
    if (q->sampler == BY_ONESTEP && q->nfe != 1) return args_fail(line, size, "flag --nfe: --sampler onestep takes one evaluation");
    if (q->sampler != BY_GAMMA && args_given("gamma", argc, argv)) return args_fail(line, size, "flag --gamma: goes with --sampler gamma");
    if (args_given("noise", argc, argv) && args_given("n", argc, argv)) return args_fail(line, size, "flags --n and --noise: give one of them");
    return 1;
}

// Karras levels from sigma_max to sigma_min; Heun's go on to 0, where its last step is Euler's.
static inline void sampling_levels(sampling *q, ctm_arena *a) {
    const ctm_noise *z = &q->net->noise;
    q->steps = (int)(q->sampler == BY_HEUN ? (q->nfe + 1)/2 : q->sampler == BY_DPM ? q->nfe/2 : q->nfe);
    q->ts = (double *)ctm_alloc(a, ((size_t)q->steps + 2)*sizeof(double));
    if (q->sampler != BY_HEUN) { ctm_karras_times(z, q->steps + 1, q->ts); return; }
    q->ts[0] = z->sigma_max;
    if (q->steps > 1) ctm_karras_times(z, q->steps, q->ts);
    q->ts[q->steps] = 0;
}

// A sampler for figures: so many network evaluations, no noise on the way.
static inline sampling sampling_of(ctm_arena *a, ctm_net *net, int sampler, int nfe) {
    sampling q = sampling_default();
    q.net = net;
    q.sampler = sampler;
    q.nfe = nfe;
    sampling_levels(&q, a);
    return q;
}

// For this network and this seed: levels, and how often noise is drawn on the way. 0 with a line: it has no s and cannot jump.
static inline int sampling_ready(sampling *q, ctm_arena *a, ctm_net *net, uint64_t seed, const char *weights, char *err, size_t errlen) {
    q->net = net;
    if (!net->with_s && !sampling_by_score(q))
        return args_fail(err, errlen, "%s: is a teacher, a network without s; it cannot jump: use --sampler heun, euler, dpm or ancestral", weights);
    sampling_levels(q, a);
    q->rng = ctm_stream(seed, "sample.gamma");
    q->draws = q->sampler == BY_ANCESTRAL ? (size_t)q->steps : q->sampler == BY_CM || (q->sampler == BY_GAMMA && q->gamma > 0) ? (size_t)q->steps - 1 : 0;
    return 1;
}

// sigma_max times the standard normals of the stream "samples": where samples begin.
static inline ctm_real *sampling_start(ctm_arena *a, uint64_t seed, const ctm_net *net, size_t n) {
    const ctm_rng rng = ctm_stream(seed, "samples");
    const size_t len = n*(size_t)net->dim;
    ctm_real *x = (ctm_real *)ctm_alloc(a, len*sizeof *x);
    ctm_normals(&rng, 0, 0, len, x);
    for (size_t i = 0; i < len; i++) x[i] = (ctm_real)(net->noise.sigma_max*(double)x[i]);
    return x;
}

// The same from recorded noise: all [1 + draws,rows,dim] of unit variance; the first part begins, the others follow on the way.
static inline ctm_real *sampling_recorded(sampling *q, size_t rows, size_t total, ctm_real *all) {
    const size_t dim = (size_t)q->net->dim;
    for (size_t i = 0; i < rows*dim; i++) all[i] = (ctm_real)(q->net->noise.sigma_max*(double)all[i]);
    q->rows = rows;
    q->noise = total > rows ? all + rows*dim : NULL;
    return all;
}

// Recorded noise of some rows: [draws,count,dim].
static inline const ctm_real *sampling_noise(const sampling *q, ctm_arena *a, size_t first, size_t count) {
    const size_t dim = (size_t)q->net->dim;
    ctm_real *out;
    if (!q->noise || !q->draws) return NULL;
    out = (ctm_real *)ctm_alloc(a, q->draws*count*dim*sizeof *out);
    for (size_t j = 0; j < q->draws; j++) memcpy(out + j*count*dim, q->noise + (j*q->rows + first)*dim, count*dim*sizeof *out);
    return out;
}

// Rows first, first + 1, ... of all samples, from x at sigma_max. NULL with a line in ctm_error. (A measure_fn: arg is the sampling.)
static inline ctm_tensor *sampling_chunk(ctm_tape *tp, ctm_tensor *x, size_t first, const void *arg) {
    static const int method[] = {CTM_HEUN, CTM_EULER, CTM_DPM2, CTM_ANCESTRAL};
    const sampling *q = (const sampling *)arg;
    ctm_sampler how = ctm_sampler_default();
    const int labelled = q->net->classes > 0 && q->label != NULL;
    tp->rows.label = q->label ? q->label + first : NULL;
    how.rng = &q->rng;
    how.first_row = first;
    how.noise = sampling_noise(q, tp->arena, first, (size_t)x->shape[0]);
    how.form = q->form ? CTM_FORM_AUTHORS : CTM_FORM_PAPER;
    how.gamma = q->sampler == BY_GAMMA ? q->gamma : q->sampler == BY_CM;
    if (sampling_by_score(q))
        return ctm_sample_score(tp, labelled ? ctm_guided_denoiser(tp->arena, q->net, q->guidance) : ctm_net_denoiser(tp->arena, q->net),
                                method[q->sampler - BY_HEUN], x, q->steps, q->ts, &how);
    return ctm_sample_gamma(tp, labelled ? ctm_guided_jump(tp->arena, q->net, q->guidance) : ctm_net_jump(tp->arena, q->net), x, q->steps, q->ts, &how);
}

#endif
