/* plot.h - small SVG figures in C99 (also compiles as C++). Needs ctm.h only for its files (ctm_output).

       plot *p = plot_open("figure.svg", 900, 420, "Two moons");
       plot_grid_panel(p, 1, 2, 0, "data");
       plot_axes(p, -2, 2, -2, 2, "x\xE2\x82\x81", "x\xE2\x82\x82", PLOT_EQUAL);
       plot_points(p, n, xy, 2, plot_color(0), 1.2, 0.6);
       plot_legend_add(p, PLOT_POINT, plot_color(0), "samples");
       if (plot_close(p) != 0) perror("figure.svg");

   Conventions
     - A figure is a sequence of panels. Each panel is opened with
       plot_grid_panel() or plot_panel(), given its scales with plot_axes(),
       and then drawn into. Whatever is drawn is clipped to the panel; drawing
       before plot_axes() has no effect.
     - Lengths, widths and radii are in pixels (y grows downwards); positions
       inside a panel are in data coordinates (y grows upwards).
     - Colours are CSS colours. PLOT_INK is the text colour, which follows the
       light or dark mode of the reader; plot_color(i) is a palette that is
       legible on both backgrounds.
     - All strings are UTF-8, are copied (or written) at once, and may be
       NULL, which means "none".
     - The figure is built in memory. Errors are remembered and reported by
       plot_close(); every function accepts a NULL plot and then does nothing.

   Dark mode uses ordinary CSS classes inside one media query rather than
   var(), because several SVG converters do not know custom properties. A
   reader that ignores the media query shows the light figure. */
#ifndef PLOT_H
#define PLOT_H

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../ctm.h"

// The text colour of the current light or dark mode.
#define PLOT_INK "currentColor"

// A blank cell in plot_heat() or a gap in plot_line(). NaN works as well.
#define PLOT_MISSING 1e300

// Flags of plot_axes(), plot_heat(), plot_cmap() and plot_layout().
enum {
    PLOT_LOGX      = 1 << 0, // axes: logarithmic x
    PLOT_LOGY      = 1 << 1, // axes: logarithmic y
    PLOT_EQUAL     = 1 << 2, // axes: one unit is equally long in x and y
    PLOT_NOXTICKS  = 1 << 3, // axes: no x ticks and no vertical grid lines
    PLOT_NOYTICKS  = 1 << 4, // axes: no y ticks and no horizontal grid lines
    PLOT_NOTICKS   = PLOT_NOXTICKS | PLOT_NOYTICKS, // axes and layout
    PLOT_DIVERGING = 1 << 5, // heat, cmap: blue - white - orange
    PLOT_LOGCOLOR  = 1 << 6, // heat: logarithmic colour scale
    PLOT_TOPDOWN   = 1 << 7, // heat: first row at the top, as in a table
    PLOT_NUMBERS   = 1 << 8, // heat: print the value in every cell
    PLOT_COLORBAR  = 1 << 9, // layout: leave room for a colour bar
    PLOT_LEGENDROW = 1 << 10 // layout: leave room for PLOT_BELOW_TITLE
};

// Kinds of legend entries; the three marks are also the shapes of plot_marks().
enum {
    PLOT_LINE, PLOT_DASH, PLOT_POINT, PLOT_BOX, PLOT_BAND,
    PLOT_CIRCLE, PLOT_SQUARE, PLOT_CROSS
};

// Positions of a legend.
enum {
    PLOT_TOPRIGHT, PLOT_TOPLEFT, PLOT_BOTTOMRIGHT, PLOT_BOTTOMLEFT,
    PLOT_BELOW_TITLE // one row below the title of the figure
};

enum {
    PLOT_TEXT = 128,   // bytes kept of a title or a legend label
    PLOT_ENTRIES = 12, // legend entries per panel
    PLOT_TICKS = 128,  // ticks per axis
    PLOT_LEVELS = 96   // distinct colours of a heat map
};

typedef struct {
    double a, b; // data values at the left (bottom) and right (top) edge
    int log;
} plot_axis;

typedef struct {
    int kind;
    char color[32], label[PLOT_TEXT];
} plot_entry;

// A figure under construction. Treat it as opaque.
typedef struct {
    char *path, *s;        // destination, text so far
    size_t n, cap;         // bytes used and allocated
    int failed;            // errno of the first failure or 0
    unsigned tag, ids;     // make element ids unique
    double width, height;  // figure size
    double head;           // height of the title block
    int layout;            // flags of plot_layout()
    double margin[4];      // left, right, top, bottom; < 0 = automatic
    int panel, ready;      // panel open, axes set
    double x, y, w, h;     // data area of the panel
    plot_axis ax, ay;
    unsigned clip;         // id of the clip path
    char title[PLOT_TEXT];
    plot_entry entry[PLOT_ENTRIES];
    int entries, place;
} plot;

// ---- Numbers -----------------------------------------------------------------------------------------------------------

// 1 if v is an ordinary number, also under -ffast-math: looks at the bits.
static inline int plot_ok(double v) {
    unsigned long long u;
    memcpy(&u, &v, sizeof u);
    return (u >> 52 & 2047) < 1023 + 990; // |v| < 2^990, about 1e298
}

static inline double plot_clamp(double v, double lo, double hi) {
    return v < lo ? lo : v > hi ? hi : v;
}

// Largest integer e with 10^e <= v, for v > 0, safe against rounding.
static inline int plot_exponent(double v) {
    return (int)floor(log10(v) + 1e-9);
}

// Nearest integer in units of 0.1 px; far-away values are clamped.
static inline long plot_deci(double px) {
    return (long)floor(plot_clamp(px, -1e5, 1e5) * 10 + 0.5);
}

//
// Writes v with at most `dec` decimals to buf (at least 40 bytes), always with
// a decimal point and never as "-0"; `trim` removes trailing zeros. Returns
// the length. `minus` is the minus sign to use.
static inline int plot_fixed(char *buf, double v, int dec, int trim,
                             const char *minus) {
    long long scale = 1, k;
    int i, n;
    if (!plot_ok(v)) v = 0;
    if (dec > 15) dec = 15;
    for (i = 0; i < dec; i++) scale *= 10;
    k = (long long)floor(plot_clamp(fabs(v) * (double)scale, 0, 1e17) + 0.5);
    n = snprintf(buf, 28, "%s%lld", v < 0 && k ? minus : "", k / scale);
    if (dec > 0 && (!trim || k % scale)) {
        buf[n++] = '.';
        for (k %= scale, i = 0; i < dec; i++) {
            scale /= 10;
            buf[n++] = (char)('0' + k / scale % 10);
        }
        while (trim && buf[n - 1] == '0') n--;
    }
    buf[n] = 0;
    return n;
}

// ---- Output buffer -----------------------------------------------------------------------------------------------------

// Appends n bytes. A failed allocation is remembered for plot_close().
static inline void plot_put(plot *p, const char *s, size_t n) {
    if (p->failed) return;
    if (p->n + n > p->cap) {
        size_t cap = 2 * p->cap + n + 4096;
        char *t = (char *)realloc(p->s, cap);
        if (!t) { p->failed = ENOMEM; return; }
        p->s = t;
        p->cap = cap;
    }
    memcpy(p->s + p->n, s, n);
    p->n += n;
}

static inline void plot_puts(plot *p, const char *s) {
    plot_put(p, s, strlen(s));
}

