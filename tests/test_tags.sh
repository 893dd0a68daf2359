#!/bin/sh
# The tags that join paper, header and tests: every tag of ctm.h like [eq:G] stands in PAPER_NOTES.md and in a test; every tag of
# PAPER_NOTES.md stands in ctm.h and names a figure that is there; every operation listed in the front matter has a card and its
# test; every function of the front matter's EQUATIONS table exists, and carries the tag;
# every public function is explained.
# usage: sh tests/test_tags.sh
cd "$(dirname "$0")/.." || exit 1
passed=0
failed=0
ok()   { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)); echo "FAIL tags: $*"; }
must() { what=$1; shift; if "$@" >/dev/null 2>&1; then ok; else fail "$what"; fi; }
tags() { grep -oE '\[(eq|alg):[A-Za-z0-9_]+\]' "$@" | sort -u; }

# Tags.
header=$(tags ctm.h)
notes=$(tags PAPER_NOTES.md)
must "ctm.h has tags" test -n "$header"
for tag in $header; do
    must "$tag of ctm.h is not in PAPER_NOTES.md" grep -qF "$tag" PAPER_NOTES.md
    must "$tag of ctm.h is in no test" grep -qF "$tag" tests/test_*.c
done
for tag in $notes; do must "$tag of PAPER_NOTES.md is not in ctm.h" grep -qF "$tag" ctm.h; done
# The file that PAPER_NOTES.md names as the test of a tag has the tag.
awk -F'|' '/^\| `\[/ { gsub(/[` ]/, "", $2); n = split($6, file, ","); for (i = 1; i <= n; i++) { gsub(/ /, "", file[i]); print $2, file[i] } }' PAPER_NOTES.md |
while read -r tag file; do
    if grep -qF "$tag" "tests/$file" 2>/dev/null; then echo ok; else echo "PAPER_NOTES.md says $tag is tested by $file, which does not mention it"; fi
done >"${TMPDIR:-/tmp}/tags.$$"
passed=$((passed + $(grep -c '^ok$' "${TMPDIR:-/tmp}/tags.$$")))
while read -r line; do test "$line" = ok || fail "$line"; done <"${TMPDIR:-/tmp}/tags.$$"
rm -f "${TMPDIR:-/tmp}/tags.$$"

# The figure that PAPER_NOTES.md names for a tag is there: an SVG of the demo, a section of the notebook, a claim, an exercise, a stop.
grep '^| `\[' PAPER_NOTES.md | awk -F'|' '{ gsub(/^ +| +$/, "", $7); gsub(/ /, "", $2); print $2 "|" (NF == 8 ? $7 : "") }' >"${TMPDIR:-/tmp}/tags.$$"
while IFS='|' read -r tag figure; do
    must "$tag of PAPER_NOTES.md has no figure, not even -" test -n "$figure"
    for svg in $(printf '%s' "$figure" | grep -oE '`[a-z]+\.svg`' | tr -d '`'); do must "$tag: no figure $svg in examples/demo" test -s "examples/demo/$svg"; done
    for n in $(printf '%s' "$figure" | grep -oE 'notebook [0-9]+' | tr -dc '0-9\n'); do must "$tag: no section $n in the notebook" grep -q "## $n\. " notebook/ctm.ipynb; done
    for n in $(printf '%s' "$figure" | grep -oE 'exercise [0-9]+' | tr -dc '0-9\n'); do must "$tag: no exercise $n" grep -q "^\*\*$n\. " EXERCISES.md; done
    for n in $(printf '%s' "$figure" | grep -oE 'claims? [0-9]+( and [0-9]+)?' | grep -oE '[0-9]+'); do must "$tag: no claim $n" grep -qE "^ *\{$n, \"$n\"" apps/claims.c; done
    for n in $(printf '%s' "$figure" | grep -oE 'stop [0-9]+' | tr -dc '0-9\n'); do must "$tag: no stop $n in the tour" grep -q "^$n\. " debug/TOUR.md; done
done <"${TMPDIR:-/tmp}/tags.$$"
rm -f "${TMPDIR:-/tmp}/tags.$$"

