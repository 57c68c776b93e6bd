/* plot.c: see plot.h. May touch insight's stats, the samples it is given and their files; never a process. */
#include "plot.h"

#include "svg.h"
#include "tool.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WIDTH 960
#define MARGIN 20
#define TOP 84   /* where bars, or the chart, begin */
#define ROW 22   /* height of a bar with its gap */
#define BAR_X 240
#define BAR_WIDTH 380
#define GREY "#c8c8c8"

/* In the unit that `most`, the largest of what is shown together, asks for. */
static const char *bytes_say(double bytes, double most, char *to, size_t room)
{
    bool large = most >= 10 * (double)MIB;
    double units = bytes / (double)(large ? MIB : KIB);
    snprintf(to, room, units < 99.95 ? "%.1f %s" : "%.0f %s", units, large ? "MiB" : "KiB");
    return to;
}

/* ---- bars ---- */

static bool row_shows(const pm_stats_row *row) { return row->slabs + row->waiting_slabs > 0 && row->capacity > 0; }

static void put_bar(FILE *f, double y, const pm_stats_row *row)
{
    char label[160], resident[32];
    double use = (double)row->used / (double)row->capacity;
    svg_text(f, BAR_X - 8, y + 13, "end", row->name);
    svg_box(f, BAR_X, y, BAR_WIDTH, ROW - 6, "#dfe7ef");
    svg_box(f, BAR_X, y, BAR_WIDTH * (use > 1 ? 1 : use), ROW - 6, "#2f6da8");
    snprintf(label, sizeof label, "%.1f %%: %zu of %zu blocks, %s in memory", 100 * use, row->used, row->capacity,
             bytes_say((double)row->resident_bytes, (double)row->resident_bytes, resident, sizeof resident));
    svg_text(f, BAR_X + BAR_WIDTH + 8, y + 13, "start", label);
}

static void put_percents(FILE *f, double bottom)
{
    for (int percent = 0; percent <= 100; percent += 25) {
        char label[16];
        double x = BAR_X + BAR_WIDTH * percent / 100.0;
        snprintf(label, sizeof label, "%d %%", percent);
        svg_line(f, x, TOP - 6, x, bottom, GREY);
        svg_text(f, x, TOP - 12, "middle", label);
    }
}

bool plot_pools(const char *path, const pm_stats *s, pid_t pid, const char *command)
{
    char title[160], now[40];
    int rows = 0;
    time_t seconds = time(NULL);
    for (const pm_stats_row *row = s->row; row < s->row + s->pools; row++)
        rows += row_shows(row);
    strftime(now, sizeof now, "%Y-%m-%d %H:%M:%S", localtime(&seconds));
    snprintf(title, sizeof title, "Pools of process %d, %s, at %s", (int)pid, command, now);
    FILE *f = svg_open(path, WIDTH, TOP + rows * ROW + MARGIN, MARGIN, title);
    if (!f)
        return false;
    svg_text(f, MARGIN, 52, "start", "Blocks in use, of those that the pool's slabs have room for");
    put_percents(f, TOP + rows * ROW);
    double y = TOP;
    for (const pm_stats_row *row = s->row; row < s->row + s->pools; row++)
        if (row_shows(row)) {
            put_bar(f, y, row);
            y += ROW;
        }
    return svg_close(f);
}

/* ---- samples ---- */

static const char header[] = "time,block_size,slabs,capacity,used,resident_bytes,pool\n";

bool record_append(FILE *file, const pm_stats *s)
{
    struct timespec now;
    char name[sizeof s->row->name];
    clock_gettime(CLOCK_REALTIME, &now);
    if (fseek(file, 0, SEEK_END) == 0 && ftell(file) == 0)
        fputs(header, file);
    for (const pm_stats_row *row = s->row; row < s->row + s->pools; row++) {
        if (row->slabs + row->waiting_slabs == 0)
            continue;
        memcpy(name, row->name, sizeof name);
        for (char *c = name; *c; c++)
            if (*c == '"')
                *c = '\'';
        fprintf(file, "%lld.%03ld,%zu,%zu,%zu,%zu,%zu,\"%s\"\n", (long long)now.tv_sec, now.tv_nsec / 1000000, row->block_size,
                row->slabs, row->capacity, row->used, row->resident_bytes, name);
    }
    return fflush(file) == 0;
}

/* ---- over time ---- */

#define SERIES_MOST 256
#define SERIES_DRAWN 8 /* the largest; the sum of all is drawn besides */
#define CHART_HEIGHT 400
#define CHART_X 90
#define CHART_WIDTH 640

typedef struct point {
    double time, bytes;
} point;

typedef struct series {
    char name[40];
    point *at;
    size_t count, room;
    double most;
} series;

typedef struct record {
    series pools[SERIES_MOST], all; /* all: the sum, at each time */
    size_t count;
    double first, last;
} record;

