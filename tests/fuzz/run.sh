#!/bin/sh
# Fuzzing with libFuzzer, AddressSanitizer and UBSan: builds what is needed and runs one target or all, one after the other.
# usage: sh tests/fuzz/run.sh [TARGET [SECONDS]]     (FUZZ_SECONDS=60 is the default; CLANG=clang-19 chooses the compiler)
# Prints a line for every target: executions, the share of the reader's lines that the corpus reaches, findings. The same lines are kept
# in build/fuzz/log, the corpora in build/fuzz/corpus, findings in build/fuzz/found. Status 1 if anything was found.
cd "$(dirname "$0")/../.." || exit 2
all="weights checkpoint lpips csv npy idx cifar flags"
targets=${1:-$all}
seconds=${2:-${FUZZ_SECONDS:-60}}
for t in $targets; do
    case " $all " in *" $t "*) ;; *) echo "fuzz: there is no target \"$t\"; expected one of: $all" >&2; exit 2;; esac
done
[ -d /dev/shm ] && [ "$(uname)" = Linux ] || { echo "fuzz: is written for Linux: files in memory by fmemopen, others in /dev/shm" >&2; exit 2; }
for c in ${CLANG:-clang-21 clang-20 clang-19 clang-18 clang-17 clang-16 clang-15 clang-14 clang}; do
    command -v "$c" >/dev/null || continue
    echo 'int LLVMFuzzerTestOneInput(const char *p, unsigned long n) { return p && n > 1000000; }' >build.fuzz.c
    "$c" -fsanitize=fuzzer,address build.fuzz.c -o build.fuzz.out 2>/dev/null && clang=$c
    rm -f build.fuzz.c build.fuzz.out
    [ "$clang" ] && break
done
[ "$clang" ] || { echo "fuzz: needs clang with libFuzzer (Debian, Ubuntu: apt-get install clang libclang-rt-dev llvm; others: clang, compiler-rt, llvm)" >&2; exit 2; }
version=$("$clang" -dumpversion | sed 's/\..*//')
llvm() { command -v "$1-$version" || command -v "$1"; }

d=build/fuzz
mkdir -p $d/corpus $d/found
common="-g -O1 -DCTM_NO_SIMD -DCTM_NO_OPENMP -DFUZZ_MEMORY -Dfopen=fuzz_fopen"
sanitized="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fsanitize=fuzzer-no-link"
counted="-fprofile-instr-generate -fcoverage-mapping"

# An arena hands out pieces of one block, and a step from one piece into the next is nothing that a sanitizer could see. So the fuzzed
# header leaves a gap behind every piece and has it poisoned.
gaps() {
    sed -e 's|^    size_t need = (bytes + 63) / 64 \* 64;$|    size_t need = (bytes + 63) / 64 * 64 + 64;|' \
        -e 's|^    if (a->used > a->high) a->high = a->used;$|&  __asan_poison_memory_region(p, need); __asan_unpoison_memory_region(p, bytes);|' ctm.h >$d/new.h
    [ "$(grep -c '64 \* 64 + 64;\|__asan_unpoison' $d/new.h)" = 2 ] || { echo "fuzz: chapter 3 of ctm.h has changed: adapt gaps() in tests/fuzz/run.sh" >&2; exit 2; }
    if cmp -s $d/new.h $d/ctm.h; then rm $d/new.h; else mv $d/new.h $d/ctm.h; fi
}

