#!/bin/sh
# ctm.h as a stranger would include it: every compiler that is here, every language standard, every macro, twice, late, in two
# files, in C++, after other headers, with other flags. No compiler may have anything to say, however strictly it is asked ($strict,
# $strict_c, $strict_cpp below). Missing compilers count as skipped.
# usage: sh tests/test_header.sh [long]      long: more standards, compilers, targets; every macro with every compiler; and the float tests
#                                            under -O3 -ffast-math, with char unsigned, for 32 bits and by other compilers
cd "$(dirname "$0")/.." || exit 1
root=$(pwd) long=$1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
cc=${CC:-cc}
warn="-Wall -Wextra -pedantic -Werror"
strict="$warn -Wconversion -Wsign-conversion -Wshadow -Wcast-qual -Wcast-align -Wdouble-promotion -Wundef -Wmissing-declarations -Wredundant-decls
        -Wfloat-equal -Wswitch-enum -Wswitch-default -Wvla -Wformat=2 -Wnull-dereference -Wunused-macros -Wpointer-arith -Wwrite-strings
        -Winit-self -Wstrict-overflow"
strict_c="$strict -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wnested-externs -Wunused-const-variable"
strict_cpp="$strict -Wold-style-cast -Wextra-semi"
plain="-DCTM_NO_SIMD -DCTM_NO_IMAGES"   # compiles in a third of the time, where vectors and images are not the point
jobs=0 skipped=0
openmp=
if echo 'int main(void){return 0;}' >"$tmp/omp.c" && $cc -fopenmp "$tmp/omp.c" -o "$tmp/omp" 2>/dev/null; then openmp=-fopenmp; fi

# job NAME COMMAND...: must succeed; two run at a time, and each leaves its verdict in a file
job() {
    name=$1; shift
    jobs=$((jobs + 1))
    ( if "$@" >"$tmp/log.$jobs" 2>&1; then echo ok
      else echo "FAIL header: $name"; head -n 12 "$tmp/log.$jobs" | sed 's/^/     /'; fi >"$tmp/verdict.$jobs" ) &
    if [ $((jobs % 2)) = 0 ]; then wait; fi
}
skip() { skipped=$((skipped + 1)); echo "skip header: $*"; }
here() { command -v "$1" >/dev/null 2>&1; }
# says FRAGMENT STATUS PROGRAM: it ends with STATUS, and FRAGMENT is in what it says
says() {
    part=$1 want=$2; shift 2
    out=$("$@" 2>&1); got=$?
    [ $got = "$want" ] || { echo "exit status $got, expected $want: $out"; return 1; }
    case $out in *"$part"*) ;; *) echo "\"$part\" is not in: $out"; return 1 ;; esac
}
build_says() {                          # build_says FRAGMENT STATUS OUTPUT COMPILER ARGUMENTS...
    part=$1 want=$2 program=$3; shift 3
    "$@" -o "$program" -lm && says "$part" "$want" "$program"
}

# ---- the sources

echo '#include "ctm.h"
#include "ctm.h"
#ifdef __cplusplus
extern "C"
#endif
int user(void);
int user(void) { ctm_ctx c; ctm_init(&c); return ctm_is_finite(1.0) && c.threads == 0; }' >"$tmp/user.c"
echo '#define CTM_IMPLEMENTATION
#include "ctm.h"
#include "ctm.h"
#ifdef __cplusplus
extern "C"
#endif
int user(void);
int main(void) { return user() ? 0 : 1; }' >"$tmp/implementation.c"
echo '#include "ctm.h"
static int early(const ctm_ctx *c) { return ctm_error(c)[0] == 0; }
#define CTM_IMPLEMENTATION
#include "ctm.h"
#include "ctm.h"
int main(void) { ctm_ctx c; ctm_init(&c); return early(&c) ? 0 : 1; }' >"$tmp/late.c"
echo '#define CTM_STATIC
#define CTM_IMPLEMENTATION
#include "ctm.h"
int other(void);
int other(void) { ctm_ctx c; ctm_init(&c); return ctm_error(&c)[0] == 0; }' >"$tmp/static_a.c"
echo '#define CTM_STATIC
#define CTM_IMPLEMENTATION
#include "ctm.h"
int other(void);
int main(void) { ctm_ctx c; ctm_init(&c); return other() && ctm_error(&c)[0] == 0 ? 0 : 1; }' >"$tmp/static_b.c"

