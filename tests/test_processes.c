// Several processes that train one model [alg:train]: forked ones, whose sums go through pipes to the first, which adds them up in
// the order of the ranks and sends the result back.
#include "golden.h"
#if defined(__unix__)
#include <sys/wait.h>
#include <unistd.h>

enum { PR_MOST = 4 };
typedef struct pr_line { int rank, count, up[PR_MOST][2], down[PR_MOST][2], calls, fail_at; } pr_line;

static int pr_all(int fd, void *bytes, size_t n, int writing) {
    char *p = (char *)bytes;
    while (n > 0) {
        long k = (long)(writing ? write(fd, p, n) : read(fd, p, n));
        if (k <= 0) return 0;
        p += k;
        n -= (size_t)k;
    }
    return 1;
}
static int pr_sum(void *user, size_t n, ctm_real *v) {
    pr_line *l = (pr_line *)user;
    size_t bytes = n * sizeof *v, i;
    ctm_real *other;
    int r, ok = 1;
    if (++l->calls == l->fail_at) return 0;
    if (l->rank > 0) return pr_all(l->up[l->rank][1], v, bytes, 1) && pr_all(l->down[l->rank][0], v, bytes, 0);
    other = (ctm_real *)malloc(bytes);
    for (r = 1; r < l->count && other; r++) {
        ok = ok && pr_all(l->up[r][0], other, bytes, 0);
        for (i = 0; i < n && ok; i++) v[i] += other[i];
    }
    for (r = 1; r < l->count && ok; r++) ok = pr_all(l->down[r][1], v, bytes, 1);
    free(other);
    return ok && other;
}

static void pr_nothing(void *arg, int i) { (void)arg; (void)i; }

static ctm_trainer *pr_trainer(room *r, const ctm_config *c, const ctm_processes *all) {
    ctm_denoiser *teacher = ctm_mixture(&r->keep, 2, 2, pair_mean, NULL, 0.1);
    ctm_net *net = ctm_mlp(&r->keep, c, 2, 1);
    ctm_trainer *tr = all ? ctm_trainer_new_among(&r->keep, c, net, teacher, pair_draw, NULL, all) : ctm_trainer_new(&r->keep, c, net, teacher, pair_draw, NULL);
    r->ctx.threads = 1;                                          // OpenMP's threads do not survive a fork
    if (c->gan) ctm_trainer_adversary(&r->keep, tr, ctm_mlp_discriminator(&r->keep, c, 2));
    return tr;
}
// What a run leaves: weights, gradients, the discriminator's weights, and a few numbers, one behind the other.
typedef struct pr_result { ctm_real *v; size_t n, len; double L_ctm, L_dsm, lambda_dsm, L_gan, L_disc; } pr_result;
static pr_result pr_run(room *r, ctm_trainer *tr, int steps) {
    size_t len = tr->theta->len, more = tr->disc ? tr->disc->len : 0;
    pr_result out;
    int i;
    for (i = 0; i < steps; i++) CHECK(ctm_train_step(tr));
    memset(&out, 0, sizeof out);
    out.len = len;
    out.n = 4 * len + more;
    out.v = (ctm_real *)ctm_alloc(&r->keep, out.n * sizeof *out.v);
    memcpy(out.v, tr->g_ctm, len * sizeof *out.v);
    memcpy(out.v + len, tr->g_dsm, len * sizeof *out.v);
    memcpy(out.v + 2 * len, tr->theta->theta, len * sizeof *out.v);
    memcpy(out.v + 3 * len, tr->ema[0]->theta, len * sizeof *out.v);
    if (more) memcpy(out.v + 4 * len, tr->disc->theta, more * sizeof *out.v);
    out.L_ctm = tr->L_ctm;
    out.L_dsm = tr->L_dsm;
    out.lambda_dsm = tr->lambda_dsm;
    out.L_gan = tr->L_gan;
    out.L_disc = tr->L_disc;
    ctm_trainer_free(tr);
    return out;
}
// Runs `steps` steps in `count` processes; 1 if all of them end with the same bits. What the first has is left in `out`.
static int pr_among(room *r, const ctm_config *c, int count, int steps, pr_result *out) {
    static pr_line line;
    ctm_processes all;
    ctm_real *theirs;
    int rank, status, same = 1;
    pid_t child[PR_MOST];
    memset(&line, 0, sizeof line);
    line.count = count;
    for (rank = 1; rank < count; rank++) if (pipe(line.up[rank]) || pipe(line.down[rank])) { test_fail(__FILE__, __LINE__, "no pipes"); return 0; }
    fflush(stdout);
    all.count = count;
    all.sum = pr_sum;
    all.user = &line;
    for (rank = 1; rank < count; rank++) {
        child[rank] = fork();
        if (child[rank] == 0) {                                  // sends its result after the last sum
            line.rank = all.rank = rank;
            *out = pr_run(r, pr_trainer(r, c, &all), steps);
            _exit(pr_all(line.up[rank][1], out->v, out->n * sizeof *out->v, 1) && !test_now.failed ? 0 : 1);
        }
    }
    all.rank = 0;
    *out = pr_run(r, pr_trainer(r, c, &all), steps);
    theirs = (ctm_real *)ctm_alloc(&r->keep, out->n * sizeof *theirs);
    for (rank = 1; rank < count; rank++) {
        same = same && pr_all(line.up[rank][0], theirs, out->n * sizeof *theirs, 0) && same_bits(theirs, out->v, out->n);
        same = waitpid(child[rank], &status, 0) == child[rank] && status == 0 && same;
        close(line.up[rank][0]); close(line.up[rank][1]); close(line.down[rank][0]); close(line.down[rank][1]);
    }
    return same;
}
static ctm_config pr_gan(int period) {
    ctm_config c = small_config();
    c.gan = CTM_GAN_HINGE; c.gan_period = period; c.gan_start = 1; c.gan_hidden = 8; c.gan_layers = 1; c.adaptive = 1; c.lambda_gan = 1;
    return c;
}