newer() { [ ! -e "$1" ] || [ -n "$(find "$@" -newer "$1" 2>/dev/null)" ]; }       # newer OUTPUT INPUT...: OUTPUT is missing or older
objects() {                                         # objects KIND HEADER FLAGS: ctm.o and the programs
    k=$d/$1; h=$2; shift 2
    mkdir -p "$k"
    if newer "$k/ctm.o" "$h"; then "$clang" $common "$@" -DCTM_IMPLEMENTATION -x c -c "$h" -o "$k/ctm.o" || exit 2; fi
    case " $targets " in *" flags "*) ;; *) return;; esac
    for p in points claims images edit; do
        newer "$k/$p.o" tests/fuzz/program.c apps/*.[ch] ctm.h || continue
        "$clang" $common "$@" -w -DCTM_LINKED "-DPROGRAM=fuzz_$p" "-DPROGRAM_FILE=\"../../apps/$p.c\"" -c tests/fuzz/program.c -o "$k/$p.o" || exit 2
    done
}
link() {                                            # link KIND TARGET FLAGS
    k=$d/$1; t=$2; shift 2
    programs=; [ "$t" = flags ] && programs="$k/points.o $k/claims.o $k/images.o $k/edit.o"
    newer "$k/$t" tests/fuzz/*.[ch] apps/*.h "$k/ctm.o" $programs || return 0
    "$clang" $common -Wall -Wextra -Wno-unused-function "$@" tests/fuzz/$t.c "$k/ctm.o" $programs -o "$k/$t" -lm || exit 2
}

# Lines of the reader: the functions whose names match, in the file that it is written in.
reader() {
    case $1 in
    weights)    echo 'ctm\.h ^(ctm__json_.*|ctm__slurp|ctm__file_.*|ctm_file_.*|ctm__field_read|ctm_config_read|ctm__numbers_fit|ctm__read_.*|ctm__names_fit|ctm__is_meant|ctm_net_read|ctm__net_of_file|ctm_load(_file)?)$ ^(ctm__json_quote|ctm__read_numbers)$' ;;
    checkpoint) echo 'ctm\.h ^(ctm_checkpoint_load(_file)?|ctm__trainer_arrays|ctm__read_.*|ctm_config_read|ctm__numbers_fit|ctm__json_.*|ctm__file_.*)$ ^(ctm__json_quote)$' ;;
    lpips)      echo 'ctm\.h ^(ctm_lpips_load|ctm__lpips_roots|ctm__vgg_of_file|ctm__read_.*|ctm__names_fit|ctm_net_read)$ ^ctm__read_numbers$' ;;
    csv)        echo 'table\.h ^table_ ^table_write_(rows|csv|csv_f32)$' ;;
    npy)        echo '(table|image)\.h ^(npy_|image_read_labels|image_open_np.|image_check_floats|image_f32|image_doubtful) ^npy_write_f32$' ;;
    idx)        echo 'image\.h ^image_(open|load|read$|big|agree|close|part_of|intact|cut|stranger|get$|label$) ^image_(open_cifar|open_np.*|check_floats)$' ;;
    cifar)      echo 'image\.h ^image_(open_file|open_cifar|load|read|mark|agree|intact|get|label)$ ^$' ;;
    flags)      echo 'args\.h ^args_ ^args_(path|join|mkdir|can_write|open_atomic|close_atomic|sync|progress|clock|common_defaults|is_slash|temporary|seconds|now)' ;;
    esac
}
coverage() {                                        # coverage TARGET: "percent reached/lines"
    t=$1
    objects counted ctm.h $counted
    link counted "$t" $counted tests/fuzz/main.c
    LLVM_PROFILE_FILE=$d/counted/$t.raw "$d/counted/$t" "$d/corpus/$t" "$d/seeds/$t" >/dev/null 2>&1 || { echo "? ?"; return; }
    "$(llvm llvm-profdata)" merge -sparse "$d/counted/$t.raw" -o "$d/counted/$t.prof" &&
    "$(llvm llvm-cov)" export -format=lcov -instr-profile "$d/counted/$t.prof" "$d/counted/$t" >"$d/counted/$t.lcov" 2>/dev/null || { echo "? ?"; return; }
    set -- $(reader "$t")
    awk -F'[:,]' -v file="$1" -v yes="$2" -v no="$3" '
        $1 == "SF"   { ours = $2 ~ file "$"; delete name; delete first }
        $1 == "FN" && ours   { name[$2] = $NF }
        $1 == "DA" && ours   { for (line = $2; line > 0 && !(line in name); line--) { }
                               if (line > 0 && name[line] ~ yes && name[line] !~ no) { key = file ":" $2; all[key] = 1; if ($3 > 0) hit[key] = 1 } }
        END { for (k in all) { n++; if (k in hit) h++ } printf "%.1f%% %d/%d\n", n ? 100*h/n : 0, h, n }' "$d/counted/$t.lcov"
}

limit() { case $1 in weights) echo 13000;; checkpoint) echo 10000;; lpips) echo 6000;; cifar) echo 6200;; flags) echo 1000;; *) echo 2000;; esac; }
dictionary() { case $1 in weights|checkpoint|lpips) echo safetensors;; cifar|idx) echo npy;; *) echo "$1";; esac; }

gaps
objects checked $d/ctm.h $sanitized -fno-sanitize-coverage=trace-cmp -include sanitizer/asan_interface.h      # comparisons would cost half the speed
[ -x $d/checked/seeds ] && ! newer $d/checked/seeds tests/fuzz/seeds.c $d/checked/ctm.o || \
    "$clang" $common $sanitized -fsanitize=address,undefined tests/fuzz/seeds.c tests/fuzz/memory.c $d/checked/ctm.o -o $d/checked/seeds -lm || exit 2
rm -rf $d/seeds; $d/checked/seeds $d/seeds || exit 2

export ASAN_OPTIONS=quarantine_size_mb=2:malloc_context_size=4:detect_stack_use_after_return=0:allocator_release_to_os_interval_ms=-1
status=0
printf '%-12s %12s %8s %18s %9s\n' target executions per_s lines findings
for t in $targets; do
    link checked "$t" -fsanitize=fuzzer $sanitized
    mkdir -p $d/corpus/$t $d/found/$t
    begin=$(date +%s); runs=0; findings=0
    while now=$(date +%s); left=$((seconds - now + begin)); [ $left -gt 0 ] && [ $findings -lt 10 ]; do
        $d/checked/$t -max_total_time=$left -timeout=5 -rss_limit_mb=512 -malloc_limit_mb=64 -max_len=$(limit $t) -dict=tests/fuzz/$(dictionary $t).dict \
            -artifact_prefix=$d/found/$t/ -print_final_stats=1 $d/corpus/$t $d/seeds/$t $(ls -d tests/fuzz/found/$t 2>/dev/null) >$d/$t.log 2>&1
        code=$?
        n=$(sed -n 's/^stat::number_of_executed_units: *//p' $d/$t.log)
        runs=$((runs + ${n:-0}))
        [ $code -eq 0 ] && break
        findings=$((findings + 1)); status=1
        grep -E '^(==[0-9]+==ERROR|.*runtime error|.*expected |ctm: |SUMMARY|artifact_prefix|Test unit written)' $d/$t.log | head -5 >&2
    done
    took=$(($(date +%s) - begin)); [ $took -gt 0 ] || took=1
    lines=$(coverage $t)
    printf '%-12s %12d %8d %18s %9d\n' $t $runs $((runs / took)) "$lines" $findings
    echo "$(date +%Y-%m-%dT%H:%M:%S) $t $runs $lines $findings" >>$d/log
    case $lines in 100*|[789]?.*) ;; *) echo "fuzz: $t reaches too few of its reader's lines; does it still get in?" >&2; status=1;; esac
done
awk '{ n += $3 } END { printf "%d executions in all runs so far (build/fuzz/log)\n", n }' $d/log
exit $status