# An allocator of one's own: counts, and refuses when told to. A panic of one's own: says so, ends with 3.
cat >"$tmp/hooks.c" <<'END'
#include <stdio.h>
#include <stdlib.h>
static int held, asked;
static void *my_malloc(void *ctx, size_t n);
static void my_free(void *p) { held--; free(p); }
static void my_panic(const char *msg, int line) { printf("my panic: %s (%d)\n", msg, line > 0); exit(3); }
#define CTM_MALLOC(ctx, n) my_malloc((ctx), (n))
#define CTM_FREE(ctx, p) ((void)(ctx), my_free(p))
#define CTM_PANIC(msg, file, line) ((void)(file), my_panic(msg, line))
#define CTM_IMPLEMENTATION
#include "ctm.h"
static void *my_malloc(void *ctx, size_t n) {
    if (((ctm_ctx *)ctx)->user) return NULL;
    held++; asked++;
    return malloc(n);
}
int main(int argc, char **argv) {
    ctm_ctx c;
    ctm_arena a;
    ctm_init(&c);
    ctm_arena_init(&a, &c, "hooked");
    ctm_alloc(&a, 100000);
    ctm_alloc(&a, 1000000);
    if (asked != 2 || held != 2) return 1;
    ctm_arena_free(&a);
    if (held != 0 || c.allocated != 0) return 2;
    (void)argv;
    if (argc > 1) { c.user = &c; ctm_alloc(&a, 10); return 4; }
    printf("counted\n");
    return 0;
}
END
# A CTM_PANIC that jumps out, by longjmp in C and by throw in C++, of a shape error deep in a training step and of an allocation that
# fails: nothing stays behind, and the next step is made as if nothing had been.
cat >"$tmp/jump.c" <<'END'
#include <stdio.h>
#include <stdlib.h>
static int held, left = -1;
static void *my_malloc(size_t n) { void *p = left == 0 ? NULL : malloc(n); if (left > 0) left--; if (p) held++; return p; }
static void my_free(void *p) { if (p) held--; free(p); }
static void stop(int line) { printf("line %d\n", line); exit(2); }
#ifdef __cplusplus
struct panic { int line; };
static void my_panic(int line) { panic p; p.line = line; throw p; }
#  define LEAVES(expression) do { int caught = 0; try { expression; } catch (const panic &p) { caught = p.line > 0; } if (!caught) stop(__LINE__); } while (0)
#else
#  include <setjmp.h>
static jmp_buf back;
static void my_panic(int line) { longjmp(back, line); }
#  define LEAVES(expression) do { if (setjmp(back) == 0) { expression; stop(__LINE__); } } while (0)
#endif
#define CTM_MALLOC(ctx, n) ((void)(ctx), my_malloc(n))
#define CTM_FREE(ctx, p) ((void)(ctx), my_free(p))
#define CTM_PANIC(msg, file, line) ((void)(msg), (void)(file), my_panic(line))
#define CTM_IMPLEMENTATION
#include "ctm.h"
static void draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) { (void)user; ctm_normals(rng, step, 2 * index, 2, x0); }
static int wrong;
static ctm_tensor *distance(void *user, ctm_tape *tp, ctm_tensor *a, ctm_tensor *b) {
    (void)user;
    return wrong ? ctm_add(tp, a, ctm_rows_of(tp, b, 1)) : ctm_distance(tp, a, b, CTM_L2, 0);
}
static void forget(void *arg, int i) { (void)arg; (void)i; }
static double run(int jump) {                // the first weight after four steps; jump: a step is left in the middle, twice
    static const double mean[4] = {-0.5, -0.5, 0.5, 0.5};
    static ctm_ctx c;
    static ctm_arena a;
    static ctm_trainer *tr;
    ctm_config cfg = ctm_recipe_points();
    double first;
    ctm_init(&c);
    c.threads = 1;
    ctm_set_isa(&c, CTM_ISA_PORTABLE);
    ctm_arena_init(&a, &c, "a");
    cfg.steps = 4; cfg.batch = 8; cfg.diagonal_batch = 8; cfg.hidden = 8; cfg.layers = 1;
    tr = ctm_trainer_new(&a, &cfg, ctm_mlp(&a, &cfg, 2, 1), ctm_mixture(&a, 2, 2, mean, NULL, 0.1), draw, NULL);
    tr->distance = distance;
    wrong = 0;
    if (jump) {
        left = 0;
        LEAVES(ctm_train_step(tr));          // no memory
        left = -1;
        wrong = 1;
        LEAVES(ctm_train_step(tr));          // shapes that do not fit
        wrong = 0;
    }
    while (tr->step < cfg.steps) if (!ctm_train_step(tr)) stop(__LINE__);
    c.threads = 2;
    ctm_parallel_for(&c, 8, forget, NULL);   // no lock is held
    first = (double)tr->theta->theta[0];
    ctm_trainer_free(tr);
    ctm_arena_free(&a);
    if (held != 0 || c.allocated != 0) stop(__LINE__);
    return first;
}
int main(void) {
    double straight = run(0), jumped = run(1);
    printf("%s: %.9g %.9g\n", jumped == straight ? "the same" : "differ", straight, jumped);
    return jumped == straight ? 0 : 1;
}
END
# A shape error with the default panic; a NaN under CTM_DEBUG.
cat >"$tmp/mistake.c" <<'END'
#define CTM_IMPLEMENTATION
#include "ctm.h"
int main(void) {
    ctm_ctx c;
    ctm_arena a;
    ctm_tape tp;
    ctm_tensor *x, *y;
    ctm_init(&c);
    ctm_arena_init(&a, &c, "a");
    ctm_tape_init(&tp, &c, &a);
    x = ctm_fill(ctm_matrix(&tp, "my_x", 2, 3), 1e30);
    y = ctm_name(ctm_scale(&tp, x, 1e30), "after");              // infinite in float
    ctm_add(&tp, y, ctm_matrix(&tp, "my_z", 3, 2));
    return 0;
}
END
# Twelve steps of training; prints the bits of the weights, so that two builds can be compared.
cat >"$tmp/train.c" <<'END'
#define CTM_IMPLEMENTATION
#include "ctm.h"
#include <stdio.h>
static void draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
    (void)user;
    ctm_normals(rng, step, 2 * index, 2, x0);
}
int main(void) {
    static const double mean[4] = {-0.5, -0.5, 0.5, 0.5};
    ctm_ctx c;
    ctm_arena a;
    ctm_config cfg = ctm_recipe_points();
    ctm_trainer *tr;
    ctm_net *net;
    uint64_t h = 1469598103934665603ull;
    size_t i;
    ctm_init(&c);
    c.threads = 3;
    ctm_set_isa(&c, CTM_ISA_PORTABLE);
    ctm_arena_init(&a, &c, "a");
    cfg.steps = 12; cfg.batch = 40; cfg.diagonal_batch = 20; cfg.hidden = 16; cfg.layers = 2;
    net = ctm_mlp(&a, &cfg, 2, 1);
    tr = ctm_trainer_new(&a, &cfg, net, ctm_mixture(&a, 2, 2, mean, NULL, 0.1), draw, NULL);
    while (tr->step < cfg.steps) if (!ctm_train_step(tr)) return 1;
    for (i = 0; i < net->len * sizeof(ctm_real); i++) h = (h ^ ((const unsigned char *)net->theta)[i]) * 1099511628211ull;
    printf("%s %08lx%08lx\n", ctm_isa_name(c.isa), (unsigned long)(h >> 32), (unsigned long)(h & 0xffffffffu));
    ctm_trainer_free(tr);
    ctm_arena_free(&a);
    return c.allocated != 0;
}
END

