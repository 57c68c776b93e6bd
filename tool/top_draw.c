/* top_draw.c: the screens of `poolmalloc top`: order, filter, colours. May touch the terminal, to draw. */
#include "top.h"

#include "words.h"

#include <curses.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { COLOUR_TITLE = 1, COLOUR_FULL, COLOUR_HALF, COLOUR_EMPTY, COLOUR_GROWS };

void top_colours(void)
{
    if (!has_colors() || start_color() != OK)
        return;
    use_default_colors();
    init_pair(COLOUR_TITLE, COLOR_CYAN, -1);
    init_pair(COLOUR_FULL, COLOR_GREEN, -1);
    init_pair(COLOUR_HALF, COLOR_YELLOW, -1);
    init_pair(COLOUR_EMPTY, COLOR_RED, -1);
    init_pair(COLOUR_GROWS, COLOR_MAGENTA, -1);
}

static const char *rate(double per_second, char *to, size_t room)
{
    char number[24];
    snprintf(to, room, "%s%s", per_second > 0 ? "+" : "", human(per_second, number, sizeof number));
    return to;
}
#define RATE(per_second) rate(per_second, (char[32]){0}, 32)

/* ---- sorting ---- */

static const screen *sorted; /* by whose key, and figures; qsort passes no context */

static int order(double a, double b) { return (a < b) - (a > b); } /* the larger first */

static int process_order(const void *left, const void *right)
{
    const process *a = left, *b = right;
    int by = 0;
    switch (sorted->key) {
    case 'r': by = order((double)a->resident, (double)b->resident); break;
    case 'g': by = order(fabs(a->used_rate), fabs(b->used_rate)); break;
    case 'f': by = order(a->forwarded_rate, b->forwarded_rate); break;
    case 'n': by = strcmp(a->command, b->command); break;
    case 'p': break;
    default: by = order((double)a->used, (double)b->used);
    }
    by = by ? by : order((double)b->pid, (double)a->pid);
    return sorted->reversed ? -by : by;
}

static double row_rate(const screen *s, const pm_stats_row *row)
{
    const pm_stats_row *before = &s->before.row[row - s->now.row];
    bool same = s->passed > 0 && row - s->now.row < (ptrdiff_t)s->before.pools && strcmp(before->name, row->name) == 0;
    return same ? ((double)row->used - (double)before->used) / s->passed : 0;
}

static double row_use(const pm_stats_row *row) { return row->capacity ? (double)row->used / (double)row->capacity : 0; }

static int row_order(const void *left, const void *right)
{
    const pm_stats_row *a = *(const pm_stats_row *const *)left, *b = *(const pm_stats_row *const *)right;
    int by = 0;
    switch (sorted->key) {
    case 'r': by = order((double)a->resident_bytes, (double)b->resident_bytes); break;
    case 'g': by = order(fabs(row_rate(sorted, a)), fabs(row_rate(sorted, b))); break;
    case '%': by = order(row_use(a), row_use(b)); break;
    case 'n': by = strcmp(a->name, b->name); break;
    case 'u': by = order((double)(a->used * a->block_size), (double)(b->used * b->block_size)); break;
    default: break; /* as they come: by block size */
    }
    by = by ? by : (a > b) - (a < b);
    return sorted->reversed ? -by : by;
}

/* ---- drawing ---- */

static void line(int row, attr_t how, const char *format, ...) PRINTF_LIKE(3, 4);
static void line(int row, attr_t how, const char *format, ...)
{
    char drawn[400];
    va_list args;
    va_start(args, format);
    vsnprintf(drawn, sizeof drawn, format, args);
    va_end(args);
    if (row >= LINES)
        return;
    attron(how);
    mvaddnstr(row, 0, drawn, COLS);
    if (how == A_REVERSE)
        for (int column = getcurx(stdscr); column < COLS && getcury(stdscr) == row; column++)
            addch(' ');
    attroff(how);
}

void list_choose(screen *s, size_t wanted)
{
    s->chosen = s->shown == 0 ? 0 : wanted < s->shown ? wanted : s->shown - 1;
    s->chosen_pid = s->shown ? s->all.at[s->chosen].pid : 0;
}

static void list_find_chosen(screen *s)
{
    size_t i = 0;
    while (i < s->shown && s->all.at[i].pid != s->chosen_pid)
        i++;
    list_choose(s, i < s->shown ? i : s->chosen);
}

static bool passes(const screen *s, const char *name)
{
    size_t n = strlen(s->filter);
    for (; *name && strncasecmp(name, s->filter, n) != 0; name++)
        ;
    return n == 0 || *name;
}

