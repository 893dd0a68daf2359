/* 06_mpi.c - the ring of eight Gaussians, learnt by several processes at once.

   make build/mpi && mpirun -np 2 build/mpi        (needs an MPI; `make` builds it only where there is mpicc)

   Every process has the whole model and draws its own rows of each batch. What joins them is one function: it sums an array
   over all of them. The rows and the learning rate are those of one process, so are the results, up to the rounding of that sum. */
#include "args.h"
#include <mpi.h>
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include "toys.h"

#ifdef CTM_REAL_DOUBLE
#define NUMBER MPI_DOUBLE
#else
#define NUMBER MPI_FLOAT
#endif

/* The first process collects a piece of every array, adds them in the order of the ranks, and sends the sums to all. So the bits
   are the same on all of them, whatever machines and networks lie between, and from one run to the next. MPI_Allreduce does with
   less traffic; its order of summation is the library's own affair. */
enum { PIECE = 65536 };
typedef struct world { int rank, count; ctm_real *room; } world;

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

/* A number that differs if a bit of the weights does. */
static unsigned long fingerprint(const ctm_net *net) {
    const unsigned char *p = (const unsigned char *)net->theta;
    unsigned long h = 2166136261ul;
    size_t i;
    for (i = 0; i < net->len * sizeof *net->theta; i++) h = ((h ^ p[i]) * 16777619ul) & 0xfffffffful;
    return h;
}

/* Do all processes have the same weights? Every one of them learns the answer. */
static int same_weights(const ctm_net *net) {
    unsigned long h = fingerprint(net), least, most;
    MPI_Allreduce(&h, &least, 1, MPI_UNSIGNED_LONG, MPI_MIN, MPI_COMM_WORLD);
    MPI_Allreduce(&h, &most, 1, MPI_UNSIGNED_LONG, MPI_MAX, MPI_COMM_WORLD);
    return least == most;
}

static int train(const ctm_config *cfg, ctm_processes *all, world *w, int threads, const char *out) {
    ctm_ctx ctx;
    ctm_arena memory;
    toy ring;
    int ok = 1;
    ctm_init(&ctx);
    ctx.threads = threads;
    ctm_arena_init(&memory, &ctx, "model");
    w->room = (ctm_real *)ctm_alloc(&memory, (size_t)PIECE * (size_t)w->count * sizeof *w->room);
    toy_make(&ring, &memory, "ring");
    ctm_trainer *tr = ctm_trainer_new_among(&memory, cfg, ctm_mlp(&memory, cfg, 2, 1), ring.denoiser, toy_draw, &ring, all);
    double begun = args_seconds();
    while (tr->step < cfg->steps && ok) {
        ok = ctm_train_step(tr);
        if (ok && w->rank == 0 && tr->step % 1000 == 0) printf("step %6ld   L_ctm %.5f   L_dsm %.5f\n", tr->step, tr->L_ctm, tr->L_dsm);
    }
    if (!ok) fprintf(stderr, "mpi: process %d: %s\n", w->rank, ctm_error(&ctx));
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
    ctm_arena_free(&memory);
    return ok;
}

/* Reads the command line; args_parse's answer. */
static int arguments(int count, const args_option *options, int n, int argc, char **argv, long long *shards) {
    int r = args_parse("mpi", "mpirun -np N build/mpi [flags]", options, n, argc, argv);
    if (!r && *shards == 0) *shards = count > 1 ? count : 2;
    if (r || *shards >= count) return r;
    fprintf(stderr, "mpi: --shards %lld is not enough for %d processes, each needs one\n", *shards, count);
    return 2;
}

int main(int argc, char **argv) {
    ctm_config cfg = ctm_config_default();
    ctm_processes all;
    world w;
    long long steps = 4000, batch = cfg.batch, shards = 0, threads = 1;
    const char *out = "mpi.safetensors";
    args_option options[] = {
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
    if (w.rank == 0) r = arguments(w.count, options, ARGS_COUNT(options), argc, argv, &shards);    /* one of them complains */
    MPI_Bcast(&r, 1, MPI_INT, 0, MPI_COMM_WORLD);
    if (!r && w.rank > 0) r = arguments(w.count, options, ARGS_COUNT(options), argc, argv, &shards);
    if (!r) {
        cfg.steps = (long)steps;
        cfg.batch = (int)batch;
        cfg.diagonal_batch = (int)(batch / 2);
        cfg.shards = (int)shards;
        all.rank = w.rank;
        all.count = w.count;
        all.sum = sum;
        all.user = &w;
        ok = train(&cfg, &all, &w, (int)threads, out);
        if (!ok) MPI_Abort(MPI_COMM_WORLD, 1);                       /* the others may be waiting in a sum */
    }
    MPI_Finalize();
    return r ? args_exit_status(r) : !ok;
}
