/* toys.h - seven data sets in the plane, each with its exact denoiser and density

   ring, grid, moons, swiss, spiral, pinwheel: mixtures of K equally likely isotropic Gaussians (ctm_mixture).
   checker: eight equally likely uniform squares (its own denoiser, further down).

   Every set is centred, and scaled by ONE factor for both coordinates, so that mixtures stay isotropic: the mean of the two
   coordinate variances is sigma_data² = 0.25. Both numbers are computed in closed form from the parts,
       centre = mean of the means m_k,     variance = mean of |m_k - centre|²/2 + c²,     scale = 0.5/sqrt(variance),
   where c² is the variance of one part per coordinate (of a unit square: 1/12). A point p in the units of the definition
   below becomes (p - centre)·scale; all else in this file is in these standardised units.

       toy data;                                                 // must outlive what uses it: the draw function reads it
       if (!toy_make(&data, &arena, "moons")) ...                // 0: no set of that name
       ctm_trainer_new(&arena, &cfg, net, data.denoiser, toy_draw, &data);

   Functions are static inline, without state of their own. Include after or before ctm.h. C99, also C++. */

#ifndef TOYS_H
#define TOYS_H

#include <math.h>
#include <string.h>
#include "../ctm.h"

enum { TOY_MAX_PARTS = 128, TOY_COUNT = 7 };
#define TOY_PI 3.14159265358979323846
#define TOY_SIGMA_DATA 0.5

typedef struct toy {
    const char   *name;
    int           K;                       // parts: Gaussians, or squares of the checker; all equally likely
    double        mean[TOY_MAX_PARTS][2];  // their centres
    double        c;                       // standard deviation of one part, per coordinate
    double        side;                    // checker: side of a square; 0 for the mixtures
    double        scale, centre[2];        // standardised = (original - centre)·scale
    ctm_denoiser *denoiser;                // exact; lives in the arena given to toy_make
} toy;

// The names of all sets, NULL at the end.
static inline const char *const *toy_names(void) {
    static const char *const names[TOY_COUNT + 1] = {"ring", "grid", "moons", "checker", "swiss", "spiral", "pinwheel", NULL};
    return names;
}

// ---- The checker's denoiser, in double precision ----------------------------------------------------------------------
//
// The board has 4 x 4 squares; data fill those with column + row even. With noise t, a point x has the likelihood
//     p_t(x,y) = 1/(8·side²) · sum over allowed (i,j) of A_i(x)·A_j(y),     A_i(x) = P(e_i < x - t·eps < e_{i+1}),
// a sum of products, so each axis is reduced to two classes, its even and its odd columns: mass S and first moment T of each.
//     p_t = (S_e·U_e + S_o·U_o)/(8·side²),     D_x = (T_e·U_e + T_o·U_o)/(S_e·U_e + S_o·U_o),      U: the masses of y.

// The tail of the normal distribution without its exponential: Q(z) = P(eps > z) = exp(-z²/2)·h(z), for z >= 0.
static inline double toy__tail(double z) {
    double w;
    if (z < 35) return 0.5*exp(0.5*z*z)*erfc(z*0.70710678118654752440);
    w = 1/(z*z);
    return (1 - w*(1 - 3*w*(1 - 5*w*(1 - 7*w*(1 - 9*w)))))/(z*2.50662827463100050242);
}

// One class of columns of one axis: mass = exp(log_scale)·mantissa, and the mean of x_0 given that class.
typedef struct toy__class { double log_scale, mantissa, mean; } toy__class;

// The interval between two edges at a < b (in units of t from x), whose scaled tails are ha = h(|a|), hb = h(|b|). The
// largest exponential, exp(-lo²/2) with lo the distance of x, is kept apart: nothing underflows however far x is.
static inline toy__class toy__interval(double x, double t, double a, double b, double ha, double hb) {
    const double density = 0.39894228040143267794;     // 1/sqrt(2 pi)
    toy__class r;
    double side = 1, lo, hi, gap, lean;
    if (a < 0 && b > 0) {                               // x is inside
        double ea = exp(-0.5*a*a), eb = exp(-0.5*b*b);
        r.log_scale = 0;
        r.mantissa = 1 - ea*ha - eb*hb;
        r.mean = x + t*density*(ea - eb)/r.mantissa;
        return r;
    }
    lo = a; hi = b;
    if (b <= 0) { double h = ha; ha = hb; hb = h; lo = -b; hi = -a; side = -1; }   // x is to the right: reflect
    gap = -0.5*(hi - lo)*(hi + lo);
    lean = -expm1(gap);
    r.log_scale = -0.5*lo*lo;
    r.mantissa = ha - (1 - lean)*hb;
    r.mean = x + side*t*density*lean/r.mantissa;
    return r;
}