//
// Bytes of the UTF-8 character at s, or 0 if it is none that XML may hold: a
// broken one, a control character, half of a UTF-16 pair, U+FFFE or U+FFFF.
static inline int plot_char(const char *s) {
    const unsigned char *p = (const unsigned char *)s;
    unsigned long code;
    int n = *p < 0x80 ? 1 : *p < 0xC2 ? 0 : *p < 0xE0 ? 2 : *p < 0xF0 ? 3
          : *p < 0xF5 ? 4 : 0, i;
    code = n < 2 ? *p : *p & (0x7Fu >> n);
    for (i = 1; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80) return 0;
        code = code << 6 | (p[i] & 0x3Fu);
    }
    if ((code < 32 && code != '\t' && code != '\n' && code != '\r') || (n == 3 && code < 0x800) || (n == 4 && code < 0x10000)
        || (code >= 0xD800 && code < 0xE000) || code == 0xFFFE
        || code == 0xFFFF || code > 0x10FFFF) return 0;
    return n;
}

//
// Markup for the character at s, whose bytes are counted in *bytes; buf has
// room for 5. What XML cannot hold becomes U+FFFD.
static inline const char *plot_markup(const char *s, int *bytes, char *buf) {
    *bytes = 1;
    if (*s == '&') return "&amp;";
    if (*s == '<') return "&lt;";
    if (*s == '>') return "&gt;";
    if (*s == '"') return "&quot;";
    if (*s == '\'') return "&#39;";
    if (*s == '\r') return "&#13;";
    *bytes = plot_char(s);
    if (*bytes == 0) { *bytes = 1; return "\xEF\xBF\xBD"; }
    memcpy(buf, s, (size_t)*bytes);
    buf[*bytes] = 0;
    return buf;
}

// Appends text with what is special in XML escaped.
static inline void plot_escape(plot *p, const char *s) {
    char buf[8];
    int n;
    for (; s && *s; s += n) plot_puts(p, plot_markup(s, &n, buf));
}

static inline void plot_number(plot *p, double v) {
    char buf[40];
    plot_put(p, buf, (size_t)plot_fixed(buf, v, 2, 1, "-"));
}

// Appends an integer of path data; a blank only where the syntax needs one.
static inline void plot_step(plot *p, long k, int blank) {
    char buf[32];
    int n = snprintf(buf, sizeof buf, "%s%ld", blank && k >= 0 ? " " : "", k);
    plot_put(p, buf, (size_t)n);
}

//
// Appends a template. %n takes a double, %u an unsigned id, %s a string of
// markup, %e a string to be escaped.
static inline void plot_emit(plot *p, const char *f, ...) {
    va_list ap;
    char buf[48];
    va_start(ap, f);
    while (*f) {
        size_t run = strcspn(f, "%");
        plot_put(p, f, run);
        f += run;
        if (!*f) break;
        if (f[1] == 'n') plot_number(p, va_arg(ap, double));
        else if (f[1] == 's') plot_puts(p, va_arg(ap, const char *));
        else if (f[1] == 'e') plot_escape(p, va_arg(ap, const char *));
        else if (f[1] == 'u') {
            snprintf(buf, sizeof buf, "p%x-%u", p->tag, va_arg(ap, unsigned));
            plot_puts(p, buf);
        }
        f += 2;
    }
    va_end(ap);
}

// Copies a string, cutting it at a UTF-8 character boundary if too long.
static inline void plot_copy(char *dst, size_t size, const char *src) {
    size_t n = src ? strlen(src) : 0;
    if (n >= size)
        for (n = size - 1; n && ((unsigned char)src[n] & 0xC0) == 0x80;) n--;
    if (n) memcpy(dst, src, n);
    dst[n] = 0;
}

// Rough width in pixels of a text set in the given font size.
static inline double plot_text_width(const char *s, double size) {
    double em = 0;
    for (; s && *s; s++) {
        unsigned char c = (unsigned char)*s;
        if ((c & 0xC0) == 0x80) continue; // UTF-8 continuation byte
        if (strchr("ijlft.,:;'|!()[] ", c)) em += 0.36;
        else if (strchr("mwMW@%", c)) em += 0.92;
        else em += c >= 'A' && c <= 'Z' ? 0.69 : 0.61;
    }
    return em * size;
}

// Font size, at most `size` and at least 11, at which s fits into `width`.
static inline double plot_fit(const char *s, double size, double width) {
    double w = plot_text_width(s, size);
    return w <= width ? size : plot_clamp(size * width / w, 11, size);
}

// ---- Colours -----------------------------------------------------------------------------------------------------------

//
// Colour i of the series palette as "#rrggbb" (static storage). The first six
// stay apart under the common colour vision deficiencies; i wraps around.
static inline const char *plot_color(int i) {
    static const char *const c[8] = {
        "#3f72ea", /* blue   */ "#ea8f1c", /* orange */
        "#16a06e", /* green  */ "#ac4aa4", /* purple */
        "#56b0ee", /* sky    */ "#a8562f", /* brown  */
        "#707b83", /* grey   */ "#cd97d3"  /* pink   */
    };
    return c[(i % 8 + 8) % 8];
}

// Key colours of the two maps; *n receives their number.
static inline const unsigned *plot_keys(int flags, int *n) {
    // lightness L* rises evenly from 15 to 90
    static const unsigned seq[8] = { 0x1c1f58, 0x3a2d84, 0x6a3296, 0x9c3a90,
                                     0xcd4f7b, 0xee7659, 0xf9aa53, 0xfbe08a };
    // L* is symmetric about the neutral centre
    static const unsigned div[9] = { 0x123f7a, 0x2b74b8, 0x74aedb, 0xbcd8ea,
                                     0xf1f0ee, 0xf4ccb2, 0xe5925f, 0xc4552a,
                                     0x7f2a12 };
    *n = flags & PLOT_DIVERGING ? 9 : 8;
    return flags & PLOT_DIVERGING ? div : seq;
}

//
// Colour at t in [0,1] of the sequential map (dark to light) or, with
// PLOT_DIVERGING, of the diverging one. Writes "#rrggbb" to out (8 bytes) and
// returns out.
static inline char *plot_cmap(char *out, double t, int flags) {
    int n, k, shift, pos = 1;
    const unsigned *key = plot_keys(flags, &n);
    double f = plot_ok(t) ? plot_clamp(t, 0, 1) * (n - 1) : 0;
    k = f >= n - 1 ? n - 2 : (int)f;
    f -= k;
    out[0] = '#';
    for (shift = 16; shift >= 0; shift -= 8) {
        double a = key[k] >> shift & 255, b = key[k + 1] >> shift & 255;
        int c = (int)(a + f * (b - a) + 0.5);
        out[pos++] = "0123456789abcdef"[c >> 4];
        out[pos++] = "0123456789abcdef"[c & 15];
    }
    out[7] = 0;
    return out;
}

// ---- Scales and ticks --------------------------------------------------------------------------------------------------

