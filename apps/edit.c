/* edit.c - images finished, coloured, enlarged and steered by a model that was trained on nothing of the kind.

   make && build/edit inpaint  --weights W.safetensors --data IMAGES --box 8,8,16,16 --out F.png
   edit inpaint  ... --mask MASK.npy     keeps what the mask does not exclude (bytes [1,h,w] or one for each image; 0: to be made up)
   edit colorize ...                     keeps the luminance (0.2989 R + 0.5870 G + 0.1140 B) and makes up the colours
   edit superres ... --patch 4           keeps the means of 4x4 patches and makes up the rest
   edit stroke   ... --level 5           noise of standard deviation 5 on the whole image, then back: the lower, the more remains
   edit guide    ... --patch 4           no pixel is kept; every jump is followed by a step that brings the patches' means nearer

   W.safetensors is a model of images (images.c makes one, to_safetensors.py converts others'); IMAGES any set that image.h reads.
   F.png has three rows: the given images, what the method is told of them, and what comes out. F.npy has only what comes out.
   Where something is known, gamma is 1 if not given: every jump goes all the way and what it made up is noised afresh, so that it can
   still be changed to fit what is known. Strokes and guidance need gamma below that, for they live on in what is not noised away.

   Exit status: 0 done; 1 the world is wrong (a file, the disk), one line on stderr says what; 2 wrong usage. */

#include "args.h"
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#define IMAGE_REAL ctm_real
#include "image.h"

#define COMMANDS "inpaint,colorize,superres,stroke,guide"
enum { INPAINT, COLORIZE, SUPERRES, STROKE, GUIDE };
enum { CHUNK = 16 };                    // images a network sees at once

typedef struct edit {
    int         command;
    args_common common;
    const char *weights, *data, *range, *mask, *box;
    long long   first, n, nfe, patch, label, steps;
    double      gamma, level, strength;
    ctm_ctx     ctx;
    ctm_arena   a;
    ctm_net    *net;
    ctm_jump   *G;
    image_set   set;
    ctm_known   known;                  // of one image; guide and stroke: what the middle row shows
    unsigned char *kept;                // inpaint: [dim], or [n,dim]
    int         kept_per_row;
    ctm_real   *given, *told, *out;     // [n,dim]
    char        line[600];
} edit;

static int fail(edit *e) { return args_fail(e->line, sizeof e->line, "%s", ctm_error(&e->ctx)); }

// Says what is wrong, in one line; returns the exit status.
static int complain(const char *line, int status) {
    fprintf(stderr, "edit: %s\n", line);
    return status;
}

// ---- What is known -----------------------------------------------------------------------------------------------------

// "1,2,3,4"
static int four_numbers(const char *text, long long *out) {
    for (int k = 0; k < 4; k++) {
        const size_t n = strcspn(text, ",");
        char word[24];
        if (n >= sizeof word || (text[n] == ',') != (k < 3)) return 0;
        memcpy(word, text, n);
        word[n] = '\0';
        if (args_int(word, &out[k]) != 1) return 0;
        text += n + 1;
    }
    return 1;
}

// A box "y,x,height,width" that is to be made up; everything else is kept.
static int keep_outside_box(edit *e) {
    const int size = e->net->size, channels = e->net->channels;
    long long box[4];
    int k;
    if (!four_numbers(e->box, box)) return args_fail(e->line, sizeof e->line, "--box is \"%.60s\", expected four whole numbers: y,x,height,width", e->box);
    if (box[0] < 0 || box[1] < 0 || box[2] < 1 || box[3] < 1 || box[0] > size - box[2] || box[1] > size - box[3])
        return args_fail(e->line, sizeof e->line, "--box %.60s is not inside of %d x %d pixels", e->box, size, size);
    e->kept = (unsigned char *)ctm_alloc(&e->a, (size_t)e->net->dim);
    for (k = 0; k < e->net->dim; k++) {
        const int pixel = k/channels, y = pixel/size, x = pixel%size;
        e->kept[k] = !(y >= box[0] && y < box[0] + box[2] && x >= box[1] && x < box[1] + box[3]);
    }
    return 1;
}

