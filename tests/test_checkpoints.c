// Chapter 21: files. What is written comes back bit for bit and can be read by others; what is damaged, foreign or absent gives one
// line that names the file, and never a crash.
#include "golden.h"
#if defined(__unix__)
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

// A path for passing files; in memory where the system has a folder for that, as thousands are written.
static const char *scratch_path(const char *name) {
    static char path[8][300];
    static int turn;
    const char *folder = getenv("TMPDIR");
    char *p = path[turn++ & 7];
#if defined(__unix__)
    if (!folder) folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(p, 300, "%.200s/ctm_test_%d_%s_%.60s", folder, (int)getpid(), IN_DOUBLE ? "double" : "float", name);
#else
    (void)folder;
    snprintf(p, 300, "ctm_test_%.60s", name);
#endif
    return p;
}
static int exists(const char *path) {
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    return f != NULL;
}
static int tmp_left(const char *path) {
    char tmp[600];
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    return exists(tmp);
}
static unsigned char *read_bytes(const char *path, size_t *n) {          // malloc'd
    FILE *f = fopen(path, "rb");
    unsigned char *bytes = (unsigned char *)malloc(1 << 20);
    *n = 0;
    if (!f || !bytes) { if (f) fclose(f); free(bytes); return NULL; }
    *n = fread(bytes, 1, 1 << 20, f);
    fclose(f);
    return bytes;
}
static void write_bytes(const char *path, const void *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n) test_fail(__FILE__, __LINE__, "a test could not write its scratch file");
    if (f) fclose(f);
}
// A safetensors file out of a header's text and data.
static void write_file(const char *path, const char *header, const void *data, size_t n) {
    size_t h = strlen(header), i;
    unsigned char *bytes = (unsigned char *)malloc(8 + h + n);
    if (!bytes) return;
    for (i = 0; i < 8; i++) bytes[i] = (unsigned char)((uint64_t)h >> (8 * i));
    memcpy(bytes + 8, header, h);
    if (n) memcpy(bytes + 8 + h, data, n);
    write_bytes(path, bytes, 8 + h + n);
    free(bytes);
}

// The error is one line with the path in it (and, if given, `part`; or one of two, "this|that").
static int says(const char *e, const char *part) {
    char first[200];
    const char *bar = strchr(part, '|');
    if (!bar) return strstr(e, part) != NULL;
    snprintf(first, sizeof first, "%.*s", (int)(bar - part), part);
    return strstr(e, first) || strstr(e, bar + 1);
}
static void check_error(const ctm_ctx *ctx, const char *path, const char *part) {
    const char *e = ctm_error(ctx);
    if (!strstr(e, path) || strchr(e, '\n') || (part && !says(e, part))) {
        test_fail(__FILE__, __LINE__, "an error should be one line that names the file and says:");
        printf("     %s\n     but was: %s\n", part ? part : "(anything)", e);
    }
}
static void refused_model(room *r, const char *path, const char *part) {
    ctm_config cfg;
    r->ctx.error[0] = 0;
    CHECK(ctm_load(&r->keep, path, &cfg) == NULL);
    check_error(&r->ctx, path, part);
}

static ctm_config tiny_config(void) {
    ctm_config c = ctm_recipe_points();
    c.hidden = 4; c.layers = 2; c.embed = 3;
    c.batch = 8; c.diagonal_batch = 4; c.shards = 2; c.steps = 20; c.substeps = 1;
    return c;
}
static ctm_net *tiny_net(room *r, const ctm_config *c) { return ctm_mlp(&r->keep, c, 2, 1); }

// A saved model comes back bit for bit with its whole configuration: saving it again gives the same bytes.
static void test_model_round_trip(void) {
    static const char *const pairs[7] = {"title", "a \"ring\" \\ of µ", "note", "two\nlines", "empty", "", NULL};
    room r;
    ctm_config c = tiny_config(), back;
    ctm_net *net, *again;
    const char *a = scratch_path("a.safetensors"), *b = scratch_path("b.safetensors");
    unsigned char *bytes_a, *bytes_b;
    size_t n_a, n_b;
    ctm_file *f;
    int with_s;
    for (with_s = 0; with_s < 2; with_s++) {
        room_open(&r);
        c.noise.sigma_data = 0.1 + 0.2;                                          // a number that needs all 17 digits
        c.noise.inner = CTM_INNER_CM;
        c.seed = 0xFFFFFFFFFFFFFFFFull;
        c.steps = 1234567;
        c.share_at_s = 1e-300;
        c.times = ctm_times_local;
        snprintf(c.recipe, sizeof c.recipe, "of my own");
        net = ctm_mlp(&r.keep, &c, 3, with_s);
        ctm_net_init(net, 4, 1);
        net->theta[1] = (ctm_real)-0.0;
        net->theta[2] = (ctm_real)1e-42;                                         // denormal in float
        CHECK(ctm_save_with(&r.work, net, &c, a, pairs));
        CHECK(!tmp_left(a));
        again = ctm_load(&r.keep, a, &back);
        CHECK(again != NULL);
        if (!again) { printf("     %s\n", ctm_error(&r.ctx)); room_close(&r); return; }
        CHECK(again->len == net->len && same_bits(again->theta, net->theta, net->len));
        CHECK(again->dim == 3 && again->with_s == with_s && strcmp(again->kind, "mlp") == 0 && again->grad != NULL);
        CHECK(back.noise.sigma_data == c.noise.sigma_data && back.seed == c.seed && back.share_at_s == 1e-300 && back.times == ctm_times_local);
        CHECK(strcmp(back.recipe, "of my own") == 0 && back.teach == ctm_teach_solver && back.aim == ctm_aim_teacher);
        CHECK(again->noise.inner == CTM_INNER_CM && again->noise.sigma_data == c.noise.sigma_data);
        CHECK(ctm_save_with(&r.work, again, &back, b, pairs));
        bytes_a = read_bytes(a, &n_a);
        bytes_b = read_bytes(b, &n_b);
        CHECK(bytes_a && bytes_b && n_a == n_b && memcmp(bytes_a, bytes_b, n_a) == 0);
        free(bytes_a);
        free(bytes_b);
        f = ctm_file_read(&r.work, a);
        CHECK(f && ctm_file_meta(f, "title") && strcmp(ctm_file_meta(f, "title"), "a \"ring\" \\ of µ") == 0);
        CHECK(f && ctm_file_meta(f, "empty") && ctm_file_meta(f, "empty")[0] == 0);
        CHECK(f && ctm_file_meta(f, "note") && strcmp(ctm_file_meta(f, "note"), "two\nlines") == 0);
        CHECK(f && ctm_file_meta(f, "ctm.hidden") && strcmp(ctm_file_meta(f, "ctm.hidden"), "4") == 0);
        CHECK(f && ctm_file_meta(f, "nobody") == NULL && ctm_file_find(f, "nobody") == NULL);
        again = f ? ctm_load_file(&r.keep, f, NULL) : NULL;                      // a file that is open is not read again, and not kept
        ctm_arena_free(&r.work);
        ctm_arena_init(&r.work, &r.ctx, "work");
        CHECK(again && same_bits(again->theta, net->theta, net->len) && strcmp(again->kind, "mlp") == 0);
        CHECK(ctm_save(&r.work, net, &c, a) && ctm_load(&r.keep, a, NULL) != NULL);              // overwrites; cfg may be NULL
        room_close(&r);
        CHECK(r.ctx.allocated == 0);
        remove(a);
        remove(b);
    }
}

// A parser of twenty lines that knows nothing of ctm.h finds the numbers: PyTorch's names and [out,in] layout, little-endian.
static const unsigned char *find_tensor(const unsigned char *file, const char *name, int shape[2], size_t *bytes) {
    uint64_t header = 0;
    const char *text = (const char *)file + 8, *at;
    char key[80], *copy, dtype[8];
    unsigned long begin = 0, end = 0;
    int i;
    for (i = 7; i >= 0; i--) header = header << 8 | file[i];
    copy = (char *)malloc((size_t)header + 1);
    if (!copy) return NULL;
    memcpy(copy, text, (size_t)header);
    copy[header] = 0;
    snprintf(key, sizeof key, "\"%s\":{", name);
    at = strstr(copy, key);
    shape[0] = shape[1] = 0;
    if (at && sscanf(at + strlen(key), "\"dtype\":\"%3s\",\"shape\":[%d,%d],\"data_offsets\":[%lu,%lu]}", dtype, &shape[0], &shape[1], &begin, &end) != 5)
        if (sscanf(at + strlen(key), "\"dtype\":\"%3s\",\"shape\":[%d],\"data_offsets\":[%lu,%lu]}", dtype, &shape[0], &begin, &end) != 4) at = NULL;
    CHECK(header % 8 == 0);
    if (at) CHECK(strcmp(dtype, sizeof(ctm_real) == 4 ? "F32" : "F64") == 0);
    free(copy);
    *bytes = end - begin;
    return at ? file + 8 + header + begin : NULL;
}
static double little_endian(const unsigned char *p) {
    uint64_t bits = 0;
    size_t b;
    for (b = sizeof(ctm_real); b-- > 0; ) bits = bits << 8 | p[b];
    if (sizeof(ctm_real) == 4) { uint32_t low = (uint32_t)bits; float v; memcpy(&v, &low, 4); return (double)v; }
    else { double v; memcpy(&v, &bits, 8); return v; }
}
static void test_model_layout_for_others(void) {
    room r;
    ctm_config c = tiny_config();
    ctm_net *net;
    const char *path = scratch_path("layout.safetensors");
    unsigned char *file;
    size_t n, total = 0;
    int p;
    room_open(&r);
    net = tiny_net(&r, &c);
    ctm_net_init(net, 5, 1);
    for (p = 0; p < net->count; p++) if (net->param[p]->ndim == 1) net->param[p]->data[0] = (ctm_real)(p + 0.5);
    CHECK(ctm_save(&r.work, net, &c, path));
    file = read_bytes(path, &n);
    for (p = 0; file && p < net->count; p++) {
        const ctm_tensor *w = net->param[p];
        int shape[2], i, o;
        size_t bytes;
        const unsigned char *at = find_tensor(file, w->name, shape, &bytes);
        CHECK(at != NULL);
        if (!at) continue;
        total += bytes;
        CHECK(bytes == w->len * sizeof(ctm_real));
        if (w->ndim == 1) {
            CHECK(shape[0] == w->shape[0] && shape[1] == 0);
            for (i = 0; i < w->shape[0]; i++) CHECK(little_endian(at + (size_t)i * sizeof(ctm_real)) == (double)w->data[i]);
        } else {
            CHECK(shape[0] == w->shape[1] && shape[1] == w->shape[0]);           // [out,in]
            for (o = 0; o < shape[0]; o++)
                for (i = 0; i < shape[1]; i++)
                    CHECK(little_endian(at + (size_t)(o * shape[1] + i) * sizeof(ctm_real)) == (double)w->data[i * shape[0] + o]);
        }
    }
    {
        uint64_t header = 0;
        int b;
        for (b = 7; file && b >= 0; b--) header = header << 8 | file[b];
        CHECK(n == 8 + header + total);                                          // no holes, nothing behind
    }
    free(file);
    remove(path);
    room_close(&r);
}

