// What the fuzz targets share. A target is a file of this folder with LLVMFuzzerTestOneInput: it gives some bytes, as a file, to a
// reader and does what a program would do with what comes back. The rules: no crash, no error of a sanitizer, no panic; a failure
// has one line that names the file; memory stays in proportion to the file.
//
// libFuzzer calls a target some ten thousand times a second, so its files are in memory: run.sh compiles everything with
// -DFUZZ_MEMORY -Dfopen=fuzz_fopen. Without that (replay.c, any compiler) they are files on disk.
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// A broken promise of the header or of a program: reported like a crash.
#define FUZZ_EXPECT(ok) do { if (!(ok)) { fprintf(stderr, "%s:%d: expected %s\n", __FILE__, __LINE__, #ok); abort(); } } while (0)

enum { FUZZ_FILES = 3 };
static const uint8_t *fuzz_bytes[FUZZ_FILES];
static size_t fuzz_size[FUZZ_FILES];

static inline int fuzz_number(const char *path) {          // of a file made by fuzz_file; -1: of none
    size_t n = strlen(path);
    return n == 12 && memcmp(path + n - 5, ".fuzz", 5) == 0 && path[n - 6] >= '0' && path[n - 6] < '0' + FUZZ_FILES ? path[n - 6] - '0' : -1;
}

#ifdef FUZZ_MEMORY
extern FILE *fuzz_real_fopen(const char *path, const char *mode) __asm__("fopen");
static FILE *fuzz_stream[FUZZ_FILES];                      // the last one opened on every file
FILE *fuzz_fopen(const char *path, const char *mode) {
    int k = fuzz_number(path);
    return k < 0 ? fuzz_real_fopen(path, mode) : (fuzz_stream[k] = fmemopen((void *)(uintptr_t)fuzz_bytes[k], fuzz_size[k], "r"));
}
#endif

// Bytes as file number k, until the next one of that number.
static inline const char *fuzz_file(int k, const uint8_t *data, size_t size) {
    static const char *const path[FUZZ_FILES] = {"build/0.fuzz", "build/1.fuzz", "build/2.fuzz"};
    fuzz_bytes[k] = data;
    fuzz_size[k] = size;
#ifndef FUZZ_MEMORY
    {
        FILE *f = fopen(path[k], "wb");
        FUZZ_EXPECT(f && fwrite(data, 1, size, f) == size);
        fclose(f);
    }
#endif
    return path[k];
}

// Where a target may write a file to read it again; in memory where the system has a folder for that.
#ifdef FUZZ_MEMORY
#define FUZZ_AGAIN "/dev/shm/ctm_fuzz_again"
#else
#define FUZZ_AGAIN "build/again.tmp"
#endif

// What a failure says: one line, not empty, with the name of the file.
static inline void fuzz_check_line(const char *line, const char *path) {
    FUZZ_EXPECT(line[0] && !strchr(line, '\n') && strlen(line) < 600);
    FUZZ_EXPECT(strstr(line, path));
}

static inline uint64_t fuzz_hash(const uint8_t *data, size_t size) {
    uint64_t h = 1469598103934665603u;
    size_t i;
    for (i = 0; i < size; i++) h = (h ^ data[i]) * 1099511628211u;
    return h ^ h >> 29;
}

// ---- for mutators: what is between libFuzzer's own changes of bytes and a file that is well formed

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);

static uint64_t fuzz_state;
static inline unsigned fuzz_random(unsigned n) {           // 0 ... n - 1
    fuzz_state = fuzz_state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((fuzz_state >> 33) % n);
}

static inline uint32_t fuzz_u32(const uint8_t *p, int big) {
    return big ? (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]
               : (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}
static inline void fuzz_put(uint8_t *p, uint64_t v, int bytes, int big) {
    int i;
    for (i = 0; i < bytes; i++) p[i] = (uint8_t)(v >> 8 * (big ? bytes - 1 - i : i));
}

// A number at which readers stumble, as float or double bits.
static inline uint64_t fuzz_bits(int width) {
    static const double odd[] = {0, -0.0, 1, -1, 1e300, -1e300, 3.4028234e38, 3.4028236e38, 1e-300, 1e-42, 1e38, -1e-38, 2147483648.0, 9.3e18, 255, 1e10};
    double v = odd[fuzz_random(sizeof odd / sizeof odd[0])];
    float f = (float)v;
    uint64_t bits = 0;
    uint32_t low;
    switch (fuzz_random(6)) {
    case 0:  return width == 8 ? 0x7ff0000000000000u : 0x7f800000u;
    case 1:  return width == 8 ? 0xfff8000000000001u : 0xffc00001u;
    default: break;
    }
    if (width == 8) memcpy(&bits, &v, 8);
    else { memcpy(&low, &f, 4); bits = low; }
    return bits;
}
#endif