static inline toy__class toy__join(toy__class p, toy__class q) {
    double top = p.log_scale > q.log_scale ? p.log_scale : q.log_scale;
    double mp = p.mantissa*exp(p.log_scale - top), mq = q.mantissa*exp(q.log_scale - top);
    toy__class r;
    r.log_scale = top;
    r.mantissa = mp + mq;
    r.mean = (mp*p.mean + mq*q.mean)/r.mantissa;
    return r;
}

// out[0]: columns 0 and 2; out[1]: columns 1 and 3.
static inline void toy__axis(double side, double x, double t, toy__class out[2]) {
    double z[5], h[5];
    toy__class part[4];
    for (int k = 0; k < 5; k++) {
        z[k] = ((k - 2)*side - x)/t;
        h[k] = toy__tail(fabs(z[k]));
    }
    for (int i = 0; i < 4; i++) part[i] = toy__interval(x, t, z[i], z[i + 1], h[i], h[i + 1]);
    out[0] = toy__join(part[0], part[2]);
    out[1] = toy__join(part[1], part[3]);
}

// w[p] = weight of class p of both axes together, relative to exp(the return value).
static inline double toy__board_weights(const toy__class X[2], const toy__class Y[2], double w[2]) {
    double le = X[0].log_scale + Y[0].log_scale, lo = X[1].log_scale + Y[1].log_scale;
    double top = le > lo ? le : lo;
    w[0] = exp(le - top)*X[0].mantissa*Y[0].mantissa;
    w[1] = exp(lo - top)*X[1].mantissa*Y[1].mantissa;
    return top;
}

// D(x,t) of the checker; impl points to the side. Right to about 1e-11 for t from 1e-6 to 1e3 and x however far.
static inline void toy__board_exact(const ctm_denoiser *self, const double *x, double t, double *D) {
    const double side = *(const double *)self->impl;
    toy__class X[2], Y[2];
    double w[2];
    toy__axis(side, x[0], t, X);
    toy__axis(side, x[1], t, Y);
    toy__board_weights(X, Y, w);
    D[0] = (w[0]*X[0].mean + w[1]*X[1].mean)/(w[0] + w[1]);
    D[1] = (w[0]*Y[0].mean + w[1]*Y[1].mean)/(w[0] + w[1]);
}

// log p_t(x), nats. At t = 0 the limit: log 1/(8·side²) inside, and a very negative number outside.
static inline double toy__board_log_density(const ctm_denoiser *self, const double *x, double t) {
    const double side = *(const double *)self->impl;
    toy__class X[2], Y[2];
    double w[2], top;
    if (t < 1e-9) t = 1e-9;
    toy__axis(side, x[0], t, X);
    toy__axis(side, x[1], t, Y);
    top = toy__board_weights(X, Y, w);
    return top + log(w[0] + w[1]) - log(8*side*side);
}

// ---- The checker's denoiser for whole batches, in the tensors' precision ----------------------------------------------
//
// The teacher's solver calls it for every row at every step, so it works on blocks of coordinates with plain loops that
// compilers vectorise. Two ways to get the masses and moments of the even and odd columns:
//   near (t < 0.6): from the normal tails at the five edges. For large t that would be a difference of nearly equal numbers;
//   far  (t >= 0.6): five-point Gauss-Legendre quadrature of exp(v·x/t² - v²/(2t²)) over each column: all terms positive.
// A row for which neither is accurate (very far from the board for its noise level) falls back on the exact formula.

enum { TOY_ROWS = 16, TOY_LANES = 2*TOY_ROWS };        // rows of a block; the block's x coordinates, then its y
typedef struct toy__sums { ctm_real mass[2][TOY_LANES], moment[2][TOY_LANES]; } toy__sums;   // [even, odd]

