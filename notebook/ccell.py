"""A cell magic that runs C in Jupyter: %load_ext ccell, then cells that begin with

    %%c [NAME]             a program: compiled, linked with the objects made before, run; what it prints and the SVG files it writes are shown
    %%c -c NAME            compiled only, into an object for the programs that follow
    %%c -h NAME.h          written to a file that later cells can include

A compiler error or an exit status that is not 0 raises, so that a run of the whole notebook stops there. All cells share one
temporary folder. CC and CFLAGS are taken from the environment (cc, -O2).
"""
import os
import re
import subprocess
import sys
import tempfile

from IPython.core.magic import register_cell_magic
from IPython.display import SVG, display

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_folder = tempfile.TemporaryDirectory(prefix='ctm-notebook-')
_objects = []


class CellFailed(Exception):
    """Shown without a traceback of this file: the compiler's or the program's own words are above it."""
    def _render_traceback_(self):
        return ['%s' % self]


def _tell(text, stream):
    """Output, without the paths of this machine."""
    text = text.replace(_folder.name + os.sep, '').replace(ROOT + os.sep, '')
    if text:
        print(text, end='' if text.endswith('\n') else '\n', file=stream)


def _run(command, what):
    done = subprocess.run(command, cwd=_folder.name, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _tell(done.stdout, sys.stdout)
    _tell(done.stderr, sys.stderr)
    if done.returncode != 0:
        raise CellFailed('%s (status %d)' % (what, done.returncode))


def _shown_already():
    return {name: os.stat(os.path.join(_folder.name, name)).st_mtime_ns for name in os.listdir(_folder.name) if name.endswith('.svg')}


def c(line, cell):
    words = line.split()
    flag = words.pop(0) if words and words[0] in ('-c', '-h') else ''
    name = words.pop(0) if words else 'cell'
    if words or not re.fullmatch(r'[A-Za-z0-9_]+(\.h)?', name) or (flag == '-h') != name.endswith('.h'):
        raise CellFailed('usage: %%c [NAME] | %%c -c NAME | %%c -h NAME.h')
    path = os.path.join(_folder.name, name if flag == '-h' else name + '.c')
    with open(path, 'w', encoding='utf-8') as f:
        f.write(cell)
    if flag == '-h':
        return
    build = [os.environ.get('CC', 'cc')] + os.environ.get('CFLAGS', '-O2').split() + ['-Wall', '-Wextra', '-I' + ROOT, '-I' + os.path.join(ROOT, 'apps'), name + '.c']
    if flag == '-c':
        _run(build + ['-c', '-o', name + '.o'], 'the cell does not compile')
        if name + '.o' not in _objects:
            _objects.append(name + '.o')
        return
    _run(build + _objects + ['-o', name, '-lm'], 'the cell does not compile')
    before = _shown_already()
    _run([os.path.join('.', name)], 'the program failed')
    for svg, when in sorted(_shown_already().items()):
        if before.get(svg) != when:
            display(SVG(filename=os.path.join(_folder.name, svg)))


def load_ipython_extension(_shell):
    register_cell_magic(c)
