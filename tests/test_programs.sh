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
runs "train" $points train --data ring --steps 60 --seed 3 --out "$run" --quiet --threads 2 --noises 2000 --compare-steps 20
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
wait $pid; got=$?
[ $got = 3 ] && ok || bad "a run stopped by SIGTERM: exit status $got, expected 3"
exists "$tmp/signal/checkpoint.safetensors"
absent "$tmp/signal/model.safetensors"
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
flag --steps -5; flag --steps 1e99; flag --steps 0; flag --seed abc; flag --threads x; flag --stepps 5
"$points" train --stepps 5 2>&1 | grep -q -- '--steps' && ok || bad "an unknown flag gets no suggestion"
"$points" train --SETTING 5 2>&1 | grep -q 'unknown flag --SETTING' && ok || bad "a word of the help is taken for a flag"
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

# ---- how files are written: links lead on, a replaced file keeps its mode, a killed run leaves nothing for good, two runs are told
mkdir "$tmp/real" "$tmp/links"; echo old >"$tmp/real/t.csv"; chmod 640 "$tmp/real/t.csv"
ln -s ../real/t.csv "$tmp/links/s.csv"; ln -s ../real/new.csv "$tmp/links/n.csv"
runs "sample through a link" $points sample --weights "$run/model.safetensors" --n 3 --nfe 1 --out "$tmp/links/s.csv"
runs "sample through a link to nothing" $points sample --weights "$run/model.safetensors" --n 3 --nfe 1 --out "$tmp/links/n.csv"
[ -h "$tmp/links/s.csv" ] && [ -h "$tmp/links/n.csv" ] && ok || bad "a link was replaced"
[ "$(wc -l <"$tmp/real/t.csv")" = 4 ] && [ "$(wc -l <"$tmp/real/new.csv")" = 4 ] && ok || bad "what a link leads to was not written"
case $(ls -l "$tmp/real/t.csv") in -rw-r-----*) ok ;; *) bad "a replaced file has another mode: $(ls -l "$tmp/real/t.csv")" ;; esac
chmod 444 "$tmp/real/t.csv"
refuses "a file that may not be written" 1 "ermission denied" $points sample --weights "$run/model.safetensors" --n 5 --nfe 1 --out "$tmp/links/s.csv"
[ "$(wc -l <"$tmp/real/t.csv")" = 4 ] && ok || bad "a file that may not be written was replaced"
mkdir "$tmp/far"; mv "$tmp/parts/checkpoint.safetensors" "$tmp/far/"; ln -s ../far/checkpoint.safetensors "$tmp/parts/"
runs "resumed through a link" $points train --resume --out "$tmp/parts" --quiet --plain --noises 1000
[ -h "$tmp/parts/checkpoint.safetensors" ] && ok || bad "the checkpoint's link was replaced"
( ulimit -f 20; trap '' XFSZ; exec $points sample --weights "$run/model.safetensors" --n 5000 --nfe 1 --out "$tmp/s.csv" ) >"$tmp/stdout" 2>"$tmp/stderr"
[ $? = 1 ] && grep -q 's.csv' "$tmp/stderr" && [ "$(wc -l <"$tmp/s.csv")" = 51 ] && ok || bad "a full disk: $(cat "$tmp/stderr"), $(wc -l <"$tmp/s.csv") lines"
$points train --data ring --steps 20000000 --seed 4 --out "$tmp/busy" --quiet --plain >/dev/null 2>&1 & pid=$!
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do [ -e "$tmp/busy/.lock" ] && break; sleep 0.2; done
refuses "a second run in a folder" 1 "another run" $points train --data ring --steps 5 --out "$tmp/busy" --quiet
kill -9 $pid; wait $pid 2>/dev/null
printf half >"$tmp/busy/checkpoint.safetensors.tmp"
runs "a run in the folder of one that was killed" $points train --data ring --steps 20 --out "$tmp/busy" --quiet --plain --noises 1000
[ -z "$(find "$tmp" -name '*.tmp' -o -name .lock)" ] && ok || bad "left behind: $(find "$tmp" -name '*.tmp' -o -name .lock)"

