#!/bin/sh
# build/images from the outside: a synthetic set, training and resuming, samples in every format, and one clear line for bad input.
cd "$(dirname "$0")/.." || exit 1
images=build/images
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0 skipped=0
ok()   { passed=$((passed + 1)); }
bad()  { failed=$((failed + 1)); echo "FAIL images: $*"; }
skip() { skipped=$((skipped + 1)); echo "skip images: $*"; }
# refuses NAME STATUS FRAGMENT COMMAND...: exits with STATUS, says one line on stderr that contains FRAGMENT
refuses() {
    name=$1 want=$2 part=$3; shift 3
    "$@" >"$tmp/stdout" 2>"$tmp/stderr"; got=$?
    if [ $got != "$want" ]; then bad "$name: exit status $got, expected $want: $(head -c 300 "$tmp/stderr")"
    elif [ "$(wc -l <"$tmp/stderr")" != 1 ]; then bad "$name: not 1 line on stderr: $(head -c 300 "$tmp/stderr")"
    elif ! grep -qF -- "$part" "$tmp/stderr"; then bad "$name: \"$part\" is not in: $(cat "$tmp/stderr")"
    else ok; fi
}
runs() {
    name=$1; shift
    if "$@" >"$tmp/stdout" 2>"$tmp/stderr"; then ok; else bad "$name: exit status $?: $(head -c 300 "$tmp/stderr")"; fi
}
exists() { for f in "$@"; do if [ -s "$f" ]; then ok; else bad "$f is missing or empty"; fi; done; }
absent() { for f in "$@"; do if [ -e "$f" ]; then bad "$f should not exist"; else ok; fi; done; }
same()   { if cmp -s "$2" "$3"; then ok; else bad "$1: $2 and $3 differ"; fi; }
differ() { if cmp -s "$2" "$3"; then bad "$1: $2 and $3 are the same"; else ok; fi; }
bytes()  { printf "$1"; }
header() { # header DESCR ORDER SHAPE: a .npy header of 128 bytes
    text="{'descr': '$1', 'fortran_order': $2, 'shape': ($3), }"
    bytes '\223NUMPY\001\000\166\000'; printf '%-117s\n' "$text"
}
zeros() { dd if=/dev/zero bs="$1" count=1 2>/dev/null; }
size_of() { wc -c <"$1" | tr -d ' '; }

# ---- a synthetic set: records of CIFAR-10's size, the same for the same seed
set=$tmp/shapes.bin
runs "synth" $images synth --n 40 --seed 5 --out "$set" --quiet
[ "$(size_of "$set")" = $((40*3073)) ] && ok || bad "the synthetic set has $(size_of "$set") bytes"
runs "synth again" $images synth --n 40 --seed 5 --out "$tmp/again.bin" --quiet
same "the synthetic set" "$set" "$tmp/again.bin"

# ---- training: a small network of 8 x 8 pixels; whole, on another number of threads, and stopped and resumed
{ header '|u1' False '40, 8, 8, 3'; tail -c 7680 "$set"; } >"$tmp/x.npy"
{ bytes '\000\000\010\001\000\000\000\050'; for i in 0 1 2 3 4 5 6 7; do bytes '\001\002\000\011\004'; done; } >"$tmp/y.idx"
data=$tmp/x.npy,$tmp/y.idx
net="--model-channels 4 --channel-mult 1,1 --num-blocks 1 --attn 4 --batch 4 --shards 2 --dropout 0.2 --classes 10"
runs "train" $images train --data "$data" $net --steps 4 --teacher-steps 3 --seed 3 --out "$tmp/whole" --quiet --threads 1
exists "$tmp/whole/samples.png" "$tmp/whole/onestep.png" "$tmp/whole/loss.svg" "$tmp/whole/loss.csv" "$tmp/whole/teacher_loss.csv" "$tmp/whole/metrics.csv" "$tmp/whole/model.safetensors" \
       "$tmp/whole/teacher.safetensors" "$tmp/whole/checkpoint.safetensors"
for name in parameters steps L_ctm L_dsm teacher_seconds train_seconds images_per_second; do
    grep -Eq "^$name,[0-9.]+(e[-+]?[0-9]+)?$" "$tmp/whole/metrics.csv" && ok || bad "metrics.csv has no number for $name"
done
runs "train on two threads" $images train --data "$data" $net --steps 4 --teacher-steps 3 --seed 3 --out "$tmp/two" --quiet --threads 2
same "one thread and two" "$tmp/whole/model.safetensors" "$tmp/two/model.safetensors"
runs "train, stopped" $images train --data "$data" $net --steps 4 --teacher-steps 3 --seed 3 --out "$tmp/part" --quiet --stop-at 2
absent "$tmp/part/model.safetensors"
refuses "resume with another flag" 1 "--batch" $images train --resume --batch 5 --out "$tmp/part" --quiet
runs "train, resumed" $images train --resume --out "$tmp/part" --quiet
same "uninterrupted and resumed" "$tmp/whole/model.safetensors" "$tmp/part/model.safetensors"
same "uninterrupted and resumed" "$tmp/whole/loss.csv" "$tmp/part/loss.csv"
awk -F, '$1 == "teacher_seconds" { t = $2 } $1 == "train_seconds" { all = $2 } END { exit !(t > 0 && t < all) }' "$tmp/part/metrics.csv" && ok || bad "resumed: the teacher's seconds are lost"
runs "dropout 0" $images train --data "$data" $net --dropout 0 --steps 4 --teacher-steps 3 --seed 3 --out "$tmp/nodrop" --quiet
differ "with and without dropout" "$tmp/whole/model.safetensors" "$tmp/nodrop/model.safetensors"

# Data, teacher and folder elsewhere: what is in the files decides.
cp "$tmp/x.npy" "$tmp/m.npy"; cp "$tmp/whole/teacher.safetensors" "$tmp/m.safetensors"
runs "before the move" $images train --data "$tmp/m.npy,$tmp/y.idx" $net --teacher "$tmp/m.safetensors" --steps 3 --seed 3 --out "$tmp/before" --quiet --stop-at 1
mkdir "$tmp/else"; mv "$tmp/m.npy" "$tmp/m.safetensors" "$tmp/before" "$tmp/else"
go="$images train --resume --out $tmp/else/before --quiet"
refuses "data that are gone" 1 "cannot read $tmp/m.npy: No such file or directory; if the data have moved, --data says where to" $go --teacher "$tmp/else/m.safetensors"
refuses "a teacher that is gone" 1 "m.safetensors is not there, the file of the run's --teacher" $go --data "$tmp/else/m.npy,$tmp/y.idx"
{ header '|u1' False '40, 8, 8, 3'; head -c 7680 "$set"; } >"$tmp/other.npy"
refuses "other data" 1 "is not the one this run began with" $go --data "$tmp/other.npy,$tmp/y.idx" --teacher "$tmp/else/m.safetensors"
runs "after the move" $go --data "$tmp/else/m.npy,$tmp/y.idx" --teacher "$tmp/else/m.safetensors"

# The student begins as its teacher: until it has learned something about s, its small steps are the teacher's.
begin="--teacher $tmp/whole/teacher.safetensors --steps 1 --lr 1e-9 --seed 3 --quiet"
runs "a student that has learned nothing" $images train --data "$data" $net $begin --out "$tmp/begin"
for who in begin/model whole/teacher; do
    runs "small steps of $who" $images sample --weights "$tmp/$who.safetensors" --sampler heun --nfe 5 --n 4 --seed 2 --out "$tmp/$(dirname $who).png" --quiet
