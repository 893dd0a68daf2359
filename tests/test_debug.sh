#!/bin/sh
# The guided tour of one training step (debug/), in gdb and in lldb, driven without a human. Skipped, and counted as skipped, where
# the debugger is missing or may not trace a program.
# usage: sh tests/test_debug.sh
cd "$(dirname "$0")/.." || exit 1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
passed=0
failed=0
skipped=0
check() {                               # check NAME COMMAND...: counts, and shows what the command said if it failed
    name=$1; shift
    if "$@" >"$dir/said" 2>&1; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL debug: $name"; sed 's/^/     /' "$dir/said"; fi
}
skip() { skipped=$((skipped + 1)); echo "skipped: $*"; }

check "the tour's program builds" ${CC:-cc} -O0 -g3 -Wall -Wextra -pedantic -DCTM_NO_OPENMP debug/tour.c -o "$dir/tour" -lm
cp "$dir/said" "$dir/warnings"
check "it builds without a warning" test ! -s "$dir/warnings"
check "it runs without a debugger" sh -c '"$1/tour" >"$1/alone"' sh "$dir"

# What both debuggers are asked to do at the fifth stop (the loss is there) and at the sixth (its gradients are).
fifth="ctm tape
ctm plot x_est x_target $dir/points.svg
ctm nonfinite
ctm show nobody"
sixth="ctm show x_est
ctm show L_ctm"
looks_right() {                         # looks_right WHO FILE: the checks that both transcripts must pass
    for n in 1 2 3 4 5 6 7 8 9 10 11; do check "$1: stop $n is reached" grep -q "stop $n of 11:" "$2"; done
    check "$1: nothing is left unset at a stop" sh -c '! grep -E "not set yet|= None|<optimized|No symbol" "$1"' sh "$2"
    check "$1: a tensor is shown with its shape" grep -q 'x_est \[64,2\] scatter_rows (#[0-9]*)' "$2"
    check "$1: points are plotted" test "$(grep -c '<circle' "$dir/points.svg")" = 128
    check "$1: nothing of the step is NaN" grep -qE 'all data and gradients of [0-9]+ tensors are finite' "$2"
    check "$1: a name that is not there is one line of error" grep -q 'no tensor "nobody" can be reached from this tape' "$2"
    check "$1: the loss's own gradient is 1" sh -c 'grep -A2 "L_ctm \[\] weighted_mean" "$1" | grep -q "grad  min 1  mean 1  max 1 : 1"' sh "$2"
    check "$1: the step ends as it does alone" grep -qxFf "$dir/alone" "$2"
    rm -f "$dir/points.svg"
}

may_trace_gdb() { gdb -q -nx -batch -ex run "$dir/tour" 2>&1 | grep -q 'exited normally'; }
if command -v gdb >/dev/null 2>&1 && gdb -nx -batch -ex 'python print(1)' >/dev/null 2>&1 && may_trace_gdb; then
    { cat debug/tour.gdb
      printf 'continue\ncontinue\ncontinue\ncontinue\ncontinue\np *x_est\n%s\n' "$(echo "$fifth" | sed '$d')"
      printf 'set var x_est->data[3] = 0.0/0.0\nctm nonfinite\nset var x_est->data[3] = 0.5\n'
      printf 'continue\n%s\n' "$sixth"
      printf 'continue\ncontinue\ncontinue\ncontinue\ncontinue\ncontinue\ncontinue\n'
    } >"$dir/script"
    gdb -q -nx -batch -x "$dir/script" "$dir/tour" >"$dir/gdb" 2>&1
    gdb -q -nx -batch -x debug/tour.gdb -ex continue -ex 'ctm show nobody' "$dir/tour" >>"$dir/gdb" 2>&1
    gdb -q -nx -batch -x debug/tour.gdb -ex continue -ex continue -ex 'info locals' -ex 'ctm show x_target' -ex 'ctm bogus' -ex 'ctm plot x_u' \
        -ex 'ctm tape 5' -ex 'ctm tape nobody' -ex 'up' -ex 'info locals' "$dir/tour" >"$dir/odd" 2>&1
    check "gdb: what is not computed yet is NULL among the locals" grep -q '^x_target = NULL' "$dir/odd"
    check "gdb: and is said to be" grep -q 'ctm: x_target is NULL: not computed yet' "$dir/odd"
    check "gdb: a word that is no command" grep -q 'ctm: "bogus" is no command' "$dir/odd"
    check "gdb: a command with too few words" grep -q 'ctm: expected ctm plot NAME... FILE.svg' "$dir/odd"
    check "gdb: an expression that is no tape" grep -q 'ctm: 5 is no tape' "$dir/odd"
    check "gdb: no exception of Python's" sh -c '! grep -E "Python Exception|Traceback|internal-error" "$1"' sh "$dir/odd"
    # The step's own end, alone: the changed entry of x_est must not have moved the line that is compared.
    gdb -q -nx -batch -x debug/tour.gdb -ex continue -ex continue -ex continue -ex continue -ex continue -ex continue -ex continue \
        -ex continue -ex continue -ex continue -ex continue -ex continue -ex continue "$dir/tour" >>"$dir/gdb" 2>&1
    gdb -q -nx -batch -ex 'source debug/ctm_gdb.py' -ex 'ctm stops' -ex run -ex 'p tr->step' -ex kill "$dir/tour" >"$dir/ide" 2>&1
    check "gdb: ctm stops, for an IDE, lets earlier steps pass" grep -q '^\$1 = 400' "$dir/ide"
    looks_right gdb "$dir/gdb"
    check "gdb: the printer shows a structure in words" grep -q '^\$[0-9]* = x_est \[64,2\]' "$dir/gdb"
    check "gdb: a NaN is found, with its place" grep -q 'entry 3 of "x_est" \[64,2\] is nan: scatter_rows' "$dir/gdb"
    # Calling a function of the program: gdb 13 cannot on processors with AMX ("Couldn't write extended state status").
    { cat debug/tour.gdb; printf 'continue\ncontinue\ncontinue\ncontinue\ncontinue\nctm tape\ncall (void)ctm_tape_dump(&sh->tape)\ncall (int)fflush(0)\nkill\n'; } >"$dir/script"
    gdb -q -nx -batch -x "$dir/script" "$dir/tour" >"$dir/dump" 2>&1
    if grep -q "Couldn't write extended state" "$dir/dump"; then skip "ctm tape against ctm_tape_dump (this gdb cannot call functions on this processor)"; else
        grep -E '^ +[0-9]+  [A-Za-z_()]+ .* \[' "$dir/dump" | sort | uniq -c | awk '{ print $1 }' | sort -u >"$dir/counts"
        check "gdb: ctm tape prints what ctm_tape_dump prints" grep -qx 2 "$dir/counts"
        check "gdb: and nothing else" test "$(wc -l <"$dir/counts")" = 1
    fi
