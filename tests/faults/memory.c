// Every allocation failing in turn. Each job is first run undisturbed; then its n-th allocation is refused, for n = 0, 1, 2, ..., and a
// CTM_PANIC of ours jumps back here. Whatever was complete before is then used once more, and must give the same bits; at the end
// nothing may be left. Built by tests/test_faults.sh, with the address sanitizer if there is one.   usage: memory [EVERY] in a scratch folder
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stddef.h>

static jmp_buf back;
static long refuse = -1, asked, alive;          // the number of the allocation that fails; how many were asked for, how many are not given back
static char said[600];

static void *give(size_t n) {
    void *p = asked++ == refuse ? NULL : malloc(n);
    if (p) { alive++; memset(p, 0x5a, n); }     // nothing may count on zeros
    return p;
}
static void take(void *p) { if (p) { alive--; free(p); } }
static void jump(const char *msg) { snprintf(said, sizeof said, "%s", msg); longjmp(back, 1); }

#define CTM_MALLOC(ctx, n)         ((void)(ctx), give(n))
#define CTM_FREE(ctx, p)           ((void)(ctx), take(p))
#define CTM_PANIC(msg, file, line) ((void)(file), (void)(line), jump(msg))
#define CTM_IMPLEMENTATION
#include "../../ctm.h"

// What a job works with. `begin` makes it, from nothing; `work` may be called again after it was left in the middle, and leaves the sum of
// its results in `result`.
typedef struct workplace {
    ctm_ctx      ctx;
    ctm_arena    memory, scratch;
    ctm_config   cfg;
    ctm_trainer *tr;
    ctm_denoiser *teacher;
    ctm_net     *net;
    int         *label;
    ctm_real    *x;
    uint64_t     result;
} workplace;

static void add(workplace *w, const void *bytes, size_t n) {
    const unsigned char *p = (const unsigned char *)bytes;
    size_t i;
    for (i = 0; i < n; i++) w->result = (w->result ^ p[i]) * 1099511628211u;
}

static void draw_point(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    double side = ctm_uniform(rng, step, 4 * index) < 0.5 ? -0.5 : 0.5;
    (void)user;
    x0[0] = (ctm_real)(side + 0.05 * ctm_normal(rng, step, 4 * index + 2));
    x0[1] = (ctm_real)(side + 0.05 * ctm_normal(rng, step, 4 * index + 3));
}
static int label_point(void *user, const ctm_rng *rng, uint64_t step, uint64_t index) {
    (void)user;
    return ctm_uniform(rng, step, 4 * index) < 0.5 ? 0 : 1;
}
enum { SIZE = 4, PIXELS = SIZE * SIZE };
static void draw_image(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    int i;
    (void)user;
    for (i = 0; i < PIXELS; i++) x0[i] = (ctm_real)(0.5 * ctm_normal(rng, step, 64 * index + 4 + (uint64_t)i));
}

static ctm_config small_points(void) {
    ctm_config c = ctm_recipe_points();
    c.steps = 4;
    c.batch = c.diagonal_batch = 8;
    c.shards = 2;
    c.hidden = 8;
    c.layers = 2;
    c.embed = 8;
    return c;
}
static ctm_config small_images(void) {
    ctm_config c = ctm_recipe_paper();
    c.steps = 2;
    c.batch = c.diagonal_batch = 2;
    c.shards = 2;
    c.size = SIZE;
    c.channels = 1;
    c.model_channels = 4;
    memset(c.channel_mult, 0, sizeof c.channel_mult);
    c.channel_mult[0] = c.channel_mult[1] = 1;
    c.num_blocks = 1;
    memset(c.attn, 0, sizeof c.attn);
    c.dropout = 0.1;
    return c;
}
static void adversary(ctm_config *c) {
    c->gan = CTM_GAN_HINGE;
    c->gan_start = 0;
    c->gan_period = 1;
    c->gan_hidden = 8;
    c->gan_layers = 2;
}

// ---- training