done
same "the student and its teacher" "$tmp/begin.png" "$tmp/whole.png"
runs "the authors' times" $images train --data "$data" $net --teacher "$tmp/whole/teacher.safetensors" --steps 4 --seed 3 --times authors --out "$tmp/law" --quiet
differ "two ways to choose times" "$tmp/whole/model.safetensors" "$tmp/law/model.safetensors"

# tiny stays below half a million parameters, has as many levels as the size allows, and gives its teacher four steps for one.
for want in "32 3 1,1,2,2 8" "28 1 1,1,2 7" "16 3 1,1,2 4" "8 3 1,1 4"; do
    set -- $want
    $images info --config tiny --size "$1" --channels "$2" | awk -v mult="channel_mult $3," -v at="attention at $4," \
        '/^network:/ { ok = index($0, mult) && index($0, at) && $(NF - 2) < 0.5 } END { exit !ok }' && ok || bad "tiny for images of $1 x $1"
done
# The network fits every size from 4 pixels on, or it is said what does.
for size in 4 5 6 7 9 10 13 22 33 40 66; do runs "a network for $size x $size" $images info --size $size; done
for config in compact ddpmpp; do runs "$config for 10 x 10" $images info --config $config --size 10; done
refuses "a network for 101 x 101" 2 "pad them to 104 x 104: numpy.pad(x, ((0,0),(0,3),(0,3),(0,0)), 'edge')" $images info --size 101
runs "one level, where --channel-mult says so" $images info --channel-mult 1
$images train --help | tr -s ' \n' ' ' | grep -q -- '--attn .*none: at the bottom only' && ok || bad "--help does not say --attn none"
$images train --data "$data" $net --steps 1 --out "$tmp/share" >"$tmp/stdout" 2>&1
grep -q -- '--teacher-steps 4 ' "$tmp/stdout" && ok || bad "the teacher of one step: $(head -n 1 "$tmp/stdout")"

