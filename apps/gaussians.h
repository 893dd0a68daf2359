/* gaussians.h - a mixture of Gaussians of low rank: images whose denoiser, flow and likelihood are known exactly

   Part of the applications of ctm.h, not of ctm.h itself. Include after images_data.h.

   Each of K components has a mean image m_k and a few orthonormal images u_kj along which it varies by lambda_kj; across all others its
   variance is c². Noise of level t adds t² to every variance, so the mixture stays one. With d = x - m_k, a_j = u_kj·d and v = c² + t²

       log N_k = -(dim - rank)/2·log v - sum_j log(lambda_kj + t²)/2 - (|d|²/v - sum_j (1/v - 1/(lambda_kj + t²))·a_j²)/2 + constant
       D_k(x,t) = m_k + c²/v·d + sum_j (lambda_kj/(lambda_kj + t²) - c²/v)·a_j·u_kj

   and D(x,t) is the mean of the D_k, weighted by the probability r_k that x came from k. Everything that is asked of a row of images is
   its product with the matrix of all m_k and u_kj, and everything that is answered is a product with that matrix: two matrix products an
   evaluation. */
#ifndef CTM_APPS_GAUSSIANS_H
#define CTM_APPS_GAUSSIANS_H

typedef struct gaussians {
    int       size, channels, dim, K, rank;
    double    c2;                       // c²
    double   *log_w, *along;            // [K]; [K,rank]: lambda
    double   *basis;                    // [K,1+rank,dim]: m_k, then its u_kj
    double   *inner;                    // [K,1+rank]: |m_k|², then u_kj·m_k
    ctm_real *basis_r, *turned;         // the same [K,1+rank,dim] and [dim,K·(1+rank)], for products
} gaussians;

static gaussians *gaussians_new(ctm_arena *a, int size, int channels, int K, int rank) {
    gaussians *g = (gaussians *)ctm_alloc(a, sizeof *g);
    g->size = size;
    g->channels = channels;
    g->dim = size*size*channels;
    g->K = K;
    g->rank = rank;
    const size_t n = (size_t)K*(size_t)(1 + rank);
    g->log_w = (double *)ctm_alloc(a, (size_t)K*sizeof(double));
    g->along = (double *)ctm_alloc(a, (size_t)K*(size_t)rank*sizeof(double));
    g->basis = (double *)ctm_alloc(a, n*(size_t)g->dim*sizeof(double));
    g->inner = (double *)ctm_alloc(a, n*sizeof(double));
    g->basis_r = (ctm_real *)ctm_alloc(a, n*(size_t)g->dim*sizeof(ctm_real));
    g->turned = (ctm_real *)ctm_alloc(a, n*(size_t)g->dim*sizeof(ctm_real));
    return g;
}

static double gaussians_dot(int n, const double *x, const double *y) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i]*y[i];
    return sum;
}

// What follows from the basis.
static void gaussians_ready(gaussians *g) {
    const size_t n = (size_t)g->K*(size_t)(1 + g->rank), dim = (size_t)g->dim;
    for (size_t i = 0; i < n; i++) {
        const double *mean = g->basis + i/(size_t)(1 + g->rank)*(size_t)(1 + g->rank)*dim;
        g->inner[i] = gaussians_dot(g->dim, g->basis + i*dim, mean);
        for (size_t d = 0; d < dim; d++) g->basis_r[i*dim + d] = g->turned[d*n + i] = (ctm_real)g->basis[i*dim + d];
    }
}

