// Chapters 9 and 10: networks, their copies, optimisers and moving averages.
#include "test.h"
#include "golden.h"

static ctm_ctx   net_ctx;
static ctm_arena net_arena, net_memory;       // tape; networks
static ctm_tape  net_tape;

static void net_begin(void) {
    ctm_init(&net_ctx);
    ctm_arena_init(&net_arena, &net_ctx, "tape");
    ctm_arena_init(&net_memory, &net_ctx, "networks");
    ctm_tape_init(&net_tape, &net_ctx, &net_arena);
}
static void net_end(void) {
    ctm_arena_free(&net_arena);
    ctm_arena_free(&net_memory);
    CHECK(net_ctx.allocated == 0);
}
static double net_random(uint64_t i) {
    ctm_rng rng = ctm_stream(6, "networks");
    return ctm_normal(&rng, 0, i);
}
// A small CTM whose every weight matters (ctm_mlp starts with a tenth in the last layer, and zeros as biases).
static ctm_net *net_small(const char *stream) {
    ctm_config cfg = golden_net_config();
    ctm_net *net;
    ctm_rng rng = ctm_stream(8, stream);
    int p;
    size_t i;
    cfg.hidden = 6; cfg.layers = 2; cfg.embed = 4;
    net = ctm_mlp(&net_memory, &cfg, 2, 1);
    for (p = 0; p < net->count; p++)
        for (i = 0; i < net->param[p]->len; i++) net->param[p]->data[i] = (ctm_real)(0.6 * ctm_normal(&rng, (uint64_t)p, i));
    return net;
}
static ctm_tensor *net_points(const char *name, int B, double size) {
    ctm_tensor *x = ctm_matrix(&net_tape, name, B, 2);
    size_t i;
    for (i = 0; i < x->len; i++) x->data[i] = (ctm_real)(size * net_random(i));
    return x;
}
static ctm_tensor *net_levels(const char *name, int B, const double *level) {
    ctm_tensor *t = ctm_vector(&net_tape, name, B);
    int i;
    for (i = 0; i < B; i++) t->data[i] = (ctm_real)level[i];
    return t;
}

// ---- golden values: forward, gradients of all parameters and of the input

static void net_golden(const char *file, const char *kind, int with_s) {
    golden_file *g = golden_open(file);
    ctm_net *net;
    ctm_tensor *x, *t, *s, *y;
    int isa, best;
    net_begin();
    best = net_ctx.isa;
    net = golden_net(&net_memory, g, kind, "w.net.", with_s);
    for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
        if (!ctm_set_isa(&net_ctx, isa)) continue;
        ctm_tape_reset(&net_tape);
        memset(net->grad, 0, net->len * sizeof(ctm_real));
        x = ctm_wants_grad(&net_tape, golden_tensor(&net_tape, g, "in.x"));
        t = golden_tensor(&net_tape, g, "in.t");
        s = with_s ? golden_tensor(&net_tape, g, "in.s") : NULL;
        y = net->forward(&net_tape, net, x, t, s);
        golden_check(g, "out.y", y->data, y->len);
        golden_copy(g, "in.grad_y", y->grad);
        ctm_backward_seeded(&net_tape, y);
        golden_check(g, "out.grad.x", x->grad, x->len);
        golden_check_grads(g, "out.grad.", net);
    }
    CHECK(ctm_set_isa(&net_ctx, best));
    net_end();
    golden_close(g);
}
// [eq:film]
static void test_net_golden_film(void)           { net_golden("net_film", "film", 1); }
static void test_net_golden_film_teacher(void)   { net_golden("net_film_teacher", "film", 0); }
static void test_net_golden_concat(void)         { net_golden("net_concat", "concat", 1); }
static void test_net_golden_concat_teacher(void) { net_golden("net_concat_teacher", "concat", 0); }

// ---- parameters

static void test_net_parameters(void) {
    static const struct { const char *name; int rows, cols; } want[] = {
        {"map_t.weight", 9, 8}, {"map_t.bias", 8, 0}, {"map_s.weight", 9, 8}, {"film.weight", 8, 96}, {"film.bias", 96, 0},
        {"layers.0.weight", 2, 16}, {"layers.0.bias", 16, 0}, {"layers.1.weight", 16, 16}, {"layers.1.bias", 16, 0},
        {"layers.2.weight", 16, 16}, {"layers.2.bias", 16, 0}, {"out.weight", 16, 2}, {"out.bias", 2, 0}};
    ctm_config cfg = golden_net_config();
    ctm_net *net, *teacher;
    ctm_real *end;
    int p;
    net_begin();
    net = ctm_mlp(&net_memory, &cfg, 2, 1);
    teacher = ctm_mlp(&net_memory, &cfg, 2, 0);
    CHECK(strcmp(net->kind, "mlp") == 0 && net->dim == 2 && net->with_s == 1 && teacher->with_s == 0 && net->ctx == &net_ctx);
    CHECK(net->count == 13 && teacher->count == 12 && ctm_param_named(teacher, "map_s.weight") == NULL);
    end = net->theta;
    for (p = 0; p < net->count && p < 13; p++) {
        const ctm_tensor *w = net->param[p];
        CHECK(strcmp(w->name, want[p].name) == 0);
        CHECK(w->ndim == (want[p].cols ? 2 : 1) && w->shape[0] == want[p].rows && (w->ndim == 1 || w->shape[1] == want[p].cols));
        CHECK(ctm_param_named(net, want[p].name) == w);
        CHECK(w->data >= end && (uintptr_t)w->data % 64 == 0);          // one behind the other, each on a cache line
        CHECK(w->grad - net->grad == w->data - net->theta);
        end = w->data + w->len;
    }
    CHECK(end <= net->theta + net->len && net->len - (size_t)(end - net->theta) < 16);
    CHECK(strcmp(net->param[net->last_weight]->name, "out.weight") == 0);
    CHECK(ctm_param_named(net, "no such") == NULL);
    cfg.layers = 0;
    CHECK(PANICS(ctm_mlp(&net_memory, &cfg, 2, 1)));
    CHECK_TEXT(test_panic, "ctm_mlp: 0 layers");
    net_end();
}

