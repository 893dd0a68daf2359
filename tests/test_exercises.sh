#!/bin/sh
# EXERCISES.md says what the program behind it prints. Only the exercises without training, whose digits are the same everywhere.
# usage: sh tests/test_exercises.sh
cd "$(dirname "$0")/.." || exit 1
passed=0
failed=0
program=build/exercises
test -x $program || { echo "FAIL exercises: $program is missing: make $program"; echo "exercises: 0 passed, 1 failed, 0 skipped"; exit 1; }
for n in 1 2 3 7; do
    section=$(awk -v n="$n" '/^\*\*[0-9]+\./ { on = index($0, "**" n ".") == 1 } /^## / { on = 0 } on' EXERCISES.md)
    printed=$($program $n | sed 's/^exercise [0-9]*: //; s/g(1, t = 1, s = [0-9.]*)//; s/h = 1//; s/: [-0-9]* *$//' | grep -oE '[0-9]+\.[0-9]+')
    test -n "$printed" || { failed=$((failed + 1)); echo "FAIL exercises: exercise $n prints no number"; }
    for number in $printed; do
        short=$(printf '%s' "$number" | sed 's/0*$//')          # 0.2000 may be written 0.2
        if printf '%s' "$section" | grep -qF "$number" || printf '%s' "$section" | grep -qwF "$short"; then passed=$((passed + 1))
        else failed=$((failed + 1)); echo "FAIL exercises: exercise $n prints $number, which EXERCISES.md does not say"; fi
    done
done
for bad in 0 14 x "1 2"; do
    # shellcheck disable=SC2086
    $program $bad >/dev/null 2>&1
    if [ $? = 2 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL exercises: '$bad' is no exercise, but the status is not 2"; fi
done
echo "exercises: $passed passed, $failed failed, 0 skipped"
test "$failed" = 0