# A signal: the step in hand is finished, all is saved, it is said how to go on, and the status is neither success nor failure.
heard=; env --default-signal=HUP,TERM true 2>/dev/null && heard="env --default-signal=HUP,TERM"      # nohup has HUP ignored
begin_run() { # begin_run FOLDER FLAGS...: a run without end, in the background ($pid), that has saved its state at least once
    folder=$1; shift
    $heard $images train $net --teacher none --steps 100000 --sheet-seconds 0.1 "$@" --out "$folder" --quiet >"$tmp/signal.out" 2>&1 & pid=$!
    n=0; while [ ! -s "$folder/checkpoint.safetensors" ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
}
for signal in TERM HUP; do
    [ "$heard" ] || { skip "env cannot set signals here: SIG$signal"; continue; }
    begin_run "$tmp/stop it's $signal" --data "$data"
    kill -$signal $pid; wait $pid; got=$?
    [ $got = 3 ] && [ "$(wc -l <"$tmp/signal.out")" = 1 ] && grep -qF "saved; to go on: build/images train --resume --out '$tmp/stop it'\''s $signal'" "$tmp/signal.out" && ok ||
        bad "SIG$signal: exit status $got: $(head -c 300 "$tmp/signal.out")"
done

# A set that becomes shorter while it is read: one line, and the last state is there to go on from. The same for a set of its end.
cp "$tmp/x.npy" "$tmp/shrinks.npy"
begin_run "$tmp/shrunk" --data "$tmp/shrinks.npy,$tmp/y.idx"
head -c 3000 "$tmp/x.npy" >"$tmp/shrinks.npy"; wait $pid; got=$?
[ $got = 1 ] && [ "$(wc -l <"$tmp/signal.out")" = 1 ] && grep -qF "$tmp/shrinks.npy: its 7808 bytes can no longer be read" "$tmp/signal.out" && ok ||
    bad "a set that shrinks: exit status $got: $(head -c 300 "$tmp/signal.out")"
refuses "resume without the end of the set" 1 "expected 7680 as the shape says; if the data have moved, --data says where to" $images train --resume --out "$tmp/shrunk"
runs "resume, the set whole again" $images train --resume --data "$data" --stop-at 1 --out "$tmp/shrunk" --quiet

# kill -9 while a checkpoint is being written: the one before is whole, and the resumed run ends as if nothing had happened.
often="--teacher none --steps 300 --seed 3 --quiet --sheet-seconds 0.1"
runs "train, not killed" $images train --data "$data" $net $often --out "$tmp/alive"
$images train --data "$data" $net $often --out "$tmp/killed" >"$tmp/killed.out" 2>&1 & pid=$!
half=0
for k in 1 2; do
    while [ ! -e "$tmp/killed/checkpoint.safetensors" ] && kill -0 $pid 2>/dev/null; do :; done
    while [ ! -e "$tmp/killed/checkpoint.safetensors.tmp" ] && kill -0 $pid 2>/dev/null; do :; done
    kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null
    [ -e "$tmp/killed/checkpoint.safetensors.tmp" ] && half=1
    [ $k = 2 ] && break
    rm -f "$tmp/killed/checkpoint.safetensors.tmp"
    $images train --resume --out "$tmp/killed" --quiet --sheet-seconds 0.1 >"$tmp/killed.out" 2>&1 & pid=$!
done
[ $half = 1 ] && ok || skip "no kill -9 came while a checkpoint was half written"
absent "$tmp/killed/model.safetensors"
runs "killed, resumed" $images train --resume --out "$tmp/killed" --quiet
same "killed, and never" "$tmp/alive/model.safetensors" "$tmp/killed/model.safetensors"

# A teacher from a file; the adversary.
runs "teacher from a file, gan" $images train --data "$data" $net --teacher "$tmp/whole/teacher.safetensors" --gan hinge --steps 5 --out "$tmp/gan" --quiet
grep -q '^disc_real,' "$tmp/gan/metrics.csv" && ok || bad "metrics.csv of --gan has no disc_real"
runs "gan, stopped" $images train --data "$data" $net --teacher "$tmp/whole/teacher.safetensors" --gan hinge --steps 5 --out "$tmp/gan2" --quiet --stop-at 4
runs "gan, resumed" $images train --resume --out "$tmp/gan2" --quiet
same "with an adversary, uninterrupted and resumed" "$tmp/gan/model.safetensors" "$tmp/gan2/model.safetensors"

# The perceptual distance, from weights as the tests have them: VGG16 with a few channels and random numbers.
vgg=tests/golden/lpips_weights.safetensors
cp $vgg "$tmp/lpips.safetensors"
taught="--data $data $net --teacher $tmp/whole/teacher.safetensors --steps 3 --seed 3 --quiet"
lpips="$taught --lpips $tmp/lpips.safetensors"
runs "pixels" $images train $taught --out "$tmp/pixels"
runs "lpips" $images train $lpips --out "$tmp/lpips" --threads 1
differ "lpips and pixels" "$tmp/lpips/model.safetensors" "$tmp/pixels/model.safetensors"
runs "lpips, stopped" $images train $lpips --out "$tmp/lpips2" --threads 2 --stop-at 2
runs "lpips, resumed" $images train --resume --out "$tmp/lpips2" --quiet
same "lpips, uninterrupted and resumed" "$tmp/lpips/model.safetensors" "$tmp/lpips2/model.safetensors"
runs "lpips, stopped again" $images train $lpips --out "$tmp/lpips3" --stop-at 2
{ head -c 35200 $vgg; bytes '\000\000\000\077'; } >"$tmp/lpips.safetensors"
refuses "resume with other weights of lpips" 1 "the file of --lpips" $images train --resume --out "$tmp/lpips3"
refuses "no such recipe" 2 'no recipe "papr"; there are paper, authors, points, images, cd, ct' $images train --data "$data" --recipe papr --out "$tmp/z"
refuses "an exact teacher" 1 "images have none" $images train --data "$data" --teacher exact --out "$tmp/z"
refuses "images of another size" 2 "are those of the data" $images train --data "$data" --size 16 --out "$tmp/z"
runs "the paper's recipe" $images train --data "$data" $net --teacher "$tmp/whole/teacher.safetensors" --recipe paper --steps 2 --out "$tmp/paper" --quiet
grep -aq '"ctm.recipe":"paper"' "$tmp/paper/model.safetensors" && grep -aq '"ctm.optimiser":"1"' "$tmp/paper/model.safetensors" && ok || bad "the recipe is not in the weights"
refuses "no such lpips" 1 "no/such.safetensors" $images train $taught --lpips no/such.safetensors --out "$tmp/z"
refuses "lpips of other names" 1 'has no tensor "features.0.weight"' $images train $taught --lpips "$tmp/whole/model.safetensors" --out "$tmp/z"

# ---- samples: every sampler, every format
w=$tmp/whole/model.safetensors
for how in "gamma --gamma 0.5 --nfe 2" "exact --nfe 2" "cm --nfe 2" "onestep" "heun --nfe 3" "euler --nfe 2" "dpm --nfe 2" "ancestral --nfe 2"; do
    runs "sample by $how" $images sample --weights "$w" --sampler $how --n 2 --out "$tmp/s.png" --quiet
done
for f in png npy npz; do runs "sample as $f" $images sample --weights "$w" --n 3 --out "$tmp/s.$f" --quiet; done
[ "$(head -c 8 "$tmp/s.png" | od -An -tx1 | tr -d ' \n')" = 89504e470d0a1a0a ] && ok || bad "s.png is no PNG"
runs "teacher by heun" $images sample --weights "$tmp/whole/teacher.safetensors" --sampler heun --nfe 3 --n 2 --out "$tmp/t.png" --quiet
refuses "a teacher cannot jump" 1 "cannot jump" $images sample --weights "$tmp/whole/teacher.safetensors" --out "$tmp/z.png"
# The first noise of a seed, as .npy, gives that seed's samples; a stack of one, too.
if python3 -c 'import zlib, zipfile, struct' 2>/dev/null; then
    python3 - "$tmp" <<'PY' && ok || bad "python3 does not read the PNG or the .npz as they should be"
import struct, sys, zipfile, zlib
tmp = sys.argv[1]
def npy(b):
    n = struct.unpack('<H', b[8:10])[0]
    return eval(b[10:10 + n]), b[10 + n:]
head, floats = npy(open(tmp + '/s.npy', 'rb').read())
assert head['shape'] == (3, 3, 8, 8) and head['descr'] == '<f4', head
z = zipfile.ZipFile(tmp + '/s.npz')
assert z.testzip() is None and z.namelist() == ['arr_0.npy']
head, pixels = npy(z.read('arr_0.npy'))
assert head['shape'] == (3, 8, 8, 3) and head['descr'] == '|u1' and len(pixels) == 3*64*3, head
floats = struct.unpack('<%df' % (len(floats)//4), floats)
for n in range(3):
    for p in range(64):
        for c in range(3):
            v = min(max(floats[n*192 + c*64 + p]*127.5 + 127.5, 0), 255)
            assert abs(v - pixels[n*192 + p*3 + c]) < 0.51
b, at, raw, size = open(tmp + '/s.png', 'rb').read(), 8, b'', None
while at < len(b):
    n, kind = struct.unpack('>I4s', b[at:at + 8])
    data = b[at + 8:at + 8 + n]
    assert zlib.crc32(kind + data) == struct.unpack('>I', b[at + 8 + n:at + 12 + n])[0]
    if kind == b'IHDR': size = struct.unpack('>IIBBBBB', data)
    if kind == b'IDAT': raw += data
    at += 12 + n
raw = zlib.decompress(raw)
assert size == (10*9 - 1, 8, 8, 2, 0, 0, 0) and len(raw) == 8*(3*size[0] + 1), size
assert raw[1:1 + 24] == pixels[:24]
PY
else skip "no python3 to read the formats with"; fi

# Noise and labels from files, written with nothing but printf.
{ header '<f4' False '2, 3, 8, 8'; zeros 1536; } >"$tmp/noise.npy"
{ header '<f4' False '1, 2, 3, 8, 8'; zeros 1536; } >"$tmp/stack.npy"
{ header '|u1' False '2,'; bytes '\001\002'; } >"$tmp/label.npy"
runs "noise from a file" $images sample --weights "$w" --noise "$tmp/noise.npy" --class none --out "$tmp/a.npy" --quiet
runs "a stack of noise" $images sample --weights "$w" --noise "$tmp/stack.npy" --class none --out "$tmp/b.npy" --quiet
same "noise and a stack of one" "$tmp/a.npy" "$tmp/b.npy"
runs "labels from a file" $images sample --weights "$w" --noise "$tmp/noise.npy" --labels "$tmp/label.npy" --out "$tmp/c.npy" --quiet
differ "with labels and without" "$tmp/a.npy" "$tmp/c.npy"
{ header '|u1' False '2,'; bytes '\000\001'; } >"$tmp/turn.npy"
runs "classes in turn" $images sample --weights "$w" --noise "$tmp/noise.npy" --out "$tmp/c0.npy" --quiet
runs "the same from a file" $images sample --weights "$w" --noise "$tmp/noise.npy" --labels "$tmp/turn.npy" --out "$tmp/c1.npy" --quiet
same "classes in turn, by themselves and from a file" "$tmp/c0.npy" "$tmp/c1.npy"
runs "one class" $images sample --weights "$w" --noise "$tmp/noise.npy" --class 9 --out "$tmp/c2.npy" --quiet
differ "one class and classes in turn" "$tmp/c0.npy" "$tmp/c2.npy"
for k in 10 -1 shoe 1.5; do
    refuses "class $k" 1 "flag --class: found \"$k\", expected none or one of 0 to 9" $images sample --weights "$w" --n 2 --class=$k --out "$tmp/z.png"
done
refuses "class and labels" 2 "give one of them" $images sample --weights "$w" --class 1 --labels "$tmp/turn.npy" --out "$tmp/z.png"
refuses "too little noise" 1 "expected 3" $images sample --weights "$w" --noise "$tmp/stack.npy" --sampler cm --nfe 3 --out "$tmp/z.png"
{ header '<f8' False '2, 3, 8, 8'; zeros 3072; } >"$tmp/f8.npy"
refuses "noise of another type" 1 "<f8" $images sample --weights "$w" --noise "$tmp/f8.npy" --out "$tmp/z.png"
{ header '<f4' True '2, 3, 8, 8'; zeros 1536; } >"$tmp/order.npy"
refuses "noise in another order" 1 "fortran_order" $images sample --weights "$w" --noise "$tmp/order.npy" --out "$tmp/z.png"
{ header '<f4' False '2, 8, 8, 3'; zeros 1536; } >"$tmp/nhwc.npy"
refuses "noise of another shape" 1 "expected [n,3,8,8]" $images sample --weights "$w" --noise "$tmp/nhwc.npy" --out "$tmp/z.png"
head -c 1000 "$tmp/noise.npy" >"$tmp/short.npy"
refuses "noise cut off" 1 "expected 1536" $images sample --weights "$w" --noise "$tmp/short.npy" --out "$tmp/z.png"
{ header '|u1' False '2,'; bytes '\001\012'; } >"$tmp/bad.npy"
refuses "labels out of range" 1 "label 1 is out of range" $images sample --weights "$w" --noise "$tmp/noise.npy" --labels "$tmp/bad.npy" --out "$tmp/z.png"
{ header '|u1' False '3,'; bytes '\001\002\003'; } >"$tmp/three.npy"
refuses "too many labels" 1 "expected 2" $images sample --weights "$w" --noise "$tmp/noise.npy" --labels "$tmp/three.npy" --out "$tmp/z.png"

# ---- other sets: several files, idx with labels, through a pipe, .npy
runs "two batches" $images train --data "$set,$tmp/again.bin" --config tiny --batch 2 --teacher none --steps 1 --out "$tmp/both" --quiet
grep -q '"ctm.size":"32"' "$tmp/both/model.safetensors" && ok || bad "the size of the images is not in the weights"
{ bytes '\000\000\010\003\000\000\000\014\000\000\000\010\000\000\000\010'; head -c 768 "$set"; } >"$tmp/i.idx"
{ bytes '\000\000\010\001\000\000\000\014\000\001\002\000\001\002\000\001\002\000\001\002'; } >"$tmp/l.idx"
small="--model-channels 4 --channel-mult 1,1 --num-blocks 1 --attn none --batch 2 --shards 1 --teacher none --steps 1 --quiet"
runs "idx with labels" $images train --data "$tmp/i.idx,$tmp/l.idx" $small --classes 3 --out "$tmp/idx"
if [ -e /dev/stdin ]; then
    gzip -c "$tmp/i.idx" >"$tmp/i.gz" && gunzip -c "$tmp/i.gz" | $images train --data /dev/stdin $small --out "$tmp/pipe" >"$tmp/stdout" 2>"$tmp/stderr" && ok || bad "idx through a pipe: $(cat "$tmp/stderr")"
    refuses "compressed" 1 "gunzip" $images train --data "$tmp/i.gz" $small --out "$tmp/z"
else skip "no /dev/stdin"; fi
{ header '|u1' False '12, 8, 8, 1'; head -c 768 "$set"; } >"$tmp/i.npy"
runs "a set as .npy" $images train --data "$tmp/i.npy" $small --out "$tmp/npy"
runs "lpips of grey images" $images train --data "$tmp/i.npy" $small --lpips $vgg --out "$tmp/grey"
{ header '|u1' False '12, 8, 8, 2'; head -c 1536 "$set"; } >"$tmp/two.npy"
refuses "lpips of two channels" 1 "have 2 channels" $images train --data "$tmp/two.npy" $small --lpips $vgg --out "$tmp/z"
{ header '|u1' False '2, 264, 264, 1'; zeros 139392; } >"$tmp/large.npy"
refuses "lpips of 264 pixels" 1 "multiple of 16, but the data are 264 x 264" $images train --data "$tmp/large.npy" $small --lpips $vgg --out "$tmp/z"
head -c 700 "$tmp/i.npy" >"$tmp/cut.npy"
refuses "a set cut off" 1 "expected 768" $images train --data "$tmp/cut.npy" $small --out "$tmp/z"
head -c 5000 "$set" >"$tmp/cut.bin"
refuses "a batch cut off" 1 "records of 3073 bytes" $images train --data "$tmp/cut.bin" $small --out "$tmp/z"
{ bytes '\013'; tail -c +2 "$set"; } >"$tmp/eleven.bin"
refuses "a label above 9" 1 "record 0 has label 11" $images train --data "$tmp/eleven.bin" $small --out "$tmp/z"
{ bytes '\000\000\010\001\000\000\000\050'; for i in 0 1 2 3 4 5 6 7; do bytes '\001\002\012\011\004'; done; } >"$tmp/bad.idx"
refuses "a label above --classes" 1 "out of range" $images train --data "$tmp/i.idx,$tmp/l.idx" $small --classes 2 --out "$tmp/z"
head -c 500 "$tmp/i.idx" >"$tmp/cut.idx"
refuses "idx cut off" 1 "expected 12 images" $images train --data "$tmp/cut.idx" $small --out "$tmp/z"
set_of() { { header "$2" "$3" "$4"; zeros "$5"; } >"$tmp/$1.npy"; }
refuses_set() { refuses "$1" 1 "$2" $images train --data "$3" $small --out "$tmp/z"; }
set_of f8 '<f8' False '2, 8, 8, 3' 3072;    refuses_set "a set of doubles" "found dtype '<f8'" "$tmp/f8.npy"
set_of order '|u1' True '4, 8, 8, 3' 768;   refuses_set "a set in another order" "numpy.ascontiguousarray" "$tmp/order.npy"
set_of flat '|u1' False '4, 192' 768;       refuses_set "a set of rows" "found 2 dimensions" "$tmp/flat.npy"
set_of chw '|u1' False '4, 3, 8, 8' 768;    refuses_set "bytes with channels first" "found images of 3 x 8 in uint8 [n,h,w,c]" "$tmp/chw.npy"
set_of hwc '<f4' False '4, 8, 8, 3' 3072;   refuses_set "floats with channels last" "found images of 8 x 3 in float32 [n,c,h,w]" "$tmp/hwc.npy"
set_of none '|u1' False '0, 8, 8, 3' 0;     refuses_set "a set of nothing" "holds no images" "$tmp/none.npy"
for v in '\000\000\177\103 255' '\000\000\300\177 nan'; do
    { header '<f4' False '2, 3, 8, 8'; zeros 1000; bytes "${v% *}"; zeros 532; } >"$tmp/far.npy"
    refuses_set "a float of ${v#* }" "image 1 holds the number ${v#* }" "$tmp/far.npy"
done
: >"$tmp/empty.bin"; refuses_set "an empty file" "found 0 bytes" "$tmp/empty.bin"
echo '<html>404 not found</html>' >"$tmp/page.bin"; refuses_set "a page of the web" "expected records of 3073 bytes" "$tmp/page.bin"
mkdir "$tmp/folder"; refuses_set "a folder without data" "neither data_batch_1.bin" "$tmp/folder"
refuses_set "labels alone" "holds labels only" "$tmp/l.idx"
{ bytes '\000\000\010\001\000\000\000\013'; zeros 11; } >"$tmp/l11.idx"; refuses_set "a label too few" "found 11 labels for 12 images" "$tmp/i.idx,$tmp/l11.idx"
refuses_set "a folder that is not there" "cannot read $tmp/nowhere/" "$tmp/nowhere/"
set_of odd '|u1' False '4, 9, 9, 3' 972;    refuses "an odd size" 2 "size 9 cannot be halved" $images train --data "$tmp/odd.npy" $small --out "$tmp/z"
refuses "sets of two sizes" 1 "as in" $images train --data "$set,$tmp/i.idx" $small --out "$tmp/z"
refuses "no such file" 1 "cannot read" $images train --data "$tmp/none.bin" $small --out "$tmp/z"
refuses "no data" 2 "--data" $images train --out "$tmp/z"
refuses "patches that do not divide the images" 2 "patches of 3 x 3 pixels" $images train --data "$tmp/i.idx" --patch 3 --out "$tmp/no"
refuses "a network that does not fit" 2 "halved" $images train --data "$tmp/i.idx" --channel-mult 1,1,1,1,1 --attn none --out "$tmp/z"
refuses "attention at no level" 2 "attention at resolution 5" $images train --data "$set" --attn 5 --out "$tmp/z"
refuses "seconds and steps" 2 "--seconds" $images train --data "$set" --steps 5 --seconds 5 --out "$tmp/z"
refuses "a teacher of other images" 1 "is a teacher of images of 8 x 8" $images train --data "$tmp/i.idx" $small --teacher "$tmp/whole/teacher.safetensors" --out "$tmp/z"

# Labels of few images; a name between commas that is none; a folder and a file with a comma in the name.
{ bytes '\000\000\010\003\000\000\000\004\000\000\000\010\000\000\000\010'; head -c 256 "$set"; } >"$tmp/four.idx"
{ bytes '\000\000\010\001\000\000\000\004\000\001\001\000'; } >"$tmp/l4.idx"
mkdir "$tmp/a,b"; cp "$tmp/four.idx" "$tmp/a,b/train-images-idx3-ubyte"; cp "$tmp/l4.idx" "$tmp/a,b/train-labels.idx1-ubyte"
runs "a folder with a comma" $images train --data "$tmp/a,b" $small --classes 2 --out "$tmp/comma"
refuses_set "an empty name" "a list of files with an empty name" "$tmp/four.idx,,$tmp/l4.idx"
idx_of() { { bytes "$2"; zeros "$3"; } >"$tmp/$1.idx"; }
idx_of lie '\000\000\010\003\177\377\377\377\000\000\000\010\000\000\000\010' 768; refuses_set "idx of 2^31 images" "found 784 bytes, expected 2147483647 images" "$tmp/lie.idx"
idx_of llie '\000\000\010\001\200\000\000\000' 20;   refuses_set "idx of 2^31 labels" "expected 2147483648 labels" "$tmp/four.idx,$tmp/llie.idx"
idx_of no '\000\000\010\003\000\000\000\000\000\000\000\010\000\000\000\010' 0; refuses_set "idx of nothing" "no.idx: holds no images" "$tmp/no.idx"
idx_of float '\000\000\015\003\000\000\000\003\000\000\000\010\000\000\000\010' 768; refuses_set "idx of floats" "type 0x0d, expected 0x08" "$tmp/float.idx"
idx_of dims '\000\000\010\004\000\000\000\003\000\000\000\010\000\000\000\010\000\000\000\003' 576; refuses_set "idx of four dimensions" "idx of 4 dimensions" "$tmp/dims.idx"
refuses_set "the way from chw to hwc" "x.transpose(0,2,3,1)" "$tmp/chw.npy"
refuses_set "the way from hwc to chw" "x.transpose(0,3,1,2)" "$tmp/hwc.npy"
set_of huge '|u1' False '1099511627776, 1048576, 1048576, 3' 9; refuses_set "a shape beyond all memory" "too large" "$tmp/huge.npy"
bytes '\211PNG\r\n\032\n1234567890' >"$tmp/one.png"; refuses_set "a picture" "is one picture; expected all in one array" "$tmp/one.png"
bytes '\200\003}q\000X12345678901' >"$tmp/one.pkl"; refuses_set "a pickle" "is a pickle" "$tmp/one.pkl"

# .npz: the first array of what `sample` and numpy.savez write; not a compressed one, nor one cut off.
runs "a set as .npz" $images train --data "$tmp/s.npz" $small --out "$tmp/npz"
{ head -c 8 "$tmp/s.npz"; bytes '\010\000'; tail -c +11 "$tmp/s.npz"; } >"$tmp/deflated.npz"
refuses_set "a compressed .npz" "compressed, expected numpy.savez" "$tmp/deflated.npz"
head -c 300 "$tmp/s.npz" >"$tmp/cut.npz"; refuses_set ".npz cut off" "found 133 bytes of values, expected 576" "$tmp/cut.npz"

# Black and white that are other numbers: said, and --range takes them. 0 and 1 in floats, in bytes, and 0 and 255 in bytes: one set.
for k in 1 2 3 4 5 6 7 8; do bytes '\000\000\000\000\000\000\200\077\000\000\000\000\000\000\200\077'; done >"$tmp/row"
for k in 1 2 3 4; do cat "$tmp/row" "$tmp/row"; done >"$tmp/rows"
{ header '<f4' False '4, 1, 8, 8'; cat "$tmp/rows"; } >"$tmp/zero_one.npy"
for k in 1 2 3 4 5 6 7 8; do bytes '\000\001\000\001\000\001\000\001\000\001\000\001\000\001\000\001'; done >"$tmp/row"
{ header '|u1' False '4, 8, 8, 1'; cat "$tmp/row" "$tmp/row"; } >"$tmp/bits.npy"
{ header '|u1' False '4, 8, 8, 1'; cat "$tmp/row" "$tmp/row" | tr '\001' '\377'; } >"$tmp/bytes.npy"
noted() { # noted NAME FRAGMENT DATA FLAGS...: trains, and stderr is one line with FRAGMENT, or nothing if that is empty
    name=$1 part=$2 from=$3; shift 3
    runs "$name" $images train --data "$tmp/$from.npy" $small "$@" --out "$tmp/range"
    if [ -z "$part" ]; then [ ! -s "$tmp/stderr" ]; else [ "$(wc -l <"$tmp/stderr")" = 1 ] && grep -qF -- "$part" "$tmp/stderr"; fi && ok || bad "$name: $(cat "$tmp/stderr")"
    rm -f "$tmp/range/checkpoint.safetensors"
    $images sample --weights "$tmp/range/model.safetensors" --n 2 --out "$tmp/range.npy" --quiet
}
noted "0 and 255 in bytes" '' bytes; mv "$tmp/range.npy" "$tmp/black_white.npy"
noted "0 and 1 in floats" 'numbers lie between 0 and 1, but -1 is taken for black and 1 for white; say otherwise with --range 0,1' zero_one
differ "with --range and without" "$tmp/range.npy" "$tmp/black_white.npy"
noted "0 and 1 in floats, said" '' zero_one --range 0,1; same "--range 0,1 of floats" "$tmp/range.npy" "$tmp/black_white.npy"
noted "0 and 1 in floats, meant" '' zero_one --range -1,1
noted "0 and 1 in bytes" 'brightest byte is 1, but 255 is taken for white; say otherwise with --range 0,1' bits
noted "0 and 1 in bytes, said" '' bits --range 0,1; same "--range 0,1 of bytes" "$tmp/range.npy" "$tmp/black_white.npy"
grep -q '"images.range":"0,1"' "$tmp/range/model.safetensors" && ok || bad "the range of the data is not in the weights"
refuses "no range" 2 'found "0", expected two different numbers' $images train --data "$tmp/bits.npy" $small --range 0 --out "$tmp/z"
refuses "an empty range" 2 'found "1,1.0", expected two different numbers' $images train --data "$tmp/bits.npy" $small --range 1,1.0 --out "$tmp/z"

# ---- weights that are not what they should be
sed 's/"dec.8x8_aux_conv.bias":/"dec.8x8_aux_conv.bias_":/' "$w" >"$tmp/renamed.safetensors"
refuses "weights without their closing brace" 1 "$tmp/renamed.safetensors" $images sample --weights "$tmp/renamed.safetensors" --out "$tmp/z.png"
sed 's/"dec.8x8_aux_conv.bias":/"dec.8x8_aux_conv.biaz":/' "$w" >"$tmp/renamed.safetensors"
refuses "weights with another name" 1 'has no tensor "dec.8x8_aux_conv.bias" (1 missing); tensor "dec.8x8_aux_conv.biaz"' $images sample --weights "$tmp/renamed.safetensors" --out "$tmp/z.png"
sed 's/"ctm.model_channels":"4"/"ctm.model_channels":"8"/' "$w" >"$tmp/wide.safetensors"
refuses "a configuration that does not fit" 1 "$tmp/wide.safetensors" $images sample --weights "$tmp/wide.safetensors" --out "$tmp/z.png"
head -c 9000 "$w" >"$tmp/cut.safetensors"
refuses "weights cut off" 1 "$tmp/cut.safetensors" $images sample --weights "$tmp/cut.safetensors" --out "$tmp/z.png"
sed 's/"ctm.format":/"xxx.format":/' "$w" >"$tmp/foreign.safetensors"
runs "weights without metadata" $images sample --weights "$tmp/foreign.safetensors" --model-channels 4 --channel-mult 1,1 --num-blocks 1 --attn 4 --classes 10 --size 8 \
    --n 3 --out "$tmp/foreign.npy" --quiet
same "with and without metadata" "$tmp/foreign.npy" "$tmp/s.npy"
refuses "weights without metadata, other flags" 1 "missing" $images sample --weights "$tmp/foreign.safetensors" --out "$tmp/z.png"
build/points train --data ring --steps 2 --plain --noises 1000 --out "$tmp/points" --quiet >/dev/null 2>&1
refuses "a model of points" 1 "is a model of points" $images sample --weights "$tmp/points/model.safetensors" --out "$tmp/z.png"
refuses "a checkpoint as weights" 1 "holds a checkpoint" $images sample --weights "$tmp/whole/checkpoint.safetensors" --out "$tmp/z.png"
refuses "a checkpoint of points as weights" 1 "holds a checkpoint" $images sample --weights "$tmp/points/checkpoint.safetensors" --out "$tmp/z.png"
refuses "a teacher of points" 1 "is a model of points" $images train --data "$tmp/i.idx" $small --teacher "$tmp/points/model.safetensors" --out "$tmp/z"
refuses "eval of a model of points" 1 "is a model of points" $images eval --weights "$tmp/points/model.safetensors" --data "$data" --out "$tmp/z"
refuses "points of a model of images" 1 "is a model of images of 8 x 8" build/points sample --weights "$w" --out "$tmp/z.csv"
refuses "densities of a model of images" 1 "is a model of images of 8 x 8" build/points loglik --weights "$w" --data "$tmp/points/samples.csv" --out "$tmp/z.csv"
absent "$tmp/z.csv"
refuses "a checkpoint of points" 1 "is not a checkpoint of" $images train --resume --out "$tmp/points"
refuses "no weights" 2 "--weights" $images sample --out "$tmp/z.png"
refuses "an even number for Heun" 2 "odd" $images sample --weights "$w" --sampler heun --nfe 4 --out "$tmp/z.png"
refuses "more images than a picture holds" 1 "is too large, expected fewer images" $images sample --weights "$w" --n 1e7 --out "$tmp/z.png"
refuses "a picture nowhere" 1 "cannot write $tmp/no/z.png" $images sample --weights "$w" --n 1e6 --out "$tmp/no/z.png"
if [ -e /dev/full ]; then
    ln -s /dev/full "$tmp/full.npy"
    refuses "samples to a full device" 1 "cannot write" $images sample --weights "$w" --n 1 --out "$tmp/full.npy" --quiet
else skip "no /dev/full"; fi
refuses "a file of another kind" 2 ".png, .npy or .npz" $images sample --weights "$w" --out "$tmp/z.jpg"
absent "$tmp/z.png" "$tmp/z"

# ---- eval and info
runs "eval" $images eval --weights "$w" --data "$data" --teacher "$tmp/whole/teacher.safetensors" --n 4 --likelihood 1 --out "$tmp/eval" --quiet
grep -q 'the end of the set' "$tmp/stdout" && ok || bad "eval does not know its own training set"
grep -Eq '(^|[^0-9.])1 (images|jumps|steps)' "$tmp/stdout" && bad "eval: $(grep -E '(^|[^0-9.])1 (images|jumps|steps)' "$tmp/stdout")" || ok
for name in dsm_held_out jump_rms_0_to_17 bits_ode bits_elbo frechet_random_training frechet_random_1steps frechet_random_16steps_gamma1 precision_random_1steps recall_random_1steps frechet_random_teacher35 \
    nearest_rms nearest_rms_held_out; do
    grep -Eq "^$name,-?[0-9.]+(e[-+]?[0-9]+)?$" "$tmp/eval/eval.csv" && ok || bad "eval.csv has no number for $name"
done
exists "$tmp/eval/nearest.png" "$tmp/eval/eval.svg"
grep -q '^recognised' "$tmp/eval/eval.csv" && bad "eval speaks of classes without a network that knows them" || ok
grep -q 'is told every image' "$tmp/stdout" && ok || bad "eval does not tell a model of classes the labels"
# Labels are used, all figures finite; data without labels will do, labels that the model does not know will not.
labelled() { { bytes '\000\000\010\001\000\000\000\050'; for i in 0 1 2 3 4 5 6 7 8 9; do bytes "\\00$1\\00$1\\00$1\\00$1"; done; } >"$tmp/y$1.idx"; }
labelled 3; labelled 7
ask="--weights $w --teacher $tmp/whole/teacher.safetensors --n 4 --likelihood 1 --quiet"
for k in 3 7; do runs "eval with label $k" $images eval $ask --data "$tmp/x.npy,$tmp/y$k.idx" --out "$tmp/eval$k"; done
runs "eval without labels" $images eval $ask --data "$tmp/x.npy" --out "$tmp/eval0"
grep -q 'has no labels' "$tmp/stdout" && ok || bad "eval does not say that it knows no labels"
for name in dsm_held_out jump_rms_0_to_5 bits_ode bits_elbo frechet_random_1steps; do
    n=$(cat "$tmp/eval3/eval.csv" "$tmp/eval7/eval.csv" "$tmp/eval0/eval.csv" | grep "^$name,-*[0-9]" | sort -u | wc -l)
    [ "$n" = 3 ] && ok || bad "labels 3, 7 and none give $n different values of $name, expected 3"
done
refuses "eval with a label of no class" 1 "out of range: 10 classes take 0 to 9" $images eval $ask --data "$tmp/x.npy,$tmp/bad.idx" --out "$tmp/z"
# A user's network of features.
runs "a model of 32 x 32" $images train --data "$set" $small --out "$tmp/large"
large="--weights $tmp/large/model.safetensors --data $set --n 4 --likelihood 0 --quiet"
runs "eval on features" $images eval $large --features $vgg --out "$tmp/features"
grep -q "quality by features of $vgg" "$tmp/stdout" && grep -Eq '^frechet_user_1steps,[0-9.]+' "$tmp/features/eval.csv" && ok || bad "no Frechet distance on a user's features"
refuses "features of no network" 1 'has no tensor "0.weight" or "features.0.weight"' $images eval $large --features "$w" --out "$tmp/z"
refuses "no features" 1 "no/such.safetensors" $images eval $large --features no/such.safetensors --out "$tmp/z"
refuses "features too deep" 1 "halves images of 1 x 1 pixels" $images eval $ask --data "$data" --features $vgg --out "$tmp/z"
refuses "features of other images" 1 '"features.0.weight" must be a convolution' $images eval --weights "$tmp/grey/model.safetensors" --data "$tmp/i.npy" --features $vgg --out "$tmp/z"
# A classifier of drawn pictures, and what eval says with its help; its head must fit.
judge=examples/demo/judge.safetensors
grey=$tmp/grey.idx,$tmp/y.idx
{ bytes '\000\000\010\003\000\000\000\050\000\000\000\034\000\000\000\034'; head -c 31360 "$set"; } >"$tmp/grey.idx"
# A guided teacher: another student than the plain one's, one command to resume by, bad uses refused.
taught28="--data $grey --patch 2 --model-channels 4 --channel-mult 1,1 --num-blocks 1 --attn none --batch 2 --shards 1 --teacher-steps 2 --steps 4 --quiet"
runs "guidance" $images train $taught28 --classes 10 --guidance 2 --out "$tmp/guided"
runs "guidance 1" $images train $taught28 --classes 10 --guidance 1 --out "$tmp/plain1"
runs "no guidance" $images train $taught28 --classes 10 --out "$tmp/plain"
same "teachers with and without guidance" "$tmp/guided/teacher_loss.csv" "$tmp/plain/teacher_loss.csv"
differ "a guided student and a plain one" "$tmp/guided/model.safetensors" "$tmp/plain/model.safetensors"
same "loss with guidance 1 and without" "$tmp/plain1/loss.csv" "$tmp/plain/loss.csv"
differ "loss with guidance 2 and without" "$tmp/guided/loss.csv" "$tmp/plain/loss.csv"
runs "a guided run, stopped" $images train $taught28 --classes 10 --guidance 2 --stop-at 2 --out "$tmp/guided2"
runs "a guided run, resumed" $images train --resume --out "$tmp/guided2" --quiet
same "a guided run, resumed and whole" "$tmp/guided/loss.csv" "$tmp/guided2/loss.csv"
grep -aq '"ctm.aim":"teacher"' "$tmp/guided/model.safetensors" && ok || bad "a guided student does not aim at its teacher"
runs "eval of a guided model" $images eval --weights "$tmp/guided/model.safetensors" --teacher "$tmp/guided/teacher.safetensors" --data "$grey" --n 4 --likelihood 0 --quiet --out "$tmp/judged"
runs "eval of a guided teacher" $images eval --weights "$tmp/guided/teacher.safetensors" --guidance 2 --data "$grey" --n 4 --likelihood 0 --quiet --out "$tmp/judged2"
same_figure() { [ "$(grep "^$1," "$tmp/judged/eval.csv" | cut -d, -f2)" = "$(grep "^$2," "$tmp/judged2/eval.csv" | cut -d, -f2)" ] && ok || bad "$1 is not $2 of the guided teacher alone"; }
same_figure frechet_random_teacher35 frechet_random_heun35
refuses "guidance without classes" 2 "goes with classes" $images train $taught28 --guidance 2 --out "$tmp/z"
refuses "guidance without a teacher" 2 "goes with a teacher that is a network" $images train --data "$grey" $small --classes 10 --guidance 2 --out "$tmp/z"
runs "a teacher without classes" $images train $taught28 --out "$tmp/unlabelled"
refuses "guidance of a teacher without classes" 1 "is a teacher without classes" $images train --data "$grey" $small --classes 10 --guidance 2 --teacher "$tmp/unlabelled/teacher.safetensors" --out "$tmp/z"
refuses "a class of a model without" 1 "was trained without --classes" $images sample --weights "$tmp/grey/model.safetensors" --class 1 --out "$tmp/z.png"
runs "a grey model of 28 x 28" $images train --data "$grey" $small --classes 10 --out "$tmp/asked"
asked="--weights $tmp/asked/model.safetensors --data $grey --n 4 --likelihood 0 --quiet"
runs "eval with a classifier" $images eval $asked --features $judge --out "$tmp/judged"
for name in frechet_user_4steps recognised_training recognised_1steps recognised_16steps_gamma1; do
    grep -Eq "^$name,[0-9.]+$" "$tmp/judged/eval.csv" && ok || bad "eval with a classifier has no number for $name"
done
runs "judge" $images judge --data "$grey" --epochs 2 --quiet --out "$tmp/judge.safetensors"
grep -Eq '^[0-9.]+ % of 4 test images recognised' "$tmp/stdout" && ok || bad "judge does not say how many it recognises"
runs "judge by one thread" $images judge --data "$grey" --test "$grey" --epochs 2 --threads 1 --quiet --out "$tmp/judge1.safetensors"
same "judge by one thread and by all" "$tmp/judge.safetensors" "$tmp/judge1.safetensors"
runs "eval with one's own classifier" $images eval $asked --features "$tmp/judge.safetensors" --out "$tmp/judged"
refuses "judge without labels" 1 "has no labels of two classes or more" $images judge --data "$tmp/grey.idx" --out "$tmp/z"
refuses "judge without data" 2 "flag --data: is missing" $images judge --out "$tmp/z"
refuses "judge of images of another size" 1 "holds images of 8 x 8 with 3 channels, but --data has 28 x 28 with 1" $images judge --data "$grey" --test "$data" --out "$tmp/z"
runs "half" $images half --weights "$tmp/judge.safetensors" --out "$tmp/judge2.safetensors"
[ "$(wc -c <"$tmp/judge2.safetensors")" -lt "$(($(wc -c <"$tmp/judge.safetensors")*6/10))" ] && ok || bad "half precision is not about half the bytes"
runs "half of a model" $images half --weights "$w" --out "$tmp/w2.safetensors" --quiet
runs "samples of half precision" $images sample --weights "$tmp/w2.safetensors" --n 2 --out "$tmp/w2.npy" --quiet
refuses "half of no file" 1 "no/such.safetensors" $images half --weights no/such.safetensors --out "$tmp/z"
runs "the model that comes with the code" $images eval --weights examples/demo/fashion.safetensors --data "$grey" --n 10 --likelihood 0 --features $judge --quiet --out "$tmp/judged"
awk -F, '$1 == "recognised_1steps" || $1 == "recognised_4steps" { n += $2 >= 0.75 } END { exit n != 2 }' "$tmp/judged/eval.csv" && ok || bad "the model that comes with the code: $(grep recognised "$tmp/judged/eval.csv" | tr '\n' ' ')"
sed 's/"head.bias":/"head.biaz":/' $judge >"$tmp/named.safetensors"
refuses "a head without its bias" 1 'must be those of a classifier' $images eval $asked --features "$tmp/named.safetensors" --out "$tmp/z"
sed 's/"features.2.bias":/"features.2.biaz":/' $vgg >"$tmp/named.safetensors"
refuses "features with another name" 1 '"features.2.biaz"' $images eval $large --features "$tmp/named.safetensors" --out "$tmp/z"
sed 's/"features.5.weight":/"features.6.weight":/' $vgg >"$tmp/named.safetensors"
refuses "features in another order" 1 '"features.6.weight" does not follow' $images eval $large --features "$tmp/named.safetensors" --out "$tmp/z"
absent "$tmp/z"
# ---- images fit: a mixture whose truth is known, a student of it, and its errors
fit="--data $tmp/grey.idx --components 3 --rank 2 --rounds 4"
runs "fit" $images fit $fit --n 60 --samples "$tmp/fit.npy" --out "$tmp/fit.safetensors"
rounds=$(grep -E '^round [1-4]: -?[0-9.]+ bits per dimension' "$tmp/stdout" | sed 's/.*: //; s/ bits.*//' | tr '\n' ' ')
echo "$rounds" | awk 'NF != 4 || $2 > $1 || $3 > $2 + 0.001 || $4 > $3 + 0.001 { exit 1 }' && ok || bad "images fit does not get better from round to round: $rounds"
runs "fit by one thread" $images fit $fit --n 60 --samples "$tmp/fit1.npy" --threads 1 --quiet --out "$tmp/fit1.safetensors"
same "a fit by one thread and by all" "$tmp/fit.safetensors" "$tmp/fit1.safetensors"
same "samples of it by one thread and by all" "$tmp/fit.npy" "$tmp/fit1.npy"
runs "a sheet of its samples" $images fit $fit --n 8 --samples "$tmp/fit.png" --quiet --out "$tmp/fit2.safetensors"
mixed="--patch 2 --model-channels 4 --channel-mult 1,1 --num-blocks 1 --attn none --batch 2 --shards 1 --steps 2 --quiet"
runs "a student of the mixture" $images train --data "$tmp/fit.npy" --range -1,1 $mixed --teacher "$tmp/fit.safetensors" --out "$tmp/mixed"
runs "eval against the truth" $images eval --weights "$tmp/mixed/model.safetensors" --data "$tmp/fit.npy" --range -1,1 --truth "$tmp/fit.safetensors" --n 8 --likelihood 8 --quiet --out "$tmp/truth"
# The likelihood by the ODE needs the denoiser, its gradient and the density, which must agree; the flow must have converged; the model,
# which has learned nothing, must be further from it than the solver.
figure() { sed -n "s/^$1,//p" "$tmp/truth/eval.csv"; }
echo "$(figure truth_bits) $(figure truth_bits_ode) $(figure truth_flow_doubt) $(figure truth_rms_heun18) $(figure truth_rms_1steps) $(figure truth_denoiser_rms)" |
    awk '{ d = $1 - $2; exit !(NF == 6 && d*d < 0.03*0.03 && $3 < 0.01 && $4 < 0.1 && $5 > 0.5 && $6 > 0.1) }' && ok || bad "the truth: $(grep truth "$tmp/truth/eval.csv" | tr '\n' ' ')"
refuses "fit without data" 2 "flag --data: is missing" $images fit --out "$tmp/z"
refuses "fit of too few images" 1 "are too few for 30 components" $images fit --data "$tmp/grey.idx" --components 30 --out "$tmp/z"
refuses "samples of a fit in another format" 2 ".npy or .png" $images fit $fit --samples "$tmp/z.jpg" --out "$tmp/z"
refuses "a mixture of other images" 1 "is a teacher of images of 28 x 28 with 1 channels, but the data are 8 x 8 with 3" $images train --data "$data" $mixed --patch 1 --teacher "$tmp/fit.safetensors" --out "$tmp/z"
refuses "guidance of a mixture" 1 "is a teacher without classes" $images train --data "$grey" $mixed --classes 10 --guidance 2 --teacher "$tmp/fit.safetensors" --out "$tmp/z"
refuses "a truth that is a model" 1 "is no mixture of Gaussians" $images eval --weights "$tmp/mixed/model.safetensors" --data "$tmp/fit.npy" --range -1,1 --truth "$w" --n 2 --likelihood 0 --quiet --out "$tmp/z2"
sed 's/"gaussians.size":"28"/"gaussians.size":"29"/' "$tmp/fit.safetensors" >"$tmp/named.safetensors"
refuses "a mixture of another size than it says" 1 "is no mixture of Gaussians" $images train --data "$tmp/fit.npy" --range -1,1 $mixed --teacher "$tmp/named.safetensors" --out "$tmp/z"
refuses "points of a mixture" 1 "named.safetensors" build/points train --data ring --teacher "$tmp/named.safetensors" --steps 2 --out "$tmp/z"

# ---- make pictures, on a folder of 40 drawn images, gunzipped or not; and its bad inputs
four="train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte"
mkdir "$tmp/zipped" "$tmp/cut"
for name in $four; do
    case $name in *images*) from=$tmp/grey.idx;; *) from=$tmp/y.idx;; esac
    gzip -c "$from" >"$tmp/zipped/$name.gz"
    head -c 30 "$tmp/zipped/$name.gz" >"$tmp/cut/$name.gz"
done
pictures() { PICTURES=$1 TEACHER_STEPS=2 STEPS=1 MORE="--model-channels 4 --channel-mult 1,1 --attn none --batch 2 --shards 1 --quiet" sh apps/pictures.sh "$2"; }
runs "pictures" pictures "$tmp/pictures" "$tmp/zipped"
exists "$tmp/pictures/fashion.safetensors" "$tmp/pictures/samples.png" "$tmp/pictures/eval/eval.svg"
runs "pictures of unpacked files, begun again" pictures "$tmp/pictures" "$tmp/pictures/data"
refuses "pictures of nothing" 1 "apt install dataset-fashion-mnist" pictures "$tmp/z" "$tmp/no-such-folder"
refuses "pictures of a .gz cut off" 1 "train-images-idx3-ubyte.gz cannot be unpacked" pictures "$tmp/cutout" "$tmp/cut"
absent "$tmp/cutout/data/train-images-idx3-ubyte" "$tmp/cutout/data/train-images-idx3-ubyte.part"
rm "$tmp/zipped/t10k-labels-idx1-ubyte.gz"
refuses "pictures without one of the four files" 1 "has no t10k-labels-idx1-ubyte" pictures "$tmp/three" "$tmp/zipped"
runs "info" $images info --weights "$w"
grep -q 'dec.8x8_aux_conv.bias' "$tmp/stdout" && ok || bad "info does not list the parameters"
runs "help" $images --help
[ -z "$(find "$tmp" -name '*.tmp')" ] && ok || bad "temporary files were left: $(find "$tmp" -name '*.tmp')"
echo "images: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
