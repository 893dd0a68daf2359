// Chapters 16 and 17: the losses piece by piece against the oracle, and the training step against its pieces.
#include "golden.h"

// ---- golden losses --------------------------------------------------------------------------------------------------

// The nets and the recorded draws of one loss file (or of one of the steps of the training file).
typedef struct loss_case {
    golden_file *g;
    room         r;
    ctm_net     *model, *ema, *teacher_net;
    ctm_denoiser *teacher;
    ctm_noise    z;
    int          B, at_zero, at_s, distance, paper, substeps;
    // results
    ctm_tensor *t, *u, *s, *x_t, *x_u, *est_s, *target_s, *x_est, *x_target, *loss, *L_ctm, *dsm_loss, *L_dsm;
    double lambda;
    ctm_real *g_ctm, *g_dsm;
} loss_case;

static void loss_case_open(loss_case *c, const char *file) {
    const char *match, *distance, *kind;
    memset(c, 0, sizeof *c);
    c->g = golden_open(file);
    room_open(&c->r);
    kind = golden_text(c->g, "network");
    match = golden_text(c->g, "match");
    distance = golden_text(c->g, "distance");
    c->model = golden_net(&c->r.keep, c->g, kind, "w.model.", 1);
    c->ema = ctm_net_clone(&c->r.keep, golden_net(&c->r.keep, c->g, kind, "w.ema.", 1));         // a clone has no gradient: frozen
    c->teacher_net = golden_net(&c->r.keep, c->g, kind, "w.teacher.", 0);
    c->teacher = ctm_net_denoiser(&c->r.keep, c->teacher_net);
    c->z = ctm_noise_default();
    c->at_zero = strcmp(match, "s") != 0;
    c->at_s = strcmp(match, "zero") != 0 && match[0];
    c->distance = strcmp(distance, "l1") == 0 ? CTM_L1 : strcmp(distance, "huber") == 0 ? CTM_HUBER : CTM_L2;
    c->paper = strcmp(golden_text(c->g, "role"), "paper") == 0;
    c->substeps = golden_text(c->g, "substeps")[0] ? (int)golden_number(c->g, "substeps") : 1;
    c->g_ctm = (ctm_real *)ctm_alloc(&c->r.keep, c->model->len * sizeof(ctm_real));
    c->g_dsm = (ctm_real *)ctm_alloc(&c->r.keep, c->model->len * sizeof(ctm_real));
}
static void loss_case_close(loss_case *c) {
    room_close(&c->r);
    golden_close(c->g);
}

static ctm_tensor *unit_scale(ctm_tape *tp, const ctm_noise *z, ctm_tensor *x, ctm_tensor *s) {
    ctm_tensor *k = ctm_vector(tp, "k", s->shape[0]);
    int i;
    for (i = 0; i < s->shape[0]; i++) k->data[i] = (ctm_real)(z->sigma_data * ctm_c_in(z, (double)s->data[i]));
    return ctm_mix_rows(tp, k, x, NULL, NULL);
}

// Rows [step·B, (step+1)·B) of the recorded draws through the public pieces; gradients end in g_ctm, g_dsm.
static void loss_case_run(loss_case *c, int step) {
    ctm_tape *tp = &c->r.tape;
    const double *x0 = golden(c->g, "in.x0", NULL), *noise = golden(c->g, "in.noise", NULL), *ind_t = golden(c->g, "in.ind_t", NULL);
    const double *ind_u = golden(c->g, "in.ind_u", NULL), *ind_s = golden(c->g, "in.ind_s", NULL);
    const double *sigma = golden(c->g, "in.dsm_sigma", NULL), *dsm_noise = golden(c->g, "in.dsm_noise", NULL);
    ctm_tensor *w, *x_sigma, *x_clean, *sig, *d = NULL, *d_s;
    const ctm_tensor *last = c->model->param[c->model->last_weight];
    size_t at = (size_t)(last->data - c->model->theta), i;
    int B = c->B = 8, b, o = step * B;
    x0 += 2 * o; noise += 2 * o; dsm_noise += 2 * o; ind_t += o; ind_u += o; ind_s += o; sigma += o;
    ctm_tape_reset(tp);
    c->t = ctm_vector(tp, "t", B);
    c->u = ctm_vector(tp, "u", B);
    c->s = ctm_vector(tp, "s", B);
    for (b = 0; b < B; b++) {
        c->t->data[b] = (ctm_real)ctm_t_of_index(&c->z, ind_t[b]);
        c->u->data[b] = (ctm_real)ctm_t_of_index(&c->z, ind_u[b]);
        c->s->data[b] = (ctm_real)ctm_t_of_index(&c->z, ind_s[b]);
    }
    x_clean = matrix_of(tp, "x0", B, 2, x0);
    c->x_t = ctm_matrix(tp, "x_t", B, 2);
    for (i = 0; i < 16; i++) c->x_t->data[i] = x_clean->data[i] + c->t->data[i / 2] * (ctm_real)noise[i];
    c->x_u = ctm_solve(tp, c->teacher, &c->z, CTM_HEUN, c->x_t, ind_t, ind_u, c->substeps);
    c->x_target = ctm_x_target(tp, c->paper ? c->ema : c->model, c->at_zero ? c->ema : NULL, c->x_u, c->u, c->s, &c->target_s);
    c->x_est = ctm_x_est(tp, c->model, c->at_zero ? c->ema : NULL, c->x_t, c->t, c->s, &c->est_s);
    if (c->at_zero) d = ctm_distance(tp, c->x_est, c->x_target, c->distance, 0.03);
    if (c->at_s) {
        d_s = ctm_distance(tp, unit_scale(tp, &c->z, c->est_s, c->s), unit_scale(tp, &c->z, c->target_s, c->s), c->distance, 0.03);
        d = d ? ctm_scale(tp, ctm_add(tp, d, d_s), 0.5) : d_s;
    }
    c->loss = d;
    c->L_ctm = ctm_weighted_mean(tp, d, NULL, B);
    memset(c->model->grad, 0, c->model->len * sizeof(ctm_real));
    ctm_backward(tp, c->L_ctm);
    memcpy(c->g_ctm, c->model->grad, c->model->len * sizeof(ctm_real));

    sig = vector_of(tp, "sigma", B, sigma);
    w = ctm_vector(tp, "w", B);
    x_sigma = ctm_matrix(tp, "x_sigma", B, 2);
    for (i = 0; i < 16; i++) x_sigma->data[i] = x_clean->data[i] + sig->data[i / 2] * (ctm_real)dsm_noise[i];
    for (b = 0; b < B; b++) w->data[b] = (ctm_real)ctm_weight_karras(&c->z, sigma[b], sigma[b]);
    d = ctm_distance(tp, ctm_D_theta(tp, c->model, x_sigma, sig), x_clean, CTM_L2, 0);
    c->dsm_loss = ctm_vector(tp, "dsm_loss", B);
    for (b = 0; b < B; b++) c->dsm_loss->data[b] = w->data[b] * d->data[b];
    c->L_dsm = ctm_weighted_mean(tp, d, w, B);
    ctm_tape_zero_grads(tp);                                                     // L_ctm's pass left its gradients on the same tape
    memset(c->model->grad, 0, c->model->len * sizeof(ctm_real));
    ctm_backward(tp, c->L_dsm);
    memcpy(c->g_dsm, c->model->grad, c->model->len * sizeof(ctm_real));
    c->lambda = ctm_adaptive_weight(c->g_ctm + at, c->g_dsm + at, last->len);
    for (i = 0; i < c->model->len; i++) c->model->grad[i] = c->g_ctm[i] + (ctm_real)c->lambda * c->g_dsm[i];
}

static void check_real(golden_file *g, const char *name, double value) {
    ctm_real v = (ctm_real)value;
    golden_check(g, name, &v, 1);
}
static void check_params(golden_file *g, const char *prefix, const ctm_net *net, const ctm_real *numbers) {
    int p;
    for (p = 0; p < net->count; p++) golden_check_param(g, prefix, net->param[p], numbers + (net->param[p]->data - net->theta));
}

// [eq:x_t] [eq:x_est] [eq:x_target] [eq:L_ctm] [eq:L_dsm] [eq:lambda]: every intermediate, loss and parameter gradient of a file.
static void check_loss_file(const char *file) {
    loss_case c;
    loss_case_open(&c, file);
    loss_case_run(&c, 0);
    golden_check(c.g, "out.t", c.t->data, c.t->len);
    golden_check_rows(c.g, "out.u", c.u->data, c.u->len);
    golden_check_rows(c.g, "out.s", c.s->data, c.s->len);
    golden_check_rows(c.g, "out.x_t", c.x_t->data, c.x_t->len);
    golden_check_rows(c.g, "out.x_u", c.x_u->data, c.x_u->len);
    golden_check_rows(c.g, "out.est_s", c.est_s->data, c.est_s->len);
    golden_check_rows(c.g, "out.target_s", c.target_s->data, c.target_s->len);
    if (c.at_zero) {
        golden_check_rows(c.g, "out.x_est", c.x_est->data, c.x_est->len);
        golden_check_rows(c.g, "out.x_target", c.x_target->data, c.x_target->len);
    } else {
        CHECK(c.x_est == c.est_s && c.x_target == c.target_s);
    }
    golden_check(c.g, "out.loss", c.loss->data, c.loss->len);
    check_real(c.g, "out.ctm", (double)c.L_ctm->data[0]);
    golden_check(c.g, "out.dsm_loss", c.dsm_loss->data, c.dsm_loss->len);
    check_real(c.g, "out.dsm", (double)c.L_dsm->data[0]);
    check_real(c.g, "out.lambda_dsm", c.lambda);
    check_real(c.g, "out.total", (double)c.L_ctm->data[0] + c.lambda * (double)c.L_dsm->data[0]);
    check_params(c.g, "out.grad.ctm.", c.model, c.g_ctm);
    check_params(c.g, "out.grad.dsm.", c.model, c.g_dsm);
    check_params(c.g, "out.grad.total.", c.model, c.model->grad);
    loss_case_close(&c);
}
static void test_loss_golden_soft(void) {
    check_loss_file("loss_concat_soft_zero_l2");
    check_loss_file("loss_concat_soft_zero_l1");
    check_loss_file("loss_concat_soft_zero_huber");
    check_loss_file("loss_concat_soft_s_l2");
    check_loss_file("loss_concat_soft_half_huber");
}
static void test_loss_golden_paper_role(void) {
    check_loss_file("loss_concat_paper_zero_l2");
    check_loss_file("loss_concat_paper_half_l1");
}
static void test_loss_golden_local_and_global(void) {
    check_loss_file("loss_concat_local_zero_l2");
    check_loss_file("loss_concat_local_s_huber");
    check_loss_file("loss_concat_global_zero_l2");
    check_loss_file("loss_concat_global_s_l1");
}
static void test_loss_golden_film(void) {
    check_loss_file("loss_film_soft_zero_l2");
    check_loss_file("loss_film_soft_half_huber");
}

// [eq:L_dsm] with the exact denoiser in place of x_0 (the mixture of that file has components of different std).
static void test_loss_golden_diagonal(void) {
    golden_file *g = golden_open("loss_diag");
    room r;
    ctm_net *model;
    wide_mixture m;
    ctm_denoiser W;
    ctm_noise z = ctm_noise_default();
    ctm_tensor *x0, *sigma, *w, *x, *D, *gg, *d, *L, *per_row;
    const double *noise = golden(g, "in.noise", NULL);
    int i;
    room_open(&r);
    model = golden_net(&r.keep, g, "film", "w.model.", 1);
    m.K = 3;
    m.mean = golden(g, "in.means", NULL);
    m.std = golden(g, "in.stds", NULL);
    m.weight = golden(g, "in.weights", NULL);
    W = wide_denoiser(&m, 2);
    x0 = golden_tensor(&r.tape, g, "in.x0");
    sigma = golden_tensor(&r.tape, g, "in.sigma");
    x = ctm_matrix(&r.tape, "x", 8, 2);
    w = ctm_vector(&r.tape, "w", 8);
    for (i = 0; i < 16; i++) x->data[i] = x0->data[i] + sigma->data[i / 2] * (ctm_real)noise[i];
    for (i = 0; i < 8; i++) w->data[i] = (ctm_real)ctm_weight_karras(&z, (double)sigma->data[i], 0);
    D = W.denoise(&r.tape, &W, x, sigma);
    gg = ctm_D_theta(&r.tape, model, x, sigma);
    d = ctm_distance(&r.tape, gg, D, CTM_L2, 0);
    L = ctm_weighted_mean(&r.tape, d, w, 8);
    ctm_backward(&r.tape, L);
    per_row = ctm_vector(&r.tape, "loss", 8);
    for (i = 0; i < 8; i++) per_row->data[i] = w->data[i] * d->data[i];
    golden_check_rows(g, "out.x", x->data, x->len);
    golden_check_rows(g, "out.D", D->data, D->len);
    golden_check_rows(g, "out.g", gg->data, gg->len);
    golden_check(g, "out.loss", per_row->data, 8);
    golden_check(g, "out.diag", L->data, 1);
    golden_check_grads(g, "out.grad.", model);
    room_close(&r);
    golden_close(g);
}

// [alg:train] [eq:radam] [eq:ema] Ten recorded steps: log of each and the weights at the end.
static void test_train_golden_ten_steps(void) {
    loss_case c;
    ctm_opt opt;
    ctm_real log_[40];
    int n;
    loss_case_open(&c, "train");
    ctm_opt_init(&c.r.keep, &opt, CTM_RADAM, c.model->len, golden_number(c.g, "lr"));
    for (n = 0; n < 10; n++) {
        loss_case_run(&c, n);
        log_[4 * n] = c.L_ctm->data[0];
        log_[4 * n + 1] = c.L_dsm->data[0];
        log_[4 * n + 2] = (ctm_real)c.lambda;
        log_[4 * n + 3] = (ctm_real)((double)c.L_ctm->data[0] + c.lambda * (double)c.L_dsm->data[0]);
        ctm_opt_step(&c.r.ctx, &opt, c.model->theta, c.model->grad);
        ctm_ema_step(&c.r.ctx, c.model->len, c.ema->theta, c.model->theta, golden_number(c.g, "ema_rate"));
    }
    golden_check(c.g, "out.log", log_, 40);
    golden_check_rows(c.g, "out.log", log_, 40);
    golden_check_weights(c.g, "out.model.", c.model);
    golden_check_weights(c.g, "out.ema.", c.ema);
    loss_case_close(&c);
}

// ---- operations of the adversarial losses ---------------------------------------------------------------------------

static ctm_tensor *op_do_relu(ctm_tape *tp, ctm_tensor **in)     { return ctm_relu(tp, in[0]); }
static ctm_tensor *op_do_softplus(ctm_tape *tp, ctm_tensor **in) { return ctm_softplus(tp, in[0]); }
static void test_op_relu(void) {
    ctm_tensor *in[1], *out;
    size_t i;
    op_begin();
    in[0] = op_matrix("x", 5, 3);
    for (i = 0; i < 15; i++) in[0]->data[i] += (ctm_real)(in[0]->data[i] < 0 ? -0.2 : 0.2);     // no difference straddles the corner
    out = op_do_relu(&op_tape, in);
    for (i = 0; i < 15; i++) CHECK(out->data[i] == (in[0]->data[i] > 0 ? in[0]->data[i] : 0));
    op_check("relu", 1, in, op_do_relu);
    in[0]->data[0] = 0;
    memset(in[0]->grad, 0, 15 * sizeof(ctm_real));
    out = op_do_relu(&op_tape, in);
    out->grad[0] = 1;
    ctm_backward_seeded(&op_tape, out);
    CHECK(out->data[0] == 0 && in[0]->grad[0] == 0);                             // flat at the corner
    op_end();
}
static void test_op_softplus(void) {
    static const double far[4] = {-1000, -50, 50, 1000};
    ctm_tensor *in[1], *out;
    int i;
    op_begin();
    in[0] = op_matrix("x", 5, 3);
    out = op_do_softplus(&op_tape, in);
    for (i = 0; i < 15; i++) CHECK_CLOSE(out->data[i], log(1 + exp((double)in[0]->data[i])), OP_TOLERANCE);
    op_check("softplus", 1, in, op_do_softplus);
    in[0] = op_vector("far", 4);
    for (i = 0; i < 4; i++) { in[0]->data[i] = (ctm_real)far[i]; in[0]->grad[i] = 0; }
    out = op_do_softplus(&op_tape, in);
    for (i = 0; i < 4; i++) { CHECK_CLOSE(out->data[i], far[i] > 0 ? far[i] : 0, 1e-20); out->grad[i] = 1; }
    CHECK(out->data[1] > 0);                                                     // exp(-50), not lost
    ctm_backward_seeded(&op_tape, out);
    CHECK_CLOSE(in[0]->grad[0], 0, 1e-30);
    CHECK_CLOSE(in[0]->grad[3], 1, 1e-7);
    op_end();
}

