/* mpi.c - the ring of eight Gaussians, or a set of images, learnt by several processes at once.

   make build/mpi && mpirun -np 2 build/mpi        (needs an MPI; `make` builds it only where there is mpicc)
   mpirun -np 2 build/mpi --data IMAGES --teacher out/images/teacher.safetensors --steps 10000 --out student.safetensors
       images as images.c reads them, on every machine at the same place; network and settings are the teacher's.

   Every process has the whole model and draws its own rows of each batch. What joins them is one function: it sums an array
   over all of them. The rows and the learning rate are those of one process, so are the results, up to the rounding of that sum. */
#include "args.h"
#include <mpi.h>
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include "toys.h"
#define IMAGE_REAL ctm_real
#include "image.h"

#ifdef CTM_REAL_DOUBLE
#define NUMBER MPI_DOUBLE
#else
#define NUMBER MPI_FLOAT
#endif

// The first process collects a piece of every array, adds them in the order of the ranks, and sends the sums to all. So the bits
// are the same on all of them, whatever machines and networks lie between, and from one run to the next. MPI_Allreduce does with
// less traffic; its order of summation is the library's own affair.
enum { PIECE = 65536 };
typedef struct world { int rank, count; ctm_real *room; } world;
typedef struct files { const char *data, *range, *teacher; } files;  // of images; NULL: the ring

static int sum(void *user, size_t n, ctm_real *v) {
    world *w = (world *)user;
    size_t at;
    int r, i;
    for (at = 0; at < n; at += PIECE) {
        int m = n - at < PIECE ? (int)(n - at) : PIECE;
        if (MPI_Gather(v + at, m, NUMBER, w->room, m, NUMBER, 0, MPI_COMM_WORLD) != MPI_SUCCESS) return 0;
        if (w->rank == 0) {
            memcpy(v + at, w->room, (size_t)m * sizeof *v);
            for (r = 1; r < w->count; r++) for (i = 0; i < m; i++) v[at + (size_t)i] += w->room[(size_t)r * (size_t)m + (size_t)i];
        }
        if (MPI_Bcast(v + at, m, NUMBER, 0, MPI_COMM_WORLD) != MPI_SUCCESS) return 0;
    }
    return 1;
}

// A number that differs if a bit of the weights does.
static unsigned long fingerprint(const ctm_net *net) {
    const unsigned char *p = (const unsigned char *)net->theta;
    unsigned long h = 2166136261ul;
    size_t i;
    for (i = 0; i < net->len * sizeof *net->theta; i++) h = ((h ^ p[i]) * 16777619ul) & 0xfffffffful;
    return h;
}

// Do all processes have the same weights? Every one of them learns the answer.
static int same_weights(const ctm_net *net) {
    unsigned long h = fingerprint(net), least, most;
    MPI_Allreduce(&h, &least, 1, MPI_UNSIGNED_LONG, MPI_MIN, MPI_COMM_WORLD);
    MPI_Allreduce(&h, &most, 1, MPI_UNSIGNED_LONG, MPI_MAX, MPI_COMM_WORLD);
    return least == most;
}

// Which image sample `index` is; the image, and its class.
static size_t image_of(const image_set *s, const ctm_rng *rng, uint64_t step, uint64_t index) {
    size_t i = (size_t)(ctm_uniform(rng, step, index) * (double)s->n);
    return i < s->n ? i : s->n - 1;
}
static void draw_image(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    image_set *s = (image_set *)user;
    image_get(s, image_of(s, rng, step, index), 0, x0);
}
static int label_of_image(void *user, const ctm_rng *rng, uint64_t step, uint64_t index) {
    image_set *s = (image_set *)user;
    return image_label(s, image_of(s, rng, step, index));
}

