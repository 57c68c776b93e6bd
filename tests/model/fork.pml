/* The rule of src/pools/fork.h, for all interleavings of two threads with slow paths, a thread that forks and whose handlers allocate, and
 * a signal handler that forks out of the midst of one of these: thread 0's slow path, or the forking thread's fork. Threads have the
 * names of src/pools/fork.c's variables. A slow path takes the shared lock and moves a block between the shared list and its heap.
 * run.py also checks models with one step wrong, each of which must fail. */

#define THREADS 3
#define FORKER 2
#define FREE 255
#define BLOCKS 3

byte inside[THREADS];  /* heap.inside, and which thread interrupts itself */
byte shared = FREE;    /* the registry's lock, and the depot's: who holds it */
byte depot = BLOCKS;   /* blocks in the shared list */
byte in_heap[THREADS]; /* blocks in a heap's lists */
byte in_hand[THREADS]; /* blocks that a slow path has taken from one list, and not yet put on another */
byte remote;           /* blocks left with their slab: what a thread frees that may not enter */
byte pm_forking;
byte forks[THREADS];   /* mine.forks */
byte passed[THREADS];  /* forks of this thread that have seen the others rest, and have not ended */
bool began[THREADS];   /* on a slow path that has passed its look at pm_forking */
bool gave_up[THREADS]; /* a fork's patience is over: its child forwards everything */
byte interrupted = FREE; /* the process, worker 0 or the forker, on whose thread the signal handler runs now */

#define forks_alone(t) (forks[t] > 0 && pm_forking == forks[t])

/* No other thread is on a slow path when a fork takes its picture, and none has a block in hand or the lock. */
#define others_whole(t) \
    (!(t != 0 && began[0]) && !(t != 1 && began[1]) && !(t != 2 && began[2]) && (shared == FREE || shared == t))
#define all_there (depot + in_heap[0] + in_heap[1] + in_heap[2] + in_hand[0] + in_hand[1] + in_hand[2] + remote == BLOCKS)

/* heap_enter, up to heap_leave. What it cannot do now: malloc forwards; free leaves the block. */
inline slow_path(t, free)
{
    if
    :: inside[t] -> skip /* a signal handler within a slow path */
    :: else ->
#ifdef LOOK_FIRST
        if
        :: pm_forking == 0 || forks_alone(t) -> inside[t] = 1; goto_work(t, free)
        :: else -> give_remote(t, free)
        fi
#else
        inside[t] = 1;
        if
        :: pm_forking == 0 || forks_alone(t) -> goto_work(t, free)
        :: else -> inside[t] = 0; give_remote(t, free)
        fi
#endif
    fi
}

inline give_remote(t, free)
{
    if
    :: atomic { free && in_heap[t] > 0 -> in_heap[t]--; remote++ }
    :: else -> skip
    fi
}

inline goto_work(t, free)
{
    began[t] = true;
    assert(passed[0] == 0 || t == 0);
    assert(passed[1] == 0 || t == 1);
    assert(passed[2] == 0 || t == 2);
    atomic { shared == FREE -> shared = t };
    if
    :: atomic { free && in_heap[t] > 0 -> in_heap[t]--; in_hand[t]++ }; atomic { in_hand[t]--; depot++ }
    :: atomic { !free && depot > 0 -> depot--; in_hand[t]++ }; atomic { in_hand[t]--; in_heap[t]++ }
    :: else -> skip
    fi;
    assert(shared == t);
    shared = FREE;
    began[t] = false;
    inside[t] = 0
}

#define rests(t, other) (t == other || !inside[other])

/* fork_prepare and the picture that fork takes. No plain fork has to give up. A thread that has interrupted its own slow path may wait for
 * one that wants a lock which it holds itself: its patience ends (timeout: nothing else can happen). */
inline fork_begin(t)
{
    atomic { pm_forking++; forks[t]++; gave_up[t] = false }; /* no signal comes in between */
#ifndef NO_WAIT
#ifdef NESTED_WAITS_NOT
    if :: forks[t] > 1 -> skip :: else ->
#endif
    if
    :: rests(t, 0) -> skip
    :: timeout && inside[t] -> atomic { assert(began[t] && shared == t); gave_up[t] = true }
    fi;
    if
    :: rests(t, 1) -> skip
    :: timeout && inside[t] -> atomic { assert(began[t] && shared == t); gave_up[t] = true }
    fi;
    if
    :: rests(t, 2) -> skip
    :: timeout && inside[t] -> atomic { assert(began[t] && shared == t); gave_up[t] = true }
    fi;
#ifdef NESTED_WAITS_NOT
    fi;
#endif
#endif
    passed[t] = passed[t] + (gave_up[t] -> 0 : 1);
    atomic { assert(gave_up[t] || (others_whole(t) && all_there)) }
}

inline fork_end(t)
{
    passed[t] = passed[t] - (passed[t] > 0 -> 1 : 0);
    atomic { forks[t]--; pm_forking-- }
}

proctype worker(byte me; bool first) provided (interrupted != _pid)
{
    slow_path(me, first);
    slow_path(me, !first);
}

proctype forker() provided (interrupted != _pid)
{
    slow_path(FORKER, false);
    fork_begin(FORKER);
    slow_path(FORKER, true); /* a handler that was registered earlier */
    fork_end(FORKER);
}

/* Any time, once. It allocates too: within a slow path it is forwarded. */
proctype handler(byte worker_0, of_forker)
{
    if
    :: interrupted = worker_0;
        slow_path(0, false);
        fork_begin(0);
        fork_end(0)
    :: interrupted = of_forker;
        slow_path(FORKER, false);
        fork_begin(FORKER);
        fork_end(FORKER)
    fi;
    interrupted = FREE
}

init
{
    byte first, last;
    atomic {
        first = run worker(0, false);
        run worker(1, false);
        last = run forker();
        run handler(first, last)
    };
    _nr_pr == 1;
    assert(pm_forking == 0 && shared == FREE);
    assert(all_there)
}