// ---- golden: teachers' forms, weights, adversary, labels ------------------------------------------------------------

// The networks and draws of a file, with the trainer's own functions run on recorded rows: a shard without a trainer's law.
typedef struct form_case { loss_case c; ctm_trainer tr; ctm_shard sh; ctm_batch r; ctm_tensor *x0, *noise; } form_case;

// [B] levels of recorded indices; near: u one step after t, s at the end.
static void form_rows(form_case *f, int near) {
    ctm_tape *tp = &f->c.r.tape;
    const double *t = golden(f->c.g, "in.ind_t", NULL), *u = golden(f->c.g, "in.ind_u", NULL), *s = golden(f->c.g, "in.ind_s", NULL);
    const double *noise = golden(f->c.g, "in.noise", NULL);
    int i, q;
    ctm_batch *r = &f->r;
    memset(r, 0, sizeof *r);
    r->t = ctm_vector(tp, "t", 8);
    r->u = ctm_vector(tp, "u", 8);
    r->s = ctm_vector(tp, "s", 8);
    r->i_t = (double *)ctm_alloc(tp->arena, 8 * sizeof(double));
    r->i_u = (double *)ctm_alloc(tp->arena, 8 * sizeof(double));
    r->x0 = matrix_of(tp, "x0", 8, 2, golden(f->c.g, "in.x0", NULL));
    r->x_t = ctm_matrix(tp, "x_t", 8, 2);
    for (i = 0; i < 8; i++) {
        r->i_t[i] = near && t[i] > 16 ? 16 : t[i];
        r->i_u[i] = near ? r->i_t[i] + 1 : u[i];
        r->t->data[i] = (ctm_real)ctm_t_of_index(&f->c.z, r->i_t[i]);
        r->u->data[i] = (ctm_real)ctm_t_of_index(&f->c.z, r->i_u[i]);
        r->s->data[i] = (ctm_real)ctm_t_of_index(&f->c.z, near ? 17 : s[i]);
        for (q = 2 * i; q < 2 * i + 2; q++) r->x_t->data[q] = r->x0->data[q] + r->t->data[i] * (ctm_real)noise[q];
    }
}

// [eq:self_teach] [eq:cm] Every teacher's form, and consistency models: x_u, both ends, the loss of every row and all gradients.
static void test_loss_golden_forms(void) {
    static const struct { const char *name; ctm_teach_fn teach; int self, near; } form[5] = {
        {"self_solve", ctm_teach_solver, 1, 0}, {"self_jump", ctm_teach_jump, 1, 0}, {"self_each", ctm_teach_jumps, 1, 0},
        {"ct", NULL, 1, 1}, {"cd", ctm_teach_solver, 0, 1}};
    int k, i;
    for (k = 0; k < 5; k++) {
        form_case f;
        ctm_tape *tp;
        ctm_tensor *x_u, *est, *target, *d, *L;
        const double *noise;
        char name[80];
        memset(&f, 0, sizeof f);
        loss_case_open(&f.c, "forms");
        tp = &f.c.r.tape;
        noise = golden(f.c.g, "in.noise", NULL);
        form_rows(&f, form[k].near);
        f.tr.cfg = ctm_recipe_authors();
        f.tr.ema[0] = f.c.ema;
        f.tr.self = ctm_net_denoiser(&f.c.r.keep, f.c.ema);
        f.tr.teacher = form[k].self ? NULL : f.c.teacher;
        tp->recording = 0;
        x_u = form[k].teach ? form[k].teach(tp, &f.tr, &f.r) : ctm_matrix(tp, "x_u", 8, 2);
        tp->recording = 1;
        if (!form[k].teach) for (i = 0; i < 16; i++) x_u->data[i] = f.r.x0->data[i] + f.r.u->data[i / 2] * (ctm_real)noise[i];
        target = ctm_x_target(tp, form[k].near ? f.c.ema : f.c.model, f.c.ema, x_u, f.r.u, f.r.s, NULL);
        est = ctm_x_est(tp, f.c.model, f.c.ema, f.r.x_t, f.r.t, f.r.s, NULL);
        d = ctm_distance(tp, est, target, CTM_L2, 0);
        L = ctm_weighted_mean(tp, d, NULL, 8);
        ctm_backward(tp, L);
        snprintf(name, sizeof name, "out.%s.x_u", form[k].name);       golden_check_rows(f.c.g, name, x_u->data, 16);
        snprintf(name, sizeof name, "out.%s.x_est", form[k].name);     golden_check_rows(f.c.g, name, est->data, 16);
        snprintf(name, sizeof name, "out.%s.x_target", form[k].name);  golden_check_rows(f.c.g, name, target->data, 16);
        snprintf(name, sizeof name, "out.%s.loss", form[k].name);      golden_check(f.c.g, name, d->data, 8);
        snprintf(name, sizeof name, "out.%s.ctm", form[k].name);       golden_check(f.c.g, name, L->data, 1);
        snprintf(name, sizeof name, "out.grad.%s.", form[k].name);     golden_check_grads(f.c.g, name, f.c.model);
        loss_case_close(&f.c);
    }
}

// [eq:weights] The weights of the authors' code in L_CTM, and EDM's in L_DSM. (The oracle raises uniform_g to the power 1.5.)
static void test_loss_golden_weights(void) {
    static const struct { const char *name; ctm_weight_fn weight; double power; } form[6] = {
        {"uniform", ctm_weight_uniform, 1}, {"snr", ctm_weight_snr, 1}, {"karras", ctm_weight_karras, 1}, {"karras_weight", ctm_weight_karras, 1},
        {"truncated-snr", ctm_weight_truncated_snr, 1}, {"uniform_g", ctm_weight_uniform_g, 1.5}};
    int k, i;
    for (k = 0; k < 6; k++) {
        form_case f;
        ctm_tape *tp;
        ctm_tensor *x_u, *d, *w, *x, *sigma;
        const double *level, *noise;
        char out[60];
        memset(&f, 0, sizeof f);
        loss_case_open(&f.c, "forms");
        tp = &f.c.r.tape;
        form_rows(&f, 0);
        w = ctm_vector(tp, "w", 8);
        x_u = ctm_solve(tp, f.c.teacher, &f.c.z, CTM_HEUN, f.r.x_t, f.r.i_t, f.r.i_u, 1);
        d = ctm_distance(tp, ctm_x_est(tp, f.c.model, f.c.ema, f.r.x_t, f.r.t, f.r.s, NULL),
                         ctm_x_target(tp, f.c.model, f.c.ema, x_u, f.r.u, f.r.s, NULL), CTM_L2, 0);
        for (i = 0; i < 8; i++)
            w->data[i] = (ctm_real)pow(form[k].weight(&f.c.z, (double)f.r.t->data[i], (double)f.r.s->data[i]), form[k].power);
        snprintf(out, sizeof out, "out.weighted.%s", form[k].name);
        golden_check(f.c.g, out, ctm_weighted_mean(tp, d, w, 8)->data, 1);
        if (form[k].weight == ctm_weight_karras) {
            level = golden(f.c.g, "in.dsm_sigma", NULL);
            noise = golden(f.c.g, "in.dsm_noise", NULL);
            sigma = vector_of(tp, "sigma", 8, level);
            x = ctm_matrix(tp, "x", 8, 2);
            for (i = 0; i < 16; i++) x->data[i] = f.r.x0->data[i] + sigma->data[i / 2] * (ctm_real)noise[i];
            for (i = 0; i < 8; i++) w->data[i] = (ctm_real)ctm_weight_karras(&f.c.z, level[i], level[i]);
            d = ctm_distance(tp, ctm_D_theta(tp, f.c.model, x, sigma), f.r.x0, CTM_L2, 0);
            snprintf(out, sizeof out, "out.dsm.%s", form[k].name);
            golden_check(f.c.g, out, ctm_weighted_mean(tp, d, w, 8)->data, 1);
        }
        loss_case_close(&f.c);
    }
}

static ctm_net *golden_disc(ctm_arena *a, golden_file *g) {
    ctm_config cfg = golden_net_config();
    ctm_net *disc;
    cfg.gan_hidden = 16; cfg.gan_layers = 2;
    disc = ctm_mlp_discriminator(a, &cfg, 2);
    golden_load(g, "w.disc.", disc);
    return disc;
}

// [eq:L_gan] [eq:L_disc] [eq:lambda] Both sides of the three adversarial losses: logits, values, gradients of either network, the weight
// and its clamps, the total.
static void test_loss_golden_gan(void) {
    static const char *const kind[4] = {"", "hinge", "log", "minimax"};
    int k;
    for (k = CTM_GAN_HINGE; k <= CTM_GAN_MINIMAX; k++) {
        loss_case c;
        ctm_net *disc, *frozen;
        ctm_tensor *real, *fake, *one, *L, *x_fake, *zero;
        ctm_tape *tp;
        const ctm_tensor *last;
        size_t at;
        double lambda, total;
        char name[60];
        loss_case_open(&c, "gan");
        loss_case_run(&c, 0);
        tp = &c.r.tape;
        disc = golden_disc(&c.r.keep, c.g);
        frozen = ctm_net_view(&c.r.keep, disc, 0);
        check_real(c.g, "out.ctm", (double)c.L_ctm->data[0]);
        check_real(c.g, "out.dsm", (double)c.L_dsm->data[0]);
        check_real(c.g, "out.lambda_dsm", c.lambda);
        total = (double)c.L_ctm->data[0] + c.lambda * (double)c.L_dsm->data[0];
        x_fake = ctm_matrix(tp, "fake", 8, 2);                                   // a constant
        memcpy(x_fake->data, c.x_est->data, 16 * sizeof(ctm_real));

        // the discriminator's side
        real = disc->forward(tp, disc, matrix_of(tp, "x0", 8, 2, golden(c.g, "in.x0", NULL)), NULL, NULL);
        fake = disc->forward(tp, disc, x_fake, NULL, NULL);
        golden_check_rows(c.g, "out.real", real->data, 8);
        golden_check_rows(c.g, "out.fake", fake->data, 8);
        L = ctm_gan_disc_loss(tp, k, real, fake, 8);
        snprintf(name, sizeof name, "out.L_disc.%s", kind[k]);
        golden_check(c.g, name, L->data, 1);
        memset(disc->grad, 0, disc->len * sizeof(ctm_real));
        memset(c.model->grad, 0, c.model->len * sizeof(ctm_real));
        ctm_backward(tp, L);
        snprintf(name, sizeof name, "out.grad.disc.%s.", kind[k]);
        golden_check_grads(c.g, name, disc);

        // the student's, through the frozen discriminator
        ctm_tape_zero_grads(tp);
        memset(disc->grad, 0, disc->len * sizeof(ctm_real));
        memset(c.model->grad, 0, c.model->len * sizeof(ctm_real));
        fake = frozen->forward(tp, frozen, ctm_x_est(tp, c.model, c.ema, c.x_t, c.t, c.s, NULL), NULL, NULL);
        L = ctm_gan_student_loss(tp, k, fake, 8);
        snprintf(name, sizeof name, "out.L_gan.%s", kind[k]);
        golden_check(c.g, name, L->data, 1);
        ctm_backward(tp, L);
        snprintf(name, sizeof name, "out.grad.gan.%s.", kind[k]);
        golden_check_grads(c.g, name, c.model);
        {
            size_t i;
            for (i = 0; i < disc->len; i++) CHECK(disc->grad[i] == 0);
        }
        last = c.model->param[c.model->last_weight];
        at = (size_t)(last->data - c.model->theta);
        lambda = ctm_adaptive_weight(c.g_ctm + at, c.model->grad + at, last->len);
        lambda = lambda < 0.01 ? 0.01 : lambda > 10 ? 10 : lambda;
        snprintf(name, sizeof name, "out.lambda_gan.%s", kind[k]);
        check_real(c.g, name, lambda);
        snprintf(name, sizeof name, "out.total.%s", kind[k]);
        check_real(c.g, name, total + lambda * (double)L->data[0]);
        zero = ctm_fill(ctm_vector(tp, "zero", 8), 0.002);
        one = frozen->forward(tp, frozen, ctm_G_theta(tp, c.model, c.x_t, c.t, zero), NULL, NULL);
        golden_check_rows(c.g, "out.one_step", one->data, 8);
        loss_case_close(&c);
    }
}

static int *golden_labels(room *r, golden_file *g, size_t *n) {
    const double *v = golden(g, "in.label", n);
    int *label = (int *)ctm_alloc(&r->keep, *n * sizeof(int));
    size_t i;
    for (i = 0; i < *n; i++) label[i] = (int)v[i];
    return label;
}

// [eq:film] [eq:guidance] The network with labels: g and its gradients; guided jumps and denoisers for w = 0, 1, 2.5.
static void test_label_golden(void) {
    static const char *const weight[3] = {"0", "1", "2.5"};
    golden_file *g = golden_open("label");
    room r;
    ctm_config cfg = golden_net_config();
    ctm_net *net;
    ctm_tensor *x, *t, *s, *y;
    const double *gy = golden(g, "in.grad_y", NULL);
    size_t n, i;
    int k;
    int *label;
    room_open(&r);
    label = golden_labels(&r, g, &n);
    cfg.classes = 3;
    net = ctm_mlp(&r.keep, &cfg, 2, 1);
    golden_load(g, "w.net.", net);
    r.tape.rows.label = label;
    x = ctm_wants_grad(&r.tape, golden_tensor(&r.tape, g, "in.x"));
    t = golden_tensor(&r.tape, g, "in.t");
    s = golden_tensor(&r.tape, g, "in.s");
    y = ctm_g_theta(&r.tape, net, x, t, s);
    golden_check_rows(g, "out.g", y->data, y->len);
    for (i = 0; i < y->len; i++) y->grad[i] = (ctm_real)gy[i];
    ctm_backward_seeded(&r.tape, y);
    golden_check(g, "out.grad.x", x->grad, x->len);
    golden_check_grads(g, "out.grad.", net);
    for (k = 0; k < 3; k++) {
        char name[20];
        ctm_jump *G = ctm_guided_jump(&r.keep, net, strtod(weight[k], NULL));
        ctm_denoiser *D = ctm_guided_denoiser(&r.keep, net, strtod(weight[k], NULL));
        snprintf(name, sizeof name, "out.G.%s", weight[k]);
        golden_check_rows(g, name, G->jump(&r.tape, G, x, t, s)->data, x->len);
        snprintf(name, sizeof name, "out.D.%s", weight[k]);
        golden_check_rows(g, name, D->denoise(&r.tape, D, x, t)->data, x->len);
    }
    CHECK(r.tape.rows.label == label);
    room_close(&r);
    golden_close(g);
}

// ---- the invariants of the losses -----------------------------------------------------------------------------------

// Rows (t,u,s) of all kinds: s = u, s = sigma_min, the ends of the grid.
static const double tri_t[7] = {0, 0, 3, 5, 8, 12, 16}, tri_u[7] = {17, 4, 4, 9, 11, 13, 17}, tri_s[7] = {17, 9, 4, 17, 11, 15, 17};
static void tri_levels(ctm_tape *tp, ctm_tensor **t, ctm_tensor **u, ctm_tensor **s) {
    ctm_noise z = ctm_noise_default();
    int i;
    *t = ctm_vector(tp, "t", 7);
    *u = ctm_vector(tp, "u", 7);
    *s = ctm_vector(tp, "s", 7);
    for (i = 0; i < 7; i++) {
        (*t)->data[i] = (ctm_real)ctm_t_of_index(&z, tri_t[i]);
        (*u)->data[i] = (ctm_real)ctm_t_of_index(&z, tri_u[i]);
        (*s)->data[i] = (ctm_real)ctm_t_of_index(&z, tri_s[i]);
    }
}

// [eq:L_ctm] With student, EMA and solver all the exact flow of a Gaussian, x_est = x_target and the loss is zero, for every (t,u,s).
static void test_exact_flow_has_no_loss(void) {
    room r;
    ctm_net *net;
    ctm_jump *flow;
    ctm_tensor *t, *u, *s, *x, *x_u, *est, *target, *est_s, *target_s, *L;
    double zero[2] = {0, 0};
    ctm_noise z = ctm_noise_default();
    size_t i;
    room_open(&r);
    net = gauss_net(&r.keep, 2);
    flow = ctm_flow_jump(&r.keep, ctm_mixture(&r.keep, 2, 1, zero, NULL, 0.5), &z);
    tri_levels(&r.tape, &t, &u, &s);
    x = noised(&r.tape, "no loss", t, 2, 0.5);
    x_u = flow->jump(&r.tape, flow, x, t, u);
    target = ctm_x_target(&r.tape, net, net, x_u, u, s, &target_s);
    est = ctm_x_est(&r.tape, net, net, x, t, s, &est_s);
    for (i = 0; i < est->len; i++) {
        double size = larger(1, fabs((double)target_s->data[i]));
        CHECK_CLOSE(est_s->data[i], target_s->data[i], rounding(1e-6, 1e-8) * size);
        CHECK_CLOSE(est->data[i], target->data[i], rounding(1e-6, 1e-8));
        CHECK(fabs((double)est->data[i]) > 1e-4);
    }
    L = ctm_weighted_mean(&r.tape, ctm_distance(&r.tape, est, target, CTM_L2, 0), NULL, 7);
    CHECK_CLOSE(L->data[0], 0, rounding(1e-12, 1e-16));
    room_close(&r);
}

