// What the targets of image.h share: its files in memory, where they are mapped, read, or come through a pipe.
#ifndef FUZZ_IMAGES_H
#define FUZZ_IMAGES_H

#include "fuzz.h"
#include "../../examples/table.h"

enum { FUZZ_MAPPED, FUZZ_READ, FUZZ_PIPED, FUZZ_WAYS };
static int fuzz_way;

#ifdef FUZZ_MEMORY
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
// A mapping is a block of exactly the file's size, so that the sanitizer sees a step beyond it.
static void *fuzz_map(int k) {
    void *p = fuzz_way == FUZZ_MAPPED ? malloc(fuzz_size[k]) : MAP_FAILED;
    if (p != MAP_FAILED) memcpy(p, fuzz_bytes[k], fuzz_size[k]);
    return p;
}
static int fuzz_fstat(int k, struct stat *s) {
    memset(s, 0, sizeof *s);
    s->st_mode = S_IFREG | 0600;
    s->st_size = (off_t)fuzz_size[k];
    return 0;
}
#define args_path_kind(path)            (fuzz_number(path) < 0 ? 0 : fuzz_way == FUZZ_PIPED ? 3 : 1)
#define open(path, flags)               fuzz_number(path)
#define close(descriptor)               ((void)(descriptor))
#define fstat(descriptor, s)            fuzz_fstat(descriptor, s)
#define mmap(at, n, prot, flags, k, o)  fuzz_map(k)
#define munmap(p, n)                    free(p)
#endif
#include "../../examples/image.h"

// Opens the files of the list as a set and looks at all of it.
static inline void fuzz_image_set(const char *list) {
    char err[600] = "";
    image_set set;
    size_t i, k;
    if (!image_open(&set, list, err, sizeof err)) {
        FUZZ_EXPECT(err[0] && !strchr(err, '\n') && strstr(err, ".fuzz"));
        return;
    }
    FUZZ_EXPECT(set.n > 0 && set.size >= 1 && set.channels >= 1);
    {
        const size_t dim = (size_t)set.size * (size_t)set.size * (size_t)set.channels;
        IMAGE_REAL *x = (IMAGE_REAL *)malloc(dim * sizeof *x);
        for (i = 0; i < set.n && i < 64; i++) {
            const size_t at = i % 2 ? set.n - 1 - i / 2 : i / 2;
            const int label = image_label(&set, at);
            image_get(&set, at, (int)(i % 3 == 1), x);
            for (k = 0; k < dim; k++) FUZZ_EXPECT(x[k] > -10 && x[k] < 10);
            FUZZ_EXPECT(label >= -1 && label < (set.classes ? set.classes : 1));
        }
        free(x);
    }
    image_close(&set);
}
#endif
