#!/bin/sh
# Windows, from another system: the header and the programs as Microsoft's compiler would take them (clang and the stubs in
# tests/msvc-stubs, syntax only); built with mingw-w64 for 64 and for 32 bits; and run under wine: training, resuming, folders with
# names in other alphabets, and files that are replaced while other programs read them. About five minutes on two processors.
# usage: sh tests/test_windows.sh        WINE names wine's loader
cd "$(dirname "$0")/.." || exit 1
root=$(pwd)
tmp=$(mktemp -d) || exit 1
passed=0 failed=0 skipped=0
ok()   { passed=$((passed + 1)); }
bad()  { failed=$((failed + 1)); echo "FAIL windows: $*"; }
skip() { skipped=$((skipped + $1)); shift; echo "skip windows: $*"; }
finish() {
    echo "windows: $passed passed, $failed failed, $skipped skipped"
    [ $failed = 0 ]; exit
}
first() { for c in "$@"; do command -v "$c" 2>/dev/null && return; done; }
# quiet NAME COMMAND...: must succeed and say nothing
quiet() {
    name=$1; shift
    if "$@" >"$tmp/said" 2>&1 && [ ! -s "$tmp/said" ]; then ok; else bad "$name: $(tail -n 5 "$tmp/said")"; fi
}
programs="$(ls examples/*.c apps/[!m]*.c)"
warn="-Wall -Wextra -pedantic"

# ---- what Microsoft's compiler would say
clang=$(first clang-19 clang-18 clang-17 clang-16 clang-15 clang-14 clang)
if [ "$clang" ] && $clang --target=x86_64-pc-windows-msvc -fsyntax-only -x c /dev/null 2>/dev/null; then
    msvc="$clang -fms-compatibility-version=19.30 -nostdlibinc -isystem tests/msvc-stubs -fsyntax-only -Wall -Wextra"
    for machine in x86_64 i686; do
        for lang in "c -std=c11" "c++ -std=c++14" "c++ -std=c++20"; do
            quiet "ctm.h for MSVC, $machine, $lang" $msvc --target=$machine-pc-windows-msvc -DCTM_IMPLEMENTATION -x $lang ctm.h
        done
    done
    for p in $programs; do
        for lang in c c++; do quiet "$p for MSVC, $lang" $msvc --target=x86_64-pc-windows-msvc -x $lang $p; done
    done
else skip 20 "there is no clang for the check as Microsoft's compiler"; fi

# ---- builds
cc64=$(first x86_64-w64-mingw32-gcc-posix x86_64-w64-mingw32-gcc)
cc32=$(first i686-w64-mingw32-gcc-posix i686-w64-mingw32-gcc)
build() {                               # build FOLDER COMPILER FLAGS...: the header once, every program
    dir=$tmp/$1; shift
    mkdir -p "$dir"
    quiet "ctm.h: $*" "$@" $warn -DCTM_IMPLEMENTATION -x c -c ctm.h -o "$dir/ctm.o"
    for p in $programs; do quiet "$p: $*" "$@" $warn -DCTM_LINKED -static $p "$dir/ctm.o" -o "$dir/$(basename $p .c).exe"; done
}
if [ "$cc64" ]; then
    build bin $cc64 -O2 -fopenmp
    build plain $cc64 -O0 -DCTM_NO_SIMD
    quiet "ctm.h: -std=c99" $cc64 -std=c99 $warn -fsyntax-only -DCTM_IMPLEMENTATION -x c ctm.h
    quiet "the tests" $cc64 -O1 -fopenmp $warn tests/main.c -static -o "$tmp/bin/tests.exe"
else skip 18 "there is no mingw-w64 for 64 bits"; fi
if [ "$cc32" ]; then
    build bin32 $cc32 -O1 -fopenmp
    quiet "ctm.h: 32 bits, -std=c99" $cc32 -std=c99 $warn -fsyntax-only -DCTM_IMPLEMENTATION -x c ctm.h
else skip 9 "there is no mingw-w64 for 32 bits"; fi

