// The command lines of the programs. The input is the words of a line, a line each; the first is the program's number and the command
// may follow. A line that is refused gets one line on stderr and status 2.
#include <setjmp.h>
#include "fuzz.h"

int fuzz_points(int argc, char **argv);
int fuzz_claims(int argc, char **argv);
int fuzz_images(int argc, char **argv);
int fuzz_edit(int argc, char **argv);

FILE *flags_out, *flags_err;
static jmp_buf flags_back;
static void *flags_kept[16];
static int flags_count;

int flags_stop(void);
int flags_stop(void) { longjmp(flags_back, 1); }
void *flags_calloc(size_t n, size_t size);
void *flags_calloc(size_t n, size_t size) {
    void *p = calloc(n, size);
    if (flags_count < 16) flags_kept[flags_count++] = p;
    return p;
}

enum { FLAGS_WORDS = 64, FLAGS_TEXT = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int (*const program[4])(int, char **) = {fuzz_points, fuzz_claims, fuzz_images, fuzz_edit};
    static char text[FLAGS_TEXT], *said;
    static size_t length;
    char *words[FLAGS_WORDS + 1], *p;
    volatile int status = -1;
    int n = 0;
    if (!flags_err) { flags_err = open_memstream(&said, &length); flags_out = fopen("/dev/null", "w"); }
    if (size < 2 || size >= FLAGS_TEXT || memchr(data, 0, size)) return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    words[n++] = text;
    for (p = text; *p && n < FLAGS_WORDS; p++) if (*p == '\n') { *p = '\0'; words[n++] = p + 1; }
    p = strchr(words[n - 1], '\n');
    if (p) *p = '\0';
    words[n] = NULL;
    rewind(flags_err);
    flags_count = 0;
    if (setjmp(flags_back) == 0) status = program[data[0] % 4](n, words);
    fflush(flags_err);
    if (status == 2) FUZZ_EXPECT(length > 10 && strchr(said, '\n') == said + length - 1);
    else FUZZ_EXPECT((status == -1 || status == 0) && length == 0);
    if (status == -1) while (flags_count > 0) free(flags_kept[--flags_count]);
    return 0;
}
