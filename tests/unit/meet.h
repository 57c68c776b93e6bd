/* meet.h: how often each probe of the library was met (built with PM_MEET). */
#pragma once

#include <stdint.h>

uint64_t meetings_with(const char *probe);
