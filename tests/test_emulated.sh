#!/bin/sh
# Other processors, emulated: arm64, whose compilers fuse multiply-adds unasked, and s390x, whose bytes lie the other way round. The
# header's tests, the bits of the portable kernels against those of this machine, and the programs: points to its last figure, images
# and edit on an idx file of tiny images. Needs Debian's gcc-aarch64-linux-gnu, gcc-s390x-linux-gnu and qemu-user; what is missing
# counts as skipped. Tests that take long are left out (emulated, they take minutes). The two processors run side by side.
# usage: sh tests/test_emulated.sh [aarch64|s390x]
cd "$(dirname "$0")/.." || exit 1
root=$(pwd)
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
long="learn gan_keeps lpips_trains lpips_golden in_proportion_to load_without_memory unet_rows unet_copies edit_fills_in samplers_keep
      wide_data unet_memory unet_training_dropout unet_same_bits"

# The inner loop of the tile as arm64's compiler writes it: 16 fused multiply-adds at least, and no load or store of the stack.
tile() {
    aarch64-linux-gnu-gcc -O2 -S -DCTM_NO_IMAGES -DCTM_IMPLEMENTATION -x c ctm.h -o "$tmp/tile.s" || return 1
    awk '/^ctm__block_v128:/ { on = 1 } /\.cfi_endproc/ { on = 0 } !on { next } /^\.L/ { fused = stack = 0; top = $1 }
         /\tfmla\t/ { fused++ } /\[sp|\[x29/ { stack++ } /\tf(mul|add)\t/ { apart++ }
         /\tb(ne|\.ne|gt|lt)\t/ && $2 ":" == top && fused > best { best = fused; spilled = stack }
         END { printf "%d fused multiply-adds in the loop, %d of the stack, %d not fused\n", best, spilled, apart
               exit !(best >= 16 && spilled == 0 && apart == 0) }' "$tmp/tile.s"
}

machine() {                             # machine NAME: everything on one processor, in a folder of its own; counts go to its file
    cc=$1-linux-gnu-gcc run=qemu-$1 dir=$tmp/$1 passed=0 failed=0 skipped=0
    mkdir "$dir" "$dir/out"
    check() {                           # check WHAT COMMAND...: must succeed
        what=$1; shift
        if "$@" >"$dir/log" 2>&1; then passed=$((passed + 1))
        else failed=$((failed + 1)); echo "FAIL emulated: $cc, $what: status $?"; grep -v '^skip' "$dir/log" | tail -n 8 | sed 's/^/     /'; fi
    }
    build() { out=$1; shift; $cc -O2 -g0 -static -DCTM_NO_OPENMP "$@" -o "$dir/$out" -lm; }

    [ $1 = aarch64 ] && check "all sums of the tile are in registers, and fused" tile
    check "the tests compile" build tests "-DCTM_TEST_DATA=\"$root/tests/golden\"" tests/main.c
    CTM_TEST_SKIP=$long check "the tests" $run "$dir/tests"
    set -- $(tail -n 1 "$dir/log" | tr -d ,)      # float: N passed N failed N skipped
    if [ "$3" = passed ]; then passed=$((passed + $2 - 1)); skipped=$((skipped + $6)); fi

    check "bits.c compiles" build bits tests/bits.c
    check "bits.c" $run "$dir/bits"
    grep '^portable' "$dir/log" >"$dir/portable"
    check "the portable kernels' bits are this machine's" cmp "$dir/portable" "$tmp/portable"

    check "the header compiles" $cc -O2 -g0 -DCTM_NO_OPENMP -DCTM_IMPLEMENTATION -x c -c ctm.h -o "$dir/ctm.o"
    for program in points images edit; do check "$program compiles" build $program -DCTM_LINKED apps/$program.c "$dir/ctm.o"; done
    points="$run $dir/points" images="$run $dir/images" edit="$run $dir/edit" model="$dir/out/images/model.safetensors"
    check "points train" $points train --hidden 16 --layers 1 --steps 40 --noises 1000 --compare-steps 0 --threads 1 --quiet --out "$dir/out/points"
    check "points train ends with its figures" test -s "$dir/out/points/metrics.csv" -a -s "$dir/out/points/model.safetensors"
    check "images synth" $images synth --n 12 --seed 5 --out "$dir/shapes.bin" --quiet
    { printf '\000\000\010\003\000\000\000\014\000\000\000\010\000\000\000\010'; head -c 768 ctm.h; } >"$dir/images.idx"     # 12 images of 8 x 8
    check "images train" $images train --data "$dir/images.idx" --model-channels 4 --channel-mult 1,1 --num-blocks 1 --attn 4 --batch 2 --shards 1 \
          --teacher-steps 2 --steps 2 --seed 3 --threads 1 --quiet --out "$dir/out/images"
    check "images sample" $images sample --weights "$model" --n 2 --seed 2 --quiet --out "$dir/sample.png"
    check "images eval" $images eval --weights "$model" --teacher "$dir/out/images/teacher.safetensors" --data "$dir/images.idx" --n 2 --likelihood 1 \
          --quiet --out "$dir/out/eval"
    check "edit" $edit inpaint --weights "$model" --data "$dir/images.idx" --box 1,1,4,4 --n 2 --nfe 2 --threads 1 --quiet --out "$dir/edit.png"
    echo "$passed $failed $skipped" >"$dir.counts"
}

${CC:-cc} -O2 tests/bits.c -o "$tmp/bits" -lm && "$tmp/bits" | grep '^portable' >"$tmp/portable"
missing=0
for name in ${1:-aarch64 s390x}; do
    if command -v $name-linux-gnu-gcc >/dev/null 2>&1 && command -v qemu-$name >/dev/null 2>&1; then machine $name &
    else missing=$((missing + 1)); echo "skip emulated: $name-linux-gnu-gcc or qemu-$name is not here"; fi
done
wait
cat "$tmp"/*.counts 2>/dev/null | awk -v missing=$missing '{ p += $1; f += $2; s += $3 }
    END { printf "emulated: %d passed, %d failed, %d skipped\n", p, f, s + missing; exit f > 0 }'
