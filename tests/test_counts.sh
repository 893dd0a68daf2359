#!/bin/sh
# Counts that texts quote against what they count: lines, settings, lessons, exercises. A number in words or figures is taken from the
# sentence that quotes it, so a sentence that changes must be changed here, too.
# usage: sh tests/test_counts.sh
cd "$(dirname "$0")/.." || exit 1
passed=0 failed=0

# in_words N: the number that a text may spell out
in_words() {
    case $1 in [0-9]*) echo "$1" | tr -d , ;;
    one) echo 1;; two) echo 2;; three) echo 3;; four) echo 4;; five) echo 5;; six) echo 6;; seven) echo 7;; eight) echo 8;; nine) echo 9;; ten) echo 10;;
    eleven) echo 11;; twelve) echo 12;; thirteen) echo 13;; fourteen) echo 14;; fifteen) echo 15;; fifty) echo 50;; *) echo none;; esac
}
# quoted FILE PATTERN: the number in the first match of PATTERN, an extended expression with the number in \1
quoted() { in_words "$(sed -E -n "s/.*$2.*/\1/p" "$1" | head -n 1 | tr 'A-Z' 'a-z')"; }
# is NAME QUOTED COUNTED PERCENT: the two agree to so many percent
is() {
    if awk -v q="$2" -v c="$3" -v p="$4" 'BEGIN { exit !(q != "none" && c + 0 > 0 && (q - c <= c * p / 100) && (c - q <= c * p / 100)) }'; then passed=$((passed + 1))
    else failed=$((failed + 1)); echo "FAIL counts: $1: the text says $2, there are $3"; fi
}
program=$(sed -n '/BEGIN-PROGRAM/,/END-PROGRAM/p' ctm.h | sed -n '/int main/,/^   }/p' | wc -l)
is "lines of main at the head of ctm.h, by README.md" "$(quoted README.md 'like the ([0-9]+) lines at the head')" "$program" 0
is "lines of 00_mini.c, by README.md" "$(quoted README.md 'method in ([0-9]+) lines of plain C')" "$(wc -l <examples/00_mini.c)" 3
is "lines of 00_mini.c, by ctm.h" "$(quoted ctm.h 'in ([0-9]+) lines of plain C')" "$(wc -l <examples/00_mini.c)" 3
is "lines of ctm.h, by README.md" "$(quoted README.md 'about ([0-9,]+) in the header')" "$(wc -l <ctm.h)" 2
is "lines of the programs, by README.md" "$(quoted README.md 'in the header, ([0-9,]+) of programs')" "$(cat examples/*.[ch] apps/*.[ch] | wc -l)" 3
is "lessons, by README.md" "$(quoted README.md '^([A-Za-z]+) programs in \[examples')" "$(ls examples/[0-9]*.c | wc -l)" 0
is "exercises, by EXERCISES.md" "$(quoted EXERCISES.md '^([A-Za-z]+) exercises')" "$(grep -c '^\*\*[0-9]*\. ' EXERCISES.md)" 0
settings=$(sed -n '/^struct ctm_config {/,/^};/p' ctm.h | sed 's|//.*||' | tr ';' '\n' | grep -E '[a-z]' | grep -v 'struct ctm_config' |
           awk '{ sub(/noise$/, "a, b, c, d, e, f"); print gsub(/,/, ",") + 1; }' | awk '{ s += $1 } END { print s }')
is "settings, by chapter 14 of ctm.h" "$(quoted ctm.h 'is decided by some ([a-z]+) choices')" "$settings" 20
is "recipes that ctm_recipe_named lists" "$(sed -n 's/.*there is no recipe .*; there are \(.*\)", name.*/\1/p' ctm.h | tr ',' '\n' | grep -c .)" "$(sed -n '/} known\[\] = {/,/};/p' ctm.h | grep -o '{"[a-z]*", ctm_recipe' | wc -l)" 0

# ---- the comparison can fail
before=$failed
is "(on purpose)" 22 21 0 >/dev/null
is "(on purpose)" "$(quoted README.md 'a sentence that is ([0-9]+) not there')" 21 0 >/dev/null
if [ $((failed - before)) = 2 ]; then failed=$before passed=$((passed + 1)); else echo "FAIL counts: a wrong count is not noticed"; fi
echo "counts: $passed passed, $failed failed, 0 skipped"
test $failed = 0
