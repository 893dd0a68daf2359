/* frechet.h - how alike are two sets of images to a network: the Frechet distance, precision and recall, classes

   Part of the applications of ctm.h, not of ctm.h itself. Include after images_data.h.

   The Frechet distance says how far apart two sets of images are to a network, each set's features taken as a Gaussian. Precision is the
   share of the samples that lie among the real images' features, recall the share of the real images that lie among the samples'. And a
   network that knows classes says which share of the samples it takes for what they were to be.

   The network is the user's (--features; `images judge` trains one), or fixed random convolutional features: three convolutions that
   nobody trained. Those tell a worse model from a better one of the same kind. None of it is FID: values compare with others of the same
   network alone. */
#ifndef CTM_APPS_FRECHET_H
#define CTM_APPS_FRECHET_H

// A network whose last layer is looked at: convolutions with a ReLU behind each, the mean or the maximum of 2x2 behind some.
enum { FEATURE_LAYERS = 64, FEATURES_MAX = 1024 };
typedef struct extractor {
    ctm_net    *net;                    // keeps the weights
    const char *path;                   // of a user's network; NULL: the random ones
    int         size, channels;         // of the images
    int         layers, weight[FEATURE_LAYERS], bias[FEATURE_LAYERS], halved[FEATURE_LAYERS];     // numbers of parameters; bias -1: none
    int         classes;                // that its head tells apart; 0: it has none
    double     *head, *head_bias;       // [classes,features], [classes]
} extractor;

static void random_features(extractor *q, ctm_arena *a, int size, int channels) {
    static const int width[3] = {16, 32, 64};
    const ctm_rng rng = ctm_stream(0, "frechet.features");
    const ctm_noise none = ctm_noise_default();
    q->size = size;
    q->channels = channels;
    q->net = ctm_net_new(a, "features", &none, size*size*channels, 0);
    q->layers = 3;
    for (int l = 0; l < 3; l++) {
        char name[32];
        snprintf(name, sizeof name, "%d.weight", l);
        q->weight[l] = ctm_param_conv(a, q->net, name, 3, l ? width[l - 1] : channels, width[l]);
        q->bias[l] = -1;
        q->halved[l] = l < 2 && size%2 == 0;
        if (q->halved[l]) size /= 2;
    }
    ctm_net_ready(a, q->net);
    for (int l = 0; l < 3; l++) {
        ctm_tensor *w = q->net->param[q->weight[l]];
        ctm_normals(&rng, (uint64_t)l + 1, 0, w->len, w->data);
        for (size_t i = 0; i < w->len; i++) w->data[i] = (ctm_real)((double)w->data[i]*sqrt(2/(9.0*w->shape[2])));
    }
}

// Layer k of a user's network, behind `in` channels of `side` pixels; its width, or 0 with a line.
static int user_layer(extractor *q, ctm_arena *a, const ctm_file *f, const char *prefix, int k, int in, int side, char *err, size_t errlen) {
    const int l = q->layers++;
    char name[64];
    const ctm_entry *w;
    snprintf(name, sizeof name, "%s%d.weight", prefix, k);
    w = ctm_file_find(f, name);
    if (w->ndim != 4 || w->shape[0] < 1 || w->shape[1] != in || w->shape[2] != w->shape[3] || (w->shape[2] != 3 && w->shape[2] != 1))
        return args_fail(err, errlen, "%s: tensor \"%s\" must be a convolution's, [its width,%d,3,3] or [its width,%d,1,1]",
                         f->path, name, in, in);
    if (l && q->halved[l - 1] && side%2)
        return args_fail(err, errlen, "%s: halves images of %d x %d pixels before \"%s\", expected an even number",
                         f->path, side, side, name);
    q->weight[l] = ctm_param_conv(a, q->net, name + strlen(prefix), w->shape[2], in, w->shape[0]);
    snprintf(name, sizeof name, "%s%d.bias", prefix, k);
    q->bias[l] = ctm_file_find(f, name) ? ctm_param(a, q->net, name + strlen(prefix), w->shape[0], 0) : -1;
    return w->shape[0];
}

