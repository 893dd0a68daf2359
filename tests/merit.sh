#!/bin/sh
# The figures of merit: trains on each data set with seeds 0, 1, 2 and prints every metric's values and median.
# usage: sh tests/merit.sh [DATA...]      default: ring moons spiral checker
cd "$(dirname "$0")/.." || exit 1
for data in ${*:-ring moons spiral checker}; do
    for seed in 0 1 2; do
        "${POINTS:-build/points}" train --data "$data" --seed $seed --out "out/merit/$data.$seed" --quiet >/dev/null || exit 1
    done
    echo "$data (seeds 0, 1, 2; median)"
    paste -d, "out/merit/$data.0/metrics.csv" "out/merit/$data.1/metrics.csv" "out/merit/$data.2/metrics.csv" | awk -F, '
        $1 != "name" { a = $2 + 0; b = $4 + 0; c = $6 + 0
                       m = a < b ? (b < c ? b : a < c ? c : a) : (a < c ? a : b < c ? c : b)
                       printf "  %-28s %10.5g %10.5g %10.5g   median %10.5g\n", $1, a, b, c, m }'
done
