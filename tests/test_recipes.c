// Chapters 14 and 15: settings, recipes, and functions of the user's own in them.
#include "golden.h"

// ---- settings --------------------------------------------------------------------------------------------------------

// The settings in which a departs from b, as "name=value name=value"; all of them if b is NULL.
static const char *departures(const ctm_config *a, const ctm_config *b) {
    static char line[3000];
    char x[40], y[40];
    size_t n = 0;
    int i;
    line[0] = 0;
    for (i = 0; i < CTM__SETTINGS; i++) {
        ctm__field_text(a, &ctm__settings[i].field, 10, x);
        if (b) ctm__field_text(b, &ctm__settings[i].field, 10, y);
        if (!b || strcmp(x, y) != 0) n += (size_t)snprintf(line + n, sizeof line - n, "%s%s=%s", n ? " " : "", ctm__settings[i].field.name, x);
    }
    return line;
}
static void check_departures(ctm_config a, ctm_config b, const char *want) {
    const char *got = departures(&a, &b);
    if (strcmp(got, want) != 0) { test_fail(__FILE__, __LINE__, "a recipe is not what it was:"); printf("     %s\n     expected %s\n", got, want); }
}

// Every recipe, number by number. Names and values are those that files of weights and checkpoints hold.
static void test_recipes_number_by_number(void) {
    static const char *const paper =
        "recipe=paper noise.sigma_min=0.002 noise.sigma_max=80 noise.sigma_data=0.5 noise.rho=7 noise.N=18 noise.inner=0 hidden=64 layers=4 "
        "embed=32 size=0 channels=0 patch=1 model_channels=32 channel_mult[0]=1 channel_mult[1]=2 channel_mult[2]=2 channel_mult[3]=0 "
        "channel_mult[4]=0 channel_mult[5]=0 channel_mult[6]=0 channel_mult[7]=0 num_blocks=1 attn[0]=16 attn[1]=0 attn[2]=0 attn[3]=0 "
        "dropout=0 classes=0 label_dropout=0 times=paper teach=solver substeps=1 target_ema=1 share_at_s=0 distance=0 huber_c=0.03 "
        "weight=uniform aim=data level=edm diagonal_batch=256 lambda_dsm=1 adaptive=1 gan=0 gan_period=2 gan_start=0 lambda_gan=1 "
        "gan_hidden=64 gan_layers=3 gan_lr=0.002 optimiser=1 lr=0.005 beta2=0.999 clip=0 warmup=0 final_lr=0 ema_rate[0]=0.999 "
        "ema_rate[1]=0 ema_rate[2]=0 ema_rate[3]=0 ema_warmup=1 batch=256 shards=2 steps=20000 seed=0";
    ctm_config p = ctm_recipe_paper(), student = ctm_recipe_authors();
    const char *got = departures(&p, NULL);
    if (strcmp(got, paper) != 0) { test_fail(__FILE__, __LINE__, "the paper's recipe is not what it was:"); printf("     %s\n", got); }
    check_departures(ctm_recipe_authors(), p, "recipe=authors times=authors target_ema=0 level=authors lr=0.0004 final_lr=1 ema_rate[1]=0.9999 ema_warmup=0");
    check_departures(ctm_recipe_points(), ctm_recipe_authors(),
                     "recipe=points times=points substeps=3 share_at_s=0.5 distance=2 aim=teacher diagonal_batch=128 lambda_dsm=0.5 adaptive=0 "
                     "optimiser=0 lr=0.007 beta2=0.99 clip=0.2 warmup=0.02 final_lr=0 ema_rate[1]=0 ema_warmup=1");
    check_departures(ctm_recipe_images(), ctm_recipe_points(),
                     "recipe=images times=images substeps=1 aim=data diagonal_batch=8 lambda_dsm=1 adaptive=1 gan_lr=0.0002 lr=0.002 clip=1 "
                     "batch=16 shards=4 steps=5000");
    check_departures(ctm_recipe_cd(), ctm_recipe_points(), "recipe=cd times=cm target_ema=1 share_at_s=0 aim=none level=none");
    check_departures(ctm_recipe_ct(), ctm_recipe_cd(), "recipe=ct teach=data");
    student.gan = CTM_GAN_LOG; student.batch = 50; student.clip = 3; student.noise.sigma_data = 2; student.seed = 9; student.classes = 4;
    check_departures(ctm_recipe_teacher(&student), student,
                     "recipe=teacher times=none level=edm diagonal_batch=100 adaptive=0 gan=0 optimiser=0 lr=0.002 clip=0.75");
}