// A file of bytes [1,h,w], or a mask for every image; where it is not 0, the image is kept.
static int keep_by_mask(edit *e) {
    const int size = e->net->size, channels = e->net->channels;
    image_set m;
    ctm_real *mask;
    int k;
    if (!image_open(&m, e->mask, e->line, sizeof e->line)) return 0;
    if (m.size != size || m.channels != 1 || m.part[0].floats || (m.n != 1 && m.n != (size_t)e->n)) {
        args_fail(e->line, sizeof e->line, "%s: holds %lu masks of %d x %d x %d%s, expected bytes [h,w] of %d x %d: 1 of them, or one for each of the %lld images", e->mask,
                  (unsigned long)m.n, m.size, m.size, m.channels, m.part[0].floats ? " floats" : "", size, size, e->n);
        image_close(&m);
        return 0;
    }
    e->kept_per_row = m.n > 1;
    e->kept = (unsigned char *)ctm_alloc(&e->a, m.n*(size_t)e->net->dim);
    mask = (ctm_real *)ctm_alloc(&e->a, (size_t)(size*size)*sizeof *mask);
    for (size_t i = 0; i < m.n; i++) {
        image_get(&m, i, 0, mask);
        for (k = 0; k < e->net->dim; k++) e->kept[i*(size_t)e->net->dim + (size_t)k] = image_byte((double)mask[k/channels]) != 0;
    }
    k = image_intact(&m, e->line, sizeof e->line);
    image_close(&m);
    return k;
}

static int find_known(edit *e) {
    const int size = e->net->size, channels = e->net->channels, dim = e->net->dim;
    if (e->command == INPAINT) {
        if (!(e->box ? keep_outside_box(e) : keep_by_mask(e))) return 0;
        e->known = ctm_known_mask(dim, e->kept, e->kept_per_row);
    } else if (e->command == COLORIZE) {
        if (channels != 3) return args_fail(e->line, sizeof e->line, "%s: its images have %d channels, but colours need 3", e->weights, channels);
        e->known = ctm_known_grey(&e->a, size*size);
    } else if (e->command == SUPERRES || e->command == GUIDE) {
        if (size%e->patch) return args_fail(e->line, sizeof e->line, "--patch %lld does not divide the model's %d pixels", e->patch, size);
        if (e->command == GUIDE && (e->patch & (e->patch - 1))) return args_fail(e->line, sizeof e->line, "--patch %lld: guidance needs 1, 2, 4, 8 ...", e->patch);
        e->known = ctm_known_patches(&e->a, size, channels, (int)e->patch);
    }
    return 1;
}

static void luminance(int pixels, const ctm_real *x, ctm_real *grey) {
    for (int k = 0; k < 3*pixels; k++) grey[k] = (ctm_real)(0.2989*(double)x[k/3*3] + 0.5870*(double)x[k/3*3 + 1] + 0.1140*(double)x[k/3*3 + 2]);
}

// The middle row: A^T·(what is known of A·x, 0 elsewhere), which is x itself where pixels are kept, and means otherwise. Luminance is
// shown as grey.
static void show_known(edit *e) {
    const size_t dim = (size_t)e->net->dim;
    ctm_real *y = (ctm_real *)ctm_alloc(&e->a, dim*sizeof *y);
    for (size_t i = 0; i < (size_t)e->n; i++) {
        const ctm_real *from = e->given + i*dim;
        ctm_real *to = e->told + i*dim;
        if (e->command == COLORIZE) { luminance((int)dim/3, from, to); continue; }
        const unsigned char *mask = e->known.mask ? e->known.mask + (e->known.per_row ? i*dim : 0) : NULL;
        if (e->known.transform) e->known.transform(e->known.user, 0, from, y);
        else memcpy(y, from, dim*sizeof *y);
        for (size_t k = 0; k < dim; k++) if (mask && !mask[k]) y[k] = 0;
        if (e->known.transform) e->known.transform(e->known.user, 1, y, to);
        else memcpy(to, y, dim*sizeof *y);
    }
}

// ---- Drawing -----------------------------------------------------------------------------------------------------------