# A user with macros of every letter and of some words, as numbers, and as functions, which must all be the same afterwards.
names=$(echo A B C D E F G H I J K L M N O P Q R S T U V W X Y Z a b c d e f g h i j k l m n o p q r s t u v w x y z; echo VI MR NV S2 T2 ROWS \
    slots signals emit foreach near far small IN OUT ERROR OPTIONAL None Bool Status True False Success Always Above ON OFF MIN MAX PI EPS ABS \
    LINES COLS clear move erase refresh scroll border box timeout stdscr interface unused noinline)
{   n=1; for name in $names; do n=$((n + 1)); echo "#define $name $n"; done
    echo '#define min(p1, p2) ((p1) < (p2) ? (p1) : (p2))
#define max(p1, p2) ((p1) < (p2) ? (p2) : (p1))
#define swap(p1, p2) one argument is missing (p1)
#define check(p1) one argument is missing (p1)
#include IMPLEMENTATION
#include "ctm.h"'
    n=1; for name in $names; do n=$((n + 1)); printf '#if %s != %d\n#  error "%s is another"\n#endif\n' $name $n $name; done
    echo 'int user(void);
int user(void) { return N + x; }'
} >"$tmp/letters.c"
{   echo '#include IMPLEMENTATION'
    for name in $names CTM__NAMES CTM__ASIDE CTM__BACK CTM__PRAGMA CTM__PASS CTM__W; do printf '#ifdef %s\n#  error "%s is defined"\n#endif\n' $name $name; done
    echo 'int user(void);
int user(void) { ctm_config a; (void)a; return 0; }'
} >"$tmp/no_letters.c"
# After the system's headers that have short macros, or functions that are macros.
echo '#include <assert.h>
#include <complex.h>
#include <errno.h>
#include <inttypes.h>
#include <iso646.h>
#include <limits.h>
#include <locale.h>
#include <signal.h>
#include <stdbool.h>
#include <tgmath.h>
#include <time.h>
#include <wchar.h>
#ifdef __unix__
#include <sys/param.h>
#include <netinet/in.h>
#endif
#include IMPLEMENTATION
#ifndef __cplusplus
double user(void);
double user(void) { return (double)cimagf(I); }
#endif' >"$tmp/system.c"
echo '#include <windows.h>
#include IMPLEMENTATION
#ifdef I
#error I
#endif
int user(void);
int user(void) { char FAR *near_by = NULL; ctm_ctx c; ctm_init(&c); return near_by == NULL; }' >"$tmp/windows.c"
printf '#define CTM_IMPLEMENTATION\n#include "ctm.h"\n' >"$tmp/with.h"
echo '#ifdef CTM_FIRST
#include "with.h"
#endif
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_DS_IMPLEMENTATION
#include <stb/stb_image.h>
#include <stb/stb_image_write.h>
#include <stb/stb_ds.h>
#ifndef CTM_FIRST
#include "with.h"
#endif' >"$tmp/stb.c"
# What the user writes behind the include gets its warnings as before.
echo '#include IMPLEMENTATION
int user(double v);
int user(double v) { return v == 0.1; }' >"$tmp/compares.c"
echo '#include IMPLEMENTATION
int user(double v);
int user(double v) { return (int)v; }' >"$tmp/casts.c"
# Variables with the names of ctm.h's parameters.
{   echo 'extern int user;'
    for name in step rows held first seed path size name count total batch scratch work tape shape noise; do echo "extern int $name;"; done
    echo '#include "with.h"'
} >"$tmp/variables.c"
# Only the types of ctm.h, and its functions: what another real type would overrun.
echo '#include "ctm.h"
void user(ctm_tensor *x_0);
void user(ctm_tensor *x_0) { x_0->data[x_0->len - 1] = 1; }' >"$tmp/types.c"
echo '#define CTM_IMPLEMENTATION
#include "ctm.h"
void user(ctm_tensor *x_0);
int main(void) {
    ctm_ctx c;
    ctm_arena a;
    ctm_tape tp;
    ctm_init(&c);
    ctm_arena_init(&a, &c, "a");
    ctm_tape_init(&tp, &c, &a);
    user(ctm_vector(&tp, "x_0", 3));
    ctm_arena_free(&a);
    return c.allocated != 0;
}' >"$tmp/calls.c"

