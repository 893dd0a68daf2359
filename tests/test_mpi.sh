#!/bin/sh
# The program for several processes from outside: two of them end with the weights of one, bit for bit. Skipped without an MPI.
# usage: sh tests/test_mpi.sh        (after make)
cd "$(dirname "$0")/.." || exit 1
if [ ! -x build/mpi ] || ! command -v mpirun >/dev/null 2>&1; then
    echo "skip mpi: there is no MPI here"
    echo "mpi: 0 passed, 0 failed, 1 skipped"
    exit 0
fi
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0
check() { what=$1; shift; if "$@" >"$tmp/log" 2>&1; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL mpi: $what"; head -n 5 "$tmp/log"; fi; }
# Open MPI wants to be told that more processes than cores, and root, are meant.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1
limit=; if command -v timeout >/dev/null 2>&1; then limit="timeout 60"; fi
run() { n=$1; shift; $limit mpirun -np "$n" build/mpi --steps 60 "$@"; }

check "one process" run 1 --shards 2 --out "$tmp/1.safetensors"
check "two processes" run 2 --out "$tmp/2.safetensors"
check "two processes must end with the bits of one" cmp "$tmp/1.safetensors" "$tmp/2.safetensors"
check "more shards than processes, unevenly" run 2 --shards 5 --out "$tmp/3.safetensors"
# Images, with a small teacher and its classes.
check "a set of images" build/images synth --n 30 --out "$tmp/set.bin" --quiet
check "its teacher" build/images train --data "$tmp/set.bin" --classes 10 --model-channels 4 --channel-mult 1,1 --num-blocks 1 --attn none --batch 4 \
    --steps 1 --teacher-steps 2 --out "$tmp/images" --quiet
images="--data $tmp/set.bin --teacher $tmp/images/teacher.safetensors --steps 4 --batch 8"
check "images, one process" run 1 $images --shards 2 --out "$tmp/i1.safetensors"
check "images, two processes" run 2 $images --out "$tmp/i2.safetensors"
check "two processes must end with the bits of one on images" cmp "$tmp/i1.safetensors" "$tmp/i2.safetensors"
check "their weights draw images" build/images sample --weights "$tmp/i2.safetensors" --n 2 --out "$tmp/i.png" --quiet
says() { what=$1; shift; run 2 "$@" --out "$tmp/4.safetensors" >"$tmp/out" 2>&1; check "must say \"$what\" once" test "$(grep -c -e "$what" "$tmp/out")" = 1; }
says "go together" --data "$tmp/set.bin"
says "cannot read $tmp/none.bin" --data "$tmp/none.bin" --teacher "$tmp/images/teacher.safetensors"
says "is a teacher of 0 x 0 x" --data "$tmp/set.bin" --teacher "$tmp/1.safetensors"
run 2 --shards 1 --out "$tmp/4.safetensors" >"$tmp/out" 2>&1
check "too few shards must be refused" grep -q -e '--shards 1 is not enough for 2 processes' "$tmp/out"
check "a refused run must write nothing" test ! -e "$tmp/4.safetensors"
echo "mpi: $passed passed, $failed failed, 0 skipped"
test "$failed" = 0