static void test_recipes_by_name(void) {
    static const struct { const char *name; ctm_config (*recipe)(void); } known[6] = {
        {"paper", ctm_recipe_paper}, {"authors", ctm_recipe_authors}, {"points", ctm_recipe_points}, {"images", ctm_recipe_images},
        {"cd", ctm_recipe_cd}, {"ct", ctm_recipe_ct}};
    static const char *const unknown[5] = {"", "Paper", "papers", "teacher", "a name that is so long that it must not be printed whole"};
    ctm_ctx ctx;
    ctm_config cfg, before;
    int i;
    ctm_init(&ctx);
    for (i = 0; i < 6; i++) {
        ctm_config want = known[i].recipe();
        memset(&cfg, 0, sizeof cfg);
        CHECK(ctm_recipe_named(&ctx, known[i].name, &cfg) == 1);
        CHECK(departures(&cfg, &want)[0] == 0 && strcmp(cfg.recipe, known[i].name) == 0);
    }
    memcpy(&before, &cfg, sizeof cfg);
    for (i = 0; i < 5; i++) {
        CHECK(ctm_recipe_named(&ctx, unknown[i], &cfg) == 0);
        CHECK_TEXT(ctm_error(&ctx), "there is no recipe \"");
        CHECK_TEXT(ctm_error(&ctx), "; there are paper, authors, points, images, cd, ct");
        CHECK(strstr(ctm_error(&ctx), i < 4 ? unknown[i] : "a name that is so long that it must not \"") && !strchr(ctm_error(&ctx), '\n'));
        CHECK(memcmp(&cfg, &before, sizeof cfg) == 0);
    }
}

// Is refused with a line that names the setting and the text, and leaves cfg as it is.
static void refused_setting(ctm_ctx *ctx, ctm_config *cfg, const char *name, const char *text, const char *expected) {
    ctm_config before;
    char line[300];
    memcpy(&before, cfg, sizeof before);
    ctx->error[0] = 0;
    snprintf(line, sizeof line, "%s: \"%.40s\" was given, but %s", name, text, expected);
    if (ctm_config_set(ctx, cfg, name, text) || !strstr(ctm_error(ctx), line) || strchr(ctm_error(ctx), '\n') || memcmp(cfg, &before, sizeof before) != 0) {
        test_fail(__FILE__, __LINE__, "a setting should have been refused with the line:");
        printf("     %s\n     but was: %s\n", line, ctm_error(ctx));
        *cfg = before;
    }
}
static void taken_setting(ctm_ctx *ctx, ctm_config *cfg, const ctm__setting *s, const char *text) {
    ctm_config before = *cfg;
    char now[40];
    int i;
    if (!ctm_config_set(ctx, cfg, s->field.name, text)) { test_fail(__FILE__, __LINE__, "a setting was refused:"); printf("     %s\n", ctm_error(ctx)); return; }
    ctm__field_text(cfg, &s->field, 17, now);
    if (strcmp(now, text) != 0) { test_fail(__FILE__, __LINE__, "a setting has another value than was given:"); printf("     %s: %s, not %s\n", s->field.name, now, text); }
    for (i = 0; i < CTM__SETTINGS; i++) {
        char a[40], b[40];
        ctm__field_text(&before, &ctm__settings[i].field, 17, a);
        ctm__field_text(cfg, &ctm__settings[i].field, 17, b);
        CHECK(&ctm__settings[i] == s || strcmp(a, b) == 0);                      // and nothing else has changed
    }
}

// Every number that a setting may have is taken from text, both ends of its range too; beyond them and beside them all is refused.
static void test_every_setting_from_text(void) {
    static const char *const no_number[12] = {"", " ", "a", "1x", " 1", "1 ", "nan", "inf", "-inf", "1e999", "--1", "0x10"};
    static const char *const no_whole[4] = {"1.5", "1e1", "99999999999999999999", "+1"};
    ctm_ctx ctx;
    ctm_config cfg = ctm_recipe_paper();
    char text[40];
    int i, k;
    ctm_init(&ctx);
    for (i = 0; i < CTM__SETTINGS; i++) {
        const ctm__setting *s = &ctm__settings[i];
        const char *name = s->field.name;
        int real = s->field.type == 'd';
        if (s->field.type != 'd' && s->field.type != 'i' && s->field.type != 'l') continue;
        CHECK(s->least <= s->paper && s->paper <= s->most && s->least < s->most);
        for (k = 0; k < 3; k++) {
            ctm__real_text(text, sizeof text, 17, k == 0 ? s->least : k == 1 ? s->most : s->paper);
            if (!real) snprintf(text, sizeof text, "%.0f", k == 0 ? s->least : k == 1 ? s->most : s->paper);
            taken_setting(&ctx, &cfg, s, text);
        }
        for (k = 0; k < 2; k++) {
            double end = k ? s->most : s->least;
            ctm__real_text(text, sizeof text, 17, !real ? end + (k ? 1 : -1) : end == 0 ? -1e-300 : nextafter(end, k ? 1e300 : -1e300));
            if (!real) snprintf(text, sizeof text, "%.0f", end + (k ? 1 : -1));
            refused_setting(&ctx, &cfg, name, text, real ? "a number from" : "a whole number from");
        }
        for (k = 0; k < 12; k++) refused_setting(&ctx, &cfg, name, no_number[k], real ? "a number from" : "a whole number from");
        for (k = 0; k < 4; k++) if (!real) refused_setting(&ctx, &cfg, name, no_whole[k], "a whole number from");
    }
    taken_setting(&ctx, &cfg, ctm__setting_named("seed"), "18446744073709551615");
    taken_setting(&ctx, &cfg, ctm__setting_named("seed"), "0");
    refused_setting(&ctx, &cfg, "seed", "18446744073709551616", "a whole number from 0");
    refused_setting(&ctx, &cfg, "seed", "-1", "a whole number from 0");
    refused_setting(&ctx, &cfg, "seed", "", "a whole number from 0");
    taken_setting(&ctx, &cfg, ctm__setting_named("recipe"), "thirty-one letters are possible");
    taken_setting(&ctx, &cfg, ctm__setting_named("recipe"), "");
    refused_setting(&ctx, &cfg, "recipe", "thirty-two letters are too many.", "a name of at most 31 letters");
    refused_setting(&ctx, &cfg, "lr", "fast", "a number from 0 to 1e+30");
    refused_setting(&ctx, &cfg, "distance", "3", "a whole number from 0 to 2");
    CHECK(!ctm_config_set(&ctx, &cfg, "ema_rate", "0.9") && strcmp(ctm_error(&ctx), "there is no setting \"ema_rate\"") == 0);
    CHECK(!ctm_config_set(&ctx, &cfg, "ema_rate[4]", "0.9") && !ctm_config_set(&ctx, &cfg, "", "1") && !ctm_config_set(&ctx, &cfg, "lr ", "1"));
    CHECK(!ctm_config_set(&ctx, &cfg, "max_gap", "17"));                         // of version 0.2
}