// The teacher's file gives the network's shape, the recipe for images the settings, the flags what is asked for here. NULL with a line
// in err.
static ctm_net *read_teacher(ctm_arena *a, const char *path, const image_set *s, ctm_config *cfg, char *err, size_t errlen) {
    ctm_config recipe = ctm_recipe_images(), shape;
    ctm_net *net = ctm_load(a, path, &shape);
    if (!net) {
        args_fail(err, errlen, "%s", ctm_error(a->ctx));
        return NULL;
    }
    if (net->size != s->size || net->channels != s->channels || (net->classes && (s->classes == 0 || s->classes > net->classes))) {
        args_fail(err, errlen, "%s: is a teacher of %d x %d x %d numbers and %d classes, but the images have %d x %d x %d and %d", path, net->size, net->size,
                  net->channels, net->classes, s->size, s->size, s->channels, s->classes);
        return NULL;
    }
    shape.steps = cfg->steps;
    shape.batch = cfg->batch;
    shape.diagonal_batch = cfg->diagonal_batch;
    shape.shards = cfg->shards;
    memcpy(shape.recipe, recipe.recipe, sizeof shape.recipe);
    shape.times = recipe.times;
    shape.teach = recipe.teach;
    shape.substeps = recipe.substeps;
    shape.weight = recipe.weight;
    shape.level = recipe.level;
    shape.adaptive = recipe.adaptive;
    *cfg = shape;
    return net;
}

// A trainer of the ring, or of images. NULL with a line in err.
static ctm_trainer *trainer(ctm_arena *a, ctm_config *cfg, ctm_processes *all, const files *in, toy *ring, image_set *set, char *err, size_t errlen) {
    ctm_net *teacher, *net;
    ctm_trainer *tr;
    double range[2];
    if (!in->data) {
        toy_make(ring, a, "ring");
        return ctm_trainer_new_among(a, cfg, ctm_mlp(a, cfg, 2, 1), ring->denoiser, toy_draw, ring, all);
    }
    if (in->range) image_range(in->range, range);
    if (!image_open_scaled(set, in->data, in->range ? range : NULL, err, errlen)) return NULL;
    if (all->rank == 0 && image_doubtful(set, err, errlen)) fprintf(stderr, "note: %s\n", err);
    teacher = read_teacher(a, in->teacher, set, cfg, err, errlen);
    if (!teacher) return NULL;
    net = ctm_unet(a, cfg, 1);
    ctm_net_copy_matching(net, teacher);
    tr = ctm_trainer_new_among(a, cfg, net, ctm_net_denoiser(a, teacher), draw_image, set, all);
    if (cfg->classes) {
        tr->label = label_of_image;
        tr->label_user = set;
    }
    return tr;
}

static int train(ctm_config *cfg, ctm_processes *all, world *w, int threads, const files *in, const char *out) {
    ctm_ctx ctx;
    ctm_arena memory;
    ctm_trainer *tr;
    toy ring;
    image_set set;
    char err[600] = "";
    int ok = 1, lost = 0;
    memset(&set, 0, sizeof set);
    ctm_init(&ctx);
    ctx.threads = threads;
    ctm_arena_init(&memory, &ctx, "model");
    w->room = (ctm_real *)ctm_alloc(&memory, (size_t)PIECE * (size_t)w->count * sizeof *w->room);
    if (w->rank == 0 && !image_can_write(out, err, sizeof err)) {
        fprintf(stderr, "mpi: %s\n", err);
        ctm_arena_free(&memory);
        return 0;
    }
    tr = trainer(&memory, cfg, all, in, &ring, &set, err, sizeof err);
    if (!tr) {
        if (w->rank == 0) fprintf(stderr, "mpi: %s\n", err);
        image_close(&set);
        ctm_arena_free(&memory);
        return 0;
    }
    double begun = args_seconds();
    while (tr->step < cfg->steps && ok) {
        ok = ctm_train_step(tr);
        if (ok && in->data) ok = !(lost = !image_intact(&set, err, sizeof err));
        if (ok && w->rank == 0 && tr->step % 1000 == 0) printf("step %6ld   L_ctm %.5f   L_dsm %.5f\n", tr->step, tr->L_ctm, tr->L_dsm);
    }
    if (!ok) fprintf(stderr, "mpi: process %d: %s\n", w->rank, lost ? err : ctm_error(&ctx));
    if (ok && !same_weights(tr->theta)) {
        ok = 0;
        fprintf(stderr, "mpi: process %d: the processes ended with different weights\n", w->rank);
    }
    if (ok && w->rank == 0) {
        printf("%d process%s, %.2f ms a step, weights %08lx on all\n", w->count, w->count > 1 ? "es" : "",
               1000 * (args_seconds() - begun) / (double)cfg->steps, fingerprint(tr->theta));
        ok = ctm_save(&memory, tr->ema[0], cfg, out);
        if (!ok) fprintf(stderr, "mpi: %s\n", ctm_error(&ctx));
    }
    ctm_trainer_free(tr);
    image_close(&set);
    ctm_arena_free(&memory);
    return ok;
}