// One process with the whole batch, and two with half of it each: the gradient of every loss to 1e-6 of its largest number.
static void test_processes_gradients(void) {
    int kind, count;
    for (kind = 0; kind < 4; kind++)
        for (count = 2; count <= 4; count++) {
            ctm_config c = kind == 0 ? small_config() : kind == 1 ? small_authors() : pr_gan(kind - 1);
            room r;
            pr_result one, many;
            double largest[2] = {0, 0};
            size_t i;
            int steps = kind < 2 ? 1 : 2;
            c.shards = 8;
            room_open(&r);
            one = pr_run(&r, pr_trainer(&r, &c, NULL), steps);
            CHECK(pr_among(&r, &c, count, steps, &many));
            for (i = 0; i < 2 * one.len; i++) largest[i / one.len] = fmax(largest[i / one.len], fabs((double)one.v[i]));
            CHECK(largest[0] > 0 && largest[1] > 0);
            for (i = 0; i < 2 * one.len; i++) CHECK_CLOSE(many.v[i], one.v[i], 1e-6 * largest[i / one.len]);
            CHECK_CLOSE(many.L_ctm, one.L_ctm, 1e-6 * one.L_ctm);
            CHECK_CLOSE(many.L_dsm, one.L_dsm, 1e-6 * one.L_dsm);
            CHECK_CLOSE(many.lambda_dsm, one.lambda_dsm, 1e-5 * one.lambda_dsm);
            CHECK_CLOSE(many.L_gan, one.L_gan, 1e-5 * fabs(one.L_gan));
            CHECK_CLOSE(many.L_disc, one.L_disc, 1e-5 * one.L_disc);
            room_close(&r);
        }
}

// After some steps all processes have the same bits; with one shard each, those of one process with as many shards.
static void test_processes_same_weights(void) {
    int kind;
    for (kind = 0; kind < 4; kind++) {
        ctm_config c = kind == 0 ? small_config() : kind == 1 ? small_authors() : pr_gan(kind - 1);
        room r;
        pr_result one, many;
        c.shards = 3;
        room_open(&r);
        one = pr_run(&r, pr_trainer(&r, &c, NULL), 6);
        CHECK(pr_among(&r, &c, 3, 6, &many));
        CHECK(one.n == many.n && same_bits(one.v, many.v, one.n));
        c.shards = 5;                                            // uneven
        CHECK(pr_among(&r, &c, 2, 6, &many));
        CHECK(!same_bits(one.v, many.v, one.n));                 // rounding, if nothing else
        room_close(&r);
    }
}

