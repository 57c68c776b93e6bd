/* os.h: Everything asked of the kernel, by syscall(2): errno stays as it is, and no wrapper of the C library that another
 * preloaded library may have hooked is called. Results below zero are negated error numbers. */
#pragma once

#include "ground/base.h"

#define OS_DEEPBIND 8 /* glibc's RTLD_DEEPBIND; nothing elsewhere */

/* A mutex of one word: 0 free, else os_generation plus 1, held, or 2, held and somebody may sleep. Spins briefly, then sleeps in the kernel.
 * Acquire on taking pairs with release on letting go. In the child of a fork the generation is another one: what a thread of the parent's
 * held is the next taker's, who learns that it inherits. The forking thread's own it gives back as ever. */
typedef struct os_lock {
    uint32_t state;
} os_lock;

extern uint32_t os_generation __attribute__((visibility("hidden"))); /* a multiple of 4; os_forked changes it, in the child, with one thread */
void os_forked(void);

bool os_lock_inherit(os_lock *l); /* false: it is not a former generation's */
bool os_lock_wait(os_lock *l);    /* true: inherited */
void os_wait(uint32_t *word, uint32_t value); /* until it is woken, or the word has another value; or less */
void os_wake(uint32_t *word);                 /* one */

INLINE bool os_lock_try_free(os_lock *l, uint32_t how)
{
    uint32_t zero = 0;
    return __atomic_compare_exchange_n(&l->state, &zero, os_generation + how, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}
INLINE bool os_lock_try(os_lock *l) { return LIKELY(os_lock_try_free(l, 1)) || os_lock_inherit(l); }
/* True: inherited; what it guards may be in the midst of a change, where no fork waits for its holders. */
INLINE bool os_lock_take(os_lock *l) { return UNLIKELY(!os_lock_try_free(l, 1)) && os_lock_wait(l); }
INLINE void os_lock_give(os_lock *l)
{
    if (UNLIKELY(__atomic_exchange_n(&l->state, 0, __ATOMIC_RELEASE) & 2))
        os_wake(&l->state);
}

/* True: this process has had but one thread so far, says the C library; false: it may have others, or nobody says. */
extern char __libc_single_threaded __attribute__((weak));
INLINE bool os_single_thread(void) { return &__libc_single_threaded && LOAD(&__libc_single_threaded); }

/* Maps `bytes` read-write exactly at `at`; false when anything lies there or the system refuses. */
bool os_map_at(void *at, size_t bytes);
void *os_map(size_t bytes); /* somewhere; NULL when refused */
/* Reserves (PROT_NONE) somewhere; NULL when refused. */
void *os_reserve(size_t bytes);
bool os_commit(void *at, size_t bytes);
bool os_uncommit(void *at, size_t bytes);             /* nobody may touch them until they are committed again; what is there stays */
void os_unmap(void *at, size_t bytes);
void os_shut(void *at, size_t bytes);                 /* nobody may touch them any more; what was there is gone */
bool os_shut_hole(void *at, size_t bytes);            /* the same where nothing is mapped; false: another thread was there first */
/* Pages, onto others, which they replace, and as many more as fill to_bytes, all as one mapping. Where they were is a hole. */
bool os_move(void *from, size_t bytes, void *to, size_t to_bytes);

bool os_purge(void *at, size_t bytes);                /* pages go back and read as zero; false: nothing changed */
void os_huge(void *at, size_t bytes, bool wanted);    /* a wish: failure is no error */
void os_populate(void *at, size_t bytes);
bool os_mlock(void *at, size_t bytes);
void os_name(void *at, size_t bytes, const char *name); /* shown in /proc/PID/maps where the kernel can */
size_t os_resident(void *at, size_t bytes);           /* bytes of [at, at + bytes) in memory; both page-aligned */

/* Descriptors of ours are close-on-exec, and none below 100 stays open. */
int os_open(const char *path, int flags, int mode);
int os_keep(int fd); /* a duplicate */
long os_read(int fd, void *to, size_t bytes);
/* All of it, or false. The program notices nothing: no signal that a write may raise, and no more than a second's wait for
 * somebody who does not read. */
bool os_write(int fd, const void *from, size_t bytes);
void os_close(int fd);
long os_readlink(const char *path, char *to, size_t bytes);

void *os_map_file(int fd, size_t bytes);                /* shared and writable; NULL when refused */
typedef struct os_id {
    uint64_t device, file;
} os_id;
bool os_file_id(int fd, os_id *id);         /* false: fd is not open */
bool os_folder(char *to, size_t bytes);     /* the current one; false: it has no name that fits */

/* Until the release no signal reaches this thread; it gets what the hold returned. */
uint64_t os_signals_hold(void);
void os_signals_release(uint64_t before);

/* A lock under which no signal arrives. It names the process, so that the child of a fork finds it free whatever thread of its
 * parent had it. */
typedef struct os_claim {
    uint32_t process; /* or 0 */
    uint64_t held;    /* the taker's signals */
} os_claim;

/* False, without `wait`: another thread has it. */
bool os_claim_take(os_claim *c, bool wait);
void os_claim_give(os_claim *c);

void os_exit_watch(bool *exiting);   /* set when the program ends, before any destructor: an object that is unloaded earlier … */
void os_exit_unwatch(bool *exiting); /* … takes this back, since its code goes; the flag is set then too */

uint64_t os_now_ms(void);      /* monotonic, coarse */
uint64_t os_random(void);      /* from the kernel's 16 bytes at program start; no system call */
uint64_t os_secret(void);      /* another one each time, that nothing else tells */
uintptr_t os_address_limit(void);
size_t os_page_size(void);
size_t os_address_space(void); /* RLIMIT_AS in bytes, SIZE_MAX when unlimited */
size_t os_memory(void);        /* RAM in bytes */
unsigned os_processors(void);  /* that the process's first thread may run on; 0: not known */
bool os_privileged(void);      /* AT_SECURE: the environment is not to be trusted */
const char *os_program(void);  /* the path that exec was given, or NULL */
uint32_t os_pid(void);
bool os_readable(const void *word); /* whether 8 bytes can be read there: the kernel tries */
void os_signal_again(int number, const void *info); /* to the calling thread, as a signal handler was given it */
uintptr_t os_interrupted(const void *context); /* where, by what a signal handler is given; 0: not known */
/* Up to `most` return addresses on the calling thread's stack, from `first` on (0: all), innermost first: what looks like one.
 * Machines other than x86-64 know `first` alone. */
size_t os_callers(uintptr_t *to, size_t most, uintptr_t first);
uint32_t os_thread(void);                 /* its id, as the kernel counts them */
bool os_thread_lives(uint32_t process, uint32_t id); /* true too where the kernel does not say */
void os_pause(unsigned turn);             /* between looks at what another thread is about to do: yields, later sleeps */
void os_abort(void) __attribute__((noreturn));

/* What an unwinder begins with: as they are in the caller, just after the call. All zero on machines that have no such function. */
typedef struct os_registers {
    uintptr_t pc, sp, saved[6]; /* rbp, rbx, r12 to r15 */
} os_registers;
void os_registers_save(os_registers *to);
uintptr_t os_stack_end(uintptr_t from); /* of the stack that `from` lies in, if it is the calling thread's own, else far away */
