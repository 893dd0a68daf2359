#!/bin/sh
# The example programs from the outside: what they write, resuming, and one clear line for every kind of bad input.
cd "$(dirname "$0")/.." || exit 1
points=build/points
tmp=$(mktemp -d) || exit 1
trap 'chmod -R u+w "$tmp" 2>/dev/null; rm -rf "$tmp"' EXIT
passed=0 failed=0 skipped=0
ok()   { passed=$((passed + 1)); }
bad()  { failed=$((failed + 1)); echo "FAIL programs: $*"; }
skip() { skipped=$((skipped + 1)); echo "skip programs: $*"; }

# refuses NAME STATUS FRAGMENT COMMAND...: exits with STATUS, says one line on stderr that contains FRAGMENT
refuses() {
    name=$1 want=$2 part=$3; shift 3
    "$@" >"$tmp/stdout" 2>"$tmp/stderr"; got=$?
    lines=$(wc -l <"$tmp/stderr")
    if [ $got != "$want" ]; then bad "$name: exit status $got, expected $want: $(head -c 300 "$tmp/stderr")"
    elif [ "$lines" != 1 ]; then bad "$name: $lines lines on stderr instead of 1: $(head -c 300 "$tmp/stderr")"
    elif ! grep -qF -- "$part" "$tmp/stderr"; then bad "$name: \"$part\" is not in: $(cat "$tmp/stderr")"
    else ok; fi
}
# runs NAME COMMAND...: must succeed
runs() {
    name=$1; shift
    if "$@" >"$tmp/stdout" 2>"$tmp/stderr"; then ok; else bad "$name: exit status $?: $(head -c 300 "$tmp/stderr")"; fi
}
exists() { for f in "$@"; do if [ -s "$f" ]; then ok; else bad "$f is missing or empty"; fi; done; }
absent() { for f in "$@"; do if [ -e "$f" ]; then bad "$f should not exist"; else ok; fi; done; }

