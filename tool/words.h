/* words.h: what the tool says to people: sizes, names that were meant, output that could not be written. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* "1.5M": at most six columns; units are powers of 1024. */
const char *human(double bytes, char *to, size_t room);
#define HUMAN(bytes) human((double)(bytes), (char[24]){0}, 24)
/* "1.5 MiB", for sentences. */
const char *human_long(double bytes, char *to, size_t room);
#define HUMAN_LONG(bytes) human_long((double)(bytes), (char[24]){0}, 24)

/* The one of `count` words that `word` may have been meant to be, or NULL. */
const char *word_nearest(const char *word, const char *const *words, size_t count);
/* Of a path, what is behind its last slash. */
const char *last_part(const char *path);
/* Whether all of it is a number from least to most. */
bool number_parse(const char *from, double least, double most, double *to);
/* Whether the file is named as a picture that we cannot draw. */
bool picture_foreign(const char *path);
/* Flushes stdout: `status`, or EXIT_NOT_SO with one line when something could not be written. */
int stdout_close(int status);