// At the five edges, z = (edge - x)/t:  exponent = -z²/2,  bell = exp(-z²/2),  signed_tail = sign(z)·Q(|z|).
typedef struct toy__edges {
    ctm_real z[5][TOY_LANES], exponent[5][TOY_LANES], bell[5][TOY_LANES], signed_tail[5][TOY_LANES];
} toy__edges;

// Q(z) = exp(-z²/2)·h(z) with h(z) = u·poly(u), u = 1/(1 + 0.255 z): relative error 5e-8 for all z >= 0 (a polynomial that
// interpolates at the Chebyshev points of u).
static inline void toy__tails(toy__edges *e) {
    static const ctm_real p[10] = {
        (ctm_real)0.10173028, (ctm_real)0.101730632, (ctm_real)0.0951007855, (ctm_real)0.0821389328, (ctm_real)0.0610202056,
        (ctm_real)0.0540003525, (ctm_real)-0.0152978365, (ctm_real)0.0717106826, (ctm_real)-0.0710698408, (ctm_real)0.0189358234};
    const ctm_real one = 1, slope = (ctm_real)0.255;
    for (int k = 0; k < 5; k++)
        for (int j = 0; j < TOY_LANES; j++) {
            ctm_real z = e->z[k][j], size = z < 0 ? -z : z, u = one/(one + slope*size), q;
            q = p[9];
            q = q*u + p[8]; q = q*u + p[7]; q = q*u + p[6];
            q = q*u + p[5]; q = q*u + p[4]; q = q*u + p[3];
            q = q*u + p[2]; q = q*u + p[1]; q = q*u + p[0];
            q = q*u*e->bell[k][j];
            e->signed_tail[k][j] = z < 0 ? -q : q;
        }
}

// 1 if x lies between two edges.
static inline ctm_real toy__inside(ctm_real left, ctm_real right) {
    return (ctm_real)((left < 0) & (right >= 0));
}

// The column between two edges has the mass Q(z_left) - Q(z_right). With signed tails this is their difference, plus 1 if x
// is inside, and no digits are lost on either side. Its first moment is x·mass + t·(bell_left - bell_right)/sqrt(2 pi).
static inline void toy__near(ctm_ctx *ctx, double side, const ctm_real *x, const ctm_real *t, toy__sums *out) {
    const ctm_real density = (ctm_real)0.39894228040143268, half = (ctm_real)-0.5, lowest = -80;
    toy__edges e;
    for (int k = 0; k < 5; k++) {
        const ctm_real edge = (ctm_real)((k - 2)*side);
        for (int j = 0; j < TOY_LANES; j++) {
            ctm_real z = (edge - x[j])/t[j], exponent = half*z*z;
            e.z[k][j] = z;
            e.exponent[k][j] = exponent < lowest ? lowest : exponent;
        }
    }
    ctm_exp_rows(ctx, 5*TOY_LANES, e.exponent[0], e.bell[0]);
    toy__tails(&e);
    for (int p = 0; p < 2; p++)
        for (int j = 0; j < TOY_LANES; j++) {
            ctm_real low  = e.signed_tail[p][j] - e.signed_tail[p + 1][j] + toy__inside(e.z[p][j], e.z[p + 1][j]);
            ctm_real high = e.signed_tail[p + 2][j] - e.signed_tail[p + 3][j] + toy__inside(e.z[p + 2][j], e.z[p + 3][j]);
            ctm_real bell = (e.bell[p][j] - e.bell[p + 1][j]) + (e.bell[p + 2][j] - e.bell[p + 3][j]);
            out->mass[p][j] = low + high;
            out->moment[p][j] = x[j]*(low + high) + t[j]*density*bell;
        }
}

