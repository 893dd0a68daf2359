#!/bin/sh
# Everything the *.md files point at is there: links to files and to headings, paths in backticks, targets of make, tags of formulas,
# functions of ctm.h. And every table of measured numbers has a command near it that prints them.
# usage: sh tests/test_links.sh
cd "$(dirname "$0")/.." || exit 1
list=$(mktemp) || exit 1
trap 'rm -f "$list"' EXIT
find . \( -name .git -o -name build -o -name out -o -name node_modules -o -name __pycache__ \) -prune -o -name '*.md' -print | sed 's|^\./||' | sort >"$list"
passed=0
failed=0
ok()   { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)); echo "FAIL links: $*"; }
must() { what=$1; shift; if "$@" >/dev/null 2>&1; then ok; else fail "$what"; fi; }

# The headings of a file as they become anchors: lower case, punctuation dropped, blanks to hyphens.
anchors() { awk '/^```/ { code = !code } !code && /^#+ / { sub(/^#+ /, ""); print tolower($0) }' "$1" | sed 's/[^a-z0-9 _-]//g; s/ /-/g'; }
# The text outside of fenced blocks.
prose() { awk '/^ *```/ { code = !code; next } !code' "$1"; }

must "there are documents" test -s "$list"
while read -r file; do
    folder=$(dirname "$file")
    # Links: ](target), with an optional #heading. Addresses of the web are not looked up.
    for target in $(prose "$file" | grep -oE '\]\([^) ]+\)' | sed 's/^](//; s/)$//' | sort -u); do
        case $target in http:*|https:*|mailto:*) continue ;; esac
        path=${target%%#*}
        where=$file
        if [ -n "$path" ]; then
            where=$folder/$path
            must "$file links to $target, which is not there" test -e "$where"
        fi
        case $target in *.md#*|\#*) must "$file links to $target, but there is no such heading" sh -c 'printf "%s\n" "$1" | grep -qxF "$2"' sh "$(anchors "$where")" "${target#*#}" ;; esac
    done
    # Paths of the repository in backticks. What make builds or a run leaves (build/, out/) is not there before.
    for path in $(prose "$file" | grep -oE '`[^`]+`' | tr -d '`' | tr ' ' '\n' | grep -E '^(examples|apps|tests|book|notebook|debug)/[A-Za-z0-9_./-]+$' | sed 's/[.,]$//' | sort -u); do
        must "$file names $path, which is not there" test -e "$path"
    done
    # Programs that make builds, and targets of make. In fenced and indented blocks too.
    for program in $(grep -oE '\bbuild/[a-z_0-9]+' "$file" | sort -u); do
        must "$file names $program, which no rule of the Makefile builds" make -n "$program"
    done
    for target in $(grep -oE '(`|^    )make [a-z][a-z-]*' "$file" | sed 's/.*make //' | sort -u); do
        must "$file says make $target, which is no target" grep -q "^$target:" Makefile
    done
    # Tags and public functions.
    for tag in $(grep -oE '\[(eq|alg):[A-Za-z0-9_]+\]' "$file" | sort -u); do
        must "$file names the tag $tag, which is not in ctm.h" grep -qF "$tag" ctm.h
    done
    for name in $(grep -oE '`(ctm_|CTM_)[A-Za-z0-9_]+[`(]' "$file" | tr -d '`(' | sort -u); do
        must "$file names $name, which is neither in ctm.h nor in tests/bench.c" grep -qw "$name" ctm.h tests/bench.c
    done
done <"$list"

# A table with measured numbers (decimals in at least two of its rows) has a command in backticks, or in an indented block, in its section.
for file in README.md PAPER_NOTES.md docs/results.md docs/diary.md; do
    awk -v file="$file" '
        function done() { if (rows >= 2) { print (command ? "ok" : file ": no command near the table at line " start); } rows = 0; table = 0 }
        /^#/ { done(); command = 0 }
        /`(make|build\/|git|wc|sh tests\/)/ || /^    (make|build\/)/ { command = 1 }
        /^\|/ { if (!table) { start = NR; table = 1 } if ($0 ~ /\|[^|]*[0-9]*\.[0-9]+/) rows++; next }
        { if (table) done() }
        END { done() }' "$file"
done >"$list.tables"
while read -r line; do if [ "$line" = ok ]; then ok; else fail "$line"; fi; done <"$list.tables"
must "there are tables of measured numbers" grep -q . "$list.tables"
rm -f "$list.tables"
echo "links: $passed passed, $failed failed, 0 skipped"
test "$failed" = 0