# ---- no compiler has anything to say (with `long` more standards, and every macro with every compiler)

more() { [ "$long" = long ] && echo "$@"; }
for compiler in gcc clang $(more clang-14 clang-19); do
    if here $compiler; then
        for std in c99 c11 $(more gnu99 gnu17 c2x); do
            for source in user implementation; do
                job "$compiler -std=$std, $source" $compiler -std=$std $strict_c -fsyntax-only -I. "$tmp/$source.c"
            done
        done
    else skip "$compiler is not here"; fi
done
for compiler in gcc $(more clang); do   # the optimiser warns of more (maybe-uninitialized, ...)
    for simd in -DCTM_NO_SIMD $(more -UCTM_NO_SIMD); do
        level=-O1; [ "$long" = long ] && level=-O2
        if here $compiler; then job "$compiler $level $simd" $compiler $level $simd -std=c99 $strict_c -c -I. "$tmp/implementation.c" -o "$tmp/o2.$compiler$simd.o"; fi
    done
done
for compiler in g++ clang++ $(more clang++-19); do
    if here $compiler; then
        for std in c++11 $(more c++14 c++17 c++20 c++2b); do
            for source in user implementation $(more late); do
                job "$compiler -std=$std, $source" $compiler -x c++ -std=$std $strict_cpp -fsyntax-only -I. "$tmp/$source.c"
            done
        done
        job "$compiler, C++ user and implementation" build_says "" 0 "$tmp/cpp.$compiler" $compiler -x c++ $warn -O0 $plain -I. "$tmp/user.c" "$tmp/implementation.c"
    else skip "$compiler is not here"; fi
done
if here tcc; then
    job "tcc" build_says "" 0 "$tmp/tcc" tcc -Wall -Werror -I. "$tmp/user.c" "$tmp/implementation.c"
    job "tcc trains" build_says "portable" 0 "$tmp/tcc_train" tcc -Wall -Werror -I. "$tmp/train.c"
