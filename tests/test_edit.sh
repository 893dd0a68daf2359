#!/bin/sh
# build/edit from outside: what is known of an image comes out as it went in, the rest does not; and one clear line for bad input. A
# small network with random weights will do: what is known does not depend on how good it is.
# usage: sh tests/test_edit.sh        (after make)
cd "$(dirname "$0")/.." || exit 1
edit=build/edit
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0
ok()  { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "FAIL edit: $*"; }
refuses() {                             # refuses STATUS FRAGMENT ARGUMENTS...: one line on stderr with FRAGMENT, no file
    want=$1 part=$2; shift 2
    $edit "$@" --out "$tmp/none.npy" >"$tmp/stdout" 2>"$tmp/stderr"; got=$?
    if [ $got != "$want" ]; then bad "$*: exit status $got, expected $want: $(head -c 300 "$tmp/stderr")"
    elif [ "$(wc -l <"$tmp/stderr")" != 1 ] || ! grep -qF -e "$part" "$tmp/stderr"; then bad "$*: expected one line with \"$part\": $(head -c 300 "$tmp/stderr")"
    elif [ -e "$tmp/none.npy" ] || [ -e "$tmp/none.npy.tmp" ]; then bad "$*: left a file"
    else ok; fi
}
runs() { if "$@" >"$tmp/stdout" 2>"$tmp/stderr"; then ok; else bad "$*: $(head -c 300 "$tmp/stdout" "$tmp/stderr")"; fi; }

cat >"$tmp/tool.c" <<'END'
#include "apps/args.h"
#define CTM_IMPLEMENTATION
#include "ctm.h"
#define IMAGE_REAL ctm_real
#include "apps/image.h"

