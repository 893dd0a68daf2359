#!/bin/sh
# Does a plain `cc -O2` run as fast as -O3 -march=native? Both builds in turn, medians of the rounds.   usage: sh tests/bench_flags.sh [ROUNDS]
cd "$(dirname "$0")/.." || exit 1
cc=${CC:-cc}
mkdir -p build
$cc -O2 -fopenmp tests/bench.c -o build/bench_plain -lm || exit 1
$cc -O3 -march=native -fopenmp tests/bench.c -o build/bench_native -lm || exit 1
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
for name in gemm_n1024 conv3x3_fwdbwd_c128h16 winograd_fwdbwd_c128h16 unet_fwdbwd_c32 points_step; do
    round=0
    : >"$log"
    while [ $round -lt "${1:-5}" ]; do
        for build in plain native; do build/bench_$build $name | grep "^bench $name " | sed "s/^bench/$build/" >>"$log"; done
        round=$((round + 1))
    done
    awk -v name=$name '
        { v[$1] = v[$1] " " $3; unit = $4 }
        function median(text,   a, n, i, j, x) {
            n = split(text, a, " ")
            for (i = 2; i <= n; i++) for (j = i; j > 1 && a[j-1] + 0 > a[j] + 0; j--) { x = a[j]; a[j] = a[j-1]; a[j-1] = x }
            return a[int((n + 1) / 2)] }
        END { plain = median(v["plain"]); native = median(v["native"])
              printf "%-26s -O2 %8.4g   -O3 -march=native %8.4g %-8s  speed of the plain build: %.0f %%\n", name, plain, native, unit,
                     100 * (unit == "ms" ? native / plain : plain / native) }' "$log"
done