else skip "tcc is not here"; fi

# -Wshadow is switched off in ctm.h for the sake of the user's variables: among themselves its own names shadow none.
shadows() { mkdir "$tmp/shadow" && sed '/diagnostic ignored "-Wshadow"/d' ctm.h >"$tmp/shadow/ctm.h" && $cc $warn -Wshadow -fsyntax-only "-I$tmp/shadow" "$tmp/implementation.c"; }
job "no name of ctm.h shadows another" shadows
job "variables of the user's with the names of parameters" $cc -std=c99 $strict_c -fsyntax-only -I. "$tmp/variables.c"

# ---- after other headers, and with macros of the user's

aside() {                               # aside COMPILER AND FLAGS...: all files of the kind, with declarations only and with the implementation
    for header in ctm.h with.h; do
        for source in letters no_letters system; do
            "$@" -Wno-unused-macros -fsyntax-only -I. "-DIMPLEMENTATION=\"$header\"" "$tmp/$source.c" || { echo "in $source.c, with $header"; return 1; }
        done
    done
}
for compiler in gcc clang $(more clang-14 clang-19); do
    if here $compiler; then job "$compiler: macros of one letter, <complex.h>, <tgmath.h>" aside $compiler -std=c11 $strict_c; fi
done
for compiler in g++ $(more clang++ clang++-19); do
    if here $compiler; then
        job "$compiler: macros of one letter, <complex.h>, <tgmath.h>" aside $compiler -x c++ -std=c++11 $warn
    fi
done
for compiler in x86_64-w64-mingw32-gcc i686-w64-mingw32-gcc; do
    if here $compiler; then
        for header in ctm.h with.h; do
            job "$compiler: $header after <windows.h>" $compiler $warn -fsyntax-only -I. "-DIMPLEMENTATION=\"$header\"" "$tmp/windows.c"
        done
    else skip "$compiler is not here"; fi
done
still() {                               # still WARNING FILE COMPILER...: exactly one such warning, in FILE, none in ctm.h
    what=$1 source=$2; shift 2
    "$@" "-W$what" -fsyntax-only -I. '-DIMPLEMENTATION="with.h"' "$tmp/$source" 2>"$tmp/still.$1" ||  return 1
    [ "$(grep -c "$what" "$tmp/still.$1")" = 1 ] && grep "$what" "$tmp/still.$1" | grep -q "$source" || { cat "$tmp/still.$1"; return 1; }
}
for compiler in gcc clang; do
    if here $compiler; then job "$compiler: -Wfloat-equal is back after the header" still float-equal compares.c $compiler -std=c99; fi
done
if here g++; then job "g++: -Wold-style-cast is back after the header" still old-style-cast casts.c g++ -x c++; fi
too_old() {                             # too_old COMPILER STANDARD: one error, and nothing else from ctm.h
    for header in ctm.h with.h; do
        if "$@" -Wall -Wextra -pedantic -fsyntax-only -I. "-DIMPLEMENTATION=\"$header\"" "$tmp/casts.c" >"$tmp/old.$1" 2>&1; then echo "it compiles"; return 1; fi
        [ "$(grep -cE 'ctm\.h:.*(error|warning):' "$tmp/old.$1")" = 1 ] && grep -q 'error:.*ctm\.h is C99 and C++11' "$tmp/old.$1" || { cat "$tmp/old.$1"; return 1; }
    done
}
for compiler in gcc clang; do
    if here $compiler; then job "$compiler -std=c89 stops with one error" too_old $compiler -std=c89; fi
done
if here g++; then job "g++ -std=c++98 stops with one error" too_old g++ -x c++ -std=c++98; fi

# ---- every macro, with each C compiler and one C++ compiler