static void begin_points(workplace *w) {
    static const double mean[4] = {-0.5, -0.5, 0.5, 0.5};
    w->cfg = small_points();
    w->teacher = ctm_mixture(&w->memory, 2, 2, mean, NULL, 0.05);
    w->net = ctm_mlp(&w->memory, &w->cfg, 2, 1);
    w->tr = ctm_trainer_new(&w->memory, &w->cfg, w->net, w->teacher, draw_point, NULL);
}
static void begin_adversary(workplace *w) {
    w->cfg = small_points();
    adversary(&w->cfg);
    w->cfg.classes = 2;
    w->cfg.label_dropout = 0.2;
    w->cfg.aim = ctm_aim_data;
    w->net = ctm_mlp(&w->memory, &w->cfg, 2, 1);
    w->tr = ctm_trainer_new(&w->memory, &w->cfg, w->net, NULL, draw_point, NULL);
    w->tr->label = label_point;
    ctm_trainer_adversary(&w->memory, w->tr, ctm_mlp_discriminator(&w->memory, &w->cfg, 2));
}
static void begin_images(workplace *w) {
    ctm_net *teacher;
    w->cfg = small_images();
    teacher = ctm_unet(&w->memory, &w->cfg, 0);
    w->teacher = ctm_net_denoiser(&w->memory, ctm_net_view(&w->memory, teacher, 0));
    w->net = ctm_unet(&w->memory, &w->cfg, 1);
    w->tr = ctm_trainer_new(&w->memory, &w->cfg, w->net, w->teacher, draw_image, NULL);
}
static void begin_images_adversary(workplace *w) {
    w->cfg = small_images();
    adversary(&w->cfg);
    w->net = ctm_unet(&w->memory, &w->cfg, 1);
    w->tr = ctm_trainer_new(&w->memory, &w->cfg, w->net, NULL, draw_image, NULL);
    ctm_trainer_adversary(&w->memory, w->tr, ctm_conv_discriminator(&w->memory, &w->cfg));
}
static int work_train(workplace *w) {
    while (w->tr->step < w->cfg.steps) if (!ctm_train_step(w->tr)) return 0;
    add(w, w->net->theta, w->net->len * sizeof(ctm_real));
    add(w, w->tr->ema[0]->theta, w->net->len * sizeof(ctm_real));
    if (w->tr->disc) add(w, w->tr->disc->theta, w->tr->disc->len * sizeof(ctm_real));
    return 1;
}

// ---- files

static int work_checkpoint(workplace *w) {
    const char *const pairs[] = {"key", "value", NULL};
    if (!ctm_checkpoint_save(&w->scratch, w->tr, "memory.safetensors", pairs)) return 0;
    w->tr->step = 77;
    if (!ctm_checkpoint_load(&w->scratch, w->tr, "memory.safetensors")) return 0;
    add(w, &w->tr->step, sizeof w->tr->step);
    add(w, w->net->theta, w->net->len * sizeof(ctm_real));
    return 1;
}
static int work_model(workplace *w) {
    ctm_config read;
    ctm_net *net;
    if (!ctm_save(&w->scratch, w->net, &w->cfg, "memory.safetensors")) return 0;
    net = ctm_load(&w->memory, "memory.safetensors", &read);
    if (!net) return 0;
    add(w, net->theta, net->len * sizeof(ctm_real));
    return 1;
}
static const int vgg_layer[13] = {0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28}, vgg_block[13] = {0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4};
static void begin_lpips(workplace *w) {
    w->x = (ctm_real *)ctm_alloc(&w->memory, 4 * 3 * 9 * sizeof(ctm_real));
}
static int work_lpips(workplace *w) {
    ctm_writer wr;
    ctm_lpips *q;
    char name[48];
    int l, k, in = 3;
    ctm_writer_init(&wr, &w->scratch);
    for (k = 0; k < 13; k++) {
        int shape[4], width = 1 + vgg_block[k] % 2;
        shape[0] = width; shape[1] = in; shape[2] = shape[3] = 3;
        snprintf(name, sizeof name, "features.%d.weight", vgg_layer[k]);
        ctm_writer_add(&wr, name, w->x, 4, shape, 0);
        snprintf(name, sizeof name, "features.%d.bias", vgg_layer[k]);
        ctm_writer_add(&wr, name, w->x, 1, shape, 0);
        in = width;
    }
    for (l = 0; l < 5; l++) {
        int shape[4];
        shape[0] = 1; shape[1] = 1 + l % 2; shape[2] = shape[3] = 1;
        snprintf(name, sizeof name, "lin%d.model.1.weight", l);
        ctm_writer_add(&wr, name, w->x, 4, shape, 0);
    }
    if (!ctm_writer_save(&wr, "memory.safetensors")) return 0;
    q = ctm_lpips_load(&w->memory, "memory.safetensors", 256, 3);
    if (!q) return 0;
    add(w, q->scale->data, q->scale->len * sizeof(ctm_real));
    return 1;
}

