"""gdb: pretty-printers for ctm.h's types, the commands `ctm tape`, `ctm show`, `ctm plot`, `ctm nonfinite`, and the tour (`ctm tour`).

    gdb -x debug/ctm_gdb.py build/tour          (p/r shows a structure as it is)
"""
import array
import os
import re
import sys

import gdb

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import ctm_view  # noqa: E402


def numbers(pointer, count):
    """count values of type ctm_real behind a pointer; None if it is NULL."""
    if int(pointer) == 0:
        return None
    size = pointer.type.target().sizeof
    out = array.array('f' if size == 4 else 'd')
    if count:
        out.frombytes(bytes(gdb.selected_inferior().read_memory(int(pointer), count * size)))
    return list(out)


def tensor_of(value):
    """A gdb value of type ctm_tensor -> Tensor."""
    count, ndim = int(value['len']), int(value['ndim'])
    sources = [int(value['src'][i]) for i in range(value['src'].type.range()[1] + 1)]
    op = value['op'].string() if int(value['op']) else '?'
    return ctm_view.Tensor(int(value.address) if value.address is not None else 0, value['name'].string(), op, int(value['id']),
                           [int(value['shape'][i]) for i in range(ndim)], numbers(value['data'], count) or [],
                           numbers(value['grad'], count), sources, int(value['next']), bool(int(value['wants'])))


def read(address):
    return tensor_of(gdb.Value(address).cast(gdb.lookup_type('ctm_tensor').pointer()).dereference())


def first_of_tape(expression):
    """The first tensor of a tape given as an expression, or of the tape that this function or one of its callers works on."""
    if expression:
        value = gdb.parse_and_eval(expression)
        if value.type.strip_typedefs().code == gdb.TYPE_CODE_PTR:
            value = value.dereference()
        return int(value['first'])
    frame = gdb.selected_frame()
    while frame is not None:
        for name in ('tp', 'sh'):
            try:
                value = frame.read_var(name)
            except ValueError:
                continue
            if value.is_optimized_out or int(value) == 0:
                continue
            target = value.type.strip_typedefs().target().strip_typedefs()
            if target.tag == 'ctm_tape':
                return int(value['first'])
            if target.tag == 'ctm_shard':
                return int(value['tape']['first'])
        frame = frame.older()
    raise ctm_view.Trouble('no tape is in sight here; name one, as in: ctm tape tr->shard[0].tape')


def tensor_expression(expression):
    try:
        value = gdb.parse_and_eval(expression)
    except gdb.error:
        return 0
    kind = value.type.strip_typedefs()
    if kind.code == gdb.TYPE_CODE_PTR and kind.target().strip_typedefs().tag == 'ctm_tensor':
        return int(value)
    if kind.tag == 'ctm_tensor' and value.address is not None:
        return int(value.address)
    return 0


class TensorPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        return ctm_view.tensor_text(tensor_of(self.value))


class TensorPointerPrinter(TensorPrinter):
    def to_string(self):
        if int(self.value) == 0:
            return 'NULL'
        try:
            return ctm_view.tensor_text(tensor_of(self.value.dereference()))
        except (gdb.error, UnicodeDecodeError):
            return '(ctm_tensor *) 0x%x, which is not set yet' % int(self.value)


class TapePrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        return 'a tape of %d recorded results (ctm tape prints them)' % int(self.value['count'])


class NetPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        v = self.value
        return '%s, %d numbers in %d parameters, %s' % (v['kind'].string(), int(v['len']), int(v['count']),
                                                        'with gradient' if int(v['grad']) else 'frozen')


def printer(value):
    kind = value.type.strip_typedefs()
    if kind.code == gdb.TYPE_CODE_PTR:
        return TensorPointerPrinter(value) if kind.target().strip_typedefs().tag == 'ctm_tensor' else None
    return {'ctm_tensor': TensorPrinter, 'ctm_tape': TapePrinter, 'ctm_net': NetPrinter}.get(kind.tag, lambda v: None)(value)


class CtmCommand(gdb.Command):
    __doc__ = ctm_view.HELP + '\nctm tour                     stops at every line of the training algorithm'

    def __init__(self):
        super().__init__('ctm', gdb.COMMAND_USER)

    def invoke(self, argument, from_tty):
        words = gdb.string_to_argv(argument)
        try:
            if words == ['tour']:
                tour()
            else:
                print(ctm_view.command(words, first_of_tape, tensor_expression, read))
        except ctm_view.Trouble as trouble:
            raise gdb.GdbError('ctm: %s' % trouble)