size_t top_lines(const screen *s)
{
    int lines = LINES - (s->pid ? 7 : 5) - (s->shows_sites ? SITES + 1 : 0);
    return lines > 0 ? (size_t)lines : 0;
}

/* Those that the filter lets through come first, in order. */
static void list_sort(screen *s)
{
    processes *all = &s->all;
    s->shown = 0;
    for (size_t i = 0; i < all->count; i++)
        if (passes(s, s->arguments ? all->at[i].arguments : all->at[i].command)) {
            process swapped = all->at[s->shown];
            all->at[s->shown++] = all->at[i];
            all->at[i] = swapped;
        }
    sorted = s;
    qsort(all->at, s->shown, sizeof *all->at, process_order);
    list_find_chosen(s);
}

/* The keys, or the filter while it is typed. */
static void draw_foot(const screen *s, const char *keys)
{
    if (s->typing)
        line(LINES - 1, A_REVERSE, " show names with: %s_   Enter keeps it, Esc shows all", s->filter);
    else
        line(LINES - 1, A_REVERSE, "%s", keys);
}

static void draw_filter(const screen *s, int row, const char *what, size_t of)
{
    if (*s->filter)
        line(row, A_BOLD, "%zu of %zu %s: those with '%s' in their name", s->shown, of, what, s->filter);
}

static void draw_list(screen *s)
{
    list_sort(s);
    line(0, A_BOLD | COLOR_PAIR(COLOUR_TITLE), "poolmalloc: processes on pools: %zu; not readable: %zu", s->all.count, s->all.denied);
    draw_filter(s, 1, "processes", s->all.count);
    line(2, A_REVERSE, "%7s %8s %8s %8s %8s %6s %9s %7s %s", "PID", "IN USE", "RESIDENT", "COMMIT", "GROWTH/s", "USE", "FORWARD/s",
         "THREADS", "COMMAND");
    size_t lines = top_lines(s), first = s->chosen >= lines && lines ? s->chosen - lines + 1 : 0;
    for (size_t i = first; i < s->shown && i - first < lines; i++) {
        const process *p = &s->all.at[i];
        attr_t colour = p->used_rate >= 1 ? (attr_t)COLOR_PAIR(COLOUR_GROWS) : A_NORMAL;
        line(3 + (int)(i - first), i == s->chosen ? A_REVERSE : colour, "%7d %8s %8s %8s %8s %5.1f%% %9s %7zu %s", (int)p->pid,
             HUMAN(p->used), HUMAN(p->resident), HUMAN(p->committed), RATE(p->used_rate),
             p->committed ? 100.0 * (double)p->used / (double)p->committed : 0, RATE(p->forwarded_rate), p->threads,
             s->arguments ? p->arguments : p->command);
    }
    draw_foot(s, " q quit ? help Enter one / find a args i turn sort: u use r mem g growth n name");
}

/* Change a second of a figure since the last look. */
static double head_rate(const screen *s, size_t now, size_t before)
{
    return s->passed > 0 && s->before.struct_size ? ((double)now - (double)before) / s->passed : 0;
}

static void draw_head(const screen *s)
{
    const pm_stats *n = &s->now, *b = &s->before;
    line(0, A_BOLD | COLOR_PAIR(COLOUR_TITLE), "process %d %s, next allocator %s%s", (int)s->pid, s->command, s->one.next,
         s->ended ? "  ** it has ended: the last figures **" : "");
    line(1, A_NORMAL, "in use %s (%s/s), resident %s, committed %s, mapped %s", HUMAN(n->used_bytes),
         RATE(head_rate(s, n->used_bytes, b->used_bytes)), HUMAN(n->resident_bytes), HUMAN(n->committed_bytes),
         HUMAN(n->reserved_bytes));
    line(2, A_NORMAL, "forwarded %zu calls (%s/s), for want of memory %zu; heaps %zu, idle %zu, busy %zu", n->forwarded_calls,
         RATE(head_rate(s, n->forwarded_calls, b->forwarded_calls)), n->forwarded_small_calls, n->heaps, n->idle_heaps, n->busy);
    line(3, A_NORMAL, "slabs: %zu spare, %zu empty, %zu purged; remote frees %zu in %zu messages", n->spare_slabs, n->empty_slabs,
         n->purged_slabs, n->remote_frees, n->remote_messages);
}

#define BAR_MOST 60
#define FIGURES 72 /* columns left of the bar */

