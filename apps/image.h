/* image.h - sets of images in the formats that people have them in, and pictures of them as PNG.

   Part of the applications of ctm.h, not of ctm.h itself. Needs args.h and table.h; libc and libm only; C99, also C++.

       image_set set;  char err[512];
       if (!image_open(&set, "data_batch_1.bin,data_batch_2.bin", err, sizeof err)) { puts(err); return 1; }
       image_get(&set, 17, 0, x);      // x[set.size*set.size*set.channels]: pixel by pixel, channels innermost, in [-1,1]
       image_close(&set);

   A set is one file, several separated by commas, or a folder. What a file is, is seen from its first bytes:

       CIFAR-10's binary batches   records of 3073 bytes: a label 0-9, then 1024 red, green, blue bytes, rows top to bottom
       idx (MNIST, Fashion-MNIST)  bytes [n,h,w], square; a file of labels may stand beside it in the list or the folder
       .npy                        uint8 [n,h,w,c] or [n,h,w]; or float32 [n,c,h,w] in [-1,1]
       .npz                        the first array of an archive that is not compressed, as numpy.savez writes it

   Images are read from the file one by one, when they are asked for, so a set may be larger than memory. (A mapped file would
   save a copy, which is nothing beside a training step; but one that shrinks while it is mapped ends the program.) A pipe
   (/dev/stdin) is read into memory. Compressed files: gunzip them, or gunzip -c F.gz | ... .

   Conventions. Functions that can fail take (char *err, size_t errlen), return 1 when done and 0 when not, and then leave
   one line in err. There is no global state. image_get and image_label may be called by several threads; they cannot fail, but
   after them image_intact tells whether all was there. */
#ifndef CTM_APPS_IMAGE_H
#define CTM_APPS_IMAGE_H

#include "args.h"
#include "table.h"

// pread needs no position that threads would share. (A strict -std=c99 hides it if another header came before args.h.)
#if defined(ARGS_POSIX) && !defined(IMAGE_PLAIN_C) && !(defined(__GLIBC__) && !defined(__USE_XOPEN2K8))
#define IMAGE_POSIX 1
#endif

#ifndef IMAGE_REAL
#define IMAGE_REAL float        // the number type of rows of images
#endif

// ---- The interface -----------------------------------------------------------------------------------------------------

enum {
    IMAGE_PARTS       = 64,     // files of a set
    IMAGE_RECORD      = 3073,   // bytes of a record of CIFAR-10
    IMAGE_SIZE_MAX    = 1024,   // pixels along a side
    IMAGE_CLASSES_MAX = 256
};

typedef struct {
    const char    *path;        // points into image_set.paths
    unsigned char *bytes;       // the whole file, if it came through a pipe; NULL: read from f
    FILE          *f;
    size_t         length;      // bytes of the file
    int            broken;      // 1: something could not be read, 2: for want of memory; see image_intact
    size_t         first, n;    // number of its first image in the set; images
    size_t         start;       // where image 0 begins
    size_t         stride;      // bytes from one image to the next
    size_t         size;        // bytes of an image
    int            planes;      // 1: channels outermost, as in CIFAR-10 and PyTorch
    int            floats;      // 1: float32
    int            labelled;    // 1: the byte before every image is its label
} image_part;

typedef struct {
    int            size, channels;
    size_t         n;
    int            classes;     // 1 + the largest label (CIFAR-10: 10); 0: the set has no labels
    int            parts;
    image_part     part[IMAGE_PARTS];
    unsigned char *label;       // [n], from an idx file; NULL: from the records, or none
    size_t         labels;      // that label holds
    int            scaled;      // 1: `range` says which numbers are black and white, for bytes and floats
    double         range[2];
    double         least, most; // of the floats
    char          *paths;       // names of the files, a zero behind each
} image_set;

// ---- PNG ---------------------------------------------------------------------------------------------------------------

// CRC-32 of PNG and zip, of n more bytes after those that gave crc (0 at the beginning).
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

// 1 if a file can be written at path; to be asked before the work whose result it will hold. What is there stays.
static inline int image_can_write(const char *path, char *err, size_t errlen) {
    ctm_output a;
    if (ctm_path_kind(path) == CTM_DEVICE) return 1;  // a device or a pipe: its reader would take this for the end
    if (args_open_atomic(&a, path, err, errlen) == NULL) return 0;
    ctm_output_drop(&a);
    return 1;
}

// One chunk: length, name, data, CRC of name and data.
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