// Functions by their names; each belongs to its own setting.
static void test_every_function_by_name(void) {
    static const struct { const char *setting, *name; ctm__function function; } all[21] = {
        {"times", "paper", (ctm__function)ctm_times_paper}, {"times", "local", (ctm__function)ctm_times_local}, {"times", "global", (ctm__function)ctm_times_global},
        {"times", "authors", (ctm__function)ctm_times_authors}, {"times", "points", (ctm__function)ctm_times_points},
        {"times", "images", (ctm__function)ctm_times_images}, {"times", "cm", (ctm__function)ctm_times_cm},
        {"teach", "solver", (ctm__function)ctm_teach_solver}, {"teach", "jump", (ctm__function)ctm_teach_jump},
        {"teach", "jumps", (ctm__function)ctm_teach_jumps}, {"teach", "data", (ctm__function)ctm_teach_data},
        {"aim", "data", (ctm__function)ctm_aim_data}, {"aim", "teacher", (ctm__function)ctm_aim_teacher},
        {"level", "edm", (ctm__function)ctm_level_edm}, {"level", "authors", (ctm__function)ctm_level_authors},
        {"level", "uniform", (ctm__function)ctm_level_uniform},
        {"weight", "uniform", (ctm__function)ctm_weight_uniform}, {"weight", "snr", (ctm__function)ctm_weight_snr},
        {"weight", "truncated_snr", (ctm__function)ctm_weight_truncated_snr}, {"weight", "karras", (ctm__function)ctm_weight_karras},
        {"weight", "uniform_g", (ctm__function)ctm_weight_uniform_g}};
    static const char *const setting[5] = {"times", "teach", "aim", "level", "weight"};
    ctm_ctx ctx;
    ctm_config cfg = ctm_recipe_paper();
    int i, k;
    ctm_init(&ctx);
    CHECK(CTM__FUNCTIONS == 21);
    for (i = 0; i < 21; i++) {
        const ctm__setting *s = ctm__setting_named(all[i].setting);
        ctm__function now;
        taken_setting(&ctx, &cfg, s, all[i].name);
        memcpy(&now, (const char *)&cfg + s->field.at, sizeof now);
        CHECK(now == all[i].function && strcmp(ctm__function_name(&cfg, &s->field), all[i].name) == 0);
        for (k = 0; k < 21; k++) {
            int named = 0, j;
            for (j = 0; j < 21; j++) named |= strcmp(all[j].setting, s->field.name) == 0 && strcmp(all[j].name, all[k].name) == 0;
            if (!named) refused_setting(&ctx, &cfg, s->field.name, all[k].name, "one of none, ");
        }
    }
    for (i = 0; i < 5; i++) {
        taken_setting(&ctx, &cfg, ctm__setting_named(setting[i]), "none");
        refused_setting(&ctx, &cfg, setting[i], "own", "one of none, ");         // nobody can find a function of the user's by this name
        refused_setting(&ctx, &cfg, setting[i], "", "one of none, ");
        refused_setting(&ctx, &cfg, setting[i], "0", "one of none, ");
    }
    refused_setting(&ctx, &cfg, "aim", "noise", "one of none, data, teacher was expected");
}