// A network of one's own: the last matrix is the one that balances the losses, whatever vectors follow it.
static void test_net_own_parameters(void) {
    ctm_noise z = ctm_noise_default();
    ctm_net *net;
    net_begin();
    net = ctm_net_new(&net_memory, "own", &z, 3, 0);
    CHECK(ctm_param(&net_memory, net, "first", 5, 7) == 0);
    CHECK(ctm_param(&net_memory, net, "last", 7, 3) == 1);
    CHECK(ctm_param(&net_memory, net, "bias", 3, 0) == 2);
    CHECK(ctm_param(&net_memory, net, "gain", 3, 0) == 3);
    ctm_net_ready(&net_memory, net);
    CHECK(net->last_weight == 1);
    CHECK(net->theta[0] == 0 && net->grad[0] == 0 && net->param[3]->len == 3);
    net_end();
}

static void test_net_init(void) {
    ctm_config cfg = golden_net_config();
    ctm_net *net, *teacher, *other;
    int p;
    size_t i;
    net_begin();
    cfg.hidden = 40; cfg.seed = 3;
    net = ctm_mlp(&net_memory, &cfg, 2, 1);
    teacher = ctm_mlp(&net_memory, &cfg, 2, 0);
    cfg.seed = 4;
    other = ctm_mlp(&net_memory, &cfg, 2, 1);
    for (p = 0; p < net->count; p++) {
        const ctm_tensor *w = net->param[p], *same = ctm_param_named(teacher, w->name), *differs = other->param[p];
        double bound, top = 0, mean = 0, square = 0, n = (double)w->len;
        if (same) CHECK(memcmp(w->data, same->data, w->len * sizeof(ctm_real)) == 0);      // each from a stream of its own name
        for (i = 0; i < w->len; i++) {
            top = fmax(top, fabs((double)w->data[i]));
            mean += (double)w->data[i] / n;
            square += (double)w->data[i] * (double)w->data[i] / n;
        }
        if (w->ndim == 1) { CHECK(top == 0); continue; }
        CHECK(memcmp(w->data, differs->data, w->len * sizeof(ctm_real)) != 0);
        bound = sqrt(6.0 / (w->shape[0] + w->shape[1])) * (p == net->last_weight ? 0.1 : 1);
        CHECK(top <= bound * (1 + 1e-6) && top > 0.9 * bound);
        CHECK_CLOSE(mean / bound, 0, 4 / sqrt(3 * n));
        CHECK_CLOSE(square / (bound * bound), 1.0 / 3, 4 * 0.3 / sqrt(n));
    }
    CHECK(memcmp(ctm_param_named(net, "layers.1.weight")->data, ctm_param_named(net, "layers.2.weight")->data, 64) != 0);
    net_end();
}

static void test_net_copy_matching(void) {
    ctm_config cfg = golden_net_config();
    ctm_net *net, *teacher, *wide;
    int p;
    net_begin();
    cfg.seed = 1;
    teacher = ctm_mlp(&net_memory, &cfg, 2, 0);
    cfg.seed = 2;
    net = ctm_mlp(&net_memory, &cfg, 2, 1);
    CHECK(ctm_net_copy_matching(net, teacher) == 12);                     // all but map_s.weight
    for (p = 0; p < teacher->count; p++)
        CHECK(memcmp(teacher->param[p]->data, ctm_param_named(net, teacher->param[p]->name)->data, teacher->param[p]->len * sizeof(ctm_real)) == 0);
    CHECK(ctm_param_named(net, "map_s.weight")->data[0] != 0);            // kept its own
    cfg.hidden = 20;
    wide = ctm_mlp(&net_memory, &cfg, 2, 1);
    CHECK(ctm_net_copy_matching(wide, net) == 4);                         // equal shapes: map_t twice, map_s, out.bias
    net_end();
}

// ---- clones, views, frozen networks