// raw as a zlib stream of stored blocks, into out (n + n/65535*5 + 16 bytes). Returns its length.
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

// Write pixels [height,width,channels] (channels 1: grey, 3: RGB) as a PNG file. All or nothing.
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
        raw[(line + 1) * (size_t)y] = 0;                                         // no filter
        memcpy(raw + (line + 1) * (size_t)y + 1, pixels + line * (size_t)y, line);
    }
    length = image_zlib_stored(raw, n, packed);
    image_put_big(head, (unsigned long)width);
    image_put_big(head + 4, (unsigned long)height);
    head[8] = 8;                                                                 // bits a sample
    head[9] = (unsigned char)(channels == 3 ? 2 : 0);                            // RGB or grey
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

// [-1,1] to a byte: rounded, values outside cut off.
static inline unsigned char image_byte(double v) {
    double b = 127.5 * v + 127.5;
    return (unsigned char)(b >= 254.5 ? 255 : b > 0 ? (int)(b + 0.5) : 0);
}

// A PNG is made in memory, and its data are one chunk: about 1 GB is the most.
static inline int image_sheet_fits(const char *path, size_t n, int size, int channels, int columns, char *err, size_t errlen) {
    const double width = columns * (size + 1.0) - 1, height = (double)((n + (size_t)columns - 1) / (size_t)columns) * (size + 1.0) - 1;
    if (width * height * (channels == 3 ? 3 : 1) < 1e9) return 1;
    return args_fail(err, errlen, "cannot write %s: a picture of %.0f x %.0f pixels is too large, expected fewer images", path, width, height);
}

