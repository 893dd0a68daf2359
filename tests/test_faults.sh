#!/bin/sh
# What happens when the world breaks in the middle: programs killed at any moment, memory that runs out, disks that are full, threads that
# meet. Every part is a command of its own; without one a short run of all of them. Programs are those in build/ (make first), or in BUILD.
# usage: sh tests/test_faults.sh [quick | short | long | kills N [SEED] | memory [EVERY] | refuse [EVERY [NAME]] | disk [EVERY [NAME]] | full | threads [long] | valgrind [long]]
#   quick     a few seconds, for make test     short     two lanes, some minutes, for CI: `programs` and `builds`     long      all of it, by hand
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
build=${BUILD:-$root/build} points=$build/points images=$build/images edit=$build/edit use=$build/weights

ok()   { passed=$((passed + 1)); echo "ok: $*"; }
no()   { failed=$((failed + 1)); echo "FAILED: $*"; }
skip() { skipped=$((skipped + 1)); echo "skipped: $*"; }
have() { command -v "$1" >/dev/null 2>&1; }

# ---- the short runs that are disturbed: all of them write into the folder they stand in

small_points="--hidden 16 --layers 2 --batch 16 --compare-steps 0 --noises 1000 --threads 1 --quiet"
small_images="--model-channels 4 --channel-mult 1,1 --num-blocks 1 --batch 4 --threads 1 --quiet"
train_points() { "$points" train --data ring --plain --steps ${steps:-200} --save-every 5 $small_points --out run "$@"; }
train_gan()    { "$points" train --data ring --plain --gan hinge --steps ${steps:-200} --save-every 5 $small_points --out run "$@"; }
train_images() { "$images" train --data "$tmp/small.idx" --steps ${steps:-10} --teacher-steps 5 --save-every 1 --sheet-seconds 0.1 $small_images --out run "$@"; }
resume_points() { "$points" train --resume --plain --save-every 5 --compare-steps 0 --noises 1000 --threads 1 --quiet --out run; }
resume_gan()    { resume_points; }
resume_images() { "$images" train --resume --save-every 1 --sheet-seconds 0.1 --threads 1 --quiet --out run; }
# Sixty images of 8 x 8 grey pixels, an idx file: the rows of drawn shapes, cut anew.
small_idx() {
    "$images" synth --n 2 --quiet --out "$tmp/shapes.bin" >/dev/null || { echo "faults: build/images is missing or does not run; make first"; exit 1; }
    { printf '\000\000\010\003\000\000\000\074\000\000\000\010\000\000\000\010'; head -c 3840 "$tmp/shapes.bin"; } >"$tmp/small.idx"
}

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
        # in the foreground timeout outlives its command, and tells of its end by status 137
        if [ -f run/checkpoint.safetensors ]; then how=resume; else how=train; fi
        case $how.$kind in resume.images) set -- "$images" train --resume --save-every 1 --sheet-seconds 0.1 --threads 1 --quiet --out run;;
                           resume.*) set -- "$points" train --resume --plain --save-every 5 --compare-steps 0 --noises 1000 --threads 1 --quiet --out run;;
                           train.points) set -- "$points" train --data ring --plain --steps 200 --save-every 5 $small_points --out run;;
                           train.gan) set -- "$points" train --data ring --plain --gan hinge --steps 200 --save-every 5 $small_points --out run;;
                           train.images) set -- "$images" train --data "$tmp/small.idx" --steps 10 --teacher-steps 5 --save-every 1 --sheet-seconds 0.1 $small_images --out run;; esac
        timeout --foreground -s KILL "$delay" "$@" >out 2>err
        status=$?
        case $status in
        137) killed=$((killed + 1))
             whole_files $kind want run >why || { bad=$((bad + 1)); echo "after kill $killed ($delay s): $(cat why)"; };;
        124) ;;                                              # it ended by itself in the very moment: how, the next round shows
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
    kills_of points $((n * 2 / 5))
    kills_of gan $((n * 2 / 5))
    kills_of images $((n - 2 * (n * 2 / 5)))
}

