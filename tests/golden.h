// Golden data: what PyTorch computed (tests/golden/README.md says what is in each file), read with ctm.h's own file reader.
//
//     golden_file *g = golden_open("net_film");                  // tests/golden/net_film.safetensors; fails the test if missing
//     ctm_tensor *x = golden_tensor(&tape, g, "in.x");           // a leaf with that name, shape and numbers
//     golden_load(g, "w.net.", net);                             // weights into a network, by name
//     golden_check(g, "out.y", y->data, y->len);                 // CHECKs every number
//     golden_close(g);
//
// Tolerance of golden_check, as a share of the output's largest value: in the double build 1e-9; in the float build 30 times
// what a float32 run of PyTorch itself deviated (metadata fp32_dev.*), at least 1e-6.
#ifndef CTM_TEST_GOLDEN_H
#define CTM_TEST_GOLDEN_H

#include "test.h"

#ifndef CTM_TEST_DATA
#define CTM_TEST_DATA "tests/golden"
#endif

typedef struct golden_file {
    ctm_ctx   ctx;
    ctm_arena arena;
    ctm_file *file;
} golden_file;

static inline golden_file *golden_open(const char *name) {
    golden_file *g = (golden_file *)calloc(1, sizeof *g);
    char path[512];
    if (!g) { printf("golden_open: no memory\n"); exit(1); }
    ctm_init(&g->ctx);
    ctm_arena_init(&g->arena, &g->ctx, "golden");
    snprintf(path, sizeof path, CTM_TEST_DATA "/%s.safetensors", name);
    g->file = ctm_file_read(&g->arena, path);
    if (!g->file) { printf("FAIL %s  %s (run from the source tree, or define CTM_TEST_DATA)\n", test_now.name, ctm_error(&g->ctx)); exit(1); }
    return g;
}

static inline void golden_close(golden_file *g) {
    ctm_arena_free(&g->arena);
    free(g);
}

static inline int golden_has(golden_file *g, const char *name) { return ctm_file_find(g->file, name) != NULL; }

// The shape entry of one output or input; stops the program if the file has none of that name.
static inline const ctm_entry *golden_entry(golden_file *g, const char *name) {
    const ctm_entry *e = ctm_file_find(g->file, name);
    if (!e) { printf("FAIL %s  %s has no tensor \"%s\"\n", test_now.name, g->file->path, name); exit(1); }
    return e;
}

// Numbers as doubles (indices too), whatever their type in the file. They live until golden_close. len may be NULL.
static inline const double *golden(golden_file *g, const char *name, size_t *len) {
    const ctm_entry *e = golden_entry(g, name);
    double *v = (double *)ctm_alloc(&g->arena, (e->len + 1) * sizeof(double));
    ctm_file_get(g->file, e, v);
    if (len) *len = e->len;
    return v;
}

static inline const char *golden_text(golden_file *g, const char *key) {        // a metadata string; "" if there is none
    const char *text = ctm_file_meta(g->file, key);
    return text ? text : "";
}
static inline double golden_number(golden_file *g, const char *key) {           // a metadata number
    const char *text = ctm_file_meta(g->file, key);
    if (!text) { printf("FAIL %s  %s has no metadata \"%s\"\n", test_now.name, g->file->path, key); exit(1); }
    return strtod(text, NULL);
}
// The recorded deviation of a float32 run for output "y" (of "out.y"); 0 if none was recorded.
static inline double golden_dev(golden_file *g, const char *output) {
    char key[256];
    snprintf(key, sizeof key, "fp32_dev.%s", output);
    return strtod(golden_text(g, key), NULL);
}
static inline double golden_row_dev(golden_file *g, const char *output) {       // the same per row
    char key[256];
    snprintf(key, sizeof key, "fp32_row.%s", output);
    return strtod(golden_text(g, key), NULL);
}

// Copies an entry into an array of real numbers; returns how many.
static inline size_t golden_copy(golden_file *g, const char *name, ctm_real *out) {
    size_t len, i;
    const double *v = golden(g, name, &len);
    for (i = 0; i < len; i++) out[i] = (ctm_real)v[i];
    return len;
}

