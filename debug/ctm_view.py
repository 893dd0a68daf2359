"""What a debugger shows of ctm.h: tensors, the tape, points as SVG. Knows nothing of gdb or lldb: ctm_gdb.py and ctm_lldb.py read the
memory and hand Tensor objects in. Addresses are integers; 0 is NULL."""
import math
import os
import re


class Tensor:
    """One ctm_tensor, copied out of the program. data and grad are lists of numbers; grad is None if there is none."""
    def __init__(self, address, name, op, number, shape, data, grad, sources, next_address, recorded):
        self.address, self.name, self.op, self.number, self.shape = address, name, op, number, shape
        self.data, self.grad, self.sources, self.next, self.recorded = data, grad, sources, next_address, recorded

    def shape_text(self):
        return '[%s]' % ','.join(str(n) for n in self.shape)


class Trouble(Exception):
    """Something the user should be told in one line."""


def believable(length, ndim, shape):
    """Before any number is read: an uninitialised pointer may lead to anything, of any length."""
    product = 1
    for n in shape[:ndim] if 0 <= ndim <= 4 else ():
        product *= n
    if not 0 <= ndim <= 4 or any(n < 0 for n in shape[:ndim]) or length != product or length > 1 << 28:
        raise Trouble('no tensor is there: it is not set yet')


def row_text(label, values, count=8):
    """min, mean, max and the first values: what ctm_print shows. Numbers that are none are counted apart."""
    good = [v for v in values if math.isfinite(v)]
    text = '  %-5s' % label
    if good:
        text += ' min %.5g  mean %.5g  max %.5g :' % (min(good), sum(good) / len(good), max(good))
    text += ''.join(' %.5g' % v for v in values[:count]) + (' ...' if len(values) > count else '')
    bad = len(values) - len(good)
    return text + ('   (%d not finite)' % bad if bad else '')


def tensor_text(t):
    lines = ['%s %s %s (#%d)' % (t.name, t.shape_text(), t.op, t.number), row_text('data', t.data)]
    if t.grad is not None:
        lines.append(row_text('grad', t.grad))
    return '\n'.join(lines)


def rms(values):
    total = 0.0
    for v in values:
        total += v * v
    return math.sqrt(total / len(values)) if values else 0.0


def on_tape(read, first):
    """The recorded results, in the order in which they were computed."""
    out, address = [], first
    while address:
        t = read(address)
        out.append(t)
        address = t.next
    return out


def tape_text(read, first):
    """The same table as ctm_tape_dump prints."""
    lines = ['   #  name                     op             shape         rms data     rms grad   from']
    for t in on_tape(read, first):
        names = ''.join(' ' + read(s).name for s in t.sources if s)
        lines.append('%4d  %-24s %-14s %-12s %9.3g    %9.3g  %s' %
                     (t.number, t.name, t.op, t.shape_text(), rms(t.data), rms(t.grad) if t.grad is not None else 0.0, names))
    return '\n'.join(lines)


def reachable(read, first):
    """Everything the tape knows, inputs before results: recorded results, and what they were computed from (leaves, constants)."""
    seen, out = set(), []
    for top in on_tape(read, first):
        stack = [(top.address, False)]
        while stack:
            address, done = stack.pop()
            if done:
                out.append(read(address))
            elif address not in seen:
                seen.add(address)
                stack.append((address, True))
                stack.extend((s, False) for s in reversed(read(address).sources) if s)
    return out


def find(read, first, name):
    """The last result of that name on the tape, or else the last that it was made of; "#12" is the result with that number."""
    def right(t):
        return t.name == name or (name == '#%d' % t.number and t.op != 'leaf')
    hits = [t for t in on_tape(read, first) if right(t)] or [t for t in reachable(read, first) if right(t)]
    if not hits:
        raise Trouble('no tensor "%s" can be reached from this tape' % name)
    return hits[-1]


