// All tests in one program: build/test_float and build/test_double. Arguments: a part of a name runs the tests that contain it.
#include <stdio.h>
static void test_panic_handler(const char *msg, const char *file, int line);
#define CTM_PANIC(msg, file, line) test_panic_handler(msg, file, line)
static void *test_malloc(size_t n);
#define CTM_MALLOC(ctx, n) ((void)(ctx), test_malloc(n))
#define CTM_FREE(ctx, p)   ((void)(ctx), free(p))
#define CTM_IMPLEMENTATION
#include "../ctm.h"
#include "test.h"

test_state test_now;
jmp_buf    test_jump;
int        test_jump_set;
char       test_panic[1024];
long       test_allocations = -1;

static void *test_malloc(size_t n) { return test_allocations >= 0 && test_allocations-- == 0 ? NULL : malloc(n); }

static void test_panic_handler(const char *msg, const char *file, int line) {
    snprintf(test_panic, sizeof test_panic, "%s", msg);
    if (test_jump_set) longjmp(test_jump, 1);
    printf("FAIL %s  panic outside of PANICS: %s (%s:%d)\n", test_now.name ? test_now.name : "?", msg, file, line);
    exit(1);
}

#include "test_base.c"         // chapters 1-7 and the engine room: numbers, random numbers, memory, threads, tensors, printing, tape, kernels
#include "test_operations.c"   // chapter 8
#include "test_networks.c"     // chapters 9, 10
#include "test_unet.c"         // chapters 8, 9: images
#include "test_diffusion.c"    // chapters 11-15: schedules, denoisers, solvers, the jump, times
#include "test_training.c"     // chapters 16, 17
#include "test_sampling.c"     // chapters 18, 19
#include "test_checkpoints.c"  // chapter 21
#include "test_recipes.c"      // chapters 14, 15, 21: settings, recipes, functions of one's own, files of version 0.2
#include "test_processes.c"    // chapter 17: several processes
#include "test_lpips.c"        // chapters 8, 16, 21: the perceptual distance

int main(int argc, char **argv) {
    test_now.only = argc > 1 ? argv[1] : NULL;
    run_base();
    run_operations();
    run_networks();
    run_unet();
    run_diffusion();
    run_training();
    run_sampling();
    run_checkpoints();
    run_recipes();
    run_processes();
    run_lpips();
    printf("%s: %d passed, %d failed, %d skipped\n", IN_DOUBLE ? "double" : "float", test_now.passed_total, test_now.failed_total, test_now.skipped_total);
    return test_now.failed_total > 0;
}