// r [K]: the probability of each component, given products[k·(1+rank) + j] = basis·x and |x|² left out, as it is the same for all. From
// here on products of axes become a_kj = u_kj·(x - m_k). Returns the log of the density, but for |x|²/2v and the constant.
static double gaussians_posterior(const gaussians *g, double t, double *p, double *r) {
    const double v = g->c2 + t*t;
    double top = -1e300, sum = 0;
    for (int k = 0; k < g->K; k++) {
        double *q = p + k*(1 + g->rank);
        const double *in = g->inner + k*(1 + g->rank), *lambda = g->along + k*g->rank;
        double l = g->log_w[k] - 0.5*(g->dim - g->rank)*log(v) - (in[0] - 2*q[0])/(2*v);
        for (int j = 0; j < g->rank; j++) {
            const double w = lambda[j] + t*t;
            q[1 + j] -= in[1 + j];
            l -= 0.5*log(w) - 0.5*(1/v - 1/w)*q[1 + j]*q[1 + j];
        }
        r[k] = l;
        top = fmax(top, l);
    }
    for (int k = 0; k < g->K; k++) sum += r[k] = exp(r[k] - top);
    for (int k = 0; k < g->K; k++) r[k] /= sum;
    return top + log(sum);
}

// From products and r to coefficients of the basis: D = c²/v·x + sum of coefficients·basis.
static void gaussians_answer(const gaussians *g, double t, double *p, const double *r) {
    const double share = g->c2/(g->c2 + t*t);
    for (int k = 0; k < g->K; k++) {
        double *q = p + k*(1 + g->rank);
        q[0] = r[k]*(1 - share);
        for (int j = 0; j < g->rank; j++) q[1 + j] *= r[k]*(g->along[k*g->rank + j]/(g->along[k*g->rank + j] + t*t) - share);
    }
}

// ---- The denoiser ------------------------------------------------------------------------------------------------------

static double gaussians_log_density(const ctm_denoiser *self, const double *x, double t) {
    const gaussians *g = (const gaussians *)self->impl;
    const int n = g->K*(1 + g->rank);
    double *p = (double *)malloc(((size_t)n + (size_t)g->K)*sizeof *p);
    if (!p) { fprintf(stderr, "images: no memory\n"); exit(1); }
    for (int i = 0; i < n; i++) p[i] = gaussians_dot(g->dim, g->basis + (size_t)i*(size_t)g->dim, x);
    const double l = gaussians_posterior(g, t, p, p + n) - gaussians_dot(g->dim, x, x)/(2*(g->c2 + t*t)) - 0.5*g->dim*log(2*3.14159265358979324);
    free(p);
    return l;
}

// products [B,n] of rows x with the basis.
static ctm_real *gaussians_products(ctm_tape *tp, const gaussians *g, int B, const ctm_real *x) {
    const int n = g->K*(1 + g->rank);
    ctm_real *p = (ctm_real *)ctm_alloc_raw(tp->arena, (size_t)B*(size_t)n*sizeof *p);
    ctm_gemm(tp->ctx, B, n, g->dim, x, g->dim, 1, g->turned, n, p, n, NULL, 0);
    return p;
}

// op: gaussians    out = D(x,t)              x [B,dim]  t [B]
// Backward         with q = basis·dout, w_k = D_k·dout - D·dout, h = 1/v - 1/(lambda + t²):
//                  dx += c²/v·dout + sum_k r_k·w_k/v·m_k + sum_kj r_k·(gain_kj·q_kj + w_k·h_kj·a_kj)·u_kj
static void gaussians_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_tensor *x = out->src[0], *t = out->src[1];
    const gaussians *g = (const gaussians *)(const void *)out->saved;
    const int B = x->shape[0], n = g->K*(1 + g->rank), R = 1 + g->rank;
    ctm_real *dx = ctm_grad(tp, x);                       // t is a constant, so x is what wants one
    const ctm_mark mark = ctm_arena_mark(tp->arena);
    ctm_real *p = gaussians_products(tp, g, B, x->data), *q = gaussians_products(tp, g, B, out->grad);
    double *a = (double *)ctm_alloc(tp->arena, ((size_t)n + 2*(size_t)g->K)*sizeof *a), *r = a + n, *w = r + g->K;
    for (int b = 0; b < B; b++) {
        const double tt = (double)t->data[b], v = g->c2 + tt*tt, share = g->c2/v;
        ctm_real *qb = q + (size_t)b*(size_t)n;
        double mean = 0;
        for (int i = 0; i < n; i++) a[i] = (double)p[(size_t)b*(size_t)n + (size_t)i];
        gaussians_posterior(g, tt, a, r);
        for (int k = 0; k < g->K; k++) {
            w[k] = (1 - share)*(double)qb[k*R];
            for (int j = 1; j < R; j++) {
                const double lambda = g->along[k*g->rank + j - 1];
                w[k] += (lambda/(lambda + tt*tt) - share)*a[k*R + j]*(double)qb[k*R + j];
            }
            mean += r[k]*w[k];
        }
        for (int k = 0; k < g->K; k++) {
            const double rw = r[k]*(w[k] - mean);
            qb[k*R] = (ctm_real)(rw/v);
            for (int j = 1; j < R; j++) {
                const double lambda = g->along[k*g->rank + j - 1], gain = lambda/(lambda + tt*tt) - share, h = 1/v - 1/(lambda + tt*tt);
                qb[k*R + j] = (ctm_real)(r[k]*gain*(double)qb[k*R + j] + rw*h*a[k*R + j]);
            }
        }
        for (int d = 0; d < g->dim; d++) dx[(size_t)b*(size_t)g->dim + (size_t)d] += (ctm_real)share*out->grad[(size_t)b*(size_t)g->dim + (size_t)d];
    }
    ctm_gemm(tp->ctx, B, g->dim, n, q, n, 1, g->basis_r, g->dim, dx, g->dim, NULL, 1);
    ctm_arena_release(tp->arena, mark);
}