# ---- adversary, classes, other methods
number() { grep -E "^$2," "$1/metrics.csv" | cut -d, -f2; }
less() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && a < b) }'; }
runs "gan, whole" $points train --data ring --steps 60 --seed 4 --gan hinge --out "$tmp/gan" --quiet --threads 1 --plain --noises 1000
runs "gan, stopped at 47" $points train --data ring --steps 60 --seed 4 --gan hinge --out "$tmp/gan2" --quiet --threads 2 --plain --noises 1000 --stop-at 47
runs "gan, resumed" $points --resume --out "$tmp/gan2" --quiet --threads 2 --plain --noises 1000
cmp -s "$tmp/gan/model.safetensors" "$tmp/gan2/model.safetensors" && ok || bad "the resumed adversarial run's weights differ"
cmp -s "$tmp/gan/checkpoint.safetensors" "$tmp/gan2/checkpoint.safetensors" || {    # they may differ in the seconds only
    for d in gan gan2; do sed 's/"points.seconds":"[^"]*"//' "$tmp/$d/checkpoint.safetensors" | tail -c 20000 >"$tmp/$d.tail"; done
    cmp -s "$tmp/gan.tail" "$tmp/gan2.tail"; } && ok || bad "the discriminator of the resumed run differs"
grep -q 'disc.v.logit.weight' "$tmp/gan/checkpoint.safetensors" && ok || bad "the checkpoint of --gan has no state of the discriminator's optimiser"
grep -q '^least_visited_mode,' "$tmp/gan/metrics.csv" && ok || bad "metrics.csv has no least_visited_mode"
runs "gan log" $points train --data ring --steps 20 --gan log --out "$tmp/ganlog" --quiet --plain --noises 1000
runs "consistency distillation" $points train --data ring --steps 30 --recipe cd --out "$tmp/cd" --quiet --plain --noises 1000
runs "consistency training" $points train --data ring --steps 30 --recipe ct --out "$tmp/ct" --quiet --plain --noises 1000
runs "self-teaching by jumps" $points train --data ring --steps 30 --recipe authors --teacher none --teach jump --out "$tmp/self" --quiet --plain --noises 1000
runs "the paper's recipe" $points train --data ring --recipe paper --steps 30 --out "$tmp/paper" --quiet --plain --noises 1000
grep -aq '"ctm.recipe":"paper"' "$tmp/paper/model.safetensors" && grep -aq '"ctm.times":"paper"' "$tmp/paper/model.safetensors" && ok || bad "the recipe is not in the weights"
# Every setting is a flag by its name: a number, a function, a word, a list.
runs "settings by their names" $points train --data ring --recipe paper --share-at-s 0.25 --times local --distance l1 --ema-rate 0.99,0.9 --noise.N 12 --steps 3e1 \
    --out "$tmp/named" --quiet --plain --noises 1000
for pair in recipe:paper share_at_s:0.25 times:local distance:1 'ema_rate\[1\]:0.90*' noise.N:12 steps:30; do
    grep -aEq "\"ctm.${pair%%:*}\":\"${pair#*:}" "$tmp/named/model.safetensors" && ok || bad "$pair is not in the weights of a run with settings by their names"
