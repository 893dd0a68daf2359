// Writes the seeds: seeds FOLDER makes FOLDER/weights/..., one folder for every target. They are what the programs write today, as
// small as it gets, and a few files that have been trouble.
#include "../../apps/args.h"
#include "../../ctm.h"
#include "../../apps/image.h"

static const char *folder;
static int failed;

static const char *seed_path(const char *target, const char *name) {
    static char path[600];
    char err[300];
    snprintf(path, sizeof path, "%.400s/%.40s", folder, target);
    if (!args_mkdir(path, err, sizeof err)) { puts(err); failed = 1; }
    snprintf(path, sizeof path, "%.400s/%.40s/%.80s", folder, target, name);
    return path;
}
static void seed_bytes(const char *target, const char *name, const void *bytes, size_t n) {
    FILE *f = fopen(seed_path(target, name), "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) failed = 1;
}
static void seed_text(const char *target, const char *name, const char *text) { seed_bytes(target, name, text, strlen(text)); }

// A safetensors file out of its header and n bytes of data.
static void seed_header(const char *target, const char *name, const char *header, size_t n) {
    static unsigned char bytes[1 << 15];
    const size_t h = strlen(header);
    size_t i;
    for (i = 0; i < 8; i++) bytes[i] = (unsigned char)((uint64_t)h >> (8 * i));
    memcpy(bytes + 8, header, h);
    for (i = 0; i < n; i++) bytes[8 + h + i] = (unsigned char)(i % 4 == 3 ? 0x3e : i % 2 ? 16 : i);
    seed_bytes(target, name, bytes, 8 + h + n);
}

// What weights need at least, with more of the metadata in `more`.
#define LEAST(network, dim, with_s, more) "{\"__metadata__\":{\"ctm.format\":\"model\",\"ctm.network\":\"" network "\",\"ctm.dim\":\"" dim "\",\"ctm.with_s\":\"" with_s \
    "\",\"ctm.noise.sigma_min\":\"0.002\",\"ctm.noise.sigma_max\":\"80\",\"ctm.noise.sigma_data\":\"0.5\",\"ctm.noise.rho\":\"7\",\"ctm.noise.N\":\"18\"," \
    "\"ctm.noise.inner\":\"0\",\"ctm.noise.outer\":\"0\",\"ctm.hidden\":\"2\",\"ctm.layers\":\"1\",\"ctm.embed\":\"2\"" more "}"

static ctm_config small_config(void) {
    ctm_config c = ctm_recipe_points();
    c.hidden = 2; c.layers = 1; c.embed = 2;
    c.batch = 2; c.diagonal_batch = 1; c.shards = 1; c.substeps = 1; c.steps = 100;
    c.ema_rate[1] = c.ema_rate[2] = c.ema_rate[3] = 0;
    c.gan_hidden = 2; c.gan_layers = 1;
    return c;
}

static void seed_draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    x0[0] = (ctm_real)ctm_normal(rng, step, index);
    (void)user;
}

// A network's tensors as a header of its own: few metadata, so that there is room for changes.
static void seed_least(ctm_arena *a, const ctm_net *net, const char *target, const char *name, const char *head, const char *type, int width) {
    char *header = (char *)ctm_alloc(a, 1 << 14);
    size_t n = (size_t)snprintf(header, 2048, "%s", head), at = 0;
    int p, d;
    for (p = 0; p < net->count; p++) {
        const ctm_tensor *t = net->param[p];
        n += (size_t)snprintf(header + n, (1 << 14) - n, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, type);
        for (d = 0; d < t->ndim; d++)
            n += (size_t)snprintf(header + n, (1 << 14) - n, d ? ",%d" : "%d", t->ndim == 1 ? t->shape[0] : t->ndim == 2 ? t->shape[1 - d] : t->shape[d < 2 ? 3 - d : d - 2]);
        n += (size_t)snprintf(header + n, (1 << 14) - n, "],\"data_offsets\":[%lu,%lu]}", (unsigned long)at, (unsigned long)(at + t->len * (size_t)width));
        at += t->len * (size_t)width;
    }
    snprintf(header + n, (1 << 14) - n, "}");
    if (n < 1 << 14 && n + at < 1 << 14) seed_header(target, name, header, at);
}