# ---- what is disturbed by refusals and full disks: a name, the files that a finished run leaves the same every time, a command

commands() { cat <<END
train      model.safetensors,samples.csv,loss.csv                          $points train --data ring --steps 12 --save-every 4 $small_points --out run
table      model.safetensors,samples.csv,loss.csv,teacher.safetensors      $points train --data table.csv --label class --plain --steps 6 $small_points --out run
resume     model.safetensors,samples.csv,loss.csv                          $points train --resume --plain --compare-steps 0 --noises 1000 --threads 1 --quiet --out half
sample     a.csv                                                           $points sample --weights points.st --n 50 --nfe 2 --threads 1 --out run/a.csv
samplenpy  a.npy                                                           $points sample --weights points.st --n 50 --nfe 3 --sampler heun --threads 1 --out run/a.npy
loglik     l.csv                                                           $points loglik --weights points.st --data rows.csv --threads 1 --out run/l.csv
images     model.safetensors,teacher.safetensors,loss.csv,samples.png      $images train --data shapes.idx --steps 2 --teacher-steps 2 --save-every 1 $small_images --out run
isample    a.png                                                           $images sample --weights images.st --n 2 --nfe 2 --threads 1 --out run/a.png
isamplenpz a.npz                                                           $images sample --weights images.st --n 2 --nfe 2 --threads 1 --out run/a.npz
ieval      -                                                               $images eval --weights images.st --data shapes.idx --n 4 --likelihood 1 --threads 1 --quiet --out run
info       -                                                               $images info --weights images.st
synth      s.bin                                                           $images synth --n 3 --out run/s.bin
edit       e.png                                                           $edit superres --weights images.st --data shapes.idx --n 2 --nfe 2 --threads 1 --out run/e.png
use        -                                                               $use points.st 5
lesson     -                                                               $build/gamma
END
}
# The folder that they all begin in: a table, images, weights, an unfinished run in half, and in run older files of the names to be written.
prepare() {
    [ -d "$tmp/start" ] && return
    mkdir "$tmp/start" && cd "$tmp/start" || exit 1
    awk 'BEGIN { srand(3); print "a,b,class"; for (i = 0; i < 40; i++) printf "%.3f,%.3f,%s\n", rand(), 3*rand(), i % 2 ? "odd" : "even" }' >table.csv
    printf 'x,y\n0.1,0.7\n0.5,-0.4\n' >rows.csv
    cp "$tmp/small.idx" shapes.idx
    { train_points --steps 8 --quiet && mv run/model.safetensors points.st && rm -r run &&
      "$images" train --data shapes.idx --steps 1 --teacher-steps 1 $small_images --out run && mv run/model.safetensors images.st && rm -r run &&
      "$points" train --data ring --plain --steps 8 --stop-at 4 $small_points --out half; } >log 2>&1
    mkdir -p run && [ -f points.st ] && [ -f images.st ] && [ -f half/checkpoint.safetensors ] || { no "the short runs: $(cat log)"; exit 1; }
    rm log
    commands | while read -r name files command; do
        for f in $(echo "$files" | tr ',' ' '); do [ "$f" = - ] || echo "an older file" >"run/$f"; done
    done
    cd "$root" || exit 1
}
# fresh DIR: that folder anew, links where nothing is written.
fresh() { rm -rf "$1"; cp -r "$tmp/start" "$1"; }

