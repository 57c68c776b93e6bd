/* tune_plot.c: the size histogram with the chosen block sizes, as SVG. May touch the demands it is given and that file. */
#include "svg.h"
#include "tune.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { LEFT = 90, RIGHT = 930, TOP = 60, BOTTOM = 430, WIDTH = 960, HEIGHT = 500 };
#define REQUESTED "#5b8fc9"
#define CHOSEN "#c0392b"

/* Sizes on a logarithmic axis from 16 bytes on (what is less is shown there); bytes on a linear one. */
typedef struct axes {
    uint32_t largest;
    uint64_t most; /* bytes at the top */
    uint64_t unit;
    const char *unit_name;
} axes;

static double x_of(const axes *a, double size)
{
    double low = log2(8), high = log2(a->largest);
    return LEFT + (RIGHT - LEFT) * (log2(size < 8 ? 8 : size) - low) / (high - low);
}

static double y_of(const axes *a, uint64_t bytes) { return BOTTOM - (BOTTOM - TOP) * (double)bytes / (double)a->most; }

static axes axes_make(const group *groups, size_t n)
{
    axes a = {.largest = n ? groups[n - 1].to : 16, .most = 1, .unit = 1, .unit_name = "bytes"};
    for (size_t i = 0; i < n; i++)
        a.most = groups[i].bytes > a.most ? groups[i].bytes : a.most;
    if (a.most >= 10 * MIB)
        a.unit = MIB, a.unit_name = "MiB";
    else if (a.most >= 10 * KIB)
        a.unit = KIB, a.unit_name = "KiB";
    return a;
}

/* A step of 1, 2 or 5 times a power of ten, of which four to eight reach the top. */
static uint64_t tick_of(const axes *a)
{
    uint64_t tick = 1, top = a->most / a->unit;
    for (unsigned i = 0; top / tick > 8; i++)
        tick = i % 3 == 1 ? tick / 2 * 5 : tick * 2;
    return tick;
}

static void draw_axes(FILE *svg, const axes *a)
{
    char label[48];
    uint64_t tick = tick_of(a);
    for (uint64_t y = 0; y * a->unit <= a->most; y += tick) {
        snprintf(label, sizeof label, "%" PRIu64, y);
        svg_line(svg, LEFT, y_of(a, y * a->unit), RIGHT, y_of(a, y * a->unit), "#ddd");
        svg_text(svg, LEFT - 8, y_of(a, y * a->unit) + 4, "end", label);
    }
    for (uint32_t x = 16; x <= a->largest; x *= 2) {
        snprintf(label, sizeof label, "%u", x);
        svg_line(svg, x_of(a, x), BOTTOM, x_of(a, x), BOTTOM + 5, "#444");
        svg_text(svg, x_of(a, x), BOTTOM + 20, "middle", label);
    }
    svg_line(svg, LEFT, BOTTOM, RIGHT, BOTTOM, "#444");
    svg_text(svg, (LEFT + RIGHT) / 2.0, BOTTOM + 45, "middle", "request size, bytes (logarithmic)");
    fprintf(svg, "<g transform='translate(28 %d) rotate(-90)'>", (TOP + BOTTOM) / 2);
    snprintf(label, sizeof label, "live at the peak, %s", a->unit_name);
    svg_text(svg, 0, 0, "middle", label);
    fputs("</g>\n", svg);
}

static void draw_bars(FILE *svg, const axes *a, const group *groups, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double left = x_of(a, groups[i].above), right = x_of(a, groups[i].to), top = y_of(a, groups[i].bytes);
        if (groups[i].bytes)
            fprintf(svg,
                    "<rect x='%.1f' y='%.1f' width='%.1f' height='%.1f' fill='" REQUESTED "'><title>%u-%u bytes: %" PRIu64
                    " blocks</title></rect>\n",
                    left + 0.5, top, right - left - 1, BOTTOM - top, groups[i].above + 1, groups[i].to, groups[i].blocks);
    }
}

static void draw_sizes(FILE *svg, const axes *a, const plan *p)
{
    for (unsigned i = 0; i < p->pools; i++)
        if (p->size[i] <= a->largest)
            fprintf(svg, "<line x1='%.1f' x2='%.1f' y1='%d' y2='%d' stroke='" CHOSEN "'><title>%u</title></line>\n",
                    x_of(a, p->size[i]), x_of(a, p->size[i]), TOP, BOTTOM, p->size[i]);
}

static void draw_legend(FILE *svg, const plan *p)
{
    char label[40];
    svg_box(svg, LEFT, 38, 14, 12, REQUESTED);
    svg_text(svg, LEFT + 20, 49, "start", "requested, live at the peak");
    snprintf(label, sizeof label, "%u block sizes", p->pools);
    svg_line(svg, LEFT + 230, 44, LEFT + 255, 44, CHOSEN);
    svg_text(svg, LEFT + 262, 49, "start", label);
}

bool tune_plot(const char *path, const tuning *t)
{
    group groups[GROUPS_MAX];
    size_t n = groups_make(&t->all->sum, groups);
    axes a = axes_make(groups, n);
    FILE *svg = svg_open(path, WIDTH, HEIGHT, LEFT, "Requested sizes, and the block sizes chosen for them");
    if (svg) {
        draw_axes(svg, &a);
        draw_bars(svg, &a, groups, n);
        draw_sizes(svg, &a, t->chosen);
        draw_legend(svg, t->chosen);
    }
    if (svg && svg_close(svg))
        return true;
    fprintf(stderr, "poolmalloc: tune: '%s': %s\n", path, strerror(errno));
    return false;
}
