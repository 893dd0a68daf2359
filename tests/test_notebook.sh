#!/bin/sh
# The notebook: what is stored in it; with "long" also that it runs from top to bottom (half a minute), which is skipped, and counted
# as skipped, without Jupyter.
# usage: sh tests/test_notebook.sh [long]
cd "$(dirname "$0")/.." || exit 1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"; rm -f notebook/broken.$$.ipynb' EXIT
passed=0
failed=0
skipped=0
check() {                               # check NAME COMMAND...: counts, and shows what the command said if it failed
    name=$1; shift
    if "$@" >"$dir/said" 2>&1; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL notebook: $name"; sed 's/^/     /' "$dir/said"; fi
}
skip() { skipped=$((skipped + 1)); echo "skipped: $*"; }
finish() { echo "notebook: $passed passed, $failed failed, $skipped skipped"; test "$failed" = 0; exit; }
fails() { if "$@"; then return 1; else return 0; fi; }
python=python3
test -x /usr/bin/python3 && ! $python -c 'import nbconvert, ipykernel' 2>/dev/null && python=/usr/bin/python3

if ! command -v $python >/dev/null 2>&1; then skip "the notebook (no python3)"; finish; fi
cat >"$dir/look.py" <<'PYTHON'
import json, sys
book = json.load(open(sys.argv[1], encoding='utf-8'))
code = [cell for cell in book['cells'] if cell['cell_type'] == 'code']
outputs = [(number, out) for number, cell in enumerate(code) for out in cell['outputs']]
said = ''.join(''.join(out.get('text', '')) for _, out in outputs)
wrong = []
if len(code) < 10: wrong.append('only %d cells of code' % len(code))
if [cell['execution_count'] for cell in code] != list(range(1, len(code) + 1)): wrong.append('the cells were not run once, in order')
for number, out in outputs:
    if out['output_type'] == 'error' or out.get('name') == 'stderr': wrong.append('cell %d shows an error or a warning' % number)
if sum('image/svg+xml' in out.get('data', {}) for _, out in outputs) < 6: wrong.append('fewer than six figures are kept')
if 'widgets' in book['metadata'] or any('application/vnd.jupyter.widget-view+json' in out.get('data', {}) for _, out in outputs): wrong.append('widgets')
for path in ('/tmp', '/home', '/root', '/usr', '/Users', 'C:\\'):
    if path in said: wrong.append('a path of the machine that ran it: %s' % path)
for word in ('still at the dot', 'error', 'L_ctm'):
    if word not in said: wrong.append('nothing says "%s"' % word)
sys.exit('\n'.join(wrong) or 0)
PYTHON
check "it is below 600 kB" test "$(wc -c <notebook/ctm.ipynb)" -lt 600000
check "its outputs are kept, in order, without errors, widgets or paths" $python "$dir/look.py" notebook/ctm.ipynb

test "$1" = long || finish
if ! $python -c 'import nbconvert, ipykernel' 2>/dev/null; then skip "running the notebook (no Jupyter)"; finish; fi
check "it runs from top to bottom" sh notebook/run.sh notebook/ctm.ipynb "$dir/again.ipynb"
check "and the new outputs are as they should be" $python "$dir/look.py" "$dir/again.ipynb"
broken() { $python -c 'import sys, nbformat as n
book = n.v4.new_notebook(cells=[n.v4.new_code_cell("%load_ext ccell"), n.v4.new_code_cell(sys.argv[2])])
n.write(book, sys.argv[1])' "notebook/broken.$$.ipynb" "$1"; }
broken '%%c
int main(void) { return undeclared; }'
check "a cell that does not compile stops the run" fails sh notebook/run.sh "notebook/broken.$$.ipynb" "$dir/none.ipynb"
broken '%%c
int main(void) { return 3; }'
check "a program that fails stops the run" fails sh notebook/run.sh "notebook/broken.$$.ipynb" "$dir/none.ipynb"
check "neither leaves a notebook" test ! -e "$dir/none.ipynb"
finish