// The L_ctm of a student against a target that is held constant or computed anew; 0: no gradient wanted.
static double tri_loss(room *r, ctm_net *theta, ctm_net *ema, const ctm_real *x, const ctm_real *fixed_target, ctm_real *target_out, int backward) {
    ctm_tensor *t, *u, *s, *x_t, *target, *est, *L;
    ctm_noise z = ctm_noise_default();
    double value;
    ctm_denoiser *D = ring(&r->work);
    int recording = r->tape.recording;
    r->tape.recording = backward;
    tri_levels(&r->tape, &t, &u, &s);
    x_t = ctm_matrix(&r->tape, "x_t", 7, 2);
    memcpy(x_t->data, x, 14 * sizeof(ctm_real));
    if (fixed_target) {
        target = ctm_matrix(&r->tape, "target", 7, 2);
        memcpy(target->data, fixed_target, 14 * sizeof(ctm_real));
    } else {
        ctm_tensor *x_u = ctm_solve(&r->tape, D, &z, CTM_HEUN, x_t, tri_t, tri_u, 1);
        target = ctm_x_target(&r->tape, theta, ema, x_u, u, s, NULL);
    }
    if (target_out) memcpy(target_out, target->data, 14 * sizeof(ctm_real));
    est = ctm_x_est(&r->tape, theta, ema, x_t, t, s, NULL);
    L = ctm_weighted_mean(&r->tape, ctm_distance(&r->tape, est, target, CTM_HUBER, 0.03), NULL, 7);
    value = (double)L->data[0];
    if (backward) ctm_backward(&r->tape, L);
    ctm_tape_reset(&r->tape);
    r->tape.recording = recording;
    return value;
}
static void tri_points(ctm_real x[14]) {
    ctm_rng rng = ctm_stream(8, "tri");
    ctm_noise z = ctm_noise_default();
    int i;
    for (i = 0; i < 14; i++) x[i] = (ctm_real)(0.5 * ctm_normal(&rng, 0, (uint64_t)i) + ctm_t_of_index(&z, tri_t[i / 2]) * ctm_normal(&rng, 1, (uint64_t)i));
}

// [eq:x_target] The target is a constant: whether it is computed from the same weights or handed in, the gradient has the same bits;
// the EMA's weights receive none even if they could, and the teacher is not on the tape.
static void test_target_gets_no_gradient(void) {
    room r;
    ctm_net *theta, *ema, *open_ema;
    ctm_real x[14], target[14], *first;
    ctm_tensor *t, *u, *s, *xt, *x_t, *y;
    size_t i, n = 0;
    room_open(&r);
    theta = wild_net(&r.keep, 2, 1, 1);
    ema = ctm_net_clone(&r.keep, wild_net(&r.keep, 2, 1, 2));
    first = (ctm_real *)ctm_alloc(&r.keep, theta->len * sizeof(ctm_real));
    tri_points(x);
    tri_loss(&r, theta, ema, x, NULL, target, 1);
    memcpy(first, theta->grad, theta->len * sizeof(ctm_real));
    memset(theta->grad, 0, theta->len * sizeof(ctm_real));
    tri_loss(&r, theta, ema, x, target, NULL, 1);
    CHECK(same_bits(first, theta->grad, theta->len));
    for (i = 0; i < theta->len; i++) n += first[i] != 0;
    CHECK(n > theta->len / 2);                                                   // and it is not all zero
    open_ema = wild_net(&r.keep, 2, 1, 2);                                       // an EMA that has a gradient buffer: only the target is frozen
    tri_levels(&r.tape, &t, &u, &s);
    xt = ctm_wants_grad(&r.tape, ctm_matrix(&r.tape, "x_u", 7, 2));
    memcpy(xt->data, x, 14 * sizeof(ctm_real));
    y = ctm_x_target(&r.tape, theta, open_ema, xt, u, s, NULL);
    CHECK(y->grad == NULL && r.tape.first == NULL && r.tape.recording == 1);
    x_t = ctm_matrix(&r.tape, "x_t", 7, 2);
    memcpy(x_t->data, x, 14 * sizeof(ctm_real));
    ctm_solve(&r.tape, ctm_net_denoiser(&r.keep, open_ema), &open_ema->noise, CTM_HEUN, xt, tri_t, tri_u, 1);
    CHECK(r.tape.first == NULL);                                                 // neither does the solver record
    for (i = 0; i < open_ema->len; i++) CHECK(open_ema->grad[i] == 0);
    room_close(&r);
}

// [eq:x_est] The gradient passes through the frozen EMA's input into theta: finite differences with the target held fixed; with the
// target following theta the differences are others.
static void test_gradient_passes_through_the_average(void) {
    room r;
    ctm_net *theta, *ema;
    ctm_real x[14], target[14];
    double h = 1e-5, moved = 0;
    int p;
    if (!IN_DOUBLE) SKIP("finite differences need double");
    room_open(&r);
    theta = wild_net(&r.keep, 2, 1, 1);
    ema = ctm_net_clone(&r.keep, wild_net(&r.keep, 2, 1, 2));
    tri_points(x);
    tri_loss(&r, theta, ema, x, NULL, target, 1);
    for (p = 0; p < theta->count; p++) {
        ctm_tensor *w = theta->param[p];
        size_t step = w->len / 3 + 1, i;
        for (i = 0; i < w->len; i += step) {
            ctm_real keep = w->data[i];
            double up, down, up_moving;
            w->data[i] = keep + (ctm_real)h;
            up = tri_loss(&r, theta, ema, x, target, NULL, 0);
            up_moving = tri_loss(&r, theta, ema, x, NULL, NULL, 0);
            w->data[i] = keep - (ctm_real)h;
            down = tri_loss(&r, theta, ema, x, target, NULL, 0);
            moved = larger(moved, fabs(up_moving - up) / h);
            w->data[i] = keep;
            CHECK_CLOSE((up - down) / (2 * h), w->grad[i], 1e-7 + 1e-5 * fabs((double)w->grad[i]));
        }
    }
    CHECK(moved > 1e-4);
    room_close(&r);
}

// [eq:x_est] At s = sigma_min the outer jump is nothing: the gradient is that of the inner term alone, bit for bit.
static void test_estimate_at_the_end_needs_no_second_jump(void) {
    room r;
    ctm_net *theta, *ema;
    ctm_real *first;
    ctm_tensor *t, *s, *x, *y, *at_s;
    int pass;
    room_open(&r);
    theta = wild_net(&r.keep, 2, 1, 3);
    ema = ctm_net_clone(&r.keep, wild_net(&r.keep, 2, 1, 4));
    first = (ctm_real *)ctm_alloc(&r.keep, theta->len * sizeof(ctm_real));
    for (pass = 0; pass < 2; pass++) {
        size_t i;
        t = levels(&r.tape, "t", 5, 3);
        s = levels(&r.tape, "s", 5, theta->noise.sigma_min);
        x = noised(&r.tape, "inner", t, 2, 0.5);
        y = ctm_x_est(&r.tape, theta, pass ? NULL : ema, x, t, s, &at_s);
        CHECK(y == at_s);
        for (i = 0; i < y->len; i++) y->grad[i] = (ctm_real)(1 + (double)i);
        ctm_backward_seeded(&r.tape, y);
        if (pass == 0) {
            memcpy(first, theta->grad, theta->len * sizeof(ctm_real));
            memset(theta->grad, 0, theta->len * sizeof(ctm_real));
        }
        ctm_tape_reset(&r.tape);
    }
    CHECK(same_bits(first, theta->grad, theta->len));
    CHECK(first[0] != 0);
    room_close(&r);
}

// [eq:x_target] Global: s = u, the target at s is the solver's own point. Local with s = sigma_min (CD): the target is one jump to
// the end by the inner network, no outer jump.
static void test_local_and_global_targets_are_special_cases(void) {
    room r;
    ctm_net *theta, *ema;
    ctm_tensor *u, *s, *x_u, *y, *at_s, *zero, *cd;
    room_open(&r);
    theta = wild_net(&r.keep, 2, 1, 5);
    ema = ctm_net_clone(&r.keep, wild_net(&r.keep, 2, 1, 6));
    u = levels(&r.tape, "u", 4, 0.7);
    s = levels(&r.tape, "s", 4, 0.7);
    x_u = noised(&r.tape, "global", u, 2, 0.5);
    y = ctm_x_target(&r.tape, theta, NULL, x_u, u, s, &at_s);
    CHECK(y == at_s && same_bits(y->data, x_u->data, y->len));
    zero = levels(&r.tape, "zero", 4, 0.002);
    y = ctm_x_target(&r.tape, theta, ema, x_u, u, zero, &at_s);
    cd = ctm_G_theta(&r.tape, theta, x_u, u, zero);
    CHECK(same_bits(y->data, cd->data, y->len) && y == at_s);
    room_close(&r);
}

// [eq:x_target] When s = u the inner jump of the target is the identity, so x_target = G_ema(x_u, u, sigma_min), whoever is inner.
static void test_target_is_the_teachers_point_where_s_is_u(void) {
    room r;
    ctm_net *theta, *ema;
    ctm_tensor *u, *x_u, *y, *direct, *at_s;
    room_open(&r);
    theta = wild_net(&r.keep, 2, 1, 5);
    ema = ctm_net_clone(&r.keep, wild_net(&r.keep, 2, 1, 6));
    u = levels(&r.tape, "u", 4, 1.5);
    x_u = noised(&r.tape, "s is u", u, 2, 0.5);
    y = ctm_x_target(&r.tape, theta, ema, x_u, u, u, &at_s);
    direct = ctm_G_theta(&r.tape, ema, x_u, u, levels(&r.tape, "zero", 4, 0.002));
    CHECK(same_bits(y->data, direct->data, y->len));
    CHECK(same_bits(at_s->data, x_u->data, x_u->len));
    y = ctm_x_target(&r.tape, ema, ema, x_u, u, u, NULL);
    CHECK(same_bits(y->data, direct->data, y->len));
    room_close(&r);
}

// [eq:lambda] scaling; lambda·|grad X| = |grad L| up to 1e-4. 40: the clamps.
static void test_adaptive_weight_balances_and_is_clamped(void) {
    ctm_real L[4] = {3, 0, -4, 0}, X[4] = {0, 6, 0, 8}, Y[4], zero[4] = {0, 0, 0, 0}, tiny[4] = {(ctm_real)1e-3, 0, 0, 0};
    double base = ctm_adaptive_weight(L, X, 4);
    int i;
    CHECK_CLOSE(base, 5 / (10 + 1e-4), 1e-12);
    for (i = 0; i < 4; i++) Y[i] = 7 * L[i];
    CHECK_CLOSE(ctm_adaptive_weight(Y, X, 4), 7 * base, 1e-12);
    for (i = 0; i < 4; i++) Y[i] = 7 * X[i];
    CHECK_CLOSE(ctm_adaptive_weight(L, Y, 4), 5 / (70 + 1e-4), 1e-12);
    CHECK_CLOSE(base * 10, 5, 1e-4);
    CHECK_CLOSE(ctm_adaptive_weight(tiny, zero, 4), 10, 1e-6);                   // |grad L|/1e-4
    CHECK(ctm_adaptive_weight(L, zero, 4) == 1e4);                               // clamped
    CHECK(ctm_adaptive_weight(zero, X, 4) == 0);
    CHECK(ctm_adaptive_weight(zero, zero, 4) == 0);
}

// [eq:ema] after k steps of constant theta, EMA - theta has shrunk by rate^k.
static void test_average_closes_in_geometrically(void) {
    room r;
    ctm_real theta[20], ema[20];
    int i, k;
    room_open(&r);
    for (i = 0; i < 20; i++) { theta[i] = (ctm_real)(0.1 * i); ema[i] = (ctm_real)(0.1 * i + 1 - 0.05 * i); }
    for (k = 0; k < 50; k++) ctm_ema_step(&r.ctx, 20, ema, theta, 0.9);
    for (i = 0; i < 20; i++) CHECK_CLOSE((double)ema[i] - (double)theta[i], pow(0.9, 50) * (1 - 0.05 * i), rounding(1e-6, 1e-14));
    room_close(&r);
}

// [eq:film] With map_s zeroed, a student that has the teacher's weights is the teacher for every s, and G is one Euler step; and
// the trainer starts with EMAs equal to the student.
static void no_draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    (void)user; (void)rng; (void)step; (void)index;
    x0[0] = x0[1] = 0;
}
static void test_student_from_teachers_weights_jumps_as_euler(void) {
    static const double t_[5] = {80, 10, 1, 0.3, 0.01}, s_[5] = {0.002, 9, 0.5, 0.002, 0.005};
    room r;
    ctm_net *teacher, *student;
    ctm_tensor *t, *s, *x, *D, *g, *G, *map_s;
    ctm_config cfg = golden_net_config();
    ctm_trainer *tr;
    int i, d;
    room_open(&r);
    teacher = wild_net(&r.keep, 2, 0, 10);
    student = wild_net(&r.keep, 2, 1, 11);
    CHECK(ctm_net_copy_matching(student, teacher) == teacher->count);
    CHECK(student->count == teacher->count + 1);
    t = vector_of(&r.tape, "t", 5, t_);
    s = vector_of(&r.tape, "s", 5, s_);
    x = noised(&r.tape, "from teacher", t, 2, 0.5);
    D = ctm_D_theta(&r.tape, teacher, x, t);
    g = ctm_g_theta(&r.tape, student, x, t, s);
    CHECK(!same_bits(D->data, g->data, D->len));                                 // a random s-branch disturbs
    map_s = ctm_param_named(student, "map_s.weight");
    CHECK(map_s != NULL);
    if (map_s) memset(map_s->data, 0, map_s->len * sizeof(ctm_real));
    g = ctm_g_theta(&r.tape, student, x, t, s);
    CHECK(same_bits(D->data, g->data, D->len));
    G = ctm_G_theta(&r.tape, student, x, t, s);
    for (i = 0; i < 5; i++)
        for (d = 2 * i; d < 2 * i + 2; d++)
            CHECK_CLOSE(G->data[d], (double)x->data[d] + (s_[i] - t_[i]) * ((double)x->data[d] - (double)D->data[d]) / t_[i],
                        rounding(1e-6, 1e-13) * larger(1, fabs((double)x->data[d])));
    cfg.aim = ctm_aim_data; cfg.level = ctm_level_authors;
    cfg.ema_rate[1] = 0.99;
    tr = ctm_trainer_new(&r.keep, &cfg, student, NULL, no_draw, NULL);
    CHECK(tr->emas == 2);
    for (i = 0; i < tr->emas; i++) CHECK(same_bits(tr->ema[i]->theta, student->theta, student->len) && tr->ema[i]->grad == NULL);
    ctm_trainer_free(tr);
    room_close(&r);
}

// self-taught without DSM, the degenerate student g = 0, G = (s/t)x has zero loss on any data; its DSM loss is not zero.
static void test_student_that_forgets_the_data_has_no_loss(void) {
    room r;
    ctm_net *zero;
    ctm_denoiser *self;
    ctm_tensor *t, *u, *s, *x, *x_u, *est, *target, *d;
    size_t i;
    room_open(&r);
    zero = constant_net(&r.keep, 2, 0);
    zero->noise.inner = CTM_INNER_NONE;
    self = ctm_net_denoiser(&r.keep, zero);
    tri_levels(&r.tape, &t, &u, &s);
    x = noised(&r.tape, "degenerate", t, 2, 0.5);
    x_u = ctm_solve(&r.tape, self, &zero->noise, CTM_HEUN, x, tri_t, tri_u, 1);
    target = ctm_x_target(&r.tape, zero, zero, x_u, u, s, NULL);
    est = ctm_x_est(&r.tape, zero, zero, x, t, s, NULL);
    for (i = 0; i < est->len; i++) CHECK_CLOSE(est->data[i], target->data[i], rounding(1e-6, 1e-14) * fabs((double)est->data[i]) + 1e-12);
    d = ctm_distance(&r.tape, ctm_D_theta(&r.tape, zero, x, t), x, CTM_L2, 0);
    CHECK((double)d->data[3] > 0);
    room_close(&r);
}

// ---- the training step ----------------------------------------------------------------------------------------------

