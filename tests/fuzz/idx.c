// Two files of a set, idx images and their labels. The input: one byte says how the files are opened and how many
// they are, two the size of the first (little-endian).
#include "images.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t first;
    char list[64];
    if (size < 3) return 0;
    first = (size_t)data[1] | (size_t)data[2] << 8;
    if (first > size - 3) first = size - 3;
    fuzz_way = data[0] % 128 % FUZZ_WAYS;
    snprintf(list, sizeof list, "%s", fuzz_file(0, data + 3, first));
    if (data[0] & 128) snprintf(list + strlen(list), sizeof list - strlen(list), ",%s", fuzz_file(1, data + 3 + first, size - 3 - first));
    fuzz_image_set(list, NULL);
    return 0;
}

// Puts the counts of idx headers right, most of the time.
static void idx_fit(uint8_t *p, size_t size) {
    if (size >= 16 && memcmp(p, "\0\0\x08\x03", 4) == 0) {
        const size_t pixels = (size_t)fuzz_u32(p + 8, 1) * fuzz_u32(p + 12, 1);
        if (fuzz_random(2)) memcpy(p + 12, p + 8, 4);
        if (pixels && pixels <= size) fuzz_put(p + 4, (size - 16) / pixels, 4, 1);
    }
    if (size >= 8 && memcmp(p, "\0\0\x08\x01", 4) == 0) fuzz_put(p + 4, size - 8, 4, 1);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed) {
    fuzz_state = seed * 0x9e3779b97f4a7c15u + 1;
    size = LLVMFuzzerMutate(data, size, max);
    if (size >= 3 && fuzz_random(4)) {
        size_t first = (size_t)data[1] | (size_t)data[2] << 8;
        if (first > size - 3) first = size - 3;
        if (fuzz_random(2) && first >= 16 && memcmp(data + 3, "\0\0\x08\x03", 4) == 0) {       // the first ends with its last image
            const size_t h = data[3 + 11] % 8 + 1, n = (first - 16) / (h * h);
            fuzz_put(data + 3 + 8, h, 4, 1);
            fuzz_put(data + 3 + 12, h, 4, 1);
            memmove(data + 3 + 16 + n * h * h, data + 3 + first, size - 3 - first);
            size -= first - 16 - n * h * h;
            first = 16 + n * h * h;
            if (size - 3 - first >= 8 + n) size = 3 + first + 8 + n;
            fuzz_put(data + 1, first, 2, 0);
        }
        idx_fit(data + 3, first);
        idx_fit(data + 3 + first, size - 3 - first);
    }
    return size;
}
