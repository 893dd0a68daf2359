// A .npy file: as numbers (noise for sampling), and as labels. What was read as numbers and is written again is the same file, up to
// its header's blanks.
#include "fuzz.h"
#include "../../examples/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = fuzz_file(0, data, size);
    unsigned char head[NPY_HEADER_MAX];
    char err[600] = "";
    int *label;
    size_t n, where, i;
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
    return 0;
}

// Mostly keeps the length of the header right, and the shape to what there is.
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed) {
    fuzz_state = seed * 0x9e3779b97f4a7c15u + 1;
    size = LLVMFuzzerMutate(data, size, max);
    if (size >= 12 && fuzz_random(4) && memcmp(data, "\x93NUMPY", 6) == 0) {
        uint8_t *brace = (uint8_t *)memchr(data, '}', size), *shape = (uint8_t *)memchr(data, '(', size);
        size_t at = data[6] == 1 ? 10 : 12, start;
        char text[64];
        if (!brace || brace < data + at) return size;
        start = (size_t)(brace - data) + 1;
        while (start < size && data[start] == ' ') start++;
        start += start < size;
        fuzz_put(data + 8, start - at, data[6] == 1 ? 2 : 4, 0);
        if (shape && fuzz_random(2)) {                                     // (count,), and the rest of the parenthesis as blanks
            size_t width = memchr(data, '4', start) ? 4 : memchr(data, '8', start) ? 8 : 1, room = 0, k;
            while (shape + room < brace && shape[room] != ')') room++;
            k = (size_t)snprintf(text, sizeof text, "(%lu,", (unsigned long)((size - start) / width));
            if (k <= room) { memset(shape, ' ', room); memcpy(shape, text, k); size = start + (size - start) / width * width; }
        }
    }
    return size;
}