static void test_net_clone_and_view(void) {
    ctm_net *net, *clone, *view, *frozen;
    int p;
    net_begin();
    net = net_small("theta");
    clone = ctm_net_clone(&net_memory, net);
    view = ctm_net_view(&net_memory, net, 1);
    frozen = ctm_net_view(&net_memory, net, 0);
    CHECK(clone->theta != net->theta && clone->grad == NULL);
    CHECK(memcmp(clone->theta, net->theta, net->len * sizeof(ctm_real)) == 0);
    CHECK(view->theta == net->theta && view->grad != NULL && view->grad != net->grad);
    CHECK(frozen->theta == net->theta && frozen->grad == NULL);
    for (p = 0; p < net->count; p++) {
        CHECK(clone->param[p]->data - clone->theta == net->param[p]->data - net->theta && clone->param[p]->grad == NULL);
        CHECK(view->param[p]->data == net->param[p]->data && view->param[p]->grad - view->grad == net->param[p]->grad - net->grad);
        CHECK(frozen->param[p]->grad == NULL && strcmp(frozen->param[p]->name, net->param[p]->name) == 0);
    }
    net->theta[0] += 1;
    CHECK(view->theta[0] == net->theta[0] && clone->theta[0] != net->theta[0]);
    net_end();
}

// A view collects a gradient of its own, the same as the network's; a frozen one passes it through to its input only.
static void test_net_frozen(void) {
    static const double t_[5] = {80, 3, 0.5, 3, 0.01}, s_[5] = {0.002, 1, 0.1, 1, 0.002};
    ctm_net *net, *view, *frozen;
    ctm_tensor *x, *t, *s, *y;
    ctm_real *first;
    int recorded;
    size_t i;
    net_begin();
    net = net_small("theta");
    view = ctm_net_view(&net_memory, net, 1);
    frozen = ctm_net_view(&net_memory, net, 0);
    x = ctm_wants_grad(&net_tape, net_points("x", 5, 1));
    t = net_levels("t", 5, t_);
    s = net_levels("s", 5, s_);
    first = (ctm_real *)ctm_alloc(&net_memory, x->len * sizeof(ctm_real));

    y = net->forward(&net_tape, net, x, t, s);
    for (i = 0; i < y->len; i++) y->grad[i] = (ctm_real)net_random(50 + i);
    ctm_backward_seeded(&net_tape, y);
    memcpy(first, x->grad, x->len * sizeof(ctm_real));
    CHECK(first[0] != 0);

    net_tape.first = net_tape.last = NULL;
    memset(x->grad, 0, x->len * sizeof(ctm_real));
    y = net->forward(&net_tape, view, x, t, s);
    for (i = 0; i < y->len; i++) y->grad[i] = (ctm_real)net_random(50 + i);
    ctm_backward_seeded(&net_tape, y);
    CHECK(memcmp(first, x->grad, x->len * sizeof(ctm_real)) == 0);
    CHECK(memcmp(view->grad, net->grad, net->len * sizeof(ctm_real)) == 0 && view->grad[0] != 0);

    net_tape.first = net_tape.last = NULL;
    memset(x->grad, 0, x->len * sizeof(ctm_real));
    y = frozen->forward(&net_tape, frozen, x, t, s);
    for (i = 0; i < y->len; i++) y->grad[i] = (ctm_real)net_random(50 + i);
    ctm_backward_seeded(&net_tape, y);
    CHECK(memcmp(first, x->grad, x->len * sizeof(ctm_real)) == 0);        // through the frozen network to its input ...
    CHECK(memcmp(view->grad, net->grad, net->len * sizeof(ctm_real)) == 0); // ... and into no weights

    recorded = net_tape.count;                                            // nobody wants a gradient: nothing is recorded
    x->grad = NULL;
    y = frozen->forward(&net_tape, frozen, x, t, s);
    CHECK(y->grad == NULL && net_tape.count == recorded);
    net_end();
}

// Rows at equal (t,s) share their scale and shift: every row comes out as if it were alone, and so do the gradients.
static void test_net_distinct_levels(void) {
    enum { B = 120 };
    static double t_[B], s_[B];
    static const double level[5] = {80, 0.002, 1, 3.3, 0.14};
    ctm_net *net, *view;
    ctm_tensor *x, *y;
    double top = 0;
    int i, d;
    size_t k;
    net_begin();
    net = net_small("theta");
    view = ctm_net_view(&net_memory, net, 1);
    for (i = 0; i < B; i++) {                                              // pairs come again; many share t only, or s only
        t_[i] = i < 30 ? level[i % 5] : i < 75 ? 5 : 0.5 + i;
        s_[i] = i < 30 ? level[i / 3 % 5] : i < 75 ? exp(0.3 * net_random((uint64_t)i)) : 0.002;
    }
    x = net_points("x", B, 1);
    y = net->forward(&net_tape, net, x, net_levels("t", B, t_), net_levels("s", B, s_));
    for (k = 0; k < y->len; k++) y->grad[k] = 1;
    ctm_backward_seeded(&net_tape, y);
    for (i = 0; i < B; i++) {
        ctm_tensor *one = ctm_matrix(&net_tape, "one", 1, 2), *y_one;
        net_tape.first = net_tape.last = NULL;
        memcpy(one->data, x->data + 2 * i, 2 * sizeof(ctm_real));
        y_one = view->forward(&net_tape, view, one, net_levels("t", 1, t_ + i), net_levels("s", 1, s_ + i));
        for (d = 0; d < 2; d++) CHECK_CLOSE(y_one->data[d], y->data[2 * i + d], (IN_DOUBLE ? 1e-14 : 2e-6) * (1 + fabs((double)y->data[2 * i + d])));
        y_one->grad[0] = y_one->grad[1] = 1;
        ctm_backward_seeded(&net_tape, y_one);
    }
    for (k = 0; k < net->len; k++) top = fmax(top, fabs((double)net->grad[k]));
    for (k = 0; k < net->len; k++) CHECK_CLOSE(view->grad[k], net->grad[k], (IN_DOUBLE ? 1e-13 : 5e-6) * top);
    net_end();
}

