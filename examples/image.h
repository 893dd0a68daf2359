/* image.h - sets of images in the formats that people have them in, and pictures of them as PNG.

   Part of the examples of ctm.h, not of ctm.h itself. Needs args.h and table.h; libc and libm only; C99, also C++.

       image_set set;  char err[512];
       if (!image_open(&set, "data_batch_1.bin,data_batch_2.bin", err, sizeof err)) { puts(err); return 1; }
       image_get(&set, 17, 0, x);      // x[set.size*set.size*set.channels]: pixel by pixel, channels innermost, in [-1,1]
       image_close(&set);

   A set is one file, several separated by commas, or a folder. What a file is, is seen from its first bytes:

       CIFAR-10's binary batches   records of 3073 bytes: a label 0-9, then 1024 red, green, blue bytes, rows top to bottom
       idx (MNIST, Fashion-MNIST)  bytes [n,h,w], square; a file of labels may stand beside it in the list or the folder
       .npy                        uint8 [n,h,w,c] or [n,h,w]; or float32 [n,c,h,w] in [-1,1]

   Files are mapped into memory where the system can do that, so that a set may be larger than memory; elsewhere records are
   fetched with fseek. A pipe (/dev/stdin) is read into memory. Compressed files: gunzip them, or gunzip -c F.gz | ... .

   Conventions. Functions that can fail take (char *err, size_t errlen), return 1 when done and 0 when not, and then leave
   one line in err. There is no global state. image_get and image_label may be called by several threads. */
#ifndef CTM_EXAMPLES_IMAGE_H
#define CTM_EXAMPLES_IMAGE_H

#include "args.h"
#include "table.h"

#if defined(ARGS_POSIX) && !defined(IMAGE_NO_MMAP) && !defined(__wasi__)
#include <fcntl.h>
#include <sys/mman.h>
#define IMAGE_MMAP 1
#endif

#ifndef IMAGE_REAL
#define IMAGE_REAL float        /* the number type of rows of images                                                  */
#endif

/* ---------------------------------------------------------------------------------------------------------------- */
/*  The interface                                                                                                     */
/* ---------------------------------------------------------------------------------------------------------------- */

enum {
    IMAGE_PARTS       = 64,     /* files of a set                                                                     */
    IMAGE_RECORD      = 3073,   /* bytes of a record of CIFAR-10                                                      */
    IMAGE_SIZE_MAX    = 1024,   /* pixels along a side                                                                */
    IMAGE_CLASSES_MAX = 256
};

typedef struct {
    const char    *path;        /* points into image_set.paths                                                        */
    unsigned char *bytes;       /* the whole file, mapped or in memory; NULL: read from f                             */
    FILE          *f;
    size_t         length;      /* bytes of the file                                                                  */
    int            mapped;      /* 1: bytes came from mmap                                                            */
    size_t         first, n;    /* number of its first image in the set; images                                       */
    size_t         start;       /* where image 0 begins                                                               */
    size_t         stride;      /* bytes from one image to the next                                                   */
    int            planes;      /* 1: channels outermost, as in CIFAR-10 and PyTorch                                  */
    int            floats;      /* 1: float32 in [-1,1]                                                               */
    int            labelled;    /* 1: the byte before every image is its label                                        */
} image_part;

typedef struct {
    int            size, channels;
    size_t         n;
    int            classes;     /* 1 + the largest label (CIFAR-10: 10); 0: the set has no labels                     */
    int            parts;
    image_part     part[IMAGE_PARTS];
    unsigned char *label;       /* [n], from an idx file; NULL: from the records, or none                             */
    char          *paths;
} image_set;

/* ---------------------------------------------------------------------------------------------------------------- */
/*  PNG                                                                                                               */
/* ---------------------------------------------------------------------------------------------------------------- */

/* CRC-32 of PNG and zip, of n more bytes after those that gave crc (0 at the beginning). */
static inline unsigned long image_crc(unsigned long crc, const unsigned char *p, size_t n) {
    size_t i;
    int k;
    crc ^= 0xFFFFFFFFul;
    for (i = 0; i < n; i++) {
        crc ^= p[i];
        for (k = 0; k < 8; k++) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320ul : 0);
    }
    return (crc ^ 0xFFFFFFFFul) & 0xFFFFFFFFul;
}

static inline void image_put_big(unsigned char *p, unsigned long v) {
    int i;
    for (i = 0; i < 4; i++) p[i] = (unsigned char)(v >> (24 - 8 * i) & 255);
}

/* One chunk: length, name, data, CRC of name and data. */
static inline void image_chunk(FILE *f, const char *name, const unsigned char *data, size_t n) {
    unsigned char four[4];
    unsigned long crc = image_crc(image_crc(0, (const unsigned char *)name, 4), data, n);
    image_put_big(four, (unsigned long)n);
    fwrite(four, 1, 4, f);
    fwrite(name, 1, 4, f);
    if (n > 0) fwrite(data, 1, n, f);
    image_put_big(four, crc);
    fwrite(four, 1, 4, f);
}

