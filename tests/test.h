// A tiny harness. A test is a function that CHECKs; the name of the running test stands in every failure. All test files are
// included by tests/main.c, which is built twice: with float (fast paths, golden values to rounding) and with double (finite
// differences, golden values to 1e-9). IN_DOUBLE tells them apart; SKIP counts a test as skipped and says why.
#ifndef CTM_TEST_H
#define CTM_TEST_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "../ctm.h"

#ifdef CTM_REAL_DOUBLE
#define IN_DOUBLE 1
#else
#define IN_DOUBLE 0
#endif

typedef struct test_state {
    const char *name;      // of the running test
    const char *only;      // run tests whose name contains this; NULL: all
    int failed, skipped;   // of the running test
    int passed_total, failed_total, skipped_total;
} test_state;
extern test_state test_now;

static inline void test_fail(const char *file, int line, const char *what) {
    if (test_now.failed++ < 5) printf("FAIL %s  %s:%d  %s\n", test_now.name, file, line, what);
}
static inline void test_close(const char *file, int line, const char *what, double got, double want, double tolerance) {
    char text[300];
    if (ctm_is_finite(got) && fabs(got - want) <= tolerance) return;
    snprintf(text, sizeof text, "%s = %.12g, expected %.12g within %.3g", what, got, want, tolerance);
    test_fail(file, line, text);
}

#define CHECK(ok)               do { if (!(ok)) test_fail(__FILE__, __LINE__, #ok); } while (0)
#define CHECK_CLOSE(got, want, tolerance) test_close(__FILE__, __LINE__, #got, (double)(got), (double)(want), (double)(tolerance))
#define CHECK_TEXT(text, part)  do { if (!strstr((text), (part))) { test_fail(__FILE__, __LINE__, "\"" part "\" is not in the text:"); printf("     %s\n", (text)); } } while (0)
#define SKIP(why)               do { printf("skip %s  %s\n", test_now.name, why); test_now.skipped = 1; return; } while (0)

// 1 if a word of the environment's CTM_TEST_SKIP (separated by spaces) is in the name: for machines on which a test takes too long.
static inline int test_unwanted(const char *name) {
    const char *words = getenv("CTM_TEST_SKIP");
    char word[64];
    int n;
    for (; words && sscanf(words, " %63s%n", word, &n) == 1; words += n) if (strstr(name, word)) return 1;
    return 0;
}

// RUN(name) runs test_name() and counts it. With CTM_TEST_TIMES in the environment it says how long that took.
#define RUN(function) test_run(#function, test_##function)
static inline void test_run(const char *name, void (*function)(void)) {
    clock_t begun = clock();
    if (test_now.only && !strstr(name, test_now.only)) return;
    if (test_unwanted(name)) { test_now.skipped_total++; return; }
    test_now.name = name;
    test_now.failed = test_now.skipped = 0;
    function();
    if (getenv("CTM_TEST_TIMES")) printf("%8.2f s  %s\n", (double)(clock() - begun) / CLOCKS_PER_SEC, name);
    if (test_now.failed)       test_now.failed_total++;
    else if (test_now.skipped) test_now.skipped_total++;
    else                       test_now.passed_total++;
}

// Panics are caught by a long jump, so that a test can read the message: if (PANICS(expression)) ... test_panic has the text.
#include <setjmp.h>
extern jmp_buf test_jump;
extern int     test_jump_set;
extern char    test_panic[1024];
extern long    test_allocations;      // so many more of ctm.h's allocations succeed, then one fails; -1: none fails
#define PANICS(expression) (test_jump_set = 1, setjmp(test_jump) ? (test_jump_set = 0, 1) : ((void)(expression), test_jump_set = 0, 0))

#endif