// Makes the limits of an axis usable: finite, distinct, positive if log.
static inline plot_axis plot_axis_make(double a, double b, int log_scale) {
    plot_axis s;
    if (!plot_ok(a) || !plot_ok(b)) { a = 0; b = 1; }
    if (log_scale && (a > b ? a : b) <= 0) log_scale = 0;
    if (log_scale && a <= 0) a = b * 1e-3;
    if (log_scale && b <= 0) b = a * 1e-3;
    if (fabs(a - b) <= 1e-12 * (fabs(a) + fabs(b))) {
        if (log_scale) { a /= 2; b *= 2; }
        else { double d = 0.5 + 0.1 * fabs(a); a -= d; b += d; }
    }
    s.a = a;
    s.b = b;
    s.log = log_scale;
    return s;
}

// Position of v along an axis: 0 at its start, 1 at its end.
static inline double plot_fraction(const plot_axis *s, double v) {
    if (s->log) return log(v / s->a) / log(s->b / s->a);
    return (v - s->a) / (s->b - s->a);
}

// Data point to pixels. Returns 0 if it has no position (NaN, log of <= 0).
static inline int plot_map(const plot *p, double x, double y,
                           double *px, double *py) {
    if (!plot_ok(x) || !plot_ok(y)) return 0;
    if ((p->ax.log && x <= 0) || (p->ay.log && y <= 0)) return 0;
    *px = p->x + p->w * plot_fraction(&p->ax, x);
    *py = p->y + p->h * (1 - plot_fraction(&p->ay, y));
    return 1;
}

typedef struct {
    int n;
    int power;              // labels are powers of ten: m x 10^e
    double step;            // spacing of a linear scale, 0 for 1-2-5
    double v[PLOT_TICKS];
    char label[PLOT_TICKS]; // 1: labelled tick, 0: faint grid line only
} plot_ticks;

static inline void plot_tick_add(plot_ticks *t, double v, int label) {
    if (t->n >= PLOT_TICKS) return;
    t->v[t->n] = v;
    t->label[t->n++] = (char)label;
}

// Ticks at the multiples of `step` between the limits of a linear axis.
static inline void plot_ticks_set(plot_ticks *t, const plot_axis *s, double step) {
    double lo = s->a < s->b ? s->a : s->b, hi = s->a < s->b ? s->b : s->a;
    double big = fabs(lo) > fabs(hi) ? fabs(lo) : fabs(hi), k, last;
    t->n = 0;
    t->step = step;
    t->power = big >= 1e5 || big < 1e-3;
    last = floor(hi / step + 1e-6);
    for (k = ceil(lo / step - 1e-6); k <= last && t->n < PLOT_TICKS; k++)
        plot_tick_add(t, k * step, 1);
}

// At most about `count` ticks at 1, 2 or 5 times a power of ten.
static inline void plot_ticks_linear(plot_ticks *t, const plot_axis *s, int count) {
    double raw = fabs(s->b - s->a) / count;
    double unit = pow(10, plot_exponent(raw)), r = raw / unit * 0.999;
    plot_ticks_set(t, s, unit * (r <= 1 ? 1 : r <= 2 ? 2 : r <= 5 ? 5 : 10));
}

// Decades, or 1-2-5 within a decade or two, with faint lines between.
static inline void plot_ticks_log(plot_ticks *t, const plot_axis *s, int count) {
    double lo = s->a < s->b ? s->a : s->b, hi = s->a < s->b ? s->b : s->a;
    double decades = log10(hi / lo);
    int e, m, dense = decades <= 2.01, every = (int)ceil(decades / count);
    if (decades < 0.8) { plot_ticks_linear(t, s, count); return; }
    t->power = !dense || lo < 1e-3 || hi >= 1e5;
    for (e = plot_exponent(lo); e <= plot_exponent(hi); e++)
        for (m = 1; m <= (decades > 9 ? 1 : 9); m++) {
            double v = m * pow(10, e);
            int label = m == 1 ? dense || (e % every + every) % every == 0
                               : dense && (m == 2 || m == 5);
            if (v >= lo * (1 - 1e-9) && v <= hi * (1 + 1e-9))
                plot_tick_add(t, v, label);
        }
}

static inline void plot_ticks_make(plot_ticks *t, const plot_axis *s, int count) {
    count = count < 2 ? 2 : count > 10 ? 10 : count;
    t->n = t->power = 0;
    t->step = 0;
    if (s->log) plot_ticks_log(t, s, count);
    else plot_ticks_linear(t, s, count);
}

//
// Writes the markup of a tick label to buf (160 bytes) and returns its
// approximate width in pixels at the tick font size of 13.
static inline double plot_tick_text(char *buf, const plot_ticks *t, double v) {
    static const char minus[] = "\xE2\x88\x92", times[] = "\xC3\x97";
    char m[40], e[40];
    double size = t->step > 0 ? t->step : fabs(v);
    int ex;
    if (fabs(v) < 1e-9 * size) { strcpy(buf, "0"); return 8; }
    if (!t->power) {
        int dec = -plot_exponent(size);
        plot_fixed(buf, v, dec > 0 ? dec : 0, 0, minus);
        return plot_text_width(buf, 13);
    }
    ex = plot_exponent(fabs(v));
    plot_fixed(m, v / pow(10, ex), ex - plot_exponent(size), 1, minus);
    plot_fixed(e, ex, 0, 1, minus);
    if (!strcmp(m, "1")) m[0] = 0;
    snprintf(buf, 160, "%s%s10<tspan dy='-5' font-size='10.5'>%s</tspan>",
             m, m[0] ? times : "", e);
    return plot_text_width(m, 13) + (m[0] ? 10 : 0) + 16
         + plot_text_width(e, 10.5);
}

// Width in pixels of the widest label; *labels receives their number.
static inline double plot_ticks_width(const plot_ticks *t, int *labels) {
    char buf[160];
    double widest = 0;
    int i;
    for (*labels = i = 0; i < t->n; i++) {
        double w = t->label[i] ? plot_tick_text(buf, t, t->v[i]) : 0;
        if (w > widest) widest = w;
        *labels += t->label[i] != 0;
    }
    return widest;
}

// Ticks of a horizontal axis: as many as fit side by side.
static inline void plot_ticks_across(plot_ticks *t, const plot_axis *s, double room) {
    int count = (int)(room / 44), labels;
    do plot_ticks_make(t, s, count);
    while ((plot_ticks_width(t, &labels) + 16) * (labels - 1) > room && --count > 1);
}

// ---- Figure and panels -------------------------------------------------------------------------------------------------

static inline void plot_legend_draw(plot *p);

static inline void plot_clip_begin(plot *p) {
    plot_emit(p, "<g clip-path='url(#%u)'>\n", p->clip);
}

static inline void plot_clip_end(plot *p) {
    plot_puts(p, "</g>\n");
}

// Completes the current panel: frame, title and legend go on top.
static inline void plot_panel_end(plot *p) {
    if (p->ready) {
        plot_clip_end(p);
        plot_emit(p, "<rect x='%n' y='%n' width='%n' height='%n' fill='none' "
                     "stroke='currentColor' stroke-opacity='.45'/>\n",
                  p->x, p->y, p->w, p->h);
    }
    if (p->panel && p->title[0])
        plot_emit(p, "<text x='%n' y='%n' font-size='%n' font-weight='600' "
                     "text-anchor='middle'>%e</text>\n",
                  p->x + p->w / 2, p->y - 10,
                  plot_fit(p->title, 15, p->w + 20), p->title);
    if (p->panel) plot_legend_draw(p);
    p->panel = p->ready = p->entries = 0;
}

