#!/usr/bin/env python3
"""Weaves ctm.h into one self-contained HTML page: prose and formulas beside the code, a list of chapters, no network.

usage: book/weave.py [--plain] [--check] HEADER FORMULAS NOTES PAGE

FORMULAS gives LaTeX for the tags of the header ([eq:G] ...); pandoc turns it into MathML. Without pandoc, or with --plain, the
formulas appear as the header writes them. NOTES is PAPER_NOTES.md, for the paper's names of the tags. --check writes nothing into
PAGE unless every line of the header is in it once, every link inside it has an end, and every tag has a formula that is set in
some chapter; it prints what it counted.
"""
import html
import os
import re
import shutil
import subprocess
import sys

TAG = re.compile(r'\[((?:eq|alg):[A-Za-z0-9_]+)\]')
NAME = re.compile(r'\b(ctm_[A-Za-z0-9_]+|ctm__[A-Za-z0-9_]+|CTM_[A-Z0-9_]+)\b')
GAP = re.compile(r'\S {3,}\S')            # columns: text that must keep its spaces
# Mathematics in a sentence: G(x,t,s), G_ema(..), x_t, L_CTM, t, eps, but not the name of a field or function, nor the word "a".
GREEK = {'theta': '\u03b8', 'phi': '\u03c6', 'eps': '\u03b5', 'gamma': '\u03b3', 'lambda': '\u03bb', 'rho': '\u03c1', 'tau': '\u03c4'}
INDEX = '0|1|2|i|k|l|n|t|s|u|h|r|T|w|g|F|max|min|est|target|next|ema|sg|theta|phi|CTM|DSM|GAN|skip|out|in|data|label|film'
SYMBOL = re.compile(r"\[[^\]]*\]|"       # shapes and indices stay as they are
                    r"(?<![A-Za-z0-9_.>&*'])(?<!OP/)(?:([A-Za-z]|[\u0370-\u03ff])(?!-[A-Za-z]{2}|-&gt;|\.\w)|(" + '|'.join(GREEK) + r"))(?:_(" + INDEX + r"))?('?)"
                    r"(?:(?![A-Za-z0-9_'(])|(?=\((?:[A-Za-z]\w*'?|[\d.]+)(?:, ?(?:[A-Za-z]\w*'?|[\d.]+))*\)))")
ALONE = set('tsuxyzgGDdhklnNTLZ')           # letters that are symbols even without an index
ITEM = re.compile(r'(- |d\d+ )\S')             # an entry of a list
KEYWORDS = set('auto break case char const continue default do double else enum extern float for goto if inline int long register '
               'return short signed sizeof static struct switch typedef union unsigned void volatile while int64_t uint64_t '
               'uint32_t int32_t size_t ptrdiff_t uint8_t'.split())


def fail(message):
    sys.stderr.write('weave.py: %s\n' % message)
    sys.exit(1)


def read(path):
    try:
        with open(path, encoding='utf-8') as f:
            return f.read()
    except OSError as e:
        fail('%s: %s' % (path, e.strerror))


# ---- formulas: blocks of LaTeX, each under a line `%% eq:G`

def read_formulas(path):
    table, tag = {}, None
    for line in read(path).split('\n'):
        if line.startswith('%%'):
            tag = line[2:].strip()
            if tag in table:
                fail('%s: %s is there twice' % (path, tag))
            table[tag] = ''
        elif tag and not line.startswith('%'):
            table[tag] += line + '\n'
    return {tag: text.strip() for tag, text in table.items() if text.strip()}


def clauses(latex):
    """A formula cut where it has \\qquad, so that its parts can stand under one another in a narrow window. Blocks stay whole."""
    return [latex] if '\\begin' in latex else [part.strip() for part in latex.split('\\qquad') if part.strip()]