static void seed_weights(ctm_arena *a) {
    ctm_config c = small_config();
    ctm_net *net;
    int with_s;
    for (with_s = 0; with_s < 2; with_s++) {
        net = ctm_mlp(a, &c, 1, with_s);
        ctm_net_init(net, 1, 1);
        failed |= !ctm_save(a, net, &c, seed_path("weights", with_s ? "mlp.safetensors" : "teacher.safetensors"));
    }
    seed_least(a, net, "weights", "f32.safetensors", LEAST("mlp", "1", "1", ""), "F32", 4);
    seed_least(a, net, "weights", "f64.safetensors", LEAST("mlp", "1", "1", ""), "F64", 8);
    seed_least(a, net, "weights", "f16.safetensors", LEAST("mlp", "1", "1", ",\"text\":\"\\u00e9\\ud83d\\ude00\\n\""), "F16", 2);
    seed_least(a, net, "weights", "bf16.safetensors", LEAST("mlp", "1", "1", ""), "BF16", 2);
    c.classes = 2;
    net = ctm_mlp(a, &c, 2, 1);
    ctm_net_init(net, 1, 1);
    failed |= !ctm_save(a, net, &c, seed_path("weights", "classes.safetensors"));
    c.classes = 0;
    c.size = 4; c.channels = 1; c.model_channels = 4; c.num_blocks = 1;
    memset(c.channel_mult, 0, sizeof c.channel_mult);
    memset(c.attn, 0, sizeof c.attn);
    c.channel_mult[0] = 1;
    if (ctm_unet_fits(a->ctx, &c)) {
        net = ctm_unet(a, &c, 0);
        ctm_net_init(net, 1, 1);
        seed_least(a, net, "weights", "unet.safetensors", LEAST("unet", "16", "0", ",\"ctm.size\":\"4\",\"ctm.channels\":\"1\","
                   "\"ctm.model_channels\":\"4\",\"ctm.channel_mult[0]\":\"1\",\"ctm.channel_mult[1]\":\"0\",\"ctm.channel_mult[2]\":\"0\","
                   "\"ctm.channel_mult[3]\":\"0\",\"ctm.num_blocks\":\"1\",\"ctm.attn[0]\":\"0\""), "F16", 2);
    } else { puts(ctm_error(a->ctx)); failed = 1; }
    seed_header("weights", "overlap.safetensors", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12);
    seed_header("weights", "twice.safetensors", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8);
    seed_header("weights", "colons.safetensors", "{\"__metadata__\":{\"a\":\"::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::\"}}", 0);
}

static void seed_checkpoints(ctm_arena *a) {
    const double mean[1] = {0};
    int adversary;
    for (adversary = 0; adversary < 2; adversary++) {
        ctm_config c = small_config();
        ctm_net *net;
        ctm_trainer *tr;
        c.gan = adversary ? CTM_GAN_HINGE : CTM_GAN_NONE;
        net = ctm_mlp(a, &c, 1, 1);
        ctm_net_init(net, 1, 1);
        tr = ctm_trainer_new(a, &c, net, ctm_mixture(a, 1, 1, mean, NULL, 0.5), seed_draw, NULL);
        if (adversary) ctm_trainer_adversary(a, tr, ctm_mlp_discriminator(a, &c, 1));
        failed |= !ctm_train_step(tr);
        failed |= !ctm_checkpoint_save(a, tr, seed_path("checkpoint", adversary ? "gan.safetensors" : "ctm.safetensors"), NULL);
        ctm_trainer_free(tr);
    }
}

static void seed_lpips(ctm_arena *a) {
    static const int layer[13] = {0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28};
    static const ctm_real ones[27] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    ctm_writer w;
    int k, shape[4] = {1, 3, 3, 3};
    char name[48];
    ctm_writer_init(&w, a);
    for (k = 0; k < 13; k++) {
        snprintf(name, sizeof name, "features.%d.weight", layer[k]);
        ctm_writer_add(&w, name, ones, 4, shape, 0);
        snprintf(name, sizeof name, "features.%d.bias", layer[k]);
        ctm_writer_add(&w, name, ones, 1, shape, 0);
        shape[1] = 1;
    }
    shape[2] = shape[3] = 1;
    for (k = 0; k < 5; k++) {
        snprintf(name, sizeof name, "lin%d.model.1.weight", k);
        ctm_writer_add(&w, name, ones, 4, shape, 0);
    }
    failed |= !ctm_writer_save(&w, seed_path("lpips", "ones.safetensors"));
}

static void seed_tables(void) {
    seed_text("csv", "plain", "|\na,b\n1,2\n3,4.5e1\n-5,.6\n");
    seed_text("csv", "label", "b,a|kind\na,b,kind\n1,2,x\n3,4,\"y, z\"\n5,NA,x\n6,7,\n");
    seed_text("csv", "semicolon", "|\n\"a \"\"q\"\"\";b;c\n1;2;text\n3;4;text\n\n5;6;text\n");
    seed_text("csv", "tab", "x|\nx\ty\r\n1\t2\r\n3\t4\r\n");
    seed_text("csv", "bom", "|\n\xEF\xBB\xBFtemp\xC3\xA9rature,b\n1700000000000,2\n1700000000001,3\n");
    seed_text("csv", "latin1", "|\ntemp\xE9rature,b\n1,2\n3,4\n");
    seed_text("csv", "one", "|\nx\n1\n\n3\n");
    seed_text("csv", "comma", "|\nx;y\n1,5;2\n2,5;3\n");
    seed_text("csv", "infinite", "|\nx,y\n1e400,inf\n1,2\n");
    seed_text("csv", "quotes", "\"a,b\",c|\n\"a,b\",c\n\"1\",\"2\"\n\"3\n\",4\n");
}