// n images x [n, size*size*channels] in [-1,1] beside one another, `columns` in a row, with a line of one grey pixel between.
// Channels other than 3 are drawn as the grey of their first.
static inline int image_write_sheet(const char *path, size_t n, int size, int channels, const IMAGE_REAL *x, int columns, char *err, size_t errlen) {
    const int colours = channels == 3 ? 3 : 1;
    int width, height, row, column, c, good;
    unsigned char *sheet;
    size_t i, bytes;
    if (n == 0) return args_fail(err, errlen, "cannot write %s: there is no image", path);
    if (!image_sheet_fits(path, n, size, channels, columns, err, errlen)) return 0;
    width = columns * (size + 1) - 1;
    height = (int)((n + (size_t)columns - 1) / (size_t)columns) * (size + 1) - 1;
    bytes = (size_t)width * (size_t)height * (size_t)colours;
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

// ---- Arrays: .npz of bytes, .npy of floats, .npy of labels -------------------------------------------------------------

static inline void image_put_little(unsigned char *p, unsigned long v, int bytes) {
    int i;
    for (i = 0; i < bytes; i++) p[i] = (unsigned char)(v >> (8 * i) & 255);
}

// A zip archive of one stored file, arr_0.npy: uint8 [n,size,size,channels], as numpy.savez writes it.
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
    image_put_little(local + 4, 20, 2);                                          // version of the format
    image_put_little(local + 12, 0x21, 2);                                       // 1 January 1980
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

// Channels innermost to channels outermost, or back: x [pixels,channels] <-> y [channels,pixels].
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

// float32 [n,channels,size,size], as PyTorch has them.
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

// Labels from a .npy file of whole numbers (uint8, int32 or int64), one dimension: each from 0 to classes - 1, or -1 for none.
// The caller frees *out.
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

// ---- Opening a set -----------------------------------------------------------------------------------------------------

// Go to a byte of a file that may be larger than a long counts.
static inline int image_seek(FILE *f, size_t at) {
#if defined(ARGS_WINDOWS)
    return _fseeki64(f, (long long)at, SEEK_SET) == 0;
#elif defined(IMAGE_POSIX)
    return fseeko(f, (off_t)at, SEEK_SET) == 0;
#else
    return (long)at >= 0 && (size_t)(long)at == at && fseek(f, (long)at, SEEK_SET) == 0;
#endif
}

// Bytes of an open file, or -1.
static inline long long image_length(FILE *f) {
    if (fseek(f, 0, SEEK_END) != 0) return -1;
#if defined(ARGS_WINDOWS)
    return _ftelli64(f);
#elif defined(IMAGE_POSIX)
    return (long long)ftello(f);
#else
    return ftell(f);
#endif
}

// Open a file for image_read; what is no file of the disk is read at once.
static inline int image_load(image_part *p, char *err, size_t errlen) {
    const ctm_kind kind = ctm_path_kind(p->path);
    long long length;
    if (kind == CTM_NOTHING) return args_fail(err, errlen, "cannot read %s: %s", p->path, strerror(errno ? errno : ENOENT));
    if (kind == CTM_FOLDER) return args_fail(err, errlen, "cannot read %s: it is a folder", p->path);
    if (kind == CTM_DEVICE) {
        p->bytes = table_read_file(p->path, &p->length, err, errlen);
        return p->bytes != NULL;
    }
    p->f = ctm_fopen(p->path, "rb");
    length = p->f ? image_length(p->f) : -1;
    if (length < 0) return args_fail(err, errlen, "cannot read %s: %s", p->path, strerror(errno));
    if ((unsigned long long)length > (size_t)-1 / 2) return args_fail(err, errlen, "cannot read %s: it is too large for this machine", p->path);
    p->length = (size_t)length;
    return 1;
}

// Several threads may find the same part broken.
static inline void image_mark(image_part *p, int broken) {
#if defined(_OPENMP)
#pragma omp critical(image_mark)
#endif
    p->broken = broken;
}

// n bytes from `at` on into room. 0 if they are not there, as when the file became shorter: zeros, and the part is marked.
static inline int image_read(image_part *p, size_t at, size_t n, unsigned char *room) {
    size_t got = 0;
    if (p->bytes) {
        memcpy(room, p->bytes + at, n);
        return 1;
    }
#if defined(IMAGE_POSIX)
    while (got < n) {
        const ssize_t more = pread(fileno(p->f), room + got, n - got, (off_t)(at + got));
        if (more < 0 && errno == EINTR) continue;
        if (more <= 0) break;
        got += (size_t)more;
    }
#else
#if defined(_OPENMP)
#pragma omp critical(image_file)
#endif
    {
        if (image_seek(p->f, at)) got = fread(room, 1, n, p->f);
        if (got < n) clearerr(p->f);
    }
#endif
    if (got == n) return 1;
    memset(room + got, 0, n - got);
    image_mark(p, 1);
    return 0;
}

// 1 if all that was asked for so far could be read; else err names the file. To be asked after image_get and image_label.
static inline int image_intact(const image_set *s, char *err, size_t errlen) {
    int i;
    for (i = 0; i < s->parts; i++) {
        const image_part *p = &s->part[i];
        if (p->broken == 2) return args_fail(err, errlen, "cannot read %s: no memory", p->path);
        if (p->broken) return args_fail(err, errlen, "%s: its %lu bytes can no longer be read: it was changed after it was opened", p->path, (unsigned long)p->length);
    }
    return 1;
}

static inline int image_cut_off(const image_part *p, char *err, size_t errlen) {
    return args_fail(err, errlen, "%s: its %lu bytes cannot be read", p->path, (unsigned long)p->length);
}

static inline unsigned long image_big(const unsigned char *p) {
    return (unsigned long)p[0] << 24 | (unsigned long)p[1] << 16 | (unsigned long)p[2] << 8 | (unsigned long)p[3];
}

// The first part says what the set's images are; all others must agree.
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

// CIFAR-10: no header, so its size is all there is to check, and every label.
static inline int image_open_cifar(image_set *s, image_part *p, char *err, size_t errlen) {
    enum { AT_ONCE = 64 };
    unsigned char *block;
    size_t i, k;
    int good = 1;
    if (p->length == 0 || p->length % IMAGE_RECORD != 0)
        return args_fail(err, errlen, "%s: found %lu bytes (%lu records and %lu bytes over), expected records of %d bytes: CIFAR-10's binary batches, or idx, or .npy", p->path,
                         (unsigned long)p->length, (unsigned long)(p->length / IMAGE_RECORD), (unsigned long)(p->length % IMAGE_RECORD), IMAGE_RECORD);
    p->n = p->length / IMAGE_RECORD;
    p->start = 1;
    p->stride = IMAGE_RECORD;
    p->size = IMAGE_RECORD - 1;
    p->planes = p->labelled = 1;
    block = (unsigned char *)malloc((p->n < AT_ONCE ? p->n : (size_t)AT_ONCE) * IMAGE_RECORD);
    if (block == NULL) return args_fail(err, errlen, "cannot read %s: no memory", p->path);
    for (i = 0; i < p->n && good; i += AT_ONCE) {
        const size_t records = p->n - i < AT_ONCE ? p->n - i : (size_t)AT_ONCE;
        if (!image_read(p, i * IMAGE_RECORD, records * IMAGE_RECORD, block)) good = image_cut_off(p, err, errlen);
        for (k = 0; k < records && good; k++)
            if (block[k * IMAGE_RECORD] > 9)
                good = args_fail(err, errlen, "%s: record %lu has label %d, expected 0 to 9: not a batch of CIFAR-10", p->path, (unsigned long)(i + k), block[k * IMAGE_RECORD]);
    }
    free(block);
    if (!good) return 0;
    s->classes = 10;
    return image_agree(s, p, 32, 3, err, errlen);
}

// idx: two zeros, the type of the numbers, how many dimensions, these as four bytes each.
static inline int image_open_idx(image_set *s, image_part *p, const unsigned char *head, char *err, size_t errlen) {
    const unsigned long n = image_big(head + 4), h = image_big(head + 8), w = image_big(head + 12);
    if (h != w || h == 0 || h > IMAGE_SIZE_MAX) return args_fail(err, errlen, "%s: found idx images of %lu x %lu, expected squares of at most %d", p->path, h, w, IMAGE_SIZE_MAX);
    if ((p->length - 16) / (h * w) != n || (p->length - 16) % (h * w) != 0)
        return args_fail(err, errlen, "%s: found %lu bytes, expected %lu images of %lu x %lu behind a header of 16 bytes", p->path, (unsigned long)p->length, n, h, w);
    if (n == 0) return args_fail(err, errlen, "%s: holds no images", p->path);
    p->n = n;
    p->start = 16;
    p->size = p->stride = (size_t)h * (size_t)w;
    return image_agree(s, p, (int)h, 1, err, errlen);
}

// A float32 of a .npy file, whatever the order of bytes here.
static inline double image_f32(const unsigned char *p) {
    const unsigned int bits = (unsigned int)npy_u32(p);
    float v;
    memcpy(&v, &bits, 4);
    return (double)v;
}

// The smallest and the largest of a file of floats. Away from black and white they may lie a little, as samples do: 0..255 is a mistake.
static inline int image_check_floats(image_set *s, image_part *p, char *err, size_t errlen) {
    const double middle = s->scaled ? (s->range[0] + s->range[1]) / 2 : 0, reach = s->scaled ? 5 * fabs(s->range[1] - s->range[0]) : 10;
    unsigned char *room = (unsigned char *)malloc(p->size);
    size_t i, k;
    int good = room ? 1 : args_fail(err, errlen, "cannot read %s: no memory", p->path);
    for (i = 0; i < p->n && good; i++) {
        if (!image_read(p, p->start + i * p->stride, p->size, room)) good = image_cut_off(p, err, errlen);
        for (k = 0; k < p->size && good; k += 4) {
            const double v = image_f32(room + k);
            if (good && (!args_finite(v) || v <= middle - reach || v >= middle + reach))
                good = args_fail(err, errlen, "%s: image %lu holds the number %g, expected [%g,%g]%s", p->path, (unsigned long)i, v, s->scaled ? s->range[0] : -1.0,
                                 s->scaled ? s->range[1] : 1.0, args_finite(v) && !s->scaled ? ", or --range BLACK,WHITE" : "");
            if (v < s->least) s->least = v;
            if (v > s->most) s->most = v;
        }
    }
    free(room);
    return good;
}

// The array that begins at byte `at` of the file; in an archive (loose) other things may follow it.
static inline int image_open_npy(image_set *s, image_part *p, size_t at, int loose, char *err, size_t errlen) {
    const size_t head = p->length - at < 65552 ? p->length - at : 65552;
    unsigned char *copy = (unsigned char *)malloc(head + 1);
    char descr[24];
    npy_array a;
    size_t found;
    int good, width, c, h, w;
    memset(&a, 0, sizeof a);
    if (copy == NULL) return args_fail(err, errlen, "cannot read %s: no memory", p->path);
    good = image_read(p, at, head, copy) ? 1 : image_cut_off(p, err, errlen);
    copy[head] = '\0';
    good = good && npy_parse_head(p->path, copy, head, &a, descr, &p->start, err, errlen);
    free(copy);
    if (!good) return 0;
    p->start += at;
    p->floats = strcmp(descr, "<f4") == 0;
    width = p->floats ? 4 : 1;
    if (!p->floats && strcmp(descr, "|u1") != 0)
        return args_fail(err, errlen, "%s: found dtype '%s', expected '|u1' (uint8 [n,h,w,c]) or '<f4' (float32 [n,c,h,w] in [-1,1]): x.astype('|u1') or x.astype('<f4')", p->path, descr);
    if (a.ndim != 4 && (a.ndim != 3 || p->floats))
        return args_fail(err, errlen, "%s: found %d dimensions, expected %s", p->path, a.ndim,
                         !p->floats ? "[n,h,w,c] or [n,h,w]" : a.ndim == 3 ? "[n,c,h,w]: x[:,None]" : "[n,c,h,w]");
    p->planes = p->floats;
    for (c = 0; c < a.ndim; c++)
        if (a.shape[c] > 0x7FFFFFFFul) return args_fail(err, errlen, "%s: a dimension of %lu is no size of images", p->path, (unsigned long)a.shape[c]);
    c = a.ndim == 3 ? 1 : (int)a.shape[p->floats ? 1 : 3];
    h = (int)a.shape[p->floats ? 2 : 1];
    w = (int)a.shape[p->floats ? 3 : 2];
    if (h != w) {
        const int first = p->floats && (int)a.shape[1] == h, last = a.ndim == 4 && !p->floats && (int)a.shape[3] == w;
        return args_fail(err, errlen, "%s: found images of %d x %d in %s, expected squares%s", p->path, h, w, p->floats ? "float32 [n,c,h,w]" : "uint8 [n,h,w,c]",
                         first ? ": x.transpose(0,3,1,2)" : last ? ": x.transpose(0,2,3,1)" : "");
    }
    if (a.shape[0] == 0) return args_fail(err, errlen, "%s: holds no images", p->path);
    found = (p->length - p->start) / (size_t)width;
    if (found < a.count || (!loose && (found != a.count || (p->length - p->start) % (size_t)width != 0)))
        return args_fail(err, errlen, "%s: found %lu bytes of values, expected %lu as the shape says", p->path, (unsigned long)(p->length - p->start), (unsigned long)(a.count * (size_t)width));
    p->n = a.shape[0];
    p->size = p->stride = (size_t)h * (size_t)w * (size_t)c * (size_t)width;
    return image_agree(s, p, h, c, err, errlen) && (!p->floats || image_check_floats(s, p, err, errlen));
}

// .npz is a zip archive: 30 bytes, the first file's name, something else, then the file, if it is not compressed.
static inline int image_open_npz(image_set *s, image_part *p, char *err, size_t errlen) {
    unsigned char head[30];
    size_t at;
    if (p->length < sizeof head) return args_fail(err, errlen, "%s: the archive ends within its header", p->path);
    if (!image_read(p, 0, sizeof head, head)) return image_cut_off(p, err, errlen);
    at = sizeof head + (size_t)(head[26] | head[27] << 8) + (size_t)(head[28] | head[29] << 8);
    if (head[8] != 0 || head[9] != 0) return args_fail(err, errlen, "%s: its arrays are compressed, expected numpy.savez, not numpy.savez_compressed", p->path);
    if (at > p->length) return args_fail(err, errlen, "%s: the archive ends within its header", p->path);
    return image_open_npy(s, p, at, 1, err, errlen);
}

// A file of labels joins the set; their number is checked when all files are open.
static inline int image_open_labels(image_set *s, image_part *p, const unsigned char *head, char *err, size_t errlen) {
    const unsigned long n = image_big(head + 4);
    unsigned char *label;
    size_t i;
    if (p->length - 8 != n) return args_fail(err, errlen, "%s: found %lu bytes, expected %lu labels behind a header of 8 bytes", p->path, (unsigned long)p->length, n);
    label = (unsigned char *)realloc(s->label, s->labels + n + 1);
    if (label == NULL) return args_fail(err, errlen, "cannot read %s: no memory", p->path);
    s->label = label;
    if (!image_read(p, 8, n, label + s->labels)) return image_cut_off(p, err, errlen);
    for (i = s->labels; i < s->labels + n; i++)
        if (label[i] >= s->classes) s->classes = label[i] + 1;
    s->labels += n;
    return 1;
}

static inline void image_close_part(image_part *p) {
    free(p->bytes);
    if (p->f) fclose(p->f);
    memset(p, 0, sizeof *p);
}

// Release everything and leave the set empty. Harmless after a failure.
static inline void image_close(image_set *s) {
    int i;
    for (i = 0; i < IMAGE_PARTS; i++) image_close_part(&s->part[i]);
    free(s->label);
    free(s->paths);
    memset(s, 0, sizeof *s);
}

// What people have that is no set of images, told by its first bytes, with which no batch of CIFAR-10 begins; or NULL.
static inline const char *image_stranger(const unsigned char *head) {
    static const char picture[] = "is one picture; expected all in one array: numpy.save('set.npy', numpy.stack(pictures))";
    static const char pickle[] = "is a pickle of Python; expected CIFAR-10's binary version (make cifar10 fetches it), idx, or .npy";
    static const struct { const char *magic, *what; } known[] = {
        {"\x1F\x8B", "is compressed; gunzip it first, or gunzip -c FILE | images ... --data /dev/stdin"}, {"BZh", "is compressed; bunzip2 it first"},
        {"\xFD" "7zXZ", "is compressed; unxz it first"}, {"\x28\xB5\x2F\xFD", "is compressed; unzstd it first"},
        {"\x89PNG", picture}, {"\xFF\xD8\xFF", picture}, {"GIF8", picture}, {"P5", picture}, {"P6", picture},
        {"\x80\x02", pickle}, {"\x80\x03", pickle}, {"\x80\x04", pickle}, {"\x80\x05", pickle},
        {"\x89HDF", "is a file of HDF5; expected CIFAR-10's binary batches, idx, or .npy"}};
    int i;
    for (i = 0; i < ARGS_COUNT(known); i++)
        if (memcmp(head, known[i].magic, strlen(known[i].magic)) == 0) return known[i].what;
    return NULL;
}

// Which format it is. A batch of CIFAR-10 may begin like idx, with the label 0 and dark pixels; then its length decides.
static inline int image_open_format(image_set *s, image_part *p, const unsigned char *head, char *err, size_t errlen) {
    const int records = p->length % IMAGE_RECORD == 0, idx = head[0] == 0 && head[1] == 0 && head[2] >= 8 && head[2] <= 14 && head[3] >= 1 && head[3] <= 4;
    const char *other = image_stranger(head);
    if (other) return args_fail(err, errlen, "%s: %s", p->path, other);
    if (memcmp(head, "\x93NUMPY", 6) == 0) return image_open_npy(s, p, 0, 0, err, errlen);
    if (memcmp(head, "PK\3\4", 4) == 0) return image_open_npz(s, p, err, errlen);
    if (p->length < 16) return args_fail(err, errlen, "%s: found %lu bytes, expected images: CIFAR-10's records of %d bytes, idx, or .npy", p->path, (unsigned long)p->length, IMAGE_RECORD);
    if (memcmp(head, "\0\0\x08\x03", 4) == 0 && (!records || image_big(head + 8) == image_big(head + 12))) return image_open_idx(s, p, head, err, errlen);
    if (!records && idx && head[2] != 8)
        return args_fail(err, errlen, "%s: found idx with numbers of type 0x%02x, expected 0x08, bytes", p->path, head[2]);
    if (!records && idx)
        return args_fail(err, errlen, "%s: found idx of %d dimensions, expected 3 (images) or 1 (labels)", p->path, head[3]);
    return image_open_cifar(s, p, err, errlen);
}

// One file of the list: images become a part, labels are put aside.
static inline int image_open_file(image_set *s, const char *path, char *err, size_t errlen) {
    image_part *p = &s->part[s->parts];
    unsigned char head[16];
    if (s->parts == IMAGE_PARTS) return args_fail(err, errlen, "%s: is file number %d of the set, expected at most %d", path, s->parts + 1, IMAGE_PARTS);
    if (path[0] == '\0') return args_fail(err, errlen, "found a list of files with an empty name, expected FILE,FILE,...");
    memset(p, 0, sizeof *p);
    memset(head, 0, sizeof head);
    p->path = path;
    if (!image_load(p, err, errlen)) return 0;
    if (!image_read(p, 0, p->length < 16 ? p->length : 16, head)) return image_cut_off(p, err, errlen);
    if (memcmp(head, "\0\0\x08\x01", 4) == 0 && p->length >= 8 && (p->length % IMAGE_RECORD != 0 || image_big(head + 4) == p->length - 8)) {
        const int good = image_open_labels(s, p, head, err, errlen);
        image_close_part(p);
        return good;
    }
    if (!image_open_format(s, p, head, err, errlen)) return 0;
    p->first = s->n;
    s->n += p->n;
    s->parts++;
    return 1;
}

static const char *const image_folder_names[] = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin",
    "train-images-idx3-ubyte", "train-images.idx3-ubyte", "train-labels-idx1-ubyte", "train-labels.idx1-ubyte"};