// nfe + 1 levels from `from` down to sigma_min, evenly in the index of the training grid.
static double *levels(edit *e, double from) {
    const ctm_noise *z = &e->net->noise;
    double *ts = (double *)ctm_alloc(&e->a, (size_t)(e->nfe + 1)*sizeof *ts), first = ctm_index_of_t(z, from);
    for (int j = 0; j <= (int)e->nfe; j++) ts[j] = ctm_t_of_index(z, first + (z->N - 1 - first)*j/(double)e->nfe);
    ts[0] = from;
    ts[e->nfe] = z->sigma_min;
    return ts;
}

// |G(x,t,0) - the given image|², both with every pixel replaced by its patch's mean, summed over rows: the loss that guides.
typedef struct coarse { edit *e; ctm_tensor *wanted; } coarse;
static ctm_tensor *means(ctm_tape *tp, const edit *e, ctm_tensor *x) {
    x = ctm_reshape(tp, x, 4, x->shape[0], e->net->size, e->net->size, e->net->channels);
    for (long long p = e->patch; p > 1; p /= 2) x = ctm_down(tp, x);
    return ctm_reshape(tp, x, 2, x->shape[0], (int)(x->len/(size_t)x->shape[0]), 0, 0);
}
static ctm_tensor *coarse_loss(void *user, ctm_tape *tp, ctm_tensor *x, double t) {
    const coarse *c = (const coarse *)user;
    ctm_tensor *level = ctm_fill(ctm_vector(tp, "t", x->shape[0]), t), *zero = ctm_fill(ctm_vector(tp, "zero", x->shape[0]), c->e->net->noise.sigma_min);
    ctm_tensor *d = ctm_distance(tp, means(tp, c->e, c->e->G->jump(tp, c->e->G, x, level, zero)), c->wanted, CTM_L2, 0);
    return ctm_weighted_mean(tp, d, NULL, 1.0/((double)c->wanted->shape[1]*(double)(c->e->patch*c->e->patch)));      // a mean becomes a sum over pixels
}

// Images first .. first+rows-1 of those asked for.
static int draw_chunk(edit *e, ctm_tape *tp, int first, int rows, const double *ts) {
    const ctm_rng noise = ctm_stream((uint64_t)e->common.seed, "edit.noise"), start = ctm_stream((uint64_t)e->common.seed, "edit.start");
    const size_t dim = (size_t)e->net->dim, at = (size_t)first*dim;
    ctm_tensor *ref = ctm_matrix(tp, "given", rows, e->net->dim), *x = ctm_matrix(tp, "x", rows, e->net->dim);
    ctm_sampler how = ctm_sampler_default();
    ctm_known known = e->known;
    int label[CHUNK];
    memcpy(ref->data, e->given + at, ref->len*sizeof(ctm_real));
    ctm_normals(&start, 0, at, x->len, x->data);
    for (size_t i = 0; i < x->len; i++) x->data[i] *= (ctm_real)ts[0];
    how.gamma = e->gamma;
    how.rng = &noise;
    how.first_row = (uint64_t)first;
    for (int i = 0; i < rows; i++) label[i] = (int)e->label;
    tp->rows.label = label;
    if (known.per_row) known.mask = e->kept + at;
    if (e->command == STROKE) x = ctm_stroke(tp, e->G, ref, (int)e->nfe, ts, &how);
    else if (e->command == GUIDE) {
        ctm_guide guide = ctm_guide_default();
        coarse c;
        c.e = e;
        c.wanted = means(tp, e, ref);
        guide.loss = coarse_loss;
        guide.user = &c;
        guide.scale = e->strength;
        guide.steps = (int)e->steps;
        x = ctm_sample_guided(tp, e->G, &guide, x, (int)e->nfe, ts, &how);
    } else x = ctm_edit(tp, e->G, &known, ref, x, (int)e->nfe, ts, &how);
    tp->rows.label = NULL;
    if (!x) return fail(e);
    memcpy(e->out + at, x->data, x->len*sizeof(ctm_real));
    return 1;
}

static int draw(edit *e) {
    const double *ts = levels(e, e->command == STROKE ? e->level : e->net->noise.sigma_max);
    ctm_arena work;
    ctm_tape tape;
    int ok = 1;
    ctm_arena_init(&work, &e->ctx, "edit");
    ctm_tape_init(&tape, &e->ctx, &work);
    tape.keep_grads = 0;
    for (int i = 0; i < (int)e->n && ok; i += CHUNK) {
        ctm_tape_reset(&tape);
        ok = draw_chunk(e, &tape, i, e->n - i < CHUNK ? (int)e->n - i : CHUNK, ts);
    }
    ctm_arena_free(&work);
    return ok;
}

