#!/bin/sh
# What happens when the world breaks in the middle: programs killed at any moment, memory that runs out, disks that are full, threads that
# meet. Every part is a command of its own; without one a short run of all of them. Programs are those in build/ (make first).
# usage: sh tests/test_faults.sh [short | long | kills N [SEED] | memory [EVERY] | refuse [EVERY] | disk [EVERY] | full | threads [long] | valgrind [long]]
#   kills     N times kill -9 at random moments over points, its adversary and images, then --resume: the finished run has the same bits
#   memory    every allocation of ctm.h refused in turn, a jump out of CTM_PANIC, everything used again (tests/faults/memory.c)
#   refuse    every allocation of the programs refused in turn (tests/faults/refuse.c, glibc)
#   disk      ENOSPC and EIO at every write, sync, close and rename of the programs in turn (strace)
#   full      a disk that is really full (a small tmpfs: root only)
#   threads   ThreadSanitizer with clang's OpenMP and its Archer     valgrind   memcheck on builds without vectors
# EVERY: only each EVERY-th place. The last line is "N passed, N failed, N skipped".
cd "$(dirname "$0")/.." || exit 1
passed=0 failed=0 skipped=0
export OMP_WAIT_POLICY=passive
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
root=$PWD
points=$root/build/points images=$root/build/images edit=$root/build/edit hello=$root/build/hello

ok()   { passed=$((passed + 1)); echo "ok: $*"; }
no()   { failed=$((failed + 1)); echo "FAILED: $*"; }
skip() { skipped=$((skipped + 1)); echo "skipped: $*"; }
have() { command -v "$1" >/dev/null 2>&1; }

# ---- the short runs that are disturbed: all of them write into the folder they stand in

small_points="--hidden 16 --layers 2 --batch 16 --law-steps 0 --noises 1000 --threads 1 --quiet"
small_images="--model-channels 4 --channel-mult 1,1 --num-blocks 1 --batch 4 --threads 1 --quiet"
train_points() { "$points" train --data ring --plain --steps ${steps:-200} --save-every 5 $small_points --out run "$@"; }
train_gan()    { "$points" train --data ring --plain --gan --steps ${steps:-200} --save-every 5 $small_points --out run "$@"; }
train_images() { "$images" train --data "$tmp/shapes.bin" --steps ${steps:-10} --teacher-steps 5 --save-every 1 --sheet-seconds 0.1 $small_images --out run "$@"; }
resume_points() { "$points" train --resume --plain --save-every 5 --law-steps 0 --noises 1000 --threads 1 --quiet --out run; }
resume_gan()    { resume_points; }
resume_images() { "$images" train --resume --save-every 1 --sheet-seconds 0.1 --threads 1 --quiet --out run; }
shapes() { [ -f "$tmp/shapes.bin" ] || "$images" synth --n 60 --quiet --out "$tmp/shapes.bin" >/dev/null; }

# Files of a finished run that hold no times, and so are the same in every run.
same_files() { case $1 in images) echo "model.safetensors teacher.safetensors loss.csv teacher_loss.csv samples.png onestep.png";;
                          *)      echo "model.safetensors samples.csv loss.csv";; esac; }
# same_run KIND WANT GOT: the weights, samples and losses of two finished runs are equal, and neither has a file that the other has not.
same_run() {
    for f in $(same_files "$1"); do cmp -s "$2/$f" "$3/$f" || { echo "$3/$f is another"; return 1; }; done
    [ "$(ls -A "$2")" = "$(ls -A "$3")" ] || { echo "the folder holds: $(ls -A "$3" | tr '\n' ' ')"; return 1; }
}
# whole_files KIND WANT GOT: at this moment of a run every file under its own name is whole: what is final is as in WANT, losses are its first rows.
whole_files() {
    for f in model.safetensors teacher.safetensors samples.csv; do
        [ ! -f "$3/$f" ] || cmp -s "$2/$f" "$3/$f" || { echo "$f is half-written"; return 1; }
    done
    for f in loss.csv; do
        [ ! -f "$3/$f" ] || { [ -s "$3/$f" ] && head -c "$(wc -c <"$3/$f")" "$2/$f" | cmp -s - "$3/$f"; } || [ "$1" = images ] || { echo "$f is half-written"; return 1; }
    done
}

