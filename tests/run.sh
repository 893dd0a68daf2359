#!/bin/sh
# Runs every test program and script, and adds up their counts. The last line is "N passed, N failed, N skipped". Two lanes run side
# by side; with "long" come those that take longer or need other programs (gdb, PyTorch, MPI).
# usage: sh tests/run.sh [long]
cd "$(dirname "$0")/.." || exit 1
export OMP_WAIT_POLICY=passive          # the lanes share the processor
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
part() {                                # part LANE COMMAND...: its output is shown when it is done, its counts are added at the end
    lane=$dir/$1; shift
    "$@" >"$lane.one" 2>&1 || touch "$dir/failed"
    cat "$lane.one"
    grep -E '[0-9]+ passed, [0-9]+ failed' "$lane.one" >/dev/null || { echo "$*: did not report its counts"; echo "x: 0 passed, 1 failed" >>"$lane.log"; }
    cat "$lane.one" >>"$lane.log"
}
{
    part a build/test_float
    for t in programs images docs tags links counts book notebook; do part a sh tests/test_$t.sh; done
} &
part b build/test_double
part b build/test_fuzz
part b build/test_mini
for t in header edit claims examples; do part b sh tests/test_$t.sh; done
wait
if [ "$1" = long ]; then
    part b sh tests/mutate.sh --texts
    part b sh tests/test_header.sh long
    part b sh tests/test_notebook.sh long
    for t in exercises debug mpi convert windows wasi builds emulated long; do part b sh tests/test_$t.sh; done
fi
cat "$dir"/*.log >"$dir/all"
awk '/[0-9]+ passed, [0-9]+ failed/ {
         for (i = 1; i < NF; i++) {
             if ($(i+1) ~ /^passed/) p += $i; if ($(i+1) ~ /^failed/) f += $i; if ($(i+1) ~ /^skipped/) s += $i } }
     END { printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f > 0 || p == 0 }' "$dir/all" || touch "$dir/failed"
[ ! -e "$dir/failed" ]