static char err[600];
static int bytes_npy(const char *path, int n, int h, int w, const unsigned char *v) {
    char head[128];
    FILE *f = fopen(path, "wb");
    int k = sprintf(head, "{'descr': '|u1', 'fortran_order': False, 'shape': (%d, %d, %d), }", n, h, w);
    if (!f) return 0;
    for (; (k + 11) % 64; k++) head[k] = ' ';
    head[k++] = '\n';
    fwrite("\223NUMPY\001\000", 1, 8, f);
    fputc(k & 255, f); fputc(k >> 8, f);
    fwrite(head, 1, (size_t)k, f);
    fwrite(v, 1, (size_t)(n * h * w), f);
    return fclose(f) == 0;
}
static int model(ctm_arena *a, const char *path, int channels, int with_s, int classes) {
    ctm_config c = ctm_recipe_paper();
    ctm_net *net;
    c.size = 8; c.channels = channels; c.model_channels = 8; c.channel_mult[0] = 1; c.channel_mult[1] = 1; c.channel_mult[2] = 0;
    c.num_blocks = 1; c.attn[0] = 4; c.attn[1] = 0; c.classes = classes;
    net = ctm_unet(a, &c, with_s);
    ctm_net_init(net, 5, 0.3);           // no weight is small, so what is made up is noise of a kind
    for (int p = 0; p < net->count; p++) {
        const char *name = net->param[p]->name;
        if (strstr(name, "norm") && strstr(name, ".weight")) ctm_fill(net->param[p], 1);
    }
    return ctm_save(a, net, &c, path);
}
static int make(ctm_arena *a, const char *folder) {
    ctm_rng rng = ctm_stream(1, "images");
    ctm_config points = ctm_recipe_paper();
    ctm_real x[20 * 192];
    unsigned char mask[20 * 64];
    char p[9][400];
    static const char *const names[9] = {"rgb.safetensors", "grey.safetensors", "teacher.safetensors", "points.safetensors", "rgb.npy", "grey.npy", "mask.npy", "masks.npy", "small.npy"};
    for (int i = 0; i < 9; i++) sprintf(p[i], "%.300s/%s", folder, names[i]);
    for (int i = 0; i < 20 * 192; i++) x[i] = (ctm_real)(0.9 * (2 * ctm_uniform(&rng, 0, (uint64_t)i) - 1));
    for (int i = 0; i < 20 * 64; i++) mask[i] = i % 64 / 8 >= 3 && i % 8 < 3 + i / 64 % 3 ? 0 : (unsigned char)(i % 2 ? 1 : 255);
    points.hidden = 8;
    return model(a, p[0], 3, 1, 4) && model(a, p[1], 1, 1, 0) && model(a, p[2], 3, 0, 0) && ctm_save(a, ctm_mlp(a, &points, 2, 1), &points, p[3]) &&
           image_write_npy(p[4], 20, 8, 3, x, err, sizeof err) && image_write_npy(p[5], 20, 8, 1, x, err, sizeof err) &&
           bytes_npy(p[6], 1, 8, 8, mask) && bytes_npy(p[7], 19, 8, 8, mask) && bytes_npy(p[8], 1, 4, 4, mask);
}
// Largest difference in what is known, and mean square of the rest, as "KNOWN REST"; KIND is mask, masks, box, grey, patch, all.
static int compare(const char *kind, const char *given, const char *got, int first) {
    image_set a, b;
    ctm_real x[192], y[192];
    double most = 0, rest = 0, count = 0;
    if (!image_open(&a, given, err, sizeof err) || !image_open(&b, got, err, sizeof err)) return 0;
    int C = a.channels, dim = 64 * C;
    for (int i = 0; i < (int)b.n; i++) {
        image_get(&a, (size_t)(first + i), 0, x);
        image_get(&b, (size_t)i, 0, y);
        for (int k = 0; k < dim; k++) {
            int row = k / C / 8, column = k / C % 8, known = 0;
            double d = (double)y[k] - (double)x[k];
            if (!ctm_is_finite((double)y[k])) { sprintf(err, "not finite"); return 0; }
            if (strncmp(kind, "mask", 4) == 0) known = !(row >= 3 && column < 3 + (kind[4] ? i % 3 : 0));
            if (strcmp(kind, "box") == 0) known = !(row >= 2 && row < 5 && column >= 4);
            if (strcmp(kind, "all") == 0) known = 1;
            if (strcmp(kind, "grey") == 0 && k % 3 == 0)
                most = fmax(most, fabs(0.2989 * d + 0.5870 * ((double)y[k + 1] - (double)x[k + 1]) + 0.1140 * ((double)y[k + 2] - (double)x[k + 2])));
            if (strcmp(kind, "patch") == 0 && row % 4 == 0 && column % 4 == 0) {
                double sum = 0;
                for (int q = 0; q < 16; q++) sum += (double)y[k + (q / 4 * 8 + q % 4) * C] - (double)x[k + (q / 4 * 8 + q % 4) * C];
                most = fmax(most, fabs(sum / 16));
            }
            if (known) most = fmax(most, fabs(d)); else { rest += d * d; count++; }
        }
    }
    printf("%g %g %d\n", most, count ? rest / count : 0, (int)b.n);
    return 1;
}
int main(int argc, char **argv) {
    ctm_ctx ctx;
    ctm_arena a;
    int good;
    ctm_init(&ctx);
    ctm_arena_init(&a, &ctx, "tool");
    good = argc == 2 ? make(&a, argv[1]) : compare(argv[1], argv[2], argv[3], atoi(argv[4]));
    if (!good) printf("%s %s\n", ctm_error(&ctx), err);
    return !good;
}
END
runs ${CC:-cc} -O0 -w -I. "$tmp/tool.c" -o "$tmp/tool" -lm
runs "$tmp/tool" "$tmp"
w="--weights $tmp/rgb.safetensors" d="--data $tmp/rgb.npy" g="--weights $tmp/grey.safetensors --data $tmp/grey.npy" q="--quiet --threads 1 --nfe 3"

# known KIND SET IMAGES COMMAND...: runs edit; what is known is there to 1e-5, the rest differs by more than 0.01 in mean square
known() {
    kind=$1 set=$2 n=$3; shift 3
    runs $edit "$@" $q --n "$n" --first 1 --out "$tmp/out.npy"
    if "$tmp/tool" "$kind" "$tmp/$set.npy" "$tmp/out.npy" 1 >"$tmp/found" && awk -v n="$n" '{ good = $1 <= 1e-5 && $2 > 0.01 && $3 == n } END { exit !good }' "$tmp/found"; then ok
    else bad "$*: known part, rest, images: $(cat "$tmp/found")"; fi
}
known mask  rgb 18 inpaint $w $d --mask "$tmp/mask.npy"
known masks rgb 19 inpaint $w $d --mask "$tmp/masks.npy"
known box   rgb 3  inpaint $w $d --box 2,4,3,4 --gamma 0.5 --label 2
known mask  grey 2 inpaint $g --mask "$tmp/mask.npy" --gamma 1
known grey  rgb 2  colorize $w $d
known patch rgb 2  superres $w $d --patch 4
known patch grey 2 superres $g --patch 4