// ---- where gradients go in the consistency loss (invariants 31 to 33): theta is differentiated in x_est only, through the
// input of the frozen ema; the target, the ema and the inner jump of the target are constants.

enum { NET_B = 5 };
static const double net_t[NET_B] = {80, 5, 1.2, 0.4, 20}, net_u[NET_B] = {20, 2, 1.2 / 2, 0.1, 20.0 / 3}, net_s[NET_B] = {5, 2, 0.1, 0.002, 0.02};

// The loss with the target held at `target` (NULL: computed here from theta itself).
static ctm_tensor *net_ctm_loss(ctm_net *theta, ctm_net *ema, const double *s_, const ctm_tensor *fixed, ctm_tensor **target) {
    ctm_tensor *x_t = net_points("x_t", NET_B, 3), *x_u = net_points("x_u", NET_B, 1.5), *at_s, *x_target, *x_est;
    ctm_tensor *t = net_levels("t", NET_B, net_t), *u = net_levels("u", NET_B, net_u), *s = net_levels("s", NET_B, s_);
    x_target = ctm_x_target(&net_tape, theta, ema, x_u, u, s, &at_s);
    CHECK(x_target->grad == NULL && at_s->grad == NULL);
    if (fixed) memcpy(x_target->data, fixed->data, fixed->len * sizeof(ctm_real));
    if (target) *target = x_target;
    x_est = ctm_x_est(&net_tape, theta, ema, x_t, t, s, &at_s);
    CHECK(x_est->grad != NULL || !net_tape.recording);
    return ctm_weighted_mean(&net_tape, ctm_distance(&net_tape, x_est, x_target, CTM_L2, 0), NULL, NET_B);
}

static void net_check_flow(const double *s_) {
    const double h = IN_DOUBLE ? 1e-3 : 0.02, tolerance = IN_DOUBLE ? 1e-7 : 3e-3;
    static const double at[4] = {1, -1, 2, -2};
    ctm_net *theta, *ema;
    ctm_tensor *L, *target, *keep;
    ctm_real *ema_before;
    double top = 0, *slope;
    size_t k;
    int seen = 0, i;
    net_begin();
    theta = net_small("theta");
    ema = ctm_net_clone(&net_memory, net_small("ema"));
    L = net_ctm_loss(theta, ema, s_, NULL, &target);
    ctm_backward(&net_tape, L);
    keep = (ctm_tensor *)ctm_alloc(&net_memory, sizeof *keep);             // the target, out of the tape's way
    *keep = *target;
    keep->data = (ctm_real *)ctm_alloc(&net_memory, keep->len * sizeof(ctm_real));
    memcpy(keep->data, target->data, keep->len * sizeof(ctm_real));
    ema_before = (ctm_real *)ctm_alloc(&net_memory, ema->len * sizeof(ctm_real));
    memcpy(ema_before, ema->theta, ema->len * sizeof(ctm_real));
    slope = (double *)ctm_alloc(&net_memory, theta->len * sizeof(double));
    net_tape.recording = 0;
    for (k = 0; k < theta->len; k++) {
        ctm_real was = theta->theta[k];
        double f[4];
        for (i = 0; i < 4; i++) {
            ctm_tape_reset(&net_tape);
            theta->theta[k] = (ctm_real)((double)was + at[i] * h);
            f[i] = (double)net_ctm_loss(theta, ema, s_, keep, NULL)->data[0];
        }
        theta->theta[k] = was;
        slope[k] = (8 * (f[0] - f[1]) - (f[2] - f[3])) / (12 * h);
        top = fmax(top, fabs(slope[k]));
    }
    for (k = 0; k < theta->len; k++) {
        CHECK_CLOSE(theta->grad[k], slope[k], tolerance * top);
        seen += fabs(slope[k]) > 1e-3 * top;
    }
    CHECK(seen > 50 && top > 1e-3);                                        // nearly every weight has a say
    CHECK(memcmp(ema_before, ema->theta, ema->len * sizeof(ctm_real)) == 0 && ema->grad == NULL);

    // Other weights in ema change the loss (through the outer jump), unless nobody jumps: s = sigma_min everywhere.
    for (k = 0; k < ema->len; k++) ema->theta[k] += (ctm_real)0.1;
    ctm_tape_reset(&net_tape);
    {
        double with_other = (double)net_ctm_loss(theta, ema, s_, keep, NULL)->data[0], before;
        memcpy(ema->theta, ema_before, ema->len * sizeof(ctm_real));
        ctm_tape_reset(&net_tape);
        before = (double)net_ctm_loss(theta, ema, s_, keep, NULL)->data[0];
        if (s_ == net_s) CHECK(with_other != before); else CHECK(with_other == before);
    }
    net_end();
}
static void test_net_gradient_through_ema(void) { net_check_flow(net_s); }                     // invariants 31, 32
static void test_net_gradient_at_sigma_min(void) {
    static const double s_[NET_B] = {0.002, 0.002, 0.002, 0.002, 0.002};
    net_check_flow(s_);
}