static attr_t bar_colour(const pm_stats_row *row)
{
    double use = row_use(row);
    return (attr_t)COLOR_PAIR(use >= 0.75 ? COLOUR_FULL : use >= 0.25 ? COLOUR_HALF : COLOUR_EMPTY);
}

static void draw_row(const screen *s, int at, const pm_stats_row *row)
{
    char bar[BAR_MOST + 1];
    int width = COLS - FIGURES, full;
    width = width < 1 ? 1 : width > BAR_MOST ? BAR_MOST : width;
    full = (int)(row_use(row) * width + 0.5);
    memset(bar, '.', (size_t)width);
    memset(bar, '#', (size_t)(full > width ? width : full));
    bar[width] = 0;
    line(at, A_NORMAL, "%-14.14s %6zu %6zu %8zu %8zu %8s %8s %5.1f%% ", row->name, row->block_size, row->slabs + row->waiting_slabs,
         row->used, row->capacity, RATE(row_rate(s, row)), HUMAN(row->resident_bytes), 100 * row_use(row));
    if (at >= LINES || COLS <= FIGURES)
        return;
    attron(bar_colour(row));
    mvaddnstr(at, FIGURES, bar, COLS - FIGURES);
    attroff(bar_colour(row));
}

static size_t rows_sort(screen *s, const pm_stats_row *rows[PM_STATS_ROWS])
{
    size_t all = 0;
    s->shown = 0;
    for (const pm_stats_row *row = s->now.row; row < s->now.row + s->now.pools; row++) {
        bool there = row->slabs + row->waiting_slabs > 0;
        all += there;
        if (there && passes(s, row->name))
            rows[s->shown++] = row;
    }
    sorted = s;
    qsort(rows, s->shown, sizeof *rows, row_order);
    return all;
}

static void draw_sites(const screen *s)
{
    int at = LINES - 2 - SITES;
    line(at, A_REVERSE, " allocated since w was pressed, and held: the call stacks that hold most, innermost function first");
    for (int i = 0; i < s->site_count; i++)
        line(at + 1 + i, A_NORMAL, "%8s ±%-8s %s", HUMAN(s->site[i].bytes), HUMAN(s->site[i].error), s->site[i].text);
    if (s->site_count <= 0)
        line(at + 1, A_NORMAL, "%s", s->sites ? "nothing yet" : s->sites_wrong);
}

static void draw_one(screen *s)
{
    const pm_stats_row *rows[PM_STATS_ROWS];
    size_t all = rows_sort(s, rows), lines = top_lines(s), last = s->shown > lines ? s->shown - lines : 0;
    s->first = s->first < last ? s->first : last;
    draw_head(s);
    draw_filter(s, 4, "pools", all);
    line(5, A_REVERSE, "%-14s %6s %6s %8s %8s %8s %8s %6s", "POOL", "BLOCK", "SLABS", "USED", "CAPACITY", "USED/s", "RESIDENT", "USE");
    for (size_t i = s->first; i < s->shown && i - s->first < lines; i++)
        draw_row(s, 6 + (int)(i - s->first), rows[i]);
    if (s->shows_sites)
        draw_sites(s);
    draw_foot(s, s->only ? " q quit ? help w who / find i turn sort: b block u bytes % use g grow n name"
                         : " q quit ? help Esc list w who / find i turn sort: b block u bytes % use n name");
}

static void draw_help(void)
{
    static const char *const lines[] = {
        "  q          quit", "  Enter      the process in depth; Esc, Left: back to the list",
        "  Up, Down, PgUp, PgDn, Home, End    choose or scroll", "  /          show only names that hold some text; Enter keeps it, Esc shows all",
        "  a          arguments of processes", "  w          of one process: the call stacks that hold most of what is allocated from now on",
        "  i          turn the order round", "",
        "  sort processes by  u in use  r resident  g growth  f forwarded  p pid  n name",
        "  sort pools by      b block size  u bytes in use  % use  r resident  g growth  n name", "",
        "  IN USE: bytes of blocks in the program's hands. RESIDENT: of pools in memory. COMMIT: what the pools hold.",
        "  USE: in use ÷ capacity. GROWTH/s, USED/s: since the last look. FORWARD/s: calls to the next allocator.",
        "  Bars are green from 75 %, red below 25 %."};
    line(0, A_BOLD | COLOR_PAIR(COLOUR_TITLE), "poolmalloc top: keys (any key goes back)");
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        line(2 + (int)i, A_NORMAL, "%s", lines[i]);
}

void top_draw(screen *s)
{
    erase();
    if (s->help)
        draw_help();
    else if (s->pid)
        draw_one(s);
    else
        draw_list(s);
    refresh();
}
