#!/bin/sh
# apps/claims.c from the outside, with runs far too short to say anything about the claims: that every claim is answered, that
# the tables agree with one another and with the verdicts' rule, that threads change nothing, and bad input.
cd "$(dirname "$0")/.." || exit 1
claims=build/claims
tmp=$(mktemp -d) || exit 1
trap 'chmod -R u+w "$tmp" 2>/dev/null; rm -rf "$tmp"' EXIT
passed=0 failed=0
ok()  { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "FAIL claims: $*"; }
same() { if cmp -s "$1" "$2"; then ok; else bad "$3"; fi; }
says() { if [ "$2" = "$3" ]; then ok; else bad "$1: \"$2\" instead of \"$3\""; fi; }
refuses() {                             # refuses STATUS FRAGMENT FLAGS...
    want=$1 part=$2; shift 2
    "$claims" "$@" >"$tmp/stdout" 2>"$tmp/stderr"; got=$?
    if [ $got != "$want" ]; then bad "$*: exit status $got, expected $want"
    elif [ "$(wc -l <"$tmp/stderr")" != 1 ] || ! grep -qF -- "$part" "$tmp/stderr"; then bad "$*: \"$part\" is not in: $(head -c 300 "$tmp/stderr")"
    else ok; fi
}

# ---- all claims, two seeds; and again on two threads
if "$claims" --steps 6 --seeds 2 --seed 5 --threads 1 --quiet --out "$tmp/a" >"$tmp/a.out" 2>"$tmp/a.err"; then ok; else bad "exit status $?: $(head -c 300 "$tmp/a.err")"; fi
says "--quiet on stderr" "$(cat "$tmp/a.err")" ""
mv "$tmp/a" "$tmp/b"; mv "$tmp/a.out" "$tmp/b.out"     # figures derive their ids from their path: the same path again
"$claims" --steps 6 --seeds 2 --seed 5 --threads 2 --quiet --out "$tmp/a" >"$tmp/a.out" 2>/dev/null
same "$tmp/a.out" "$tmp/b.out" "the lines depend on --threads"
for f in claims.csv values.csv index.html claim-3.svg claim-11.svg; do same "$tmp/a/$f" "$tmp/b/$f" "$f depends on --threads"; done

ids="1 2 3 3-ours 4 5 6 7 8 9 10 11 12 13"
says "first line" "$(head -n 1 "$tmp/a.out")" "claim | measured | verdict"
says "claims answered" "$(sed 1d "$tmp/a.out" | sed 's/\. .*//' | tr '\n' ' ')" "$ids "
says "claims in claims.csv" "$(sed 1d "$tmp/a/claims.csv" | cut -d, -f1 | tr '\n' ' ')" "$ids "
says "lines without three parts" "$(awk -F' [|] ' 'NF != 3' "$tmp/a.out")" ""
says "verdicts unknown" "$(sed 1d "$tmp/a.out" | awk -F' [|] ' '$3 !~ /^(holds|holds weakly|does not show here): ./')" ""
for id in $ids; do
    case $(head -c 5 "$tmp/a/claim-$id.svg") in '<?xml'|'<svg ') ok ;; *) bad "claim-$id.svg is not an SVG" ;; esac
    grep -q "href='claim-$id.svg'" "$tmp/a/index.html" && ok || bad "index.html lacks claim $id"
done
says "heads" "$(head -qn 1 "$tmp/a/claims.csv" "$tmp/a/values.csv" "$tmp/a/runs.csv" | tr '\n' ' ')" \
     "claim,question,measured,verdict,why claim,quantity,limit,seed,value variant,seed,steps,seconds,text "
says "seeds of values.csv" "$(sed 's/"[^"]*"//g' "$tmp/a/values.csv" | sed 1d | cut -d, -f4 | sort -u | tr '\n' ' ')" "5 6 "
says "not a number in values.csv" "$(sed 's/"[^"]*"//g' "$tmp/a/values.csv" | sed 1d | cut -d, -f5 | grep -Ev '^[0-9.]+(e[-+]?[0-9]+)?$')" ""
says "runs" "$(sed 1d "$tmp/a/runs.csv" | cut -d, -f1 | sort | uniq -c | awk '$1 != 2')" ""
says "leftovers" "$(ls "$tmp/a" | grep '\.tmp$')" ""

# The verdicts once more, from values.csv: all seeds within every limit; else the medians (of two: their mean); else not shown.
sed 's/"[^"]*"/q/g' "$tmp/a/values.csv" | awk -F, 'NR > 1 && $3 != "" {
        if (NR % 2 == 0) { first = $5; next }
        if (first > $3 || $5 > $3) all[$1] = 1
        if ((first + $5) / 2 > $3 * (1 + 1e-6)) none[$1] = 1
        seen[$1] = 1 }
    NR > 1 && $3 == "" { next }
    END { for (c in seen) print c "," (none[c] ? "does not show here" : all[c] ? "holds weakly" : "holds") }' | sort >"$tmp/mine"
sed 1d "$tmp/a/claims.csv" | sed 's/"[^"]*"/q/g' | cut -d, -f1,4 | sort >"$tmp/theirs"
same "$tmp/mine" "$tmp/theirs" "verdicts do not follow from values.csv: $(diff "$tmp/mine" "$tmp/theirs" | head -n 4 | tr '\n' ' ')"

# ---- a choice of claims trains what they need, and finds the same
"$claims" --steps 6 --seeds 2 --seed 5 --threads 2 --quiet --only 12,8 --out "$tmp/c" >"$tmp/c.out" 2>/dev/null
says "--only 12,8" "$(sed 1d "$tmp/c.out" | sed 's/\. .*//' | tr '\n' ' ')" "8 12 "
says "runs of --only 12,8" "$(sed 1d "$tmp/c/runs.csv" | cut -d, -f1 | sort -u | tr '\n' ' ')" "fixed one-heun paper points "
grep -E '^(claim|8\.|12\.)' "$tmp/a.out" >"$tmp/part"
same "$tmp/part" "$tmp/c.out" "--only changes what is measured"
"$claims" --steps 6 --seeds 2 --seed 6 --threads 2 --quiet --only 12 --out "$tmp/d" >"$tmp/d.out" 2>/dev/null
if cmp -s "$tmp/c/runs.csv" "$tmp/d/runs.csv" || [ "$(sed -n 2p "$tmp/d.out")" = "$(sed -n 3p "$tmp/c.out")" ]; then bad "--seed changes nothing"; else ok; fi

# ---- bad input
for flag in "--stepps 5" "--steps 0" "--steps x" "--seeds 0" "--seeds 9" "--only 0" "--only 14" "--only 3,,5" "--only x" "--only 3," "--threads x" "--seed abc"; do
    set -- $flag
    refuses 2 "${1%ps}" "$@" --out "$tmp/none"
done
if [ -e "$tmp/none" ]; then bad "wrong usage made a folder"; else ok; fi
echo x >"$tmp/file"
refuses 1 "$tmp/file" --steps 6 --seeds 1 --quiet --out "$tmp/file/out"
"$claims" --help >"$tmp/help" 2>&1 && ok || bad "--help: exit status $?"
for flag in only full seeds steps seed threads out quiet; do grep -q -- "--$flag" "$tmp/help" && ok || bad "--help does not mention --$flag"; done
echo "claims: $passed passed, $failed failed, 0 skipped"
[ $failed = 0 ]