// Data: two points, each blurred.
static const double pair_mean[4] = {-0.5, -0.4, 0.5, 0.4};
static void pair_draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    int k = ctm_uniform(rng, step, 8 * index) < 0.5 ? 0 : 1, d;
    (void)user;
    for (d = 0; d < 2; d++) x0[d] = (ctm_real)(pair_mean[2 * k + d] + 0.1 * ctm_normal(rng, step, 8 * index + 4 + (uint64_t)d));
}
static ctm_config small_config(void) {
    ctm_config c = ctm_recipe_points();
    c.hidden = 16; c.layers = 2; c.embed = 8;
    c.batch = 48; c.diagonal_batch = 24; c.shards = 4;
    c.substeps = 1;
    c.steps = 40;
    c.seed = 3;
    return c;
}
static ctm_config small_authors(void) {
    ctm_config c = small_config(), a = ctm_recipe_authors();
    a.hidden = c.hidden; a.layers = c.layers; a.embed = c.embed;
    a.batch = c.batch; a.diagonal_batch = 30; a.shards = c.shards; a.steps = c.steps; a.seed = c.seed;
    a.lr = 1e-3;
    return a;
}
typedef struct run { room r; ctm_net *net; ctm_denoiser *teacher; ctm_trainer *tr; } run;
static void run_open_with(run *n, const ctm_config *c, ctm_draw_fn draw, void *user) {
    room_open(&n->r);
    n->teacher = ctm_mixture(&n->r.keep, 2, 2, pair_mean, NULL, 0.1);
    n->net = ctm_mlp(&n->r.keep, c, 2, 1);
    n->tr = ctm_trainer_new(&n->r.keep, c, n->net, n->teacher, draw, user);
}
static void run_open(run *n, const ctm_config *c) { run_open_with(n, c, pair_draw, NULL); }
static void run_close(run *n) { ctm_trainer_free(n->tr); room_close(&n->r); }
static int run_same(const run *a, const run *b) {
    int i, same = a->tr->step == b->tr->step && a->tr->opt.k == b->tr->opt.k && same_bits(a->net->theta, b->net->theta, a->net->len) &&
                  same_bits(a->tr->opt.m, b->tr->opt.m, a->net->len) && same_bits(a->tr->opt.v, b->tr->opt.v, a->net->len);
    for (i = 0; i < a->tr->emas; i++) same = same && same_bits(a->tr->ema[i]->theta, b->tr->ema[i]->theta, a->net->len);
    return same;
}

// [alg:train] One call of ctm_train_step against the same thing put together from public pieces, for both recipes.
static void check_step_by_hand(const ctm_config *cfg, int steps) {
    run n;
    room r;
    ctm_net *theta, *ema[4];
    ctm_opt opt;
    ctm_real *g_ctm, *g_dsm;
    size_t at, k;
    int step, i, e, emas = 0;
    const ctm_tensor *last;
    double tol = rounding(2e-5, 1e-10);
    run_open(&n, cfg);
    room_open(&r);
    theta = ctm_mlp(&r.keep, cfg, 2, 1);
    for (e = 0; e < 4 && cfg->ema_rate[e] > 0; e++) ema[emas++] = ctm_net_clone(&r.keep, theta);
    ctm_opt_init(&r.keep, &opt, cfg->optimiser, theta->len, cfg->lr);
    opt.beta2 = cfg->beta2;
    g_ctm = (ctm_real *)ctm_alloc(&r.keep, theta->len * sizeof(ctm_real));
    g_dsm = (ctm_real *)ctm_alloc(&r.keep, theta->len * sizeof(ctm_real));
    last = theta->param[theta->last_weight];
    at = (size_t)(last->data - theta->theta);
    CHECK(strcmp(last->name, "out.weight") == 0);
    for (step = 0; step < steps; step++) {
        ctm_tape *tp = &r.tape;
        int B = cfg->batch, Q = cfg->diagonal_batch;
        ctm_tensor *t = ctm_vector(tp, "t", B), *u = ctm_vector(tp, "u", B), *s = ctm_vector(tp, "s", B), *w = ctm_vector(tp, "w", B), *x = ctm_matrix(tp, "x", B, 2);
        ctm_tensor *x_u, *est, *est_s, *target, *target_s, *d, *L, *sigma, *clean, *y;
        double *from = (double *)ctm_alloc(&r.work, (size_t)B * sizeof(double)), *to = (double *)ctm_alloc(&r.work, (size_t)B * sizeof(double));
        double L_ctm, L_dsm, lambda = cfg->lambda_dsm, done = (double)step / (double)cfg->steps, norm = 0;
        for (i = 0; i < B; i++) {
            double q[3];
            int c;
            cfg->times(cfg, (uint64_t)step, (uint64_t)i, q);
            from[i] = q[0]; to[i] = q[1];
            t->data[i] = (ctm_real)ctm_t_of_index(&cfg->noise, q[0]);
            u->data[i] = (ctm_real)ctm_t_of_index(&cfg->noise, q[1]);
            s->data[i] = (ctm_real)ctm_t_of_index(&cfg->noise, q[2]);
            w->data[i] = (ctm_real)cfg->weight(&cfg->noise, ctm_t_of_index(&cfg->noise, q[0]), ctm_t_of_index(&cfg->noise, q[2]));
            pair_draw(NULL, &n.tr->rng_data, (uint64_t)step, (uint64_t)i, x->data + 2 * i);
            for (c = 0; c < 2; c++) x->data[2 * i + c] += t->data[i] * (ctm_real)ctm_normal(&n.tr->rng_noise, (uint64_t)step, (uint64_t)(2 * i + c));
        }
        x_u = ctm_solve(tp, n.teacher, &cfg->noise, CTM_HEUN, x, from, to, cfg->substeps);
        target = ctm_x_target(tp, cfg->target_ema ? ema[0] : theta, cfg->share_at_s < 1 ? ema[0] : NULL, x_u, u, s, &target_s);
        est = ctm_x_est(tp, theta, cfg->share_at_s < 1 ? ema[0] : NULL, x, t, s, &est_s);
        d = ctm_distance(tp, est, target, cfg->distance, cfg->huber_c);
        if (cfg->share_at_s > 0) {
            y = ctm_distance(tp, unit_scale(tp, &cfg->noise, est_s, s), unit_scale(tp, &cfg->noise, target_s, s), cfg->distance, cfg->huber_c);
            d = cfg->share_at_s == 1 ? y : ctm_add(tp, ctm_scale(tp, d, 1 - cfg->share_at_s), ctm_scale(tp, y, cfg->share_at_s));
        }
        L = ctm_weighted_mean(tp, d, w, B);
        L_ctm = (double)L->data[0];
        memset(theta->grad, 0, theta->len * sizeof(ctm_real));
        ctm_backward(tp, L);
        memcpy(g_ctm, theta->grad, theta->len * sizeof(ctm_real));
        ctm_tape_reset(tp);

        L_dsm = 0;
        memset(theta->grad, 0, theta->len * sizeof(ctm_real));
        if (cfg->aim) {
            sigma = ctm_vector(tp, "sigma", Q);
            w = ctm_vector(tp, "w", Q);
            clean = ctm_matrix(tp, "clean", Q, 2);
            x = ctm_matrix(tp, "x", Q, 2);
            for (i = 0; i < Q; i++) {
                int c;
                double level = cfg->level(cfg, (uint64_t)step, (uint64_t)i);
                sigma->data[i] = (ctm_real)level;
                w->data[i] = (ctm_real)((level * level + 0.25) / (level * level * 0.25));
                pair_draw(NULL, &n.tr->rng_dsm_data, (uint64_t)step, (uint64_t)i, clean->data + 2 * i);
                for (c = 0; c < 2; c++)
                    x->data[2 * i + c] = clean->data[2 * i + c] + sigma->data[i] * (ctm_real)ctm_normal(&n.tr->rng_dsm_noise, (uint64_t)step, (uint64_t)(2 * i + c));
            }
            y = cfg->aim == ctm_aim_teacher ? n.teacher->denoise(tp, n.teacher, x, sigma) : clean;
            L = ctm_weighted_mean(tp, ctm_distance(tp, ctm_D_theta(tp, theta, x, sigma), y, CTM_L2, 0), w, Q);
            L_dsm = (double)L->data[0];
            ctm_backward(tp, L);
        }
        memcpy(g_dsm, theta->grad, theta->len * sizeof(ctm_real));
        ctm_tape_reset(tp);
        if (!cfg->aim) lambda = 0;
        else if (cfg->adaptive) lambda *= ctm_adaptive_weight(g_ctm + at, g_dsm + at, last->len);
        for (k = 0; k < theta->len; k++) {
            theta->grad[k] = g_ctm[k] + (ctm_real)lambda * g_dsm[k];
            norm += (double)theta->grad[k] * (double)theta->grad[k];
        }
        norm = sqrt(norm);
        if (cfg->clip > 0 && norm > cfg->clip) for (k = 0; k < theta->len; k++) theta->grad[k] *= (ctm_real)(cfg->clip / norm);
        if (cfg->warmup > 0 && done < cfg->warmup) opt.lr = cfg->lr * (step + 1) / (cfg->warmup * (double)cfg->steps + 1);
        else opt.lr = cfg->lr * (cfg->final_lr + (1 - cfg->final_lr) * 0.5 * (1 + cos(3.14159265358979324 * (done - cfg->warmup) / (1 - cfg->warmup))));
        ctm_opt_step(&r.ctx, &opt, theta->theta, theta->grad);
        for (e = 0; e < emas; e++) {
            double rate = cfg->ema_rate[e];
            if (cfg->ema_warmup && rate > (step + 1.0) / (step + 10.0)) rate = (step + 1.0) / (step + 10.0);
            ctm_ema_step(&r.ctx, theta->len, ema[e]->theta, theta->theta, rate);
        }

        CHECK(ctm_train_step(n.tr) == 1);
        CHECK(n.tr->step == step + 1);
        CHECK_CLOSE(n.tr->L_ctm, L_ctm, tol * L_ctm);
        CHECK_CLOSE(n.tr->L_dsm, L_dsm, tol * L_dsm);
        CHECK_CLOSE(n.tr->lambda_dsm, lambda, tol * lambda);
        CHECK_CLOSE(n.tr->grad_norm, norm, tol * norm);
        CHECK_CLOSE(n.tr->lr, opt.lr, 1e-12);
        if (step == 0) {
            double size = 0;
            for (k = 0; k < theta->len; k++) size = larger(size, fabs((double)g_ctm[k]));
            for (k = 0; k < theta->len; k++) CHECK_CLOSE(n.tr->g_ctm[k], g_ctm[k], tol * size);
            for (size = 0, k = 0; k < theta->len; k++) size = larger(size, fabs((double)g_dsm[k]));
            for (k = 0; k < theta->len; k++) CHECK_CLOSE(n.tr->g_dsm[k], g_dsm[k], tol * size);
        }
        for (k = 0; k < theta->len; k++) {                 // Adam's first steps have size lr whatever the gradient: noise there is amplified
            CHECK_CLOSE(n.net->theta[k], theta->theta[k], rounding(5e-4, 1e-7));
            for (e = 0; e < emas; e++) CHECK_CLOSE(n.tr->ema[e]->theta[k], ema[e]->theta[k], rounding(5e-4, 1e-7));
        }
    }
    CHECK(n.tr->emas == emas);
    room_close(&r);
    run_close(&n);
}
static void test_step_by_hand_default(void) { ctm_config c = small_config(); check_step_by_hand(&c, 3); }
static void test_step_by_hand_paper(void) {
    ctm_config c = small_authors(), p = ctm_recipe_paper();
    p.hidden = c.hidden; p.layers = c.layers; p.embed = c.embed; p.batch = c.batch; p.diagonal_batch = 30; p.shards = c.shards; p.steps = c.steps;
    p.share_at_s = 0.25;                                                         // an uneven mixture, too
    check_step_by_hand(&p, 3);
}
static void test_step_by_hand_authors(void) { ctm_config c = small_authors(); check_step_by_hand(&c, 3); }
static void test_step_by_hand_variants(void) {
    ctm_config c = small_authors();
    c.target_ema = 1;
    c.weight = ctm_weight_uniform_g;
    c.distance = CTM_L1;
    c.times = ctm_times_local;
    c.shards = 1;
    c.share_at_s = 0.3;
    check_step_by_hand(&c, 2);
    c = small_config();
    c.share_at_s = 1;
    c.times = ctm_times_global;
    c.aim = NULL;
    c.substeps = 2;
    c.ema_rate[1] = 0.9; c.ema_rate[2] = 0.05; c.ema_warmup = 1;
    c.clip = 1e-3;
    check_step_by_hand(&c, 2);
}

// Cutting the batch otherwise changes rounding only (also when the cuts are uneven or some shards get no row).
static void test_shards_change_rounding_only(void) {
    static const int shards[5] = {1, 4, 7, 24, 60};
    ctm_config c = small_config();
    ctm_real *g_ctm = NULL, *g_dsm = NULL;
    double L_ctm = 0, L_dsm = 0, size[2] = {0, 0};
    room keep;
    int q;
    size_t k;
    room_open(&keep);
    for (q = 0; q < 5; q++) {
        run n;
        c.shards = shards[q];
        run_open(&n, &c);
        CHECK(ctm_train_step(n.tr));
        if (q == 0) {
            g_ctm = (ctm_real *)ctm_alloc(&keep.keep, n.net->len * sizeof(ctm_real));
            g_dsm = (ctm_real *)ctm_alloc(&keep.keep, n.net->len * sizeof(ctm_real));
            memcpy(g_ctm, n.tr->g_ctm, n.net->len * sizeof(ctm_real));
            memcpy(g_dsm, n.tr->g_dsm, n.net->len * sizeof(ctm_real));
            L_ctm = n.tr->L_ctm;
            L_dsm = n.tr->L_dsm;
            for (k = 0; k < n.net->len; k++) { size[0] = larger(size[0], fabs((double)g_ctm[k])); size[1] = larger(size[1], fabs((double)g_dsm[k])); }
        }
        CHECK_CLOSE(n.tr->L_ctm, L_ctm, rounding(1e-6, 1e-13) * L_ctm);
        CHECK_CLOSE(n.tr->L_dsm, L_dsm, rounding(1e-6, 1e-13) * L_dsm);
        for (k = 0; k < n.net->len; k++) {
            CHECK_CLOSE(n.tr->g_ctm[k], g_ctm[k], rounding(1e-5, 1e-12) * size[0]);
            CHECK_CLOSE(n.tr->g_dsm[k], g_dsm[k], rounding(1e-5, 1e-12) * size[1]);
        }
        run_close(&n);
    }
    room_close(&keep);
}

// The same bits for 1, 2 and 7 threads, both recipes; and of two runs.
static void test_training_same_bits_for_threads(void) {
    static const int threads[4] = {1, 2, 7, 2};
    int q, recipe;
    for (recipe = 0; recipe < 2; recipe++) {
        ctm_config c = recipe ? small_authors() : small_config();
        run first;
        run_open(&first, &c);
        for (q = 0; q < 4; q++) {
            run n;
            int step;
            if (q) run_open(&n, &c); else n = first;
            n.tr->ctx->threads = threads[q];
            for (step = 0; step < 6; step++) CHECK(ctm_train_step(n.tr));
            if (q == 0) continue;
            CHECK(run_same(&first, &n));
            CHECK(first.tr->L_ctm == n.tr->L_ctm && first.tr->L_dsm == n.tr->L_dsm && first.tr->lambda_dsm == n.tr->lambda_dsm);
            run_close(&n);
        }
        run_close(&first);
    }
}

#ifndef CTM_NO_IMAGES
// A student of images: more threads than shards share the loops inside, and change no bit of weights, averages and losses.
static void images_draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    (void)user;
    ctm_normals(rng, step, 192 * index, 192, x0);
}
static void test_training_same_bits_for_teams(void) {
    static const int threads[3] = {1, 3, 64};
    ctm_config c = ctm_recipe_images();
    ctm_real *theta = NULL, *ema = NULL;
    double L = 0;
    room r, keep;
    int q;
    room_open(&keep);
    c.size = 8; c.channels = 3; c.model_channels = 16; c.attn[0] = 4; c.num_blocks = 1; c.channel_mult[1] = 2; c.channel_mult[2] = 0;
    c.batch = 6; c.diagonal_batch = 4; c.shards = 2; c.clip = 0;
    for (q = 0; q < 3; q++) {
        ctm_trainer *tr;
        size_t bytes, k;
        double squares = 0;
        int step;
        room_open(&r);
        r.ctx.threads = threads[q];
        tr = ctm_trainer_new(&r.keep, &c, ctm_unet(&r.keep, &c, 1), NULL, images_draw, NULL);
        bytes = tr->theta->len * sizeof(ctm_real);
        for (step = 0; step < 2; step++) CHECK(ctm_train_step(tr));
        CHECK(tr->theta->len > 2 * CTM__STRETCH);
        for (k = 0; k < tr->theta->len; k++) squares += (double)tr->theta->grad[k] * (double)tr->theta->grad[k];
        if (q == 0) {
            theta = (ctm_real *)ctm_alloc(&keep.keep, bytes);
            ema = (ctm_real *)ctm_alloc(&keep.keep, bytes);
            memcpy(theta, tr->theta->theta, bytes);
            memcpy(ema, tr->ema[0]->theta, bytes);
            L = tr->L_ctm;
        }
        CHECK_CLOSE(tr->grad_norm, sqrt(squares), 1e-5 * tr->grad_norm);    // of more weights than one stretch holds
        CHECK(memcmp(theta, tr->theta->theta, bytes) == 0 && memcmp(ema, tr->ema[0]->theta, bytes) == 0);
        CHECK(tr->L_ctm == L);
#if CTM__TASKS
        if (threads[q] > 1) CHECK(r.ctx.most_pieces > 2);                   // there was something to share
#endif
        ctm_trainer_free(tr);
        room_close(&r);
    }
    room_close(&keep);
}
#endif