// ---- optimisers

static void test_net_optimiser_golden(void) {
    static const char *const kind_name[2] = {"adam", "radam"};
    golden_file *g = golden_open("optimizer");
    const double *grads = golden(g, "in.grads", NULL);
    int isa, kind, step, i;
    net_begin();
    for (isa = 0; isa < CTM_ISA_COUNT; isa++) {
        if (!ctm_set_isa(&net_ctx, isa)) continue;
        for (kind = CTM_ADAM; kind <= CTM_RADAM; kind++) {
            ctm_opt o;
            ctm_real theta[7], ema_9[7], ema_999[7], grad[7], all[84], all_9[84], all_999[84];
            char name[64];
            ctm_opt_init(&net_memory, &o, kind, 7, golden_number(g, "lr"));
            CHECK(o.beta1 == golden_number(g, "beta1") && o.beta2 == golden_number(g, "beta2") && o.eps == golden_number(g, "eps") && o.k == 0);
            CHECK(golden_copy(g, "in.p0", theta) == 7);
            memcpy(ema_9, theta, sizeof theta);
            memcpy(ema_999, theta, sizeof theta);
            for (step = 0; step < 12; step++) {
                for (i = 0; i < 7; i++) grad[i] = (ctm_real)grads[step * 7 + i];
                ctm_opt_step(&net_ctx, &o, theta, grad);
                ctm_ema_step(&net_ctx, 7, ema_9, theta, 0.9);
                ctm_ema_step(&net_ctx, 7, ema_999, theta, 0.999);
                memcpy(all + 7 * step, theta, sizeof theta);
                memcpy(all_9 + 7 * step, ema_9, sizeof theta);
                memcpy(all_999 + 7 * step, ema_999, sizeof theta);
            }
            CHECK(o.k == 12);
            snprintf(name, sizeof name, "out.%s.params", kind_name[kind]);  golden_check(g, name, all, 84);
            snprintf(name, sizeof name, "out.%s.ema_9", kind_name[kind]);   golden_check(g, name, all_9, 84);
            snprintf(name, sizeof name, "out.%s.ema_999", kind_name[kind]); golden_check(g, name, all_999, 84);
        }
    }
    net_end();
    golden_close(g);
}

// RAdam's first five updates are lr·m̂ and nothing else (ten times the gradient, ten times the step); from the
// sixth on the size of the gradient cancels. So for beta2 = .999 and .9.
// [eq:radam]
static void test_radam_is_momentum_for_five_steps(void) {
    static const double beta2[2] = {0.999, 0.9};
    int b, step;
    net_begin();
    for (b = 0; b < 2; b++) {
        ctm_opt one, ten;
        ctm_real w = 0, w10 = 0, before, before10;
        double m = 0;
        ctm_opt_init(&net_memory, &one, CTM_RADAM, 1, 0.01);
        ctm_opt_init(&net_memory, &ten, CTM_RADAM, 1, 0.01);
        one.beta2 = ten.beta2 = beta2[b];
        for (step = 1; step <= 9; step++) {
            ctm_real g = (ctm_real)(1 + 0.1 * step), g10 = 10 * g;
            double ratio;
            before = w;
            before10 = w10;
            w = w10 = 0;                                                   // so that the update is read without rounding
            ctm_opt_step(&net_ctx, &one, &w, &g);
            ctm_opt_step(&net_ctx, &ten, &w10, &g10);
            ratio = (double)(w10 / w);
            m = 0.9 * m + 0.1 * (double)g;
            if (step <= 5) {
                CHECK_CLOSE(-w, 0.01 * m / (1 - pow(0.9, step)), IN_DOUBLE ? 1e-15 : 1e-8);
                CHECK_CLOSE(ratio, 10, 1e-5);
            } else {
                CHECK_CLOSE(ratio, 1, 1e-5);
            }
            w += before;
            w10 += before10;
        }
    }
    net_end();
}