//
// Starts a figure of w by h pixels that plot_close() will write to `path`.
// The title (may be NULL) is shown at the top and names the image for screen
// readers. Returns NULL if memory is short; the caller owns the result and
// releases it with plot_close().
static inline plot *plot_open(const char *path, double w, double h,
                              const char *title) {
    plot *p = (plot *)calloc(1, sizeof *p);
    size_t i, len = path ? strlen(path) : 0;
    if (!p) return NULL;
    p->path = (char *)malloc(len + 1);
    if (!p->path) { free(p); errno = ENOMEM; return NULL; }
    if (len) memcpy(p->path, path, len);
    p->path[len] = 0;
    p->tag = 2166136261u;
    for (i = 0; i < len; i++) p->tag = (p->tag ^ (unsigned char)path[i]) * 16777619u;
    p->tag &= 0xffffff;
    p->width = w;
    p->height = h;
    p->head = title && *title ? 44 : 6;
    for (i = 0; i < 4; i++) p->margin[i] = -1;

    plot_emit(p, "<svg xmlns='http://www.w3.org/2000/svg' width='%n' height='%n' "
                 "viewBox='0 0 %n %n' role='img' aria-labelledby='%u' "
                 "class='plot' color='#1f2328' fill='currentColor' "
                 "font-family='sans-serif' font-size='13'>\n"
                 "<title id='%u'>%e</title>\n", w, h, w, h, 0u, 0u,
              title && *title ? title : "figure");
    plot_puts(p,
        "<style>\n"
        ".plot{color:#1f2328;font-family:system-ui,-apple-system,'Segoe UI',"
        "Roboto,'Helvetica Neue','Noto Sans','DejaVu Sans',Arial,sans-serif}\n"
        ".plot-bg{fill:#fff}\n"
        ".plot-halo{stroke:#fff}\n"
        "@media (prefers-color-scheme:dark){\n"
        ".plot{color:#e3e8ee}\n"
        ".plot-bg{fill:#10151c}\n"
        ".plot-halo{stroke:#10151c}\n"
        "}\n"
        "</style>\n");
    plot_emit(p, "<rect class='plot-bg' width='%n' height='%n' fill='#fff'/>\n", w, h);
    if (title && *title)
        plot_emit(p, "<text x='%n' y='29' font-size='%n' font-weight='600' "
                     "text-anchor='middle'>%e</text>\n",
                  w / 2, plot_fit(title, 19, 0.82 * w), title);
    return p;
}

//
// Finishes the figure, writes it and releases p in every case. The file gets
// its name when it is complete, so that readers never see half of it. Returns
// 0, or -1 with errno set; an existing figure is then untouched.
static inline int plot_close(plot *p) {
    ctm_output out;
    int err;
    if (!p) { errno = ENOMEM; return -1; }
    plot_panel_end(p);
    plot_puts(p, "</svg>\n");
    err = p->failed;
    if (!err && !ctm_output_open(&out, p->path)) err = errno;
    if (!err) {
        fwrite(p->s, 1, p->n, out.file);
        if (!ctm_output_close(&out)) err = errno;
    }
    free(p->path);
    free(p->s);
    free(p);
    if (err) errno = err;
    return err ? -1 : 0;
}

//
// Says what the panels of plot_grid_panel() need: PLOT_COLORBAR leaves room
// to the right of each panel, PLOT_NOTICKS shrinks the margins of panels
// without ticks, PLOT_LEGENDROW leaves a row below the title of the figure
// for a PLOT_BELOW_TITLE legend. Call it before the first panel.
static inline void plot_layout(plot *p, int flags) {
    if (p) p->layout = flags;
}

//
// Overrides the margins in pixels around the data area of each grid cell;
// a negative value restores the automatic one.
static inline void plot_margins(plot *p, double left, double right,
                                double top, double bottom) {
    if (!p) return;
    p->margin[0] = left;
    p->margin[1] = right;
    p->margin[2] = top;
    p->margin[3] = bottom;
}

// Starts a panel whose data area is the pixel rectangle x, y, w, h.
static inline void plot_panel(plot *p, double x, double y, double w, double h,
                              const char *title) {
    if (!p) return;
    plot_panel_end(p);
    p->panel = 1;
    p->place = PLOT_TOPRIGHT;
    p->x = x;
    p->y = y;
    p->w = w > 1 ? w : 1;
    p->h = h > 1 ? h : 1;
    plot_copy(p->title, sizeof p->title, title);
}

//
// Starts panel i (0-based, row by row) of an even rows-by-cols arrangement
// below the title of the figure. A NULL title takes no room; use "" to keep
// an untitled panel aligned with titled neighbours.
static inline void plot_grid_panel(plot *p, int rows, int cols, int i,
                                   const char *title) {
    double m[4], cw, ch, top;
    int k, bare;
    if (!p || rows < 1 || cols < 1) return;
    bare = (p->layout & PLOT_NOTICKS) == PLOT_NOTICKS;
    m[0] = bare ? 30 : 70;
    m[1] = (bare ? 10 : 20) + (p->layout & PLOT_COLORBAR ? 84 : 0);
    m[2] = title ? 32 : 14;
    m[3] = bare ? 28 : 54;
    for (k = 0; k < 4; k++)
        if (p->margin[k] >= 0) m[k] = p->margin[k];
    top = p->head + (p->layout & PLOT_LEGENDROW ? 24 : 0);
    cw = (p->width - 8) / cols;
    ch = (p->height - top - 4) / rows;
    plot_panel(p, 4 + i % cols * cw + m[0], top + i / cols * ch + m[2],
               cw - m[0] - m[1], ch - m[2] - m[3], title);
}

//
// Shrinks the panel until both axes share one unit. It stays centred from left
// to right and keeps its top, so that titles in a row remain aligned.
static inline void plot_equalize(plot *p) {
    double ux = p->w / fabs(p->ax.b - p->ax.a);
    double uy = p->h / fabs(p->ay.b - p->ay.a);
    if (ux > uy) {
        p->x += p->w * (1 - uy / ux) / 2;
        p->w *= uy / ux;
    } else {
        p->h *= ux / uy;
    }
}

// Grid lines of one axis as a single path.
static inline void plot_grid_lines(plot *p, const plot_ticks *t, int vertical,
                                   int major) {
    int i;
    plot_emit(p, "<path fill='none' stroke='currentColor' stroke-opacity='%s' d='",
              major ? ".13" : ".055");
    for (i = 0; i < t->n; i++) {
        if ((t->label[i] != 0) != major) continue;
        if (vertical)
            plot_emit(p, "M%n %nv%n", p->x + p->w * plot_fraction(&p->ax, t->v[i]),
                      p->y, p->h);
        else
            plot_emit(p, "M%n %nh%n", p->x,
                      p->y + p->h * (1 - plot_fraction(&p->ay, t->v[i])), p->w);
    }
    plot_puts(p, "'/>\n");
}