// A file made by hand, as another program would: other order, blanks, escapes, F32, F64 and I64, no metadata of ours.
static void test_hand_made_file(void) {
    static const char header[] =
        " {\n  \"out.bias\" : { \"shape\" : [ 2 ], \"dtype\" : \"I64\", \"data_offsets\" : [ 0, 16 ] },\n"
        "  \"out\\u002eother\" : { \"dtype\":\"F64\", \"shape\":[], \"data_offsets\":[16,24] },\n"
        "  \"__metadata__\" : { \"who\" : \"someone\\t\\\"else\\\"\" , \"\" : \"\\/\" },\n"
        "  \"out.weight\" : { \"data_offsets\":[24,48], \"dtype\":\"F32\", \"shape\":[2,3] } }   ";
    room r;
    ctm_noise z = ctm_noise_default();
    const char *path = scratch_path("hand.safetensors");
    unsigned char data[48];
    int64_t ints[2] = {-7, 1000000};
    double one = 1.25;
    float w[6] = {1, 2, 3, 4, 5, 6};
    ctm_file *f;
    ctm_net *net;
    int i, o;
    room_open(&r);
    memcpy(data, ints, 16);
    memcpy(data + 16, &one, 8);
    memcpy(data + 24, w, 24);
    if (*(const unsigned char *)&w[0] != 0) { room_close(&r); SKIP("the bytes of this test are little-endian"); }
    write_file(path, header + 1, data, 48);
    f = ctm_file_read(&r.keep, path);
    CHECK(f != NULL);
    if (!f) { printf("     %s\n", ctm_error(&r.ctx)); room_close(&r); return; }
    CHECK(f->count == 3 && strcmp(ctm_file_meta(f, "who"), "someone\t\"else\"") == 0 && strcmp(ctm_file_meta(f, ""), "/") == 0);
    CHECK(ctm_file_find(f, "out.bias")->dtype == CTM_I64 && ctm_file_find(f, "out.weight")->shape[1] == 3);
    net = ctm_net_new(&r.keep, "hand", &z, 2, 0);
    ctm_param(&r.keep, net, "out.weight", 3, 2);
    ctm_param(&r.keep, net, "out.bias", 2, 0);
    ctm_net_ready(&r.keep, net);
    CHECK(ctm_net_read(net, f, "") == 0);                                        // one tensor too many
    check_error(&r.ctx, path, "has no place in this network");
    write_file(path, "{\"m.out.bias\":{\"shape\":[2],\"dtype\":\"I64\",\"data_offsets\":[0,16]},"
                     "\"m.out.weight\":{\"data_offsets\":[24,48],\"dtype\":\"F32\",\"shape\":[2,3]},"
                     "\"else\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[16,24]}}", data, 48);
    f = ctm_file_read(&r.keep, path);
    CHECK(f && ctm_net_read(net, f, "m."));                                      // strict under its prefix only
    for (o = 0; o < 2; o++) for (i = 0; i < 3; i++) CHECK(net->param[0]->data[i * 2 + o] == (ctm_real)(3 * o + i + 1));
    CHECK(net->param[1]->data[0] == -7 && net->param[1]->data[1] == 1000000);
    remove(path);
    room_close(&r);
}

// ---- checkpoints ----------------------------------------------------------------------------------------------------

// 20 steps are 10 steps, a checkpoint, a new process' worth of state, and 10 more: bit for bit, for both recipes and other threads.
static void test_resume_is_bit_for_bit(void) {
    int recipe;
    for (recipe = 0; recipe < 2; recipe++) {
        ctm_config c = recipe ? small_authors() : small_config();
        const char *path = scratch_path("resume.safetensors");
        static const char *const pairs[3] = {"data", "pair", NULL};
        run whole, half, rest;
        ctm_file *f;
        int step;
        if (recipe) c.ema_rate[2] = 0.5;
        run_open(&whole, &c);
        run_open(&half, &c);
        for (step = 0; step < 20; step++) CHECK(ctm_train_step(whole.tr));
        for (step = 0; step < 10; step++) CHECK(ctm_train_step(half.tr));
        CHECK(ctm_checkpoint_save(&half.r.work, half.tr, path, pairs));
        CHECK(!tmp_left(path));
        run_open(&rest, &c);
        rest.r.ctx.threads = 1;
        for (step = 0; step < 3; step++) CHECK(ctm_train_step(rest.tr));         // whatever it was, it becomes the checkpoint
        CHECK(ctm_checkpoint_load(&rest.r.work, rest.tr, path));
        CHECK(rest.tr->step == 10 && run_same(&half, &rest));
        for (step = 10; step < 20; step++) CHECK(ctm_train_step(rest.tr));
        CHECK(run_same(&whole, &rest));
        CHECK(whole.tr->L_ctm == rest.tr->L_ctm && whole.tr->L_dsm == rest.tr->L_dsm && whole.tr->lr == rest.tr->lr);
        f = ctm_file_read(&rest.r.work, path);
        CHECK(f && ctm_file_meta(f, "data") && strcmp(ctm_file_meta(f, "data"), "pair") == 0);
        CHECK(f && ctm_file_meta(f, "ctm.step") && strcmp(ctm_file_meta(f, "ctm.step"), "10") == 0);
        if (f) {
            ctm_config back;
            CHECK(ctm_config_read(f, &back) && back.lr == c.lr && back.seed == c.seed && back.ema_rate[2] == c.ema_rate[2]);
            CHECK(ctm_checkpoint_load_file(rest.tr, f) && rest.tr->step == 10 && run_same(&half, &rest));        // back again
        }
        run_close(&whole); run_close(&half); run_close(&rest);
        remove(path);
    }
}

// The arithmetic that wrote a checkpoint stands in it. The same one has nothing to say, another one a line; neither is refused.
static void test_resume_with_other_arithmetic_says_so(void) {
    ctm_config c = small_config();
    const char *path = scratch_path("build.safetensors");
    run a, b;
    FILE *f;
    char *bytes, *key;
    long n = 0;
    run_open(&a, &c);
    run_open(&b, &c);
    CHECK(ctm_checkpoint_save(&a.r.work, a.tr, path, NULL));
    CHECK(ctm_checkpoint_load(&b.r.work, b.tr, path) && !b.tr->note[0]);
    b.r.ctx.winograd = 2;
    CHECK(ctm_checkpoint_load(&b.r.work, b.tr, path));
    CHECK_TEXT(b.tr->note, "was written by ctm.h ");
    CHECK_TEXT(b.tr->note, "winograd 1");
    CHECK_TEXT(b.tr->note, "winograd 2");
    CHECK(strstr(b.tr->note, ctm_isa_name(a.r.ctx.isa)) != NULL);
    b.r.ctx.winograd = 1;
    if (a.r.ctx.isa != CTM_ISA_PORTABLE) {
        CHECK(ctm_set_isa(&b.r.ctx, CTM_ISA_PORTABLE) && ctm_checkpoint_load(&b.r.work, b.tr, path));
        CHECK_TEXT(b.tr->note, "this is ctm.h " CTM_VERSION ", portable");
        CHECK(!strchr(b.tr->note, '\n'));
        CHECK(ctm_set_isa(&b.r.ctx, a.r.ctx.isa) && ctm_checkpoint_load(&b.r.work, b.tr, path) && !b.tr->note[0]);
    }
    f = fopen(path, "rb");                                                       // an older file has no such key
    bytes = (char *)ctm_alloc(&a.r.work, 1 << 20);
    if (f) { n = (long)fread(bytes, 1, 1 << 20, f); fclose(f); }
    for (key = bytes; key < bytes + n - 9 && memcmp(key, "ctm.build", 9) != 0; key++) { }
    memcpy(key, "ctm.bluid", 9);
    f = fopen(path, "wb");
    if (f) { fwrite(bytes, 1, (size_t)n, f); fclose(f); }
    CHECK(ctm_checkpoint_load(&b.r.work, b.tr, path));
    CHECK_TEXT(b.tr->note, "a build that it does not name");
    run_close(&a); run_close(&b);
    remove(path);
}

// A checkpoint that does not fit leaves the trainer as it was.
static void test_checkpoint_that_does_not_fit(void) {
    ctm_config c = small_config(), other = c;
    const char *path = scratch_path("fit.safetensors"), *model = scratch_path("model.safetensors");
    run a, b, untouched;
    int step;
    other.hidden = 20;
    run_open(&a, &other);
    run_open(&b, &c);
    run_open(&untouched, &c);
    for (step = 0; step < 2; step++) { CHECK(ctm_train_step(a.tr)); CHECK(ctm_train_step(b.tr)); CHECK(ctm_train_step(untouched.tr)); }
    CHECK(ctm_checkpoint_save(&a.r.work, a.tr, path, NULL));
    CHECK(ctm_checkpoint_load(&b.r.work, b.tr, path) == 0);                      // another width
    check_error(&b.r.ctx, path, "this network needs");
    CHECK(run_same(&b, &untouched));
    CHECK(ctm_save(&a.r.work, a.net, &other, model));
    CHECK(ctm_checkpoint_load(&b.r.work, b.tr, model) == 0);                     // a model is no checkpoint
    check_error(&b.r.ctx, model, "is not a checkpoint of ctm.h");
    refused_model(&a.r, path, "but a model was expected");                       // and a checkpoint no model
    run_close(&a);
    other = c;
    other.ema_rate[1] = 0;
    run_open(&a, &other);                                                        // one average only
    CHECK(ctm_checkpoint_save(&a.r.work, a.tr, path, NULL));
    run_close(&a);
    other.ema_rate[1] = 0.5;
    run_open(&a, &other);
    step = a.tr->emas;
    CHECK(step == 2 && ctm_checkpoint_load(&a.r.work, a.tr, path) == 0);         // two wanted
    check_error(&a.r.ctx, path, "ema1.");
    CHECK(a.tr->step == 0 && a.tr->opt.k == 0);
    run_close(&a);
    CHECK(ctm_checkpoint_load(&b.r.work, b.tr, "no/such/folder/x") == 0);
    check_error(&b.r.ctx, "no/such/folder/x", "No such file");
    CHECK(run_same(&b, &untouched));
    run_close(&b); run_close(&untouched);
    remove(path); remove(model);
}