macro() {                               # macro NAME FLAGS...
    what=$1; shift
    case $long$what in
    long*|CTM_NO_STDIO|CTM_STATIC) job "$what" $cc -std=c99 $strict_c -O0 -c -I. "$@" "$tmp/implementation.c" -o "$tmp/macro.$what.o" ;;
    *) job "$what" $cc -std=c99 $strict_c -fsyntax-only -I. "$@" "$tmp/implementation.c" ;;
    esac
    [ "$what" = all_together ] || [ "$long" = long ] || return
    for compiler in clang g++; do
        here $compiler || continue
        if [ $compiler = g++ ]; then lang="-x c++ $strict_cpp"; else lang=$strict_c; fi
        job "$what, $compiler" $compiler $lang -fsyntax-only -I. "$@" "$tmp/implementation.c"
    done
}
macro CTM_NO_SIMD -DCTM_NO_SIMD
macro CTM_NO_OPENMP -DCTM_NO_OPENMP -fopenmp
macro CTM_NO_STDIO -DCTM_NO_STDIO
macro CTM_NO_IMAGES -DCTM_NO_IMAGES
macro CTM_DEBUG -DCTM_DEBUG
macro CTM_REAL_DOUBLE -DCTM_REAL_DOUBLE
macro CTM_STATIC -DCTM_STATIC
macro CTM_PANIC '-DCTM_PANIC(msg,file,line)=((void)(msg),(void)(file),(void)(line),abort())'
macro CTM_MALLOC '-DCTM_MALLOC(ctx,n)=((void)(ctx),malloc(n))' '-DCTM_FREE(ctx,p)=((void)(ctx),free(p))'
macro all_together -DCTM_NO_SIMD -DCTM_NO_OPENMP -DCTM_NO_STDIO -DCTM_DEBUG -DCTM_REAL_DOUBLE -DCTM_STATIC

# ---- linking and running

link() { $cc -O0 $plain -I. $warn "$tmp/user.c" "$tmp/implementation.c" -o "$tmp/two" -lm && "$tmp/two"; }
job "two files, one implementation" link
no_images() { $cc -O0 $warn -DCTM_NO_IMAGES examples/03_jump.c -o "$tmp/jump" -lm && "$tmp/jump" >"$tmp/jump.out" &&
              sed -n '/^\/\* OUTPUT/,$p' examples/03_jump.c | sed '1d;s| \*/$||' | diff - "$tmp/jump.out"; }
job "CTM_NO_IMAGES: a program for points prints the same" no_images
renamed() {                             # under another name, in a folder where there is no ctm.h
    mkdir "$tmp/elsewhere" && cp ctm.h "$tmp/elsewhere/my_ctm.h" &&
    printf '#define CTM_SELF "my_ctm.h"\n#define CTM_IMPLEMENTATION\n#include "my_ctm.h"\nint main(void) { return 0; }\n' >"$tmp/elsewhere/main.c" &&
    $cc $warn -fsyntax-only "$tmp/elsewhere/main.c"
}
job "CTM_SELF: the header under another name" renamed
linked() { $cc -O0 -x c -c $plain -DCTM_IMPLEMENTATION ctm.h -o "$tmp/linked.o" && $cc -O0 $warn $plain -DCTM_LINKED -I. "$tmp/train.c" "$tmp/linked.o" -o "$tmp/linked" -lm &&
           says portable 0 "$tmp/linked"; }
job "CTM_LINKED: a program with the implementation from an object" linked
disagree() {                            # disagree COMPILER...: files with another ctm_real do not link, with the same one they do
    for one in "" -DCTM_REAL_DOUBLE; do
        "$@" $one -c -I. "$tmp/types.c" -o "$tmp/types$one.$1.o" && "$@" $one $plain -DCTM_NO_STDIO -c -I. "$tmp/calls.c" -o "$tmp/calls$one.$1.o" || return 1
    done
    for one in "" -DCTM_REAL_DOUBLE; do for other in "" -DCTM_REAL_DOUBLE; do
        if "$@" "$tmp/types$one.$1.o" "$tmp/calls$other.$1.o" -o "$tmp/disagree.$1" -lm >"$tmp/disagree.$1.log" 2>&1
        then [ "$one" = "$other" ] && "$tmp/disagree.$1" || { echo "types $one linked with calls $other"; return 1; }
        else [ "$one" != "$other" ] && grep -q 'ctm_real_is_' "$tmp/disagree.$1.log" || { cat "$tmp/disagree.$1.log"; return 1; }; fi
    done; done
}
job "float and double do not link" disagree $cc -O0
for compiler in $(more tcc clang musl-gcc g++); do
    if here $compiler; then job "$compiler: float and double do not link" disagree $compiler; else skip "$compiler is not here"; fi