// The names that a struct in ctm.h declares, one for each number of an array, each behind `prefix`; checks that all are settings.
static int settings_of_struct(const char *source, const char *begin, const char *prefix) {
    const char *at = strstr(source, begin), *end = at ? strstr(at, "\n}") : NULL;
    int count = 0;
    char type[40], name[64], full[80];
    CHECK(end != NULL);
    if (!end) return 0;
    for (at = strchr(at + 1, '\n'); at && at < end; at = strchr(at + 1, '\n')) {
        const char *p = at + 1, *stop = strchr(p, '\n'), *comment = strstr(p, "//");
        if (comment && comment < stop) stop = comment;
        while (p < stop) {                                                       // "type name, name[3], ...;", several to a line
            int n = 0, numbers, k;
            while (p < stop && (*p == ' ' || *p == ';')) p++;
            if (p >= stop || sscanf(p, "%39[a-z_A-Z0-9]%n", type, &n) != 1) break;
            for (p += n; p < stop && *p != ';'; p++) {
                const char *letter = strcmp(type, "int") == 0 ? "i" : strcmp(type, "long") == 0 ? "l" : strcmp(type, "uint64_t") == 0 ? "u" :
                                     strcmp(type, "double") == 0 ? "d" : strcmp(type, "char") == 0 ? "s" : strstr(type, "_fn") ? "f" : "";
                numbers = 0;
                while (*p == ' ' || *p == ',') p++;
                if (sscanf(p, "%63[a-z_A-Z0-9]%n", name, &n) != 1) { test_fail(__FILE__, __LINE__, "a declaration that this test cannot read"); return count; }
                p += n;
                if (*p == '[') { numbers = atoi(p + 1); p = strchr(p, ']') + 1; }
                if (*letter == 's') numbers = 0;
                if (strcmp(type, "ctm_noise") == 0) { count += settings_of_struct(source, "typedef struct ctm_noise {", "noise."); if (*p == ';') break; continue; }
                for (k = 0; k < (numbers ? numbers : 1); k++, count++) {
                    const ctm__setting *s;
                    if (numbers) snprintf(full, sizeof full, "%s%s[%d]", prefix, name, k); else snprintf(full, sizeof full, "%s%s", prefix, name);
                    s = ctm__setting_named(full);
                    if (!s || s->field.type != *letter) { test_fail(__FILE__, __LINE__, "a field of ctm_config that is no setting, or one of another type:"); printf("     %s %s\n", type, full); }
                }
                if (*p == ';') break;
            }
            if (p < stop) p++;
        }
    }
    return count;
}

// The one table has every field of ctm_config once, and nothing else: as ctm.h declares them, and byte by byte.
static void test_every_field_is_a_setting(void) {
    static char covered[sizeof(ctm_config)];
    char path[300];
    const char *slash = strrchr(__FILE__, '/');
    char *source;
    size_t n, b, gaps = 0;
    int i;
    FILE *f;
    memset(covered, 0, sizeof covered);
    for (i = 0; i < CTM__SETTINGS; i++) {
        const ctm__field *field = &ctm__settings[i].field;
        size_t size = field->type == 'i' ? sizeof(int) : field->type == 'l' ? sizeof(long) : field->type == 'u' ? sizeof(uint64_t) :
                      field->type == 'd' ? sizeof(double) : field->type == 's' ? 32 : sizeof(ctm_times_fn);
        for (b = field->at; b < field->at + size; b++) { CHECK(!covered[b]); covered[b] = 1; }
    }
    for (b = 0; b < sizeof covered; b++) {
        gaps = covered[b] ? 0 : gaps + 1;
        CHECK(gaps < sizeof(double));                                            // what no setting covers is padding
    }
    snprintf(path, sizeof path, "%.*s../ctm.h", slash ? (int)(slash - __FILE__) + 1 : 0, __FILE__);
    f = fopen(path, "rb");
    if (!f) SKIP("ctm.h is not beside the tests");
    source = (char *)calloc(1, 1 << 20);
    n = source ? fread(source, 1, (1 << 20) - 1, f) : 0;
    fclose(f);
    CHECK(n > 100000 && n < (1 << 20) - 1);
    if (source) CHECK(settings_of_struct(source, "\nstruct ctm_config {", "") == CTM__SETTINGS);
    free(source);
}

// ---- functions of the user's own -------------------------------------------------------------------------------------

// The library's functions under other names: a recipe of one's own that must give the same bits.
static void own_times(const ctm_config *c, uint64_t step, uint64_t index, double i[3]) { ctm_times_authors(c, step, index, i); }
static ctm_tensor *own_teach(ctm_tape *tp, const ctm_trainer *tr, const ctm_batch *b) { return ctm_teach_solver(tp, tr, b); }
static ctm_tensor *own_aim(ctm_tape *tp, const ctm_trainer *tr, ctm_tensor *x0, ctm_tensor *x_t, ctm_tensor *t) { return ctm_aim_teacher(tp, tr, x0, x_t, t); }
static double own_level(const ctm_config *c, uint64_t step, uint64_t index) { return ctm_level_authors(c, step, index); }
static double own_weight(const ctm_noise *z, double t, double s) { return ctm_weight_karras(z, t, s); }

static ctm_config library_config(void) {
    ctm_config c = small_authors();
    c.aim = ctm_aim_teacher; c.weight = ctm_weight_karras;
    return c;
}
static ctm_config own_config(void) {
    ctm_config c = library_config();
    snprintf(c.recipe, sizeof c.recipe, "mine");
    c.times = own_times; c.teach = own_teach; c.aim = own_aim; c.level = own_level; c.weight = own_weight;
    return c;
}
static void test_own_recipe_trains_as_the_librarys(void) {
    ctm_config c = library_config(), d = own_config();
    run a, b;
    int step;
    run_open(&a, &c);
    run_open(&b, &d);
    for (step = 0; step < 3; step++) CHECK(ctm_train_step(a.tr) && ctm_train_step(b.tr));
    CHECK(run_same(&a, &b) && a.tr->L_ctm == b.tr->L_ctm && a.tr->L_dsm == b.tr->L_dsm && a.tr->L_ctm > 0 && a.tr->L_dsm > 0);
    CHECK(strcmp(departures(&d, &c), "recipe=mine times=own teach=own weight=own aim=own level=own") == 0);
    run_close(&a);
    run_close(&b);
}