// ---- damage ---------------------------------------------------------------------------------------------------------

// Cut off at every length: refused with a line, for models and for checkpoints.
static void test_truncated_at_every_length(void) {
    ctm_config c = tiny_config();
    const char *path = scratch_path("cut.safetensors");
    run n;
    room r;
    unsigned char *bytes;
    size_t size, cut;
    room_open(&r);
    CHECK(ctm_save(&r.work, tiny_net(&r, &c), &c, path));
    bytes = read_bytes(path, &size);
    CHECK(bytes && size > 1000);
    for (cut = 0; bytes && cut < size; cut++) {
        ctm_mark m = ctm_arena_mark(&r.keep);
        write_bytes(path, bytes, cut);
        refused_model(&r, path, NULL);
        ctm_arena_release(&r.keep, m);
    }
    free(bytes);
    room_close(&r);
    run_open(&n, &c);
    CHECK(ctm_checkpoint_save(&n.r.work, n.tr, path, NULL));
    bytes = read_bytes(path, &size);
    for (cut = 0; bytes && cut < size; cut += 13) {
        write_bytes(path, bytes, cut);
        n.r.ctx.error[0] = 0;
        CHECK(ctm_checkpoint_load(&n.r.work, n.tr, path) == 0);
        check_error(&n.r.ctx, path, NULL);
    }
    CHECK(n.tr->step == 0);
    free(bytes);
    run_close(&n);
    remove(path);
}

// Two thousand single byte flips (and as many pairs in the header): never a crash; a refusal is a line; what loads is finite.
static void test_random_byte_flips(void) {
    ctm_config c = tiny_config();
    const char *path = scratch_path("flip.safetensors");
    ctm_rng rng = ctm_stream(2024, "flips");
    room r;
    unsigned char *bytes;
    size_t size, i;
    int k, loaded = 0;
    room_open(&r);
    CHECK(ctm_save(&r.work, tiny_net(&r, &c), &c, path));
    bytes = read_bytes(path, &size);
    for (k = 0; bytes && k < 4000; k++) {
        size_t range = k % 2 ? size : size / 2, at[2];
        unsigned char old[2];
        ctm_mark m = ctm_arena_mark(&r.keep);
        ctm_config cfg;
        ctm_net *net;
        int q, flips = k % 2 ? 1 : 2;
        for (q = 0; q < flips; q++) {
            at[q] = (size_t)(ctm_uniform(&rng, (uint64_t)k, (uint64_t)(2 * q)) * (double)range);
            old[q] = bytes[at[q]];
            bytes[at[q]] = (unsigned char)(ctm_uniform(&rng, (uint64_t)k, (uint64_t)(2 * q + 1)) * 256);
        }
        write_bytes(path, bytes, size);
        r.ctx.error[0] = 0;
        net = ctm_load(&r.keep, path, &cfg);
        if (!net) check_error(&r.ctx, path, NULL);
        else {
            loaded++;
            for (i = 0; i < net->len; i++) CHECK(ctm_is_finite((double)net->theta[i]));
            CHECK(net->len < 100000);
        }
        for (q = flips; q-- > 0; ) bytes[at[q]] = old[q];
        ctm_arena_release(&r.keep, m);
    }
    CHECK(loaded > 100 && loaded < 3900);                                        // flips in the numbers load, flips in the header mostly not
    free(bytes);
    remove(path);
    room_close(&r);
}

// Headers that lie.
static void test_hostile_headers(void) {
    static const char *const header[] = {
        "", "{", "[]", "null", "{}", "{\"__metadata__\":{}}", "{\"a\":1}", "{\"a\":{}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}",                       // no end
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}} x",                    // something behind
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,20]}}",                      // beyond the file
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[16,0]}}",                      // backwards
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[5],\"data_offsets\":[0,16]}}",                      // another size
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[-4],\"data_offsets\":[0,16]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2147483647,2147483647,2147483647,2147483647],\"data_offsets\":[0,16]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,16]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[65536,65536,65536,65536],\"data_offsets\":[0,0]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[18446744073709551600,16]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[99999999999999999999999,16]}}",
        "{\"a\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[0,16]}}",                      // eight numbers, not four
        "{\"a\":{\"dtype\":\"BOOL\",\"shape\":[4],\"data_offsets\":[0,16]}}",
        "{\"a\":{\"dtype\":\"Q0\",\"shape\":[4000],\"data_offsets\":[0,16]}}",                     // less than a bit for a number
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16],\"more\":1}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}\"b\":{}}",
        "{\"a\\", "{\"a\\u00", "{\"a", "{\"__metadata__\":{\"a\":1}}", "{\"__metadata__\":{\"a\":\"b\"", "{\"__metadata__\":\"x\"}",
        "{::::::::::::::::", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4", "{\"a\":{\"dtype\":\"F32\",\"shape\":[,4],\"data_offsets\":[0,16]}}"};
    const char *path = scratch_path("lies.safetensors");
    unsigned char data[16] = {0}, huge[24];
    room r;
    size_t k;
    room_open(&r);
    for (k = 0; k < sizeof header / sizeof header[0]; k++) {
        ctm_mark m = ctm_arena_mark(&r.keep);
        ctm_file *f;
        int empty = strcmp(header[k], "{}") == 0 || strcmp(header[k], "{\"__metadata__\":{}}") == 0;
        write_file(path, header[k], data, empty ? 0 : 16);
        r.ctx.error[0] = 0;
        f = ctm_file_read(&r.keep, path);
        if (empty) CHECK(f && f->count == 0);                                    // but sound
        else { if (f) printf("     taken: %s\n", header[k]); CHECK(f == NULL); check_error(&r.ctx, path, NULL); }
        refused_model(&r, path, NULL);
        ctm_arena_release(&r.keep, m);
    }
    for (k = 0; k < 9; k++) {                                                    // lengths of the header that no file can have
        memset(huge, 'x', sizeof huge);
        memset(huge, 0, 8);
        huge[8] = '{';
        if (k < 8) huge[k] = 0xff; else memset(huge, 0xff, 8);
        write_bytes(path, huge, sizeof huge);
        refused_model(&r, path, NULL);
    }
    remove(path);
    room_close(&r);
}

// One thing at a time is wrong with a file of ours. `edit` replaces `from` by `to` (of equal length) in the header.
static int edit(unsigned char *bytes, size_t n, const char *from, const char *to) {
    size_t len = strlen(from), i;
    for (i = 8; i + len <= n; i++) if (memcmp(bytes + i, from, len) == 0) { memcpy(bytes + i, to, len); return 1; }
    test_fail(__FILE__, __LINE__, "the text to edit is not in the file:");
    printf("     %s\n", from);
    return 0;
}
static void test_wrong_in_one_thing(void) {
    static const char *const edits[][3] = {
        {"\"out.weight\":", "\"out.weighs\":", "has no tensor \"out.weight\""},
        {"\"ctm.network\":\"mlp\"", "\"ctm.network\":\"xyz\"", "\"ctm.network\" in its metadata is \"xyz\", expected mlp or unet"},
        {"\"ctm.dim\":\"2\"", "\"ctm.dim\":\"3\"", "this network needs|numbers"},
        {"\"ctm.dim\":\"2\"", "\"ctm.dim\":\"0\"", "\"ctm.dim\" in its metadata is \"0\", expected the dimension of the data"},
        {"\"ctm.dim\":\"2\"", "\"ctm.dim\":\"x\"", "\"ctm.dim\" in its metadata is \"x\""},
        {"\"ctm.hidden\":\"4\"", "\"ctm.hidden\":\"5\"", "this network needs|numbers"},
        {"\"ctm.hidden\":\"4\"", "\"ctm.hidden\":\"a\"", "\"ctm.hidden\" is \"a\", but a whole number from 1 to 65536 was expected"},
        {"\"ctm.hidden\":\"4\"", "\"ctm.hiddem\":\"4\"", "its metadata have no"},
        {"\"ctm.layers\":\"2\"", "\"ctm.layers\":\"3\"", "has no tensor|numbers"},
        {"\"ctm.layers\":\"2\"", "\"ctm.layers\":\"1\"", "has no place in this network"},
        {"\"ctm.layers\":\"2\"", "\"ctm.layers\":\"0\"", "make no sense"},
        {"\"ctm.with_s\":\"1\"", "\"ctm.with_s\":\"0\"", NULL}, {"\"ctm.with_s\":\"1\"", "\"ctm.with_s\":\"2\"", "\"ctm.with_s\" in its metadata is \"2\", expected 0 or 1"},
        {"\"ctm.format\":\"model\"", "\"ctm.format\":\"novel\"", "holds a novel, but a model was expected"},
        {"\"ctm.format\":\"model\"", "\"ctm.forget\":\"model\"", "has none of ctm.h's metadata"},
        {"\"ctm.noise.rho\":\"7\"", "\"ctm.noise.rho\":\"0\"", "make no sense"},
        {"\"ctm.noise.sigma_min\":\"0.002\"", "\"ctm.noise.sigma_min\":\"1e-99\"", "make no sense"},
        {"\"ctm.noise.N\":\"18\"", "\"ctm.noise.N\":\"-8\"", "make no sense"},
        {"\"ctm.ema_rate[0]\":\"0.999\"", "\"ctm.ema_rate[0]\":\"0.000\"", "make no sense"},
        {"\"ctm.ema_rate[2]\":\"0\"", "\"ctm.ema_rate[2]\":\"2\"", "make no sense"},
        {"\"ctm.beta2\":\"0", "\"ctm.beta2\":\"2", "make no sense"}, {"\"ctm.lr\":\"0", "\"ctm.lr\":\"-", "make no sense"},
        {"\"ctm.share_at_s\":\"0.5\"", "\"ctm.share_at_s\":\"1.5\"", "share_at_s is 1.5, but it must be a number from 0 to 1"}};
    ctm_config c = tiny_config();
    const char *path = scratch_path("wrong.safetensors");
    room r;
    unsigned char *bytes;
    size_t n, k;
    ctm_net *net;
    char *long_header;
    room_open(&r);
    net = tiny_net(&r, &c);
    CHECK(ctm_save(&r.work, net, &c, path));
    for (k = 0; k < sizeof edits / sizeof edits[0]; k++) {
        bytes = read_bytes(path, &n);
        if (bytes && edit(bytes, n, edits[k][0], edits[k][1])) {
            write_bytes(path, bytes, n);
            refused_model(&r, path, edits[k][2]);
            edit(bytes, n, edits[k][1], edits[k][0]);
            write_bytes(path, bytes, n);
        }
        free(bytes);
    }
    CHECK(ctm_load(&r.keep, path, NULL) != NULL);                                // as good as before
    bytes = read_bytes(path, &n);                                                // a function of another program: none here, to be filled in
    if (bytes && edit(bytes, n, "\"ctm.teach\":\"solver\"", "\"ctm.teach\":\"slover\"")) {
        ctm_config back;
        write_bytes(path, bytes, n);
        CHECK(ctm_load(&r.keep, path, &back) != NULL && back.teach == NULL && back.times == c.times && back.hidden == 4);
    }
    free(bytes);
    {                                                                            // numbers that are none
        static const double poison[3] = {1, 2, 3};
        int p;
        for (p = 0; p < 3; p++) {
            ctm_tensor *w = net->param[p == 0 ? 0 : p == 1 ? net->count - 1 : net->last_weight];
            ctm_real keep = w->data[w->len - 1];
            w->data[w->len - 1] = (ctm_real)(poison[p] < 2 ? nan("") : poison[p] < 3 ? INFINITY : -INFINITY);
            CHECK(ctm_save(&r.work, net, &c, path));
            refused_model(&r, path, "holds a number that is not finite");
            CHECK(strstr(ctm_error(&r.ctx), w->name) != NULL);
            w->data[w->len - 1] = keep;
        }
    }
    CHECK(ctm_save(&r.work, net, &c, path));                                     // a file of ours that claims a network of terabytes
    bytes = read_bytes(path, &n);
    long_header = (char *)malloc(n + 64);
    if (bytes && long_header) {
        uint64_t header = 0;
        char *h, *e, *l;
        int b;
        for (b = 7; b >= 0; b--) header = header << 8 | bytes[b];
        memcpy(long_header, bytes + 8, (size_t)header);
        long_header[header] = 0;
        l = strstr(long_header, "\"ctm.layers\":\"2\"");
        h = strstr(long_header, "\"ctm.hidden\":\"4\"");
        e = strstr(long_header, "\"ctm.embed\":\"3\"");
        CHECK(l && h && e);
        if (l && h && e) {
            static char text[20000];
            snprintf(text, sizeof text, "%.*s\"ctm.hidden\":\"65536\",\"ctm.layers\":\"64\",\"ctm.embed\":\"65536\"%s", (int)(h - long_header), long_header,
                     e + strlen("\"ctm.embed\":\"3\""));
            write_file(path, text, bytes + 8 + header, n - 8 - (size_t)header);
            if (PANICS(refused_model(&r, path, NULL))) { test_fail(__FILE__, __LINE__, "a file's claim about sizes ended in a panic:"); printf("     %s\n", test_panic); }
        }
    }
    free(long_header);
    free(bytes);
    remove(path);
    room_close(&r);
}

