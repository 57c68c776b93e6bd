/* top.c: `poolmalloc top`: stat again and again, on the whole screen. May touch processes through processes.h and live.h alone, and curses. */
#include "live.h"
#include "insight/print.h"
#include "processes.h"
#include "tool.h"

#include <curses.h>
#include <getopt.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define KEY_ESCAPE 27
#define PERIOD_MOST 3600.0

/* What is on the screen. */
typedef struct screen {
    double period;     /* seconds between two looks */
    double looked;     /* when the last one was; 0: never */
    int key;           /* what is sorted by: the key that was pressed */
    pid_t pid;         /* the one process in depth; 0: the list */
    bool only;         /* ... was asked for on the command line: there is no list to go back to */
    processes all;
    size_t chosen;     /* line of the list, and which process stands there: it stays chosen when the order changes */
    pid_t chosen_pid;
    live one;
    bool open, ended;  /* the copy is open; the process is no more, and the last figures stay */
    pm_stats now, before;
    double passed;     /* seconds between the two */
    char command[32];
} screen;

static double clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* "1.5M": at most six columns. */
static const char *human(double bytes, char *to, size_t room)
{
    static const char units[] = "BKMGTPE";
    size_t unit = 0;
    for (; fabs(bytes) >= 9999.5 && unit < sizeof units - 2; unit++)
        bytes /= 1024;
    snprintf(to, room, unit ? fabs(bytes) < 99.95 ? "%.1f%c" : "%.0f%c" : "%.0f", bytes, units[unit]);
    return to;
}
#define HUMAN(bytes) human((double)(bytes), (char[24]){0}, 24)

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
    return by ? by : order((double)b->pid, (double)a->pid);
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
    return by ? by : (a > b) - (a < b);
}

/* ---- looking ---- */

static void one_close(screen *s)
{
    if (s->open)
        live_close(&s->one);
    s->open = false;
}

static live_result one_open(screen *s, pid_t pid)
{
    one_close(s);
    live_result result = live_open(&s->one, pid);
    s->open = result == LIVE_FOUND;
    s->ended = !s->open;
    s->pid = pid;
    s->looked = s->passed = 0;
    memset(&s->now, 0, sizeof s->now);
    command_read(pid, s->command, sizeof s->command);
    return result;
}

static void one_look(screen *s)
{
    if (s->ended || live_take(&s->one) != LIVE_FOUND) {
        s->ended = true;
        return;
    }
    s->before = s->now;
    stats_gather_from(&s->one.view, &s->now);
}

