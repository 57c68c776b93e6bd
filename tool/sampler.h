/* sampler.h: asks another process to sample who allocates, and copies the samples out of it. Writes one word of its memory,
 * `asked`, and nothing else. */
#pragma once

#include "insight/who.h"
#include "live.h"

typedef struct sampler {
    pid_t pid;
    control control;
    uint64_t word;      /* what we wrote last; 0: it samples by itself */
    uint64_t began;     /* ms: samples from before are not asked for */
    who_table table;    /* the last copy */
    uint64_t *places;   /* of the last copy */
    uint32_t *numbers;
    size_t room;        /* for records */
} sampler;

/* Asks, or joins in what is asked already. With anything but LIVE_FOUND there is nothing to close. */
live_result sampler_open(sampler *s, pid_t pid, size_t rate);
/* Says that we are still there: at least every SAMPLER_BEAT_MS. */
#define SAMPLER_BEAT_MS 500
live_result sampler_beat(sampler *s);
/* Calls with each sample of a block in use that was taken since sampler_open (all: since ever). When `wanted` says so, its
 * stack is copied too. Not LIVE_FOUND: the process is gone. */
typedef struct sample_reader {
    bool (*wanted)(void *context, uint64_t number);
    void (*take)(void *context, const who_sample *s, const void *stack); /* stack: NULL where not wanted */
    void *context;
    size_t torn; /* samples that made no sense, and were left out */
} sample_reader;
live_result sampler_read(sampler *s, bool all, sample_reader *reader);
/* Ends the sampling, unless somebody else has asked since. */
void sampler_close(sampler *s);