// Reads the command line; args_parse's answer.
static int arguments(int count, const args_option *options, int n, int argc, char **argv, long long *shards, const files *in) {
    double range[2];
    int r = args_parse("mpi", "mpirun -np N build/mpi [flags]", options, n, argc, argv);
    if (!r && *shards == 0) *shards = count > 1 ? count : 2;
    if (!r && !in->data != !in->teacher) {
        fprintf(stderr, "mpi: --data and --teacher go together: images, and teacher.safetensors of `images train`\n");
        return 2;
    }
    if (!r && in->range && !image_range(in->range, range)) {
        fprintf(stderr, "mpi: --range expects two different numbers, those of black and white: 0,1\n");
        return 2;
    }
    if (r || *shards >= count) return r;
    fprintf(stderr, "mpi: --shards %lld is not enough for %d processes, each needs one\n", *shards, count);
    return 2;
}

int main(int argc, char **argv) {
    ctm_config cfg = ctm_recipe_points();
    ctm_processes all;
    world w;
    long long steps = 4000, batch = cfg.batch, shards = 0, threads = 1;
    const char *out = "mpi.safetensors";
    files in = {NULL, NULL, NULL};
    args_option options[] = {
        {"data",    ARGS_TEXT, &in.data, 0, 0,    NULL, "images in place of the ring: a folder, or files A,B,..."},
        {"range",   ARGS_TEXT, &in.range, 0, 0,   NULL, "BLACK,WHITE: these numbers of --data; 0,255 of bytes and -1,1 of floats if not given"},
        {"teacher", ARGS_TEXT, &in.teacher, 0, 0, NULL, "their teacher: teacher.safetensors of `images train`"},
        {"steps",   ARGS_INT,  &steps,   1, 1e9,  NULL, "training steps"},
        {"batch",   ARGS_INT,  &batch,   2, 1e6,  NULL, "rows of every batch, all processes together; half as many for the diagonal term"},
        {"shards",  ARGS_INT,  &shards,  0, 1024, NULL, "pieces a batch is cut into, at least one a process; 0: one each, two if alone"},
        {"threads", ARGS_INT,  &threads, 0, 1024, NULL, "threads of each process; 0: as many as cores"},
        {"out",     ARGS_TEXT, &out,     0, 0,    NULL, "where the weights go (written by the first process)"},
    };
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &w.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &w.count);
    int r = 0, ok = 1;
    if (w.rank == 0) r = arguments(w.count, options, ARGS_COUNT(options), argc, argv, &shards, &in);    // one of them complains
    MPI_Bcast(&r, 1, MPI_INT, 0, MPI_COMM_WORLD);
    if (!r && w.rank > 0) r = arguments(w.count, options, ARGS_COUNT(options), argc, argv, &shards, &in);
    if (!r) {
        cfg.steps = (long)steps;
        cfg.batch = (int)batch;
        cfg.diagonal_batch = (int)(batch / 2);
        cfg.shards = (int)shards;
        all.rank = w.rank;
        all.count = w.count;
        all.sum = sum;
        all.user = &w;
        ok = train(&cfg, &all, &w, (int)threads, &in, out);
        if (!ok) MPI_Abort(MPI_COMM_WORLD, 1);                       // the others may be waiting in a sum
    }
    MPI_Finalize();
    return args_finish("mpi", r ? args_exit_status(r) : !ok);
}