/* Bytes at one time: more for a time that is there already are added. */
static void series_add(series *s, double time, double bytes)
{
    if (s->count > 0 && s->at[s->count - 1].time >= time) {
        s->at[s->count - 1].bytes += bytes;
    } else {
        s->at = grown(s->at, s->count, &s->room, sizeof *s->at);
        s->at[s->count++] = (point){time, bytes};
    }
    s->most = s->at[s->count - 1].bytes > s->most ? s->at[s->count - 1].bytes : s->most;
}

static series *series_find(record *r, const char *name)
{
    for (size_t i = 0; i < r->count; i++)
        if (strcmp(r->pools[i].name, name) == 0)
            return &r->pools[i];
    if (r->count == SERIES_MOST)
        return NULL;
    series *s = &r->pools[r->count++];
    snprintf(s->name, sizeof s->name, "%s", name);
    return s;
}

static bool record_line(record *r, const char *line)
{
    double time;
    size_t size, used;
    char name[40];
    if (sscanf(line, "%lf,%zu,%*u,%*u,%zu,%*u,\"%39[^\"\n]\"", &time, &size, &used, name) != 4)
        return false;
    series *s = series_find(r, name);
    r->first = r->all.count ? r->first : time;
    r->last = time > r->last ? time : r->last;
    if (s)
        series_add(s, time, (double)(used * size));
    series_add(&r->all, time, (double)(used * size));
    return true;
}

static bool record_read(record *r, FILE *file)
{
    char line[256];
    if (!fgets(line, sizeof line, file) || strcmp(line, header) != 0)
        return false;
    while (fgets(line, sizeof line, file))
        if (strcmp(line, header) != 0 && !record_line(r, line))
            return false;
    return r->all.count > 0;
}

static int series_order(const void *left, const void *right)
{
    double a = ((const series *)left)->most, b = ((const series *)right)->most;
    return (a < b) - (a > b);
}

static double chart_x(const record *r, double time)
{
    return CHART_X + CHART_WIDTH * (time - r->first) / (r->last > r->first ? r->last - r->first : 1);
}

static double chart_y(const record *r, double bytes)
{
    return TOP + CHART_HEIGHT * (1 - bytes / (r->all.most > 0 ? r->all.most * 1.05 : 1));
}

static void put_axes(FILE *f, const record *r)
{
    char label[40];
    for (int i = 0; i <= 5; i++) {
        double bytes = r->all.most * i / 5, time = r->first + (r->last - r->first) * i / 5;
        svg_line(f, CHART_X, chart_y(r, bytes), CHART_X + CHART_WIDTH, chart_y(r, bytes), GREY);
        svg_text(f, CHART_X - 8, chart_y(r, bytes) + 4, "end", bytes_say(bytes, r->all.most, label, sizeof label));
        snprintf(label, sizeof label, "%.*f s", r->last - r->first < 20 ? 2 : 0, time - r->first);
        svg_line(f, chart_x(r, time), TOP, chart_x(r, time), TOP + CHART_HEIGHT, GREY);
        svg_text(f, chart_x(r, time), TOP + CHART_HEIGHT + 18, "middle", label);
    }
}

static void put_series(FILE *f, const record *r, const series *s, const char *colour, int place)
{
    fprintf(f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colour);
    for (size_t i = 0; i < s->count; i++)
        fprintf(f, "%.1f,%.1f ", chart_x(r, s->at[i].time), chart_y(r, s->at[i].bytes));
    fputs("\"/>\n", f);
    svg_box(f, CHART_X + CHART_WIDTH + 24, TOP + place * ROW, 14, 4, colour);
    svg_text(f, CHART_X + CHART_WIDTH + 46, TOP + place * ROW + 7, "start", s->name);
}

static const char *record_draw(record *r, const char *path)
{
    static const char *const colours[SERIES_DRAWN] = {"#2f6da8", "#d1671f", "#3a8f4b", "#b03a48",
                                                      "#7d5ba6", "#8a6d3b", "#c760a0", "#5f7f8f"};
    FILE *f = svg_open(path, WIDTH, TOP + CHART_HEIGHT + 2 * MARGIN + 10, MARGIN, "Bytes in use over time, by pool");
    if (!f)
        return "the picture cannot be written";
    svg_text(f, MARGIN, 52, "start", "The pools that held most at any time, and the sum of all; seconds since the first sample");
    put_axes(f, r);
    snprintf(r->all.name, sizeof r->all.name, "all pools");
    put_series(f, r, &r->all, "#222222", 0);
    qsort(r->pools, r->count, sizeof *r->pools, series_order);
    for (size_t i = 0; i < r->count && i < SERIES_DRAWN; i++)
        put_series(f, r, &r->pools[i], colours[i], (int)i + 1);
    return svg_close(f) ? NULL : "the picture cannot be written";
}

const char *plot_record(const char *from, const char *path)
{
    static record r;
    FILE *file = fopen(from, "re");
    if (!file)
        return "the record cannot be read";
    bool good = record_read(&r, file);
    fclose(file);
    return good ? record_draw(&r, path) : "that is no record of `poolmalloc stat`";
}