// The same up to the factor exp(-x²/(2t²))·side/(2t·sqrt(2 pi)), which both classes of an axis share.
static inline void toy__far(ctm_ctx *ctx, double side, const ctm_real *x, const ctm_real *t, toy__sums *out) {
    static const double node[5] = {-0.90617984593866399, -0.53846931010568309, 0, 0.53846931010568309, 0.90617984593866399};
    static const double weight[5] = {0.23692688505618909, 0.47862867049936647, 0.56888888888888889, 0.47862867049936647,
                                     0.23692688505618909};
    const ctm_real half = (ctm_real)0.5;
    ctm_real arg[20*TOY_LANES], e[20*TOY_LANES], precision[TOY_LANES];
    for (int j = 0; j < TOY_LANES; j++) precision[j] = 1/(t[j]*t[j]);
    for (int k = 0; k < 20; k++) {
        const ctm_real v = (ctm_real)(side*(k/5 - 1.5 + 0.5*node[k%5]));
        for (int j = 0; j < TOY_LANES; j++) arg[k*TOY_LANES + j] = v*(x[j] - half*v)*precision[j];
    }
    ctm_exp_rows(ctx, 20*TOY_LANES, arg, e);
    memset(out, 0, sizeof *out);
    for (int k = 0; k < 20; k++) {
        const ctm_real w = (ctm_real)weight[k%5], v = (ctm_real)(side*(k/5 - 1.5 + 0.5*node[k%5]));
        const int p = (k/5)%2;
        for (int j = 0; j < TOY_LANES; j++) {
            ctm_real mass = w*e[k*TOY_LANES + j];
            out->mass[p][j] += mass;
            out->moment[p][j] += v*mass;
        }
    }
}

static inline void toy__board_row_exact(const ctm_denoiser *self, const ctm_real *x, double t, ctm_real *D) {
    double point[2], result[2];
    point[0] = (double)x[0]; point[1] = (double)x[1];
    toy__board_exact(self, point, t, result);
    D[0] = (ctm_real)result[0]; D[1] = (ctm_real)result[1];
}

// D = (x,y) and the likelihood Z, up to a factor, of the rows of a block.
typedef struct toy__result { ctm_real Z[TOY_ROWS], x[TOY_ROWS], y[TOY_ROWS]; } toy__result;

static inline void toy__combine(const toy__sums *s, toy__result *d) {
    const ctm_real tiny = (ctm_real)1e-30;
    for (int j = 0; j < TOY_ROWS; j++) {
        const int y = TOY_ROWS + j;
        const ctm_real Z = s->mass[0][j]*s->mass[0][y] + s->mass[1][j]*s->mass[1][y], inverse = 1/(Z + tiny);
        d->Z[j] = Z;
        d->x[j] = (s->moment[0][j]*s->mass[0][y] + s->moment[1][j]*s->mass[1][y])*inverse;
        d->y[j] = (s->mass[0][j]*s->moment[0][y] + s->mass[1][j]*s->moment[1][y])*inverse;
    }
}

// Rows row[0..n-1] (n <= TOY_ROWS), all near (away = 0) or all far.
static inline void toy__board_block(ctm_ctx *ctx, const ctm_denoiser *self, int away, const int *row, int n, const ctm_real *x,
                                    const ctm_real *t, ctm_real *D) {
    const double side = *(const double *)self->impl;
    const ctm_real rare = away ? (ctm_real)0 : (ctm_real)1e-14;   // near: below this, x is many t away from all data
    ctm_real bx[TOY_LANES], bt[TOY_LANES];
    toy__sums s;
    toy__result d;
    for (int j = 0; j < TOY_ROWS; j++) {
        int r = row[j < n ? j : 0];                              // a short block repeats its first row
        bx[j] = x[2*r];
        bx[TOY_ROWS + j] = x[2*r + 1];
        bt[j] = bt[TOY_ROWS + j] = t[r];
    }
    if (away) toy__far(ctx, side, bx, bt, &s);
    else      toy__near(ctx, side, bx, bt, &s);
    toy__combine(&s, &d);
    for (int j = 0; j < n; j++) {
        const int r = row[j];
        D[2*r] = d.x[j];
        D[2*r + 1] = d.y[j];
        if (!(d.Z[j] > rare)) toy__board_row_exact(self, x + 2*r, (double)t[r], D + 2*r);
    }
}

// Which way for this row: 0 near, 1 far, 2 exact. The quadrature is accurate to 1e-6 while |x|·side/(2t²) < 2.
static inline int toy__board_way(double side, const ctm_real *x, ctm_real t) {
    const ctm_real reach = t*t*(ctm_real)(4/side);
    if (sizeof(ctm_real) == sizeof(double)) return 2;
    if (t < (ctm_real)0.6) return 0;
    return x[0] < reach && x[0] > -reach && x[1] < reach && x[1] > -reach ? 1 : 2;
}