// Grid lines, tick marks and tick labels of one axis.
static inline void plot_axis_draw(plot *p, const plot_ticks *t, int vertical) {
    char buf[160];
    int i;
    plot_grid_lines(p, t, vertical, 0);
    plot_grid_lines(p, t, vertical, 1);
    for (i = 0; i < t->n; i++) {
        double q;
        if (!t->label[i]) continue;
        plot_tick_text(buf, t, t->v[i]);
        if (vertical) {
            q = p->x + p->w * plot_fraction(&p->ax, t->v[i]);
            plot_emit(p, "<path d='M%n %nv4' stroke='currentColor' stroke-opacity='.45'/>"
                         "<text x='%n' y='%n' text-anchor='middle'>%s</text>\n",
                      q, p->y + p->h, q, p->y + p->h + 18, buf);
        } else {
            q = p->y + p->h * (1 - plot_fraction(&p->ay, t->v[i]));
            plot_emit(p, "<path d='M%n %nh-4' stroke='currentColor' stroke-opacity='.45'/>"
                         "<text x='%n' y='%n' text-anchor='end'>%s</text>\n",
                      p->x, q, p->x - 7, q + 4.5, buf);
        }
    }
}

// A vertical label, read from bottom to top, centred at (x, y).
static inline void plot_vertical_text(plot *p, double x, double y, double room,
                                      const char *s) {
    plot_emit(p, "<text transform='translate(%n %n) rotate(-90)' font-size='%n' "
                 "text-anchor='middle'>%e</text>\n",
              x, y, plot_fit(s, 14, room), s);
}

//
// Sets the scales of the current panel and draws grid, ticks and labels.
// x0 is at the left edge, x1 at the right, y0 at the bottom, y1 at the top
// (x0 > x1 reverses an axis). Flags: PLOT_LOGX, PLOT_LOGY, PLOT_EQUAL,
// PLOT_NOTICKS, PLOT_NOXTICKS, PLOT_NOYTICKS. Call it once per panel.
static inline void plot_axes(plot *p, double x0, double x1, double y0, double y1,
                             const char *xlabel, const char *ylabel, int flags) {
    plot_ticks tx, ty;
    double wy = 0, below = 0;
    int labels;
    if (!p || !p->panel || p->ready) return;
    p->ax = plot_axis_make(x0, x1, flags & PLOT_LOGX);
    p->ay = plot_axis_make(y0, y1, flags & PLOT_LOGY);
    if (p->ax.log || p->ay.log) flags &= ~PLOT_EQUAL;
    if (flags & PLOT_EQUAL) plot_equalize(p);
    plot_ticks_across(&tx, &p->ax, p->w);
    plot_ticks_make(&ty, &p->ay, (int)(p->h / 36));
    if (flags & PLOT_EQUAL) { // one unit, one step: the coarser of the two
        if (ty.step < tx.step) plot_ticks_set(&ty, &p->ay, tx.step);
        else plot_ticks_set(&tx, &p->ax, ty.step);
    }
    if (!(flags & PLOT_NOXTICKS)) plot_axis_draw(p, &tx, 1);
    if (!(flags & PLOT_NOYTICKS)) {
        plot_axis_draw(p, &ty, 0);
        wy = plot_ticks_width(&ty, &labels) + 6;
    }
    // without x ticks alone there may be the group names of plot_bars()
    if ((flags & PLOT_NOTICKS) != PLOT_NOTICKS) below = 20;
    if (xlabel && *xlabel)
        plot_emit(p, "<text x='%n' y='%n' font-size='%n' text-anchor='middle'>%e</text>\n",
                  p->x + p->w / 2, p->y + p->h + 19 + below,
                  plot_fit(xlabel, 14, p->w + 40), xlabel);
    if (ylabel && *ylabel)
        plot_vertical_text(p, p->x - wy - 9, p->y + p->h / 2, p->h + 30, ylabel);
    p->clip = ++p->ids;
    plot_emit(p, "<clipPath id='%u'><rect x='%n' y='%n' width='%n' height='%n'/>"
                 "</clipPath>\n", p->clip, p->x, p->y, p->w, p->h);
    plot_clip_begin(p);
    p->ready = 1;
}

// ---- Drawing -----------------------------------------------------------------------------------------------------------

typedef struct { long x, y; } plot_spot; // pixels / 10

// Serpentine order in strips 6 px high: neighbours in the file are close.
static inline int plot_spot_order(const void *pa, const void *pb) {
    const plot_spot *a = (const plot_spot *)pa, *b = (const plot_spot *)pb;
    long ra = (a->y + 1000000) / 60, rb = (b->y + 1000000) / 60;
    if (ra != rb) return ra < rb ? -1 : 1;
    if (a->x != b->x) return (a->x < b->x) == (ra % 2 == 0) ? -1 : 1;
    return a->y < b->y ? -1 : a->y > b->y;
}

//
// Draws n points as one compact path (about 8 bytes per point). Point i is
// (xy[i*stride], xy[i*stride+1]); stride is in floats. Points outside the
// panel, non-finite ones and exact repetitions are skipped. The radius is in
// pixels; the opacity applies to the set as a whole, so that overlapping
// points do not add up.
static inline void plot_points(plot *p, int n, const float *xy, int stride,
                               const char *color, double radius, double opacity) {
    plot_spot *s, last;
    int i, m = 0;
    if (!p || !p->ready || n <= 0) return;
    s = (plot_spot *)malloc((size_t)n * sizeof *s);
    if (!s) { p->failed = ENOMEM; return; }
    for (i = 0; i < n; i++) {
        const float *v = xy + (size_t)i * (size_t)stride;
        double x, y;
        if (!plot_map(p, v[0], v[1], &x, &y)) continue;
        if (x < p->x - radius || x > p->x + p->w + radius) continue;
        if (y < p->y - radius || y > p->y + p->h + radius) continue;
        s[m].x = plot_deci(x);
        s[m++].y = plot_deci(y);
    }
    qsort(s, (size_t)m, sizeof *s, plot_spot_order);
    plot_emit(p, "<path transform='scale(.1)' fill='none' stroke='%e' stroke-width='%n' "
                 "stroke-opacity='%n' stroke-linecap='round' d='",
              color, 20 * radius, opacity);
    last.x = last.y = 0;
    for (i = 0; i < m; i++) {
        if (i && s[i].x == last.x && s[i].y == last.y) continue;
        plot_puts(p, i ? "m" : "M");
        plot_step(p, s[i].x - last.x, 0);
        plot_step(p, s[i].y - last.y, 1);
        plot_puts(p, "h0");
        last = s[i];
    }
    plot_puts(p, "'/>\n");
    free(s);
}

// Pen of a path in units of 0.1 px.
typedef struct {
    plot_spot at;
    int down, first; // first: the next step follows the letter l
} plot_pen;

// Moves the pen to a pixel position; steps shorter than 0.2 px are dropped.
static inline void plot_pen_to(plot *p, plot_pen *pen, double px, double py) {
    long x = plot_deci(px), y = plot_deci(py);
    long dx = x - pen->at.x, dy = y - pen->at.y;
    if (!pen->down) {
        plot_puts(p, "M");
        plot_step(p, x, 0);
        plot_step(p, y, 1);
        plot_puts(p, "l");
        pen->down = pen->first = 1;
    } else if (labs(dx) < 2 && labs(dy) < 2) {
        return;
    } else {
        plot_step(p, dx, !pen->first);
        plot_step(p, dy, 1);
        pen->first = 0;
    }
    pen->at.x = x;
    pen->at.y = y;
}

// Ends a run; an isolated point becomes a dot.
static inline void plot_pen_up(plot *p, plot_pen *pen) {
    if (pen->down && pen->first) plot_puts(p, "0 0");
    pen->down = 0;
}