// A loss that is no number: the term and the step are named, nothing changes, and going on is as if nothing had been.
typedef struct poison { int armed; ctm_rng stream; double value; } poison;
static void poisoned_draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    const poison *p = (const poison *)user;
    pair_draw(NULL, rng, step, index, x0);
    if (p->armed && step == 3 && index == 17 && memcmp(rng, &p->stream, sizeof *rng) == 0) x0[1] = (ctm_real)p->value;
}
static void test_non_finite_loss_changes_nothing(void) {
    int isa, term, kind;
    for (isa = 0; isa < CTM_ISA_COUNT; isa++)
        for (term = 0; term < 2; term++)
            for (kind = 0; kind < 2; kind++) {
                ctm_config c = kind ? small_authors() : small_config();
                poison p;
                run bad, good;
                int step;
                char want[64];
                p.armed = 1;
                p.value = kind ? INFINITY : nan("");
                run_open_with(&bad, &c, poisoned_draw, &p);
                run_open(&good, &c);
                if (!ctm_set_isa(bad.tr->ctx, isa)) { run_close(&bad); run_close(&good); continue; }
                ctm_set_isa(good.tr->ctx, isa);
                p.stream = term ? bad.tr->rng_dsm_data : bad.tr->rng_data;
                for (step = 0; step < 3; step++) { CHECK(ctm_train_step(bad.tr)); CHECK(ctm_train_step(good.tr)); }
                CHECK(ctm_train_step(bad.tr) == 0);
                snprintf(want, sizeof want, "step 3: the loss %s is not finite", term ? "L_dsm" : "L_ctm");
                if (!strstr(ctm_error(bad.tr->ctx), want)) { test_fail(__FILE__, __LINE__, want); printf("     %s\n", ctm_error(bad.tr->ctx)); }
                CHECK(run_same(&bad, &good));
                CHECK(ctm_train_step(bad.tr) == 0);                              // and again
                CHECK(run_same(&bad, &good));
                p.armed = 0;
                for (step = 0; step < 2; step++) { CHECK(ctm_train_step(bad.tr)); CHECK(ctm_train_step(good.tr)); }
                CHECK(run_same(&bad, &good));
                run_close(&bad);
                run_close(&good);
            }
}

// [eq:L_dsm] on N(0, sd²) a zero network is the perfect denoiser: DSM is weight·posterior variance = 1 for every t, its expected
// gradient is zero, and regression on the exact denoiser has no loss at all.
static void gauss_draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    (void)user;
    x0[0] = (ctm_real)(0.5 * ctm_normal(rng, step, 2 * index));
    x0[1] = (ctm_real)(0.5 * ctm_normal(rng, step, 2 * index + 1));
}
static void test_perfect_denoiser_has_the_least_dsm_loss(void) {
    double zero[2] = {0, 0};
    ctm_config c = small_authors();
    room r;
    ctm_net *net;
    ctm_trainer *tr;
    ctm_denoiser *D;
    double mean = 0, worst = 0, norm = 0;
    int step;
    room_open(&r);
    c.lr = 0;                                                                    // the weights stay
    c.batch = 4; c.shards = 2; c.diagonal_batch = 4000;
    D = ctm_mixture(&r.keep, 2, 1, zero, NULL, 0.5);
    net = ctm_mlp(&r.keep, &c, 2, 1);
    memset(net->theta, 0, net->len * sizeof(ctm_real));
    tr = ctm_trainer_new(&r.keep, &c, net, D, gauss_draw, NULL);
    for (step = 0; step < 5; step++) {
        size_t k;
        CHECK(ctm_train_step(tr));
        mean += tr->L_dsm / 5;
        worst = larger(worst, fabs(tr->L_dsm - 1));
        for (norm = 0, k = 0; k < net->len; k++) norm = larger(norm, fabs((double)tr->g_dsm[k]));
        CHECK(norm < 0.2);                                                       // standard error about 2·sd/sqrt(4000) = .016 an entry
    }
    CHECK_CLOSE(mean, 1, 0.03);                                                  // chi-squared with 40000 degrees: .007
    CHECK(worst < 0.06);
    ctm_trainer_free(tr);
    c.aim = ctm_aim_teacher;
    tr = ctm_trainer_new(&r.keep, &c, net, D, gauss_draw, NULL);
    CHECK(ctm_train_step(tr));
    CHECK_CLOSE(tr->L_dsm, 0, rounding(1e-7, 1e-20));
    ctm_trainer_free(tr);
    room_close(&r);
}

// RMS of one jump from sigma_max to sigma_min against the exact flow, over the data's std (about sigma_data).
static double flow_error(room *r, ctm_net *net, const ctm_denoiser *D) {
    ctm_rng rng = ctm_stream(77, "held out");
    ctm_real x[512];
    double in[512], out[512], sum = 0;
    const ctm_noise *z = &net->noise;
    int i;
    for (i = 0; i < 512; i++) x[i] = (ctm_real)(in[i] = (double)(ctm_real)(z->sigma_max * ctm_normal(&rng, 0, (uint64_t)i)));
    ctm_exact_flow(&r->ctx, D, 256, in, z->sigma_max, 1, &z->sigma_min, 1e-7, out);
    CHECK(ctm_sample_points(net, x, 256, 1, 0, NULL));
    for (i = 0; i < 512; i++) sum += ((double)x[i] - out[i]) * ((double)x[i] - out[i]) / 512;
    return sqrt(sum) / z->sigma_data;
}

// [alg:train] A tiny training run learns the known flow.
static void test_training_learns_the_flow(void) {
    ctm_config c = small_config();
    run n;
    double before, after;
    c.hidden = 32; c.batch = 128; c.diagonal_batch = 64; c.steps = 400; c.ema_rate[0] = 0.98;
    run_open(&n, &c);
    n.r.ctx.threads = 1;                                                         // so small a batch gains nothing from more
    before = flow_error(&n.r, n.tr->ema[0], n.teacher);
    while (n.tr->step < c.steps && ctm_train_step(n.tr)) { }
    CHECK(n.tr->step == c.steps);
    after = flow_error(&n.r, n.tr->ema[0], n.teacher);
    CHECK(before > 0.5);
    CHECK(after < 0.12);
    run_close(&n);
}

// Data six times as wide, with the settings that the header's opening comment says go with them, are learned as well.
static void wide_draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    pair_draw(user, rng, step, index, x0);
    x0[0] *= 6;
    x0[1] *= 6;
}
static void test_wide_data(void) {
    ctm_config c = small_config();
    double mean[4];
    room r;
    ctm_trainer *tr;
    ctm_denoiser *D;
    int k;
    c.hidden = 32; c.batch = 128; c.diagonal_batch = 64; c.steps = 400; c.ema_rate[0] = 0.98;
    c.noise.sigma_data *= 6; c.noise.sigma_max *= 6; c.noise.sigma_min *= 6;
    c.huber_c *= 6; c.lambda_dsm *= 6; c.clip *= 6;
    for (k = 0; k < 4; k++) mean[k] = 6 * pair_mean[k];
    room_open(&r);
    r.ctx.threads = 1;
    D = ctm_mixture(&r.keep, 2, 2, mean, NULL, 0.6);
    tr = ctm_trainer_new(&r.keep, &c, ctm_mlp(&r.keep, &c, 2, 1), D, wide_draw, NULL);
    while (tr->step < c.steps && ctm_train_step(tr)) { }
    CHECK(tr->step == c.steps);
    CHECK(flow_error(&r, tr->ema[0], D) < 0.12);
    CHECK_CLOSE(ctm_recipe_teacher(&c).clip, c.clip / 6, 1e-12);
    ctm_trainer_free(tr);
    room_close(&r);
}

// A teacher by its recipe: DSM alone, a network without s. It comes near the exact denoiser.
static double denoiser_error(room *r, const ctm_denoiser *a, const ctm_denoiser *exact) {
    ctm_tensor *t = ctm_vector(&r->tape, "t", 400), *x, *y;
    double sum = 0;
    int i, d, recording = r->tape.recording;
    r->tape.recording = 0;
    for (i = 0; i < 400; i++) t->data[i] = (ctm_real)(0.05 * pow(40, i / 400.0));
    x = ctm_matrix(&r->tape, "x", 400, 2);
    for (i = 0; i < 400; i++) {
        ctm_rng rng = ctm_stream(78, "held out");
        pair_draw(NULL, &rng, 0, (uint64_t)i, x->data + 2 * i);
        for (d = 0; d < 2; d++) x->data[2 * i + d] += t->data[i] * (ctm_real)ctm_normal(&rng, 1, (uint64_t)(2 * i + d));
    }
    y = a->denoise(&r->tape, a, x, t);
    for (i = 0; i < 400; i++) {
        double in[2], D[2];
        for (d = 0; d < 2; d++) in[d] = (double)x->data[2 * i + d];
        exact->exact(exact, in, (double)t->data[i], D);
        for (d = 0; d < 2; d++) sum += ((double)y->data[2 * i + d] - D[d]) * ((double)y->data[2 * i + d] - D[d]) / 800;
    }
    ctm_tape_reset(&r->tape);
    r->tape.recording = recording;
    return sqrt(sum);
}
static void test_dsm_teacher_learns_the_denoiser(void) {
    ctm_config student = ctm_recipe_points(), c;
    room r;
    ctm_net *net;
    ctm_trainer *tr;
    ctm_denoiser *exact, *learned;
    double before, after;
    room_open(&r);
    student.hidden = 32; student.layers = 2; student.embed = 8; student.batch = 128; student.steps = 500; student.lr = 2e-2; student.seed = 5; student.gan = CTM_GAN_HINGE;
    c = ctm_recipe_teacher(&student);
    CHECK(!c.times && c.gan == CTM_GAN_NONE && c.aim == ctm_aim_data && c.level == ctm_level_edm && c.diagonal_batch == 256);
    CHECK(strcmp(c.recipe, "teacher") == 0);
    CHECK(c.hidden == 32 && c.seed == 5 && c.steps == 500 && c.lr < student.lr);
    exact = ctm_mixture(&r.keep, 2, 2, pair_mean, NULL, 0.1);
    net = ctm_mlp(&r.keep, &c, 2, 0);
    tr = ctm_trainer_new(&r.keep, &c, net, NULL, pair_draw, NULL);
    learned = ctm_net_denoiser(&r.keep, tr->ema[0]);
    r.ctx.threads = 1;
    before = denoiser_error(&r, learned, exact);
    while (tr->step < c.steps && ctm_train_step(tr)) { }
    CHECK(tr->step == c.steps && tr->L_ctm == 0 && tr->lambda_dsm == 1);
    after = denoiser_error(&r, learned, exact);
    CHECK(before > 0.12);
    CHECK(after < 0.03);
    ctm_trainer_free(tr);
    room_close(&r);
}

// Without a teacher the student's own average is one: it runs, stays finite, and gives the bits of handing it in by hand.
static void test_self_teaching(void) {
    ctm_config c = small_authors();
    room r;
    ctm_net *net;
    ctm_trainer *tr;
    int step;
    room_open(&r);
    net = ctm_mlp(&r.keep, &c, 2, 1);
    tr = ctm_trainer_new(&r.keep, &c, net, NULL, pair_draw, NULL);
    for (step = 0; step < 5; step++) CHECK(ctm_train_step(tr));
    CHECK(tr->L_ctm > 0 && tr->L_dsm > 0);
    {
        run n;
        run_open(&n, &c);
        n.tr->teacher = ctm_net_denoiser(&n.r.keep, n.tr->ema[0]);
        for (step = 0; step < 5; step++) CHECK(ctm_train_step(n.tr));
        CHECK(same_bits(net->theta, n.net->theta, net->len));
        run_close(&n);
    }
    ctm_trainer_free(tr);
    room_close(&r);
}

