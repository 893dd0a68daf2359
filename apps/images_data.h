/* images_data.h - what train, sample, eval and info of images.c share: the data, the network's sizes, drawing, loading

   Part of the applications of ctm.h, not of ctm.h itself. Include after ctm.h. */
#ifndef CTM_APPS_IMAGES_DATA_H
#define CTM_APPS_IMAGES_DATA_H

#include "args.h"
#include "../ctm.h"
#define IMAGE_REAL ctm_real
#include "image.h"
#include "sample.h"
#include "train.h"

enum {
    CHUNK         = 32,         // images a network sees at once when it samples
    SHEET_COLUMNS = 8,          // of a sheet without classes
    SHEET_MOST    = 20,         // of one with a column for each class
    HELD_OUT      = 1000,       // at most so many images, and at most a tenth of the set, are never trained on
    WHOLE_JUMPS   = 18          // Heun's steps where a teacher's samples are shown
};
#define LABEL_DROPOUT 0.1

// Says what is wrong with the world, in one line; returns the exit status.
static int wrong(const char *line) {
    fprintf(stderr, "images: %s\n", line);
    return 1;
}

// The same for the way the program was called.
static int misused(const char *line) {
    fprintf(stderr, "images: %s\n", line);
    return 2;
}

// The context's reason into line; returns 0.
static int failed_line(char *line, size_t size, const ctm_ctx *ctx) { return args_fail(line, size, "%s", ctm_error(ctx)); }

// ---- Data --------------------------------------------------------------------------------------------------------------

typedef struct dataset {
    image_set set;
    size_t    rows, held;       // images 0 .. rows-1 are trained on, the last `held` are not
    int       flips;            // mirror every other image
    uint64_t  hash;
} dataset;

#define RANGE_OPTION(target) {"range", ARGS_TEXT, &(target), 0, 0, NULL, "BLACK,WHITE: these numbers of --data; 0,255 of bytes and -1,1 of floats if not given"}

static const char *plural(size_t n) { return n == 1 ? "" : "s"; }

// 1 if --range may be so; or 0 with a line.
static int check_range(const char *range, char *err, size_t errlen) {
    double numbers[2];
    if (!range || image_range(range, numbers)) return 1;
    return args_fail(err, errlen, "flag --range: found \"%.60s\", expected two different numbers, those of black and white: 0,1", range);
}

// range: of the flag, or NULL.
static int data_open(dataset *d, const char *path, const char *range, char *err, size_t errlen) {
    double numbers[2] = {0, 1};
    char doubt[600];
    memset(d, 0, sizeof *d);
    if (range) image_range(range, numbers);
    if (!image_open_scaled(&d->set, path, range ? numbers : NULL, err, errlen)) return 0;
    d->held = d->set.n/10 < (size_t)HELD_OUT ? d->set.n/10 : (size_t)HELD_OUT;
    d->rows = d->set.n - d->held;
    d->hash = image_fingerprint(&d->set);
    if (image_doubtful(&d->set, doubt, sizeof doubt)) fprintf(stderr, "note: %s\n", doubt);
    return image_intact(&d->set, err, errlen);
}

// Which image sample `index` is. Two draws of 24 bits, since a set may have more than 2^24 images.
static size_t drawn_image(const dataset *d, const ctm_rng *rng, uint64_t step, uint64_t index) {
    const double u = ctm_uniform(rng, step, 4*index) + (ctm_uniform(rng, step, 4*index + 1) - 0.5)/16777216.0;
    const size_t i = (size_t)(u*(double)d->rows);
    return i < d->rows ? i : d->rows - 1;
}

// Every label must be below `classes`.
static int check_labels(image_set *s, int classes, const char *path, char *err, size_t errlen) {
    if (!s->classes) return args_fail(err, errlen, "%s: has no labels of %d classes", path, classes);
    for (size_t i = 0; i < s->n; i++)
        if (image_label(s, i) < 0 || image_label(s, i) >= classes)
            return args_fail(err, errlen, "%s: image %lu has label %d, out of range: %d classes take 0 to %d", path, (unsigned long)i,
                             image_label(s, i), classes, classes - 1);
    return image_intact(s, err, errlen);
}

// ---- The network -------------------------------------------------------------------------------------------------------
//
// --config names a size; --patch, --model-channels, --channel-mult, --num-blocks, --attn, --classes and --dropout are settings of ctm.h.

enum { TINY, COMPACT, DDPMPP };