static ctm_tensor *gaussians_denoise(ctm_tape *tp, const ctm_denoiser *self, ctm_tensor *x, ctm_tensor *t) {
    const gaussians *g = (const gaussians *)self->impl;
    const int B = x->shape[0], n = g->K*(1 + g->rank);
    ctm_tensor *src[2], *out;
    src[0] = x;
    src[1] = t;
    out = ctm_result(tp, "gaussians", 2, x->shape, 2, src, gaussians_backward);
    out->saved = (ctm_real *)self->impl;
    const ctm_mark mark = ctm_arena_mark(tp->arena);
    ctm_real *p = gaussians_products(tp, g, B, x->data);
    double *a = (double *)ctm_alloc(tp->arena, ((size_t)n + (size_t)g->K)*sizeof *a), *r = a + n;
    for (int b = 0; b < B; b++) {
        const double tt = (double)t->data[b], share = g->c2/(g->c2 + tt*tt);
        ctm_real *pb = p + (size_t)b*(size_t)n;
        for (int i = 0; i < n; i++) a[i] = (double)pb[i];
        gaussians_posterior(g, tt, a, r);
        gaussians_answer(g, tt, a, r);
        for (int i = 0; i < n; i++) pb[i] = (ctm_real)a[i];
        for (int d = 0; d < g->dim; d++) out->data[(size_t)b*(size_t)g->dim + (size_t)d] = (ctm_real)share*x->data[(size_t)b*(size_t)g->dim + (size_t)d];
    }
    ctm_gemm(tp->ctx, B, g->dim, n, p, n, 1, g->basis_r, g->dim, out->data, g->dim, NULL, 1);
    ctm_arena_release(tp->arena, mark);
    return ctm_done(out);
}

static ctm_denoiser *gaussians_denoiser(ctm_arena *a, gaussians *g) {
    ctm_denoiser *D = (ctm_denoiser *)ctm_alloc(a, sizeof *D);
    D->name = "low-rank Gaussians";
    D->dim = g->dim;
    D->impl = g;
    D->denoise = gaussians_denoise;
    D->log_density = gaussians_log_density;
    return D;
}

// ---- Samples -----------------------------------------------------------------------------------------------------------