// A child of a process that has used several threads: with threads = 1 it works, and comes to its parent's bits.
static void test_processes_fork_after_threads(void) {
    ctm_config c = small_config();
    pr_result here, child;
    room r;
    int line[2], status = 0;
    pid_t pid;
    room_open(&r);
    here = pr_run(&r, pr_trainer(&r, &c, NULL), 2);
    r.ctx.threads = 4;
    ctm_parallel_for(&r.ctx, 8, pr_nothing, NULL);
    CHECK(pipe(line) == 0);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        alarm(60);                                               // ends it if it waits for threads that are not there
        child = pr_run(&r, pr_trainer(&r, &c, NULL), 2);         // pr_trainer sets threads = 1
        _exit(pr_all(line[1], child.v, child.n * sizeof *child.v, 1) ? 0 : 1);
    }
    close(line[1]);
    child.v = (ctm_real *)ctm_alloc(&r.keep, here.n * sizeof *child.v);
    CHECK(pr_all(line[0], child.v, here.n * sizeof *child.v, 0) && same_bits(child.v, here.v, here.n));
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(line[0]);
    room_close(&r);
}

// A sum that fails, at every place where one is asked for, changes nothing; the step can be made again.
static void test_processes_failure(void) {
    ctm_config c = pr_gan(1);
    pr_line line;
    ctm_processes all;
    int fail;
    c.gan_start = 0;
    memset(&line, 0, sizeof line);
    line.count = 1;
    all.rank = 0;
    all.count = 2;                                               // the other one is missing, so its half of the sums is too
    all.sum = pr_sum;
    all.user = &line;
    for (fail = 1; fail <= 6; fail++) {
        room r;
        ctm_trainer *tr;
        ctm_real *before, *disc;
        room_open(&r);
        tr = pr_trainer(&r, &c, &all);
        before = (ctm_real *)ctm_alloc(&r.keep, tr->theta->len * sizeof *before);
        disc = (ctm_real *)ctm_alloc(&r.keep, tr->disc->len * sizeof *disc);
        memcpy(before, tr->theta->theta, tr->theta->len * sizeof *before);
        memcpy(disc, tr->disc->theta, tr->disc->len * sizeof *disc);
        line.calls = 0;
        line.fail_at = fail;
        CHECK(!ctm_train_step(tr));
        CHECK_TEXT(ctm_error(&r.ctx), "step 0: the sum over 2 processes failed");
        CHECK(tr->step == 0 && same_bits(before, tr->theta->theta, tr->theta->len) && same_bits(disc, tr->disc->theta, tr->disc->len));
        line.fail_at = 0;
        line.calls = 0;
        CHECK(ctm_train_step(tr) && tr->step == 1);
        CHECK(line.calls == 6);                                  // three gradients and their values; the discriminator's and its
        ctm_trainer_free(tr);
        room_close(&r);
    }
}
#else
static void test_processes_gradients(void)    { SKIP("needs fork"); }
static void test_processes_same_weights(void) { SKIP("needs fork"); }
static void test_processes_fork_after_threads(void) { SKIP("needs fork"); }
static void test_processes_failure(void)      { SKIP("needs fork"); }
#endif

static int pr_no_sum(void *user, size_t n, ctm_real *v) { (void)user; (void)n; (void)v; return 1; }
static void test_processes_misuse(void) {
    ctm_config c = small_config();
    ctm_processes all;
    ctm_net *net;
    room r;
    room_open(&r);
    net = ctm_mlp(&r.keep, &c, 2, 1);
    c.aim = NULL;
    all.rank = 2;
    all.count = 2;
    all.sum = pr_no_sum;
    all.user = NULL;
    CHECK(PANICS(ctm_trainer_new_among(&r.keep, &c, net, NULL, pair_draw, NULL, &all)));
    CHECK_TEXT(test_panic, "process 2 of 2");
    all.rank = 1;
    all.sum = NULL;
    CHECK(PANICS(ctm_trainer_new_among(&r.keep, &c, net, NULL, pair_draw, NULL, &all)));
    CHECK_TEXT(test_panic, "2 processes need a function");
    all.sum = pr_no_sum;
    all.count = c.shards + 1;
    CHECK(PANICS(ctm_trainer_new_among(&r.keep, &c, net, NULL, pair_draw, NULL, &all)));
    CHECK_TEXT(test_panic, "5 processes, but the batch is cut into only 4 shards");
    room_close(&r);
}

static void run_processes(void) {
    RUN(processes_gradients);
    RUN(processes_same_weights);
    RUN(processes_fork_after_threads);
    RUN(processes_failure);
    RUN(processes_misuse);
}
