"""gdb: pretty-printers for ctm.h's types, the commands `ctm tape`, `ctm show`, `ctm plot`, `ctm nonfinite`, `ctm tour`.

    gdb -x debug/ctm_gdb.py build/tour          (p/r shows a structure as it is)
"""
import array
import os
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
    ctm_view.believable(count, ndim, [int(value['shape'][i]) for i in range(4)])
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
        if value.type.strip_typedefs().tag != 'ctm_tape':
            raise ctm_view.Trouble('%s is no tape' % expression)
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
        if int(value) == 0:
            raise ctm_view.Trouble('%s is NULL: not computed yet' % expression)
        return int(value)
    if kind.tag == 'ctm_tensor' and value.address is not None:
        return int(value.address)
    return 0


class TensorPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        try:
            return ctm_view.tensor_text(tensor_of(self.value))
        except (gdb.error, UnicodeDecodeError, ctm_view.Trouble):
            return 'a ctm_tensor that is not set yet'


class TensorPointerPrinter(TensorPrinter):
    def to_string(self):
        if int(self.value) == 0:
            return 'NULL'
        try:
            return ctm_view.tensor_text(tensor_of(self.value.dereference()))
        except (gdb.error, UnicodeDecodeError, ctm_view.Trouble):
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
    __doc__ = ctm_view.HELP

    def __init__(self):
        super().__init__('ctm', gdb.COMMAND_USER)

    def invoke(self, argument, from_tty):
        words = gdb.string_to_argv(argument)
        try:
            if words == ['tour']:
                tour()
            elif words == ['stops']:
                print(ctm_view.TOUR_READY % stops())
            else:
                print(ctm_view.command(words, first_of_tape, tensor_expression, read))
        except (ctm_view.Trouble, gdb.error, gdb.MemoryError) as trouble:
            raise gdb.GdbError('ctm: %s' % trouble)


# ---- the tour

def frames():
    frame = gdb.newest_frame()
    while frame is not None:
        yield frame
        frame = frame.older()


class Stop(gdb.Breakpoint):
    def __init__(self, place, number, caption, expressions):
        super().__init__(place, internal=True)
        self.silent = True
        self.text, self.expressions = '---- stop %d of %d: %s' % (number, len(ctm_view.STOPS), caption), expressions

    def stop(self):
        if not any(frame.name() == 'the_step' for frame in frames()):
            return False
        print('\n' + self.text)
        for expression in self.expressions:
            print('%s = %s' % (expression, gdb.parse_and_eval(expression).format_string()))
        return True


set_stops = []


def stops():
    """Sets the stops of the tour. They hold at the step that tour.c wants to show, and let all steps before pass."""
    while set_stops:
        set_stops.pop().delete()
    path = gdb.decode_line('ctm_train_step')[1][0].symtab.fullname()
    places = ctm_view.tour_lines(path)
    for number, (line, caption, expressions) in enumerate(places, 1):
        set_stops.append(Stop('%s:%d' % (path, line), number, caption, expressions))
    return len(places)


def tour():
    """Runs to that step, and then sets the stops: quicker than to pass them four hundred times."""
    gdb.Breakpoint('the_step', internal=True, temporary=True).silent = True
    gdb.execute('run', to_string=True)
    print(ctm_view.TOUR_READY % stops())


gdb.pretty_printers.append(printer)
CtmCommand()