done
$points train --resume --out "$tmp/named" --quiet --plain --noises 1000 --times global >"$tmp/stdout" 2>"$tmp/stderr"
[ $? = 1 ] && grep -q -- 'a run with --times local, not global' "$tmp/stderr" && ok || bad "resume with other times: $(cat "$tmp/stderr")"
usage() { part=$1; shift; refuses "$*" 2 "$part" $points train "$@" --out "$tmp/flag"; }
usage 'no recipe "papr"; there are paper, authors, points, images, cd, ct' --data ring --recipe papr
usage "flag --times: \"locl\" was given, but one of none, paper, local, global, authors, points, images, cm was expected" --times locl
usage 'flag --gan: found "hing", expected one of none, hinge, log, minimax' --gan hing
usage 'at most 4 numbers with commas between' --ema-rate 0.9,0.9,0.9,0.9,0.9
usage 'there are no jumps to learn' --times none
usage 'needs some for teach' --teach none --teacher exact
usage 'noise.sigma_max must be' --noise.sigma_max 0.001
usage 'cd needs a teacher, but --teacher is none; without one there is --recipe ct' --recipe cd --teacher none
usage 'flag --classes: the classes are those of --label' --classes 3
refuses "resume by another recipe" 1 "a run with --recipe paper, not points" $points train --resume --recipe points --out "$tmp/paper" --plain --quiet
LC_ALL=C sed 's/"ctm.times":"paper"/"ctm.times":"papyr"/' "$tmp/paper/checkpoint.safetensors" >"$tmp/paper/2" && mv "$tmp/paper/2" "$tmp/paper/checkpoint.safetensors"
refuses "resume with a function that is not here" 1 'has a function "papyr" for times, which this program does not have' $points train --resume --out "$tmp/paper" --plain --quiet
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
refuses "init without a network" 2 "--init" $points train --data ring --init teacher --steps 5 --out "$tmp/zzz"
refuses "a jump that is its own target" 2 "own target" $points train --data ring --teach jump --steps 5 --out "$tmp/zzz"
refuses "resume with another adversary" 1 "a run with --gan hinge, not log" $points --resume --gan log --out "$tmp/gan2" --quiet
absent "$tmp/z.csv" "$tmp/zzz"

# ---- what users' files and folders are like
tiny="--hidden 16 --layers 1 --batch 32 --noises 1000 --compare-steps 0 --steps 6 --quiet --threads 1"
numbers() { awk -v n="$1" 'BEGIN { srand(7); for (i = 0; i < n; i++) printf "%.4f,%.4f\n", rand() + i % 2, rand() }'; }
same() { if cmp -s "$2" "$3"; then ok; else bad "$1: $2 and $3 differ"; fi; }

# A column far from zero keeps its spread, in samples and in figures.
{ echo "t_ms,v"; awk 'BEGIN { srand(5); for (i = 0; i < 60; i++) printf "1700000%06d,%.3f\n", 250*i, rand() }'; } >"$tmp/ms.csv"
runs "a column of milliseconds since 1970" $points train --data "$tmp/ms.csv" $tiny --out "$tmp/ms"
spread=$(tail -n +2 "$tmp/ms/samples.csv" | awk -F, '{ d = substr($1, 5) + 0; n[int(d/100)]++ } END { for (k in n) c++; print c + 0 }')
[ "$spread" -gt 50 ] && ok || bad "samples of a column of milliseconds take $spread values, expected the spread of the data"
grep -q 't_ms − 1.7' "$tmp/ms/samples.svg" && ok || bad "samples.svg does not show the column of milliseconds from a round number"
[ "$(grep -o 'h0' "$tmp/ms/samples.svg" | wc -l)" -gt 1000 ] && ok || bad "samples.svg has few points"

