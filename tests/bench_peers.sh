#!/bin/sh
# ctm.h and PyTorch in turn, in one run, with the ratio of their medians. OpenBLAS is told to use its AVX-512 kernels, which it
# does not choose by itself on every processor.   usage: sh tests/bench_peers.sh [ROUNDS]
cd "$(dirname "$0")/.." || exit 1
export OPENBLAS_CORETYPE="${OPENBLAS_CORETYPE-SKYLAKEX}"
python=${PYTHON:-/usr/bin/python3}
"$python" -c 'import torch' 2>/dev/null || { echo "bench-peers needs PyTorch with OpenBLAS (Debian: python3-torch libopenblas0-pthread); none was found in $python" >&2; exit 1; }
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
round=0
while [ $round -lt "${1:-3}" ]; do
    build/bench ctm_step_mlp | sed 's/^bench //' | grep step_mlp >>"$log"
    for threads in 1 2; do
        OMP_NUM_THREADS=$threads "$python" tests/bench_peers.py $threads | sed "s/^peer ctm_step_mlp/peer_$threads/" >>"$log"
    done
    round=$((round + 1))
done
awk '{ v[$1] = v[$1] " " $2 }
     function median(text,   a, n, i, j, x) {
         n = split(text, a, " ")
         for (i = 2; i <= n; i++) for (j = i; j > 1 && a[j-1] + 0 > a[j] + 0; j--) { x = a[j]; a[j] = a[j-1]; a[j-1] = x }
         return a[int((n + 1) / 2)] }
     END { one = median(v["ctm_step_mlp_1t"]); two = median(v["ctm_step_mlp"]); p1 = median(v["peer_1"]); p2 = median(v["peer_2"])
           printf "ctm_step_mlp    ctm.h      PyTorch    ratio\n"
           printf "1 thread     %7.3f ms  %7.3f ms   %.2f\n", one, p1, p1 / one
           printf "2 threads    %7.3f ms  %7.3f ms   %.2f\n", two, p2, p2 / two }' "$log"
