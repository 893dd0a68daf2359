/* images_judge.h - `images judge`: a network that tells the classes of a set apart, for `images eval --features`

   Part of the applications of ctm.h, not of ctm.h itself. Include after frechet.h. Lesson 10 (examples/10_classifier.c) explains every
   part of it on drawn pictures. */
#ifndef CTM_APPS_IMAGES_JUDGE_H
#define CTM_APPS_IMAGES_JUDGE_H

enum { JUDGE_LAYERS = 4, JUDGE_BATCH = 64 };
#define JUDGE_LR 2e-3

typedef struct judging {
    args_common common;
    const char *data, *range, *test;
    long long   epochs;
    ctm_ctx     ctx;
    ctm_arena   a;
    dataset     d;
    image_set   other;                  // of --test
    extractor   by;
    char        line[600];
} judging;

// Four convolutions named as PyTorch would number them in an nn.Sequential, and the head.
static void judge_network(extractor *q, ctm_arena *a, const image_set *s, int classes) {
    static const int width[JUDGE_LAYERS] = {16, 32, 64, 128};
    const ctm_noise none = ctm_noise_default();
    int side = s->size, number = 0;
    q->path = "images judge";
    q->size = s->size;
    q->channels = s->channels;
    q->classes = classes;
    q->layers = JUDGE_LAYERS;
    q->net = ctm_net_new(a, "judge", &none, s->size*s->size*s->channels, 0);
    for (int l = 0; l < JUDGE_LAYERS; l++) {
        char name[32];
        snprintf(name, sizeof name, "features.%d.weight", number);
        q->weight[l] = ctm_param_conv(a, q->net, name, 3, l ? width[l - 1] : s->channels, width[l]);
        snprintf(name, sizeof name, "features.%d.bias", number);
        q->bias[l] = ctm_param(a, q->net, name, width[l], 0);
        q->halved[l] = l < JUDGE_LAYERS - 1 && side%2 == 0 && side > 8;
        if (q->halved[l]) side /= 2;
        number += q->halved[l] ? 3 : 2;
    }
    ctm_param_conv(a, q->net, "head.weight", 1, width[JUDGE_LAYERS - 1], classes);
    ctm_param(a, q->net, "head.bias", classes, 0);
    ctm_net_ready(a, q->net);
    ctm_net_init(q->net, 1, 1);
    for (int l = 0; l < JUDGE_LAYERS; l++) {                 // a ReLU sets half of its inputs to zero: twice the variance makes up for it
        ctm_tensor *w = q->net->param[q->weight[l]];
        for (size_t i = 0; i < w->len; i++) w->data[i] *= (ctm_real)sqrt(2);
    }
}

// The classes' scores at every place: [B,h,w,classes].
static ctm_tensor *judge_scores(ctm_tape *tp, const extractor *q, ctm_tensor *x) {
    ctm_tensor *head = q->net->param[q->net->count - 2], *bias = q->net->param[q->net->count - 1];
    return ctm_conv(tp, features_map(tp, q, x), head, bias, NULL, NULL, 1);
}

// p [classes]: softmax of the means of row i's scores over its places.
static void judge_probabilities(const ctm_tensor *s, size_t i, double *p) {
    const size_t places = (size_t)s->shape[1]*(size_t)s->shape[2], classes = (size_t)s->shape[3];
    double most = -1e300, sum = 0;
    for (size_t k = 0; k < classes; k++) {
        p[k] = 0;
        for (size_t at = 0; at < places; at++) p[k] += (double)s->data[(i*places + at)*classes + k]/(double)places;
        most = fmax(most, p[k]);
    }
    for (size_t k = 0; k < classes; k++) sum += p[k] = exp(p[k] - most);
    for (size_t k = 0; k < classes; k++) p[k] /= sum;
}

// Cross-entropy: the mean over the rows of -ln p[label]; its gradient by the scores is p, less 1 at the label.
static void cross_entropy_backward(ctm_tape *tp, ctm_tensor *L) {
    ctm_tensor *s = L->src[0];
    const size_t B = (size_t)s->shape[0], places = (size_t)s->shape[1]*(size_t)s->shape[2], classes = (size_t)s->shape[3];
    ctm_real *ds = ctm_grad(tp, s);
    double p[IMAGE_CLASSES_MAX];
    for (size_t i = 0; i < B; i++) {
        judge_probabilities(s, i, p);
        p[tp->rows.label[i]] -= 1;
        for (size_t n = 0; n < places*classes; n++) ds[i*places*classes + n] += L->grad[0]*(ctm_real)(p[n%classes]/(double)(B*places));
    }
}
static ctm_tensor *cross_entropy(ctm_tape *tp, ctm_tensor *s) {
    ctm_tensor *L = ctm_result(tp, "cross_entropy", 0, NULL, 1, &s, cross_entropy_backward);
    double p[IMAGE_CLASSES_MAX], sum = 0;
    for (int i = 0; i < s->shape[0]; i++) {
        judge_probabilities(s, (size_t)i, p);
        sum -= log(p[tp->rows.label[i]] + 1e-30);
    }
    L->data[0] = (ctm_real)(sum/s->shape[0]);
    return ctm_done(L);
}

