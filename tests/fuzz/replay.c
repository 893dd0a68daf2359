// build/test_fuzz: gives every seed, and everything that fuzzing has found so far (found/TARGET/), to its target once. No libFuzzer, no
// sanitizer, any compiler; part of `make test`, run from the project's folder.
#include <dirent.h>
#include <signal.h>
#define SEEDS_NO_MAIN
#include "seeds.c"

#define LLVMFuzzerTestOneInput  replay_weights
#define LLVMFuzzerCustomMutator replay_mutate_weights
#include "weights.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput  replay_checkpoint
#include "checkpoint.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput  replay_lpips
#include "lpips.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput  replay_csv
#include "csv.c"
#undef LLVMFuzzerTestOneInput
#undef LLVMFuzzerCustomMutator
#define LLVMFuzzerTestOneInput  replay_npy
#define LLVMFuzzerCustomMutator replay_mutate_npy
#include "npy.c"
#undef LLVMFuzzerTestOneInput
#undef LLVMFuzzerCustomMutator
#define LLVMFuzzerTestOneInput  replay_idx
#define LLVMFuzzerCustomMutator replay_mutate_idx
#include "idx.c"
#undef LLVMFuzzerTestOneInput
#undef LLVMFuzzerCustomMutator
#define LLVMFuzzerTestOneInput  replay_cifar
#define LLVMFuzzerCustomMutator replay_mutate_cifar
#include "cifar.c"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max) { (void)data; (void)max; return size; }

static char replay_now[2048] = "the seeds";
static int  replay_passed;

static void replay_crash(int number) {
    printf("FAIL %s  signal %d\nfuzz: %d passed, 1 failed, 0 skipped\n", replay_now, number, replay_passed);
    fflush(stdout);
    _Exit(1);
}

static void replay_folder(const char *parent, const char *target, int (*one)(const uint8_t *, size_t)) {
    char path[1024];
    DIR *d;
    struct dirent *e;
    snprintf(path, sizeof path, "%s/%s", parent, target);
    d = opendir(path);
    while (d && (e = readdir(d))) {
        size_t n = 0;
        char err[300];
        unsigned char *bytes;
        uint8_t *exact;
        if (e->d_name[0] == '.') continue;
        snprintf(replay_now, sizeof replay_now, "%s/%s", path, e->d_name);
        bytes = table_read_file(replay_now, &n, err, sizeof err);
        exact = (uint8_t *)malloc(n + !n);
        if (!bytes || !exact) replay_crash(0);
        memcpy(exact, bytes, n);                           // no byte more, for a sanitizer's sake
        free(bytes);
        one(exact, n);
        free(exact);
        replay_passed++;
    }
    if (d) closedir(d);
}

int main(void) {
    static const struct { const char *name; int (*one)(const uint8_t *, size_t); } target[] = {{"weights", replay_weights},
        {"checkpoint", replay_checkpoint}, {"lpips", replay_lpips}, {"csv", replay_csv}, {"npy", replay_npy}, {"idx", replay_idx}, {"cifar", replay_cifar}};
    size_t i;
    signal(SIGABRT, replay_crash);
    signal(SIGSEGV, replay_crash);
    if (seeds_make("build/seeds") != 0) replay_crash(0);
    for (i = 0; i < sizeof target / sizeof target[0]; i++) {
        replay_folder("build/seeds", target[i].name, target[i].one);
        replay_folder("tests/fuzz/found", target[i].name, target[i].one);
    }
    for (i = 0; i < FUZZ_FILES; i++) remove(fuzz_file((int)i, (const uint8_t *)"", 0));
    printf("fuzz: %d passed, 0 failed, 0 skipped\n", replay_passed);
    return 0;
}