#define NETWORK_OPTIONS(config, rest)                                                                                            \
    {"config",         ARGS_CHOICE, &(config), 0, 0, "tiny,compact,ddpmpp", "size of the network; ddpmpp is the paper's"},          \
    {"patch",          ARGS_REST, &(rest), 0, 0, NULL, "so many by so many pixels are one position of the network; 1 if not given"}, \
    {"model-channels", ARGS_REST, &(rest), 0, 0, NULL, "width of the first level; the --config's if not given"},                    \
    {"channel-mult",   ARGS_REST, &(rest), 0, 0, NULL, "width of every level over that, A,B,..."},                                  \
    {"num-blocks",     ARGS_REST, &(rest), 0, 0, NULL, "blocks per level"},                                                         \
    {"attn",           ARGS_REST, &(rest), 0, 0, NULL, "sizes of the levels with attention, 16,8; none: at the bottom only; the --config's if not given"}, \
    {"classes",        ARGS_REST, &(rest), 0, 0, NULL, "learn the labels 0 ... K-1 of the data; without it labels are not looked at"}, \
    {"dropout",        ARGS_REST, &(rest), 0, 0, NULL, "in every block; the --config's if not given"}

// tiny is for two cores and twenty minutes. Widths of 16 down to half the size and 32 below cost 0.6 of 16, 32, 32 for an image and learn as
// much in a step; the fourth level, of 4 x 4 pixels, and attention at a quarter of the size let the network see a shape as one thing.
static void preset(ctm_config *c, int which, int size) {
    static const int mults[3][4] = {{1, 1, 2, 2}, {1, 2, 2, 0}, {2, 2, 2, 0}}, width[3] = {16, 32, 128}, blocks[3] = {1, 2, 4};
    int side = size, levels = 1;
    memset(c->channel_mult, 0, sizeof c->channel_mult);
    memcpy(c->channel_mult, mults[which], sizeof mults[which]);
    c->model_channels = width[which];
    c->num_blocks = blocks[which];
    c->dropout = which == DDPMPP ? 0.13 : 0;
    while (levels < 4 && c->channel_mult[levels] && side%2 == 0 && side >= 8) { side /= 2; levels++; }     // the levels that the size allows: 28, 14, 7
    for (int l = levels; l < 4; l++) c->channel_mult[l] = 0;
}

static int levels_of(const ctm_config *c) {
    int levels = 0;
    while (levels < 8 && c->channel_mult[levels]) levels++;
    return levels;
}

// An odd size leaves one level, with attention between all of its pixels. That goes for small images; for large ones say what does.
static int check_bottom(const ctm_config *c, const settings *set, char *err, size_t errlen) {
    const int levels = levels_of(c), bottom = c->size/c->patch >> (levels - 1), more = (c->size + 7)/8*8 - c->size;
    if (settings_given(set, "channel-mult") || bottom <= 64 || more == 0) return 1;
    return args_fail(err, errlen, "images of %d x %d pixels cannot be halved often enough for attention over those of the last level, %d x %d; "
                     "pad them to %d x %d: numpy.pad(x, ((0,0),(0,%d),(0,%d),(0,0)), 'edge') of uint8 [n,h,w,c]", c->size, c->size, bottom, bottom, c->size + more,
                     c->size + more, more, more);
}

// The network of that --config for images of this size, as the flags want it. 0 with a line: there is none.
static int network_config(ctm_ctx *ctx, ctm_config *c, int which, const settings *set, int size, int channels, char *err, size_t errlen) {
    int side;                                            // of the network's first level, which the preset's levels and --attn hang on
    if (!settings_apply(set, c, err, errlen)) return 0;
    side = size/c->patch;
    preset(c, which, side);
    if (!settings_apply(set, c, err, errlen)) return 0;
    memset(c->attn, 0, sizeof c->attn);
    if (levels_of(c) > 1) c->attn[0] = which == TINY && c->channel_mult[2] ? side/4 : side/2;
    if (c->classes) c->label_dropout = LABEL_DROPOUT;
    if (!settings_apply(set, c, err, errlen)) return 0;
    c->size = size;
    c->channels = channels;
    if (!ctm_unet_fits(ctx, c)) return args_fail(err, errlen, "%.500s; see --channel-mult and --attn", ctm_error(ctx));
    return check_bottom(c, set, err, errlen);
}

