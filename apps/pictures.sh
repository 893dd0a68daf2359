#!/bin/sh
# From Fashion-MNIST to pictures: a teacher of its ten classes, the student, their measures. `make pictures` is this.
# usage: sh apps/pictures.sh [FOLDER]      FOLDER has train-images-idx3-ubyte and the other three files, with .gz or without
# PICTURES=DIR  where results go, out/pictures      TEACHER_STEPS, STEPS  less or more training      MORE  further flags of `images train`
# A run that was stopped goes on where it was.
out=${PICTURES:-out/pictures}
say() { echo "pictures: $*" >&2; exit 1; }

if [ -n "$1" ]; then places=$1; else places="../shared/data/fashion-mnist /usr/share/datasets/fashion-mnist data/fashion-mnist"; fi
for place in $places; do
    for end in .gz ''; do [ -f "$place/train-images-idx3-ubyte$end" ] && from=$place; done
    [ -n "$from" ] && break
done
[ -n "$from" ] || say "no train-images-idx3-ubyte(.gz) in ${1:-$(echo "$places" | sed 's/ / or /g')}: apt install dataset-fashion-mnist, or make pictures FASHION=FOLDER with the four files of github.com/zalandoresearch/fashion-mnist"

data=$out/data
mkdir -p "$data" || exit 1
for name in train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte; do
    [ -f "$data/$name" ] && continue
    if [ -f "$from/$name" ]; then cp "$from/$name" "$data/$name.part"
    elif [ -f "$from/$name.gz" ]; then gzip -dc "$from/$name.gz" >"$data/$name.part" 2>"$data/why" || {
        why=$(tr '\n' ' ' <"$data/why"); rm -f "$data/$name.part" "$data/why"; say "$from/$name.gz cannot be unpacked: $why"; }
    else say "$from: has no $name, with .gz or without"; fi || { rm -f "$data/$name.part"; exit 1; }
    mv "$data/$name.part" "$data/$name" && rm -f "$data/why"
done

if [ -f "$out/checkpoint.safetensors" ] && [ ! -f "$out/model.safetensors" ]; then build/images train --resume --out "$out" || exit
elif [ ! -f "$out/model.safetensors" ]; then
    build/images train --data "$data/train-images-idx3-ubyte,$data/train-labels-idx1-ubyte" --classes 10 --patch 2 --model-channels 32 --channel-mult 1,2 --guidance 1.75 \
        --teacher-steps "${TEACHER_STEPS:-16000}" --steps "${STEPS:-2500}" $MORE --out "$out" || exit
fi
build/images half --weights "$out/model.safetensors" --out "$out/fashion.safetensors" || exit
build/images eval --weights "$out/fashion.safetensors" --teacher "$out/teacher.safetensors" --data "$data/train-images-idx3-ubyte,$data/train-labels-idx1-ubyte" \
    --features examples/demo/judge.safetensors --likelihood 0 --out "$out/eval" || exit
echo "look at $out/samples.png (rows: 1, 2, 4, 8 jumps, the teacher; a column for each class), $out/onestep.png, $out/eval/eval.svg, $out/eval/nearest.png"
