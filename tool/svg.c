/* svg.c: see svg.h. May touch the file it is given. */
#include "svg.h"

#include <stdint.h>

void svg_escaped(FILE *f, const char *text, size_t letters)
{
    for (size_t n = 0; *text && n < letters; text++, n += ((unsigned char)*text & 0xc0) != 0x80)
        switch (*text) {
        case '<': fputs("&lt;", f); break;
        case '>': fputs("&gt;", f); break;
        case '&': fputs("&amp;", f); break;
        case '"': fputs("&quot;", f); break;
        default: fputc(*text, f);
        }
}

void svg_text(FILE *f, double x, double y, const char *anchor, const char *text)
{
    fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    svg_escaped(f, text, SIZE_MAX);
    fputs("</text>\n", f);
}

void svg_box(FILE *f, double x, double y, double width, double height, const char *colour)
{
    fprintf(f, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x, y, width, height, colour);
}

void svg_line(FILE *f, double x1, double y1, double x2, double y2, const char *stroke)
{
    fprintf(f, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2, stroke);
}

FILE *svg_open(const char *path, int width, int height, double x, const char *title)
{
    FILE *f = fopen(path, "we");
    if (!f)
        return NULL;
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n",
            width, height, width, height);
    svg_box(f, 0, 0, width, height, "#ffffff");
    fputs("<g font-size=\"16\">\n", f);
    svg_text(f, x, 30, "start", title);
    fputs("</g>\n", f);
    return f;
}

bool svg_close(FILE *f)
{
    fputs("</svg>\n", f);
    bool good = !ferror(f);
    return fclose(f) == 0 && good;
}