// Files of other kinds: absent, empty, a folder, text, a safetensors file of somebody else.
static void test_files_that_are_none(void) {
    const char *path = scratch_path("none.safetensors");
    room r;
    room_open(&r);
    refused_model(&r, "/no/such/folder/model.safetensors", "No such file");
    write_bytes(path, "", 0);
    refused_model(&r, path, "not a safetensors file");
    write_bytes(path, "x,y\n1,2\n3,4\n", 12);
    refused_model(&r, path, "not a safetensors file");
    write_file(path, "{\"__metadata__\":{\"format\":\"pt\"}}", NULL, 0);            // a header only
    refused_model(&r, path, "has none of ctm.h's metadata");
    refused_model(&r, CTM_TEST_DATA "/net_film.safetensors", "has none of ctm.h's metadata");
#if defined(__unix__)
    refused_model(&r, "/", NULL);
    refused_model(&r, "/dev/null", "is not a regular file");
#endif
    remove(path);
    room_close(&r);
}

// ---- writing --------------------------------------------------------------------------------------------------------

// What cannot be written: a line, nothing half-written, and what stood there before still stands.
static void save_refused(room *r, const ctm_net *net, const ctm_config *c, const char *path, const char *part) {
    r->ctx.error[0] = 0;
    CHECK(ctm_save(&r->work, net, c, path) == 0);
    check_error(&r->ctx, path, part);
    CHECK(!tmp_left(path));
}
static void test_unwritable_paths(void) {
    ctm_config c = tiny_config();
    room r;
    ctm_net *net;
    char path[2000];
    room_open(&r);
    net = tiny_net(&r, &c);
    save_refused(&r, net, &c, "/no/such/folder/model.safetensors", "could not be written: No such file");
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = 0;
    r.ctx.error[0] = 0;
    CHECK(ctm_save(&r.work, net, &c, path) == 0);
    CHECK_TEXT(ctm_error(&r.ctx), "the path is too long");
#if defined(__unix__)
    snprintf(path, sizeof path, "%s", scratch_path("folder"));
    if (mkdir(path, 0755) == 0) {
        save_refused(&r, net, &c, path, "could not be written");                 // a folder cannot be replaced by a file
        rmdir(path);
    }
#endif
    room_close(&r);
}

// A full disk, for which a limit on the size of files stands in: the old file stays, the new one goes, under every name.
static void test_full_disk(void) {
#if defined(__unix__) && !defined(__STRICT_ANSI__)
    ctm_config c = tiny_config();
    const char *path = scratch_path("full.safetensors");
    struct rlimit was, small;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    room r;
    ctm_net *net;
    ctm_output out;
    unsigned char *bytes;
    size_t n;
    room_open(&r);
    net = tiny_net(&r, &c);
    write_bytes(path, "the old one", 11);
    CHECK(getrlimit(RLIMIT_FSIZE, &was) == 0);
    small = was;
    small.rlim_cur = 1000;
    CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    save_refused(&r, net, &c, path, "could not be written: File too large");
    CHECK(ctm_output_open(&out, path) != NULL);                                  // the buffer is written when it is full, or at last
    for (n = 0; n < 20000; n++) putc('x', out.file);
    CHECK(!ctm_output_close(&out) && errno == EFBIG);
    CHECK(ctm_output_open(&out, path) != NULL);
    for (n = 0; n < 1001; n++) putc('x', out.file);
    CHECK(!ctm_output_close(&out) && errno == EFBIG && out.file == NULL && !tmp_left(path));
    CHECK(setrlimit(RLIMIT_FSIZE, &was) == 0);
    signal(SIGXFSZ, handler);
    bytes = read_bytes(path, &n);
    CHECK(bytes && n == 11 && memcmp(bytes, "the old one", 11) == 0);
    free(bytes);
    remove(path);
    if (exists("/dev/full")) {
        CHECK(ctm_output_open(&out, "/dev/full") != NULL && out.tmp[0] == 0);
        putc('x', out.file);
        CHECK(!ctm_output_close(&out) && errno == ENOSPC);
    }
    room_close(&r);
#else
    SKIP("needs a limit on the size of files");
#endif
}

// ---- ctm_output -----------------------------------------------------------------------------------------------------

static void put(ctm_output *out, const char *path, const char *text) {
    CHECK(ctm_output_open(out, path) != NULL);
    if (out->file) fputs(text, out->file);
}
static int file_is(const char *path, const char *text) {
    size_t n;
    unsigned char *bytes = read_bytes(path, &n);
    int same = bytes && n == strlen(text) && memcmp(bytes, text, n) == 0;
    free(bytes);
    return same;
}
// Until it is closed, and if it is given up, a file is what it was; the name is taken in one go.
static void test_output_takes_its_name_when_complete(void) {
    const char *path = scratch_path("output");
    ctm_output a, b;
    remove(path);
    put(&a, path, "one");
    CHECK(!exists(path) && tmp_left(path));
    CHECK(ctm_output_close(&a) && file_is(path, "one") && !tmp_left(path));
    put(&a, path, "half of two");
    fflush(a.file);
    CHECK(file_is(path, "one"));
    ctm_output_drop(&a);
    ctm_output_drop(&a);                                                         // harmless
    CHECK(file_is(path, "one") && !tmp_left(path));
    put(&a, path, "from a");                                                     // two at once: each has a file of its own, the later wins
    put(&b, path, "and from b");
    CHECK(strcmp(a.tmp, b.tmp) != 0 && ctm_output_close(&b) && file_is(path, "and from b"));
    CHECK(ctm_output_close(&a) && file_is(path, "from a") && !exists(b.tmp) && !exists(a.tmp));
    remove(path);
    CHECK(!ctm_output_open(&a, "") && errno == ENOENT && !ctm_output_open(&a, "/no/such/folder/x") && errno == ENOENT);
}
// What a program that was killed left behind is used again, and does not pile up.
static void test_output_uses_leftovers(void) {
#if defined(__unix__)
    const char *path = scratch_path("left");
    char tmp[400];
    ctm_output out;
    int i, status;
    snprintf(tmp, sizeof tmp, "%s.2.tmp", path);
    for (i = 0; i < 3; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            if (ctm_output_open(&out, path)) { fputs("a long line that nobody finishes", out.file); fflush(out.file); }
            _exit(0);
        }
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
        CHECK(tmp_left(path) && !exists(path) && !exists(tmp));
    }
    put(&out, path, "short");
    CHECK(ctm_output_close(&out) && file_is(path, "short") && !tmp_left(path));
    remove(path);
#else
    SKIP("needs fork");
#endif
}
// Links lead to the file that is replaced, also to one that is not there yet; its mode stays; one that may not be written is refused.
static void test_output_keeps_links_and_modes(void) {
#if defined(__unix__) && !defined(__STRICT_ANSI__)
    char folder[400], real[420], near_[420], link[420], loop[420];
    struct stat s;
    ctm_output out;
    snprintf(folder, sizeof folder, "%s", scratch_path("links"));
    if (mkdir(folder, 0755) != 0) SKIP("no folder can be made here");
    snprintf(real, sizeof real, "%s/real", folder);
    snprintf(near_, sizeof near_, "%s/near", folder);
    snprintf(link, sizeof link, "%s/link", folder);
    snprintf(loop, sizeof loop, "%s/loop", folder);
    CHECK(symlink("real", near_) == 0 && symlink(near_, link) == 0 && symlink("loop", loop) == 0);
    put(&out, link, "one");                                                      // link -> near -> real, which does not exist
    CHECK(ctm_output_close(&out) && file_is(real, "one") && lstat(link, &s) == 0 && S_ISLNK(s.st_mode) && !tmp_left(link));
    CHECK(chmod(real, 0640) == 0);
    put(&out, link, "two");
    CHECK(ctm_output_close(&out) && file_is(real, "two") && stat(real, &s) == 0 && (s.st_mode & 0777) == 0640 && !tmp_left(real));
    CHECK(chmod(real, 0444) == 0 && !ctm_output_open(&out, link) && errno == EACCES && file_is(real, "two") && !tmp_left(real));
    CHECK(!ctm_output_open(&out, loop) && errno == ELOOP);
    CHECK(!ctm_output_open(&out, folder) && errno == EISDIR);
    snprintf(near_, sizeof near_, "%s/real.tmp", folder);                        // something else has the temporary file's name
    CHECK(symlink("/dev/null", near_) == 0 && chmod(real, 0600) == 0);
    put(&out, real, "three");
    CHECK(ctm_output_close(&out) && file_is(real, "three") && lstat(near_, &s) == 0 && S_ISLNK(s.st_mode));
    remove(near_); snprintf(near_, sizeof near_, "%s/near", folder);
    remove(near_); remove(link); remove(loop); remove(real);
    CHECK(rmdir(folder) == 0);                                                   // nothing is left
#else
    SKIP("needs links");
#endif
}
// A file is held by one at a time, and free again when its holder has let go or is no more.
static void test_hold(void) {
    const char *path = scratch_path("hold");
    const int a = ctm_hold(path, 1);
    CHECK(a >= 0 && exists(path));
    CHECK(ctm_hold(path, 1) < 0 && errno == EAGAIN);
    ctm_let_go(a, path);
    ctm_let_go(-1, path);
    CHECK(!exists(path));
#if defined(__unix__)
    {
        int status;
        pid_t pid = fork();
        if (pid == 0) _exit(ctm_hold(path, 1) < 0);                              // ends without letting go
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 && exists(path));
        ctm_let_go(ctm_hold(path, 1), path);
        CHECK(!exists(path));
    }