# judge NAME FILES STATUS DIR: what one disturbed run left. The line says what is wrong. Status 0 must have the undisturbed results; status 1 has
# one line on stderr; a file under its own name is the old one, or whole; nothing unfinished lies about.
judge() {
    [ "$3" = 0 ] || [ "$3" = 1 ] || { echo "status $3: $(head -c 200 "$4/stderr")"; return 1; }
    [ "$3" = 0 ] || [ "$(grep -c . "$4/stderr")" = 1 ] || { echo "not one line: $(head -c 300 "$4/stderr" | tr '\n' '|')"; return 1; }
    left=$(find "$4" -name '*.tmp' | tr '\n' ' ')
    [ -z "$left" ] || { echo "left $left"; return 1; }
    dir=run; [ "$1" = resume ] && dir=half
    for f in $(echo "$2" | tr ',' ' '); do
        [ "$f" = - ] || cmp -s "$tmp/base.$1/$dir/$f" "$4/$dir/$f" && continue
        [ "$f" = - ] && continue
        [ "$3" = 0 ] && { echo "status 0, but $f is not what it should be"; return 1; }
        [ -f "$4/$dir/$f" ] || { [ ! -f "$tmp/start/$dir/$f" ] && continue; echo "$f is gone"; return 1; }
        cmp -s "$tmp/start/$dir/$f" "$4/$dir/$f" && continue
        case $f in                                               # these are written again and again: whole in any state
        loss.csv) awk -F, 'NR == 1 { n = NF } NF != n { bad = 1 } END { exit bad || n != 6 }' "$4/$dir/$f" && [ -z "$(tail -c 1 "$4/$dir/$f")" ] && continue;;
        *.png)    tail -c 8 "$4/$dir/$f" | grep -q IEND && continue;; esac
        echo "$f is neither the old nor the new one"; return 1
    done
    [ "$1" = "" ] || [ "$3" = 0 ] || [ ! -f "$4/$dir/checkpoint.safetensors" ] || [ "$1" != train ] && [ "$1" != resume ] && return 0
    [ "$3" = 0 ] && return 0
    [ -f "$4/$dir/checkpoint.safetensors" ] || return 0
    (cd "$4" && "$points" train --resume --plain --compare-steps 0 --noises 1000 --threads 1 --quiet --out $dir >/dev/null 2>stderr) ||
        { echo "does not go on: $(cat "$4/stderr")"; return 1; }
    for f in $(echo "$2" | tr ',' ' '); do cmp -s "$tmp/base.$1/$dir/$f" "$4/$dir/$f" || { echo "after --resume $f is another"; return 1; }; done
}

# base NAME COMMAND: the undisturbed run, in base.NAME.
base() {
    fresh "$tmp/base.$1"
    (cd "$tmp/base.$1" && $2 >stdout 2>stderr) || { no "$1: the undisturbed run failed: $(cat "$tmp/base.$1/stderr")"; return 1; }
}

# ---- memory

part_memory() {
    mkdir -p "$tmp/m"
    sanitize=-fsanitize=address,undefined
    ${CC:-cc} $sanitize "$root/tests/faults/refuse.c" -shared -fPIC -o "$tmp/m/try" 2>/dev/null || sanitize=
    for tight in "" -DCTM__TIGHT; do
        [ "$tight$2" = tight ] && continue
        # shellcheck disable=SC2086
        ${CC:-cc} -g -O1 $sanitize $tight -DCTM_NO_SIMD -DCTM_NO_OPENMP tests/faults/memory.c -o "$tmp/m/memory" -lm || { no "memory: does not compile"; continue; }
        if (cd "$tmp/m" && ./memory "${1:-1}") >"$tmp/m/log" 2>&1; then ok "memory${tight:+, every piece a block of its own}: $(tail -n 1 "$tmp/m/log")"
        else no "memory $tight: $(grep -v '^ok' "$tmp/m/log" | head -20)"; fi
    done
}

# refuse_in NAME FILES COMMAND EVERY
refuse_in() {
    base "$1" "env LD_PRELOAD=$tmp/refuse.so REFUSE_COUNT=$tmp/count $3" || return
    total=$(cat "$tmp/count") k=0 bad=0 told=0 coped=0
    while [ $k -lt "$total" ]; do
        fresh "$tmp/now"
        (cd "$tmp/now" && exec env LD_PRELOAD="$tmp/refuse.so" REFUSE=$k $3 >stdout 2>stderr)
        status=$?
        if judge "$1" "$2" $status "$tmp/now" >"$tmp/why"; then
            if [ $status = 0 ]; then coped=$((coped + 1)); else told=$((told + 1)); fi
        else bad=$((bad + 1)); [ $bad -gt 5 ] || echo "  $1, allocation $k of $total refused: $(cat "$tmp/why")"; fi
        k=$((k + $4))
    done
    if [ $bad = 0 ] && { [ $told -gt 0 ] || [ "$4" -gt 1 ]; }; then ok "refuse, $1: of $total allocations $told refused with one line and status 1, $coped did without"
    else no "refuse, $1: $bad of $((bad + told + coped)) refusals"; fi
}
part_refuse() {
    cc -O1 -shared -fPIC tests/faults/refuse.c -o "$tmp/refuse.so" 2>/dev/null && env LD_PRELOAD="$tmp/refuse.so" "$points" --help >/dev/null 2>&1 ||
        { skip "refuse: needs glibc and LD_PRELOAD"; return; }
    prepare
    commands >"$tmp/commands"
    while read -r name files command; do [ "${2:-$name}" = "$name" ] && refuse_in "$name" "$files" "$command" "${1:-1}"; done <"$tmp/commands"
}