# ---- runs
wine=${WINE:-$(first wine64 wine /usr/lib/wine/wine64 /usr/lib/x86_64-linux-gnu/wine/wine64)}
[ "$cc64" ] && [ "$wine" ] || { skip 44 "nothing is run: there is no wine64 or no mingw-w64"; rm -rf "$tmp"; finish; }
export WINEDEBUG=-all WINEPREFIX="$tmp/prefix" WINEDLLOVERRIDES="mscoree,mshtml="
trap '"$(dirname "$wine")/wineserver" -k >/dev/null 2>&1 || wineserver -k >/dev/null 2>&1; rm -rf "$tmp"' EXIT
timeout 200 "$wine" wineboot -i >/dev/null 2>&1
mkdir "$tmp/w" && cd "$tmp/w" || exit 1
exe() { p=$1; shift; timeout 250 "$wine" "$tmp/bin/$p.exe" "$@"; }
# runs NAME PROGRAM ARGUMENTS...: must succeed
runs() { name=$1; shift; if exe "$@" >out.txt 2>err.txt; then ok; else bad "$name: exit status $?: $(head -c 300 err.txt)"; fi; }
# refuses NAME STATUS PART PROGRAM ARGUMENTS...: ends with that status and one line that holds PART
refuses() {
    name=$1 want=$2 part=$3; shift 3
    exe "$@" >out.txt 2>err.txt; got=$?
    if [ $got != "$want" ]; then bad "$name: exit status $got, expected $want: $(head -c 300 err.txt)"
    elif [ "$(wc -l <err.txt)" != 1 ]; then bad "$name: not one line: $(head -c 300 err.txt)"
    elif ! grep -qF -- "$part" err.txt; then bad "$name: \"$part\" is not in: $(cat err.txt)"
    else ok; fi
}
exists() { for f in "$@"; do if [ -s "$f" ]; then ok; else bad "$f is missing or empty"; fi; done; }
same() { if cmp -s "$2" "$3"; then ok; else bad "$1: $2 and $3 differ"; fi; }
clean() { left=$(find "$1" -name '*.tmp' -o -name .lock); [ -z "$left" ] && ok || bad "left behind: $left"; }

# points: whole, and stopped and resumed, in folders named with backslashes and in three alphabets
train="points train --data ring --steps 120 --seed 4 --quiet --plain --noises 1000 --compare-steps 0"
runs "points" $train --out whole --threads 1
runs "points, stopped" $train --out 'déjà\Плоть\日本' --threads 2 --stop-at 47
runs "points, resumed" points train --resume --out 'déjà/Плоть\日本' --quiet --plain --noises 1000 --compare-steps 0
exists déjà/Плоть/日本/model.safetensors
same "points, resumed" whole/model.safetensors déjà/Плоть/日本/model.safetensors
same "points, resumed" whole/loss.csv déjà/Плоть/日本/loss.csv
clean .
grep -q "$(printf '\r')" whole/samples.csv && bad "samples.csv has carriage returns" || ok
runs "sample to .npy" points sample --weights 'déjà\Плоть\日本\model.safetensors' --n 40 --nfe 2 --out 'déjà\..\é.npy'
runs "sample with that noise" points sample --weights whole/model.safetensors --noise é.npy --nfe 1 --out n.csv
printf 'größe,b\r\n1,2\r\n2,4\r\n3,5\r\n4,1\r\n5,6\r\n6,2\r\n7,7\r\n8,3\r\n9,9\r\n10,4\r\n11,2\r\n12,5\r\n' >täble.csv
runs "a table" points train --data täble.csv --steps 20 --seed 1 --out table --quiet --noises 1000
head -n 1 table/samples.csv | grep -q '^größe,b' && ok || bad "the table's names: $(head -n 1 table/samples.csv)"
runs "log-likelihoods" points loglik --weights table/model.safetensors --data täble.csv --out l.csv
exists l.csv table/index.html
runs "weights" 09_weights whole/model.safetensors 3
runs "gamma" 05_gamma
refuses "a folder under a file" 1 täble.csv points train --data ring --steps 5 --out 'täble.csv\x' --quiet
refuses "no weights" 1 'nö.safetensors' points sample --weights nö.safetensors --out x.csv
refuses "wrong usage" 2 -- points train --stepps 3

