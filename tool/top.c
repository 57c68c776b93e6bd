/* top.c: `poolmalloc top`: stat for all processes, or for one in depth, on the whole screen and again and again. May touch live.h,
 * processes.h and the terminal. */
#include "top.h"

#include "proc.h"
#include "tool.h"
#include "words.h"

#include <curses.h>
#include <getopt.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define KEY_ESCAPE 27

static double clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- looking ---- */

static void sites_end(screen *s)
{
    if (s->sites)
        sites_close(s->sites);
    s->sites = NULL;
    s->site_count = 0;
}

static void sites_look(screen *s)
{
    if (!s->shows_sites || s->ended)
        return;
    if (!s->sites)
        s->sites = sites_open(s->pid, &s->sites_wrong);
    if (s->sites)
        s->site_count = sites_take(s->sites, s->site, SITES);
}

static void one_close(screen *s)
{
    sites_end(s);
    s->shows_sites = false;
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
    sites_look(s);
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

/* ---- keys ---- */

static void typed(screen *s, int key)
{
    size_t n = strlen(s->filter);
    if (key == KEY_ESCAPE)
        s->filter[0] = 0;
    if ((key == KEY_BACKSPACE || key == 127 || key == 8) && n > 0)
        s->filter[n - 1] = 0;
    if (key >= 32 && key < 127 && n + 1 < sizeof s->filter) {
        s->filter[n] = (char)key;
        s->filter[n + 1] = 0;
    }
    s->typing = key != KEY_ESCAPE && key != KEY_ENTER && key != '\n' && key != '\r';
}

/* Where line `at` of `count` goes with a key. */
static size_t moved(const screen *s, int key, size_t at, size_t count)
{
    size_t page = top_lines(s);
    switch (key) {
    case KEY_UP: return at > 0 ? at - 1 : 0;
    case KEY_DOWN: return at + 1;
    case KEY_PPAGE: return at > page ? at - page : 0;
    case KEY_NPAGE: return at + page;
    case KEY_HOME: return 0;
    case KEY_END: return count;
    default: return at;
    }
}

/* Another screen begins with its own order, and with everything. */
static void view_begin(screen *s, int key)
{
    s->key = key;
    s->filter[0] = 0;
    s->reversed = false;
    s->first = 0;
}

static void list_key(screen *s, int key)
{
    list_choose(s, moved(s, key, s->chosen, s->shown));
    if (key == 'a')
        s->arguments = !s->arguments;
    if ((key == KEY_ENTER || key == '\n' || key == '\r') && s->chosen < s->shown) {
        one_open(s, s->all.at[s->chosen].pid);
        view_begin(s, 'b');
    }
}

static void one_key(screen *s, int key)
{
    if (key == 'w') {
        s->shows_sites = !s->shows_sites;
        sites_end(s);
        sites_look(s);
        return;
    }
    s->first = moved(s, key, s->first, s->shown);
    if (s->only || (key != KEY_ESCAPE && key != KEY_LEFT && key != KEY_BACKSPACE))
        return;
    one_close(s);
    s->pid = 0;
    s->looked = 0;
    view_begin(s, 'u');
}

static void press_view(screen *s, int key)
{
    const char *sorts = s->pid ? "bu%rgn" : "urgfnp";
    if (key == '?' || key == 'h')
        s->help = true;
    else if (key == '/')
        s->typing = true;
    else if (key == 'i')
        s->reversed = !s->reversed;
    else if (key > 0 && key < 128 && strchr(sorts, key))
        s->key = key;
    else if (s->pid)
        one_key(s, key);
    else
        list_key(s, key);
}

/* False: quit. */
static bool press(screen *s, int key)
{
    if (key == 3 || (!s->typing && !s->help && (key == 'q' || key == 'Q')))
        return false;
    if (s->typing)
        typed(s, key);
    else if (s->help)
        s->help = key == KEY_RESIZE;
    else
        press_view(s, key);
    return true;
}

/* ---- the command ---- */

static void run(screen *s)
{
    for (int key = ERR;;) {
        look(s);
        top_draw(s);
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
    top_colours();
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
    puts("Usage: poolmalloc top [PROCESS] [--delay SECONDS]\n"
         "The pools of all processes that run on them, or of one in depth, on the whole screen and live.\n\n"
         "  -d, --delay SECONDS  between two looks; default 1\n"
         "  -h, --help\n\n"
         "PROCESS is a process id, or a name. Keys stand in the last line; ? shows all of them: sort, reverse, filter, scroll, the\n"
         "arguments of processes. Figures are bytes, K, M, G are powers of 1024; rates are since the last look.\n\n"
         "Examples:\n"
         "  poolmalloc top\n"
         "  poolmalloc top redis-server --delay 0.2");
}

int top_command(int argc, char **argv)
{
    static const struct option options[] = {
        {"delay", required_argument, NULL, 'd'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    static screen s = {.period = 1, .key = 'u'};
    static pid_t pids[PIDS_MOST];
    setlocale(LC_CTYPE, "");
    for (int o; (o = getopt_long(argc, argv, "d:h", options, NULL)) != -1;) {
        if (o == 'h') {
            help();
            return 0;
        }
        if (o == '?')
            return option_error("top", argv, options);
        if (!number_parse(optarg, 0.05, 3600, &s.period))
            return argument_error("is no number of seconds from 0.05 to 3600", optarg);
    }
    if (optind + 1 < argc)
        return argument_error("is one argument too many", argv[optind + 1]);
    if (optind == argc)
        return screen_run(&s);
    if (pids_find("top", argv + optind, 1, pids, PIDS_MOST) == 0)
        return EXIT_USAGE;
    live_result result = one_open(&s, pids[0]);
    if (result != LIVE_FOUND)
        return live_error("top", pids[0], &s.one.control, result);
    s.only = true;
    s.key = 'b';
    return screen_run(&s);
}