// ---- samplers, likelihood, editing

enum { ROWS = 6 };
static void begin_classes(workplace *w) {
    int i;
    begin_adversary(w);
    w->label = (int *)ctm_alloc(&w->memory, ROWS * sizeof(int));
    for (i = 0; i < ROWS; i++) w->label[i] = i % 3 - 1;
    w->x = (ctm_real *)ctm_alloc(&w->memory, 2 * ROWS * sizeof(ctm_real));
    w->net = ctm_net_view(&w->memory, w->tr->ema[0], 0);
}
static int add_tensor(workplace *w, const ctm_tensor *y) {
    if (y) add(w, y->data, y->len * sizeof(ctm_real));
    return y != NULL;
}
static ctm_tensor *noise_of(ctm_tape *tp, const ctm_net *net, int rows) {
    const ctm_rng rng = ctm_stream(3, "start");
    ctm_tensor *x = ctm_matrix(tp, "x_T", rows, net->dim);
    ctm_normals(&rng, 0, 0, x->len, x->data);
    return ctm_scale(tp, x, net->noise.sigma_max);
}
static int work_sample(workplace *w) {
    const ctm_rng rng = ctm_stream(1, "start"), way = ctm_stream(2, "way");
    double ts[4];
    ctm_sampler how = ctm_sampler_default();
    ctm_tape tp;
    ctm_tensor *x, *t, *s;
    ctm_mark m = ctm_arena_mark(&w->scratch);
    int i;
    ctm_normals(&rng, 0, 0, 2 * ROWS, w->x);
    for (i = 0; i < 2 * ROWS; i++) w->x[i] *= 80;
    if (!ctm_sample_points(w->net, w->x, ROWS, 3, 0.5, &way)) return 0;
    add(w, w->x, 2 * ROWS * sizeof(ctm_real));
    ctm_tape_init(&tp, &w->ctx, &w->scratch);
    tp.recording = 0;
    tp.rows.label = w->label;
    x = noise_of(&tp, w->net, ROWS);
    ctm_karras_times(&w->net->noise, 4, ts);
    how.gamma = 0.7;
    how.rng = &way;
    if (!add_tensor(w, ctm_sample_gamma(&tp, ctm_guided_jump(&w->scratch, w->net, 1.5), x, 3, ts, &how))) return 0;
    if (!add_tensor(w, ctm_sample_heun(&tp, ctm_guided_denoiser(&w->scratch, w->net, 1.5), x, 3, ts))) return 0;
    if (!add_tensor(w, ctm_sample_score(&tp, ctm_net_denoiser(&w->scratch, w->net), CTM_DPM2, x, 3, ts, &how))) return 0;
    t = ctm_fill(ctm_vector(&tp, "t", ROWS), 2);                     // some rows move and some do not: labels go with their rows
    s = ctm_fill(ctm_vector(&tp, "s", ROWS), 1);
    s->data[0] = s->data[3] = 2;
    if (!add_tensor(w, ctm_G_theta(&tp, w->net, x, t, s))) return 0;
    ctm_arena_release(&w->scratch, m);
    return 1;
}
static int work_likelihood(workplace *w) {
    static const double start[4] = {-40, -40, 40, 40};
    ctm_likelihood how = ctm_likelihood_default();
    const ctm_rng rng = ctm_stream(1, "probes");
    const ctm_denoiser *D = w->teacher, *network = ctm_net_denoiser(&w->scratch, ctm_net_view(&w->scratch, w->tr->ema[0], 0));
    ctm_real x[4] = {(ctm_real)-0.5, (ctm_real)-0.4, (ctm_real)0.5, (ctm_real)0.6};
    double logp[2], flow[4];
    ctm_tape tp;
    ctm_mark m = ctm_arena_mark(&w->scratch);
    ctm_tape_init(&tp, &w->ctx, &w->scratch);
    how.steps = 5;
    if (!ctm_loglik(&tp, D, &w->cfg.noise, &how, 2, x, logp)) return 0;
    add(w, logp, sizeof logp);
    how.steps = 3;
    how.probes = 2;
    how.rng = &rng;
    if (!ctm_loglik(&tp, network, &w->cfg.noise, &how, 2, x, logp)) return 0;
    add(w, logp, sizeof logp);
    if (!ctm_elbo(&tp, network, &w->cfg.noise, &how, 2, x, logp)) return 0;
    add(w, logp, sizeof logp);
    ctm_exact_flow(&w->ctx, D, 2, start, 80, 1, &w->cfg.noise.sigma_min, 1e-3, flow);
    add(w, flow, sizeof flow);
    ctm_arena_release(&w->scratch, m);
    return 1;
}
static ctm_tensor *bright(void *user, ctm_tape *tp, ctm_tensor *x, double t) {
    ctm_tensor *even = ctm_fill(ctm_vector(tp, "w", x->shape[0]), 1);
    (void)user; (void)t;
    return ctm_weighted_mean(tp, ctm_distance(tp, x, ctm_fill(ctm_matrix(tp, "one", x->shape[0], x->shape[1]), 1), CTM_L2, 0), even, 1);
}
static void judge(void *user, const ctm_tensor *x, double *score) {
    int i;
    (void)user;
    for (i = 0; i < x->shape[0]; i++) score[i] = (double)x->data[i * x->shape[1]];
}
static int work_edit(workplace *w) {
    const ctm_rng way = ctm_stream(2, "way");
    static const unsigned char mask[PIXELS] = {1, 1, 1, 0, 1};
    ctm_known known = ctm_known_mask(PIXELS, mask, 0);
    ctm_sampler how = ctm_sampler_default();
    ctm_guide guide = ctm_guide_default();
    double ts[4];
    ctm_tape tp;
    ctm_tensor *x, *ref;
    ctm_jump *G;
    ctm_mark m = ctm_arena_mark(&w->scratch);
    ctm_tape_init(&tp, &w->ctx, &w->scratch);
    tp.recording = 0;
    G = ctm_net_jump(&w->scratch, w->tr->ema[0]);
    x = noise_of(&tp, w->net, 2);
    ref = ctm_fill(ctm_matrix(&tp, "ref", 2, PIXELS), 0.25);
    ctm_karras_times(&w->net->noise, 4, ts);
    how.gamma = 0.5;
    how.rng = &way;
    if (!add_tensor(w, ctm_edit(&tp, G, &known, ref, x, 3, ts, &how))) return 0;
    known = ctm_known_patches(&w->scratch, SIZE, 1, 2);
    if (!add_tensor(w, ctm_edit(&tp, G, &known, ref, x, 3, ts, &how))) return 0;
    if (!add_tensor(w, ctm_stroke(&tp, G, ref, 3, ts, &how))) return 0;
    guide.loss = bright;
    if (!add_tensor(w, ctm_sample_guided(&tp, G, &guide, x, 3, ts, &how))) return 0;
    if (!add_tensor(w, ctm_sample_reject(&tp, G, x, 3, ts, &how, 1, judge, NULL))) return 0;
    ctm_arena_release(&w->scratch, m);
    return 1;
}

