// A .npy or .npz file: as numbers (noise for sampling), as labels, and as images. What was read as numbers and is written again is
// read as the same.
#include "images.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = fuzz_file(0, data, size);
    unsigned char head[NPY_HEADER_MAX];
    char err[600] = "";
    int *label;
    size_t n = 0, where, i;
    npy_array a, b;
    if (npy_read_f32(path, &a, err, sizeof err)) {
        FUZZ_EXPECT(a.ndim >= 0 && a.ndim <= NPY_DIMS && a.count * 4 < size);
        if (!npy_all_finite(&a, &where)) FUZZ_EXPECT(where < a.count);
        if (size % 4 == 0) {
            size_t start = npy_make_header(head, "<f4", a.ndim, a.shape);
            uint8_t *again = (uint8_t *)malloc(start + a.count * 4);
            memcpy(again, head, start);
            memcpy(again + start, a.data, a.count * 4);
            FUZZ_EXPECT(npy_read_f32(fuzz_file(1, again, start + a.count * 4), &b, err, sizeof err));
            FUZZ_EXPECT(a.ndim == b.ndim && a.count == b.count && memcmp(a.shape, b.shape, sizeof a.shape) == 0 && memcmp(a.data, b.data, a.count * 4) == 0);
            npy_free(&b);
            free(again);
        }
        npy_free(&a);
    } else fuzz_check_line(err, path);
    if (image_read_labels(path, 10, &label, &n, err, sizeof err)) {
        for (i = 0; i < n; i++) FUZZ_EXPECT(label[i] >= -1 && label[i] < 10);
        free(label);
    } else fuzz_check_line(err, path);
    {
        static const double range[3][2] = {{0, 1}, {255, 0}, {-0.5, 0.5}};
        const uint64_t h = fuzz_hash(data, size);
        fuzz_way = (int)(h % FUZZ_WAYS);
        fuzz_image_set(path, h / 8 % 4 ? range[h / 8 % 4 - 1] : NULL);
    }
    return 0;
}

// Mostly keeps the length of the header right, and the shape to what there is.
static void npy_fit(uint8_t *data, size_t *whole, size_t before) {
    size_t size = *whole - before;
    if (size >= 12 && fuzz_random(4) && memcmp(data, "\x93NUMPY", 6) == 0) {
        uint8_t *brace = (uint8_t *)memchr(data, '}', size), *shape = (uint8_t *)memchr(data, '(', size);
        size_t at = data[6] == 1 ? 10 : 12, start;
        char text[64];
        if (!brace || brace < data + at) return;
        start = (size_t)(brace - data) + 1;
        while (start < size && data[start] == ' ') start++;
        start += start < size;
        fuzz_put(data + 8, start - at, data[6] == 1 ? 2 : 4, 0);
        if (shape && fuzz_random(2)) {                                     // the first size: as much as there is for the others
            size_t width = memchr(data, '4', start) ? 4 : memchr(data, '8', start) ? 8 : 1, first = 1, k;
            uint8_t *p;
            while (shape + first < brace && shape[first] >= '0' && shape[first] <= '9') first++;
            for (p = shape + first; p < brace && *p != ')'; p++) if (*p >= '1' && *p <= '9' && width < size) width *= *p - '0';
            k = (size_t)snprintf(text, sizeof text, "(%0*lu", (int)first - 1, (unsigned long)((size - start) / width));
            if (k == first && k < sizeof text) { memcpy(shape, text, k); *whole = before + start + (size - start) / width * width; }
        }
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed) {
    size_t before = 0;                                                     // bytes of an archive's header
    fuzz_state = seed * 0x9e3779b97f4a7c15u + 1;
    size = LLVMFuzzerMutate(data, size, max);
    if (size >= 30 && memcmp(data, "PK\3\4", 4) == 0) before = 30 + data[26] + 256u * data[27] + data[28] + 256u * data[29];
    if (before <= size) npy_fit(data + before, &size, before);
    return size;
}
