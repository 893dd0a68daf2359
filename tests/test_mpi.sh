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
run 2 --shards 1 --out "$tmp/4.safetensors" >"$tmp/out" 2>&1
check "too few shards must be refused" grep -q -e '--shards 1 is not enough for 2 processes' "$tmp/out"
check "a refused run must write nothing" test ! -e "$tmp/4.safetensors"
echo "mpi: $passed passed, $failed failed, 0 skipped"
test "$failed" = 0
