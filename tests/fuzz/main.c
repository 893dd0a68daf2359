// Gives every file of the folders and files on the command line to a target, without libFuzzer.
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max) { (void)data; (void)max; return size; }

static void one(const char *path) {
    static uint8_t bytes[1 << 20];
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
    uint8_t *exact = (uint8_t *)malloc(n + !n);            // no byte more: a sanitizer sees a step beyond it
    if (!f || !exact) { fprintf(stderr, "%s: cannot be read\n", path); exit(1); }
    fclose(f);
    memcpy(exact, bytes, n);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
}

int main(int argc, char **argv) {
    int i;
    for (i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        struct dirent *e;
        char path[2048];
        if (!d) { one(argv[i]); continue; }
        while ((e = readdir(d)))
            if (e->d_name[0] != '.') { snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name); one(path); }
        closedir(d);
    }
    return 0;
}