// ---- From the files to the files ---------------------------------------------------------------------------------------

static int load_model(edit *e) {
    ctm_config cfg;
    ctm_net *net = ctm_load(&e->a, e->weights, &cfg);
    if (!net) return fail(e);
    if (!net->size) return args_fail(e->line, sizeof e->line, "%s: is a model of points (%d numbers a row), expected one of images", e->weights, net->dim);
    if (!net->with_s) return args_fail(e->line, sizeof e->line, "%s: is a teacher, which cannot jump; a CTM was expected", e->weights);
    if (e->label >= 0 && !net->classes) return args_fail(e->line, sizeof e->line, "%s: was trained without --classes: it takes no --label", e->weights);
    if (e->label >= net->classes) return args_fail(e->line, sizeof e->line, "--label %lld, but the model knows %d classes", e->label, net->classes);
    e->net = ctm_net_view(&e->a, net, 0);
    e->G = ctm_net_jump(&e->a, e->net);
    if (e->command == STROKE && !(e->level > net->noise.sigma_min && e->level <= net->noise.sigma_max))
        return args_fail(e->line, sizeof e->line, "--level %g is not within the model's %g to %g", e->level, net->noise.sigma_min, net->noise.sigma_max);
    return 1;
}

static int load_images(edit *e) {
    const size_t dim = (size_t)e->net->dim;
    double range[2];
    char doubt[600];
    if (e->range) image_range(e->range, range);
    if (!image_open_scaled(&e->set, e->data, e->range ? range : NULL, e->line, sizeof e->line)) return 0;
    if (image_doubtful(&e->set, doubt, sizeof doubt)) fprintf(stderr, "note: %s\n", doubt);
    if (e->set.size != e->net->size || e->set.channels != e->net->channels)
        return args_fail(e->line, sizeof e->line, "%s: holds images of %d x %d x %d, but the model needs %d x %d x %d", e->data, e->set.size, e->set.size, e->set.channels,
                         e->net->size, e->net->size, e->net->channels);
    if ((unsigned long long)e->first + (unsigned long long)e->n > e->set.n)
        return args_fail(e->line, sizeof e->line, "%s: holds %lu images, but number %lld was asked for (they count from 0)", e->data, (unsigned long)e->set.n, e->first + e->n - 1);
    e->given = (ctm_real *)ctm_alloc(&e->a, 3*(size_t)e->n*dim*sizeof *e->given);      // the sheet's three rows, one behind the other
    e->told = e->given + (size_t)e->n*dim;
    e->out = e->told + (size_t)e->n*dim;
    for (size_t i = 0; i < (size_t)e->n; i++) image_get(&e->set, (size_t)e->first + i, 0, e->given + i*dim);
    return image_intact(&e->set, e->line, sizeof e->line);
}

static int is_png(const char *path) { const size_t n = strlen(path); return n >= 4 && strcmp(path + n - 4, ".png") == 0; }
static int is_npy(const char *path) { const size_t n = strlen(path); return n >= 4 && strcmp(path + n - 4, ".npy") == 0; }

static int write_out(edit *e) {
    const int size = e->net->size, channels = e->net->channels;
    if (is_npy(e->common.out)) return image_write_npy(e->common.out, (size_t)e->n, size, channels, e->out, e->line, sizeof e->line);
    return image_write_sheet(e->common.out, 3*(size_t)e->n, size, channels, e->given, (int)e->n, e->line, sizeof e->line);
}

static int run(edit *e) {
    if (!load_model(e) || !load_images(e) || !find_known(e)) return 0;
    if (is_png(e->common.out) && !image_sheet_fits(e->common.out, 3*(size_t)e->n, e->net->size, e->net->channels, (int)e->n, e->line, sizeof e->line)) return 0;
    if (!image_can_write(e->common.out, e->line, sizeof e->line)) return 0;
    show_known(e);
    return draw(e) && write_out(e);
}

