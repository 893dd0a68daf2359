#!/bin/sh
# The program in ctm.h's opening comment is taken out, built as a reader would build it, and must print what the comment says.
# What `make test` does not build (exercises, tour, benchmark) must compile.
# usage: sh tests/test_docs.sh        CC picks the compiler
cd "$(dirname "$0")/.." || exit 1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
passed=0
failed=0
check() {                               # check NAME COMMAND...: counts, and shows what the command said if it failed
    name=$1; shift
    if "$@" >"$dir/said" 2>&1; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL docs: $name"; sed 's/^/     /' "$dir/said"; fi
}
between() {                             # the lines between //BEGIN-$1 and //END-$1, without the comment's indentation
    awk -v a="//BEGIN-$1" -v b="//END-$1" '{ line = $0; gsub(/^[ \t]+|[ \t\r]+$/, "", line) }
        line == b { on = 0 }  on { sub(/^   /, ""); print }  line == a { on = 1; seen++ }  END { exit seen != 1 }' ctm.h
}
check "one program stands between //BEGIN-PROGRAM and //END-PROGRAM" between PROGRAM
between PROGRAM >"$dir/program.c"
between OUTPUT >"$dir/expected"
check "there is a program, and output to compare it with" test -s "$dir/program.c" -a -s "$dir/expected"
check "it builds: cc my.c -lm" ${CC:-cc} -O1 -DCTM_NO_IMAGES -Wall -Wextra -pedantic -I. "$dir/program.c" -o "$dir/program" -lm
cp "$dir/said" "$dir/warnings"
check "it builds without a warning" test ! -s "$dir/warnings"
check "it runs" sh -c '"$1/program" >"$1/printed"' sh "$dir"
check "it prints what the comment says" diff "$dir/expected" "$dir/printed"
lines=$(grep -c . "$dir/program.c")
check "it stays short (now $lines lines, at most 45)" test "$lines" -le 45
# The operation of one's own at the head of chapter 8: in a file without CTM_IMPLEMENTATION, against finite differences.
{ printf '#include "ctm.h"\n#include <stdio.h>\n'
  awk '/^\/\/        static void cube_backward/ { on = 1 } on && /^\/\/ *$/ { exit } on { sub(/^\/\/        /, ""); print }' ctm.h
  printf 'static ctm_tensor *sum(void *user, ctm_tape *tp, ctm_tensor *x) { (void)user; return ctm_weighted_mean(tp, cube(tp, x), NULL, 1); }
int main(void) {
    ctm_ctx ctx; ctm_arena a; ctm_tape tp; ctm_tensor *x;
    ctm_init(&ctx); ctm_arena_init(&a, &ctx, "a"); ctm_tape_init(&tp, &ctx, &a);
    x = ctm_wants_grad(&tp, ctm_vector(&tp, "x", 3)); x->data[0] = -1; x->data[1] = 0.5; x->data[2] = 2;
    printf("%%d\\n", ctm_gradcheck(&tp, sum, NULL, x, 1e-5) < 1e-8 && x->grad[2] == 12);
    return 0;
}\n'
} >"$dir/own.c"
printf '#define CTM_IMPLEMENTATION\n#include "ctm.h"\n' >"$dir/implementation.c"
check "chapter 8's own operation builds in a file of its own" ${CC:-cc} -O0 -DCTM_NO_SIMD -DCTM_NO_IMAGES -DCTM_REAL_DOUBLE -Wall -Wextra -Wno-missing-prototypes -Werror -I. "$dir/own.c" "$dir/implementation.c" -o "$dir/own" -lm
check "and has the right gradient" sh -c 'test "$("$1/own")" = 1' sh "$dir"
# The sampler of one's own at the head of chapter 18: nearer to the exact flow than Euler with twice the steps, that is as many evaluations.
{ printf '#define CTM_IMPLEMENTATION\n#include "ctm.h"\n#include <math.h>\n#include <stdio.h>\n'
  awk '/^\/\/        static ctm_tensor \*step_along/ { on = 1 } on && /^\/\/ *$/ { exit } on { sub(/^\/\/        /, ""); print }' ctm.h
  printf 'static double miss(const ctm_tensor *x, const double *want) { return fabs((double)x->data[0] - want[0]) + fabs((double)x->data[1] - want[1]); }
int main(void) {
    static const double mean[4] = {-0.5, -0.5, 0.5, 0.5}, noise[2] = {30, -20};
    ctm_ctx ctx; ctm_arena a; ctm_tape tp; ctm_tensor *x; ctm_noise few = ctm_noise_default(), many = few; double want[2], ts[15], tm[29]; int i;
    ctm_init(&ctx); ctm_arena_init(&a, &ctx, "a"); ctm_tape_init(&tp, &ctx, &a); tp.recording = 0;
    ctm_denoiser *D = ctm_mixture(&a, 2, 2, mean, NULL, 0.3);
    few.N = 15; many.N = 29;
    for (i = 0; i < 15; i++) ts[i] = ctm_t_of_index(&few, i);
    for (i = 0; i < 29; i++) tm[i] = ctm_t_of_index(&many, i);
    x = ctm_matrix(&tp, "x", 1, 2);
    for (i = 0; i < 2; i++) x->data[i] = (ctm_real)noise[i];
    ctm_exact_flow(&ctx, D, 1, noise, 80, 1, &few.sigma_min, 1e-8, want);
    double own = miss(sample_midpoint(&tp, D, x, 14, ts), want), euler = miss(ctm_sample_euler(&tp, D, x, 28, tm), want);
    printf("%%d\\n", own < euler && own < 0.05);
    if (!(own < euler && own < 0.05)) fprintf(stderr, "midpoint %%g, Euler %%g\\n", own, euler);
    return 0;
}\n'
} >"$dir/sampler.c"
check "chapter 18's own sampler builds" ${CC:-cc} -O0 -DCTM_NO_SIMD -DCTM_NO_IMAGES -Wall -Wextra -Werror -I. "$dir/sampler.c" -o "$dir/sampler" -lm
check "and is nearer to the exact flow than Euler with as many evaluations" sh -c 'test "$("$1/sampler")" = 1' sh "$dir"
version=$(sed -n 's/^#define CTM_VERSION "\(.*\)"$/\1/p' ctm.h)
numbers=$(for part in MAJOR MINOR PATCH; do sed -n "s/^#define CTM_VERSION_$part //p" ctm.h; done | paste -s -d . -)
check "the version's numbers make its text ($version)" test -n "$version" -a "$version" = "$numbers"
check "the first line of ctm.h has it" sh -c 'head -1 ctm.h | grep -qF " v$1 "' sh "$version"
check "CHANGELOG.md has it" grep -q "^## $version" CHANGELOG.md
check "CITATION.cff has it" grep -qx "version: $version" CITATION.cff
check "the README's citation has it" grep -qF "version = {$version}" README.md
for other in tests/exercises.c debug/tour.c tests/bench.c; do                # built by other targets: they must go with the header
    check "$other compiles without a warning" ${CC:-cc} -fsyntax-only -Wall -Wextra -pedantic -Werror -I. $other
done
if test "$(printf '\303\251\n' | LC_ALL=C.UTF-8 grep -cE '^.$' 2>/dev/null)" = 1; then      # grep counts characters, not bytes
    check "no line of ctm.h is longer than 140 characters" sh -c '! LC_ALL=C.UTF-8 grep -nE "^.{141}" ctm.h'
fi
echo "docs: $passed passed, $failed failed, 0 skipped"
test "$failed" = 0
