/* tune_plot.c: the size histogram with the chosen block sizes, as SVG. May touch the demands it is given and that file. */
#include "tune.h"

#include <errno.h>
#include <math.h>
#include <string.h>

enum { LEFT = 90, RIGHT = 930, TOP = 60, BOTTOM = 430, WIDTH = 960, HEIGHT = 500 };

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
    uint64_t tick = tick_of(a);
    for (uint64_t y = 0; y * a->unit <= a->most; y += tick)
        fprintf(svg,
                "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' stroke='#ddd'/><text x='%d' y='%.1f' "
                "text-anchor='end'>%llu</text>\n",
                LEFT, RIGHT, y_of(a, y * a->unit), y_of(a, y * a->unit), LEFT - 8, y_of(a, y * a->unit) + 4,
                (unsigned long long)y);
    for (uint32_t x = 16; x <= a->largest; x *= 2)
        fprintf(svg,
                "<line x1='%.1f' x2='%.1f' y1='%d' y2='%d' stroke='#444'/><text x='%.1f' y='%d' "
                "text-anchor='middle'>%u</text>\n",
                x_of(a, x), x_of(a, x), BOTTOM, BOTTOM + 5, x_of(a, x), BOTTOM + 20, x);
    fprintf(svg, "<line x1='%d' x2='%d' y1='%d' y2='%d' stroke='#444'/>\n", LEFT, RIGHT, BOTTOM, BOTTOM);
    fprintf(svg, "<text x='%d' y='%d' text-anchor='middle'>request size, bytes (logarithmic)</text>\n",
            (LEFT + RIGHT) / 2, BOTTOM + 45);
    fprintf(svg, "<text transform='translate(28 %d) rotate(-90)' text-anchor='middle'>live at the peak, %s</text>\n",
            (TOP + BOTTOM) / 2, a->unit_name);
}

static void draw_bars(FILE *svg, const axes *a, const group *groups, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double left = x_of(a, groups[i].above), right = x_of(a, groups[i].to), top = y_of(a, groups[i].bytes);
        if (groups[i].bytes)
            fprintf(svg,
                    "<rect x='%.1f' y='%.1f' width='%.1f' height='%.1f' fill='#5b8fc9'><title>%u-%u bytes: %llu "
                    "blocks</title></rect>\n",
                    left + 0.5, top, right - left - 1, BOTTOM - top, groups[i].above + 1, groups[i].to,
                    (unsigned long long)groups[i].blocks);
    }
}

static void draw_sizes(FILE *svg, const axes *a, const plan *p)
{
    for (unsigned i = 0; i < p->pools; i++)
        if (p->size[i] <= a->largest)
            fprintf(svg,
                    "<line x1='%.1f' x2='%.1f' y1='%d' y2='%d' stroke='#c0392b' stroke-dasharray='4 "
                    "3'><title>%u</title></line>\n",
                    x_of(a, p->size[i]), x_of(a, p->size[i]), TOP, BOTTOM, p->size[i]);
}

static void draw_legend(FILE *svg, const plan *p)
{
    fprintf(svg, "<text x='%d' y='24' font-size='16'>Requested sizes, and the block sizes chosen for them</text>\n",
            LEFT);
    fprintf(svg,
            "<rect x='%d' y='36' width='14' height='12' fill='#5b8fc9'/><text x='%d' y='47'>requested, live at the "
            "peak</text>\n",
            LEFT, LEFT + 20);
    fprintf(svg,
            "<line x1='%d' x2='%d' y1='42' y2='42' stroke='#c0392b' stroke-dasharray='4 3'/><text x='%d' y='47'>%u "
            "block sizes</text>\n",
            LEFT + 230, LEFT + 255, LEFT + 262, p->pools);
}

bool tune_plot(const char *path, const tuning *t)
{
    group groups[GROUPS_MAX];
    size_t n = groups_make(&t->all->sum, groups);
    axes a = axes_make(groups, n);
    FILE *svg = fopen(path, "we");
    if (svg) {
        fprintf(svg,
                "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' width='%d' height='%d' "
                "font-family='sans-serif' font-size='12'>\n"
                "<rect width='100%%' height='100%%' fill='white'/>\n",
                WIDTH, HEIGHT, WIDTH, HEIGHT);
        draw_axes(svg, &a);
        draw_bars(svg, &a, groups, n);
        draw_sizes(svg, &a, t->chosen);
        draw_legend(svg, t->chosen);
        fprintf(svg, "</svg>\n");
    }
    if (svg && !ferror(svg) && fclose(svg) == 0)
        return true;
    fprintf(stderr, "poolmalloc: tune: '%s': %s\n", path, strerror(errno));
    return false;
}
