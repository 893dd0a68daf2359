#!/bin/sh
# Images of build/images against PyTorch's from the same weights and noise: 1e-3 after one, two and 18 steps, and for every sampler.
# usage: sh tests/compare_torch.sh [--full] [--reference FOLDER]
cd "$(dirname "$0")/.." || exit 1
for python in python3 /usr/bin/python3; do
    if "$python" -c 'import torch, numpy' 2>/dev/null; then exec "$python" tests/compare_torch.py "$@"; fi
done
echo "compare_torch: skipped, no python3 with torch and numpy"
