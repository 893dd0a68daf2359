#!/bin/sh
# The woven book: every line of ctm.h is in it once, every link inside it has an end, nothing is fetched, every tag has its formula
# and every formula its tag in the header. Rendered formulas are looked at if pandoc is here.
# usage: sh tests/test_book.sh
cd "$(dirname "$0")/.." || exit 1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
passed=0
failed=0
skipped=0
check() {                               # check NAME COMMAND...: counts, and shows what the command said if it failed
    name=$1; shift
    if "$@" >"$dir/said" 2>&1; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL book: $name"; sed 's/^/     /' "$dir/said"; fi
}
finish() { echo "book: $passed passed, $failed failed, $skipped skipped"; test "$failed" = 0; exit; }
fails() { if "$@"; then return 1; else return 0; fi; }
weave() { python3 book/weave.py "$@"; }

if ! command -v python3 >/dev/null 2>&1; then skipped=1; echo "skipped: book (no python3)"; finish; fi
check "it is woven without pandoc" weave --plain --check ctm.h book/formulas.tex PAPER_NOTES.md "$dir/plain.html"
check "then formulas stand there as in the header" grep -q 'G(x,t,s) = (s/t)·x + (1 - s/t)·g(x,t,s)' "$dir/plain.html"
check "then nothing is rendered" fails grep -q '<math' "$dir/plain.html"
if command -v pandoc >/dev/null 2>&1; then
    check "it is woven with pandoc" weave --check ctm.h book/formulas.tex PAPER_NOTES.md "$dir/book.html"
    check "every formula of formulas.tex is rendered somewhere" sh -c 'test "$(grep -c "^%% " book/formulas.tex)" -le "$(grep -o "<math" "$1" | wc -l)"' sh "$dir/book.html"
    sed 's/^x_t = x_0/\\undefinedmacro{x_0/' book/formulas.tex >"$dir/bad.tex"
    check "a formula that is no LaTeX stops it" fails weave --check ctm.h "$dir/bad.tex" PAPER_NOTES.md "$dir/bad.html"
    check "and leaves no page" test ! -e "$dir/bad.html"
    sed 's|\[eq:cm\] A consistency|A consistency|' ctm.h >"$dir/unset.h"
    check "a formula that is set in no chapter is refused" sh -c 'python3 book/weave.py --check "$1/unset.h" book/formulas.tex PAPER_NOTES.md "$1/unset.html" 2>&1 | grep -q "formula of eq:cm is set in no chapter"' sh "$dir"
else
    skipped=$((skipped + 1))
    echo "skipped: rendered formulas (no pandoc)"
fi
{ cat book/formulas.tex; printf '%%%% eq:of_nothing\nx\n'; } >"$dir/orphan.tex"
check "a formula without a tag in the header is refused" fails weave --plain --check ctm.h "$dir/orphan.tex" PAPER_NOTES.md "$dir/orphan.html"
sed 's|Saves sig        Test  op_silu|Test  op_silu|' ctm.h >"$dir/card.h"
check "a card without its lines is refused" sh -c 'python3 book/weave.py --plain --check "$1/card.h" book/formulas.tex PAPER_NOTES.md "$1/card.html" 2>&1 | grep -q "the card of silu, line .* lacks"' sh "$dir"
check "every operation is in the table of operations" sh -c 'test "$(grep -c "^// op: " ctm.h)" = "$(sed "1,/id=.operations./d; /<.section>/,\$d" "$1/plain.html" | grep -c "^<tr><td")"' sh "$dir"
sed '/^%% eq:lambda$/,/^$/d' book/formulas.tex >"$dir/short.tex"
check "a tag without a formula is refused" sh -c 'python3 book/weave.py --plain --check ctm.h "$1/short.tex" PAPER_NOTES.md "$1/short.html" 2>"$1/err"; test $? = 1 && grep -q "eq:lambda is in the header, line .*, but has no formula" "$1/err" && ! test -e "$1/short.html"' sh "$dir"
check "a header that is not there is one line of error" sh -c 'python3 book/weave.py --plain "$1/none.h" book/formulas.tex PAPER_NOTES.md "$1/x.html" 2>"$1/err"; test $? = 1 -a "$(wc -l <"$1/err")" = 1' sh "$dir"
finish
