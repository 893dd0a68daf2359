#!/bin/sh
# WebAssembly with WASI: every program builds without flags of its own, and under node's WASI trains into a folder that it makes itself,
# resumes bit for bit, replaces files and leaves nothing behind. Everything is skipped where clang's wasm32-wasi or node is missing.
# usage: sh tests/test_wasi.sh
cd "$(dirname "$0")/.." || exit 1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0 skipped=0
ok()   { passed=$((passed + 1)); }
bad()  { failed=$((failed + 1)); echo "FAIL wasi: $*"; }
skip() { skipped=$((skipped + $1)); shift; echo "skip wasi: $*"; }
finish() { echo "wasi: $passed passed, $failed failed, $skipped skipped"; [ $failed = 0 ]; exit; }
for c in clang-19 clang-18 clang-17 clang-16 clang-15 clang-14 clang; do command -v $c >/dev/null 2>&1 && clang=$c && break; done
printf '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n' >"$tmp/one.c"
[ "$clang" ] && $clang --target=wasm32-wasi "$tmp/one.c" -o "$tmp/one.wasm" 2>/dev/null || { skip 18 "there is no clang with wasm32-wasi"; finish; }
quiet() { # quiet NAME COMMAND...: must succeed and say nothing
    name=$1; shift
    if "$@" >"$tmp/said" 2>&1 && [ ! -s "$tmp/said" ]; then ok; else bad "$name: $(tail -n 5 "$tmp/said")"; fi
}
wasm="$clang --target=wasm32-wasi -O2 -msimd128 -Wall -Wextra"
quiet "ctm.h" $wasm -DCTM_IMPLEMENTATION -x c -c ctm.h -o "$tmp/ctm.o"
for p in examples/*.c apps/[!m]*.c; do n=$(basename $p .c); quiet $n $wasm -DCTM_LINKED $p "$tmp/ctm.o" -o "$tmp/$n.wasm"; done
command -v node >/dev/null 2>&1 && node --no-warnings -e 'require("node:wasi")' 2>/dev/null || { skip 10 "there is no node with WASI"; finish; }
cat >"$tmp/run.mjs" <<'END'
import { WASI } from 'node:wasi';
import { readFileSync } from 'node:fs';
const [file, ...args] = process.argv.slice(2);
const wasi = new WASI({ version: 'preview1', args: [file, ...args], preopens: { '.': '.' }, returnOnExit: true });
const made = await WebAssembly.instantiate(await WebAssembly.compile(readFileSync(file)), wasi.getImportObject());
process.exitCode = wasi.start(made);
END
cd "$tmp" || exit 1
runs() { # runs NAME PROGRAM ARGUMENTS...: must succeed
    name=$1 program=$2; shift 2
    if timeout 200 node --no-warnings run.mjs $program.wasm "$@" >out.txt 2>err.txt; then ok; else bad "$name: exit status $?: $(head -c 300 err.txt)"; fi
}
same() { if cmp -s "$2" "$3"; then ok; else bad "$1: $2 and $3 differ"; fi; }
train="train --data ring --steps 60 --seed 4 --quiet --plain --noises 1000 --compare-steps 0"
runs "points" points $train --out out/whole
runs "points, stopped" points $train --out out/déjà --stop-at 23
runs "points, resumed" points train --resume --out out/déjà --quiet --plain --noises 1000 --compare-steps 0
same "points, resumed" out/whole/model.safetensors out/déjà/model.safetensors
same "points, resumed" out/whole/loss.csv out/déjà/loss.csv
runs "sample" points sample --weights out/whole/model.safetensors --n 3 --out s.csv
runs "sample into the same file" points sample --weights out/whole/model.safetensors --n 5 --out s.csv
[ "$(wc -l <s.csv)" = 6 ] && ok || bad "s.csv was not replaced"
runs "synth" images synth --n 20 --out set/shapes.bin --quiet
[ -z "$(find . -name '*.tmp' -o -name .lock)" ] && ok || bad "left behind: $(find . -name '*.tmp' -o -name .lock)"
finish