// Nothing but the functions decides: others than any of the library's, against the step by hand, and against what they must find.
static double steep_weight(const ctm_noise *z, double t, double s) { (void)z; return 0.5 + s / t; }
static double low_level(const ctm_config *c, uint64_t step, uint64_t index) { return 0.3 * c->noise.sigma_data * (1 + (double)((step + index) % 3)); }
static int teach_calls, teach_rows;
static ctm_tensor *watching_teach(ctm_tape *tp, const ctm_trainer *tr, const ctm_batch *b) {
    int B = b->x_t->shape[0], i, d;
    teach_calls++;
    teach_rows += B;
    CHECK(!tp->recording && tp->rows.dropout == NULL && tp->rows.step == (uint64_t)tr->step);
    for (i = 0; i < B; i++) {
        double q[3];
        uint64_t row = tp->rows.first + (uint64_t)i;
        ctm_real x0[2];
        tr->cfg.times(&tr->cfg, (uint64_t)tr->step, row, q);
        CHECK(b->i_t[i] == q[0] && b->i_u[i] == q[1]);
        CHECK_CLOSE(b->t->data[i], ctm_t_of_index(&tr->cfg.noise, q[0]), 1e-5);
        CHECK_CLOSE(b->u->data[i], ctm_t_of_index(&tr->cfg.noise, q[1]), 1e-5);
        CHECK_CLOSE(b->s->data[i], ctm_t_of_index(&tr->cfg.noise, q[2]), 1e-5);
        CHECK_CLOSE(b->w->data[i], tr->cfg.weight(&tr->cfg.noise, (double)b->t->data[i], (double)b->s->data[i]), 1e-5);
        pair_draw(NULL, &tr->rng_data, (uint64_t)tr->step, row, x0);
        for (d = 0; d < 2; d++) {
            CHECK(b->x0->data[2 * i + d] == x0[d]);
            CHECK_CLOSE(b->x_t->data[2 * i + d], (double)x0[d] + (double)b->t->data[i] * ctm_normal(&tr->rng_noise, (uint64_t)tr->step, 2 * row + (uint64_t)d), 2e-4);
        }
    }
    return ctm_teach_solver(tp, tr, b);
}
static ctm_tensor *doubled_aim(ctm_tape *tp, const ctm_trainer *tr, ctm_tensor *x0, ctm_tensor *x_t, ctm_tensor *t) {
    (void)tr; (void)x_t; (void)t;
    return ctm_scale(tp, x0, 2);
}
static void test_own_functions_decide(void) {
    ctm_config c = small_authors();
    run n;
    double L = 0;
    int i, d;
    snprintf(c.recipe, sizeof c.recipe, "mine");
    c.times = times_between; c.weight = steep_weight; c.level = low_level; c.substeps = 2;
    check_step_by_hand(&c, 2);
    c.teach = watching_teach;
    check_step_by_hand(&c, 2);                                                   // it walks as the library's does
    c.aim = doubled_aim;
    run_open(&n, &c);
    n.r.ctx.threads = 1;
    teach_calls = teach_rows = 0;
    CHECK(ctm_train_step(n.tr));
    CHECK(teach_calls == c.shards && teach_rows == c.batch);
    run_close(&n);
    run_open(&n, &c);
    for (i = 0; i < c.diagonal_batch; i++) {                                     // L_DSM row by row, with 2·x_0 in x_0's place
        double sigma = low_level(&c, 0, (uint64_t)i), off = 0;
        ctm_tensor *x, *g, *t = levels(&n.r.tape, "t", 1, sigma);
        ctm_real x0[2];
        pair_draw(NULL, &n.tr->rng_dsm_data, 0, (uint64_t)i, x0);
        x = ctm_matrix(&n.r.tape, "x", 1, 2);
        for (d = 0; d < 2; d++) x->data[d] = x0[d] + (ctm_real)(sigma * ctm_normal(&n.tr->rng_dsm_noise, 0, (uint64_t)(2 * i + d)));
        g = ctm_D_theta(&n.r.tape, n.net, x, t);
        for (d = 0; d < 2; d++) off += pow((double)g->data[d] - 2 * (double)x0[d], 2) / 2;
        L += off * (sigma * sigma + 0.25) / (sigma * sigma * 0.25) / c.diagonal_batch;
    }
    CHECK(ctm_train_step(n.tr));
    CHECK_CLOSE(n.tr->L_dsm, L, rounding(2e-5, 1e-11) * L);
    run_close(&n);
}

