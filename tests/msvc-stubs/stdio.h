#ifndef MS_STDIO
#define MS_STDIO
#include <vcruntime.h>
MS_BEGIN
typedef struct _iobuf { void *placeholder; } FILE;
typedef long long fpos_t;
FILE *__acrt_iob_func(unsigned n);
#define stdin  (__acrt_iob_func(0))
#define stdout (__acrt_iob_func(1))
#define stderr (__acrt_iob_func(2))
#define EOF (-1)
#define SEEK_SET 0
#define SEEK_CUR 1
#define SEEK_END 2
#define BUFSIZ 512
#define _IONBF 4
FILE *fopen(const char *path, const char *mode);
FILE *_wfopen(const wchar_t *path, const wchar_t *mode);
FILE *_fdopen(int fd, const char *mode);
FILE *_popen(const char *command, const char *mode);
int _pclose(FILE *f);
int _fileno(FILE *f);
int _wremove(const wchar_t *path);
int fclose(FILE *f);
int fflush(FILE *f);
int ferror(FILE *f);
int feof(FILE *f);
void clearerr(FILE *f);
size_t fread(void *p, size_t size, size_t n, FILE *f);
size_t fwrite(const void *p, size_t size, size_t n, FILE *f);
int fseek(FILE *f, long at, int from);
long ftell(FILE *f);
int _fseeki64(FILE *f, long long at, int from);
long long _ftelli64(FILE *f);
void rewind(FILE *f);
int setvbuf(FILE *f, char *buffer, int mode, size_t size);
int fgetc(FILE *f);
int getc(FILE *f);
int ungetc(int c, FILE *f);
char *fgets(char *text, int n, FILE *f);
int fputs(const char *text, FILE *f);
int fputc(int c, FILE *f);
int putc(int c, FILE *f);
int putchar(int c);
int puts(const char *text);
int printf(const char *format, ...);
int fprintf(FILE *f, const char *format, ...);
int sprintf(char *out, const char *format, ...);
int snprintf(char *out, size_t n, const char *format, ...);
int vsnprintf(char *out, size_t n, const char *format, va_list list);
int vfprintf(FILE *f, const char *format, va_list list);
int sscanf(const char *text, const char *format, ...);
int rename(const char *from, const char *to);
int remove(const char *path);
void perror(const char *text);
MS_END
#endif