// Images `number` of a set and their labels.
static ctm_tensor *judge_batch(ctm_tape *tp, image_set *s, int n, const size_t *number, const int *mirrored, int *label) {
    const size_t dim = (size_t)s->size*(size_t)s->size*(size_t)s->channels;
    ctm_tensor *x = ctm_matrix(tp, "x", n, (int)dim);
    for (int i = 0; i < n; i++) {
        image_get(s, number[i], mirrored ? mirrored[i] : 0, x->data + (size_t)i*dim);
        label[i] = image_label(s, number[i]);
    }
    tp->rows.label = label;
    return x;
}

// The share of n images from number `first` on whose most probable class is right.
static double judge_accuracy(judging *j, ctm_tape *tp, image_set *s, size_t first, size_t n) {
    size_t right = 0, number[JUDGE_BATCH];
    int label[JUDGE_BATCH];
    double p[IMAGE_CLASSES_MAX];
    tp->recording = 0;
    for (size_t at = 0; at < n; at += JUDGE_BATCH) {
        const int rows = n - at < (size_t)JUDGE_BATCH ? (int)(n - at) : JUDGE_BATCH;
        for (int i = 0; i < rows; i++) number[i] = first + at + (size_t)i;
        ctm_tape_reset(tp);
        const ctm_tensor *scores = judge_scores(tp, &j->by, judge_batch(tp, s, rows, number, NULL, label));
        for (int i = 0; i < rows; i++) {
            int best = 0;
            judge_probabilities(scores, (size_t)i, p);
            for (int k = 1; k < j->by.classes; k++) if (p[k] > p[best]) best = k;
            right += best == label[i];
        }
    }
    tp->recording = 1;
    return (double)right/(double)n;
}

// Mirrored, too: a shoe is a shoe either way.
static void judge_learn(judging *j, ctm_tape *tp, image_set *test, size_t first, size_t n) {
    const ctm_rng rng = ctm_stream((uint64_t)j->common.seed, "judge");
    const long epoch = (long)(j->d.rows/JUDGE_BATCH) + 1, steps = epoch*(long)j->epochs;
    size_t number[JUDGE_BATCH];
    int label[JUDGE_BATCH], mirrored[JUDGE_BATCH];
    double loss = 0;
    ctm_opt adam;
    ctm_opt_init(&j->a, &adam, CTM_ADAM, j->by.net->len, JUDGE_LR);
    for (long step = 0; step < steps; step++) {
        for (int i = 0; i < JUDGE_BATCH; i++) {
            number[i] = drawn_image(&j->d, &rng, (uint64_t)step, (uint64_t)i);
            mirrored[i] = ctm_uniform(&rng, (uint64_t)step, 4*(uint64_t)i + 2) < 0.5;
        }
        ctm_tape_reset(tp);
        ctm_tensor *L = cross_entropy(tp, judge_scores(tp, &j->by, judge_batch(tp, &j->d.set, JUDGE_BATCH, number, mirrored, label)));
        memset(j->by.net->grad, 0, j->by.net->len*sizeof *j->by.net->grad);
        ctm_backward(tp, L);
        adam.lr = JUDGE_LR*(1 - (double)step/(double)steps);
        ctm_opt_step(&j->ctx, &adam, j->by.net->theta, j->by.net->grad);
        loss += (double)L->data[0]/(double)epoch;
        if ((step + 1)%epoch || j->common.quiet) continue;
        printf("epoch %ld: loss %.3f, %.1f %% of %lu test images recognised\n", (step + 1)/epoch, loss, 100*judge_accuracy(j, tp, test, first, n), (unsigned long)n);
        fflush(stdout);
        loss = 0;
    }
}

