#!/bin/sh
# The header's tests under other compilers and flags, and that all of them compute the same bits (tests/bits.c): gcc and clang, C and
# C++, -O0 to -O3, fused multiply-adds, -march=native, -ffast-math, -flto. What is not here counts as skipped. Two jobs run at a time.
# Also: no function of the header or the programs needs a stack of more than 64 KB (musl gives a thread 128), and a user's own code
# after the header is compiled as the user says.
# usage: sh tests/test_builds.sh [bits]      bits: only the comparison of the bits and what takes no longer
cd "$(dirname "$0")/.." || exit 1
root=$(pwd) only=$1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
export OMP_WAIT_POLICY=passive
jobs=0 skipped=0
here() { command -v "$1" >/dev/null 2>&1; }
skip() { skipped=$((skipped + 1)); echo "skip builds: $*"; }
job() {                                 # job NAME COMMAND...: must succeed; two run at a time, and each leaves its verdict in a file
    name=$1; shift
    jobs=$((jobs + 1))
    ( if "$@" >"$tmp/log.$jobs" 2>&1; then echo ok
      else echo "FAIL builds: $name"; grep -E 'FAIL|error|passed|differ' "$tmp/log.$jobs" | tail -n 12 | sed 's/^/     /'; fi >"$tmp/verdict.$jobs" ) &
    if [ $((jobs % 2)) = 0 ]; then wait; fi
}

# An instruction set that this processor lacks can be compiled for, but not run.
fma=yes
case $(uname -m) in x86_64|amd64) grep -q ' fma ' /proc/cpuinfo 2>/dev/null || fma= ;; *) fma= ;; esac

tests() {                               # tests N COMPILER FLAGS...
    program=$tmp/tests.$1; shift
    "$@" -g0 "-DCTM_TEST_DATA=\"$root/tests/golden\"" tests/main.c -o "$program" -lm && "$program"
}
bits() {                                # bits N COMPILER FLAGS...: the same lines as the first build's
    program=$tmp/bits.$1; shift
    "$@" -g0 tests/bits.c -o "$program" -lm && "$program" >"$program.out" || return 1
    cat "$program.out"
    cmp "$program.out" "$tmp/bits.first.out"
}
n=0
build() {                               # build WHAT COMPILER FLAGS...: WHAT is tests, bits, or both
    what=$1; shift
    here "$1" || { skip "$1 is not here ($*)"; return; }
    case "$*" in *-mfma*) [ "$fma" ] || { skip "no fused multiply-add here ($*)"; return; } ;; esac
    n=$((n + 1))
    case $what in bits|both) job "bits: $*" bits $n "$@" ;; esac
    case $what in tests|both) [ "$only" = bits ] || job "tests: $*" tests $n "$@" ;; esac
}

if ! gcc -O2 tests/bits.c -o "$tmp/bits.first" -lm || ! "$tmp/bits.first" >"$tmp/bits.first.out"; then
    echo "builds: 0 passed, 1 failed, 0 skipped"; exit 1
fi
sed 's/^/bits: /' "$tmp/bits.first.out"

build both  gcc -O0
build both  gcc -O1
build both  gcc -O2 -mfma
build both  gcc -O3 -march=native -fopenmp
build both  gcc -O3 -ffast-math -march=native
build both  gcc -O2 -flto=1
build tests gcc -O2 -mfma -DCTM_REAL_DOUBLE -DCTM_NO_SIMD
build bits  gcc -Os
build bits  gcc -O2 -std=c99
build bits  g++ -x c++ -O2 -mfma
build bits  clang -O0
build bits  clang -O1
build bits  clang -O3 -march=native
build bits  clang++ -x c++ -O2
build tests clang -O2 -mfma -ffp-contract=fast       # these two fuse what we asked them not to: other bits, but nothing may hang on them
build tests clang -O3 -march=native -ffast-math

# ---- the stack
frames() { "$@" -Werror -Wframe-larger-than=65536 -c -o "$tmp/frames.o"; }
for compiler in gcc clang; do
    here $compiler || { skip "$compiler is not here"; continue; }
    job "frames of the header, $compiler" frames $compiler -O1 -DCTM_IMPLEMENTATION -x c ctm.h
    job "frames of the header, double, $compiler" frames $compiler -O0 -DCTM_REAL_DOUBLE -DCTM_IMPLEMENTATION -x c ctm.h
done
for source in examples/*.c apps/[!m]*.c; do
    job "frames of $source" frames gcc -O1 -DCTM_LINKED "$source"
done

# ---- after the header everything is as the user wants it: a·b + c becomes one instruction again
printf '#define CTM_IMPLEMENTATION\n#define CTM_NO_SIMD\n#include "ctm.h"\ndouble after(double a, double b, double c);\ndouble after(double a, double b, double c) { return a * b + c; }\n' >"$tmp/after.c"
after() { "$@" -O2 -mfma -I. -S "$tmp/after.c" -o "$tmp/after.s.$n" && [ "$(grep -c fmadd "$tmp/after.s.$n")" = 1 ]; }
for compiler in gcc clang; do
    n=$((n + 1))
    case $(uname -m) in x86_64|amd64) here $compiler && job "one fused multiply-add, after the header, $compiler" after $compiler ;; *) skip "no x86" ;; esac
done

wait
passed=0 failed=0 n=1
while [ $n -le $jobs ]; do
    if [ "$(cat "$tmp/verdict.$n" 2>/dev/null)" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); cat "$tmp/verdict.$n"; fi
    n=$((n + 1))
done
echo "builds: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