# ---- kill -9

# kills_of KIND COUNT: kill a run at random moments, resume it, kill that, ... until it is done; then another run, until COUNT were killed.
kills_of() {
    kind=$1 count=$2 killed=0 runs=0 bad=0
    mkdir -p "$tmp/kill.$kind" && cd "$tmp/kill.$kind" || return
    begun=$(date +%s%N)
    train_$kind >out 2>err || { no "kills, $kind: the undisturbed run failed: $(cat err)"; cd "$root"; return; }
    took=$((($(date +%s%N) - begun) / 1000000))
    mv run want
    awk -v seed="$seed" -v n=$((20 * count + 100)) -v t="$took" 'BEGIN { srand(seed); for (i = 0; i < n; i++) printf "%.4f\n", rand()*rand()*t/1000 }' >delays
    exec 3<delays
    while [ $killed -lt "$count" ] && [ $bad -lt 5 ]; do
        read -r delay <&3 || break
        # timeout itself is killed with its command, so that the moment is exact: status 137
        if [ -f run/checkpoint.safetensors ]; then how=resume; else how=train; fi
        case $how.$kind in resume.images) set -- "$images" train --resume --save-every 1 --sheet-seconds 0.1 --threads 1 --quiet --out run;;
                           resume.*) set -- "$points" train --resume --plain --save-every 5 --law-steps 0 --noises 1000 --threads 1 --quiet --out run;;
                           train.points) set -- "$points" train --data ring --plain --steps 200 --save-every 5 $small_points --out run;;
                           train.gan) set -- "$points" train --data ring --plain --gan --steps 200 --save-every 5 $small_points --out run;;
                           train.images) set -- "$images" train --data "$tmp/shapes.bin" --steps 10 --teacher-steps 5 --save-every 1 --sheet-seconds 0.1 $small_images --out run;; esac
        timeout -s KILL "$delay" "$@" >out 2>err
        status=$?
        case $status in
        137) killed=$((killed + 1))
             whole_files $kind want run >why || { bad=$((bad + 1)); echo "after kill $killed ($delay s): $(cat why)"; };;
        0)   runs=$((runs + 1))
             same_run $kind want run >why || { bad=$((bad + 1)); echo "after $killed kills: $(cat why)"; rm -rf "bad.$bad"; cp -r run "bad.$bad"; }
             rm -rf run;;
        *)   bad=$((bad + 1)); echo "after kill $killed ($how): status $status, $(cat err)"; rm -rf run;;
        esac
    done
    exec 3<&-
    while [ $bad = 0 ] && [ -d run ]; do                     # the last one to its end
        if [ -f run/checkpoint.safetensors ]; then resume_$kind >out 2>err; else train_$kind >out 2>err; fi || { bad=1; cat err; break; }
        same_run $kind want run || bad=1
        runs=$((runs + 1))
        rm -rf run
    done
    cd "$root" || exit 1
    if [ $bad = 0 ] && [ $killed -ge "$count" ] && [ $runs -gt 0 ]
    then ok "kills, $kind: $killed kill -9 in $runs finished runs (undisturbed $took ms), all with the same bits"
    else no "kills, $kind: $bad of $runs runs are wrong after $killed kills"; fi
}
part_kills() {
    have timeout || { skip "kills: timeout (coreutils) is not here"; return; }
    n=${1:-30} seed=${2:-$(date +%s)}
    echo "kills: seed $seed"
    shapes
    kills_of points $((n * 2 / 5))
    kills_of gan $((n * 2 / 5))
    kills_of images $((n - 2 * (n * 2 / 5)))
}

case ${1:-short} in
kills)    part_kills "$2" "$3";;
*) sed -n 2,5p "$0"; exit 2;;
esac
echo "faults: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