def nonfinite_text(read, first):
    """The first number that is none: in the order of computation, then among the gradients, in the order of the backward walk."""
    tensors = reachable(read, first)
    for t in tensors:
        for i, v in enumerate(t.data):
            if not math.isfinite(v):
                return 'entry %d of "%s" %s is %g: %s' % (i, t.name, t.shape_text(), v, came_from(read, t))
    for t in reversed(tensors):
        for i, v in enumerate(t.grad or []):
            if not math.isfinite(v):
                return 'entry %d of the gradient of "%s" %s is %g; all data are finite' % (i, t.name, t.shape_text(), v)
    return 'all data and gradients of %d tensors are finite' % len(tensors)


def came_from(read, t):
    names = ', '.join('"%s"' % read(s).name for s in t.sources if s)
    return '%s (#%d) of %s, which are finite' % (t.op, t.number, names) if names else 'a leaf: nothing of the tape computed it'


COLOURS = ['#1f6fb4', '#d9722e', '#2e8b57', '#8a4fb5', '#b03060', '#707070']


def points_svg(path, clouds):
    """Draws tensors [B,2] into one SVG, each in its colour. Returns a line about it."""
    for t in clouds:
        if len(t.shape) != 2 or t.shape[1] != 2:
            raise Trouble('"%s" is %s; points to plot are [B,2]' % (t.name, t.shape_text()))
    every = [(t.data[i], t.data[i + 1]) for t in clouds for i in range(0, len(t.data), 2)]
    good = [p for p in every if math.isfinite(p[0]) and math.isfinite(p[1])]
    if not good:
        raise Trouble('there is no finite point to plot')
    half = 1.05 * max(max(abs(x), abs(y)) for x, y in good) or 1.0
    size, edge, each, foot = 440, 44, 3, 16       # legend: three names a row
    height = size + foot * ((len(clouds) + each - 1) // each)

    def place(v):
        return edge + (v + half) / (2 * half) * (size - 2 * edge)
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">' % (size, height + 4),
           '<rect width="100%" height="100%" fill="white"/>',
           '<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#999"/>' % (edge, edge, size - 2 * edge, size - 2 * edge)]
    for v in (-half, 0, half):
        out.append('<text x="%.1f" y="%d" text-anchor="middle" fill="#555">%.3g</text>' % (place(v), size - edge + 14, v))
        out.append('<text x="%d" y="%.1f" text-anchor="end" fill="#555">%.3g</text>' % (edge - 4, size - place(v) + 4, v))
    for k, t in enumerate(clouds):
        colour = COLOURS[k % len(COLOURS)]
        for i in range(0, len(t.data), 2):
            x, y = t.data[i], t.data[i + 1]
            if math.isfinite(x) and math.isfinite(y):
                out.append('<circle cx="%.1f" cy="%.1f" r="2.5" fill="%s" fill-opacity=".65"/>' % (place(x), size - place(y), colour))
        name = t.name.replace('&', '&amp;').replace('<', '&lt;')
        out.append('<text x="%d" y="%d" fill="%s">%s</text>' % (edge + 130 * (k % each), size + foot * (k // each) + 6, colour, name))
    out.append('</svg>\n')
    try:
        with open(path + '.tmp', 'w') as f:
            f.write('\n'.join(out))
        os.replace(path + '.tmp', path)
    except OSError as e:
        raise Trouble('%s: %s' % (path, e.strerror))
    left = len(every) - len(good)
    return '%s: %d points of %s%s' % (path, len(good), ', '.join(t.name for t in clouds), ' (%d not finite, left out)' % left if left else '')


HELP = """ctm tape [TAPE]              the recorded operations, as ctm_tape_dump prints them
ctm show NAME|#N|EXPRESSION  one tensor: shape, range, first values, gradient
ctm plot NAME... FILE.svg    tensors [B,2] as points
ctm nonfinite [TAPE]         the first number that is NaN or Inf, and what computed it
ctm tour                     runs to the step of the tour and stops at every line of the training algorithm
ctm stops                    sets those stops without running, for an IDE that runs the program itself
NAME is a tensor's name on the tape (the last result of that name, or what the tape was made of), #N a result's number there. TAPE is an expression; without it
the tape is `tp` or `sh->tape` of this function or of one that called it."""


def command(words, tape, evaluate, read):
    """One `ctm ...` command. tape(expression or None) -> address of the first tensor on it; evaluate(expression) -> address of a tensor."""
    def tensor(word):
        try:
            return find(read, tape(None), word)
        except Trouble as trouble:
            address = evaluate(word)
            if not address:
                raise Trouble('%s, and it is no expression of type ctm_tensor * here' % trouble)
            return read(address)
    what = words[0] if words else ''
    if what == 'tape' and len(words) <= 2:
        return tape_text(read, tape(words[1] if len(words) > 1 else None))
    if what == 'nonfinite' and len(words) <= 2:
        return nonfinite_text(read, tape(words[1] if len(words) > 1 else None))
    if what == 'show' and len(words) == 2:
        return tensor_text(tensor(words[1]))
    if what == 'plot' and len(words) >= 3 and words[-1].endswith('.svg'):
        return points_svg(words[-1], [tensor(w) for w in words[1:-1]])
    if not words or words == ['help']:
        return HELP
    usage = [line for line in HELP.split('\n') if line.split()[:2] == ['ctm', what]]
    raise Trouble('expected ' + usage[0].split('  ')[0] if usage else '"%s" is no command; `ctm` lists them' % what)


# ---- the tour: (text of the line in ctm.h before which to stop, caption, expressions to show)
# Lines are found by their text, so the tour does not depend on line numbers; each text must occur once.

STOPS = [
    (r'^    x_u = ctm__x_u\(sh, &b\);', 'data, noise levels t > u >= s, and x_t = x_0 + t·eps  [eq:x_t]', ['b.x0', 'b.t', 'b.u', 'b.s', 'b.x_t']),
    (r'^    x_target = ctm_x_target\(tp, cfg->target_ema', 'the teacher has walked from t to u  [eq:heun]', ['x_u']),
    (r'^    x_est = ctm_x_est\(tp, theta', 'the target: the average jumps from u to s, then on to time zero; no gradient  [eq:x_target]', ['target_s', 'x_target']),
    (r'^    if \(cfg->share_at_s > 0\) d_s = ', 'the estimate: the student jumps from t to s, then the average on to time zero  [eq:x_est]', ['est_s', 'x_est']),
    (r'^    return ctm_name\(L, "L_ctm"\);', 'their distance, row by row, and its mean  [eq:L_ctm]', ['d', 'L']),
    (r'^    return \(double\)L->data\[0\];', 'the tape has been walked backwards: every result now has its gradient', ['L']),
    (r'^    return ctm_name\(ctm_weighted_mean\(tp, d, w, cfg->diagonal_batch\), "L_dsm"\);', 'the diagonal: g(x_t,t,t) against x_0  [eq:L_dsm]', ['t', 'aim', 'g', 'd']),
    (r'^        if \(!ctm_is_finite\(tr->L_ctm\)\) return', 'both gradients are summed: total = grad L_CTM + lambda·grad L_DSM  [eq:lambda]', ['tr->L_ctm', 'tr->L_dsm', 'tr->lambda_dsm', 'tr->grad_norm']),
    (r'^    ctm_opt_step\(tr->ctx, &tr->opt, tr->theta->theta, total\);', 'the optimiser is about to move the weights  [eq:radam]', ['tr->lr', 'tr->theta->theta[0]', 'total[0]']),
    (r'^        ctm_ema_step\(tr->ctx, len, tr->ema\[i\]->theta', 'the weights have moved; the average follows  [eq:ema]', ['tr->theta->theta[0]', 'rate', 'tr->ema[i]->theta[0]']),
    (r'^    tr->step\+\+;', 'the step is done  [alg:train]', ['tr->step']),
]

TOUR_READY = '%d stops are set. `continue` goes to the next one; `ctm` lists what you can look at; `p`, `next`, `up` work as always.'


def tour_lines(path):
    """The header that the program was built from -> (line, caption, expressions) of every stop."""
    with open(path, encoding='utf-8') as f:
        lines = f.read().split('\n')
    places = []
    for pattern, caption, expressions in STOPS:
        hits = [n for n, line in enumerate(lines, 1) if re.search(pattern, line)]
        if len(hits) != 1:
            raise Trouble('the tour\'s line %s is in ctm.h %d times' % (pattern, len(hits)))
        places.append((hits[0], caption, expressions))
    return places