done
flags() { $cc -std=c99 $warn -fsyntax-only -I. "$@" "$tmp/implementation.c"; }                    # as a cautious user's build has them
[ "$long" = long ] && job "flags: exceptions, visibility, char, enums, aliasing" flags -fvisibility=hidden -funsigned-char -fshort-enums -fno-common -fno-builtin -fno-math-errno -fstrict-aliasing -Wstrict-aliasing
for show in -D_XOPEN_SOURCE=700 -D_GNU_SOURCE; do job "$show" $cc -std=c99 $strict_c $openmp $show -fsyntax-only -I. "$tmp/implementation.c"; done
[ "$long" = long ] && job "-isystem" flags -isystem . -DCTM_DEBUG
spaces() {                              # in a folder with a space, precompiled, and from another folder
    mkdir "$tmp/a folder" && cp ctm.h "$tmp/a folder/" && printf '#include "a folder/ctm.h"\nint main(void) { return 0; }\n' >"$tmp/spaces.c" &&
    $cc -std=c99 $warn -DCTM_IMPLEMENTATION -fsyntax-only "$tmp/spaces.c" &&
    $cc -std=c99 -x c-header "$tmp/a folder/ctm.h" -o "$tmp/a folder/ctm.h.gch" && ( cd "$tmp" && $cc -std=c99 $warn -Winvalid-pch -fsyntax-only spaces.c )
}
[ "$long" = long ] && job "a folder with a space, and a precompiled header" spaces
job "implementation after a plain include" build_says "" 0 "$tmp/late" $cc -O0 $plain $warn -I. "$tmp/late.c"
job "CTM_STATIC in two files" build_says "" 0 "$tmp/static" $cc -O0 $plain $warn -I. "$tmp/static_a.c" "$tmp/static_b.c"
mixed() {                               # the implementation in C++, its user in C
    $cc -O0 -c -I. "$tmp/user.c" -o "$tmp/mixed_user.o" && g++ -x c++ -O0 $plain -c -I. "$tmp/implementation.c" -o "$tmp/mixed_implementation.o" &&
    g++ "$tmp/mixed_user.o" "$tmp/mixed_implementation.o" -o "$tmp/mixed" -lm && "$tmp/mixed"
}
if here g++; then job "user in C, implementation in C++" mixed; else skip "g++ is not here"; fi
names() {                               # what one implementation adds to a program's names: ctm_*, and not one ctm__*
    $cc -O0 -c -I. "$tmp/implementation.c" -o "$tmp/names.o" && nm -g --defined-only "$tmp/names.o" | awk '{print $NF}' | sed 's/^_//' >"$tmp/names" &&
    grep -q '^ctm_train_step$' "$tmp/names" && ! grep -E -v '^(ctm_[a-zA-Z]|main$)' "$tmp/names"
}
no_names() { [ "$(nm -g --defined-only "$tmp/macro.CTM_STATIC.o" | awk '{print $NF}' | sed 's/^_//')" = main ]; }
no_files() { ! nm -u "$tmp/macro.CTM_NO_STDIO.o" | grep -E '(fopen|fread|fwrite|rename|printf|puts)$' | grep -E -v 'snprintf|fprintf'; }
if here nm; then
    job "only ctm_ names are exported" names
    job "CTM_STATIC exports nothing" no_names
    job "CTM_NO_STDIO opens no files" no_files
else skip "nm is not here"; fi

hooks() { $cc -O0 $plain $warn -I. "$tmp/hooks.c" -o "$tmp/hooks" -lm && says counted 0 "$tmp/hooks" &&
          says 'my panic: out of memory: arena "hooked"' 3 "$tmp/hooks" refuse; }
job "CTM_MALLOC, CTM_FREE and CTM_PANIC are used" hooks
jump() { what=$1; shift; "$@" -O0 $openmp $warn $plain -I. "$tmp/jump.c" -o "$tmp/jump_$what" -lm && says "the same" 0 "$tmp/jump_$what"; }
job "a longjmp out of CTM_PANIC leaves nothing behind" jump c $cc
if here g++; then job "an exception out of CTM_PANIC leaves nothing behind" jump cpp g++ -x c++; fi
mistake() {                             # a mistake aborts (status 134 of a shell: 128 + SIGABRT) and names both tensors
    $cc -O0 $plain $warn -I. "$@" "$tmp/mistake.c" -o "$tmp/mistake$#" -lm || return 1
    ( ulimit -c 0; "$tmp/mistake$#" ) >"$tmp/mistake$#.out" 2>&1; got=$?
    [ $got = 134 ] || { echo "exit status $got, expected 134"; cat "$tmp/mistake$#.out"; return 1; }
}
shapes() { mistake && grep -qF '"after" [2,3]' "$tmp/mistake0.out" && grep -qF '"my_z" [3,2]' "$tmp/mistake0.out" && grep -q '^ctm: ctm_add' "$tmp/mistake0.out"; }
debug()  { mistake -DCTM_DEBUG && grep -q 'scale.*not finite' "$tmp/mistake1.out"; }
job "a shape error aborts with both names" shapes
job "CTM_DEBUG finds the first number that is none" debug

