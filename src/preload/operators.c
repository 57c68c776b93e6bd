/* operators.c: C++'s new and delete. What fails is handed over to the C++ runtime's own. */
#include "preload/malloc.h"

#include "ground/os_malloc.h"
#include "ground/text.h"

#include <dlfcn.h>
#include <string.h>

/* What the object that `caller` lies in defines itself, as one does that has the C++ runtime linked in; else NULL. */
static void *callers_operator(const char *name, const void *caller)
{
    Dl_info of_caller, of_found;
    if (!dladdr(caller, &of_caller) || !of_caller.dli_fname)
        return NULL;
    void *object = dlopen(of_caller.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (!object)
        object = dlopen(NULL, RTLD_LAZY); /* the program is not known by a name */
    void *f = object ? dlsym(object, name) : NULL;
    if (object)
        dlclose(object);
    return f && dladdr(f, &of_found) && of_found.dli_fbase == of_caller.dli_fbase ? f : NULL;
}

static void *shared_operator(const char *name)
{
    static const char *const runtimes[] = {"libstdc++.so.6", "libc++.so.1"};
    void *f = NULL;
    for (size_t i = 0; i < sizeof runtimes / sizeof *runtimes && !f; i++) {
        void *runtime = dlopen(runtimes[i], RTLD_LAZY | RTLD_NOLOAD);
        f = runtime ? dlsym(runtime, name) : NULL;
    }
    return f;
}

static COLD void *runtime_function(const char *name, const void *caller)
{
    __atomic_add_fetch(&pm_seekers, 1, __ATOMIC_RELAXED);
    void *f = callers_operator(name, caller);
    f = f ? f : shared_operator(name);
    __atomic_sub_fetch(&pm_seekers, 1, __ATOMIC_RELAXED);
    return f;
}

/* The C++ runtime's own operator, to which a failing one hands over: it knows new_handler and bad_alloc. Never another
 * malloc library's. NULL: there is none, and the nothrow forms need none to say so. */
static COLD void *runtime_operator(const char *name, const void *caller)
{
    void *f = runtime_function(name, caller);
    if (!f && !strrchr(name, 'K')) /* const, in what is mangled: std::nothrow_t */
        report_abort("%s: out of memory, and no C++ runtime to say so", name);
    return f;
}

#define OPERATOR_NEW(name, symbol, get, parameters, ...)                                                               \
    PM_EXPORT void *name parameters __asm__(symbol);                                                                   \
    PM_EXPORT void *name parameters                                                                                    \
    {                                                                                                                  \
        void *(*runtime) parameters;                                                                                   \
        void *p = get;                                                                                                 \
        if (LIKELY(p != NULL))                                                                                         \
            return p;                                                                                                  \
        *(void **)&runtime = runtime_operator(symbol, CALLER);                                                         \
        return runtime ? runtime(__VA_ARGS__) : NULL;                                                                  \
    }

INLINE void *new_aligned(size_t size, size_t align, maker by)
{
    if (!is_power_of_two(align))
        return NULL;
    size_t least = size_max(align, QUANTUM);
    return PM_HARDENED ? allocate_aligned(size, least, made_aligned(by, align), CALLER) : memalign(least, size);
}
typedef const void *nothrow_tag;

/* What the C++ runtime's own operators do when memory is short; but theirs would take it from malloc, and delete would then tell that it
 * is none of new's. Nothrow forms call throwing ones. NULL: there is no handler any more, which the runtime is to say. */
static COLD void *new_after_handler(size_t size, size_t align, made how, const void *caller)
{
    void (*(*handler)(void))(void), (*handle)(void);
    void *p = NULL;
    *(void **)&handler = runtime_function("_ZSt15get_new_handlerv", caller);
    while (PM_HARDENED && !p && handler && (handle = handler()) != NULL) {
        handle();
        p = allocate_aligned(size, size_max(align, QUANTUM), how, caller);
    }
    return p;
}

INLINE void *new_aligned_throwing(size_t size, size_t align, maker by)
{
    void *p = new_aligned(size, align, by);
    return PM_HARDENED && UNLIKELY(!p) && is_power_of_two(align) ? new_after_handler(size, align, made_aligned(by, align), CALLER) : p;
}

/* As the standard says, and programs that replace only some of them rely on: array forms call the single ones, nothrow
 * forms the throwing ones (in the runtime, which can catch), all deletes the plain one; through the symbol table. */
static NOINLINE void *new_slow(size_t size, const void *caller)
{
    void *(*runtime)(size_t);
    void *p = allocate(size, BY_NEW);
    if (PM_HARDENED && UNLIKELY(!p))
        p = new_after_handler(size, QUANTUM, BY_NEW, caller);
    if (LIKELY(p != NULL))
        return p;
    *(void **)&runtime = runtime_operator("_Znwm", caller);
    return runtime(size);
}

static void *ours_new(size_t size)
{
    void *p = PM_HARDENED ? allocate_hardened(size, BY_NEW, CALLER) : LIKELY(size <= BLOCK_MAX) ? bin_pop(bin_of_size(my_heap, size)) : NULL;
    return LIKELY(p != NULL) ? p : new_slow(size, CALLER);
}

void *new_single(size_t size) __asm__("_Znwm") __attribute__((alias("ours_new"), visibility("default"), used));

INLINE bool new_is_replaced(void) { return new_single != ours_new; }

PM_EXPORT void *new_array(size_t size) __asm__("_Znam");
PM_EXPORT void *new_array(size_t size)
{
    void *p = NULL;
    if (PM_HARDENED && !new_is_replaced()) {
        p = allocate_hardened(size, BY_NEW_ARRAY, CALLER);
        p = LIKELY(p != NULL) ? p : new_after_handler(size, QUANTUM, BY_NEW_ARRAY, CALLER);
    }
    return UNLIKELY(p != NULL) ? p : new_single(size);
}
OPERATOR_NEW(new_single_nothrow, "_ZnwmRKSt9nothrow_t", new_is_replaced() ? NULL : allocate(size, BY_NEW), (size_t size, nothrow_tag tag), size, tag)
OPERATOR_NEW(new_array_nothrow, "_ZnamRKSt9nothrow_t", new_is_replaced() ? NULL : allocate(size, BY_NEW_ARRAY), (size_t size, nothrow_tag tag), size, tag)
OPERATOR_NEW(new_single_aligned, "_ZnwmSt11align_val_t", new_aligned_throwing(size, align, BY_NEW), (size_t size, size_t align), size, align)
OPERATOR_NEW(new_array_aligned, "_ZnamSt11align_val_t", new_aligned_throwing(size, align, BY_NEW_ARRAY), (size_t size, size_t align), size, align)
OPERATOR_NEW(new_single_aligned_nothrow, "_ZnwmSt11align_val_tRKSt9nothrow_t", new_aligned(size, align, BY_NEW),
             (size_t size, size_t align, nothrow_tag tag), size, align, tag)
OPERATOR_NEW(new_array_aligned_nothrow, "_ZnamSt11align_val_tRKSt9nothrow_t", new_aligned(size, align, BY_NEW_ARRAY),
             (size_t size, size_t align, nothrow_tag tag), size, align, tag)

static void ours_delete(void *p) { release(p, CALL_DELETE, SIZE_MAX); }

void delete_single(void *p) __asm__("_ZdlPv");
void delete_single(void *p) ALIAS_OF(ours_delete);

INLINE bool delete_is_replaced(void) { return delete_single != ours_delete; }

/* Tags come in a further register, which is not looked at; sizes and alignments are the hardened library's alone. All forms go to
 * the plain one, which may be the program's own, but for those of aligned blocks: these come from the same pools and next
 * allocator, and go past it. */
#define OPERATOR_DELETE(name, symbol, call, said, ...)                                                                 \
    PM_EXPORT void name(__VA_ARGS__) __asm__(symbol);                                                                  \
    PM_EXPORT void name(__VA_ARGS__)                                                                                   \
    {                                                                                                                  \
        if (PM_HARDENED && !delete_is_replaced())                                                                      \
            release(p, call, said);                                                                                    \
        else                                                                                                           \
            delete_single(p);                                                                                          \
    }
#define OPERATOR_DELETE_ALIGNED(name, symbol, call, said, ...)                                                         \
    PM_EXPORT void name(__VA_ARGS__) __asm__(symbol);                                                                  \
    PM_EXPORT void name(__VA_ARGS__) { release_given(p, giving_aligned(call, align), said); }

OPERATOR_DELETE(delete_array, "_ZdaPv", CALL_DELETE_ARRAY, SIZE_MAX, void *p)
OPERATOR_DELETE(delete_single_nothrow, "_ZdlPvRKSt9nothrow_t", CALL_DELETE, SIZE_MAX, void *p)
OPERATOR_DELETE(delete_array_nothrow, "_ZdaPvRKSt9nothrow_t", CALL_DELETE_ARRAY, SIZE_MAX, void *p)
OPERATOR_DELETE(delete_single_sized, "_ZdlPvm", CALL_DELETE, size, void *p, size_t size)
OPERATOR_DELETE(delete_array_sized, "_ZdaPvm", CALL_DELETE_ARRAY, size, void *p, size_t size)
OPERATOR_DELETE_ALIGNED(delete_single_aligned, "_ZdlPvSt11align_val_t", CALL_DELETE, SIZE_MAX, void *p, size_t align)
OPERATOR_DELETE_ALIGNED(delete_array_aligned, "_ZdaPvSt11align_val_t", CALL_DELETE_ARRAY, SIZE_MAX, void *p, size_t align)
OPERATOR_DELETE_ALIGNED(delete_single_aligned_nothrow, "_ZdlPvSt11align_val_tRKSt9nothrow_t", CALL_DELETE, SIZE_MAX, void *p, size_t align)
OPERATOR_DELETE_ALIGNED(delete_array_aligned_nothrow, "_ZdaPvSt11align_val_tRKSt9nothrow_t", CALL_DELETE_ARRAY, SIZE_MAX, void *p,
                        size_t align)
OPERATOR_DELETE_ALIGNED(delete_single_sized_aligned, "_ZdlPvmSt11align_val_t", CALL_DELETE, size, void *p, size_t size, size_t align)
OPERATOR_DELETE_ALIGNED(delete_array_sized_aligned, "_ZdaPvmSt11align_val_t", CALL_DELETE_ARRAY, size, void *p, size_t size, size_t align)