// An update of more weights than one stretch holds is that of its parts, bit for bit, wherever they are cut and whoever works.
static void test_updates_of_many_weights(void) {
    enum { LONG = 2 * CTM__STRETCH + 1001, CUT = CTM__STRETCH + 77 };
    ctm_arena a;
    ctm_opt whole, left, right;
    ctm_real *grad, *one, *two, *ema_one, *ema_two;
    int step;
    size_t k, bytes = LONG * sizeof(ctm_real);
    net_begin();
    ctm_arena_init(&a, &net_ctx, "updates");
    grad = (ctm_real *)ctm_alloc(&a, bytes);
    one = (ctm_real *)ctm_alloc(&a, bytes); two = (ctm_real *)ctm_alloc(&a, bytes);
    ema_one = (ctm_real *)ctm_alloc(&a, bytes); ema_two = (ctm_real *)ctm_alloc(&a, bytes);
    ctm_opt_init(&a, &whole, CTM_ADAM, LONG, 0.01);
    ctm_opt_init(&a, &left, CTM_ADAM, CUT, 0.01);
    ctm_opt_init(&a, &right, CTM_ADAM, LONG - CUT, 0.01);
    for (step = 0; step < 3; step++) {
        for (k = 0; k < LONG; k++) grad[k] = (ctm_real)((double)((k * 7919 + (size_t)step) % 1013) / 500 - 1);
        net_ctx.threads = 3;
        ctm_opt_step(&net_ctx, &whole, one, grad);
        ctm_ema_step(&net_ctx, LONG, ema_one, one, 0.9);
        net_ctx.threads = 1;
        ctm_opt_step(&net_ctx, &left, two, grad);
        ctm_opt_step(&net_ctx, &right, two + CUT, grad + CUT);
        ctm_ema_step(&net_ctx, CUT, ema_two, two, 0.9);
        ctm_ema_step(&net_ctx, LONG - CUT, ema_two + CUT, two + CUT, 0.9);
        CHECK(memcmp(one, two, bytes) == 0 && memcmp(ema_one, ema_two, bytes) == 0 && (double)ema_one[LONG - 1] != 0);
    }
    ctm_arena_free(&a);
    net_end();
}

// with constant weights the average closes in by `rate` each step; and equal numbers stay equal.
// [eq:ema]
static void test_net_ema(void) {
    static const double rate[3] = {0.999, 0.9999, 0.5};
    ctm_real theta[21], ema[21], start[21];
    int r, i, k;
    net_begin();
    for (r = 0; r < 3; r++) {
        int steps = rate[r] == 0.5 ? 20 : 300;
        for (i = 0; i < 21; i++) { theta[i] = (ctm_real)net_random((uint64_t)i); ema[i] = start[i] = (ctm_real)net_random((uint64_t)i + 30); }
        for (k = 0; k < steps; k++) ctm_ema_step(&net_ctx, 21, ema, theta, rate[r]);
        for (i = 0; i < 21; i++)
            CHECK_CLOSE(ema[i] - theta[i], ((double)start[i] - (double)theta[i]) * pow(rate[r], steps), IN_DOUBLE ? 1e-12 : 4e-5);
    }
    ctm_ema_step(&net_ctx, 21, ema, theta, 0);                             // rate 0 takes the weights over
    CHECK(memcmp(ema, theta, sizeof ema) == 0);
    ctm_ema_step(&net_ctx, 21, ema, start, 1);                             // rate 1 keeps them
    CHECK(memcmp(ema, theta, sizeof ema) == 0);
    net_end();
}

// ---- the same bits for any number of threads

static void net_draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    double side = ctm_uniform(rng, step, 4 * index) < 0.5 ? -0.5 : 0.5;
    (void)user;
    x0[0] = (ctm_real)(side + 0.05 * ctm_normal(rng, step, 4 * index + 2));
    x0[1] = (ctm_real)(side + 0.05 * ctm_normal(rng, step, 4 * index + 3));
}

// Trains a little and returns the student's, the average's weights and the losses, one behind the other.
static size_t net_train(int threads, int authors, int shards, ctm_real *out, double *losses) {
    static const double mean[4] = {-0.5, -0.5, 0.5, 0.5};
    ctm_ctx ctx;
    ctm_arena a;
    ctm_config cfg = authors ? ctm_recipe_authors() : ctm_recipe_points();
    ctm_denoiser *teacher;
    ctm_net *net;
    ctm_trainer *tr;
    size_t len;
    int step;
    ctm_init(&ctx);
    ctx.threads = threads;
    ctm_arena_init(&a, &ctx, "train");
    cfg.hidden = 24; cfg.layers = 2; cfg.embed = 8; cfg.batch = 72; cfg.diagonal_batch = 30; cfg.steps = 6; cfg.shards = shards;
    teacher = ctm_mixture(&a, 2, 2, mean, NULL, 0.05);
    net = ctm_mlp(&a, &cfg, 2, 1);
    tr = ctm_trainer_new(&a, &cfg, net, teacher, net_draw, NULL);
    for (step = 0; step < 6; step++) {
        CHECK(ctm_train_step(tr));
        losses[2 * step] = tr->L_ctm;
        losses[2 * step + 1] = tr->L_dsm;
    }
    len = net->len;
    memcpy(out, net->theta, len * sizeof(ctm_real));
    memcpy(out + len, tr->ema[0]->theta, len * sizeof(ctm_real));
    ctm_trainer_free(tr);
    ctm_arena_free(&a);
    CHECK(ctx.allocated == 0);
    return 2 * len;
}