// A classifier's head, if the file has one: a score for every class is a sum over the features' means, each with its weight.
static int user_head(extractor *q, ctm_arena *a, const ctm_file *f, int width, char *err, size_t errlen) {
    const ctm_entry *w = ctm_file_find(f, "head.weight"), *b = ctm_file_find(f, "head.bias");
    if (!w && !b) return 1;
    if (!w || !b || w->ndim < 2 || w->shape[0] < 2 || w->shape[1] != width || w->len != (size_t)w->shape[0]*(size_t)width || b->len != (size_t)w->shape[0])
        return args_fail(err, errlen, "%s: \"head.weight\" and \"head.bias\" must be those of a classifier, [classes,%d] or [classes,%d,1,1] and [classes]",
                         f->path, width, width);
    q->classes = w->shape[0];
    q->head = (double *)ctm_alloc(a, w->len*sizeof *q->head);
    q->head_bias = (double *)ctm_alloc(a, b->len*sizeof *q->head_bias);
    if (!ctm_file_get(f, w, q->head) || !ctm_file_get(f, b, q->head_bias)) return args_fail(err, errlen, "%s", ctm_error(a->ctx));
    for (size_t i = 0; i < w->len; i++)
        if (!ctm_is_finite(q->head[i])) return args_fail(err, errlen, "%s: tensor \"head.weight\": number %lu is not finite", f->path, (unsigned long)i);
    return 1;
}

// An nn.Sequential of Conv2d, ReLU and MaxPool2d(2), or the `features` of a network, as torchvision's VGG16 has them. What has no
// weights is known by the numbers left out: after a convolution k the next is k + 2, or k + 3 with a halving between.
static int user_features(extractor *q, ctm_arena *a, const char *path, int size, int channels, char *err, size_t errlen) {
    const ctm_file *f = ctm_file_read(a, path);
    const ctm_noise none = ctm_noise_default();
    const char *prefix = f && ctm_file_find(f, "features.0.weight") ? "features." : "";
    int width = channels, side = size, last = -2;
    q->size = size;
    q->channels = channels;
    if (!f) return args_fail(err, errlen, "%s", ctm_error(a->ctx));
    q->net = ctm_net_new(a, "features", &none, size*size*channels, 0);
    for (int k = 0; k < 3*FEATURE_LAYERS && q->layers < FEATURE_LAYERS; k++) {
        char name[64];
        snprintf(name, sizeof name, "%s%d.weight", prefix, k);
        if (!ctm_file_find(f, name)) continue;
        if (q->layers ? k - last != 2 && k - last != 3 : k != 0)
            return args_fail(err, errlen, "%s: layer \"%s\" does not follow on a convolution, a ReLU and perhaps a halving",
                             path, name);
        if (q->layers) q->halved[q->layers - 1] = k - last == 3;
        width = user_layer(q, a, f, prefix, k, width, side, err, errlen);
        if (!width) return 0;
        if (q->layers > 1 && q->halved[q->layers - 2]) side /= 2;
        last = k;
    }
    if (!q->layers) return args_fail(err, errlen,
                                     "%s: has no tensor \"0.weight\" or \"features.0.weight\": expected an nn.Sequential of convolutions", path);
    if (width > FEATURES_MAX) return args_fail(err, errlen, "%s: its last layer has %d channels, expected at most %d",
                                               path, width, FEATURES_MAX);
    ctm_net_ready(a, q->net);
    q->path = path;
    if (!ctm_net_read(q->net, f, prefix)) return args_fail(err, errlen, "%s", ctm_error(a->ctx));
    return user_head(q, a, f, width, err, errlen);
}

static int features_count(const extractor *q) { return q->net->param[q->weight[q->layers - 1]]->shape[3]; }

// The last layer: [B,h,w,features].
static ctm_tensor *features_map(ctm_tape *tp, const extractor *q, ctm_tensor *x) {
    ctm_tensor *h = ctm_reshape(tp, x, 4, x->shape[0], q->size, q->size, q->channels);
    for (int l = 0; l < q->layers; l++) {
        h = ctm_relu(tp, ctm_conv(tp, h, q->net->param[q->weight[l]], q->bias[l] < 0 ? NULL : q->net->param[q->bias[l]], NULL, NULL, 1));
        if (q->halved[l]) h = q->path ? ctm_max_pool(tp, h) : ctm_down(tp, h);
    }
    return h;
}

// Its means over the image.
static ctm_tensor *features_fn(ctm_tape *tp, ctm_tensor *x, size_t first, const void *arg) {
    const extractor *q = (const extractor *)arg;
    const size_t count = (size_t)features_count(q);
    ctm_tensor *h = features_map(tp, q, x), *out = ctm_matrix(tp, "features", x->shape[0], (int)count);
    (void)first;
    const size_t pixels = (size_t)h->shape[1]*(size_t)h->shape[2];
    for (size_t i = 0; i < h->len; i++) out->data[i/(pixels*count)*count + i%count] += h->data[i]/(ctm_real)pixels;
    return out;
}

// Features as a Gaussian: mean [dim], covariance L·L^T with L [dim,dim], and the covariance's trace.
typedef struct gaussian { int dim; double *mean, *L, trace; } gaussian;