// Mistakes of a program stop with a sentence.
static void test_trainer_refuses_nonsense(void) {
    ctm_config c = small_config(), d;
    room r;
    ctm_net *net, *teacher;
    ctm_denoiser *D;
    room_open(&r);
    net = ctm_mlp(&r.keep, &c, 2, 1);
    teacher = ctm_mlp(&r.keep, &c, 2, 0);
    D = ring(&r.keep);
    CHECK(PANICS(ctm_trainer_new(&r.keep, &c, net, NULL, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "ctm_aim_teacher needs a teacher");
    CHECK(PANICS(ctm_trainer_new(&r.keep, &c, teacher, D, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "without s");
    CHECK(PANICS(ctm_trainer_new(&r.keep, &c, ctm_net_clone(&r.keep, net), D, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "frozen");
    d = c; d.batch = 0;
    CHECK(PANICS(ctm_trainer_new(&r.keep, &d, net, D, pair_draw, NULL)));
    d = c; d.shards = 0;
    CHECK(PANICS(ctm_trainer_new(&r.keep, &d, net, D, pair_draw, NULL)));
    d = c; d.ema_rate[0] = 0;
    CHECK(PANICS(ctm_trainer_new(&r.keep, &d, net, D, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "the recipe \"points\": ema_rate[0] is 0, but it must be a number from 1e-06 to 1");
    d = c; d.noise.sigma_max = 20;
    CHECK(PANICS(ctm_trainer_new(&r.keep, &d, net, D, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "cfg.noise is not the network's");
    d = c; d.distance = CTM_HUBER + 1;
    CHECK(PANICS(ctm_trainer_new(&r.keep, &d, net, D, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "distance is 3, but it must be a whole number from 0 to 2");
    d = c; d.teach = NULL;
    CHECK(PANICS(ctm_trainer_new(&r.keep, &d, net, D, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "needs some for teach and weight");
    d = c; d.level = NULL;
    CHECK(PANICS(ctm_trainer_new(&r.keep, &d, net, D, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "needs one for level");
    d = c; d.times = NULL; d.aim = NULL;
    CHECK(PANICS(ctm_trainer_new(&r.keep, &d, net, D, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "nothing would be trained");
    d = c; d.noise.sigma_max = 1.05 * d.noise.sigma_min;
    CHECK(PANICS(ctm_trainer_new(&r.keep, &d, net, D, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "sigma_max must be at least 1.1 times");
    d = c; d.noise.sigma_min = 0;
    CHECK(PANICS(ctm_trainer_new(&r.keep, &d, net, D, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "noise.sigma_min is 0, but");
    d = c; d.noise.rho = 9e18;
    CHECK(PANICS(ctm_trainer_new(&r.keep, &d, net, D, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "noise.rho is 9e+18, but it must be a number from 0.1 to 1000000");
    CHECK(PANICS(ctm_trainer_new(&r.keep, &c, net, D, NULL, NULL)));
    CHECK_TEXT(test_panic, "no draw function");
    d = c; d.noise.sigma_max = 20;
    CHECK(PANICS(ctm_trainer_new(&r.keep, &c, net, ctm_net_denoiser(&r.keep, ctm_mlp(&r.keep, &d, 2, 0)), pair_draw, NULL)));
    CHECK_TEXT(test_panic, "another range of noise levels");
    CHECK(PANICS(ctm_trainer_new(&r.keep, &c, ctm_mlp(&r.keep, &c, 3, 1), D, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "the student has 3 dimensions, the teacher 2");
    room_close(&r);
}

// With no number of steps there is no schedule: the rate is lr from the first step on.
static void test_no_schedule(void) {
    ctm_config c = small_config();
    run n;
    int step;
    c.steps = 0; c.warmup = 0.1; c.final_lr = 0; c.lr = 1e-3;
    run_open(&n, &c);
    n.r.ctx.threads = 1;
    for (step = 0; step < 3; step++) {
        CHECK(ctm_train_step(n.tr));
        CHECK(n.tr->lr == 1e-3);
    }
    run_close(&n);
}

// No memory is asked of the system after the first steps, and the tapes of the shards are all that grows.
static void test_training_memory_is_steady(void) {
    ctm_config c = small_config();
    run n;
    size_t held;
    int step;
    run_open(&n, &c);
    for (step = 0; step < 10; step++) CHECK(ctm_train_step(n.tr));
    held = n.tr->ctx->allocated;
    for (step = 0; step < 20; step++) CHECK(ctm_train_step(n.tr));
    CHECK(n.tr->ctx->allocated == held);
    run_close(&n);
    CHECK(n.r.ctx.allocated == 0);
}

// ---- adversary, labels, teachers' forms in the trainer --------------------------------------------------------------

// Labelled data: the two points, and which one.
static int pair_label(void *user, const ctm_rng *rng, uint64_t step, uint64_t index) {
    (void)user;
    return ctm_uniform(rng, step, 8 * index) < 0.5 ? 0 : 1;
}
typedef struct full_run { room r; ctm_net *net, *disc, *teacher_net; ctm_denoiser *teacher; ctm_trainer *tr; } full_run;
// teacher: 0 none, 1 exact, 2 a network (with labels if the configuration has classes)
static void full_open(full_run *n, const ctm_config *c, int teacher) {
    ctm_config other = *c;
    memset(n, 0, sizeof *n);
    room_open(&n->r);
    other.seed += 100;
    n->net = ctm_mlp(&n->r.keep, c, 2, 1);
    ctm_net_init(n->net, c->seed, 1);
    n->teacher_net = ctm_mlp(&n->r.keep, &other, 2, 0);
    ctm_net_init(n->teacher_net, 55, 1);
    if (teacher == 1) n->teacher = ctm_mixture(&n->r.keep, 2, 2, pair_mean, NULL, 0.1);
    if (teacher == 2) n->teacher = ctm_net_denoiser(&n->r.keep, n->teacher_net);
    n->tr = ctm_trainer_new(&n->r.keep, c, n->net, n->teacher, pair_draw, NULL);
    if (c->classes) n->tr->label = pair_label;
    if (c->gan) {
        n->disc = ctm_mlp_discriminator(&n->r.keep, c, 2);
        ctm_trainer_adversary(&n->r.keep, n->tr, n->disc);
    }
}
static void full_close(full_run *n) { ctm_trainer_free(n->tr); room_close(&n->r); }
static int full_same_student(const full_run *a, const full_run *b) {
    int i, same = a->tr->opt.k == b->tr->opt.k && same_bits(a->net->theta, b->net->theta, a->net->len) &&
                  same_bits(a->tr->opt.m, b->tr->opt.m, a->net->len) && same_bits(a->tr->opt.v, b->tr->opt.v, a->net->len);
    for (i = 0; i < a->tr->emas; i++) same = same && same_bits(a->tr->ema[i]->theta, b->tr->ema[i]->theta, a->net->len);
    return same;
}
static int full_same_disc(const full_run *a, const full_run *b) {
    return a->tr->disc_opt.k == b->tr->disc_opt.k && same_bits(a->disc->theta, b->disc->theta, a->disc->len) &&
           same_bits(a->tr->disc_opt.m, b->tr->disc_opt.m, a->disc->len) && same_bits(a->tr->disc_opt.v, b->tr->disc_opt.v, a->disc->len);
}
static ctm_config gan_config(void) {
    ctm_config c = small_authors();
    c.gan = CTM_GAN_HINGE;
    c.gan_hidden = 16; c.gan_layers = 2;
    return c;
}

// One row of a step's batch from public pieces alone, a batch of one: nothing is sorted, gathered or shared here.
typedef struct hand_row { ctm_tensor *t, *u, *s, *x0, *x_t, *x_u; double index[3], w; int label; } hand_row;
static hand_row hand_draw(full_run *n, ctm_tape *tp, int i, uint64_t step) {
    const ctm_config *c = &n->tr->cfg;
    ctm_rng data = ctm_stream(c->seed, "data"), noise = ctm_stream(c->seed, "noise"), drop = ctm_stream(c->seed, "label.dropout");
    hand_row r;
    int d;
    c->times(c, step, (uint64_t)i, r.index);
    r.t = levels(tp, "t", 1, ctm_t_of_index(&c->noise, r.index[0]));
    r.u = levels(tp, "u", 1, ctm_t_of_index(&c->noise, r.index[1]));
    r.s = levels(tp, "s", 1, ctm_t_of_index(&c->noise, r.index[2]));
    r.w = c->weight(&c->noise, ctm_t_of_index(&c->noise, r.index[0]), ctm_t_of_index(&c->noise, r.index[2]));
    r.x0 = ctm_matrix(tp, "x0", 1, 2);
    r.x_t = ctm_matrix(tp, "x_t", 1, 2);
    r.x_u = ctm_matrix(tp, "x_u", 1, 2);
    pair_draw(NULL, &data, step, (uint64_t)i, r.x0->data);
    r.label = pair_label(NULL, &data, step, (uint64_t)i);
    if (ctm_uniform(&drop, step, (uint64_t)i) < c->label_dropout) r.label = -1;
    for (d = 0; d < 2; d++) {
        ctm_real eps = (ctm_real)ctm_normal(&noise, step, (uint64_t)(2 * i + d));
        r.x_t->data[d] = r.x0->data[d] + r.t->data[0] * eps;
        r.x_u->data[d] = r.x0->data[d] + r.u->data[0] * eps;                     // CT's; replaced below
    }
    return r;
}
// x_est of a row; its gradient goes into n->net when the tape records.
static ctm_tensor *hand_estimate(full_run *n, ctm_tape *tp, ctm_net *ema, hand_row *r) {
    tp->rows.label = &r->label;
    return ctm_G_theta(tp, ema, ctm_G_theta(tp, n->net, r->x_t, r->t, r->s), r->s, levels(tp, "zero", 1, 0.002));
}
static ctm_tensor *hand_target(full_run *n, ctm_tape *tp, ctm_net *ema, hand_row *r) {
    const ctm_config *c = &n->tr->cfg;
    ctm_net *inner = c->target_ema ? ema : n->net;
    ctm_tensor *x;
    tp->rows.label = &r->label;
    tp->recording = 0;
    if (c->teach == ctm_teach_solver)
        r->x_u = ctm_solve(tp, n->teacher ? n->teacher : ctm_net_denoiser(tp->arena, ema), &c->noise, CTM_HEUN, r->x_t, r->index, r->index + 1, c->substeps);
    else if (c->teach == ctm_teach_jump)
        r->x_u = ctm_G_theta(tp, ema, r->x_t, r->t, r->u);
    else if (c->teach == ctm_teach_jumps) {
        double at = r->index[0];
        x = r->x_t;
        while (at < r->index[1]) {
            double next = at + 1 < r->index[1] ? at + 1 : r->index[1];
            x = ctm_G_theta(tp, ema, x, levels(tp, "a", 1, ctm_t_of_index(&c->noise, at)), levels(tp, "b", 1, ctm_t_of_index(&c->noise, next)));
            at = next;
        }
        r->x_u = x;
    }
    x = ctm_G_theta(tp, ema, ctm_G_theta(tp, inner, r->x_u, r->u, r->s), r->s, levels(tp, "zero", 1, 0.002));
    tp->recording = 1;
    return x;
}

// [alg:train] [eq:self_teach] [eq:cm] The trainer's L_ctm and its gradient against the rows one by one.
static void check_rows_by_hand(const ctm_config *c, int teacher) {
    full_run n;
    room r;
    ctm_net *ema;
    double L = 0, size = 0;
    size_t k;
    int i;
    full_open(&n, c, teacher);
    room_open(&r);
    ema = ctm_net_clone(&r.keep, n.net);
    for (k = 0; k < ema->len; k++) ema->theta[k] *= (ctm_real)0.9;               // an EMA that is not the student
    memcpy(n.tr->ema[0]->theta, ema->theta, ema->len * sizeof(ctm_real));
    memset(n.net->grad, 0, n.net->len * sizeof(ctm_real));
    for (i = 0; i < c->batch; i++) {
        hand_row q = hand_draw(&n, &r.tape, i, 0);
        ctm_tensor *target = hand_target(&n, &r.tape, ema, &q), *est = hand_estimate(&n, &r.tape, ema, &q), *loss;
        loss = ctm_scale(&r.tape, ctm_weighted_mean(&r.tape, ctm_distance(&r.tape, est, target, c->distance, c->huber_c), NULL, c->batch), q.w);
        L += (double)loss->data[0];
        ctm_backward(&r.tape, loss);
        ctm_tape_reset(&r.tape);
    }
    {
        ctm_real *want = (ctm_real *)ctm_alloc(&r.keep, n.net->len * sizeof(ctm_real));
        memcpy(want, n.net->grad, n.net->len * sizeof(ctm_real));
        CHECK(ctm_train_step(n.tr));
        CHECK_CLOSE(n.tr->L_ctm, L, rounding(2e-5, 1e-10) * L);
        CHECK(L > 1e-4);
        for (k = 0; k < n.net->len; k++) size = larger(size, fabs((double)want[k]));
        for (k = 0; k < n.net->len; k++) CHECK_CLOSE(n.tr->g_ctm[k], want[k], rounding(1e-4, 1e-9) * size);
    }
    room_close(&r);
    full_close(&n);
}
// Gaps that are no whole number of grid steps: a distribution of the test's own.
static void times_between(const ctm_config *c, uint64_t step, uint64_t index, double i[3]) {
    ctm_rng rng = ctm_stream(c->seed, "between");
    i[0] = 12 * ctm_uniform(&rng, step, 4 * index);
    i[1] = i[0] + 0.1 + 3 * ctm_uniform(&rng, step, 4 * index + 1);
    i[2] = i[1] + (17 - i[1]) * ctm_uniform(&rng, step, 4 * index + 2);
}
static void test_rows_by_hand_self_teaching(void) {
    static const ctm_teach_fn form[4] = {ctm_teach_solver, ctm_teach_jump, ctm_teach_jumps, ctm_teach_data};
    ctm_config c = small_authors();
    int k;
    for (k = 0; k < 4; k++) {
        c.teach = form[k];
        c.times = ctm_times_authors;
        check_rows_by_hand(&c, 0);
        c.times = times_between;
        check_rows_by_hand(&c, 0);
    }
}
static ctm_config small_of(ctm_config big) {
    ctm_config c = small_config();
    big.hidden = c.hidden; big.layers = c.layers; big.embed = c.embed; big.batch = c.batch; big.diagonal_batch = c.diagonal_batch; big.shards = c.shards;
    big.steps = c.steps; big.seed = c.seed;
    return big;
}
static void test_rows_by_hand_settings(void) {
    static const ctm_weight_fn weight[5] = {ctm_weight_uniform, ctm_weight_snr, ctm_weight_truncated_snr, ctm_weight_karras, ctm_weight_uniform_g};
    ctm_config c = small_of(ctm_recipe_paper());
    int i;
    check_rows_by_hand(&c, 1);
    c = small_authors();
    for (i = 0; i < 5; i++) { c.weight = weight[i]; c.noise.N = 8; check_rows_by_hand(&c, 1); }     // moderate levels are more
    c = small_of(ctm_recipe_cd());
    check_rows_by_hand(&c, 1);
    c = small_of(ctm_recipe_ct());
    check_rows_by_hand(&c, 0);
    c = small_of(ctm_recipe_images());
    c.share_at_s = 0;
    check_rows_by_hand(&c, 1);
}
static void test_rows_by_hand_labels(void) {
    ctm_config c = small_of(ctm_recipe_paper());
    c.classes = 2;
    c.label_dropout = 0.3;
    check_rows_by_hand(&c, 1);
    check_rows_by_hand(&c, 2);                                                   // the solver sorts the rows of a teacher with labels
    c.times = ctm_times_points;
    c.substeps = 2;
    check_rows_by_hand(&c, 2);
    check_rows_by_hand(&c, 0);
    c.times = ctm_times_paper;
    c.teach = ctm_teach_jumps;
    check_rows_by_hand(&c, 0);
}

// [eq:L_dsm] [eq:dsm_law] [eq:weights] The trainer's L_dsm and its gradient against the rows one by one: law, weight, labels, and the
// teacher's denoiser as target, which sees the labels as well.
static void check_diagonal_by_hand(const ctm_config *c, int teacher) {
    full_run n;
    room r;
    ctm_rng data = ctm_stream(c->seed, "dsm.data"), noise = ctm_stream(c->seed, "dsm.noise"), drop = ctm_stream(c->seed, "dsm.label.dropout");
    double L = 0, size = 0;
    ctm_real *want;
    size_t k;
    int i, d, dropped = 0;
    full_open(&n, c, teacher);
    room_open(&r);
    memset(n.net->grad, 0, n.net->len * sizeof(ctm_real));
    for (i = 0; i < c->diagonal_batch; i++) {
        double sigma = c->level(c, 0, (uint64_t)i);
        ctm_tensor *t = levels(&r.tape, "sigma", 1, sigma), *x0 = ctm_matrix(&r.tape, "x0", 1, 2), *x = ctm_matrix(&r.tape, "x", 1, 2), *target = x0, *loss;
        int label = pair_label(NULL, &data, 0, (uint64_t)i);
        if (ctm_uniform(&drop, 0, (uint64_t)i) < c->label_dropout) { label = -1; dropped++; }
        pair_draw(NULL, &data, 0, (uint64_t)i, x0->data);
        for (d = 0; d < 2; d++) x->data[d] = x0->data[d] + t->data[0] * (ctm_real)ctm_normal(&noise, 0, (uint64_t)(2 * i + d));
        r.tape.rows.label = &label;
        if (c->aim == ctm_aim_teacher) target = n.teacher->denoise(&r.tape, n.teacher, x, t);
        if (target->grad) {                                                      // a constant for the student
            ctm_tensor *fixed = ctm_matrix(&r.tape, "D", 1, 2);
            memcpy(fixed->data, target->data, 2 * sizeof(ctm_real));
            target = fixed;
        }
        loss = ctm_weighted_mean(&r.tape, ctm_distance(&r.tape, ctm_D_theta(&r.tape, n.net, x, t), target, CTM_L2, 0), NULL, c->diagonal_batch);
        loss = ctm_scale(&r.tape, loss, ctm_weight_karras(&c->noise, sigma, sigma));
        L += (double)loss->data[0];
        ctm_backward(&r.tape, loss);
        ctm_tape_reset(&r.tape);
    }
    CHECK(!c->classes || (dropped > 0 && dropped < c->diagonal_batch));
    want = (ctm_real *)ctm_alloc(&r.keep, n.net->len * sizeof(ctm_real));
    memcpy(want, n.net->grad, n.net->len * sizeof(ctm_real));
    CHECK(ctm_train_step(n.tr));
    CHECK_CLOSE(n.tr->L_dsm, L, rounding(2e-5, 1e-10) * L);
    for (k = 0; k < n.net->len; k++) size = larger(size, fabs((double)want[k]));
    for (k = 0; k < n.net->len; k++) CHECK_CLOSE(n.tr->g_dsm[k], want[k], rounding(1e-4, 1e-9) * size);
    room_close(&r);
    full_close(&n);
}
static void test_diagonal_by_hand(void) {
    ctm_config c = small_authors();
    check_diagonal_by_hand(&c, 1);
    c.level = ctm_level_uniform;
    check_diagonal_by_hand(&c, 1);
    c.level = ctm_level_edm;
    c.classes = 2; c.label_dropout = 0.4;
    check_diagonal_by_hand(&c, 0);
    c.aim = ctm_aim_teacher;
    check_diagonal_by_hand(&c, 2);
}

// [eq:L_gan] [eq:L_disc] A student's step and a discriminator's step of the trainer against the rows one by one.
static void test_gan_step_by_hand(void) {
    int kind;
    for (kind = CTM_GAN_HINGE; kind <= CTM_GAN_MINIMAX; kind++) {
        ctm_config c = gan_config();
        full_run n;
        room r;
        ctm_net *frozen, *ema;
        ctm_real *want;
        double L = 0, size = 0, real = 0, fake = 0, tol = rounding(1e-4, 1e-9);
        ctm_opt opt;
        size_t k, at;
        int i;
        c.gan = kind;
        c.seed = 7 + (uint64_t)kind;
        full_open(&n, &c, 1);
        room_open(&r);
        ema = ctm_net_clone(&r.keep, n.net);
        frozen = ctm_net_clone(&r.keep, n.disc);
        want = (ctm_real *)ctm_alloc(&r.keep, (n.net->len + n.disc->len) * sizeof(ctm_real));
        memset(n.net->grad, 0, n.net->len * sizeof(ctm_real));
        for (i = 0; i < c.batch; i++) {
            hand_row q = hand_draw(&n, &r.tape, i, 0);
            ctm_tensor *x = hand_estimate(&n, &r.tape, ema, &q);
            ctm_tensor *loss = ctm_gan_student_loss(&r.tape, kind, frozen->forward(&r.tape, frozen, x, NULL, NULL), c.batch);
            L += (double)loss->data[0];
            ctm_backward(&r.tape, loss);
            ctm_tape_reset(&r.tape);
        }
        memcpy(want, n.net->grad, n.net->len * sizeof(ctm_real));
        CHECK(ctm_train_step(n.tr));
        CHECK_CLOSE(n.tr->L_gan, L, tol * (fabs(L) + 0.1));
        for (k = 0; k < n.net->len; k++) size = larger(size, fabs((double)want[k]));
        CHECK(size > 1e-6);
        for (k = 0; k < n.net->len; k++) CHECK_CLOSE(n.tr->g_gan[k], want[k], tol * size);
        at = (size_t)(n.net->param[n.net->last_weight]->data - n.net->theta);
        L = ctm_adaptive_weight(n.tr->g_ctm + at, n.tr->g_gan + at, n.net->param[n.net->last_weight]->len);
        CHECK_CLOSE(n.tr->lambda_gan, L < 0.01 ? 0.01 : L > 10 ? 10 : L, 1e-12);
        for (k = 0; k < n.net->len; k++)                                     // the total is the sum of the three
            CHECK_CLOSE(n.net->grad[k], n.tr->g_ctm[k] + n.tr->lambda_dsm * n.tr->g_dsm[k] + n.tr->lambda_gan * n.tr->g_gan[k],
                        rounding(1e-5, 1e-12) * (n.tr->grad_norm + 1));

        // the next step is the discriminator's
        memcpy(ema->theta, n.tr->ema[0]->theta, ema->len * sizeof(ctm_real));
        frozen = ctm_net_view(&r.keep, n.disc, 1);
        r.tape.recording = 1;
        for (L = 0, i = 0; i < c.batch; i++) {
            hand_row q = hand_draw(&n, &r.tape, i, 1);
            ctm_tensor *x, *l, *l_fake, *loss;
            r.tape.recording = 0;
            x = hand_estimate(&n, &r.tape, ema, &q);
            r.tape.recording = 1;
            l = frozen->forward(&r.tape, frozen, q.x0, NULL, NULL);
            l_fake = frozen->forward(&r.tape, frozen, x, NULL, NULL);
            real += (double)l->data[0] / c.batch;
            fake += (double)l_fake->data[0] / c.batch;
            loss = ctm_gan_disc_loss(&r.tape, kind, l, l_fake, c.batch);
            L += (double)loss->data[0];
            ctm_backward(&r.tape, loss);
            ctm_tape_reset(&r.tape);
        }
        memcpy(want, frozen->grad, frozen->len * sizeof(ctm_real));
        ctm_opt_init(&r.keep, &opt, CTM_RADAM, n.disc->len, 2e-3);           // the authors' settings: RAdam 2e-3, betas 0.5 and 0.9
        opt.beta1 = 0.5;
        opt.beta2 = 0.9;
        ctm_opt_step(&r.ctx, &opt, ctm_net_clone(&r.keep, n.disc)->theta, want);
        CHECK(ctm_train_step(n.tr));
        CHECK(n.tr->disc_opt.kind == opt.kind && n.tr->disc_opt.lr == opt.lr && n.tr->disc_opt.beta1 == opt.beta1 && n.tr->disc_opt.beta2 == opt.beta2);
        for (k = 0; k < n.disc->len; k++) CHECK_CLOSE(n.tr->disc_opt.m[k], opt.m[k], tol * (fabs((double)opt.m[k]) + 1e-2));
        CHECK_CLOSE(n.tr->L_disc, L, tol * L);
        CHECK_CLOSE(n.tr->disc_real, real, tol * (fabs(real) + 0.1));
        CHECK_CLOSE(n.tr->disc_fake, fake, tol * (fabs(fake) + 0.1));
        for (size = 0, k = 0; k < n.disc->len; k++) size = larger(size, fabs((double)want[k]));
        for (k = 0; k < n.disc->len; k++) CHECK_CLOSE(n.disc->grad[k], want[k], tol * size);
        room_close(&r);
        full_close(&n);
    }
}

// [eq:L_disc] hinge: 2 at zero logits, 0 once real >= 1 and fake <= -1; the student's gradient is -1/n per logit.
static void test_hinge_and_log_losses_have_their_known_values(void) {
    room r;
    ctm_tensor *zero, *high, *low, *fake, *L;
    int i;
    room_open(&r);
    zero = ctm_matrix(&r.tape, "zero", 5, 2);
    high = ctm_fill(ctm_matrix(&r.tape, "high", 5, 2), 1);
    low = ctm_fill(ctm_matrix(&r.tape, "low", 5, 2), -1.5);
    CHECK_CLOSE(ctm_gan_disc_loss(&r.tape, CTM_GAN_HINGE, zero, zero, 10)->data[0], 2, 1e-12);
    CHECK(ctm_gan_disc_loss(&r.tape, CTM_GAN_HINGE, high, low, 10)->data[0] == 0);
    CHECK_CLOSE(ctm_gan_disc_loss(&r.tape, CTM_GAN_HINGE, low, high, 10)->data[0], 2.5 + 2, 1e-6);
    CHECK_CLOSE(ctm_gan_disc_loss(&r.tape, CTM_GAN_LOG, zero, zero, 10)->data[0], 2 * log(2), 1e-6);
    CHECK_CLOSE(ctm_gan_student_loss(&r.tape, CTM_GAN_LOG, zero, 10)->data[0], log(2), 1e-6);
    CHECK_CLOSE(ctm_gan_student_loss(&r.tape, CTM_GAN_MINIMAX, zero, 10)->data[0], -log(2), 1e-6);
    fake = ctm_wants_grad(&r.tape, ctm_fill(ctm_matrix(&r.tape, "fake", 5, 2), 3));
    L = ctm_gan_student_loss(&r.tape, CTM_GAN_HINGE, fake, 10);
    CHECK_CLOSE(L->data[0], -3, 1e-6);
    ctm_backward(&r.tape, L);
    for (i = 0; i < 10; i++) CHECK_CLOSE(fake->grad[i], -0.1, 1e-7);
    CHECK(PANICS(ctm_gan_student_loss(&r.tape, CTM_GAN_NONE, fake, 10)));
    CHECK_TEXT(test_panic, "no kind of it");
    CHECK(PANICS(ctm_gan_disc_loss(&r.tape, CTM_GAN_HINGE, fake, ctm_vector(&r.tape, "flat", 5), 10)));
    CHECK_TEXT(test_panic, "logits must be [B,K]");
    room_close(&r);
}

// the discriminator's step leaves student, averages and their optimiser as they are, the student's step the discriminator;
// with gan_period 1 both move at once, each as in its own step.
static void test_student_and_discriminator_take_turns(void) {
    ctm_config c = gan_config();
    full_run n, start, both, one;
    int step;
    full_open(&n, &c, 1);
    full_open(&start, &c, 1);
    CHECK(ctm_train_step(n.tr));
    CHECK(!same_bits(n.net->theta, start.net->theta, n.net->len) && full_same_disc(&n, &start) && n.tr->opt.k == 1 && n.tr->disc_opt.k == 0);
    CHECK(ctm_train_step(start.tr) && full_same_student(&n, &start));
    for (step = 1; step < 6; step++) {
        CHECK(ctm_train_step(n.tr));
        if (step == 1) CHECK(full_same_student(&n, &start) && !same_bits(n.disc->theta, start.disc->theta, n.disc->len) && n.tr->disc_opt.k == 1);
    }
    CHECK(n.tr->opt.k == 3 && n.tr->disc_opt.k == 3 && n.tr->step == 6);
    full_close(&n);
    c.gan_period = 3;                                                            // student, discriminator, discriminator
    full_open(&n, &c, 1);
    for (step = 0; step < 7; step++) CHECK(ctm_train_step(n.tr));
    CHECK(n.tr->opt.k == 3 && n.tr->disc_opt.k == 4);
    full_close(&n);
    c.gan_period = 1;
    full_open(&both, &c, 1);
    CHECK(ctm_train_step(both.tr) && both.tr->opt.k == 1 && both.tr->disc_opt.k == 1);
    CHECK(full_same_student(&both, &start));                                     // the student's part as in its own step
    c.gan_period = 2;
    full_open(&one, &c, 1);
    one.tr->cfg.gan_start = -1;                                                  // step 0 becomes the discriminator's
    CHECK(ctm_train_step(one.tr) && one.tr->opt.k == 0);
    CHECK(full_same_disc(&both, &one));
    full_close(&one);
    full_close(&both);
    full_close(&start);
}

// Before gan_start a run is, bit for bit, one without adversary (40: and lambda_gan is 0).
static void test_gan_start(void) {
    ctm_config c = gan_config(), plain;
    full_run with, without;
    int step;
    c.gan_start = 4;
    plain = c;
    plain.gan = CTM_GAN_NONE;
    full_open(&with, &c, 1);
    full_open(&without, &plain, 1);
    for (step = 0; step < 4; step++) {
        CHECK(ctm_train_step(with.tr) && ctm_train_step(without.tr));
        CHECK(full_same_student(&with, &without));
        CHECK(with.tr->lambda_gan == 0 && with.tr->disc_opt.k == 0);
    }
    CHECK(ctm_train_step(with.tr) && ctm_train_step(without.tr));
    CHECK(!full_same_student(&with, &without) && with.tr->lambda_gan > 0);
    full_close(&with);
    full_close(&without);
}

// [eq:lambda] the adversary's weight within its clamps, or fixed.
static void test_lambda_gan_is_clamped_or_fixed(void) {
    ctm_config c = gan_config();
    full_run n;
    double lambda;
    const ctm_tensor *last;
    size_t at;
    c.lambda_gan = 0.5;
    full_open(&n, &c, 1);
    CHECK(ctm_train_step(n.tr));
    last = n.net->param[n.net->last_weight];
    at = (size_t)(last->data - n.net->theta);
    lambda = ctm_adaptive_weight(n.tr->g_ctm + at, n.tr->g_gan + at, last->len);
    CHECK_CLOSE(n.tr->lambda_gan, 0.5 * (lambda < 0.01 ? 0.01 : lambda > 10 ? 10 : lambda), 1e-12);
    full_close(&n);
    c.adaptive = 0;
    full_open(&n, &c, 1);
    CHECK(ctm_train_step(n.tr));
    CHECK_CLOSE(n.tr->lambda_gan, 0.5, 1e-12);
    full_close(&n);
}

// The same bits for any number of threads, with adversary and labels.
static void test_full_training_same_bits_for_threads(void) {
    static const int threads[3] = {1, 2, 7};
    ctm_config c = gan_config();
    full_run first, n;
    int q, step;
    c.classes = 2; c.label_dropout = 0.2;
    full_open(&first, &c, 2);
    for (q = 0; q < 3; q++) {
        if (q) full_open(&n, &c, 2); else n = first;
        n.tr->ctx->threads = threads[q];
        for (step = 0; step < 6; step++) CHECK(ctm_train_step(n.tr));
        if (q == 0) continue;
        CHECK(full_same_student(&first, &n) && full_same_disc(&first, &n));
        CHECK(first.tr->L_gan == n.tr->L_gan && first.tr->L_disc == n.tr->L_disc && first.tr->disc_real == n.tr->disc_real);
        full_close(&n);
    }
    full_close(&first);
}

// Another number of shards changes rounding only, in the adversary's gradients, too.
static void test_gan_shards_agree(void) {
    ctm_config c = gan_config();
    full_run a, b;
    double size = 0, size_d = 0;
    size_t k;
    c.gan_period = 1;
    full_open(&a, &c, 1);
    c.shards = 7;
    full_open(&b, &c, 1);
    CHECK(ctm_train_step(a.tr) && ctm_train_step(b.tr));
    CHECK_CLOSE(a.tr->L_gan, b.tr->L_gan, rounding(1e-5, 1e-12));
    CHECK_CLOSE(a.tr->L_disc, b.tr->L_disc, rounding(1e-5, 1e-12));
    for (k = 0; k < a.net->len; k++) size = larger(size, fabs((double)a.tr->g_gan[k]));
    for (k = 0; k < a.net->len; k++) CHECK_CLOSE(a.tr->g_gan[k], b.tr->g_gan[k], rounding(1e-5, 1e-12) * size);
    for (k = 0; k < a.disc->len; k++) size_d = larger(size_d, fabs((double)a.disc->grad[k]));
    for (k = 0; k < a.disc->len; k++) CHECK_CLOSE(a.disc->grad[k], b.disc->grad[k], rounding(1e-5, 1e-12) * size_d);
    full_close(&a);
    full_close(&b);
}

// a discriminator whose loss is no number stops the step it spoils, named; nothing changes.
static void test_gan_non_finite_changes_nothing(void) {
    int turn;
    for (turn = 0; turn < 2; turn++) {
        ctm_config c = gan_config();
        full_run bad, good;
        ctm_real keep;
        full_open(&bad, &c, 1);
        full_open(&good, &c, 1);
        if (turn) CHECK(ctm_train_step(bad.tr) && ctm_train_step(good.tr));
        keep = bad.disc->theta[0];
        bad.disc->theta[0] = (ctm_real)nan("");
        CHECK(ctm_train_step(bad.tr) == 0);
        CHECK_TEXT(ctm_error(bad.tr->ctx), "nothing was updated");
        CHECK(strstr(ctm_error(bad.tr->ctx), turn ? "step 1: the loss L_disc" : "step 0: the loss L_gan") != NULL);
        bad.disc->theta[0] = keep;
        CHECK(full_same_student(&bad, &good) && full_same_disc(&bad, &good) && bad.tr->step == good.tr->step);
        full_close(&bad);
        full_close(&good);
    }
}

// no distance to itself, the same both ways, and a weight multiplies its own row alone.
// [eq:L_ctm]
static void test_distances_are_zero_for_equals_and_have_their_formulas(void) {
    static const int kind[3] = {CTM_L2, CTM_L1, CTM_HUBER};
    room r;
    int k, i;
    room_open(&r);
    for (k = 0; k < 3; k++) {
        ctm_tensor *w = ctm_vector(&r.tape, "w", 4);
        ctm_tensor *a = noised(&r.tape, "near", levels(&r.tape, "t", 4, 1), 2, 0.5), *b = noised(&r.tape, "far", levels(&r.tape, "t", 4, 2), 2, 0.5);
        ctm_tensor *same = ctm_distance(&r.tape, a, a, kind[k], 0.03), *ab = ctm_distance(&r.tape, a, b, kind[k], 0.03);
        ctm_tensor *ba = ctm_distance(&r.tape, b, a, kind[k], 0.03);
        double sum = 0;
        for (i = 0; i < 4; i++) {
            w->data[i] = (ctm_real)(i*i);
            CHECK_CLOSE(same->data[i], 0, 0);
            CHECK(ab->data[i] > 0);
            CHECK_CLOSE(ab->data[i], ba->data[i], 0);
            sum += i*i*(double)ab->data[i];
        }
        CHECK_CLOSE(ctm_weighted_mean(&r.tape, ab, w, 4)->data[0], sum/4, rounding(1e-6, 1e-14)*sum);
    }
    room_close(&r);
}

// A distance of the user's own: the built-in one by this way gives the same bits; one on features has the gradient of its formula.
static ctm_tensor *same_distance(void *user, ctm_tape *tp, ctm_tensor *a, ctm_tensor *b) { (void)user; return ctm_distance(tp, a, b, CTM_L2, 0); }
static ctm_tensor *feature_distance(void *user, ctm_tape *tp, ctm_tensor *a, ctm_tensor *b) {
    ctm_net *features = (ctm_net *)user;
    return ctm_distance(tp, features->forward(tp, features, a, NULL, NULL), features->forward(tp, features, b, NULL, NULL), CTM_L2, 0);
}
static ctm_tensor *scalar_distance(void *user, ctm_tape *tp, ctm_tensor *a, ctm_tensor *b) { return ctm_weighted_mean(tp, same_distance(user, tp, a, b), NULL, 1); }
static ctm_tensor *no_distance(void *user, ctm_tape *tp, ctm_tensor *a, ctm_tensor *b) { (void)user; (void)tp; (void)a; (void)b; return NULL; }
static void test_own_distance(void) {
    ctm_config c = small_authors();
    full_run a, b;
    room r;
    ctm_net *features;
    ctm_tensor *x, *y, *d, *L;
    int i;
    full_open(&a, &c, 1);
    full_open(&b, &c, 1);
    b.tr->distance = same_distance;
    for (i = 0; i < 3; i++) CHECK(ctm_train_step(a.tr) && ctm_train_step(b.tr));
    CHECK(full_same_student(&a, &b));
    room_open(&r);
    features = ctm_net_view(&r.keep, ctm_mlp_discriminator(&r.keep, &c, 2), 0);
    b.tr->distance = feature_distance;
    b.tr->distance_user = features;
    CHECK(ctm_train_step(a.tr) && ctm_train_step(b.tr));
    CHECK(!full_same_student(&a, &b) && b.tr->L_ctm > 0);
    if (IN_DOUBLE) {
        x = ctm_wants_grad(&r.tape, noised(&r.tape, "features a", levels(&r.tape, "t", 4, 1), 2, 0.5));
        y = noised(&r.tape, "features b", levels(&r.tape, "t", 4, 1), 2, 0.5);
        L = ctm_weighted_mean(&r.tape, feature_distance(features, &r.tape, x, y), NULL, 4);
        ctm_backward(&r.tape, L);
        for (i = 0; i < 8; i++) {
            double up, h = 1e-5;
            ctm_real keep = x->data[i];
            x->data[i] = keep + (ctm_real)h;
            up = (double)ctm_weighted_mean(&r.tape, feature_distance(features, &r.tape, x, y), NULL, 4)->data[0];
            x->data[i] = keep - (ctm_real)h;
            up -= (double)ctm_weighted_mean(&r.tape, feature_distance(features, &r.tape, x, y), NULL, 4)->data[0];
            x->data[i] = keep;
            CHECK_CLOSE(x->grad[i], up / (2 * h), 1e-8);
            CHECK(x->grad[i] != 0);
        }
    }
    x = ctm_matrix(&r.tape, "a", 3, 2);
    b.tr->distance = scalar_distance;
    CHECK(PANICS(ctm__measure(&r.tape, b.tr, x, x)));
    CHECK_TEXT(test_panic, "needs a result [B]");
    b.tr->distance = no_distance;
    CHECK(PANICS(ctm__measure(&r.tape, b.tr, x, x)));
    CHECK_TEXT(test_panic, "returned NULL");
    // 41: zero for equal arguments, symmetric, for every built-in kind
    x = noised(&r.tape, "41 a", levels(&r.tape, "t", 4, 1), 2, 0.5);
    y = noised(&r.tape, "41 b", levels(&r.tape, "t", 4, 1), 2, 0.5);
    for (i = CTM_L2; i <= CTM_HUBER; i++) {
        ctm_tensor *back = ctm_distance(&r.tape, y, x, i, 0.03);
        d = ctm_distance(&r.tape, x, y, i, 0.03);
        CHECK(same_bits(d->data, back->data, 4) && d->data[0] > 0);
        d = ctm_distance(&r.tape, x, x, i, 0.03);
        CHECK(d->data[0] == 0 && d->data[3] == 0);
    }
    CHECK(PANICS(ctm_backward(&r.tape, ctm_distance(&r.tape, ctm_wants_grad(&r.tape, x), y, CTM_L2, 0))));
    CHECK_TEXT(test_panic, "a loss must be a scalar");
    room_close(&r);
    full_close(&a);
    full_close(&b);
}

// [eq:cm] The consistency models' recipes: no diagonal, one end, and otherwise as for points; CT needs no teacher.
static void test_cm_recipes_depart_from_points_in_what_they_say(void) {
    ctm_config c = ctm_recipe_cd(), t = ctm_recipe_ct(), d = ctm_recipe_points();
    CHECK(c.times == ctm_times_cm && c.target_ema == 1 && c.aim == NULL && c.share_at_s == 0 && c.teach == ctm_teach_solver);
    CHECK(t.times == ctm_times_cm && t.target_ema == 1 && t.aim == NULL && t.share_at_s == 0 && t.teach == ctm_teach_data);
    CHECK(c.batch == d.batch && c.lr == d.lr && c.hidden == d.hidden && c.steps == d.steps && c.substeps == d.substeps && c.clip == d.clip);
}

// The paper's recipe is the paper's: nested times, the teacher's walk, the average in the target, time zero, x_0 on the diagonal, lambda.
static void test_paper_and_authors_recipes_are_as_published(void) {
    ctm_config p = ctm_recipe_paper(), a = ctm_recipe_authors();
    CHECK(p.times == ctm_times_paper && p.teach == ctm_teach_solver && p.aim == ctm_aim_data && p.weight == ctm_weight_uniform && p.target_ema == 1);
    CHECK(p.share_at_s == 0 && p.adaptive == 1 && p.lambda_dsm == 1 && p.substeps == 1 && p.distance == CTM_L2 && p.noise.N == 18 && p.gan == CTM_GAN_NONE);
    CHECK(a.times == ctm_times_authors && a.teach == ctm_teach_solver && a.aim == ctm_aim_data && a.level == ctm_level_authors && a.target_ema == 0);
    CHECK(a.share_at_s == 0 && a.adaptive == 1 && a.lambda_dsm == 1 && a.substeps == 1 && a.optimiser == CTM_RADAM && a.lr == 4e-4 && a.final_lr == 1);
    CHECK(a.clip == 0 && a.warmup == 0 && a.ema_rate[0] == 0.999 && a.ema_rate[1] == 0.9999 && a.ema_warmup == 0 && a.classes == 0 && a.gan == CTM_GAN_NONE);
}

// [eq:cm] CD and CT learn the one-step flow; both without a diagonal term.
static void test_cm_learns_the_flow(void) {
    int teacher;
    for (teacher = 0; teacher < 2; teacher++) {
        ctm_config c = teacher ? ctm_recipe_cd() : ctm_recipe_ct();
        full_run n;
        double after;
        c.hidden = 32; c.layers = 2; c.embed = 8; c.batch = 256; c.steps = 900; c.shards = 2; c.seed = 3; c.ema_rate[0] = 0.98; c.substeps = 1;
        full_open(&n, &c, teacher);
        n.r.ctx.threads = 1;
        while (n.tr->step < c.steps && ctm_train_step(n.tr)) { }
        CHECK(n.tr->step == c.steps && n.tr->L_dsm == 0 && n.tr->lambda_dsm == 0);
        after = flow_error(&n.r, n.tr->ema[0], teacher ? n.teacher : ctm_mixture(&n.r.keep, 2, 2, pair_mean, NULL, 0.1));
        CHECK(after < (teacher ? 0.35 : 0.5));
        if (!(after < (teacher ? 0.35 : 0.5))) printf("     %s: error %.3f\n", teacher ? "CD" : "CT", after);
        full_close(&n);
    }
}

// [eq:guidance] A labelled model makes points of the class it is asked for, unlabelled ones of both; guidance beyond 1 keeps to it.
static void test_labels_are_learned(void) {
    ctm_config c = small_config();
    full_run n;
    ctm_rng rng = ctm_stream(5, "labels");
    int k, i, weight, right[2], any = 0;
    c.classes = 2; c.label_dropout = 0.2; c.hidden = 32; c.batch = 192; c.diagonal_batch = 192; c.steps = 600; c.ema_rate[0] = 0.98; c.shards = 2;
    c.aim = ctm_aim_data; c.lambda_dsm = 1;
    c.times = ctm_times_paper; c.share_at_s = 0;
    full_open(&n, &c, 0);                                                        // an unlabelled teacher would not know the classes
    n.r.ctx.threads = 1;
    while (n.tr->step < c.steps && ctm_train_step(n.tr)) { }
    CHECK(n.tr->step == c.steps);
    n.r.tape.recording = 0;
    for (weight = 0; weight < 3; weight++)
        for (k = 0; k < 2; k++) {
            int label[200];
            ctm_jump *G;
            ctm_tensor *x = ctm_matrix(&n.r.tape, "x", 200, 2), *y;
            for (i = 0; i < 200; i++) label[i] = k;
            for (i = 0; i < 400; i++) x->data[i] = (ctm_real)(80 * ctm_normal(&rng, 0, (uint64_t)i));
            n.r.tape.rows.label = label;
            G = ctm_guided_jump(&n.r.keep, n.tr->ema[0], weight);        // 0: no label; 1: the class; 2: beyond
            y = G->jump(&n.r.tape, G, x, levels(&n.r.tape, "T", 200, 80), levels(&n.r.tape, "0", 200, 0.002));
            for (right[k] = 0, i = 0; i < 200; i++) right[k] += (y->data[2 * i] > 0) == k;
            if (weight == 0) any += right[k];
            else CHECK(right[k] >= 190);
            ctm_tape_reset(&n.r.tape);
        }
    CHECK(any > 150 && any < 250);                                               // half of each, whatever was asked
    full_close(&n);
}

// With an adversary no mode is lost and the flow stays learned; and no memory is asked for after the first steps, labels included.
static void test_gan_keeps_the_modes(void) {
    ctm_config c = small_config();
    full_run n;
    ctm_rng rng = ctm_stream(6, "modes");
    ctm_real x[800];
    size_t held = 0;
    int i, right = 0;
    double error;
    c.hidden = 32; c.batch = 128; c.diagonal_batch = 64; c.steps = 600; c.ema_rate[0] = 0.98; c.gan = CTM_GAN_HINGE; c.gan_start = 200;
    full_open(&n, &c, 1);
    n.r.ctx.threads = 1;
    while (n.tr->step < c.steps && ctm_train_step(n.tr)) {
        if (n.tr->step == 220) held = n.r.ctx.allocated;
    }
    CHECK(n.tr->step == c.steps && n.tr->disc_opt.k == 200);
    CHECK(n.r.ctx.allocated == held);
    error = flow_error(&n.r, n.tr->ema[0], n.teacher);
    CHECK(error < 0.25);
    for (i = 0; i < 800; i++) x[i] = (ctm_real)(80 * ctm_normal(&rng, 0, (uint64_t)i));
    CHECK(ctm_sample_points(n.tr->ema[0], x, 400, 1, 0, NULL));
    for (i = 0; i < 400; i++) right += x[2 * i] > 0;
    CHECK(right > 150 && right < 250);
    full_close(&n);
    c.classes = 2; c.label_dropout = 0.5;
    full_open(&n, &c, 2);
    n.tr->cfg.gan_start = 0;
    for (i = 0; i < 30; i++) {
        CHECK(ctm_train_step(n.tr));
        if (i == 9) held = n.r.ctx.allocated;
    }
    CHECK(n.r.ctx.allocated == held);
    full_close(&n);
    CHECK(n.r.ctx.allocated == 0);
}

// Mistakes of a program stop with one sentence each.
static ctm_tensor *flat_logits(ctm_tape *tp, ctm_net *net, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    (void)net; (void)t; (void)s;
    return ctm_distance(tp, x, ctm_matrix(tp, "0", x->shape[0], x->shape[1]), CTM_L2, 0);
}
static int label_seven(void *user, const ctm_rng *rng, uint64_t step, uint64_t index) { (void)user; (void)rng; (void)step; (void)index; return 7; }
static void test_full_trainer_refuses_nonsense(void) {
    ctm_config c = small_authors(), d;
    full_run n;
    room r;
    ctm_net *disc3, *disc, *labelled;
    int bad[3] = {0, 3, -2};
    ctm_tensor *x;
    room_open(&r);
    d = gan_config();
    disc = ctm_mlp_discriminator(&r.keep, &d, 2);
    disc3 = ctm_mlp_discriminator(&r.keep, &d, 3);
    full_open(&n, &c, 1);
    CHECK(PANICS(ctm_trainer_adversary(&r.keep, n.tr, disc)));
    CHECK_TEXT(test_panic, "CTM_GAN_NONE");
    n.tr->cfg.gan = CTM_GAN_HINGE;
    CHECK(PANICS(ctm_train_step(n.tr)));
    CHECK_TEXT(test_panic, "call ctm_trainer_adversary first");
    CHECK(PANICS(ctm_trainer_adversary(&r.keep, n.tr, disc3)));
    CHECK_TEXT(test_panic, "takes 3 numbers, the student makes 2");
    CHECK(PANICS(ctm_trainer_adversary(&r.keep, n.tr, ctm_net_clone(&r.keep, disc))));
    CHECK_TEXT(test_panic, "frozen");
    disc->forward = flat_logits;
    ctm_trainer_adversary(&r.keep, n.tr, disc);
    n.r.ctx.threads = 1;
    CHECK(PANICS(ctm_train_step(n.tr)));
    CHECK_TEXT(test_panic, "need logits [B,K]");
    full_close(&n);
    full_open(&n, &c, 1);
    n.r.ctx.threads = 1;
    n.tr->label = label_seven;
    CHECK(PANICS(ctm_train_step(n.tr)));
    CHECK_TEXT(test_panic, "has no classes");
    full_close(&n);
    d = c; d.classes = 3;
    full_open(&n, &d, 1);
    n.r.ctx.threads = 1;
    n.tr->label = label_seven;
    CHECK(PANICS(ctm_train_step(n.tr)));
    CHECK_TEXT(test_panic, "label of row 0 is 7");
    n.tr->label = NULL;
    CHECK(PANICS(ctm_train_step(n.tr)));
    CHECK_TEXT(test_panic, "no label function");
    CHECK(PANICS(ctm_trainer_new(&r.keep, &c, n.net, n.teacher, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "the student knows 3 classes, the configuration 0");
    d.label_dropout = 1.5;
    CHECK(PANICS(ctm_trainer_new(&r.keep, &d, n.net, n.teacher, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "label_dropout is 1.5, but it must be a number from 0 to 1");
    labelled = n.net;
    x = noised(&r.tape, "bad labels", levels(&r.tape, "t", 3, 1), 2, 0.5);
    r.tape.rows.label = bad;
    CHECK(PANICS(ctm_D_theta(&r.tape, labelled, x, levels(&r.tape, "t", 3, 1))));
    CHECK_TEXT(test_panic, "label 3 is out of range, the network has 3 classes");
    bad[1] = 2;
    CHECK(PANICS(ctm_D_theta(&r.tape, labelled, x, levels(&r.tape, "t", 3, 1))));
    CHECK_TEXT(test_panic, "label -2 is out of range");
    full_close(&n);
    full_open(&n, &c, 1);
    CHECK(PANICS(ctm_guided_jump(&r.keep, n.net, 2)));
    CHECK_TEXT(test_panic, "knows no classes");
    CHECK(ctm_D_theta(&r.tape, n.net, x, levels(&r.tape, "t", 3, 1)) != NULL);   // a network without classes passes over labels
    d = gan_config(); d.times = NULL;
    CHECK(PANICS(ctm_trainer_new(&r.keep, &d, n.net, n.teacher, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "an adversary (gan) judges jumps");
    d = small_config(); d.aim = ctm_aim_data; d.teach = ctm_teach_jump;
    CHECK(PANICS(ctm_trainer_new(&r.keep, &d, n.net, NULL, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "its own target");
    d = small_authors(); d.times = ctm_times_global; d.teach = ctm_teach_jump;
    CHECK(PANICS(ctm_trainer_new(&r.keep, &d, n.net, NULL, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "its own target");
    d = gan_config(); d.gan_period = 0;
    CHECK(PANICS(ctm_trainer_new(&r.keep, &d, n.net, n.teacher, pair_draw, NULL)));
    CHECK_TEXT(test_panic, "gan_period is 0, but it must be a whole number from 1 to 1000000");
    d = gan_config(); d.gan_layers = 0;
    CHECK(PANICS(ctm_mlp_discriminator(&r.keep, &d, 2)));
    CHECK_TEXT(test_panic, "ctm_mlp_discriminator");
    full_close(&n);
    room_close(&r);
}

static void run_training(void) {
    RUN(loss_golden_soft); RUN(loss_golden_paper_role); RUN(loss_golden_local_and_global); RUN(loss_golden_film); RUN(loss_golden_diagonal);
    RUN(train_golden_ten_steps);
    RUN(op_relu); RUN(op_softplus); RUN(loss_golden_forms); RUN(loss_golden_weights); RUN(loss_golden_gan); RUN(label_golden);
    RUN(exact_flow_has_no_loss); RUN(target_gets_no_gradient); RUN(gradient_passes_through_the_average);
    RUN(estimate_at_the_end_needs_no_second_jump); RUN(local_and_global_targets_are_special_cases); RUN(target_is_the_teachers_point_where_s_is_u);
    RUN(adaptive_weight_balances_and_is_clamped); RUN(average_closes_in_geometrically); RUN(student_from_teachers_weights_jumps_as_euler); RUN(student_that_forgets_the_data_has_no_loss);
    RUN(step_by_hand_default); RUN(step_by_hand_authors); RUN(step_by_hand_paper); RUN(step_by_hand_variants); RUN(shards_change_rounding_only);
    RUN(training_same_bits_for_threads);
#ifndef CTM_NO_IMAGES
    RUN(training_same_bits_for_teams);
#endif
    RUN(non_finite_loss_changes_nothing); RUN(perfect_denoiser_has_the_least_dsm_loss);
    RUN(training_learns_the_flow); RUN(wide_data); RUN(dsm_teacher_learns_the_denoiser); RUN(self_teaching); RUN(trainer_refuses_nonsense); RUN(no_schedule);
    RUN(training_memory_is_steady);
    RUN(rows_by_hand_self_teaching); RUN(rows_by_hand_settings); RUN(rows_by_hand_labels); RUN(diagonal_by_hand); RUN(gan_step_by_hand); RUN(hinge_and_log_losses_have_their_known_values);
    RUN(student_and_discriminator_take_turns); RUN(gan_start); RUN(lambda_gan_is_clamped_or_fixed); RUN(full_training_same_bits_for_threads);
    RUN(gan_shards_agree); RUN(gan_non_finite_changes_nothing); RUN(distances_are_zero_for_equals_and_have_their_formulas); RUN(own_distance); RUN(cm_recipes_depart_from_points_in_what_they_say);
    RUN(paper_and_authors_recipes_are_as_published); RUN(cm_learns_the_flow); RUN(labels_are_learned); RUN(gan_keeps_the_modes); RUN(full_trainer_refuses_nonsense);
}