static void test_net_same_bits(void) {
    enum { ROOM = 20000 };
    ctm_real *one = (ctm_real *)malloc(ROOM * sizeof(ctm_real)), *more = (ctm_real *)malloc(ROOM * sizeof(ctm_real));
    double losses[12], losses_more[12], moved = 0;
    int authors, t;
    size_t n, k;
    for (authors = 0; authors < 2; authors++) {
        n = net_train(1, authors, 4, one, losses);
        CHECK(n <= ROOM);
        for (t = 2; t <= 7; t += 5) {
            CHECK(net_train(t, authors, 4, more, losses_more) == n);
            CHECK(memcmp(one, more, n * sizeof(ctm_real)) == 0);
            CHECK(memcmp(losses, losses_more, sizeof losses) == 0);
        }
        // Other shards round otherwise, and that is all: the same rows are drawn by their global numbers.
        net_train(2, authors, 5, more, losses_more);
        for (k = 0; k < 12; k++) CHECK_CLOSE(losses_more[k], losses[k], (IN_DOUBLE ? 1e-9 : 2e-3) * fabs(losses[k]));
        for (k = 0; k < n / 2; k++) moved += fabs((double)(one[k] - one[n / 2 + k]));
    }
    CHECK(moved > 0.01);                                                   // there was training, and the average lags behind
    free(one);
    free(more);
}

// Rows at equal (t,s,label) share their scale and shift, those with another label do not: every row as if it were alone, and the
// gradients too. A row without a label is the same whether the others have one or not.
static void test_net_labels(void) {
    enum { B = 60 };
    static double t_[B], s_[B];
    static const double level[3] = {80, 1, 0.14};
    int label[B], i, d;
    ctm_config cfg = golden_net_config();
    ctm_net *net, *view, *plain;
    ctm_tensor *x, *y, *free_y;
    double top = 0, apart = 0;
    size_t k;
    net_begin();
    cfg.classes = 4;
    net = ctm_mlp(&net_memory, &cfg, 2, 1);
    ctm_net_init(net, 9, 1);
    cfg.classes = 0;
    plain = ctm_mlp(&net_memory, &cfg, 2, 1);
    CHECK(plain->classes == 0 && ctm_param_named(plain, "map_label.weight") == NULL && net->count == plain->count + 1);
    CHECK(ctm_param_named(net, "map_label.weight")->shape[0] == 4 && ctm_param_named(net, "map_label.weight")->shape[1] == 8);
    view = ctm_net_view(&net_memory, net, 1);
    for (i = 0; i < B; i++) {
        t_[i] = level[i % 3];
        s_[i] = i < 30 ? 0.002 : 0.1;
        label[i] = i * 7 % 5 - 1;
    }
    x = net_points("x", B, 1);
    free_y = net->forward(&net_tape, net, x, net_levels("t", B, t_), net_levels("s", B, s_));
    net_tape.rows.label = label;
    net_tape.first = net_tape.last = NULL;
    y = net->forward(&net_tape, net, x, net_levels("t", B, t_), net_levels("s", B, s_));
    for (k = 0; k < y->len; k++) y->grad[k] = 1;
    ctm_backward_seeded(&net_tape, y);
    for (i = 0; i < B; i++) {
        ctm_tensor *one = ctm_matrix(&net_tape, "one", 1, 2), *y_one;
        net_tape.first = net_tape.last = NULL;
        memcpy(one->data, x->data + 2 * i, 2 * sizeof(ctm_real));
        net_tape.rows.label = label + i;
        y_one = view->forward(&net_tape, view, one, net_levels("t", 1, t_ + i), net_levels("s", 1, s_ + i));
        for (d = 0; d < 2; d++) {
            double gap = fabs((double)free_y->data[2 * i + d] - (double)y->data[2 * i + d]);
            CHECK_CLOSE(y_one->data[d], y->data[2 * i + d], (IN_DOUBLE ? 1e-14 : 2e-6) * (1 + fabs((double)y->data[2 * i + d])));
            if (label[i] < 0) CHECK(gap < (IN_DOUBLE ? 1e-14 : 1e-6)); else apart = fmax(apart, gap);
        }
        y_one->grad[0] = y_one->grad[1] = 1;
        ctm_backward_seeded(&net_tape, y_one);
    }
    CHECK(apart > 0.01);
    for (k = 0; k < net->len; k++) top = fmax(top, fabs((double)net->grad[k]));
    for (k = 0; k < net->len; k++) CHECK_CLOSE(view->grad[k], net->grad[k], (IN_DOUBLE ? 1e-13 : 5e-6) * top);
    net_tape.rows.label = NULL;
    net_end();
}

