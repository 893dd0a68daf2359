"""lldb: summaries of ctm.h's types, and the commands `ctm tape`, `ctm show`, `ctm plot`, `ctm nonfinite`, `ctm tour`.

    lldb -o 'command script import debug/ctm_lldb.py' build/tour
    (lldb) ctm tour
"""
import array
import os
import sys

import lldb

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import ctm_view  # noqa: E402


def field(value, name):
    return value.GetChildMemberWithName(name)


def text_at(process, address, most=64):
    if not address:
        return '?'
    error = lldb.SBError()
    text = process.ReadCStringFromMemory(address, most, error)
    return text if error.Success() else '?'


def numbers(process, pointer, count):
    address = pointer.GetValueAsUnsigned()
    if not address:
        return None
    size = pointer.GetType().GetPointeeType().GetCanonicalType().GetByteSize()
    out = array.array('f' if size == 4 else 'd')
    if count:
        error = lldb.SBError()
        out.frombytes(process.ReadMemory(address, count * size, error))
        if not error.Success():
            raise ctm_view.Trouble('cannot read %d numbers at 0x%x' % (count, address))
    return list(out)


def tensor_of(value):
    """An SBValue of type ctm_tensor -> Tensor."""
    process, count = value.GetProcess(), field(value, 'len').GetValueAsUnsigned()
    shape, src = field(value, 'shape'), field(value, 'src')
    ctm_view.believable(count, field(value, 'ndim').GetValueAsSigned(), [shape.GetChildAtIndex(i).GetValueAsSigned() for i in range(4)])
    name = text_at(process, field(value, 'name').GetLoadAddress())
    return ctm_view.Tensor(value.GetLoadAddress(), name, text_at(process, field(value, 'op').GetValueAsUnsigned()),
                           field(value, 'id').GetValueAsSigned(),
                           [shape.GetChildAtIndex(i).GetValueAsSigned() for i in range(field(value, 'ndim').GetValueAsSigned())],
                           numbers(process, field(value, 'data'), count) or [], numbers(process, field(value, 'grad'), count),
                           [src.GetChildAtIndex(i).GetValueAsUnsigned() for i in range(src.GetNumChildren())],
                           field(value, 'next').GetValueAsUnsigned(), bool(field(value, 'wants').GetValueAsSigned()))


def is_type(value, name):
    return value.GetType().GetUnqualifiedType().GetCanonicalType().GetName() in (name, 'struct ' + name)


def summary(value, _):
    """For ctm_tensor and, as lldb hands the pointer over, for ctm_tensor *."""
    value = value.GetNonSyntheticValue()
    if value.GetType().IsPointerType():
        if not value.GetValueAsUnsigned():
            return 'NULL'
        value = value.Dereference()
    try:
        return ctm_view.tensor_text(tensor_of(value))
    except (ctm_view.Trouble, ValueError, UnicodeDecodeError, TypeError):
        return '(not set yet)'


def dereferenced(value):
    return value.Dereference() if value.GetType().IsPointerType() else value


def ctm(debugger, argument, exe_ctx, result, _):
    frame = exe_ctx.GetFrame()
    target = exe_ctx.GetTarget()

    def read(address):
        kind = target.FindFirstType('ctm_tensor').GetCanonicalType()
        return tensor_of(target.CreateValueFromAddress('tensor', lldb.SBAddress(address, target), kind))

    def first_of_tape(expression):
        if expression:
            value = dereferenced(frame.EvaluateExpression(expression))
            if not is_type(value, 'ctm_tape'):
                raise ctm_view.Trouble('%s is no tape' % expression)
            return field(value, 'first').GetValueAsUnsigned()
        here = frame
        while here and here.IsValid():
            for name in ('tp', 'sh'):
                value = here.FindVariable(name)
                if not value.IsValid() or not value.GetValueAsUnsigned():
                    continue
                value = dereferenced(value)
                if is_type(value, 'ctm_tape'):
                    return field(value, 'first').GetValueAsUnsigned()
                if is_type(value, 'ctm_shard'):
                    return field(field(value, 'tape'), 'first').GetValueAsUnsigned()
            here = here.get_parent_frame() if hasattr(here, 'get_parent_frame') else None
        raise ctm_view.Trouble('no tape is in sight here; name one, as in: ctm tape tr->shard[0].tape')

    def tensor_expression(expression):
        value = frame.EvaluateExpression(expression)
        if not value.IsValid() or value.GetError().Fail():
            return 0
        if value.GetType().IsPointerType() and not value.GetValueAsUnsigned():
            raise ctm_view.Trouble('%s is NULL: not computed yet' % expression)
        value = dereferenced(value)
        return value.GetLoadAddress() if is_type(value, 'ctm_tensor') else 0

    try:
        if argument.split() == ['tour']:
            return tour(target, result)
        if argument.split() == ['stops']:
            stops(target, False)
            target.BreakpointCreateByName('the_step').SetScriptCallbackFunction('ctm_lldb.begin')
            return result.AppendMessage('the tour begins when the program reaches its step')
        if not frame.IsValid():
            raise ctm_view.Trouble('the program is not running')
        result.AppendMessage(ctm_view.command(argument.split(), first_of_tape, tensor_expression, read))
    except ctm_view.Trouble as trouble:
        result.SetError('ctm: %s' % trouble)


set_stops = []


def stops(target, enabled):
    """Sets the stops of the tour."""
    entry = target.FindFunctions('ctm_train_step')[0].GetSymbol().GetStartAddress().GetLineEntry().GetFileSpec()
    places = ctm_view.tour_lines(os.path.join(entry.GetDirectory(), entry.GetFilename()))
    while set_stops:
        target.BreakpointDelete(set_stops.pop())
    for line, _, _ in places:
        point = target.BreakpointCreateByLocation(entry, line)
        point.SetScriptCallbackFunction('ctm_lldb.arrive')
        point.SetEnabled(enabled)
        set_stops.append(point.GetID())
    return len(places)


def tour(target, result):
    """Runs to that step, and then sets the stops: quicker than to pass them four hundred times."""
    target.BreakpointCreateByName('the_step').SetOneShot(True)
    target.GetDebugger().SetAsync(False)
    target.GetDebugger().HandleCommand('process launch')
    result.AppendMessage(ctm_view.TOUR_READY % stops(target, True))


def begin(frame, _location, _):
    frame.GetThread().GetProcess().GetTarget().EnableAllBreakpoints()
    return False


def arrive(frame, location, _):
    """A stop of the tour: its caption, and what there is to see."""
    line = location.GetAddress().GetLineEntry()
    places = ctm_view.tour_lines(os.path.join(line.GetFileSpec().GetDirectory(), line.GetFileSpec().GetFilename()))
    number, (_, caption, expressions) = min(enumerate(places, 1), key=lambda place: abs(place[1][0] - line.GetLine()))
    print('\n---- stop %d of %d: %s' % (number, len(places), caption))
    for expression in expressions:
        value = frame.EvaluateExpression(expression)
        print('%s = %s' % (expression, summary(value, None) if is_type(dereferenced(value), 'ctm_tensor') else value.GetValue()))
    return True


def __lldb_init_module(debugger, _):
    debugger.HandleCommand('command script add -f ctm_lldb.ctm ctm')
    debugger.HandleCommand('type summary add -e -F ctm_lldb.summary ctm_tensor')