same() {                                # one thread, three, and a build that knows no threads: the same weights
    $cc -O0 -I. $plain "$tmp/train.c" -o "$tmp/train1" -lm && "$tmp/train1" >"$tmp/train1.out" &&
    $cc -O0 -I. $plain -fopenmp "$tmp/train.c" -o "$tmp/train2" -lm && "$tmp/train2" >"$tmp/train2.out" &&
    cmp "$tmp/train1.out" "$tmp/train2.out" && grep -q '^portable ' "$tmp/train1.out"
}
if [ "$openmp" ]; then
    job "with and without OpenMP: the same bits" same
else skip "$cc has no OpenMP"; fi

float_tests() {                         # float_tests NAME COMPILER...: builds and runs them; $part: only those, $run: by this program
    what=$1; shift
    mkdir -p "$tmp/float_$what" && "$@" "-DCTM_TEST_DATA=\"$root/tests/golden\"" tests/main.c -o "$tmp/tests_$what" -lm &&
    ( cd "$tmp/float_$what" && $run "$tmp/tests_$what" $part )
}
part= run=
if [ "$long" = long ]; then
    job "the float tests under -O3 -ffast-math" float_tests fast $cc -O3 -ffast-math $openmp
    job "the float tests with char unsigned and short enums" float_tests char $cc -O1 -DCTM_NO_SIMD -funsigned-char -fshort-enums
    if here musl-gcc; then job "the float tests with musl" float_tests musl musl-gcc -std=c99 -O1 -static; else skip "musl-gcc is not here"; fi
    wide="gcc -m32 -msse2 -mfpmath=sse -O1 -static -idirafter /usr/include/x86_64-linux-gnu"        # Debian: gcc-12-multilib libc6-dev-i386
    if $wide "$tmp/omp.c" -o "$tmp/m32" 2>/dev/null; then
        job "-m32: nothing to say" $wide $strict_c -c -I. "$tmp/implementation.c" -o "$tmp/m32.o"
        if "$tmp/m32" 2>/dev/null; then job "the float tests for 32 bits" float_tests m32 $wide
        elif here qemu-i386; then part=base run=qemu-i386; job "the float tests for 32 bits, those of test_base" float_tests m32 $wide; part= run=
        else skip "nothing here runs programs for 32 bits"; fi
    else skip "gcc -m32 is not here"; fi
    cat >"$tmp/sampler.c" <<'C'
#include "ctm.h"
#include <stdio.h>
int main(int argc, char **argv) {
    ctm_ctx ctx; ctm_arena a; ctm_config cfg; ctm_rng rng = ctm_stream(1, "noise"); ctm_net *net; ctm_real *x; size_t n, i;
    ctm_init(&ctx); ctm_arena_init(&a, &ctx, "sampler");
    net = argc > 1 ? ctm_load(&a, argv[1], &cfg) : NULL;
    if (!net) { printf("%s\n", ctm_error(&ctx)); return 1; }
    n = 100 * (size_t)net->dim;
    x = (ctm_real *)ctm_alloc(&a, n * sizeof *x);
    ctm_normals(&rng, 0, 0, n, x);
    for (i = 0; i < n; i++) x[i] *= (ctm_real)net->noise.sigma_max;
    if (!ctm_sample_points(net, x, 100, 4, 0.5, &rng)) { printf("%s\n", ctm_error(&ctx)); return 1; }
    for (i = 0; i < n; i++) printf("%g\n", (double)x[i]);
    return 0;
}
C
    small() {                           # loads, samples, and is small
        gcc -O2 -DCTM_IMPLEMENTATION -DCTM_NO_IMAGES -ffunction-sections -fdata-sections -Wl,--gc-sections -s -I. "$tmp/sampler.c" -o "$tmp/sampler" -lm &&
        [ "$("$tmp/sampler" examples/demo/model.safetensors | wc -l)" = 200 ] && [ "$(wc -c <"$tmp/sampler")" -lt 150000 ]
    }
    if here gcc && [ "$(uname -m)" = x86_64 ]; then job "a program that only samples points is under 150 KB" small; fi
    for level in -O1 -O3 -Os -Og; do job "gcc $level: nothing to say" gcc -std=c99 $level $strict_c -c -I. "$tmp/implementation.c" -o "$tmp/level$level.o"; done
    for before in "" -DCTM_FIRST; do
        if [ -d /usr/include/stb ]; then job "in one file with STB's libraries $before" $cc -w $before -fsyntax-only -I. "$tmp/stb.c"; fi
    done
fi

wait
passed=0 failed=0 n=1
while [ $n -le $jobs ]; do
    if [ "$(cat "$tmp/verdict.$n" 2>/dev/null)" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); cat "$tmp/verdict.$n"; fi
    n=$((n + 1))
done
echo "header: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