//
// Draws a curve through n points. It breaks where a coordinate is not finite
// (or PLOT_MISSING, or not positive on a log axis). width in pixels; dash is
// the length of a dash in pixels, 0 for a solid line.
static inline void plot_line(plot *p, int n, const double *x, const double *y,
                             const char *color, double width, double dash,
                             double opacity) {
    plot_pen pen;
    double px, py;
    int i;
    if (!p || !p->ready || n <= 0) return;
    memset(&pen, 0, sizeof pen);
    plot_emit(p, "<path transform='scale(.1)' fill='none' stroke='%e' stroke-width='%n' "
                 "stroke-opacity='%n' stroke-linejoin='round'",
              color, 10 * width, opacity);
    if (dash > 0) plot_emit(p, " stroke-dasharray='%n %n'", 10 * dash, 7 * dash);
    else plot_puts(p, " stroke-linecap='round'");
    plot_puts(p, " d='");
    for (i = 0; i < n; i++) {
        if (plot_map(p, x[i], y[i], &px, &py)) plot_pen_to(p, &pen, px, py);
        else plot_pen_up(p, &pen);
    }
    plot_pen_up(p, &pen);
    plot_puts(p, "'/>\n");
}

//
// Fills the region between two curves lo(x) and hi(x), for example a spread
// over repetitions. Points with a non-finite coordinate are left out.
static inline void plot_band(plot *p, int n, const double *x, const double *lo,
                             const double *hi, const char *color, double opacity) {
    plot_pen pen;
    double px, py;
    int i;
    if (!p || !p->ready || n <= 0) return;
    memset(&pen, 0, sizeof pen);
    plot_emit(p, "<path transform='scale(.1)' fill='%e' fill-opacity='%n' d='",
              color, opacity);
    for (i = 0; i < n; i++)
        if (plot_map(p, x[i], hi[i], &px, &py)) plot_pen_to(p, &pen, px, py);
    for (i = n - 1; i >= 0; i--)
        if (plot_map(p, x[i], lo[i], &px, &py)) plot_pen_to(p, &pen, px, py);
    plot_pen_up(p, &pen);
    plot_puts(p, "'/>\n");
}

// One mark at a pixel position; size is its diameter.
static inline void plot_mark(plot *p, double px, double py, int shape,
                             const char *color, double size) {
    double r = size / 2;
    if (shape == PLOT_CROSS)
        plot_emit(p, "<path d='M%n %nl%n %nm0 %nl%n %n' fill='none' stroke='%e' "
                     "stroke-width='%n' stroke-linecap='round'/>\n",
                  px - 0.8 * r, py - 0.8 * r, 1.6 * r, 1.6 * r, -1.6 * r,
                  -1.6 * r, 1.6 * r, color, 0.8 + 0.15 * size);
    else if (shape == PLOT_SQUARE)
        plot_emit(p, "<rect class='plot-halo' x='%n' y='%n' width='%n' height='%n' "
                     "fill='%e' stroke='#fff'/>\n",
                  px - 0.9 * r, py - 0.9 * r, 1.8 * r, 1.8 * r, color);
    else
        plot_emit(p, "<circle class='plot-halo' cx='%n' cy='%n' r='%n' fill='%e' "
                     "stroke='#fff'/>\n", px, py, r, color);
}

//
// Draws a few clearly visible marks: PLOT_CIRCLE, PLOT_SQUARE or PLOT_CROSS,
// `size` pixels wide, with a thin outline in the background colour. For
// thousands of points use plot_points().
static inline void plot_marks(plot *p, int n, const double *x, const double *y,
                              int shape, const char *color, double size) {
    double px, py;
    int i;
    if (!p || !p->ready) return;
    for (i = 0; i < n; i++)
        if (plot_map(p, x[i], y[i], &px, &py)
            && px > p->x - size && px < p->x + p->w + size
            && py > p->y - size && py < p->y + p->h + size)
            plot_mark(p, px, py, shape, color, size);
}

// Outline of an arrow between pixel positions, as part of a filled path.
static inline void plot_arrow_path(plot *p, double x0, double y0,
                                   double x1, double y1, double width) {
    double dx = x1 - x0, dy = y1 - y0, len = sqrt(dx * dx + dy * dy);
    double head = 4 + 3 * width, half, w = width / 2;
    if (!plot_ok(len) || len < 0.3) return;
    if (head > 0.6 * len) head = 0.6 * len; // short arrows keep a shaft
    half = 0.42 * head;
    if (w > 0.7 * half) w = 0.7 * half;
    dx /= len;
    dy /= len;
    plot_emit(p, "M%n %nL%n %nL%n %nL%n %nL%n %nL%n %nL%n %nz",
              x0 - w * dy, y0 + w * dx,
              x1 - head * dx - w * dy, y1 - head * dy + w * dx,
              x1 - head * dx - half * dy, y1 - head * dy + half * dx, x1, y1,
              x1 - head * dx + half * dy, y1 - head * dy - half * dx,
              x1 - head * dx + w * dy, y1 - head * dy - w * dx,
              x0 + w * dy, y0 - w * dx);
}

// Draws an arrow from (x0, y0) to (x1, y1) in data coordinates.
static inline void plot_arrow(plot *p, double x0, double y0, double x1, double y1,
                              const char *color, double width, double opacity) {
    double ax, ay, bx, by;
    if (!p || !p->ready) return;
    if (!plot_map(p, x0, y0, &ax, &ay) || !plot_map(p, x1, y1, &bx, &by)) return;
    plot_emit(p, "<path fill='%e' fill-opacity='%n' d='", color, opacity);
    plot_arrow_path(p, ax, ay, bx, by, width);
    plot_puts(p, "'/>\n");
}

//
// Draws a vector field on linear axes: one arrow centred in each cell of an
// nx by ny division of the panel. The vector of cell (ix, iy), with iy = 0 at
// the bottom, is (uv[2k], uv[2k+1]), k = iy*nx + ix, in data units; the cell
// centre is at x0 + (ix + 0.5)*(x1 - x0)/nx. The longest arrow is `length`
// cells long; a negative length makes all arrows |length| cells long.
static inline void plot_field(plot *p, int nx, int ny, const double *uv,
                              double length, const char *color, double width,
                              double opacity) {
    double cw, ch, cell, sx, sy, longest = 0;
    int pass, k;
    if (!p || !p->ready || nx < 1 || ny < 1) return;
    cw = p->w / nx;
    ch = p->h / ny;
    cell = cw < ch ? cw : ch;
    sx = p->w / (p->ax.b - p->ax.a);
    sy = p->h / (p->ay.b - p->ay.a);
    plot_emit(p, "<path fill='%e' fill-opacity='%n' d='", color, opacity);
    for (pass = 0; pass < 2; pass++)
        for (k = 0; k < nx * ny; k++) {
            double u, v, len, s, x, y;
            if (!plot_ok(uv[2 * k]) || !plot_ok(uv[2 * k + 1])) continue;
            u = uv[2 * k] * sx;
            v = -uv[2 * k + 1] * sy;
            len = sqrt(u * u + v * v);
            if (pass == 0 && len > longest) longest = len;
            if (pass == 0 || !(len > 0)) continue;
            s = fabs(length) * cell / (length < 0 ? len : longest) / 2;
            x = p->x + (k % nx + 0.5) * cw;
            y = p->y + p->h - (k / nx + 0.5) * ch;
            plot_arrow_path(p, x - s * u, y - s * v, x + s * u, y + s * v, width);
        }
    plot_puts(p, "'/>\n");
}

