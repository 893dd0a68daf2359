#!/bin/sh
# Runs a notebook from top to bottom and keeps its outputs in it, without the traces that a run leaves (times, versions).
# usage: sh notebook/run.sh IN.ipynb [OUT.ipynb]        PYTHON picks the interpreter that has Jupyter
python=${PYTHON:-python3}
test -x /usr/bin/python3 && ! $python -c 'import nbconvert, ipykernel' 2>/dev/null && python=/usr/bin/python3
$python -c 'import nbconvert, ipykernel' 2>/dev/null || { echo "run.sh: python3 has no nbconvert and ipykernel: install Jupyter" >&2; exit 1; }
PYDEVD_DISABLE_FILE_VALIDATION=1 exec $python -Xfrozen_modules=off - "$1" "${2:-$1}" <<'PYTHON'
import os, sys
import nbformat
from nbconvert.preprocessors import CellExecutionError, ExecutePreprocessor
source, target = sys.argv[1:3]
book = nbformat.read(source, as_version=4)
try:
    ExecutePreprocessor(timeout=180, kernel_name='python3').preprocess(book, {'metadata': {'path': os.path.dirname(os.path.abspath(source))}})
except CellExecutionError as error:
    sys.exit('run.sh: %s' % error)
for number, cell in enumerate(book.cells):
    cell.metadata, cell['id'] = {}, 'cell-%02d' % number
book.metadata = {'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'}, 'language_info': {'name': 'python'}}
book.nbformat, book.nbformat_minor = 4, 5
nbformat.validate(book)
nbformat.write(book, target + '.tmp')
os.replace(target + '.tmp', target)
PYTHON
