#!/bin/sh
# ctm.h and PyTorch (with oneDNN and whichever BLAS it has) in turn, in one run, with the ratio of their medians and the spread of each.
# OpenBLAS does not choose the fastest of its kernels on every processor, so all that this one can run are tried, and the fastest is taken.
# usage: sh tests/bench_peers.sh [ROUNDS [NAME...]]        names as build/bench prints them; default: five rounds of all below
cd "$(dirname "$0")/.." || exit 1
unset OPENBLAS_CORETYPE
python=${PYTHON:-/usr/bin/python3}
needs="bench-peers needs PyTorch with OpenBLAS (Debian: apt-get install python3-torch libopenblas0-pthread)"
"$python" -c 'import torch' 2>/dev/null || { echo "$needs; none was found in $python" >&2; exit 1; }
blas=$("$python" tests/bench_peers.py 2 blas) || exit 1
case $blas in netlib*) echo "$needs; PyTorch's products come from $blas, which is many times slower" >&2; exit 1;; esac
echo "PyTorch's matrix products: $blas"
has() { grep -m 1 '^flags' /proc/cpuinfo 2>/dev/null | grep -qw "$1"; }
case $blas in openblas*)
    cores=default
    has avx2 && has fma && cores="$cores HASWELL ZEN"
    has avx512f && has avx512vl && has avx512bw && has avx512dq && cores="$cores SKYLAKEX"
    fastest=0
    for core in $cores; do
        if [ $core = default ]; then unset OPENBLAS_CORETYPE; else export OPENBLAS_CORETYPE=$core; fi
        rate=$({ OMP_NUM_THREADS=2 "$python" tests/bench_peers.py 2 gemm_n1024; } 2>/dev/null | awk '{ print $3 }')
        echo "  kernels $core: ${rate:-they do not run here} ${rate:+GFLOP/s}"
        if awk "BEGIN { exit !(${rate:-0} > $fastest) }"; then fastest=$rate best=$core; fi
    done
    if [ "${best:-default}" = default ]; then unset OPENBLAS_CORETYPE; else export OPENBLAS_CORETYPE=$best; fi
    echo "  taken: ${best:-default}";;
esac
sed -n '/^model name/{s/.*: //p;q;}' /proc/cpuinfo 2>/dev/null
build/bench nothing                                        # says which instruction set ctm.h takes
rounds=${1:-5}
[ $# -gt 0 ] && shift
names=${*:-gemm_n512 gemm_n1024 gemm_n2048 conv3x3_fwd_c64h32 conv3x3_fwd_c128h16 conv3x3_fwd_c256h8 conv3x3_fwdbwd_c64h32 conv3x3_fwdbwd_c128h16 conv3x3_fwdbwd_c256h8
       unet_fwd_c32 unet_fwdbwd_c32 unet_fwd_c64 unet_fwdbwd_c64 unet_fwd_c128 unet_fwdbwd_c128 sample_onestep_c32 sample_onestep_c64 sample_onestep_c128 ctm_step_mlp ctm_step_unet_c32 ctm_step_unet_c64}
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
for name in $names; do
    round=0
    : >"$log"
    while [ $round -lt "$rounds" ]; do
        build/bench "$name" | grep "^bench $name " >>"$log"
        case $name in conv3x3*) build/bench "winograd${name#conv3x3}" | grep "^bench winograd${name#conv3x3} " | sed 's/^bench/winograd/' >>"$log";; esac
        threads=2
        [ "$name" = ctm_step_mlp ] && threads=1        # PyTorch's step on points is slower on two threads
        OMP_NUM_THREADS=$threads "$python" tests/bench_peers.py $threads "$name" >>"$log"
        round=$((round + 1))
    done
    awk -v name="$name" '
        { v[$1] = v[$1] " " $3; unit = $4 }
        function median(text,   a, n, i, j, x) {
            n = split(text, a, " ")
            for (i = 2; i <= n; i++) for (j = i; j > 1 && a[j-1] + 0 > a[j] + 0; j--) { x = a[j]; a[j] = a[j-1]; a[j-1] = x }
            least = a[1]; most = a[n]
            return a[int((n + 1) / 2)] }
        function spread() { return sprintf("(%.4g to %.4g)", least, most) }
        END { ours = median(v["bench"]); around = spread(); theirs = median(v["peer"])
              printf "%-26s ctm.h %8.4g %-8s %-20s PyTorch %8.4g %-8s %-20s ratio %.2f", name, ours, unit, around, theirs, unit, spread(),
                     unit == "ms" ? theirs / ours : ours / theirs
              if (v["winograd"] != "") printf "   Winograd %8.4g  ratio %.2f", median(v["winograd"]), median(v["winograd"]) / theirs
              printf "\n" }' "$log"
done
# Peak memory of whole processes, less an idle one (an interpreter with PyTorch loaded; our program before the first pass); of
# the forward pass and of samples also less the parameters.
rss=
case $names in *unet_fwd*) rss="rss_unet_fwd_c32 rss_unet_fwdbwd_c32 rss_unet_fwd_c64 rss_unet_fwdbwd_c64 rss_unet_fwd_c128 rss_unet_fwdbwd_c128";; esac
case $names in *sample*) rss="$rss rss_sample_onestep_c128";; esac
[ -z "$rss" ] && exit 0
idle=$("$python" -c 'import torch, resource; torch.zeros(1); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)')
for name in $rss; do
    { build/bench $name; "$python" tests/bench_peers.py 2 $name; } | awk -v name=$name -v idle="$idle" '
        $2 == name { v[$1] = $3 } $2 == "parameters" { p[$1] = $3 }
        END { sub("rss_", "", name); both = name ~ /fwdbwd/
              ours = v["bench"] - (both ? 0 : 2 * p["bench"]); theirs = v["peer"] - idle - (both ? 0 : p["peer"])
              printf "%-26s ctm.h %8.4g MB       PyTorch %8.4g MB       %.2f of it%s\n", name, ours, theirs, ours / theirs, both ? "" : ", parameters taken off both" }'
done