// What the flags alone can tell; 0, or the exit status.
static int check_flags(const edit *e) {
    double range[2];
    if (!e->weights) return complain("--weights FILE.safetensors is missing", 2);
    if (!e->data) return complain("--data FILE is missing: the images to edit", 2);
    if (e->range && !image_range(e->range, range)) return complain("--range expects two different numbers, those of black and white: 0,1", 2);
    if (e->command == INPAINT && !e->mask == !e->box) return complain("inpaint needs --mask FILE.npy or --box y,x,height,width, one of them", 2);
    if (e->command != INPAINT && (e->mask || e->box)) return complain("--mask and --box are for inpaint", 2);
    if (e->command == GUIDE && e->gamma == 1) return complain("--gamma 1 lands every jump at time zero, where there is nothing left to steer: guide needs less", 2);
    if (!is_png(e->common.out) && !is_npy(e->common.out)) return complain("--out must end in .png or .npy", 2);
    return 0;
}

int main(int argc, char **argv) {
    edit e;
    int status;
    args_utf8(&argc, &argv);
    memset(&e, 0, sizeof e);
    e.command = args_command("edit", COMMANDS, &argc, &argv);
    if (e.command < 0) return 2;
    e.common = args_common_defaults("edited.png");
    e.n = 8;
    e.nfe = 18;
    e.patch = 4;
    e.label = -1;
    e.level = 5;
    e.strength = 0.3;
    e.steps = 4;
    e.gamma = e.command == INPAINT || e.command == COLORIZE || e.command == SUPERRES;
    const args_option options[] = {
        {"weights", ARGS_TEXT, &e.weights, 0, 0,    NULL, "a CTM of images"},
        {"data",    ARGS_TEXT, &e.data,    0, 0,    NULL, "the images: CIFAR-10's batches, idx, or .npy"},
        {"range",   ARGS_TEXT, &e.range,   0, 0,    NULL, "BLACK,WHITE: these numbers of --data; 0,255 of bytes and -1,1 of floats if not given"},
        {"first",   ARGS_INT,  &e.first,   0, 1e9,  NULL, "number of the first one, from 0"},
        {"n",       ARGS_INT,  &e.n,       1, 1000, NULL, "how many"},
        {"mask",    ARGS_TEXT, &e.mask,    0, 0,    NULL, "inpaint: .npy of bytes [1,h,w] or [n,h,w], 0 where the image is to be made up"},
        {"box",     ARGS_TEXT, &e.box,     0, 0,    NULL, "inpaint: y,x,height,width of what is to be made up"},
        {"patch",   ARGS_INT,  &e.patch,   1, 1024, NULL, "superres, guide: pixels along the side of a patch"},
        {"level",   ARGS_REAL, &e.level,   0, 1e9,  NULL, "stroke: noise put on the image"},
        {"scale",   ARGS_REAL, &e.strength, 0, 1e6, NULL, "guide: length of the steps along the gradient"},
        {"guide-steps", ARGS_INT, &e.steps, 1, 1000, NULL, "guide: steps after every jump"},
        {"nfe",     ARGS_INT,  &e.nfe,     1, 1000, NULL, "jumps"},
        {"gamma",   ARGS_REAL, &e.gamma,   0, 1,    NULL, "share of fresh noise at every jump"},
        {"label",   ARGS_INT,  &e.label,  -1, 1e6,  NULL, "class, if the model knows classes; -1: none"},
        ARGS_COMMON(e.common)
    };
    status = args_parse("edit", "edit inpaint|colorize|superres|stroke|guide --weights W.safetensors --data IMAGES [flags]", options, ARGS_COUNT(options), argc, argv);
    if (status) return args_finish("edit", args_exit_status(status));
    status = check_flags(&e);
    if (status) return status;
    ctm_init(&e.ctx);
    e.ctx.threads = (int)e.common.threads;
    ctm_arena_init(&e.a, &e.ctx, "images");
    status = run(&e) ? 0 : complain(e.line, 1);
    if (!status && !e.common.quiet)
        printf("%lld image%s in %s%s\n", e.n, e.n == 1 ? "" : "s", e.common.out, is_npy(e.common.out) ? ", float32 [n,c,h,w]: -1 is black and 1 is white" : "");
    if (e.set.parts) image_close(&e.set);
    ctm_arena_free(&e.a);
    return args_finish("edit", status);
}