// x [n,dim]: samples m_k + c·z + sum_j (sqrt(lambda_kj) - c)·(u_kj·z)·u_kj, with z standard normal from the stream of that name and k from
// the stream "gaussians.component".
static void gaussians_samples(const gaussians *g, ctm_arena *a, uint64_t seed, const char *name, size_t n, ctm_real *x) {
    const ctm_mark mark = ctm_arena_mark(a);
    const ctm_rng noise = ctm_stream(seed, name), component = ctm_stream(seed, "gaussians.component");
    const size_t dim = (size_t)g->dim;
    const double c = sqrt(g->c2);
    double *z = (double *)ctm_alloc(a, dim*sizeof *z);
    for (size_t i = 0; i < n; i++, x += dim) {
        double u = ctm_uniform(&component, 0, i);
        int k = 0;
        while (k < g->K - 1 && u >= exp(g->log_w[k])) u -= exp(g->log_w[k++]);
        const double *basis = g->basis + (size_t)k*(size_t)(1 + g->rank)*dim;
        ctm_normals(&noise, 0, i*dim, dim, x);
        for (size_t d = 0; d < dim; d++) {
            z[d] = (double)x[d];
            x[d] = (ctm_real)(basis[d] + c*z[d]);
        }
        for (int j = 0; j < g->rank; j++) {
            const double *axis = basis + (size_t)(1 + j)*dim, f = (sqrt(g->along[k*g->rank + j]) - c)*gaussians_dot(g->dim, axis, z);
            for (size_t d = 0; d < dim; d++) x[d] += (ctm_real)(f*axis[d]);
        }
    }
    ctm_arena_release(a, mark);
}

// ---- Files -------------------------------------------------------------------------------------------------------------

static int gaussians_save(ctm_arena *a, const gaussians *g, const char *path) {
    const int shape[3] = {g->K, 1 + g->rank, g->dim}, total = g->K*g->rank;
    const size_t n = (size_t)g->K*(size_t)g->rank;
    ctm_real *along = (ctm_real *)ctm_alloc(a, n*sizeof *along), *weight = (ctm_real *)ctm_alloc(a, (size_t)g->K*sizeof *weight);
    char text[40];
    ctm_writer w;
    ctm_writer_init(&w, a);
    snprintf(text, sizeof text, "%d", g->size);
    ctm_writer_meta(&w, "gaussians.size", text);
    snprintf(text, sizeof text, "%d", g->channels);
    ctm_writer_meta(&w, "gaussians.channels", text);
    ctm_writer_meta(&w, "gaussians.c", args_number(text, sqrt(g->c2), 17));
    for (size_t i = 0; i < n; i++) along[i] = (ctm_real)g->along[i];
    for (int k = 0; k < g->K; k++) weight[k] = (ctm_real)exp(g->log_w[k]);
    ctm_writer_add(&w, "basis", g->basis_r, 3, shape, 0);
    ctm_writer_add(&w, "variance", along, 1, &total, 0);
    ctm_writer_add(&w, "weight", weight, 1, shape, 0);
    return ctm_writer_save(&w, path);
}

static int gaussians_is(const ctm_file *f) { return ctm_file_meta(f, "gaussians.c") != NULL; }

// From a file that gaussians_is; NULL with a line.
static gaussians *gaussians_read(ctm_arena *a, const ctm_file *f, char *err, size_t errlen) {
    const ctm_entry *basis = ctm_file_find(f, "basis"), *along = ctm_file_find(f, "variance"), *weight = ctm_file_find(f, "weight");
    const char *size = ctm_file_meta(f, "gaussians.size"), *channels = ctm_file_meta(f, "gaussians.channels");
    long long side = 0, c = 0;
    double noise = 0, sum = 0;
    int ok = size && channels && args_int(size, &side) == 1 && args_int(channels, &c) == 1 && args_real(ctm_file_meta(f, "gaussians.c"), &noise) == 1 &&
             side > 0 && side <= IMAGE_SIZE_MAX && c > 0 && c <= 16 && noise > 0 && basis && along && weight && basis->ndim == 3 && basis->shape[1] > 1 &&
             basis->shape[2] == (int)(side*side*c) && along->len == (size_t)basis->shape[0]*(size_t)(basis->shape[1] - 1) && weight->len == (size_t)basis->shape[0];
    gaussians *g = ok ? gaussians_new(a, (int)side, (int)c, basis->shape[0], basis->shape[1] - 1) : NULL;
    if (g && (!ctm_file_get(f, basis, g->basis) || !ctm_file_get(f, along, g->along) || !ctm_file_get(f, weight, g->log_w))) {
        failed_line(err, errlen, a->ctx);
        return NULL;
    }
    if (g) {
        g->c2 = noise*noise;
        for (size_t i = 0; i < basis->len; i++) ok = ok && ctm_is_finite(g->basis[i]);
        for (size_t i = 0; i < along->len; i++) ok = ok && ctm_is_finite(g->along[i]) && g->along[i] >= 0;
        for (int k = 0; k < g->K; k++) { ok = ok && ctm_is_finite(g->log_w[k]) && g->log_w[k] >= 0; sum += g->log_w[k]; }
        ok = ok && sum > 0;
        for (int k = 0; ok && k < g->K; k++) g->log_w[k] = g->log_w[k] > 0 ? log(g->log_w[k]/sum) : -1e3;
    }
    if (!ok) { args_fail(err, errlen, "%s: is no mixture of Gaussians as `images fit` writes it", f->path); return NULL; }
    gaussians_ready(g);
    return g;
}