// Many classes at one level: each row gets its own class, whatever shares its place in the table of levels.
static void test_net_many_labels(void) {
    enum { B = 130, K = 64 };
    static double t_[B], s_[B];
    int label[B], i, d;
    ctm_config cfg = golden_net_config();
    ctm_net *net;
    ctm_tensor *x, *y;
    net_begin();
    cfg.classes = K;
    net = ctm_mlp(&net_memory, &cfg, 2, 1);
    ctm_net_init(net, 9, 1);
    for (i = 0; i < B; i++) {
        t_[i] = 1;
        s_[i] = 0.002;
        label[i] = i % (K + 1) - 1;
    }
    x = net_points("x", B, 1);
    for (i = 2; i < 2 * B; i++) x->data[i] = x->data[i % 2];                     // one point in all the classes
    net_tape.rows.label = label;
    y = net->forward(&net_tape, net, x, net_levels("t", B, t_), net_levels("s", B, s_));
    for (i = 0; i < B; i++) {
        ctm_tensor *one = ctm_matrix(&net_tape, "one", 1, 2), *y_one;
        memcpy(one->data, x->data, 2 * sizeof(ctm_real));
        net_tape.rows.label = label + i;
        y_one = net->forward(&net_tape, net, one, net_levels("t", 1, t_), net_levels("s", 1, s_));
        for (d = 0; d < 2; d++) CHECK_CLOSE(y_one->data[d], y->data[2 * i + d], (IN_DOUBLE ? 1e-14 : 2e-6) * (1 + fabs((double)y->data[2 * i + d])));
    }
    net_tape.rows.label = NULL;
    net_end();
}

// Jumps where some rows stay: the label goes with its row.
static void test_net_labels_of_moving_rows(void) {
    enum { B = 9 };
    static double t_[B], s_[B];
    int label[B], i, d;
    ctm_config cfg = golden_net_config();
    ctm_net *net;
    ctm_tensor *x, *y;
    net_begin();
    cfg.classes = 3;
    net = ctm_mlp(&net_memory, &cfg, 2, 1);
    ctm_net_init(net, 9, 1);
    for (i = 0; i < B; i++) {
        t_[i] = 2;
        s_[i] = i % 3 == 1 ? 2 : 0.3;                                           // every third stays
        label[i] = i % 4 - 1;
    }
    x = net_points("x", B, 1);
    net_tape.rows.label = label;
    y = ctm_G_theta(&net_tape, net, x, net_levels("t", B, t_), net_levels("s", B, s_));
    CHECK(net_tape.rows.label == label && net_tape.rows.number == NULL);
    for (i = 0; i < B; i++) {
        ctm_tensor *one = ctm_matrix(&net_tape, "one", 1, 2), *y_one;
        memcpy(one->data, x->data + 2 * i, 2 * sizeof(ctm_real));
        net_tape.rows.label = label + i;
        y_one = ctm_G_theta(&net_tape, net, one, net_levels("t", 1, t_ + i), net_levels("s", 1, s_ + i));
        for (d = 0; d < 2; d++) CHECK_CLOSE(y_one->data[d], y->data[2 * i + d], (IN_DOUBLE ? 1e-14 : 2e-6) * (1 + fabs((double)y->data[2 * i + d])));
    }
    net_tape.rows.label = NULL;
    net_end();
}

// The discriminator: parameters, shape, scale of its input, and that it ignores noise levels.
static void test_net_discriminator(void) {
    ctm_config cfg = golden_net_config();
    ctm_net *disc, *again;
    ctm_tensor *x, *l, *twice;
    int i;
    net_begin();
    cfg.gan_hidden = 10; cfg.gan_layers = 2;
    disc = ctm_mlp_discriminator(&net_memory, &cfg, 3);
    CHECK(disc->count == 6 && disc->dim == 3 && !disc->with_s && disc->grad != NULL);
    CHECK(strcmp(disc->param[disc->last_weight]->name, "logit.weight") == 0 && disc->param[disc->last_weight]->shape[1] == 1);
    x = ctm_matrix(&net_tape, "x", 4, 3);
    for (i = 0; i < 12; i++) x->data[i] = (ctm_real)net_random((uint64_t)i);
    l = disc->forward(&net_tape, disc, x, NULL, NULL);
    CHECK(l->ndim == 2 && l->shape[0] == 4 && l->shape[1] == 1 && l->data[0] != l->data[1]);
    cfg.noise.sigma_data = 1;                                                    // twice as wide data: the same logits at twice the points
    again = ctm_mlp_discriminator(&net_memory, &cfg, 3);
    twice = ctm_scale(&net_tape, x, 2);
    twice = again->forward(&net_tape, again, twice, NULL, NULL);
    for (i = 0; i < 4; i++) CHECK_CLOSE(twice->data[i], l->data[i], IN_DOUBLE ? 1e-14 : 1e-6);
    net_end();
}

static void run_networks(void) {
    RUN(net_golden_film);
    RUN(net_golden_film_teacher);
    RUN(net_golden_concat);
    RUN(net_golden_concat_teacher);
    RUN(net_parameters);
    RUN(net_own_parameters);
    RUN(net_init);
    RUN(net_copy_matching);
    RUN(net_clone_and_view);
    RUN(net_frozen);
    RUN(net_distinct_levels);
    RUN(net_gradient_through_ema);
    RUN(net_gradient_at_sigma_min);
    RUN(net_optimiser_golden);
    RUN(radam_is_momentum_for_five_steps);
    RUN(updates_of_many_weights); RUN(net_ema);
    RUN(net_same_bits);
    RUN(net_labels);
    RUN(net_many_labels);
    RUN(net_labels_of_moving_rows);
    RUN(net_discriminator);
}