/* raw as a zlib stream of stored blocks, into out (n + n/65535*5 + 16 bytes). Returns its length. */
static inline size_t image_zlib_stored(const unsigned char *raw, size_t n, unsigned char *out) {
    unsigned long a = 1, b = 0;
    size_t at = 2, i, first = 0;
    out[0] = 0x78;
    out[1] = 0x01;
    do {
        size_t length = n - first < 65535 ? n - first : 65535;
        out[at++] = (unsigned char)(first + length == n);
        out[at++] = (unsigned char)(length & 255);
        out[at++] = (unsigned char)(length >> 8);
        out[at++] = (unsigned char)(~length & 255);
        out[at++] = (unsigned char)(~length >> 8 & 255);
        memcpy(out + at, raw + first, length);
        at += length;
        first += length;
    } while (first < n);
    for (i = 0; i < n; i++) {
        a = (a + raw[i]) % 65521;
        b = (b + a) % 65521;
    }
    image_put_big(out + at, b << 16 | a);
    return at + 4;
}

/* Write pixels [height,width,channels] (channels 1: grey, 3: RGB) as a PNG file. All or nothing. */
static inline int image_write_png(const char *path, int width, int height, int channels, const unsigned char *pixels, char *err, size_t errlen) {
    const size_t line = (size_t)width * (size_t)channels, n = (line + 1) * (size_t)height;
    unsigned char *raw = (unsigned char *)malloc(n + 1), *packed = (unsigned char *)malloc(n + n / 65535 * 5 + 16), head[13];
    size_t length;
    int y, good;
    ctm_output a;
    if (raw == NULL || packed == NULL) {
        free(raw);
        free(packed);
        return args_fail(err, errlen, "cannot write %s: no memory", path);
    }
    for (y = 0; y < height; y++) {
        raw[(line + 1) * (size_t)y] = 0;                                         /* no filter                         */
        memcpy(raw + (line + 1) * (size_t)y + 1, pixels + line * (size_t)y, line);
    }
    length = image_zlib_stored(raw, n, packed);
    image_put_big(head, (unsigned long)width);
    image_put_big(head + 4, (unsigned long)height);
    head[8] = 8;                                                                 /* bits a sample                     */
    head[9] = (unsigned char)(channels == 3 ? 2 : 0);                            /* RGB or grey                       */
    head[10] = head[11] = head[12] = 0;
    good = args_open_atomic(&a, path, err, errlen) != NULL;
    if (good) {
        fwrite("\x89PNG\r\n\x1a\n", 1, 8, a.file);
        image_chunk(a.file, "IHDR", head, 13);
        image_chunk(a.file, "IDAT", packed, length);
        image_chunk(a.file, "IEND", head, 0);
        good = args_close_atomic(&a, err, errlen);
    }
    free(raw);
    free(packed);
    return good;
}

/* [-1,1] to a byte: rounded, values outside cut off. */
static inline unsigned char image_byte(double v) {
    double b = 127.5 * v + 127.5;
    return (unsigned char)(b >= 254.5 ? 255 : b > 0 ? (int)(b + 0.5) : 0);
}

/* n images x [n, size*size*channels] in [-1,1] beside one another, `columns` in a row, with a line of one grey pixel between.
   Channels other than 3 are drawn as the grey of their first. */