# The same bits for any number of threads and any cut; another seed gives something else.
runs $edit inpaint $w $d --box 2,4,3,4 --n 18 --nfe 3 --quiet --threads 1 --out "$tmp/a.npy"
runs $edit inpaint $w $d --box 2,4,3,4 --n 18 --nfe 3 --quiet --threads 3 --out "$tmp/b.npy"
runs cmp "$tmp/a.npy" "$tmp/b.npy"
runs $edit inpaint $w $d --box 2,4,3,4 --n 18 --nfe 3 --quiet --threads 1 --seed 9 --out "$tmp/b.npy"
if cmp -s "$tmp/a.npy" "$tmp/b.npy"; then bad "another seed gives the same"; else ok; fi

# Without --gamma what is made up is made anew at every jump.
runs $edit inpaint $w $d --box 2,4,3,4 --n 18 --nfe 3 --quiet --gamma 1 --out "$tmp/b.npy"
runs cmp "$tmp/a.npy" "$tmp/b.npy"

# Strokes: less noise leaves more of the image. Guidance: closer to the patches' means than without.
distance() { "$tmp/tool" "$1" "$tmp/rgb.npy" "$2" 0 | cut -d' ' -f"$3"; }
for level in 0.05 2; do runs $edit stroke $w $d --level $level $q --n 4 --out "$tmp/stroke$level.npy"; done
near=$(distance all "$tmp/stroke0.05.npy" 1) far=$(distance all "$tmp/stroke2.npy" 1)
if awk "BEGIN { exit !($near > 0 && 2 * $near < $far) }"; then ok; else bad "stroke: level 0.05 misses by $near, level 2 by $far"; fi
for scale in 0 1; do runs $edit guide $w $d --patch 4 --scale $scale $q --nfe 12 --n 4 --out "$tmp/guide$scale.npy"; done
free=$(distance patch "$tmp/guide0.npy" 1) led=$(distance patch "$tmp/guide1.npy" 1)
if awk "BEGIN { exit !($led < 0.6 * $free) }"; then ok; else bad "guide: means miss by $led, without guidance by $free"; fi

# The luminance that colourisation is told is grey: the middle row of its sheet has equal channels, the first has not.
runs $edit colorize $w $d --n 5 $q --out "$tmp/grey.png"
grey() {                                # rows $1 .. $1+7 of the first column; a row of the sheet is a byte and 44 pixels of 3, behind 48 bytes
    od -An -v -tu1 -j48 "$tmp/grey.png" | tr -s ' ' '\n' | grep . | awk -v from="$1" '
        { row = int((NR - 1)/133); at = (NR - 1)%133 }
        row >= from && row < from + 8 && at > 0 && at < 25 { v[at%3] = $1; if (at%3 == 0 && (v[1] != v[2] || v[2] != v[0])) odd = 1 }
        END { exit odd }'
}
if grey 9 && ! grey 0; then ok; else bad "what colourisation is told is not shown as grey"; fi

# A sheet: three rows, columns as many as images; 8 x 8 pixels each and a line between.
runs $edit colorize $w $d --n 5 $q --out "$tmp/sheet.png"
if [ "$(od -An -tu1 -j16 -N8 "$tmp/sheet.png" | tr -s ' ')" = " 0 0 0 44 0 0 0 26" ]; then ok; else bad "sheet.png: its size is $(od -An -tu1 -j16 -N8 "$tmp/sheet.png")"; fi