# two runs in one folder; a run that is killed
"$wine" "$tmp/bin/points.exe" train --data ring --steps 2000000 --quiet --plain --out busy --threads 1 >/dev/null 2>&1 & pid=$!
n=0; while [ ! -e busy/.lock ] && [ $n -lt 60 ]; do sleep 0.5; n=$((n + 1)); done
refuses "a second run" 1 "another run" points train --data ring --steps 5 --out busy --quiet
n=0; while [ ! -e busy/checkpoint.safetensors ] && [ $n -lt 60 ]; do sleep 0.5; n=$((n + 1)); done
kill -9 $pid; wait $pid 2>/dev/null
sleep 1
runs "resumed after a kill" points train --resume --out busy --quiet --plain --stop-at 2
clean busy

# a file that is replaced while another program has it open: the old one or the new one, and nothing else
cat >holder.c <<'END'
#include <windows.h>
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {       // holder FILE MAY_BE_DELETED MILLISECONDS: opens FILE, makes the file `held`, waits
    HANDLE h = CreateFileA(argv[1], GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | (atoi(argv[2]) ? FILE_SHARE_DELETE : 0), NULL, OPEN_EXISTING, 0, NULL);
    FILE *f = fopen("held", "w");
    (void)argc;
    if (h == INVALID_HANDLE_VALUE || !f) return 1;
    fclose(f);
    Sleep((DWORD)atoi(argv[3]));
    CloseHandle(h);
    return 0;
}
END
cat >save.c <<'END'
#include "ctm.h"
#include <string.h>
int main(int argc, char **argv) {       // save FILE TEXT: 0, or 1 and the reason
    ctm_output out;
    (void)argc;
    if (ctm_output_open(&out, argv[1])) { fputs(argv[2], out.file); if (ctm_output_close(&out)) return 0; }
    perror(argv[1]);
    return 1;
}
END
quiet "holder" $cc64 -O1 holder.c -o "$tmp/bin/holder.exe"
quiet "save" $cc64 -O1 -fopenmp $warn -DCTM_LINKED -I"$root" save.c "$tmp/bin/ctm.o" -static -o "$tmp/bin/save.exe"
for share in 0 1; do
    for time in 500 12000; do
        rm -f held file file.*; printf old >file
        exe holder file $share $time & pid=$!
        n=0; while [ ! -e held ] && [ $n -lt 60 ]; do sleep 0.25; n=$((n + 1)); done
        if exe save file new >/dev/null 2>&1; then want=new; else want=old; fi
        wait $pid
        [ "$(cat file)" = $want ] && ok || bad "replaced while it is read (share $share, $time ms): \"$(cat file)\" instead of \"$want\""
        if [ $time = 500 ] && [ $want = old ]; then bad "a reader of half a second made a save fail"; fi
        clean .
    done
done
chmod 444 file
exe save file x >/dev/null 2>&1 && bad "a file that may not be written was replaced" || ok
chmod 644 file

# images and editing
runs "synth" images synth --n 30 --out sét.bin --quiet
images="images train --data sét.bin --model-channels 4 --channel-mult 1,1 --num-blocks 1 --attn 16 --batch 4 --shards 2 --steps 4 --teacher-steps 3 --seed 3 --quiet"
runs "images" $images --out images --threads 1
runs "images, stopped" $images --out 'i\m' --threads 2 --stop-at 2
runs "images, resumed" images train --resume --out 'i\m' --quiet
same "images, resumed" images/model.safetensors i/m/model.safetensors
mkdir -p s
runs "images sample" images sample --weights images/model.safetensors --n 4 --nfe 1 --out 's\ä.png'
exists s/ä.png
runs "edit" edit inpaint --weights images/model.safetensors --data sét.bin --n 2 --nfe 2 --box 1,1,3,3 --out é.png
exists é.png images/samples.png

# the tests of the header
cd "$root" || exit 1
timeout 900 "$wine" "$tmp/bin/tests.exe" >"$tmp/tests.txt" 2>&1
grep -v '^skip' "$tmp/tests.txt" | grep -v ' failed,'
counts=$(grep -E '^float: [0-9]+ passed' "$tmp/tests.txt")
if [ "$counts" ]; then
    set -- $counts
    passed=$((passed + $2)) failed=$((failed + $4)) skipped=$((skipped + $6))
else bad "the tests did not end: $(tail -n 3 "$tmp/tests.txt")"; fi
finish