// x [B,2], t [B] -> D [B,2]. Not recorded: no gradient flows to x. Relative to sigma_data the error is about 1e-6.
static inline ctm_tensor *toy__board_denoise(ctm_tape *tp, const ctm_denoiser *self, ctm_tensor *x, ctm_tensor *t) {
    const double side = *(const double *)self->impl;
    const int B = x->shape[0];
    ctm_tensor *D = ctm_matrix(tp, "checker", B, 2);
    int row[2][TOY_ROWS], n[2] = {0, 0};
    for (int i = 0; i < B; i++) {
        const int way = toy__board_way(side, x->data + 2*i, t->data[i]);
        if (way == 2) { toy__board_row_exact(self, x->data + 2*i, (double)t->data[i], D->data + 2*i); continue; }
        row[way][n[way]++] = i;
        if (n[way] < TOY_ROWS) continue;
        toy__board_block(tp->ctx, self, way, row[way], n[way], x->data, t->data, D->data);
        n[way] = 0;
    }
    for (int way = 0; way < 2; way++)
        if (n[way] > 0) toy__board_block(tp->ctx, self, way, row[way], n[way], x->data, t->data, D->data);
    return D;
}

// ---- The definitions ---------------------------------------------------------------------------------------------------

static inline void toy__part(toy *d, double x, double y) {
    d->mean[d->K][0] = x;
    d->mean[d->K][1] = y;
    d->K++;
}

// Eight Gaussians on a circle of radius 2, std 0.15.
static inline void toy__ring(toy *d) {
    d->c = 0.15;
    for (int k = 0; k < 8; k++) toy__part(d, 2*cos(TOY_PI*k/4), 2*sin(TOY_PI*k/4));
}

// 5 x 5 Gaussians, spacing 1, std 0.1.
static inline void toy__grid(toy *d) {
    d->c = 0.1;
    for (int k = 0; k < 25; k++) toy__part(d, k%5, k/5);
}

// Two half circles of radius 1, about (0,0) upwards and (1,0.5) downwards, 40 Gaussians along each (ends included), std 0.06.
static inline void toy__moons(toy *d) {
    d->c = 0.06;
    for (int k = 0; k < 40; k++) toy__part(d, cos(TOY_PI*k/39), sin(TOY_PI*k/39));
    for (int k = 0; k < 40; k++) toy__part(d, 1 - cos(TOY_PI*k/39), 0.5 - sin(TOY_PI*k/39));
}

// The squares (column, row) of a 4 x 4 board with column + row even; side 1.
static inline void toy__checker(toy *d) {
    d->side = 1;
    d->c = sqrt(1.0/12);
    for (int k = 0; k < 16; k++)
        if ((k%4 + k/4)%2 == 0) toy__part(d, k%4, k/4);
}

// A roll r = theta from 1.5 pi to 4.5 pi: 96 Gaussians about equally far apart, std 0.5 (the turns are 2 pi apart).
static inline void toy__swiss(toy *d) {
    d->c = 0.5;
    for (int k = 0; k < 96; k++) {
        double theta = 1.5*TOY_PI*sqrt(1 + 8*k/95.0);
        toy__part(d, theta*cos(theta), theta*sin(theta));
    }
}

// 80 Gaussians at theta = 3 pi sqrt(v), v = 0.1 .. 1, point theta·(cos, sin)/6, std 0.06.
static inline void toy__spiral(toy *d) {
    d->c = 0.06;
    for (int k = 0; k < 80; k++) {
        double theta = 3*TOY_PI*sqrt(0.1 + 0.9*k/79);
        toy__part(d, theta*cos(theta)/6, theta*sin(theta)/6);
    }
}

// Five bent arms: radius r = 0.3 .. 1.7 at angle 2 pi a/5 + exp(r)/4, 20 Gaussians along each, std 0.1.
static inline void toy__pinwheel(toy *d) {
    d->c = 0.1;
    for (int a = 0; a < 5; a++)
        for (int k = 0; k < 20; k++) {
            double r = 0.3 + 1.4*k/19, theta = 2*TOY_PI*a/5 + 0.25*exp(r);
            toy__part(d, r*cos(theta), r*sin(theta));
        }
}