# Every name goes through weights, CSV and figures; what XML forbids is replaced.
q=$(printf 'a "q", <b> & \047c\047 \303\266\360\237\230\200')
{ printf '"%s","line\nbreak \001\033\357\277\276"\n' "$(echo "$q" | sed 's/"/""/g')"; numbers 30; } >"$tmp/odd '<&>\".csv"
runs "odd names" $points train --data "$tmp/odd '<&>\".csv" $tiny --out "$tmp/odd '<&>\""
head -2 "$tmp/odd '<&>\"/samples.csv" >"$tmp/names"; head -2 "$tmp/odd '<&>\".csv" >"$tmp/names2"; same "names in samples.csv" "$tmp/names" "$tmp/names2"
runs "sample of odd names" $points sample --weights "$tmp/odd '<&>\"/model.safetensors" --n 3 --out "$tmp/names.csv"
head -2 "$tmp/names.csv" >"$tmp/names"; same "names through the weights" "$tmp/names" "$tmp/names2"
runs "loglik of odd names" $points loglik --weights "$tmp/odd '<&>\"/model.safetensors" --data "$tmp/odd '<&>\".csv" --out "$tmp/ll.csv"
if command -v xmllint >/dev/null; then
    for f in "$tmp/odd '<&>\""/*.svg "$tmp/ms"/*.svg; do if xmllint --noout "$f" 2>"$tmp/stderr"; then ok; else bad "$f is no XML: $(head -1 "$tmp/stderr")"; fi; done
else skip "no xmllint: the figures' XML is not checked"; fi
if LC_ALL=C grep -q "$(printf '[\001-\010\013\014\016-\037]')" "$tmp/odd '<&>\""/*.svg "$tmp/odd '<&>\"/index.html"; then bad "control characters in figures or page"; else ok; fi
grep -q '&lt;b&gt; &amp; ' "$tmp/odd '<&>\"/samples.svg" && ok || bad "the column's name is not in samples.svg, escaped"

# Text that is no UTF-8 is told by line and byte.
bad_text() { printf "$2" >"$tmp/latin1.csv"; refuses "$1" 1 "latin1.csv, line $3: byte 0x$4 is no UTF-8; save the table as CSV UTF-8" $points train --data "$tmp/latin1.csv" --out "$tmp/zz" --quiet; }
bad_text "a name in Latin-1" 'gr\366\337e,b\n1,2\n' 1 F6; bad_text "a cell in Latin-1" 'a,b,n\r\n1,2,x\r\n3,4,\344\r\n' 3 E4
bad_text "a byte too many" 'a,b\n1,2\n\300\257,3\n' 3 C0; bad_text "half of a pair" 'a,b\n1,2\n3,\355\240\200\n' 3 ED; bad_text "a character cut short" 'a,b\n1,\342\202' 2 E2
refuses "a file name in Latin-1" 2 "byte 3, 0xF6, is no UTF-8" $points train --data "$(printf 'gr\366.csv')" --out "$tmp/zz"

# Tables of all kinds: read rightly, or one line.
table() { name=$1; shift; printf "$@" >"$tmp/any.csv"; numbers 30 >>"$tmp/any.csv"; runs "$name" $points train --data "$tmp/any.csv" $tiny --plain --out "$tmp/any"; }
table "a byte-order mark" '\357\273\277a,b\n'; grep -q '^a,b$' "$tmp/any/samples.csv" && ok || bad "a byte-order mark is kept in a name"
table "empty lines before the header" '\n\na,b\n'
says() { name=$1 part=$2; shift 2; printf "$@" >"$tmp/any.csv"; refuses "$name" 1 "$part" $points train --data "$tmp/any.csv" --out "$tmp/zz" --quiet; }
says "a decimal comma" 'line 2: column "a": found "1,5", expected a number with a decimal point' 'a;b\n1,5;2\n3,5;4\n'
says "thousands" 'found "1,234,567", expected a number with a decimal point and no other' 'a,b\n"1,234,567",2\n"3,234,567",2\n'
says "thousands, German" 'found "1.234,5", expected a number with a decimal point' 'a;b\n1.234,5;2\n3.234,5;2\n'
says "the same name twice" 'names column "a" 2 times' 'a,a,b\n1,2,3\n4,5,6\n'
says "years as names" "choose them with --columns" '2019,2020\n1.5,2.5\n2.5,3.5\n'
says "a separator too many" 'line 2: found 3 fields, expected 2' 'a,b\n1,2,\n3,4,\n'
says "numbers that span too much" 'spans a range too large' 'a,b\n1e308,2\n-1e308,3\n4,4\n'
says "whole numbers that no double tells apart" 'is constant (1.152921504606847e+18' 'a,b\n1152921504606846977,2\n1152921504606846978,3\n'
{ awk 'BEGIN { for (i = 0; i < 9999; i++) printf "c%d,", i; print "c9999" }'; awk 'BEGIN { for (i = 0; i < 20; i++) for (j = 0; j < 10000; j++) printf "%d%s", (i*j) % 7, j < 9999 ? "," : "\n" }'; } >"$tmp/wide.csv"
refuses "10,000 columns" 1 'column "c0" is constant' $points train --data "$tmp/wide.csv" --out "$tmp/zz" --quiet

# The densities: a line for every row, also of a table of one row or with a constant column.
{ echo x,y; numbers 40; } >"$tmp/xy.csv"
runs "model of x and y" $points train --data "$tmp/xy.csv" $tiny --plain --out "$tmp/xy"
density() { printf "$1" >"$tmp/any.csv"; runs "loglik" $points loglik --weights "$tmp/xy/model.safetensors" --data "$tmp/any.csv" --out "$tmp/ll.csv"; }
density 'x,y\n1,0.5\nNA,0.3\n0.7,0.2\n0.7,\n'
[ "$(sed 's/[-0-9.e+]*[0-9]$/n/' "$tmp/ll.csv" | tr '\n' ' ')" = 'logp n "" n "" ' ] && ok || bad "loglik of rows 1 and 3 of 4: $(tr '\n' ' ' <"$tmp/ll.csv")"
sed -n 4p "$tmp/ll.csv" >"$tmp/third"
density 'y,x\n0.2,0.7\n'; tail -1 "$tmp/ll.csv" >"$tmp/alone"
paste -d, "$tmp/third" "$tmp/alone" | awk -F, '{ exit !($1 - $2 < 1e-3 && $2 - $1 < 1e-3) }' && ok || bad "a row's density alone: $(cat "$tmp/alone"), among others: $(cat "$tmp/third")"
density 'x,y\n1,0.5\n1,0.7\n'

# .npy is standardised, and every word about it says so.
$points sample --weights "$tmp/ms/model.safetensors" --n 3 --out "$tmp/s.npy" | grep -qF 'standardised: (value - mean)/unit; .csv is in the data' && ok || bad "sample --out F.npy does not say that it is standardised"
$points sample --help | grep -q 'standardised' && ok || bad "sample --help does not say that .npy is standardised"

# A run goes on after its data or its folder have moved; other data are refused; a path is quoted where a shell wants it.
mkdir "$tmp/here" "$tmp/there"; cp "$tmp/xy.csv" "$tmp/here/d.csv"
runs "a run to be moved" $points train --data "$tmp/here/d.csv" $tiny --plain --stop-at 3 --out "$tmp/here/a run"
typed=$($points train --data "$tmp/here/d.csv" --hidden 16 --layers 1 --steps 6 --stop-at 3 --out "$tmp/here/it's" | sed -n 's/.*to go on: //p')
eval "runs 'the line that is printed' $typed --noises 1000 --plain"
runs "not moved" cp -r "$tmp/here/a run" "$tmp/stays"; runs "resumed where it was" $points train --resume --out "$tmp/stays" --noises 1000 --plain --quiet
mv "$tmp/here/d.csv" "$tmp/there/e.csv"; mv "$tmp/here/a run" "$tmp/there/"
refuses "data that are gone" 1 "build/points train --resume --out '$tmp/there/a run' --data FILE" $points train --resume --out "$tmp/there/a run" --quiet
sed 's/1/2/' "$tmp/xy.csv" >"$tmp/other.csv"
refuses "resume with other rows" 1 "is not the one this run began with" $points train --resume --out "$tmp/there/a run" --data "$tmp/other.csv" --quiet
runs "a run without a teacher" $points train --data ring --teacher none --hidden 8 --layers 1 --steps 4 --stop-at 2 --plain --quiet --out "$tmp/none"
LC_ALL=C sed 's/"ctm.aim":"data"/"ctm.aim":"teacher"/; s/\("ctm.huber_c":"0.02[0-9]*\)[0-9][0-9][0-9]"/\1"/' "$tmp/none/checkpoint.safetensors" >"$tmp/none/2" && mv "$tmp/none/2" "$tmp/none/checkpoint.safetensors"
refuses "resume with a teacher that is missing" 1 "needs a teacher" $points train --resume --out "$tmp/none" --plain --quiet
awk -F, 'NR == 1; NR > 1 { print 2*$1 "," 2*$2 }' "$tmp/xy.csv" >"$tmp/other.csv"
refuses "resume with twice the rows" 1 "is not the one this run began with" $points train --resume --out "$tmp/there/a run" --data "$tmp/other.csv" --quiet
refuses "resume with a toy" 1 "is the checkpoint of a run with --data" $points train --resume --out "$tmp/there/a run" --data ring --quiet
runs "resumed after it moved" $points train --resume --out "$tmp/there/a run" --data "$tmp/there/e.csv" --noises 1000 --plain --quiet
same "the moved run" "$tmp/there/a run/loss.csv" "$tmp/stays/loss.csv"; same "the moved run" "$tmp/there/a run/samples.csv" "$tmp/stays/samples.csv"

cp "$tmp/xy/teacher.safetensors" "$tmp/here/t.safetensors"
runs "a teacher from a file" $points train --data "$tmp/xy.csv" --teacher "$tmp/here/t.safetensors" $tiny --plain --stop-at 3 --out "$tmp/taught"
mv "$tmp/here/t.safetensors" "$tmp/there/u.safetensors"
refuses "a teacher that is gone" 1 "--teacher FILE" $points train --resume --out "$tmp/taught" --quiet
refuses "another teacher" 1 "was trained on other data" $points train --resume --out "$tmp/taught" --teacher "$tmp/ms/teacher.safetensors" --quiet
runs "the teacher after it moved" $points train --resume --out "$tmp/taught" --teacher "$tmp/there/u.safetensors" --noises 1000 --plain --quiet

# Signals: a status of its own, and the second one is not waited for.
for sig in INT HUP; do                  # a shell's background job ignores INT, and what ignores a signal goes on doing so: hence env
    if ! env --default-signal=$sig true 2>/dev/null; then skip "env cannot set signals here: SIG$sig"; continue; fi
    env --default-signal=$sig $points train --data ring --hidden 16 --layers 1 --steps 20000000 --out "$tmp/sig" --quiet --plain >"$tmp/stdout" 2>&1 & pid=$!
    i=0; while [ ! -e "$tmp/sig" ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i + 1)); done
    kill -$sig $pid; wait $pid; got=$?
    [ $got = 3 ] && grep -q 'to go on: ' "$tmp/stdout" && [ -s "$tmp/sig/checkpoint.safetensors" ] && ok || bad "a run stopped by SIG$sig: exit status $got, expected 3: $(cat "$tmp/stdout")"
    rm -rf "$tmp/sig"
done
$points --help | grep -q '3 a signal has stopped' && ok || bad "--help does not name status 3"

# loss.csv after a resume before each kind of step of an adversary.
for stop in 70 71; do
    A="--data ring --gan hinge --steps 100 --hidden 16 --layers 1 --batch 32 --noises 1000 --plain --quiet --threads 1 --seed 2"
    [ -d "$tmp/gw" ] || runs "gan, whole" $points train $A --out "$tmp/gw"
    runs "gan, stopped at $stop" $points train $A --out "$tmp/g$stop" --stop-at $stop
    runs "gan, resumed at $stop" $points train --resume --out "$tmp/g$stop" --plain --noises 1000 --quiet --threads 1
    same "loss.csv of a run stopped at $stop" "$tmp/gw/loss.csv" "$tmp/g$stop/loss.csv"
done

# A full disk under a finished run: one line, and all that was there stays. And standard output that takes nothing.
cp -r "$tmp/stays" "$tmp/full"
for blocks in 1 20; do
    refuses "resume where a file may have $blocks KB" 1 "$tmp/full/" sh -c "ulimit -f $((2*blocks)); exec $points train --resume --out '$tmp/full' --data '$tmp/xy.csv' --noises 1000 --plain --quiet"
done
for f in "$tmp/stays"/*; do same "after the disk was full" "$f" "$tmp/full/${f##*/}"; done
[ "$(ls "$tmp/full" | wc -l)" = "$(ls "$tmp/stays" | wc -l)" ] && ok || bad "a full disk leaves files behind: $(ls "$tmp/full" | tr '\n' ' ')"
if [ -w /dev/full ]; then
    for p in points images claims edit; do
        build/$p --help >/dev/full 2>"$tmp/stderr"; got=$?
        [ $got = 1 ] && grep -q "^$p: cannot write to standard output" "$tmp/stderr" && ok || bad "$p --help to a full device: exit status $got, $(cat "$tmp/stderr")"
    done
    refuses "weights to a full device" 1 "cannot write to standard output" sh -c 'build/weights "$0" 3 >/dev/full' "$run/model.safetensors"