#endif
}

// A path that is a device, a pipe or another thing of the system is not replaced by a file.
static void test_devices_are_not_replaced(void) {
#if defined(__unix__)
    ctm_config c = tiny_config();
    const char *path = scratch_path("pipe");
    room r;
    struct stat s;
    if (mkfifo(path, 0600) != 0) SKIP("no pipe can be made here");
    room_open(&r);
    CHECK(ctm_save(&r.work, tiny_net(&r, &c), &c, path) == 0);
    check_error(&r.ctx, path, NULL);
    CHECK(stat(path, &s) == 0 && S_ISFIFO(s.st_mode));
    CHECK(!tmp_left(path));
    remove(path);
    room_close(&r);
#else
    SKIP("needs a pipe");
#endif
}

// ---- adversary and labels -------------------------------------------------------------------------------------------

// A run with a discriminator and labels goes on bit for bit; its optimiser's state is in the file; the settings come back.
static void test_full_resume_is_bit_for_bit(void) {
    int k;
    for (k = 0; k < 4; k++) {                                                    // stopped before the student's turn and before the other's
        ctm_config c = gan_config(), back;
        const char *path = scratch_path("gan.safetensors");
        full_run whole, half, rest;
        ctm_file *f;
        int step, stop = 5 + k;
        c.classes = 2; c.label_dropout = 0.2; c.gan_start = 3; c.gan = CTM_GAN_LOG; c.gan_lr = 3e-3; c.teach = ctm_teach_jump;
        if (k == 3) c.gan_period = 1;
        full_open(&whole, &c, 0);
        full_open(&half, &c, 0);
        full_open(&rest, &c, 0);
        for (step = 0; step < 12; step++) CHECK(ctm_train_step(whole.tr));
        for (step = 0; step < stop; step++) CHECK(ctm_train_step(half.tr));
        CHECK(ctm_checkpoint_save(&half.r.work, half.tr, path, NULL));
        CHECK(ctm_train_step(rest.tr) && ctm_checkpoint_load(&rest.r.work, rest.tr, path));
        CHECK(rest.tr->step == stop && full_same_student(&half, &rest) && full_same_disc(&half, &rest));
        for (step = stop; step < 12; step++) CHECK(ctm_train_step(rest.tr));
        CHECK(full_same_student(&whole, &rest) && full_same_disc(&whole, &rest) && whole.tr->disc_opt.k > 0);
        f = ctm_file_read(&rest.r.work, path);
        CHECK(f && ctm_config_read(f, &back) && back.gan == CTM_GAN_LOG && back.gan_start == 3 && back.gan_lr == 3e-3 && back.classes == 2 &&
              back.label_dropout == 0.2 && back.teach == ctm_teach_jump && back.gan_period == c.gan_period);
        CHECK(f && ctm_file_find(f, "disc.critic.0.weight") && ctm_file_find(f, "disc.m.logit.bias") && ctm_file_find(f, "theta.map_label.weight"));
        full_close(&whole); full_close(&half); full_close(&rest);
        remove(path);
    }
}

// A discriminator's step leaves the student's figures as they were; the step after a resume shows the same ones.
static void test_resumed_trainer_knows_the_last_steps_figures(void) {
    const char *path = scratch_path("figures.safetensors");
    ctm_config c = gan_config();
    int stop;
    c.gan_start = 3;
    for (stop = 5; stop < 8; stop++) {
        full_run whole, rest;
        full_open(&whole, &c, 0);
        full_open(&rest, &c, 0);
        while (whole.tr->step < stop) CHECK(ctm_train_step(whole.tr));
        CHECK(ctm_checkpoint_save(&whole.r.work, whole.tr, path, NULL) && ctm_checkpoint_load(&rest.r.work, rest.tr, path));
        CHECK(ctm_train_step(whole.tr) && ctm_train_step(rest.tr) && whole.tr->L_ctm > 0);
#define SAME(figure) CHECK(whole.tr->figure == rest.tr->figure)
        SAME(L_ctm); SAME(L_dsm); SAME(lambda_dsm); SAME(grad_norm); SAME(lr);
        SAME(L_gan); SAME(L_disc); SAME(lambda_gan); SAME(disc_real); SAME(disc_fake);
#undef SAME
        full_close(&whole); full_close(&rest);
    }
    remove(path);
}

// A discriminator on one side only, or of another shape: one line, and the trainer stays as it was.
static void test_checkpoint_of_another_adversary(void) {
    ctm_config c = gan_config(), plain = gan_config(), wide = gan_config();
    const char *with = scratch_path("with.safetensors"), *without = scratch_path("without.safetensors");
    full_run a, b, w, untouched;
    plain.gan = CTM_GAN_NONE;
    wide.gan_hidden = 20;
    full_open(&a, &c, 1);
    full_open(&b, &plain, 1);
    full_open(&w, &wide, 1);
    full_open(&untouched, &c, 1);
    CHECK(ctm_train_step(a.tr) && ctm_train_step(a.tr) && ctm_train_step(b.tr));
    CHECK(ctm_checkpoint_save(&a.r.work, a.tr, with, NULL) && ctm_checkpoint_save(&b.r.work, b.tr, without, NULL));
    CHECK(ctm_checkpoint_load(&b.r.work, b.tr, with) == 0);
    check_error(&b.r.ctx, with, "has a discriminator, but this run has none");
    CHECK(b.tr->step == 1);
    CHECK(ctm_checkpoint_load(&w.r.work, w.tr, with) == 0);
    check_error(&w.r.ctx, with, "disc.critic.0.weight");
    CHECK(w.tr->step == 0 && same_bits(w.net->theta, untouched.net->theta, w.net->len));
    CHECK(ctm_checkpoint_load(&untouched.r.work, untouched.tr, without) == 0);
    check_error(&untouched.r.ctx, without, "has no discriminator, but this run has one");
    full_close(&a); full_close(&b); full_close(&w); full_close(&untouched);
    remove(with);
    remove(without);
}

// A labelled model and its class embedding make the round trip; hostile settings are refused.
static void test_labelled_model_round_trip(void) {
    static const char *const pairs[5] = {"data.class.0", "Adelie", "data.class.1", "a \"second\" one", NULL};
    ctm_config c = tiny_config(), back, bad;
    const char *path = scratch_path("labels.safetensors");
    room r;
    ctm_net *net, *again;
    int k;
    room_open(&r);
    c.classes = 2;
    net = ctm_mlp(&r.keep, &c, 3, 1);
    ctm_net_init(net, 4, 1);
    CHECK(ctm_save_with(&r.work, net, &c, path, pairs));
    again = ctm_load(&r.keep, path, &back);
    CHECK(again && again->classes == 2 && back.classes == 2 && same_bits(again->theta, net->theta, net->len));
    for (k = 0; k < 10; k++) {
        bad = c;
        if (k == 6) bad.beta2 = 1;
        if (k == 7) bad.ema_rate[1] = -0.5;
        if (k == 8) bad.steps = -1;
        if (k == 9) bad.share_at_s = 1.5;
        if (k == 0) bad.classes = -1;
        if (k == 1) bad.classes = 900000;                                        // more rows than the file holds
        if (k == 2) bad.label_dropout = 2;
        if (k == 3) bad.gan = 9;
        if (k == 4) bad.gan_period = 0;
        if (k == 5) bad.distance = 4;
        CHECK(ctm_save_with(&r.work, net, &bad, path, NULL));
        refused_model(&r, path, k == 1 ? "this network needs [3,900000]" : "make no sense");
    }
    room_close(&r);
    remove(path);
}

// ---- what files from elsewhere are like -----------------------------------------------------------------------------

// One thing is wrong with where the tensors lie or what they are called: the line says what, and which tensor.
static void test_tensors_overlap_leave_holes_or_come_twice(void) {
    static const char *const header[][2] = {
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[4,16]}}",
         "tensor \"b\" begins at byte 4 of the data, expected 8 (tensors overlap)"},
        {"{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         "tensor \"b\" begins at byte 8 of the data, expected 4 (there is a hole)"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[4,16]}}", "tensor \"a\" begins at byte 4 of the data, expected 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}}", "its tensors end at byte 12 of 16 of the data"},
        {"{}", "its tensors end at byte 0 of 16"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"\\u0061\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
         "it has \"a\" twice"},
        {"{\"__metadata__\":{\"k\":\"1\",\"l\":\"2\",\"k\":\"1\"},\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", "it has \"k\" twice"},
        {"{\"__metadata__\":{},\"__metadata__\":{},\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", "__metadata__ to be one object"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"shape\":[4],\"data_offsets\":[0,16]}}", "dtype, shape and data_offsets, each once"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4]}}", "dtype, shape and data_offsets, each once"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-4],\"data_offsets\":[0,16]}}", "shape to be a list of sizes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4.0],\"data_offsets\":[0,16]}}", "shape to be a list of sizes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[-0,16]}}", "data_offsets to be two sizes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[5],\"data_offsets\":[0,20]}}", "tensor \"a\": its data_offsets do not fit its shape or the file"}};
    const char *path = scratch_path("places.safetensors");
    unsigned char data[16] = {0};
    room r;
    size_t k;
    room_open(&r);
    for (k = 0; k < sizeof header / sizeof header[0]; k++) {
        write_file(path, header[k][0], data, 16);
        r.ctx.error[0] = 0;
        CHECK(ctm_file_read(&r.keep, path) == NULL);
        check_error(&r.ctx, path, header[k][1]);
    }
    write_file(path, "{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]},\"none\":{\"dtype\":\"F64\",\"shape\":[0,7],\"data_offsets\":[8,8]},"
                     "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", data, 16);
    CHECK(ctm_file_read(&r.keep, path) != NULL);                                 // any order; an empty one between
    {
        char longest[600], name[2][202];
        ctm_file *f;
        memset(name, 'n', sizeof name);
        name[0][201] = name[1][201] = 0;
        name[1][200] = 'm';
        snprintf(longest, sizeof longest, "{\"%s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},\"%s\":{\"dtype\":\"F32\",\"shape\":[3],"
                 "\"data_offsets\":[4,16]}}", name[0], name[1]);
        write_file(path, longest, data, 16);
        f = ctm_file_read(&r.keep, path);                                        // a name may be of any length
        CHECK(f && ctm_file_find(f, name[0]) && ctm_file_find(f, name[0])->ndim == 0 && ctm_file_find(f, name[1])->len == 3);
    }
    remove(path);
    room_close(&r);
}