// ---- Fitting -----------------------------------------------------------------------------------------------------------
//
// Expectation: r_nk for every image n. Maximisation: the mean of component k is the mean of the images weighted by r_nk; its axes are the
// directions in which they vary most, the first eigenvectors of their covariance S_k. A round makes one step of orthogonal iteration
// towards them, U <- orthonormal(S_k·U), for which all images are needed only once. Lengths after orthonormalising are the variances.

enum { FIT_CHUNK = 256 };

// One round over n images. Returns the mean log density of an image, before the round.
static double gaussians_round(ctm_arena *arena, gaussians *g, size_t n, const ctm_real *x) {
    const ctm_mark mark = ctm_arena_mark(arena);
    const int R = 1 + g->rank, N = g->K*R, dim = g->dim;
    ctm_real *p = (ctm_real *)ctm_alloc(arena, (size_t)FIT_CHUNK*(size_t)N*sizeof *p), *part = (ctm_real *)ctm_alloc(arena, (size_t)N*(size_t)dim*sizeof *part);
    double *sum = (double *)ctm_alloc(arena, (size_t)N*(size_t)dim*sizeof *sum), *weight = (double *)ctm_alloc(arena, 2*(size_t)g->K*sizeof *weight);
    double *square = weight + g->K, *a = (double *)ctm_alloc(arena, ((size_t)N + (size_t)g->K)*sizeof *a), *r = a + N, total = 0, c2 = 0;
    double *shift = (double *)ctm_alloc(arena, (size_t)dim*sizeof *shift);
    for (size_t first = 0; first < n; first += FIT_CHUNK) {
        const int rows = n - first < (size_t)FIT_CHUNK ? (int)(n - first) : FIT_CHUNK;
        const ctm_real *rowsx = x + first*(size_t)dim;
        ctm_gemm(arena->ctx, rows, N, dim, rowsx, dim, 1, g->turned, N, p, N, NULL, 0);
        for (int b = 0; b < rows; b++) {
            ctm_real *pb = p + (size_t)b*(size_t)N;
            double xx = 0;
            for (int d = 0; d < dim; d++) xx += (double)rowsx[(size_t)b*(size_t)dim + (size_t)d]*(double)rowsx[(size_t)b*(size_t)dim + (size_t)d];
            for (int i = 0; i < N; i++) a[i] = (double)pb[i];
            total += gaussians_posterior(g, 0, a, r) - xx/(2*g->c2) - 0.5*dim*log(2*3.14159265358979324);
            for (int k = 0; k < g->K; k++) {
                weight[k] += r[k];
                square[k] += r[k]*xx;
                pb[k*R] = (ctm_real)r[k];
                for (int j = 1; j < R; j++) pb[k*R + j] = (ctm_real)(r[k]*a[k*R + j]);
            }
        }
        ctm_gemm(arena->ctx, N, dim, rows, p, 1, N, rowsx, dim, part, dim, NULL, 0);       // p transposed times x
        for (size_t i = 0; i < (size_t)N*(size_t)dim; i++) sum[i] += (double)part[i];
    }
    for (int k = 0; k < g->K; k++) {
        double *mean = g->basis + (size_t)k*(size_t)R*(size_t)dim, *s = sum + (size_t)k*(size_t)R*(size_t)dim, left;
        if (weight[k] < 2) continue;                                    // no image is near: it stays as it is
        for (int d = 0; d < dim; d++) {
            s[d] /= weight[k];
            shift[d] = s[d] - mean[d];
        }
        left = square[k]/weight[k] - gaussians_dot(dim, s, s);
        for (int j = 1; j < R; j++) {
            double *axis = mean + (size_t)j*(size_t)dim, *y = s + (size_t)j*(size_t)dim, along = gaussians_dot(dim, shift, axis), length;
            // S·u is the mean of r·a·x less that of r·a, which is shift·u, times the new mean: the old one has dropped out
            for (int d = 0; d < dim; d++) y[d] = y[d]/weight[k] - along*s[d];
            for (int i = 1; i < j; i++) {
                const double *known = s + (size_t)i*(size_t)dim, f = gaussians_dot(dim, known, y);
                for (int d = 0; d < dim; d++) y[d] -= f*known[d];
            }
            length = sqrt(gaussians_dot(dim, y, y));
            if (length > 1e-12) for (int d = 0; d < dim; d++) y[d] /= length;
            else memcpy(y, axis, (size_t)dim*sizeof *y);
            g->along[k*g->rank + j - 1] = length;
            left -= length;
        }
        c2 += weight[k]/(double)n*fmax(left, 0)/(dim - g->rank);
        memcpy(mean, s, (size_t)R*(size_t)dim*sizeof *mean);
        g->log_w[k] = log(weight[k]/(double)n);
    }
    g->c2 = fmax(c2, 1e-5);
    for (int i = 0; i < g->K*g->rank; i++) g->along[i] = fmax(g->along[i], g->c2);
    gaussians_ready(g);
    ctm_arena_release(arena, mark);
    return total/(double)n;
}