# ---- the tour: (text of the line in ctm.h before which to stop, caption, expressions to show)
# Lines are found by their text, so the tour does not depend on line numbers; each text must occur once.

STOPS = [
    (r'^    theta->label = r.label;', 'data, noise levels t > u >= s, and x_t = x_0 + t·eps  [eq:x_t]', ['r.x0', 'r.t', 'r.u', 'r.s', 'r.x_t']),
    (r'^    inner = cfg->target_inner ==', 'the teacher has walked from t to u  [eq:heun]', ['x_u']),
    (r'^    x_est = ctm_x_est\(tp, theta', 'the target: jump from u to s, then by the average to time zero; no gradient  [eq:x_target]', ['target_s', 'x_target']),
    (r'^    if \(cfg->compare == CTM_AT_ZERO\) \{', 'the estimate: one jump from t to s, then by the average to time zero  [eq:x_est]', ['est_s', 'x_est']),
    (r'^    return ctm_name\(L, "L_ctm"\);', 'their distance, row by row, and its mean  [eq:L_ctm]', ['d', 'L']),
    (r'^    return \(double\)L->data\[0\];', 'the tape has been walked backwards: every result now has its gradient', ['L']),
    (r'^    return ctm_name\(ctm_weighted_mean\(tp, d, w, cfg->diagonal_batch\), "L_dsm"\);', 'the diagonal: g(x_t,t,t) against the denoiser  [eq:L_dsm]', ['t', 'target', 'g', 'd']),
    (r'^        if \(!ctm_is_finite\(tr->L_ctm\)\) return', 'both gradients are summed: total = grad L_CTM + lambda·grad L_DSM  [eq:lambda]', ['tr->L_ctm', 'tr->L_dsm', 'tr->lambda_dsm', 'tr->grad_norm']),
    (r'^    ctm_opt_step\(tr->ctx, &tr->opt, tr->theta->theta, total\);', 'the optimiser is about to move the weights  [eq:radam]', ['tr->lr', 'tr->theta->theta[0]', 'total[0]']),
    (r'^        ctm_ema_step\(tr->ctx, len, tr->ema\[i\]->theta', 'the weights have moved; the average follows  [eq:ema]', ['tr->theta->theta[0]', 'rate', 'tr->ema[i]->theta[0]']),
    (r'^    tr->step\+\+;', 'the step is done  [alg:train]', ['tr->step']),
]


class Stop(gdb.Breakpoint):
    def __init__(self, place, number, caption, expressions):
        super().__init__(place, internal=True)
        self.silent = True
        self.text, self.expressions = '---- stop %d of %d: %s' % (number, len(STOPS), caption), expressions

    def stop(self):
        print('\n' + self.text)
        for expression in self.expressions:
            print('%s = %s' % (expression, gdb.parse_and_eval(expression).format_string()))
        return True


def header_lines():
    """The header's path and text, as the program was built from them."""
    places = gdb.decode_line('ctm_train_step')[1]
    path = places[0].symtab.fullname()
    with open(path, encoding='utf-8') as f:
        return path, f.read().split('\n')


def tour():
    """Runs to the step that tour.c wants to show, and sets the stops."""
    path, lines = header_lines()
    places = []
    for pattern, caption, expressions in STOPS:
        hits = [n for n, line in enumerate(lines, 1) if re.search(pattern, line)]
        if len(hits) != 1:
            raise ctm_view.Trouble('the tour\'s line %s is in ctm.h %d times' % (pattern, len(hits)))
        places.append((hits[0], caption, expressions))
    gdb.Breakpoint('the_step', internal=True, temporary=True).silent = True
    gdb.execute('run', to_string=True)
    for number, (line, caption, expressions) in enumerate(places, 1):
        Stop('%s:%d' % (path, line), number, caption, expressions)
    print('%d stops are set. `continue` goes to the next one; `ctm` lists what you can look at; `p`, `next`, `up` work as always.' % len(places))


gdb.pretty_printers.append(printer)
CtmCommand()