// The names of the set's files, one behind the other with a zero behind each. The caller frees them; *used: their bytes. A folder has
// those that can be a training set. What is there under the whole name is one file, whatever commas the name has.
static inline char *image_names(const char *data, size_t *used) {
    const size_t length = strlen(data) + 32;
    const ctm_kind kind = ctm_path_kind(data);
    char *names = (char *)malloc(ARGS_COUNT(image_folder_names) * length), *p;
    int i;
    *used = strlen(data) + 1;
    if (names == NULL) return NULL;
    memcpy(names, data, *used);
    for (p = names; kind == CTM_NOTHING && (p = strchr(p, ',')) != NULL; p++) *p = '\0';
    if (kind != CTM_FOLDER) return names;
    *used = 0;
    for (i = 0; i < ARGS_COUNT(image_folder_names); i++)
        if (args_join(names + *used, length, data, image_folder_names[i]) && ctm_path_kind(names + *used) == CTM_FILE) *used += strlen(names + *used) + 1;
    return names;
}

// Open a folder, a file, or files separated by commas. range[2]: the numbers that are black and white; NULL: 0 and 255 in bytes, -1
// and 1 in floats.
static inline int image_open_scaled(image_set *s, const char *data, const double *range, char *err, size_t errlen) {
    size_t room, at;
    int good = 1;
    memset(s, 0, sizeof *s);
    s->least = 1e30;
    s->most = -1e30;
    if (range) {
        s->scaled = 1;
        s->range[0] = range[0];
        s->range[1] = range[1];
    }
    s->paths = image_names(data, &room);
    if (s->paths == NULL) return args_fail(err, errlen, "cannot read %s: no memory", data);
    if (room == 0) good = args_fail(err, errlen, "%s: is a folder with neither data_batch_1.bin ... nor train-images-idx3-ubyte (gunzipped)", data);
    for (at = 0; good && at < room; at += strlen(s->paths + at) + 1) good = image_open_file(s, s->paths + at, err, errlen);
    if (good && s->n == 0) good = args_fail(err, errlen, "%s: holds labels only, expected images", data);
    if (good && s->label && s->labels != s->n)
        good = args_fail(err, errlen, "%s: found %lu labels for %lu images, expected one for each", data, (unsigned long)s->labels, (unsigned long)s->n);
    if (!good) image_close(s);
    return good;
}
static inline int image_open(image_set *s, const char *data, char *err, size_t errlen) { return image_open_scaled(s, data, NULL, err, errlen); }

