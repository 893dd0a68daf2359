// One program of apps/ as a function, PROGRAM(argc, argv), for the target flags: it looks at all its flags and is stopped where
// it would begin to work. Compiled once for every program, with its name and its file:
//     cc -DCTM_LINKED -DPROGRAM=fuzz_points -DPROGRAM_FILE='"../../apps/points.c"' ...
#include <stdio.h>
#include <stdlib.h>
#include "../../ctm.h"

extern FILE *flags_out, *flags_err;
int   flags_stop(void);
void *flags_calloc(size_t n, size_t size);
#undef stdout
#undef stderr
#define stdout flags_out
#define stderr flags_err
#include "../../apps/args.h"
#include "../../apps/table.h"
#define calloc(n, size)          flags_calloc(n, size)
#define ctm_arena_init(...)      flags_stop()
#define args_mkdir(...)          flags_stop()
#define args_open_atomic(...)    (flags_stop(), (FILE *)NULL)
#define main                     PROGRAM
int PROGRAM(int argc, char **argv);
#include PROGRAM_FILE