static void print_shape(const ctm_config *c, size_t parameters, int with_s) {
    printf("network: %d x %d x %d, patch %d, model_channels %d, channel_mult", c->size, c->size, c->channels, c->patch, c->model_channels);
    for (int i = 0; i < 8 && c->channel_mult[i]; i++) printf(i ? ",%d" : " %d", c->channel_mult[i]);
    printf(", num_blocks %d, attention at", c->num_blocks);
    for (int i = 0; i < 4 && c->attn[i]; i++) printf(i ? ",%d" : " %d", c->attn[i]);
    printf("%s, dropout %g, classes %d, %s: %.3f M parameters\n", c->attn[0] ? "" : " the bottom only", c->dropout, c->classes, with_s ? "t and s" : "t only", (double)parameters/1e6);
}

// A network of images from an open file (NULL: ctm_error says why), or NULL with a line.
static ctm_net *load_images(ctm_arena *a, const ctm_file *f, ctm_config *cfg, char *err, size_t errlen) {
    ctm_net *net = f ? ctm_load_file(a, f, cfg) : NULL;
    if (!net) args_fail(err, errlen, "%s", ctm_error(a->ctx));
    else if (!net->size) {
        args_fail(err, errlen, "%s: is a model of points (%d numbers a row), expected one of images", f->path, net->dim);
        return NULL;
    }
    return net;
}

// ---- Drawing -----------------------------------------------------------------------------------------------------------

// A map of rows to rows, chunk by chunk, nothing recorded. Chunks are shared out among the threads.
typedef ctm_tensor *(*chunk_fn)(ctm_tape *tp, ctm_tensor *x, size_t first, const void *arg);
enum { CHUNK_LANES = 64 };
typedef struct chunk_job {
    ctm_ctx        *ctx;
    chunk_fn        fn;
    const void     *arg;
    size_t          n, dim, width;
    const ctm_real *x;
    ctm_real       *out;
    int             lanes, failed[CHUNK_LANES];
} chunk_job;

// Chunks lane, lane + lanes, lane + 2·lanes, ...
static void chunk_lane(void *arg, int lane) {
    chunk_job *j = (chunk_job *)arg;
    ctm_arena arena;
    ctm_tape tape;
    ctm_arena_init(&arena, j->ctx, "chunk");
    ctm_tape_init(&tape, j->ctx, &arena);
    tape.recording = 0;
    for (size_t first = (size_t)lane*CHUNK; first < j->n && !j->failed[lane]; first += (size_t)j->lanes*CHUNK) {
        const size_t rows = j->n - first < (size_t)CHUNK ? j->n - first : (size_t)CHUNK;
        ctm_tape_reset(&tape);
        ctm_tensor *in = ctm_matrix(&tape, "x", (int)rows, (int)j->dim), *y;
        memcpy(in->data, j->x + first*j->dim, rows*j->dim*sizeof(ctm_real));
        y = j->fn(&tape, in, first, j->arg);
        j->failed[lane] = y == NULL;
        if (y) memcpy(j->out + first*j->width, y->data, rows*j->width*sizeof(ctm_real));
    }
    ctm_arena_free(&arena);
}

static int map_chunks(ctm_ctx *ctx, chunk_fn fn, const void *arg, size_t n, size_t dim, const ctm_real *x, size_t width, ctm_real *out) {
    const size_t chunks = (n + CHUNK - 1)/CHUNK;
    chunk_job j;
    int failed = 0;
    memset(&j, 0, sizeof j);
    j.ctx = ctx;
    j.fn = fn;
    j.arg = arg;
    j.n = n;
    j.dim = dim;
    j.width = width;
    j.x = x;
    j.out = out;
    j.lanes = chunks < CHUNK_LANES ? (int)chunks : CHUNK_LANES;
    ctm_parallel_for(ctx, j.lanes, chunk_lane, &j);
    for (int lane = 0; lane < j.lanes; lane++) failed += j.failed[lane];
    return !failed;
}

// out [n,dim]: samples from x [n,dim] at sigma_max.
static int draw_all(const sampling *q, size_t n, const ctm_real *x, ctm_real *out) {
    const size_t dim = (size_t)q->net->dim;
    return map_chunks(q->net->ctx, sampling_chunk, q, n, dim, x, dim, out);
}

static int sheet_columns(const ctm_net *net) { return net->classes && net->classes <= SHEET_MOST ? net->classes : SHEET_COLUMNS; }

// Classes in turn, for the sheets of a model that knows some.
static int *labels_in_turn(ctm_arena *a, const ctm_net *net, size_t n) {
    int *label = (int *)ctm_alloc(a, (n + 1)*sizeof(int));
    for (size_t i = 0; i < n; i++) label[i] = net->classes ? (int)(i%(size_t)net->classes) : -1;
    return label;
}

#endif
