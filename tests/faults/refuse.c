// Loaded before a program (LD_PRELOAD): its allocation number REFUSE, counted from 0, fails. With REFUSE_COUNT=FILE the number of all
// allocations is written there at the end. glibc only, whose own malloc is called beneath.   cc -shared -fPIC refuse.c -o refuse.so
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <unistd.h>

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);

static long number = -1, refuse = -1;       // before the constructor nothing is counted

static int refused(void) {
    if (number < 0 || __sync_fetch_and_add(&number, 1) != refuse) return 0;
    errno = ENOMEM;
    return 1;
}
void *malloc(size_t n) { return refused() ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return refused() ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return refused() ? NULL : __libc_realloc(p, n); }

__attribute__((constructor)) static void begin(void) {
    const char *text = getenv("REFUSE");
    if (text) refuse = atol(text);
    number = 0;
}

__attribute__((destructor)) static void end(void) {
    const char *path = getenv("REFUSE_COUNT");
    char text[32];
    int f;
    if (!path) return;
    snprintf(text, sizeof text, "%ld\n", number);
    f = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (f >= 0) { if (write(f, text, strlen(text)) < 0) _exit(99); close(f); }
}