// ---- Reading images ----------------------------------------------------------------------------------------------------

static inline image_part *image_part_of(image_set *s, size_t i) {
    int k = 0;
    while (k + 1 < s->parts && i >= s->part[k + 1].first) k++;
    return &s->part[k];
}

// Image i into x[size*size*channels], in [-1,1]; mirrored left to right if flip is 1. Zeros where image_intact will say so.
static inline void image_get(image_set *s, size_t i, int flip, IMAGE_REAL *x) {
    image_part *p = image_part_of(s, i);
    const size_t size = (size_t)s->size, channels = (size_t)s->channels;
    const double black = s->scaled ? s->range[0] : 0, half = s->scaled ? (s->range[1] - s->range[0]) / 2 : 127.5;
    unsigned char *b = (unsigned char *)malloc(p->size);
    size_t row, column, c;
    if (b) image_read(p, p->start + (i - p->first) * p->stride, p->size, b);
    else image_mark(p, 2);
    for (row = 0; row < size; row++)
        for (column = 0; column < size; column++)
            for (c = 0; c < channels; c++) {
                const size_t from = flip ? size - 1 - column : column;
                const size_t at = p->planes ? (c * size + row) * size + from : (row * size + from) * channels + c;
                const double v = !b ? 0 : p->floats ? image_f32(b + 4 * at) : b[at];
                x[(row * size + column) * channels + c] = (IMAGE_REAL)(p->floats && !s->scaled ? v : (v - black) / half - 1);
            }
    free(b);
}

