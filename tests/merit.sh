#!/bin/sh
# The figures of merit: trains on each data set with seeds 0, 1, 2 and prints every metric's values and median, then what is asked
# of chains: their error over that of one jump, 99th percentile, share of samples off every mode, likelihood gap.
# usage: sh tests/merit.sh [DATA...]      default: ring moons grid spiral checker.
# in the environment: STEPS=N: shorter runs; TEACHER=learned: not the exact teacher; RECIPE=paper: not ours; THREADS=N;
# NOISES=N (100000; half of them are behind the errors); OUT=DIR, where runs go (out/merit)
cd "$(dirname "$0")/.." || exit 1
out=${OUT:-out/merit}
for data in ${*:-ring moons grid spiral checker}; do
    for seed in 0 1 2; do
        "${POINTS:-build/points}" train --data "$data" --seed $seed ${STEPS:+--steps "$STEPS"} ${TEACHER:+--teacher "$TEACHER"} ${RECIPE:+--recipe "$RECIPE"} \
            ${THREADS:+--threads "$THREADS"} ${NOISES:+--noises "$NOISES"} --plain --out "$out/$data.$seed" --quiet >/dev/null || exit 1
    done
    echo "$data (seeds 0, 1, 2; median)"
    paste -d, "$out/$data.0/metrics.csv" "$out/$data.1/metrics.csv" "$out/$data.2/metrics.csv" | awk -F, '
        function median(a, b, c) { return a < b ? (b < c ? b : a < c ? c : a) : (a < c ? a : b < c ? c : b) }
        function show(name, a, b, c) { printf "  %-28s %10.5g %10.5g %10.5g   median %10.5g\n", name, a, b, c, median(a, b, c) }
        $1 != "name" { v[$1, 1] = $2; v[$1, 2] = $4; v[$1, 3] = $6; show($1, $2 + 0, $4 + 0, $6 + 0) }
        END {
            print "  asked of chains at gamma 0:"
            jumps = split("2 4 8 17", n, " ")
            for (i = 1; i <= jumps; i++) {
                for (k = 1; k <= 3; k++) ratio[k] = v["flow_rms_chain" n[i], k] / v["flow_rms_onestep", k]
                show(n[i] " jumps over one, RMS", ratio[1], ratio[2], ratio[3])
            }
            for (i = 1; i <= jumps; i++) {
                for (k = 1; k <= 3; k++) ratio[k] = v["flow_p99_chain" n[i], k] / v["flow_p99_onestep", k]
                show(n[i] " jumps over one, p99", ratio[1], ratio[2], ratio[3])
            }
            for (i = 1; i <= jumps; i++) {
                name = "off_support_nfe" n[i]
                show(n[i] " jumps, off modes, %", 100 * v[name, 1], 100 * v[name, 2], 100 * v[name, 3])
            }
            show("exact flow, off modes, %", 100 * v["off_support_exact", 1], 100 * v["off_support_exact", 2], 100 * v["off_support_exact", 3])
            if (("teacher_rms_heun40", 1) in v) {
                for (k = 1; k <= 3; k++) ratio[k] = v["flow_rms_onestep", k] / v["teacher_rms_heun40", k]
                show("one jump over teacher, RMS", ratio[1], ratio[2], ratio[3])
            }
            show("likelihood gap, nats", v["nll_gap", 1], v["nll_gap", 2], v["nll_gap", 3])
        }'
done