// What a user's function may do wrong. The row is the 37th of 48, in the last of four shards.
enum { BAD_ROW = 37, BAD_DIAGONAL_ROW = 20 };
static double bad_times[3], bad_number;
static int bad_shape;
static void times_with_a_bad_row(const ctm_config *c, uint64_t step, uint64_t index, double i[3]) {
    ctm_times_paper(c, step, index, i);
    if (index == BAD_ROW) memcpy(i, bad_times, sizeof bad_times);
}
static double weight_for_row_37(const ctm_noise *z, double t, double s) { (void)z; (void)s; return t > 79 && t < 81 ? bad_number : 1; }
static void times_low_but_in_one_row(const ctm_config *c, uint64_t step, uint64_t index, double i[3]) {
    (void)c; (void)step;
    i[0] = index == BAD_ROW ? 0 : 5; i[1] = 8; i[2] = 9;
}
static double level_with_a_bad_row(const ctm_config *c, uint64_t step, uint64_t index) { return index == BAD_DIAGONAL_ROW ? bad_number : ctm_level_edm(c, step, index); }
static ctm_tensor *bad_tensor(ctm_tape *tp, const ctm_tensor *like, int row) {
    ctm_tensor *x;
    int B = like->shape[0], at = row - (int)tp->rows.first;
    if (bad_shape == 1) return NULL;
    if (bad_shape == 2) return ctm_matrix(tp, "wide", B, 3);
    if (bad_shape == 3) return ctm_vector(tp, "flat", 2 * B);
    x = ctm_matrix(tp, "bad", B, 2);
    if (at >= 0 && at < B) x->data[2 * at + 1] = (ctm_real)bad_number;
    return x;
}
static ctm_tensor *bad_teach(ctm_tape *tp, const ctm_trainer *tr, const ctm_batch *b) { (void)tr; return bad_tensor(tp, b->x_t, BAD_ROW); }
static ctm_tensor *bad_aim(ctm_tape *tp, const ctm_trainer *tr, ctm_tensor *x0, ctm_tensor *x_t, ctm_tensor *t) {
    (void)tr; (void)x_t; (void)t;
    return bad_tensor(tp, x0, BAD_DIAGONAL_ROW);
}
static void check_stops(const ctm_config *c, const char *what) {
    run n, fresh;
    run_open(&n, c);
    run_open(&fresh, c);
    n.r.ctx.threads = 1;
    if (!PANICS(ctm_train_step(n.tr))) test_fail(__FILE__, __LINE__, "a step went on with a function that gives nonsense");
    else if (!strstr(test_panic, what)) { test_fail(__FILE__, __LINE__, "a panic should say:"); printf("     %s\n     but said: %s\n", what, test_panic); }
    CHECK(run_same(&n, &fresh));                                                 // and nothing has moved
    run_close(&n);
    run_close(&fresh);
}
static void test_own_functions_that_give_nonsense(void) {
    static const double times[7][3] = {{5, 5, 9}, {6, 5, 9}, {5, 9, 8}, {-0.5, 5, 9}, {5, 9, 17.5}, {17, 18, 18}, {1e300, 1e301, 1e302}};
    static const double numbers[3] = {0, -1, -1e-30};
    ctm_config mine = small_of(ctm_recipe_paper()), c;
    double none = nan(""), endless = 2e300 * 1e300;
    char line[200];
    int k, d;
    snprintf(mine.recipe, sizeof mine.recipe, "mine");
    c = mine; c.times = times_with_a_bad_row;
    for (k = 0; k < 7; k++) {
        memcpy(bad_times, times[k], sizeof bad_times);
        snprintf(line, sizeof line, "cfg.times of the recipe \"mine\": row 37 has the grid indices t %g, u %g, s %g, but needs 0 <= t < u <= s <= 17",
                 times[k][0], times[k][1], times[k][2]);
        check_stops(&c, line);
    }
    for (k = 0; k < 3; k++) for (d = 0; d < 2; d++) {
        memcpy(bad_times, times[0], sizeof bad_times);
        bad_times[1] = 7;
        bad_times[k] = d ? endless : none;
        check_stops(&c, "cfg.times of the recipe \"mine\": row 37 has the grid indices t ");
    }
    c.noise.N = 5;                                                               // a grid of one's own has an end of its own
    bad_times[0] = 1; bad_times[1] = 2; bad_times[2] = 4.25;
    check_stops(&c, "u 2, s 4.25, but needs 0 <= t < u <= s <= 4");

    c = mine; c.times = times_low_but_in_one_row; c.weight = weight_for_row_37;
    for (k = 1; k < 5; k++) {
        bad_number = k < 3 ? numbers[k] : k == 3 ? none : endless;
        check_stops(&c, "cfg.weight of the recipe \"mine\": row 37 has the weight ");
    }
    c = mine; c.level = level_with_a_bad_row;
    for (k = 0; k < 4; k++) {
        bad_number = k < 2 ? numbers[k] : k == 2 ? none : endless;
        check_stops(&c, "cfg.level of the recipe \"mine\": row 20 has the noise level ");
    }
    for (d = 0; d < 2; d++) {
        const char *name = d ? "aim" : "teach";
        c = mine;
        if (d) c.aim = bad_aim; else c.teach = bad_teach;
        for (bad_shape = 1; bad_shape < 4; bad_shape++) {
            snprintf(line, sizeof line, "cfg.%s of the recipe \"mine\" returned %s", name,
                     bad_shape == 1 ? "NULL" : bad_shape == 2 ? (d ? "a tensor of the shape [6,3], but must return [6,2]" : "a tensor of the shape [12,3], but must return [12,2]")
                                                              : (d ? "a tensor of the shape [12], but must return [6,2]" : "a tensor of the shape [24], but must return [12,2]"));
            check_stops(&c, line);
        }
        bad_shape = 0;
        for (k = 0; k < 2; k++) {
            bad_number = k ? endless : none;
            snprintf(line, sizeof line, "cfg.%s of the recipe \"mine\": row %d holds a number that is not finite", name, d ? BAD_DIAGONAL_ROW : BAD_ROW);
            check_stops(&c, line);
        }
        bad_number = 0.25;                                                       // the same function with a number trains
        {
            run n;
            run_open(&n, &c);
            CHECK(ctm_train_step(n.tr) == 1);
            run_close(&n);
        }
    }
}