// The class of image i, or -1.
static inline int image_label(image_set *s, size_t i) {
    image_part *p = image_part_of(s, i);
    unsigned char label;
    if (s->label) return s->label[i];
    if (!p->labelled || !image_read(p, p->start + (i - p->first) * p->stride - 1, 1, &label)) return -1;
    return label;
}

// 1 with a line if black and white seem to be other numbers than those that they are taken for; not if they were given. A set of
// bytes is judged by 64 of its images.
static inline int image_doubtful(image_set *s, char *line, size_t size) {
    const size_t dim = (size_t)s->size * (size_t)s->size * (size_t)s->channels;
    const double least = s->least, most = s->most;
    IMAGE_REAL *x;
    int brightest = 0;
    size_t k, j;
    if (s->scaled) return 0;
    if (least <= most) {                            // some files are floats
        const int positive = least >= 0 && most > 0, narrow = least >= -0.5 && most <= 0.5 && most > least;
        if (!positive && !narrow && least >= -1.5 && most <= 1.5) return 0;
        args_fail(line, size, "%s: its numbers lie between %g and %g, but -1 is taken for black and 1 for white; say otherwise with --range %s (or --range -1,1: they are right)",
                  s->paths, least, most, narrow && !positive ? "-0.5,0.5" : positive && most <= 1 ? "0,1" : "BLACK,WHITE");
        return 1;
    }
    x = (IMAGE_REAL *)malloc(dim * sizeof *x);
    for (k = 0; x && k < 64 && brightest < 64; k++) {
        image_get(s, k * (s->n - 1) / 63, 0, x);
        for (j = 0; j < dim; j++)
            if (image_byte((double)x[j]) > brightest) brightest = image_byte((double)x[j]);
    }
    free(x);
    if (brightest == 0 || brightest >= 64) return 0;
    args_fail(line, size, "%s: its brightest byte is %d, but 255 is taken for white; say otherwise with --range 0,%d (or --range 0,255: it is right)", s->paths, brightest, brightest);
    return 1;
}

