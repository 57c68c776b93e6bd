/* meet.h: how often each probe of the library was met (built with PM_MEET). */
#ifndef TEST_MEET_H
#define TEST_MEET_H

#include <stdint.h>

uint64_t meetings_with(const char *probe);

#endif