# Bad input.
refuses 2 "--weights FILE.safetensors is missing" inpaint $d --box 0,0,1,1
refuses 2 "--data FILE is missing" inpaint $w --box 0,0,1,1
refuses 2 "--mask FILE.npy or --box" inpaint $w $d
refuses 2 "--mask FILE.npy or --box" inpaint $w $d --box 0,0,1,1 --mask "$tmp/mask.npy"
refuses 2 "are for inpaint" colorize $w $d --box 0,0,1,1
refuses 2 "inpant" inpant $w $d
refuses 1 "expected four whole numbers" inpaint $w $d --box 1,2,3
refuses 1 "expected four whole numbers" inpaint $w $d --box 1,2,3,4,5
refuses 1 "expected four whole numbers" inpaint $w $d --box 1,2,3,4x
refuses 1 "expected four whole numbers" inpaint $w $d --box 1,2,3,
refuses 1 "expected four whole numbers" inpaint $w $d --box 1,,2,3
refuses 1 "not inside of 8 x 8" inpaint $w $d --box 1,2,8,4
refuses 1 "not inside of 8 x 8" inpaint $w $d --box 4294967296,0,1,1
refuses 1 "not inside of 8 x 8" inpaint $w $d --box 0,0,9223372036854775807,1
refuses 1 "small.npy: holds 1 masks of 4 x 4" inpaint $w $d --mask "$tmp/small.npy"
refuses 1 "masks.npy: holds 19 masks" inpaint $w $d --mask "$tmp/masks.npy" --n 2
refuses 1 "floats" inpaint $w $d --mask "$tmp/grey.npy" --n 2
refuses 1 "no/such.npy" inpaint $w $d --mask no/such.npy
refuses 1 "no/such.safetensors" colorize --weights no/such.safetensors $d
refuses 1 "is a model of points" colorize --weights "$tmp/points.safetensors" $d
refuses 1 "is a teacher" colorize --weights "$tmp/teacher.safetensors" $d
refuses 1 "no/such.npy" colorize $w --data no/such.npy
refuses 1 "colours need 3" colorize $g
refuses 2 "expects two different numbers" colorize $w $d --range 5
refuses 2 "guide needs less" guide $w $d --gamma 1
refuses 1 "takes no --label" superres $g --label 1
head -c 1000 "$tmp/rgb.npy" >"$tmp/cut.npy"
refuses 1 "cut.npy: found" colorize $w --data "$tmp/cut.npy"
sed "s/'<f4'/'<f8'/" "$tmp/rgb.npy" >"$tmp/double.npy"
refuses 1 "found dtype '<f8'" colorize $w --data "$tmp/double.npy"
sed "s/False/True /" "$tmp/rgb.npy" >"$tmp/order.npy"
refuses 1 "numpy.ascontiguousarray" colorize $w --data "$tmp/order.npy"
head -c 5000 "$tmp/rgb.npy" | tail -c 4000 >"$tmp/batch.bin"
refuses 1 "expected records of 3073 bytes" colorize $w --data "$tmp/batch.bin"
head -c 5000 "$tmp/rgb.safetensors" >"$tmp/cut.safetensors"
refuses 1 "cut.safetensors" colorize --weights "$tmp/cut.safetensors" $d
sed 's/"dec.8x8_aux_conv.bias":/"dec.8x8_aux_conv.biaz":/' "$tmp/rgb.safetensors" >"$tmp/named.safetensors"
refuses 1 'tensor "dec.8x8_aux_conv.biaz" has no place' colorize --weights "$tmp/named.safetensors" $d
refuses 1 "holds images of 8 x 8 x 1, but the model needs 8 x 8 x 3" colorize $w --data "$tmp/grey.npy"
refuses 1 "holds 20 images, but number 20 was asked for" colorize $w $d --first 15 --n 6
refuses 1 "--patch 3 does not divide" superres $w $d --patch 3
refuses 1 "is not within the model's" stroke $w $d --level 100
refuses 1 "the model knows 4 classes" colorize $w $d --label 4
$edit colorize $w $d --out "$tmp/x.jpg" >"$tmp/stdout" 2>"$tmp/stderr"; if [ $? = 2 ] && grep -q 'png or .npy' "$tmp/stderr"; then ok; else bad "x.jpg"; fi
$edit colorize $w $d $q --n 1 --out "$tmp/no/x.png" >"$tmp/stdout" 2>"$tmp/stderr"; if [ $? = 1 ] && [ "$(wc -l <"$tmp/stderr")" = 1 ]; then ok; else bad "a folder that is not there"; fi
# Where nothing can be written is said before the work: a million jumps would take an hour.
timeout 20 $edit colorize $w $d --n 20 --nfe 1000 --out "$tmp/no/x.png" >"$tmp/stdout" 2>"$tmp/stderr"; if [ $? = 1 ] && grep -q "cannot write $tmp/no/x.png" "$tmp/stderr"; then ok; else bad "a folder that is not there, found after the work"; fi
$edit colorize $w $d --n 1 --nfe 1 --range=-2,2 --out "$tmp/range.npy" >"$tmp/stdout" 2>"$tmp/stderr"
if grep -q 'range.npy, float32 .*-1 is black and 1 is white' "$tmp/stdout" && [ ! -s "$tmp/stderr" ]; then ok; else bad "samples as .npy: $(cat "$tmp/stdout" "$tmp/stderr")"; fi
echo "edit: $passed passed, $failed failed, 0 skipped"
test "$failed" = 0