static void seed_arrays(void) {
    static const char *const descr[] = {"<f4", "|u1", "<i4", "<i8", "<f8"};
    const size_t shape[2][4] = {{4, 1, 1, 1}, {2, 1, 2, 2}};
    unsigned char bytes[400];
    char name[32];
    size_t k, i, n;
    for (k = 0; k < 10; k++) {
        n = npy_make_header(bytes, descr[k % 5], k < 5 ? 1 : 4, shape[k / 5]);
        for (i = 0; i < 64; i++) bytes[n + i] = (unsigned char)(k % 5 == 0 ? (i % 4 == 3 ? 0x3f : 0) : k % 5 == 1 || i % (k % 5 == 2 ? 4 : 8) == 0 ? i / 8 : 0);
        n += (k < 5 ? 4 : 8) * (k % 5 == 1 ? 1u : k % 5 < 3 ? 4u : 8u);
        snprintf(name, sizeof name, "%d", (int)k);
        seed_bytes("npy", name, bytes, n);
    }
    {
        IMAGE_REAL x[12] = {-1, 1, 0};
        char err[300];
        failed |= !image_write_npz(seed_path("npy", "one.npz"), 1, 2, 3, x, err, sizeof err);
    }
    for (k = 0; k < 3; k++) {                                        // three images of 2 x 2, and their labels
        static const unsigned char image[28] = {0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 255, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
        static const unsigned char label[11] = {0, 0, 8, 1, 0, 0, 0, 3, 0, 9, 1};
        bytes[0] = (unsigned char)(128 + k);
        bytes[1] = 28;
        bytes[2] = 0;
        memcpy(bytes + 3, image, 28);
        memcpy(bytes + 31, label, 11);
        snprintf(name, sizeof name, "labelled%d", (int)k);
        seed_bytes("idx", name, bytes, 42);
    }
    {
        static unsigned char batch[1 + 2 * IMAGE_RECORD];
        for (i = 0; i < sizeof batch; i++) batch[i] = (unsigned char)(i % 7);
        seed_bytes("cifar", "one", batch, 1 + IMAGE_RECORD);
        batch[0] = 2;
        batch[1 + IMAGE_RECORD] = 9;
        seed_bytes("cifar", "two", batch, sizeof batch);
    }
}

static void seed_flags(void) {
    seed_text("flags", "points", "0\ntrain\n--data\nring\n--steps=2e4\n--gan\nlog\n--lr\n0.01\n--times\nauthors");
    seed_text("flags", "sample", "0\nsample\n--weights\nw.safetensors\n--n\n5\n--sampler\nheun\n--nfe=5\n--out\no.csv");
    seed_text("flags", "loglik", "0\nloglik\n--weights\nw.safetensors\n--data=d.csv\n--class\na b");
    seed_text("flags", "claims", "1\n--only\n3,5\n--seeds=2\n--full");
    seed_text("flags", "images", "2\ntrain\n--data\nfolder\n--config\ntiny\n--attn\n16,8\n--distance=lpips\n--lpips\nl.safetensors");
    seed_text("flags", "eval", "2\neval\n--weights=w.safetensors\n--data\nd.bin\n--n\n10");
    seed_text("flags", "info", "2\ninfo\n--size\n16\n--channels=1\n--config\ncompact");
    seed_text("flags", "synth", "2\nsynth\n--n=5\n--out\nd.bin");
    seed_text("flags", "edit", "3\ninpaint\n--weights\nw.safetensors\n--data\nd.npy\n--box\n1,2,3,4");
    seed_text("flags", "help", "3\n--help");
    seed_text("flags", "wrong", "0\n--dat\nring\n--steps=x");
}

// 0 if all could be made.
static int seeds_make(const char *into) {
    ctm_ctx ctx;
    ctm_arena a;
    folder = into;
    ctm_init(&ctx);
    ctm_arena_init(&a, &ctx, "seeds");
    seed_weights(&a);
    seed_checkpoints(&a);
    seed_lpips(&a);
    seed_tables();
    seed_arrays();
    seed_flags();
    ctm_arena_free(&a);
    if (failed) fprintf(stderr, "seeds: not all could be made\n");
    return failed;
}

#ifndef SEEDS_NO_MAIN
int main(int argc, char **argv) {
    if (argc != 2) { fprintf(stderr, "usage: seeds FOLDER\n"); return 2; }
    return seeds_make(argv[1]);
}
#endif