// A leaf of the entry's shape: [], [n] or [rows,cols].
static inline ctm_tensor *golden_tensor(ctm_tape *tp, golden_file *g, const char *name) {
    const ctm_entry *e = golden_entry(g, name);
    ctm_tensor *x = e->ndim == 0 ? ctm_scalar(tp, name, 0) : e->ndim == 1 ? ctm_vector(tp, name, e->shape[0])
                                                           : ctm_matrix(tp, name, e->shape[0], e->shape[1]);
    golden_copy(g, name, x->data);
    return x;
}

// Every parameter of net from the entries PREFIX + its name. Matrices are [out,in] in the file, [in,out] in memory.
static inline void golden_load(golden_file *g, const char *prefix, ctm_net *net) {
    int p, r, c;
    for (p = 0; p < net->count; p++) {
        ctm_tensor *w = net->param[p];
        char name[160];
        const ctm_entry *e;
        const double *v;
        int rows = w->shape[0], cols = w->shape[1];
        snprintf(name, sizeof name, "%s%s", prefix, w->name);
        e = golden_entry(g, name);
        v = golden(g, name, NULL);
        if (e->len != w->len || e->ndim != w->ndim || (w->ndim == 2 && (e->shape[0] != cols || e->shape[1] != rows))) {
            test_fail(__FILE__, __LINE__, "a parameter has another shape in the golden file:");
            printf("     \"%s\"\n", name);
            return;
        }
        if (w->ndim == 1) for (r = 0; r < rows; r++) w->data[r] = (ctm_real)v[r];
        else for (r = 0; r < rows; r++) for (c = 0; c < cols; c++) w->data[r * cols + c] = (ctm_real)v[c * rows + r];
    }
}

static inline double golden_tolerance(double dev) {
    double tolerance = IN_DOUBLE ? 1e-9 : 30 * dev;
    return !IN_DOUBLE && tolerance < 1e-6 ? 1e-6 : tolerance;
}

static inline void golden_compare(golden_file *g, const char *name, size_t at, double got, double want, double allowed) {
    char text[300];
    if (ctm_is_finite(got) && fabs(got - want) <= allowed) return;
    snprintf(text, sizeof text, "%s %s[%lu] = %.12g, golden %.12g, allowed error %.3g", golden_text(g, "case"), name, (unsigned long)at, got,
             want, allowed);
    test_fail(__FILE__, __LINE__, text);
}

static inline double golden_largest(const double *v, size_t n) {
    double top = 0;
    size_t i;
    for (i = 0; i < n; i++) if (fabs(v[i]) > top) top = fabs(v[i]);
    return top;
}

// CHECKs n numbers against the entry `name` ("out.y"). The allowed error is a share of the largest golden number.
static inline void golden_check(golden_file *g, const char *name, const ctm_real *data, size_t n) {
    size_t len, i;
    const double *want = golden(g, name, &len);
    double allowed = golden_tolerance(golden_dev(g, strncmp(name, "out.", 4) == 0 ? name + 4 : name)) * golden_largest(want, len);
    if (n != len) { golden_compare(g, name, 0, (double)n, (double)len, 0); return; }
    for (i = 0; i < n; i++) golden_compare(g, name, i, (double)data[i], want[i], allowed);
}
// The same for results in double, which are held to 1e-9 (or what you say) in both builds.
static inline void golden_check_double(golden_file *g, const char *name, const double *data, size_t n, double tolerance) {
    size_t len, i;
    const double *want = golden(g, name, &len);
    double allowed = tolerance * golden_largest(want, len);
    if (n != len) { golden_compare(g, name, 0, (double)n, (double)len, 0); return; }
    for (i = 0; i < n; i++) golden_compare(g, name, i, data[i], want[i], allowed);
}
// The same with every row (first index) measured by its own largest number and fp32_row: for rows of very different size.
static inline void golden_check_rows(golden_file *g, const char *name, const ctm_real *data, size_t n) {
    size_t len, i, r;
    const ctm_entry *e = golden_entry(g, name);
    const double *want = golden(g, name, &len);
    size_t rows = e->ndim ? (size_t)e->shape[0] : 1, width = rows ? len / rows : 0;
    double share = golden_tolerance(golden_row_dev(g, strncmp(name, "out.", 4) == 0 ? name + 4 : name)), whole = golden_largest(want, len);
    if (n != len) { golden_compare(g, name, 0, (double)n, (double)len, 0); return; }
    for (r = 0; r < rows; r++) {
        double top = golden_largest(want + r * width, width);
        for (i = r * width; i < (r + 1) * width; i++) golden_compare(g, name, i, (double)data[i], want[i], share * (top > 0 ? top : whole));
    }
}