// The numbers of a file's one tensor "x" of this type, with `n` bytes of data; they are kept in r->keep. NULL with ctm_error.
static double *numbers_of(room *r, const char *type, size_t len, const void *data, size_t n) {
    const char *path = scratch_path("numbers.safetensors");
    char header[200];
    ctm_file *f;
    double *v = NULL;
    snprintf(header, sizeof header, "{\"x\":{\"dtype\":\"%s\",\"shape\":[%lu],\"data_offsets\":[0,%lu]}}", type, (unsigned long)len, (unsigned long)n);
    write_file(path, header, data, n);
    f = ctm_file_read(&r->keep, path);
    if (f) {
        v = (double *)ctm_alloc(&r->keep, (len + 1) * sizeof *v);
        if (!ctm_file_get(f, ctm_file_find(f, "x"), v)) v = NULL;
    }
    remove(path);
    return v;
}

// Every one of the 65,536 numbers of both kinds with 16 bits is what its digits say.
static void test_every_half_and_bfloat_is_read(void) {
    enum { N = 65536 };
    unsigned char *data = (unsigned char *)malloc(2 * N);
    room r;
    double *half, *brain;
    int i;
    room_open(&r);
    for (i = 0; data && i < N; i++) { data[2 * i] = (unsigned char)i; data[2 * i + 1] = (unsigned char)(i >> 8); }
    half = numbers_of(&r, "F16", N, data, 2 * N);
    brain = numbers_of(&r, "BF16", N, data, 2 * N);
    CHECK(half && brain);
    for (i = 0; half && brain && i < N; i++) {
        int e = i >> 10 & 31, m = i & 1023;
        double sign = i >> 15 ? -1 : 1;
        if (e == 31) CHECK(!ctm_is_finite(half[i]));
        else CHECK(half[i] == sign * (e ? ldexp(1024 + m, e - 25) : ldexp(m, -24)));
        e = i >> 7 & 255;
        m = i & 127;
        if (e == 255) CHECK(!ctm_is_finite(brain[i]));
        else CHECK(brain[i] == sign * (e ? ldexp(128 + m, e - 134) : ldexp(m, -133)));
    }
    free(data);
    room_close(&r);
}

// Writing in half precision: every number that F16 has comes back as it was, others as the nearest, of two equally near ones the even
// one, and too large ones are refused with the file left as it is.
static void test_half_precision_is_the_nearest(void) {
    enum { N = 63488 };                                          // all below infinity, of both signs
    static const double between[][2] = {{1 + 1 / 2048.0, 1}, {1 + 3 / 2048.0, 1 + 1 / 512.0}, {1 + 1 / 2047.0, 1 + 1 / 1024.0}, {65519, 65504},
                                        {0.1, 1638 / 16384.0}, {-0.1, -1638 / 16384.0}, {2047.75, 2048}, {1e-9, 0}};
    const char *path = scratch_path("half.safetensors");
    ctm_real *x = (ctm_real *)malloc(N * sizeof *x), odd[8], huge[2];
    int shape[2] = {N / 2, 2}, i, K = (int)(sizeof between / sizeof *between);
    double *v;
    room r;
    ctm_writer w;
    ctm_file *f;
    room_open(&r);
    for (i = 0; x && i < N; i++) {
        int bits = i % (N / 2), e = bits >> 10, m = bits & 1023;
        x[i] = (ctm_real)((i < N / 2 ? 1 : -1) * (e ? ldexp(1024 + m, e - 25) : ldexp(m, -24)));
    }
    for (i = 0; i < K; i++) odd[i] = (ctm_real)between[i][0];
    ctm_writer_init(&w, &r.work);
    w.half = 1;
    ctm_writer_meta(&w, "k", "v");
    ctm_writer_add(&w, "x", x, 2, shape, 0);
    ctm_writer_add(&w, "odd", odd, 1, &K, 0);
    CHECK(x && ctm_writer_save(&w, path));
    f = ctm_file_read(&r.keep, path);
    CHECK(f && f->count == 2 && f->entry[0].dtype == CTM_F16 && f->entry[1].dtype == CTM_F16 && f->entry[1].len == N && ctm_file_meta(f, "k"));
    v = (double *)ctm_alloc(&r.keep, N * sizeof *v);
    CHECK(f && ctm_file_get(f, ctm_file_find(f, "x"), v));
    for (i = 0; x && i < N; i++) CHECK(v[i] == (double)x[i]);
    CHECK(f && ctm_file_get(f, ctm_file_find(f, "odd"), v));
    for (i = 0; i < K; i++) CHECK(v[i] == between[i][1]);
    huge[0] = (ctm_real)65520;                                   // the first that would become infinity
    huge[1] = (ctm_real)-1e30;
    for (i = 0; i < 2; i++) {
        int one = 1;
        ctm_writer_init(&w, &r.work);
        w.half = 1;
        ctm_writer_add(&w, "layer.weight", huge + i, 1, &one, 0);
        CHECK(ctm_writer_save(&w, path) == 0);
        check_error(&r.ctx, path, i ? "\"layer.weight\" has the number -1e+30, but F16 ends at 65504" : "has the number 65520");
        f = ctm_file_read(&r.keep, path);
        CHECK(f && ctm_file_find(f, "x"));
    }
    free(x);
    remove(path);
    room_close(&r);
}

// Which types can be read is asked only of the tensors that are wanted, and the line names tensor and type.
static void test_types_matter_when_a_tensor_is_wanted(void) {
    static const char *const other[] = {"BOOL", "U8", "I8", "F8_E4M3", "NEW3"};
    const char *path = scratch_path("types.safetensors");
    const unsigned char w[10] = {0, 0x3c, 0, 0xc0, 0x01, 0, 1, 0, 1, 1};         // 1, -2 and 2^-24 in F16; four of something else
    char header[400], says[100];
    ctm_noise z = ctm_noise_default();
    ctm_net *net, *greedy;
    room r;
    size_t k;
    room_open(&r);
    net = ctm_net_new(&r.keep, "hand", &z, 2, 0);
    ctm_param(&r.keep, net, "w", 3, 0);
    ctm_net_ready(&r.keep, net);
    greedy = ctm_net_new(&r.keep, "hand", &z, 2, 0);
    ctm_param(&r.keep, greedy, "x.weight", 4, 0);
    ctm_net_ready(&r.keep, greedy);
    for (k = 0; k < sizeof other / sizeof other[0]; k++) {
        ctm_file *f;
        double none[4];
        snprintf(header, sizeof header, "{\"a.w\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[0,6]},"
                 "\"x.weight\":{\"dtype\":\"%s\",\"shape\":[4],\"data_offsets\":[6,10]}}", other[k]);
        write_file(path, header, w, 10);
        f = ctm_file_read(&r.keep, path);
        CHECK(f && ctm_net_read(net, f, "a."));
        CHECK(net->theta[0] == 1 && net->theta[1] == -2 && net->theta[2] == (ctm_real)ldexp(1, -24));
        if (!f) continue;
        CHECK(ctm_net_read(greedy, f, "") == 0);
        write_file(path, strchr(header, 'x') - 1, w, 10);
        CHECK(ctm_file_get(f, ctm_file_find(f, "x.weight"), none) == 0);
        snprintf(says, sizeof says, "tensor \"x.weight\" has type %s; F32, F64, F16, BF16 and I64 can be read", other[k]);
        check_error(&r.ctx, path, says);
    }
    write_file(path, "{\"x.weight\":{\"dtype\":\"F16\",\"shape\":[1,1,1,1,5],\"data_offsets\":[0,10]}}", w, 10);
    {
        ctm_file *f = ctm_file_read(&r.keep, path);                              // five dimensions: likewise
        CHECK(f && f->entry[0].ndim == 5 && ctm_net_read(greedy, f, "") == 0);
        check_error(&r.ctx, path, "tensor \"x.weight\" is [1,1,1,1] and more, but this network needs [4]");
    }
    remove(path);
    room_close(&r);
}

// A number must be finite in the type that weights have: 1e300 is none for a float. A network is read whole or left as it was.
static void test_numbers_too_large_for_weights(void) {
    const char *path = scratch_path("large.safetensors");
    unsigned char data[24];
    const double v[3] = {3, -1e300, 5};
    ctm_noise z = ctm_noise_default();
    ctm_net *net;
    ctm_file *f;
    room r;
    int i, b, ok;
    room_open(&r);
    for (i = 0; i < 3; i++) {
        uint64_t bits;
        memcpy(&bits, &v[i], 8);
        for (b = 0; b < 8; b++) data[8 * i + b] = (unsigned char)(bits >> 8 * b);
    }
    write_file(path, "{\"w\":{\"dtype\":\"F64\",\"shape\":[3],\"data_offsets\":[0,24]}}", data, 24);
    net = ctm_net_new(&r.keep, "hand", &z, 2, 0);
    ctm_param(&r.keep, net, "w", 3, 0);
    ctm_net_ready(&r.keep, net);
    net->theta[0] = 7;
    f = ctm_file_read(&r.keep, path);
    ok = f && ctm_net_read(net, f, "");
    CHECK(ok == IN_DOUBLE);
    if (IN_DOUBLE) CHECK(net->theta[1] == (ctm_real)-1e300);
    else { CHECK(net->theta[0] == 7); check_error(&r.ctx, path, "tensor \"w\" holds a number that is not finite"); }
    remove(path);
    room_close(&r);
}