fi

# The helpers in an application that has set a locale whose decimal point is another character: every file is the same.
printf 'comment_char %%\nescape_char /\nLC_NUMERIC\ndecimal_point "<U066B>"\nthousands_sep "<U002E>"\ngrouping 3;3\nEND LC_NUMERIC\n' >"$tmp/point.src"
printf '#include <locale.h>\n#include <stdlib.h>\n__attribute__((constructor)) static void set(void) { if (!setlocale(LC_ALL, "")) exit(9); }\n' >"$tmp/locale.c"
command -v localedef >/dev/null && localedef -c -i "$tmp/point.src" -f UTF-8 "$tmp/point" >/dev/null 2>&1
if [ -f "$tmp/point/LC_NUMERIC" ] && [ -f build/ctm.o ] &&
   ${CC:-cc} -O0 -fopenmp -DCTM_LINKED apps/points.c "$tmp/locale.c" build/ctm.o -o "$tmp/points_in_locale" -lm 2>"$tmp/stderr"; then
    abroad() { LOCPATH=$tmp LC_ALL=point "$tmp/points_in_locale" "$@"; }
    loc="--data ring $tiny --compare-steps 1 --lr 0.0031 --share-at-s 0.35 --out $tmp/l"
    runs "a run at home" $points train $loc; mv "$tmp/l" "$tmp/home"
    runs "a run abroad, stopped" abroad train $loc --stop-at 3
    runs "a run abroad" abroad train --resume --out "$tmp/l" --noises 1000 --compare-steps 1 --quiet --threads 1
    for f in "$tmp/home"/*; do
        case ${f##*/} in checkpoint.safetensors|metrics.csv|index.html) ;; *) same "in another locale" "$f" "$tmp/l/${f##*/}" ;; esac
    done
    if LC_ALL=C grep -q "$(printf '\331\253')" "$tmp/l"/*; then bad "the locale's decimal point is in a file"; else ok; fi
    runs "a table abroad" abroad train --data "$tmp/xy.csv" $tiny --plain --out "$tmp/lt"; same "a table abroad" "$tmp/lt/samples.csv" "$tmp/xy/samples.csv"
    runs "densities abroad" abroad loglik --weights "$tmp/xy/model.safetensors" --data "$tmp/xy.csv" --out "$tmp/l1.csv"
    runs "densities at home" $points loglik --weights "$tmp/xy/model.safetensors" --data "$tmp/xy.csv" --out "$tmp/l2.csv"; same "densities abroad" "$tmp/l1.csv" "$tmp/l2.csv"
    runs "sample abroad" abroad sample --weights "$tmp/lt/model.safetensors" --n 9 --gamma 0.35 --nfe 3 --out "$tmp/l1.npy"
    runs "sample at home" $points sample --weights "$tmp/lt/model.safetensors" --n 9 --gamma 0.35 --nfe 3 --out "$tmp/l2.npy"; same "sample abroad" "$tmp/l1.npy" "$tmp/l2.npy"
    runs "noise abroad" abroad sample --weights "$tmp/lt/model.safetensors" --noise "$tmp/l1.npy" --out "$tmp/l1.csv"
else skip "no localedef here, or no build/ctm.o: no other locale"; fi

# ---- help, and the other programs
refuses "weights with a teacher" 1 "holds a teacher" build/weights "$tmp/xy/teacher.safetensors"
runs "help" $points --help; runs "weights of a run" build/weights "$run/model.safetensors"
echo "programs: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