# Operations: the front matter's list, the cards, their tests.
listed=$(awk '/^   OPERATIONS/ { on = 1; next } on && /^ *$/ { exit } on { gsub(/[()]/, " "); print }' ctm.h | tr -s ' ' '\n' | grep -E '^[a-z][a-z0-9_]*$' | sort -u)
cards=$(sed -n 's|^// op: *\([a-z0-9_]*\).*|\1|p' ctm.h | sort -u)
must "the front matter lists operations" test -n "$listed"
for op in $listed; do must "operation $op is listed but has no card '// op: $op'" sh -c 'printf "%s\n" "$2" | grep -qx "$1"' sh "$op" "$cards"; done
for op in $cards; do must "operation $op has a card but is not listed in the front matter" sh -c 'printf "%s\n" "$2" | grep -qx "$1"' sh "$op" "$listed"; done
# A card's "Test op_x" stands within its first lines, and test_op_x exists.
named=$(awk '/^\/\/ op:/ { card = $3; left = 4 } left > 0 { left--; if (match($0, /Test +op_[a-z0-9_]+/)) { t = substr($0, RSTART, RLENGTH); sub(/Test +/, "", t); print card ":" t; left = 0 } }' ctm.h)
for op in $cards; do must "the card of $op names no test" sh -c 'printf "%s\n" "$2" | grep -q "^$1:"' sh "$op" "$named"; done
for pair in $named; do
    test_name=${pair#*:}
    must "the card of ${pair%%:*} names test_$test_name, which is in no test file" grep -qE "test_$test_name *\(" tests/test_*.c
    must "test_$test_name is never run" grep -qE "RUN\($test_name\)" tests/test_*.c
done

# Equations: the front matter's table.
table=$(awk '/^   EQUATIONS/ { on = 1; next } on && /^ *$/ { exit } on { print }' ctm.h | grep -oE '\[(eq|alg):[A-Za-z0-9_]+\] +ctm_[A-Za-z0-9_]+' | tr -s ' ' '>')
must "the front matter has a table of equations" test -n "$table"
for pair in $table; do
    tag=${pair%%>*}
    function=${pair#*>}
    must "$tag: the function $function of the table is not defined in ctm.h" grep -qE "^(CTM__DEF|static) .*[ *]$function\(" ctm.h
done
# ... and that function carries the tag: in the comment above its definition, or inside it.
stands() { awk -v tag="[$1]" -v name="$2" '
    function look(line) { if (index(line, tag)) found = 1 }
    inside { look($0); if ($0 ~ /^}/) exit; next }
    /^\/\// { note = note $0; next }
    /^(CTM__DEF|static) / && $0 !~ /;$/ && $0 ~ "[ *]" name "[(]" { look(note); look($0); if ($0 ~ /}$/) exit; inside = 1; next }
    { note = "" }
    END { exit !found }' ctm.h; }
for pair in $table; do
    tag=${pair%%>*}
    must "$tag stands in the table beside ${pair#*>}, but not on that function" stands "$(printf '%s' "$tag" | tr -d '[]')" "${pair#*>}"
done
for tag in $header; do
    must "$tag is used in ctm.h but not in the front matter's table" sh -c 'printf "%s\n" "$2" | grep -qF "$1>"' sh "$tag" "$table"
done
# Every public function has words: behind it, or above it (a comment serves the lines under it up to the next empty one).
bare=$(awk '/I N T E R F A C E/ { on = 1 } /^#endif \/\/ CTM_H/ { exit } !on { next }
    /^\/\// { words = $0 !~ /^\/\/ (=|-)/; next }
    /^ *$/ { words = 0; next }
    /^CTMDEF/ { all = $0; open = 1 } !/^CTMDEF/ && open { all = all $0 }
    open && /;/ { open = 0; seen++; if (!words && all !~ /\/\//) print all }
    END { if (!seen) print "no public function was found" }' ctm.h)
must "public functions without a word of comment: $bare" test -z "$bare"
echo "tags: $passed passed, $failed failed, 0 skipped"
test "$failed" = 0