static inline int toy__define(toy *d, const char *name) {
    static void (*const define[TOY_COUNT])(toy *) = {toy__ring, toy__grid, toy__moons, toy__checker, toy__swiss, toy__spiral,
                                                     toy__pinwheel};
    for (int i = 0; i < TOY_COUNT; i++)
        if (strcmp(name, toy_names()[i]) == 0) {
            d->name = toy_names()[i];
            define[i](d);
            return 1;
        }
    return 0;
}

// Centre and scale as the comment at the top says.
static inline void toy__standardise(toy *d) {
    double variance = d->c*d->c;
    for (int k = 0; k < d->K; k++)
        for (int j = 0; j < 2; j++) d->centre[j] += d->mean[k][j]/d->K;
    for (int k = 0; k < d->K; k++)
        for (int j = 0; j < 2; j++) variance += (d->mean[k][j] - d->centre[j])*(d->mean[k][j] - d->centre[j])/(2*d->K);
    d->scale = TOY_SIGMA_DATA/sqrt(variance);
    for (int k = 0; k < d->K; k++)
        for (int j = 0; j < 2; j++) d->mean[k][j] = (d->mean[k][j] - d->centre[j])*d->scale;
    d->c *= d->scale;
    d->side *= d->scale;
}

static inline ctm_denoiser *toy__board(ctm_arena *a, double side) {
    ctm_denoiser *D = (ctm_denoiser *)ctm_alloc(a, sizeof *D);
    double *impl = (double *)ctm_alloc(a, sizeof *impl);
    *impl = side;
    D->name = "checker";
    D->dim = 2;
    D->impl = impl;
    D->denoise = toy__board_denoise;
    D->exact = toy__board_exact;
    D->log_density = toy__board_log_density;
    return D;
}

// Fills in *out; its denoiser is allocated in `a` and does not refer to *out. 1, or 0 if no set has this name.
static inline int toy_make(toy *out, ctm_arena *a, const char *name) {
    memset(out, 0, sizeof *out);
    if (!toy__define(out, name)) return 0;
    toy__standardise(out);
    out->denoiser = out->side > 0 ? toy__board(a, out->side) : ctm_mixture(a, 2, out->K, &out->mean[0][0], NULL, out->c);
    return 1;
}

// ---- Drawing -----------------------------------------------------------------------------------------------------------

// A ctm_draw_fn with user = the toy. Sample `index` uses the numbers 8·index .. 8·index + 7 of the stream.
static inline void toy_draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    const toy *d = (const toy *)user;
    const double *m = d->mean[(int)(ctm_uniform(rng, step, 8*index)*d->K)];
    if (d->side > 0) {
        x0[0] = (ctm_real)(m[0] + d->side*(ctm_uniform(rng, step, 8*index + 4) - 0.5));
        x0[1] = (ctm_real)(m[1] + d->side*(ctm_uniform(rng, step, 8*index + 5) - 0.5));
    } else {
        x0[0] = (ctm_real)(m[0] + d->c*ctm_normal(rng, step, 8*index + 4));
        x0[1] = (ctm_real)(m[1] + d->c*ctm_normal(rng, step, 8*index + 5));
    }
}

// How far x is from part k: from the centre of a Gaussian, from the rim of a square (0 inside).
static inline double toy_distance(const toy *d, int k, const ctm_real *x) {
    double sum = 0;
    for (int j = 0; j < 2; j++) {
        double gap = fabs((double)x[j] - d->mean[k][j]) - 0.5*d->side;
        if (gap > 0) sum += gap*gap;
    }
    return sqrt(sum);
}

// 1 if x is farther than 4 standard deviations from every mode (checker: more than a tenth of a square outside all squares).
// Of exact samples of a mixture this is true for 0.03 % or fewer (exp(-8), if modes do not overlap).
static inline int toy_off_support(const toy *d, const ctm_real *x) {
    const double limit = d->side > 0 ? 0.1*d->side : 4*d->c;
    for (int k = 0; k < d->K; k++)
        if (toy_distance(d, k, x) <= limit) return 0;
    return 1;
}

#endif // TOYS_H
