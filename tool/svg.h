/* svg.h: what all pictures are drawn with. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

/* A white picture with a title; NULL: errno. */
FILE *svg_open(const char *path, int width, int height, double x, const char *title);
bool svg_close(FILE *f); /* false: not all of it is written */
/* At most so many letters, and what XML needs escaped is. */
void svg_escaped(FILE *f, const char *text, size_t letters);
void svg_text(FILE *f, double x, double y, const char *anchor, const char *text);
void svg_box(FILE *f, double x, double y, double width, double height, const char *colour);
void svg_line(FILE *f, double x1, double y1, double x2, double y2, const char *stroke);