// ---- the jobs, and their faults

typedef struct job { const char *name; void (*begin)(workplace *w); int (*work)(workplace *w); } job;
static const job jobs[] = {
    {"training points", begin_points, work_train},
    {"training points with labels and an adversary", begin_adversary, work_train},
    {"training images under a network's teaching", begin_images, work_train},
    {"training images with an adversary", begin_images_adversary, work_train},
    {"saving and loading a checkpoint of points", begin_adversary, work_checkpoint},
    {"saving and loading a checkpoint of images", begin_images_adversary, work_checkpoint},
    {"saving and loading a model of points", begin_points, work_model},
    {"saving and loading a model of images", begin_images, work_model},
    {"loading LPIPS", begin_lpips, work_lpips},
    {"samplers with labels", begin_classes, work_sample},
    {"likelihoods", begin_points, work_likelihood},
    {"editing and guidance", begin_images, work_edit}};

static workplace w;                             // not on the stack: a jump leaves it as it is
static long failures;

static void fault(const job *j, long k, const char *what) {
    if (failures++ < 20) printf("%s, allocation %ld refused: %s\n", j->name, k, what);
}

// One run with allocation k refused; returns its result. *panics and *errors count how the refusal was told.
static uint64_t run(const job *j, long k, long *panics, long *errors) {
    volatile int begun = 0, tries;              // 0: nothing is there yet
    refuse = k;
    asked = 0;
    for (tries = 0; tries < 3; tries++) {
        if (!begun) {
            memset(&w, 0, sizeof w);
            ctm_init(&w.ctx);
            w.ctx.threads = 1;
            ctm_arena_init(&w.memory, &w.ctx, "memory");
            ctm_arena_init(&w.scratch, &w.ctx, "scratch");
        }
        if (setjmp(back) == 0) {
            if (!begun) j->begin(&w);
            begun = 1;
            w.result = 14695981039346656037u;
            if (j->work(&w)) break;
            ++*errors;
            if (!strstr(ctm_error(&w.ctx), "memory")) fault(j, k, ctm_error(&w.ctx));
        } else {
            ++*panics;
            if (strncmp(said, "out of memory: arena \"", 22) != 0) fault(j, k, said);
        }
        if (!begun) {                           // an unfinished beginning is thrown away, on the same context
            if (w.tr) ctm_trainer_free(w.tr);
            ctm_arena_free(&w.memory);
            ctm_arena_free(&w.scratch);
            if (alive || w.ctx.allocated) fault(j, k, "memory was not given back after an unfinished beginning");
        }
    }
    if (tries == 3) fault(j, k, "does not work any more");
    if (w.tr) ctm_trainer_free(w.tr);
    ctm_arena_free(&w.memory);
    ctm_arena_free(&w.scratch);
    if (alive) fault(j, k, "blocks were not given back");
    if (w.ctx.allocated) fault(j, k, "the context counts memory that is gone");
    alive = 0;
    return w.result;
}

int main(int argc, char **argv) {
    const long every = argc > 1 ? atol(argv[1]) : 1;
    long passed = 0, failed = 0, refused = 0;
    size_t i;
    for (i = 0; i < sizeof jobs / sizeof jobs[0]; i++) {
        const job *j = &jobs[i];
        long panics = 0, errors = 0, total, k, before = failures;
        const uint64_t right = run(j, -1, &panics, &errors);
        total = asked;
        for (k = 0; k < total; k += k < 20 ? 1 : every) if (run(j, k, &panics, &errors) != right) fault(j, k, "afterwards the results are others");
        refused += panics + errors;
        if (total < 3 || panics < 1) fault(j, -1, "nothing was tested");
        printf("%s: %s: %ld allocations, %ld refused (%ld by a jump, %ld by an error)\n", failures == before ? "ok" : "FAILED", j->name, total,
               panics + errors, panics, errors);
        if (failures == before) passed++; else failed++;
    }
    remove("memory.safetensors");
    printf("refused allocations: %ld; memory: %ld passed, %ld failed\n", refused, passed, failed);
    return failed > 0;
}