// "BLACK,WHITE" into range[2]; 0 if it is no two different numbers.
static inline int image_range(const char *text, double *range) {
    const char *comma = strchr(text, ',');
    char black[40];
    const size_t n = comma ? (size_t)(comma - text) : sizeof black;
    if (n >= sizeof black) return 0;
    memcpy(black, text, n);
    black[n] = '\0';
    return args_real(black, &range[0]) == 1 && args_real(comma + 1, &range[1]) == 1 && range[0] != range[1] && fabs(range[0]) < 1e30 && fabs(range[1]) < 1e30;
}

// A number that tells sets apart: from sizes and 64 images spread over the set.
static inline unsigned long long image_fingerprint(image_set *s) {
    unsigned long long h = 14695981039346656037ull;
    const size_t dim = (size_t)s->size * (size_t)s->size * (size_t)s->channels;
    IMAGE_REAL *x = (IMAGE_REAL *)malloc(dim * sizeof *x);
    size_t k, j;
    if (x == NULL) image_mark(&s->part[0], 2);
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

// ---- A set that needs no download --------------------------------------------------------------------------------------

// Ten classes of shapes in a colour, on a background that runs from one colour to another: disc, square, triangle, ring, cross, horizontal
// stripes, vertical stripes, diamond, half disc, checkerboard.

// How far (u,v) is inside the shape: positive inside, about in units of its radius 1.
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

// The numbers that make one image, each in (0,1): drawn by the caller, so that this file needs no random numbers.
enum { IMAGE_SYNTH_DRAWS = 16 };

// One record of CIFAR-10's format, IMAGE_RECORD bytes.
static inline void image_synth(const double *draw, unsigned char *record) {
    const int label = (int)(10 * draw[0]);
    const double radius = 9 + 3 * draw[1], cx = 15.5 + 4 * (draw[2] - 0.5), cy = 15.5 + 4 * (draw[3] - 0.5), angle = 6.283185307 * draw[4];
    const double across = cos(angle) / 44, along = sin(angle) / 44, softness = 0.8 / radius;
    double shape[3], from[3], to[3];
    int x, y, c;
    for (c = 0; c < 3; c++) {                         // the shape is light and the background dark, or the other way round
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
            a = a < 0 ? 0 : a > 1 ? 1 : a;            // edges are smooth over about a pixel
            for (c = 0; c < 3; c++) {
                const double v = a * shape[c] + (1 - a) * (from[c] + (to[c] - from[c]) * g);
                record[1 + 1024 * c + 32 * y + x] = (unsigned char)(v < 0 ? 0 : v > 255 ? 255 : v + 0.5);
            }
        }
}

#endif