// ---- recipes in files --------------------------------------------------------------------------------------------------

// A run of one's own functions is kept as "own", goes on bit for bit with them, and not at all with others, or under another name.
// Numbers may differ: that is how a run is given other settings on its way.
static void test_a_run_is_resumed_with_its_own_recipe(void) {
    static const char *const setting[5] = {"times", "teach", "weight", "aim", "level"};
    ctm_config mine = own_config(), library = library_config(), c, back;
    const char *path = scratch_path("recipe.safetensors"), *weights = scratch_path("own.safetensors");
    char line[200];
    run whole, half, rest;
    int step, i;
    ctm_file *f;
    run_open(&whole, &mine);
    run_open(&half, &mine);
    for (step = 0; step < 4; step++) CHECK(ctm_train_step(whole.tr));
    for (step = 0; step < 2; step++) CHECK(ctm_train_step(half.tr));
    CHECK(ctm_checkpoint_save(&half.r.work, half.tr, path, NULL));
    f = ctm_file_read(&half.r.work, path);
    CHECK(f && strcmp(ctm_file_meta(f, "ctm.recipe"), "mine") == 0);
    for (i = 0; i < 5; i++) {
        snprintf(line, sizeof line, "ctm.%s", setting[i]);
        CHECK(f && strcmp(ctm_file_meta(f, line), "own") == 0);
    }
    CHECK(f && ctm_config_read(f, &back) && strcmp(departures(&back, &mine), "times=none teach=none weight=none aim=none level=none") == 0);
    run_open(&rest, &mine);
    CHECK(ctm_checkpoint_load(&rest.r.work, rest.tr, path) && rest.tr->step == 2 && rest.tr->cfg.times == own_times);
    for (step = 2; step < 4; step++) CHECK(ctm_train_step(rest.tr));
    CHECK(run_same(&whole, &rest));
    run_close(&rest);
    for (i = 0; i < 6; i++) {
        run untouched;
        c = mine;
        if (i == 0) c.times = library.times;
        if (i == 1) c.teach = library.teach;
        if (i == 2) c.weight = library.weight;
        if (i == 3) c.aim = library.aim;
        if (i == 4) c.level = library.level;
        if (i == 5) snprintf(c.recipe, sizeof c.recipe, "yours");
        run_open(&rest, &c);
        run_open(&untouched, &c);
        CHECK(ctm_checkpoint_load(&rest.r.work, rest.tr, path) == 0);
        if (i == 5) snprintf(line, sizeof line, "its recipe is \"mine\", but that of this run is \"yours\"");
        else snprintf(line, sizeof line, "its %s is \"own\", but that of this run is \"%s\"", setting[i], ctm__function_name(&c, &ctm__setting_named(setting[i])->field));
        check_error(&rest.r.ctx, path, line);
        CHECK(run_same(&rest, &untouched) && rest.tr->step == 0);
        run_close(&rest);
        run_close(&untouched);
    }
    c = mine; c.lr = 2e-4; c.steps = 99; c.lambda_dsm = 0.25; c.substeps = 2; c.share_at_s = 1;
    run_open(&rest, &c);
    CHECK(ctm_checkpoint_load(&rest.r.work, rest.tr, path) == 1 && rest.tr->cfg.lr == 2e-4 && rest.tr->step == 2);
    CHECK(ctm_train_step(rest.tr) == 1);
    run_close(&rest);

    CHECK(ctm_save(&half.r.work, half.tr->ema[0], &mine, weights));              // weights: the functions can be filled in again
    CHECK(ctm_load(&half.r.keep, weights, &back) != NULL);
    CHECK(strcmp(back.recipe, "mine") == 0 && !back.times && !back.teach && !back.aim && !back.level && !back.weight && back.lr == mine.lr);
    run_close(&whole);
    run_close(&half);
    remove(path);
    remove(weights);
}

