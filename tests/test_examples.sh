#!/bin/sh
# The lessons of examples/ from outside: each is run, and must print what the comment at its end says. "OUTPUT, exactly" allows one unit
# of a number's last digit (the C library's exp and log), "OUTPUT, numbers within 30 %" as much: trained numbers hang on the instruction
# set. Words must be equal, and of pictures (words of # + and . alone) nine characters in ten.
# usage: sh tests/test_examples.sh           build/noise and the others must be built
#        sh tests/test_examples.sh write     puts what the programs print into the comments
cd "$(dirname "$0")/.." || exit 1
root=$(pwd)
passed=0
failed=0
ok() { if [ "$1" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL examples: $2"; fi; }
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
export OMP_WAIT_POLICY=passive

said() { sed -n '/^\/\* OUTPUT, /,/\*\/$/p' "$1" | sed '1d; s/ *\*\/$//'; }
program() { basename "$1" .c | sed 's/^[0-9][0-9]_//'; }

cat >"$dir/compare.awk" <<'END'
function number(w) { return w ~ /^[-+(]?[0-9]+(\.[0-9]+)?[%,;:)]?$/ }
function value(w) { gsub(/[(%,;:)]/, "", w); return w + 0 }
function unit(w,   at) { gsub(/[(%,;:)]/, "", w); at = index(w, "."); return at ? 10^-(length(w) - at) : 1 }
function complain(what) { print name ", line " FNR ": " what; bad = 1 }
NR == FNR { want[FNR] = $0; lines = FNR; next }
{
    n = split(want[FNR], w)
    if (FNR > lines || n != NF) { complain("printed \"" $0 "\", not \"" want[FNR] "\""); next }
    for (k = 1; k <= n; k++) {
        if ($k == w[k]) { if ($k ~ /^[#+.]+$/) points += length($k); continue }
        if ($k ~ /^[#+.]+$/ && length($k) == length(w[k])) {
            for (i = 1; i <= length($k); i++) wrong += substr($k, i, 1) != substr(w[k], i, 1)
            points += length($k)
        } else if (number($k) && number(w[k])) {
            a = value($k); b = value(w[k]); size = a < 0 ? -a : a; if (size < (b < 0 ? -b : b)) size = b < 0 ? -b : b
            d = a < b ? b - a : a - b
            if (d > within/100*size + 1.001*unit($k)*(within > 0 || unit($k) < 1)) complain("printed " $k ", not " w[k] " (\"" $0 "\")")
        } else complain("printed \"" $k "\", not \"" w[k] "\"")
    }
}
END { if (FNR != lines) { name = name; print name ": printed " FNR " lines, not " lines; bad = 1 }
      if (wrong*10 > points) { print name ": " wrong " of " points " characters of the pictures differ"; bad = 1 }
      exit bad }
END
compare() { awk -v name="$1" -v within="$2" -f "$dir/compare.awk" "$3" "$4"; }       # name, percent, said, printed

# Can the comparison fail?
printf 'step 10 loss 0.120\n##..#.. #.+\n' >"$dir/a"
same() { printf "$1" >"$dir/b"; compare self "$2" "$dir/a" "$dir/b" >/dev/null; }
same 'step 10 loss 0.120\n##..#.. #.+\n' 0; ok $? "equal texts differ"
same 'step 10 loss 0.121\n##..#.. #.+\n' 0; ok $? "one unit of the last digit is no difference"
same 'step 10 loss 0.150\n##..#.. #++\n' 30; ok $? "30 % and one character of ten are allowed"
same 'step 10 loss 0.122\n##..#.. #.+\n' 0; ok $((!$?)) "0.120 and 0.122 are equal"
same 'step 11 loss 0.120\n##..#.. #.+\n' 0; ok $((!$?)) "10 and 11 are equal"
same 'step 10 loss 0.190\n##..#.. #.+\n' 30; ok $((!$?)) "0.120 and 0.190 are within 30 %"
same 'step 10 loss nan\n##..#.. #.+\n' 30; ok $((!$?)) "nan passes for a number"
same 'step 10 cost 0.120\n##..#.. #.+\n' 30; ok $((!$?)) "another word passes"
same 'step 10 loss 0.120\n#++.#.. #.+\n' 30; ok $((!$?)) "two characters of ten pass"
same 'step 10 loss 0.120\n' 30; ok $((!$?)) "a missing line passes"
same 'step 10 loss 0.120\n##..#.. #.+\nmore\n' 30; ok $((!$?)) "a line too many passes"

one() {                                                                  # one LESSON: runs it in a folder of its own
    p=$(program "$1")
    mkdir "$dir/$p" && cd "$dir/$p" || return
    "$root/build/$p" >out 2>err
    echo $? >status
    ls >left
}
# Two lanes, as most machines have two cores
{ for f in examples/0[13579]_*.c; do (one "$f"); done; } &
for f in examples/0[2468]_*.c examples/10_*.c; do (one "$f"); done
wait

for f in examples/0[1-9]_*.c examples/10_*.c; do
    p=$(program "$f")
    head=$(sed -n 's,^/\* OUTPUT\, ,,p' "$f")
    case $head in
    exactly) within=0 ;;
    "numbers within "*" %") within=$(printf '%s' "$head" | tr -dc 0-9) ;;
    *) within=0; ok 1 "$f: no comment \"OUTPUT, exactly\" or \"OUTPUT, numbers within N %\"" ;;
    esac
    [ "$(cat "$dir/$p/status")" = 0 ] && [ ! -s "$dir/$p/err" ]; ok $? "$f: status $(cat "$dir/$p/status"), $(cat "$dir/$p/err")"
    if [ "$1" = write ]; then
        { sed '/^\/\* OUTPUT, /,$d' "$f"; echo "/* OUTPUT, ${head:-exactly}"; sed '$s,$, */,' "$dir/$p/out"; } >"$dir/new" && cat "$dir/new" >"$f"
    fi
    said "$f" >"$dir/said"
    compare "$f" "$within" "$dir/said" "$dir/$p/out"; ok $? "$f does not print what its comment says"
    lines=$(sed '/^\/\* OUTPUT, /,$d' "$f" | wc -l)
    [ "$lines" -ge 60 ] && [ "$lines" -le 150 ]; ok $? "$f has $lines lines, not 60 to 150"
    sed -n 1p "$f" | grep -q "^/\* Lesson $(printf '%s' "$f" | tr -dc 0-9 | sed 's/^0//'): .*cc -O2 $f -o $p -lm && ./$p\$"
    ok $? "$f: its first line does not say \"Lesson N: ..  cc -O2 $f -o $p -lm && ./$p\""
    [ "$(grep -h '^#include "' "$f")" = '#include "../ctm.h"' ]; ok $? "$f needs more than ctm.h"
done
[ "$(wc -l <examples/00_mini.c)" -le 300 ]; ok $? "examples/00_mini.c has more than 300 lines"
for svg in gamma; do grep -q '</svg>' "$dir/gamma/$svg.svg"; ok $? "$svg.svg is not complete"; done

# The application of lesson 9, with files that are none
cd "$dir/weights" || exit 1
"$root/build/weights" geyser.safetensors 5 >again 2>&1; sed -n 2,6p out | cmp -s - again; ok $? "weights: a file given by name has other samples"
refused() { what=$1; status=$2; text=$3; shift 3; "$@" >o 2>e; [ $? = "$status" ] && [ "$(wc -l <e)" = 1 ] && grep -q "$text" e && [ ! -s o ]; ok $? "weights: $what: $(cat o e)"; }
refused "no such file" 1 "weights: none: " "$root/build/weights" none
head -c 1000 geyser.safetensors >short
refused "a short file" 1 "weights: short: " "$root/build/weights" short
refused "a count of nothing" 2 "usage: weights" "$root/build/weights" geyser.safetensors 0
refused "too many arguments" 2 "usage: weights" "$root/build/weights" a 1 2
if [ -e /dev/full ]; then refused "a full disk" 1 "cannot write to standard output" sh -c '"$0" geyser.safetensors >/dev/full' "$root/build/weights"; fi
cd "$root" || exit 1
echo "examples: $passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