//
// Draws grouped bars. values[g*series + s] is the height of bar s in group g;
// group g occupies x in [g, g+1], so use plot_axes(p, 0, groups, ...) with
// PLOT_NOXTICKS. Bars start at 0, or at the bottom of a log axis. names (may
// be NULL) holds one label per group, written below the axis; color0 is the
// palette index of series 0.
static inline void plot_bars(plot *p, int groups, int series, const double *values,
                             const char *const *names, int color0) {
    int g, s;
    if (!p || !p->ready || groups < 1 || series < 1) return;
    for (s = 0; s < series; s++) {
        plot_emit(p, "<path fill='%s' d='", plot_color(color0 + s));
        for (g = 0; g < groups; g++) {
            double w = 0.76 / series, x = g + 0.12 + s * w, xa, xb, ya, yb;
            double base = p->ay.log ? (p->ay.a < p->ay.b ? p->ay.a : p->ay.b) : 0;
            if (!plot_map(p, x + 0.04 * w, values[g * series + s], &xa, &ya)) continue;
            if (!plot_map(p, x + 0.96 * w, base, &xb, &yb)) continue;
            ya = plot_clamp(ya, p->y - 9, p->y + p->h + 9);
            yb = plot_clamp(yb, p->y - 9, p->y + p->h + 9);
            plot_emit(p, "M%n %nH%nV%nH%nz", xa, yb, xb, ya, xa);
        }
        plot_puts(p, "'/>\n");
    }
    if (!names) return;
    plot_clip_end(p);
    for (g = 0; g < groups; g++) {
        double room = 0.96 * p->w * fabs(plot_fraction(&p->ax, g + 1.0)
                                         - plot_fraction(&p->ax, g));
        plot_emit(p, "<text x='%n' y='%n' font-size='%n' text-anchor='middle'>%e</text>\n",
                  p->x + p->w * plot_fraction(&p->ax, g + 0.5), p->y + p->h + 18,
                  plot_fit(names[g], 13, room), names[g]);
    }
    plot_clip_begin(p);
}

// ---- Heat maps ---------------------------------------------------------------------------------------------------------

// Limits of the colour scale: as given, or those of the data if lo >= hi.
static inline plot_axis plot_heat_scale(int n, const double *v, double lo,
                                        double hi, int flags) {
    int i, log_scale = flags & PLOT_LOGCOLOR, seen = 0;
    if (!(lo < hi)) {
        for (i = 0; i < n; i++) {
            if (!plot_ok(v[i]) || (log_scale && v[i] <= 0)) continue;
            if (!seen || v[i] < lo) lo = v[i];
            if (!seen || v[i] > hi) hi = v[i];
            seen = 1;
        }
        if (!seen) { lo = log_scale ? 1 : 0; hi = 10; }
        if (flags & PLOT_DIVERGING && !log_scale) {
            hi = fabs(hi) > fabs(lo) ? fabs(hi) : fabs(lo);
            lo = -hi;
        }
    }
    return plot_axis_make(lo, hi, log_scale);
}

// Colour level of a value, or -1 if it is missing.
static inline int plot_heat_level(const plot_axis *s, double v) {
    double t;
    if (!plot_ok(v)) return -1;
    t = s->log && v <= 0 ? 0 : plot_fraction(s, v);
    return (int)plot_clamp(t * PLOT_LEVELS, 0, PLOT_LEVELS - 1);
}

// A value in one to three significant digits: 1.23, 0.045, 6e-7.
static inline void plot_short(char *buf, double v) {
    static const char minus[] = "\xE2\x88\x92";
    int e = fabs(v) > 1e-200 ? plot_exponent(fabs(v)) : 0, n;
    if (e < -3 || e > 4) {
        n = plot_fixed(buf, v / pow(10, e), 0, 0, minus);
        buf[n++] = 'e';
        plot_fixed(buf + n, e, 0, 0, minus);
    } else {
        plot_fixed(buf, v, e >= 2 ? 0 : e >= 0 ? 2 - e : 1 - e, 0, minus);
    }
}

// Prints the values into the cells, dark on light and light on dark.
static inline void plot_heat_numbers(plot *p, int nx, int ny, const double *v,
                                     const plot_axis *s, int flags) {
    double cw = p->w / nx, ch = p->h / ny;
    double size = 14, widest = 0.01;
    char buf[80], c[8];
    int k;
    for (k = 0; k < nx * ny; k++) {
        double w = 0;
        if (plot_ok(v[k])) { plot_short(buf, v[k]); w = plot_text_width(buf, 1); }
        if (w > widest) widest = w;
    }
    if (size > 0.5 * ch) size = 0.5 * ch;
    if (size > 0.86 * cw / widest) size = 0.86 * cw / widest;
    for (k = 0; k < nx * ny; k++) {
        int level = plot_heat_level(s, v[k]), row = k / nx;
        unsigned rgb;
        if (level < 0) continue;
        if (!(flags & PLOT_TOPDOWN)) row = ny - 1 - row;
        plot_short(buf, v[k]);
        plot_cmap(c, (level + 0.5) / PLOT_LEVELS, flags);
        rgb = (unsigned)strtoul(c + 1, NULL, 16);
        rgb = 2 * (rgb >> 16 & 255) + 5 * (rgb >> 8 & 255) + (rgb & 255);
        plot_emit(p, "<text x='%n' y='%n' font-size='%n' text-anchor='middle' "
                     "fill='%s'>%s</text>\n",
                  p->x + (k % nx + 0.5) * cw, p->y + (row + 0.5) * ch + 0.36 * size,
                  size, rgb > 8 * 128 ? "#14181d" : "#fff", buf);
    }
}

// Colour bar to the right of the panel, outside the clipped region.
static inline void plot_heat_bar(plot *p, const plot_axis *s, int flags,
                                 const char *label) {
    double x = p->x + p->w + 12, w = 12;
    unsigned id = ++p->ids;
    char buf[160], c[8];
    plot_ticks t;
    int i, n, labels;
    plot_keys(flags, &n);
    plot_emit(p, "<linearGradient id='%u' x1='0' x2='0' y1='1' y2='0'>", id);
    for (i = 0; i < n; i++)
        plot_emit(p, "<stop offset='%n' stop-color='%s'/>", i / (n - 1.0),
                  plot_cmap(c, i / (n - 1.0), flags));
    plot_emit(p, "</linearGradient>\n<rect x='%n' y='%n' width='%n' height='%n' "
                 "fill='url(#%u)' stroke='currentColor' stroke-opacity='.45'/>\n",
              x, p->y, w, p->h, id);
    plot_ticks_make(&t, s, (int)(p->h / 36));
    for (i = 0; i < t.n; i++) {
        double y = p->y + p->h * (1 - plot_fraction(s, t.v[i]));
        if (!t.label[i]) continue;
        plot_tick_text(buf, &t, t.v[i]);
        plot_emit(p, "<path d='M%n %nh4' stroke='currentColor' stroke-opacity='.45'/>"
                     "<text x='%n' y='%n'>%s</text>\n",
                  x + w, y, x + w + 7, y + 4.5, buf);
    }
    if (label && *label)
        plot_vertical_text(p, x + w + plot_ticks_width(&t, &labels) + 28,
                           p->y + p->h / 2, p->h + 30, label);
}

