// What the targets of image.h share: its files in memory, read where they are, or through a pipe; and files that become shorter while
// they are read.
#ifndef FUZZ_IMAGES_H
#define FUZZ_IMAGES_H

#include "fuzz.h"
#include "../../apps/table.h"

enum { FUZZ_READ, FUZZ_PIPED, FUZZ_SHRINKS, FUZZ_WAYS };
static int fuzz_way;

#ifdef FUZZ_MEMORY
#include <sys/types.h>
#include <unistd.h>
static int fuzz_descriptor(const FILE *f) {
    int k = 0;
    while (k + 1 < FUZZ_FILES && fuzz_stream[k] != f) k++;
    return k;
}
static ssize_t fuzz_pread(int k, void *room, size_t n, off_t at) {
    if ((size_t)at >= fuzz_size[k]) return 0;
    if (n > fuzz_size[k] - (size_t)at) n = fuzz_size[k] - (size_t)at;
    memcpy(room, fuzz_bytes[k] + at, n);
    return (ssize_t)n;
}
#define ctm_path_kind(path)             (fuzz_number(path) < 0 ? 0 : fuzz_way == FUZZ_PIPED ? 3 : 1)
#define fileno(f)                       fuzz_descriptor(f)
#define pread(k, room, n, at)           fuzz_pread(k, room, n, at)
#endif
#include "../../apps/image.h"

// Opens the files of the list as a set and looks at all of it. NULL: a range as users give it with --range.
static inline void fuzz_image_set(const char *list, const double *range) {
    char err[600] = "";
    image_set set;
    size_t i, k, shrunk = 0;
    if (!image_open_scaled(&set, list, range, err, sizeof err)) {
        FUZZ_EXPECT(err[0] && !strchr(err, '\n') && strstr(err, ".fuzz"));
        return;
    }
    FUZZ_EXPECT(set.n > 0 && set.size >= 1 && set.channels >= 1 && image_intact(&set, err, sizeof err));
    if (fuzz_way == FUZZ_SHRINKS) { shrunk = fuzz_size[0]; fuzz_size[0] /= 2; }
    {
        const size_t dim = (size_t)set.size * (size_t)set.size * (size_t)set.channels;
        IMAGE_REAL *x = (IMAGE_REAL *)malloc(dim * sizeof *x);
        for (i = 0; i < set.n && i < (dim < 200 ? 16 : 2); i++) {
            const size_t at = i % 2 ? set.n - 1 - i / 2 : i / 2;
            const int label = image_label(&set, at);
            image_get(&set, at, (int)(i % 3 == 1), x);
            for (k = 0; k < dim; k++) FUZZ_EXPECT(set.scaled || !image_intact(&set, NULL, 0) || (x[k] > -10 && x[k] < 10));
            FUZZ_EXPECT(label >= -1 && label < (set.classes ? set.classes : 1));
        }
        free(x);
    }
#ifdef FUZZ_MEMORY
    FUZZ_EXPECT(image_intact(&set, err, sizeof err) || shrunk);
#endif
    if (shrunk) fuzz_size[0] = shrunk;
    else if (set.size < 8 || set.n > 1) image_doubtful(&set, err, sizeof err);             // it reads 64 images
    image_close(&set);
}
#endif