def render(formulas, plain):
    """tag -> MathML, in one run of pandoc; nothing at all if there is no pandoc."""
    if plain or not shutil.which('pandoc'):
        return {}
    pieces_of = [(tag, part) for tag in sorted(formulas) for part in clauses(' '.join(formulas[tag].split('\n')))]
    text = '\n\n'.join('$$%s$$' % part for _, part in pieces_of)
    run = subprocess.run(['pandoc', '-f', 'markdown', '-t', 'html', '--mathml', '--wrap=none'], input=text, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pieces = re.findall(r'<math.*?</math>', run.stdout, re.S)
    if run.returncode != 0 or run.stderr.strip() or len(pieces) != len(pieces_of):
        fail('pandoc could not render the formulas: ' + (run.stderr.strip() or '%d of %d came out' % (len(pieces), len(pieces_of))))
    # Browsers set a name of several letters upright, but only if it is one identifier; pandoc makes one of every letter.
    def upright(m):
        name = ''.join(re.findall(r'<mi>(.*?)</mi>', m.group(0)))
        return '<mi>%s</mi>' % name if len(name) > 1 else '<mi mathvariant="normal">%s</mi>' % name
    pieces = [re.sub(r'<mstyle mathvariant="normal">(?:<mi>[^<]*</mi>)+</mstyle>', upright, piece) for piece in pieces]
    # The LaTeX comes along as an annotation, for those who copy a formula.
    math = {}
    for (tag, _), piece in zip(pieces_of, pieces):
        math[tag] = math.get(tag, '') + piece
    return math


# ---- the header, cut into parts: front matter, chapters (interface and implementation), the frame around them, end matter

class Part:
    """A run of lines. kind: 'front', 'frame', 'interface', 'implementation', 'end'."""
    def __init__(self, kind, chapter, title, first):
        self.kind, self.chapter, self.title, self.first, self.lines = kind, chapter, title, first, []


def cut(text):
    lines = text.split('\n')
    if lines and lines[-1] == '':
        lines.pop()
    parts = [Part('front', 0, '', 1)]
    for at, line in enumerate(lines):
        inside = re.match(r'// ---- CHAPTER (\d+)\. (.*?) *-+$', line)
        opens = line.startswith('// ====') and at + 1 < len(lines) and re.match(r'// CHAPTER (\d+)\. (.*)', lines[at + 1])
        last = parts[-1]
        if inside:
            parts.append(Part('interface', int(inside.group(1)), inside.group(2), at + 1))
        elif opens:
            parts.append(Part('implementation', int(opens.group(1)), opens.group(2), at + 1))
        elif last.kind in ('front', 'interface', 'implementation') and line.startswith('#ifndef CTM_H'):
            parts.append(Part('frame', 0, '', at + 1))
        elif last.kind == 'interface' and line == '#ifdef __cplusplus':
            parts.append(Part('frame', 0, '', at + 1))
        elif last.kind == 'implementation' and line.startswith('/* ====') and any('LICENCE' in rest for rest in lines[at:]):
            parts.append(Part('end', 0, '', at + 1))
        parts[-1].lines.append(line)
    return lines, parts


def heading(title):
    """THE ODE -> The ODE."""
    words = [word if word in ('ODE', 'EMA') else word.lower() for word in title.split(' ')]
    words[0] = words[0] if words[0] in ('ODE', 'EMA') else words[0].capitalize()
    return ' '.join(words)


def definitions(lines):
    """name -> line of its definition (implementation first, then interface); name -> line of its declaration."""
    defined, declared = {}, {}
    for number, line in enumerate(lines, 1):
        m = re.match(r'(?:CTM__DEF|static|CTMDEF)\b[^;=]*?\b(ctm_\w+) ?\(', line)
        if m and line.startswith('CTMDEF'):
            declared.setdefault(m.group(1), number)
        elif m and not line.rstrip().endswith(';'):
            defined.setdefault(m.group(1), number)
        m = re.match(r'typedef .*?\b(ctm_\w+);|(?:typedef )?struct (ctm_\w+) \{|\} (ctm_\w+);|typedef .*\(\*(ctm_\w+)\)', line)
        if m:
            declared.setdefault(next(g for g in m.groups() if g), number)
        for constant in re.findall(r'\bCTM_[A-Z0-9_]+\b', line) if line.startswith('enum {') else []:
            declared.setdefault(constant, number)
    for name, number in declared.items():
        defined.setdefault(name, number)
    return defined, declared


def letters(text):
    """Sets the symbols of a piece of prose, already escaped: letters slanted, Greek ones Greek, indices below."""
    def set_one(m):
        letter, name, index, prime = m.groups()
        called = m.string[m.end():m.end() + 1] == '('          # G in G(x,t,s)
        if not name and not (letter and (index or called or letter in ALONE or letter > '\u0370')):
            return m.group(0)
        return '<i class="m">%s</i>%s%s' % (letter or GREEK[name], '<sub>%s</sub>' % GREEK.get(index, index) if index else '', prime)
    text = re.sub(r'(\d|rows|\bp|size) x (?=\d|NV|one\b|p\b|size)', '\\1 \u00d7 ', text)          # 3 x 3
    mean = re.search(r'(?<!\w)E\[([^\]]*)\]', text)                                                 # E[x_0 | x_t = x], no shape
    if mean:
        return letters(text[:mean.start()]) + '<i class="m">E</i>[' + SYMBOL.sub(set_one, mean.group(1)) + ']' + letters(text[mean.end():])
    return SYMBOL.sub(set_one, text).replace('dx/dt', '<i class="m">dx</i>/<i class="m">dt</i>')


class Book:
    def __init__(self, text, formulas, math, notes):
        self.lines, self.parts = cut(text)
        self.defined, self.declared = definitions(self.lines)
        self.formulas, self.math, self.notes = formulas, math, notes
        self.anchor = {}                # tag -> True once its formula has been set
        self.defining = True            # off in the interfaces, which mention tags but define none
        self.used = {}                  # tag -> lines of the header where it stands
        self.seen = []                  # line numbers that are in the page
        for number, line in enumerate(self.lines, 1):
            for tag in TAG.findall(line):
                self.used.setdefault(tag, []).append(number)

    # -- words

    def words(self, text, here=0, plain=lambda text: text):
        """Escapes a piece of text and links the names and tags in it. `here` is the line it stands on: no link to itself. `plain` may do
        something more to what lies between them."""
        out, at = [], 0
        for m in re.finditer(TAG.pattern + '|' + NAME.pattern, text):
            out.append(plain(html.escape(text[at:m.start()], quote=False)))
            tag, name = m.group(1), m.group(2)
            line = self.defined.get(name)
            if line == here:
                line = self.declared.get(name)
            if tag:
                out.append('<a class="tag" href="#%s">[%s]</a>' % (self.anchor_of(tag), tag))
            elif line and line != here:
                out.append('<a href="#L%d">%s</a>' % (line, name))
            else:
                out.append(name)
            at = m.end()
        return ''.join(out) + plain(html.escape(text[at:], quote=False))

    def anchor_of(self, tag):
        return 'tag-' + tag.replace(':', '-')

    def prose(self, text, kind=''):
        """A paragraph: names in <code>, the rest as it is."""
        return '<p%s>%s</p>\n' % (kind and ' class="%s"' % kind, re.sub(r'(<a href="#L\d+">[^<]*</a>|`[^`]*`|\b(?:ctm_|CTM_)\w+)(?![^<]*</a>)',
                                      lambda m: '<code>%s</code>' % m.group(1).strip('`'), self.words(text, plain=letters)))

    def formula(self, tag, plain=None):
        """The formula of a tag, set; its plain text if it cannot be."""
        if tag in self.math:
            body = '<div class="parts">%s</div>' % self.math[tag]
        elif plain:
            body = '<pre>%s</pre>' % html.escape(plain, quote=False)
        else:
            return ''
        return '<div class="eq" data-tag="%s">%s<span class="no">[%s]</span></div>\n' % (tag, body, tag)

    # -- comments: paragraphs, displays (indented or in columns), formulas

    def comment(self, body):
        """body: lines of a comment without their // or indentation."""
        blocks, block, inset = [], [], 0
        for line in body + ['']:
            if re.match(r'  \d+\. \S', line):                  # a numbered item: what follows it is set in by as much
                inset = 5
                if block:
                    blocks.append(block)
                    block = []
                line = line[2:]
            elif inset and line.startswith(' ' * inset):
                line = line[inset:]
            elif line.strip():
                inset = 0
            shown = block and block[0].startswith('    ')
            turns = block and line.startswith('    ') != shown and (shown or not GAP.search(block[0]))
            if block and (not line.strip() or turns or ITEM.match(line)):
                blocks.append(block)
                block = []
            if line.strip():
                block.append(line)
        out, skip = [], False
        for at, block in enumerate(blocks):
            if skip:
                skip = False
                continue
            if len(block) > 2 and all('|' in line for line in block):
                out.append(self.table(block))
                continue
            display = block[0].startswith('    ')
            tags = [tag for line in block for tag in TAG.findall(line) if tag in self.math]
            columns = 2 * sum(bool(GAP.search(line)) for line in block) >= len(block)
            if display or columns:
                out.append(self.display(block))
            else:
                out.append(self.prose(' '.join(line.strip() for line in block).replace(' -> ', ' \u2192 ').replace(' <- ', ' \u2190 '), 'item' if ITEM.match(block[0]) else ''))
                following = blocks[at + 1] if at + 1 < len(blocks) else None
                fresh = [tag for tag in dict.fromkeys(tags) if tag not in self.anchor and self.defining]
                if fresh and following and following[0].startswith('    ') and not TAG.search(' '.join(following)):
                    out.append(self.set_all(fresh))
                    out.append('<details><summary>as the source has it</summary>%s</details>\n' % self.pre(following))
                    skip = True
                else:
                    out.append(self.set_all(fresh))
        return ''.join(out)

    def set_all(self, tags):
        out = []
        for tag in tags:
            self.anchor.setdefault(tag, True)
            out.append(self.formula(tag))
        return ''.join(out)

    def table(self, block):
        """Lines `| a | b`, the first of them the heading."""
        out, code = [], -1              # the column of C, if there is one
        for line in block:
            cells = [cell.strip() for cell in line.split('|')]
            code = cells.index('in C') if 'in C' in cells else code
            cells = [self.words(cell, plain=(lambda text: text) if k == code else letters) for k, cell in enumerate(cells)]
            cells = ['<code>%s</code>' % cell if k == code and cell and out else cell for k, cell in enumerate(cells)]
            kind = 'td' if out else 'th'
            out.append('<tr>%s</tr>' % ''.join('<%s>%s</%s>' % (kind, cell, kind) for cell in cells[not cells[0]:]))
        return '<table class="plain">%s</table>\n' % '\n'.join(out)

    def pre(self, block):
        indent = min(len(line) - len(line.lstrip()) for line in block)
        return '<pre>%s</pre>\n' % '\n'.join(self.words(line[indent:]) for line in block)

    def display(self, block):
        """Lines that each end with a tag become formulas; anything else keeps its columns, and its formulas follow."""
        tagged = [TAG.findall(line) for line in block]
        lone = all(len(tags) == 1 and line.rstrip().endswith('[%s]' % tags[0]) and tags[0] in self.math
                   for tags, line in zip(tagged, block))
        if lone:
            return self.set_all([tags[0] for tags in tagged])
        fresh = [tag for tags in tagged for tag in tags if tag in self.math and tag not in self.anchor]
        if len(block) > 12 or not self.defining:
            fresh = []                  # the front matter's tables only mention them
        return self.pre(block) + self.set_all(fresh)

    # -- code

    def code(self, lines, first):
        out, comment = [], False
        for number, line in enumerate(lines, first):
            text, comment = self.code_line(line, number, comment)
            out.append('<span id="L%d">%s\n</span>' % (number, text))
            self.seen.append(number)
        return '<pre class="code">%s</pre>' % ''.join(out)

    def code_line(self, line, number, inside):
        """One line of C with its comments, strings, keywords and names marked; and whether a block comment is still open."""
        out, at = [], 0
        def mark(kind, text):
            out.append('<i class="%s">%s</i>' % (kind, self.words(text, number)))
        if inside:
            end = line.find('*/')
            if end < 0:
                mark('c', line)
                return ''.join(out), True
            mark('c', line[:end + 2])
            at = end + 2
        if re.match(r'\s*#', line[at:]):
            m = re.match(r'\s*#\s*\w+', line[at:])
            mark('p', m.group(0))
            at += m.end()
        token = re.compile(r'(//.*)|(/\*.*?(?:\*/|$))|("(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\')|([A-Za-z_]\w*)|(\d[\w.]*(?:[eE][+-]?\d+)?)')
        while at < len(line):
            m = token.search(line, at)
            if not m:
                break
            out.append(html.escape(line[at:m.start()], quote=False))
            text, at = m.group(0), m.end()
            if m.group(1) or m.group(2):
                mark('c', text)
                inside = bool(m.group(2)) and not text.endswith('*/')
            elif m.group(3):
                mark('s', text)
            elif m.group(4) and text in KEYWORDS:
                out.append('<b>%s</b>' % text)
            elif m.group(4):
                out.append(self.words(text, number))
            else:
                out.append(html.escape(text))
        return ''.join(out) + html.escape(line[at:], quote=False), inside and at >= len(line)

    # -- rows: a comment that begins in the first column, and the code under it

    def rows(self, lines, first):
        out, i = [], 0
        while i < len(lines):
            start = i
            while i < len(lines) and lines[i].startswith('//'):
                i += 1
            note = [re.sub(r'^// ?', '', line) for line in lines[start:i] if not re.match(r'// [=-]{20,}$', line)]
            self.seen.extend(range(first + start, first + i))
            begin = i
            while i < len(lines) and not lines[i].startswith('//'):
                i += 1
            code, at = lines[begin:i], begin
            while code and not code[0].strip():
                self.seen.append(first + at)
                code.pop(0)
                at += 1
            while code and not code[-1].strip():
                self.seen.append(first + at + len(code) - 1)
                code.pop()
            marks = ''.join('<a id="L%d"></a>' % (first + k) for k in range(start, begin))
            note = [re.sub(r'^---- ', '', line) for line in note]
            left = marks + (self.comment(note) if note else '')
            if code:
                broad = 'class="eq"' in left or any(len(line) > 64 and (GAP.search(line) or line.startswith('    ')) for line in note)
                shape = 'row' if note and not broad else 'row bare'
                beside = '<div class="note">%s</div>' % left if note else left
                out.append('<div class="%s">%s%s</div>\n' % (shape, beside, self.code(code, first + at)))
            else:
                out.append('<div class="wide">%s</div>\n' % left)
        return ''.join(out)

    # -- parts of the page

    def plain_comment(self, part):
        """Front or end matter: one block comment, cut at its rules and its headings."""
        out, chunk, program = [], [], None
        self.seen.extend(range(part.first, part.first + len(part.lines)))
        marks = ''.join('<a id="L%d"></a>' % (part.first + k) for k in range(len(part.lines)))
        def flush():
            if chunk:
                out.append(self.comment(chunk[:]))
            chunk.clear()
        for line in part.lines:
            text = re.sub(r'^(/\* ?|   )', '', line).replace('*/', '').rstrip()
            if re.match(r'^[-=]{20,}$', text.strip()):
                flush()
                out.append('<hr>\n')
            elif re.match(r'//BEGIN-', text.strip()):
                flush()
                program = []
            elif re.match(r'//END-', text.strip()):
                out.append('<pre class="code plain">%s</pre>\n' % '\n'.join(self.code_line(p, 0, False)[0] for p in program))
                program = None
            elif program is not None:
                program.append(text)
            elif re.match(r'^[A-Z][A-Z ]{5,}(  .*|:.*| \(.*)?$', text) and not (chunk and chunk[-1].strip()):
                flush()
                head, rest = re.match(r'^([A-Z][A-Z ]+[A-Z])(.*)$', text).groups()
                out.append('<h3>%s</h3>\n' % html.escape(head))
                if '|' in rest:
                    chunk.append(' ' * len(head) + rest)        # the first line of a table
                elif rest.strip(' :'):
                    rest = rest.strip(' :')
                    chunk.append(rest[0].upper() + rest[1:])
            else:
                chunk.append(text)
        flush()
        return '<div class="wide">%s%s</div>' % (marks, ''.join(out))

    def chapter(self, number):
        """The chapter's opening, then its interface, then the code."""
        body = [p for p in self.parts if p.chapter == number and p.kind == 'implementation']
        face = [p for p in self.parts if p.chapter == number and p.kind == 'interface']
        title = heading((body or face)[0].title)
        out = ['<section id="chapter-%d"><h2><small>%d</small> %s</h2>\n' % (number, number, html.escape(title))]
        opening = []
        for part in body[:1]:           # the opening comment goes before the interface
            end = next(i for i in range(2, len(part.lines)) if part.lines[i].startswith('// ===='))
            opening = part.lines[:end + 1]
            self.seen.extend(range(part.first, part.first + len(opening)))
            marks = ''.join('<a id="L%d"></a>' % (part.first + k) for k in range(len(opening)))
            text = [re.sub(r'^// ?', '', line) for line in opening[2:-1]]
            out.append('<div class="wide">%s%s</div>\n' % (marks, self.comment(text)))
        for part in face:
            self.seen.append(part.first)
            self.defining = False
            out.append('<h3 id="L%d">Interface</h3>\n' % part.first + self.rows(part.lines[1:], part.first + 1))
            self.defining = True
        for at, part in enumerate(body):
            skip = len(opening) if at == 0 else 0
            out.append('<h3>Code</h3>\n' + self.rows(part.lines[skip:], part.first + skip))
        out.append('</section>\n')
        return title, ''.join(out)

    def tag_table(self):
        rows = []
        for tag in sorted(self.used, key=str.lower):
            what, where = self.notes.get(tag, ('', ''))
            lines = ' '.join('<a href="#L%d">%d</a>' % (n, n) for n in self.used[tag])
            rows.append('<tr id="%s"><td class="tag">[%s]</td><td>%s</td><td>%s<br><small>%s</small></td><td>%s</td></tr>\n' %
                        (self.anchor_of(tag), tag, '<div class="parts">%s</div>' % self.math[tag] if tag in self.math else '', self.words(what),
                         html.escape(where), lines))
        return ('<section id="formulas"><h2>Formulas</h2><div class="wide"><p>Every tag of the book, the paper\'s name for it, and the '
                'lines where it stands.</p><table><tr><th>tag</th><th>formula</th><th>what, and where in the paper</th><th>lines</th></tr>\n'
                + ''.join(rows) + '</table></div></section>\n')

    @staticmethod
    def card_part(text):
        """Columns of a card become pieces of a line: "out = x·sig,  sig = .." has its comma already."""
        return re.sub(r'([,;:]?)\s{2,}', lambda m: m.group(1) + ' ' if m.group(1) else '; ', text.strip()).replace('`', '')

    def cards(self):
        """(line, name, what it computes, its backward pass, what it saves, its test) from the cards `// op: ...`."""
        found = []
        for number, line in enumerate(self.lines, 1):
            m = re.match(r'// op: *(\w+) +(.*)', line)
            if not m:
                continue
            text, at = m.group(2), number
            while not re.search(r'Test +op_\w+', text) and at < len(self.lines) and self.lines[at].startswith('//'):
                text += '\n' + re.sub(r'^// ?', '', self.lines[at])
                at += 1
            parts = re.match(r'(.*?)\n?Backward +(.*?)\s*Saves +(.*?)\s*Test +(op_\w+)', text, re.S)
            found.append((number, m.group(1)) + (tuple(self.card_part(part) for part in parts.groups()) if parts else ()))
        return found

    def card_table(self):
        rows = []
        for card in self.cards():
            what, backward, saves, test = card[2:] or ('', '', '', '')
            rows.append('<tr><td class="tag"><a href="#L%d">%s</a></td><td><code>%s</code></td><td><code>%s</code></td><td>%s</td><td class="tag">%s</td></tr>\n' %
                        ((card[0], card[1]) + tuple(html.escape(part, quote=False) for part in (what, backward, saves, test))))
        return ('<section id="operations"><h2>Operations</h2><div class="wide"><p>From the cards of chapter 8 (mixture: chapter 11); dX is the '
                'gradient of the loss with respect to X.</p><table class="cards"><tr><th>operation</th><th>what it computes, and shapes</th>'
                '<th>backward</th><th>saves</th><th>test</th></tr>\n' + ''.join(rows) + '</table></div></section>\n')

    def page(self):
        body, nav = [], []
        numbers = sorted({p.chapter for p in self.parts if p.chapter})
        front = [p for p in self.parts if p.kind == 'front'][0]
        body.append('<section id="front">%s</section>\n' % self.plain_comment(front))
        self.anchor = {}                # what the front matter only announced is set again where it belongs
        for number in numbers:
            title, text = self.chapter(number)
            nav.append('<li value="%d"><a href="#chapter-%d">%s</a></li>' % (number, number, html.escape(title)))
            body.append(text)
        frame = ''.join(self.rows(p.lines, p.first) for p in self.parts if p.kind == 'frame')
        body.append('<section id="frame"><h2>The frame</h2><div class="wide"><p>What stands around the chapters: guards, and what the '
                    'implementation includes.</p></div>%s</section>\n' % frame)
        body.append('<section id="end"><h2>Facts, deviations, references, licence</h2>%s</section>\n' %
                    ''.join(self.plain_comment(p) for p in self.parts if p.kind == 'end'))
        body.append(self.card_table())
        body.append(self.tag_table())
        chapters = '<ol>%s</ol>' % '\n'.join(nav)
        more = ('<a href="#frame">The frame</a><a href="#end">Facts, references</a><a href="#operations">Operations</a><a href="#formulas">Formulas</a>')
        return PAGE % {'style': STYLE, 'chapters': chapters, 'more': more, 'body': ''.join(body)}


STYLE = """
:root { --ink:#1d1f23; --soft:#5d636d; --paper:#fdfcf9; --code:#f4f2ec; --line:#dcd8cd; --link:#1d5c8f; --mark:#8a3b12; --str:#3d6b35; }
@media (prefers-color-scheme: dark) { :root { --ink:#dfe1e5; --soft:#9aa1ab; --paper:#17191c; --code:#1f2226; --line:#34383e;
  --link:#82b7e2; --mark:#e0a070; --str:#9cc990; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 17px/1.5 Charter, "Bitstream Charter", Georgia, "DejaVu Serif", serif; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
nav { font: 14px/1.35 system-ui, "DejaVu Sans", sans-serif; }
nav ol { padding-left: 1.9em; margin: .5em 0; color: var(--soft); }
nav li { padding: .16em 0; }
nav > a, nav .more a { display: block; padding: .2em 0; }
nav .name { font-weight: 700; color: var(--ink); font-size: 16px; }
nav summary { display: none; }
main { min-width: 0; }
section { border-top: 1px solid var(--line); padding: 1rem 2rem 3rem; }
section:first-child { border-top: 0; }
h1 { font-size: 2.2rem; margin: 1.2rem 0 .8rem; padding: 0 2rem; line-height: 1.15; }
h2 { font-size: 1.7rem; margin: 1.2rem 0 .8rem; line-height: 1.2; }
h2 small { color: var(--soft); font-weight: 400; margin-right: .35em; }
h3 { font: 600 13px/1.4 system-ui, "DejaVu Sans", sans-serif; letter-spacing: .06em; text-transform: uppercase; color: var(--soft);
  margin: 2rem 0 .5rem; }
p { margin: 0 0 .7em; max-width: 46rem; }
hr { border: 0; border-top: 1px solid var(--line); margin: 1.6rem 0; }
i.m { font-family: "STIX Two Text", "STIX Two Math", Charter, Georgia, "DejaVu Serif", serif; } sub { font-size: .72em; line-height: 0; }
pre, code { font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; }
code { font-size: .84em; overflow-wrap: anywhere; }
pre { font-size: 12.5px; line-height: 1.45; margin: 0 0 .9em; overflow-x: auto; max-width: 100%%; }
.note pre { font-size: 11.5px; }
.row { display: grid; grid-template-columns: minmax(0, 4fr) minmax(0, 11fr); gap: 0 1.2rem; border-top: 1px dotted var(--line); padding: .55rem 0; }
.row:first-of-type { border-top: 0; }
.note { font-size: 15px; line-height: 1.45; }
.row.bare { grid-template-columns: minmax(0, 1fr); }
pre.code { background: var(--code); border-radius: 5px; padding: .6em .8em; margin: 0; font-size: 11.5px; align-self: start; }

pre.code span { display: block; white-space: pre-wrap; overflow-wrap: anywhere; padding-left: 3em; text-indent: -3em; }
pre.code.plain { margin-bottom: .9em; } p.item { padding-left: 1.2em; text-indent: -1.2em; margin-bottom: .35em; }
pre.code span:target, a:target + p { background: color-mix(in srgb, var(--link) 18%%, transparent); }
pre.code i { font-style: normal; } i.c { color: var(--soft); } i.s { color: var(--str); } i.p { color: var(--mark); }
pre.code b { font-weight: 600; color: var(--mark); } pre.code a { color: inherit; } pre.code a:hover { color: var(--link); }
.eq { display: flex; flex-wrap: wrap; align-items: center; gap: .3rem 2.2rem; margin: .5em 0 1em; max-width: 60rem; overflow-x: auto; overflow-y: hidden; padding: .25em 0; }
.eq .parts, .eq pre { margin: 0 auto; min-width: 0; } .eq math { font-size: 1.08em; flex: 0 0 auto; padding: 0 .2em; }
.eq .no { font: 11px "DejaVu Sans Mono", monospace; color: var(--soft); flex: none; margin-left: auto; }
.note .eq { font-size: .85em; }
math { font-family: "STIX Two Math", "Latin Modern Math", "Cambria Math", "DejaVu Math TeX Gyre", math; }
mtd[columnalign="left"] { text-align: left; } mtd[columnalign="right"] { text-align: right; }
a.tag { font-size: .8em; font-family: "DejaVu Sans Mono", monospace; white-space: nowrap; } pre a.tag { font-size: inherit; }
details { margin: 0 0 1em; } details summary { font: 12px system-ui, "DejaVu Sans", sans-serif; color: var(--soft); cursor: pointer; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 14px; } td, th { border-bottom: 1px solid var(--line); padding: .5em .8em .5em 0; text-align: left; vertical-align: top; }
td.tag { font: 12px "DejaVu Sans Mono", monospace; white-space: nowrap; } td > div { max-width: 50rem; overflow-x: auto; overflow-y: hidden; padding: .2em 0; }
.parts { display: flex; flex-wrap: wrap; gap: .2rem 1.8rem; align-items: center; } td > div math { font-size: .92em; flex: 0 0 auto; } td small { color: var(--soft); } #formulas td:nth-child(3) { min-width: 13rem; } #formulas td:last-child { max-width: 7rem; min-width: 5rem; }
table.plain { margin: .4em 0 1em; }
.cards code { font-size: 12px; }
@media (min-width: 1000px) {
  body { display: grid; grid-template-columns: 15rem minmax(0, 1fr); }
  nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; border-right: 1px solid var(--line); padding: 1rem 1rem 2rem 1.2rem; }
  nav details > div { display: block; }
  #formulas table { table-layout: fixed; width: 100%%; } #formulas th:nth-child(1) { width: 8.5rem; } #formulas th:nth-child(3) { width: 22%%; }
  #formulas th:nth-child(4) { width: 8rem; } #formulas td > div { max-width: 100%%; scrollbar-width: thin; } #formulas td.tag { overflow-wrap: anywhere; white-space: normal; }
}
@media (max-width: 999px) {
  nav { position: sticky; top: 0; z-index: 2; background: var(--paper); border-bottom: 1px solid var(--line); padding: .5rem 1rem; max-height: 80vh; overflow-y: auto; }
  nav summary { display: block; font-size: 14px; cursor: pointer; } nav summary::before { content: "\\2630\\00a0\\00a0"; } nav > .name { display: none; } html { scroll-padding-top: 3.4rem; }
  section { padding: .6rem 1rem 2rem; } h1 { padding: 0 1rem; font-size: 1.7rem; }
  .row { grid-template-columns: minmax(0, 1fr); gap: .3rem; }
  body { font-size: 16px; } table { display: block; overflow-x: auto; }
  .eq .parts { margin: 0; }
  #operations th, #formulas th { display: none; } #operations tbody, #formulas tbody { display: block; } #operations tr, #formulas tr { display: block; border-bottom: 1px solid var(--line); padding: .5em 0; }
  #operations td, #formulas td { display: block; border: 0; padding: .1em 0; max-width: 100%%; } #formulas td > div math { display: inline math; }
  .cards td:nth-child(3)::before { content: 'backward: '; } .cards td:nth-child(4)::before { content: 'saves '; } .cards td:nth-child(5)::before { content: 'test '; }
}
@media print { nav { display: none; } .row { break-inside: avoid-page; } }
""".replace('%%', '%')

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>ctm.h, the book</title><style>%(style)s</style></head>
<body><nav><a class="name" href="#front">ctm.h</a><details open><summary>ctm.h: chapters</summary><div>%(chapters)s<div class="more">%(more)s</div></div></details></nav>
<main><h1>Consistency trajectory models from scratch</h1>
%(body)s</main>
<script>
// In a narrow window the list of chapters starts closed, and closes again after a choice.
(function () {
  var list = document.querySelector('nav details'), narrow = matchMedia('(max-width: 999px)');
  function fit() { list.open = !narrow.matches; }
  fit(); narrow.addEventListener('change', fit);
  list.addEventListener('click', function (e) { if (narrow.matches && e.target.tagName === 'A') list.open = false; });
})();
</script></body></html>
"""


def read_notes(path):
    """tag -> (what, where in the paper) from the first table of PAPER_NOTES.md."""
    notes = {}
    for line in read(path).split('\n'):
        cells = [cell.strip() for cell in line.split('|')]
        if len(cells) > 5 and cells[1].startswith('`['):
            notes[cells[1].strip('`[]')] = (cells[2], cells[3])
    return notes


def check(book, page, formulas):
    """Every line once; every link has an end; nothing is fetched; every tag of the header has a formula, and every formula its tag."""
    wrong = []
    missing = sorted(set(range(1, len(book.lines) + 1)) - set(book.seen))
    twice = sorted({n for n in book.seen if book.seen.count(n) > 1}) if len(book.seen) != len(set(book.seen)) else []
    if missing:
        wrong.append('lines of the header that are not in the page: %s' % missing[:10])
    if twice:
        wrong.append('lines of the header that are there twice: %s' % twice[:10])
    ids = re.findall(r' id="([^"]+)"', page)
    if len(ids) != len(set(ids)):
        wrong.append('anchors that are there twice: %s' % sorted({i for i in ids if ids.count(i) > 1})[:5])
    dead = sorted(set(re.findall(r'href="#([^"]+)"', page)) - set(ids))
    if dead:
        wrong.append('links without an end: %s' % dead[:10])
    if re.search(r'(?:src|href)="(?!#)|@import|url\(', page):
        wrong.append('the page would fetch something')
    for tag in sorted(set(formulas) - set(book.used)):
        wrong.append('%s has a formula but is not in the header' % tag)
    for card in book.cards():
        if len(card) < 6:
            wrong.append('the card of %s, line %d, lacks its lines Backward, Saves or Test' % (card[1], card[0]))
    for tag in sorted(set(book.used) - set(formulas)):
        wrong.append('%s is in the header, line %d, but has no formula' % (tag, book.used[tag][0]))
    for tag in sorted(set(book.math) & set(book.used) - set(book.anchor)):
        wrong.append('the formula of %s is set in no chapter: its tag must stand in the implementation' % tag)
    print('weave.py: %d lines, %d chapters, %d tags, %d of them with a formula (%d rendered), %d links' %
          (len(book.lines), len({p.chapter for p in book.parts}) - 1, len(book.used), len(formulas), len(book.math), page.count('href="#')))
    return wrong


def main():
    args = [a for a in sys.argv[1:] if not a.startswith('--')]
    flags = {a for a in sys.argv[1:] if a.startswith('--')}
    if len(args) != 4 or flags - {'--plain', '--check'}:
        sys.stderr.write(__doc__)
        sys.exit(2)
    formulas = read_formulas(args[1])
    math = render(formulas, '--plain' in flags)
    if formulas and not math:
        print('weave.py: pandoc is not used: formulas stay as the header writes them')
    book = Book(read(args[0]), formulas, math, read_notes(args[2]))
    page = book.page()
    if '--check' in flags:
        wrong = check(book, page, formulas)
        for line in wrong:
            sys.stderr.write('weave.py: %s\n' % line)
        if wrong:
            sys.exit(1)
    try:
        os.makedirs(os.path.dirname(args[3]) or '.', exist_ok=True)
        with open(args[3] + '.tmp', 'w', encoding='utf-8') as f:
            f.write(page)
        os.replace(args[3] + '.tmp', args[3])
    except OSError as e:
        fail('%s: %s' % (args[3], e.strerror))


if __name__ == '__main__':
    main()