static inline int image_write_sheet(const char *path, size_t n, int size, int channels, const IMAGE_REAL *x, int columns, char *err, size_t errlen) {
    const int colours = channels == 3 ? 3 : 1, rows = (int)((n + (size_t)columns - 1) / (size_t)columns);
    const int width = columns * (size + 1) - 1, height = rows * (size + 1) - 1;
    const size_t bytes = (size_t)width * (size_t)height * (size_t)colours;
    unsigned char *sheet;
    size_t i;
    int row, column, c, good;
    if (n == 0) return args_fail(err, errlen, "cannot write %s: there is no image", path);
    sheet = (unsigned char *)malloc(bytes);
    if (sheet == NULL) return args_fail(err, errlen, "cannot write %s: no memory", path);
    memset(sheet, 128, bytes);
    for (i = 0; i < n; i++)
        for (row = 0; row < size; row++)
            for (column = 0; column < size; column++)
                for (c = 0; c < colours; c++) {
                    const size_t y = i / (size_t)columns * (size_t)(size + 1) + (size_t)row, at = i % (size_t)columns * (size_t)(size + 1) + (size_t)column;
                    const size_t from = ((i * (size_t)size + (size_t)row) * (size_t)size + (size_t)column) * (size_t)channels + (size_t)c;
                    sheet[(y * (size_t)width + at) * (size_t)colours + (size_t)c] = image_byte((double)x[from]);
                }
    good = image_write_png(path, width, height, colours, sheet, err, errlen);
    free(sheet);
    return good;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/*  Arrays: .npz of bytes, .npy of floats, .npy of labels                                                             */
/* ---------------------------------------------------------------------------------------------------------------- */

static inline void image_put_little(unsigned char *p, unsigned long v, int bytes) {
    int i;
    for (i = 0; i < bytes; i++) p[i] = (unsigned char)(v >> (8 * i) & 255);
}

/* A zip archive of one stored file, arr_0.npy: uint8 [n,size,size,channels], as numpy.savez writes it. */
static inline int image_write_npz(const char *path, size_t n, int size, int channels, const IMAGE_REAL *x, char *err, size_t errlen) {
    static const char name[] = "arr_0.npy";
    const size_t count = n * (size_t)size * (size_t)size * (size_t)channels, shape[4] = {n, (size_t)size, (size_t)size, (size_t)channels};
    unsigned char head[NPY_HEADER_MAX], local[30], central[46], end[22], *bytes;
    const size_t header = npy_make_header(head, "|u1", 4, shape), total = header + count;
    unsigned long crc;
    size_t i;
    ctm_output a;
    int good;
    if (total >= 0xFFFF0000ul) return args_fail(err, errlen, "cannot write %s: %lu bytes are too many for a plain .npz; use .npy", path, (unsigned long)total);
    bytes = (unsigned char *)malloc(count + 1);
    if (bytes == NULL) return args_fail(err, errlen, "cannot write %s: no memory", path);
    for (i = 0; i < count; i++) bytes[i] = image_byte((double)x[i]);
    crc = image_crc(image_crc(0, head, header), bytes, count);
    memset(local, 0, sizeof local);
    image_put_little(local, 0x04034b50ul, 4);
    image_put_little(local + 4, 20, 2);                                          /* version of the format             */
    image_put_little(local + 12, 0x21, 2);                                       /* 1 January 1980                    */
    image_put_little(local + 14, crc, 4);
    image_put_little(local + 18, (unsigned long)total, 4);
    image_put_little(local + 22, (unsigned long)total, 4);
    image_put_little(local + 26, sizeof name - 1, 2);
    memset(central, 0, sizeof central);
    image_put_little(central, 0x02014b50ul, 4);
    image_put_little(central + 4, 20, 2);
    memcpy(central + 6, local + 4, 26);
    memset(end, 0, sizeof end);
    image_put_little(end, 0x06054b50ul, 4);
    image_put_little(end + 8, 1, 2);
    image_put_little(end + 10, 1, 2);
    image_put_little(end + 12, sizeof central + sizeof name - 1, 4);
    image_put_little(end + 16, (unsigned long)(sizeof local + sizeof name - 1 + total), 4);
    good = args_open_atomic(&a, path, err, errlen) != NULL;
    if (good) {
        fwrite(local, 1, sizeof local, a.file);
        fwrite(name, 1, sizeof name - 1, a.file);
        fwrite(head, 1, header, a.file);
        fwrite(bytes, 1, count, a.file);
        fwrite(central, 1, sizeof central, a.file);
        fwrite(name, 1, sizeof name - 1, a.file);
        fwrite(end, 1, sizeof end, a.file);
        good = args_close_atomic(&a, err, errlen);
    }
    free(bytes);
    return good;
}

/* Channels innermost to channels outermost, or back: x [pixels,channels] <-> y [channels,pixels]. */
static inline void image_to_planes(size_t pixels, int channels, const IMAGE_REAL *x, float *y) {
    size_t i;
    int c;
    for (i = 0; i < pixels; i++)
        for (c = 0; c < channels; c++) y[(size_t)c * pixels + i] = (float)x[i * (size_t)channels + (size_t)c];
}
static inline void image_from_planes(size_t pixels, int channels, const float *y, IMAGE_REAL *x) {
    size_t i;
    int c;
    for (i = 0; i < pixels; i++)
        for (c = 0; c < channels; c++) x[i * (size_t)channels + (size_t)c] = (IMAGE_REAL)y[(size_t)c * pixels + i];
}

/* float32 [n,channels,size,size], as PyTorch has them. */
static inline int image_write_npy(const char *path, size_t n, int size, int channels, const IMAGE_REAL *x, char *err, size_t errlen) {
    const size_t pixels = (size_t)size * (size_t)size, dim = pixels * (size_t)channels, shape[4] = {n, (size_t)channels, (size_t)size, (size_t)size};
    float *planes = (float *)malloc(n * dim * sizeof *planes + 1);
    size_t i;
    int good;
    if (planes == NULL) return args_fail(err, errlen, "cannot write %s: no memory", path);
    for (i = 0; i < n; i++) image_to_planes(pixels, channels, x + i * dim, planes + i * dim);
    good = npy_write_f32(path, 4, shape, planes, err, errlen);
    free(planes);
    return good;
}

/* Labels from a .npy file of whole numbers (uint8, int32 or int64), one dimension: each from 0 to classes - 1, or -1 for none.
   The caller frees *out. */
static inline int image_read_labels(const char *path, int classes, int **out, size_t *n, char *err, size_t errlen) {
    size_t length = 0, start = 0, width, i;
    unsigned char *bytes = table_read_file(path, &length, err, errlen);
    char descr[24];
    npy_array a;
    *out = NULL;
    memset(&a, 0, sizeof a);
    if (bytes == NULL) return 0;
    if (!npy_parse_head(path, bytes, length, &a, descr, &start, err, errlen)) { free(bytes); return 0; }
    width = strcmp(descr, "|u1") == 0 ? 1 : strcmp(descr, "<i4") == 0 ? 4 : strcmp(descr, "<i8") == 0 ? 8 : 0;
    if (width == 0 || a.ndim != 1) {
        free(bytes);
        return args_fail(err, errlen, "%s: found dtype '%s' in %d dimensions, expected labels: '|u1', '<i4' or '<i8' in one dimension", path, descr, a.ndim);
    }
    if ((length - start) / width != a.count || (length - start) % width != 0) {
        free(bytes);
        return args_fail(err, errlen, "%s: found %lu bytes of values, expected %lu as the shape says", path, (unsigned long)(length - start), (unsigned long)(a.count * width));
    }
    *out = (int *)malloc((a.count + 1) * sizeof(int));
    *n = a.count;
    for (i = 0; *out && i < a.count; i++) {
        const unsigned char *p = bytes + start + i * width;
        const unsigned long low = width == 1 ? p[0] : npy_u32(p);
        const int negative = width > 1 && (low & 0x80000000ul) != 0;
        const double v = negative ? -(double)(0x100000000ull - low) : (double)low;
        const unsigned long high = width == 8 ? npy_u32(p + 4) : negative ? 0xFFFFFFFFul : 0;
        if (v < -1 || v >= classes || high != (negative ? 0xFFFFFFFFul : 0)) {
            args_fail(err, errlen, "%s: label %lu is out of range, expected 0 to %d, or -1 for none", path, (unsigned long)i, classes - 1);
            free(*out);
            free(bytes);
            *out = NULL;
            return 0;
        }
        (*out)[i] = (int)v;
    }
    free(bytes);
    return *out ? 1 : args_fail(err, errlen, "cannot read %s: no memory", path);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/*  Opening a set                                                                                                     */
/* ---------------------------------------------------------------------------------------------------------------- */

/* Map a file, or read it where that is impossible; or keep it open (f) for image_fetch. */
static inline int image_load(image_part *p, char *err, size_t errlen) {
    const ctm_kind kind = ctm_path_kind(p->path);
    if (kind == CTM_NOTHING) return args_fail(err, errlen, "cannot read %s: %s", p->path, strerror(ENOENT));
    if (kind == CTM_FOLDER) return args_fail(err, errlen, "cannot read %s: it is a folder", p->path);
    if (kind == CTM_DEVICE) {
        p->bytes = table_read_file(p->path, &p->length, err, errlen);
        return p->bytes != NULL;
    }
#if defined(IMAGE_MMAP)
    {
        struct stat s;
        const int descriptor = open(p->path, O_RDONLY);
        void *map = MAP_FAILED;
        if (descriptor < 0 || fstat(descriptor, &s) != 0) {
            const int reason = errno;
            if (descriptor >= 0) close(descriptor);
            return args_fail(err, errlen, "cannot read %s: %s", p->path, strerror(reason));
        }
        p->length = (size_t)s.st_size;
        if (p->length > 0) map = mmap(NULL, p->length, PROT_READ, MAP_PRIVATE, descriptor, 0);
        close(descriptor);
        if (map != MAP_FAILED) {
            p->bytes = (unsigned char *)map;
            p->mapped = 1;
            return 1;
        }
    }
#endif
    p->f = ctm_fopen(p->path, "rb");
    if (p->f == NULL) return args_fail(err, errlen, "cannot read %s: %s", p->path, strerror(errno));
    if (fseek(p->f, 0, SEEK_END) != 0 || ftell(p->f) < 0) return args_fail(err, errlen, "cannot read %s: %s", p->path, strerror(errno));
    p->length = (size_t)ftell(p->f);
    return 1;
}

/* n bytes from `at` on: where they are, or copied into `room`. Zeros for what an altered file no longer has. */
static inline const unsigned char *image_fetch(const image_part *p, size_t at, size_t n, unsigned char *room) {
    if (p->bytes) return p->bytes + at;
    memset(room, 0, n);
#if defined(_OPENMP)
#pragma omp critical(image_file)
#endif
    {
        if (fseek(p->f, (long)at, SEEK_SET) != 0 || fread(room, 1, n, p->f) != n) clearerr(p->f);
    }
    return room;
}

static inline unsigned long image_big(const unsigned char *p) {
    return (unsigned long)p[0] << 24 | (unsigned long)p[1] << 16 | (unsigned long)p[2] << 8 | (unsigned long)p[3];
}

/* The first part says what the set's images are; all others must agree. */
static inline int image_agree(image_set *s, const image_part *p, int size, int channels, char *err, size_t errlen) {
    if (size < 1 || size > IMAGE_SIZE_MAX || channels < 1 || channels > 16)
        return args_fail(err, errlen, "%s: found images of %d x %d with %d channels, expected 1 to %d pixels a side and at most 16 channels", p->path, size, size, channels, IMAGE_SIZE_MAX);
    if (s->size == 0) {
        s->size = size;
        s->channels = channels;
    }
    if (s->size == size && s->channels == channels) return 1;
    return args_fail(err, errlen, "%s: found images of %d x %d with %d channels, expected %d x %d with %d as in %s", p->path, size, size, channels,
                     s->size, s->size, s->channels, s->part[0].path);
}

/* CIFAR-10: no header, so its size is all there is to check, and every label. */
static inline int image_open_cifar(image_set *s, image_part *p, char *err, size_t errlen) {
    unsigned char room[1];
    size_t i;
    if (p->length == 0 || p->length % IMAGE_RECORD != 0)
        return args_fail(err, errlen, "%s: found %lu bytes (%lu records and %lu bytes over), expected records of %d bytes: CIFAR-10's binary batches, or idx, or .npy", p->path,
                         (unsigned long)p->length, (unsigned long)(p->length / IMAGE_RECORD), (unsigned long)(p->length % IMAGE_RECORD), IMAGE_RECORD);
    p->n = p->length / IMAGE_RECORD;
    p->start = 1;
    p->stride = IMAGE_RECORD;
    p->planes = p->labelled = 1;
    for (i = 0; i < p->n; i++) {
        const int label = image_fetch(p, i * IMAGE_RECORD, 1, room)[0];
        if (label > 9) return args_fail(err, errlen, "%s: record %lu has label %d, expected 0 to 9: not a batch of CIFAR-10", p->path, (unsigned long)i, label);
    }
    s->classes = 10;
    return image_agree(s, p, 32, 3, err, errlen);
}

static inline int image_open_idx(image_set *s, image_part *p, const unsigned char *head, char *err, size_t errlen) {
    const unsigned long n = image_big(head + 4), h = image_big(head + 8), w = image_big(head + 12);
    if (h != w || h == 0 || h > IMAGE_SIZE_MAX) return args_fail(err, errlen, "%s: found idx images of %lu x %lu, expected squares of at most %d", p->path, h, w, IMAGE_SIZE_MAX);
    if (p->length < 16 || (p->length - 16) / (h * w) != n || (p->length - 16) % (h * w) != 0)
        return args_fail(err, errlen, "%s: found %lu bytes, expected %lu images of %lu x %lu behind a header of 16 bytes", p->path, (unsigned long)p->length, n, h, w);
    p->n = n;
    p->start = 16;
    p->stride = (size_t)h * (size_t)w;
    return image_agree(s, p, (int)h, 1, err, errlen);
}

/* Every number of a file of floats must be about [-1,1], where samples may lie a little outside: 0..255 is a mistake. */
static inline int image_check_floats(const image_part *p, char *err, size_t errlen) {
    unsigned char *room = p->bytes ? NULL : (unsigned char *)malloc(p->stride + 1);
    size_t i, k;
    if (p->bytes == NULL && room == NULL) return args_fail(err, errlen, "cannot read %s: no memory", p->path);
    for (i = 0; i < p->n; i++) {
        const unsigned char *b = image_fetch(p, p->start + i * p->stride, p->stride, room);
        for (k = 0; k < p->stride; k += 4) {
            const unsigned int bits = (unsigned int)npy_u32(b + k);
            float v;
            memcpy(&v, &bits, 4);
            if (v > -10 && v < 10) continue;
            free(room);
            return args_fail(err, errlen, "%s: image %lu holds the number %g, expected [-1,1]", p->path, (unsigned long)i, (double)v);
        }
    }
    free(room);
    return 1;
}

static inline int image_open_npy(image_set *s, image_part *p, char *err, size_t errlen) {
    const size_t head = p->length < 65552 ? p->length : 65552;
    unsigned char *copy = (unsigned char *)malloc(head + 1);
    const unsigned char *from;
    char descr[24];
    npy_array a;
    int good, width, c, h, w;
    memset(&a, 0, sizeof a);
    if (copy == NULL) return args_fail(err, errlen, "cannot read %s: no memory", p->path);
    from = image_fetch(p, 0, head, copy);
    if (from != copy) memcpy(copy, from, head);
    copy[head] = '\0';
    good = npy_parse_head(p->path, copy, head, &a, descr, &p->start, err, errlen);
    free(copy);
    if (!good) return 0;
    p->floats = strcmp(descr, "<f4") == 0;
    width = p->floats ? 4 : 1;
    if (!p->floats && strcmp(descr, "|u1") != 0)
        return args_fail(err, errlen, "%s: found dtype '%s', expected '|u1' (uint8 [n,h,w,c]) or '<f4' (float32 [n,c,h,w] in [-1,1])", p->path, descr);
    if (a.ndim != 4 && (a.ndim != 3 || p->floats))
        return args_fail(err, errlen, "%s: found %d dimensions, expected %s", p->path, a.ndim, p->floats ? "[n,c,h,w]" : "[n,h,w,c] or [n,h,w]");
    p->planes = p->floats;
    for (c = 0; c < a.ndim; c++)
        if (a.shape[c] > 0x7FFFFFFFul) return args_fail(err, errlen, "%s: a dimension of %lu is no size of images", p->path, (unsigned long)a.shape[c]);
    c = a.ndim == 3 ? 1 : (int)a.shape[p->floats ? 1 : 3];
    h = (int)a.shape[p->floats ? 2 : 1];
    w = (int)a.shape[p->floats ? 3 : 2];
    if (h != w) return args_fail(err, errlen, "%s: found images of %d x %d in %s, expected squares", p->path, h, w, p->floats ? "float32 [n,c,h,w]" : "uint8 [n,h,w,c]");
    if (a.shape[0] == 0) return args_fail(err, errlen, "%s: holds no images", p->path);
    if ((p->length - p->start) / (size_t)width != a.count || (p->length - p->start) % (size_t)width != 0)
        return args_fail(err, errlen, "%s: found %lu bytes of values, expected %lu as the shape says", p->path, (unsigned long)(p->length - p->start), (unsigned long)(a.count * (size_t)width));
    p->n = a.shape[0];
    p->stride = (size_t)h * (size_t)w * (size_t)c * (size_t)width;
    return image_agree(s, p, h, c, err, errlen) && (!p->floats || image_check_floats(p, err, errlen));
}

/* A file of labels joins the set; their number is checked when all files are open. */
static inline int image_open_labels(image_set *s, const image_part *p, size_t *labels, char *err, size_t errlen) {
    const unsigned char *from;
    unsigned char head[8], *label;
    const unsigned long n = image_big(image_fetch(p, 4, 4, head));
    size_t i;
    if (p->length - 8 != n) return args_fail(err, errlen, "%s: found %lu bytes, expected %lu labels behind a header of 8 bytes", p->path, (unsigned long)p->length, n);
    label = (unsigned char *)realloc(s->label, *labels + n + 1);
    if (label == NULL) return args_fail(err, errlen, "cannot read %s: no memory", p->path);
    s->label = label;
    from = image_fetch(p, 8, n, label + *labels);
    if (from != label + *labels) memcpy(label + *labels, from, n);
    for (i = *labels; i < *labels + n; i++)
        if (label[i] >= s->classes) s->classes = label[i] + 1;
    *labels += n;
    return 1;
}

static inline void image_close_part(image_part *p) {
#if defined(IMAGE_MMAP)
    if (p->mapped) munmap(p->bytes, p->length);
#endif
    if (!p->mapped) free(p->bytes);
    if (p->f) fclose(p->f);
    memset(p, 0, sizeof *p);
}

/* Release everything and leave the set empty. Harmless after a failure. */
static inline void image_close(image_set *s) {
    int i;
    for (i = 0; i < IMAGE_PARTS; i++) image_close_part(&s->part[i]);
    free(s->label);
    free(s->paths);
    memset(s, 0, sizeof *s);
}

/* One file of the list: images become a part, labels are put aside. */
static inline int image_open_file(image_set *s, const char *path, size_t *labels, char *err, size_t errlen) {
    image_part *p = &s->part[s->parts];
    unsigned char room[16];
    const unsigned char *head;
    if (s->parts == IMAGE_PARTS) return args_fail(err, errlen, "%s: is file number %d of the set, expected at most %d", path, s->parts + 1, IMAGE_PARTS);
    memset(p, 0, sizeof *p);
    p->path = path;
    if (!image_load(p, err, errlen)) return 0;
    if (p->length < 16) return args_fail(err, errlen, "%s: found %lu bytes, expected images: CIFAR-10's records of %d bytes, idx, or .npy", path, (unsigned long)p->length, IMAGE_RECORD);
    head = image_fetch(p, 0, 16, room);
    if (head[0] == 0x1F && head[1] == 0x8B)
        return args_fail(err, errlen, "%s: is compressed; gunzip it first, or gunzip -c FILE | images ... --data /dev/stdin", path);
    if (memcmp(head, "\0\0\x08\x01", 4) == 0 && image_big(head + 4) == p->length - 8) {
        const int good = image_open_labels(s, p, labels, err, errlen);
        image_close_part(p);
        return good;
    }
    if (memcmp(head, "\x93NUMPY", 6) == 0) { if (!image_open_npy(s, p, err, errlen)) return 0; }
    else if (memcmp(head, "\0\0\x08\x03", 4) == 0 && p->length % IMAGE_RECORD != 0) { if (!image_open_idx(s, p, head, err, errlen)) return 0; }
    else if (memcmp(head, "\0\0\x08\x03", 4) == 0 && image_big(head + 8) == image_big(head + 12)) { if (!image_open_idx(s, p, head, err, errlen)) return 0; }
    else if (!image_open_cifar(s, p, err, errlen)) return 0;
    p->first = s->n;
    s->n += p->n;
    s->parts++;
    return 1;
}

/* The files of a folder that can be a training set, as a list; "" if it has none. */
static inline void image_folder_list(const char *folder, char *list, size_t size) {
    static const char *const names[] = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin",
                                        "train-images-idx3-ubyte", "train-labels-idx1-ubyte"};
    char path[ARGS_PATH];
    size_t at = 0;
    int i;
    list[0] = '\0';
    for (i = 0; i < ARGS_COUNT(names); i++)
        if (args_join(path, sizeof path, folder, names[i]) && ctm_path_kind(path) == CTM_FILE && at + strlen(path) + 2 < size)
            at += (size_t)snprintf(list + at, size - at, "%s%s", at ? "," : "", path);
}

/* Open a folder, a file, or files separated by commas. */
static inline int image_open(image_set *s, const char *data, char *err, size_t errlen) {
    char list[8 * ARGS_PATH], *at, *comma;
    size_t labels = 0;
    int good = 1;
    memset(s, 0, sizeof *s);
    if (ctm_path_kind(data) == CTM_FOLDER) {
        image_folder_list(data, list, sizeof list);
        if (list[0] == '\0') return args_fail(err, errlen, "%s: is a folder with neither data_batch_1.bin ... nor train-images-idx3-ubyte (gunzipped)", data);
        data = list;
    }
    s->paths = table_copy(data);
    if (s->paths == NULL) return args_fail(err, errlen, "cannot read %s: no memory", data);
    for (at = s->paths; good && at; at = comma) {
        comma = strchr(at, ',');
        if (comma) *comma++ = '\0';
        good = image_open_file(s, at, &labels, err, errlen);
    }
    if (good && s->n == 0) good = args_fail(err, errlen, "%s: holds labels only, expected images", data);
    if (good && s->label && labels != s->n)
        good = args_fail(err, errlen, "%s: found %lu labels for %lu images, expected one for each", data, (unsigned long)labels, (unsigned long)s->n);
    if (!good) image_close(s);
    return good;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/*  Reading images                                                                                                    */
/* ---------------------------------------------------------------------------------------------------------------- */

static inline const image_part *image_part_of(const image_set *s, size_t i) {
    int k = 0;
    while (k + 1 < s->parts && i >= s->part[k + 1].first) k++;
    return &s->part[k];
}

/* Image i into x[size*size*channels], in [-1,1]; mirrored left to right if flip is 1. */
static inline void image_get(const image_set *s, size_t i, int flip, IMAGE_REAL *x) {
    const image_part *p = image_part_of(s, i);
    const size_t size = (size_t)s->size, channels = (size_t)s->channels;
    unsigned char *room = p->bytes ? NULL : (unsigned char *)malloc(p->stride);
    const unsigned char *b;
    size_t row, column, c;
    if (p->bytes == NULL && room == NULL) return;
    b = image_fetch(p, p->start + (i - p->first) * p->stride, p->stride, room);
    for (row = 0; row < size; row++)
        for (column = 0; column < size; column++)
            for (c = 0; c < channels; c++) {
                const size_t from = flip ? size - 1 - column : column;
                const size_t at = p->planes ? (c * size + row) * size + from : (row * size + from) * channels + c;
                IMAGE_REAL *to = x + (row * size + column) * channels + c;
                if (p->floats) {
                    const unsigned int bits = (unsigned int)npy_u32(b + 4 * at);
                    float v;
                    memcpy(&v, &bits, 4);
                    *to = (IMAGE_REAL)v;
                } else *to = (IMAGE_REAL)((double)b[at] / 127.5 - 1);
            }
    free(room);
}

/* The class of image i, or -1. */
static inline int image_label(const image_set *s, size_t i) {
    const image_part *p = image_part_of(s, i);
    unsigned char room[1];
    if (s->label) return s->label[i];
    return p->labelled ? image_fetch(p, p->start + (i - p->first) * p->stride - 1, 1, room)[0] : -1;
}

/* A number that tells sets apart: from sizes and 64 images spread over the set. */
static inline unsigned long long image_fingerprint(const image_set *s) {
    unsigned long long h = 14695981039346656037ull;
    const size_t dim = (size_t)s->size * (size_t)s->size * (size_t)s->channels;
    IMAGE_REAL *x = (IMAGE_REAL *)malloc(dim * sizeof *x);
    size_t k, j;
    h = (h ^ s->n) * 1099511628211ull;
    h = (h ^ dim) * 1099511628211ull;
    for (k = 0; x && k < 64; k++) {
        const size_t i = k * (s->n - 1) / 63;
        image_get(s, i, 0, x);
        for (j = 0; j < dim; j++) h = (h ^ image_byte((double)x[j])) * 1099511628211ull;
        h = (h ^ (unsigned)(image_label(s, i) + 1)) * 1099511628211ull;
    }
    free(x);
    return h;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/*  A set that needs no download                                                                                      */
/* ---------------------------------------------------------------------------------------------------------------- */

/* Ten classes of shapes in a colour, on a background that runs from one colour to another. */
static inline const char *image_synth_name(int label) {
    static const char *const names[10] = {"disc", "square", "triangle", "ring", "cross", "horizontal stripes", "vertical stripes", "diamond", "half disc", "checkerboard"};
    return names[label];
}

/* How far (u,v) is inside the shape: positive inside, about in units of its radius 1. */
static inline double image_synth_inside(int label, double u, double v) {
    const double r = sqrt(u * u + v * v), au = fabs(u), av = fabs(v), box = 0.9 - (au > av ? au : av);
    const double side = 0.9 * (v + 0.9) / 1.8 - au, wave = 10.2;
    double arms;
    switch (label) {
    case 0:  return 1 - r;
    case 1:  return box;
    case 2:  return side < 0.9 - v ? side : 0.9 - v;
    case 3:  return 0.28 - fabs(r - 0.75);
    case 4:  arms = 0.3 - (au < av ? au : av); return arms < box ? arms : box;
    case 5:  arms = 0.3 * cos(wave * v); return arms < box ? arms : box;
    case 6:  arms = 0.3 * cos(wave * u); return arms < box ? arms : box;
    case 7:  return 0.75 * (1.1 - au - av);
    case 8:  return v < 1 - r ? v : 1 - r;
    default: arms = 0.6 * sin(3.14159265358979324 * u) * sin(3.14159265358979324 * v); return arms < box ? arms : box;
    }
}

/* The numbers that make one image, each in (0,1): drawn by the caller, so that this file needs no random numbers. */
enum { IMAGE_SYNTH_DRAWS = 16 };

/* One record of CIFAR-10's format, IMAGE_RECORD bytes. */
static inline void image_synth(const double *draw, unsigned char *record) {
    const int label = (int)(10 * draw[0]);
    const double radius = 9 + 3 * draw[1], cx = 15.5 + 4 * (draw[2] - 0.5), cy = 15.5 + 4 * (draw[3] - 0.5), angle = 6.283185307 * draw[4];
    const double across = cos(angle) / 44, along = sin(angle) / 44, softness = 0.8 / radius;
    double shape[3], from[3], to[3];
    int x, y, c;
    for (c = 0; c < 3; c++) {                         /* the shape is light and the background dark, or the other way round */
        const int light = draw[5] < 0.5;
        shape[c] = light ? 150 + 105 * draw[6 + c] : 90 * draw[6 + c];
        from[c] = light ? 100 * draw[9 + c] : 130 + 125 * draw[9 + c];
        to[c] = light ? 100 * draw[12 + c] : 130 + 125 * draw[12 + c];
    }
    record[0] = (unsigned char)label;
    for (y = 0; y < 32; y++)
        for (x = 0; x < 32; x++) {
            const double g = 0.5 + across * (x - 15.5) + along * (y - 15.5);
            double a = 0.5 + image_synth_inside(label, (x - cx) / radius, (y - cy) / radius) / softness;
            a = a < 0 ? 0 : a > 1 ? 1 : a;            /* edges are smooth over about a pixel */
            for (c = 0; c < 3; c++) {
                const double v = a * shape[c] + (1 - a) * (from[c] + (to[c] - from[c]) * g);
                record[1 + 1024 * c + 32 * y + x] = (unsigned char)(v < 0 ? 0 : v > 255 ? 255 : v + 0.5);
            }
        }
}

#endif