//
// Fills the panel with an nx by ny heat map. values[iy*nx + ix], iy = 0 at the
// bottom (top with PLOT_TOPDOWN); cells are equally large on the page. NaN or
// PLOT_MISSING cells stay blank, as in a triangular table. vmin < vmax are the
// ends of the colour scale; pass 0, 0 for those of the data (symmetric about
// 0 with PLOT_DIVERGING). Flags: PLOT_DIVERGING, PLOT_LOGCOLOR, PLOT_TOPDOWN,
// PLOT_NUMBERS. colorbar_label NULL draws no colour bar, "" an unlabelled one.
static inline void plot_heat(plot *p, int nx, int ny, const double *values,
                             double vmin, double vmax, int flags,
                             const char *colorbar_label) {
    plot_axis s;
    int level, ix, iy;
    char c[8];
    if (!p || !p->ready || nx < 1 || ny < 1) return;
    s = plot_heat_scale(nx * ny, values, vmin, vmax, flags);
    // unit = one cell; each level is one path of horizontal strokes
    plot_emit(p, "<svg x='%n' y='%n' width='%n' height='%n' viewBox='0 -.5 %n %n' "
                 "preserveAspectRatio='none' fill='none' stroke-width='1' "
                 "shape-rendering='crispEdges'>\n",
              p->x, p->y, p->w, p->h, (double)nx, (double)ny);
    for (level = 0; level < PLOT_LEVELS; level++) {
        int used = 0;
        for (iy = 0; iy < ny; iy++)
            for (ix = 0; ix < nx; ix++) {
                const double *row = values + (size_t)iy * (size_t)nx;
                int from = ix;
                while (ix < nx && plot_heat_level(&s, row[ix]) == level) ix++;
                if (ix == from) continue;
                if (!used++)
                    plot_emit(p, "<path stroke='%s' d='",
                              plot_cmap(c, (level + 0.5) / PLOT_LEVELS, flags));
                plot_emit(p, "M%n %nh%n", (double)from,
                          (double)(flags & PLOT_TOPDOWN ? iy : ny - 1 - iy),
                          (double)(ix - from));
            }
        if (used) plot_puts(p, "'/>\n");
    }
    plot_puts(p, "</svg>\n");
    if (flags & PLOT_NUMBERS) plot_heat_numbers(p, nx, ny, values, &s, flags);
    if (!colorbar_label) return;
    plot_clip_end(p);
    plot_heat_bar(p, &s, flags, colorbar_label);
    plot_clip_begin(p);
}

// ---- Legend ------------------------------------------------------------------------------------------------------------

//
// Adds an entry to the legend of the current panel. kind: PLOT_LINE,
// PLOT_DASH, PLOT_POINT (dots), PLOT_BOX (bars), PLOT_BAND (a translucent
// band), PLOT_CIRCLE, PLOT_SQUARE or PLOT_CROSS. The legend is
// drawn automatically when the panel is complete.
static inline void plot_legend_add(plot *p, int kind, const char *color,
                                   const char *label) {
    plot_entry *e;
    if (!p || !p->panel || p->entries >= PLOT_ENTRIES) return;
    e = &p->entry[p->entries++];
    e->kind = kind;
    plot_copy(e->color, sizeof e->color, color);
    plot_copy(e->label, sizeof e->label, label);
}

//
// Chooses where the legend of the current panel goes: PLOT_TOPRIGHT (the
// default), PLOT_TOPLEFT, PLOT_BOTTOMRIGHT, PLOT_BOTTOMLEFT, or
// PLOT_BELOW_TITLE, a row that serves the whole figure (needs PLOT_LEGENDROW).
static inline void plot_legend_place(plot *p, int place) {
    if (p) p->place = place;
}

// One entry: a symbol 22 px wide at x, then the label, centred on y.
static inline void plot_legend_entry(plot *p, const plot_entry *e, double x,
                                     double y, double size) {
    if (e->kind == PLOT_LINE || e->kind == PLOT_DASH)
        plot_emit(p, "<path d='M%n %nh22' stroke='%e' stroke-width='2.4' "
                     "fill='none'%s/>", x, y, e->color,
                  e->kind == PLOT_DASH ? " stroke-dasharray='6 2'" : "");
    else if (e->kind == PLOT_POINT)
        plot_emit(p, "<circle cx='%n' cy='%n' r='4' fill='%e'/>", x + 11, y, e->color);
    else if (e->kind == PLOT_BOX || e->kind == PLOT_BAND)
        plot_emit(p, "<rect x='%n' y='%n' width='16' height='11' rx='1.5' fill='%e' "
                     "fill-opacity='%n'/>",
                  x + 3, y - 5.5, e->color, e->kind == PLOT_BAND ? 0.35 : 1.0);
    else
        plot_mark(p, x + 11, y, e->kind, e->color, 9);
    plot_emit(p, "<text x='%n' y='%n' font-size='%n'>%e</text>\n",
              x + 29, y + 0.35 * size, size, e->label);
}

// The legend as a centred row below the title of the figure.
static inline void plot_legend_row(plot *p) {
    double total = 0, x, size = 13, gap = 24;
    int i;
    for (i = 0; i < p->entries; i++)
        total += 29 + plot_text_width(p->entry[i].label, size) + (i ? gap : 0);
    if (total > p->width - 20) {
        size = plot_clamp(size * (p->width - 20) / total, 10, 13);
        gap *= size / 13 * 0.6;
        for (total = 0, i = 0; i < p->entries; i++)
            total += 29 + plot_text_width(p->entry[i].label, size) + (i ? gap : 0);
    }
    x = (p->width - total) / 2;
    for (i = 0; i < p->entries; i++) {
        plot_legend_entry(p, &p->entry[i], x, p->head + 8, size);
        x += 29 + plot_text_width(p->entry[i].label, size) + gap;
    }
}

// The legend as a box in a corner of the panel.
static inline void plot_legend_box(plot *p) {
    double w = 0, h = 20.0 * p->entries + 8, x, y;
    int i, right, bottom;
    for (i = 0; i < p->entries; i++) {
        double t = plot_text_width(p->entry[i].label, 13);
        if (t > w) w = t;
    }
    w += 29 + 16;
    right = p->place == PLOT_TOPRIGHT || p->place == PLOT_BOTTOMRIGHT;
    bottom = p->place == PLOT_BOTTOMLEFT || p->place == PLOT_BOTTOMRIGHT;
    x = right ? p->x + p->w - w - 8 : p->x + 8;
    y = bottom ? p->y + p->h - h - 8 : p->y + 8;
    plot_emit(p, "<rect class='plot-bg' x='%n' y='%n' width='%n' height='%n' rx='4' "
                 "fill='#fff' fill-opacity='.84' stroke='currentColor' "
                 "stroke-opacity='.22'/>\n", x, y, w, h);
    for (i = 0; i < p->entries; i++)
        plot_legend_entry(p, &p->entry[i], x + 8, y + 14 + 20 * i, 13);
}

static inline void plot_legend_draw(plot *p) {
    if (!p->entries) return;
    if (p->place == PLOT_BELOW_TITLE) plot_legend_row(p);
    else plot_legend_box(p);
}

#endif // PLOT_H
