// A binary batch of CIFAR-10, which has no header; the first byte of the input says how the file is opened.
#include "images.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    fuzz_way = data[0] % FUZZ_WAYS;
    fuzz_image_set(fuzz_file(0, data + 1, size - 1), NULL);
    return 0;
}

// Whole records, most of the time, of few kinds: what matters is their number and their labels.
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed) {
    size_t records, i;
    fuzz_state = seed * 0x9e3779b97f4a7c15u + 1;
    if (fuzz_random(4) == 0) return LLVMFuzzerMutate(data, size, max);
    records = fuzz_random(8) ? 1 : fuzz_random(3);
    if (1 + records * IMAGE_RECORD > max) return LLVMFuzzerMutate(data, size, max);
    for (i = size; i < 1 + records * IMAGE_RECORD; i++) data[i] = (uint8_t)(i * 37);
    size = 1 + records * IMAGE_RECORD;
    data[0] = (uint8_t)fuzz_random(3);
    for (i = 0; i < records; i++) data[1 + i * IMAGE_RECORD] = (uint8_t)fuzz_random(fuzz_random(4) ? 10 : 256);
    if (fuzz_random(4) == 0) size += size < max;
    return size;
}