// A checkpoint's squares are not negative (nor -0), its counts are counts: refused, and the trainer stays as it was.
static void test_checkpoint_with_impossible_state(void) {
    static const char *const step[] = {"\"ctm.step\":\"-1\"", "\"ctm.step\":\"1x\"", "\"ctm.step\":\" 1\"", "\"ctm.step\":\"\"",
        "\"ctm.step\":\"99999999999999999999999\"", "\"ctm.step\":\"9223372036854775807\"", "\"ctm.step\":\"0x1\""};
    ctm_config c = small_config();
    const char *path = scratch_path("state.safetensors");
    run a, untouched;
    size_t n, i, k;
    unsigned char *bytes;
    run_open(&a, &c);
    run_open(&untouched, &c);
    CHECK(ctm_train_step(a.tr) && ctm_checkpoint_save(&a.r.work, a.tr, path, NULL) && ctm_checkpoint_load(&a.r.work, a.tr, path));
    for (k = 0; k < 2; k++) {
        ctm_real was = a.tr->opt.v[1];
        a.tr->opt.v[1] = (ctm_real)(k ? -0.0 : -0.25);
        CHECK(ctm_checkpoint_save(&a.r.work, a.tr, path, NULL));
        a.tr->opt.v[1] = was;
        CHECK(ctm_checkpoint_load(&untouched.r.work, untouched.tr, path) == 0);
        check_error(&untouched.r.ctx, path, k ? "tensor \"opt.v.map_t.weight\" holds -0, but means of squares are not negative"
                                              : "tensor \"opt.v.map_t.weight\" holds -0.25, but means of squares are not negative");
    }
    CHECK(ctm_checkpoint_save(&a.r.work, a.tr, path, NULL));
    bytes = read_bytes(path, &n);
    for (k = 0; bytes && k < sizeof step / sizeof step[0]; k++) {
        uint64_t header = 0, longer;
        unsigned char *edited = (unsigned char *)malloc(n + 64);
        size_t at, was = strlen("\"ctm.step\":\"1\""), now = strlen(step[k]);
        for (i = 8; i-- > 0; ) header = header << 8 | bytes[i];
        for (at = 8; at < n && memcmp(bytes + at, "\"ctm.step\":\"1\"", was) != 0; at++) { }
        memcpy(edited, bytes, at);
        memcpy(edited + at, step[k], now);
        memcpy(edited + at + now, bytes + at + was, n - at - was);
        longer = header + now - was;
        for (i = 0; i < 8; i++) edited[i] = (unsigned char)(longer >> 8 * i);
        write_bytes(path, edited, n + now - was);
        free(edited);
        CHECK(ctm_checkpoint_load(&untouched.r.work, untouched.tr, path) == 0);
        check_error(&untouched.r.ctx, path, "which is no count");
    }
    free(bytes);
    run_close(&a);
    run_open(&a, &c);
    CHECK(run_same(&a, &untouched));
    run_close(&a); run_close(&untouched);
    remove(path);
}

// ---- text -----------------------------------------------------------------------------------------------------------

