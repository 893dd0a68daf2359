#!/bin/sh
# Runs every test program and script, and adds up their counts. The last line is "N passed, N failed, N skipped".
# usage: sh tests/run.sh [long]
cd "$(dirname "$0")/.." || exit 1
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
status=0
part() {                                # part COMMAND...: its output is shown, its counts are added at the end
    "$@" >"$log.one" 2>&1 || status=1
    cat "$log.one"
    grep -E '[0-9]+ passed, [0-9]+ failed' "$log.one" >/dev/null || { echo "$*: did not report its counts" ; echo "x: 0 passed, 1 failed" >>"$log"; }
    cat "$log.one" >>"$log"
    rm -f "$log.one"
}
part build/test_float
part build/test_double
part sh tests/test_header.sh
part sh tests/test_docs.sh
part sh tests/test_tags.sh
part sh tests/test_programs.sh
part sh tests/test_claims.sh
if [ "$1" = long ]; then part sh tests/mutate.sh --texts; part sh tests/test_long.sh; fi
awk '/[0-9]+ passed, [0-9]+ failed/ {
         for (i = 1; i < NF; i++) {
             if ($(i+1) ~ /^passed/) p += $i; if ($(i+1) ~ /^failed/) f += $i; if ($(i+1) ~ /^skipped/) s += $i } }
     END { printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f > 0 || p == 0 }' "$log" || status=1
exit $status
