#ifndef MS_STDLIB
#define MS_STDLIB
#include <vcruntime.h>
MS_BEGIN
#define EXIT_FAILURE 1
#define EXIT_SUCCESS 0
#define RAND_MAX 0x7fff
void *malloc(size_t n);
void *calloc(size_t n, size_t size);
void *realloc(void *p, size_t n);
void free(void *p);
__declspec(noreturn) void abort(void);
__declspec(noreturn) void exit(int status);
int abs(int v);
long labs(long v);
double atof(const char *text);
int atoi(const char *text);
double strtod(const char *text, char **end);
long strtol(const char *text, char **end, int base);
unsigned long strtoul(const char *text, char **end, int base);
long long strtoll(const char *text, char **end, int base);
unsigned long long strtoull(const char *text, char **end, int base);
char *getenv(const char *name);
int system(const char *command);
void qsort(void *base, size_t n, size_t size, int (*order)(const void *, const void *));
void *bsearch(const void *key, const void *base, size_t n, size_t size, int (*order)(const void *, const void *));
int rand(void);
MS_END
#endif
