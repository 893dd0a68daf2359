#ifndef MS_STRING
#define MS_STRING
#include <vcruntime.h>
MS_BEGIN
void *memcpy(void *to, const void *from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *p, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);
char *strcpy(char *to, const char *from);
char *strncpy(char *to, const char *from, size_t n);
char *strcat(char *to, const char *from);
size_t strspn(const char *s, const char *set);
size_t strcspn(const char *s, const char *set);
char *strtok(char *s, const char *set);
char *strerror(int number);
#ifdef __cplusplus
const void *memchr(const void *p, int c, size_t n);
const char *strchr(const char *s, int c);
const char *strrchr(const char *s, int c);
const char *strstr(const char *s, const char *part);
const char *strpbrk(const char *s, const char *set);
}
inline void *memchr(void *p, int c, size_t n) { return const_cast<void *>(memchr(static_cast<const void *>(p), c, n)); }
inline char *strchr(char *s, int c) { return const_cast<char *>(strchr(static_cast<const char *>(s), c)); }
inline char *strrchr(char *s, int c) { return const_cast<char *>(strrchr(static_cast<const char *>(s), c)); }
inline char *strstr(char *s, const char *part) { return const_cast<char *>(strstr(static_cast<const char *>(s), part)); }
inline char *strpbrk(char *s, const char *set) { return const_cast<char *>(strpbrk(static_cast<const char *>(s), set)); }
extern "C" {
#else
void *memchr(const void *p, int c, size_t n);
char *strchr(const char *s, int c);
char *strrchr(const char *s, int c);
char *strstr(const char *s, const char *part);
char *strpbrk(const char *s, const char *set);
#endif
MS_END
#endif