// L of a = L·L^T in a's place, zeros above the diagonal; a direction without variance gives a column of zeros.
static void cholesky(int dim, double *a) {
    for (int j = 0; j < dim; j++) {
        const double variance = a[j*dim + j];
        for (int i = j; i < dim; i++) {
            double sum = a[i*dim + j];
            for (int k = 0; k < j; k++) sum -= a[i*dim + k]*a[j*dim + k];
            a[i*dim + j] = sum;
        }
        const double pivot = a[j*dim + j];
        for (int i = j; i < dim; i++) a[i*dim + j] = pivot > 1e-12*variance ? a[i*dim + j]/sqrt(pivot) : 0;
        for (int i = 0; i < j; i++) a[i*dim + j] = 0;
    }
}

// [n,features] of n images x; NULL with ctm_error.
static ctm_real *features_of(ctm_arena *a, const extractor *by, size_t n, const ctm_real *x) {
    const size_t width = (size_t)features_count(by);
    ctm_real *f = (ctm_real *)ctm_alloc(a, n*width*sizeof *f);
    return map_chunks(a->ctx, features_fn, by, n, (size_t)by->net->dim, x, width, f) ? f : NULL;
}

// Of n rows of features f.
static void gaussian_of(ctm_arena *a, int dim, size_t n, const ctm_real *f, gaussian *g) {
    const size_t width = (size_t)dim;
    g->dim = dim;
    g->mean = (double *)ctm_alloc(a, width*sizeof *g->mean);
    g->L = (double *)ctm_alloc(a, width*width*sizeof *g->L);
    const ctm_mark mark = ctm_arena_mark(a);
    double *d = (double *)ctm_alloc(a, width*sizeof *d);
    for (size_t i = 0; i < n*width; i++) g->mean[i%width] += (double)f[i]/(double)n;
    for (size_t i = 0; i < n; i++) {
        for (int j = 0; j < dim; j++) d[j] = (double)f[i*width + (size_t)j] - g->mean[j];
        for (int j = 0; j < dim; j++)
            for (int k = 0; k <= j; k++) g->L[j*dim + k] += d[j]*d[k]/(double)n;
    }
    g->trace = 0;
    for (int j = 0; j < dim; j++) g->trace += g->L[j*dim + j];
    cholesky(dim, g->L);
    ctm_arena_release(a, mark);
}

// The sum of m's singular values: its rows are turned in pairs until all are orthogonal; their lengths are the values (Hestenes).
static double singular_sum(int dim, double *m) {
    double sum = 0;
    int turned = 1;
    for (int sweep = 0; sweep < 40 && turned; sweep++) {
        turned = 0;
        for (int p = 0; p < dim; p++)
            for (int q = p + 1; q < dim; q++) {
                double *x = m + p*dim, *y = m + q*dim, xx = 0, yy = 0, xy = 0;
                for (int k = 0; k < dim; k++) { xx += x[k]*x[k]; yy += y[k]*y[k]; xy += x[k]*y[k]; }
                if (fabs(xy) <= 1e-13*sqrt(xx*yy)) continue;
                const double zeta = (yy - xx)/(2*xy), t = (zeta < 0 ? -1 : 1)/(fabs(zeta) + sqrt(1 + zeta*zeta));
                const double c = 1/sqrt(1 + t*t), s = c*t;
                for (int k = 0; k < dim; k++) {
                    const double was = x[k];
                    x[k] = c*was - s*y[k];
                    y[k] = s*was + c*y[k];
                }
                turned = 1;
            }
    }
    for (int p = 0; p < dim; p++) {
        double xx = 0;
        for (int k = 0; k < dim; k++) xx += m[p*dim + k]*m[p*dim + k];
        sum += sqrt(xx);
    }
    return sum;
}

// |m_1 - m_2|² + tr(C_1 + C_2 - 2·sqrt(C_1·C_2)). With C = L·L^T the root's trace is the sum of the singular values of L_1^T·L_2.
static double frechet(ctm_arena *a, const gaussian *g1, const gaussian *g2) {
    const ctm_mark mark = ctm_arena_mark(a);
    const int dim = g1->dim;
    double *m = (double *)ctm_alloc(a, (size_t)dim*(size_t)dim*sizeof *m), sum = g1->trace + g2->trace;
    for (int k = 0; k < dim; k++)
        for (int i = 0; i <= k; i++)
            for (int j = 0; j <= k; j++) m[i*dim + j] += g1->L[k*dim + i]*g2->L[k*dim + j];
    for (int j = 0; j < dim; j++) sum += (g1->mean[j] - g2->mean[j])*(g1->mean[j] - g2->mean[j]);
    sum -= 2*singular_sum(dim, m);
    ctm_arena_release(a, mark);
    return sum > 0 ? sum : 0;
}