else
    skip "the tour in gdb (no gdb with Python that may trace)"
fi

lldb=
limit=; if command -v timeout >/dev/null 2>&1; then limit="timeout 120"; fi     # a debugger that hangs must not hang the tests
for name in lldb lldb-19 lldb-18 lldb-17 lldb-16 lldb-15 lldb-14; do command -v $name >/dev/null 2>&1 && { lldb="$limit $name"; break; }; done
scripts() { [ -n "$lldb" ] && $lldb -b -o 'script print(40 + 2)' 2>/dev/null | grep -qx 42; }
if [ -n "$lldb" ] && ! scripts; then                         # Debian's lldb 14 looks for its own module in a folder that is not there
    for packages in /usr/lib/llvm-*/lib/python3*/dist-packages; do
        PYTHONPATH=$packages; export PYTHONPATH
        scripts && break
        unset PYTHONPATH
    done
fi
if scripts && $lldb -b -o run "$dir/tour" 2>&1 | grep -q 'exited with status = 0'; then
    { printf 'command script import debug/ctm_lldb.py\nctm tour\ncontinue\ncontinue\ncontinue\ncontinue\ncontinue\n%s\ncontinue\n%s\n' \
             "$(echo "$fifth" | sed '$d')" "$sixth"
      printf 'continue\ncontinue\ncontinue\ncontinue\ncontinue\ncontinue\ncontinue\n'
    } >"$dir/script"
    $lldb -b -s "$dir/script" "$dir/tour" >"$dir/lldb" 2>&1
    printf 'command script import debug/ctm_lldb.py\nctm tour\ncontinue\nctm show nobody\nkill\n' >"$dir/script"
    $lldb -b -s "$dir/script" "$dir/tour" >>"$dir/lldb" 2>&1
    $lldb -b -o 'command script import debug/ctm_lldb.py' -o 'ctm stops' -o run -o kill "$dir/tour" >"$dir/ide" 2>&1
    check "lldb: ctm stops, for an IDE, lets earlier steps pass" sh -c 'grep -q "stop 1 of 11" "$1" && ! grep -q Traceback "$1"' sh "$dir/ide"
    tr -d '\r' <"$dir/lldb" >"$dir/lldb.lines"        # the program wrote to a terminal
    looks_right lldb "$dir/lldb.lines"
else
    skip "the tour in lldb (no lldb with Python that may trace)"
fi
# What VS Code is told: files that are there, programs that make builds, tasks that are defined, commands that the debugger knows.
cat >"$dir/vscode.py" <<'PYTHON'
import json, os, re, sys
launch, tasks = (json.load(open('.vscode/%s.json' % name)) for name in ('launch', 'tasks'))
makefile, commands, wrong = open('Makefile').read(), open('debug/ctm_gdb.py').read() + open('debug/ctm_view.py').read(), []
for path in set(re.findall(r'\$\{workspaceFolder\}/([\w./-]+)', json.dumps(launch))):
    if not os.path.exists(path) and not re.search('^%s:' % re.escape(path), makefile, re.M):
        wrong.append('%s is neither there nor built' % path)
for entry in launch['configurations']:
    if entry['preLaunchTask'] not in [task['label'] for task in tasks['tasks']]:
        wrong.append('no task "%s"' % entry['preLaunchTask'])
for word in set(re.findall(r'"ctm (\w+)"', json.dumps(launch))):
    if "'%s'" % word not in commands:
        wrong.append('no command "ctm %s"' % word)
for task in tasks['tasks']:
    for target in re.findall(r'make ([\w/.-]+)', task['command']):
        if not re.search('^%s:' % re.escape(target), makefile, re.M):
            wrong.append('no target %s' % target)
sys.exit('\n'.join(wrong) if wrong else 0)
PYTHON
if command -v python3 >/dev/null 2>&1; then check "VS Code is told what is there" python3 "$dir/vscode.py"; else skip "VS Code's files (no python3)"; fi
echo "debug: $passed passed, $failed failed, $skipped skipped"
test "$failed" = 0