// What text means: escapes are decoded, UTF-8 stays; what is no text, or cannot be one of C, is refused.
static void test_text_in_headers(void) {
    static const char *const good[][2] = {
        {"\\u00e9", "\xc3\xa9"}, {"\xc3\xa9", "\xc3\xa9"}, {"\\u20AC", "\xe2\x82\xac"}, {"\\ud83d\\ude00", "\xf0\x9f\x98\x80"},
        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"}, {"\\ud800\\udc00", "\xf0\x90\x80\x80"}, {"\\uDBFF\\uDFFF", "\xf4\x8f\xbf\xbf"},
        {"a\\nb\\tc\\r\\b\\f\\/\\\\\\\"", "a\nb\tc\r\b\f/\\\""}, {"\\u000a\\u007f\\u0080\\u07ff\\u0800\\uffff", "\n\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf"},
        {"", ""}};
    static const char *const bad[] = {
        "\\u0000", "\\ud83d", "\\ud83dx", "\\ud83d\\n", "\\ud83d\\u0041", "\\ude00\\ud83d", "\\ude00", "\\u12", "\\u12g4", "\\x41", "\\",
        "\n", "\x01", "\xe9", "\xc3", "\xc3(", "\x80", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xff"};
    const char *path = scratch_path("text.safetensors");
    char header[400];
    room r;
    size_t k;
    int name;
    room_open(&r);
    for (k = 0; k < sizeof good / sizeof good[0]; k++) {
        ctm_file *f;
        snprintf(header, sizeof header, "{\"__metadata__\":{\"k\":\"%s\",\"%s\":\"v\"},\"x%s\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}",
                 good[k][0], good[k][0], good[k][0]);
        write_file(path, header, NULL, 0);
        f = ctm_file_read(&r.keep, path);
        CHECK(f && strcmp(ctm_file_meta(f, "k"), good[k][1]) == 0);
        CHECK(f && ctm_file_meta(f, good[k][1]) && strcmp(f->entry[0].name + 1, good[k][1]) == 0);
    }
    for (k = 0; k < sizeof bad / sizeof bad[0]; k++)
        for (name = 0; name < 3; name++) {
            snprintf(header, sizeof header, name == 0 ? "{\"__metadata__\":{\"k\":\"%s\"}}" : name == 1 ? "{\"__metadata__\":{\"%s\":\"v\"}}" :
                     "{\"%s\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", bad[k]);
            write_file(path, header, NULL, 0);
            r.ctx.error[0] = 0;
            if (ctm_file_read(&r.keep, path)) { printf("     taken: %s\n", header); CHECK(0); }
            check_error(&r.ctx, path, name == 0 ? "\"k\" in __metadata__ is no string in UTF-8" : name == 1 ? "expected a name in UTF-8|in __metadata__ is no string" : "expected a name in UTF-8");
        }
    remove(path);
    room_close(&r);
}

// What is written comes back, whatever it is; what no reader would take is not written, and the old file stays.
static void test_text_round_trips_or_is_not_written(void) {
    char all[256 + 40], *at = all;
    const char *path = scratch_path("words.safetensors"), *const odd[] = {"\xe9", "caf\xc3", "\xed\xa0\x80"};
    const ctm_real x[2] = {1, 2};
    const int shape[1] = {2};
    room r;
    ctm_file *f;
    ctm_writer w;
    int k;
    room_open(&r);
    for (k = 1; k < 128; k++) *at++ = (char)k;
    snprintf(at, 60, "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 </script> &amp;");
    ctm_writer_init(&w, &r.work);
    ctm_writer_meta(&w, all, all);
    ctm_writer_meta(&w, "", "");
    ctm_writer_add(&w, all, x, 1, shape, 0);
    CHECK(ctm_writer_save(&w, path));
    f = ctm_file_read(&r.keep, path);
    CHECK(f && ctm_file_meta(f, all) && strcmp(ctm_file_meta(f, all), all) == 0 && ctm_file_find(f, all) && ctm_file_meta(f, "")[0] == 0);
    for (k = 0; k < 12; k++) {
        ctm_writer_init(&w, &r.work);
        ctm_writer_meta(&w, "k", "v");
        ctm_writer_add(&w, "x", x, 1, shape, 0);
        if (k < 3)       ctm_writer_meta(&w, odd[k], "v");
        else if (k < 6)  ctm_writer_meta(&w, "l", odd[k - 3]);
        else if (k < 9)  ctm_writer_add(&w, odd[k - 6], x, 1, shape, 0);
        else if (k == 9) ctm_writer_meta(&w, "k", "w");
        else             ctm_writer_add(&w, k == 10 ? "x" : "__metadata__", x, 1, shape, 0);
        CHECK(ctm_writer_save(&w, path) == 0);
        check_error(&r.ctx, path, k < 3 ? "not written: at byte" : k < 6 ? "not written: \"l\" in __metadata__ is no string in UTF-8" :
                    k < 9 ? "expected a name in UTF-8" : k == 9 ? "not written: it has \"k\" twice" : k == 10 ? "it has \"x\" twice" : "__metadata__ to be one object");
    }
    f = ctm_file_read(&r.keep, path);
    CHECK(f && ctm_file_find(f, all));
    remove(path);
    room_close(&r);
}

// Thousands of lines of metadata, as a table with thousands of columns has, and a text of a megabyte.
static void test_any_number_of_pairs(void) {
    enum { N = 20000, LONG = 1 << 20 };
    const char *path = scratch_path("pairs.safetensors");
    char key[40], *text = (char *)malloc(LONG + 1);
    room r;
    ctm_writer w;
    ctm_file *f;
    int i, wrong = 0;
    room_open(&r);
    if (!text) return;
    memset(text, 'a', LONG);
    text[LONG] = 0;
    ctm_writer_init(&w, &r.work);
    for (i = 0; i < N; i++) { snprintf(key, sizeof key, "data.mean.%d", i); ctm_writer_meta(&w, key, key + 5); }
    ctm_writer_meta(&w, "text", text);
    CHECK(ctm_writer_save(&w, path));
    CHECK(r.ctx.high < 40u << 20);
    f = ctm_file_read(&r.keep, path);
    CHECK(f && f->metas == N + 1 && strcmp(ctm_file_meta(f, "text"), text) == 0);
    for (i = 0; f && i < N; i++) {
        const char *v;
        snprintf(key, sizeof key, "data.mean.%d", i);
        v = ctm_file_meta(f, key);
        wrong += !v || strcmp(v, key + 5) != 0;
    }
    CHECK(wrong == 0);
    free(text);
    remove(path);
    room_close(&r);
}

// ---- sizes ----------------------------------------------------------------------------------------------------------

// Whatever a file of 1 MB claims, it costs a few MB: colons, quotes, tiny entries, the same bytes a thousand times, a network of terabytes.
static void test_memory_in_proportion_to_the_file(void) {
    enum { SIZE = 1 << 20 };
    static const char *const piece[] = {":", "\"", "\"\":\"\",", "\"a\":\"b\",", "\\\"", "[", "{\"\":", "1,",
        "\"\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,0]},", "\"x%d\":{\"dtype\":\"X\",\"shape\":[0],\"data_offsets\":[0,0]},"};
    static const char *const settings[] = {"\"ctm.hidden\":\"60000\"", "\"ctm.layers\":\"60\"", "\"ctm.embed\":\"60000\"", "\"ctm.classes\":\"1000000\"",
        "\"ctm.dim\":\"60000000\"", "\"ctm.layers\":\"1000000000\"", ("\"ctm.network\":\"unet\",\"ctm.size\":\"64\",\"ctm.channels\":\"3\",\"ctm.dim\":\"12288\","
        "\"ctm.model_channels\":\"4096\",\"ctm.channel_mult[0]\":\"64\",\"ctm.num_blocks\":\"12\""), "\"ctm.network\":\"unet\",\"ctm.channel_mult[0]\":\"1000000000\""};
    const char *path = scratch_path("size.safetensors");
    char *header = (char *)malloc(SIZE + 200);
    size_t k, n;
    ctm_config c = tiny_config();
    room r;
    if (!header) return;
    for (k = 0; k < 2 * sizeof piece / sizeof piece[0]; k++) {
        int i = 0;
        room_open(&r);
        n = (size_t)sprintf(header, k & 1 ? "{" : "{\"__metadata__\":{");
        while (n < SIZE) n += (size_t)snprintf(header + n, 100, piece[k / 2], i++);
        sprintf(header + n - 1, k & 1 ? "}" : "}}");                             // in place of the last comma
        write_file(path, header, NULL, 0);
        refused_model(&r, path, NULL);
        CHECK(r.ctx.high < 16u << 20);
        room_close(&r);
        CHECK(r.ctx.allocated == 0);
    }
    for (k = 0; k < sizeof settings / sizeof settings[0]; k++) {
        unsigned char *bytes;
        char *at, key[40];
        uint64_t h = 0;
        int i;
        room_open(&r);
        CHECK(ctm_save(&r.work, tiny_net(&r, &c), &c, path));
        bytes = read_bytes(path, &n);
        for (i = 8; i-- > 0; ) h = h << 8 | bytes[i];
        n = (size_t)sprintf(header, "{\"__metadata__\":{%s", settings[k]);       // its own settings without those
        for (at = strtok((char *)memcpy(header + SIZE / 2, bytes + 8 + 17, (size_t)h - 17), ","); at; at = strtok(NULL, ",")) {
            snprintf(key, sizeof key, "%.*s", (int)strcspn(at, ":"), at);
            if (!strstr(settings[k], key)) n += (size_t)sprintf(header + n, ",%s", at);
            if (strchr(at, '}')) break;
        }
        sprintf(header + n - strlen(strchr(header, '}')), "},\"x\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}");
        write_file(path, header, NULL, 0);
        refused_model(&r, path, NULL);
        CHECK(!strstr(ctm_error(&r.ctx), "damaged"));
        CHECK(r.ctx.high < 4u << 20);
        free(bytes);
        room_close(&r);
    }
    free(header);
    remove(path);
}

// More than 2 GiB: twenty tensors that are the same numbers here, each of them its own in the file.
static void test_more_than_two_gigabytes(void) {
    enum { N = 20, LEN = (1 << 27) / (int)sizeof(ctm_real) };
    const char *path = scratch_path("big.safetensors");
    const int shape[1] = {LEN};
    ctm_real *x;
    ctm_writer w;
    ctm_file *f;
    room r;
    int i;
    if (!getenv("CTM_TEST_LONG") || sizeof(size_t) < 8) SKIP("a file of 2.7 GB: only with CTM_TEST_LONG set");
    x = (ctm_real *)calloc(LEN, sizeof *x);
    room_open(&r);
    ctm_writer_init(&w, &r.work);
    if (x) x[LEN - 1] = 3;
    for (i = 0; x && i < N; i++) {
        char name[8];
        snprintf(name, sizeof name, "x%d", i);
        ctm_writer_add(&w, name, x, 1, shape, 0);
    }
    CHECK(ctm_writer_save(&w, path));
    CHECK(r.ctx.high < 1u << 20);                                                // numbers are written as they go
    free(x);
    f = ctm_file_read(&r.keep, path);
    if (!f) printf("     %s\n", ctm_error(&r.ctx));
    CHECK(f && f->count == N);
    for (i = 0; f && i < N; i++) {
        ctm_entry last = f->entry[i];
        double v = 0;
        last.offset = last.end - sizeof(ctm_real);
        last.len = 1;
        CHECK(ctm_file_get(f, &last, &v) && v == 3);
    }
    remove(path);
    room_close(&r);
}

// Memory ends at every allocation of ctm_load and of ctm_sample_points in turn: an error or a panic that jumps out, and all memory belongs
// to the caller's arena.
static void test_load_without_memory_leaves_nothing(void) {
    ctm_config c = tiny_config();
    const char *path = scratch_path("memory.safetensors");
    room r;
    ctm_net *net;
    static ctm_real x[4000];
    volatile int loaded = 0, sampled = 0, panics = 0, errors = 0;
    volatile long k;
    room_open(&r);
    c.hidden = 300;
    CHECK(ctm_save(&r.work, ctm_mlp(&r.keep, &c, 2, 1), &c, path));
    room_close(&r);
    for (k = 0; k < 50 && !loaded; k++) {
        room_open(&r);
        r.ctx.threads = 1;                                                       // nothing jumps out of a thread
        test_allocations = k;
        if (PANICS(loaded = ctm_load(&r.keep, path, NULL) != NULL)) panics++;
        else if (!loaded) { errors++; check_error(&r.ctx, path, "not enough memory"); }
        test_allocations = -1;
        room_close(&r);
        CHECK(r.ctx.allocated == 0);
    }
    CHECK(loaded && panics > 1 && errors > 0);
    for (panics = 0, k = 0; k < 50 && !sampled; k++) {
        room_open(&r);
        r.ctx.threads = 1;
        net = ctm_mlp(&r.keep, &c, 2, 1);
        test_allocations = k;
        if (PANICS(sampled = ctm_sample_points(net, x, 2000, 2, 0, NULL))) panics++;
        test_allocations = -1;
        room_close(&r);
        CHECK(r.ctx.allocated == 0);
    }
    CHECK(sampled && panics > 2);
    remove(path);
}

// ---- languages ------------------------------------------------------------------------------------------------------

// A language whose decimal point is this one: made on the spot (a comma; the Arabic one, of two bytes), or a comma that the system has.
#include <locale.h>
static int another_point(const char *point) {
    static const char *const name[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "German_Germany.1252"};
    size_t i;
    int ok = 0;
#if defined(__unix__) && !defined(__STRICT_ANSI__)
    char folder[200], line[1600];
    snprintf(folder, sizeof folder, "%.199s", scratch_path("languages"));
    snprintf(line, sizeof line, "mkdir -p %s && printf 'LC_NUMERIC\\ndecimal_point \"%.10s\"\\nthousands_sep \"\"\\ngrouping -1\\nEND LC_NUMERIC\\n' >%s/in && "
             "localedef -c -i %s/in -f %s %s/other >%s/out 2>&1; test -f %s/other/LC_NUMERIC",
             folder, point, folder, folder, *point == ',' ? "ANSI_X3.4-1968" : "UTF-8", folder, folder, folder);
    if (system(line) == 0 && setenv("LOCPATH", folder, 1) == 0) ok = setlocale(LC_NUMERIC, "other") != NULL;
    unsetenv("LOCPATH");
    snprintf(line, sizeof line, "rm -rf %s", folder);
    if (system(line) != 0) ok = 0;
#endif
    for (i = 0; i < sizeof name / sizeof name[0] && !ok && *point == ','; i++) ok = setlocale(LC_NUMERIC, name[i]) != NULL;
    return ok && localeconv()->decimal_point[0] != '.';      // musl takes the name and keeps its point
}
// Whatever the language, a file has the same bytes, numbers are read with a point, and what is printed has one.
static void test_a_file_means_the_same_in_every_language(void) {
    static const double number[] = {0.002, -1.5e-7, 1e300, 2.5e-308, 0.1, 3, -0.0, 123456.75};
    static const char *const point[] = {",", "<U066B>"}, *const none[] = {"0,5", "", "nan", "inf", "1e999", " 1", "1.5x", "1.5.5", "0x1p3", "1e", "--1"};
    ctm_config c = tiny_config(), back;
    const char *a = scratch_path("point.safetensors"), *b = scratch_path("other.safetensors");
    unsigned char *bytes_a, *bytes_b;
    size_t n_a, n_b, i, k;
    int languages = 0;
    room r;
    ctm_net *net;
    room_open(&r);
    c.noise.sigma_data = 0.1 + 0.2;
    net = tiny_net(&r, &c);
    CHECK(ctm_save(&r.work, net, &c, a));
    for (k = 0; k < 2; k++) {
        if (!another_point(point[k])) continue;
        languages++;
        CHECK(localeconv()->decimal_point[0] != '.');
        CHECK(ctm_save(&r.work, net, &c, b));
        CHECK(ctm_load(&r.keep, a, &back) && back.noise.sigma_data == c.noise.sigma_data && back.lr == c.lr);
        for (i = 0; i < sizeof number / sizeof number[0]; i++) {
            char text[40];
            double v = 1;
            ctm__real_text(text, sizeof text, 17, number[i]);
            CHECK(strspn(text, "0123456789.-+e") == strlen(text));
            CHECK(ctm__real_read(text, &v) && memcmp(&v, &number[i], sizeof v) == 0);
        }
        for (i = 0; i < sizeof none / sizeof none[0]; i++) {
            double v;
            CHECK(!ctm__real_read(none[i], &v));
        }
        setlocale(LC_ALL, "C");
        bytes_a = read_bytes(a, &n_a);
        bytes_b = read_bytes(b, &n_b);
        CHECK(bytes_a && bytes_b && n_a == n_b && memcmp(bytes_a, bytes_b, n_a) == 0);
        free(bytes_a);
        free(bytes_b);
    }
    remove(a);
    remove(b);
    room_close(&r);
    if (!languages) SKIP("no language with another decimal point on this machine, and no localedef to make one");
}

static void run_checkpoints(void) {
    RUN(full_resume_is_bit_for_bit); RUN(checkpoint_of_another_adversary); RUN(resumed_trainer_knows_the_last_steps_figures); RUN(labelled_model_round_trip);
    RUN(model_round_trip); RUN(model_layout_for_others); RUN(hand_made_file); RUN(resume_is_bit_for_bit); RUN(checkpoint_that_does_not_fit);
    RUN(resume_with_other_arithmetic_says_so);
    RUN(truncated_at_every_length); RUN(random_byte_flips); RUN(hostile_headers); RUN(wrong_in_one_thing); RUN(files_that_are_none);
    RUN(unwritable_paths); RUN(full_disk); RUN(devices_are_not_replaced);
    RUN(output_takes_its_name_when_complete); RUN(output_uses_leftovers); RUN(output_keeps_links_and_modes); RUN(hold);
    RUN(tensors_overlap_leave_holes_or_come_twice); RUN(every_half_and_bfloat_is_read); RUN(half_precision_is_the_nearest); RUN(types_matter_when_a_tensor_is_wanted);
    RUN(numbers_too_large_for_weights); RUN(checkpoint_with_impossible_state); RUN(text_in_headers); RUN(text_round_trips_or_is_not_written);
    RUN(any_number_of_pairs); RUN(memory_in_proportion_to_the_file); RUN(more_than_two_gigabytes); RUN(load_without_memory_leaves_nothing);
    RUN(a_file_means_the_same_in_every_language);
}