# ---- disks

# Places where a call of one kind can fail: "NAME NUMBER", out of strace's log; only what concerns files of this run.
places() {
    awk -v dir="$2" '
        match($0, /^[0-9]+ +/) { $0 = substr($0, RLENGTH + 1) }
        match($0, /^[a-z0-9_]+\(/) {
            name = substr($0, 1, RLENGTH - 1); n[name]++
            ours = index($0, dir) || $0 ~ /^write\(1</
            if (name ~ /^open/) ours = ours && $0 ~ /O_CREAT/
            if (name == "write" && $0 ~ /^write\(2</) ours = 0
            if (name ~ /^(mkdir|rename|fsync|fdatasync|fchmod|chmod|fchown|chown|ftruncate)/) ours = 1
            if (ours) print name, n[name]
        }' "$1"
}
trace=write,writev,pwrite64,fsync,fdatasync,ftruncate,rename,renameat,renameat2,mkdir,openat,close
# disk_in NAME FILES COMMAND EVERY
disk_in() {
    fresh "$tmp/base.$1"
    (cd "$tmp/base.$1" && strace -f -y -qq -e trace=$trace -o "$tmp/trace" $3 >stdout 2>stderr) ||
        { no "disk, $1: the undisturbed run failed: $(cat "$tmp/base.$1/stderr")"; return; }
    places "$tmp/trace" "$tmp/base.$1" >"$tmp/places"
    bad=0 told=0 coped=0 k=0
    while read -r call number; do
        k=$((k + 1))
        [ $(((k - 1) % $4)) = 0 ] || continue
        for error in ENOSPC EIO; do
            fresh "$tmp/now"
            (cd "$tmp/now" && exec strace -f -qq -e trace=$call -e inject=$call:error=$error:when=$number -o /dev/null $3 >stdout 2>stderr)
            status=$?
            if judge "$1" "$2" $status "$tmp/now" >"$tmp/why"; then
                if [ $status = 0 ]; then coped=$((coped + 1)); else told=$((told + 1)); fi
                [ $status = 1 ] || [ $call != write ] || { bad=$((bad + 1)); echo "  $1, $error at write $number: status 0"; }
            else bad=$((bad + 1)); [ $bad -gt 5 ] || echo "  $1, $error at $call $number: $(cat "$tmp/why")"; fi
        done
    done <"$tmp/places"
    if [ $bad = 0 ] && { [ $told -gt 0 ] || [ "$4" -gt 1 ]; }; then ok "disk, $1: $told faults told in one line with status 1, $coped did no harm"
    else no "disk, $1: $bad of $((bad + told + coped)) faults"; fi
}
part_disk() {
    strace -f -qq -e trace=write -e inject=write:error=ENOSPC:when=1 -o /dev/null "$points" --help >/dev/null 2>&1
    [ $? != 127 ] && have strace && strace -o /dev/null true 2>/dev/null || { skip "disk: strace is not here, or may not trace"; return; }
    prepare
    commands >"$tmp/commands"
    while read -r name files command; do [ "${2:-$name}" = "$name" ] && disk_in "$name" "$files" "$command" "${1:-1}"; done <"$tmp/commands"
}

# A disk of SIZE kilobytes, from nothing to what is needed.
part_full() {
    prepare
    mkdir -p "$tmp/disk"
    mount -t tmpfs -o size=16k none "$tmp/disk" 2>/dev/null || { skip "full: only root can make a small disk"; return; }
    umount "$tmp/disk"
    base train "$points train --data ring --steps 12 --save-every 4 $small_points --out run" || return
    bad=0 told=0 done=0 k=0
    while [ $k -lt 60 ] && [ $done -lt 2 ]; do
        k=$((k + 1)) size=$((k * k / 4 * 4 + 4))
        mount -t tmpfs -o size=${size}k none "$tmp/disk" || break
        (cd "$tmp/disk" && "$points" train --data ring --steps 12 --save-every 4 $small_points --out run >"$tmp/stdout" 2>"$tmp/stderr")
        status=$?
        if [ $status = 0 ]; then done=$((done + 1))
        elif [ $status != 1 ] || [ "$(grep -c . "$tmp/stderr")" != 1 ]; then bad=$((bad + 1)); echo "  $size KB: status $status, $(head -c 300 "$tmp/stderr")"
        else
            told=$((told + 1))
            [ -z "$(find "$tmp/disk" -name '*.tmp')" ] || { bad=$((bad + 1)); echo "  $size KB: left $(find "$tmp/disk" -name '*.tmp')"; }
            mount -o remount,size=64m "$tmp/disk"                            # somebody made room
            again=; [ -f "$tmp/disk/run/checkpoint.safetensors" ] && again=--resume
            if [ $again ]; then set -- --resume --plain --compare-steps 0 --noises 1000 --threads 1 --quiet; else set -- --data ring --steps 12 $small_points; fi
            (cd "$tmp/disk" && "$points" train "$@" --out run >"$tmp/stdout" 2>"$tmp/stderr") || { bad=$((bad + 1)); echo "  $size KB: does not go on: $(cat "$tmp/stderr")"; }
            for f in model.safetensors samples.csv loss.csv; do cmp -s "$tmp/disk/run/$f" "$tmp/base.train/run/$f" || { bad=$((bad + 1)); echo "  $size KB: afterwards $f is another"; }; done
        fi
        umount "$tmp/disk"
    done
    if [ $bad = 0 ] && [ $told -gt 2 ] && [ $done -gt 0 ]; then ok "full: $told disks too small were told in one line, and gave the same bits after room was made"
    else no "full: $bad faults, $told told, $done large enough"; fi
}

# ---- threads and memory of every kind

# clang's own OpenMP, with Archer, which tells the sanitizer what OpenMP orders.
part_threads() {
    clang=
    for c in clang-14 clang-19 clang; do
        printf '#include <omp.h>\nint main(void){int s=0;\n#pragma omp parallel for reduction(+:s)\nfor(int i=0;i<9;i++)s+=i;return s!=36;}\n' >"$tmp/t.c"
        have $c && $c -fopenmp -fsanitize=thread "$tmp/t.c" -o "$tmp/t" 2>/dev/null && { clang=$c; break; }
    done
    [ $clang ] || { skip "threads: needs clang with libomp and its thread sanitizer"; return; }
    export TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=0:exitcode=66
    compile="$clang -g -O1 -fopenmp -fsanitize=thread"
    prepare
    if $compile tests/main.c -o "$tmp/t" -lm 2>"$tmp/log"; then
        for t in ${1:-parallel_for teams same_bits_for_threads}; do
            [ "$t" = long ] && t=
            if OMP_NUM_THREADS=4 "$tmp/t" $t >"$tmp/log" 2>&1 && ! grep -q 'WARNING: ThreadSanitizer' "$tmp/log"; then ok "threads, tests $t: $(tail -n 1 "$tmp/log")"
            else no "threads, tests $t: $(grep -A 12 -m 1 'WARNING: ThreadSanitizer' "$tmp/log" || tail -n 3 "$tmp/log")"; fi
        done
    else no "threads: $(head -5 "$tmp/log")"; fi
    for p in points images; do
        $compile apps/$p.c -o "$tmp/t" -lm 2>"$tmp/log" || { no "threads: $(head -5 "$tmp/log")"; continue; }
        fresh "$tmp/now"
        case $p in points) set -- train --data ring --gan hinge --plain --steps 20 --hidden 16 --layers 2 --batch 16 --compare-steps 0 --noises 1000 --threads 4 --quiet --out run;;
                   *)         set -- train --data shapes.idx --steps 3 --teacher-steps 2 --model-channels 4 --channel-mult 1,1 --num-blocks 1 --batch 4 --threads 4 --quiet --out run;; esac
        if (cd "$tmp/now" && "$tmp/t" "$@") >"$tmp/log" 2>&1 && ! grep -q 'WARNING: ThreadSanitizer' "$tmp/log"; then ok "threads, $p train"
        else no "threads, $p train: $(grep -A 12 -m 1 'WARNING: ThreadSanitizer' "$tmp/log" || tail -n 3 "$tmp/log")"; fi
    done
}

part_valgrind() {
    have valgrind || { skip "valgrind: is not here"; return; }
    check="valgrind -q --error-exitcode=66 --leak-check=full --errors-for-leak-kinds=definite,indirect,possible --exit-on-first-error=no"
    prepare
    compile="${CC:-cc} -g -O1 -DCTM_NO_SIMD -DCTM_NO_OPENMP"
    if $compile tests/main.c -o "$tmp/v" -lm 2>"$tmp/log"; then
        for t in ${1:-base_arena base_tape model_round_trip hand_made_file hostile_headers wrong_in_one_thing output_}; do
            [ "$t" = long ] && t=
            if $check "$tmp/v" $t >"$tmp/log" 2>&1; then ok "valgrind, tests $t: $(tail -n 1 "$tmp/log")"; else no "valgrind, tests $t: $(grep -A 8 -m 1 '^==' "$tmp/log" || tail -n 3 "$tmp/log")"; fi
        done
    else no "valgrind: $(head -5 "$tmp/log")"; fi
    mkdir -p "$tmp/vb"
    for p in apps/points apps/images apps/edit examples/09_weights; do
        program=${p##*/}
        $compile $p.c -o "$tmp/vb/${program#09_}" -lm 2>"$tmp/log" || no "valgrind: $(head -5 "$tmp/log")"
    done
    commands | sed "s,$build/,$tmp/vb/,g" >"$tmp/commands"
    while read -r name files command; do
        case $1.$name in *.lesson) continue;; long.*|*.table|*.sample|*.loglik|*.isample|*.edit) ;; *) continue;; esac
        fresh "$tmp/now"
        if (cd "$tmp/now" && $check $command >stdout 2>stderr); then ok "valgrind, $name"
        else no "valgrind, $name: $(grep -A 8 -m 1 '^==' "$tmp/now/stderr" || head -3 "$tmp/now/stderr")"; fi
    done <"$tmp/commands"
}

small_idx
case ${1:-short} in
kills)    part_kills "$2" "$3";;
memory)   part_memory "$2" "$3";;
refuse)   part_refuse "$2" "$3";;
disk)     part_disk "$2" "$3";;
full)     part_full;;
threads)  part_threads "$2";;
valgrind) part_valgrind "$2";;
quick)    part_kills 6; for n in loglik images train; do part_refuse 200 $n; done;;
programs) part_kills 30; part_refuse 29; part_disk 23; part_full;;
builds)   part_memory 97 tight; part_threads; part_valgrind;;
short)    sh "$root/tests/test_faults.sh" programs >"$tmp/programs" & sh "$root/tests/test_faults.sh" builds >"$tmp/builds"
          wait
          for lane in programs builds; do
              sed '$d' "$tmp/$lane"
              set -- $(tail -n 1 "$tmp/$lane" | tr -cd '0-9 ')
              passed=$((passed + ${1:-0})) failed=$((failed + ${2:-1})) skipped=$((skipped + ${3:-0}))
          done;;
long)     part_kills 1000; part_memory; part_refuse; part_disk; part_full; part_threads long; part_valgrind long;;
*)        sed -n 2,14p "$0"; exit 2;;
esac
echo "faults: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