// A recipe of the library comes back from a file with its functions; one that this program has no function for, without it.
static void test_recipes_in_files_of_weights(void) {
    static const char *const name[6] = {"paper", "authors", "points", "images", "cd", "ct"};
    const char *path = scratch_path("named.safetensors");
    room r;
    int i;
    size_t n, at;
    unsigned char *bytes;
    for (i = 0; i < 6; i++) {
        ctm_config c, back;
        ctm_net *net;
        room_open(&r);
        CHECK(ctm_recipe_named(&r.ctx, name[i], &c));
        c.hidden = 4; c.layers = 2; c.embed = 3;
        net = ctm_mlp(&r.keep, &c, 2, 1);
        CHECK(ctm_save(&r.work, net, &c, path) && ctm_load(&r.keep, path, &back) != NULL);
        CHECK(departures(&back, &c)[0] == 0);
        if (i == 0) {
            bytes = read_bytes(path, &n);
            for (at = 0; bytes && at + 20 < n && memcmp(bytes + at, "\"ctm.times\":\"paper\"", 19) != 0; at++) {}
            CHECK(bytes && at + 20 < n);
            if (bytes && at + 20 < n) { memcpy(bytes + at + 13, "later", 5); write_bytes(path, bytes, n); }
            free(bytes);
            CHECK(ctm_load(&r.keep, path, &back) != NULL && back.times == NULL && back.teach == ctm_teach_solver);
        }
        room_close(&r);
    }
    remove(path);
}

// Files that version 0.2.0 wrote (tests/golden/make_v02.sh): weights load, and sample what they did; a run cannot go on, as its recipe
// had no name; a network of a form that is gone is refused.
static void test_files_of_version_0_2(void) {
    const char *path = scratch_path("form.safetensors");
    room r;
    run n, untouched;
    ctm_config c;
    ctm_net *net;
    ctm_file *f;
    ctm_real x[4];
    double in[4], out[4];
    unsigned char *bytes;
    size_t len, at;
    int i;
    room_open(&r);
    net = ctm_load(&r.keep, CTM_TEST_DATA "/version_0_2.safetensors", &c);
    f = ctm_file_read(&r.keep, CTM_TEST_DATA "/version_0_2.safetensors");
    CHECK(net && f && strcmp(ctm_file_meta(f, "ctm.version"), "0.2.0") == 0);
    if (!net || !f) { printf("     %s\n", ctm_error(&r.ctx)); room_close(&r); return; }
    CHECK(strcmp(c.recipe, "of version 0.2") == 0 && !c.times && !c.teach && !c.aim && !c.level && !c.weight);
    CHECK(c.hidden == 4 && c.layers == 2 && c.embed == 4 && c.batch == 4 && c.seed == 7 && c.lr == 7e-3 && c.noise.N == 18 && c.clip == 0.2);
    CHECK(sscanf(ctm_file_meta(f, "in"), "%lf %lf %lf %lf", in, in + 1, in + 2, in + 3) == 4);
    CHECK(sscanf(ctm_file_meta(f, "out"), "%lf %lf %lf %lf", out, out + 1, out + 2, out + 3) == 4);
    for (i = 0; i < 4; i++) x[i] = (ctm_real)in[i];
    CHECK(ctm_sample_points(net, x, 2, 2, 0, NULL));
    for (i = 0; i < 4; i++) CHECK_CLOSE(x[i], out[i], 2e-6);
    CHECK(ctm_save(&r.work, net, &c, path) && ctm_load(&r.keep, path, &c) != NULL && strcmp(c.recipe, "of version 0.2") == 0);   // rewritten by this one

    bytes = read_bytes(CTM_TEST_DATA "/version_0_2.safetensors", &len);
    for (at = 0; bytes && at + 30 < len && memcmp(bytes + at, "\"ctm.noise.outer\":\"0\"", 21) != 0; at++) {}
    CHECK(bytes && at + 30 < len);
    if (bytes && at + 30 < len) {
        for (i = 1; i < 3; i++) {
            bytes[at + 19] = (unsigned char)('0' + i);
            write_bytes(path, bytes, len);
            refused_model(&r, path, "its G has another form than (s/t)·x + (1 - s/t)·g");
        }
    }
    free(bytes);
    room_close(&r);

    c = ctm_recipe_points();
    c.hidden = 4; c.layers = 2; c.embed = 4; c.batch = 4; c.diagonal_batch = 2; c.shards = 1; c.steps = 10; c.seed = 7;
    run_open(&n, &c);
    run_open(&untouched, &c);
    CHECK(ctm_checkpoint_load(&n.r.work, n.tr, CTM_TEST_DATA "/version_0_2_checkpoint.safetensors") == 0);
    check_error(&n.r.ctx, "version_0_2_checkpoint.safetensors", "has no \"ctm.recipe\", as recipes had no names before version 0.3: such a run cannot be resumed");
    CHECK(run_same(&n, &untouched));
    run_close(&n);
    run_close(&untouched);
    remove(path);
}

static void run_recipes(void) {
    RUN(recipes_number_by_number); RUN(recipes_by_name); RUN(every_setting_from_text); RUN(every_function_by_name); RUN(every_field_is_a_setting);
    RUN(own_recipe_trains_as_the_librarys); RUN(own_functions_decide); RUN(own_functions_that_give_nonsense);
    RUN(a_run_is_resumed_with_its_own_recipe); RUN(recipes_in_files_of_weights); RUN(files_of_version_0_2);
}