// ---- Precision, recall, classes ----------------------------------------------------------------------------------------

enum { NEIGHBOURS = 3, DISTANCE_ROWS = 64 };

// The squares of rows' lengths.
static double *squares_of(ctm_arena *a, size_t width, size_t n, const ctm_real *f) {
    double *s = (double *)ctm_alloc(a, (n + 1)*sizeof *s);
    for (size_t i = 0; i < n*width; i++) s[i/width] += (double)f[i]*(double)f[i];
    return s;
}

// What rows first ... of y make of their products with the n rows of f, one row after the other: product [n].
typedef void (*product_fn)(void *user, size_t row, const ctm_real *product);
static void each_product(ctm_arena *a, size_t width, size_t n, const ctm_real *f, size_t m, const ctm_real *y, product_fn use, void *user) {
    const ctm_mark mark = ctm_arena_mark(a);
    ctm_real *product = (ctm_real *)ctm_alloc(a, DISTANCE_ROWS*n*sizeof *product), *turned = (ctm_real *)ctm_alloc(a, n*width*sizeof *turned);
    for (size_t i = 0; i < n*width; i++) turned[i%width*n + i/width] = f[i];
    for (size_t first = 0; first < m; first += DISTANCE_ROWS) {
        const size_t rows = m - first < (size_t)DISTANCE_ROWS ? m - first : (size_t)DISTANCE_ROWS;
        ctm_gemm(a->ctx, (int)rows, (int)n, (int)width, y + first*width, (ptrdiff_t)width, 1, turned, (ptrdiff_t)n, product, (ptrdiff_t)n, NULL, 0);
        for (size_t i = 0; i < rows; i++) use(user, first + i, product + i*n);
    }
    ctm_arena_release(a, mark);
}

// n rows of features, and the square of each one's distance to its third neighbour among them: how far it reaches.
typedef struct region { size_t n, width; const ctm_real *f; double *square, *reach; } region;

static void reach_of(void *user, size_t i, const ctm_real *product) {
    region *r = (region *)user;
    double near[NEIGHBOURS];
    for (int k = 0; k < NEIGHBOURS; k++) near[k] = 1e300;
    for (size_t j = 0; j < r->n; j++) {
        double d = j == i ? 1e300 : r->square[i] + r->square[j] - 2*(double)product[j];
        for (int k = 0; k < NEIGHBOURS; k++)
            if (d < near[k]) { const double was = near[k]; near[k] = d; d = was; }
    }
    r->reach[i] = near[NEIGHBOURS - 1];
}

static region region_of(ctm_arena *a, size_t width, size_t n, const ctm_real *f) {
    region r;
    r.n = n;
    r.width = width;
    r.f = f;
    r.square = squares_of(a, width, n, f);
    r.reach = (double *)ctm_alloc(a, n*sizeof *r.reach);
    each_product(a, width, n, f, n, f, reach_of, &r);
    return r;
}

typedef struct visitors { const region *r; const double *square; size_t within; } visitors;
static void visit(void *user, size_t i, const ctm_real *product) {
    visitors *v = (visitors *)user;
    const region *r = v->r;
    size_t j = 0;
    while (j < r->n && v->square[i] + r->square[j] - 2*(double)product[j] > r->reach[j]) j++;
    v->within += j < r->n;
}

// The share of m rows y within reach of a row of r (Kynkaanniemi et al. 2019): precision if r is of real images, recall if y are.
static double share_within(ctm_arena *a, const region *r, size_t m, const ctm_real *y) {
    const ctm_mark mark = ctm_arena_mark(a);
    visitors v;
    v.r = r;
    v.square = squares_of(a, r->width, m, y);
    v.within = 0;
    each_product(a, r->width, r->n, r->f, m, y, visit, &v);
    ctm_arena_release(a, mark);
    return (double)v.within/(double)m;
}

// The share of n rows of features f that the head takes for their labels.
static double share_recognised(const extractor *by, size_t n, const ctm_real *f, const int *label) {
    const int width = features_count(by);
    size_t right = 0;
    for (size_t i = 0; i < n; i++) {
        double most = -1e300;
        int best = -1;
        for (int k = 0; k < by->classes; k++) {
            double score = by->head_bias[k];
            for (int j = 0; j < width; j++) score += by->head[k*width + j]*(double)f[i*(size_t)width + (size_t)j];
            if (score > most) { most = score; best = k; }
        }
        right += best == label[i];
    }
    return (double)right/(double)n;
}

#endif