# ---- a short training run and its files
run=$tmp/run
runs "train" $points train --data ring --steps 60 --seed 3 --out "$run" --quiet --threads 2 --noises 2000 --law-steps 20
exists "$run/index.html" "$run/metrics.csv" "$run/loss.csv" "$run/samples.csv" "$run/model.safetensors" "$run/checkpoint.safetensors"
for f in "$run"/*.svg; do
    case $(head -c 5 "$f") in '<?xml'|'<svg ') ok ;; *) bad "$f is not an SVG" ;; esac
done
for name in flow_rms_onestep flow_rms_grid flow_median_onestep flow_rms_chain2 flow_rms_chain4 flow_rms_chain8 flow_rms_chain17 \
            flow_p99_onestep flow_p99_chain17 denoiser_rms flow_rms_onestep_vs_teacher teacher_rms_onestep sw2_ratio_nfe1 \
            sw2_ratio_nfe2 sw2_ratio_nfe4 sw2_ratio_nfe8 sw2_ratio_nfe17 off_support_nfe1 off_support_nfe4 off_support_nfe17 nll_gap \
            train_seconds steps_per_second; do
    if grep -Eq "^$name,-?[0-9.]+(e[-+]?[0-9]+)?$" "$run/metrics.csv"; then ok; else bad "metrics.csv has no number for $name"; fi
done
[ "$(ls "$run" | grep -c '\.tmp$')" = 0 ] && ok || bad "temporary files were left in $run"

# ---- a run stopped at 60 of 120 and resumed equals the uninterrupted one; the number of threads changes nothing
runs "whole run" $points train --data ring --steps 120 --seed 4 --out "$tmp/whole" --quiet --threads 1 --plain --noises 1000
runs "stopped at 47" $points train --data ring --steps 120 --seed 4 --out "$tmp/parts" --quiet --threads 2 --plain --noises 1000 --stop-at 47
absent "$tmp/parts/metrics.csv"
$points train --data ring --steps 120 --seed 4 --out "$tmp/parts" --quiet --threads 2 --plain --noises 1000 --stop-at 3 2>&1 >/dev/null | grep -q 'holds an earlier run' && ok || bad "a run into an earlier one's folder does not say so"
runs "stopped at 47 again" $points train --data ring --steps 120 --seed 4 --out "$tmp/parts" --quiet --threads 2 --plain --noises 1000 --stop-at 47 2>/dev/null
runs "resumed" $points train --data ring --steps 120 --seed 4 --out "$tmp/parts" --quiet --threads 2 --plain --noises 1000 --resume
$points train --data ring --steps 20000000 --seed 4 --out "$tmp/signal" --quiet --plain >/dev/null 2>&1 & pid=$!
for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.3; [ -e "$tmp/signal/loss.csv" ] && break; done
kill -TERM $pid 2>/dev/null
if wait $pid; then ok; else bad "a run that gets SIGTERM: exit status $?"; fi
exists "$tmp/signal/checkpoint.safetensors"
cmp -s "$tmp/whole/model.safetensors" "$tmp/parts/model.safetensors" && ok || bad "the resumed run's weights differ from the whole run's"
cmp -s "$tmp/whole/loss.csv" "$tmp/parts/loss.csv" && ok || bad "the resumed run's loss.csv differs from the whole run's"

# ---- sampling
runs "sample csv" $points sample --weights "$run/model.safetensors" --n 50 --nfe 4 --gamma 0.3 --out "$tmp/s.csv"
[ "$(wc -l <"$tmp/s.csv")" = 51 ] && ok || bad "sample --n 50 wrote $(wc -l <"$tmp/s.csv") lines"
for sampler in gamma exact onestep cm heun euler; do
    runs "sampler $sampler" $points sample --weights "$run/model.safetensors" --n 20 --sampler $sampler --nfe 1 --out "$tmp/$sampler.npy"
    exists "$tmp/$sampler.npy"
done
runs "noise file" $points sample --weights "$run/model.safetensors" --noise "$tmp/exact.npy" --nfe 2 --out "$tmp/n.npy"

# ---- tables
printf 'name,height,"wide, unit",count\r\nx,1.5,2,3\r\ny,2.5,NA,4\r\n"z ""q""",3.5,4,5\r\nw,4.5,7,6\r\nv,1.0,3,1\r\n' >"$tmp/t.csv"
for i in 1 2 3 4 5 6; do printf 'r,%s.25,%s,%s\r\n' $i $((i * 3 % 7)) $((7 - i)); done >>"$tmp/t.csv"
runs "table" $points train --data "$tmp/t.csv" --columns "height,count" --steps 40 --seed 1 --out "$tmp/table" --quiet --noises 1000
exists "$tmp/table/samples.csv" "$tmp/table/metrics.csv" "$tmp/table/index.html"
head -1 "$tmp/table/samples.csv" | grep -q '^height,count' && ok || bad "samples.csv does not carry the table's column names"
runs "three columns" $points train --data "$tmp/t.csv" --columns 'height,"wide, unit",count' --steps 20 --out "$tmp/table3" --quiet --noises 1000
runs "sample of a table" $points sample --weights "$tmp/table/model.safetensors" --n 5 --nfe 1 --out "$tmp/ts.csv"
head -1 "$tmp/ts.csv" | grep -q '^height,count' && ok || bad "sample does not carry the table's column names"

# ---- bad tables
csv() { printf "$2" >"$tmp/$1.csv"; }
csv empty ''; csv header 'a,b\n'; csv short 'a,b\n1,2\n3\n4,5\n'; csv word 'a,b\n1,2\n3,x\n4,5\n6,7\n8,9\n'; csv inf 'a,b\n1,2\n3,inf\n4,5\n'
csv constant 'a,b\n1,2\n1,3\n1,4\n'; csv onerow 'a,b\n1,2\n'; csv good 'alpha,beta\n1,2\n2,5\n3,1\n4,4\n'
bad_table() { refuses "$1" 1 "$2" $points train --data "$tmp/$1.csv" --steps 5 --out "$tmp/bad" --quiet; }
refuses "no such file" 1 "$tmp/none.csv" $points train --data "$tmp/none.csv" --steps 5 --out "$tmp/bad" --quiet
bad_table empty empty.csv; bad_table header header.csv; bad_table short short.csv; bad_table inf inf
refuses "a number that is none" 1 "x" $points train --data "$tmp/word.csv" --columns a,b --steps 5 --out "$tmp/bad" --quiet
bad_table constant constant.csv; bad_table onerow onerow.csv
refuses "unknown column" 1 "beta" $points train --data "$tmp/good.csv" --columns alpha,betta --steps 5 --out "$tmp/bad" --quiet
refuses "text column" 1 "name" $points train --data "$tmp/t.csv" --columns name,height --steps 5 --out "$tmp/bad" --quiet
absent "$tmp/bad/model.safetensors" "$tmp/bad/metrics.csv"

# ---- bad flags: wrong usage is status 2
flag() { name="$*"; part=$1; refuses "$name" 2 "$part" $points train "$@" --out "$tmp/flag"; }
flag --steps -5; flag --steps 1e99; flag --seed abc; flag --threads x; flag --stepps 5
"$points" train --stepps 5 2>&1 | grep -q -- '--steps' && ok || bad "an unknown flag gets no suggestion"
refuses "unknown data" 2 "rign" $points train --data rign --out "$tmp/flag"
refuses "unknown teacher" 2 "did you mean exact?" $points train --data ring --teacher exakt --out "$tmp/flag"
absent "$tmp/flag"
printf 'a,b\n1,2\n3,5\n' >"$tmp/two.csv"
refuses "a table of two rows" 1 "has 2 complete rows, expected at least 10" $points train --data "$tmp/two.csv" --steps 5 --out "$tmp/flag" --quiet
absent "$tmp/flag"
refuses "gamma 2" 2 "--gamma" $points sample --weights "$run/model.safetensors" --gamma 2 --out "$tmp/x.csv"
refuses "nfe 0" 2 "--nfe" $points sample --weights "$run/model.safetensors" --nfe 0 --out "$tmp/x.csv"
refuses "even nfe for Heun" 2 "--nfe" $points sample --weights "$run/model.safetensors" --sampler heun --nfe 4 --out "$tmp/x.csv"
absent "$tmp/flag" "$tmp/x.csv"

# ---- bad weights and places
head -c 300 "$run/model.safetensors" >"$tmp/cut.safetensors"
head -c 30000 "$run/model.safetensors" >"$tmp/cut2.safetensors"
echo "hello" >"$tmp/foreign.safetensors"
sample() { refuses "$1" 1 "$2" $points sample --weights "$2" --n 5 --nfe 1 --out "$tmp/y.csv"; }
sample "no weights" "$tmp/nowhere.safetensors"; sample "cut in the header" "$tmp/cut.safetensors"; sample "cut in the data" "$tmp/cut2.safetensors"
sample "foreign file" "$tmp/foreign.safetensors"; sample "checkpoint as weights" "$run/checkpoint.safetensors"
# a mean that is missing, a unit that is no number: the data's units are not guessed
LC_ALL=C sed 's/"data.mean.1"/"data.neam.1"/' "$run/model.safetensors" >"$tmp/mean.safetensors"
LC_ALL=C sed 's/"data.unit.0":"./"data.unit.0":"x/' "$run/model.safetensors" >"$tmp/unit.safetensors"
LC_ALL=C sed 's/"data.column.1"/"data.dolumn.1"/' "$run/model.safetensors" >"$tmp/column.safetensors"
for what in mean unit column; do
    refuses "half of the units: $what" 1 "has no sound data.column" $points sample --weights "$tmp/$what.safetensors" --n 5 --nfe 1 --out "$tmp/y.csv"
    refuses "density, half of the units: $what" 1 "has no sound data.column" $points loglik --weights "$tmp/$what.safetensors" --data "$run/samples.csv" --out "$tmp/y.csv"
done
absent "$tmp/y.csv"
refuses "resume without a checkpoint" 1 "checkpoint.safetensors" $points train --data ring --steps 5 --out "$tmp/fresh" --resume --quiet
mkdir "$tmp/other"; cp "$tmp/table/checkpoint.safetensors" "$tmp/other/"
refuses "resume from other data" 1 "checkpoint.safetensors" $points train --data ring --steps 60 --out "$tmp/other" --resume --quiet
echo x >"$tmp/file"
refuses "output under a file" 1 "$tmp/file" $points train --data ring --steps 5 --out "$tmp/file/out" --quiet
if [ -w /dev/full ] && ln -s /dev/full "$tmp/full.csv"; then
    refuses "full disk" 1 "full.csv" $points sample --weights "$run/model.safetensors" --n 5000 --nfe 1 --out "$tmp/full.csv"
else skip "no /dev/full here"; fi

# ---- adversary, classes, other methods
number() { grep -E "^$2," "$1/metrics.csv" | cut -d, -f2; }
less() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && a < b) }'; }
runs "gan, whole" $points train --data ring --steps 60 --seed 4 --gan --out "$tmp/gan" --quiet --threads 1 --plain --noises 1000
runs "gan, stopped at 47" $points train --data ring --steps 60 --seed 4 --gan --out "$tmp/gan2" --quiet --threads 2 --plain --noises 1000 --stop-at 47
runs "gan, resumed" $points --resume --out "$tmp/gan2" --quiet --threads 2 --plain --noises 1000
cmp -s "$tmp/gan/model.safetensors" "$tmp/gan2/model.safetensors" && ok || bad "the resumed adversarial run's weights differ"
cmp -s "$tmp/gan/checkpoint.safetensors" "$tmp/gan2/checkpoint.safetensors" || {    # they may differ in the seconds only
    for d in gan gan2; do sed 's/"points.seconds":"[^"]*"//' "$tmp/$d/checkpoint.safetensors" | tail -c 20000 >"$tmp/$d.tail"; done
    cmp -s "$tmp/gan.tail" "$tmp/gan2.tail"; } && ok || bad "the discriminator of the resumed run differs"
grep -q 'disc.v.logit.weight' "$tmp/gan/checkpoint.safetensors" && ok || bad "the checkpoint of --gan has no state of the discriminator's optimiser"
grep -q '^least_visited_mode,' "$tmp/gan/metrics.csv" && ok || bad "metrics.csv has no least_visited_mode"
runs "gan log" $points train --data ring --steps 20 --gan --gan-loss log --out "$tmp/ganlog" --quiet --plain --noises 1000
runs "consistency distillation" $points train --data ring --steps 30 --method cm --out "$tmp/cd" --quiet --plain --noises 1000
runs "consistency training" $points train --data ring --steps 30 --method cm --teacher none --out "$tmp/ct" --quiet --plain --noises 1000
runs "self-teaching by jumps" $points train --data ring --steps 30 --teacher none --self jump --out "$tmp/self" --quiet --plain --noises 1000
runs "pieces of chains" $points train --data ring --steps 30 --chains 0.6 --out "$tmp/chains" --quiet --plain --noises 1000
if cmp -s "$tmp/chains/model.safetensors" "$tmp/cd/model.safetensors"; then bad "--chains changes nothing"; else ok; fi
grep -aq 'law_chain":"0\.[56]' "$tmp/chains/model.safetensors" && ok || bad "law_chain is not in the model's file"
flag "flag --chains" --data ring --steps 10 --chains 0.5 --law authors
runs "begun from a learned teacher" $points train --data ring --steps 30 --teacher learned --init teacher --out "$tmp/init" --quiet --plain --noises 1000
grep -q '^teacher_rms_heun40,' "$tmp/init/metrics.csv" && ok || bad "metrics.csv has no teacher_rms_heun40"
{ echo 'kind,a,b'; for i in 0 1 2 3 4 5 6 7 8 9; do for j in 0 1 2 3; do echo "small,$i.$j,1.$j"; echo "large one,3$j.$i,7.$i"; done; done; } >"$tmp/k.csv"
runs "classes" $points train --data "$tmp/k.csv" --label kind --steps 1200 --batch 64 --seed 2 --out "$tmp/kind" --quiet --plain --noises 1000
grep -q '"data.class.1":"large one"' "$tmp/kind/model.safetensors" && ok || bad "the weights do not carry the names of the classes"
less "$(number "$tmp/kind" class_mean_rms)" 0.35 && ok || bad "class_mean_rms is $(number "$tmp/kind" class_mean_rms)"
less 0.6 "$(number "$tmp/kind" class_mean_rms_without)" && ok || bad "samples without a class are all of one"
for w in 1 1.5; do
    runs "sample of a class" $points sample --weights "$tmp/kind/model.safetensors" --class "large one" --guidance $w --n 600 --nfe 2 --out "$tmp/k1.csv"
    [ "$(awk -F, 'NR > 1 && $1 > 20 { n++ } END { print (n > 560) }' "$tmp/k1.csv")" = 1 ] && ok || bad "--class gives points of the other class"
done
runs "heun with a class" $points sample --weights "$tmp/kind/model.safetensors" --class small --sampler heun --nfe 9 --n 600 --out "$tmp/k2.csv"
[ "$(awk -F, 'NR > 1 && $1 < 20 { n++ } END { print (n > 560) }' "$tmp/k2.csv")" = 1 ] && ok || bad "--class with --sampler heun gives points of the other class"
# The density of a class: rows of it are likelier than under the other's, and all rows together lie between.
printf 'a,b\n4.2,1.2\n5.1,1.3\n' >"$tmp/small.csv"
for c in small "large one"; do
    runs "density of a class" $points loglik --weights "$tmp/kind/model.safetensors" --data "$tmp/small.csv" --class "$c" --out "$tmp/p-$c.csv"
done
runs "density without a class" $points loglik --weights "$tmp/kind/model.safetensors" --data "$tmp/small.csv" --out "$tmp/p.csv"
paste -d, "$tmp/p-small.csv" "$tmp/p.csv" "$tmp/p-large one.csv" | awk -F, 'NR > 1 { n += $1 > $2 && $2 > $3 + 1 } END { exit n != 2 }' && ok ||
    bad "densities of two rows by their class, by none, by the other: $(paste -d, "$tmp/p-small.csv" "$tmp/p.csv" "$tmp/p-large one.csv" | tr '\n' ' ')"
refuses "density of an unknown class" 1 "it knows small, large one" $points loglik --weights "$tmp/kind/model.safetensors" --data "$tmp/small.csv" --class big --out "$tmp/z.csv"
refuses "density by class of a model without" 1 "has no classes" $points loglik --weights "$run/model.safetensors" --data "$tmp/small.csv" --class small --out "$tmp/z.csv"
runs "classes, stopped" $points train --data "$tmp/k.csv" --label kind --steps 40 --batch 64 --seed 2 --out "$tmp/kindr" --quiet --plain --noises 1000 --stop-at 11
runs "classes, resumed" $points --resume --out "$tmp/kindr" --quiet --plain --noises 1000
runs "classes, whole" $points train --data "$tmp/k.csv" --label kind --steps 40 --batch 64 --seed 2 --out "$tmp/kindw" --quiet --plain --noises 1000
cmp -s "$tmp/kindr/model.safetensors" "$tmp/kindw/model.safetensors" && ok || bad "the resumed run with classes differs"
refuses "unknown class" 1 "it knows small, large one" $points sample --weights "$tmp/kind/model.safetensors" --class big --out "$tmp/z.csv"
refuses "class of an unlabelled model" 1 "has no classes" $points sample --weights "$run/model.safetensors" --class small --out "$tmp/z.csv"
refuses "guidance without a class" 2 "--class" $points sample --weights "$tmp/kind/model.safetensors" --guidance 2 --out "$tmp/z.csv"
refuses "exact teacher of classes" 1 "nothing of classes" $points train --data "$tmp/k.csv" --label kind --teacher exact --steps 5 --out "$tmp/zz" --quiet
refuses "label of a toy" 2 "--label" $points train --data ring --label kind --steps 5 --out "$tmp/zzz"
refuses "unknown label column" 1 "kin" $points train --data "$tmp/k.csv" --label kin --steps 5 --out "$tmp/zz" --quiet
refuses "gan with cm" 2 "--gan" $points train --data ring --gan --method cm --steps 5 --out "$tmp/zzz"
refuses "init without a network" 2 "--init" $points train --data ring --init teacher --steps 5 --out "$tmp/zzz"
refuses "self with a teacher" 2 "--self" $points train --data ring --self jump --steps 5 --out "$tmp/zzz"
refuses "a jump that is its own target" 2 "own target" $points train --data ring --teacher none --self jump --law gap --steps 5 --out "$tmp/zzz"
refuses "gan-loss without gan" 2 "--gan-loss" $points train --data ring --gan-loss log --steps 5 --out "$tmp/zzz"
refuses "resume with another adversary" 1 "--gan-loss" $points --resume --gan-loss log --out "$tmp/gan2" --quiet
absent "$tmp/z.csv" "$tmp/zzz"

# ---- help, and the other programs
runs "help" $points --help; runs "hello's help or run" build/use_weights "$run/model.safetensors"
echo "programs: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