// CHECKs one parameter's numbers (its gradient, or its data) against the entry PREFIX + its name, which is [out,in].
static inline void golden_check_param(golden_file *g, const char *prefix, const ctm_tensor *w, const ctm_real *numbers) {
    char name[160];
    ctm_real *turned = (ctm_real *)ctm_alloc(&g->arena, w->len * sizeof(ctm_real));
    int rows = w->shape[0], cols = w->ndim == 2 ? w->shape[1] : 1, r, c;
    for (r = 0; r < rows; r++) for (c = 0; c < cols; c++) turned[c * rows + r] = numbers[r * cols + c];
    snprintf(name, sizeof name, "%s%s", prefix, w->name);
    golden_check(g, name, turned, w->len);
}
static inline void golden_check_grads(golden_file *g, const char *prefix, const ctm_net *net) {     // "out.grad."
    int p;
    for (p = 0; p < net->count; p++) golden_check_param(g, prefix, net->param[p], net->param[p]->grad);
}
static inline void golden_check_weights(golden_file *g, const char *prefix, const ctm_net *net) {   // "out.model."
    int p;
    for (p = 0; p < net->count; p++) golden_check_param(g, prefix, net->param[p], net->param[p]->data);
}

// The oracle's two networks (README.md): "film" is ctm_mlp; "concat" is a network of one's own, made of public operations.
static inline ctm_config golden_net_config(void) {
    ctm_config cfg = ctm_recipe_points();
    cfg.hidden = 16; cfg.layers = 3; cfg.embed = 8;
    return cfg;
}
static inline ctm_tensor *golden_concat_forward(ctm_tape *tp, ctm_net *net, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    ctm_tensor *h = ctm_concat(tp, x, ctm_time_features(tp, t, 4, 0.5, 0));
    int l;
    if (net->with_s) h = ctm_concat(tp, h, ctm_time_features(tp, s, 4, 0.5, 0));
    for (l = 0; l < 3; l++) h = ctm_silu(tp, ctm_linear(tp, h, net->param[2 * l], net->param[2 * l + 1]));
    return ctm_linear(tp, h, net->param[6], net->param[7]);
}
static inline ctm_net *golden_concat(ctm_arena *a, int with_s) {
    ctm_config cfg = golden_net_config();
    ctm_net *net = ctm_net_new(a, "concat", &cfg.noise, 2, with_s);
    ctm_param(a, net, "layers.0.weight", with_s ? 18 : 10, 16);
    ctm_param(a, net, "layers.0.bias", 16, 0);
    ctm_param(a, net, "layers.1.weight", 16, 16);
    ctm_param(a, net, "layers.1.bias", 16, 0);
    ctm_param(a, net, "layers.2.weight", 16, 16);
    ctm_param(a, net, "layers.2.bias", 16, 0);
    ctm_param(a, net, "out.weight", 16, 2);
    ctm_param(a, net, "out.bias", 2, 0);
    ctm_net_ready(a, net);
    net->forward = golden_concat_forward;
    ctm_net_init(net, 1, 1);
    return net;
}
// The network of that kind ("film" or "concat") with the weights `prefix` ("w.net."), in `a`.
static inline ctm_net *golden_net(ctm_arena *a, golden_file *g, const char *kind, const char *prefix, int with_s) {
    ctm_config cfg = golden_net_config();
    ctm_net *net = strcmp(kind, "film") == 0 ? ctm_mlp(a, &cfg, 2, with_s) : golden_concat(a, with_s);
    golden_load(g, prefix, net);
    return net;
}

#endif