static void look(screen *s)
{
    double now = clock_now();
    if (s->looked > 0 && now - s->looked < s->period)
        return;
    s->passed = s->looked > 0 ? now - s->looked : 0;
    s->looked = now;
    if (s->pid)
        one_look(s);
    else
        processes_look(&s->all, s->passed);
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

static void list_choose(screen *s, size_t wanted)
{
    s->chosen = s->all.count == 0 ? 0 : wanted < s->all.count ? wanted : s->all.count - 1;
    s->chosen_pid = s->all.count ? s->all.at[s->chosen].pid : 0;
}

static void list_find_chosen(screen *s)
{
    size_t i = 0;
    while (i < s->all.count && s->all.at[i].pid != s->chosen_pid)
        i++;
    list_choose(s, i < s->all.count ? i : s->chosen);
}

static void draw_list(screen *s)
{
    sorted = s;
    qsort(s->all.at, s->all.count, sizeof *s->all.at, process_order);
    list_find_chosen(s);
    line(0, A_BOLD, "poolmalloc: processes on pools: %zu; not readable: %zu", s->all.count, s->all.denied);
    line(2, A_REVERSE, "%7s %8s %8s %8s %8s %6s %9s %7s %s", "PID", "IN USE", "RESIDENT", "COMMIT", "GROWTH/s", "USE", "FORWARD/s",
         "THREADS", "COMMAND");
    size_t lines = LINES > 5 ? (size_t)LINES - 5 : 0, first = s->chosen >= lines && lines ? s->chosen - lines + 1 : 0;
    for (size_t i = first; i < s->all.count && i - first < lines; i++) {
        const process *p = &s->all.at[i];
        line(3 + (int)(i - first), i == s->chosen ? A_REVERSE : A_NORMAL, "%7d %8s %8s %8s %8s %5.1f%% %9s %7zu %s", (int)p->pid,
             HUMAN(p->used), HUMAN(p->resident), HUMAN(p->committed), RATE(p->used_rate),
             p->committed ? 100.0 * (double)p->used / (double)p->committed : 0, RATE(p->forwarded_rate), p->threads, p->command);
    }
    line(LINES - 1, A_REVERSE, " q quit  Enter one  sort: u in use  r resident  g growth  f forward  n name p pid");
}

/* Change a second of a figure since the last look. */
static double head_rate(const screen *s, size_t now, size_t before)
{
    return s->passed > 0 && s->before.struct_size ? ((double)now - (double)before) / s->passed : 0;
}

static void draw_head(const screen *s)
{
    const pm_stats *n = &s->now, *b = &s->before;
    line(0, A_BOLD, "process %d %s, next allocator %s%s", (int)s->pid, s->command, s->one.next,
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

static void draw_row(const screen *s, int at, const pm_stats_row *row)
{
    char bar[BAR_MOST + 1];
    int width = COLS - FIGURES, full;
    width = width < 1 ? 1 : width > BAR_MOST ? BAR_MOST : width;
    full = (int)(row_use(row) * width + 0.5);
    memset(bar, '.', (size_t)width);
    memset(bar, '#', (size_t)(full > width ? width : full));
    bar[width] = 0;
    line(at, A_NORMAL, "%-14.14s %6zu %6zu %8zu %8zu %8s %8s %5.1f%% %s", row->name, row->block_size, row->slabs + row->waiting_slabs,
         row->used, row->capacity, RATE(row_rate(s, row)), HUMAN(row->resident_bytes), 100 * row_use(row), bar);
}

static void draw_one(const screen *s)
{
    const pm_stats_row *rows[PM_STATS_ROWS];
    size_t count = 0;
    for (const pm_stats_row *row = s->now.row; row < s->now.row + s->now.pools; row++)
        if (row->slabs + row->waiting_slabs > 0)
            rows[count++] = row;
    sorted = s;
    qsort(rows, count, sizeof *rows, row_order);
    draw_head(s);
    line(5, A_REVERSE, "%-14s %6s %6s %8s %8s %8s %8s %6s", "POOL", "BLOCK", "SLABS", "USED", "CAPACITY", "USED/s", "RESIDENT", "USE");
    for (size_t i = 0; i < count && (int)i + 7 < LINES; i++)
        draw_row(s, 6 + (int)i, rows[i]);
    line(LINES - 1, A_REVERSE, " q quit %s sort: b block  u bytes  %% use  r resident  g growth  n name", s->only ? "" : " Esc list ");
}

static void draw(screen *s)
{
    erase();
    if (s->pid)
        draw_one(s);
    else
        draw_list(s);
    refresh();
}

/* ---- keys ---- */

static void list_key(screen *s, int key)
{
    if (key == KEY_UP && s->chosen > 0)
        list_choose(s, s->chosen - 1);
    if (key == KEY_DOWN)
        list_choose(s, s->chosen + 1);
    if ((key == KEY_ENTER || key == '\n' || key == '\r') && s->chosen < s->all.count) {
        one_open(s, s->all.at[s->chosen].pid);
        s->key = 'b';
    }
}

static void one_key(screen *s, int key)
{
    if (s->only || (key != KEY_ESCAPE && key != KEY_LEFT && key != KEY_BACKSPACE))
        return;
    one_close(s);
    s->pid = 0;
    s->key = 'u';
    s->looked = 0;
}

/* False: quit. */
static bool press(screen *s, int key)
{
    const char *sorts = s->pid ? "bu%rgn" : "urgfnp";
    if (key == 'q' || key == 'Q' || key == 3)
        return false;
    if (key > 0 && key < 128 && strchr(sorts, key))
        s->key = key;
    else if (s->pid)
        one_key(s, key);
    else
        list_key(s, key);
    return true;
}

/* ---- the command ---- */

static void run(screen *s)
{
    for (int key = ERR;;) {
        look(s);
        draw(s);
        double left = s->looked + s->period - clock_now();
        timeout(left > 0.001 ? (int)(left * 1000) + 1 : 1);
        key = getch();
        if (key != ERR && !press(s, key))
            return;
    }
}

static int screen_run(screen *s)
{
    if (!isatty(1) || !newterm(NULL, stdout, stdin)) {
        fprintf(stderr, "poolmalloc: top: this is no terminal to draw on; `poolmalloc stat` prints\n");
        return EXIT_NOT_SO;
    }
    cbreak();
    noecho();
    keypad(stdscr, TRUE);
    set_escdelay(50);
    curs_set(0);
    run(s);
    endwin();
    return 0;
}

static int argument_error(const char *what, const char *argument)
{
    fprintf(stderr, "poolmalloc: top: '%s' %s\n", argument, what);
    return usage_error("top");
}

static void help(void)
{
    puts("Usage: poolmalloc top [PID] [--delay SECONDS]\n"
         "The pools of all processes that run on them, or of one in depth, on the whole screen and live.\n\n"
         "  --delay SECONDS  between two looks; default 1\n"
         "  --help\n\n"
         "Keys stand in the last line. Figures are bytes, K, M, G are powers of 1024; rates are since the last look.");
}

static bool seconds_parse(const char *from, double *seconds)
{
    char *end;
    *seconds = strtod(from, &end);
    return end != from && !*end && *seconds >= 0.05 && *seconds <= PERIOD_MOST;
}

int top_command(int argc, char **argv)
{
    static const struct option options[] = {
        {"delay", required_argument, NULL, 'd'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    static screen s = {.period = 1, .key = 'u'};
    pid_t pid;
    setlocale(LC_CTYPE, "");
    for (int o; (o = getopt_long(argc, argv, "d:h", options, NULL)) != -1;) {
        if (o == 'h') {
            help();
            return 0;
        }
        if (o == '?')
            return usage_error("top");
        if (!seconds_parse(optarg, &s.period))
            return argument_error("is no number of seconds from 0.05 to 3600", optarg);
    }
    if (optind + 1 < argc)
        return argument_error("is one argument too many", argv[optind + 1]);
    if (optind == argc)
        return screen_run(&s);
    if (!pid_parse(argv[optind], &pid))
        return argument_error("is no process id", argv[optind]);
    live_result result = one_open(&s, pid);
    if (result != LIVE_FOUND)
        return live_error("top", pid, &s.one, result);
    s.only = true;
    s.key = 'b';
    return screen_run(&s);
}