// Begins with K of the images as means, axes at random, and the same variance all over.
static void gaussians_begin(ctm_arena *arena, gaussians *g, size_t n, const ctm_real *x, uint64_t seed) {
    const ctm_mark mark = ctm_arena_mark(arena);
    const ctm_rng rng = ctm_stream(seed, "gaussians.begin");
    const int R = 1 + g->rank;
    double *mean = (double *)ctm_alloc(arena, (size_t)g->dim*sizeof *mean), square = 0;
    for (size_t i = 0; i < n*(size_t)g->dim; i++) {
        mean[i%(size_t)g->dim] += (double)x[i]/(double)n;
        square += (double)x[i]*(double)x[i]/(double)n;
    }
    g->c2 = (square - gaussians_dot(g->dim, mean, mean))/g->dim/2;
    for (int k = 0; k < g->K; k++) {
        double *b = g->basis + (size_t)k*(size_t)R*(size_t)g->dim;
        const size_t which = (size_t)(ctm_uniform(&rng, 0, (uint64_t)k)*(double)n);
        for (int d = 0; d < g->dim; d++) b[d] = (double)x[which*(size_t)g->dim + (size_t)d];
        g->log_w[k] = -log((double)g->K);
        for (int j = 1; j < R; j++) {
            double *u = b + (size_t)j*(size_t)g->dim, length;
            for (int d = 0; d < g->dim; d++) u[d] = ctm_normal(&rng, 1 + (uint64_t)k, (uint64_t)(j*g->dim + d));
            for (int i = 1; i < j; i++) {
                const double *known = b + (size_t)i*(size_t)g->dim, f = gaussians_dot(g->dim, known, u);
                for (int d = 0; d < g->dim; d++) u[d] -= f*known[d];
            }
            length = sqrt(gaussians_dot(g->dim, u, u));
            for (int d = 0; d < g->dim; d++) u[d] /= length;
            g->along[k*g->rank + j - 1] = g->c2;
        }
    }
    gaussians_ready(g);
    ctm_arena_release(arena, mark);
}

#endif