static int judge_save(judging *j) {
    const ctm_net *net = j->by.net;
    ctm_writer w;
    ctm_writer_init(&w, &j->a);
    for (int p = 0; p < net->count; p++)
        ctm_writer_add(&w, net->param[p]->name, net->param[p]->data, net->param[p]->ndim, net->param[p]->shape, net->param[p]->ndim > 1);
    return ctm_writer_save(&w, j->common.out) || failed_line(j->line, sizeof j->line, &j->ctx);
}

// The test images: those of --test, or the end of --data.
static int judge_test_set(judging *j, int classes, image_set **s, size_t *first, size_t *n) {
    double numbers[2];
    *s = &j->d.set;
    *first = j->d.rows;
    *n = j->d.held;
    if (!j->test) return *n > 0 || args_fail(j->line, sizeof j->line, "%s: holds %lu images, expected at least 10", j->data, (unsigned long)j->d.set.n);
    if (j->range) image_range(j->range, numbers);
    if (!image_open_scaled(&j->other, j->test, j->range ? numbers : NULL, j->line, sizeof j->line)) return 0;
    *s = &j->other;
    *first = 0;
    *n = j->other.n;
    if (j->other.size != j->d.set.size || j->other.channels != j->d.set.channels)
        return args_fail(j->line, sizeof j->line, "%s: holds images of %d x %d with %d channels, but --data has %d x %d with %d", j->test, j->other.size, j->other.size,
                         j->other.channels, j->d.set.size, j->d.set.size, j->d.set.channels);
    return check_labels(*s, classes, j->test, j->line, sizeof j->line);
}

static int judge_run(judging *j) {
    ctm_arena arena;
    ctm_tape tape;
    image_set *test;
    size_t first, n;
    int classes = 0, ok;
    if (!data_open(&j->d, j->data, j->range, j->line, sizeof j->line)) return wrong(j->line);
    for (size_t i = 0; i < j->d.set.n; i++)
        if (image_label(&j->d.set, i) >= classes) classes = image_label(&j->d.set, i) + 1;
    if (classes < 2) {
        args_fail(j->line, sizeof j->line, "%s: has no labels of two classes or more beside its images", j->data);
        return wrong(j->line);
    }
    if (!check_labels(&j->d.set, classes, j->data, j->line, sizeof j->line) || !judge_test_set(j, classes, &test, &first, &n)) return wrong(j->line);
    if (!image_can_write(j->common.out, j->line, sizeof j->line)) return wrong(j->line);
    judge_network(&j->by, &j->a, &j->d.set, classes);
    ctm_arena_init(&arena, &j->ctx, "step");
    ctm_tape_init(&tape, &j->ctx, &arena);
    tape.keep_grads = 0;
    if (!j->common.quiet) printf("%lu image%s of %d classes, %lu weights\n", (unsigned long)j->d.rows, plural(j->d.rows), classes, (unsigned long)j->by.net->len);
    judge_learn(j, &tape, test, first, n);
    printf("%.1f %% of %lu test images recognised\n", 100*judge_accuracy(j, &tape, test, first, n), (unsigned long)n);
    ok = image_intact(&j->d.set, j->line, sizeof j->line) && image_intact(test, j->line, sizeof j->line) && judge_save(j);
    ctm_arena_free(&arena);
    if (!ok) return wrong(j->line);
    if (!j->common.quiet) printf("the judge is in %s\n", j->common.out);
    return 0;
}

static int judge_main(int argc, char **argv) {
    static judging j;
    int status;
    j.common = args_common_defaults("judge.safetensors");
    j.epochs = 8;
    const args_option options[] = {
        {"data",   ARGS_TEXT, &j.data,   0, 0,   NULL, "images with labels to learn from; their end is kept for testing"},
        RANGE_OPTION(j.range),
        {"test",   ARGS_TEXT, &j.test,   0, 0,   NULL, "images with labels to test on instead"},
        {"epochs", ARGS_INT,  &j.epochs, 1, 1e6, NULL, "how often it sees every image"},
        ARGS_COMMON(j.common)
    };
    status = args_parse("images", "images judge --data FILE --out JUDGE.safetensors [flags]", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_exit_status(status);
    if (!j.data) return misused("flag --data: is missing; expected a folder or files of images with labels");
    if (!check_range(j.range, j.line, sizeof j.line)) return misused(j.line);
    ctm_init(&j.ctx);
    j.ctx.threads = (int)j.common.threads;
    ctm_arena_init(&j.a, &j.ctx, "judge");
    status = judge_run(&j);
    image_close(&j.d.set);
    image_close(&j.other);
    ctm_arena_free(&j.a);
    return status;
}

#endif
